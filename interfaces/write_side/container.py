"""The container of what writes: its parts, and of which others each is made.

Tests override `clock` and `on_client`.
"""

from __future__ import annotations

import os
from typing import Any

from dependency_injector import providers

from application.version import VERSION
from infrastructure.clock import SystemClock
from infrastructure.site import Site, site_from
from interfaces.components import Component, Container
from interfaces.write_side import parts

__all__ = ["Site", "WriteSide", "site_from"]


class WriteSide(Container):
    """Everything that writes, for one provider instance. `process` names who acts."""

    site = providers.Dependency(instance_of=Site)
    environ: Any = providers.Dependency()
    process: Any = providers.Object("operator")
    program_version: Any = providers.Object(VERSION)
    on_client: Any = providers.Object(None)
    random: Any = providers.Object(os.urandom)
    clock: Any = Component(SystemClock)

    compiled: Any = Component(parts.compiled, site, environ)
    latest: Any = providers.Factory(parts.compiled, site, environ)
    write_status: Any = providers.Callable(parts.write_status, site)
    settings: Any = Component(parts.settings, compiled, anew=True)
    journal: Any = Component(parts.journal, site, compiled, anew=True)
    kept_metrics: Any = providers.Object(None)
    metrics: Any = Component(parts.metrics, settings, process, environ, kept_metrics)
    watch: Any = Component(parts.watch, metrics)
    storage: Any = Component(parts.storage, site, compiled, journal)
    memory_looks: Any = Component(parts.memory_looks, site, clock, process)
    store: Any = Component(parts.store, storage, site, clock, process)
    ledger: Any = Component(parts.ledger, store, settings, watch)
    works: Any = Component(parts.works, storage, store, settings, anew=True)
    work: Any = Component(parts.first, works, anew=True)
    queries: Any = Component(parts.queries, storage, store, anew=True)
    clouds: Any = Component(parts.clouds, settings, clock, journal, on_client, watch)
    leases: Any = Component(
        parts.leases, storage, store, settings, clock, site, process, program_version
    )
    lease: Any = Component(parts.lease, leases, clock)
    turns: Any = Component(
        parts.turns, ledger, storage, works, clouds, clock, leases, journal, compiled, settings,
        store, random,
    )  # fmt: skip
    sightings: Any = Component(parts.sightings, storage, store, watch)
    policies: Any = Component(parts.policies, turns, site, sightings, settings, late=True)
    checkpoints: Any = Component(
        parts.checkpoints, settings, store, clock, journal, on_client, program_version, anew=True
    )
    delivery: Any = Component(
        parts.delivery, site, settings, clock, journal, on_client, store, metrics
    )
    monitoring: Any = Component(
        parts.monitoring, metrics, site, process, compiled, settings, clock, journal, storage,
        store, ledger, leases, delivery,
    )  # fmt: skip

    def lazy_loading(self) -> Any:
        """What the site says of when a thing is loaded."""
        return self.compiled().settings["performance"]["lazy_loading"]

    def is_cached(self) -> bool:
        return bool(self.lazy_loading()["cache_instances"])
