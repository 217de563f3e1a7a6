"""The fault rows of several workers, several releases, clocks that jump and answers that are lost:
one acts, nothing doubles. Each is shown for every way to launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.stores import FOUR
from tests.world import TEMPLATE, World, every_way

MakeWorld = Callable[..., World]

N = 5
LONG = {**TEMPLATE, "fulfilmentDeadline": 50_000}

AT_ONCE = ("RunInstances", "fleet-instant")
"""Ways whose call does not go through a launch template of its own."""

EVERY_STORE = FOUR


@every_way
def test_fault_20_two_workers_started(way_world: World) -> None:
    """Both run; one holds the lease and acts, the other waits until it is gone and then takes
    over."""
    world = way_world
    first, second = world.start_worker(), world.start_worker()
    request_id = world.request(N)

    assert world.run_until_final(request_id)["status"] == "complete"

    assert world.workers == [first, second]
    assert len(world.launches()) == 1 and len(world.live()) == N
    assert world.query("SELECT account, fence FROM leases") == list(first.lease.held.items())
    assert second.lease.held == {}

    world.kill(first)
    assert world.run_until_final(world.request(N))["status"] == "complete"
    assert len(world.launches()) == 2 and len(world.live()) == 2 * N
    world.assert_agreement()
    world.leave_nothing()


@every_way
def test_fault_21_answer_of_request_machines_lost(way_world: World) -> None:
    """Committed, the answer lost, asked again: HostFactory polls the second request only. Within
    INSTANCE_CREATION_TIMEOUT of its calling time only the second one's machines live."""
    world = way_world
    world.start_worker()
    lost = world.request(N)
    known = world.request(N)
    answer = {}
    called = [0.0]

    def host_factory() -> None:
        if world.clock.seconds - called[0] < 30.0:
            return
        called[0] = world.clock.seconds
        answer.update(world.status(known))
        if answer["status"] == "complete":
            assert world.to_give_up(answer["machines"]) == []

    world.run(740, poll=host_factory, step=5.0)

    assert answer["status"] == "complete"
    assert world.live() == {m["machineId"] for m in answer["machines"]}
    assert len(world.live()) == N
    state = world.query("SELECT final, source FROM requests WHERE request_id = ?", lost)
    assert state == [(1, "hostfactory")]
    reasons = [event["reason"] for event in world.events("MachinesReturned")]
    assert len(reasons) == 1 and "its answer was lost" in reasons[0]
    world.assert_agreement()
    world.leave_nothing()


@every_way
def test_fault_23_paused_while_another_settles(make_world: MakeWorld, way: str) -> None:
    """A worker is paused between intent and send. Another settles the batch as nothing and launches
    again; then the first one's call goes out. What it launched is found and ended: exactly N."""
    world = make_world(way=way, templates=[LONG], boot_time=20.0, shutdown_time=15.0)
    first = world.start_worker()
    request_id = world.request(N)

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(2 * 3600.0)  # the token is too old to be sent again
        world.start_worker()
        world.run(1200, lambda: world.status(request_id)["status"] != "running", step=2.0)

    with world.pausing_at(f"aws.{world.action}.before", meanwhile):
        first.tick()

    if way in AT_ONCE:
        assert len(world.live()) == 2 * N, "the paused call launched late"
    else:
        # Each launch has a template of its own, which went with what was settled.
        assert len(world.live()) == N, "the paused call launched late, and nothing"
    first.tick()
    assert first.lease.held == {}, "the paused worker has lost its lease"
    first.end()
    world.run(300, step=5.0)

    answer = world.status(request_id)
    assert answer["status"] == "complete"
    assert world.live() == {m["machineId"] for m in answer["machines"]}
    assert len(world.live()) == N
    world.assert_agreement()
    world.leave_nothing()


@pytest.mark.stores("sqlite")
def test_fault_23_launched_late_with_nobody_there(make_world: MakeWorld) -> None:
    """A worker is paused before its call. Another is refused, the request fails, and it ends, since
    nothing is open; then the first one's call goes out. No verb starts a worker for what it made:
    the paused one waits for the lease like any other, has it, finds the machines and ends them; and
    ends itself."""
    auto = {"HOSTLEDGER_WORKER__MODE": "auto"}
    world = make_world(settings=auto, boot_time=20.0, shutdown_time=15.0)
    first = world.start_worker()
    request_id = world.request(N)
    world.sandbox.add_fault("cap", action=world.action, limit=0, times=-1)

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(70.0)
        world.start_worker()
        assert world.final(request_id)["status"] == "complete_with_error"
        world.run(400, lambda: not world.workers, step=5.0)
        world.sandbox.clear_faults()

    with world.pausing_at(f"aws.{world.action}.before", meanwhile):
        assert first.tick()
    assert world.workers == [] and first.lease.held == {}
    assert len(world.live()) == N and world.owned() == set()
    assert not world.storage().read_model().anything_open_or_alive()

    world.workers.append(first)
    world.run(120, lambda: not world.live() and not world.owned(), step=2.0)
    world.assert_nothing_left()
    world.run(400, lambda: not world.workers, step=5.0)
    assert world.workers == []


