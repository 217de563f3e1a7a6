"""Where a test keeps its store, and opening one as the product does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from application import crash_points
from infrastructure.read_models.sql import SqlReadModel
from infrastructure.settings.storage import Storage as StorageSettings
from infrastructure.site import Site
from infrastructure.storage import storage_of
from infrastructure.storage.sqlite import SqliteStorage

if TYPE_CHECKING:
    from infrastructure.storage import Storage

STORES = ("sqlite", "sql", "postgresql", "json", "dynamodb")
"""Every store that a site can choose, by a name for the tests."""

FOUR = tuple(kind for kind in STORES if kind != "sql")
"""Those that keep the log differently: `sql` is the file of `sqlite`."""

SERVED = ("postgresql", "dynamodb")
"""Those of them that a server keeps."""


def crash_points_of(kind: str, topic: str) -> tuple[str, ...]:
    """Where a commit of an event of this topic can be cut in two, in the order they are reached;
    nothing is recorded at those that end in `.before`."""
    between = [point.format(topic) for point in BETWEEN.get(kind, ())]
    return (f"commit.{topic}.before", *between, f"commit.{topic}.after")


@contextmanager
def at_crash_point(point: str, act: Callable[[str], None]) -> Iterator[None]:
    """Within: what would be a crash at this point does something else; it is told the point."""
    before, crash_points.die = crash_points.die, act  # type: ignore[assignment]
    crash_points.crash_at(point)
    try:
        yield
    finally:
        crash_points.crash_at("")
        crash_points.die = before


BETWEEN: dict[str, tuple[str, ...]] = {"json": ("commit.{}.logged",)}
"""Store -> points between the event and its read rows, where that is not one write."""


@dataclass(frozen=True)
class Place:
    """A store that a site can be given: `kind` is one of STORES, `settings` its section `storage`
    as a configuration file says it."""

    kind: str
    settings: dict[str, Any]

    def variables(self) -> dict[str, str]:
        """The same as environment variables."""
        return dict(_variables("HOSTLEDGER_STORAGE", self.settings))

    def storage(self, work_dir: str) -> Storage:
        """Opened for an instance with this work directory."""
        site = Site("awsinst", "/", work_dir, "")
        settings = StorageSettings.model_validate(self.settings).model_dump(mode="json")
        return storage_of(site, {"storage": settings})


def serving(kind: str, stack: ExitStack, *, durable: bool = False) -> Callable[[], Place]:
    """Gives places of stores that are not there yet. What serves them is started now and ends with
    `stack`; `durable`: it waits for its disk."""
    if kind == "postgresql":
        from tests.postgresql import server

        running = stack.enter_context(server(fsync=durable))
        return lambda: Place(kind, {"url": running.database()})
    if kind == "dynamodb":
        from infrastructure.event_store import dynamodb_client
        from infrastructure.sandbox.server import start_dynamodb

        emulator = start_dynamodb()
        stack.callback(emulator.stop)
        # A process keeps its connections until it ends.
        stack.callback(lambda: [client.close() for client in dynamodb_client._clients.values()])

        def tables() -> Place:
            section = {
                "table_prefix": "test-" + os.urandom(4).hex(),
                "region": "us-east-1",
                "endpoint_url": emulator.url,
            }
            return Place(kind, {"strategy": kind, "dynamodb_strategy": section})

        return tables
    return lambda: Place(kind, {"strategy": kind})


def _variables(prefix: str, section: dict[str, Any]) -> Any:
    for key, value in section.items():
        name = f"{prefix}__{key.upper()}"
        if isinstance(value, dict):
            yield from _variables(name, value)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def look(path: str) -> SqlReadModel:
    """A HostFactory read's look at the SQLite store there."""
    site = Site("awsinst", "/", "/", "")
    return SqliteStorage(site, {"sqlite_strategy": {"path": path}}).read_model()
