"""What the provisioning and finishing policies promise a request, beside the fault rows."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain.refusals import RequestIsFinal
from infrastructure.sandbox.ec2 import Quotas
from tests.world import TEMPLATE, World, every_way

MakeWorld = Callable[..., World]

TWO_SUBNETS = {**TEMPLATE, "subnetId": "subnet-a1, subnet-b1"}


AT_ONCE = ("RunInstances", "fleet-instant")
"""Ways whose call answers with the machines; the others' are found by their tags."""

at_once = pytest.mark.parametrize("way", AT_ONCE)


def succeeded(answer: dict[str, Any]) -> int:
    return sum(machine["result"] == "succeed" for machine in answer["machines"])


# -- pending too long -----------------------------------------------------------------------------


@every_way
def test_pending_too_long_is_replaced(way_world: World) -> None:
    """A machine that does not start within AWS_INSTANCE_PENDING_TIMEOUT_SEC is terminated,
    another one takes its place, and the request is complete."""
    world = way_world
    world.start_worker()
    request_id = world.request(3)
    world.run(5)
    stuck = sorted(world.live())[0]
    world.sandbox.stop_behind_back([stuck])

    answer = world.run_until_final(request_id)

    assert answer["status"] == "complete"
    assert succeeded(answer) == 3
    assert stuck not in world.live()
    world.run(130, step=10.0)  # a fleet that maintains its target has launched one as well
    assert len(world.live()) == 3
    ended = [t for t in world.events("TerminationIntended") if stuck in t["machine_ids"]]
    if world.way == "group":
        assert ended == [], "Auto Scaling finds it unhealthy and replaces it before that"
    else:
        assert [(t["machine_ids"], t["reason"]) for t in ended] == [
            ([stuck], "pending for longer than 180 s")
        ]
    world.leave_nothing()


@every_way
def test_pending_too_long_is_reported(make_world: MakeWorld, way: str) -> None:
    """When none ever starts the request ends with an error, later than its deadline by at most one
    pending time-out, and nothing is left."""
    world = make_world(way=way, boot_time=100_000.0, shutdown_time=15.0)
    world.start_worker()
    request_id = world.request(3)

    answer = world.final(request_id, 300 + 180 + 30)

    assert answer["status"] == "complete_with_error"
    assert succeeded(answer) == 0
    world.run(100, step=10.0)
    assert world.live() == set()
    world.leave_nothing()


def test_pending_too_long_beside_a_return(make_world: MakeWorld) -> None:
    """A group is not lowered while a member starts, and a machine of it is not ended before that:
    a member that does not start is ended all the same, so that neither waits for the other."""
    world = make_world(
        way="group",
        templates=[{**TEMPLATE, "fulfilmentDeadline": 7200}],
        boot_time=250.0,
        shutdown_time=15.0,
    )
    config = {"AWS_REGION": "us-east-1", "AWS_INSTANCE_PENDING_TIMEOUT_SEC": 1000}
    world.write_config(config)
    world.sandbox.set_capacity(1)
    worker = world.start_worker()
    request_id = world.request(2)
    world.run(280, step=10.0)
    (first,) = world.status(request_id)["machines"]
    assert first["status"] == "running"
    world.sandbox.set_capacity(None)
    world.run(40, step=5.0)
    (slow,) = world.owned() - {first["machineId"]}
    world.kill(worker)
    world.write_config({**config, "AWS_INSTANCE_PENDING_TIMEOUT_SEC": 180})
    world.start_worker()

    return_id = world.give_back([first])
    world.run(190, step=5.0)

    ended = [t for t in world.events("TerminationIntended") if slow in t["machine_ids"]]
    assert [t["reason"] for t in ended] == ["pending for longer than 180 s"]
    world.cancel(request_id)
    assert world.final(return_id)["status"] == "complete"
    world.leave_nothing()


@every_way
def test_pending_is_judged_by_ec2(way_world: World) -> None:
    """No worker lived while the machines started, and EC2 cannot be asked at first: their time
    is not up before it could."""
    world = way_world
    worker = world.start_worker()
    request_id = world.request(3)
    world.run(5)
    world.kill(worker)
    world.clock.advance(1000.0)
    world.sandbox.add_fault("e503", action="DescribeInstances", times=6)

    world.start_worker()

    assert world.run_until_final(request_id)["status"] == "complete"
    assert world.events("TerminationIntended") == []
    world.assert_agreement()


