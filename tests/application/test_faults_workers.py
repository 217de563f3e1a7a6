"""The fault rows of several workers, several releases, clocks that jump and answers that are lost:
one acts, nothing doubles."""

from __future__ import annotations

from collections.abc import Callable

from tests.world import TEMPLATE, World

MakeWorld = Callable[..., World]

N = 5
LONG = {**TEMPLATE, "fulfilmentDeadline": 50_000}


def test_fault_20_two_workers_started(world: World) -> None:
    """Both run; one holds the lease and acts, the other waits until it is gone and then takes
    over."""
    first, second = world.start_worker(), world.start_worker()
    request_id = world.request(N)

    assert world.run_until_final(request_id)["status"] == "complete"

    assert world.workers == [first, second]
    assert len(world.launches()) == 1 and len(world.live()) == N
    assert world.query("SELECT fence FROM leases") == [(first.lease.number,)]
    assert second.lease.number == 0

    world.kill(first)
    assert world.run_until_final(world.request(N))["status"] == "complete"
    assert len(world.launches()) == 2 and len(world.live()) == 2 * N
    world.assert_agreement()


def test_fault_21_answer_of_request_machines_lost(world: World) -> None:
    """Committed, the answer lost, asked again: HostFactory polls the second request only. Within
    INSTANCE_CREATION_TIMEOUT of its calling time only the second one's machines live."""
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

    world.run(700, poll=host_factory)

    assert answer["status"] == "complete"
    assert world.live() == {m["machineId"] for m in answer["machines"]}
    assert len(world.live()) == N
    state = world.query("SELECT final, source FROM requests WHERE request_id = ?", lost)
    assert state == [(1, "hostfactory")]
    reasons = [event["reason"] for event in world.events("MachinesReturned")]
    assert len(reasons) == 1 and "its answer was lost" in reasons[0]
    world.assert_agreement()


def test_fault_23_paused_while_another_settles(make_world: MakeWorld) -> None:
    """A worker is paused between intent and send. Another settles the batch as nothing and launches
    again; then the first one's call goes out. What it launched is found and ended: exactly N."""
    world = make_world(templates=[LONG], boot_time=20.0, shutdown_time=15.0)
    first = world.start_worker()
    request_id = world.request(N)

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(2 * 3600.0)  # the token is too old to be sent again
        world.start_worker()
        world.run_until_final(request_id, 1200.0)

    with world.pausing_at("aws.RunInstances.before", meanwhile):
        first.tick()

    assert len(world.live()) == 2 * N, "the paused call launched late"
    assert not first.tick(), "the paused worker has lost its lease and ends"
    first.end()
    world.run(200)

    answer = world.status(request_id)
    assert answer["status"] == "complete"
    assert world.live() == {m["machineId"] for m in answer["machines"]}
    assert len(world.live()) == N
    world.assert_agreement()


def test_fault_23_outcome_of_a_lost_lease_is_refused(world: World) -> None:
    """A worker wakes up after another took its lease: its outcome is refused by the fence, and the
    other records it."""
    first = world.start_worker()
    request_id = world.request(N)
    world.sandbox.add_fault("throttle", action="RunInstances")

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(70.0)
        world.start_worker()
        world.run(1)  # it takes the lease, and is throttled

    with world.pausing_at("aws.RunInstances.before", meanwhile):
        assert not first.tick()
    first.end()

    assert world.events("LaunchAccepted") == []
    assert len(world.live()) == N
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.live()) == N
    world.assert_agreement()


def test_fault_27_wall_clock_steps(world: World) -> None:
    """The wall clock is set an hour on or back at every stage: nothing doubles, hangs or expires
    early."""
    world.start_worker()
    for step in (3600.0, -3600.0):
        world.sandbox.add_fault("slow", action="RunInstances", late=5.0)
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


def test_fault_28_newer_release_takes_over(world: World) -> None:
    """An old release's worker holds the lease with a launch in doubt; a newer one asks for it, gets
    it within seconds, and nothing is doubled."""
    old = world.start_worker(version="0.0.9")
    world.sandbox.add_fault("lost_response", action="RunInstances")
    request_id = world.request(N)
    world.run(1)
    assert len(world.live()) == N and world.events("LaunchAccepted") == []

    new = world.start_worker()
    world.run(5)

    assert world.workers == [new]
    assert new.lease.number == old.lease.number + 1
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.live()) == N
    world.assert_agreement()


def test_fault_28_older_release_waits(world: World) -> None:
    """An older release's worker does not drive a newer one out."""
    new = world.start_worker()
    world.run(3)
    old = world.start_worker(version="0.0.9")

    world.run(10)

    assert world.workers == [new, old]
    assert old.lease.number == 0
