"""The sandbox's Auto Scaling groups keep what AWS documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from infrastructure.sandbox.buckets import Quotas
from infrastructure.sandbox.ec2 import Sandbox

SESSION = botocore.session.get_session()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def client(sandbox: Sandbox, service: str) -> Any:
    """A botocore client without retries, on a sandbox."""
    made = SESSION.create_client(
        service,
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )
    sandbox.attach(made)
    return made


class Site:
    """A sandbox with a launch template `site-lt`, and clients on it."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.sandbox = Sandbox(self.clock, **options)
        self.ec2 = client(self.sandbox, "ec2")
        self.groups = client(self.sandbox, "autoscaling")
        self.template("site-lt")

    def template(self, name: str, **data: Any) -> str:
        """Make a launch template and return its id."""
        tags = [{"Key": "from", "Value": "template"}, {"Key": "same", "Value": "template"}]
        content = {
            "ImageId": "ami-1",
            "InstanceType": "m5.large",
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }
        made = self.ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData=content | data
        )
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def create(self, name: str = "g", desired: int = 0, **more: Any) -> None:
        """Create a group as the product does; `more` replaces arguments."""
        asked: dict[str, Any] = {
            "AutoScalingGroupName": name,
            "MinSize": 0,
            "MaxSize": desired,
            "DesiredCapacity": desired,
            "VPCZoneIdentifier": "subnet-a",
            "NewInstancesProtectedFromScaleIn": True,
            "HealthCheckType": "EC2",
        }
        if "MixedInstancesPolicy" not in more:
            asked["LaunchTemplate"] = {"LaunchTemplateName": "site-lt", "Version": "1"}
        self.groups.create_auto_scaling_group(**asked | more)

    def group(self, name: str = "g") -> dict[str, Any]:
        """The one group of this name."""
        asked = self.groups.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        (found,) = asked["AutoScalingGroups"]
        return dict(found)

    def members(self, name: str = "g") -> list[str]:
        """The ids of the members that are not on their way out."""
        return [
            one["InstanceId"]
            for one in self.group(name)["Instances"]
            if one["LifecycleState"] != "Terminating"
        ]

    def activities(self, **asked: Any) -> list[dict[str, Any]]:
        """The group's scaling activities."""
        asked = {"AutoScalingGroupName": "g"} | asked
        return list(self.groups.describe_scaling_activities(**asked)["Activities"])

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.clock.now += seconds


def mixed(*types: str, on_demand: int = 100, base: int = 0, **weights: int) -> dict[str, Any]:
    """A mixed instances policy over the template `site-lt`; `m5_large=2` is a weight."""
    overrides = []
    for name in types:
        weight = weights.get(name.replace(".", "_"))
        overrides.append(
            {"InstanceType": name} | ({} if weight is None else {"WeightedCapacity": str(weight)})
        )
    return {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateName": "site-lt", "Version": "1"},
            "Overrides": overrides,
        },
        "InstancesDistribution": {
            "OnDemandBaseCapacity": base,
            "OnDemandPercentageAboveBaseCapacity": on_demand,
        },
    }


def refused(call: Callable[[], object]) -> str:
    """The code of the error that AWS answers."""
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


# -- creating and growing --------------------------------------------------------------------


def test_a_group_launches_its_desired_capacity_on_the_clock() -> None:
    site = Site(fleet_delay=5.0, boot_time=20.0)
    site.create(desired=3)
    assert site.sandbox.live_instances() == {}
    assert site.group()["Instances"] == []
    site.pass_time(5)
    group = site.group()
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (0, 3, 3)
    assert group["VPCZoneIdentifier"] == "subnet-a"
    assert group["AvailabilityZones"] == ["us-east-1a"]
    one = group["Instances"][0]
    assert (one["LifecycleState"], one["HealthStatus"]) == ("Pending", "Healthy")
    assert (one["InstanceType"], one["AvailabilityZone"]) == ("m5.large", "us-east-1a")
    assert one["LaunchTemplate"]["LaunchTemplateName"] == "site-lt"
    assert one["LaunchTemplate"]["Version"] == "1"
    site.pass_time(20)
    assert {one["LifecycleState"] for one in site.group()["Instances"]} == {"InService"}
    assert set(site.members()) == site.sandbox.live_instances().keys()


