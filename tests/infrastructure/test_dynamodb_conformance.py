"""The eventsourcing library's own conformance cases over our DynamoDB store, on its stand-in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    ProcessRecorder,
    TrackingRecorder,
)

from infrastructure.event_store.dynamodb import DynamodbEventStore
from infrastructure.event_store.dynamodb_client import Tables, place_of
from infrastructure.event_store.dynamodb_log import read_head
from infrastructure.event_store.dynamodb_setup import _put_head, create_tables
from infrastructure.event_store.recorders import StoreRecorder
from infrastructure.settings import Storage
from tests.fakes.clock import FakeClock
from tests.infrastructure.test_sqlite_conformance import cases
from tests.stores import Place


class _Here(threading.local):
    """The store of this thread, closed with it."""

    store: DynamodbEventStore | None = None

    def __del__(self) -> None:
        if self.store is not None:
            self.store.close()


class RecorderOfManyThreads(StoreRecorder):
    """The recorder, with a store for each thread: the library's cases write from ten."""

    def __init__(self, tables: Tables, directory: str) -> None:
        self._tables = tables
        self._directory = directory
        self._here = _Here()

    @property
    def store(self) -> DynamodbEventStore:  # type: ignore[override]
        if self._here.store is None:
            tables = Tables(self._tables.place, FakeClock())
            self._here.store = DynamodbEventStore(
                tables, self._directory, FakeClock(), {"user": "conformance"}, inert=True
            )
        store = self._here.store
        store.changes()  # what is asked in SQL is as new as the log
        return store


class RecorderOfAggregates(RecorderOfManyThreads):
    """An AggregateRecorder alone: it tells no positions."""

    def insert_events(self, *args: object, **options: object) -> None:
        super().insert_events(*args, **options)  # type: ignore[arg-type]


class OverAnEmptyLog:
    """Gives each case tables of its own and not one event."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, new_place: Callable[[str], Place]) -> None:
        settings = Storage.model_validate(new_place("dynamodb").settings).model_dump(mode="json")
        self.tables = Tables(place_of({"storage": settings}), FakeClock())
        on_demand = {"billing_mode": "PAY_PER_REQUEST", "auto_scaling": {"enabled": False}}
        create_tables(self.tables, on_demand)
        _put_head(self.tables, "conformance")
        assert read_head(self.tables).pos == 0
        self.directory = str(tmp_path)

    def new_originator_id(self) -> str:
        return str(uuid4())


class TestAggregateRecorder(OverAnEmptyLog, cases.AggregateRecorderTestCase):
    """Events go in whole or not at all, and come out by stream and version."""

    def create_recorder(self) -> AggregateRecorder:
        return RecorderOfAggregates(self.tables, self.directory)


class TestApplicationRecorder(
    OverAnEmptyLog, cases.ApplicationRecorderTestCase[ApplicationRecorder]
):
    """Notifications have one order without gaps, also with ten writing threads."""

    def create_recorder(self) -> ApplicationRecorder:
        return RecorderOfManyThreads(self.tables, self.directory)


class TestTrackingRecorder(OverAnEmptyLog, cases.TrackingRecorderTestCase):
    """A position is tracked once and never backwards."""

    def create_recorder(self) -> TrackingRecorder:
        return RecorderOfManyThreads(self.tables, self.directory)


class TestProcessRecorder(OverAnEmptyLog, cases.ProcessRecorderTestCase):
    """Events and tracking go in together."""

    def create_recorder(self) -> ProcessRecorder:
        return RecorderOfManyThreads(self.tables, self.directory)


class TestNonInterleaving(OverAnEmptyLog, cases.NonInterleavingNotificationIDsBaseCase):
    """The events of one commit have neighbouring positions."""

    def create_recorder(self) -> ApplicationRecorder:
        return RecorderOfManyThreads(self.tables, self.directory)
