"""The container of what writes: its parts, and of which others each is made.

Tests override `clock` and `on_client`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dependency_injector import providers

from application.failures import (
    BrokenConfiguration,
    NotInstalled,
    StoreBusy,
    StoreError,
    StoreInert,
)
from application.threads import in_threads
from application.version import VERSION
from infrastructure.clock import SystemClock
from infrastructure.site import Site, site_from
from interfaces.components import ALIASES, Component, Container
from interfaces.loading import is_wanted, loads
from interfaces.write_side import parts

__all__ = ["Site", "WriteSide", "check_start", "site_from", "tell_failed_start"]


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

    def is_cached(self) -> bool:
        return bool(_lazy_loading(self)["cache_instances"])


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


def _lazy_loading(side: WriteSide) -> Any:
    return side.compiled().settings["performance"]["lazy_loading"]


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
    lazy = _lazy_loading(side)
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


REPLAYED = 10_000
"""Events that a replay takes over in one commit."""


def check_start(side: WriteSide) -> None:
    """Find out at the start what would fail later. Raises StoreError, CallFailed,
    BrokenConfiguration."""
    side.storage().check()
    store = side.store()
    share(side)
    clouds = side.clouds()
    lazy = _lazy_loading(side)
    if lazy["connection_mode"] == "eager":

        def check(cloud: Any) -> None:
            with loads.loading(f"connection to {cloud.account} in {cloud.region}"):
                cloud.check(store.deployment)

        in_threads(lazy["max_concurrent_loads"], check, list(clouds.values()))


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


def create(side: WriteSide) -> tuple[str, str]:
    """Make the instance's store; its deployment id and path. Raises StoreError."""
    site, storage = side.site(), side.storage()
    make_state_directory(site)
    made_by = site.actor(side.process())
    deployment = storage.create(side.clock(), made_by, side.program_version())
    share(side)
    return deployment, storage.name


def share(side: WriteSide) -> None:
    """Let the site's group read its store's files. Raises StoreError, BrokenConfiguration."""
    group = side.compiled().settings["storage"]["group"]
    if group:
        from infrastructure.sharing import share

        share(group, *side.storage().shared())


def activate(side: WriteSide, reason: str) -> tuple[int, str]:
    """Make a copied store the living one; its new incarnation and path. Raises StoreError."""
    storage = side.storage()
    made_by = side.site().actor(side.process())
    incarnation = storage.activate(side.clock(), made_by, reason)
    share(side)
    return incarnation, storage.name


def copy_to(
    side: WriteSide,
    origin: str | None,
    destination: str,
    progress: Any,
    archives: Sequence[str] = (),
    *,
    live: Any = None,
) -> dict[str, Any]:
    """Copy a store, the instance's own or the one at `origin`, to the place `destination`, which
    stays inert. `live` is the reason for which the history goes on there from now on: the source is
    ended and the target activated. What is in `archives` is put back. Raises StoreError,
    BrokenConfiguration.
    """
    from contextlib import closing

    from application.copy_store import copy_store, move_store
    from infrastructure.event_store.archives import give
    from infrastructure.storage import storage_at

    site, settings, clock = side.site(), side.compiled().settings, side.clock()
    made_by = site.actor(side.process())
    source = storage_at(site, origin, settings) if origin else side.storage()
    target = storage_at(site, destination, settings)
    with closing(source.source()) as view:
        deployment, _, moved_to = view.identity()
        give(view, archives)
        if view.inert and not moved_to and live is not None:
            raise StoreInert(f"{view.inert}; a copy cannot be moved, only copied")
        with closing(target.begin_copy(deployment, clock, made_by)) as into:
            if live is None:
                copied = copy_store(view, into, progress)
            else:
                copied = move_store(
                    view,
                    into,
                    lambda: source.seal(clock, made_by, target.place, live),
                    progress,
                )
    document = {
        "source": source.place,
        "target": target.place,
        "found": copied.found,
        "taken": copied.taken,
        "position": copied.position,
        "chain": copied.chain,
        "incarnation": None,
    }
    if live is not None:
        document["incarnation"] = target.activate(clock, made_by, live)
        with closing(target.event_store(clock, made_by)) as store:
            leases = parts.leases(
                target, store, side.settings(), clock, target.site, side.process(),
                side.program_version(),
            )  # fmt: skip
            # Never given back: whoever follows waits until calls of the old worker have ended.
            for lease in leases.values():
                lease.acquire()
    return document


