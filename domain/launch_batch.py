"""A batch: one intended AWS launch call, its token, its exact payload, and whose it is."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent
from domain.refusals import NotDoubtful

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPEN = "open"
ACCEPTED = "accepted"
FILLING = "filling"
REJECTED = "rejected"
DOUBTFUL = "doubtful"
SETTLED = "settled"
CLOSED = "closed"


def _weigh(instances: list[dict[str, Any]]) -> None:
    """Version 1 knew on-demand machines of one unit each."""
    for instance in instances:
        instance |= {"price_type": "ondemand", "units": 1}


class LaunchIntended(DomainEvent):
    """Written before the call. `payload` are the parameters of `api` but for the token; `claims`
    are [request id, units] in the order in which they are filled; at most `machines` are launched.
    `reason` says why in this account and these pools."""

    class_version = 2

    epoch: int
    api: str
    token: str
    payload: dict[str, Any]
    claims: list[list[Any]]
    account: str
    region: str
    pool: str
    provider: str
    template_id: str
    revision: str
    launch_template: str
    machines: int
    reason: str

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        machines = sum(count for _, count in state["claims"])
        state |= {"api": "RunInstances", "launch_template": "", "reason": "", "machines": machines}


class LaunchAccepted(DomainEvent):
    """What AWS gave. `deal` is [request id, [machine ids]] and is never computed again; nobody
    may have the `surplus`; `missing` units were not given, for the `shortages`
    [pool, class, code, message]; with `gives_up` trying anything like it again is of no use. When
    it is `filling`, the fleet or group `fleet_id` goes on launching: its machines follow in
    LaunchSettled, until LaunchClosed."""

    class_version = 2

    epoch: int
    aws_request_id: str
    instances: list[dict[str, Any]]
    deal: list[list[Any]]
    surplus: list[str]
    missing: int
    shortages: list[list[str]]
    gives_up: bool
    fleet_id: str
    filling: bool

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        _weigh(state["instances"])
        state |= {"shortages": [], "gives_up": False, "fleet_id": "", "filling": False}


class LaunchRejected(DomainEvent):
    """`definite`: nothing was launched, for sure. Otherwise the batch waits to be settled.
    `gives_up`: sending anything like it again is of no use."""

    epoch: int
    code: str
    message: str
    definite: bool
    gives_up: bool


class LaunchSettled(DomainEvent):
    """Two complete sweeps for the batch's tag decided; or machines of it turned up afterwards, as
    those of a fleet do."""

    class_version = 2

    instances: list[dict[str, Any]]
    deal: list[list[Any]]
    surplus: list[str]

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        _weigh(state["instances"])


class LaunchSettlementOrdered(DomainEvent):
    """An operator has the doubtful batch settled by the next complete sweep instead of by two."""

    reason: str


class LaunchClosed(DomainEvent):
    """The batch's fleet launches no more: what its claims lack, [request id, units], is open demand
    again or missing, for the `shortages` [pool, class, code, message]."""

    claims: list[list[Any]]
    shortages: list[list[str]]


def deal(
    machines: list[tuple[str, int]], claims: list[list[Any]]
) -> tuple[list[list[Any]], list[str]]:
    """Give machines (id, units) to claims in their order, one filled before the next; the rest is
    surplus. The last machine of a claim may overshoot it.

    `claims` are [request id, units], the closed ones taken out and open demand for the same
    payload put behind them: what overshoots a request's claim counts for its open demand. Returns
    the deal, which names a request once, and the surplus.
    """
    left = list(machines)
    dealt: dict[str, list[str]] = {}
    owed: dict[str, int] = {}
    for request_id, units in claims:
        owed[request_id] = owed.get(request_id, 0) + units
        while left and owed[request_id] > 0:
            machine_id, counts = left.pop(0)
            dealt.setdefault(request_id, []).append(machine_id)
            owed[request_id] -= counts
    return [[r, given] for r, given in dealt.items()], [machine_id for machine_id, _ in left]


def _weights(instances: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(instance["machine_id"], instance["units"]) for instance in instances]


class LaunchBatch(Aggregate):
    STREAM = "batch"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.state = ""
        self.epoch = -1
        self.claims: list[list[Any]] = []
        self.intent: LaunchIntended | None = None
        self.machine_ids: set[str] = set()
        self.ordered = False

    def intend(
        self,
        epoch: int,
        api: str,
        token: str,
        payload: dict[str, Any],
        claims: list[list[Any]],
        account: str,
        region: str,
        pool: str,
        provider: str,
        template_id: str,
        revision: str,
        launch_template: str,
        machines: int,
        reason: str,
    ) -> None:
        """Write down the call before it is made: first, or again after a definite rejection."""
        if self.state not in ("", REJECTED) or epoch != self.epoch + 1:
            raise ValueError(f"{self.id} is {self.state}: epoch {epoch} cannot follow {self.epoch}")
        self._trigger(
            LaunchIntended,
            epoch=epoch,
            api=api,
            token=token,
            payload=payload,
            claims=claims,
            account=account,
            region=region,
            pool=pool,
            provider=provider,
            template_id=template_id,
            revision=revision,
            launch_template=launch_template,
            machines=machines,
            reason=reason,
        )

    def accept(
        self,
        aws_request_id: str,
        instances: list[dict[str, Any]],
        open_claims: list[list[Any]],
        shortages: list[list[str]],
        gives_up: bool,
        fleet_id: str,
        filling: bool,
    ) -> None:
        """Record what AWS gave and who gets it, once."""
        if self.state != OPEN:
            return
        given, surplus = deal(_weights(instances), open_claims)
        asked = sum(units for _, units in self.claims)
        self._trigger(
            LaunchAccepted,
            epoch=self.epoch,
            aws_request_id=aws_request_id,
            instances=instances,
            deal=given,
            surplus=surplus,
            missing=0 if filling else max(0, asked - sum(i["units"] for i in instances)),
            shortages=shortages,
            gives_up=gives_up,
            fleet_id=fleet_id,
            filling=filling,
        )

    def reject(self, code: str, message: str, definite: bool, gives_up: bool) -> None:
        """Record a rejection. Definite only when no attempt with this token was ambiguous."""
        if self.state == OPEN:
            self._trigger(
                LaunchRejected,
                epoch=self.epoch,
                code=code,
                message=message,
                definite=definite,
                gives_up=gives_up,
            )

    def settle(self, instances: list[dict[str, Any]], open_claims: list[list[Any]]) -> None:
        """Close the batch by what was found under its tag, or take in what turned up later."""
        new = [i for i in instances if i["machine_id"] not in self.machine_ids]
        if self.state in (OPEN, DOUBTFUL) or new:
            given, surplus = deal(_weights(new), open_claims)
            self._trigger(LaunchSettled, instances=new, deal=given, surplus=surplus)

    def order_settlement(self, reason: str) -> None:
        """Have it settled by one sweep; once. Raises NotDoubtful."""
        if self.state != DOUBTFUL:
            raise NotDoubtful(
                f"{self.identifier} is {self.state}: only a launch whose outcome is in doubt "
                "(doubtful) can be settled by order; `hostledger batches list --open` shows those"
            )
        if not self.ordered:
            self._trigger(LaunchSettlementOrdered, reason=reason)

    def close(self, claims: list[list[Any]], shortages: list[list[str]]) -> None:
        """Its fleet launches no more; `claims` are what it still owed."""
        if self.state == FILLING:
            self._trigger(LaunchClosed, claims=claims, shortages=shortages)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, LaunchIntended):
            self.state = OPEN
            self.epoch = event.epoch
            self.claims = event.claims
            self.intent = event
        elif isinstance(event, LaunchAccepted):
            self.state = FILLING if event.filling else ACCEPTED
            self.machine_ids |= {i["machine_id"] for i in event.instances}
        elif isinstance(event, LaunchRejected):
            self.state = REJECTED if event.definite else DOUBTFUL
        elif isinstance(event, LaunchSettlementOrdered):
            self.ordered = True
        elif isinstance(event, LaunchClosed):
            self.state = CLOSED
        elif isinstance(event, LaunchSettled):
            if self.state != FILLING:
                self.state = SETTLED
            self.machine_ids |= {i["machine_id"] for i in event.instances}
