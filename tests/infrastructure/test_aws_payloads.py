"""What is sent to AWS for a template: the exact calls, each valid by AWS's own model."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from application.ports import CallFailed, Planned
from domain.capacity import Pool
from tests.infrastructure.aws_cloud import (
    BATCH,
    BY_API,
    CONTENT,
    ROLE,
    SPOT_CONTENT,
    TAGS,
    Place,
)

SERVICES = {"CreateAutoScalingGroup": "autoscaling"}
LISTED = [{"Key": key, "Value": value} for key, value in TAGS.items()]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def check(api: str, parameters: dict[str, Any]) -> None:
    """By AWS's own model these are parameters of the API."""
    model = botocore.session.get_session().get_service_model(SERVICES.get(api, "ec2"))
    parameters = copy.deepcopy(parameters)
    for part in (parameters, parameters.get("LaunchTemplateData", {})):
        if "UserData" in part:
            part["UserData"] = part["UserData"]["sha256"]
    report = ParamValidator().validate(parameters, model.operation_model(api).input_shape)
    assert not report.has_errors(), report.generate_report()


def planned(content: dict[str, Any], units: int = 1, **more: Any) -> Planned:
    """A plan on a sandbox, valid by AWS's model."""
    plan = (more.pop("place", None) or Place()).plan(content, units, **more)
    check(plan.api, plan.payload)
    if plan.launch_template is not None:
        check("CreateLaunchTemplate", plan.launch_template)
    return plan


def data_of(plan: Planned) -> dict[str, Any]:
    assert plan.launch_template is not None
    data: dict[str, Any] = plan.launch_template["LaunchTemplateData"]
    return data


def overrides_of(plan: Planned) -> list[dict[str, Any]]:
    """Those of a fleet or group, the only ones there are."""
    payload = plan.payload.get("SpotFleetRequestConfig", plan.payload)
    if "MixedInstancesPolicy" in payload:
        found: list[dict[str, Any]] = payload["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]
        return found
    (config,) = payload["LaunchTemplateConfigs"]
    return config.get("Overrides", [])  # type: ignore[no-any-return]


# -- RunInstances ---------------------------------------------------------------------------------


def test_run_instances_with_all_that_there_was(tmp_path: Path) -> None:
    """The payload that the first release made of this template, key by key, in its order."""
    script = tmp_path / "setup.sh"
    script.write_bytes(b"#!/bin/sh\necho ready\n")
    plan = planned(
        {
            **CONTENT,
            "security_group_ids": ["sg-1", "sg-2"],
            "key_name": "grid",
            "instance_profile": "arn:aws:iam::123456789012:instance-profile/worker",
            "ebs_optimized": True,
            "tenancy": "dedicated",
            "placement_group": "close",
            "root_device_volume_size": 40,
            "volume_type": "io2",
            "iops": 500,
            "instance_tags": {"team": "risk", "hostledger:batch": "forged"},
            "user_data_file": str(script),
            "user_data_variables": {"QUEUE": "it's"},
        },
        3,
    )
    body = b"#!/bin/sh\nexport QUEUE='it'\\''s'\necho ready\n"
    tags = [{"Key": "team", "Value": "risk"}, {"Key": "hostledger:batch", "Value": BATCH}]
    tags += [tag for tag in LISTED if tag["Key"] != "hostledger:batch"]

    assert plan.api == "RunInstances"
    assert plan.launch_template is None
    assert plan.user_data == body
    assert list(plan.payload.items()) == [
        ("ImageId", "ami-0a1b2c3d"),
        ("InstanceType", "m5.large"),
        ("MinCount", 1),
        ("MaxCount", 3),
        ("SubnetId", "subnet-a"),
        ("SecurityGroupIds", ["sg-1", "sg-2"]),
        ("KeyName", "grid"),
        (
            "IamInstanceProfile",
            {"Arn": "arn:aws:iam::123456789012:instance-profile/worker"},
        ),
        ("EbsOptimized", True),
        ("Placement", {"Tenancy": "dedicated", "GroupName": "close"}),
        (
            "BlockDeviceMappings",
            [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {"VolumeType": "io2", "VolumeSize": 40, "Iops": 500},
                }
            ],
        ),
        ("UserData", {"sha256": hashlib.sha256(body).hexdigest()}),
        (
            "TagSpecifications",
            [
                {"ResourceType": "instance", "Tags": tags},
                {"ResourceType": "volume", "Tags": tags},
            ],
        ),
    ]


def test_run_instances_counts_machines() -> None:
    """Units become machines by the pool's weight; all or nothing asks for all."""
    weighted = {**CONTENT, "vm_types": {"m5.xlarge": 2}, "provider_api": "RunInstances"}
    plan = planned(weighted, 5)
    assert (plan.payload["InstanceType"], plan.payload["MaxCount"]) == ("m5.xlarge", 3)
    assert plan.payload["MinCount"] == 1
    assert planned({**CONTENT, "all_or_nothing": True}, 5).payload["MinCount"] == 5


