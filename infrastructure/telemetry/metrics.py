"""What is counted and measured, over prometheus-client: for worker and server, never for a call.

    metrics = MetricsCollector()
    with metrics.timer("request_processing"):
        ...
    metrics.gauge("memory_usage", 0.4)
    metrics.counter("requests_processed").increment()

`METRICS` declares every metric there is. A name that is not among them is a label of
`operation_seconds`, `value` or `occurrences`, so that code may measure what it likes and a
dashboard still knows each metric.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
)

from infrastructure.telemetry.durations import Durations

PREFIX = "hostledger_"
COUNTER, GAUGE, TIMER = "counter", "gauge", "histogram"

WORKER, SERVER, BOTH = "worker", "server", "worker and server"

SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper ends, in seconds, of the buckets of what a store or a call takes."""

CALLS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
"""Of what AWS takes."""

LIVES = (1, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600)
"""Of what machines and requests take."""

MOST_SERIES = 400
"""Combinations of labels of one metric; what comes after them is counted under OTHER."""

MOST_NAMES = 50
"""Names of code's own choosing, likewise."""

OTHER = "other"


class Metric(NamedTuple):
    """Its type, what it says, its labels (beside `process`, which all have), who has it."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    source: str = WORKER
    buckets: tuple[float, ...] = SHORT


METRICS: dict[str, Metric] = {
    # -- AWS
    "aws_calls": Metric(
        COUNTER,
        "Calls to AWS that were sent, by what came of them: ok, or the class of the error",
        ("account", "region", "api", "outcome"),
    ),
    "aws_call_seconds": Metric(
        TIMER,
        "Seconds that a call to AWS took, botocore's own attempts included",
        ("account", "region", "api"),
        buckets=CALLS,
    ),
    "aws_throttles": Metric(
        COUNTER, "Times that AWS said that we are too fast", ("account", "region", "api")
    ),
    "aws_calls_withheld": Metric(
        COUNTER,
        "Calls to AWS that were not sent, by what held them back: our bucket or the breaker",
        ("account", "region", "api", "reason"),
    ),
    # -- the worker's turns
    "turns": Metric(
        COUNTER,
        "Turns of the policies, by how they ended: done, conflict (begun anew), lease_lost, failed",
        ("outcome",),
    ),
    "turn_seconds": Metric(TIMER, "Seconds that a turn of the policies took", buckets=CALLS),
    # -- requests, returns, machines
    "events": Metric(COUNTER, "Events recorded, each counted once for a deployment", ("topic",)),
    "fulfilment_seconds": Metric(
        TIMER,
        "Seconds from a request to its final answer, by its end: fulfilled, partly_fulfilled, "
        "failed, cancelled",
        ("outcome",),
        buckets=LIVES,
    ),
    "return_seconds": Metric(
        TIMER,
        "Seconds from a return to its final answer, by its end: completed, partly_refused",
        ("outcome",),
        buckets=LIVES,
    ),
    "request_state_seconds": Metric(
        TIMER,
        "Seconds that a request spent in a state: waiting (until its first machine), filling "
        "(until it was final)",
        ("state",),
        buckets=LIVES,
    ),
    "machine_state_seconds": Metric(
        TIMER,
        "Seconds that a machine spent in a state: pending, running (until somebody returned it or "
        "AWS took it), returned (until EC2 took the order to end it), shutting_down",
        ("state",),
        buckets=LIVES,
    ),
    "hostfactory_calls": Metric(
        COUNTER,
        "Calls of HostFactory, by verb: reads from what they leave for the worker (on stores that "
        "machines share at most one a minute and host when they name nothing new), commands from "
        "their events",
        ("verb",),
    ),
    "hostfactory_call_seconds": Metric(
        TIMER,
        "Seconds that a read of HostFactory took, without the start of its process",
        ("verb",),
    ),
    "rest_requests": Metric(
        COUNTER, "Requests to the server", ("route", "method", "status"), SERVER
    ),
    "rest_request_seconds": Metric(
        TIMER,
        "Seconds until the server had answered, streams of events left out",
        ("route", "method"),
        SERVER,
    ),
    # -- what is open
    "queue_depth": Metric(
        GAUGE, "Requests, returns, batches (launches), terminations that are open", ("kind",), BOTH
    ),
    "live_machines": Metric(GAUGE, "Machines that live, as the ledger knows them", (), BOTH),
    "oldest_request_seconds": Metric(GAUGE, "Age of the oldest open request; 0 for none", (), BOTH),
    "overdue_requests": Metric(
        GAUGE,
        "Open requests that are past their deadline and the time that ending them may take",
        (),
        BOTH,
    ),
    "open_intents": Metric(
        GAUGE,
        "Launches that AWS may have been asked for and whose outcome is not known",
        (),
        BOTH,
    ),
    "oldest_intent_seconds": Metric(GAUGE, "Age of the oldest of them; 0 for none", (), BOTH),
    "orphans": Metric(GAUGE, "Instances with our tag that the ledger does not know", (), BOTH),
    "sweep_age_seconds": Metric(
        GAUGE,
        "Seconds since the last complete sweep of an account began",
        ("account",),
        BOTH,
    ),
    # -- store, log and lease
    "store_seconds": Metric(
        TIMER,
        "Seconds of the store: commit (one append), read (the events of a stream), look (at the "
        "read models, once an interval)",
        ("operation",),
        BOTH,
    ),
    "log_position": Metric(GAUGE, "Position of the last event", (), BOTH),
    "projection_lag_events": Metric(
        GAUGE,
        "Events between the end of the log and where a read model stands; for a policy that "
        "follows the log, how many of its own events wait",
        ("projection",),
        BOTH,
    ),
    "lease_held": Metric(GAUGE, "1 while the process holds the account's lease", ("account",)),
    "lease_remaining_seconds": Metric(
        GAUGE, "Seconds until the lease ends, if it is not renewed", ("account",)
    ),
    "lease_fence": Metric(GAUGE, "The lease's fencing number, 0 without it", ("account",)),
    # -- resources; the library's own come beside them
    "disk_free_bytes": Metric(GAUGE, "Room on the file system of the state directory", (), BOTH),
    "disk_size_bytes": Metric(GAUGE, "Size of that file system", (), BOTH),
    "memory_used_ratio": Metric(
        GAUGE,
        "Share of memory in use, 0 to 1: of the process's control group where that has a limit, "
        "else of the machine",
        (),
        BOTH,
    ),
    "cpu_used_ratio": Metric(
        GAUGE, "Processors that the process used in the last interval (1 is one)", (), BOTH
    ),
    # -- alerts
    "alert_raised": Metric(GAUGE, "1 while the alert is raised", ("alert",), BOTH),
    "alert_deliveries": Metric(
        COUNTER,
        "Attempts to tell of an alert, by sink (webhook, sns, command) and what came of them",
        ("sink", "outcome"),
        BOTH,
    ),
    # -- the processes themselves
    "collected_at_seconds": Metric(
        GAUGE, "When the process last collected its figures, in seconds since the epoch", (), BOTH
    ),
    "process_up": Metric(
        GAUGE,
        "1 for a worker that lives and has just written its figures; else none of them are served",
        (),
        SERVER,
    ),
    "figures_age_seconds": Metric(
        GAUGE, "Seconds since the worker wrote its figures", (), SERVER
    ),
    # -- of code's own choosing
    "operation_seconds": Metric(
        TIMER, "Seconds of an operation that code times by a name of its own", ("operation",), BOTH
    ),
    "value": Metric(GAUGE, "A value that code sets by a name of its own", ("name",), BOTH),
    "occurrences": Metric(
        COUNTER, "What code counts by a name of its own", ("name",), BOTH
    ),
}  # fmt: skip
"""Name without PREFIX -> what it is. A counter's series end in `_total`, a timer is a histogram."""