def test_the_name_is_the_key() -> None:
    """AlreadyExists, whatever else is asked for; the group that is there is left alone."""
    site = Site()
    site.create(desired=2)
    before = site.members()
    assert refused(lambda: site.create(desired=4)) == "AlreadyExists"
    assert site.members() == before


def test_members_carry_the_groups_tags() -> None:
    """ "Amazon EC2 Auto Scaling overrides the value of that instance tag with the value specified
    by the Auto Scaling group" (API_CreateAutoScalingGroup.html)."""
    site = Site()
    tags = [
        {"Key": "same", "Value": "group", "PropagateAtLaunch": True},
        {"Key": "group-only", "Value": "x", "PropagateAtLaunch": False},
    ]
    site.create(desired=1, Tags=tags)
    (live,) = site.sandbox.live_instances().values()
    assert live["tags"]["from"] == "template"
    assert live["tags"]["same"] == "group"
    assert live["tags"]["aws:autoscaling:groupName"] == "g"
    assert "group-only" not in live["tags"]
    described = {one["Key"]: one for one in site.group()["Tags"]}
    assert described["group-only"]["PropagateAtLaunch"] is False
    assert described["same"]["ResourceId"] == "g"
    found = site.ec2.describe_instances(
        Filters=[{"Name": "tag:aws:autoscaling:groupName", "Values": ["g"]}]
    )
    assert len(found["Reservations"]) == 1


def test_zones_are_balanced() -> None:
    site = Site()
    site.create(desired=7, VPCZoneIdentifier="subnet-a,subnet-b,subnet-c")
    zones = Counter(one["zone"] for one in site.sandbox.live_instances().values())
    assert sorted(zones.values()) == [2, 2, 3]


def test_without_capacity_another_zone_takes_over() -> None:
    """balanced-best-effort, the default of AvailabilityZoneDistribution."""
    site = Site()
    site.sandbox.set_capacity(1, subnet="subnet-a")
    site.create(desired=6, VPCZoneIdentifier="subnet-a,subnet-b")
    subnets = Counter(one["subnet"] for one in site.sandbox.live_instances().values())
    assert subnets == {"subnet-a": 1, "subnet-b": 5}


def test_a_group_tries_again_until_there_is_capacity() -> None:
    """The failure is in the activities (API_DescribeScalingActivities.html)."""
    site = Site(fleet_retry=30.0)
    site.sandbox.set_capacity(2, instance_type="m5.large")
    site.create(desired=5)
    assert len(site.members()) == 2
    failed = [one for one in site.activities() if one["StatusCode"] == "Failed"]
    assert len(failed) == 1
    assert "InsufficientInstanceCapacity" in failed[0]["StatusMessage"]
    assert failed[0]["StatusMessage"].endswith("Launching EC2 instance failed.")
    site.sandbox.set_capacity(4, instance_type="m5.large")
    site.pass_time(29)
    assert len(site.members()) == 2
    site.pass_time(1)
    assert len(site.members()) == 4
    site.sandbox.set_capacity(9, instance_type="m5.large")
    site.pass_time(30)
    assert len(site.members()) == 5
    site.pass_time(300)
    assert len(site.members()) == 5


def test_a_capacity_fault_is_about_groups_too() -> None:
    site = Site()
    site.sandbox.add_fault("cap", action="*", limit=1, times=-1)
    site.create(desired=3)
    assert len(site.members()) == 1
    site.sandbox.clear_faults()
    site.pass_time(30)
    assert len(site.members()) == 3


def test_a_bad_launch_template_fails_late_or_early() -> None:
    """One that is not there is refused; an image that is not there is an activity's failure."""
    site = Site(strict_ids=True)
    template = {"LaunchTemplateName": "none", "Version": "1"}
    assert refused(lambda: site.create("other", LaunchTemplate=template)) == "ValidationError"
    gone = {"LaunchTemplateName": "site-lt", "Version": "7"}
    assert refused(lambda: site.create("other", LaunchTemplate=gone)) == "ValidationError"
    site.create(desired=1)
    assert site.members() == []
    (failed,) = site.activities()
    assert "InvalidAMIID.NotFound" in failed["StatusMessage"]


