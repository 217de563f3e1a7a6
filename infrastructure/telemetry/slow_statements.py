"""Noting statements that take long, in the log, for `hostledger diagnose slow-queries`."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from infrastructure.telemetry.journal import Journal

NOTED_AS = "slow statement"
"""What the lines say they are."""

LONG = 0.1
"""Seconds from which on a statement is slow."""

QUIET = 60.0
"""Seconds in which the same statement is noted once, so that it cannot fill the log."""

MOST = 100
"""Statements of which is known when they were noted last."""

LONGEST = 10_000
"""Characters of a statement that are noted."""


class SlowStatements:
    """Writes a line with `sql` (its values are not in it), `duration` (the longest since the last
    line of the same statement, in seconds) and `count` (how often it was slow since)."""

    def __init__(
        self,
        journal: Journal,
        long: float = LONG,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.long = long
        self._journal = journal
        self._seconds = seconds
        self._noted: dict[str, tuple[float, float, int]] = {}

    def note(self, sql: str, duration: float) -> None:
        """A statement took `long` or longer."""
        now = self._seconds()
        last, longest, count = self._noted.get(sql, (now - QUIET, 0.0, 0))
        longest, count = max(longest, duration), count + 1
        if now - last >= QUIET:
            text = " ".join(sql.split())[:LONGEST]
            self._journal.info(NOTED_AS, sql=text, duration=round(longest, 3), count=count)
            last, longest, count = now, 0.0, 0
        if len(self._noted) >= MOST:
            self._noted.clear()
        self._noted[sql] = (last, longest, count)
