"""The operator's commands over a site: what they print, what they record, how they refuse."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from dependency_injector import providers

from infrastructure.read_models.sql_work import SqlWork
from infrastructure.templates.instance_types import learn_types, types_file
from interfaces.cli.main import COMMANDS, main
from interfaces.cli.requests import end_request, wait_until_final
from interfaces.read_side import Call
from interfaces.write_side.container import WriteSide
from interfaces.write_side.processes import sandbox_process
from tests.interfaces.commands import Run, fulfilled, refused
from tests.world import TEMPLATE, World


def keys_of(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in keys_of(item)}
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    return set()


def times_of(value: object) -> list[str]:
    """The values of the keys that end as keys of times do."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k.endswith(("_at", "launch_time")) and v is not None]
        return own + [time for item in value.values() for time in times_of(item)]
    if isinstance(value, list):
        return [time for item in value for time in times_of(item)]
    return []


# -- requests -------------------------------------------------------------------------------------


def test_requests_list_is_a_table_with_the_newest_first(world: World, run: Run) -> None:
    """One aligned line a request, whatever the columns hold."""
    first, _ = fulfilled(world, 2)
    second = world.request(3)

    lines = run("requests", "list").out.splitlines()

    assert [line.split()[0] for line in lines] == ["REQUEST_ID", second, first]
    assert lines[1].split()[1:5] == ["open", "3", "0", "OnDemand-A"]
    assert lines[2].split()[1:5] == ["fulfilled", "2", "2", "OnDemand-A"]
    start = lines[0].index("TEMPLATE_ID")
    assert [line[start:].split()[0] for line in lines[1:]] == ["OnDemand-A"] * 2


def test_requests_list_narrows(world: World, run: Run) -> None:
    """--status, --open and --limit each leave out what they say."""
    first, _ = fulfilled(world, 1)
    second = world.request(1)

    def ids(*words: str) -> list[str]:
        answer = run("requests", "list", "--output", "json", *words)
        return [row["request_id"] for row in answer.document["requests"]]

    assert ids() == [second, first]
    assert ids("--open") == [second]
    assert ids("--status", "complete") == [first]
    assert ids("--status", "complete_with_error") == []
    assert ids("--limit", "1") == [second]


def test_requests_show_has_machines_and_launches(world: World, run: Run) -> None:
    """A request is shown with the machines it was given and the batches that had its claim."""
    request_id, machine_ids = fulfilled(world, 2)
    world.request(1)

    document = run("requests", "show", request_id, "--output", "json").document

    assert document["state"] == "fulfilled"
    assert sorted(m["machine_id"] for m in document["machines"]) == sorted(machine_ids)
    (batch,) = document["batches"]
    assert batch["claims"] == [{"request_id": request_id, "machine_count": 2}]
    assert batch["state"] == "accepted"
    table = run("requests", "show", request_id).out
    assert all(machine_id in table for machine_id in [*machine_ids, batch["batch_id"]])


def test_requests_show_tells_the_shortages(world: World, run: Run) -> None:
    """Why machines are missing is told from the events: pool, AWS's reason, how many."""
    world.sandbox.add_fault(
        "error", action="RunInstances", times=-1, code="InsufficientInstanceCapacity", message="No."
    )
    world.start_worker()
    request_id = world.request(2)
    world.run_until_final(request_id)

    document = run("requests", "show", request_id, "--output", "json").document

    assert document["status"] == "complete_with_error"
    (shortage,) = document["shortages"]
    assert shortage["reason"] == "InsufficientInstanceCapacity"
    assert (shortage["pool"], shortage["missing"]) == ("t3.medium/subnet-a1/ondemand", 2)
    assert "shortages" in run("requests", "show", request_id).out


def test_a_return_is_shown_as_a_request(world: World, run: Run) -> None:
    """The id that HostFactory holds for a return leads to its machines, strangers among them."""
    _, machine_ids = fulfilled(world, 1)
    return_id = world.give_back(
        [{"machineId": machine_ids[0], "name": ""}, {"machineId": "i-0stranger", "name": "far"}]
    )

    document = run("requests", "show", return_id, "--output", "json").document

    assert document["kind"] == "return"
    told = {m["machine_id"]: (m["ours"], m["alive"]) for m in document["machines"]}
    assert told == {machine_ids[0]: (True, True), "i-0stranger": (False, None)}


