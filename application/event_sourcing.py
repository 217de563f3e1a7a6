"""The ledger as the worker and the operator use it: the eventsourcing library's Application.

`save(*aggregates, correlation_id=..., ...)` is one commit; the keywords are those of the store's
`append`: metadata, fence, tracking, command, bodies.
"""

from __future__ import annotations

from typing import Any, TypeVar

from eventsourcing.application import AggregateNotFoundError, Application, ProcessingEvent
from eventsourcing.persistence import InfrastructureFactory, Recording, Tracking

from domain.event_sourced import Aggregate

A = TypeVar("A", bound=Aggregate)

END = 2**62
"""Beyond every version."""


class Ledger(Application[str]):
    """Loads aggregates from their events and saves them over the factory's store. So many that were
    loaded are `kept`, and brought up to date from the later events when they are asked for again.
    """

    name = "hostledger"

    def __init__(self, factory: InfrastructureFactory[Any], kept: int = 0) -> None:
        self._given_factory = factory
        super().__init__({self.AGGREGATE_CACHE_MAXSIZE: str(kept)} if kept else None)

    def construct_factory(self, env: Any) -> InfrastructureFactory[Any]:
        return self._given_factory

    def get(self, aggregate_class: type[A], identifier: str, *, from_log: bool = False) -> A | None:
        """The thing with this id; None when the log has no such stream. `from_log` is for what may
        have been archived since it was kept. Raises EventsArchivedAway."""
        try:
            return self.repository.get(
                aggregate_class.stream(identifier),
                version=END if from_log else None,
                projector_func=aggregate_class.project,
            )
        except AggregateNotFoundError:
            return None

    def save(
        self, *objs: Any, tracking: tuple[str, int] | None = None, **metadata: Any
    ) -> list[Recording[str]]:
        """Store what is pending, and with it that a policy has processed a position."""
        processing: ProcessingEvent[str] = ProcessingEvent(
            Tracking(*tracking) if tracking else None
        )
        processing.collect_events(*objs, **metadata)
        return self._record(processing)
