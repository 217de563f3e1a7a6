"""The load test of the requirements, plain and under faults."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import Any

from application import queries
from application.failures import StoreError
from interfaces.bench.in_process import Asking, in_flight
from interfaces.bench.processes import hostledger
from interfaces.bench.sites import KEYS, BenchSite, Workshop, stand_in, templates

AT_ONCE = 50
"""Requests in flight, as the requirements have it."""

LONGEST = 240.0
"""Seconds after which requests that are still open are told as such."""

LOOK = 0.25

INFLIGHT = 50
"""Launches whose outcome may be open at a time; 4 by default."""

UNLIMITED = {
    "HOSTLEDGER_PROVIDER__AWS__BUCKETS__RUNINSTANCES": "[10000, 10000]",
    "HOSTLEDGER_PROVIDER__AWS__BUCKETS__RUNINSTANCES_INSTANCES": "[20000, 20000]",
    "HOSTLEDGER_PROVIDER__AWS__MAX_INFLIGHT": str(INFLIGHT),
    "HOSTLEDGER_PROVIDER__AWS__TIMEOUTS__CONNECT_TIMEOUT": "2",
    "HOSTLEDGER_PROVIDER__AWS__TIMEOUTS__READ_TIMEOUT": "5",
}
"""A new account may launch two machines a second: the stand-in's has no such limit, so that it is
not that which is measured."""


def offered(count: int) -> list[dict[str, Any]]:
    """The templates of the load test."""
    return templates(f"test-template-{number}" for number in range(count))


def load(site: BenchSite, count: int) -> dict[str, Any]:
    """So many requests of one machine, each of a template of its own, which the ledger learns with
    it."""
    asked = [f"test-template-{number}" for number in range(count)]
    at_once = min(AT_ONCE, count)
    found = in_flight(lambda: Asking(site), asked, at_once)
    return {**found.told(), "at_once": at_once, "seconds": found.took}


def under_faults(workshop: Workshop, kind: str, count: int) -> dict[str, Any]:
    """The same while a worker launches what is asked for at AWS's stand-in, which throttles, fails
    one call of a hundred in turn before and after it was carried out, and while the worker is
    killed on the way. What ledger and cloud have at the end. Raises StoreError, NotInstalled."""
    with stand_in(boot_time=1.0, shutdown_time=1.0, quotas="generous") as sandbox:
        site = workshop.site(
            kind,
            offered=offered(count),
            endpoint=sandbox.url,
            settings={**UNLIMITED, **KEYS, "AWS_EC2_METADATA_DISABLED": "true"},
        )
        faults = _plan(count)
        for fault in faults:
            sandbox.control.add_fault(**fault)
        began = time.monotonic()
        with worker(site) as first:
            commands = load(site, count)
            killed_at = _wait(site, lambda at: at["launched"] >= count // 4)["launched"]
            first.send_signal(signal.SIGKILL)
            first.wait()
        with worker(site) as second:
            ended = _wait(site, lambda at: at["open"] == 0)
            took = time.monotonic() - began
            peak = peak_mib(second.pid)
        return {
            **commands,
            "until_all_run_seconds": took,
            "killed_after_machines": killed_at,
            "worker_peak_mib": peak,
            **_calls(sandbox.control.calls()),
            **_compared(site, ended, sandbox.control.live_instances()),
        }


def _plan(count: int) -> list[dict[str, Any]]:
    """Faults as the sandbox takes them: a burst of throttles, then one error in a hundred launches,
    of which every other one was carried out all the same; and of describes."""
    most = max(1, min(5, count // 100))
    plan: list[dict[str, Any]] = [
        {"kind": "throttle", "action": "RunInstances", "from_call": 10, "times": most},
        {"kind": "throttle", "action": "DescribeInstances", "from_call": 3, "times": most},
    ]
    for number, call in enumerate(range(20, 2 * count, 100)):
        kinds: tuple[dict[str, Any], ...] = ({"kind": "e500"}, {"kind": "lost_response"})
        plan.append({**kinds[number % 2], "action": "RunInstances", "from_call": call})
        plan.append({"kind": "e500", "action": "DescribeInstances", "from_call": call})
    return plan


@contextmanager
def worker(site: BenchSite) -> Any:
    """Within: `hostledger worker run`; told to end at the end, if it has not ended by then."""
    process = subprocess.Popen(
        hostledger("worker", "run"),
        env=site.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait(site: BenchSite, done: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Look until it is so, or nobody wants to wait any longer; what was seen last."""
    end = time.monotonic() + LONGEST
    while True:
        seen = _seen(site)
        if done(seen) or time.monotonic() > end:
            return seen
        time.sleep(LOOK)


def _seen(site: BenchSite) -> dict[str, int]:
    with closing(site.call("bench").queries()) as view:
        return {
            "open": len(queries.requests(view, open_only=True)),
            "launched": queries.fleet(view)["machines"],
        }


def _calls(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """AWS calls and what became of them."""
    outcomes = Counter(call["outcome"] for call in calls)
    good = outcomes.pop("ok", 0)
    return {"aws_calls": good + sum(outcomes.values()), "aws_failures": dict(outcomes)}


def _compared(
    site: BenchSite, ended: dict[str, int], live: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Whether each request has its machine, and the cloud exactly the machines of the ledger."""
    with closing(site.call("bench").queries()) as view:
        owned = {row["machine_id"] for row in queries.machines(view, alive_only=True)}
        states = Counter(row["state"] for row in queries.requests(view))
    return {
        "open": ended["open"],
        "fulfilled": states["fulfilled"],
        "machines": len(owned),
        "only_in_cloud": len(live.keys() - owned),
        "only_in_ledger": len(owned - live.keys()),
        "agree": live.keys() == owned,
    }


def peak_mib(pid: int) -> float:
    """Most resident memory of a process so far. Raises StoreError when it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            (kib,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    except (OSError, ValueError):
        raise StoreError(f"worker {pid} ended while it was measured: see the log") from None
    return int(kib) / 1024
