"""How long to wait before the same thing is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from application.turn import Turn


def jittered(failures: int, first: float, longest: float, random: Callable[[int], bytes]) -> float:
    """Between half and all of a doubling time, in seconds, so that who failed together parts
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
    ceiling: float = min(longest, first * 2.0 ** min(max(0, failures - 1), 30))
    return ceiling * (0.5 + int.from_bytes(random(2)) / 131072)


class Backoff:
    """Things that failed, each by its key, and when each may be tried again: after `first` seconds,
    doubling, at most `longest`."""

    def __init__(self, turn: Turn, first: float, longest: float) -> None:
        self._turn = turn
        self._first = first
        self._longest = longest
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}

    def admits(self, key: str) -> bool:
        return self._due.get(key, 0.0) <= self._turn.now()[2]

    def failed(self, key: str) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait = jittered(failures, self._first, self._longest, self._turn.random)
        self._due[key] = self._turn.now()[2] + wait

    def succeeded(self, key: str) -> None:
        self._failures.pop(key, None)
        self._due.pop(key, None)
