"""The store of one machine as a person reads it: JSON lines, with a SQLite ledger that follows."""

from __future__ import annotations

import os

from application.failures import StoreError, StoreInert
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.storage.sqlite import SqliteStorage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.ports import Clock
    from infrastructure.event_store.json_lines import JsonEventStore
    from infrastructure.event_store.verification import RawLog
    from infrastructure.read_models.sql import SqlReadModel
    from infrastructure.read_models.sql_queries import SqlQueries
    from infrastructure.site import Site


class JsonStorage(SqliteStorage):
    """`path` is the directory."""

    scheme = "json"
    place_key = "storage.json_strategy.base_path"
    keeps_all = (
        "its log is only ever appended to: keep it compressed "
        "(storage.json_strategy.enable_compression), or move to another store "
        "(`hostledger store copy --seal`) and archive there"
    )

    def __init__(self, site: Site, settings: dict[str, Any]) -> None:
        self.site = site
        self._settings: dict[str, Any] = settings["json_strategy"]
        self.name = self.path = self._settings["base_path"] or site.state_dir + "/json"
        self.place = f"json:{self.path}"
        site.lay_out(self.path)

    # -- HostFactory ------------------------------------------------------------------------------

    def read_model(self) -> SqlReadModel:
        """One consistent look for a HostFactory read. Raises StoreError."""
        from infrastructure.event_store.json_log import first_inode
        from infrastructure.read_models.json_lines import JsonReadModel

        try:
            model = JsonReadModel(self.path, first_inode(self.path), self.watch)
            model.refuse_failed(self.name)
        except sqlite.DatabaseError as error:
            raise StoreError(f"{self.path}/ledger.db: {error}") from None
        return model

    # -- worker and operator ----------------------------------------------------------------------

    def event_store(self, clock: Clock, actor: dict[str, str]) -> JsonEventStore:
        """The store, open for writing. Raises StoreError."""
        from infrastructure.event_store.json_lines import JsonEventStore

        return JsonEventStore(self.path, clock, actor, self._settings, watch=self.watch)

    def queries(self) -> SqlQueries:
        """One consistent look for an operator, at whole read models. Raises StoreError."""
        self._catch_up()
        return super().queries()

    def log(self) -> SqlQueries:
        """The same where a read model may have failed: for the log. Raises StoreError."""
        self._catch_up()
        from infrastructure.event_store.json_log import first_inode
        from infrastructure.read_models.json_lines import JsonReadModel

        return self._view(JsonReadModel(self.path, first_inode(self.path), self.watch).connection)

    def _catch_up(self) -> None:
        """Let the ledger follow the log. An operator without the right to write sees what it has
        until then."""
        if not os.access(self.path, os.W_OK):
            return
        from infrastructure.clock import SystemClock

        self.event_store(SystemClock(), self.site.actor("operator")).close()

    def any_store(self) -> SqlQueries:
        """The same for a store that may be inert. Raises StoreError."""
        try:
            return self.log()
        except StoreInert as inert:
            from infrastructure.clock import SystemClock
            from infrastructure.event_store.json_setup import in_memory

            view = self._view(in_memory(self.path, SystemClock()), str(inert))
            view.begin()
            return view

    def raw_log(self) -> RawLog:
        """The lines, for whoever trusts nothing of them; also those of an inert store. Raises
        StoreError."""
        from infrastructure.event_store.json_verification import JsonRawLog

        return JsonRawLog(self.path)

    def _view(self, connection: Any, inert: str = "") -> SqlQueries:
        from infrastructure.event_store.json_lines import torn_ends

        view = super()._view(connection, inert)
        view.reports = torn_ends(self.path)
        return view

    def shared(self) -> tuple[list[str], list[str]]:
        """The directories and files of which `storage.group` may read; not the bodies."""
        names = [
            name
            for name in (os.listdir(self.path) if os.path.isdir(self.path) else ())
            if name.startswith(("log", "ledger.db", "store.json"))
        ]
        return [os.path.dirname(self.path), self.path], [f"{self.path}/{name}" for name in names]

    # -- making and moving ------------------------------------------------------------------------

    def check(self) -> None:
        """Find out at a worker's start what would fail later; a damaged ledger is made again.
        Raises StoreError."""
        from infrastructure.clock import SystemClock
        from infrastructure.event_store.json_setup import KEY
        from infrastructure.event_store.sqlite_setup import refuse_network_file_system

        refuse_network_file_system(self.path + "/log.jsonl", key=KEY)
        store = self.event_store(SystemClock(), self.site.actor("worker"))
        try:
            store.mend()
        finally:
            store.close()

    def create(self, clock: Clock, actor: dict[str, str], program_version: str) -> str:
        """Make the store; its deployment id. Raises StoreError."""
        from infrastructure.event_store.json_setup import create_json_store

        return create_json_store(self.path, clock, actor, self._settings, program_version)

    def activate(self, clock: Clock, actor: dict[str, str], reason: str) -> int:
        """Make a copied store the living one; its new incarnation. Raises StoreError."""
        from infrastructure.event_store.json_setup import activate_json_store

        return activate_json_store(self.path, clock, actor, self._settings, reason)

    def begin_copy(self, deployment: str, clock: Clock, actor: dict[str, str]) -> JsonEventStore:
        """The store that takes over another one's log, made when it is not there. It is inert.
        Raises StoreError when there is one of another deployment, or one that lives."""
        from infrastructure.event_store.json_setup import begin_copy

        return begin_copy(self.path, clock, actor, self._settings, deployment)

    def seal(self, clock: Clock, actor: dict[str, str], destination: str, reason: str) -> None:
        """End this store: its history goes on at `destination` (a `place`). Raises StoreError."""
        from contextlib import closing

        from infrastructure.event_store.json_lines import JsonEventStore

        with closing(
            JsonEventStore(self.path, clock, actor, self._settings, although_moved=True)
        ) as store:
            store.seal(destination, reason)

    def backup(self, path: str) -> None:
        """An inert copy of the whole log in a new SQLite file, while it goes on. Raises
        StoreError."""
        from infrastructure.storage.sqlite import save_copy

        save_copy(self.source(), self.site, path)

    def compact(self) -> list[str]:
        """Give unused room of the ledger back; what was done. Raises StoreError."""
        from contextlib import closing

        from infrastructure.clock import SystemClock

        with closing(self.event_store(SystemClock(), self.site.actor("operator"))) as store:
            return store.compact()

    def migrate(self) -> tuple[int, int]:
        """The ledger's schema before and now: it was brought up to date. Raises StoreError."""
        from infrastructure.clock import SystemClock
        from infrastructure.event_store.sqlite_file import SCHEMA_VERSION, uri

        try:
            connection = sqlite.connect(
                uri(self.path + "/ledger.db", "mode=ro"), isolation_level=None, uri=True
            )
            (before,) = connection.execute("PRAGMA user_version").fetchone()
            connection.close()
        except sqlite.DatabaseError:
            before = 0  # it is made anew
        self.event_store(SystemClock(), self.site.actor("operator")).close()
        return before, SCHEMA_VERSION

    def rehearse(self, directory: str) -> str:
        """The path of a living copy as a SQLite store in `directory`, to be thrown away. Nothing is
        written to this one. Raises StoreError."""
        from infrastructure.clock import SystemClock
        from infrastructure.event_store.json_setup import copy_log_to_rehearse

        return copy_log_to_rehearse(self.path, SystemClock(), directory)
