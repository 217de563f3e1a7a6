"""How long to wait before the same thing is tried, or done, again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from application.instants import seconds_between
from application.kept import Kept

if TYPE_CHECKING:
    from application.turn import Turn


def jittered(failures: int, first: float, longest: float, random: Callable[[int], bytes]) -> float:
    """Between half and all of a doubling time, in seconds, so that who failed together parts
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
    ceiling: float = min(longest, first * 2.0 ** min(max(0, failures - 1), 30))
    return ceiling * (0.5 + int.from_bytes(random(2)) / 131072)


class Backoff:
    """Things that failed, each by its key, and when each may be tried again: after `first` seconds,
    doubling, at most `longest`. What is not tried again for as long is forgotten. One with a `name`
    outlasts the process where each turn is one."""

    def __init__(self, turn: Turn, first: float, longest: float, name: str = "") -> None:
        self._turn = turn
        self._first = first
        self._longest = longest
        self._name = name
        self._kept = turn.kept if name else Kept(turn.notebook, turn.clock)

    def admits(self, key: str) -> bool:
        _, due = self._failures(key)
        return due <= self._turn.now()[2]

    def failed(self, key: str) -> None:
        failures = self._failures(key)[0] + 1
        wait = jittered(failures, self._first, self._longest, self._turn.random)
        due = self._turn.now()[2] + wait
        self._kept.put(f"{self._name} {key}", [failures, due], wait + self._longest)

    def succeeded(self, key: str) -> None:
        self._kept.drop(f"{self._name} {key}")

    def _failures(self, key: str) -> tuple[int, float]:
        """How many in a row, and when it is due."""
        failures, due = self._kept.get(f"{self._name} {key}") or (0, 0.0)
        return failures, due


class Seldom:
    """What is done once in `every` seconds, by whoever works then: the notebook knows when it was
    done last, since a process may end as often as it is called. The first time is as long after the
    first question, or `at_once`."""

    def __init__(self, turn: Turn, thing: str, every: float, *, at_once: bool = False) -> None:
        self._turn = turn
        self._thing = thing
        self._every = every
        self._at_once = at_once
        self._ask_at = float("-inf")

    def is_due(self) -> bool:
        turn = self._turn
        now = turn.now()
        if now[2] < self._ask_at:
            return False
        last = turn.notebook.last(self._thing)
        if last is None:
            if self._at_once:
                return True
            turn.notebook.note(self._thing, now)
            last = now
        self._ask_at = now[2] + self._every - seconds_between(last, now)
        return now[2] >= self._ask_at

    def done(self) -> None:
        self._turn.notebook.note(self._thing, self._turn.now())
