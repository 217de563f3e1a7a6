"""The SQLite ledger beside the JSON lines: missing, damaged or behind, nothing committed is
unknown, and whoever writes next makes it good."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from application import crash_points
from application.failures import Fenced, StoreError, StoreInert, StoreMissing
from infrastructure.clock import SystemClock
from infrastructure.event_store.json_log import Reader
from infrastructure.event_store.sqlite_setup import NETWORK_FILE_SYSTEMS, refuse_network_file_system
from tests.acceptance.test_scripts import HEAVY, READ, ROOT, SLOW, STORE
from tests.processes import ProcessSite
from tests.stores import Place
from tests.world import World

UNKNOWN = "unknown request"


def place(**settings: Any) -> Place:
    return Place("json", {"strategy": "json", "json_strategy": settings})


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(place=place(), boot_time=20.0, shutdown_time=15.0)


def base(world: World) -> Path:
    return Path(world.site.state_dir, "json")


@pytest.mark.parametrize(
    ("strategy", "file"),
    [("sqlite", "ledger.db"), ("sql", "ledger.db"), ("json", "json/log.jsonl")],
)
def test_the_strategy_says_where_the_ledger_is(
    make_world: Callable[..., World], strategy: str, file: str
) -> None:
    """The commit of a command is in this file, and the other's is not there."""
    world = make_world(place=Place(strategy, {"strategy": strategy}))
    request_id = world.request(1)

    found = [
        path.name
        for path in (Path(world.site.state_dir, name) for name in ("ledger.db", "json/log.jsonl"))
        if path.exists()
    ]
    assert found == [Path(file).name]
    held = b"".join(p.read_bytes() for p in Path(world.site.state_dir).glob(f"{file}*"))
    assert request_id.encode() in held


def ledger(world: World) -> Path:
    return base(world) / "ledger.db"


def lose_ledger(world: World) -> None:
    for path in base(world).glob("ledger.db*"):
        path.unlink()


def logged(world: World) -> list[str]:
    """The streams of the log's events, by the log alone."""
    return [
        event["stream"] for body in Reader(str(base(world))) for event in json.loads(body)["events"]
    ]


@pytest.mark.parametrize(
    "settings",
    [{}, {"storage_type": "split_files", "enable_compression": True, "sync_writes": False}],
    ids=["as it is", "split, compressed, not waiting"],
)
def test_a_whole_cycle(make_world: Callable[..., World], settings: dict[str, Any]) -> None:
    """The five verbs and a worker, machines asked for and given back; then the ledger is lost, and
    made again it says the same."""
    world = make_world(place=place(**settings), boot_time=20.0, shutdown_time=15.0)
    assert world.call("getAvailableTemplates", {})["templates"]
    world.start_worker()
    machines = world.fulfilled(3)
    world.run(10)
    assert world.to_give_up(machines) == []
    world.assert_agreement()
    world.leave_nothing(machines)
    tables = ("requests", "machines", "returned_machines", "batches", "terminations", "commands")
    before = {table: world.query(f"SELECT * FROM {table}") for table in tables}
    (worker,) = world.workers
    assert worker.store.cache_hits > 0  # type: ignore[attr-defined]
    world.kill(worker)
    lose_ledger(world)
    assert {table: world.query(f"SELECT * FROM {table}") for table in tables} == before


# -- behind ----------------------------------------------------------------------------------------


def killed_after_the_line(world: World) -> str:
    """A requestMachines of which the line is in the log and nothing in the ledger; its id."""
    world.request(1)  # the template is recorded with it
    with (
        pytest.raises(crash_points.Crash),
        world.dying_at("commit.MachinesRequested.logged"),
    ):
        world.request(1)
    return next(s for s in reversed(logged(world)) if s.startswith("request-"))[len("request-") :]


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gzip"])
def test_behind_the_log_it_is_running_and_never_unknown(
    make_world: Callable[..., World], gz: bool
) -> None:
    """What the ledger lacks and the log has, a read tells; the next worker works on it."""
    world = make_world(place=place(enable_compression=gz), boot_time=20.0, shutdown_time=15.0)
    request_id = killed_after_the_line(world)
    entry = world.status(request_id)
    assert (entry["status"], entry["message"]) == ("running", "not yet in the read model")
    assert world.status("req-" + "0" * 32)["message"] == UNKNOWN
    world.start_worker()
    assert len(world.run_until_final(request_id)["machines"]) == 1


def test_killed_at_each_point(world: World) -> None:
    """Before the line nothing is recorded; from the line on everything, once."""
    world.request(1)  # the template is recorded with it
    for point, kept in (("before", 0), ("logged", 1), ("after", 1)):
        streams = set(logged(world))
        with (
            pytest.raises(crash_points.Crash),
            world.dying_at(f"commit.MachinesRequested.{point}"),
        ):
            world.request(1)
        new = [s for s in set(logged(world)) - streams if s.startswith("request-")]
        assert len(new) == kept, point
        for stream in new:
            assert world.status(stream.partition("-")[2])["message"] != UNKNOWN
        assert world.query("SELECT count(*) FROM events") == [(len(logged(world)),)]