def test_run_instances_spot() -> None:
    """Once, ended when it is taken; the template's price is for a unit, EC2's for a machine."""
    plan = planned(
        {
            **CONTENT,
            "price_type": "spot",
            "provider_api": "RunInstances",
            "vm_types": {"m5.xlarge": 3},
            "max_spot_price": "0.11",
        },
        3,
    )
    assert plan.payload["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {
            "SpotInstanceType": "one-time",
            "InstanceInterruptionBehavior": "terminate",
            "MaxPrice": "0.33",
        },
    }
    kinds = [one["ResourceType"] for one in plan.payload["TagSpecifications"]]
    assert kinds == ["instance", "volume", "spot-instances-request"]


MACHINE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"volumes": [{"device": "/dev/sdf", "size": 10}, {"device": "/dev/sdg", "size": 500,
          "type": "gp3", "iops": 4000, "throughput": 250, "encrypted": True,
          "kms_key_id": "alias/data", "snapshot_id": "snap-1"}]},
        {"BlockDeviceMappings": [
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 10, "DeleteOnTermination": True}},
            {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 500, "VolumeType": "gp3",
             "Iops": 4000, "Throughput": 250, "Encrypted": True, "KmsKeyId": "alias/data",
             "SnapshotId": "snap-1", "DeleteOnTermination": True}},
        ]},
    ),
    (
        {"root_volume_encrypted": True, "root_volume_kms_key": "alias/root"},
        {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True,
         "KmsKeyId": "alias/root", "DeleteOnTermination": True}}]},
    ),
    (
        {"metadata_options": {"http_tokens": "required", "http_put_response_hop_limit": 2,
         "http_endpoint": "enabled", "instance_metadata_tags": "enabled"}},
        {"MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2,
         "HttpEndpoint": "enabled", "InstanceMetadataTags": "enabled"}},
    ),
    (
        {"capacity_reservation": {"preference": "none"}},
        {"CapacityReservationSpecification": {"CapacityReservationPreference": "none"}},
    ),
    (
        {"capacity_reservation": {"id": "cr-1"}},
        {"CapacityReservationSpecification": {"CapacityReservationTarget":
         {"CapacityReservationId": "cr-1"}}},
    ),
    (
        {"capacity_reservation": {"resource_group_arn": "arn:aws:resource-groups:x:1:group/g"}},
        {"CapacityReservationSpecification": {"CapacityReservationTarget":
         {"CapacityReservationResourceGroupArn": "arn:aws:resource-groups:x:1:group/g"}}},
    ),
    (
        {"tenancy": "host", "placement": {"host_id": "h-1", "affinity": "host",
         "partition_number": 2, "availability_zone": "us-east-1a",
         "host_resource_group_arn": "arn:h"}},
        {"Placement": {"Tenancy": "host", "HostId": "h-1", "Affinity": "host",
         "PartitionNumber": 2, "AvailabilityZone": "us-east-1a", "HostResourceGroupArn": "arn:h"}},
    ),
    ({"instance_profile": "worker"}, {"IamInstanceProfile": {"Name": "worker"}}),
]  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), MACHINE, ids=lambda value: ",".join(value))
def test_what_a_machine_is_like(more: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same in RunInstances and in the launch template of every other API."""
    assert planned({**CONTENT, **more}).payload.items() >= expected.items()
    for by_api in BY_API.values():
        assert data_of(planned({**CONTENT, **by_api, **more})).items() >= expected.items()


def test_a_volume_of_a_launch_template_goes_with_its_machine() -> None:
    """The root volume too, whatever the image says."""
    data = data_of(planned({**CONTENT, **BY_API["CreateFleet"], "root_device_volume_size": 20}))
    (mapping,) = data["BlockDeviceMappings"]
    assert mapping["Ebs"] == {"VolumeType": "gp2", "VolumeSize": 20, "DeleteOnTermination": True}


# -- network interfaces ---------------------------------------------------------------------------

GROUPS = {"security_group_ids": ["sg-1"]}
INTERFACES: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({"associate_public_ip": False}, [{"DeviceIndex": 0, "AssociatePublicIpAddress": False}]),
    (
        {"interface_type": "efa"},
        [{"NetworkCardIndex": 0, "DeviceIndex": 0, "InterfaceType": "efa"}],
    ),
    (
        {"interface_type": "efa", "efa_count": 3},
        [
            {"NetworkCardIndex": 0, "DeviceIndex": 0, "InterfaceType": "efa"},
            {"NetworkCardIndex": 1, "DeviceIndex": 1, "InterfaceType": "efa"},
            {"NetworkCardIndex": 2, "DeviceIndex": 1, "InterfaceType": "efa"},
        ],
    ),
    (
        {"network_interfaces": [{}, {"Description": "data"}], "associate_public_ip": True},
        [{"DeviceIndex": 0, "AssociatePublicIpAddress": True},
         {"DeviceIndex": 1, "Description": "data"}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), INTERFACES, ids=lambda value: str(len(value)))
def test_groups_and_subnet_move_into_the_interfaces(
    more: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    """RunInstances takes them nowhere else then; a fleet's overrides name the subnet."""
    content = {**CONTENT, **GROUPS, **more}
    common = {"Groups": ["sg-1"], "DeleteOnTermination": True}
    plan = planned(content)
    assert plan.payload["NetworkInterfaces"] == [
        {**one, **common, "SubnetId": "subnet-a"} for one in expected
    ]
    assert not {"SubnetId", "SecurityGroupIds"} & set(plan.payload)
    assert "network-interface" in [s["ResourceType"] for s in plan.payload["TagSpecifications"]]

    fleet = planned({**content, **BY_API["CreateFleet"]})
    assert data_of(fleet)["NetworkInterfaces"] == [{**one, **common} for one in expected]
    assert "SecurityGroupIds" not in data_of(fleet)
    assert overrides_of(fleet) == [{"InstanceType": "m5.large", "SubnetId": "subnet-a"}]


def test_an_interface_that_exists_stays_as_it_is() -> None:
    """It has its groups and subnet, and nothing is made that could be tagged."""
    given = [{"NetworkInterfaceId": "eni-1", "DeviceIndex": 0}]
    plan = planned({**CONTENT, **GROUPS, "network_interfaces": given})
    assert plan.payload["NetworkInterfaces"] == given
    kinds = [one["ResourceType"] for one in plan.payload["TagSpecifications"]]
    assert kinds == ["instance", "volume"]


# -- launch templates -----------------------------------------------------------------------------


def test_an_instant_fleet_tags_its_machines_itself() -> None:
    """So its launch template is one for all batches of a content."""
    first = planned({**SPOT_CONTENT, "rc_account": "desk-7", "instance_tags": {"team": "risk"}}, 3)
    other = {**TAGS, "hostledger:batch": "bat-" + "1" * 32}
    second = planned(SPOT_CONTENT, 8, tags=other)
    assert first.launch_template == second.launch_template
    template = first.launch_template
    assert template is not None
    assert template["LaunchTemplateData"] == {"ImageId": "ami-0a1b2c3d"}
    assert template["LaunchTemplateName"].startswith("hostledger-d1e2f3a4-")
    assert len(template["LaunchTemplateName"]) == len("hostledger-d1e2f3a4-") + 24
    own = [tag for tag in LISTED if tag["Key"] != "hostledger:batch"]
    assert template["TagSpecifications"] == [{"ResourceType": "launch-template", "Tags": own}]
    given = [{"Key": "team", "Value": "risk"}, {"Key": "rc_account", "Value": "desk-7"}]
    assert first.payload["TagSpecifications"] == [
        {"ResourceType": kind, "Tags": given + LISTED}
        for kind in ("fleet", "instance", "volume", "network-interface")
    ]
    (config,) = first.payload["LaunchTemplateConfigs"]
    assert config["LaunchTemplateSpecification"] == {
        "LaunchTemplateName": template["LaunchTemplateName"],
        "Version": "1",
    }


@pytest.mark.parametrize(
    "more",
    [
        {**BY_API["CreateFleet"], "fleet_type": "request"},
        {**BY_API["CreateFleet"], "fleet_type": "maintain"},
        BY_API["RequestSpotFleet"],
        BY_API["CreateAutoScalingGroup"],
    ],
    ids=str,
)
def test_other_launches_have_a_launch_template_for_each_batch(more: dict[str, Any]) -> None:
    """It carries the tags of the machines, with the batch."""
    content = {**SPOT_CONTENT, **more}
    first = planned(content)
    assert data_of(first)["TagSpecifications"] == [
        {"ResourceType": kind, "Tags": LISTED}
        for kind in ("instance", "volume", "network-interface")
    ]
    second = planned(content, tags={**TAGS, "hostledger:batch": "bat-" + "1" * 32})
    names = {p.launch_template["LaunchTemplateName"] for p in (first, second) if p.launch_template}
    assert len(names) == 2


def test_the_name_says_the_user_data(tmp_path: Path) -> None:
    """Its body is beside the plan, its digest in it; another body is another launch template."""
    script = tmp_path / "setup.sh"
    plans = []
    for text in (b"one", b"two"):
        script.write_bytes(text)
        plans.append(planned({**SPOT_CONTENT, "user_data_file": str(script)}))
        assert plans[-1].user_data == text
        assert data_of(plans[-1])["UserData"] == {"sha256": hashlib.sha256(text).hexdigest()}
    assert plans[0].payload != plans[1].payload


def test_user_data_is_encoded_in_a_launch_template(tmp_path: Path) -> None:
    """EC2 wants base64 there, and botocore does it for RunInstances alone."""
    script = tmp_path / "setup.sh"
    script.write_bytes(b"#!/bin/sh\n")
    place = Place()
    for content in (SPOT_CONTENT, CONTENT):
        place.launch(place.plan({**content, "user_data_file": str(script)}))
    sent = {call.action: call.params for call in place.sandbox.calls}
    encoded = base64.b64encode(b"#!/bin/sh\n").decode()
    assert sent["CreateLaunchTemplate"]["LaunchTemplateData.UserData"] == encoded
    assert sent["RunInstances"]["UserData"] == encoded


def test_a_script_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """With its path and the reason."""
    with pytest.raises(CallFailed, match=r"gone\.sh: No such file") as caught:
        Place().plan({**CONTENT, "user_data_file": str(tmp_path / "gone.sh")})
    assert (caught.value.kind, caught.value.code) == ("refused", "UserDataUnreadable")


# -- EC2 Fleet ------------------------------------------------------------------------------------


def test_create_fleet() -> None:
    """An override for each type and subnet, with weights; a target in units."""
    plan = planned(SPOT_CONTENT, 7)
    assert plan.api == "CreateFleet"
    assert overrides_of(plan) == [
        {"InstanceType": "m5.large", "SubnetId": "subnet-a", "WeightedCapacity": 1},
        {"InstanceType": "m5.large", "SubnetId": "subnet-b", "WeightedCapacity": 1},
        {"InstanceType": "m5.xlarge", "SubnetId": "subnet-a", "WeightedCapacity": 2},
        {"InstanceType": "m5.xlarge", "SubnetId": "subnet-b", "WeightedCapacity": 2},
    ]
    assert plan.payload["Type"] == "instant"
    assert plan.payload["TargetCapacitySpecification"] == {
        "TotalTargetCapacity": 7,
        "OnDemandTargetCapacity": 0,
        "SpotTargetCapacity": 7,
        "DefaultTargetCapacityType": "spot",
    }
    assert not {"SpotOptions", "OnDemandOptions", "ExcessCapacityTerminationPolicy"} & set(
        plan.payload
    )


def test_a_fleet_that_maintains_ends_no_machine_by_itself() -> None:
    """And replaces no unhealthy one, nor ends any when it expires."""
    plan = planned({**SPOT_CONTENT, "fleet_type": "maintain"})
    assert plan.payload["ExcessCapacityTerminationPolicy"] == "no-termination"
    assert not {"ReplaceUnhealthyInstances", "TerminateInstancesWithExpiration"} & set(plan.payload)


def test_options_of_a_fleet() -> None:
    """Strategies, pools, priorities, a price for each unit hour, a share on demand."""
    content = {
        **SPOT_CONTENT,
        "allocation_strategy": "lowest-price",
        "pools_count": 3,
        "allocation_strategy_on_demand": "prioritized",
        "vm_types_priority": {"m5.xlarge": 1},
        "max_spot_price": "0.05",
        "percent_on_demand": 25,
        "subnet_ids": ["subnet-a"],
    }
    plan = planned(content, 7)
    assert plan.payload["SpotOptions"] == {
        "AllocationStrategy": "lowest-price",
        "InstancePoolsToUseCount": 3,
    }
    assert plan.payload["OnDemandOptions"] == {"AllocationStrategy": "prioritized"}
    assert plan.payload["TargetCapacitySpecification"]["OnDemandTargetCapacity"] == 2
    assert plan.payload["TargetCapacitySpecification"]["SpotTargetCapacity"] == 5
    assert overrides_of(plan) == [
        {"InstanceType": "m5.xlarge", "SubnetId": "subnet-a", "WeightedCapacity": 2,
         "Priority": 1, "MaxPrice": "0.05"},
        {"InstanceType": "m5.large", "SubnetId": "subnet-a", "WeightedCapacity": 1,
         "MaxPrice": "0.05"},
    ]  # fmt: skip


def test_all_or_nothing_of_a_fleet() -> None:
    """AWS does it within one type and zone."""
    content = {**CONTENT, "price_type": "spot", "all_or_nothing": True}
    assert planned(content, 4).payload["SpotOptions"] == {
        "SingleInstanceType": True,
        "SingleAvailabilityZone": True,
        "MinTargetCapacity": 4,
    }


def test_a_fleet_on_demand() -> None:
    """The pools say the market, whatever the template's share."""
    pools = [Pool("m5.large", "subnet-a", "ondemand", 1)]
    content = {**SPOT_CONTENT, "price_type": "heterogeneous", "max_spot_price": "0.05"}
    plan = planned(content, 3, pools=pools)
    assert plan.payload["TargetCapacitySpecification"] == {
        "TotalTargetCapacity": 3,
        "OnDemandTargetCapacity": 3,
        "SpotTargetCapacity": 0,
        "DefaultTargetCapacityType": "on-demand",
    }
    assert overrides_of(plan) == [{"InstanceType": "m5.large", "SubnetId": "subnet-a"}]


def test_pools_of_both_markets_are_one_override() -> None:
    """AWS refuses the same override twice, and knows one weight of a type."""
    both = [Pool("m5.large", "subnet-a", market, 2) for market in ("spot", "ondemand")]
    plan = planned({**SPOT_CONTENT, "percent_on_demand": 50}, 4, pools=both)
    assert len(overrides_of(plan)) == 1
    with pytest.raises(CallFailed, match="has other weights"):
        planned(SPOT_CONTENT, pools=[*both, Pool("m5.large", "subnet-a", "spot", 3)])


@pytest.mark.parametrize("api", BY_API)
def test_requirements_instead_of_types(api: str) -> None:
    """AWS chooses the types; the launch template must name none."""
    abis = {"VCpuCount": {"Min": 2, "Max": 4}, "MemoryMiB": {"Min": 4096}}
    content = {key: value for key, value in CONTENT.items() if key != "vm_type"}
    content |= {**BY_API[api], "price_type": "spot", "abis": abis}
    plan = planned(content, 3)
    place = {} if api == "CreateAutoScalingGroup" else {"SubnetId": "subnet-a"}
    assert overrides_of(plan) == [{"InstanceRequirements": abis, **place}]
    assert "InstanceType" not in data_of(plan)


# -- Spot Fleet -----------------------------------------------------------------------------------


def test_request_spot_fleet() -> None:
    """The same template in Spot Fleet's own spelling."""
    content = {
        **SPOT_CONTENT,
        **BY_API["RequestSpotFleet"],
        "subnet_ids": ["subnet-a"],
        "fleet_type": "maintain",
        "allocation_strategy": "capacity-optimized-prioritized",
        "allocation_strategy_on_demand": "lowest-price",
        "vm_types_priority": {"m5.large": 0, "m5.xlarge": 1},
        "max_spot_price": "0.05",
        "percent_on_demand": 10,
    }
    plan = planned(content, 11)
    assert plan.launch_template is not None
    name = plan.launch_template["LaunchTemplateName"]
    assert plan.payload == {
        "SpotFleetRequestConfig": {
            "Type": "maintain",
            "IamFleetRole": ROLE,
            "TargetCapacity": 11,
            "OnDemandTargetCapacity": 2,
            "LaunchTemplateConfigs": [
                {
                    "LaunchTemplateSpecification": {"LaunchTemplateName": name, "Version": "1"},
                    "Overrides": [
                        {"InstanceType": "m5.large", "SubnetId": "subnet-a",
                         "WeightedCapacity": 1, "Priority": 0},
                        {"InstanceType": "m5.xlarge", "SubnetId": "subnet-a",
                         "WeightedCapacity": 2, "Priority": 1},
                    ],
                }
            ],
            "ExcessCapacityTerminationPolicy": "noTermination",
            "TerminateInstancesWithExpiration": False,
            "AllocationStrategy": "capacityOptimizedPrioritized",
            "OnDemandAllocationStrategy": "lowestPrice",
            "SpotPrice": "0.05",
            "TagSpecifications": [{"ResourceType": "spot-fleet-request", "Tags": LISTED}],
        }
    }  # fmt: skip


def test_a_spot_fleet_needs_its_role() -> None:
    """Without one no call is made."""
    with pytest.raises(CallFailed, match="fleetRole"):
        planned({**SPOT_CONTENT, "provider_api": "SpotFleet"})


# -- Auto Scaling ---------------------------------------------------------------------------------


def test_a_plain_group() -> None:
    """One type on demand needs no policy; its machines are protected from scaling in."""
    plan = planned({**CONTENT, **BY_API["CreateAutoScalingGroup"], "subnet_ids": ["s-1", "s-2"]}, 4)
    assert plan.launch_template is not None
    template = plan.launch_template["LaunchTemplateName"]
    name = f"hostledger-{BATCH}"
    assert plan.payload == {
        "AutoScalingGroupName": name,
        "MinSize": 0,
        "MaxSize": 4,
        "DesiredCapacity": 4,
        "LaunchTemplate": {"LaunchTemplateName": template, "Version": "1"},
        "VPCZoneIdentifier": "s-1,s-2",
        "HealthCheckType": "EC2",
        "NewInstancesProtectedFromScaleIn": True,
        "Tags": [
            {
                "ResourceId": name,
                "ResourceType": "auto-scaling-group",
                **tag,
                "PropagateAtLaunch": False,
            }
            for tag in LISTED
        ],
    }
    assert data_of(plan)["InstanceType"] == "m5.large"


def test_a_mixed_group() -> None:
    """Types in the order of their priority, weights as text, one price, a share on demand."""
    content = {
        **SPOT_CONTENT,
        **BY_API["CreateAutoScalingGroup"],
        "vm_types_priority": {"m5.xlarge": 1, "m5.large": 2},
        "allocation_strategy": "lowest-price",
        "pools_count": 2,
        "allocation_strategy_on_demand": "prioritized",
        "max_spot_price": "0.05",
        "percent_on_demand": 30,
    }
    plan = planned(content, 9)
    policy = plan.payload["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"] == {
        "OnDemandBaseCapacity": 0,
        "OnDemandPercentageAboveBaseCapacity": 30,
        "OnDemandAllocationStrategy": "prioritized",
        "SpotAllocationStrategy": "lowest-price",
        "SpotInstancePools": 2,
        "SpotMaxPrice": "0.05",
    }
    assert policy["LaunchTemplate"]["Overrides"] == [
        {"InstanceType": "m5.xlarge", "WeightedCapacity": "2"},
        {"InstanceType": "m5.large", "WeightedCapacity": "1"},
    ]
    assert "LaunchTemplate" not in plan.payload
    assert "InstanceType" not in data_of(plan)


def test_a_group_on_demand_of_several_types() -> None:
    """All of it is on demand."""
    content = {**SPOT_CONTENT, **BY_API["CreateAutoScalingGroup"], "price_type": "ondemand"}
    distribution = planned(content).payload["MixedInstancesPolicy"]["InstancesDistribution"]
    assert distribution == {
        "OnDemandBaseCapacity": 0,
        "OnDemandPercentageAboveBaseCapacity": 100,
    }


def test_a_strategy_that_auto_scaling_has_not() -> None:
    """It is refused, not replaced."""
    content = {**SPOT_CONTENT, **BY_API["CreateAutoScalingGroup"]}
    with pytest.raises(CallFailed, match="diversified"):
        planned({**content, "allocation_strategy": "diversified"})


# -- native ---------------------------------------------------------------------------------------


def test_native_over_run_instances() -> None:
    """Merged deep, tags added; counts, token and our tags stay ours."""
    content = {
        **CONTENT,
        "tenancy": "dedicated",
        "native": {
            "launch_template": {"Monitoring": {"Enabled": True}, "KeyName": "old"},
            "api": {
                "KeyName": "grid",
                "Placement": {"GroupName": "close"},
                "MinCount": 50,
                "MaxCount": 99,
                "ClientToken": "mine",
                "DryRun": True,
                "UserData": base64.b64encode(b"hello").decode(),
                "TagSpecifications": [
                    {"ResourceType": "instance", "Tags": [{"Key": "cost", "Value": "7"}]},
                    {"ResourceType": "network-interface", "Tags": [{"Key": "n", "Value": "1"}]},
                ],
            },
        },
    }
    plan = planned(content, 2)
    payload = plan.payload
    assert (payload["MinCount"], payload["MaxCount"]) == (1, 2)
    assert not {"ClientToken", "DryRun"} & set(payload)
    assert payload["Placement"] == {"Tenancy": "dedicated", "GroupName": "close"}
    assert payload["KeyName"] == "grid"
    assert payload["Monitoring"] == {"Enabled": True}
    assert plan.user_data == b"hello"
    assert payload["UserData"] == {"sha256": hashlib.sha256(b"hello").hexdigest()}
    assert payload["TagSpecifications"] == [
        {"ResourceType": "instance", "Tags": [{"Key": "cost", "Value": "7"}, *LISTED]},
        {"ResourceType": "volume", "Tags": LISTED},
        {"ResourceType": "network-interface", "Tags": [{"Key": "n", "Value": "1"}]},
    ]


def test_native_cannot_change_the_market() -> None:
    """What is accounted as spot is asked for as spot, once; what is not, is not."""
    persistent = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "persistent"}}
    native = {"native": {"api": {"InstanceMarketOptions": persistent}}}
    spot = {**CONTENT, **native, "price_type": "spot", "provider_api": "RunInstances"}
    options = planned(spot).payload["InstanceMarketOptions"]["SpotOptions"]
    assert options["SpotInstanceType"] == "one-time"
    with pytest.raises(CallFailed, match="spot"):
        planned({**CONTENT, **native})


