"""What a template may say, each by one template and by where it is seen at AWS.

The table behind docs/reference/aws.md, which tests/application/test_template_features.py drives for
every way to launch.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from infrastructure.templates.ibm import read_templates
from tests.world import TEMPLATE, WAYS

KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
SITE_TEMPLATE = "lt-0123456789abcdef0"
"""Stands for the id of a launch template that the site made itself."""
PARAMETER, IMAGE = "/grid/image", "ami-0feed0001"
SCRIPT = "#!/bin/sh\necho booted\n"
REQUIREMENTS = {"VCpuCount": {"Min": 2, "Max": 8}, "MemoryMiB": {"Min": 4096}}

SPOT = {"priceType": "spot", "subnetId": "subnet-a,subnet-b", "vmType": None}
TYPES = {"vmTypes": {"c5.large": 1, "c5.xlarge": 2}}

TEMPLATES: dict[str, dict[str, Any]] = {
    "machine": {
        "instanceTags": "team=risk;stage=prod",
        "instanceProfile": "grid",
        "keyName": "grid",
        "securityGroupIds": ["sg-0123456789abcdef0"],
        "rootDeviceVolumeSize": 20,
        "volumeType": "gp3",
        "iops": 4000,
        "throughput": 250,
        "encrypted": True,
        "kmsKeyId": KEY,
        "volumes": [
            {
                "deviceName": "/dev/sdf",
                "size": 100,
                "type": "io2",
                "iops": 3000,
                "encrypted": True,
                "kmsKeyId": KEY,
            }
        ],
        "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 2},
        "userData": "zone=a",
        "userDataScript": "/opt/grid/join.sh",
        "ebsOptimized": True,
        "placementGroupName": "grid",
        "placement": {"partitionNumber": 3},
        "capacityReservation": {"preference": "none"},
    },
    "efa": {"interfaceType": "efa", "efaCount": 2, "securityGroupIds": ["sg-0123456789abcdef0"]},
    "interfaces": {
        "networkInterfaces": [{"DeviceIndex": 0, "Description": "grid", "Ipv6AddressCount": 1}]
    },
    "address": {"associatePublicIpAddress": True},
    "dedicated": {"tenancy": "dedicated"},
    "host": {
        "tenancy": "host",
        "placement": {"hostId": "h-0123456789abcdef0", "affinity": "host"},
    },
    "reservation": {"capacityReservation": {"id": "cr-0123456789abcdef0"}},
    "parameter": {"imageId": f"ssm:{PARAMETER}"},
    "site": {"launchTemplateId": SITE_TEMPLATE, "imageId": None, "vmType": None},
    "native": {"launchTemplateSpec": {"Monitoring": {"Enabled": True}}},
    "request": {"providerApiSpec": {}},
    "types": {
        **TYPES,
        "vmType": None,
        "subnetId": "subnet-a,subnet-b",
        "vmTypesPriority": {"c5.large": 2, "c5.xlarge": 1},
    },
    "requirements": {"vmType": None, "abisInstanceRequirements": REQUIREMENTS},
    "together": {"allOrNothing": True},
    "spot": {**SPOT, **TYPES, "maxSpotPrice": 0.25},
    "strategy": {**SPOT, **TYPES, "allocationStrategy": "capacityOptimized"},
    "diversified": {**SPOT, **TYPES, "allocationStrategy": "diversified"},
    "cheapest": {**SPOT, **TYPES, "allocationStrategy": "lowestPrice", "poolsCount": 2},
    "prioritized": {
        **TYPES,
        "vmType": None,
        "vmTypesPriority": {"c5.large": 2, "c5.xlarge": 1},
        "allocationStrategyOnDemand": "prioritized",
    },
    "share": {**SPOT, **TYPES, "percentOnDemand": 50},
    "mixed": {
        **SPOT,
        "vmType": "c5.large",
        "priceType": "heterogeneous",
        "fulfilmentDeadline": 240,
    },
    "spot-host": {**SPOT, **TYPES, "tenancy": "host"},
    "spot-reservation": {
        **SPOT,
        **TYPES,
        "capacityReservation": {"id": "cr-0123456789abcdef0"},
    },
}
"""Name -> what the template says beside TEMPLATE; None takes a field out."""

REQUESTS: dict[str, dict[str, Any]] = {
    "RunInstances": {"DisableApiStop": True},
    "EC2Fleet": {"Context": "grid"},
    "SpotFleet": {"Context": "grid"},
    "ASG": {"HealthCheckGracePeriod": 90},
}
"""Provider API -> what no field of ours says, in a request of its own."""

GROUPS = ("group",)
NO_FLEET = ("RunInstances",)
SPOT_FLEETS = ("spot-fleet-request", "spot-fleet-maintain")
ASYNCHRONOUS = ("fleet-request", "fleet-maintain", *SPOT_FLEETS, *GROUPS)

REFUSED: dict[str, dict[tuple[str, ...], str]] = {
    "requirements": {NO_FLEET: "abisInstanceRequirements"},
    "together": {ASYNCHRONOUS: "allOrNothing"},
    "diversified": {GROUPS: "allocationStrategy"},
    "share": {NO_FLEET: "percentOnDemand"},
    "mixed": {GROUPS: "priceType"},
    "spot-host": {tuple(WAYS): "tenancy"},
    "spot-reservation": {tuple(WAYS): "capacityReservation"},
}
"""Template -> ways -> the field that is refused at validation."""

IDLE: dict[str, dict[tuple[str, ...], str]] = {
    "strategy": {NO_FLEET: "allocationStrategy"},
    "diversified": {NO_FLEET: "allocationStrategy"},
    "cheapest": {NO_FLEET: "allocationStrategy, poolsCount"},
    "prioritized": {NO_FLEET: "allocationStrategyOnDemand"},
}
"""Template -> ways -> the fields that are told to be without effect."""


def field_of(table: dict[str, dict[tuple[str, ...], str]], template: str, way: str) -> str:
    """What a table says of a template and a way; "" for nothing."""
    return next((field for ways, field in table.get(template, {}).items() if way in ways), "")


def template_for(name: str, way: str) -> dict[str, Any]:
    """The template as it stands in a file."""
    by = {"providerApi": "RunInstances", "priceType": "ondemand", **WAYS[way]}
    said = {**TEMPLATE, **by, **TEMPLATES[name]}
    if name == "request":
        said["providerApiSpec"] = REQUESTS[WAYS[way].get("providerApi", "RunInstances")]
    return {field: value for field, value in said.items() if value is not None}


class Told(NamedTuple):
    """What validation says: whether the template is offered, and each (field, problem)."""

    offered: bool
    problems: list[tuple[str, str]]


def told(name: str, way: str) -> Told:
    """What validation says of a template and a way."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "awsprov_templates.json"
        path.write_text(json.dumps({"templates": [template_for(name, way)]}))
        documents, problems = read_templates(str(path))
    return Told(bool(documents), [(problem.field, problem.problem) for problem in problems])


