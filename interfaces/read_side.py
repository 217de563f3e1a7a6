"""Composition root of the reads, and of HostFactory's writes: no container, nothing not used.

What a call needs is made when it asks for it, so that a read imports its store's driver and no
more.
"""

from __future__ import annotations

import os

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


class Call:
    """One HostFactory call: its site, configuration, clock, and the store once it is opened."""

    def __init__(self, verb: str, environ: Mapping[str, str], python: str, site: Site | None = None):
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

        return SqliteReadModel(self.ledger_path)

    def ledger(self) -> SqliteEventStore:
        """The store, open for a command. Raises StoreError."""
        from infrastructure.event_store.sqlite import SqliteEventStore

        return SqliteEventStore(self.ledger_path, self.clock, self.actor())

    def actor(self) -> dict[str, str]:
        return actor(self.site.provider, self.verb)

    def journal(self) -> Journal:
        from infrastructure.telemetry.journal import Journal

        return Journal(self.site.log_file, self.settings["logging"])

    def note(self, facts: dict[str, object]) -> None:
        """Append one line to the sightings; see `sightings.py`."""
        from infrastructure.sightings import note

        note(self.site.sightings, self.now, facts)

    def look_after(self, model: SqliteReadModel | None, *, wanted: bool = False) -> str:
        """Start a worker when something is open or alive and none lives; what to tell about it.

        `wanted`: there is work beyond what is open or alive. Returns the sentence for the answer's
        message, "" when all is well.
        """
        facts = worker_start.status(self.site)
        ago = worker_start.lived_ago(facts, self.now)
        if ago is not None and ago < 5.0 and not facts.get("ended"):
            return ""
        if not wanted and (model is None or not model.anything_open_or_alive()):
            return ""
        if self.mode == "auto":
            worker_start.start(self.site, self.python, self.environ, self.now)
        if self.mode == "inline":
            return ""
        missed = ago
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
