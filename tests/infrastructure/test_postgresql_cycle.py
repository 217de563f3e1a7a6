"""A whole site on PostgreSQL, and on the SQLite file through SQLAlchemy: the five verbs and the
worker in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from application.version import VERSION
from infrastructure.event_store.postgresql_driver import Connection, Session
from interfaces.read_side import Call
from tests.world import World


class PostgresqlWorld(World):
    """A world whose store is the database at `url`."""

    def __init__(self, root: Path, url: str, **options: Any) -> None:
        super().__init__(root, settings={"HOSTLEDGER_STORAGE__URL": url}, **options)
        Path(self.path).unlink()
        storage: Any = Call("test", self.environ, "python", site=self.site).storage
        self.deployment = storage.create(self.clock, {"user": "test"}, VERSION)
        self.url = url

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        session = Session(self.url, Connection(self.url))
        try:
            return session.execute(statement, parameters).fetchall()
        finally:
            session.close()


@pytest.mark.parametrize("way", ["RunInstances", "fleet-maintain"])
def test_a_cycle_through_the_five_verbs(tmp_path: Path, database_url: str, way: str) -> None:
    """Asked, launched, told, returned, ended: and nothing is left at AWS."""
    world = PostgresqlWorld(tmp_path, database_url, way=way, boot_time=20.0, shutdown_time=15.0)
    world.start_worker()
    offered = world.call("getAvailableTemplates", {})
    assert [template["templateId"] for template in offered["templates"]] == ["OnDemand-A"]
    machines = world.fulfilled(3)
    assert len(machines) == 3
    world.assert_agreement()
    assert world.to_give_up(machines) == []
    answer = world.final(world.give_back(machines))
    assert answer["status"] == "complete"
    world.run(250, step=5.0)
    world.assert_nothing_left()
    (seen,) = world.query("SELECT count(*) FROM events WHERE topic = 'MachinesSeen'")
    assert seen[0] > 0
    world.close()


def test_the_lease_of_a_dead_worker_expires(tmp_path: Path, database_url: str) -> None:
    """Nobody's kernel tells the others that it is dead: they wait for the lease's end, not longer,
    and what it launched is not launched again."""
    world = PostgresqlWorld(tmp_path, database_url, boot_time=20.0, shutdown_time=15.0)
    world.start_worker()
    request_id = world.request(2)
    world.die_at("commit.LaunchAccepted.before")
    second = world.start_worker()
    assert not world.run(55, lambda: bool(second.lease.number))
    assert world.run(10, lambda: bool(second.lease.number))
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.live()) == 2
    world.assert_agreement()
    world.close()


def test_sqlite_through_sqlalchemy_is_the_same_file(tmp_path: Path) -> None:
    """A site changes from `sqlite` to `sql` and back in the middle of work."""
    world = World(tmp_path, boot_time=20.0, shutdown_time=15.0)
    worker = world.start_worker()
    machines = world.fulfilled(2)
    worker.end()
    world.workers.clear()
    world.environ["HOSTLEDGER_STORAGE__STRATEGY"] = "sql"
    worker = world.start_worker()
    more = world.fulfilled(1)
    assert type(worker.store).__name__ == "PooledSqliteEventStore"
    assert worker.store.query_cache_hits > 0  # type: ignore[attr-defined]
    worker.end()
    world.workers.clear()
    del world.environ["HOSTLEDGER_STORAGE__STRATEGY"]
    world.start_worker()
    assert world.final(world.give_back(machines + more))["status"] == "complete"
    world.run(250, step=5.0)
    world.assert_nothing_left()
    world.close()
