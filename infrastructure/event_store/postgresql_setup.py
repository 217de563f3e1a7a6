"""Making a store in PostgreSQL, bringing its schema up to date, and bringing a copy to life: the
only code that creates tables there.

The schema is that of `schema.py`, its migrations too; here is what SQLite has by itself or need not
have. All of it lies in the schema that the user's search_path names first.
"""

from __future__ import annotations

import os
import sys

from application.failures import StoreError
from application.projections import VERSIONS
from application.projections.record import COLUMNS
from domain.deployment import Deployment
from infrastructure.event_store import schema
from infrastructure.event_store.commit import compose, to_record
from infrastructure.event_store.postgresql import BEGIN, QUEUE, PostgresqlEventStore
from infrastructure.event_store.postgresql_driver import (
    SCHEMA_VERSION,
    Session,
)
from infrastructure.event_store.postgresql_sql import schema as own
from infrastructure.event_store.sql import INSERT_EVENT, KEEP_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from application.ports import Clock

PAGE = 10_000

FIRST = (
    own(schema.LOG)
    + own(schema.READ_MODELS)
    + own(schema.NOTEBOOK)
    + own("""
ALTER TABLE store DROP COLUMN inode;
ALTER TABLE store ADD COLUMN place TEXT NOT NULL DEFAULT '';
CREATE TABLE schema_version (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
);
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    changes INTEGER NOT NULL
) WITH (fillfactor = 10);
CREATE SEQUENCE sighting_numbers;
CREATE TABLE sightings (
    key TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    number INTEGER NOT NULL,
    noted REAL NOT NULL,
    taken INTEGER NOT NULL,
    line TEXT NOT NULL
);
CREATE INDEX sightings_waiting ON sightings (number) WHERE taken = 0;
INSERT INTO schema_version VALUES (1, 1);
INSERT INTO head VALUES (1, 0, 0);
""")
)
"""`head` has the last position that was given, so that a log whose end was cut off is noticed, and
a number that each write changes. `sightings` are what HostFactory's calls noted
(`postgresql_sightings.py`)."""


def migrate(session: Session) -> None:
    """Carry out the migrations that the store lacks, each in a transaction of its own, behind the
    lock. Raises StoreError."""
    while (version := _version(session)) in range(1, SCHEMA_VERSION):
        session.begin(BEGIN, QUEUE)
        try:
            if _version(session) == version:  # else another process was first
                session.run(own(schema.MIGRATIONS[version + 1]))
                session.run("UPDATE schema_version SET version = %s", (version + 1,))
            session.end("COMMIT")
        finally:
            if session.within:
                session.roll_back()
        print(
            f"hostledger: {session.name}: schema {version} was migrated to {version + 1}",
            file=sys.stderr,
        )


def _version(session: Session) -> int:
    row = session.run("SELECT version FROM schema_version").fetchone()
    return row[0] if row else 0


def build(
    session: Session,
    deployment: str,
    rows: Sequence[Sequence[Any]] = (),
) -> None:
    """The tables of a store, with its first events (rows of COLUMNS): all of it or nothing. Raises
    StoreError when anything of that name is there."""
    place = session.place()
    session.begin(BEGIN, QUEUE)
    try:
        if _has(session, "schema_version"):
            there = session.run("SELECT deployment FROM store").fetchone()
            raise StoreError(
                f"{session.name} exists already: a deployment has one store, and this is that of "
                f"deployment {(there or ('?',))[0]}; `hostledger store init --join "
                f"{session.name}` registers it for this user"
            )
        foreign = [table for table in ("events", "requests", "machines") if _has(session, table)]
        if foreign:
            raise StoreError(
                f"{session.name} has a table {foreign[0]} that is not ours: give the store a "
                "database of its own, or the user a search_path with a schema of its own"
            )
        session.run(FIRST)
        for version in range(2, SCHEMA_VERSION + 1):
            session.run(own(schema.MIGRATIONS[version]))
        session.run(
            "UPDATE schema_version SET version = %s; "
            "INSERT INTO store (one, deployment, incarnation, place) VALUES (1, %s, 1, %s)",
            (SCHEMA_VERSION, deployment, place),
        )
        for named in VERSIONS.items():
            session.execute(KEEP_VERSION, named)
        if rows:
            for row in rows:
                session.execute(INSERT_EVENT, row)
            session.run("UPDATE head SET position = %s", (rows[-1][0],))
        session.end("COMMIT")
    finally:
        if session.within:
            session.roll_back()


def _has(session: Session, table: str) -> bool:
    """Whether the schema in which tables are made has it."""
    row = session.run(
        "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = %s", (table,)
    ).fetchone()
    return row is not None


