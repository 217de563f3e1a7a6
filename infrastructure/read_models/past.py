"""The read models as of a position: of a few things by what concerns them, of all from the nearest
snapshot.

A snapshot is a replica in a file that is never written again. A look from it goes on in a
transaction that is never committed, so that any number may look at the same time and nothing is
copied. Whoever has to fold much leaves one, and a server leaves them before anybody asks; all of
them may be deleted at will.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import closing, suppress
from hashlib import sha256

from application.failures import EventsArchivedAway, ProjectionFailed, StoreBusy, StoreError
from application.projections.record import COLUMNS
from application.replay import end_of, replay
from infrastructure.event_store.commit import Rows
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.event_store.sqlite_file import SCHEMA_VERSION, uri
from infrastructure.read_models.replica import Replica, alone, made_by
from infrastructure.read_models.sql import SqlReadModel
from infrastructure.read_models.sql_queries import SqlQueries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from application.as_of import Concern

    Row = dict[str, Any]

STEP = 10_000
"""Events that a look folds by itself; before more of them snapshots are left, at multiples."""

MOST_FILES, MOST_BYTES = 32, 2**31
"""So many snapshots are kept, in so many bytes."""

RECENT = 3
"""So many stay because they were used last."""

LEAST_FREE = 2 * MOST_BYTES
"""Bytes that must be free for any to be left: the ledger needs the disk more."""

ABANDONED = 86_400.0
"""Seconds after which nobody works any more on one that is not finished."""


class PastQueries(SqlQueries):
    """An operator's questions, answered as of a position, over a source's log; both end with it."""

    def __init__(self, replica: Replica, source: SqlQueries, position: int) -> None:
        super().__init__(replica.connection, f"the state as of {position}", SCHEMA_VERSION)
        self._source = source
        self.position = position
        for name, failed_at, error in replica.failed():
            raise ProjectionFailed(
                f"the read model {name} cannot follow the log beyond position {failed_at} "
                f"({error}): ask as of an earlier position"
            )

    def events_of(self, stream: str) -> list[Row]:
        events = self._source.events_of(stream)
        return [event for event in events if event["position"] <= self.position]

    def read_model(self) -> SqlReadModel:
        """HostFactory's questions, of the same look."""
        return SqlReadModel(self._connection)

    def close(self) -> None:
        super().close()
        self._source.close()


# -- a few things -----------------------------------------------------------------------------


class _Unknown(dict):  # type: ignore[type-arg]
    """The row of a thing of which not all events are there: takes what is done to it and is
    forgotten."""

    def __missing__(self, column: str) -> int:
        return 0


class _PartRows(Rows):
    """Rows of some things alone."""

    def __init__(self, read: Callable[..., Row | None], things: set[str]) -> None:
        super().__init__(read)
        self._things = things

    def get(self, table: str, *key: Any) -> Row | None:
        return super().get(table, *key) if key[0] in self._things else _Unknown()

    def put(self, table: str, row: Row) -> None:
        if row.get(self.KEYS[table][0]) in self._things:
            super().put(table, row)


class _Part(Replica):
    """Read models of what is of concern, made of its events."""

    def __init__(self, deployment: str, concern: Concern) -> None:
        super().__init__(":memory:", deployment)
        if concern.things is not None:
            self._rows = _PartRows(self._read_row, concern.things)
        self._fold([tuple(event[name] for name in COLUMNS) for event in concern.events])
        self.write()


def part(source: SqlQueries, position: int, concern: Concern) -> PastQueries:
    """A look at the things that are of concern. Raises StoreError."""
    deployment, _, _ = source.identity()
    return PastQueries(_Part(deployment, concern), source, position)


# -- all of them ------------------------------------------------------------------------------


