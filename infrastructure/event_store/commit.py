"""One commit before any store has it: the events' records with digest and chain, and the rows that
the read models make of them. The same for every store, so that their logs are the same bytes.
"""

from __future__ import annotations

import os
import time

from application.failures import LogDamaged, UnknownEvent, archived_away
from application.json_text import dumps, loads
from application.projections import FRAGMENTS, PROJECTIONS, Record
from infrastructure.event_store.digest import chain, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeVar

    from application.instants import Instant
    from domain.event_sourced import Aggregate, DomainEvent

    R = TypeVar("R")

    Head = tuple[int, str, str]
    """Position, chain and recorded time of the last event; (0, deployment id, "") before any."""

    Pending = tuple[str, int, str, int, str, Any]
    """Stream, version, topic, class version, data text and data (None for what no projection
    takes) of an event that is to be appended."""


ARCHIVED = ""
"""The topic of what is left of an event that was taken out of the store: its metadata and data are
empty too. Stream and version stay, so that nothing is ever appended there again."""


def iso(wall: float) -> str:
    """A time as it is stored and printed: ISO 8601, UTC, microseconds; sorts as text."""
    global _second
    seconds, fraction = divmod(round(wall * 1_000_000), 1_000_000)
    known, text = _second
    if seconds != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds, text
    return f"{text}.{fraction:06d}Z"


_second = (-1, "")


def seconds(at: str) -> float:
    """Wall seconds of a recorded time; by hand, since a turn asks this of every living machine."""
    from calendar import timegm

    date = int(at[0:4]), int(at[5:7]), int(at[8:10]), int(at[11:13]), int(at[14:16])
    return timegm((*date, 0)) + float(at[17:-1])


def compose(
    pending: Sequence[Pending],
    head: Head,
    instant: Instant,
    actor: dict[str, str],
    cause: tuple[str, str],
    causes: dict[str, tuple[str, str]],
) -> tuple[list[tuple[Any, ...]], list[Record]]:
    """The rows (COLUMNS) of events that follow `head`, and what the projections see of them.

    `cause` is (correlation id, causation id); `causes` has others for single streams.
    """
    position, previous, recorded_at = head
    recorded_at = max(recorded_at, iso(instant[0]))  # recorded time never goes back
    texts: dict[tuple[str, str], str] = {}
    rows = []
    followed = []
    random = os.urandom(16 * len(pending)).hex()
    for index, (stream, version, topic, class_version, data, fields) in enumerate(pending):
        position += 1
        event_id = random[32 * index : 32 * index + 32]
        why = causes.get(stream, cause)
        metadata = texts.get(why)
        if metadata is None:
            metadata = texts[why] = dumps(
                {
                    "correlation_id": why[0],
                    "causation_id": why[1],
                    "actor": actor,
                    "boot": [instant[1], instant[2]],
                }
            )
        digest_ = digest(
            event_id, stream, version, topic, class_version, recorded_at, metadata, data
        )
        previous = chain(previous, position, digest_)
        rows.append(
            (
                position, event_id, stream, version, topic, class_version,
                recorded_at, metadata, data, digest_, previous,
            )
        )  # fmt: skip
        followed.append(
            Record(position, event_id, stream, topic, recorded_at, instant, why[0], fields)
        )
    return rows, followed


def decompose(row: Sequence[Any]) -> Record:
    """What the projections see of a stored event (a row of COLUMNS). Raises UnknownEvent."""
    (record,) = decompose_all([row])
    return record


def decompose_all(rows: Iterable[Sequence[Any]]) -> Iterator[Record]:
    """The same of many, in their order; what neighbours have in common is read once.

    Raises UnknownEvent, LogDamaged for one that is not what was written.
    """
    from domain.topics import TOPICS

    said, facts = "", {}
    at, wall = "", 0.0
    for row in rows:
        (
            position, event_id, stream, version, topic, class_version, recorded_at, metadata, data,
            _, _,
        ) = row  # fmt: skip
        try:
            if metadata != said:
                facts, said = loads(metadata), metadata
            if recorded_at != at:
                wall, at = seconds(recorded_at), recorded_at
            event_class = TOPICS.get(topic)
            if event_class is None or event_class.class_version != class_version:
                fields = to_fields(stream, version, topic, class_version, data)
            else:
                fields = loads(data)
                fields.pop("class_version", None)
            yield Record(
                position, event_id, stream, topic, recorded_at, (wall, *facts["boot"]),
                facts["correlation_id"], fields,
            )  # fmt: skip
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise LogDamaged(
                f"event {position} ({topic}, version {version} of {stream}) cannot be read: "
                f"{type(error).__name__}: {error}; the events before it are sound as far as they "
                "were read"
            ) from None


