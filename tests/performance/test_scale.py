"""What a site costs does not grow with its history: statements and steps of SQLite's machine, which
are the same in each run. `make scale` measures more of it, and larger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.performance import bench_scale
from tests.performance.bench_scale import Bench, is_counted


def test_no_cost_grows_with_the_history(tmp_path: Path) -> None:
    """Calls of HostFactory and turns of a worker, quiet and busy, after ten times the events."""
    bench = Bench(tmp_path / "site", 50, 60.0, bench_scale.BUSY + 1)
    try:
        small, large = bench.grow(1_000), bench.grow(10_000)
    finally:
        bench.close()

    assert large.events > 3 * small.events
    grown = {
        name: (figure, large.figures[name])
        for name, figure in small.figures.items()
        if is_counted(name) and large.figures[name] > 1.1 * figure
    }
    assert grown == {}


def test_the_order_of_growth() -> None:
    """What is in proportion has the order 1, what stays the same 0."""
    sizes = [10, 100, 1000]
    assert bench_scale.order(sizes, [5, 50, 500]) == pytest.approx(1.0)
    assert bench_scale.order(sizes, [7, 7, 7]) == pytest.approx(0.0)
