"""A clock that only moves when it is told to: no test waits."""

from __future__ import annotations

from application.instants import Instant


class FakeClock:
    """The port `Clock`. `advance` moves both clocks, `step_wall` sets the wall clock alone."""

    def __init__(self, wall: float = 1_800_000_000.0, boot_id: str = "boot-1") -> None:
        self.wall = wall
        self.boot_id = boot_id
        self.seconds = 1000.0

    def now(self) -> Instant:
        return (self.wall, self.boot_id, self.seconds)

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.seconds += seconds

    def step_wall(self, seconds: float) -> None:
        self.wall += seconds


class ClockBeside:
    """The clock of another machine: the same time goes by, its wall clock is a little off, and it
    was started at another time."""

    def __init__(self, clock: FakeClock, off: float = 0.7, boot_id: str = "boot-2") -> None:
        self._clock = clock
        self._off = off
        self.boot_id = boot_id

    @property
    def seconds(self) -> float:
        return self._clock.seconds + 86_400.0

    @property
    def wall(self) -> float:
        return self._clock.wall + self._off

    def now(self) -> Instant:
        return (self.wall, self.boot_id, self.seconds)

    def database_time(self) -> float:
        """Of the database that both machines use."""
        return self._clock.seconds

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def step_wall(self, seconds: float) -> None:
        self._off += seconds
