"""The eventsourcing library's recorder over our SQLite store: for the worker and the operator.

Everything is stored by `SqlEventStore.append`, so that what the library writes and what a
HostFactory call writes is one format. Ours and not the library's own, because its file has no
metadata, no fence and re-uses positions (a deleted last row's id is given again).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from eventsourcing.persistence import (
    ApplicationRecorder,
    InfrastructureFactory,
    IntegrityError,
    JSONTranscoder,
    Mapper,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import register_topic

from application.failures import AlreadyTracked, Conflict, UnknownEvent, archived_away
from domain.topics import TOPICS
from infrastructure.event_store.commit import ARCHIVED
from infrastructure.event_store.sql import SqlEventStore

for _topic, _event_class in TOPICS.items():
    register_topic(_topic, _event_class)


class StrictMapper(Mapper[str]):
    """The library's mapper, but for what it would let pass: unknown topics and newer versions."""

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        event_class = TOPICS.get(stored_event.topic)
        where = f"{stored_event.originator_id} version {stored_event.originator_version}"
        if event_class is None:
            if stored_event.topic == ARCHIVED:
                raise archived_away(str(stored_event.originator_id), [])
            raise UnknownEvent(f"{where}: no event is called {stored_event.topic!r} here")
        stored = _class_version(stored_event.state)
        if stored > event_class.class_version:
            raise UnknownEvent(
                f"{where}: {stored_event.topic} of class version {stored} was written by a newer "
                f"release (this one knows {event_class.class_version})"
            )
        return super().to_domain_event(stored_event)


def _class_version(state: bytes) -> int:
    if b'"class_version"' not in state:
        return 1
    return int(json.loads(state).get("class_version", 1))


class StoreRecorder(ProcessRecorder):
    """Events, notifications and tracking in our file, as the library's interfaces want them."""

    _watch: Callable[[str, float], object] | None = None

    def __init__(
        self, store: SqlEventStore, watch: Callable[[str, float], object] | None = None
    ) -> None:
        """`watch` is told how many seconds each commit and read took."""
        self.store = store
        self._watch = watch

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        tracking: Tracking | None = None,
        **metadata: Any,
    ) -> Sequence[int] | None:
        """Append in one commit; the positions. `metadata` is what `append` takes.

        Raises IntegrityError for a version or a tracked position that is taken.
        """
        if not stored_events and tracking is None:
            return None
        records = []
        for event in stored_events:
            text = event.state.decode()
            fields = None
            version = 1
            if event.topic in TOPICS:
                fields = json.loads(text)
                version = fields.pop("class_version", 1)
            records.append(
                (
                    str(event.originator_id), event.originator_version, event.topic, version,
                    text, fields,
                )
            )  # fmt: skip
        positions: list[int] = []
        began = perf_counter()
        try:
            self.store.append(
                records,
                positions=positions,
                tracking=(tracking.application_name, tracking.notification_id)
                if tracking
                else None,
                **metadata,
            )
        except (Conflict, AlreadyTracked) as error:
            raise IntegrityError(str(error)) from error
        if self._watch is not None:
            self._watch("commit", perf_counter() - began)
        return positions or None

    def select_events(
        self,
        originator_id: Any,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        began = perf_counter()
        rows = self.store.select_events(
            str(originator_id),
            -1 if gt is None else gt,
            2**62 if lte is None else lte,
            desc,
            2**62 if limit is None else limit,
        )
        if self._watch is not None:
            self._watch("read", perf_counter() - began)
        return [StoredEvent(originator_id, v, topic, data.encode()) for v, topic, data in rows]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        only = f"AND topic IN ({', '.join('?' * len(topics))})" if topics else ""
        rows = self.store.connection.execute(
            "SELECT position, stream, version, topic, data FROM events "
            f"WHERE position > ? AND position <= ? {only} ORDER BY position LIMIT ?",
            (after, 2**62 if stop is None else stop, *topics, limit),
        )
        return [
            Notification(
                id=position,
                originator_id=stream,
                originator_version=version,
                topic=topic,
                state=data.encode(),
            )
            for position, stream, version, topic, data in rows
        ]

    def max_notification_id(self) -> int | None:
        (position,) = self.store.connection.execute("SELECT max(position) FROM events").fetchone()
        return position  # type: ignore[no-any-return]

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        raise NotImplementedError("the store tells nobody: follow with select_notifications")

    def insert_tracking(self, tracking: Tracking) -> None:
        self.insert_events([], tracking=tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        row = self.store.connection.execute(
            "SELECT position FROM tracking WHERE name = ?", (application_name,)
        ).fetchone()
        return row[0] if row else None


class StoreFactory(InfrastructureFactory[TrackingRecorder]):
    """Hands the library's Application our mapper and our recorder over an open store."""

    def __init__(
        self, store: SqlEventStore, watch: Callable[[str, float], object] | None = None
    ) -> None:
        super().__init__({})
        self.store = store
        self._watch = watch

    def mapper(  # type: ignore[override]  # the library's own stubs make it generic in the id
        self, transcoder: Transcoder | None = None, mapper_class: Any = None
    ) -> StrictMapper:
        return StrictMapper(transcoder or JSONTranscoder())

    def aggregate_recorder(self, purpose: str = "events") -> StoreRecorder:
        return StoreRecorder(self.store, self._watch)

    def application_recorder(self) -> StoreRecorder:
        return StoreRecorder(self.store, self._watch)

    def tracking_recorder(
        self, tracking_recorder_class: type[TrackingRecorder] | None = None
    ) -> TrackingRecorder:
        return StoreRecorder(self.store, self._watch)

    def process_recorder(self) -> StoreRecorder:
        return StoreRecorder(self.store, self._watch)
