"""`hostledger orphans list | adopt | terminate`: instances with our tag that the ledger lacks."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from application import queries
from interfaces.cli import options, output

COLUMNS = ("machine_id", "state", "zone", "launch_time", "sweeps", "batch_id")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    options.add_action(actions, "list", list_orphans, "as the last complete sweep saw them")
    adopting = options.add_action(
        actions, "adopt", adopt, "make instances of that list machines of the ledger"
    )
    adopting.add_argument("machine_ids", type=options.text, metavar="ID", nargs="+")
    options.add_reason(adopting)
    ending = options.add_action(
        actions, "terminate", terminate, "have the worker terminate instances of that list"
    )
    ending.add_argument("machine_ids", type=options.text, metavar="ID", nargs="+")
    options.add_reason(ending)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_orphans(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).queries()) as view:
        rows = queries.orphans(view)
    return output.show_rows(arguments, "orphans", rows, COLUMNS, "no orphan")


def _under_way(side: Any) -> set[str]:
    """Machines of terminations without an answer, in whatever account."""
    rows = [row for work in side.works().values() for row in work.open_terminations()]
    return {machine_id for row in rows for machine_id in row["machine_ids"]}


def adopt(arguments: argparse.Namespace) -> int:
    from application.adopt_orphans import AdoptOrphans, adopt_orphans

    side = options.writing(arguments)
    with options.ledger_of(side) as ledger:
        command = AdoptOrphans(
            arguments.machine_ids,
            side.queries().orphans(),
            _under_way(side),
            side.site().provider,
            arguments.reason,
            side.random()(16),
        )
        adopt_orphans(command, ledger)
    if output.is_data(arguments):
        output.show_data(arguments, {"machine_ids": command.machine_ids})
    else:
        print("\n".join(command.machine_ids))
    return 0


def terminate(arguments: argparse.Namespace) -> int:
    from application.terminate_orphans import TerminateOrphans, terminate_orphans

    side = options.writing(arguments)
    with options.ledger_of(side) as ledger:
        command = TerminateOrphans(
            arguments.machine_ids,
            side.queries().orphans(),
            _under_way(side),
            arguments.reason,
            side.settings().provider.aws.batch_sizes.terminate_instances,
            side.random(),
        )
        termination_ids = terminate_orphans(command, ledger)
    options.tell_if_nobody_works(arguments)
    if output.is_data(arguments):
        output.show_data(
            arguments, {"termination_ids": termination_ids, "machine_ids": command.machine_ids}
        )
    else:
        print("\n".join(termination_ids))
    return 0
