"""A request for machines: asked, given machines, and one day final."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent
from domain.refusals import RequestIsFinal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPEN = "open"
FULFILLED = "fulfilled"
PARTLY_FULFILLED = "partly fulfilled"
FAILED = "failed"
CANCELLED = "cancelled"


class MachinesRequested(DomainEvent):
    """`machine_count` is in units; `fulfilment_deadline` in seconds from here; `source`:
    hostfactory, operator or worker; `rc_account` is LSF's, "" for none; `reason` is why an operator
    asked, "" where none is given."""

    class_version = 3

    provider: str
    template_id: str
    revision: str
    machine_count: int
    fulfilment_deadline: float
    source: str
    rc_account: str
    reason: str

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["rc_account"] = ""

    @staticmethod
    def upcast_v2_v3(state: dict[str, Any]) -> None:
        state["reason"] = ""


class MachinesAssigned(DomainEvent):
    """These machines of a batch are this request's; `units` is what they count."""

    batch_id: str
    machine_ids: list[str]
    units: int


class RequestFellShort(DomainEvent):
    """A pool gave `missing` units fewer than it was asked for, for this AWS reason. After one
    that `gives_up` (permissions, a parameter, the account's quota) no launch is tried again."""

    batch_id: str
    pool: str
    reason: str
    message: str
    missing: int
    gives_up: bool


class RequestFulfilled(DomainEvent):
    fulfilled: int


class RequestPartlyFulfilled(DomainEvent):
    fulfilled: int
    missing: int
    message: str


class RequestFailed(DomainEvent):
    message: str


class RequestCancelled(DomainEvent):
    reason: str


class MachineRequest(Aggregate):
    STREAM = "request"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.state = OPEN
        self.provider = ""
        self.rc_account = ""
        self.machine_count = 0
        self.machine_ids: list[str] = []
        self.shortages: dict[tuple[str, str], str] = {}
        self.has_given_up = False
        """(pool, reason) -> AWS's message"""

    @classmethod
    def ask(
        cls,
        request_id: str,
        provider: str,
        template_id: str,
        revision: str,
        machine_count: int,
        fulfilment_deadline: float,
        source: str,
        rc_account: str = "",
        reason: str = "",
    ) -> MachineRequest:
        self = cls(cls.stream(request_id))
        self._trigger(
            MachinesRequested,
            provider=provider,
            template_id=template_id,
            revision=revision,
            machine_count=machine_count,
            fulfilment_deadline=fulfilment_deadline,
            source=source,
            rc_account=rc_account,
            reason=reason,
        )
        return self

    def assign(self, batch_id: str, machines: dict[str, int]) -> None:
        """Follow a deal (machine id -> units); machines it has already are not assigned twice."""
        new = [machine for machine in machines if machine not in self.machine_ids]
        if new:
            units = sum(machines[machine] for machine in new)
            self._trigger(MachinesAssigned, batch_id=batch_id, machine_ids=new, units=units)

    def fall_short(
        self, batch_id: str, pool: str, reason: str, message: str, missing: int, gives_up: bool
    ) -> None:
        """Record once per pool and reason why machines are missing, while it matters, and again
        when the same reason makes it give up."""
        is_new = (pool, reason) not in self.shortages or (gives_up and not self.has_given_up)
        if self.state == OPEN and is_new:
            self._trigger(
                RequestFellShort,
                batch_id=batch_id,
                pool=pool,
                reason=reason,
                message=message,
                missing=missing,
                gives_up=gives_up,
            )

    def finish(self, succeeded: int, why: str) -> None:
        """Become final with the units that run; `why` says what is missing and is for people."""
        if self.state != OPEN:
            return
        if succeeded >= self.machine_count:
            self._trigger(RequestFulfilled, fulfilled=succeeded)
        elif succeeded:
            missing = self.machine_count - succeeded
            self._trigger(RequestPartlyFulfilled, fulfilled=succeeded, missing=missing, message=why)
        else:
            self._trigger(RequestFailed, message=why)

    def cancel(self, reason: str) -> None:
        """End the demand. Raises RequestIsFinal."""
        if self.state != OPEN:
            raise RequestIsFinal(
                f"request {self.identifier} is {self.state} and cannot be cancelled: "
                "machines that it has are given back by `hostledger machines return`"
            )
        self._trigger(RequestCancelled, reason=reason)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, MachinesRequested):
            self.provider = event.provider
            self.rc_account = event.rc_account
            self.machine_count = event.machine_count
        elif isinstance(event, MachinesAssigned):
            self.machine_ids += event.machine_ids
        elif isinstance(event, RequestFellShort):
            self.shortages[event.pool, event.reason] = event.message
            self.has_given_up |= event.gives_up
        elif isinstance(event, RequestFulfilled):
            self.state = FULFILLED
        elif isinstance(event, RequestPartlyFulfilled):
            self.state = PARTLY_FULFILLED
        elif isinstance(event, RequestFailed):
            self.state = FAILED
        elif isinstance(event, RequestCancelled):
            self.state = CANCELLED
