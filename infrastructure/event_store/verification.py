"""Whether a log is what was written: digest, chain, order and the versions of each stream, event by
event, in one pass that holds a batch in memory whatever the log's length.

Nothing is changed, and nothing is mended. A finding says where, in which stream and what is wrong;
the pass goes on behind it as far as events can be read, so that it also says what is sound.
"""

from __future__ import annotations

import os

from application.failures import StoreError
from application.json_text import dumps, loads
from application.projections.record import COLUMNS
from infrastructure.event_store.digest import chain, digest
from infrastructure.event_store.sqlite_driver import sqlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from infrastructure.read_models.sql_queries import SqlQueries

    Batch = Sequence[Sequence[Any]]
    """Rows of COLUMNS; of one that cannot be read (position, why)."""

    class RawLog(Protocol):
        """A log as it is stored, for whoever trusts nothing of it."""

        name: str
        deployment: str
        end: int
        chain: str
        """Position and chain of the last event, as far as is known before reading."""
        noted: tuple[int, str] | None
        """Position and chain ("" for none) of the last event that was surely there, as noted
        beside the log; None for no note."""
        copies: Sequence[RawLog]
        """What is derived of it and asked in its place."""

        def batches(self) -> Iterator[Batch]:
            """All events in their order. Raises StoreError where none can be read any more."""
            ...

        def problems(self) -> list[tuple[int | None, str]]:
            """After `batches`: what else is wrong, with the position where there is one."""
            ...

        def close(self) -> None: ...


BATCH = 2_000
"""Events that are read at once."""

MOST = 100
"""Findings that are told one by one."""

BEFORE_ALL = -(2**62)

LARGEST = 2**53
"""Beyond it JSON has no whole numbers that all readers agree on."""

TYPES: tuple[type, ...] = tuple(
    int if name in ("position", "version", "class_version") else str for name in COLUMNS
)


