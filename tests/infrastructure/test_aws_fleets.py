"""Fleets, groups and launch templates as they are launched, read, changed and deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from application.ports import CallFailed, Fleet, Notice, Planned, Shortage
from domain.capacity import CREATE_FLEET, CREATE_GROUP, REQUEST_SPOT_FLEET, RUN_INSTANCES
from infrastructure.aws import fleets, groups
from infrastructure.aws.errors import classify, failure, shortage_kind
from infrastructure.aws.instances import instance_of
from infrastructure.aws.notices import notice_of
from infrastructure.aws.overrides import machines_of
from infrastructure.sandbox.ec2 import Sandbox
from tests.fakes.clock import FakeClock
from tests.infrastructure.aws_cloud import (
    BATCH,
    BY_API,
    CONTENT,
    DEPLOYMENT,
    SPOT_CONTENT,
    TAGS,
    Place,
)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


ONE_TYPE = {**CONTENT, "price_type": "spot", "subnet_ids": ["subnet-a", "subnet-b"]}
POOL_A, POOL_B = "m5.large/subnet-a/spot", "m5.large/subnet-b/spot"
MAINTAINED = {
    CREATE_FLEET: {**ONE_TYPE, **BY_API[CREATE_FLEET], "fleet_type": "maintain"},
    REQUEST_SPOT_FLEET: {**ONE_TYPE, **BY_API[REQUEST_SPOT_FLEET], "fleet_type": "maintain"},
    CREATE_GROUP: {**ONE_TYPE, **BY_API[CREATE_GROUP]},
}


def living(place: Place) -> list[str]:
    return sorted(place.sandbox.live_instances({"hostledger:deployment": DEPLOYMENT}))


# -- instant fleets -------------------------------------------------------------------------------


def test_an_instant_fleet_answers_with_its_machines() -> None:
    """Their type, market, zone and batch; names and addresses follow in a sweep."""
    place = Place()
    launched = place.launch(place.plan({**SPOT_CONTENT, "percent_on_demand": 40}, 5))
    assert launched.fleet_id.startswith("fleet-")
    assert launched.aws_request_id
    assert not launched.shortages
    swept = {one.machine_id: one for one in place.cloud.sweep(DEPLOYMENT)}
    assert sorted(one.machine_id for one in launched.instances) == sorted(swept)
    assert {one.price_type for one in launched.instances} == {"spot", "ondemand"}
    for one in launched.instances:
        same = swept[one.machine_id]
        assert (one.state, one.name, one.launch_time) == ("pending", "", int(place.clock.wall))
        for fact in ("instance_type", "price_type", "zone", "batch_id", "provider", "deployment"):
            assert getattr(one, fact) == getattr(same, fact)
        assert one.zone.startswith("us-east-1")
        assert one.fleet_id == same.fleet_id == launched.fleet_id


def test_zones_of_subnets_are_asked_once() -> None:
    """And not at all where the answer has them."""
    place = Place()
    for _ in range(3):
        place.launch(place.plan(ONE_TYPE, 2))
    assert place.actions().count("DescribeSubnets") == 1


def test_machines_without_a_zone_are_not_lost() -> None:
    """The launch was made: that its zones cannot be learned now is no failure of it."""
    place = Place()
    place.sandbox.add_fault("e500", action="DescribeSubnets")
    launched = place.launch(place.plan({**ONE_TYPE, "subnet_ids": ["subnet-a"]}, 2))
    assert [one.zone for one in launched.instances] == ["", ""]


def test_the_same_token_launches_once() -> None:
    """And gives the same machines again."""
    place = Place()
    plan = place.plan(ONE_TYPE, 3)
    first = place.launch(plan, "token")
    again = place.launch(plan, "token")
    assert [i.machine_id for i in first.instances] == [i.machine_id for i in again.instances]
    assert len(living(place)) == 3


def test_a_pool_without_capacity_is_named() -> None:
    """What the others gave is there."""
    place = Place()
    place.sandbox.set_capacity(1, subnet="subnet-a")
    place.sandbox.set_capacity(1, subnet="subnet-b")
    launched = place.launch(place.plan(ONE_TYPE, 5))
    assert len(launched.instances) == 2
    assert {(one.pool, one.kind, one.code) for one in launched.shortages} == {
        (POOL_A, "shortage", "InsufficientInstanceCapacity"),
        (POOL_B, "shortage", "InsufficientInstanceCapacity"),
    }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", "shortage"),
        ("UnfulfillableCapacity", "shortage"),
        ("SpotMaxPriceTooLow", "shortage"),
        ("InternalError", "shortage"),
        ("MaxSpotInstanceCountExceeded", "quota"),
        ("VcpuLimitExceeded", "quota"),
        ("UnauthorizedOperation", "refused"),
        ("InvalidParameterValue", "refused"),
        ("InvalidLaunchTemplateName.NotFoundException", "template_gone"),
        ("InvalidLaunchTemplateId.NotFound", "template_gone"),
        ("RequestLimitExceeded", "throttled"),
    ],
)
def test_errors_inside_an_answer(code: str, kind: str) -> None:
    """One reason for each pool, in its class; the fleet is told, for it was made."""
    place = Place()
    place.sandbox.add_fault("fleet_errors", action="CreateFleet", codes=[code] * 4)
    launched = place.launch(place.plan(ONE_TYPE, 3))
    assert [(one.pool, one.kind, one.code) for one in launched.shortages] == [
        (POOL_A, kind, code),
        (POOL_B, kind, code),
    ]
    assert not launched.instances
    assert place.cloud.delete_fleets(CREATE_FLEET, "instant", [launched.fleet_id])


def test_a_throttle_inside_an_answer_feeds_the_bucket() -> None:
    """The next launch waits, as after a throttle that is the answer; a shortage costs nothing."""
    for code, may in (("RequestLimitExceeded", False), ("InsufficientInstanceCapacity", True)):
        place = Place()
        place.sandbox.add_fault("fleet_errors", action="CreateFleet", codes=[code], launch=1)
        assert len(place.launch(place.plan(ONE_TYPE, 3)).instances) == 1
        assert place.cloud.may_launch(CREATE_FLEET, 1) is may


def test_reasons_of_other_shapes() -> None:
    """Requirements instead of a type, a zone instead of a subnet; the same one twice is once."""
    error = {
        "LaunchTemplateAndOverrides": {"Overrides": {"AvailabilityZone": "us-east-1a"}},
        "Lifecycle": "on-demand",
        "ErrorCode": "Unsupported",
        "ErrorMessage": "no",
    }
    assert fleets.reasons([error, error, {"ErrorCode": "InsufficientInstanceCapacity"}]) == [
        Shortage("*/*/ondemand", "shortage", "Unsupported", "no"),
        Shortage("*/*/ondemand", "shortage", "InsufficientInstanceCapacity", ""),
    ]


# -- buckets --------------------------------------------------------------------------------------


def test_every_launch_draws_on_the_bucket_of_launched_instances() -> None:
    """So many machines as the units can become at most, whatever the API."""
    assert machines_of(10, [{"WeightedCapacity": 4}, {"WeightedCapacity": "3"}]) == 4
    assert machines_of(10, []) == 10
    for api, content in {**MAINTAINED, "instant": ONE_TYPE, RUN_INSTANCES: CONTENT}.items():
        place = Place(buckets={"RunInstances:instances": [10, 0.001]})
        place.launch(place.plan(content, 7))
        for other in (RUN_INSTANCES, CREATE_FLEET, REQUEST_SPOT_FLEET, CREATE_GROUP):
            assert place.cloud.may_launch(other, 3), api
            assert not place.cloud.may_launch(other, 4), api


def test_each_api_has_its_own_bucket_and_breaker() -> None:
    """Those without a bucket by name have one of their kind's size."""
    place = Place(buckets={"Mutating": [2, 0.001], "NonMutating": [3, 0.001]})
    plan = place.plan(ONE_TYPE)
    for number in range(2):
        place.cloud.launch(plan.api, *_sent(place, plan, number))
    assert not place.cloud.may_launch(CREATE_FLEET, 1)
    assert place.cloud.may_launch(REQUEST_SPOT_FLEET, 1)
    for _ in range(3):
        place.cloud.launch_templates(DEPLOYMENT)
    with pytest.raises(CallFailed, match="bucket of DescribeLaunchTemplates") as caught:
        place.cloud.launch_templates(DEPLOYMENT)
    assert caught.value.kind == "throttled"

    place.sandbox.add_fault("e500", action="DescribeFleets", times=-1)
    for _ in range(3):
        with pytest.raises(CallFailed, match="InternalError"):
            place.cloud.fleets(DEPLOYMENT, [CREATE_FLEET])
    assert not place.cloud.is_down("DescribeFleets")


