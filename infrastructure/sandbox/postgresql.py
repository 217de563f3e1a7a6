"""A PostgreSQL server of one's own for a while: the system's programs on a directory of ours.

Programs are run as oneself; PostgreSQL refuses root, so that root runs them as `nobody`. No user is
made, and nothing is written outside directories of our own in /tmp and /var/tmp.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROLE = "hostledger"
PATIENCE = 60.0
"""Seconds that a server may take to start or to end."""

# TCP is open to every user of the machine, and this role may run programs.
_PASSWORD = secrets.token_hex(16)
LIBC = ctypes.CDLL(None)


def account() -> dict[str, Any]:
    """How subprocess is to run a program of PostgreSQL's."""
    where = {"cwd": "/", "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}}
    if os.geteuid() != 0:
        return where
    nobody = pwd.getpwnam("nobody")
    return where | {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def give(directory: Path) -> None:
    """Make a directory of ours, and all in it, the account's that PostgreSQL runs as. Programs are
    the system's, as PATH says."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        owner = f"{nobody.pw_uid}:{nobody.pw_gid}"
        subprocess.run(["chown", "-R", owner, directory], check=True)  # nosec B607


# Made there by mkdtemp, of a name that nobody can know before.
SHORT, ON_DISK = "/tmp", "/var/tmp"  # nosec B108
PREFIX = "hostledger-pg-"
"""Of the directories' names; the pid of their process follows."""


def new_directory(parent: str = SHORT) -> Path:
    """One that is removed when this process ends, and short: a socket's path has 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    give(directory)
    return directory


def system_binaries() -> Path | None:
    """The directory of the system's `postgres` and `initdb`, of the newest; None without any."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("[0-9]*/bin"),
        key=lambda path: float(path.parent.name),
        reverse=True,
    )
    for directory in [*debian, *map(Path, os.get_exec_path())]:
        if runs(directory / "postgres") and runs(directory / "initdb"):
            return directory
    return None


def runs(program: Path) -> bool:
    """Whether it is there for the account that is to run it."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, **account())
    except OSError:
        return False
    return done.returncode == 0


@functools.cache
def cluster(programs: Path) -> Path:
    """A data directory as initdb leaves it; servers start from copies, which takes a tenth."""
    directory = new_directory()
    (directory / "password").write_text(_PASSWORD)
    give(directory)
    subprocess.run(
        [
            programs / "initdb",
            f"--pgdata={directory}/data",
            f"--username={ROLE}",
            f"--pwfile={directory}/password",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        **account(),
    )
    return directory / "data"


class Server:
    """A server on a Unix socket and on a port of 127.0.0.1, which stay the same over restarts. Its
    files are at `place`: when none is given in /var/tmp, or in /tmp without `fsync`."""

    def __init__(self, programs: Path, fsync: bool, place: str = "") -> None:
        self.programs = programs
        # /tmp may be memory, where fsync shows nothing.
        self.directory = new_directory(place or (ON_DISK if fsync else SHORT))
        self.port = _free_port()
        self.fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"test_{number}" for number in itertools.count(1))
        data = cluster(programs)
        copied = ["cp", "-R", str(data), str(self.directory)]
        subprocess.run(copied, check=True, **account())

    @property
    def pid(self) -> int:
        """Of the postmaster: the parent of the processes that serve."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Until it takes connections; RuntimeError with its log when it does not."""
        if self._process is not None:
            raise RuntimeError("the server is running already")
        durable = "on" if self.fsync else "off"
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "max_connections": 100,
            "shared_buffers": "32MB",
            "fsync": durable,
            "full_page_writes": durable,
            # What is not to be measured may be in memory, and be small there.
            "max_wal_size": "1GB" if self.fsync else "64MB",
            # In the data directory, so that nothing is left in /dev/shm by a server that is killed.
            "dynamic_shared_memory_type": "mmap",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log = self.directory / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A Ctrl-C is pytest's, which then ends the server.
                start_new_session=True,
                preexec_fn=_end_with_parent,
                **account(),
            )
        if not within_patience(lambda: self._ready() or self._has_ended()) or self._has_ended():
            said = log.read_text(errors="replace")
            self.close()
            raise RuntimeError(f"PostgreSQL did not start; its log:\n{said}")

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _ready(self) -> bool:
        """As pg_ctl looks: the first line is the pid, the eighth the state."""
        try:
            lines = (self.directory / "data/postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def stop(self) -> None:
        """As `pg_ctl stop` does: connections are ended, what is committed is written."""
        os.kill(self.pid, signal.SIGINT)
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait(PATIENCE)
        self._process = None

    def close(self) -> None:
        """End it at once and remove what it kept; may be called again."""
        if not self._has_ended():
            os.kill(self.pid, signal.SIGQUIT)
            self._wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, name: str, *, tcp: bool = False) -> str:
        """Of a database, over the Unix socket or over TCP, which asks for a password."""
        if tcp:
            return f"postgresql://{ROLE}:{_PASSWORD}@127.0.0.1:{self.port}/{name}"
        return f"postgresql://{ROLE}@/{name}?host={self.directory}&port={self.port}"

    def database(self, *, tcp: bool = False) -> str:
        """The URL of a new and empty one. It goes with the server: to drop it takes four times as
        long as to make it."""
        import psycopg2  # not for tests that need no server

        name = next(self._names)
        with closing(psycopg2.connect(self.url("postgres"))) as connection:
            connection.autocommit = True  # PostgreSQL makes no database in a transaction
            connection.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name, tcp=tcp)


def _end_with_parent() -> None:
    """In the child: an immediate shutdown when its parent dies."""
    LIBC.prctl(1, signal.SIGQUIT, 0, 0, 0)  # PR_SET_PDEATHSIG; linux/prctl.h


def _free_port() -> int:
    """Below those that the kernel gives to clients, so that none takes it during a restart."""
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def within_patience(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


S = TypeVar("S", bound=Server)


@contextmanager
def start_server(programs: Path, *, fsync: bool, kind: type[S]) -> Iterator[S]:
    """A running server of a kind; `fsync`: it waits for its disk, and writes full pages.

    It must be entered by a thread that lives as long as the server: the kernel ends the server with
    that thread, so that it does not outlive a process that is killed. Raises RuntimeError when it
    does not start.
    """
    running = kind(programs, fsync)
    atexit.register(running.close)
    try:
        running.start()
        yield running
    finally:
        running.close()
        atexit.unregister(running.close)
