"""Exchanging read rows that were built anew, of a store in DynamoDB.

No transaction takes them all, so that the projections are marked as failed while they are written:
nobody is told rows of two kinds, commits go on without rows, and the head that ends it is put only
when nothing was recorded since. Whoever is killed in between leaves them marked, to be built again.
"""

from __future__ import annotations

from application.failures import StoreError
from application.projections import PROJECTIONS
from infrastructure.event_store.dynamodb_client import HOSTS, ROWS, ConditionFailed, key
from infrastructure.event_store.dynamodb_log import read_head
from infrastructure.event_store.dynamodb_rows import (
    ALIVE,
    OPEN,
    TableRows,
    counts_of,
    row_item,
    writes_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from application.rebuilding import Change
    from infrastructure.event_store.dynamodb import DynamodbEventStore
    from infrastructure.event_store.dynamodb_client import Item
    from infrastructure.event_store.dynamodb_log import Head

    Row = dict[str, Any]
    Places = dict[tuple[str, str, str], Item | None]
    """Table, PK, SK -> the item that is to be there; None for none."""

BEING_BUILT = "it is being rebuilt"

TOGETHER = 500
"""Rows of which the old ones are asked for together."""


def exchange(
    store: DynamodbEventStore,
    rows: Callable[[], Iterable[Change]],
    projections: Callable[[], dict[str, int]],
) -> None:
    """As `SqlEventStore.exchange`. Raises StoreError."""
    store.mirror().renew_failed()
    store.change_head(_stop)
    while True:
        head = store._current()
        changes: list[Change] = []
        for change in rows():
            changes.append(change)
            if len(changes) == TOGETHER:
                _write(store, changes)
                changes = []
        _write(store, changes)
        after = _following(store, head, projections())
        try:
            store.tables.call("PutItem", **after.put(store.tables, head))
        except ConditionFailed as failed:
            if failed.doubtful and read_head(store.tables).facts == after.facts:
                return
            continue  # something was recorded meanwhile
        return


def _stop(head: Head) -> None:
    failed = {name for name, *_ in head.facts["failed"]}
    for name in PROJECTIONS:
        if name not in failed:
            head.facts["failed"].append([name, head.pos + 1, BEING_BUILT])


def _following(store: DynamodbEventStore, head: Head, projections: dict[str, int]) -> Head:
    """The head that ends it, with what it says of all rows. What the mirror has is of the log."""
    after = head.following()
    facts = after.facts
    facts["failed"] = [entry for entry in facts["failed"] if entry[0] not in projections]
    facts["versions"] = {**facts.get("versions", {}), **projections}
    facts["counts"] = {}
    facts["brake"] = None
    connection = store.connection
    for table in (
        "requests", "batches", "fleets", "launch_templates", "terminations", "machines", "brake",
    ):  # fmt: skip
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            for counted, number in counts_of(table, row).items():
                facts["counts"][counted] = facts["counts"].get(counted, 0) + number
            if table == "brake" and row["scope"]:
                facts["brake"] = [row["scope"], row["reason"]]
    return after


def _write(store: DynamodbEventStore, changes: list[Change]) -> None:
    known = TableRows(store.tables)
    known.fetch(changes)
    places: Places = {}
    for table, row_key, row in changes:
        old = known.row(table, row_key)
        try:
            places |= _places(store, table, old, row)
        except ValueError as error:
            raise StoreError(f"{store.name}: {'/'.join(map(str, row_key))}: {error}") from None
    store.tables.delete_all([place for place, item in places.items() if item is None])
    store.tables.put_all([(suffix, item) for (suffix, *_), item in places.items() if item])


def _places(store: DynamodbEventStore, table: str, old: Row | None, row: Row | None) -> Places:
    """Every item that a row has, and none where it has none, whatever is there."""
    places: Places = {}
    for one in (old, row):
        if one is None:
            continue
        suffix, item = row_item(table, one)
        gone: list[tuple[str, Item]] = [(suffix, item)]
        if table == "requests":
            gone.append((ROWS, key(OPEN, f"{one['position']:012d}#{one['request_id']}")))
        elif table == "machines":
            machine_id = one["machine_id"]
            gone += [(HOSTS, key(ALIVE, machine_id)), (HOSTS, key("gone#" + machine_id))]
            if one["name"]:
                gone.append((HOSTS, key("name#" + one["name"], machine_id)))
        for suffix, item in gone:
            places[suffix, item["PK"]["S"], item["SK"]["S"]] = None
    if row is not None:
        machine = None
        if table == "returned_machines" and row["ours"]:
            machine = store.mirror().store._read_row("machines", (row["machine_id"],))
        for suffix, item, put in writes_of(table, None, row, machine):
            places[suffix, item["PK"]["S"], item["SK"]["S"]] = item if put else None
    return places
