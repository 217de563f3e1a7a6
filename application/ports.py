"""What the application needs from outside. A port is here only when two implementations are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from application.instants import Instant

class Clock(Protocol):
    def now(self) -> Instant: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Instance:
    """An instance as EC2 describes it; `batch_id` and `provider` are our tags, "" when absent."""

    machine_id: str
    state: str
    name: str
    private_ip_address: str
    launch_time: int
    zone: str
    instance_type: str
    batch_id: str = ""
    provider: str = ""
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
    """A call did not succeed. `kind` is the class that decides what to do (`aws-errors`):

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

    def terminate(self, machine_ids: Sequence[str]) -> Terminated:
        """Terminate instances of one zone, bisecting around ids that AWS refuses."""
        ...

    def tag_with_id(self, instance: Instance) -> None:
        """Tag the instance and its volumes with its id. Raises CallFailed."""
        ...

    def root_device(self, image_id: str) -> str:
        """The device name of an image's root volume. Raises CallFailed."""
        ...
