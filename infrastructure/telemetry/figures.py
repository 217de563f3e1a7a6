"""Figures that are kept: one line an interval and process, in files that are dropped when they are
old.

A file holds a seventh of the time for which figures are kept, so that old ones go file by file and
nothing is ever rewritten.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from application.json_text import BadJson, dumps, loads
from infrastructure.telemetry.durations import Durations, durations_of

SHARES = 7
SHORTEST = 600.0
"""Seconds that a file holds at least."""

NAME = "figures-"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def seconds_of(period: str) -> float:
    """Of a period as the configuration has it, such as 7d."""
    return float(period[:-1]) * UNITS[period[-1]]


class KeptFigures:
    """The files in a directory; `retention` in seconds."""

    def __init__(self, directory: str, retention: float) -> None:
        self._directory = directory
        self._retention = retention
        self._span = max(SHORTEST, retention / SHARES)
        self._file = ""

    def append(self, figures: dict[str, Any]) -> None:
        """`figures["at"]` is when they were taken, in seconds since the epoch. Raises OSError."""
        at = figures["at"]
        name = f"{NAME}{int(at // self._span * self._span)}.jsonl"
        if name != self._file:
            self._drop(at - self._retention)
            self._file = name
        descriptor = os.open(
            f"{self._directory}/{name}",
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
            0o640,
        )
        try:
            os.write(descriptor, (dumps(figures) + "\n").encode())
        finally:
            os.close(descriptor)

    def _drop(self, before: float) -> None:
        for began, name in _files(self._directory):
            if began + self._span <= before:
                os.unlink(f"{self._directory}/{name}")


def _files(directory: str) -> list[tuple[float, str]]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = []
    for name in names:
        began = name.removeprefix(NAME).removesuffix(".jsonl")
        if name != began and began.isdecimal():
            found.append((float(began), name))
    return sorted(found)


def read(directory: str, since: float) -> Iterator[dict[str, Any]]:
    """The figures that were kept from this time on (seconds since the epoch), oldest first; a torn
    line is passed over."""
    for _, name in _files(directory):
        try:
            with open(f"{directory}/{name}", encoding="utf-8", errors="replace") as file:
                for line in file:
                    try:
                        figures = loads(line)
                    except BadJson:
                        continue
                    if isinstance(figures, dict) and figures.get("at", -1) >= since:
                        yield figures
        except FileNotFoundError:
            continue  # dropped meanwhile


def summary(figures: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """What they come to: `operations`, each and all of a kind (its first word): mean, p95, p99,
    throughput and error rate; `resources` with the last, mean and highest value; `queue` likewise.
    Times in seconds."""
    covered: dict[str, float] = {}
    operations: dict[tuple[str, str], Durations] = {}
    values: dict[str, dict[tuple[str, str], list[float]]] = {"resources": {}, "queue": {}}
    for line in figures:
        process = line["process"]
        covered[process] = covered.get(process, 0.0) + line["seconds"]
        for name, document in line["operations"].items():
            for key in {(process, name), (process, name.partition(" ")[0])}:
                operations.setdefault(key, Durations()).merge(durations_of(document))
        for section, found in values.items():
            for name, value in line.get(section, {}).items():
                found.setdefault((process, name), []).append(value)
    several = Counter(
        (process, name.partition(" ")[0]) for process, name in operations if " " in name
    )
    return {
        "operations": [
            _operation(process, name, durations, covered[process])
            for (process, name), durations in sorted(operations.items())
            if several[process, name] != 1
        ],
        **{
            section: [_value(process, name, seen) for (process, name), seen in found.items()]
            for section, found in values.items()
        },
    }


def _operation(process: str, name: str, durations: Durations, seconds: float) -> dict[str, Any]:
    per_second = durations.count / seconds if seconds else 0.0
    return {
        "process": process,
        "operation": name,
        "count": durations.count,
        "failed": durations.failed,
        "error_rate": round(durations.error_rate, 4),
        "mean_seconds": _short(durations.mean),
        "p95_seconds": _short(durations.quantile(0.95)),
        "p99_seconds": _short(durations.quantile(0.99)),
        "per_second": _short(per_second),
        "per_minute": _short(per_second * 60),
    }


def _value(process: str, name: str, seen: list[float]) -> dict[str, Any]:
    return {
        "process": process,
        "name": name,
        "now": _short(seen[-1]),
        "mean": _short(sum(seen) / len(seen)),
        "most": _short(max(seen)),
    }


def _short(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")
