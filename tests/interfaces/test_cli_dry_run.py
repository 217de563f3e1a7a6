"""`requests create --dry-run`: all that would be sent, and nothing done."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import pytest
from dependency_injector import providers

from interfaces.cli.requests import rehearse_request
from interfaces.write_side.container import WriteSide
from interfaces.write_side.processes import sandbox_process
from tests.interfaces.commands import Run, fulfilled, refused
from tests.world import TEMPLATE, WAYS, World

MakeWorld = Callable[..., World]
LOOKS = ("Describe", "Get")


def dry_run(world: World, count: int, template_id: str = "OnDemand-A") -> dict[str, Any]:
    """What the command shows, in this process and over the world's sandbox."""
    side = WriteSide(
        site=world.site,
        environ=world.environ,
        process="test",
        clock=providers.Object(world.clock),
        on_client=providers.Object(world.sandbox.attach),
    )
    return rehearse_request(side, argparse.Namespace(template=template_id, count=count))


def changing(world: World) -> list[str]:
    """Calls that would have changed something."""
    return [
        call.action
        for call in world.sandbox.calls
        if not call.action.startswith(LOOKS) and call.params.get("DryRun") != "true"
    ]


def content(payload: dict[str, Any]) -> str:
    """A payload without what is another in each batch: ids, and names made of them."""
    text = json.dumps(payload, sort_keys=True)
    for word in text.split('"'):
        if word.startswith(("bat-", "hostledger-")):
            text = text.replace(word, "*")
    return text


@pytest.mark.parametrize("way", WAYS)
def test_a_dry_run_says_what_is_sent_and_sends_nothing(make_world: MakeWorld, way: str) -> None:
    """No call that changes anything and no event; and the launch made afterwards is the one that
    was foretold."""
    world = make_world(boot_time=5.0, way=way)
    before = (world.topics(), world.query("SELECT * FROM requests"))

    document = dry_run(world, 3)

    assert changing(world) == []
    assert (world.topics(), world.query("SELECT * FROM requests")) == before
    (batch,) = document["batches"]
    assert (document["missing"], document["shortages"], document["paused"]) == (0, [], None)
    assert (batch["account"], batch["reason"]) == ("default", "the only account")
    assert batch["api"] == world.action
    assert batch["pools"][0].startswith("t3.medium/subnet-a1/")
    assert (batch["units"], batch["machine_count"]) == (3, 3)
    answers = {said["call"]: said["answer"] for said in batch["dry_run"]}
    if way == "RunInstances":
        assert answers == {"RunInstances": "would succeed"}
        assert batch["launch_template"] is None
    else:
        assert answers["CreateLaunchTemplate"] == "would succeed"
        assert batch["launch_template"].startswith("hostledger-")
        made = batch["launch_template_payload"]
        assert made["LaunchTemplateName"] == batch["launch_template"]
        assert made["LaunchTemplateData"]["ImageId"] == TEMPLATE["imageId"]
        assert batch["launch_template_exists"] is False
    assert answers[world.action] == ("has no dry run" if way == "group" else "would succeed")

    world.start_worker()
    request_id = world.request(3)
    world.run_until_final(request_id)
    (intent,) = world.events("LaunchIntended")
    assert intent["revision"] == document["revision"]
    assert content(intent["payload"]) == content(batch["payload"])


def test_all_batches_of_a_large_request_are_foretold(make_world: MakeWorld) -> None:
    """As many as it takes, also more than are in flight at once."""
    world = make_world(settings={"HOSTLEDGER_PROVIDER__AWS__LAUNCH_CHUNK": "10"})

    document = dry_run(world, 95)

    assert [batch["machine_count"] for batch in document["batches"]] == [10] * 9 + [5]
    assert document["missing"] == 0
    assert changing(world) == []


def test_a_launch_template_that_is_there_is_said_to_be(make_world: MakeWorld) -> None:
    """Made by a launch before: it is not made again, and AWS is not asked about making it."""
    world = make_world(boot_time=5.0, way="fleet-instant")
    world.start_worker()
    world.fulfilled(1)

    (batch,) = dry_run(world, 2)["batches"]

    assert batch["launch_template_exists"] is True
    assert [said["call"] for said in batch["dry_run"]] == ["CreateFleet"]


