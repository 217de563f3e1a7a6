"""The fault rows of spot machines that AWS takes back: HostFactory is told in time, of its own
hosts alone, and nothing is lost by a notice that comes twice, never, or in no shape at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.world import TEMPLATE, World, every_way

MakeWorld = Callable[..., World]

SPOT = {**TEMPLATE, "priceType": "spot", "fulfilmentDeadline": 300}
QUEUE = "HOSTLEDGER_PROVIDER__AWS__INTERRUPTION_QUEUE"
N = 3


def site(make_world: MakeWorld, way: str = "RunInstances", **options: Any) -> World:
    """A site of spot machines whose notices come through a queue; its worker runs."""
    world = quiet_site(make_world, way, **options)
    world.environ[QUEUE] = world.sandbox.create_queue("notices", events=True)
    world.start_worker()
    return world


def quiet_site(make_world: MakeWorld, way: str, **options: Any) -> World:
    """The same without a queue and without a worker."""
    return make_world(
        **{"way": way, "templates": [SPOT], "boot_time": 20.0, "shutdown_time": 15.0, **options}
    )


def ids(machines: list[dict[str, Any]]) -> set[str]:
    return {machine["machineId"] for machine in machines}


def waiting(world: World) -> int:
    """Messages in the queue, shown or not."""
    client = boto3.client("sqs", region_name="us-east-1")
    world.sandbox.attach(client)
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    got = client.get_queue_attributes(QueueUrl=world.environ[QUEUE], AttributeNames=names)
    return sum(int(number) for number in got["Attributes"].values())


def event(kind: str, machine_id: Any, at: str = "2027-01-15T08:02:00Z") -> str:
    return json.dumps({"detail-type": kind, "time": at, "detail": {"instance-id": machine_id}})


@every_way
def test_fault_63_told_with_the_seconds_that_are_left(make_world: MakeWorld, way: str) -> None:
    """A notice becomes MachineInterrupted; the host is listed, when it is named, with the seconds
    that are left, by id or by name. Returned, its end is left to AWS, and no fleet replaces it."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    first, *others = machines
    assert world.to_give_up(machines) == []
    world.sandbox.interrupt([first["machineId"]])
    began = world.clock.seconds
    world.run(7)

    (told,) = world.to_give_up(machines)
    assert (told["machineId"], told["machine"]) == (first["machineId"], first["name"])
    assert told["gracePeriod"] == pytest.approx(120 - (world.clock.seconds - began), abs=1)
    by_name = world.call("getReturnRequests", {"machines": [{"name": first["name"]}]})
    assert by_name["requests"] == [told]
    assert world.to_give_up(others) == []
    (interrupted,) = world.events("MachineInterrupted")
    assert interrupted["reason"] == "interruption"

    return_id = world.give_back([first])
    world.run(100)
    assert first["machineId"] in world.live(), "AWS ends it"
    assert world.status(return_id)["status"] == "running"
    assert world.final(return_id)["status"] == "complete"
    world.run(200, step=5.0)
    assert world.live() == world.owned() == ids(others)
    assert waiting(world) == 0
    assert first["machineId"] not in {
        value for call in world.calls_of("TerminateInstances") for value in call.params.values()
    }
    world.assert_agreement()
    world.leave_nothing(machines)


