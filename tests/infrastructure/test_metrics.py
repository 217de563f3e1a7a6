"""What counts and measures: the requirements' calls, the declared table, text, kept figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infrastructure.telemetry import exposition, figures
from infrastructure.telemetry.durations import Durations, durations_of
from infrastructure.telemetry.metrics import (
    METRICS,
    MOST_NAMES,
    PREFIX,
    MetricsCollector,
    PerformanceMetrics,
)

# -- the requirements' calls ----------------------------------------------------------------------


def series(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values but for the process's) -> value."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = [v for k, v in sorted(sample.labels.items()) if k != "process"]
            found[sample.name.removeprefix(PREFIX), *values] = sample.value
    return found


def of(metrics: MetricsCollector) -> dict[tuple[str, ...], float]:
    return series(exposition.text_of(exposition.families_of(metrics, "worker")))


def test_the_requirements_calls_work_as_they_are_written() -> None:
    """A timer around an operation, a gauge, a counter, each under a name of the caller's own."""
    metrics = MetricsCollector()

    with metrics.timer("request_processing"):
        sum(range(1000))
    metrics.gauge("memory_usage", 0.25)
    metrics.counter("requests_processed").increment()
    metrics.counter("requests_processed").increment()

    found = of(metrics)
    assert found["operation_seconds_count", "request_processing"] == 1
    assert 0 < found["operation_seconds_sum", "request_processing"] < 10
    assert found["value", "memory_usage"] == 0.25
    assert found["occurrences_total", "requests_processed"] == 2


def test_performance_metrics_average_by_operation_and_over_all() -> None:
    performance = PerformanceMetrics()
    assert performance.get_average_response_time() == 0.0

    performance.record_request_time("create", 2.0)
    performance.record_request_time("create", 4.0)
    performance.record_request_time("list", 0.0)

    assert performance.get_average_response_time("create") == 3.0
    assert performance.get_average_response_time(operation="list") == 0.0
    assert performance.get_average_response_time() == 2.0
    assert performance.get_average_response_time("nothing") == 0.0


def test_figures_of_an_interval_are_taken_once_and_the_averages_stay() -> None:
    performance = PerformanceMetrics()
    performance.record_request_time("aws DescribeInstances", 1.0, failed=True)

    taken = performance.take()

    assert [*taken] == ["aws DescribeInstances"]
    assert (taken["aws DescribeInstances"].count, taken["aws DescribeInstances"].failed) == (1, 1)
    assert performance.take() == {}
    assert performance.get_average_response_time() == 1.0


# -- the declared table ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_a_declared_metric_is_served_by_its_name_and_labels(name: str) -> None:
    """Whatever is in the table can be set, and comes out with all its labels."""
    metric = METRICS[name]
    metrics = MetricsCollector()
    labels = {label: f"some {label}" for label in metric.labels}
    {
        "counter": lambda: metrics.counter(name, **labels).increment(3),
        "gauge": lambda: metrics.gauge(name, 3, **labels),
        "histogram": lambda: metrics.timer(name, **labels).observe(3),
    }[metric.kind]()

    (family,) = [f for f in exposition.families_of(metrics, "worker") if f.name == PREFIX + name]

    assert family.documentation == metric.help
    assert family.type == metric.kind
    assert {"process": "worker", **labels}.items() <= family.samples[0].labels.items()


def test_a_metric_is_used_as_it_is_declared() -> None:
    metrics = MetricsCollector()
    for wrong in (
        lambda: metrics.gauge("aws_calls", 1),
        lambda: metrics.counter("turns"),
        lambda: metrics.counter("turns", outcome="done", more="x"),
        lambda: metrics.timer("of_my_own", label="x"),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_names_without_end_do_not_make_series_without_end() -> None:
    """What would be one too many is counted under `other`."""
    metrics = MetricsCollector()
    for number in range(MOST_NAMES + 25):
        metrics.counter(f"name-{number}").increment()

    found = {key: value for key, value in of(metrics).items() if key[0] == "occurrences_total"}

    assert len(found) == MOST_NAMES + 1
    assert found["occurrences_total", "other"] == 25


# -- durations ------------------------------------------------------------------------------------


def test_percentiles_are_right_to_a_twentieth() -> None:
    durations = Durations()
    for number in range(1, 1001):
        durations.add(number / 1000, failed=number > 990)

    again = durations_of(json.loads(json.dumps(durations.document())))

    for share, value in ((0.5, 0.5), (0.95, 0.95), (0.99, 0.99)):
        assert again.quantile(share) == pytest.approx(value, rel=0.06)
    assert again.mean == pytest.approx(0.5005)
    assert (again.count, again.error_rate) == (1000, 0.01)


def test_durations_of_two_processes_add_up() -> None:
    one, two = Durations(), Durations()
    one.add(1.0)
    two.add(3.0)
    two.add(3.0)

    one.merge(two)

    assert (one.count, one.seconds) == (3, 7.0)
    assert one.quantile(0.9) == pytest.approx(3.0, rel=0.06)


# -- the page of a server -------------------------------------------------------------------------


def worker_file(path: Path, at: float) -> str:
    worker = MetricsCollector()
    worker.gauge("collected_at_seconds", at)
    worker.counter("turns", outcome="done").increment(7)
    worker.gauge("log_position", 41)
    exposition.write(str(path / "worker.prom"), worker, "worker")
    return str(path / "worker.prom")


def page(path: str, **options: Any) -> str:
    server = MetricsCollector()
    server.gauge("log_position", 42)
    given = {"lives": True, "now": 1010.0, "interval": 30.0, **options}
    return exposition.merged(server, path, **given)


def test_the_page_has_each_family_once_and_both_processes(tmp_path: Path) -> None:
    """One HELP and TYPE a family, no series twice: what Prometheus asks of an exposition."""
    text = page(worker_file(tmp_path, 1000.0))

    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) == len(set(helps))
    samples = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    assert 'hostledger_log_position{process="worker"} 41.0' in text
    assert 'hostledger_log_position{process="server"} 42.0' in text
    assert 'hostledger_turns_total{outcome="done",process="worker"} 7.0' in text
    assert 'hostledger_process_up{process="worker"} 1.0' in text
    assert 'hostledger_figures_age_seconds{process="worker"} 10.0' in text
    assert "_created" not in text


