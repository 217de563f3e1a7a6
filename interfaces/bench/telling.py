"""The document of a run as tables, each with what it says: for the terminal, and for a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import fill
from typing import Any, NamedTuple

from interfaces.bench import load, requirements
from interfaces.bench.in_process import PERCENTS
from interfaces.bench.sites import SERVED

Row = dict[str, Any]

REPRODUCE = "make bench"
WIDTH = 100


class Column(NamedTuple):
    """A heading, and a row's text below it."""

    heading: str
    cell: Callable[[Row], str]
    number: bool = True


class Table(NamedTuple):
    """A title, sentences for who has never seen it, columns and rows; `notes` stand below."""

    title: str
    sentences: str
    columns: list[Column]
    rows: list[Row]
    notes: tuple[str, ...] = ()


def value(name: str, form: str = ".2f") -> Callable[[Row], str]:
    """A row's figure; "-" for none."""
    return lambda row: "-" if row[name] is None else format(row[name], form)


def text(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name])


STORE = Column("store", text("store"), False)
RATIO = Column("x pass", value("ratio"))
RESPONSE = [
    Column("mean ms", value("mean_ms")),
    *(Column(f"p{p} ms", value(f"p{p}_ms")) for p in PERCENTS),
    Column("a second", value("per_second", ",.0f")),
]


def tables(document: dict[str, Any]) -> Iterator[Table]:
    """What was measured of the document, in the order of the parts."""
    for part, make in MAKERS.items():
        if document.get(part):
            yield make(document[part])


def _requests(rows: list[Row]) -> Table:
    kept = "; ".join(f"{row['store']}: {SERVED[row['store']]}" for row in rows)
    return Table(
        "Requests",
        f"{rows[0]['in_flight']} threads of one process, as the requirements' figures imply (67 a "
        "second of 0.15 s each), make one RequestMachines command after the other: it is checked, "
        "committed to the log with its read row, and on the disk before its thread begins the "
        "next. A response time includes the wait for the other threads. Half of them took no "
        f"longer than p50, 99 of 100 no longer than p99. Kept by {kept}. All commits on DynamoDB "
        "pass one item: who comes second waits a little and tries again, which its p95 shows. "
        "`x pass` is the processor time of one request as a multiple of that of "
        "`python -c pass`, which says more of the program than of the machine; what a server of "
        "its own works is not in it.",
        [STORE, Column("requests", value("count", ",")), *RESPONSE, RATIO],
        rows,
    )


def _polls(rows: list[Row]) -> Table:
    return Table(
        "Status polls, as the store grows",
        "One poll is getRequestStatus of a request of ten machines, one after the other, from the "
        "opening of the store to the answer, without the start of a process. `growth` is its "
        "processor time beside that of the first row of its store: 1 means that it does not "
        "depend on how much is stored.",
        [
            STORE,
            Column("machines stored", value("machines", ",")),
            *RESPONSE,
            RATIO,
            Column("growth", value("growth")),
        ],
        rows,
    )


def _cold_starts(rows: list[Row]) -> Table:
    return Table(
        "Cold starts",
        "Whole processes on SQLite, from their start to their end, as HostFactory and operators "
        "start them; `worker.mode` is external. Each runs in turn with `python -c pass`, the least "
        "that any Python program takes; `ratio` is the median of the ratios of such pairs, so "
        "that a busy machine hardly changes it. `no worse than` and `aim` are this project's own. "
        "MiB are the most that the process had in memory.",
        [
            Column("command", text("command"), False),
            Column("ms", value("ms", ".1f")),
            Column("pass ms", value("pass_ms", ".1f")),
            Column("ratio", value("ratio")),
            Column("no worse than", value("worst", "g")),
            Column("aim", value("aim", "g")),
            Column("MiB", value("peak_mib", ".1f")),
        ],
        rows,
        tuple(
            f"Missed: {row['command']} is {row['ratio']:.2f}, worse than {row['worst']:g}."
            for row in rows
            if row["worst"] is not None and row["ratio"] > row["worst"]
        ),
    )


def _scripts(rows: list[Row]) -> Table:
    return Table(
        "Whole scripts",
        f"`requestMachines.sh`, {rows[0]['in_flight']} at a time, as HostFactory would call it: "
        "each is a process that starts, commits one request and ends. `pass a second` is how many "
        "processes that do nothing this machine starts and ends, as many at a time; the ratio is "
        "between the two.",
        [
            STORE,
            *RESPONSE,
            Column("pass a second", value("pass_per_second", ",.0f")),
            Column("ratio", value("ratio")),
        ],
        rows,
    )


