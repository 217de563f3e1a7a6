"""`hostledger pause`: the operator's brake on what is done at AWS."""

from __future__ import annotations

import argparse
import sys

from domain.brake import EVERYTHING, LAUNCHING
from interfaces.cli import options, output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_common(parser)
    parser.add_argument(
        "--launching",
        action="store_true",
        help="only launching: fleets fill no more, returns go on; without it nothing at all is "
        "changed at AWS, where fleets that are filling go on by themselves",
    )
    options.add_reason(parser)


def run(arguments: argparse.Namespace) -> int:
    from application.pausing import Pause, pause

    scope = LAUNCHING if arguments.launching else EVERYTHING
    side = options.writing(arguments)
    with options.ledger_of(side) as ledger:
        before = pause(Pause(scope, arguments.reason, side.random()(16)), ledger)
    if before == scope:
        print(f"hostledger: {scope} was paused already; nothing was recorded", file=sys.stderr)
    if output.is_data(arguments):
        output.show_data(arguments, {"paused": scope, "before": before or None})
    else:
        print(f"{scope} is paused")
    return 0
