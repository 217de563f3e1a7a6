"""Waiting for the writers' turn with a bound, in a thread that no signal reaches."""

from __future__ import annotations

import fcntl
import os
from threading import Condition, Thread


class Queue:
    """A place in the queue before a lock file, at which a thread of its own waits: the kernel
    bounds no wait for a flock. Who stops waiting keeps the place; when the turn comes meanwhile it
    is let go at once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._changed = Condition()
        self._wanted = False
        self._waiting = False
        self._turn = -1
        self._error: OSError | None = None

    def wait(self, seconds: float) -> int | None:
        """An open file that holds the lock until it is closed; None when the time is over. Raises
        OSError."""
        with self._changed:
            self._wanted = True
            if not self._waiting:
                self._waiting = True
                Thread(target=self._wait, name="store queue", daemon=True).start()
            self._changed.wait_for(lambda: not self._waiting, seconds)
            self._wanted = False
            if self._waiting:
                return None
            if self._error is not None:
                raise self._error
            return self._turn

    def _wait(self) -> None:
        turn, error = -1, None
        try:
            turn = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(turn, fcntl.LOCK_EX)
        except OSError as failed:
            error = failed
        with self._changed:
            if turn >= 0 and (error is not None or not self._wanted):
                os.close(turn)
            self._turn, self._error, self._waiting = turn, error, False
            self._changed.notify_all()
