"""One seed: a site, what is asked of it, and what goes wrong, step by step."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from application import crash_points
from application.failures import StoreBusy
from application.pausing import Pause, Resume, pause, resume
from domain.brake import EVERYTHING, LAUNCHING
from domain.refusals import Refusal
from interfaces.write_side.container import WriteSide
from interfaces.write_side.read_models import rebuild
from tests.simulation.host_factory import HostFactory
from tests.simulation.promises import Broken, Promises, keep
from tests.simulation.seeds import STEPS
from tests.simulation.site import DRAWN, SimulatedSite, seeded
from tests.stores import Place
from tests.world import ACTIONS

COMPARED_EVERY = 10
"""Steps between two comparisons of the read models with a replay."""

LONGEST_REST = 6 * 3600.0
"""Seconds in which all that is open must come to its end once nothing goes wrong any more."""

HOUR, DAY = 3600.0, 86_400.0
OTHERS = (
    "DescribeInstances", "TerminateInstances", "CreateTags", "CreateLaunchTemplate",
    "DeleteLaunchTemplate", "DeleteFleets", "DescribeFleets", "ModifyFleet", "DescribeImages",
    "UpdateAutoScalingGroup", "DeleteAutoScalingGroup", "DescribeAutoScalingGroups",
    "CancelSpotFleetRequests", "ModifySpotFleetRequest", "DescribeSpotFleetRequests", "*",
)  # fmt: skip
"""Calls that may be hit beside those that launch."""

KINDS = (
    "throttle", "throttle", "error", "e500", "e503", "hang", "slow", "slow", "reset_before",
    "refused", "lost_response", "lost_response", "cap", "fleet_errors",
)  # fmt: skip
CODES = (
    "InsufficientInstanceCapacity", "VcpuLimitExceeded", "RequestLimitExceeded",
    "UnauthorizedOperation", "InternalError",
)  # fmt: skip


@dataclass
class Result:
    """How a seed went: `failure` is "" when every promise held, `steps` what was done."""

    seed: int
    failure: str = ""
    step: int = 0
    steps: list[str] = field(default_factory=list)
    store: str = ""
    days: float = 0.0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


def simulate(
    seed: int,
    place: Callable[[str], Place],
    steps: int = STEPS,
    stores: tuple[str, ...] = DRAWN,
    kind: type[Simulation] | None = None,
) -> Result:
    """Run one seed. `place` gives a new place for a kind of store, `kind` is what is run.

    A broken promise or a defect is the result's `failure`."""
    result = Result(seed)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    root = Path(tempfile.mkdtemp(prefix="simulation-", dir=memory))
    began = time.perf_counter()
    with seeded(seed) as chance:
        result.store = chance.choice(stores)
        site = SimulatedSite(root / "site", chance, place(result.store))
        simulation = (kind or Simulation)(site, chance, result)
        try:
            simulation.run(steps)
        except (Exception, crash_points.Crash) as error:
            at = error.__traceback__
            while at is not None and at.tb_next is not None:
                at = at.tb_next
            where = f" ({at.tb_frame.f_code.co_filename}:{at.tb_lineno})" if at else ""
            told = str(error) if isinstance(error, Broken) else f"{error!r}{where}"
            result.failure = told or repr(error)
            error.__traceback__ = None
        finally:
            result.days = (site.clock.seconds - 1000.0) / DAY
            result.counts.update(
                calls=len(site.sandbox.calls),
                machines=len(site.events("MachineLaunched")) if not result.failure else 0,
                crashes=site.died,
                polls=simulation.host_factory.calls,
            )
            site.close()
            shutil.rmtree(root, ignore_errors=True)
    result.seconds = time.perf_counter() - began
    return result


def die(name: str) -> None:
    """As a process that is killed: nothing of it goes on."""
    raise crash_points.Crash(name)


