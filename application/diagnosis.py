"""What is slow, from the lines that worker, server and commands leave in the log: statements to the
store, and calls to AWS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from application.reports import percentile

Line = Mapping[str, Any]
"""A line of the log, as it was written."""


def slow_statements(lines: Iterable[Line], most: int) -> list[dict[str, Any]]:
    """The slowest statements, so many at most: `sql`, `duration` (the longest, in seconds),
    `count`, `last_at`."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        row = found.setdefault(line["sql"], {"sql": line["sql"], "duration": 0.0, "count": 0})
        row["duration"] = max(row["duration"], line["duration"])
        row["count"] += line["count"]
        row["last_at"] = line["at"]
    return sorted(found.values(), key=lambda row: -row["duration"])[:most]


ASSENT = "DryRunOperation"
"""AWS's error that says that a call would have succeeded."""


class _Calls:
    """Those of one API, or all."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._codes: Counter[str] = Counter()

    def add(self, line: Line) -> None:
        self._seconds.append(line["seconds"])
        if line.get("code", ASSENT) != ASSENT:
            self._codes[line["code"]] += 1

    def told(self) -> dict[str, Any]:
        """Seconds, and percent of the calls."""
        calls = len(self._seconds)
        failed = self._codes.total()
        return {
            "calls": calls,
            "avg_response_time": round(sum(self._seconds) / calls, 3) if calls else None,
            "p95": percentile(sorted(self._seconds), 95, 3),
            "errors": failed,
            "error_rate": round(100 * failed / calls, 2) if calls else None,
            "codes": dict(self._codes.most_common()),
        }


def aws_calls(lines: Iterable[Line]) -> dict[str, Any]:
    """How long AWS took to answer and how often with an error: of all calls, and in `apis` of each
    API, the one that failed most often first.

    `avg_response_time` and `p95` are seconds, `error_rate` is percent, `codes` counts the errors
    by what AWS called them; no answer in time is one too.
    """
    whole = _Calls()
    apis: dict[str, _Calls] = {}
    for line in lines:
        whole.add(line)
        apis.setdefault(line["api"], _Calls()).add(line)
    rows = [{"api": api, **calls.told()} for api, calls in apis.items()]
    rows.sort(key=lambda row: (-row["error_rate"], -row["avg_response_time"]))
    return {**whole.told(), "apis": rows}
