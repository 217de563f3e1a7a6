"""The sandbox keeps what AWS documents, and its faults look to a client as real ones do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from infrastructure.sandbox.buckets import Buckets, Limit
from infrastructure.sandbox.ec2 import AwsRequest, Quotas, Sandbox
from infrastructure.sandbox.server import Control, SandboxProcess, listen, start_process

SESSION = botocore.session.get_session()
HOUR = 3600.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def client(
    sandbox: Sandbox | None = None,
    service: str = "ec2",
    *,
    region: str = "us-east-1",
    url: str | None = None,
    read_timeout: float = 5,
) -> Any:
    """A botocore client without retries, on a sandbox or on the URL of one."""
    made = SESSION.create_client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="secret",
        config=Config(
            read_timeout=read_timeout,
            retries={"total_max_attempts": 1},
            proxies={},  # a proxy from the environment must not be asked for loopback
        ),
    )
    if sandbox is not None:
        sandbox.attach(made)
    return made


def launch(ec2: Any, count: int = 1, least: int | None = None, **more: Any) -> list[str]:
    """Launch machines and return their ids."""
    asked = {"ImageId": "ami-1", "InstanceType": "m5.large", "SubnetId": "subnet-a"} | more
    answer = ec2.run_instances(MinCount=least or count, MaxCount=count, **asked)
    return [instance["InstanceId"] for instance in answer["Instances"]]


def tagged(**tags: str) -> list[dict[str, Any]]:
    """A TagSpecifications argument."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": "instance", "Tags": pairs}]


def described(ec2: Any, **asked: Any) -> list[dict[str, Any]]:
    """The instances of one DescribeInstances call."""
    reservations = ec2.describe_instances(**asked)["Reservations"]
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def states(ec2: Any, **asked: Any) -> list[str]:
    """The states of the instances described."""
    return [instance["State"]["Name"] for instance in described(ec2, **asked)]


def refused(call: Callable[[], object]) -> str:
    """The code of the error that AWS answers."""
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def by(name: str, *values: str) -> dict[str, Any]:
    """A Filters argument with one filter."""
    return {"Filters": [{"Name": name, "Values": list(values)}]}


# -- launching -------------------------------------------------------------------------------


def test_run_instances_launches_max_count() -> None:
    """EC2 launches as many as possible up to MaxCount (API_RunInstances.html)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    ids = launch(ec2, 5, least=2, TagSpecifications=tagged(owner="me"))
    assert len(set(ids)) == 5
    assert sandbox.live_instances({"owner": "me"}).keys() == set(ids)
    assert sandbox.live_instances(owner="you") == {}


def test_run_instances_says_what_it_launched() -> None:
    """The answer describes the instances: type, place, token, tags (API_Instance.html)."""
    clock = Clock()
    sandbox = Sandbox(clock)
    answer = client(sandbox).run_instances(
        ImageId="ami-1",
        InstanceType="c5.xlarge",
        SubnetId="subnet-b",
        SecurityGroupIds=["sg-1", "sg-2"],
        KeyName="key",
        IamInstanceProfile={"Name": "role"},
        UserData="#!/bin/sh\n",
        ClientToken="token",
        TagSpecifications=tagged(a="1 & <2>"),
        MinCount=1,
        MaxCount=1,
    )
    (it,) = answer["Instances"]
    assert it["State"] == {"Code": 0, "Name": "pending"}
    assert it["LaunchTime"].timestamp() == clock.now
    assert (it["InstanceType"], it["ImageId"], it["KeyName"]) == ("c5.xlarge", "ami-1", "key")
    assert (it["SubnetId"], it["Placement"]["AvailabilityZone"]) == ("subnet-b", "us-east-1b")
    assert [group["GroupId"] for group in it["SecurityGroups"]] == ["sg-1", "sg-2"]
    assert it["IamInstanceProfile"]["Arn"].endswith(":instance-profile/role")
    assert (it["ClientToken"], it["Tags"]) == ("token", [{"Key": "a", "Value": "1 & <2>"}])
    assert it["BlockDeviceMappings"][0]["DeviceName"] == it["RootDeviceName"]


def test_spot_instances_say_so() -> None:
    """InstanceLifecycle is spot for a spot instance and absent else (API_Instance.html)."""
    ec2 = client(Sandbox(Clock()))
    spot = launch(ec2, InstanceMarketOptions={"MarketType": "spot"})
    launch(ec2)
    (found,) = described(ec2, **by("instance-lifecycle", "spot"))
    assert (found["InstanceId"], found["InstanceLifecycle"]) == (spot[0], "spot")
    assert ["InstanceLifecycle" in it for it in described(ec2)] == [True, False]


def test_capacity_between_min_and_max_is_launched() -> None:
    """Less capacity than MaxCount, but enough for MinCount: what there is
    (API_RunInstances.html, MaxCount)."""
    sandbox = Sandbox(Clock())
    sandbox.add_fault("cap", action="RunInstances", limit=3, times=-1)
    assert len(launch(client(sandbox), 5, least=1)) == 3


def test_capacity_below_min_launches_nothing() -> None:
    """Fewer than MinCount possible: no instance at all (API_RunInstances.html, MinCount)."""
    sandbox = Sandbox(Clock())
    sandbox.add_fault("cap", action="RunInstances", limit=3, times=-1)
    ec2 = client(sandbox)
    assert refused(lambda: launch(ec2, 5, least=4)) == "InsufficientInstanceCapacity"
    assert sandbox.live_instances() == {}


def test_capacity_is_of_a_pool() -> None:
    """Capacity is of an instance type in an Availability Zone
    (troubleshooting-launch.html, insufficient capacity)."""
    sandbox = Sandbox(Clock())
    pool: dict[str, Any] = {"subnet": "subnet-a", "instance_type": "m5.large"}
    sandbox.add_fault("cap", action="RunInstances", limit=0, times=-1, **pool)
    ec2 = client(sandbox)
    assert refused(lambda: launch(ec2, 2, least=1)) == "InsufficientInstanceCapacity"
    assert len(launch(ec2, 2, SubnetId="subnet-b")) == 2
    assert len(launch(ec2, 2, InstanceType="m5.xlarge")) == 2


def test_a_full_subnet_launches_no_more() -> None:
    """A subnet has its block's addresses less five (subnet-sizing.html); without enough,
    InsufficientFreeAddressesInSubnet (errors-overview.html)."""
    clock = Clock()
    sandbox = Sandbox(clock)
    sandbox.make_network({"subnet-small": "a"}, prefix=28)
    ec2 = client(sandbox)
    ids = launch(ec2, 20, least=1, SubnetId="subnet-small")
    assert len(ids) == 16 - 5
    code = refused(lambda: launch(ec2, 1, SubnetId="subnet-small"))
    assert code == "InsufficientFreeAddressesInSubnet"
    ec2.terminate_instances(InstanceIds=ids[:1])
    clock.now += 1
    assert len(launch(ec2, 1, SubnetId="subnet-small")) == 1


def test_counts_must_make_sense() -> None:
    """MinCount is at least 1 and at most MaxCount (API_RunInstances.html)."""
    ec2 = client(Sandbox(Clock()))
    assert refused(lambda: launch(ec2, 1, least=2)) == "InvalidParameterValue"


def test_a_thousand_machines_launch_and_list_quickly() -> None:
    """A launch and a page of 1,000 each take well under three seconds."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    began = time.perf_counter()
    ids = launch(ec2, 1000)
    launched = time.perf_counter()
    found = described(ec2, MaxResults=1000)
    listed = time.perf_counter()
    assert [it["InstanceId"] for it in found] == ids
    assert launched - began < 3
    assert listed - launched < 3


