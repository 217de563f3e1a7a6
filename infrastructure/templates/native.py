"""AWS's own requests inside a template: ec2FleetConfig, providerApiSpec, launchTemplateSpec.

What has a field of its own in a template (types, weights, subnets, strategies, the launch
template) is taken over into that field, so that machines are counted and pools avoided as in every
other template. The rest is merged over the launch as it is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from typing import Any, NamedTuple

from domain.capacity import (
    CREATE_FLEET,
    CREATE_GROUP,
    INSTANT,
    MAINTAIN,
    ON_DEMAND,
    REQUEST,
    REQUEST_SPOT_FLEET,
    RUN_INSTANCES,
    SPOT,
)
from infrastructure.compiled import file_facts
from infrastructure.templates.aws_shapes import NotAws, conform
from infrastructure.templates.problems import Refused, shown
from infrastructure.templates.values import (
    HEAVIEST,
    ON_DEMAND_STRATEGIES,
    SPOT_STRATEGIES,
    ids,
    money,
    strategy,
)

_SHAPES = {
    RUN_INSTANCES: ("ec2", "RunInstancesRequest"),
    CREATE_FLEET: ("ec2", "CreateFleetRequest"),
    REQUEST_SPOT_FLEET: ("ec2", "SpotFleetRequestConfigData"),
    CREATE_GROUP: ("autoscaling", "CreateAutoScalingGroupType"),
}
_OURS = {
    RUN_INSTANCES: ("MinCount", "MaxCount"),
    CREATE_FLEET: (),
    REQUEST_SPOT_FLEET: ("TargetCapacity", "OnDemandTargetCapacity"),
    CREATE_GROUP: (
        "AutoScalingGroupName",
        "MinSize",
        "MaxSize",
        "DesiredCapacity",
        "NewInstancesProtectedFromScaleIn",
    ),
}
"""What only the ledger can say: it is left out."""
_ALWAYS_OURS = ("ClientToken", "DryRun")
_NOT_TAKEN = {
    "UserData": "give userDataScript: events hold user data by digest only",
    "InstanceMarketOptions": "give priceType",
    "LaunchTemplate": "give launchTemplateId",
    "LaunchTemplateName": "give launchTemplateId",
    "LaunchSpecifications": "give the machine's fields in the template itself",
    "MixedInstancesPolicy.LaunchTemplate": "give launchTemplateId and vmTypes",
    "LaunchConfigurationName": "give launchTemplateId",
    "InstanceId": "give launchTemplateId",
}
_KILLS = {
    "ExcessCapacityTerminationPolicy": ("termination", "Default", "default"),
    "ReplaceUnhealthyInstances": (True,),
    "TerminateInstancesWithExpiration": (True,),
}
"""Values by which AWS would end machines that the ledger counts on."""
_KINDS = (INSTANT, REQUEST, MAINTAIN)
_OVERRIDES = ("InstanceType", "SubnetId", "WeightedCapacity", "Priority", "InstanceRequirements")
_PLACEHOLDER = re.compile(r'"?\$LSF_(TOTAL|ONDEMAND|SPOT)_TARGET_CAPACITY"?')
"""LSF's plug-in puts numbers in their place; here the numbers are not the file's to say."""


class Native(NamedTuple):
    """What an AWS request says: for fields of the template's content, and for the call itself.

    `market` is the one it launches on, "" when it does not say.
    """

    content: dict[str, Any]
    call: dict[str, Any]
    market: str
    notes: list[tuple[str, str]]


def read_object(field: str, given: object, directory: str, files: dict[str, Any]) -> dict[str, Any]:
    """The object that a field is, or that the JSON file it names has. A name is relative to the
    templates file. What is read is added to `files`, with its facts from before. Raises Refused."""
    if isinstance(given, dict):
        return given
    path = os.path.join(directory, str(given))
    files.setdefault(path, file_facts(path))
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
        if "{{" in text or "{%" in text:
            raise Refused(field, f"{path}: placeholders are not filled in; write the values")
        read = json.loads(_PLACEHOLDER.sub("0", text))
    except OSError as error:
        raise Refused(field, f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except (ValueError, RecursionError) as error:
        raise Refused(field, f"{path}: not JSON ({error})") from None
    if not isinstance(read, dict):
        raise Refused(field, f"{path}: not a JSON object")
    return read


def read_launch_template(field: str, given: dict[str, Any]) -> dict[str, Any]:
    """AWS's LaunchTemplateData. Raises Refused."""
    try:
        data = conform("ec2", "RequestLaunchTemplateData", given, field, enums=False)
    except NotAws as error:
        raise Refused(error.where, error.problem) from None
    for name in ("UserData", "InstanceMarketOptions"):
        if name in data:
            raise Refused(f"{field}.{name}", f"is not taken over: {_NOT_TAKEN[name]}")
    return data  # type: ignore[no-any-return]


