"""One log, one order, one answer: what an event store promises to one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from application.failures import AlreadyTracked, Conflict, Fenced, StoreError
from application.ports import Instance
from application.projections.record import COLUMNS
from domain.deployment import Deployment
from domain.launch_template import LaunchTemplate
from domain.machine_request import MachineRequest
from domain.termination_batch import TerminationBatch
from infrastructure.clock import SystemClock
from infrastructure.event_store.commit import is_damaged
from tests.fakes.clock import FakeClock
from tests.stores import SERVED, STORES, Place

if TYPE_CHECKING:
    from infrastructure.storage import Storage

EVERY_STORE = STORES

ACTOR = {"user": "test", "provider": "awsinst", "process": "contract"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def storage(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Any, clock: FakeClock
) -> Storage:
    """A store that has just been made."""
    storage = new_place(store_kind).storage(str(tmp_path))
    storage.create(clock, ACTOR, "0.1.0")
    return storage


@pytest.fixture
def open_store(storage: Storage, clock: FakeClock) -> Iterator[Callable[[], Any]]:
    """Opens the store once more; closed with the test."""
    stores: list[Any] = []

    def make() -> Any:
        stores.append(storage.event_store(clock, ACTOR))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def request(name: str, machines: int = 1) -> MachineRequest:
    return MachineRequest.ask(f"req-{name}", "awsinst", "T", "4f53", machines, 300.0, "hostfactory")


def log_of(storage: Storage) -> list[tuple[Any, ...]]:
    """Every event of the log, as an operator's look has it."""
    view = storage.log()
    try:
        return [tuple(event[c] for c in COLUMNS) for event in view.last_events(100_000, None)]
    finally:
        view.close()


def test_positions_have_one_order_and_the_chain_binds_them(
    storage: Storage, open_store: Callable[[], Any]
) -> None:
    """From 1, without a gap, over several streams of one commit; recorded time never goes back."""
    store = open_store()
    positions: list[int] = []
    store.save(request("a"), request("b"), correlation_id="cmd-1", positions=positions)
    store.save(request("c"), correlation_id="cmd-2", positions=positions)

    log = log_of(storage)

    assert positions == [2, 3, 4]
    assert [event[0] for event in log] == [1, 2, 3, 4]
    assert [event[2] for event in log[1:]] == ["request-req-a", "request-req-b", "request-req-c"]
    before = store.deployment
    for event in log:
        assert not is_damaged(event, before)
        before = event[10]
    assert [event[6] for event in log] == sorted(event[6] for event in log)


def test_recorded_time_never_goes_back(
    storage: Storage, open_store: Callable[[], Any], clock: FakeClock
) -> None:
    """Whatever the wall clock does."""
    store = open_store()
    store.save(request("a"))
    clock.step_wall(-3600)
    store.save(request("b"))
    first, second = (event[6] for event in log_of(storage)[1:])
    assert first <= second


def test_who_reads_a_stale_version_conflicts(
    storage: Storage, open_store: Callable[[], Any]
) -> None:
    """The second of two that loaded the same version writes nothing, of no stream."""
    one, other = open_store(), open_store()
    one.save(request("a"))
    mine, theirs = one.get(MachineRequest, "req-a"), other.get(MachineRequest, "req-a")
    mine.cancel("no longer needed")
    theirs.cancel("so say I")
    one.save(mine)
    with pytest.raises(Conflict):
        other.save(request("b"), theirs)
    assert [event[2] for event in log_of(storage)[1:]] == ["request-req-a", "request-req-a"]


def test_a_command_is_carried_out_once(storage: Storage, open_store: Callable[[], Any]) -> None:
    """The same id again records nothing, and what was answered is known."""
    store = open_store()
    store.save(request("a"), command=("cmd-1", "req-a"))
    with pytest.raises(Conflict):
        open_store().save(request("b"), command=("cmd-1", "req-b"))
    assert open_store().command_result("cmd-1") == "req-a"
    assert store.command_result("cmd-2") is None
    assert len(log_of(storage)) == 2


def test_a_position_is_tracked_once(storage: Storage, open_store: Callable[[], Any]) -> None:
    """Together with what it led to, never backwards."""
    one, other = open_store(), open_store()
    one.save(request("a"), tracking=("policy", 5))
    for position in (5, 4):
        with pytest.raises(AlreadyTracked):
            other.save(request("b"), tracking=("policy", position))
    other.save(request("c"), tracking=("another", 1))
    other.save(tracking=("policy", 6))
    assert [event[2] for event in log_of(storage)[1:]] == ["request-req-a", "request-req-c"]


