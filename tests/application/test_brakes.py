"""The operator's brake: what is paused makes no call, what is resumed goes on as if nothing was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from application.pausing import Pause, Resume, pause, resume
from domain.brake import EVERYTHING, LAUNCHING
from infrastructure.event_store.sqlite import SqliteEventStore
from tests.world import TEMPLATE, WAYS, World

MakeWorld = Callable[..., World]

LONG = {**TEMPLATE, "fulfilmentDeadline": 7200}
LOOKS = ("Describe", "Get", "Receive")


def brake(world: World, scope: str) -> None:
    """What `hostledger pause` does; "" is `hostledger resume`."""
    store = SqliteEventStore(world.path, world.clock, {"user": "test"})
    try:
        if scope:
            pause(Pause(scope, "stop it", world.random(16)), store)
        else:
            resume(Resume("go on", world.random(16)), store)
    finally:
        store.close()


def changing(world: World, since: int = 0) -> list[str]:
    """The calls since then that change something at AWS."""
    return [c.action for c in world.sandbox.calls[since:] if not c.action.startswith(LOOKS)]


def site(make_world: MakeWorld, way: str, **options: Any) -> World:
    return make_world(
        templates=[LONG],
        boot_time=5.0,
        shutdown_time=5.0,
        fleet_delay=3.0,
        way=way,
        **options,
    )


def long_lasting(world: World) -> None:
    """WAYS give some templates a deadline of their own: let requests wait here."""
    path = world.root / "conf/awsprov_templates.json"
    document = json.loads(path.read_text())
    for template in document["templates"]:
        template["fulfilmentDeadline"] = 7200
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("scope", [EVERYTHING, LAUNCHING])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_launched_while_paused(make_world: MakeWorld, way: str, scope: str) -> None:
    """A request waits without a mutating call, says why, and is fulfilled when it is resumed."""
    world = site(make_world, way)
    long_lasting(world)
    brake(world, scope)
    world.start_worker()
    request_id = world.request(2)
    world.run(400, step=5.0)

    assert changing(world) == []
    assert world.live() == set()
    answer = world.call("getRequestStatus", {"requests": [{"requestId": request_id}]})
    assert answer["requests"][0]["status"] == "running"
    assert f"{scope} is paused by an operator: stop it" in answer["message"]

    brake(world, "")
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.live()) == 2
    world.assert_agreement()


@pytest.mark.parametrize("way", WAYS)
def test_returns_go_on_while_launching_is_paused(make_world: MakeWorld, way: str) -> None:
    """Only launching stands still: what is returned ends, fleets and launch templates go with
    it."""
    world = site(make_world, way)
    world.start_worker()
    machines = world.fulfilled(2)
    brake(world, LAUNCHING)
    before = len(world.launches())

    answer = world.run_until_final(world.give_back(machines))

    assert answer["status"] == "complete"
    world.run(900, step=5.0)
    assert len(world.launches()) == before
    world.assert_nothing_left()


@pytest.mark.parametrize("way", WAYS)
def test_returns_wait_while_everything_is_paused(make_world: MakeWorld, way: str) -> None:
    """No machine ends, no target is lowered, nothing is deleted or tagged; then all of it is."""
    world = site(make_world, way, settings={"HOSTLEDGER_PROVIDER__AWS__TAG_INSTANCE_ID": "true"})
    world.start_worker()
    machines = world.fulfilled(2)
    brake(world, EVERYTHING)
    before = len(world.sandbox.calls)
    return_id = world.give_back(machines)
    world.run(200, step=2.0)

    assert changing(world, before) == []
    assert world.status(return_id)["status"] == "running"
    assert len(world.live()) == 2

    brake(world, "")
    assert world.run_until_final(return_id)["status"] == "complete"
    world.run(900, step=5.0)
    world.assert_nothing_left()


@pytest.mark.parametrize("scope", [EVERYTHING, LAUNCHING])
@pytest.mark.parametrize("way", WAYS)
def test_an_open_intent_is_not_sent_again_while_paused(
    make_world: MakeWorld, way: str, scope: str
) -> None:
    """Its answer was lost: it is asked for when launching is resumed, under the same token."""
    world = site(make_world, way)
    long_lasting(world)
    world.start_worker()
    request_id = world.request(2)
    world.die_at(f"aws.{world.action}.after")
    sent = len(world.launches())
    brake(world, scope)
    world.start_worker()
    world.run(300, step=3.0)

    assert len(world.launches()) == sent
    assert len(world.events("LaunchIntended")) == 1

    brake(world, "")
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.live()) == 2
    assert len({call.client_token for call in world.launches()}) == 1
    world.assert_agreement()


@pytest.mark.parametrize(
    "way", ["fleet-request", "fleet-maintain", "spot-fleet-request", "spot-fleet-maintain", "group"]
)
def test_a_fleet_that_is_filling_launches_no_more_while_launching_is_paused(
    make_world: MakeWorld, way: str
) -> None:
    """AWS would go on by itself: its target is lowered to what it has, or it is deleted; resumed,
    the rest is launched anew, and nothing twice."""
    world = site(make_world, way)
    long_lasting(world)
    world.sandbox.set_capacity(2)
    world.start_worker()
    request_id = world.request(5)
    assert world.run(60, lambda: len(world.events("MachineRunning")) == 2)

    brake(world, LAUNCHING)
    world.run(90)
    world.sandbox.set_capacity(None)
    world.run(200, step=2.0)
    assert len(world.live()) == 2
    assert world.status(request_id)["status"] == "running"

    brake(world, "")
    assert world.run_until_final(request_id)["status"] == "complete"
    world.run(150, step=2.0)
    assert len(world.live()) == 5
    world.assert_agreement()


def test_a_burst_stops_where_it_is_paused(make_world: MakeWorld) -> None:
    """The brake is obeyed between two calls of a turn, not at its end."""
    templates = [{**LONG, "templateId": f"T{number}"} for number in range(4)]
    world = make_world(templates=templates, boot_time=5.0)
    requests = [world.request(1, f"T{number}") for number in range(4)]
    with world.pausing_at("aws.RunInstances.after", lambda: brake(world, LAUNCHING)):
        world.start_worker()
        world.run(60)

    assert len(world.launches()) == len(world.events("LaunchIntended")) == 1
    brake(world, "")
    for request_id in requests:
        assert world.run_until_final(request_id)["status"] == "complete"
    world.assert_agreement()


@pytest.mark.parametrize("way", WAYS)
def test_an_intent_that_was_just_recorded_is_not_sent(make_world: MakeWorld, way: str) -> None:
    """Paused between the intent and its call: it is sent when launching is resumed."""
    world = site(make_world, way)
    long_lasting(world)
    request_id = world.request(2)
    with world.pausing_at("commit.LaunchIntended.after", lambda: brake(world, LAUNCHING)):
        world.start_worker()
        world.run(60)
    assert world.launches() == []
    assert len(world.events("LaunchIntended")) == 1

    brake(world, "")
    assert world.run_until_final(request_id)["status"] == "complete"
    assert len(world.launches()) == len(world.events("LaunchIntended")) == 1
    world.assert_agreement()


def test_terminations_stop_where_everything_is_paused(make_world: MakeWorld) -> None:
    """The same in the middle of a return of more machines than a call takes."""
    world = make_world(
        templates=[LONG],
        boot_time=5.0,
        settings={"HOSTLEDGER_PROVIDER__AWS__BATCH_SIZES__TERMINATE_INSTANCES": "1"},
    )
    world.start_worker()
    machines = world.fulfilled(3)
    with world.pausing_at("aws.TerminateInstances.after", lambda: brake(world, EVERYTHING)):
        return_id = world.give_back(machines)
        world.run(60)

    assert len(world.calls_of("TerminateInstances")) == 1
    assert len(world.live()) == 2
    brake(world, "")
    assert world.run_until_final(return_id)["status"] == "complete"
    world.assert_agreement()


def test_a_request_that_its_deadline_ends_while_paused_says_so(make_world: MakeWorld) -> None:
    """The final answer names the brake and its reason; nothing was launched for it."""
    world = make_world(templates=[{**TEMPLATE, "fulfilmentDeadline": 60}])
    brake(world, LAUNCHING)
    world.start_worker()

    answer = world.run_until_final(world.request(2), 200.0)

    assert answer["status"] == "complete_with_error"
    assert "launching is paused: stop it" in answer["message"]
    assert world.launches() == []


def test_notices_stay_in_the_queue_while_everything_is_paused(make_world: MakeWorld) -> None:
    """A machine that AWS takes is told to HostFactory; the queue is not changed until it is
    resumed."""
    world = make_world(
        templates=[{**LONG, "priceType": "spot"}], boot_time=5.0, way="fleet-instant"
    )
    queue = world.sandbox.create_queue("notices", events=True)
    world.environ["HOSTLEDGER_PROVIDER__AWS__INTERRUPTION_QUEUE"] = queue
    world.start_worker()
    machines = world.fulfilled(1)
    brake(world, EVERYTHING)
    before = len(world.sandbox.calls)
    world.sandbox.interrupt([machines[0]["machineId"]], notice=600.0)
    world.sandbox.send_message(queue, "junk")
    world.run(60)

    assert changing(world, before) == []
    assert [e["reason"] for e in world.events("MachineInterrupted")] == ["interruption"]
    brake(world, "")
    world.run(90)
    assert "DeleteMessageBatch" in changing(world, before)
