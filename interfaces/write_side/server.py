"""What a server has of the write side: the figures and alerts that it collects."""

from __future__ import annotations

from typing import Any

from dependency_injector import providers

from infrastructure.site import Site
from interfaces.write_side.container import WriteSide
from interfaces.write_side.start import load_at_start


def load_server(site: Site, environ: Any, metrics: Any) -> None:
    """Load at the start of a server what its collections will be made of, as far as the site wants
    that; a store that was opened for it is closed again. `metrics` are the server's. Raises as
    `load_at_start`."""
    side = WriteSide(
        site=site, environ=environ, process="server", metrics=providers.Object(metrics)
    )
    try:
        load_at_start(side, "monitoring")
    finally:
        if side.store.is_made:
            side.store().close()


def collect_server(
    site: Site, environ: Any, call: Any, metrics: Any, before: Any, **overrides: Any
) -> Any:
    """One collection of a server's figures and alerts, over a store that is opened for it. `call`
    is the site as its files are now, `before` what this gave the last time; None where the site
    wants nothing collected. Raises StoreError, BrokenConfiguration, CallFailed."""
    from contextlib import closing

    from application.alerting import NO_LEASE, Condition
    from infrastructure.worker_start import MISSED_AFTER

    side = WriteSide(
        site=site, environ=environ, process="server", kept_metrics=metrics, **overrides
    )
    call.now = side.clock().now()
    if not side.settings().monitoring.performance.enabled:
        return None
    store, model = call.ledger()
    with closing(store):
        missed = call.unattended(model)
    alone = missed >= MISSED_AFTER
    words = f"nobody has looked after what is open for {missed:.0f} s: {call.why_unattended()}"
    with closing(side.store()):
        monitoring = side.monitoring()
        if before is not None:
            monitoring.take_over(before)
        monitoring.collect([Condition(NO_LEASE, alone, missed, MISSED_AFTER, words)])
    return monitoring
