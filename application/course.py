"""How many machines were alive all along the log, counted by its events alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

CHANGES = {"MachineLaunched": 1, "MachineAdopted": 1, "MachineTerminated": -1, "MachineLost": -1}
"""Topic -> by how much an event of it changes how many there are."""

MOST = 240
"""Points that a course has at most."""


class Log(Protocol):
    """One consistent look at a store's log."""

    def end(self) -> tuple[int, str]: ...

    def chain_at(self, position: int) -> str: ...

    def time_of(self, position: int) -> str: ...

    def tally(
        self, topics: Sequence[str], after: int, width: int
    ) -> Sequence[tuple[int, str, int]]: ...


class Point(NamedTuple):
    """So many machines were alive when that event had been recorded."""

    position: int
    recorded_at: str
    machines: int


class _Counted(NamedTuple):
    """`changes` and the last `times` of stretches of a width, up to a position with this chain."""

    position: int = 0
    chain: str = ""
    width: int = 1
    changes: Mapping[int, int] = {}
    times: Mapping[int, str] = {}


class Course:
    """Of one log. What was counted once is not counted again, so that only the first question costs
    what the log is long. Several threads may ask."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._counted = _Counted()

    def points(self, log: Log) -> list[Point]:
        """So many at most, evenly along the log, the last at its end. A machine whose history was
        archived is in none. Raises StoreError."""
        end, _ = log.end()
        counted = self._counted
        if counted.position > end or counted.chain != log.chain_at(counted.position):
            counted = _Counted()  # another log is in its place
        width, changes, times = counted.width, dict(counted.changes), dict(counted.times)
        while end > self._most * width:
            width *= 2
        if width != counted.width:
            times = {}
            changes = {}
            for stretch, change in counted.changes.items():
                wider = stretch * counted.width // width
                changes[wider] = changes.get(wider, 0) + change
        for stretch, topic, many in log.tally(tuple(CHANGES), counted.position, width):
            changes[stretch] = changes.get(stretch, 0) + CHANGES[topic] * many
        lasts = [*range(width, end, width), end] if end else []
        whole = range(len(lasts) - 1)
        times |= {stretch: log.time_of(lasts[stretch]) for stretch in whole if stretch not in times}
        self._counted = _Counted(end, log.chain_at(end), width, changes, times)
        machines = accumulate(changes.get(stretch, 0) for stretch in range(len(lasts)))
        return [
            Point(last, times.get(stretch) or log.time_of(last), many)
            for stretch, (last, many) in enumerate(zip(lasts, machines, strict=True))
        ]