@dataclass
class Seen:
    """What AWS has after a launch: `call`, the call that launched; `data`, what the machines are
    like by that call, or by the launch template that it names; `machine`, one of DescribeInstances;
    `volumes`, its volumes; `markets` of all machines."""

    way: str
    call: dict[str, Any]
    data: dict[str, Any]
    machine: dict[str, Any]
    volumes: list[dict[str, Any]]
    markets: list[str]

    @property
    def api(self) -> str:
        return str(WAYS[self.way].get("providerApi", "RunInstances"))

    @property
    def fleet(self) -> dict[str, Any]:
        """The request of a fleet, or a group's policy of instances."""
        if self.api == "ASG":
            return self.call.get("MixedInstancesPolicy", {})  # type: ignore[no-any-return]
        return self.call.get("SpotFleetRequestConfig", self.call)  # type: ignore[no-any-return]

    @property
    def overrides(self) -> list[dict[str, Any]]:
        if self.api == "ASG":
            return self.fleet["LaunchTemplate"]["Overrides"]  # type: ignore[no-any-return]
        return self.fleet["LaunchTemplateConfigs"][0]["Overrides"]  # type: ignore[no-any-return]

    def volume(self, device: str) -> dict[str, Any]:
        return next(v for v in self.volumes if v["Attachments"][0]["Device"] == device)