def test_requests_create_is_carried_out_by_the_worker(world: World, run: Run) -> None:
    """The id is printed alone, the ledger says who asked, and machines come."""
    answer = run("requests", "create", "--template", "OnDemand-A", "--count", "2")
    request_id = answer.out.strip()

    assert answer.status == 0
    assert answer.out == request_id + "\n"
    assert "no worker lives" in answer.err
    (asked,) = world.query(
        "SELECT data ->> 'source', metadata ->> '$.actor.process' FROM events WHERE stream = ?",
        f"request-{request_id}",
    )
    assert asked[0] == "operator"
    assert asked[1].startswith("hostledger requests create[")
    world.start_worker()
    assert world.run_until_final(request_id)["status"] == "complete"
    world.assert_agreement()


def test_requests_create_refuses_by_the_rules_of_the_template(world: World, run: Run) -> None:
    """Unknown template, count 0, over the limit: exit 1, named, nothing recorded."""
    create = ("requests", "create", "--template")
    refused(run(*create, "Nowhere", "--count", "1"), "Nowhere")
    refused(run(*create, "OnDemand-A", "--count", "0"), "machineCount", "0")
    refused(run(*create, "OnDemand-A", "--count", "2001"), "2001", "2000")
    assert world.topics() == ["DeploymentCreated"]


def test_requests_create_waits_as_long_as_it_is_told(world: World, run: Run) -> None:
    """Not final in time: the id all the same, exit 1 and where to look."""
    answer = run("requests", "create", "--template", "OnDemand-A", "--count", "1", "--wait", "0")

    assert answer.status == 1
    assert answer.out.splitlines()[1:] == ["open"]
    assert "still running after 0 s" in answer.err


def test_waiting_ends_with_the_request(world: World, run: Run) -> None:
    """The wait looks until the request is final, and no longer."""
    world.start_worker()
    request_id = world.request(1)

    class WorldClock:
        def now(self) -> Any:
            return world.clock.now()

        def sleep(self, seconds: float) -> None:
            world.run(1.0)

    call = Call("requests create", world.environ, "python", world.site)
    began = world.clock.seconds
    document = wait_until_final(call, WorldClock(), request_id, 300.0)

    assert document["status"] == "complete"
    assert world.clock.seconds - began < 60


def test_requests_cancel_returns_what_has_come(world: World, run: Run) -> None:
    """Nothing of a cancelled request lives on, though its worker died half way in assigning."""
    with world.dying_at("commit.MachineLaunched.before"):
        world.start_worker()
        request_id = world.request(70)
        with pytest.raises(BaseException, match="MachineLaunched"):
            world.run(10)
    world.kill(world.workers[0])
    known = len(world.owned())
    assert 0 < known < 70

    answer = run("requests", "cancel", request_id, "--reason", "not needed", "--output", "json")

    assert answer.status == 0
    (return_id,) = answer.document["return_ids"]
    world.start_worker()
    assert world.run_until_final(return_id)["status"] == "complete"
    assert world.live() == set()
    assert world.status(request_id)["message"] == "not needed"
    world.assert_agreement()


class LookedTooEarly(SqlWork):
    """Sees no machine of a request at the first look: the worker recorded them right after it."""

    looks = 0

    def living_machines_of(self, request_id: str) -> list[str]:
        self.looks += 1
        return super().living_machines_of(request_id) if self.looks > 1 else []


def test_requests_cancel_misses_no_machine_that_the_worker_records_meanwhile(world: World) -> None:
    """Machines that were recorded between the operator's look and commit go back all the same."""
    with world.dying_at("commit.MachineLaunched.before"):
        world.start_worker()
        request_id = world.request(70)
        with pytest.raises(BaseException, match="MachineLaunched"):
            world.run(10)
    world.kill(world.workers[0])
    side = WriteSide(site=world.site, environ=world.environ, process="test")
    side.work.override(providers.Object(LookedTooEarly(side.store(), "default", "us-east-1")))

    (return_id,) = end_request(side, request_id, "not needed")

    world.start_worker()
    assert world.run_until_final(return_id)["status"] == "complete"
    assert world.live() == set()
    world.assert_agreement()


