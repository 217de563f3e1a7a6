"""Who gets which machine: laws of the deal, in units."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.launch_batch import deal
from tests.domain.samples import machine_id

WEIGHTS = st.lists(st.integers(1, 9), max_size=30)
COUNTS = st.lists(st.integers(0, 15), max_size=8)


def machines_of(weights: list[int]) -> list[tuple[str, int]]:
    return [(machine_id(number), units) for number, units in enumerate(weights)]


def ones(*machine_ids: str) -> list[tuple[str, int]]:
    return [(identifier, 1) for identifier in machine_ids]


def test_claims_are_filled_in_their_order() -> None:
    """One request is filled before the next gets any."""
    assert deal(ones("i-1", "i-2", "i-3"), [["a", 2], ["b", 2]]) == (
        [["a", ["i-1", "i-2"]], ["b", ["i-3"]]],
        [],
    )


def test_a_claim_of_none_gets_none() -> None:
    """A claim with nothing left to ask for is not in the deal."""
    assert deal(ones("i-1"), [["a", 0], ["b", 1]]) == ([["b", ["i-1"]]], [])


def test_what_nobody_may_have_is_surplus() -> None:
    """Machines over what is claimed go to nobody, in their order."""
    assert deal(ones("i-1", "i-2", "i-3"), [["a", 1]]) == ([["a", ["i-1"]]], ["i-2", "i-3"])
    assert deal(ones("i-1"), []) == ([], ["i-1"])
    assert deal([], [["a", 1]]) == ([], [])


def test_the_last_machine_of_a_claim_may_overshoot_it() -> None:
    """What it counts over the claim is nobody else's."""
    assert deal([("i-1", 4), ("i-2", 4), ("i-3", 4)], [["a", 5], ["b", 3]]) == (
        [["a", ["i-1", "i-2"]], ["b", ["i-3"]]],
        [],
    )
    assert deal([("i-1", 8), ("i-2", 1)], [["a", 1]]) == ([["a", ["i-1"]]], ["i-2"])


def test_what_overshoots_a_claim_counts_for_the_rest_of_the_request() -> None:
    """Its claim of 4 took 6 units: of the 4 that it wants beyond, 2 are left. It is named once."""
    three = [("i-1", 3), ("i-2", 3), ("i-3", 3), ("i-4", 3)]
    assert deal(three, [["a", 4], ["a", 4]]) == ([["a", ["i-1", "i-2", "i-3"]]], ["i-4"])
    assert deal(three, [["a", 2], ["b", 2], ["a", 3]]) == (
        [["a", ["i-1", "i-3"]], ["b", ["i-2"]]],
        ["i-4"],
    )


@given(machines=st.integers(0, 40), counts=COUNTS)
def test_machines_of_one_unit_are_counted(machines: int, counts: list[int]) -> None:
    """Every machine is in the deal or surplus, once; no claim gets more than its count; a claim
    gets less only when nothing is left; surplus is only what is over all claims."""
    weighed = machines_of([1] * machines)
    claims: list[list[Any]] = [[f"req-{n}", count] for n, count in enumerate(counts)]
    dealt, surplus = deal(weighed, claims)
    assert [i for _, ids in dealt for i in ids] + surplus == [i for i, _ in weighed]
    given_to = {request_id: len(ids) for request_id, ids in dealt}
    left = machines
    for request_id, count in claims:
        assert given_to.get(request_id, 0) == min(left, count)
        left -= min(left, count)
    assert len(surplus) == left


@given(weights=WEIGHTS, counts=COUNTS)
def test_a_claim_is_filled_before_the_next_and_by_its_last_machine(
    weights: list[int], counts: list[int]
) -> None:
    """In their order every machine goes to one claim or is surplus. A claim takes its last machine
    only because those before left it unfilled; whoever is unfilled has the last machine of all."""
    machines = machines_of(weights)
    units = dict(machines)
    claims: list[list[Any]] = [[f"req-{n}", count] for n, count in enumerate(counts)]
    dealt, surplus = deal(machines, claims)
    assert [i for _, ids in dealt for i in ids] + surplus == [i for i, _ in machines]
    assert all(ids for _, ids in dealt)
    given_to = dict(dealt)
    assert [r for r, _ in dealt] == [r for r, _ in claims if r in given_to]
    is_over = False
    for request_id, count in claims:
        ids = given_to.get(request_id, [])
        assert not (is_over and ids)
        if ids:
            assert sum(units[i] for i in ids[:-1]) < count
        is_over = is_over or sum(units[i] for i in ids) < count
    assert not (is_over and surplus)


@given(
    weights=WEIGHTS,
    claims=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=8),
)
def test_a_request_claims_more_than_once_and_overshoots_once(
    weights: list[int], claims: list[tuple[str, int]]
) -> None:
    """Its claims together overshoot by less than its last machine; no machine is dealt twice, no
    request is named twice, and nothing is surplus while one is unfilled."""
    machines = machines_of(weights)
    units = dict(machines)
    dealt, surplus = deal(machines, [list(claim) for claim in claims])
    ids = [i for _, given_ids in dealt for i in given_ids]
    assert sorted(ids + surplus) == sorted(units)
    given_to = dict(dealt)
    assert len(given_to) == len(dealt)
    for request_id in "abc":
        wanted = sum(count for name, count in claims if name == request_id)
        mine = given_to.get(request_id, [])
        if mine:
            assert sum(units[i] for i in mine[:-1]) < wanted
        assert not surplus or sum(units[i] for i in mine) >= wanted
