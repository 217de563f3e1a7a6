"""A batch's life: intended, and accepted, rejected or settled; a fleet's is filled, then closed."""

from __future__ import annotations

from typing import Any

import pytest

from domain.launch_batch import LaunchBatch
from tests.domain.samples import (
    BATCH,
    OTHER,
    REQUEST,
    accepted,
    closed,
    instance,
    intended,
    machine_id,
    rejected,
    settled,
)
from tests.specification import Happened, Specification

CLAIMS: list[list[Any]] = [[REQUEST, 2], [OTHER, 1]]
FLEET = "fleet-12a34b55-67cd-8ef9-ba9b-9208dEXAMPLE"
SHORTAGES = [["m5.large/subnet-a1/spot", "shortage", "InsufficientInstanceCapacity", "none left"]]

FILLING = accepted([], [], fleet_id=FLEET, filling=True)
FIRST = settled([1], [[REQUEST, [machine_id(1)]]])
CLOSED = closed([[REQUEST, 1], [OTHER, 1]])


def batch() -> Specification[LaunchBatch]:
    return Specification(LaunchBatch, BATCH)


def intend(epoch: int) -> Any:
    """The command that leads to `intended(epoch)`."""
    return lambda b: b.intend(**intended(epoch)[1])


def accept(
    numbers: list[int],
    open_claims: list[list[Any]],
    fleet_id: str = "",
    filling: bool = False,
    units: int = 1,
    shortages: list[list[str]] | None = None,
    gives_up: bool = False,
) -> Any:
    """The command with AWS's answer."""
    return lambda b: b.accept(
        "59dbff89-35bd-4eac-99ed-be587EXAMPLE",
        [instance(number, units) for number in numbers],
        open_claims,
        shortages or [],
        gives_up,
        fleet_id,
        filling,
    )


def test_the_call_is_written_down_before_it_is_made() -> None:
    """The first intent has epoch 0."""
    batch().when(intend(0)).then(intended(0))


@pytest.mark.parametrize("epoch", [-1, 1, 2])
def test_the_first_epoch_is_0(epoch: int) -> None:
    """An epoch that skips one would be a token nobody can derive."""
    batch().when(intend(epoch)).then_refused(ValueError, "cannot follow")


def test_a_definite_rejection_opens_the_next_epoch() -> None:
    """Only then may the same call be sent with a new token."""
    batch().given(intended(0), rejected(definite=True)).when(intend(1)).then(intended(1))


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_follows_the_one_before(epoch: int) -> None:
    """Neither the same again nor one skipped."""
    batch().given(intended(0), rejected(definite=True)).when(intend(epoch)).then_refused(ValueError)


@pytest.mark.parametrize(
    "so_far",
    [
        [],
        [accepted([1], [[REQUEST, [machine_id(1)]]], missing=2)],
        [rejected(definite=False)],
        [settled([], [])],
        [rejected(definite=False), settled([], [])],
        [rejected(definite=True), settled([1], [], [machine_id(1)])],
        [FILLING],
        [FILLING, FIRST],
        [FILLING, FIRST, CLOSED],
        [FILLING, CLOSED, settled([7], [], [machine_id(7)])],
    ],
    ids=[
        "open",
        "accepted",
        "doubtful",
        "settled",
        "doubted, settled",
        "rejected, settled",
        "filling",
        "filling, given",
        "closed",
        "closed, given",
    ],
)
def test_nothing_else_opens_an_epoch(so_far: list[Happened]) -> None:
    """An open, accepted, filling, closed, doubtful or settled batch never gets a new token."""
    batch().given(intended(0), *so_far).when(intend(1)).then_refused(ValueError, "epoch 1")


def test_what_aws_gave_is_dealt_once() -> None:
    """The deal and what is missing are in the outcome event."""
    batch().given(intended()).when(accept([1, 2], CLAIMS)).then(
        accepted([1, 2], [[REQUEST, [machine_id(1), machine_id(2)]]], missing=1)
    )


def test_a_closed_claim_gets_none() -> None:
    """The request was cancelled since the intent: its share goes on, the rest is surplus."""
    batch().given(intended()).when(accept([1, 2, 3], [[OTHER, 1]])).then(
        accepted([1, 2, 3], [[OTHER, [machine_id(1)]]], [machine_id(2), machine_id(3)], missing=0)
    )


