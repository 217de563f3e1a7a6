"""A request's life: asked, given machines, short of some, and one day final."""

from __future__ import annotations

import pytest

from domain.machine_request import (
    MachineRequest,
    MachinesRequested,
    RequestCancelled,
    RequestFailed,
    RequestFulfilled,
    RequestPartlyFulfilled,
)
from domain.refusals import RequestIsFinal
from tests.domain.samples import (
    BATCH,
    REQUEST,
    asked,
    assigned,
    fell_short,
    machine_id,
)
from tests.specification import Happened, Specification, born, event

FINAL: list[Happened] = [
    event(RequestFulfilled, fulfilled=3),
    event(RequestPartlyFulfilled, fulfilled=1, missing=2, message="no capacity"),
    event(RequestFailed, message="no capacity"),
    event(RequestCancelled, reason="not needed"),
]


def request() -> Specification[MachineRequest]:
    return Specification(MachineRequest, REQUEST)


def test_an_ask_is_one_event_whatever_its_count() -> None:
    """Asking for 10,000 machines appends one event to the request's own stream."""
    (first,) = born(
        lambda: MachineRequest.ask(
            REQUEST, "awsinst", "OnDemand-A", "4f53cda18c2baa0c", 10_000, 300.0, "operator"
        )
    )
    assert isinstance(first, MachinesRequested)
    assert (first.originator_id, first.originator_version) == ("request-" + REQUEST, 1)
    assert (first.machine_count, first.source) == (10_000, "operator")
    assert first.rc_account == ""


def test_an_ask_keeps_the_account_it_is_charged_to() -> None:
    """LSF's rc_account, for the tags of the machines."""
    (first,) = born(
        lambda: MachineRequest.ask(
            REQUEST, "awsinst", "OnDemand-A", "4f53cda18c2baa0c", 1, 300.0, "hostfactory", "physics"
        )
    )
    assert isinstance(first, MachinesRequested)
    assert first.rc_account == "physics"


def test_machines_of_a_deal_are_assigned() -> None:
    """The request follows the deal: the machines in their order, counted in units."""
    request().given(asked()).when(
        lambda r: r.assign(BATCH, {machine_id(1): 1, machine_id(2): 1})
    ).then(assigned([1, 2]))


def test_machines_count_their_weights() -> None:
    """Two machines of four units are eight of what was asked for."""
    request().given(asked(7)).when(
        lambda r: r.assign(BATCH, {machine_id(1): 4, machine_id(2): 4})
    ).then(assigned([1, 2], units=8))


def test_a_deal_followed_twice_assigns_once() -> None:
    """A policy that was interrupted repeats itself without harm."""
    request().given(asked(), assigned([1, 2])).when(
        lambda r: r.assign(BATCH, {machine_id(1): 1, machine_id(2): 1})
    ).then_nothing()


def test_a_deal_half_followed_assigns_the_rest() -> None:
    """Only machines that the request does not have yet are in the event, and counted."""
    request().given(asked(), assigned([1], units=3)).when(
        lambda r: r.assign(BATCH, {machine_id(1): 3, machine_id(2): 2})
    ).then(assigned([2], units=2))


@pytest.mark.parametrize("final", FINAL, ids=lambda happened: happened[0].TOPIC)
def test_a_final_request_still_takes_what_was_dealt_to_it(final: Happened) -> None:
    """What an outcome event decided before the end is recorded after it."""
    request().given(asked(), final).when(lambda r: r.assign(BATCH, {machine_id(1): 1})).then(
        assigned([1])
    )


def test_a_shortage_is_recorded_once_for_a_pool_and_reason() -> None:
    """The hundredth rejection for the same cause is no news; another cause is."""
    short = request().given(asked(), fell_short("InsufficientInstanceCapacity"))
    short.when(
        lambda r: r.fall_short(
            BATCH, "subnet-a1", "InsufficientInstanceCapacity", "no capacity", 2, False
        )
    ).then_nothing()
    short.when(
        lambda r: r.fall_short(BATCH, "subnet-a1", "InstanceLimitExceeded", "no capacity", 2, False)
    ).then(fell_short("InstanceLimitExceeded"))


@pytest.mark.parametrize("final", FINAL, ids=lambda happened: happened[0].TOPIC)
def test_a_shortage_after_the_end_is_no_news(final: Happened) -> None:
    """A final request's story does not go on."""
    request().given(asked(), final).when(
        lambda r: r.fall_short(BATCH, "subnet-a1", "Late", "late", 1, False)
    ).then_nothing()


@pytest.mark.parametrize(
    ("succeeded", "expected"),
    [
        (3, event(RequestFulfilled, fulfilled=3)),
        (4, event(RequestFulfilled, fulfilled=4)),
        (1, event(RequestPartlyFulfilled, fulfilled=1, missing=2, message="no capacity")),
        (0, event(RequestFailed, message="no capacity")),
    ],
    ids=["all", "more", "some", "none"],
)
def test_it_finishes_with_what_runs(succeeded: int, expected: Happened) -> None:
    """All is fulfilled, some is partly fulfilled with the number missing, none is failed."""
    request().given(asked(3)).when(lambda r: r.finish(succeeded, "no capacity")).then(expected)


@pytest.mark.parametrize("final", FINAL, ids=lambda happened: happened[0].TOPIC)
def test_what_is_final_stays_so(final: Happened) -> None:
    """A final status never changes."""
    request().given(asked(3), final).when(lambda r: r.finish(3, "")).then_nothing()


def test_an_open_request_is_cancelled() -> None:
    """Cancelling ends the demand and keeps the reason."""
    request().given(asked(), assigned([1])).when(lambda r: r.cancel("not needed")).then(
        event(RequestCancelled, reason="not needed")
    )


@pytest.mark.parametrize("final", FINAL, ids=lambda happened: happened[0].TOPIC)
def test_a_final_request_cannot_be_cancelled(final: Happened) -> None:
    """The refusal names the request and says what to do instead."""
    refused = request().given(asked(), final).when(lambda r: r.cancel("too late"))
    refused.then_refused(RequestIsFinal, f"request {REQUEST} is ")
    refused.then_refused(RequestIsFinal, "given back by `hostledger machines return`")
