"""`hostledger audit compare`: the ledger beside CloudTrail's records, in both directions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.interfaces.commands import Answer, Run, fulfilled, refused
from tests.world import World

ROLE = "arn:aws:iam::123456789012:role/hostledger"
WORKER = {
    "type": "AssumedRole",
    "arn": "arn:aws:sts::123456789012:assumed-role/hostledger/i-0abc",
    "sessionContext": {"sessionIssuer": {"type": "Role", "arn": ROLE}},
}
MALLORY = {"type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/mallory"}


def record(name: str, request_id: str, machine_ids: list[str], **more: Any) -> dict[str, Any]:
    """A call as CloudTrail has it: EC2's names begin with small letters there."""
    items = {"items": [{"instanceId": machine_id} for machine_id in machine_ids]}
    return {
        "eventVersion": "1.10",
        "eventTime": "2027-01-15T08:00:01Z",
        "eventSource": "ec2.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-east-1",
        "userIdentity": WORKER,
        "requestParameters": items if name == "TerminateInstances" else {},
        "responseElements": {"requestId": request_id, "instancesSet": items},
        "requestID": request_id,
        **more,
    }


def tagged(deployment: str) -> dict[str, Any]:
    tags = [{"key": "hostledger:deployment", "value": deployment}]
    return {"tagSpecificationSet": {"items": [{"resourceType": "instance", "tags": tags}]}}


@pytest.fixture
def trail(world: World) -> list[dict[str, Any]]:
    """What CloudTrail recorded of a cycle of two machines, one of which was returned."""
    _, machine_ids = fulfilled(world, 2)
    world.run_until_final(world.give_back([{"machineId": machine_ids[0], "name": ""}]))
    (launched,) = world.events("LaunchAccepted")
    (ended,) = world.events("TerminationAccepted")
    return [
        record("RunInstances", launched["aws_request_id"], machine_ids),
        record(
            "TerminateInstances",
            ended["aws_request_id"],
            machine_ids[:1],
            eventTime="2027-01-15T08:00:40Z",
        ),
        record("DescribeInstances", "look", [], eventTime="2027-01-15T07:50:00Z"),
        record("DescribeInstances", "look", [], eventTime="2027-01-15T09:00:00Z"),
    ]


def compared(world: World, run: Run, records: list[dict[str, Any]], *words: str) -> Answer:
    path = world.root / "trail.json"
    path.write_text(json.dumps({"Records": records}))
    return run("audit", "compare", "--cloudtrail", str(path), *words)


def test_what_both_have_is_no_difference(
    world: World, run: Run, trail: list[dict[str, Any]]
) -> None:
    """Exit 0, how many records, in which time and regions."""
    answer = compared(world, run, trail)

    assert answer.status == 0
    assert "4 records in us-east-1, compared from 2027-01-15T07:50:00Z" in answer.out
    assert "2 calls are in the ledger" in answer.out


def test_a_call_that_the_ledger_lacks_is_told(
    world: World, run: Run, trail: list[dict[str, Any]]
) -> None:
    """With our tag, by our role, or against our machines: when, by whom, and why it counts."""
    alive = next(iter(world.live()))
    trail += [
        record(
            "RunInstances",
            "forged",
            ["i-0new"],
            userIdentity=MALLORY,
            requestParameters=tagged(world.deployment),
        ),
        record("CreateFleet", "by-role", []),
        record("TerminateInstances", "kill", [alive], userIdentity=MALLORY),
        record("TerminateInstances", "failed", [alive], errorCode="Client.UnauthorizedOperation"),
        record("RunInstances", "other", ["i-0x"], requestParameters=tagged("f" * 32)),
        record("TerminateInstances", "not ours", ["i-0y"], userIdentity=MALLORY),
    ]

    told = compared(world, run, trail, "--output", "json").document["unrecorded"]
    by_role = compared(world, run, trail, "--role", ROLE, "--output", "json")

    assert [(c["aws_request_id"], c["by"], c["because"]) for c in told] == [
        ("forged", MALLORY["arn"], "has the deployment's tag"),
        ("kill", MALLORY["arn"], "ends machines of ours"),
    ]
    assert by_role.status == 1
    assert [c["aws_request_id"] for c in by_role.document["unrecorded"]] == [
        "forged",
        "by-role",
        "kill",
        "other",
    ]


def test_a_launch_whose_answer_was_lost_is_known_by_its_token(
    world: World, run: Run, trail: list[dict[str, Any]]
) -> None:
    """The ledger never had the request id of the first attempt."""
    (intended,) = world.events("LaunchIntended")
    parameters = {**tagged(world.deployment), "clientToken": intended["token"]}
    trail.append(record("RunInstances", "lost", [], requestParameters=parameters))

    assert compared(world, run, trail).status == 0


def test_an_id_that_cloudtrail_lacks_is_told(
    world: World, run: Run, trail: list[dict[str, Any]]
) -> None:
    """A call and its machines that the ledger made up, or of a trail that was cut."""
    launched, machine_ids = trail[0]["requestID"], trail[0]["responseElements"]["instancesSet"]

    told = compared(world, run, trail[1:], "--output", "json").document["unseen"]

    assert {unseen["id"] for unseen in told} == {
        launched,
        *(item["instanceId"] for item in machine_ids["items"]),
    }
    later = compared(world, run, trail[1:], "--since", "2027-01-15T08:00:20Z")
    assert later.status == 0
    elsewhere = [{**entry, "awsRegion": "eu-west-1"} for entry in trail[2:]]
    assert compared(world, run, elsewhere).status == 0


def test_a_directory_of_files_as_aws_delivers_them(
    world: World, run: Run, trail: list[dict[str, Any]]
) -> None:
    """AWSLogs/.../*.json.gz, and nothing else that lies there."""
    folder = world.root / "AWSLogs" / "2027" / "01" / "15"
    folder.mkdir(parents=True)
    for number, entry in enumerate(trail):
        packed = gzip.compress(json.dumps({"Records": [entry]}).encode())
        (folder / f"{number}.json.gz").write_bytes(packed)
    (folder / "notes.txt").write_text("nothing")

    answer = run("audit", "compare", "--cloudtrail", str(world.root / "AWSLogs"))

    assert answer.status == 0
    assert "4 records" in answer.out


@pytest.mark.parametrize("content", ["[]", "nonsense", '{"Records": [{}]}'])
def test_what_is_no_log_file_is_refused(world: World, run: Run, content: str) -> None:
    path = Path(world.root / "other.json")
    path.write_text(content)

    refused(run("audit", "compare", "--cloudtrail", str(path)), str(path), "Records")
