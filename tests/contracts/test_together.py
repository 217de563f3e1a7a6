"""What commands that share a commit are promised: each its own answer, once it is on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application import crash_points
from application.command_queue import CommandQueue
from application.failures import Conflict, ProjectionFailed, StoreElsewhere, StoreError, StoreInert
from application.projections.record import COLUMNS
from domain.machine_request import MachineRequest
from domain.refusals import Refusal
from infrastructure.event_store.commit import is_damaged, outcome_of
from tests.fakes.clock import FakeClock
from tests.stores import STORES, Place, at_crash_point

if TYPE_CHECKING:
    from infrastructure.storage import Storage

EVERY_STORE = STORES
SHARING = ("sqlite", "sql", "postgresql")
"""Stores in which several commands are one transaction."""

ROOT = Path(__file__).parents[2]
ACTOR = {"user": "test", "provider": "awsinst", "process": "contract"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def place(store_kind: str, new_place: Callable[[str], Place]) -> Place:
    return new_place(store_kind)


@pytest.fixture
def storage(place: Place, tmp_path: Path, clock: FakeClock) -> Storage:
    """A store that has just been made."""
    storage = place.storage(str(tmp_path))
    storage.create(clock, ACTOR, "0.1.0")
    return storage


@pytest.fixture
def store(storage: Storage, clock: FakeClock) -> Iterator[Any]:
    with closing(storage.event_store(clock, ACTOR)) as store:
        yield store


@pytest.fixture
def queue(storage: Storage, clock: FakeClock) -> Iterator[CommandQueue[Any]]:
    with closing(queue_of(storage, clock)) as queue:
        yield queue


def queue_of(storage: Storage, clock: Any) -> CommandQueue[Any]:
    def open_store() -> tuple[Any, Any]:
        store = storage.event_store(clock, ACTOR)
        return store, store

    return CommandQueue(open_store)


def request(name: str, machines: int = 1) -> MachineRequest:
    return MachineRequest.ask(f"req-{name}", "awsinst", "T", "4f53", machines, 300.0, "rest")


def asking(store: Any, name: str, command_id: str = "") -> Callable[[], str]:
    """RequestMachines: the request's id."""

    def work() -> str:
        command = (command_id or f"cmd-{name}", f"req-{name}")
        store.save(request(name), correlation_id=f"cor-{name}", command=command)
        return f"req-{name}"

    return work


def cancelling(store: Any, name: str) -> Callable[[], str]:
    """CancelRequest: refused for one that is final or not known."""

    def work() -> str:
        found = store.get(MachineRequest, f"req-{name}")
        found.cancel("no longer needed")
        store.save(found, correlation_id=f"cancel-{name}")
        return "cancelled"

    return work


def log_of(storage: Storage) -> list[tuple[Any, ...]]:
    with closing(storage.log()) as view:
        return [tuple(event[c] for c in COLUMNS) for event in view.last_events(100_000, None)]


def rows_of(storage: Storage) -> list[tuple[Any, ...]]:
    with closing(storage.queries()) as view:
        return [tuple(row.values()) for row in view.requests(None, False, None)]


def refuse_damage(log: list[tuple[Any, ...]], deployment: str) -> None:
    """Positions have no gap, and the chain binds all of them."""
    assert [event[0] for event in log] == list(range(1, len(log) + 1))
    before = deployment
    for event in log:
        assert not is_damaged(event, before)
        before = event[10]


