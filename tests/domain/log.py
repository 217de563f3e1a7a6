"""The events of several aggregates as a store keeps them, for lives in any order."""

from __future__ import annotations

from typing import Any

from domain.event_sourced import Aggregate, DomainEvent


def state(aggregate: Aggregate) -> dict[str, Any]:
    """All that an aggregate remembers, but for what is not stored yet."""
    return {name: value for name, value in vars(aggregate).items() if name != "_pending"}


class Log:
    """The events of all aggregates, as a store keeps them; what is in it is never changed."""

    def __init__(self) -> None:
        self.streams: dict[str, list[DomainEvent]] = {}

    def save(self, *aggregates: Aggregate) -> list[DomainEvent]:
        """Store what is new."""
        new = []
        for aggregate in aggregates:
            events = aggregate.collect_events()
            assert aggregate.collect_events() == []
            self.streams.setdefault(aggregate.id, []).extend(events)
            new += events
        return new

    def check(self, aggregate: Aggregate) -> None:
        """Replay equals live, and versions count from 1."""
        events = self.streams.get(aggregate.id, [])
        assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
        assert all(event.originator_id == aggregate.id for event in events)
        assert aggregate.version == len(events)
        replayed = type(aggregate).project(None, events)
        if replayed is None:
            assert aggregate.version == 0
        else:
            assert state(replayed) == state(aggregate)
