"""Policy: whenever nothing more can change for a request or a return, make it final."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import IntegrityError

from application.backoff import Backoff
from application.demand import still_wanted
from application.ports import CallFailed, Instance
from application.projections.machines import PROTECTED
from application.reconciliation import FIRST_POLL, LONGEST_POLL
from application.returning import LONGEST_RETRY, terminations
from application.turn import Turn
from domain.machine_request import MachineRequest
from domain.return_request import ReturnRequest

NOT_OURS = "not launched by this deployment"
REFUSED = "EC2 refuses to terminate it: "
PATIENCE = 300.0
"""Seconds in which a refused termination is tried before its return says that it failed; a machine
of the ledger stays owed, another one is an orphan."""

ASK_AGAIN = 60.0
"""Seconds after which the end of a machine that is ours by its tag alone is asked for again:
doubling, at most LONGEST_RETRY."""

GONE = ("terminated", "shutting-down")


class Finishing:
    """`turns` are those of all accounts: a stranger is looked for in each."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns
        self._turn = turns[0]
        self._looks = Backoff(self._turn, FIRST_POLL, LONGEST_POLL)
        """By return: looks at its machines that the ledger lacks."""
        self._ends = Backoff(self._turn, ASK_AGAIN, LONGEST_RETRY)
        """By machine: calls to end it."""

    def take_turn(self) -> None:
        try:
            self._turn.look_at_demand()
            for row in self._turn.work.open_requests():
                self._finish_request(row)
        except IntegrityError as error:
            # Another worker launches for one of them, maybe: the rest is looked at in a next turn.
            self._turn.journal.info("requests looked at anew", message=str(error))
        for row in self._turn.work.open_returns():
            self._finish_return(row)

    def _finish_request(self, row: dict[str, Any]) -> None:
        """Final when no call is under way, every machine of every deal is recorded and has
        succeeded or failed, and nothing more is tried."""
        turn = self._turn
        settled = (
            not row["claimed"]
            and row["assigned"] == row["dealt"] == row["launched"]
            and not row["executing"]
        )
        if not settled or (row["succeeded"] < row["machine_count"] and still_wanted(turn, row)):
            return
        request = turn.ledger.get(MachineRequest, row["request_id"])
        assert request is not None
        request.finish(row["succeeded"], self._why(request, row))
        turn.divide(request, correlation_id=row["correlation_id"], causation_id=row["event_id"])

    def _why(self, request: MachineRequest, row: dict[str, Any]) -> str:
        turn = self._turn
        missing = row["machine_count"] - row["succeeded"]
        reasons = [
            ": ".join(part for part in (pool, code) if part) + (f" ({message})" if message else "")
            for (pool, code), message in request.shortages.items()
        ]
        scope, why = turn.work.brake()
        if scope:
            reasons.append(f"{scope} is paused: {why}")
        if row["failed"]:
            reasons.append(f"{row['failed']} failed before they ran")
        returned = row["dealt"] - row["failed"] - row["succeeded"]
        if returned > 0:
            reasons.append(f"{returned} were returned before they ran")
        if self._turn.age(row) >= row["fulfilment_deadline"]:
            deadline = f"{row['fulfilment_deadline']:g} s"
            reasons.append(f"the deadline of {deadline} passed before EC2 gave them")
        what = f"{missing} of {row['machine_count']} machines are missing"
        return "; ".join([what, *reasons])

    def _finish_return(self, row: dict[str, Any]) -> None:
        """Final when every machine of ours is gone, or refused for long, and every stranger was
        asked after."""
        turn = self._turn
        return_id, strangers = row["request_id"], row["strangers"]
        if strangers and not self._looks.admits(return_id):
            return
        refused: list[list[str]] = []
        patient = turn.age(row) < PATIENCE or not (row["alive"] or strangers)
        refusals = {} if patient else turn.work.refusals(row["position"])
        for machine_id in row["alive"]:
            if machine_id in row["protected"]:
                refused.append([machine_id, PROTECTED + row["protected"][machine_id]])
                continue
            code = refusals.get(machine_id)
            if code is None:
                return
            refused.append([machine_id, REFUSED + code])
        if strangers:
            try:
                found = [
                    (place, instance)
                    for place in self._turns
                    for instance in place.cloud.find(
                        [machine_id for machine_id, _ in strangers if machine_id],
                        [name for machine_id, name in strangers if not machine_id],
                    )
                    if instance.state not in GONE
                ]
            except CallFailed as failed:
                turn.journal.info("strangers not asked after", kind=failed.kind, code=failed.code)
                self._looks.failed(return_id)
                return
            living = {i.machine_id: (place, i) for place, i in found}
            living |= {i.name: (place, i) for place, i in found if i.name}
            ours = []
            for machine_id, name in strangers:
                if (machine_id or name) not in living:
                    continue
                place, instance = living[machine_id or name]
                if instance.deployment != turn.deployment:
                    refused.append([machine_id or name, NOT_OURS])
                elif instance.machine_id in refusals:
                    refused.append([machine_id or name, REFUSED + refusals[instance.machine_id]])
                else:
                    ours.append((place, instance))
            if ours:
                if self._end_ours_by_tag(ours, row):
                    self._looks.succeeded(return_id)
                self._looks.failed(return_id)
                return
        handed_back = turn.ledger.get(ReturnRequest, return_id)
        assert handed_back is not None
        handed_back.finish(refused)
        turn.save(handed_back, correlation_id=row["correlation_id"], causation_id=row["event_id"])
        self._looks.succeeded(return_id)

    def _end_ours_by_tag(self, instances: list[tuple[Turn, Instance]], row: dict[str, Any]) -> bool:
        """Handed back and ours by tag, although the ledger lacks them (it was restored): ended, and
        the return waits until they are gone. Whether any was due."""
        is_due = False
        for turn in self._turns:
            under_way = {m for t in turn.work.open_terminations() for m in t["machine_ids"]}
            zones: dict[str, list[str]] = {}
            for place, instance in instances:
                due = place is turn and self._ends.admits(instance.machine_id)
                if due and instance.machine_id not in under_way:
                    self._ends.failed(instance.machine_id)
                    zones.setdefault(instance.zone, []).append(instance.machine_id)
            for intended in terminations(turn, zones, "returned, and ours by tag"):
                # The account may be another worker's: that one makes the call.
                self._turn.save(
                    intended, correlation_id=row["correlation_id"], causation_id=row["event_id"]
                )
            is_due |= bool(zones)
        return is_due
