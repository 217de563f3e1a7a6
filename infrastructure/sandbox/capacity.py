"""How many machines a pool has room for: limits that last, faults of one call, and addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .faults import Fault
from .region import LIVE_STATES, Machine, Region
from .wire import AwsError

ON_DEMAND, SPOT = "on-demand", "spot"
INSUFFICIENT = "InsufficientInstanceCapacity"


class Pool(NamedTuple):
    """Where a machine comes from; the market is "on-demand" or "spot"."""

    subnet: str
    instance_type: str
    market: str


@dataclass(frozen=True)
class Limit:
    """At most `limit` living machines of the pools named (None: any), else the error `code`."""

    limit: int
    subnet: str | None = None
    instance_type: str | None = None
    market: str | None = None
    code: str = INSUFFICIENT

    @property
    def pools(self) -> tuple[str | None, str | None, str | None]:
        """Which pools it is about."""
        return self.subnet, self.instance_type, self.market

    def holds(self, pool: Pool) -> bool:
        """Whether it is about the pool."""
        return all(want in (None, have) for want, have in zip(self.pools, pool, strict=True))


class Room(NamedTuple):
    """How many more machines there may be, and the error code of one more."""

    left: int
    code: str


class Capacity:
    """What one call, or one try of a fleet or a group, may launch.

    Made when the call begins: machines that live then are counted, and what is taken after.
    """

    def __init__(self, region: Region, limits: Iterable[Limit], caps: Iterable[Fault]) -> None:
        self._region = region
        self._left: list[tuple[Limit, Fault | None]] = []
        self._fired: set[int] = set()
        self._taken: Counter[Pool] = Counter()
        self._addresses: dict[str, int | None] = {}
        limits = list(limits)
        living = _living(region) if limits else Counter()
        for limit in limits:
            used = sum(count for pool, count in living.items() if limit.holds(pool))
            self._left.append((_with(limit, limit.limit - used), None))
        for fault in caps:
            asked = fault.params
            cap = Limit(
                int(asked["limit"]),
                asked.get("subnet"),
                asked.get("instance_type"),
                asked.get("market"),
                asked.get("code", INSUFFICIENT),
            )
            self._left.append((cap, fault))

    def room(self, pool: Pool) -> Room | None:
        """How many more machines of the pool can be launched; None for any number."""
        rooms = []
        if pool.subnet not in self._addresses:
            self._addresses[pool.subnet] = self._region.free_addresses(pool.subnet)
        addresses = self._addresses[pool.subnet]
        if addresses is not None:
            used = sum(count for other, count in self._taken.items() if other[0] == pool.subnet)
            rooms.append(Room(addresses - used, "InsufficientFreeAddressesInSubnet"))
        for limit, fault in self._left:
            if limit.holds(pool):
                if fault is not None and id(fault) not in self._fired:
                    self._fired.add(id(fault))
                    fault.fired += 1
                used = sum(count for other, count in self._taken.items() if limit.holds(other))
                rooms.append(Room(limit.limit - used, limit.code))
        least = min(rooms, key=lambda room: room.left, default=None)
        return None if least is None else Room(max(0, least.left), least.code)

    def take(self, pool: Pool, count: int) -> None:
        """Count machines that are launched; a negative number gives them back."""
        self._taken[pool] += count

    def trial(self) -> Capacity:
        """A copy to plan with; what it takes is not taken here."""
        copy = Capacity.__new__(Capacity)
        copy.__dict__ |= self.__dict__ | {"_taken": self._taken.copy()}
        return copy

    def error(self, pool: Pool, code: str) -> AwsError:
        """What RunInstances and the fleets say of a pool without room."""
        zone = self._region.get_subnet(pool.subnet).availability_zone
        if code == "InsufficientFreeAddressesInSubnet":
            return AwsError(
                code,
                f"The specified subnet '{pool.subnet}' does not have enough free addresses to "
                "satisfy the request.",
            )
        if code != INSUFFICIENT:
            return AwsError(code, f"{code}, as the sandbox was told", _STATUS.get(code, 400))
        if pool.market == SPOT:
            words = "There is no Spot capacity available that matches your request."
        else:
            words = (
                f"We currently do not have sufficient {pool.instance_type} capacity in the "
                f"Availability Zone you requested ({zone})."
            )
        return AwsError(code, words, _STATUS[code])


# Codes of the list of server errors, errors-overview.html; any other is a client's error.
_STATUS = {
    INSUFFICIENT: 500,
    "InsufficientAddressCapacity": 500,
    "InsufficientCapacity": 500,
    "InsufficientReservedInstanceCapacity": 500,
    "InternalError": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
}


def pool_of(machine: Machine) -> Pool:
    """The pool that a machine came from."""
    it = machine.instance
    market = SPOT if it.lifecycle == SPOT else ON_DEMAND
    return Pool(str(it.subnet_id), str(it.instance_type), market)


def _living(region: Region) -> Counter[Pool]:
    machines = region.machines.values()
    return Counter(pool_of(machine) for machine in machines if machine.state in LIVE_STATES)


def _with(limit: Limit, count: int) -> Limit:
    return Limit(count, *limit.pools, limit.code)