def test_addresses_and_names_are_unique() -> None:
    """A private DNS name is made from the private address, with the region unless it is
    us-east-1 (ec2-instance-naming.html)."""
    sandbox = Sandbox(Clock())
    here, there = client(sandbox), client(sandbox, region="eu-west-1")
    launch(here, 300)
    launch(here, 300, SubnetId="subnet-b")
    launch(there, 2)
    found = described(here)
    assert len({it["PrivateIpAddress"] for it in found}) == 600
    assert len({it["PrivateDnsName"] for it in found}) == 600
    for it in found:
        assert it["PrivateDnsName"] == f"ip-{it['PrivateIpAddress'].replace('.', '-')}.ec2.internal"
    for it in described(there):
        assert it["PrivateDnsName"].endswith(".eu-west-1.compute.internal")
        assert it["Placement"]["AvailabilityZone"] == "eu-west-1a"


def test_an_address_is_not_given_again_soon() -> None:
    """New instances get addresses that no terminated one had while there are unused ones."""
    clock = Clock()
    ec2 = client(Sandbox(clock))
    old = launch(ec2, 10)
    before = {it["PrivateIpAddress"] for it in described(ec2)}
    ec2.terminate_instances(InstanceIds=old)
    clock.now += 2 * HOUR
    launch(ec2, 10)
    assert before.isdisjoint(it["PrivateIpAddress"] for it in described(ec2))


# -- ids ---------------------------------------------------------------------------------------


def test_unknown_ids_are_made_when_named() -> None:
    """For trying things out, any id will do; subnets go to the zones in turn."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    for name in ("subnet-1", "subnet-2", "subnet-0a1b", "subnet-4"):
        launch(ec2, ImageId="ami-1", SubnetId=name, SecurityGroupIds=["sg-1"])
    zones = [it["Placement"]["AvailabilityZone"] for it in described(ec2)]
    assert zones == ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1a"]
    assert sandbox.subnets()["subnet-0a1b"] == "us-east-1c"
    (image,) = ec2.describe_images(ImageIds=["ami-77"])["Images"]
    assert image["RootDeviceName"] == "/dev/xvda"
    (subnet,) = ec2.describe_subnets(SubnetIds=["subnet-0a1b"])["Subnets"]
    assert subnet["AvailabilityZone"] == "us-east-1c"


def test_strict_ids_are_refused_when_unknown() -> None:
    """InvalidAMIID.NotFound, InvalidSubnetID.NotFound, InvalidGroup.NotFound,
    InvalidInstanceID.Malformed (errors-overview.html)."""
    sandbox = Sandbox(Clock(), strict_ids=True)
    ec2 = client(sandbox)
    (image, *_) = ec2.describe_images(Owners=["amazon"])["Images"]
    known = image["ImageId"]
    assert refused(lambda: launch(ec2, ImageId="ami-1")) == "InvalidAMIID.NotFound"
    no_subnet = refused(lambda: launch(ec2, ImageId=known, SubnetId="subnet-1"))
    assert no_subnet == "InvalidSubnetID.NotFound"
    no_group = refused(lambda: launch(ec2, ImageId=known, SecurityGroupIds=["sg-1"]))
    assert no_group == "InvalidGroup.NotFound"
    no_type = refused(lambda: launch(ec2, ImageId=known, InstanceType="m5.tiny"))
    assert no_type == "InvalidParameterValue"
    assert refused(lambda: described(ec2, InstanceIds=["i-1"])) == "InvalidInstanceID.Malformed"
    assert refused(lambda: ec2.describe_images(ImageIds=["ami-1"])) == "InvalidAMIID.NotFound"
    assert len(launch(ec2, ImageId=known)) == 1


def test_networks_are_made_with_chosen_ids() -> None:
    """Subnets with chosen ids lie in chosen zones; a launch without one gets the first."""
    sandbox = Sandbox(Clock(), strict_ids=False)
    sandbox.make_network({"subnet-x": "c", "subnet-y": "us-east-1d"})
    assert sandbox.subnets() | {"subnet-x": "us-east-1c", "subnet-y": "us-east-1d"} == (
        sandbox.subnets()
    )
    with pytest.raises(ValueError, match="no zone"):
        sandbox.make_network({"subnet-z": "q"})
    ec2 = client(sandbox)
    ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    ec2.run_instances(
        ImageId="ami-1", MinCount=1, MaxCount=1, Placement={"AvailabilityZone": "us-east-1d"}
    )
    assert [it["SubnetId"] for it in described(ec2)] == ["subnet-a", "subnet-y"]


# -- client tokens ---------------------------------------------------------------------------


def test_a_repeated_token_launches_nothing() -> None:
    """The same token and parameters: the same result, and no further action
    (ec2-api-idempotency.html). States are those of now."""
    clock = Clock()
    sandbox = Sandbox(clock, boot_time=10)
    ec2 = client(sandbox)
    asked: dict[str, Any] = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 3}
    first = ec2.run_instances(ClientToken="t", **asked)
    clock.now += 11
    again = ec2.run_instances(ClientToken="t", **asked)
    assert again["ReservationId"] == first["ReservationId"]
    assert [it["InstanceId"] for it in again["Instances"]] == [
        it["InstanceId"] for it in first["Instances"]
    ]
    assert {it["State"]["Name"] for it in again["Instances"]} == {"running"}
    assert len(sandbox.live_instances()) == 3


def test_a_token_with_other_parameters_is_an_error() -> None:
    """IdempotentParameterMismatch (ec2-api-idempotency.html)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    launch(ec2, 2, ClientToken="t")
    code = refused(lambda: launch(ec2, 3, ClientToken="t"))
    assert code == "IdempotentParameterMismatch"
    assert len(sandbox.live_instances()) == 2


