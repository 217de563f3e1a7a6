"""A log, or a part of it, as a file of JSON lines: what `audit export` writes and `store archive`
keeps. An event is a line of its own, in the form that it has in the log of JSON lines.

The first line says what the file holds, the last one how many lines there are and the sha256 of
them all. The format: docs/reference/export.md.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, BinaryIO

from application.failures import ExportDamaged, StoreError
from application.json_text import BadJson, dumps, loads
from application.projections.record import COLUMNS
from infrastructure.event_store.commit import is_damaged, to_event
from infrastructure.event_store.digest import digest as digest_of
from infrastructure.event_store.json_log import (
    body_of,
    compose_line,
    event_text,
    is_gzip,
    sealed,
    text_of,
)
from infrastructure.event_store.sqlite_file import sync_directory

FORMAT = 1

PAGE = 1000

EXPORT, ARCHIVE = "export", "archive"

Row = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """What a file says of itself. The chain goes from `before` (that of the event before `first`)
    to `chain` (that of `last`); an archive has only some of the events between. `whole` is the
    export of a log with what is beside it, of which a store can be made."""

    kind: str
    whole: bool
    deployment: str
    first: int
    last: int
    events: int
    before: str
    chain: str


def pages(ask: Callable[[Any, int], list[Any]], after: Any, key: Callable[[Any], Any]) -> Any:
    """All that `ask(after, limit)` gives, page by page, each after the key of the last one."""
    while found := ask(after, PAGE):
        yield found
        after = key(found[-1])


# -- writing ---------------------------------------------------------------------------------------


def write_export(
    path: str | None,
    manifest: Manifest,
    events: Iterable[Row],
    commands: Iterable[Sequence[tuple[str, str, int]]] = (),
    tracking: Sequence[tuple[str, int]] = (),
) -> str:
    """Write the file, on disk and under its name only when it is whole; None is standard output.
    What ends in .gz is compressed, an archive always. The sha256 of its bytes. Raises
    StoreError."""
    if path is None:
        return _write(sys.stdout.buffer, manifest, events, commands, tracking)
    if os.path.exists(path):
        raise StoreError(f"{path} exists: nothing is ever written over")
    unfinished = f"{path}.{os.getpid()}.new"
    try:
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as raw:
            if is_gzip(path) or manifest.kind == ARCHIVE:
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                    _write(packed, manifest, events, commands, tracking)
            else:
                _write(raw, manifest, events, commands, tracking)
            raw.flush()
            os.fsync(raw.fileno())
        os.link(unfinished, path)
        sync_directory(os.path.dirname(path) or ".")
        return sha256_of(path)
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}; no file was made") from None
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)


def _write(
    file: BinaryIO | gzip.GzipFile,
    manifest: Manifest,
    events: Iterable[Row],
    commands: Iterable[Sequence[tuple[str, str, int]]],
    tracking: Sequence[tuple[str, int]],
) -> str:
    digest, lines = hashlib.sha256(), 0

    def put(line: bytes) -> None:
        nonlocal lines
        digest.update(line)
        lines += 1
        file.write(line)

    facts = asdict(manifest)
    put(sealed(dumps({"hostledger": facts.pop("kind"), "format": FORMAT, **facts})[:-1]))
    known: dict[str, str] = {}
    recorded_at = ""
    for event in events:
        recorded_at = event["recorded_at"]
        if len(known) > 1000:
            known.clear()
        put(event_text([event[column] for column in COLUMNS], known).encode() + b"\n")
    after = manifest.last + 1
    for some in commands:
        put(compose_line((), recorded_at, after, some))
    if tracking:
        put(compose_line((), recorded_at, after, (), tracking))
    file.write(sealed(dumps({"lines": lines, "sha256": digest.hexdigest()})[:-1]))
    return digest.hexdigest()


def sha256_of(path: str) -> str:
    """Of the file's bytes as they lie there. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- reading ---------------------------------------------------------------------------------------


