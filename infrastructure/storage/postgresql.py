"""The store of several machines: a PostgreSQL database.

HostFactory's calls and an operator's questions have one connection of the driver's; what is opened
for writing beside them (worker, server, commands) has SQLAlchemy's pool.
"""

from __future__ import annotations

from application.failures import StoreError
from infrastructure.event_store.postgresql_driver import (
    SCHEMA_VERSION,
    Connection,
    Session,
    connect,
    name_of,
    open_for_reading,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant
    from application.ports import Clock
    from infrastructure.event_store.notebook import SqlNotebook
    from infrastructure.event_store.postgresql import PostgresqlEventStore
    from infrastructure.event_store.postgresql_lease import PostgresqlLease
    from infrastructure.event_store.postgresql_sightings import PostgresqlSightings
    from infrastructure.event_store.verification import RawLog
    from infrastructure.read_models.postgresql import PostgresqlReadModel
    from infrastructure.read_models.postgresql_queries import PostgresqlQueries
    from infrastructure.read_models.sql_work import SqlWork
    from infrastructure.site import Site
    from infrastructure.telemetry.slow_statements import SlowStatements


def _migrate(session: Session) -> None:
    from infrastructure.event_store.postgresql_setup import migrate

    migrate(session)


class PostgresqlStorage:
    """`name` is the url without a password."""

    scheme = "postgresql"
    quick_reads = False
    place_key = "storage.sql_strategy.url"
    keeps_all = ""
    watch: SlowStatements | None = None

    def __init__(self, site: Site, settings: dict[str, Any]) -> None:
        self.site = site
        self._settings = settings["sql_strategy"]
        self._url: str = self._settings["url"]
        self.name = self.place = name_of(self._url)

    def is_at(self, place: str) -> bool:
        """Whether this is the store that somebody calls so."""
        return name_of(place) == self.name

    # -- HostFactory ------------------------------------------------------------------------------

    def read_model(self) -> PostgresqlReadModel:
        """One consistent look for a HostFactory read. Raises StoreError."""
        from infrastructure.read_models.postgresql import PostgresqlReadModel

        model = PostgresqlReadModel(self._look())
        model.refuse_failed(self.name)
        return model

    def _look(self) -> Session:
        return open_for_reading(self.name, Connection(self._url), _migrate, self.watch)

    def for_command(
        self, clock: Clock, actor: dict[str, str]
    ) -> tuple[PostgresqlEventStore, PostgresqlReadModel]:
        """The store, open for a HostFactory command, and its read models. Raises StoreError."""
        from infrastructure.event_store.postgresql import PostgresqlEventStore
        from infrastructure.read_models.postgresql import PostgresqlReadModel

        session = Session(self.name, Connection(self._url), watch=self.watch)
        store = PostgresqlEventStore(session, clock, actor, _migrate)
        return store, PostgresqlReadModel(session)

    def note(self, now: Instant, facts: dict[str, object], model: Any) -> None:
        """Leave for the worker what a HostFactory call named (`postgresql_sightings.py`)."""
        from infrastructure.event_store.postgresql_sightings import note

        note(model.connection, now, facts)

    # -- worker and operator ----------------------------------------------------------------------

    def event_store(self, clock: Clock, actor: dict[str, str]) -> PostgresqlEventStore:
        """The store, open for writing, over a pool. Raises StoreError."""
        from infrastructure.event_store.pool import Cache, Pool
        from infrastructure.event_store.postgresql import PostgresqlEventStore

        pool = Pool(self.name, "postgresql", lambda: connect(self._url), self._settings)
        kept = self._settings["enable_query_cache"]
        cache = Cache(self._settings["query_cache_size"]) if kept else None
        session = Session(self.name, pool, cache, self.watch)
        return PostgresqlEventStore(session, clock, actor, _migrate)

    def queries(self) -> PostgresqlQueries:
        """One consistent look for an operator, at whole read models. Raises StoreError."""
        return self._view(self.read_model().connection)

    def log(self) -> PostgresqlQueries:
        """The same where a read model may have failed: for the log. Raises StoreError."""
        return self._view(self._look())

    def any_store(self) -> PostgresqlQueries:
        """The same for a store that may be inert. Raises StoreError."""
        from application.failures import StoreInert

        try:
            return self.log()
        except StoreInert as inert:
            session = Session(self.name, Connection(self._url), watch=self.watch)
            view = self._view(session, str(inert))
            view.begin()
            return view

    def raw_log(self) -> RawLog:
        """The log for whoever trusts nothing of it; also that of an inert store. Raises
        StoreError."""
        from infrastructure.event_store.verification import SqlRawLog

        view = self.any_store()
        return SqlRawLog(view, self.name, (view.issued(), ""))

    def view_of(self, store: PostgresqlEventStore) -> PostgresqlQueries:
        """An operator's questions, asked of a store that is open for writing."""
        return self._view(store.connection)

    def _view(self, connection: Any, inert: str = "") -> PostgresqlQueries:
        from infrastructure.read_models.postgresql_queries import PostgresqlQueries

        return PostgresqlQueries(connection, self.name, SCHEMA_VERSION, inert)

    def work(self, store: PostgresqlEventStore, account: str, region: str) -> SqlWork:
        from infrastructure.read_models.sql_work import SqlWork

        return SqlWork(store, account, region)

    def notebook(self, store: PostgresqlEventStore, account: str, region: str) -> SqlNotebook:
        from infrastructure.event_store.notebook import SqlNotebook

        return SqlNotebook(store, account, region)

    def lease(
        self,
        store: PostgresqlEventStore,
        account: str,
        owner: str,
        program_version: str,
        clock: Clock,
        lease_time: float,
        lock_path: str,
    ) -> PostgresqlLease:
        """The lease of `account` ("account/region"), not taken yet. A lock on this machine would
        tell the others nothing."""
        from infrastructure.event_store.postgresql_lease import PostgresqlLease

        return PostgresqlLease(store, account, owner, program_version, clock, lease_time)

    def sightings(self, store: PostgresqlEventStore) -> PostgresqlSightings:
        from infrastructure.event_store.postgresql_sightings import PostgresqlSightings

        return PostgresqlSightings(store)

    def shared(self) -> tuple[list[str], list[str]]:
        """No files: who may read is said where the store is."""
        return [], []

    # -- making and moving ------------------------------------------------------------------------

    def check(self) -> None:
        """Find out at a worker's start what would fail later. Raises StoreError."""
        self._look().close()

    def create(self, clock: Clock, actor: dict[str, str], program_version: str) -> str:
        """Make the store; its deployment id. Raises StoreError."""
        from infrastructure.event_store.postgresql_setup import create_store

        session = Session(self.name, Connection(self._url))
        return create_store(session, clock, actor, program_version)

    def activate(self, clock: Clock, actor: dict[str, str], reason: str) -> int:
        """Make a copied store the living one; its new incarnation. Raises StoreError."""
        from infrastructure.event_store.postgresql_setup import activate_store

        session = Session(self.name, Connection(self._url))
        return activate_store(session, clock, actor, reason)

    def source(self) -> PostgresqlQueries:
        """A look for a copy, also at a store that is inert or was moved. Raises StoreError."""
        return self.any_store()

    def begin_copy(
        self, deployment: str, clock: Clock, actor: dict[str, str]
    ) -> PostgresqlEventStore:
        """The store that takes over another one's log, made when it is not there. It is inert.
        Raises StoreError when there is one of another deployment, or one that lives."""
        from infrastructure.event_store.postgresql_setup import begin_copy

        return begin_copy(Session(self.name, Connection(self._url)), deployment, clock, actor)

    def seal(self, clock: Clock, actor: dict[str, str], destination: str, reason: str) -> None:
        """End this store: its history goes on at `destination` (a `place`). Raises StoreError."""
        from contextlib import closing

        from infrastructure.event_store.postgresql import PostgresqlEventStore

        session = Session(self.name, Connection(self._url))
        with closing(PostgresqlEventStore(session, clock, actor, _migrate, inert=True)) as store:
            store.seal(destination, reason)

    def backup(self, path: str) -> None:
        """An inert copy of the whole store in a new SQLite file, while it goes on. Raises
        StoreError."""
        import os
        from contextlib import closing

        from infrastructure.event_store.postgresql_setup import copy_to_file

        if os.path.exists(path):
            raise StoreError(f"{path} exists: a backup is never written over")
        with closing(Session(self.name, Connection(self._url))) as session:
            session.execute("BEGIN")
            copy_to_file(session, path, 0)

    def compact(self) -> list[str]:
        """Give unused room back, count statistics anew; what was done. Raises StoreError."""
        from contextlib import closing

        from infrastructure.event_store.postgresql_setup import compact

        with closing(Session(self.name, Connection(self._url))) as session:
            return compact(session)

    def migrate(self) -> tuple[int, int]:
        """The schema's number before and now: it was brought up to date. Raises StoreError."""
        from contextlib import closing

        with closing(Session(self.name, Connection(self._url))) as session:
            row = session.run("SELECT version FROM schema_version").fetchone()
        self._look().close()
        return row[0] if row else 0, SCHEMA_VERSION

    def rehearse(self, directory: str) -> str:
        """The path of a living copy as a SQLite store in `directory`, to be thrown away. Nothing is
        written to this one. Raises StoreError."""
        from infrastructure.event_store.postgresql_setup import copy_to_rehearse

        session = self._look()
        try:
            return copy_to_rehearse(session, directory)
        finally:
            session.close()
