"""Opening the SQLite file of a store: what it may be, and what is said when it may not be used.

Apart from `sqlite.py` because a HostFactory read needs this and nothing else of the event store.
"""

from __future__ import annotations

import os

from application.failures import StoreElsewhere, StoreError, StoreInert, StoreMissing, StoreNewer
from infrastructure.event_store.sqlite_driver import sqlite

__all__ = [
    "BUSY_TIMEOUT",
    "SCHEMA_VERSION",
    "bring_up_to_date",
    "check",
    "connect",
    "missing",
    "note_head",
    "open_for_reading",
    "refuse_older_copy",
    "sqlite",
    "uri",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from infrastructure.telemetry.slow_statements import SlowStatements

SCHEMA_VERSION = 5
"""`PRAGMA user_version` of the schema that this release reads and writes."""

SELDOM_CHECKPOINT = "PRAGMA wal_autocheckpoint = 4000"
"""Commits are copied into the file when there are 16 MiB of them, not SQLite's 4: a page that many
of them changed is copied once, and the file waited for once. Whoever opens the store after a crash
reads that much."""

BUSY_TIMEOUT = 10.0
"""Seconds that a writer waits for its turn before it says that the store is busy."""


NO_SHM = ("unable to open", "readonly", "disk I/O error", "disk is full")
"""What SQLite says when it cannot write the -shm file that a reader of a WAL database needs."""


def sync_directory(path: str) -> None:
    """Let new names outlive a power failure."""
    directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def uri(path: str, query: str) -> str:
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{quoted}?{query}"


def connect(path: str, query: str, watch: SlowStatements | None, **options: Any) -> Any:
    """A connection to the file, which must be there. `watch` is told of what takes long."""
    if watch is None:
        return sqlite.connect(
            uri(path, query), timeout=BUSY_TIMEOUT, isolation_level=None, uri=True, **options
        )
    from infrastructure.event_store.sqlite_timed import TimedConnection

    return TimedConnection(
        watch, uri(path, query), timeout=BUSY_TIMEOUT, isolation_level=None, uri=True, **options
    )


def open_for_reading(
    path: str, name: str = "", inode: int = 0, watch: SlowStatements | None = None
) -> Any:
    """A connection that cannot write. Raises StoreMissing, StoreInert, StoreNewer, StoreError.

    For a ledger beside something else that is the store, `name` is what messages call it and
    `inode` what tells it from a copy. `watch` is told of statements that take long.

    Where SQLite cannot make its -shm file (a read-only directory, a full disk) a WAL database
    opens only as immutable, which would hide what is still in a non-empty -wal: then it is refused.
    """
    try:
        inode = inode or os.stat(path).st_ino
    except OSError as error:
        raise missing(path, error) from None
    name = name or path
    try:
        connection = connect(path, "mode=ro", watch)
        if _version(connection) in range(1, SCHEMA_VERSION):
            # The first call of a new release; a copy is brought up to date like any other.
            writing = connect(path, "mode=rw", watch)
            bring_up_to_date(writing)
            writing.close()
        check(connection, name, inode)
    except sqlite.OperationalError as error:
        if not any(words in str(error) for words in NO_SHM):
            raise StoreError(f"{path}: {error}") from None
        try:
            pending = os.stat(path + "-wal").st_size
        except OSError:
            pending = 0
        if pending:
            raise StoreError(
                f"{path}: {error}: nothing can be written beside it, and {path}-wal holds commits "
                "that cannot be read so: make the directory writable for this user, with room on it"
            ) from None
        try:
            connection = connect(path, "mode=ro&immutable=1", watch)
            check(connection, name, inode)
        except sqlite.DatabaseError as again:
            raise StoreError(f"{path}: {again}") from None
    except sqlite.DatabaseError as error:
        raise StoreError(f"{path}: {error}") from None
    return connection


def missing(path: str, error: OSError) -> StoreMissing:
    return StoreMissing(
        f"no store at {path} ({error.strerror}): is the work directory mounted? "
        "A new deployment is made once with `hostledger store init`"
    )


def _version(connection: Any) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version  # type: ignore[no-any-return]


def bring_up_to_date(connection: Any) -> None:
    """Carry out the migrations that the file lacks, each in a transaction of its own."""
    while (version := _version(connection)) in range(1, SCHEMA_VERSION):
        from infrastructure.event_store.schema import MIGRATIONS

        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == version:  # else another process was first
                for statement in MIGRATIONS[version + 1].split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def check(connection: Any, path: str, inode: int) -> tuple[str, int]:
    """Refuse another schema and a copied file; the deployment id and incarnation."""
    version = _version(connection)
    if version != SCHEMA_VERSION:
        if version == 0:
            raise StoreMissing(
                f"{path} is not initialised: run `hostledger store init` for a new deployment"
            )
        raise StoreNewer(
            f"{path} has schema {version}, this release has {SCHEMA_VERSION}: "
            "run the release that wrote it"
        )
    deployment, incarnation, recorded, moved_to = connection.execute(
        "SELECT deployment, incarnation, inode, moved_to FROM store"
    ).fetchone()
    if moved_to:
        raise StoreElsewhere(path, moved_to)
    refuse_older_copy(connection, path)
    if recorded != inode:
        raise StoreInert(
            f"{path} is a copy (its inode is {inode}, not {recorded}): when the original is gone, "
            "run `hostledger store activate`"
        )
    return deployment, incarnation


def note_head(lock_file: int, position: int, chain: str) -> None:
    """Leave beside the store what its last event is. Written after the commit, so that it may lag
    behind the log and never leads it; a full disk makes it lag."""
    try:
        os.pwrite(lock_file, f"{position:020d} {chain}".encode(), 0)
    except OSError:
        return


def refuse_older_copy(connection: Any, path: str) -> None:
    """Raises StoreInert for a backup put in the store's place: the last event that was recorded
    there is not in it. An inode alone does not tell: it is kept by `cp` and given again after `rm`.
    """
    try:
        with open(path + ".lock", "rb", 0) as file:
            position, _, chain = file.read(128).decode().partition(" ")
    except OSError:
        return
    if not position:
        return
    # Asked after the note was read: the log can only have grown since.
    row = connection.execute("SELECT chain FROM events WHERE position = ?", (position,)).fetchone()
    if row is None or row[0] != chain:
        raise StoreInert(
            f"{path} is an older copy: event {int(position)} was recorded in its place and is not "
            "in it. When the original is gone, run `hostledger store activate`"
        )
