"""`hostledger report usage | cost | capacity`: what the ledger says of a time, summed up."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from application import reports
from interfaces.cli import options, output, picture
from interfaces.read_side import price_list

Row = dict[str, Any]

UNKNOWN = "unknown"


def moment(value: str) -> float:
    """A date or a time in ISO 8601, UTC unless it says otherwise, in seconds since the epoch."""
    at = datetime.fromisoformat(value)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _groups(value: str) -> list[str]:
    names = value.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(reports.GROUPS):
        raise ValueError(value)
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, act, summary in (
        ("usage", usage, "machine-hours; machines launched, terminated and interrupted"),
        ("cost", cost, "machine-hours times what is known of prices"),
        ("capacity", capacity, "time to fulfil, shortfalls by pool and reason, interruptions"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        options.add_common(action, (*options.OUTPUTS, "csv"))
        add_window(action)
        action.add_argument(
            "--by",
            type=_groups,
            default=["template"],
            metavar="GROUP,...",
            help=f"one or more of {', '.join(reports.GROUPS)}; default template",
        )
        action.add_argument(
            "--plot",
            type=picture.file,
            metavar="FILE",
            help="a picture too (.png or .svg): the fleet over time, stacked by the first of --by",
        )
        action.set_defaults(act=act)


def add_window(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="ISO 8601; default the first event"
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="ISO 8601; default now")
    options.add_archive(parser)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def _report(arguments: argparse.Namespace, make: Callable[..., Row]) -> Row:
    """The document, of one look at the log; the picture is written of the same look."""
    call = options.reading(arguments)
    listed = (price_list(call),) if make is reports.cost else ()
    draw = picture.writer(arguments.plot) if arguments.plot else None
    with closing(call.log()) as view:
        window = reports.window_of(view, arguments.since, arguments.until, call.clock.now()[0])
        document = make(view, window, arguments.by, *listed)
        if draw is not None:
            first = arguments.by[0]
            bands = reports.fleet(view, window, first, picture.STEPS)
            draw(picture.fleet(window, first, bands), picture.HEIGHT)
            print(f"hostledger: {arguments.plot} is written", file=sys.stderr)
    if output.is_data(arguments):
        output.show_data(arguments, document, "rows")
    return document


def usage(arguments: argparse.Namespace) -> int:
    document = _report(arguments, reports.usage)
    columns = (*arguments.by, "machines", *reports.USED)
    if arguments.output == "csv":
        _show_csv(document["rows"], columns)
    if arguments.output == "table":
        _tell_window(document)
        output.show_table([*document["rows"], _total(document)], columns)
    return 0


def _total(document: Row) -> Row:
    first, *others = document["by"]
    return {first: "total", **dict.fromkeys(others), **document["total"]}


def cost(arguments: argparse.Namespace) -> int:
    """A cost that is not known is said to be so: it is neither zero nor in any sum."""
    document = _report(arguments, reports.cost)
    columns = (*arguments.by, "machines", "machine_hours", "cost", "currency")
    for row in [*document["rows"]]:
        if row["currency"] is None:
            row |= {"currency": UNKNOWN, "cost": UNKNOWN}
    if arguments.output == "csv":
        _show_csv(document["rows"], columns)
    if arguments.output == "table":
        _tell_window(document)
        output.show_table(document["rows"], columns, "no machine")
        _tell_sums(document)
    return 0


def _tell_sums(document: Row) -> None:
    """What is known in all, what of it is left out, and where the prices are from."""
    left = document["left_out"]
    print()
    for total in document["totals"]:
        print(
            f"{total['cost']} {total['currency']} for {total['machine_hours']} machine-hours of "
            f"{total['machines']} machines"
        )
    if left["machines"]:
        print(
            f"left out, of unknown price: {left['machine_hours']} machine-hours of "
            f"{left['machines']} machines"
        )
        output.show_table(left["of"], (*reports.PRICED, "machines", "machine_hours"))
    if document["prices"]:
        print("\nprices")
        columns = (*reports.PRICED, "per_hour", "currency", "source", "date")
        output.show_table(document["prices"], columns)


def capacity(arguments: argparse.Namespace) -> int:
    document = _report(arguments, reports.capacity)
    waits = tuple(f"seconds_p{percent}" for percent in reports.PERCENTS)
    columns = (*arguments.by, *reports.NOTHING, *waits)
    short = (*document["by_request"], "pool", "reason", "requests", "missing")
    if arguments.output == "csv":
        _show_csv(document["rows"], columns)
        print()
        _show_csv(document["shortfalls"], short)
    if arguments.output == "table":
        _tell_window(document)
        output.show_table(document["rows"], columns, "no request became final")
        print("\nshortfalls")
        output.show_table(document["shortfalls"], short, "none")
    return 0


def _tell_window(document: Row) -> None:
    print(f"{document['since']} to {document['until']}")


def _show_csv(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """A head and a line a row; an empty cell is what there is not."""
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows([row[column] for column in columns] for row in rows)
