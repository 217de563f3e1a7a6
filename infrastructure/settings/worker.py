"""The process that owns AWS."""

from typing import Literal

from infrastructure.settings.kinds import Seconds, Section

LEASE_MARGIN = 10
"""Seconds a lease must outlive the longest AWS call by, so that no call outlives its owner."""


class Worker(Section):
    """The process that owns AWS; times in seconds."""

    mode: Literal["auto", "external", "inline"] = "auto"
    """Who works: a worker that the scripts start when there is something to do (auto), one that a
    service runs (external), or each call, for one turn (inline)."""
    idle_timeout: Seconds = 300
    """Seconds a worker stays when nothing is open or alive; only in `auto`."""
    lease_time: Seconds = 60
    """Seconds a worker that has stopped moving keeps the right to act. At least the sum of both
    `provider.aws.timeouts` and 10 s more; made longer when IBM's AWS_CONNECTION_TIMEOUT_MS needs
    that and no lease is given."""
    sweep_max_age: Seconds = 90
    """Seconds the last complete sweep may be old for a getReturnRequests answer."""
    turn_budget: Seconds = 20
    """Seconds for the turn of an `inline` call: a call to AWS that could outlast them is put
    off."""
