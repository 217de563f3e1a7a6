"""A file for each stream beside the log (`split_files`), for whoever wants one thing's history.

Derived after the commit and never read by us: each file ends with some version of its stream, and
what the log has beyond it is appended. `streams/.position` is how far all of them follow.
"""

from __future__ import annotations

import os

from application.json_text import BadJson, loads
from application.projections.record import COLUMNS
from domain.identifiers import sha256
from infrastructure.event_store.json_log import event_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST_NAME = 180
SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")

SELECT = (
    f"SELECT {', '.join(COLUMNS)} FROM events WHERE stream = ? AND version > ? ORDER BY version"
)


def path_of(base: str, stream: str) -> str:
    """Of the file of a stream: what no file's name may have is written %XX, and 256 folders share
    the files."""
    text = stream.encode()
    shard = sha256(text).hexdigest()
    name = "".join(chr(b) if b in SAFE else f"%{b:02X}" for b in text)
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{shard}"
    return f"{base}/streams/{shard[:2]}/{name}.jsonl"


def follow(base: str, connection: Any) -> None:
    """Append what the files lack. With the log's lock. Where the disk is full they lag behind."""
    try:
        os.makedirs(base + "/streams", mode=0o700, exist_ok=True)
        progress = os.open(
            base + "/streams/.position", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            done = int(os.pread(progress, 20, 0) or 0)
            last = done
            streams: dict[str, None] = {}
            for position, stream in connection.execute(
                "SELECT position, stream FROM events WHERE position > ? ORDER BY position", (done,)
            ):
                last = position
                streams[stream] = None
            for stream in streams:
                _follow_one(path_of(base, stream), stream, connection)
            if last > done:
                os.pwrite(progress, b"%020d" % last, 0)
        finally:
            os.close(progress)
    except (OSError, ValueError):
        return


def _follow_one(path: str, stream: str, connection: Any) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        file = os.open(path, flags, 0o600)
    try:
        end, version = _end(file)
        known: dict[str, str] = {}
        lines = [event_text(row, known) for row in connection.execute(SELECT, (stream, version))]
        content = "".join(line + "\n" for line in lines).encode()
        os.ftruncate(file, end)
        while content:
            written = os.pwrite(file, content, end)
            content, end = content[written:], end + written
    finally:
        os.close(file)


def _end(file: int) -> tuple[int, int]:
    """Where its last whole line ends, and the version there; (0, 0) for a file to write anew."""
    size = os.fstat(file).st_size
    take = 4096
    while size:
        tail = os.pread(file, take, max(0, size - take))
        end = tail.rfind(b"\n")
        begin = tail.rfind(b"\n", 0, end) + 1 if end > 0 else 0
        if end > 0 and (begin or take >= size):
            try:
                return size - len(tail) + end + 1, int(loads(tail[begin:end].decode())["version"])
            except (BadJson, KeyError, TypeError, ValueError):
                break
        if take >= size:
            break
        take *= 16
    return 0, 0
