"""The store's file: how it is made, opened and refused, copied and moved, and when nothing can be
written to it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from application.failures import StoreError, StoreInert, StoreMissing, StoreNewer
from domain.deployment import Deployment
from domain.machine_request import MachineRequest
from infrastructure.event_store import schema
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import open_for_reading, sqlite
from infrastructure.event_store.sqlite_setup import (
    NETWORK_FILE_SYSTEMS,
    activate_store,
    begin_copy,
    create_store,
    refuse_network_file_system,
)
from tests.domain.samples import OTHER, REQUEST
from tests.fakes.clock import FakeClock
from tests.stores import look

ACTOR = {"user": "test"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "hostledger" / "ledger.db")
    create_store(path, FakeClock(), ACTOR, "0.1.0")
    return path


Open = Callable[[str], SqliteEventStore]


@pytest.fixture
def open_store() -> Iterator[Open]:
    stores = []

    def make(path: str) -> SqliteEventStore:
        stores.append(SqliteEventStore(path, FakeClock(), ACTOR))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def ask(request_id: str = REQUEST) -> MachineRequest:
    return MachineRequest.ask(request_id, "awsinst", "T", "4f53", 3, 300.0, "operator")


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# -- made ------------------------------------------------------------------------------------------


def test_only_the_user_can_read_it(path: str, open_store: Open) -> None:
    """Directory 0700; the file and all that SQLite and we put beside it 0600."""
    open_store(path).save(ask())
    place = os.path.dirname(path)
    assert mode(place) == 0o700
    names = sorted(os.listdir(place))
    assert names == ["ledger.db", "ledger.db-shm", "ledger.db-wal", "ledger.db.lock"]
    assert {mode(os.path.join(place, name)) for name in names} == {0o600}


def test_every_commit_is_on_disk_before_it_is_told(path: str, open_store: Open) -> None:
    """Write-ahead log, and synchronous FULL (2) on the connection that writes."""
    connection = open_store(path).connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_store_is_made_once(path: str) -> None:
    """A second one is refused by path, and the first is untouched; no unfinished file stays."""
    before = Path(path).read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        create_store(path, FakeClock(), ACTOR, "0.1.0")
    assert Path(path).read_bytes() == before
    assert os.listdir(os.path.dirname(path)) == ["ledger.db"]


def test_no_store_is_made_beside_the_commits_of_another(path: str, open_store: Open) -> None:
    """Its file was moved away without its -wal, which has its newest commits: none is lost, and the
    new one does not take them for its own."""
    store = open_store(path)
    store.save(ask(REQUEST))
    events = store.connection.execute("SELECT count(*) FROM events").fetchone()
    commits = Path(path + "-wal").read_bytes()
    assert commits
    os.rename(path, path + ".old")

    for make in (create_store, begin_copy):
        arguments = (
            (FakeClock(), ACTOR, "0.1.0") if make is create_store else ("d", FakeClock(), ACTOR)
        )
        with pytest.raises(StoreError, match="-wal holds the newest commits"):
            make(path, *arguments)
    assert not os.path.exists(path)
    assert Path(path + "-wal").read_bytes() == commits
    assert store.connection.execute("SELECT count(*) FROM events").fetchone() == events


def test_each_store_is_a_deployment_of_its_own(path: str, open_store: Open, tmp_path: Path) -> None:
    """128 random bits, the same in the log's first event and beside it."""
    other = str(tmp_path / "other" / "ledger.db")
    deployment = create_store(other, FakeClock(), ACTOR, "0.1.0")
    store = open_store(other)
    first = store.get(Deployment, "")
    assert first is not None
    assert store.deployment == deployment == first.deployment
    assert (store.incarnation, first.incarnation) == (1, 1)
    assert len(deployment) == 32
    assert open_store(path).deployment != deployment


# -- refused ---------------------------------------------------------------------------------------


