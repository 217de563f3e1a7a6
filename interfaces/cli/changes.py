"""`hostledger audit diff`: what changed in the fleet between two moments."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

from application.changes import changes
from application.json_text import dumps
from application.replay import end_of, position_of
from interfaces.cli import options, output

COLUMNS = {
    "position": 8, "recorded_at": 20, "change": 24, "id": 36, "user": 10, "process": 26,
    "detail": 0,
}  # fmt: skip
"""What a line has, and how wide: lines are printed as they are read, however many there are."""


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
        counts: dict[str, int] = {}
        found = changes(log, after, to, counts)
        if arguments.output == "jsonl":
            for change in found:
                output.show_item(arguments, change)
            return 0
        if arguments.output == "yaml":
            output.show_data(arguments, {"from_position": after, "to_position": to})
            for number, change in enumerate(found):
                print(end="" if number else "changes:\n")
                output.show_item(arguments, change)
            rest: dict[str, Any] = {"counts": counts} if counts else {"changes": [], "counts": {}}
            output.show_data(arguments, rest)
            return 0
        if arguments.output == "json":
            print(f'{{"from_position":{after},"to_position":{to},"changes":[', end="")
            for number, change in enumerate(found):
                print(",\n" if number else "\n", dumps(change), sep="", end="")
            print(f'\n],"counts":{dumps(counts)}}}')
            return 0
        print(f"after position {after}, until position {to}")
        for number, change in enumerate(found):
            if not number:
                print(_line([name.upper() for name in COLUMNS]))
            print(_line([output.cell(change[name]) for name in COLUMNS]))
    if counts:
        print()
        output.show_fields(counts)
    else:
        print("nothing changed")
    return 0


def _line(cells: list[str]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, COLUMNS.values(), strict=True))
    return output.fitted("  ".join(padded).rstrip())