def test_launch_templates_by_id_and_latest_version() -> None:
    site = Site()
    template_id = site.template("other-lt", InstanceType="c5.xlarge")
    site.create(desired=1, LaunchTemplate={"LaunchTemplateId": template_id, "Version": "$Latest"})
    site.ec2.create_launch_template_version(
        LaunchTemplateId=template_id,
        SourceVersion="1",
        LaunchTemplateData={"InstanceType": "c5.2xlarge"},
    )
    site.groups.update_auto_scaling_group(AutoScalingGroupName="g", MaxSize=2, DesiredCapacity=2)
    # The first was launched before the second version, when its time came.
    types = {one["LaunchTemplate"]["Version"]: one for one in site.group()["Instances"]}
    assert types["1"]["InstanceType"] == "c5.xlarge"
    assert types["2"]["InstanceType"] == "c5.2xlarge"


def test_sizes_must_make_sense() -> None:
    site = Site()
    for wrong in (
        {"MinSize": 3, "MaxSize": 2, "DesiredCapacity": 2},
        {"MaxSize": 2, "DesiredCapacity": 3},
        {"MinSize": 1, "MaxSize": 2, "DesiredCapacity": 0},
    ):
        assert refused(lambda wrong=wrong: site.create(**wrong)) == "ValidationError"
    site.create(MinSize=1, MaxSize=3, DesiredCapacity=2)
    for desired in (0, 4):
        asked = {"AutoScalingGroupName": "g", "DesiredCapacity": desired}
        assert refused(lambda a=asked: site.groups.set_desired_capacity(**a)) == "ValidationError"
    update = site.groups.update_auto_scaling_group
    # "If you specify a new value for MinSize without ... DesiredCapacity" (and so for MaxSize)
    update(AutoScalingGroupName="g", MinSize=3)
    assert site.group()["DesiredCapacity"] == 3
    update(AutoScalingGroupName="g", MinSize=0, MaxSize=1)
    assert site.group()["DesiredCapacity"] == 1
    assert refused(lambda: update(AutoScalingGroupName="none", MaxSize=1)) == "ValidationError"


