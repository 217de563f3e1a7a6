"""The shape that every event and every aggregate of the domain has.

Plain classes, because a HostFactory call is a new process and must not pay for a library it does
not use. They keep the protocols of the eventsourcing library (`originator_id`,
`originator_version`, `collect_events`), so its mapper, repository and application work on them as
they are.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda cls: cls


MOST_IN_AN_EVENT = 1_000
"""An event names at most so many machines or requests, so that it fits every store."""


@dataclass_transform(kw_only_default=True)
class DomainEvent:
    """A fact on a stream. Fields are the annotations of the concrete class, plain JSON values.

    A subclass's name is its topic and is for ever: stored events carry it. A change of fields is a
    new `class_version` with an `upcast_vN_vM` static method, never an edit of the old meaning.
    """

    originator_id: str
    originator_version: int
    class_version = 1

    def __init_subclass__(cls) -> None:
        cls.TOPIC = cls.__name__

    TOPIC = ""

    def __init__(self, **fields: Any) -> None:
        expected = type(self).__annotations__
        if len(fields) != len(expected) + 2:
            raise TypeError(f"{self.TOPIC} takes {sorted(expected)}, not {sorted(fields)}")
        # In the order of the annotations, so that equal events are stored as equal bytes.
        ordered = {name: fields[name] for name in expected}
        ordered["originator_id"] = fields["originator_id"]
        ordered["originator_version"] = fields["originator_version"]
        self.__dict__ = ordered

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.TOPIC}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


class Aggregate:
    """A thing with a life, known by the events on its stream.

    Commands guard, then `_trigger` an event; `evolve` folds one event into the state and is total:
    it never refuses what has happened.
    """

    STREAM = ""
    """The stream's type: a stream is called `<STREAM>-<id>`."""

    def __init__(self, stream: str) -> None:
        self.id = stream
        self.version = 0
        self._pending: list[DomainEvent] = []

    @classmethod
    def stream(cls, identifier: str) -> str:
        """The name of the stream of the thing with this id; "" is the one thing of its type."""
        return f"{cls.STREAM}-{identifier}" if identifier else cls.STREAM

    @property
    def identifier(self) -> str:
        """The id in the one form that is printed, stored and told to HostFactory."""
        return self.id[len(self.STREAM) + 1 :]

    @classmethod
    def project(cls, aggregate: Self | None, events: Iterable[Any]) -> Self | None:
        """Fold events into an aggregate; None when there is no event at all."""
        for event in events:
            if aggregate is None:
                aggregate = cls(event.originator_id)
            aggregate.evolve(event)
            aggregate.version = event.originator_version
        return aggregate

    def evolve(self, event: DomainEvent) -> None:
        raise NotImplementedError

    def _trigger(self, event_class: type[DomainEvent], **fields: Any) -> None:
        event = event_class(originator_id=self.id, originator_version=self.version + 1, **fields)
        self.evolve(event)
        self.version += 1
        self._pending.append(event)

    @property
    def has_pending(self) -> bool:
        """Whether anything has happened that is not stored yet."""
        return bool(self._pending)

    def collect_events(self) -> list[DomainEvent]:
        """Hand over the events that are not stored yet, once."""
        pending, self._pending = self._pending, []
        return pending
