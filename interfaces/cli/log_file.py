"""`hostledger audit export | import`: the log as a file of JSON lines."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from typing import Any

from interfaces.cli import options, output
from interfaces.read_side import export_log


def add_arguments(actions: Any) -> None:
    exporting = options.add_action(
        actions, "export", export, "the log, or a part of it, as JSON lines; user data is left out"
    )
    exporting.add_argument(
        "file",
        nargs="?",
        type=options.text,
        metavar="FILE",
        help="a file that is not there, compressed if it ends in .gz (default: standard output)",
    )
    exporting.add_argument(
        "--since", type=options.time, metavar="TIME", help="only what came from then"
    )
    exporting.add_argument(
        "--until", type=options.time, metavar="TIME", help="only what came till then"
    )
    options.add_archive(exporting)
    importing = options.add_action(
        actions, "import", import_, "fill an empty place from an export; then activate it"
    )
    importing.add_argument("file", type=options.text, metavar="FILE", help="of the whole log")


def export(arguments: argparse.Namespace) -> int:
    path = os.path.abspath(arguments.file) if arguments.file else None
    with closing(options.reading(arguments).any_store()) as view:
        document = export_log(view, path, arguments.since or "", arguments.until or "")
    return output.show_document(arguments, document) if path else 0


def import_(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.copies import import_log

    side = options.writing(arguments)
    document = import_log(side, os.path.abspath(arguments.file), output.Progress())
    print("hostledger: it is inert until `hostledger store activate`", file=sys.stderr)
    return output.show_document(arguments, document)
