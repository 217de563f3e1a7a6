"""The fault rows of a launch, for every way to launch: whatever is lost or late, exactly N machines
live and are ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from infrastructure.sandbox.ec2 import Quotas
from tests.stores import FOUR
from tests.world import TEMPLATE, WAYS, World, every_way

MakeWorld = Callable[..., World]

N = 5
LONG = {**TEMPLATE, "fulfilmentDeadline": 7200}
TWO_SUBNETS = {**TEMPLATE, "subnetId": "subnet-a1, subnet-b1"}

AT_ONCE = ("RunInstances", "fleet-instant")
"""Ways whose call answers with the machines; the others' are found by their tags."""

with_a_token = pytest.mark.parametrize("way", [way for way in WAYS if way != "group"])

EVERY_STORE = FOUR


def assert_exactly(world: World, request_id: str, count: int = N) -> dict[str, Any]:
    """The request is complete with so many machines, and they are all that lives."""
    answer = world.final(request_id)
    assert answer["status"] == "complete", answer
    assert [m["result"] for m in answer["machines"]] == ["succeed"] * count
    world.run(150, step=10.0)  # two sweeps: whatever else lives has been found by now
    assert len(world.live()) == count
    world.assert_agreement()
    return answer


def sent(world: World) -> set[str | None]:
    """What makes the launch calls one: their token; of groups, which take none, their name."""
    if world.way == "group":
        return {call.params["AutoScalingGroupName"] for call in world.launches()}
    return {call.client_token for call in world.launches()}


def intended(world: World) -> set[str]:
    """The same of the intents in the log."""
    if world.way == "group":
        return {intent["payload"]["AutoScalingGroupName"] for intent in world.events(INTENT)}
    return {intent["token"] for intent in world.events(INTENT)}


INTENT = "LaunchIntended"


def again(world: World) -> str:
    """What AWS answers to a launch that it has done before."""
    return "AlreadyExists" if world.way == "group" else "ok"


@pytest.mark.stores("sqlite")
@every_way
def test_fault_01_throttle_burst(make_world: MakeWorld, way: str) -> None:
    """Five throttles in a row and AWS's own small bucket: all are launched, and AWS never has to
    refuse one for coming too fast."""
    templates = [{**TEMPLATE, "templateId": f"T{i}"} for i in range(12)]
    world = make_world(way=way, templates=templates, boot_time=5.0, quotas=Quotas.aws())
    world.sandbox.add_fault("throttle", action=world.action, times=5)
    for i in range(12):
        world.request(1, f"T{i}")
    world.start_worker()

    waiting = "SELECT count(*) FROM requests WHERE final = 0"
    assert world.run(280, lambda: world.query(waiting) == [(0,)], step=2.0)

    outcomes = [call.outcome for call in world.launches()]
    assert outcomes.count("throttle") == 5
    assert outcomes.count("ok") == 12 == len(world.live())
    assert len(outcomes) == 17, "no call met an empty bucket of AWS"
    assert {call.outcome for call in world.sandbox.calls} == {"ok", "throttle"}
    assert len(world.events(INTENT)) == 12, "a throttle is no rejection: no new intent"
    world.assert_agreement()


@every_way
def test_fault_04_lost_launch_response(way_world: World) -> None:
    """The answer is cut off: the call is made again with its token, or its name, and AWS answers it
    anew."""
    world = way_world
    world.sandbox.add_fault("lost_response", action=world.action)
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    assert [call.outcome for call in world.launches()] == ["lost_response", again(world)]
    assert len(sent(world)) == 1
    world.leave_nothing()


@pytest.mark.stores("sqlite")
@every_way
def test_fault_05_launch_finishes_after_read_timeout(way_world: World) -> None:
    """We stop waiting, AWS goes on: the same token, or name, makes both calls one launch."""
    world = way_world
    world.sandbox.add_fault("slow", action=world.action, late=20.0)
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    assert len(sent(world)) == 1
    assert [event["epoch"] for event in world.events(INTENT)] == [0]