def test_what_the_sandbox_lacks_is_refused() -> None:
    site = Site()
    hook = {"LifecycleHookName": "h", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"}
    assert refused(lambda: site.create(LifecycleHookSpecificationList=[hook])) == "ValidationError"
    assert refused(lambda: site.create(CapacityRebalance=True)) == "ValidationError"
    assert refused(lambda: site.groups.describe_policies()) == "InvalidAction"


def test_groups_draw_from_the_bucket_of_launches() -> None:
    """The resource bucket is the account's, whichever API launches (ec2-api-throttling.html)."""
    site = Site(quotas=Quotas.aws())
    site.create(desired=1100)
    assert len(site.members()) == 1000
    assert "Request limit exceeded" in site.activities()[0]["StatusMessage"]
    site.pass_time(30)
    assert len(site.members()) == 1060


# -- mixed instances -------------------------------------------------------------------------


def test_a_policy_mixes_markets() -> None:
    site = Site()
    policy = mixed("m5.large", "c5.large", on_demand=25, base=2)
    site.create(desired=10, MixedInstancesPolicy=policy)
    ec2 = site.ec2.describe_instances()["Reservations"]
    markets = Counter(
        one.get("InstanceLifecycle", "on-demand")
        for reservation in ec2
        for one in reservation["Instances"]
    )
    assert markets == {"on-demand": 4, "spot": 6}
    described = site.group()["MixedInstancesPolicy"]
    assert described["InstancesDistribution"]["OnDemandBaseCapacity"] == 2
    assert [one["InstanceType"] for one in described["LaunchTemplate"]["Overrides"]] == [
        "m5.large",
        "c5.large",
    ]


def test_the_next_override_is_taken_when_one_has_no_capacity() -> None:
    site = Site()
    site.sandbox.set_capacity(2, instance_type="m5.large", market="spot")
    policy = mixed("m5.large", "c5.large", on_demand=0)
    site.create(desired=5, MixedInstancesPolicy=policy)
    types = Counter(one["type"] for one in site.sandbox.live_instances().values())
    assert types == {"m5.large": 2, "c5.large": 3}
    assert "Could not launch Spot Instances" in str(site.activities())


def test_weights_count_units() -> None:
    """ "... launches instances until the desired capacity is totally fulfilled, even if this
    results in an overage" (API_LaunchTemplateOverrides.html)."""
    site = Site()
    policy = mixed("m5.2xlarge", m5_2xlarge=4)
    site.create(desired=10, MixedInstancesPolicy=policy)
    found = site.group()["Instances"]
    assert [one["WeightedCapacity"] for one in found] == ["4"] * 3


def test_overrides_have_weights_all_or_none() -> None:
    site = Site()
    policy = mixed("m5.large", "m5.2xlarge", m5_2xlarge=4)
    assert refused(lambda: site.create(MixedInstancesPolicy=policy)) == "ValidationError"


def test_types_by_their_requirements() -> None:
    site = Site()
    policy = mixed()
    policy["LaunchTemplate"]["Overrides"] = [
        {
            "InstanceRequirements": {
                "VCpuCount": {"Min": 2, "Max": 2},
                "MemoryMiB": {"Min": 8192, "Max": 8192},
                "AllowedInstanceTypes": ["m5.*"],
            }
        }
    ]
    site.create(desired=2, MixedInstancesPolicy=policy)
    assert {one["type"] for one in site.sandbox.live_instances().values()} == {"m5.large"}


# -- keeping and shrinking -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["terminate", "behind", "stop"])
def test_a_member_that_dies_is_replaced(how: str) -> None:
    site = Site(fleet_delay=5.0)
    site.create(desired=2)
    site.pass_time(5)
    victim, other = site.members()
    if how == "terminate":
        site.ec2.terminate_instances(InstanceIds=[victim])
    elif how == "behind":
        site.sandbox.terminate_behind_back([victim], "Server.SpotInstanceTermination")
    else:
        site.sandbox.stop_behind_back([victim])
    assert site.members() == [other]
    site.pass_time(5)
    new = site.members()
    assert len(new) == 2
    assert victim not in new
    assert site.sandbox.live_instances().keys() == set(new)
    assert "health check" in str(site.activities())


def test_a_spot_member_that_aws_takes_is_replaced() -> None:
    """The warning goes to the queue of events, and the machine two minutes later."""
    site = Site()
    queue = site.sandbox.create_queue("events", events=True)
    site.create(desired=1, MixedInstancesPolicy=mixed("m5.large", on_demand=0))
    (victim,) = site.members()
    site.sandbox.interrupt([victim])
    assert site.members() == [victim]
    sqs = client(site.sandbox, "sqs")
    received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    events = [json.loads(message["Body"]) for message in received]
    (warning,) = [
        event
        for event in events
        if event["detail-type"] == "EC2 Spot Instance Interruption Warning"
    ]
    assert warning["detail"] == {"instance-id": victim, "instance-action": "terminate"}
    site.pass_time(120)
    (new,) = site.members()
    assert new != victim


def test_lowering_the_target_spares_the_protected() -> None:
    """ec2-auto-scaling-instance-protection.html: the desired capacity falls, and nothing ends
    until the protection is turned off."""
    site = Site()
    site.create(desired=3)
    members = site.members()
    site.groups.update_auto_scaling_group(AutoScalingGroupName="g", MaxSize=1, DesiredCapacity=1)
    assert site.group()["DesiredCapacity"] == 1
    assert site.members() == members
    assert "protected from scale in" in site.activities()[0]["StatusMessage"]
    site.groups.set_instance_protection(
        AutoScalingGroupName="g", InstanceIds=members, ProtectedFromScaleIn=False
    )
    assert len(site.members()) == 1


def test_the_unprotected_end_when_the_target_is_lowered() -> None:
    site = Site()
    site.create(desired=4, VPCZoneIdentifier="subnet-a,subnet-b")
    members = site.members()
    spared = members[:1]
    site.groups.set_instance_protection(
        AutoScalingGroupName="g", InstanceIds=members[1:], ProtectedFromScaleIn=False
    )
    site.groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=0)
    assert site.members() == spared
    assert site.sandbox.live_instances().keys() == set(spared)


def test_protection_begins_in_service() -> None:
    """ "Instance scale-in protection starts when the instance state is InService": a pending
    member ends when the target is lowered."""
    site = Site(boot_time=20.0)
    site.create(desired=2)
    members = site.members()
    asked = {"AutoScalingGroupName": "g", "InstanceIds": members, "ProtectedFromScaleIn": True}
    assert refused(lambda: site.groups.set_instance_protection(**asked)) == "ValidationError"
    site.groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=1)
    assert len(site.members()) == 1
    site.pass_time(20)
    site.groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=0)
    assert len(site.members()) == 1


