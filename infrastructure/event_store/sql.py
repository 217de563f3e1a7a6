"""What the event stores that speak SQL have in common: every statement of an append but for how a
transaction begins, and who may write meanwhile.
"""

from __future__ import annotations

import os

from application.failures import (
    AlreadyTracked,
    Fenced,
    LogDamaged,
    ProjectionFailed,
    StoreElsewhere,
)
from application.projections.record import COLUMNS
from domain.deployment import Deployment
from domain.event_sourced import Aggregate, DomainEvent
from infrastructure.event_store.commit import (
    AggregateStore,
    Rows,
    compose,
    decompose,
    is_damaged,
    outcome_of,
    project,
    to_event,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeVar

    from application.ports import Clock
    from application.projections import Record
    from application.rebuilding import Change
    from infrastructure.event_store.commit import Head, Pending

    A = TypeVar("A", bound=Aggregate)
    R = TypeVar("R")

    Found = dict[tuple[Any, ...], dict[str, Any]]
    """(table, *key) -> row."""

EVENT = f"({', '.join('?' * len(COLUMNS))})"
INSERT_EVENT = f"INSERT INTO events VALUES {EVENT}"

TRACK = (
    "INSERT INTO tracking VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
    "SET position = excluded.position WHERE tracking.position < excluded.position"
)
RESULT = "INSERT INTO commands VALUES (?, ?, ?)"
KEEP_COMMAND = RESULT + " ON CONFLICT (command_id) DO NOTHING"
KEEP_VERSION = (
    "INSERT INTO projection_versions VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
    "SET version = excluded.version"
)
EVENTS_LEFT = "SELECT count(*), count(*) FILTER (WHERE topic <> '') FROM events WHERE stream = ?"
TAKE_OUT = "UPDATE events SET topic = '', metadata = '', data = '' WHERE stream = ?"
KEEP_BODY = "INSERT INTO bodies VALUES (?, ?) ON CONFLICT (digest) DO NOTHING"


ROWS_AT_ONCE = 500
"""Rows that are exchanged by one statement or message."""


def select_events(descending: bool) -> str:
    """A stream's events after one version and up to another, so many at most."""
    return (
        "SELECT version, topic, data FROM events WHERE stream = ? AND version > ? "
        f"AND version <= ? ORDER BY version {'DESC' if descending else 'ASC'} LIMIT ?"
    )


def upsert(table: str, key: Sequence[str], columns: Sequence[str]) -> str:
    """The statement that puts a row in the place of the one with its key."""
    put = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {put}"
    )


WITH_KEY = {
    table: " AND ".join(f"{column} = ?" for column in key) for table, key in Rows.KEYS.items()
}
SELECT_ROW = {table: f"SELECT * FROM {table} WHERE {where}" for table, where in WITH_KEY.items()}


def rows_with(connection: Any, table: str, keys: Sequence[str]) -> Found:
    """Those rows of a read table, as they are stored, whose only key is one of these."""
    (name,) = Rows.KEYS[table]
    marks = ", ".join("?" * len(keys))
    cursor = connection.execute(f"SELECT * FROM {table} WHERE {name} IN ({marks})", keys)
    columns = [column[0] for column in cursor.description]
    rows = [dict(zip(columns, values, strict=True)) for values in cursor.fetchall()]
    return {(table, row[name]): row for row in rows}


_puts: dict[tuple[str, ...], str] = {}


def put(shape: tuple[str, ...]) -> str:
    """The statement that puts rows of a shape: (table, *columns)."""
    statement = _puts.get(shape)
    if statement is None:
        table, *columns = shape
        statement = _puts[shape] = upsert(table, Rows.KEYS[table], columns)
    return statement


_changes: dict[tuple[str, ...], str] = {}


def change(shape: tuple[str, ...]) -> str:
    """The statement that changes columns of a row: (table, *columns). It takes their values, then
    those of the row's key."""
    statement = _changes.get(shape)
    if statement is None:
        table, *columns = shape
        values = ", ".join(f"{column} = ?" for column in columns)
        statement = _changes[shape] = f"UPDATE {table} SET {values} WHERE {WITH_KEY[table]}"
    return statement


def by_shape(
    rows: Sequence[tuple[str, dict[str, Any]]],
) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """(table, *columns) -> the values of all rows of that table with these columns."""
    found: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for table, row in rows:
        found.setdefault((table, *row), []).append(tuple(row.values()))
    return found


class UnderWay:
    """What is known of the write transaction under way."""

    appended: Head | None = None
    """Its last event; None while it has none."""
    sharing = False
    """Whether the writes of several commands share it."""
    wrote = False
    """Whether any of them was kept."""
    spoilt: Exception | None = None
    """Why nothing that is in it can be relied on any more: it is the store that failed, not what
    was to be written."""


