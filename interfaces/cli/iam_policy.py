"""`hostledger iam-policy`: the permissions that this instance's worker needs, as an IAM policy."""

from __future__ import annotations

import argparse
import sys

from interfaces.cli import options, output
from interfaces.read_side import iam_policy, store_iam_policy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_common(parser)
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=("ec2", "dynamodb", "auditor"),
        default="ec2",
        help="what the permissions are for: the worker at EC2, every host at DynamoDB, or who only "
        "reads there (default: ec2)",
    )


def run(arguments: argparse.Namespace) -> int:
    """JSON for `table` too: that is what a policy is."""
    if arguments.purpose != "ec2":
        only_reads = arguments.purpose == "auditor"
        policy = store_iam_policy(options.reading(arguments), only_reads=only_reads)
        output.show_data(arguments, policy)
        return 0
    document, guessed = iam_policy(options.reading(arguments))
    output.show_data(arguments, document)
    if guessed:
        print(
            f"hostledger: the roles of the instance profiles {', '.join(guessed)} are taken to "
            "have their names: where one has another name, put that into GiveProfiles",
            file=sys.stderr,
        )
    return 0
