"""What one turn of the policies works with, and how it commits.

Policies run turn by turn and keep in memory only what may be forgotten: back-offs, avoided pools,
what was ambiguous. The rest is asked of the read models anew each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from application.instants import Instant, seconds_between
from application.ports import Clock, Cloud, Journal, Lease, Ledger, Notebook, Work
from domain.brake import EVERYTHING, LAUNCHING
from domain.event_sourced import Aggregate

MOST_STREAMS = 30
"""Streams in one commit of a policy: what a DynamoDB transaction holds with its read rows."""


class LeaseLost(Exception):
    """Another worker acts now; this one stops where it is."""


@dataclass
class Turn:
    """`settings` are the provider's, in the shape of the configuration file; `random` gives bytes;
    `deployment` and `incarnation` are the store's."""

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
