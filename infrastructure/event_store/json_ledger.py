"""The SQLite ledger beside a log of JSON lines: all of it comes from the log, and is made again
from it when it is missing, damaged or behind. What the log does not tell is the worker's notebook,
which may be empty, and the leases, of which the fencing numbers go on higher.
"""

from __future__ import annotations

import os

from application.failures import LogDamaged, StoreError, StoreInert, StoreNewer
from application.json_text import BadJson, dumps, loads
from application.projections import VERSIONS, Record
from domain.topics import TOPICS
from infrastructure.event_store import schema
from infrastructure.event_store.commit import decompose, is_damaged, seconds
from infrastructure.event_store.json_log import Reader, text_of
from infrastructure.event_store.sql import (
    INSERT_EVENT,
    KEEP_BODY,
    KEEP_COMMAND,
    KEEP_VERSION,
    TRACK,
    SqlEventStore,
)
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import bring_up_to_date, sqlite, sync_directory, uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.ports import Clock

BATCH = 20_000
"""Events that one transaction takes from the log."""

LOG_END = """
CREATE TABLE log_end (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    segment INTEGER NOT NULL,
    start INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    synced_segment INTEGER NOT NULL,
    synced_offset INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    fences_from INTEGER NOT NULL
);
"""
"""How far the ledger follows: the last commit's place and checksum, how much of the log is surely
on disk, the boot in which the rest was written; and which fencing numbers may have been given."""

FORMAT = 1
"""Of `store.json` and of the lines."""


class Identity:
    """`store.json`: whose log it is, and by the inode of the first segment, that it is no copy."""

    def __init__(self, deployment: str, inode: int) -> None:
        self.deployment = deployment
        self.inode = inode

    def write(self, base: str) -> None:
        text = dumps({"format": FORMAT, "deployment": self.deployment, "inode": self.inode}) + "\n"
        write_whole(base + "/store.json", text.encode())


