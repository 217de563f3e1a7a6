"""`hostledger alerts list`: what an operator should look at now."""

from __future__ import annotations

import argparse
from contextlib import closing

from application.alerting import ALERTS
from interfaces.cli import options, output

COLUMNS = ("alert", "state", "since", "value", "limit", "message")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(
        actions, "list", list_, "the alerts that are raised; exit 0 whether there are any or not"
    )
    listing.add_argument("--all", action="store_true", help="those that were raised once, too")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).log()) as view:
        found = view.alerts(list(ALERTS))
    rows = [
        {
            "alert": row["name"],
            "state": "raised" if row["topic"] == "AlertRaised" else "cleared",
            "since": row["recorded_at"],
            "value": row["data"]["value"],
            "limit": row["data"].get("limit"),
            "message": row["data"].get("message"),
        }
        for row in found
        if arguments.all or row["topic"] == "AlertRaised"
    ]
    return output.show_rows(arguments, "alerts", rows, COLUMNS, "no alert is raised")