def test_native_over_a_fleet() -> None:
    """Strategies and overrides may be its own; targets, type, policies, the launch template not."""
    content = {
        **SPOT_CONTENT,
        "fleet_type": "maintain",
        "allocation_strategy": "lowest-price",
        "native": {
            "launch_template": {"Monitoring": {"Enabled": True}},
            "api": {
                "Type": "request",
                "Context": "c",
                "ReplaceUnhealthyInstances": True,
                "TerminateInstancesWithExpiration": True,
                "ExcessCapacityTerminationPolicy": "termination",
                "TargetCapacitySpecification": {"TotalTargetCapacity": 500},
                "SpotOptions": {"MaxTotalPrice": "3", "MinTargetCapacity": 9},
                "LaunchTemplateConfigs": [
                    {
                        "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-9"},
                        "Overrides": [{"InstanceType": "c5.large"}],
                    }
                ],
            },
        },
    }
    plan = planned(content, 3)
    plain = planned({key: value for key, value in content.items() if key != "native"}, 3)
    (config,) = plan.payload["LaunchTemplateConfigs"]
    assert config["LaunchTemplateSpecification"]["LaunchTemplateName"].startswith("hostledger-")
    assert config["Overrides"] == [{"InstanceType": "c5.large"}]
    assert plan.payload["SpotOptions"] == {
        "AllocationStrategy": "lowest-price",
        "MaxTotalPrice": "3",
    }
    assert plan.payload["Context"] == "c"
    same = {"Type", "TargetCapacitySpecification", "ExcessCapacityTerminationPolicy"}
    assert {key: plan.payload[key] for key in same} == {key: plain.payload[key] for key in same}
    assert not {"ReplaceUnhealthyInstances", "TerminateInstancesWithExpiration"} & set(plan.payload)
    assert data_of(plan)["Monitoring"] == {"Enabled": True}


