"""`--as-of`: what each command that reads shows is what it showed then, on every store."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.interfaces.commands import Run, fulfilled, refused
from tests.stores import FOUR
from tests.world import TEMPLATE, World

EVERY_STORE = FOUR

LISTS = (
    ("requests", "list"),
    ("machines", "list"),
    ("machines", "list", "--alive"),
    ("batches", "list"),
    ("fleets", "list", "--all"),
    ("launch-templates", "list", "--all"),
    ("templates", "list"),
    ("templates", "show", "OnDemand-A"),
)

Shown = dict[tuple[str, ...], Any]


def end(world: World) -> dict[str, Any]:
    with closing(world.storage().log()) as view:
        return view.last_events(1, None)[0]


def shown(run: Run, commands: list[tuple[str, ...]], *when: str) -> Shown:
    return {words: run(*words, "--output", "json", *when).document for words in commands}


def test_what_was_shown_is_shown_again(world: World, run: Run) -> None:
    """A life at whose every stage the commands were asked, by position and by time."""
    stages: list[tuple[dict[str, Any], Shown, dict[str, Any]]] = []
    commands = list(LISTS)
    ids: list[str] = []

    def note() -> None:
        world.run(3)
        asked = world.call("getRequestStatus", {"requests": [{"requestId": i} for i in ids]})
        stages.append((end(world), shown(run, commands), asked["requests"]))

    request_id, machine_ids = fulfilled(world, 2)
    ids.append(request_id)
    batch_id = run("batches", "list", "--output", "json").document["batches"][0]["batch_id"]
    commands += [
        ("requests", "show", request_id),
        ("machines", "show", machine_ids[0]),
        ("batches", "show", batch_id),
    ]
    note()
    named = world.status(request_id)["machines"]
    world.to_give_up(named)
    return_id = world.give_back(named[:1])
    ids.append(return_id)
    commands.append(("requests", "show", return_id))
    note()
    world.run_until_final(return_id)
    world.write_templates([{**TEMPLATE, "maxNumber": 7}])
    world.run_until_final(world.request(1))
    note()

    question = Path(world.root / "question.json")
    question.write_text(json.dumps({"requests": [{"requestId": i} for i in ids[:1]]}))
    for number, (event, then, statuses) in enumerate(stages):
        when = event["recorded_at"] if number % 2 else str(event["position"])
        assert shown(run, list(then), "--as-of", when) == then
        answer = run("hf", "getRequestStatus", "-f", str(question), "--as-of", when)
        assert answer.document == {"requests": statuses[:1]}
    assert stages[0][1] != stages[1][1] != stages[2][1]


@pytest.mark.stores("sqlite")
def test_a_moment_that_is_not_known_is_refused(world: World, run: Run) -> None:
    request_id, machine_ids = fulfilled(world, 1)
    last = end(world)["position"]
    refused(run("machines", "list", "--as-of", "0"), "no event until 0")
    refused(run("machines", "list", "--as-of", "2001-01-01"), "2001-01-01", "first was recorded")
    refused(run("machines", "list", "--as-of", str(last + 1)), f"no event {last + 1}")
    refused(run("machines", "list", "--as-of", "2999-01-01T00:00+01:00"), "yet to come")
    assert run("machines", "list", "--as-of", "yesterday").status == 2
    assert run("hf", "getReturnRequests", "-f", "x", "--as-of", "1").status == 2
    refused(run("requests", "show", request_id, "--as-of", "1"), "as of position 1,", request_id)
    refused(run("machines", "show", machine_ids[0], "--as-of", "2"), "as of position 2,")
    refused(run("templates", "show", "OnDemand-A", "--as-of", "1"), "OnDemand-A", "as of 1")


@pytest.mark.stores("sqlite")
def test_what_changed_between_two_moments(world: World, run: Run) -> None:
    """Each change once, with who did it; what came before and after is not told."""
    request_id, machine_ids = fulfilled(world, 2)
    world.run(3)
    before = end(world)
    return_id = world.give_back(world.status(request_id)["machines"][:1])
    world.run_until_final(return_id)
    world.sandbox.terminate_behind_back([machine_ids[1]])
    world.run(120, step=3.0)
    after = end(world)
    world.run(3)
    fulfilled(world, 1)

    moments = ("--from", before["recorded_at"], "--to", str(after["position"]))
    answer = run("audit", "diff", *moments, "--output", "json").document
    assert (answer["from_position"], answer["to_position"]) == (
        before["position"],
        after["position"],
    )
    assert answer["counts"] == {"return made": 1, "return completed": 1, "machine terminated": 2}
    made, *ended = answer["changes"]
    assert (made["change"], made["id"]) == ("return made", return_id)
    assert made["detail"].startswith("1 machines: ")
    assert made["process"].startswith("requestReturnMachines")
    assert {c["id"] for c in ended if c["change"] == "machine terminated"} == {*machine_ids}
    table = run("audit", "diff", *moments).out
    assert return_id in table and "machine terminated  2" in table

    everything = run("audit", "diff", "--from", "2001-01-01", "--output", "json").document
    assert everything["counts"]["machine launched"] == 3
    assert everything["counts"]["template revised"] == 1
    refused(run("audit", "diff", "--from", "9", "--to", "8"), "position 9", "position 8")


@pytest.mark.stores("sqlite")
def test_a_copy_is_asked_as_of_a_time_too(world: World, run: Run) -> None:
    request_id, _ = fulfilled(world, 1)
    asked = ("requests", "show", request_id, "--as-of", str(end(world)["position"]))
    expected = run(*asked, "--output", "json").document
    copy = world.backup()
    world.run_until_final(world.give_back(world.status(request_id)["machines"]))
    assert run("--store", f"sqlite:{copy}", *asked, "--output", "json").document == expected
    every = run("--store", f"sqlite:{copy}", "requests", "list", *asked[3:], "--output", "json")
    assert [row["request_id"] for row in every.document["requests"]] == [request_id]
