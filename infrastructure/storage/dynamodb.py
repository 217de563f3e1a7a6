"""The store of several machines in DynamoDB tables.

Tests put DynamoDB's stand-in in `infrastructure.event_store.dynamodb_http.in_process`, or at an
`endpoint_url`.
"""

from __future__ import annotations

from application.failures import StoreError, StoreInert
from infrastructure.event_store.dynamodb_client import LOG, Tables, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant
    from application.ports import Clock
    from infrastructure.event_store.dynamodb import DynamodbCopy, DynamodbEventStore
    from infrastructure.event_store.dynamodb_lease import DynamodbLease
    from infrastructure.event_store.dynamodb_notebook import DynamodbNotebook
    from infrastructure.event_store.dynamodb_sightings import DynamodbSightings
    from infrastructure.event_store.verification import RawLog
    from infrastructure.read_models.dynamodb import DynamodbReadModel
    from infrastructure.read_models.dynamodb_queries import DynamodbQueries
    from infrastructure.read_models.sql_work import SqlWork
    from infrastructure.site import Site
    from infrastructure.telemetry.slow_statements import SlowStatements


class DynamodbStorage:
    """The methods of `SqliteStorage`. `warnings` is what `create` tells of its settings."""

    scheme = "dynamodb"
    quick_reads = False
    place_key = "storage.dynamodb_strategy.table_prefix"
    watch: SlowStatements | None = None
    """Told of nothing: there are no statements."""
    keeps_all = (
        "a part of a bucket of its log cannot be taken out: keep a copy with `hostledger audit "
        "export`, or move to another store (`hostledger store copy --seal`) and archive there"
    )

    def __init__(self, site: Site, settings: dict[str, Any]) -> None:
        self.site = site
        self.warnings: list[str] = []
        self._section = settings["storage"]["dynamodb_strategy"]
        self._place = place_of(settings)
        self._known: Tables | None = None
        self.name = self.place = self._tables().name
        self._directory = site.state_dir

    def _tables(self, clock: Clock | None = None) -> Tables:
        """One client for all that is opened: to make one costs more than a call."""
        if self._known is None:
            from infrastructure.clock import SystemClock

            self._known = Tables(self._place, clock or SystemClock())
        if clock is not None:
            self._known.clock = clock
        return self._known

    def is_at(self, place: str) -> bool:
        """Whether this is the store that somebody calls so."""
        return place == self.name or place == self.name.partition("?")[0]

    # -- HostFactory ------------------------------------------------------------------------------

    def read_model(self) -> DynamodbReadModel:
        """One look for a HostFactory read. Raises StoreError."""
        from infrastructure.read_models.dynamodb import DynamodbReadModel

        model = DynamodbReadModel(self._tables(), self._directory)
        model.refuse_failed(self.name)
        return model

    def for_command(
        self, clock: Clock, actor: dict[str, str]
    ) -> tuple[DynamodbEventStore, DynamodbReadModel]:
        """The store, open for a HostFactory command, and its read models. Raises StoreError."""
        from infrastructure.event_store.dynamodb import DynamodbEventStore
        from infrastructure.read_models.dynamodb import DynamodbReadModel

        tables = self._tables(clock)
        store = DynamodbEventStore(tables, self._directory, clock, actor, suffixes=(LOG,))
        return store, DynamodbReadModel(tables, self._directory, store)

    def note(self, now: Instant, facts: dict[str, object], model: Any) -> None:
        """Leave for the worker what a HostFactory call named. What cannot be left now is named
        again by a later call."""
        from infrastructure.event_store.dynamodb_sightings import note

        try:
            note(self._tables(), now, facts)
        except StoreError:
            return

    # -- worker and operator ----------------------------------------------------------------------

    def event_store(self, clock: Clock, actor: dict[str, str]) -> DynamodbEventStore:
        """The store, open for writing. Raises StoreError."""
        import os

        from infrastructure.event_store.dynamodb import DynamodbEventStore

        # A machine that has taken over has none yet.
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        return DynamodbEventStore(self._tables(clock), self._directory, clock, actor)

    def queries(self) -> DynamodbQueries:
        """One consistent look for an operator, at whole read models. Raises StoreError."""
        view = self.log()
        try:
            self.read_model()
        except StoreError:
            view.close()
            raise
        return view

    def log(self) -> DynamodbQueries:
        """The same where a read model may have failed: for the log. Raises StoreError."""
        from infrastructure.event_store.dynamodb_log import read_head, refuse_inert

        tables = self._tables()
        refuse_inert(tables, read_head(tables))
        return self._look("")

    def any_store(self) -> DynamodbQueries:
        """The same for a store that may be inert. Raises StoreError."""
        try:
            return self.log()
        except StoreInert as inert:
            return self._look(str(inert))

    source = any_store

    def _look(self, inert: str) -> DynamodbQueries:
        """Through the mirror, which has followed the log up to now."""
        from infrastructure.event_store.dynamodb_log import read_head
        from infrastructure.event_store.dynamodb_mirror import Mirror
        from infrastructure.read_models.dynamodb_queries import DynamodbQueries

        tables = self._tables()
        head = read_head(tables)
        mirror = Mirror(tables, self._directory, tables.clock, head)
        mirror.follow(head)
        mirror.note()
        view = DynamodbQueries(mirror, tables, inert)
        view.begin()
        return view

    def raw_log(self) -> RawLog:
        """The items, for whoever trusts nothing of them; also those of an inert store. Raises
        StoreError."""
        from infrastructure.event_store.dynamodb_log import read_head
        from infrastructure.event_store.dynamodb_mirror import mirror_path
        from infrastructure.event_store.dynamodb_verification import DynamodbRawLog
        from infrastructure.event_store.verification import derived_at

        tables = self._tables()
        path = mirror_path(tables, self._directory, read_head(tables))
        return DynamodbRawLog(tables, derived_at(path))

    def view_of(self, store: DynamodbEventStore) -> DynamodbQueries:
        """An operator's questions, asked of a store that is open for writing."""
        from infrastructure.read_models.dynamodb_queries import DynamodbQueries

        return DynamodbQueries(store.mirror(), store.tables)

    def work(self, store: DynamodbEventStore, account: str, region: str) -> SqlWork:
        from infrastructure.read_models.dynamodb_work import DynamodbWork

        return DynamodbWork(store, account, region)

    def notebook(self, store: DynamodbEventStore, account: str, region: str) -> DynamodbNotebook:
        from infrastructure.event_store.dynamodb_notebook import DynamodbNotebook

        return DynamodbNotebook(store, account, region)

    def lease(
        self,
        store: DynamodbEventStore,
        account: str,
        owner: str,
        program_version: str,
        clock: Clock,
        lease_time: float,
        lock_path: str,
    ) -> DynamodbLease:
        """The lease of `account` ("account/region"), not taken yet; `lock_path` is a file of this
        machine's that goes with it."""
        from infrastructure.event_store.dynamodb_lease import DynamodbLease

        return DynamodbLease(store, account, owner, program_version, clock, lease_time, lock_path)

    def sightings(self, store: DynamodbEventStore) -> DynamodbSightings:
        from infrastructure.event_store.dynamodb_sightings import DynamodbSightings

        return DynamodbSightings(store.tables, store.tables.clock)

    def shared(self) -> tuple[list[str], list[str]]:
        """No files: who may read is said where the store is."""
        return [], []

    # -- making and moving ------------------------------------------------------------------------

    def check(self) -> None:
        """Find out at a worker's start what would fail later. Raises StoreError."""
        from infrastructure.event_store.dynamodb_client import TABLES
        from infrastructure.event_store.dynamodb_log import read_head, refuse_inert

        tables = self._tables()
        refuse_inert(tables, read_head(tables), TABLES)

    def create(self, clock: Clock, actor: dict[str, str], program_version: str) -> str:
        """Make the store; its deployment id. Raises StoreError."""
        from infrastructure.event_store.dynamodb_setup import create_store

        deployment, self.warnings = create_store(
            self._tables(clock), self._section, self._directory, clock, actor, program_version
        )
        return deployment

    def activate(self, clock: Clock, actor: dict[str, str], reason: str) -> int:
        """Make a copied or restored store the living one; its new incarnation. Raises
        StoreError."""
        from infrastructure.event_store.dynamodb_setup import activate_store

        return activate_store(
            self._tables(clock), self._section, self._directory, clock, actor, reason
        )

    def begin_copy(self, deployment: str, clock: Clock, actor: dict[str, str]) -> DynamodbCopy:
        """The store that takes over another one's log, made when it is not there. It is inert.
        Raises StoreError when there is one of another deployment, or one that lives."""
        from infrastructure.event_store.dynamodb_setup import begin_copy

        return begin_copy(
            self._tables(clock), self._section, self._directory, deployment, clock, actor
        )

    def seal(self, clock: Clock, actor: dict[str, str], destination: str, reason: str) -> None:
        """End this store: its history goes on at `destination` (a `place`). Raises StoreError."""
        from infrastructure.event_store.dynamodb import DynamodbEventStore

        store = DynamodbEventStore(self._tables(clock), self._directory, clock, actor, inert=True)
        store.seal(destination, reason)
        store.close()

    def backup(self, path: str) -> None:
        """An inert copy of the whole store in a new SQLite file. Raises StoreError."""
        import os
        from contextlib import closing

        from application.copy_store import copy_store
        from infrastructure.event_store.sqlite_setup import begin_copy

        if os.path.exists(path):
            raise StoreError(f"{path} cannot be made: it exists")
        with closing(self.source()) as view:
            deployment, _, _ = view.identity()
            clock = self._tables().clock
            with closing(begin_copy(path, deployment, clock, {})) as into:
                copy_store(view, into)

    def _mirror_path(self) -> str:
        from infrastructure.event_store.dynamodb_log import read_head
        from infrastructure.event_store.dynamodb_mirror import Mirror

        tables = self._tables()
        mirror = Mirror(tables, self._directory, tables.clock, read_head(tables))
        mirror.close()
        return mirror.path

    def compact(self) -> list[str]:
        """The mirror alone has room to give back. Raises StoreError."""
        from infrastructure.event_store.sqlite_setup import compact

        return [
            "DynamoDB's tables need none of it; this machine's mirror:",
            *compact(self._mirror_path()),
        ]

    def migrate(self) -> tuple[int, int]:
        """The format's number before and now: there has been one. Raises StoreError."""
        from infrastructure.event_store.dynamodb_log import FORMAT, read_head

        return read_head(self._tables()).facts["format"], FORMAT

    def rehearse(self, directory: str) -> str:
        """The path of a living copy as a SQLite store in `directory`, to be thrown away. Nothing is
        written to this one. Raises StoreError."""
        from contextlib import closing

        from infrastructure.event_store.sqlite_driver import sqlite
        from infrastructure.event_store.sqlite_setup import copy_to_rehearse

        with closing(self.queries()) as view:
            bodies = view.bodies()
        copy = copy_to_rehearse(self._mirror_path(), directory)
        with closing(sqlite.connect(copy, isolation_level=None)) as connection:
            for body in bodies:
                connection.execute("INSERT OR REPLACE INTO bodies VALUES (?, ?)", body)
        return copy
