"""`hostledger what-if`: the demand that was recorded, under another configuration, simulated."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from application import reports, what_if
from application.failures import BrokenConfiguration
from application.ports import CallFailed
from interfaces.cli import options, output
from interfaces.cli.report import add_window
from interfaces.read_side import Call, price_list

RUNS = ("recorded", "present", "config")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_provider(parser)
    parser.add_argument(
        "--config",
        type=options.text,
        metavar="FILE",
        required=True,
        help="a configuration to try in place of ours",
    )
    options.add_output(parser)
    add_window(parser)


def run(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.configuration import settings_of

    other_path = os.path.abspath(arguments.config)
    arguments.config = None
    call = options.reading(arguments)
    other, warnings = settings_of(call.site, call.environ, other_path)
    for warning in warnings:
        print(f"hostledger: {warning}", file=sys.stderr)
    listed = price_list(call)
    with closing(call.log()) as view:
        window = reports.window_of(view, arguments.since, arguments.until, call.clock.now()[0])
        recorded = what_if.measures(view, window, listed)
        boot_time = what_if.boot_time(view, window)
        present, _ = _simulated(
            call, view, window, listed, call.settings, boot_time, _Progress("present")
        )
        config, counts = _simulated(
            call, view, window, listed, other, boot_time, _Progress("config")
        )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    document = {
        **window.told(),
        "config": other_path,
        "demand": counts,
        "boot_time": boot_time,
        "measures": _side_by_side(recorded, present, config),
        "limits": list(what_if.LIMITS),
    }
    if output.is_data(arguments):
        output.show_data(arguments, document, "measures")
    else:
        _tell(document)
    return 0


class _Progress:
    """Which hour it is there, on a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hour = -1

    def __call__(self, now: float) -> None:
        hour = int(now // 3600)
        if hour != self._hour and sys.stderr.isatty():
            self._hour = hour
            said = time.strftime("%Y-%m-%d %H:00", time.gmtime(now))
            print(f"\r{self._name}: {said}", end="", file=sys.stderr, flush=True)


def _simulated(
    call: Call,
    view: Any,
    window: reports.Window,
    listed: reports.Listed,
    settings: dict[str, Any],
    boot_time: float,
    progress: Callable[[float], object],
) -> tuple[dict[str, Any], dict[str, int]]:
    """What comes of the demand under these settings, and what the demand was."""
    from interfaces.worker.simulated import run_through
    from interfaces.write_side.simulation import simulation

    with simulation(settings, call.site.provider, window.since, boot_time) as simulated:
        demand = what_if.Demand(
            view,
            window,
            simulated.store,
            simulated.work().living_machines_of,
            simulated.random,
            settings["provider"]["fulfilment_deadline"],
        )
        try:
            run_through(simulated, demand, window.until, progress)
        except CallFailed as failed:
            raise BrokenConfiguration(str(failed)) from None
        with closing(simulated.storage.queries()) as after:
            found = what_if.measures(after, window, listed)
        calls = simulated.calls()
    found["AWS calls"] = sum(calls.values())
    found |= {f"AWS calls of {api}": count for api, count in sorted(calls.items())}
    return found, dict(demand.counts)


def _side_by_side(*runs: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a measure. What a run has nothing of is 0, but for a cost, which is unknown then, and
    for what the log does not have: how often AWS was called."""
    names = list(dict.fromkeys(name for run in runs[::-1] for name in run))

    def value(run: dict[str, Any], name: str) -> Any:
        is_cost = name.startswith("cost")
        is_call = name.startswith("AWS calls")
        return run.get(name, None if is_cost or (is_call and run is runs[0]) else 0)

    return [
        {
            "measure": name,
            **{run: value(found, name) for run, found in zip(RUNS, runs, strict=True)},
        }
        for name in names
    ]


def _tell(document: dict[str, Any]) -> None:
    counts = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in document["demand"].items()
    )
    print(f"{document['since']} to {document['until']}: {counts or 'no demand'}")
    print(f"simulated twice, machines boot in {document['boot_time']} s: with the configuration as")
    print(f"it is now (present), and with {document['config']} (config)\n")
    output.show_table(document["measures"], ("measure", *RUNS))
    print("\nWhat this can and cannot show:")
    for sentence in document["limits"]:
        print(f"* {sentence}")