# -- shortages, quotas, refusals ------------------------------------------------------------------


def test_top_up_until_the_deadline(make_world: MakeWorld) -> None:
    """Every subnet has one machine: all are asked, and at the deadline what runs is reported
    with AWS's reason for each subnet."""
    world = make_world(templates=[TWO_SUBNETS], boot_time=20.0)
    for subnet in ("subnet-a1", "subnet-b1"):
        here = {"match": {"SubnetId": subnet}, "action": "RunInstances"}
        world.sandbox.add_fault("cap", limit=1, **here)
        world.sandbox.add_fault("cap", from_call=2, times=-1, limit=0, **here)
    world.start_worker()
    request_id = world.request(5)

    answer = world.run_until_final(request_id)

    assert 300 <= world.clock.seconds - 1000 <= 310
    assert answer["status"] == "complete_with_error"
    assert succeeded(answer) == 2
    assert answer["message"].startswith("3 of 5 machines are missing; ")
    for subnet in ("subnet-a1", "subnet-b1"):
        assert f"{subnet}/ondemand: InsufficientInstanceCapacity" in answer["message"]
    world.assert_agreement()


@every_way
@pytest.mark.parametrize("code", ["VcpuLimitExceeded", "UnauthorizedOperation"])
def test_quota_or_refusal_ends_the_request_at_once(
    make_world: MakeWorld, way: str, code: str
) -> None:
    """What another subnet cannot help ends the request after one call, with AWS's code, however
    many chunks were to come."""
    world = make_world(way=way, templates=[TWO_SUBNETS])
    world.sandbox.add_fault("error", action=world.action, times=-1, code=code)
    world.start_worker()
    request_id = world.request(350)

    answer = world.run_until_final(request_id, 5)

    assert answer["status"] == "complete_with_error"
    assert code in answer["message"]
    assert len(world.launches()) == 1
    world.leave_nothing()


def test_definite_rejection_gets_the_next_epoch(world: World) -> None:
    """The one subnet has nothing for a while: the same call is intended again on the same stream
    with epoch 1 and another token."""
    world.sandbox.add_fault("error", action="RunInstances", code="InsufficientInstanceCapacity")
    world.start_worker()
    request_id = world.request(2)

    assert world.run_until_final(request_id)["status"] == "complete"

    streams = world.query("SELECT stream FROM events WHERE topic = 'LaunchIntended'")
    assert len(streams) == 2 and len(set(streams)) == 1
    first, second = world.events("LaunchIntended")
    assert (first["epoch"], second["epoch"]) == (0, 1)
    assert first["token"] != second["token"]
    assert first["payload"] == second["payload"] and first["claims"] == second["claims"]
    world.assert_agreement()


def test_min_count_is_one(world: World) -> None:
    """Without another word fewer machines are better than none."""
    world.start_worker()
    world.run_until_final(world.request(5))

    (call,) = world.launches()
    assert (call.params["MinCount"], call.params["MaxCount"]) == ("1", "5")


@at_once
def test_all_or_nothing(make_world: MakeWorld, way: str) -> None:
    """A template of all or nothing: three of five are none, and nothing runs meanwhile."""
    world = make_world(way=way, templates=[{**TEMPLATE, "allOrNothing": True}], boot_time=20.0)
    world.sandbox.set_capacity(3)
    world.start_worker()
    request_id = world.request(5)

    world.run(60)
    assert world.live() == set()
    world.sandbox.set_capacity(None)

    assert succeeded(world.final(request_id)) == 5
    counts = ("MinCount", "MaxCount", "OnDemandOptions.MinTargetCapacity")
    assert {c.params[name] for c in world.launches() for name in counts if name in c.params} == {
        "5"
    }
    world.leave_nothing()


