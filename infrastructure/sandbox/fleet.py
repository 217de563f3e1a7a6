"""A fleet of either kind, EC2 Fleet or Spot Fleet: its target, its machines, its tries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import launching
from .capacity import ON_DEMAND, SPOT, Capacity, pool_of
from .launch_templates import LaunchTemplates
from .offers import Launch, Offer, Plan, plan
from .region import LIVE_STATES, USER_SHUTDOWN, Machine, Region, Schedule
from .wire import AwsError

INSTANT, REQUEST, MAINTAIN = "instant", "request", "maintain"
# "The request is deleted two days after its instances are terminated" (EC2-fleet-states.html).
KEPT = 2 * 24 * 3600.0
MARKETS = (ON_DEMAND, SPOT)


@dataclass(frozen=True)
class Target:
    """Units wanted in each market."""

    on_demand: float = 0.0
    spot: float = 0.0

    @property
    def total(self) -> float:
        """Of both markets."""
        return self.on_demand + self.spot

    def of(self, market: str) -> float:
        """Of one market."""
        return self.spot if market == SPOT else self.on_demand


@dataclass(frozen=True)
class Surroundings:
    """What a fleet needs of the sandbox.

    `capacity` says what a try may launch. `resources` draws launch tokens, as many as there are
    but at least the first and at most the second number, and says how many; else none and 0.
    Times in seconds.
    """

    region: Region
    templates: LaunchTemplates
    now: Callable[[], float]
    schedule: Schedule
    capacity: Callable[[str, Mapping[str, str]], Capacity]
    resources: Callable[[int, int], int]
    delay: float
    retry: float


@dataclass(frozen=True)
class Shortfall:
    """An offer of which less was launched than tried."""

    offer: Offer
    market: str
    error: AwsError


@dataclass(frozen=True)
class Record:
    """One line of the fleet's history."""

    at: float
    kind: str
    words: str
    detail: str
    instance_id: str | None = None


