"""`hostledger metrics show` and `hostledger alerts list`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.application.test_monitoring import OFTEN
from tests.interfaces.commands import Run, fulfilled
from tests.world import World

LIMIT = {"HOSTLEDGER_MONITORING__PERFORMANCE__ALERTS__MEMORY_USAGE_THRESHOLD": "0"}


@pytest.fixture
def busy(make_world: Callable[..., World]) -> World:
    """A site that has worked for a while, and has an alert."""
    world = make_world(boot_time=20.0, shutdown_time=15.0, settings=OFTEN | LIMIT)
    fulfilled(world, 2)
    world.run(60)
    return world


def test_figures_are_shown_as_they_were_kept(busy: World, make_run: Callable[[World], Run]) -> None:
    """Response times, throughput and errors by operation; resources; queues; all as JSON."""
    answer = make_run(busy)("metrics", "show", "--since", "2000-01-01", "--output", "json")

    document = answer.document
    by_name = {row["operation"]: row for row in document["operations"]}
    turns = by_name["worker turn"]
    assert turns["count"] >= 60
    assert 0 < turns["mean_seconds"] <= turns["p99_seconds"] * 1.06
    assert turns["p95_seconds"] <= turns["p99_seconds"]
    assert turns["per_minute"] == pytest.approx(60 * turns["per_second"], rel=0.01)
    assert by_name["aws"]["count"] >= by_name["aws RunInstances"]["count"] == 1
    assert by_name["aws RunInstances"]["error_rate"] == 0
    assert {row["name"] for row in document["resources"]} >= {"rss_mb", "vms_mb", "cpu"}
    queue = {row["name"]: row for row in document["queue"]}
    assert queue["requests"]["now"] == 0
    assert queue["live_machines"]["now"] == 2


def test_a_table_for_people(busy: World, make_run: Callable[[World], Run]) -> None:
    answer = make_run(busy)("metrics", "show", "--since", "2000-01-01")

    assert answer.status == 0
    assert "P95_SECONDS" in answer.out
    assert "aws RunInstances" in answer.out
    assert "rss_mb" in answer.out


def test_a_time_in_which_nothing_was_kept(busy: World, make_run: Callable[[World], Run]) -> None:
    answer = make_run(busy)("metrics", "show", "--since", "2100-01-01")

    assert (answer.status, answer.err) == (0, "")
    assert "no figures have been kept" in answer.out


@pytest.mark.parametrize("since", ["yesterday", "7x", "-1h"])
def test_a_time_that_is_none_is_wrong_usage(
    world: World, make_run: Callable[[World], Run], since: str
) -> None:
    assert make_run(world)("metrics", "show", f"--since={since}").status == 2


def test_alerts_are_listed_while_they_are_raised(
    busy: World, make_run: Callable[[World], Run]
) -> None:
    run = make_run(busy)
    (alert,) = run("alerts", "list", "--output", "json").document["alerts"]
    assert alert["alert"] == "memory-usage-worker"
    assert alert["state"] == "raised"
    assert alert["limit"] == 0.0
    assert "of memory is in use" in alert["message"]

    busy.environ |= dict.fromkeys(LIMIT, "1")
    busy.kill(busy.workers[0])
    busy.start_worker()
    busy.run(40)
    run = make_run(busy)

    assert run("alerts", "list").out == "no alert is raised\n"
    (alert,) = run("alerts", "list", "--all", "--output", "json").document["alerts"]
    assert alert["state"] == "cleared"


def test_commands_that_look_import_no_prometheus(
    world: World, make_run: Callable[[World], Run]
) -> None:
    """What reads figures does not count them: in a process of its own."""
    import subprocess
    import sys

    probe = (
        "import sys; from interfaces.cli.main import main; main(sys.argv[1:]); "
        "print('prometheus_client' in sys.modules, file=sys.stderr)"
    )
    make_run(world)
    for words in (("metrics", "show"), ("alerts", "list"), ("requests", "list")):
        ended = subprocess.run(
            [sys.executable, "-c", probe, *words], capture_output=True, text=True, check=True
        )
        assert ended.stderr == "False\n"