def read_call(field: str, given: dict[str, Any], api: str) -> Native:
    """The request of an API of `domain.capacity`. Raises Refused."""
    service, shape = _SHAPES[api]
    if api == REQUEST_SPOT_FLEET and len(given) == 1:
        given = next((v for k, v in given.items() if k.lower() == "spotfleetrequestconfig"), given)
    try:
        call: dict[str, Any] = conform(service, shape, given, field, enums=False)
    except NotAws as error:
        raise Refused(error.where, error.problem) from None
    for name, why in _NOT_TAKEN.items():
        outer, _, inner = name.partition(".")
        if inner in call.get(outer, {}) if inner else outer in call:
            raise Refused(f"{field}.{name}", f"is not taken over: {why}")
    for name, killing in _KILLS.items():
        if call.get(name) in killing:
            raise Refused(f"{field}.{name}", "would end machines without the ledger")
    for name in _ALWAYS_OURS:
        call.pop(name, None)
    notes = [
        (f"{field}.{name}", "without effect: it follows from the requests")
        for name in _OURS[api]
        if call.pop(name, None) is not None
    ]
    content: dict[str, Any] = {}
    market = ""
    if "Type" in call:
        content["fleet_type"] = _one(f"{field}.Type", call.pop("Type").lower(), _KINDS)
    if api == CREATE_FLEET:
        market = _capacity(field, call.pop("TargetCapacitySpecification", {}), content)
        _options(field, call, content, notes)
    _configurations(field, call.pop("LaunchTemplateConfigs", []), content, notes)
    if api == REQUEST_SPOT_FLEET and call:
        call = {"SpotFleetRequestConfig": call}
    return Native(content, call, market, notes)


def _capacity(field: str, target: dict[str, Any], content: dict[str, Any]) -> str:
    """The market, and the share on demand where the file fixes both numbers."""
    if "TargetCapacityUnitType" in target:
        raise Refused(
            f"{field}.TargetCapacitySpecification.TargetCapacityUnitType",
            "capacity is counted in units: give weights in vmTypes",
        )
    on_demand = target.get("OnDemandTargetCapacity", 0)
    spot = target.get("SpotTargetCapacity", 0)
    if on_demand and spot:
        content["percent_on_demand"] = round(100 * on_demand / (on_demand + spot))
    if spot or on_demand:
        return SPOT if spot else ON_DEMAND
    return SPOT if target.get("DefaultTargetCapacityType") == "spot" else ON_DEMAND


def _options(
    field: str, call: dict[str, Any], content: dict[str, Any], notes: list[tuple[str, str]]
) -> None:
    for name, into, known, pools in (
        ("SpotOptions", "allocation_strategy", SPOT_STRATEGIES, "pools_count"),
        ("OnDemandOptions", "allocation_strategy_on_demand", ON_DEMAND_STRATEGIES, ""),
    ):
        options = call.get(name, {})
        if "AllocationStrategy" in options:
            where = f"{field}.{name}.AllocationStrategy"
            content[into] = _one(where, str(strategy(options.pop("AllocationStrategy"))), known)
        if pools and "InstancePoolsToUseCount" in options:
            content[pools] = options.pop("InstancePoolsToUseCount")
        if options.pop("MinTargetCapacity", None) is not None:
            notes.append((f"{field}.{name}.MinTargetCapacity", "without effect: see allOrNothing"))
        if not options:
            call.pop(name, None)