@every_way
@pytest.mark.parametrize("point", ["aws.{}.after", "commit.LaunchAccepted.before"])
def test_fault_06_killed_between_launch_and_event(
    make_world: MakeWorld, way: str, point: str
) -> None:
    """Killed with the launch done and not recorded, and nothing visible yet: the stored intent is
    sent again under the token that is in the log."""
    world = make_world(way=way, boot_time=20.0, visibility_lag=30.0)
    world.start_worker()
    request_id = world.request(N)
    world.die_at(point.format(world.action))
    assert len(world.live()) == N
    assert world.events("LaunchAccepted") == []

    world.start_worker()

    assert_exactly(world, request_id)
    assert sent(world) == intended(world)
    assert [call.outcome for call in world.launches()] == ["ok", again(world)]
    world.leave_nothing()


@every_way
@pytest.mark.parametrize("point", ["commit.LaunchIntended.after", "aws.{}.before"])
def test_fault_07_killed_between_intent_and_call(way_world: World, point: str) -> None:
    """Killed with the intent written and nothing sent: the next worker sends it."""
    world = way_world
    world.start_worker()
    request_id = world.request(N)
    world.die_at(point.format(world.action))
    assert world.live() == set()

    world.start_worker()

    assert_exactly(world, request_id)
    assert sent(world) == intended(world)
    assert len(world.launches()) == 1


@every_way
def test_fault_08_template_changed_before_restart(way_world: World) -> None:
    """The template has another image when the worker comes back: the stored bytes are sent, AWS
    sees no mismatch."""
    world = way_world
    world.start_worker()
    request_id = world.request(N)
    world.die_at(f"aws.{world.action}.after")
    world.write_templates([{**TEMPLATE, "imageId": "ami-ffffffff"}])

    world.start_worker()

    assert_exactly(world, request_id)
    first, second = world.launches()
    assert first.params == second.params
    assert second.outcome == again(world)
    assert images(world) == {TEMPLATE["imageId"]}


def images(world: World) -> set[str]:
    """The images that the launch calls, or the launch templates made for them, name."""
    calls = world.launches() + world.calls_of("CreateLaunchTemplate")
    names = ("ImageId", "LaunchTemplateData.ImageId")
    return {call.params[name] for call in calls for name in names if name in call.params}


@pytest.mark.stores("sqlite")
@every_way
def test_fault_09_new_ids_not_visible(make_world: MakeWorld, way: str) -> None:
    """Machines that EC2 does not show for 30 s: none is dropped, none is launched again."""
    world = make_world(
        way=way,
        boot_time=20.0,
        visibility_lag=30.0,
        settings={"HOSTLEDGER_PROVIDER__AWS__SWEEP_INTERVAL": "5"},
    )
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    assert len(world.launches()) == 1
    assert world.events("MachineLost") == []


@every_way
def test_fault_10_capacity_one_of_n(make_world: MakeWorld, way: str) -> None:
    """A pool that has one machine gives one; the others come from the other subnet, which AWS takes
    itself where the call names both."""
    world = make_world(way=way, templates=[TWO_SUBNETS], boot_time=20.0)
    world.sandbox.set_capacity(1, subnet="subnet-a1")
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    subnets = [one["subnet"] for one in world.sandbox.live_instances().values()]
    assert sorted(subnets) in (["subnet-a1"] + ["subnet-b1"] * 4, ["subnet-b1"] * 5)
    if way == "RunInstances":
        assert [(c.params["SubnetId"], c.params["MaxCount"]) for c in world.launches()] == [
            ("subnet-a1", "5"),
            ("subnet-b1", "4"),
        ]
    else:
        assert len(world.launches()) == 1


