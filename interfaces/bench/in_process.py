"""What a command and a status poll cost within a process, by their thousands."""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

from application.failures import StoreBusy
from application.request_machines import RequestMachines, request_machines
from domain.template import Template
from interfaces.bench.past import TEMPLATE
from interfaces.bench.sites import BenchSite
from interfaces.hostfactory import reads
from interfaces.read_side import Call

PERCENTS = (50, 95, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest that so many of all do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def told(seconds: list[float], took: float) -> dict[str, float]:
    """Mean and percentiles in ms, and how many in a second."""
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "mean_ms": 1000 * statistics.mean(ordered),
        **{f"p{p}_ms": 1000 * percentile(ordered, p) for p in PERCENTS},
        "per_second": len(ordered) / took,
    }


class Asking:
    """RequestMachines as `requestMachines` carries it out, the store being open: one machine of a
    template a command, each a commit of its own that waits for the disk."""

    def __init__(self, site: BenchSite) -> None:
        self._call = site.call("requestMachines")
        self._ledger, self._model = self._call.ledger()

    def __call__(self, template_id: str) -> str:
        call, model = self._call, self._model
        key = Template.key(call.site.provider, template_id)
        command = RequestMachines(
            call.site.provider,
            template_id,
            1,
            call.compiled.template(template_id),
            model.template_revision(key),
            call.settings["provider"]["fulfilment_deadline"],
            "hostfactory",
            os.urandom(16),
        )
        return request_machines(command, self._ledger, lambda: model.template_revision(key))

    def close(self) -> None:
        self._ledger.close()


class Together(NamedTuple):
    """What came of many calls at a time: the seconds of each, of all together, and of processor
    time; `refused` is how often the store was too busy, and it was asked anew."""

    seconds: list[float]
    took: float
    worked: float
    refused: int

    def told(self) -> dict[str, Any]:
        cpu_ms = 1000 * self.worked / len(self.seconds)
        return {**told(self.seconds, self.took), "cpu_ms": cpu_ms, "refused": self.refused}


def in_flight(make: Callable[[], Any], asked: Sequence[Any], at_once: int) -> Together:
    """What `make` gives, called with each of `asked`, in so many threads at a time, each with one
    of its own. Raises what a call raises, but StoreBusy."""
    lock = threading.Lock()
    left = list(asked)
    seconds: list[float] = []
    refused: list[StoreBusy] = []
    began: list[float] = []

    def begin() -> None:
        """When all have opened what they need."""
        began.extend((time.perf_counter(), time.process_time()))

    gate = threading.Barrier(at_once, begin)

    def work() -> None:
        # Opened and closed by the thread that uses it, as SQLite wants it.
        try:
            act = make()
        except BaseException:
            gate.abort()
            raise
        with closing(act):
            gate.wait()
            while True:
                with lock:
                    if not left:
                        return
                    given = left.pop()
                since = time.perf_counter()
                while not _carried_out(act, given, refused):
                    pass
                seconds.append(time.perf_counter() - since)

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(work) for _ in range(at_once)]
    ended = time.perf_counter(), time.process_time()
    failures = [error for future in futures if (error := future.exception()) is not None]
    for error in failures:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return Together(seconds, ended[0] - began[0], ended[1] - began[1], len(refused))


def _carried_out(act: Callable[[Any], object], given: Any, refused: list[StoreBusy]) -> bool:
    try:
        act(given)
    except StoreBusy as busy:
        refused.append(busy)
        return False
    return True


def requests(site: BenchSite, count: int, at_once: int) -> dict[str, Any]:
    """So many RequestMachines commands of one template; `cpu_ms` of one."""
    with closing(Asking(site)) as first:
        first(TEMPLATE)
    return in_flight(lambda: Asking(site), [TEMPLATE] * count, at_once).told()


def polls(site: BenchSite, count: int) -> dict[str, Any]:
    """So many getRequestStatus of one request each, one after the other, as a process carries it
    out from the opening of its store; `cpu_ms` is the median, `statements` are those of one where
    the store has some."""
    asked = [site.lives[number * 7919 % len(site.lives)].request_id for number in range(count)]
    statements = _statements(site, asked[0])
    seconds, worked = [], []
    for request_id in asked:
        began, before = time.perf_counter(), time.process_time()
        poll(site.call("getRequestStatus"), request_id)
        worked.append(time.process_time() - before)
        seconds.append(time.perf_counter() - began)
    return {
        **told(seconds, sum(seconds)),
        "cpu_ms": 1000 * statistics.median(worked),
        "statements": statements,
    }


def poll(call: Call, request_id: str) -> str:
    answer = reads.VERBS["getRequestStatus"](
        call, {"requests": [{"requestId": request_id}]}, "input"
    )
    if '"machineId"' not in answer:
        raise AssertionError(f"{request_id} has no machine: {answer[:200]}")
    return answer


class _Counted:
    """In the place of what notes slow statements: to it each is slow."""

    long = -1.0

    def __init__(self) -> None:
        self.count = 0

    def note(self, sql: str, seconds: float) -> None:
        self.count += 1


def _statements(site: BenchSite, request_id: str) -> int | None:
    """Statements of one poll; None where the store knows none."""
    if site.kind == "dynamodb":
        return None
    call = site.call("getRequestStatus")
    counted = _Counted()
    watched: Any = call.storage
    watched.watch = counted
    poll(call, request_id)
    return counted.count
