"""The sandbox's launch templates, fleets, spot instances and capacity answer as AWS documents."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infrastructure.sandbox.buckets import Limit
from infrastructure.sandbox.ec2 import Quotas, Sandbox
from tests.infrastructure.test_sandbox import (
    HOUR,
    Clock,
    by,
    client,
    described,
    launch,
    refused,
    states,
    tagged,
)

DATA: dict[str, Any] = {"ImageId": "ami-1", "InstanceType": "m5.large"}
ROLE = "arn:aws:iam::123456789012:role/fleet"


def tags_on(kind: str, **tags: str) -> dict[str, Any]:
    """One tag specification."""
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}


def template(ec2: Any, name: str = "template", **data: Any) -> str:
    """Make a launch template and return its id."""
    made = ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData=DATA | data,
        TagSpecifications=[tags_on("launch-template", owner="me")],
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def over(instance_type: str = "m5.large", subnet: str = "subnet-a", **more: Any) -> dict[str, Any]:
    """One override."""
    return {"InstanceType": instance_type, "SubnetId": subnet, **more}


def fleet_config(
    units: int, *overrides: dict[str, Any], market: str = "on-demand", **more: Any
) -> dict[str, Any]:
    """CreateFleet's parameters, for an instant fleet unless said."""
    specification = {"LaunchTemplateName": "template", "Version": "1"}
    configs = [
        {"LaunchTemplateSpecification": specification, "Overrides": list(overrides) or [over()]}
    ]
    target = {"TotalTargetCapacity": units, "DefaultTargetCapacityType": market}
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": configs,
        "TargetCapacitySpecification": target,
    } | more


def spot_config(units: int, *overrides: dict[str, Any], **more: Any) -> dict[str, Any]:
    """SpotFleetRequestConfig."""
    specification = {"LaunchTemplateName": "template", "Version": "1"}
    configs = [
        {"LaunchTemplateSpecification": specification, "Overrides": list(overrides) or [over()]}
    ]
    return {
        "IamFleetRole": ROLE,
        "TargetCapacity": units,
        "LaunchTemplateConfigs": configs,
    } | more


def ids_of(answer: dict[str, Any]) -> list[str]:
    """The instances of CreateFleet's answer."""
    return [one for item in answer["Instances"] for one in item["InstanceIds"]]


def errors_of(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Type, subnet and code of each error of CreateFleet's answer."""
    found = []
    for error in answer["Errors"]:
        asked = error["LaunchTemplateAndOverrides"]["Overrides"]
        found.append((asked["InstanceType"], asked["SubnetId"], error["ErrorCode"]))
    return found


def pools(sandbox: Sandbox) -> Counter[tuple[str, str, str]]:
    """How many machines live of each type, subnet and market."""
    return Counter(
        (truth["type"], truth["subnet"], truth["lifecycle"])
        for truth in sandbox.live_instances().values()
    )


def world(**options: Any) -> tuple[Clock, Sandbox, Any]:
    """A clock, a sandbox with the launch template "template", and a client."""
    clock = Clock()
    sandbox = Sandbox(clock, **options)
    ec2 = client(sandbox)
    template(ec2)
    return clock, sandbox, ec2


def fleet(ec2: Any, fleet_id: str) -> dict[str, Any]:
    """DescribeFleets' row of a fleet."""
    (row,) = ec2.describe_fleets(FleetIds=[fleet_id])["Fleets"]
    return dict(row)


# -- launch templates ---------------------------------------------------------------------------


def test_a_launch_template_keeps_its_data_exactly() -> None:
    """What CreateLaunchTemplate was given, DescribeLaunchTemplateVersions gives back
    (API_RequestLaunchTemplateData.html, API_ResponseLaunchTemplateData.html)."""
    ec2 = client(Sandbox(Clock()))
    ebs = {"VolumeSize": 9, "VolumeType": "io2", "Iops": 300, "Encrypted": True, "KmsKeyId": "k"}
    interface = {
        "DeviceIndex": 1,
        "NetworkCardIndex": 1,
        "InterfaceType": "efa",
        "Groups": ["sg-1", "sg-2"],
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": False,
    }
    spot = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.1"}}
    data = {
        "ImageId": "ami-1",
        "InstanceType": "m5.large",
        "KeyName": "key",
        "UserData": "IyEvYmluL3NoCg==",
        "EbsOptimized": False,
        "SecurityGroupIds": ["sg-1"],
        "IamInstanceProfile": {"Name": "role"},
        "BlockDeviceMappings": [{"DeviceName": "/dev/sdb", "Ebs": ebs}],
        "NetworkInterfaces": [interface],
        "TagSpecifications": [tags_on("instance", a="1 & <2>"), tags_on("volume", b="")],
        "InstanceMarketOptions": spot,
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        "Placement": {"GroupName": "group", "Tenancy": "dedicated", "PartitionNumber": 3},
        "CapacityReservationSpecification": {
            "CapacityReservationTarget": {"CapacityReservationId": "cr-1"}
        },
        "InstanceRequirements": {"VCpuCount": {"Min": 2, "Max": 4}, "MemoryMiB": {"Min": 1}},
    }
    made = ec2.create_launch_template(
        LaunchTemplateName="exact", LaunchTemplateData=data, VersionDescription="first"
    )["LaunchTemplate"]
    assert (made["DefaultVersionNumber"], made["LatestVersionNumber"]) == (1, 1)
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateName="exact")[
        "LaunchTemplateVersions"
    ]
    assert version["LaunchTemplateData"] == data
    assert (version["VersionDescription"], version["DefaultVersion"]) == ("first", True)


def test_launch_templates_are_found_by_id_name_and_tag() -> None:
    """API_DescribeLaunchTemplates.html; codes of errors-overview.html."""
    ec2 = client(Sandbox(Clock()))
    one, two = template(ec2, "one"), template(ec2, "two")

    def found(**asked: Any) -> list[str]:
        rows = ec2.describe_launch_templates(**asked)["LaunchTemplates"]
        return [row["LaunchTemplateId"] for row in rows]

    assert found() == [one, two]
    assert found(LaunchTemplateIds=[two]) == [two]
    assert found(LaunchTemplateNames=["one"]) == [one]
    assert found(**by("tag:owner", "me")) == [one, two]
    assert found(**by("tag:owner", "you")) == []
    assert found(**by("launch-template-name", "t*")) == [two]
    first = ec2.describe_launch_templates(MaxResults=1)
    assert found(MaxResults=1, NextToken=first["NextToken"]) == [two]
    assert refused(lambda: found(LaunchTemplateIds=["lt-00000000"])) == (
        "InvalidLaunchTemplateId.NotFound"
    )
    assert refused(lambda: found(LaunchTemplateNames=["none"])) == (
        "InvalidLaunchTemplateName.NotFoundException"
    )
    assert refused(lambda: found(**by("colour", "red"))) == "InvalidParameterValue"


