"""The question what a request would do at AWS: the real policies over a copy of the ledger, with a
cloud that plans but launches nothing.

What is asked of AWS are the looks that a plan needs and AWS's own dry runs. Every launch of the
rehearsal is given in full, so that the whole of the request is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol, TypeVar

from application.assigning import Assigning
from application.choosing import Choosing
from application.launch_templates import LaunchTemplates
from application.pausing import Resume, resume
from application.ports import CallFailed, Cloud, Instance, Launched, Ledger, Planned
from application.provisioning import Provisioning
from application.request_machines import RequestMachines, request_machines
from application.turn import Turn
from domain.capacity import INSTANT, RUN_INSTANCES, Pool, fleet_type, machines_for
from domain.event_sourced import Aggregate
from domain.launch_batch import OPEN, LaunchBatch, LaunchIntended
from domain.machine_request import MachineRequest

A = TypeVar("A", bound=Aggregate)

MOST_TURNS = 1_000


class Asking(Protocol):
    """AWS's own dry run of a plan: (call, what AWS says). Raises CallFailed."""

    def __call__(self, planned: Planned) -> list[tuple[str, str]]: ...


@dataclass(frozen=True)
class Rehearsed:
    """A launch that would be made. `launch_template` are the parameters that make its launch
    template, if it has one, and `template_is_there` that it need not be made; `answers` are what
    AWS says to each call of it."""

    intent: LaunchIntended
    pools: Sequence[Pool]
    launch_template: dict[str, Any] | None
    template_is_there: bool
    answers: list[tuple[str, str]]


@dataclass(frozen=True)
class Rehearsal:
    """What a request would do: `missing` units of it would not be launched at once, for the
    `shortages` ((pool, code) -> message)."""

    launches: list[Rehearsed]
    missing: int
    shortages: dict[tuple[str, str], str]


class _Cloud:
    """Plans with AWS, and pretends that every launch is given in full at once."""

    def __init__(self, cloud: Cloud, numbers: Callable[[], int]) -> None:
        self._cloud = cloud
        self._numbers = numbers
        self.account = cloud.account
        self.region = cloud.region
        self.call_time = cloud.call_time
        self.made: set[str] = set()
        self.not_planned: dict[tuple[str, str], str] = {}
        """(pool, code) -> message of why AWS did not answer what a plan needs."""
        self.planned: tuple[Planned, Sequence[Pool], dict[str, Any], int]

    def plan(
        self, content: dict[str, Any], pools: Sequence[Pool], units: int, tags: dict[str, str]
    ) -> Planned:
        try:
            planned = self._cloud.plan(content, pools, units, tags)
        except CallFailed as failed:
            self.not_planned["", failed.code] = failed.message
            raise
        self.planned = (planned, pools, content, units)
        return planned

    def may_launch(self, api: str, machines: int) -> bool:
        return True

    def is_down(self, api: str) -> bool:
        return False

    def create_launch_template(
        self, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> str:
        self.made.add(payload["LaunchTemplateName"])
        return "lt-rehearsed"

    def launch(
        self, api: str, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> Launched:
        _, pools, content, units = self.planned
        fleet_id = "" if api == RUN_INSTANCES else f"rehearsed-{self._numbers()}"
        if fleet_id and fleet_type(content) != INSTANT:
            return Launched([], "", (), fleet_id)
        pool = pools[0]
        given = [
            Instance(
                machine_id=f"i-rehearsed-{self._numbers()}",
                state="pending",
                name="",
                private_ip_address="",
                launch_time=0,
                zone="",
                instance_type=pool.instance_type,
                price_type=pool.market,
            )
            for _ in range(machines_for(units, pool.units))
        ]
        return Launched(given, "", (), fleet_id)


class _Ledger:
    """The copy's ledger, which tells of every intent."""

    def __init__(self, ledger: Ledger, intended: Callable[[LaunchIntended], None]) -> None:
        self._ledger = ledger
        self._intended = intended

    def get(self, aggregate_class: type[A], identifier: str) -> A | None:
        return self._ledger.get(aggregate_class, identifier)

    def save(self, *aggregates: Any, **metadata: Any) -> Any:
        for saved in aggregates:
            if isinstance(saved, LaunchBatch) and saved.state == OPEN and saved.intent is not None:
                self._intended(saved.intent)
        return self._ledger.save(*aggregates, **metadata)


class _Lease:
    """Nobody else works on the copy."""

    fence: Any = None
    held = True

    def renew(self) -> bool:
        return True

    def remaining(self) -> float:
        return float("inf")

    def since_another(self) -> float:
        return float("inf")


def rehearse(
    command: RequestMachines, turns: Sequence[Turn], asking: dict[str, Asking]
) -> Rehearsal:
    """What a request would do now. `turns` are over a copy of the ledger, which is changed;
    `asking` has each account's dry run. Raises a Refusal, as the request would."""
    numbers = count(1).__next__
    launches: list[tuple[_Cloud, LaunchIntended, Planned, Sequence[Pool]]] = []
    intended: list[LaunchIntended] = []
    accounts: list[Provisioning] = []
    clouds: list[_Cloud] = []
    first = turns[0]
    request_id = request_machines(command, first.ledger)
    resume(Resume("to rehearse", first.random(16)), first.ledger)

    def elsewhere(asking: Provisioning, row: dict[str, Any]) -> bool:
        return choosing.serves_elsewhere(asking, row)

    for turn in turns:
        cloud = _Cloud(turn.cloud, numbers)
        clouds.append(cloud)

        def note(intent: LaunchIntended, cloud: _Cloud = cloud) -> None:
            intended.append(intent)
            planned, pools, _, _ = cloud.planned
            if request_id in dict(intent.claims):
                launches.append((cloud, intent, replace(planned, payload=intent.payload), pools))

        ledger = _Ledger(turn.ledger, note)
        own = replace(turn, cloud=cloud, ledger=ledger, lease=_Lease())  # type: ignore[arg-type]
        accounts.append(Provisioning(own, LaunchTemplates(own), elsewhere))
    choosing = Choosing(accounts[0].turn, accounts, [turn.cloud.account for turn in turns])
    assigning = Assigning(accounts[0].turn)
    for _ in range(MOST_TURNS):
        before = len(intended)
        choosing.take_turn()
        assigning.take_turn()
        if len(intended) == before:
            break
    request = first.ledger.get(MachineRequest, request_id)
    assert request is not None
    shortages = dict(request.shortages)
    for cloud in clouds:
        shortages |= cloud.not_planned
    claimed = sum(dict(intent.claims)[request_id] for _, intent, _, _ in launches)
    return Rehearsal(
        [_asked(launch, asking) for launch in launches],
        max(0, request.machine_count - claimed),
        shortages,
    )


def _asked(
    launch: tuple[_Cloud, LaunchIntended, Planned, Sequence[Pool]], asking: dict[str, Asking]
) -> Rehearsed:
    cloud, intent, planned, pools = launch
    there = bool(intent.launch_template) and intent.launch_template not in cloud.made
    try:
        answers = asking[cloud.account](
            replace(planned, launch_template=None) if there else planned
        )
    except CallFailed as failed:
        answers = [(intent.api, f"AWS could not be asked: {failed}")]
    return Rehearsed(intent, pools, planned.launch_template, there, answers)
