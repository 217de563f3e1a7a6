"""The fields of fleets, volumes and machines: what is made of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.capacity import fleet_type, launch_api, pools_of
from tests.infrastructure.test_templates import (
    ABSENT,
    PLAIN_DOCUMENT,
    changed,
    read,
    refused,
    served,
)

ROLE = "arn:aws:iam::123456789012:role/fleet"
SPOT = {"priceType": "spot"}
WEIGHED = {"vmType": ABSENT, "vmTypes": {"m5.large": 1, "m5.xlarge": 2}}
ABIS = {"VCpuCount": {"Min": 2, "Max": 8}, "MemoryMiB": {"Min": 4096}}
EFA = {"interfaceType": "efa", "efaCount": 4}

# what the template says besides the plain one, what is more in the document (ABSENT: not there)
MADE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (WEIGHED, {"vm_type": ABSENT, "vm_types": {"m5.large": 1, "m5.xlarge": 2}}),
    (
        {"vmType": ABSENT, "vmTypes": {"m5.large": "3"}},
        {"vm_type": ABSENT, "vm_types": {"m5.large": 3}},
    ),
    (
        {"vmType": "m5.large, c5.large"},
        {"vm_type": ABSENT, "vm_types": {"m5.large": 1, "c5.large": 1}},
    ),
    (
        {**WEIGHED, "vmTypesPriority": {"m5.xlarge": 1.5}},
        {
            "vm_type": ABSENT,
            **{"vm_types": WEIGHED["vmTypes"]},
            "vm_types_priority": {"m5.xlarge": 1.5},
        },
    ),
    (
        {"imageId": "/aws/service/ami/al2023"},
        {"image_id": ABSENT, "image_parameter": "/aws/service/ami/al2023"},
    ),
    (
        {"imageId": "resolve:ssm:/grid/image:3"},
        {"image_id": ABSENT, "image_parameter": "/grid/image:3"},
    ),
    ({"imageId": "ssm:/grid/image"}, {"image_id": ABSENT, "image_parameter": "/grid/image"}),
    (
        {"imageId": "arn:aws:ssm:eu-west-1:123456789012:parameter/grid"},
        {
            "image_id": ABSENT,
            "image_parameter": "arn:aws:ssm:eu-west-1:123456789012:parameter/grid",
        },
    ),
    (
        {"launchTemplateId": "lt-1", "imageId": ABSENT, "subnetId": ABSENT, "vmType": ABSENT},
        {
            "launch_template": {"id": "lt-1", "version": "$Default"},
            "image_id": ABSENT,
            "subnet_ids": ABSENT,
            "vm_type": ABSENT,
        },
    ),
    (
        {"launchTemplateId": "lt-1", "launchTemplateVersion": 7},
        {"launch_template": {"id": "lt-1", "version": "7"}},
    ),
    (
        {"throughput": 250, "volumeType": "gp3"},
        {"root_volume_throughput": 250, "volume_type": "gp3"},
    ),
    (
        {"volumeType": "gp3", "iops": 16000, "rootDeviceVolumeSize": 32},
        {"volume_type": "gp3", "iops": 16000, "root_device_volume_size": 32},
    ),
    ({"volumeType": "io2", "iops": 256000}, {"volume_type": "io2", "iops": 256000}),
    ({"encrypted": True}, {"root_volume_encrypted": True}),
    (
        {"kmsKeyId": "alias/grid"},
        {"root_volume_encrypted": True, "root_volume_kms_key": "alias/grid"},
    ),
    (
        {
            "volumes": [
                {
                    "deviceName": "/dev/sdf",
                    "size": 100,
                    "type": "gp3",
                    "iops": 4000,
                    "throughput": 500,
                },
                {"deviceName": "xvdg", "snapshotId": "snap-1", "kmsKeyId": "alias/grid"},
            ]
        },
        {
            "volumes": [
                {"device": "/dev/sdf", "size": 100, "type": "gp3", "iops": 4000, "throughput": 500},
                {
                    "device": "xvdg",
                    "snapshot_id": "snap-1",
                    "encrypted": True,
                    "kms_key_id": "alias/grid",
                },
            ]
        },
    ),
    (
        {"metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 2}},
        {"metadata_options": {"http_tokens": "required", "http_put_response_hop_limit": 2}},
    ),
    (EFA, {"interface_type": "efa", "efa_count": 4}),
    ({"interfaceType": "efa"}, {"interface_type": "efa"}),
    (
        {"networkInterfaces": [{"deviceIndex": 0, "groups": ["sg-1"]}, {"device_index": 1}]},
        {"network_interfaces": [{"DeviceIndex": 0, "Groups": ["sg-1"]}, {"DeviceIndex": 1}]},
    ),
    ({"associatePublicIpAddress": False}, {"associate_public_ip": False}),
    ({"capacityReservation": {"id": "cr-1"}}, {"capacity_reservation": {"id": "cr-1"}}),
    (
        {"capacityReservation": {"preference": "none"}},
        {"capacity_reservation": {"preference": "none"}},
    ),
    (
        {"placement": {"partitionNumber": 2}, "placementGroupName": "p"},
        {"placement": {"partition_number": 2}, "placement_group": "p"},
    ),
    (
        {"placement": {"hostId": "h-1", "affinity": "host"}, "tenancy": "host"},
        {"placement": {"host_id": "h-1", "affinity": "host"}, "tenancy": "host"},
    ),
    (
        {
            "accounts": {
                "research": {
                    "imageId": "ami-2",
                    "subnetId": "subnet-2,subnet-3",
                    "securityGroupIds": ["sg-2"],
                    "launchTemplateId": "lt-2",
                    "price": 0.2,
                },
                "other": {"imageId": "ssm:/image"},
                "same": {},
            }
        },
        {
            "accounts": {
                "research": {
                    "image_id": "ami-2",
                    "subnet_ids": ["subnet-2", "subnet-3"],
                    "security_group_ids": ["sg-2"],
                    "launch_template": {"id": "lt-2", "version": "$Default"},
                    "price": 0.2,
                },
                "other": {"image_parameter": "/image", "image_id": ""},
                "same": {},
            }
        },
    ),
    (
        {"providerApi": "EC2Fleet", "fleetType": "Request"},
        {"provider_api": "EC2Fleet", "fleet_type": "request"},
    ),
    ({"fleetType": "instant"}, {"provider_api": "EC2Fleet", "fleet_type": "instant"}),
    ({"provider_api": "asg"}, {"provider_api": "ASG"}),
    (
        {"providerApi": "EC2Fleet", "allocationStrategyOnDemand": "prioritized"},
        {"provider_api": "EC2Fleet", "allocation_strategy_on_demand": "prioritized"},
    ),
    (
        {"vmType": ABSENT, "abisInstanceRequirements": ABIS},
        {"vm_type": ABSENT, "provider_api": "EC2Fleet", "abis": ABIS},
    ),
    (
        {
            "vmType": ABSENT,
            "abis_instance_requirements": {
                "vcpu_count": {"min": 2, "max": 8},
                "memory_mib": {"min": 4096},
            },
        },
        {"vm_type": ABSENT, "provider_api": "EC2Fleet", "abis": ABIS},
    ),
    (
        {"allOrNothing": True, **WEIGHED},
        {"all_or_nothing": True, "vm_type": ABSENT, "vm_types": WEIGHED["vmTypes"]},
    ),
    (
        {"allOrNothing": True, "providerApi": "EC2Fleet"},
        {"all_or_nothing": True, "provider_api": "EC2Fleet"},
    ),
]

SPOT_MADE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"providerApi": "EC2Fleet"}, {}),
    ({"providerApi": "RunInstances"}, {"provider_api": "RunInstances"}),
    ({"maxSpotPrice": 0.25}, {"max_spot_price": "0.25"}),
    ({"spotPrice": "1.50"}, {"max_spot_price": "1.5"}),
    ({"maxSpotPrice": 1e-05}, {"max_spot_price": "0.00001"}),
    ({"percentOnDemand": 30}, {"percent_on_demand": 30}),
    ({"percentOnDemand": 0}, {}),
    ({"onDemandTargetCapacityRatio": 0.25}, {"percent_on_demand": 25}),
    (
        {"allocationStrategy": "priceCapacityOptimized"},
        {"allocation_strategy": "price-capacity-optimized"},
    ),
    (
        {"allocationStrategy": "capacity-optimized-prioritized"},
        {"allocation_strategy": "capacity-optimized-prioritized"},
    ),
    ({"allocation_strategy": "capacity_optimized"}, {"allocation_strategy": "capacity-optimized"}),
    ({"poolsCount": 3}, {"pools_count": 3, "allocation_strategy": "lowest-price"}),
    ({"spotFleetRequestExpiry": 10}, {"fulfilment_deadline": 600}),
    ({"requestValidity": "01:30"}, {"fulfilment_deadline": 5400}),
    ({"fulfilmentDeadline": 90}, {"fulfilment_deadline": 90}),
    (
        {"providerApi": "SpotFleet", "fleetRole": ROLE, "fleetType": "maintain"},
        {"provider_api": "SpotFleet", "fleet_role": ROLE, "fleet_type": "maintain"},
    ),
    (
        {"providerApi": "ASG", "percentOnDemand": 50},
        {"provider_api": "ASG", "percent_on_demand": 50},
    ),
]


def _expected(more: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in {**PLAIN_DOCUMENT, **more}.items() if v is not ABSENT}


@pytest.mark.parametrize(("fields", "more"), MADE)
def test_fields_of_machines_and_fleets(
    tmp_path: Path, fields: dict[str, Any], more: dict[str, Any]
) -> None:
    """Each field has its one place and form in the document."""
    assert _expected(more) == served(tmp_path, **fields)


@pytest.mark.parametrize(("fields", "more"), SPOT_MADE)
def test_fields_of_spot_templates(
    tmp_path: Path, fields: dict[str, Any], more: dict[str, Any]
) -> None:
    """A spot template launches with CreateFleet and has half an hour, unless it says otherwise."""
    document = served(tmp_path, **SPOT, **fields)

    assert _expected({"price_type": "spot", "fulfilment_deadline": 1800, **more}) == document


def test_a_heterogeneous_template(tmp_path: Path) -> None:
    """Spot first, other types and weights on demand; the role of IBM's Spot Fleet has no effect."""
    documents, problems = read(
        tmp_path,
        changed(
            priceType="heterogeneous",
            **WEIGHED,
            vmTypesOnDemand={"c5.xlarge": 4},
            fleetRole=ROLE,
        ),
    )

    assert [(p.field, p.fatal) for p in problems] == [("fleetRole", False)]
    assert [str(pool) for pool in pools_of(documents[0], "ondemand")] == [
        "c5.xlarge/subnet-0123abcd/ondemand"
    ]
    assert launch_api(documents[0]) == "CreateFleet"
    assert fleet_type(documents[0]) == "instant"