def test_a_launch_template_name_is_used_once() -> None:
    """InvalidLaunchTemplateName.AlreadyExistsException, unless the token says that it is the
    same call (errors-overview.html)."""
    ec2 = client(Sandbox(Clock()))
    made = template(ec2)
    code = refused(lambda: template(ec2))
    assert code == "InvalidLaunchTemplateName.AlreadyExistsException"
    asked = {"LaunchTemplateName": "again", "LaunchTemplateData": DATA, "ClientToken": "t"}
    first = ec2.create_launch_template(**asked)["LaunchTemplate"]["LaunchTemplateId"]
    again = ec2.create_launch_template(**asked)["LaunchTemplate"]["LaunchTemplateId"]
    assert first == again != made
    ec2.delete_launch_template(LaunchTemplateName="template")
    assert template(ec2) != made


def test_a_version_inherits_from_its_source() -> None:
    """Parameters of SourceVersion, except those that are specified
    (API_CreateLaunchTemplateVersion.html)."""
    ec2 = client(Sandbox(Clock()))
    made = template(ec2, KeyName="key")
    for data, more in (({"KeyName": "other"}, {"SourceVersion": "1"}), ({"KeyName": "x"}, {})):
        ec2.create_launch_template_version(LaunchTemplateId=made, LaunchTemplateData=data, **more)

    def version(text: str) -> dict[str, Any]:
        (row,) = ec2.describe_launch_template_versions(LaunchTemplateId=made, Versions=[text])[
            "LaunchTemplateVersions"
        ]
        return dict(row["LaunchTemplateData"])

    assert version("2") == DATA | {"KeyName": "other"}
    assert version("$Latest") == {"KeyName": "x"}
    assert version("$Default") == DATA | {"KeyName": "key"}
    assert refused(lambda: version("4")) == "InvalidLaunchTemplateId.VersionNotFound"
    ec2.modify_launch_template(LaunchTemplateId=made, DefaultVersion="2")
    assert version("$Default")["KeyName"] == "other"
    every = ec2.describe_launch_template_versions(LaunchTemplateId=made)
    assert [row["VersionNumber"] for row in every["LaunchTemplateVersions"]] == [3, 2, 1]


@pytest.mark.parametrize("key", ["LaunchTemplateId", "LaunchTemplateName"])
def test_a_deleted_launch_template_is_gone(key: str) -> None:
    """API_DeleteLaunchTemplate.html: by id or by name, all versions."""
    ec2 = client(Sandbox(Clock()))
    named = {"LaunchTemplateId": template(ec2), "LaunchTemplateName": "template"}
    ec2.delete_launch_template(**{key: named[key]})
    assert ec2.describe_launch_templates()["LaunchTemplates"] == []
    assert refused(lambda: ec2.delete_launch_template(**{key: named[key]})) in (
        "InvalidLaunchTemplateId.NotFound",
        "InvalidLaunchTemplateName.NotFoundException",
    )


def test_run_instances_uses_a_launch_template() -> None:
    """Parameters of the call replace the template's (API_RunInstances.html); tags are joined."""
    ec2 = client(Sandbox(Clock()))
    instance_tags = tags_on("instance", a="template", b="template")
    made = template(ec2, KeyName="key", TagSpecifications=[instance_tags])
    (it,) = ec2.run_instances(
        LaunchTemplate={"LaunchTemplateId": made},
        MinCount=1,
        MaxCount=1,
        InstanceType="c5.large",
        SubnetId="subnet-b",
        TagSpecifications=tagged(b="call"),
    )["Instances"]
    assert (it["ImageId"], it["KeyName"]) == ("ami-1", "key")
    assert (it["InstanceType"], it["SubnetId"]) == ("c5.large", "subnet-b")
    assert {tag["Key"]: tag["Value"] for tag in it["Tags"]} == {
        "a": "template",
        "b": "call",
        "aws:ec2launchtemplate:id": made,
        "aws:ec2launchtemplate:version": "1",
    }
    gone = {"LaunchTemplateName": "gone"}
    code = refused(lambda: ec2.run_instances(LaunchTemplate=gone, MinCount=1, MaxCount=1))
    assert code == "InvalidLaunchTemplateName.NotFoundException"


def test_volumes_and_interfaces_are_as_asked() -> None:
    """Block device mappings, interfaces, placement and options reach the instance
    (API_RunInstances.html)."""
    clock, sandbox, ec2 = world()
    volume = {"VolumeSize": 9, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250}
    mappings = [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "Encrypted": True, "KmsKeyId": "k"}},
        {"DeviceName": "/dev/sdb", "Ebs": volume},
    ]
    interfaces = [
        {"DeviceIndex": 0, "SubnetId": "subnet-b", "Groups": ["sg-1"], "InterfaceType": "efa"},
        {"DeviceIndex": 1, "NetworkCardIndex": 1, "SubnetId": "subnet-b", "InterfaceType": "efa"},
        {"DeviceIndex": 1, "NetworkCardIndex": 2, "SubnetId": "subnet-b", "InterfaceType": "efa"},
    ]
    ec2.run_instances(
        ImageId="ami-1",
        InstanceType="p4d.24xlarge",
        MinCount=1,
        MaxCount=1,
        BlockDeviceMappings=mappings,
        NetworkInterfaces=interfaces,
        Placement={"GroupName": "group", "Tenancy": "dedicated"},
        MetadataOptions={"HttpTokens": "required"},
        CapacityReservationSpecification={"CapacityReservationPreference": "none"},
        TagSpecifications=[
            tags_on(kind, owner="me") for kind in ("instance", "volume", "network-interface")
        ],
    )
    (it,) = described(ec2)
    assert (it["Placement"]["GroupName"], it["Placement"]["Tenancy"]) == ("group", "dedicated")
    assert it["MetadataOptions"]["HttpTokens"] == "required"
    assert it["CapacityReservationSpecification"] == {"CapacityReservationPreference": "none"}
    assert [nic["Attachment"].get("NetworkCardIndex") for nic in it["NetworkInterfaces"]] == [
        None,
        1,
        2,
    ]
    volumes = {one["Attachments"][0]["Device"]: one for one in ec2.describe_volumes()["Volumes"]}
    root, data = volumes["/dev/xvda"], volumes["/dev/sdb"]
    assert (root["Size"], root["Encrypted"], root["KmsKeyId"]) == (30, True, "k")
    assert (data["Size"], data["VolumeType"], data["Iops"], data["Throughput"]) == (
        9,
        "gp3",
        4000,
        250,
    )
    assert {
        mapping["DeviceName"]: mapping["Ebs"]["DeleteOnTermination"]
        for mapping in it["BlockDeviceMappings"]
    } == {"/dev/xvda": True, "/dev/sdb": False}
    assert sandbox.leftovers({"owner": "me"}) == {"launch_templates": [made(ec2)]}
    ec2.terminate_instances(InstanceIds=[it["InstanceId"]])
    clock.now += 1
    left = sandbox.leftovers({"owner": "me"})
    assert left["volumes"] == [data["VolumeId"]]
    assert "network_interfaces" not in left


