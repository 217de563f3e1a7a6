"""Example templates for a site's own instance types, subnets and image, as IBM's file has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from infrastructure.templates.attributes import Facts, complete
from infrastructure.templates.values import HEAVIEST

APIS = ("RunInstances", "EC2Fleet", "SpotFleet", "ASG")


class Wanted(NamedTuple):
    """What the examples are made of; `fleet_role` may be "" where no Spot Fleet is asked for."""

    types: Sequence[str]
    subnets: Sequence[str]
    image: str
    security_groups: Sequence[str] = ()
    fleet_role: str = ""
    max_number: int = 10


def example(api: str, wanted: Wanted, facts: Facts) -> dict[str, Any]:
    """A template for one of APIS whose attributes are true. The facts must have its types.

    Several types weigh what they have of the smallest one's vCPUs; such a template counts units.
    """
    template: dict[str, Any] = {
        "templateId": f"{'OnDemand' if api in ('RunInstances', 'ASG') else 'Spot'}-{api}",
        "maxNumber": wanted.max_number,
    }
    types = list(dict.fromkeys(wanted.types))
    least = min(facts[name]["vcpus"] for name in types)
    weights = {name: min(HEAVIEST, facts[name]["vcpus"] // least) for name in types}
    content: dict[str, Any] = {"vm_types": weights}
    attributes, _ = complete({}, content, facts)
    template |= {"attributes": attributes, "imageId": wanted.image}
    template["subnetId"] = ",".join(wanted.subnets)
    template |= {"vmType": types[0]} if len(types) == 1 else {"vmTypes": weights}
    if wanted.security_groups:
        template["securityGroupIds"] = list(wanted.security_groups)
    return template | _launching(api, wanted)


def _launching(api: str, wanted: Wanted) -> dict[str, Any]:
    spot = {"priceType": "spot", "allocationStrategy": "priceCapacityOptimized"}
    match api:
        case "RunInstances":
            return {"priceType": "ondemand", "providerApi": api}
        case "EC2Fleet":
            return {**spot, "providerApi": api, "fleetType": "instant"}
        case "SpotFleet":
            fleet = {"fleetType": "request", "fleetRole": wanted.fleet_role}
            return {**spot, "providerApi": api, **fleet}
    return {"priceType": "ondemand", "providerApi": api}
