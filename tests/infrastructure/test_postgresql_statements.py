"""Each statement of the shared classes, on PostgreSQL and on SQLite: one log, one answer.

Logs come from a site that launches, returns and loses machines in the sandbox; PostgreSQL takes
them over event by event, so that its read tables are its own work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from application.json_text import loads
from application.pages import BATCHES, MACHINES, REQUESTS
from application.ports import Instance
from application.projections.record import COLUMNS
from infrastructure.event_store.commit import Rows
from infrastructure.event_store.notebook import SqlNotebook
from infrastructure.event_store.postgresql import PostgresqlEventStore
from infrastructure.event_store.postgresql_driver import Connection, Session
from infrastructure.event_store.postgresql_setup import build
from infrastructure.event_store.schema import NOTEBOOK_TABLES
from infrastructure.event_store.sql import SqlEventStore
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.read_models.postgresql import PostgresqlReadModel
from infrastructure.read_models.sql import SqlReadModel
from infrastructure.read_models.sql_queries import SqlQueries
from infrastructure.read_models.sql_work import SqlWork
from tests.infrastructure.postgresql_stores import storage_at
from tests.postgresql import Server
from tests.world import World

READ_TABLES = (
    "requests", "machines", "returned_machines", "templates", "template_revisions", "batches",
    "terminations", "fleets", "brake", "launch_templates", "events", "commands", "tracking",
    "bodies", "projection_versions",
)  # fmt: skip


def copy_of(world: World, url: str) -> PostgresqlEventStore:
    """The world's store in PostgreSQL."""
    source = SqliteEventStore(world.path, world.clock, {})
    session = Session(url, Connection(url))
    build(session, world.deployment)
    session.close()
    target = storage_at(url, enable_query_cache=False).event_store(world.clock, {})

    def rows(statement: str) -> list[Any]:
        return source.connection.execute(statement).fetchall()  # type: ignore[no-any-return]

    def take_over() -> None:
        target.take_over(
            rows(f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY position"),
            rows("SELECT * FROM commands"),
            rows("SELECT * FROM tracking"),
            rows("SELECT * FROM bodies"),
        )
        for table in NOTEBOOK_TABLES:
            for row in source.connection.execute(f"SELECT * FROM {table}"):
                places = ", ".join("?" * len(row))
                target.connection.execute(f"INSERT INTO {table} VALUES ({places})", row)

    target.write("copy", take_over)
    source.close()
    return target


def launching(world: World) -> None:
    """Open batches and fleets that are filling, a request that nothing could serve yet."""
    world.request(3)
    world.run(4)
    world.request(2)


def in_full_use(world: World) -> None:
    """Machines of all kinds: in use, returned, interrupted, orphaned, cancelled."""
    machines = world.fulfilled(4)
    world.status(world.request(1))
    world.give_back(machines[:2])
    world.run(12)
    world.cancel(world.request(2))
    world.call(
        "requestReturnMachines",
        {"machines": [{"machineId": "i-0123456789abcdef0", "name": "stranger"}]},
    )
    world.to_give_up([*machines, {"machineId": "i-0badbadbadbadbad0", "name": "who"}])


MOMENTS: dict[str, Callable[[World], None]] = {"launching": launching, "in use": in_full_use}


UNORDERED = (
    "alive_machines", "owed_machines", "machines_in", "living_machines_of", "unclaimed_machines",
    "launch_apis", "fleet_apis", "launch_template_names", "machines_by_template",
)  # fmt: skip
"""What has no order to keep."""


WRITTEN = ("machines", "page")
"""What has JSON texts in it, which may have spaces."""


def read(told: Any) -> Any:
    if isinstance(told, tuple):
        return tuple(map(read, told))
    return loads(told) if isinstance(told, str) and told.startswith("{") else told


class Both:
    """Asks both stores, and compares."""

    def __init__(self, sqlite: SqlEventStore, postgresql: PostgresqlEventStore) -> None:
        self.stores = (sqlite, postgresql)
        self.asked: set[tuple[type, str]] = set()
        self.told = 0

    def same(self, kind: type, name: str, *given: Any) -> Any:
        self.asked.add((kind, name))
        answers = [self._ask(kind, store, name, given) for store in self.stores]
        if kind is SqlQueries and name in WRITTEN:
            answers = [[read(row) for row in answer] for answer in answers]
        if name in UNORDERED:
            answers = [sorted(answer, key=str) for answer in answers]
        assert answers[1] == answers[0], (kind.__name__, name, given)
        self.told += bool(answers[0])
        return answers[0]

    def _ask(self, kind: type, store: SqlEventStore, name: str, given: tuple[Any, ...]) -> Any:
        asked: Any
        if kind is SqlReadModel:
            is_sqlite = store is self.stores[0]
            asked = (
                SqlReadModel(store.connection, shared=True)
                if is_sqlite
                else PostgresqlReadModel(store.connection)  # type: ignore[arg-type]
            )
        elif kind is SqlQueries:
            asked = SqlQueries(store.connection, "name", 3)
        else:
            asked = kind(store, "default", "us-east-1")
        answer = getattr(asked, name)(*given)
        if isinstance(answer, Iterator):
            return list(answer)
        if name == "records":
            return [[getattr(record, part) for part in record.__slots__] for record in answer]
        return answer


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", ["RunInstances", "fleet-maintain"])
def test_every_public_method_answers_as_sqlite(
    way_world: World, moment: str, postgresql: Server
) -> None:
    """The read tables are equal row by row, and so is every answer of the four classes."""
    world = way_world
    world.start_worker()
    MOMENTS[moment](world)
    postgres = copy_of(world, postgresql.database())
    sqlite = SqliteEventStore(world.path, world.clock, {})
    both = Both(sqlite, postgres)
    for table in READ_TABLES:
        tables = [
            sorted(tuple(map(_plain, row)) for row in store.connection.execute(
                f"SELECT * FROM {table}"
            ))
            for store in both.stores
        ]  # fmt: skip
        assert tables[1] == tables[0], table
    _read_model(both, world)
    _queries(both, world)
    _work(both, world)
    _notebook(both, world)
    for kind in (SqlReadModel, SqlQueries, SqlWork, SqlNotebook):
        public = {
            name
            for name, _ in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }
        assert {(kind, name) for name in public} <= both.asked, "a method is not asked"
    assert both.told > 40, "the answers were empty"
    sqlite.close()
    postgres.close()


def _plain(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, (bytes, memoryview)) else str(value)


def _column(world: World, statement: str) -> list[Any]:
    return [row[0] for row in world.query(statement)]


def _read_model(both: Both, world: World) -> None:
    same = both.same
    now = world.clock.now()
    machines = _column(world, "SELECT machine_id FROM machines ORDER BY 1")
    names = _column(world, "SELECT name FROM machines ORDER BY 1")
    for store in both.stores:
        SqlReadModel(store.connection).connection.execute("BEGIN")
    same(SqlReadModel, "refuse_failed", "name")
    same(SqlReadModel, "again")
    for request_id, kind in world.query("SELECT request_id, kind FROM requests"):
        same(SqlReadModel, "request", request_id)
        for status in ("running", "complete"):
            same(SqlReadModel, "machines_of", request_id, kind, status)
        same(SqlReadModel, "is_in_log", request_id)
    same(SqlReadModel, "is_in_log", "req-none")
    for name in (
        "brake", "anything_open_or_alive", "oldest_open", "anything_alive", "healthy_machines",
        "interrupted_machines", "unseen_machines", "holder_lives",
    ):  # fmt: skip
        same(SqlReadModel, name)
    same(SqlReadModel, "known", [*machines, "i-none", 'odd"%s?'])
    same(SqlReadModel, "ids_by_name", [*names, "nobody"])
    same(SqlReadModel, "cloud_states", now)
    same(SqlReadModel, "last_sweep", "default/us-east-1", now)
    same(SqlReadModel, "last_sweep", "other/us-east-1", now)
    same(SqlReadModel, "template_revision", "awsinst/OnDemand-A")
    for store in both.stores:
        store.connection.execute("COMMIT")


def _queries(both: Both, world: World) -> None:
    same = both.same
    same(SqlQueries, "begin")
    requests = _column(world, "SELECT request_id FROM requests")
    machines = _column(world, "SELECT machine_id FROM machines ORDER BY 1")
    batches = _column(world, "SELECT batch_id FROM batches")
    for status in (None, "running", "complete"):
        for flag in (False, True):
            same(SqlQueries, "requests", status, flag, None)
            same(SqlQueries, "machines", status, None, flag)
    same(SqlQueries, "requests", None, False, 1)
    for request_id in requests:
        same(SqlQueries, "requests", None, False, None, request_id)
        same(SqlQueries, "machines", None, request_id, False)
        same(SqlQueries, "returned", request_id)
        same(SqlQueries, "batches_of", request_id)
    for machine_id in machines[:2]:
        same(SqlQueries, "machines", None, None, False, machine_id)
    same(SqlQueries, "being_terminated", machines[::-1])
    for flag in (False, True):
        same(SqlQueries, "batches", flag, None)
        same(SqlQueries, "batches", flag, 1)
        same(SqlQueries, "fleets", flag)
        same(SqlQueries, "launch_templates", flag)
    for batch_id in batches[:2]:
        same(SqlQueries, "batches", False, None, batch_id)
        same(SqlQueries, "machines", None, None, False, "", batch_id)
    same(SqlQueries, "orphans")
    stream = same(SqlQueries, "find_stream", ["none-1", f"request-{requests[0]}", "deployment"])
    same(SqlQueries, "events_of", stream)
    correlations = _column(world, "SELECT correlation_id FROM requests")
    assert same(SqlQueries, "events_correlated", correlations)
    streams = _column(world, "SELECT DISTINCT stream FROM events")
    assert same(SqlQueries, "events_of_streams", [*streams[:5], "none"])
    assert same(SqlQueries, "templates", "awsinst")
    for name in ("", streams[0].partition("-")[2], "none"):
        same(SqlQueries, "mentions", "LaunchIntended", 1, 2**40, 3, name)
    same(SqlQueries, "last_events", 5, None)
    same(SqlQueries, "tally", ("MachineLaunched", "MachineTerminated"), 3, 7)
    same(SqlQueries, "last_events", 5, "MachinesRequested")
    assert same(SqlQueries, "events_about", "MachinesRequested", "awsinst", 0, None)
    same(SqlQueries, "events_about", "MachineLaunched", "", 2, 9)
    assert same(SqlQueries, "event", world.query("SELECT event_id FROM events")[1][0])
    same(SqlQueries, "event", "none")
    assert same(SqlQueries, "records_after", 0, 3)
    assert same(SqlQueries, "records_to_replay", 0, 3)
    same(SqlQueries, "position_after", 2)
    same(SqlQueries, "position_after", 10_000)
    assert same(SqlQueries, "end")
    same(SqlQueries, "facts")
    same(SqlQueries, "events_after", 3, 5)
    for topics in ([], ["MachinesRequested", "MachineLaunched"]):
        same(SqlQueries, "records", topics, 3, 100)
    same(SqlQueries, "commands_after", "", 3)
    same(SqlQueries, "commands_after", "cmd-5", 1000)
    same(SqlQueries, "tracked")
    same(SqlQueries, "bodies")
    same(SqlQueries, "identity")
    streams, _ = same(SqlQueries, "finished_streams", "9", [])
    same(SqlQueries, "finished_streams", "9", [requests[0], "i-*5"])
    same(SqlQueries, "extent", [*streams, f"request-{requests[0]}"])
    same(SqlQueries, "whole_events_after", 3, 5)
    same(SqlQueries, "archives_on_record")
    same(SqlQueries, "count_archived")
    same(SqlQueries, "open_archive")
    for position in (0, 3):
        same(SqlQueries, "chain_at", position)
        same(SqlQueries, "time_of", position + 1)
    for since, until in (("", ""), ("2000", "2001"), ("2000", ""), ("2999", "")):
        same(SqlQueries, "positions_between", since, until)
    assert same(SqlQueries, "projections")
    for table in Rows.KEYS:
        same(SqlQueries, "columns_of", table)
        same(SqlQueries, "rows_of", table, 2)
    assert same(SqlQueries, "events_of_topics", ["MachinesRequested"], 0)
    for topic in (None, "MachineLaunched"):
        assert same(SqlQueries, "events_between", 2, 10**6, topic, 3)
    assert same(SqlQueries, "living")
    for listing in (REQUESTS, MACHINES, BATCHES):
        for column in listing.sorts.values():
            for descending in (False, True):
                order = (column, listing.key, descending)
                asked = (listing.table, (*listing.columns, column, listing.key), [])
                first, *_ = same(SqlQueries, "page", *asked, order, None, 1)
                same(SqlQueries, "page", *asked, order, first[-2:], 2)
    some = ("machines", MACHINES.columns, [("alive", "=", 1), ("created_at", ">=", "2000")])
    same(SqlQueries, "page", *some, ("zone", "machine_id", True), None, 5)
    assert same(SqlQueries, "vitals")
    for policy in ("none", "assigning"):
        same(SqlQueries, "waiting", policy, ["MachinesRequested", "LaunchAccepted"])
    same(SqlQueries, "alerts", ["no-lease", "none"])
    same(SqlQueries, "pause")
    same(SqlQueries, "begin")
    same(SqlQueries, "again")
    both.asked.add((SqlQueries, "close"))  # each test closes its stores
    both.asked.add((SqlQueries, "plan"))  # each store has its own
    for store in both.stores:
        store.connection.execute("COMMIT")


def _work(both: Both, world: World) -> None:
    same = both.same
    requests = _column(world, "SELECT request_id FROM requests")
    machines = _column(world, "SELECT machine_id FROM machines ORDER BY 1")
    for name in (
        "open_batches", "fleets", "launch_templates", "had_launch_template", "open_requests",
        "launch_template_names", "brake", "launch_apis", "fleet_apis",
        "machines_by_account", "machines_by_template", "owed_machines", "open_terminations",
        "alive_machines", "count_alive", "anything_alive", "open_returns", "unseen_requests",
        "unclaimed_machines", "oldest_instant", "anything_open",
    ):  # fmt: skip
        same(SqlWork, name)
    batches = SqlWork(both.stores[0], "default", "us-east-1")
    for batch_id in _column(world, "SELECT batch_id FROM batches"):
        row = same(SqlWork, "batch", batch_id)
        same(SqlWork, "rejected_batch", batch_id, row["payload"], row["claims"])
    assert batches.batch("bat-none") is None
    for key in [*_column(world, "SELECT template_key FROM launch_templates"), "none"]:
        same(SqlWork, "launch_template", key)
    same(SqlWork, "abandoned", [("default", "us-east-1")])
    same(SqlWork, "abandoned", [])
    for key in _column(world, "SELECT revision_key FROM template_revisions"):
        same(SqlWork, "template_content", *key.rsplit("@", 1))
    same(SqlWork, "templates", "awsinst")
    for digest in [*_column(world, "SELECT digest FROM bodies"), "none"]:
        same(SqlWork, "body", digest)
    same(SqlWork, "machines_in", ["pending", "running"])
    for name in ("interruptible", "protected", "known_machines", "alive_machines"):
        same(SqlWork, name, machines[::-1])
    for request_id in requests:
        same(SqlWork, "living_machines_of", request_id)
        same(SqlWork, "stream_version", f"request-{request_id}")
    same(SqlWork, "stream_version", "none-1")
    assert same(SqlWork, "tracked", "assigning")
    same(SqlWork, "refusals", 0)
    same(SqlWork, "events_after", "nobody", ["MachinesRequested", "MachineLaunched"], 100)
    same(SqlWork, "events_after", "assigning", ["LaunchAccepted"], 100)
    same(SqlWork, "first_sightings", requests, requests, machines)


def _notebook(both: Both, world: World) -> None:
    same = both.same
    now = world.clock.now()
    later = (now[0] + 60, now[1], now[2] + 60)
    elsewhere = (now[0], "boot-elsewhere", 5.0)

    def orphan(number: int) -> Instance:
        return Instance(
            f"i-{number:017d}", "running", f"host-{number}", "10.0.0.1", int(now[0]), "a",
            "t3.small", batch_id="bat-1", provider="awsinst",
        )  # fmt: skip

    for _ in range(2):
        same(SqlNotebook, "record_sweep", now, 5)
        same(SqlNotebook, "put_cloud_states", [("i-1", "one", "stopped"), ("i-2", "", "x")], now)
        same(SqlNotebook, "clear_cloud_states", ["i-1", "i-none"])
        same(SqlNotebook, "first_sweep", "bat-1", now)
        same(SqlNotebook, "first_sweep", "bat-1", later)
        same(SqlNotebook, "last", "bat-2")
        same(SqlNotebook, "note", "bat-2", now)
        same(SqlNotebook, "note", "bat-2", later)
        same(SqlNotebook, "last", "bat-2")
        same(SqlNotebook, "keep", {"one": now, "two": later}, [])
        same(SqlNotebook, "keep", {"two": now, "three": now}, ["one", "none"])
        same(SqlNotebook, "kept")
        same(SqlNotebook, "miss", ["i-1", "i-2"], now)
        same(SqlNotebook, "miss", ["i-2", "i-3_%"], now)
        same(SqlNotebook, "see_orphans", [orphan(1), orphan(2)])
        same(SqlNotebook, "see_orphans", [orphan(2)])
        same(SqlNotebook, "add_calling", "hf", [now, elsewhere, later])
        same(SqlNotebook, "calling", "hf")
        same(SqlNotebook, "unseen_since", {"req-1": 1.0, "req-2": 2.5})
        same(SqlNotebook, "unseen_since", {"req-2": 9.0})
    both.same(SqlQueries, "orphans")
    for table in NOTEBOOK_TABLES:
        rows = [
            sorted(map(str, store.connection.execute(f"SELECT * FROM {table}").fetchall()))
            for store in both.stores
        ]
        assert rows[1] == rows[0], table
