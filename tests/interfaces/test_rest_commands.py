"""The server's commands: who may, what is recorded, and that a key is one command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Thread
from typing import Any

import pytest

from application.tokens import CreateToken, create_token
from interfaces.rest.app import create_app
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import Client, problem, serving
from tests.stores import FOUR
from tests.world import World

EVERY_STORE = FOUR

ASKED = {"template_id": "OnDemand-A", "machine_count": 2, "reason": "nightly run"}


@pytest.fixture
def operator(world: World, run: Run) -> Iterator[Client]:
    with serving(world, run, "operator") as client:
        yield client


def test_a_request_from_asked_to_returned(world: World, run: Run, operator: Client) -> None:
    """Through the server alone; a worker does the rest, and the ledger says who asked."""
    answer = operator.post("/requests", ASKED)
    assert answer.status_code == 202, answer.text
    document = answer.json()
    request_id = document["request_id"]
    assert answer.headers["location"] == f"/api/v1/requests/{request_id}"
    assert "no worker lives" in document["message"]
    seen = operator.document(f"/requests/{request_id}", wait_for=document["position"])
    assert (seen["state"], seen["machine_count"], seen["source"]) == ("open", 2, "rest")

    world.start_worker()
    world.run_until_final(request_id)
    machines = operator.document("/machines", request_id=request_id)["machines"]
    assert [machine["status"] for machine in machines] == ["running", "running"]
    named = [machine["machine_id"] for machine in machines]
    answer = operator.post("/returns", {"machine_ids": named, "reason": "run ended"})
    assert answer.status_code == 202, answer.text
    for _ in range(20):
        world.run(5)
    returned = operator.document(f"/requests/{answer.json()['request_id']}")
    assert (returned["kind"], returned["status"]) == ("return", "complete")
    assert world.live() == set()

    token_id = run("tokens", "list", "--output", "json").document["tokens"][0]["token_id"]
    for topic, reason in (("MachinesRequested", "nightly run"), ("MachinesReturned", "run ended")):
        (event,) = operator.document("/events", topic=topic)["events"]
        assert event["actor"]["principal"] == token_id
        assert event["fields"]["reason"] == reason


def test_a_key_is_one_command(world: World, operator: Client) -> None:
    """However often it is sent, and by however many at once."""

    def ask(_: int) -> Any:
        return operator.post("/requests", ASKED, "night-2027-01-15")

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    assert len(operator.document("/requests")["requests"]) == 1

    other = operator.post("/requests", {**ASKED, "machine_count": 3}, "night-2027-01-15")
    problem(other, 409, "key-reused", "another key")
    assert operator.post("/requests", ASKED, "night-2027-01-16").status_code == 202
    assert operator.post("/requests", ASKED).status_code == 202
    assert len(operator.document("/requests")["requests"]) == 3


def test_a_key_belongs_to_its_principal(world: World, run: Run, operator: Client) -> None:
    one = operator.post("/requests", ASKED, "same").json()["request_id"]
    other = operator.of("operator", run).post("/requests", ASKED, "same").json()["request_id"]

    assert one != other


def test_returns_and_cancels_with_a_key(world: World, operator: Client) -> None:
    request_id, machine_ids = fulfilled(world, 1)
    back = {"machine_ids": machine_ids, "reason": "done"}
    returns = [operator.post("/returns", back, "r").json() for _ in range(2)]
    assert returns[0]["request_id"] == returns[1]["request_id"]

    open_id = operator.post("/requests", ASKED).json()["request_id"]
    path = f"/requests/{open_id}/cancel"
    cancels = [operator.post(path, {"reason": "wrong"}, "c") for _ in range(2)]
    assert [answer.status_code for answer in cancels] == [202, 202]
    assert cancels[0].json()["state"] == "cancelled"
    assert cancels[0].json()["return_ids"] == cancels[1].json()["return_ids"]
    problem(operator.post(path, {"reason": "again"}), 409, "request-is-final")
    problem(
        operator.post(f"/requests/{request_id}/cancel", {"reason": "late"}), 409, "request-is-final"
    )


def test_a_cancel_returns_what_came_already(world: World, operator: Client) -> None:
    """And says which return it is."""
    world.start_worker()
    request_id = world.request(2)
    world.run(1)
    machines = operator.document("/machines", request_id=request_id)["machines"]
    assert machines

    answer = operator.post(f"/requests/{request_id}/cancel", {"reason": "x"}, "k").json()

    (return_id,) = answer["return_ids"]
    named = operator.document(f"/requests/{return_id}")["machines"]
    assert {m["machine_id"] for m in named} == {m["machine_id"] for m in machines}
    again = operator.post(f"/requests/{request_id}/cancel", {"reason": "x"}, "k").json()
    assert again["return_ids"] == [return_id]


@pytest.mark.stores("sqlite")
def test_what_is_refused_is_not_recorded(world: World, operator: Client) -> None:
    before = world.topics()
    problem(operator.post("/requests", {**ASKED, "template_id": "none"}), 422, "unknown-template")
    too_many = {**ASKED, "machine_count": 100_000}
    problem(operator.post("/requests", too_many), 422, "over-template-limit", "2000")
    problem(operator.post("/requests", {**ASKED, "machine_count": 0}), 422, "invalid")
    problem(operator.post("/requests", {**ASKED, "machine_count": "2"}), 422, "invalid")
    problem(operator.post("/requests", {**ASKED, "count": 2}), 422, "invalid", "count")
    problem(operator.post("/requests", [1]), 422, "invalid")
    for text in ("a\nb", "a\x00b", "a\x9bb"):
        problem(operator.post("/requests", {**ASKED, "reason": text}), 422, "invalid", "reason")
        two = {"machine_ids": ["i-0"], "reason": text}
        problem(operator.post("/returns", two), 422, "invalid", "reason")
    strange = {"machine_ids": ["i-0"], "reason": "x"}
    problem(operator.post("/returns", strange), 404, "unknown-machine", "i-0")
    problem(operator.post("/requests/req-0/cancel", {"reason": "x"}), 404, "unknown-request")
    problem(operator.post("/requests", ASKED, "k" * 300), 422, "invalid", "Idempotency-Key")

    assert world.topics() == before


@pytest.mark.stores("sqlite")
def test_roles(world: World, run: Run, operator: Client) -> None:
    """A viewer looks, an operator commands, an admin makes tokens."""
    viewer, admin = operator.of("viewer", run), operator.of("admin", run)
    problem(viewer.post("/requests", ASKED), 403, "forbidden", "operator")
    problem(viewer.post("/returns", {"machine_ids": ["i-1"], "reason": "x"}), 403, "forbidden")
    problem(viewer.get("/tokens"), 403, "forbidden", "admin")
    problem(operator.post("/tokens", {"role": "admin"}), 403, "forbidden", "admin")
    assert viewer.get("/requests").status_code == 200
    assert admin.post("/requests", ASKED).status_code == 202


@pytest.mark.stores("sqlite")
def test_without_a_token_nothing_is_told(world: World, run: Run, operator: Client) -> None:
    """Neither without one, nor with one that nobody made, was revoked or has ended."""
    http = operator.http
    answer = http.get("/api/v1/requests")
    problem(answer, 401, "unauthenticated", "hostledger tokens create")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    problem(http.post("/api/v1/requests", json=ASKED), 401, "unauthenticated")
    for wrong in ("Bearer hlt_00", "Bearer ", "Basic eA==", "hlt_00"):
        answer = http.get("/api/v1/requests", headers={"Authorization": wrong})
        problem(answer, 401, "unauthenticated")
    assert http.get("/openapi.json").status_code == 200


@pytest.mark.stores("sqlite")
def test_a_token_is_made_told_once_and_revoked(world: World, run: Run, operator: Client) -> None:
    admin = operator.of("admin", run)
    made = admin.post("/tokens", {"role": "viewer", "name": "Grafana", "days": 0})
    assert made.status_code == 201, made.text
    document = made.json()
    assert document["expires_at"] is None
    viewer = Client(admin.http, document["token"])
    assert viewer.get("/requests").status_code == 200

    known = {token["token_id"]: token for token in admin.document("/tokens")["tokens"]}
    assert known[document["token_id"]]["name"] == "Grafana"
    assert document["token"] not in str(world.events("TokenCreated"))

    assert admin.delete(f"/tokens/{document['token_id']}").status_code == 200
    problem(viewer.get("/requests"), 401, "unauthenticated", "revoked")
    problem(admin.delete(f"/tokens/{document['token_id']}"), 409, "token-is-revoked")
    problem(admin.delete("/tokens/tok-0"), 404, "unknown-token")
    (revoked,) = admin.document("/events", topic="TokenRevoked")["events"]
    assert revoked["fields"]["reason"].startswith("by tok-")


@pytest.mark.stores("sqlite")
def test_a_token_ends(world: World, run: Run, operator: Client) -> None:
    """By the wall clock of the server."""
    command = CreateToken("", "viewer", "2020-01-15T08:00:00.000000Z", bytes(32), bytes(16))
    with closing(world.storage().event_store(world.clock, {"user": "test"})) as store:
        create_token(command, store)

    problem(Client(operator.http, command.token).get("/requests"), 401, "unauthenticated", "ended")


@pytest.mark.stores("sqlite")
def test_the_store_is_opened_for_commands_before_there_is_a_loop(world: World) -> None:
    """As an eager start does (`performance.lazy_loading.connection_mode`)."""
    commands = create_app(world.site, world.environ, sys.executable).state.commands
    opening = Thread(target=commands.open, daemon=True)

    opening.start()
    opening.join(30)

    assert not opening.is_alive()
    commands.close()
