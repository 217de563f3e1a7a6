"""The server's own look at the store, whatever it is kept in."""

from __future__ import annotations

from collections.abc import Callable

from dependency_injector import providers

from tests.infrastructure.test_metrics import series
from tests.interfaces.commands import Run
from tests.interfaces.rest import serving
from tests.stores import FOUR
from tests.world import World

EVERY_STORE = FOUR


def test_a_server_collects_and_raises_alerts(
    make_world: Callable[..., World], make_run: Callable[[World], Run]
) -> None:
    """Its figures are served, and an alert of its own is recorded once."""
    limit = "HOSTLEDGER_MONITORING__PERFORMANCE__ALERTS__MEMORY_USAGE_THRESHOLD"
    world = make_world(settings={limit: "0"})
    world.request(2)
    run = make_run(world)
    with serving(world, run) as client:
        watching = client.app.state.watching
        watching.overrides["clock"] = providers.Object(world.clock)
        watching.collect()
        watching.collect()
        page = client.http.get("/metrics", headers=client._headers({})).text

    raised = [name for name, _ in world.streams("AlertRaised")]
    assert raised.count("alert-memory-usage-server") == 1
    found = series(page)
    assert found["queue_depth", "requests"] == 1
    assert found["alert_raised", "memory-usage-server"] == 1
    assert found["projection_lag_events", "requests"] == 0
    (alert,) = [
        alert
        for alert in run("alerts", "list", "--output", "json").document["alerts"]
        if alert["alert"] == "memory-usage-server"
    ]
    assert alert["limit"] == 0.0
