"""Pools and their order, units and quotas, and which API launches a template."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.capacity import (
    ANY,
    CREATE_FLEET,
    CREATE_GROUP,
    HETEROGENEOUS,
    INSTANT,
    MAINTAIN,
    ON_DEMAND,
    REQUEST,
    REQUEST_SPOT_FLEET,
    RUN_INSTANCES,
    SPOT,
    Pool,
    fleet_type,
    launch_api,
    machines_for,
    pools_of,
    price_type,
    units_of,
)

PRICE_TYPES = (None, ON_DEMAND, SPOT, HETEROGENEOUS)
PROVIDER_APIS = (None, "RunInstances", "EC2Fleet", "SpotFleet", "ASG")
WAYS = list(product(PRICE_TYPES, PROVIDER_APIS))
FLEET_TYPES = (None, INSTANT, REQUEST, MAINTAIN)


def content(**fields: Any) -> dict[str, Any]:
    """A template's content: what is None is not given."""
    return {name: value for name, value in fields.items() if value is not None}


def names(pools: list[Pool]) -> list[str]:
    return [str(pool) for pool in pools]


# -- pools ----------------------------------------------------------------------------------------


def test_a_template_of_one_type_has_a_pool_for_each_subnet() -> None:
    """In the order of the subnets, one unit a machine."""
    pools = pools_of(content(vm_type="m5.large", subnet_ids=["subnet-2", "subnet-1"]), SPOT)
    assert names(pools) == ["m5.large/subnet-2/spot", "m5.large/subnet-1/spot"]
    assert [pool.units for pool in pools] == [1, 1]


def test_what_a_template_leaves_open_aws_chooses() -> None:
    """A type, a subnet or both are `*`; then a machine counts one unit."""
    assert names(pools_of({}, ON_DEMAND)) == ["*/*/ondemand"]
    assert names(pools_of(content(vm_type="m5.large"), SPOT)) == ["m5.large/*/spot"]
    assert names(pools_of(content(subnet_ids=[]), SPOT)) == ["*/*/spot"]
    by_requirements = content(abis={"VCpuCount": {"Min": 2}}, subnet_ids=["subnet-1"])
    assert names(pools_of(by_requirements, SPOT)) == [f"{ANY}/subnet-1/spot"]
    assert pools_of(by_requirements, SPOT)[0].units == 1


def test_pools_are_in_the_order_of_priorities_then_of_the_file() -> None:
    """The smallest number first, types without one last; all subnets of a type before the next."""
    template = content(
        vm_types={"m5.large": 1, "c5.large": 1, "t3.large": 1, "m5.xlarge": 2, "r5.large": 1},
        vm_types_priority={"m5.xlarge": 1, "r5.large": 0.5, "t3.large": 1},
        subnet_ids=["subnet-1", "subnet-2"],
    )
    assert names(pools_of(template, SPOT)) == [
        f"{name}/{subnet}/spot"
        for name in ("r5.large", "t3.large", "m5.xlarge", "m5.large", "c5.large")
        for subnet in ("subnet-1", "subnet-2")
    ]


def test_a_market_has_its_types_and_weights() -> None:
    """`vm_types_on_demand` are the types on demand alone; without them both have the same."""
    both = content(vm_types={"m5.large": 2, "m5.xlarge": 4})
    split = both | {"vm_types_on_demand": {"m5.large": 3}}
    for template, market, weights in (
        (both, SPOT, {"m5.large": 2, "m5.xlarge": 4}),
        (both, ON_DEMAND, {"m5.large": 2, "m5.xlarge": 4}),
        (split, SPOT, {"m5.large": 2, "m5.xlarge": 4}),
        (split, ON_DEMAND, {"m5.large": 3}),
        (both | {"vm_types_on_demand": {}}, ON_DEMAND, {"m5.large": 2, "m5.xlarge": 4}),
    ):
        pools = pools_of(template, market)
        assert {pool.instance_type: pool.units for pool in pools} == weights
        assert {pool.market for pool in pools} == {market}
        assert {name: units_of(template, name, market) for name in weights} == weights


def test_a_type_that_a_template_does_not_name_counts_one() -> None:
    """As one that AWS chose by requirements; and so does the one type of a template."""
    assert units_of(content(vm_types={"m5.large": 2}), "m5.xlarge", SPOT) == 1
    assert units_of(content(vm_type="m5.large"), "m5.large", SPOT) == 1
    assert units_of({}, "m5.large", ON_DEMAND) == 1
    split = content(vm_types={"m5.large": 2}, vm_types_on_demand={"c5.large": 3})
    assert units_of(split, "m5.large", ON_DEMAND) == 2, "a spot fleet's share on demand"
    assert units_of(split, "c5.large", SPOT) == 1