def test_a_return_is_decided_on_the_whole_log(world: World) -> None:
    """A command catches up before it asks which machines are ours."""
    world.start_worker()
    request_id = world.request(1)
    (worker,) = world.workers
    with world.dying_at("commit.MachinesAssigned.logged"), pytest.raises(crash_points.Crash):
        world.run(100)
    world.kill(worker)
    (stream,) = [stream for stream in logged(world) if stream.startswith("machine-")]
    machine_id = stream.removeprefix("machine-")
    assert world.status(request_id)["machines"] == []
    return_id = world.give_back([{"machineId": machine_id, "name": ""}])
    world.start_worker()
    assert world.run_until_final(return_id)["status"] == "complete"


# -- missing and damaged ---------------------------------------------------------------------------


def damage(world: World) -> None:
    for path in base(world).glob("ledger.db-*"):
        path.unlink()
    ledger(world).write_bytes(b"no database at all " * 500)


@pytest.mark.parametrize("lose", [lose_ledger, damage])
def test_without_a_ledger_nothing_committed_is_unknown(
    world: World, lose: Callable[[World], None]
) -> None:
    """Reads tell `running` of what the log has, wake a worker, and change nothing; the worker makes
    the ledger again and goes on where it was."""
    request_id = world.request(2)
    lose(world)
    files = sorted(p.name for p in base(world).iterdir())
    entry = world.status(request_id)
    assert (entry["status"], entry["message"]) == ("running", "not yet in the read model")
    assert world.status("req-" + "0" * 32)["message"] == UNKNOWN
    assert sorted(p.name for p in base(world).iterdir() if p.name != "seen.jsonl") == [
        name for name in files if name != "seen.jsonl"
    ]
    assert world.storage().read_model().anything_open_or_alive()
    world.start_worker()
    assert len(world.run_until_final(request_id)["machines"]) == 2
    world.assert_agreement()


def test_a_ledger_lost_under_a_worker(world: World) -> None:
    """It sees that it lost its lease, takes it anew and goes on, and nothing doubles."""
    worker = world.start_worker()
    world.fulfilled(2)
    request_id = world.request(2)
    before = worker.lease.held
    lose_ledger(world)
    world.run(5)
    assert list(worker.lease.held.values()) > list(before.values())
    assert len(world.run_until_final(request_id)["machines"]) == 2
    world.assert_agreement()


def test_a_page_that_is_damaged_is_found_at_a_start(world: World) -> None:
    """Where no call would read it: by the check of a worker that starts."""
    for _ in range(30):
        world.request(1)
    world.storage().event_store(world.clock, {}).connection.execute(
        "PRAGMA wal_checkpoint(TRUNCATE)"
    )
    content = bytearray(ledger(world).read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    ledger(world).write_bytes(content)
    world.storage().check()
    assert world.query("PRAGMA quick_check") == [("ok",)]
    assert world.query("SELECT count(*) FROM requests") == [(30,)]


def test_a_log_that_is_gone_is_no_store(world: World) -> None:
    """Whatever the ledger still says."""
    request_id = world.request(1)
    (base(world) / "log.jsonl").unlink()
    for call in (lambda: world.status(request_id), lambda: world.request(1)):
        with pytest.raises(StoreMissing, match="store init"):
            call()


# -- fences and copies -----------------------------------------------------------------------------


def test_fencing_numbers_go_on_higher(world: World) -> None:
    """A worker that was paused while the ledger was lost passes nowhere."""
    storage = world.storage()
    stores = [storage.event_store(world.clock, {}) for _ in range(2)]
    leases = [
        storage.lease(store, "default/us-east-1", "w", "0.1.0", world.clock, 60.0, f"{n}.lock")
        for n, store in enumerate(stores)
    ]
    paused, other = leases
    paused._lock_path, other._lock_path = (str(base(world) / f"lock-{n}") for n in "ab")
    assert paused.acquire()
    stores[0].append([], tracking=("policy", 1), fence=paused.fence)
    lose_ledger(world)
    assert other.acquire()
    assert other.number > paused.number
    assert other.since_another() == 0.0
    assert not paused.renew()
    with pytest.raises(Fenced):
        stores[0].append([], tracking=("policy", 2), fence=paused.fence)
    stores[1].append([], tracking=("policy", 2), fence=other.fence)
    for lease in leases:
        lease._unlock()
    for store in stores:
        store.close()


def test_a_copy_lives_when_it_is_activated(world: World, tmp_path: Path) -> None:
    """Inert before, for reads and writes; then with a higher incarnation, an empty notebook, higher
    fencing numbers, and the original untouched."""
    world.start_worker()
    world.fulfilled(1)
    (worker,) = world.workers
    copy = tmp_path / "copy"
    shutil.copytree(base(world), copy)
    before = (base(world) / "log.jsonl").read_bytes()
    storage = place(base_path=str(copy)).storage(str(tmp_path))
    for look in (storage.read_model, storage.log, lambda: storage.event_store(world.clock, {})):
        with pytest.raises(StoreInert, match="store activate"):
            look()
    view = storage.any_store()
    assert "is a copy" in view.inert
    assert view.facts()["deployment"] == world.deployment
    view.close()
    assert storage.activate(world.clock, {}, "the original burnt") == 2
    store = storage.event_store(world.clock, {})
    assert store.incarnation == 2
    assert store.connection.execute("SELECT count(*) FROM sweeps").fetchone() == (0,)
    assert store.last_fence() >= max(worker.lease.held.values())  # type: ignore[attr-defined]
    store.close()
    assert (base(world) / "log.jsonl").read_bytes() == before


def test_an_older_log_in_its_place_is_inert(world: World) -> None:
    """A backup put over the living log keeps its inode: the note beside it tells."""
    log = base(world) / "log.jsonl"
    old = log.read_bytes()
    world.request(1)
    new = log.read_bytes()
    log.write_bytes(old)
    lose_ledger(world)
    with pytest.raises(StoreInert, match="older copy"):
        world.request(1)
    assert log.read_bytes() == old
    assert world.storage().activate(world.clock, {}, "restored") == 2
    world.request(1)
    # The same with half a line at its end, and the ledger that has read all of it.
    log.write_bytes(new[: len(old) + 100])
    with pytest.raises(StoreError, match="compare it with a backup"):
        world.request(1)
    assert world.storage().activate(world.clock, {}, "restored") == 2
    world.request(1)


def test_it_is_made_once_and_on_a_local_disk(world: World, tmp_path: Path) -> None:
    """A second one is refused; so is a network file system, by our key."""
    before = (base(world) / "log.jsonl").read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        world.storage().create(world.clock, {}, "0.1.0")
    assert (base(world) / "log.jsonl").read_bytes() == before
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} {min(NETWORK_FILE_SYSTEMS)} rw 0 0\n")
    with pytest.raises(StoreError, match=r"json_strategy\.base_path to a local directory"):
        refuse_network_file_system(
            f"{tmp_path}/log.jsonl", str(mounts), "storage.json_strategy.base_path"
        )


