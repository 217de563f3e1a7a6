"""`hostledger sandbox`: EC2's stand-in on loopback, to try things out without an AWS account."""

from __future__ import annotations

import argparse
import signal
import sys

from interfaces.write_side.processes import sandbox_process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument(
        "--boot-time", type=float, default=20.0, metavar="SECONDS", help="from pending to running"
    )
    parser.add_argument(
        "--visibility-lag",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long a new instance cannot be described",
    )
    parser.add_argument(
        "--quotas",
        choices=("generous", "aws"),
        default="aws",
        help="AWS's documented request and launch limits, or none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        process = sandbox_process(
            region=arguments.region,
            boot_time=arguments.boot_time,
            visibility_lag=arguments.visibility_lag,
            quotas=arguments.quotas,
        )
    except ModuleNotFoundError as error:
        print(f"{error}: install the extra, hostledger[sandbox]", file=sys.stderr)
        return 1
    with process:
        print(f"EC2's stand-in listens on {process.url}; set in awsprov_config.json:")
        print(f'  "AWS_ENDPOINT_URL": "{process.url}", "AWS_REGION": "{arguments.region}"')
        print("(DynamoDB is at the same address: storage.dynamodb_strategy.endpoint_url)")
        print("and any AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Ctrl-C ends it.", flush=True)
        ended_by = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ended_by)
        signal.sigwait(ended_by)
    return 0
