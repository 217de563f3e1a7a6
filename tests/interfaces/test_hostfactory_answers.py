"""What the verbs answer, to the letter of IBM's provider plug-in interface (Symphony 7.3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from interfaces.hostfactory.wire_format import BadInput
from tests.world import TEMPLATE, World


def named(machines: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"machineId": m["machineId"], "name": m["name"]} for m in machines]


@pytest.fixture
def machines(world: World) -> list[dict[str, Any]]:
    """Three running machines of a final request, looked after by a worker."""
    world.start_worker()
    answer = world.run_until_final(world.request(3))
    assert answer["status"] == "complete"
    return list(answer["machines"])


def test_a_template_is_answered_in_pairs_of_strings(make_world: Callable[..., World]) -> None:
    """Attributes are [kind, text] pairs whatever form the file has; launch details stay with us."""
    template = {
        **TEMPLATE,
        "attributes": {"type": "X86_64", "ncpus": 2, "nram": ["Numeric", 4096]},
        "instanceTags": "owner=risk",
    }
    world = make_world(templates=[template])
    (answer,) = world.call("getAvailableTemplates", {})["templates"]
    assert answer == {
        "templateId": "OnDemand-A",
        "maxNumber": 2000,
        "attributes": {
            "type": ["String", "X86_64"],
            "ncores": ["Numeric", "1"],
            "ncpus": ["Numeric", "2"],
            "nram": ["Numeric", "4096"],
        },
    }


def test_a_usable_machine_has_all_that_hostfactory_needs(
    world: World, machines: list[dict[str, Any]]
) -> None:
    """Id, the name that the host has itself, address, and the launch time in whole seconds."""
    truth = world.sandbox.live_instances()
    for machine in machines:
        assert machine["machineId"] in truth
        assert machine["name"].startswith("ip-")
        assert machine["name"].endswith(".ec2.internal")
        assert machine["privateIpAddress"].count(".") == 3
        assert type(machine["launchtime"]) is int
        assert 0 <= world.clock.now()[0] - machine["launchtime"] < 600
        assert (machine["result"], machine["status"]) == ("succeed", "running")
        assert machine["message"] == ""
        assert machine["priceType"] == "ondemand"


def test_no_answer_is_final_while_a_machine_is_executing(world: World) -> None:
    """Polled at every second from the ask to the end, HostFactory is never told too early."""
    world.start_worker()
    request_id = world.request(3)
    told: list[dict[str, Any]] = []

    def poll() -> None:
        told.append(world.status(request_id))

    assert world.run(120, lambda: world.status(request_id)["status"] == "complete", poll=poll)
    told.append(world.status(request_id))
    for entry in told:
        executing = [m for m in entry["machines"] if m["result"] == "executing"]
        assert entry["status"] in ("running", "complete")
        assert entry["status"] == "running" or not executing
    assert any(m["status"] == "pending" for entry in told for m in entry["machines"])


def test_requests_are_answered_once_and_in_the_order_asked(world: World) -> None:
    """Both kinds in one call; duplicates have one entry."""
    first, second = world.request(1), world.request(1)
    third = world.give_back([{"machineId": "i-0", "name": "gone"}])
    asked = [third, first, third, second, first]
    answer = world.call("getRequestStatus", {"requests": [{"requestId": i} for i in asked]})
    assert [entry["requestId"] for entry in answer["requests"]] == [third, first, second]


def test_healthy_hosts_are_not_asked_back(world: World, machines: list[dict[str, Any]]) -> None:
    """Nothing is listed that runs, and nothing that is not in the input."""
    assert world.to_give_up(machines) == []
    world.sandbox.terminate_behind_back([machines[0]["machineId"]])
    world.run(120)
    assert world.to_give_up(machines[1:]) == []


def test_a_host_that_ec2_took_is_asked_back_until_it_is_no_longer_named(
    world: World, machines: list[dict[str, Any]]
) -> None:
    """Once in each answer, by the name of the input, with no grace: it is gone."""
    lost = machines[0]
    world.sandbox.terminate_behind_back([lost["machineId"]])
    world.run(120)
    entry = {"machine": lost["name"], "machineId": lost["machineId"], "gracePeriod": 0}
    assert world.to_give_up(machines) == [entry]
    assert world.to_give_up([*machines, *machines]) == [entry]
    by_name = world.call("getReturnRequests", {"machines": [{"name": lost["name"]}]})
    assert by_name == {"status": "complete", "requests": [entry]}


def test_without_a_fresh_sweep_nobody_is_called_gone(
    world: World, machines: list[dict[str, Any]]
) -> None:
    """The call waits 20 s for the worker and exits 1: never "all gone"."""
    for worker in list(world.workers):
        world.kill(worker)
    world.run(200)
    began = world.clock.seconds
    with pytest.raises(BadInput, match="EC2 could not be asked"):
        world.to_give_up(machines)
    assert 19 < world.clock.seconds - began < 22


def test_a_machine_goes_back_by_id_by_name_or_by_both(
    world: World, machines: list[dict[str, Any]]
) -> None:
    """The id wins where both are given; the same machine twice is terminated once."""
    by_id, by_name, both = machines
    answer = world.call(
        "requestReturnMachines",
        {
            "machines": [
                {"machineId": by_id["machineId"]},
                {"name": by_name["name"]},
                {"machineId": both["machineId"], "name": by_id["name"]},
                {"machineId": both["machineId"], "name": both["name"]},
            ]
        },
    )
    returned = world.run_until_final(answer["requestId"])
    assert returned["status"] == "complete"
    assert {m["machineId"] for m in returned["machines"]} == {m["machineId"] for m in machines}
    assert len(returned["machines"]) == 3
    assert {m["result"] for m in returned["machines"]} == {"succeed"}
    world.assert_agreement()


def test_a_machine_that_is_gone_goes_back_all_the_same(
    world: World, machines: list[dict[str, Any]]
) -> None:
    """Returned twice, or never known: a new id each time, and it completes. Exit 1 would make
    HostFactory keep the host for ever."""
    first = world.give_back(machines)
    world.run_until_final(first)
    again = world.give_back(machines)
    assert again != first
    assert world.run_until_final(again)["status"] == "complete"
    strange = world.give_back([{"machineId": "i-0123456789abcdef0", "name": "ip-10-9-9-9"}])
    answer = world.run_until_final(strange)
    assert answer["status"] == "complete"
    (machine,) = answer["machines"]
    assert (machine["result"], machine["status"]) == ("succeed", "terminated")
