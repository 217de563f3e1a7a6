"""What a worker counts as it works, over real stores, policies and the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infrastructure.telemetry.figures import read
from interfaces.worker.loop import Worker
from tests.infrastructure.test_metrics import series
from tests.stores import FOUR
from tests.world import World

EVERY_STORE = FOUR

OFTEN = {"HOSTLEDGER_MONITORING__PERFORMANCE__COLLECTION_INTERVAL": "30"}


@pytest.fixture
def watched(make_world: Callable[..., World]) -> World:
    """A site whose figures are collected every 30 s, at the default."""
    return make_world(boot_time=20.0, shutdown_time=15.0, settings=OFTEN)


def served(world: World) -> dict[tuple[str, ...], float]:
    return series(Path(world.site.metrics_dir, "worker.prom").read_text())


def test_a_cycle_is_measured(watched: World) -> None:
    """Requests, machines, calls to AWS and HostFactory's calls: each counted, in its state."""
    watched.start_worker()
    machines = watched.fulfilled(3)
    watched.run(60)
    watched.final(watched.give_back(machines))
    watched.run(40)

    found = served(watched)

    assert found["aws_calls_total", "default", "RunInstances", "ok", "us-east-1"] == 1
    assert found["events_total", "MachineLaunched"] == 3
    assert found["events_total", "DeploymentCreated"] == 1
    assert found["fulfilment_seconds_count", "fulfilled"] == 1
    assert 20 <= found["fulfilment_seconds_sum", "fulfilled"] <= 60
    assert found["return_seconds_count", "completed"] == 1
    for state in ("pending", "running", "returned", "shutting_down"):
        assert found["machine_state_seconds_count", state] == 3
    assert found["machine_state_seconds_sum", "shutting_down"] >= 3 * 15
    assert found["request_state_seconds_count", "waiting"] == 1
    assert found["hostfactory_calls_total", "requestMachines"] == 1
    assert found["hostfactory_calls_total", "getRequestStatus"] >= 1
    assert found["store_seconds_count", "commit"] >= 10
    assert found["store_seconds_count", "read"] >= 3
    assert found["turns_total", "done"] >= 30
    assert found["lease_held", "default/us-east-1"] == 1
    assert found["lease_fence", "default/us-east-1"] == 1
    assert 0 < found["lease_remaining_seconds", "default/us-east-1"] <= 60
    assert found["sweep_age_seconds", "default/us-east-1"] <= 61
    assert found["projection_lag_events", "machines"] == 0
    assert found["live_machines",] == 0
    assert found["log_position",] == len(watched.topics())


@pytest.mark.stores("sqlite")
def test_open_work_is_told_with_its_age(watched: World) -> None:
    """While AWS gives nothing, the request and its age are in the figures."""
    watched.sandbox.add_fault("throttle", action="RunInstances", times=-1)
    watched.start_worker()
    watched.request(2)
    watched.run(65)

    found = served(watched)

    assert found["queue_depth", "requests"] == 1
    assert found["oldest_request_seconds",] == pytest.approx(60, abs=5)
    throttles = found["aws_throttles_total", "default", "RunInstances", "us-east-1"]
    assert throttles >= 1
    called = ("aws_calls_total", "default", "RunInstances", "throttled", "us-east-1")
    assert found[called] == throttles
    assert found["open_intents",] == 1


def test_each_event_is_counted_once_across_workers(watched: World) -> None:
    """A second worker goes on where the first one has counted, and knows since when things have
    been as they are."""
    watched.start_worker()
    machines = watched.fulfilled(2)
    watched.run(35)
    before = served(watched)
    watched.kill(watched.workers[0])
    watched.clock.advance(100)
    watched.start_worker()
    watched.final(watched.give_back(machines))
    watched.run(40)

    after = served(watched)

    counted = {
        topic: before.get(("events_total", topic), 0) + after.get(("events_total", topic), 0)
        for topic in set(watched.topics())
    }
    assert counted == {topic: watched.topics().count(topic) for topic in set(watched.topics())}
    assert after["machine_state_seconds_count", "running"] == 2
    assert after["machine_state_seconds_sum", "running"] >= 2 * 135


@pytest.mark.stores("sqlite")
def test_counts_go_on_when_the_configuration_changes(watched: World) -> None:
    """What a worker has counted is not begun anew; the interval is the new one."""
    (worker,) = [watched.start_worker()]
    watched.run(40)
    turns = served(watched)["turns_total", "done"]
    watched.write_own_config({"logging": {"level": "DEBUG"}})
    watched.run(40)

    assert served(watched)["turns_total", "done"] > turns
    assert isinstance(worker, Worker)


@pytest.mark.stores("sqlite")
def test_a_worker_that_ends_leaves_no_living_figures(watched: World) -> None:
    watched.start_worker()
    watched.run(5)
    file = Path(watched.site.metrics_dir, "worker.prom")
    assert file.exists()

    watched.workers[0].end()

    assert not file.exists()


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(("interval", "writes"), [("30", 4), ("60", 2)])
def test_the_interval_is_the_sites(
    make_world: Callable[..., World], interval: str, writes: int
) -> None:
    """So many lines are kept of two minutes."""
    world = make_world(
        settings={"HOSTLEDGER_MONITORING__PERFORMANCE__COLLECTION_INTERVAL": interval}
    )
    world.start_worker()
    world.run(120)

    (file,) = Path(world.site.metrics_dir).glob("figures-*.jsonl")
    assert len(file.read_text().splitlines()) == writes


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(("period", "kept"), [("1h", 70.0), ("7d", 180.0)])
def test_figures_are_kept_for_as_long_as_the_site_says(
    make_world: Callable[..., World], period: str, kept: float
) -> None:
    """Minutes that the oldest figures reach back after three hours."""
    world = make_world(settings={"HOSTLEDGER_MONITORING__PERFORMANCE__RETENTION_PERIOD": period})
    world.start_worker()
    world.run(3 * 3600, step=30.0)

    times = [figures["at"] for figures in read(world.site.metrics_dir, 0.0)]
    assert (world.clock.wall - min(times)) / 60 == pytest.approx(kept, abs=10)


@pytest.mark.stores("sqlite")
def test_nothing_is_collected_where_the_site_wants_nothing(
    make_world: Callable[..., World],
) -> None:
    world = make_world(settings={"HOSTLEDGER_MONITORING__PERFORMANCE__ENABLED": "false"})
    world.start_worker()
    world.fulfilled(1)

    assert not Path(world.site.metrics_dir).exists()


@pytest.mark.stores("sqlite")
def test_a_directory_that_cannot_be_written_stops_no_worker(watched: World) -> None:
    Path(watched.site.metrics_dir).write_text("in the way")
    watched.start_worker()

    assert watched.status(watched.request(1))["status"] == "running"
    assert watched.fulfilled(1)
    said = Path(watched.site.log_file).read_text()
    assert said.count("figures are not complete") == 1
