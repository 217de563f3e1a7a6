"""`worker.mode` inline: every call takes one short turn, and leaves to the next what it learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from application import crash_points
from tests.world import TEMPLATE, WAYS, World

MakeWorld = Callable[..., World]

INLINE = {"HOSTLEDGER_WORKER__MODE": "inline"}
HOME, AWAY = "111111111111", "222222222222"


def poll(world: World, request_id: str, step: float = 5.0, times: int = 120) -> dict[str, Any]:
    """Ask as HostFactory does, which is all that makes anything happen; the final answer."""
    for _ in range(times):
        answer = world.status(request_id)
        if answer["status"] != "running":
            return answer
        world.clock.advance(step)
    raise AssertionError(answer)


def clean_up(world: World) -> None:
    """Calls that go on until nothing is left at AWS: a fleet ends some turns after its machines."""
    for _ in range(40):
        world.call("getAvailableTemplates", {})
        world.clock.advance(10.0)
    world.assert_nothing_left()


def kept(world: World) -> list[str]:
    """What a call leaves to the next one's turn."""
    rows = world.query("SELECT batch_id FROM batch_sweeps WHERE batch_id LIKE 'kept %'")
    return [text for (text,) in rows]


@pytest.mark.parametrize("way", WAYS)
def test_a_cycle(make_world: MakeWorld, way: str) -> None:
    """Asked for, given, handed back and gone, without any worker."""
    world = make_world(way=way, settings=INLINE, boot_time=20.0, shutdown_time=15.0)
    answer = poll(world, world.request(3))
    assert answer["status"] == "complete", answer
    assert len(answer["machines"]) == 3
    world.assert_agreement()
    assert world.to_give_up(answer["machines"]) == []
    assert poll(world, world.give_back(answer["machines"]))["status"] == "complete"
    clean_up(world)
    assert kept(world) == [], "a usual turn leaves nothing to the next one"
    assert world.workers == []
    assert world.call("getAvailableTemplates", {}).keys() == {"templates"}


@pytest.mark.parametrize("way", ["RunInstances", "fleet-maintain", "group"])
def test_several_accounts(make_world: MakeWorld, tmp_path: Path, way: str) -> None:
    """The second serves what the first has not, and each turn sweeps both."""
    credentials = tmp_path / "credentials"
    credentials.write_text(
        "[home]\naws_access_key_id = AKIAHOME\naws_secret_access_key = x\n"
        "[away]\naws_access_key_id = AKIAAWAY\naws_secret_access_key = x\n"
    )
    world = make_world(
        way=way,
        templates=[{**TEMPLATE, "accounts": {"home": {}, "away": {}}}],
        settings=INLINE,
        config={
            "provider": {
                "aws": {"credential_file": str(credentials)},
                "accounts": {"home": {"profile": "home"}, "away": {"profile": "away"}},
                "selection": "weighted",
            }
        },
        accounts={"AKIAHOME": HOME, "AKIAAWAY": AWAY},
    )
    machines: list[dict[str, Any]] = []
    for _ in range(2):
        answer = poll(world, world.request(2))
        assert answer["status"] == "complete", answer
        machines += answer["machines"]
    lives = Counter(one["account"] for one in world.sandbox.live_instances().values())
    assert lives == {HOME: 2, AWAY: 2}
    assert world.to_give_up(machines) == []
    assert poll(world, world.give_back(machines))["status"] == "complete"
    clean_up(world)


@pytest.mark.parametrize("way", ["RunInstances", "fleet-instant"])
def test_an_answer_that_is_lost(make_world: MakeWorld, way: str) -> None:
    """The next call's turn asks again with the same token."""
    world = make_world(way=way, settings=INLINE)
    world.sandbox.add_fault("lost_response", action=world.action)
    answer = poll(world, world.request(2))
    assert answer["status"] == "complete", answer
    assert len({call.client_token for call in world.launches()}) == 1
    world.assert_agreement()


def test_a_refused_termination_is_tried_ever_more_seldom(make_world: MakeWorld) -> None:
    """However often HostFactory calls; ended when it can be, nothing is left of it."""
    world = make_world(settings=INLINE)
    machines = poll(world, world.request(2))["machines"]
    world.sandbox.add_fault(
        "error",
        action="TerminateInstances",
        code="OperationNotPermitted",
        message="protected",
        status=400,
        times=-1,
    )
    return_id = world.give_back(machines)
    for _ in range(60):
        world.clock.advance(10.0)
        world.status(return_id)
    # After 2, 4, 8 .. 256 s, but for what chance takes off.
    assert 7 <= len(world.events("TerminationIntended")) <= 11
    assert kept(world) != []

    world.sandbox.clear_faults()
    clean_up(world)
    assert kept(world) == []


def test_a_pool_without_capacity_is_left_alone(make_world: MakeWorld) -> None:
    """For three minutes, by every call."""
    world = make_world(settings=INLINE, templates=[{**TEMPLATE, "fulfilmentDeadline": 900}])
    world.sandbox.add_fault("cap", action="RunInstances", limit=0, times=-1)
    request_id = world.request(2)
    for seconds in range(0, 170, 5):
        world.status(request_id)
        assert len(world.launches()) == 1, seconds
        world.clock.advance(5.0)
    world.sandbox.clear_faults()
    assert poll(world, request_id)["status"] == "complete"
    world.assert_agreement()


@pytest.mark.parametrize("kind", ["throttle", "lost_response"])
def test_a_launch_template_is_asked_for_under_one_name(make_world: MakeWorld, kind: str) -> None:
    """By all calls, when AWS throttles or its answer is lost."""
    world = make_world(way="group", settings=INLINE)
    world.sandbox.add_fault(kind, action="CreateLaunchTemplate", times=3)
    assert poll(world, world.request(2))["status"] == "complete"
    assert len(world.calls_of("CreateLaunchTemplate")) == 4
    assert len(world.events("LaunchTemplateIntended")) == 1
    world.assert_agreement()


def test_a_name_is_used_once(make_world: MakeWorld) -> None:
    """A call that had the launch template made after all is killed after its intent: the next
    batch of the template is another one."""
    world = make_world(way="group", settings=INLINE)
    world.sandbox.add_fault("throttle", action="CreateLaunchTemplate")
    first = world.request(1)
    world.status(first)
    world.clock.advance(5.0)
    with world.dying_at("commit.LaunchIntended.after"), pytest.raises(crash_points.Crash):
        world.status(first)
    second = world.request(1)
    for request_id in (first, second):
        assert poll(world, request_id, times=10)["status"] == "complete"
    assert len(world.events("LaunchTemplateIntended")) == 2
    world.assert_agreement()


def test_a_turn_is_over_in_time(make_world: MakeWorld) -> None:
    """AWS hangs: one call waits for one answer, no longer than a turn may last."""
    world = make_world(settings=INLINE)
    world.sandbox.add_fault("hang", action="*", times=-1)
    request = world.request(1)
    began = len(world.sandbox.calls)
    world.status(request)
    assert len(world.sandbox.calls) - began <= 2
    world.sandbox.clear_faults()
    world.clock.advance(60.0)
    assert poll(world, request)["status"] == "complete"