@pytest.mark.parametrize("field", ["fleetRole", "spotPrice", "onDemandTargetCapacityRatio"])
def test_lsf_templates_have_no_price_type(tmp_path: Path, field: str) -> None:
    """A field that in LSF's files makes a template spot does so here, and that is said."""
    values = {"fleetRole": ROLE, "spotPrice": 0.1, "onDemandTargetCapacityRatio": 0.5}
    documents, problems = read(tmp_path, changed(**{field: values[field]}))

    assert documents[0]["price_type"] == "spot"
    assert (problems[0].field, problems[0].problem) == (
        "priceType",
        f'is read as "spot" because of {field}',
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maxSpotPrice", "0.1"),
        ("spotFleetRequestExpiry", 30),
        ("allocationStrategy", "lowestPrice"),
        ("percentOnDemand", 50),
        ("poolsCount", 2),
        ("requestValidity", "01:00"),
        ("durationInHours", 1),
    ],
)
def test_no_market_is_guessed(tmp_path: Path, field: str, value: Any) -> None:
    """A field that some plug-ins give to spot templates only is no price type."""
    problem = refused(tmp_path, **{field: value})

    assert (problem.field, "needs a priceType" in problem.problem) == (field, True)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"vmTypes": {"m5.large": 1}}, "vmTypes", "vmType or vmTypes, not both"),
        ({"vmType": ABSENT, "vmTypes": {"m5.large": 0}}, "vmTypes.m5.large", "equal to 1, not 0"),
        ({"vmType": ABSENT, "vmTypes": {"m5.large": 1000}}, "vmTypes.m5.large", "equal to 999"),
        ({"vmType": ABSENT, "vmTypes": {"m5.large": 1.5}}, "vmTypes.m5.large", "valid integer"),
        ({"vmType": ABSENT, "vmTypes": {"large": 1}}, "vmTypes.large", "should match pattern"),
        ({"vmType": ABSENT, "vmTypes": ["m5.large"]}, "vmTypes", "valid dictionary"),
        ({"vmTypesPriority": {"c5.large": 1}}, "vmTypesPriority", "c5.large is none of"),
        ({"vmTypesPriority": {"m5.large": -1}}, "vmTypesPriority.m5.large", "equal to 0"),
        ({"abisInstanceRequirements": ABIS}, "abisInstanceRequirements", "not both"),
        ({"imageId": "ssm:"}, "imageId", "name or the ARN of an SSM parameter"),
        ({"launchTemplateId": "x"}, "launchTemplateId", "should match pattern"),
        (
            {"launchTemplateId": "lt-1", "launchTemplateVersion": "latest"},
            "launchTemplateVersion",
            "should match pattern",
        ),
        (
            {"providerApi": "Fleet"},
            "providerApi",
            "'RunInstances', 'EC2Fleet', 'SpotFleet' or 'ASG'",
        ),
        ({"fleetType": "once"}, "fleetType", "'instant', 'request' or 'maintain'"),
        ({**SPOT, "allocationStrategy": "cheapest"}, "allocationStrategy", "'lowest-price'"),
        ({**SPOT, "allocationStrategy": "prioritized"}, "allocationStrategy", "'lowest-price'"),
        (
            {**SPOT, "poolsCount": 2, "allocationStrategy": "diversified"},
            "poolsCount",
            "needs allocationStrategy lowestPrice",
        ),
        ({**SPOT, "maxSpotPrice": -1}, "maxSpotPrice", "0 or more"),
        ({**SPOT, "maxSpotPrice": "cheap"}, "maxSpotPrice", "an amount such as 0.25"),
        ({**SPOT, "maxSpotPrice": "nan"}, "maxSpotPrice", "0 or more"),
        ({**SPOT, "maxSpotPrice": 1, "spotPrice": 2}, "spotPrice", "they differ"),
        ({**SPOT, "percentOnDemand": 101}, "percentOnDemand", "equal to 100"),
        (
            {**SPOT, "percentOnDemand": 1, "onDemandTargetCapacityRatio": 0.5},
            "onDemandTargetCapacityRatio",
            "not both",
        ),
        ({**SPOT, "onDemandTargetCapacityRatio": 2}, "onDemandTargetCapacityRatio", "equal to 1"),
        ({**SPOT, "requestValidity": "90"}, "requestValidity", "HH:MM"),
        ({**SPOT, "requestValidity": "00:00"}, "requestValidity", "equal to 1"),
        ({**SPOT, "spotFleetRequestExpiry": 0}, "spotFleetRequestExpiry", "equal to 1"),
        ({**SPOT, "durationInHours": 3}, "durationInHours", "AWS has ended"),
        ({**SPOT, "fleetRole": "fleet"}, "fleetRole", "should match pattern"),
        ({**SPOT, "vmType": ABSENT, "vmTypesOnDemand": {"m5.large": 1}}, "vmTypes", "is required"),
        ({"efaCount": 2}, "efaCount", "needs interfaceType efa"),
        ({"interfaceType": "ena"}, "interfaceType", "'interface' or 'efa'"),
        ({"volumes": [{"deviceName": "/dev/sdf"}]}, "volumes./dev/sdf", "a size or a snapshotId"),
        ({"volumes": [{"deviceName": "sdf", "size": 0}]}, "volumes.1.size", "equal to 1"),
        ({"volumes": [{"deviceName": "sdf", "size": 1, "iop": 1}]}, "volumes.1.iop", "no field"),
        ({"volumes": [{"size": 5}]}, "volumes.1.deviceName", "is required"),
        (
            {"volumes": [{"deviceName": "sdf", "size": 9}, {"deviceName": "sdf", "size": 9}]},
            "volumes.sdf",
            "given twice",
        ),
        ({"encrypted": False, "kmsKeyId": "k"}, "kmsKeyId", "no use with encrypted false"),
        ({"metadataOptions": {"httpTokens": "always"}}, "metadataOptions.httpTokens", "'required'"),
        ({"metadataOptions": {"http": 1}}, "metadataOptions.http", "no field"),
        (
            {"capacityReservation": {"id": "cr-1", "preference": "open"}},
            "capacityReservation",
            "one of",
        ),
        ({"placement": {"zone": "a"}}, "placement.zone", "no field"),
        ({"networkInterfaces": {}, "efaCount": 1}, "efaCount", "needs interfaceType efa"),
        ({"networkInterfaces": ["eth0"]}, "networkInterfaces.1", "an object is needed"),
        ({"networkInterfaces": [{"subnet": 1}]}, "networkInterfaces.1.subnet", "no such field"),
        (
            {"networkInterfaces": [{"NetworkInterfaceId": "eni-1"}]},
            "networkInterfaces.1.NetworkInterfaceId",
            "several machines",
        ),
        ({"accounts": {"a": {"vmType": "m5.large"}}}, "accounts.a.vmType", "no field"),
        ({"accounts": {"a": {"imageId": "x"}}}, "accounts.a.imageId", "should match pattern"),
    ],
)
def test_bad_values(tmp_path: Path, fields: dict[str, Any], field: str, words: str) -> None:
    """A value that AWS would not take leaves the template out and is named."""
    problem = refused(tmp_path, **fields)

    assert field == problem.field
    assert words in problem.problem


