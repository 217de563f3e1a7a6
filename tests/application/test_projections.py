"""Every read table can be thrown away and built again from the events, and comes out equal."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from application.json_text import loads
from application.projections import PROJECTIONS, Record
from domain.event_sourced import DomainEvent
from infrastructure.event_store import schema
from infrastructure.event_store.sqlite import Rows, SqliteEventStore, to_event
from infrastructure.event_store.sqlite_file import open_for_reading, sqlite
from tests.world import TEMPLATE, World

Tables = dict[str, list[tuple[Any, ...]]]

MakeWorld = Callable[..., World]


def fields_of(event: DomainEvent) -> dict[str, Any]:
    """The event's own fields, as a projection gets them."""
    return {name: value for name, value in vars(event).items() if not name.startswith("originator")}


def records(connection: Any) -> list[Record]:
    """The whole log as projections see it, from what is stored alone."""
    found = []
    for (
        position,
        event_id,
        stream,
        version,
        topic,
        class_version,
        at,
        text,
        data,
    ) in connection.execute(
        "SELECT position, event_id, stream, version, topic, class_version, recorded_at, "
        "metadata, data FROM events ORDER BY position"
    ):
        metadata = loads(text)
        boot_id, boot_seconds = metadata["boot"]
        found.append(
            Record(
                position,
                event_id,
                stream,
                topic,
                at,
                (0.0, boot_id, boot_seconds),
                metadata["correlation_id"],
                fields_of(to_event(stream, version, topic, class_version, data)),
            )
        )
    return found


def read_tables(connection: Any) -> Tables:
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        for table in Rows.KEYS
    }


def rebuild(log: list[Record], together: int) -> Tables:
    """The read tables in a store of their own, built from these records, so many at a time."""
    scratch = sqlite.connect(":memory:", isolation_level=None)
    scratch.executescript(schema.READ_MODELS)
    for migration in schema.MIGRATIONS.values():
        scratch.executescript(migration)
    for start in range(0, len(log), together):
        rows = Rows(scratch)
        for record in log[start : start + together]:
            for name, handlers in PROJECTIONS.items():
                if record.topic in handlers:
                    rows.writer = name
                    handlers[record.topic](record, rows)
        for name in rows.writers():
            rows.flush(name)
    tables = read_tables(scratch)
    scratch.close()
    return tables


def assert_replay_equals_live(world: World) -> None:
    """Every table, row for row, event by event and all in one."""
    connection = open_for_reading(world.path)
    live = read_tables(connection)
    log = records(connection)
    connection.close()
    for together in (1, 7, len(log)):
        rebuilt = rebuild(log, together)
        for table in Rows.KEYS:
            assert rebuilt[table] == live[table], table


def test_a_whole_life_is_rebuilt(world: World) -> None:
    """Asked, launched, reported, claimed, returned, gone; with a host that nobody knows."""
    world.start_worker()
    request_id = world.request(5)
    machines = world.run_until_final(request_id)["machines"]
    world.to_give_up(machines)
    world.run(30)
    return_id = world.give_back(
        [*machines, {"machineId": "i-0123456789abcdef0", "name": "stränger"}]
    )
    assert world.run_until_final(return_id)["status"] == "complete"
    assert {row[0] for row in world.query("SELECT status FROM machines")} == {"terminated"}
    assert_replay_equals_live(world)


def live_through(world: World, seed: int) -> None:
    """Twenty minutes at a site where much goes wrong, the same for the same seed."""
    chance = random.Random(seed)
    templates = [{**TEMPLATE, "templateId": name} for name in ("OnDemand-A", "OnDemand-B")]
    world.write_templates(templates)
    requests: list[str] = []
    usable: list[dict[str, Any]] = []

    def ask() -> None:
        requests.append(world.request(chance.randint(1, 9), chance.choice(templates)["templateId"]))

    def give_back() -> None:
        for request_id in requests:
            answer = world.status(request_id)
            if answer["status"] != "running":
                usable.extend(m for m in answer["machines"] if m["result"] == "succeed")
        if usable:
            some = chance.sample(usable, chance.randint(1, min(4, len(usable))))
            world.give_back(some)
            for machine in some:
                usable.remove(machine)

    def lose_some() -> None:
        alive = sorted(world.live())
        if alive:
            world.sandbox.terminate_behind_back([chance.choice(alive)])

    def trouble() -> None:
        kind = chance.choice(["throttle", "e500", "lost_response", "reset_before", "cap"])
        more = {"limit": chance.randint(0, 3)} if kind == "cap" else {}
        world.sandbox.add_fault(kind, action="RunInstances", times=chance.randint(1, 3), **more)

    def restart() -> None:
        if world.workers:
            world.kill(world.workers[0])
        world.start_worker()

    def look() -> None:
        world.to_give_up(usable)

    def set_the_clock() -> None:
        world.clock.step_wall(chance.choice([-3600.0, 3600.0]))

    def retire() -> None:
        world.write_templates(templates[: chance.randint(1, 2)])
        world.run(3)
        world.write_templates(templates)

    steps = [ask, ask, give_back, lose_some, trouble, restart, look, set_the_clock, retire]
    world.start_worker()
    ask()
    for _ in range(25):
        chance.choice(steps)()
        world.run(chance.choice([1.0, 10.0, 40.0]))
    world.sandbox.clear_faults()
    if not world.workers:
        world.start_worker()
    world.run(900, lambda: all(world.status(r)["status"] != "running" for r in requests))


@pytest.mark.parametrize("seed", range(6))
def test_a_random_life_is_rebuilt(make_world: MakeWorld, seed: int) -> None:
    """Faults, kills, losses, clock steps and retired templates: replay equals live all the same,
    and no projection stopped."""
    world = make_world(boot_time=20.0, shutdown_time=15.0, visibility_lag=2.0)
    live_through(world, seed)
    assert world.query("SELECT * FROM projections") == []
    assert len(set(world.topics())) >= 10
    assert_replay_equals_live(world)
    world.run(600)
    world.assert_agreement()


def test_a_cancelled_request_is_rebuilt(world: World) -> None:
    """What arrived is returned and what comes later is surplus, in the replay as well."""
    from application.cancel_request import CancelRequest, cancel_request

    request_id = world.request(4)
    worker = world.start_worker()
    world.run(5)
    store: SqliteEventStore = worker.store
    ids = [row[0] for row in world.query("SELECT machine_id FROM machines")]
    cancel_request(
        CancelRequest(request_id, "awsinst", ids, "not needed", "operator", b"\1" * 16), store
    )
    assert world.run(300, lambda: not world.owned())
    world.assert_agreement()
    assert_replay_equals_live(world)


def test_a_changed_log_is_not_rebuilt_equal(world: World) -> None:
    """The comparison sees a difference when there is one."""
    world.start_worker()
    world.run_until_final(world.request(2))
    connection = open_for_reading(world.path)
    live = read_tables(connection)
    log = records(connection)
    connection.close()
    shorter = [record for record in log if record.topic != "MachineRunning"]
    assert rebuild(shorter, 1)["machines"] != live["machines"]
