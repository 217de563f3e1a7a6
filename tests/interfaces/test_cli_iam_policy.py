"""`hostledger iam-policy`: enough for everything that the worker does, and nothing besides."""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import botocore.session
import pytest

import infrastructure.aws
from domain import capacity
from infrastructure.aws.iam_policy import partition_of, policy
from infrastructure.event_store.dynamodb_log import BODIES
from tests.interfaces.commands import Run
from tests.world import TEMPLATE, WAYS, World

MakeWorld = Callable[..., World]

PERMISSIONS = {"DeleteMessageBatch": "DeleteMessage"}
"""Call -> the permission that it needs, where that has another name (sqs-api-permissions.html)."""

NOT_CALLED = {
    "ec2:CreateTags",  # by every call that makes something with tags
    "iam:CreateServiceLinkedRole",
    "iam:PassRole",
    "ssm:GetParameters",  # by RunInstances for `resolve:ssm:`
}
"""Permissions that AWS asks for besides those of the calls."""

MOST_CHARACTERS = 6_144
"""Of a managed policy, white space not counted (reference_iam-quotas.html)."""

FULL: dict[str, Any] = {
    **TEMPLATE,
    "instanceProfile": "workers",
    "imageId": "/site/image",
    "fulfilmentDeadline": 7200,
}


@functools.cache
def operations() -> dict[str, str]:
    """Every operation of the services that are called -> its permission."""
    session = botocore.session.get_session()
    found = {}
    for service in ("ec2", "autoscaling", "ssm", "sqs", "sts", "s3"):
        for name in session.get_service_model(service).operation_names:
            found[f"{service}:{name}"] = f"{service}:{PERMISSIONS.get(name, name)}"
    return found


def allowed(document: dict[str, Any]) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


def deny_all_but(world: World, document: dict[str, Any]) -> None:
    """Let the sandbox refuse every operation that the policy does not list."""
    may = allowed(document)
    for operation, permission in operations().items():
        if permission not in may:
            world.sandbox.deny(operation)


def full_site(make_world: MakeWorld, way: str) -> World:
    """A site that uses all that is configured: SSM, a queue, tags with ids, an assumed role."""
    world = make_world(
        templates=[FULL],
        boot_time=5.0,
        shutdown_time=5.0,
        way=way,
        settings={
            "HOSTLEDGER_PROVIDER__AWS__TAG_INSTANCE_ID": "true",
            "HOSTLEDGER_PROVIDER__AWS__ASSUME_ROLE": "arn:aws:iam::123456789012:role/buyer",
        },
    )
    queue = world.sandbox.create_queue("notices", events=True)
    world.environ["HOSTLEDGER_PROVIDER__AWS__INTERRUPTION_QUEUE"] = queue
    world.sandbox.put_parameter("/site/image", "ami-0a1b2c3d")
    return world


@pytest.mark.parametrize("way", WAYS)
def test_the_policy_is_enough_and_lists_what_is_called(
    make_world: MakeWorld, make_run: Callable[[World], Run], way: str
) -> None:
    """A whole life, filling and shortage among it, with everything else denied: no refusal. Each
    call that changes something carries or meets our tag, as the conditions ask."""
    world = full_site(make_world, way)
    document = make_run(world)("iam-policy").document
    deny_all_but(world, document)
    world.sandbox.set_capacity(2)
    world.start_worker()
    request_id = world.request(4)
    world.run(60)
    world.sandbox.set_capacity(None)
    world.run_until_final(request_id)
    machines = world.status(request_id)["machines"]
    assert len(world.live()) == 4
    world.run_until_final(world.give_back(machines))
    world.run(900, step=5.0)

    world.assert_nothing_left()
    denied = {c.action for c in world.sandbox.calls if c.outcome in ("UnauthorizedOperation",)}
    assert denied == set()
    called = {
        f"{call.service}:{PERMISSIONS.get(call.action, call.action)}"
        for call in world.sandbox.calls
    }
    assert called <= allowed(document)
    assert {"ssm:GetParameter", "sqs:ReceiveMessage", "sts:AssumeRole"} <= called
    for call in world.sandbox.calls:
        if condition(document, f"{call.service}:{call.action}", "aws:RequestTag"):
            assert world.deployment in call.params.values(), call


