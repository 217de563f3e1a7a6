"""What HostFactory's calls on any machine named, noted in a table of the shared store, read by the
worker: `sightings.py` for stores that are on the network.

First sightings are rows of their own, at once. A call that names nothing new still says that
HostFactory is calling, or naming its hosts: one row each for a provider and host, at most once a
minute.
"""

from __future__ import annotations

import os

from application.failures import StoreError
from application.json_text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant
    from infrastructure.event_store.postgresql import PostgresqlEventStore
    from infrastructure.event_store.postgresql_driver import Session

SELDOM = 60.0
"""Seconds between two notes that HostFactory is calling, and no more."""

NEWS = ("requests", "final", "machines", "strangers", "stale")

NOTE = (
    "INSERT INTO sightings VALUES (%s, %s, nextval('sighting_numbers'), %s, 0, %s) "
    "ON CONFLICT (key) DO UPDATE SET number = excluded.number, noted = excluded.noted, "
    "taken = 0, line = excluded.line "
    f"WHERE abs(sightings.noted - excluded.noted) >= {SELDOM}"
)


def note(session: Session, now: Instant, facts: dict[str, object]) -> None:
    """Between two looks. Where it cannot be written (a standby), HostFactory will name the same
    ids again."""
    line = dumps({"at": now[0], "boot_id": now[1], "boot": now[2], **facts})
    host = os.uname().nodename
    if any(facts.get(kind) for kind in NEWS):
        given = ("news " + os.urandom(16).hex(), "", now[0], line)
    else:
        # A call that names hosts counts for more: the others must not silence it.
        kind = f"{facts.get('provider', '')} {host} {bool(facts.get('hosts'))}"
        given = (kind, host, now[0], line)
    within = session.within
    try:
        if within:
            session.end("COMMIT")
        session.run(NOTE, given)
    except (StoreError, ValueError):
        pass
    if within:
        session.execute("BEGIN")


class PostgresqlSightings:
    """The table as the worker reads it."""

    def __init__(self, store: PostgresqlEventStore) -> None:
        self._store = store
        self._taken: list[int] = []

    def take(self) -> list[dict[str, Any]]:
        """The lines since the last `done`, oldest first."""
        rows = self._store.connection.run(
            "SELECT number, line FROM sightings WHERE taken = 0 ORDER BY number"
        ).rows
        self._taken = [number for number, _ in rows]
        return [loads(line) for _, line in rows]

    def waiting(self) -> bool:
        """Whether lines were taken that are not done."""
        return bool(self._taken)

    def noted(self) -> float:
        """A number that is another one when a call has noted something since; 0 for none."""
        ((number,),) = self._store.connection.run(
            "SELECT coalesce(max(number), 0) FROM sightings WHERE taken = 0"
        )
        return float(number)

    def done(self) -> None:
        """The taken lines are in the ledger: forget them, but for when a host called last."""
        if not self._taken:
            return
        taken, self._taken = self._taken, []
        self._store.connection.run(
            "WITH news AS (DELETE FROM sightings WHERE host = '' AND number = ANY(%s)) "
            "UPDATE sightings SET taken = 1 WHERE host <> '' AND number = ANY(%s)",
            (taken, taken),
        )
