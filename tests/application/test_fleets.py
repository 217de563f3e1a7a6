"""The fault rows of fleets and groups: they launch no more than is wanted, bring nothing back for
good, lose nobody else's machine, and go when they are empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from interfaces.hostfactory.wire_format import BadInput
from tests.world import TEMPLATE, World, every_way

MakeWorld = Callable[..., World]

TARGETS = {
    "fleet-maintain": "ModifyFleet",
    "spot-fleet-maintain": "ModifySpotFleetRequest",
    "group": "UpdateAutoScalingGroup",
}
"""Ways by which AWS replaces a machine that ends -> the call that lowers their target."""

DELETES = {
    "fleet-instant": "DeleteFleets",
    "fleet-request": "DeleteFleets",
    "fleet-maintain": "DeleteFleets",
    "spot-fleet-request": "CancelSpotFleetRequests",
    "spot-fleet-maintain": "CancelSpotFleetRequests",
    "group": "DeleteAutoScalingGroup",
}

LISTS = {
    "fleet-maintain": "DescribeFleets",
    "spot-fleet-maintain": "DescribeSpotFleetRequests",
    "group": "DescribeAutoScalingGroups",
}

REQUESTS = ("fleet-request", "spot-fleet-request")
FILLING = (*REQUESTS, *TARGETS)

N = 5
LONG = {**TEMPLATE, "fulfilmentDeadline": 7200}

refilling = pytest.mark.parametrize("way", TARGETS)
filling = pytest.mark.parametrize("way", FILLING)


def site(make_world: MakeWorld, way: str, **options: Any) -> World:
    """A site with a worker; its machines boot in 20 s and end in 15 s."""
    world = make_world(**{"way": way, "boot_time": 20.0, "shutdown_time": 15.0, **options})
    world.start_worker()
    return world


def ids(machines: list[dict[str, Any]]) -> set[str]:
    return {machine["machineId"] for machine in machines}


def assert_exactly(world: World, machine_ids: set[str]) -> None:
    """These live, and no other, now and when AWS has had time to launch more."""
    world.run(250, step=5.0)
    assert world.live() == machine_ids
    world.assert_agreement()


# -- returns of some -------------------------------------------------------------------------------


@every_way
def test_fault_50_partial_return(make_world: MakeWorld, way: str) -> None:
    """Two of five are returned: those two end, exactly the three others live on."""
    world = site(make_world, way)
    machines = world.fulfilled(N)

    assert world.final(world.give_back(machines[:2]))["status"] == "complete"

    assert_exactly(world, ids(machines[2:]))
    world.leave_nothing()


@filling
def test_fault_50_partial_return_while_others_are_pending(make_world: MakeWorld, way: str) -> None:
    """Two are returned while two others start: a group's target is lowered only when nobody else
    would die of it."""
    world = site(make_world, way, templates=[LONG])
    world.sandbox.set_capacity(3)
    request_id = world.request(N)
    world.run(120, lambda: [m["status"] for m in machines_of(world, request_id)] == ["running"] * 3)
    world.sandbox.set_capacity(None)
    world.run(60, lambda: len(world.owned()) == N)
    machines = machines_of(world, request_id)
    assert [m["status"] for m in machines].count("pending") == 2
    returned = [m for m in machines if m["status"] == "running"][:2]

    assert world.final(world.give_back(returned))["status"] == "complete"

    assert ids(returned).isdisjoint(world.live())
    world.final(request_id)
    assert_exactly(world, ids(machines) - ids(returned))
    world.leave_nothing()


def machines_of(world: World, request_id: str) -> list[dict[str, Any]]:
    machines: list[dict[str, Any]] = world.status(request_id)["machines"]
    return machines


# -- refills ---------------------------------------------------------------------------------------


@refilling
def test_fault_51_refill_racing_a_return(make_world: MakeWorld, way: str) -> None:
    """A machine that is returned, and one that is not, die while the target cannot be lowered: what
    AWS launches for them is ended, and none comes back for good."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    world.sandbox.add_fault("throttle", action=TARGETS[way], times=3)
    return_id = world.give_back(machines[:2])
    world.run(1)
    assert world.calls_of("TerminateInstances") == [], "not before the target is lowered"
    assert len(world.live()) == N
    world.sandbox.terminate_behind_back(ids([machines[0], machines[2]]))
    world.run(1)
    assert len(world.live()) == N, "AWS has launched others"

    assert world.final(return_id)["status"] == "complete"

    assert_exactly(world, ids(machines[3:]))
    world.leave_nothing()


