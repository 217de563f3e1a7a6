"""A PostgreSQL server that refuses: what the scripts tell HostFactory, as real processes.

One message that names the store, the cause and what to do, exit 1, and nothing half written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from application.version import VERSION
from infrastructure.clock import SystemClock
from infrastructure.event_store.postgresql_driver import name_of
from tests.infrastructure.postgresql_stores import storage_at
from tests.postgresql import Server
from tests.processes import ProcessSite

REQUEST = {"template": {"templateId": "OnDemand-A", "machineCount": 2}}


@pytest.fixture
def url(postgresql: Server, database_url: str) -> str:
    """Of a database with a new store, over TCP and with a password."""
    storage_at(database_url).create(SystemClock(), {"user": "test"}, VERSION)
    return postgresql.url(urlsplit(database_url).path.strip("/"), tcp=True)


@contextmanager
def all_connections(url: str) -> Iterator[None]:
    """Within: the server takes nobody else."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(closing(psycopg2.connect(url)))
            except psycopg2.OperationalError:
                break
        yield


def events(url: str) -> Any:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM requests)")
        return cursor.fetchone()


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Within: as a hot standby has it, new sessions may not write."""
    database = urlsplit(url).path.strip("/")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        yield
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")


@contextmanager
def as_it_is(url: str) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("trouble", "spoil", "cause", "next_step"),
    [
        (all_connections, "", "too many clients already", "max_connections"),
        (as_it_is, "wrong", "password authentication failed", "~/.pgpass"),
        (read_only, "", "read-only transaction", "name the primary"),
    ],
    ids=["too many connections", "wrong password", "read-only"],
)
def test_a_server_that_refuses(
    url: str,
    tmp_path: Path,
    trouble: Callable[[str], Any],
    spoil: str,
    cause: str,
    next_step: str,
) -> None:
    password = urlsplit(url).password or ""
    assert password
    used = url.replace(password, spoil) if spoil else url
    site = ProcessSite(
        tmp_path,
        settings={"HOSTLEDGER_WORKER__MODE": "external", "HOSTLEDGER_STORAGE__URL": used},
        store=False,
    )
    site.state.mkdir(mode=0o700)
    before = events(url)
    with trouble(url):
        answer = site.call("requestMachines", REQUEST)
    message = answer.failure()
    assert name_of(used) in message and cause in message and next_step in message
    assert message.count(cause) == 1
    assert password not in message + answer.errors and "\n" not in message
    assert events(url) == before
    if not spoil:
        assert site.request(1)
