"""One short turn of the worker's policies inside a HostFactory call (`worker.mode` inline)."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from application.failures import BrokenConfiguration, NotConfigured, StoreError
from application.ports import CallFailed, Clock, Cloud, Instance, Launched, Terminated
from interfaces.write_side import WriteSide

if TYPE_CHECKING:
    from interfaces.read_side import Call

EXPECTED = (StoreError, BrokenConfiguration, NotConfigured, CallFailed, OSError)


class CloudWithin:
    """A `Cloud` that starts no call which could outlast `until` (seconds of the boot clock)."""

    def __init__(self, cloud: Cloud, clock: Clock, until: float) -> None:
        self._cloud = cloud
        self._clock = clock
        self._until = until
        self.account = cloud.account
        self.region = cloud.region

    def _refuse_late(self) -> None:
        if not self._has_time():
            raise CallFailed("unreachable", "TurnIsOver", "worker.turn_budget is spent")

    def _has_time(self) -> bool:
        return self._clock.now()[2] + self.call_time <= self._until

    @property
    def call_time(self) -> float:
        return self._cloud.call_time

    def payload(
        self, content: dict[str, Any], pool: str, count: int, tags: dict[str, str]
    ) -> tuple[dict[str, Any], bytes | None]:
        self._refuse_late()
        return self._cloud.payload(content, pool, count, tags)

    def may_launch(self, machines: int) -> bool:
        return self._has_time() and self._cloud.may_launch(machines)

    def launch(self, payload: dict[str, Any], token: str, user_data: bytes | None) -> Launched:
        self._refuse_late()
        return self._cloud.launch(payload, token, user_data)

    def sweep(self, deployment: str) -> list[Instance]:
        self._refuse_late()
        return self._cloud.sweep(deployment)

    def find(self, machine_ids: Sequence[str], names: Sequence[str] = ()) -> list[Instance]:
        self._refuse_late()
        return self._cloud.find(machine_ids, names)

    def terminate(
        self, machine_ids: Sequence[str], before_each: Callable[[], object] = lambda: None
    ) -> Terminated:
        if not self._has_time():
            return Terminated([], [], "", retry=list(machine_ids))

        def in_time() -> None:
            self._refuse_late()
            before_each()

        return self._cloud.terminate(machine_ids, in_time)

    def tag_with_id(self, instance: Instance) -> None:
        self._refuse_late()
        self._cloud.tag_with_id(instance)


def take_turn(call: Call) -> bool:
    """Take one turn when the lease is free at once; whether it was taken. Raises nothing."""
    try:
        taken = _turn(call)
    except EXPECTED as error:
        reason = str(error)
    except Exception as error:  # the answer of this call stands, whatever becomes of its turn
        reason = f"{type(error).__name__}: {error}"
        call.journal().error("defect", trace=traceback.format_exc())
    else:
        if taken:
            call.tell_turn("")
        return taken
    call.tell_turn(reason)
    call.journal().error("turn failed", message=reason)
    return False


def _turn(call: Call) -> bool:
    until = call.clock.now()[2] + call.settings["worker"]["turn_budget"]
    compiled = _with_short_calls(call)
    side = WriteSide(
        site=call.site,
        environ=call.environ,
        process=call.verb,
        clock=call.clock,
        compiled=compiled,
    )
    try:
        side.store().refuse_failed_projections()
        side.cloud.override(CloudWithin(side.cloud(), call.clock, until))
        lease = side.lease()
        if not lease.acquire():
            return False
        try:
            side.policies().take_turn(compiled.templates())
        finally:
            lease.release()
        return True
    finally:
        side.store().close()


def _with_short_calls(call: Call) -> Any:
    """The compiled form with one attempt a call, so short that a turn can hold two in a row."""
    compiled = copy.copy(call.compiled)
    compiled.settings = copy.deepcopy(call.settings)
    aws, budget = compiled.settings["provider"]["aws"], compiled.settings["worker"]["turn_budget"]
    aws["launch_retries"] = aws["describe_retries"] = 0
    aws["config"]["retries"]["max_attempts"] = 1
    for name, part in (("connect_timeout", 0.1), ("read_timeout", 0.4)):
        aws["timeouts"][name] = min(aws["timeouts"][name], budget * part)
    return compiled
