"""Changing a store's log behind its back, as somebody with every right to its files could."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from application.projections.record import COLUMNS
from infrastructure.event_store.digest import chain, digest
from infrastructure.event_store.dynamodb_client import LOG
from infrastructure.event_store.dynamodb_log import commit_items
from infrastructure.event_store.json_log import compose_line

if TYPE_CHECKING:
    from infrastructure.storage import Storage

Row = tuple[Any, ...]

SELECT = f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY position"
INSERT = "INSERT INTO events VALUES ({})"


def rows_of(storage: Storage) -> list[Row]:
    """The log, as a consistent look at the store has it."""
    with closing(storage.log()) as view:
        return view.records_after(0, 100_000)


def rehashed(rows: Sequence[Row], deployment: str) -> list[Row]:
    """The same events in this order as one long forgery: positions, digests and chain made anew."""
    forged: list[Row] = []
    previous = deployment
    for position, row in enumerate(rows, start=1):
        own = digest(*row[1:9])
        previous = chain(previous, position, own)
        forged.append((position, *row[1:9], own, previous))
    return forged


def rewrite(storage: Any, rows: Sequence[Row]) -> None:
    """Put these events in the place of the whole log, in this order where it has one by itself."""
    if storage.scheme == "dynamodb":
        _rewrite_items(storage._tables(), rows)
    elif storage.scheme == "json":
        lines = [compose_line([row], row[6], row[0]) for row in rows]
        Path(storage.path, "log.jsonl").write_bytes(b"".join(lines))
    elif hasattr(storage, "_url"):
        import psycopg2

        marks = ", ".join(["%s"] * len(COLUMNS))
        with closing(psycopg2.connect(storage._url)) as connection, connection:
            cursor = connection.cursor()
            cursor.execute("DELETE FROM events")
            cursor.executemany(INSERT.format(marks), rows)
    else:
        with closing(sqlite3.connect(storage.path)) as connection, connection:
            connection.execute("DELETE FROM events")
            connection.executemany(INSERT.format(", ".join("?" * len(COLUMNS))), rows)


def _rewrite_items(tables: Any, rows: Sequence[Row]) -> None:
    there = [
        (LOG, item["PK"]["S"], item["SK"]["S"])
        for item in tables.scan(LOG)
        if item["PK"]["S"].startswith(("S#", "L#"))
    ]
    tables.delete_all(there)
    tables.put_all([(LOG, item) for row in rows for item in commit_items(tables, [row])])