def test_native_over_a_spot_fleet() -> None:
    """Its configuration may stand within its name or by itself."""
    mine = {"IamFleetRole": ROLE + "2", "TargetCapacity": 99, "LaunchSpecifications": []}
    content = {**SPOT_CONTENT, **BY_API["RequestSpotFleet"]}
    plans = [
        planned({**content, "native": {"api": native}}, 3)
        for native in (mine, {"SpotFleetRequestConfig": mine})
    ]
    assert plans[0].payload == plans[1].payload
    request = plans[0].payload["SpotFleetRequestConfig"]
    assert (request["IamFleetRole"], request["TargetCapacity"]) == (ROLE + "2", 3)
    assert "LaunchSpecifications" not in request


def test_native_over_a_group() -> None:
    """Tags are added; sizes, name, protection and launch template stay ours."""
    content = {
        **SPOT_CONTENT,
        **BY_API["CreateAutoScalingGroup"],
        "native": {
            "api": {
                "AutoScalingGroupName": "mine",
                "MaxSize": 99,
                "HealthCheckType": "ELB",
                "NewInstancesProtectedFromScaleIn": False,
                "DefaultCooldown": 60,
                "MixedInstancesPolicy": {
                    "LaunchTemplate": {"LaunchTemplateSpecification": {"LaunchTemplateId": "x"}},
                    "InstancesDistribution": {"OnDemandBaseCapacity": 1},
                },
                "Tags": [{"Key": "cost", "Value": "7"}],
            }
        },
    }
    plan = planned(content, 3)
    assert plan.payload["AutoScalingGroupName"] == f"hostledger-{BATCH}"
    assert (plan.payload["MaxSize"], plan.payload["HealthCheckType"]) == (3, "EC2")
    assert plan.payload["NewInstancesProtectedFromScaleIn"] is True
    assert plan.payload["DefaultCooldown"] == 60
    policy = plan.payload["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"]["OnDemandBaseCapacity"] == 1
    assert "LaunchTemplateId" not in policy["LaunchTemplate"]["LaunchTemplateSpecification"]
    assert plan.payload["Tags"][-1] == {
        "PropagateAtLaunch": False,
        "Key": "cost",
        "Value": "7",
        "ResourceId": f"hostledger-{BATCH}",
        "ResourceType": "auto-scaling-group",
    }
    assert len(plan.payload["Tags"]) == len(TAGS) + 1


