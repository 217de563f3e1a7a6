"""`hostledger resume`: go on with what was paused."""

from __future__ import annotations

import argparse
import sys

from interfaces.cli import options, output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_common(parser)
    options.add_reason(parser)


def run(arguments: argparse.Namespace) -> int:
    from application.pausing import Resume, resume

    side = options.writing(arguments)
    with options.ledger_of(side) as ledger:
        before = resume(Resume(arguments.reason, side.random()(16)), ledger)
    if not before:
        print("hostledger: nothing was paused; nothing was recorded", file=sys.stderr)
    else:
        options.tell_if_nobody_works(arguments)
    if output.is_data(arguments):
        output.show_data(arguments, {"paused": None, "before": before or None})
    else:
        print("nothing is paused")
    return 0
