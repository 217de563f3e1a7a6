"""What AWS is asked at scale, held to its bounds: the counts that `make bench-aws` reports, made
cheap. Nothing here is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.performance.scenarios import (
    CountedWorld,
    ProxiedWorld,
    fleet,
    one_request,
    return_of_all,
    status_polls,
    steady,
    waiting_requests,
    whole_life,
)
from tests.world import WAYS

Make = Callable[..., CountedWorld]

MOST_CALLS = {
    "RunInstances": 12,
    "fleet-instant": 17,
    "fleet-request": 17,
    "fleet-maintain": 19,
    "spot-fleet-request": 17,
    "spot-fleet-maintain": 19,
    "group": 21,
}
"""Way -> calls for a request of 100 machines, from launch to last removal."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    worlds: list[CountedWorld] = []

    def build(kind: type[CountedWorld] = CountedWorld, **options: Any) -> CountedWorld:
        worlds.append(kind(tmp_path / f"site-{len(worlds)}", **options))
        return worlds[-1]

    yield build
    for world in worlds:
        world.close()


@pytest.mark.parametrize(
    ("way", "count", "launches"), [("RunInstances", 250, 3), ("fleet-instant", 510, 2)]
)
def test_one_large_request(make: Make, way: str, count: int, launches: int) -> None:
    """A launch for each hundred, or by fleet for each 500; a page of a describe in a second."""
    cost = one_request(make(way=way), count)

    assert cost.launches == launches
    assert cost.describes_a_second <= 1


def test_requests_that_wait_share_their_calls(make: Make) -> None:
    """100 requests of one machine: one launch for all, and what a request costs in all stays
    below 1.05 calls."""
    cost = waiting_requests(make(), 100)

    assert cost.launches == 1
    assert cost.total <= 105


def test_idle_fleet_costs_its_pages(make: Make) -> None:
    """A fleet at rest is swept once a minute, a page for each thousand, and nothing else."""
    world = make()
    fleet(world, 30, each=10)
    world.run(120)

    cost = steady(world, 600)

    assert dict(cost.calls) == {"DescribeInstances": 10}


def test_return_of_many_over_zones(make: Make) -> None:
    """A termination in each zone for each 200, whatever requests they were of."""
    world = make()
    fleet(world, 250, each=25)

    cost = return_of_all(world)

    assert cost.calls["TerminateInstances"] == 3


def test_status_polls_cost_nothing(make: Make) -> None:
    """100 polls of 50 open requests, with the worker looking on."""
    assert status_polls(make(boot_time=100_000.0), 100, 50).total == 0


@pytest.mark.parametrize("way", WAYS)
def test_whole_life_of_a_request(make: Make, way: str) -> None:
    """100 machines by each way to launch, from launch to last removal."""
    assert whole_life(make(way=way), 100).total <= MOST_CALLS[way]


def test_proxy_sees_what_the_sandbox_sees(make: Make) -> None:
    """The benchmark's count is the same, over HTTP."""
    counted, proxied = (whole_life(make(kind), 10) for kind in (CountedWorld, ProxiedWorld))

    assert proxied.calls == counted.calls
