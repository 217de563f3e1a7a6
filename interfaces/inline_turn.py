"""One short turn of the worker's policies inside a HostFactory call (`worker.mode` inline)."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from application.failures import BrokenConfiguration, NotConfigured, StoreBusy, StoreError
from application.ports import (
    CallFailed,
    Clock,
    Cloud,
    Fleet,
    Instance,
    Launched,
    Notice,
    Planned,
    Shortage,
    Terminated,
)
from domain.capacity import Pool
from interfaces.write_side.container import WriteSide
from interfaces.write_side.read_models import renew_read_models

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

    def plan(
        self, content: dict[str, Any], pools: Sequence[Pool], units: int, tags: dict[str, str]
    ) -> Planned:
        self._refuse_late()
        return self._cloud.plan(content, pools, units, tags)

    def may_launch(self, api: str, machines: int) -> bool:
        return self._has_time() and self._cloud.may_launch(api, machines)

    def is_down(self, api: str) -> bool:
        return self._cloud.is_down(api)

    def launch(
        self, api: str, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> Launched:
        self._refuse_late()
        return self._cloud.launch(api, payload, token, user_data)

    def create_launch_template(
        self, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> str:
        self._refuse_late()
        return self._cloud.create_launch_template(payload, token, user_data)

    def delete_launch_template(self, name: str) -> None:
        self._refuse_late()
        self._cloud.delete_launch_template(name)

    def launch_templates(self, deployment: str) -> list[str]:
        self._refuse_late()
        return self._cloud.launch_templates(deployment)

    def fleets(self, deployment: str, apis: Sequence[str]) -> list[Fleet]:
        self._refuse_late()
        return self._cloud.fleets(deployment, apis)

    def why_short(self, api: str, fleet_id: str) -> list[Shortage]:
        self._refuse_late()
        return self._cloud.why_short(api, fleet_id)

    def set_target(self, api: str, fleet_id: str, target: int, on_demand: int) -> None:
        self._refuse_late()
        self._cloud.set_target(api, fleet_id, target, on_demand)

    def delete_fleets(self, api: str, fleet_type: str, fleet_ids: Sequence[str]) -> list[str]:
        self._refuse_late()
        return self._cloud.delete_fleets(api, fleet_type, fleet_ids)

    def sweep(self, deployment: str) -> list[Instance]:
        self._refuse_late()
        return self._cloud.sweep(deployment)

    def find(
        self,
        machine_ids: Sequence[str],
        names: Sequence[str] = (),
        batches: Sequence[str] = (),
    ) -> list[Instance]:
        self._refuse_late()
        return self._cloud.find(machine_ids, names, batches)

    def may_terminate(self, machines: int) -> bool:
        return self._has_time() and self._cloud.may_terminate(machines)

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

    def notices(self, keep_others: bool = False) -> list[Notice]:
        self._refuse_late()
        return self._cloud.notices(keep_others)

    def settle_notices(self, handles: Sequence[str]) -> None:
        self._refuse_late()
        self._cloud.settle_notices(handles)


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
        **call.overrides,
    )
    try:
        within = {n: CloudWithin(cloud, call.clock, until) for n, cloud in side.clouds().items()}
        side.clouds.override(within)
        lease = side.lease()
        if not lease.acquire():
            return False
        try:
            renew_read_models(side, _within(call, until))
            side.store().refuse_failed_projections()
            policies = side.policies()
            held = [turn for turn in side.turns() if turn.lease.held]
            for turn in held:
                turn.kept.read()
            policies.take_turn(compiled.templates())
            for turn in held:
                turn.kept.write()
        finally:
            lease.release()
        return True
    finally:
        side.store().close()


def _within(call: Call, until: float) -> Callable[[int, int], None]:
    """What stops a rebuild when the turn is over; the next turn goes on with it."""

    def go_on(position: int, end: int) -> None:
        if call.clock.now()[2] > until and position < end:
            raise StoreBusy(
                f"the read models are being rebuilt after an upgrade ({position} of {end} events): "
                "`hostledger projections rebuild` does it at once"
            )

    return go_on


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
