"""The operator's brake on what the deployment does at AWS: one for all, on or off."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent

LAUNCHING = "launching"
EVERYTHING = "everything"


class Paused(DomainEvent):
    """From now on nothing is launched (`scope` launching; fleets that are filling are stopped), or
    nothing is changed at AWS at all (everything; such fleets go on by themselves). What is asked
    for waits, until its deadline."""

    scope: str
    reason: str


class Resumed(DomainEvent):
    reason: str


class Brake(Aggregate):
    STREAM = "brake"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.scope = ""

    def pause(self, scope: str, reason: str) -> None:
        """Pull it, or pull it in another scope."""
        if self.scope != scope:
            self._trigger(Paused, scope=scope, reason=reason)

    def resume(self, reason: str) -> None:
        if self.scope:
            self._trigger(Resumed, reason=reason)

    def evolve(self, event: DomainEvent) -> None:
        self.scope = event.scope if isinstance(event, Paused) else ""
