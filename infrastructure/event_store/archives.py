"""The events that were taken out of a store, read from the files that have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from application.failures import LogDamaged, StoreError
from infrastructure.event_store.commit import COLUMNS
from infrastructure.event_store.export_file import ExportFile, digest_is_wrong

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
            return {**event, "chain": left["chain"]}
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
