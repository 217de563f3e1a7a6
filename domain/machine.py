"""A machine of ours, from its launch to its end. Its id is EC2's instance id."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent
from domain.refusals import MachineIsGone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LAUNCHED = "launched"
RUNNING = "running"
TERMINATED = "terminated"
LOST = "lost"


class MachineLaunched(DomainEvent):
    """EC2 gave the machine; `request_id` is whose it is, "" for surplus. `launch_time` is EC2's,
    in whole seconds since the epoch; `name` and `private_ip_address` may be "" until it runs;
    `units` is what it counts in its request."""

    class_version = 2

    request_id: str
    batch_id: str
    provider: str
    template_id: str
    revision: str
    account: str
    region: str
    zone: str
    instance_type: str
    price_type: str
    name: str
    private_ip_address: str
    launch_time: int
    units: int

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["units"] = 1


class MachineAdopted(DomainEvent):
    """An operator took an instance with our tag into the ledger, for no request; nobody ends it
    but by returning it. The fields are those of MachineLaunched."""

    batch_id: str
    provider: str
    template_id: str
    revision: str
    account: str
    region: str
    zone: str
    instance_type: str
    price_type: str
    name: str
    private_ip_address: str
    launch_time: int
    units: int
    reason: str


class MachineProtected(DomainEvent):
    """From now on nothing of ours ends it, neither a rule nor a return."""

    reason: str


class MachineUnprotected(DomainEvent):
    reason: str


class MachineRunning(DomainEvent):
    name: str
    private_ip_address: str
    launch_time: int


class MachineInterrupted(DomainEvent):
    """AWS has said that it takes the machine at `until` (seconds since the epoch)."""

    reason: str
    until: int


class MachineReturned(DomainEvent):
    return_id: str
    reason: str


class MachineTerminated(DomainEvent):
    reason: str


class MachineLost(DomainEvent):
    """EC2 does not know it any more, after complete sweeps and a question by id."""

    reason: str


class Machine(Aggregate):
    STREAM = "machine"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.state = ""
        self.request_id = ""
        self.protected = ""
        self.returns: list[str] = []
        self.interruptions: list[str] = []

    @property
    def is_gone(self) -> bool:
        return self.state in (TERMINATED, LOST)

    def launch(self, **facts: str | int) -> None:
        """Record the launch; once."""
        if not self.state:
            self._trigger(MachineLaunched, **facts)

    def adopt(self, **facts: str | int) -> None:
        """Take it in without a request; once."""
        if not self.state:
            self._trigger(MachineAdopted, **facts)

    def protect(self, reason: str) -> None:
        """Keep it from being ended, or say another reason. Raises MachineIsGone."""
        if self.is_gone:
            raise MachineIsGone(
                f"{self.identifier} is {self.state}: only a machine that lives can be protected"
            )
        if self.protected != reason:
            self._trigger(MachineProtected, reason=reason)

    def unprotect(self, reason: str) -> None:
        if self.protected:
            self._trigger(MachineUnprotected, reason=reason)

    def run(self, name: str, private_ip_address: str, launch_time: int) -> None:
        if self.state == LAUNCHED:
            self._trigger(
                MachineRunning,
                name=name,
                private_ip_address=private_ip_address,
                launch_time=launch_time,
            )

    def interrupt(self, reason: str, until: int) -> None:
        """Record once of each kind (`reason`) that AWS said so."""
        if not self.is_gone and reason not in self.interruptions:
            self._trigger(MachineInterrupted, reason=reason, until=until)

    def hand_back(self, return_id: str, reason: str) -> None:
        if return_id not in self.returns:
            self._trigger(MachineReturned, return_id=return_id, reason=reason)

    def terminate(self, reason: str) -> None:
        if not self.is_gone:
            self._trigger(MachineTerminated, reason=reason)

    def lose(self, reason: str) -> None:
        if not self.is_gone:
            self._trigger(MachineLost, reason=reason)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, MachineLaunched):
            self.state = LAUNCHED
            self.request_id = event.request_id
        elif isinstance(event, MachineAdopted):
            self.state = LAUNCHED
        elif isinstance(event, MachineProtected):
            self.protected = event.reason
        elif isinstance(event, MachineUnprotected):
            self.protected = ""
        elif isinstance(event, MachineRunning):
            self.state = RUNNING
        elif isinstance(event, MachineInterrupted):
            self.interruptions.append(event.reason)
        elif isinstance(event, MachineReturned):
            self.returns.append(event.return_id)
        elif isinstance(event, MachineTerminated):
            self.state = TERMINATED
        elif isinstance(event, MachineLost):
            self.state = LOST
