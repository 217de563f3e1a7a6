"""The machine's clocks: the wall's for people, the boot's for everything that must not jump."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.instants import Instant

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", 0) as file:
            return file.read(36).decode()
    except OSError:
        return "no-boot-id"


class SystemClock:
    """The port's real clock. CLOCK_BOOTTIME goes on while the machine sleeps and never steps."""

    def __init__(self) -> None:
        self.boot_id = _boot_id()

    def now(self) -> Instant:
        return (time.time(), self.boot_id, time.clock_gettime(_CLOCK))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
