"""The state of a deployment in one look: what is open and how old it is, sweeps and read models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from application import assigning, returning
from application.instants import Instant, seconds_between

FOLLOWERS = {assigning.POLICY: assigning.TOPICS, returning.POLICY: returning.TOPICS}
"""The policies that follow the log, and the topics that each follows."""


class View(Protocol):
    """A look at a store."""

    def vitals(self) -> dict[str, Any]: ...

    def waiting(self, policy: str, topics: Sequence[str]) -> int: ...


@dataclass(frozen=True)
class Vitals:
    """Ages in seconds, 0 for none; `sweep_ages` by account/region, of those that were swept."""

    queue: dict[str, int]
    live_machines: int
    orphans: int
    position: int
    oldest_request: float
    overdue: list[tuple[str, float]]
    """Request id and by how many seconds it is past its deadline, of those that should have been
    ended."""
    open_intents: int
    oldest_intent: float
    oldest_intent_id: str
    sweep_ages: dict[str, float]
    lags: dict[str, int]
    """Read model -> events that it is behind the end of the log; policy -> events that wait."""

    @property
    def something_to_do(self) -> bool:
        return bool(self.live_machines or any(self.queue.values()))


def vitals(view: View, now: Instant, provider: dict[str, Any]) -> Vitals:
    """`provider` are the settings of that name. Raises StoreError."""
    found = view.vitals()
    counts, aws = found["counts"], provider["aws"]
    # What the end of a request may wait for: slow machines, the settling of a doubtful launch.
    patience = aws["pending_timeout"] + aws["settle_gap"] + 2 * aws["sweep_interval"]
    requests = [(seconds_between(row["created"], now), row) for row in found["requests"]]
    over = [(row["request_id"], age - row["fulfilment_deadline"]) for age, row in requests]
    intents = [(seconds_between(row["created"], now), row["batch_id"]) for row in found["intents"]]
    age, batch_id = max(intents, default=(0.0, ""))
    failed = dict(found["failed"])
    return Vitals(
        queue={
            kind: counts[f"open_{kind}"]
            for kind in ("requests", "returns", "batches", "terminations")
        },
        live_machines=counts["live_machines"],
        orphans=counts["orphans"],
        position=found["position"],
        oldest_request=max((age for age, _ in requests), default=0.0),
        overdue=sorted(
            [(request_id, by) for request_id, by in over if by > patience],
            key=lambda late: -late[1],
        ),
        open_intents=len(intents),
        oldest_intent=age,
        oldest_intent_id=batch_id,
        sweep_ages={account: seconds_between(began, now) for account, began in found["sweeps"]},
        lags={
            name: found["position"] - failed[name] + 1 if name in failed else 0
            for name in found["projections"]
        }
        | {policy: view.waiting(policy, topics) for policy, topics in FOLLOWERS.items()},
    )


def oldest_sweep(known: Vitals, accounts: Sequence[str], otherwise: float) -> tuple[float, str]:
    """The age of the oldest sweep of these accounts, and whose it is; `otherwise` for an account
    that was never swept."""
    return max((known.sweep_ages.get(account, otherwise), account) for account in accounts)