def made(ec2: Any) -> str:
    """The one launch template's id."""
    (row,) = ec2.describe_launch_templates()["LaunchTemplates"]
    return str(row["LaunchTemplateId"])


def test_interfaces_exclude_what_they_hold() -> None:
    """Network interfaces and an instance-level subnet or groups exclude each other
    (API_RunInstances.html)."""
    ec2 = client(Sandbox(Clock()))
    interfaces = [{"DeviceIndex": 0, "SubnetId": "subnet-a"}]
    code = refused(lambda: launch(ec2, NetworkInterfaces=interfaces))
    assert code == "InvalidParameterCombination"


# -- spot instances -----------------------------------------------------------------------------


def test_a_spot_instance_has_a_request_that_ends_with_it() -> None:
    """The request is active while the instance lives, then closed (spot-request-status.html);
    both name each other."""
    clock, sandbox, ec2 = world()
    options = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.5"}}
    specification = tags_on("spot-instances-request", owner="me")
    ids = launch(ec2, InstanceMarketOptions=options, TagSpecifications=[specification])
    launch(ec2)
    (row,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert (row["State"], row["Status"]["Code"]) == ("active", "fulfilled")
    assert (row["InstanceId"], row["SpotPrice"], row["Type"]) == (ids[0], "0.5", "one-time")
    (it,) = described(ec2, **by("instance-lifecycle", "spot"))
    assert it["SpotInstanceRequestId"] == row["SpotInstanceRequestId"]
    assert sandbox.live_instances()[ids[0]]["lifecycle"] == "spot"
    found = ec2.describe_spot_instance_requests(**by("tag:owner", "me"))
    assert len(found["SpotInstanceRequests"]) == 1
    ec2.terminate_instances(InstanceIds=ids)
    (row,) = ec2.describe_spot_instance_requests(**by("state", "closed"))["SpotInstanceRequests"]
    assert row["Status"]["Code"] == "instance-terminated-by-user"
    clock.now += 1
    assert "spot_requests" not in sandbox.leftovers({"owner": "me"})
    code = refused(lambda: ec2.describe_spot_instance_requests(SpotInstanceRequestIds=["sir-0"]))
    assert code == "InvalidSpotInstanceRequestID.NotFound"


def test_an_interruption_is_told_two_minutes_before() -> None:
    """The warning comes two minutes before termination (spot-instance-termination-notices.html),
    a rebalance recommendation may come sooner (rebalance-recommendations.html)."""
    clock, sandbox, ec2 = world()
    events: list[dict[str, Any]] = []
    sandbox.on_event.append(events.append)
    ids = launch(ec2, InstanceMarketOptions={"MarketType": "spot"})
    assert states(ec2) == ["running"]
    sandbox.interrupt(ids, rebalance_before=60)
    clock.now += 60
    described(ec2)
    kinds = [event["detail-type"] for event in events]
    assert kinds == [
        "EC2 Instance State-change Notification",
        "EC2 Instance State-change Notification",
        "EC2 Instance Rebalance Recommendation",
        "EC2 Spot Instance Interruption Warning",
    ]
    warning = events[-1]
    assert warning["detail"] == {"instance-id": ids[0], "instance-action": "terminate"}
    assert (warning["source"], warning["region"]) == ("aws.ec2", "us-east-1")
    at = datetime.fromtimestamp(clock.now, UTC)
    assert warning["time"] == f"{at:%Y-%m-%dT%H:%M:%SZ}"
    (row,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert row["Status"]["Code"] == "marked-for-termination"
    clock.now += 119
    assert states(ec2) == ["running"]
    clock.now += 1
    (it,) = described(ec2)
    assert it["State"]["Name"] == "terminated"
    assert it["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert [event["detail"].get("state") for event in events[4:]] == [
        "shutting-down",
        "terminated",
    ]
    (row,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert (row["State"], row["Status"]["Code"]) == ("closed", "instance-terminated-no-capacity")


def test_only_spot_instances_are_interrupted() -> None:
    """On-demand instances are not taken back."""
    _, sandbox, ec2 = world()
    with pytest.raises(ValueError, match="spot"):
        sandbox.interrupt(launch(ec2))


# -- instant fleets -----------------------------------------------------------------------------


def test_an_instant_fleet_answers_its_instances() -> None:
    """Instances are in the answer, by override and market (API_CreateFleetInstance.html)."""
    _, sandbox, ec2 = world()
    answer = ec2.create_fleet(
        **fleet_config(
            3,
            market="spot",
            TagSpecifications=[
                tags_on("fleet", owner="me"),
                tags_on("instance", owner="me"),
                tags_on("volume", owner="me"),
                tags_on("network-interface", owner="me"),
            ],
        )
    )
    (item,) = answer["Instances"]
    assert (item["Lifecycle"], item["InstanceType"]) == ("spot", "m5.large")
    assert item["LaunchTemplateAndOverrides"]["Overrides"] == over()
    assert item["LaunchTemplateAndOverrides"]["LaunchTemplateSpecification"]["Version"] == "1"
    assert answer["Errors"] == []
    truths = sandbox.live_instances({"owner": "me", "aws:ec2:fleet-id": answer["FleetId"]})
    assert truths.keys() == set(item["InstanceIds"])
    found = described(ec2, **by("tag:aws:ec2:fleet-id", answer["FleetId"]))
    assert {it["InstanceLifecycle"] for it in found} == {"spot"}
    assert pools(sandbox) == {("m5.large", "subnet-a", "spot"): 3}


def test_an_instant_fleet_fails_over_to_the_next_override() -> None:
    """One error for each override that failed, HTTP 200 (API_CreateFleetError.html)."""
    _, sandbox, ec2 = world()
    sandbox.set_capacity(2, subnet="subnet-a")
    sandbox.set_capacity(0, instance_type="c5.large", code="UnfulfillableCapacity")
    answer = ec2.create_fleet(
        **fleet_config(5, over(), over("c5.large", "subnet-b"), over(subnet="subnet-c"))
    )
    assert len(ids_of(answer)) == 5
    assert errors_of(answer) == [
        ("m5.large", "subnet-a", "InsufficientInstanceCapacity"),
        ("c5.large", "subnet-b", "UnfulfillableCapacity"),
    ]
    assert answer["Errors"][0]["Lifecycle"] == "on-demand"
    assert pools(sandbox) == {
        ("m5.large", "subnet-a", "on-demand"): 2,
        ("m5.large", "subnet-c", "on-demand"): 3,
    }


def test_an_instant_fleet_that_launches_nothing_is_a_fleet() -> None:
    """Nothing but errors is HTTP 200 too, with a fleet that must be deleted."""
    _, sandbox, ec2 = world()
    sandbox.set_capacity(0)
    answer = ec2.create_fleet(**fleet_config(5, TagSpecifications=[tags_on("fleet", owner="me")]))
    assert answer["Instances"] == []
    assert errors_of(answer) == [("m5.large", "subnet-a", "InsufficientInstanceCapacity")]
    assert sandbox.leftovers({"owner": "me"})["empty_fleets"] == [answer["FleetId"]]
    sandbox.set_capacity(None)
    assert len(ids_of(ec2.create_fleet(**fleet_config(5)))) == 5


def test_weights_count_units() -> None:
    """Amazon EC2 rounds the number of instances to the next whole number
    (API_FleetLaunchTemplateOverridesRequest.html, WeightedCapacity)."""
    _, sandbox, ec2 = world()
    sandbox.set_capacity(1, instance_type="m5.4xlarge")
    answer = ec2.create_fleet(
        **fleet_config(
            11,
            over("m5.4xlarge", WeightedCapacity=4),
            over("m5.xlarge", "subnet-b", WeightedCapacity=2),
        )
    )
    assert [len(item["InstanceIds"]) for item in answer["Instances"]] == [1, 4]
    row = fleet(ec2, answer["FleetId"])
    assert (row["FulfilledCapacity"], row["FulfilledOnDemandCapacity"]) == (12, 12)


def test_both_markets_in_one_fleet() -> None:
    """Total, on-demand and spot targets (API_TargetCapacitySpecificationRequest.html)."""
    _, sandbox, ec2 = world()
    target = {
        "TotalTargetCapacity": 5,
        "OnDemandTargetCapacity": 2,
        "DefaultTargetCapacityType": "spot",
    }
    answer = ec2.create_fleet(**fleet_config(5, TargetCapacitySpecification=target))
    assert [item["Lifecycle"] for item in answer["Instances"]] == ["on-demand", "spot"]
    assert pools(sandbox) == {
        ("m5.large", "subnet-a", "on-demand"): 2,
        ("m5.large", "subnet-a", "spot"): 3,
    }
    bad = {"TotalTargetCapacity": 5, "OnDemandTargetCapacity": 2}
    code = refused(lambda: ec2.create_fleet(**fleet_config(5, TargetCapacitySpecification=bad)))
    assert code == "InvalidTargetCapacitySpecification"


PRIORITIES = [
    over("m5.large", "subnet-a", Priority=2.0),
    over("m5.large", "subnet-b", Priority=0.0),
    over("m5.large", "subnet-c"),
]


@pytest.mark.parametrize(
    ("market", "strategy", "more", "expected"),
    [
        ("spot", "lowest-price", {}, {"subnet-a": 4, "subnet-b": 2}),
        ("spot", "lowest-price", {"InstancePoolsToUseCount": 2}, {"subnet-a": 3, "subnet-b": 3}),
        ("spot", "diversified", {}, {"subnet-a": 2, "subnet-b": 2, "subnet-c": 2}),
        ("spot", "capacity-optimized", {}, {"subnet-a": 4, "subnet-b": 2}),
        ("spot", "price-capacity-optimized", {}, {"subnet-a": 4, "subnet-b": 2}),
        ("spot", "capacity-optimized-prioritized", {}, {"subnet-b": 4, "subnet-a": 2}),
        ("on-demand", "lowest-price", {}, {"subnet-a": 4, "subnet-b": 2}),
        ("on-demand", "prioritized", {}, {"subnet-b": 4, "subnet-a": 2}),
    ],
)
def test_allocation_strategies(
    market: str, strategy: str, more: dict[str, Any], expected: dict[str, int]
) -> None:
    """ec2-fleet-allocation-strategy.html; the lowest priority number comes first, and an
    override without one last."""
    _, sandbox, ec2 = world()
    for subnet in ("subnet-a", "subnet-b", "subnet-c"):
        sandbox.set_capacity(4, subnet=subnet)
    options = {"AllocationStrategy": strategy} | more
    name = "SpotOptions" if market == "spot" else "OnDemandOptions"
    ec2.create_fleet(**fleet_config(6, *PRIORITIES, market=market, **{name: options}))
    assert {subnet: count for (_, subnet, _), count in pools(sandbox).items()} == expected


def test_all_or_nothing_in_one_pool() -> None:
    """If MinTargetCapacity isn't reached, no instances are launched
    (API_OnDemandOptionsRequest.html); a single type or zone is one that suffices."""
    _, sandbox, ec2 = world()
    overrides = [over(), over("c5.large", "subnet-b"), over("c5.large", "subnet-c")]
    sandbox.set_capacity(3, subnet="subnet-a")
    sandbox.set_capacity(3, subnet="subnet-b")
    options = {"SingleInstanceType": True, "MinTargetCapacity": 4}
    answer = ec2.create_fleet(**fleet_config(4, *overrides, OnDemandOptions=options))
    assert {item["InstanceType"] for item in answer["Instances"]} == {"c5.large"}
    assert len(ids_of(answer)) == 4
    sandbox.set_capacity(2, subnet="subnet-c")
    options = {"SingleAvailabilityZone": True, "MinTargetCapacity": 4}
    answer = ec2.create_fleet(**fleet_config(4, *overrides, OnDemandOptions=options))
    assert ids_of(answer) == []
    assert len(errors_of(answer)) == 3
    code = refused(
        lambda: ec2.create_fleet(**fleet_config(4, OnDemandOptions={"MinTargetCapacity": 4}))
    )
    assert code == "InvalidParameterCombination"


def test_attributes_choose_the_smallest_types_first() -> None:
    """InstanceRequirements (API_InstanceRequirementsRequest.html)."""
    _, sandbox, ec2 = world()
    requirements = {
        "VCpuCount": {"Min": 2, "Max": 8},
        "MemoryMiB": {"Min": 8192},
        "AllowedInstanceTypes": ["m5.*", "c5.*", "t3.*"],
        "ExcludedInstanceTypes": ["m5.large"],
        "BareMetal": "excluded",
    }
    override = {"SubnetId": "subnet-a", "InstanceRequirements": requirements}
    sandbox.set_capacity(1, instance_type="c5.xlarge")
    answer = ec2.create_fleet(**fleet_config(3, override))
    assert [(item["InstanceType"], len(item["InstanceIds"])) for item in answer["Instances"]] == [
        ("c5.xlarge", 1),
        ("m5.xlarge", 2),
    ]


def test_a_token_makes_one_fleet() -> None:
    """The same token: the same fleet, instances and errors (ec2-api-idempotency.html)."""
    _, sandbox, ec2 = world()
    sandbox.set_capacity(2)
    first = ec2.create_fleet(ClientToken="t", **fleet_config(3))
    again = ec2.create_fleet(ClientToken="t", **fleet_config(3))
    for answer in (first, again):
        answer.pop("ResponseMetadata")
    assert again == first
    assert len(sandbox.live_instances()) == 2
    assert fleet(ec2, first["FleetId"])["ClientToken"] == "t"


def test_errors_inside_an_answer() -> None:
    """CreateFleet answers 200 with one error for each override, a throttle may be among them
    (API_CreateFleetError.html)."""
    _, sandbox, ec2 = world()
    codes = ["RequestLimitExceeded", "VcpuLimitExceeded"]
    sandbox.add_fault("fleet_errors", action="CreateFleet", codes=codes, launch=1)
    overrides = [over(), over(subnet="subnet-b"), over(subnet="subnet-c")]
    answer = ec2.create_fleet(**fleet_config(3, *overrides))
    assert len(ids_of(answer)) == 1
    assert [code for *_, code in errors_of(answer)] == [*codes, "RequestLimitExceeded"]
    assert len(ids_of(ec2.create_fleet(**fleet_config(3, *overrides)))) == 3


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"overrides": [over(), over()]}, "InvalidFleetConfig"),
        ({"overrides": [over(), over(subnet="subnet-x")]}, "InvalidFleetConfig"),
        ({"overrides": [over(subnet="subnet-a,subnet-b")]}, "InvalidParameterValue"),
        ({"overrides": [over(WeightedCapacity=0)]}, "InvalidParameterValue"),
        ({"Type": "maintain", "TagSpecifications": [tags_on("instance", a="b")]}, None),
        ({"Type": "request", "TagSpecifications": [tags_on("volume", a="b")]}, None),
        ({"Type": "request", "OnDemandOptions": {"SingleInstanceType": True}}, None),
        ({"ExcessCapacityTerminationPolicy": "termination"}, None),
        (
            {"SpotOptions": {"AllocationStrategy": "diversified", "InstancePoolsToUseCount": 2}},
            None,
        ),
        (
            {
                "LaunchTemplateConfigs": [
                    {"LaunchTemplateSpecification": {"LaunchTemplateName": "gone", "Version": "1"}}
                ]
            },
            "InvalidLaunchTemplateName.NotFoundException",
        ),
    ],
)
def test_what_create_fleet_refuses(more: dict[str, Any], code: str | None) -> None:
    """API_CreateFleet.html; two subnets of a zone are duplicate pools."""
    _, sandbox, ec2 = world()
    sandbox.make_network({"subnet-x": "a"})
    overrides = more.pop("overrides", [over()])
    found = refused(lambda: ec2.create_fleet(**(fleet_config(1, *overrides) | more)))
    assert found == code if code else found.startswith("InvalidParameter")
    assert sandbox.live_instances() == {}