@pytest.mark.parametrize(
    ("numbers", "dealt", "surplus", "missing"),
    [
        ([], [], [], 7),
        ([1], [[REQUEST, [machine_id(1)]]], [], 4),
        ([1, 2], [[REQUEST, [machine_id(1), machine_id(2)]]], [], 1),
        ([1, 2, 3], [[REQUEST, [machine_id(1), machine_id(2)]], [OTHER, [machine_id(3)]]], [], 0),
        (
            [1, 2, 3, 4],
            [[REQUEST, [machine_id(1), machine_id(2)]], [OTHER, [machine_id(3)]]],
            [machine_id(4)],
            0,
        ),
    ],
    ids=["none", "some", "nearly", "all", "more"],
)
def test_what_aws_gave_counts_in_units(
    numbers: list[int], dealt: list[list[Any]], surplus: list[str], missing: int
) -> None:
    """Claims of 4 and 3 units, machines of 3: what is missing is units, and never below none."""
    claims = [[REQUEST, 4], [OTHER, 3]]
    batch().given(intended(claims=claims)).when(accept(numbers, claims, units=3)).then(
        accepted(numbers, dealt, surplus, missing=missing, units=3)
    )


def test_an_outcome_keeps_why_it_is_short() -> None:
    """Each pool with AWS's reason, and whether trying on is of any use."""
    short = accept([1], CLAIMS, fleet_id=FLEET, shortages=SHORTAGES, gives_up=True)
    batch().given(intended()).when(short).then(
        accepted(
            [1],
            [[REQUEST, [machine_id(1)]]],
            missing=2,
            fleet_id=FLEET,
            shortages=SHORTAGES,
            gives_up=True,
        )
    )


@pytest.mark.parametrize(
    "so_far",
    [
        accepted([1, 2, 3], [[REQUEST, [machine_id(1), machine_id(2)]]]),
        rejected(definite=True),
        rejected(definite=False),
        settled([], []),
        FILLING,
    ],
    ids=["accepted", "rejected", "doubtful", "settled", "filling"],
)
def test_an_outcome_is_recorded_once(so_far: Happened) -> None:
    """After an outcome neither an acceptance nor a rejection is one."""
    answered = batch().given(intended(), so_far)
    answered.when(accept([9], CLAIMS)).then_nothing()
    answered.when(accept([9], CLAIMS, fleet_id=FLEET, filling=True)).then_nothing()
    answered.when(lambda b: b.reject("Late", "late", True, False)).then_nothing()


@pytest.mark.parametrize("definite", [True, False])
def test_a_rejection_says_whether_it_is_definite(definite: bool) -> None:
    """The code, the words and the doubt are kept."""
    expected = rejected(definite)
    batch().given(intended()).when(
        lambda b: b.reject(expected[1]["code"], expected[1]["message"], definite, False)
    ).then(expected)


@pytest.mark.parametrize("so_far", [[], [rejected(definite=False)]], ids=["open", "doubtful"])
def test_a_batch_is_settled_by_what_was_found(so_far: list[Happened]) -> None:
    """What carries the tag is dealt as if AWS had answered."""
    batch().given(intended(), *so_far).when(lambda b: b.settle([instance(1)], CLAIMS)).then(
        settled([1], [[REQUEST, [machine_id(1)]]])
    )


@pytest.mark.parametrize("so_far", [[], [rejected(definite=False)]], ids=["open", "doubtful"])
def test_nothing_found_closes_a_batch_for_good(so_far: list[Happened]) -> None:
    """Its demand is open again, for other batches."""
    batch().given(intended(), *so_far).when(lambda b: b.settle([], CLAIMS)).then(settled([], []))


def test_settling_twice_is_once() -> None:
    """The same instances are no news."""
    batch().given(intended(), settled([1], [], [machine_id(1)])).when(
        lambda b: b.settle([instance(1)], CLAIMS)
    ).then_nothing()


@pytest.mark.parametrize(
    "so_far",
    [
        [accepted([1], [[REQUEST, [machine_id(1)]]], missing=2)],
        [rejected(definite=True)],
        [settled([1], [], [machine_id(1)])],
    ],
    ids=["accepted", "rejected", "settled"],
)
def test_late_arrivals_of_a_closed_batch_are_taken_in(so_far: list[Happened]) -> None:
    """They are ours by their tag; those dealt before are not dealt again."""
    known = [instance(1)] if so_far[0][0].TOPIC != "LaunchRejected" else []
    batch().given(intended(), *so_far).when(
        lambda b: b.settle([*known, instance(7)], [[OTHER, 1]])
    ).then(settled([7], [[OTHER, [machine_id(7)]]]))


