"""The console's pages: what they say, to whom, and that they are sound for every reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from urllib.parse import quote

import pytest

from domain.alert import Alert
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.console import Page, Person
from tests.interfaces.rest import Client, new_token, problem, serving
from tests.stores import FOUR
from tests.world import World

EVERY_STORE = FOUR
pytestmark = pytest.mark.stores("sqlite")

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture
def client(world: World, run: Run) -> Iterator[Client]:
    with serving(world, run) as client:
        yield client


@pytest.fixture
def viewer(client: Client) -> Person:
    person = Person(client.http)
    assert person.log_in(client.token).status_code == 303
    return person


@pytest.fixture
def operator(client: Client, run: Run) -> Person:
    person = Person(client.http)
    assert person.log_in(new_token(run, "operator")).status_code == 303
    return person


def end(world: World) -> int:
    with closing(world.storage().log()) as view:
        position, _ = view.end()
    return int(position)


# -- who gets in ------------------------------------------------------------------------------


def test_who_has_no_token_is_told_how_to_make_one(client: Client) -> None:
    """Every page of the console leads there, and from there to where one wanted to go."""
    person = Person(client.http)
    answer = person.get("/console/machines?alive=true", follow=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fconsole%2Fmachines%3Falive%3Dtrue"
    page = person.page("/")
    assert "hostledger tokens create --role viewer" in page.text("main", id="content")
    assert page.all("nav") == []
    page = person.page(answer.headers["location"])
    ((given, _),) = page.all("input", name="next")
    assert given["value"] == "/console/machines?alive=true"
    problem(client.http.get("/console"), 401, "unauthenticated")


def test_a_token_is_kept_where_no_script_reads_it(client: Client) -> None:
    person = Person(client.http)
    answer = person.log_in(client.token, next="/console/past?at=1")
    assert answer.headers["location"] == "/console/past?at=1"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert "viewer" in person.page("/console").text("header")

    person.send("/logout")
    assert person.get("/console", follow=False).status_code == 303


def test_over_tls_the_cookie_goes_nowhere_else(client: Client) -> None:
    """Ours, or that of a proxy before us."""
    person = Person(client.http)
    behind = {**person.origin, "X-Forwarded-Proto": "https"}
    answer = client.http.post(
        "/login", data={"token": client.token}, headers=behind, follow_redirects=False
    )
    assert "Secure" in answer.headers["set-cookie"]
    answer = client.http.post(
        "https://testserver/login",
        data={"token": client.token},
        headers={"Origin": "https://testserver"},
        follow_redirects=False,
    )
    assert "Secure" in answer.headers["set-cookie"]


def test_wrong_tokens_are_counted(client: Client) -> None:
    person = Person(client.http)
    answers = [person.log_in(f"hlt_{number}") for number in range(21)]
    assert [answer.status_code for answer in answers[:20]] == [401] * 20
    assert answers[20].status_code == 429
    assert "unknown" in Page(answers[0].text).text("p", role="alert")
    assert "set-cookie" not in answers[0].headers
    assert person.log_in("hlt_more").status_code == 429
    assert person.log_in(client.token).status_code == 303


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/api/v1/machines"])
def test_logging_in_leads_nowhere_else(client: Client, place: str) -> None:
    answer = Person(client.http).log_in(client.token, next=place)
    assert answer.headers["location"] == "/console"


def test_another_site_can_neither_log_in_nor_command(client: Client, operator: Person) -> None:
    for path, fields in (
        ("/login", {"token": client.token}),
        ("/console/returns", {"machine_id": "i-1", "reason": "x"}),
        ("/console/requests", {"template_id": "OnDemand-A", "machine_count": "1", "reason": "x"}),
        ("/logout", {}),
    ):
        answer = client.http.post(path, data=fields, headers={"Origin": "https://evil.example"})
        problem(answer, 403, "other-origin")


def test_every_page_runs_nothing_but_our_own_script(world: World, viewer: Person) -> None:
    request_id, machine_ids = fulfilled(world, 1)
    for path in (
        "/login", "/console", "/console/machines", "/console/requests", "/console/past",
        "/console/shortfalls", "/console/health", f"/console/requests/{request_id}",
        f"/console/machines/{machine_ids[0]}", "/console/requests/none",
    ):  # fmt: skip
        answer = viewer.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "same-origin"
        page = Page(answer.text)
        assert [given for given, _ in page.all("script")] == [
            {"src": "/static/console.js", "defer": ""}
        ]
        assert page.all("style") == []
        for _, given, _ in page.elements:
            assert not {name for name in given if name.startswith("on") or name == "style"}
            address = given.get("href") or given.get("src") or given.get("action") or "/"
            assert address.startswith(("/", "#")), address
    for name in ("console.js", "console.css", "icon.svg"):
        assert viewer.get(f"/static/{name}").status_code == 200
    assert viewer.get("/static/%2e%2e/pages.py").status_code == 404
    assert viewer.get("/static/none.js").status_code == 404


# -- for every reader -------------------------------------------------------------------------


def test_pages_are_sound_for_a_screen_reader(world: World, operator: Person) -> None:
    """Landmarks, one h1, headings that skip none, tables and fields with names, no id twice."""
    request_id, machine_ids = fulfilled(world, 2)
    for path in (
        "/login", "/console", "/console/machines", "/console/requests", "/console/past",
        "/console/shortfalls", "/console/health", f"/console/requests/{request_id}",
        f"/console/machines/{machine_ids[0]}",
    ):  # fmt: skip
        page = operator.page(path)
        assert len(page.all("main")) == len(page.all("header")) == len(page.all("h1")) == 1, path
        assert page.all("html", lang="en")
        assert page.all("a", href="#content")
        levels = [int(tag[1]) for tag, _, _ in page.elements if tag in ("h1", "h2", "h3")]
        assert all(after - before <= 1 for before, after in pairwise(levels))
        ids = [given["id"] for _, given, _ in page.elements if "id" in given]
        assert len(ids) == len(set(ids)), path
        assert len(page.all("caption")) == len(page.all("table"))
        assert all("scope" in given for given, _ in page.all("th"))
        named = {given["for"] for given, _ in page.all("label")}
        for given, _ in page.all("input"):
            if given.get("type") != "hidden":
                assert given.get("id") in named or given.get("aria-label"), given
        for _, given, _ in page.elements:
            assert given.get("aria-labelledby", ids[0]) in ids
        if path != "/login":
            assert page.all("nav", **{"aria-label": "Console"})
    assert operator.page("/console").all("span", role="status", **{"aria-live": "polite"})


# -- what they say ----------------------------------------------------------------------------


@pytest.mark.stores(*FOUR)
def test_the_fleet_now(world: World, viewer: Person) -> None:
    """Counts and requests; then a story each of a request and a machine."""
    request_id, machine_ids = fulfilled(world, 3)
    open_id = world.request(1)
    page = viewer.page("/console")
    assert page.text("strong", id="living") == "3"
    counts = page.counts()
    assert (counts["running"], counts["OnDemand-A"], counts["default/us-east-1"]) == (3, 3, 3)
    assert "at most 3" in page.text("figcaption") and "and 3 at the end" in page.text("figcaption")
    assert open_id in page.text("section", id="open")
    assert request_id not in page.text("section", id="open")
    assert request_id in page.text("section", id="final")
    ((given, _),) = [found for found in page.all("a") if found[1] == "running"]
    assert viewer.page(given["href"]).machines() == set(machine_ids)

    page = viewer.page(f"/console/requests/{request_id}")
    assert page.text("strong", id="state") == "fulfilled"
    assert page.machines() == set(machine_ids)
    story = page.text("section", id="story")
    topics = ("MachinesRequested", "LaunchIntended", "LaunchAccepted", "RequestFulfilled")
    places = [story.index(topic) for topic in topics]
    assert places == sorted(places)
    (accepted,) = world.events("LaunchAccepted")
    assert accepted["aws_request_id"] in story

    page = viewer.page(f"/console/machines/{machine_ids[0]}")
    assert page.text("strong", id="state") == "running"
    assert "asked for 3 of OnDemand-A" in page.text("section", id="explanation")
    assert "MachineRunning" in page.text("section", id="story")
    for found in (request_id, machine_ids[0]):
        assert viewer.get(f"/console/find?id={found}").url.path.endswith(found)


def test_what_is_not_there_is_a_page_that_says_so(viewer: Person) -> None:
    for path, status in (
        ("/console/requests/req-none", 404), ("/console/machines/i-none", 404),
        ("/console/nowhere", 404), ("/console/machines?colour=red", 422),
        ("/console/past?at=yesterday", 422), ("/console/find?id=", 422),
        ("/console/past?at=" + "9" * 5000, 422),
    ):  # fmt: skip
        answer = viewer.get(path)
        assert answer.status_code == status, path
        assert Page(answer.text).text("p", role="alert")


def test_machines_come_page_by_page(world: World, viewer: Person) -> None:
    _, machine_ids = fulfilled(world, 120)
    first = viewer.page("/console/machines")
    ((given, _),) = first.all("a", rel="next")
    second = viewer.page(given["href"])
    assert (len(first.machines()), len(second.machines())) == (100, 20)
    assert first.machines() | second.machines() == set(machine_ids)
    assert second.all("a", rel="next") == []


def test_shortfalls_and_health(world: World, viewer: Person) -> None:
    fulfilled(world, 1)
    page = viewer.page("/console/health")
    assert "A worker lives" in page.text("section", id="worker")
    assert "default/us-east-1" in page.text("section", id="worker")
    assert str(end(world)) in page.text("section", id="store")
    assert [found for found in page.all("section") if found[0]["id"] == "orphans"]
    page = viewer.page("/console/shortfalls")
    assert {given["id"] for given, _ in page.all("section")} == {
        "shortfalls", "rejections", "interruptions", "losses",
    }  # fmt: skip


def test_an_alert_is_shown_while_it_is_raised(world: World, viewer: Person) -> None:
    """On the first page and among the health, and on none when it is well again."""
    alert = Alert(Alert.stream("orphans"))
    for raised in (True, False):
        if raised:
            alert.set_off("2 instances that the ledger does not know", 2.0, 0.0)
        else:
            alert.clear(0.0)
        with closing(world.storage().event_store(world.clock, {"user": "test"})) as store:
            store.save(alert)
        shown = viewer.page("/console").text("section", id="warnings")
        assert ("Alert orphans" in shown) == raised
        row = viewer.page("/console/health").text("section", id="alerts")
        assert ("2 instances that the ledger does not know" in row) == raised


def test_what_others_wrote_is_text(world: World, run: Run, client: Client) -> None:
    """A token's name, reasons and what is asked for, each as hostile as can be."""
    token = run("tokens", "create", "--role", "operator", "--name", HOSTILE).out.strip()
    person = Person(client.http)
    person.log_in(token)
    world.start_worker()
    ask = {"template_id": "OnDemand-A", "machine_count": 1, "reason": HOSTILE}
    answer = Client(client.http, token).post("/requests", ask)
    request_id = answer.json()["request_id"]
    world.run_until_final(request_id)
    (machine_id,) = world.owned()
    answer = person.send("/console/returns", machine_id=machine_id, reason=HOSTILE)
    return_id = answer.url.path.rpartition("/")[2]
    world.run(60)
    ((asked,),) = world.query("SELECT position FROM events WHERE topic = 'MachinesRequested'")
    for path in (
        f"/console/requests/{request_id}", f"/console/requests/{return_id}",
        f"/console/machines/{machine_id}", f"/console/past?at={asked}",
        f"/console/machines?zone={quote(HOSTILE)}",
        f"/console/past?at={quote(HOSTILE)}",
    ):  # fmt: skip
        answer = person.get(path)
        assert "<script>alert" not in answer.text, path
        page = Page(answer.text)
        assert len(page.all("script")) == 1
        assert HOSTILE in page.text("header")
        assert HOSTILE in page.text("main"), path
    answer = person.get("/console/requests/" + quote("<img src=x onerror=alert(1)>"))
    assert Page(answer.text).all("img") == []
    assert "<img" in Page(answer.text).text("p", role="alert")


