"""What HostFactory has been seen to know: first sightings of requests and machines."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent


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

    def see_requests(
        self, provider: str, request_ids: list[str], answered_final: list[str]
    ) -> None:
        if request_ids or answered_final:
            self._trigger(
                RequestsSeen,
                provider=provider,
                request_ids=request_ids,
                answered_final=answered_final,
            )

    def see_machines(self, provider: str, machine_ids: list[str]) -> None:
        if machine_ids:
            self._trigger(MachinesSeen, provider=provider, machine_ids=machine_ids)

    def evolve(self, event: DomainEvent) -> None:
        """Nothing to keep: the read models hold who has been seen."""