def test_an_instant_fleet_is_seen_by_its_id_only() -> None:
    """DescribeFleets shows an instant fleet only when it is asked for (API_DescribeFleets.html);
    DescribeFleetInstances not at all."""
    _, _, ec2 = world()
    answer = ec2.create_fleet(**fleet_config(2, TagSpecifications=[tags_on("fleet", a="b")]))
    assert ec2.describe_fleets()["Fleets"] == []
    row = fleet(ec2, answer["FleetId"])
    assert (row["FleetState"], row["ActivityStatus"], row["Type"]) == (
        "active",
        "fulfilled",
        "instant",
    )
    assert row["Instances"][0]["InstanceIds"] == ids_of(answer)
    assert row["Tags"] == [{"Key": "a", "Value": "b"}]
    refused(lambda: ec2.describe_fleet_instances(FleetId=answer["FleetId"]))
    unknown = answer["FleetId"].replace("fleet-0", "fleet-f")
    assert refused(lambda: fleet(ec2, unknown)) == "InvalidFleetId.NotFound"


def test_deleting_an_instant_fleet_ends_its_machines() -> None:
    """A deleted instant fleet with running instances is not supported (delete-fleet.html)."""
    clock, sandbox, ec2 = world(shutdown_time=10)
    made_ids = [ec2.create_fleet(**fleet_config(1))["FleetId"] for _ in range(26)]

    def deleted(ids: list[str], terminate: bool) -> dict[str, Any]:
        return dict(ec2.delete_fleets(FleetIds=ids, TerminateInstances=terminate))

    answer = deleted(made_ids, True)
    assert answer["SuccessfulFleetDeletions"] == []
    codes = {one["Error"]["Code"] for one in answer["UnsuccessfulFleetDeletions"]}
    assert codes == {"ExceededInstantFleetNumForDeletion"}
    (failed,) = deleted(made_ids[:1], False)["UnsuccessfulFleetDeletions"]
    assert failed["Error"]["Code"] == "NoTerminateInstancesNotSupported"
    assert len(sandbox.live_instances()) == 26
    unknown = made_ids[0].replace("fleet-0", "fleet-f")
    answer = deleted([*made_ids[:2], unknown, "fleet-1"], True)
    assert [one["CurrentFleetState"] for one in answer["SuccessfulFleetDeletions"]] == [
        "deleted_terminating"
    ] * 2
    assert [one["Error"]["Code"] for one in answer["UnsuccessfulFleetDeletions"]] == [
        "fleetIdDoesNotExist",
        "fleetIdMalformed",
    ]
    assert len(sandbox.live_instances()) == 24
    assert fleet(ec2, made_ids[0])["FleetState"] == "deleted_terminating"
    clock.now += 10
    assert fleet(ec2, made_ids[0])["FleetState"] == "deleted"
    clock.now += 48 * HOUR
    assert refused(lambda: fleet(ec2, made_ids[0])) == "InvalidFleetId.NotFound"


