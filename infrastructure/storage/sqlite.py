"""The store of one machine: a SQLite file, on the standard library's driver."""

from __future__ import annotations

import os

from application.failures import StoreError, StoreInert
from infrastructure.event_store.sqlite_driver import sqlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant
    from application.ports import Clock
    from infrastructure.event_store.lease import SqliteLease
    from infrastructure.event_store.notebook import SqlNotebook
    from infrastructure.event_store.sqlite import SqliteEventStore
    from infrastructure.event_store.verification import RawLog
    from infrastructure.read_models.sql import SqlReadModel
    from infrastructure.read_models.sql_queries import SqlQueries
    from infrastructure.read_models.sql_work import SqlWork
    from infrastructure.sightings import Sightings
    from infrastructure.site import Site
    from infrastructure.telemetry.slow_statements import SlowStatements


def save_copy(source: Any, site: Site, path: str) -> None:
    """Take a whole log over into a new SQLite file that is inert. `source` is a look, ended here.
    Raises StoreError."""
    from contextlib import closing
    from copy import copy

    from application.copy_store import copy_store
    from infrastructure.clock import SystemClock

    if os.path.exists(path):
        raise StoreError(f"{path} exists: a backup is never written over")
    target = SqliteStorage(copy(site), {"sqlite_strategy": {"path": path}})
    with closing(source) as view:
        deployment, *_ = view.identity()
        with closing(target.begin_copy(deployment, SystemClock(), {})) as store:
            copy_store(view, store)


