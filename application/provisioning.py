"""Policy: whenever machines are wanted, launch them; record what EC2 answered.

The launch protocol: the intent with its token and exact payload first, then the call, then the
outcome. One batch is one payload and its claims. An answer that may be lost is asked for again with
the same token; only a definite rejection opens the demand again, and what stays doubtful is settled
by tag (`reconciliation.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from application.avoiding import AVOIDED_FOR, Avoided
from application.backoff import jittered
from application.demand import content_here, facts, open_claims, pool_name, still_wanted
from application.fleets import fleet_of
from application.launch_templates import LaunchTemplates
from application.limits import Reached, least_room
from application.ports import CallFailed, Launched, Shortage
from application.turn import Turn
from domain.capacity import (
    ANY,
    INSTANT,
    RUN_INSTANCES,
    Pool,
    fleet_type,
    launch_api,
    machines_for,
    pools_of,
)
from domain.identifiers import BATCH, launch_token, new_id
from domain.launch_batch import LaunchBatch
from domain.machine_request import MachineRequest
from domain.template import Template

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
HOPELESS = 4
"""Failures in a row after which a call that was never sent is left to another account."""

RESERVED_FOR = 600.0
"""Seconds after the last try for which the id of a batch to come is remembered."""

TEMPLATE_GONE = "template_gone"


@dataclass
class _Attempts:
    """What this process knows of the calls with one batch's token."""

    ambiguous: bool
    failures: int = 0
    due: float = 0.0


LAUNCHED, NOT_HERE, NOT_NOW = "launched", "not here", "not now"
"""What came of a launch: go on with the next; this account has no pool for it, or its breaker is
open; buckets or calls that are open say to wait."""


