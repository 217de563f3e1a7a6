"""Fixtures that many tests share, and the settings of hypothesis."""

from __future__ import annotations

import copy
import functools
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from botocore.client import ClientCreator
from botocore.hooks import EventAliaser, HierarchicalEmitter
from botocore.loaders import JSONFileLoader, Loader
from hypothesis import HealthCheck, settings

from infrastructure.event_store import dynamodb_http
from infrastructure.sandbox.dynamodb import DynamoDb
from tests.postgresql import Server, server
from tests.stores import SERVED, Place, serving
from tests.world import World

# Deterministic: the same examples in each run, and no deadline that a busy machine could miss.
settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")

for _name in list(os.environ):
    if _name == "HOSTLEDGER_TEST_POSTGRESQL":
        continue
    if _name.startswith(("HF_", "PRO_", "HOSTLEDGER_", "AWS_", "PG")):
        del os.environ[_name]
# Nobody checks them in the sandbox, and without them boto3 would look for a metadata service.
os.environ["AWS_ACCESS_KEY_ID"] = "sandbox"
os.environ["AWS_SECRET_ACCESS_KEY"] = "sandbox"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

_read_file = JSONFileLoader().load_file


class _ReadOnce:
    """AWS's models, two megabytes for each session of boto3, from disk once a process."""

    exists = JSONFileLoader().exists
    load_file = staticmethod(functools.cache(_read_file))


Loader.FILE_LOADER_CLASS = _ReadOnce  # type: ignore[assignment]


def _once(owner: type, name: str) -> None:
    """Have a method of botocore's, whose first argument decides, do its work once a process."""
    make = getattr(owner, name)
    made: dict[str, Any] = {}

    def once(self: Any, service: Any, *others: Any, **named: Any) -> Any:
        key = service if isinstance(service, str) else service.service_name
        if key not in made:
            made[key] = make(self, service, *others, **named)
        return copy.copy(made[key]) if isinstance(made[key], dict | list) else made[key]

    setattr(owner, name, once)


# EC2's model has eight hundred operations, and each test makes clients.
_once(ClientCreator, "_load_service_model")
_once(ClientCreator, "_create_methods")
_once(Loader, "list_available_services")
# What the name of an event stands for: asked a dozen times a call, of each client anew.
_alias = functools.cache(EventAliaser(HierarchicalEmitter())._alias_event_name)
EventAliaser._alias_event_name = staticmethod(_alias)  # type: ignore[method-assign]


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """Which of STORES the test's sites keep their ledger in: each in turn for a module that says
    EVERY_STORE."""
    kind: str = getattr(request, "param", "sqlite")
    return kind


@pytest.fixture(scope="session")
def new_place() -> Iterator[Callable[[str], Place]]:
    """Gives the place of a store of this kind that is not there yet; what serves stores is started
    when it is first asked for."""
    with ExitStack() as stack:
        served: dict[str, Callable[[], Place]] = {}

        def place(kind: str) -> Place:
            if kind not in served:
                served[kind] = serving(kind, stack)
            return served[kind]()

        yield place


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = getattr(metafunc.module, "EVERY_STORE", ())
    if every and "store_kind" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("stores")
        kinds = only.args if only else every
        metafunc.parametrize("store_kind", kinds, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is asked of every store is asked of every way to launch on SQLite alone."""

    def is_wanted(item: pytest.Item) -> bool:
        given = getattr(item, "callspec", None)
        values = given.params if given else {}
        other_store = values.get("store_kind", "sqlite") != "sqlite"
        return not (other_store and values.get("way", "RunInstances") != "RunInstances")

    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    items[:] = [item for item in items if is_wanted(item)]


def pytest_collection_finish() -> None:
    """What was collected lives until the end: the collector need not look at it again and again,
    nor a forked process copy it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How often the races of `tests/contracts` were really met."""
    told = [
        value
        for report in terminalreporter.stats.get("passed", ())
        for name, value in getattr(report, "user_properties", ())
        if name == "race" and report.when == "call"
    ]
    if told:
        terminalreporter.section("races met")
        for line in sorted(told):
            terminalreporter.write_line(line)


@pytest.fixture
def make_world(
    tmp_path: Path, store_kind: str, new_place: Callable[[str], Place]
) -> Iterator[Callable[..., World]]:
    """Builds sites in one process; their workers are ended with the test. In memory where that can
    be had: nothing here survives this process, so that waiting for a disk would show nothing."""
    worlds: list[World] = []
    memory = "/dev/shm"
    root = Path(tempfile.mkdtemp(dir=memory)) if os.access(memory, os.W_OK) else tmp_path
    if store_kind == "dynamodb":
        # Without a network, which costs more than all else these sites do.
        tables = DynamoDb()
        dynamodb_http.in_process = tables.exchange

    def make(**options: Any) -> World:
        options.setdefault("place", new_place(store_kind))
        if store_kind in SERVED:
            options.setdefault("new_place", lambda: new_place(store_kind))
        world = World(root / f"site-{len(worlds)}", **options)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()
    dynamodb_http.in_process = None
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A site whose machines boot in 20 s and end in 15 s."""
    return make_world(boot_time=20.0, shutdown_time=15.0)


@pytest.fixture
def way_world(make_world: Callable[..., World], way: str) -> World:
    """The same, of a site that launches one way."""
    return make_world(way=way, boot_time=20.0, shutdown_time=15.0)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server that the tests of one process share; a test that stops one starts its own."""
    with server() as running:
        yield running


@pytest.fixture
def database_url(postgresql: Server) -> str:
    """Of a new and empty PostgreSQL database."""
    return postgresql.database()