def test_500_machines_of_a_fleet_are_cheap() -> None:
    """An instant fleet of 500 takes well under a second."""
    _, sandbox, ec2 = world()
    began = time.process_time()
    ec2.create_fleet(**fleet_config(500, over(), market="spot"))
    assert time.process_time() - began < 1
    assert len(sandbox.live_instances()) == 500


def test_launch_tokens_are_drawn_by_every_fleet() -> None:
    """CreateFleet draws on the bucket of launched instances (ec2-api-throttling.html): an
    instant fleet asks for all at once, others launch as tokens come."""
    clock, sandbox, ec2 = world(quotas=Quotas(launches=Limit(10, 1)))
    assert refused(lambda: ec2.create_fleet(**fleet_config(11))) == "RequestLimitExceeded"
    ec2.create_fleet(**fleet_config(6))
    ec2.create_fleet(**fleet_config(6, Type="request"))
    assert len(sandbox.live_instances()) == 10
    clock.now += 29
    assert len(sandbox.live_instances()) == 10
    clock.now += 1
    assert len(sandbox.live_instances()) == 12


# -- fleets of type request and maintain ---------------------------------------------------------


def test_a_request_launches_on_the_clock_and_once() -> None:
    """Only the fleet's id is answered; instances come later, what capacity lacks is tried
    again, and what dies is not replaced (API_CreateFleet.html, Type)."""
    clock, sandbox, ec2 = world(fleet_delay=5)
    sandbox.set_capacity(2)
    answer = ec2.create_fleet(
        **fleet_config(5, Type="request", TagSpecifications=[tags_on("fleet", owner="me")])
    )
    assert "Instances" not in answer or answer["Instances"] == []
    fleet_id = answer["FleetId"]
    assert sandbox.live_instances() == {}
    assert fleet(ec2, fleet_id)["FleetState"] == "submitted"
    clock.now += 5
    assert len(sandbox.live_instances()) == 2
    row = fleet(ec2, fleet_id)
    assert (row["FleetState"], row["ActivityStatus"]) == ("active", "error")
    assert row["FulfilledCapacity"] == 2
    ec2.terminate_instances(InstanceIds=list(sandbox.live_instances()))
    sandbox.set_capacity(None)
    clock.now += 29
    assert sandbox.live_instances() == {}
    clock.now += 1
    assert len(sandbox.live_instances()) == 3
    clock.now += HOUR
    assert len(sandbox.live_instances()) == 3
    (item, *_) = ec2.describe_fleet_instances(FleetId=fleet_id)["ActiveInstances"]
    assert item["InstanceHealth"] == "healthy"


