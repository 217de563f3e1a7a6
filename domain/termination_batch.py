"""A termination: one intended terminate call, with the machines of one zone."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent


class TerminationIntended(DomainEvent):
    """Written before the call. `reason` is why these machines may be ended (returned, surplus,
    pending too long, unknown request, orphan)."""

    machine_ids: list[str]
    account: str
    region: str
    zone: str
    reason: str


class TerminationAccepted(DomainEvent):
    machine_ids: list[str]
    aws_request_id: str


class TerminationRefused(DomainEvent):
    """`refused` are [machine id, AWS code]; they stay owed."""

    refused: list[list[str]]


class TerminationBatch(Aggregate):
    STREAM = "termination"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.machine_ids: list[str] = []
        self.is_open = False

    @classmethod
    def intend(
        cls,
        termination_id: str,
        machine_ids: list[str],
        account: str,
        region: str,
        zone: str,
        reason: str,
    ) -> TerminationBatch:
        self = cls(cls.stream(termination_id))
        self._trigger(
            TerminationIntended,
            machine_ids=machine_ids,
            account=account,
            region=region,
            zone=zone,
            reason=reason,
        )
        return self

    def conclude(self, accepted: list[str], refused: list[list[str]], aws_request_id: str) -> None:
        """Record AWS's answer, once."""
        if not self.is_open:
            return
        if accepted:
            self._trigger(TerminationAccepted, machine_ids=accepted, aws_request_id=aws_request_id)
        if refused:
            self._trigger(TerminationRefused, refused=refused)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, TerminationIntended):
            self.machine_ids = event.machine_ids
            self.is_open = True
        else:
            self.is_open = False
