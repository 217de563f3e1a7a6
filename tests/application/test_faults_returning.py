"""The fault rows of machines that end, and of what EC2 shows of them: none is forgotten, none is
declared gone too early, none comes back for good. Each is shown for every way to launch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from dependency_injector import providers

from infrastructure.aws.ec2 import Ec2
from infrastructure.compiled import load
from infrastructure.settings import Settings
from infrastructure.telemetry.journal import Journal
from interfaces.hostfactory.wire_format import BadInput
from tests.stores import FOUR
from tests.world import TEMPLATE, WAYS, World, every_way

MakeWorld = Callable[..., World]

AT_ONCE = ("RunInstances", "fleet-instant")
"""Ways whose call answers with the machines; the others' are found by their tags."""

REFILLING = ("fleet-maintain", "spot-fleet-maintain", "group")
"""Ways by which AWS launches another machine for one that ends."""

TWO_ZONES = [
    TEMPLATE,
    {**TEMPLATE, "templateId": "Zone-B", "subnetId": "subnet-b1"},
]

EVERY_STORE = FOUR


def fulfilled(world: World, count: int, template_id: str = "OnDemand-A") -> list[dict[str, Any]]:
    """The machines of a request that is complete."""
    answer = world.run_until_final(world.request(count, template_id))
    assert answer["status"] == "complete", answer
    machines: list[dict[str, Any]] = answer["machines"]
    return machines


def ids(machines: list[dict[str, Any]]) -> set[str]:
    return {machine["machineId"] for machine in machines}


@pytest.mark.stores("sqlite")
@every_way
def test_fault_11_terminate_with_one_unknown_id(way_world: World) -> None:
    """EC2 has forgotten one of 32 machines: the other 31 are terminated in at most 2 log2(n) + 2
    calls, and the return completes when sweeps have missed the one. What a fleet launched in its
    place meanwhile is ended as well."""
    world = way_world
    worker = world.start_worker()
    machines = fulfilled(world, 32)
    world.kill(worker)
    world.sandbox.terminate_behind_back([machines[13]["machineId"]])
    world.clock.advance(3 * 3600.0)
    return_id = world.give_back(machines)

    world.start_worker()
    named = {machine["machineId"] for machine in machines}
    world.run(50, lambda: not world.live() & named)  # before sweeps have missed the one

    assert not world.live() & named
    # Of 33: a fleet may have put one in the place of the lost one, and it ends with the others.
    assert len(world.calls_of("TerminateInstances")) <= 2 * math.ceil(math.log2(33)) + 1
    assert world.final(return_id)["status"] == "complete"
    world.leave_nothing()


@every_way
def test_fault_12_terminate_protected_in_mixed_zones(make_world: MakeWorld, way: str) -> None:
    """One machine is protected: the others of its zone and of the other zone are terminated, the
    one is reported by name with AWS's code, and it stays owed."""
    world = make_world(way=way, templates=TWO_ZONES, boot_time=20.0, shutdown_time=15.0)
    world.start_worker()
    here = fulfilled(world, 8)
    there = fulfilled(world, 8, "Zone-B")
    protected = here[5]["machineId"]
    world.sandbox.protect([protected])
    return_id = world.give_back(here + there)

    world.run(3)

    assert len(world.calls_of("TerminateInstances")) <= 2 * math.log2(8) + 2 + 1
    world.run(20)
    assert world.live() == {protected}
    answer = world.final(return_id)
    assert answer["status"] == "complete_with_error"
    results = {m["machineId"]: (m["result"], m["message"]) for m in answer["machines"]}
    result, message = results.pop(protected)
    assert result == "fail" and "OperationNotPermitted" in message
    assert {result for result, _ in results.values()} == {"succeed"}
    world.assert_agreement()

    world.sandbox.protect([protected], on=False)
    world.run(700, step=5.0)
    assert world.live() == set(), "it stayed owed"
    world.leave_nothing()


