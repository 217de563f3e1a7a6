"""OpenTelemetry against a real receiver of OTLP over HTTP, which decodes what it gets."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from infrastructure.telemetry import tracing
from tests.interfaces.commands import Run
from tests.interfaces.rest import serving
from tests.world import World


class Receiver:
    """What a collector was sent: spans, and the last value of each metric."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.metrics: dict[str, Any] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                told = {a.key: a.value.string_value for a in part.resource.attributes}
                self.services.add(told["service.name"])
                for scope in part.scope_spans:
                    self.spans += scope.spans
        elif path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def facts(span: Any) -> dict[str, Any]:
    return {
        a.key: a.value.string_value or a.value.int_value or a.value.double_value
        for a in span.attributes
    }


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A collector that the environment names."""
    receiver = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    yield receiver
    receiver.close()


@pytest.fixture
def traced(make_world: Callable[..., World], receiver: Receiver) -> World:
    return make_world(
        boot_time=20.0,
        shutdown_time=15.0,
        settings={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url},
    )


def test_a_workers_turns_and_calls_are_traced(traced: World, receiver: Receiver) -> None:
    """A call to AWS is a child of the turn that made it, and an error is marked with its code."""
    traced.start_worker()
    traced.sandbox.add_fault("throttle", action="RunInstances", times=1)
    traced.fulfilled(1)
    traced.workers[0].end()

    turns = {span.span_id for span in receiver.named("turn")}
    calls = receiver.named("RunInstances")
    assert receiver.services == {"hostledger-worker"}
    assert len(calls) == 2
    assert {span.parent_span_id for span in calls} <= turns
    assert facts(calls[0])["rpc.method"] == "RunInstances"
    assert facts(calls[0])["cloud.region"] == "us-east-1"
    assert facts(calls[0])["error.type"] == "RequestLimitExceeded"
    assert "error.type" not in facts(calls[1])
    commits = receiver.named("commit")
    assert commits
    assert {span.parent_span_id for span in commits} & turns


def test_metrics_go_out_too(traced: World, receiver: Receiver) -> None:
    """Counters, gauges and durations, under the names that Prometheus knows."""
    traced.start_worker()
    traced.fulfilled(2)
    traced.workers[0].end()

    calls = receiver.metrics["hostledger_aws_calls"].sum
    assert calls.is_monotonic
    by_api = {
        {a.key: a.value.string_value for a in point.attributes}["api"]: point.as_double
        for point in calls.data_points
    }
    assert by_api["RunInstances"] == 1
    assert receiver.metrics["hostledger_live_machines"].gauge.data_points[0].as_double == 2
    turns = receiver.metrics["hostledger_turn_seconds"].histogram.data_points[0]
    assert turns.count >= 5


def test_a_request_to_the_server_is_traced_with_its_command(
    traced: World, receiver: Receiver, make_run: Callable[[World], Run]
) -> None:
    """It goes on with the client's own trace, and the command is its child."""
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serving(traced, make_run(traced), "operator") as client:
        answer = client.http.post(
            "/api/v1/requests",
            json={"template_id": "OnDemand-A", "machine_count": 1},
            headers=client._headers(
                {"traceparent": f"00-{trace}-{parent}-01", "Idempotency-Key": "one"}
            ),
        )
        assert answer.status_code < 300, answer.text
        client.get("/requests/req-unknown")

    (asked,) = receiver.named("POST /api/v1/requests")
    (command,) = receiver.named("command")
    assert receiver.services == {"hostledger-server"}
    assert asked.trace_id.hex() == trace
    assert asked.parent_span_id.hex() == parent
    assert command.parent_span_id == asked.span_id
    assert facts(asked)["http.response.status_code"] == answer.status_code
    (other,) = receiver.named("GET /api/v1/requests/{request_id}")
    assert other.trace_id.hex() != trace


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_only_a_collector_that_is_named_is_sent_to(environ: dict[str, str], wanted: bool) -> None:
    assert tracing.is_wanted(environ) is wanted


def test_nothing_of_it_is_imported_where_nobody_wants_it() -> None:
    """Neither by what counts nor by the worker's and the server's own modules. (The framework
    imports the library's interface where that is there, which sends nothing.)"""
    probe = (
        "import sys, os; from interfaces.read_side import new_metrics; new_metrics('worker', {}); "
        "import infrastructure.telemetry.monitoring, interfaces.worker.loop, interfaces.rest.app; "
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', "
        "'opentelemetry.exporter'))])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
