"""PostgreSQL's driver as the stores use it: connecting, asking, and what its errors mean.

Apart from `postgresql.py` because a HostFactory read needs this and nothing else of the event
store. A transaction is begun and ended by text (the connection itself commits each statement), so
that what belongs together is sent together: every message is a round trip.
"""

from __future__ import annotations

import sys
from _thread import _local
from io import StringIO
from time import perf_counter

from application.failures import (
    StoreBusy,
    StoreElsewhere,
    StoreError,
    StoreInert,
    StoreMissing,
    StoreNewer,
)
from domain.identifiers import sha256
from infrastructure.event_store.postgresql_sql import translate, values

_has_ssl = "ssl" in sys.modules
if not _has_ssl:
    # The driver's C module asks Python for `ssl` (a third of a read's time) to set up what
    # OpenSSL has needed no set-up for since 1.1, and does without where there is none.
    sys.modules["ssl"] = None  # type: ignore[assignment]
try:
    import psycopg2
    from psycopg2 import extensions
finally:
    if not _has_ssl:
        del sys.modules["ssl"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Protocol

    from infrastructure.event_store.pool import Cache
    from infrastructure.telemetry.slow_statements import SlowStatements

    Statement = tuple[str, Sequence[Any], str | None]
    """In PostgreSQL's words, with its parameters; and their types, for one that is worth to be
    prepared: planning it takes longer than carrying it out. None for others."""

    class Source(Protocol):
        """Where connections come from."""

        def take(self) -> Any: ...
        def give_back(self, connection: Any, broken: bool) -> None: ...
        def close(self) -> None: ...


SCHEMA_VERSION = 5
"""The version in `schema_version` that this release reads and writes: `sqlite_file` has the same,
the migrations are the same."""

BUSY_TIMEOUT = 10
"""Seconds that a writer waits for its turn before it says that the store is busy."""

DEFAULTS = {
    "connect_timeout": "10",
    "application_name": "hostledger",
    "client_encoding": "UTF8",
    # A server that is gone without a word is noticed within half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
"""libpq's parameters where the url says nothing."""

MAY_ASK = "has_function_privilege('pg_control_system()', 'EXECUTE')"
SYSTEM = "(SELECT system_identifier::text FROM pg_control_system())"
PLACE = (
    "SELECT {system} || '/' || oid || '/' || datname FROM pg_database "
    "WHERE datname = current_database()"
)
"""Which database of which server this is: a restored dump is in another one."""

DATABASE_TIME = "extract(epoch FROM clock_timestamp())::double precision"
"""The clock of the leases, in seconds."""

NOT_PREPARED = ("26000", "42P05")
"""A statement that should be prepared is not, or is already."""

NEXT_STEPS = {
    "08": "is the server running and reachable from here?",
    "28": "correct the user or password in storage.sql_strategy.url, ~/.pgpass or PGPASSWORD",
    "3D000": "make the database with `createdb`, or correct storage.sql_strategy.url",
    "3F000": "make the schema that search_path names, or correct search_path",
    "0A000": "this server is a standby: name the primary in storage.sql_strategy.url",
    "25006": "this server is a standby, or set read-only: name the primary in "
    "storage.sql_strategy.url",
    "42501": "grant the user what it lacks: it must own the store's tables",
    "42P01": "`hostledger store init` makes a store, once",
    "53100": "make room on the server's disk",
    "53300": "raise the server's max_connections, or lower storage.sql_strategy.pool_size",
    "55P03": "another process holds the store: try again",
    "57014": "raise the server's statement_timeout for this user, or see what keeps it busy",
    "57": "wait until the server is up again",
}
"""By the SQLSTATE or its class (PostgreSQL's manual, appendix A)."""

WORDS = (
    ("password", "28"),
    ("authentication failed", "28"),
    ("no pg_hba.conf entry", "28"),
    ("role", "28"),
    ("too many clients", "53300"),
    ("connection slots", "53300"),
    ("too many connections", "53300"),
    ("database", "3D000"),
    ("starting up", "57"),
    ("shutting down", "57"),
)
"""What a refused connection says for want of a SQLSTATE, which libpq does not tell."""


def name_of(url: str) -> str:
    """The url without what is secret in it."""
    scheme, _, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    user, at, host = authority.rpartition("@")
    path, _, query = tail.partition("?")
    shown = "&".join(
        pair for pair in query.split("&") if "password" not in pair.partition("=")[0].lower()
    )
    return (
        f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}{'?' if shown else ''}{shown}"
    )


def _number(text: str | None, _: Any) -> int | float | None:
    if text is None:
        return None
    return float(text) if "." in text else int(text)


def _truth(text: str | None, _: Any) -> int | None:
    return None if text is None else int(text == "t")


# As SQLite tells them: sums of bigints are numbers, truth is 0 or 1.
_NUMERIC = extensions.new_type((1700,), "HOSTLEDGER_NUMERIC", _number)
_BOOLEAN = extensions.new_type((16,), "HOSTLEDGER_BOOLEAN", _truth)


class Link(extensions.connection):  # type: ignore[misc]
    """A connection of the driver's; `prepared` are the statements that the server knows by name in
    it, None when that must be asked."""

    prepared: set[str] | None


def connect(url: str) -> Any:
    """A new connection. Raises StoreError."""
    given = {name: value for name, value in DEFAULTS.items() if name + "=" not in url}
    try:
        connection = psycopg2.connect(url, connection_factory=Link, **given)
    except psycopg2.Error as error:
        raise failure(name_of(url), error) from None
    connection.prepared = set()
    connection.autocommit = True
    extensions.register_type(_NUMERIC, connection)
    extensions.register_type(_BOOLEAN, connection)
    return connection


def failure(name: str, error: Exception, outcome: str = "") -> StoreError:
    """An error of the driver's for a person: the store, PostgreSQL's first line, the next step."""
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if cause.startswith("invalid dsn"):
        cause = "the url is not one that libpq takes"  # it would tell the part with the password
    state = getattr(error, "pgcode", None) or ""
    if not state and isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)):
        state = next((known for words, known in WORDS if words in cause), "08")
    step = NEXT_STEPS.get(state) or NEXT_STEPS.get(state[:2]) or "see the server's log"
    kind = StoreBusy if state == "55P03" else StoreMissing if state == "42P01" else StoreError
    return kind(f"{name}: {cause}{outcome}: {step}")