def replay_into(
    side: WriteSide, moment: str, destination: str, progress: Any, archives: Sequence[str] = ()
) -> dict[str, Any]:
    """Copy the log up to a moment (`application.replay.position_of`) to a place, which stays inert:
    the world as it was then. `archives` have what was archived. Raises StoreError,
    BrokenConfiguration."""
    from contextlib import closing

    from application.copy_store import copy_store
    from application.replay import position_of
    from infrastructure.event_store.archives import give
    from infrastructure.storage import storage_at

    site, clock = side.site(), side.clock()
    target = storage_at(site, destination, side.compiled().settings)
    with closing(side.storage().source()) as view:
        give(view, archives)
        until = position_of(view, moment)
        made_by = site.actor(side.process())
        with closing(target.begin_copy(view.identity()[0], clock, made_by)) as into:
            copied = copy_store(view, into, progress, REPLAYED, until)
    return {"target": target.place, "position": copied.position, "chain": copied.chain}


def backup(side: WriteSide, path: str) -> str:
    """Copy the instance's store to a new SQLite file, inert; its path. Raises StoreError."""
    storage = side.storage()
    storage.backup(path)
    return path


def restore(
    side: WriteSide, path: str, progress: Any, archives: Sequence[str] = ()
) -> dict[str, Any]:
    """Fill the instance's place, where no store may be, from a backup; it is inert. Raises
    StoreError."""
    make_state_directory(side.site())
    place = f"sqlite:{os.path.abspath(path)}"
    return copy_to(side, place, side.storage().place, progress, archives)


def rebuild(side: WriteSide, progress: Any, archives: Sequence[str] = ()) -> Any:
    """Build the store's read models anew and exchange them (`application.rebuilding.rebuild`); what
    is built lies in the state directory until it is done. `archives` have what was archived. Raises
    StoreError."""
    from contextlib import closing

    from application.rebuilding import rebuild
    from infrastructure.event_store.archives import give
    from infrastructure.read_models.replica import Replica, alone

    storage, store = side.storage(), side.store()
    path = f"{side.site().state_dir}/rebuild-{store.deployment}.db"
    make_state_directory(side.site())
    with alone(path):
        with closing(storage.log()) as view, closing(Replica(path, store.deployment)) as replica:
            if replica.failed():
                replica.begin()  # for code that was mended
            within = storage.view_of(store)
            for look in (view, within):
                give(look, archives)
            rebuilt = rebuild(view, store, within, replica, progress)
        os.unlink(path)
    return rebuilt


def renew_read_models(side: WriteSide, progress: Any) -> None:
    """Build the read models anew where another version of a projection made them: a release before
    or after this one. What cannot be built now is in the log; the rows that are there serve on.

    Raises StoreBusy, StoreInert, and what `progress` raises.
    """
    from application.rebuilding import is_outdated

    if not is_outdated(side.queries()):
        return
    files = [archive["file"] for archive in side.queries().archives_on_record()]
    try:
        rebuilt = rebuild(side, progress, [file for file in files if os.path.exists(file)])
    except (StoreBusy, StoreInert):
        raise
    except StoreError as error:
        side.journal().error("read models not rebuilt", message=str(error))
        return
    side.journal().info("read models rebuilt", position=rebuilt.position, rows=rebuilt.exchanged)
    for name, position, why in rebuilt.failed:
        side.journal().error("read model not rebuilt", name=name, position=position, error=why)


def import_log(side: WriteSide, path: str, progress: Any) -> dict[str, Any]:
    """Fill the instance's place, where no store may be, from the export of a whole log; it is
    inert. The file is read through before anything is made. Raises StoreError."""
    from contextlib import closing

    from application.copy_store import copy_store
    from infrastructure.event_store.export_file import ExportFile

    source, storage = ExportFile(path), side.storage()
    manifest = source.manifest
    if not manifest.whole:
        raise StoreError(
            f"{path} has a part of a log, {manifest.events} events from event {manifest.first} on: "
            "a store is made of the export of a whole log (`hostledger audit export FILE`)"
        )
    source.check()
    make_state_directory(side.site())
    made_by = side.site().actor(side.process())
    with closing(storage.begin_copy(manifest.deployment, side.clock(), made_by)) as into:
        copied = copy_store(source, into, progress)
    return {
        "path": path,
        "target": storage.place,
        "found": copied.found,
        "taken": copied.taken,
        "position": copied.position,
        "chain": copied.chain,
    }


