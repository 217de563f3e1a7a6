"""An archive: the file that finished streams were moved to, out of the live store."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ArchiveIntended(DomainEvent):
    """The file is on disk and was read back: what it has is taken out of the store from now on.
    `events` of `streams` that were over at the time `before`, between the positions `first` and
    `last`; `held` streams were kept for the `legal_hold` that was in force."""

    file: str
    sha256: str
    first: int
    last: int
    events: int
    streams: int
    before: str
    reason: str
    legal_hold: list[str]
    held: int


class EventsArchived(DomainEvent):
    """Of `events` of `streams` the store has position, digest and chain, the file the rest. A
    stream that had gone on meanwhile was left as it was."""

    events: int
    streams: int


class Archive(Aggregate):
    STREAM = "archive"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.file = ""
        self.sha256 = ""
        self.is_done = False

    def intend(self, **facts: Any) -> None:
        self._trigger(ArchiveIntended, **facts)

    def finish(self, events: int, streams: int) -> None:
        self._trigger(EventsArchived, events=events, streams=streams)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, ArchiveIntended):
            self.file = event.file
            self.sha256 = event.sha256
        elif isinstance(event, EventsArchived):
            self.is_done = True