def is_damaged(last: Sequence[Any], before: str) -> bool:
    """Whether a stored event (a row of COLUMNS) is not what its own digest says, or does not follow
    the chain of the one before."""
    position, *canonical, stored, chained = last
    return bool(digest(*canonical) != stored or chain(before, position, stored) != chained)


def project(records: Iterable[Record], rows: Rows, failed: set[str]) -> dict[str, tuple[int, str]]:
    """Let the read models follow, in the order of the events: what they change is in `rows`.

    `failed` are the projections that stand still. One that fails stops alone, at its position: the
    events are the truth and are kept. Returns name -> position and error of those that failed now.
    """
    errors: dict[str, tuple[int, str]] = {}
    followers: dict[str, list[tuple[str, Any]]] = {}
    for record in records:
        topic = record.topic
        if topic not in followers:
            followers[topic] = [
                (name, handlers[topic])
                for name, handlers in PROJECTIONS.items()
                if topic in handlers
            ]
        for name, handler in followers[topic]:
            if name in failed:
                continue
            rows.writer = name
            try:
                handler(record, rows)
            except (
                LookupError,
                TypeError,
                ValueError,
                AttributeError,
                AssertionError,
            ) as error:
                failed.add(name)
                errors[name] = (record.position, f"{type(error).__name__}: {error}")
                rows.forget(name)
    return errors


def to_record(event: DomainEvent) -> tuple[str, int, str, int, str, Any]:
    """An event as `append` takes it: what the library's mapper would store, without the library."""
    fields = dict(event.__dict__)
    del fields["originator_id"], fields["originator_version"]
    data = fields
    if event.class_version > 1:
        data = {**fields, "class_version": event.class_version}
    return (
        event.originator_id,
        event.originator_version,
        event.TOPIC,
        event.class_version,
        dumps(data),
        fields,
    )


def to_fields(
    stream: str, version: int, topic: str, class_version: int, data: str
) -> dict[str, Any]:
    """The fields of a stored event as its class has them today. Raises UnknownEvent for a topic or
    version not known."""
    from domain.topics import TOPICS

    event_class = TOPICS.get(topic)
    if event_class is None:
        if topic == ARCHIVED:
            raise archived_away(stream, [])
        raise UnknownEvent(f"{stream} version {version}: no event is called {topic!r} here")
    if class_version > event_class.class_version:
        raise UnknownEvent(
            f"{stream} version {version}: {topic} of class version {class_version} was written by "
            f"a newer release (this one knows {event_class.class_version})"
        )
    fields: dict[str, Any] = loads(data)
    fields.pop("class_version", None)
    for old in range(class_version, event_class.class_version):
        getattr(event_class, f"upcast_v{old}_v{old + 1}")(fields)
    return fields


def to_event(stream: str, version: int, topic: str, class_version: int, data: str) -> DomainEvent:
    """A stored event as a domain event. Raises UnknownEvent for a topic or version not known."""
    from domain.topics import TOPICS

    fields = to_fields(stream, version, topic, class_version, data)
    event = object.__new__(TOPICS[topic])
    fields["originator_id"] = stream
    fields["originator_version"] = version
    event.__dict__ = fields
    return event


class AggregateStore:
    """Saves aggregates by `append`, which each store has of its own."""

    append: Callable[..., list[str]]
    _actor: dict[str, str]

    def act_for(self, principal: str) -> None:
        """From here on commits are made for a client of the server; for none with ""."""
        own = {name: value for name, value in self._actor.items() if name != "principal"}
        self._actor = {**own, "principal": principal} if principal else own

    def save(self, *aggregates: Aggregate, **metadata: Any) -> list[str]:
        """Store the pending events of aggregates in one commit; the ids of the events.

        The keywords are those of `append`.
        """
        events = [event for aggregate in aggregates for event in aggregate.collect_events()]
        return self.append([to_record(event) for event in events], **metadata)

    def together(self, works: Sequence[Callable[[], R]]) -> list[R | Exception]:
        """Carry out several commands, in their order, in one commit where the store has that: what
        each returned, or the exception it raised, which is its own and keeps nothing of the others
        back.

        Whoever is answered before this has returned is answered too early. What a work saves before
        it raises stays, as in a commit of its own. Raises StoreError when the commit that they
        share fails: then nothing of any is recorded.
        """
        return [outcome_of(work) for work in works]


