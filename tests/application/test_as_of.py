"""The state as of every position of a log is the state that the live read models had then."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application import as_of, queries
from application.course import Course
from domain.launch_batch import LaunchBatch
from domain.machine import Machine
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import SCHEMA_VERSION, open_for_reading
from infrastructure.event_store.sqlite_setup import create_store
from infrastructure.read_models.past import PastQueries, Snapshots, part
from infrastructure.read_models.replica import alone
from infrastructure.read_models.sql import SqlReadModel
from infrastructure.read_models.sql_queries import SqlQueries
from interfaces.hostfactory.reads import statuses
from tests.application.test_projections import live_through
from tests.domain.samples import instance, machine_id
from tests.fakes.clock import FakeClock
from tests.histories import PROVIDER, History
from tests.world import World

ACTOR = {"user": "test"}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

Documents = dict[tuple[str, str], Any]
"""("request", id) and the like, or ("list", kind) -> what an operator is shown."""


def lists(view: SqlQueries) -> Documents:
    return {
        ("list", "requests"): queries.requests(view),
        ("list", "machines"): queries.machines(view),
        ("list", "batches"): queries.batches(view),
        ("list", "fleets"): queries.fleets(view, True),
        ("list", "launch_templates"): queries.launch_templates(view, True),
        ("list", "templates"): queries.templates(view, PROVIDER),
    }


def things(view: SqlQueries, history: History) -> Documents:
    """Each thing alone, and what HostFactory is answered of it."""
    model = SqlReadModel(view._connection)
    found: Documents = {("machine", m): queries.machine(view, m) for m in history.machines}
    found |= {("batch", b): queries.batch(view, b) for b in history.batches}
    for request_id in history.requests + history.returns:
        found["request", request_id] = queries.request(view, request_id)
        found["status", request_id] = statuses(model, [request_id])
    return found


def look(path: str) -> SqlQueries:
    view = SqlQueries(open_for_reading(path), path, SCHEMA_VERSION)
    view.begin()
    return view


def one(view: PastQueries, kind: str, identifier: str) -> Any:
    if kind == "status":
        return statuses(view.read_model(), [identifier])
    return getattr(queries, kind)(view, identifier)


FIND: dict[str, Callable[[str], Callable[..., as_of.Concern]]] = {
    "machine": lambda identifier: partial(as_of.machine, identifier),
    "batch": lambda identifier: partial(as_of.batch, identifier),
    "request": lambda identifier: partial(as_of.requests, [identifier]),
    "status": lambda identifier: partial(as_of.requests, [identifier]),
}


def live(path: str, seeds: list[int]) -> dict[int, Documents]:
    """Position -> what was shown of the fleet when that was the end of the log."""
    clock = FakeClock()
    create_store(path, clock, ACTOR, "test")
    shown: dict[int, Documents] = {}
    with closing(SqliteEventStore(path, clock, ACTOR)) as store, closing(look(path)) as view:

        def note() -> None:
            view.again()
            shown[store.end()[0]] = lists(view) | things(view, history)

        history = History(store, clock, note)
        for seed in seeds:
            history.step(seed)
        assert store.connection.execute("SELECT * FROM projections").fetchall() == []
    return shown


def edges(shown: dict[int, Documents]) -> Iterator[tuple[int, str, str]]:
    """Where things have just changed, or are about to change: (position, kind, id)."""
    positions = sorted(shown)
    for before, position, after in zip(
        [0, *positions], positions, [*positions[1:], positions[-1]], strict=False
    ):
        for key, document in shown[position].items():
            if key[0] != "list" and (
                shown.get(before, {}).get(key) != document or shown[after][key] != document
            ):
                yield position, *key


@settings(max_examples=4)
@given(st.lists(st.integers(0, 2**32), min_size=20, max_size=32))
def test_every_prefix_is_as_it_was_then(seeds: list[int]) -> None:
    """Asked at the end of the log: of the whole fleet, from snapshots and from none, and of each
    thing by what concerns it alone."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path = directory + "/ledger.db"
        shown = live(path, seeds)
        source = look(path)
        for position, documents in shown.items():
            for step in (7, 1000):
                snapshots = Snapshots(f"{directory}/{step}", source, step)
                view = snapshots.look(position)
                assert lists(view) == {k: d for k, d in documents.items() if k[0] == "list"}
                view._connection.close()
        for position, kind, identifier in edges(shown):
            view = part(source, position, FIND[kind](identifier)(source, position))
            assert one(view, kind, identifier) == shown[position][kind, identifier]
            view._connection.close()
        source.close()


def test_each_thing_is_as_in_the_whole_fleet(make_world: Callable[..., World]) -> None:
    """Of a site where much went wrong, with fleets that go on launching."""
    world = make_world(way="fleet-maintain", boot_time=20.0, shutdown_time=15.0)
    live_through(world, 3)
    with closing(look(world.path)) as source:
        (end,) = source.last_events(1, None)
        for quarter in range(1, 5):
            position = end["position"] * quarter // 4
            whole = Snapshots("/dev/null/none", source, 10_000).look(position)
            asked = [("machine", row["machine_id"]) for row in queries.machines(whole)]
            asked += [("batch", row["batch_id"]) for row in queries.batches(whole)]
            for row in queries.requests(whole):
                asked += [("request", row["request_id"]), ("status", row["request_id"])]
            assert len(asked) > 10
            for kind, identifier in asked:
                view = part(source, position, FIND[kind](identifier)(source, position))
                assert one(view, kind, identifier) == one(whole, kind, identifier)
                view._connection.close()
            whole._connection.close()