@pytest.mark.parametrize("api", ["RunInstances", *BY_API])
def test_native_gives_no_tag_of_ours(api: str) -> None:
    """A machine with a forged batch would be taken for another's."""
    forged = [{"Key": "hostledger:batch", "Value": "bat-9"}]
    native: dict[str, Any] = {"TagSpecifications": [{"ResourceType": "instance", "Tags": forged}]}
    if api == "CreateAutoScalingGroup":
        native = {"Tags": forged}
    with pytest.raises(CallFailed, match="hostledger:"):
        planned({**CONTENT, **BY_API.get(api, {}), "native": {"api": native}})


# -- what is left open ----------------------------------------------------------------------------


def test_an_image_by_parameter() -> None:
    """Asked of SSM, and taken for a minute as it was."""
    place = Place()
    place.sandbox.put_parameter("/golden/image", "ami-1111")
    content = {**CONTENT, "image_parameter": "/golden/image"}
    del content["image_id"]
    assert planned(content, place=place).payload["ImageId"] == "ami-1111"
    place.sandbox.put_parameter("/golden/image", "ami-2222")
    place.later(59)
    assert planned(content, place=place).payload["ImageId"] == "ami-1111"
    place.later(2)
    assert planned(content, place=place).payload["ImageId"] == "ami-2222"
    assert place.actions().count("GetParameter") == 2