@refilling
def test_fault_51_refill_of_all_that_is_returned(make_world: MakeWorld, way: str) -> None:
    """All are returned, and AWS takes one itself between the lowered target and the end."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    return_id = world.give_back(machines)
    taken = [machines[0]["machineId"]]
    with world.pausing_at(
        "aws.TerminateInstances.before", lambda: world.sandbox.terminate_behind_back(taken)
    ):
        world.run(3)

    assert world.live() == set()
    assert world.final(return_id)["status"] == "complete"
    world.leave_nothing()


# -- target calls ----------------------------------------------------------------------------------


@refilling
def test_fault_52_late_stale_target(make_world: MakeWorld, way: str) -> None:
    """A worker is paused before it sets a target; another one lowers it further. The late call is
    put right by the sweep, and what came of it is ended."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    (first,) = world.workers
    returns = [world.give_back(machines[:2])]

    def meanwhile() -> None:
        world.workers.remove(first)
        world.clock.advance(100.0)
        world.start_worker()
        returns.append(world.give_back(machines[2:4]))
        for return_id in returns:
            assert world.final(return_id)["status"] == "complete"
        assert world.live() == ids(machines[4:])

    with world.pausing_at(f"aws.{TARGETS[way]}.before", meanwhile):
        first.tick()
    assert first.lease.held == {}, "its lease is lost"
    first.end()
    world.run(2)
    assert len(world.live()) == 3, "AWS launches up to the stale target"

    assert_exactly(world, ids(machines[4:]))
    reasons = [event["reason"] for event in world.events("FleetTargetIntended")]
    assert reasons[-1] == "AWS had another target"
    world.leave_nothing()


@refilling
@pytest.mark.parametrize("kind", ["lost_response", "reset_before", "slow", "e500"])
def test_fault_53_answer_of_the_target_call_lost(
    make_world: MakeWorld, way: str, kind: str
) -> None:
    """Whether it was carried out or not, the same absolute target is set again, under one intent;
    no machine is ended before AWS has taken it."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    world.sandbox.add_fault(kind, action=TARGETS[way], times=2)

    return_id = world.give_back(machines[:2])
    world.run(40, lambda: bool(world.calls_of("TerminateInstances")))

    calls = world.calls_of(TARGETS[way])
    assert [call.outcome for call in calls] == [kind, kind, "ok"]
    assert calls[-1].at <= world.calls_of("TerminateInstances")[0].at
    assert len(world.events("FleetTargetIntended")) == 1
    assert world.final(return_id)["status"] == "complete"
    assert_exactly(world, ids(machines[2:]))
    world.leave_nothing()


@refilling
@pytest.mark.parametrize("end", ["killed", "paused"])
def test_fault_54_no_target_before_the_old_call_has_ended(
    make_world: MakeWorld, way: str, end: str
) -> None:
    """The lease is taken over while a target call may be on its way: until that has ended no call
    without a token is made, and no machine of such a fleet is ended."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    (first,) = world.workers
    return_id = world.give_back(machines[:2])
    began = []

    def follow() -> None:
        world.start_worker()
        began.append(world.clock.wall)
        world.run(200, lambda: bool(world.calls_of("TerminateInstances")))

    if end == "killed":
        world.die_at(f"aws.{TARGETS[way]}.before")
        follow()
    else:

        def meanwhile() -> None:
            world.workers.remove(first)
            world.clock.advance(61.0)
            follow()

        with world.pausing_at(f"aws.{TARGETS[way]}.before", meanwhile):
            first.tick()
        assert first.lease.held == {}
        first.end()

    call_time = world.workers[-1].side.settings().provider.aws.timeouts
    quiet = call_time.connect_timeout + call_time.read_timeout
    assert world.calls_of(TARGETS[way])[0].at >= began[0] + quiet
    assert world.calls_of("TerminateInstances")[0].at >= began[0] + quiet
    assert world.final(return_id)["status"] == "complete"
    assert_exactly(world, ids(machines[2:]))
    world.leave_nothing()


def test_fault_62_a_lowered_fleet_stays_on_demand(make_world: MakeWorld) -> None:
    """A fleet that fills on demand is lowered for one of its two requests: what it still launches
    is on demand."""
    world = site(make_world, "fleet-maintain", templates=[LONG])
    world.kill(world.workers[0])
    world.sandbox.set_capacity(2)
    kept, cancelled = world.request(3), world.request(2)
    world.start_worker()
    world.run(60, lambda: len(world.owned()) == 2)

    world.cancel(cancelled)
    world.run(5)
    world.sandbox.set_capacity(None)

    machines = world.final(kept)["machines"]
    (call,) = world.calls_of("ModifyFleet")
    specification = "TargetCapacitySpecification."
    assert call.params[specification + "TotalTargetCapacity"] == "3"
    assert call.params[specification + "OnDemandTargetCapacity"] == "3"
    assert {m["priceType"] for m in machines} == {"ondemand"}
    assert_exactly(world, ids(machines))
    world.leave_nothing()


