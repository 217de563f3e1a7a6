"""`orphans adopt` and `machines protect`: what an operator keeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from application import crash_points
from application.protect_machines import ProtectMachines, protect_machines
from infrastructure.event_store.sqlite import SqliteEventStore
from tests.application.test_projections import assert_replay_equals_live
from tests.interfaces.commands import Run, fulfilled, refused
from tests.interfaces.test_cli import make_orphan
from tests.world import TEMPLATE, WAYS, World

MakeWorld = Callable[..., World]
MakeRun = Callable[[World], Run]


def hosts(*machine_ids: str) -> list[dict[str, Any]]:
    return [{"machineId": machine_id, "name": ""} for machine_id in machine_ids]


def protect(world: World, machine_id: str) -> None:
    """What `hostledger machines protect` does, by another process."""
    store = SqliteEventStore(world.path, world.clock, {"user": "test"})
    try:
        protect_machines(ProtectMachines([machine_id], "in time", world.random(16)), store)
    finally:
        store.close()


# -- adopting -------------------------------------------------------------------------------------


def test_an_adopted_orphan_is_a_machine_like_any_other(world: World, run: Run) -> None:
    """It is listed, nobody ends it, HostFactory returns it by its id, and then it ends."""
    first, second = make_orphan(world, 2)

    answer = run("orphans", "adopt", first, "--reason", "launched before the restore")

    assert (answer.status, answer.out) == (0, f"{first}\n")
    rows = run("orphans", "list", "--output", "json").document["orphans"]
    assert [row["machine_id"] for row in rows] == [second]
    machine = run("machines", "show", first, "--output", "json").document
    assert (machine["request_id"], machine["owed"], machine["alive"]) == (None, None, True)
    assert (machine["instance_type"], machine["zone"]) == ("t3.medium", "us-east-1a")
    world.run(30)
    assert run("machines", "show", first, "--output", "json").document["status"] == "running"
    (event, _) = run("audit", "history", first, "--output", "json").document["events"]
    assert event["topic"] == "MachineAdopted"
    assert event["fields"]["reason"] == "launched before the restore"
    run("orphans", "terminate", second, "--reason", "not this one")
    world.run(1500, step=5.0)
    assert world.live() == {first} == world.owned()

    assert world.run_until_final(world.give_back(hosts(first)))["status"] == "complete"
    assert world.live() == set()
    world.assert_agreement()


def test_an_adopted_machine_is_returned_by_an_operator(world: World, run: Run) -> None:
    (orphan,) = make_orphan(world)
    run("orphans", "adopt", orphan, "--reason", "x")

    return_id = run("machines", "return", orphan, "--reason", "done with it").out.strip()

    assert world.run_until_final(return_id)["status"] == "complete"
    world.assert_agreement()


def test_an_adopted_machine_that_does_not_run_is_left_alone(world: World, run: Run) -> None:
    """It is stopped: no request waits for it, so it is never pending too long."""
    (orphan,) = make_orphan(world)
    world.sandbox.stop_behind_back([orphan])
    world.run(70)
    run("orphans", "adopt", orphan, "--reason", "x")

    world.run(900, step=5.0)

    assert world.live() == {orphan}
    assert run("machines", "show", orphan, "--output", "json").document["owed"] is None


def test_adopting_counts_for_a_cap_on_spend(world: World, run: Run) -> None:
    """Nobody says what it costs, and the worker goes on."""
    priced = {**TEMPLATE, "attributes": {**TEMPLATE["attributes"]}}
    priced["attributes"]["priceInfo"] = ["String", "price:0.5"]
    world.write_templates([priced])
    (world.root / "conf/hostledger.json").write_text(
        '{"provider": {"limits": {"spend_per_hour": 1}}}'
    )
    (orphan,) = make_orphan(world)
    run("orphans", "adopt", orphan, "--reason", "x")

    _, machine_ids = fulfilled(world, 2)

    assert world.live() == {orphan, *machine_ids}


def test_only_orphans_are_adopted(world: World, run: Run) -> None:
    """A machine of ours, an unknown id, one being terminated, one whose end the ledger has seen:
    none, and all by name."""
    (orphan,) = make_orphan(world)
    _, (ours,) = fulfilled(world, 1)
    before = world.topics()

    refused(run("orphans", "adopt", orphan, ours, "--reason", "x"), f"{ours} is not among")
    refused(run("orphans", "adopt", "i-none", "--reason", "x"), "i-none is not among")
    assert world.topics() == before
    run("orphans", "terminate", orphan, "--reason", "x")
    refused(run("orphans", "adopt", orphan, "--reason", "x"), orphan, "already")


def test_what_the_ledger_has_seen_end_is_not_adopted(world: World, run: Run) -> None:
    """It lives although its end is in the ledger: that is no machine without a history."""
    _, (ours,) = fulfilled(world, 1)
    connection = sqlite3.connect(world.path, isolation_level=None)
    connection.execute("UPDATE machines SET alive = 0, status = 'terminated'")
    connection.close()
    world.run(70)

    refused(run("orphans", "adopt", ours, "--reason", "x"), ours, "orphans terminate")


# -- protecting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_return_of_a_protected_machine_is_refused(
    make_world: MakeWorld, make_run: MakeRun, way: str
) -> None:
    """The others end; it lives, the answer says why, and lifting the protection does not end it:
    another return does."""
    world = make_world(boot_time=5.0, shutdown_time=5.0, way=way)
    run = make_run(world)
    world.start_worker()
    machines = world.fulfilled(3)
    kept = machines[0]["machineId"]
    assert run("machines", "protect", kept, "--reason", "under examination").status == 0

    answer = world.run_until_final(world.give_back(machines))

    assert answer["status"] == "complete_with_error"
    told = {m["machineId"]: (m["result"], m["message"]) for m in answer["machines"]}
    assert told[kept] == ("fail", "protected: under examination")
    assert [result for result, _ in told.values()].count("succeed") == 2
    assert f"{kept}: protected: under examination" in answer["message"]
    assert world.live() == {kept}
    shown = run("machines", "show", kept, "--output", "json").document
    assert (shown["protected"], shown["owed"]) == ("under examination", None)

    assert run("machines", "unprotect", kept, "--reason", "examined").status == 0
    world.run(900, step=5.0)
    assert world.live() == {kept}
    assert world.run_until_final(world.give_back(machines[:1]))["status"] == "complete"
    world.run(900, step=5.0)
    world.assert_nothing_left()


def test_protection_holds_against_a_return_that_waits(world: World, run: Run) -> None:
    """Handed back while no worker was there, then protected: it lives."""
    _, (kept, other) = fulfilled(world, 2)
    world.kill(world.workers[0])
    return_id = world.give_back(hosts(kept, other))
    run("machines", "protect", kept, "--reason", "wait")
    world.start_worker()

    assert world.run_until_final(return_id)["status"] == "complete_with_error"
    assert world.live() == {kept}
    assert world.status(return_id)["machines"][0]["message"] == "protected: wait"
    world.assert_agreement()


def test_a_cancelled_request_leaves_what_is_protected(world: World, run: Run) -> None:
    """The request ends, its other machines too."""
    world.write_templates([{**TEMPLATE, "fulfilmentDeadline": 7200}])
    world.sandbox.set_capacity(2)
    world.start_worker()
    request_id = world.request(4)
    assert world.run(60, lambda: len(world.events("MachineRunning")) == 2)
    kept = sorted(world.live())[0]
    run("machines", "protect", kept, "--reason", "mine")

    answer = run("requests", "cancel", request_id, "--reason", "enough", "--output", "json")
    for return_id in answer.document["return_ids"]:
        world.run_until_final(return_id)

    assert world.live() == {kept}
    assert world.status(request_id)["status"] == "complete_with_error"
    world.assert_agreement()


def test_a_machine_that_hostfactory_never_names_is_kept_when_protected(
    world: World, run: Run
) -> None:
    """The rule of the request that nobody knows ends the others."""
    world.start_worker()
    world.request(2)
    assert world.run(60, lambda: len(world.events("MachineRunning")) == 2)
    kept = sorted(world.live())[0]
    run("machines", "protect", kept, "--reason", "mine")

    def others_call() -> None:
        world.call("getAvailableTemplates", {})
        world.call("getRequestStatus", {"requests": [{"requestId": "req-" + "0" * 32}]})

    world.run(900, poll=others_call, step=5.0)

    assert world.live() == {kept}


def test_a_machine_that_is_slow_to_start_is_kept_when_protected(
    make_world: MakeWorld, make_run: MakeRun
) -> None:
    """Pending for longer than the site allows: it is left to start."""
    world = make_world(boot_time=400.0)
    run = make_run(world)
    world.start_worker()
    request_id = world.request(2)
    assert world.run(30, lambda: len(world.owned()) == 2)
    kept = sorted(world.live())[0]
    run("machines", "protect", kept, "--reason", "slow by nature")

    world.run(500)

    assert world.live() == {kept}
    assert world.run_until_final(request_id)["status"] == "complete_with_error"
    world.assert_agreement()


def test_surplus_is_kept_when_protected(world: World, run: Run) -> None:
    """A machine that nobody asks for any more is ended, unless an operator was faster; and then
    when the protection is lifted."""
    request_id = world.request(2)
    kept: list[str] = []

    def cancel_then_protect() -> None:
        if not world.events("RequestCancelled"):
            world.cancel(request_id)
            crash_points.crash_at("commit.MachineLaunched.after")
        else:
            kept.append(sorted(world.owned())[0])
            protect(world, kept[0])

    with world.pausing_at("aws.RunInstances.after", cancel_then_protect):
        world.start_worker()
        world.run(120)
    assert world.live() == set(kept)

    run("machines", "unprotect", kept[0], "--reason", "x")
    world.run(120)
    assert world.live() == set()
    world.assert_agreement()


def test_protecting_between_the_intent_and_the_call_stops_the_call(world: World) -> None:
    """The intent is recorded, the machine protected, and then no call names it; the other machine
    of the intent ends by a new one."""
    _, (kept, other) = fulfilled(world, 2)

    with world.pausing_at("commit.TerminationIntended.after", lambda: protect(world, kept)):
        return_id = world.give_back(hosts(kept, other))
        world.run_until_final(return_id)

    assert world.live() == {kept}
    (sent,) = world.calls_of("TerminateInstances")
    assert kept not in sent.params.values()
    assert world.status(return_id)["status"] == "complete_with_error"
    world.assert_agreement()


def test_protecting_too_late_says_so(world: World, run: Run) -> None:
    """EC2 has been asked already: recorded, exit 1, and the machine is named."""
    _, (machine_id,) = fulfilled(world, 1)
    world.give_back(hosts(machine_id))
    assert world.run(30, lambda: bool(world.calls_of("TerminateInstances")))

    answer = run("machines", "protect", machine_id, "--reason", "stop")

    assert answer.status == 1
    assert machine_id in answer.err and "already" in answer.err


def test_only_living_machines_of_the_ledger_are_protected(world: World, run: Run) -> None:
    """Unknown and gone ones are named, and nothing is recorded; twice the same is one event."""
    _, (living, ended) = fulfilled(world, 2)
    world.run_until_final(world.give_back(hosts(ended)))
    before = world.topics()

    refused(run("machines", "protect", living, "i-none", "--reason", "x"), "i-none")
    refused(run("machines", "protect", living, ended, "--reason", "x"), ended, "terminated")
    refused(run("machines", "unprotect", "i-none", "--reason", "x"), "i-none")
    assert world.topics() == before
    for _ in range(2):
        assert run("machines", "protect", living, "--reason", "x").status == 0
        assert run("machines", "unprotect", living, "--reason", "y").status == 0
    assert world.topics()[len(before) :] == ["MachineProtected", "MachineUnprotected"] * 2


# -- the read models ------------------------------------------------------------------------------


def test_what_operators_order_is_rebuilt_from_the_log(world: World, run: Run) -> None:
    """Adopted, protected, refused, settled by order, paused: every table comes out equal."""
    world.write_templates([{**TEMPLATE, "fulfilmentDeadline": 7200}])
    (orphan,) = make_orphan(world)
    run("orphans", "adopt", orphan, "--reason", "x")
    _, (kept, other) = fulfilled(world, 2)
    run("machines", "protect", kept, "--reason", "y")
    world.run_until_final(world.give_back(hosts(kept, other, orphan)))
    assert_replay_equals_live(world)
    run("machines", "unprotect", kept, "--reason", "z")
    world.sandbox.add_fault("slow", action="RunInstances", late=30.0)
    world.sandbox.add_fault("error", action="RunInstances", code="InsufficientInstanceCapacity")
    world.request(1)
    world.run(30)
    ((batch_id,),) = world.query("SELECT batch_id FROM batches WHERE state = 'doubtful'")
    run("batches", "settle", batch_id, "--reason", "now")
    run("pause", "--reason", "stop")
    assert_replay_equals_live(world)
