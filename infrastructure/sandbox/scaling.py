"""One Auto Scaling group: which members it has, and how it comes to its desired capacity."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .capacity import ON_DEMAND, SPOT, Capacity
from .fleet import Surroundings
from .launching import in_subnet, pool, prepared, start
from .region import LIVE_STATES, Machine
from .wire import AwsError, timestamp

GROUP_TAG = "aws:autoscaling:groupName"
# What AWS writes of a scale-in that protection prevents (ec2-auto-scaling-instance-protection.html)
ALL_PROTECTED = (
    "Could not scale to desired capacity because all remaining instances are protected from "
    "scale in."
)
UNHEALTHY = (
    "an instance was taken out of service in response to an EC2 health check indicating it has "
    "been terminated or stopped."
)


@dataclass(frozen=True)
class Choice:
    """One way to launch: a launch template, and what an override changes in it."""

    template: Mapping[str, str]
    instance_type: str | None = None
    image: str | None = None
    weight: int = 1
    weighted: bool = False


@dataclass(frozen=True)
class Mix:
    """The markets of a mixed instances policy, in units (API_InstancesDistribution.html)."""

    base: int = 0
    percentage: int = 100

    def on_demand(self, desired: int) -> int:
        """How many of the desired units are to be on demand.

        Fractions are rounded up in favour of on demand; from memory.
        """
        base = min(self.base, desired)
        return base + -(-(desired - base) * self.percentage // 100)


@dataclass(eq=False)
class Member:
    """A machine of a group. `leaving`: the group counts it no more."""

    machine: Machine
    choice: Choice
    market: str
    protected: bool
    leaving: bool = False

    @property
    def shielded(self) -> bool:
        """Whether scaling in must spare it: "Instance scale-in protection starts when the
        instance state is InService" (ec2-auto-scaling-instance-protection.html)."""
        return self.protected and self.machine.state == "running"

    @property
    def state(self) -> str:
        """Its LifecycleState."""
        if self.leaving or self.machine.state not in LIVE_STATES:
            return "Terminating"
        return "Pending" if self.machine.state == "pending" else "InService"


@dataclass(eq=False)
class Activity:
    """A scaling activity; with a machine, its status follows the machine's state."""

    id: str
    group: Group
    description: str
    cause: str
    start: float
    machine: Machine | None = None
    launching: bool = False
    failure: str | None = None
    code: str = "Failed"

    @property
    def status(self) -> str:
        """Its StatusCode."""
        if self.machine is None:
            return self.code
        if self.launching:
            return "PreInService" if self.machine.state == "pending" else "Successful"
        return "InProgress" if self.machine.state != "terminated" else "Successful"


@dataclass(frozen=True)
class Bought:
    """What one try launched in a pool, and why it was no more."""

    choice: Choice
    subnet: str
    instance_type: str
    market: str
    members: list[Member]
    error: AwsError | None = None


