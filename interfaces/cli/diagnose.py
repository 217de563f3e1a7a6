"""`hostledger diagnose slow-queries | aws | memory | startup | profile`: why something is slow."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory
from typing import Any

from interfaces.cli import options, output
from interfaces.hostfactory import verbs
from interfaces.read_side import Call, aws_calls, memory_growth, slow_statements

MOST = 10
"""Rows that are told unless more are asked for."""

DAY = timedelta(days=1)
LONGEST_INTERVAL = 3600


def seconds(value: str) -> int:
    """An argument that is a time to wait."""
    number = options.count(value)
    if number > LONGEST_INTERVAL:
        raise ValueError(f"above {LONGEST_INTERVAL}")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    slow = options.add_action(
        actions, "slow-queries", slow_queries, "the slowest statements to the store, with plans"
    )
    aws_ = options.add_action(
        actions, "aws", aws, "how long AWS took to answer, and how often with an error, by API"
    )
    for parser_ in (slow, aws_):
        parser_.add_argument(
            "--since",
            type=options.time,
            metavar="TIME",
            help="what the log has from then on, ISO 8601; default a day ago",
        )
    slow.add_argument(
        "--limit", type=options.count, default=MOST, metavar="N", help=f"default {MOST}"
    )
    looks = options.add_action(
        actions, "memory", memory, "what grows in the memory of worker and server, and who holds it"
    )
    looks.add_argument(
        "--interval",
        type=seconds,
        default=10,
        metavar="SECONDS",
        help="between the two looks, default 10; they are slower meanwhile",
    )
    for name, act, summary in (
        ("startup", startup, "what a verb imports, and its start beside that of a bare Python"),
        ("profile", profile, "where the time of a verb goes (cProfile)"),
    ):
        action = options.add_action(actions, name, act, summary)
        action.add_argument("verb", choices=(*verbs.READS, *verbs.WRITES), metavar="VERB")
        action.add_argument(
            "-f",
            dest="file",
            type=options.text,
            metavar="FILE",
            help="the JSON input: the verb is carried out; a read has {} without it",
        )
    action.add_argument(
        "--to", type=options.text, metavar="FILE", help="keep the profile, for pstats or snakeviz"
    )


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


# -- from the log ---------------------------------------------------------------------------------


def _reading(arguments: argparse.Namespace) -> tuple[Call, str]:
    """The instance, and from when on its log is read."""
    call = options.reading(arguments)
    level = call.settings["logging"]["level"]
    if level not in ("TRACE", "DEBUG", "INFO"):
        print(f"hostledger: logging.level is {level}: this is noted from INFO on", file=sys.stderr)
    return call, arguments.since or options.time((datetime.now(UTC) - DAY).isoformat())


def slow_queries(arguments: argparse.Namespace) -> int:
    rows = slow_statements(*_reading(arguments), arguments.limit)
    if output.is_data(arguments):
        output.show_data(arguments, {"statements": rows})
        return 0
    output.show_table(rows, ("duration", "count", "last_at", "sql"), "no statement was slow")
    for row in rows:
        print(f"\n{output.cell(row['sql'])}")
        for step in row["plan"]:
            print(f"    {step}")
    return 0


def aws(arguments: argparse.Namespace) -> int:
    return output.show_document(arguments, aws_calls(*_reading(arguments)), apis=())


# -- of a living process --------------------------------------------------------------------------


def memory(arguments: argparse.Namespace) -> int:
    rows = memory_growth(options.reading(arguments), arguments.interval)
    silent = [row for row in rows if "types" not in row]
    for row in silent:
        print(
            f"hostledger: {row['process']} {row['pid']} did not answer: it is in a long turn, of "
            "another release or another user's",
            file=sys.stderr,
        )
    if output.is_data(arguments):
        document = {"interval": arguments.interval, "processes": rows}
        output.show_data(arguments, document, "processes")
        return 0
    for row in rows:
        output.show_document(arguments, row, containers=(), types=(), sites=())
        print()
    return 0


# -- of a fresh process ---------------------------------------------------------------------------


def _verb_run(arguments: argparse.Namespace, act: Any) -> int:
    """Do something with a run of the verb; exit 2 where it would change something unasked."""
    from interfaces.cli.verb_runs import VerbRun, empty_input

    if arguments.file is None and arguments.verb in verbs.WRITES:
        print(
            f"hostledger: {arguments.verb} changes the ledger: name its input with -f FILE; it is "
            "carried out once",
            file=sys.stderr,
        )
        return 2
    environ = options.environ_of(arguments)
    site = options.site_of(arguments)
    environ |= {
        "HF_PROVIDER_NAME": site.provider,
        "HF_PROVIDER_CONFDIR": site.conf_dir,
        "HF_PROVIDER_WORKDIR": site.work_dir,
        "HF_PROVIDER_LOGDIR": site.log_dir,
    }
    given = nullcontext(os.path.abspath(arguments.file)) if arguments.file else empty_input()
    with given as file:
        verb_run = VerbRun(arguments.verb, file, environ)
        status: int = act(verb_run)
    if verb_run.failure:
        print(
            f"hostledger: {arguments.verb} failed: {output.cell(verb_run.failure)}", file=sys.stderr
        )
    return status


def startup(arguments: argparse.Namespace) -> int:
    def act(verb_run: Any) -> int:
        document = verb_run.startup()
        if arguments.output == "table":
            document["modules"] = document["modules"][: 2 * MOST]
        return output.show_document(arguments, document, modules=())

    return _verb_run(arguments, act)


def profile(arguments: argparse.Namespace) -> int:
    def act(verb_run: Any) -> int:
        with TemporaryDirectory(prefix="hostledger-") as directory:
            path = os.path.abspath(arguments.to) if arguments.to else f"{directory}/profile"
            document = verb_run.profile(path, MOST)
        document["file"] = path if arguments.to else None
        columns = ("cumulative", "own", "calls", "function")
        return output.show_document(arguments, document, functions=columns)

    return _verb_run(arguments, act)
