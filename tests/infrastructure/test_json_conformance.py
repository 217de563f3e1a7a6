"""The eventsourcing library's own conformance cases, run against the store of JSON lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    ProcessRecorder,
    TrackingRecorder,
)

from infrastructure.event_store.json_lines import JsonEventStore
from infrastructure.event_store.json_setup import build
from infrastructure.settings import JsonStrategy
from tests.fakes.clock import FakeClock
from tests.infrastructure import test_sqlite_conformance as sqlite_cases
from tests.infrastructure.test_sqlite_conformance import cases

SETTINGS = JsonStrategy().model_dump()


class RecorderOfManyThreads(sqlite_cases.RecorderOfManyThreads):
    """With a store for each thread, as the library's cases write from ten."""

    @property
    def store(self) -> JsonEventStore:  # type: ignore[override]
        if self._here.store is None:
            self._here.store = JsonEventStore(
                self._path, FakeClock(), {"user": "conformance"}, SETTINGS
            )
        assert isinstance(self._here.store, JsonEventStore)
        return self._here.store


class RecorderOfAggregates(RecorderOfManyThreads, sqlite_cases.RecorderOfAggregates):
    """An AggregateRecorder alone: it tells no positions."""


class OverAnEmptyLog(sqlite_cases.OverAnEmptyLog):
    """Gives each case a log without one commit."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "json")
        build(self.path, "conformance", SETTINGS, b"", FakeClock())


class TestAggregateRecorder(OverAnEmptyLog, cases.AggregateRecorderTestCase):
    """Events go in whole or not at all, and come out by stream and version."""

    def create_recorder(self) -> AggregateRecorder:
        return RecorderOfAggregates(self.path)


class TestApplicationRecorder(
    OverAnEmptyLog, cases.ApplicationRecorderTestCase[ApplicationRecorder]
):
    """Notifications have one order without gaps, also with ten writing threads."""

    def create_recorder(self) -> ApplicationRecorder:
        return RecorderOfManyThreads(self.path)


class TestTrackingRecorder(OverAnEmptyLog, cases.TrackingRecorderTestCase):
    """A position is tracked once and never backwards."""

    def create_recorder(self) -> TrackingRecorder:
        return RecorderOfManyThreads(self.path)


class TestProcessRecorder(OverAnEmptyLog, cases.ProcessRecorderTestCase):
    """Events and tracking go in together."""

    def create_recorder(self) -> ProcessRecorder:
        return RecorderOfManyThreads(self.path)


class TestNonInterleaving(OverAnEmptyLog, cases.NonInterleavingNotificationIDsBaseCase):
    """The events of one commit have neighbouring positions."""

    def create_recorder(self) -> ApplicationRecorder:
        return RecorderOfManyThreads(self.path)
