"""Asking a living worker or server what grows in its memory.

Whoever wants to know puts `memory.asked` beside the worker's status. A process looks for that file
between two turns, never within one: it takes a look at its heap, another one when the time is over,
and leaves what grew in `memory.PID`. So nothing is done in the midst of anything, and a process of
a release that knows no such files is not disturbed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from application.json_text import BadJson, dumps, loads
from application.ports import Clock

if TYPE_CHECKING:
    from infrastructure.telemetry.heap import Heap

NOTICED = 2.0
"""Seconds within which a process between two turns begins."""

PATIENCE = 30.0
"""Seconds beyond the interval after which a process that is in a long turn is left alone."""

POLL = 0.1


def usage(pid: int) -> dict[str, float]:
    """`rss` and `vms` of a process in MB (of 1,048,576 bytes); {} when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if line.startswith("Vm"))
    except OSError:
        return {}
    if "VmRSS" not in lines:
        return {}  # it has ended, and nobody has waited for it yet
    return {
        "rss": round(int(lines["VmRSS"].split()[0]) / 1024, 2),
        "vms": round(int(lines["VmSize"].split()[0]) / 1024, 2),
    }


class MemoryLooks:
    """The looks of this process, which is a `worker` or what `process` says. `place` is the path
    before `.asked`."""

    def __init__(self, place: str, clock: Clock, process: str) -> None:
        self._asked = place + ".asked"
        self._answer = f"{place}.{os.getpid()}"
        self._clock = clock
        self._process = process
        self._seen: tuple[int, int] | None = None
        self._heap: Heap | None = None
        self._before: dict[str, float] = {}
        self._due = 0.0

    def tick(self) -> None:
        """Take the look that is due, if one is. To be called often, where nothing is under way."""
        try:
            found = os.stat(self._asked)
        except OSError:
            self._stop()
            return
        asked = (found.st_ino, found.st_mtime_ns)
        _, boot_id, now = self._clock.now()
        if asked != self._seen:
            self._stop()
            self._seen = asked
            interval = _interval(self._asked, boot_id, now)
            if interval is not None:
                self._begin(now + interval)
        elif self._heap is not None and now >= self._due:
            self._finish(self._heap)

    def _begin(self, due: float) -> None:
        from infrastructure.telemetry.heap import Heap

        self._due = due
        self._before = usage(os.getpid())
        self._tell(self._before, done=False)
        self._heap = Heap()

    def _finish(self, heap: Heap) -> None:
        now = usage(os.getpid())
        self._heap = None
        grew = {f"{name}_grew": round(now[name] - was, 2) for name, was in self._before.items()}
        self._tell(now, done=True, **grew, **heap.growth())

    def _stop(self) -> None:
        if self._heap is not None:
            self._heap.stop()
            self._heap = None

    def _tell(self, used: dict[str, float], **facts: Any) -> None:
        """Where it cannot be written nobody is answered."""
        document = {"process": self._process, "pid": os.getpid(), **used, **facts}
        try:
            _put(self._answer, document, 0o600)
        except OSError:
            return


def _interval(path: str, boot_id: str, now: float) -> float | None:
    """Seconds between the looks that are asked for; None when whoever asked waits no more."""
    try:
        with open(path, "rb", 0) as file:
            asked = loads(file.read().decode())
        interval: float = asked["interval"]
        return interval if asked["boot_id"] == boot_id and now < asked["until"] else None
    except (OSError, BadJson, UnicodeDecodeError, KeyError, TypeError):
        return None


def _put(path: str, document: dict[str, Any], mode: int) -> None:
    """A file under its name whole or not at all. Raises OSError."""
    unfinished = path + ".new"
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(file, "wb") as opened:
        opened.write(dumps(document).encode(errors="backslashreplace"))
    os.replace(unfinished, path)


def ask(place: str, clock: Clock, interval: float, worker: int) -> list[dict[str, Any]]:
    """What the processes say that look for `place`, after so many seconds: `process`, `pid`, `rss`
    and `vms` in MB, `rss_grew`, `vms_grew`, and what `Heap.growth` tells.

    `worker` is the pid of the living worker, 0 for none. One that does not answer, for it is in a
    long turn, is told with its `rss` and `vms` alone. Raises OSError.
    """
    asked = place + ".asked"
    _, boot_id, began = clock.now()
    until = began + interval + PATIENCE
    _forget(place)
    # Its reader may be another user, whom the directory lets in.
    _put(asked, {"boot_id": boot_id, "interval": interval, "until": until}, 0o644)
    found: dict[int, dict[str, Any]] = {}
    try:
        now = began
        while now < until and (now < began + NOTICED or _is_awaited(found, worker)):
            clock.sleep(POLL)
            found = _answers(place)
            now = clock.now()[2]
    finally:
        os.unlink(asked)
        _forget(place)
    rows = [answer for answer in found.values() if answer.pop("done")]
    if worker and worker not in [row["pid"] for row in rows] and usage(worker):
        rows.append({"process": "worker", "pid": worker, **usage(worker)})
    return rows


def _is_awaited(found: dict[int, dict[str, Any]], worker: int) -> bool:
    """Whether a process that lives has not finished."""
    open_ = [pid for pid, answer in found.items() if not answer["done"]]
    if worker and worker not in found:
        open_.append(worker)
    return any(usage(pid) for pid in open_)


def _answers(place: str) -> dict[int, dict[str, Any]]:
    """Pid -> what it says by now."""
    found = {}
    for path in _files(place):
        with open(path, "rb", 0) as file:
            answer = loads(file.read().decode())
        found[answer["pid"]] = answer
    return found


def _files(place: str) -> list[str]:
    directory, name = os.path.split(place)
    return [
        f"{directory}/{entry}"
        for entry in os.listdir(directory)
        if entry.startswith(name + ".") and entry[len(name) + 1 :].isdigit()
    ]


def _forget(place: str) -> None:
    for path in _files(place):
        os.unlink(path)