@given(units=st.integers(0, 10_000), weight=st.integers(1, 999))
def test_machines_fill_units_with_none_to_spare(units: int, weight: int) -> None:
    """Together they count at least the units, without the last one less."""
    machines = machines_for(units, weight)
    assert isinstance(machines, int)
    assert machines * weight >= units
    assert machines == 0 or (machines - 1) * weight < units


def test_pools_are_equal_in_all_their_parts() -> None:
    """The units are not in the text, and count."""
    pool = Pool("m5.large", "subnet-1", SPOT, 2)
    assert pool == Pool("m5.large", "subnet-1", SPOT, 2)
    for other in (
        Pool("m5.xlarge", "subnet-1", SPOT, 2),
        Pool("m5.large", "subnet-2", SPOT, 2),
        Pool("m5.large", "subnet-1", ON_DEMAND, 2),
        Pool("m5.large", "subnet-1", SPOT, 3),
        "m5.large/subnet-1/spot",
    ):
        assert pool != other


# -- quotas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "types"),
    [
        (
            "standard",
            "a1.large c5.large c7gn.large d3en.xlarge h1.2xlarge i4i.large im4gn.large is4gen.large"
            " i7ie.large m5.large m7i-flex.large r7iz.large t3.micro t4g.nano z1d.large",
        ),
        ("g", "g4dn.xlarge g5g.xlarge gr6.4xlarge vt1.3xlarge"),
        ("f", "f1.2xlarge f2.6xlarge"),
        ("p", "p3.2xlarge p4de.24xlarge p5.48xlarge"),
        ("x", "x1e.xlarge x2iedn.xlarge x8g.large"),
        ("inf", "inf1.xlarge inf2.xlarge"),
        ("trn", "trn1.2xlarge trn1n.32xlarge"),
        ("dl", "dl1.24xlarge dl2q.24xlarge"),
        ("hpc", "hpc6a.48xlarge hpc7g.4xlarge"),
        ("u", "u-6tb1.metal u7i-12tb.224xlarge u7in-16tb.224xlarge"),
        ("mac", "mac1.metal mac2-m2pro.metal"),
        (ANY, ANY),
    ],
)
@pytest.mark.parametrize("market", [ON_DEMAND, SPOT])
def test_a_quota_is_of_a_market_and_a_group_of_families(
    group: str, types: str, market: str
) -> None:
    """As EC2's quotas are listed; what AWS chooses draws on none that is known."""
    for name in types.split():
        assert Pool(name, "subnet-1", market, 1).quota == f"{group}/{market}", name


# -- which API ------------------------------------------------------------------------------------


def test_a_template_is_on_demand_unless_it_says_otherwise() -> None:
    """Absent means ondemand."""
    assert [price_type(content(price_type=kind)) for kind in PRICE_TYPES] == [
        ON_DEMAND,
        ON_DEMAND,
        SPOT,
        HETEROGENEOUS,
    ]


@pytest.mark.parametrize(("kind", "named"), WAYS, ids=str)
def test_the_api_is_the_one_named_else_by_the_price_type(
    kind: str | None, named: str | None
) -> None:
    """Without a name RunInstances launches on demand, an EC2 Fleet spot and heterogeneous."""
    by_price = {SPOT: CREATE_FLEET, HETEROGENEOUS: CREATE_FLEET}
    by_name = {
        "RunInstances": RUN_INSTANCES,
        "EC2Fleet": CREATE_FLEET,
        "SpotFleet": REQUEST_SPOT_FLEET,
        "ASG": CREATE_GROUP,
    }
    expected = by_name[named] if named else by_price.get(kind or "", RUN_INSTANCES)
    assert launch_api(content(price_type=kind, provider_api=named)) == expected


@pytest.mark.parametrize("given_type", FLEET_TYPES, ids=str)
@pytest.mark.parametrize(("kind", "named"), WAYS, ids=str)
def test_a_fleet_is_of_the_type_given_else_of_its_apis(
    kind: str | None, named: str | None, given_type: str | None
) -> None:
    """An EC2 Fleet is instant, a spot fleet a request; a group always maintains, and a launch by
    RunInstances has no fleet, whatever is given."""
    template = content(price_type=kind, provider_api=named, fleet_type=given_type)
    expected = {
        RUN_INSTANCES: "",
        CREATE_FLEET: given_type or INSTANT,
        REQUEST_SPOT_FLEET: given_type or REQUEST,
        CREATE_GROUP: MAINTAIN,
    }
    assert fleet_type(template) == expected[launch_api(template)]