def test_a_maintained_fleet_replaces_what_dies() -> None:
    """By the user, by somebody else, or by AWS (API_CreateFleet.html, Type)."""
    clock, sandbox, ec2 = world(fleet_delay=5)
    fleet_id = ec2.create_fleet(**fleet_config(3, market="spot", Type="maintain"))["FleetId"]
    clock.now += 5
    first = set(sandbox.live_instances({"aws:ec2:fleet-id": fleet_id}))
    assert len(first) == 3
    one, two, three = sorted(first)
    ec2.terminate_instances(InstanceIds=[one])
    sandbox.terminate_behind_back([two])
    sandbox.interrupt([three], notice=0)
    assert sandbox.live_instances() == {}
    clock.now += 5
    assert len(set(sandbox.live_instances()) - first) == 3
    assert fleet(ec2, fleet_id)["ActivityStatus"] == "fulfilled"
    history = ec2.describe_fleet_history(FleetId=fleet_id, StartTime=0)["HistoryRecords"]
    assert Counter(record["EventInformation"]["EventSubType"] for record in history) == {
        "submitted": 1,
        "active": 1,
        "launched": 6,
        "terminated": 3,
    }


@pytest.mark.parametrize(("policy", "left"), [("no-termination", 5), ("termination", 2)])
def test_a_lower_target(policy: str, left: int) -> None:
    """Machines above a lowered target end only by the policy (modify-ec2-fleet.html), and are
    not replaced."""
    clock, sandbox, ec2 = world(fleet_delay=5)
    asked = fleet_config(5, Type="maintain", ExcessCapacityTerminationPolicy=policy)
    fleet_id = ec2.create_fleet(**asked)["FleetId"]
    clock.now += 5
    target = {"TotalTargetCapacity": 2}
    ec2.modify_fleet(FleetId=fleet_id, TargetCapacitySpecification=target)
    assert fleet(ec2, fleet_id)["FleetState"] == "modifying"
    clock.now += 5
    assert fleet(ec2, fleet_id)["FleetState"] == "active"
    assert len(sandbox.live_instances()) == left
    sandbox.terminate_behind_back(sorted(sandbox.live_instances())[: left - 2])
    clock.now += HOUR
    assert len(sandbox.live_instances()) == 2
    ec2.modify_fleet(FleetId=fleet_id, TargetCapacitySpecification={"TotalTargetCapacity": 4})
    clock.now += 5
    assert len(sandbox.live_instances()) == 4


def test_a_modified_total_is_of_the_default_type() -> None:
    """modify-ec2-fleet.html: additional instances are of DefaultTargetCapacityType."""
    _, sandbox, ec2 = world()
    target = {
        "TotalTargetCapacity": 3,
        "OnDemandTargetCapacity": 1,
        "DefaultTargetCapacityType": "spot",
    }
    asked = fleet_config(3, Type="maintain", TargetCapacitySpecification=target)
    fleet_id = ec2.create_fleet(**asked)["FleetId"]
    ec2.modify_fleet(FleetId=fleet_id, TargetCapacitySpecification={"TotalTargetCapacity": 5})
    assert Counter(market for _, _, market in pools(sandbox).elements()) == {
        "on-demand": 1,
        "spot": 4,
    }


@pytest.mark.parametrize("kind", ["instant", "request"])
def test_only_a_maintained_fleet_is_modified(kind: str) -> None:
    """You can only modify an EC2 Fleet of type maintain (modify-ec2-fleet.html)."""
    _, _, ec2 = world()
    fleet_id = ec2.create_fleet(**fleet_config(1, Type=kind))["FleetId"]
    target = {"TotalTargetCapacity": 0}
    refused(lambda: ec2.modify_fleet(FleetId=fleet_id, TargetCapacitySpecification=target))


@pytest.mark.parametrize("kind", ["request", "maintain"])
def test_deleting_a_fleet_keeps_or_ends_its_machines(kind: str) -> None:
    """deleted_running or deleted_terminating, then deleted (EC2-fleet-states.html)."""
    clock, sandbox, ec2 = world()
    keeps, ends = (
        ec2.create_fleet(
            **fleet_config(
                2, market="spot", Type=kind, TagSpecifications=[tags_on("fleet", owner="me")]
            )
        )["FleetId"]
        for _ in range(2)
    )
    clock.now += 1
    assert sandbox.leftovers({"owner": "me"})["fleets"] == [keeps, ends]
    for fleet_id, terminate in ((keeps, False), (ends, True)):
        answer = ec2.delete_fleets(FleetIds=[fleet_id], TerminateInstances=terminate)
        (row,) = answer["SuccessfulFleetDeletions"]
        assert row["PreviousFleetState"] == "active"
    clock.now += 1
    assert fleet(ec2, keeps)["FleetState"] == "deleted_running"
    assert fleet(ec2, ends)["FleetState"] == "deleted"
    living = sandbox.live_instances({"aws:ec2:fleet-id": keeps})
    assert sandbox.live_instances().keys() == living.keys()
    assert "fleets" not in sandbox.leftovers({"owner": "me"})
    ec2.terminate_instances(InstanceIds=list(living))
    clock.now += HOUR
    assert sandbox.live_instances() == {}
    assert fleet(ec2, keeps)["FleetState"] == "deleted"
    again = ec2.delete_fleets(FleetIds=[keeps], TerminateInstances=True)
    (failed,) = again["UnsuccessfulFleetDeletions"]
    assert failed["Error"]["Code"] == "fleetNotInDeletableState"


@pytest.mark.parametrize(("ends", "left"), [(True, 0), (False, 2)])
def test_a_fleet_expires(ends: bool, left: int) -> None:
    """After ValidUntil nothing is launched; TerminateInstancesWithExpiration ends the machines
    (API_CreateFleet.html)."""
    clock, sandbox, ec2 = world()
    sandbox.set_capacity(2)
    ec2.create_fleet(
        **fleet_config(
            4,
            Type="maintain",
            ValidUntil=datetime.fromtimestamp(clock.now + 60, UTC),
            TerminateInstancesWithExpiration=ends,
        )
    )
    clock.now += 59
    assert len(sandbox.live_instances()) == 2
    clock.now += 1
    sandbox.set_capacity(None)
    clock.now += HOUR
    assert len(sandbox.live_instances()) == left


