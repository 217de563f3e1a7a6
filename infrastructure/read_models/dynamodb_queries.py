"""The operator's questions to a store in DynamoDB: of the mirror, which has just followed the log,
and of the items that are nowhere else."""

from __future__ import annotations

from infrastructure.event_store.dynamodb_client import LOG
from infrastructure.event_store.dynamodb_log import BODIES, COMMANDS, FORMAT, read_head
from infrastructure.read_models.sql_queries import SqlQueries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from infrastructure.event_store.dynamodb_client import Tables
    from infrastructure.event_store.dynamodb_mirror import Mirror


class DynamodbQueries(SqlQueries):
    def __init__(self, mirror: Mirror, tables: Tables, inert: str = "") -> None:
        super().__init__(mirror.store.connection, tables.name, FORMAT, inert)
        self._mirror = mirror
        self._tables = tables

    def close(self) -> None:
        self._mirror.close()

    def again(self) -> None:
        """End this look and begin a new one, of what the log has by now."""
        self._rows("COMMIT")
        self._mirror.follow(read_head(self._tables))
        self._connection = self._mirror.store.connection
        self.begin()

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

    def facts(self) -> dict[str, Any]:
        """As of SqlQueries; `waiting` are read rows of the last commit that are not written yet,
        which HostFactory's answers lack so long."""
        head = read_head(self._tables)
        facts = super().facts()
        facts["waiting"] = head.pending["rows"] if head.pending else 0
        return facts
