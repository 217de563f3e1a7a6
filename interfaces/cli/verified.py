"""`hostledger audit verify | checkpoint`: whether the log is what was written, and the proof."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from application.failures import BrokenConfiguration
from interfaces.cli import files, options, output
from interfaces.read_side import verify_log

COLUMNS = ("position", "stream", "what")


def add_arguments(actions: Any) -> None:
    verifying = options.add_action(
        actions, "verify", verify, "whether the log is what was written: nothing is mended"
    )
    verifying.add_argument(
        "--checkpoint",
        type=options.text,
        metavar="FILE",
        help="compare with the checkpoints in a file, or in the files of a directory",
    )
    verifying.add_argument(
        "--key",
        type=options.text,
        metavar="FILE",
        help="the key they were signed with (default: audit.checkpoint_key)",
    )
    options.add_archive(verifying)
    options.add_action(
        actions, "checkpoint", checkpoint, "keep a signed checkpoint of the log's end now"
    )


def verify(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    lines = None
    if arguments.checkpoint:
        found = files.texts(arguments.checkpoint)
        lines = [line for _, text in found for line in text.splitlines()]
    document = verify_log(call, lines, arguments.key, output.Progress())
    if output.is_data(arguments):
        output.show_data(arguments, document)
    else:
        _tell(document)
    return 0 if document["is_sound"] else 1


def checkpoint(arguments: argparse.Namespace) -> int:
    from contextlib import closing

    side = options.writing(arguments)
    with closing(side.store()):
        take = side.checkpoints()
        if take is None:
            raise BrokenConfiguration(
                "audit.checkpoint_to says where checkpoints are kept, and is not set"
            )
        document = {"kept": take(), "position": side.store().end()[0]}
    return output.show_document(arguments, document)


def _tell(document: dict[str, Any]) -> None:
    for log in (document, *document["copies"]):
        _tell_log(log)
    known = document["checkpoints"]
    if known is not None:
        print(f"{known['good']} checkpoints compared, {len(known['problems'])} not believed")
        for problem in known["problems"]:
            print(f"  {problem}")
    if document["read_models"] is not None:
        print(f"read models: {_compared(document['read_models'])}")
    if document["is_sound"]:
        print("Nothing was found.")
    else:
        print("hostledger: the ledger is not what was written", file=sys.stderr)


def _compared(models: dict[str, Any]) -> str:
    if models.get("not_compared"):
        return f"not compared: {models['not_compared']}"
    if models.get("problem"):
        return f"they cannot be compared: {models['problem']}"
    if models["failed"]:
        named = ", ".join(
            f"{row['name']} at position {row['position']}" for row in models["failed"]
        )
        return f"the log cannot be followed by {named}"
    if models["differences"]:
        first = models["first"]
        return (
            f"{models['differences']:,} rows differ from what the events make; the first is "
            f"{first['table']} {first['key']}; `hostledger projections rebuild` makes them anew"
        )
    return "equal to what the events make"


def _tell_log(log: dict[str, Any]) -> None:
    print(f"{log['log']}: {log['events']:,} events, the last is event {log['position']}")
    if log["archived"]:
        print(f"  {log['archived']:,} of them are archived: here are their digests and chain alone")
    if log["chain"] and not log["findings"]:
        print(f"  its chain: {log['chain']}")
    if log["findings"]:
        output.show_table(log["findings"], COLUMNS)
    if log["more_findings"]:
        print(f"and {log['more_findings']:,} more")
    print(f"  {_sound(log['sound'])}")


def _sound(stretches: list[list[int]]) -> str:
    if not stretches:
        return "no event is sound"
    named = [f"{first} to {last}" if first < last else str(first) for first, last in stretches[:5]]
    more = f" and {len(stretches) - 5} more stretches" if len(stretches) > 5 else ""
    return f"sound: events {', '.join(named)}{more}"