@pytest.mark.parametrize(
    ("requirements", "field", "words"),
    [
        ({"MemoryMiB": {"Min": 1}}, "VCpuCount", "a minimum is required"),
        ({"VCpuCount": {"Min": 4, "Max": 2}, "MemoryMiB": {"Min": 1}}, "VCpuCount", "below"),
        ({**ABIS, "Cpus": 2}, "Cpus", "has no such field"),
        ({**ABIS, "VCpuCount": {"Min": "two"}}, "VCpuCount.Min", "a whole number is needed"),
        ({**ABIS, "BareMetal": "perhaps"}, "BareMetal", "one of included, required, excluded"),
        ({**ABIS, "RequireHibernateSupport": "x"}, "RequireHibernateSupport", "true or false"),
        (
            {**ABIS, "AllowedInstanceTypes": ["m5.*"], "ExcludedInstanceTypes": ["m4.*"]},
            "AllowedInstanceTypes",
            "not both",
        ),
        ({**ABIS, "vcpu_count": {"Min": 1}}, "vcpu_count", "given twice"),
    ],
)
def test_bad_requirements(
    tmp_path: Path, requirements: dict[str, Any], field: str, words: str
) -> None:
    """InstanceRequirements are held against AWS's own model."""
    problem = refused(tmp_path, vmType=ABSENT, abisInstanceRequirements=requirements)

    assert f"abisInstanceRequirements.{field}" == problem.field
    assert words in problem.problem