@every_way
def test_fault_10_capacity_comes_later(make_world: MakeWorld, way: str) -> None:
    """All pools have two of five for two minutes: what is missing is launched when there is
    capacity again, before the deadline."""
    world = make_world(way=way, templates=[{**TEMPLATE, "fulfilmentDeadline": 900}], boot_time=20.0)
    world.sandbox.set_capacity(2)
    world.start_worker()
    request_id = world.request(N)
    world.run(120, step=5.0)
    assert len(world.live()) == 2 == len(world.owned())

    world.sandbox.set_capacity(None)

    assert_exactly(world, request_id)
    world.leave_nothing()


@pytest.mark.stores("sqlite")
@every_way
def test_fault_16_region_down_for_ten_minutes(way_world: World) -> None:
    """Every connection is cut for ten minutes, from the launch on: the breaker opens, the intent
    survives, and it is the one that is sent when the region is back."""
    world = way_world

    def go_down() -> None:
        world.sandbox.add_fault("reset_before", action="*", times=-1)

    if way_makes_a_template(world):
        world.sandbox.add_fault("kill", action="CreateLaunchTemplate", then=go_down)
    else:
        go_down()
    world.start_worker()
    request_id = world.request(N)

    world.run(600, step=2.0)

    assert world.status(request_id)["status"] == "running"
    down = len(world.sandbox.calls)
    assert down <= 60, "an open breaker lets one call in 30 s probe each API"
    world.sandbox.clear_faults()
    assert_exactly(world, request_id)
    assert len(world.events(INTENT)) == 1
    assert sent(world) == intended(world)


def way_makes_a_template(world: World) -> bool:
    return world.way != "RunInstances"


@pytest.mark.parametrize(
    ("way", "trouble"),
    # What is recorded of a launch without its machines fits into the pages that are there.
    [(way, "locked") for way in WAYS] + [(way, "full") for way in AT_ONCE],
)
@pytest.mark.stores("sqlite")
def test_fault_19_store_fails_after_launch(way_world: World, trouble: str) -> None:
    """The disk is full, or the store is held, just when the launch is to be recorded: the intent is
    sent again later and its outcome recorded then."""
    world = way_world
    worker = world.start_worker()
    worker.store.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("VACUUM")  # pages that are free would take what does not fit

    def fail() -> None:
        if trouble == "locked":
            other.execute("BEGIN IMMEDIATE")
        else:
            (pages,) = worker.store.connection.execute("PRAGMA page_count").fetchone()
            worker.store.connection.execute(f"PRAGMA max_page_count = {pages}")

    world.sandbox.add_fault("kill", action=world.action, then=fail)
    request_id = world.request(N)
    world.run(20)
    assert len(world.live()) == N
    assert world.events("LaunchAccepted") == []

    if trouble == "locked":
        other.execute("ROLLBACK")
    else:
        worker.store.connection.execute("PRAGMA max_page_count = 1073741823")
    other.close()

    assert_exactly(world, request_id)
    assert len(sent(world)) == 1


@pytest.mark.stores("sqlite")
@every_way
def test_fault_19_rejection_after_unrecorded_launch(make_world: MakeWorld, way: str) -> None:
    """A launch that could not be recorded makes a later rejection of its token ambiguous: it is
    settled by tag, not launched again, and a fleet that was made launches no more."""
    world = make_world(way=way, templates=[LONG], boot_time=20.0)
    worker = world.start_worker()
    worker.store.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(world.path, isolation_level=None)
    world.sandbox.add_fault(
        "kill", action=world.action, then=lambda: other.execute("BEGIN IMMEDIATE")
    )
    world.sandbox.add_fault(
        "error", action=world.action, code="InsufficientInstanceCapacity", status=500
    )
    request_id = world.request(N)
    world.run(5)
    other.execute("ROLLBACK")
    other.close()

    assert_exactly(world, request_id)

    (rejected,) = world.events("LaunchRejected")
    assert rejected["definite"] is False
    assert len(world.events("LaunchSettled")[0]["instances"]) == N
    world.leave_nothing()