class Provisioning:
    """Launching in one account. `elsewhere` says whether another one may still serve a request that
    cannot be served here."""

    def __init__(
        self,
        turn: Turn,
        templates: LaunchTemplates,
        elsewhere: Callable[[Provisioning, dict[str, Any]], bool],
    ) -> None:
        self.turn = turn
        self._templates = templates
        self._elsewhere = elsewhere
        self._useless: dict[tuple[str, ...], float] = {}
        self._attempts: dict[str, _Attempts] = {}
        self._avoided = Avoided(turn)
        self._forgotten: set[tuple[str, ...]] = set()
        """Templates whose launch template AWS did not know: it is made again, but once."""

    def pursue(self) -> None:
        """Ask again for the outcomes that are open. Raises LeaseLost.

        While launching is paused an open intent is not sent again either: its call may launch.
        """
        if self.turn.paused(launching=True):
            return
        for row in self.turn.work.open_batches():
            if row["state"] == "open":
                self._pursue(row)

    def free_calls(self) -> int:
        """How many launches may be begun beside those whose outcome is open."""
        in_flight = sum(1 for row in self.turn.work.open_batches() if row["state"] == "open")
        most: int = self.turn.aws["max_inflight"]
        return most - in_flight

    # -- open batches -----------------------------------------------------------------------------

    def _pursue(self, row: dict[str, Any]) -> None:
        """Ask again for an outcome that is not recorded, with the same token and the same bytes."""
        turn = self.turn
        # An intent of a process before us may have been sent: whatever is refused now is doubtful.
        attempts = self._attempts.setdefault(row["batch_id"], _Attempts(ambiguous=True))
        if turn.age(row) > turn.aws["token_safe_age"]:
            self._reject(
                row, "TokenTooOld", "the intent is older than provider.aws.token_safe_age", False
            )
        elif turn.now()[2] >= attempts.due and turn.cloud.may_launch(
            row["api"], row["machine_count"]
        ):
            self._send(row, attempts)

    def _send(self, row: dict[str, Any], attempts: _Attempts) -> bool:
        """Make the call and record its outcome. False when more of the same is of no use now."""
        turn = self.turn
        body = None
        if "UserData" in row["payload"]:
            body = turn.work.body(row["payload"]["UserData"]["sha256"])
            if body is None:
                attempts.due = turn.now()[2] + LONGEST_RETRY
                turn.journal.error(
                    "user data body is missing",
                    batch_id=row["batch_id"],
                    digest=row["payload"]["UserData"]["sha256"],
                    next_step="restore the table `bodies` of the store from a backup",
                )
                return False
        for last in [False] * turn.aws["launch_retries"] + [True]:
            if turn.paused(launching=True):
                return False
            turn.must_outlive_call()
            try:
                launched = turn.cloud.launch(row["api"], row["payload"], row["token"], body)
            except CallFailed as failed:
                if self._failed(row, attempts, failed) or last:
                    return failed.kind == "shortage"
                turn.clock.sleep(jittered(attempts.failures, FIRST_RETRY, 4.0, turn.random))
            else:
                # Should the outcome not be recorded now, a later rejection proves nothing.
                attempts.ambiguous = True
                self._accept(row, launched)
                return True
        raise AssertionError("unreachable")

    def _failed(self, row: dict[str, Any], attempts: _Attempts, failed: CallFailed) -> bool:
        """Whether this failure is the end of it; otherwise the call is made again later."""
        turn = self.turn
        if failed.kind in ("throttled", "unreachable", "ambiguous"):
            attempts.ambiguous |= failed.kind == "ambiguous"
            attempts.failures += 1
            is_down = turn.cloud.is_down(row["api"]) or attempts.failures >= HOPELESS
            unsent = failed.kind == "unreachable" and not attempts.ambiguous
            if is_down and unsent and self._elsewhere(self, row):
                # Nothing of it was ever sent: another account may have the demand.
                self._reject(row, failed.code, failed.message, True)
                return True
            wait = jittered(attempts.failures, FIRST_RETRY, LONGEST_RETRY, turn.random)
            attempts.due = turn.now()[2] + wait
            return False
        definite = not attempts.ambiguous and failed.kind != "mismatch"
        reason = Shortage(row["pool"], failed.kind, failed.code, failed.message)
        gives_up = self._gives_up(row, self._content(row), [reason], False)
        self._reject(row, failed.code, failed.message, definite, gives_up)
        return True

    def _reject(
        self, row: dict[str, Any], code: str, message: str, definite: bool, gives_up: bool = False
    ) -> None:
        batch = self.turn.ledger.get(LaunchBatch, row["batch_id"])
        assert batch is not None
        batch.reject(code, message, definite, gives_up)
        self._save(row, batch)
        self._attempts.pop(row["batch_id"], None)

    def _save(self, row: dict[str, Any], *aggregates: Any) -> None:
        self.turn.save(
            *aggregates, correlation_id=row["correlation_id"], causation_id=row["event_id"]
        )

    def _accept(self, row: dict[str, Any], launched: Launched) -> None:
        """Record what AWS gave, with the fleet that it made."""
        turn = self.turn
        content = self._content(row)
        kind = fleet_type(content) if launched.fleet_id else ""
        instances = [facts(instance, content) for instance in launched.instances]
        asked = sum(units for _, units in row["claims"])
        shortages = list(launched.shortages)
        if not any(shortage.kind == TEMPLATE_GONE for shortage in shortages):
            self._forgotten.discard(_what(row))
        given = sum(i["units"] for i in instances)
        if kind in ("", INSTANT) and not shortages and given < asked:
            shortages = [
                Shortage(
                    row["pool"],
                    "shortage",
                    "PartialFulfilment",
                    "EC2 gave fewer machines than were asked for",
                )
            ]
        gives_up = self._gives_up(row, content, shortages, bool(instances))

        def accept() -> list[Any]:
            batch = turn.ledger.get(LaunchBatch, row["batch_id"])
            assert batch is not None
            batch.accept(
                launched.aws_request_id,
                instances,
                open_claims(turn, batch.claims, row),
                [[s.pool, s.kind, s.code, s.message] for s in shortages],
                gives_up,
                launched.fleet_id,
                kind not in ("", INSTANT),
            )
            fleet = [fleet_of(turn, row, launched.fleet_id, kind, asked)] if kind else []
            return [batch, *fleet]

        turn.deal(accept, correlation_id=row["correlation_id"], causation_id=row["event_id"])
        self._attempts.pop(row["batch_id"], None)

    # -- what AWS has not -------------------------------------------------------------------------

    def _gives_up(
        self, row: dict[str, Any], content: dict[str, Any], shortages: list[Shortage], some: bool
    ) -> bool:
        """Learn from the reasons of a shortage; True when trying on is of no use: no permission, a
        bad parameter, or a quota that every pool of the template draws on. `some`: it gave some."""
        self._avoided.learn(content, shortages)
        kinds = {shortage.kind for shortage in shortages}
        useless = not some and kinds == {"refused"}
        if TEMPLATE_GONE in kinds:
            useless |= _what(row) in self._forgotten
            self._forgotten.add(_what(row))
            if (template := self._templates.miss(row["launch_template"])) is not None:
                self._save(row, template)
        if "quota" in kinds:
            useless |= self._avoided.leaves_none(content)
        return useless and not self._serves_elsewhere(row)

    def _serves_elsewhere(self, row: dict[str, Any]) -> bool:
        """Nothing can be launched for a template here; whether another account may serve it."""
        self._useless[_what(row)] = self.turn.now()[2] + AVOIDED_FOR
        return self._elsewhere(self, row)

    # -- new batches ------------------------------------------------------------------------------

    def _content(self, row: dict[str, Any]) -> dict[str, Any]:
        key = Template.key(row["provider"], row["template_id"])
        content = self.turn.work.template_content(key, row["revision"])
        return content_here(content, self.turn.cloud.account)

    def launch(
        self,
        content: dict[str, Any],
        market: str,
        requests: list[dict[str, Any]],
        reason: str,
    ) -> str:
        """One batch for as many of the requests, which share a payload, as a call takes, because
        of `reason`. What came of it: LAUNCHED, NOT_HERE or NOT_NOW. Raises LeaseLost."""
        if not self.is_of_use(requests[0]) or self.turn.cloud.is_down(launch_api(content)):
            return NOT_HERE
        pools = self._pools(content, market, requests[0])
        if not pools:
            return NOT_HERE
        return self._launch(content, pools, requests, reason)

    def is_of_use(self, row: dict[str, Any]) -> bool:
        """Whether nothing has shown that a request's template cannot be launched here at all."""
        return self._useless.get(_what(row), 0.0) <= self.turn.now()[2]

    def _pools(self, content: dict[str, Any], market: str, request: dict[str, Any]) -> list[Pool]:
        """The pools to launch from: for a fleet all that are not avoided just now, for RunInstances
        the first one, those that have not let the request down before the others."""
        pools = [pool for pool in pools_of(content, market) if self._avoided.admits(pool)]
        if launch_api(content) != RUN_INSTANCES or len(pools) < 2:
            return pools
        asked = self.turn.ledger.get(MachineRequest, request["request_id"])
        assert asked is not None
        short = {pool for pool, _ in asked.shortages}
        account = self.turn.cloud.account
        return [min(pools, key=lambda pool: pool_name(account, str(pool)) in short)]

    def _launch(
        self,
        content: dict[str, Any],
        pools: list[Pool],
        requests: list[dict[str, Any]],
        reason: str,
    ) -> str:
        """LAUNCHED when more of the same may follow at once, else NOT_HERE or NOT_NOW."""
        turn = self.turn
        weight = min(pool.units for pool in pools)
        api = launch_api(content)
        room = turn.aws["launch_chunk" if api == RUN_INSTANCES else "fleet_chunk"]
        cap = least_room(turn, requests[0]["provider"], requests[0]["template_id"], content)
        if cap.room < room:
            room = cap.room
            least = machines_for(still_wanted(turn, requests[0]), weight)
            if not room or (content.get("all_or_nothing") and room < least):
                self._capped(requests, cap)
                return NOT_NOW
        claims: list[list[Any]] = []
        machines = 0
        for request in requests:
            units = still_wanted(turn, request)
            if not content.get("all_or_nothing"):
                units = min(units, (room - machines) * weight)
            if units > 0:
                claims.append([request["request_id"], units])
                machines += machines_for(units, weight)
        if not claims or not turn.cloud.may_launch(api, machines):
            return NOT_NOW
        first = next(r for r in requests if r["request_id"] == claims[0][0])
        row = self._intend(first, content, pools, claims, machines, reason)
        if row is None:
            return NOT_HERE
        for request in requests:
            request["claimed"] += dict(claims).get(request["request_id"], 0)
        attempts = self._attempts[row["batch_id"]] = _Attempts(ambiguous=False)
        return LAUNCHED if self._send(row, attempts) else NOT_NOW

    def _intend(
        self,
        request: dict[str, Any],
        content: dict[str, Any],
        pools: list[Pool],
        claims: list[list[Any]],
        machines: int,
        reason: str,
    ) -> dict[str, Any] | None:
        """The intent, written; None when AWS has not what its call needs, or cannot be asked."""
        turn = self.turn
        api = launch_api(content)
        account, region = turn.cloud.account, turn.cloud.region
        pool = pool_of_all(pools)
        batch_id = self._reserve(request)
        tags = {
            "hostledger:deployment": turn.deployment,
            "hostledger:incarnation": str(turn.incarnation),
            "hostledger:provider": request["provider"],
            "hostledger:batch": batch_id,
        }
        variables = content.get("user_data_variables")
        if variables:
            body = turn.work.body(variables["sha256"])
            if body is None:
                turn.journal.error("user data body is missing", digest=variables["sha256"])
                return None
            content = {**content, "user_data_variables": json.loads(body)}
        units = machines * pools[0].units if api == RUN_INSTANCES else sum(u for _, u in claims)
        try:
            planned = turn.cloud.plan(content, pools, units, tags)
            launch_template = self._templates.ensure(planned, request)
        except CallFailed as failed:
            if failed.kind in ("refused", "quota"):
                self._give_up(claims, pool, failed, not self._serves_elsewhere(request))
            return None
        if launch_template is None:
            return None
        # Before the intent: should a process that was killed have written it, that goes wrong once.
        turn.kept.drop(_reserved(request))
        payload = planned.payload
        batch = None
        epoch = 0
        rejected = turn.work.rejected_batch(batch_id, payload, claims)
        if rejected is not None:
            # The very call that was definitely rejected, worth a try again: the same stream, a new
            # epoch and so a new token.
            batch_id = rejected["batch_id"]
            batch = turn.ledger.get(LaunchBatch, batch_id)
            assert batch is not None
            epoch = batch.epoch + 1
            payload = rejected["payload"]
        batch = batch or LaunchBatch(LaunchBatch.stream(batch_id))
        batch.intend(
            epoch=epoch,
            api=api,
            token=launch_token(
                turn.deployment, turn.incarnation, account, region, pool, batch_id, epoch
            ),
            payload=payload,
            claims=claims,
            account=account,
            region=region,
            pool=pool,
            provider=request["provider"],
            template_id=request["template_id"],
            revision=request["revision"],
            launch_template=launch_template,
            machines=machines,
            reason=reason,
        )
        turn.must_outlive_call()
        bodies = None
        if planned.user_data is not None and "UserData" in payload:
            bodies = {payload["UserData"]["sha256"]: planned.user_data}
        turn.divide(
            batch,
            correlation_id=request["correlation_id"],
            causation_id=request["event_id"],
            bodies=bodies,
        )
        return next(r for r in turn.work.open_batches() if r["batch_id"] == batch_id)

    def _reserve(self, request: dict[str, Any]) -> str:
        """The id of a template's batch to come, which its launch template may name: while that
        cannot be made, it is the same one that is asked for."""
        kept = self.turn.kept
        batch_id: str = kept.get(_reserved(request)) or new_id(BATCH, self.turn.random(16))
        kept.put(_reserved(request), batch_id, RESERVED_FOR)
        return batch_id

    def _capped(self, requests: list[dict[str, Any]], cap: Reached) -> None:
        """The site's own limit is the reason; what is returned meanwhile makes room again."""
        with self.turn.chunks() as add:
            for row in requests:
                request = self.turn.ledger.get(MachineRequest, row["request_id"])
                assert request is not None
                wanted = still_wanted(self.turn, row)
                request.fall_short("", "", cap.code, cap.message, wanted, False)
                if request.has_pending:
                    add(request, row["request_id"], row["event_id"])

    def _give_up(
        self, claims: list[list[Any]], pool: str, failed: CallFailed, gives_up: bool
    ) -> None:
        """No call can be made from this template here: its requests end, with the reason, when no
        other account can serve them."""
        pool = pool_name(self.turn.cloud.account, pool)
        with self.turn.chunks() as add:
            for request_id, units in claims:
                request = self.turn.ledger.get(MachineRequest, request_id)
                assert request is not None
                request.fall_short("", pool, failed.code, failed.message, units, gives_up)
                add(request, request_id, "")


def _what(row: dict[str, Any]) -> tuple[str, ...]:
    return (row["provider"], row["template_id"], row["revision"])


def _reserved(row: dict[str, Any]) -> str:
    return " ".join(("reserved", *_what(row)))


def pool_of_all(pools: list[Pool]) -> str:
    """The `pool` of a batch; of a call that names more than one it says the market."""
    return str(pools[0] if len(pools) == 1 else Pool(ANY, ANY, pools[0].market, 1))


def overshot(request: dict[str, Any]) -> int:
    """Units given or asked for beyond what a request wants; negative when it lacks some."""
    given: int = request["dealt"] - request["failed"] + request["claimed"]
    return given - request["machine_count"]  # type: ignore[no-any-return]