@pytest.mark.parametrize(
    ("kind", "size", "iops", "throughput", "words"),
    [
        ("gp2", 16384, None, None, None),
        ("gp2", 16385, None, None, "less than or equal to 16384"),
        ("gp2", 8, 3000, None, "needs volumeType gp3, io1 or io2"),
        ("gp2", 8, None, 125, "needs volumeType gp3"),
        ("gp3", 65536, 80000, 2000, None),
        ("gp3", 1, 3000, 750, None),
        ("gp3", 1, 3001, None, "more than 500 for each GiB"),
        ("gp3", 32, 16000, None, None),
        ("gp3", 31, 16000, None, "15500 for 31 GiB"),
        ("gp3", 100, 2999, None, "greater than or equal to 3000"),
        ("gp3", 1000, 80001, None, "less than or equal to 80000"),
        ("gp3", 8, None, 751, "needs 3004 iops"),
        ("gp3", 8, 4000, 1000, None),
        ("io1", 4, 100, None, None),
        ("io1", 3, 100, None, "greater than or equal to 4"),
        ("io1", 4, 201, None, "more than 50 for each GiB"),
        ("io1", 4, None, None, "is required with volumeType io1"),
        ("io1", 2000, 64001, None, "less than or equal to 64000"),
        ("io2", 256, 256000, None, None),
        ("io2", 4, 4001, None, "more than 1000 for each GiB"),
        ("st1", 124, None, None, "greater than or equal to 125"),
        ("sc1", 500, None, None, None),
        ("standard", 1025, None, None, "less than or equal to 1024"),
    ],
)
def test_limits_of_volumes(
    tmp_path: Path,
    kind: str,
    size: int,
    iops: int | None,
    throughput: int | None,
    words: str | None,
) -> None:
    """What EC2 documents of each type holds for a data volume."""
    volume = {
        "deviceName": "sdf",
        "type": kind,
        "size": size,
        "iops": iops,
        "throughput": throughput,
    }
    if words is None:
        assert served(tmp_path, volumes=[volume])["volumes"][0]["type"] == kind
    else:
        assert words in refused(tmp_path, volumes=[volume]).problem
