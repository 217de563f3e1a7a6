"""The fault rows of what AWS answers to a launch, and of what changes under it: a shortage, quota
or refusal is told once with AWS's reason, and what can be had elsewhere is launched there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from application import crash_points
from tests.world import TEMPLATE, WAYS, World, every_way

MakeWorld = Callable[..., World]

N = 5
LONG = {**TEMPLATE, "fulfilmentDeadline": 7200}
TWO_SUBNETS = {**TEMPLATE, "subnetId": "subnet-a1, subnet-b1"}
TWO_FAMILIES = {**LONG, "vmTypes": {"m5.large": 1, "g4dn.xlarge": 1}}
del TWO_FAMILIES["vmType"]
CAPACITY, QUOTA = "InsufficientInstanceCapacity", "VcpuLimitExceeded"
GONE = "InvalidLaunchTemplateName.NotFoundException"

with_a_template = pytest.mark.parametrize("way", [way for way in WAYS if way != "RunInstances"])
"""Ways that launch by a launch template of ours."""


def site(make_world: MakeWorld, way: str = "fleet-instant", **options: Any) -> World:
    """A site with a worker; its machines boot in 20 s and end in 15 s."""
    world = make_world(**{"way": way, "boot_time": 20.0, "shutdown_time": 15.0, **options})
    world.start_worker()
    return world


def complete(world: World, request_id: str, count: int = N) -> list[dict[str, Any]]:
    """The machines of the request, which has all and is final; no other lives."""
    answer = world.final(request_id)
    assert answer["status"] == "complete", answer
    assert [m["result"] for m in answer["machines"]] == ["succeed"] * count
    world.run(130, step=10.0)
    assert len(world.live()) == count
    world.assert_agreement()
    machines: list[dict[str, Any]] = answer["machines"]
    return machines


def failed(world: World, request_id: str, *words: str, within: float = 3600.0) -> None:
    """The request ended within so many seconds with none, told why; nothing was left for it."""
    answer = world.final(request_id, within)
    assert answer["status"] == "complete_with_error", answer
    for word in words:
        assert answer["message"].count(word) == 1, answer["message"]
    assert not [m for m in answer["machines"] if m["result"] == "succeed"]
    world.run(200, step=10.0)
    world.assert_nothing_left()


def subnets_of(world: World) -> list[str]:
    """The subnets that the last launch call names."""
    return [value for name, value in world.launches()[-1].params.items() if "SubnetId" in name]


def types(world: World) -> list[str]:
    return sorted(one["type"] for one in world.sandbox.live_instances().values())


# -- inside an answer of 200 -----------------------------------------------------------------------


@pytest.mark.parametrize("launched", [0, 2])
def test_fault_02_throttle_inside_a_fleet(make_world: MakeWorld, launched: int) -> None:
    """CreateFleet answers 200 and that it was throttled: what is missing is asked for again, of
    every pool, and the throttle is no reason that anybody is told."""
    world = site(make_world, templates=[TWO_SUBNETS])
    world.sandbox.add_fault(
        "fleet_errors", action="CreateFleet", codes=["RequestLimitExceeded"], launch=launched
    )

    complete(world, world.request(N))

    first, second = world.launches()
    assert second.at - first.at <= 10, "no pool is avoided"
    assert sorted(subnets_of(world)) == ["subnet-a1", "subnet-b1"]
    assert world.events("RequestFellShort") == []
    world.leave_nothing()


@pytest.mark.parametrize(
    "way", [way for way in WAYS if way not in ("fleet-instant", "RunInstances")]
)
def test_fault_02_fleets_that_fill_try_again_themselves(make_world: MakeWorld, way: str) -> None:
    """AWS throttles the launches of a fleet of its own: the fleet tries again, and is not helped by
    a second one."""
    world = site(make_world, way, templates=[TWO_SUBNETS])
    world.sandbox.set_capacity(0, code="RequestLimitExceeded")
    request_id = world.request(N)
    world.run(40)

    world.sandbox.set_capacity(None)

    complete(world, request_id)
    assert len(world.launches()) == 1
    world.leave_nothing()


def test_fault_03_throttle_and_quota_in_one_fleet(make_world: MakeWorld) -> None:
    """One pool was throttled, the other has no quota, and both draw on the same: reported at once,
    with the quota as the reason, and not tried again and again."""
    world = site(make_world, templates=[{**TWO_SUBNETS, "fulfilmentDeadline": 7200}])
    world.sandbox.add_fault(
        "fleet_errors", action="CreateFleet", codes=["RequestLimitExceeded", QUOTA], times=-1
    )

    failed(world, world.request(N), QUOTA + " (", within=10)

    assert len(world.launches()) == 1


def test_fault_03_throttle_of_another_family(make_world: MakeWorld) -> None:
    """The throttled pool draws on another quota: it alone is asked again, and gives all."""
    world = site(make_world, templates=[TWO_FAMILIES])
    world.sandbox.add_fault(
        "fleet_errors", action="CreateFleet", codes=[QUOTA, "RequestLimitExceeded"]
    )

    complete(world, world.request(N))

    assert len(world.launches()) == 2
    assert types(world) == ["g4dn.xlarge"] * N


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "InvalidParameterValue"])
def test_fault_34_every_override_refused(make_world: MakeWorld, code: str) -> None:
    """The fleet is there and AWS refused every launch of it: the request ends at once with the
    reason, and the empty fleet goes."""
    world = site(make_world, templates=[{**TWO_SUBNETS, "fulfilmentDeadline": 7200}])
    world.sandbox.add_fault("fleet_errors", action="CreateFleet", codes=[code], times=-1)

    request_id = world.request(N)

    answer = world.final(request_id, 10)
    assert code in answer["message"]
    assert len(world.launches()) == 1
    failed(world, request_id)


def test_fault_34_one_override_refused(make_world: MakeWorld) -> None:
    """One type cannot be launched, of the other there was too little: the second call is without
    the first."""
    world = site(make_world, templates=[TWO_FAMILIES])
    world.sandbox.add_fault(
        "fleet_errors",
        action="CreateFleet",
        codes=["InvalidParameterValue", "RequestLimitExceeded"],
        launch=1,
    )

    complete(world, world.request(N))

    first, second = world.launches()
    assert "m5.large" in first.params.values() and "m5.large" not in second.params.values()


@every_way
def test_fault_35_capacity_in_a_500(make_world: MakeWorld, way: str) -> None:
    """AWS says with an HTTP 500 that it has no capacity: a definite rejection, nothing to settle;
    launched anew when the pool is asked again."""
    world = site(make_world, way)
    world.sandbox.add_fault("error", action=world.action, code=CAPACITY, status=500)

    complete(world, world.request(N))

    assert [e["definite"] for e in world.events("LaunchRejected")] == [True]
    assert world.query("SELECT count(*) FROM batches WHERE state = 'doubtful'") == [(0,)]
    assert len(world.launches()) == 2


# -- launch templates ------------------------------------------------------------------------------


@with_a_template
@pytest.mark.parametrize(
    "trouble",
    [
        "lost_response",
        "reset_before",
        "slow",
        "aws.CreateLaunchTemplate.after",
        "commit.LaunchTemplateIntended.after",
        "commit.LaunchTemplateCreated.before",
    ],
)
def test_fault_29_launch_template_in_doubt(make_world: MakeWorld, way: str, trouble: str) -> None:
    """The answer about the launch template is lost, or its maker killed: it is asked for again
    under its token; one that names the batch of a worker that died is removed in the end."""
    world = site(make_world, way)
    request_id = world.request(N)
    if "." in trouble:
        world.die_at(trouble)
        world.start_worker()
    else:
        world.sandbox.add_fault(trouble, action="CreateLaunchTemplate")

    complete(world, request_id)

    if way == "fleet-instant" or "." not in trouble:
        made = world.calls_of("CreateLaunchTemplate")
        assert len({(call.client_token, call.params["LaunchTemplateName"]) for call in made}) == 1
        assert len(world.events("LaunchTemplateIntended")) == 1
    assert len(world.launches()) == 1
    world.leave_nothing()


def stranger(world: World, service: str) -> Any:
    """A client of somebody else's in the same account."""
    client = boto3.client(service, region_name="us-east-1")
    world.sandbox.attach(client)
    return client