def verify(
    log: RawLog,
    checkpoints: Mapping[int, Mapping[str, str]],
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> dict[str, Any]:
    """`verify_log`, with the log's `copies`, each of which must be sound in itself and end as the
    log does there."""
    known = {position: dict(chains) for position, chains in checkpoints.items()}
    if log.noted is not None and log.noted[0]:
        known.setdefault(log.noted[0], {})[log.noted[1]] = "what is noted beside the log"
    for copy in log.copies:
        if copy.end:
            known.setdefault(copy.end, {})[copy.chain] = f"{copy.name}, which is read in its place,"
    document = verify_log(log, known, progress)
    document["copies"] = [verify_log(copy, {}) for copy in log.copies]
    return document


def verify_log(
    log: RawLog,
    checkpoints: Mapping[int, Mapping[str, str]],
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> dict[str, Any]:
    """Read a log once from end to end. `checkpoints` are position -> chain ("" for any) -> who
    says so: chains that events must have. `progress` is told (position, end).

    `events` read, `position` and `chain` of the last, how many are `archived` (of which the chain
    is sound and the content is in a file), the `sound` stretches [first, last] of events
    that are what was written and follow each other, and `findings`, each with `position` and
    `stream` (null where there is none) and `what`; `more_findings` were counted only.
    """
    checking = _Checking(log, checkpoints)
    try:
        for batch in log.batches():
            checking.take(batch)
            progress(checking.position, max(log.end, checking.position))
    except StoreError as error:
        checking.find(None, None, f"behind event {checking.position} nothing can be read: {error}")
    for position, what in log.problems():
        checking.find(position, None, what)
    checking.conclude()
    return checking.document()


class _Checking:
    def __init__(self, log: RawLog, checkpoints: Mapping[int, Mapping[str, str]]) -> None:
        self._log = log
        self._checkpoints = dict(checkpoints)
        self._chains = {log.deployment}
        """What the chain of the event before may have been: more than one where it is not sound."""
        self._last_chain = log.deployment
        self._recorded_at = ""
        self._versions = Versions()
        self._archived = self._first_archived = self._archived_on_record = 0
        self._has_gap = False
        """Whether events before may lack, so that a stream may go on with a later version."""
        self._findings: list[dict[str, Any]] = []
        self._more = 0
        self._sound: list[list[int]] = []
        self._events = 0
        self.position = 0

    def find(self, position: int | None, stream: str | None, what: str) -> None:
        if len(self._findings) < MOST:
            self._findings.append({"position": position, "stream": stream, "what": what})
        else:
            self._more += 1

    def take(self, batch: Batch) -> None:
        """The next events."""
        versions = self._versions.of([row[2] for row in batch if len(row) == len(COLUMNS)])
        for row in batch:
            self._take(row, versions)
        self._versions.put(versions)

    def _take(self, row: Sequence[Any], versions: dict[str, int]) -> None:
        self._events += 1
        position = row[0]
        follows = position == self.position + 1
        if position > self.position + 1:
            missing = self.position + 1
            which = f"event {missing} is" if position == missing + 1 else (
                f"events {missing} to {position - 1} are"
            )  # fmt: skip
            self.find(missing, None, f"{which} missing: event {position} is the next")
            self._has_gap = True
            self._chains = set()  # nothing that is here says what it was
        elif not follows:
            self.find(position, None, f"it comes behind event {self.position}: it was inserted")
        self.position = max(position, self.position)
        if len(row) != len(COLUMNS):
            self.find(position, None, f"it cannot be read: {row[1]}")
            self._chains = set()
            return
        problems = self._problems(row, versions)
        self._compare(position, row[10])
        if problems:
            self.find(position, str(row[2]), "; ".join(problems))
        elif follows and self._sound and self._sound[-1][1] == position - 1:
            self._sound[-1][1] = position
        else:
            self._sound.append([position, position])

    def _problems(self, row: Sequence[Any], versions: dict[str, int]) -> list[str]:
        """What is wrong with an event, and goes on with it as the one before."""
        position, _, stream, version, *_ = row
        before, stored, chained = self._chains, row[9], row[10]
        self._last_chain = str(chained)
        strange = [
            name
            for name, kind, value in zip(COLUMNS, TYPES, row, strict=True)
            if type(value) is not kind or (isinstance(value, int) and not 0 < value < LARGEST)
        ]
        if strange:
            self._has_gap = True
            self._chains = {str(chained)}
            return [f"its {', '.join(strange)} cannot be of us: it was changed"]
        problems = []
        if row[4] == row[7] == row[8] == "":
            content = stored  # the rest of it is in an archive, as `conclude` makes sure
            self._first_archived = self._first_archived or position
            self._archived += 1
        else:
            content = digest(*row[1:9])
        by_content = {chain(previous, position, content) for previous in before}
        by_digest = {chain(previous, position, stored) for previous in before}
        if content != stored:
            if chained in by_content:
                problems.append("its digest was changed: the content is what was recorded")
            else:
                problems.append("its content is not what was recorded: it was changed")
        elif before and chained not in by_digest:
            problems.append(
                f"it does not follow event {position - 1}: it, or what is before it, was changed, "
                "inserted, taken out or moved"
            )
        self._chains = {chained, *by_content, *by_digest} if problems else {chained}
        if content != stored:
            self._has_gap = True  # which stream and version it was, nobody can say
            return problems
        if row[6] < self._recorded_at:
            problems.append("it was recorded before the event that it follows")
        self._recorded_at = max(self._recorded_at, row[6])
        if row[4] == "ArchiveIntended":
            self._archived_on_record += _events_named(row[8])
        known = versions.get(stream, 0)
        if version <= known:
            problems.append(f"its stream has a version {version} already")
        elif version > known + 1 and not self._has_gap:
            problems.append(
                f"version {known + 1} of its stream is missing before version {version}"
            )
        versions[stream] = max(version, known)
        return problems

    def _compare(self, position: int, chained: str) -> None:
        for expected, who in self._checkpoints.pop(position, {}).items():
            if expected and expected != chained:
                self.find(
                    position,
                    None,
                    f"{who} has another chain here: events up to this one were changed since, "
                    "and the chain was made anew",
                )

    def conclude(self) -> None:
        """What only the end tells."""
        if self._archived > self._archived_on_record:
            self.find(
                self._first_archived,
                None,
                f"{self._archived:,} events from this one on are without content, and "
                f"{self._archived_on_record:,} are on record as archived: content was taken out",
            )
        for position, chains in sorted(self._checkpoints.items()):
            for who in chains.values():
                if position > self.position:
                    what = f"the log ends with event {self.position}: its end was cut off"
                else:
                    what = "there is no such event"
                self.find(position, None, f"{who} knows event {position}: {what}")

    def document(self) -> dict[str, Any]:
        self._versions.close()
        return {
            "log": self._log.name,
            "deployment": self._log.deployment,
            "events": self._events,
            "position": self.position,
            "chain": self._last_chain,
            "archived": self._archived,
            "sound": self._sound,
            "findings": sorted(
                self._findings,
                key=lambda found: (
                    self.position + 1 if found["position"] is None else found["position"]
                ),
            ),
            "more_findings": self._more,
        }


def _events_named(data: str) -> int:
    """How many an archive took out, by its event."""
    try:
        return int(loads(data)["events"])
    except (KeyError, TypeError, ValueError):
        return 0


class Versions:
    """The last version of each stream, on disk beyond what SQLite's cache holds."""

    def __init__(self) -> None:
        self._connection = sqlite.connect("", isolation_level=None)
        self._connection.execute(
            "CREATE TABLE versions (stream TEXT PRIMARY KEY, version INTEGER) WITHOUT ROWID"
        )

    def of(self, streams: Sequence[Any]) -> dict[str, int]:
        named = [stream for stream in set(streams) if isinstance(stream, str)]
        return dict(
            self._connection.execute(
                "SELECT stream, version FROM versions WHERE stream IN "
                "(SELECT value FROM json_each(?))",
                (dumps(named),),
            ).fetchall()
        )

    def put(self, versions: Mapping[str, int]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO versions VALUES (?, ?)", sorted(versions.items())
        )
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class SqlRawLog:
    """The table `events`, through a look that is closed with it."""

    copies: Sequence[RawLog] = ()

    def __init__(self, view: SqlQueries, name: str, noted: tuple[int, str] | None = None) -> None:
        self._view = view
        self.name = name
        self.noted = noted
        self.deployment, *_ = view.identity()
        self.end, self.chain = view.end()

    def batches(self) -> Iterator[Batch]:
        after = BEFORE_ALL
        while batch := self._after(after):
            after = batch[-1][0]
            yield batch

    def _after(self, position: int) -> Batch:
        try:
            return self._view.records_after(position, BATCH)
        except StoreError:
            return self._one_by_one(position)

    def _one_by_one(self, position: int) -> Batch:
        """The next events up to the first that cannot be read, and this with the reason. Raises
        StoreError where not even its position can be."""
        found: list[Sequence[Any]] = []
        while len(found) < BATCH:
            following = self._view.position_after(position)
            if following is None:
                break
            position = following
            try:
                found += self._view.records_after(position - 1, 1)
            except StoreError as error:
                found.append((position, str(error)))
                break
        return found

    def problems(self) -> list[tuple[int | None, str]]:
        return []

    def close(self) -> None:
        self._view.close()


def derived_at(path: str) -> list[RawLog]:
    """The log in a SQLite file that follows another one; [] where there is none, or none that can
    be read: it is made again."""
    from infrastructure.event_store.sqlite_file import SCHEMA_VERSION, uri
    from infrastructure.read_models.sql_queries import SqlQueries

    if not os.path.exists(path):
        return []
    try:
        connection = sqlite.connect(uri(path, "mode=ro"), isolation_level=None, uri=True)
        view = SqlQueries(connection, path, SCHEMA_VERSION)
        view.begin()
        return [SqlRawLog(view, path)]
    except (sqlite.DatabaseError, StoreError):
        return []


def shaped(row: Any, position: int) -> Sequence[Any]:
    """A row of COLUMNS as it was read; where it cannot be one, what is said of this position."""
    if not isinstance(row, list) or len(row) != len(COLUMNS) or type(row[0]) is not int:
        return (position, "it has not the fields of an event")
    try:
        dumps(row).encode()
    except (TypeError, ValueError):
        return (position, "it has text that is no UTF-8")
    return row


def noted_beside(path: str) -> tuple[int, str] | None:
    """The last event as `note_head` left it in a lock file; None where there is no note."""
    try:
        with open(path, "rb", 0) as file:
            position, _, noted = file.read(128).decode().partition(" ")
        return (int(position), noted.strip()) if position else None
    except (OSError, ValueError):
        return None
