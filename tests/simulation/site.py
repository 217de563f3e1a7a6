"""A site as a seed makes it: its templates, its settings, its store and its cloud.

The application and the stores are the product's own; `REPLACED` says all that is not.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moto.moto_api._internal import mock_random

from application import crash_points
from application.instants import Instant
from infrastructure.sandbox.ec2 import AwsRequest, AwsResponse, Quotas
from interfaces.worker.loop import Worker
from tests.fakes.clock import FakeClock
from tests.simulation.promises import Broken
from tests.stores import Place
from tests.world import TEMPLATE, WAYS, World

REPLACED = {
    "container": {"clock", "random", "on_client"},
    "call": {"clock", "now", "overrides"},
    "attributes": {"os.urandom", "application.crash_points.die"},
}
"""All that a simulation puts in the place of the product's own: providers of the write side's
container, attributes of a call, and attributes of modules."""

DRAWN = ("sqlite", "sqlite", "sqlite", "sql", "json", "json", "dynamodb", "postgresql")
"""What a site keeps its ledger in, each as often as it is named; a store that is not to be had
here is SQLite instead."""

CALL = 0.02
"""Seconds that a call to AWS takes."""

SUBNETS = ("subnet-a1", "subnet-b1", "subnet-a1,subnet-b1", "subnet-a1,subnet-b1,subnet-c1")
SPOT_WAYS = ("RunInstances", "fleet-instant")


class MovingClock(FakeClock):
    """A look at it takes a microsecond: of two looks in a row the second one is later."""

    def now(self) -> Instant:
        self.advance(1e-6)
        return super().now()


class SimulatedSite(World):
    """A `World` whose workers may die in a tick, and whose calls to AWS outside of one are noticed.

    `chance` makes everything that is by chance; `died` counts the workers that a crash point ended,
    `lookings` are those in the midst of a tick, the innermost first.
    """

    def __init__(self, root: Path, chance: random.Random, place: Place) -> None:
        self.chance = chance
        self.inline = chance.random() < 0.15
        super().__init__(
            root,
            templates=[template(chance, n) for n in range(chance.randint(1, 4))],
            settings=settings(chance, self.inline),
            place=place,
            clock=MovingClock(),
            boot_time=chance.choice([0.0, 5.0, 20.0, 60.0]),
            shutdown_time=chance.choice([0.0, 15.0, 40.0]),
            visibility_lag=chance.choice([0.0, 0.0, 3.0, 30.0]),
            fleet_delay=chance.choice([0.0, 5.0]),
            quotas=chance.choice([None, Quotas.aws()]),
        )
        self.died = 0
        self.lookings: list[Worker] = []
        self._reads = 0
        handle = self.sandbox.handle

        def watched(request: AwsRequest) -> AwsResponse:
            if self._reads:
                raise Broken("a call of HostFactory's asks nothing of AWS", request.url)
            self.clock.advance(CALL)
            return handle(request)

        self.sandbox.handle = watched  # type: ignore[method-assign]
        queue = self.sandbox.create_queue("notices", events=True)
        if chance.random() < 0.5:
            self.environ["HOSTLEDGER_PROVIDER__AWS__INTERRUPTION_QUEUE"] = queue

    def call(self, verb: str, document: dict[str, Any]) -> dict[str, Any]:
        self._reads += not self.inline
        try:
            return super().call(verb, document)
        finally:
            self._reads -= not self.inline

    def tick(self) -> None:
        """One look of every worker; one that reaches the point at which it is to die is gone."""
        reads, self._reads = self._reads, 0
        try:
            for worker in list(self.workers):
                if worker in self.workers:  # one that was paused looks on while others end
                    self._look(worker)
        finally:
            self._reads = reads

    def _look(self, worker: Worker) -> None:
        self.lookings.insert(0, worker)
        try:
            goes_on = worker.tick()
        except crash_points.Crash:
            self.died += 1
            self.kill(worker)
            return
        finally:
            self.lookings.remove(worker)
        if not goes_on:
            worker.end()
            if worker in self.workers:
                self.workers.remove(worker)

    def reboot(self) -> None:
        """The machine is started anew: no process of ours lives, and the boot clock is another."""
        for worker in list(self.workers):
            self.kill(worker)
        self.clock.boot_id = f"boot-{int(self.clock.boot_id.partition('-')[2]) + 1}"

    def change_templates(self) -> None:
        """The site's administrator edits what is offered; none is taken away."""
        count = len(self.offered())
        self.write_templates([template(self.chance, number) for number in range(count)])

    def offered(self) -> list[dict[str, Any]]:
        """The templates as getAvailableTemplates tells them."""
        found: list[dict[str, Any]] = self.call("getAvailableTemplates", {})["templates"]
        return found


