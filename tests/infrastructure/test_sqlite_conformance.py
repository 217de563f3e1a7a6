"""The eventsourcing library's own conformance cases, run against our SQLite recorder.

The library's cases use UUIDs for ids; they are stored as text here, as every id of ours is.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    JSONTranscoder,
    ProcessRecorder,
    TrackingRecorder,
)

from infrastructure.event_store.recorders import (
    StoreFactory,
    StoreRecorder,
    StrictMapper,
)
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import _build
from tests.fakes.clock import FakeClock

# The module of the cases imports a cipher from pycryptodome, which only cases for encryption use.
_cipher = types.ModuleType("eventsourcing.cipher")
_cipher.AESCipher = object  # type: ignore[attr-defined]
sys.modules["eventsourcing.cipher"] = _cipher
from eventsourcing.tests import persistence as cases  # noqa: E402

del sys.modules["eventsourcing.cipher"]


class _Here(threading.local):
    """The store of this thread; it is closed with the thread, as a process's is at its end."""

    store: SqliteEventStore | None = None

    def __del__(self) -> None:
        if self.store is not None:
            self.store.close()


class RecorderOfManyThreads(StoreRecorder):
    """The recorder, with a store for each thread: a connection belongs to the thread that opened
    it, and the library's cases write from ten."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._here = _Here()

    @property
    def store(self) -> SqliteEventStore:  # type: ignore[override]
        if self._here.store is None:
            self._here.store = SqliteEventStore(self._path, FakeClock(), {"user": "conformance"})
        return self._here.store


class RecorderOfAggregates(RecorderOfManyThreads):
    """An AggregateRecorder alone: it tells no positions."""

    def insert_events(self, *args: Any, **options: Any) -> None:
        super().insert_events(*args, **options)


class OverAnEmptyLog:
    """Gives each case a store file with our schema and not one event."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "ledger.db")
        _build(self.path, "conformance")

    def new_originator_id(self) -> str:
        return str(uuid4())


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


# InfrastructureFactoryTestCase does not apply: it builds the factory from environment variables,
# with ciphers and compressors and tables made on demand. What of it holds for ours:


def test_the_factory_hands_out_our_parts() -> None:
    """The library's Application gets our mapper and our recorder, whatever it asks for."""
    with tempfile.TemporaryDirectory() as place:
        _build(place + "/ledger.db", "conformance")
        store = SqliteEventStore(place + "/ledger.db", FakeClock(), {})
        factory = StoreFactory(store)
        mapper = factory.mapper()
        assert type(mapper) is StrictMapper
        assert (mapper.cipher, mapper.compressor) == (None, None)
        assert type(factory.mapper(JSONTranscoder())) is StrictMapper
        for recorder in (
            factory.aggregate_recorder(),
            factory.application_recorder(),
            factory.tracking_recorder(),
            factory.process_recorder(),
        ):
            assert type(recorder) is StoreRecorder
            assert recorder.store is store
        with pytest.raises(NotImplementedError, match="select_notifications"):
            factory.application_recorder().subscribe(0)
        factory.close()
        store.close()