def delete_launch_templates(world: World) -> None:
    """What somebody does who tidies up."""
    client = stranger(world, "ec2")
    for found in client.describe_launch_templates()["LaunchTemplates"]:
        client.delete_launch_template(LaunchTemplateId=found["LaunchTemplateId"])


@with_a_template
def test_fault_30_launch_template_deleted_by_somebody(make_world: MakeWorld, way: str) -> None:
    """Deleted between the launch template and the launch: made again, and launched."""
    world = site(make_world, way)
    with world.pausing_at(f"aws.{world.action}.before", lambda: delete_launch_templates(world)):
        request_id = world.request(N)
        world.run(10)

    complete(world, request_id)

    assert len(world.calls_of("CreateLaunchTemplate")) == 2
    world.leave_nothing()


@with_a_template
def test_fault_30_deleted_between_two_launches(make_world: MakeWorld, way: str) -> None:
    """Deleted while it is not needed, again and again: the next launch makes another."""
    world = site(make_world, way)
    for count in (2, 4, 6):
        delete_launch_templates(world)
        complete_now = world.final(world.request(2))
        assert complete_now["status"] == "complete", complete_now
        assert len(world.live()) == count
    world.leave_nothing()


@with_a_template
def test_fault_30_deleted_as_soon_as_it_is_made(make_world: MakeWorld, way: str) -> None:
    """Made again once; when it is gone again the request ends with the reason."""
    world = site(make_world, way, templates=[LONG])
    point = f"aws.{world.action}.before"

    def tidy() -> None:
        delete_launch_templates(world)
        crash_points.crash_at(point)

    with world.pausing_at(point, tidy):
        request_id = world.request(N)
        world.run(30)

    assert len(world.calls_of("CreateLaunchTemplate")) == 2
    assert len(world.launches()) == 2
    failed(world, request_id, "does not exist", within=0.1)


