"""Policy: whenever AWS gives notice that it takes a machine, record it: HostFactory is told.

Notices come through the site's queue, at best effort: machines that go without one are seen by
reconciliation
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html).
"""

from __future__ import annotations

from application.ports import CallFailed, Notice
from application.turn import Turn
from domain.machine import Machine

EVERY = 5.0
"""Seconds between looks into the queue: AWS's advice to those who poll for notices."""

KEPT_FOR = 180.0
"""Seconds around its moment in which a notice of a machine that the ledger lacks stays in the
queue: its launch may be one that is not recorded yet."""


class Interrupting:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._looked = float("-inf")

    def take_turn(self) -> None:
        """Record what the queue holds, then take that out of the queue. Raises LeaseLost."""
        turn = self._turn
        if not turn.aws["interruption_queue"] or turn.now()[2] - self._looked < EVERY:
            return
        self._looked = turn.now()[2]
        try:
            while notices := turn.cloud.notices(keep_others=turn.paused()):
                done = self._record(notices)
                if turn.paused() or not done:
                    break  # they come again
                turn.cloud.settle_notices(done)
        except CallFailed as failed:
            turn.journal.warn("interruption queue not read", code=failed.code)

    def _record(self, notices: list[Notice]) -> list[str]:
        """The handles of those that are done with."""
        turn = self._turn
        named = [notice.machine_id for notice in notices]
        rows = {row["machine_id"]: row for row in turn.work.interruptible(named)}
        known = turn.work.known_machines(named)
        done: list[str] = []
        machines: dict[str, Machine] = {}
        for notice in notices:
            is_new = notice.machine_id not in known
            if is_new and abs(turn.now()[0] - notice.until) <= KEPT_FOR:
                continue
            done.append(notice.handle)
            if notice.machine_id not in rows:
                continue
            machine = machines.get(notice.machine_id) or turn.ledger.get(Machine, notice.machine_id)
            assert machine is not None
            machine.interrupt(notice.reason, notice.until)
            machines[notice.machine_id] = machine
        with turn.chunks() as add:
            for machine_id, machine in machines.items():
                add(machine, rows[machine_id]["correlation_id"], rows[machine_id]["event_id"])
        return done
