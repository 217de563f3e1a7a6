"""A machine's life: launched, running, returned, gone; each told once."""

from __future__ import annotations

import pytest

from domain.machine import (
    Machine,
    MachineInterrupted,
    MachineLost,
    MachineReturned,
    MachineTerminated,
)
from tests.domain.samples import RETURN, launched, machine_id, running
from tests.specification import Happened, Specification, event

GONE: list[Happened] = [
    event(MachineTerminated, reason="returned"),
    event(MachineLost, reason="EC2 does not know it any more"),
]


def machine() -> Specification[Machine]:
    return Specification(Machine, machine_id(1))


def test_a_launch_is_recorded_once() -> None:
    """Whoever tells it again changes neither the machine nor its owner."""
    machine().when(lambda m: m.launch(**launched()[1])).then(launched())
    machine().given(launched()).when(
        lambda m: m.launch(**launched(request_id="")[1])
    ).then_nothing()


def test_it_runs_once() -> None:
    """From launched to running, with the name and address that it has then."""
    machine().given(launched()).when(lambda m: m.run(**running()[1])).then(running())
    machine().given(launched(), running()).when(lambda m: m.run(**running()[1])).then_nothing()


@pytest.mark.parametrize("gone", GONE, ids=lambda happened: happened[0].TOPIC)
def test_what_is_gone_does_not_come_back(gone: Happened) -> None:
    """Neither runs, nor is interrupted, nor ends a second time."""
    ended = machine().given(launched(), running(), gone)
    ended.when(lambda m: m.run(**running()[1])).then_nothing()
    ended.when(lambda m: m.interrupt("spot", 1_800_000_000)).then_nothing()
    ended.when(lambda m: m.terminate("again")).then_nothing()
    ended.when(lambda m: m.lose("again")).then_nothing()


@pytest.mark.parametrize("so_far", [[], [running()]], ids=["launched", "running"])
def test_it_ends(so_far: list[Happened]) -> None:
    """A machine may end before it ever ran."""
    machine().given(launched(), *so_far).when(lambda m: m.terminate("surplus")).then(
        event(MachineTerminated, reason="surplus")
    )
    machine().given(launched(), *so_far).when(lambda m: m.lose("EC2 lost it")).then(
        event(MachineLost, reason="EC2 lost it")
    )


def test_an_interruption_is_recorded() -> None:
    """What AWS said, and until when, in seconds since the epoch."""
    machine().given(launched()).when(lambda m: m.interrupt("spot", 1_800_000_120)).then(
        event(MachineInterrupted, reason="spot", until=1_800_000_120)
    )


def test_an_interruption_is_recorded_once_of_a_kind() -> None:
    """AWS repeats itself, also with another time; a notice after a recommendation is news."""
    advised = event(MachineInterrupted, reason="rebalance", until=1_800_000_000)
    warned = event(MachineInterrupted, reason="spot", until=1_800_000_120)
    told = machine().given(launched(), running(), advised)
    told.when(lambda m: m.interrupt("rebalance", 1_800_000_060)).then_nothing()
    told.when(lambda m: m.interrupt("spot", 1_800_000_120)).then(warned)
    machine().given(launched(), advised, warned).when(
        lambda m: m.interrupt("rebalance", 1_800_000_000)
    ).then_nothing()


def test_a_return_is_recorded_once_for_each_return() -> None:
    """The same return is no news, another one is."""
    other = RETURN[:-1] + "0"
    returned = event(MachineReturned, return_id=RETURN, reason="returned")
    machine().given(launched(), returned).when(lambda m: m.hand_back(RETURN, "x")).then_nothing()
    machine().given(launched(), returned).when(lambda m: m.hand_back(other, "returned")).then(
        event(MachineReturned, return_id=other, reason="returned")
    )