def condition(document: dict[str, Any], action: str, kind: str) -> bool:
    return any(
        key.startswith(kind)
        for statement in document["Statement"]
        if action in statement["Action"]
        for keys in statement.get("Condition", {}).values()
        for key in keys
    )


def test_what_the_policy_lacks_is_refused(
    make_world: MakeWorld, make_run: Callable[[World], Run]
) -> None:
    """The test above can fail: one permission less, and the request ends with its name."""
    world = full_site(make_world, "RunInstances")
    document = make_run(world)("iam-policy").document
    for statement in document["Statement"]:
        statement["Action"] = [a for a in statement["Action"] if a != "ec2:RunInstances"]
    deny_all_but(world, document)
    world.start_worker()

    answer = world.run_until_final(world.request(1))

    assert "ec2:RunInstances" in answer["message"]


def called_in_source() -> set[str]:
    """Every operation whose name stands in infrastructure/aws, or among the launch calls."""
    names = {operation.partition(":")[2] for operation in operations()}
    found = {
        value for value in vars(capacity).values() if isinstance(value, str) and value in names
    }
    for path in Path(infrastructure.aws.__path__[0]).glob("*.py"):
        if path.name == "iam_policy.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names:
                found.add(str(node.value))
            elif isinstance(node, ast.Attribute) and node.attr == "assume_role":
                found.add("AssumeRole")
    return found


def test_every_call_of_the_adapter_is_listed_and_nothing_else() -> None:
    """By the source: what no test happens to call is there too, and nothing is left of old."""
    document = policy(
        "d" * 32,
        "us-east-1",
        ["workers"],
        ["arn:aws:iam::123456789012:role/fleet"],
        ["/site/image"],
        ["https://sqs.us-east-1.amazonaws.com/123456789012/notices"],
        ["arn:aws:iam::123456789012:role/buyer"],
        tags_ids=True,
        checkpoints="s3://proofs/hostledger",
    )
    by_name = {operation.partition(":")[2]: may for operation, may in operations().items()}
    needed = {by_name[name] for name in called_in_source()}

    assert needed <= allowed(document)
    assert allowed(document) - needed <= NOT_CALLED
    assert len(json.dumps(document, separators=(",", ":"))) <= MOST_CHARACTERS


def test_what_changes_something_is_bound_to_our_tag() -> None:
    """Every permission but looking, launching, and what has no tag, has a condition."""
    document = policy("d" * 32, "us-east-1", tags_ids=True)
    free = {
        action
        for statement in document["Statement"]
        if "Condition" not in statement
        for action in statement["Action"]
    }

    changing = {action for action in free if not action.partition(":")[2].startswith("Describe")}
    assert changing == {"ec2:CreateFleet", "ec2:RequestSpotFleet", "ec2:RunInstances"}
    (launching,) = [s for s in document["Statement"] if s["Sid"] == "Launch"]
    assert not any(resource.endswith((":fleet/*", "/*:*")) for resource in launching["Resource"])
    (ending,) = [s for s in document["Statement"] if s["Sid"] == "End"]
    assert ending["Condition"] == {
        "StringEquals": {"aws:ResourceTag/hostledger:deployment": "d" * 32}
    }


def test_what_is_not_configured_is_not_allowed(world: World, make_run: Any) -> None:
    """Without profile, parameter, queue or role there is no permission for them."""
    document = make_run(world)("iam-policy").document

    assert {action.partition(":")[0] for action in allowed(document)} == {
        "ec2",
        "autoscaling",
        "iam",
    }
    assert "iam:PassRole" not in allowed(document)
    (tagging,) = [s for s in document["Statement"] if "ec2:CreateTags" in s["Action"]]
    assert "ec2:CreateAction" in tagging["Condition"]["StringEquals"]
    assert world.deployment in json.dumps(document)