def test_a_lost_lease_is_refused(
    storage: Storage, open_store: Callable[[], Any], clock: FakeClock, tmp_path: Any
) -> None:
    """One holds it; when it ran out another takes it, and the first can commit nothing."""
    stores = [open_store(), open_store()]
    first, second = (
        storage.lease(store, "default/us-east-1", f"w{n}", "0.1.0", clock, 60.0, f"{tmp_path}/lock")
        for n, store in enumerate(stores)
    )
    assert first.acquire()
    assert not second.acquire()
    stores[0].save(request("a"), fence=first.fence)
    clock.advance(61)
    if not second.acquire():  # where it can only be observed, from now on
        clock.advance(61)
        assert second.acquire()
    assert first.remaining() <= 0
    with pytest.raises(Fenced):
        stores[0].save(request("b"), fence=first.fence)
    stores[1].save(request("c"), fence=second.fence)
    assert not first.renew()
    second.release()
    assert first.acquire()
    assert first.fence[1] > second.fence[1]
    first.release()
    assert [event[2] for event in log_of(storage)[1:]] == ["request-req-a", "request-req-c"]


def test_what_is_committed_is_answered_at_once(
    storage: Storage, open_store: Callable[[], Any]
) -> None:
    """The read models are as new as the log; what the log lacks is not in it."""
    open_store().save(request("a"), command=("cmd-1", "req-a"))
    model = storage.read_model()
    row = model.request("req-a")
    assert row is not None
    assert row[:3] == ("request", "running", 0)
    assert model.is_in_log("req-a")
    assert model.request("req-b") is None
    assert not model.is_in_log("req-b")
    assert model.anything_open_or_alive()
    assert not model.anything_alive()


def test_what_waits_for_a_worker_is_seen_by_the_calls(
    storage: Storage, open_store: Callable[[], Any]
) -> None:
    """A termination that an operator ordered while nothing else is open or alive; a launch template
    that is to be removed."""
    store = open_store()
    work = storage.work(store, "default", "us-east-1")

    def seen() -> tuple[bool, bool]:
        return work.anything_open(), storage.read_model().anything_open_or_alive()

    assert seen() == (False, False)
    ordered = TerminationBatch.intend("ter-1", ["i-1"], "default", "us-east-1", "a", "orphan")
    store.save(ordered)
    assert seen() == (True, True)
    ordered.conclude(["i-1"], [], "")
    store.save(ordered)
    assert seen() == (False, False)
    template = LaunchTemplate(LaunchTemplate.stream("default/us-east-1/t"))
    template.intend(
        name="t", token="", payload={}, account="default", region="us-east-1", provider="awsinst"
    )
    template.create("lt-1")
    template.miss()
    store.save(template)
    assert seen() == (True, True)


def test_a_sweep_leaves_what_another_machine_s_has_seen(
    storage: Storage, open_store: Callable[[], Any], clock: FakeClock
) -> None:
    """Two workers sweep an account each: a host that one saw stopped stays so until it was not seen
    for an hour."""
    one = storage.notebook(open_store(), "home", "us-east-1")
    other = storage.notebook(open_store(), "away", "us-east-1")

    def seen_after(seconds: float) -> dict[str, Any]:
        clock.advance(seconds)
        other.record_sweep((clock.wall + 0.7, "boot-2", clock.seconds - 900.0), 3)
        states: dict[str, Any] = storage.read_model().cloud_states(clock.now())
        return states

    one.put_cloud_states([("i-1", "host-1", "stopped")], clock.now())
    assert seen_after(60) == {"i-1": ("stopped", 60), "host-1": ("stopped", 60)}
    assert seen_after(3600) == {}


def test_an_aggregate_comes_back_as_it_was(open_store: Callable[[], Any]) -> None:
    asked = request("a", 7)
    open_store().save(asked)
    found = open_store().get(MachineRequest, "req-a")
    assert vars(found) == vars(asked)
    assert open_store().get(MachineRequest, "req-b") is None


def test_a_body_is_kept_with_its_intent(storage: Storage, open_store: Callable[[], Any]) -> None:
    """Whatever bytes it has; it is in no event."""
    store = open_store()
    body = bytes(range(256))
    store.save(request("a"), bodies={"d1": body})
    work = storage.work(open_store(), "default", "us-east-1")
    assert work.body("d1") == body
    assert work.body("d2") is None


