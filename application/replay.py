"""Use case: fold the log into read models once more, up to a position or a time.

Nothing else happens when events are replayed: no policy sees them, and nothing is asked of AWS.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager

from application.failures import NoMoment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    Row = dict[str, Any]
    Stored = tuple[Any, ...]
    """What is stored of an event, in the order of COLUMNS."""

    class Log(Protocol):
        """What tells where a log ends."""

        def last_events(self, limit: int, topic: str | None) -> list[Row]: ...

    class Source(Log, Protocol):
        """A look at a store's log."""

        def events_after(self, position: int, limit: int) -> list[Row]: ...

        def records_to_replay(self, position: int, limit: int) -> list[Stored]: ...

    class Timed(Log, Protocol):
        def time_of(self, position: int) -> str:
            """When an event was recorded, although it may be in an archive."""
            ...

    class Replica(Protocol):
        """Read models that follow a log by themselves."""

        position: int
        """Of the last event that they took in; 0 before any."""

        chain: str
        """Of that event."""

        def begin(self) -> None:
            """Forget everything."""
            ...

        def take(self, events: Sequence[Stored]) -> None: ...

        def write(self) -> None: ...


BATCH = 1_000
"""Events that are read at once."""


def replay(
    source: Source,
    replica: Replica,
    until: int,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> None:
    """Let a replica follow from where it is to a position, or to the log's end before that. One
    that followed another log begins again.

    `progress` is told (position, until). Raises UnknownEvent, LogDamaged, StoreError.
    """
    if replica.position:
        last = source.events_after(replica.position - 1, 1)
        if not last or last[0]["chain"] != replica.chain:
            replica.begin()
    with no_search_for_cycles():
        while replica.position < until:
            count = min(BATCH, until - replica.position)
            events = source.records_to_replay(replica.position, count)
            if not events:
                break
            replica.take(events)
            progress(replica.position, until)
        replica.write()


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """Events and rows are many and in no cycle: to look for one takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def end_of(source: Log) -> int:
    """The position of the log's last event; 0 for none."""
    last = source.last_events(1, None)
    return last[0]["position"] if last else 0


def position_of(source: Timed, moment: str) -> int:
    """The position that a person's word names: a position itself, or a time in ISO 8601 (UTC where
    it says nothing else), of which it is the last event recorded until then; 0 before all of them.

    Raises NoMoment.
    """
    end = end_of(source)
    if moment.isdecimal():
        if int(moment) > end:
            raise NoMoment(f"there is no event {moment}: the log ends with event {end}")
        return int(moment)
    at = recorded(moment)
    first, last = 0, end
    while first < last:  # recorded time never goes back, so that half of the rest is looked at
        middle = (first + last + 1) // 2
        if source.time_of(middle) <= at:
            first = middle
        else:
            last = middle - 1
    return first


def recorded(moment: str) -> str:
    """A time in ISO 8601 as events have it; UTC where it says nothing else. Raises NoMoment."""
    from datetime import UTC, datetime

    try:
        time = datetime.fromisoformat(moment)
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError):
        raise NoMoment(
            f"{moment} is no moment: a position, or a time like 2027-01-15T08:00:00Z is needed"
        ) from None
