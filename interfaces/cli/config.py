"""`hostledger config show | validate | explain | schema`: what is set, and what may be."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from typing import Any

from application.failures import BrokenConfiguration, NotConfigured
from interfaces.cli import options, output
from interfaces.read_side import configuration, configuration_key, configuration_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    showing = options.add_action(
        actions, "show", show, "the value of every key, without passwords, or of those of a section"
    )
    showing.add_argument(
        "prefix", type=options.text, metavar="KEY-PREFIX", nargs="?", help="a key or a section"
    )
    showing.add_argument(
        "--origin",
        action="store_true",
        help="and where it came from: a flag, a variable, our file, IBM's file, or the default",
    )
    validating = options.add_action(
        actions, "validate", validate, "check a configuration file; by default those in force"
    )
    validating.add_argument(
        "file",
        type=options.text,
        metavar="FILE",
        nargs="?",
        help="in place of ours, or of IBM's where it is called so (...prov_config.json)",
    )
    explaining = options.add_action(
        actions, "explain", explain, "what a key is for, what it takes, and its value now"
    )
    explaining.add_argument("key", type=options.text, metavar="KEY")
    options.add_action(actions, "schema", schema, "print the JSON Schema of our file, for editors")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def show(arguments: argparse.Namespace) -> int:
    document = _configuration(arguments)
    prefix = arguments.prefix
    rows = [
        row
        for row in document["values"]
        if prefix is None or row["key"] == prefix or row["key"].startswith(f"{prefix}.")
    ]
    if not rows:
        configuration_key(prefix)  # which it is not
    for warning in document["warnings"]:
        print(f"hostledger: {warning}", file=sys.stderr)
    if not output.is_data(arguments):
        rows = [{**row, "value": _text(row["value"]), "origin": _origin(row)} for row in rows]
    elif arguments.origin:
        rows = [_with_origin(row) for row in rows]
    else:
        rows = [{"key": row["key"], "value": row["value"]} for row in rows]
    columns = ("key", "value", "origin") if arguments.origin else ("key", "value")
    return output.show_rows(arguments, "values", rows, columns, "")


def validate(arguments: argparse.Namespace) -> int:
    """1 when it cannot be used. What is only doubtful is said."""
    file = os.path.abspath(arguments.file) if arguments.file else None
    document = _configuration(arguments, file)
    told = {
        "files": [path for path in (document["file"], document["ibm_file"]) if path],
        "keys": [row["key"] for row in document["values"] if row["kind"] != "default"],
        "warnings": document["warnings"],
    }
    if output.is_data(arguments):
        output.show_data(arguments, told)
        return 0
    for warning in told["warnings"]:
        print(warning)
    for path in told["files"]:
        count = sum(row["path"] == path for row in document["values"])
        print(f"{path}: good, and gives the value of {count} keys")
    if not told["files"]:
        print("there is no file; the environment and the defaults are good")
    return 0


def explain(arguments: argparse.Namespace) -> int:
    """What a key is for is told even where the configuration cannot be used, and then why."""
    facts = configuration_key(arguments.key)
    try:
        rows = _configuration(arguments)["values"]
    except BrokenConfiguration:
        _tell(arguments, facts, {})
        raise
    (row,) = (row for row in rows if row["key"] == arguments.key)
    _tell(arguments, facts, row)
    return 0


def _tell(arguments: argparse.Namespace, facts: dict[str, Any], row: dict[str, Any]) -> None:
    if output.is_data(arguments):
        output.show_data(arguments, {**facts, **(_with_origin(row) if row else {})})
        return
    print(textwrap.fill(facts["remark"], output.LEAST_WIDTH), end="\n\n")
    shown = {name: _text(facts[name]) for name in ("key", "takes", "default", "environment")}
    if row:
        shown |= {"value": _text(row["value"]), "from": _origin(row)}
    output.show_fields(shown)


def schema(arguments: argparse.Namespace) -> int:
    """JSON for `table` too: that is what a schema is."""
    output.show_data(arguments, configuration_schema())
    return 0


def _configuration(arguments: argparse.Namespace, file: str | None = None) -> dict[str, Any]:
    """Of the instance; where none is known, of whatever file is named, and of the defaults for
    whoever only asks what there is. Raises NotConfigured, BrokenConfiguration."""
    environ = options.environ_of(arguments)
    try:
        site = options.site_of(arguments)
    except NotConfigured:
        named = file or environ.get("HOSTLEDGER_CONFIG") or arguments.action == "explain"
        if arguments.provider or not named:
            raise
        site = None
    return configuration(site, environ, file)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _with_origin(row: dict[str, Any]) -> dict[str, Any]:
    """`origin` is the kind; `path` that of a file, `name` what the value is called there."""
    return {
        "key": row["key"],
        "value": row["value"],
        "origin": row["kind"],
        "path": row["path"],
        "name": row["name"],
    }


def _origin(row: dict[str, Any]) -> str:
    return {
        "flag": f"flag {row['name']}",
        "environment": f"environment {row['name']}",
        "file": f"file {row['path']}",
        "ibm_file": f"IBM's file {row['path']}: {row['name']}",
        "default": "default",
    }[row["kind"]]