@dataclass(eq=False)
class Fleet:
    """One fleet. `offers` finds what it may launch, anew for each try; it may raise AwsError.

    `action` and `params` are the call that made it; `tag` is AWS's own tag of its machines.
    """

    id: str
    kind: str
    action: str
    params: Mapping[str, str]
    around: Surroundings
    offers: Callable[[], Sequence[Offer]]
    options: Mapping[str, Mapping[str, Any]]
    target: Target
    tag: str
    made_at: float = 0.0
    valid_from: float | None = None
    valid_until: float | None = None
    ends_with_expiry: bool = False
    spares_excess: bool = False
    weights: dict[str, float] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    launches: list[tuple[Launch, str, list[str]]] = field(default_factory=list)
    errors: list[Shortfall] = field(default_factory=list)
    history: list[Record] = field(default_factory=list)
    ended: bool = False
    terminating: bool = False
    waiting: bool = True  # for its first try, or for what was modified
    _next: float | None = None
    _launched: dict[str, float] = field(default_factory=dict)

    # -- what is asked of it -------------------------------------------------------------------

    @property
    def living(self) -> list[Machine]:
        """Its machines that are pending, running, stopping or stopped."""
        return [machine for machine in self.machines.values() if machine.state in LIVE_STATES]

    @property
    def remains(self) -> bool:
        """Whether a machine of it is not terminated yet."""
        return any(machine.state != "terminated" for machine in self.machines.values())

    def fulfilled(self, market: str | None = None) -> float:
        """The units of its living machines."""
        return sum(
            self.weights[machine.id]
            for machine in self.living
            if market in (None, pool_of(machine).market)
        )

    def state(self, over: str) -> str:
        """Its state; `over` is the word for one that was ended, "deleted" or "cancelled".

        EC2-fleet-states.html, spot-fleet-states.html
        """
        if self.ended:
            if not self.remains:
                return over
            return f"{over}_terminating" if self.terminating else f"{over}_running"
        if self.waiting:
            tried = any(record.words == "active" for record in self.history)
            return "modifying" if tried else "submitted"
        return "active"

    @property
    def activity(self) -> str:
        """Its progress (API_FleetData.html, activityStatus)."""
        if self.kind == INSTANT or self.fulfilled() >= self.target.total:
            return "fulfilled"
        return "error" if self.errors else "pending_fulfillment"

    def begin(self) -> None:
        """Place the fleet's request: it launches on the clock, from now or ValidFrom on."""
        now = self.around.now()
        self.record("fleet-change", "submitted", "")
        start = max(now, self.valid_from or now)
        self._try_at(start + self.around.delay)
        if self.valid_until is not None:
            self.around.schedule(self.valid_until, self._expire)

    def launch_at_once(self, capacity: Capacity, most: int | None) -> None:
        """What an instant fleet does, all in one call; `most` caps the machines of both markets.

        Raises AwsError when the launch tokens do not suffice, and nothing is launched then.
        """
        offers = self.offers()
        plans = {
            market: plan(
                self.around.region,
                offers,
                market,
                self.target.of(market),
                capacity,
                self.options.get(market, {}),
            )
            for market in MARKETS
            if self.target.of(market) > 0
        }
        count = sum(found.machines for found in plans.values())
        if most is not None:
            count = min(count, most)
        if self.around.resources(count, count) < count:
            raise AwsError("RequestLimitExceeded", "Request limit exceeded.", 503)
        left = count
        for market, found in plans.items():
            left -= self._carry_out(market, found, left)
        self.waiting = False

    def retarget(self, target: Target) -> None:
        """Another target; excess machines end unless the fleet spares them."""
        self.target = target
        self.waiting = True
        self.record("fleet-change", "modify_in_progress", "")
        self._try_at(self.around.now() + self.around.delay)

    def end(self, terminate: bool) -> None:
        """Delete or cancel: it launches nothing more."""
        self.ended = True
        self.terminating = terminate
        self.record("fleet-change", "deleted_terminating" if terminate else "deleted_running", "")
        for machine in self.living:
            # "All Spot requests associated with the fleet are canceled" (delete-fleet.html).
            if machine.spot is not None:
                machine.spot.cancelled = True
        if terminate:
            self._terminate(self.living)

    def lost(self, machine: Machine) -> None:
        """A machine of it dies; a fleet that maintains its target launches another."""
        self.record("instance-change", "terminated", "", machine.id)
        if self.kind == MAINTAIN and not self.ended:
            self._try_at(self.around.now() + self.around.delay)

    def record(self, kind: str, words: str, detail: str, instance_id: str | None = None) -> None:
        """Add a line to the history."""
        self.history.append(Record(self.around.now(), kind, words, detail, instance_id))

    # -- how it launches -----------------------------------------------------------------------

    def _try_at(self, due: float) -> None:
        """Try at a time, unless a try comes before it anyway."""
        if self._next is not None and self._next <= due:
            return
        self._next = due

        def step() -> None:
            if self._next == due:
                self._next = None
                self._try()

        self.around.schedule(due, step)

    def _try(self) -> None:
        if self.ended:
            return
        self.waiting = False
        if not any(record.words == "active" for record in self.history):
            self.record("fleet-change", "active", "")
        if self.kind == MAINTAIN and not self.spares_excess:
            self._end_excess()
        short = {market: self._short_of(market) for market in MARKETS}
        if max(short.values()) <= 0:
            return
        self.errors = []
        capacity = self.around.capacity(self.action, self.params)
        try:
            offers = self.offers()
        except AwsError as error:
            self._problem(error)
            offers = []
        for market, units in short.items():
            if units > 0:
                options = self.options.get(market, {})
                found = plan(self.around.region, offers, market, units, capacity, options)
                granted = self.around.resources(0, found.machines)
                if granted < found.machines:
                    self._problem(AwsError("RequestLimitExceeded", "Request limit exceeded."))
                self._carry_out(market, found, granted)
        if any(self._short_of(market) > 0 for market in MARKETS):
            self._try_at(self.around.now() + self.around.retry)

    def _short_of(self, market: str) -> float:
        """The units missing; a request does not launch again what it has launched once."""
        if self.kind == MAINTAIN:
            return self.target.of(market) - self.fulfilled(market)
        return self.target.of(market) - self._launched.get(market, 0.0)

    def _carry_out(self, market: str, found: Plan, most: int) -> int:
        """Launch a plan, at most `most` machines; how many there are."""
        done = 0
        for offer, error in found.errors:
            self.errors.append(Shortfall(offer, market, error))
            self._problem(error)
        for launch in found.launches:
            count = min(launch.count, most - done)
            if count <= 0:
                break
            try:
                machines = self._start(launch, count)
            except AwsError as error:
                self.errors.append(Shortfall(launch.offer, market, error))
                self._problem(error)
                continue
            done += len(machines)
            ids = [machine.id for machine in machines]
            self.launches.append((launch, market, ids))
            self._launched[market] = (
                self._launched.get(market, 0.0) + len(machines) * launch.offer.weight
            )
            for machine in machines:
                self.machines[machine.id] = machine
                self.weights[machine.id] = launch.offer.weight
                self.record("instance-change", "launched", str(launch.pool), machine.id)
        return done

    def _start(self, launch: Launch, count: int) -> list[Machine]:
        asked = dict(launch.asked)
        # The token that DescribeInstances shows of a fleet's machines; its form from memory.
        asked["ClientToken"] = f"{self.id}-{len(self.launches)}"
        return launching.start(
            self.around.region, asked, count, tags={self.tag: self.id}, keeper=self
        )

    def _problem(self, error: AwsError) -> None:
        self.record("service-error", "launchSpecUnusable", f"{error.code}: {error.message}")

    # -- how it ends machines ------------------------------------------------------------------

    def _end_excess(self) -> None:
        """End machines, the newest first, as long as the target is reached without them."""
        for market in MARKETS:
            excess = self.fulfilled(market) - self.target.of(market)
            for machine in sorted(self.living, key=lambda one: -one.number):
                if pool_of(machine).market == market and self.weights[machine.id] <= excess:
                    excess -= self.weights[machine.id]
                    self._terminate([machine])

    def _expire(self) -> None:
        """ValidUntil: nothing is launched any more, and it is as if it had been deleted (from
        memory)."""
        if not self.ended:
            self.record("fleet-change", "expired", "")
            self.end(self.ends_with_expiry)

    def _terminate(self, machines: Iterable[Machine]) -> None:
        for machine in machines:
            self.around.region.terminate(machine, USER_SHUTDOWN)


def active_instances(machines: Iterable[Machine]) -> list[dict[str, Any]]:
    """ActiveInstances of DescribeFleetInstances and DescribeSpotFleetInstances."""
    return [
        {
            "InstanceId": machine.id,
            "InstanceType": machine.instance.instance_type,
            "SpotInstanceRequestId": machine.spot.id if machine.spot else None,
            "InstanceHealth": "healthy",
        }
        for machine in machines
    ]
