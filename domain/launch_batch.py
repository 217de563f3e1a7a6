"""A batch: one intended AWS launch call, its token, its exact payload, and whose it is."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPEN = "open"
ACCEPTED = "accepted"
REJECTED = "rejected"
DOUBTFUL = "doubtful"
SETTLED = "settled"


class LaunchIntended(DomainEvent):
    """Written before the call. `payload` is the exact call but for the token; `claims` are
    [request id, count] in the order in which they are filled."""

    epoch: int
    token: str
    payload: dict[str, Any]
    claims: list[list[Any]]
    account: str
    region: str
    pool: str
    provider: str
    template_id: str
    revision: str


class LaunchAccepted(DomainEvent):
    """What AWS gave. `deal` is [request id, [machine ids]] and is never computed again; nobody
    may have the `surplus`; `missing` machines were not given."""

    epoch: int
    aws_request_id: str
    instances: list[dict[str, Any]]
    deal: list[list[Any]]
    surplus: list[str]
    missing: int


class LaunchRejected(DomainEvent):
    """`definite`: nothing was launched, for sure. Otherwise the batch waits to be settled.
    `gives_up`: sending anything like it again is of no use."""

    epoch: int
    code: str
    message: str
    definite: bool
    gives_up: bool


class LaunchSettled(DomainEvent):
    """Two complete sweeps for the batch's tag decided; or machines of it turned up afterwards."""

    instances: list[dict[str, Any]]
    deal: list[list[Any]]
    surplus: list[str]


def deal(machine_ids: list[str], claims: list[list[Any]]) -> tuple[list[list[Any]], list[str]]:
    """Give machines to claims in their order, one filled before the next; the rest is surplus.

    `claims` are [request id, count], the closed ones taken out and open demand for the same
    payload put behind them. Returns the deal and the surplus.
    """
    left = list(machine_ids)
    dealt: list[list[Any]] = []
    for request_id, count in claims:
        if not left or count < 1:
            continue
        given, left = left[:count], left[count:]
        dealt.append([request_id, given])
    return dealt, left


class LaunchBatch(Aggregate):
    STREAM = "batch"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.state = ""
        self.epoch = -1
        self.claims: list[list[Any]] = []
        self.intent: LaunchIntended | None = None
        self.machine_ids: set[str] = set()

    def intend(
        self,
        epoch: int,
        token: str,
        payload: dict[str, Any],
        claims: list[list[Any]],
        account: str,
        region: str,
        pool: str,
        provider: str,
        template_id: str,
        revision: str,
    ) -> None:
        """Write down the call before it is made: first, or again after a definite rejection."""
        if self.state not in ("", REJECTED) or epoch != self.epoch + 1:
            raise ValueError(f"{self.id} is {self.state}: epoch {epoch} cannot follow {self.epoch}")
        self._trigger(
            LaunchIntended,
            epoch=epoch,
            token=token,
            payload=payload,
            claims=claims,
            account=account,
            region=region,
            pool=pool,
            provider=provider,
            template_id=template_id,
            revision=revision,
        )

    def accept(
        self,
        aws_request_id: str,
        instances: list[dict[str, Any]],
        open_claims: list[list[Any]],
    ) -> None:
        """Record what AWS gave and who gets it, once."""
        if self.state != OPEN:
            return
        given, surplus = deal([i["machine_id"] for i in instances], open_claims)
        asked = sum(count for _, count in self.claims)
        self._trigger(
            LaunchAccepted,
            epoch=self.epoch,
            aws_request_id=aws_request_id,
            instances=instances,
            deal=given,
            surplus=surplus,
            missing=max(0, asked - len(instances)),
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
            given, surplus = deal([i["machine_id"] for i in new], open_claims)
            self._trigger(LaunchSettled, instances=new, deal=given, surplus=surplus)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, LaunchIntended):
            self.state = OPEN
            self.epoch = event.epoch
            self.claims = event.claims
            self.intent = event
        elif isinstance(event, LaunchAccepted):
            self.state = ACCEPTED
            self.machine_ids |= {i["machine_id"] for i in event.instances}
        elif isinstance(event, LaunchRejected):
            self.state = REJECTED if event.definite else DOUBTFUL
        elif isinstance(event, LaunchSettled):
            self.state = SETTLED
            self.machine_ids |= {i["machine_id"] for i in event.instances}