class SqliteStorage:
    """`name` is what messages call the store, `place` what storage.url would say of it (without a
    password), `place_key` the setting that says where it is."""

    scheme = "sqlite"
    quick_reads = True
    """Whether a look at a few rows costs less than handing it to a thread."""
    place_key = "storage.sqlite_strategy.path"
    keeps_all = ""
    """Why nothing can be taken out of the store, and what to do; "" where it can."""
    watch: SlowStatements | None = None
    """Told of statements that take long, by what is opened from then on. HostFactory's calls have
    none: they do not time theirs."""

    def __init__(self, site: Site, settings: dict[str, Any]) -> None:
        self.site = site
        path = settings["sqlite_strategy"]["path"] or site.state_dir + "/ledger.db"
        self.name = self.path = path
        self.place = f"sqlite:{path}"
        # The instances that share a store share one worker and one sightings file.
        site.lay_out(os.path.dirname(path))

    def is_at(self, place: str) -> bool:
        """Whether this is the store that somebody calls so."""
        return os.path.realpath(self.path) == os.path.realpath(place)

    # -- HostFactory ------------------------------------------------------------------------------

    def read_model(self) -> SqlReadModel:
        """One consistent look for a HostFactory read. Raises StoreError."""
        from infrastructure.event_store.sqlite_file import open_for_reading
        from infrastructure.read_models.sql import SqlReadModel

        model = SqlReadModel(open_for_reading(self.path, watch=self.watch))
        try:
            model.connection.execute("BEGIN")
            model.refuse_failed(self.name)
        except sqlite.DatabaseError as error:
            raise StoreError(f"{self.path}: {error}") from None
        return model

    def for_command(
        self, clock: Clock, actor: dict[str, str]
    ) -> tuple[SqliteEventStore, SqlReadModel]:
        """The store, open for a HostFactory command, and its read models. Raises StoreError."""
        from infrastructure.read_models.sql import SqlReadModel

        store = self.event_store(clock, actor)
        return store, SqlReadModel(store.connection)

    def note(self, now: Instant, facts: dict[str, object], model: Any) -> None:
        """Leave for the worker what a HostFactory call named (`sightings.py`)."""
        from infrastructure.sightings import note

        note(self.site.sightings, now, facts)

    # -- worker and operator ----------------------------------------------------------------------

    def event_store(self, clock: Clock, actor: dict[str, str]) -> SqliteEventStore:
        """The store, open for writing. Raises StoreError."""
        from infrastructure.event_store.sqlite import SqliteEventStore

        return SqliteEventStore(self.path, clock, actor, watch=self.watch)

    def queries(self) -> SqlQueries:
        """One consistent look for an operator, at whole read models. Raises StoreError."""
        return self._view(self.read_model().connection)

    def log(self) -> SqlQueries:
        """The same where a read model may have failed: for the log. Raises StoreError."""
        from infrastructure.event_store.sqlite_file import open_for_reading

        view = self._view(open_for_reading(self.path, watch=self.watch))
        view.begin()
        return view

    def any_store(self) -> SqlQueries:
        """The same for a store that may be inert. Raises StoreError."""
        try:
            return self.log()
        except StoreInert as inert:
            from infrastructure.event_store.sqlite_file import connect

            view = self._view(connect(self.path, "mode=ro", self.watch), str(inert))
            view.begin()
            return view

    def raw_log(self) -> RawLog:
        """The log for whoever trusts nothing of it; also that of an inert store. Raises
        StoreError."""
        from infrastructure.event_store.verification import SqlRawLog, noted_beside

        noted = noted_beside(self.path + ".lock")
        return SqlRawLog(self.any_store(), self.name, noted)

    def view_of(self, store: SqliteEventStore) -> SqlQueries:
        """An operator's questions, asked of a store that is open for writing."""
        return self._view(store.connection)

    def _view(self, connection: Any, inert: str = "") -> SqlQueries:
        from infrastructure.event_store.sqlite_file import SCHEMA_VERSION
        from infrastructure.read_models.sql_queries import SqlQueries

        return SqlQueries(connection, self.name, SCHEMA_VERSION, inert)

    def work(self, store: SqliteEventStore, account: str, region: str) -> SqlWork:
        from infrastructure.read_models.sql_work import SqlWork

        return SqlWork(store, account, region)

    def notebook(self, store: SqliteEventStore, account: str, region: str) -> SqlNotebook:
        from infrastructure.event_store.notebook import SqlNotebook

        return SqlNotebook(store, account, region)

    def lease(
        self,
        store: SqliteEventStore,
        account: str,
        owner: str,
        program_version: str,
        clock: Clock,
        lease_time: float,
        lock_path: str,
    ) -> SqliteLease:
        """The lease of `account` ("account/region"), not taken yet; `lock_path` is a file of this
        machine's that goes with it."""
        from infrastructure.event_store.lease import SqliteLease

        return SqliteLease(store, account, owner, program_version, clock, lease_time, lock_path)

    def sightings(self, store: SqliteEventStore) -> Sightings:
        from infrastructure.sightings import Sightings

        return Sightings(self.site.sightings)

    def shared(self) -> tuple[list[str], list[str]]:
        """The directories and files of which `storage.group` may read."""
        path = self.path
        return [os.path.dirname(path)], [path, path + "-wal", path + "-shm", path + ".lock"]

    # -- making and moving ------------------------------------------------------------------------

    def check(self) -> None:
        """Find out at a worker's start what would fail later. Raises StoreError."""
        from infrastructure.event_store.sqlite_setup import refuse_network_file_system

        refuse_network_file_system(self.path)

    def create(self, clock: Clock, actor: dict[str, str], program_version: str) -> str:
        """Make the store; its deployment id. Raises StoreError."""
        from infrastructure.event_store.sqlite_setup import create_store

        return create_store(self.path, clock, actor, program_version)

    def activate(self, clock: Clock, actor: dict[str, str], reason: str) -> int:
        """Make a copied store the living one; its new incarnation. Raises StoreError."""
        from infrastructure.event_store.sqlite_setup import activate_store

        return activate_store(self.path, clock, actor, reason)

    def source(self) -> SqlQueries:
        """A look for a copy, also at a store that is inert or was moved. Raises StoreError."""
        return self.any_store()

    def begin_copy(self, deployment: str, clock: Clock, actor: dict[str, str]) -> SqliteEventStore:
        """The store that takes over another one's log, made when it is not there. It is inert.
        Raises StoreError when there is one of another deployment, or one that lives."""
        from infrastructure.event_store.sqlite_setup import begin_copy

        return begin_copy(self.path, deployment, clock, actor)

    def seal(self, clock: Clock, actor: dict[str, str], destination: str, reason: str) -> None:
        """End this store: its history goes on at `destination` (a `place`). Raises StoreError."""
        from contextlib import closing

        from infrastructure.event_store.sqlite import SqliteEventStore

        with closing(SqliteEventStore(self.path, clock, actor, inert=True)) as store:
            store.seal(destination, reason)

    def backup(self, path: str) -> None:
        """An inert copy of the whole store in a new SQLite file, while it is written to. Raises
        StoreError."""
        from infrastructure.event_store.sqlite_setup import backup

        backup(self.path, path)

    def compact(self) -> list[str]:
        """Give unused room back, count statistics anew; what was done. Raises StoreError."""
        from infrastructure.event_store.sqlite_setup import compact

        return compact(self.path)

    def migrate(self) -> tuple[int, int]:
        """The schema's number before and now: it was brought up to date. Raises StoreError."""
        from infrastructure.event_store.sqlite_setup import migrate

        return migrate(self.path)

    def rehearse(self, directory: str) -> str:
        """The path of a living copy as a SQLite store in `directory`, to be thrown away. Nothing is
        written to this one. Raises StoreError."""
        from infrastructure.event_store.sqlite_setup import copy_to_rehearse

        return copy_to_rehearse(self.path, directory)