class Connection:
    """Where connections come from for a process that needs one: it is opened when first used."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    def take(self) -> Any:
        if self._connection is None:
            self._connection = connect(self._url)
        return self._connection

    def give_back(self, connection: Any, broken: bool) -> None:
        if broken:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Answer:
    """What a statement gave, all of it: the connection may be another's already."""

    def __init__(self, description: Any, rowcount: int, rows: list[tuple[Any, ...]]) -> None:
        self.description = description
        self.rowcount = rowcount
        self.rows = rows
        self._next = 0

    def fetchone(self) -> tuple[Any, ...] | None:
        if self._next >= len(self.rows):
            return None
        self._next += 1
        return self.rows[self._next - 1]

    def fetchall(self) -> list[tuple[Any, ...]]:
        rest = self.rows[self._next :]
        self._next = len(self.rows)
        return rest

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())


class Here(_local):
    """What is known of the transaction under way in this thread: its connection, whether it raises
    the driver's own errors; the rest is the store's (`sql.UnderWay`)."""

    held: Any = None
    raw = False
    appended: Any = None
    sharing = False
    wrote = False
    spoilt: Exception | None = None
    looked: Any = None
    """What the last look at what the write stands on has found."""
    before = ""
    """The chain before the log's last event."""
    rows: dict[str, Any] = {}
    """Rows that the read models will ask for (`_rows_of`)."""
    anew = False
    """Whether a read model has failed since the look."""


