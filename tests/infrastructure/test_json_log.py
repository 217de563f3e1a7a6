"""The log of JSON lines: what a line is, what a crash may leave of one, and what is never lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.failures import Fenced, LogDamaged, StoreError, StoreInert
from application.projections.record import COLUMNS
from domain.machine_request import MachineRequest
from infrastructure.event_store.json_lines import JsonEventStore
from infrastructure.event_store.json_log import Reader, body_of, compose_line, text_of
from infrastructure.event_store.json_setup import create_json_store
from infrastructure.event_store.json_streams import path_of
from infrastructure.settings.storage import JsonStrategy
from tests.fakes.clock import FakeClock

ACTOR = {"user": "test"}
ROOT = Path(__file__).parents[2]
both = pytest.mark.parametrize("gz", [False, True], ids=["plain", "gzip"])


def settings(**given: Any) -> dict[str, Any]:
    return JsonStrategy(**given).model_dump()


def ask(name: str) -> MachineRequest:
    return MachineRequest.ask(f"req-{name}", "awsinst", "T", "4f53", 1, 300.0, "hostfactory")


class Place:
    """A directory with a store, and stores open on it."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.clock = FakeClock()
        self._open: list[JsonEventStore] = []

    def create(self, **given: Any) -> None:
        create_json_store(self.base, self.clock, ACTOR, settings(**given), "0.1.0")

    def open(self, *, given: dict[str, Any] | None = None, **parts: Any) -> JsonEventStore:
        store = JsonEventStore(self.base, self.clock, ACTOR, settings(**(given or {})), **parts)
        self._open.append(store)
        return store

    def close(self) -> None:
        for store in self._open:
            store.close()
        self._open = []

    def log(self, name: str = "log.jsonl") -> Path:
        return Path(self.base, name)

    def commits(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in Reader(self.base)]

    def streams(self) -> list[str]:
        return [event["stream"] for commit in self.commits() for event in commit["events"]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(str(tmp_path / "json"))
    yield place
    place.close()


# -- what a line is --------------------------------------------------------------------------------


def test_one_commit_is_one_line_of_json(place: Place) -> None:
    """With what it was asked with, nested for a person to read, and its checksum last."""
    place.create()
    store = place.open()
    store.save(ask("a"), ask("b"), correlation_id="cmd-1", command=("c-1", "req-a"))
    store.save(tracking=("policy", 3))

    lines = place.log().read_text().splitlines()
    created, asked, tracked = (json.loads(line) for line in lines)
    assert created["events"][0]["topic"] == "DeploymentCreated"
    assert asked["first"] == 2
    assert [event["stream"] for event in asked["events"]] == ["request-req-a", "request-req-b"]
    assert set(asked["events"][0]) == set(COLUMNS)
    assert asked["events"][0]["data"]["machine_count"] == 1
    assert asked["events"][0]["metadata"]["correlation_id"] == "cmd-1"
    assert asked["commands"] == [["c-1", "req-a", 3]]
    assert (tracked["events"], tracked["tracking"]) == ([], [["policy", 3]])
    assert all(list(json.loads(line))[-1] == "checksum" for line in lines)


def test_what_holds_no_event_is_no_line(place: Place) -> None:
    """The worker's notebook and lease leave none."""
    place.create()
    store = place.open()
    before = place.log().read_bytes()
    store.write("notebook", lambda: store.connection.execute("DELETE FROM sweeps"))
    assert place.log().read_bytes() == before


ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    ).map(json.dumps),
    st.sampled_from(['{"a":1,"a":2}', '{"a": 1}', '"text"', "1e999", "-0.0", "[1,\n2]", "NaN"]),
)


@given(metadata=ANY_TEXT, data=ANY_TEXT)
def test_every_text_comes_out_byte_for_byte(metadata: str, data: str) -> None:
    """Digests are of the bytes: whatever they are, canonical JSON or not."""
    row = (1, "e", "s", 1, "T", 1, "2026", metadata, data, "d" * 64, "c" * 64)
    line = compose_line([row], "2026", 1)
    assert line.count(b"\n") == 1
    body = body_of(line[:-1])
    assert body is not None
    (event,) = json.loads(body)["events"]
    assert (text_of(event["metadata"]), text_of(event["data"])) == (metadata, data)


def test_a_person_reads_the_compressed_log_with_zless(place: Place) -> None:
    """One gzip member a commit; gzip itself tells the same lines as without compression."""
    place.create(enable_compression=True)
    store = place.open(given={"enable_compression": True})
    for name in "abc":
        store.save(ask(name))
    told = subprocess.run(
        ["gzip", "-dc", place.log("log.jsonl.gz")], capture_output=True, check=True
    ).stdout
    assert [len(json.loads(line)["events"]) for line in told.splitlines()] == [1] * 4
    assert place.log("log.jsonl.gz").read_bytes().count(b"\x1f\x8b\x08") == 4
    assert not place.log().exists()