def outcome_of(work: Callable[[], R]) -> R | Exception:
    try:
        return work()
    except Exception as error:
        return error


class Rows:
    """The rows of the read tables within one commit: read once, written once.

    `read` gives a row as the store has it (text where a column holds JSON), or None.
    """

    KEYS = {
        "requests": ("request_id",),
        "machines": ("machine_id",),
        "returned_machines": ("return_id", "ordinal"),
        "templates": ("template_key",),
        "template_revisions": ("revision_key",),
        "batches": ("batch_id",),
        "terminations": ("termination_id",),
        "fleets": ("batch_id",),
        "brake": ("one",),
        "launch_templates": ("template_key",),
    }
    LISTS = {"batches": "claims", "terminations": "machine_ids"}
    """Table -> the column of which handlers see the value."""
    JSON = {
        "requests": ("fragment",),
        "machines": ("fragment", "return_fragment"),
        "returned_machines": ("fragment",),
        "templates": ("content",),
        "template_revisions": ("content",),
        "batches": ("payload", "claims"),
        "terminations": ("machine_ids",),
        "fleets": (),
        "brake": (),
        "launch_templates": ("payload",),
    }
    """Table -> columns that hold JSON as text."""

    def __init__(self, read: Callable[[str, tuple[Any, ...]], dict[str, Any] | None]) -> None:
        self._read = read
        self._known: dict[tuple[Any, ...], dict[str, Any] | None] = {}
        self._changed: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        self.writer = ""
        """The projection whose handler runs."""

    def get(self, table: str, *key: Any) -> dict[str, Any] | None:
        """The row, or None. Change it and `put` it."""
        full = (table, *key)
        try:
            return self._known[full]
        except KeyError:
            row = self._known[full] = self._read(table, key)
        if row is not None:
            column = self.LISTS.get(table)
            if column is not None:
                row[column] = loads(row[column])
        return row

    def put(self, table: str, row: dict[str, Any]) -> None:
        key = self.KEYS[table]
        full = (table, row[key[0]]) if len(key) == 1 else (table, *[row[k] for k in key])
        self._known[full] = row
        changed = self._changed.get(self.writer)
        if changed is None:
            changed = self._changed[self.writer] = {}
        changed[full] = row

    def know(self, found: dict[tuple[Any, ...], dict[str, Any]]) -> None:
        """Rows that were read ahead, (table, *key) -> row; of a table that has no LISTS."""
        for full, row in found.items():
            self._known.setdefault(full, row)

    def writers(self) -> list[str]:
        return list(self._changed)

    def take(self, writer: str) -> list[tuple[str, dict[str, Any]]]:
        """(table, row as it is stored) of what one projection changed; not given again."""
        taken = []
        for full, row in self._changed.pop(writer, {}).items():
            table = full[0]
            if table in FRAGMENTS and row["fragment"] is None:
                FRAGMENTS[table](row)
            stored = row
            for column in self.JSON[table]:
                value = row[column]
                if value is None or value.__class__ is str:
                    continue
                if column == self.LISTS.get(table):
                    stored = {**row, column: dumps(value)}
                else:
                    row[column] = dumps(value)  # as it would be read again
            taken.append((table, stored))
        return taken

    def forget(self, writer: str) -> None:
        """Drop what one projection changed: it failed. What the others changed stays known."""
        self._changed.pop(writer, None)
        self._known.clear()
        for changed in self._changed.values():
            self._known |= changed

    def __len__(self) -> int:
        return len(self._known)

    def shrink(self, most: int) -> None:
        """Forget rows beyond so many, the oldest first, after all that changed was taken."""
        for full in [*self._known][: max(0, len(self._known) - most)]:
            del self._known[full]