# -- the time slider --------------------------------------------------------------------------


def test_the_slider_without_scripts_is_as_of(world: World, viewer: Person, run: Run) -> None:
    """Every position that it is set to shows what the command shows of it."""
    request_id, machine_ids = fulfilled(world, 3)
    world.run_until_final(world.give_back(world.status(request_id)["machines"][:1]))
    last = end(world)
    page = viewer.page("/console/past")
    ((slider, _),) = page.all("input", type="range")
    assert (slider["name"], slider["min"], slider["max"]) == ("at", "1", str(last))
    assert slider["value"] == str(last)
    seen = set()
    for position in (*range(1, last, 3), last):
        page = viewer.page(f"/console/past?at={position}")
        rows = run("machines", "list", "--alive", "--as-of", str(position), "--output", "json")
        alive = {row["machine_id"] for row in rows.document["machines"]}
        assert page.machines() == alive
        assert page.text("strong", id="living") == str(len(alive))
        assert page.text("span", id="position") == str(position)
        seen.add(len(alive))
    assert seen >= {0, 3}
    steps = {text: given["value"] for given, text in page.all("button", name="at")}
    assert steps["Back 1"] == str(position - 1)
    assert steps["First"] == "1"

    moment = world.query("SELECT recorded_at FROM events WHERE position = 20")[0][0]
    by_time = viewer.page(f"/console/past?at={moment}")
    assert int(by_time.text("span", id="position")) >= 20
    then = viewer.page(f"/console/machines?alive=true&as_of={last}")
    assert then.machines() == world.owned()
    assert machine_ids


