"""What HostFactory has been seen to know: first sightings of requests and machines."""

from __future__ import annotations

from domain.event_sourced import MOST_IN_AN_EVENT, Aggregate, DomainEvent


class RequestsSeen(DomainEvent):
    """getRequestStatus named these requests for the first time; `answered_final` are those whose
    final answer was given for the first time."""

    provider: str
    request_ids: list[str]
    answered_final: list[str]


class MachinesSeen(DomainEvent):
    """getReturnRequests named these machines for the first time: they are HostFactory's."""

    provider: str
    machine_ids: list[str]


class HostFactory(Aggregate):
    STREAM = "host-factory"

    def __init__(self, stream: str = "host-factory") -> None:
        super().__init__(stream)

    @classmethod
    def at_version(cls, version: int) -> HostFactory:
        """It has no state but its version, and its stream is as long as its life."""
        self = cls()
        self.version = version
        return self

    def see_requests(
        self, provider: str, request_ids: list[str], answered_final: list[str]
    ) -> None:
        for start in range(0, max(len(request_ids), len(answered_final)), MOST_IN_AN_EVENT):
            part = slice(start, start + MOST_IN_AN_EVENT)
            self._trigger(
                RequestsSeen,
                provider=provider,
                request_ids=request_ids[part],
                answered_final=answered_final[part],
            )

    def see_machines(self, provider: str, machine_ids: list[str]) -> None:
        for start in range(0, len(machine_ids), MOST_IN_AN_EVENT):
            named = machine_ids[start : start + MOST_IN_AN_EVENT]
            self._trigger(MachinesSeen, provider=provider, machine_ids=named)

    def evolve(self, event: DomainEvent) -> None:
        """Nothing to keep: the read models hold who has been seen."""
