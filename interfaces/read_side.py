"""Composition root of the reads, and of HostFactory's writes: no container, nothing not used.

What a call needs is made when it asks for it, so that a read imports its store's driver and no
more.
"""

from __future__ import annotations

import os

from application.failures import NotConfigured
from application.instants import seconds_between
from infrastructure import compiled, worker_start
from infrastructure.clock import SystemClock
from infrastructure.site import Site, site_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from infrastructure.event_store.sqlite import SqliteEventStore
    from infrastructure.read_models.sqlite import SqliteReadModel
    from infrastructure.telemetry.journal import Journal


JUST_NOW = 5.0
"""Seconds in which a living worker has said so at least twice."""


class Call:
    """One HostFactory call: its site, configuration, clock, and the store once it is opened."""

    def __init__(
        self, verb: str, environ: Mapping[str, str], python: str, site: Site | None = None
    ):
        self.verb = verb
        self.environ = environ
        self.python = python
        self.site = site or site_from(environ)
        self.clock = SystemClock()
        self.now = self.clock.now()
        self.compiled = compiled.load(self.site, environ)
        self.settings = self.compiled.settings
        self.mode: str = self.settings["worker"]["mode"]

    @property
    def ledger_path(self) -> str:
        return self.site.ledger(self.settings)

    def read_model(self) -> SqliteReadModel:
        """Raises StoreError."""
        from infrastructure.read_models.sqlite import SqliteReadModel

        return SqliteReadModel.look(self.ledger_path)

    def ledger(self) -> tuple[SqliteEventStore, SqliteReadModel]:
        """The store, open for a command, and its read models. Raises StoreError."""
        from infrastructure.event_store.sqlite import SqliteEventStore
        from infrastructure.read_models.sqlite import SqliteReadModel

        store = SqliteEventStore(self.ledger_path, self.clock, self.actor())
        return store, SqliteReadModel(store.connection)

    def actor(self) -> dict[str, str]:
        return actor(self.site.provider, self.verb)

    def journal(self) -> Journal:
        from infrastructure.telemetry.journal import Journal

        return Journal(self.site.log_file, self.settings["logging"])

    def note(self, facts: dict[str, object]) -> None:
        """Append one line to the sightings; see `sightings.py`."""
        from infrastructure.sightings import note

        note(self.site.sightings, self.now, facts)

    def worker_lives(self) -> bool:
        """Whether a worker has said so just now."""
        facts = worker_start.status(self.site)
        ago = worker_start.lived_ago(facts, self.now)
        return ago is not None and ago < JUST_NOW and not facts.get("ended")

    def look_after(self, model: SqliteReadModel | None, *, wanted: bool = False) -> str:
        """Start a worker when something is open or alive and none lives; what to tell about it.

        `wanted`: there is work beyond what is open or alive. Returns the sentence for the answer's
        message, "" when all is well.
        """
        if self.worker_lives():
            return ""
        if not wanted and (model is None or not model.anything_open_or_alive()):
            return ""
        if self.mode == "auto":
            worker_start.start(self.site, self.python, self.environ, self.now)
        if self.mode == "inline":
            return ""
        facts = worker_start.status(self.site)
        missed = worker_start.lived_ago(facts, self.now)
        if missed is None:
            oldest = model.oldest_open() if model is not None else None
            missed = (
                seconds_between((self.now[0], oldest[0], oldest[1]), self.now) if oldest else 0.0
            )
        if missed < worker_start.MISSED_AFTER:
            return ""
        why = facts.get("reason") or (
            "worker.mode is external: is its service running?"
            if self.mode == "external"
            else "it is being started"
        )
        return f"no worker has lived for {missed:.0f} s: {why}"


def actor(provider: str, process: str) -> dict[str, str]:
    """Who acts, for the ledger: OS user, provider instance, process."""
    uid = os.geteuid()
    try:
        import pwd

        user = pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        user = str(uid)
    return {"user": user, "provider": provider, "process": f"{process}[{os.getpid()}]"}


def log_defect(verb: str, trace: str) -> str:
    """Write a trace to the log, with settings that need no configuration; the log's path or ""."""
    from infrastructure.telemetry.journal import Journal

    try:
        log = site_from(os.environ).log_file
    except NotConfigured:
        return ""
    Journal(log, {"level": "ERROR", "max_file_size": 10, "max_rotate": 5}).error(
        "defect", verb=verb, trace=trace
    )
    return log
