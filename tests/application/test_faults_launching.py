"""The fault rows of a launch: whatever is lost or late, exactly N machines live and are ours."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from infrastructure.sandbox.ec2 import Quotas
from tests.world import TEMPLATE, World

MakeWorld = Callable[..., World]

N = 5
LONG = {**TEMPLATE, "fulfilmentDeadline": 7200}
TWO_SUBNETS = {**TEMPLATE, "subnetId": "subnet-a1, subnet-b1"}


def assert_exactly(world: World, request_id: str, count: int = N) -> dict[str, Any]:
    """The request is complete with so many machines, and they are all that lives."""
    answer = world.run_until_final(request_id, 3600.0)
    assert answer["status"] == "complete", answer
    assert [m["result"] for m in answer["machines"]] == ["succeed"] * count
    world.run(150)  # two sweeps: whatever else lives has been found by now
    assert len(world.live()) == count
    world.assert_agreement()
    return answer


def tokens(world: World) -> set[str | None]:
    return {call.client_token for call in world.launches()}


def test_fault_01_throttle_burst(make_world: MakeWorld) -> None:
    """Five throttles in a row and AWS's own small bucket: all are launched, and AWS never has to
    refuse one for coming too fast."""
    templates = [{**TEMPLATE, "templateId": f"T{i}"} for i in range(12)]
    world = make_world(templates=templates, boot_time=5.0, quotas=Quotas.aws())
    world.sandbox.add_fault("throttle", action="RunInstances", times=5)
    requests = [world.request(1, f"T{i}") for i in range(12)]
    world.start_worker()

    assert world.run(280, lambda: all(world.status(r)["status"] == "complete" for r in requests))

    outcomes = [call.outcome for call in world.launches()]
    assert outcomes.count("throttle") == 5
    assert outcomes.count("ok") == 12 == len(world.live())
    assert len(outcomes) == 17, "no call met an empty bucket of AWS"
    assert len(world.events("LaunchIntended")) == 12, "a throttle is no rejection: no new intent"
    world.assert_agreement()


def test_fault_04_lost_launch_response(world: World) -> None:
    """The answer is cut off: the call is made again with its token, and AWS answers it anew."""
    world.sandbox.add_fault("lost_response", action="RunInstances")
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    assert [call.outcome for call in world.launches()] == ["lost_response", "ok"]
    assert len(tokens(world)) == 1


def test_fault_05_launch_finishes_after_read_timeout(world: World) -> None:
    """We stop waiting, EC2 goes on: the same token makes both calls one launch."""
    world.sandbox.add_fault("slow", action="RunInstances", late=20.0)
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    assert len(tokens(world)) == 1
    assert [event["epoch"] for event in world.events("LaunchIntended")] == [0]


@pytest.mark.parametrize("point", ["aws.RunInstances.after", "commit.LaunchAccepted.before"])
def test_fault_06_killed_between_launch_and_event(make_world: MakeWorld, point: str) -> None:
    """Killed with the launch done and not recorded, and nothing visible yet: the stored intent is
    sent again under the token that is in the log."""
    world = make_world(boot_time=20.0, visibility_lag=30.0)
    world.start_worker()
    request_id = world.request(N)
    world.die_at(point)
    assert len(world.live()) == N
    assert world.events("LaunchAccepted") == []

    world.start_worker()

    assert_exactly(world, request_id)
    (intent,) = world.events("LaunchIntended")
    assert tokens(world) == {intent["token"]}
    assert len(world.launches()) == 2


@pytest.mark.parametrize("point", ["commit.LaunchIntended.after", "aws.RunInstances.before"])
def test_fault_07_killed_between_intent_and_call(world: World, point: str) -> None:
    """Killed with the intent written and nothing sent: the next worker sends it."""
    world.start_worker()
    request_id = world.request(N)
    world.die_at(point)
    assert world.live() == set()

    world.start_worker()

    assert_exactly(world, request_id)
    (intent,) = world.events("LaunchIntended")
    assert tokens(world) == {intent["token"]}


def test_fault_08_template_changed_before_restart(world: World) -> None:
    """The template has another image when the worker comes back: the stored bytes are sent, EC2
    sees no mismatch."""
    world.start_worker()
    request_id = world.request(N)
    world.die_at("aws.RunInstances.after")
    world.write_templates([{**TEMPLATE, "imageId": "ami-ffffffff"}])

    world.start_worker()

    assert_exactly(world, request_id)
    first, again = world.launches()
    assert first.params == again.params
    assert again.params["ImageId"] == TEMPLATE["imageId"]
    assert again.outcome == "ok"


def test_fault_09_new_ids_not_visible(make_world: MakeWorld) -> None:
    """Ids that EC2 gave and does not show for 30 s: none is dropped, none is launched again."""
    world = make_world(
        boot_time=20.0,
        visibility_lag=30.0,
        settings={"HOSTLEDGER_PROVIDER__AWS__SWEEP_INTERVAL": "5"},
    )
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    assert len(world.launches()) == 1
    assert world.events("MachineLost") == []


def test_fault_10_capacity_one_of_n(make_world: MakeWorld) -> None:
    """A pool that has one machine gives one; the others come from the next subnet."""
    world = make_world(templates=[TWO_SUBNETS], boot_time=20.0)
    world.sandbox.add_fault("cap", action="RunInstances", times=-1, limit=1, subnet="subnet-a1")
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    assert [(c.params["SubnetId"], c.params["MaxCount"]) for c in world.launches()] == [
        ("subnet-a1", "5"),
        ("subnet-b1", "4"),
    ]


def test_fault_16_region_down_for_ten_minutes(world: World) -> None:
    """Every connection is cut for ten minutes: the breaker opens, the intent survives, and it is
    the one that is sent when the region is back."""
    world.sandbox.add_fault("reset_before", action="*", times=-1)
    world.start_worker()
    request_id = world.request(N)

    world.run(600)

    assert world.status(request_id)["status"] == "running"
    down = len(world.sandbox.calls)
    assert down <= 60, "an open breaker lets one call in 30 s probe each API"
    world.sandbox.clear_faults()
    assert_exactly(world, request_id)
    (intent,) = world.events("LaunchIntended")
    assert tokens(world) == {intent["token"]}


@pytest.mark.parametrize("trouble", ["locked", "full"])
def test_fault_19_store_fails_after_launch(world: World, trouble: str) -> None:
    """The disk is full, or the store is held, just when the launch is to be recorded: the intent is
    sent again later and its outcome recorded then."""
    worker = world.start_worker()
    worker.store.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(world.path, isolation_level=None)

    def fail() -> None:
        if trouble == "locked":
            other.execute("BEGIN IMMEDIATE")
        else:
            (pages,) = worker.store.connection.execute("PRAGMA page_count").fetchone()
            worker.store.connection.execute(f"PRAGMA max_page_count = {pages}")

    world.sandbox.add_fault("kill", action="RunInstances", then=fail)
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
    assert len(tokens(world)) == 1


def test_fault_19_rejection_after_unrecorded_launch(make_world: MakeWorld) -> None:
    """A launch that could not be recorded makes a later rejection of its token ambiguous: it is
    settled by tag, not launched again."""
    world = make_world(templates=[LONG], boot_time=20.0)
    worker = world.start_worker()
    worker.store.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(world.path, isolation_level=None)
    world.sandbox.add_fault(
        "kill", action="RunInstances", then=lambda: other.execute("BEGIN IMMEDIATE")
    )
    world.sandbox.add_fault(
        "error", action="RunInstances", code="InsufficientInstanceCapacity", status=500
    )
    request_id = world.request(N)
    world.run(5)
    other.execute("ROLLBACK")
    other.close()

    assert_exactly(world, request_id)

    (rejected,) = world.events("LaunchRejected")
    assert rejected["definite"] is False
    assert len(world.events("LaunchSettled")[0]["instances"]) == N


def test_fault_22_rejection_after_ambiguous_attempt(make_world: MakeWorld) -> None:
    """A time-out, then a rejection of the same token, and the first attempt succeeds after all,
    minutes later: settled by two sweeps, exactly N."""
    world = make_world(templates=[LONG], boot_time=20.0)
    world.sandbox.add_fault("slow", action="RunInstances", late=240.0)
    world.sandbox.add_fault(
        "error", action="RunInstances", code="InsufficientInstanceCapacity", status=500
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


def test_fault_24_token_forgotten_over_a_weekend(world: World) -> None:
    """Sixty hours after the crash EC2 has forgotten the token: nothing is sent again, what was
    launched is found by its tag."""
    world.start_worker()
    request_id = world.request(N)
    world.die_at("aws.RunInstances.after")
    world.clock.advance(60 * 3600.0)

    world.start_worker()

    assert_exactly(world, request_id)
    assert len(world.launches()) == 1
    assert [e["code"] for e in world.events("LaunchRejected")] == ["TokenTooOld"]


def test_fault_25_idempotent_parameter_mismatch(world: World) -> None:
    """EC2 says that the token was used for something else: no other token is tried before two
    sweeps have looked, and the request ends."""
    world.sandbox.add_fault("error", action="RunInstances", code="IdempotentParameterMismatch")
    world.start_worker()
    request_id = world.request(N)

    answer = world.run_until_final(request_id, 900.0)

    assert answer["status"] == "complete_with_error"
    assert len(world.launches()) == 1
    (settled,) = world.events("LaunchSettled")
    assert settled["instances"] == []
    assert world.live() == set()
    world.assert_agreement()


def test_fault_25_demand_is_open_again_after_settling(make_world: MakeWorld) -> None:
    """While the request's deadline lasts, what a mismatch settled as nothing is launched anew."""
    world = make_world(templates=[LONG], boot_time=20.0)
    world.sandbox.add_fault("error", action="RunInstances", code="IdempotentParameterMismatch")
    world.start_worker()
    request_id = world.request(N)

    assert_exactly(world, request_id)

    topics = world.topics()
    intents = [i for i, topic in enumerate(topics) if topic == "LaunchIntended"]
    assert len(intents) == 2 and topics.index("LaunchSettled") < intents[1]
    first, second = world.query("SELECT stream FROM events WHERE topic = 'LaunchIntended'")
    assert first != second, "a settled batch never gets another epoch"


def test_fault_payload_is_what_the_intent_says(world: World) -> None:
    """What EC2 was sent is what the log says was intended: image, type, subnet, counts, tags."""
    world.start_worker()
    assert_exactly(world, world.request(N))

    (intent,) = world.events("LaunchIntended")
    (call,) = world.launches()
    payload = intent["payload"]
    for name in ("ImageId", "InstanceType", "SubnetId", "MinCount", "MaxCount"):
        assert call.params[name] == str(payload[name])
    assert json.dumps(payload).count(world.deployment) == 2  # the tags of instances and volumes