def test_roles_parameters_and_queues_are_named(
    make_world: MakeWorld, make_run: Callable[[World], Run]
) -> None:
    """What is configured is allowed by its ARN; a role that is guessed from a profile is told."""
    answer = make_run(full_site(make_world, "spot-fleet-maintain"))("iam-policy")
    resources = {s["Sid"]: s["Resource"] for s in answer.document["Statement"]}

    assert resources["GiveProfiles"] == ["arn:aws:iam::*:role/workers"]
    assert resources["GiveFleetRoles"] == ["arn:aws:iam::123456789012:role/fleet"]
    assert resources["ReadImages"] == ["arn:aws:ssm:*:*:parameter/site/image"]
    assert resources["HearNotices"] == ["arn:aws:sqs:*:123456789012:notices"]
    assert resources["BeInOtherAccounts"] == ["arn:aws:iam::123456789012:role/buyer"]
    assert "workers" in answer.err


def test_the_store_s_policy_names_its_tables_alone(make_world: MakeWorld, make_run: Any) -> None:
    """Before the store is made; with Application Auto Scaling only where the site wants it."""
    prefix = "HOSTLEDGER_STORAGE__DYNAMODB_STRATEGY__"
    plain = make_world(settings={prefix + "TABLE_PREFIX": "farm"})
    answer = make_run(plain)("iam-policy", "--for", "dynamodb")

    assert (answer.status, answer.err) == (0, "")
    statements = json.loads(answer.out)["Statement"]
    assert {s["Sid"] for s in statements} == {"Ask", "Record", "Compare", "InitMakesTables"}
    for statement in statements:
        assert len(statement["Resource"]) == 5
        for resource in statement["Resource"]:
            assert resource.startswith("arn:aws:dynamodb:us-east-1:*:table/farm-")
        assert not [a for a in statement["Action"] if "*" in a]
        assert ("dynamodb:Scan" in statement["Action"]) == (statement["Sid"] == "Compare")

    scaling = make_world(
        settings={
            prefix + "BILLING_MODE": "PROVISIONED",
            prefix + "AUTO_SCALING__ENABLED": "true",
        }
    )
    answer = make_run(scaling)("iam-policy", "--for", "dynamodb")
    sids = [s["Sid"] for s in json.loads(answer.out)["Statement"]]
    assert sids[-2:] == ["InitScalesTables", "InitScalingRole"]


def test_an_auditor_s_policy_writes_nothing(make_world: MakeWorld, make_run: Any) -> None:
    """And reads no user data."""
    world = make_world(settings={"HOSTLEDGER_STORAGE__DYNAMODB_STRATEGY__TABLE_PREFIX": "farm"})
    answer = make_run(world)("iam-policy", "--for", "auditor")
    allowed, denied = json.loads(answer.out)["Statement"]
    assert (allowed["Effect"], denied["Effect"]) == ("Allow", "Deny")
    assert {a.partition(":")[2] for a in allowed["Action"]} == {
        "BatchGetItem", "DescribeTable", "GetItem", "Query",
    }  # fmt: skip
    assert len(allowed["Resource"]) == 5
    keys = {"dynamodb:LeadingKeys": [BODIES]}
    assert denied["Condition"] == {"ForAnyValue:StringEquals": keys}


@pytest.mark.parametrize(
    ("region", "partition"),
    [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("", "aws")],
)
def test_partitions(region: str, partition: str) -> None:
    assert partition_of(region) == partition
    document = policy("d" * 32, region)
    (launching,) = [s for s in document["Statement"] if s["Sid"] == "Launch"]
    assert all(fnmatchcase(r, f"arn:{partition}:ec2:*") for r in launching["Resource"])


def test_alerts_may_be_published_to_the_sites_topic_alone(
    make_world: Callable[..., World], make_run: Callable[[World], Run]
) -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:alerts"
    key = "HOSTLEDGER_MONITORING__PERFORMANCE__ALERTS__SNS_TOPIC_ARN"
    for settings, expected in (({}, []), ({key: topic}, [(["sns:Publish"], topic)])):
        document = make_run(make_world(settings=settings))("iam-policy").document
        told = [
            (statement["Action"], statement["Resource"])
            for statement in document["Statement"]
            if statement["Sid"] == "TellAlerts"
        ]
        assert told == expected
