"""Weights and units, pools, and by which API of AWS a template's machines are launched.

One definition of "how many": `machineCount`, claims, deals and targets count **units**. A machine
counts its instance type's weight in the template, 1 when the template weighs nothing. A request is
filled when the units of its machines reach what was asked; the last machine may overshoot by less
than its weight.

A template's `content` is what its revision holds; the keys read here are all that the application
knows of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ON_DEMAND = "ondemand"
SPOT = "spot"
HETEROGENEOUS = "heterogeneous"

RUN_INSTANCES = "RunInstances"
CREATE_FLEET = "CreateFleet"
REQUEST_SPOT_FLEET = "RequestSpotFleet"
CREATE_GROUP = "CreateAutoScalingGroup"

INSTANT, REQUEST, MAINTAIN = "instant", "request", "maintain"

ANY = "*"
"""A pool's type or subnet that AWS chooses."""

_STANDARD_FAMILIES = "acdhimrtz"


class Pool:
    """Where a machine can come from: a type, a subnet (and so a zone) and a market, with the units
    that a machine of it counts. As text `m5.large/subnet-1/spot`."""

    __slots__ = ("instance_type", "market", "subnet_id", "units")

    def __init__(self, instance_type: str, subnet_id: str, market: str, units: int) -> None:
        self.instance_type = instance_type
        self.subnet_id = subnet_id
        self.market = market
        self.units = units

    def __str__(self) -> str:
        return f"{self.instance_type}/{self.subnet_id}/{self.market}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pool) and str(self) == str(other) and self.units == other.units

    __hash__ = None  # type: ignore[assignment]

    @property
    def quota(self) -> str:
        """The account's quota that its machines draw on: one for each market and group of families
        (https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html)."""
        family = self.instance_type.rstrip("0123456789").partition(".")[0]
        letters = "".join(c for c in family.partition("-")[0] if c.isalpha())
        for special in ("trn", "inf", "dl", "hpc", "mac", "u"):
            if letters.startswith(special):
                return f"{special}/{self.market}"
        # G and VT share one; of a type that AWS chooses none is known.
        first = "g" if letters.startswith("vt") else letters[:1] or ANY
        group = "standard" if first in _STANDARD_FAMILIES else first
        return f"{group}/{self.market}"


def _types(content: dict[str, Any], market: str) -> dict[str, int]:
    """type -> weight for a market; a template without types leaves them to AWS or to its launch
    template."""
    if market == ON_DEMAND and content.get("vm_types_on_demand"):
        return content["vm_types_on_demand"]  # type: ignore[no-any-return]
    if content.get("vm_types"):
        return content["vm_types"]  # type: ignore[no-any-return]
    return {content.get("vm_type", ANY): 1}


def pools_of(content: dict[str, Any], market: str) -> list[Pool]:
    """The pools of a template in one market, the preferred ones first."""
    types = _types(content, market)
    priorities = content.get("vm_types_priority", {})
    last = max(priorities.values(), default=0) + 1
    ordered = sorted(types, key=lambda name: priorities.get(name, last))
    return [
        Pool(name, subnet, market, types[name])
        for name in ordered
        for subnet in content.get("subnet_ids") or [ANY]
    ]


def units_of(content: dict[str, Any], instance_type: str, market: str) -> int:
    """What a machine of this type counts. A type the template does not name counts 1.

    A spot fleet's on-demand share is of its spot types, whatever `vm_types_on_demand` says.
    """
    weights: dict[str, int] = {**content.get("vm_types", {}), **_types(content, market)}
    return weights.get(instance_type, 1)


def price_type(content: dict[str, Any]) -> str:
    """ondemand, spot or heterogeneous."""
    return content.get("price_type", ON_DEMAND)  # type: ignore[no-any-return]


def launch_api(content: dict[str, Any]) -> str:
    """The AWS call that launches the template's machines."""
    named = content.get("provider_api")
    if named is None:
        return RUN_INSTANCES if price_type(content) == ON_DEMAND else CREATE_FLEET
    return {
        "RunInstances": RUN_INSTANCES,
        "EC2Fleet": CREATE_FLEET,
        "SpotFleet": REQUEST_SPOT_FLEET,
        "ASG": CREATE_GROUP,
    }[named]


def fleet_type(content: dict[str, Any]) -> str:
    """instant, request or maintain; "" for a launch without a fleet. An Auto Scaling group always
    maintains."""
    api = launch_api(content)
    if api == RUN_INSTANCES:
        return ""
    if api == CREATE_GROUP:
        return MAINTAIN
    default = INSTANT if api == CREATE_FLEET else REQUEST
    return content.get("fleet_type", default)  # type: ignore[no-any-return]


def machines_for(units: int, weight: int) -> int:
    """How many machines of a weight fill so many units."""
    return -(-units // weight)