def test_requests_cancel_refuses_what_is_final_or_unknown(world: World, run: Run) -> None:
    """A final request's machines are returned instead; an unknown id is named."""
    request_id, _ = fulfilled(world, 1)
    before = world.topics()

    refused(run("requests", "cancel", request_id, "--reason", "x"), request_id, "fulfilled")
    refused(run("requests", "cancel", "req-none", "--reason", "x"), "req-none")
    refused(run("requests", "show", "req-none"), "req-none", "requests list")
    assert world.topics() == before


# -- machines -------------------------------------------------------------------------------------


def test_machines_list_narrows(world: World, run: Run) -> None:
    """--request, --status and --alive each leave out what they say."""
    first, ids = fulfilled(world, 2)
    second, others = fulfilled(world, 1)
    world.run_until_final(world.give_back([{"machineId": ids[0], "name": ""}]))

    def listed(*words: str) -> set[str]:
        answer = run("machines", "list", "--output", "json", *words)
        return {row["machine_id"] for row in answer.document["machines"]}

    assert listed() == {*ids, *others}
    assert listed("--alive") == {ids[1], *others}
    assert listed("--status", "terminated") == {ids[0]}
    assert listed("--request", second) == set(others)
    assert listed("--request", first, "--alive") == {ids[1]}
    assert run("machines", "list", "--request", "req-none").out == "no machine\n"


def test_machines_show_says_whose_it_is(world: World, run: Run) -> None:
    """One machine with its request, batch and times; an unknown one is named."""
    request_id, (machine_id,) = fulfilled(world, 1)

    document = run("machines", "show", machine_id, "--output", "json").document

    assert document["request_id"] == request_id
    assert (document["status"], document["alive"]) == ("running", True)
    assert document["batch_id"].startswith("bat-")
    assert f"request_id            {request_id}" in run("machines", "show", machine_id).out
    refused(run("machines", "show", "i-none"), "i-none")


def test_machines_return_ends_them(world: World, run: Run) -> None:
    """What an operator returns is terminated, and the ledger keeps the reason."""
    _, machine_ids = fulfilled(world, 3)

    answer = run("machines", "return", *machine_ids[:2], machine_ids[0], "--reason", "too hot")
    return_id = answer.out.strip()

    assert world.run_until_final(return_id)["status"] == "complete"
    assert world.live() == {machine_ids[2]}
    told = run("audit", "history", return_id, "--output", "json").document["events"][0]
    assert told["fields"]["reason"] == "too hot"
    assert sorted(told["fields"]["machine_ids"]) == sorted(machine_ids[:2])


def test_machines_return_refuses_unknown_ids_by_name(world: World, run: Run) -> None:
    """One unknown id among known ones: none is returned."""
    _, machine_ids = fulfilled(world, 1)
    before = world.topics()

    refused(run("machines", "return", machine_ids[0], "i-none", "--reason", "x"), "i-none")
    assert world.topics() == before


# -- templates ------------------------------------------------------------------------------------


def test_templates_list_and_show(world: World, run: Run) -> None:
    """What HostFactory is offered, with its revision."""
    (listed,) = run("templates", "list", "--output", "json").document["templates"]
    shown = run("templates", "show", "OnDemand-A", "--output", "json").document

    assert listed == shown
    assert (shown["template_id"], shown["vm_type"]) == ("OnDemand-A", "t3.medium")
    assert run("templates", "list").out.split()[-1] == shown["revision"][:12]
    refused(run("templates", "show", "Nowhere"), "Nowhere")