def test_late_arrivals_that_nobody_wants_are_surplus() -> None:
    """Nobody's, and so to be terminated."""
    batch().given(intended(), settled([], [])).when(lambda b: b.settle([instance(7)], [])).then(
        settled([7], [], [machine_id(7)])
    )


def test_machines_that_turn_up_count_their_units() -> None:
    """Two machines of three units fill a claim of four; the third is surplus."""
    batch().given(intended(), rejected(definite=False)).when(
        lambda b: b.settle([instance(number, 3) for number in (1, 2, 3)], [[REQUEST, 4]])
    ).then(settled([1, 2, 3], [[REQUEST, [machine_id(1), machine_id(2)]]], [machine_id(3)], 3))


# -- a batch whose fleet goes on launching --------------------------------------------------------


def test_a_fleet_that_goes_on_misses_nothing_yet() -> None:
    """What it has not launched may still come; what it has launched is dealt."""
    batch().given(intended()).when(accept([], CLAIMS, FLEET, filling=True)).then(FILLING)
    batch().given(intended()).when(accept([1], CLAIMS, FLEET, filling=True)).then(
        accepted([1], [[REQUEST, [machine_id(1)]]], missing=0, fleet_id=FLEET, filling=True)
    )


def test_a_fleet_fills_its_batch_again_and_again() -> None:
    """Each sweep brings what is new; machines it has brought before are no news."""
    batch().given(intended(), FILLING).when(lambda b: b.settle([], CLAIMS)).then_nothing()
    batch().given(intended(), FILLING).when(lambda b: b.settle([instance(1)], CLAIMS)).then(FIRST)
    batch().given(intended(), FILLING, FIRST).when(
        lambda b: b.settle([instance(1)], CLAIMS)
    ).then_nothing()
    batch().given(intended(), FILLING, FIRST).when(
        lambda b: b.settle([instance(1), instance(2)], [[OTHER, 1]])
    ).then(settled([2], [[OTHER, [machine_id(2)]]]))


def test_the_machines_of_the_answer_are_known_to_the_sweep() -> None:
    """They were dealt when the fleet was made."""
    first = accepted([1], [[REQUEST, [machine_id(1)]]], fleet_id=FLEET, filling=True)
    batch().given(intended(), first).when(
        lambda b: b.settle([instance(1)], [[REQUEST, 1]])
    ).then_nothing()


@pytest.mark.parametrize("so_far", [[], [FIRST]], ids=["with nothing", "with some"])
def test_a_fleet_that_launches_no_more_closes_its_batch(so_far: list[Happened]) -> None:
    """With what it still owed, and why."""
    owed: list[list[Any]] = [[REQUEST, 1], [OTHER, 1]]
    batch().given(intended(), FILLING, *so_far).when(lambda b: b.close(owed, SHORTAGES)).then(
        closed(owed, SHORTAGES)
    )


@pytest.mark.parametrize(
    "so_far",
    [
        [],
        [accepted([1], [[REQUEST, [machine_id(1)]]], missing=2)],
        [rejected(definite=True)],
        [rejected(definite=False)],
        [settled([], [])],
        [FILLING, CLOSED],
        [FILLING, CLOSED, settled([7], [], [machine_id(7)])],
    ],
    ids=["open", "accepted", "rejected", "doubtful", "settled", "closed", "closed, given"],
)
def test_a_batch_is_closed_once_and_only_while_it_fills(so_far: list[Happened]) -> None:
    """Claims that were given back once are not given back again."""
    batch().given(intended(), *so_far).when(lambda b: b.close(CLAIMS, [])).then_nothing()


def test_what_a_fleet_launched_late_is_taken_in_after_the_close() -> None:
    """For whoever still wants it, or for nobody; what was dealt before is not dealt again."""
    late = batch().given(intended(), FILLING, FIRST, CLOSED)
    late.when(lambda b: b.settle([instance(1)], CLAIMS)).then_nothing()
    late.when(lambda b: b.settle([instance(1), instance(7)], [])).then(
        settled([7], [], [machine_id(7)])
    )
    batch().given(intended(), FILLING, FIRST, CLOSED).when(
        lambda b: b.settle([instance(7)], [[OTHER, 1]])
    ).then(settled([7], [[OTHER, [machine_id(7)]]]))
