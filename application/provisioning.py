"""Policy: whenever machines are wanted, launch them; record what EC2 answered.

The launch protocol: the intent with its token and exact payload first, then the call, then the
outcome. One batch is one payload and its claims. An answer that may be lost is asked for again with
the same token; only a definite rejection opens the demand again, and what stays doubtful is settled
by tag (`reconciliation.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from application.backoff import jittered
from application.ports import CallFailed, Launched
from application.turn import Turn
from domain.identifiers import BATCH, launch_token, new_id
from domain.launch_batch import LaunchBatch
from domain.machine_request import MachineRequest
from domain.template import Template

AVOIDED_FOR = 180.0
"""Seconds in which a pool that had no capacity is left alone."""

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0

WORTH_NO_MORE = frozenset({"refused", "quota"})
"""Classes of rejection after which the request gives up: another pool cannot help."""


@dataclass
class _Attempts:
    """What this process knows of the calls with one batch's token."""

    ambiguous: bool
    failures: int = 0
    due: float = 0.0


class Provisioning:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._attempts: dict[str, _Attempts] = {}
        self._avoided: dict[tuple[str, str], float] = {}

    def take_turn(self) -> None:
        """Pursue what is open, then form what can be sent at once. Raises LeaseLost."""
        open_batches = self._turn.work.open_batches()
        for row in open_batches:
            if row["state"] == "open":
                self._pursue(row)
        in_flight = sum(1 for row in self._turn.work.open_batches() if row["state"] == "open")
        self._form(self._turn.aws["max_inflight"] - in_flight)

    # -- open batches -----------------------------------------------------------------------------

    def _pursue(self, row: dict[str, Any]) -> None:
        """Ask again for an outcome that is not recorded, with the same token and the same bytes."""
        turn = self._turn
        # An intent of a process before us may have been sent: whatever is refused now is doubtful.
        attempts = self._attempts.setdefault(row["batch_id"], _Attempts(ambiguous=True))
        if turn.age(row) > turn.aws["token_safe_age"]:
            self._reject(
                row, "TokenTooOld", "the intent is older than provider.aws.token_safe_age", False
            )
        elif turn.now()[2] >= attempts.due and turn.cloud.may_launch(row["machine_count"]):
            self._send(row, attempts)

    def _send(self, row: dict[str, Any], attempts: _Attempts) -> bool:
        """Make the call and record its outcome. False when more of the same is of no use now."""
        turn = self._turn
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
            turn.must_outlive_call()
            try:
                launched = turn.cloud.launch(row["payload"], row["token"], body)
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
        turn = self._turn
        if failed.kind in ("throttled", "unreachable", "ambiguous"):
            attempts.ambiguous |= failed.kind == "ambiguous"
            attempts.failures += 1
            wait = jittered(attempts.failures, FIRST_RETRY, LONGEST_RETRY, turn.random)
            attempts.due = turn.now()[2] + wait
            return False
        definite = not attempts.ambiguous and failed.kind != "mismatch"
        gives_up = failed.kind in WORTH_NO_MORE
        if failed.kind == "shortage":
            self._avoid(row)
        self._reject(row, failed.code, failed.message, definite, gives_up)
        return True

    def _reject(
        self, row: dict[str, Any], code: str, message: str, definite: bool, gives_up: bool = False
    ) -> None:
        batch = self._turn.ledger.get(LaunchBatch, row["batch_id"])
        assert batch is not None
        batch.reject(code, message, definite, gives_up)
        self._turn.save(batch, correlation_id=row["correlation_id"], causation_id=row["event_id"])
        self._attempts.pop(row["batch_id"], None)

    def _accept(self, row: dict[str, Any], launched: Launched) -> None:
        turn = self._turn
        batch = turn.ledger.get(LaunchBatch, row["batch_id"])
        assert batch is not None
        if len(launched.instances) < row["machine_count"]:
            self._avoid(row)
        batch.accept(
            launched.aws_request_id,
            [instance.facts() for instance in launched.instances],
            open_claims(turn, batch.claims, row),
        )
        turn.save(batch, correlation_id=row["correlation_id"], causation_id=row["event_id"])
        self._attempts.pop(row["batch_id"], None)

    def _avoid(self, row: dict[str, Any]) -> None:
        pool = (row["pool"], row["payload"]["InstanceType"])
        self._avoided[pool] = self._turn.now()[2] + AVOIDED_FOR

    # -- new batches ------------------------------------------------------------------------------

    def _form(self, most: int) -> None:
        """Form batches from open demand and send each, while buckets admit them at once."""
        turn = self._turn
        groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for request in turn.work.open_requests():
            if still_wanted(turn, request) > 0:
                key = (request["provider"], request["template_id"], request["revision"])
                groups.setdefault(key, []).append(request)
        for (provider, template_id, revision), requests in groups.items():
            content = turn.work.template_content(Template.key(provider, template_id), revision)
            while most > 0 and requests:
                pool = self._pool(content, requests[0])
                chunk = turn.aws["launch_chunk"]
                claims: list[list[Any]] = []
                for request in requests:
                    count = min(still_wanted(turn, request), chunk)
                    if count:
                        claims.append([request["request_id"], count])
                        request["claimed"] += count
                        chunk -= count
                count = sum(count for _, count in claims)
                if pool is None or not count or not turn.cloud.may_launch(count):
                    break
                first = next(r for r in requests if r["request_id"] == claims[0][0])
                if not self._intend(first, content, pool, claims, count):
                    break
                requests = [r for r in requests if still_wanted(turn, r) > 0]
                most -= 1

    def _pool(self, content: dict[str, Any], request: dict[str, Any]) -> str | None:
        """The first of the template's subnets that is not avoided just now, one that has not let
        the request down before the others."""
        now = self._turn.now()[2]
        subnets = [
            subnet
            for subnet in content["subnet_ids"]
            if self._avoided.get((subnet, content["vm_type"]), 0.0) <= now
        ]
        if len(subnets) < 2:
            return next(iter(subnets), None)
        asked = self._turn.ledger.get(MachineRequest, request["request_id"])
        assert asked is not None
        short = {pool for pool, _ in asked.shortages}
        return str(min(subnets, key=lambda subnet: subnet in short))

    def _intend(
        self,
        request: dict[str, Any],
        content: dict[str, Any],
        pool: str,
        claims: list[list[Any]],
        count: int,
    ) -> bool:
        """Write the intent, then make the call. False when more of the same is of no use now."""
        turn = self._turn
        batch_id = new_id(BATCH, turn.random(16))
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
                return False
            content = {**content, "user_data_variables": json.loads(body)}
        try:
            payload, user_data = turn.cloud.payload(content, pool, count, tags)
        except CallFailed as failed:
            if failed.kind not in WORTH_NO_MORE:
                return False
            self._give_up(claims, pool, failed)
            return False
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
        token = launch_token(
            turn.deployment,
            turn.incarnation,
            turn.cloud.account,
            turn.cloud.region,
            pool,
            batch_id,
            epoch,
        )
        batch.intend(
            epoch=epoch,
            token=token,
            payload=payload,
            claims=claims,
            account=turn.cloud.account,
            region=turn.cloud.region,
            pool=pool,
            provider=request["provider"],
            template_id=request["template_id"],
            revision=request["revision"],
        )
        turn.must_outlive_call()
        turn.save(
            batch,
            correlation_id=request["correlation_id"],
            causation_id=request["event_id"],
            bodies=None if user_data is None else {payload["UserData"]["sha256"]: user_data},
        )
        attempts = self._attempts[batch_id] = _Attempts(ambiguous=False)
        row = next(r for r in turn.work.open_batches() if r["batch_id"] == batch_id)
        return self._send(row, attempts)

    def _give_up(self, claims: list[list[Any]], pool: str, failed: CallFailed) -> None:
        """No call can be made from this template: its requests end, with the reason."""
        with self._turn.chunks() as add:
            for request_id, count in claims:
                request = self._turn.ledger.get(MachineRequest, request_id)
                assert request is not None
                request.fall_short("", pool, failed.code, failed.message, count, True)
                add(request, request_id, "")


def still_wanted(turn: Turn, request: dict[str, Any]) -> int:
    """Machines of a request for which no call is under way and none was given, while its deadline
    lasts; a machine that failed is wanted again, one that was returned is not."""
    if request["stopped"] or turn.age(request) >= request["fulfilment_deadline"]:
        return 0
    given = request["dealt"] - request["failed"]
    wanted: int = request["machine_count"] - given - request["claimed"]
    return max(0, wanted)


def open_claims(turn: Turn, claims: list[list[Any]], row: dict[str, Any]) -> list[list[Any]]:
    """Who may have the machines of a batch: its claims of requests that are still open, then other
    open demand for the same payload. What is over goes to nobody."""
    requests = {r["request_id"]: r for r in turn.work.open_requests()}
    result: list[list[Any]] = [claim for claim in claims if claim[0] in requests]
    same = ("provider", "template_id", "revision")
    for request in requests.values():
        more = still_wanted(turn, request)
        if more > 0 and all(request[key] == row[key] for key in same):
            result.append([request["request_id"], more])
    return result
