"""The SQLite event store: one file, one writer at a time, every commit on disk before it is told.

This is the whole of what a HostFactory write needs, on the C driver alone; the eventsourcing
library's recorders (`recorders.py`) store through the same `append`.
"""

from __future__ import annotations

import os

from application.crash_points import reach
from application.failures import Conflict, LogDamaged, StoreBusy, StoreError, StoreInert
from application.projections.record import COLUMNS
from infrastructure.event_store.sql import EVENT, INSERT_EVENT, SqlEventStore
from infrastructure.event_store.sqlite_file import (
    BUSY_TIMEOUT,
    SELDOM_CHECKPOINT,
    bring_up_to_date,
    check,
    connect,
    missing,
    note_head,
    sqlite,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from application.ports import Clock
    from infrastructure.event_store.commit import Head
    from infrastructure.telemetry.slow_statements import SlowStatements

TOGETHER = 10
INSERT_EVENTS = INSERT_EVENT.replace(EVENT, ", ".join([EVENT] * TOGETHER))
"""So many events in one statement: each that is carried out reads and writes the last position that
AUTOINCREMENT has given."""

INSERT_EVENTS_ALONE = INSERT_EVENTS.replace("INTO", "OR ROLLBACK INTO")
"""A conflict ends the transaction, as `write` does, so that SQLite need not keep what the pages
were before the statement."""

ISSUED = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
LAST_TWO = f"SELECT {', '.join(COLUMNS)}, ({ISSUED}) FROM events ORDER BY position DESC LIMIT 2"


class SqliteEventStore(SqlEventStore):
    """The log of one deployment, with its read tables, open for writing.

    `clock` tells the time of the events, `actor` who acts (OS user, provider instance, process);
    `watch` is told of statements that take long.
    """

    driver_error = sqlite.DatabaseError
    longest_wait = BUSY_TIMEOUT
    """Seconds that a write waits for its turn."""
    undoes_statements = True
    unfit = (
        sqlite.IntegrityError,
        sqlite.InterfaceError,
        sqlite.ProgrammingError,
        OverflowError,
    )

    def __init__(
        self,
        path: str,
        clock: Clock,
        actor: dict[str, str],
        *,
        inert: bool = False,
        watch: SlowStatements | None = None,
    ) -> None:
        super().__init__(path, clock, actor)
        self.path = path
        self._watch = watch
        self.connection = None
        try:
            self._inode = inode = os.stat(path).st_ino
        except OSError as error:
            raise missing(path, error) from None
        self._open_lock(path + ".lock")
        try:
            self.connection = self._connect()
            self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute(SELDOM_CHECKPOINT)
            # What pages were before a savepoint is kept in memory, not in a file.
            self.connection.execute("PRAGMA temp_store = MEMORY")
            try:
                bring_up_to_date(self.connection)
                self.deployment, self.incarnation = check(self.connection, path, inode)
            except StoreInert:
                if not inert:
                    raise
                self.deployment, self.incarnation = self.connection.execute(
                    "SELECT deployment, incarnation FROM store"
                ).fetchone()
        except sqlite.DatabaseError as error:
            self.close()
            raise self._unwritable(error) from None
        except StoreError:
            self.close()
            raise

    def _open_lock(self, path: str) -> None:
        self._lock_path = path
        self._lock_file = self._turn = -1
        self._queued: Any = None
        try:
            self._lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror}") from None

    def _connect(self) -> Any:
        return connect(self.path, "mode=rw", self._watch)

    def _disconnect(self) -> None:
        self.connection.close()

    def close(self) -> None:
        if self.connection is not None:
            self._disconnect()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def changes(self) -> int:
        """A number that is another one when another process has written since."""
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        return version  # type: ignore[no-any-return]

    def last_fence(self) -> int:
        """The highest fencing number that may have been given by holders who are not recorded."""
        return 0

    def _unwritable(self, error: Exception) -> StoreError:
        """SQLite calls a full disk an I/O error when it is its shared memory that finds no room."""
        disk = os.statvfs(os.path.dirname(self.path) or ".")
        full = "" if disk.f_bavail else " (the disk is full)"
        return StoreError(f"{self.path}: {error}{full}; nothing was recorded")

    # -- writing ----------------------------------------------------------------------------------

    def write(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` in one write transaction. `name` names its crash points.

        A fair queue (flock) stands before SQLite's own lock, whose busy handler would let the
        unlucky wait for seconds. Raises StoreBusy, StoreError.
        """
        if self._here.sharing:
            return self._write_within(work)
        self._queue()
        self._here.appended = None
        try:
            self._refuse_replaced_file()
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work()
                    reach(f"commit.{name}.before")
                    self.connection.execute("COMMIT")
                    if self._here.appended is not None:
                        note_head(self._lock_file, *self._here.appended[:2])
                except BaseException:
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                    raise
            except sqlite.IntegrityError as error:
                raise Conflict(str(error)) from None
            except sqlite.ProgrammingError:
                raise
            except sqlite.DatabaseError as error:
                raise self._unwritable(error) from None
        finally:
            self._leave_queue()
        reach(f"commit.{name}.after")
        return result

    def _refused(self, error: Exception) -> Exception:
        return Conflict(str(error)) if isinstance(error, sqlite.IntegrityError) else error

    def _refuse_replaced_file(self) -> None:
        """A store that was put in the place of this one while we had it open is another's."""
        try:
            inode = os.stat(self.path).st_ino
        except OSError as error:
            raise missing(self.path, error) from None
        if inode != self._inode:
            raise StoreInert(
                f"{self.path} was replaced while it was in use; nothing was recorded: "
                "what is there now is worked on by a new process"
            )

    def _queue(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        import signal
        import threading

        if threading.current_thread() is not threading.main_thread():
            self._wait_elsewhere()
            return

        def late(*_: object) -> None:
            raise self._busy()

        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, self.longest_wait)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _wait_elsewhere(self) -> None:
        """A signal ends only the main thread's wait."""
        from infrastructure.event_store.sqlite_queue import Queue

        if self._queued is None:
            self._queued = Queue(self._lock_path)
        try:
            turn = self._queued.wait(self.longest_wait)
        except OSError as error:
            raise StoreError(f"{self._lock_path}: {error.strerror}; nothing was recorded") from None
        if turn is None:
            raise self._busy()
        self._turn = turn

    def _busy(self) -> StoreBusy:
        return StoreBusy(
            f"{self.path} was held by another process for {self.longest_wait:.0f} s; "
            "nothing was recorded: try again"
        )

    def _leave_queue(self) -> None:
        import fcntl

        if self._turn >= 0:
            os.close(self._turn)
            self._turn = -1
            return
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _insert_events(self, rows: Sequence[Sequence[Any]]) -> None:
        whole = len(rows) // TOGETHER * TOGETHER
        if whole:
            self.connection.executemany(
                INSERT_EVENTS if self._here.sharing else INSERT_EVENTS_ALONE,
                [
                    [value for row in rows[start : start + TOGETHER] for value in row]
                    for start in range(0, whole, TOGETHER)
                ],
            )
        self.connection.executemany(INSERT_EVENT, rows[whole:])

    def _head(self) -> Head:
        """The last position, chain and time, after the last event was checked against its own: once
        in a transaction, in which nobody else writes."""
        if self._here.appended is not None:
            return self._here.appended  # type: ignore[no-any-return]
        found = self.connection.execute(LAST_TWO).fetchall()
        if not found:
            issued = self.connection.execute(ISSUED).fetchone()
            if issued is not None and issued[0]:
                raise LogDamaged(f"{self.path}: the log is empty, but it held {issued[0]} events")
            return 0, self.deployment, ""
        *rest, issued = found[0]
        last = tuple(rest)
        before = found[1][10] if len(found) > 1 else self.deployment
        if issued != last[0] or not self._is_sound(last, before):
            raise LogDamaged(
                f"{self.path}: the log was changed at or after position {last[0]}; nothing is "
                "appended to it: compare it with a backup"
            )
        return last[0], last[10], last[6]
