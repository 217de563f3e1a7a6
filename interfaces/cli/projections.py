"""`hostledger projections list | rebuild | verify`."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from application import rebuilding
from interfaces.cli import options, output
from interfaces.read_side import verify_read_models

COLUMNS = ("name", "version", "current_version", "position", "lag", "failed_at", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    options.add_action(
        actions, "list", list_projections, "each with its version, how far it is, and why it failed"
    )
    building = options.add_action(
        actions,
        "rebuild",
        rebuild,
        "make all rows anew from the log beside those that answer, then exchange what differs; "
        "one that failed is tried again",
    )
    comparing = options.add_action(
        actions, "verify", verify, "compare all rows with what the log makes; change nothing"
    )
    options.add_archive(building)
    options.add_archive(comparing)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_projections(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).any_store()) as view:
        rows = rebuilding.projections(view)
    return output.show_rows(arguments, "projections", rows, COLUMNS, "no read model")


def rebuild(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.read_models import rebuild as build

    side = options.writing(arguments)
    with closing(side.store()):
        rebuilt = build(side, output.Progress(), arguments.archive)
    for name, position, error in rebuilt.failed:
        print(
            f"hostledger: {name} cannot follow the log at position {position} ({error}): its rows "
            "are as they were; run a release that can",
            file=sys.stderr,
        )
    output.show_document(
        arguments, {"position": rebuilt.position, "rows_exchanged": rebuilt.exchanged}
    )
    return 1 if rebuilt.failed else 0


def verify(arguments: argparse.Namespace) -> int:
    document = verify_read_models(options.reading(arguments), output.Progress())
    output.show_document(arguments, document, failed=("name", "position", "error"))
    first = document["first"]
    if first is not None:
        print(
            f"hostledger: {document['differences']} rows differ from the log; the first is "
            f"{first['table']} {first['key']}: `hostledger projections rebuild` makes them anew",
            file=sys.stderr,
        )
    return 1 if first is not None or document["failed"] else 0
