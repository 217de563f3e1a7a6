"""`hostledger metrics show`: response times, throughput, errors, resources, from kept figures."""

from __future__ import annotations

import argparse
import re

from interfaces.cli import options, output
from interfaces.read_side import kept_figures

PERIOD = re.compile(r"[1-9][0-9]{0,5}[smhdw]")


def _since(value: str) -> str:
    """A period such as 1h, or a time."""
    return value if PERIOD.fullmatch(value) else options.time(value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    showing = options.add_action(
        actions,
        "show",
        show,
        "response times, throughput, error rates, resources and queues, from what worker and "
        "server have kept",
    )
    showing.add_argument(
        "--since",
        type=_since,
        default="1h",
        metavar="WHEN",
        help="from when on: a period before now such as 90s, 1h or 7d, or a time in ISO 8601 "
        "(UTC without a zone); 1h without it",
    )


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def show(arguments: argparse.Namespace) -> int:
    document = kept_figures(options.reading(arguments), arguments.since)
    if arguments.output == "table" and not document["operations"]:
        print(f"no figures have been kept since {output.cell(document['since'])}")
        return 0
    return output.show_document(arguments, document, operations=(), resources=(), queue=())