def test_switching_compression_loses_nothing(place: Place) -> None:
    """The next part of the log goes on where the one before ends, both ways."""
    place.create()
    for name, gz in (("a", True), ("b", True), ("c", False)):
        place.open(given={"enable_compression": gz}).save(ask(name))
    assert len(place.log().read_bytes().splitlines()) == 1
    assert len(gzip.decompress(place.log("log-2.jsonl.gz").read_bytes()).splitlines()) == 2
    assert len(place.log("log-3.jsonl").read_bytes().splitlines()) == 1
    place.close()
    Path(place.base, "ledger.db").unlink()
    place.open().save(ask("d"))
    assert place.streams() == ["deployment", *(f"request-req-{name}" for name in "abcd")]


def test_only_the_user_can_read_it(place: Place) -> None:
    """Directories 0700, files 0600, user data too."""
    place.create()
    place.open(given={"storage_type": "split_files"}).save(ask("a"), bodies={"ab12": b"secret"})
    assert stat.S_IMODE(os.stat(place.base).st_mode) == 0o700
    for directory, names, files in os.walk(place.base):
        for name in names:
            assert stat.S_IMODE(os.stat(f"{directory}/{name}").st_mode) == 0o700
        for name in files:
            assert stat.S_IMODE(os.stat(f"{directory}/{name}").st_mode) == 0o600
    assert b"secret" not in place.log().read_bytes()


# -- torn and damaged ------------------------------------------------------------------------------


@both
def test_a_torn_end_of_every_length_is_cut_off(place: Place, gz: bool) -> None:
    """Whatever a crash left of the last line: every commit before it is there, what was torn lies
    beside it and is reported, and the log goes on. With the ledger and without."""
    place.create(enable_compression=gz)
    given = {"enable_compression": gz}
    store = place.open(given=given)
    store.save(ask("a"))
    place.close()
    path = place.log("log.jsonl.gz" if gz else "log.jsonl")
    ledger = Path(place.base, "ledger.db")
    whole, kept = path.read_bytes(), ledger.read_bytes()
    lock = Path(place.base, "log.lock").read_bytes()
    place.open(given=given).save(ask("b"))
    place.close()
    end = path.read_bytes()[len(whole) :]
    step = 1 if gz else 7
    for cut in (*range(1, len(end) - 1, step), len(end) - 1):
        # A ledger is built anew of what the log has kept, which is the same for each length.
        for ledger_is_there in (True, False)[: 1 if cut % 7 != 1 else 2]:
            path.write_bytes(whole + end[:cut])
            Path(place.base, "log.lock").write_bytes(lock)
            for leftover in Path(place.base).glob("ledger.db*"):
                leftover.unlink()
            if ledger_is_there:
                ledger.write_bytes(kept)
            assert place.streams() == ["deployment", "request-req-a"]
            store = place.open(given=given)
            torn = Path(place.base, f"torn-1-{len(whole)}-{cut}.bin")
            assert torn.read_bytes() == end[:cut]
            assert [str(torn) in report for report in store.reports()] == [True]
            store.save(ask("c"))
            assert place.streams() == ["deployment", "request-req-a", "request-req-c"]
            place.close()
            torn.unlink()


@both
def test_a_changed_line_in_the_middle_is_named(place: Place, gz: bool) -> None:
    """By file, line and byte, by reader and by whoever makes the ledger again; nothing is cut."""
    given = {"enable_compression": gz}
    place.create(**given)
    store = place.open(given=given)
    path = place.log("log.jsonl.gz" if gz else "log.jsonl")
    begin = path.stat().st_size
    store.save(ask("a"))
    store.save(ask("b"))
    place.close()
    content = bytearray(path.read_bytes())
    content[begin + 200] ^= 1
    path.write_bytes(content)
    for leftover in Path(place.base).glob("ledger.db*"):
        leftover.unlink()
    with pytest.raises(LogDamaged, match=rf"{path.name}: line 2, at byte {begin},"):
        place.open(given=given)
    assert path.read_bytes() == content


