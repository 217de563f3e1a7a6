"""The site's caps: never more machines, nor more spend, than the configuration allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.world import TEMPLATE, WAYS, World

MakeWorld = Callable[..., World]

CAP = 3
LONG = {**TEMPLATE, "fulfilmentDeadline": 7200}
PRICED = {**LONG, "attributes": {**TEMPLATE["attributes"], "priceInfo": ["String", "price:0.5"]}}


def limited(
    make_world: MakeWorld,
    limits: dict[str, Any],
    templates: list[dict[str, Any]] | None = None,
    way: str = "RunInstances",
    **options: Any,
) -> World:
    """A site with these `provider.limits`."""
    world = make_world(
        templates=templates or [LONG], boot_time=5.0, shutdown_time=5.0, way=way, **options
    )
    configuration = {"provider": {"limits": limits}}
    (world.root / "conf/hostledger.json").write_text(json.dumps(configuration))
    # WAYS give some templates a deadline of their own.
    path = world.root / "conf/awsprov_templates.json"
    document = json.loads(path.read_text())
    for template in document["templates"]:
        template["fulfilmentDeadline"] = 7200
    path.write_text(json.dumps(document))
    return world


def most_alive(world: World, seconds: float, step: float = 1.0) -> int:
    """The most machines that ever lived at once in the time that passes."""
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(world.sandbox.live_instances()))

    world.run(seconds, poll=look, step=step)
    return most


@pytest.mark.stores("sqlite")
def test_a_file_that_cannot_be_looked_at_is_not_a_file_that_is_gone(
    make_world: MakeWorld,
) -> None:
    """A link that leads to itself, as any error of the disk's: the caps that were read before
    hold."""
    world = limited(make_world, {"machines": CAP})
    world.start_worker()
    first = world.request(CAP)
    assert world.run(60, lambda: world.status(first)["status"] == "complete")
    path = world.root / "conf/hostledger.json"
    path.unlink()
    path.symlink_to(path)

    world.request(2)

    assert most_alive(world, 60) == CAP


@pytest.mark.parametrize("way", WAYS)
def test_never_more_machines_than_the_cap(make_world: MakeWorld, way: str) -> None:
    """Two requests want five together: three live, the answer names the cap, and room that a
    return makes is used before the deadline."""
    world = limited(make_world, {"machines": CAP}, way=way, fleet_delay=3.0)
    world.start_worker()
    first = world.request(2)
    second = world.request(3)

    assert most_alive(world, 120) == CAP
    given = world.status(first)
    assert given["status"] == "complete"
    assert world.status(second)["status"] == "running"
    assert "provider.limits.machines allows 3 machines at a time" in shortages(world, second)

    world.give_back(given["machines"])
    assert most_alive(world, 300) == CAP
    assert world.status(second)["status"] == "complete"
    world.assert_agreement()


def shortages(world: World, request_id: str) -> str:
    """What the ledger says is missing of a request, and why."""
    return "; ".join(
        data["message"]
        for stream, data in world.streams("RequestFellShort")
        if stream == f"request-{request_id}"
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_final_answer_names_the_cap(make_world: MakeWorld, way: str) -> None:
    """What is missing at the deadline is missing because of the cap, and the answer says which."""
    world = limited(make_world, {"machines": CAP}, way=way)
    path = world.root / "conf/awsprov_templates.json"
    path.write_text(path.read_text().replace("7200", "60"))
    world.start_worker()

    answer = world.run_until_final(world.request(5))

    assert answer["status"] == "complete_with_error"
    assert len([m for m in answer["machines"] if m["result"] == "succeed"]) == CAP
    assert "provider.limits.machines allows 3 machines at a time" in answer["message"]
    world.assert_agreement()


@pytest.mark.parametrize("way", WAYS)
def test_a_burst_of_one_turn_is_counted_as_it_goes(make_world: MakeWorld, way: str) -> None:
    """What a call of this very turn gave is counted before its machines are in the ledger's
    tables: four templates at once do not get over the cap."""
    templates = [{**LONG, "templateId": f"T{number}"} for number in range(4)]
    world = limited(make_world, {"machines": CAP}, templates, way)
    for number in range(4):
        world.request(2, f"T{number}")
    world.start_worker()

    assert most_alive(world, 90) == CAP
    world.assert_agreement()


def test_a_template_has_a_cap_of_its_own(make_world: MakeWorld) -> None:
    """It holds for that template alone, and the lower of the two caps counts."""
    templates = [{**LONG, "templateId": name} for name in ("A", "B")]
    limits = {"machines": 4, "templates": {"A": {"machines": 1}}}
    world = limited(make_world, limits, templates)
    world.start_worker()
    small = world.request(3, "A")
    world.run(30)
    large = world.request(5, "B")

    assert most_alive(world, 90) == 4
    assert "provider.limits.templates.A.machines allows 1 machines" in shortages(world, small)
    assert "provider.limits.machines allows 4 machines" in shortages(world, large)
    world.assert_agreement()


@pytest.mark.parametrize("way", WAYS)
def test_a_cap_counts_machines_and_not_units(make_world: MakeWorld, way: str) -> None:
    """Machines of weight 4: three of them are twelve units, and a fourth is one too many."""
    weighted = {**LONG, "vmTypes": {"m5.2xlarge": 4}}
    del weighted["vmType"]
    world = limited(make_world, {"machines": CAP}, [weighted], way, fleet_delay=3.0)
    world.start_worker()
    world.request(16)

    assert most_alive(world, 150) == CAP
    assert len(world.owned()) == CAP
    world.assert_agreement()


def test_all_or_nothing_of_weighted_machines_fits_its_cap(make_world: MakeWorld) -> None:
    """Eight units in two machines fit a cap of two machines."""
    weighted = {**LONG, "vmTypes": {"m5.2xlarge": 4}, "allOrNothing": True}
    del weighted["vmType"]
    world = limited(make_world, {"machines": 2}, [weighted])
    world.start_worker()

    answer = world.run_until_final(world.request(8), 200.0)

    assert answer["status"] == "complete", answer
    assert len(world.live()) == 2


def test_all_or_nothing_beyond_its_cap_launches_nothing(make_world: MakeWorld) -> None:
    """Not a part of it."""
    world = limited(make_world, {"machines": 2}, [{**LONG, "allOrNothing": True}])
    world.start_worker()
    request_id = world.request(3)

    assert most_alive(world, 90) == 0
    assert "allows 2 machines" in shortages(world, request_id)


@pytest.mark.parametrize("way", ["fleet-request", "fleet-maintain", "spot-fleet-maintain", "group"])
def test_what_a_filling_fleet_may_still_launch_is_counted(make_world: MakeWorld, way: str) -> None:
    """AWS has room for one of three: the other two are spoken for, although nobody has them."""
    world = limited(make_world, {"machines": CAP}, way=way)
    world.sandbox.set_capacity(1)
    world.start_worker()
    world.request(3)
    world.run(30)
    world.request(2)
    world.run(60)
    assert len(world.launches()) == 1, "the second request finds no room"
    world.sandbox.set_capacity(None)

    assert most_alive(world, 150) == CAP
    world.assert_agreement()


def test_what_is_in_doubt_is_counted(make_world: MakeWorld) -> None:
    """A launch whose outcome is not known may have machines: nothing is launched in their place."""
    world = limited(make_world, {"machines": CAP})
    world.sandbox.add_fault("slow", action="RunInstances", late=240.0)
    world.sandbox.add_fault("error", action="RunInstances", code="InsufficientInstanceCapacity")
    world.start_worker()
    world.request(3)
    world.run(20)
    world.request(3)

    assert most_alive(world, 700, step=2.0) == CAP
    world.assert_agreement()


def test_spend_is_what_the_templates_say(make_world: MakeWorld) -> None:
    """Four at 0.5 an hour are the most for 2 an hour, whatever else lives."""
    dear = {**PRICED, "templateId": "Dear"}
    dear["attributes"] = {**PRICED["attributes"], "priceInfo": ["String", "price:1.25"]}
    world = limited(make_world, {"spend_per_hour": 2}, [PRICED, dear])
    world.start_worker()
    first = world.request(1, "Dear")
    world.run(30)
    second = world.request(5)

    assert most_alive(world, 90) == 2
    assert world.status(first)["status"] == "complete"
    assert "provider.limits.spend_per_hour allows 2 an hour" in shortages(world, second)
    world.assert_agreement()


def test_a_template_without_a_price_is_not_launched_under_a_spend_cap(
    make_world: MakeWorld,
) -> None:
    """What it costs is not known: it is refused, and the reason says what the template lacks."""
    world = limited(make_world, {"spend_per_hour": 100})
    world.start_worker()
    request_id = world.request(1)
    world.run(60)

    assert world.launches() == []
    assert "give its attributes a priceInfo" in shortages(world, request_id)