class Simulation:
    """What may happen to a site; each step is one thing by chance, and then the promises."""

    def __init__(self, site: SimulatedSite, chance: random.Random, result: Result) -> None:
        self.site = site
        self.chance = chance
        self.result = result
        self.host_factory = HostFactory(site, self.tell)
        self.promises = Promises(site)
        self._deadline = 0.0
        self._protected: set[str] = set()
        self._actions: list[tuple[int, Callable[[], None]]] = [
            (14, self.ask),
            (8, self.give_back),
            (16, self.go_on_shortly),
            (8, self.go_on),
            (2, self.go_on_for_long),
            (3, self.stand_still),
            (12, self.something_fails),
            (4, self.nothing_fails),
            (3, self.capacity_ends),
            (4, self.machines_end),
            (2, self.machines_stop),
            (3, self.spot_machines_are_taken),
            (2, self.machines_are_protected),
            (10, self.a_process_dies),
            (2, self.the_worker_dies),
            (3, self.another_worker_starts),
            (4, self.a_worker_is_paused),
            (2, self.the_wall_clock_steps),
            (2, self.the_machine_reboots),
            (2, self.templates_change),
            (3, self.somebody_cancels),
            (2, self.somebody_pauses),
            (1, self.read_models_are_rebuilt),
            (2, self.host_factory_asks_again),
        ]

    def tell(self, what: str) -> None:
        """A line of what was done, with the time since the beginning."""
        seconds = int(self.site.clock.seconds - 1000)
        days, rest = divmod(seconds, int(DAY))
        clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
        self.result.steps.append(f"step {self.result.step:3} day {days} {clock} {what}")

    # -- running ----------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """All steps, and the end: what is held is returned and nothing may be left."""
        where = "inline" if self.site.inline else "a worker"
        self.tell(f"a site on {self.result.store}, {where}, {self.site.environ}")
        self.start_worker()
        if crash_points.reached is not None:
            crash_points.reached.clear()  # those of the making of the store come no more
        self.go_on_for(5)
        weights = [weight for weight, _ in self._actions]
        for number in range(1, steps + 1):
            self.result.step = number
            (act,) = self.chance.choices([act for _, act in self._actions], weights)
            act()
            self.result.counts[act.__name__] += 1
            self.promises.after_step()
            if number % COMPARED_EVERY == 0:
                self.promises.read_models()
        self.result.step += 1
        self.come_to_rest()
        self.result.step += 1
        self.return_everything()
        self.promises.after_step()
        self.promises.nothing_left()
        self.promises.read_models()
        self.promises.log()

    def come_to_rest(self) -> None:
        """Nothing goes wrong any more: all that is open comes to its end."""
        self.tell("nothing goes wrong any more")
        self.nothing_fails()
        crash_points.crash_at("")
        self.site.sandbox.protect(sorted(self._protected & self.site.live()), on=False)
        self._protected.clear()
        self._brake("")
        self.start_worker()
        rests = self.go_on_for(LONGEST_REST, 5.0, self.is_at_rest)
        if not rests:
            keep("what is open comes to its end", self._what_is_open())
            self.promises.agreement()

    def return_everything(self) -> None:
        """HostFactory returns all hosts, and calls on until what it never knew is ended too."""
        self.tell(f"HostFactory returns its {len(self.host_factory.hosts)} hosts")
        if self.host_factory.hosts:
            self.host_factory.give_back(sorted(self.host_factory.hosts))
        gone = self.go_on_for(LONGEST_REST, 10.0, lambda: self._quiet() and not self._left())
        keep("all that is returned ends", not gone and (self._what_is_open(), self._left()))

    def is_at_rest(self) -> bool:
        if self.host_factory.open() or not self._quiet():
            return False
        try:
            self.promises.agreement()
        except Broken:
            return False
        return True

    def _quiet(self) -> bool:
        return not self._what_is_open()

    def _left(self) -> dict[str, Any]:
        """What of ours is at AWS."""
        live = {"instances": sorted(self.site.live())} if self.site.live() else {}
        return {**self.site.leftovers(), **live}

    def _what_is_open(self) -> dict[str, list[Any]]:
        query = self.site.query
        found = {
            "requests": query("SELECT request_id, message FROM requests WHERE final = 0"),
            "batches": query(
                "SELECT batch_id, state, code FROM batches "
                "WHERE state IN ('open', 'doubtful', 'filling')"
            ),
            "terminations": query("SELECT termination_id FROM terminations WHERE state = 'open'"),
            "machines": query(
                "SELECT machine_id, owed FROM machines WHERE alive = 1 AND owed <> ''"
            ),
        }
        return {kind: rows for kind, rows in found.items() if rows}

    def start_worker(self) -> None:
        if self.site.inline or self.site.workers:
            return
        try:
            self.site.start_worker()
        except crash_points.Crash as crash:
            self.tell(f"a worker that starts dies at {crash}")

    def _poll(self) -> None:
        """HostFactory's round, and a supervisor that starts a worker when none is there."""
        if not self.site.workers and self.site.clock.seconds >= self._deadline:
            self.start_worker()
        self.host_factory.poll()

    def go_on_for(
        self, seconds: float, step: float = 1.0, until: Callable[[], bool] | None = None
    ) -> bool:
        looked = [self.site.clock.seconds]

        def now_and_then() -> bool:
            if until is None or self.site.clock.seconds - looked[0] < 30:
                return False
            looked[0] = self.site.clock.seconds
            return until()

        died = self.site.died
        found = self.site.run(seconds, now_and_then, step, self._poll)
        if self.site.died > died:
            self._deadline = self.site.clock.seconds + self.chance.choice([0.0, 5.0, 100.0])
        return found

    # -- demand -----------------------------------------------------------------------------------

    def ask(self) -> None:
        offered = self.host_factory.call("getAvailableTemplates", {})
        if offered is None:
            return
        chosen = self.chance.choice(offered["templates"])
        count = self.chance.choice([1, 1, 2, 3, 5, 8, 20])
        lost = self.chance.random() < 0.12
        for _ in range(self.chance.choice([1, 1, 1, 4])):
            request_id = self.host_factory.ask(chosen["templateId"], count, lost)
            self.tell(f"asks for {count} of {chosen['templateId']}: {request_id or 'no id'}")
            lost = False

    def give_back(self) -> None:
        hosts = sorted(self.host_factory.hosts)
        if not hosts:
            return
        some = self.chance.sample(hosts, self.chance.randint(1, min(len(hosts), 12)))
        lost = self.chance.random() < 0.12
        self.tell(f"gives back {len(some)}: {self.host_factory.give_back(some, lost) or 'no id'}")

    def host_factory_asks_again(self) -> None:
        """HostFactory was started anew and asks for all that it has in its book."""
        ids = [*self.host_factory.requests, *self.host_factory.returns]
        self.tell(f"HostFactory asks for all of its {len(ids)} requests again")
        self.host_factory.ask_for_status(ids)

    # -- time -------------------------------------------------------------------------------------

    def go_on_shortly(self) -> None:
        self.go_on_for(self.chance.choice([1, 3, 10, 30, 60]))

    def go_on(self) -> None:
        minutes = self.chance.choice([2, 5, 15])
        self.tell(f"{minutes} minutes go by")
        self.go_on_for(minutes * 60, 5.0)

    def go_on_for_long(self) -> None:
        hours = self.chance.choice([0.5, 1, 2])
        self.tell(f"{hours} hours go by")
        self.go_on_for(hours * HOUR, 20.0)

    def stand_still(self) -> None:
        """The machine is suspended, or the service is off: nobody calls and nobody works."""
        hours = self.chance.choice([0.1, 1, 5, 24, 60])
        self.tell(f"nothing runs for {hours} hours")
        self.site.clock.advance(hours * HOUR)

    def the_wall_clock_steps(self) -> None:
        seconds = self.chance.choice([-3600.0, -30.0, 30.0, 3600.0])
        self.tell(f"the wall clock steps by {seconds:g} s")
        self.site.clock.step_wall(seconds)

    # -- AWS --------------------------------------------------------------------------------------

    def something_fails(self) -> None:
        kind = self.chance.choice(KINDS)
        launching = sorted(set(ACTIONS.values()))
        action = self.chance.choice(launching if self.chance.random() < 0.6 else OTHERS)
        more: dict[str, Any] = {}
        if kind == "error":
            code = self.chance.choice(CODES)
            more = {"code": code, "message": "so it is", "status": self.chance.choice([400, 500])}
        elif kind == "cap":
            more = {"limit": self.chance.choice([0, 1, 2])}
        elif kind == "slow":
            more = {"late": self.chance.choice([0.0, 5.0, 120.0])}
        elif kind == "e500":
            more = {"after": self.chance.choice([True, False])}
        elif kind == "fleet_errors":
            some = self.chance.sample(CODES, self.chance.randint(1, 2))
            more = {"codes": some, "launch": self.chance.choice([0, 1])}
        if kind in ("cap", "fleet_errors"):
            action = "CreateFleet" if kind == "fleet_errors" else self.chance.choice(launching)
        first, times = self.chance.choice([1, 1, 2]), self.chance.choice([1, 1, 2, 5, -1])
        self.tell(f"{kind} on {action} from call {first}, {times} times, {more}")
        self.site.sandbox.add_fault(kind, action=action, from_call=first, times=times, **more)

    def nothing_fails(self) -> None:
        self.tell("faults are over")
        self.site.sandbox.clear_faults()
        self.site.sandbox.set_capacity(None)

    def capacity_ends(self) -> None:
        limit = self.chance.choice([0, 2, 6])
        self.tell(f"AWS has {limit} machines")
        self.site.sandbox.set_capacity(limit)

    def _some_that_live(self, **wanted: str) -> list[str]:
        live = self.site.sandbox.live_instances()
        ids = [i for i, facts in sorted(live.items()) if wanted.items() <= facts.items()]
        return self.chance.sample(ids, min(len(ids), self.chance.randint(1, 3)))

    def machines_end(self) -> None:
        some = self._some_that_live()
        self.tell(f"{some} end behind our back")
        self.site.sandbox.terminate_behind_back(some)

    def machines_stop(self) -> None:
        some = self._some_that_live(state="running")
        self.tell(f"{some} are stopped by somebody")
        self.site.sandbox.stop_behind_back(some)

    def spot_machines_are_taken(self) -> None:
        some = self._some_that_live(lifecycle="spot", state="running")
        notice, before = self.chance.choice([0.0, 120.0]), self.chance.choice([0.0, 200.0])
        self.tell(f"AWS takes {some} back, with {notice:g} s notice")
        self.site.sandbox.interrupt(some, notice, before)

    def machines_are_protected(self) -> None:
        some = self._some_that_live()
        self.tell(f"{some} are protected")
        self.site.sandbox.protect(some)
        self._protected.update(some)

    # -- processes --------------------------------------------------------------------------------

    def a_process_dies(self) -> None:
        """The one that next reaches a point that was reached before, for the nth time."""
        point = self.chance.choice(sorted(crash_points.reached or {"worker.turn"}))
        times = self.chance.choice([1, 1, 2, 3])
        self.tell(f"whoever reaches {point} for the {times}. time dies")
        self.arm(f"{point}#{times}", die)
        if self.chance.random() < 0.5:
            self.ask()
        self.go_on_for(self.chance.choice([30, 120]))
        crash_points.crash_at("")

    def arm(self, point: str, act: Callable[[str], Any]) -> None:
        """Have whoever reaches the crash point (`name#times`) do this, once."""

        def once(name: str) -> None:
            crash_points.crash_at("")
            act(name)

        crash_points.die = once  # type: ignore[assignment]
        crash_points.crash_at(point)

    def the_worker_dies(self) -> None:
        for worker in list(self.site.workers):
            self.tell("the worker is killed")
            self.site.kill(worker)
        self._deadline = self.site.clock.seconds + self.chance.choice([0.0, 30.0, 600.0])

    def another_worker_starts(self) -> None:
        if not self.site.inline and len(self.site.workers) < 3:
            self.tell("another worker starts")
            self.site.start_worker()

    def a_worker_is_paused(self) -> None:
        """Stopped before or after a call to AWS, while another one works: SIGSTOP, then SIGCONT."""
        calls = [p for p in sorted(crash_points.reached or ()) if p.startswith("aws.")]
        if self.site.inline or not calls:
            return
        point, seconds = self.chance.choice(calls), self.chance.choice([10.0, 100.0, 2 * HOUR])
        self.tell(f"the worker that reaches {point} is paused for {seconds:g} s")
        self.arm(point, lambda name: self._pause(seconds))
        self.go_on_for(60)
        crash_points.crash_at("")

    def _pause(self, seconds: float) -> None:
        # Whoever reached the point is in the midst of its tick: the first one that works.
        paused = next(iter(self.site.lookings), None)
        if paused is None:
            return
        self.tell("a worker is paused")
        self.site.workers.remove(paused)
        self.site.start_worker()
        self.site.run(min(seconds, 300), step=5.0, poll=self._poll)
        self.site.clock.advance(max(0.0, seconds - 300))
        self.site.run(60, step=5.0, poll=self._poll)
        self.site.workers.append(paused)
        self.tell("it goes on")

    def the_machine_reboots(self) -> None:
        self.tell("the machine reboots")
        self.site.reboot()
        self.site.clock.advance(self.chance.choice([30.0, 600.0]))

    # -- people -----------------------------------------------------------------------------------

    def templates_change(self) -> None:
        self.tell("the templates are edited")
        self.site.change_templates()

    def somebody_cancels(self) -> None:
        if not self.host_factory.open():
            return
        request_id = self.chance.choice(self.host_factory.open())
        if request_id in self.host_factory.requests:
            self.tell(f"an operator cancels {request_id}")
            try:
                self.site.cancel(request_id)
            except Refusal as refused:
                self.tell(f"refused: {refused}")

    def somebody_pauses(self) -> None:
        self._brake(self.chance.choice([EVERYTHING, LAUNCHING, "", ""]))

    def _brake(self, scope: str) -> None:
        self.tell(f"an operator pauses {scope}" if scope else "an operator resumes")
        with closing(self.site.storage().event_store(self.site.clock, {"user": "test"})) as store:
            try:
                if scope:
                    pause(Pause(scope, "wait", self.site.random(16)), store)
                else:
                    resume(Resume("go on", self.site.random(16)), store)
            except Refusal as refused:
                self.tell(f"refused: {refused}")

    def read_models_are_rebuilt(self) -> None:
        self.tell("the read models are rebuilt")
        side = WriteSide(site=self.site.site, environ=self.site.environ, clock=self.site.clock)
        with closing(side.store()):
            try:
                rebuild(side, lambda done, of: None)
            except StoreBusy as busy:
                self.tell(f"refused: {busy}")
