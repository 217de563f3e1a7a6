"""The start of a worker and of what else writes: what is loaded, checked and told then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from application.failures import NotInstalled
from application.threads import in_threads
from infrastructure.clock import SystemClock
from infrastructure.site import Site
from interfaces.components import ALIASES
from interfaces.loading import is_wanted, loads
from interfaces.write_side.container import WriteSide
from interfaces.write_side.stores import share

DISCOVERED: Mapping[str, Sequence[str]] = {
    "RunInstances": ("boto3", "infrastructure.aws.ec2", "infrastructure.aws.run_instances"),
    "EC2Fleet": ("infrastructure.aws.fleets",),
    "SpotFleet": ("infrastructure.aws.spot_fleets",),
    "ASG": ("infrastructure.aws.groups",),
    "the store sqlite": (
        "infrastructure.storage.sqlite",
        "infrastructure.event_store.sqlite",
        "infrastructure.read_models.sql_queries",
    ),
    "the store sql": (
        "infrastructure.storage.sql",
        "infrastructure.storage.postgresql",
        "infrastructure.event_store.pool",
        "infrastructure.event_store.postgresql",
        "infrastructure.read_models.postgresql_queries",
    ),
    "the store dynamodb": (
        "infrastructure.storage.dynamodb",
        "infrastructure.event_store.dynamodb",
        "infrastructure.read_models.dynamodb_queries",
    ),
    "the store json": (
        "infrastructure.storage.json_files",
        "infrastructure.event_store.json_lines",
        "infrastructure.read_models.json_lines",
    ),
}
"""Ways to launch and stores -> the modules that each is made of; imported when it is used, or all
at the start with `discovery_mode` eager."""


def _discover(name: str) -> None:
    """Raises NotInstalled."""
    with loads.loading(name):
        for module in DISCOVERED[name]:
            try:
                import_module(module)
            except (ImportError, SyntaxError) as error:
                raise NotInstalled(
                    f"{name} cannot be used: {module} is not imported: {error}; install "
                    "hostledger anew, or let only what is used be imported "
                    "(performance.lazy_loading.discovery_mode lazy)"
                ) from error


def report_loads(side: WriteSide) -> None:
    """From now on what is loaded is told in the instance's log, where the site wants that."""
    wanted = is_wanted(side.environ(), side.compiled().settings)
    loads.report_to(side.journal() if wanted else None, wanted=wanted)


def load_at_start(side: WriteSide, part: str | None = None) -> None:
    """Load what the site wants to have loaded before it is used, of all that there is or of what a
    part is made of.

    Raises NotInstalled, StoreError, BrokenConfiguration, CallFailed.
    """
    report_loads(side)
    lazy = side.lazy_loading()
    threads = lazy["max_concurrent_loads"]
    for name in lazy["preload_critical"]:
        getattr(side, ALIASES.get(name, name))()
    if lazy["discovery_mode"] == "eager":
        in_threads(threads, _discover, list(DISCOVERED))
    if not lazy["enabled"]:
        side.load(side.store, threads, part)
        if part is None:
            # They are made when it is known whose leases are held; until then there is the module.
            import_module("application.policies")


def check_start(side: WriteSide) -> None:
    """Find out at the start what would fail later. Raises StoreError, CallFailed,
    BrokenConfiguration."""
    side.storage().check()
    store = side.store()
    share(side)
    clouds = side.clouds()
    lazy = side.lazy_loading()
    if lazy["connection_mode"] == "eager":

        def check(cloud: Any) -> None:
            with loads.loading(f"connection to {cloud.account} in {cloud.region}"):
                cloud.check(store.deployment)

        in_threads(lazy["max_concurrent_loads"], check, list(clouds.values()))


def tell_failed_start(site: Site, reason: str) -> None:
    """Leave the reason for the scripts, who tell it and wait before they try again."""
    from infrastructure import worker_start

    now = SystemClock().now()
    facts = worker_start.status(site)
    failures = max(1, int(facts.get("failures", 0)))
    facts.update(boot_id=now[1], tried=now[2], failures=failures, reason=reason)
    worker_start.write_status(site, facts)
