"""HostFactory's reads beside a log of JSON lines, whatever became of the ledger that follows it."""

from __future__ import annotations

import os

from application.failures import StoreElsewhere, StoreError, StoreInert
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.event_store.sqlite_file import open_for_reading, refuse_older_copy
from infrastructure.read_models.sql import SqlReadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from infrastructure.telemetry.slow_statements import SlowStatements


class JsonReadModel(SqlReadModel):
    """Answers from the ledger; where it is missing or damaged, as from an empty one. What the
    ledger lacks and the log has is in the log, and there is something for a worker to do."""

    def __init__(self, base: str, inode: int, watch: SlowStatements | None = None) -> None:
        """`inode` is that of the log, `watch` is told of statements that take long. Raises
        StoreError."""
        self._base = base
        self._watch = watch
        self._inode = inode
        self._end = (1, 0)
        self.is_missing = False
        super().__init__(self._open())

    def _open(self) -> Any:
        """A connection with a look begun."""
        path = self._base + "/ledger.db"
        connection = None
        try:
            if os.path.exists(path):
                connection = open_for_reading(path, self._base, self._inode, self._watch)
                connection.execute("BEGIN")
                self._end = connection.execute("SELECT segment, offset FROM log_end").fetchone()
                self.is_missing = False
        except StoreElsewhere:
            raise
        except StoreInert:
            from infrastructure.event_store.json_ledger import refuse_copy

            refuse_copy(self._base, self._inode)
            connection = None  # the ledger of another log
        except StoreError as error:
            if not isinstance(error.__context__, sqlite.DatabaseError) or isinstance(
                error.__context__, sqlite.OperationalError
            ):
                raise
            connection = None
        if connection is None:
            return self._empty()
        try:
            refuse_older_copy(connection, self._base + "/log")
        except StoreInert:
            if not self._is_behind(connection):
                raise
        return connection

    def _empty(self) -> Any:
        from infrastructure.clock import SystemClock
        from infrastructure.event_store.json_ledger import JsonLedger, refuse_copy

        identity = refuse_copy(self._base, self._inode)
        self.is_missing = True
        self._end = (1, 0)
        connection = sqlite.connect(":memory:", isolation_level=None)
        JsonLedger(self._base, connection, SystemClock()).build(identity.deployment, self._inode)
        connection.execute("BEGIN")
        return connection

    def _is_behind(self, connection: Any) -> bool:
        from infrastructure.event_store.json_log import has_grown

        return self.is_missing or has_grown(self._base, *self._end)

    def again(self) -> None:
        """End this look and begin a new one, at the ledger that is there by now."""
        self.connection.close()
        self.connection = self._open()

    def is_in_log(self, request_id: str) -> bool:
        """Whether the log itself has a request or return of this id, if need be beyond the
        ledger's end. Raises LogDamaged."""
        if super().is_in_log(request_id):
            return True
        if not self._is_behind(self.connection):
            return False
        from infrastructure.event_store.json_log import has_stream

        streams = ("request-" + request_id, "return-" + request_id)
        return has_stream(self._base, *self._end, streams)

    def anything_open_or_alive(self) -> bool:
        """Whether there is something for a worker to look after: a ledger that is behind, too."""
        return super().anything_open_or_alive() or self._is_behind(self.connection)