def test_a_parameter_without_an_image() -> None:
    """Missing, or something else: the template cannot be launched, and is not."""
    place = Place()
    place.sandbox.put_parameter("/golden/name", "golden")
    for name, words in (("/golden/image", "ParameterNotFound"), ("/golden/name", "no image id")):
        content = {**CONTENT, "image_parameter": name}
        with pytest.raises(CallFailed, match=words) as caught:
            place.plan(content)
        assert caught.value.kind == "refused"


SITE_DATA = {
    "ImageId": "ami-site",
    "InstanceType": "c5.large",
    "KeyName": "site",
    "SecurityGroupIds": ["sg-site"],
    "UserData": base64.b64encode(b"#!/bin/sh\nsite\n").decode(),
    "MetadataOptions": {"HttpTokens": "required"},
    "TagSpecifications": [
        {"ResourceType": "instance", "Tags": [{"Key": "owner", "Value": "site"}]},
        {"ResourceType": "spot-instances-request", "Tags": [{"Key": "owner", "Value": "site"}]},
    ],
}


def site_template(place: Place, data: dict[str, Any] = SITE_DATA) -> str:
    """Make a launch template of the site's; its id."""
    import boto3

    client = boto3.client("ec2", region_name="us-east-1")
    place.sandbox.attach(client)
    made = client.create_launch_template(LaunchTemplateName="site", LaunchTemplateData=data)
    again = client.create_launch_template_version(
        LaunchTemplateName="site", LaunchTemplateData=data
    )
    assert again["LaunchTemplateVersion"]["VersionNumber"] == 2
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def test_run_instances_uses_the_sites_launch_template() -> None:
    """Itself, in a version by number; the template says only what differs."""
    place = Place()
    template_id = site_template(place)
    for version, number in (("$Latest", "2"), ("$Default", "1"), ("1", "1")):
        content = {"launch_template": {"id": template_id, "version": version}, "key_name": "grid"}
        plan = planned(content, 2, place=place)
        assert plan.payload["LaunchTemplate"] == {
            "LaunchTemplateId": template_id,
            "Version": number,
        }
        assert set(plan.payload) == {
            "LaunchTemplate",
            "MinCount",
            "MaxCount",
            "KeyName",
            "TagSpecifications",
        }
    assert len(place.launch(plan).instances) == 2