def test_a_fleet_begins_when_it_is_valid() -> None:
    """ValidFrom (API_CreateFleet.html)."""
    clock, sandbox, ec2 = world()
    start = datetime.fromtimestamp(clock.now + 60, UTC)
    ec2.create_fleet(**fleet_config(1, Type="request", ValidFrom=start))
    clock.now += 59
    assert sandbox.live_instances() == {}
    clock.now += 1
    assert len(sandbox.live_instances()) == 1


def test_machines_of_a_lasting_fleet_have_the_templates_tags() -> None:
    """To tag instances at launch, specify the tags in a launch template (API_CreateFleet.html,
    TagSpecifications)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    template(ec2, TagSpecifications=[tags_on("instance", owner="me")])
    for kind in ("request", "maintain"):
        ec2.create_fleet(**fleet_config(1, Type=kind))
    assert len(sandbox.live_instances(owner="me")) == 2


def test_a_maintained_fleet_outlives_its_launch_template_badly() -> None:
    """Without its launch template a fleet cannot launch, and says so in its history."""
    clock, sandbox, ec2 = world()
    fleet_id = ec2.create_fleet(**fleet_config(1, Type="maintain"))["FleetId"]
    clock.now += 1
    ids = list(sandbox.live_instances())
    ec2.delete_launch_template(LaunchTemplateName="template")
    ec2.terminate_instances(InstanceIds=ids)
    clock.now += HOUR
    assert sandbox.live_instances() == {}
    history = ec2.describe_fleet_history(FleetId=fleet_id, StartTime=0, EventType="service-error")[
        "HistoryRecords"
    ]
    words = history[-1]["EventInformation"]["EventDescription"]
    assert words.startswith("InvalidLaunchTemplateName.NotFoundException")


def test_several_subnets_in_one_override() -> None:
    """Separate multiple subnet IDs using commas (API_FleetLaunchTemplateOverridesRequest.html)."""
    _, sandbox, ec2 = world()
    sandbox.set_capacity(1, subnet="subnet-a")
    ec2.create_fleet(**fleet_config(3, over(subnet="subnet-a, subnet-b"), Type="request"))
    assert pools(sandbox) == {
        ("m5.large", "subnet-a", "on-demand"): 1,
        ("m5.large", "subnet-b", "on-demand"): 2,
    }


# -- spot fleets ---------------------------------------------------------------------------------


def test_a_spot_fleet_launches_both_markets() -> None:
    """The difference between total and on-demand capacity is spot (API_RequestSpotFleet.html);
    the token is inside the configuration."""
    clock, sandbox, ec2 = world()
    config = spot_config(
        5,
        over(WeightedCapacity=2.0),
        OnDemandTargetCapacity=2,
        ClientToken="t",
        TagSpecifications=[tags_on("spot-fleet-request", owner="me")],
    )
    fleet_id = ec2.request_spot_fleet(SpotFleetRequestConfig=config)["SpotFleetRequestId"]
    again = ec2.request_spot_fleet(SpotFleetRequestConfig=config)["SpotFleetRequestId"]
    assert again == fleet_id
    clock.now += 1
    assert pools(sandbox) == {
        ("m5.large", "subnet-a", "on-demand"): 1,
        ("m5.large", "subnet-a", "spot"): 2,
    }
    assert len(sandbox.live_instances({"aws:ec2spot:fleet-request-id": fleet_id})) == 3
    (row,) = ec2.describe_spot_fleet_requests()["SpotFleetRequestConfigs"]
    assert (row["SpotFleetRequestState"], row["ActivityStatus"]) == ("active", "fulfilled")
    kept = row["SpotFleetRequestConfig"]
    assert (kept["FulfilledCapacity"], kept["OnDemandFulfilledCapacity"]) == (6, 2)
    assert (kept["ClientToken"], kept["Type"]) == ("t", "maintain")
    assert row["Tags"] == [{"Key": "owner", "Value": "me"}]
    found = ec2.describe_spot_fleet_instances(SpotFleetRequestId=fleet_id)["ActiveInstances"]
    assert {one["InstanceId"] for one in found} == set(sandbox.live_instances())


def test_a_spot_fleet_of_launch_specifications() -> None:
    """Launch parameters without a launch template (API_SpotFleetLaunchSpecification.html)."""
    clock, sandbox, ec2 = world()
    specification = {
        "ImageId": "ami-1",
        "InstanceType": "c5.large",
        "SubnetId": "subnet-b",
        "SecurityGroups": [{"GroupId": "sg-1"}],
        "SpotPrice": "0.2",
        "TagSpecifications": [tags_on("instance", owner="me")],
    }
    config = {
        "IamFleetRole": ROLE,
        "TargetCapacity": 2,
        "Type": "request",
        "LaunchSpecifications": [specification],
    }
    ec2.request_spot_fleet(SpotFleetRequestConfig=config)
    clock.now += 1
    assert len(sandbox.live_instances(owner="me")) == 2
    assert pools(sandbox) == {("c5.large", "subnet-b", "spot"): 2}
    rows = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert {row["SpotPrice"] for row in rows} == {"0.2"}


def test_a_spot_fleet_is_modified_and_cancelled() -> None:
    """Only type maintain is modified; cancelled_running or cancelled_terminating
    (API_ModifySpotFleetRequest.html, API_CancelSpotFleetRequests.html)."""
    clock, sandbox, ec2 = world()

    def ask(**more: Any) -> str:
        config = spot_config(3, ExcessCapacityTerminationPolicy="noTermination", **more)
        asked = ec2.request_spot_fleet(SpotFleetRequestConfig=config)
        return str(asked["SpotFleetRequestId"])

    keeps, once = ask(), ask(Type="request")
    clock.now += 1
    assert len(sandbox.live_instances()) == 6
    ec2.modify_spot_fleet_request(SpotFleetRequestId=keeps, TargetCapacity=1)
    refused(lambda: ec2.modify_spot_fleet_request(SpotFleetRequestId=once, TargetCapacity=1))
    clock.now += 1
    assert len(sandbox.live_instances()) == 6
    mine = sorted(sandbox.live_instances({"aws:ec2spot:fleet-request-id": keeps}))
    ec2.terminate_instances(InstanceIds=mine)
    clock.now += 1
    assert len(sandbox.live_instances({"aws:ec2spot:fleet-request-id": keeps})) == 1
    answer = ec2.cancel_spot_fleet_requests(SpotFleetRequestIds=[keeps], TerminateInstances=False)
    (row,) = answer["SuccessfulFleetRequests"]
    assert row["CurrentSpotFleetRequestState"] == "cancelled_running"
    answer = ec2.cancel_spot_fleet_requests(
        SpotFleetRequestIds=[once, "sfr-1"], TerminateInstances=True
    )
    (row,) = answer["SuccessfulFleetRequests"]
    assert row["CurrentSpotFleetRequestState"] == "cancelled_terminating"
    (failed,) = answer["UnsuccessfulFleetRequests"]
    assert failed["Error"]["Code"] == "fleetRequestIdMalformed"
    clock.now += 1
    ec2.terminate_instances(InstanceIds=list(sandbox.live_instances()))
    clock.now += HOUR
    assert sandbox.live_instances() == {}
    rows = ec2.describe_spot_fleet_requests()["SpotFleetRequestConfigs"]
    assert [row["SpotFleetRequestState"] for row in rows] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    "more",
    [
        {"TagSpecifications": [tags_on("instance", a="b")]},
        {"OnDemandTargetCapacity": 9},
        {"Type": "instant"},
        {"LaunchSpecifications": [DATA]},
    ],
)
def test_what_request_spot_fleet_refuses(more: dict[str, Any]) -> None:
    """API_SpotFleetRequestConfigData.html."""
    _, sandbox, ec2 = world()
    config = spot_config(2) | more
    refused(lambda: ec2.request_spot_fleet(SpotFleetRequestConfig=config))
    assert sandbox.live_instances() == {}


def test_an_override_gives_interfaces_their_subnet() -> None:
    """A launch template's interfaces are made in the override's subnet (from memory)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    interface = {"DeviceIndex": 0, "Groups": ["sg-1"], "InterfaceType": "efa"}
    template(ec2, NetworkInterfaces=[interface])
    ec2.create_fleet(**fleet_config(1, over(subnet="subnet-b")))
    (it,) = described(ec2)
    assert it["SubnetId"] == "subnet-b"
    assert it["NetworkInterfaces"][0]["InterfaceType"] == "efa"