def test_a_token_is_forgotten_after_its_lifetime() -> None:
    """A token is remembered for a limited time only; a replay after that launches anew."""
    clock = Clock()
    sandbox = Sandbox(clock, token_lifetime=HOUR)
    ec2 = client(sandbox)
    first = launch(ec2, 2, ClientToken="t")
    clock.now += HOUR - 1
    assert launch(ec2, 2, ClientToken="t") == first
    clock.now += 1
    assert set(launch(ec2, 2, ClientToken="t")).isdisjoint(first)
    assert len(sandbox.live_instances()) == 4


def test_a_token_of_a_failed_call_is_free() -> None:
    """A call that failed has launched nothing; the same token may try again."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    sandbox.add_fault("cap", action="RunInstances", limit=0)
    assert refused(lambda: launch(ec2, ClientToken="t")) == "InsufficientInstanceCapacity"
    assert len(launch(ec2, ClientToken="t")) == 1


def test_a_token_has_at_most_64_characters() -> None:
    """Up to 64 ASCII characters (ec2-api-idempotency.html)."""
    ec2 = client(Sandbox(Clock()))
    assert refused(lambda: launch(ec2, ClientToken="t" * 65)) == "InvalidParameterValue"
    launch(ec2, ClientToken="t" * 64)


def test_tokens_hold_for_every_call_that_takes_one() -> None:
    """CreateLaunchTemplate, CreateFleet and RequestSpotFleet are idempotent by token too
    (ec2-api-idempotency.html, API_RequestSpotFleet.html)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    data = {"ImageId": "ami-1", "InstanceType": "m5.large"}
    template: dict[str, Any] = {"LaunchTemplateName": "name", "LaunchTemplateData": data}
    first = ec2.create_launch_template(ClientToken="t", **template)["LaunchTemplate"]
    again = ec2.create_launch_template(ClientToken="t", **template)["LaunchTemplate"]
    assert again["LaunchTemplateId"] == first["LaunchTemplateId"]

    spec = {"LaunchTemplateId": first["LaunchTemplateId"], "Version": "1"}
    fleet: dict[str, Any] = {
        "Type": "instant",
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": spec}],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": 2,
            "DefaultTargetCapacityType": "on-demand",
        },
    }
    made = ec2.create_fleet(ClientToken="t", **fleet)["FleetId"]
    assert ec2.create_fleet(ClientToken="t", **fleet)["FleetId"] == made
    assert len(sandbox.live_instances()) == 2
    fleet["TargetCapacitySpecification"]["TotalTargetCapacity"] = 3
    code = refused(lambda: ec2.create_fleet(ClientToken="t", **fleet))
    assert code == "IdempotentParameterMismatch"

    spot: dict[str, Any] = {
        "ClientToken": "t",
        "IamFleetRole": "arn:aws:iam::123456789012:role/fleet",
        "TargetCapacity": 2,
        "SpotPrice": "1",
        "AllocationStrategy": "lowestPrice",
        "LaunchSpecifications": [{**data, "SubnetId": "subnet-a"}],
    }
    asked = ec2.request_spot_fleet(SpotFleetRequestConfig=spot)["SpotFleetRequestId"]
    again = ec2.request_spot_fleet(SpotFleetRequestConfig=spot)["SpotFleetRequestId"]
    assert again == asked
    assert len(sandbox.live_instances()) == 4


# -- what can be seen, and when ---------------------------------------------------------------


def test_a_new_instance_is_not_visible_at_once() -> None:
    """An id that was just returned may be unknown for a while
    (eventual-consistency.html): by id, in listings, and to other calls."""
    clock = Clock()
    sandbox = Sandbox(clock, visibility_lag=30)
    ec2 = client(sandbox)
    old = launch(ec2)
    clock.now += 30
    new = launch(ec2)
    clock.now += 29
    assert refused(lambda: described(ec2, InstanceIds=new)) == "InvalidInstanceID.NotFound"
    assert refused(lambda: described(ec2, InstanceIds=old + new)) == "InvalidInstanceID.NotFound"
    assert [it["InstanceId"] for it in described(ec2)] == old
    assert [it["InstanceId"] for it in described(ec2, **by("instance-id", *old, *new))] == old
    tags = [{"Key": "a", "Value": "b"}]
    code = refused(lambda: ec2.create_tags(Resources=new, Tags=tags))
    assert code == "InvalidInstanceID.NotFound"
    status = ec2.describe_instance_status()["InstanceStatuses"]
    assert [it["InstanceId"] for it in status] == old
    assert sandbox.live_instances().keys() == {*old, *new}
    clock.now += 1
    assert [it["InstanceId"] for it in described(ec2, InstanceIds=new)] == new
    assert len(described(ec2)) == 2


def test_not_found_does_not_mean_terminated() -> None:
    """TerminateInstances answers NotFound for an instance that runs but cannot be seen yet
    (eventual-consistency.html)."""
    clock = Clock()
    sandbox = Sandbox(clock, visibility_lag=30)
    ec2 = client(sandbox)
    ids = launch(ec2)
    clock.now += 5
    code = refused(lambda: ec2.terminate_instances(InstanceIds=ids))
    assert code == "InvalidInstanceID.NotFound"
    assert sandbox.live_instances()[ids[0]]["state"] == "running"
    clock.now += 25
    ec2.terminate_instances(InstanceIds=ids)
    assert sandbox.live_instances() == {}


