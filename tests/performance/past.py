"""A site's past of 90 days in a SQLite file: whole cycles, with the streams of many machines
interleaved.

`python -m tests.performance.past FILE [--events N]` writes them into a new SQLite store; 1,000,000
take a few minutes, and leave 20,000 machines alive.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from application import assigning, returning
from domain.host_factory import HostFactory
from domain.return_request import ReturnRequest
from domain.template import Template
from domain.termination_batch import TerminationBatch
from infrastructure.event_store.commit import to_record
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import create_store
from interfaces.bench.past import MACHINES, PROVIDER, Commit, Life
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from infrastructure.event_store.sql import SqlEventStore

ACTOR = {"user": "bench", "provider": "bench", "process": "bench"}
ALIVE = 20_000

LIFE = 51
"""Events of one request, from the asking to the end of its last machine."""

AT_ONCE = 40
"""Requests that are being launched at the same time, and as many returns."""

DAYS = 90
"""So long a past it is, told in appends of ..."""
APPENDED = 1_000
"""... so many events."""


class WholeLife(Life):
    """To the end of the last machine."""

    def hand_back(self) -> Iterator[Commit]:
        """From the return until the last machine is gone."""
        return_id, termination_id = (f"{kind}{self.request_id[3:]}" for kind in ("ret", "ter"))
        returned = ReturnRequest.hand_back(
            return_id, PROVIDER, self.ids, [], "returned by HostFactory", "hostfactory"
        )
        yield [returned]
        for machine in self.machines:
            machine.hand_back(return_id, "returned by HostFactory")
        yield list(self.machines)
        termination = TerminationBatch.intend(
            termination_id, self.ids, "default", "us-east-1", "us-east-1a", "returned"
        )
        yield [termination]
        termination.conclude(self.ids, [], "59dbff89-35bd-4eac-99ed-be587ed4b4b4")
        yield [termination]
        for machine in self.machines:
            machine.terminate("returned by HostFactory")
        yield self.machines[: len(self.ids) // 2]
        yield self.machines[len(self.ids) // 2 :]
        returned.finish([])
        yield [returned]


def past(
    alive: int = ALIVE, rests: Callable[[], bool] = lambda: False
) -> Iterator[tuple[WholeLife, Commit]]:
    """The commits of a site that launches up to so many machines, then returns the oldest for
    every new one; without end. While it `rests` nothing new is begun, and a commit of nothing says
    that nothing is open."""
    host_factory = HostFactory()
    living: deque[WholeLife] = deque()
    launching: deque[tuple[WholeLife, Iterator[Commit]]] = deque()
    returning_: deque[tuple[WholeLife, Iterator[Commit]]] = deque()
    number = 0
    while True:
        while len(launching) < AT_ONCE and not rests():
            number += 1
            life = WholeLife(number)
            launching.append((life, life.launch(host_factory)))
        while len(living) * MACHINES >= alive:
            life = living.popleft()
            returning_.append((life, life.hand_back()))
        if not launching and not returning_:
            yield life, []
        for under_way in (launching, returning_):
            if not under_way:
                continue
            life, commits = under_way.popleft()
            commit = next(commits, None)
            if commit is not None:
                yield life, commit
                under_way.append((life, commits))
            elif under_way is launching:
                living.append(life)


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
