"""The deployment: one store, its identity, and the times it was brought to life."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent


class DeploymentCreated(DomainEvent):
    deployment: str
    incarnation: int
    program_version: str


class StoreActivated(DomainEvent):
    """A copy was made the living store: the incarnation rose."""

    incarnation: int
    reason: str


class StoreMoved(DomainEvent):
    """The history goes on in another store."""

    destination: str
    reason: str


class Deployment(Aggregate):
    STREAM = "deployment"

    def __init__(self, stream: str = "deployment") -> None:
        super().__init__(stream)
        self.deployment = ""
        self.incarnation = 0
        self.moved_to = ""
        """Where the history goes on, as long as no copy was activated since."""

    @classmethod
    def create(cls, deployment: str, program_version: str) -> Deployment:
        self = cls()
        self._trigger(
            DeploymentCreated,
            deployment=deployment,
            incarnation=1,
            program_version=program_version,
        )
        return self

    def activate(self, reason: str) -> None:
        self._trigger(StoreActivated, incarnation=self.incarnation + 1, reason=reason)

    def move(self, destination: str, reason: str) -> None:
        self._trigger(StoreMoved, destination=destination, reason=reason)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, DeploymentCreated):
            self.deployment = event.deployment
            self.incarnation = event.incarnation
        elif isinstance(event, StoreActivated):
            self.incarnation = event.incarnation
            self.moved_to = ""
        elif isinstance(event, StoreMoved):
            self.moved_to = event.destination
