"""The log as JSON lines: a line for each commit, of which the checksum says that it is whole.

`log.jsonl` is the first segment, or `log.jsonl.gz` with a gzip member for each commit; where
compression was switched later, `log-2.jsonl.gz` (or the like) goes on where the one before ends.
Nothing else in the directory is the truth. The format: docs/reference/json-log.md.
"""

from __future__ import annotations

import os

from application.failures import LogDamaged, StoreMissing
from application.json_text import dumps, loads
from domain.identifiers import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, BinaryIO

CHECKSUM = b',"checksum":"'
SEAL = len(CHECKSUM) + 64 + 2
"""Bytes at the end of a line that its checksum is not over: `,"checksum":"` 64 digits `"}`."""

CHUNK = 1 << 16


def segments(base: str) -> list[str]:
    """The log's files in their order. Raises StoreMissing, LogDamaged."""
    try:
        names = os.listdir(base)
    except OSError as error:
        raise missing(base, error.strerror) from None
    found: dict[int, str] = {}
    for name in names:
        stem = name.removesuffix(".gz").removesuffix(".jsonl")
        digits = stem.removeprefix("log-")
        if stem == name or not (stem == "log" or (digits != stem and digits.isdigit())):
            continue
        number = 1 if stem == "log" else int(digits)
        if number in found:
            raise LogDamaged(f"{base} has both {found[number]} and {name}: one of them is not ours")
        found[number] = name
    if not found:
        raise missing(base, "it has no log.jsonl")
    if max(found) != len(found):
        lacks = next(number for number in range(1, max(found)) if number not in found)
        raise LogDamaged(f"{base} lacks part {lacks} of its log: restore it from a backup")
    return [f"{base}/{found[number]}" for number in range(1, len(found) + 1)]


def missing(base: str, why: str | None) -> StoreMissing:
    return StoreMissing(
        f"no store at {base} ({why}): is the work directory mounted? "
        "A new deployment is made once with `hostledger store init`"
    )


def first_inode(base: str) -> int:
    """Of the first segment: a copy has another. Raises StoreMissing."""
    for name in ("/log.jsonl", "/log.jsonl.gz"):
        try:
            return os.stat(base + name).st_ino
        except FileNotFoundError:
            continue
        except OSError as error:
            raise missing(base, error.strerror) from None
    raise missing(base, "it has no log.jsonl")


def is_gzip(path: str) -> bool:
    return path.endswith(".gz")


# -- one line --------------------------------------------------------------------------------------


def compose_line(
    rows: Sequence[Sequence[Any]],
    recorded_at: str,
    position: int,
    commands: Sequence[Sequence[Any]] = (),
    tracking: Sequence[Sequence[Any]] = (),
    bodies: Sequence[str] = (),
    fence: Sequence[Any] | None = None,
) -> bytes:
    """One commit with its line feed: events (rows of `commit.COLUMNS`) from `position` on,
    (command id, result, position), (policy, position), digests of bodies, (account, number)."""
    parts = [f'{{"first":{position},"recorded_at":{dumps(recorded_at)},"events":[']
    known: dict[str, str] = {}
    parts.append(",".join([event_text(row, known) for row in rows]))
    parts.append("]")
    for name, facts in (("commands", commands), ("tracking", tracking), ("bodies", bodies)):
        if facts:
            parts.append(f',"{name}":{dumps([f if name == "bodies" else list(f) for f in facts])}')
    if fence is not None:
        parts.append(f',"fence":{dumps(list(fence))}')
    return sealed("".join(parts))


def sealed(text: str) -> bytes:
    """A line of which this is all but the checksum."""
    line = text.encode()
    checksum: str = sha256(line).hexdigest()
    return line + CHECKSUM + checksum.encode() + b'"}\n'


def event_text(row: Sequence[Any], known: dict[str, str]) -> str:
    """An event as JSON; `known` are the metadata of the events before."""
    metadata = known.get(row[7])
    if metadata is None:
        metadata = known[row[7]] = _nested(row[7])
    return (
        f'{{"position":{row[0]},"event_id":{dumps(row[1])},"stream":{dumps(row[2])},'
        f'"version":{row[3]},"topic":{dumps(row[4])},"class_version":{row[5]},'
        f'"recorded_at":{dumps(row[6])},"metadata":{metadata},"data":{_nested(row[8])},'
        f'"digest":"{row[9]}","chain":"{row[10]}"}}'
    )


def _nested(text: str) -> str:
    """A text as a person reads it, when exactly its bytes come out again; else as a string."""
    try:
        value = loads(text)
        if not isinstance(value, str) and dumps(value) == text:
            return text
    except (ValueError, RecursionError):
        pass
    return dumps(text)


def text_of(value: Any) -> str:
    """The text that `compose_line` was given."""
    return value if isinstance(value, str) else dumps(value)


def body_of(line: bytes) -> bytes | None:
    """What the checksum is over, as a JSON object; None when it is not what the checksum says."""
    seal = line[-SEAL:]
    if not seal.startswith(CHECKSUM) or not seal.endswith(b'"}'):
        return None
    if sha256(line[:-SEAL]).hexdigest().encode() != seal[len(CHECKSUM) : -2]:
        return None
    return line[:-SEAL] + b"}"


