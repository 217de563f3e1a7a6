"""Making a store, and bringing a copy to life: the only code that creates tables."""

from __future__ import annotations

import os

from application.failures import StoreError
from application.projections import VERSIONS
from domain.deployment import Deployment
from infrastructure.event_store import schema
from infrastructure.event_store.sql import KEEP_VERSION
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import (
    SCHEMA_VERSION,
    bring_up_to_date,
    open_for_reading,
    sqlite,
    sync_directory,
    uri,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.ports import Clock

NETWORK_FILE_SYSTEMS = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "9p",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "glusterfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "ocfs2",
        "gfs2",
        "vboxsf",
        "prl_fs",
    ]
)


def refuse_network_file_system(
    path: str, mounts: str = "/proc/self/mounts", key: str = "storage.sqlite_strategy.path"
) -> None:
    """Raises StoreError where SQLite's locks do not hold (https://sqlite.org/wal.html)."""
    place = os.path.realpath(os.path.dirname(path))
    best, kind = "", ""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, mount, type_, *_ = line.split(" ")
                mount = mount.replace("\\040", " ")
                inside = place == mount or place.startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= len(best):
                    best, kind = mount, type_
    except OSError:
        return
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path} is on a network file system ({kind} at {best}), where SQLite loses data: set "
            f"{key} to a local {'file' if key.endswith('.path') else 'directory'}"
        )


def create_store(path: str, clock: Clock, actor: dict[str, str], program_version: str) -> str:
    """Make an empty ledger at `path`; its deployment id. Raises StoreError when one is there.

    The file appears under its name whole or not at all.
    """
    refuse_network_file_system(path)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if os.path.exists(path):
        raise StoreError(
            f"{path} exists already: a deployment has one store, and this is it; "
            f"`hostledger store init --join {path}` registers it for this user"
        )
    _refuse_commits_without_file(path)
    deployment = os.urandom(16).hex()
    unfinished = f"{path}.{os.getpid()}.new"
    _build(unfinished, deployment)
    store = SqliteEventStore(unfinished, clock, actor)
    try:
        store.save(
            Deployment.create(deployment, program_version), correlation_id="cmd-" + deployment
        )
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        store.close()
    try:
        os.link(unfinished, path)
        sync_directory(os.path.dirname(path))
    except FileExistsError:
        raise StoreError(f"{path} exists already: another process made it just now") from None
    finally:
        for leftover in (
            unfinished,
            unfinished + ".lock",
            unfinished + "-wal",
            unfinished + "-shm",
        ):
            if os.path.exists(leftover):
                os.unlink(leftover)
    return deployment


def _refuse_commits_without_file(path: str) -> None:
    """Raises StoreError where a file was moved away without its newest commits: SQLite would take
    them for those of the file that is made in its place."""
    left = path + "-wal"
    if os.path.exists(left) and os.path.getsize(left):
        raise StoreError(
            f"{left} holds the newest commits of a store whose file is not here: put it beside its "
            f"file (a store is moved as {path}, -wal and -shm together); nothing was made"
        )


def _build(path: str, deployment: str, inode: int | None = None) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if inode is None:
        inode = os.fstat(descriptor).st_ino
    os.close(descriptor)
    connection = sqlite.connect(uri(path, "mode=rw"), isolation_level=None, uri=True)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        f"BEGIN;{schema.LOG}{schema.READ_MODELS}{schema.NOTEBOOK}PRAGMA user_version = 1;COMMIT;"
    )
    bring_up_to_date(connection)
    connection.execute(
        "INSERT INTO store (one, deployment, incarnation, inode) VALUES (1, ?, 1, ?)",
        (deployment, inode),
    )
    connection.executemany(KEEP_VERSION, VERSIONS.items())
    connection.close()


def begin_copy(path: str, deployment: str, clock: Clock, actor: dict[str, str]) -> SqliteEventStore:
    """The file that takes over another store's log, made when it is not there. No inode is recorded
    in it, so that it is inert until it is activated. Raises StoreError."""
    refuse_network_file_system(path)
    if not os.path.exists(path):
        _refuse_commits_without_file(path)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _build(path, deployment, inode=0)
    store = SqliteEventStore(path, clock, actor, inert=True)
    (inode,) = store.connection.execute("SELECT inode FROM store").fetchone()
    if store.deployment == deployment and inode == 0:
        return store
    store.close()
    if store.deployment != deployment:
        raise StoreError(
            f"{path} is the store of another deployment ({store.deployment}, not {deployment}): "
            "two are never mixed"
        )
    raise StoreError(f"{path} lives already: nothing is copied over a store that is in use")


