"""The log once more on this machine's disk, with our ordinary schema: for all that asks in SQL.

A throw-away: it follows the log by consistent reads and checks every event, is made anew when it is
damaged or gone, and nothing is decided on it alone, since each commit is conditional on the log's
head. Only the worker's own notebook is nowhere else; it may be lost.
"""

from __future__ import annotations

import os
from hashlib import sha256

from application.failures import LogDamaged, StoreError, StoreInert, StoreMissing
from application.json_text import loads
from application.projections import PROJECTIONS, VERSIONS
from infrastructure.event_store.commit import decompose, is_damaged
from infrastructure.event_store.dynamodb_client import LOG, ROWS
from infrastructure.event_store.dynamodb_log import LEASES, Head, describe, read_head, read_log
from infrastructure.event_store.dynamodb_rows import ORPHANS, SWEEPS
from infrastructure.event_store.sql import TRACK
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_driver import sqlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from application.ports import Clock
    from infrastructure.event_store.dynamodb_client import Tables

FOLLOWED = frozenset(topic for handlers in PROJECTIONS.values() for topic in handlers)

BATCH = 2000
"""Events taken over in one transaction of the file."""


def mirror_path(tables: Tables, directory: str, head: Head) -> str:
    """Of the file of this log's mirror: a restored copy has the deployment's id and another log."""
    which = f"{tables.name} {describe(tables, LOG)['TableId']}"
    deployment = head.facts["deployment"]
    name = f"mirror-{deployment}-{sha256(which.encode()).hexdigest()[:8]}.db"
    return os.path.join(directory, name)