@every_way
def test_retry_attempts(way_world: World) -> None:
    """AWS_REQUEST_RETRY_ATTEMPTS: a failed launch is tried so often again in the same turn, with
    its token."""
    world = way_world
    world.write_config({"AWS_REGION": "us-east-1", "AWS_REQUEST_RETRY_ATTEMPTS": 3})
    world.sandbox.add_fault("e503", action=world.action, times=3)
    world.start_worker()
    world.request(2)

    world.tick()

    assert [call.outcome for call in world.launches()] == ["e503"] * 3 + ["ok"]
    assert len({call.client_token for call in world.launches()}) == 1


# -- user data ------------------------------------------------------------------------------------

SCRIPT = b"#!/bin/sh\nexport SECRET=swordfish\n"


def with_user_data(world: World) -> str:
    """The template gets a script of user data; the digest of what it sends."""
    script = world.root / "join.sh"
    script.write_bytes(SCRIPT)
    world.write_templates([{**TEMPLATE, "userDataScript": str(script)}])
    return hashlib.sha256(SCRIPT).hexdigest()


@every_way
def test_user_data_is_named_by_digest(way_world: World, way: str) -> None:
    """EC2 gets the body; the events have its digest only; the body lies in a table of a file that
    its owner alone can read."""
    world = way_world
    digest = with_user_data(world)
    world.start_worker()
    assert world.run_until_final(world.request(1))["status"] == "complete"

    if way == "RunInstances":
        (intent,) = world.events("LaunchIntended")
        assert intent["payload"]["UserData"] == {"sha256": digest}
        sent = [call.params["UserData"] for call in world.launches()]
    else:
        (intent,) = world.events("LaunchTemplateIntended")
        assert intent["payload"]["LaunchTemplateData"]["UserData"] == {"sha256": digest}
        made = world.calls_of("CreateLaunchTemplate")
        sent = [call.params["LaunchTemplateData.UserData"] for call in made]
    assert "swordfish" not in json.dumps(world.query("SELECT metadata, data FROM events"))
    assert world.query("SELECT body FROM bodies WHERE digest = ?", digest) == [(SCRIPT,)]
    assert stat.S_IMODE(Path(world.path).stat().st_mode) == 0o600
    assert [base64.b64decode(data) for data in sent] == [SCRIPT]


def test_missing_user_data_body_is_an_operators_error(world: World) -> None:
    """The intended body is gone: nothing is sent, and nothing is made from the file as it is now,
    until the operator brings the body back."""
    digest = with_user_data(world)
    world.start_worker()
    request_id = world.request(1)
    world.die_at("aws.RunInstances.before")
    (world.root / "join.sh").write_bytes(b"#!/bin/sh\nexport SECRET=changed\n")
    operator = sqlite3.connect(world.path, isolation_level=None)
    operator.execute("DELETE FROM bodies WHERE digest = ?", (digest,))

    world.start_worker()
    world.run(200)

    assert world.launches() == []
    assert world.status(request_id)["status"] == "running"
    assert "user data body is missing" in Path(world.site.log_file).read_text()

    operator.execute("INSERT INTO bodies VALUES (?, ?)", (digest, SCRIPT))
    operator.close()
    assert world.run_until_final(request_id)["status"] == "complete"
    (call,) = world.launches()
    assert base64.b64decode(call.params["UserData"]) == SCRIPT
    world.assert_agreement()


def test_unreadable_user_data_ends_the_request(world: World) -> None:
    """A script that is not there: the request ends with its path, no other request waits."""
    script = world.root / "no-such.sh"
    broken = {**TEMPLATE, "templateId": "Broken", "userDataScript": str(script)}
    world.write_templates([broken, TEMPLATE])
    world.start_worker()
    lost, good = world.request(1, "Broken"), world.request(1)

    answer = world.run_until_final(lost, 5)

    assert answer["status"] == "complete_with_error" and str(script) in answer["message"]
    assert world.run_until_final(good)["status"] == "complete"


# -- cancel and surplus ---------------------------------------------------------------------------


@every_way
def test_cancel_before_the_intent(way_world: World) -> None:
    """Nothing is launched for a request that was cancelled before the worker saw it."""
    world = way_world
    request_id = world.request(3)
    world.cancel(request_id)

    world.start_worker()
    world.run(10)

    assert world.launches() == []
    assert world.status(request_id)["status"] == "complete_with_error"
    world.assert_nothing_left()


