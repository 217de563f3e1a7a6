"""/livez, /readyz, /metrics, and what the server watches over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dependency_injector import providers

from application.alerting import NO_LEASE
from tests.application.test_monitoring import OFTEN
from tests.infrastructure.test_metrics import series
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import serving
from tests.world import World


def test_it_lives_and_is_ready_without_a_token(world: World, run: Run) -> None:
    with serving(world, run) as client:
        for path in ("/livez", "/readyz"):
            assert client.http.get(path).status_code == 200


def test_it_is_not_ready_without_its_store(world: World, run: Run) -> None:
    """And lives all the same: starting it anew would mend nothing."""
    with serving(world, run) as client:
        client.app.state.looks._forget()
        Path(world.path).rename(world.path + ".away")
        answer = client.http.get("/readyz")
        assert answer.status_code == 503
        assert world.path in answer.text
        assert client.http.get("/livez").status_code == 200
        Path(world.path + ".away").rename(world.path)
        assert client.http.get("/readyz").status_code == 200


def test_it_is_not_ready_while_a_read_model_has_failed(world: World, run: Run) -> None:
    with serving(world, run) as client:
        store = world.storage().event_store(world.clock, {"user": "x"})
        store.connection.execute("INSERT INTO projections VALUES ('machines', 2, 'broken')")
        store.close()
        answer = client.http.get("/readyz")
        assert answer.status_code == 503
        assert "machines" in answer.text


def test_it_is_not_ready_when_it_is_about_to_end(world: World, run: Run) -> None:
    with serving(world, run) as client:
        client.app.state.door.draining = True
        assert client.http.get("/readyz").status_code == 503
        assert client.http.get("/livez").status_code == 200


def test_metrics_take_a_token(world: World, run: Run) -> None:
    with serving(world, run) as client:
        assert client.http.get("/metrics").status_code == 401
        answer = client.http.get("/metrics", headers=client._headers({}))
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_requests_are_counted_by_route_and_status(world: World, run: Run) -> None:
    """Ids in a path make no series of their own, nor do paths and methods that there are not."""
    with serving(world, run) as client:
        client.get("/requests")
        for number in range(5):
            client.get(f"/requests/req-{number:032x}")
            client.http.request("GUESS", f"/{number}", headers=client._headers({}))
        text = client.http.get("/metrics", headers=client._headers({})).text

    found = {key: value for key, value in series(text).items() if key[0] == "rest_requests_total"}
    assert found["rest_requests_total", "GET", "/api/v1/requests", "200"] == 1
    assert found["rest_requests_total", "GET", "/api/v1/requests/{request_id}", "404"] == 5
    assert found["rest_requests_total", "other", "other", "404"] == 5
    assert len(found) == 3
    assert series(text)["rest_request_seconds_count", "GET", "/api/v1/requests"] == 1


def test_the_worker_beside_it_is_in_the_page_while_it_lives(
    make_world: Callable[..., World], make_run: Callable[[World], Run]
) -> None:
    world = make_world(settings=OFTEN)
    world.start_worker()
    world.run(5)
    run = make_run(world)
    with serving(world, run) as client:
        # Of the time in which the worker lives.
        call = client.app.state.looks.call

        def then() -> object:
            found = call()
            found.now = world.clock.now()
            return found

        client.app.state.looks.call = then
        page = client.http.get("/metrics", headers=client._headers({})).text
        assert 'hostledger_process_up{process="worker"} 1.0' in page
        assert 'hostledger_turns_total{outcome="done",process="worker"}' in page

        world.kill(world.workers[0])
        page = client.http.get("/metrics", headers=client._headers({})).text
        assert 'hostledger_process_up{process="worker"} 0.0' in page
        assert "hostledger_turns_total" not in page


def test_metrics_can_be_switched_off(
    make_world: Callable[..., World], make_run: Callable[[World], Run]
) -> None:
    world = make_world(settings={"HOSTLEDGER_MONITORING__PERFORMANCE__ENABLED": "false"})
    with serving(world, make_run(world)) as client:
        assert client.http.get("/metrics", headers=client._headers({})).status_code == 404


def test_the_server_notices_that_nobody_works(world: World, run: Run) -> None:
    """What no worker can raise: raised by the server once, and cleared by it when one is back."""
    fulfilled(world, 1)
    world.kill(world.workers[0])
    with serving(world, run) as client:
        watching = client.app.state.watching
        watching.overrides["clock"] = providers.Object(world.clock)
        world.clock.advance(50)
        watching.collect()
        assert world.events("AlertRaised") == []
        world.clock.advance(20)
        watching.collect()
        watching.collect()
        (raised,) = [
            event for name, event in world.streams("AlertRaised") if name == f"alert-{NO_LEASE}"
        ]
        assert "nobody has looked after" in raised["message"]
        assert raised["value"] >= 60
        page = client.http.get("/metrics", headers=client._headers({})).text
        assert series(page)["alert_raised", NO_LEASE] == 1
        assert series(page)["live_machines",] == 1

        world.start_worker()
        world.run(3)
        watching.collect()
        cleared = [name for name, _ in world.streams("AlertCleared")]
        assert cleared.count(f"alert-{NO_LEASE}") == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_are_answered_while_all_threads_are_busy(world: World, run: Run, path: str) -> None:
    """They wait for no thread: a probe that fails under load ends what works."""
    from threading import Event

    with serving(world, run) as client:
        gate = Event()
        threads = client.app.state.looks._threads
        waiting = [threads.submit(gate.wait) for _ in range(20)]
        try:
            assert client.http.get(path).status_code == 200
        finally:
            gate.set()
        assert all(each.result() for each in waiting)