def _sent(place: Place, plan: Planned, number: int) -> tuple[dict[str, Any], str, None]:
    if number == 0:
        assert plan.launch_template is not None
        place.cloud.create_launch_template(plan.launch_template, "token", None)
    return plan.payload, f"token-{number}", None


def test_terminated_instances_have_a_bucket() -> None:
    """What it does not hold is asked again later."""
    place = Place(buckets={"TerminateInstances:instances": [3, 0.001]})
    ids = [one.machine_id for one in place.launch(place.plan(CONTENT, 4)).instances]
    done = place.cloud.terminate(ids[:2])
    later = place.cloud.terminate(ids[2:])
    assert (done.accepted, later.accepted, later.retry) == (ids[:2], [], ids[2:])


# -- launch templates -----------------------------------------------------------------------------


def test_a_launch_template_is_made_found_listed_and_deleted() -> None:
    """By its name, in any process, with any token."""
    place = Place()
    plan = place.plan(ONE_TYPE)
    template = plan.launch_template
    assert template is not None
    made = place.cloud.create_launch_template(template, "first", None)
    assert made.startswith("lt-")
    assert place.cloud.create_launch_template(template, "first", None) == made
    assert place.cloud.create_launch_template(template, "second", None) == made
    assert place.cloud.launch_templates(DEPLOYMENT) == [template["LaunchTemplateName"]]
    assert place.cloud.launch_templates("another") == []
    for _ in range(2):
        place.cloud.delete_launch_template(template["LaunchTemplateName"])
    assert place.cloud.launch_templates(DEPLOYMENT) == []


