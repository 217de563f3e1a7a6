"""Replay: where it stops, what it goes on from, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from application.failures import LogDamaged, StoreError, UnknownEvent
from application.replay import end_of, position_of, replay
from domain.machine_request import MachineRequest
from infrastructure.event_store.commit import iso
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import SCHEMA_VERSION, open_for_reading
from infrastructure.event_store.sqlite_setup import create_store
from infrastructure.read_models.replica import Replica
from infrastructure.read_models.sql_queries import SqlQueries
from tests.fakes.clock import FakeClock

ACTOR = {"user": "test"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path, clock: FakeClock) -> str:
    """A store of ten requests, one a minute, after its first event."""
    path = str(tmp_path / "ledger.db")
    create_store(path, clock, ACTOR, "test")
    with closing(SqliteEventStore(path, clock, ACTOR)) as store:
        for number in range(10):
            clock.advance(60.0)
            asked = MachineRequest.ask(f"req-{number:032x}", "p", "T", "r", 1, 300.0, "operator")
            store.save(asked)
    return path


@pytest.fixture
def view(path: str) -> Iterator[SqlQueries]:
    with closing(SqlQueries(open_for_reading(path), path, SCHEMA_VERSION)) as view:
        yield view


def requests_in(replica: Replica) -> list[str]:
    rows = replica.queries("replica").requests(None, False, None)
    return sorted(row["request_id"] for row in rows)


def test_a_replay_stops_where_it_should(view: SqlQueries) -> None:
    told: list[tuple[int, int]] = []
    with closing(Replica("", "d")) as replica:
        replay(view, replica, 4, lambda done, of: told.append((done, of)))
        assert replica.position == 4
        assert requests_in(replica) == [f"req-{number:032x}" for number in range(3)]
    assert told == [(4, 4)]


def test_a_replica_in_a_file_goes_on(view: SqlQueries, tmp_path: Path) -> None:
    """Closed and opened again it is where it was, and ends as one that was made at once."""
    file = str(tmp_path / "replica.db")
    with closing(Replica(file, "d")) as replica:
        replay(view, replica, 5)
        requests_in(replica)
    with closing(Replica(file, "d")) as replica, closing(Replica("", "d")) as whole:
        assert replica.position == 5
        replay(view, replica, end_of(view))
        replay(view, whole, end_of(view))
        assert requests_in(replica) == requests_in(whole)
        assert len(requests_in(whole)) == 10


def test_what_was_not_written_is_taken_in_again(view: SqlQueries, tmp_path: Path) -> None:
    file = str(tmp_path / "replica.db")
    with closing(Replica(file, "d")) as replica:
        replay(view, replica, 5)
        replica.take(view.records_to_replay(5, 3))
    with closing(Replica(file, "d")) as replica:
        assert replica.position == 5
        assert len(requests_in(replica)) == 4


@pytest.mark.parametrize("why", ["another deployment", "another version"])
def test_a_file_of_something_else_is_made_anew(view: SqlQueries, tmp_path: Path, why: str) -> None:
    file = str(tmp_path / "replica.db")
    with closing(Replica(file, "d")) as replica:
        replay(view, replica, 5)
        if why == "another version":
            replica.connection.execute("UPDATE replica SET versions = 'old'")
    with closing(Replica(file, "e" if why == "another deployment" else "d")) as replica:
        assert replica.position == 0
        assert requests_in(replica) == []


def test_a_moment_is_a_position(view: SqlQueries, clock: FakeClock) -> None:
    """A position is itself; a time is the last event recorded until then."""
    last = clock.now()[0]
    assert position_of(view, "7") == 7
    assert position_of(view, iso(last)) == 11
    assert position_of(view, iso(last - 1.0)) == 10
    assert position_of(view, iso(last - 60.0)[:19]) == 10
    assert position_of(view, "2001-01-01T00:00:00+02:00") == 0
    assert position_of(view, "2101-01-01") == 11
    for nonsense in ("yesterday", "12", ""):
        with pytest.raises(StoreError):
            position_of(view, nonsense)


def test_a_gap_and_a_stranger_are_refused_by_name(view: SqlQueries) -> None:
    with closing(Replica("", "d")) as replica:
        with pytest.raises(LogDamaged, match="no event 1:"):
            replica.take(view.records_to_replay(1, 3))
        events = view.records_to_replay(0, 3)
        events[1] = (*events[1][:4], "MachinesDreamed", *events[1][5:])
        with pytest.raises(UnknownEvent, match=r"event 2.*MachinesDreamed"):
            replica.take(events)


def test_a_failing_event_stops_its_projection_alone(view: SqlQueries) -> None:
    events = view.records_to_replay(0, 11)
    *before, data, digest, chain = events[3]
    events[3] = (*before, data.replace("machine_count", "machine_kount"), digest, chain)
    with closing(Replica("", "d")) as replica:
        replica.take(events)
        replica.write()
        ((name, position, error),) = replica.failed()
        assert (name, position) == ("requests", 4)
        assert "machine_count" in error
        assert replica.position == 11
