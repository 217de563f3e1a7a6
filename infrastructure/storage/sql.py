"""The SQLite file of `storage/sqlite.py` through SQLAlchemy: `storage.strategy` sql without a url.

Schema, queue and transactions are the same, so that a site may change between the two at any time.
"""

from __future__ import annotations

from infrastructure.storage.sqlite import SqliteStorage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.ports import Clock
    from infrastructure.event_store.sqlite import SqliteEventStore
    from infrastructure.read_models.sql import SqlReadModel
    from infrastructure.site import Site


class SqlalchemyStorage(SqliteStorage):
    """HostFactory's calls are those of `sqlite`; what is opened for writing has SQLAlchemy's pool
    and keeps answers."""

    scheme = "sql"

    def __init__(self, site: Site, settings: dict[str, Any]) -> None:
        super().__init__(site, settings)
        self._sql = settings["sql_strategy"]
        self._pool: Any = None

    def for_command(
        self, clock: Clock, actor: dict[str, str]
    ) -> tuple[SqliteEventStore, SqlReadModel]:
        """As `sqlite`: a HostFactory call is a new process. Raises StoreError."""
        from infrastructure.read_models.sql import SqlReadModel

        store = super().event_store(clock, actor)
        return store, SqlReadModel(store.connection)

    def event_store(self, clock: Clock, actor: dict[str, str]) -> SqliteEventStore:
        """The store, open for writing, with a connection of the pool's until it is closed. Raises
        StoreError."""
        from infrastructure.event_store.pool import Cache, Pool
        from infrastructure.event_store.sqlite_pooled import (
            PooledSqliteEventStore,
            connect_for_threads,
        )

        if self._pool is None:

            def connect() -> Any:
                return connect_for_threads(self.path, self.watch)

            self._pool = Pool(self.path, "sqlite", connect, self._sql)
        cache = Cache(self._sql["query_cache_size"]) if self._sql["enable_query_cache"] else None
        return PooledSqliteEventStore(self._pool, cache, self.path, clock, actor)