def test_a_launch_template_of_somebody_else() -> None:
    """It has our name and not our tag: nothing is launched from it."""
    place = Place()
    template = place.plan(ONE_TYPE).launch_template
    assert template is not None
    client = boto3.client("ec2", region_name="us-east-1")
    place.sandbox.attach(client)
    client.create_launch_template(
        LaunchTemplateName=template["LaunchTemplateName"], LaunchTemplateData={"ImageId": "ami-x"}
    )
    with pytest.raises(CallFailed, match="somebody else") as caught:
        place.cloud.create_launch_template(template, "token", None)
    assert caught.value.kind == "refused"


@pytest.mark.parametrize("api", MAINTAINED)
def test_a_launch_template_that_went(api: str) -> None:
    """The launch says that it has to be made again."""
    place = Place()
    plan = place.plan(MAINTAINED[api])
    with pytest.raises(CallFailed) as caught:
        place.cloud.launch(api, plan.payload, "token", None)
    assert caught.value.kind == "template_gone"


def test_the_sites_launch_template_that_went() -> None:
    """That one is not ours to make."""
    place = Place()
    payload = {**place.plan(CONTENT).payload, "LaunchTemplate": {"LaunchTemplateId": "lt-0123"}}
    with pytest.raises(CallFailed) as caught:
        place.cloud.launch(RUN_INSTANCES, payload, "token", None)
    assert caught.value.kind == "refused"


# -- fleets that go on ----------------------------------------------------------------------------


@pytest.mark.parametrize("api", MAINTAINED)
def test_a_fleet_from_its_launch_to_its_end(api: str) -> None:
    """Launched without machines in the answer, found by tag, lowered without ending one, deleted
    without ending one."""
    place = Place()
    launched = place.launch(place.plan(MAINTAINED[api], 3))
    assert not launched.instances
    assert not launched.shortages
    place.later(1)
    assert len(living(place)) == 3
    swept = place.cloud.sweep(DEPLOYMENT)
    assert {(one.fleet_id, one.batch_id) for one in swept} == {(launched.fleet_id, BATCH)}
    assert {one.price_type for one in swept} == {"spot"}

    found = place.cloud.fleets(DEPLOYMENT, [api])
    assert found == [Fleet(api, launched.fleet_id, 3, BATCH)]
    assert place.cloud.fleets("another", [api]) == []
    others = [other for other in MAINTAINED if other != api]
    assert place.cloud.fleets(DEPLOYMENT, others) == []

    place.cloud.set_target(api, launched.fleet_id, 1, 0)
    place.later(60)
    assert len(living(place)) == 3
    assert place.cloud.fleets(DEPLOYMENT, [api]) == [Fleet(api, launched.fleet_id, 1, BATCH)]

    if api == CREATE_GROUP:
        assert place.cloud.delete_fleets(api, "maintain", [launched.fleet_id]) == []
        place.cloud.set_target(api, launched.fleet_id, 0, 0)
        place.cloud.terminate(living(place))
        place.later(120)
    else:
        assert place.cloud.delete_fleets(api, "maintain", [launched.fleet_id])
        assert len(living(place)) == 3
    for _ in range(2):
        done = place.cloud.delete_fleets(api, "maintain", [launched.fleet_id])
        assert done == [launched.fleet_id]
    assert place.cloud.fleets(DEPLOYMENT, [api]) == []
    place.cloud.set_target(api, launched.fleet_id, 0, 0)


