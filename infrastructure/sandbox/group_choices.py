"""What a group may launch and where, as CreateAutoScalingGroup and its update say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .launch_templates import LaunchTemplates
from .region import Region
from .requirements import matching
from .scaling import Choice, Mix
from .wire import AwsError

# API_LaunchTemplateOverrides.html
_OVERRIDES_MAX = 40
# With how many types attribute-based selection may end here; AWS takes all.
_SELECTED_MAX = 40


def subnets_of(region: Region, asked: Mapping[str, Any]) -> list[str]:
    """The subnets of VPCZoneIdentifier, or the first in each of the zones named."""
    if text := asked.get("VPCZoneIdentifier"):
        subnets = [subnet.strip() for subnet in text.split(",")]
        try:
            region.know_subnets(subnets)
        except AwsError as error:
            raise AwsError("ValidationError", error.message) from error
        return subnets
    if zones := asked.get("AvailabilityZones"):
        return [region.subnet_for(zone) for zone in zones]
    raise AwsError(
        "ValidationError",
        "At least one Availability Zone or VPC Subnet is required.",
    )


def choices_of(
    templates: LaunchTemplates, asked: Mapping[str, Any]
) -> tuple[list[Choice], Mix | None]:
    """The ways to launch, in the order of the overrides."""
    template, policy = asked.get("LaunchTemplate"), asked.get("MixedInstancesPolicy")
    if (template is None) == (policy is None):
        raise AwsError(
            "ValidationError",
            "Valid requests must contain either LaunchTemplate or MixedInstancesPolicy.",
        )
    if template is not None:
        _check_template(templates, template)
        return [Choice(template)], None
    assert policy is not None
    base = policy.get("LaunchTemplate", {}).get("LaunchTemplateSpecification", {})
    data = _check_template(templates, base)
    # "Incompatible launch template": a policy's templates must not ask for a market.
    if "InstanceMarketOptions" in data:
        raise AwsError(
            "ValidationError",
            "Incompatible launch template: You cannot use a launch template that requests "
            "Spot Instances with a mixed instances policy.",
        )
    overrides = policy.get("LaunchTemplate", {}).get("Overrides", [])
    if len(overrides) > _OVERRIDES_MAX:
        raise AwsError("ValidationError", f"At most {_OVERRIDES_MAX} overrides.")
    # "... you must specify a value for WeightedCapacity for all of them"
    if len({"WeightedCapacity" in one for one in overrides}) > 1:
        raise AwsError("ValidationError", "Give all overrides a WeightedCapacity, or none.")
    choices: list[Choice] = []
    for one in overrides:
        choices += _of_override(templates, one, base)
    told = policy.get("InstancesDistribution", {})
    mix = Mix(
        told.get("OnDemandBaseCapacity", 0),
        told.get("OnDemandPercentageAboveBaseCapacity", 100),
    )
    return choices or [Choice(base)], mix


def _of_override(
    templates: LaunchTemplates, one: Mapping[str, Any], base: Mapping[str, str]
) -> list[Choice]:
    template = one.get("LaunchTemplateSpecification", base)
    _check_template(templates, template)
    image = one.get("ImageId")
    weight = int(one.get("WeightedCapacity", 1))
    if not 1 <= weight <= 999:
        raise AwsError("ValidationError", "A WeightedCapacity is from 1 to 999.")
    if "InstanceRequirements" in one:
        names = matching(one["InstanceRequirements"])[:_SELECTED_MAX]
        return [Choice(template, name, image) for name in names]
    weighted = "WeightedCapacity" in one
    return [Choice(template, one.get("InstanceType"), image, weight, weighted)]


def _check_template(templates: LaunchTemplates, template: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        return templates.version(template)[1].data
    except AwsError as error:
        raise AwsError(
            "ValidationError",
            f"You must use a valid fully-formed launch template. {error.message}",
        ) from error