def _configurations(
    field: str,
    configurations: list[dict[str, Any]],
    content: dict[str, Any],
    notes: list[tuple[str, str]],
) -> None:
    """Launch template and overrides, as types, weights, subnets and priorities."""
    where = f"{field}.LaunchTemplateConfigs"
    named = "LaunchTemplateSpecification"
    templates = [c[named] for c in configurations if named in c]
    if any(template != templates[0] for template in templates):
        raise Refused(where, "one launch template is taken; make a template of each")
    if templates:
        content["launch_template"] = _launch_template(where, templates[0])
    overrides = [o for c in configurations for o in c.get("Overrides", ())]
    seen: set[tuple[str, str]] = set()
    prices: set[str | None] = set()
    for override in overrides:
        price = override.pop("MaxPrice", override.pop("SpotPrice", None))
        prices.add(None if price is None else _price(where, price))
        for key in override:
            if key not in _OVERRIDES:
                raise Refused(f"{where}.Overrides.{key}", "cannot differ within a template")
        _override(where, override, content, seen)
    if len(prices) > 1:
        raise Refused(f"{where}.Overrides.MaxPrice", "cannot differ within a template")
    price = next(iter(prices), None)
    if price:
        content["max_spot_price"] = price
    types, subnets = content.get("vm_types", {}), content.get("subnet_ids", [])
    if "abis" in content and (types or len(overrides) > max(1, len(subnets))):
        raise Refused(f"{where}.Overrides.InstanceRequirements", "there can be only one")
    if types and subnets and len(seen) < len(types) * len(subnets):
        notes.append((f"{where}.Overrides", "each instance type is tried in each subnet"))


def _one(where: str, word: str, known: Collection[str]) -> str:
    if word not in known:
        raise Refused(where, f"one of {', '.join(known)} is needed, not {shown(word)}")
    return word


def _price(where: str, price: str) -> str | None:
    try:
        return money(price)
    except ValueError as error:
        raise Refused(f"{where}.Overrides.MaxPrice", f"{error}, not {shown(price)}") from None


def _launch_template(where: str, given: dict[str, Any]) -> dict[str, str]:
    if "LaunchTemplateId" not in given:
        raise Refused(
            f"{where}.LaunchTemplateSpecification.LaunchTemplateId", "is required (a name is not)"
        )
    return {"id": given["LaunchTemplateId"], "version": given.get("Version", "$Default")}


def _override(
    where: str, override: dict[str, Any], content: dict[str, Any], seen: set[tuple[str, str]]
) -> None:
    subnets = ids(override.get("SubnetId", ""))
    known = content.setdefault("subnet_ids", [])
    known += [subnet for subnet in subnets if subnet not in known]
    if not known:
        del content["subnet_ids"]
    if "InstanceRequirements" in override:
        if (
            content.setdefault("abis", override["InstanceRequirements"])
            != override["InstanceRequirements"]
        ):
            raise Refused(f"{where}.Overrides.InstanceRequirements", "there can be only one")
        return
    name = override.get("InstanceType")
    if name is None:
        return
    weight = override.get("WeightedCapacity", 1)
    if not 1 <= weight <= HEAVIEST or weight != int(weight):
        problem = f"whole weights from 1 to {HEAVIEST} are taken, not {weight}"
        raise Refused(f"{where}.Overrides.WeightedCapacity", problem)
    if content.setdefault("vm_types", {}).setdefault(name, int(weight)) != weight:
        raise Refused(f"{where}.Overrides.WeightedCapacity", f"{name} has two weights")
    if "Priority" in override:
        content.setdefault("vm_types_priority", {})[name] = override["Priority"]
    seen.update((name, subnet) for subnet in subnets or [""])