def test_a_line_with_a_new_checksum_breaks_the_chain(place: Place) -> None:
    """Who changes an event and mends the checksum has not mended the digest."""
    place.create()
    store = place.open()
    store.save(ask("a"))
    store.save(ask("b"))
    place.close()
    lines = place.log().read_bytes().splitlines()
    forged = json.loads(lines[1])
    del forged["checksum"]
    (event,) = forged["events"]
    event["data"]["machine_count"] = 100
    row = [event[c] if c not in ("metadata", "data") else text_of(event[c]) for c in COLUMNS]
    lines[1] = compose_line([row], forged["recorded_at"], 2)[:-1]
    place.log().write_bytes(b"\n".join(lines) + b"\n")
    Path(place.base, "ledger.db").unlink()
    with pytest.raises(LogDamaged, match="event 2"):
        place.open()


def test_the_last_line_is_checked_before_another_follows(place: Place) -> None:
    """Changed at the end, where nothing follows: with the ledger, and by the note beside the log
    without it. Never taken for a torn end."""
    place.create()
    store = place.open()
    store.save(ask("a"))
    content = place.log().read_bytes().replace(b'"machine_count":1', b'"machine_count":9')
    place.log().write_bytes(content)
    with pytest.raises(LogDamaged, match="last line"):
        store.save(ask("b"))
    place.close()
    Path(place.base, "ledger.db").unlink()
    with pytest.raises(LogDamaged, match="held event 2"):
        place.open()
    assert place.log().read_bytes() == content


def test_an_end_that_is_gone_is_missed(place: Place) -> None:
    """A committed line that was cut off is not appended over."""
    place.create()
    store = place.open()
    before = place.log().read_bytes()
    store.save(ask("a"))
    place.log().write_bytes(before)
    with pytest.raises(LogDamaged, match="the end is gone"):
        store.save(ask("b"))


def test_what_a_power_loss_took_was_not_waited_for(place: Place) -> None:
    """With sync_writes false the log may lose its end with the boot: then the ledger follows it
    back. Not within a boot, and not what was on disk."""
    place.create()
    lazy = {"sync_writes": False}
    store = place.open(given=lazy)
    before = place.log().read_bytes()
    store.save(ask("a"))
    place.close()
    place.log().write_bytes(before)
    with pytest.raises(LogDamaged):
        place.open(given=lazy)
    place.clock.boot_id = "boot-2"
    store = place.open(given=lazy)
    assert store.get(MachineRequest, "req-a") is None
    store.save(ask("b"))
    assert place.streams() == ["deployment", "request-req-b"]


# -- the disk --------------------------------------------------------------------------------------


