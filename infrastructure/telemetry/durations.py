"""Many durations in little room: how many, how long on average, and their percentiles."""

from __future__ import annotations

import math
from typing import Any

LEAST = 1e-6
"""Seconds; what is shorter counts as so long."""

GROWTH = 1.1
"""From one bucket's end to the next one's: a percentile is right to 5 %."""

_LOG = math.log(GROWTH)


class Durations:
    """Counts by size, so that they can be added up over processes and times."""

    def __init__(self) -> None:
        self.count = 0
        self.failed = 0
        self.seconds = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float, *, failed: bool = False) -> None:
        self.count += 1
        self.failed += failed
        self.seconds += seconds
        bucket = math.ceil(math.log(max(seconds, LEAST) / LEAST) / _LOG)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def merge(self, other: Durations) -> None:
        self.count += other.count
        self.failed += other.failed
        self.seconds += other.seconds
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    @property
    def mean(self) -> float:
        """Seconds; 0 for none."""
        return self.seconds / self.count if self.count else 0.0

    @property
    def error_rate(self) -> float:
        """The share that failed, 0 to 1."""
        return self.failed / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Seconds within which this share (0 to 1) of them ended; 0 for none."""
        wanted = share * self.count
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return float(LEAST * GROWTH ** (bucket - 0.5))
        return 0.0

    def document(self) -> dict[str, Any]:
        """As JSON; `durations_of` reads it."""
        return {
            "count": self.count,
            "failed": self.failed,
            "seconds": round(self.seconds, 6),
            "buckets": {str(bucket): count for bucket, count in sorted(self._buckets.items())},
        }


def durations_of(document: dict[str, Any]) -> Durations:
    """What `document` wrote. Raises KeyError, ValueError, TypeError for anything else."""
    found = Durations()
    found.count = int(document["count"])
    found.failed = int(document["failed"])
    found.seconds = float(document["seconds"])
    found._buckets = {int(bucket): int(n) for bucket, n in document["buckets"].items()}
    return found
