"""A site's past: the events of requests whose machines run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from domain.event_sourced import Aggregate
from domain.host_factory import HostFactory
from domain.launch_batch import LaunchBatch
from domain.machine import Machine
from domain.machine_request import MachineRequest

PROVIDER, TEMPLATE, REVISION = "bench", "OnDemand-A", "4f53cda18c2baa0c"
MACHINES = 10
"""Machines of one request."""

Commit = Sequence[Aggregate]
"""Aggregates whose pending events are recorded together."""


class Life:
    """One request and its machines."""

    def __init__(self, number: int, machines: int = MACHINES) -> None:
        # Spread over the index as random ids are, and the same in every run.
        mixed = number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128
        self.request_id = f"req-{mixed:032x}"
        self.batch_id = f"bat-{mixed:032x}"
        self.ids = [f"i-{(mixed + n * 2**100) % 2**128 >> 60:017x}" for n in range(machines)]
        self.machines = [Machine(Machine.stream(machine_id)) for machine_id in self.ids]
        self.request = MachineRequest(MachineRequest.stream(self.request_id))
        self._addresses = [
            f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
            for n in range(number * machines, (number + 1) * machines)
        ]

    def hosts(self) -> list[dict[str, str]]:
        """Its machines as HostFactory names them."""
        return [
            {"machineId": machine_id, "name": _name(address)}
            for machine_id, address in zip(self.ids, self._addresses, strict=True)
        ]

    def launch(self, host_factory: HostFactory) -> Iterator[Commit]:
        """From the asking until HostFactory knows that its machines run."""
        count = len(self.ids)
        self.request = MachineRequest.ask(
            self.request_id, PROVIDER, TEMPLATE, REVISION, count, 300.0, "hostfactory"
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
            pool="t3.medium/subnet-0a1b2c3d/ondemand", provider=PROVIDER, template_id=TEMPLATE,
            revision=REVISION, launch_template="", machines=count, reason="",
        )  # fmt: skip
        yield [batch]
        facts: dict[str, str | int] = {
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
                request_id=self.request_id, batch_id=self.batch_id, provider=PROVIDER,
                template_id=TEMPLATE, revision=REVISION, account="default",
                region="us-east-1", **facts,
            )  # fmt: skip
        yield [self.request, *self.machines]
        for machine, address in zip(self.machines, self._addresses, strict=True):
            machine.run(_name(address), address, 1_790_000_000)
        yield self.machines[: count // 2]
        yield self.machines[count // 2 :]
        self.request.finish(count, "")
        yield [self.request]
        host_factory.see_requests(PROVIDER, [self.request_id], [self.request_id])
        yield [host_factory]
        host_factory.see_machines(PROVIDER, self.ids)
        yield [host_factory]


def _name(address: str) -> str:
    return f"ip-{address.replace('.', '-')}.ec2.internal"
