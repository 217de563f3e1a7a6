"""`hostledger audit diff`: what changed in the fleet between two moments."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

from application.changes import changes
from application.replay import end_of, position_of
from interfaces.cli import options, output

COLUMNS = ("position", "recorded_at", "change", "id", "detail", "user", "process")


def add_arguments(actions: Any) -> None:
    comparing = options.add_action(
        actions,
        "diff",
        diff,
        "what changed in the fleet between two moments: requests, returns, machines, templates, "
        "and who did it",
    )
    options.add_archive(comparing)
    for name, words in (("--from", "after this"), ("--to", "until this; by default until now")):
        comparing.add_argument(
            name,
            type=options.moment,
            dest=name[2:] + "_",
            required=name == "--from",
            metavar="WHEN",
            help=f"{words}: a position, or a time in ISO 8601 (UTC without a zone)",
        )


def diff(arguments: argparse.Namespace) -> int:
    """1 when the moments are in the wrong order."""
    with closing(options.reading(arguments).log()) as log:
        after = position_of(log, arguments.from_)
        to = end_of(log) if arguments.to_ is None else position_of(log, arguments.to_)
        if after > to:
            print(
                f"hostledger: --from is position {after}, which is after --to, position {to}",
                file=sys.stderr,
            )
            return 1
        counts, found = changes(log, after, to)
    if arguments.output == "json":
        document = {"from_position": after, "to_position": to, "counts": counts, "changes": found}
        output.show_json(document)
        return 0
    print(f"after position {after}, until position {to}")
    output.show_table(found, COLUMNS, "nothing changed")
    if counts:
        print()
        output.show_fields(counts)
    return 0
