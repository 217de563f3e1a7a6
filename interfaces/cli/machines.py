"""`hostledger machines list | show | return | protect | unprotect`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from application import as_of, queries
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
    options.add_as_of(listing, showing)
    returning = options.add_action(
        actions, "return", return_machines, "hand machines back: the worker terminates them"
    )
    returning.add_argument("machine_ids", type=options.text, metavar="ID", nargs="+")
    options.add_reason(returning)
    for name, summary in (
        ("protect", "keep machines: neither a rule nor a return of ours ends them"),
        ("unprotect", "let machines be ended again"),
    ):
        keeping = options.add_action(actions, name, protect, summary)
        keeping.add_argument("machine_ids", type=options.text, metavar="ID", nargs="+")
        options.add_reason(keeping)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_machines(arguments: argparse.Namespace) -> int:
    with options.looking(arguments) as view:
        rows = queries.machines(view, arguments.status, arguments.request, arguments.alive)
    return output.show_rows(arguments, "machines", rows, COLUMNS, "no machine")


def show_machine(arguments: argparse.Namespace) -> int:
    machine_id = arguments.machine_id
    with options.looking(arguments, partial(as_of.machine, machine_id)) as view:
        document = queries.machine(view, machine_id)
    return output.show_document(arguments, document)


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
    if output.is_data(arguments):
        output.show_data(arguments, {"return_id": return_id, "machine_ids": machine_ids})
    else:
        print(return_id)
    return 0


def protect(arguments: argparse.Namespace) -> int:
    """1 when a termination was under way before a machine was protected."""
    from application import protect_machines as protecting

    side = options.writing(arguments)
    given = (arguments.machine_ids, arguments.reason, side.random()(16))
    under_way: list[str] = []
    with options.ledger_of(side) as ledger:
        if arguments.action == "protect":
            protecting.protect_machines(protecting.ProtectMachines(*given), ledger)
            under_way = side.queries().being_terminated(arguments.machine_ids)
        else:
            protecting.unprotect_machines(protecting.UnprotectMachines(*given), ledger)
    machine_ids = list(dict.fromkeys(arguments.machine_ids))
    if output.is_data(arguments):
        output.show_data(arguments, {"machine_ids": machine_ids, "too_late": under_way})
    else:
        print(f"{arguments.action}ed {' '.join(machine_ids)}")
    if under_way:
        print(
            f"hostledger: recorded, but EC2 has been asked already to terminate "
            f"{', '.join(under_way)}, or is being asked: look at `hostledger machines show`",
            file=sys.stderr,
        )
        return 1
    return 0