@pytest.mark.stores("sqlite")
def test_fault_23_who_lost_its_lease_waits_and_ends(make_world: MakeWorld) -> None:
    """Another one works: who was paused waits until that has swept, writes and calls nothing, and
    ends."""
    world = make_world(settings={"HOSTLEDGER_WORKER__MODE": "auto"})
    first = world.start_worker()
    request_id = world.request(N)

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(70.0)
        world.start_worker()
        world.run_until_final(request_id)

    with world.pausing_at(f"aws.{world.action}.before", meanwhile):
        first.tick()
    topics, calls = world.topics(), len(world.sandbox.calls)
    (second,) = world.workers

    waits = 0
    while first.tick():
        waits += 1
        world.clock.advance(1.0)
        second.lease.renew()
    first.end()

    assert 120 <= waits <= 122
    assert (world.topics(), len(world.sandbox.calls)) == (topics, calls)
    assert second.tick() and second.lease.held
    assert len(world.live()) == N
    world.assert_agreement()


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("way", ["fleet-instant", "group"])
def test_fault_23_launch_template_made_late(way_world: World) -> None:
    """A worker is paused before it makes a launch template. Another removes the intent, which
    nobody wants any more; then the first one's call goes out. What it made is found within an hour
    and removed, whoever works by then."""
    world = way_world
    first = world.start_worker()
    request_id = world.request(N)

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(100.0)
        world.cancel(request_id)
        world.start_worker()
        world.run(200, step=2.0)

    with world.pausing_at("aws.CreateLaunchTemplate.before", meanwhile):
        first.tick()
    assert first.lease.held == {}, "the paused worker has lost its lease"
    first.end()

    assert len(world.events("LaunchTemplateDeleted")) == 1
    assert world.leftovers().keys() == {"launch_templates"}
    world.kill(*world.workers)
    world.start_worker()
    world.run(3700, step=15.0)
    world.assert_nothing_left()


@pytest.mark.stores("sqlite")
def test_fault_23_launch_template_made_again(make_world: MakeWorld) -> None:
    """The same, but that the other has made it, used it and removed it since. After that each turn
    is a process of its own: they ask AWS for strays once an hour, however many they are."""
    world = make_world(way="fleet-instant", boot_time=20.0, shutdown_time=15.0)
    first = world.start_worker()
    request_id = world.request(N)

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(100.0)
        world.start_worker()
        world.give_back(world.final(request_id)["machines"])
        assert world.run(600, lambda: world.events("LaunchTemplateDeleted") != [])
        world.clock.advance(25 * 3600.0)  # AWS has forgotten the token

    with world.pausing_at("aws.CreateLaunchTemplate.before", meanwhile):
        first.tick()
    assert first.lease.held == {}, "the paused worker has lost its lease"
    first.end()
    world.kill(*world.workers)

    assert world.leftovers().keys() == {"launch_templates"}
    for _ in range(230):
        world.start_worker().tick()
        world.kill(*world.workers)
        world.clock.advance(15.0)
    world.assert_nothing_left()
    assert len(world.calls_of("DescribeLaunchTemplates")) == 1


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("has_capacity", [True, False])
def test_fault_23_group_made_late(make_world: MakeWorld, has_capacity: bool) -> None:
    """A worker is paused before it makes a group. Another makes it, uses it and deletes it, which
    frees its name; then the first one's call goes out. Once its machines are seen it launches no
    more; it goes within an hour, also when it never had one."""
    other = {**LONG, "templateId": "Other", "vmType": "m5.large", "providerApi": "RunInstances"}
    world = make_world(way="group", templates=[LONG, other], boot_time=20.0, shutdown_time=15.0)
    world.sandbox.add_fault("cap", action="RunInstances", limit=0, times=-1)
    first = world.start_worker()
    request_id = world.request(N)
    waiting = []

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(100.0)
        world.start_worker()
        machines = world.final(request_id)["machines"]
        waiting.append(world.request(1, "Other"))  # its launch template may be wanted
        world.give_back(machines)
        assert world.run(400, lambda: world.events("FleetDeleted") != [])
        if not has_capacity:
            world.sandbox.set_capacity(0)

    with world.pausing_at("aws.CreateAutoScalingGroup.before", meanwhile):
        first.tick()
    first.end()

    assert len(world.leftovers()["groups"]) == 1
    assert len(world.live()) == (N if has_capacity else 0)
    world.run(120, step=5.0)
    assert world.live() == set()
    launched = sum(len(event["machine_ids"]) for event in world.events("MachinesAssigned"))
    assert launched == N, "what came late was nobody's"
    ended = sum(len(event["machine_ids"]) for event in world.events("TerminationIntended"))
    assert ended == (2 * N if has_capacity else N), "none was launched in its place"
    world.cancel(*waiting)
    world.kill(*world.workers)
    world.start_worker()
    world.run(3700, step=15.0)
    world.assert_nothing_left()