def _tags(seen: Seen) -> None:
    for tagged in (seen.machine, *seen.volumes):
        tags = {tag["Key"]: tag["Value"] for tag in tagged["Tags"]}
        assert tags.items() >= {"team": "risk", "stage": "prod"}.items()
        assert tags["hostledger:provider"] == "awsinst"
        assert tags["hostledger:batch"].startswith("bat-")


def _identity(seen: Seen) -> None:
    assert seen.data["IamInstanceProfile"] == {"Name": "grid"}
    assert seen.machine["KeyName"] == "grid"


def _groups(seen: Seen) -> None:
    assert [g["GroupId"] for g in seen.machine["SecurityGroups"]] == ["sg-0123456789abcdef0"]


def _root_volume(seen: Seen) -> None:
    root = seen.volume(seen.machine["RootDeviceName"])
    found = {key: root[key] for key in ("Size", "VolumeType", "Iops", "Throughput", "Encrypted")}
    assert found == {
        "Size": 20,
        "VolumeType": "gp3",
        "Iops": 4000,
        "Throughput": 250,
        "Encrypted": True,
    }
    assert root["KmsKeyId"] == KEY


def _data_volumes(seen: Seen) -> None:
    volume = seen.volume("/dev/sdf")
    found = {key: volume[key] for key in ("Size", "VolumeType", "Iops", "Encrypted", "KmsKeyId")}
    assert found == {
        "Size": 100,
        "VolumeType": "io2",
        "Iops": 3000,
        "Encrypted": True,
        "KmsKeyId": KEY,
    }
    mappings = {m["DeviceName"]: m["Ebs"] for m in seen.data["BlockDeviceMappings"]}
    assert mappings["/dev/sdf"]["DeleteOnTermination"] is True


def _metadata(seen: Seen) -> None:
    assert seen.data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}


def _user_data(seen: Seen) -> None:
    text = base64.b64decode(seen.data["UserData"]).decode()
    assert text == SCRIPT.replace("\n", "\nexport zone='a'\n", 1)


def _ebs_optimized(seen: Seen) -> None:
    assert seen.data["EbsOptimized"] is True


def _placement(seen: Seen) -> None:
    assert seen.data["Placement"] == {"GroupName": "grid", "PartitionNumber": 3}


def _reservation_preference(seen: Seen) -> None:
    assert seen.data["CapacityReservationSpecification"] == {
        "CapacityReservationPreference": "none"
    }


def _efa(seen: Seen) -> None:
    interfaces = seen.data["NetworkInterfaces"]
    assert [i["InterfaceType"] for i in interfaces] == ["efa", "efa"]
    assert [(i["NetworkCardIndex"], i["DeviceIndex"]) for i in interfaces] == [(0, 0), (1, 1)]
    assert all(i["Groups"] == ["sg-0123456789abcdef0"] for i in interfaces)
    assert "SecurityGroupIds" not in seen.data


def _interfaces(seen: Seen) -> None:
    (interface,) = seen.data["NetworkInterfaces"]
    assert (interface["Description"], interface["Ipv6AddressCount"]) == ("grid", 1)
    assert interface["DeleteOnTermination"] is True


