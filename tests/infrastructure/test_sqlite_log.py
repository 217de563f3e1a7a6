"""What the SQLite log promises: order, tamper evidence, idempotence, and that commits are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from application.failures import AlreadyTracked, Conflict, LogDamaged, ProjectionFailed, StoreError
from application.projections import PROJECTIONS
from domain.machine_request import MachineRequest
from domain.return_request import ReturnRequest
from infrastructure.event_store.commit import iso
from infrastructure.event_store.sqlite import TOGETHER, SqliteEventStore
from infrastructure.event_store.sqlite_file import sqlite
from infrastructure.event_store.sqlite_setup import create_store
from tests.domain.samples import OTHER, REQUEST, RETURN, every_event, launched, machine_id
from tests.fakes.clock import FakeClock
from tests.stores import look

ACTOR = {"user": "symphony", "provider": "awsinst", "process": "test"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path, clock: FakeClock) -> str:
    path = str(tmp_path / "ledger.db")
    create_store(path, clock, ACTOR, "0.1.0")
    return path


@pytest.fixture
def open_store(path: str, clock: FakeClock) -> Iterator[Callable[[], SqliteEventStore]]:
    stores = []

    def make() -> SqliteEventStore:
        stores.append(SqliteEventStore(path, clock, ACTOR))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], SqliteEventStore]) -> SqliteEventStore:
    return open_store()


def ask(request_id: str = REQUEST, count: int = 3) -> MachineRequest:
    return MachineRequest.ask(request_id, "awsinst", "OnDemand-A", "4f53", count, 300.0, "operator")


def rows(store: SqliteEventStore, statement: str) -> list[Any]:
    found: list[Any] = store.connection.execute(statement).fetchall()
    return found


def fill(store: SqliteEventStore) -> None:
    """One event of each topic, each on its stream."""
    versions: dict[str, int] = {"deployment": 1}
    for number, (stream, (event_class, fields)) in enumerate(every_event().values()):
        versions[stream] = versions.get(stream, 0) + 1
        store.append(
            [
                (
                    stream, versions[stream], event_class.TOPIC, 1,
                    json.dumps(fields, ensure_ascii=False), fields,
                )
            ],
            correlation_id=f"cmd-{number}",
            causation_id=f"cause-{number}",
        )  # fmt: skip


# -- what is on record -----------------------------------------------------------------------------


def test_every_event_says_who_when_and_why(store: SqliteEventStore, clock: FakeClock) -> None:
    """Correlation, causation, actor and boot clock are in the metadata; time is UTC in ISO 8601."""
    request = ask()
    request.cancel("not needed")
    other = ask(OTHER)
    ids = store.save(
        request,
        other,
        correlation_id="cmd-1",
        causation_id="event-0",
        causes={other.id: ("cmd-2", "event-9")},
    )
    found = rows(
        store, "SELECT event_id, recorded_at, metadata FROM events WHERE position > 1 ORDER BY 1"
    )
    assert sorted(ids) == [row[0] for row in found]
    assert {row[1] for row in found} == {"2027-01-15T08:00:00.000000Z"}
    by_id = {row[0]: json.loads(row[2]) for row in found}
    common = {"actor": ACTOR, "boot": ["boot-1", 1000.0]}
    assert by_id[ids[0]] == by_id[ids[1]] == {
        "correlation_id": "cmd-1", "causation_id": "event-0", **common,
    }  # fmt: skip
    assert by_id[ids[2]] == {"correlation_id": "cmd-2", "causation_id": "event-9", **common}


def test_the_first_event_has_the_deployment(store: SqliteEventStore) -> None:
    """The log begins with its own identity."""
    (first,) = rows(store, "SELECT stream, topic, data FROM events WHERE position = 1")
    assert first[:2] == ("deployment", "DeploymentCreated")
    assert json.loads(first[2]) == {
        "deployment": store.deployment, "incarnation": 1, "program_version": "0.1.0",
    }  # fmt: skip


def test_recorded_time_never_goes_back(store: SqliteEventStore, clock: FakeClock) -> None:
    """The wall clock is set an hour back, then forward: "as of a time" stays a position."""
    store.save(ask())
    clock.step_wall(-3600)
    store.save(ask(OTHER))
    clock.step_wall(7200)
    store.save(ask(RETURN))
    times = [row[0] for row in rows(store, "SELECT recorded_at FROM events ORDER BY position")]
    assert times == sorted(times)
    assert times[1] == times[2] < times[3]


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_800_000_000.25, "2027-01-15T08:00:00.250000Z"),
        (1_799_999_999.9999999, "2027-01-15T08:00:00.000000Z"),
    ],
)
def test_times_sort_as_text(wall: float, text: str) -> None:
    """Fixed width, microseconds, rounding carried over."""
    assert iso(wall) == text


def test_digest_and_chain_follow_the_published_rule(store: SqliteEventStore) -> None:
    """Computed again with nothing but hashlib and json, over one event of each topic."""
    fill(store)
    chained = store.deployment
    for position, *canonical, digest, chain in rows(
        store,
        "SELECT position, event_id, stream, version, topic, class_version, recorded_at, metadata, "
        "data, digest, chain FROM events ORDER BY position",
    ):
        text = json.dumps(canonical, ensure_ascii=False, separators=(",", ":"))
        assert digest == hashlib.sha256(text.encode()).hexdigest()
        chained = hashlib.sha256(f"{chained}\n{position}\n{digest}".encode()).hexdigest()
        assert chain == chained
    assert position == len(every_event()) + 1


# -- tampering -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tampering",
    [
        f"UPDATE events SET {column} = {column} || ' ' WHERE position = 4"
        for column in ("event_id", "stream", "topic", "recorded_at", "metadata", "data", "digest",
                       "chain")
    ]
    + [
        "UPDATE events SET version = 9 WHERE position = 4",
        "UPDATE events SET class_version = 7 WHERE position = 4",
        "UPDATE events SET position = 5 WHERE position = 4",
        "DELETE FROM events WHERE position = 4",
        "DELETE FROM events WHERE position = 3",
        "DELETE FROM events",
        "DELETE FROM sqlite_sequence",
        "UPDATE sqlite_sequence SET seq = 3",
        "UPDATE events SET chain = 'x' WHERE position = 3",
    ],
)  # fmt: skip
def test_a_changed_end_of_the_log_takes_no_more_events(
    store: SqliteEventStore, tampering: str
) -> None:
    """The next append sees that the last event is gone or not the one that was written, names the
    file, and records nothing."""
    for request_id in (REQUEST, OTHER, RETURN):
        store.save(ask(request_id))
    before = store.connection.execute(tampering).rowcount
    assert before > 0
    count = rows(store, "SELECT count(*) FROM events")
    with pytest.raises(LogDamaged, match=r"ledger\.db"):
        store.save(ask("req-new"))
    assert rows(store, "SELECT count(*) FROM events") == count


def test_a_conflict_among_many_events_records_none(store: SqliteEventStore) -> None:
    """Whether it is among those that one statement inserts, or one of the rest."""
    many = [(f"template-{n}", 1, "TemplateRetired", 1, "{}", None) for n in range(2 * TOGETHER + 3)]
    for taken in (0, TOGETHER + 1, len(many) - 1):
        store.append([many[taken]])
        before = store.end()
        with pytest.raises(Conflict):
            store.append(many)
        assert store.end() == before
        store.connection.execute("DELETE FROM events WHERE stream LIKE 'template-%'")
        store.connection.execute("UPDATE sqlite_sequence SET seq = 1")
    store.append(many)
    assert store.end()[0] == 1 + len(many)


def test_positions_are_never_used_again(store: SqliteEventStore) -> None:
    """SQLite itself would give a deleted last row's number again: AUTOINCREMENT does not."""
    store.save(ask())
    store.connection.execute("DELETE FROM events WHERE position = 2")
    assert rows(store, "SELECT seq FROM sqlite_sequence WHERE name = 'events'") == [(2,)]
    cursor = store.connection.execute(
        "INSERT INTO events SELECT NULL, 'x', 's', 1, 't', 1, '', '', '', '', ''"
    )
    assert cursor.lastrowid == 3


