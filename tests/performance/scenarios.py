"""What HostFactory does at scale, with the AWS calls that it costs: for the benchmark, which counts
at a proxy, and for the tests, which count in the sandbox."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dependency_injector import providers

from application.version import VERSION
from infrastructure.aws.client import LAUNCHED_INSTANCES
from infrastructure.sandbox.ec2 import Quotas
from infrastructure.sandbox.server import listen
from interfaces.worker.loop import Worker
from tests.performance.recording_proxy import RecordingProxy, Sent
from tests.world import TEMPLATE, World

ZONES = ("a", "b", "c")
POLLED_EVERY = 30.0
"""Seconds between HostFactory's rounds of calls."""

LAUNCHES = frozenset({"RunInstances", "CreateFleet", "RequestSpotFleet", "CreateAutoScalingGroup"})


def templates(zones: tuple[str, ...] = ZONES) -> list[dict[str, Any]]:
    """One for each zone."""
    return [
        {**TEMPLATE, "templateId": f"Zone-{z}", "maxNumber": 10_000, "subnetId": f"subnet-{z}"}
        for z in zones
    ]


class CountedWorld(World):
    """A World on AWS's own quotas, with default settings, that counts calls in the sandbox."""

    def __init__(self, root: Path, way: str = "RunInstances", **sandbox: Any) -> None:
        sandbox = {"quotas": Quotas.aws(), "boot_time": 20.0, "shutdown_time": 15.0, **sandbox}
        super().__init__(root, templates(), None, way, **sandbox)
        self._polled = 0.0

    def sent(self) -> list[Sent]:
        """Every AWS call so far."""
        return [(call.action, call.at) for call in self.sandbox.calls]

    def poll(self) -> None:
        """HostFactory's round, when it is due: every open request, and every host that it has."""
        if self.clock.seconds - self._polled < POLLED_EVERY:
            return
        self._polled = self.clock.seconds
        requests = self.query("SELECT request_id FROM requests WHERE answered_final = 0")
        self.call("getRequestStatus", {"requests": [{"requestId": r} for (r,) in requests]})
        hosts = self.query("SELECT machine_id FROM machines WHERE result = 'succeed'")
        self.call("getReturnRequests", {"machines": [{"machineId": m} for (m,) in hosts]})

    def open_requests(self) -> int:
        return int(self.query("SELECT count(*) FROM requests WHERE final = 0")[0][0])

    def run_until_done(self, seconds: float, step: float = 1.0) -> None:
        """Until every request and return is final."""
        done = self.run(seconds, lambda: not self.open_requests(), step, self.poll)
        assert done, self.query("SELECT request_id, status, message FROM requests WHERE final = 0")

    def return_all(self) -> None:
        """Hand back every living machine in one call."""
        rows = self.query("SELECT machine_id, name FROM machines WHERE alive = 1")
        self.give_back([{"machineId": machine_id, "name": name} for machine_id, name in rows])


class ProxiedWorld(CountedWorld):
    """The same over HTTP, counted at a recording proxy before the sandbox's server."""

    def __init__(self, root: Path, way: str = "RunInstances", **sandbox: Any) -> None:
        super().__init__(root, way, **sandbox)
        self.server = listen(self.sandbox)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()
        target = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.proxy = RecordingProxy(target, lambda: self.clock.seconds)
        self.write_config({"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.proxy.url})

    def sent(self) -> list[Sent]:
        assert len(self.proxy.sent) == len(self.sandbox.calls)
        return list(self.proxy.sent)

    def start_worker(self, version: str = VERSION, **overrides: Any) -> Worker:
        # Without the sandbox in its clients, they go by HTTP.
        return super().start_worker(version, on_client=providers.Object(None), **overrides)

    def close(self) -> None:
        super().close()
        self.proxy.close()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@dataclass
class Cost:
    """AWS calls by action, in so many `seconds` of the port clock."""

    seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    describes_a_second: int = 0
    """Most DescribeInstances that came within one second."""

    @property
    def total(self) -> int:
        return self.calls.total()

    @property
    def launches(self) -> int:
        return sum(count for action, count in self.calls.items() if action in LAUNCHES)


class Counting:
    """Within: the calls that a world makes."""

    def __init__(self, world: CountedWorld) -> None:
        self._world = world
        self.cost = Cost()

    def __enter__(self) -> Cost:
        self._before = len(self._world.sent())
        self._began = self._world.clock.seconds
        return self.cost

    def __exit__(self, *_: object) -> None:
        sent = self._world.sent()[self._before :]
        times = [at for action, at in sent if action == "DescribeInstances"]
        self.cost.seconds = self._world.clock.seconds - self._began
        self.cost.calls = Counter(action for action, _ in sent)
        self.cost.describes_a_second = max(
            (sum(at <= other < at + 1 for other in times) for at in times), default=0
        )


def one_request(world: CountedWorld, count: int) -> Cost:
    """A request of `count` machines, from its command until all of them run."""
    world.start_worker()
    with Counting(world) as cost:
        world.request(count, "Zone-a")
        world.run_until_done(900, step=0.5)
    (running,) = world.query("SELECT count(*) FROM machines WHERE result = 'succeed'")[0]
    assert running == count
    return cost


def waiting_requests(world: CountedWorld, count: int) -> Cost:
    """`count` requests of one machine each that wait for a worker: from its start until the last
    machine, returned, is gone."""
    for _ in range(count):
        world.request(1, "Zone-a")
    with Counting(world) as cost:
        world.start_worker()
        world.run_until_done(900)
        world.return_all()
        run_until_nothing_left(world)
    return cost


def fleet(world: CountedWorld, count: int, each: int = 500) -> Cost:
    """`count` machines over three zones, in requests of `each`, one after the other as AWS's bucket
    of launched instances admits them."""
    world.start_worker()
    with Counting(world) as cost:
        for number in range(count // each):
            world.request(each, f"Zone-{ZONES[number % len(ZONES)]}")
            world.run_until_done(900)
            # Until the bucket has so many again; nobody looks meanwhile.
            _, rate = world.workers[0].side.settings().provider.aws.buckets[LAUNCHED_INSTANCES]
            world.clock.advance(each / rate)
    return cost


def steady(world: CountedWorld, seconds: float) -> Cost:
    """So long with nothing to do."""
    with Counting(world) as cost:
        world.run(seconds, poll=world.poll)
    return cost


def return_of_all(world: CountedWorld) -> Cost:
    """Hand back all machines at once; until the last is gone."""
    with Counting(world) as cost:
        world.return_all()
        run_until_nothing_left(world)
    return cost


def run_until_nothing_left(world: CountedWorld) -> None:
    done = world.run(
        3600, lambda: not world.workers[0].side.work().anything_open(), poll=world.poll
    )
    assert done
    world.assert_nothing_left()


def whole_life(world: CountedWorld, count: int) -> Cost:
    """A request of `count` machines, from its command until nothing of it is left at AWS."""
    world.start_worker()
    with Counting(world) as cost:
        world.request(count, "Zone-a")
        world.run_until_done(900)
        world.return_all()
        run_until_nothing_left(world)
    return cost


def status_polls(world: CountedWorld, polls: int, requests: int) -> Cost:
    """So many polls of so many open requests, each followed by a look of the worker, while the
    clock stands still: whatever is called is called because of a poll."""
    world.start_worker()
    ids = [world.request(1, "Zone-a") for _ in range(requests)]
    world.run(10)
    assert world.open_requests() == requests
    with Counting(world) as cost:
        for _ in range(polls):
            world.call("getRequestStatus", {"requests": [{"requestId": i} for i in ids]})
            world.tick()
    return cost
