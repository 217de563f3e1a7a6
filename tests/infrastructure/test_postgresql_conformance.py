"""The eventsourcing library's own conformance cases, run against PostgreSQL over the pool, and
against SQLite's file over SQLAlchemy's.

Ten threads write through one store: the pool gives each a connection.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    ProcessRecorder,
    TrackingRecorder,
)

from infrastructure.event_store.postgresql_driver import Connection, Session
from infrastructure.event_store.postgresql_setup import build
from infrastructure.event_store.recorders import StoreRecorder
from tests.fakes.clock import FakeClock
from tests.infrastructure.postgresql_stores import storage_at
from tests.infrastructure.test_sqlite_conformance import cases


class RecorderOfAggregates(StoreRecorder):
    """An AggregateRecorder alone: it tells no positions."""

    def insert_events(self, *args: Any, **options: Any) -> None:
        super().insert_events(*args, **options)


class OverAnEmptyLog:
    """Gives each case a database with our schema and not one event."""

    @pytest.fixture(autouse=True)
    def place(self, database_url: str) -> Any:
        session = Session(database_url, Connection(database_url))
        build(session, "conformance")
        session.close()
        self.store = storage_at(database_url).event_store(FakeClock(), {"user": "conformance"})
        yield
        self.store.close()

    def new_originator_id(self) -> str:
        return str(uuid4())


class TestAggregateRecorder(OverAnEmptyLog, cases.AggregateRecorderTestCase):
    """Events go in whole or not at all, and come out by stream and version."""

    def create_recorder(self) -> AggregateRecorder:
        return RecorderOfAggregates(self.store)


class TestApplicationRecorder(
    OverAnEmptyLog, cases.ApplicationRecorderTestCase[ApplicationRecorder]
):
    """Notifications have one order without gaps, also with ten writing threads."""

    def create_recorder(self) -> ApplicationRecorder:
        return StoreRecorder(self.store)


class TestTrackingRecorder(OverAnEmptyLog, cases.TrackingRecorderTestCase):
    """A position is tracked once and never backwards."""

    def create_recorder(self) -> TrackingRecorder:
        return StoreRecorder(self.store)


class TestProcessRecorder(OverAnEmptyLog, cases.ProcessRecorderTestCase):
    """Events and tracking go in together."""

    def create_recorder(self) -> ProcessRecorder:
        return StoreRecorder(self.store)


class TestNonInterleaving(OverAnEmptyLog, cases.NonInterleavingNotificationIDsBaseCase):
    """The events of one commit have neighbouring positions."""

    def create_recorder(self) -> ApplicationRecorder:
        return StoreRecorder(self.store)
