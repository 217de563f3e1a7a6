"""What a site costs does not grow with its history: statements and steps of SQLite's machine, which
are the same in each run. `make scale` measures more of it, and larger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.performance import bench_scale
from tests.performance.bench_scale import Bench, Size, is_counted, may_grow


def more(small: Size, large: Size, *, with_fleet: bool) -> dict[str, tuple[float, float]]:
    """What costs more at the larger size and may not."""
    return {
        name: (figure, large.figures[name])
        for name, figure in small.figures.items()
        if is_counted(name)
        and not may_grow(name, with_fleet)
        and large.figures[name] > 1.1 * figure
    }


def test_no_cost_grows_with_the_history(tmp_path: Path) -> None:
    """Calls of HostFactory and turns of a worker, quiet and busy, after ten times the events."""
    bench = Bench(tmp_path / "site", 50, 60.0, bench_scale.BUSY + 1)
    try:
        small, large = bench.grow(1_000), bench.grow(10_000)
    finally:
        bench.close()

    assert large.events > 3 * small.events
    assert more(small, large, with_fleet=False) == {}


def test_little_grows_with_the_machines_that_live(tmp_path: Path) -> None:
    """Neither calls about some of them nor a turn that does not sweep."""
    sizes = []
    for alive in (100, 1_000):
        bench = Bench(tmp_path / str(alive), alive, 60.0, bench_scale.BUSY + 1)
        try:
            sizes.append(bench.grow(4 * alive))
        finally:
            bench.close()

    small, large = sizes
    assert large.alive > 5 * small.alive
    assert more(small, large, with_fleet=True) == {}


def test_the_order_of_growth() -> None:
    """What is in proportion has the order 1, what stays the same 0."""
    sizes = [10, 100, 1000]
    assert bench_scale.order(sizes, [5, 50, 500]) == pytest.approx(1.0)
    assert bench_scale.order(sizes, [7, 7, 7]) == pytest.approx(0.0)
