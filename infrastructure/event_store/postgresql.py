"""The PostgreSQL event store: one writer at a time by an advisory lock, so that positions have no
gap and whoever follows the log misses nothing.

An append is two messages: begin, wait for the lock and look (at the end of the log, and at the rows
that the read models will ask for); then everything that is written, and COMMIT.
"""

from __future__ import annotations

import psycopg2
from psycopg2 import extensions

from application.crash_points import reach
from application.failures import (
    AlreadyTracked,
    Conflict,
    Fenced,
    LogDamaged,
    StoreElsewhere,
    StoreError,
    StoreInert,
    StoreMissing,
)
from application.json_text import dumps, loads
from application.projections.record import COLUMNS
from infrastructure.event_store.commit import Rows, compose, project
from infrastructure.event_store.postgresql_driver import (
    BUSY_TIMEOUT,
    FOUND,
    SCHEMA_VERSION,
    Session,
    check,
    failure,
    missing,
)
from infrastructure.event_store.postgresql_sql import translate, values
from infrastructure.event_store.sql import (
    KEEP_BODY,
    RESULT,
    TRACK,
    SqlEventStore,
    put,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from application.ports import Clock
    from application.projections import Record
    from infrastructure.event_store.commit import Head, Pending
    from infrastructure.event_store.postgresql_driver import Answer, Statement
    from infrastructure.event_store.sql import Found

LOCK = 0x686F73746C656467
"""The advisory lock's key, "hostledg". It is the database's, so that stores in two schemas of one
database only wait for each other."""

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
QUEUE = (
    "SELECT set_config('lock_timeout', coalesce(nullif(current_setting('lock_timeout'), '0'), "
    f"'{BUSY_TIMEOUT}s'), true), "
    "set_config('plan_cache_mode', 'force_generic_plan', true), "
    "set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true), "
    f"set_config('synchronous_commit', CASE WHEN pg_try_advisory_xact_lock({LOCK}) "
    "THEN current_setting('synchronous_commit') ELSE 'off' END, true), "
    f"pg_advisory_xact_lock({LOCK})"
)
"""Statements are planned once for a connection; made while the tables were empty, the plan would go
through all of them for the minute until PostgreSQL has counted."""

FLUSHED = "COMMIT; SELECT pg_logical_emit_message(true, 'hostledger', '')"
"""How a commit ends that had to wait for the lock: others do too. The lock is let go before the
disk has the commit, so that they share one write to the disk; then we wait for it, by a message in
the write-ahead log that follows our commit there. Nobody is told of a commit that is not on disk,
and whoever commits has all before it on disk."""

KNOWN = (
    ("requests", "request_id"),
    ("machines", "machine_id"),
    ("batches", "batch_id"),
    ("fleets", "batch_id"),
    ("terminations", "termination_id"),
    ("launch_templates", "template_key"),
)
"""Read tables whose rows are asked for before the read models do, and their keys."""

_LOOK = (
    "SELECT h.position, s.deployment, s.incarnation, "
    "(SELECT json_agg(name) FROM projections WHERE name > '')::text, "
    "{fence}, {tracking}, current_setting('synchronous_commit') = 'off', {known}, s.moved_to, l.* "
    f"FROM head h CROSS JOIN store s LEFT JOIN LATERAL (SELECT {', '.join(COLUMNS)} FROM events "
    "WHERE position >= h.position - 1 ORDER BY position DESC LIMIT 2) l ON true "
    "WHERE h.one = 1 AND s.one = 1"
)
_FENCE = "(SELECT fence FROM leases WHERE account = %s)"
_TRACKING = "(SELECT position FROM tracking WHERE name = %s)"
_KNOWN = ", ".join(
    f"(SELECT json_agg(t) FROM {table} t WHERE {key} = ANY(%s))::text" for table, key in KNOWN
)


def _look(fence: bool, tracking: bool, known: bool) -> tuple[str, str]:
    """What is looked at when a write begins, of these what matters to it, and the types of its
    parameters."""
    text = _LOOK.format(
        fence=_FENCE if fence else "NULL",
        tracking=_TRACKING if tracking else "NULL",
        known=f"ARRAY[{_KNOWN}]" if known else "NULL",
    )
    return text, ", ".join(["text"] * (fence + tracking) + ["text[]"] * (len(KNOWN) * known))


LOOKS = {
    which: _look(*which)
    for which in (
        (fence, tracking, known)
        for fence in (False, True)
        for tracking in (False, True)
        for known in (False, True)
    )
}
GO_ON = "UPDATE head SET position = %s, changes = changes + 1 WHERE one = 1"
CHANGED = "UPDATE head SET changes = changes + 1 WHERE one = 1"
MANY = 10
INTO_EVENTS = "COPY events FROM STDIN"
"""How more events than that are told: a message more, and half of the server's time."""

EVENTS = "INSERT INTO events SELECT * FROM json_populate_recordset(NULL::events, %s)"

REAL = ("fulfilment_deadline", "boot_seconds")
"""Columns of the read tables whose numbers JSON may tell without a point."""


TAKEN = ("events", "commands")
"""Tables of which a key that is there already says that somebody was first."""


class _Carefully(Exception):
    """What a read model wants stored is refused: once more, step by step."""


class PostgresqlEventStore(SqlEventStore):
    """The log of one deployment, with its read tables, open for writing.

    It may be used by several threads when the session's source has connections for each.
    """

    unfit = (psycopg2.DataError, psycopg2.IntegrityError, psycopg2.ProgrammingError, ValueError)
    driver_error = psycopg2.Error
    connection: Session

    def __init__(
        self,
        session: Session,
        clock: Clock,
        actor: dict[str, str],
        migrate: Callable[[Session], None],
        *,
        inert: bool = False,
    ) -> None:
        super().__init__(session.name, clock, actor)
        self.connection = session
        self._here = self.connection.here
        self._own_changes = 0
        try:
            found = self.connection.run(FOUND).fetchone()
            if found is not None and found[0] < SCHEMA_VERSION:
                migrate(self.connection)
                found = self.connection.run(FOUND).fetchone()
            try:
                self.deployment, self.incarnation = check(session, found)
            except StoreInert:
                if not inert or found is None:
                    raise
                self.deployment, self.incarnation = found[1:3]
        except StoreMissing:
            self.close()
            raise missing(self.name) from None
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        self.connection.close()

    def changes(self) -> int:
        """A number that is another one when another process has written since."""
        row = self.connection.run("SELECT changes FROM head").fetchone()
        assert row is not None
        return row[0] - self._own_changes  # type: ignore[no-any-return]

    @property
    def query_cache_hits(self) -> int:
        """Questions that were answered without asking again."""
        return self.connection.cache.hits if self.connection.cache is not None else 0

    # -- writing ----------------------------------------------------------------------------------

    def write(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` in one write transaction. `name` names its crash points.

        Raises StoreBusy, StoreError, Conflict.
        """
        if self._here.sharing:
            return self._write_within(work)
        session = self.connection
        self._begin()
        ending: list[Statement | str] = []
        try:
            result = work()
            reach(f"commit.{name}.before")
            ending.append(self._commit())
            if self._here.appended is not None:
                ending.insert(0, (GO_ON, (self._here.appended[0],), None))
            elif name != "lease" and (name != "together" or self._here.wrote):
                ending.insert(0, CHANGED)  # else what changes nothing would look like news
            session.end(*ending)
        except psycopg2.IntegrityError as error:
            raise Conflict(str(error)) from None
        except psycopg2.Error as error:
            if not ending or not (session.within and self._here.held.closed):
                raise failure(self.name, error, "; nothing was recorded") from None
            if name != "together" or self._here.appended is None:
                raise failure(
                    self.name,
                    error,
                    " (the connection broke: whether it was recorded is not known)",
                ) from None
            session.roll_back()
            self._settle(error, self._here.appended, None)
        finally:
            if session.within:
                session.roll_back()
        if len(ending) == 2:
            self._own_changes += 1
        reach(f"commit.{name}.after")
        return result

    def _refused(self, error: Exception) -> Exception:
        if isinstance(error, psycopg2.IntegrityError):
            return Conflict(str(error))
        return failure(self.name, error, "; nothing was recorded")

    def _begin(
        self,
        fence: tuple[str, int] | None = None,
        tracking: tuple[str, int] | None = None,
        pending: Sequence[Pending] = (),
    ) -> None:
        """Begin a write transaction and look at what it stands on."""
        self._here.appended = None
        look, asked = _look_for(fence, tracking, pending)
        self._keep(self.connection.begin(BEGIN, (QUEUE, (), ""), look, raw=True), asked)
        row = self._here.looked
        try:
            if row is None or row[1] != self.deployment or row[2] != self.incarnation:
                raise StoreInert(
                    f"{self.name} was replaced or activated while it was in use; nothing was "
                    "recorded: what is there now is worked on by a new process"
                )
        except StoreInert:
            self.connection.roll_back()
            raise

    def _keep(self, answer: Answer, asked: list[list[str]]) -> None:
        """What a look has found."""
        here, found = self._here, answer.fetchall()
        here.looked = found[0] if found else None
        here.before = found[1][-1] if len(found) > 1 else self.deployment
        here.rows = _rows_of(here.looked[7], asked) if found and any(asked) else {}
        here.anew = False

    def _look_again(
        self,
        fence: tuple[str, int] | None,
        tracking: tuple[str, int] | None,
        pending: Sequence[Pending],
    ) -> None:
        """Within a transaction that is shared: look at what one more append stands on."""
        look, asked = _look_for(fence, tracking, pending)
        if fence or tracking or any(asked) or self._here.anew:
            self._keep(self.connection.send([look]), asked)

    def _commit(self) -> str:
        return FLUSHED if self._here.looked[6] else "COMMIT"

    def _head(self) -> Head:
        """The last position, chain and time, after the last event was checked against its own: once
        in a transaction."""
        if self._here.appended is not None:
            return self._here.appended  # type: ignore[no-any-return]
        issued, last = self._here.looked[0], self._here.looked[9:]
        if last[0] is None:
            if issued:
                raise LogDamaged(f"{self.name}: the log is empty, but it held {issued} events")
            return 0, self.deployment, ""
        if issued != last[0] or not self._is_sound(last, self._here.before):
            raise LogDamaged(
                f"{self.name}: the log was changed at or after position {last[0]}; nothing is "
                "appended to it: compare it with a backup"
            )
        return last[0], last[10], last[6]

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
        """As everywhere, in two messages. When the second is answered by nobody, the next
        connection is asked whether it was carried out."""
        name = records[0][2] if records else "tracking"
        session = self.connection
        sharing = self._here.sharing
        if sharing and self._here.spoilt is not None:
            raise self._here.spoilt
        (self._look_again if sharing else self._begin)(fence, tracking, records)
        try:
            if self._here.looked[8] and not self._although_moved:
                raise StoreElsewhere(self.name, self._here.looked[8])
            if fence is not None and self._here.looked[4] != fence[1]:
                raise Fenced(f"the lease of {fence[0]} is another worker's now")
            if tracking is not None and (self._here.looked[5] or -1) >= tracking[1]:
                raise AlreadyTracked(f"{tracking[0]} has passed position {tracking[1]}")
            head = self._head()
            rows, followed = compose(
                records, head, self._clock.now(), self._actor, (correlation_id, causation_id),
                causes or {},
            )  # fmt: skip
            last = head[0] + len(rows)
            statements: list[Statement] = []
            if tracking is not None:
                statements.append(_own(TRACK, tracking))
            for body in (bodies or {}).items():
                statements.append(_own(KEEP_BODY, body))
            if rows:
                if len(rows) <= MANY or sharing:
                    statements.append(_events(rows))
                statements += self._follow(followed)
            if command is not None:
                statements.append(_own(RESULT, (*command, last)))
            if sharing:
                self._send_within(statements, rows)
            else:
                statements.append((GO_ON, (last,), "bigint"))
                self._send(name, statements, rows, tracking)
            self._remember(rows, head)
        except _Carefully:
            if sharing:
                self._here.anew = True
            else:
                session.roll_back()
            return super().append(
                records,
                correlation_id=correlation_id,
                causation_id=causation_id,
                causes=causes,
                command=command,
                bodies=bodies,
                fence=fence,
                tracking=tracking,
                positions=positions,
            )
        finally:
            if session.within and not sharing:
                session.roll_back()
        if not sharing:
            self._own_changes += 1
            reach(f"commit.{name}.after")
        if positions is not None:
            positions.extend(range(head[0] + 1, last + 1))
        return [row[1] for row in rows]

    def _send(
        self,
        name: str,
        statements: Sequence[Statement],
        rows: Sequence[Sequence[Any]],
        tracking: tuple[str, int] | None,
    ) -> None:
        reach(f"commit.{name}.before")
        try:
            if len(rows) > MANY:
                self.connection.copy(INTO_EVENTS, rows)
            self.connection.end(*statements, self._commit())
        except ValueError:  # a text that PostgreSQL has no place for
            raise _Carefully from None
        except psycopg2.Error as error:
            if self._here.held.closed or _is_over(self._here.held):
                self.connection.roll_back()
                self._settle(error, _end_of(rows), tracking)
                return
            if isinstance(error, psycopg2.IntegrityError) and error.diag.table_name in TAKEN:
                raise Conflict(str(error)) from None
            if isinstance(error, self.unfit):
                raise _Carefully from None
            raise failure(self.name, error, "; nothing was recorded") from None

    def _send_within(self, statements: list[Statement], rows: Sequence[Sequence[Any]]) -> None:
        """The same under a savepoint of a transaction that is shared."""
        here, session = self._here, self.connection
        begin, end = ("SAVEPOINT shared", (), None), ("RELEASE shared", (), None)
        try:
            session.send([begin, *statements, end])
        except ValueError:  # a text that PostgreSQL has no place for; nothing was sent
            raise _Carefully from None
        except psycopg2.Error as error:
            if here.held.closed or not isinstance(error, self.unfit):
                here.spoilt = error
                raise
            session.run("ROLLBACK TO shared")
            session.run("RELEASE shared")
            if isinstance(error, psycopg2.IntegrityError) and error.diag.table_name in TAKEN:
                raise Conflict(str(error)) from None
            raise _Carefully from None
        here.wrote, here.rows = True, {}
        if rows:
            here.appended = _end_of(rows)

    def _settle(self, error: Exception, end: Head | None, tracking: tuple[str, int] | None) -> None:
        """The connection broke before the answer came: find out what became of the commit.

        Behind the lock: the server's side of the broken connection has it until its transaction
        has ended, one way or the other. Raises StoreError unless the commit is there.
        """
        try:
            self._begin(None, tracking)
        except StoreError as again:
            raise StoreError(
                f"{again} (the connection broke during a commit: whether it was recorded is not "
                "known until the store is back)"
            ) from None
        try:
            if end is not None:
                found = self.connection.run(
                    "SELECT count(*) FROM events WHERE position = %s AND chain = %s", end[:2]
                ).fetchone()
                is_there = found is not None and found[0] == 1
            else:
                is_there = tracking is not None and self._here.looked[5] == tracking[1]
            # It may not be on disk yet.
            self.connection.end(FLUSHED)
        finally:
            if self.connection.within:
                self.connection.roll_back()
        if not is_there:
            raise failure(self.name, error, "; nothing was recorded")

    def _insert(self, rows: Sequence[Sequence[Any]], followed: Sequence[Record]) -> None:
        if rows:
            self._here.appended = _end_of(rows)
            self.connection.send([_events(rows)])
        self._project(followed)

    def _follow(self, records: Sequence[Record]) -> list[Statement]:
        """What the inline read models write, as one message takes it."""
        failed = set(loads(self._here.looked[3] or "[]"))
        rows = Rows(self._read_row)
        errors = project(records, rows, failed)
        self._here.anew |= bool(errors)
        statements: list[Statement] = []
        for writer in rows.writers():
            statements += _puts(rows.take(writer))
        for name, (position, text) in errors.items():
            statements.append(
                ("INSERT INTO projections VALUES (%s, %s, %s)", (name, position, text), None)
            )
        return statements

    def _read_row(self, table: str, key: tuple[Any, ...]) -> dict[str, Any] | None:
        known = self._here.rows.get(table)
        if known is not None and key[0] in known:
            return known[key[0]]  # type: ignore[no-any-return]
        return super()._read_row(table, key)

    def _exchange(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self._put_rows(rows, {})

    def _put_rows(self, rows: Sequence[tuple[str, dict[str, Any]]], found: Found) -> None:
        """Together, and one by one when one of them is refused so."""
        session = self.connection
        session.run("SAVEPOINT rows")
        try:
            session.send(_puts(rows))
        except self.unfit:
            session.run("ROLLBACK TO rows")
            for table, row in rows:
                session.execute(put((table, *row)), list(row.values()))


def _end_of(rows: Sequence[Sequence[Any]]) -> Head | None:
    return (rows[-1][0], rows[-1][10], rows[-1][6]) if rows else None


def _look_for(
    fence: tuple[str, int] | None, tracking: tuple[str, int] | None, pending: Sequence[Pending]
) -> tuple[Statement, list[list[str]]]:
    """What is looked at for an append of these, and the keys of rows that are asked for by it."""
    asked = _asked(pending)
    known = any(asked)
    text, types = LOOKS[fence is not None, tracking is not None, known]
    given = [one[0] for one in (fence, tracking) if one is not None] + asked * known
    return (text, given, types), asked


def _is_over(connection: Any) -> bool:
    """Whether it is not within the transaction any more, whatever became of that."""
    return bool(connection.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE)


def _own(statement: str, given: Sequence[Any]) -> Statement:
    text, order = translate(statement)
    return text, values(given, order), None


def _events(rows: Sequence[Sequence[Any]]) -> Statement:
    """Rows of COLUMNS. As one JSON text: many literals take the server longer to read."""
    return EVENTS, (dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows]),), "json"


def _puts(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[Statement]:
    """Rows of the read tables in few statements: one for all of a table with the same columns."""
    shapes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for table, row in rows:
        if bool in map(type, row.values()):
            row = {k: int(v) if isinstance(v, bool) else v for k, v in row.items()}
        shapes.setdefault((table, *row), []).append(row)
    return [(_put(shape), (dumps(some),), "json") for shape, some in shapes.items()]


_put_statements: dict[tuple[str, ...], str] = {}


def _put(shape: tuple[str, ...]) -> str:
    known = _put_statements.get(shape)
    if known is not None:
        return known
    table, *columns = shape
    into, _, rest = put(shape).partition(" VALUES ")
    _, _, conflict = rest.partition(" ON CONFLICT ")
    _put_statements[shape] = (
        f"{into} SELECT {', '.join(columns)} FROM json_populate_recordset(NULL::{table}, %s) "
        f"ON CONFLICT {conflict}"
    )
    return _put_statements[shape]


_STREAMS = {
    "request": ("requests",),
    "return": ("requests",),
    "machine": ("machines",),
    "batch": ("batches", "fleets"),
    "termination": ("terminations",),
    "lt": ("launch_templates",),
}
"""Where the read models have what a stream is about."""


def _asked(pending: Sequence[Pending]) -> list[list[str]]:
    """The keys of rows that the read models are going to ask for, by the tables of KNOWN.

    A guess that spares round trips: what it misses is asked for one by one.
    """
    wanted: dict[str, dict[str, None]] = {table: {} for table, _ in KNOWN}
    for stream, version, _, _, _, fields in pending:
        kind, _, identifier = stream.partition("-")
        if version > 1:  # else it is new
            for table in _STREAMS.get(kind, ()):
                wanted[table][identifier] = None
        if not fields:
            continue
        if isinstance(fields.get("request_id"), str) and fields["request_id"]:
            wanted["requests"][fields["request_id"]] = None
        for machine_id in fields.get("machine_ids", ()):
            wanted["machines"][machine_id] = None
    return [list(ids) for ids in wanted.values()]


def _rows_of(found: list[str | None], asked: list[list[str]]) -> dict[str, dict[str, Any]]:
    """Table -> key -> row or None, of what was asked for."""
    tables: dict[str, dict[str, Any]] = {}
    for (table, key), text, ids in zip(KNOWN, found, asked, strict=True):
        if not ids:
            continue
        rows: dict[str, Any] = dict.fromkeys(ids)
        for row in loads(text or "[]"):
            for column in REAL:
                if column in row:
                    row[column] = float(row[column])
            rows[row[key]] = row
        tables[table] = rows
    return tables
