"""The SQLite event store over SQLAlchemy's pool, for worker, server and an operator's commands."""

from __future__ import annotations

from typing import Any

from application.ports import Clock
from infrastructure.event_store.pool import Cache, Pool
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import connect
from infrastructure.telemetry.slow_statements import SlowStatements


def connect_for_threads(path: str, watch: SlowStatements | None) -> Any:
    """A connection that another thread may take over. `watch` is told of what takes long."""
    return connect(path, "mode=rw", watch, check_same_thread=False)


class PooledSqliteEventStore(SqliteEventStore):
    """The store, with one connection of the pool's until it is closed."""

    def __init__(
        self, pool: Pool, cache: Cache | None, path: str, clock: Clock, actor: dict[str, str]
    ) -> None:
        self._pool = pool
        self._cache = cache
        super().__init__(path, clock, actor)

    def _connect(self) -> Any:
        return Kept(self._pool.take(), self._cache)

    def _disconnect(self) -> None:
        self._pool.give_back(self.connection.connection, False)
        self.connection = None

    @property
    def query_cache_hits(self) -> int:
        """Questions that were answered without asking again."""
        return self._cache.hits if self._cache is not None else 0


class Kept:
    """A connection with the answers to what was asked outside of transactions since the last write
    of anybody's."""

    def __init__(self, connection: Any, cache: Cache | None) -> None:
        self.connection = connection
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        connection = self.connection
        if (
            self._cache is None
            or connection.in_transaction
            or not statement.lstrip().startswith("SELECT")
        ):
            return connection.execute(statement, parameters)
        (others,) = connection.execute("PRAGMA data_version").fetchone()
        state = (others, connection.total_changes)
        key = (statement, *parameters)
        kept = self._cache.get(state, key)
        if kept is None:
            cursor = connection.execute(statement, parameters)
            kept = (cursor.description, cursor.fetchall())
            self._cache.put(state, key, kept)
        return Answer(*kept)


class Answer:
    """What a statement gave, all of it."""

    rowcount = -1

    def __init__(self, description: Any, rows: list[tuple[Any, ...]]) -> None:
        self.description = description
        self._rows = iter(rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)

    def __iter__(self) -> Any:
        return self._rows
