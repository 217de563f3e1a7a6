"""The services beside EC2 keep what AWS documents: sts and accounts, permissions, ssm, sqs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from infrastructure.sandbox.ec2 import Sandbox
from infrastructure.sandbox.server import start_process

SESSION = botocore.session.get_session()
OURS, THEIRS = "123456789012", "111111111111"
ROLE = f"arn:aws:iam::{THEIRS}:role/site/launcher"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def client(
    sandbox: Sandbox | None,
    service: str,
    *,
    key: str = "AKIAIOSFODNN7EXAMPLE",
    token: str | None = None,
    region: str = "us-east-1",
    url: str | None = None,
) -> Any:
    """A botocore client without retries, on a sandbox or on the URL of one."""
    made = SESSION.create_client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    if sandbox is not None:
        sandbox.attach(made)
    return made


def assumed(sandbox: Sandbox, service: str, role: str = ROLE, **more: Any) -> Any:
    """A client with the keys that AssumeRole gives out."""
    sts = client(sandbox, "sts")
    keys = sts.assume_role(RoleArn=role, RoleSessionName="hostledger", **more)["Credentials"]
    return client(sandbox, service, key=keys["AccessKeyId"], token=keys["SessionToken"])


def refused(call: Callable[[], object]) -> tuple[str, int]:
    """The code and HTTP status of the error that AWS answers."""
    with pytest.raises(ClientError) as caught:
        call()
    answer: Any = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def launch(ec2: Any, count: int = 1) -> list[str]:
    """Launch machines and return their ids."""
    answer = ec2.run_instances(
        ImageId="ami-1",
        InstanceType="m5.large",
        SubnetId="subnet-a",
        MinCount=count,
        MaxCount=count,
    )
    return [instance["InstanceId"] for instance in answer["Instances"]]


# -- accounts and sts ------------------------------------------------------------------------


def test_an_assumed_role_acts_in_its_account() -> None:
    """ "You can use the role's temporary credentials ... to access resources in the account that
    owns the role" (API_AssumeRole.html)."""
    clock = Clock()
    sandbox = Sandbox(clock)
    sts = client(sandbox, "sts")
    answer = sts.assume_role(RoleArn=ROLE, RoleSessionName="hostledger", ExternalId="site-7")
    keys, who = answer["Credentials"], answer["AssumedRoleUser"]
    assert keys["AccessKeyId"].startswith("ASIA")
    assert keys["Expiration"].timestamp() == clock.now + 3600
    assert who["Arn"] == f"arn:aws:sts::{THEIRS}:assumed-role/launcher/hostledger"
    call = sandbox.calls[-1]
    assert (call.service, call.account) == ("sts", OURS)
    assert call.params["ExternalId"] == "site-7"
    theirs = client(sandbox, "sts", key=keys["AccessKeyId"], token=keys["SessionToken"])
    identity = theirs.get_caller_identity()
    assert (identity["Account"], identity["Arn"]) == (THEIRS, who["Arn"])


def test_accounts_do_not_see_each_other() -> None:
    """Instances belong to one account; the sandbox's own questions are about all."""
    sandbox = Sandbox(Clock(), accounts={"AKIATHEIRS": THEIRS})
    ours, theirs = client(sandbox, "ec2"), client(sandbox, "ec2", key="AKIATHEIRS")
    (one,), (two,) = launch(ours), launch(theirs)
    assert refused(lambda: ours.describe_instances(InstanceIds=[two])) == (
        "InvalidInstanceID.NotFound",
        400,
    )
    found = sandbox.live_instances()
    assert {i: it["account"] for i, it in found.items()} == {one: OURS, two: THEIRS}
    (reservation,) = theirs.describe_instances()["Reservations"]
    assert reservation["OwnerId"] == THEIRS
    assert {call.account for call in sandbox.calls} == {OURS, THEIRS}
    sandbox.terminate_behind_back([two])
    assert sandbox.live_instances().keys() == {one}


def test_a_client_token_is_of_one_account() -> None:
    sandbox = Sandbox(Clock(), accounts={"AKIATHEIRS": THEIRS})
    for key in ("AKIAOURS", "AKIATHEIRS"):
        client(sandbox, "ec2", key=key).run_instances(
            ImageId="ami-1", InstanceType="m5.large", ClientToken="t", MinCount=1, MaxCount=1
        )
    assert len(sandbox.live_instances()) == 2