def refused(path: str, error: type[StoreError]) -> str:
    """What reading and writing both say, when they say the same."""
    with pytest.raises(error) as reading:
        open_for_reading(path)
    with pytest.raises(error) as writing:
        SqliteEventStore(path, FakeClock(), ACTOR)
    assert str(reading.value) == str(writing.value)
    return str(writing.value)


def test_a_missing_store_is_not_made(tmp_path: Path) -> None:
    """An unmounted directory must not become an empty ledger: the path and the command are named,
    and nothing appears."""
    said = refused(str(tmp_path / "ledger.db"), StoreMissing)
    assert str(tmp_path / "ledger.db") in said
    assert "hostledger store init" in said
    assert os.listdir(tmp_path) == []


def test_an_uninitialised_file_is_refused(tmp_path: Path) -> None:
    """An empty file is no ledger."""
    path = tmp_path / "ledger.db"
    path.touch()
    assert "is not initialised" in refused(str(path), StoreMissing)
    assert path.read_bytes() == b""


def test_a_newer_schema_is_refused(path: str) -> None:
    """Both versions are named, and what to run instead."""
    connection = sqlite.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    said = refused(path, StoreNewer)
    assert "schema 99" in said
    assert "release that wrote it" in said


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    """Named, not traced."""
    with pytest.raises(StoreError, match=str(tmp_path)):
        open_for_reading(str(tmp_path))
    with pytest.raises(StoreError, match=str(tmp_path)):
        SqliteEventStore(str(tmp_path), FakeClock(), ACTOR)


@pytest.mark.parametrize("kind", sorted(NETWORK_FILE_SYSTEMS))
def test_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    """The file system, where it is mounted and the ways out are named."""
    mounts = tmp_path / "mounts"
    place = str(tmp_path / "share one").replace(" ", "\\040")
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {place} {kind} rw 0 0\n")
    path = str(tmp_path / "share one" / "deep" / "ledger.db")
    with pytest.raises(StoreError) as caught:
        refuse_network_file_system(path, str(mounts))
    for part in (path, kind, "storage.sqlite_strategy.path", "local file"):
        assert part in str(caught.value)
    refuse_network_file_system(str(tmp_path / "share" / "ledger.db"), str(mounts))


def test_the_nearest_mount_counts(tmp_path: Path) -> None:
    """A local disk mounted inside a share is local; a later mount on the same place wins; without
    a mounts file nothing is refused."""
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"s:/x {tmp_path}/a nfs4 rw 0 0\n"
        f"/dev/b {tmp_path}/a/local ext4 rw 0 0\n"
        f"/dev/c {tmp_path}/b ext4 rw 0 0\n"
        f"/dev/d {tmp_path} ext4 rw 0 0\n"
        f"s:/y {tmp_path}/b nfs rw 0 0\n"
    )
    refuse_network_file_system(f"{tmp_path}/a/local/ledger.db", str(mounts))
    for place in ("a", "b"):
        with pytest.raises(StoreError):
            refuse_network_file_system(f"{tmp_path}/{place}/ledger.db", str(mounts))
    refuse_network_file_system(f"{tmp_path}/a/ledger.db", str(tmp_path / "none"))


# -- copied, moved, activated ----------------------------------------------------------------------


def test_a_copy_is_inert(path: str, open_store: Open, tmp_path: Path) -> None:
    """It answers nothing and takes nothing, until it is activated: the message says so. The
    original goes on."""
    open_store(path).save(ask())
    open_store(path).connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = str(tmp_path / "copy.db")
    shutil.copy2(path, copy)
    said = refused(copy, StoreInert)
    assert copy in said
    assert "hostledger store activate" in said
    with pytest.raises(StoreInert):
        look(copy)
    open_store(path).save(ask(OTHER))