@every_way
def test_cancel_after_the_intent(way_world: World) -> None:
    """What arrives for a closed claim is surplus: recorded, dealt to nobody, terminated; or, in
    a group that is not in service yet, taken away by AWS."""
    world = way_world
    world.sandbox.add_fault("lost_response", action=world.action)
    world.start_worker()
    request_id = world.request(3)
    world.run(0.5)
    assert len(world.live()) == 3
    world.cancel(request_id)

    world.run(120)

    outcomes = world.events("LaunchAccepted") + world.events("LaunchSettled")
    assert [outcome["deal"] for outcome in outcomes if outcome["deal"]] == []
    assert sum(len(outcome.get("surplus", ())) for outcome in outcomes) == 3
    assert world.status(request_id)["machines"] == []
    assert world.live() == set()
    world.leave_nothing()


@every_way
def test_cancel_returns_what_came(way_world: World) -> None:
    """Machines that the request has already are returned in the same command; a final request
    cannot be cancelled."""
    world = way_world
    world.start_worker()
    request_id = world.request(3)
    world.run(5)
    assert len(world.owned()) == 3
    before = len(world.topics())
    return_id = world.cancel(request_id)

    assert world.topics()[before:] == ["RequestCancelled", "MachinesReturned"]
    assert world.final(return_id)["status"] == "complete"
    assert world.live() == set()
    with pytest.raises(RequestIsFinal):
        world.cancel(request_id)
    world.leave_nothing()


@at_once
def test_surplus_is_dealt_to_open_demand(make_world: MakeWorld, way: str) -> None:
    """A cancelled request's machines go to another that waits for the same payload."""
    world = make_world(
        way=way, boot_time=20.0, settings={"HOSTLEDGER_PROVIDER__AWS__MAX_INFLIGHT": "1"}
    )
    world.sandbox.add_fault("lost_response", action=world.action)
    world.start_worker()
    first = world.request(5)
    world.run(0.5)
    world.cancel(first)
    second = world.request(3)

    answer = world.run_until_final(second)

    assert answer["status"] == "complete" and succeeded(answer) == 3
    (accepted,) = world.events("LaunchAccepted")
    assert [(claim, len(ids)) for claim, ids in accepted["deal"]] == [(second, 3)]
    assert len(accepted["surplus"]) == 2
    assert len(world.live()) == 3
    world.assert_agreement()


@every_way
def test_one_request_is_filled_before_the_next(way_world: World) -> None:
    """Fewer machines than asked go to the older requests first, and the rest is topped up."""
    world = way_world
    requests = [world.request(2) for _ in range(3)]
    world.sandbox.set_capacity(3)
    world.write_templates([TWO_SUBNETS])
    world.start_worker()
    world.run(5)

    outcomes = world.events("LaunchAccepted") + world.events("LaunchSettled")
    dealt = next(outcome["deal"] for outcome in outcomes if outcome["deal"])
    assert [(r, len(ids)) for r, ids in dealt] == [(requests[0], 2), (requests[1], 1)]
    world.sandbox.set_capacity(None)
    for request_id in requests:
        assert succeeded(world.final(request_id)) == 2
    assert len(world.live()) == 6
    world.leave_nothing()


# -- many -----------------------------------------------------------------------------------------


@every_way
def test_never_more_succeed_than_were_asked(make_world: MakeWorld, way: str) -> None:
    """At every poll, whatever is lost, late or replaced meanwhile: `succeed` is at most what was
    asked, and a final answer never changes."""
    world = make_world(way=way, templates=[TWO_SUBNETS], boot_time=20.0, shutdown_time=15.0)
    world.sandbox.add_fault("cap", action=world.action, limit=4, subnet="subnet-a1")
    second = 2 if way == "RunInstances" else 1
    world.sandbox.add_fault("lost_response", action=world.action, from_call=second)
    world.start_worker()
    request_id = world.request(8)
    finals: list[str] = []

    def poll() -> None:
        answer = world.status(request_id)
        assert succeeded(answer) <= 8
        if answer["status"] != "running":
            assert answer["status"] == "complete"
            finals.append(json.dumps([m["machineId"] for m in answer["machines"]]))
        elif world.clock.seconds in (1023.0, 1026.0):
            world.sandbox.terminate_behind_back(sorted(world.live())[:1])

    world.run(30, poll=poll)
    world.run(270, poll=poll, step=3.0)

    assert finals and len(set(finals)) == 1
    assert len(world.live()) == 8
    world.assert_agreement()