@pytest.mark.parametrize("way", ["fleet-maintain", "group"])
def test_a_refused_target_is_told(make_world: MakeWorld, way: str) -> None:
    """The role may not lower a target: no machine is ended, and AWS launches none in its place. The
    log says it, and after its patience the return does, of its own machines; they are ended when
    the role may."""
    world = site(make_world, way)
    machines = world.fulfilled(3)
    world.sandbox.add_fault(
        "error", action=TARGETS[way], code="UnauthorizedOperation", status=403, times=-1
    )
    return_id = world.give_back(machines[:1])
    world.run(280, step=5.0)
    assert world.status(return_id)["status"] == "running"

    answer = world.final(return_id, 60.0)

    assert answer["status"] == "complete_with_error"
    (told,) = answer["machines"]
    assert (told["machineId"], told["result"]) == (machines[0]["machineId"], "fail")
    assert "UnauthorizedOperation" in answer["message"]
    assert world.live() == ids(machines)
    assert len(world.events("TerminationRefused")) == 1, "however often it is tried"
    log = Path(world.site.log_file).read_text()
    said = [line for line in log.splitlines() if "target not set" in line]
    assert said and all('"ERROR"' in line and "iam-policy" in line for line in said)
    world.sandbox.clear_faults()
    world.run(100, step=5.0)
    assert_exactly(world, ids(machines[1:]))
    world.leave_nothing()


# -- launches in doubt -----------------------------------------------------------------------------


@every_way
def test_fault_55_launch_forgotten_by_us_and_aws(make_world: MakeWorld, way: str) -> None:
    """The answer was lost with the worker and its token is too old: the fleet is found by its tag,
    launches no more, and what it has launched is settled: exactly N."""
    world = site(make_world, way, templates=[{**TEMPLATE, "fulfilmentDeadline": 50_000}])
    request_id = world.request(N)
    world.die_at(f"aws.{world.action}.after")
    world.clock.advance(2 * 3600.0)
    world.start_worker()

    answer = world.final(request_id)

    assert answer["status"] == "complete"
    assert len(world.launches()) == 1
    machines = answer["machines"]
    assert_exactly(world, ids(machines))
    world.sandbox.terminate_behind_back(ids(machines[:1]))
    assert_exactly(world, ids(machines[1:]))
    assert world.calls_of("TerminateInstances") == [], "AWS launched nothing in its place"
    world.leave_nothing()


@filling
def test_fault_55_forgotten_before_it_was_full(make_world: MakeWorld, way: str) -> None:
    """As before, and the fleet has two of five, and cannot be stopped for long: nothing is settled
    while it may launch; then the rest is launched anew, and never are there more than five."""
    world = site(make_world, way, templates=[{**TEMPLATE, "fulfilmentDeadline": 50_000}])
    world.sandbox.set_capacity(2)
    request_id = world.request(N)
    world.die_at(f"aws.{world.action}.after")
    world.clock.advance(2 * 3600.0)
    stop = TARGETS[way] if way == "group" else DELETES[way]
    world.sandbox.add_fault("e500", action=stop, times=-1)
    world.start_worker()
    most: list[int] = []
    world.run(600, poll=lambda: most.append(len(world.live())), step=5.0)
    assert world.events("LaunchSettled") == []
    assert len(world.launches()) == 1
    world.sandbox.clear_faults()
    world.run(600, poll=lambda: most.append(len(world.live())), step=5.0)
    world.sandbox.set_capacity(None)

    answer = world.final(request_id)

    assert answer["status"] == "complete"
    assert max(most) == 2
    assert len(world.launches()) == 2
    assert_exactly(world, ids(answer["machines"]))
    world.leave_nothing()


# -- the end of filling ----------------------------------------------------------------------------


@filling
def test_fault_56_partly_filled_at_the_deadline(make_world: MakeWorld, way: str) -> None:
    """Two of five at the deadline: the fleet is stopped, the request ends with two and the reason,
    and nothing comes when there is capacity again."""
    world = site(make_world, way, templates=[{**TEMPLATE, "fulfilmentDeadline": 120}])
    world.sandbox.set_capacity(2)
    request_id = world.request(N)

    answer = world.final(request_id, 300.0)

    assert answer["status"] == "complete_with_error"
    assert [m["result"] for m in answer["machines"]] == ["succeed"] * 2
    assert "InsufficientInstanceCapacity" in answer["message"]
    world.sandbox.set_capacity(None)
    assert_exactly(world, ids(answer["machines"]))
    world.leave_nothing()