@every_way
@pytest.mark.parametrize("kind", ["lost_response", "reset_before"])
def test_fault_13_lost_terminate_response(way_world: World, kind: str) -> None:
    """The answer, or the call, is lost: the same termination is sent again within seconds, no id is
    forgotten."""
    world = way_world
    world.start_worker()
    machines = fulfilled(world, 6)
    world.sandbox.add_fault(kind, action="TerminateInstances", times=2)
    return_id = world.give_back(machines)

    world.run(20)

    assert world.live() == set()
    assert len(world.events("TerminationIntended")) == 1
    assert world.run_until_final(return_id)["status"] == "complete"
    world.leave_nothing()


@every_way
def test_fault_13_killed_after_terminate(way_world: World) -> None:
    """Killed before the answer is recorded: the intended termination is concluded by the next
    worker."""
    world = way_world
    world.start_worker()
    machines = fulfilled(world, 6)
    world.sandbox.add_fault("reset_before", action="TerminateInstances")
    return_id = world.give_back(machines)
    world.die_at("aws.TerminateInstances.after")
    assert len(world.live()) == 6

    world.start_worker()

    assert world.final(return_id)["status"] == "complete"
    assert world.live() == set()
    world.leave_nothing()


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("way", AT_ONCE)
def test_fault_14_terminate_not_found_while_running(make_world: MakeWorld, way: str) -> None:
    """Returned while EC2 does not show them yet: NotFound does not mean terminated; they stay owed
    and are terminated when EC2 knows them."""
    world = make_world(way=way, boot_time=20.0, shutdown_time=15.0, visibility_lag=30.0)
    world.start_worker()
    request_id = world.request(4)
    world.run(60, lambda: len(world.owned()) == 4)
    return_id = world.give_back(world.status(request_id)["machines"])
    world.run(3)
    assert {call.outcome for call in world.calls_of("TerminateInstances")} == {
        "InvalidInstanceID.NotFound"
    }
    assert world.owned() == world.live() and len(world.live()) == 4

    answer = world.run_until_final(return_id)

    assert answer["status"] == "complete"
    assert world.live() == set()
    world.leave_nothing()


@pytest.mark.parametrize("way", sorted(set(WAYS) - set(AT_ONCE)))
def test_fault_14_cancelled_while_none_is_visible(make_world: MakeWorld, way: str) -> None:
    """What these ways launch is known when EC2 shows it. Cancelled before, the machines are ended
    when they turn up, and none is launched in their place."""
    world = make_world(way=way, boot_time=20.0, shutdown_time=15.0, visibility_lag=30.0)
    world.start_worker()
    request_id = world.request(4)
    world.run(60, lambda: len(world.live()) == 4)
    assert world.owned() == set()

    world.cancel(request_id)
    world.run(200, step=2.0)

    assert world.status(request_id)["status"] == "complete_with_error"
    assert world.live() == set()
    world.leave_nothing()


@every_way
def test_fault_15_return_racing_a_launch(make_world: MakeWorld, way: str) -> None:
    """The first machines are returned and the request is cancelled while the launch of the others
    is under way: nothing is left running."""
    two = {**TEMPLATE, "subnetId": "subnet-a1, subnet-b1"}
    world = make_world(way=way, templates=[two], boot_time=20.0, shutdown_time=15.0)
    if way in AT_ONCE:
        world.sandbox.add_fault("cap", action=world.action, limit=2)
        world.sandbox.add_fault("slow", action=world.action, from_call=2, late=10.0)
    else:
        world.sandbox.set_capacity(2, subnet="subnet-a1")
        world.sandbox.set_capacity(0, subnet="subnet-b1")
    world.start_worker()
    request_id = world.request(6)
    world.run(60, lambda: len(world.owned()) == 2 and len(world.launches()) >= 1)
    if way in AT_ONCE:
        world.run(60, lambda: len(world.launches()) == 2)
    assert len(world.owned()) == 2

    return_id = world.give_back(world.status(request_id)["machines"])
    world.sandbox.set_capacity(None, subnet="subnet-a1")
    world.sandbox.set_capacity(None, subnet="subnet-b1")
    world.cancel(request_id)
    assert world.final(return_id)["status"] == "complete"
    world.run(120, step=2.0)

    assert world.live() == set()
    assert world.status(request_id)["status"] == "complete_with_error"
    outcomes = world.events("LaunchAccepted") + world.events("LaunchSettled")
    given = [m for outcome in outcomes for _, machines in outcome["deal"] for m in machines]
    assert len(given) == 2, "what came late was dealt to nobody"
    world.leave_nothing()


