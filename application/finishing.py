"""Policy: whenever nothing more can change for a request or a return, make it final."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import IntegrityError

from application.demand import still_wanted
from application.ports import CallFailed, Instance
from application.projections.machines import PROTECTED
from application.turn import Turn
from domain.identifiers import TERMINATION, new_id
from domain.machine_request import MachineRequest
from domain.return_request import ReturnRequest
from domain.termination_batch import TerminationBatch

NOT_OURS = "not launched by this deployment"
PATIENCE = 300.0
"""Seconds in which a refused termination is tried before its return says that it failed; the
machine stays owed."""

ASK_AGAIN = 60.0
"""Seconds after which the end of such a machine is asked for again."""

GONE = ("terminated", "shutting-down")


class Finishing:
    """`turns` are those of all accounts: a stranger is looked for in each."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns
        self._turn = turns[0]
        self._due: dict[str, float] = {}

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
        """Final when every machine of ours is gone and every stranger was asked after."""
        turn = self._turn
        refused: list[list[str]] = []
        patient = turn.age(row) < PATIENCE
        refusals = {} if patient or not row["alive"] else turn.work.refusals(row["position"])
        for machine_id in row["alive"]:
            if machine_id in row["protected"]:
                refused.append([machine_id, PROTECTED + row["protected"][machine_id]])
                continue
            code = refusals.get(machine_id)
            if code is None:
                return
            refused.append([machine_id, f"EC2 refuses to terminate it: {code}"])
        strangers = row["strangers"]
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
                return
            living = {i.machine_id: (place, i) for place, i in found}
            living |= {i.name: (place, i) for place, i in found if i.name}
            ours = []
            for machine_id, name in strangers:
                if (machine_id or name) not in living:
                    continue
                place, instance = living[machine_id or name]
                if instance.deployment == turn.deployment:
                    ours.append((place, instance))
                else:
                    refused.append([machine_id or name, NOT_OURS])
            if ours:
                self._end_ours_by_tag(ours, row)
                return
        handed_back = turn.ledger.get(ReturnRequest, row["request_id"])
        assert handed_back is not None
        handed_back.finish(refused)
        turn.save(handed_back, correlation_id=row["correlation_id"], causation_id=row["event_id"])

    def _end_ours_by_tag(self, instances: list[tuple[Turn, Instance]], row: dict[str, Any]) -> None:
        """Handed back and ours by tag, although the ledger lacks them (it was restored): ended, and
        the return waits until they are gone."""
        zones: dict[tuple[int, str], list[str]] = {}
        for turn, instance in instances:
            under_way = {m for t in turn.work.open_terminations() for m in t["machine_ids"]}
            due = self._due.get(instance.machine_id, 0.0) <= turn.now()[2]
            if due and instance.machine_id not in under_way:
                self._due[instance.machine_id] = turn.now()[2] + ASK_AGAIN
                zone = (self._turns.index(turn), instance.zone)
                zones.setdefault(zone, []).append(instance.machine_id)
        for (number, zone_name), machine_ids in zones.items():
            turn = self._turns[number]
            # The account may be another worker's: that one makes the call.
            self._turn.save(
                TerminationBatch.intend(
                    new_id(TERMINATION, turn.random(16)),
                    machine_ids,
                    turn.cloud.account,
                    turn.cloud.region,
                    zone_name,
                    "returned, and ours by tag",
                ),
                correlation_id=row["correlation_id"],
                causation_id=row["event_id"],
            )
