"""The figures of the requirements beside ours, in the very lines in which they are printed there
("Benchmark Results", "Load Testing", "Startup Performance Optimization")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

START_UP, START_UP_BEFORE, IMPROVEMENT = 0.326, 2.0, 85
"""Seconds for light commands, seconds before ("2+"), and per cent between them."""


class Asked(NamedTuple):
    """Of a storage strategy: mean and 95th percentile in seconds, requests in a second."""

    mean: float
    p95: float
    per_second: float


STRATEGIES = {"JSON": Asked(0.15, 0.25, 67), "SQL": Asked(0.08, 0.12, 125)}
NAMES = {"json": "JSON", "sql": "SQL", "sqlite": "SQLite", "dynamodb": "DynamoDB"}


def lines(document: dict[str, Any]) -> Iterator[str]:
    """The lines, with what the requirements say behind them."""
    for row in document.get("requests", ()):
        name = NAMES[row["store"]]
        asked = STRATEGIES.get(name)
        yield f"Storage Strategy: {name}"
        for label, value, wanted in (
            ("Average response time", _s(row["mean_ms"]), asked and f"{asked.mean:g}s"),
            ("95th percentile", _s(row["p95_ms"]), asked and f"{asked.p95:g}s"),
            (
                "Throughput",
                f"{row['per_second']:.0f} requests/second",
                asked and f"{asked.per_second:g} requests/second",
            ),
        ):
            yield f"- {label}: {value}" + _beside(wanted)
        for script in document.get("scripts", ()):
            if script["store"] == row["store"]:
                yield f"- Whole scripts: {script['per_second']:.0f} requests/second"
        yield ""
    for row in document.get("load", ()):
        yield f"Load test, {NAMES[row['store']]}, {row['at_once']} at once"
        yield from _load(row)
        yield ""
    for row in document.get("faults", ()):
        yield f"Load test under faults, {NAMES[row['store']]}, {row['at_once']} at once"
        yield from _load(row)
        yield f"{agreement(row)}"
        yield ""
    yield from _start_up(document.get("cold_starts", ()))


def _load(row: dict[str, Any]) -> Iterator[str]:
    yield f"Processed {row['count']} requests in {row['seconds']:.2f}s"
    yield f"Throughput: {row['per_second']:.2f} requests/second"


def agreement(row: dict[str, Any]) -> str:
    """What the load test under faults came to, in one sentence."""
    failures = ", ".join(f"{n} {kind}" for kind, n in row["aws_failures"].items()) or "none"
    came = (
        f"{row['fulfilled']} of {row['count']} requests fulfilled after "
        f"{row['until_all_run_seconds']:.0f}s, with a worker killed at "
        f"{row['killed_after_machines']} machines and these failures of {row['aws_calls']} AWS "
        f"calls: {failures}"
    )
    if row["agree"]:
        return f"{came}; ledger and cloud agree: {row['machines']} machines in each"
    return (
        f"{came}; LEDGER AND CLOUD DIFFER: {row['only_in_cloud']} machines only in the cloud, "
        f"{row['only_in_ledger']} only in the ledger"
    )


def _start_up(rows: Any) -> Iterator[str]:
    wanted = [
        row
        for row in rows
        if row["command"] == "hostledger --help" or row["command"].startswith("getAvailable")
    ]
    if not wanted:
        return
    yield "Startup Time"
    for row in wanted:
        saved = 100 * (1 - row["ms"] / 1000 / START_UP_BEFORE)
        yield (
            f"- {row['command']}: {_s(row['ms'])}"
            + _beside(f"{START_UP:g}s")
            + f", {row['ratio']:.2f} times `python -c pass`, {saved:.0f}% below "
            f"{START_UP_BEFORE:g}s" + _beside(f"{IMPROVEMENT}%")
        )


def _s(ms: float) -> str:
    """Milliseconds as seconds, with two digits that tell something."""
    return f"{ms / 1000:.2g}s" if ms < 100 else f"{ms / 1000:.2f}s"


def _beside(wanted: str | None) -> str:
    return f" (requirements: {wanted})" if wanted else ""