def test_a_member_that_dies_above_the_target_is_not_replaced() -> None:
    """So the product ends machines: the target first, then TerminateInstances."""
    site = Site()
    site.create(desired=3)
    victim, *others = site.members()
    site.groups.update_auto_scaling_group(AutoScalingGroupName="g", MaxSize=2, DesiredCapacity=2)
    site.ec2.terminate_instances(InstanceIds=[victim])
    site.pass_time(600)
    assert site.members() == others


def test_terminating_in_the_group() -> None:
    """API_TerminateInstanceInAutoScalingGroup.html: replaced unless the size is decremented;
    protection from scale in does not count."""
    site = Site(shutdown_time=10.0)
    site.create(desired=3, MinSize=1)
    first, second, third = site.members()
    terminate = site.groups.terminate_instance_in_auto_scaling_group
    done = terminate(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    assert done["Activity"]["StatusCode"] == "InProgress"
    assert first in done["Activity"]["Description"]
    assert site.group()["DesiredCapacity"] == 2
    again = {"InstanceId": first, "ShouldDecrementDesiredCapacity": True}
    assert refused(lambda: terminate(**again)) == "ScalingActivityInProgress"
    site.pass_time(10)
    assert refused(lambda: terminate(**again)) == "ValidationError"
    assert site.group()["DesiredCapacity"] == 2
    terminate(InstanceId=second, ShouldDecrementDesiredCapacity=False)
    members = site.members()
    assert len(members) == 2
    assert second not in members
    several = {
        "InstanceIds": members,
        "AutoScalingGroupName": "g",
        "ShouldDecrementDesiredCapacity": True,
    }
    # It would fall below MinSize: nothing ends.
    assert refused(lambda: terminate(**several)) == "ValidationError"
    assert site.members() == members
    site.groups.update_auto_scaling_group(AutoScalingGroupName="g", MinSize=0)
    assert len(terminate(**several)["Activities"]) == 2
    assert site.members() == []
    assert third in members


def test_terminating_several_needs_the_group_and_members_only() -> None:
    site = Site()
    site.create(desired=2)
    members = site.members()
    asked: dict[str, Any] = {"InstanceIds": members, "ShouldDecrementDesiredCapacity": True}
    terminate = site.groups.terminate_instance_in_auto_scaling_group
    assert refused(lambda: terminate(**asked)) == "ValidationError"
    asked["AutoScalingGroupName"] = "g"
    strange = asked | {"InstanceIds": [*members, "i-0123456789abcdef0"]}
    assert refused(lambda: terminate(**strange)) == "ValidationError"
    assert site.members() == members


def test_detaching() -> None:
    """API_DetachInstances.html: the machine lives on by itself; at most 20 ids."""
    site = Site()
    site.create(desired=2)
    one, two = site.members()
    asked = {"AutoScalingGroupName": "g", "ShouldDecrementDesiredCapacity": True}
    site.groups.detach_instances(InstanceIds=[one], **asked)
    assert site.members() == [two]
    live = site.sandbox.live_instances()
    assert live.keys() == {one, two}
    assert "aws:autoscaling:groupName" not in live[one]["tags"]
    site.groups.detach_instances(
        AutoScalingGroupName="g", InstanceIds=[two], ShouldDecrementDesiredCapacity=False
    )
    assert len(site.members()) == 1
    assert len(site.sandbox.live_instances()) == 3
    many = [f"i-{number:017x}" for number in range(21)]
    assert refused(lambda: site.groups.detach_instances(InstanceIds=many, **asked)) == (
        "ValidationError"
    )


# -- launching at once -----------------------------------------------------------------------


def test_launch_instances_answers_ids() -> None:
    """launch-instances-synchronously.html"""
    site = Site()
    site.create(MaxSize=10, VPCZoneIdentifier="subnet-a,subnet-b")
    asked = {"AutoScalingGroupName": "g", "RequestedCapacity": 3, "ClientToken": "t"}
    assert refused(lambda: site.groups.launch_instances(**asked)) == "ValidationError"
    asked |= {"SubnetIds": ["subnet-b"]}
    answer = site.groups.launch_instances(**asked)
    (launched,) = answer["Instances"]
    assert (launched["SubnetId"], launched["MarketType"]) == ("subnet-b", "OnDemand")
    assert set(launched["InstanceIds"]) == site.sandbox.live_instances().keys()
    assert site.group()["DesiredCapacity"] == 3
    assert site.groups.launch_instances(**asked)["Instances"] == answer["Instances"]
    assert len(site.sandbox.live_instances()) == 3
    other = asked | {"RequestedCapacity": 2}
    assert refused(lambda: site.groups.launch_instances(**other)) == "IdempotentParameterMismatch"
    site.sandbox.set_capacity(4, subnet="subnet-b")
    short = site.groups.launch_instances(**asked | {"ClientToken": "u"})
    assert [len(one["InstanceIds"]) for one in short["Instances"]] == [1]
    assert short["Errors"][0]["ErrorCode"] == "InsufficientInstanceCapacity"
    site.pass_time(600)
    assert len(site.members()) == 4
    many = asked | {"ClientToken": "v", "RequestedCapacity": 101}
    assert refused(lambda: site.groups.launch_instances(**many)) == "ValidationError"


# -- describing and deleting -----------------------------------------------------------------


def test_groups_by_name_tag_and_page() -> None:
    site = Site()
    for number in range(60):
        tags = [{"Key": "batch", "Value": str(number % 2), "PropagateAtLaunch": False}]
        site.create(f"g{number:02d}", Tags=tags)
    describe = site.groups.describe_auto_scaling_groups
    first = describe()
    assert len(first["AutoScalingGroups"]) == 50
    rest = describe(NextToken=first["NextToken"])["AutoScalingGroups"]
    assert [one["AutoScalingGroupName"] for one in rest] == [f"g{n}" for n in range(50, 60)]
    odd = describe(Filters=[{"Name": "tag:batch", "Values": ["1"]}], MaxRecords=100)
    assert len(odd["AutoScalingGroups"]) == 30
    assert describe(Filters=[{"Name": "tag-key", "Values": ["x"]}])["AutoScalingGroups"] == []
    assert (
        describe(AutoScalingGroupNames=["g01", "none"])["AutoScalingGroups"][0][
            "AutoScalingGroupName"
        ]
        == "g01"
    )
    assert refused(lambda: describe(NextToken="?")) == "InvalidNextToken"
    assert refused(lambda: describe(MaxRecords=101)) == "ValidationError"


def test_instances_by_id_ignore_the_unknown() -> None:
    """API_DescribeAutoScalingInstances.html: "ignored with no error"; 50 a page."""
    site = Site()
    site.create(desired=60)
    one = site.members()[0]
    describe = site.groups.describe_auto_scaling_instances
    (found,) = describe(InstanceIds=[one, "i-0123456789abcdef0"])["AutoScalingInstances"]
    assert (found["InstanceId"], found["AutoScalingGroupName"]) == (one, "g")
    pages = site.groups.get_paginator("describe_auto_scaling_instances").paginate()
    assert [len(page["AutoScalingInstances"]) for page in pages] == [50, 10]


def test_activities_tell_what_happened() -> None:
    site = Site(boot_time=20.0)
    site.create(desired=2)
    assert {one["StatusCode"] for one in site.activities()} == {"PreInService"}
    site.pass_time(20)
    found = site.activities(Filters=[{"Name": "Status", "Values": ["Successful"]}])
    assert len(found) == 2
    assert "difference between desired and actual capacity" in found[0]["Cause"]
    assert [one["ActivityId"] for one in site.activities(ActivityIds=[found[1]["ActivityId"]])] == [
        found[1]["ActivityId"]
    ]
    assert refused(lambda: site.activities(AutoScalingGroupName="none")) == "ValidationError"
    page = site.groups.describe_scaling_activities(AutoScalingGroupName="g", MaxRecords=1)
    assert len(page["Activities"]) == 1
    assert page["NextToken"]


def test_a_group_with_instances_is_not_deleted() -> None:
    """ResourceInUse while it has some, ScalingActivityInProgress while the last go."""
    site = Site(shutdown_time=10.0)
    site.create(desired=2)
    members = site.members()
    delete = site.groups.delete_auto_scaling_group
    assert refused(lambda: delete(AutoScalingGroupName="g")) == "ResourceInUse"
    site.groups.update_auto_scaling_group(AutoScalingGroupName="g", DesiredCapacity=0)
    site.ec2.terminate_instances(InstanceIds=members)
    assert refused(lambda: delete(AutoScalingGroupName="g")) == "ScalingActivityInProgress"
    site.pass_time(10)
    delete(AutoScalingGroupName="g")
    assert site.groups.describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert refused(lambda: delete(AutoScalingGroupName="g")) == "ValidationError"
    # Two launches, the note that all are protected, and two terminations.
    assert len(site.activities(IncludeDeletedGroups=True)) == 5
    site.create(desired=1)
    assert len(site.members()) == 1


def test_force_ends_the_instances() -> None:
    """ "... to be deleted along with all instances associated with the group, without waiting for
    all instances to be terminated" (ForceDelete)."""
    site = Site(shutdown_time=10.0)
    site.create(desired=2)
    site.members()
    site.groups.delete_auto_scaling_group(AutoScalingGroupName="g", ForceDelete=True)
    assert site.sandbox.live_instances() == {}
    assert site.group()["Status"] == "Delete in progress"
    assert refused(lambda: site.create()) == "AlreadyExists"
    site.pass_time(10)
    assert site.groups.describe_auto_scaling_groups()["AutoScalingGroups"] == []


def test_a_deleted_group_takes_its_time() -> None:
    """It stays "Delete in progress" for a while, when nothing is in it too; it is told so."""
    site = Site(fleet_delay=5.0)
    site.create()
    site.groups.delete_auto_scaling_group(AutoScalingGroupName="g")
    assert site.group()["Status"] == "Delete in progress"
    update = site.groups.update_auto_scaling_group
    assert refused(lambda: update(AutoScalingGroupName="g", MaxSize=1)) == "ValidationError"
    assert site.sandbox.leftovers({}).keys() == {"launch_templates"}
    site.pass_time(5)
    assert site.groups.describe_auto_scaling_groups()["AutoScalingGroups"] == []


def test_a_group_that_launches_soon_is_not_deleted() -> None:
    site = Site(fleet_delay=5.0)
    site.create(desired=1)
    delete = site.groups.delete_auto_scaling_group
    assert refused(lambda: delete(AutoScalingGroupName="g")) == "ScalingActivityInProgress"
    site.groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=0)
    delete(AutoScalingGroupName="g")
    site.pass_time(60)
    assert site.sandbox.live_instances() == {}