@pytest.mark.parametrize("times", [1, -1])
def test_fault_30_gone_inside_the_errors_of_a_fleet(make_world: MakeWorld, times: int) -> None:
    """The same, told by the fleet's errors."""
    world = site(make_world, templates=[LONG])
    world.sandbox.add_fault("fleet_errors", action="CreateFleet", codes=[GONE], times=times)
    request_id = world.request(N)

    if times == 1:
        complete(world, request_id)
        world.leave_nothing()
    else:
        failed(world, request_id, GONE + " (", within=10)
    assert len(world.launches()) == 2


def test_fault_31_group_name_is_somebody_elses(make_world: MakeWorld) -> None:
    """A group of that name is there without our tags: it is not taken for ours, and the request
    ends with the reason."""
    world = site(make_world, "group", templates=[LONG])

    def take() -> None:
        (intent,) = world.events("LaunchIntended")
        stranger(world, "autoscaling").create_auto_scaling_group(
            AutoScalingGroupName=intent["payload"]["AutoScalingGroupName"],
            MinSize=0,
            MaxSize=0,
            LaunchTemplate=intent["payload"]["LaunchTemplate"],
            AvailabilityZones=["us-east-1a"],
        )

    with world.pausing_at("aws.CreateAutoScalingGroup.before", take):
        request_id = world.request(N)
        world.run(10)

    failed(world, request_id, "somebody else's", within=0.1)
    assert world.calls_of("DeleteAutoScalingGroup") == []
    assert world.calls_of("UpdateAutoScalingGroup") == []


@with_a_template
def test_fault_31_launch_template_name_is_somebody_elses(make_world: MakeWorld, way: str) -> None:
    """The same of the launch template, which is not deleted either."""
    world = site(make_world, way, templates=[LONG])
    client = stranger(world, "ec2")

    def take() -> None:
        client.create_launch_template(
            LaunchTemplateName=world.events("LaunchTemplateIntended")[0]["name"],
            LaunchTemplateData={"ImageId": "ami-ffffffff"},
        )

    with world.pausing_at("aws.CreateLaunchTemplate.before", take):
        request_id = world.request(N)
        world.run(10)

    failed(world, request_id, "somebody else's", within=0.1)
    assert world.launches() == []
    assert len(client.describe_launch_templates()["LaunchTemplates"]) == 1


# -- what changes meanwhile ------------------------------------------------------------------------


@every_way
def test_fault_32_image_parameter_changed_before_the_resend(
    make_world: MakeWorld, way: str
) -> None:
    """The parameter holds another image when the worker comes back: the same bytes are sent; the
    next request has the new image."""
    template = {**TEMPLATE, "imageId": "resolve:ssm:/hosts/image"}
    world = make_world(way=way, templates=[template], boot_time=20.0, shutdown_time=15.0)
    world.sandbox.put_parameter("/hosts/image", "ami-0000000a")
    world.start_worker()
    request_id = world.request(N)
    world.die_at(f"aws.{world.action}.after")
    world.sandbox.put_parameter("/hosts/image", "ami-0000000b")
    world.start_worker()

    complete(world, request_id)

    first, second = world.launches()
    assert first.params == second.params
    assert images(world) == ["ami-0000000a"] * N
    assert world.final(world.request(1))["status"] == "complete"
    assert images(world) == ["ami-0000000a"] * N + ["ami-0000000b"]
    world.leave_nothing()


