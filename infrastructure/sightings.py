"""The sightings file: what HostFactory's calls named, noted in one line a call, read by the worker.

A read must not write to the ledger; it appends here, and the worker turns first sightings into
events.
"""

from __future__ import annotations

import os

from application.json_text import BadJson, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant


def note(path: str, now: Instant, facts: dict[str, object]) -> None:
    """Append one line. Where it cannot be written, HostFactory will name the same ids again.

    The worker may take the file away between our opening and writing; then it is written again,
    so that no sighting is lost: a lost one could cost a machine its life. The line feed before it
    keeps it apart from a line that a full disk has torn.
    """
    text = dumps({"at": now[0], "boot_id": now[1], "boot": now[2], **facts})
    line = f"\n{text}\n".encode(errors="replace")
    for _ in range(3):
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.write(file, line)
            if os.fstat(file).st_ino == os.stat(path).st_ino:
                return
        except OSError:
            continue
        finally:
            os.close(file)


class Sightings:
    """The file as the worker reads it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._aside = path + ".taken"

    def take(self) -> list[dict[str, Any]]:
        """The lines since the last `done`, oldest first; a torn or foreign line is passed over."""
        if not os.path.exists(self._aside):
            try:
                os.rename(self._path, self._aside)
            except OSError:
                return []
        lines = []
        with open(self._aside, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    value = loads(line)
                except BadJson:
                    continue
                if isinstance(value, dict) and "boot" in value:
                    lines.append(value)
        return lines

    def waiting(self) -> bool:
        """Whether lines were taken that are not done."""
        return os.path.exists(self._aside)

    def noted(self) -> float:
        """A number that is another one when a call has noted something since; 0 for none."""
        try:
            return os.stat(self._path).st_mtime
        except OSError:
            return 0.0

    def done(self) -> None:
        """The taken lines are in the ledger: forget them."""
        try:
            os.unlink(self._aside)
        except FileNotFoundError:
            return
