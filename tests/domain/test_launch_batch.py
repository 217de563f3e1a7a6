"""A batch's life: intended, and accepted, rejected or settled; and who gets what it gave."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.launch_batch import LaunchBatch, deal
from tests.domain.samples import (
    BATCH,
    OTHER,
    REQUEST,
    accepted,
    instance,
    intended,
    machine_id,
    rejected,
    settled,
)
from tests.specification import Happened, Specification

CLAIMS: list[list[Any]] = [[REQUEST, 2], [OTHER, 1]]


def batch() -> Specification[LaunchBatch]:
    return Specification(LaunchBatch, BATCH)


def intend(epoch: int) -> Any:
    """The command that leads to `intended(epoch)`."""
    return lambda b: b.intend(**intended(epoch)[1])


def test_claims_are_filled_in_their_order() -> None:
    """One request is filled before the next gets any."""
    assert deal(["i-1", "i-2", "i-3"], [["a", 2], ["b", 2]]) == (
        [["a", ["i-1", "i-2"]], ["b", ["i-3"]]],
        [],
    )


def test_a_claim_of_none_gets_none() -> None:
    """A claim with nothing left to ask for is not in the deal."""
    assert deal(["i-1"], [["a", 0], ["b", 1]]) == ([["b", ["i-1"]]], [])


def test_what_nobody_may_have_is_surplus() -> None:
    """Machines over what is claimed go to nobody, in their order."""
    assert deal(["i-1", "i-2", "i-3"], [["a", 1]]) == ([["a", ["i-1"]]], ["i-2", "i-3"])
    assert deal(["i-1"], []) == ([], ["i-1"])
    assert deal([], [["a", 1]]) == ([], [])


@given(
    machines=st.integers(0, 40),
    counts=st.lists(st.integers(0, 15), max_size=8),
)
def test_a_deal_gives_each_machine_to_one_claim(machines: int, counts: list[int]) -> None:
    """Every machine is in the deal or surplus, once; no claim gets more than its count; a claim
    gets less only when nothing is left; surplus is only what is over all claims."""
    ids = [machine_id(number) for number in range(machines)]
    claims: list[list[Any]] = [[f"req-{n}", count] for n, count in enumerate(counts)]
    dealt, surplus = deal(ids, claims)
    assert [i for _, given_ids in dealt for i in given_ids] + surplus == ids
    given_to = {request_id: len(given_ids) for request_id, given_ids in dealt}
    left = machines
    for request_id, count in claims:
        assert given_to.get(request_id, 0) == min(left, count)
        left -= min(left, count)
    assert len(surplus) == left


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
    ],
    ids=["open", "accepted", "doubtful", "settled", "doubted, settled", "rejected, settled"],
)
def test_nothing_else_opens_an_epoch(so_far: list[Happened]) -> None:
    """An open, accepted, doubtful or settled batch never gets a new token."""
    batch().given(intended(0), *so_far).when(intend(1)).then_refused(ValueError, "epoch 1")


def test_what_aws_gave_is_dealt_once() -> None:
    """The deal and what is missing are in the outcome event."""
    batch().given(intended()).when(
        lambda b: b.accept(
            "59dbff89-35bd-4eac-99ed-be587EXAMPLE", [instance(1), instance(2)], CLAIMS
        )
    ).then(accepted([1, 2], [[REQUEST, [machine_id(1), machine_id(2)]]], missing=1))


def test_a_closed_claim_gets_none() -> None:
    """The request was cancelled since the intent: its share goes on, the rest is surplus."""
    batch().given(intended()).when(
        lambda b: b.accept(
            "59dbff89-35bd-4eac-99ed-be587EXAMPLE",
            [instance(1), instance(2), instance(3)],
            [[OTHER, 1]],
        )
    ).then(
        accepted([1, 2, 3], [[OTHER, [machine_id(1)]]], [machine_id(2), machine_id(3)], missing=0)
    )


@pytest.mark.parametrize(
    "so_far",
    [
        accepted([1, 2, 3], [[REQUEST, [machine_id(1), machine_id(2)]]]),
        rejected(definite=True),
        rejected(definite=False),
        settled([], []),
    ],
    ids=["accepted", "rejected", "doubtful", "settled"],
)
def test_an_outcome_is_recorded_once(so_far: Happened) -> None:
    """After an outcome neither an acceptance nor a rejection is one."""
    closed = batch().given(intended(), so_far)
    closed.when(lambda b: b.accept("again", [instance(9)], CLAIMS)).then_nothing()
    closed.when(lambda b: b.reject("Late", "late", True, False)).then_nothing()


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
