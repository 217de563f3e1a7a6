"""`pause`, `resume`, `batches`, `fleets`, `launch-templates`: what an operator sees and orders."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interfaces.commands import Run, fulfilled, refused
from tests.world import TEMPLATE, World

MakeWorld = Callable[..., World]
MakeRun = Callable[[World], Run]

LONG = {**TEMPLATE, "fulfilmentDeadline": 7200}


# -- pause and resume -----------------------------------------------------------------------------


def test_pause_is_shown_wherever_one_looks(world: World, run: Run) -> None:
    """`store status`, `worker status` and HostFactory's answers say what is paused and why."""
    world.start_worker()
    assert run("store", "status", "--output", "json").document["paused"] is None

    answer = run("pause", "--launching", "--reason", "cost review")

    assert (answer.status, answer.out) == (0, "launching is paused\n")
    for command in ("store", "worker"):
        paused = run(command, "status", "--output", "json").document["paused"]
        assert (paused["scope"], paused["reason"]) == ("launching", "cost review")
        assert "scope=launching, reason=cost review" in run(command, "status").out
    asked = world.call(
        "requestMachines", {"template": {"templateId": "OnDemand-A", "machineCount": 1}}
    )
    told = "launching is paused by an operator: cost review"
    assert told in asked["message"]
    looked = world.call("getRequestStatus", {"requests": [{"requestId": asked["requestId"]}]})
    assert looked["message"] == told

    assert run("resume", "--reason", "reviewed").status == 0
    assert run("store", "status", "--output", "json").document["paused"] is None
    looked = world.call("getRequestStatus", {"requests": [{"requestId": asked["requestId"]}]})
    assert "message" not in looked
    assert [e["reason"] for e in world.events("Paused")] == ["cost review"]
    assert [e["reason"] for e in world.events("Resumed")] == ["reviewed"]


def test_pausing_says_what_it_changed(world: World, run: Run) -> None:
    """Launching becomes everything; twice the same, or resuming what runs, records nothing."""
    assert run("pause", "--launching", "--reason", "a").status == 0
    answer = run("pause", "--reason", "b", "--output", "json")
    assert answer.document == {"paused": "everything", "before": "launching"}
    before = world.topics()

    again = run("pause", "--reason", "c")
    assert (again.status, "everything was paused already" in again.err) == (0, True)
    assert world.topics() == before
    run("resume", "--reason", "d")
    twice = run("resume", "--reason", "e")
    assert (twice.status, "nothing was paused" in twice.err) == (0, True)
    assert world.topics() == [*before, "Resumed"]


def test_the_ledger_knows_who_paused(world: World, run: Run) -> None:
    """The command is in the actor of the event."""
    run("pause", "--reason", "x")

    (event,) = run("audit", "history", "brake", "--output", "json").document["events"]

    assert event["topic"] == "Paused"
    assert event["actor"]["process"].startswith("hostledger pause[")


# -- batches --------------------------------------------------------------------------------------


def doubtful(world: World, late: float = 30.0) -> tuple[str, str]:
    """A request and its launch, whose outcome is in doubt: it timed out, then was rejected; AWS
    carries it out so many seconds late."""
    world.sandbox.add_fault("slow", action="RunInstances", late=late)
    world.sandbox.add_fault("error", action="RunInstances", code="InsufficientInstanceCapacity")
    world.start_worker()
    request_id = world.request(2)
    done = world.run(60, lambda: bool(world.query("SELECT 1 FROM batches WHERE state='doubtful'")))
    assert done
    ((batch_id,),) = world.query("SELECT batch_id FROM batches")
    return request_id, batch_id


def test_batches_are_listed_with_what_is_open_first(world: World, run: Run) -> None:
    """A line a launch; those without an outcome before newer ones that have one."""
    world.write_templates([LONG])
    _, batch_id = doubtful(world)
    request_id, _ = fulfilled(world, 1)

    rows = run("batches", "list", "--output", "json").document["batches"]

    assert [row["state"] for row in rows] == ["doubtful", "accepted"]
    assert rows[0]["batch_id"] == batch_id
    assert (rows[1]["api"], rows[1]["pool"], rows[1]["account"], rows[1]["reason"]) == (
        "RunInstances",
        "t3.medium/subnet-a1/ondemand",
        "default",
        "the only account",
    )
    assert rows[1]["claims"] == [{"request_id": request_id, "machine_count": 1}]
    open_ones = run("batches", "list", "--open", "--output", "json").document["batches"]
    assert [row["batch_id"] for row in open_ones] == [batch_id]
    assert len(run("batches", "list", "--limit", "1").out.splitlines()) == 2
    assert batch_id in run("batches", "list").out