def test_assumed_keys_expire() -> None:
    clock = Clock()
    sandbox = Sandbox(clock)
    clients = {
        service: assumed(sandbox, service, DurationSeconds=900)
        for service in ("ec2", "autoscaling", "ssm")
    }
    calls: dict[str, Callable[[], object]] = {
        "ec2": clients["ec2"].describe_instances,
        "autoscaling": clients["autoscaling"].describe_auto_scaling_groups,
        "ssm": lambda: clients["ssm"].get_parameters(Names=["a"]),
    }
    clock.now += 899
    for call in calls.values():
        call()
    clock.now += 1
    assert refused(calls["ec2"]) == ("RequestExpired", 400)
    assert refused(calls["autoscaling"]) == ("ExpiredToken", 403)
    assert refused(calls["ssm"]) == ("ExpiredTokenException", 400)


def test_assumed_keys_need_their_token() -> None:
    sandbox = Sandbox(Clock())
    keys = client(sandbox, "sts").assume_role(RoleArn=ROLE, RoleSessionName="hostledger")
    key = keys["Credentials"]["AccessKeyId"]
    ec2 = client(sandbox, "ec2", key=key)
    assert refused(ec2.describe_instances) == ("AuthFailure", 401)
    sts = client(sandbox, "sts", key=key, token="another")
    assert refused(sts.get_caller_identity) == ("InvalidClientTokenId", 403)


def test_assume_role_checks_what_it_is_asked() -> None:
    """API_AssumeRole.html: names, durations, and one hour at most when roles are chained."""
    sandbox = Sandbox(Clock())
    sts = client(sandbox, "sts")
    for wrong in (
        {"RoleArn": "arn:aws:iam::1:user/somebody-else"},
        {"RoleSessionName": "a b"},
        {"DurationSeconds": 43201},
    ):
        asked = {"RoleArn": ROLE, "RoleSessionName": "hostledger"} | wrong
        assert refused(lambda asked=asked: sts.assume_role(**asked)) == ("ValidationError", 400)
    chained = assumed(sandbox, "sts")
    asked = {"RoleArn": f"arn:aws:iam::{OURS}:role/back", "RoleSessionName": "hostledger"}
    assert chained.assume_role(**asked)["Credentials"]["AccessKeyId"]
    longer = asked | {"DurationSeconds": 3601}
    assert refused(lambda: chained.assume_role(**longer)) == ("ValidationError", 400)


def test_a_fault_may_be_of_one_account() -> None:
    sandbox = Sandbox(Clock(), accounts={"AKIATHEIRS": THEIRS})
    ours, theirs = client(sandbox, "ec2"), client(sandbox, "ec2", key="AKIATHEIRS")
    sandbox.add_fault("reset_before", action="*", account=THEIRS, times=-1)
    launch(ours)
    with pytest.raises(ConnectionClosedError):
        launch(theirs)
    assert {it["account"] for it in sandbox.live_instances().values()} == {OURS}


# -- permissions -----------------------------------------------------------------------------


def test_what_is_denied_is_not_done() -> None:
    """troubleshoot_access-denied.html, IAM User Guide: the message of an implicit denial."""
    sandbox = Sandbox(Clock())
    sandbox.deny("RunInstances", THEIRS)
    ours, theirs = client(sandbox, "ec2"), assumed(sandbox, "ec2")
    launch(ours)
    with pytest.raises(ClientError) as caught:
        launch(theirs)
    error: Any = caught.value.response["Error"]
    assert error["Code"] == "UnauthorizedOperation"
    assert error["Message"].startswith("You are not authorized to perform this operation. User: ")
    assert (
        "assumed-role/launcher/hostledger is not authorized to perform: ec2:Run"
        in (error["Message"])
    )
    assert error["Message"].endswith(
        "because no identity-based policy allows the ec2:RunInstances action"
    )
    assert len(sandbox.live_instances()) == 1
    sandbox.allow("RunInstances", THEIRS)
    launch(theirs)