def _address(seen: Seen) -> None:
    (interface,) = seen.data["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is True


def _dedicated(seen: Seen) -> None:
    assert seen.data["Placement"] == {"Tenancy": "dedicated"}


def _host(seen: Seen) -> None:
    assert seen.data["Placement"] == {
        "Tenancy": "host",
        "HostId": "h-0123456789abcdef0",
        "Affinity": "host",
    }


def _reservation(seen: Seen) -> None:
    assert seen.data["CapacityReservationSpecification"] == {
        "CapacityReservationTarget": {"CapacityReservationId": "cr-0123456789abcdef0"}
    }


def _parameter(seen: Seen) -> None:
    assert seen.machine["ImageId"] == IMAGE


def _site_template(seen: Seen) -> None:
    assert seen.machine["ImageId"] == IMAGE
    assert seen.machine["InstanceType"] == "m5.large"
    assert seen.machine["KeyName"] == "sites-own"


def _native(seen: Seen) -> None:
    assert seen.data["Monitoring"] == {"Enabled": True}


def _request(seen: Seen) -> None:
    wanted = REQUESTS[seen.api]
    call = seen.call if seen.api == "ASG" else seen.fleet
    assert {key: call[key] for key in wanted} == wanted


def _types(seen: Seen) -> None:
    if seen.api == "RunInstances":
        # Lower is tried first; one pool a call.
        assert (seen.data["InstanceType"], seen.data["SubnetId"]) == ("c5.xlarge", "subnet-a")
        return
    types = {o["InstanceType"]: float(o["WeightedCapacity"]) for o in seen.overrides}
    assert types == {"c5.large": 1.0, "c5.xlarge": 2.0}
    if seen.api == "ASG":
        # In the order of the list; the group has its subnets.
        assert [o["InstanceType"] for o in seen.overrides] == ["c5.xlarge", "c5.large"]
        assert seen.call["VPCZoneIdentifier"] == "subnet-a,subnet-b"
    else:
        assert {o["SubnetId"] for o in seen.overrides} == {"subnet-a", "subnet-b"}
        priorities = {o["InstanceType"]: o["Priority"] for o in seen.overrides}
        assert priorities == {"c5.large": 2, "c5.xlarge": 1}


def _requirements(seen: Seen) -> None:
    assert seen.overrides[0]["InstanceRequirements"] == REQUIREMENTS


def _together(seen: Seen) -> None:
    if seen.api == "RunInstances":
        assert seen.call["MinCount"] == seen.call["MaxCount"] == 2
    else:
        options = seen.fleet["OnDemandOptions"]
        assert options["MinTargetCapacity"] == 2
        assert options["SingleInstanceType"] is options["SingleAvailabilityZone"] is True


def _spot(seen: Seen) -> None:
    assert set(seen.markets) == {"spot"}
    if seen.api == "RunInstances":
        options = seen.data["InstanceMarketOptions"]["SpotOptions"]
        assert options["MaxPrice"] == "0.25"
        assert options["SpotInstanceType"] == "one-time"
    elif seen.api == "ASG":
        assert seen.fleet["InstancesDistribution"]["SpotMaxPrice"] == "0.25"
    elif seen.api == "SpotFleet":
        assert seen.fleet["SpotPrice"] == "0.25"
    else:
        assert {o["MaxPrice"] for o in seen.overrides} == {"0.25"}


WORDS = {
    "capacity-optimized": {"SpotFleet": "capacityOptimized"},
    "lowest-price": {"SpotFleet": "lowestPrice"},
    "diversified": {"SpotFleet": "diversified"},
}


def _spot_strategy(word: str) -> Callable[[Seen], None]:
    def see(seen: Seen) -> None:
        expected = WORDS[word].get(seen.api, word)
        if seen.api == "ASG":
            assert seen.fleet["InstancesDistribution"]["SpotAllocationStrategy"] == expected
        elif seen.api == "SpotFleet":
            assert seen.fleet["AllocationStrategy"] == expected
        else:
            assert seen.fleet["SpotOptions"]["AllocationStrategy"] == expected

    return see


def _pools_count(seen: Seen) -> None:
    _spot_strategy("lowest-price")(seen)
    if seen.api == "ASG":
        assert seen.fleet["InstancesDistribution"]["SpotInstancePools"] == 2
    elif seen.api == "SpotFleet":
        assert seen.fleet["InstancePoolsToUseCount"] == 2
    else:
        assert seen.fleet["SpotOptions"]["InstancePoolsToUseCount"] == 2


def _on_demand_strategy(seen: Seen) -> None:
    if seen.api == "ASG":
        distribution = seen.fleet["InstancesDistribution"]
        assert distribution["OnDemandAllocationStrategy"] == "prioritized"
    elif seen.api == "SpotFleet":
        assert seen.fleet["OnDemandAllocationStrategy"] == "prioritized"
    else:
        assert seen.fleet["OnDemandOptions"]["AllocationStrategy"] == "prioritized"


def _share(seen: Seen) -> None:
    assert set(seen.markets) == {"spot", "on-demand"}


def _mixed(seen: Seen) -> None:
    """With room for one machine on spot."""
    assert sorted(seen.markets) == ["on-demand", "spot"]


def _nothing(seen: Seen) -> None:
    raise AssertionError("no template of it is offered")


class Feature(NamedTuple):
    """`fields` are those of the reference of templates; `template` is the one of TEMPLATES that has
    them; `see` raises AssertionError unless AWS has what they say."""

    title: str
    fields: str
    template: str
    see: Callable[[Seen], None]


FEATURES = (
    Feature("tags of machines and volumes", "instanceTags", "machine", _tags),
    Feature("key pair, instance profile", "keyName, instanceProfile", "machine", _identity),
    Feature("security groups", "securityGroupIds", "machine", _groups),
    Feature(
        "root volume: size, type, speed, encryption, key",
        "rootDeviceVolumeSize, volumeType, iops, throughput, encrypted, kmsKeyId",
        "machine",
        _root_volume,
    ),
    Feature("data volumes, encrypted", "volumes", "machine", _data_volumes),
    Feature("IMDSv2 and hop limit", "metadataOptions", "machine", _metadata),
    Feature("user data", "userDataScript, userData", "machine", _user_data),
    Feature("EBS-optimized", "ebsOptimized", "machine", _ebs_optimized),
    Feature("placement group, partition", "placementGroupName, placement", "machine", _placement),
    Feature(
        "Capacity Reservations left alone",
        "capacityReservation.preference",
        "machine",
        _reservation_preference,
    ),
    Feature("one Capacity Reservation", "capacityReservation.id", "reservation", _reservation),
    Feature("the same on spot", "capacityReservation.id", "spot-reservation", _nothing),
    Feature("Elastic Fabric Adapters", "interfaceType, efaCount", "efa", _efa),
    Feature("interfaces as AWS has them", "networkInterfaces", "interfaces", _interfaces),
    Feature("public address", "associatePublicIpAddress", "address", _address),
    Feature("dedicated hardware", "tenancy dedicated", "dedicated", _dedicated),
    Feature("Dedicated Host", "tenancy host, placement.hostId", "host", _host),
    Feature("the same on spot", "tenancy host", "spot-host", _nothing),
    Feature("image by SSM parameter", "imageId", "parameter", _parameter),
    Feature("the site's launch template", "launchTemplateId", "site", _site_template),
    Feature("AWS's own machine data", "launchTemplateSpec", "native", _native),
    Feature("AWS's own request", "providerApiSpec", "request", _request),
    Feature("several types, weights, subnets", "vmTypes, vmTypesPriority", "types", _types),
    Feature("types by requirements", "abisInstanceRequirements", "requirements", _requirements),
    Feature("all or nothing", "allOrNothing", "together", _together),
    Feature("spot, highest price", "priceType, maxSpotPrice", "spot", _spot),
    Feature("share on demand", "percentOnDemand", "share", _share),
    Feature("spot first, then on demand", "priceType heterogeneous", "mixed", _mixed),
    Feature(
        "spot strategy",
        "allocationStrategy",
        "strategy",
        _spot_strategy("capacity-optimized"),
    ),
    Feature(
        "spread over all pools",
        "allocationStrategy diversified",
        "diversified",
        _spot_strategy("diversified"),
    ),
    Feature("spread over the cheapest pools", "poolsCount", "cheapest", _pools_count),
    Feature("strategy on demand", "allocationStrategyOnDemand", "prioritized", _on_demand_strategy),
)
"""The rows of docs/reference/aws.md."""
