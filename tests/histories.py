"""Random histories: what may happen to requests, launches, machines and returns, in any order and
with every policy anywhere behind, as the domain's own classes record it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from application.returning import POLICY as TELLING
from domain.brake import EVERYTHING, LAUNCHING, Brake
from domain.event_sourced import Aggregate
from domain.fleet import Fleet
from domain.host_factory import HostFactory
from domain.launch_batch import ACCEPTED, DOUBTFUL, FILLING, OPEN, REJECTED, SETTLED, LaunchBatch
from domain.launch_template import LaunchTemplate
from domain.machine import Machine
from domain.machine_request import MachineRequest
from domain.return_request import ReturnRequest
from domain.template import Template
from domain.termination_batch import TerminationBatch
from infrastructure.event_store.sql import SqlEventStore
from tests.domain.samples import instance
from tests.fakes.clock import FakeClock

PROVIDER, TEMPLATE_ID = "awsinst", "OnDemand-A"


class History:
    """Writes into a store; `requests`, `returns`, `machines` and `batches` are the ids there are,
    `committed` is called after each commit."""

    def __init__(
        self, store: SqlEventStore, clock: FakeClock, committed: Callable[[], object]
    ) -> None:
        self._store = store
        self._clock = clock
        self._committed = committed
        self._made = 0
        self._commits = 0
        self._untold: list[tuple[str, int]] = []
        self._unfollowed: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self._host_factory = HostFactory()
        self._chance = random.Random(0)
        self.requests: list[str] = []
        self.returns: list[str] = []
        self.machines: list[str] = []
        self.batches: list[str] = []
        self.terminations: list[str] = []

    def step(self, seed: int) -> None:
        """One thing that the number chooses, of those that can happen now."""
        self._chance = random.Random(seed)
        self._clock.advance(self._chance.choice([0.0, 1.0, 90.0]))
        before = self._commits
        while self._commits == before:
            self._try_step()

    def _try_step(self) -> None:
        steps = [
            *[self.ask, self.intend, self.conclude, self.follow] * 3,
            *[self.run, self.hand_back, self.intend_termination, self.see] * 2,
            self.tell, self.conclude_termination, self.end_machine, self.end_request,
            self.end_return, self.change_machine, self.adopt, self.revise, self.change_fleet,
            self.change_launch_template, self.brake,
        ]  # fmt: skip
        self._chance.choice(steps)()

    def _save(self, *aggregates: Aggregate, **metadata: Any) -> list[int]:
        positions: list[int] = []
        self._store.save(*aggregates, positions=positions, **metadata)
        self._commits += 1
        self._committed()
        return positions

    def _new(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}{self._made:032x}"

    def _some(self, things: list[str], most: int = 3) -> list[str]:
        return self._chance.sample(things, min(len(things), self._chance.randint(1, most)))

    def _get(self, kind: type[Any], things: list[str]) -> Any:
        return self._store.get(kind, self._chance.choice(things)) if things else None

    # -- requests and launches --------------------------------------------------------------------

    def ask(self) -> None:
        request_id = self._new("req-")
        count = self._chance.randint(1, 4)
        self.requests.append(request_id)
        self._save(
            MachineRequest.ask(request_id, PROVIDER, TEMPLATE_ID, "r1", count, 300.0, "operator")
        )

    def _is_open(self, request_id: str) -> bool:
        request = self._store.get(MachineRequest, request_id)
        return request is not None and request.state == OPEN

    def intend(self) -> None:
        """Claims may name a request that has just ended: the worker was at it."""
        if not self.requests:
            return
        claims = [[r, self._chance.randint(1, 3)] for r in self._some(self.requests[-4:], 2)]
        batch = self._get(LaunchBatch, self.batches)
        if batch is None or batch.state != REJECTED:
            self.batches.append(self._new("bat-"))
            batch = LaunchBatch(LaunchBatch.stream(self.batches[-1]))
        else:
            claims = batch.claims
        batch.intend(
            epoch=batch.epoch + 1, api="RunInstances", token="t", payload={"a": 1}, claims=claims,
            account="default", region="us-east-1", pool="p", provider=PROVIDER,
            template_id=TEMPLATE_ID, revision="r1", launch_template="",
            machines=sum(units for _, units in claims), reason="",
        )  # fmt: skip
        self._save(batch)

    def conclude(self) -> None:
        batch = self._get(LaunchBatch, self.batches[-3:])
        if batch is None:
            return
        claims = [claim for claim in batch.claims if self._is_open(claim[0])]
        if self._chance.random() < 0.7:  # what else is open and wants the same
            claims += [[r, 1] for r in self.requests[-2:] if self._is_open(r)]
        count = self._chance.randint(0, 5)
        instances = [
            instance(self._made + n, self._chance.randint(1, 2)) for n in range(1, count + 1)
        ]
        self._made += count
        kind = self._chance.choice(
            ["accept", "accept", "fill", "reject", "doubt", "settle", "close"]
        )
        if kind in ("accept", "fill"):
            batch.accept(
                "aws", instances, claims, [], False, "f" * (kind == "fill"), kind == "fill"
            )
        elif kind in ("reject", "doubt"):
            batch.reject("Code", "no", kind == "reject", False)
        elif kind == "settle" and batch.state in (DOUBTFUL, FILLING, SETTLED, ACCEPTED):
            batch.settle(instances, claims)
        elif kind == "close":
            batch.close(batch.claims[:1], [])
        events = list(batch._pending)
        if not events:
            return
        self._save(batch)
        for event in events:
            if "instances" in vars(event):
                owners = {m: request_id for request_id, ids in event.deal for m in ids}
                self._unfollowed += [(batch.identifier, one, owners) for one in event.instances]

    def follow(self) -> None:
        """Record a few of the machines that outcomes gave, each with its request."""
        for _ in range(min(len(self._unfollowed), self._chance.randint(1, 4))):
            batch_id, one, owners = self._unfollowed.pop(0)
            request_id = owners.get(one["machine_id"], "")
            machine = Machine(Machine.stream(one["machine_id"]))
            facts = {name: value for name, value in one.items() if name != "machine_id"}
            machine.launch(
                request_id=request_id, batch_id=batch_id, provider=PROVIDER,
                template_id=TEMPLATE_ID, revision="r1", account="default", region="us-east-1",
                **facts,
            )  # fmt: skip
            saved: list[Aggregate] = [machine]
            request = self._store.get(MachineRequest, request_id) if request_id else None
            if request is not None:
                request.assign(batch_id, {one["machine_id"]: one["units"]})
                if self._chance.random() < 0.2:
                    request.fall_short(batch_id, "p", "Shortage", "none left", 1, False)
                saved.append(request)
            self.machines.append(one["machine_id"])
            self._save(*saved)

    def end_request(self) -> None:
        request = self._get(MachineRequest, self.requests)
        if request is None or request.state != OPEN:
            return
        if self._chance.random() < 0.3:
            request.cancel("no longer needed")
        else:
            request.finish(self._chance.randint(0, request.machine_count), "some are missing")
        self._save(request)

    # -- machines ---------------------------------------------------------------------------------

    def run(self) -> None:
        machine = self._get(Machine, self.machines[-4:])
        if machine is not None and machine.state == "launched":
            machine.run("host", "10.0.0.1", 7)
            self._save(machine)

    def change_machine(self) -> None:
        machine = self._get(Machine, self.machines)
        if machine is None or machine.is_gone:
            return
        kind = self._chance.choice(["protect", "unprotect", "interruption", "rebalance"])
        if kind == "protect":
            machine.protect("precious")
        elif kind == "unprotect":
            machine.unprotect("enough")
        else:
            machine.interrupt(kind, 1_800_000_000)
        if machine.has_pending:
            self._save(machine)

    def end_machine(self) -> None:
        machine = self._get(Machine, self.machines)
        if machine is not None and not machine.is_gone:
            if self._chance.random() < 0.5:
                machine.terminate("returned")
            else:
                machine.lose("not there")
            self._save(machine)

    def adopt(self) -> None:
        if self.batches:
            self._made += 1
            one = instance(self._made)
            machine = Machine(Machine.stream(one.pop("machine_id")))
            machine.adopt(
                batch_id=self._chance.choice(self.batches), provider=PROVIDER,
                template_id=TEMPLATE_ID, revision="r1", account="default", region="us-east-1",
                reason="ours", **one,
            )  # fmt: skip
            self.machines.append(machine.identifier)
            self._save(machine)

    # -- returns and terminations -----------------------------------------------------------------

    def hand_back(self) -> None:
        """Machines may be returned twice, or when they are gone."""
        named = self._some(self.machines) if self.machines else []
        strangers = [["", "strange"]] if self._chance.random() < 0.3 else []
        if not named and not strangers:
            return
        return_id = self._new("ret-")
        handed_back = ReturnRequest.hand_back(
            return_id, PROVIDER, named, strangers, f"return {return_id[-2:]}", "operator"
        )
        self.returns.append(return_id)
        (position,) = self._save(handed_back)
        self._untold.append((return_id, position))

    def tell(self) -> None:
        """Let the machines of the oldest return that is not followed know of it."""
        if not self._untold:
            return
        return_id, position = self._untold.pop(0)
        handed_back = self._store.get(ReturnRequest, return_id)
        assert handed_back is not None
        machines = [self._store.get(Machine, m) for m in handed_back.machine_ids]
        for machine in machines:
            machine.hand_back(return_id, "returned")  # type: ignore[union-attr]
        self._save(*machines, tracking=(TELLING, position))  # type: ignore[arg-type]

    def end_return(self) -> None:
        handed_back = self._get(ReturnRequest, self.returns)
        if handed_back is None or handed_back.is_final:
            return
        why = self._chance.choice(["protected: precious", "EC2 refuses"])
        refused = self._some(handed_back.machine_ids) if handed_back.machine_ids else []
        handed_back.finish([[m, why] for m in refused] if self._chance.random() < 0.5 else [])
        self._save(handed_back)

    def intend_termination(self) -> None:
        if self.machines:
            termination_id = self._new("ter-")
            self.terminations.append(termination_id)
            self._save(
                TerminationBatch.intend(
                    termination_id, self._some(self.machines), "default", "us-east-1", "a", "owed"
                )
            )

    def conclude_termination(self) -> None:
        batch = self._get(TerminationBatch, self.terminations)
        if batch is not None and batch.is_open:
            some = self._some(batch.machine_ids)
            rest = [[m, "No"] for m in batch.machine_ids if m not in some]
            batch.conclude(some, rest, "aws")
            self._save(batch)

    # -- the rest ---------------------------------------------------------------------------------

    def see(self) -> None:
        requests = self._some(self.requests) if self.requests else []
        machines = self._some(self.machines) if self.machines else []
        if requests or machines:
            self._host_factory.see_requests(PROVIDER, requests, requests[:1])
            self._host_factory.see_machines(PROVIDER, machines)
            self._save(self._host_factory)

    def revise(self) -> None:
        key = Template.key(PROVIDER, self._chance.choice([TEMPLATE_ID, "Spot-B"]))
        template = self._store.get(Template, key) or Template(Template.stream(key))
        template_id = key.partition("/")[2]
        if template.revision and self._chance.random() < 0.3:
            template.retire(PROVIDER, template_id)
        else:
            revision = self._chance.choice("ab")
            template.revise(PROVIDER, template_id, revision, {"max_number": revision})
        if template.has_pending:
            self._save(template)

    def change_fleet(self) -> None:
        if not self.batches:
            return
        batch_id = self._chance.choice(self.batches)
        fleet = self._store.get(Fleet, batch_id) or Fleet(Fleet.stream(batch_id))
        if not fleet.state:
            fleet.create(
                api="EC2Fleet", fleet_id="fleet-1", fleet_type="maintain", target=3,
                account="default", region="us-east-1", provider=PROVIDER, launch_template="",
            )  # fmt: skip
        elif fleet.state == "deleting":
            fleet.delete()
        elif fleet.intended:
            fleet.set_target()
        elif self._chance.random() < 0.5:
            fleet.intend_target(1, 0, "less")
        else:
            fleet.intend_deletion("its last machine is gone")
        if fleet.has_pending:
            self._save(fleet)

    def change_launch_template(self) -> None:
        key = LaunchTemplate.key("default", "us-east-1", self._chance.choice("ab"))
        there = self._store.get(LaunchTemplate, key) or LaunchTemplate(LaunchTemplate.stream(key))
        if there.state == "open":
            there.create("lt-1") if self._chance.random() < 0.7 else there.reject("Code", "no")
        elif there.state == "created":
            there.intend_deletion("nobody uses it")
        elif there.state == "deleting":
            there.delete()
        else:
            there.intend(
                name=key[-1], token="t", payload={}, account="default", region="us-east-1",
                provider=PROVIDER,
            )  # fmt: skip
        self._save(there)

    def brake(self) -> None:
        brake = self._store.get(Brake, "") or Brake(Brake.stream(""))
        if brake.scope:
            brake.resume("well")
        else:
            brake.pause(self._chance.choice([LAUNCHING, EVERYTHING]), "a test")
        self._save(brake)
