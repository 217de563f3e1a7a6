"""The log: one JSON object a line in the instance's log file, rotated by size; never stdout."""

from __future__ import annotations

import os
import time

from application.json_text import BadJson, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


class Journal:
    """Appends lines of at least `level`; `max_file_size` is in MB, `max_rotate` counts old files.

    A log that cannot be written is no reason to fail a call: the line is dropped.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self.path = path
        self._least = LEVELS.index(settings["level"])
        self._most_bytes = int(settings["max_file_size"] * 1_000_000)
        self._rotate = int(settings["max_rotate"])

    def write(self, level: str, what: str, **facts: Any) -> None:
        if not self.path or LEVELS.index(level) < self._least:
            return
        at = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
        line = (
            dumps({"at": stamp, "level": level, "pid": os.getpid(), "what": what, **facts}) + "\n"
        )
        try:
            descriptor = self._open()
            try:
                if self._rotate and os.fstat(descriptor).st_size + len(line) > self._most_bytes:
                    self._shift(os.fstat(descriptor).st_ino)
                    again = self._open()
                    os.close(descriptor)
                    descriptor = again
                os.write(descriptor, line.encode(errors="backslashreplace"))
            finally:
                os.close(descriptor)
        except OSError:
            return

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _shift(self, full: int) -> None:
        """Move the file with this inode aside, unless another process has just done so."""
        if os.stat(self.path).st_ino != full:
            return
        for number in range(self._rotate - 1, 0, -1):
            if os.path.exists(f"{self.path}.{number}"):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.replace(self.path, f"{self.path}.1")

    def lines(self, what: str, since: str) -> Iterator[dict[str, Any]]:
        """The lines of one kind from a time on (ISO 8601, UTC) that are still there, oldest first;
        a torn one is passed over. Raises OSError."""
        marked = f'"what":"{what}"'
        for file in reversed(self._files()):
            with file:
                for line in file:
                    if marked not in line:
                        continue
                    try:
                        entry = loads(line)
                    except BadJson:
                        continue
                    if entry["what"] == what and entry["at"] >= since:
                        yield entry

    def _files(self) -> list[Any]:
        """The log and the older ones. The newest is opened first: one that is moved aside
        meanwhile is met twice, and none is missed."""
        files: dict[int, Any] = {}
        for suffix in ("", *(f".{number}" for number in range(1, self._rotate + 1))):
            try:
                file = open(self.path + suffix, encoding="utf-8", errors="replace")  # noqa: SIM115
            except FileNotFoundError:
                continue
            if files.setdefault(os.fstat(file.fileno()).st_ino, file) is not file:
                file.close()
        return list(files.values())

    def debug(self, what: str, **facts: Any) -> None:
        self.write("DEBUG", what, **facts)

    def info(self, what: str, **facts: Any) -> None:
        self.write("INFO", what, **facts)

    def warn(self, what: str, **facts: Any) -> None:
        self.write("WARN", what, **facts)

    def error(self, what: str, **facts: Any) -> None:
        self.write("ERROR", what, **facts)