def test_a_fleet_has_its_own_of_the_sites_launch_template() -> None:
    """The site's data, the template over them; its user data are secret as ours are."""
    place = Place()
    template_id = site_template(place)
    content = {
        "launch_template": {"id": template_id, "version": "2"},
        "subnet_ids": ["subnet-a"],
        "key_name": "grid",
        "price_type": "spot",
    }
    plan = planned(content, 2, place=place)
    digest = hashlib.sha256(b"#!/bin/sh\nsite\n").hexdigest()
    assert plan.user_data == b"#!/bin/sh\nsite\n"
    assert data_of(plan) == {
        "ImageId": "ami-site",
        "InstanceType": "c5.large",
        "KeyName": "grid",
        "SecurityGroupIds": ["sg-site"],
        "UserData": {"sha256": digest},
        "MetadataOptions": {"HttpTokens": "required"},
        "TagSpecifications": [SITE_DATA["TagSpecifications"][1]],
    }
    instance = next(s for s in plan.payload["TagSpecifications"] if s["ResourceType"] == "instance")
    assert instance["Tags"] == [{"Key": "owner", "Value": "site"}, *LISTED]
    assert overrides_of(plan) == [{"SubnetId": "subnet-a"}]
    assert len(place.launch(plan).instances) == 2


def test_interfaces_of_the_sites_launch_template() -> None:
    """AWS takes no subnet beside them: the template's goes into them."""
    place = Place()
    interfaces = [{"DeviceIndex": 0, "Groups": ["sg-site"], "SubnetId": "subnet-site"}]
    template_id = site_template(place, {"ImageId": "ami-1", "NetworkInterfaces": interfaces})
    content = {"launch_template": {"id": template_id, "version": "1"}, "vm_type": "m5.large"}
    assert "NetworkInterfaces" not in planned(content, place=place).payload

    content["subnet_ids"] = ["subnet-a"]
    (one,) = planned(content, place=place).payload["NetworkInterfaces"]
    assert (one["SubnetId"], one["Groups"]) == ("subnet-a", ["sg-site"])
    (one,) = data_of(planned({**content, "price_type": "spot"}, place=place))["NetworkInterfaces"]
    assert "SubnetId" not in one