def test_a_dry_run_says_what_is_denied() -> None:
    """ "If you do not have the required permissions, the error response is
    UnauthorizedOperation" (DryRun of every EC2 action)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox, "ec2")
    assert refused(lambda: ec2.describe_instances(DryRun=True)) == ("DryRunOperation", 412)
    sandbox.deny("ec2:Describe*")
    assert refused(lambda: ec2.describe_instances(DryRun=True)) == ("UnauthorizedOperation", 403)


def test_each_service_denies_in_its_own_way() -> None:
    sandbox = Sandbox(Clock())
    url = sandbox.create_queue("events")
    for service in ("autoscaling:*", "ssm:*", "sqs:*", "AssumeRole"):
        sandbox.deny(service)
    groups, ssm = client(sandbox, "autoscaling"), client(sandbox, "ssm")
    sqs, sts = client(sandbox, "sqs"), client(sandbox, "sts")
    assert refused(groups.describe_auto_scaling_groups) == ("AccessDenied", 403)
    assert refused(lambda: ssm.get_parameter(Name="a")) == ("AccessDeniedException", 400)
    assert refused(lambda: sqs.receive_message(QueueUrl=url)) == ("AccessDenied", 403)
    assert refused(lambda: sts.assume_role(RoleArn=ROLE, RoleSessionName="us")) == (
        "AccessDenied",
        403,
    )
    # "No permissions are required to perform this operation" (API_GetCallerIdentity.html).
    sandbox.deny("*")
    assert sts.get_caller_identity()["Account"] == OURS


# -- faults --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "action", "throttle", "broken"),
    [
        ("autoscaling", "DescribeAutoScalingGroups", "Throttling", "InternalFailure"),
        ("sts", "GetCallerIdentity", "Throttling", "InternalFailure"),
        ("ssm", "GetParameter", "ThrottlingException", "InternalServerError"),
        ("sqs", "ReceiveMessage", "RequestThrottled", "InternalFailure"),
    ],
)
def test_faults_are_answered_as_the_service_does(
    service: str, action: str, throttle: str, broken: str
) -> None:
    sandbox = Sandbox(Clock())
    sandbox.put_parameter("/ami", "ami-1")
    url = sandbox.create_queue("events")
    its: Any = client(sandbox, service)
    calls: dict[str, Callable[[], object]] = {
        "autoscaling": lambda: its.describe_auto_scaling_groups(),
        "sts": lambda: its.get_caller_identity(),
        "ssm": lambda: its.get_parameter(Name="/ami"),
        "sqs": lambda: its.receive_message(QueueUrl=url),
    }
    sandbox.add_fault("throttle", action=action)
    sandbox.add_fault("e500", action=action)
    sandbox.add_fault("error", action="*", code="Odd", message="so", status=409)
    sandbox.add_fault("lost_response", action=action)
    assert refused(calls[service])[0] == throttle
    assert refused(calls[service]) == (broken, 500)
    assert refused(calls[service]) == ("Odd", 409)
    with pytest.raises(ConnectionClosedError):
        calls[service]()
    calls[service]()
    assert [(call.service, call.action, call.outcome) for call in sandbox.calls] == [
        (service, action, outcome)
        for outcome in ("throttle", "e500", "error", "lost_response", "ok")
    ]


def test_the_sandbox_says_which_services_it_has() -> None:
    with pytest.raises(ValueError, match="not s3"):
        Sandbox(Clock()).attach(client(None, "s3"))


# -- ssm -------------------------------------------------------------------------------------


def test_parameters_by_name_and_arn() -> None:
    """API_GetParameter.html: the name or ARN, and a version after a colon."""
    clock = Clock()
    sandbox = Sandbox(clock)
    sandbox.put_parameter("/site/ami", "ami-1")
    clock.now += 60
    sandbox.put_parameter("/site/ami", "ami-2")
    sandbox.put_parameter("plain", "text")
    ssm = client(sandbox, "ssm")
    found = ssm.get_parameter(Name="/site/ami")["Parameter"]
    assert (found["Value"], found["Version"]) == ("ami-2", 2)
    assert found["LastModifiedDate"].timestamp() == clock.now
    arn = f"arn:aws:ssm:us-east-1:{OURS}:parameter/site/ami"
    assert found["ARN"] == arn
    assert ssm.get_parameter(Name=arn)["Parameter"]["Value"] == "ami-2"
    assert ssm.get_parameter(Name="/site/ami:1")["Parameter"]["Value"] == "ami-1"
    plain = f"arn:aws:ssm:us-east-1:{OURS}:parameter/plain"
    assert ssm.get_parameter(Name=plain)["Parameter"]["Name"] == "plain"


def test_unknown_parameters() -> None:
    """ParameterNotFound of one; several name the unknown ones and answer the others, in order."""
    sandbox = Sandbox(Clock())
    sandbox.put_parameter("b", "2")
    sandbox.put_parameter("a", "1")
    ssm = client(sandbox, "ssm")
    assert refused(lambda: ssm.get_parameter(Name="c")) == ("ParameterNotFound", 400)
    assert refused(lambda: ssm.get_parameter(Name="a:2")) == ("ParameterVersionNotFound", 400)
    found = ssm.get_parameters(Names=["b", "c", "a"])
    assert [one["Name"] for one in found["Parameters"]] == ["a", "b"]
    assert found["InvalidParameters"] == ["c"]
    too_many = [f"p{number}" for number in range(11)]
    assert refused(lambda: ssm.get_parameters(Names=too_many)) == ("ValidationException", 400)
    elsewhere = client(sandbox, "ssm", region="eu-west-1")
    assert refused(lambda: elsewhere.get_parameter(Name="a")) == ("ParameterNotFound", 400)


# -- sqs -------------------------------------------------------------------------------------


def test_a_message_received_is_hidden_until_its_timeout() -> None:
    """VisibilityTimeout, API_ReceiveMessage.html; the count tells how often it was received."""
    clock = Clock()
    sandbox = Sandbox(clock)
    url = sandbox.create_queue("events")
    sandbox.send_message(url, '{"a": 1}')
    sqs = client(sandbox, "sqs")
    asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20}
    (first,) = sqs.receive_message(**asked, VisibilityTimeout=5)["Messages"]
    assert json.loads(first["Body"]) == {"a": 1}
    assert "Messages" not in sqs.receive_message(**asked)
    clock.now += 5
    received = sqs.receive_message(**asked, MessageSystemAttributeNames=["All"])["Messages"]
    assert received[0]["MessageId"] == first["MessageId"]
    assert received[0]["Attributes"]["ApproximateReceiveCount"] == "2"
    # "If you use an old ReceiptHandle, the request will succeed, but the message might not be
    # deleted" (API_DeleteMessage.html).
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    clock.now += 30
    (again,) = sqs.receive_message(**asked)["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    clock.now += 30
    assert "Messages" not in sqs.receive_message(**asked)


def test_messages_in_batches() -> None:
    """One message unless more are asked for; what failed of a batch is named in a good answer."""
    sandbox = Sandbox(Clock())
    url = sandbox.create_queue("events")
    for number in range(12):
        sandbox.send_message(url, str(number))
    sqs = client(sandbox, "sqs")
    assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1
    taken = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [one["Body"] for one in taken] == [str(number) for number in range(1, 11)]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "1"
    assert attributes["ApproximateNumberOfMessagesNotVisible"] == "11"
    assert attributes["QueueArn"] == f"arn:aws:sqs:us-east-1:{OURS}:events"
    entries = [{"Id": one["Body"], "ReceiptHandle": one["ReceiptHandle"]} for one in taken[:2]]
    answer = sqs.delete_message_batch(
        QueueUrl=url, Entries=[*entries, {"Id": "bad", "ReceiptHandle": "no"}]
    )
    assert [one["Id"] for one in answer["Successful"]] == ["1", "2"]
    assert [one["Id"] for one in answer["Failed"]] == ["bad"]
    assert refused(lambda: sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=11)) == (
        "InvalidParameterValue",
        400,
    )


def test_queues_that_are_not_there() -> None:
    """sqs-json-api-responses.html: the older protocol's code comes in a header."""
    sandbox = Sandbox(Clock(), accounts={"AKIATHEIRS": THEIRS})
    url = sandbox.create_queue("events")
    sqs, theirs = client(sandbox, "sqs"), client(sandbox, "sqs", key="AKIATHEIRS")
    assert sqs.get_queue_url(QueueName="events")["QueueUrl"] == url
    with pytest.raises(ClientError) as caught:
        sqs.receive_message(QueueUrl=url + "2")
    answer: Any = caught.value.response
    assert answer["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert isinstance(caught.value, sqs.exceptions.QueueDoesNotExist)
    assert refused(lambda: theirs.receive_message(QueueUrl=url)) == ("AccessDenied", 403)
    with pytest.raises(ValueError, match="no queue"):
        sandbox.send_message(url + "2", "")


def test_events_go_to_the_queue_of_their_account_and_region() -> None:
    """What EventBridge's rule would send; see the events of Sandbox.on_event."""
    sandbox = Sandbox(Clock())
    url = sandbox.create_queue("events", events=True)
    for region in ("us-east-1", "eu-west-1"):
        event = {"account": OURS, "region": region, "detail": {"instance-id": "i-1"}}
        for take in sandbox.on_event:
            take(event)
    sqs = client(sandbox, "sqs")
    (message,) = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert json.loads(message["Body"])["region"] == "us-east-1"


# -- what describes the machines -------------------------------------------------------------


def test_instance_types_are_described() -> None:
    """API_DescribeInstanceTypes.html: at most 100 types, 5 to 100 a page."""
    ec2 = client(Sandbox(Clock()), "ec2")
    answer = ec2.describe_instance_types(InstanceTypes=["m5.large", "c7g.xlarge"])
    found = {one["InstanceType"]: one for one in answer["InstanceTypes"]}
    large, arm = found["m5.large"], found["c7g.xlarge"]
    assert large["VCpuInfo"]["DefaultVCpus"] == 2
    assert large["VCpuInfo"]["DefaultCores"] == 1
    assert large["MemoryInfo"]["SizeInMiB"] == 8192
    assert large["ProcessorInfo"]["SupportedArchitectures"] == ["x86_64"]
    assert (arm["VCpuInfo"]["DefaultCores"], arm["MemoryInfo"]["SizeInMiB"]) == (4, 8192)
    assert arm["ProcessorInfo"]["SupportedArchitectures"] == ["arm64"]
    assert refused(lambda: ec2.describe_instance_types(InstanceTypes=["m5.large", "m5.larg"])) == (
        "InvalidInstanceType",
        400,
    )
    many = ["m5.large"] * 101
    assert refused(lambda: ec2.describe_instance_types(InstanceTypes=many))[0] == (
        "InvalidParameterValue"
    )


def test_instance_types_come_in_pages() -> None:
    ec2 = client(Sandbox(Clock()), "ec2")
    first = ec2.describe_instance_types()
    assert len(first["InstanceTypes"]) == 100
    pages = list(ec2.get_paginator("describe_instance_types").paginate())
    names = [one["InstanceType"] for page in pages for one in page["InstanceTypes"]]
    assert len(names) == len(set(names)) > 500
    arm = [{"Name": "processor-info.supported-architecture", "Values": ["arm64"]}]
    small = ec2.describe_instance_types(MaxResults=5, Filters=arm)
    assert len(small["InstanceTypes"]) == 5
    assert all(
        one["ProcessorInfo"]["SupportedArchitectures"] == ["arm64"]
        for one in small["InstanceTypes"]
    )
    assert refused(lambda: ec2.describe_instance_types(MaxResults=101))[0] == (
        "InvalidParameterValue"
    )


def test_subnets_tell_their_zone() -> None:
    sandbox = Sandbox(Clock())
    sandbox.make_network({"subnet-1": "a", "subnet-2": "c"})
    ec2 = client(sandbox, "ec2")
    found = ec2.describe_subnets(SubnetIds=["subnet-2", "subnet-1"])["Subnets"]
    zones = {one["SubnetId"]: one["AvailabilityZone"] for one in found}
    assert zones == {"subnet-1": "us-east-1a", "subnet-2": "us-east-1c"}
    strict = client(Sandbox(Clock(), strict_ids=True), "ec2")
    assert refused(lambda: strict.describe_subnets(SubnetIds=["subnet-9"])) == (
        "InvalidSubnetID.NotFound",
        400,
    )


# -- over HTTP -------------------------------------------------------------------------------


def test_the_same_over_http() -> None:
    with start_process(accounts={"AKIATHEIRS": THEIRS}) as process:
        control, url = process.control, process.url
        control.put_parameter("/ami", "ami-1")
        queue = control.create_queue("events")
        control.send_message(queue, "hello")
        ssm, sqs = client(None, "ssm", url=url), client(None, "sqs", url=url)
        assert ssm.get_parameter(Name="/ami")["Parameter"]["Value"] == "ami-1"
        assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "hello"
        keys = client(None, "sts", url=url).assume_role(RoleArn=ROLE, RoleSessionName="us")
        key, token = (keys["Credentials"][name] for name in ("AccessKeyId", "SessionToken"))
        launch(client(None, "ec2", url=url, key=key, token=token))
        launch(client(None, "ec2", url=url, key="AKIATHEIRS"))
        assert [it["account"] for it in control.live_instances().values()] == [THEIRS] * 2
        control.deny("ssm:GetParameter", THEIRS)
        ssm.get_parameter(Name="/ami")
        theirs = client(None, "ssm", url=url, key="AKIATHEIRS")
        assert refused(lambda: theirs.get_parameter(Name="/ami"))[0] == "AccessDeniedException"
        control.allow("ssm:GetParameter", THEIRS)
        assert refused(lambda: theirs.get_parameter(Name="/ami"))[0] == "ParameterNotFound"
        groups = client(None, "autoscaling", url=url)
        assert groups.describe_auto_scaling_groups()["AutoScalingGroups"] == []
        assert control.leftovers() == {}
        assert [call["service"] for call in control.calls()][:3] == ["ssm", "sqs", "sts"]