# -- order and conflict ----------------------------------------------------------------------------


def test_positions_have_no_gap_after_a_refused_commit(store: SqliteEventStore) -> None:
    """A rollback leaves no number behind."""
    store.save(ask())
    for _ in range(3):
        with pytest.raises(Conflict):
            store.save(ask(OTHER), ask())
    store.save(ask(OTHER))
    assert rows(store, "SELECT position, stream FROM events ORDER BY position") == [
        (1, "deployment"),
        (2, "request-" + REQUEST),
        (3, "request-" + OTHER),
    ]


def test_a_stale_version_is_a_conflict(open_store: Callable[[], SqliteEventStore]) -> None:
    """Who loaded before the other saved is refused; nothing of the commit is kept."""
    one, two = open_store(), open_store()
    one.save(ask())
    first, second = one.get(MachineRequest, REQUEST), two.get(MachineRequest, REQUEST)
    assert first is not None
    assert second is not None
    first.cancel("by the first")
    second.cancel("by the second")
    one.save(first)
    with pytest.raises(Conflict):
        two.save(second, ask(OTHER), command=("cmd", ""), bodies={"d": b"x"})
    again = two.get(MachineRequest, REQUEST)
    assert again is not None
    assert (again.version, again.state) == (2, "cancelled")
    assert two.get(MachineRequest, OTHER) is None
    assert two.command_result("cmd") is None
    assert rows(two, "SELECT * FROM bodies") == []


