"""The eventsourcing library's own conformance cases, for every store.

The library's cases use UUIDs for ids; they are stored as text here, as every id of ours is. Each
begins with an empty log, which none of our sites ever has.
"""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from eventsourcing.persistence import JSONTranscoder

from infrastructure.event_store.dynamodb import DynamodbEventStore
from infrastructure.event_store.dynamodb_client import Tables, place_of
from infrastructure.event_store.dynamodb_setup import _put_head, create_tables
from infrastructure.event_store.json_setup import build as build_json
from infrastructure.event_store.postgresql_driver import Connection, Session
from infrastructure.event_store.postgresql_setup import build as build_postgresql
from infrastructure.event_store.recorders import StoreFactory, StoreRecorder, StrictMapper
from infrastructure.event_store.sqlite_setup import _build as build_sqlite
from infrastructure.settings.storage import JsonStrategy, Storage
from tests.fakes.clock import FakeClock
from tests.stores import STORES, Place

# The module of the cases imports a cipher from pycryptodome, which only cases for encryption use.
_cipher = types.ModuleType("eventsourcing.cipher")
_cipher.AESCipher = object  # type: ignore[attr-defined]
sys.modules["eventsourcing.cipher"] = _cipher
from eventsourcing.tests import persistence as cases  # noqa: E402

del sys.modules["eventsourcing.cipher"]

ACTOR = {"user": "conformance"}


def empty(kind: str, place: Place, work_dir: str) -> Callable[[], Any]:
    """Make a log without one event; what opens a store on it."""
    storage: Any = place.storage(work_dir)
    os.makedirs(f"{work_dir}/hostledger")
    if kind == "postgresql":
        session = Session(place.settings["url"], Connection(place.settings["url"]))
        build_postgresql(session, "conformance")
        session.close()
    elif kind == "json":
        build_json(storage.path, "conformance", JsonStrategy().model_dump(), b"", FakeClock())
    elif kind == "dynamodb":
        settings = Storage.model_validate(place.settings).model_dump(mode="json")
        tables = Tables(place_of({"storage": settings}), FakeClock())
        on_demand = {"billing_mode": "PAY_PER_REQUEST", "auto_scaling": {"enabled": False}}
        create_tables(tables, on_demand)
        _put_head(tables, "conformance")
        return lambda: DynamodbEventStore(
            Tables(tables.place, FakeClock()), work_dir, FakeClock(), ACTOR, inert=True
        )
    else:
        build_sqlite(storage.path, "conformance")
    return lambda: storage.event_store(FakeClock(), ACTOR)


class _Here(threading.local):
    """The store of this thread; it is closed with the thread, as a process's is at its end."""

    store: Any = None

    def __del__(self) -> None:
        if self.store is not None:
            self.store.close()


class RecorderOfManyThreads(StoreRecorder):
    """The recorder, with a store for each thread: the library's cases write from ten."""

    def __init__(self, open_store: Callable[[], Any]) -> None:
        self._open = open_store
        self._here = _Here()

    @property
    def store(self) -> Any:
        if self._here.store is None:
            self._here.store = self._open()
        # What another thread wrote is to be seen at once, also in a mirror.
        self._here.store.changes()
        return self._here.store


class RecorderOfAggregates(RecorderOfManyThreads):
    """An AggregateRecorder alone: it tells no positions."""

    def insert_events(self, *args: Any, **options: Any) -> None:
        super().insert_events(*args, **options)


class OverAnEmptyLog:
    """The library's cases are of unittest, which takes fixtures and no parameters: there is a class
    for each case and store."""

    kind: ClassVar[str]
    recorder: ClassVar[type[RecorderOfManyThreads]] = RecorderOfManyThreads

    @pytest.fixture(autouse=True)
    def log(self, tmp_path: Path, new_place: Callable[[str], Place]) -> None:
        self.open_store = empty(self.kind, new_place(self.kind), str(tmp_path))

    def new_originator_id(self) -> str:
        return str(uuid4())

    def create_recorder(self) -> RecorderOfManyThreads:
        return self.recorder(self.open_store)


CASES: dict[str, tuple[Any, type[RecorderOfManyThreads]]] = {
    "Aggregates": (cases.AggregateRecorderTestCase, RecorderOfAggregates),
    "Application": (cases.ApplicationRecorderTestCase, RecorderOfManyThreads),
    "Tracking": (cases.TrackingRecorderTestCase, RecorderOfManyThreads),
    "Process": (cases.ProcessRecorderTestCase, RecorderOfManyThreads),
    "NonInterleaving": (cases.NonInterleavingNotificationIDsBaseCase, RecorderOfManyThreads),
}
"""Events go in whole or not at all, and come out by stream and version; notifications have one
order without gaps, also with ten writing threads; a position is tracked once and never backwards;
events and tracking go in together; the events of one commit have neighbouring positions."""

for _kind in STORES:
    for _name, (_case, _recorder) in CASES.items():
        _class = f"Test{_name}_{_kind}"
        globals()[_class] = type(
            _class, (OverAnEmptyLog, _case), {"kind": _kind, "recorder": _recorder}
        )

# InfrastructureFactoryTestCase does not apply: it builds the factory from environment variables,
# with ciphers and compressors and tables made on demand. What of it holds for ours:


def test_the_factory_hands_out_our_parts(tmp_path: Path, new_place: Callable[[str], Place]) -> None:
    """The library's Application gets our mapper and our recorder, whatever it asks for."""
    store = empty("sqlite", new_place("sqlite"), str(tmp_path))()
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
