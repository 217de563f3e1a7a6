"""`hostledger what-if`: recorded demand under another configuration, in a cloud of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.interfaces.commands import Run, refused
from tests.world import TEMPLATE, World

MakeWorld = Callable[..., World]

PRICED = {
    **TEMPLATE,
    "attributes": {**TEMPLATE["attributes"], "priceInfo": ["String", "price:0.5"]},
}
REQUESTS = 6

_forbidden: list[str] = []


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if _forbidden and event == "socket.connect":
        raise AssertionError(f"{event}: {arguments}")


sys.addaudithook(_refuse_network)


@contextmanager
def no_network() -> Iterator[None]:
    """Within, whoever connects to anything fails."""
    _forbidden.append("socket.connect")
    try:
        yield
    finally:
        _forbidden.clear()


@pytest.fixture
def busy(make_world: MakeWorld) -> World:
    """A site that had a burst of small requests, all of whose machines were returned after a
    while."""
    world = make_world(templates=[PRICED], boot_time=20.0, shutdown_time=15.0)
    world.write_own_config({"reports": {}})
    world.start_worker()
    asked = [world.request(1) for _ in range(REQUESTS)]
    machines = [m for request_id in asked for m in world.final(request_id)["machines"]]
    world.run(60, step=15.0)
    world.final(world.give_back(machines))
    return world


@pytest.fixture
def run(busy: World, make_run: Callable[[World], Run]) -> Run:
    return make_run(busy)


def until(world: World) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(world.clock.wall))


def config(world: World, **aws: Any) -> str:
    path = world.root / "other.json"
    path.write_text(json.dumps({"provider": {"aws": aws}}))
    return str(path)


def measures(run: Run, path: str) -> dict[str, tuple[Any, Any, Any]]:
    rows = run("what-if", "--config", path, "--output", "json").document["measures"]
    return {row["measure"]: (row["recorded"], row["present"], row["config"]) for row in rows}


def test_without_merging_there_are_more_calls(busy: World, run: Run) -> None:
    """One machine a call instead of a hundred: a call for each request, the same machines and as
    much money. The present configuration does what was really done."""
    path = config(busy, launch_chunk=1)

    with no_network():
        found = measures(run, path)

    assert found["launches"] == (1, 1, REQUESTS)
    assert found["AWS calls of RunInstances"][0] is None
    assert found["AWS calls of RunInstances"][1] == 1
    assert found["AWS calls of RunInstances"][2] >= REQUESTS
    assert found["machines"] == (REQUESTS, REQUESTS, REQUESTS)
    assert found["requests fulfilled"] == (REQUESTS, REQUESTS, REQUESTS)
    assert None not in found["seconds to final, p99"]
    recorded, present, other = found["machine-hours"]
    assert present == pytest.approx(recorded, rel=0.05)
    assert found["cost, USD"] == pytest.approx((recorded / 2, present / 2, other / 2), rel=0.01)
    assert busy.storage().queries().facts()["events"] == len(busy.topics()), "nothing is recorded"


def test_a_cap_makes_shortfalls(busy: World, run: Run) -> None:
    """With room for two machines the others go without, and the report says why."""
    path = busy.root / "other.json"
    path.write_text(
        json.dumps({"provider": {"fulfilment_deadline": 60, "limits": {"machines": 2}}})
    )

    found = measures(run, str(path))

    assert found["machines"][1:] == (REQUESTS, 2)
    assert found["requests failed"] == (0, 0, REQUESTS - 2)
    assert found["short by MachineLimit"] == (0, 0, REQUESTS - 2)


def test_twice_it_is_the_same(busy: World, run: Run) -> None:
    """And the answer for people says what it can and cannot show."""
    words = ("what-if", "--config", config(busy, launch_chunk=2))

    first, second = run(*words), run(*words)

    assert first.status == 0
    assert second.out == first.out
    assert "cannot be concluded" in first.out
    assert f"{REQUESTS} requests" in first.out


def test_what_came_later_does_not_change_a_window(busy: World, run: Run) -> None:
    """And demand before it is not told: its returns are counted apart."""
    began = until(busy)
    request_id = busy.request(2)
    busy.final(request_id)
    path = config(busy)

    document = run(
        "what-if", "--config", path, "--since", began, "--output", "json"
    ).document  # fmt: skip

    assert document["demand"] == {"requests": 1, "units": 2}
    (machines,) = [row for row in document["measures"] if row["measure"] == "machines"]
    assert (machines["recorded"], machines["present"]) == (2, 2)


def test_a_cancelled_request_is_cancelled_there_too(busy: World, run: Run) -> None:
    """At its time, after hours in which nothing was, while nobody could be given a machine."""
    busy.clock.advance(7200)
    busy.sandbox.set_capacity(0)
    request_id = busy.request(1)
    busy.run(5)
    busy.cancel(request_id)
    busy.run(10, step=5.0)

    found = measures(run, config(busy))

    assert found["requests cancelled"] == (1, 1, 1)


def test_a_broken_configuration_is_named(busy: World, run: Run) -> None:
    path = busy.root / "other.json"
    path.write_text('{"provider": {"aws": {"max_inflite": 1}}}')

    refused(run("what-if", "--config", str(path)), str(path), "max_inflite", "max_inflight")


def test_credentials_and_addresses_of_the_site_are_not_used(busy: World, run: Run) -> None:
    """A program for credentials is not run, a role is not assumed; each account is one of its
    own."""
    ran = busy.root / "ran"
    script = f"touch {ran}"
    path = busy.root / "other.json"
    role = "arn:aws:iam::123456789012:role/x"
    accounts = {"one": {"credential_script": script}, "two": {"assume_role": role}}
    path.write_text(
        json.dumps(
            {"provider": {"aws": {"endpoint_url": "http://127.0.0.1:1"}, "accounts": accounts}}
        )
    )

    with no_network():
        found = measures(run, str(path))

    assert found["machines"][2] == REQUESTS
    assert not ran.exists()


def test_a_missing_extra_is_named(busy: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("infrastructure.sandbox.ec2")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "moto", None)
    monkeypatch.setitem(sys.modules, "infrastructure.sandbox.ec2", None)

    refused(run("what-if", "--config", config(busy)), "hostledger[sandbox]")
