"""A history goes from any store to any other as it is, and goes on in exactly one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from application.copy_store import copy_store
from application.failures import StoreElsewhere, StoreError, StoreInert
from application.projections.record import COLUMNS
from domain.machine_request import MachineRequest
from tests.fakes.clock import FakeClock
from tests.processes import ProcessSite
from tests.stores import STORES, Place

if TYPE_CHECKING:
    from infrastructure.storage import Storage

EVERY_STORE = STORES
ACTOR = {"user": "test", "provider": "awsinst", "process": "mover"}
ROOT = Path(__file__).parents[2]


def request(name: str) -> MachineRequest:
    return MachineRequest.ask(f"req-{name}", "awsinst", "T", "4f53", 1, 300.0, "hostfactory")


def fill(storage: Storage, clock: FakeClock, count: int) -> None:
    with closing(storage.event_store(clock, ACTOR)) as store:
        for number in range(count):
            store.save(
                request(str(number)),
                command=(f"cmd-{number}", f"req-{number}"),
                tracking=("policy", number + 1),
                bodies={f"d{number % 3}": bytes([number % 3]) * 100},
            )


def log_of(storage: Storage) -> list[tuple[Any, ...]]:
    with closing(storage.any_store()) as view:
        return [tuple(event[c] for c in COLUMNS) for event in view.events_after(0, 100_000)]


def copied(source: Storage, target: Storage, clock: FakeClock, **options: Any) -> Any:
    with (
        closing(source.source()) as view,
        closing(target.begin_copy(view.identity()[0], clock, ACTOR)) as into,
    ):
        return copy_store(view, into, **options)


@pytest.mark.parametrize("target_kind", STORES)
def test_a_copy_is_the_same_bytes_and_inert_until_it_is_activated(
    store_kind: str, target_kind: str, new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """Positions, ids, digests and the chain; answers to commands, tracking, user data; the read
    rows are built anew. The source lives on."""
    clock = FakeClock()
    source = new_place(store_kind).storage(f"{tmp_path}/one")
    target = new_place(target_kind).storage(f"{tmp_path}/other")
    deployment = source.create(clock, ACTOR, "0.1.0")
    fill(source, clock, 25)

    done = copied(source, target, clock)

    assert (done.found, done.taken, done.position) == (0, 26, 26)
    assert log_of(target) == log_of(source)
    for look in (target.read_model, lambda: target.event_store(clock, ACTOR)):
        with pytest.raises(StoreInert, match="store activate"):
            look()
    fill_more = request("more")
    with closing(source.event_store(clock, ACTOR)) as store:
        store.save(fill_more)
    again = copied(source, target, clock)
    assert (again.found, again.taken) == (26, 1)
    assert target.activate(clock, ACTOR, "a drill") == 2
    with closing(target.event_store(clock, ACTOR)) as store:
        assert (store.deployment, store.incarnation) == (deployment, 2)
        assert store.command_result("cmd-7") == "req-7"
        assert store.get(MachineRequest, "req-24") is not None
        assert target.work(store, "default", "us-east-1").body("d2") == bytes([2]) * 100
    with closing(target.queries()) as view:
        assert len(view.requests(None, False, None)) == 26
        assert ("policy", 25) in view.tracked()
    with pytest.raises(StoreError, match="lives already"):
        copied(source, target, clock)


def test_two_deployments_are_not_mixed(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """A copy goes on only in a copy of the same deployment."""
    clock = FakeClock()
    one, other = (new_place("sqlite").storage(f"{tmp_path}/{n}") for n in ("one", "other"))
    target = new_place(store_kind).storage(f"{tmp_path}/target")
    for storage in (one, other):
        storage.create(clock, ACTOR, "0.1.0")
        fill(storage, clock, 2)
    copied(one, target, clock)
    with pytest.raises(StoreError, match="another deployment"):
        copied(other, target, clock)


def test_a_changed_event_is_not_taken_over(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """It is named, and what came before it is there."""
    clock = FakeClock()
    source = new_place("sqlite").storage(f"{tmp_path}/one")
    target = new_place(store_kind).storage(f"{tmp_path}/other")
    source.create(clock, ACTOR, "0.1.0")
    fill(source, clock, 5)
    with closing(source.event_store(clock, ACTOR)) as store:
        store.connection.execute("UPDATE events SET topic = 'MachineLost' WHERE position = 4")
    with pytest.raises(StoreError, match="event 4 of the source"):
        copied(source, target, clock)


def test_a_sealed_store_records_nothing_more(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """Its last event says where the history goes on, and so does whoever opens it or has it
    open."""
    clock = FakeClock()
    storage = new_place(store_kind).storage(str(tmp_path))
    storage.create(clock, ACTOR, "0.1.0")
    with closing(storage.event_store(clock, ACTOR)) as store:
        store.save(request("a"))
        storage.seal(clock, ACTOR, "sqlite:/elsewhere", "grown")
        with pytest.raises(StoreElsewhere, match="sqlite:/elsewhere"):
            store.save(request("b"))
        with pytest.raises(StoreElsewhere):
            store.refuse_failed_projections()
    for look in (storage.read_model, lambda: storage.event_store(clock, ACTOR)):
        with pytest.raises(StoreElsewhere, match=r"storage\.url"):
            look()
    storage.seal(clock, ACTOR, "sqlite:/elsewhere", "grown")  # killed, and begun again
    with pytest.raises(StoreElsewhere):
        storage.seal(clock, ACTOR, "sqlite:/another", "grown")
    assert [event[4] for event in log_of(storage)][1:] == ["MachinesRequested", "StoreMoved"]


MOVED_UNDER_WRITERS = """
import json, os, sys, time, traceback
from contextlib import closing
from application.copy_store import move_store
from application.failures import StoreError
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from infrastructure.event_store import dynamodb_client
from tests.stores import Place
places, dirs = json.loads(sys.argv[1]), json.loads(sys.argv[2])
clock, actor, mover = SystemClock(), {"process": "mover"}, os.getpid()

