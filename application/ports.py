"""What the application needs from outside. A port is here only when two implementations are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from application.instants import Instant
from domain.event_sourced import Aggregate

A = TypeVar("A", bound=Aggregate)


class Clock(Protocol):
    def now(self) -> Instant: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Instance:
    """An instance as EC2 describes it; `batch_id`, `provider` and `deployment` are our tags, ""
    when absent."""

    machine_id: str
    state: str
    name: str
    private_ip_address: str
    launch_time: int
    zone: str
    instance_type: str
    batch_id: str = ""
    provider: str = ""
    deployment: str = ""
    reason: str = ""
    volume_ids: tuple[str, ...] = ()
    tagged_with_id: bool = False

    def facts(self) -> dict[str, str | int]:
        """What an outcome event keeps of it."""
        return {
            "machine_id": self.machine_id,
            "name": self.name,
            "private_ip_address": self.private_ip_address,
            "launch_time": self.launch_time,
            "zone": self.zone,
            "instance_type": self.instance_type,
        }


@dataclass(frozen=True)
class Launched:
    """AWS accepted the call and gave these instances, maybe fewer than asked."""

    instances: Sequence[Instance]
    aws_request_id: str


@dataclass(frozen=True)
class CallFailed(Exception):
    """A call did not succeed. `kind` is the class that decides what to do:

    throttled, ambiguous (may have been carried out), shortage (this pool has none), quota (the
    account has none), mismatch (token used with other parameters), refused, not_found, unreachable
    (never sent)."""

    kind: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True)
class Terminated:
    """AWS's answer for each machine: accepted, or [machine id, code] refused."""

    accepted: list[str]
    refused: list[list[str]]
    aws_request_id: str
    """"" when nothing was accepted."""
    retry: list[str] = field(default_factory=list)
    """Neither: the call could not be made or is not known; asked again."""


class Cloud(Protocol):
    """EC2 of one account and region. Calls go out one at a time per method call, in one attempt."""

    account: str
    region: str

    @property
    def call_time(self) -> float:
        """Seconds that one attempt of a call can last at most."""
        ...

    def payload(
        self, content: dict[str, Any], pool: str, count: int, tags: dict[str, str]
    ) -> tuple[dict[str, Any], bytes | None]:
        """The exact launch call for a template and a pool, and the body of its user data. Raises
        CallFailed."""
        ...

    def may_launch(self, machines: int) -> bool:
        """Whether the buckets and the breaker let a launch of so many go at once; takes nothing."""
        ...

    def launch(self, payload: dict[str, Any], token: str, user_data: bytes | None) -> Launched:
        """Send exactly this payload with this token. Raises CallFailed."""
        ...

    def sweep(self, deployment: str) -> list[Instance]:
        """Every instance with the deployment's tag, all pages. Raises CallFailed: then nothing is
        known, however many pages came."""
        ...

    def find(self, machine_ids: Sequence[str], names: Sequence[str] = ()) -> list[Instance]:
        """Those of these instances that exist, by filter: unknown ids do not fail it. Raises
        CallFailed."""
        ...

    def terminate(
        self, machine_ids: Sequence[str], before_each: Callable[[], object] = ...
    ) -> Terminated:
        """Terminate instances of one zone, bisecting around ids that AWS refuses. `before_each` is
        called before each call and may raise: the rest is left."""
        ...

    def tag_with_id(self, instance: Instance) -> None:
        """Tag the instance and its volumes with its id. Raises CallFailed."""
        ...


class Ledger(Protocol):
    """Aggregates from their events and back, one commit a save (`event_sourcing.Ledger`)."""

    def get(self, aggregate_class: type[A], identifier: str) -> A | None: ...

    def save(self, *aggregates: Any, **metadata: Any) -> Any: ...


class Lease(Protocol):
    """The right to act on one account and region."""

    @property
    def fence(self) -> tuple[str, int]: ...

    def renew(self) -> bool: ...

    def remaining(self) -> float: ...


class Journal(Protocol):
    def debug(self, what: str, **facts: Any) -> None: ...

    def info(self, what: str, **facts: Any) -> None: ...

    def warn(self, what: str, **facts: Any) -> None: ...

    def error(self, what: str, **facts: Any) -> None: ...


Row = dict[str, Any]


class Work(Protocol):
    """What is open, from the read models: the policies keep no state that a restart could lose."""

    def open_batches(self) -> list[Row]: ...

    def rejected_batch(
        self, batch_id: str, payload: dict[str, Any], claims: list[list[Any]]
    ) -> Row | None: ...

    def batch_state(self, batch_id: str) -> str | None: ...

    def open_requests(self) -> list[Row]: ...

    def template_content(self, template_key: str, revision: str) -> dict[str, Any]: ...

    def templates(self, provider: str) -> dict[str, str]: ...

    def body(self, digest: str) -> bytes | None: ...

    def owed_machines(self) -> list[Row]: ...

    def open_terminations(self) -> list[Row]: ...

    def alive_machines(self) -> list[Row]: ...

    def anything_alive(self) -> bool: ...

    def living_machines_of(self, request_id: str) -> list[str]: ...

    def open_returns(self) -> list[Row]: ...

    def known_machines(self, machine_ids: Sequence[str]) -> dict[str, bool]: ...

    def events_after(self, policy: str, topics: Sequence[str], limit: int) -> list[Row]: ...

    def first_sightings(
        self, requests: list[str], finals: list[str], machines: list[str]
    ) -> tuple[list[str], list[str], list[str]]: ...

    def unseen_requests(self) -> list[Row]: ...

    def unclaimed_machines(self) -> list[Row]: ...

    def stream_version(self, stream: str) -> int: ...

    def oldest_instant(self) -> float: ...

    def anything_open(self) -> bool: ...


class Notebook(Protocol):
    """What the worker remembers between turns and tells the scripts; no history."""

    def record_sweep(self, began: Instant, instances: int) -> None: ...

    def put_cloud_states(self, states: Sequence[tuple[str, str, str]], now: Instant) -> None: ...

    def clear_cloud_states(self, machine_ids: Sequence[str]) -> None: ...

    def first_sweep(self, thing: str, began: Instant) -> Instant: ...

    def miss(self, machine_ids: Sequence[str], now: Instant) -> list[str]: ...

    def see_orphans(self, instances: Sequence[Instance]) -> dict[str, int]: ...

    def add_calling(self, name: str, lines: Sequence[Instant]) -> None: ...

    def calling(self, name: str) -> float: ...

    def unseen_since(self, things: dict[str, float]) -> dict[str, float]: ...