def test_each_has_its_own_answer_and_one_that_is_refused_keeps_none_back(
    storage: Storage, store: Any
) -> None:
    """Who comes later sees what came before in the same commit; one log, in the order given."""
    outcomes = store.together(
        [
            asking(store, "a"),
            cancelling(store, "unknown"),
            asking(store, "b"),
            cancelling(store, "a"),
            cancelling(store, "a"),
            asking(store, "c"),
        ]
    )

    assert [outcomes[n] for n in (0, 2, 3, 5)] == ["req-a", "req-b", "cancelled", "req-c"]
    assert isinstance(outcomes[1], AttributeError)  # whatever it raises
    assert isinstance(outcomes[4], Refusal)
    log = log_of(storage)
    refuse_damage(log, store.deployment)
    assert [event[2:5] for event in log[1:]] == [
        ("request-req-a", 1, "MachinesRequested"),
        ("request-req-b", 1, "MachinesRequested"),
        ("request-req-a", 2, "RequestCancelled"),
        ("request-req-c", 1, "MachinesRequested"),
    ]
    assert {row[0] for row in rows_of(storage)} == {"req-a", "req-b", "req-c"}
    assert store.get(MachineRequest, "req-a").version == 2
    store.save(request("d"))
    refuse_damage(log_of(storage), store.deployment)


def test_a_conflict_takes_back_its_own_writes_alone(storage: Storage, store: Any) -> None:
    """Of all its streams, however many events it has, wherever it is in the group."""
    store.save(request("taken"))

    def conflicting(count: int) -> Callable[[], None]:
        def work() -> None:
            new = [request(f"lost-{count}-{number}") for number in range(count)]
            store.save(*new, request("taken"), command=(f"cmd-lost-{count}", ""))

        return work

    outcomes = store.together(
        [conflicting(1), asking(store, "a"), conflicting(12), asking(store, "b"), conflicting(3)]
    )

    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [True, False] * 2 + [True]
    log = log_of(storage)
    refuse_damage(log, store.deployment)
    assert [event[2] for event in log[1:]] == [
        "request-req-taken", "request-req-a", "request-req-b",
    ]  # fmt: skip
    assert {row[0] for row in rows_of(storage)} == {"req-taken", "req-a", "req-b"}
    assert store.command_result("cmd-lost-12") is None
    with closing(storage.event_store(FakeClock(), ACTOR)) as other:
        assert other.get(MachineRequest, "req-b") is not None


def test_the_same_command_twice_gives_one_result(storage: Storage, store: Any) -> None:
    """In one group: the second conflicts, and finds what the first was answered."""
    outcomes = store.together(
        [
            asking(store, "a", "cmd-1"),
            asking(store, "b", "cmd-1"),
            lambda: store.command_result("cmd-1"),
            asking(store, "c"),
        ]
    )
    assert outcomes[0] == outcomes[2] == "req-a"
    assert isinstance(outcomes[1], Conflict)
    log = log_of(storage)
    refuse_damage(log, store.deployment)
    assert [event[2] for event in log[1:]] == ["request-req-a", "request-req-c"]
    with closing(storage.event_store(FakeClock(), ACTOR)) as other:
        assert other.command_result("cmd-c") == "req-c"


def test_who_conflicts_may_look_and_save_again(storage: Storage, store: Any) -> None:
    """Within its turn, as a command does that was carried out before."""
    store.save(request("a"))

    def stubborn() -> str:
        try:
            store.save(request("a"), correlation_id="first")
        except Conflict:
            found = store.get(MachineRequest, "req-a")
            found.cancel("so be it")
            store.save(found, correlation_id="second")
        return "done"

    assert store.together([asking(store, "b"), stubborn, asking(store, "c")])[1] == "done"
    log = log_of(storage)
    refuse_damage(log, store.deployment)
    assert [event[2:4] for event in log[2:]] == [
        ("request-req-b", 1), ("request-req-a", 2), ("request-req-c", 1),
    ]  # fmt: skip


def test_what_changes_nothing_is_no_news(storage: Storage, store: Any, clock: FakeClock) -> None:
    """A group of which all were refused or only looked wakes no worker."""
    worker = storage.event_store(clock, ACTOR)
    before = worker.changes()
    store.together([cancelling(store, "unknown"), lambda: store.command_result("cmd-1")])
    assert worker.changes() == before
    store.together([asking(store, "a"), cancelling(store, "unknown")])
    assert worker.changes() != before
    worker.close()