def _load(rows: list[Row]) -> Table:
    return Table(
        "Load test",
        f"The requirements' own: {rows[0]['count']:,} requests of one machine, each of a template "
        f"of its own (`test-template-0`, ...), {rows[0]['at_once']} at once in one process. "
        "`refused` is how often the store was too busy to record one, which was then asked anew.",
        [
            STORE,
            Column("requests", value("count", ",")),
            Column("seconds", value("seconds")),
            *RESPONSE,
            Column("refused", value("refused", ",")),
            RATIO,
        ],
        rows,
    )


def _faults(rows: list[Row]) -> Table:
    return Table(
        "Load test under faults",
        "The same while a worker launches the machines at the sandbox, AWS's stand-in, over HTTP: "
        f"it throttles, one launch in a hundred fails (every other of those is carried out all the "
        "same), and the worker is killed (SIGKILL) on the way and another one goes on. Without a "
        "new account's limit of two launches a second, here and in `provider.aws.buckets` and "
        f"`max_inflight` ({load.INFLIGHT}), since it would be that which is measured. At the end "
        "each request has its machine, or the program is wrong.",
        [
            STORE,
            Column("requests", value("count", ",")),
            Column("asked in s", value("seconds")),
            Column("all run after s", value("until_all_run_seconds", ".0f")),
            Column("fulfilled", value("fulfilled", ",")),
            Column("AWS calls", value("aws_calls", ",")),
            Column("failed", lambda row: str(sum(row["aws_failures"].values()))),
            Column("worker MiB", value("worker_peak_mib", ".0f")),
            Column("ledger and cloud", lambda r: "agree" if r["agree"] else "DIFFER", False),
        ],
        rows,
        tuple(f"{requirements.agreement(row)}." for row in rows),
    )


def _aws_calls(rows: list[Row]) -> Table:
    return Table(
        "AWS calls",
        "From the request until the last machine is gone, counted in a simulated cloud and time, "
        "with a sweep a minute; machines boot in 20 s. HostFactory's polls make no call. All ways "
        "to launch, and 10,000 machines: docs/reference/aws-calls.md.",
        [
            Column("requests", value("requests", ",")),
            Column("machines", value("machines", ",")),
            Column("by", text("way"), False),
            Column("calls", value("calls", ",")),
            Column("a machine", value("per_machine")),
            Column(
                "of which",
                lambda row: ", ".join(f"{n} {action}" for action, n in row["actions"].items()),
                False,
            ),
        ],
        rows,
    )


def _replay(rows: list[Row]) -> Table:
    return Table(
        "Replay",
        "The whole log is read, folded into read models and compared with those that answer "
        "(`hostledger projections verify`), and built anew and exchanged while commands go on "
        "(`projections rebuild`): events in a second. `x pass` is the processor time of 1,000 "
        "events, verified. 1,000,000 events: docs/reference/performance-replay.md.",
        [
            STORE,
            Column("events", value("events", ",")),
            Column("verified a second", value("verified_per_second", ",.0f")),
            Column("rebuilt a second", value("rebuilt_per_second", ",.0f")),
            Column("x pass", lambda row: f"{1000 * row['ratio']:.2f}"),
        ],
        rows,
    )


def _memory(rows: list[Row]) -> Table:
    return Table(
        "Memory",
        "The most resident memory that a process had, and as a multiple of that of "
        "`python -c pass`.",
        [
            Column("process", text("what"), False),
            Column("MiB", value("peak_mib", ".1f")),
            Column("of pass", value("ratio")),
        ],
        rows,
    )


def _counts(counts: dict[str, int]) -> Table:
    return Table(
        "Counts",
        "These do not depend on the machine. Modules are those that a script imports beyond those "
        "of an interpreter that does nothing.",
        [Column("what", text("what"), False), Column("count", value("count", ","))],
        [{"what": name, "count": count} for name, count in counts.items()],
    )


