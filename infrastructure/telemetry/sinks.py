"""Telling of alerts: to a webhook, an SNS topic, a command; what fails is tried again.

Each sink is told by a thread of its own, so that one that hangs holds up nothing: neither the
worker's turn, beyond a bound, nor the other sinks.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from application.ports import CallFailed, Clock, Journal
from infrastructure.telemetry.metrics import MetricsCollector

BOUND = 2.0
"""Seconds that are waited for all sinks together; who needs longer goes on without being waited
for."""

HTTP_TIMEOUT, COMMAND_TIMEOUT = 5.0, 10.0
"""Seconds: of each wait for a webhook, and for a command to end."""

FIRST_WAIT, LONGEST_WAIT, GIVE_UP_AFTER = 30.0, 900.0, 86_400.0
"""Seconds until a sink that failed is tried again: at first, doubling up to; and after which what
could not be told is dropped."""

MOST_WAITING = 100
"""Alerts that wait for a sink; then the oldest is dropped."""

Document = dict[str, Any]


class NotTold(Exception):
    """A sink did not take it; `str()` says why, without a URL's secrets."""


def webhook(url: str) -> Callable[[Document], None]:
    """Posts JSON; any status of 2xx is an agreement."""
    host = urlsplit(url).hostname

    def post(document: Document) -> None:
        request = urllib.request.Request(
            url,
            json.dumps(document, ensure_ascii=False).encode(),
            {"Content-Type": "application/json", "User-Agent": "hostledger"},
        )
        try:
            # http and https alone are let into the settings
            with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT):  # nosec B310
                pass
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotTold(f"{host}: {error}") from None

    return post


def command(path: str) -> Callable[[Document], None]:
    """Runs a program with the document on its standard input; exit 0 is an agreement."""

    def run(document: Document) -> None:
        try:
            ended = subprocess.run(
                [path],
                input=json.dumps(document, ensure_ascii=False).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotTold(f"{path}: {error}") from None
        if ended.returncode:
            raise NotTold(f"{path} ended with {ended.returncode}")

    return run


def sns(topic: str, connect: Callable[[], Any]) -> Callable[[Document], None]:
    """Publishes to a topic; `connect` gives the `Connection` to its region, once it is needed."""
    connections: list[Any] = []

    def publish(document: Document) -> None:
        if not connections:
            connections.append(connect())
        subject = f"Hostledger: {document['alert']} {document['state']}"
        try:
            connections[0].call(
                "Publish",
                {
                    "TopicArn": topic,
                    "Subject": subject[:100],
                    "Message": json.dumps(document, ensure_ascii=False),
                },
                "sns",
            )
        except CallFailed as failed:
            raise NotTold(f"{topic}: {failed}") from None

    return publish


class Sink:
    """One of them with what waits for it."""

    def __init__(self, name: str, send: Callable[[Document], None]) -> None:
        self.name = name
        self.send = send
        self.waiting: deque[tuple[float, Document]] = deque(maxlen=MOST_WAITING)
        self.thread: Thread | None = None
        self.not_before = 0.0
        self.failures = 0


class Delivery:
    """All sinks of a process. `tell` queues, `attempt` sends what is due."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        clock: Clock,
        journal: Journal,
        metrics: MetricsCollector,
        facts: Document,
    ) -> None:
        self.sinks = sinks
        self._clock = clock
        self._journal = journal
        self._metrics = metrics
        self._facts = facts

    def tell(self, document: Document) -> None:
        at = self._clock.now()[0]
        for sink in self.sinks:
            sink.waiting.append((at, {**document, "at": at, **self._facts}))

    def take_over(self, before: Delivery) -> None:
        """What waits for a sink that was configured anew."""
        for sink in self.sinks:
            for old in before.sinks:
                if old.name == sink.name:
                    sink.waiting.extend(old.waiting)

    def attempt(self) -> None:
        """Let each sink that is free and due take what waits for it; wait for them all together
        for no longer than BOUND."""
        until = monotonic() + BOUND
        now = self._clock.now()
        started = []
        for sink in self.sinks:
            while sink.waiting and now[0] - sink.waiting[0][0] > GIVE_UP_AFTER:
                _, document = sink.waiting.popleft()
                self._journal.error("alert not told", sink=sink.name, alert=document["alert"])
            is_busy = sink.thread is not None and sink.thread.is_alive()
            if sink.waiting and not is_busy and now[2] >= sink.not_before:
                sink.thread = Thread(target=self._send, args=(sink,), daemon=True)
                sink.thread.start()
                started.append(sink.thread)
        for thread in started:
            thread.join(max(0.0, until - monotonic()))

    def _send(self, sink: Sink) -> None:
        while sink.waiting:
            at, document = sink.waiting[0]
            try:
                sink.send(document)
            except NotTold as error:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2**sink.failures)
                sink.failures = min(10, sink.failures + 1)
                sink.not_before = self._clock.now()[2] + wait
                self._count(sink, "failed")
                self._journal.warn(
                    "alert not told yet",
                    sink=sink.name,
                    alert=document["alert"],
                    message=str(error),
                    again_in=wait,
                )
                return
            sink.failures = 0
            self._count(sink, "told")
            if sink.waiting and sink.waiting[0] == (at, document):
                sink.waiting.popleft()

    def _count(self, sink: Sink, outcome: str) -> None:
        self._metrics.counter("alert_deliveries", sink=sink.name, outcome=outcome).increment()
