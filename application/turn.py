"""What one turn of the policies works with, and how it commits.

Policies run turn by turn and keep in memory only what may be forgotten: back-offs, avoided pools
(`Kept`), what was ambiguous. The rest is asked of the read models anew each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eventsourcing.persistence import IntegrityError

from application.crash_points import reach
from application.instants import Instant, seconds_between
from application.kept import Kept
from application.ports import Clock, Cloud, Journal, Lease, Ledger, Notebook, Work
from domain.brake import EVERYTHING, LAUNCHING
from domain.event_sourced import Aggregate

DEMAND = "demand"
"""What the commits that divide open demand track: how many there were."""

MOST_DEALS = 5
"""Times that a deal is made again because another worker was quicker."""

MOST_STREAMS = 30
"""Streams in one commit of a policy: what a DynamoDB transaction holds with its read rows."""


class LeaseLost(Exception):
    """Another worker acts now; this one stops where it is."""


@dataclass
class Divided:
    """How many commits had divided the open demand when it was last looked at."""

    seen: int = 0


@dataclass
class Turn:
    """`settings` are the provider's, in the shape of the configuration file; `random` gives bytes;
    `deployment` and `incarnation` are the store's, `divided` is one for all accounts; `at_once` are
    the events that a policy reads at a time."""

    ledger: Ledger
    work: Work
    notebook: Notebook
    cloud: Cloud
    clock: Clock
    lease: Lease
    journal: Journal
    settings: dict[str, Any]
    deployment: str
    incarnation: int
    random: Callable[[int], bytes]
    divided: Divided
    at_once: int = 100

    def __post_init__(self) -> None:
        self.kept = Kept(self.notebook, self.clock)

    @property
    def aws(self) -> dict[str, Any]:
        return self.settings["aws"]  # type: ignore[no-any-return]

    def now(self) -> Instant:
        return self.clock.now()

    def age(self, row: dict[str, Any]) -> float:
        """Seconds since the event that made a row, whatever the wall clock did meanwhile."""
        return seconds_between(row["created"], self.now())

    def paused(self, *, launching: bool = False) -> bool:
        """Whether the operator's brake forbids to change anything at AWS, or only to launch."""
        scope, _ = self.work.brake()
        return scope == EVERYTHING or (launching and scope == LAUNCHING)

    def must_outlive_call(self) -> None:
        """Before a mutating call: the lease outlives the call's time-outs, or is extended, or lost.

        Raises LeaseLost.
        """
        if self.lease.remaining() < self.cloud.call_time + 10 and not self.lease.renew():
            raise LeaseLost(f"the lease of {self.lease.fence[0]} is another worker's")

    def outlived_others(self) -> bool:
        """Before a call without a token: whether a call of the holder before us has ended."""
        return self.lease.since_another() >= self.cloud.call_time

    def save(self, *aggregates: Aggregate, **metadata: Any) -> None:
        """One fenced commit."""
        self.ledger.save(*aggregates, fence=self.lease.fence, **metadata)

    # Open demand belongs to no account. What divides it (a call's claims, a deal, the end of a
    # request) is a commit that only succeeds when no other worker's was made since the demand was
    # looked at: they are counted, and each tracks the number that it takes itself to be.

    def look_at_demand(self) -> None:
        """To be called before the rows are read by which `divide` is decided."""
        self.divided.seen = self.work.tracked(DEMAND)

    def divide(self, *aggregates: Aggregate, **metadata: Any) -> None:
        """One fenced commit that divides demand as it was last looked at. Raises IntegrityError
        when another worker has divided some since: then it is looked at anew."""
        number = self.divided.seen + 1
        reach("demand.divided")
        self.save(*aggregates, tracking=(DEMAND, number), **metadata)
        self.divided.seen = number

    def deal(self, decide: Callable[[], Sequence[Aggregate]], **metadata: Any) -> None:
        """One fenced commit of what `decide` makes of the demand as it is now: asked again when
        another worker was quicker, since what AWS gave must not be lost. Raises IntegrityError when
        that goes on and on."""
        for again in (True,) * MOST_DEALS + (False,):
            number = self.work.tracked(DEMAND) + 1
            aggregates = decide()
            if not any(aggregate.has_pending for aggregate in aggregates):
                return
            try:
                self.save(*aggregates, tracking=(DEMAND, number), **metadata)
            except IntegrityError:
                if not again:
                    raise
            else:
                # Rows that were read before another's commit are still to be looked at anew.
                self.divided.seen += number == self.divided.seen + 1
                return

    @contextmanager
    def chunks(self, **metadata: Any) -> Iterator[Callable[[Aggregate, str, str], None]]:
        """Collect aggregates with their correlation and causation ids, and save them in commits of
        at most MOST_STREAMS. The metadata (tracking) goes with the last, which is made even when
        nothing was collected."""
        collected: list[tuple[Aggregate, str, str]] = []

        def add(aggregate: Aggregate, correlation_id: str, causation_id: str) -> None:
            collected.append((aggregate, correlation_id, causation_id))

        yield add
        for start in range(0, max(1, len(collected)), MOST_STREAMS):
            part: Sequence[tuple[Aggregate, str, str]] = collected[start : start + MOST_STREAMS]
            last = start + MOST_STREAMS >= len(collected)
            if part or metadata:
                self.save(
                    *(aggregate for aggregate, _, _ in part),
                    causes={a.id: (correlation, cause) for a, correlation, cause in part},
                    **(metadata if last else {}),
                )
