"""What EC2 Fleet, Spot Fleet and Auto Scaling have in common: overrides, weights, shares, reasons.

Their pools are the overrides of one launch template; an override is for both markets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from application.ports import CallFailed, Shortage
from domain.capacity import ANY, ON_DEMAND, SPOT, Pool
from infrastructure.aws.errors import shortage_kind

LIFECYCLES = {"spot": SPOT, "on-demand": ON_DEMAND}
"""AWS's word for a market -> ours."""


def distinct(pools: Sequence[Pool]) -> list[Pool]:
    """The pools with each type and subnet once: AWS refuses an override that is there twice.
    Raises CallFailed when they give a type two weights."""
    found: dict[tuple[str, str], Pool] = {}
    weights: dict[str, int] = {}
    for pool in pools:
        if weights.setdefault(pool.instance_type, pool.units) != pool.units:
            raise CallFailed(
                "refused",
                "TwoWeights",
                f"{pool.instance_type} has other weights on demand and spot: a fleet knows one",
            )
        found.setdefault((pool.instance_type, pool.subnet_id), pool)
    return list(found.values())


def overrides(
    content: dict[str, Any],
    pools: Sequence[Pool],
    price_key: str = "",
    weight_of: Callable[[int], Any] = int,
) -> list[dict[str, Any]]:
    """One for each type and subnet; none where the launch template says it all. `price_key` is the
    member that takes the highest price per unit hour."""
    there = distinct(pools)
    is_weighted = any(pool.units != 1 for pool in there)
    priorities = content.get("vm_types_priority", {})
    result = []
    for pool in there:
        override: dict[str, Any] = {}
        if "abis" in content:
            override["InstanceRequirements"] = content["abis"]
        elif pool.instance_type != ANY:
            override["InstanceType"] = pool.instance_type
        if pool.subnet_id != ANY:
            override["SubnetId"] = pool.subnet_id
        if is_weighted:
            override["WeightedCapacity"] = weight_of(pool.units)
        if pool.instance_type in priorities:
            override["Priority"] = priorities[pool.instance_type]
        if price_key and content.get("max_spot_price"):
            override[price_key] = str(content["max_spot_price"])
        if override:
            result.append(override)
    return result


def on_demand_units(content: dict[str, Any], pools: Sequence[Pool], units: int) -> int:
    """How many of the units are to be on demand; of a share the next whole unit, as Auto Scaling
    rounds it."""
    if all(pool.market == ON_DEMAND for pool in pools):
        return units
    return -(-units * int(content.get("percent_on_demand", 0)) // 100)


def machines_of(units: int, given: Iterable[dict[str, Any]]) -> int:
    """The most machines that so many units can become, by the weights of overrides."""
    weights = [float(one.get("WeightedCapacity") or 1) for one in given]
    least = min(weights, default=1.0)
    return int(-(-units // least))


def pool_text(override: dict[str, Any], lifecycle: str) -> str:
    """The pool of an override, as `domain.capacity.Pool` writes it."""
    market = LIFECYCLES.get(lifecycle, lifecycle)
    instance_type = override.get("InstanceType") or ANY
    return f"{instance_type}/{override.get('SubnetId') or ANY}/{market}"


def shortages(found: Iterable[tuple[str, str, str]]) -> list[Shortage]:
    """Reasons as (pool, code, message), each of them once."""
    once: dict[tuple[str, str], Shortage] = {}
    for pool, code, message in found:
        once.setdefault((pool, code), Shortage(pool, shortage_kind(code), code, message))
    return list(once.values())
