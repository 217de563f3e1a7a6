"""`hostledger machines list | show | return`."""

from __future__ import annotations

import argparse
from contextlib import closing

from application import queries
from domain.refusals import NotTerminable
from interfaces.cli import options, output

COLUMNS = (
    "machine_id",
    "status",
    "result",
    "name",
    "private_ip_address",
    "zone",
    "instance_type",
    "template_id",
    "request_id",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(
        actions, "list", list_machines, "machines that are or were ours, the oldest first"
    )
    listing.add_argument("--status", choices=("pending", "running", "shutting-down", "terminated"))
    listing.add_argument("--request", type=options.text, metavar="ID", help="of this request")
    listing.add_argument("--alive", action="store_true", help="only those that are not gone")
    showing = options.add_action(actions, "show", show_machine, "one machine")
    showing.add_argument("machine_id", type=options.text, metavar="ID")
    returning = options.add_action(
        actions, "return", return_machines, "hand machines back: the worker terminates them"
    )
    returning.add_argument("machine_ids", type=options.text, metavar="ID", nargs="+")
    options.add_reason(returning)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_machines(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).queries()) as view:
        rows = queries.machines(view, arguments.status, arguments.request, arguments.alive)
    if arguments.output == "json":
        output.show_json({"machines": rows})
    else:
        output.show_table(rows, COLUMNS, "no machine")
    return 0


def show_machine(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).queries()) as view:
        document = queries.machine(view, arguments.machine_id)
    if arguments.output == "json":
        output.show_json(document)
    else:
        output.show_fields(document)
    return 0


def return_machines(arguments: argparse.Namespace) -> int:
    from application import return_machines as returning

    machine_ids = list(dict.fromkeys(arguments.machine_ids))
    side = options.writing(arguments)
    with options.ledger_of(side) as ledger:
        known = side.work().known_machines(machine_ids)
        unknown = [machine_id for machine_id in machine_ids if machine_id not in known]
        if unknown:
            raise NotTerminable(
                f"the ledger has no machine {', '.join(unknown)}: nothing was returned; "
                "`hostledger machines list --alive` shows what may be"
            )
        command = returning.ReturnMachines(
            side.site().provider,
            machine_ids,
            [],
            arguments.reason,
            "operator",
            side.random()(16),
        )
        return_id = returning.return_machines(command, ledger)
    options.tell_if_nobody_works(arguments)
    if arguments.output == "json":
        output.show_json({"return_id": return_id, "machine_ids": machine_ids})
    else:
        print(return_id)
    return 0