def test_templates_validate_names_every_problem(world: World, run: Run) -> None:
    """File, template, field and problem for each; exit 1 as soon as a template is left out."""
    assert run("templates", "validate").status == 0
    bad = {**TEMPLATE, "templateId": "Bad", "maxNumber": "many"}
    world.write_templates([TEMPLATE, bad])

    answer = run("templates", "validate")

    path = f"{world.root}/conf/awsprov_templates.json"
    assert answer.status == 1
    assert answer.out.startswith(f"{path}: template Bad: maxNumber: ")
    document = run("templates", "validate", path, "--output", "json").document
    assert document["template_ids"] == ["OnDemand-A"]
    assert [(p["template_id"], p["field"], p["fatal"]) for p in document["problems"]] == [
        ("Bad", "maxNumber", True)
    ]


def test_templates_validate_needs_no_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file on its own can be checked anywhere; one that is no JSON is refused with its place."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "templates.json"
    file.write_text(json.dumps({"templates": [TEMPLATE]}))
    assert main(["templates", "validate", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 1 offered\n"

    file.write_text('{"templates": [')
    assert main(["templates", "validate", str(file)]) == 1
    assert f"{file}: line 1" in capsys.readouterr().err


def test_templates_refresh_learns_what_hostfactory_is_told(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template without attributes is offered once AWS was asked, with nothing else changed."""
    bare = {name: value for name, value in TEMPLATE.items() if name != "attributes"}
    world.write_templates([{**bare, "vmType": "m7g.large"}])
    answer = run("templates", "validate")
    assert answer.status == 1
    assert "run `hostledger templates refresh`" in answer.out
    with sandbox_process() as sandbox:
        monkeypatch.setenv("HOSTLEDGER_PROVIDER__AWS__ENDPOINT_URL", sandbox.url)
        learned = run("templates", "refresh", "c5.large", "--output", "json")
        again = run("templates", "refresh").out.splitlines()
        unknown = run("templates", "refresh", "m5.giant")

    assert learned.status == 0
    assert [
        (row["instance_type"], row["vcpus"], row["memory"], row["architectures"], row["changed"])
        for row in learned.document["instance_types"]
    ] == [("c5.large", 2, 4096, ["x86_64"], True), ("m7g.large", 2, 8192, ["arm64"], True)]
    assert [line.split()[0] for line in again] == ["INSTANCE_TYPE", "m7g.large"]
    assert again[1].split()[-1] == "no"
    assert (unknown.status, "AWS knows no instance type m5.giant" in unknown.err) == (1, True)
    assert run("templates", "validate").status == 0
    (offered,) = run("templates", "list", "--output", "json").document["templates"]
    assert offered["attributes"] == {
        "type": ["String", "AARCH64"],
        "ncores": ["Numeric", "1"],
        "ncpus": ["Numeric", "2"],
        "nram": ["Numeric", "8192"],
    }


def test_templates_refresh_without_aws(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is learned and nothing is lost when AWS cannot be asked."""
    monkeypatch.setenv("HOSTLEDGER_PROVIDER__AWS__ENDPOINT_URL", "http://127.0.0.1:1")

    refused(run("templates", "refresh"), "AWS was not asked, or refused")


def test_templates_generate(world: World, run: Run) -> None:
    """A file of IBM's shape that is served as it is, a template for each API."""
    learn_types(
        types_file(world.site.state_dir),
        ["m5.large", "m5.xlarge"],
        lambda names: {
            name: {"vcpus": n, "cores": n, "memory": n * 4096, "architectures": ["x86_64"]}
            for name, n in zip(names, (2, 4), strict=True)
        },
    )
    types = ["--type", "m5.large", "m5.xlarge", "--subnet", "subnet-1", "--image", "ami-1"]

    made = run("templates", "generate", *types, "--api", "RunInstances", "EC2Fleet", "ASG")
    file = world.root / "made.json"
    file.write_text(made.out)

    assert made.status == 0
    assert [t["providerApi"] for t in made.document["templates"]] == [
        "RunInstances",
        "EC2Fleet",
        "ASG",
    ]
    assert run("templates", "validate", str(file)).out == f"{file}: 3 offered\n"
    refused(run("templates", "generate", *types, "--api", "SpotFleet"), "--fleet-role")
    types[1:3] = ["m6i.large"]
    refused(run("templates", "generate", *types), "`hostledger templates refresh m6i.large`")


# -- audit ----------------------------------------------------------------------------------------


def test_audit_history_is_the_things_own_stream(world: World, run: Run) -> None:
    """Only that thing's events, in their order, with who, when and why."""
    request_id, machine_ids = fulfilled(world, 1)

    def topics(*words: str) -> list[str]:
        answer = run("audit", "history", *words, "--output", "json")
        return [event["topic"] for event in answer.document["events"]]

    assert topics(request_id) == ["MachinesRequested", "MachinesAssigned", "RequestFulfilled"]
    assert topics(machine_ids[0]) == ["MachineLaunched", "MachineRunning"]
    assert topics("OnDemand-A") == topics("awsinst/OnDemand-A") == ["TemplateRevised"]
    assert topics("deployment") == ["DeploymentCreated"]
    (batch_id,) = world.query("SELECT batch_id FROM batches")[0]
    assert topics(batch_id) == ["LaunchIntended", "LaunchAccepted"]
    refused(run("audit", "history", "i-none"), "i-none")


def test_audit_history_tells_cause_and_actor(world: World, run: Run) -> None:
    """Each event has its position, its time, its cause and its actor, in table and JSON."""
    request_id, _ = fulfilled(world, 1)

    answer = run("audit", "history", request_id, "--output", "json")
    asked, assigned, _ = answer.document["events"]

    assert asked["actor"]["provider"] == "awsinst"
    assert asked["correlation_id"] == assigned["correlation_id"] == request_id
    causes = [row[0] for row in world.query("SELECT event_id FROM events")]
    assert assigned["causation_id"] in causes
    assert assigned["position"] > asked["position"]
    table = run("audit", "history", request_id).out
    assert f"command {request_id}" in table
    assert f"because of event {assigned['causation_id']}" in table


def test_audit_history_related_is_all_that_the_command_led_to(world: World, run: Run) -> None:
    """With --related: every event of the same command on whatever stream, and none of another's."""
    request_id, _ = fulfilled(world, 1)
    other, _ = fulfilled(world, 1)

    answer = run("audit", "history", request_id, "--related", "--output", "json")
    events = answer.document["events"]

    assert {event["correlation_id"] for event in events} == {request_id}
    assert "LaunchIntended" in [event["topic"] for event in events]
    assert "MachineRunning" in [event["topic"] for event in events]
    positions = [event["position"] for event in events]
    assert positions == sorted(positions)
    assert other not in answer.out


def test_audit_tail_is_the_end_of_the_log(world: World, run: Run) -> None:
    """The last events, oldest first, of one topic when it is named."""
    fulfilled(world, 2)

    def topics(*words: str) -> list[str]:
        answer = run("audit", "tail", "--output", "json", *words)
        return [event["topic"] for event in answer.document["events"]]

    assert topics("-n", "3") == world.topics()[-3:]
    assert topics("--topic", "MachineRunning") == ["MachineRunning"] * 2
    assert run("audit", "tail", "--topic", "Nothing").out == "no event\n"


def test_what_came_from_outside_cannot_steer_the_terminal(world: World, run: Run) -> None:
    """A reason with escape codes and line ends is printed as one plain line."""
    request_id = world.request(1)
    run("requests", "cancel", request_id, "--reason", "a\x1b[2Jb\nc")

    (line,) = run("requests", "list").out.splitlines()[1:]

    assert line.endswith("a?[2Jb c")


# -- orphans --------------------------------------------------------------------------------------


def make_orphan(world: World, count: int = 1) -> list[str]:
    """Instances with our tag that the ledger has never heard of, seen by a sweep."""
    client = botocore.session.get_session().create_client(
        "ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    world.sandbox.attach(client)
    tags = [
        {"Key": "hostledger:deployment", "Value": world.deployment},
        {"Key": "hostledger:batch", "Value": "bat-" + "f" * 32},
    ]
    answer = client.run_instances(
        ImageId="ami-1",
        InstanceType="t3.medium",
        SubnetId="subnet-a1",
        MinCount=count,
        MaxCount=count,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    world.start_worker()
    world.run(90)
    return [instance["InstanceId"] for instance in answer["Instances"]]


def test_orphans_are_listed_and_terminated_by_name(world: World, run: Run) -> None:
    """What a sweep saw is listed and left alone until an operator names it."""
    first, second = make_orphan(world, 2)
    listed = run("orphans", "list", "--output", "json").document["orphans"]
    assert {row["machine_id"] for row in listed} == {first, second}
    assert world.live() == {first, second}

    answer = run("orphans", "terminate", first, "--reason", "left by a test", "--output", "json")

    assert answer.status == 0
    (termination_id,) = answer.document["termination_ids"]
    assert world.run(60, lambda: world.live() == {second})
    intended, accepted = run("audit", "history", termination_id, "--output", "json").document[
        "events"
    ]
    assert intended["fields"]["reason"] == "orphan, ended by an operator: left by a test"
    assert accepted["topic"] == "TerminationAccepted"


def test_orphan_that_ec2_does_not_answer_for_is_ended_later(world: World, run: Run) -> None:
    """Of two in one order the first is refused and the call for the other is throttled: the order
    stands for that one."""
    kept, other = make_orphan(world, 2)
    world.sandbox.protect([kept])
    alone = {"InstanceId.1": other}
    world.sandbox.add_fault("throttle", action="TerminateInstances", match=alone)

    assert run("orphans", "terminate", kept, other, "--reason", "left by a test").status == 0

    assert world.run(60, lambda: world.live() == {kept})
    first, again = world.events("TerminationIntended")
    assert (first["machine_ids"], again["machine_ids"]) == ([kept, other], [other])
    assert again["reason"] == first["reason"]


def test_orphans_terminate_refuses_what_is_no_orphan(world: World, run: Run) -> None:
    """A machine of ours, an unknown id, one that is being terminated: none, and all by name."""
    (orphan,) = make_orphan(world)
    _, (ours,) = fulfilled(world, 1)
    before = world.topics()

    refused(run("orphans", "terminate", orphan, ours, "--reason", "x"), f": {ours} is not among")
    refused(run("orphans", "terminate", "i-none", "--reason", "x"), "i-none is not among")
    assert world.topics() == before
    assert run("orphans", "terminate", orphan, "--reason", "x").status == 0
    refused(run("orphans", "terminate", orphan, "--reason", "x"), orphan, "already")


# -- store ----------------------------------------------------------------------------------------


def test_store_status_counts_what_there_is(world: World, run: Run) -> None:
    """Identity, head, lease, sweep, worker and what is open, from the store itself."""
    _, machine_ids = fulfilled(world, 2)
    world.give_back([{"machineId": machine_ids[0], "name": ""}])
    world.request(1)

    document = run("store", "status", "--output", "json").document

    assert (document["path"], document["deployment"]) == (world.path, world.deployment)
    assert (document["incarnation"], document["schema"], document["inert"]) == (1, 5, None)
    assert document["events"] == document["head"]["position"] == len(world.topics())
    assert document["open"] == {"requests": 1, "returns": 1, "batches": 0, "terminations": 0}
    assert (document["live_machines"], document["orphans"]) == (2, 0)
    assert document["failed_projections"] == []
    assert document["leases"][0]["account"] == "default/us-east-1"
    assert document["sweeps"][0]["instances"] == 2
    assert document["worker"]["lives"] is True
    assert f"deployment     {world.deployment}\n" in run("store", "status").out


def test_store_init_refuses_a_second_store(world: World, run: Run) -> None:
    """A deployment has one store; nothing is registered by the refusal."""
    refused(run("store", "init"), world.path, "exists already", "--join")
    assert not (world.root / "user").exists()


def test_a_copy_is_inert_until_it_is_activated(world: World, run: Run) -> None:
    """A copied file is shown as inert, refuses commands, and lives with a new incarnation."""
    _, (machine_id,) = fulfilled(world, 1)
    world.kill(world.workers[0])
    shutil.copy(world.path, world.path + ".copy")
    os.replace(world.path + ".copy", world.path)

    status = run("store", "status", "--output", "json").document
    assert "is a copy" in status["inert"]
    assert status["live_machines"] == 1
    refused(run("requests", "list"), "store activate")
    refused(run("machines", "return", machine_id, "--reason", "x"), "store activate")

    answer = run("store", "activate", "--reason", "disk died", "--output", "json")
    assert answer.document == {"incarnation": 2, "path": world.path}
    assert run("store", "status", "--output", "json").document["incarnation"] == 2
    events = run("audit", "history", "deployment", "--output", "json").document["events"]
    assert [event["topic"] for event in events] == ["DeploymentCreated", "StoreActivated"]
    assert events[1]["fields"] == {"incarnation": 2, "reason": "disk died"}


def test_a_living_store_is_not_activated_by_accident(world: World, run: Run) -> None:
    """Without --again a living store keeps its incarnation."""
    refused(run("store", "activate", "--reason", "x"), "lives already", "--again")
    assert run("store", "activate", "--reason", "x", "--again").status == 0
    assert run("store", "status", "--output", "json").document["incarnation"] == 2


def test_a_damaged_store_is_told_in_a_sentence(world: World, run: Run) -> None:
    """A file whose pages are overwritten: exit 1 with the path, no trace."""
    world.request(1)
    size = Path(world.path).stat().st_size
    with open(world.path, "r+b") as file:
        file.truncate(size // 2)
    for suffix in ("-wal", "-shm"):
        Path(world.path + suffix).unlink(missing_ok=True)

    refused(run("audit", "tail"), world.path)


# -- all of them ----------------------------------------------------------------------------------


def test_json_has_snake_case_keys_and_utc_times(world: World, run: Run) -> None:
    """Every document: keys in snake_case, times that ISO 8601 reads as UTC."""
    request_id, (machine_id,) = fulfilled(world, 1)
    make_orphan(world)
    for words in (
        ("requests", "list"),
        ("requests", "show", request_id),
        ("machines", "list"),
        ("machines", "show", machine_id),
        ("templates", "list"),
        ("audit", "tail"),
        ("orphans", "list"),
        ("batches", "list"),
        ("fleets", "list"),
        ("launch-templates", "list"),
        ("store", "status"),
        ("worker", "status"),
    ):
        document = run(*words, "--output", "json").document
        # EC2's own words stay in the payload of a launch, ids in that of a deal.
        if words[0] == "audit":
            for event in document["events"]:
                del event["fields"]
        assert all(key == key.lower() and key.isidentifier() for key in keys_of(document)), words
        for time in times_of(document):
            offset = datetime.fromisoformat(time).utcoffset()
            assert offset is not None and not offset, (words, time)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bogus"],
        ["requests"],
        ["requests", "list", "--status", "done"],
        ["requests", "list", "--limit", "0"],
        ["requests", "create", "--template", "A"],
        ["requests", "cancel", "req-1"],
        ["machines", "return", "--reason", "x"],
        ["machines", "return", "i-1", "--reason", " "],
        ["store", "activate"],
        ["hf", "getEverything", "-f", "x"],
        ["scripts"],
        ["audit", "tail", "-n", "many"],
        ["orphans", "list", "--output", "xml"],
    ],
)
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own words on stderr, nothing on stdout."""
    assert main(words) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`hostledger COMMAND --help` exits 0 with its usage."""
    assert main([command, "--help"]) == 0
    assert f"usage: hostledger {command}" in capsys.readouterr().out


def test_another_instance_than_the_environments_must_be_registered(run: Run) -> None:
    """--provider is never passed over for the instance that the environment names."""
    refused(run("store", "status", "--provider", "other"), "'other'", "store init")
    assert run("store", "status", "--provider", "awsinst").status == 0


def test_a_named_configuration_that_is_broken_is_refused(world: World, run: Run) -> None:
    """--config names the file to use: the last good one does not stand in for it."""
    assert run("templates", "list").status == 0
    broken = world.root / "broken.json"
    broken.write_text("{")

    refused(run("requests", "list", "--config", str(broken)), str(broken))


def test_a_site_that_breaks_goes_on_with_the_last_good_form(world: World, run: Run) -> None:
    """The site's own file is broken: the command works and says so on stderr."""
    assert run("templates", "list").status == 0
    (world.root / "conf/awsprov_templates.json").write_text("{")

    answer = run("templates", "list")

    assert answer.status == 0
    assert "OnDemand-A" in answer.out
    assert "are not taken over" in answer.err