@pytest.mark.parametrize(
    ("api", "fleet_id"),
    [
        (CREATE_FLEET, "fleet-00000009-5a4d-b0c5-0000-000000000009"),
        (REQUEST_SPOT_FLEET, "sfr-00000009-5a4d-b0c5-0000-000000000009"),
        (CREATE_GROUP, "hostledger-bat-9"),
    ],
)
def test_what_never_was_is_gone(api: str, fleet_id: str) -> None:
    """Its target is as low as can be, and it is deleted."""
    place = Place()
    place.cloud.set_target(api, fleet_id, 0, 0)
    assert place.cloud.delete_fleets(api, "maintain", [fleet_id]) == [fleet_id]


def test_fleets_are_deleted_in_the_chunks_that_aws_takes() -> None:
    """25 instant ones a call, 100 others, and an instant one with its machines."""
    place = Place()
    plan = place.plan(ONE_TYPE)
    ids = [place.launch(plan).fleet_id for _ in range(27)]
    assert sorted(place.cloud.delete_fleets(CREATE_FLEET, "instant", ids)) == sorted(ids)
    assert place.actions().count("DeleteFleets") == 2
    assert living(place) == []

    place = Place()
    plan = place.plan({**ONE_TYPE, "fleet_type": "request"})
    ids = [place.launch(plan).fleet_id for _ in range(30)]
    assert sorted(place.cloud.delete_fleets(CREATE_FLEET, "request", ids)) == sorted(ids)
    assert place.actions().count("DeleteFleets") == 1
    assert len(living(place)) == 30


def test_all_pages_of_fleets_are_read() -> None:
    """One of many, on the second page."""
    place = Place()
    plan = place.plan({**ONE_TYPE, "fleet_type": "request"})
    place.launch(plan)
    for number in range(fleets.PAGE):
        place.later(1)
        place.cloud.launch(CREATE_FLEET, plan.payload, f"fleet-{number}", None)
    found = place.cloud.fleets(DEPLOYMENT, [CREATE_FLEET])
    assert len({fleet.fleet_id for fleet in found}) == fleets.PAGE + 1
    assert place.actions().count("DescribeFleets") == 2


def test_the_group_of_a_lost_answer_is_found() -> None:
    """Its name is its token."""
    place = Place()
    plan = place.plan(MAINTAINED[CREATE_GROUP], 2)
    first = place.launch(plan)
    assert place.cloud.launch(CREATE_GROUP, plan.payload, "x", None).fleet_id == first.fleet_id
    place.later(1)
    assert len(living(place)) == 2


def test_a_group_of_somebody_else() -> None:
    """It has our name and another batch."""
    place = Place()
    plan = place.plan(MAINTAINED[CREATE_GROUP])
    place.launch(plan)
    theirs = [{**tag, "Value": "other"} for tag in plan.payload["Tags"]]
    with pytest.raises(CallFailed, match="somebody else"):
        place.cloud.launch(CREATE_GROUP, {**plan.payload, "Tags": theirs}, "x", None)


@pytest.mark.parametrize("api", [CREATE_FLEET, CREATE_GROUP])
def test_why_a_fleet_gave_fewer(api: str) -> None:
    """What its history says, in our classes."""
    place = Place()
    place.sandbox.set_capacity(1)
    launched = place.launch(place.plan(MAINTAINED[api], 3))
    place.later(100)
    (reason, *_) = place.cloud.why_short(api, launched.fleet_id)
    assert reason.kind == "shortage"
    assert reason.pool == "*/*/spot"
    assert reason.code
    assert reason.message


