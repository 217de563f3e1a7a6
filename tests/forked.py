"""A site whose scripts and workers are forked processes, with EC2 over HTTP and a shared clock.

The processes are real and so are the signals that end them, the store is a file and EC2 is the
sandbox over HTTP. Only the clock is shared memory that moves when it is told to, so that deadlines
and settling take no real time.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import mmap
import os
import signal
import struct
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
from dependency_injector import providers

from application import crash_points
from application.instants import Instant
from infrastructure.sandbox.server import listen
from interfaces.worker.loop import Worker
from tests.world import World

LOADED = (
    "application.alerting",
    "application.event_sourcing",
    "application.policies",
    "application.rebuilding",
    "application.vitals",
    "infrastructure.aws.ec2",
    "infrastructure.aws.fleets",
    "infrastructure.aws.groups",
    "infrastructure.aws.overrides",
    "infrastructure.aws.run_instances",
    "infrastructure.aws.spot_fleets",
    "infrastructure.event_store.lease",
    "infrastructure.event_store.notebook",
    "infrastructure.event_store.recorders",
    "infrastructure.event_store.sqlite_timed",
    "infrastructure.read_models.sql_queries",
    "infrastructure.read_models.sql_work",
    "infrastructure.settings",
    "infrastructure.sightings",
    "infrastructure.telemetry.metrics",
    "infrastructure.telemetry.monitoring",
    "infrastructure.telemetry.sinks",
    "infrastructure.telemetry.tracing",
)
"""What a worker imports when it needs it."""


@functools.cache
def _know_ec2() -> None:
    """Have EC2's model, and what a worker imports, before a process is forked: else each would load
    them again."""
    boto3.session.Session(region_name="us-east-1").client("ec2")
    for module in LOADED:
        importlib.import_module(module)
    # The collector of a forked process would write to, and so copy, all that this one holds.
    gc.collect()
    gc.freeze()


class SharedClock:
    """The port `Clock` in memory that forked processes share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self._memory[:] = struct.pack("d", 1000.0)

    @property
    def seconds(self) -> float:
        return float(struct.unpack("d", self._memory[:])[0])

    def now(self) -> Instant:
        return (1_800_000_000.0 + self.seconds, "boot-1", self.seconds)

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._memory[:] = struct.pack("d", self.seconds + seconds)


class ForkedSite(World):
    """A World whose scripts and workers are forked processes and whose EC2 answers over HTTP."""

    def __init__(self, root: Path, templates: list[dict[str, Any]], **sandbox: Any) -> None:
        super().__init__(root, templates, **sandbox)
        _know_ec2()
        self.clock = SharedClock()  # type: ignore[assignment]
        self.server = listen(self.sandbox)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()
        endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.write_config(
            {
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_TAG_InstanceID": True,
                "AWS_DESCRIBE_REQUEST_RETRY_ATTEMPTS": 0,
            }
        )
        self.asked: list[str] = []
        self.hosts: list[dict[str, str]] = []
        self.refused: list[str] = []

    def start_worker(self, **_overrides: Any) -> Worker:  # type: ignore[override]
        worker = Worker(
            self.site,
            self.environ,
            clock=providers.Object(self.clock),
            random=providers.Object(os.urandom),
        )
        self.workers.append(worker)
        return worker

    def process(self, work: Callable[[], Any], crash_at: str = "") -> tuple[bool, Any]:
        """Run `work` in a process of its own: (whether it survived, what it returned).

        Names of the points that it reached are kept in `self.reached`.
        """
        answer = self.root / "answer"
        answer.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                crash_points.crash_at(crash_at)
                crash_points.reached = set()
                result = work()
                answer.write_text(json.dumps([result, sorted(crash_points.reached)]))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return False, None
        assert status == 0, "the process failed: see its trace above"
        result, reached = json.loads(answer.read_text())
        self.reached |= set(reached)
        return True, result

    reached: set[str] = set()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
        super().close()


def drive(site: ForkedSite, work: Callable[[ForkedSite], Any], crash_at: str) -> bool:
    """One process to its end; when it is killed, another does the same again. Whether it was."""
    survived, _ = site.process(lambda: work(site), crash_at)
    if not survived:
        survived_again, _ = site.process(lambda: work(site))
        assert survived_again
    return not survived


