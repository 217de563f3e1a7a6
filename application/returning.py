"""Policy: whenever machines are owed to EC2, terminate them; record what EC2 answered.

Owed are machines that were returned, are surplus or were pending too long: nothing else is ever
terminated here, but what an operator or the orphan rule put into a TerminationIntended.
"""

from __future__ import annotations

from typing import Any

from application.backoff import Backoff
from application.failures import EventsArchivedAway
from application.turn import Turn
from domain.identifiers import RETURN, TERMINATION, new_id
from domain.machine import Machine
from domain.machine_request import MachineRequest
from domain.return_request import ReturnRequest
from domain.termination_batch import TerminationBatch

POLICY = "returning"
TOPICS = ("MachinesReturned", "RequestCancelled")
FIRST_RETRY, LONGEST_RETRY = 2.0, 300.0
"""Seconds after which a refused termination is tried again: doubling, at most."""

PROTECTED_SINCE, NOT_SENT = "Protected", "NotSent"
"""Why a machine of an intent was not terminated: an operator protected it, or another one of the
same intent."""

INTERRUPTION = "interruption"
RECLAIMED_AFTER = 150.0
"""Seconds after the end that AWS announced in which its termination is waited for: two sweeps."""


def terminations(turn: Turn, zones: dict[str, list[str]], reason: str) -> list[TerminationBatch]:
    """Intents to end these machines, by zone, each of no more than fit in a call of the site's."""
    size = turn.aws["batch_sizes"]["terminate_instances"]
    return [
        TerminationBatch.intend(
            new_id(TERMINATION, turn.random(16)),
            machine_ids[start : start + size],
            turn.cloud.account,
            turn.cloud.region,
            zone,
            reason,
        )
        for zone, machine_ids in zones.items()
        for start in range(0, len(machine_ids), size)
    ]


