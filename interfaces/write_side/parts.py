"""How each part of the container is made, of the parts that it needs.

Named functions with local imports, so that a command pays for what it asks for.
"""

from __future__ import annotations

import os
from typing import Any

from infrastructure.site import Site


def compiled(site: Site, environ: Any) -> Any:
    from infrastructure.compiled import load

    return load(site, environ)


def storage(site: Site, compiled: Any, journal: Any) -> Any:
    """What takes the store long is noted in the log."""
    from infrastructure.storage import storage_of
    from infrastructure.telemetry.slow_statements import SlowStatements

    storage = storage_of(site, compiled.settings)
    storage.watch = SlowStatements(journal)
    return storage


def memory_looks(site: Site, clock: Any, process: str) -> Any:
    from infrastructure.telemetry.memory import MemoryLooks

    return MemoryLooks(site.memory, clock, process)


def write_status(site: Site, facts: dict[str, Any]) -> None:
    from infrastructure.worker_start import write_status

    write_status(site, facts)


def settings(compiled: Any) -> Any:
    from infrastructure.settings import Settings

    return Settings.model_validate(compiled.settings)


def journal(site: Site, compiled: Any) -> Any:
    from infrastructure.telemetry.journal import Journal

    return Journal(site.log_file, compiled.settings["logging"])


def metrics(settings: Any, process: str, environ: Any, kept: Any) -> Any:
    """What a worker or a server counts with, the one it has counted with so far where there is
    one; None for whoever counts nothing. Raises NotInstalled."""
    if process not in ("worker", "server") or not settings.monitoring.performance.enabled:
        return None
    from interfaces.read_side import new_metrics

    return kept or new_metrics(process, environ)


def watch(metrics: Any) -> Any:
    if metrics is None:
        return None
    from infrastructure.telemetry.monitoring import Watch

    return Watch(metrics)


def store(storage: Any, site: Site, clock: Any, process: str) -> Any:
    return storage.event_store(clock, site.actor(process))


def ledger(store: Any, settings: Any, watch: Any) -> Any:
    from application.event_sourcing import Ledger
    from infrastructure.event_store.recorders import StoreFactory

    factory = StoreFactory(store, watch.store if watch is not None else None)
    return Ledger(factory, settings.performance.memory.object_pool_size)


def clouds(settings: Any, clock: Any, journal: Any, on_client: Any, watch: Any) -> Any:
    """Account -> EC2 there."""
    from infrastructure.aws.ec2 import Ec2

    threads = settings.performance.cpu.thread_pool_size
    return {
        name: Ec2(name, aws, clock, journal, on_client, watch=watch, threads=threads)
        for name, aws in settings.provider.places().items()
    }


def works(storage: Any, store: Any, settings: Any) -> Any:
    return {
        name: storage.work(store, name, aws.region or "")
        for name, aws in settings.provider.places().items()
    }


def first(by_account: Any) -> Any:
    return next(iter(by_account.values()))


def queries(storage: Any, store: Any) -> Any:
    return storage.view_of(store)


def leases(
    storage: Any,
    store: Any,
    settings: Any,
    clock: Any,
    site: Site,
    process: str,
    program_version: str,
) -> Any:
    return {
        name: storage.lease(
            store,
            f"{name}/{aws.region}",
            f"{process}[{os.getpid()}]",
            program_version,
            clock,
            settings.worker.lease_time,
            site.worker_lock if number == 0 else f"{site.worker_lock}.{name}",
        )
        for number, (name, aws) in enumerate(settings.provider.places().items())
    }


def lease(leases: Any, clock: Any) -> Any:
    from infrastructure.event_store.lease import Leases

    return Leases(list(leases.values()), clock)