class SqlEventStore(AggregateStore):
    """The log of one deployment, with its read tables, open for writing.

    `connection` takes SQL as SQLite has it. A subclass says what a write transaction is (`write`),
    where the log ends (`_head`), and which of the driver's errors a value causes that no column
    takes (`unfit`).
    """

    name: str
    """What messages call the store: its path, or its address without a password."""
    deployment: str
    incarnation: int
    connection: Any
    unfit: tuple[type[Exception], ...]
    driver_error: type[Exception]
    """Of everything that the driver raises about the store and what is written to it."""
    undoes_statements = False
    """Whether a statement that fails leaves the transaction as it was before it."""

    def __init__(self, name: str, clock: Clock, actor: dict[str, str]) -> None:
        self.name = name
        self._clock = clock
        self._actor = actor
        self._here: Any = UnderWay()
        self._composed: tuple[tuple[Any, ...], str] | None = None
        self._columns: dict[str, tuple[str, ...]] = {}
        self._although_moved = False

    def close(self) -> None:
        raise NotImplementedError

    def changes(self) -> int:
        """A number that is another one when another process has written since."""
        raise NotImplementedError

    def refuse_moved(self) -> None:
        """Within a write or a look: raises StoreElsewhere once the store is sealed."""
        (moved_to,) = self.connection.execute("SELECT moved_to FROM store").fetchone()
        if moved_to and not self._although_moved:
            raise StoreElsewhere(self.name, moved_to)

    def insist(self) -> None:
        """Write here although the store was moved: an operator brings it back to life."""
        self._although_moved = True

    def seal(self, destination: str, reason: str) -> None:
        """End this store: its last event says that the history goes on at `destination`.

        Nothing can be written from the first of the two commits on; whoever is killed between them
        seals again. Raises StoreElsewhere when it was sealed for another destination.
        """
        (moved_to,) = self.connection.execute("SELECT moved_to FROM store").fetchone()
        if moved_to not in ("", destination):
            raise StoreElsewhere(self.name, moved_to)

        def mark() -> None:
            self.connection.execute("UPDATE store SET moved_to = ?", (destination,))

        self.write("seal", mark)
        self.insist()
        try:
            deployment = self.get(Deployment, "")
            assert deployment is not None
            if not deployment.moved_to:
                deployment.move(destination, reason)
                self.save(deployment, correlation_id="cmd-" + os.urandom(16).hex())
        finally:
            self._although_moved = False

    # -- writing ----------------------------------------------------------------------------------

    def write(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` in one write transaction, under a savepoint of the one that is shared within
        `together`. `name` names its crash points.

        Raises StoreBusy, StoreError, Conflict.
        """
        raise NotImplementedError

    def together(self, works: Sequence[Callable[[], R]]) -> list[R | Exception]:
        """As everywhere: one transaction, in which each write is a savepoint. It is the writers'
        turn all the while, so that no work's look at the store is stale when it saves."""

        def all_of_them() -> list[R | Exception]:
            self._here.sharing, self._here.wrote, self._here.spoilt = True, False, None
            try:
                return [self._share(work) for work in works]
            finally:
                self._here.sharing = False

        return self.write("together", all_of_them)  # type: ignore[no-any-return]

    def _share(self, work: Callable[[], R]) -> R | Exception:
        outcome = outcome_of(work)
        if self._here.spoilt is None and isinstance(outcome, self.driver_error):
            self._here.spoilt = outcome  # a look failed
        if self._here.spoilt is not None:
            raise self._here.spoilt
        return outcome

    def _write_within(self, work: Callable[[], Any]) -> Any:
        """Run `work` under a savepoint. An error of the store's ends the transaction for all who
        share it, whatever becomes of it in between. Raises Conflict, StoreError."""
        here = self._here
        if here.spoilt is not None:
            raise here.spoilt
        appended = here.appended
        self.connection.execute("SAVEPOINT shared")
        try:
            result = work()
            self.connection.execute("RELEASE shared")
        except BaseException as error:
            here.appended = appended
            if isinstance(error, self.driver_error) and not isinstance(error, self.unfit):
                here.spoilt = error
                raise
            self.connection.execute("ROLLBACK TO shared")
            self.connection.execute("RELEASE shared")
            if isinstance(error, self.driver_error):
                raise self._refused(error) from None
            raise
        here.wrote = True
        return result

    def _refused(self, error: Exception) -> Exception:
        """What is raised for one of `unfit`."""
        raise NotImplementedError

    def _head(self) -> Head:
        """The end of the log within a write, after it was checked. Raises LogDamaged."""
        raise NotImplementedError

    def reports(self) -> list[str]:
        """What a person should know of the store, and do about it."""
        return []

    def refuse_failed_projections(self) -> None:
        """Raises ProjectionFailed: what is decided on rows that stand still would be wrong.

        Nor is anything decided on a store that is sealed (StoreElsewhere).
        """
        self.refuse_moved()
        failed = self.connection.execute(
            "SELECT name, failed_at, error FROM projections"
        ).fetchone()
        if failed is not None:
            raise ProjectionFailed(
                f"{self.name}: the read model {failed[0]} stopped at position {failed[1]} "
                f"({failed[2]}): nothing is decided on it until `hostledger projections rebuild`"
            )

    def append(
        self,
        records: Sequence[Pending],
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
            self.refuse_moved()
            if fence is not None:
                self._check_fence(*fence)
            if tracking is not None:
                self._track(*tracking)
            for digest_, body in (bodies or {}).items():
                self.connection.execute(KEEP_BODY, (digest_, body))
            last = self._append(records, (correlation_id, causation_id), causes, ids)
            if positions is not None:
                positions.extend(range(last - len(records) + 1, last + 1))
            if command is not None:
                self.connection.execute(RESULT, (*command, last))

        self.write(records[0][2] if records else "tracking", work)
        return ids

    def _check_fence(self, account: str, fence: int) -> None:
        row = self.connection.execute(
            "SELECT fence FROM leases WHERE account = ?", (account,)
        ).fetchone()
        if row is None or row[0] != fence:
            raise Fenced(f"the lease of {account} is another worker's now")

    def _track(self, name: str, position: int) -> None:
        changed = self.connection.execute(TRACK, (name, position)).rowcount
        if changed != 1:
            raise AlreadyTracked(f"{name} has passed position {position}")

    def _append(
        self,
        records: Sequence[Pending],
        cause: tuple[str, str],
        causes: dict[str, tuple[str, str]],
        ids: list[str],
    ) -> int:
        head = self._head()
        rows, followed = compose(records, head, self._clock.now(), self._actor, cause, causes)
        ids.extend(row[1] for row in rows)
        self._insert(rows, followed)
        self._remember(rows, head)
        return head[0] + len(rows)

    def _remember(self, rows: Sequence[tuple[Any, ...]], head: Head) -> None:
        if rows:
            self._composed = rows[-1], rows[-2][10] if len(rows) > 1 else head[1]

    def _is_sound(self, last: tuple[Any, ...], before: str) -> bool:
        """Whether the last event is what its digest says, and follows the chain of the one before.
        Where it is what was composed here, byte for byte, both are known already."""
        return (last, before) == self._composed or not is_damaged(last, before)

    def _insert(self, rows: Sequence[Sequence[Any]], followed: Sequence[Record]) -> None:
        self._insert_events(rows)
        self._project(followed)
        if rows:
            self._here.appended = (rows[-1][0], rows[-1][10], rows[-1][6])

    def _insert_events(self, rows: Sequence[Sequence[Any]]) -> None:
        self.connection.executemany(INSERT_EVENT, rows)

    def _project(self, records: Sequence[Record]) -> None:
        """Let the inline read models follow. What no column takes stops its projection alone."""
        failed = {name for (name,) in self.connection.execute("SELECT name FROM projections")}
        found: Found = {}

        def read(table: str, key: tuple[Any, ...]) -> dict[str, Any] | None:
            row = self._read_row(table, key)
            if row is not None:
                found[table, *key] = row.copy()
            return row

        rows = Rows(read)
        errors = project(records, rows, failed)
        for name in rows.writers():
            taken = rows.take(name)
            parts = len(taken) > 1 or not self.undoes_statements
            if parts:
                self.connection.execute("SAVEPOINT projection")
            try:
                self._put_rows(taken, found)
            except self.unfit as error:
                # What is wrong with the disk is not caught here.
                if parts:
                    self.connection.execute("ROLLBACK TO projection")
                errors[name] = (records[-1].position, f"{type(error).__name__}: {error}")
            if parts:
                self.connection.execute("RELEASE projection")
        for name, (position, text) in errors.items():
            self.connection.execute(
                "INSERT INTO projections VALUES (?, ?, ?)", (name, position, text)
            )

    def _read_row(self, table: str, key: tuple[Any, ...]) -> dict[str, Any] | None:
        cursor = self.connection.execute(SELECT_ROW[table], key)
        values = cursor.fetchone()
        if values is None:
            return None
        columns = self._columns.get(table, ())
        if len(columns) != len(values):  # a newer release may add some while this is open
            columns = self._columns[table] = tuple([column[0] for column in cursor.description])
        return dict(zip(columns, values, strict=True))

    def _put_rows(self, rows: Sequence[tuple[str, dict[str, Any]]], found: Found) -> None:
        """`found` are rows as they are stored, of which only what changes is put: each column that
        a statement names costs SQLite all its indexes."""
        new = []
        changed: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        for table, row in rows:
            key = tuple([row[column] for column in Rows.KEYS[table]])
            before = found.pop((table, *key), None)
            if before is None:
                new.append((table, row))
                continue
            columns = [column for column, value in row.items() if before[column] != value]
            if columns:
                values = (*[row[column] for column in columns], *key)
                changed.setdefault((table, *columns), []).append(values)
        for shape, some in by_shape(new).items():
            self.connection.executemany(put(shape), some)
        for shape, some in changed.items():
            self.connection.executemany(change(shape), some)

    def exchange(
        self, rows: Callable[[], Iterable[Change]], projections: Callable[[], dict[str, int]]
    ) -> None:
        """Put rows of the read tables, or take them away, in one commit; the projections (name ->
        version, asked after the rows) follow the log from here on. Raises StoreBusy, StoreError."""

        def work() -> None:
            batch: list[tuple[str, dict[str, Any]]] = []
            for table, key, row in rows():
                if row is None:
                    self.connection.execute(f"DELETE FROM {table} WHERE {WITH_KEY[table]}", key)
                    continue
                batch.append((table, row))
                if len(batch) == ROWS_AT_ONCE:
                    self._exchange(batch)
                    batch = []
            if batch:
                self._exchange(batch)
            for name, version in projections().items():
                self.connection.execute("DELETE FROM projections WHERE name = ?", (name,))
                self.connection.execute(KEEP_VERSION, (name, version))

        self.write("rebuild", work)

    def _exchange(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
        found = {}
        for table, row in rows:
            key = tuple([row[column] for column in Rows.KEYS[table]])
            before = self._read_row(table, key)
            if before is not None:
                found[(table, *key)] = before
        self._put_rows(rows, found)

    def end(self) -> tuple[int, str]:
        """Position and chain of the last event; (0, "") for none."""
        row = self.connection.execute(
            "SELECT position, chain FROM events ORDER BY position DESC LIMIT 1"
        ).fetchone()
        return (row[0], row[1]) if row else (0, "")

    def take_over(
        self,
        events: Sequence[Sequence[Any]],
        commands: Sequence[tuple[str, str, int]] = (),
        tracking: Sequence[tuple[str, int]] = (),
        bodies: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Within a write: continue the log with events (rows of COLUMNS) of another store of the
        same deployment, as they are, with (command id, result, position), (policy, position) and
        (digest, body).

        Raises LogDamaged unless they follow what is here.
        """
        position, previous, _ = self._head()
        for row in events:
            if row[0] != position + 1 or is_damaged(row, previous):
                raise LogDamaged(
                    f"{self.name}: event {row[0]} of the source does not follow event {position} "
                    "here: it was changed, or is of another log; nothing of it was taken over"
                )
            position, previous = row[0], row[10]
        self._insert(events, [decompose(row) for row in events])
        for command in commands:
            self.connection.execute(KEEP_COMMAND, command)
        for name, tracked in tracking:
            self.connection.execute(TRACK, (name, tracked))
        for digest_, body in bodies:
            self.connection.execute(KEEP_BODY, (digest_, body))

    def take_out(self, streams: Sequence[tuple[str, int]]) -> tuple[int, int]:
        """In one transaction, leave of the events of these streams (name, number of events) no
        more than position, digest and chain, and what keeps the stream from being written again.
        A stream that has another number of events by now is left as it is. How many events and
        streams are taken out, now or before. Raises StoreError."""

        def work() -> list[int]:
            taken = []
            for stream, count in streams:
                ((there, left),) = self.connection.execute(EVENTS_LEFT, (stream,))
                if there != count:
                    continue
                if left:
                    self.connection.execute(TAKE_OUT, (stream,))
                taken.append(count)
            return taken

        taken = self.write("archive", work)
        return sum(taken), len(taken)

    # -- reading ----------------------------------------------------------------------------------

    def get(self, aggregate_class: type[A], identifier: str, *, from_log: bool = True) -> A | None:
        """The thing with this id as its events tell it, always; None when the log has none."""
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

    def select_events(
        self, stream: str, after: int, to: int, descending: bool, limit: int
    ) -> list[tuple[int, str, str]]:
        """Version, topic and data text of a stream's events with after < version <= to."""
        return self.connection.execute(  # type: ignore[no-any-return]
            select_events(descending), (stream, after, to, limit)
        ).fetchall()

    def command_result(self, command_id: str) -> str | None:
        """What was answered to a command of this id; None when there was none."""
        row = self.connection.execute(
            "SELECT result FROM commands WHERE command_id = ?", (command_id,)
        ).fetchone()
        return row[0] if row else None
