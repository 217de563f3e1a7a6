"""The items of the log's table: the head, commits, the log's buckets, and reading them in order.

HEAD#0            0                    pos, rev, facts, pending
S#<stream>        C#<first version>    the events of this stream in one commit, with all columns
L#0#<pos // 1000> <first position>     which streams a commit wrote to; its events when small
K#0               <command id>         what the command was answered
B#0               <digest>             user data
LEASE#0           <account/region>     who works there
SEEN#0            ...                  what HostFactory's calls named
W#<id>            <number>             read rows of a commit that do not fit its transaction
"""

from __future__ import annotations

import os

from application.failures import LogDamaged, StoreElsewhere, StoreError, StoreInert, StoreNewer
from application.json_text import dumps, loads
from infrastructure.event_store.dynamodb_client import LOG, key, packed_text, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from infrastructure.event_store.dynamodb_client import Item, Tables

FORMAT = 1
"""Of the items; a newer one is refused."""

BUCKET = 1000
"""Positions of one partition of the log."""

HEAD, LEASES, SEEN = "HEAD#0", "LEASE#0", "SEEN#0"
COMMANDS, BODIES = "K#0", "B#0"

INLINE = 4096
"""Bytes of a commit's events that are kept in the log item itself too."""

MOST_BYTES = 300_000
"""Compressed bytes of one stream's events in one commit (an item takes 400 KB)."""

TRANSACTION_BYTES = 3_800_000


class Head:
    """The end of the log and what is known of the whole store.

    `rev` is another number after every change; `facts` has format, deployment, incarnation,
    tables (name -> id of the table that it was made for, none while the store is inert), chain,
    recorded_at, last ([stream, first version of its commit, chain before it]), counts, brake,
    failed, versions (of the projections; 1 where it says nothing), tracking, moved_to. `pending`
    names read rows that are to be written still.
    """

    __slots__ = ("facts", "pending", "pos", "rev")

    def __init__(
        self, pos: int, rev: int, facts: dict[str, Any], pending: dict[str, Any] | None
    ) -> None:
        self.pos = pos
        self.rev = rev
        self.facts = facts
        self.pending = pending

    @classmethod
    def of(cls, item: Item) -> Head:
        pending = loads(item["pending"]["S"]) if "pending" in item else None
        return cls(int(item["pos"]["N"]), int(item["rev"]["N"]), loads(item["facts"]["S"]), pending)

    def item(self) -> Item:
        item = {
            **key(HEAD),
            "pos": {"N": str(self.pos)},
            "rev": {"N": str(self.rev)},
            "facts": {"S": dumps(self.facts)},
        }
        if self.pending:
            item["pending"] = {"S": dumps(self.pending)}
        return item

    def following(self) -> Head:
        """The next one, to be changed and put in this one's place."""
        return Head(self.pos, self.rev + 1, loads(dumps(self.facts)), self.pending)

    def put(self, tables: Tables, before: Head) -> dict[str, Any]:
        """The action that puts it in the place of the one before, and of no other."""
        return {
            "TableName": tables.table(LOG),
            "Item": self.item(),
            "ConditionExpression": "rev = :rev",
            "ExpressionAttributeValues": {":rev": {"N": str(before.rev)}},
        }


def new_head(deployment: str) -> Head:
    from application.projections import VERSIONS

    facts = {
        "format": FORMAT,
        "deployment": deployment,
        "incarnation": 1,
        "tables": {},
        "chain": deployment,
        "recorded_at": "",
        "last": None,
        "counts": {},
        "brake": None,
        "failed": [],
        "versions": VERSIONS,
        "tracking": {},
        "moved_to": "",
    }
    return Head(0, 0, facts, None)


