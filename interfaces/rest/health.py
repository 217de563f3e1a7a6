"""Whether the server lives and can answer, what it counts, and what it watches over."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import Event, Thread
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from application.failures import BrokenConfiguration, StoreError
from application.ports import CallFailed
from interfaces.read_side import METRICS_TYPE, Call, Site, metrics_page, new_metrics
from interfaces.rest.looks import Looks
from interfaces.rest.problems import Problem

OTHER = "other"
"""The route of what asks for a path that there is not, and its method."""

router = APIRouter(include_in_schema=False)

STREAM = "/api/v1/events/stream"
"""The path that lasts as long as its client wants."""


@router.get("/livez")
async def livez() -> Response:
    """The loop turns: whoever reads this knows all there is to know. A busy processor makes it
    late, and never wrong."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """The store answers, no read model has failed, and the server is not about to end."""
    if request.app.state.door.draining:
        return PlainTextResponse("this server is about to end\n", 503)
    try:
        await request.app.state.looks.end()
    except (StoreError, BrokenConfiguration) as error:
        return PlainTextResponse(f"{' '.join(str(error).split())}\n", 503)
    return PlainTextResponse("ok\n")


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What Prometheus reads: the server's metrics and those of the worker that lives here."""
    watching: Watching = request.app.state.watching
    looks: Looks = request.app.state.looks
    if watching.metrics is None:
        raise Problem(404, "no-metrics", "monitoring.performance.enabled is false")
    text = await looks.run(lambda: metrics_page(looks.call(), watching.metrics))
    return Response(text, media_type=METRICS_TYPE)


class Watching:
    """What the server counts, and a thread that collects it and judges the alerts each interval: a
    worker that is not there raises none. `overrides` are parts of the write side that take the
    place of the real ones."""

    def __init__(
        self, site: Site, environ: Mapping[str, str], call: Callable[[], Call], **overrides: Any
    ) -> None:
        self._site = site
        self._environ = environ
        self._call = call
        self.overrides = overrides
        performance = call().settings["monitoring"]["performance"]
        self.metrics: Any = new_metrics("server", environ) if performance["enabled"] else None
        self._interval: float = performance["collection_interval"]
        self._before: Any = None
        self._counts: dict[tuple[str | None, str, int], Callable[[float], None]] = {}
        self._end = Event()
        self._thread = Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        if self.metrics is not None:
            self._thread.start()

    def end(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.metrics is not None and self.metrics.tracing is not None:
            self.metrics.tracing.end()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            try:
                self.collect()
            except (StoreError, BrokenConfiguration, CallFailed, OSError) as error:
                self._call().journal().warn("figures are not complete", message=str(error))
            except Exception:
                self._call().journal().error("defect", trace=traceback.format_exc())

    def collect(self) -> None:
        """Once. Raises StoreError, BrokenConfiguration, CallFailed, OSError."""
        from interfaces.write_side.server import collect_server

        self._before = collect_server(
            self._site, self._environ, self._call(), self.metrics, self._before, **self.overrides
        )

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Around what is traced, where somebody wants traces."""
        if self.metrics is None or self.metrics.tracing is None:
            return nullcontext()
        return self.metrics.tracing.span(name)  # type: ignore[no-any-return]

    def request(self, scope: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """The same around a request; `answered` says in it what became of it."""
        if self.metrics is None or self.metrics.tracing is None:
            return nullcontext()
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
        return self.metrics.tracing.request(  # type: ignore[no-any-return]
            headers, scope["method"], method=scope["method"], path=scope["path"]
        )

    def answered(self, scope: Mapping[str, Any], status: int, seconds: float, span: Any) -> None:
        """A request was answered; `span` is what `request` gave."""
        if self.metrics is None:
            return
        route = getattr(scope.get("route"), "path", None)
        if span is not None:
            span.update_name(f"{scope['method']} {route or ''}".strip())
            span.set_attribute("http.route", route or "")
            span.set_attribute("http.response.status_code", status)
        key = (route, scope["method"] if route else OTHER, status)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = self._new_counts(*key)
        counts(seconds)

    def _new_counts(self, route: str | None, method: str, status: int) -> Callable[[float], None]:
        """What takes the seconds of a request that ended so: looked up once, since it is in the way
        of each."""
        where = {"route": route or OTHER, "method": method}
        counter = self.metrics.counter("rest_requests", status=str(status), **where)
        if route == STREAM:
            return lambda seconds: counter.increment()
        timer = self.metrics.timer("rest_request_seconds", **where)
        record = self.metrics.performance.record_request_time
        operation, failed = f"rest {method} {where['route']}", status >= 500

        def count(seconds: float) -> None:
            counter.increment()
            timer.observe(seconds)
            record(operation, seconds, failed=failed)

        return count
