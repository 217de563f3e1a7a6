"""The worker's own loop over simulated time: it sleeps, and time has gone by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from application.failures import BrokenConfiguration
from application.what_if import Demand
from interfaces.worker.loop import LONGEST_QUIET, Worker
from interfaces.write_side.simulation import Simulation

LOOKS_A_SWEEP = 4
"""While nothing is open and machines live, so many looks in the time from sweep to sweep: a sweep
is late by no more than one of them."""


def run_through(
    simulation: Simulation,
    demand: Demand,
    until: float,
    progress: Callable[[float], object] = lambda now: None,
) -> None:
    """Let a worker live until then (seconds since the epoch), while the demand comes in beside it.
    `progress` is told the time. Where nothing can happen time jumps.

    Raises BrokenConfiguration when the worker's last turn failed, or it ended before its time.
    """
    clock = simulation.clock
    worker = Worker(simulation.site, {}, **simulation.overrides)
    work = simulation.work()
    sweep_interval: float = simulation.settings.provider.aws.sweep_interval
    told = demand.tell(clock.wall)

    def quiet_until() -> Any:
        if work.anything_open():
            soon = clock.wall + LONGEST_QUIET
        elif work.anything_alive():
            soon = clock.wall + sweep_interval / LOOKS_A_SWEEP
        else:
            soon = until
        return min(soon, until, demand.next_at)

    def sleep(seconds: float) -> None:
        nonlocal told
        # A burst is let come in at the loop's own pace.
        clock.sleep(seconds if told else max(seconds, quiet_until() - clock.wall))
        told = demand.tell(clock.wall)
        progress(clock.wall)
        if clock.wall >= until:
            worker.stopping = True

    worker.run(sleep)
    if worker.reason or clock.wall < until:
        raise BrokenConfiguration(
            f"the simulated worker came to nothing: {worker.reason or 'it lost its lease'}"
        )
