"""`hostledger audit compare --cloudtrail FILE`: the ledger beside what AWS recorded of us."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from application.failures import StoreError
from application.json_text import BadJson, loads
from interfaces.cli import files, options, output

CALL = ("event_time", "event_name", "aws_request_id", "by", "machine_ids", "because")
OURS = ("id", "recorded_at", "position", "stream")


def add_arguments(actions: Any) -> None:
    comparing = options.add_action(
        actions, "compare", compare, "match our AWS calls and machines with CloudTrail's, both ways"
    )
    comparing.add_argument(
        "--cloudtrail",
        type=options.text,
        metavar="FILE",
        required=True,
        help="a file of CloudTrail's (.json or .json.gz), or a directory of them",
    )
    comparing.add_argument(
        "--role",
        type=options.text,
        metavar="ARN",
        help="the role of our worker: its calls are ours",
    )
    for option, which in (("--since", "first"), ("--until", "last")):
        comparing.add_argument(
            option,
            type=options.text,
            metavar="TIME",
            help=f"default: that of the {which} record",
        )


def compare(arguments: argparse.Namespace) -> int:
    from application.compare_cloudtrail import compare_cloudtrail

    with closing(options.reading(arguments).log()) as log:
        deployment, *_ = log.identity()
        try:
            document = compare_cloudtrail(
                log,
                _records(arguments.cloudtrail),
                deployment,
                arguments.role,
                arguments.since,
                arguments.until,
            )
        except ValueError as error:
            raise StoreError(f"{error}: times are like 2027-01-15T08:00:00Z") from None
    if output.is_data(arguments):
        output.show_data(arguments, document)
    else:
        _tell(document)
    return 1 if document["unrecorded"] or document["unseen"] else 0


def _records(path: str) -> Iterator[dict[str, Any]]:
    """Raises StoreError for a file that is not CloudTrail's."""
    for name, text in files.texts(path, (".json", ".json.gz")):
        try:
            records = loads(text)["Records"]
            for record in records:
                record["eventTime"]
        except (BadJson, KeyError, TypeError) as error:
            raise StoreError(
                f"{name} is no log file of CloudTrail's, which has Records with an eventTime each: "
                f"{error}"
            ) from None
        yield from records


def _tell(document: dict[str, Any]) -> None:
    print(
        f"{document['records']:,} records in {', '.join(document['regions']) or 'no region'}, "
        f"compared from {document['since'] or '-'} to {document['until'] or '-'}; "
        f"{document['matched']:,} calls are in the ledger"
    )
    print("\ncalls that the ledger has no record of")
    output.show_table(document["unrecorded"], CALL, "none")
    print("\nids of the ledger that CloudTrail lacks")
    output.show_table(document["unseen"], OURS, "none")