def test_what_a_thing_does_not_know_itself_yet(tmp_path: Path) -> None:
    """A machine is dealt to a request that its launch was not made for; and is returned, as of the
    time before it is told."""
    path = str(tmp_path / "ledger.db")
    create_store(path, FakeClock(), ACTOR, "test")
    with closing(SqliteEventStore(path, FakeClock(), ACTOR)) as store:
        history = History(store, FakeClock(), lambda: None)
        history.ask()
        history.intend()
        history.ask()
        batch = store.get(LaunchBatch, history.batches[0])
        assert batch is not None
        first, second = history.requests
        claims = [[first, 1], [second, 1]]
        batch.accept("aws", [instance(8), instance(9)], claims, [], False, "", False)
        store.save(batch)
        machine = Machine(Machine.stream(machine_id(9)))
        facts = {k: v for k, v in instance(9).items() if k != "machine_id"}
        machine.launch(
            request_id=second, batch_id=batch.identifier, provider=PROVIDER, template_id="T",
            revision="r", account="default", region="us-east-1", **facts,
        )  # fmt: skip
        store.save(machine)
        history.machines.append(machine.identifier)
        history.hand_back()
        returned, _ = store.end()
        with closing(look(path)) as source:
            expected = queries.request(source, second)
        history.tell()
    (shown,) = expected["machines"]
    assert (shown["machine_id"], shown["return_id"]) == (machine_id(9), history.returns[0])
    with closing(look(path)) as source:
        find = as_of.requests([second], source, returned)
        view = part(source, returned, find)
        assert queries.request(view, second) == expected
        view._connection.close()


def test_the_course_of_the_fleet_is_what_was_alive(tmp_path: Path) -> None:
    """At each position; whether it was followed all the time, and so with ever wider stretches, or
    is asked for once; and of another log that came in the place of the first."""
    path, other = str(tmp_path / "ledger.db"), str(tmp_path / "other.db")
    live(other, list(range(200, 250)))
    clock = FakeClock()
    create_store(path, clock, ACTOR, "test")
    followed, shorter, alive = Course(8), Course(8), {}
    with closing(look(other)) as another:
        for course in (followed, shorter):
            assert course.points(another)[-1].machines > 0
    with closing(SqliteEventStore(path, clock, ACTOR)) as store, closing(look(path)) as view:

        def note() -> None:
            view.again()
            position, _ = view.end()
            alive[position] = queries.fleet(view)["machines"]
            points = followed.points(view)
            assert points == Course(8).points(view)
            assert 4 < len(points) <= 8 or position < 8
            assert points[-1] == (position, view.time_of(position), alive[position])

        history = History(store, clock, note)
        for seed in range(100):
            history.step(seed)
        every = Course(1000).points(view)
        assert [point.position for point in every] == list(range(1, view.end()[0] + 1))
        assert {p.position: p.machines for p in every if p.position in alive} == alive
        assert followed.points(view) == shorter.points(view)
        assert set(followed.points(view)) <= set(every)
    assert max(alive.values()) > 3
    assert any(after < before for before, after in pairwise(alive.values()))


# -- snapshots ----------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlQueries]:
    """A look at a log of some fifty events."""
    path = str(tmp_path / "ledger.db")
    live(path, list(range(40)))
    with closing(look(path)) as view:
        yield view


def positions(directory: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[0]) for path in directory.iterdir())


def listed(snapshots: Snapshots, position: int) -> Documents:
    view = snapshots.look(position)
    found = lists(view)
    view._connection.close()
    return found


def test_a_look_leaves_snapshots_and_goes_on_from_them(log: SqlQueries, tmp_path: Path) -> None:
    """The further back, the further apart; none is ever written again, and no more are kept than
    was decided."""
    directory = tmp_path / "past"
    snapshots = Snapshots(str(directory), log, 4, 8)
    expected = {p: listed(Snapshots("/dev/null/none", log, 1000), p) for p in (18, 23, 41, 42)}
    assert listed(snapshots, 18) == expected[18]
    assert positions(directory) == [8, 12, 16]
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert listed(snapshots, 18) == expected[18]
    assert listed(snapshots, 41) == expected[41]
    assert positions(directory) == [8, 12, 16, 24, 32, 36, 40]
    assert listed(snapshots, 23) == expected[23]
    assert listed(snapshots, 31) == listed(Snapshots("/dev/null/none", log), 31)
    assert len(positions(directory)) == 8
    assert all(path.read_bytes() == before[path] for path in before if path.exists())
    for path in directory.iterdir():
        path.unlink()
    assert listed(snapshots, 42) == expected[42]