_FALLBACKS = {TIMER: "operation_seconds", GAUGE: "value", COUNTER: "occurrences"}


class MetricsCollector:
    """The metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.performance = PerformanceMetrics()
        self.also: dict[str, Callable[[float, dict[str, str]], object]] = {}
        """Timer -> what is told of its durations besides, with their labels (OpenTelemetry)."""
        self.tracing: Any = None
        """What traces (`tracing.Tracing`); None where nobody wants traces."""
        self._families: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        self._series: dict[str, int] = {}
        ProcessCollector(namespace=PREFIX.rstrip("_"), registry=self.registry)
        GCCollector(registry=self.registry)

    def timer(self, name: str, /, **labels: str) -> Timer:
        """To be entered with `with`, or told of a duration with `observe`."""
        also = self.also.get(name) if self.also else None
        return Timer(
            self._child(TIMER, name, labels),
            None if also is None else lambda seconds: also(seconds, labels),
        )

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Say what a value is now."""
        self._child(GAUGE, name, labels).set(value)

    def counter(self, name: str, /, **labels: str) -> CounterOf:
        return CounterOf(self._child(COUNTER, name, labels))

    def values(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of a declared counter or gauge."""
        family = self._families.get(name)
        found = [] if family is None else [*family.collect()]
        return [
            (sample.labels, sample.value)
            for each in found
            for sample in each.samples
            if not sample.name.endswith("_created")
        ]

    def _child(self, kind: str, name: str, labels: dict[str, str]) -> Any:
        key = (name, *labels.values())
        child = self._children.get(key)
        if child is None or child[0] != kind:
            child = self._children[key] = (kind, self._new_child(kind, name, labels))
        return child[1]

    def _new_child(self, kind: str, name: str, labels: dict[str, str]) -> Any:
        most = MOST_SERIES
        if name not in METRICS:
            if labels:
                raise TypeError(f"{name} is not in METRICS: it has no labels, not {[*labels]}")
            most = MOST_NAMES
            name, labels = _FALLBACKS[kind], {METRICS[_FALLBACKS[kind]].labels[0]: name}
        metric = METRICS[name]
        if metric.kind != kind or {*labels} != {*metric.labels}:
            raise TypeError(
                f"{name} is a {metric.kind} with the labels {metric.labels}, "
                f"not a {kind} with {tuple(labels)}"
            )
        if name not in self._families:
            self._families[name] = self._new_family(name, metric)
        family = self._families[name]
        if not labels:
            return family
        self._series[name] = self._series.get(name, 0) + 1
        if self._series[name] > most:
            labels = dict.fromkeys(labels, OTHER)
        return family.labels(**labels)

    def _new_family(self, name: str, metric: Metric) -> Any:
        kinds: dict[str, Any] = {COUNTER: Counter, GAUGE: Gauge, TIMER: Histogram}
        more = {"buckets": metric.buckets} if metric.kind == TIMER else {}
        return kinds[metric.kind](
            PREFIX + name, metric.help, metric.labels, registry=self.registry, **more
        )


class Timer:
    """Measures what happens within, or takes a duration as it was measured elsewhere."""

    def __init__(self, series: Any, also: Callable[[float], object] | None = None) -> None:
        self._series = series
        self._also = also
        self._began = 0.0

    def observe(self, seconds: float) -> None:
        self._series.observe(seconds)
        if self._also is not None:
            self._also(seconds)

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.observe(time.perf_counter() - self._began)


class CounterOf:
    """One series that only rises."""

    def __init__(self, series: Any) -> None:
        self._series = series

    def increment(self, amount: float = 1) -> None:
        self._series.inc(amount)


class PerformanceMetrics:
    """Response times, errors and throughput by operation, since the process began.

    An operation's first word is its kind (`aws DescribeInstances`, `hostfactory
    getRequestStatus`): the kinds are judged apart.
    """

    def __init__(self) -> None:
        self._all: dict[str, Durations] = {}
        self._since: dict[str, Durations] = {}

    def record_request_time(self, operation: str, duration: float, *, failed: bool = False) -> None:
        """One request, command or call of this name took `duration` seconds."""
        if operation not in self._since:
            if len(self._since) >= MOST_SERIES:
                operation = OTHER
            self._since.setdefault(operation, Durations())
        self._since[operation].add(duration, failed=failed)

    def get_average_response_time(self, operation: str | None = None) -> float:
        """Seconds, of one operation or of all; 0.0 where there was none."""
        merged = Durations()
        for told in (self._all, self._since):
            for name, durations in told.items():
                if operation in (None, name):
                    merged.merge(durations)
        return merged.mean

    def take(self) -> dict[str, Durations]:
        """What was recorded since it was last taken, by operation."""
        taken, self._since = self._since, {}
        for operation, durations in taken.items():
            if operation not in self._all and len(self._all) >= MOST_SERIES:
                operation = OTHER
            self._all.setdefault(operation, Durations()).merge(durations)
        return taken


def by_kind(operations: dict[str, Durations]) -> dict[str, Durations]:
    """Added up by the operations' first words."""
    kinds: dict[str, Durations] = {}
    for operation, durations in operations.items():
        kinds.setdefault(operation.partition(" ")[0], Durations()).merge(durations)
    return kinds
