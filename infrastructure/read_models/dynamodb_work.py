"""What is open, asked of the mirror; user data of the table, since it is in no event."""

from __future__ import annotations

from infrastructure.event_store.dynamodb import DynamodbEventStore
from infrastructure.event_store.dynamodb_client import LOG
from infrastructure.event_store.dynamodb_log import BODIES
from infrastructure.read_models.sql_work import SqlWork


class DynamodbWork(SqlWork):
    """The port `Work`, for one account and region."""

    def __init__(self, store: DynamodbEventStore, account: str, region: str) -> None:
        super().__init__(store, account, region)  # type: ignore[arg-type]
        self._tables = store.tables

    def body(self, digest: str) -> bytes | None:
        item = self._tables.get(LOG, BODIES, digest)
        return bytes(item["body"]["B"]) if item else None