def test_looks_from_one_snapshot_do_not_meet(log: SqlQueries, tmp_path: Path) -> None:
    snapshots = Snapshots(str(tmp_path / "past"), log, 4)
    views = [snapshots.look(position) for position in (17, 19, 18)]
    found = [lists(view) for view in views]
    for view in views:
        view._connection.close()
    assert found == [listed(Snapshots("/dev/null/none", log), p) for p in (17, 19, 18)]


def test_a_snapshot_of_another_history_is_not_used(tmp_path: Path, log: SqlQueries) -> None:
    """Nor is one that is damaged."""
    path = str(tmp_path / "other.db")
    live(path, list(range(100, 140)))
    expected = listed(Snapshots("/dev/null/none", log), 19)
    directory = tmp_path / "past"
    with closing(look(path)) as other:
        assert listed(Snapshots(str(directory), other, 4), 19) != expected
    assert listed(Snapshots(str(directory), log, 4), 19) == expected
    for damage in (0, 20_000):
        for file in directory.iterdir():
            text = file.read_bytes()
            file.write_bytes(text[:damage] + b"damaged" * 9_000 + text[damage + 63_000 :])
        assert listed(Snapshots(str(directory), log, 4), 19) == expected


def near(directory: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[0]) for path in directory.glob("*.db"))


def test_snapshots_are_left_all_along_the_log(log: SqlQueries, tmp_path: Path) -> None:
    """Before anybody asks, where they are far from each other, and again when the log is longer;
    those that are there are used, and stay as they are."""
    directory = tmp_path / "past"
    (end,) = log.last_events(1, None)
    assert 44 <= end["position"] < 60
    listed(Snapshots(str(directory), log, 32), 33)
    assert near(directory) == [32]
    seen: list[tuple[int, int]] = []
    snapshots = Snapshots(str(directory), log, 4, 8)
    snapshots.cover(lambda position, end: seen.append((position, end)))
    left = near(directory)
    assert 32 in left
    assert left[-1] == end["position"] // 4 * 4
    assert max(after - before for before, after in pairwise([0, *left])) <= 16
    assert len(left) <= 8
    assert seen[-1] == (left[-1], left[-1])
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    snapshots.cover()
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before
    for position in (3, 15, 30, end["position"]):
        assert listed(snapshots, position) == listed(Snapshots("/dev/null/none", log), position)
    assert {path.name for path in tmp_path.iterdir()} >= {"past", "past.lock"}


def test_of_too_many_snapshots_those_go_that_are_missed_least(
    log: SqlQueries, tmp_path: Path
) -> None:
    """Those of another log before all others; not what was used just now, nor the last."""
    directory = tmp_path / "past"
    directory.mkdir()
    (directory / f"8-{'0' * 32}.db").write_bytes(b"of another log")
    many = Snapshots(str(directory), log, 4, 99)
    for position in (4, 8, 12, 16, 24, 44):
        many._leave("", [position], lambda done, of: None)
    assert near(directory) == [4, 8, 8, 12, 16, 24, 44]
    for number, position in enumerate((44, 24, 16, 12, 8, 4)):
        (path,) = [p for p in directory.glob(f"{position}-*") if f"-{'0' * 32}" not in p.name]
        os.utime(path, (number, number))  # 4 was used last
    few = Snapshots(str(directory), log, 4, 7)
    few._leave("", [36], lambda done, of: None)
    assert near(directory) == [4, 8, 12, 16, 24, 36, 44]  # that of the other log is gone
    few._leave("", [40], lambda done, of: None)
    assert near(directory) == [4, 12, 16, 24, 36, 40, 44]


def test_snapshots_are_left_by_one_at_a_time(log: SqlQueries, tmp_path: Path) -> None:
    directory = tmp_path / "past"
    with alone(str(directory)):
        Snapshots(str(directory), log, 4).cover()
    assert not directory.exists()


def test_where_none_can_be_left_that_is_no_failure(log: SqlQueries, tmp_path: Path) -> None:
    (tmp_path / "past").write_text("no directory")
    Snapshots(str(tmp_path / "past"), log, 4).cover()
    Snapshots("/dev/null/none/past", log, 4).cover()


@pytest.mark.parametrize("room", [400_000, 700_000])
def test_a_full_disk_costs_snapshots_and_no_look(
    log: SqlQueries, tmp_path: Path, room: int
) -> None:
    """No file grows beyond that (EFBIG stands for ENOSPC), which is enough for the temporary one of
    a look."""
    expected = listed(Snapshots("/dev/null/none", log), 41)
    snapshots = Snapshots(str(tmp_path / "past"), log, 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        snapshots.cover()
        assert listed(snapshots, 41) == expected
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert positions(tmp_path / "past") == []
    snapshots.cover()
    assert positions(tmp_path / "past") != []


def test_who_is_told_to_end_leaves_nothing_unfinished(log: SqlQueries, tmp_path: Path) -> None:
    def end(position: int, of: int) -> None:
        if position == 12:
            raise SystemExit

    with pytest.raises(SystemExit):
        Snapshots(str(tmp_path / "past"), log, 4).cover(end)
    assert near(tmp_path / "past") == positions(tmp_path / "past") == [4, 8]
