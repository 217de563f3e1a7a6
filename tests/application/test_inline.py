"""`worker.mode` inline: every call takes one short turn, and nothing is kept between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