class _Look(Replica):
    """A replica that goes on from a snapshot for as long as it is open."""

    def __init__(self, path: str, deployment: str) -> None:
        # Without locks, because nobody ever writes to the file.
        connection = sqlite.connect(uri(path, "mode=rw&nolock=1"), isolation_level=None, uri=True)
        for pragma in ("journal_mode = MEMORY", "cache_spill = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        self._open(connection, deployment)
        connection.execute("BEGIN")
        os.utime(path)

    def _begin(self, deployment: str) -> None:
        raise sqlite.DatabaseError("no snapshot")


def _quiet(done: int, of: int) -> None:
    pass


def _marks(start: int, position: int, step: int) -> list[int]:
    """A position and those 1, 2, 4 .. steps before it that come after another."""
    marks = [position]
    while position - step > start:
        marks.append(position - step)
        step *= 2
    return marks[::-1]


class Snapshots:
    """Those of a log in a directory, which is made when there is something to keep."""

    def __init__(
        self, directory: str, source: SqlQueries, step: int = STEP, most_files: int = MOST_FILES
    ) -> None:
        self._step = step
        self._most_files = most_files
        self._directory = directory
        self._source = source
        self._deployment, _, _ = source.identity()

    def look(self, position: int, progress: Callable[[int, int], object] = _quiet) -> PastQueries:
        """A look at everything. `progress` is told (position, its end) of a long fold. Raises
        StoreError."""
        start, path = self._nearest(position)
        is_long = position - start >= self._step
        if is_long:
            last = position // self._step * self._step
            path = self._leave(path, _marks(start, last, self._step), progress)
        replica: Replica
        try:
            replica = _Look(path, self._deployment) if path else Replica("", self._deployment)
            replay(self._source, replica, position, progress if is_long else _quiet)
            replica.index()
        except sqlite.DatabaseError as error:
            if not path:
                raise StoreError(f"the state as of {position} cannot be built: {error}") from None
            _remove(path)  # it is damaged
            return self.look(position, progress)
        return PastQueries(replica, self._source, position)

    def cover(self, progress: Callable[[int, int], object] = _quiet) -> None:
        """Leave some all along the log, so that any moment is near one; nothing where another
        process is at it. `progress` is told (position, its end). Raises StoreError."""
        end = end_of(self._source) // self._step * self._step
        if end:
            with suppress(StoreBusy, OSError), alone(self._directory):
                self._cover(end, progress)

    def _cover(self, end: int, progress: Callable[[int, int], object]) -> None:
        position, path = 0, ""
        while position < end:
            own = self._own()
            apart = self._apart(own, end)
            following = min((other for other in own if other > position), default=0)
            if not following or following - position > 2 * apart:
                mark = min(position + apart, end)
                self._source.again()  # an old state of the store is held for this one alone
                try:
                    left = self._leave(path, [mark], progress)
                except EventsArchivedAway:
                    if not following:
                        raise
                else:
                    if left == path:
                        return
                    own[mark], following = left, mark
            position, path = following, own[following]

    def _apart(self, own: dict[int, str], end: int) -> int:
        """Events between two that are left ahead: as few as there is room for. They grow with the
        log, so that their mean is half of the last; a fourth of the room is for those of looks."""
        most = self._most_files * 3 // 4
        if own:
            last = max(own)
            size = os.stat(own[last]).st_size * end // last
            most = min(most, MOST_BYTES * 3 // 4 // (size // 2))
        return -(-end // max(1, most) // self._step) * self._step

    def _chain(self, position: int) -> str:
        return self._source.chain_at(position)

    def _path(self, position: int) -> str:
        """Of a log with this history alone, and of what this release makes of it."""
        history = f"{self._deployment}\n{self._chain(position)}\n{made_by()}"
        return f"{self._directory}/{position}-{sha256(history.encode()).hexdigest()[:32]}.db"

    def _files(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._directory) if name.endswith(".db")]
        except OSError:
            return []

    def _nearest(self, position: int) -> tuple[int, str]:
        """Position and path of the last snapshot until then; (0, "") for none."""
        positions = {int(name.partition("-")[0]) for name in self._files()}
        for start in sorted(positions, reverse=True):
            if start <= position and os.path.exists(path := self._path(start)):
                return start, path
        return 0, ""

    def _own(self) -> dict[int, str]:
        """Position and path of each of this log, in their order."""
        positions = {int(name.partition("-")[0]) for name in self._files()}
        own = {position: self._path(position) for position in sorted(positions)}
        return {position: path for position, path in own.items() if os.path.exists(path)}

    def _leave(
        self, base: str, marks: Sequence[int], progress: Callable[[int, int], object]
    ) -> str:
        """Go on from a snapshot, and leave one at each of these positions. The path of the last;
        the base's where there is no room or no right to write."""
        position = marks[-1]
        unfinished = f"{self._directory}/{position}.{os.getpid()}.new"
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            disk = os.statvfs(self._directory)
            if disk.f_bavail * disk.f_frsize < LEAST_FREE:
                return base
            if base:
                shutil.copyfile(base, unfinished)
            os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(_writable(unfinished, self._deployment)) as replica:
                for mark in marks:
                    replay(self._source, replica, mark, lambda done, _: progress(done, position))
                    base = self._keep(unfinished, mark)
        except (OSError, sqlite.DatabaseError):
            return base
        finally:
            for leftover in (unfinished, unfinished + ".copy"):
                _remove(leftover)
                _remove(leftover + "-journal")
        return base

    def _keep(self, replica: str, position: int) -> str:
        """Keep a copy of a replica's file; its path."""
        path, copy = self._path(position), replica + ".copy"
        shutil.copyfile(replica, copy)
        os.chmod(copy, 0o600)
        with closing(_writable(copy, self._deployment)) as kept:
            kept.index()
        os.replace(copy, path)
        self._make_room(path)
        return path

    def _make_room(self, left: str) -> None:
        """Take out what a killed look left; and where there are too many, first those of another
        log, then those whose neighbours are nearest to each other. The one that has just been left
        stays, and some that were used last, or are the last of the log, as long as others can
        go."""
        paths = [f"{self._directory}/{name}" for name in os.listdir(self._directory)]
        for path in paths:
            if not path.endswith(".db") and time.time() - _used(path) > ABANDONED:
                os.unlink(path)
        sizes = {path: os.stat(path).st_size for path in paths if path.endswith(".db")}
        own = self._own()
        others = sorted(sizes.keys() - own.values(), key=_used, reverse=True)
        recent = sorted(own.values(), key=_used)[-RECENT:]
        while len(sizes) > 1 and (
            len(sizes) > self._most_files or sum(sizes.values()) > MOST_BYTES
        ):
            path = others.pop() if others else own.pop(_least(own, recent, left))
            _remove(path)
            sizes.pop(path, None)


def _least(own: dict[int, str], recent: Sequence[str], left: str) -> int:
    """The position that is missed least."""
    positions = list(own)
    gaps = zip([0, *positions], positions, [*positions[1:], sys.maxsize], strict=False)
    return min(
        (own[position] in recent, after - before, position)
        for before, position, after in gaps
        if own[position] != left
    )[2]


def _writable(path: str, deployment: str) -> Replica:
    """Raises OSError, for it is the disk's failure, and not that of the log which is followed."""
    try:
        return Replica(path, deployment)
    except StoreError as error:
        raise OSError(str(error)) from None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _used(path: str) -> float:
    return os.stat(path).st_mtime
