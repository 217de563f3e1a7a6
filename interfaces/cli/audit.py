"""`hostledger audit`: what the ledger says happened, by whom and because of what, whether that is
what was written, and files of it."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

from application import history as histories
from application.replay import end_of
from interfaces.cli import changes, cloudtrail, log_file, options, output, verified

COLUMNS = ("position", "recorded_at", "topic", "stream", "user", "process")

LOOK_AGAIN = 1.0
"""Seconds between two looks at a log that is followed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    telling = options.add_action(
        actions,
        "history",
        history,
        "the events of a request, return, machine, batch, termination or template, "
        'or of "deployment", with the ids of the AWS calls behind them',
    )
    telling.add_argument("identifier", type=options.text, metavar="ID")
    options.add_archive(telling)
    telling.add_argument(
        "--related", action="store_true", help="and all that the same commands led to"
    )
    explaining = options.add_action(
        actions, "explain", explain, "why a machine existed, from who asked to what ended it"
    )
    explaining.add_argument("machine_id", type=options.text, metavar="MACHINE")
    options.add_archive(explaining)
    changes.add_arguments(actions)
    log_file.add_arguments(actions)
    verified.add_arguments(actions)
    cloudtrail.add_arguments(actions)
    ending = options.add_action(actions, "tail", tail, "the end of the log, or all since a time")
    options.add_archive(ending)
    ending.add_argument("-n", type=options.count, default=20, metavar="N", help="default 20")
    ending.add_argument(
        "--topic", "--type", type=options.text, metavar="T", help="only events of this topic"
    )
    ending.add_argument(
        "--since", type=options.text, metavar="TIME", help="all from a time on, instead of N"
    )
    ending.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def history(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    with closing(call.log()) as log:
        events = histories.history(log, arguments.identifier, call.site.provider, arguments.related)
        calls = histories.aws_calls(log, events)
    if output.is_data(arguments):
        output.show_data(arguments, {"events": events, "aws_calls": calls}, "events")
        return 0
    for event in events:
        _tell(event)
    if calls:
        print("\nAWS's answers")
        output.show_table(calls, ("position", "recorded_at", "api", "aws_request_id", "stream"))
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
    return "/".join(
        actor[part] for part in ("user", "provider", "process", "principal") if actor.get(part)
    )


def explain(arguments: argparse.Namespace) -> int:
    with closing(options.reading(arguments).log()) as log:
        document = histories.explain(log, arguments.machine_id)
    if output.is_data(arguments):
        output.show_data(arguments, document)
    else:
        from interfaces.cli import explained

        print(explained.page(document))
    return 0


def tail(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    if arguments.follow:
        try:
            return _follow(arguments, call)
        except KeyboardInterrupt:
            return 0
    events, _ = _ending(arguments, call)
    for event in events:
        event |= {part: event["actor"].get(part) for part in ("user", "process")}
    return output.show_rows(arguments, "events", events, COLUMNS, "no event")


def _ending(arguments: argparse.Namespace, call: Any) -> tuple[list[dict[str, Any]], int]:
    """The events that are asked for, and the position at which the log ends."""
    with closing(call.log()) as log:
        if not arguments.since:
            events = histories.last_events(log, arguments.n, arguments.topic)
        else:
            after = histories.position_before(log, arguments.since)
            events = list(histories.events_after(log, after, arguments.topic))
        return events, end_of(log)


def _follow(arguments: argparse.Namespace, call: Any) -> int:
    """A line an event as it comes, without end. Each look is a new one: any store gives that."""
    events, position = _ending(arguments, call)
    while True:
        for event in events:
            _show_line(arguments, event)
        sys.stdout.flush()
        call.clock.sleep(LOOK_AGAIN)
        with closing(call.log()) as log:
            events = list(histories.events_after(log, position, arguments.topic))
            position = end_of(log)


def _show_line(arguments: argparse.Namespace, event: dict[str, Any]) -> None:
    if output.is_data(arguments):
        output.show_item(arguments, event)
        return
    cells = [output.cell(event[part]) for part in ("recorded_at", "topic", "stream")]
    print(output.fitted(f"{event['position']:>8}  {'  '.join(cells)}  by {_actor(event)}"))