def test_reasons_in_a_history() -> None:
    """AWS's words of an EC2 Fleet and a Spot Fleet (API_EventInformation.html)."""
    words = (
        "iamFleetRoleInvalid",
        "allLaunchSpecsTemporarilyBlacklisted",
        "spotInstanceCountLimitExceeded",
        "spotFleetRequestConfigurationInvalid",
    )
    records = [{"EventInformation": {"EventSubType": w, "EventDescription": "d"}} for w in words]
    kinds = ["refused", "shortage", "quota", "refused"]
    found = fleets.from_history(records * 2)
    assert found == [
        Shortage("*/*/spot", kind, word, "d") for word, kind in zip(words, kinds, strict=True)
    ]
    event = {
        "EventSubType": "launchSpecTemporarilyBlacklisted",
        "EventDescription": "m5.large, ami-1, Linux/UNIX: Repeated errors have occurred. Error "
        "message: No. (Service: AmazonEC2; Status Code: 400; Error Code: "
        "MaxSpotInstanceCountExceeded)",
    }
    (one,) = fleets.from_history([{"EventInformation": event}])
    assert (one.kind, one.code) == ("quota", "MaxSpotInstanceCountExceeded")


def test_reasons_of_activities() -> None:
    """The EC2 code stands in the message; what succeeded or has none says nothing."""
    said = (
        "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not "
        "have sufficient m5.large capacity. Launching EC2 instance failed."
    )
    found = groups.reasons(
        [
            {"StatusCode": "Failed", "StatusMessage": said},
            {"StatusCode": "Failed", "StatusMessage": said},
            {"StatusCode": "Failed", "StatusMessage": "something else"},
            {"StatusCode": "Successful", "StatusMessage": "X - fine"},
            {"StatusCode": "Failed"},
        ]
    )
    assert found == [
        Shortage("*/*/ondemand", "shortage", "InsufficientInstanceCapacity", said),
        Shortage("*/*/ondemand", "refused", "LaunchFailed", "something else"),
    ]


# -- instances ------------------------------------------------------------------------------------


def test_instances_of_a_batch_are_found() -> None:
    """By tag, beside those by id and name."""
    place = Place()
    ids = [one.machine_id for one in place.launch(place.plan(CONTENT, 3)).instances]
    assert sorted(one.machine_id for one in place.cloud.find([], [], [BATCH])) == sorted(ids)
    assert place.cloud.find([], [], ["bat-other"]) == []


def test_an_instance_that_aws_took_back() -> None:
    """Is known from one that was terminated."""
    place = Place()
    spot = place.launch(place.plan({**ONE_TYPE, "provider_api": "RunInstances"}, 2))
    taken, ended = (one.machine_id for one in spot.instances)
    place.sandbox.interrupt([taken], notice=0)
    place.cloud.terminate([ended])
    found = {one.machine_id: one for one in place.cloud.find([taken, ended])}
    assert found[taken].interrupted and not found[ended].interrupted
    assert found[taken].reason


@pytest.mark.parametrize(
    ("tag", "lifecycle", "price_type"),
    [
        ("aws:ec2:fleet-id", "spot", "spot"),
        ("aws:ec2spot:fleet-request-id", None, "ondemand"),
        ("aws:autoscaling:groupName", None, "ondemand"),
    ],
)
def test_where_an_instance_comes_from(tag: str, lifecycle: str | None, price_type: str) -> None:
    """AWS tags what its fleets launch."""
    item: dict[str, Any] = {
        "InstanceId": "i-1",
        "State": {"Name": "running"},
        "Tags": [{"Key": tag, "Value": "f-1"}],
        "StateReason": {"Code": "Server.SpotInstanceShutdown", "Message": "m"},
    }
    if lifecycle:
        item["InstanceLifecycle"] = lifecycle
    one = instance_of(item)
    assert (one.fleet_id, one.price_type, one.interrupted) == ("f-1", price_type, True)