def test_user_data_outlives_the_ledger(world: World) -> None:
    """It comes back from the files beside the log."""
    storage = world.storage()
    store = storage.event_store(world.clock, {})
    store.append([], bodies={"ab" * 32: b"#!/bin/sh"}, tracking=("policy", 1))
    store.close()
    lose_ledger(world)
    store = storage.event_store(world.clock, {})
    assert storage.work(store, "default", "us-east-1").body("ab" * 32) == b"#!/bin/sh"
    store.close()


def test_a_rehearsal_leaves_the_store_alone(world: World, tmp_path: Path) -> None:
    """Its copy is a living SQLite store with all events."""
    world.request(1)
    before = (base(world) / "log.jsonl").read_bytes()
    copy = world.storage().rehearse(str(tmp_path))
    copied = Place("sqlite", {"sqlite_strategy": {"path": copy}}).storage(str(tmp_path))
    store = copied.event_store(world.clock, {})
    assert store.connection.execute("SELECT count(*) FROM events").fetchone()[0] == len(
        logged(world)
    )
    store.close()
    assert (base(world) / "log.jsonl").read_bytes() == before


# -- what a read imports ---------------------------------------------------------------------------

OURS = (READ | STORE) | {
    "infrastructure.sightings",
    "infrastructure.event_store.json_log",
    "infrastructure.read_models.json_lines",
    "infrastructure.storage.json_files",
    "domain",
    "domain.identifiers",
}


def test_a_read_imports_little_more_than_on_sqlite(tmp_path: Path) -> None:
    """No library, no slow module, and of ours exactly these."""
    kept = place()
    site = ProcessSite(
        tmp_path, settings={"HOSTLEDGER_WORKER__MODE": "external", **kept.variables()}, store=False
    )
    site.state.mkdir(mode=0o700)
    kept.storage(f"{tmp_path}/work").create(SystemClock(), {"user": "test"}, "0.1.0")
    request_id = "req-" + "0" * 32
    site.status_of(request_id)  # compiles the configuration
    (line,) = re.findall(
        r"^executable = (.*)$", (ROOT / ".venv/pyvenv.cfg").read_text(), re.MULTILINE
    ) or [sys.executable]
    done = subprocess.run(
        [
            *(line, "-I", "-S", "-X", "importtime"),
            *(f"{ROOT}/interfaces/hostfactory/main.py", sys.executable, "getRequestStatus"),
            *("-f", site.input({"requests": [{"requestId": request_id}]})),
        ],
        env=site.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["requests"][0]["message"] == UNKNOWN
    modules = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines()[1:]}
    tops = {module.split(".")[0] for module in modules}
    assert not tops & set(HEAVY)
    assert not tops & SLOW
    ours = {"application", "domain", "infrastructure", "interfaces"}
    assert {m for m in modules if m.split(".")[0] in ours} == OURS
