"""A site in a cloud and a time of its own, over a store that is thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dependency_injector import providers

from application.failures import NotInstalled
from application.version import VERSION
from infrastructure.site import Site
from interfaces.write_side import parts
from interfaces.write_side.stores import make_state_directory


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
    from infrastructure.settings import Settings
    from infrastructure.settings.storage import Storage
    from infrastructure.settings.telemetry import Monitoring, PerformanceMonitoring
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