def archive(side: WriteSide, path: str, before: str, reason: str, progress: Any) -> dict[str, Any]:
    """Move what was over at this time ("": as `retention.days` says) out of the store into a file.
    Raises StoreError, BrokenConfiguration."""
    from contextlib import closing
    from dataclasses import asdict

    from application.archive_store import ArchiveStore, archive_store
    from domain.identifiers import ARCHIVE, new_id
    from infrastructure.event_store import archives
    from infrastructure.event_store.commit import iso

    storage, retention = side.storage(), side.settings().retention
    if storage.keeps_all:
        raise StoreError(f"{storage.name}: {storage.keeps_all}")
    if not before and not retention.days:
        raise BrokenConfiguration("retention.days is 0, so that all is kept: set it, or --before")
    command = ArchiveStore(
        path,
        before or iso(side.clock().now()[0] - 86_400 * retention.days),
        retention.legal_hold,
        reason,
        new_id(ARCHIVE, side.random()(16)),
    )
    with closing(side.store()) as store, closing(storage.log()) as view:
        store.refuse_failed_projections()
        done = archive_store(command, view, store, archives, progress)
    return {**asdict(done), "before": command.before}


def compact(side: WriteSide) -> list[str]:
    """What was done to give unused room back. Raises StoreError."""
    return side.storage().compact()  # type: ignore[no-any-return]


def migrate(side: WriteSide) -> tuple[int, int]:
    """Bring the store's schema up to date: the number before and now. Raises StoreError."""
    share(side)
    return side.storage().migrate()  # type: ignore[no-any-return]


@contextmanager
def rehearsal(side: WriteSide) -> Iterator[WriteSide]:
    """Within: the same instance over a copy of its store, which is thrown away. Raises StoreError,
    OSError."""
    from tempfile import TemporaryDirectory

    from infrastructure.storage.sqlite import SqliteStorage

    site, compiled = side.site(), side.compiled()
    with TemporaryDirectory(prefix="hostledger-") as directory:
        copied = {"sqlite_strategy": {"path": side.storage().rehearse(directory)}}
        storage = SqliteStorage(copy.copy(site), copied)
        store = storage.event_store(side.clock(), site.actor(side.process()))
        try:
            yield WriteSide(
                site=site,
                environ=side.environ(),
                process=side.process(),
                compiled=compiled,
                clock=side.clock(),
                on_client=providers.Object(side.on_client()),
                random=providers.Object(side.random()),
                storage=providers.Object(storage),
                store=providers.Object(store),
            )
        finally:
            store.close()


class _Settings:
    """What a worker of a simulation follows in place of the site's files: settings that stay, and
    no templates file."""

    problem = ""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def templates(self) -> None:
        return None


@dataclass(frozen=True)
class Simulation:
    """A site in a cloud and in a time of its own. `overrides` wire a worker of it, `store` is open
    for commands beside that worker, `calls` counts AWS's by their names."""

    site: Site
    clock: Any
    storage: Any
    store: Any
    settings: Any
    overrides: dict[str, Any]
    random: Any
    calls: Any

    def work(self) -> Any:
        return parts.first(parts.works(self.storage, self.store, self.settings))


@contextmanager
def simulation(
    settings: dict[str, Any], provider: str, began: float, boot_time: float
) -> Iterator[Simulation]:
    """Within: a new and empty store in a temporary directory, and EC2's stand-in for AWS, under
    these settings but for where AWS and the store are. Nothing is sent anywhere, and no credentials
    are read. `began` is the time then, in seconds since the epoch, and machines boot in
    `boot_time`.

    Raises NotInstalled.
    """
    from collections import Counter
    from itertools import count
    from tempfile import TemporaryDirectory

    try:
        from infrastructure.sandbox.ec2 import Quotas, Sandbox
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"{error}: the simulated cloud is the extra `sandbox` "
            "(pip install 'hostledger[sandbox]')"
        ) from None
    from infrastructure.sandbox.simulation import SimulatedClock, simulated_places
    from infrastructure.settings import Monitoring, PerformanceMonitoring, Settings, Storage
    from infrastructure.storage import storage_of

    numbers = count(1)

    def random(size: int) -> bytes:
        """The same in each run."""
        return next(numbers).to_bytes(8, "big").rjust(size, b"\0")[:size]

    with TemporaryDirectory(prefix="hostledger-") as directory:
        site = Site(provider, directory, directory, "")
        make_state_directory(site)
        unmeasured = PerformanceMonitoring(enabled=False)
        places, keys = simulated_places(settings["provider"], f"{directory}/credentials")
        document = {
            **settings,
            "storage": Storage().model_dump(mode="json"),
            "worker": {**settings["worker"], "mode": "external"},
            "monitoring": Monitoring(performance=unmeasured).model_dump(mode="json"),
            "provider": {**settings["provider"], **places},
        }
        clock = SimulatedClock(began)
        sandbox = Sandbox(
            lambda: clock.wall,
            quotas=Quotas.aws(),
            boot_time=boot_time,
            shutdown_time=SHUTDOWN_TIME,
            accounts=keys,
        )
        storage = storage_of(site, document)
        storage.create(clock, site.actor("what-if"), VERSION)
        stores = [storage.event_store(clock, site.actor("what-if")) for _ in range(2)]
        for store in stores:
            store.connection.execute("PRAGMA synchronous = OFF")  # it is thrown away
        compiled = _Settings(document)
        overrides = {
            "compiled": providers.Object(compiled),
            "latest": providers.Object(compiled),
            "clock": providers.Object(clock),
            "random": providers.Object(random),
            "on_client": providers.Object(sandbox.attach),
            "storage": providers.Object(storage),
            "store": providers.Object(stores[0]),
        }
        try:
            yield Simulation(
                site,
                clock,
                storage,
                stores[1],
                Settings.model_validate(document),
                overrides,
                random,
                lambda: Counter(call.action for call in sandbox.calls),
            )
        finally:
            for store in stores:
                store.close()