class Disk:
    """Counts what is written and waited for, and fails when it is told to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.synced = 0
        self.most = 1 << 30
        self.error = 0

    def write(self, file: int, content: bytes) -> int:
        self.sizes.append(len(content))
        if self.error and self.most <= 0:
            raise OSError(self.error, os.strerror(self.error))
        written = os.write(file, content[: self.most])
        if self.error:
            self.most -= written
        return written

    def sync(self, file: int) -> None:
        self.synced += 1
        if self.error == errno.EIO:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(file)


def test_commands_wait_for_the_disk_unless_told_otherwise(place: Place) -> None:
    """sync_writes false spares a command the wait, never what a worker writes with its fence."""
    place.create()
    disk = Disk()
    store = place.open(sync=disk.sync, write=disk.write)
    store.save(ask("a"), command=("c-1", ""))
    assert disk.synced == 1
    lazy = place.open(given={"sync_writes": False}, sync=disk.sync, write=disk.write)
    lazy.save(ask("b"), command=("c-2", ""))
    assert disk.synced == 1
    with pytest.raises(Fenced):
        lazy.save(ask("c"), fence=("default/us-east-1", 1))
    lazy.connection.execute(
        "INSERT INTO leases VALUES ('default/us-east-1', '', '', 1, '', 0, 0, '')"
    )
    lazy.save(ask("c"), fence=("default/us-east-1", 1))
    assert disk.synced == 2


def test_a_commit_is_gathered_for_few_writes(place: Place) -> None:
    """write_buffer_size bytes at a time; nothing waits for the next commit."""
    place.create()
    disk = Disk()
    store = place.open(given={"write_buffer_size": 1000}, write=disk.write)
    before = place.log().stat().st_size
    store.save(*(ask(str(n)) for n in range(5)))
    grown = place.log().stat().st_size - before
    assert disk.sizes == [1000] * (grown // 1000) + [grown % 1000]
    disk.sizes = []
    place.open(write=disk.write).save(ask("more"))
    assert len(disk.sizes) == 1


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_leaves_nothing_half_written(place: Place, error: int) -> None:
    """The begun line is cut off again, nothing is in the ledger, and the store goes on after."""
    place.create()
    disk = Disk()
    store = place.open(sync=disk.sync, write=disk.write)
    store.save(ask("a"))
    before = place.log().read_bytes()
    disk.error, disk.most = error, 100 if error == errno.ENOSPC else 1 << 30
    with pytest.raises(StoreError, match=f"{os.strerror(error)}; nothing was recorded"):
        store.save(ask("b"))
    assert place.log().read_bytes() == before
    assert store.get(MachineRequest, "req-b") is None
    disk.error, disk.most = 0, 1 << 30
    store.save(ask("b"))
    assert place.streams() == ["deployment", "request-req-a", "request-req-b"]


# -- streams ---------------------------------------------------------------------------------------


def test_a_file_for_each_stream_follows_the_log(place: Place) -> None:
    """Under names that any file system takes; torn, deleted or behind, they are made good by the
    next commit."""
    place.create()
    split = {"storage_type": "split_files"}
    odd = "template-awsinst/On Demand/" + "x" * 300
    plain = place.open()
    plain.save(ask("a"))  # before they were wanted
    store = place.open(given=split)
    asked = store.get(MachineRequest, "req-a")
    assert asked is not None
    asked.cancel("no longer needed")
    store.save(asked)
    store.append([(odd, 1, "T", 1, "{}", None)])

    def told(stream: str) -> list[int]:
        path = Path(path_of(place.base, stream))
        assert len(path.relative_to(place.base).parts) == 3
        return [json.loads(line)["version"] for line in path.read_text().splitlines()]

    assert told("request-req-a") == [1, 2]
    assert told(odd) == [1]
    file = Path(path_of(place.base, "request-req-a"))
    first = file.read_bytes().splitlines(keepends=True)[0]
    for torn in (first, first + b'{"half', b"", b"rubbish\n"):
        file.write_bytes(torn)
        Path(place.base, "streams/.position").unlink()
        store.save(ask("b" + str(len(torn))))
        assert told("request-req-a") == [1, 2]
    assert "request-req-a" in place.streams()


def test_streams_are_kept_in_memory_and_never_stale(place: Place) -> None:
    """cache_size of them, the least used forgotten; what another process wrote is seen."""
    place.create()
    store = place.open(given={"cache_size": 2})
    for name in "abc":
        store.save(ask(name))
    for name in "aabb":
        assert store.get(MachineRequest, f"req-{name}") is not None
    assert store.cache_hits == 2
    for name in "cab":  # each in the place of the one that was used longest ago
        store.get(MachineRequest, f"req-{name}")
    assert store.cache_hits == 2
    other = place.open()
    asked = other.get(MachineRequest, "req-b")
    assert asked is not None
    asked.cancel("by another")
    other.save(asked)
    again = store.get(MachineRequest, "req-b")
    assert again is not None
    assert again.version == 2


# -- many processes --------------------------------------------------------------------------------

WRITERS = """
import os, sys
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from infrastructure.event_store.json_lines import JsonEventStore
from tests.infrastructure.test_json_log import settings
base, count, gz = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
for name in range(8):
    if os.fork() == 0:
        given = settings(enable_compression=gz)
        store = JsonEventStore(base, SystemClock(), {"process": f"w{name}"}, given)
        for number in range(count):
            request_id = f"req-w{name}-{number}"
            store.save(MachineRequest.ask(request_id, "a", "T", "r", 1, 300.0, "hostfactory"))
        os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(8)]))
"""
"""Forked, so that what they import is imported once."""


@both
def test_a_reader_follows_eight_writers(place: Place, gz: bool) -> None:
    """It reads the log alone, beside them: every event once, in order, none torn."""
    place.create(enable_compression=gz)
    writers = subprocess.Popen([sys.executable, "-c", WRITERS, place.base, "20", str(gz)], cwd=ROOT)
    seen: list[int] = []
    looks = 0
    number, offset = 1, 0
    try:
        while len(seen) < 161:
            running = writers.poll() is None
            reader = Reader(place.base, number, offset)
            seen += [e["position"] for body in reader for e in json.loads(body)["events"]]
            number, offset = reader.number, reader.offset
            looks += 1
            assert running or len(seen) == 161
    finally:
        code = writers.wait(60)
    assert code == 0
    assert seen == list(range(1, 162))
    assert looks > 1


def test_a_copied_directory_is_inert(place: Place, tmp_path: Path) -> None:
    """With its ledger and without."""
    place.create()
    place.open().save(ask("a"))
    place.close()
    copy = Place(str(tmp_path / "copy"))
    shutil.copytree(place.base, copy.base)
    for leftover in ("", "ledger.db"):
        if leftover:
            Path(copy.base, leftover).unlink()
        with pytest.raises(StoreInert, match="store activate"):
            copy.open()
