"""Policy: whenever HostFactory's calls named something, remember it; end what it never names.

A request whose answer was lost is asked for again by HostFactory under another id; the first one
would run and be paid for, and nobody would know. Only time in which HostFactory was calling counts:
one that is stopped must not cost a fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from application.cancel_request import CancelRequest, cancel_request
from application.instants import Instant
from application.ports import CallFailed
from application.reconciliation import Reconciliation
from application.return_machines import ReturnMachines, return_machines
from application.turn import Turn
from domain.host_factory import HostFactory
from domain.refusals import RequestIsFinal

ANY_CALL, HOSTS_NAMED = "any call", "hosts named"


class Sightings(Protocol):
    """The lines that the short calls noted (`infrastructure/sightings.py`)."""

    def take(self) -> list[dict[str, Any]]: ...

    def done(self) -> None: ...


class Sighting:
    def __init__(
        self,
        turns: Sequence[Turn],
        sightings: Sightings,
        reconciliations: Sequence[Reconciliation],
    ) -> None:
        self._turns = turns
        self._turn = turns[0]
        self._sightings = sightings
        self._reconciliations = reconciliations
        self._strangers: dict[tuple[str, str], None] = {}

    def take_turn(self) -> None:
        lines = self._sightings.take()
        if lines:
            self._remember(lines)
            self._sightings.done()
        self._ask_after_strangers()
        self._end_unseen(self._turn.aws["creation_timeout"])

    def _remember(self, lines: list[dict[str, Any]]) -> None:
        """First sightings become events, and only those; all calls count as calling time."""
        turn = self._turn
        by_provider: dict[str, tuple[dict[str, None], dict[str, None], dict[str, None]]] = {}
        for line in lines:
            requests, finals, machines = by_provider.setdefault(
                str(line.get("provider", "")), ({}, {}, {})
            )
            requests.update(dict.fromkeys(line.get("requests", ())))
            finals.update(dict.fromkeys(line.get("final", ())))
            machines.update(dict.fromkeys(line.get("machines", ())))
            for machine_id, name in line.get("strangers", ()):
                self._strangers[machine_id, name] = None
            if line.get("stale"):
                for reconciliation in self._reconciliations:
                    reconciliation.sweep_wanted = True
        for provider, (requests, finals, machines) in by_provider.items():
            unseen, unanswered, unnamed = turn.work.first_sightings(
                list(requests), list(finals), list(machines)
            )
            if unseen or unanswered or unnamed:
                host_factory = HostFactory.at_version(turn.work.stream_version(HostFactory.STREAM))
                host_factory.see_requests(provider, unseen, unanswered)
                host_factory.see_machines(provider, unnamed)
                turn.save(host_factory, correlation_id="sightings")
            # Each instance's own: one that is stopped must not age by the other's calls.
            own = [line for line in lines if str(line.get("provider", "")) == provider]
            turn.notebook.add_calling(f"{ANY_CALL} {provider}", [_instant(line) for line in own])
            turn.notebook.add_calling(
                f"{HOSTS_NAMED} {provider}", [_instant(line) for line in own if line.get("hosts")]
            )

    def _ask_after_strangers(self) -> None:
        """Hosts that the ledger has never had are asked for by id before they are called gone: on
        the day of a switch-over the old plug-in's machines are healthy."""
        if not self._strangers:
            return
        turn = self._turn
        try:
            found = [
                instance
                for place in self._turns
                for instance in place.cloud.find(
                    [machine_id for machine_id, _ in self._strangers if machine_id],
                    [name for machine_id, name in self._strangers if not machine_id],
                )
            ]
        except CallFailed as failed:
            turn.journal.info("strangers not asked after", kind=failed.kind, code=failed.code)
            return
        states = {instance.machine_id: instance.state for instance in found}
        states |= {instance.name: instance.state for instance in found if instance.name}
        turn.notebook.put_cloud_states(
            [
                (machine_id or name, name, states.get(machine_id or name, "absent"))
                for machine_id, name in self._strangers
            ],
            turn.now(),
        )
        self._strangers.clear()

    def _end_unseen(self, timeout: float) -> None:
        """End what HostFactory, calling all the while, has not named for so many seconds."""
        turn = self._turn
        requests = turn.work.unseen_requests()
        machines = turn.work.unclaimed_machines()
        clocks = {row["request_id"]: f"{ANY_CALL} {row['provider']}" for row in requests}
        clocks |= {row["machine_id"]: f"{HOSTS_NAMED} {row['provider']}" for row in machines}
        # Few clocks for many things: each is looked at once.
        calling = {clock: turn.notebook.calling(clock) for clock in set(clocks.values())}
        now = {thing: calling[clock] for thing, clock in clocks.items()}
        since = turn.notebook.unseen_since(now)
        overdue = {thing for thing in now if now[thing] - since[thing] >= timeout}
        for row in requests:
            if row["request_id"] in overdue:
                self._end_unknown_request(row, timeout)
        unclaimed: dict[str, list[str]] = {}
        for row in machines:
            if row["machine_id"] in overdue:
                unclaimed.setdefault(row["provider"], []).append(row["machine_id"])
        for provider, machine_ids in unclaimed.items():
            self._hand_back(
                provider,
                machine_ids,
                f"no getReturnRequests has named it in {timeout:g} s in which HostFactory named "
                "its hosts: HostFactory does not know it",
            )

    def _end_unknown_request(self, row: dict[str, Any], timeout: float) -> None:
        turn = self._turn
        reason = (
            f"no getRequestStatus has named it in {timeout:g} s in which HostFactory was "
            "calling: its answer was lost"
        )
        living = turn.work.living_machines_of(row["request_id"])
        if row["final"]:
            self._hand_back(row["provider"], living, reason)
            return
        command = CancelRequest(
            row["request_id"], row["provider"], living, reason, "worker", turn.random(16)
        )
        try:
            cancel_request(command, turn.ledger, fence=turn.lease.fence)
        except RequestIsFinal:
            return  # somebody else has just ended it

    def _hand_back(self, provider: str, machine_ids: list[str], reason: str) -> None:
        turn = self._turn
        return_machines(
            ReturnMachines(provider, machine_ids, [], reason, "worker", turn.random(16)),
            turn.ledger,
            fence=turn.lease.fence,
        )


def _instant(line: dict[str, Any]) -> Instant:
    return (float(line["at"]), str(line["boot_id"]), float(line["boot"]))
