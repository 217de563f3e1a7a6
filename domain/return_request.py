"""A return: machines handed back, until each is gone or has been refused."""

from __future__ import annotations

from domain.event_sourced import MOST_IN_AN_EVENT, Aggregate, DomainEvent
from domain.refusals import NothingToReturn


class MachinesReturned(DomainEvent):
    """`machine_ids` are ours; `strangers` are [machine id or "", name] that the ledger has not."""

    provider: str
    machine_ids: list[str]
    strangers: list[list[str]]
    reason: str
    source: str


class ReturnCompleted(DomainEvent):
    message: str


class ReturnPartlyRefused(DomainEvent):
    """`refused` are [machine id or name, why]: they live and are not ours to end."""

    refused: list[list[str]]
    message: str


class ReturnRequest(Aggregate):
    STREAM = "return"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.is_final = False
        self.machine_ids: list[str] = []

    @classmethod
    def hand_back(
        cls,
        return_id: str,
        provider: str,
        machine_ids: list[str],
        strangers: list[list[str]],
        reason: str,
        source: str,
    ) -> ReturnRequest:
        """Take machines back, however many. Raises NothingToReturn."""
        if not machine_ids and not strangers:
            raise NothingToReturn("no machine is named: there is nothing to return")
        self = cls(cls.stream(return_id))
        for start in range(0, max(len(machine_ids), len(strangers)), MOST_IN_AN_EVENT):
            part = slice(start, start + MOST_IN_AN_EVENT)
            self._trigger(
                MachinesReturned,
                provider=provider,
                machine_ids=machine_ids[part],
                strangers=strangers[part],
                reason=reason,
                source=source,
            )
        return self

    def finish(self, refused: list[list[str]]) -> None:
        """Become final: every machine is gone, but for the refused ones."""
        if self.is_final:
            return
        if refused:
            message = "; ".join(f"{name}: {why}" for name, why in refused[:5])
            if len(refused) > 5:
                message += f"; and {len(refused) - 5} more"
            self._trigger(ReturnPartlyRefused, refused=refused, message=message)
        else:
            self._trigger(ReturnCompleted, message="every machine is gone")

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, MachinesReturned):
            self.machine_ids += event.machine_ids
        elif isinstance(event, (ReturnCompleted, ReturnPartlyRefused)):
            self.is_final = True