@every_way
def test_fault_22_rejection_after_ambiguous_attempt(make_world: MakeWorld, way: str) -> None:
    """A time-out, then a rejection of the same token, and the first attempt succeeds after all,
    minutes later: settled by two sweeps, exactly N."""
    world = make_world(way=way, templates=[LONG], boot_time=20.0)
    world.sandbox.add_fault("slow", action=world.action, late=240.0)
    world.sandbox.add_fault(
        "error", action=world.action, code="InsufficientInstanceCapacity", status=500
    )
    world.start_worker()
    request_id = world.request(N)

    answer = assert_exactly(world, request_id)

    (rejected,) = world.events("LaunchRejected")
    assert rejected["definite"] is False
    (settled,) = world.events("LaunchSettled")
    assert {i["machine_id"] for i in settled["instances"]} == {
        m["machineId"] for m in answer["machines"]
    }
    assert len(world.launches()) == 2, "a settled batch is not launched again"
    world.leave_nothing()


@every_way
def test_fault_24_token_forgotten_over_a_weekend(way_world: World) -> None:
    """Sixty hours after the crash AWS has forgotten the token: nothing is sent again, what was
    launched is found by its tag."""
    world = way_world
    world.start_worker()
    request_id = world.request(N)
    world.die_at(f"aws.{world.action}.after")
    world.clock.advance(60 * 3600.0)

    world.start_worker()

    assert_exactly(world, request_id)
    assert len(world.launches()) == 1
    assert [e["code"] for e in world.events("LaunchRejected")] == ["TokenTooOld"]
    world.leave_nothing()


@with_a_token
def test_fault_25_idempotent_parameter_mismatch(way_world: World) -> None:
    """AWS says that the token was used for something else: no other token is tried before two
    sweeps have looked, and the request ends."""
    world = way_world
    world.sandbox.add_fault("error", action=world.action, code="IdempotentParameterMismatch")
    world.start_worker()
    request_id = world.request(N)

    answer = world.final(request_id, 900.0)

    assert answer["status"] == "complete_with_error"
    assert len(world.launches()) == 1
    (settled,) = world.events("LaunchSettled")
    assert settled["instances"] == []
    assert world.live() == set()
    world.leave_nothing()


@with_a_token
def test_fault_25_demand_is_open_again_after_settling(make_world: MakeWorld, way: str) -> None:
    """While the request's deadline lasts, what a mismatch settled as nothing is launched anew."""
    world = make_world(way=way, templates=[LONG], boot_time=20.0)
    world.sandbox.add_fault("error", action=world.action, code="IdempotentParameterMismatch")
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    topics = world.topics()
    intents = [i for i, topic in enumerate(topics) if topic == INTENT]
    assert len(intents) == 2 and topics.index("LaunchSettled") < intents[1]
    first, second = world.query("SELECT stream FROM events WHERE topic = 'LaunchIntended'")
    assert first != second, "a settled batch never gets another epoch"


@every_way
def test_fault_payload_is_what_the_intent_says(way_world: World) -> None:
    """What AWS was sent is what the log says was intended, of the launch and of its template."""
    world = way_world
    world.start_worker()
    assert_exactly(world, world.request(N))

    (intent,) = world.events(INTENT)
    (call,) = world.launches()
    assert leaves(intent["payload"]) <= set(call.params.values())
    assert world.deployment in call.params.values()
    made = world.events("LaunchTemplateIntended")
    assert len(made) == way_makes_a_template(world)
    for template, call in zip(made, world.calls_of("CreateLaunchTemplate"), strict=True):
        assert leaves(template["payload"]) <= set(call.params.values())


def leaves(payload: Any) -> set[str]:
    """Every value that stands in a payload, as it is sent."""
    if isinstance(payload, dict):
        return {leaf for value in payload.values() for leaf in leaves(value)}
    if isinstance(payload, list):
        return {leaf for value in payload for leaf in leaves(value)}
    return {str(payload).lower() if isinstance(payload, bool) else str(payload)}
