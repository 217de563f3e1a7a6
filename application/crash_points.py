"""Named points at which a process can be made to die, to prove that nothing is lost there.

`HOSTLEDGER_CRASH_AT=name` (or `name#3` for the third time) ends the process at that point with
SIGKILL, as a power switch would: no handler runs, nothing is flushed.
"""

from __future__ import annotations

import os

CRASH_AT = os.environ.get("HOSTLEDGER_CRASH_AT", "")
_times = 0


class Crash(BaseException):
    """Raised instead of the kill by tests that play a process inside their own."""


def _kill(name: str) -> None:
    os.kill(os.getpid(), 9)


die = _kill
"""What happens at the point; a simulation puts its own function here."""


reached: set[str] | None = None
"""Where a test collects the names of the points that were passed."""


def reach(name: str) -> None:
    """Die here when this is the point that was named."""
    global _times
    if reached is not None:
        reached.add(name)
    if not CRASH_AT:
        return
    wanted, _, count = CRASH_AT.partition("#")
    if wanted == name:
        _times += 1
        if _times == int(count or 1):
            die(name)


def crash_at(name: str) -> None:
    """Choose the point (tests); "" for none."""
    global CRASH_AT, _times
    CRASH_AT, _times = name, 0