def test_states_follow_the_clock() -> None:
    """pending, running, shutting-down, terminated (ec2-instance-lifecycle.html); a terminated
    instance is described for about an hour (API_TerminateInstances.html)."""
    clock = Clock()
    sandbox = Sandbox(clock, boot_time=40, shutdown_time=20)
    ec2 = client(sandbox)
    ids = launch(ec2)
    clock.now += 39
    assert states(ec2) == ["pending"]
    clock.now += 1
    assert states(ec2) == ["running"]
    (change,) = ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
    assert change["PreviousState"] == {"Code": 16, "Name": "running"}
    assert change["CurrentState"] == {"Code": 32, "Name": "shutting-down"}
    clock.now += 19
    assert states(ec2) == ["shutting-down"]
    clock.now += 1
    assert states(ec2, InstanceIds=ids) == ["terminated"]
    clock.now += HOUR - 1
    assert states(ec2, **by("instance-state-name", "terminated")) == ["terminated"]
    clock.now += 1
    assert described(ec2) == []
    assert refused(lambda: described(ec2, InstanceIds=ids)) == "InvalidInstanceID.NotFound"


def test_without_a_boot_time_the_next_look_finds_it_running() -> None:
    """RunInstances always answers pending, even when booting takes no time."""
    ec2 = client(Sandbox(Clock()))
    answer = ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    assert answer["Instances"][0]["State"]["Name"] == "pending"
    assert states(ec2) == ["running"]


def test_a_terminated_instance_has_no_addresses() -> None:
    """What a terminated instance used is released; its tags stay for a while
    (terminating-instances.html)."""
    clock = Clock()
    sandbox = Sandbox(clock)
    ec2 = client(sandbox)
    ids = launch(ec2, TagSpecifications=tagged(a="b"))
    name = described(ec2)[0]["PrivateDnsName"]
    ec2.terminate_instances(InstanceIds=ids)
    (it,) = described(ec2)
    assert it["State"]["Name"] == "terminated"
    assert it["PrivateDnsName"] == ""
    assert "PrivateIpAddress" not in it
    assert it["BlockDeviceMappings"] == []
    assert it["Tags"] == [{"Key": "a", "Value": "b"}]
    assert it["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert described(ec2, **by("private-dns-name", name)) == []
    assert ec2.describe_volumes()["Volumes"] == []


def test_an_instance_terminated_while_pending_does_not_run_later() -> None:
    """Termination overtakes booting (ec2-instance-lifecycle.html)."""
    clock = Clock()
    ec2 = client(Sandbox(clock, boot_time=100, shutdown_time=10))
    ec2.terminate_instances(InstanceIds=launch(ec2))
    clock.now += 200
    assert states(ec2) == ["terminated"]


def test_stopping_and_starting_follow_the_clock() -> None:
    """stopping, stopped, pending, running (ec2-instance-lifecycle.html)."""
    clock = Clock()
    sandbox = Sandbox(clock, boot_time=40, shutdown_time=20)
    ec2 = client(sandbox)
    ids = launch(ec2)
    clock.now += 40
    ec2.stop_instances(InstanceIds=ids)
    assert states(ec2) == ["stopping"]
    clock.now += 20
    assert states(ec2) == ["stopped"]
    assert sandbox.live_instances().keys() == set(ids)
    ec2.start_instances(InstanceIds=ids)
    assert states(ec2) == ["pending"]
    clock.now += 40
    assert states(ec2) == ["running"]


def test_what_somebody_else_does() -> None:
    """Instances stop and end without our asking (spot-interruptions.html, the console)."""
    clock = Clock()
    sandbox = Sandbox(clock)
    ec2 = client(sandbox)
    ids = launch(ec2, 2)
    sandbox.stop_behind_back(ids[:1])
    sandbox.terminate_behind_back(ids[1:], reason="Server.SpotInstanceTermination")
    clock.now += 1
    assert states(ec2) == ["stopped", "terminated"]
    assert described(ec2)[1]["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    with pytest.raises(KeyError):
        sandbox.terminate_behind_back(["i-00000000000000000"])


# -- terminating -------------------------------------------------------------------------------


def test_one_unknown_id_terminates_none() -> None:
    """One incorrect id fails the call and no instance is terminated
    (API_TerminateInstances.html)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    ids = launch(ec2, 3)
    asked = [*ids, "i-00000000000000000"]
    code = refused(lambda: ec2.terminate_instances(InstanceIds=asked))
    assert code == "InvalidInstanceID.NotFound"
    assert len(sandbox.live_instances()) == 3


def test_a_protected_instance_saves_its_zone() -> None:
    """With a protected instance among them the call fails, all listed instances of its zone
    survive and those of other zones are terminated (API_TerminateInstances.html)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    a = launch(ec2, 3, SubnetId="subnet-a")
    b = launch(ec2, 2, SubnetId="subnet-b")
    sandbox.protect(a[1:2])
    code = refused(lambda: ec2.terminate_instances(InstanceIds=a + b))
    assert code == "OperationNotPermitted"
    assert sandbox.live_instances().keys() == set(a)
    ec2.terminate_instances(InstanceIds=[a[0], a[2]])
    sandbox.protect(a[1:2], on=False)
    ec2.terminate_instances(InstanceIds=a[1:2])
    assert sandbox.live_instances() == {}


def test_protection_is_asked_for_at_launch_or_later() -> None:
    """DisableApiTermination (API_RunInstances.html, API_ModifyInstanceAttribute.html)."""
    ec2 = client(Sandbox(Clock()))
    ids = launch(ec2, 1, DisableApiTermination=True)
    code = refused(lambda: ec2.terminate_instances(InstanceIds=ids))
    assert code == "OperationNotPermitted"
    ec2.modify_instance_attribute(InstanceId=ids[0], DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=ids)
    assert states(ec2) == ["terminated"]


def test_terminating_again_succeeds() -> None:
    """The call is idempotent: each call succeeds (API_TerminateInstances.html)."""
    clock = Clock()
    ec2 = client(Sandbox(clock))
    ids = launch(ec2, 2)
    ec2.terminate_instances(InstanceIds=ids)
    clock.now += 60
    again = ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
    assert {it["CurrentState"]["Name"] for it in again} == {"terminated"}
    assert {it["PreviousState"]["Name"] for it in again} == {"terminated"}


def test_terminating_takes_at_most_1000_ids() -> None:
    """Up to 1,000 instances a call (API_TerminateInstances.html)."""
    ec2 = client(Sandbox(Clock()))
    ids = [f"i-{number:017x}" for number in range(1001)]
    code = refused(lambda: ec2.terminate_instances(InstanceIds=ids))
    assert code == "InvalidParameterValue"


# -- describing --------------------------------------------------------------------------------


def test_pages_are_of_instances() -> None:
    """MaxResults counts instances, and a reservation may go on over pages
    (API_DescribeInstances.html)."""
    ec2 = client(Sandbox(Clock()))
    ids = launch(ec2, 8) + launch(ec2, 4)
    pages = []
    more: dict[str, Any] = {}
    while True:
        answer = ec2.describe_instances(MaxResults=5, **more)
        pages.append([[it["InstanceId"] for it in r["Instances"]] for r in answer["Reservations"]])
        if "NextToken" not in answer:
            break
        more = {"NextToken": answer["NextToken"]}
    assert pages == [[ids[:5]], [ids[5:8], ids[8:10]], [ids[10:]]]


def test_pages_hold_while_instances_come_and_go() -> None:
    """Paging neither repeats nor skips an instance that was there all the time."""
    clock = Clock()
    ec2 = client(Sandbox(clock))
    ids = launch(ec2, 12)
    ec2.terminate_instances(InstanceIds=ids[:3])
    clock.now += 1
    assert states(ec2)[:3] == ["terminated"] * 3
    clock.now += HOUR - 1
    first = ec2.describe_instances(MaxResults=5)
    clock.now += HOUR
    rest = described(ec2, MaxResults=1000, NextToken=first["NextToken"])
    seen = [it["InstanceId"] for r in first["Reservations"] for it in r["Instances"]]
    assert seen + [it["InstanceId"] for it in rest] == ids[3:]


def test_pages_exclude_ids() -> None:
    """MaxResults and instance ids cannot be in one request; the smallest page is 5
    (API_DescribeInstances.html)."""
    ec2 = client(Sandbox(Clock()))
    ids = launch(ec2)
    code = refused(lambda: described(ec2, InstanceIds=ids, MaxResults=10))
    assert code == "InvalidParameterCombination"
    assert refused(lambda: described(ec2, MaxResults=4)) == "InvalidParameterValue"
    assert refused(lambda: described(ec2, NextToken="mine")) == "InvalidNextToken"


def test_one_bad_id_fails_a_describe() -> None:
    """An id that does not exist fails the whole call (API_DescribeInstances.html)."""
    ec2 = client(Sandbox(Clock()))
    ids = [*launch(ec2, 2), "i-00000000000000000"]
    assert refused(lambda: described(ec2, InstanceIds=ids)) == "InvalidInstanceID.NotFound"


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("tag:team", ["red"], [0, 1]),
        ("tag:team", ["red", "blue"], [0, 1, 2]),
        ("tag:team", ["r*"], [0, 1]),
        ("tag:team", ["?lue"], [2]),
        ("tag:team", ["\\*"], []),
        ("tag-key", ["extra"], [2]),
        ("instance-state-name", ["running"], [0, 1, 2, 3]),
        ("instance-state-name", ["pending", "terminated"], []),
        ("client-token", ["second"], [2]),
        ("availability-zone", ["us-east-1b"], [2]),
        ("subnet-id", ["subnet-c"], [3]),
        ("instance-type", ["m5.large"], [0, 1, 2, 3]),
        ("instance-id", ["i-00000000000000000"], []),
    ],
)
def test_filters(name: str, values: list[str], found: list[int]) -> None:
    """A filter matches any of its values, with wildcards (Using_Filtering.html), and never
    fails on unknown values."""
    ec2 = client(Sandbox(Clock()))
    ids = launch(ec2, 2, TagSpecifications=tagged(team="red"), ClientToken="first")
    ids += launch(
        ec2,
        TagSpecifications=tagged(team="blue", extra=""),
        ClientToken="second",
        SubnetId="subnet-b",
    )
    ids += launch(ec2, SubnetId="subnet-c")
    assert [it["InstanceId"] for it in described(ec2, **by(name, *values))] == [
        ids[index] for index in found
    ]