class Mirror:
    """`store` is the file's; it is another object after it was made anew."""

    store: SqliteEventStore

    def __init__(self, tables: Tables, directory: str, clock: Clock, head: Head) -> None:
        self._tables = tables
        self._clock = clock
        self._deployment: str = head.facts["deployment"]
        self.path = mirror_path(tables, directory, head)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        try:
            self._open()
        except StoreError:
            self._renew()

    def _open(self) -> None:
        if not os.path.exists(self.path):
            from infrastructure.event_store.sqlite_setup import _build

            unfinished = f"{self.path}.{os.getpid()}.{os.urandom(4).hex()}.new"
            _build(unfinished, self._deployment)
            try:
                os.link(unfinished, self.path)
            except FileExistsError:
                pass  # another process made it just now
            finally:
                os.unlink(unfinished)
        self.store = SqliteEventStore(self.path, self._clock, {})
        made = dict(self.store.connection.execute("SELECT * FROM projection_versions").fetchall())
        if made != VERSIONS:
            raise StoreError(f"{self.path} was made by another release")
        # What a power failure takes is read again from the log.
        self.store.connection.execute("PRAGMA synchronous = OFF")

    def _renew(self) -> None:
        self.close()
        for leftover in ("", "-wal", "-shm", ".lock"):
            if os.path.exists(self.path + leftover):
                os.unlink(self.path + leftover)
        self._open()

    def renew_failed(self) -> None:
        """Make it anew when a projection stopped here: its code may be mended by now."""
        if self.store.connection.execute("SELECT 1 FROM projections").fetchone():
            self._renew()

    def close(self) -> None:
        store = getattr(self, "store", None)
        if store is not None:
            store.close()

    def end(self) -> tuple[int, str]:
        return self.store.end()

    def follow(self, head: Head) -> bool:
        """Take over what the log has up to the head; whether there was anything. Raises LogDamaged,
        StoreError."""
        try:
            position, chain = self.end()
            if position > head.pos:
                # Another process of this machine may have read a later head.
                head = read_head(self._tables)
            if position > head.pos or (position == head.pos != 0 and chain != head.facts["chain"]):
                raise StoreError(
                    f"{self._tables.name}: the log ends at event {head.pos}, and event {position} "
                    "was read from it before: it was cut back or changed; compare it with a backup "
                    f"(what was read is in {self.path})"
                )
            return self._follow(head)
        except (LogDamaged, StoreInert, StoreMissing, sqlite.DatabaseError):
            # It may be the file that is at fault: everything is read again.
            self._renew()
            return self._follow(head)

    def _follow(self, head: Head) -> bool:
        position, _ = self.end()
        new = position < head.pos
        batch: list[list[Any]] = []
        for commit in read_log(self._tables, position, head.pos) if new else ():
            batch += commit
            if len(batch) >= BATCH:
                self.take(batch, head)
                batch = []
        if batch or new or self._lags(head):
            self.take(batch, head)
        return new

    def _lags(self, head: Head) -> bool:
        """Whether what a commit without events changes is not here yet."""
        connection = self.store.connection
        known = dict(connection.execute("SELECT name, position FROM tracking").fetchall())
        (incarnation,) = connection.execute("SELECT incarnation FROM store").fetchone()
        return bool(known != head.facts["tracking"] or incarnation != head.facts["incarnation"])

    def take(self, events: Sequence[Sequence[Any]], head: Head) -> None:
        """Let these follow. Those that another process put here meanwhile are passed over."""

        def work() -> None:
            position, _ = self.end()
            later = [tuple(row) for row in events if row[0] > position]
            self._check(later)
            # What no projection of ours follows may be an event that this release does not know.
            self.store._insert(later, [decompose(row) for row in later if row[4] in FOLLOWED])
            for tracked in head.facts["tracking"].items():
                self.store.connection.execute(TRACK, tracked)
            self.store.connection.execute(
                "UPDATE store SET incarnation = ?", (head.facts["incarnation"],)
            )

        self.store.write("mirror", work)

    def _check(self, events: Sequence[Sequence[Any]]) -> None:
        position, previous, _ = self.store._head()
        for row in events:
            if row[0] != position + 1 or is_damaged(row, previous):
                raise LogDamaged(
                    f"{self._tables.name}: event {row[0]} does not follow event {position}: it was "
                    "changed; compare the log with a backup"
                )
            position, previous = row[0], row[10]

    def note(self) -> None:
        """Take over what the items say of leases, sweeps and orphans, for an operator's look."""
        leases = [
            (
                item["SK"]["S"],
                item["owner"]["S"],
                item["program_version"]["S"],
                int(item["fence"]["N"]),
                item["boot"]["S"],
                0.0 if item["released"]["N"] != "0" else float(item["expires"]["N"]),
                int(item["locked"]["N"]),
                item.get("successor", {}).get("S", ""),
            )
            for item in self._tables.query(LOG, LEASES)
        ]
        sweeps = [
            (item["SK"]["S"], *loads(item["began"]["S"]), int(item["instances"]["N"]))
            for item in self._tables.query(ROWS, SWEEPS)
        ]
        orphans = [loads(item["row"]["S"]) for item in self._tables.query(ROWS, ORPHANS)]
        noted = {
            "leases": leases,
            "sweeps": sweeps,
            "orphans": [row[:8] for row in orphans],
            "orphan_facts": [[row[0], *row[8:]] for row in orphans],
        }

        def work() -> None:
            for table, rows in noted.items():
                self.store.connection.execute(f"DELETE FROM {table}")
                for row in rows:
                    marks = ", ".join("?" * len(row))
                    self.store.connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)

        self.store.write("mirror", work)


class MirrorRows:
    """Rows and versions as the mirror has them, once it is at the log's head."""

    def __init__(self, mirror: Mirror) -> None:
        self._store = mirror.store

    def row(self, table: str, row_key: tuple[Any, ...]) -> dict[str, Any] | None:
        return self._store._read_row(table, row_key)

    def version(self, stream: str) -> int:
        (last,) = self._store.connection.execute(
            "SELECT max(version) FROM events WHERE stream = ?", (stream,)
        ).fetchone()
        return -1 if last is None else int(last)
