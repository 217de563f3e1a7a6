"""What a fleet may launch: the overrides of its launch templates, and how many of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import launching
from .capacity import SPOT, Capacity, Pool
from .launch_templates import LaunchTemplates
from .region import Region
from .requirements import matching
from .wire import AwsError

# Members of an override that replace the launch template's.
_REPLACES = ("BlockDeviceMappings", "IamInstanceProfile", "ImageId", "KeyName", "MetadataOptions")
_LAST = math.inf


@dataclass(frozen=True, eq=False)
class Offer:
    """One override of one launch template, of one type and subnet.

    `asked` are RunInstances' parameters but for the market, `answered` is the
    LaunchTemplateAndOverrides of answers.
    """

    asked: Mapping[str, Any]
    answered: Mapping[str, Any]
    weight: float = 1.0
    priority: float = _LAST
    max_price: str | None = None

    def on(self, market: str) -> dict[str, Any]:
        """RunInstances' parameters in a market."""
        asked = {name: v for name, v in self.asked.items() if name != "InstanceMarketOptions"}
        if market == SPOT:
            options = {"SpotInstanceType": "one-time"}
            if self.max_price is not None:
                options["MaxPrice"] = self.max_price
            asked["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
        return asked


@dataclass(frozen=True, eq=False)
class Launch:
    """So many machines of an offer, by prepared parameters."""

    offer: Offer
    asked: Mapping[str, Any]
    pool: Pool
    count: int

    @property
    def units(self) -> float:
        """The units they count."""
        return self.count * self.offer.weight


@dataclass(eq=False)
class Plan:
    """What to launch, and why there is no more of what else was tried."""

    launches: list[Launch] = field(default_factory=list)
    errors: list[tuple[Offer, AwsError]] = field(default_factory=list)

    @property
    def units(self) -> float:
        """The units of all its machines."""
        return sum(launch.units for launch in self.launches)

    @property
    def machines(self) -> int:
        """How many machines it launches."""
        return sum(launch.count for launch in self.launches)


def offers_of(templates: LaunchTemplates, configs: Sequence[Mapping[str, Any]]) -> list[Offer]:
    """All offers of LaunchTemplateConfigs, in their order.

    Raises AwsError for a launch template or version that is not there.
    """
    found = []
    for config in configs:
        specification = config.get("LaunchTemplateSpecification", {})
        base = templates.merged({"LaunchTemplate": specification})
        if (data := specification.get("LaunchTemplateSpecificationUserData")) is not None:
            base["UserData"] = data
        concrete = base["LaunchTemplate"]
        # An answer names the template by its id and its version as the request says it.
        said = {
            "LaunchTemplateId": concrete["LaunchTemplateId"],
            "Version": specification.get("Version", concrete["Version"]),
        }
        for override in config.get("Overrides") or [{}]:
            found += override_offers(base, said, override)
    return found


def override_offers(
    base: Mapping[str, Any], said: Mapping[str, Any], override: Mapping[str, Any]
) -> list[Offer]:
    """The offers of one override over launch parameters: one for each type and subnet.

    `said` is how answers name the launch template.
    """
    requirements = override.get("InstanceRequirements")
    if requirements is None and "InstanceType" not in {**override, **base}:
        requirements = base.get("InstanceRequirements")
    types = [override.get("InstanceType")] if requirements is None else matching(requirements)
    if not types:
        raise AwsError("InvalidParameterValue", "No instance type meets the InstanceRequirements.")
    subnets = [text.strip() for text in override.get("SubnetId", "").split(",")]
    found = []
    for instance_type in types:
        for subnet in subnets:
            asked = dict(base) | {name: override[name] for name in _REPLACES if name in override}
            answered = dict(override)
            if instance_type:
                asked["InstanceType"] = answered["InstanceType"] = instance_type
            placement = dict(asked.get("Placement", {})) | override.get("Placement", {})
            if zone := override.get("AvailabilityZone"):
                placement["AvailabilityZone"] = zone
            if placement:
                asked["Placement"] = placement
            if subnet:
                answered["SubnetId"] = subnet
                if interfaces := asked.get("NetworkInterfaces"):
                    asked["NetworkInterfaces"] = launching.in_subnet(interfaces, subnet)
                else:
                    asked["SubnetId"] = subnet
            found.append(
                Offer(
                    asked,
                    {"LaunchTemplateSpecification": said, "Overrides": answered},
                    override.get("WeightedCapacity", 1.0),
                    override.get("Priority", _LAST),
                    override.get("MaxPrice", override.get("SpotPrice")),
                )
            )
    return found


def check_pools(region: Region, offers: Sequence[Offer], code: str) -> None:
    """Refuse a type that is offered twice in a zone.

    "A fleet request can't span different subnets from the same Availability Zone" (EC2 User
    Guide, EC2 Fleet limitations); code and words as in
    https://github.com/github-aws-runners/terraform-aws-github-runner/issues/2904.
    """
    seen = set()
    for offer in offers:
        subnet = launching.subnet_of(offer.asked)
        zone = offer.asked.get("Placement", {}).get("AvailabilityZone")
        if subnet:
            region.know_subnets([subnet])
            zone = region.get_subnet(subnet).availability_zone
        if (here := (offer.asked.get("InstanceType"), zone)) in seen:
            raise AwsError(code, "The fleet configuration contains duplicate instance pools.")
        seen.add(here)


def plan(
    region: Region,
    offers: Sequence[Offer],
    market: str,
    units: float,
    capacity: Capacity,
    options: Mapping[str, Any],
) -> Plan:
    """How to launch `units` of a market as an allocation strategy says; takes the capacity.

    There are no prices here: lowest-price and the capacity-optimized strategies take the offers
    in their order, those with a priority first where the strategy is by priority. At most one
    machine's weight less one unit more than asked is launched.
    """
    strategy = str(options.get("AllocationStrategy", "")).replace("-", "").lower()
    ordered = list(offers)
    if strategy in ("prioritized", "capacityoptimizedprioritized"):
        ordered.sort(key=lambda offer: offer.priority)
    zone, kind = options.get("SingleAvailabilityZone"), options.get("SingleInstanceType")
    if not (zone or kind):
        least = options.get("MinTargetCapacity", 0)
        trial = capacity.trial()
        found = _plan(region, ordered, market, units, trial, strategy, options)
        if found.units < least:
            return Plan([], found.errors)
        return _taken(found, capacity)
    best: Plan | None = None
    errors: list[tuple[Offer, AwsError]] = []
    for group in _groups(region, ordered, market, bool(zone), bool(kind)):
        found = _plan(region, group, market, units, capacity.trial(), strategy, options)
        errors += found.errors
        if best is None or found.units > best.units:
            best = found
        if best.units >= units:
            break
    if best is None or best.units < options.get("MinTargetCapacity", 0):
        return Plan([], errors)
    return _taken(Plan(best.launches, errors), capacity)


def _taken(found: Plan, capacity: Capacity) -> Plan:
    for launch in found.launches:
        capacity.take(launch.pool, launch.count)
    return found


def _groups(
    region: Region, offers: Sequence[Offer], market: str, by_zone: bool, by_type: bool
) -> list[list[Offer]]:
    """The offers of one zone, or of one type, or of both; each group in the offers' order."""
    found: dict[tuple[str, str], list[Offer]] = {}
    for offer in offers:
        try:
            here = launching.pool(launching.prepared(region, offer.on(market)))
        except AwsError:
            continue
        zone = region.get_subnet(here.subnet).availability_zone if by_zone else ""
        found.setdefault((zone, here.instance_type if by_type else ""), []).append(offer)
    return list(found.values())


def _plan(
    region: Region,
    offers: Sequence[Offer],
    market: str,
    units: float,
    capacity: Capacity,
    strategy: str,
    options: Mapping[str, Any],
) -> Plan:
    found = Plan()
    spread = len(offers) if strategy == "diversified" else options.get("InstancePoolsToUseCount", 1)
    if spread > 1:
        tried, rest = offers[:spread], offers[spread:]
        left = _evenly(region, tried, market, units, capacity, found)
    else:
        left, rest = units, offers
    for offer in rest:
        if left <= 0:
            break
        left -= _some(region, offer, market, math.ceil(left / offer.weight), capacity, found)
    return found


def _some(
    region: Region, offer: Offer, market: str, count: int, capacity: Capacity, found: Plan
) -> float:
    """Plan up to `count` machines of an offer; the units planned."""
    try:
        asked = launching.prepared(region, offer.on(market))
    except AwsError as error:
        found.errors.append((offer, error))
        return 0.0
    here = launching.pool(asked)
    room = capacity.room(here)
    if room is not None and room.left < count:
        found.errors.append((offer, capacity.error(here, room.code)))
        count = room.left
    if count == 0:
        return 0.0
    capacity.take(here, count)
    found.launches.append(Launch(offer, asked, here, count))
    return count * offer.weight


def _evenly(
    region: Region,
    offers: Sequence[Offer],
    market: str,
    units: float,
    capacity: Capacity,
    found: Plan,
) -> float:
    """Plan one machine of each offer in turn until the units are reached; the units left."""
    counts: dict[int, int] = {}
    prepared: dict[int, tuple[Mapping[str, Any], Pool]] = {}
    for index, offer in enumerate(offers):
        try:
            asked = launching.prepared(region, offer.on(market))
        except AwsError as error:
            found.errors.append((offer, error))
            continue
        prepared[index] = asked, launching.pool(asked)
    active = list(prepared)
    left = units
    while active and left > 0:
        for index in list(active):
            if left <= 0:
                break
            here = prepared[index][1]
            room = capacity.room(here)
            if room is not None and room.left < 1:
                found.errors.append((offers[index], capacity.error(here, room.code)))
                active.remove(index)
                continue
            capacity.take(here, 1)
            counts[index] = counts.get(index, 0) + 1
            left -= offers[index].weight
    for index, count in counts.items():
        found.launches.append(Launch(offers[index], *prepared[index], count))
    return left
