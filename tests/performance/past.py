"""A site's past of 90 days in a SQLite file.

`python -m tests.performance.past FILE [--events N]` writes them into a new SQLite store; 1,000,000
take a few minutes, and leave 20,000 machines alive.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from application import assigning, returning
from domain.template import Template
from infrastructure.event_store.commit import to_record
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import create_store
from interfaces.bench.past import ALIVE, past
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from infrastructure.event_store.sql import SqlEventStore

ACTOR = {"user": "bench", "provider": "bench", "process": "bench"}

DAYS = 90
"""So long a past it is, told in appends of ..."""
APPENDED = 1_000
"""... so many events."""


class Writing:
    """Writes the past of a site into a store that has just been made, to one size after another.
    Each append advances the clock by `step` seconds."""

    def __init__(self, store: SqlEventStore, clock: FakeClock, alive: int, step: float) -> None:
        template = Template(Template.stream(Template.key("bench", "OnDemand-A")))
        template.revise("bench", "OnDemand-A", "4f53cda18c2baa0c", {})
        store.save(template)
        self.position, _ = store.end()
        self._store = store
        self._clock = clock
        self._step = step
        self._rests = False
        self._past = past(alive, lambda: self._rests)

    def until(self, events: int) -> None:
        """So many events, and on until nothing is open; the policies then have nothing to
        follow."""
        records = []
        causes = {}
        self._rests = False
        for life, commit in self._past:
            if not commit:
                break
            for aggregate in commit:
                causes[aggregate.id] = (life.request_id, "")
                records += [to_record(event) for event in aggregate.collect_events()]
            if len(records) >= APPENDED:
                self._append(records, causes)
                records, causes = [], {}
            self._rests = self.position + len(records) >= events
        if records:
            self._append(records, causes)
        for policy in (assigning.POLICY, returning.POLICY):
            self._store.append([], tracking=(policy, self.position))

    def _append(self, records: list[Any], causes: dict[str, tuple[str, str]]) -> None:
        self._store.append(records, causes=causes)
        self._clock.advance(self._step)
        self.position += len(records)


def write_past(store: SqlEventStore, clock: FakeClock, events: int, alive: int = ALIVE) -> None:
    """Append so many events (a few more) to a store that has just been made; its policies then
    have nothing to follow."""
    Writing(store, clock, alive, DAYS * 86400.0 * APPENDED / events).until(events)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--alive", type=int, default=ALIVE)
    arguments = parser.parse_args()
    clock = FakeClock(time.time() - DAYS * 86400.0)
    create_store(arguments.file, clock, ACTOR, "bench")
    with closing(SqliteEventStore(arguments.file, clock, ACTOR)) as store:
        store.connection.execute("PRAGMA synchronous = OFF")
        store.connection.execute("PRAGMA cache_size = -400000")
        write_past(store, clock, arguments.events, arguments.alive)
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        print(f"{arguments.file}: {store.end()[0]} events")


if __name__ == "__main__":
    main()
