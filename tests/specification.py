"""Given these events, when this command, then these events: how the domain's promises are written.

`event` builds an event without its place on a stream; the specification numbers what is given and
compares what comes out by class and fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pytest

from domain.event_sourced import Aggregate, DomainEvent
from domain.refusals import Refusal

A = TypeVar("A", bound=Aggregate)

Happened = tuple[type[DomainEvent], dict[str, Any]]


def event(event_class: type[DomainEvent], **fields: Any) -> Happened:
    """An event as a test tells it: its class and fields."""
    return event_class, fields


class Specification(Generic[A]):
    """`given(...)` events of one aggregate, `when(...)` a command on it, `then...` what is new."""

    def __init__(self, aggregate_class: type[A], identifier: str) -> None:
        self._class = aggregate_class
        self._stream = aggregate_class.stream(identifier)
        self._aggregate = aggregate_class(self._stream)
        self._refusal: Exception | None = None

    def given(self, *happened: Happened) -> Specification[A]:
        events = [
            event_class(originator_id=self._stream, originator_version=version, **fields)
            for version, (event_class, fields) in enumerate(happened, 1)
        ]
        self._aggregate = self._class.project(None, events) or self._aggregate
        return self

    def when(self, command: Callable[[A], object]) -> Specification[A]:
        """Run the command on the aggregate as the given events tell it."""
        try:
            command(self._aggregate)
        except (Refusal, ValueError) as refusal:
            self._refusal = refusal
        return self

    def then(self, *expected: Happened) -> None:
        """Exactly these events are new, on the stream, their versions following on."""
        assert self._refusal is None, self._refusal
        before = self._aggregate.version - len(expected)
        assert self._aggregate.collect_events() == [
            event_class(originator_id=self._stream, originator_version=version, **fields)
            for version, (event_class, fields) in enumerate(expected, before + 1)
        ]

    def then_nothing(self) -> None:
        """The command was carried out already: no event."""
        self.then()

    def then_refused(self, refusal: type[Exception], saying: str = "") -> None:
        """The domain said no with these words, and nothing happened."""
        assert type(self._refusal) is refusal, repr(self._refusal)
        assert saying in str(self._refusal)
        assert self._aggregate.collect_events() == []


def born(make: Callable[[], Aggregate]) -> list[DomainEvent]:
    """The first events of a thing that a command makes."""
    return make().collect_events()


def refused(make: Callable[[], object], refusal: type[Refusal]) -> str:
    """What the domain says when it refuses to make a thing."""
    with pytest.raises(refusal) as caught:
        make()
    return str(caught.value)
