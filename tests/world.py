"""A whole site in one process: real store, real policies, the sandbox for EC2, a clock that obeys.

The five verbs are called as HostFactory calls them, but for the process around them; a worker can
be killed at any crash point and started again. Nothing waits.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dependency_injector import providers

from application import crash_points
from application.cancel_request import CancelRequest, cancel_request
from application.copy_store import copy_store
from application.failures import StoreError
from application.instants import Instant
from application.version import VERSION
from infrastructure import compiled
from infrastructure.sandbox.ec2 import Call as SandboxCall
from infrastructure.sandbox.ec2 import Sandbox
from infrastructure.site import Site
from infrastructure.storage import storage_of
from interfaces.hostfactory import reads, writes
from interfaces.read_side import Call
from interfaces.worker.loop import Worker
from tests.fakes.clock import ClockBeside, FakeClock
from tests.stores import Place, at_crash_point

if TYPE_CHECKING:
    from infrastructure.storage import Storage

TEMPLATE: dict[str, Any] = {
    "templateId": "OnDemand-A",
    "maxNumber": 2000,
    "imageId": "ami-0a1b2c3d",
    "subnetId": "subnet-a1",
    "vmType": "t3.medium",
    "attributes": {
        "type": ["String", "X86_64"],
        "ncpus": ["Numeric", "2"],
        "nram": ["Numeric", "4096"],
    },
}

SPOT_FLEET = {"providerApi": "SpotFleet", "fleetRole": "arn:aws:iam::123456789012:role/fleet"}
WAYS: dict[str, dict[str, Any]] = {
    "RunInstances": {},
    "fleet-instant": {"providerApi": "EC2Fleet", "fleetType": "instant"},
    "fleet-request": {"providerApi": "EC2Fleet", "fleetType": "request"},
    "fleet-maintain": {"providerApi": "EC2Fleet", "fleetType": "maintain"},
    "spot-fleet-request": {**SPOT_FLEET, "fleetType": "request", "fulfilmentDeadline": 300},
    "spot-fleet-maintain": {**SPOT_FLEET, "fleetType": "maintain", "fulfilmentDeadline": 300},
    "group": {"providerApi": "ASG"},
}
"""Every way to launch: what a template says for it beside TEMPLATE."""

ACTIONS = {
    "RunInstances": "RunInstances",
    "fleet-instant": "CreateFleet",
    "fleet-request": "CreateFleet",
    "fleet-maintain": "CreateFleet",
    "spot-fleet-request": "RequestSpotFleet",
    "spot-fleet-maintain": "RequestSpotFleet",
    "group": "CreateAutoScalingGroup",
}
"""Way -> the call that launches."""

every_way = pytest.mark.parametrize("way", WAYS)
"""For a test with the fixture `way_world`, or that makes its worlds `way` by way."""

VERBS = {**reads.VERBS, **writes.VERBS}


class _Waiting:
    """The clock of a call: while the call waits, the workers go on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> Instant:
        return self._world.clock.now()

    def sleep(self, seconds: float) -> None:
        self._world.clock.advance(seconds)
        self._world.tick()


