"""Every read table can be thrown away and built again from the events, and comes out equal."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from application.json_text import dumps
from application.projections.record import COLUMNS
from domain.brake import EVERYTHING, LAUNCHING, Brake
from infrastructure.event_store import schema
from infrastructure.event_store.commit import Rows
from infrastructure.event_store.digest import chain, digest
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import SCHEMA_VERSION, open_for_reading, sqlite
from infrastructure.read_models.replica import Replica
from infrastructure.read_models.sql_queries import ALL, SqlQueries
from tests.domain.samples import BATCH, OTHER, REQUEST, machine_id
from tests.world import TEMPLATE, WAYS, World

Tables = dict[str, list[tuple[Any, ...]]]

MakeWorld = Callable[..., World]

SCHEMA = schema.LOG + schema.READ_MODELS + schema.NOTEBOOK + "".join(schema.MIGRATIONS.values())


def events_in(path: str) -> list[dict[str, Any]]:
    """The whole log as it is stored."""
    with closing(SqlQueries(open_for_reading(path), path, SCHEMA_VERSION)) as view:
        return view.events_after(0, ALL)


def read_tables(connection: Any) -> Tables:
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        for table in Rows.KEYS
    }


def rebuild(log: list[dict[str, Any]], together: int, written: int = 1) -> Tables:
    """The read tables built anew from these events, so many at a time; after so many parts all is
    written and read again."""
    with closing(Replica("", "test")) as replica:
        for number, start in enumerate(range(0, len(log), together), start=1):
            some = log[start : start + together]
            replica.take([tuple(event[name] for name in COLUMNS) for event in some])
            if number % written == 0:
                replica.write()
                replica._rows.shrink(0)
        replica.write()
        assert replica.failed() == []
        return read_tables(replica.connection)


def assert_replay_equals_live(world: World) -> None:
    """Every table, row for row, event by event and all in one."""
    connection = open_for_reading(world.path)
    live = read_tables(connection)
    connection.close()
    log = events_in(world.path)
    for together, written in ((1, 1), (7, 1), (1, 9), (len(log), 1)):
        rebuilt = rebuild(log, together, written)
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


WEIGHTED = {
    **{key: value for key, value in TEMPLATE.items() if key != "vmType"},
    "templateId": "Spot-B",
    "vmTypes": {"t3.medium": 1, "t3.large": 2},
    "subnetId": "subnet-a1, subnet-b1",
    "priceType": "spot",
    "fulfilmentDeadline": 200,
}


def live_through(world: World, seed: int) -> None:
    """Twenty minutes at a site where much goes wrong, the same for the same seed: two templates,
    one of them of spot machines that count one or two units."""
    chance = random.Random(seed)
    templates = [TEMPLATE, WEIGHTED]
    world.write_templates(templates)
    world.environ["HOSTLEDGER_PROVIDER__AWS__INTERRUPTION_QUEUE"] = world.sandbox.create_queue(
        "notices", events=True
    )
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
        alive = world.sandbox.live_instances({"hostledger:deployment": world.deployment})
        if alive:
            lost = chance.choice(sorted(alive))
            if alive[lost]["lifecycle"] == "spot":
                world.sandbox.interrupt([lost], chance.choice([0.0, 60.0]), chance.choice([0, 20]))
            else:
                world.sandbox.terminate_behind_back([lost])

    def trouble() -> None:
        kind = chance.choice(["throttle", "e500", "lost_response", "reset_before", "cap"])
        more = {"limit": chance.randint(0, 3)} if kind == "cap" else {}
        action = world.action if kind == "cap" else chance.choice(actions)
        world.sandbox.add_fault(kind, action=action, times=chance.randint(1, 3), **more)

    def shortage() -> None:
        world.sandbox.set_capacity(chance.choice([None, 4]), subnet="subnet-a1")

    def brake() -> None:
        store = SqliteEventStore(world.path, world.clock, {"user": "test"})
        aggregate = store.get(Brake, "") or Brake(Brake.stream(""))
        if aggregate.scope:
            aggregate.resume("all is well")
        else:
            aggregate.pause(chance.choice([LAUNCHING, EVERYTHING]), "a test")
        store.save(aggregate, correlation_id="cmd-brake")
        store.close()

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

    actions = [world.action, "ModifyFleet", "ModifySpotFleetRequest", "UpdateAutoScalingGroup"]
    actions += ["CreateLaunchTemplate", "DeleteFleets", "DeleteAutoScalingGroup"]
    steps = [ask, ask, give_back, give_back, lose_some, trouble, shortage, brake, restart, look]
    steps += [set_the_clock, retire]
    world.start_worker()
    ask()
    for _ in range(25):
        chance.choice(steps)()
        world.run(chance.choice([1.0, 10.0, 40.0]))
    world.sandbox.clear_faults()
    world.sandbox.set_capacity(None, subnet="subnet-a1")
    if world.query("SELECT 1 FROM brake WHERE scope <> ''"):
        brake()
    if not world.workers:
        world.start_worker()
    world.run(900, lambda: all(world.status(r)["status"] != "running" for r in requests), step=3.0)


@pytest.mark.parametrize("way", WAYS)
def test_a_random_life_is_rebuilt(make_world: MakeWorld, way: str) -> None:
    """Faults, kills, losses, interruptions, a brake, clock steps and retired templates: replay
    equals live all the same, no projection stopped, and AWS and the ledger agree."""
    world = make_world(way=way, boot_time=20.0, shutdown_time=15.0, visibility_lag=2.0)
    live_through(world, list(WAYS).index(way))
    assert world.query("SELECT * FROM projections") == []
    assert len(set(world.topics())) >= 10
    assert_replay_equals_live(world)
    world.run(600, step=3.0)
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
    connection.close()
    log = events_in(world.path)
    running = next(event for event in log if event["topic"] == "MachineRunning")
    running["data"] = running["data"].replace("ip-", "iq-")
    assert rebuild(log, 1)["machines"] != live["machines"]


# -- the release before ---------------------------------------------------------------------------


GOLDEN = Path(__file__).parents[1] / "golden" / "events"


def as_before(topic: str, version: int, text: str) -> tuple[int, str]:
    """Class version and data of an event as class version 1 wrote it: the fields of its golden
    file."""
    if version == 1:
        return version, text
    golden = json.loads(json.loads((GOLDEN / f"{topic}.v1.json").read_text())["data"])
    data = json.loads(text)
    assert golden.keys() < data.keys() or "instances" in golden
    kept = {name: data[name] for name in golden}
    for instance in kept.get("instances", ()):
        for name in instance.keys() - golden["instances"][0].keys():
            del instance[name]
    return 1, dumps(kept)


def put_back_a_release(world: World) -> None:
    """The store as the release of schema 1 would have written it: its tables, its columns, its
    events. Nobody has it open."""
    gc.collect()
    new = open_for_reading(world.path)
    old = sqlite.connect(world.path + ".1", isolation_level=None)
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript(schema.LOG + schema.READ_MODELS + schema.NOTEBOOK)
    tables = [
        name
        for (name,) in old.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    for table in tables:
        columns = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
        rows = new.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
        marks = ", ".join("?" * len(columns))
        old.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    previous = world.deployment
    for position, *canonical in old.execute(
        "SELECT position, event_id, stream, version, topic, class_version, recorded_at, "
        "metadata, data FROM events ORDER BY position"
    ).fetchall():
        canonical[4], canonical[7] = as_before(canonical[3], canonical[4], canonical[7])
        found = digest(*canonical)
        previous = chain(previous, position, found)
        old.execute(
            "UPDATE events SET class_version = ?, data = ?, digest = ?, chain = ? "
            "WHERE position = ?",
            (canonical[4], canonical[7], found, previous, position),
        )
    inode = Path(world.path + ".1").stat().st_ino
    old.execute("UPDATE store SET inode = ?", (inode,))
    old.execute("PRAGMA user_version = 1")
    old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    old.close()
    new.close()
    for name in ("", "-wal", "-shm", ".lock"):
        Path(world.path + name).unlink(missing_ok=True)
    Path(world.path + ".1").rename(world.path)


def test_a_store_of_the_release_before_is_brought_up_to_date(world: World) -> None:
    """A life that schema 1 recorded: the first read brings the file up to date and answers as
    before; rebuilt equals live; what was in doubt is pursued; its machines are returned."""
    worker = world.start_worker()
    done = world.request(3)
    before = world.run_until_final(done)
    world.sandbox.add_fault("lost_response", action="RunInstances", times=-1)
    doubted = world.request(2)
    world.run(2)
    assert world.query("SELECT state FROM batches WHERE state = 'open'") == [("open",)]
    world.kill(worker)
    world.sandbox.clear_faults()
    put_back_a_release(world)
    connection = sqlite.connect(world.path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert {row[0] for row in connection.execute("SELECT class_version FROM events")} == {1}
    connection.close()

    assert world.status(done) == before
    assert_replay_equals_live(world)

    world.start_worker()
    machines = [*before["machines"], *world.run_until_final(doubted)["machines"]]
    assert len(world.live()) == len(machines) == 5
    assert world.to_give_up(machines) == []
    return_id = world.give_back(machines)
    assert world.run_until_final(return_id)["status"] == "complete"
    assert_replay_equals_live(world)
    world.run(150, step=5.0)
    world.assert_nothing_left()


OLD_LIFE = (
    ("MachinesRequested", REQUEST),
    ("MachinesRequested", OTHER),
    ("LaunchIntended", BATCH),
    ("LaunchAccepted", BATCH),
    ("MachineLaunched", machine_id(1)),
)


def test_the_golden_events_of_the_release_before_are_projected() -> None:
    """First class versions, as they are stored, make rows of today with what they meant then."""
    log = []
    for position, (topic, identifier) in enumerate(OLD_LIFE, start=1):
        form = json.loads((GOLDEN / f"{topic}.v1.json").read_text())
        stream = form["stream"].partition("-")[0] + "-" + identifier
        metadata = dumps({"correlation_id": REQUEST, "boot": ["boot-1", 1.0]})
        values = (
            position, f"{position:032x}", stream, 1, topic, 1,
            "2027-01-15T08:00:00.000000Z", metadata, form["data"], "", "",
        )  # fmt: skip
        log.append(dict(zip(COLUMNS, values, strict=True)))

    tables = rebuild(log, 1)

    assert tables == rebuild(log, len(log))
    machine = dict(zip(columns_of("machines"), tables["machines"][0], strict=True))
    assert (machine["units"], machine["interrupted"], machine["price_type"]) == (1, "", "ondemand")
    batch = dict(zip(columns_of("batches"), tables["batches"][0], strict=True))
    assert (batch["api"], batch["machine_count"], batch["state"]) == ("RunInstances", 3, "accepted")
    requests = [dict(zip(columns_of("requests"), r, strict=True)) for r in tables["requests"]]
    assert [(r["dealt"], r["claimed"], r["rc_account"]) for r in requests] == [
        (2, 0, ""),
        (0, 0, ""),
    ]


def columns_of(table: str) -> list[str]:
    scratch = sqlite.connect(":memory:")
    scratch.executescript(SCHEMA)
    columns = [row[1] for row in scratch.execute(f"PRAGMA table_info({table})")]
    scratch.close()
    return columns
