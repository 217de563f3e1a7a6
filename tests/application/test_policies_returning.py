"""What the returning, finishing and reconciliation policies promise, beside the fault rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from infrastructure.sandbox.ec2 import Quotas
from interfaces.hostfactory.wire_format import BadInput
from tests.world import World

MakeWorld = Callable[..., World]


def ids(machines: list[dict[str, Any]]) -> set[str]:
    return {machine["machineId"] for machine in machines}


def launch_apart(world: World, count: int, **tags: str) -> list[dict[str, Any]]:
    """Instances that somebody else launched, as HostFactory would name them."""
    client = boto3.client("ec2", region_name="us-east-1")
    world.sandbox.attach(client)
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    answer = client.run_instances(
        ImageId="ami-0a1b2c3d",
        MinCount=count,
        MaxCount=count,
        TagSpecifications=[{"ResourceType": "instance", "Tags": listed}] if tags else [],
    )
    client.close()
    return [
        {"machineId": i["InstanceId"], "name": i["PrivateDnsName"]} for i in answer["Instances"]
    ]


def orphans(world: World, count: int) -> set[str]:
    """Instances with our deployment's tag, of a batch that the log has never had."""
    tags = {"hostledger:deployment": world.deployment, "hostledger:batch": "bat-" + "0" * 32}
    return ids(launch_apart(world, count, **tags))


def forgotten(world: World, count: int, clock_off: float = 0.0) -> list[dict[str, Any]]:
    """Machines of a request that the ledger lacks: it was restored from a backup, and activated
    while the wall clock was so many seconds off. A worker runs."""
    worker = world.start_worker()
    world.run(5)
    backup = world.backup()
    machines = world.fulfilled(count)
    world.kill(worker)
    world.restore(backup)
    world.clock.step_wall(clock_off)
    world.storage().activate(world.clock, {"user": "test"}, "restored")
    world.clock.step_wall(-clock_off)
    world.start_worker()
    return machines


# -- returns --------------------------------------------------------------------------------------


def test_returned_before_it_runs(world: World) -> None:
    """A machine that is returned while it is pending is terminated; its request ends without it
    and does not ask for another."""
    world.start_worker()
    request_id = world.request(3)
    world.run(3)
    first = world.status(request_id)["machines"][:1]

    return_id = world.give_back(first)

    assert world.run_until_final(return_id)["status"] == "complete"
    answer = world.run_until_final(request_id)
    assert answer["status"] == "complete_with_error"
    results = {m["machineId"]: m["result"] for m in answer["machines"]}
    assert results.pop(first[0]["machineId"]) == "fail"
    assert set(results.values()) == {"succeed"}
    assert world.live() == set(results)
    assert len(world.launches()) == 1
    world.assert_agreement()


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_living_stranger_is_refused(world: World, state: str) -> None:
    """A machine that lives and is not ours fails the return by name and is left alone; it is never
    reported terminated."""
    world.start_worker()
    machines = world.fulfilled(1)
    stranger = launch_apart(world, 1)
    world.run(30)
    if state == "stopped":
        world.sandbox.stop_behind_back(ids(stranger))
        world.run(30)

    answer = world.run_until_final(world.give_back(machines + stranger))

    assert answer["status"] == "complete_with_error"
    assert "not launched by this deployment" in answer["message"]
    results = {m["machineId"]: (m["result"], m["status"]) for m in answer["machines"]}
    result, status = results[stranger[0]["machineId"]]
    assert result == "fail" and status != "terminated"
    assert results[machines[0]["machineId"]] == ("succeed", "terminated")
    assert ids(stranger) <= set(world.sandbox.live_instances())
    world.assert_agreement()


def test_absent_stranger_succeeds(world: World) -> None:
    """A machine that nobody has, asked for by its id, is gone: that is what a return wants."""
    world.start_worker()
    gone = [{"machineId": "i-0123456789abcdef0", "name": "ip-10-9-9-9.ec2.internal"}]

    answer = world.run_until_final(world.give_back(gone))

    assert answer["status"] == "complete"
    assert [m["result"] for m in answer["machines"]] == ["succeed"]


def test_returned_twice(world: World) -> None:
    """The same machines in two returns: both complete, one termination."""
    world.start_worker()
    machines = world.fulfilled(3)

    returns = [world.give_back(machines), world.give_back(machines)]

    assert {world.run_until_final(r)["status"] for r in returns} == {"complete"}
    assert len(world.calls_of("TerminateInstances")) == 1
    world.assert_agreement()


def test_returns_share_terminations(world: World) -> None:
    """Twenty waiting returns are one TerminateInstances call."""
    world.start_worker()
    machines = world.fulfilled(20)
    returns = [world.give_back([machine]) for machine in machines]

    assert world.run(120, lambda: all(world.status(r)["status"] == "complete" for r in returns))

    assert len(world.calls_of("TerminateInstances")) == 1
    world.assert_agreement()