def create_store(
    session: Session, clock: Clock, actor: dict[str, str], program_version: str
) -> str:
    """Make an empty ledger; its deployment id. Raises StoreError when one is there."""
    deployment = os.urandom(16).hex()
    events = Deployment.create(deployment, program_version).collect_events()
    rows, _ = compose(
        [to_record(event) for event in events],
        (0, deployment, ""),
        clock.now(),
        actor,
        ("cmd-" + deployment, ""),
        {},
    )
    try:
        build(session, deployment, rows)
    finally:
        session.close()
    return deployment


def activate_store(session: Session, clock: Clock, actor: dict[str, str], reason: str) -> int:
    """Make a copied or restored store the living one; its new incarnation. As
    `sqlite_setup.activate_store` does, in PostgreSQL."""
    store = PostgresqlEventStore(session, clock, actor, migrate, inert=True)
    try:
        deployment = store.get(Deployment, "")
        if deployment is None:
            raise StoreError(f"{session.name}: the log does not begin with a deployment")
        deployment.activate(reason)
        incarnation = deployment.incarnation
        place = session.place()

        def empty_notebook() -> None:
            for table in schema.NOTEBOOK_TABLES:
                if table != "leases":
                    session.run(f"DELETE FROM {table}")
            session.run("DELETE FROM sightings")
            session.run("UPDATE leases SET fence = fence + 1, expires = 0")

        def revive() -> None:
            session.run(
                "UPDATE store SET incarnation = %s, place = %s, moved_to = ''",
                (incarnation, place),
            )

        store.write("notebook", empty_notebook)
        store.insist()
        store.save(deployment, correlation_id="cmd-" + os.urandom(16).hex())
        store.write("activation", revive)
        return incarnation
    finally:
        store.close()


def begin_copy(
    session: Session, deployment: str, clock: Clock, actor: dict[str, str]
) -> PostgresqlEventStore:
    """The store that takes over another one's log, made when it is not there. No place is recorded
    in it, so that it is inert until it is activated. Raises StoreError."""
    if not _has(session, "schema_version"):
        build(session, deployment)
        session.run("UPDATE store SET place = ''")
    store = PostgresqlEventStore(session, clock, actor, migrate, inert=True)
    row = session.run("SELECT place FROM store").fetchone()
    if store.deployment == deployment and row == ("",):
        return store
    store.close()
    if store.deployment != deployment:
        raise StoreError(
            f"{session.name} is the store of another deployment ({store.deployment}, not "
            f"{deployment}): two are never mixed"
        )
    raise StoreError(f"{session.name} lives already: nothing is copied over a store that is in use")


def compact(session: Session) -> list[str]:
    """VACUUM and ANALYZE of our tables; autovacuum does the same by and by. Raises StoreError."""
    tables = [
        name
        for (name,) in session.run(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND "
            "tablename IN (SELECT unnest(%s))",
            (list(schema.TABLES),),
        )
    ]
    for table in tables:
        session.run(f"VACUUM (ANALYZE) {table}")
    return [f"{session.name}: {len(tables)} tables vacuumed", "statistics are new"]


def copy_to_rehearse(session: Session, directory: str) -> str:
    """A living copy of the store as a SQLite one in a private directory, to be thrown away; its
    path. `session` is within a look. Raises StoreError."""
    path = os.path.join(directory, "ledger.db")
    copy_to_file(session, path, None)
    return path


def copy_to_file(session: Session, path: str, inode: int | None) -> None:
    """All tables, but for the leases, in a new SQLite file; `inode` 0 makes it inert. `session` is
    within a look. Raises StoreError."""
    from infrastructure.clock import SystemClock
    from infrastructure.event_store.sqlite import SqliteEventStore
    from infrastructure.event_store.sqlite_setup import _build

    ((deployment, incarnation, moved_to),) = session.run(
        "SELECT deployment, incarnation, moved_to FROM store"
    )
    _build(path, deployment, inode)
    target = SqliteEventStore(path, SystemClock(), {}, inert=True)

    def put(table: str, found: Any) -> None:
        columns = [column[0] for column in found.description]
        target.connection.executemany(
            f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) "
            f"VALUES ({', '.join('?' * len(columns))})",
            [[bytes(v) if isinstance(v, memoryview) else v for v in row] for row in found.rows],
        )

    def take_over() -> None:
        last = 0
        while True:
            found = session.run(
                f"SELECT {', '.join(COLUMNS)} FROM events WHERE position > %s "
                f"ORDER BY position LIMIT {PAGE}",
                (last,),
            )
            if not found.rows:
                break
            put("events", found)
            last = found.rows[-1][0]
        for table in (*schema.TABLES, *schema.NOTEBOOK_TABLES):
            if table not in ("events", "store", "leases"):
                put(table, session.run(f"SELECT * FROM {table}"))
        target.connection.execute(
            "UPDATE store SET incarnation = ?, moved_to = ?", (incarnation, moved_to)
        )

    try:
        target.write("copy", take_over)
    finally:
        target.close()
