"""The operator's questions to a store in DynamoDB: of the mirror, which has just followed the log,
and of the items that are nowhere else."""

from __future__ import annotations

from application.json_text import dumps, loads
from application.projections import VERSIONS
from infrastructure.event_store.commit import Rows
from infrastructure.event_store.dynamodb_client import LOG, ROWS
from infrastructure.event_store.dynamodb_log import BODIES, COMMANDS, FORMAT, read_head
from infrastructure.event_store.dynamodb_rows import ORPHAN_COLUMNS, ORPHANS, SWEEPS
from infrastructure.event_store.sql import upsert
from infrastructure.read_models.sql_queries import PAGE, SqlQueries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from infrastructure.event_store.dynamodb_client import Tables
    from infrastructure.event_store.dynamodb_mirror import Mirror


class DynamodbQueries(SqlQueries):
    def __init__(self, mirror: Mirror, tables: Tables, inert: str = "") -> None:
        super().__init__(mirror.store.connection, tables.name, FORMAT, inert)
        self._mirror = mirror
        self._tables = tables

        self._items: SqlQueries | None = None

    def close(self) -> None:
        self._forget_items()
        self._mirror.close()

    def again(self) -> None:
        """End this look and begin a new one, of what the log has by now."""
        if not self._paused:
            self._rows("COMMIT")
        self._paused = False
        self._forget_items()
        self._mirror.follow(read_head(self._tables))
        self._connection = self._mirror.store.connection
        self.begin()

    def _fetch(
        self, statement: str, parameters: Sequence[Any]
    ) -> tuple[list[tuple[Any, ...]], list[str]]:
        self._connection = self._mirror.store.connection  # which may have been made anew
        return super()._fetch(statement, parameters)

    def projections(self) -> list[dict[str, Any]]:
        """Name and version of each read model, and where and why it failed, null where it did
        not."""
        facts = read_head(self._tables).facts
        failed = {name: (position, error) for name, position, error in facts["failed"]}
        versions = {**dict.fromkeys(sorted(VERSIONS), 1), **facts.get("versions", {})}
        rows = []
        for name, version in versions.items():
            failed_at, error = failed.get(name, (None, None))
            rows.append({"name": name, "version": version, "failed_at": failed_at, "error": error})
        return rows

    def rows_of(
        self, table: str, page: int = PAGE
    ) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """As of SqlQueries, of the items and not of the mirror; each is as it was when it was
        read."""
        if self._items is None:
            self._items = self._read_items()
        return self._items.rows_of(table, page)

    def _read_items(self) -> SqlQueries:
        """All rows that the items hold, in a SQLite database of their own."""
        from infrastructure.event_store.dynamodb_client import MACHINES, REQUESTS
        from infrastructure.event_store.dynamodb_rows import row_of
        from infrastructure.read_models.replica import Replica

        head = read_head(self._tables)
        if head.pending:
            from infrastructure.event_store.dynamodb import finish

            finish(self._tables, head)
        items = Replica("", head.facts["deployment"])
        items.connection.execute("BEGIN")
        for suffix, table in ((REQUESTS, "requests"), (MACHINES, "machines"), (ROWS, "")):
            for item in self._tables.scan(suffix):
                kind = table or item["PK"]["S"].partition("#")[0]
                if kind in Rows.KEYS:
                    row = row_of(kind, item)
                    items.connection.execute(
                        upsert(kind, Rows.KEYS[kind], list(row)), [*row.values()]
                    )
        items.connection.execute("COMMIT")
        return items.queries(self._name)

    def _forget_items(self) -> None:
        if self._items is not None:
            self._items.close()
            self._items = None

    def identity(self) -> tuple[str, int, str]:
        """Deployment id, incarnation, and the place that the store was moved to, "" for none."""
        facts = read_head(self._tables).facts
        return facts["deployment"], facts["incarnation"], facts["moved_to"]

    def commands_after(self, command_id: str, limit: int) -> list[tuple[str, str, int]]:
        """(command id, result, position) of the next commands, in the order of their ids."""
        found: list[tuple[str, str, int]] = []
        for item in self._tables.query(LOG, COMMANDS, after=command_id or None):
            if len(found) == limit:
                break
            if item["SK"]["S"] != command_id:
                answer = (item["SK"]["S"], item["result"]["S"], int(item["position"]["N"]))
                found.append(answer)
        return found

    def bodies(self) -> list[tuple[str, bytes]]:
        """(digest, body) of all user data that is kept."""
        return [(item["SK"]["S"], item["body"]["B"]) for item in self._tables.query(LOG, BODIES)]

    def vitals(self) -> dict[str, Any]:
        """As of SqlQueries; sweeps are items, whoever's worker made them."""
        found = super().vitals()
        found["sweeps"] = [
            (item["SK"]["S"], tuple(loads(item["began"]["S"])))
            for item in self._tables.query(ROWS, SWEEPS)
        ]
        return found

    def orphans(self) -> list[dict[str, Any]]:
        """As of SqlQueries; they are items, whoever's worker saw them."""
        seen = [loads(item["row"]["S"]) for item in self._tables.query(ROWS, ORPHANS)]
        adopted = {
            row["machine_id"]
            for row in self._rows(
                "SELECT m.machine_id FROM json_each(?) j JOIN machines m "
                "ON m.machine_id = j.value AND m.alive = 1",
                (dumps([machine_id for machine_id, *_ in seen]),),
            )
        }
        rows = [dict(zip(ORPHAN_COLUMNS, row, strict=True)) for row in seen]
        return [row for row in rows if row["machine_id"] not in adopted]

    def facts(self) -> dict[str, Any]:
        """As of SqlQueries; `waiting` are read rows of the last commit that are not written yet,
        which HostFactory's answers lack so long."""
        head = read_head(self._tables)
        facts = super().facts()
        facts["waiting"] = head.pending["rows"] if head.pending else 0
        return facts