def test_refusal_is_forgotten_when_ec2_gives_in(world: World) -> None:
    """Protected at first, terminated at last: the return completes, it does not tell of a refusal
    that is over."""
    world.start_worker()
    machines = world.fulfilled(1)
    world.sandbox.protect(ids(machines))
    return_id = world.give_back(machines)
    world.run(200)
    world.sandbox.protect(ids(machines), on=False)

    assert world.run_until_final(return_id)["status"] == "complete"
    assert world.live() == set()


def test_forgotten_machine_that_ec2_refuses_to_end(world: World) -> None:
    """Ours by its tag alone and protected: the return ends and says so, and neither EC2 nor the
    ledger is kept busy with it meanwhile."""
    machines = forgotten(world, 2)
    kept, gone = machines
    world.sandbox.protect(ids([kept]))
    world.run(5)
    before = len(world.calls_of("DescribeInstances"))

    answer = world.run_until_final(world.give_back(machines))

    assert answer["status"] == "complete_with_error"
    assert "EC2 refuses to terminate it: OperationNotPermitted" in answer["message"]
    told = {m["machineId"]: (m["result"], m["status"]) for m in answer["machines"]}
    assert told.pop(gone["machineId"]) == ("succeed", "terminated")
    ((result, status),) = told.values()
    assert result == "fail" and status != "terminated"
    assert world.live() == ids([kept])
    assert len(world.calls_of("DescribeInstances")) - before < 75, "not one a second"
    assert len(world.events("TerminationIntended")) < 8


def test_forgotten_machines_are_ended_by_batches(make_world: MakeWorld) -> None:
    """However many: no intent has more of them than fit in a call."""
    world = make_world(config={"provider": {"aws": {"batch_sizes": {"terminate_instances": 2}}}})
    machines = forgotten(world, 5)

    assert world.run_until_final(world.give_back(machines))["status"] == "complete"

    sizes = [len(event["machine_ids"]) for event in world.events("TerminationIntended")]
    assert sizes == [2, 2, 1]
    assert world.live() == set()


# -- orphans --------------------------------------------------------------------------------------


def start_old(world: World) -> None:
    """A worker of a site whose log is old enough to judge what it does not know."""
    world.clock.advance(3700.0)
    world.start_worker()
    world.run(60)


def test_young_orphans_live(world: World) -> None:
    """Instances of an unknown batch are left alone for ten minutes, however many sweeps see
    them."""
    start_old(world)
    found = orphans(world, 2)

    world.run(590)

    assert world.live() == found
    assert {row[0] for row in world.query("SELECT machine_id FROM orphans")} == found


def test_few_old_orphans_are_ended(world: World) -> None:
    """Two complete sweeps, older than ten minutes, an hour younger than the log, a handful: ended,
    and the ledger says why."""
    start_old(world)
    orphans(world, 5)

    world.run(800, step=5.0)

    assert world.live() == set()
    reasons = {event["reason"] for event in world.events("TerminationIntended")}
    assert reasons == {"orphan: the log has no such batch"}


def test_many_orphans_are_only_reported(world: World) -> None:
    """More than five: something else is wrong. They are listed and left alone."""
    start_old(world)
    found = orphans(world, 6)

    world.run(1500, step=5.0)

    assert world.live() == found
    assert world.events("TerminationIntended") == []
    assert {row[0] for row in world.query("SELECT machine_id FROM orphans")} == found
    assert "too many orphans" in Path(world.site.log_file).read_text()


def test_orphans_older_than_the_log_live(world: World) -> None:
    """What was there before the log began is not judged by the log."""
    found = orphans(world, 1)
    world.start_worker()

    world.run(1500, step=5.0)

    assert world.live() == found


def test_orphans_live_when_the_clock_was_slow(world: World) -> None:
    """The store was restored by a clock an hour behind: what it has forgotten seems younger than
    the restore, and lives."""
    machines = forgotten(world, 2, clock_off=-3600.0)

    world.run(1500, poll=lambda: world.to_give_up(machines), step=15.0)

    assert world.live() == ids(machines)


def test_instances_without_a_batch_tag_live(world: World) -> None:
    """Our deployment's tag alone says nothing about whose an instance is."""
    start_old(world)
    found = ids(launch_apart(world, 1, **{"hostledger:deployment": world.deployment}))

    world.run(1500, step=5.0)

    assert world.live() == found


# -- getReturnRequests ----------------------------------------------------------------------------


