"""What the application needs from outside. A port is here only when two implementations are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from application.instants import Instant
from domain.capacity import ON_DEMAND, Pool
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
    price_type: str = ON_DEMAND
    fleet_id: str = ""
    """The fleet or group that AWS says launched it, "" for none."""
    interrupted: bool = False
    """AWS took it back: a spot instance."""

    def facts(self, units: int) -> dict[str, str | int]:
        """What an outcome event keeps of it; `units` is what it counts in its template."""
        return {
            "machine_id": self.machine_id,
            "name": self.name,
            "private_ip_address": self.private_ip_address,
            "launch_time": self.launch_time,
            "zone": self.zone,
            "instance_type": self.instance_type,
            "price_type": self.price_type,
            "units": units,
        }


@dataclass(frozen=True)
class Planned:
    """A launch call before it is made: `payload` are all parameters of `api` but the token, with
    user data by digest. A launch through a launch template needs one of that name first;
    `launch_template` are the parameters that make it, but for the token."""

    api: str
    payload: dict[str, Any]
    user_data: bytes | None = None
    launch_template: dict[str, Any] | None = None


@dataclass(frozen=True)
class Shortage:
    """Why a pool gave fewer: AWS's code and message; `kind` as in CallFailed."""

    pool: str
    kind: str
    code: str
    message: str


@dataclass(frozen=True)
class Launched:
    """AWS accepted the call and gave these instances, maybe fewer than asked, for these reasons.
    `fleet_id` names what the call made; unless it was an instant fleet it goes on launching, and
    its machines are found by their tags."""

    instances: Sequence[Instance]
    aws_request_id: str
    shortages: Sequence[Shortage] = ()
    fleet_id: str = ""


@dataclass(frozen=True)
class Fleet:
    """A fleet or group of ours that may still launch, as AWS describes it; `target` in units."""

    api: str
    fleet_id: str
    target: int
    batch_id: str


@dataclass(frozen=True)
class Notice:
    """AWS's notice that it takes a machine: `reason` is interruption, at `until` (seconds since
    the epoch), or rebalance: soon, it may be. `handle` takes it out of the queue."""

    machine_id: str
    reason: str
    until: int
    handle: str