@dataclass(eq=False)
class Group:
    """A group, and the machines' keeper. Sizes are in units, which are instances unless weighted.

    `policy` and `extra` are what describing repeats. A group that is being deleted launches no
    more.
    """

    name: str
    around: Surroundings
    number: int
    choices: list[Choice]
    mix: Mix | None
    subnets: list[str]
    least: int
    most: int
    desired: int
    protect_new: bool
    tags: dict[str, tuple[str, bool]]
    created: float
    template: Mapping[str, str] | None = None
    policy: Mapping[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    activities: list[Activity] = field(default_factory=list)
    deleting: bool = False
    deleted_at: float = 0.0
    # When the next try is due; a step that finds another time does nothing.
    due: float | None = None

    @property
    def arn(self) -> str:
        """Its ARN."""
        region = self.around.region
        return (
            f"arn:aws:autoscaling:{region.region_name}:{region.account_id}:autoScalingGroup:"
            f"00000000-0000-4000-a000-{self.number:012d}:autoScalingGroupName/{self.name}"
        )

    @property
    def zones(self) -> list[str]:
        """The names of its subnets' zones."""
        return sorted({self.zone(subnet) for subnet in self.subnets})

    def zone(self, subnet: str) -> str:
        """The name of a subnet's zone."""
        return str(self.around.region.get_subnet(subnet).availability_zone)

    def listed(self) -> list[Member]:
        """The members that are described: all that are not terminated yet."""
        gone = [i for i, one in self.members.items() if one.machine.state == "terminated"]
        for instance_id in gone:
            del self.members[instance_id]
        return list(self.members.values())

    def counted(self) -> Iterator[Member]:
        """The members that count for the capacity."""
        return (one for one in self.members.values() if not one.leaving)

    def units(self) -> int:
        """The capacity it has."""
        return sum(one.choice.weight for one in self.counted())

    # -- growing and shrinking -------------------------------------------------------------------

    def adjust(self) -> None:
        """Go towards the desired capacity: end members at once, launch after the delay."""
        if self.deleting:
            return
        self._shrink()
        if self.units() < self.desired:
            self._try_in(self.around.delay)

    def lost(self, machine: Machine) -> None:
        """A machine begins to terminate: whatever the reason, it is replaced while needed.

        AWS finds out by health checks, in minutes; here it is known at once.
        """
        member = self.members.get(machine.id)
        if member is None or member.leaving:
            return
        self._leave(member, UNHEALTHY)
        if not self.deleting and self.units() < self.desired:
            self._try_in(self.around.delay)

    def fail(self, machine: Machine) -> None:
        """A machine is stopped: it is ended, protected or not, and replaced while needed."""
        self.lost(machine)
        self.around.region.terminate(machine)

    def end(self, member: Member, cause: str) -> Activity:
        """Take a member out and terminate it, protected or not."""
        activity = self._leave(member, cause)
        self.around.region.terminate(member.machine)
        return activity

    def detach(self, member: Member) -> Activity:
        """Let a member go on living by itself."""
        machine = member.machine
        del self.members[machine.id]
        machine.keeper = None
        # "The tag ... is removed": from memory.
        self.around.region.tags.get(machine.id, {}).pop(GROUP_TAG, None)
        activity = self.note(f"Detaching EC2 instance: {machine.id}", "instance was detached")
        activity.code = "Successful"
        return activity

    def note(self, description: str, cause: str, **more: Any) -> Activity:
        """Keep an activity that begins now."""
        now = self.around.now()
        number = len(self.activities) + 1
        activity = Activity(
            f"00000000-0000-4000-b{self.number % 1000:03d}-{number:012d}",
            self,
            description,
            f"At {timestamp(now)[:19]}Z {cause}",
            now,
            **more,
        )
        self.activities.append(activity)
        return activity

    def buy(
        self, units: int, subnets: Sequence[str], action: str = "CreateAutoScalingGroup"
    ) -> list[Bought]:
        """Launch members worth `units` in the subnets, as many as there are.

        Capacity faults take it for a call of `action` with the group's name.
        Zones are kept in balance; in a zone without capacity the others take over
        ("balanced-best-effort", the default). Overrides are taken in their order, whatever the
        allocation strategy: the sandbox has no prices.
        """
        capacity = self.around.capacity(action, {"AutoScalingGroupName": self.name})
        bought: list[Bought] = []
        for market, share in self._shares(units):
            full: set[tuple[str, int]] = set()
            missing = share
            while missing > 0 and (plan := self._plan(missing, subnets, full)):
                for (subnet, index), count in plan.items():
                    here = self._launch(self.choices[index], subnet, market, count, capacity)
                    missing -= self.choices[index].weight * len(here.members)
                    bought.append(here)
                    if here.error is not None:
                        full.add((subnet, index))
        return bought

    def _try_in(self, seconds: float) -> None:
        due = self.around.now() + seconds
        if self.due is not None and self.due <= due:
            return
        self.due = due

        def step() -> None:
            if self.due == due:
                self.due = None
                self._grow()

        self.around.schedule(due, step)

    def _grow(self) -> None:
        missing = self.desired - self.units()
        if self.deleting or missing <= 0:
            return
        before = self.units()
        cause = (
            "an instance was started in response to a difference between desired and actual "
            f"capacity, increasing the capacity from {before} to {self.desired}."
        )
        for bought in self.buy(missing, self.subnets):
            self._note_bought(bought, cause)
        if self.units() < self.desired:
            self._try_in(self.around.retry)

    def _note_bought(self, bought: Bought, cause: str) -> None:
        for member in bought.members:
            words = f"Launching a new EC2 instance: {member.machine.id}"
            self.note(words, cause, machine=member.machine, launching=True)
        if bought.error is not None:
            kind = "Spot" if bought.market == SPOT else "On-Demand"
            # In AWS's words; from memory.
            failure = (
                f"Could not launch {kind} Instances. {bought.error.code} - "
                f"{bought.error.message} Launching EC2 instance failed."
            )
            self.note("Launching a new EC2 instance", cause, failure=failure)

    def _shrink(self) -> None:
        """End members that scaling in may end, while the capacity is above the desired one.

        First in the zone with the most, there the oldest (ec2-auto-scaling-termination-policies
        .html: the default policy, as far as all launch templates are alike).
        """
        surplus = self.units() - self.desired
        if surplus <= 0:
            return
        cause = (
            "an instance was taken out of service in response to a difference between desired "
            f"and actual capacity, shrinking the capacity from {self.units()} to {self.desired}."
        )
        zones = Counter(one.machine.zone for one in self.counted())
        while surplus > 0:
            spare = [
                one for one in self.counted() if not one.shielded and one.choice.weight <= surplus
            ]
            if not spare:
                break
            victim = min(spare, key=lambda one: (-zones[one.machine.zone], one.machine.number))
            zones[victim.machine.zone] -= 1
            surplus -= victim.choice.weight
            self.end(victim, cause)
        if surplus > 0 and any(one.shielded for one in self.counted()):
            self.note(ALL_PROTECTED, cause, failure=ALL_PROTECTED, code="Cancelled")

    def _leave(self, member: Member, cause: str) -> Activity:
        member.leaving = True
        words = f"Terminating EC2 instance: {member.machine.id}"
        return self.note(words, cause, machine=member.machine)

    def _shares(self, units: int) -> list[tuple[str | None, int]]:
        """How many of the units to launch in which market; None is the launch template's own."""
        if self.mix is None:
            return [(None, units)]
        has = sum(one.choice.weight for one in self.counted() if one.market == ON_DEMAND)
        on_demand = min(units, max(0, self.mix.on_demand(self.units() + units) - has))
        return [(ON_DEMAND, on_demand), (SPOT, units - on_demand)]

    def _plan(
        self, missing: int, subnets: Sequence[str], full: Iterable[tuple[str, int]]
    ) -> Counter[tuple[str, int]]:
        """How many machines to launch by which choice in which subnet."""
        full = set(full)
        zone_of = {subnet: self.zone(subnet) for subnet in subnets}
        first = {
            subnet: index
            for subnet in subnets
            for index in range(len(self.choices) - 1, -1, -1)
            if (subnet, index) not in full
        }
        load: Counter[str] = Counter()
        for one in self.counted():
            load[one.machine.zone] += one.choice.weight
            load[str(one.machine.instance.subnet_id)] += one.choice.weight
        plan: Counter[tuple[str, int]] = Counter()
        while missing > 0 and first:
            subnet = min(first, key=lambda one: (load[zone_of[one]], load[one]))
            weight = self.choices[first[subnet]].weight
            plan[(subnet, first[subnet])] += 1
            load[zone_of[subnet]] += weight
            load[subnet] += weight
            missing -= weight
        return plan

    def _launch(
        self, choice: Choice, subnet: str, market: str | None, count: int, capacity: Capacity
    ) -> Bought:
        region = self.around.region
        try:
            asked = prepared(region, self._asked(choice, subnet, market))
            here = pool(asked)
        except AwsError as refused:
            return Bought(choice, subnet, choice.instance_type or "", market or "", [], refused)
        room = capacity.room(here)
        possible = count if room is None else min(count, room.left)
        error: AwsError | None = None
        if room is not None and possible < count:
            error = capacity.error(here, room.code)
        admitted = self.around.resources(1, possible) if possible else 0
        if admitted < possible:
            error = AwsError("RequestLimitExceeded", "Request limit exceeded.", 503)
        machines: list[Machine] = []
        if admitted:
            try:
                own = {GROUP_TAG: self.name}
                machines = start(region, asked, admitted, tags=own, keeper=self)
            except AwsError as refused:
                error = refused
            capacity.take(here, len(machines))
        members = [Member(one, choice, here.market, self.protect_new) for one in machines]
        for member in members:
            self.members[member.machine.id] = member
        return Bought(choice, subnet, here.instance_type, here.market, members, error)

    def _asked(self, choice: Choice, subnet: str, market: str | None) -> dict[str, Any]:
        """RunInstances' parameters for a member."""
        asked = self.around.templates.merged({"LaunchTemplate": choice.template})
        if choice.instance_type is not None:
            asked["InstanceType"] = choice.instance_type
        if choice.image is not None:
            asked["ImageId"] = choice.image
        if interfaces := asked.get("NetworkInterfaces"):
            asked["NetworkInterfaces"] = in_subnet(interfaces, subnet)
        else:
            asked["SubnetId"] = subnet
        if market is not None:
            asked.pop("InstanceMarketOptions", None)
        if market == SPOT:
            asked["InstanceMarketOptions"] = {"MarketType": "spot"}
        asked["TagSpecifications"] = self._tagged(asked.get("TagSpecifications", ()))
        return asked

    def _tagged(self, specifications: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The template's tags with the group's on instances: "Amazon EC2 Auto Scaling overrides
        the value of that instance tag" (API_CreateAutoScalingGroup.html, Tags)."""
        own = {key: value for key, (value, propagate) in self.tags.items() if propagate}
        found = [dict(one) for one in specifications if one.get("ResourceType") != "instance"]
        of_template = itertools.chain.from_iterable(
            one.get("Tags", ()) for one in specifications if one.get("ResourceType") == "instance"
        )
        tags = {pair["Key"]: pair.get("Value", "") for pair in of_template} | own
        if tags:
            pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
            found.append({"ResourceType": "instance", "Tags": pairs})
        return found
