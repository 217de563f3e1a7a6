"""The exact RunInstances call for a template, a pool and a number of machines."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from application.ports import CallFailed
from domain.capacity import ANY, SPOT, Pool, machines_for
from infrastructure.aws import machine_data, native, tags, user_data
from infrastructure.aws.resolving import SiteTemplate

PROTECTED = ("MinCount", "MaxCount", "LaunchTemplate")


def payload(
    content: dict[str, Any],
    pool: Pool,
    units: int,
    tags_of_launch: dict[str, str],
    body: bytes | None,
    image_id: str,
    root_device: str,
    site: SiteTemplate | None,
) -> tuple[dict[str, Any], bytes | None]:
    """The parameters of RunInstances but for the token, and the body of the user data.

    A template that leaves much open gives a payload that is the same byte for byte in every
    release: a call that was rejected is known again by it. `site` is the site's own launch
    template. Raises CallFailed.
    """
    count = machines_for(units, pool.units)
    result: dict[str, Any] = {}
    if site is not None:
        result["LaunchTemplate"] = {**site.named, "Version": str(site.version)}
    if image_id:
        result["ImageId"] = image_id
    if pool.instance_type != ANY:
        result["InstanceType"] = pool.instance_type
    # Fewer machines are better than none, and the rest is topped up from another pool.
    result["MinCount"] = count if content.get("all_or_nothing") else 1
    result["MaxCount"] = count
    subnet_id = "" if pool.subnet_id == ANY else pool.subnet_id
    described = machine_data.machine_data(content, root_device)
    interfaces = site.data.get("NetworkInterfaces", []) if site is not None else []
    if not subnet_id and "SecurityGroupIds" not in described:
        interfaces = []  # what the site's launch template says stands as it is
    placed = machine_data.with_interfaces(described, content, interfaces, subnet_id)
    if "SubnetId" in placed:
        result["SubnetId"] = placed.pop("SubnetId")
    result |= placed
    if body is not None:
        result["UserData"] = user_data.named(body)
    if pool.market == SPOT:
        result["InstanceMarketOptions"] = _spot(content, pool)
    kinds = ["instance", "volume"]
    if pool.market == SPOT:
        kinds.append("spot-instances-request")
    if "NetworkInterfaces" in result and machine_data.makes_interfaces(result):
        kinds.append("network-interface")
    result["TagSpecifications"] = tags.specifications(
        kinds, tags.launch_tags(content, tags_of_launch)
    )
    wanted = content.get("native", {})
    # The names of LaunchTemplateData are those of RunInstances.
    for part in ("launch_template", "api"):
        protected = (*PROTECTED, "InstanceMarketOptions") if pool.market == SPOT else PROTECTED
        result = native.over(result, wanted.get(part), protected)
    market = result.get("InstanceMarketOptions", {}).get("MarketType")
    if pool.market != SPOT and market == "spot":
        raise CallFailed(
            "refused", "NativeMarket", "a template of priceType ondemand asks for spot"
        )
    return result, user_data.set_aside(result) or body


def _spot(content: dict[str, Any], pool: Pool) -> dict[str, Any]:
    """One time, and terminated when AWS takes it back. A template's price is for a unit,
    RunInstances' for a machine."""
    options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    if content.get("max_spot_price"):
        options["MaxPrice"] = str(Decimal(str(content["max_spot_price"])) * pool.units)
    return {"MarketType": "spot", "SpotOptions": options}
