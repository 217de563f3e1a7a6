"""What the fields of a template must be to each other: what cannot work, and what does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from domain.capacity import (
    CREATE_FLEET,
    CREATE_GROUP,
    HETEROGENEOUS,
    INSTANT,
    MAINTAIN,
    ON_DEMAND,
    REQUEST_SPOT_FLEET,
    RUN_INSTANCES,
    fleet_type,
    launch_api,
    price_type,
)
from infrastructure.templates.attributes import weights_of

MOST_OVERRIDES = 300
"""Overrides of a CreateFleet of type request or maintain
(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html)."""

Problem = tuple[str, str]


def refusals(content: dict[str, Any], given: Mapping[str, Any]) -> Iterator[Problem]:
    """Each field, by its name in the file, with why the template cannot be launched as it is."""
    yield from _missing(content)
    yield from _launching(content, given)
    yield from _all_or_nothing(content)
    yield from _machine(content, given)


def _missing(content: dict[str, Any]) -> Iterator[Problem]:
    """What a launch needs, unless the site's launch template may have it."""
    native = content.get("native", {}).get("launch_template", {})
    own = "launch_template" in content
    images = content.keys() & {"image_id", "image_parameter"}
    if not own and not images and "ImageId" not in native:
        yield "imageId", "is required (or a launchTemplateId that has it)"
    if "subnet_ids" not in content and (not own or launch_api(content) == CREATE_GROUP):
        rest = "" if own else " (or a launchTemplateId that has it)"
        yield "subnetId", f"is required{rest}"
    if price_type(content) == ON_DEMAND:
        types = bool(weights_of(content))
    else:
        types = "vm_type" in content or "vm_types" in content
    if not own and not types and "abis" not in content and "InstanceType" not in native:
        if price_type(content) != ON_DEMAND and "vm_types_on_demand" in content:
            yield "vmTypes", "is required: vmTypesOnDemand are not tried on spot"
        else:
            yield "vmType", "is required (or vmTypes, or a launchTemplateId that has it)"


def _launching(content: dict[str, Any], given: Mapping[str, Any]) -> Iterator[Problem]:
    """Where the API, its kind of fleet and the market do not go together."""
    api, kind, fleet = launch_api(content), price_type(content), fleet_type(content)
    if api == RUN_INSTANCES:
        if content.get("percent_on_demand"):
            yield "percentOnDemand", "needs a fleet: RunInstances launches on one market at a time"
        if "abis" in content:
            yield (
                "abisInstanceRequirements",
                "needs a fleet or an Auto Scaling group: RunInstances takes one instance type",
            )
        if "fleet_type" in content:
            yield "fleetType", "needs providerApi EC2Fleet or SpotFleet, not RunInstances"
    if api == REQUEST_SPOT_FLEET:
        if "fleet_role" not in content:
            yield "fleetRole", "is required with providerApi SpotFleet"
        if fleet == INSTANT:
            yield "fleetType", "a Spot Fleet is of type request or maintain, not instant"
    if api == CREATE_GROUP:
        if kind == HETEROGENEOUS:
            yield (
                "priceType",
                "an Auto Scaling group goes on asking for spot machines and leaves nothing to be "
                "launched on demand; give spot and percentOnDemand, or another providerApi",
            )
        if content.get("fleet_type", MAINTAIN) != MAINTAIN:
            yield "fleetType", "an Auto Scaling group always maintains its capacity"
        if content.get("allocation_strategy") == "diversified":
            yield "allocationStrategy", "Auto Scaling groups have no strategy diversified"
    if content.get("pools_count") and content.get("allocation_strategy") != "lowest-price":
        yield "poolsCount", "needs allocationStrategy lowestPrice"
    types = weights_of(content)
    unknown = [name for name in content.get("vm_types_priority", {}) if name not in types]
    if unknown:
        yield "vmTypesPriority", f"{', '.join(unknown)} is none of the template's instance types"
    pools = max(1, len(types)) * len(content.get("subnet_ids", "*"))
    if api == CREATE_FLEET and fleet != INSTANT and pools > MOST_OVERRIDES:
        yield (
            "vmTypes",
            f"{pools} pairs of instance type and subnet are more than the {MOST_OVERRIDES} that "
            f"a fleet of type {fleet} takes",
        )
    if kind != ON_DEMAND and float(given.get("durationInHours", 0) or 0):
        yield (
            "durationInHours",
            "AWS has ended Spot Instances of a defined duration; take the field out",
        )


