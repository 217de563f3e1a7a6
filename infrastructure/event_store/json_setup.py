"""Making a store of JSON lines, and bringing a copy to life."""

from __future__ import annotations

import os

from application.failures import StoreError
from domain.deployment import Deployment
from infrastructure.event_store.commit import compose, to_record
from infrastructure.event_store.json_ledger import (
    Identity,
    JsonLedger,
    deployment_of,
    read_identity,
    rebuild,
    refuse_copy,
)
from infrastructure.event_store.json_lines import JsonEventStore
from infrastructure.event_store.json_log import compose_line, compress, first_inode
from infrastructure.event_store.sqlite_file import sqlite, sync_directory, uri
from infrastructure.event_store.sqlite_setup import refuse_network_file_system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.ports import Clock

KEY = "storage.json_strategy.base_path"


def create_json_store(
    base: str, clock: Clock, actor: dict[str, str], settings: dict[str, Any], program_version: str
) -> str:
    """Make an empty ledger in the directory `base`; its deployment id. Raises StoreError when one
    is there."""
    deployment = os.urandom(16).hex()
    event = to_record(next(iter(Deployment.create(deployment, program_version).collect_events())))
    cause = ("cmd-" + deployment, "")
    rows, _ = compose([event], (0, deployment, ""), clock.now(), actor, cause, {})
    build(base, deployment, settings, compose_line(rows, rows[0][6], 1), clock)
    return deployment


def begin_copy(
    base: str, clock: Clock, actor: dict[str, str], settings: dict[str, Any], deployment: str
) -> JsonEventStore:
    """The directory that takes over another store's log, made when it is not there. No inode is
    recorded in it, so that it is inert until it is activated. Raises StoreError."""
    if not os.path.exists(base + "/store.json"):
        build(base, deployment, settings, b"", clock, inert=True)
    identity = read_identity(base)
    if identity.deployment != deployment:
        raise StoreError(
            f"{base} is the store of another deployment ({identity.deployment}, not {deployment}): "
            "two are never mixed"
        )
    if identity.inode:
        raise StoreError(f"{base} lives already: nothing is copied over a store that is in use")
    return JsonEventStore(base, clock, actor, settings, inert=True)


def build(
    base: str,
    deployment: str,
    settings: dict[str, Any],
    line: bytes,
    clock: Clock,
    *,
    inert: bool = False,
) -> None:
    """Make a log with this one line, or none. It is there whole or not at all. Raises
    StoreError."""
    import fcntl

    refuse_network_file_system(base + "/log.jsonl", key=KEY)
    name = "/log.jsonl.gz" if settings["enable_compression"] else "/log.jsonl"
    unfinished = f"{base}/first.{os.getpid()}.new"
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        lock = os.open(base + "/log.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if any(file.startswith("log") and ".jsonl" in file for file in os.listdir(base)):
                raise StoreError(
                    f"{base} exists already: a deployment has one store, and this is it; "
                    f"`hostledger store init --join {base}` registers it for this user"
                )
            file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, compress(line) if line and settings["enable_compression"] else line)
                os.fsync(file)
                inode = os.fstat(file).st_ino
            finally:
                os.close(file)
            Identity(deployment, 0 if inert else inode).write(base)
            os.ftruncate(lock, 0)
            os.rename(unfinished, base + name)
            sync_directory(base)
            sync_directory(os.path.dirname(base))
            rebuild(base, base + "/ledger.db", clock, deployment, 0 if inert else inode, 0)
        finally:
            os.close(lock)
            if os.path.exists(unfinished):
                os.unlink(unfinished)
    except OSError as error:
        raise StoreError(f"{error.filename or base}: {error.strerror}; no store was made") from None


def activate_json_store(
    base: str, clock: Clock, actor: dict[str, str], settings: dict[str, Any], reason: str
) -> int:
    """Make a copied or restored store the living one; its new incarnation.

    The ledger is made anew from the log, and so the worker's notebook is empty and the fencing
    numbers go on higher: a worker that is still running must not pass.
    """
    from shutil import rmtree

    refuse_network_file_system(base + "/log.jsonl", key=KEY)
    settings = {**settings, "sync_writes": True}
    store = JsonEventStore(base, clock, actor, settings, inert=True)
    try:
        store.begin_anew()
        store.insist()
        deployment = store.get(Deployment, "")
        if deployment is None:
            raise StoreError(f"{base}: the log does not begin with a deployment")
        deployment.activate(reason)
        incarnation = deployment.incarnation
        store.save(deployment, correlation_id="cmd-" + os.urandom(16).hex())

        def revive() -> None:
            store.connection.execute(
                "UPDATE store SET incarnation = ?, moved_to = ''", (incarnation,)
            )

        store.write("activation", revive)
        Identity(deployment.deployment, first_inode(base)).write(base)
        # They may tell of events that a restored log lacks; the next commit makes them again.
        rmtree(base + "/streams", ignore_errors=True)
        return incarnation
    except OSError as error:
        raise StoreError(f"{error.filename or base}: {error.strerror}") from None
    finally:
        store.close()


def copy_log_to_rehearse(base: str, clock: Clock, directory: str) -> str:
    """A living SQLite store in a private directory, made from the log, to be thrown away; its
    path. Nothing is written to the store. Raises StoreError."""
    copy = os.path.join(directory, "ledger.db")
    identity = refuse_copy(base, first_inode(base))
    rebuild(base, copy, clock, identity.deployment, identity.inode, 0)
    connection = sqlite.connect(uri(copy, "mode=rw"), isolation_level=None, uri=True)
    try:
        connection.execute("UPDATE store SET inode = ?", (os.stat(copy).st_ino,))
    finally:
        connection.close()
    return copy


def in_memory(base: str, clock: Clock) -> Any:
    """A connection to a ledger of what the log in `base` says, copy or not. Raises StoreError."""
    connection = sqlite.connect(":memory:", isolation_level=None)
    ledger = JsonLedger(base, connection, clock)
    ledger.build(deployment_of(base), 0)
    ledger.follow()
    return connection
