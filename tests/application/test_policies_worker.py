"""What HostFactory's silence means, and when a worker ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dependency_injector import providers

from infrastructure import worker_start
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.sandbox.ec2 import Quotas
from tests.world import WAYS, World

MakeWorld = Callable[..., World]


def host_factory(
    world: World, requests: list[str], hosts: list[dict[str, Any]], every: float = 30.0
) -> Callable[[], None]:
    """HostFactory polls these requests and names these hosts, so often."""
    called = [float("-inf")]

    def poll() -> None:
        if world.clock.seconds - called[0] >= every:
            called[0] = world.clock.seconds
            for request_id in requests:
                world.status(request_id)
            if hosts:
                world.to_give_up(hosts)

    return poll


def ids(machines: list[dict[str, Any]]) -> set[str]:
    return {machine["machineId"] for machine in machines}


def test_machines_that_are_never_named_are_returned(world: World) -> None:
    """Reported `succeed` in a final answer and never named among HostFactory's hosts, while it
    names others: after INSTANCE_CREATION_TIMEOUT of that, and not before, they are returned."""
    world.start_worker()
    kept, lost = world.fulfilled(2), world.fulfilled(3)
    poll = host_factory(world, [], kept)

    world.run(570, poll=poll, step=5.0)
    assert world.live() == ids(kept) | ids(lost)
    world.run(130, poll=poll, step=5.0)

    assert world.live() == ids(kept)
    (returned,) = world.events("MachinesReturned")
    assert "no getReturnRequests has named it" in returned["reason"]
    world.assert_agreement()


def test_named_once_is_host_factorys(world: World) -> None:
    """A machine that was named once is HostFactory's until it is returned."""
    world.start_worker()
    kept, others = world.fulfilled(2), world.fulfilled(3)
    world.to_give_up([*kept, *others])

    world.run(2000, poll=host_factory(world, [], kept), step=5.0)

    assert world.live() == ids(kept) | ids(others)


def test_a_stopped_host_factory_costs_nothing(world: World) -> None:
    """HostFactory stops for a day, with a request it has not polled and machines it has not named:
    when it is back all are there."""
    world.start_worker()
    machines = world.fulfilled(3)
    request_id = world.request(2)
    world.run(60)

    for _ in range(24):
        world.run(5, step=5.0)
        world.clock.advance(3595.0)
    poll = host_factory(world, [request_id], machines)
    world.run(300, poll=poll)

    assert len(world.live()) == 5
    assert world.status(request_id)["status"] == "complete"
    world.assert_agreement()


def test_seldom_calls_are_no_calling_time(world: World) -> None:
    """A call an hour is not a HostFactory that is calling: nothing is taken for unknown."""
    world.start_worker()
    kept, lost = world.fulfilled(2), world.fulfilled(3)

    for _ in range(24):
        world.clock.advance(3590.0)
        world.run(10)  # a sweep, so that the call finds it fresh
        world.to_give_up(kept)

    assert world.live() == ids(kept) | ids(lost)


def test_requests_of_the_operator_are_never_unknown(world: World) -> None:
    """Nobody polls what an operator asked for: it stays."""
    worker = world.start_worker()
    known = world.request(1)
    request_id = world.request(3)
    worker.store.connection.execute(
        "UPDATE requests SET source = 'operator' WHERE request_id = ?", (request_id,)
    )

    world.run(900, poll=host_factory(world, [known], []), step=2.0)

    assert len(world.live()) == 4


def test_what_is_missed_is_forgotten_when_it_is_seen(world: World) -> None:
    """The worker's list of what HostFactory has not named holds what is open, not history."""
    world.start_worker()
    machines = world.fulfilled(3)
    world.run(2)
    assert len(world.query("SELECT id FROM unseen")) == 3

    world.to_give_up(machines)
    world.run(2)

    assert world.query("SELECT id FROM unseen") == []


def test_first_sightings_only_become_events(world: World) -> None:
    """A hundred polls of the same things are one RequestsSeen for the request, one for its final
    answer and one MachinesSeen."""
    world.start_worker()
    request_id = world.request(2)
    world.run(100, poll=lambda: world.status(request_id))
    machines = world.status(request_id)["machines"]

    world.run(100, poll=lambda: world.to_give_up(machines))

    assert len(world.events("RequestsSeen")) == 2
    assert len(world.events("MachinesSeen")) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["auto", "external"])