class Telling:
    """The machines of a return, in whatever account, learn of it."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def take_turn(self) -> None:
        """Follow every return and cancellation that is not followed yet."""
        turn = self._turn
        while events := turn.work.events_after(POLICY, TOPICS, turn.at_once):
            for event in events:
                if event["topic"] == "RequestCancelled":
                    self._hand_back_rest(event)
                    continue
                with turn.chunks(tracking=(POLICY, event["position"])) as add:
                    for machine_id in event["data"]["machine_ids"]:
                        try:
                            machine = turn.ledger.get(Machine, machine_id, from_log=True)
                        except EventsArchivedAway:
                            continue  # it ended long ago
                        assert machine is not None
                        machine.hand_back(event["identifier"], event["data"]["reason"])
                        add(machine, event["correlation_id"], event["event_id"])

    def _hand_back_rest(self, event: dict[str, Any]) -> None:
        """Machines that were recorded while their request was being cancelled."""
        turn = self._turn
        saved: list[ReturnRequest] = []
        living = turn.work.living_machines_of(event["identifier"])
        if living:
            request = turn.ledger.get(MachineRequest, event["identifier"])
            assert request is not None
            saved.append(
                ReturnRequest.hand_back(
                    new_id(RETURN, turn.random(16)),
                    request.provider,
                    living,
                    [],
                    event["data"]["reason"],
                    "worker",
                )
            )
        turn.save(
            *saved,
            correlation_id=event["correlation_id"],
            causation_id=event["event_id"],
            tracking=(POLICY, event["position"]),
        )


class Returning:
    """Ending machines in one account. `unlowered` are the batches whose fleet would replace a
    machine that is ended now."""

    def __init__(self, turn: Turn, unlowered: set[str]) -> None:
        self._turn = turn
        self._unlowered = unlowered
        self._backoff = Backoff(turn, FIRST_RETRY, LONGEST_RETRY, "termination")
        """By machine, and by termination."""
        self.unheeded: set[str] = set()
        """Machines that EC2 accepted to terminate and that run on (reconciliation says)."""
        self.slow_to_start: set[str] = set()
        """Machines that EC2 still does not show running when they have been pending too long
        (reconciliation says: what nobody has asked EC2 about may run by now)."""

    def take_turn(self) -> None:
        """End what is owed. Raises LeaseLost."""
        if self._turn.paused():
            return
        for row in self._turn.work.open_terminations():
            due = self._backoff.admits(row["termination_id"])
            # An own bucket that is empty is no failure to back off from.
            if due and self._turn.cloud.may_terminate(len(row["machine_ids"])):
                self._send(row)
        self._terminate_owed()

    def _terminate_owed(self) -> None:
        """Merge what all returns owe, by zone: one protected machine saves all of its zone."""
        turn = self._turn
        under_way = {
            machine_id for row in turn.work.open_terminations() for machine_id in row["machine_ids"]
        }
        zones: dict[str, list[dict[str, Any]]] = {}
        pending_timeout = turn.aws["pending_timeout"]
        for row in turn.work.owed_machines():
            machine_id = row["machine_id"]
            if not row["owed"] and machine_id in self.slow_to_start:
                row["owed"] = f"pending for longer than {pending_timeout:g} s"
            if (
                row["owed"]
                and not row["protected"]
                and (row["batch_id"] not in self._unlowered or machine_id in self.slow_to_start)
                and machine_id not in under_way
                and self._backoff.admits(machine_id)
                and (row["status"] != "shutting-down" or machine_id in self.unheeded)
                and not self._aws_takes(row)
            ):
                zones.setdefault(row["zone"], []).append(row)
        size = turn.aws["batch_sizes"]["terminate_instances"]
        for zone, rows in zones.items():
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                if turn.paused() or not turn.cloud.may_terminate(len(part)):
                    return
                self._intend(zone, part)

    def _aws_takes(self, row: dict[str, Any]) -> bool:
        """AWS is about to end it itself, and the site lets it (AWS_SPOT_TERMINATE_ON_RECLAIM)."""
        if row["interrupted"] != INTERRUPTION or self._turn.aws["spot_terminate_on_reclaim"]:
            return False
        return bool(self._turn.now()[0] < row["interrupted_until"] + RECLAIMED_AFTER)

    def _intend(self, zone: str, rows: list[dict[str, Any]]) -> None:
        turn = self._turn
        reasons = list(dict.fromkeys(row["owed"] for row in rows))
        machine_ids = [row["machine_id"] for row in rows]
        (intended,) = terminations(turn, {zone: machine_ids}, "; ".join(reasons[:3]))
        turn.must_outlive_call()
        turn.save(
            intended,
            correlation_id=rows[0]["return_id"] or rows[0]["correlation_id"],
            causation_id=rows[0]["event_id"],
        )
        row = next(
            r for r in turn.work.open_terminations() if r["termination_id"] == intended.identifier
        )
        self._send(row)

    def _spare(self, row: dict[str, Any], kept: list[str]) -> None:
        """An operator protected some of the machines after the intent: no call is made of it; the
        others are owed still."""
        turn = self._turn
        batch = turn.ledger.get(TerminationBatch, row["termination_id"])
        assert batch is not None
        refused = [[m, PROTECTED_SINCE if m in kept else NOT_SENT] for m in row["machine_ids"]]
        batch.conclude([], refused, "")
        turn.save(batch, correlation_id=row["correlation_id"], causation_id=row["event_id"])
        self._backoff.succeeded(row["termination_id"])

    def _send(self, row: dict[str, Any]) -> None:
        turn = self._turn
        # Asked after the intent was recorded: whoever protects a machine later sees the intent.
        kept = turn.work.protected(row["machine_ids"])
        if kept:
            self._spare(row, kept)
            return
        turn.must_outlive_call()
        answer = turn.cloud.terminate(row["machine_ids"], turn.must_outlive_call)
        self.unheeded.difference_update(answer.accepted)
        self.slow_to_start.difference_update(row["machine_ids"])
        for machine_id in answer.accepted:
            self._backoff.succeeded(machine_id)
        for machine_id in [machine_id for machine_id, _ in answer.refused] + answer.retry:
            self._backoff.failed(machine_id)
        if not answer.accepted and not answer.refused:
            self._backoff.failed(row["termination_id"])
            return  # not known: the same intent is sent again
        batch = turn.ledger.get(TerminationBatch, row["termination_id"])
        assert batch is not None
        batch.conclude(answer.accepted, answer.refused, answer.aws_request_id)
        again = self._rest(row, answer.retry)
        turn.save(batch, *again, correlation_id=row["correlation_id"], causation_id=row["event_id"])
        self._backoff.succeeded(row["termination_id"])
        for machine_id, code in answer.refused:
            turn.journal.warn("termination refused", machine_id=machine_id, code=code)

    def _rest(self, row: dict[str, Any], machine_ids: list[str]) -> list[TerminationBatch]:
        """Intents anew for what EC2 has not answered for, of a termination that is concluded: what
        the ledger has no living machine for is owed by its intent alone."""
        if not machine_ids:
            return []
        alive = self._turn.work.known_machines(machine_ids)
        rest = [machine_id for machine_id in machine_ids if not alive.get(machine_id)]
        intended = terminations(self._turn, {row["zone"]: rest}, row["reason"])
        for termination in intended:
            self._backoff.failed(termination.identifier)
        return intended
