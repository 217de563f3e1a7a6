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
