"""Policy: compare what we own with what EC2 has; record the differences.

A sweep is every instance with our tag, all pages, or it is nothing. Between sweeps only machines
that are changing are asked after, ever more slowly while nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from application.demand import facts, open_claims
from application.failures import EventsArchivedAway
from application.fleets import Fleets, fleet_of
from application.instants import Instant, seconds_between
from application.ports import CallFailed, Cloud, Fleet, Instance
from application.returning import INTERRUPTION, terminations
from application.turn import Turn
from domain.capacity import RUN_INSTANCES, fleet_type
from domain.event_sourced import Aggregate
from domain.launch_batch import LaunchBatch
from domain.machine import Machine
from domain.template import Template

FIRST_POLL, LONGEST_POLL = 1.0, 15.0
PAGE = 1000
"""Instances in a page of a sweep
(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html)."""

VISIBLE_AFTER = 300.0
"""Seconds after its launch in which a machine that EC2 does not show is not missed
(https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html)."""

HEEDED_AFTER = 60.0
"""Seconds after which a machine that runs on although EC2 accepted its end is asked for again."""

ORPHAN_AGE = 600.0
ORPHAN_SWEEPS = 2
MOST_ORPHANS, ORPHAN_SHARE = 5, 0.02
CLOCK_OFF = 3600.0
"""Seconds by which the wall clock may have been slow when the log began or was restored: what was
launched before that may seem so much younger."""

TAGS_A_TURN = 20
LIVING = ("pending", "running", "stopping", "stopped")
IN_TRANSITION = ("pending", "shutting-down")


class Sweep:
    """One look at all that an account has. `alive` and `doubtful` are what the ledger had before,
    `apis` those whose fleets are asked for."""

    def __init__(
        self,
        cloud: Cloud,
        deployment: str,
        doubtful: list[dict[str, Any]],
        apis: Sequence[str],
        alive: dict[str, dict[str, Any]],
        began: Instant,
    ) -> None:
        self._cloud = cloud
        self._deployment = deployment
        self._apis = apis
        self._is_asked = False
        self.doubtful = doubtful
        self.alive = alive
        self.began = began
        self.instances: list[Instance] = []
        self.fleets: list[Fleet] = []
        self.failed: CallFailed | None = None

    def ask(self) -> None:
        """Make its calls, once; nothing else is touched, so that any thread may."""
        if self._is_asked:
            return
        self._is_asked = True
        try:
            self.instances = self._cloud.sweep(self._deployment)
            if self._apis:
                self.fleets = self._cloud.fleets(self._deployment, self._apis)
        except CallFailed as failed:
            self.failed = failed


class Reconciliation:
    def __init__(
        self, turn: Turn, fleets: Fleets, unheeded: set[str], slow_to_start: set[str]
    ) -> None:
        self._turn = turn
        self._fleets = fleets
        self._unheeded = unheeded
        self._slow_to_start = slow_to_start
        self._untagged: list[Instance] = []
        self._swept: Instant | None = None
        self._poll_every = FIRST_POLL
        self._polled = float("-inf")
        self._watched: frozenset[str] = frozenset()
        self._refused_sweep = 0.0
        self.sweep_wanted = False
        """Somebody waits for a fresh sweep (getReturnRequests)."""

    def take_turn(self, sweep: Sweep | None = None) -> None:
        """Sweep when it is due, else ask after what is changing when that is due. `sweep` is this
        turn's, begun just now."""
        sweep = sweep or self.begin_sweep()
        if sweep is not None:
            self._conclude(sweep)
        else:
            batches = self._turn.work.open_batches()
            self._poll([row["batch_id"] for row in batches if row["state"] == "filling"])
        self._tag_with_ids()

    def begin_sweep(self) -> Sweep | None:
        """The sweep that is due, None when none is."""
        if not self._sweep_is_due():
            return None
        turn = self._turn
        doubtful = [row for row in turn.work.open_batches() if row["state"] == "doubtful"]
        # What lives is looked up first: what is launched meanwhile cannot be missing.
        alive = self._alive()
        apis = self._fleets.apis(doubtful)
        return Sweep(turn.cloud, turn.deployment, doubtful, apis, alive, turn.now())

    # -- when -------------------------------------------------------------------------------------

    def _sweep_is_due(self) -> bool:
        """Also when nothing is open: the call of a worker that was paused may launch late."""
        now = self._turn.now()
        if now[2] < self._refused_sweep:
            return False
        if self._swept is None:
            # At start, whatever is open: a predecessor may have left instances behind.
            return True
        since = seconds_between(self._swept, now)
        if (self.sweep_wanted or self._fleets.wants_sweep) and since >= FIRST_POLL:
            return True
        return bool(since >= self._turn.aws["sweep_interval"])

    def _alive(self) -> dict[str, dict[str, Any]]:
        """The living machines by id: ten thousand rows, asked for by a sweep alone."""
        return {row["machine_id"]: row for row in self._turn.work.alive_machines()}

    def _poll(self, filling: list[str]) -> None:
        """Ask after machines that are changing, and after those of fleets that are filling: by id
        or by a look at all, whichever takes fewer calls, and no more than one call a second."""
        turn = self._turn
        changing = turn.work.machines_in(IN_TRANSITION)
        watched = frozenset(changing + filling)
        if watched - self._watched:
            self._poll_every = FIRST_POLL
            self._polled = turn.now()[2]  # give EC2 a moment before the first question
        self._watched = watched
        if not watched or turn.now()[2] - self._polled < self._poll_every:
            return
        by_id = ceil(len(changing) / turn.aws["batch_sizes"]["describe_instances"])
        # One call is what a look at all takes at least: they are not counted for that.
        pages = 1 if by_id <= 1 else max(1, ceil(turn.work.count_alive() / PAGE))
        try:
            if by_id <= pages:
                instances = turn.cloud.find(sorted(changing), batches=filling)
            else:
                instances = [
                    i
                    for i in turn.cloud.sweep(turn.deployment)
                    if i.machine_id in watched or i.batch_id in watched
                ]
        except CallFailed as failed:
            turn.journal.info("poll failed", kind=failed.kind, code=failed.code)
            changed = False
        else:
            found = turn.work.alive_machines([i.machine_id for i in instances])
            changed = self._apply(instances, {row["machine_id"]: row for row in found})
            if filling:
                changed |= self._take_in([i for i in instances if i.batch_id in filling])
        self._polled = turn.now()[2]
        self._poll_every = FIRST_POLL if changed else min(LONGEST_POLL, self._poll_every * 2)
        self._poll_every = max(self._poll_every, min(by_id, pages))

    def _take_in(self, instances: Sequence[Instance]) -> bool:
        """Deal out what fleets have launched since they were last looked at. Whether it was any."""
        turn = self._turn
        living = [i for i in instances if i.state in LIVING]
        known = turn.work.known_machines([i.machine_id for i in living])
        batches: dict[str, list[Instance]] = {}
        for instance in living:
            if instance.machine_id not in known:
                batches.setdefault(instance.batch_id, []).append(instance)
        for batch_id, found in batches.items():
            self._record(batch_id, found)
        return bool(batches)

    # -- sweeping ---------------------------------------------------------------------------------

    def _conclude(self, sweep: Sweep) -> None:
        turn = self._turn
        began, alive = sweep.began, sweep.alive
        sweep.ask()
        if sweep.failed is not None:
            # A partial sweep decides nothing.
            turn.journal.warn("sweep failed", kind=sweep.failed.kind, code=sweep.failed.code)
            self._refused_sweep = began[2] + 5.0
            return
        instances, fleets = sweep.instances, sweep.fleets
        self._swept = began
        self.sweep_wanted = False
        self._apply(instances, alive)
        self._miss(instances, alive)
        launching = {fleet.batch_id for fleet in fleets if fleet.target}
        self._settle(
            instances, [row for row in sweep.doubtful if row["batch_id"] not in launching], began
        )
        self._adopt(instances)
        self._fleets.swept([i for i in instances if i.state in LIVING], began)
        self._fleets.compare(fleets)
        self._note_untagged(instances, alive)
        turn.notebook.record_sweep(began, len(instances))
        self._polled = turn.now()[2]

    def _apply(self, instances: Sequence[Instance], alive: dict[str, dict[str, Any]]) -> bool:
        """Record what changed for machines of ours. Whether anything did."""
        turn = self._turn
        changed = False
        noted: list[tuple[str, str, str]] = []
        as_known: list[str] = []
        with turn.chunks() as add:
            for instance in instances:
                row = alive.get(instance.machine_id)
                if row is None:
                    continue
                if instance.state == "terminated":
                    as_known.append(instance.machine_id)
                    machine = self._machine(row)
                    machine.terminate(row["owed"] or instance.reason or "terminated at EC2")
                elif (
                    instance.state == "running"
                    and row["status"] == "pending"
                    and instance.name
                    and instance.private_ip_address
                ):
                    machine = self._machine(row)
                    machine.run(instance.name, instance.private_ip_address, instance.launch_time)
                else:
                    if instance.state == row["status"]:
                        as_known.append(instance.machine_id)
                    elif instance.interrupted and instance.state == "shutting-down":
                        noted.append((instance.machine_id, row["name"], instance.state))
                        machine = self._machine(row)
                        machine.interrupt(INTERRUPTION, int(turn.now()[0]))
                        add(machine, row["correlation_id"], row["event_id"])
                    elif instance.state in ("stopping", "stopped", "shutting-down"):
                        noted.append((instance.machine_id, row["name"], instance.state))
                    self._heed(instance, row)
                    self._judge_start(instance, row)
                    continue
                changed = True
                add(machine, row["correlation_id"], row["event_id"])
        turn.notebook.clear_cloud_states(as_known)
        turn.notebook.put_cloud_states(noted, turn.now())
        return changed

    def _machine(self, row: dict[str, Any]) -> Machine:
        machine = self._turn.ledger.get(Machine, row["machine_id"])
        assert machine is not None
        return machine

    def _judge_start(self, instance: Instance, row: dict[str, Any]) -> None:
        """Asked just now, it is not running: has it had its time?"""
        # An adopted machine, which no request waits for, may take its time.
        pending = row["status"] == "pending" and row["request_id"] and not row["owed"]
        pending = pending and instance.state in LIVING
        if pending and self._turn.age(row) > self._turn.aws["pending_timeout"]:
            self._slow_to_start.add(row["machine_id"])

    def _heed(self, instance: Instance, row: dict[str, Any]) -> None:
        """EC2 accepted to end it, and it runs on: ask again after a while."""
        if row["status"] != "shutting-down" or instance.state not in LIVING:
            return
        # By the wall clock: when that was set, asking once more does no harm.
        if abs(self._turn.now()[0] - row["updated"]) >= HEEDED_AFTER:
            self._unheeded.add(row["machine_id"])

    def _miss(self, instances: Sequence[Instance], alive: dict[str, dict[str, Any]]) -> None:
        """A machine is gone when complete sweeps lack it and EC2, asked for it by id, has none."""
        turn = self._turn
        seen = {instance.machine_id for instance in instances}
        suspects = turn.notebook.miss(
            [
                machine_id
                for machine_id, row in alive.items()
                if machine_id not in seen and turn.age(row) >= VISIBLE_AFTER
            ],
            turn.now(),
        )
        if not suspects:
            return
        try:
            found = {instance.machine_id: instance for instance in turn.cloud.find(suspects)}
        except CallFailed as failed:
            turn.journal.info("missing machines not asked after", code=failed.code)
            return
        self._apply(list(found.values()), alive)
        with turn.chunks() as add:
            for machine_id in suspects:
                if machine_id in found:
                    continue
                row = alive[machine_id]
                machine = self._machine(row)
                if row["owed"]:
                    machine.terminate(row["owed"])
                else:
                    machine.lose("EC2 does not know it any more")
                add(machine, row["correlation_id"], row["event_id"])

    # -- batches ----------------------------------------------------------------------------------

    def _settle(
        self, instances: Sequence[Instance], doubtful: list[dict[str, Any]], began: Instant
    ) -> None:
        """Close doubtful batches, whose fleets launch no more, by what two complete sweeps found
        under their tag, or one when an operator has ordered it."""
        turn = self._turn
        for row in doubtful:
            since = turn.notebook.first_sweep("doubtful " + row["batch_id"], began)
            if seconds_between(since, began) < turn.cloud.call_time:
                continue  # a call that we gave up may still be on its way
            first = turn.notebook.first_sweep(row["batch_id"], began)
            if first == began and not row["settlement"]:
                continue
            if row["settlement"] or seconds_between(first, began) >= turn.aws["settle_gap"]:
                found = [i for i in instances if i.batch_id == row["batch_id"]]
                self._record(row["batch_id"], [i for i in found if i.state in LIVING])

    def _record(self, batch_id: str, found: list[Instance]) -> None:
        """Give machines of a batch to its claims while they are open, to other demand for the same
        payload, or to nobody. Raises EventsArchivedAway."""
        turn = self._turn
        row = turn.work.batch(batch_id)
        assert row is not None
        is_open = row["state"] in ("open", "doubtful", "filling")
        open_ones = row["claims"] if is_open else []
        content = turn.work.template_content(
            Template.key(row["provider"], row["template_id"]), row["revision"]
        )
        fleet_id = next((instance.fleet_id for instance in found if instance.fleet_id), "")

        def settle() -> list[Aggregate]:
            batch = turn.ledger.get(LaunchBatch, batch_id, from_log=not is_open)
            assert batch is not None
            batch.settle(
                [facts(instance, content) for instance in found], open_claims(turn, open_ones, row)
            )
            saved: list[Aggregate] = [batch]
            if fleet_id and row["api"] != RUN_INSTANCES:
                # The answer that named it was lost; an instance tells.
                saved.append(fleet_of(turn, row, fleet_id, fleet_type(content), 0))
            return saved

        turn.deal(settle, correlation_id=row["correlation_id"], causation_id=row["event_id"])

    def _adopt(self, instances: Sequence[Instance]) -> None:
        """Instances with our tag that the ledger has no machine for."""
        turn = self._turn
        living = [i for i in instances if i.state in LIVING]
        known = turn.work.known_machines([i.machine_id for i in living])
        orphans = []
        late: dict[str, list[Instance]] = {}
        for instance in living:
            if known.get(instance.machine_id):
                continue
            if instance.machine_id in known:
                # The ledger has seen its end, and it lives: told, and left to the operator.
                orphans.append(instance)
                continue
            batch = turn.work.batch(instance.batch_id) if instance.batch_id else None
            if batch is None:
                orphans.append(instance)
            elif batch["state"] not in ("open", "doubtful"):
                late.setdefault(instance.batch_id, []).append(instance)
        self._fleets.late = set(late)
        for batch_id, found in late.items():
            # Of a batch that is closed: given to whoever still waits for such a machine, or ended.
            try:
                self._record(batch_id, found)
            except EventsArchivedAway:
                # A copy of one of its machines, most likely: told, and left to the operator.
                orphans += found
        self._judge(orphans, len(living))

    def _judge(self, orphans: list[Instance], fleet: int) -> None:
        """Instances of a batch that the log has never had: hardly ever terminated, always told."""
        turn = self._turn
        sweeps = turn.notebook.see_orphans(orphans)
        wall = turn.now()[0]
        began = turn.work.oldest_instant()
        doomed = [
            i
            for i in orphans
            if sweeps[i.machine_id] >= ORPHAN_SWEEPS
            and i.batch_id
            and turn.work.batch(i.batch_id) is None
            and wall - i.launch_time > ORPHAN_AGE
            and i.launch_time > began + CLOCK_OFF
        ]
        if doomed and len(orphans) > max(MOST_ORPHANS, ORPHAN_SHARE * fleet):
            turn.journal.error(
                "too many orphans to be ended unasked",
                count=len(orphans),
                next_step="look at `hostledger orphans list`",
            )
            return
        zones: dict[str, list[str]] = {}
        under_way = {m for row in turn.work.open_terminations() for m in row["machine_ids"]}
        for instance in doomed:
            if instance.machine_id not in under_way:
                zones.setdefault(instance.zone, []).append(instance.machine_id)
        for intended in terminations(turn, zones, "orphan: the log has no such batch"):
            turn.save(intended, correlation_id=intended.identifier)

    def _note_untagged(
        self, instances: Sequence[Instance], alive: dict[str, dict[str, Any]]
    ) -> None:
        self._untagged = [
            i
            for i in instances
            if i.machine_id in alive and i.state == "running" and not i.tagged_with_id
        ]

    def _tag_with_ids(self) -> None:
        """AWS_TAG_InstanceID: a few each turn, since each needs a call of its own."""
        turn = self._turn
        if not turn.aws["tag_instance_id"] or turn.paused():
            return
        now, self._untagged = self._untagged[:TAGS_A_TURN], self._untagged[TAGS_A_TURN:]
        for instance in now:
            if turn.paused():
                return
            turn.must_outlive_call()
            try:
                turn.cloud.tag_with_id(instance)
            except CallFailed as failed:
                turn.journal.info("not tagged with its id", code=failed.code)
                return
