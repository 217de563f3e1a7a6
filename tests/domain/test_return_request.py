"""A return's life: machines handed back, and final when each is gone or refused."""

from __future__ import annotations

from domain.refusals import NothingToReturn
from domain.return_request import (
    MachinesReturned,
    ReturnCompleted,
    ReturnPartlyRefused,
    ReturnRequest,
)
from tests.domain.samples import RETURN, handed_back, machine_id
from tests.specification import Specification, born, event, refused

NOT_OURS = "not launched by this deployment"


def a_return() -> Specification[ReturnRequest]:
    return Specification(ReturnRequest, RETURN)


def test_2500_machines_are_three_events() -> None:
    """An event names at most 1,000 machines; none is lost, none is named twice."""
    ids = [machine_id(number) for number in range(2_500)]
    events = born(
        lambda: ReturnRequest.hand_back(RETURN, "awsinst", ids, [], "returned", "hostfactory")
    )
    parts = [event.machine_ids for event in events if isinstance(event, MachinesReturned)]
    assert [len(part) for part in parts] == [1_000, 1_000, 500]
    assert [machine for part in parts for machine in part] == ids
    assert [event.originator_version for event in events] == [1, 2, 3]


def test_strangers_are_divided_as_machines_are() -> None:
    """1,001 hosts that the ledger has not: two events, with the one machine in the first."""
    strangers = [["", f"host-{number}"] for number in range(1_001)]
    events = born(
        lambda: ReturnRequest.hand_back(RETURN, "awsinst", ["i-1"], strangers, "returned", "x")
    )
    parts = [event for event in events if isinstance(event, MachinesReturned)]
    assert [len(part.strangers) for part in parts] == [1_000, 1]
    assert [part.machine_ids for part in parts] == [["i-1"], []]


def test_a_return_names_something() -> None:
    """An empty return is refused, and no stream begins."""
    said = refused(
        lambda: ReturnRequest.hand_back(RETURN, "awsinst", [], [], "returned", "x"),
        NothingToReturn,
    )
    assert "nothing to return" in said


def test_it_completes_once() -> None:
    """Every machine is gone: final, and final only once."""
    completed = event(ReturnCompleted, message="every machine is gone")
    a_return().given(handed_back()).when(lambda r: r.finish([])).then(completed)
    a_return().given(handed_back(), completed).when(
        lambda r: r.finish([["host", NOT_OURS]])
    ).then_nothing()


def test_it_names_what_was_refused() -> None:
    """The event lists each, the message the first five and how many more."""
    few = [[f"host-{number}", NOT_OURS] for number in range(2)]
    a_return().given(handed_back()).when(lambda r: r.finish(few)).then(
        event(ReturnPartlyRefused, refused=few, message=f"host-0: {NOT_OURS}; host-1: {NOT_OURS}")
    )
    many = [[f"host-{number}", "no"] for number in range(7)]
    message = "; ".join(f"host-{number}: no" for number in range(5)) + "; and 2 more"
    a_return().given(handed_back()).when(lambda r: r.finish(many)).then(
        event(ReturnPartlyRefused, refused=many, message=message)
    )
    a_return().given(handed_back(), event(ReturnPartlyRefused, refused=few, message="")).when(
        lambda r: r.finish([])
    ).then_nothing()