def test_filters_must_all_match() -> None:
    """Several filters are joined with AND (Using_Filtering.html)."""
    ec2 = client(Sandbox(Clock()))
    ids = launch(ec2, 2, TagSpecifications=tagged(a="1"))
    launch(ec2, 1, TagSpecifications=tagged(a="2"))
    name = described(ec2, InstanceIds=ids[:1])[0]["PrivateDnsName"]
    both = by("tag:a", "1")["Filters"] + by("private-dns-name", name)["Filters"]
    assert [it["InstanceId"] for it in described(ec2, Filters=both)] == ids[:1]
    assert described(ec2, Filters=both + by("tag:a", "2")["Filters"]) == []


def test_unknown_filters_and_too_many_values_are_refused() -> None:
    """InvalidParameterValue; FilterLimitExceeded above 200 values (errors-overview.html,
    Using_Filtering.html)."""
    ec2 = client(Sandbox(Clock()))
    assert refused(lambda: described(ec2, **by("colour", "red"))) == "InvalidParameterValue"
    many = [f"i-{number:017x}" for number in range(201)]
    assert described(ec2, **by("instance-id", *many[:200])) == []
    assert refused(lambda: described(ec2, **by("instance-id", *many))) == "FilterLimitExceeded"


def test_instance_status() -> None:
    """Running instances only, unless all are asked for; 100 ids at most
    (API_DescribeInstanceStatus.html)."""
    clock = Clock()
    ec2 = client(Sandbox(clock, boot_time=10))
    ids = launch(ec2)
    assert ec2.describe_instance_status()["InstanceStatuses"] == []
    (status,) = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert status["InstanceState"]["Name"] == "pending"
    clock.now += 10
    (status,) = ec2.describe_instance_status(InstanceIds=ids)["InstanceStatuses"]
    assert status["InstanceStatus"]["Status"] == "ok"
    code = refused(lambda: ec2.describe_instance_status(InstanceIds=ids * 101))
    assert code == "InvalidParameterValue"


def test_tags_can_be_added_later() -> None:
    """CreateTags adds or overwrites tags (API_CreateTags.html)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    ids = launch(ec2, 2, TagSpecifications=tagged(a="1"))
    ec2.create_tags(Resources=ids[:1], Tags=[{"Key": "a", "Value": "2"}])
    assert sandbox.live_instances(a="2").keys() == {ids[0]}
    assert len(described(ec2, **by("tag:a", "1"))) == 1


def test_dry_runs_do_nothing() -> None:
    """DryRunOperation, and nothing done (CommonParameters, DryRun)."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    ids = launch(ec2)
    assert refused(lambda: launch(ec2, DryRun=True)) == "DryRunOperation"
    code = refused(lambda: ec2.terminate_instances(InstanceIds=ids, DryRun=True))
    assert code == "DryRunOperation"
    assert sandbox.live_instances().keys() == set(ids)