class World:
    """One site. `settings` are HOSTLEDGER_SECTION__KEY values, `config` is its hostledger.json,
    `sandbox` options of the Sandbox; `way` (of WAYS) is how its templates launch; `place` is where
    the store is (`tests/stores.py`), `new_place` gives another one where a store is not a file.
    `beside` is a site on another machine that shares the store and the cloud."""

    def __init__(
        self,
        root: Path,
        templates: list[dict[str, Any]] | None = None,
        settings: dict[str, str] | None = None,
        way: str = "RunInstances",
        config: dict[str, Any] | None = None,
        place: Place | None = None,
        new_place: Callable[[], Place] | None = None,
        beside: World | None = None,
        clock: FakeClock | None = None,
        **sandbox: Any,
    ) -> None:
        self.root = root
        self.way = way
        self.action = ACTIONS[way]
        if beside is None:
            self.clock = clock or FakeClock()
            # AWS keeps its own time: stepping our wall clock must not move it.
            began = self.clock.wall - self.clock.seconds
            self.sandbox = Sandbox(clock=lambda: began + self.clock.seconds, **sandbox)
        else:
            self.clock = ClockBeside(beside.clock)  # type: ignore[assignment]
            self.sandbox = beside.sandbox
        for name in ("conf", "work", "log"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.site = Site("awsinst", f"{root}/conf", f"{root}/work", f"{root}/log")
        self.write_config({"AWS_REGION": "us-east-1"})
        if config is not None:
            self.write_own_config(config)
        self.write_templates(templates or [TEMPLATE])
        self.place = place or Place("sqlite", {})
        self.new_place = new_place
        self.backups: list[str] = []
        self.environ = {
            "HOSTLEDGER_WORKER__MODE": "external",
            # Seldom: each collection costs as much as ten turns of a quiet site.
            "HOSTLEDGER_MONITORING__PERFORMANCE__COLLECTION_INTERVAL": "600",
            **self.place.variables(),
            **(settings or {}),
        }
        self.path = self.site.state_dir + "/ledger.db"
        if beside is None:
            self.deployment = self.storage().create(self.clock, {"user": "test"}, VERSION)
        else:
            self.deployment = beside.deployment
            Path(self.site.state_dir).mkdir(mode=0o700)
        self.workers: list[Worker] = []
        self._random = 0 if beside is None else 1 << 32

    # -- the site's files -------------------------------------------------------------------------

    def write_templates(self, templates: list[dict[str, Any]]) -> None:
        text = json.dumps({"templates": [{**WAYS[self.way], **t} for t in templates]})
        (self.root / "conf/awsprov_templates.json").write_text(text)

    def write_config(self, config: dict[str, Any]) -> None:
        (self.root / "conf/awsprov_config.json").write_text(json.dumps(config))

    def write_own_config(self, config: dict[str, Any]) -> None:
        (self.root / "conf/hostledger.json").write_text(json.dumps(config))

    # -- HostFactory ------------------------------------------------------------------------------

    def call(self, verb: str, document: dict[str, Any]) -> dict[str, Any]:
        """What the verb answers. Raises what the process around it would turn into exit 1."""
        call = Call(verb, self.environ, "python", site=self.site)
        call.clock = _Waiting(self)  # type: ignore[assignment]
        call.now = self.clock.now()
        call.overrides = {
            "on_client": providers.Object(self.sandbox.attach),
            "random": providers.Object(self.random),
        }
        answer = VERBS[verb](call, document, "input")
        call.take_wanted_turn()
        return json.loads(answer)  # type: ignore[no-any-return]

    def request(self, count: int, template_id: str = "OnDemand-A") -> str:
        answer = self.call(
            "requestMachines", {"template": {"templateId": template_id, "machineCount": count}}
        )
        return str(answer["requestId"])

    def status(self, request_id: str) -> dict[str, Any]:
        answer = self.call("getRequestStatus", {"requests": [{"requestId": request_id}]})
        (entry,) = answer["requests"]
        return entry  # type: ignore[no-any-return]

    def give_back(self, machines: list[dict[str, Any]]) -> str:
        named = [{"machineId": m["machineId"], "name": m["name"]} for m in machines]
        return str(self.call("requestReturnMachines", {"machines": named})["requestId"])

    def to_give_up(self, machines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        named = [{"machineId": m["machineId"], "name": m["name"]} for m in machines]
        return self.call("getReturnRequests", {"machines": named})["requests"]  # type: ignore[no-any-return]

    def cancel(self, request_id: str, reason: str = "no longer needed") -> str:
        """What `hostledger requests cancel` does; the id of the return of its machines, or ""."""
        storage = self.storage()
        store = storage.event_store(self.clock, {"user": "test"})
        try:
            living = storage.work(store, "default", "us-east-1").living_machines_of(request_id)
            command = CancelRequest(
                request_id, self.site.provider, living, reason, "operator", self.random(16)
            )
            return cancel_request(command, store)
        finally:
            store.close()

    # -- the store --------------------------------------------------------------------------------

    def storage(self) -> Storage:
        """The site's store as its configuration says it."""
        return storage_of(self.site, compiled.load(self.site, self.environ).settings)

    def backup(self) -> str:
        """The path of an inert copy, as `hostledger store backup` makes it."""
        path = f"{self.root}/backup-{len(self.backups)}.db"
        self.storage().backup(path)
        self.backups.append(path)
        return path

    def restore(self, backup: str) -> None:
        """Lose the store and fill an empty place from a backup, as `hostledger store restore` does.
        A server's store is restored into another database, or other tables."""
        gc.collect()
        if self.new_place is not None:
            self.place = self.new_place()
            self.environ |= self.place.variables()
        for path in Path(self.site.state_dir).glob("ledger.db*"):
            if path.suffix != ".lock":
                path.unlink()
        shutil.rmtree(f"{self.site.state_dir}/json", ignore_errors=True)
        source = Place("sqlite", {"url": f"sqlite:{backup}"}).storage(str(self.root / "work"))
        with (
            closing(source.source()) as view,
            closing(
                self.storage().begin_copy(self.deployment, self.clock, {"user": "test"})
            ) as target,
        ):
            copy_store(view, target)

    def refusal(self, verb: str, document: dict[str, Any]) -> StoreError:
        """Why a call cannot use the store."""
        with pytest.raises(StoreError) as refused:
            self.call(verb, document)
        return refused.value

    # -- workers ----------------------------------------------------------------------------------

    def random(self, size: int) -> bytes:
        """Different each time and the same in each run."""
        self._random += 1
        return self._random.to_bytes(8, "big").rjust(size, b"\0")[:size]

    def start_worker(self, version: str = VERSION, **overrides: Any) -> Worker:
        overrides.setdefault("clock", providers.Object(self.clock))
        overrides.setdefault("on_client", providers.Object(self.sandbox.attach))
        overrides.setdefault("random", providers.Object(self.random))
        worker = Worker(self.site, self.environ, program_version=version, **overrides)
        self.workers.append(worker)
        return worker

    def kill(self, worker: Worker) -> None:
        """What the kernel does to a process that dies: its locks and connections are gone."""
        worker.lease.let_go()
        worker.store.close()
        self.workers.remove(worker)

    def dying_at(self, point: str) -> AbstractContextManager[None]:
        """Within: reaching the point raises Crash, once."""

        def die(name: str) -> None:
            raise crash_points.Crash(name)

        return at_crash_point(point, die)

    def die_at(self, point: str, seconds: float = 300.0) -> None:
        """Let time pass until the one worker dies at this point, as by SIGKILL."""
        (worker,) = self.workers
        try:
            with self.dying_at(point):
                self.run(seconds)
        except crash_points.Crash:
            self.kill(worker)
            return
        raise AssertionError(f"{point} was not reached in {seconds:g} s")

    def pausing_at(
        self, point: str, meanwhile: Callable[[], object]
    ) -> AbstractContextManager[None]:
        """Within: who first reaches the point is held there while `meanwhile` happens."""

        def hold(_: str) -> None:
            crash_points.crash_at("")
            meanwhile()

        return at_crash_point(point, hold)

    def tick(self) -> None:
        """One look of every worker; those that end are gone."""
        for worker in list(self.workers):
            if not worker.tick():
                worker.end()
                self.workers.remove(worker)

    def run(
        self,
        seconds: float,
        until: Callable[[], bool] | None = None,
        step: float = 1.0,
        poll: Callable[[], object] | None = None,
    ) -> bool:
        """Let time pass, a tick of every worker each step; True when `until` came true."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            self.tick()
            if poll is not None:
                poll()
            if until is not None and until():
                return True
            self.clock.advance(step)
        return False

    def _is_final(self, request_id: str, every: float) -> Callable[[], bool]:
        """Asks for the status when it is due, as HostFactory does, which asks less often yet: each
        question opens the store anew, which costs more than a quiet turn."""
        due = self.clock.seconds

        def ask() -> bool:
            nonlocal due
            if self.clock.seconds < due:
                return False
            due = self.clock.seconds + every
            return bool(self.status(request_id)["status"] != "running")

        return ask

    def run_until_final(
        self, request_id: str, seconds: float = 900.0, step: float = 1.0
    ) -> dict[str, Any]:
        """Poll as HostFactory does until the answer is final; the answer."""
        done = self.run(seconds, self._is_final(request_id, 5), step)
        answer = self.status(request_id)
        assert done, answer
        return answer

    def final(self, request_id: str, seconds: float = 3600.0) -> dict[str, Any]:
        """The final answer, in coarse steps."""
        self.run(10)
        self.run(seconds, self._is_final(request_id, 15), step=5.0)
        answer = self.status(request_id)
        assert answer["status"] != "running", answer
        return answer

    def leave_nothing(self, machines: list[dict[str, Any]] | None = None) -> None:
        """Return these machines, or all that nobody has given back, and see that whatever was made
        for them goes too."""
        if machines is None:
            machines = [
                {"machineId": machine_id, "name": name}
                for machine_id, name in self.query(
                    "SELECT machine_id, name FROM machines WHERE alive = 1 AND owed = ''"
                )
            ]
        if machines:
            assert self.final(self.give_back(machines))["status"] == "complete"
        self.run(250, step=10.0)
        self.assert_nothing_left()

    def fulfilled(self, count: int) -> list[dict[str, Any]]:
        """Ask for machines and wait until the request is complete; its machines."""
        answer = self.run_until_final(self.request(count), step=5.0)
        assert answer["status"] == "complete", answer
        machines: list[dict[str, Any]] = answer["machines"]
        return machines

    # -- the truth --------------------------------------------------------------------------------

    def live(self) -> set[str]:
        """Ids of the instances that carry our deployment's tag and live, lag or not."""
        return set(self.sandbox.live_instances({"hostledger:deployment": self.deployment}))

    def owned(self) -> set[str]:
        """Ids of the machines that the ledger says live."""
        return {row[0] for row in self.query("SELECT machine_id FROM machines WHERE alive = 1")}

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        view = self.storage().log()
        try:
            return view._connection.execute(statement, parameters).fetchall()  # type: ignore[no-any-return]
        finally:
            view.close()

    def events(self, topic: str) -> list[dict[str, Any]]:
        """The fields of every event of this topic, in the order of the log."""
        rows = self.query("SELECT data FROM events WHERE topic = ? ORDER BY position", topic)
        return [json.loads(row[0]) for row in rows]

    def streams(self, topic: str) -> list[tuple[str, dict[str, Any]]]:
        """(stream, fields) of every event of this topic, in the order of the log."""
        rows = self.query(
            "SELECT stream, data FROM events WHERE topic = ? ORDER BY position", topic
        )
        return [(stream, json.loads(data)) for stream, data in rows]

    def topics(self) -> list[str]:
        return [row[0] for row in self.query("SELECT topic FROM events ORDER BY position")]

    def launches(self) -> list[SandboxCall]:
        return self.calls_of(self.action)

    def calls_of(self, action: str) -> list[SandboxCall]:
        return [call for call in self.sandbox.calls if call.action == action]

    def assert_agreement(self) -> None:
        """The one assertion of every fault row: live instances by tag equal those that the ledger
        owns, no request has more than it asked for (in units: over by less than one machine), and
        whatever else carries our tag is the ledger's and in use."""
        assert self.live() == self.owned()
        there = self.sandbox.live_instances()
        places = {
            (account, region, there[machine_id]["account"], there[machine_id]["region"])
            for machine_id, account, region in self.query(
                "SELECT machine_id, account, region FROM machines WHERE alive = 1"
            )
        }
        assert len({place[:2] for place in places}) == len({place[2:] for place in places})
        assert len(places) == len({place[2:] for place in places})
        over = self.query(
            "SELECT r.request_id, r.machine_count, sum(m.units) FROM requests r "
            "JOIN machines m ON m.request_id = r.request_id "
            "WHERE m.alive = 1 AND m.owed = '' GROUP BY r.request_id "
            "HAVING sum(m.units) - max(m.units) >= r.machine_count"
        )
        assert over == []
        left = self.leftovers()
        templates = {
            data["launch_template_id"]
            for stream, data in self.streams("LaunchTemplateCreated")
            if self.query(
                "SELECT 1 FROM launch_templates WHERE template_key = ? AND state <> 'deleted'",
                stream.removeprefix("lt-"),
            )
        }
        fleets = {
            fleet_id
            for (fleet_id,) in self.query("SELECT fleet_id FROM fleets WHERE state = 'live'")
        }
        assert set(left.pop("launch_templates", [])) <= templates
        for kind in ("fleets", "spot_fleets", "groups"):
            assert set(left.pop(kind, [])) <= fleets
        assert left == {}

    def leftovers(self) -> dict[str, list[str]]:
        """What of ours is left at AWS besides instances, but for what nobody can name: an instant
        fleet whose call was never answered and none of whose machines was ever seen to live."""
        left = self.sandbox.leftovers({"hostledger:deployment": self.deployment})
        empty = left.pop("empty_fleets", [])
        named = [fleet_id for (fleet_id,) in self.query("SELECT fleet_id FROM fleets")]
        ((unanswered,),) = self.query(
            "SELECT count(*) FROM batches WHERE state = 'settled' "
            "AND batch_id NOT IN (SELECT batch_id FROM fleets)"
        )
        known = [fleet_id for fleet_id in empty if fleet_id in named]
        others = [fleet_id for fleet_id in empty if fleet_id not in named]
        if known or len(others) > unanswered:
            left["fleets"] = left.get("fleets", []) + known + others[unanswered:]
        return left

    def assert_nothing_left(self) -> None:
        """Nothing of ours is at AWS any more."""
        self.assert_agreement()
        assert self.live() == set()
        assert self.leftovers() == {}

    def close(self) -> None:
        for worker in list(self.workers):
            self.kill(worker)
        shutil.rmtree(self.root, ignore_errors=True)
