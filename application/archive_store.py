"""Use case: move what is over and old out of the live store, into a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from application.crash_points import reach
from application.failures import StoreError
from domain.archive import Archive

BATCH = 1000
"""Events that are taken out in one transaction, but for a stream that has more: a stream leaves the
store whole or not at all."""


@dataclass(frozen=True)
class ArchiveStore:
    """`before` is ISO 8601 as stored; `legal_hold` are ids, or patterns of ids, that stay."""

    file: str
    before: str
    legal_hold: list[str]
    reason: str
    archive_id: str

    @property
    def command_id(self) -> str:
        return self.archive_id.replace("arc-", "cmd-")


class View(Protocol):
    """A consistent look at the store. It is ended as soon as the file is there: a store cannot
    tidy up after what is written while somebody looks."""

    def close(self) -> None: ...

    def finished_streams(self, before: str, legal_hold: Sequence[str]) -> tuple[list[str], int]: ...

    def open_archive(self) -> str | None: ...


class Store(Protocol):
    def get(self, aggregate_class: type[Archive], identifier: str) -> Archive | None: ...

    def save(self, *aggregates: Any, **metadata: Any) -> list[str]: ...

    def take_out(self, streams: Sequence[tuple[str, int]]) -> tuple[int, int]: ...


class Shelf(Protocol):
    """Where the files are."""

    def write(self, path: str, view: Any, streams: Sequence[str]) -> Any:
        """Write a file, on disk when this ends; its manifest. Raises StoreError."""
        ...

    def check(self, path: str, sha256: str) -> str:
        """Read a file that must have this sha256 ("": any); the one it has. Raises StoreError."""
        ...

    def streams_in(self, path: str) -> dict[str, int]: ...


@dataclass(frozen=True)
class Archived:
    """What has left the store. `held` streams stayed for the legal hold, `kept` because they had
    gone on meanwhile; `file` is None when nothing was over."""

    file: str | None
    sha256: str | None
    streams: int
    events: int
    held: int
    kept: int


def archive_store(
    command: ArchiveStore,
    view: View,
    store: Store,
    shelf: Shelf,
    progress: Callable[[int, int], object] = lambda done, of: None,
    batch: int = BATCH,
) -> Archived:
    """Write the file, record it, and only then take out of the store what it has. Killed and called
    again with the same file it goes on. `progress` is told (events taken out, events).

    Raises StoreError, and then the file is the one that was there before.
    """
    held = 0
    archive = _begun(command, view, store, shelf)
    if archive is None:
        streams, held = view.finished_streams(command.before, command.legal_hold)
        if not streams:
            return Archived(None, None, 0, 0, held, 0)
        manifest = shelf.write(command.file, view, streams)
        archive = Archive(Archive.stream(command.archive_id))
        reach("archive.written")
        archive.intend(
            file=command.file,
            sha256=shelf.check(command.file, ""),
            first=manifest.first,
            last=manifest.last,
            events=manifest.events,
            streams=len(streams),
            before=command.before,
            reason=command.reason,
            legal_hold=command.legal_hold,
            held=held,
        )
        store.save(archive, correlation_id=command.command_id)
    view.close()
    counts = shelf.streams_in(archive.file)
    events, taken = _take_out(counts, store, progress, batch)
    archive.finish(events, taken)
    store.save(archive, correlation_id=command.command_id)
    return Archived(archive.file, archive.sha256, taken, events, held, len(counts) - taken)


def _begun(command: ArchiveStore, view: View, store: Store, shelf: Shelf) -> Archive | None:
    """The archive that was begun and not finished, after its file was checked. Raises
    StoreError."""
    identifier = view.open_archive()
    archive = store.get(Archive, identifier) if identifier else None
    if archive is None or archive.is_done:
        return None
    if archive.file != command.file:
        raise StoreError(
            f"what is in {archive.file} is not all taken out of the store yet: finish that first, "
            f"with --to {archive.file}"
        )
    shelf.check(archive.file, archive.sha256)
    return archive


def _take_out(
    counts: dict[str, int], store: Store, progress: Callable[[int, int], object], batch: int
) -> tuple[int, int]:
    events = streams = done = size = 0
    of = sum(counts.values())
    some: list[tuple[str, int]] = []
    for number, (stream, count) in enumerate(counts.items(), 1):
        some.append((stream, count))
        size += count
        if size >= batch or number == len(counts):
            taken = store.take_out(some)
            events, streams, done = events + taken[0], streams + taken[1], done + size
            some, size = [], 0
            progress(done, of)
    return events, streams