class ExportFile:
    """A file to read from; that of a whole log as a `copy_store.Source`. Whatever is asked, a line
    that is not what was written raises ExportDamaged with its number."""

    def __init__(self, path: str) -> None:
        """Raises StoreError, ExportDamaged."""
        self.path = path
        self._events_left: Iterator[Row] = iter(())
        self._commands_left: Iterator[tuple[str, str, int]] = iter(())
        self._event_at, self._command_at = 0, ""
        _, said = next(self._lines())
        if said.get("hostledger") not in (EXPORT, ARCHIVE) or not isinstance(
            said.get("format"), int
        ):
            raise self._damaged(1, "it does not say what the file is: this is no export")
        if said["format"] > FORMAT:
            raise StoreError(
                f"{path} has a newer format than this release knows ({FORMAT}): read it with the "
                "release that wrote it"
            )
        facts = {**said, "kind": said["hostledger"]}
        self.manifest = Manifest(*(facts[field.name] for field in fields(Manifest)))

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """(number, what it says) of each line but the last, which must be right."""
        digest, number = hashlib.sha256(), 0
        lines = self._raw()
        while True:
            try:
                line = next(lines, b"")
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise self._damaged(number + 1, f"it cannot be unpacked: {error}") from None
            except OSError as error:
                raise StoreError(f"{self.path} cannot be read: {error.strerror}") from None
            if not line.endswith(b"\n"):
                raise self._damaged(number + 1, "the file was cut off here")
            said = self._parsed(number + 1, line[:-1])
            if "sha256" in said:
                break
            digest.update(line)
            number += 1
            yield number, said
        if (said["lines"], said["sha256"]) != (number, digest.hexdigest()):
            raise self._damaged(
                number + 1,
                f"it tells of {said['lines']} lines before it, and they are not these {number}",
            )
        if next(lines, None) is not None:
            raise self._damaged(number + 2, "it follows the line that ends the file")

    def _raw(self) -> Iterator[bytes]:
        with open(self.path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield from gzip.GzipFile(fileobj=raw) if packed else raw

    def _parsed(self, number: int, line: bytes) -> Any:
        try:
            said = loads(line.decode())
            if not isinstance(said, dict):
                raise BadJson("it is no object")
        except (BadJson, UnicodeDecodeError) as error:
            raise self._damaged(number, f"it is not JSON ({error})") from None
        if "digest" not in said and body_of(line) is None:
            raise self._damaged(number, "it is not what its checksum says")
        return said

    def _damaged(self, number: int, cause: str) -> ExportDamaged:
        return ExportDamaged(f"{self.path}: line {number}: {cause}")

    def _row(self, number: int, said: Row) -> tuple[Any, ...]:
        try:
            said = {**said, "metadata": text_of(said["metadata"]), "data": text_of(said["data"])}
            return tuple(said[column] for column in COLUMNS)
        except (KeyError, TypeError, ValueError):
            raise self._damaged(number, "it is no event as it was written") from None

    def check(self) -> None:
        """Read all of it: every line, digest, the chain where it is not interrupted, and that this
        release knows every event. Raises ExportDamaged, UnknownEvent."""
        manifest = self.manifest
        position, before, count = manifest.first - 1, manifest.before, 0
        if manifest.first == 1 and before != manifest.deployment:
            raise self._damaged(1, "its chain does not begin with its deployment")
        for number, row in self._events():
            follows = row[0] == position + 1
            if row[0] <= position or (manifest.kind == EXPORT and not follows):
                raise self._damaged(number, f"event {row[0]} comes after event {position}")
            if digest_is_wrong(row) or (follows and is_damaged(row, before)):
                raise self._damaged(number, f"event {row[0]} was changed, or is of another log")
            to_event(row[2], row[3], row[4], row[5], row[8])
            position, before, count = row[0], row[10], count + 1
        if (position, before, count) != (manifest.last, manifest.chain, manifest.events):
            raise self._damaged(
                1, f"{manifest.events} events to event {manifest.last} are told of, {count} to "
                f"event {position} are there"
            )  # fmt: skip

    def _events(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """(line, row of COLUMNS) of every event."""
        for number, said in self._lines():
            if "digest" in said:
                yield number, self._row(number, said)

    def events(self) -> Iterator[Row]:
        """Every event in the order of the positions."""
        for _, row in self._events():
            yield dict(zip(COLUMNS, row, strict=True))

    # -- as the source of a copy ------------------------------------------------------------------

    def again(self) -> None:
        """A file does not change."""

    def events_after(self, position: int, limit: int) -> list[Row]:
        """The events that follow this position, oldest first; quick when asked in order."""
        if position != self._event_at or not position:
            self._events_left = (row for row in self.events() if row["position"] > position)
        rows = list(islice(self._events_left, limit))
        self._event_at = rows[-1]["position"] if rows else 0
        return rows

    def last_events(self, limit: int, topic: str | None) -> list[Row]:
        """Of the last event, what a copy compares: its position and chain."""
        return [{"position": self.manifest.last, "chain": self.manifest.chain}]

    def commands_after(self, command_id: str, limit: int) -> list[tuple[str, str, int]]:
        """As `events_after`: (command id, result, position)."""
        if command_id != self._command_at or not command_id:
            self._commands_left = (
                (command[0], command[1], command[2])
                for _, said in self._lines()
                for command in said.get("commands", ())
                if command[0] > command_id
            )
        found = list(islice(self._commands_left, limit))
        self._command_at = found[-1][0] if found else ""
        return found

    def tracked(self) -> list[tuple[str, int]]:
        return [
            (name, position)
            for _, said in self._lines()
            for name, position in said.get("tracking", ())
        ]

    def bodies(self) -> list[tuple[str, bytes]]:
        """User data is never exported."""
        return []


def digest_is_wrong(row: Sequence[Any]) -> bool:
    """Whether an event (a row of COLUMNS) is not what its own digest says."""
    return bool(digest_of(*row[1:9]) != row[9])
