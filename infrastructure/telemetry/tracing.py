"""OpenTelemetry: traces and metrics to a site's collector, where the standard variables name one.

Nothing of the library is imported elsewhere, nor here before it is wanted. Names are those of the
semantic conventions (https://opentelemetry.io/docs/specs/semconv/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from application.failures import NotInstalled
from application.version import VERSION
from infrastructure.telemetry.metrics import COUNTER, GAUGE, METRICS, PREFIX, MetricsCollector

ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
SHUTDOWN = 5_000
"""Milliseconds for what has not been sent when a process ends."""


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment names a collector, and does not say that nothing is to be sent."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return any(environ.get(name, "").strip() for name in ENDPOINTS)


class Tracing:
    """One process's traces and metrics on their way. Raises NotInstalled."""

    def __init__(self, process: str, environ: Mapping[str, str], metrics: MetricsCollector) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise NotInstalled(
                f"{error.name} is not installed and OTEL_EXPORTER_OTLP_* names a collector: "
                "`pip install 'hostledger[otel]'` adds what sends to it"
            ) from None
        resource = Resource.create(
            {
                "service.name": environ.get("OTEL_SERVICE_NAME") or f"hostledger-{process}",
                "service.version": VERSION,
            }
        )
        self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._traces.get_tracer("hostledger", VERSION)
        self._meters = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter())], resource, shutdown_on_exit=False
        )
        self._export(metrics)

    def _export(self, metrics: MetricsCollector) -> None:
        """Have the collector's own metrics go out too: counters and gauges are looked at when they
        are sent, durations are told as they come."""
        meter = self._meters.get_meter("hostledger", VERSION)
        for name, metric in METRICS.items():
            full = PREFIX + name
            if metric.kind == COUNTER:
                meter.create_observable_counter(full, [_looking(metrics, name)], "", metric.help)
            elif metric.kind == GAUGE:
                meter.create_observable_gauge(full, [_looking(metrics, name)], "", metric.help)
            else:
                histogram = meter.create_histogram(
                    full, "s", metric.help, explicit_bucket_boundaries_advisory=metric.buckets
                )
                metrics.also[name] = histogram.record

    @contextmanager
    def span(self, name: str, kind: str = "internal", **facts: str | int | float) -> Iterator[Any]:
        """Around what is done within; spans that begin there are its children. What is raised
        marks it as failed."""
        with self._tracer.start_as_current_span(
            name, kind=_kind(kind), attributes=_attributes(facts)
        ) as span:
            yield span

    @contextmanager
    def request(self, headers: Mapping[str, str], name: str, **facts: str) -> Iterator[Any]:
        """Around a request of a client, whose own trace it goes on with where it sent one."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(dict(headers))
        with self._tracer.start_as_current_span(
            name, context=parent, kind=_kind("server"), attributes=_attributes(facts)
        ) as span:
            yield span

    def ended(self, name: str, seconds: float, failure: str = "", **facts: str) -> None:
        """What has just ended, after so many seconds: `failure` is the class of its error."""
        from opentelemetry.trace import Status, StatusCode

        end = time.time_ns()
        span = self._tracer.start_span(
            name,
            kind=_kind("client"),
            attributes=_attributes(facts | ({"error_type": failure} if failure else {})),
            start_time=end - int(seconds * 1e9),
        )
        if failure:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def flush(self) -> None:
        """Send what waits."""
        self._traces.force_flush(SHUTDOWN)
        self._meters.force_flush(SHUTDOWN)

    def end(self) -> None:
        """Send what waits, and no more."""
        self.flush()
        self._traces.shutdown()
        self._meters.shutdown(SHUTDOWN)


def _kind(kind: str) -> Any:
    from opentelemetry.trace import SpanKind

    return SpanKind[kind.upper()]


def _attributes(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The conventions' names have dots where Python's have underscores."""
    return {DOTTED.get(name, f"hostledger.{name}"): value for name, value in facts.items()}


DOTTED = {
    "error_type": "error.type",
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "path": "url.path",
    "api": "rpc.method",
    "service": "rpc.service",
    "system": "rpc.system",
    "region": "cloud.region",
}


def _looking(metrics: MetricsCollector, name: str) -> Callable[[Any], Iterator[Any]]:
    def look(_: Any) -> Iterator[Any]:
        from opentelemetry.metrics import Observation

        for labels, value in metrics.values(name):
            yield Observation(value, labels)

    return look
