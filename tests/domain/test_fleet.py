"""A fleet's life: made, its target lowered intent first, deleted; each told once."""

from __future__ import annotations

from typing import Any

import pytest

from domain.fleet import (
    Fleet,
    FleetDeleted,
    FleetDeletionIntended,
    FleetTargetIntended,
    FleetTargetSet,
)
from tests.domain.samples import BATCH, every_event
from tests.specification import Happened, Specification, event

CREATED: Happened = every_event()["FleetCreated"][1]
LOWERED = event(FleetTargetIntended, target=2, on_demand=1, reason="returned")
SET = event(FleetTargetSet, target=2)
DOOMED = event(FleetDeletionIntended, reason="empty")
DELETED = event(FleetDeleted)

ENDED = [
    pytest.param([], id="not there"),
    pytest.param([CREATED, DOOMED], id="deleting"),
    pytest.param([CREATED, DOOMED, DELETED], id="deleted"),
]


def fleet(*so_far: Happened) -> Specification[Fleet]:
    return Specification(Fleet, BATCH).given(*so_far)


def lower(target: int = 2, on_demand: int = 1, reason: str = "returned") -> Any:
    return lambda f: f.intend_target(target, on_demand, reason)


def test_a_fleet_is_recorded_once() -> None:
    """Its id is its batch's; who tells it again, from a sweep, changes nothing."""
    fleet().when(lambda f: f.create(**CREATED[1])).then(CREATED)
    again: Any = lambda f: f.create(**CREATED[1] | {"target": 0})  # noqa: E731
    fleet(CREATED).when(again).then_nothing()
    fleet(CREATED, DOOMED, DELETED).when(again).then_nothing()


def test_a_target_is_written_down_before_it_is_set() -> None:
    """The intent, then what AWS took: the target that was intended."""
    fleet(CREATED).when(lower()).then(LOWERED)
    fleet(CREATED, LOWERED).when(lambda f: f.set_target()).then(SET)


def test_a_target_is_set_once_for_each_intent() -> None:
    """Without an intent there is nothing that AWS can have taken."""
    fleet(CREATED).when(lambda f: f.set_target()).then_nothing()
    fleet(CREATED, LOWERED, SET).when(lambda f: f.set_target()).then_nothing()


def test_the_last_intent_counts() -> None:
    """A target that was intended anew, before its outcome was known, is the one that is set."""
    lower_still = event(FleetTargetIntended, target=0, on_demand=0, reason="cancelled")
    fleet(CREATED, LOWERED).when(lower(0, 0, "cancelled")).then(lower_still)
    fleet(CREATED, LOWERED, lower_still).when(lambda f: f.set_target()).then(
        event(FleetTargetSet, target=0)
    )


def test_the_same_target_is_asserted_again() -> None:
    """A sweep found another one at AWS: the intent is written again."""
    fleet(CREATED, LOWERED, SET).when(lower()).then(LOWERED)


@pytest.mark.parametrize("so_far", ENDED)
def test_only_a_living_fleet_has_a_target(so_far: list[Happened]) -> None:
    """Neither before it was made nor once it is to go."""
    fleet(*so_far).when(lower()).then_nothing()


def test_an_intent_ends_with_its_fleet() -> None:
    """The outcome of a target that was under way is no news any more."""
    fleet(CREATED, LOWERED, DOOMED).when(lambda f: f.set_target()).then_nothing()
    fleet(CREATED, LOWERED, DOOMED, DELETED).when(lambda f: f.set_target()).then_nothing()


@pytest.mark.parametrize("more", [[], [LOWERED], [LOWERED, SET]], ids=["live", "lowering", "low"])
def test_a_deletion_is_written_down_before_the_call(more: list[Happened]) -> None:
    """Intended once, and then carried out once."""
    fleet(CREATED, *more).when(lambda f: f.intend_deletion("empty")).then(DOOMED)
    fleet(CREATED, *more, DOOMED).when(lambda f: f.delete()).then(DELETED)


@pytest.mark.parametrize("so_far", ENDED)
def test_a_deletion_is_intended_once(so_far: list[Happened]) -> None:
    """And of a living fleet alone."""
    fleet(*so_far).when(lambda f: f.intend_deletion("again")).then_nothing()


@pytest.mark.parametrize(
    "so_far",
    [[], [CREATED], [CREATED, LOWERED], [CREATED, DOOMED, DELETED]],
    ids=["not there", "live", "lowering", "deleted"],
)
def test_nothing_is_deleted_without_an_intent(so_far: list[Happened]) -> None:
    """Nor a second time."""
    fleet(*so_far).when(lambda f: f.delete()).then_nothing()


def test_a_fleet_knows_its_target() -> None:
    """What AWS has: the one it was made with until another one was set."""
    stream = Fleet.stream(BATCH)
    known: list[tuple[int, tuple[int, int] | None]] = []
    for happened in ([CREATED], [CREATED, LOWERED], [CREATED, LOWERED, SET]):
        folded = Fleet.project(
            None,
            [
                event_class(originator_id=stream, originator_version=version, **fields)
                for version, (event_class, fields) in enumerate(happened, 1)
            ],
        )
        assert folded is not None
        known.append((folded.target, folded.intended))
    assert known == [(3, None), (3, (2, 1)), (2, None)]
