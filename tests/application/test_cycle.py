"""A whole life: asked, launched, reported, returned, gone."""

from __future__ import annotations

from tests.stores import FOUR
from tests.world import World

EVERY_STORE = FOUR


def test_a_request_is_fulfilled_and_returned(world: World) -> None:
    """Machines come, are told, go, and the ledger and EC2 agree at each rest."""
    world.start_worker()
    request_id = world.request(5)

    answer = world.run_until_final(request_id)

    assert answer["status"] == "complete"
    assert [m["result"] for m in answer["machines"]] == ["succeed"] * 5
    assert all(m["name"] and m["privateIpAddress"] and m["launchtime"] for m in answer["machines"])
    world.assert_agreement()

    return_id = world.give_back(answer["machines"])
    answer = world.run_until_final(return_id)

    assert answer["status"] == "complete"
    assert world.live() == set()
    world.assert_agreement()


def test_waiting_requests_share_launches(world: World) -> None:
    """100 waiting requests of one machine: at most 2 launches, 12 AWS calls until all run."""
    requests = [world.request(1) for _ in range(100)]
    world.start_worker()

    assert world.run(200, lambda: all(world.status(r)["status"] == "complete" for r in requests))

    assert len(world.launches()) <= 2
    assert len(world.sandbox.calls) <= 12
    world.assert_agreement()
