"""LSF's `rc_account`: whom a machine is billed to is a tag on it, however it was launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.world import WAYS, World

MakeWorld = Callable[..., World]

CYCLE: dict[str, Any] = {"boot_time": 20.0, "shutdown_time": 15.0}


def ask(world: World, count: int, rc_account: str = "") -> str:
    """A request as LSF makes it."""
    document: dict[str, Any] = {"template": {"templateId": "OnDemand-A", "machineCount": count}}
    if rc_account:
        document["rc_account"] = rc_account
    return str(world.call("requestMachines", document)["requestId"])


def tags_of(world: World, machines: list[dict[str, Any]]) -> set[str]:
    """The `rc_account` of these machines at AWS; "" for none."""
    live = world.sandbox.live_instances()
    return {live[m["machineId"]]["tags"].get("rc_account", "") for m in machines}


@pytest.mark.parametrize("way", WAYS)
def test_requests_of_two_accounts_share_no_launch(make_world: MakeWorld, way: str) -> None:
    """Asked for in one turn: those of one account share a launch, others have their own."""
    world = make_world(way=way, **CYCLE)
    world.start_worker()
    asked = {ask(world, 1, account): account for account in ("desk-7", "desk-8", "", "desk-7")}
    answers = {request: world.run_until_final(request) for request in asked}
    for request, account in asked.items():
        assert answers[request]["status"] == "complete", answers[request]
        assert tags_of(world, answers[request]["machines"]) == {account}
    assert len(world.launches()) == 3
    machines = [machine for answer in answers.values() for machine in answer["machines"]]
    world.run_until_final(world.give_back(machines))
    world.run(200, step=5.0)
    world.assert_nothing_left()


def test_a_late_machine_goes_to_nobody_elses_account(make_world: MakeWorld) -> None:
    """One whose request was cancelled while its launch was doubtful is not dealt to demand that
    would be billed to another account."""
    settings = {
        "HOSTLEDGER_PROVIDER__AWS__TOKEN_SAFE_AGE": "0",
        "HOSTLEDGER_PROVIDER__AWS__SETTLE_GAP": "60",
        "HOSTLEDGER_PROVIDER__FULFILMENT_DEADLINE": "1000",
    }
    world = make_world(settings=settings, **CYCLE)
    world.start_worker()
    world.sandbox.add_fault("lost_response", action="RunInstances")
    first = ask(world, 1, "desk-7")
    assert world.run(30, lambda: bool(world.launches()))
    world.cancel(first)
    world.sandbox.set_capacity(0)
    second = ask(world, 1)
    assert world.run(400, lambda: bool(world.events("LaunchSettled")), step=5.0)
    assert world.status(second)["status"] == "running"
    world.sandbox.set_capacity(None)
    answer = world.run_until_final(second)
    assert tags_of(world, answer["machines"]) == {""}
    world.run(200, step=10.0)
    world.assert_agreement()