SHUTDOWN_TIME = 30.0
"""Seconds that a machine of a simulation takes to end."""


def settings_of(site: Site, environ: Any, path: str) -> tuple[dict[str, Any], list[str]]:
    """The settings that another configuration file would give in place of the site's own, and what
    is doubtful about them. Raises BrokenConfiguration."""
    from infrastructure.compiled import sources
    from infrastructure.configuration import ConfigurationProblem, read_settings

    (_, ibm, _), _ = sources(site, environ)
    try:
        settings, warnings = read_settings(path, ibm, environ)
    except ConfigurationProblem as problem:
        raise BrokenConfiguration(str(problem)) from None
    return settings.model_dump(mode="json"), warnings


def learn_types(side: WriteSide, names: list[str]) -> Any:
    """Ask AWS about instance types, by the first account, and keep what it says: `facts`, `changed`
    and `unknown`.

    Raises CallFailed, OSError.
    """
    from infrastructure.templates.instance_types import learn_types, types_file

    describe = parts.first(side.clouds()).instance_types
    return learn_types(types_file(side.site().state_dir), names, describe)


def make_state_directory(site: Site) -> None:
    """The place of an instance's compiled configuration, sightings and worker, mode 0700."""
    os.makedirs(site.state_dir, mode=0o700, exist_ok=True)


def tell_failed_start(site: Site, reason: str) -> None:
    """Leave the reason for the scripts, who tell it and wait before they try again."""
    from infrastructure import worker_start

    now = SystemClock().now()
    facts = worker_start.status(site)
    failures = max(1, int(facts.get("failures", 0)))
    facts.update(boot_id=now[1], tried=now[2], failures=failures, reason=reason)
    worker_start.write_status(site, facts)


def sandbox_process(**options: Any) -> Any:
    """EC2's stand-in as a process of its own on loopback; a context manager with `url`.

    Raises ModuleNotFoundError where the extra `sandbox` is not installed.
    """
    import importlib

    importlib.import_module("moto")
    from infrastructure.sandbox.server import start_process

    return start_process(**options)


def dynamodb_process() -> Any:
    """DynamoDB's stand-in as a process of its own on loopback; a context manager with `url`. It
    takes any credentials."""
    from infrastructure.sandbox.server import start_dynamodb

    return start_dynamodb()


@contextmanager
def postgresql_process() -> Iterator[Any]:
    """Within: a PostgreSQL server of the system's, on directories of its own, that waits for its
    disk; `database()` makes an empty database and gives its URL. Raises NotInstalled."""
    from infrastructure.sandbox.postgresql import Server, start_server, system_binaries

    programs = system_binaries()
    if programs is None:
        raise NotInstalled(
            "no PostgreSQL server is installed here (postgres, initdb): install one, or name an "
            "empty database (--store postgresql://USER@HOST/NAME)"
        )
    try:
        with start_server(programs, fsync=True, kind=Server) as running:
            yield running
    except RuntimeError as error:
        raise StoreError(str(error)) from None


def append_past(store: Any, commits: Any, at_once: int) -> None:
    """Append what is pending of aggregates, in the order of `commits` (correlation id and
    aggregates), about so many events in one append, and have the policies follow from behind it.
    Raises StoreError."""
    from application import assigning, returning
    from infrastructure.event_store.commit import to_record

    records: list[Any] = []
    causes: dict[str, tuple[str, str]] = {}
    for correlation_id, aggregates in commits:
        made = [(a.id, to_record(event)) for a in aggregates for event in a.collect_events()]
        if records and len(records) + len(made) > at_once:
            store.append(records, causes=causes)
            records, causes = [], {}
        records += [record for _, record in made]
        causes |= {stream: (correlation_id, "") for stream, _ in made}
    if records:
        store.append(records, causes=causes)
    position, _ = store.end()
    for policy in (assigning.POLICY, returning.POLICY):
        store.append([], tracking=(policy, position))