def test_a_command_is_carried_out_once(store: SqliteEventStore) -> None:
    """The same command id again is a conflict, and its first result can be asked for."""
    store.save(ask(), command=("cmd-1", "the result"))
    with pytest.raises(Conflict):
        store.save(ask(OTHER), command=("cmd-1", "another"))
    assert store.command_result("cmd-1") == "the result"
    assert store.command_result("cmd-2") is None
    assert store.get(MachineRequest, OTHER) is None


def test_a_position_is_tracked_once(store: SqliteEventStore) -> None:
    """What is at or behind the tracked position is refused with all that comes with it."""
    store.save(ask(), tracking=("policy", 5))
    for position in (4, 5):
        with pytest.raises(AlreadyTracked, match="policy"):
            store.save(ask(OTHER), tracking=("policy", position))
    assert store.get(MachineRequest, OTHER) is None
    store.save(ask(OTHER), tracking=("policy", 6))
    store.append([], tracking=("other", 1))
    assert rows(store, "SELECT * FROM tracking") == [("other", 1), ("policy", 6)]


def test_positions_are_told(store: SqliteEventStore) -> None:
    """The positions of what was appended, in order."""
    positions: list[int] = []
    request = ask()
    request.cancel("x")
    store.save(request, ask(OTHER), positions=positions)
    assert positions == [2, 3, 4]


def test_a_body_is_kept_with_its_intent(store: SqliteEventStore) -> None:
    """Once for each digest."""
    store.save(ask(), bodies={"d1": b"\x00one", "d2": b"two"})
    store.save(ask(OTHER), bodies={"d1": b"\x00one"})
    assert rows(store, "SELECT * FROM bodies") == [("d1", b"\x00one"), ("d2", b"two")]


def test_an_aggregate_comes_back_as_it_was(store: SqliteEventStore) -> None:
    """All its events, in order; None when there is none."""
    ids = [machine_id(number) for number in range(2_500)]
    store.save(ReturnRequest.hand_back(RETURN, "awsinst", ids, [], "returned", "hostfactory"))
    found = store.get(ReturnRequest, RETURN)
    assert found is not None
    assert (found.machine_ids, found.version) == (ids, 3)
    assert store.get(ReturnRequest, REQUEST) is None


def test_text_that_utf_8_has_not_is_refused_whole(store: SqliteEventStore) -> None:
    """A lone surrogate can be in no store: nothing is recorded and the store goes on."""
    with pytest.raises(UnicodeEncodeError):
        store.save(ask("req-\ud800"))
    store.save(ask())
    assert rows(store, "SELECT max(position) FROM events") == [(2,)]


# -- projections that cannot follow ----------------------------------------------------------------


def test_an_event_is_kept_when_a_projection_fails(store: SqliteEventStore, path: str) -> None:
    """The events commit; the projection is marked with position and cause; the others go on."""
    broken = {"machine_ids": ["i-1"], "batch_id": "bat-1", "units": 1}
    store.append([("request-none", 1, "MachinesAssigned", 1, json.dumps(broken), broken)])
    assert rows(store, "SELECT * FROM projections") == [("requests", 2, "AssertionError: ")]
    store.save(ask())
    stream, (event_class, fields) = every_event()["LaunchIntended"]
    store.append([(stream, 1, event_class.TOPIC, 1, "{}", fields)])
    assert rows(store, "SELECT position FROM events ORDER BY 1") == [(1,), (2,), (3,), (4,)]
    assert rows(store, "SELECT count(*) FROM requests") == [(0,)]
    assert rows(store, "SELECT count(*) FROM batches") == [(1,)]