def checksum_of(line: bytes) -> str:
    return line.rstrip(b"\n")[-66:-2].decode()


def compress(line: bytes) -> bytes:
    """One gzip member."""
    import zlib

    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    return deflate.compress(line) + deflate.flush()


def read_line(path: str, start: int, end: int) -> bytes:
    """The record at these offsets without its line feed; b"" when there is none. Raises OSError."""
    with open(path, "rb", 0) as file:
        for _, found, line in _records(file, path, start):
            return line if line is not None and found == end else b""
    return b""


# -- all lines -------------------------------------------------------------------------------------


class Reader:
    """Goes through the commits from an offset in the segment `number` on. Behind each, `number`,
    `start`, `offset` and `checksum` say where it was; at the end `torn` is how many bytes follow
    that are no whole commit: what a crash left, or what is just being written."""

    def __init__(self, base: str, number: int = 1, offset: int = 0) -> None:
        self.base = base
        self.number = number
        self.start = self.offset = offset
        self.checksum = ""
        self.torn = 0

    def __iter__(self) -> Iterator[bytes]:
        """The commits as JSON objects. Raises LogDamaged for a bad one that others follow."""
        paths = segments(self.base)
        for number in range(self.number, len(paths) + 1):
            path = paths[number - 1]
            offset = self.offset if number == self.number else 0
            with open(path, "rb", 0) as file:
                for begin, end, line in _records(file, path, offset):
                    body = None if line is None else body_of(line)
                    if line is None or body is None:
                        follows = any(os.path.getsize(later) for later in paths[number:])
                        if follows or _is_followed(path, begin):
                            raise _damaged(path, begin)
                        self.number, self.start, self.offset = number, begin, begin
                        self.torn = os.fstat(file.fileno()).st_size - begin
                        return
                    self.number, self.start, self.offset = number, begin, end
                    self.checksum = checksum_of(line)
                    yield body


def has_grown(base: str, number: int, offset: int) -> bool:
    """Whether the log has bytes beyond this place, or lacks some before it."""
    paths = segments(base)
    return (
        number > len(paths)
        or os.path.getsize(paths[number - 1]) != offset
        or any(os.path.getsize(later) for later in paths[number:])
    )


def has_stream(base: str, number: int, offset: int, streams: Sequence[str]) -> bool:
    """Whether a commit beyond this place has an event of one of these streams."""
    wanted = [b'"stream":' + dumps(stream).encode() for stream in streams]
    return any(any(text in body for text in wanted) for body in Reader(base, number, offset))


def _records(
    file: BinaryIO | Any, path: str, offset: int
) -> Iterator[tuple[int, int, bytes | None]]:
    """(start, end, line without its line feed); None for what is not whole at the end."""
    file.seek(offset)
    return _members(file, offset) if is_gzip(path) else _lines(file, offset)


def _lines(file: Any, offset: int) -> Iterator[tuple[int, int, bytes | None]]:
    rest = b""
    while chunk := file.read(CHUNK * 16):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            end = offset + len(line) + 1
            yield offset, end, line
            offset = end
    if rest:
        yield offset, offset + len(rest), None


def _members(file: Any, offset: int) -> Iterator[tuple[int, int, bytes | None]]:
    import zlib

    rest = file.read(CHUNK)
    while rest:
        inflate = zlib.decompressobj(31)
        text, used = b"", 0
        while rest and not inflate.eof:
            try:
                text += inflate.decompress(rest)
            except zlib.error:
                yield offset, offset + used + len(rest), None
                return
            used += len(rest)
            rest = inflate.unused_data if inflate.eof else file.read(CHUNK)
        used -= len(inflate.unused_data)
        whole = inflate.eof and text.endswith(b"\n") and text.count(b"\n") == 1
        yield offset, offset + used, text[:-1] if whole else None
        offset += used
        rest = rest or file.read(CHUNK)


def _is_followed(path: str, begin: int) -> bool:
    """Whether a whole commit comes after the bad one at this offset."""
    with open(path, "rb", 0) as file:
        if not is_gzip(path):
            lines = _lines(_at(file, begin), begin)
            next(lines)
            return any(line is not None and body_of(line) for _, _, line in lines)
        data = _at(file, begin).read()
        at = data.find(b"\x1f\x8b\x08", 1)
        while at >= 0:
            for _, _, line in _members(_at(file, begin + at), begin + at):
                if line is not None and body_of(line):
                    return True
                break
            at = data.find(b"\x1f\x8b\x08", at + 1)
    return False


def _at(file: Any, offset: int) -> Any:
    file.seek(offset)
    return file


def _damaged(path: str, begin: int) -> LogDamaged:
    with open(path, "rb", 0) as file:
        before = 0
        for start, _, _ in _records(file, path, 0):
            if start >= begin:
                break
            before += 1
    return LogDamaged(
        f"{path}: line {before + 1}, at byte {begin}, is not what its checksum says, and commits "
        "follow it: it was changed; compare it with a backup"
    )