def test_a_failed_projection_stops_alone_and_stays_where_it_stopped(
    storage: Storage, store: Any, store_kind: str
) -> None:
    """The events of the group are kept, also those after it; who decides on rows is refused."""
    store.save(request("a"))
    broken = {"machine_ids": ["i-1"], "batch_id": "bat-1", "units": 1}

    def assigning() -> None:
        record = ("request-req-none", 1, "MachinesAssigned", 1, json.dumps(broken), broken)
        store.append([record])

    outcomes = store.together(
        [
            asking(store, "b"),
            assigning,
            asking(store, "c"),
            store.refuse_failed_projections,
            asking(store, "d"),
        ]
    )

    assert [o for o in outcomes if isinstance(o, str)] == ["req-b", "req-c", "req-d"]
    assert isinstance(outcomes[3], ProjectionFailed)
    log = log_of(storage)
    refuse_damage(log, store.deployment)
    assert len(log) == 6
    with closing(storage.log()) as view:
        failed = {row["name"]: row["failed_at"] for row in view.projections() if row["failed_at"]}
        rows = {row["request_id"] for row in view.requests(None, False, None)}
    assert failed["requests"] == 4
    # The rows that DynamoDB's mirror has of it are no use until it is rebuilt.
    assert rows == (set() if store_kind == "dynamodb" else {"req-a", "req-b"})


def test_nothing_is_recorded_in_a_store_that_was_moved(
    storage: Storage, store: Any, clock: FakeClock
) -> None:
    """Each is told where it went on."""
    storage.seal(clock, ACTOR, "sqlite:/elsewhere", "a drill")
    before = len(log_of_any(storage))
    outcomes = store.together([asking(store, "a"), asking(store, "b")])
    assert [type(outcome) for outcome in outcomes] == [StoreElsewhere] * 2
    assert len(log_of_any(storage)) == before


def log_of_any(storage: Storage) -> list[Any]:
    with closing(storage.any_store()) as view:
        return view.records_after(0, 100_000)


@pytest.mark.stores(*SHARING)
@pytest.mark.parametrize("side", ["before", "after"])
def test_cut_at_the_shared_commit(
    storage: Storage, store: Any, clock: FakeClock, side: str
) -> None:
    """All of it or nothing, and nobody was answered."""

    def die(name: str) -> None:
        raise crash_points.Crash(name)

    with at_crash_point(f"commit.together.{side}", die), pytest.raises(crash_points.Crash):
        store.together([asking(store, "a"), asking(store, "b")])

    log = log_of(storage)
    assert len(log) == (1 if side == "before" else 3)
    refuse_damage(log, store.deployment)
    store.save(request("c"))
    assert store.together([asking(store, "d")]) == ["req-d"]
    refuse_damage(log_of(storage), store.deployment)