def test_a_version_that_is_not_there() -> None:
    """No call is made from it."""
    place = Place()
    template_id = site_template(place)
    for version in ("9", "$Latest"):
        content = {**CONTENT, "launch_template": {"id": template_id, "version": version}}
        if version == "9":
            with pytest.raises(CallFailed) as caught:
                place.plan(content)
            assert caught.value.kind == "refused"
        else:
            place.plan(content)


def test_the_root_device_of_an_image_is_asked_once() -> None:
    """It never changes."""
    place = Place()
    for _ in range(3):
        planned({**CONTENT, "root_device_volume_size": 9}, place=place)
    assert place.actions() == ["DescribeImages"]


@pytest.mark.parametrize("api", ["RunInstances", *BY_API])
def test_a_plan_says_nothing_but_the_template(api: str) -> None:
    """The same template, pools and tags make the same call at any time: a rejected call is known
    again by it. Only the batch differs from batch to batch."""
    content = {**CONTENT, **BY_API.get(api, {}), "fleet_type": "instant"}
    if api == "RequestSpotFleet":
        content["fleet_type"] = "request"
    make: Callable[[], Planned] = lambda: planned(content, 3)  # noqa: E731
    assert make() == make()
    plain = str(make().payload)
    other = str(planned(content, 3, tags={**TAGS, "hostledger:batch": "bat-other"}).payload)
    if api in ("RunInstances", "CreateFleet"):
        assert other.replace("bat-other", BATCH) == plain