def test_instance_types() -> None:
    """In calls of a hundred at most."""
    place = Place()
    assert place.cloud.instance_types(["m5.large", "c6g.large"]) == {
        "m5.large": {"vcpus": 2, "cores": 1, "memory": 8192, "architectures": ["x86_64"]},
        "c6g.large": {"vcpus": 2, "cores": 2, "memory": 4096, "architectures": ["arm64"]},
    }
    assert place.cloud.instance_types([]) == {}
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    names = sorted(INSTANCE_TYPES)[:150]
    assert sorted(place.cloud.instance_types(names)) == names
    with pytest.raises(CallFailed, match="InvalidInstanceType"):
        place.cloud.instance_types(["m5.huge"])


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ResourceContention", 500, "throttled"),
        ("ScalingActivityInProgress", 400, "throttled"),
        ("FleetNotInModifiableState", 400, "throttled"),
        ("LimitExceeded", 400, "quota"),
        ("MaxSpotFleetRequestCountExceeded", 400, "quota"),
        ("InsufficientInstanceCapacity", 500, "shortage"),
        ("InvalidLaunchTemplateId.VersionNotFound", 400, "refused"),
    ],
)
def test_classes_of_errors(code: str, status: int, kind: str) -> None:
    """Of fleets and groups too."""
    assert classify(code, status) == kind


def test_an_internal_error_of_a_pool_is_no_doubt() -> None:
    """The answer that has it says what was launched."""
    assert (classify("InternalError", 500), shortage_kind("InternalError")) == (
        "ambiguous",
        "shortage",
    )


def test_what_is_not_allowed_is_named() -> None:
    """AWS's words, with the action, who, and on what."""
    place = Place()
    plan = place.plan(ONE_TYPE)
    place.sandbox.deny("ec2:CreateLaunchTemplate")
    with pytest.raises(CallFailed) as caught:
        place.launch(plan)
    assert caught.value.kind == "refused"
    assert caught.value.code == "UnauthorizedOperation"
    assert "ec2:CreateLaunchTemplate on resource: arn:" in caught.value.message


def test_an_encoded_refusal_names_the_action() -> None:
    """AWS's words say neither what nor who then."""
    from botocore.exceptions import ClientError

    answer: Any = {"Error": {"Code": "UnauthorizedOperation", "Message": "Encoded: x"}}
    assert failure(ClientError(answer, "CreateFleet"), "CreateFleet").message == (
        "CreateFleet: Encoded: x"
    )


# -- dry runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", [RUN_INSTANCES, *MAINTAINED])
def test_a_dry_run_asks_and_makes_nothing(api: str, tmp_path: Path) -> None:
    """Each call of the plan; Auto Scaling has none."""
    script = tmp_path / "setup.sh"
    script.write_bytes(b"#!/bin/sh\n")
    content = {**MAINTAINED.get(api, CONTENT), "user_data_file": str(script)}
    place = Place()
    place.sandbox.deny("ec2:RunInstances")
    said = dict(place.cloud.dry_run(place.plan(content)))
    if api == RUN_INSTANCES:
        (text,) = said.values()
        assert text.startswith("not authorized: ")
        assert "ec2:RunInstances on resource" in text
    else:
        assert said["CreateLaunchTemplate"] == "would succeed"
        assert said[api] == ("has no dry run" if api == CREATE_GROUP else "would succeed")
    assert living(place) == []
    assert not any(place.sandbox.leftovers({"hostledger:deployment": DEPLOYMENT}).values())
    asked = [call for call in place.sandbox.calls if not call.action.startswith("Describe")]
    assert all(call.params.get("DryRun") == "true" for call in asked)


def test_a_dry_run_that_cannot_be_asked() -> None:
    """Says nothing of the plan."""
    place = Place()
    place.sandbox.add_fault("refused", action="RunInstances")
    with pytest.raises(CallFailed) as caught:
        place.cloud.dry_run(place.plan(CONTENT))
    assert caught.value.kind == "unreachable"


# -- interruption notices -------------------------------------------------------------------------


def with_queue(log: str = "", **more: Any) -> tuple[Place, str]:
    """A place whose events go to a queue that is configured; its URL."""
    clock = FakeClock()
    sandbox = Sandbox(clock=lambda: clock.wall)
    url = sandbox.create_queue("notices", events=True)
    return Place(log, sandbox, clock, interruption_queue=url, **more), url