@dataclass(eq=False)
class CallFailed(Exception):
    """A call did not succeed. `kind` is the class that decides what to do:

    throttled, ambiguous (may have been carried out), shortage (this pool has none), quota (the
    account has none), mismatch (token used with other parameters), refused, not_found,
    template_gone (the launch template of the call is not there), unreachable (never sent)."""

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
    """EC2 of one account and region. Calls that change something go out one at a time, in one
    attempt; looks at many machines by their ids may be several at a time."""

    account: str
    region: str

    @property
    def call_time(self) -> float:
        """Seconds that one attempt of a call can last at most."""
        ...

    def plan(
        self, content: dict[str, Any], pools: Sequence[Pool], units: int, tags: dict[str, str]
    ) -> Planned:
        """The exact launch call for so many units of a template from these pools (RunInstances
        takes one), with what the template leaves open (an image by parameter, a version) resolved.
        Raises CallFailed."""
        ...

    def may_launch(self, api: str, machines: int) -> bool:
        """Whether the buckets and the breaker let a launch of so many go at once; takes nothing."""
        ...

    def is_down(self, api: str) -> bool:
        """Whether the breaker of an API is open: it failed too often just now."""
        ...

    def launch(
        self, api: str, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> Launched:
        """Send exactly this payload with this token (or under its own name, for a group). Raises
        CallFailed."""
        ...

    def create_launch_template(
        self, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> str:
        """Make the launch template of this payload, or find the one that has its name; its id.
        Raises CallFailed."""
        ...

    def delete_launch_template(self, name: str) -> None:
        """Delete it; done when there is none. Raises CallFailed."""
        ...

    def launch_templates(self, deployment: str) -> list[str]:
        """Names of all launch templates with the deployment's tag. Raises CallFailed."""
        ...

    def fleets(self, deployment: str, apis: Sequence[str]) -> list[Fleet]:
        """The deployment's fleets and groups, made by these APIs, that may still launch (instant
        fleets never do). Raises CallFailed."""
        ...

    def why_short(self, api: str, fleet_id: str) -> list[Shortage]:
        """What AWS says of launches of a fleet or group that failed. Raises CallFailed."""
        ...

    def set_target(self, api: str, fleet_id: str, target: int, on_demand: int) -> None:
        """Make it launch no more than `target` units, `on_demand` of them on demand; absolute, and
        nothing is terminated by it. Done when it is gone. Raises CallFailed."""
        ...

    def delete_fleets(self, api: str, fleet_type: str, fleet_ids: Sequence[str]) -> list[str]:
        """Let these launch no more, and go. Those of them that are gone or on their way; machines
        live on, but those of an instant fleet do not: it must have none. Raises CallFailed."""
        ...

    def sweep(self, deployment: str) -> list[Instance]:
        """Every instance with the deployment's tag, all pages. Raises CallFailed: then nothing is
        known, however many pages came."""
        ...

    def find(
        self,
        machine_ids: Sequence[str],
        names: Sequence[str] = (),
        batches: Sequence[str] = (),
    ) -> list[Instance]:
        """Those of these instances that exist, and all of these batches, by filter: unknown ids do
        not fail it. Raises CallFailed."""
        ...

    def may_terminate(self, machines: int) -> bool:
        """Whether the buckets and the breaker let so many be terminated at once; takes nothing."""
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

    def notices(self, keep_others: bool = False) -> list[Notice]:
        """Some of AWS's notices that wait in the site's queue; [] when none does. They come again
        until they are settled. Other messages are taken out of the queue, unless they are to be
        kept. Raises CallFailed."""
        ...

    def settle_notices(self, handles: Sequence[str]) -> None:
        """Take recorded notices out of the queue. Raises CallFailed."""
        ...


class Ledger(Protocol):
    """Aggregates from their events and back, one commit a save (`event_sourcing.Ledger`)."""

    def get(
        self, aggregate_class: type[A], identifier: str, *, from_log: bool = False
    ) -> A | None: ...

    def save(self, *aggregates: Any, **metadata: Any) -> Any: ...


class Lease(Protocol):
    """The right to act on one account and region."""

    @property
    def fence(self) -> tuple[str, int]: ...

    @property
    def held(self) -> bool:
        """Whether this process took it, and has not learned that it lost it."""
        ...

    def renew(self) -> bool: ...

    def remaining(self) -> float: ...

    def since_another(self) -> float:
        """Seconds since this one followed a holder who did not give it back."""
        ...


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

    def batch(self, batch_id: str) -> Row | None: ...

    def fleets(self) -> list[Row]: ...

    def launch_template(self, key: str) -> Row | None: ...

    def launch_templates(self) -> list[Row]: ...

    def launch_template_names(self) -> list[str]: ...

    def had_launch_template(self) -> bool: ...

    def open_requests(self) -> list[Row]: ...

    def brake(self) -> tuple[str, str]: ...

    def launch_apis(self) -> list[str]: ...

    def fleet_apis(self) -> list[str]: ...

    def machines_by_account(self) -> dict[str, int]: ...

    def abandoned(self, places: Sequence[tuple[str, str]]) -> list[dict[str, Any]]: ...

    def machines_by_template(self) -> list[Row]: ...

    def template_content(self, template_key: str, revision: str) -> dict[str, Any]: ...

    def templates(self, provider: str) -> dict[str, str]: ...

    def body(self, digest: str) -> bytes | None: ...

    def owed_machines(self) -> list[Row]: ...

    def open_terminations(self) -> list[Row]: ...

    def alive_machines(self, machine_ids: Sequence[str] | None = None) -> list[Row]:
        """All that live in the account and region, or those of these."""
        ...

    def count_alive(self) -> int: ...

    def machines_in(self, statuses: Sequence[str]) -> list[str]: ...

    def interruptible(self, machine_ids: Sequence[str]) -> list[Row]: ...

    def anything_alive(self) -> bool: ...

    def living_machines_of(self, request_id: str) -> list[str]: ...

    def open_returns(self) -> list[Row]: ...

    def protected(self, machine_ids: Sequence[str]) -> list[str]: ...

    def known_machines(self, machine_ids: Sequence[str]) -> dict[str, bool]: ...

    def tracked(self, name: str) -> int:
        """The position that was last tracked under this name; 0 at first."""
        ...

    def refusals(self, position: int) -> dict[str, str]:
        """Machine -> the code by which EC2 refused to end it, when that was its last word after
        this position."""
        ...

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

    def note(self, thing: str, at: Instant) -> None: ...

    def last(self, thing: str) -> Instant | None: ...

    def kept(self) -> dict[str, Instant]: ...

    def keep(self, texts: Mapping[str, Instant], instead_of: Sequence[str]) -> None: ...

    def miss(self, machine_ids: Sequence[str], now: Instant) -> list[str]: ...

    def see_orphans(self, instances: Sequence[Instance]) -> dict[str, int]: ...

    def add_calling(self, name: str, lines: Sequence[Instant]) -> None: ...

    def calling(self, name: str) -> float: ...

    def unseen_since(self, things: dict[str, float]) -> dict[str, float]: ...
