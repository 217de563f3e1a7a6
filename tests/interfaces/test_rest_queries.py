"""The server's reads: the same facts as the commands show, page by page, now and as of a moment."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from application import pages
from application.pages import MACHINES, REQUESTS, Wanted
from interfaces.rest import models
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import Client, problem, serving
from tests.stores import FOUR
from tests.world import World

EVERY_STORE = FOUR


@pytest.fixture
def client(world: World, run: Run) -> Iterator[Client]:
    with serving(world, run) as client:
        yield client


def test_a_machine_is_told_as_it_was_recorded(world: World, run: Run, client: Client) -> None:
    """In each place, whatever is in its texts."""
    request_id, (machine_id,) = fulfilled(world, 1)
    reason = 'a "long" job \\ of %s, \u00e9 \u2028 \U0001f642 {}'
    run("machines", "protect", machine_id, "--reason", reason)

    machine = client.document(f"/machines/{machine_id}")

    assert machine["protected"] == reason
    assert (machine["alive"], machine["seen_by_host_factory"]) == (True, False)
    assert (machine["owed"], machine["return_id"]) == (None, None)
    assert (machine["machine_id"], machine["request_id"]) == (machine_id, request_id)
    (launched,) = world.query("SELECT launch_time FROM machines")[0]
    assert machine["launch_time"] == f"{datetime.fromtimestamp(launched, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert client.document("/machines")["machines"] == [machine]
    assert client.document(f"/requests/{request_id}")["machines"] == [machine]
    (some,) = client.document("/machines", fields="protected,alive")["machines"]
    assert some == {"protected": reason, "alive": True}


def test_what_commands_show_is_answered(world: World, run: Run, client: Client) -> None:
    """Lists and single things, each as its model in the OpenAPI document says."""
    request_id, machine_ids = fulfilled(world, 2)
    world.give_back([{"machineId": machine_ids[0], "name": ""}])
    world.run(3)

    def shown(*words: str) -> Any:
        return run(*words, "--output", "json").document

    requests = client.document("/requests")["requests"]
    assert requests == shown("requests", "list")["requests"]
    machines = client.document("/machines", sort="created_at")["machines"]
    assert sorted(machines, key=itemgetter("machine_id")) == sorted(
        shown("machines", "list")["machines"], key=itemgetter("machine_id")
    )
    batches = client.document("/batches")["batches"]
    assert batches == shown("batches", "list")["batches"]
    one = client.document(f"/requests/{request_id}")
    also = shown("requests", "show", request_id)
    assert client.document(f"/requests/{request_id}/batches")["batches"] == also.pop("batches")
    assert one == also
    assert client.document(f"/machines/{machine_ids[0]}") == shown(
        "machines", "show", machine_ids[0]
    )
    batch_id = batches[0]["batch_id"]
    expected = shown("batches", "show", batch_id)
    del expected["machines"]
    assert client.document(f"/batches/{batch_id}") == expected
    assert client.document("/templates") == shown("templates", "list")
    assert client.document("/templates/OnDemand-A") == shown("templates", "show", "OnDemand-A")
    assert (
        client.document("/projections")["projections"]
        == shown("projections", "list")["projections"]
    )
    assert client.document("/reports/usage")["total"] == shown("report", "usage")["total"]
    assert client.document(f"/machines/{machine_ids[1]}/explanation") == shown(
        "audit", "explain", machine_ids[1]
    )
    history = client.document(f"/history/{request_id}")["events"]
    assert history == shown("audit", "history", request_id)["events"]
    store = client.document("/store")
    assert store["live_machines"] == shown("store", "status")["live_machines"]

    for path, model in (
        ("/requests", models.RequestPage),
        (f"/requests/{request_id}", models.RequestWithMachines),
        (f"/requests/{request_id}/batches", models.BatchPage),
        ("/machines", models.MachinePage),
        (f"/machines/{machine_ids[0]}", models.MachineDocument),
        ("/batches", models.BatchPage),
        (f"/batches/{batch_id}", models.BatchDocument),
        ("/templates", models.TemplateList),
        ("/events", models.EventPage),
        (f"/history/{request_id}", models.EventPage),
        ("/projections", models.ProjectionList),
        ("/store", models.Store),
    ):
        _is_a(model, client.document(path))


def _is_a(model: type[BaseModel], document: dict[str, Any]) -> None:
    model.model_validate(document, strict=True)


def test_what_was_answered_is_answered_again(world: World, client: Client) -> None:
    """`as_of` a position answers what was answered when the log ended there."""
    stages: list[tuple[int, dict[str, Any]]] = []
    request_id, machine_ids = fulfilled(world, 2)
    paths = ["/requests", "/machines", "/batches", f"/requests/{request_id}", "/events",
             f"/machines/{machine_ids[0]}"]  # fmt: skip

    def look() -> dict[str, Any]:
        return {path: client.document(path, limit=50) if path.count("/") == 1 else
                client.document(path) for path in paths}  # fmt: skip

    def end() -> int:
        with closing(world.storage().log()) as view:
            return view.end()[0]

    stages.append((end(), look()))
    world.give_back([{"machineId": machine_ids[0], "name": ""}])
    world.run(3)
    stages.append((end(), look()))
    world.request(3)
    world.run(5)

    for position, then in stages:
        for path, document in then.items():
            answer = client.get(path, as_of=str(position))
            assert answer.json() == document
            assert answer.headers["etag"] == f'"{position}"'
    assert look() != stages[-1][1]


@pytest.mark.stores("sqlite")
def test_pages_are_the_whole_list_once(world: World) -> None:
    """Whatever is filtered and sorted, the pages one after the other are what one list would be."""
    for count in (3, 1, 2):
        _, machine_ids = fulfilled(world, count)
    world.give_back([{"machineId": machine_ids[0], "name": ""}])
    world.run(3)

    with closing(world.storage().queries()) as view:

        @settings(max_examples=60)
        @given(st.data())
        def law(data: st.DataObject) -> None:
            listing = data.draw(st.sampled_from([REQUESTS, MACHINES]))
            all_rows = view._rows(
                f"SELECT * FROM {listing.table}"
                if listing is MACHINES
                else "SELECT r.*, 0 AS alive FROM requests r"
            )
            name = data.draw(st.sampled_from([*listing.filters, *listing.flags]))
            sort = data.draw(st.sampled_from([*listing.sorts]))
            descending = data.draw(st.booleans())
            if name in listing.flags:
                value: Any = data.draw(st.booleans())
                column, truth = listing.flags[name]
                expected = [r for r in all_rows if (r[column] == truth) == value]
            else:
                column = listing.filters[name]
                value = data.draw(
                    st.sampled_from([*{r[column] for r in all_rows if r[column]}, "?"])
                )
                expected = [r for r in all_rows if r[column] == value]
            by = itemgetter(listing.sorts[sort], listing.key)
            expected.sort(key=by, reverse=descending)

            seen, cursor = [], None
            while True:
                wanted = Wanted(
                    listing,
                    {name: value},
                    ("-" if descending else "") + sort,
                    cursor,
                    data.draw(st.integers(1, 4)),
                )
                documents, cursor = pages.page(view, wanted)
                seen += [document[listing.key] for document in documents]
                if cursor is None:
                    break
            assert seen == [row[listing.key] for row in expected]

        law()


@pytest.mark.stores("sqlite")
def test_what_cannot_be_asked_is_named(client: Client) -> None:
    problem(client.get("/requests", sort="size"), 422, "bad-question", "size", "created_at")
    problem(client.get("/requests", fields="request_id,size"), 422, "bad-question", "size")
    problem(client.get("/requests", cursor="AAAA"), 422, "bad-question", "cursor")
    problem(client.get("/requests", limit=0), 422, "invalid", "limit")
    problem(client.get("/requests", machine="i-1"), 422, "invalid", "machine")
    problem(client.get("/requests", created_since="soon"), 422, "no-moment", "soon")
    problem(client.get("/requests", as_of="4711"), 422, "no-moment", "4711")
    problem(client.get("/requests/req-0"), 404, "unknown-request", "req-0")
    problem(client.get("/machines/i-0"), 404, "not-in-ledger", "i-0")
    problem(client.get("/templates/none"), 404, "unknown-template", "none")
    problem(client.get("/reports/usage", by="size"), 422, "bad-question", "size")
    problem(client.get("/reports/size"), 404, "unknown-report")
    problem(client.get("/nothing"), 404, "no-such-path")
    problem(client.post("/machines", {}), 405, "no-such-method")


@pytest.mark.stores("sqlite")
def test_a_path_is_that_of_one_endpoint(world: World, client: Client) -> None:
    """However an id looks; and what is no path of ours is none."""
    for path in ("/requests//batches", "/requests/a/b", "/machines/a/explanation/b", "//requests"):
        problem(client.get(path), 404, "no-such-path")
    problem(client.get("/machines/explanation"), 404, "not-in-ledger", "explanation")
    problem(client.get("/requests/batches/batches"), 404, "unknown-request", "batches")
    problem(client.get("/requests/%7B%7D"), 404, "unknown-request", "{}")
    assert client.get("/requests/").url.path == "/api/v1/requests"
    for method in ("HEAD", "PUT", "PATCH"):
        answer = client.http.request(
            method, "/api/v1/machines", headers={"Authorization": f"Bearer {client.token}"}
        )
        assert answer.status_code == 405, method


@pytest.mark.stores("sqlite")
def test_a_cursor_of_another_sort_is_refused(world: World, client: Client) -> None:
    fulfilled(world, 2)
    cursor = client.document("/machines", limit=1)["next"]

    problem(client.get("/machines", sort="zone", cursor=cursor), 422, "bad-question", "another")


def test_what_no_store_can_hold_is_refused(world: World, client: Client) -> None:
    """A forged cursor, a NUL, a number beyond all: never a defect, and the server goes on."""
    fulfilled(world, 2)

    def forged(*place: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()

    for place in (
        ("-created_at", "x", "i-1"),
        ("-created_at", 10**30, "i-1"),
        ("-created_at", 1.5, "i-1"),
        ("-created_at", True, "i-1"),
        ("-created_at", 1, "i\0"),
        ("-created_at", 1, 2),
        ("-created_at", None, "i-1"),
    ):
        problem(client.get("/machines", cursor=forged(*place)), 422, "bad-question", "cursor")
    for sort, value in (("-zone", 1), ("zone", "a\0"), ("launch_time", "2027")):
        answer = client.get("/machines", sort=sort, cursor=forged(sort, value, "i-1"))
        problem(answer, 422, "bad-question", "cursor")
    problem(client.get("/machines", zone="a\0b"), 422, "invalid", "NUL")
    problem(client.get("/machines/i-%00"), 422, "invalid", "NUL")
    problem(client.get("/machines/i-\ud7ff"), 404, "not-in-ledger")
    assert len(client.document("/machines", zone="\u00e9\U0001f600'\\%_")["machines"]) == 0
    assert len(client.document("/machines")["machines"]) == 2


@pytest.mark.stores("sqlite")
def test_fields_alone(world: World, client: Client) -> None:
    fulfilled(world, 1)

    (machine,) = client.document("/machines", fields="machine_id, zone")["machines"]

    assert list(machine) == ["machine_id", "zone"]


@pytest.mark.stores("sqlite")
def test_what_a_client_has_is_not_sent_again(world: World, client: Client) -> None:
    fulfilled(world, 1)
    first = client.get("/machines")

    again = client.get("/machines", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    world.request(1)
    later = client.get("/machines", headers={"If-None-Match": first.headers["etag"]})
    assert later.status_code == 200
    assert later.headers["etag"] != first.headers["etag"]


@pytest.mark.stores("sqlite")
def test_answers_are_kept_until_the_log_goes_on(world: World, client: Client) -> None:
    fulfilled(world, 1)
    answers = client.app.state.answers
    first = client.document("/requests")
    hits = answers.hits
    assert client.document("/requests") == first
    assert answers.hits == hits + 1

    world.request(1)
    assert len(client.document("/requests")["requests"]) == 2
    assert answers.hits == hits + 1


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(("most", "hits"), [("100MB", 1), ("300", 0), ("0", 0)])
def test_so_many_bytes_of_answers_are_kept(world: World, run: Run, most: str, hits: int) -> None:
    """`performance.memory.max_cache_size`; an answer that is larger is made anew each time."""
    fulfilled(world, 3)
    world.environ["HOSTLEDGER_PERFORMANCE__MEMORY__MAX_CACHE_SIZE"] = most
    with serving(world, run) as client:
        first = client.get("/machines").content
        assert len(first) > 300
        assert client.get("/machines").content == first
        assert client.app.state.answers.hits == hits


def test_a_read_waits_for_a_position(world: World, client: Client) -> None:
    """The answer is of that position or later; one that never comes is said so."""
    world.request(1)
    with closing(world.storage().log()) as view:
        position = view.end()[0]

    answer = client.get("/requests", wait_for=position)

    assert answer.json()["position"] >= position
    assert len(answer.json()["requests"]) == 1


def test_the_log_page_by_page(world: World, client: Client) -> None:
    fulfilled(world, 1)
    whole = client.document("/events", limit=1000)["events"]

    read: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = client.document("/events", after=after, limit=3)
        read += page["events"]
        after = page["next"]
    assert read == whole
    asked = client.document("/events", topic="MachineLaunched")["events"]
    assert asked == [event for event in whole if event["topic"] == "MachineLaunched"]