def test_the_caller_is_the_account() -> None:
    """GetCallerIdentity answers the account (API_GetCallerIdentity.html)."""
    sandbox = Sandbox(Clock())
    sts = client(sandbox, "sts")
    assert sts.get_caller_identity()["Account"] == "123456789012"
    sandbox.add_fault("error", action="GetCallerIdentity", code="AccessDenied", status=403)
    assert refused(sts.get_caller_identity) == "AccessDenied"


def test_what_the_sandbox_cannot_do_it_says() -> None:
    """InvalidAction (CommonErrors.html)."""
    assert refused(lambda: client(Sandbox(Clock())).describe_fpga_images()) == "InvalidAction"


# -- throttling ----------------------------------------------------------------------------------


def outcomes(sandbox: Sandbox) -> Counter[str]:
    """How often each outcome was."""
    return Counter(call.outcome for call in sandbox.calls)


def test_a_burst_of_launches_is_throttled() -> None:
    """RunInstances has 5 request tokens, and 2 come back each second
    (ec2-api-throttling.html)."""
    clock = Clock()
    sandbox = Sandbox(clock, quotas=Quotas.aws())
    ec2 = client(sandbox)
    codes = []
    for _ in range(12):
        try:
            launch(ec2)
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert codes == ["RequestLimitExceeded"] * 7
    assert len(sandbox.live_instances()) == 5
    clock.now += 0.5
    launch(ec2)
    assert refused(lambda: launch(ec2)) == "RequestLimitExceeded"
    clock.now += 60
    for _ in range(5):
        launch(ec2)
    assert refused(lambda: launch(ec2)) == "RequestLimitExceeded"
    assert outcomes(sandbox) == {"ok": 11, "RequestLimitExceeded": 9}


def test_instances_are_tokens_too() -> None:
    """A bucket of 1,000 instances, refilled with 2 each second, whatever the number of
    requests (ec2-api-throttling.html, resource rate limiting)."""
    clock = Clock()
    sandbox = Sandbox(clock, quotas=Quotas.aws())
    ec2 = client(sandbox)
    launch(ec2, 990, ClientToken="t")
    clock.now += 2
    assert refused(lambda: launch(ec2, 15)) == "RequestLimitExceeded"
    assert len(launch(ec2, 14)) == 14
    assert refused(lambda: launch(ec2, 1)) == "RequestLimitExceeded"
    # A replay launches nothing and so costs no instance tokens.
    assert len(launch(ec2, 990, ClientToken="t")) == 990


def test_fleets_draw_from_the_bucket_of_launches() -> None:
    """CreateFleet draws on the same 1,000 instance tokens (ec2-api-throttling.html), and
    launches in the subnets it names."""
    sandbox = Sandbox(Clock(), quotas=Quotas.aws())
    ec2 = client(sandbox)
    data = {"ImageId": "ami-1", "InstanceType": "m5.large", "SecurityGroupIds": ["sg-1"]}
    ec2.create_launch_template(LaunchTemplateName="fleet", LaunchTemplateData=data)

    def fleet(count: int) -> Any:
        spec = {"LaunchTemplateName": "fleet", "Version": "1"}
        configs = [
            {"LaunchTemplateSpecification": spec, "Overrides": [{"SubnetId": "subnet-fleet"}]}
        ]
        return ec2.create_fleet(
            Type="instant",
            LaunchTemplateConfigs=configs,
            TargetCapacitySpecification={
                "TotalTargetCapacity": count,
                "DefaultTargetCapacityType": "on-demand",
            },
        )

    launch(ec2, 998)
    assert refused(lambda: fleet(3)) == "RequestLimitExceeded"
    fleet(2)
    assert len(described(ec2, **by("subnet-id", "subnet-fleet"))) == 2


def test_terminations_have_a_bucket_of_their_own() -> None:
    """A bucket of 1,000 instances, refilled with 20 each second
    (ec2-api-throttling.html, resource rate limiting)."""
    clock = Clock()
    sandbox = Sandbox(clock, quotas=Quotas.aws())
    ec2 = client(sandbox)
    ids = launch(ec2, 600)
    ec2.terminate_instances(InstanceIds=ids)
    code = refused(lambda: ec2.terminate_instances(InstanceIds=ids))
    assert code == "RequestLimitExceeded"
    clock.now += 10
    ec2.terminate_instances(InstanceIds=ids)


def test_unfiltered_listings_have_a_smaller_bucket() -> None:
    """Unfiltered and unpaginated reads: 50 and 10 a second; others 100 and 20
    (ec2-api-throttling.html)."""
    sandbox = Sandbox(Clock(), quotas=Quotas.aws())
    ec2 = client(sandbox)
    for _ in range(50):
        described(ec2)
    assert refused(lambda: described(ec2)) == "RequestLimitExceeded"
    for _ in range(100):
        described(ec2, MaxResults=1000)
    assert refused(lambda: described(ec2, MaxResults=1000)) == "RequestLimitExceeded"


def test_quotas_are_configured_for_each_api() -> None:
    """Limits differ by account; each API's can be set."""
    sandbox = Sandbox(Clock(), quotas=Quotas.generous().with_requests(RunInstances=Limit(1, 0)))
    ec2 = client(sandbox)
    launch(ec2)
    assert refused(lambda: launch(ec2)) == "RequestLimitExceeded"
    described(ec2)


def test_regions_have_their_own_buckets_and_instances() -> None:
    """EC2 throttles for each account and region (ec2-api-throttling.html)."""
    sandbox = Sandbox(Clock(), quotas=Quotas.generous().with_requests(RunInstances=Limit(1, 0)))
    launch(client(sandbox))
    launch(client(sandbox, region="eu-west-1"))
    assert len(described(client(sandbox))) == 1
    assert {truth["region"] for truth in sandbox.live_instances().values()} == {
        "us-east-1",
        "eu-west-1",
    }