def test_groups_of_accounts_and_regions_are_their_own() -> None:
    site = Site(accounts={"AKIATHEIRS": "111111111111"})
    site.create(desired=1)
    theirs = SESSION.create_client(
        "autoscaling",
        region_name="us-east-1",
        aws_access_key_id="AKIATHEIRS",
        aws_secret_access_key="secret",
    )
    site.sandbox.attach(theirs)
    assert theirs.describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert len(site.members()) == 1


def test_faults_hit_groups_in_their_own_words() -> None:
    """ResourceContention (500) is documented for every action, and comes when a test says so."""
    site = Site()
    site.sandbox.add_fault(
        "error", action="CreateAutoScalingGroup", code="ResourceContention", status=500
    )
    site.sandbox.add_fault("throttle", action="UpdateAutoScalingGroup")
    assert refused(lambda: site.create(desired=1)) == "ResourceContention"
    site.create(desired=1)
    update = site.groups.update_auto_scaling_group
    assert refused(lambda: update(AutoScalingGroupName="g", MaxSize=3)) == "Throttling"
    call = next(one for one in site.sandbox.calls if one.action == "CreateAutoScalingGroup")
    assert (call.service, call.outcome) == ("autoscaling", "error")
    assert call.params["LaunchTemplate.LaunchTemplateName"] == "site-lt"


def test_groups_not_deleted_are_left_over() -> None:
    site = Site()
    tags = [{"Key": "owner", "Value": "us", "PropagateAtLaunch": False}]
    site.create(Tags=tags)
    site.create("other")
    assert site.sandbox.leftovers({"owner": "us"}) == {"groups": ["g"]}
    site.groups.delete_auto_scaling_group(AutoScalingGroupName="g")
    assert site.sandbox.leftovers({"owner": "us"}) == {}


def test_many_members_come_and_go() -> None:
    site = Site()
    site.create(desired=500, VPCZoneIdentifier="subnet-a,subnet-b,subnet-c")
    assert len(site.members()) == 500
    site.groups.delete_auto_scaling_group(AutoScalingGroupName="g", ForceDelete=True)
    assert site.sandbox.live_instances() == {}