def turns(
    ledger: Any,
    storage: Any,
    works: Any,
    clouds: Any,
    clock: Any,
    leases: Any,
    journal: Any,
    compiled: Any,
    settings: Any,
    store: Any,
    random: Any,
) -> Any:
    from application.turn import Divided, Turn

    divided = Divided()
    batch = settings.processing.batch_processing
    return [
        Turn(
            ledger=ledger,
            work=works[name],
            notebook=storage.notebook(store, name, aws.region or ""),
            cloud=clouds[name],
            clock=clock,
            lease=leases[name],
            journal=journal,
            settings={**compiled.settings["provider"], "aws": aws.model_dump(mode="json")},
            deployment=store.deployment,
            incarnation=store.incarnation,
            random=random,
            divided=divided,
            at_once=batch.batch_size if batch.enabled else 1,
        )
        for name, aws in settings.provider.places().items()
    ]


def checkpoints(
    settings: Any, store: Any, clock: Any, journal: Any, on_client: Any, program_version: str
) -> Any:
    """Takes a checkpoint when it is called: where it is kept, None where no event came since the
    last. Itself None where the site wants none. Raises StoreError, BrokenConfiguration."""
    place = settings.audit.checkpoint_to
    if place is None:
        return None
    from application import checkpoints
    from infrastructure.checkpoints import read_key, safe_of
    from infrastructure.event_store.commit import iso

    def connect() -> Any:
        from infrastructure.aws.client import Connection

        return Connection(settings.provider.aws, clock, journal, on_client)

    safe = safe_of(place, store.deployment, connect)

    def take() -> str | None:
        key = read_key(settings.audit.checkpoint_key)
        at = iso(clock.now()[0])
        return checkpoints.keep(safe, store.deployment, store.end(), at, program_version, key)

    return take


def sightings(storage: Any, store: Any, watch: Any) -> Any:
    sightings = storage.sightings(store)
    if watch is None:
        return sightings
    from infrastructure.telemetry.monitoring import WatchedSightings

    return WatchedSightings(sightings, watch)


def delivery(
    site: Site, settings: Any, clock: Any, journal: Any, on_client: Any, store: Any, metrics: Any
) -> Any:
    from infrastructure.telemetry import sinks

    alerts = settings.monitoring.performance.alerts
    found = []
    if alerts.webhook_url:
        found.append(sinks.Sink("webhook", sinks.webhook(alerts.webhook_url)))
    if alerts.sns_topic_arn:
        region = alerts.sns_topic_arn.split(":")[3]

        def connect() -> Any:
            from infrastructure.aws.client import Connection

            there = settings.provider.aws.model_copy(update={"region": region})
            return Connection(there, clock, journal, on_client)

        found.append(sinks.Sink("sns", sinks.sns(alerts.sns_topic_arn, connect)))
    if alerts.command:
        found.append(sinks.Sink("command", sinks.command(alerts.command)))
    facts = {
        "provider": site.provider,
        "deployment": store.deployment,
        "host": os.uname().nodename,
    }
    return sinks.Delivery(found, clock, journal, metrics, facts)


def monitoring(
    metrics: Any,
    site: Site,
    process: str,
    compiled: Any,
    settings: Any,
    clock: Any,
    journal: Any,
    storage: Any,
    store: Any,
    ledger: Any,
    leases: Any,
    delivery: Any,
) -> Any:
    """What collects a process's figures and raises alerts; None where the site wants none."""
    if metrics is None:
        return None
    from infrastructure.telemetry.monitoring import Monitoring

    return Monitoring(
        process,
        metrics,
        site.metrics_dir,
        compiled.settings,
        [f"{name}/{aws.region}" for name, aws in settings.provider.places().items()],
        clock,
        journal,
        lambda: storage.view_of(store),
        ledger,
        {lease.account: lease for lease in leases.values()} if process == "worker" else {},
        delivery,
    )


def policies(turns: Any, site: Site, sightings: Any, settings: Any) -> Any:
    from application.policies import Policies

    return Policies(turns, site.provider, sightings, settings.processing.worker_threads)