@pytest.mark.parametrize("options", [{"lives": False}, {"now": 1091.0}], ids=["dead", "stuck"])
def test_figures_of_a_worker_that_is_not_there_are_not_served(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Nor of one that has not written for three intervals; that it is so is served."""
    text = page(worker_file(tmp_path, 1000.0), **options)

    assert 'hostledger_process_up{process="worker"} 0.0' in text
    assert "hostledger_figures_age_seconds" in text
    assert "turns_total" not in text
    assert 'hostledger_log_position{process="worker"}' not in text


def test_what_another_release_means_by_a_name_is_left_out(tmp_path: Path) -> None:
    """The page stays valid: a family has one type."""
    path = worker_file(tmp_path, 1000.0)
    text = Path(path).read_text()
    Path(path).write_text(
        text.replace("TYPE hostledger_log_position gauge", "TYPE hostledger_log_position summary")
    )

    made = page(path)

    assert 'hostledger_log_position{process="server"} 42.0' in made
    assert 'hostledger_log_position{process="worker"}' not in made
    assert 'hostledger_turns_total{outcome="done",process="worker"} 7.0' in made


def test_a_missing_or_torn_file_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "torn.prom").write_text("hostledger_turns_total{outcome=")
    for name in ("missing.prom", "torn.prom"):
        text = page(str(tmp_path / name))
        assert 'hostledger_process_up{process="worker"} 0.0' in text
        assert "figures_age" not in text


def test_the_file_is_exchanged_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = worker_file(tmp_path, 1.0)
    before = Path(path).stat().st_ino
    worker_file(tmp_path, 2.0)

    assert [p.name for p in tmp_path.iterdir()] == ["worker.prom"]
    assert Path(path).stat().st_ino != before


# -- kept figures ---------------------------------------------------------------------------------


def line(at: float, **durations: float) -> dict[str, Any]:
    performance = PerformanceMetrics()
    for operation, duration in durations.items():
        performance.record_request_time(operation.replace("_", " "), duration)
    return {
        "at": at,
        "process": "worker",
        "seconds": 30.0,
        "operations": {name: d.document() for name, d in performance.take().items()},
        "resources": {"rss_mb": at / 10},
        "queue": {"requests": 2},
    }


def test_kept_figures_come_to_times_rates_and_throughput(tmp_path: Path) -> None:
    kept = figures.KeptFigures(str(tmp_path), 7 * 86_400)
    kept.append(line(1000.0, aws_Run=1.0, aws_Describe=0.1))
    kept.append(line(1030.0, aws_Describe=0.3, worker_turn=0.1, other=1.0))

    told = figures.summary(figures.read(str(tmp_path), 0.0))

    by_name = {row["operation"]: row for row in told["operations"]}
    assert {*by_name} == {"aws", "aws Run", "aws Describe", "worker turn", "other"}
    assert by_name["other"]["count"] == 1
    assert by_name["aws"]["count"] == 3
    assert by_name["aws Describe"]["mean_seconds"] == 0.2
    assert by_name["aws Describe"]["p99_seconds"] == pytest.approx(0.3, rel=0.06)
    assert by_name["aws"]["per_minute"] == 3.0
    assert by_name["aws"]["per_second"] == 0.05
    assert told["resources"] == [
        {"process": "worker", "name": "rss_mb", "now": 103.0, "mean": 101.5, "most": 103.0}
    ]
    assert told["queue"][0]["now"] == 2


def test_only_what_lies_in_the_time_is_read(tmp_path: Path) -> None:
    kept = figures.KeptFigures(str(tmp_path), 7 * 86_400)
    for at in (1000.0, 2000.0, 3000.0):
        kept.append(line(at))

    assert [f["at"] for f in figures.read(str(tmp_path), 1500.0)] == [2000.0, 3000.0]


def test_figures_are_dropped_when_they_are_older_than_the_site_keeps_them(tmp_path: Path) -> None:
    """None is dropped earlier, and no file is rewritten."""
    kept = figures.KeptFigures(str(tmp_path), 7000.0)
    for at in range(10_000, 30_000, 100):
        kept.append(line(float(at)))

    left = [f["at"] for f in figures.read(str(tmp_path), 0.0)]

    assert left[-1] == 29_900
    assert 29_900 - 7000 - 1000 <= left[0] <= 29_900 - 7000
    assert left == [float(at) for at in range(int(left[0]), 30_000, 100)]


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    kept = figures.KeptFigures(str(tmp_path), 7000.0)
    kept.append(line(10.0))
    (file,) = tmp_path.iterdir()
    with file.open("a") as torn:
        torn.write('{"at": 20.0, "pro\n')
    kept.append(line(30.0))

    assert [f["at"] for f in figures.read(str(tmp_path), 0.0)] == [10.0, 30.0]
