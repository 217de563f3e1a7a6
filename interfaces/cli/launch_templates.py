"""`hostledger launch-templates list`: the launch templates that launches made."""

from __future__ import annotations

import argparse
from functools import partial

from application import as_of, queries
from interfaces.cli import options, output

COLUMNS = ("name", "state", "account", "region", "created_at", "code")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(
        actions, "list", list_launch_templates, "launch templates of ours that are there"
    )
    listing.add_argument("--all", action="store_true", help="also those that are deleted")
    options.add_as_of(listing)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_launch_templates(arguments: argparse.Namespace) -> int:
    find = partial(as_of.topics, as_of.LAUNCH_TEMPLATES)
    with options.looking(arguments, find) as view:
        rows = queries.launch_templates(view, arguments.all)
    return output.show_rows(arguments, "launch_templates", rows, COLUMNS, "no launch template")