def test_a_text_of_any_letters_is_kept_byte_for_byte(
    storage: Storage, open_store: Callable[[], Any]
) -> None:
    """Digests are of the bytes: nothing is normalised, escaped or re-ordered on the way."""
    odd = "é e\u0301 \u2028 \x7f % %s ' \" \\ \N{SNOWMAN} \U0001f9fe {}"
    store = open_store()
    store.save(request("a"), correlation_id=odd)
    asked = store.get(MachineRequest, "req-a")
    asked.cancel(odd)
    store.save(asked, correlation_id=odd)
    log = log_of(storage)
    before = store.deployment
    for event in log:
        assert not is_damaged(event, before)
        before = event[10]
    assert open_store().get(MachineRequest, "req-a").version == 2


def test_a_store_is_made_once(storage: Storage, clock: FakeClock) -> None:
    """A second `store init` at the same place is refused, and nothing is changed."""
    before = log_of(storage)
    with pytest.raises(StoreError, match="exists already"):
        storage.create(clock, ACTOR, "0.1.0")
    assert log_of(storage) == before
    assert before[0][3:5] == (1, "DeploymentCreated")


def test_a_store_that_is_not_there_says_so(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Any, clock: FakeClock
) -> None:
    """Nothing makes one but `store init`."""
    storage = new_place(store_kind).storage(str(tmp_path / "elsewhere"))
    for look in (storage.read_model, storage.log, lambda: storage.event_store(clock, ACTOR)):
        with pytest.raises(StoreError, match="store init"):
            look()


def test_activation_raises_the_incarnation(
    storage: Storage, open_store: Callable[[], Any], clock: FakeClock
) -> None:
    """It is recorded, and the store lives."""
    open_store().save(request("a"))
    assert storage.activate(clock, ACTOR, "a drill") == 2
    store = open_store()
    assert store.incarnation == 2
    assert store.get(Deployment, "").incarnation == 2
    store.save(request("b"))
    assert [event[4] for event in log_of(storage)][-2:] == ["StoreActivated", "MachinesRequested"]


def test_the_end_of_the_log_is_told_to_who_waits(
    storage: Storage, open_store: Callable[[], Any]
) -> None:
    """A worker that looks whether something has changed sees another process's commit."""
    worker, other = open_store(), open_store()
    before = worker.changes()
    assert worker.changes() == before
    other.save(request("a"))
    assert worker.changes() != before


@pytest.mark.stores(*SERVED)
def test_a_worker_on_another_machine_is_known_to_live(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Any
) -> None:
    """By its lease: a call elsewhere need not start one."""
    clock = SystemClock()
    clock.boot_id = "another machine's"
    place = new_place(store_kind)
    there, here = (place.storage(f"{tmp_path}/{name}") for name in ("there", "here"))
    there.create(clock, ACTOR, "0.1.0")
    store = there.event_store(clock, ACTOR)
    lease = there.lease(store, "default/us-east-1", "w", "0.1.0", clock, 60.0, f"{tmp_path}/lock")
    assert not here.read_model().holder_lives()
    assert lease.acquire()
    assert here.read_model().holder_lives()
    lease.release()
    assert not here.read_model().holder_lives()
    store.close()


@pytest.mark.stores(*SERVED)
def test_orphans_are_known_on_every_machine(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Any, clock: FakeClock
) -> None:
    """Whichever machine's worker saw them, and whichever sees that they are gone: an operator's
    list, counts and commands have them."""
    place = new_place(store_kind)
    there, here = (place.storage(f"{tmp_path}/{name}") for name in ("there", "here"))
    there.create(clock, ACTOR, "0.1.0")
    stores = [storage.event_store(clock, ACTOR) for storage in (there, here)]
    near, far = (
        storage.notebook(store, "default", "us-east-1")
        for storage, store in zip((there, here), stores, strict=True)
    )
    away = there.notebook(stores[0], "away", "us-east-1")

    def orphan(number: int) -> Instance:
        return Instance(
            f"i-{number}", "running", "host", "10.0.0.1", 1_800_000_000, "a", "t3.small"
        )

    def known() -> list[str]:
        """Everywhere the same."""
        answers = []
        for storage, store in zip((there, here), stores, strict=True):
            with closing(storage.queries()) as view:
                answers.append(view.orphans())
                assert view.facts()["orphans"] == len(answers[-1])
            answers.append(storage.view_of(store).orphans())
        assert answers == answers[:1] * 4
        return [row["machine_id"] for row in answers[0]]

    assert known() == []
    assert near.see_orphans([orphan(1), orphan(2)]) == {"i-1": 1, "i-2": 1}
    assert away.see_orphans([orphan(3)]) == {"i-3": 1}
    assert near.see_orphans([orphan(2)]) == {"i-2": 2}
    assert known() == ["i-2", "i-3"]
    far.see_orphans([])  # a worker here has taken over
    assert known() == ["i-3"]
    for store in stores:
        store.close()