def directory_of(path: str) -> str:
    """A name of the directory with a site's file locks that no other on this machine has, whatever
    either is mounted as; "" when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def read_head(tables: Tables) -> Head:
    """The head as it is now. Raises StoreMissing, StoreNewer, StoreError."""
    item = tables.get(LOG, HEAD)
    if item is None:
        raise tables.missing()
    head = Head.of(item)
    if head.facts["format"] > FORMAT:
        raise StoreNewer(
            f"{tables.name} has format {head.facts['format']}, this release has {FORMAT}: "
            "run the release that wrote it"
        )
    return head


def refuse_moved(tables: Tables, head: Head) -> None:
    """Raises StoreElsewhere once the store is sealed."""
    if head.facts["moved_to"]:
        raise StoreElsewhere(tables.name, head.facts["moved_to"])


def refuse_inert(tables: Tables, head: Head, suffixes: Sequence[str] = (LOG,)) -> None:
    """Raises StoreInert unless these tables are those that the store was made or activated with: a
    restored backup is another table, whatever its name (TableId, API_TableDescription)."""
    refuse_moved(tables, head)
    recorded = head.facts["tables"]
    for suffix in suffixes:
        name = tables.table(suffix)
        if name in recorded and describe(tables, suffix)["TableId"] == recorded[name]:
            continue
        raise StoreInert(
            f"{tables.name} is a copy (its table {name} is not the one that the store was made "
            "with): when the original is gone, run `hostledger store activate`"
        )


def describe(tables: Tables, suffix: str) -> dict[str, Any]:
    return tables.call("DescribeTable", TableName=tables.table(suffix))["Table"]  # type: ignore[no-any-return]


# -- commits --------------------------------------------------------------------------------------


def stream_key(stream: str) -> str:
    return "S#" + stream


def commit_key(first_version: int) -> str:
    return f"C#{first_version:010d}"


def log_key(first: int) -> tuple[str, str]:
    return f"L#0#{first // BUCKET:010d}", f"{first:012d}"


def commit_items(tables: Tables, rows: Sequence[Sequence[Any]]) -> list[Item]:
    """The log item and then the commit items of these events (rows of COLUMNS). Raises StoreError
    for more than an item takes."""
    by_stream: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        by_stream.setdefault(row[2], []).append(row)
    first = rows[0][0]
    log: Item = {
        **key(*log_key(first)),
        "n": {"N": str(len(rows))},
        "refs": packed_text(dumps([[s, e[0][3], len(e)] for s, e in by_stream.items()])),
    }
    together = dumps([list(row) for row in rows])
    if len(together.encode()) <= INLINE:
        log["events"] = {"S": together}
    items = [log]
    for stream, events in by_stream.items():
        text = packed_text(dumps([list(row) for row in events]))
        ((_, content),) = text.items()
        if len(content) > MOST_BYTES:
            raise StoreError(
                f"{tables.name}: {len(events)} events of {stream} are {len(content)} bytes "
                f"compressed and DynamoDB takes {MOST_BYTES} in one commit; nothing was recorded: "
                "ask for less at once"
            )
        items.append({
            **key(stream_key(stream), commit_key(events[0][3])),
            "n": {"N": str(len(events))},
            "pos": {"N": str(events[0][0])},
            "events": text,
        })  # fmt: skip
    return items


def events_in(item: Item) -> list[list[Any]]:
    """The events of a commit item, or of a log item that has them."""
    return loads(text_of(item, "events"))  # type: ignore[no-any-return]


def read_log(tables: Tables, after: int, until: int) -> Iterator[list[list[Any]]]:
    """The events (rows of COLUMNS) of each commit behind a position up to another, which the head
    gave: in their order, without a gap. Raises LogDamaged."""
    expected = after + 1
    page: list[Item] = []
    for bucket in range(expected // BUCKET, until // BUCKET + 1):
        if expected > until:
            break
        partition, _ = log_key(bucket * BUCKET)
        for item in tables.query(LOG, partition, after=f"{expected:012d}"):
            page.append(item)
            if len(page) == 50:
                for commit in _commits(tables, page, expected, until):
                    expected += len(commit)
                    yield commit
                page = []
        for commit in _commits(tables, page, expected, until):
            expected += len(commit)
            yield commit
        page = []
    if expected <= until:
        raise _gap(tables, expected)


def _gap(tables: Tables, position: int) -> LogDamaged:
    return LogDamaged(
        f"{tables.name}: event {position} is not in the log although later ones are: an item was "
        "taken out; restore the tables to a time before (point-in-time recovery)"
    )


def _commits(
    tables: Tables, page: Sequence[Item], expected: int, until: int
) -> Iterator[list[list[Any]]]:
    wanted: list[tuple[str, str, str]] = []
    for item in page:
        if "events" not in item:
            refs = loads(text_of(item, "refs"))
            wanted += [(LOG, stream_key(s), commit_key(first)) for s, first, _ in refs]
    found = {
        (item["PK"]["S"], item["SK"]["S"]): item
        for item in (tables.get_all(wanted) if wanted else ())
    }
    for item in page:
        if int(item["SK"]["S"]) > until:
            return  # committed since the head was read
        if int(item["SK"]["S"]) != expected:
            raise _gap(tables, expected)
        if "events" in item:
            events = events_in(item)
        else:
            events = []
            for stream, first, _ in loads(text_of(item, "refs")):
                part = found.get((stream_key(stream), commit_key(first)))
                if part is None:
                    raise LogDamaged(
                        f"{tables.name}: version {first} of {stream} is in the log and its events "
                        "are not: an item was taken out; restore the tables to a time before"
                    )
                events += events_in(part)
            events.sort(key=lambda row: row[0])
        yield events
        expected += len(events)


def stream_commits(tables: Tables, stream: str) -> Iterator[Item]:
    """The commit items of a stream in their order."""
    return tables.query(LOG, stream_key(stream))


def last_commit(tables: Tables, stream: str) -> Item | None:
    """The last commit item of a stream."""
    return next(tables.query(LOG, stream_key(stream), backwards=True, limit=1), None)