def template(chance: random.Random, number: int) -> dict[str, Any]:
    """One that is launched in some way, in some subnets, at some price, up to some number."""
    way = chance.choice(list(WAYS))
    made = {
        **TEMPLATE,
        "templateId": f"T{number}",
        "maxNumber": chance.choice([3, 12, 60, 2000]),
        "subnetId": chance.choice(SUBNETS),
        **WAYS[way],
    }
    if chance.random() < 0.5:
        made["fulfilmentDeadline"] = chance.choice([60, 300, 900])
    if way in SPOT_WAYS and chance.random() < 0.4:
        made["priceType"] = "spot"
    if chance.random() < 0.3:
        del made["vmType"]
        made["vmTypes"] = chance.choice(
            [{"m5.large": 1, "g4dn.xlarge": 1}, {"m5.large": 2, "m5.xlarge": 3}]
        )
    if chance.random() < 0.2:
        made["rootDeviceVolumeSize"] = 20
    return made


def settings(chance: random.Random, inline: bool) -> dict[str, str]:
    """What the site's configuration says, as variables. One thread: what is done at a time would be
    in another order each time."""
    aws = "HOSTLEDGER_PROVIDER__AWS__"
    return {
        "HOSTLEDGER_WORKER__MODE": "inline" if inline else "external",
        "HOSTLEDGER_PROCESSING__WORKER_THREADS": "1",
        "HOSTLEDGER_PERFORMANCE__CPU__THREAD_POOL_SIZE": "1",
        "HOSTLEDGER_MONITORING__PERFORMANCE__ENABLED": chance.choice(["true", "false", "false"]),
        aws + "SWEEP_INTERVAL": chance.choice(["30", "60"]),
        aws + "MAX_INFLIGHT": chance.choice(["1", "2", "4"]),
        aws + "LAUNCH_CHUNK": chance.choice(["3", "10", "100"]),
        aws + "FLEET_CHUNK": chance.choice(["5", "500"]),
        aws + "LAUNCH_RETRIES": chance.choice(["0", "2"]),
        aws + "TAG_INSTANCE_ID": chance.choice(["true", "false", "false"]),
        aws + "BATCH_SIZES__TERMINATE_INSTANCES": chance.choice(["2", "200"]),
        aws + "BATCH_SIZES__DESCRIBE_INSTANCES": chance.choice(["3", "200"]),
        "HOSTLEDGER_PROCESSING__BATCH_PROCESSING__BATCH_SIZE": chance.choice(["1", "20"]),
        "HOSTLEDGER_PERFORMANCE__MEMORY__OBJECT_POOL_SIZE": chance.choice(["0", "2", "500"]),
    }


@contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """Within: all that is random comes from the seed, the identifiers of the cloud's stand-in too,
    and a crash point that was armed raises Crash."""
    chance = random.Random(seed)
    urandom, die = os.urandom, crash_points.die
    os.urandom = random.Random(seed + 1).randbytes  # type: ignore[assignment]
    crash_points.reached = set()
    mock_random.seed(seed)
    try:
        yield chance
    finally:
        os.urandom = urandom
        crash_points.die = die
        crash_points.reached = None
        crash_points.crash_at("")
        mock_random.seed()
