"""The thin append and the library's mapper store one format: the same bytes, the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import JSONTranscoder
from hypothesis import given, settings
from hypothesis import strategies as st

from application.event_sourcing import Ledger
from domain.event_sourced import Aggregate, DomainEvent
from domain.topics import TOPICS
from infrastructure.event_store.commit import Rows, to_event, to_record
from infrastructure.event_store.recorders import StoreFactory, StrictMapper
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import create_store
from tests.domain.samples import every_event
from tests.fakes.clock import FakeClock

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""Any text that UTF-8 has: surrogates alone are none."""

NUMBERS = st.integers(-(2**70), 2**70)
"""Wider than the 64 bits of an SQLite integer."""

JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)

OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXT,
    "int": NUMBERS,
    "bool": st.booleans(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "list[str]": st.lists(TEXT, max_size=4),
    "list[list[str]]": st.lists(st.lists(TEXT, max_size=2), max_size=3),
    "list[list[Any]]": st.lists(st.tuples(TEXT, JSON).map(list), max_size=3),
    "dict[str, Any]": OBJECTS,
    "list[dict[str, Any]]": st.lists(OBJECTS, max_size=2),
}


def events_of(topic: str, stream: str = "any-ström") -> st.SearchStrategy[DomainEvent]:
    """Events of a topic with whatever its annotations allow."""
    event_class = TOPICS[topic]
    fields = {name: VALUES[str(kind)] for name, kind in event_class.__annotations__.items()}
    return st.fixed_dictionaries(fields).map(
        lambda values: event_class(originator_id=stream, originator_version=1, **values)
    )


@pytest.mark.parametrize("topic", sorted(TOPICS))
@settings(max_examples=40)
@given(sample=st.data())
def test_the_thin_append_stores_the_librarys_bytes(topic: str, sample: Any) -> None:
    """Topic and data text of any event are what the library's mapper would store, and both
    readings give the event back."""
    event = sample.draw(events_of(topic))
    mapper = StrictMapper(JSONTranscoder())
    stored = mapper.to_stored_event(event)
    stream, version, own_topic, class_version, data, fields = to_record(event)
    assert own_topic == stored.topic
    assert data.encode() == stored.state
    assert (stream, version) == (stored.originator_id, stored.originator_version)
    assert fields == {name: getattr(event, name) for name in type(event).__annotations__}
    assert to_event(stream, version, own_topic, class_version, data) == event
    assert mapper.to_domain_event(stored) == event


class Told(Aggregate):
    """An aggregate that hands over the events it is given."""

    STREAM = "told"

    def __init__(self, events: list[DomainEvent]) -> None:
        super().__init__(events[0].originator_id)
        self._pending = list(events)


class Pair:
    """Two stores: `thin` is written by HostFactory's path, `library` by the worker's."""

    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        self.stores = []
        for name in ("thin", "library"):
            path = str(root / name / "ledger.db")
            create_store(path, self.clock, {"user": "test"}, "0.1.0")
            self.stores.append(SqliteEventStore(path, self.clock, {"user": "test"}))
        self.thin, self.library = self.stores
        self.ledger = Ledger(StoreFactory(self.library))

    def save(self, *lives: list[DomainEvent], **metadata: Any) -> None:
        self.thin.save(*(Told(events) for events in lives), **metadata)
        self.ledger.save(*(Told(events) for events in lives), **metadata)

    def rows(self, store: SqliteEventStore) -> dict[str, list[Any]]:
        """Everything the store holds, but for random ids and what is computed from them."""
        tables = {"events": store.connection.execute(
            "SELECT position, stream, version, topic, class_version, recorded_at, metadata, data "
            "FROM events WHERE position > 1 ORDER BY position"
        ).fetchall()}  # fmt: skip
        for table in (*Rows.KEYS, "commands", "tracking", "projections"):
            cursor = store.connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            tables[table] = [
                {k: v for k, v in zip(names, row, strict=True) if k != "event_id"} for row in cursor
            ]
        return tables

    def assert_same(self) -> None:
        assert self.rows(self.thin) == self.rows(self.library)

    def close(self) -> None:
        for store in self.stores:
            store.close()


def test_both_paths_leave_the_same_rows(tmp_path: Path) -> None:
    """Events, read tables, commands and tracking are equal but for random ids, for one event of
    each topic and for metadata of every kind."""
    pair = Pair(tmp_path)
    versions: dict[str, int] = {}
    for number, (stream, (event_class, fields)) in enumerate(every_event().values(), 1):
        pair.clock.advance(0.25)
        if stream == "deployment":
            stream = "deployment-other"
        versions[stream] = versions.get(stream, 0) + 1
        event = event_class(originator_id=stream, originator_version=versions[stream], **fields)
        pair.save(
            [event],
            correlation_id=f"cmd-{number}",
            causation_id=f"cause-{number}",
            causes={stream: ("other", "ström")} if number % 2 else None,
            tracking=("policy", number),
            command=(f"command-{number}", "result"),
        )
    pair.assert_same()
    assert len(pair.rows(pair.thin)["events"]) == len(every_event())
    assert len(pair.rows(pair.thin)["requests"]) == 2
    pair.close()


def test_any_events_at_all_leave_the_same_rows(tmp_path: Path) -> None:
    """Whatever the fields: the commit succeeds, and what a projection could not follow is marked
    the same way on both paths."""
    pair = Pair(tmp_path)
    number = 0

    @settings(max_examples=120)
    @given(sample=st.data())
    def commit(sample: Any) -> None:
        nonlocal number
        number += 1
        topic = sample.draw(st.sampled_from(sorted(TOPICS)))
        pair.save([sample.draw(events_of(topic, f"{topic}-{number}"))])
        for store in pair.stores:
            # Followed again, so that each example meets every projection.
            store.connection.execute("DELETE FROM projections WHERE ?", (number % 2,))

    commit()
    pair.assert_same()
    pair.close()