@pytest.mark.stores("sqlite", "sql")
def test_a_disk_that_is_full_in_the_middle_fails_all(
    storage: Storage, store: Any, queue: CommandQueue[Any]
) -> None:
    """Each is told that nothing was recorded, also who was done before; the next ones are not
    kept waiting."""

    def fill(store: Any) -> None:
        (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        store.save(*[request(f"big-{number}") for number in range(200)])

    def make_room(store: Any) -> None:
        store.connection.execute("PRAGMA max_page_count = 1000000")

    with held_up(queue):
        futures = [
            queue.submit(lambda store: asking(store, "a")()),
            queue.submit(fill),
            queue.submit(lambda store: asking(store, "b")()),
        ]
    for future in futures:
        error = future.exception(60)
        assert isinstance(error, StoreError)
        assert "full" in str(error)
        assert "nothing was recorded" in str(error)
    assert len(log_of(storage)) == 1
    queue.submit(make_room).result(60)
    assert queue.submit(lambda store: asking(store, "a")()).result(60) == "req-a"
    refuse_damage(log_of(storage), store.deployment)


# -- the law ---------------------------------------------------------------------------------------

NAMES = st.sampled_from(("a", "b", "c"))
COMMANDS = st.one_of(
    st.tuples(st.just("ask"), NAMES, NAMES),
    st.tuples(st.just("cancel"), NAMES, st.none()),
    st.tuples(st.just("ask many"), NAMES, st.integers(1, 12)),
    st.tuples(st.just("follow"), NAMES, st.integers(1, 3)),
    st.tuples(st.just("ask and cancel"), NAMES, NAMES),
)


def carried_out(store: Any, own: str, command: tuple[str, Any, Any]) -> Any:
    """A command's answer, or the kind of its refusal."""
    kind, name, more = command
    name = own + name
    match kind:
        case "ask":
            return asking(store, name, f"key-{own}{more}")()
        case "cancel":
            return cancelling(store, name)()
        case "ask many":
            many = [request(f"{name}{number}" if number else name) for number in range(more)]
            return len(store.save(*many, correlation_id=f"many-{name}"))
        case "follow":
            return len(store.save(request(f"{name}-{more}"), tracking=(name, more)))
        case "ask and cancel":
            asking(store, name, f"key-{name}-{more}")()
            return cancelling(store, own + more)()
    raise AssertionError(kind)


def told(outcome: Any) -> Any:
    return type(outcome) if isinstance(outcome, Exception) else outcome


def history(storage: Storage) -> list[Any]:
    """What two stores must have alike: ids and times apart, and what hangs on them."""
    log = log_of(storage)
    with closing(storage.log()) as view:
        refuse_damage(log, view.identity()[0])
    events = [
        (*event[:1], *event[2:6], json.loads(event[7])["correlation_id"], event[8])
        for event in log[1:]
    ]
    with closing(storage.queries()) as view:
        rows = str(list(view.rows_of("requests")))
    for event in log:
        rows = rows.replace(event[1], f"event-{event[0]}")
    return [events, rows]


@pytest.fixture
def pair(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Path
) -> Iterator[list[tuple[Storage, Any]]]:
    """Two stores alike, and each open: one for commands by themselves, one for groups."""
    clock = FakeClock()
    with ExitStack() as stack:
        opened = []
        for name in ("alone", "together"):
            storage = new_place(store_kind).storage(f"{tmp_path}/{name}")
            os.makedirs(f"{tmp_path}/{name}/hostledger")
            storage.create(clock, ACTOR, "0.1.0")
            store = stack.enter_context(closing(storage.event_store(clock, ACTOR)))
            opened.append((storage, store))
        yield opened


@pytest.mark.stores("sqlite", "postgresql")
@settings(max_examples=25)
@given(groups=st.lists(st.lists(COMMANDS, max_size=6), max_size=5))
def test_any_grouping_gives_the_same_log_as_one_by_one(
    pair: list[tuple[Storage, Any]], groups: list[list[tuple[Any, ...]]]
) -> None:
    """The same answers too, and the same rows."""
    (alone, one), (shared, other) = pair
    own = f"{one.end()[0]}-"  # names that no example before this one has used
    answers: list[list[Any]] = [[], []]
    for group in groups:
        works = [[partial(carried_out, store, own, c) for c in group] for store in (one, other)]
        answers[0] += map(told, map(outcome_of, works[0]))
        answers[1] += map(told, other.together(works[1]))
    assert answers[0] == answers[1]
    assert history(alone) == history(shared)


# -- the shared commit -----------------------------------------------------------------------------


@contextmanager
def held_up(queue: CommandQueue[Any]) -> Iterator[None]:
    """What is submitted within shares the next commit."""
    began, gate = Event(), Event()

    def hold_up(store: Any) -> None:
        began.set()
        assert gate.wait(60)

    queue.submit(hold_up)
    assert began.wait(60)
    try:
        yield
    finally:
        gate.set()


@pytest.mark.stores(*SHARING)
@pytest.mark.parametrize("point", ["commit.together.before#2", "commit.together.after#2"])
def test_nobody_is_answered_before_the_commit(
    storage: Storage, queue: CommandQueue[Any], point: str
) -> None:
    """Nor sees anybody else what is not committed."""
    seen = []

    def look(name: str) -> None:
        seen.append(([future.done() for future in futures], len(log_of(storage))))

    with at_crash_point(point, look):
        with held_up(queue):
            futures = [
                queue.submit(lambda store: asking(store, "a")()),
                queue.submit(lambda store: asking(store, "b")()),
                queue.submit(lambda store: cancelling(store, "a")()),
            ]
        assert [future.result(60) for future in futures] == ["req-a", "req-b", "cancelled"]
    assert seen == [([False] * 3, 1 if "before" in point else 4)]


@pytest.mark.stores(*SHARING)
def test_a_commit_that_fails_fails_all(
    storage: Storage, store: Any, queue: CommandQueue[Any], place: Place
) -> None:
    """Nothing is recorded, each is told so, refused or not; the next group is carried out."""

    def fail(name: str) -> None:
        if place.kind == "postgresql":
            end_others_transactions(place.settings["url"])
        else:
            opened[0].connection.execute("ROLLBACK")

    opened: list[Any] = []
    queue.submit(opened.append).result(60)
    with at_crash_point("commit.together.before#2", fail):
        with held_up(queue):
            futures = [
                queue.submit(lambda store: asking(store, "a")()),
                queue.submit(lambda store: asking(store, "b")()),
                queue.submit(lambda store: cancelling(store, "unknown")()),
            ]
        errors = [future.exception(60) for future in futures]
    assert [type(error) for error in errors] == [StoreError] * 3
    assert all("nothing was recorded" in str(error) for error in errors)
    assert len(log_of(storage)) == 1
    assert queue.submit(lambda store: asking(store, "a")()).result(60) == "req-a"
    log = log_of(storage)
    assert [event[2] for event in log] == ["deployment", "request-req-a"]
    refuse_damage(log, store.deployment)


def end_others_transactions(url: str) -> None:
    import psycopg2

    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        )


