"""The keys that bound calls to AWS, each by its effect: what the sandbox is asked, and how the
clients that are made are set up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from dependency_injector import providers

from tests.world import TEMPLATE, World

MakeWorld = Callable[..., World]
AWS = "HOSTLEDGER_PROVIDER__AWS__"


def sizes(world: World, action: str, prefix: str) -> list[int]:
    """How many numbered parameters of a name each call of an action had."""
    return [
        sum(1 for name in call.params if name.startswith(prefix)) for call in world.calls_of(action)
    ]


def returned(world: World, count: int) -> None:
    machines = world.fulfilled(count)
    world.run_until_final(world.give_back(machines))


@pytest.mark.parametrize(("size", "calls"), [("200", [6]), ("2", [2, 2, 2])])
def test_terminate_instances(make_world: MakeWorld, size: str, calls: list[int]) -> None:
    world = make_world(settings={AWS + "BATCH_SIZES__TERMINATE_INSTANCES": size})
    world.start_worker()
    returned(world, 6)
    assert sizes(world, "TerminateInstances", "InstanceId.") == calls


@pytest.mark.parametrize(("size", "by_id"), [("200", True), ("5", False)])
def test_describe_instances(make_world: MakeWorld, size: str, by_id: bool) -> None:
    """Above it the changing machines are seen in a sweep."""
    world = make_world(settings={AWS + "BATCH_SIZES__DESCRIBE_INSTANCES": size}, boot_time=20.0)
    world.start_worker()
    world.fulfilled(6)
    asked = [call.params.get("Filter.1.Name") for call in world.calls_of("DescribeInstances")]
    assert ("instance-id" in asked) == by_id


@pytest.mark.parametrize(("size", "calls"), [("200", [2]), ("1", [1, 1])])
def test_create_tags(make_world: MakeWorld, size: str, calls: list[int]) -> None:
    world = make_world(
        templates=[{**TEMPLATE, "rootDeviceVolumeSize": 20}],
        settings={AWS + "BATCH_SIZES__CREATE_TAGS": size, AWS + "TAG_INSTANCE_ID": "true"},
    )
    world.start_worker()
    (machine,) = world.fulfilled(1)
    world.run(70)
    assert sizes(world, "CreateTags", "ResourceId.") == calls
    (live,) = world.sandbox.live_instances().values()
    assert live["tags"]["InstanceID"] == machine["machineId"]


@pytest.mark.parametrize(
    ("way", "key", "action"),
    [
        ("RunInstances", "LAUNCH_CHUNK", "RunInstances"),
        ("fleet-instant", "FLEET_CHUNK", "CreateFleet"),
    ],
)
@pytest.mark.parametrize(("size", "calls"), [("100", 1), ("2", 3)])
def test_launch_chunks(
    make_world: MakeWorld, way: str, key: str, action: str, size: str, calls: int
) -> None:
    world = make_world(way=way, settings={AWS + key: size})
    world.start_worker()
    world.fulfilled(6)
    assert len(world.calls_of(action)) == calls


@pytest.mark.parametrize(("most", "first"), [("4", 4), ("1", 1)])
def test_max_inflight(make_world: MakeWorld, most: str, first: int) -> None:
    """Launches begun in one turn."""
    world = make_world(settings={AWS + "MAX_INFLIGHT": most, AWS + "LAUNCH_CHUNK": "1"})
    world.start_worker()
    world.request(6)
    world.tick()
    assert len(world.launches()) == first


@pytest.mark.parametrize(("attempts", "sent"), [("1", 1), ("3", 3)])
def test_retries_of_idempotent_calls(make_world: MakeWorld, attempts: str, sent: int) -> None:
    """Made by botocore within one call of ours; a launch is always one attempt."""
    world = make_world(
        settings={
            AWS + "CONFIG__RETRIES__MAX_ATTEMPTS": attempts,
            AWS + "CONFIG__RETRIES__MODE": "legacy",
            AWS + "DESCRIBE_RETRIES": "0",
        }
    )
    world.sandbox.add_fault("e503", action="DescribeInstances", times=2)
    world.start_worker()
    world.tick()
    assert len(world.calls_of("DescribeInstances")) == sent


@pytest.mark.parametrize(
    ("mode", "sent", "called"),
    [("legacy", 1, "D"), ("standard", 2, "E"), ("adaptive", 2, "F")],
)
def test_the_mode_of_retries(make_world: MakeWorld, mode: str, sent: int, called: str) -> None:
    """The older way does not take a request's time-out at AWS for one that passes; botocore also
    tells AWS, in the User-Agent, by a letter for each of its ways."""
    world = make_world(
        settings={
            AWS + "CONFIG__RETRIES__MAX_ATTEMPTS": "2",
            AWS + "CONFIG__RETRIES__MODE": mode,
            AWS + "DESCRIBE_RETRIES": "0",
        }
    )
    told: list[str] = []

    def note(request: Any, **_: Any) -> None:
        told.append(request.headers["User-Agent"].decode())

    def attach(client: Any) -> None:
        client.meta.events.register_first("before-send.ec2.DescribeInstances", note)
        world.sandbox.attach(client)

    world.sandbox.add_fault("error", action="DescribeInstances", times=1, code="RequestTimeout")
    world.start_worker(on_client=providers.Object(attach))
    world.tick()
    assert len(world.calls_of("DescribeInstances")) == sent
    features = [part for word in told[0].split() if word.startswith("m/") for part in word[2:]]
    assert [letter for letter in "DEF" if letter in features] == [called]


def test_clients_are_set_up_as_configured(make_world: MakeWorld) -> None:
    settings = {
        AWS + "CONFIG__MAX_POOL_CONNECTIONS": "3",
        AWS + "TIMEOUTS__CONNECT_TIMEOUT": "1",
        AWS + "TIMEOUTS__READ_TIMEOUT": "7",
    }
    made: list[Any] = []
    for world in (make_world(), make_world(settings=settings)):

        def attach(client: Any, world: World = world) -> None:
            made.append(client.meta.config)
            world.sandbox.attach(client)

        world.start_worker(on_client=providers.Object(attach))
        world.fulfilled(1)
    pools = [(c.max_pool_connections, c.connect_timeout, c.read_timeout) for c in made]
    assert set(pools[: len(pools) // 2]) == {(10, 3, 30)}
    assert set(pools[len(pools) // 2 :]) == {(3, 1, 7)}


def test_own_buckets_keep_a_burst_back(make_world: MakeWorld) -> None:
    """A smaller bucket of our own: the launches come one a second."""
    world = make_world(
        settings={
            AWS + "BUCKETS__RUNINSTANCES": "[1, 0.5]",
            AWS + "LAUNCH_CHUNK": "1",
        }
    )
    world.start_worker()
    world.fulfilled(3)
    times = [call.at for call in world.launches()]
    assert all(later - earlier >= 2.0 for earlier, later in pairwise(times))


@pytest.mark.parametrize("way", ["fleet-instant", "fleet-maintain"])
def test_launch_templates_are_not_intended_each_turn(make_world: MakeWorld, way: str) -> None:
    """While AWS does not take them the tries become rarer, whatever the template is called."""
    world = make_world(way=way)
    down = world.sandbox.add_fault("reset_before", action="CreateLaunchTemplate", times=-1)
    world.start_worker()
    request_id = world.request(2)
    world.run(120)
    assert len(world.events("LaunchTemplateIntended")) <= 12
    down.clear()
    assert world.run_until_final(request_id)["status"] == "complete"
    world.assert_agreement()