def test_an_activated_copy_lives(path: str, open_store: Open, tmp_path: Path) -> None:
    """The same deployment, the next incarnation, in the log with its reason; the history is
    there; what the original's worker had noted of AWS is not."""
    store = open_store(path)
    store.save(ask())
    for table in schema.NOTEBOOK_TABLES:
        if table != "leases":
            columns = store.connection.execute(f"PRAGMA table_info({table})").fetchall()
            store.connection.execute(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})",
                ["1"] * len(columns),
            )
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = str(tmp_path / "copy.db")
    shutil.copy2(path, copy)

    assert activate_store(copy, FakeClock(), ACTOR, "the disk died") == 2

    living = open_store(copy)
    assert (living.deployment, living.incarnation) == (store.deployment, 2)
    assert living.get(MachineRequest, REQUEST) is not None
    deployment = living.get(Deployment, "")
    assert deployment is not None
    assert deployment.incarnation == 2
    assert living.connection.execute(
        "SELECT topic, json_extract(data, '$.reason') FROM events ORDER BY position DESC LIMIT 1"
    ).fetchone() == ("StoreActivated", "the disk died")
    for table in schema.NOTEBOOK_TABLES:
        assert living.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    living.save(ask(OTHER))
    look(copy).connection.close()
    assert activate_store(copy, FakeClock(), ACTOR, "again") == 3


def test_a_moved_file_is_the_store(path: str, open_store: Open, tmp_path: Path) -> None:
    """Host names and paths may change: what counts is the inode."""
    moved = str(tmp_path / "elsewhere ?#%.db")
    os.rename(path, moved)
    store = open_store(moved)
    store.save(ask())
    assert look(moved).request(REQUEST) is not None


def test_a_store_without_its_deployment_is_not_activated(tmp_path: Path, path: str) -> None:
    """A damaged log is not brought to life."""
    connection = sqlite.connect(path)
    connection.execute("DELETE FROM events")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="does not begin with a deployment"):
        activate_store(path, FakeClock(), ACTOR, "x")


# -- reading ---------------------------------------------------------------------------------------


def test_reading_makes_no_table_and_writes_nothing(path: str) -> None:
    """The schema and every byte of the file are as before, and the connection cannot write."""
    before = Path(path).read_bytes()
    model = look(path)
    assert model.request(REQUEST) is None
    model.again()
    with pytest.raises(sqlite.OperationalError, match="readonly"):
        model.connection.execute("CREATE TABLE t (x)")
    model.connection.close()
    assert Path(path).read_bytes() == before


def test_a_look_is_one_moment(path: str, open_store: Open) -> None:
    """What is committed meanwhile is seen in the next look."""
    store = open_store(path)
    model = look(path)
    store.save(ask())
    assert model.request(REQUEST) is None
    model.again()
    assert model.request(REQUEST) is not None
    model.connection.close()


# -- nothing can be written ------------------------------------------------------------------------

CHILD = """
import ctypes, json, os, sys

def drop_capabilities():
    "File modes count again, for root too."
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0

def fill(place):
    "No byte more goes onto this disk, or into any file where the disk is a large one."
    if os.path.ismount(place):
        with open(place + "/filler", "ab", 0) as file:
            size = 1 << 16
            while size:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2
    else:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

from application.failures import StoreError
from infrastructure.event_store.sqlite import SqliteEventStore
from tests.stores import look
from domain.machine_request import MachineRequest
from tests.fakes.clock import FakeClock

path, answers = sys.argv[1], []

def read():
    try:
        model = look(path)
    except StoreError as error:
        answers.append(f"{type(error).__name__}: {error}")
    else:
        found = model.connection.execute("SELECT request_id FROM requests").fetchall()
        answers.append([row[0] for row in found])
        model.connection.close()

def write(identifier):
    request = MachineRequest.ask(identifier, "awsinst", "T", "4f53", 3, 300.0, "operator")
    try:
        store = SqliteEventStore(path, FakeClock(), {})
        try:
            store.save(request)
        finally:
            store.close()
    except StoreError as error:
        answers.append(f"{type(error).__name__}: {error}")
    else:
        answers.append("recorded")
"""