def test_reads_end_while_a_projection_is_behind(store: SqliteEventStore, path: str) -> None:
    """No answer rather than an old one: the message has the name, the position and what to do."""
    look(path).connection.close()
    store.append([("request-none", 1, "RequestFulfilled", 1, "{}", {})])
    with pytest.raises(ProjectionFailed) as caught:
        look(path)
    for part in (path, "requests", "position 2", "projections rebuild"):
        assert part in str(caught.value)


@pytest.mark.parametrize("number", [2**63, -(2**70)])
def test_a_number_that_no_column_takes_stops_its_projection_alone(
    store: SqliteEventStore, number: int
) -> None:
    """SQLite's integers have 64 bits: the event is kept, the machines stop, the rest goes on."""
    fields = {**launched()[1], "launch_time": number}
    store.append([("machine-i-1", 1, "MachineLaunched", 1, json.dumps(fields), fields)])
    ((name, position, error),) = rows(store, "SELECT * FROM projections")
    assert (name, position) == ("machines", 2)
    assert "Overflow" in error
    store.save(ask())
    assert rows(store, "SELECT count(*) FROM requests") == [(1,)]


def test_what_other_projections_changed_in_the_commit_is_not_lost(
    store: SqliteEventStore,
) -> None:
    """A return of 2,500 machines that the ledger has not: `machines` fails at the first of three
    events, and `requests` still counts all of them."""
    ids = [machine_id(number) for number in range(2_500)]
    store.save(ReturnRequest.hand_back(RETURN, "awsinst", ids, [], "returned", "hostfactory"))
    assert [row[0] for row in rows(store, "SELECT name FROM projections")] == ["machines"]
    assert rows(store, "SELECT machine_count FROM requests") == [(2_500,)]
    assert rows(store, "SELECT count(*), max(ordinal) FROM returned_machines") == [(2_500, 2_499)]


def test_a_failed_projection_keeps_nothing_of_the_commit(store: SqliteEventStore) -> None:
    """It stops before the commit in which it failed, not somewhere in it."""
    broken = {"message": "x"}
    good = ask().collect_events()[0]
    store.append(
        [
            ("request-" + REQUEST, 1, "MachinesRequested", 1, "{}", {
                k: v for k, v in vars(good).items() if not k.startswith("originator")
            }),
            ("request-none", 1, "RequestFailed", 1, "{}", broken),
        ]
    )  # fmt: skip
    assert rows(store, "SELECT count(*) FROM requests") == [(0,)]
    assert rows(store, "SELECT name, failed_at FROM projections") == [("requests", 3)]


def test_every_topic_that_changes_rows_is_an_event_of_ours() -> None:
    """A projection that waits for a topic nobody writes would be silent for ever."""
    topics = set(every_event())
    for handlers in PROJECTIONS.values():
        assert set(handlers) <= topics


def test_a_defect_in_the_commit_rolls_back(store: SqliteEventStore) -> None:
    """What is neither a conflict nor the disk's fault is raised as it is; the store goes on."""

    def work() -> None:
        store.connection.execute("INSERT INTO tracking VALUES ('x', 1)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write("defect", work)
    assert rows(store, "SELECT * FROM tracking") == []
    store.save(ask())


def test_a_damaged_file_is_told_as_such(store: SqliteEventStore, path: str) -> None:
    """SQLite's own words, the path, and that nothing was recorded."""
    store.save(ask())
    (pages,) = rows(store, "SELECT rootpage FROM sqlite_master WHERE name = 'events'")
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = rows(store, "PRAGMA page_size")[0][0]
    store.close()
    with Path(path).open("r+b") as file:
        file.seek((pages[0] - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(StoreError, match=r"ledger\.db"):
        SqliteEventStore(path, FakeClock(), ACTOR)


def test_no_file_that_is_not_ours_is_opened(tmp_path: Path) -> None:
    """Text, another database: a StoreError that names the file."""
    (tmp_path / "text.db").write_text("this is no database" * 100)
    with pytest.raises(StoreError, match=r"text\.db"):
        SqliteEventStore(str(tmp_path / "text.db"), FakeClock(), ACTOR)
    other = sqlite.connect(str(tmp_path / "other.db"))
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(StoreError, match=r"other\.db is not initialised"):
        SqliteEventStore(str(tmp_path / "other.db"), FakeClock(), ACTOR)