def test_idle_worker_ends(make_world: MakeWorld, mode: str, way: str) -> None:
    """With nothing open, nothing alive and nothing of ours left at AWS a started worker ends after
    worker.idle_timeout; one that a service runs stays."""
    world = make_world(
        way=way,
        settings={"HOSTLEDGER_WORKER__MODE": mode},
        boot_time=20.0,
        shutdown_time=15.0,
    )
    worker = world.start_worker()
    world.run(1)
    machines = world.fulfilled(2)
    world.run(400, step=5.0)
    assert world.workers == [worker], "machines live: it is not idle"
    assert world.run_until_final(world.give_back(machines))["status"] == "complete"
    left = {"hostledger:deployment": world.deployment}
    world.run(100, lambda: world.sandbox.leftovers(left) == {})

    world.run(290, step=5.0)
    assert world.workers == [worker]
    world.run(15)

    assert world.workers == ([] if mode == "auto" else [worker])
    world.assert_nothing_left()


def test_an_idle_worker_asks_once_a_sweep_interval(make_world: MakeWorld) -> None:
    """With nothing open EC2 is asked once a minute and no more."""
    world = make_world(quotas=Quotas.aws())
    world.start_worker()

    world.run(600)

    assert {call.action for call in world.sandbox.calls} == {"DescribeInstances"}
    assert len(world.sandbox.calls) <= 10


def test_a_request_cancelled_by_somebody_else(world: World) -> None:
    """The operator cancels an unknown request just when the worker is about to: the worker goes
    on."""
    lost = world.request(1)
    known = world.request(1)
    world.write_config({"AWS_REGION": "us-east-1", "INSTANCE_CREATION_TIMEOUT": "1"})
    cancelled: list[str] = []
    armed: list[bool] = []

    def random(size: int) -> bytes:
        if armed and size == 16 and not cancelled:
            cancelled.append(world.cancel(lost))
        return world.random(size)

    world.sandbox.add_fault("hang", action="RunInstances", times=-1)
    worker = world.start_worker(random=providers.Object(random))
    poll = host_factory(world, [known], [])
    world.run(45, poll=poll)
    armed.append(True)
    world.run(120, poll=poll)

    assert cancelled
    assert world.workers == [worker]
    assert world.status(lost)["status"] == "complete_with_error"


def test_a_turn_that_succeeds_ends_the_stumble(world: World) -> None:
    """The reason of a failed turn is told while it lasts, and a worker that ends later did not
    fail: the next call may start another at once."""
    worker = world.start_worker()
    world.tick()
    world.request(1)
    other = sqlite.connect(world.path, timeout=0.0, isolation_level=None)
    worker.store.connection.execute("PRAGMA busy_timeout = 0")
    other.execute("BEGIN IMMEDIATE")
    world.tick()
    assert worker.reason
    other.execute("ROLLBACK")
    other.close()
    world.run(5)

    assert worker.reason == ""
    worker.end()
    world.workers.remove(worker)
    facts = worker_start.status(world.site)
    assert facts["ended"]
    assert not facts["failures"]


def test_a_return_before_running_is_the_reason(world: World) -> None:
    """Machines handed back while they were pending are what is missing, not the deadline."""
    world.start_worker()
    request_id = world.request(2)
    world.run(5)
    world.give_back(world.status(request_id)["machines"])

    answer = world.run_until_final(request_id)

    assert answer["status"] == "complete_with_error"
    assert "2 were returned before they ran" in answer["message"]
    assert "deadline" not in answer["message"]


def test_a_turn_asks_no_more_of_the_store_for_more_machines(world: World) -> None:
    """Machines that HostFactory has been told of and has not named are asked after together."""
    worker = world.start_worker()
    counts = []
    for count in (1, 5):
        world.fulfilled(count)
        world.run(20)
        asked: list[str] = []
        worker.store.connection.set_trace_callback(asked.append)
        worker.turn()
        worker.store.connection.set_trace_callback(None)
        counts.append(len(asked))
    assert len(world.query("SELECT id FROM unseen")) == 6
    assert counts[0] == counts[1]
