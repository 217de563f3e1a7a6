"""The SQLite event store: one file, one writer at a time, every commit on disk before it is told.

This is the whole of what a HostFactory write needs, on the C driver alone; the eventsourcing
library's recorders (`recorders.py`) store through the same `append`.
"""

from __future__ import annotations

import os
import time

from application.crash_points import reach
from application.failures import (
    AlreadyTracked,
    Conflict,
    Fenced,
    LogDamaged,
    ProjectionFailed,
    StoreBusy,
    StoreError,
    StoreInert,
    UnknownEvent,
)
from application.json_text import dumps, loads
from application.projections import PROJECTIONS, Record
from domain.event_sourced import Aggregate, DomainEvent
from infrastructure.event_store.digest import chain, digest
from infrastructure.event_store.sqlite_file import (
    BUSY_TIMEOUT,
    bring_up_to_date,
    check,
    missing,
    note_head,
    sqlite,
    uri,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from application.ports import Clock

    A = TypeVar("A", bound=Aggregate)


def iso(wall: float) -> str:
    """A time as it is stored and printed: ISO 8601, UTC, microseconds; sorts as text."""
    seconds, fraction = divmod(round(wall * 1_000_000), 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:06d}Z"


class SqliteEventStore:
    """The log of one deployment, with its read tables, open for writing.

    `clock` tells the time of the events, `actor` who acts (OS user, provider instance, process).
    """

    def __init__(self, path: str, clock: Clock, actor: dict[str, str], *, inert: bool = False):
        self.path = path
        self._clock = clock
        self._actor = actor
        self.connection: Any = None
        try:
            self._inode = inode = os.stat(path).st_ino
        except OSError as error:
            raise missing(path, error) from None
        try:
            self._lock_file = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}.lock cannot be opened: {error.strerror}") from None
        try:
            self.connection = sqlite.connect(
                uri(path, "mode=rw"), timeout=BUSY_TIMEOUT, isolation_level=None, uri=True
            )
            self.connection.execute("PRAGMA synchronous = FULL")
            try:
                bring_up_to_date(self.connection)
                self.deployment, self.incarnation = check(self.connection, path, inode)
            except StoreInert:
                if not inert:
                    raise
                self.deployment, self.incarnation = self.connection.execute(
                    "SELECT deployment, incarnation FROM store"
                ).fetchone()
        except sqlite.DatabaseError as error:
            self.close()
            raise self._unwritable(error) from None
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def _unwritable(self, error: Exception) -> StoreError:
        """SQLite calls a full disk an I/O error when it is its shared memory that finds no room."""
        disk = os.statvfs(os.path.dirname(self.path) or ".")
        full = "" if disk.f_bavail else " (the disk is full)"
        return StoreError(f"{self.path}: {error}{full}; nothing was recorded")

    # -- writing ----------------------------------------------------------------------------------

    def write(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` in one write transaction. `name` names its crash points.

        A fair queue (flock) stands before SQLite's own lock, whose busy handler would let the
        unlucky wait for seconds. Raises StoreBusy, StoreError.
        """
        self._queue()
        self._appended: tuple[int, str] | None = None
        try:
            self._refuse_replaced_file()
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work()
                    reach(f"commit.{name}.before")
                    self.connection.execute("COMMIT")
                    if self._appended is not None:
                        note_head(self._lock_file, *self._appended)
                except BaseException:
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                    raise
            except sqlite.IntegrityError as error:
                raise Conflict(str(error)) from None
            except sqlite.ProgrammingError:
                raise
            except sqlite.DatabaseError as error:
                raise self._unwritable(error) from None
        finally:
            self._leave_queue()
        reach(f"commit.{name}.after")
        return result

    def _refuse_replaced_file(self) -> None:
        """A store that was put in the place of this one while we had it open is another's."""
        try:
            inode = os.stat(self.path).st_ino
        except OSError as error:
            raise missing(self.path, error) from None
        if inode != self._inode:
            raise StoreInert(
                f"{self.path} was replaced while it was in use; nothing was recorded: "
                "what is there now is worked on by a new process"
            )

    def refuse_failed_projections(self) -> None:
        """Raises ProjectionFailed: what is decided on rows that stand still would be wrong."""
        failed = self.connection.execute(
            "SELECT name, failed_at, error FROM projections"
        ).fetchone()
        if failed is not None:
            raise ProjectionFailed(
                f"{self.path}: the read model {failed[0]} stopped at position {failed[1]} "
                f"({failed[2]}): nothing is decided on it until it is rebuilt"
            )

    def _queue(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        import signal
        import threading

        if threading.current_thread() is not threading.main_thread():
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            return

        def late(*_: object) -> None:
            raise StoreBusy(
                f"{self.path} was held by another process for {BUSY_TIMEOUT:.0f} s; "
                "nothing was recorded: try again"
            )

        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, BUSY_TIMEOUT)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _leave_queue(self) -> None:
        import fcntl

        fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def save(
        self,
        *aggregates: Aggregate,
        **metadata: Any,
    ) -> list[str]:
        """Store the pending events of aggregates in one commit; the ids of the events.

        The keywords are those of `append`.
        """
        events = [event for aggregate in aggregates for event in aggregate.collect_events()]
        return self.append([to_record(event) for event in events], **metadata)

    def append(
        self,
        records: Sequence[tuple[str, int, str, int, str, Any]],
        *,
        correlation_id: str = "",
        causation_id: str = "",
        causes: dict[str, tuple[str, str]] | None = None,
        command: tuple[str, str] | None = None,
        bodies: dict[str, bytes] | None = None,
        fence: tuple[str, int] | None = None,
        tracking: tuple[str, int] | None = None,
        positions: list[int] | None = None,
    ) -> list[str]:
        """Append (stream, version, topic, class version, data text, data or None) in one commit.

        The correlation id names the command, the causation id the event that led here; `causes`
        has others for single streams. `command` is (command id, result): the same id again is a
        Conflict. `bodies` go into the side table by their digests. `fence` is (account, number),
        `tracking` (policy, position). Raises Conflict, Fenced, AlreadyTracked, StoreError.
        """
        ids: list[str] = []
        causes = causes or {}

        def work() -> None:
            if fence is not None:
                self._check_fence(*fence)
            if tracking is not None:
                self._track(*tracking)
            for digest_, body in (bodies or {}).items():
                self.connection.execute(
                    "INSERT OR IGNORE INTO bodies VALUES (?, ?)", (digest_, body)
                )
            last = self._append(records, (correlation_id, causation_id), causes, ids)
            if positions is not None:
                positions.extend(range(last - len(records) + 1, last + 1))
            if command is not None:
                self.connection.execute("INSERT INTO commands VALUES (?, ?, ?)", (*command, last))

        self.write(records[0][2] if records else "tracking", work)
        return ids

    def _check_fence(self, account: str, fence: int) -> None:
        row = self.connection.execute(
            "SELECT fence FROM leases WHERE account = ?", (account,)
        ).fetchone()
        if row is None or row[0] != fence:
            raise Fenced(f"the lease of {account} is another worker's now")

    def _track(self, name: str, position: int) -> None:
        changed = self.connection.execute(
            "INSERT INTO tracking VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
            "SET position = excluded.position WHERE position < excluded.position",
            (name, position),
        ).rowcount
        if changed != 1:
            raise AlreadyTracked(f"{name} has passed position {position}")

    def _append(
        self,
        records: Sequence[tuple[str, int, str, int, str, Any]],
        cause: tuple[str, str],
        causes: dict[str, tuple[str, str]],
        ids: list[str],
    ) -> int:
        position, previous, recorded_at = self._head()
        instant = self._clock.now()
        recorded_at = max(recorded_at, iso(instant[0]))  # recorded time never goes back
        texts: dict[tuple[str, str], str] = {}
        rows = []
        followed = []
        random = os.urandom(16 * len(records)).hex()
        for index, (stream, version, topic, class_version, data, fields) in enumerate(records):
            position += 1
            event_id = random[32 * index : 32 * index + 32]
            why = causes.get(stream, cause)
            metadata = texts.get(why)
            if metadata is None:
                metadata = texts[why] = dumps(
                    {
                        "correlation_id": why[0],
                        "causation_id": why[1],
                        "actor": self._actor,
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
            ids.append(event_id)
            followed.append(
                Record(position, event_id, stream, topic, recorded_at, instant, why[0], fields)
            )
        self.connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
        )
        self._project(followed)
        if records:
            self._appended = (position, previous)
        return position

    def _head(self) -> tuple[int, str, str]:
        """The last position, chain and time, after the last event was checked against its own."""
        last = self.connection.execute(
            "SELECT position, event_id, stream, version, topic, class_version, recorded_at, "
            "metadata, data, digest, chain FROM events ORDER BY position DESC LIMIT 2"
        ).fetchall()
        issued = self.connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
        ).fetchone()
        if not last:
            if issued is not None and issued[0]:
                raise LogDamaged(f"{self.path}: the log is empty, but it held {issued[0]} events")
            return 0, self.deployment, ""
        position, *canonical, stored, chained = last[0]
        before = last[1][10] if len(last) > 1 else self.deployment
        if (
            issued is None
            or issued[0] != position
            or digest(*canonical) != stored
            or chain(before, position, stored) != chained
        ):
            raise LogDamaged(
                f"{self.path}: the log was changed at or after position {position}; nothing is "
                "appended to it: compare it with a backup"
            )
        return position, chained, canonical[5]

    def _project(self, records: Sequence[Record]) -> None:
        """Let the inline read models follow, in the order of the events.

        A projection that fails stops alone, at its position: the events are the truth and are kept.
        """
        failed = {name for (name,) in self.connection.execute("SELECT name FROM projections")}
        rows = Rows(self.connection)
        errors: dict[str, tuple[int, str]] = {}
        for record in records:
            for name, handlers in PROJECTIONS.items():
                handler = handlers.get(record.topic)
                if handler is None or name in failed:
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
        for name in rows.writers():
            self.connection.execute("SAVEPOINT projection")
            try:
                rows.flush(name)
            except (
                sqlite.IntegrityError,
                sqlite.InterfaceError,
                sqlite.ProgrammingError,
                OverflowError,
            ) as error:
                # A value that no column takes. What is wrong with the disk is not caught here.
                self.connection.execute("ROLLBACK TO projection")
                errors[name] = (records[-1].position, f"{type(error).__name__}: {error}")
            self.connection.execute("RELEASE projection")
        for name, (position, text) in errors.items():
            self.connection.execute(
                "INSERT INTO projections VALUES (?, ?, ?)", (name, position, text)
            )

    # -- reading ----------------------------------------------------------------------------------

    def get(self, aggregate_class: type[A], identifier: str) -> A | None:
        """The thing with this id as its events tell it; None when the log has none."""
        stream = aggregate_class.stream(identifier)
        return aggregate_class.project(None, self.events_of(stream))

    def events_of(self, stream: str) -> Iterator[DomainEvent]:
        """The domain events of a stream in their order, brought up to today's class versions."""
        for version, topic, class_version, data in self.connection.execute(
            "SELECT version, topic, class_version, data FROM events "
            "WHERE stream = ? ORDER BY version",
            (stream,),
        ):
            yield to_event(stream, version, topic, class_version, data)

    def command_result(self, command_id: str) -> str | None:
        """What was answered to a command of this id; None when there was none."""
        row = self.connection.execute(
            "SELECT result FROM commands WHERE command_id = ?", (command_id,)
        ).fetchone()
        return row[0] if row else None


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


def to_event(stream: str, version: int, topic: str, class_version: int, data: str) -> DomainEvent:
    """A stored event as a domain event. Raises UnknownEvent for a topic or version not known."""
    from domain.topics import TOPICS

    event_class = TOPICS.get(topic)
    if event_class is None:
        raise UnknownEvent(f"{stream} version {version}: no event is called {topic!r} here")
    if class_version > event_class.class_version:
        raise UnknownEvent(
            f"{stream} version {version}: {topic} of class version {class_version} was written by "
            f"a newer release (this one knows {event_class.class_version})"
        )
    fields = loads(data)
    fields.pop("class_version", None)
    for old in range(class_version, event_class.class_version):
        getattr(event_class, f"upcast_v{old}_v{old + 1}")(fields)
    event = object.__new__(event_class)
    fields["originator_id"] = stream
    fields["originator_version"] = version
    event.__dict__ = fields
    return event


class Rows:
    """The rows of the read tables within one commit: read once, written once."""

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
    LISTS = frozenset({"claims", "machine_ids"})

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._known: dict[tuple[Any, ...], dict[str, Any] | None] = {}
        self._changed: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        self.writer = ""
        """The projection whose handler runs."""

    def get(self, table: str, *key: Any) -> dict[str, Any] | None:
        """The row, or None. Change it and `put` it."""
        full = (table, *key)
        if full not in self._known:
            where = " AND ".join(f"{column} = ?" for column in self.KEYS[table])
            cursor = self._connection.execute(f"SELECT * FROM {table} WHERE {where}", key)
            values = cursor.fetchone()
            row = None
            if values is not None:
                row = dict(zip((c[0] for c in cursor.description), values, strict=True))
                for column in self.LISTS & row.keys():
                    row[column] = loads(row[column])
            self._known[full] = row
        return self._known[full]

    def put(self, table: str, row: dict[str, Any]) -> None:
        full = (table, *(row[column] for column in self.KEYS[table]))
        self._known[full] = row
        self._changed.setdefault(self.writer, {})[full] = row

    def writers(self) -> list[str]:
        return list(self._changed)

    def flush(self, writer: str) -> None:
        """Write what one projection changed."""
        for (table, *_), row in self._changed.pop(writer).items():
            values = [dumps(v) if isinstance(v, (dict, list)) else v for v in row.values()]
            self._connection.execute(
                f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) "
                f"VALUES ({', '.join('?' * len(row))})",
                values,
            )

    def forget(self, writer: str) -> None:
        """Drop what one projection changed: it failed. What the others changed stays known."""
        self._changed.pop(writer, None)
        self._known.clear()
        for changed in self._changed.values():
            self._known |= changed