def test_a_thousand_machines(world: World) -> None:
    """A request of 1,000 and the return of its 1,000, in batches."""
    world.start_worker()
    request_id = world.request(1000)

    assert world.run(290, lambda: len(world.owned()) == 1000)
    answer = world.run_until_final(request_id)
    assert answer["status"] == "complete" and succeeded(answer) == 1000
    assert len(world.launches()) <= 12
    world.assert_agreement()

    return_id = world.give_back(answer["machines"])
    assert world.run_until_final(return_id)["status"] == "complete"
    assert len(world.calls_of("TerminateInstances")) <= 6
    assert world.live() == set()
    world.assert_agreement()


def test_a_thousand_machines_within_awss_own_quotas(make_world: MakeWorld) -> None:
    """The same under AWS's documented buckets, of which none is ever found empty."""
    world = make_world(boot_time=20.0, shutdown_time=15.0, quotas=Quotas.aws())
    world.start_worker()
    request_id = world.request(1000)

    assert world.run(290, lambda: len(world.owned()) == 1000, step=5.0)
    answer = world.run_until_final(request_id)
    assert answer["status"] == "complete" and succeeded(answer) == 1000
    return_id = world.give_back(answer["machines"])
    assert world.run_until_final(return_id)["status"] == "complete"

    assert {call.outcome for call in world.sandbox.calls} == {"ok"}
    assert world.live() == set()
    world.assert_agreement()


# -- turns that remember nothing ------------------------------------------------------------------


def forgetful(world: World, seconds: float, until: Callable[[], bool]) -> bool:
    """A new process for every turn, as in `inline` mode: nothing is kept in memory."""

    def turn() -> bool:
        world.start_worker().tick()
        world.kill(world.workers[0])
        return until()

    return world.run(seconds, turn, step=10.0)


def test_forgetful_turns_settle(make_world: MakeWorld) -> None:
    """A doubtful batch is settled by turns of which each is its own process."""
    world = make_world(templates=[{**TEMPLATE, "fulfilmentDeadline": 7200}], boot_time=20.0)
    world.sandbox.add_fault("lost_response", action="RunInstances")
    world.sandbox.add_fault("error", action="RunInstances", code="InvalidParameterValue")
    request_id = world.request(3)

    assert forgetful(world, 900, lambda: world.status(request_id)["status"] == "complete")

    (settled,) = world.events("LaunchSettled")
    assert len(settled["instances"]) == 3 == len(world.live())
    world.assert_agreement()


def test_forgetful_turns_top_up(make_world: MakeWorld) -> None:
    """The next process remembers from the ledger which subnet let the request down."""
    world = make_world(templates=[TWO_SUBNETS], boot_time=20.0)
    world.sandbox.add_fault("cap", action="RunInstances", times=-1, limit=1, subnet="subnet-a1")
    request_id = world.request(5)

    assert forgetful(world, 120, lambda: world.status(request_id)["status"] == "complete")

    assert len(world.live()) == 5
    world.assert_agreement()


def test_forgetful_turns_end_machines(make_world: MakeWorld) -> None:
    """A machine that is pending too long is ended, one that EC2 forgot is lost, and the return of
    the others completes."""
    world = make_world(boot_time=20.0, shutdown_time=15.0)
    request_id = world.request(3)
    assert forgetful(world, 20, lambda: len(world.live()) == 3)
    world.sandbox.stop_behind_back(sorted(world.live())[:1])
    assert forgetful(world, 290, lambda: world.status(request_id)["status"] == "complete")
    running = [m for m in world.status(request_id)["machines"] if m["result"] == "succeed"]
    assert len(running) == 3
    world.sandbox.terminate_behind_back([running[0]["machineId"]])
    world.clock.advance(3 * 3600.0)

    assert forgetful(world, 60, lambda: len(world.owned()) == 2)
    assert len(world.events("MachineLost")) == 1

    return_id = world.give_back(running)
    assert forgetful(world, 120, lambda: world.status(return_id)["status"] == "complete")
    assert world.live() == set()
    world.assert_agreement()