class Session:
    """What the shared code calls a connection: SQL as SQLite has it goes in, rows come out.

    Outside of a transaction each statement takes a connection and gives it back; one that was begun
    keeps its connection, for the thread that began it. `cache` has answers to what was asked
    outside of transactions since the last write of anybody's, which one cheap question tells.
    `watch` is told of statements that take long.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        cache: Cache | None = None,
        watch: SlowStatements | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.cache = cache
        self.watch = watch
        self.here = Here()
        self._prepares = True

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Answer:
        """Raises StoreError; within a write the driver's own errors."""
        text, order = translate(statement)
        if statement == "BEGIN":
            return self.begin(text)
        if statement in ("COMMIT", "ROLLBACK"):
            self.end(text)
            return Answer(None, -1, [])
        given = values(parameters, order) if parameters else []
        if self.cache is None or self.within or not _may_be_kept(text):
            return self.run(text, given)
        ((changes,),) = self.run("SELECT changes FROM head")
        key = (text, *given)
        answer = self.cache.get(changes, key)
        if answer is None:
            answer = self.run(text, given)
            self.cache.put(changes, key, answer)
        return Answer(answer.description, answer.rowcount, answer.rows)

    def message(self, connection: Any, statements: Sequence[Statement]) -> tuple[bytes, set[str]]:
        """Statements as one message, and which of them it prepares."""
        cursor = connection.cursor()
        if connection.prepared is None:
            cursor.execute("SELECT name FROM pg_prepared_statements")
            connection.prepared = {name for (name,) in cursor.fetchall()}
        new: set[str] = set()
        parts = []
        for text, given, types in statements:
            if types is None or not self._prepares:
                parts.append(cursor.mogrify(text, given or None))
                continue
            name = _name(text)
            if name not in connection.prepared and name not in new:
                new.add(name)
                taken = f"({types})" if types else ""
                parts.append(f"PREPARE {name}{taken} AS {numbered(text)}".encode())
            if given:
                marks = ", ".join(["%s"] * len(given))
                parts.append(cursor.mogrify(f"EXECUTE {name}({marks})", given))
            else:
                parts.append(f"EXECUTE {name}".encode())
        return b";".join(parts), new

    def send(self, statements: Sequence[Statement]) -> Answer:
        """The same within a transaction; the answer of the last. Raises the driver's errors."""
        connection = self.here.held
        text, new = self.message(connection, statements)
        return self._ask(connection, text, (), new, statements)

    def copy(self, text: str, rows: Iterable[Sequence[Any]]) -> None:
        """Within a transaction, by COPY .. FROM STDIN. Raises the driver's errors, ValueError."""
        lines = ["\t".join(map(_copied, row)) for row in rows]
        self.here.held.cursor().copy_expert(text, StringIO("\n".join(lines)), 1 << 20)

    def run(self, text: str, given: Sequence[Any] = ()) -> Answer:
        """A statement in PostgreSQL's own words."""
        if self.within:
            try:
                return self._ask(self.here.held, text, given)
            except psycopg2.Error as error:
                if self.here.raw:
                    raise
                raise failure(self.name, error) from None
        connection = self.source.take()
        try:
            answer = self._ask(connection, text, given)
        except psycopg2.Error as error:
            broken = bool(connection.closed)
            self.source.give_back(connection, broken)
            if broken and _only_asks(text):
                # It was cut while nobody used it: the server was started anew since.
                return self._run_anew(text, given)
            raise failure(self.name, error) from None
        self.source.give_back(connection, False)
        return answer

    def _run_anew(self, text: str, given: Sequence[Any]) -> Answer:
        connection = self.source.take()
        try:
            answer = self._ask(connection, text, given)
        except psycopg2.Error as error:
            self.source.give_back(connection, bool(connection.closed))
            raise failure(self.name, error) from None
        self.source.give_back(connection, False)
        return answer

    def _ask(
        self,
        connection: Any,
        text: str | bytes,
        given: Sequence[Any],
        new: Iterable[str] = (),
        statements: Sequence[Statement] = (),
    ) -> Answer:
        """`statements` are those of which `text` is the message, values and all."""
        if self.watch is None:
            return self._carry_out(connection, text, given, new)
        began = perf_counter()
        try:
            return self._carry_out(connection, text, given, new)
        finally:
            took = perf_counter() - began
            if took >= self.watch.long:
                said = ";".join([one for one, *_ in statements])
                self.watch.note(said or str(text), took)

    def _carry_out(
        self, connection: Any, text: str | bytes, given: Sequence[Any], new: Iterable[str]
    ) -> Answer:
        cursor = connection.cursor()
        try:
            cursor.execute(text, given or None)
        except psycopg2.Error as error:
            connection.prepared = None  # some of them, or none
            if error.pgcode in NOT_PREPARED:
                self._prepares = False
            raise
        if new:
            connection.prepared |= set(new)
        asked = cursor.description is not None
        return Answer(cursor.description, cursor.rowcount, cursor.fetchall() if asked else [])

    @property
    def within(self) -> bool:
        """Whether this thread is in a transaction."""
        return self.here.held is not None

    def begin(self, *statements: Statement | str, raw: bool = False) -> Answer:
        """Begin a transaction by statements and keep its connection; the answer of the last.

        `raw`: what follows raises the driver's own errors. Raises StoreError.
        """
        given = [(one, (), None) if isinstance(one, str) else one for one in statements]
        for last in (False, True):
            connection = self.source.take()
            prepares = self._prepares
            try:
                text, new = self.message(connection, given)
                answer = self._ask(connection, text, (), new, given)
            except psycopg2.Error as error:
                broken = bool(connection.closed)
                if not broken:
                    _roll_back(connection)
                self.source.give_back(connection, broken)
                # It was cut while nobody used it, or somebody between us and the server gives
                # each transaction another of the server's connections.
                if last or not (broken or prepares > self._prepares):
                    raise failure(self.name, error) from None
            except BaseException:
                self.source.give_back(connection, True)
                raise
            else:
                self.here.held, self.here.raw = connection, raw
                return answer
        raise AssertionError

    def end(self, *statements: Statement | str) -> None:
        """End the transaction by statements, the last of which is COMMIT or ROLLBACK. Raises what
        `run` does; the transaction then is still to be rolled back."""
        try:
            self.send([(one, (), None) if isinstance(one, str) else one for one in statements])
        except psycopg2.Error as error:
            if self.here.raw:
                raise
            raise failure(self.name, error) from None
        self._let_go(False)

    def place(self) -> str:
        """Which database this is, as far as the server tells."""
        ((may_ask,),) = self.run("SELECT " + MAY_ASK)
        ((place,),) = self.run(PLACE.format(system=SYSTEM if may_ask else "''"))
        return str(place)

    def roll_back(self) -> None:
        """End the transaction without a word about what it was."""
        connection = self.here.held
        broken = bool(connection.closed)
        if not broken:
            broken = not _roll_back(connection)
        self._let_go(broken)

    def _let_go(self, broken: bool) -> None:
        connection, self.here.held = self.here.held, None
        self.source.give_back(connection, broken)

    def close(self) -> None:
        if self.within:
            self._let_go(True)
        self.source.close()