def test_a_clock_set_back_neither_fills_nor_empties_a_bucket() -> None:
    """A wall clock may step back; the bucket goes on from there."""
    buckets = Buckets()
    limit = Limit(2, 1)
    assert buckets.take("x", limit, 1, 100)
    assert buckets.take("x", limit, 1, 50)
    assert not buckets.take("x", limit, 1, 50)
    assert buckets.take("x", limit, 1, 51)


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params", "code", "status", "launched"),
    [
        ("throttle", {}, "RequestLimitExceeded", 503, 0),
        ("error", {"code": "VcpuLimitExceeded"}, "VcpuLimitExceeded", 400, 0),
        ("error", {"code": "X", "message": "m", "status": 403}, "X", 403, 0),
        ("e500", {}, "InternalError", 500, 0),
        ("e500", {"after": True}, "InternalError", 500, 1),
        ("e503", {}, "Unavailable", 503, 0),
    ],
)
def test_faults_that_answer(
    kind: str, params: dict[str, Any], code: str, status: int, launched: int
) -> None:
    """Errors come once, in AWS's form (errors-overview.html), and only where asked for."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    sandbox.add_fault(kind, action="RunInstances", **params)
    described(ec2)
    with pytest.raises(ClientError) as caught:
        launch(ec2)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert len(sandbox.live_instances()) == launched
    launch(ec2)
    assert [call.outcome for call in sandbox.calls] == ["ok", kind, "ok"]


@pytest.mark.parametrize(
    ("kind", "seen", "launched"),
    [
        ("hang", ReadTimeoutError, 0),
        ("slow", ReadTimeoutError, 1),
        ("reset_before", ConnectionClosedError, 0),
        ("refused", EndpointConnectionError, 0),
        ("lost_response", ConnectionClosedError, 1),
    ],
)
def test_faults_of_the_network(kind: str, seen: type[HTTPClientError], launched: int) -> None:
    """A client sees what botocore raises for a real network, at once; whether the work was
    done it cannot know."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    sandbox.add_fault(kind, action="RunInstances")
    with pytest.raises(seen):
        launch(ec2, ClientToken="t")
    assert len(sandbox.live_instances()) == launched
    assert len(launch(ec2, ClientToken="t")) == 1
    assert len(sandbox.live_instances()) == 1


def test_a_slow_request_is_carried_out_late() -> None:
    """A request whose client gave up may still be carried out, at its own time."""
    clock = Clock()
    sandbox = Sandbox(clock, boot_time=10)
    ec2 = client(sandbox)
    sandbox.add_fault("slow", action="RunInstances", late=30)
    with pytest.raises(ReadTimeoutError):
        launch(ec2, ClientToken="t")
    clock.now += 29
    assert sandbox.live_instances() == {}
    clock.now += 100
    ((instance_id, truth),) = sandbox.live_instances().items()
    assert truth["launch_time"] == clock.now - 99
    assert truth["state"] == "running"
    assert launch(ec2, ClientToken="t") == [instance_id]


def test_faults_hit_the_calls_they_are_for() -> None:
    """From the nth call, n times, by action, parameter or function."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    launch(ec2)
    sandbox.add_fault("e503", action="RunInstances", from_call=2, times=2)
    launch(ec2)
    assert refused(lambda: launch(ec2)) == "Unavailable"
    described(ec2)
    assert refused(lambda: launch(ec2)) == "Unavailable"
    launch(ec2)

    sandbox.add_fault("throttle", action="*", match={"SubnetId": "subnet-b"})
    launch(ec2)
    assert refused(lambda: launch(ec2, SubnetId="subnet-b")) == "RequestLimitExceeded"

    sandbox.add_fault("e500", action="RunInstances", where=lambda asked: asked["MaxCount"] == "7")
    launch(ec2)
    assert refused(lambda: launch(ec2, 7)) == "InternalError"


def test_faults_last_until_cleared() -> None:
    """times=-1 is for ever; one fault or all can be cleared."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    fault = sandbox.add_fault("reset_before", action="*", times=-1)
    for _ in range(3):
        with pytest.raises(ConnectionClosedError):
            described(ec2)
    assert fault.fired == 3
    fault.clear()
    described(ec2)
    sandbox.add_fault("reset_before", action="*", times=-1)
    sandbox.clear_faults()
    described(ec2)