def storages():
    return [Place(*place).storage(directory) for place, directory in zip(places, dirs)]

def write(name, source, target):
    answered, number, live = [], 0, 0
    while len(answered) < 400 and os.getppid() == mover:
        request_id = f"req-{name}-{number}"
        request = MachineRequest.ask(request_id, "awsinst", "T", "4f53", 1, 300.0, "hostfactory")
        try:
            store = (source, target)[live].event_store(clock, {"process": name})
            try:
                store.save(request, command=("cmd-" + request_id, request_id))
            finally:
                store.close()
        except StoreError as error:
            if not live and "was moved" in str(error):
                live = 1
            continue
        answered.append([live, request_id])
        number += 1
        if live and len([a for a in answered if a[0]]) >= 5:
            break
    return answered

# Each process would import this anew; no connection is left open that they could share.
for storage in storages():
    try:
        storage.event_store(clock, actor).close()
    except StoreError:
        pass  # there is none yet
    storage = None
for client in dynamodb_client._clients.values():
    client.close()
dynamodb_client._clients.clear()

answers = []
for number in range(8):
    answer, told = os.pipe()
    if os.fork() == 0:
        try:
            os.write(told, json.dumps(write(f"w{number}", *storages())).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(told)
    answers.append(os.fdopen(answer))

source, target = storages()
written, give_up = 0, time.monotonic() + 60
while written < 50 and time.monotonic() < give_up:
    time.sleep(0.02)  # who looks without a pause takes a core from the writers
    with closing(source.any_store()) as view:
        written = len(list(view.events_after(0, 50)))
with closing(source.source()) as view:
    with closing(target.begin_copy(view.identity()[0], clock, actor)) as into:
        done = move_store(
            view, into, lambda: source.seal(clock, actor, target.place, "grown"))
target.activate(clock, actor, "grown")
told = [answered for answer in answers for answered in json.loads(answer.read())]
assert [os.wait()[1] for _ in answers] == [0] * len(answers)
print(json.dumps([done.found, done.taken, told]))
"""
"""One process that becomes nine: eight are forked and write, while the first moves the store."""


def test_moved_under_eight_writers(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """Every command that was answered is in exactly one living store; none is lost, none twice."""
    clock = FakeClock()
    places = [new_place("sqlite"), new_place(store_kind)]
    dirs = [f"{tmp_path}/one", f"{tmp_path}/other"]
    source, target = (p.storage(d) for p, d in zip(places, dirs, strict=True))
    source.create(clock, ACTOR, "0.1.0")
    told = [json.dumps([[p.kind, p.settings] for p in places]), json.dumps(dirs)]

    moved = subprocess.run(
        [sys.executable, "-c", MOVED_UNDER_WRITERS, *told],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )

    found, taken, answers = json.loads(moved.stdout)
    log = log_of(target)
    recorded = [event[2] for event in log if event[4] == "MachinesRequested"]
    assert sorted(recorded) == sorted(f"request-{request_id}" for _, request_id in answers)
    before = [f"request-{request_id}" for live, request_id in answers if not live]
    old = log_of(source)
    assert old == log[: len(old)]
    assert sorted(e[2] for e in old if e[4] == "MachinesRequested") == sorted(before)
    assert old[-1][4] == "StoreMoved"
    assert log[len(old)][4] == "StoreActivated"
    assert (found, taken) == (0, len(old))
    assert {live for live, _ in answers} == {0, 1}


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_killed_copy_goes_on_where_it_ended(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Path, percent: int
) -> None:
    """No event is taken over twice: counted."""
    clock = FakeClock()
    source = new_place("sqlite").storage(f"{tmp_path}/one")
    target = new_place(store_kind).storage(f"{tmp_path}/other")
    source.create(clock, ACTOR, "0.1.0")
    with closing(source.event_store(clock, ACTOR)) as store:
        for start in range(0, 3000, 100):
            store.save(*(request(str(number)) for number in range(start, start + 100)))

    class Killed(BaseException):
        pass

    def die(done: int, of: int) -> None:
        if 100 * done >= percent * of:
            raise Killed

    with pytest.raises(Killed):
        copied(source, target, clock, progress=die, batch=150)
    done = copied(source, target, clock, batch=150)
    assert done.found >= 3001 * percent // 100
    assert done.found + done.taken == 3001
    assert log_of(target) == log_of(source)


def test_a_copy_that_kill_9_ends_three_times(
    new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """`store copy` as a process, killed before the commit that would pass 10, 50 and 90 %: what it
    has done is not done again."""
    clock = FakeClock()
    source = new_place("sqlite").storage(f"{tmp_path}/one")
    source.create(clock, ACTOR, "0.1.0")
    with closing(source.event_store(clock, ACTOR)) as store:
        for start in range(0, 9999, 303):
            store.save(*(request(str(number)) for number in range(start, start + 303)))
    site = ProcessSite(tmp_path / "site", store=False)
    url = f"json:{tmp_path}/copy"

    def copy(crash_at: str = "") -> subprocess.CompletedProcess[str]:
        command = ["store", "copy", "--from", f"sqlite:{source.path}", "--to", url]  # type: ignore[attr-defined]
        return subprocess.run(
            [sys.executable, "-m", "interfaces.cli.main", *command, "--output", "json"],
            cwd=ROOT,
            env={**site.environ, "HOSTLEDGER_CRASH_AT": crash_at},
            capture_output=True,
            text=True,
        )

    done = 0
    for there in (1000, 5000, 9000):
        killed = copy(f"commit.copy.before#{(there - done) // 1000 + 1}")
        assert killed.returncode == -9, killed.stderr
        done = there
    last = copy()
    assert last.returncode == 0, last.stderr
    document = json.loads(last.stdout)
    assert (document["found"], document["taken"], document["position"]) == (9000, 1000, 10_000)
    assert log_of(Place("json", {"url": url}).storage(f"{tmp_path}/site")) == log_of(source)