def backup(path: str, to: str) -> None:
    """An online copy (https://sqlite.org/backup.html) that is inert. Raises StoreError."""
    try:
        os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreError(f"{to} cannot be made: {error.strerror}") from None
    source = open_for_reading(path)
    target = sqlite.connect(uri(to, "mode=rw"), isolation_level=None, uri=True)
    try:
        source.backup(target)
        target.execute("PRAGMA journal_mode = WAL")
        target.execute("UPDATE store SET inode = 0")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite.DatabaseError as error:
        os.unlink(to)
        raise StoreError(f"{path} could not be copied to {to}: {error}") from None
    finally:
        target.close()
        source.close()
    sync_directory(os.path.dirname(to) or ".")


def migrate(path: str) -> tuple[int, int]:
    """The schema's number before and now. Raises StoreError."""
    try:
        connection = sqlite.connect(uri(path, "mode=ro"), isolation_level=None, uri=True)
        (before,) = connection.execute("PRAGMA user_version").fetchone()
        connection.close()
    except sqlite.DatabaseError as error:
        raise StoreError(f"{path}: {error}") from None
    open_for_reading(path).close()
    return before, SCHEMA_VERSION


def compact(path: str) -> list[str]:
    """VACUUM, which holds writers off while it runs, and ANALYZE. Raises StoreError."""
    open_for_reading(path).close()
    connection = sqlite.connect(uri(path, "mode=rw"), timeout=60.0, isolation_level=None, uri=True)
    try:
        before = os.stat(path).st_size
        connection.execute("VACUUM")
        connection.execute("ANALYZE")
        # While somebody reads an older state this cannot be done, and a later commit does it.
        connection.execute("PRAGMA busy_timeout = 1000")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite.DatabaseError as error:
        raise StoreError(f"{path}: {error}; nothing was changed: try again") from None
    finally:
        connection.close()
    return [f"{path}: {before} bytes before, {os.stat(path).st_size} after", "statistics are new"]


def copy_to_rehearse(path: str, directory: str) -> str:
    """A living copy of a store in a private directory, to be thrown away; its path. Nothing is
    written to the store. Raises StoreError."""
    copy = os.path.join(directory, "ledger.db")
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    source = open_for_reading(path)
    target = sqlite.connect(uri(copy, "mode=rw"), isolation_level=None, uri=True)
    try:
        source.backup(target)
        target.execute("UPDATE store SET inode = ?", (os.stat(copy).st_ino,))
    except sqlite.DatabaseError as error:
        raise StoreError(f"{path} could not be copied to {directory}: {error}") from None
    finally:
        target.close()
        source.close()
    return copy


def activate_store(path: str, clock: Clock, actor: dict[str, str], reason: str) -> int:
    """Make a copied or restored store the living one; its new incarnation.

    The worker's notebook is emptied: what the original's worker knew of AWS is not ours to trust.
    Leases end, but their fencing numbers go on: a worker that is still running must not pass.
    """
    refuse_network_file_system(path)
    store = SqliteEventStore(path, clock, actor, inert=True)
    try:
        deployment = store.get(Deployment, "")
        if deployment is None:
            raise StoreError(f"{path}: the log does not begin with a deployment")
        deployment.activate(reason)
        incarnation = deployment.incarnation
        inode = os.stat(path).st_ino

        def empty_notebook() -> None:
            for table in schema.NOTEBOOK_TABLES:
                if table != "leases":
                    store.connection.execute(f"DELETE FROM {table}")
            store.connection.execute("UPDATE leases SET fence = fence + 1, expires = 0")

        def revive() -> None:
            store.connection.execute(
                "UPDATE store SET incarnation = ?, inode = ?, moved_to = ''", (incarnation, inode)
            )

        store.write("notebook", empty_notebook)
        store.insist()
        store.save(deployment, correlation_id="cmd-" + os.urandom(16).hex())
        store.write("activation", revive)
        return incarnation
    finally:
        store.close()
