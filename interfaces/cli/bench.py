"""`hostledger bench`: what requests, polls, starts and replays cost here, beside the requirements.

Everything is done on stores in a temporary directory, or in one that is named and empty; nothing is
sent to AWS.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from application.failures import BrokenConfiguration, StoreError
from interfaces.bench import comparing, picture, requirements, telling
from interfaces.bench.measures import PARTS, QUICK, Bench, Sizes
from interfaces.bench.sites import STORES, Workshop, kind_of
from interfaces.cli import options, output
from interfaces.cli import picture as pictures

ON_GIVEN = ("requests", "scripts", "polls", "replay", "load")
"""Parts that can be measured on a store that was named."""


# Not /tmp, which may be memory, where waiting for the disk shows nothing.
ON_DISK = "/var/tmp"  # nosec B108

ASKED = ("requests", "scripts", "load", "faults", "cold_starts")
"""Parts that the requirements have figures for."""


def _results(value: str) -> str:
    if not value.endswith(".json"):
        raise ValueError(value)
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_output(parser)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--stores", nargs="+", choices=STORES, metavar="STORE", help=f"of {', '.join(STORES)}"
    )
    parser.add_argument(
        "--store",
        default=argparse.SUPPRESS,
        metavar="PLACE",
        help="measure this store, where none may be yet; what is measured stays in it",
    )
    parser.add_argument(
        "--config",
        type=options.text,
        metavar="FILE",
        help="our configuration: stores are as durable as its section storage says",
    )
    parser.add_argument("--quick", action="store_true", help="little of each: to see that it works")
    parser.add_argument(
        "--requirements",
        action="store_true",
        help="print the lines of the requirements, with their figures beside ours",
    )
    parser.add_argument(
        "--compare",
        metavar="OLD.json",
        help="compare ratios and counts with an earlier run; exit 1 when any is much worse",
    )
    parser.add_argument(
        "--save",
        type=_results,
        metavar="FILE.json",
        help="keep the results, and beside them their page (FILE.md) and its picture (FILE.svg)",
    )
    parser.add_argument(
        "--plot", type=pictures.file, metavar="FILE", help="a picture too (.png or .svg)"
    )
    parser.add_argument(
        "--beside-orb",
        action="store_true",
        help="install orb-py for this run and measure it beside ours (needs a package index)",
    )


def run(arguments: argparse.Namespace) -> int:
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) == signal.SIG_DFL:
            # As Ctrl-C does: a worker, a server and directories are not to be left.
            signal.signal(ending, signal.default_int_handler)
    old = _read(arguments.compare) if arguments.compare else None
    draw = pictures.writer(arguments.plot) if arguments.plot else None
    document = _measured(arguments)
    if arguments.save:
        _save(arguments.save, document)
    if draw is not None:
        charts = picture.charts(document)
        draw(picture.shapes(charts), picture.height(charts))
        _say(f"{arguments.plot} is written")
    compared = None if old is None else comparing.compare(old, document)
    if output.is_data(arguments):
        shown = document if compared is None else {**document, "compared": compared}
        output.show_data(arguments, shown)
    elif arguments.requirements:
        print("\n".join(requirements.lines(document)).rstrip())
    elif compared is None:
        _tell(document)
    status = 0 if compared is None else _tell_compared(arguments, compared)
    return status or _tell_disagreement(document)


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    given = arguments.store
    stores: Sequence[str] = arguments.stores or STORES
    parts: Sequence[str] = arguments.only or (ASKED if arguments.requirements else list(PARTS))
    if given is not None:
        stores = [kind_of(given)]
        parts = [part for part in arguments.only or ON_GIVEN if part in ON_GIVEN]
        if not parts:
            raise StoreError(f"--store: what can be measured there is {', '.join(ON_GIVEN)}")
    where = os.environ.get("TMPDIR") or ON_DISK
    with (
        tempfile.TemporaryDirectory(prefix="hostledger-bench-", dir=where) as directory,
        Workshop(directory, _storage(arguments.config), given) as workshop,
    ):
        sizes = QUICK if arguments.quick else Sizes()
        document = Bench(workshop, stores, parts, sizes, _say, arguments.beside_orb).run()
    if given is not None:
        _say("what was measured is left in the store that was named")
    return document


def _storage(path: str | None) -> dict[str, Any]:
    """The section `storage` of a configuration, without the stores' places: those are ours."""
    if path is None:
        return {}
    from interfaces.read_side import site_from
    from interfaces.write_side.configuration import settings_of

    nowhere = {"HF_PROVIDER_NAME": "bench", "HF_PROVIDER_CONFDIR": "/", "HF_PROVIDER_WORKDIR": "/"}
    settings, _ = settings_of(site_from(nowhere), nowhere, os.path.abspath(path))
    section = settings["storage"]
    return {
        name: {key: section[name][key] for key in keys}
        for name, keys in (
            (
                "json_strategy",
                ("storage_type", "enable_compression", "write_buffer_size", "sync_writes"),
            ),
            ("sql_strategy", ("pool_size", "max_overflow", "pool_timeout", "pool_recycle")),
        )
    }


def _read(path: str) -> dict[str, Any]:
    """The results of an earlier run. Raises BrokenConfiguration, OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        list(comparing.ratios(document))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BrokenConfiguration(
            f"{path} is not what `hostledger bench --save` wrote: {type(error).__name__}: {error}"
        ) from None
    return document  # type: ignore[no-any-return]


def _save(path: str, document: dict[str, Any]) -> None:
    """The results, and beside them their page and the picture on it."""
    name = path.removesuffix(".json")
    charts = picture.charts(document)
    drawn = {".svg": pictures.svg(picture.shapes(charts), picture.height(charts))} if charts else {}
    page = telling.page(document, os.path.basename(name) + ".svg" if charts else "")
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    for ending, content in {".json": text, ".md": page, **drawn}.items():
        with open(name + ending, "w", encoding="utf-8") as file:
            file.write(content)
        _say(f"{name}{ending} is written")


def _say(what: str) -> None:
    print(f"hostledger bench: {what}", file=sys.stderr, flush=True)


def _tell(document: dict[str, Any]) -> None:
    print(telling.measured_on(document))
    for line in telling.left_out(document):
        print(line)
    for table in telling.tables(document):
        print()
        for line in telling.plain(table):
            print(output.fitted(line))


def _tell_disagreement(document: dict[str, Any]) -> int:
    """1 where faults have led ledger and cloud apart, or left a request without its machine."""
    wrong = [
        row
        for row in document.get("faults", ())
        if not row["agree"] or row["fulfilled"] < row["count"]
    ]
    for row in wrong:
        _say(requirements.agreement(row))
    return 1 if wrong else 0


def _tell_compared(arguments: argparse.Namespace, compared: list[dict[str, Any]]) -> int:
    """What became of what both runs have; 1 when anything is worse than its bound allows."""
    worse = [row for row in compared if row["worse"]]
    if arguments.output == "table":
        print(f"\nBeside {arguments.compare}: ratios and counts that both runs have")
        output.show_table(compared, ("what", "old", "new", "times", "bound"), "nothing in common")
    for row in worse:
        _say(
            f"worse: {row['what']}: {row['new']:g}, was {row['old']:g}: {row['times']} times as "
            f"much, more than {row['bound']:g}"
        )
    if not compared:
        raise StoreError(
            f"{arguments.compare} and this run have nothing in common: measure the same parts, "
            "stores and sizes"
        )
    return 1 if worse else 0
