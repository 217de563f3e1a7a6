"""`hostledger batches list | show | settle`: the launches, one AWS call each."""

from __future__ import annotations

import argparse
from functools import partial

from application import as_of, queries
from interfaces.cli import options, output

COLUMNS = (
    "batch_id",
    "state",
    "api",
    "pool",
    "account",
    "machine_count",
    "claims",
    "template_id",
    "code",
    "reason",
)
MACHINE_COLUMNS = ("machine_id", "status", "request_id", "instance_type", "zone")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(
        actions, "list", list_batches, "launches, those without an outcome first"
    )
    listing.add_argument(
        "--open", action="store_true", help="only those that are open, doubtful or filling"
    )
    listing.add_argument("--limit", type=options.count, default=50, metavar="N", help="default 50")
    showing = options.add_action(actions, "show", show_batch, "one launch with its machines")
    showing.add_argument("batch_id", type=options.text, metavar="ID")
    options.add_as_of(listing, showing)
    settling = options.add_action(
        actions, "settle", settle, "have a doubtful launch settled by the next complete sweep"
    )
    settling.add_argument("batch_id", type=options.text, metavar="ID")
    options.add_reason(settling)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_batches(arguments: argparse.Namespace) -> int:
    with options.looking(arguments) as view:
        rows = queries.batches(view, arguments.open, arguments.limit)
    if arguments.output == "table":
        for row in rows:
            claims = row["claims"]
            row["claims"] = sum(claim["machine_count"] for claim in claims)
    return output.show_rows(arguments, "batches", rows, COLUMNS, "no batch")


def show_batch(arguments: argparse.Namespace) -> int:
    batch_id = arguments.batch_id
    with options.looking(arguments, partial(as_of.batch, batch_id)) as view:
        document = queries.batch(view, batch_id)
    claims = ("request_id", "machine_count")
    return output.show_document(arguments, document, claims=claims, machines=MACHINE_COLUMNS)


def settle(arguments: argparse.Namespace) -> int:
    from application.settle_batch import SettleBatch, settle_batch

    side = options.writing(arguments)
    with options.ledger_of(side) as ledger:
        settle_batch(SettleBatch(arguments.batch_id, arguments.reason, side.random()(16)), ledger)
    options.tell_if_nobody_works(arguments)
    if output.is_data(arguments):
        output.show_data(
            arguments, {"batch_id": arguments.batch_id, "settlement_ordered": arguments.reason}
        )
    else:
        print(f"{arguments.batch_id} is settled by the next complete sweep")
    return 0
