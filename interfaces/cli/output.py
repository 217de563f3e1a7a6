"""Printing documents: aligned tables for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

LEAST_WIDTH = 80


def show_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def show_rows(
    arguments: argparse.Namespace,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    empty: str,
) -> int:
    """A listing as `--output` asks: an object with the rows under `name`, or a table. Exit 0."""
    if arguments.output == "json":
        show_json({name: rows})
    else:
        show_table(rows, columns, empty)
    return 0


def show_document(
    arguments: argparse.Namespace, document: Mapping[str, Any], **tables: Sequence[str]
) -> int:
    """One thing as `--output` asks: an object, or a line a field and a table for each of its lists
    that `tables` gives columns for (none: all that it has). Exit 0."""
    if arguments.output == "json":
        show_json(document)
        return 0
    show_fields(document)
    for title, columns in tables.items():
        if document.get(title):
            print(f"\n{title}")
            show_table(document[title], columns or tuple(document[title][0]))
    return 0


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str = "") -> None:
    """One line a row; on a terminal a line is cut at its right edge rather than folded."""
    if not rows:
        if empty:
            print(empty)
        return
    cells = [[heading.upper() for heading in columns]]
    cells += [[cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    numeric = [
        all(type(row[column]) in (int, float, type(None)) for row in rows) for column in columns
    ]
    for line in cells:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(line, widths, numeric, strict=True)
        )
        print(fitted("  ".join(padded).rstrip()))


def show_fields(document: Mapping[str, Any]) -> None:
    """One line a field, but for those that are lists of objects."""
    plain = {name: value for name, value in document.items() if not _is_table(value)}
    width = max(len(name) for name in plain)
    for name, value in plain.items():
        print(fitted(f"{name.ljust(width)}  {cell(value)}".rstrip()))


def _is_table(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def cell(value: object) -> str:
    """A value as one word or line: times in whole seconds, `-` for what there is not."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}={_inner(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(_inner(item) for item in value) or "-"
    shown = " ".join(str(value).split())
    if len(shown) == 27 and shown[10] == "T" and shown.endswith("Z"):
        return shown[:19] + "Z"
    # What came from outside must not steer the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def _inner(value: object) -> str:
    """A value within another: what has parts itself keeps its JSON form."""
    return cell(json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)


def fitted(line: str) -> str:
    if not sys.stdout.isatty():
        return line
    import shutil

    width = max(LEAST_WIDTH, shutil.get_terminal_size().columns)
    return line if len(line) <= width else line[: width - 1] + "…"


class Progress:
    """How far a copy or a replay is, in one line of the terminal, or a line each tenth."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, done: int, of: int) -> None:
        tenth = 10 * done // max(1, of)
        if sys.stderr.isatty():
            end = "\n" if done == of else ""
            print(f"\r{done:,} of {of:,} events", end=end, file=sys.stderr, flush=True)
        elif tenth != self._told:
            print(f"{done:,} of {of:,} events", file=sys.stderr)
        self._told = tenth
