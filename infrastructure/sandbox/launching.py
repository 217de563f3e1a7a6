"""How machines come to be, for every API that launches: RunInstances, fleets and groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import shapes
from .capacity import ON_DEMAND, SPOT, Capacity, Pool
from .region import Keeper, Machine, Region
from .wire import AwsError

# "resolve:ssm:parameter-name:version-number" and so on (API_RunInstances.html, ImageId).
_PARAMETER = "resolve:ssm:"


def prepared(region: Region, asked: Mapping[str, Any]) -> dict[str, Any]:
    """RunInstances' parameters (nested) with all they name known to the region and a subnet.

    Raises AwsError as RunInstances does: MissingParameter, InvalidParameterCombination,
    InvalidAMIID.NotFound and so on.
    """
    asked = dict(asked)
    if (image := str(asked.get("ImageId", ""))).startswith(_PARAMETER):
        try:
            asked["ImageId"] = region.parameter(image.removeprefix(_PARAMETER))
        except AwsError as error:
            # The code is from memory.
            raise AwsError("InvalidParameterValue", f"{image}: {error.message}") from error
    know(region, shapes.flat("RunInstances", asked))
    if not asked.get("ImageId"):
        raise AwsError("MissingParameter", "The request must contain the parameter ImageId")
    asked.setdefault("InstanceType", "m1.small")
    region.know_type(asked["InstanceType"])
    _check_tags(asked)
    if asked.get("NetworkInterfaces"):
        for name, words in (("SubnetId", "subnet ID"), ("SecurityGroupIds", "security groups")):
            if asked.get(name):
                raise AwsError(
                    "InvalidParameterCombination",
                    f"Network interfaces and an instance-level {words} may not be specified on "
                    "the same request",
                )
    if not subnet_of(asked):
        subnet = region.subnet_for(asked.get("Placement", {}).get("AvailabilityZone"))
        if interfaces := asked.get("NetworkInterfaces"):
            asked["NetworkInterfaces"] = in_subnet(interfaces, subnet)
        else:
            asked["SubnetId"] = subnet
    return asked


def in_subnet(interfaces: Sequence[Mapping[str, Any]], subnet: str) -> list[dict[str, Any]]:
    """Network interfaces with the subnet of the launch; an existing interface has its own."""
    return [
        dict(one) if "NetworkInterfaceId" in one else {**one, "SubnetId": subnet}
        for one in interfaces
    ]


def pool(asked: Mapping[str, Any]) -> Pool:
    """The pool that prepared parameters launch in."""
    spot = asked.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return Pool(subnet_of(asked), asked["InstanceType"], SPOT if spot else ON_DEMAND)


def subnet_of(asked: Mapping[str, Any]) -> str:
    """The subnet a launch names, directly or in its first interface; empty when none."""
    first: Mapping[str, Any] = next(iter(asked.get("NetworkInterfaces", ())), {})
    return str(asked.get("SubnetId") or first.get("SubnetId", ""))


def between(
    region: Region, asked: Mapping[str, Any], low: int, high: int, capacity: Capacity
) -> list[Machine]:
    """Launch as many as there is room for, at least `low` and at most `high`, else none.

    Raises the error of the pool's limit, InsufficientInstanceCapacity unless it says otherwise,
    and what RunInstances raises.
    """
    asked = prepared(region, asked)
    here = pool(asked)
    room = capacity.room(here)
    count = high
    if room is not None and room.left < high:
        if room.left < low or room.left == 0:
            raise capacity.error(here, room.code)
        count = room.left
    machines = start(region, asked, count)
    capacity.take(here, count)
    return machines


def start(
    region: Region,
    asked: Mapping[str, Any],
    count: int,
    *,
    tags: Mapping[str, str] | None = None,
    keeper: Keeper | None = None,
) -> list[Machine]:
    """Launch prepared parameters, whatever the capacity; `tags` are AWS's own ("aws:...")."""
    machines = region.launch(asked, count)
    template = asked.get("LaunchTemplate", {})
    own = dict(tags or {})
    if template:
        # Tags that AWS gives; from memory.
        own["aws:ec2launchtemplate:id"] = template["LaunchTemplateId"]
        own["aws:ec2launchtemplate:version"] = template["Version"]
    for machine in machines:
        machine.keeper = keeper
        if own:
            region.tags[machine.id].update(own)
    return machines


def know(region: Region, params: Mapping[str, str]) -> None:
    """Make known to the region the images, subnets and security groups that a call names (flat).

    With strict ids unknown ones are refused instead: InvalidAMIID.NotFound and so on.
    """

    def values(pattern: str) -> list[str]:
        return [value for name, value in params.items() if re.search(pattern, name)]

    region.know_images(values(r"(?:^|\.)ImageId$"))
    # A fleet's override names several subnets in one parameter (API_CreateFleet.html).
    for subnets in values(r"(?:^|\.)SubnetId$"):
        region.know_subnets([subnet.strip() for subnet in subnets.split(",")])
    region.know_groups(values(r"(?:SecurityGroupId\.\d+|GroupSet\.\d+\.GroupId)$"))


def _check_tags(asked: Mapping[str, Any]) -> None:
    for specification in asked.get("TagSpecifications", ()):
        for pair in specification.get("Tags", ()):
            if pair["Key"].startswith("aws:"):
                raise AwsError(
                    "InvalidParameterValue",
                    f"Value ( {pair['Key']} ) for parameter key is invalid. Tag keys starting "
                    "with 'aws:' are reserved for internal use",
                )
