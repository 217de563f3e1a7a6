"""Policy: a fleet or group launches no more than its requests want, and goes when it is empty.

Its target is what the ledger says it should keep: the units of its machines that nobody has given
back, and what its claims still want. It is lowered, intent first, before a machine of it is ended,
so that AWS brings none back. AWS changes no target of a fleet of type `request`: that is deleted
when it must launch no more, its machines living on. What comes late is surplus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from application import ports
from application.backoff import Backoff, Seldom
from application.demand import market_for, may_still_launch
from application.instants import Instant, seconds_between
from application.launch_templates import COMPARED_EVERY, STRAYS
from application.ports import CallFailed, Instance
from application.returning import terminations
from application.turn import Turn
from domain.brake import LAUNCHING
from domain.capacity import CREATE_GROUP, MAINTAIN, RUN_INSTANCES, SPOT
from domain.fleet import Fleet
from domain.launch_batch import DOUBTFUL, OPEN, LaunchBatch
from domain.template import Template

FIRST_RETRY, LONGEST_RETRY = 2.0, 60.0

Row = dict[str, Any]


class Fleets:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._backoff = Backoff(turn, FIRST_RETRY, LONGEST_RETRY)
        self._stopped: dict[str, Instant] = {}
        """batch id -> when its fleet was seen to launch no more; a sweep since then closes it."""
        self._swept: Instant | None = None
        self._inhabited: frozenset[str] = frozenset()
        self._starting: frozenset[str] = frozenset()
        """Batches of which the last sweep found machines, and pending ones among them."""
        self._unseen = False
        """Whether a group waits for a sweep to show what it has launched."""
        self.unlowered: set[str] = set()
        """Batches whose fleet would replace a machine that is ended now (returning waits)."""
        self.late: set[str] = set()
        """Batches of which the last sweep found machines that nobody had expected (reconciliation
        says)."""
        self._listed: list[str] = []
        """The APIs whose fleets the last sweep lists."""
        place = f"{turn.cloud.account}/{turn.cloud.region}"
        self._comparing = Seldom(turn, f"fleets of {place}", COMPARED_EVERY)

    def take_turn(self) -> None:
        """Lower targets, close what is filled, delete what is empty. Raises LeaseLost."""
        turn = self._turn
        self.unlowered.clear()
        rows = turn.work.fleets()
        if not rows:
            return
        requests = {request["request_id"]: request for request in turn.work.open_requests()}
        doomed: list[tuple[Row, str]] = []
        # AWS goes on launching for them: what was paused is open demand again when it is resumed.
        none_wanted = turn.work.brake()[0] == LAUNCHING
        for row in rows:
            filling = row["batch_state"] == "filling"
            wanted = 0
            for request_id, units in row["claims"] if filling and not none_wanted else ():
                if request_id in requests and self._is_wanted(row, requests[request_id]):
                    wanted += units
            if row["state"] == "live" and row["fleet_type"] == MAINTAIN:
                self._steer(row, row["kept"] + wanted)
            if filling and (not row["claims"] or (wanted and self._has_all(row))):
                self._close(row)
            elif filling and not wanted:
                self._end_filling(row, doomed)
            elif row["state"] == "deleting":
                doomed.append((row, ""))
            elif self._is_empty(row):
                doomed.append((row, "its last machine is gone"))
        self._delete(doomed)

    def _is_wanted(self, row: Row, request: Row) -> bool:
        """Whether a request takes what the fleet launches yet. One that is heterogeneous has its
        rest on demand in the end, which a spot fleet that goes on asking would keep it from."""
        turn = self._turn
        if not may_still_launch(turn, request):
            return False
        if row["pool"].rpartition("/")[2] != SPOT:
            return True
        key = Template.key(row["provider"], row["template_id"])
        content = turn.work.template_content(key, row["revision"])
        return market_for(turn, content, request) == SPOT

    def swept(self, instances: Sequence[Instance], began: Instant) -> None:
        """A complete sweep that began then found these living instances."""
        self._swept = began
        self._inhabited = frozenset(instance.batch_id for instance in instances)
        self._starting = frozenset(i.batch_id for i in instances if i.state == "pending")
        self._unseen = False

    @property
    def wants_sweep(self) -> bool:
        """Whether a fleet was stopped, or is to be, that no sweep has looked at since."""
        return self._unseen or any(not self._swept_since(at) for at in self._stopped.values())

    def _swept_since(self, at: Instant) -> bool:
        """What was recorded under another boot was so before this worker's first sweep, whatever
        the wall clocks say."""
        if self._swept is None:
            return False
        return at[1] != self._swept[1] or seconds_between(at, self._swept) > 0

    # -- targets ----------------------------------------------------------------------------------

    def _steer(self, row: Row, desired: int) -> None:
        """Lower the target to `desired` units. It is never raised."""
        desired = min(desired, row["target"])
        if desired == row["target"] and row["intended"] is None:
            return
        again = row["intended"] == desired
        reason = row["reason"] if again else "its machines end, or nobody wants more"
        if not self._set_target(row, desired, reason, again):
            self.unlowered.add(row["batch_id"])

    def _set_target(self, row: Row, target: int, reason: str, again: bool) -> bool:
        """Whether AWS has taken it."""
        turn = self._turn
        if not self._may_call(row["batch_id"]):
            return False
        if row["api"] == CREATE_GROUP and self._ends_a_member(row):
            return False
        fleet = self._fleet(row)
        on_demand = row["intended_on_demand"] if again else self._on_demand(row, target)
        if not again:
            fleet.intend_target(target, on_demand, reason)
            self._save(row, fleet)
        turn.must_outlive_call()
        try:
            turn.cloud.set_target(row["api"], row["fleet_id"], target, on_demand)
        except CallFailed as failed:
            self._backoff.failed(row["batch_id"])
            self._tell("target not set", failed, fleet_id=row["fleet_id"])
            if failed.kind == "refused" and target < row["target"]:
                self._refuse_returns(row, failed.code)
            return False
        self._backoff.succeeded(row["batch_id"])
        fleet.set_target()
        self._save(row, fleet)
        row |= {"target": target, "intended": None}
        self._stopped.pop(row["batch_id"], None)
        return True

    def _tell(self, what: str, failed: CallFailed, **facts: str) -> None:
        """A call did not succeed. What AWS refuses, it refuses until somebody acts."""
        journal = self._turn.journal
        if failed.kind != "refused":
            journal.info(what, **facts, code=failed.code)
            return
        journal.error(
            what,
            **facts,
            code=failed.code,
            message=failed.message,
            next_step="do what the message asks: permissions are in `hostledger iam-policy`",
        )

    def _refuse_returns(self, row: Row, code: str) -> None:
        """Returned machines of a fleet whose target AWS refuses to lower live on, owed: it would
        replace them. Each return is told once, as if EC2 refused to terminate them."""
        turn = self._turn
        owed = {
            machine["machine_id"]: machine
            for machine in turn.work.owed_machines()
            if machine["batch_id"] == row["batch_id"]
            and machine["owed"]
            and machine["status"] != "shutting-down"
        }
        why = f"{code} for the target of {row['fleet_id']}, which would replace it"
        for handed_back in turn.work.open_returns():
            waiting = [owed[m] for m in handed_back["alive"] if m in owed]
            told = turn.work.refusals(handed_back["position"]) if waiting else {}
            zones: dict[str, list[str]] = {}
            for machine in waiting:
                if machine["machine_id"] not in told and not machine["protected"]:
                    zones.setdefault(machine["zone"], []).append(machine["machine_id"])
            for refused in terminations(turn, zones, waiting[0]["owed"] if waiting else ""):
                # Over before its call.
                refused.conclude([], [[machine_id, why] for machine_id in refused.machine_ids], "")
                turn.save(
                    refused,
                    correlation_id=waiting[0]["return_id"],
                    causation_id=waiting[0]["event_id"],
                )

    def _on_demand(self, row: Row, target: int) -> int:
        """How much of a target is on demand: what is kept, and its share of what is still wanted of
        what was asked for."""
        batch = self._turn.work.batch(row["batch_id"])
        assert batch is not None
        asked = batch["payload"].get("SpotFleetRequestConfig", batch["payload"])
        asked = asked.get("TargetCapacitySpecification", asked)
        share: int = asked.get("OnDemandTargetCapacity", 0)
        kept: int = min(row["kept_on_demand"], target)
        wanted: int = max(0, target - row["kept"])
        if share < asked.get("TotalTargetCapacity", asked.get("TargetCapacity", 0)):
            wanted = min(wanted, max(0, share - kept))
        return kept + wanted if share else kept

    def _ends_a_member(self, row: Row) -> bool:
        """Whether lowering a group may end a machine that its requests want: a member is protected
        from scaling in only once it is in service
        (https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-instance-protection.html).
        """
        if not self._swept_since(row["created"]):
            self._unseen = True  # what it has launched
            return True
        unrecorded = row["batch_state"] in (OPEN, DOUBTFUL) and row["batch_id"] in self._starting
        return bool(row["kept_pending"] or unrecorded)

    def _may_call(self, batch_id: str) -> bool:
        """These calls carry no token: the holder of the lease before us must have ended its own."""
        return self._backoff.admits(batch_id) and self._may_change()

    def _may_change(self) -> bool:
        return self._turn.outlived_others() and not self._turn.paused()

    def _fleet(self, row: Row) -> Fleet:
        fleet = self._turn.ledger.get(Fleet, row["batch_id"])
        assert fleet is not None
        return fleet

    def _save(self, row: Row, *aggregates: Any) -> None:
        self._turn.save(
            *aggregates, correlation_id=row["correlation_id"], causation_id=row["event_id"]
        )

    # -- the end of filling -----------------------------------------------------------------------

    def _has_all(self, row: Row) -> bool:
        """It has launched all that it was asked for. A claim may lack something even so, when
        another one's last machine overshot it: that is open demand again."""
        have = row["kept"] if row["fleet_type"] == MAINTAIN else row["launched"]
        return bool(have >= row["target"])

    def _end_filling(self, row: Row, doomed: list[tuple[Row, str]]) -> None:
        """Nobody wants more of it: its claims are closed once it has launched its last, which a
        complete sweep has to show."""
        if row["fleet_type"] != MAINTAIN and row["state"] != "deleted":
            doomed.append((row, "its requests want no more"))
        elif row["batch_id"] not in self.unlowered:
            stopped = self._stopped.setdefault(row["batch_id"], self._turn.now())
            if self._swept_since(stopped):
                self._close(row)

    def _close(self, row: Row) -> None:
        turn = self._turn
        batch = turn.ledger.get(LaunchBatch, row["batch_id"])
        assert batch is not None
        shortages: list[list[str]] = []
        if row["claims"]:
            try:
                found = turn.cloud.why_short(row["api"], row["fleet_id"])
            except CallFailed as failed:
                turn.journal.info("reasons of a fleet not known", code=failed.code)
            else:
                shortages = [[s.pool, s.kind, s.code, s.message] for s in found]
        batch.close(row["claims"], shortages)
        self._save(row, batch)
        self._stopped.pop(row["batch_id"], None)

    # -- deleting ---------------------------------------------------------------------------------

    def _is_empty(self, row: Row) -> bool:
        """No machine of it lives, neither in the ledger nor in a sweep since it was made."""
        return (
            row["state"] == "live"
            and row["batch_state"] not in ("open", "doubtful", "filling")
            and not row["alive"]
            and row["batch_id"] not in self._inhabited
            and self._swept_since(row["created"])
        )

    def _delete(self, doomed: list[tuple[Row, str]]) -> None:
        """Intent, call and outcome for all of a kind together. Raises LeaseLost."""
        turn = self._turn
        kinds: dict[tuple[str, str], dict[str, tuple[Row, str, Fleet]]] = {}
        for row, reason in doomed:
            if self._may_call(row["batch_id"]):
                kind = kinds.setdefault((row["api"], row["fleet_type"]), {})
                kind[row["fleet_id"]] = (row, reason, self._fleet(row))
        for (api, fleet_type), fleets in kinds.items():
            with turn.chunks() as add:
                for row, reason, fleet in fleets.values():
                    if row["state"] == "live":
                        fleet.intend_deletion(reason)
                        add(fleet, row["correlation_id"], row["event_id"])
            turn.must_outlive_call()
            try:
                gone = set(turn.cloud.delete_fleets(api, fleet_type, list(fleets)))
            except CallFailed as failed:
                self._tell("fleets not deleted", failed, api=api)
                gone = set()
            with turn.chunks() as add:
                for fleet_id, (row, _, fleet) in fleets.items():
                    if fleet_id in gone:
                        fleet.delete()
                        add(fleet, row["correlation_id"], row["event_id"])
                    else:
                        self._backoff.failed(row["batch_id"])

    # -- what AWS has -----------------------------------------------------------------------------

    def apis(self, doubtful: Sequence[Row]) -> list[str]:
        """The APIs whose fleets a sweep has to list."""
        there = [
            row["api"]
            for row in self._turn.work.fleets()
            if row["fleet_type"] == MAINTAIN or row["batch_state"] == "filling"
        ]
        there += [row["api"] for row in doubtful]
        if self._turn.incarnation > 1:
            # Restored from a backup: AWS may have fleets that the log has never heard of.
            there += self._turn.work.launch_apis()
        self._listed = sorted(set(there) - {RUN_INSTANCES})
        return self._listed

    def compare(self, listed: Sequence[ports.Fleet]) -> None:
        """What AWS has is what the ledger says: a worker that was paused may have set a target
        late, and what the ledger has no fleet for must not launch. Raises LeaseLost."""
        rows = {row["batch_id"]: row for row in self._turn.work.fleets()}
        for fleet in [*listed, *self._strays(self.late - rows.keys())]:
            row = rows.get(fleet.batch_id)
            if row is None or row["state"] == "deleted":
                self._take_over(fleet)
            elif row["state"] == "deleting":
                if fleet.target and fleet.api == CREATE_GROUP:
                    self._stop(fleet)
            elif (
                row["fleet_type"] == MAINTAIN
                and row["intended"] is None
                and fleet.target != row["target"]
            ):
                self._set_target(row, row["target"], "AWS had another target", again=False)

    def _strays(self, late: set[str]) -> list[ports.Fleet]:
        """Fleets of APIs that the sweep had no reason to list: of those that have launched `late`,
        of batches whose fleet the ledger has not, and once an hour of all that were used here."""
        turn = self._turn
        batches = [turn.work.batch(batch_id) for batch_id in late]
        apis = {batch["api"] for batch in batches if batch is not None and self._is_here(batch)}
        is_due = self._comparing.is_due()
        if is_due:
            apis.update(turn.work.fleet_apis())
        apis -= {RUN_INSTANCES, *self._listed}
        if not self._backoff.admits(STRAYS):
            return []
        found: list[ports.Fleet] = []
        try:
            if apis:
                found = turn.cloud.fleets(turn.deployment, sorted(apis))
        except CallFailed as failed:
            self._backoff.failed(STRAYS)
            turn.journal.info("fleets not compared", code=failed.code)
            # A site that uses none any more may not be permitted to list them.
            is_due = is_due and failed.kind == "refused"
        else:
            self._backoff.succeeded(STRAYS)
        if is_due:
            self._comparing.done()
        return found

    def _take_over(self, listed: ports.Fleet) -> None:
        """A fleet with our tag that the ledger has not, or has deleted: of a call whose answer was
        lost, say. It must launch no more; what it has launched is settled by tag."""
        turn = self._turn
        batch = turn.work.batch(listed.batch_id) if listed.batch_id else None
        if batch is None:
            turn.journal.warn(
                "a fleet of no batch of ours",
                fleet_id=listed.fleet_id,
                next_step="its machines are left alone: look at `hostledger orphans list`",
            )
            self._stop(listed)
            return
        if not self._is_here(batch):
            return  # another name of this AWS account has it, and compares it
        if batch["state"] == "open":
            return  # its call is made again, and answers with this fleet
        fleet = turn.ledger.get(Fleet, listed.batch_id)
        if fleet is None:
            fleet = fleet_of(turn, batch, listed.fleet_id, MAINTAIN, listed.target)
            if listed.api != CREATE_GROUP:
                fleet.intend_deletion("the answer to its call was lost")
            # A group with members cannot be deleted: its target is lowered to what is kept.
            self._save(batch, fleet)
        else:
            self._stop(listed)

    def _is_here(self, batch: Row) -> bool:
        cloud = self._turn.cloud
        return bool((batch["account"], batch["region"]) == (cloud.account, cloud.region))

    def _stop(self, listed: ports.Fleet) -> None:
        """Let it launch no more; its machines live on."""
        turn = self._turn
        if not self._may_change():
            return
        turn.must_outlive_call()
        try:
            if listed.api == CREATE_GROUP and listed.target:
                # Members in service are protected from it; the group goes when it is empty.
                turn.cloud.set_target(listed.api, listed.fleet_id, 0, 0)
            turn.cloud.delete_fleets(listed.api, MAINTAIN, [listed.fleet_id])
        except CallFailed as failed:
            self._tell("fleet not stopped", failed, fleet_id=listed.fleet_id)


def fleet_of(turn: Turn, batch: Row, fleet_id: str, fleet_type: str, target: int) -> Fleet:
    """The fleet that the call of a batch made, recorded when it is not yet; to be saved."""
    batch_id = batch["batch_id"]
    fleet = turn.ledger.get(Fleet, batch_id) or Fleet(Fleet.stream(batch_id))
    fleet.create(
        api=batch["api"],
        fleet_id=fleet_id,
        fleet_type=fleet_type,
        target=target,
        account=batch["account"],
        region=batch["region"],
        provider=batch["provider"],
        launch_template=batch["launch_template"],
    )
    return fleet
