"""Two runs side by side: only what does not depend on how fast the machine is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TIMES, COUNTS = 2.0, 1.25
"""How many times as much a ratio of times, or a count, may be before it is called worse: ratios
drift by a fifth on a busy machine; counts only change with the program."""


def ratios(document: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Name, value and bound of everything that can be compared."""
    for part, what in (
        ("requests", "a request"),
        ("scripts", "a whole script, ten at a time,"),
        ("load", "a request of the load test"),
        ("replay", "an event replayed"),
    ):
        for row in document.get(part, ()):
            yield f"{what} on {row['store']}", row["ratio"], TIMES
    for row in document.get("polls", ()):
        name = f"a status poll on {row['store']}, {row['machines']:,} machines stored"
        yield name, row["ratio"], TIMES
    for row in document.get("cold_starts", ()):
        yield f"cold start of {row['command']}", row["ratio"], TIMES
    for row in document.get("memory", ()):
        yield f"memory of {row['what']}", row["ratio"], COUNTS
    for row in document.get("aws_calls", ()):
        name = f"AWS calls of {row['requests']} x {row['machines'] // row['requests']} machines"
        yield f"{name} by {row['way']}", row["calls"], COUNTS
    for name, count in document.get("counts", {}).items():
        yield name, count, COUNTS


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """What both have, the most worsened first: `what`, `old`, `new`, `times` (new over old),
    `bound`, and whether it is `worse` than the bound allows."""
    before = {name: value for name, value, _ in ratios(old)}
    rows = [
        {
            "what": name,
            "old": before[name],
            "new": value,
            "times": round(value / before[name], 2),
            "bound": bound,
            "worse": value > before[name] * bound,
        }
        for name, value, bound in ratios(new)
        if before.get(name)
    ]
    return sorted(rows, key=lambda row: -row["times"])