def _all_or_nothing(content: dict[str, Any]) -> Iterator[Problem]:
    if not content.get("all_or_nothing"):
        return
    api, fleet = launch_api(content), fleet_type(content)
    if api == CREATE_GROUP:
        yield "allOrNothing", "an Auto Scaling group launches machine by machine"
    elif api != RUN_INSTANCES and fleet != INSTANT:
        yield "allOrNothing", f"a fleet of type {fleet} launches machine by machine; use instant"
    elif price_type(content) == HETEROGENEOUS:
        yield "allOrNothing", "a heterogeneous template makes up on demand what spot did not give"
    elif content.get("percent_on_demand"):
        yield "allOrNothing", "cannot be kept on two markets at once; take percentOnDemand out"
    elif api == CREATE_FLEET:
        several = len(weights_of(content)) > 1 or "abis" in content
        if several or len(content.get("subnet_ids", ())) > 1:
            yield (
                "allOrNothing",
                "an instant fleet keeps it only with one instance type in one subnet",
            )


def _machine(content: dict[str, Any], given: Mapping[str, Any]) -> Iterator[Problem]:
    """Where fields of the machine itself rule each other out."""
    placement = content.get("placement", {})
    spot = price_type(content) != ON_DEMAND
    if spot and content.get("tenancy") == "host":
        yield "tenancy", "spot machines cannot run on Dedicated Hosts"
    if spot and content.get("capacity_reservation", {}).keys() & {"id", "resource_group_arn"}:
        yield "capacityReservation", "spot machines cannot use a Capacity Reservation"
    if "partition_number" in placement and "placement_group" not in content:
        yield "placement.partitionNumber", "needs placementGroupName"
    if content.get("tenancy") != "host":
        for key, field in (
            ("host_id", "hostId"),
            ("host_resource_group_arn", "hostResourceGroupArn"),
            ("affinity", "affinity"),
        ):
            if key in placement:
                yield f"placement.{field}", "needs tenancy host"
    if "efa_count" in content and content.get("interface_type") != "efa":
        yield "efaCount", "needs interfaceType efa"
    given_interfaces = content.get("network_interfaces", ())
    if "efa_count" in content and given_interfaces:
        yield "efaCount", "give this or networkInterfaces, not both"
    interfaces = max(len(given_interfaces), content.get("efa_count", 1))
    if content.get("associate_public_ip") and interfaces > 1:
        yield (
            "associatePublicIpAddress",
            "AWS gives no public address to a machine of several interfaces",
        )


# --- what does nothing ------------------------------------------------------------------------


def idle(content: dict[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The fields of the file, by name, that change nothing in this template."""
    api, kind = launch_api(content), price_type(content)
    spot = kind != ON_DEMAND
    fleet = api != RUN_INSTANCES
    useful = {
        "fleetRole": api == REQUEST_SPOT_FLEET,
        "spotPrice": spot,
        "maxSpotPrice": spot,
        "spotFleetRequestExpiry": spot and "fulfilmentDeadline" not in given,
        "allocationStrategy": spot and fleet,
        "allocationStrategyOnDemand": fleet,
        "percentOnDemand": spot,
        "onDemandTargetCapacityRatio": spot,
        "poolsCount": spot and fleet,
        "requestValidity": spot
        and not {"fulfilmentDeadline", "spotFleetRequestExpiry"} & given.keys(),
        "durationInHours": False,
        "vmTypesOnDemand": kind != "spot",
        "launchTemplateVersion": "launchTemplateId" in given,
        "priority": False,
        "ttl": False,
    }
    return [name for name, has_effect in useful.items() if name in given and not has_effect]