def test_capacity_is_counted_by_calls_that_reach_it() -> None:
    """A capacity limit goes with any other fault, and is used up only by a launch."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    sandbox.add_fault("cap", action="RunInstances", limit=1)
    sandbox.add_fault("throttle", action="RunInstances")
    assert refused(lambda: launch(ec2, 3, least=1)) == "RequestLimitExceeded"
    assert len(launch(ec2, 3, least=1)) == 1
    assert len(launch(ec2, 3, least=1)) == 3


def test_a_kill_comes_after_the_work_and_before_the_answer() -> None:
    """What dies then has launched, and does not know."""

    class Died(BaseException):
        """Stands for the end of the process."""

    def die() -> None:
        raise Died

    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    sandbox.add_fault("kill", action="RunInstances", then=die)
    with pytest.raises(Died):
        launch(ec2, ClientToken="t")
    ids = set(sandbox.live_instances())
    assert set(launch(ec2, ClientToken="t")) == ids


@pytest.mark.parametrize(
    ("kind", "params"),
    [("earthquake", {}), ("error", {}), ("cap", {}), ("kill", {}), ("throttle", {"limit": 1})],
)
def test_faults_that_make_no_sense_are_refused(kind: str, params: dict[str, Any]) -> None:
    """A misspelt fault would let a test pass for the wrong reason."""
    with pytest.raises(ValueError, match="fault"):
        Sandbox(Clock()).add_fault(kind, action="RunInstances", **params)


def test_every_request_is_recorded() -> None:
    """Calls are kept in order with their time, parameters, token and outcome."""
    clock = Clock()
    sandbox = Sandbox(clock)
    ec2 = client(sandbox)
    launch(ec2, ClientToken="t")
    clock.now += 5
    refused(lambda: described(ec2, InstanceIds=["i-1"]))
    first, second = sandbox.calls
    assert (first.action, first.client_token, first.outcome) == ("RunInstances", "t", "ok")
    assert first.params["SubnetId"] == "subnet-a"
    assert second.at - first.at == 5
    assert second.outcome == "InvalidInstanceID.NotFound"
    assert second.params == {"InstanceId.1": "i-1"}


# -- one process -------------------------------------------------------------------------------


def test_sandboxes_do_not_see_each_other() -> None:
    """Each sandbox has its own instances, faults, calls, tokens and images."""
    one, two = Sandbox(Clock()), Sandbox(Clock())
    one.add_fault("throttle", action="*", times=-1)
    ec2 = client(two)
    ids = launch(ec2, 2, ClientToken="t")
    assert one.live_instances() == {}
    assert one.calls == []
    one.clear_faults()
    assert set(launch(client(one), 2, ClientToken="t")).isdisjoint(ids)
    assert two.live_instances().keys() == set(ids)


def test_other_clients_keep_their_network() -> None:
    """Only attached clients are answered; nothing else in the process is changed."""
    sandbox = Sandbox(Clock())
    launch(client(sandbox))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EndpointConnectionError):
            described(client(url=url))
    with pytest.raises(ValueError, match="not s3"):
        client(sandbox, "s3")


def test_an_unknown_region_is_refused() -> None:
    """There is no such endpoint at AWS; here the signature may name any region."""
    sandbox = Sandbox(Clock())
    url = "https://ec2.us-east-9.amazonaws.com/?Action=DescribeInstances"
    assert sandbox.handle(AwsRequest("GET", url)).status == 400
    assert sandbox.calls[0].outcome == "InvalidParameterValue"


def test_threads_may_share_a_sandbox() -> None:
    """Requests of several threads are carried out one by one."""
    sandbox = Sandbox(Clock())
    ec2 = client(sandbox)
    threads = [threading.Thread(target=launch, args=(ec2, 5)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    truths = sandbox.live_instances().values()
    assert len({truth["private_ip"] for truth in truths}) == 40


def test_the_query_string_counts_too() -> None:
    """The Query API takes GET as well as POST (Query-Requests.html); without a signature the
    host names the region."""
    sandbox = Sandbox(Clock())
    url = "https://ec2.eu-west-1.amazonaws.com/?Action=DescribeInstances&Version=2016-11-15"
    assert sandbox.handle(AwsRequest("GET", url)).status == 200
    assert sandbox.calls[0].region == "eu-west-1"
    assert sandbox.handle(AwsRequest("GET", "https://ec2.amazonaws.com/")).status == 400


# -- over HTTP ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process() -> Iterator[SandboxProcess]:
    """A sandbox in a process of its own; tests tell their machines apart by tags."""
    with start_process(allow_kill=True) as started:
        yield started


def test_the_same_over_http(process: SandboxProcess) -> None:
    """A client of the server sees what an attached client sees."""
    ec2 = client(url=process.url)
    ids = launch(ec2, 3, TagSpecifications=tagged(test="same"), ClientToken="same")
    assert launch(ec2, 3, TagSpecifications=tagged(test="same"), ClientToken="same") == ids
    assert process.control.live_instances({"test": "same"}).keys() == set(ids)
    assert process.control.calls()[-1]["client_token"] == "same"
    process.control.protect(ids[:1])
    code = refused(lambda: ec2.terminate_instances(InstanceIds=ids))
    assert code == "OperationNotPermitted"
    process.control.protect(ids[:1], on=False)
    process.control.stop_behind_back(ids[:1])
    process.control.terminate_behind_back(ids[1:])
    assert states(ec2, InstanceIds=ids) == ["stopped", "terminated", "terminated"]
    process.control.make_network({"subnet-http": "b"})
    launch(ec2, SubnetId="subnet-http", TagSpecifications=tagged(test="network"))
    (truth,) = process.control.live_instances(test="network").values()
    assert truth["zone"] == "us-east-1b"
    sts = client(service="sts", url=process.url)
    assert sts.get_caller_identity()["Account"] == "123456789012"


@pytest.mark.parametrize(
    ("kind", "seen", "launched"),
    [
        ("hang", ReadTimeoutError, 0),
        ("slow", ReadTimeoutError, 1),
        ("reset_before", ConnectionClosedError, 0),
        ("lost_response", ConnectionClosedError, 1),
        ("throttle", ClientError, 0),
    ],
)
def test_faults_over_http(
    process: SandboxProcess, kind: str, seen: type[Exception], launched: int
) -> None:
    """A real connection hangs until the client gives up, or is reset."""
    ec2 = client(url=process.url, read_timeout=0.2)
    process.control.clear_faults()
    process.control.add_fault(kind, action="RunInstances")
    with pytest.raises(seen):
        launch(ec2, TagSpecifications=tagged(test=kind))
    assert len(process.control.live_instances(test=kind)) == launched


def test_faults_that_cannot_be_sent_are_refused(process: SandboxProcess) -> None:
    """The server says what is wrong with a fault."""
    with pytest.raises(ValueError, match="earthquake"):
        process.control.add_fault("earthquake", action="*")
    with pytest.raises(ValueError, match="functions"):
        process.control.add_fault("kill", action="*", then="x")


def test_a_process_is_killed_before_it_hears_the_answer(process: SandboxProcess) -> None:
    """The launch is done, and the process that asked is dead."""
    program = (
        "import sys, urllib.request\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
        "direct.open(sys.argv[1]).read()\n"
        "print('heard', flush=True)\n"
    )
    asked = {
        "Action": "RunInstances",
        "ImageId": "ami-1",
        "MinCount": "2",
        "MaxCount": "2",
        "TagSpecification.1.ResourceType": "instance",
        "TagSpecification.1.Tag.1.Key": "test",
        "TagSpecification.1.Tag.1.Value": "kill",
    }
    with subprocess.Popen(
        [sys.executable, "-c", program, f"{process.url}/?{urlencode(asked)}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        match = {"TagSpecification.1.Tag.1.Value": "kill"}
        process.control.add_fault("kill", action="RunInstances", match=match, pid=victim.pid)
        heard, _ = victim.communicate(b"\n", timeout=30)
    assert (heard, victim.returncode) == (b"", -9)
    assert len(process.control.live_instances(test="kill")) == 2


def test_killing_must_be_allowed() -> None:
    """Whoever reaches the port must not be able to kill processes unless a test wants it."""
    server = listen(Sandbox(Clock()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with server:
        control = Control(f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(ValueError, match="allow_kill"):
            control.add_fault("kill", action="*", pid=os.getpid())
        server.shutdown()


def test_only_loopback_is_served() -> None:
    """Credentials are not checked, so no other host may reach the sandbox."""
    with pytest.raises(ValueError, match="loopback"):
        listen(Sandbox(Clock()), "0.0.0.0")


def test_the_process_ends_with_its_parent() -> None:
    """The child ends when its standard input closes, which it does when the parent dies."""
    started = start_process(quotas="aws", visibility_lag=1, boot_time=2, shutdown_time=3)
    ec2 = client(url=started.url)
    launch(ec2)
    assert described(ec2) == []
    started.stop()
    with pytest.raises(EndpointConnectionError):
        described(ec2)
