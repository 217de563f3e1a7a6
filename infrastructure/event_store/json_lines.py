"""The event store of JSON lines: a commit is one line of the log, on disk before it is told.

Under one lock: the SQLite ledger beside the log does the commit's work in a transaction, the line
is appended, and the ledger commits. What happens in between is made good by the next writer, who
takes from the log what the ledger lacks.
"""

from __future__ import annotations

import os

from application.crash_points import reach
from application.failures import Conflict, LogDamaged, StoreError, StoreInert
from infrastructure.event_store.commit import AggregateStore, iso, to_event
from infrastructure.event_store.json_ledger import (
    Identity,
    JsonLedger,
    body_path,
    deployment_of,
    read_identity,
    rebuild,
    refuse_copy,
    refuse_lost_commit,
    write_whole,
)
from infrastructure.event_store.json_log import (
    body_of,
    checksum_of,
    compose_line,
    compress,
    first_inode,
    has_grown,
    is_gzip,
    read_line,
    segments,
)
from infrastructure.event_store.sql import SqlEventStore
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import (
    SCHEMA_VERSION,
    SELDOM_CHECKPOINT,
    bring_up_to_date,
    connect,
    note_head,
    refuse_older_copy,
    sqlite,
    sync_directory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from application.ports import Clock
    from application.projections import Record
    from domain.event_sourced import DomainEvent
    from infrastructure.event_store.commit import Head, Pending
    from infrastructure.telemetry.slow_statements import SlowStatements

    Stored = tuple[int, str, int, str]


class _Commit:
    """What the line of the commit under way is made of."""

    def __init__(self, fence: tuple[str, int] | None) -> None:
        self.rows: list[Sequence[Any]] = []
        self.commands: list[Sequence[Any]] = []
        self.tracking: list[Sequence[Any]] = []
        self.bodies: list[str] = []
        self.fence = fence
        self.must_sync = fence is not None


class JsonEventStore(SqliteEventStore):
    """The log in the directory `base`, open for writing, with its ledger.

    `settings` are those of `storage.json_strategy`. `inert`: to be brought to life, whatever was
    there before; its ledger is made again. `sync` and `write` are how the log gets to the
    disk; `cache_hits` counts the streams that were not read again; `watch` is told of statements to
    the ledger that take long.
    """

    def __init__(
        self,
        base: str,
        clock: Clock,
        actor: dict[str, str],
        settings: dict[str, Any],
        *,
        inert: bool = False,
        although_moved: bool = False,
        sync: Callable[[int], None] = os.fsync,
        write: Callable[[int, bytes], int] = os.write,
        watch: SlowStatements | None = None,
    ) -> None:
        SqlEventStore.__init__(self, base, clock, actor)
        self.base = base
        self.path = base + "/ledger.db"
        self.cache_hits = 0
        self._settings = settings
        self._sync = sync
        self._write = write
        self._watch = watch
        self._commit: _Commit | None = None
        self._cached: dict[str, list[Stored]] = {}
        self.connection: Any = None
        self._file = 0
        self._left: list[Any] = []
        self._lock_file = -1
        self._inode = first_inode(base)
        self._open_lock(base + "/log.lock")
        try:
            self._inert = inert
            self._identity = self._identify(inert)
            if inert and self._identity.inode:
                self.begin_anew()
            else:
                self._open()
            if not inert:
                if not although_moved:
                    self.refuse_moved()
                refuse_older_copy(self.connection, base + "/log")
        except sqlite.DatabaseError as error:
            self.close()
            raise self._unwritable(error) from None
        except OSError as error:
            self.close()
            raise StoreError(f"{base}: {error.filename or ''} {error.strerror}") from None
        except StoreError:
            self.close()
            raise

    def _identify(self, inert: bool) -> Identity:
        try:
            return refuse_copy(self.base, self._inode)
        except StoreInert:
            if not inert:
                raise
        try:
            identity = read_identity(self.base)
        except StoreInert:
            return Identity(deployment_of(self.base), self._inode)
        # No inode is recorded of a copy that is being made, in its ledger neither.
        return Identity(identity.deployment, self._inode if identity.inode else 0)

    def _open(self) -> None:
        """Open the ledger, and let it catch up with the log when it is behind."""
        if self._is_open_where_it_was() and not self._is_behind():
            return
        self._queue()
        try:
            self._follow()
        finally:
            self._leave_queue()

    def close(self) -> None:
        for connection in (*self._left, self.connection):
            if connection is not None:
                connection.close()
        self._left = []
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def changes(self) -> int:
        """A number that is another one when another process has written since."""
        if self._is_replaced():
            self._open()
        return super().changes() + (len(self._left) << 32)

    def reports(self) -> list[str]:
        """What a person should know: ends of the log that a crash has torn."""
        return torn_ends(self.base)

    def last_fence(self) -> int:
        """The highest fencing number that may have been given on a ledger before this one."""
        (number,) = self.connection.execute("SELECT fences_from FROM log_end").fetchone()
        return int(number)

    # -- the ledger and the log -------------------------------------------------------------------

    def _is_replaced(self) -> bool:
        """Whether the ledger's file is another one by now, or none."""
        try:
            return os.stat(self.path).st_ino != self._file
        except OSError:
            return True

    def _is_open_where_it_was(self) -> bool:
        """Open the ledger unless it is; False when it is missing or damaged and must be rebuilt."""
        if self.connection is not None:
            if not self._is_replaced():
                return True
            # Who holds it may go on asking it, until this store is closed.
            self._left.append(self.connection)
            self.connection = None
        try:
            file = os.stat(self.path).st_ino
        except OSError:
            return False
        connection = connect(self.path, "mode=rw", self._watch)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(SELDOM_CHECKPOINT)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                from infrastructure.event_store.sqlite_file import check

                check(connection, self.base, self._inode)
            if version > 0:
                bring_up_to_date(connection)
                mine = self._reads_as_mine(connection)
            else:
                mine = False
        except sqlite.DatabaseError as error:
            connection.close()
            if type(error) is not sqlite.DatabaseError:
                raise  # nothing is wrong with the file itself
            return False
        except StoreError:
            connection.close()
            raise
        if not mine:
            connection.close()
            return False
        self.connection, self._file = connection, file
        return True

    def _reads_as_mine(self, connection: Any) -> bool:
        """Whether it was made from this log."""
        self.deployment, self.incarnation, inode = connection.execute(
            "SELECT deployment, incarnation, inode FROM store"
        ).fetchone()
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'log_end'").fetchone()
        return (
            there is not None
            and inode == self._identity.inode
            and self.deployment == self._identity.deployment
        )

    def _is_behind(self) -> bool:
        number, offset = self.connection.execute("SELECT segment, offset FROM log_end").fetchone()
        return has_grown(self.base, number, offset)

    def _follow(self) -> None:
        """With the lock: bring the ledger to the end of the log, and cut off what a crash has torn.

        Raises LogDamaged.
        """
        if not self._is_open_where_it_was():
            self._rebuild()
        elif self._is_behind():
            self._refuse_shorter_log()
            self._settle_end(JsonLedger(self.base, self.connection, self._clock).follow())

    def _refuse_shorter_log(self) -> None:
        """What is gone may be gone only when nobody waited for the disk and the power failed."""
        number, offset, *synced, boot_id = self.connection.execute(
            "SELECT segment, offset, synced_segment, synced_offset, boot_id FROM log_end"
        ).fetchone()
        paths = segments(self.base)
        size = os.path.getsize(paths[number - 1]) if number <= len(paths) else 0
        if number <= len(paths) and size >= offset:
            return
        if boot_id != self._clock.now()[1] and [len(paths), size] >= synced:
            self._rebuild()
            return
        raise LogDamaged(
            f"{self.base}: part {number} of the log has {size} bytes, and {offset} were read from "
            "it before: the end is gone; nothing is appended to it: compare it with a backup"
        )

    def _rebuild(self) -> None:
        """Make the ledger again. A paused worker's fencing number must not be given again."""
        if self.connection is not None:
            self._left.append(self.connection)
            self.connection = None
        identity, wall = self._identity, int(self._clock.now()[0])
        reader = rebuild(
            self.base, self.path, self._clock, identity.deployment, identity.inode, wall,
            older=self._inert,
        )  # fmt: skip
        if not self._is_open_where_it_was():
            raise StoreError(f"{self.path} was made again from the log and cannot be opened")
        self._settle_end(reader)

    def _settle_end(self, reader: Any) -> None:
        if not reader.torn:
            return
        if not self._inert:
            refuse_lost_commit(self.base, self.connection, reader)
        path = segments(self.base)[reader.number - 1]
        with open(path, "r+b", 0) as file:
            file.seek(reader.offset)
            write_whole(
                f"{self.base}/torn-{reader.number}-{reader.offset}-{reader.torn}.bin",
                file.read(),
            )
            file.truncate(reader.offset)
            os.fsync(file.fileno())

    def begin_anew(self) -> None:
        """Make the ledger again, whatever it is like, with an empty notebook, as that of the log
        that is here."""
        self._identity = Identity(self._identity.deployment, self._inode)
        self._queue()
        try:
            self._rebuild()
        finally:
            self._leave_queue()

    def mend(self) -> None:
        """Make the ledger again when SQLite finds it damaged."""
        try:
            told = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite.DatabaseError as error:
            told = str(error)
        if told != "ok":
            self.begin_anew()

    def compact(self) -> list[str]:
        """Give unused room of the ledger back. The log has none: it is never written over."""
        self._queue()
        try:
            self._follow()
            before = os.path.getsize(self.path)
            self.connection.execute("VACUUM")
            self.connection.execute("ANALYZE")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite.DatabaseError as error:
            raise StoreError(f"{self.path}: {error}; nothing was changed: try again") from None
        finally:
            self._leave_queue()
        after = os.path.getsize(self.path)
        return [f"{self.path}: {before} bytes before, {after} after", "statistics are new"]

    # -- writing ----------------------------------------------------------------------------------

    together = AggregateStore.together
    """A commit is a line, and a line is what is written and waited for as a whole."""

    def append(
        self,
        records: Sequence[Pending],
        *,
        command: tuple[str, str] | None = None,
        bodies: dict[str, bytes] | None = None,
        fence: tuple[str, int] | None = None,
        tracking: tuple[str, int] | None = None,
        **metadata: Any,
    ) -> list[str]:
        commit = _Commit(fence)
        if tracking is not None:
            commit.tracking.append(tracking)
        if command is not None:
            commit.commands.append(command)
        self._keep_bodies((bodies or {}).items(), commit)
        self._commit = commit
        try:
            return super().append(
                records, command=command, bodies=bodies, fence=fence, tracking=tracking, **metadata
            )
        finally:
            self._commit = None

    def take_over(
        self,
        events: Sequence[Sequence[Any]],
        commands: Sequence[tuple[str, str, int]] = (),
        tracking: Sequence[tuple[str, int]] = (),
        bodies: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        commit = self._commit or _Commit(None)
        commit.must_sync = True
        commit.commands += commands
        commit.tracking += tracking
        self._keep_bodies(bodies, commit)
        self._commit = commit
        super().take_over(events, commands, tracking, bodies)

    def _keep_bodies(self, bodies: Any, commit: _Commit) -> None:
        """User data is on disk before a line names it, and in no line."""
        for digest, body in bodies:
            commit.bodies.append(digest)
            path = body_path(self.base, digest)
            if os.path.exists(path):
                continue
            try:
                if not os.path.isdir(self.base + "/bodies"):
                    os.makedirs(self.base + "/bodies", mode=0o700, exist_ok=True)
                    sync_directory(self.base)
                write_whole(path, body)
            except OSError as error:
                raise StoreError(f"{path}: {error.strerror}; nothing was recorded") from None

    def _insert(self, rows: Sequence[Sequence[Any]], followed: Sequence[Record]) -> None:
        super()._insert(rows, followed)
        if self._commit is not None:
            self._commit.rows += rows

    def write(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` in one write transaction; what it appended is one line of the log.

        Raises StoreBusy, StoreError, Conflict.
        """
        self._queue()
        self._here.appended = None
        logged = False
        try:
            try:
                self._refuse_replaced_file()
                self._follow()
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work()
                    reach(f"commit.{name}.before")
                    if self._has_something_to_log():
                        self._append_line()
                        logged = True
                        reach(f"commit.{name}.logged")
                    self.connection.execute("COMMIT")
                    if logged:
                        self._note(self._commit)
                except BaseException:
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                    raise
            except sqlite.IntegrityError as error:
                raise Conflict(str(error)) from None
            except sqlite.ProgrammingError:
                raise
            except sqlite.DatabaseError as error:
                if not logged:
                    self._mend(error)
                    raise self._unwritable(error) from None
                if self._commit is not None and self._commit.fence is not None:
                    raise StoreError(
                        f"{self.path}: {error}; the commit is in the log, and nothing goes on until"
                        " this file can follow it"
                    ) from None
                # The line is the commit; the next writer lets the ledger follow.
            except OSError as error:
                raise StoreError(
                    f"{error.filename or self.base}: {error.strerror}; nothing was recorded"
                ) from None
        finally:
            self._commit = None
            if self._lock_file >= 0:
                self._leave_queue()
        reach(f"commit.{name}.after")
        return result

    def _mend(self, error: Exception) -> None:
        """Make a ledger again of which the file is damaged, for the next one who asks."""
        if type(error) is sqlite.DatabaseError:
            self._rebuild()
            raise StoreError(
                f"{self.path} was damaged ({error}) and has been made again from the log; nothing "
                "was recorded: try again"
            )

    def _refuse_replaced_file(self) -> None:
        if first_inode(self.base) != self._inode:
            raise StoreInert(
                f"{self.base} was replaced while it was in use; nothing was recorded: "
                "what is there now is worked on by a new process"
            )

    def _has_something_to_log(self) -> bool:
        commit = self._commit
        return commit is not None and bool(
            commit.rows or commit.commands or commit.tracking or commit.bodies
        )

    def _append_line(self) -> None:
        """Raises OSError when nothing of it is left in the log; StoreError when that is unsure."""
        commit = self._commit
        assert commit is not None  # narrows the type
        now = self._clock.now()
        (last,) = self.connection.execute("SELECT ifnull(max(position), 0) FROM events").fetchone()
        line = compose_line(
            commit.rows,
            commit.rows[0][6] if commit.rows else iso(now[0]),
            last - len(commit.rows) + 1,
            [command if len(command) == 3 else (*command, last) for command in commit.commands],
            commit.tracking,
            commit.bodies,
            commit.fence,
        )
        path, number, start = self._place()
        content = compress(line) if is_gzip(path) else line
        must_sync = commit.must_sync or self._settings["sync_writes"]
        self.connection.execute(
            "UPDATE log_end SET segment = ?1, start = ?2, offset = ?3, checksum = ?4, boot_id = ?5",
            (number, start, start + len(content), checksum_of(line), now[1]),
        )
        if must_sync:
            self.connection.execute(
                "UPDATE log_end SET synced_segment = segment, synced_offset = offset"
            )
        commit.must_sync = must_sync
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if start == 0:
                sync_directory(self.base)
            self._put(file, path, start, content, must_sync)
        finally:
            os.close(file)

    def _place(self) -> tuple[str, int, int]:
        """Path, number and size of the segment that the next line goes to."""
        paths = segments(self.base)
        path, number = paths[-1], len(paths)
        gzip = self._settings["enable_compression"]
        if is_gzip(path) != gzip:
            number += 1
            return f"{self.base}/log-{number}.jsonl{'.gz' if gzip else ''}", number, 0
        return path, number, os.path.getsize(path)

    def _put(self, file: int, path: str, start: int, content: bytes, must_sync: bool) -> None:
        size = self._settings["write_buffer_size"]
        try:
            for begin in range(0, len(content), size):
                piece = content[begin : begin + size]
                while piece:
                    piece = piece[self._write(file, piece) :]
            if must_sync:
                self._sync(file)
        except OSError as error:
            try:
                os.ftruncate(file, start)
            except OSError as again:
                raise StoreError(
                    f"{path}: {error.strerror}, and what was written could not be taken back "
                    f"({again.strerror}): it may be recorded; look before you try again"
                ) from None
            raise OSError(error.errno, error.strerror, path) from None

    def _note(self, commit: _Commit | None) -> None:
        """After the commit: what is left beside it for whoever looks."""
        if commit is None:
            return
        if self._here.appended is not None and commit.must_sync:
            note_head(self._lock_file, *self._here.appended[:2])
        if self._settings["storage_type"] == "split_files":
            from infrastructure.event_store.json_streams import follow

            follow(self.base, self.connection)

    def _head(self) -> Head:
        """The end of the log, after its last event and its last line were checked."""
        head = super()._head()
        number, start, offset, checksum = JsonLedger(
            self.base, self.connection, self._clock
        ).last_line()
        if offset > start:
            path = segments(self.base)[number - 1]
            line = read_line(path, start, offset)
            if body_of(line) is None or checksum_of(line) != checksum:
                raise LogDamaged(
                    f"{path}: the last line, at byte {start}, was changed; nothing is appended to "
                    "it: compare it with a backup"
                )
        return head

    # -- reading ----------------------------------------------------------------------------------

    def events_of(self, stream: str) -> Iterator[DomainEvent]:
        """The domain events of a stream in their order, brought up to today's class versions."""
        for version, topic, class_version, data in self._stream(stream):
            yield to_event(stream, version, topic, class_version, data)

    def select_events(
        self, stream: str, after: int, to: int, descending: bool, limit: int
    ) -> list[tuple[int, str, str]]:
        found = [
            (version, topic, data)
            for version, topic, _, data in self._stream(stream)
            if after < version <= to
        ]
        if descending:
            found.reverse()
        return found if limit < 0 else found[:limit]

    def _stream(self, stream: str) -> list[Stored]:
        """Its events, kept for as long as no later one is there."""
        (last,) = self.connection.execute(
            "SELECT max(version) FROM events WHERE stream = ?", (stream,)
        ).fetchone()
        known = self._cached.pop(stream, None)
        if known is None or known[-1][0] != last:
            known = self.connection.execute(
                "SELECT version, topic, class_version, data FROM events "
                "WHERE stream = ? ORDER BY version",
                (stream,),
            ).fetchall()
        else:
            self.cache_hits += 1
        if known:
            self._cached[stream] = known
            if len(self._cached) > self._settings["cache_size"]:
                del self._cached[next(iter(self._cached))]
        return known


def torn_ends(base: str) -> list[str]:
    """What was cut off the log after crashes, in words."""
    return [
        f"{base}/{name}: the end of a commit that a crash has torn, {name.split('-')[3][:-4]} bytes"
        f" at byte {name.split('-')[2]} of part {name.split('-')[1]} of the log; it was never "
        "answered. Delete the file when you have seen it"
        for name in sorted(os.listdir(base))
        if name.startswith("torn-") and name.endswith(".bin") and name.count("-") == 3
    ]