def test_hosts_to_give_up(world: World) -> None:
    """Terminated, stopped and unknown hosts are to be given up; running ones and living strangers
    are not."""
    world.start_worker()
    machines = world.fulfilled(4)
    stranger = launch_apart(world, 1)
    unknown = {"machineId": "i-0123456789abcdef0", "name": "ip-10-9-9-9.ec2.internal"}
    world.sandbox.terminate_behind_back([machines[0]["machineId"]])
    world.sandbox.stop_behind_back([machines[1]["machineId"]])
    world.run(130)

    listed = world.to_give_up([*machines, *stranger, unknown])

    assert {entry["machineId"] for entry in listed} == {
        machines[0]["machineId"],
        machines[1]["machineId"],
        unknown["machineId"],
    }
    assert {entry["machine"] for entry in listed} >= {machines[0]["name"], machines[1]["name"]}


def test_stopped_host_that_runs_again_is_kept(world: World) -> None:
    """Somebody started it again: the next sweep takes it off the list."""
    world.start_worker()
    machines = world.fulfilled(2)
    world.sandbox.stop_behind_back([machines[0]["machineId"]])
    world.run(70)
    assert len(world.to_give_up(machines)) == 1

    client = boto3.client("ec2", region_name="us-east-1")
    world.sandbox.attach(client)
    client.start_instances(InstanceIds=[machines[0]["machineId"]])
    client.close()
    world.run(90)

    assert world.to_give_up(machines) == []


def test_stale_sweep_is_an_error(world: World) -> None:
    """No complete sweep for longer than worker.sweep_max_age and no worker to make one: exit 1,
    never "all gone"."""
    worker = world.start_worker()
    machines = world.fulfilled(2)
    world.kill(worker)
    world.clock.advance(100)

    with pytest.raises(BadInput, match="complete sweep is older"):
        world.to_give_up(machines)


def test_sweep_is_made_for_a_waiting_call(world: World) -> None:
    """With a worker that lives, a call that finds the sweep stale gets a fresh one."""
    world.start_worker()
    machines = world.fulfilled(2)
    world.sandbox.terminate_behind_back([machines[0]["machineId"]])
    world.run(20)
    world.clock.advance(100)

    assert ids(world.to_give_up(machines)) == {machines[0]["machineId"]}


def test_ended_machines_leave_no_notes(world: World) -> None:
    """What every getReturnRequests reads does not grow with the machines that are gone."""
    world.start_worker()
    for _ in range(3):
        assert world.run_until_final(world.give_back(world.fulfilled(5)))["status"] == "complete"

    assert world.query("SELECT * FROM cloud_states") == []


# -- tags and polls -------------------------------------------------------------------------------


def test_tagged_with_its_id(world: World) -> None:
    """AWS_TAG_InstanceID: instances and their volumes are tagged with the instance id, a few a
    turn, each once."""
    world.write_config({"AWS_REGION": "us-east-1", "AWS_TAG_InstanceID": "true"})
    world.start_worker()
    machines = world.fulfilled(30)

    world.run(130)

    live = world.sandbox.live_instances({"hostledger:deployment": world.deployment})
    assert {live[i]["tags"]["InstanceID"] for i in live} == ids(machines)
    assert all(live[i]["tags"]["InstanceID"] == i for i in live)
    calls = world.calls_of("CreateTags")
    assert len(calls) == 30
    assert all(call.params["ResourceId.1"].startswith("vol-") for call in calls)
    assert all(call.params["ResourceId.2"] in live for call in calls), "the machine last"


def test_polls_back_off(make_world: MakeWorld) -> None:
    """While nothing changes EC2 is asked after 1, 2, 4, 8 and then every 15 seconds."""
    world = make_world(boot_time=55.0)
    world.start_worker()
    world.run(1)
    began = world.clock.seconds
    world.request(2)

    world.run(50, step=0.5)

    ec2 = world.sandbox.calls[0].at - 1000.0
    polls = [
        call.at - ec2 - began
        for call in world.calls_of("DescribeInstances")
        if call.params["Filter.1.Name"] == "instance-id"
    ]
    gaps = [later - earlier for earlier, later in zip([0.0, *polls], polls, strict=False)]
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 8.0, 15.0, 15.0], abs=0.51)


def test_status_polls_make_no_call(make_world: MakeWorld) -> None:
    """However often HostFactory asks, AWS hears nothing of it."""
    world = make_world(boot_time=20.0, quotas=Quotas.aws())
    world.start_worker()
    request_id = world.request(3)
    machines = world.run_until_final(request_id)["machines"]
    before = len(world.sandbox.calls)

    for _ in range(50):
        world.status(request_id)
        world.to_give_up(machines)
        world.call("getAvailableTemplates", {})

    assert len(world.sandbox.calls) == before