@filling
@pytest.mark.parametrize("lag", [0.0, 60.0])
def test_fault_56_late_machines(make_world: MakeWorld, way: str, lag: float) -> None:
    """Capacity comes while the call that stops the fleet is on its way. What EC2 shows before the
    request is final belongs to it, what it shows later is nobody's and is ended."""
    template = {**TEMPLATE, "fulfilmentDeadline": 120}
    world = site(make_world, way, templates=[template], visibility_lag=lag)
    world.sandbox.set_capacity(2)
    request_id = world.request(N)

    def come() -> None:
        world.sandbox.set_capacity(None)
        world.clock.advance(31.0)
        assert len(world.live()) == N

    with world.pausing_at(f"aws.{TARGETS.get(way, DELETES[way])}.before", come):
        answer = world.final(request_id, 400.0)

    assert answer["status"] == ("complete_with_error" if lag else "complete")
    assert [m["result"] for m in answer["machines"]] == ["succeed"] * (2 if lag else N)
    assert_exactly(world, ids(answer["machines"]))
    world.leave_nothing()


@every_way
def test_fault_57_pending_at_the_deadline(make_world: MakeWorld, way: str) -> None:
    """Launched in time and not running yet: they are waited for."""
    template = {**TEMPLATE, "fulfilmentDeadline": 60}
    world = site(make_world, way, templates=[template], boot_time=100.0)
    request_id = world.request(N)

    answer = world.final(request_id, 300.0)

    assert answer["status"] == "complete"
    assert_exactly(world, ids(answer["machines"]))
    world.leave_nothing()


@filling
def test_fault_58_cancelled_while_filling(make_world: MakeWorld, way: str) -> None:
    """Cancelled with two of five: the two are returned, and nothing comes with the capacity."""
    world = site(make_world, way, templates=[LONG])
    world.sandbox.set_capacity(2)
    request_id = world.request(N)
    world.run(40)
    assert len(world.owned()) == 2

    world.cancel(request_id)
    world.run(2)
    world.sandbox.set_capacity(None)
    world.run(100)

    assert world.status(request_id)["status"] == "complete_with_error"
    assert_exactly(world, set())
    world.leave_nothing()


@every_way
def test_fault_59_pending_too_long(make_world: MakeWorld, way: str) -> None:
    """Machines that never run are ended after AWS_INSTANCE_PENDING_TIMEOUT_SEC, and launched anew
    while the deadline lasts; afterwards AWS replaces none of them."""
    template = {**TEMPLATE, "fulfilmentDeadline": 250}
    world = site(make_world, way, templates=[template], boot_time=3000.0)
    request_id = world.request(2)

    answer = world.final(request_id, 900.0)

    assert answer["status"] == "complete_with_error"
    assert {m["result"] for m in answer["machines"]} == {"fail"}
    assert_exactly(world, set())
    world.leave_nothing()