@every_way
def test_fault_23_outcome_of_a_lost_lease_is_refused(way_world: World) -> None:
    """A worker wakes up after another took its lease: its outcome is refused by the fence, and the
    other records it."""
    world = way_world
    first = world.start_worker()
    request_id = world.request(N)
    world.sandbox.add_fault("throttle", action=world.action)

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(70.0)
        world.start_worker()
        world.run(1)  # it takes the lease, and is throttled

    with world.pausing_at(f"aws.{world.action}.before", meanwhile):
        first.tick()
    assert first.lease.held == {}
    first.end()

    assert world.events("LaunchAccepted") == []
    assert len(world.live()) == N
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.live()) == N
    world.assert_agreement()
    world.leave_nothing()


@every_way
def test_fault_26_restored_and_activated(way_world: World, way: str) -> None:
    """The store is put back to an hour before and activated. What the log has not heard of lives
    on, while HostFactory names it, and launches nothing more; returned, it is ended by its tag."""
    world = way_world
    worker = world.start_worker()
    before = world.run_until_final(world.request(N))["machines"]
    world.to_give_up(before)
    world.run(5)
    backup = world.backup()
    world.give_back(before[:1])
    forgotten = world.run_until_final(world.request(N))["machines"]
    world.run(60, lambda: len(world.live()) == 2 * N - 1)
    world.kill(worker)
    world.restore(backup)
    world.clock.advance(3600.0)
    assert "store activate" in str(world.refusal("getRequestStatus", {"requests": []}))
    world.storage().activate(world.clock, {"user": "test"}, "restored")
    hosts = before[1:] + forgotten
    held = {m["machineId"] for m in hosts}
    assert world.live() == held

    world.start_worker()
    world.run(5)
    listed: list[dict[str, Any]] = []
    world.run(1500, poll=lambda: listed.extend(world.to_give_up(hosts)), step=15.0)

    assert listed == []
    assert world.live() == held, "no machine that HostFactory holds dies, none comes"

    return_id = world.give_back(hosts)
    world.run(900, lambda: world.status(return_id)["status"] != "running", step=5.0)
    assert world.status(return_id)["status"] == "complete"
    world.run(900, step=15.0)
    assert world.live() == set()
    if way == "fleet-instant":
        # AWS lists no instant fleet by its tag: those that the log has not heard of stay, empty.
        assert set(world.leftovers()) == {"fleets"}
    else:
        world.assert_nothing_left()


@every_way
def test_fault_27_wall_clock_steps(way_world: World) -> None:
    """The wall clock is set an hour on or back at every stage: nothing doubles, hangs or expires
    early."""
    world = way_world
    world.start_worker()
    for step in (3600.0, -3600.0):
        world.sandbox.add_fault("slow", action=world.action, late=5.0)
        request_id = world.request(N)
        world.clock.step_wall(step)
        world.run(2)
        world.clock.step_wall(-step)
        world.run(8)
        world.clock.step_wall(step)
        answer = world.run_until_final(request_id, 90.0)
        assert answer["status"] == "complete", answer
        assert len(world.live()) == N
        assert world.to_give_up(answer["machines"]) == []

        return_id = world.give_back(answer["machines"])
        world.clock.step_wall(-2 * step)
        world.run(2)
        world.clock.step_wall(step)
        assert world.run_until_final(return_id, 90.0)["status"] == "complete"
        assert world.live() == set()
        world.assert_agreement()

    assert len(world.events("LaunchIntended")) == 2
    assert len(world.workers) == 1, "the lease did not expire"
    stored = [row[0] for row in world.query("SELECT recorded_at FROM events ORDER BY position")]
    assert stored == sorted(stored), "recorded time never goes back"
    world.run(200, step=5.0)
    world.assert_nothing_left()


@every_way
def test_fault_28_newer_release_takes_over(way_world: World) -> None:
    """An old release's worker holds the lease with a launch in doubt; a newer one asks for it, gets
    it within seconds, and nothing is doubled."""
    world = way_world
    old = world.start_worker(version="0.0.9")
    world.sandbox.add_fault("lost_response", action=world.action)
    request_id = world.request(N)
    world.run(1)
    assert len(world.live()) == N and world.events("LaunchAccepted") == []

    new = world.start_worker()
    world.run(5)

    assert world.workers == [new]
    assert list(new.lease.held.values()) == [2] and old.lease.held == {}
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.live()) == N
    world.assert_agreement()
    world.leave_nothing()


def test_fault_28_older_release_waits(world: World) -> None:
    """An older release's worker does not drive a newer one out."""
    new = world.start_worker()
    world.run(3)
    old = world.start_worker(version="0.0.9")

    world.run(10)

    assert world.workers == [new, old]
    assert old.lease.held == {}