def images(world: World) -> list[str]:
    """Of everything that lives."""
    reservations = stranger(world, "ec2").describe_instances()["Reservations"]
    found = [one for reservation in reservations for one in reservation["Instances"]]
    return sorted(one["ImageId"] for one in found if one["State"]["Name"] in ("pending", "running"))


@every_way
def test_fault_33_template_edited_while_a_request_is_open(make_world: MakeWorld, way: str) -> None:
    """What is launched later for a request is of the revision that it asked for."""
    world = site(make_world, way, templates=[LONG])
    world.sandbox.set_capacity(2)
    request_id = world.request(N)
    world.run(30)
    world.write_templates([{**LONG, "vmType": "t3.large"}])
    world.run(30)
    world.sandbox.set_capacity(None)

    complete(world, request_id)
    assert types(world) == ["t3.medium"] * N

    assert world.final(world.request(1))["status"] == "complete"
    assert types(world) == ["t3.large"] + ["t3.medium"] * N
    world.leave_nothing()


# -- weights ---------------------------------------------------------------------------------------

WEIGHED = {**LONG, "vmTypes": {"m5.large": 2, "m5.xlarge": 3}}
del WEIGHED["vmType"]


@every_way
@pytest.mark.parametrize("count", [1, 7, 12])
def test_fault_36_weights(make_world: MakeWorld, way: str, count: int) -> None:
    """machineCount counts units: filled exactly, or over by less than the smallest machine in it;
    of one type there may be too little."""
    world = site(make_world, way, templates=[WEIGHED])
    world.sandbox.set_capacity(1, instance_type="m5.large")
    request_id = world.request(count)

    answer = world.final(request_id)

    assert answer["status"] == "complete", answer
    ((units, largest),) = world.query("SELECT sum(units), max(units) FROM machines WHERE alive = 1")
    assert count <= units < count + largest
    assert world.query("SELECT machine_count FROM requests") == [(count,)]
    world.run(130, step=10.0)
    assert len(world.live()) == len(answer["machines"])
    world.leave_nothing()


@every_way
def test_fault_36_weights_of_two_requests(make_world: MakeWorld, way: str) -> None:
    """Machines of three units are dealt by their units: two requests of six have two each."""
    template = {**LONG, "vmTypes": {"m5.xlarge": 3}}
    del template["vmType"]
    world = make_world(way=way, templates=[template], boot_time=20.0)
    requests = [world.request(6) for _ in range(2)]
    world.start_worker()

    for request_id in requests:
        answer = world.final(request_id)
        assert answer["status"] == "complete"
        assert len(answer["machines"]) == 2
    assert len(world.live()) == 4
    world.assert_agreement()


@every_way
def test_fault_36_a_heavy_machine_is_replaced(make_world: MakeWorld, way: str) -> None:
    """A machine of three units that never runs is replaced by as many units."""
    template = {**LONG, "vmTypes": {"m5.xlarge": 3}}
    del template["vmType"]
    world = site(make_world, way, templates=[template])
    request_id = world.request(6)
    world.run(5)
    assert len(world.live()) == 2
    world.sandbox.stop_behind_back(sorted(world.live())[:1])

    answer = world.final(request_id)

    assert answer["status"] == "complete"
    assert [m["result"] for m in answer["machines"]].count("succeed") == 2
    world.run(130, step=10.0)
    assert len(world.live()) == 2
    world.leave_nothing()


# -- markets and quotas ----------------------------------------------------------------------------

MIXED = {**TEMPLATE, "priceType": "heterogeneous", "fulfilmentDeadline": 600}
on_both_markets = pytest.mark.parametrize("way", [way for way in WAYS if way != "group"])


@on_both_markets
@pytest.mark.parametrize("spot", [0, 2, N])
def test_fault_37_the_rest_on_demand(make_world: MakeWorld, way: str, spot: int) -> None:
    """A heterogeneous template: spot first; shortly before the deadline what spot did not give is
    launched on demand, and nothing comes twice when spot has capacity again."""
    world = site(make_world, way, templates=[MIXED])
    world.sandbox.set_capacity(spot, market="spot")
    request_id = world.request(N)

    world.run(360, step=5.0)
    assert {one["lifecycle"] for one in world.sandbox.live_instances().values()} <= {"spot"}
    assert len(world.live()) == spot
    answer = world.final(request_id)
    assert answer["status"] == "complete", answer
    world.sandbox.set_capacity(None, market="spot")

    complete(world, request_id)
    markets = [one["lifecycle"] for one in world.sandbox.live_instances().values()]
    assert sorted(markets) == ["on-demand"] * (N - spot) + ["spot"] * spot
    world.leave_nothing()