def in_child(path: str, steps: str) -> list[Any]:
    """What a process of its own answers that takes these steps."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + steps + "\nos.write(1, json.dumps(answers).encode())", path],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
    )
    answers: list[Any] = json.loads(done.stdout)
    return answers


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB where we may mount one, else a directory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
            capture_output=True,
        ).returncode
        == 0
    )
    yield place
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_records_nothing_and_still_answers(small_disk: Path) -> None:
    """Commands say so; reads go on, although SQLite finds no room for its shared memory; with
    room again, commands do too."""
    path = str(small_disk / "ledger.db")
    create_store(path, FakeClock(), ACTOR, "0.1.0")
    read_before, full, read_full = in_child(
        path, f"write('{REQUEST}')\nfill('{small_disk}')\nwrite('{OTHER}')\nread()"
    )
    assert read_before == "recorded"
    assert full.startswith(f"StoreError: {path}: ")
    assert full.endswith("nothing was recorded")
    assert "full" in full or not small_disk.is_mount()
    assert read_full == [REQUEST]
    (small_disk / "filler").unlink(missing_ok=True)
    assert in_child(path, f"write('{OTHER}')\nread()") == ["recorded", [REQUEST, OTHER]]
    connection = open_for_reading(path)
    positions = connection.execute("SELECT position FROM events").fetchall()
    connection.close()
    assert positions == [(1,), (2,), (3,)]


def test_a_disk_that_fills_under_an_open_store(small_disk: Path) -> None:
    """The commit that finds no room is rolled back whole, on a connection that goes on."""
    path = str(small_disk / "ledger.db")
    create_store(path, FakeClock(), ACTOR, "0.1.0")
    steps = f"""
store = SqliteEventStore(path, FakeClock(), {{}})
fill({str(small_disk)!r})
many = [MachineRequest.ask(f"req-{{n}}", "awsinst", "T", "4f53", 3, 300.0, "x") for n in range(900)]
try:
    store.save(*many)
except StoreError as error:
    answers.append(str(error))
answers.append(store.connection.execute("SELECT max(position) FROM events").fetchone()[0])
answers.append(store.connection.in_transaction)
"""
    said, last, still_open = in_child(path, steps)
    assert "nothing was recorded" in said
    assert (last, still_open) == (1, False)


def test_a_read_only_directory_is_read(path: str, open_store: Open) -> None:
    """Nothing can be made beside the file: it is opened as immutable, and commands say why not."""
    open_store(path).save(ask())
    open_store(path).connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    place = os.path.dirname(path)
    for name in ("ledger.db-wal", "ledger.db-shm", "ledger.db.lock"):
        os.unlink(os.path.join(place, name))
    os.chmod(path, 0o400)
    os.chmod(place, 0o500)
    read, written = in_child(path, f"drop_capabilities()\nread()\nwrite('{OTHER}')")
    os.chmod(place, 0o700)
    assert read == [REQUEST]
    assert written.startswith("StoreError: ")
    assert path in written
    assert "Permission denied" in written


def test_a_read_only_directory_with_pending_commits_is_refused(path: str, open_store: Open) -> None:
    """A file opened as immutable would hide what only the -wal has: no answer instead."""
    store = open_store(path)
    store.save(ask())
    place = os.path.dirname(path)
    killed = os.path.join(os.path.dirname(place), "killed")
    os.mkdir(killed, 0o700)
    # As after a kill: the commits are in the -wal, and nobody has the file open.
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(os.path.join(place, name), os.path.join(killed, name))
    copy = os.path.join(killed, "ledger.db")
    os.chmod(killed, 0o500)
    (read,) = in_child(copy, "drop_capabilities()\nread()")
    os.chmod(killed, 0o700)
    assert read.startswith("StoreError: ")
    assert f"{copy}-wal holds commits" in read