def read_identity(base: str) -> Identity:
    """Raises StoreInert, StoreNewer."""
    path = base + "/store.json"
    try:
        with open(path, "rb", 0) as file:
            facts = loads(file.read().decode())
        if facts["format"] > FORMAT:
            raise StoreNewer(
                f"{base} has format {facts['format']}, this release has {FORMAT}: "
                "run the release that wrote it"
            )
        return Identity(facts["deployment"], facts["inode"])
    except (OSError, BadJson, UnicodeDecodeError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not what was written"
        raise StoreInert(
            f"{path} says whose log this is and cannot be read ({why}): when no other copy is in "
            "use, run `hostledger store activate`"
        ) from None


def refuse_copy(base: str, inode: int) -> Identity:
    """Raises StoreInert for a copied directory."""
    identity = read_identity(base)
    if identity.inode != inode:
        raise StoreInert(
            f"{base} is a copy (the inode of its log is {inode}, not {identity.inode}): when the "
            "original is gone, run `hostledger store activate`"
        )
    return identity


def deployment_of(base: str) -> str:
    """As the log's first event says it. Raises StoreError."""
    for body in Reader(base):
        for event in loads(body.decode())["events"]:
            return str(event["data"]["deployment"])
    raise StoreError(f"{base}: the log does not begin with a deployment")


def write_whole(path: str, content: bytes) -> None:
    """A file under its name whole or not at all, and on disk. Raises OSError."""
    unfinished = f"{path}.{os.getpid()}.new"
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(unfinished, path)
    sync_directory(os.path.dirname(path))


def body_path(base: str, digest: str) -> str:
    return f"{base}/bodies/{digest}"


class JsonLedger(SqlEventStore):
    """A connection's ledger as it follows the log in `base`."""

    unfit = SqliteEventStore.unfit

    def __init__(self, base: str, connection: Any, clock: Clock) -> None:
        super().__init__(base, clock, {})
        self.connection = connection

    def build(self, deployment: str, inode: int) -> None:
        """Make the tables, with nothing in them."""
        self.connection.executescript(
            f"BEGIN;{schema.LOG}{schema.READ_MODELS}{schema.NOTEBOOK}{LOG_END}"
            "PRAGMA user_version = 1;COMMIT;"
        )
        bring_up_to_date(self.connection)
        self.connection.execute(
            "INSERT INTO store (one, deployment, incarnation, inode) VALUES (1, ?, 1, ?)",
            (deployment, inode),
        )
        self.connection.executemany(KEEP_VERSION, VERSIONS.items())
        self.connection.execute("INSERT INTO log_end VALUES (1, 1, 0, 0, '', 1, 0, '', 0)")

    def last_line(self) -> tuple[int, int, int, str]:
        """Segment, start and end of the last commit that it has, and its checksum."""
        return self.connection.execute(  # type: ignore[no-any-return]
            "SELECT segment, start, offset, checksum FROM log_end"
        ).fetchone()

    def follow(self) -> Reader:
        """Take in every whole commit that it lacks; where that ended. Raises LogDamaged."""
        number, _, offset, _ = self.last_line()
        reader = Reader(self.name, number, offset)
        commits = iter(reader)
        more = True
        while more:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                more = self._take(reader, commits)
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        return reader

    def _take(self, reader: Reader, commits: Any) -> bool:
        """A batch of commits; whether there may be more."""
        position, previous = self.connection.execute(
            "SELECT position, chain FROM events ORDER BY position DESC LIMIT 1"
        ).fetchone() or (0, self.connection.execute("SELECT deployment FROM store").fetchone()[0])
        rows: list[tuple[Any, ...]] = []
        records: list[Record] = []
        fences = 0
        more = False
        facts, metadata = None, ""
        at, wall = "", 0.0
        for body in commits:
            commit = loads(body.decode())
            for event in commit["events"]:
                if event["metadata"] != facts:  # most events of a commit have the same
                    facts = event["metadata"]
                    metadata = text_of(facts)
                if event["recorded_at"] != at:
                    at = event["recorded_at"]
                    wall = seconds(at)
                data = event["data"]
                row = (
                    event["position"], event["event_id"], event["stream"], event["version"],
                    event["topic"], event["class_version"], event["recorded_at"], metadata,
                    text_of(data), event["digest"], event["chain"],
                )  # fmt: skip
                if row[0] != position + 1 or is_damaged(row, previous):
                    raise LogDamaged(
                        f"{self.name}: event {row[0]}, in the commit before byte {reader.offset} "
                        f"of part {reader.number} of the log, does not follow event {position}: "
                        "it was changed; compare it with a backup"
                    )
                position, previous = row[0], row[10]
                rows.append(row)
                records.append(_record(row, facts, data, wall))
            self._take_facts(commit)
            fences = max(fences, commit.get("fence", (0, 0))[1])
            if len(rows) >= BATCH:
                more = True
                break
        self.connection.executemany(INSERT_EVENT, rows)
        self._project(records)
        for row in rows:
            if row[4] == "StoreActivated":
                self.connection.execute(
                    "UPDATE store SET incarnation = ?, moved_to = ''",
                    (loads(row[8])["incarnation"],),
                )
            elif row[4] == "StoreMoved":
                self.connection.execute(
                    "UPDATE store SET moved_to = ?", (loads(row[8])["destination"],)
                )
        self.connection.execute(
            "UPDATE log_end SET segment = ?1, start = ?2, offset = ?3, checksum = ?4, "
            "fences_from = max(fences_from, ?5)",
            (
                reader.number,
                reader.start,
                reader.offset,
                reader.checksum or self.last_line()[3],
                fences,
            ),
        )
        return more

    def _take_facts(self, commit: dict[str, Any]) -> None:
        for command in commit.get("commands", ()):
            self.connection.execute(KEEP_COMMAND, command)
        for tracked in commit.get("tracking", ()):
            self.connection.execute(TRACK, tracked)
        for digest in commit.get("bodies", ()):
            try:
                with open(body_path(self.name, digest), "rb", 0) as file:
                    self.connection.execute(KEEP_BODY, (digest, file.read()))
            except OSError:
                continue  # its launch says what is missing, if it is ever needed


def _record(row: tuple[Any, ...], facts: Any, fields: Any, wall: float) -> Record:
    """What `decompose` makes of the row, from what was parsed already."""
    event_class = TOPICS.get(row[4])
    if (
        event_class is None
        or event_class.class_version != row[5]
        or isinstance(fields, str)
        or isinstance(facts, str)
    ):
        return decompose(row)
    fields.pop("class_version", None)
    return Record(
        row[0], row[1], row[2], row[4], row[6], (wall, *facts["boot"]),
        facts["correlation_id"], fields,
    )  # fmt: skip


def rebuild(
    base: str,
    path: str,
    clock: Clock,
    deployment: str,
    inode: int,
    fences: int,
    *,
    older: bool = False,
) -> Reader:
    """Make the ledger at `path` from the log; it appears there whole or not at all. The caller
    holds the log's lock. `fences` is the highest fencing number that may have been given, beside
    those in the log; `older`: the log may lack commits that were there. Where reading ended.
    Raises LogDamaged, StoreError."""
    unfinished = f"{path}.{os.getpid()}.new"
    try:
        for name in os.listdir(os.path.dirname(path)):
            if name.startswith(os.path.basename(path) + ".") and name.endswith(".new"):
                os.unlink(f"{os.path.dirname(path)}/{name}")
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreError(
            f"{path} must be made again from the log and cannot be: {error.strerror}"
        ) from None
    connection = sqlite.connect(uri(unfinished, "mode=rw"), isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")
        ledger = JsonLedger(base, connection, clock)
        ledger.build(deployment, inode)
        reader = ledger.follow()
        connection.execute(
            "UPDATE log_end SET fences_from = max(fences_from, ?1), synced_segment = segment, "
            "synced_offset = offset",
            (fences,),
        )
        if not older:
            refuse_lost_commit(base, connection, reader)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        file = os.open(unfinished, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        for leftover in (path + "-wal", path + "-shm"):
            if os.path.exists(leftover):
                os.unlink(leftover)
        os.replace(unfinished, path)
        sync_directory(os.path.dirname(path))
    except sqlite.DatabaseError as error:
        raise StoreError(f"{path} must be made again from the log and cannot be: {error}") from None
    except OSError as error:
        raise StoreError(
            f"{path} must be made again from the log and cannot be: {error.strerror}"
        ) from None
    finally:
        connection.close()
        if os.path.exists(unfinished):
            os.unlink(unfinished)
    return reader


def refuse_lost_commit(base: str, connection: Any, reader: Reader) -> None:
    """Raises LogDamaged where the torn end is a commit that was there once: it is not cut off."""
    if not reader.torn:
        return
    try:
        with open(base + "/log.lock", "rb", 0) as file:
            noted = int(file.read(20) or 0)
    except (OSError, ValueError):
        return
    (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    if noted > last:
        raise LogDamaged(
            f"{base}: the end of part {reader.number} of the log, from byte {reader.offset} on, "
            f"held event {noted} and was changed; nothing is appended to it: compare it with a "
            "backup"
        )
