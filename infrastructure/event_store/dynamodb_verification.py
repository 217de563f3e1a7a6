"""The log in DynamoDB as it is stored, for `verification.py`: every item, by consistent reads.

An event is kept in its stream's item, and when its commit is small in the log's item too; each is
read by somebody, so both must say the same, and no item may be there that no commit of the log
names.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from application.json_text import loads
from infrastructure.event_store.dynamodb_client import LOG, text_of
from infrastructure.event_store.dynamodb_log import (
    BUCKET,
    commit_key,
    events_in,
    log_key,
    read_head,
    stream_key,
)
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.event_store.verification import shaped

if TYPE_CHECKING:
    from infrastructure.event_store.dynamodb_client import Item, Tables
    from infrastructure.event_store.verification import Batch, RawLog

PAGE = 50
"""Commits whose items are fetched at once."""

BROKEN = (KeyError, ValueError, TypeError, IndexError, AttributeError, zlib.error)
"""What reading an item raises that is not as it was written."""


class DynamodbRawLog:
    """`copies` is this machine's mirror, from which questions are answered."""

    def __init__(self, tables: Tables, copies: Sequence[RawLog]) -> None:
        self._tables = tables
        head = read_head(tables)
        self.name = tables.name
        self.deployment: str = head.facts["deployment"]
        self.end = head.pos
        self.chain: str = head.facts["chain"]
        self.noted: tuple[int, str] | None = (head.pos, self.chain)
        self.copies = copies
        self._problems: list[tuple[int | None, str]] = []
        self._named = _Keys()

    def batches(self) -> Iterator[Batch]:
        page: list[Item] = []
        for bucket in range(self.end // BUCKET + 1):
            partition, _ = log_key(bucket * BUCKET)
            for item in self._tables.query(LOG, partition):
                page.append(item)
                if len(page) == PAGE:
                    yield self._rows(page)
                    page = []
        yield self._rows(page)

    def _rows(self, page: Sequence[Item]) -> list[Sequence[Any]]:
        """The events of these commits, each compared with those of its streams' items."""
        page = [item for item in page if int(item["SK"]["S"]) <= self.end]
        named: dict[int, list[tuple[str, str]]] = {}
        for item in page:
            first = int(item["SK"]["S"])
            self._named.add(item["PK"]["S"], item["SK"]["S"])
            try:
                refs = loads(text_of(item, "refs"))
                named[first] = [(stream_key(s), commit_key(version)) for s, version, _ in refs]
            except BROKEN as error:
                self._problems.append((first, f"its log item does not read: {error!r}"))
                named[first] = []
        wanted = [(LOG, *where) for parts in named.values() for where in parts]
        found = {(item["PK"]["S"], item["SK"]["S"]): item for item in self._tables.get_all(wanted)}
        return [row for item in page for row in self._commit(item, named, found)]

    def _commit(
        self,
        item: Item,
        named: dict[int, list[tuple[str, str]]],
        found: dict[tuple[str, str], Item],
    ) -> Iterator[Sequence[Any]]:
        first = int(item["SK"]["S"])
        rows: list[Any] = []
        for where in named[first]:
            self._named.add(*where)
            try:
                rows += self._part(found[where], where, first)
            except BROKEN:
                self._problems.append(
                    (first, f"item {' '.join(where)} has its events and is missing or unreadable")
                )
        try:
            rows.sort(key=lambda row: row[0])
            if "events" in item:
                here = events_in(item)
                if here != rows:
                    self._problems.append(
                        (first, "its log item and its stream's items do not say the same")
                    )
                rows = here
            if int(item["n"]["N"]) != len(rows):
                self._problems.append((first, f"its commit had {item['n']['N']} events"))
        except BROKEN as error:
            self._problems.append((first, f"its items do not read: {error!r}"))
        for number, row in enumerate(rows):
            yield shaped(row, first + number)

    def _part(self, item: Item, where: tuple[str, str], first: int) -> list[Any]:
        """The events of a stream's item."""
        events = events_in(item)
        said = (int(item["n"]["N"]), int(item["pos"]["N"]))
        if said != (len(events), events[0][0]):
            self._problems.append((first, f"item {' '.join(where)} misstates what it has"))
        return events

    def problems(self) -> list[tuple[int | None, str]]:
        """With them the items that no commit names: they were inserted."""
        strange = []
        for item in self._tables.scan(LOG):
            partition, sort = item["PK"]["S"], item["SK"]["S"]
            if partition.startswith(("S#", "L#")) and not self._named.has(partition, sort):
                at = sort if partition.startswith("L#") else item.get("pos", {}).get("N", "0")
                strange.append((int(at) if at.isdecimal() else 0, f"{partition} {sort}"))
        last = read_head(self._tables).pos
        return self._problems + [
            (position, f"item {where} is in no commit of the log: it was inserted")
            for position, where in strange
            if not self.end < position <= last  # else it was committed meanwhile
        ]

    def close(self) -> None:
        self._named.close()
        for copy in self.copies:
            copy.close()


class _Keys:
    """The keys of the items that commits name, on disk beyond what SQLite's cache holds."""

    def __init__(self) -> None:
        self._connection = sqlite.connect("", isolation_level=None)
        self._connection.execute(
            "CREATE TABLE keys (pk TEXT, sk TEXT, PRIMARY KEY (pk, sk)) WITHOUT ROWID"
        )
        self._connection.execute("BEGIN")

    def add(self, partition: str, sort: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (partition, sort))

    def has(self, partition: str, sort: str) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM keys WHERE pk = ? AND sk = ?", (partition, sort)
        )
        return found.fetchone() is not None

    def close(self) -> None:
        self._connection.close()