def test_an_image_may_be_a_parameter() -> None:
    """resolve:ssm: and a parameter's name resolve to an AMI on launch (API_RunInstances.html,
    ImageId)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    sandbox.put_parameter("/golden", "ami-77")
    template(ec2, ImageId="resolve:ssm:/golden")
    ec2.create_fleet(**fleet_config(1))
    launch(ec2, ImageId="resolve:ssm:/golden:1")
    assert {it["ImageId"] for it in described(ec2)} == {"ami-77"}
    code = refused(lambda: launch(ec2, ImageId="resolve:ssm:/none"))
    assert code == "InvalidParameterValue"


def test_fleets_and_templates_can_be_tagged_later() -> None:
    """CreateTags takes launch templates, fleets and spot requests (API_CreateTags.html)."""
    _, sandbox, ec2 = world()
    made_fleet = ec2.create_fleet(**fleet_config(1, market="spot"))["FleetId"]
    (row,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    resources = [made(ec2), made_fleet, row["SpotInstanceRequestId"]]
    ec2.create_tags(Resources=resources, Tags=[{"Key": "late", "Value": "yes"}])
    assert sandbox.leftovers({"late": "yes"}) == {
        "launch_templates": [made(ec2)],
        "fleets": [made_fleet],
    }


# -- capacity ------------------------------------------------------------------------------------


def one_by_one(ec2: Any) -> list[Callable[[], object]]:
    """Each way to launch two machines in subnet-a, on-demand."""
    return [
        lambda: launch(ec2, 2, least=1),
        lambda: ec2.create_fleet(**fleet_config(2)),
        lambda: ec2.create_fleet(**fleet_config(2, Type="request")),
        lambda: ec2.create_fleet(**fleet_config(2, Type="maintain")),
        lambda: ec2.request_spot_fleet(
            SpotFleetRequestConfig=spot_config(2, OnDemandTargetCapacity=2)
        ),
    ]


@pytest.mark.parametrize("way", range(5))
def test_a_standing_limit_holds_for_every_way_to_launch(way: int) -> None:
    """Capacity is of a type in a zone and a market, and comes back when machines end."""
    clock, sandbox, ec2 = world()
    sandbox.set_capacity(1, subnet="subnet-a", instance_type="m5.large", market="on-demand")
    sandbox.set_capacity(0, market="spot")
    one_by_one(ec2)[way]()
    clock.now += HOUR
    assert len(sandbox.live_instances()) == 1
    sandbox.set_capacity(2, subnet="subnet-a", instance_type="m5.large", market="on-demand")
    clock.now += HOUR
    assert len(sandbox.live_instances()) == (1 if way < 2 else 2)


def test_a_limits_code_is_what_a_launch_hears() -> None:
    """errors-overview.html: an account's limit is a client's error, capacity a server's."""
    _, sandbox, ec2 = world()
    for code, status in (
        ("VcpuLimitExceeded", 400),
        ("InsufficientInstanceCapacity", 500),
    ):
        sandbox.set_capacity(0, code=code)
        with pytest.raises(ClientError) as caught:
            launch(ec2)
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        answer = ec2.create_fleet(**fleet_config(1))
        assert [found for *_, found in errors_of(answer)] == [code]


def test_a_capacity_fault_hits_fleets_and_their_later_tries() -> None:
    """A fault of CreateFleet limits each try of the fleets it made, while it lasts."""
    clock, sandbox, ec2 = world()
    fault = sandbox.add_fault(
        "cap", action="CreateFleet", limit=1, times=-1, market="spot", subnet="subnet-a"
    )
    answer = ec2.create_fleet(**fleet_config(4, over(), over(subnet="subnet-b"), market="spot"))
    assert [len(item["InstanceIds"]) for item in answer["Instances"]] == [1, 3]
    ec2.create_fleet(**fleet_config(3, market="spot", Type="maintain"))
    clock.now += 1
    assert len(sandbox.live_instances()) == 4 + 1
    clock.now += 30
    assert len(sandbox.live_instances()) == 4 + 2
    assert launch(ec2, 5)
    fault.clear()
    clock.now += 30
    assert len(sandbox.live_instances()) == 4 + 3 + 5


# -- dry runs ------------------------------------------------------------------------------------


def test_dry_runs_of_fleets_and_templates_do_nothing() -> None:
    """DryRunOperation, and nothing done (API_CreateFleet.html, DryRun)."""
    _, sandbox, ec2 = world()
    calls: list[Callable[[], object]] = [
        lambda: ec2.create_launch_template(
            LaunchTemplateName="other", LaunchTemplateData=DATA, DryRun=True
        ),
        lambda: ec2.create_fleet(**fleet_config(1, DryRun=True)),
        lambda: ec2.request_spot_fleet(SpotFleetRequestConfig=spot_config(1), DryRun=True),
        lambda: ec2.delete_launch_template(LaunchTemplateName="template", DryRun=True),
        lambda: ec2.describe_fleets(DryRun=True),
    ]
    for call in calls:
        assert refused(call) == "DryRunOperation"
    assert sandbox.live_instances() == {}
    assert len(ec2.describe_launch_templates()["LaunchTemplates"]) == 1
