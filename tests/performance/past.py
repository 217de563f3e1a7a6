"""A site's past: the events of whole cycles, with the streams of many machines interleaved.

`python -m tests.performance.past FILE [--events N]` writes them into a new SQLite store; 1,000,000
take a few minutes, and leave 20,000 machines alive.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from application import assigning, returning
from domain.host_factory import HostFactory
from domain.launch_batch import LaunchBatch
from domain.machine import Machine
from domain.machine_request import MachineRequest
from domain.return_request import ReturnRequest
from domain.template import Template
from domain.termination_batch import TerminationBatch
from infrastructure.event_store.commit import to_record
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import create_store
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from domain.event_sourced import Aggregate
    from infrastructure.event_store.sql import SqlEventStore

ACTOR = {"user": "bench", "provider": "bench", "process": "bench"}
ALIVE = 20_000
MACHINES = 10
"""Machines of one request."""

LIFE = 51
"""Events of one request, from the asking to the end of its last machine."""

AT_ONCE = 40
"""Requests that are being launched at the same time, and as many returns."""

DAYS = 90
"""So long a past it is, told in appends of ..."""
APPENDED = 1_000
"""... so many events."""

Commit = list["Aggregate"]
"""Aggregates whose pending events are recorded together."""


class Life:
    """One request and its machines, from the asking to the end of the last machine."""

    def __init__(self, number: int, machines: int = MACHINES) -> None:
        # Spread over the index as random ids are, and the same in every run.
        mixed = number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128
        self.request_id = f"req-{mixed:032x}"
        self.batch_id = f"bat-{mixed:032x}"
        self.return_id = f"ret-{mixed:032x}"
        self.termination_id = f"ter-{mixed:032x}"
        self.ids = [f"i-{(mixed + n * 2**100) % 2**128 >> 60:017x}" for n in range(machines)]
        self.machines = [Machine(Machine.stream(machine_id)) for machine_id in self.ids]
        self.request = MachineRequest(MachineRequest.stream(self.request_id))
        self._first = number * machines

    def launch(self, host_factory: HostFactory) -> Iterator[Commit]:
        """From the asking until HostFactory knows that its machines run."""
        count = len(self.ids)
        self.request = MachineRequest.ask(
            self.request_id, "bench", "OnDemand-A", "4f53cda18c2baa0c", count, 300.0, "hostfactory"
        )
        yield [self.request]
        batch = LaunchBatch(LaunchBatch.stream(self.batch_id))
        batch.intend(
            epoch=0, api="RunInstances", token=self.batch_id[4:] * 2,
            payload={
                "ImageId": "ami-0a1b2c3d4e5f60718", "InstanceType": "t3.medium", "MinCount": 1,
                "MaxCount": count, "NetworkInterfaces": [
                    {"DeviceIndex": 0, "SubnetId": "subnet-0a1b2c3d", "Groups": ["sg-0a1b2c3d"]}
                ],
                "TagSpecifications": [
                    {
                        "ResourceType": kind,
                        "Tags": [{"Key": "hostledger:batch", "Value": self.batch_id}],
                    }
                    for kind in ("instance", "volume")
                ],
            },
            claims=[[self.request_id, count]], account="default", region="us-east-1",
            pool="t3.medium/subnet-0a1b2c3d/ondemand", provider="bench", template_id="OnDemand-A",
            revision="4f53cda18c2baa0c", launch_template="", machines=count, reason="",
        )  # fmt: skip
        yield [batch]
        facts = {
            "zone": "us-east-1a", "instance_type": "t3.medium", "price_type": "ondemand",
            "name": "", "private_ip_address": "", "launch_time": 1_790_000_000, "units": 1,
        }  # fmt: skip
        batch.accept(
            "59dbff89-35bd-4eac-99ed-be587ed4b4b4",
            [{"machine_id": machine_id, **facts} for machine_id in self.ids],
            [[self.request_id, count]], [], gives_up=False, fleet_id="", filling=False,
        )  # fmt: skip
        yield [batch]
        self.request.assign(self.batch_id, dict.fromkeys(self.ids, 1))
        for machine in self.machines:
            machine.launch(
                request_id=self.request_id, batch_id=self.batch_id, provider="bench",
                template_id="OnDemand-A", revision="4f53cda18c2baa0c", account="default",
                region="us-east-1", **facts,
            )  # fmt: skip
        yield [self.request, *self.machines]
        for number, machine in enumerate(self.machines, self._first):
            host = (10, number >> 16 & 255, number >> 8 & 255, number & 255)
            name = "ip-" + "-".join(map(str, host)) + ".ec2.internal"
            machine.run(name, ".".join(map(str, host)), 1_790_000_000)
        yield self.machines[: count // 2]
        yield self.machines[count // 2 :]
        self.request.finish(count, "")
        yield [self.request]
        host_factory.see_requests("bench", [self.request_id], [self.request_id])
        yield [host_factory]
        host_factory.see_machines("bench", self.ids)
        yield [host_factory]

    def hand_back(self) -> Iterator[Commit]:
        """From the return until the last machine is gone."""
        returned = ReturnRequest.hand_back(
            self.return_id, "bench", self.ids, [], "returned by HostFactory", "hostfactory"
        )
        yield [returned]
        for machine in self.machines:
            machine.hand_back(self.return_id, "returned by HostFactory")
        yield list(self.machines)
        termination = TerminationBatch.intend(
            self.termination_id, self.ids, "default", "us-east-1", "us-east-1a", "returned"
        )
        yield [termination]
        termination.conclude(self.ids, [], "59dbff89-35bd-4eac-99ed-be587ed4b4b4")
        yield [termination]
        for machine in self.machines:
            machine.terminate("returned by HostFactory")
        yield self.machines[: len(self.ids) // 2]
        yield self.machines[len(self.ids) // 2 :]
        returned.finish([])
        yield [returned]


def past(alive: int = ALIVE) -> Iterator[tuple[Life, Commit]]:
    """The commits of a site that launches up to so many machines, then returns the oldest for
    every new one; without end."""
    host_factory = HostFactory()
    living: deque[Life] = deque()
    launching: deque[tuple[Life, Iterator[Commit]]] = deque()
    returning_: deque[tuple[Life, Iterator[Commit]]] = deque()
    number = 0
    while True:
        while len(launching) < AT_ONCE:
            number += 1
            life = Life(number)
            launching.append((life, life.launch(host_factory)))
        while len(living) * MACHINES >= alive:
            life = living.popleft()
            returning_.append((life, life.hand_back()))
        for under_way in (launching, returning_):
            if not under_way:
                continue
            life, commits = under_way.popleft()
            commit = next(commits, None)
            if commit is not None:
                yield life, commit
                under_way.append((life, commits))
            elif under_way is launching:
                living.append(life)


def write_past(store: SqlEventStore, clock: FakeClock, events: int, alive: int = ALIVE) -> None:
    """Append so many events (a few more) to a store that has just been made; its policies then
    have nothing to follow."""
    template = Template(Template.stream(Template.key("bench", "OnDemand-A")))
    template.revise("bench", "OnDemand-A", "4f53cda18c2baa0c", {})
    store.save(template)
    position, _ = store.end()
    step = DAYS * 86400.0 * APPENDED / events
    records = []
    causes = {}
    for life, commit in past(alive):
        for aggregate in commit:
            causes[aggregate.id] = (life.request_id, "")
            records += [to_record(event) for event in aggregate.collect_events()]
        if len(records) >= APPENDED:
            store.append(records, causes=causes)
            clock.advance(step)
            position += len(records)
            records, causes = [], {}
            if position >= events:
                break
    for policy in (assigning.POLICY, returning.POLICY):
        store.append([], tracking=(policy, position))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--alive", type=int, default=ALIVE)
    arguments = parser.parse_args()
    clock = FakeClock(time.time() - DAYS * 86400.0)
    create_store(arguments.file, clock, ACTOR, "bench")
    with closing(SqliteEventStore(arguments.file, clock, ACTOR)) as store:
        store.connection.execute("PRAGMA synchronous = OFF")
        store.connection.execute("PRAGMA cache_size = -400000")
        write_past(store, clock, arguments.events, arguments.alive)
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        print(f"{arguments.file}: {store.end()[0]} events")


if __name__ == "__main__":
    main()