def test_notices_of_an_interruption() -> None:
    """A recommendation, then a warning, with the time when the machine goes; settled once."""
    place, _ = with_queue()
    spot = place.launch(place.plan({**ONE_TYPE, "provider_api": "RunInstances"}, 1))
    (machine,) = spot.instances
    assert place.cloud.notices() == []
    began = int(place.clock.wall)
    place.sandbox.interrupt([machine.machine_id], notice=120, rebalance_before=60)
    place.later(61)
    first, second = sorted(place.cloud.notices(), key=lambda notice: notice.until)
    assert (first.machine_id, first.reason, first.until) == (
        machine.machine_id,
        "rebalance",
        began,
    )
    assert (second.reason, second.until) == ("interruption", began + 180)
    assert place.cloud.notices() == []  # they are being looked at
    place.later(60)
    again = place.cloud.notices()
    assert len(again) == 2  # nobody settled them
    place.cloud.settle_notices([notice.handle for notice in again])
    place.later(60)
    assert place.cloud.notices() == []


def test_without_a_queue_there_are_no_notices() -> None:
    """And no call."""
    place = Place()
    assert place.cloud.notices() == []
    assert place.actions() == []


def test_more_notices_than_a_call_takes() -> None:
    """Ten a call are received and deleted."""
    place, url = with_queue()
    for number in range(23):
        place.sandbox.send_message(url, _warning(f"i-{number:017x}"))
    found: list[Notice] = []
    while notices := place.cloud.notices():
        found += notices
    assert len({notice.machine_id for notice in found}) == 23
    place.cloud.settle_notices([notice.handle for notice in found])
    assert place.actions().count("DeleteMessageBatch") == 3
    place.later(60)
    assert place.cloud.notices() == []


def test_what_is_no_notice_goes_without_a_trace_of_it(tmp_path: Path) -> None:
    """Other events silently, what is no event with a warning that does not quote it."""
    log = tmp_path / "log"
    place, url = with_queue(str(log))
    changed = {"detail-type": "EC2 Instance State-change Notification", "detail": {}}
    for body in (json.dumps(changed), "not json", "[]", '"text"', "{}", _warning("i-1", time="x")):
        place.sandbox.send_message(url, body)
    for number in range(12):
        place.sandbox.send_message(url, json.dumps({**changed, "id": number}))
    place.sandbox.send_message(url, _warning("i-2"))
    (notice,) = place.cloud.notices()
    assert notice.machine_id == "i-2"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(line["level"] == "WARN" for line in lines) == 5
    assert "not json" not in log.read_text()
    place.cloud.settle_notices([notice.handle])
    place.later(60)
    assert place.cloud.notices() == []


def test_a_queue_that_does_not_answer() -> None:
    """Is a failed call like any other."""
    place, _ = with_queue()
    place.sandbox.add_fault("refused", action="ReceiveMessage")
    with pytest.raises(CallFailed) as caught:
        place.cloud.notices()
    assert caught.value.kind == "unreachable"


def test_an_event_as_aws_documents_it() -> None:
    """spot-instance-termination-notices.html."""
    event = {
        "version": "0",
        "id": "12345678-1234-1234-1234-123456789012",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "source": "aws.ec2",
        "account": "123456789012",
        "time": "2026-11-23T10:00:00Z",
        "region": "us-east-2",
        "resources": ["arn:aws:ec2:us-east-2a:instance/i-1234567890abcdef0"],
        "detail": {"instance-id": "i-1234567890abcdef0", "instance-action": "terminate"},
    }
    assert notice_of(json.dumps(event), "h") == Notice(
        "i-1234567890abcdef0", "interruption", 1795428120, "h"
    )


def _warning(machine_id: str, time: str = "2026-11-23T10:00:00Z") -> str:
    return json.dumps(
        {
            "detail-type": "EC2 Spot Instance Interruption Warning",
            "time": time,
            "detail": {"instance-id": machine_id},
        }
    )


def test_tags_of_a_launch_reach_all_that_it_makes() -> None:
    """Whatever the API: instances with the batch, nothing else that nobody finds."""
    for content in (*MAINTAINED.values(), ONE_TYPE, {**ONE_TYPE, "provider_api": "RunInstances"}):
        place = Place()
        place.launch(place.plan({**content, "rc_account": "desk-7"}, 2))
        place.later(1)
        for one in place.sandbox.live_instances().values():
            assert one["tags"].items() >= {**TAGS, "rc_account": "desk-7"}.items()
        assert len(living(place)) == 2
