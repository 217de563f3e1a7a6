"""The events that were taken out of a store, read from the files that have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from application.failures import LogDamaged, StoreError
from application.projections.record import COLUMNS
from infrastructure.event_store.export_file import (
    ARCHIVE,
    ExportFile,
    Manifest,
    digest_is_wrong,
    pages,
    sha256_of,
    write_export,
)

Row = dict[str, Any]


class Archives:
    """The archives that were given. Quick when asked in the order of the positions."""

    def __init__(self, paths: Sequence[str], deployment: str) -> None:
        """Raises StoreError, ExportDamaged."""
        self._files = [ExportFile(path) for path in paths]
        self._found: list[tuple[int, Row | None]] = [(2**62, None)] * len(paths)
        """Of each, the position that was asked for last, and the first event from there on."""
        for file in self._files:
            if file.manifest.deployment != deployment:
                raise StoreError(
                    f"{file.path} is of another deployment ({file.manifest.deployment}, not "
                    f"{deployment})"
                )

    def event(self, left: Row) -> Row | None:
        """The event of which this is left in the store; None when none of the files has it. Raises
        LogDamaged when it is not the one that the store has the digest of."""
        for index in range(len(self._files)):
            event = self._find(index, left["position"])
            if event is None:
                continue
            row = [event[column] for column in COLUMNS]
            if event["digest"] != left["digest"] or digest_is_wrong(row):
                raise LogDamaged(
                    f"{self._files[index].path}: event {left['position']} is not the one that was "
                    "taken out of the store: it was changed; compare it with another copy"
                )
            return event
        return None

    def _find(self, index: int, position: int) -> Row | None:
        """Goes forward in the file, and begins again for a position before the last one."""
        file = self._files[index]
        if not file.manifest.first <= position <= file.manifest.last:
            return None
        asked, event = self._found[index]
        if asked > position:
            event = next(iter(file.events_after(position - 1, 1)), None)
        while event is not None and event["position"] < position:
            event = next(iter(file.events_after(event["position"], 1)), None)
        self._found[index] = position, event
        return event if event is not None and event["position"] == position else None


def give(view: Any, paths: Sequence[str]) -> None:
    """Let a look at the store read on in these files, if any. Raises StoreError, ExportDamaged."""
    if paths:
        view.archives = Archives(paths, view.identity()[0])


# -- making one ------------------------------------------------------------------------------------


def write(path: str, view: Any, streams: Sequence[str]) -> Manifest:
    """Put the events of these streams into a new file; its manifest. Raises StoreError."""
    wanted = set(streams)
    first, last, count = view.extent(streams)
    manifest = Manifest(
        ARCHIVE, False, view.identity()[0], first, last, count, view.chain_at(first - 1),
        view.chain_at(last),
    )  # fmt: skip
    events = (
        event
        for page in pages(view.whole_events_after, first - 1, lambda event: event["position"])
        for event in page
        if event["stream"] in wanted and event["position"] <= last
    )
    write_export(path, manifest, events)
    return manifest


def check(path: str, sha256: str) -> str:
    """The file's sha256, after all of it was read; it must be this one, "" for any. Raises
    StoreError, ExportDamaged."""
    ExportFile(path).check()
    found = sha256_of(path)
    if sha256 not in ("", found):
        raise StoreError(
            f"{path} is not the file that the ledger tells of (its sha256 is {found}, not "
            f"{sha256}): put that one back"
        )
    return found


def streams_in(path: str) -> dict[str, int]:
    """The streams of an archive, and how many events each has. Raises StoreError."""
    counts: dict[str, int] = {}
    for event in ExportFile(path).events():
        counts[event["stream"]] = counts.get(event["stream"], 0) + 1
    return counts
