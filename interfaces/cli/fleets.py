"""`hostledger fleets list`: the fleets and groups that launches made."""

from __future__ import annotations

import argparse

from application import queries
from interfaces.cli import options, output

COLUMNS = ("fleet_id", "state", "api", "fleet_type", "target", "alive", "account", "batch_id")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(actions, "list", list_fleets, "fleets and groups that are there")
    listing.add_argument("--all", action="store_true", help="also those that are deleted")
    options.add_as_of(listing)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_fleets(arguments: argparse.Namespace) -> int:
    with options.looking(arguments) as view:
        rows = queries.fleets(view, arguments.all)
    return output.show_rows(arguments, "fleets", rows, COLUMNS, "no fleet")