@every_way
def test_fault_63_nobody_returns_it(make_world: MakeWorld, way: str) -> None:
    """HostFactory is told until it does not name the host any more; a fleet launches none for it
    for good."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    world.sandbox.interrupt(ids(machines[:1]))

    world.run(300, step=5.0)

    (told,) = world.to_give_up(machines)
    assert (told["machineId"], told["gracePeriod"]) == (machines[0]["machineId"], 0)
    assert world.live() == world.owned() == ids(machines[1:])
    world.assert_agreement()
    world.leave_nothing(machines)


def test_fault_64_duplicates_and_junk(make_world: MakeWorld) -> None:
    """What comes twice is recorded once; what is no notice, or of no machine of ours, is taken out
    of the queue, and the worker goes on."""
    world = site(make_world)
    machines = world.fulfilled(N)
    taken, gone, _ = machines
    world.sandbox.terminate_behind_back([gone["machineId"]])
    world.run(70)
    warning, rebalance = (
        "EC2 Spot Instance Interruption Warning",
        "EC2 Instance Rebalance Recommendation",
    )
    junk = [
        "",
        "not json",
        "null",
        "[]",
        "{}",
        '"text"',
        "[" * 5000,
        json.dumps({"detail-type": warning}),
        json.dumps({"detail-type": [warning]}),
        '{"detail-type": {"a": 1}, "time": 1, "detail": {}}',
        event(warning, taken["machineId"], "yesterday"),
        event(warning, taken["machineId"], "9999-12-31T23:59:59Z") + "x",
        event("EC2 Instance State-change Notification", taken["machineId"]),
        event(warning, "i-0123456789abcdef0", "2027-01-15T07:02:00Z"),
        event(warning, gone["machineId"]),
        event(warning, None),
        event(warning, 5),
        event(warning, ["i-1"]),
        event(warning, {"a": "\ud800"}),
        event(warning, "\ud800"),
        event(rebalance, ""),
    ]
    for body in [*junk, *junk]:
        world.sandbox.send_message(world.environ[QUEUE], body or " ")
    for _ in range(12):
        world.sandbox.send_message(world.environ[QUEUE], event(warning, taken["machineId"]))

    world.run(60)

    assert [stream for stream, _ in world.streams("MachineInterrupted")] == [
        f"machine-{taken['machineId']}"
    ]
    assert waiting(world) == 0
    assert world.workers[0].reason == ""
    assert "is no event of EC2; deleted" in Path(world.site.log_file).read_text()
    world.assert_agreement()


@pytest.mark.parametrize("trouble", ["AccessDenied", "NonExistentQueue", "e500", "hang", "delete"])
def test_fault_65_queue_in_trouble(make_world: MakeWorld, trouble: str) -> None:
    """The queue cannot be read, or not emptied: machines come and go all the same, and one that is
    taken is seen to be."""
    world = site(make_world)
    if trouble == "NonExistentQueue":
        world.kill(world.workers[0])
        world.environ[QUEUE] += "-of-somebody-else"
        world.start_worker()
    elif trouble == "delete":
        world.sandbox.add_fault("e500", action="DeleteMessageBatch", times=-1)
    elif trouble == "AccessDenied":
        world.sandbox.deny("sqs:*")
    else:
        world.sandbox.add_fault(trouble, action="ReceiveMessage", times=-1)
    machines = world.fulfilled(N)
    world.sandbox.interrupt(ids(machines[:1]))

    world.run(300, step=5.0)

    assert ids(world.to_give_up(machines)) == ids(machines[:1])
    assert len(world.events("MachineInterrupted")) <= 1
    assert "interruption queue not read" in Path(world.site.log_file).read_text()
    assert world.live() == world.owned() == ids(machines[1:])
    world.assert_agreement()
    world.leave_nothing(machines)


@every_way
def test_fault_66_no_queue(make_world: MakeWorld, way: str) -> None:
    """Without a queue the machine's own state tells: the host is listed with no second left."""
    world = quiet_site(make_world, way)
    world.start_worker()
    machines = world.fulfilled(N)
    world.sandbox.interrupt(ids(machines[:1]))
    world.run(110, step=5.0)
    assert world.to_give_up(machines) == []

    world.run(90, step=5.0)

    (told,) = world.to_give_up(machines)
    assert (told["machineId"], told["gracePeriod"]) == (machines[0]["machineId"], 0)
    world.run(150, step=5.0)
    assert world.live() == world.owned() == ids(machines[1:])
    world.assert_agreement()
    world.leave_nothing(machines)


def test_fault_66_seen_while_it_goes(make_world: MakeWorld) -> None:
    """A sweep that finds it shutting down by AWS's hand records the interruption, once."""
    world = quiet_site(make_world, "RunInstances", shutdown_time=100.0)
    world.start_worker()
    machines = world.fulfilled(N)
    world.sandbox.interrupt(ids(machines[:1]), notice=0.0)

    world.run(90)

    (interrupted,) = world.events("MachineInterrupted")
    assert interrupted["reason"] == "interruption"
    assert ids(world.to_give_up(machines)) == ids(machines[:1])
    assert world.calls_of("TerminateInstances") == []
    world.run(150, step=5.0)
    world.assert_agreement()


@every_way
@pytest.mark.parametrize("at_once", ["true", "false"])
def test_fault_67_terminate_on_reclaim(make_world: MakeWorld, way: str, at_once: str) -> None:
    """AWS_SPOT_TERMINATE_ON_RECLAIM: a returned machine that AWS is about to take is ended at once;
    otherwise AWS is left to do it, and when it does not, it is ended after all."""
    world = site(make_world, way)
    world.write_config({"AWS_REGION": "us-east-1", "AWS_SPOT_TERMINATE_ON_RECLAIM": at_once})
    machines = world.fulfilled(N)
    began = world.clock.seconds
    notice = event("EC2 Spot Instance Interruption Warning", machines[0]["machineId"])
    at = world.clock.seconds - 1000.0
    notice = notice.replace("08:02:00", f"08:{int(at) // 60:02d}:{int(at) % 60:02d}")
    world.sandbox.send_message(world.environ[QUEUE], notice)
    world.run(6)
    assert len(world.to_give_up(machines)) == 1

    return_id = world.give_back(machines[:1])
    world.run(400, lambda: len(world.live()) < N, step=2.0)

    waited = world.clock.seconds - began
    assert waited < 10 if at_once == "true" else 265 < waited < 280
    assert world.final(return_id)["status"] == "complete"
    world.run(150, step=5.0)
    assert world.live() == ids(machines[1:])
    world.assert_agreement()
    world.leave_nothing(machines)