def _copied(value: Any) -> str:
    """A text or a number in COPY's own words."""
    if value.__class__ is not str:
        return str(value)
    value = value.replace("\\", "\\\\").replace("\n", "\\n")
    return value.replace("\r", "\\r").replace("\t", "\\t")  # type: ignore[no-any-return]


def _name(text: str) -> str:
    """The same for the same statement and no other, whoever prepares it."""
    name = _names.get(text)
    if name is None:
        name = _names[text] = "h" + sha256(text.encode()).hexdigest()[:24]
    return name


_names: dict[str, str] = {}


def numbered(text: str) -> str:
    """A statement as PREPARE takes it: its places are $1, $2 ..."""
    first, *rest = text.split("%s")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


def _may_be_kept(text: str) -> bool:
    """Leases and sightings are written without a word in `head`."""
    return text.lstrip().startswith("SELECT") and not ("leases" in text or "sightings" in text)


def _only_asks(text: str) -> bool:
    return text.lstrip().startswith("SELECT")


def _roll_back(connection: Any) -> bool:
    """Whether the connection can be used again."""
    try:
        connection.cursor().execute("ROLLBACK")
    except psycopg2.Error:
        return False
    return True


FOUND = (
    "SELECT v.version, s.deployment, s.incarnation, s.place, to_jsonb(s) ->> 'moved_to' "
    "FROM schema_version v, store s"
)
"""What `check` wants to know, of a store that may be older than the column `moved_to`."""


def check(session: Session, found: tuple[Any, ...] | None) -> tuple[str, int]:
    """Refuse another schema and a copy; the deployment id and incarnation. `found` is what FOUND
    gave."""
    name = session.name
    if found is None:
        raise missing(name)
    version, deployment, incarnation, recorded, moved_to = found
    if version > SCHEMA_VERSION:
        raise StoreNewer(
            f"{name} has schema {version}, this release has {SCHEMA_VERSION}: "
            "run the release that wrote it"
        )
    if moved_to:
        raise StoreElsewhere(name, moved_to)
    place = session.place()
    if _is_elsewhere(recorded, place):
        raise StoreInert(
            f"{name} is a copy (made in {recorded}, this is {place}: server, number and name of "
            "the database): when the original is gone, run `hostledger store activate`"
        )
    return deployment, incarnation


def _is_elsewhere(recorded: str, place: str) -> bool:
    """A renamed database is the same one, as far as its server says who it is."""
    if not recorded:
        return True  # a copy that nobody has activated
    *was, old_name = recorded.split("/", 2)
    *now, name = place.split("/", 2)
    if was[0] and now[0]:
        return was != now
    return was[1:] != now[1:] or old_name != name


def missing(name: str) -> StoreMissing:
    return StoreMissing(
        f"no store at {name}: is it the right database, and search_path the right one? "
        "A new deployment is made once with `hostledger store init`"
    )


def open_for_reading(
    name: str,
    source: Source,
    migrate: Callable[[Session], None],
    watch: SlowStatements | None = None,
) -> Session:
    """A session within one consistent look, at a store that may be used. `migrate` brings an older
    one up to date, `watch` is told of statements that take long. Raises StoreMissing, StoreInert,
    StoreNewer, StoreError."""
    session = Session(name, source, watch=watch)
    look = translate("BEGIN")[0]
    try:
        found = session.begin(look, FOUND).fetchone()
        if found is not None and found[0] < SCHEMA_VERSION:
            # The first call of a new release.
            session.roll_back()
            migrate(session)
            found = session.begin(look, FOUND).fetchone()
        check(session, found)
    except StoreMissing:
        session.close()
        raise missing(name) from None
    except StoreError:
        session.close()
        raise
    return session
