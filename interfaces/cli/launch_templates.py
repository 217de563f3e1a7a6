"""`hostledger launch-templates list`: the launch templates that launches made."""

from __future__ import annotations

import argparse
from contextlib import closing

from application import queries
from interfaces.cli import options, output

COLUMNS = ("name", "state", "account", "region", "created_at", "code")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(
        actions, "list", list_launch_templates, "launch templates of ours that are there"
    )
    listing.add_argument("--all", action="store_true", help="also those that are deleted")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_launch_templates(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).queries()) as view:
        rows = queries.launch_templates(view, arguments.all)
    return output.show_rows(arguments, "launch_templates", rows, COLUMNS, "no launch template")
