"""`hostledger`: the operator's commands; imports the module of the one that is asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from application.failures import (
    BrokenConfiguration,
    Conflict,
    NotConfigured,
    NotInstalled,
    StoreError,
)
from application.queries import NotInLedger
from application.version import VERSION
from domain.refusals import Refusal
from interfaces.loading import loads

COMMANDS = {
    "store": ("interfaces.cli.store", "make a deployment's store, look at it, activate a copy"),
    "requests": ("interfaces.cli.requests", "list, show, create and cancel requests"),
    "machines": ("interfaces.cli.machines", "list, show, return and protect machines"),
    "templates": ("interfaces.cli.templates", "list, show, validate and generate templates"),
    "batches": ("interfaces.cli.batches", "the launches: list, show, settle what is in doubt"),
    "fleets": ("interfaces.cli.fleets", "the fleets and groups that launches made"),
    "launch-templates": ("interfaces.cli.launch_templates", "the launch templates of launches"),
    "audit": ("interfaces.cli.audit", "who did what, when, why: the events of one thing, or all"),
    "projections": ("interfaces.cli.projections", "the read models: list, rebuild, verify"),
    "replay": ("interfaces.cli.replay", "an inert copy of the world as it was at a time"),
    "report": ("interfaces.cli.report", "what machines were used for, cost and kept waiting for"),
    "what-if": ("interfaces.cli.what_if", "recorded demand under another configuration, simulated"),
    "orphans": ("interfaces.cli.orphans", "instances with our tag that the ledger does not know"),
    "alerts": ("interfaces.cli.alerts", "what an operator should look at now"),
    "metrics": ("interfaces.cli.metrics", "response times, throughput, errors, resources"),
    "pause": ("interfaces.cli.pause", "stop launching, or every change at AWS"),
    "resume": ("interfaces.cli.resume", "go on with what was paused"),
    "iam-policy": ("interfaces.cli.iam_policy", "the permissions that the worker needs at AWS"),
    "diagnose": ("interfaces.cli.diagnose", "why something is slow, or grows"),
    "config": ("interfaces.cli.config", "what is set, where that came from, what may be set"),
    "worker": ("interfaces.cli.worker", "run, drain, look at and stop the worker"),
    "server": ("interfaces.cli.server", "answer queries and take commands over HTTP"),
    "tokens": ("interfaces.cli.tokens", "who may ask the server: create, list, revoke"),
    "hf": ("interfaces.cli.hf", "one of HostFactory's five verbs, as its scripts do it"),
    "bench": ("interfaces.cli.bench", "what requests, polls and starts cost on this machine"),
    "scripts": ("interfaces.cli.scripts", "where the scripts for HostFactory are"),
    "demo": ("interfaces.cli.demo", "a whole cycle in the sandbox, no AWS account needed"),
    "sandbox": ("interfaces.cli.sandbox", "run EC2's stand-in to try things out"),
}
"""Command -> module with `add_arguments(parser)` and `run(arguments) -> exit status`."""

SAID = (Refusal, NotInLedger, StoreError, NotConfigured, NotInstalled, BrokenConfiguration)
"""Their text names the thing, the cause and the next step."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0 done, 1 refused or failed with one sentence on stderr, 2 wrong usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(next((word for word in given if word in COMMANDS), ""))
    try:
        arguments = parser.parse_args(given)
    except SystemExit as ended:
        return int(ended.code or 0)
    except NotInstalled as error:
        return _fail(str(error))
    module = import_module(COMMANDS[arguments.command][0])
    try:
        try:
            status: int = module.run(arguments)
        finally:
            loads.tell()
        sys.stdout.flush()
    except SAID as error:
        return _fail(str(error))
    except Conflict:
        return _fail("another writer was at the same thing; nothing was recorded: try again")
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`). Python's own flush at exit must not trip too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130
    return status


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hostledger",
        description="Host Factory provider for AWS EC2 with an event-sourced ledger.",
        epilog="exit status: 0 done, 1 refused or failed, 2 wrong usage",
    )
    parser.add_argument("--version", action="version", version=f"hostledger {VERSION}")
    parser.add_argument(
        "--store",
        metavar="PLACE",
        help="ask this store, which may be inert, instead of the instance's: sqlite:/FILE, ...",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        described = commands.add_parser(name, help=summary, description=f"{name}: {summary}")
        if name == command:
            with loads.loading(module):
                import_module(module).add_arguments(described)
    return parser


def _fail(sentence: str) -> int:
    print(f"hostledger: {' '.join(sentence.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