@every_way
@pytest.mark.parametrize("notice", [0.0, 5.0])
def test_fault_68_interrupted_before_its_request_is_final(
    make_world: MakeWorld, way: str, notice: float
) -> None:
    """A machine that is taken while its request waits for it is launched anew: exactly N."""
    world = site(make_world, way)
    request_id = world.request(N)
    world.run(60, lambda: len(world.owned()) == N)
    taken = sorted(world.live())[:1]
    world.sandbox.interrupt(taken, notice=notice)

    answer = world.final(request_id)

    assert answer["status"] == "complete"
    good = [m for m in answer["machines"] if m["result"] == "succeed"]
    assert len(good) == N and ids(good).isdisjoint(taken)
    world.run(250, step=5.0)
    assert world.live() == ids(good)
    world.assert_agreement()
    world.leave_nothing(good)


def test_fault_69_killed_before_its_launch_is_recorded(make_world: MakeWorld) -> None:
    """A notice of a machine that the ledger has not heard of yet is recorded when it has; one of a
    machine of nobody's stays no longer than it may be of use."""
    world = site(make_world)
    request_id = world.request(N)
    world.die_at("aws.CreateFleet.after")
    taken = sorted(world.live())[:1]
    world.sandbox.interrupt(taken)
    at = "2027-01-15T08:00:00Z"
    stranger = event("EC2 Spot Instance Interruption Warning", "i-0123456789abcdef0", at)
    world.sandbox.send_message(world.environ[QUEUE], stranger)

    world.start_worker()
    world.run(40)

    ((stream, interrupted),) = world.streams("MachineInterrupted")
    assert (stream, interrupted["reason"]) == (f"machine-{taken[0]}", "interruption")
    (told,) = world.to_give_up(world.status(request_id)["machines"])
    assert 60 < told["gracePeriod"] < 120
    assert waiting(world) == 1
    world.run(310, step=5.0)
    assert waiting(world) == 0
    world.assert_agreement()


@pytest.mark.parametrize(
    "point", ["commit.MachineInterrupted.after", "aws.DeleteMessageBatch.before"]
)
def test_fault_69_killed_between_recording_and_deleting(make_world: MakeWorld, point: str) -> None:
    """The notice is read again by the next worker, and is neither recorded twice nor kept."""
    world = site(make_world)
    machines = world.fulfilled(N)
    world.run(10)
    world.sandbox.interrupt(ids(machines[:1]))
    world.die_at(point)
    assert len(world.events("MachineInterrupted")) == 1

    world.start_worker()
    world.run(65)

    assert len(world.events("MachineInterrupted")) == 1
    assert waiting(world) == 0
    (told,) = world.to_give_up(machines)
    assert 0 < told["gracePeriod"] < 60
    world.assert_agreement()


def test_fault_70_rebalance_first(make_world: MakeWorld) -> None:
    """A recommendation lists the host at once; the interruption that follows tells the seconds, and
    then the machine's end is left to AWS."""
    world = site(make_world)
    machines = world.fulfilled(N)
    world.sandbox.interrupt(ids(machines[:1]), rebalance_before=30.0)
    world.run(7)
    (told,) = world.to_give_up(machines)
    assert (told["machineId"], told["gracePeriod"]) == (machines[0]["machineId"], 0)

    world.run(30)

    assert [e["reason"] for e in world.events("MachineInterrupted")] == [
        "rebalance",
        "interruption",
    ]
    (told,) = world.to_give_up(machines)
    assert 100 < told["gracePeriod"] <= 120
    return_id = world.give_back(machines[:1])
    world.run(60)
    assert world.calls_of("TerminateInstances") == []
    assert world.final(return_id)["status"] == "complete"
    world.assert_agreement()
    world.leave_nothing(machines)


def test_fault_70_rebalance_alone(make_world: MakeWorld) -> None:
    """A machine of which AWS only says that it may take it is ended when it is returned."""
    world = site(make_world)
    machines = world.fulfilled(N)
    notice = event("EC2 Instance Rebalance Recommendation", machines[0]["machineId"])
    world.sandbox.send_message(world.environ[QUEUE], notice)
    world.run(6)
    assert ids(world.to_give_up(machines)) == ids(machines[:1])

    return_id = world.give_back(machines[:1])
    world.run(3)

    assert world.live() == ids(machines[1:])
    assert world.final(return_id)["status"] == "complete"
    world.leave_nothing(machines)
