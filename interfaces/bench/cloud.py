"""AWS calls, counted in a simulated cloud and time: what a machine costs from its request until it
is gone."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from application import queries
from application.request_machines import RequestMachines, request_machines
from application.return_machines import ReturnMachines, return_machines
from interfaces.bench.past import PROVIDER, TEMPLATE
from interfaces.bench.sites import BenchSite

BEGAN = 1_790_000_000.0
BOOT_TIME = 20.0
LOOK = 5.0
"""Seconds between two looks at whether all machines run."""

LONGEST = 3600.0


class Wave:
    """So many requests at once, and the return of all their machines once they run; told to a
    worker in a simulation as the demand that `what-if` tells."""

    def __init__(self, simulated: Any, offered: dict[str, Any], requests: int, each: int) -> None:
        self._simulated = simulated
        self._offered = offered
        self._requests = requests
        self._each = each
        self._done = [self._ask, self._give_back]
        self.next_at = BEGAN

    def tell(self, now: float) -> bool:
        """Whether anything was told."""
        if now < self.next_at:
            return False
        if not self._done[0]():
            self.next_at = now + LOOK
            return False
        del self._done[0]
        self.next_at = now + LOOK if self._done else float("inf")
        return True

    def _ask(self) -> bool:
        revision = None
        for _ in range(self._requests):
            command = RequestMachines(
                PROVIDER, TEMPLATE, self._each, self._offered, revision, 300.0, "bench",
                self._simulated.random(16),
            )  # fmt: skip
            request_machines(command, self._simulated.store)
            revision = self._offered["revision"]
        return True

    def _give_back(self) -> bool:
        with closing(self._simulated.storage.queries()) as view:
            rows = queries.machines(view)
        running = [row["machine_id"] for row in rows if row["status"] == "running"]
        if len(running) < self._requests * self._each:
            return False
        command = ReturnMachines(
            PROVIDER, running, [], "returned", "bench", self._simulated.random(16)
        )
        return_machines(command, self._simulated.store)
        return True


def calls(site: BenchSite, requests: int, each: int, **way: str) -> dict[str, Any]:
    """The AWS calls of so many requests of so many machines, from their commands until the last
    machine is gone, with the sweeps in that time; `way` is what the template says of its launch."""
    from interfaces.worker.simulated import run_through
    from interfaces.write_side.simulation import simulation

    call = site.call("bench")
    offered = call.compiled.template(TEMPLATE)
    assert offered is not None
    offered = {**offered, "content": {**offered["content"], **way}}
    with simulation(call.settings, PROVIDER, BEGAN, BOOT_TIME) as simulated:
        wave: Any = Wave(simulated, offered, requests, each)
        run_through(simulated, wave, BEGAN + LONGEST)
        with closing(simulated.storage.queries()) as view:
            left = len(queries.machines(view, alive_only=True))
        counted = simulated.calls()
    machines = requests * each
    if left or wave.next_at < float("inf"):
        raise AssertionError(f"{left} of {machines} machines are left after {LONGEST:.0f} s")
    total = sum(counted.values())
    return {
        "requests": requests,
        "machines": machines,
        "way": way.get("provider_api", "RunInstances"),
        "calls": total,
        "per_machine": total / machines,
        "actions": dict(counted.most_common()),
    }
