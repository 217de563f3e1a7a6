"""Several processes behind one address: those that answer, and a worker beside them."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

ENDED_AT_ONCE = 5.0
"""Seconds: a process that ends sooner after its start is started again only so much later."""

ENDING = (signal.SIGTERM, signal.SIGINT)

Work = Callable[[], int]


class Processes:
    """Runs each work in a process of its own, until SIGTERM or SIGINT: then all get SIGTERM and are
    waited for. One that ends of itself is started again."""

    def __init__(self, works: Sequence[tuple[str, Work]], journal: Any) -> None:
        self._works = works
        self._journal = journal
        self._living: dict[int, tuple[int, float]] = {}
        self._ending = False

    def run(self, say: Callable[[], None]) -> int:
        """Until all have ended; `say` is called when they are begun. Exit status."""
        for number in ENDING:
            signal.signal(number, self._end)
        for index in range(len(self._works)):
            self._start(index)
        say()
        while self._living:
            pid, state = os.wait()
            index, began = self._living.pop(pid)
            if self._ending:
                continue
            name, status = self._works[index][0], os.waitstatus_to_exitcode(state)
            self._journal.error("process ended", name=name, ended=pid, status=status)
            soon = began + ENDED_AT_ONCE - time.monotonic()
            if soon > 0 and status > 0:
                self._pause(soon)
            if not self._ending:
                self._start(index)
        return 0

    def _pause(self, seconds: float) -> None:
        """A signal ends it."""
        end = time.monotonic() + seconds
        while not self._ending and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _start(self, index: int) -> None:
        # What comes meanwhile waits: it is for the new process too, or for its parent alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        pid = os.fork()
        if pid:
            self._living[pid] = index, time.monotonic()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if self._ending:
                os.kill(pid, signal.SIGTERM)
            return
        status = 1
        try:
            for number in ENDING:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            status = self._works[index][1]()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True
        for pid in self._living:
            os.kill(pid, signal.SIGTERM)
