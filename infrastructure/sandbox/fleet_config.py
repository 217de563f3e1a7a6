"""What CreateFleet and ModifyFleet may be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .capacity import ON_DEMAND, SPOT
from .fleet import INSTANT, MAINTAIN, REQUEST, Target
from .wire import AwsError

# API_CreateFleet.html, LaunchTemplateConfigs and Overrides.
_CONFIGS_MAX, _OVERRIDES_MAX = 50, 300
# CreateFleet, TagSpecifications: what each type of fleet may tag.
_TAGGED = {
    INSTANT: {"fleet", "instance", "volume", "network-interface"},
    REQUEST: {"fleet"},
    MAINTAIN: {"fleet"},
}


def check(asked: Mapping[str, Any], kind: str) -> None:
    """Refuse what CreateFleet does not take (API_CreateFleet.html); the codes are from memory."""
    for name in ("LaunchTemplateConfigs", "TargetCapacitySpecification"):
        if not asked.get(name):
            raise AwsError("MissingParameter", f"The request must contain the parameter {name}")
    configs = asked["LaunchTemplateConfigs"]
    overrides = [one for config in configs for one in config.get("Overrides", ())]
    if kind not in _TAGGED:
        raise AwsError("InvalidParameterValue", f"'{kind}' is not a valid fleet type")
    if len(configs) > _CONFIGS_MAX:
        raise AwsError("InvalidParameterValue", f"At most {_CONFIGS_MAX} LaunchTemplateConfigs")
    if kind != INSTANT and len(overrides) > _OVERRIDES_MAX:
        raise AwsError("InvalidParameterValue", f"At most {_OVERRIDES_MAX} overrides")
    for config in configs:
        if "Version" not in config.get("LaunchTemplateSpecification", {}):
            raise AwsError(
                "MissingParameter", "LaunchTemplateSpecification must have the parameter Version"
            )
    for override in overrides:
        _check_override(override, kind)
    for specification in asked.get("TagSpecifications", ()):
        resource = specification.get("ResourceType", "")
        if resource not in _TAGGED[kind]:
            raise AwsError(
                "InvalidTagKey.Malformed" if not resource else "InvalidParameterValue",
                f"'{resource}' is not a valid taggable resource type for a fleet of type {kind}.",
            )
    spot, on_demand = asked.get("SpotOptions", {}), asked.get("OnDemandOptions", {})
    for options in (spot, on_demand):
        single = options.get("SingleInstanceType") or options.get("SingleAvailabilityZone")
        if kind != INSTANT and (single or "MinTargetCapacity" in options):
            raise AwsError(
                "InvalidParameterCombination",
                "SingleInstanceType, SingleAvailabilityZone and MinTargetCapacity are supported "
                "only for fleets of type instant.",
            )
        if "MinTargetCapacity" in options and not single:
            raise AwsError(
                "InvalidParameterCombination",
                "MinTargetCapacity needs SingleInstanceType or SingleAvailabilityZone.",
            )
    if (
        "InstancePoolsToUseCount" in spot
        and spot.get("AllocationStrategy", "lowest-price") != "lowest-price"
    ):
        raise AwsError(
            "InvalidParameterCombination",
            "InstancePoolsToUseCount is supported only with the allocation strategy lowest-price.",
        )
    if kind != MAINTAIN and "ExcessCapacityTerminationPolicy" in asked:
        raise AwsError(
            "InvalidParameterCombination",
            "ExcessCapacityTerminationPolicy is supported only for fleets of type maintain.",
        )


def _check_override(override: Mapping[str, Any], kind: str) -> None:
    if "InstanceType" in override and "InstanceRequirements" in override:
        raise AwsError(
            "InvalidParameterCombination",
            "Specify InstanceType or InstanceRequirements in an override, not both.",
        )
    if kind == INSTANT and "," in override.get("SubnetId", ""):
        raise AwsError(
            "InvalidParameterValue", "A fleet of type instant can have only one subnet an override."
        )
    if kind != INSTANT and "BlockDeviceMappings" in override:
        raise AwsError(
            "InvalidParameterCombination",
            "BlockDeviceMappings are supported only for fleets of type instant.",
        )
    # CreateFleet, WeightedCapacity: 1 to 999 (ec2-fleet-instance-weighting.html; from memory).
    if not 1 <= override.get("WeightedCapacity", 1) <= 999:
        raise AwsError("InvalidParameterValue", "WeightedCapacity is between 1 and 999.")
    if float(override.get("MaxPrice", 1)) <= 0.001:
        raise AwsError("InvalidParameterValue", "MaxPrice must be more than 0.001.")


def modified_target(told: Mapping[str, Any], before: Target) -> Target:
    """A modified target, of which only the default type changes where it says no more.

    "When you increase the total target capacity, the EC2 Fleet launches the additional instances
    according to the instance purchasing option specified for DefaultTargetCapacityType"
    (modify-ec2-fleet.html); that a decrease does likewise is from memory.
    """
    if "SpotTargetCapacity" not in told and "OnDemandTargetCapacity" not in told:
        name, kept = "SpotTargetCapacity", before.spot
        if told["DefaultTargetCapacityType"] == SPOT:
            name, kept = "OnDemandTargetCapacity", before.on_demand
        told = {**told, name: min(int(kept), told.get("TotalTargetCapacity", 0))}
    return target_of(told)


def target_of(told: Mapping[str, Any]) -> Target:
    """The units of each market (API_TargetCapacitySpecificationRequest.html).

    What the total has beyond the two is of the default type. Raises AwsError (codes from memory).
    """
    total = told.get("TotalTargetCapacity")
    if total is None or total < 0:
        raise AwsError("InvalidTargetCapacitySpecification", "TotalTargetCapacity must be given.")
    on_demand, spot = told.get("OnDemandTargetCapacity"), told.get("SpotTargetCapacity")
    rest = total - (on_demand or 0) - (spot or 0)
    default = told.get("DefaultTargetCapacityType")
    if rest < 0 or (rest > 0 and default not in (ON_DEMAND, SPOT)):
        raise AwsError(
            "InvalidTargetCapacitySpecification",
            "OnDemandTargetCapacity and SpotTargetCapacity must add up to TotalTargetCapacity, "
            "or DefaultTargetCapacityType must say what the rest is.",
        )
    if default == SPOT:
        spot = (spot or 0) + rest
    else:
        on_demand = (on_demand or 0) + rest
    return Target(float(on_demand or 0), float(spot or 0))
