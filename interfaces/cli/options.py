"""What the commands have in common: their options, and how they find and open an instance."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from application.failures import BrokenConfiguration, Conflict, StoreError
from application.queries import NotInLedger
from application.replay import recorded
from domain.refusals import UnknownRequest
from interfaces.cli import output
from interfaces.loading import is_wanted, loads
from interfaces.read_side import FLAGS_VARIABLE, Call, hindrance, registered_site, site_from

OUTPUTS = ("table", "json", "jsonl", "yaml")


def text(value: str) -> str:
    """An argument that is stored or looked up: not empty, and no undecodable bytes."""
    value.encode()
    if not value.strip():
        raise ValueError("empty")
    return value


def count(value: str) -> int:
    """An argument that counts: from 1."""
    number = int(value)
    if number < 1:
        raise ValueError("below 1")
    return number


def moment(value: str) -> str:
    """An argument that is a position in the log or a time in ISO 8601; it is UTC without a zone."""
    try:
        return value if value.isdecimal() else recorded(value)
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def setting(value: str) -> tuple[str, str]:
    """An argument KEY=VALUE, as a pair."""
    key, equals, text_ = value.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("KEY=VALUE is needed")
    return key.strip(), text_


def add_as_of(*parsers: argparse.ArgumentParser) -> None:
    for parser in parsers:
        parser.add_argument(
            "--as-of",
            type=moment,
            metavar="WHEN",
            help="as it was known then: a position, or a time in ISO 8601 (UTC without a zone)",
        )
        add_archive(parser)


def time(value: str) -> str:
    """An argument that is a time in ISO 8601; it is UTC without a zone."""
    try:
        return recorded(value)
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_action(
    actions: Any, name: str, act: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """A command's action, with the options that all have."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    add_common(parser)
    parser.set_defaults(act=act)
    return parser


def add_common(parser: argparse.ArgumentParser, outputs: Sequence[str] = OUTPUTS) -> None:
    add_provider(parser)
    parser.add_argument(
        "--config", type=text, metavar="FILE", help="our configuration (HOSTLEDGER_CONFIG)"
    )
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, before all that files and environment say; as often as there are settings",
    )
    add_output(parser, outputs)


def add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider", type=text, metavar="NAME", help="the provider instance (HF_PROVIDER_NAME)"
    )


def add_archive(parser: argparse.ArgumentParser) -> None:
    """For a command that reads events; `reading` gives the files to its looks."""
    parser.add_argument(
        "--archive",
        type=text,
        action="append",
        default=[],
        metavar="FILE",
        help="where archived events are; as often as there are files",
    )


def add_output(parser: argparse.ArgumentParser, outputs: Sequence[str] = OUTPUTS) -> None:
    parser.add_argument(
        "--output",
        type=output.usable,
        choices=outputs,
        default="table",
        help="for people or programs; jsonl: a line a row",
    )


def add_reason(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--reason", type=text, required=required, metavar="TEXT", help="why, for the ledger"
    )


def environ_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The environment as the options change it."""
    environ = dict(os.environ)
    if arguments.config:
        environ["HOSTLEDGER_CONFIG"] = os.path.abspath(arguments.config)
    if given := getattr(arguments, "set", None):
        environ[FLAGS_VARIABLE] = json.dumps(dict(given))
    return environ


def site_of(arguments: argparse.Namespace) -> Any:
    """The instance that HostFactory's environment names, else a registered one.

    Raises NotConfigured.
    """
    named = os.environ.get("HF_PROVIDER_NAME") or os.environ.get("PROVIDER_NAME")
    if named and arguments.provider in (None, named):
        return site_from(os.environ)
    return registered_site(os.environ, arguments.provider)


def process_of(arguments: argparse.Namespace) -> str:
    """Who acts, for the ledger."""
    return " ".join(["hostledger", arguments.command, getattr(arguments, "action", "")]).rstrip()


def reading(arguments: argparse.Namespace, site: Any = None) -> Call:
    """An instance to read from, wired as a HostFactory read is."""
    with loads.loading("call"):
        call = Call(
            process_of(arguments),
            environ_of(arguments),
            sys.executable,
            site or site_of(arguments),
            arguments.store,
        )
        call.archives = getattr(arguments, "archive", ())
        call.storage.watch = call.slow_statements()
    loads.report_to(call.journal(), wanted=is_wanted(call.environ, call.settings))
    _warn(arguments, call.compiled.problem)
    return call


@contextmanager
def looking(arguments: argparse.Namespace, find: Any = None) -> Iterator[Any]:
    """A look at the read models as they are, or as they were `--as-of`: then at what `find`
    (of `application.as_of`) says is of concern, or at everything.

    Raises StoreError, and what questions raise, with the position before it.
    """
    call = reading(arguments)
    if arguments.as_of is None:
        with loads.loading("queries"):
            view = call.queries()
        with closing(view):
            yield view
        return
    with loads.loading("past"):
        view = call.past(arguments.as_of, find, output.Progress())
    with closing(view):
        try:
            yield view
        except (NotInLedger, UnknownRequest) as error:
            raise type(error)(f"as of position {view.position}, {error}") from None


def writing(arguments: argparse.Namespace, site: Any = None) -> Any:
    """The container over an instance to write to (`interfaces.write_side.container.WriteSide`).

    Raises StoreError where another store is named.
    """
    if arguments.store is not None:
        raise StoreError("--store is for commands that only read")
    with loads.loading("interfaces.write_side"):
        from interfaces.write_side.container import WriteSide
        from interfaces.write_side.start import report_loads

    side = WriteSide(
        site=site or site_of(arguments),
        environ=environ_of(arguments),
        process=process_of(arguments),
    )
    _warn(arguments, side.compiled().problem)
    report_loads(side)
    return side


def _warn(arguments: argparse.Namespace, problem: str) -> None:
    """Tell that the last good configuration is used; where a file was named that would be wrong."""
    if not problem:
        return
    if arguments.config:
        raise BrokenConfiguration(problem)
    print(f"hostledger: the site's files are not taken over: {problem}", file=sys.stderr)


@contextmanager
def ledger_of(side: Any) -> Iterator[Any]:
    """The ledger for one command. Raises Conflict when another writer was first."""
    from eventsourcing.persistence import IntegrityError

    with closing(side.store()):
        try:
            yield side.ledger()
        except IntegrityError as error:
            raise Conflict(str(error)) from None


def tell_if_nobody_works(arguments: argparse.Namespace) -> None:
    """After a command that is recorded: say so when no worker is there to carry it out."""
    told = hindrance(reading(arguments))
    if told:
        print(f"hostledger: recorded, but {told}", file=sys.stderr)