# -- the end of a fleet ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", DELETES)
def test_fault_60_delete_refused(make_world: MakeWorld, way: str) -> None:
    """AWS will not delete it yet (a group that still has instances) or does not answer: it is asked
    again, under one intent."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    code = "ResourceInUse" if way == "group" else "InternalError"
    world.sandbox.add_fault("error", action=DELETES[way], times=2, code=code)
    world.sandbox.add_fault("lost_response", action=DELETES[way], from_call=3)

    assert world.final(world.give_back(machines))["status"] == "complete"

    world.leave_nothing()
    assert len(world.calls_of(DELETES[way])) >= 3
    assert len(world.events("FleetDeletionIntended")) == 1
    assert len(world.events("FleetDeleted")) == 1


def test_fault_60_a_group_that_is_raised_while_it_goes(make_world: MakeWorld) -> None:
    """Its deletion is refused, and somebody raises its size meanwhile: it is lowered again, and
    goes."""
    world = site(make_world, "group")
    machines = world.fulfilled(2)
    (name,) = world.leftovers()["groups"]
    client = boto3.client("autoscaling", region_name="us-east-1")
    world.sandbox.attach(client)

    def raise_it() -> None:
        client.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=2, DesiredCapacity=2)
        world.clock.advance(1.0)

    return_id = world.give_back(machines)
    with world.pausing_at("aws.DeleteAutoScalingGroup.before", raise_it):
        assert world.final(return_id)["status"] == "complete"
        world.run(300, lambda: bool(world.events("FleetDeletionIntended")), step=5.0)
        assert len(world.live()) == 2

    world.leave_nothing()


@pytest.mark.parametrize(
    ("way", "action", "times"),
    [
        ("fleet-instant", "DescribeFleets", 0),
        ("fleet-request", "DescribeFleets", 2),
        ("group", "DescribeAutoScalingGroups", 2),
    ],
)
def test_what_may_have_been_made_late_is_looked_for_seldom(
    make_world: MakeWorld, way: str, action: str, times: int
) -> None:
    """Nothing lives: fleets are listed once an hour where one that may go on launching was ever
    made, however many processes there are."""
    world = site(make_world, way)
    world.leave_nothing(world.fulfilled(1))
    before = len(world.calls_of(action))

    for _ in range(14):
        world.kill(*world.workers)
        world.start_worker()
        world.run(600, step=60.0)

    assert len(world.calls_of(action)) - before == times


def test_what_may_not_be_listed_is_asked_for_seldom(make_world: MakeWorld) -> None:
    """A site that had groups has none any more, nor the permissions for them."""
    world = site(make_world, "group")
    world.leave_nothing(world.fulfilled(1))
    listings = ("DescribeAutoScalingGroups", "DescribeLaunchTemplates")
    for action in listings:
        world.sandbox.add_fault("error", action=action, code="AccessDenied", status=403, times=-1)
    before = [len(world.calls_of(action)) for action in listings]

    world.run(8400, step=60.0)

    after = [len(world.calls_of(action)) for action in listings]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 2]


@pytest.mark.parametrize("way", ["fleet-maintain", "group"])
def test_a_clock_that_was_an_hour_ahead_delays_nothing(make_world: MakeWorld, way: str) -> None:
    """A fleet was made by a machine whose wall clock was an hour ahead; another one, or the same
    after a restart, returns its machines. No more sweeps are made for it than without."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    world.kill(*world.workers)
    world.clock.boot_id = "boot-2"
    world.clock.step_wall(-3600.0)
    world.start_worker()
    world.run(70)
    before = len(world.calls_of("DescribeInstances"))

    return_id = world.give_back(machines)
    world.run(60)

    assert world.status(return_id)["status"] == "complete"
    assert len(world.calls_of("DescribeInstances")) - before <= 10
    world.leave_nothing()


@refilling
def test_two_names_of_one_account_leave_each_others_fleets(
    make_world: MakeWorld, tmp_path: Path, way: str
) -> None:
    """A site names one account of AWS twice, by two users' keys: what is launched by one name, with
    its launch template, is left alone by the other, which finds it by the deployment's tag."""
    file = tmp_path / "credentials"
    key = "[{0}]\naws_access_key_id = {0}\naws_secret_access_key = secret\n"
    file.write_text(key.format("KEY1") + key.format("KEY2"))
    provider = {
        "aws": {"credential_file": str(file)},
        "accounts": {"one": {"profile": "KEY1"}, "two": {"profile": "KEY2"}},
        "selection": "round_robin",
    }
    keys = dict.fromkeys(("KEY1", "KEY2"), "111111111111")
    template = {**TEMPLATE, "accounts": {"one": {}, "two": {}}}
    world = site(
        make_world, way, templates=[template], config={"provider": provider}, accounts=keys
    )
    machines = world.fulfilled(2) + world.fulfilled(2)
    assert {event["account"] for event in world.events("FleetCreated")} == {"one", "two"}

    world.run(250, step=5.0)
    world.run(3600, step=60.0)

    assert world.live() == ids(machines)
    assert world.calls_of(TARGETS[way]) == world.calls_of(DELETES[way]) == []
    assert world.calls_of("DeleteLaunchTemplate") == []
    world.leave_nothing()


@pytest.mark.parametrize("way", LISTS)
def test_fault_61_fleets_cannot_be_listed(make_world: MakeWorld, way: str) -> None:
    """The sweep is void: nothing is concluded from it, and no host is called gone."""
    world = site(make_world, way)
    machines = world.fulfilled(N)
    world.to_give_up(machines)
    world.sandbox.add_fault("e503", action=LISTS[way], times=-1)
    world.sandbox.terminate_behind_back(ids(machines[:1]))

    world.run(200, step=5.0)

    assert world.events("MachineTerminated") == world.events("MachineLost") == []
    with pytest.raises(BadInput, match="complete sweep"):
        world.to_give_up(machines)
    world.sandbox.clear_faults()
    world.run(130, step=5.0)
    assert ids(world.to_give_up(machines)) == ids(machines[:1])
    assert_exactly(world, ids(machines[1:]))
    world.leave_nothing()