def drive_all(
    site: ForkedSite, steps: Iterable[Callable[[ForkedSite], Any]], crash_at: str
) -> bool:
    """All of the processes in turn, killed or not. Whether one was."""
    return True in [drive(site, step, crash_at) for step in steps]


# -- what the processes do ------------------------------------------------------------------------


def ask(site: ForkedSite) -> None:
    """HostFactory's call; killed before its answer, it is made again under another id."""
    request_id = site.request(3)
    with (site.root / "asked").open("a") as file:
        file.write(request_id + "\n")


def known_ids(site: ForkedSite) -> list[str]:
    path = site.root / "asked"
    return path.read_text().split() if path.exists() else []


def poll(site: ForkedSite) -> Callable[[], None]:
    """HostFactory's round every 30 s: the status of what it knows, and its hosts."""
    last = [0.0]

    def once() -> None:
        if site.clock.seconds - last[0] < 30:
            return
        last[0] = site.clock.seconds
        entries = [site.status(request_id) for request_id in known_ids(site)]
        for entry in entries:
            assert entry["message"] != "unknown request"
            assert sum(m["result"] == "succeed" for m in entry["machines"]) <= 3
        hosts = [m for e in entries for m in e["machines"] if m["result"] == "succeed"]
        if hosts:
            site.call(
                "getReturnRequests", {"machines": [{"machineId": m["machineId"]} for m in hosts]}
            )

    return once


def work_until(
    condition: Callable[[ForkedSite], bool], seconds: float, step: float = 2.0
) -> Callable[[ForkedSite], None]:
    """A worker, and HostFactory polling, until the condition holds and nothing is open."""

    def work(site: ForkedSite) -> None:
        site.start_worker()
        done = site.run(seconds, lambda: condition(site), step=step, poll=poll(site))
        assert done, site.query("SELECT * FROM requests WHERE final = 0")
        for worker in list(site.workers):
            worker.end()
            site.workers.remove(worker)

    return work


def work_for(seconds: float) -> Callable[[ForkedSite], None]:
    """A worker for so long, HostFactory polling."""

    def work(site: ForkedSite) -> None:
        end = site.clock.seconds + seconds
        work_until(lambda s: s.clock.seconds >= end, seconds + 10)(site)

    return work


def answered(site: ForkedSite) -> bool:
    """Every request that HostFactory knows is final, and it has been told and polled since."""
    return all(site.status(request_id)["status"] != "running" for request_id in known_ids(site))


def give_back(site: ForkedSite) -> None:
    machines = [
        machine
        for request_id in known_ids(site)
        for machine in site.status(request_id)["machines"]
        if machine["result"] == "succeed"
    ]
    if machines:
        site.give_back(machines)


def at_rest(site: ForkedSite) -> bool:
    """Nothing is open, and what nobody knows of has been ended: no instance lives."""
    (open_,) = site.query("SELECT count(*) FROM requests WHERE final = 0")[0]
    (alive,) = site.query("SELECT count(*) FROM machines WHERE alive = 1")[0]
    return not open_ and not alive


def cycle(site: ForkedSite, crash_at: str) -> bool:
    """Ask, wait, hold the machines for a while, return, wait."""
    steps = (
        work_until(lambda s: bool(s.query("SELECT 1 FROM templates")), 60),
        ask,
        work_until(answered, 900),
        work_for(70),
        give_back,
        work_until(at_rest, 3000),
    )
    return drive_all(site, steps, crash_at)


class Running:
    """A worker's process that runs beside others, until it is told to end or ends by itself.

    `stop_at` pauses it there with SIGSTOP, as `kill -STOP` would.
    """

    def __init__(self, site: ForkedSite, seconds: float, stop_at: str = "") -> None:
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                crash_points.die = lambda name: os.kill(os.getpid(), signal.SIGSTOP)
                crash_points.crash_at(stop_at)
                site.start_worker()
                site.run(seconds, step=1.0)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)

    def wait_until_stopped(self) -> None:
        _, status = os.waitpid(self._pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def wait(self) -> None:
        """Until it has ended by itself; it must not have failed."""
        _, status = os.waitpid(self._pid, 0)
        assert status == 0, "the process failed: see its trace above"