def small_pages(world: World) -> Ec2:
    """EC2 in pages of five instances."""
    settings = Settings.model_validate(load(world.site, world.environ).settings)
    journal = Journal(world.site.log_file, {"level": "INFO", "max_file_size": 10, "max_rotate": 1})
    aws = settings.provider.aws
    return Ec2("default", aws, world.clock, journal, world.sandbox.attach, page=5)


@every_way
def test_fault_17_second_page_of_a_sweep_fails(make_world: MakeWorld, way: str) -> None:
    """Page 2 fails for a quarter of an hour: the sweeps are void. Nothing is declared lost, no
    batch is settled by half a look, and no host is called gone."""
    world = make_world(
        way=way,
        templates=[{**TEMPLATE, "fulfilmentDeadline": 7200}],
        boot_time=20.0,
        shutdown_time=15.0,
    )
    world.start_worker(clouds=providers.Object({"default": small_pages(world)}))
    machines = fulfilled(world, 8)
    world.sandbox.add_fault("lost_response", action=world.action)
    world.sandbox.add_fault("error", action=world.action, code="UnauthorizedOperation")
    settled = len(world.events("LaunchSettled"))
    request_id = world.request(4)
    world.sandbox.add_fault(
        "error",
        action="DescribeInstances",
        times=-1,
        code="InternalError",
        status=500,
        where=lambda params: "NextToken" in params,
    )

    world.run(900, step=5.0)

    assert world.events("MachineLost") == []
    assert len(world.events("LaunchSettled")) == settled
    assert ids(machines) <= world.owned()
    with pytest.raises(BadInput, match="complete sweep"):
        world.to_give_up(machines)

    world.sandbox.clear_faults()
    answer = world.final(request_id)
    assert answer["status"] == "complete"
    assert len(world.live()) == 12
    assert world.to_give_up(machines) == []
    world.assert_agreement()
    world.leave_nothing(machines + answer["machines"])


@every_way
def test_fault_18_taken_away_without_notice(way_world: World) -> None:
    """Machines that vanish without a word are seen within two sweeps, and HostFactory is told to
    give them up; a fleet that launched others for them is lowered."""
    world = way_world
    world.start_worker()
    machines = fulfilled(world, 5)
    taken = machines[:2]
    world.sandbox.terminate_behind_back(ids(taken), "Server.SpotInstanceTermination")

    world.run(120, step=2.0)

    assert world.owned() - ids(machines[2:]) == world.live() - ids(machines[2:])
    assert {entry["machineId"] for entry in world.to_give_up(machines)} == ids(taken)
    reasons = {event["reason"] for event in world.events("MachineTerminated")}
    assert any("Server.SpotInstanceTermination" in reason for reason in reasons)
    world.run(60, step=2.0)
    assert world.live() == world.owned() == ids(machines[2:])
    world.assert_agreement()
    world.leave_nothing(machines)


@every_way
def test_fault_18_forgotten_by_ec2(way_world: World, way: str) -> None:
    """What EC2 no longer shows at all is lost after two complete sweeps and a question by id, and
    not before."""
    world = way_world
    worker = world.start_worker()
    machines = fulfilled(world, 5)
    world.kill(worker)
    world.sandbox.terminate_behind_back(ids(machines[:2]))
    world.clock.advance(3 * 3600.0)

    world.start_worker()
    world.run(5)
    assert world.events("MachineLost") == [], "one sweep is not enough"
    world.run(70)

    assert len(world.events("MachineLost")) == 2
    if way in REFILLING:
        world.run(200, step=5.0)
    assert world.live() == world.owned() == ids(machines[2:])
    world.assert_agreement()
    world.leave_nothing(machines)