@every_way
def test_fault_38_quota_of_one_family(make_world: MakeWorld, way: str) -> None:
    """The account has no quota for the preferred family: the other one is taken, at once."""
    world = site(make_world, way, templates=[TWO_FAMILIES])
    world.sandbox.set_capacity(0, instance_type="m5.large", code=QUOTA)

    complete(world, world.request(N))

    assert types(world) == ["g4dn.xlarge"] * N
    assert world.clock.seconds < 1000 + 60 + 150
    world.leave_nothing()


@on_both_markets
def test_fault_38_quota_of_one_market(make_world: MakeWorld, way: str) -> None:
    """The account may have no more spot machines: the template's other market is taken."""
    world = site(make_world, way, templates=[MIXED])
    world.sandbox.set_capacity(1, market="spot", code="MaxSpotInstanceCountExceeded")

    complete(world, world.request(N))

    markets = [one["lifecycle"] for one in world.sandbox.live_instances().values()]
    assert sorted(markets) == ["on-demand"] * (N - 1) + ["spot"]


@pytest.mark.parametrize("way", ["RunInstances", "fleet-instant"])
def test_fault_38_quota_beside_a_shortage(make_world: MakeWorld, way: str) -> None:
    """One family has no quota, the other no capacity for a while: the quota alone is no reason to
    give up, the capacity comes before the deadline."""
    world = site(make_world, way, templates=[TWO_FAMILIES])
    world.sandbox.set_capacity(0, instance_type="m5.large", code=QUOTA)
    world.sandbox.set_capacity(0, instance_type="g4dn.xlarge")
    request_id = world.request(N)
    world.run(60)
    world.sandbox.set_capacity(None, instance_type="g4dn.xlarge")

    complete(world, request_id)

    assert types(world) == ["g4dn.xlarge"] * N


@every_way
def test_fault_38_quota_of_all(make_world: MakeWorld, way: str) -> None:
    """Every pool draws on a quota that is used up: where AWS answers so the request ends at once,
    and a fleet that fills is stopped at the deadline; told either way."""
    world = site(make_world, way, templates=[{**TWO_SUBNETS, "fulfilmentDeadline": 120}])
    world.sandbox.set_capacity(0, code=QUOTA)

    at_once = way in ("RunInstances", "fleet-instant")
    request_id = world.request(N)

    answer = world.final(request_id, 1 if at_once else 400)
    assert QUOTA in answer["message"]
    assert len(world.launches()) == 1
    failed(world, request_id)


# -- permissions -----------------------------------------------------------------------------------


@every_way
def test_fault_39_launch_not_permitted(make_world: MakeWorld, way: str) -> None:
    """The account may not make the call: the request ends at once with the action and the resource
    that AWS names, after one call; when it is permitted the next request is served."""
    world = site(make_world, way, templates=[LONG])
    world.sandbox.deny(world.action)
    request_id = world.request(N)

    failed(world, request_id, f":{world.action} on resource: arn:aws:", within=0.1)

    assert len(world.launches()) == 1
    world.sandbox.allow(world.action)
    world.run(180, step=10.0)
    complete(world, world.request(N))


@with_a_template
def test_fault_39_launch_template_not_permitted(make_world: MakeWorld, way: str) -> None:
    """The same of the launch template."""
    world = site(make_world, way, templates=[LONG])
    world.sandbox.deny("CreateLaunchTemplate")

    failed(world, world.request(N), "ec2:CreateLaunchTemplate on resource: arn:aws:", within=0.1)

    assert len(world.calls_of("CreateLaunchTemplate")) == 1
    assert world.launches() == []


def test_fault_39_image_parameter_not_permitted(make_world: MakeWorld) -> None:
    """The same of a question before the launch."""
    world = site(make_world, templates=[{**LONG, "imageId": "resolve:ssm:/hosts/image"}])
    world.sandbox.deny("ssm:GetParameter")

    failed(world, world.request(N), "ssm:GetParameter on resource: arn:aws:", within=0.1)


def test_fault_39_the_reason_is_in_the_log(make_world: MakeWorld) -> None:
    """AWS's words are kept in the outcome, once."""
    world = site(make_world, "RunInstances", templates=[LONG])
    world.sandbox.deny("RunInstances")
    world.final(world.request(N), 0.1)

    (rejected,) = world.events("LaunchRejected")
    assert rejected["code"] == "UnauthorizedOperation"
    assert json.dumps(rejected).count("ec2:RunInstances on resource") == 1
