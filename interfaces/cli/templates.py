"""`hostledger templates list | show | validate | refresh | generate`."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import Any

from application import as_of, queries
from application.failures import NotConfigured
from application.ports import CallFailed
from domain.refusals import UnknownTemplate
from interfaces.cli import options, output
from interfaces.read_side import (
    example_templates,
    instance_types_named,
    read_templates,
    templates_file,
)

COLUMNS = ("template_id", "max_number", "price_type", "instance_types", "image_id", "revision")
FACTS = ("instance_type", "vcpus", "cores", "memory", "architectures", "changed")
APIS = ("RunInstances", "EC2Fleet", "SpotFleet", "ASG")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(actions, "list", list_templates, "what HostFactory is offered")
    showing = options.add_action(actions, "show", show_template, "one template as it is launched")
    showing.add_argument("template_id", type=options.text, metavar="ID")
    options.add_as_of(listing, showing)
    validating = options.add_action(
        actions, "validate", validate, "check a templates file; by default the one in force"
    )
    validating.add_argument("file", type=options.text, metavar="FILE", nargs="?")
    refreshing = options.add_action(
        actions, "refresh", refresh, "learn from AWS what the templates' instance types have"
    )
    refreshing.add_argument(
        "types", type=options.text, metavar="TYPE", nargs="*", help="further instance types"
    )
    generating = options.add_action(
        actions, "generate", generate, "print a templates file for these types, subnets and image"
    )
    _add_example_arguments(generating)


def _add_example_arguments(parser: argparse.ArgumentParser) -> None:
    def several(name: str, summary: str, **more: Any) -> None:
        parser.add_argument(
            name, nargs="+", metavar=more.pop("metavar", "ID"), help=summary, **more
        )

    several("--type", "instance types", type=options.text, required=True, metavar="TYPE")
    several("--subnet", "subnets", type=options.text, required=True)
    parser.add_argument(
        "--image", type=options.text, required=True, metavar="AMI", help="AMI id or SSM parameter"
    )
    several("--security-group", "security groups", type=options.text, default=[])
    parser.add_argument(
        "--api", nargs="+", choices=APIS, default=["RunInstances"], help="a template for each"
    )
    parser.add_argument(
        "--fleet-role", type=options.text, metavar="ARN", help="needed for SpotFleet"
    )
    parser.add_argument(
        "--max-number", type=options.count, default=10, metavar="N", help="10 by default"
    )


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def _documents(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What is offered now, or what the ledger says was offered then."""
    if arguments.as_of is None:
        offered = options.reading(arguments).compiled.templates()
        return [queries.template_document(template) for template in offered]
    provider = options.site_of(arguments).provider
    with options.looking(arguments, partial(as_of.topics, as_of.TEMPLATES)) as view:
        return queries.templates(view, provider)


def list_templates(arguments: argparse.Namespace) -> int:
    documents = _documents(arguments)
    if output.is_data(arguments):
        output.show_data(arguments, {"templates": documents})
    else:
        rows = [{**dict.fromkeys(COLUMNS), **document} for document in documents]
        for row in rows:
            row["revision"] = row["revision"][:12]
            row["instance_types"] = row.get("vm_type") or row.get("vm_types")
            row["image_id"] = row["image_id"] or row.get("image_parameter")
        output.show_table(rows, COLUMNS, "no template")
    return 0


def show_template(arguments: argparse.Namespace) -> int:
    template_id = arguments.template_id
    found = [t for t in _documents(arguments) if t["template_id"] == template_id]
    if not found:
        why = (
            "is not offered: `hostledger templates validate` says what is wrong with those that "
            "are left out"
            if arguments.as_of is None
            else f"was not in the ledger as of {arguments.as_of}: `hostledger audit history "
            f"{template_id}` shows its revisions"
        )
        raise UnknownTemplate(f"template {template_id!r} {why}")
    if output.is_data(arguments):
        output.show_data(arguments, found[0])
    else:
        output.show_fields(found[0])
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """1 when a template is left out."""
    site = _site_if_any(arguments) if arguments.file else options.site_of(arguments)
    path = os.path.abspath(arguments.file) if arguments.file else _file_in_force(arguments)
    offered, problems = read_templates(path, site, options.environ_of(arguments))
    left_out = any(problem["fatal"] for problem in problems)
    if output.is_data(arguments):
        told = [{k: v for k, v in problem.items() if k != "text"} for problem in problems]
        output.show_data(arguments, {"path": path, "template_ids": offered, "problems": told})
    else:
        for problem in problems:
            print(problem["text"])
        print(f"{path}: {len(offered)} offered")
    return 1 if left_out else 0


def _site_if_any(arguments: argparse.Namespace) -> Any:
    """A file on its own can be checked where there is no instance."""
    try:
        return options.site_of(arguments)
    except NotConfigured:
        return None


def _file_in_force(arguments: argparse.Namespace) -> str:
    return templates_file(options.site_of(arguments), options.environ_of(arguments))


def refresh(arguments: argparse.Namespace) -> int:
    """1 when AWS cannot be asked or does not know one of the types."""
    from interfaces.write_side.configuration import learn_types

    names = {*instance_types_named(_file_in_force(arguments)), *arguments.types}
    try:
        learned = learn_types(options.writing(arguments), sorted(names))
    except CallFailed as failed:
        print(f"hostledger: AWS was not asked, or refused: {failed}", file=sys.stderr)
        return 1
    rows = [
        {"instance_type": name, **learned.facts[name], "changed": name in learned.changed}
        for name in sorted(names - set(learned.unknown))
    ]
    if output.is_data(arguments):
        document = {"instance_types": rows, "unknown": learned.unknown}
        output.show_data(arguments, document, "instance_types")
    else:
        output.show_table(rows, FACTS, "the templates name no instance type")
    if learned.unknown:
        names_of = ", ".join(learned.unknown)
        print(f"hostledger: AWS knows no instance type {names_of}", file=sys.stderr)
    return 1 if learned.unknown else 0


def generate(arguments: argparse.Namespace) -> int:
    """1 when nothing is known of one of the types."""
    if "SpotFleet" in arguments.api and not arguments.fleet_role:
        print("hostledger: a SpotFleet template needs --fleet-role ARN", file=sys.stderr)
        return 1
    templates, unknown = example_templates(
        options.site_of(arguments),
        arguments.api,
        {
            "types": arguments.type,
            "subnets": arguments.subnet,
            "image": arguments.image,
            "security_groups": arguments.security_group,
            "fleet_role": arguments.fleet_role or "",
            "max_number": arguments.max_number,
        },
    )
    if unknown:
        names = " ".join(unknown)
        print(
            f"hostledger: nothing is known of {names}: "
            f"run `hostledger templates refresh {names}` first",
            file=sys.stderr,
        )
        return 1
    output.show_data(arguments, {"templates": templates})
    return 0