def test_a_batch_is_shown_with_its_machines(world: World, run: Run) -> None:
    request_id, machine_ids = fulfilled(world, 2)
    (row,) = run("batches", "list", "--output", "json").document["batches"]

    document = run("batches", "show", row["batch_id"], "--output", "json").document

    assert sorted(m["machine_id"] for m in document["machines"]) == sorted(machine_ids)
    table = run("batches", "show", row["batch_id"]).out
    assert all(word in table for word in [*machine_ids, request_id, "the only account"])
    refused(run("batches", "show", "bat-none"), "bat-none", "batches list")


@pytest.mark.parametrize("ordered", [True, False])
def test_a_doubtful_batch_is_settled_by_order(world: World, run: Run, ordered: bool) -> None:
    """One complete sweep instead of two five minutes apart; and exactly what was asked for lives,
    since the call's time-out has been waited out all the same."""
    world.write_templates([LONG])
    request_id, batch_id = doubtful(world)
    world.run(70)  # the first sweep that finds it in doubt
    assert world.events("LaunchSettled") == []
    if ordered:
        answer = run("batches", "settle", batch_id, "--reason", "AWS support said so")
        assert (answer.status, batch_id in answer.out) == (0, True)
        shown = run("batches", "show", batch_id, "--output", "json").document
        assert shown["settlement_ordered"] == "AWS support said so"

    settled = world.run(62, lambda: bool(world.events("LaunchSettled")))

    assert settled == ordered
    world.run_until_final(request_id)
    assert len(world.live()) == 2
    world.assert_agreement()


def test_an_order_does_not_go_before_the_time_out_of_the_call(world: World, run: Run) -> None:
    """Ordered at once: the first sweep that sees the doubt does not decide, since the call may
    still be on its way; the machines that it made late are found, and none is launched twice."""
    world.write_templates([LONG])
    request_id, batch_id = doubtful(world, late=70.0)
    assert run("batches", "settle", batch_id, "--reason", "in a hurry").status == 0

    world.run_until_final(request_id)

    assert [len(event["instances"]) for event in world.events("LaunchSettled")] == [2]
    assert len(world.launches()) == 2
    assert len(world.live()) == 2
    world.assert_agreement()


def test_only_what_is_in_doubt_is_settled(world: World, run: Run) -> None:
    """A launch with an outcome, and one that nobody knows: refused by name, nothing recorded; the
    same order twice is one."""
    world.write_templates([LONG])
    _, batch_id = doubtful(world)
    fulfilled(world, 1)
    rows = run("batches", "list", "--output", "json").document["batches"]
    accepted = next(row["batch_id"] for row in rows if row["state"] == "accepted")
    before = world.topics()

    refused(run("batches", "settle", accepted, "--reason", "x"), accepted, "is accepted")
    refused(run("batches", "settle", "bat-none", "--reason", "x"), "bat-none")
    assert world.topics() == before
    for _ in range(2):
        assert run("batches", "settle", batch_id, "--reason", "x").status == 0
    assert world.topics() == [*before, "LaunchSettlementOrdered"]


# -- fleets and launch templates ------------------------------------------------------------------


def test_fleets_and_launch_templates_are_listed(make_world: MakeWorld, make_run: MakeRun) -> None:
    """What a launch left at AWS, and with --all what is gone again."""
    world = make_world(boot_time=5.0, shutdown_time=5.0, way="fleet-maintain")
    run = make_run(world)
    assert run("fleets", "list").out == "no fleet\n"
    assert run("launch-templates", "list").out == "no launch template\n"
    world.start_worker()
    machines = world.fulfilled(2)

    (fleet,) = run("fleets", "list", "--output", "json").document["fleets"]
    (template,) = run("launch-templates", "list", "--output", "json").document["launch_templates"]

    assert (fleet["state"], fleet["target"], fleet["alive"]) == ("live", 2, 2)
    assert fleet["launch_template"] == template["name"]
    assert fleet["fleet_id"] in run("fleets", "list").out
    world.run_until_final(world.give_back(machines))
    world.run(900, step=5.0)
    assert run("fleets", "list").out == "no fleet\n"
    assert run("launch-templates", "list").out == "no launch template\n"
    assert len(run("fleets", "list", "--all").out.splitlines()) == 2
    assert len(run("launch-templates", "list", "--all").out.splitlines()) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["pause"],
        ["pause", "--launching"],
        ["resume"],
        ["batches", "settle", "bat-1"],
        ["orphans", "adopt", "i-1"],
        ["orphans", "terminate", "i-1"],
        ["machines", "protect", "i-1"],
        ["machines", "unprotect", "i-1"],
        ["machines", "return", "i-1"],
        ["requests", "cancel", "req-1"],
        ["iam-policy", "--for", "s3"],
    ],
)
def test_what_ends_or_settles_by_hand_needs_a_reason(
    words: list[str], run: Run, world: World
) -> None:
    """Exit 2, and nothing is recorded."""
    answer = run(*words)

    assert (answer.status, answer.out) == (2, "")
    assert world.topics() == ["DeploymentCreated"]