# -- the queue -------------------------------------------------------------------------------------


def test_callers_in_threads_are_each_answered_what_is_recorded(
    storage: Storage, queue: CommandQueue[Any]
) -> None:
    """On behalf of whom it was asked, in the order of each caller; nothing is lost or doubled."""
    told: dict[str, Any] = {}

    def call(caller: str) -> None:
        for number in range(12):
            name = f"{caller}-{number}"

            def command(store: Any, name: str = name) -> str:
                return asking(store, name)()

            future = queue.submit(command, caller if number % 2 else "")
            told[name] = future.result(60)
            twice = queue.submit(command, caller)
            assert isinstance(twice.exception(60), Conflict)

    callers = [Thread(target=call, args=(f"c{number}",)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    log = log_of(storage)
    assert len(told) == 48
    assert sorted(f"request-{answer}" for answer in told.values()) == sorted(e[2] for e in log[1:])
    for event in log[1:]:
        caller, number = event[2].removeprefix("request-req-").split("-")
        actor = json.loads(event[7])["actor"]
        assert actor == ({**ACTOR, "principal": caller} if int(number) % 2 else ACTOR)
    with closing(storage.log()) as view:
        refuse_damage(log, view.identity()[0])


def test_a_queue_that_is_closed_answers_all_that_was_submitted(
    storage: Storage, clock: FakeClock
) -> None:
    queue = queue_of(storage, clock)
    futures = [
        queue.submit(lambda store, n=n: asking(store, str(n))())  # type: ignore[misc]
        for n in range(100)
    ]
    queue.close()
    assert [future.result(0) for future in futures] == [f"req-{n}" for n in range(100)]
    assert len(log_of(storage)) == 101


@pytest.mark.stores("sqlite", "json")
def test_a_store_that_was_replaced_is_opened_anew(
    place: Place, storage: Storage, tmp_path: Path, clock: FakeClock, queue: CommandQueue[Any]
) -> None:
    """Who finds it so is told; the next command is carried out in what is there now."""
    assert queue.submit(lambda store: asking(store, "a")()).result(60) == "req-a"
    (tmp_path / "hostledger").rename(tmp_path / "before")
    (tmp_path / "hostledger").mkdir()
    new = place.storage(str(tmp_path))
    new.create(clock, ACTOR, "0.1.0")
    error = queue.submit(lambda store: asking(store, "b")()).exception(60)
    assert isinstance(error, StoreInert)
    assert queue.submit(lambda store: asking(store, "b")()).result(60) == "req-b"
    assert [event[2] for event in log_of(new)] == ["deployment", "request-req-b"]


CALLERS = r"""
import json, sys
from threading import Thread
from application.command_queue import CommandQueue
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from tests.stores import Place
place, work_dir, name, count = Place(*json.loads(sys.argv[1])), *sys.argv[2:4], int(sys.argv[4])
storage = place.storage(work_dir)

def open_store():
    store = storage.event_store(SystemClock(), {"process": name})
    return store, store

def command(request_id):
    def carry_out(store):
        positions = []
        asked = MachineRequest.ask(request_id, "awsinst", "T", "4f53", 1, 300.0, "rest")
        store.save(asked, command=(request_id, ""), positions=positions)
        return positions[0]
    return carry_out

queue = CommandQueue(open_store)
print("ready", flush=True)
sys.stdin.readline()
answers = {}

def call(caller):
    for number in range(count):
        request_id = f"req-{name}-{caller}-{number}"
        answers[request_id] = queue.submit(command(request_id)).result()
        if told:
            sys.stdout.write(json.dumps([request_id, answers[request_id]]) + "\n")
            sys.stdout.flush()

told = len(sys.argv) > 5
callers = [Thread(target=call, args=(caller,)) for caller in range(4)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
queue.close()
print(json.dumps(answers))
"""


def start(place: Place, work_dir: Path, name: str, count: int, *more: str, **environ: str) -> Any:
    told = json.dumps([place.kind, place.settings])
    process = subprocess.Popen(
        [sys.executable, "-c", CALLERS, told, str(work_dir), name, str(count), *more],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_queues_of_several_processes_and_a_single_writer(
    storage: Storage,
    place: Place,
    tmp_path: Path,
    store: Any,
    record_property: Callable[[str, object], None],
) -> None:
    """Two servers of four callers each, beside one who saves by himself: every answer is where it
    says, and positions have no gap."""
    servers = [start(place, tmp_path, f"s{number}", 10) for number in range(2)]
    for server in servers:
        server.stdin.write("\n")
        server.stdin.flush()
    own: list[int] = []
    for number in range(20):
        store.save(request(f"own-{number}"), positions=own)
    answers = {f"req-own-{number}": position for number, position in enumerate(own)}
    for server in servers:
        out, _ = server.communicate(timeout=120)
        assert server.returncode == 0
        answers |= json.loads(out)

    log = log_of(storage)
    refuse_damage(log, store.deployment)
    assert len(answers) == len(log) - 1 == 100
    assert {event[2].removeprefix("request-"): event[0] for event in log[1:]} == answers
    writers = [json.loads(event[7])["actor"]["process"] for event in log[1:]]
    met = sum(one != other for one, other in pairwise(writers))
    record_property("race", f"{place.kind}: {met} of 99 shared commits' events followed another's")


@pytest.mark.parametrize("point", ["answer.commands#3", "commit.together.before#3"])
def test_killed_at_the_answer_everything_told_is_recorded(
    storage: Storage, place: Place, tmp_path: Path, point: str
) -> None:
    """kill -9 between commit and answer, and before the commit."""
    if place.kind not in SHARING:
        point = "answer.commands#3"
    server = start(place, tmp_path, "s", 50, "tell", HOSTLEDGER_CRASH_AT=point)
    out, _ = server.communicate("\n", timeout=120)
    assert server.returncode == -9
    told = dict(json.loads(line) for line in out.splitlines())

    log = log_of(storage)
    recorded = {event[2].removeprefix("request-"): event[0] for event in log[1:]}
    assert told.items() <= recorded.items()
    with closing(storage.log()) as view:
        refuse_damage(log, view.identity()[0])
    assert point != "answer.commands#3" or recorded.keys() - told.keys()
