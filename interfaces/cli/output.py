"""Printing documents: aligned tables for people; JSON, JSON lines and YAML for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from application.failures import NotInstalled

LEAST_WIDTH = 80


def usable(form: str) -> str:
    """The argument of `--output`; raises NotInstalled before anything is done for YAML in vain."""
    if form == "yaml":
        _yaml()
    return form


def is_data(arguments: argparse.Namespace) -> bool:
    """Whether the output is for a program that takes the whole document."""
    return arguments.output in ("json", "jsonl", "yaml")


def show_data(arguments: argparse.Namespace, document: Mapping[str, Any], rows: str = "") -> None:
    """A document as a program wants it; JSON where `--output` says nothing else.

    As JSON lines it is a line an item of its list `rows`, without the rest of it. Without `rows`
    that is the list that is all there is in it; a document with more is one line.
    """
    if arguments.output == "yaml":
        sys.stdout.write(_as_yaml(document))
    elif arguments.output == "jsonl":
        if not rows and len(document) == 1:
            (rows,) = (name if _is_table(value) else "" for name, value in document.items())
        for item in document[rows] if rows else [document]:
            show_item(arguments, item)
    else:
        print(json.dumps(document, indent=2, ensure_ascii=False))


def show_item(arguments: argparse.Namespace, item: Mapping[str, Any]) -> None:
    """One of many, as it comes: an item of a YAML list, or a line."""
    if arguments.output == "yaml":
        sys.stdout.write(_as_yaml([item]))
    else:
        print(json.dumps(item, separators=(",", ":"), ensure_ascii=False))


def _as_yaml(document: object) -> str:
    """What JSON can say, as YAML's blocks: the same keys in the same order, nothing abbreviated."""
    yaml = _yaml()
    plain = json.loads(json.dumps(document))
    text: str = yaml.dump(
        plain,
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        allow_unicode=True,
        sort_keys=False,
        width=10_000,
    )
    return text


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise NotInstalled(
            "PyYAML is not installed: `pip install 'hostledger[yaml]'` adds it, and "
            "`--output json` needs nothing"
        ) from None
    return yaml


def show_rows(
    arguments: argparse.Namespace,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    empty: str,
) -> int:
    """A listing as `--output` asks: an object with the rows under `name`, a line a row, or a table.
    Exit 0."""
    if is_data(arguments):
        show_data(arguments, {name: rows}, name)
    else:
        show_table(rows, columns, empty)
    return 0


def show_document(
    arguments: argparse.Namespace, document: Mapping[str, Any], **tables: Sequence[str]
) -> int:
    """One thing as `--output` asks: an object, or a line a field and a table for each of its lists
    that `tables` gives columns for (none: all that it has). Exit 0."""
    if is_data(arguments):
        show_data(arguments, document)
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
