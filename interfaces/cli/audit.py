"""`hostledger audit history | export | import | tail`: what the ledger says happened, by whom and
because of what."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from application import queries
from interfaces.cli import log_file, options, output

COLUMNS = ("position", "recorded_at", "topic", "stream", "user", "process")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    telling = options.add_action(
        actions,
        "history",
        history,
        "the events of a request, return, machine, batch, termination or template, "
        'or of "deployment"',
    )
    telling.add_argument("identifier", type=options.text, metavar="ID")
    options.add_archive(telling)
    telling.add_argument(
        "--related", action="store_true", help="and all that the same commands led to"
    )
    log_file.add_arguments(actions)
    ending = options.add_action(actions, "tail", tail, "the end of the log")
    options.add_archive(ending)
    ending.add_argument("-n", type=options.count, default=20, metavar="N", help="default 20")
    ending.add_argument("--topic", type=options.text, metavar="T", help="only events of this topic")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def history(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    with closing(call.log()) as view:
        events = queries.history(view, arguments.identifier, call.site.provider, arguments.related)
    if arguments.output == "json":
        output.show_json({"events": events})
    else:
        for event in events:
            _tell(event)
    return 0


def _tell(event: dict[str, Any]) -> None:
    """A line that says what and when, and below it on which thing, by whom, why, and the fields."""
    print(f"{event['position']:>8}  {output.cell(event['recorded_at'])}  {event['topic']}")
    command = event["correlation_id"] or "-"
    because = f", because of event {event['causation_id']}" if event["causation_id"] else ""
    for line in (
        event["stream"],
        f"by {_actor(event)}, command {command}{because}",
        output.cell(event["fields"]),
    ):
        print(output.fitted(f"          {line}"))


def _actor(event: dict[str, Any]) -> str:
    actor = event["actor"]
    return "/".join(actor[part] for part in ("user", "provider", "process") if actor.get(part))


def tail(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).log()) as view:
        events = queries.last_events(view, arguments.n, arguments.topic)
    if arguments.output == "table":
        for event in events:
            event |= {part: event["actor"].get(part) for part in ("user", "process")}
    return output.show_rows(arguments, "events", events, COLUMNS, "no event")