def test_caps_that_would_bite_are_named(make_world: MakeWorld) -> None:
    """What lives counts: three of five are left out, by the name of the cap."""
    world = make_world(boot_time=5.0)
    (world.root / "conf/hostledger.json").write_text('{"provider": {"limits": {"machines": 4}}}')
    world.start_worker()
    world.fulfilled(2)

    document = dry_run(world, 5)

    assert document["missing"] == 3
    (batch,) = document["batches"]
    assert batch["machine_count"] == 2
    (shortage,) = document["shortages"]
    assert shortage["reason"] == "MachineLimit"
    assert "provider.limits.machines allows 4 machines" in shortage["message"]


def test_what_aws_would_refuse_is_told(make_world: MakeWorld) -> None:
    """No permission: AWS's own words, for the call that they are about."""
    world = make_world()
    world.sandbox.deny("RunInstances")

    (batch,) = dry_run(world, 1)["batches"]

    assert batch["dry_run"][0]["answer"].startswith("not authorized: ")
    assert "ec2:RunInstances" in batch["dry_run"][0]["answer"]


def test_what_a_plan_needs_and_aws_does_not_answer_is_told(make_world: MakeWorld) -> None:
    """The image's parameter cannot be read: nothing is planned, for that reason."""
    world = make_world(templates=[{**TEMPLATE, "imageId": "/site/image"}])
    world.sandbox.add_fault("refused", action="GetParameter", times=-1)

    document = dry_run(world, 2)

    assert (document["missing"], document["batches"]) == (2, [])
    assert document["shortages"][0]["reason"] == "EndpointConnectionError"


def test_a_pause_is_told_and_what_would_be_sent_all_the_same(world: World, run: Run) -> None:
    run("pause", "--launching", "--reason", "budget")

    document = dry_run(world, 1)

    assert document["paused"] == {"scope": "launching", "reason": "budget"}
    assert len(document["batches"]) == 1
    assert world.topics() == ["DeploymentCreated", "Paused"]


def test_accounts_are_chosen_as_they_would_be(make_world: MakeWorld) -> None:
    """The account, its own subnet, and why."""
    template = {
        **TEMPLATE,
        "accounts": {"east": {}, "west": {"subnetId": "subnet-b1"}},
    }
    world = make_world(templates=[template])
    configuration = {
        "provider": {
            "selection": "priority",
            "accounts": {
                "east": {"region": "us-east-1", "priority": 2},
                "west": {"region": "us-west-2", "priority": 1},
            },
        }
    }
    (world.root / "conf/hostledger.json").write_text(json.dumps(configuration))

    (batch,) = dry_run(world, 1)["batches"]

    assert (batch["account"], batch["region"]) == ("west", "us-west-2")
    assert batch["reason"] == "priority 1"
    assert batch["pools"] == ["t3.medium/subnet-b1/ondemand"]


def test_the_command_shows_it(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table and as JSON with the payload, over a real endpoint; a refusal is a refusal."""
    create = ("requests", "create", "--template", "OnDemand-A", "--dry-run", "--count")
    with sandbox_process() as sandbox:
        monkeypatch.setenv("HOSTLEDGER_PROVIDER__AWS__ENDPOINT_URL", sandbox.url)
        table = run(*create, "2")
        shown = run(*create, "2", "--output", "json")

    assert (table.status, shown.status) == (0, 0)
    assert "RunInstances would succeed" in table.out
    assert shown.document["batches"][0]["payload"]["MaxCount"] == 2
    refused(run(*create, "2001"), "2001", "2000")
    assert run(*create, "1", "--wait", "3").status == 2
    assert world.topics() == ["DeploymentCreated"]


def test_an_aws_that_cannot_be_asked_is_told(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is shown, exit 1, and the sentence says what was not asked."""
    monkeypatch.setenv("HOSTLEDGER_PROVIDER__AWS__ENDPOINT_URL", "http://127.0.0.1:1")

    answer = run("requests", "create", "--template", "OnDemand-A", "--count", "1", "--dry-run")

    assert answer.status == 1
    assert "RunInstances: AWS could not be asked" in answer.err
    assert "t3.medium/subnet-a1/ondemand" in answer.out


def test_a_living_worker_is_not_disturbed(world: World) -> None:
    """A dry run while a worker holds the lease: the copy is nobody's, and the worker goes on."""
    request_id, _ = fulfilled(world, 1)

    dry_run(world, 2)

    assert world.query("SELECT count(*) FROM events WHERE topic = 'MachinesRequested'") == [(1,)]
    fulfilled(world, 1)
    world.assert_agreement()
    assert world.status(request_id)["status"] == "complete"