def _beside_orb(rows: list[Row]) -> Table:
    return Table(
        "Beside ORB",
        f"{rows[0]['orb']} (Open Resource Broker, `pip install orb-py`: the product that the "
        "requirements were written for), installed for this run and measured in turn with "
        "`python -c pass` of its own environment, and ours beside it. ORB's scripts for "
        "HostFactory call the same program as a person does; ours are made for that alone, so "
        "that a question is there for both.",
        [
            Column("what", text("what"), False),
            Column("ORB", text("theirs"), False),
            Column("ours", text("ours"), False),
            Column("ORB ms", value("orb_ms", ".0f")),
            Column("ours ms", value("ms", ".0f")),
            Column("ORB x pass", value("orb_ratio", ".1f")),
            Column("ours x pass", value("ratio", ".1f")),
            Column("ORB MiB", value("orb_mib", ".0f")),
            Column("ours MiB", value("peak_mib", ".0f")),
        ],
        rows,
    )


MAKERS: dict[str, Callable[[Any], Table]] = {
    "requests": _requests,
    "scripts": _scripts,
    "load": _load,
    "faults": _faults,
    "polls": _polls,
    "cold_starts": _cold_starts,
    "beside_orb": _beside_orb,
    "aws_calls": _aws_calls,
    "replay": _replay,
    "memory": _memory,
    "counts": _counts,
}


def measured_on(document: dict[str, Any]) -> str:
    """The machine, in one sentence."""
    on = document["machine"]
    said = (
        f"Measured on {on['cores']} cores, {on['architecture']}, {on['system']}, "
        f"{on['memory_mib'] / 1024:.0f} GiB, {on['python']}; a small write that waits for the disk "
        f"takes {on['sync_ms']:.2g} ms, `python -c pass` {on['pass_cpu_ms']:.1f} ms of processor "
        f"time; in {document['seconds']} s at {document['measured_at']}."
    )
    if document["quick"]:
        said += " A quick run: its figures are of too little to say much."
    return said


def left_out(document: dict[str, Any]) -> list[str]:
    return [f"Left out: {row['what']}: {row['why']}" for row in document["left_out"]]


def plain(table: Table) -> Iterator[str]:
    """A table for the terminal, in lines."""
    yield table.title
    yield from fill(table.sentences, WIDTH, break_on_hyphens=False).splitlines()
    lines = [[column.heading for column in table.columns]]
    lines += [[column.cell(row) for column in table.columns] for row in table.rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for cells in lines:
        yield "  ".join(
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        ).rstrip()
    yield from table.notes


def page(document: dict[str, Any], drawn: str) -> str:
    """The page that says what a run has found, in Markdown; beside it are the results and, where
    there is something to draw, the picture `drawn`."""
    lines = [
        "# Performance",
        "",
        f"<!-- Written by `{REPRODUCE}` (hostledger bench --save); not by hand. -->",
        "",
        f"The results of `hostledger bench`, reproduced with `{REPRODUCE}`; beside this page they",
        "are JSON. How to read them, and to compare two runs:",
        "[Measure it](../how-to/measure.md). Absolute figures are this machine's; ratios are of",
        "one run and hold elsewhere.",
        "",
        fill(measured_on(document), WIDTH),
        "",
    ]
    if drawn:
        lines += [f"![Requests in a second, status polls and cold starts]({drawn})", ""]
    lines += [f"{line}.\n" for line in left_out(document)]
    lines += [
        "Of single parts, beside something bare: [stores](performance-stores.md),",
        "[server](performance-server.md), [console](performance-console.md),",
        "[replay](performance-replay.md), [calls to AWS](aws-calls.md),",
        "[what grows with a site](scale.md).",
        "",
    ]
    for table in tables(document):
        lines += [f"## {table.title}", "", fill(table.sentences, WIDTH, break_on_hyphens=False), ""]
        lines.append("| " + " | ".join(column.heading for column in table.columns) + " |")
        lines.append("|" + "|".join("---:" if c.number else "---" for c in table.columns) + "|")
        for row in table.rows:
            lines.append("| " + " | ".join(column.cell(row) for column in table.columns) + " |")
        lines.append("")
        lines += [f"{note}\n" for note in table.notes]
    beside = "\n".join(requirements.lines(document)).strip()
    lines += [
        "## The requirements' figures",
        "",
        "`hostledger bench --requirements` prints the lines of the requirements with the figures",
        "of this run, and theirs behind them:",
        "",
        "```text",
        beside,
        "```",
        "",
    ]
    return "\n".join(lines)
