"""`hostledger templates list | show | validate`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from domain.refusals import UnknownTemplate
from interfaces.cli import options, output
from interfaces.read_side import read_templates, templates_file

COLUMNS = ("template_id", "max_number", "price_type", "vm_type", "image_id", "revision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    options.add_action(actions, "list", list_templates, "what HostFactory is offered")
    showing = options.add_action(actions, "show", show_template, "one template as it is launched")
    showing.add_argument("template_id", type=options.text, metavar="ID")
    validating = options.add_action(
        actions, "validate", validate, "check a templates file; by default the one in force"
    )
    validating.add_argument("file", type=options.text, metavar="FILE", nargs="?")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def _document(template: dict[str, Any]) -> dict[str, Any]:
    return {
        "template_id": template["template_id"],
        "revision": template["revision"],
        **template["content"],
    }


def list_templates(arguments: argparse.Namespace) -> int:
    documents = [_document(t) for t in options.reading(arguments).compiled.templates()]
    if arguments.output == "json":
        output.show_json({"templates": documents})
    else:
        rows = [{**dict.fromkeys(COLUMNS), **document} for document in documents]
        for row in rows:
            row["revision"] = row["revision"][:12]
        output.show_table(rows, COLUMNS, "no template")
    return 0


def show_template(arguments: argparse.Namespace) -> int:
    template = options.reading(arguments).compiled.template(arguments.template_id)
    if template is None:
        raise UnknownTemplate(
            f"template {arguments.template_id!r} is not offered: `hostledger templates validate` "
            "says what is wrong with those that are left out"
        )
    if arguments.output == "json":
        output.show_json(_document(template))
    else:
        output.show_fields(_document(template))
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """1 when a template is left out."""
    path = os.path.abspath(arguments.file) if arguments.file else _file_in_force(arguments)
    offered, problems = read_templates(path)
    left_out = any(problem["fatal"] for problem in problems)
    if arguments.output == "json":
        told = [{k: v for k, v in problem.items() if k != "text"} for problem in problems]
        output.show_json({"path": path, "template_ids": offered, "problems": told})
    else:
        for problem in problems:
            print(problem["text"])
        print(f"{path}: {len(offered)} offered")
    return 1 if left_out else 0


def _file_in_force(arguments: argparse.Namespace) -> str:
    return templates_file(options.site_of(arguments), options.environ_of(arguments))
