"""`hostledger replay`: the world as it was, in a store of its own that nobody works on."""

from __future__ import annotations

import argparse
import os

from interfaces.cli import options, output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_common(parser)
    parser.add_argument(
        "--until",
        type=options.text,
        required=True,
        metavar="WHEN",
        help="a position, or a time in ISO 8601 (UTC without a zone): the last event until then",
    )
    parser.add_argument(
        "--into",
        type=options.text,
        required=True,
        metavar="PLACE",
        help="sqlite:FILE, or another place that has no store; it goes on with one that it began",
    )
    options.add_archive(parser)


def run(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.copies import replay_into

    scheme, _, path = arguments.into.partition(":")
    if scheme in ("sqlite", "json") and not path.startswith("/"):
        arguments.into = f"{scheme}:{os.path.abspath(path)}"
    side = options.writing(arguments)
    document = replay_into(
        side, arguments.until, arguments.into, output.Progress(), arguments.archive
    )
    return output.show_document(arguments, document)
