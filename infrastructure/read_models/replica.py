"""The read models once more, in a SQLite database of their own: as they were at one position.

Made by folding a log, in a file that can go on another day, or in one that nobody sees and that
goes with the connection. Rows are held in memory while events change them; what is known at once
is bounded, so that a log of any length takes the same room.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from application.failures import LogDamaged, StoreBusy, StoreError, UnknownEvent
from application.json_text import dumps, loads
from application.projections import PROJECTIONS, VERSIONS
from domain.topics import TOPICS
from infrastructure.event_store import schema
from infrastructure.event_store.commit import Rows, decompose_all, project
from infrastructure.event_store.sql import ROWS_AT_ONCE, SELECT_ROW, by_shape, put, rows_with
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.event_store.sqlite_file import SCHEMA_VERSION
from infrastructure.read_models.sql_queries import SqlQueries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from application.projections import Record
    from application.replay import Stored

    Row = dict[str, Any]

FOLLOWED = frozenset(topic for handlers in PROJECTIONS.values() for topic in handlers)

MOST_ROWS = 10_000
"""Rows that are held in memory between batches."""

CACHE = 16 * 1024
"""KiB of the database that SQLite holds in memory."""

PAGE = 16 * 1024
"""Bytes of a page: rows are read and written in the neighbourhoods in which they came."""

OWN = """
CREATE TABLE replica (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    chain TEXT NOT NULL,
    versions TEXT NOT NULL
);
CREATE TABLE marked (
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (name, key)
) WITHOUT ROWID;
"""


def _statements() -> tuple[str, list[str]]:
    """The schema of a store without its indexes, and these: building them once is cheaper than
    keeping them with each row. Rows lie in the order in which they came: by the ids of machines,
    which are random, each that changes would be on a page of its own."""
    whole = schema.LOG + schema.READ_MODELS + schema.NOTEBOOK + "".join(schema.MIGRATIONS.values())
    tables = [OWN]
    indexes = {}
    for statement in whole.split(";"):
        what, _, rest = statement.strip().partition(" INDEX ")
        name = rest.partition(" ")[0]
        if what.endswith("CREATE"):
            indexes[name] = "CREATE INDEX IF NOT EXISTS " + rest
        elif what.endswith("DROP"):
            del indexes[name]
        else:
            tables.append(statement.replace(" WITHOUT ROWID", ""))
    return ";".join(tables), list(indexes.values())


class Replica:
    """`path` is the file; "" for one that goes with the replica. What is there of another
    deployment, or was made by other versions of the projections, is made anew.

    Raises StoreError.
    """

    def __init__(self, path: str, deployment: str) -> None:
        try:
            self._open(sqlite.connect(path, isolation_level=None), deployment)
        except sqlite.OperationalError as error:
            raise StoreError(f"{path} cannot be opened: {error}") from None
        except sqlite.DatabaseError:
            # A power failure has left what is no database.
            self.connection.close()
            os.unlink(path)
            self._open(sqlite.connect(path, isolation_level=None), deployment)

    def _open(self, connection: Any, deployment: str) -> None:
        self.connection = connection
        self.connection.execute("PRAGMA synchronous = OFF")
        # Whoever writes a replica is alone with it (`alone`), and need not ask at each read.
        self.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.connection.execute(f"PRAGMA page_size = {PAGE}")
        self.connection.execute(f"PRAGMA cache_size = -{CACHE}")
        self._deployment = deployment
        self._columns: dict[str, list[str]] = {}
        if not self._is_ours(deployment):
            self._begin(deployment)
        self._start()

    def _start(self) -> None:
        self.position, self.chain = self.connection.execute(
            "SELECT position, chain FROM replica"
        ).fetchone()
        self._failed = {name for name, *_ in self.failed()}
        self._rows = Rows(self._read_row)
        self._marks = False

    def _is_ours(self, deployment: str) -> bool:
        there = "SELECT 1 FROM sqlite_master WHERE name = 'replica'"
        if not self.connection.execute(there).fetchone():
            return False
        made = self.connection.execute("SELECT versions, deployment FROM replica, store").fetchone()
        return bool(made == (made_by(), deployment))

    def _begin(self, deployment: str) -> None:
        tables, _ = _statements()
        for (name,) in self.connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall():
            self.connection.execute(f"DROP TABLE {name}")
        self.connection.executescript(f"BEGIN;{tables};COMMIT;")
        self.connection.execute("INSERT INTO store VALUES (1, ?, 1, 0, '')", (deployment,))
        self.connection.execute("INSERT INTO replica VALUES (1, 0, '', ?)", (made_by(),))

    def begin(self) -> None:
        """Forget everything."""
        self._begin(self._deployment)
        self._start()

    def close(self) -> None:
        self.connection.close()

    def failed(self) -> list[tuple[str, int, str]]:
        """(projection, position, error) of those that stopped: their rows are of no use."""
        return self.connection.execute(  # type: ignore[no-any-return]
            "SELECT name, failed_at, error FROM projections ORDER BY name"
        ).fetchall()

    def take(self, rows: Sequence[Stored]) -> None:
        """Let these events follow, which are the next of the log. They are surely written after
        `write`. Raises UnknownEvent, LogDamaged."""
        for expected, row in enumerate(rows, start=self.position + 1):
            if row[0] != expected:
                raise LogDamaged(
                    f"the log has no event {expected}: event {row[0]} follows event {expected - 1}"
                )
            if row[4] not in TOPICS:
                raise UnknownEvent(
                    f"event {row[0]}: no event is called {row[4]!r} here; run the release that "
                    "wrote it"
                )
        self._fold(rows)
        self.position, self.chain = rows[-1][0], rows[-1][10]
        if len(self._rows) > MOST_ROWS:
            self.write()

    def _fold(self, rows: Sequence[Stored]) -> None:
        records = list(decompose_all(row for row in rows if row[4] in FOLLOWED))
        self._read_ahead(records)
        self._note(project(records, self._rows, self._failed))

    def _read_ahead(self, records: Iterable[Record]) -> None:
        """Machines that are returned were launched long ago: read together they cost a third."""
        ids: list[str] = []
        for record in records:
            if record.topic == "MachinesReturned":
                ids += [i for i in record.data.get("machine_ids", ()) if i.__class__ is str]
        for start in range(0, len(ids), ROWS_AT_ONCE):
            some = ids[start : start + ROWS_AT_ONCE]
            self._rows.know(rows_with(self.connection, "machines", some))

    def write(self) -> None:
        """Put what changed into the database, with the position, in one transaction. Once rows are
        marked, those that changed are marked too."""
        self.connection.execute("SAVEPOINT written")  # a transaction, where there is none yet
        for name in self._rows.writers():
            self.connection.execute("SAVEPOINT projection")
            try:
                taken = self._rows.take(name)
                if self._marks:
                    self._mark((t, [row[c] for c in Rows.KEYS[t]]) for t, row in taken)
                for shape, some in by_shape(taken).items():
                    self.connection.executemany(put(shape), some)
            except SqliteEventStore.unfit as error:
                self.connection.execute("ROLLBACK TO projection")
                self._failed.add(name)
                self._note({name: (self.position, f"{type(error).__name__}: {error}")})
            self.connection.execute("RELEASE projection")
        self.connection.execute(
            "UPDATE replica SET position = ?, chain = ?", (self.position, self.chain)
        )
        self.connection.execute("RELEASE written")
        self._rows.shrink(MOST_ROWS // 2)

    def _note(self, errors: dict[str, tuple[int, str]]) -> None:
        for name, (position, error) in errors.items():
            self.connection.execute(
                "INSERT INTO projections VALUES (?, ?, ?)", (name, position, error)
            )

    def _read_row(self, table: str, key: tuple[Any, ...]) -> Row | None:
        cursor = self.connection.execute(SELECT_ROW[table], key)
        values = cursor.fetchone()
        if values is None:
            return None
        names = self._columns.get(table)
        if names is None:
            names = self._columns[table] = [column[0] for column in cursor.description]
        return dict(zip(names, values, strict=True))

    # -- to be compared and exchanged -------------------------------------------------------------

    def rows_of(self, table: str) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Key and row of all that is in a read table, in the order of the keys."""
        return SqlQueries(self.connection, "", SCHEMA_VERSION).rows_of(table)

    def mark(self, keys: Iterable[tuple[str, tuple[Any, ...]]]) -> int:
        """Mark these rows (table, key), whether they are there or not, and no others; how many.
        From now on what changes is marked too."""
        self.connection.execute("DELETE FROM marked")
        self.connection.execute("BEGIN")
        self._mark(keys)
        self.connection.execute("COMMIT")
        self._marks = True
        (count,) = self.connection.execute("SELECT count(*) FROM marked").fetchone()
        return count  # type: ignore[no-any-return]

    def _mark(self, keys: Iterable[tuple[str, Sequence[Any]]]) -> None:
        self.connection.executemany(
            "INSERT OR IGNORE INTO marked VALUES (?, ?)",
            ((table, dumps(list(key))) for table, key in keys),
        )

    def marked(self, tables: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...], Row | None]]:
        """Table, key and row, None where there is none, of all that is marked in these tables."""
        for table in tables:
            for (text,) in self.connection.execute(
                "SELECT key FROM marked WHERE name = ?", (table,)
            ):
                key = tuple(loads(text))
                yield table, key, self._read_row(table, key)

    def index(self) -> None:
        """Make what the questions need to be answered fast."""
        for statement in _statements()[1]:
            self.connection.execute(statement)

    def queries(self, name: str) -> SqlQueries:
        """An operator's questions, answered as of the position that was written; `name` is what
        messages call it. Close the replica, not them."""
        self.index()
        return SqlQueries(self.connection, name, SCHEMA_VERSION)


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Within: no other process works on the replica in this file. Raises StoreBusy."""
    import fcntl

    file = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreBusy(f"{path}: another process is building it: wait for its end") from None
    finally:
        os.close(file)


def made_by() -> str:
    """What the rows are made by: another form of the tables or of a projection makes others."""
    return dumps([SCHEMA_VERSION, VERSIONS])