def test_the_picture_of_the_fleet_over_time(world: World, viewer: Person) -> None:
    """In the page's own colours, told in words too, and with the chosen position marked."""
    assert "at most 0" in viewer.page("/console").text("figcaption")
    request_id, _ = fulfilled(world, 3)
    world.run_until_final(world.give_back(world.status(request_id)["machines"][:1]))
    last = end(world)
    for path, along in (("/console", "over time"), (f"/console/past?at={last // 2}", "the log")):
        page = viewer.page(path)
        ((drawn, _),) = page.all("svg")
        ((named, told),) = page.all("figcaption")
        assert (drawn["role"], drawn["aria-labelledby"]) == ("img", named["id"])
        assert along in told
        assert "at most 3" in told
        assert "and 2 at the end" in told
        assert {given["fill"] for tag in ("polygon", "text") for given, _ in page.all(tag)} == {
            "var(--link)", "var(--quiet)",
        }  # fmt: skip
        marks = page.all("polyline", stroke="var(--focus)")
        assert len(marks) == (path != "/console")
    ((mark, _),) = marks
    x = float(mark["points"].partition(",")[0])
    assert x == pytest.approx(60 + (last // 2 - 1) / (last - 1) * 888, abs=0.1)


# -- who may do what --------------------------------------------------------------------------


def test_a_viewer_sees_no_forms_and_may_send_none(world: World, viewer: Person) -> None:
    request_id, machine_ids = fulfilled(world, 1)
    open_id = world.request(1)
    for path in (
        f"/console/requests/{open_id}", f"/console/machines/{machine_ids[0]}",
        "/console/machines", "/console/requests", f"/console/requests/{request_id}",
    ):  # fmt: skip
        page = viewer.page(path)
        assert list(viewer.forms(page)) == ["/logout"]
        assert page.all("input", type="checkbox") == []
    before = end(world)
    for path, fields in (
        ("/console/returns", {"machine_id": machine_ids[0], "reason": "x"}),
        ("/console/requests", {"template_id": "OnDemand-A", "machine_count": "1", "reason": "x"}),
        (f"/console/requests/{open_id}/cancel", {"reason": "x"}),
    ):
        answer = viewer.send(path, **fields)
        assert answer.status_code == 403
        assert "operator" in Page(answer.text).text("p", role="alert")
    assert end(world) == before


def test_an_operator_asks_for_machines(world: World, operator: Person) -> None:
    """Below the list of requests, for what is offered; it leads to the request's story."""
    page = operator.page("/console/requests")
    assert "/console/requests" in list(operator.forms(page))
    assert page.all("option") == [({}, "OnDemand-A")]
    ((key, _),) = page.all("input", name="key")
    fields = {"template_id": "OnDemand-A", "machine_count": "2", "reason": "nightly run"}
    answers = [operator.send("/console/requests", **fields, key=key["value"]) for _ in range(2)]
    assert {answer.url.path for answer in answers} == {answers[0].url.path}
    assert Page(answers[0].text).text("strong", id="state") == "open"
    (event,) = world.events("MachinesRequested")
    assert (event["machine_count"], event["reason"]) == (2, "nightly run")

    for wrong in (
        {"machine_count": "0"}, {"machine_count": "two"}, {"machine_count": "1.5"},
        {"machine_count": "9" * 5_000}, {"machine_count": "100000"}, {"template_id": "none"},
    ):  # fmt: skip
        answer = operator.send("/console/requests", **{**fields, **wrong}, key="k")
        assert answer.status_code == 422, wrong
        assert Page(answer.text).text("p", role="alert")
    assert len(world.events("MachinesRequested")) == 1


def test_an_operator_returns_machines_and_cancels(world: World, operator: Person) -> None:
    """By the forms of the pages, with a reason, and twice the same form is one command."""
    request_id, machine_ids = fulfilled(world, 3)
    page = operator.page(f"/console/requests/{request_id}")
    assert "/console/returns" in list(operator.forms(page))
    boxes = [given["value"] for given, _ in page.all("input", type="checkbox")]
    assert set(boxes) == set(machine_ids)
    ((key, _),) = page.all("input", name="key")
    fields = {"machine_id": boxes[:2], "reason": "run ended", "key": key["value"]}
    answers = [operator.send("/console/returns", **fields) for _ in range(2)]
    assert {answer.url.path for answer in answers} == {answers[0].url.path}
    returned = Page(answers[0].text)
    assert "run ended" in returned.text("section", id="story")
    assert returned.machines() == set(boxes[:2])
    (event,) = world.events("MachinesReturned")
    assert (event["machine_ids"], event["reason"]) == (boxes[:2], "run ended")

    fields["machine_id"] = boxes[2:]
    assert operator.send("/console/returns", **fields).status_code == 200
    assert len(world.events("MachinesReturned")) == 2

    open_id = world.request(1)
    page = operator.page(f"/console/requests/{open_id}")
    (path,) = [path for path in operator.forms(page) if path.endswith("/cancel")]
    answer = operator.send(path, reason="wrong template", key="k")
    assert Page(answer.text).text("strong", id="state") == "cancelled"
    assert "wrong template" in Page(answer.text).text("section", id="story")


def test_a_form_that_is_not_whole_records_nothing(world: World, operator: Person) -> None:
    _, machine_ids = fulfilled(world, 1)
    before = end(world)
    for fields in (
        {"reason": "x"}, {"machine_id": machine_ids[0]}, {"machine_id": "i-0", "reason": "x"},
        {"machine_id": machine_ids[0], "reason": "x" * 2000},
    ):  # fmt: skip
        answer = operator.send("/console/returns", **fields)
        assert answer.status_code in (404, 422)
        assert Page(answer.text).text("p", role="alert")
    answer = operator.http.post("/console/returns", json={}, headers=operator.origin)
    assert answer.status_code == 422
    assert end(world) == before
