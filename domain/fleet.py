"""A fleet or group that one of our launches made: its target, and its end. Its id is the batch's.

What it launches belongs to its batch. Targets are absolute and are lowered before machines of it
are ended, so that none comes back; it is deleted when its last machine is gone.
"""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent

LIVE = "live"
DELETING = "deleting"
DELETED = "deleted"


class FleetCreated(DomainEvent):
    """AWS made it; `fleet_type` is instant, request or maintain, `target` in units."""

    api: str
    fleet_id: str
    fleet_type: str
    target: int
    account: str
    region: str
    provider: str
    launch_template: str


class FleetTargetIntended(DomainEvent):
    """Written before the call: no more than `target` units, `on_demand` of them on demand."""

    target: int
    on_demand: int
    reason: str


class FleetTargetSet(DomainEvent):
    target: int


class FleetDeletionIntended(DomainEvent):
    """Written before the call. Its machines are not ended by it."""

    reason: str


class FleetDeleted(DomainEvent):
    pass


class Fleet(Aggregate):
    STREAM = "fleet"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.state = ""
        self.target = 0
        self.intended: tuple[int, int] | None = None
        """(target, on demand) of the call that is under way."""

    def create(self, **facts: str | int) -> None:
        """Record it, once."""
        if not self.state:
            self._trigger(FleetCreated, **facts)

    def intend_target(self, target: int, on_demand: int, reason: str) -> None:
        """Write down a target before it is set, also one that is set again."""
        if self.state == LIVE:
            self._trigger(FleetTargetIntended, target=target, on_demand=on_demand, reason=reason)

    def set_target(self) -> None:
        """Record that AWS took the intended target."""
        if self.intended is not None:
            self._trigger(FleetTargetSet, target=self.intended[0])

    def intend_deletion(self, reason: str) -> None:
        if self.state == LIVE:
            self._trigger(FleetDeletionIntended, reason=reason)

    def delete(self) -> None:
        if self.state == DELETING:
            self._trigger(FleetDeleted)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, FleetCreated):
            self.state = LIVE
            self.target = event.target
        elif isinstance(event, FleetTargetIntended):
            self.intended = (event.target, event.on_demand)
        elif isinstance(event, FleetTargetSet):
            self.target = event.target
            self.intended = None
        elif isinstance(event, FleetDeletionIntended):
            self.state = DELETING
            self.intended = None
        elif isinstance(event, FleetDeleted):
            self.state = DELETED
