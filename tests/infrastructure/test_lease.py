"""One worker acts at a time: who gets the lease, when it passes on, and what the fence refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from application.failures import Fenced, StoreError
from infrastructure.event_store.lease import SqliteLease
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import activate_store, create_store
from tests.fakes.clock import FakeClock

LEASE_TIME = 60.0

Make = Callable[..., SqliteLease]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path, clock: FakeClock) -> str:
    path = str(tmp_path / "ledger.db")
    create_store(path, clock, {"user": "test"}, "0.1.0")
    return path


@pytest.fixture
def make(path: str, clock: FakeClock) -> Iterator[Make]:
    """A worker's lease over its own connection, as another process would have it."""
    stores = []

    def lease(owner: str = "worker", version: str = "0.1.0", account: str = "a/r") -> SqliteLease:
        store = SqliteEventStore(path, clock, {"user": owner})
        stores.append(store)
        return SqliteLease(store, account, owner, version, clock, LEASE_TIME, path + ".worker")

    yield lease
    for store in stores:
        store.close()


def die(lease: SqliteLease) -> None:
    """What the kernel does to the process: its locks and connections are gone."""
    lease._unlock()
    lease._store.close()


def commit(lease: SqliteLease) -> None:
    """An outcome commit of this worker."""
    lease._store.append([], fence=lease.fence)


def test_one_holds_it(make: Make) -> None:
    """The first gets it, for the lease time; the second does not, however often it asks."""
    first, second = make("first"), make("second")
    assert first.acquire()
    assert first.remaining() == LEASE_TIME
    assert not second.acquire()
    assert not second.acquire()
    commit(first)
    with pytest.raises(Fenced, match="a/r"):
        commit(second)


def test_each_account_has_its_own(make: Make, path: str, clock: FakeClock) -> None:
    """Two workers of two accounts act beside each other."""
    store = SqliteEventStore(path, clock, {})
    other = SqliteLease(store, "b/r", "other", "0.1.0", clock, LEASE_TIME, path + ".other")
    first = make("first")
    assert first.acquire()
    assert other.acquire()
    commit(first)
    commit(other)
    store.close()


def test_renewing_extends_it(make: Make, clock: FakeClock) -> None:
    """The holder keeps it as long as it renews, with the same fencing number."""
    first, second = make("first"), make("second")
    first.acquire()
    for _ in range(5):
        clock.advance(LEASE_TIME - 1)
        assert first.renew()
        assert first.remaining() == LEASE_TIME
        assert not second.acquire()
    assert first.number == 1
    commit(first)


def test_a_released_one_is_free_at_once(make: Make) -> None:
    """The next holder has the next number, and the old one's commits are refused."""
    first, second = make("first"), make("second")
    first.acquire()
    first.release()
    assert second.acquire()
    assert second.number == first.number + 1
    with pytest.raises(Fenced):
        commit(first)
    assert not first.renew()


def test_a_dead_holder_is_followed_at_once(make: Make) -> None:
    """Its file lock is gone with it: nobody waits for the expiry."""
    first, second = make("first"), make("second")
    first.acquire()
    die(first)
    assert second.acquire()
    assert second.number == 2


def test_a_killed_process_is_followed_at_once(make: Make, path: str) -> None:
    """The same with a real process and a real SIGKILL."""
    script = (
        "import sys, time\n"
        "from infrastructure.event_store.lease import SqliteLease\n"
        "from infrastructure.event_store.sqlite import SqliteEventStore\n"
        "from tests.fakes.clock import FakeClock\n"
        "clock = FakeClock()\n"
        "store = SqliteEventStore(sys.argv[1], clock, {})\n"
        "lease = SqliteLease(store, 'a/r', 'x', '0.1.0', clock, 60.0, sys.argv[1] + '.worker')\n"
        "print(lease.acquire(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    second = make("second")
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert not second.acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert second.acquire()
    assert second.number == 2


def test_a_paused_holder_is_followed_after_its_expiry(make: Make, clock: FakeClock) -> None:
    """It still has its file lock, so only time tells; when it wakes it can commit nothing."""
    paused, second = make("paused"), make("second")
    paused.acquire()
    clock.advance(LEASE_TIME - 0.001)
    assert not second.acquire()
    clock.advance(0.001)
    assert second.acquire()
    commit(second)
    assert paused.remaining() <= 0
    with pytest.raises(Fenced):
        commit(paused)
    assert not paused.renew()
    assert paused.remaining() <= 0


def test_a_paused_holder_is_remembered_when_its_follower_gives_it_back(
    make: Make, clock: FakeClock
) -> None:
    """Its call may still go out: whoever comes next counts on, until a call must be over."""
    make("paused").acquire()
    clock.advance(LEASE_TIME)
    ages = []
    for number in range(5):
        lease = make(f"short-{number}")
        assert lease.acquire()
        ages.append(lease.since_another())
        clock.advance(15.0)
        lease.release()
        clock.advance(5.0)
    assert ages == [0.0, 20.0, 40.0, 60.0, float("inf")]


def test_a_follower_of_a_paused_holder_is_not_followed_when_that_one_wakes(
    make: Make, clock: FakeClock
) -> None:
    """The paused one lets its file lock go as it ends: that says nothing about the new holder."""
    paused, second, third = make("paused"), make("second"), make("third")
    paused.acquire()
    clock.advance(LEASE_TIME)
    second.acquire()
    die(paused)
    assert not third.acquire()
    commit(second)
    assert second.renew()
    die(second)
    assert third.acquire()
    assert third.number == 3


def test_a_follower_of_a_paused_holder_that_dies_too_expires(make: Make, clock: FakeClock) -> None:
    """It never had the file lock: the third waits for the expiry, not for ever."""
    paused, second, third = make("paused"), make("second"), make("third")
    paused.acquire()
    clock.advance(LEASE_TIME)
    second.acquire()
    die(second)
    die(paused)
    assert not third.acquire()
    clock.advance(LEASE_TIME)
    assert third.acquire()


@pytest.mark.parametrize("step", [3600.0, -3600.0, 1e9])
def test_the_wall_clock_changes_nothing(make: Make, clock: FakeClock, step: float) -> None:
    """However it is set, the lease lasts its time by the boot clock and no longer."""
    first, second = make("first"), make("second")
    first.acquire()
    clock.step_wall(step)
    assert first.remaining() == LEASE_TIME
    assert not second.acquire()
    clock.advance(LEASE_TIME - 1)
    assert not second.acquire()
    clock.advance(1)
    assert second.acquire()


def test_a_restarted_machine_frees_it(make: Make, clock: FakeClock) -> None:
    """Another boot id: whoever held it is gone, whatever the boot seconds say."""
    first, second = make("first"), make("second")
    first.acquire()
    clock.boot_id = "boot-2"
    clock.seconds = 5.0
    assert second.acquire()
    assert second.number == 2


def test_a_newer_release_asks_the_older_to_end(make: Make) -> None:
    """The holder's next renewal says no, though it is still the holder and may finish its turn."""
    old, new = make("old", "0.9.0"), make("new", "0.10.0")
    old.acquire()
    assert old.renew()
    assert not new.acquire()
    commit(old)
    assert not old.renew()
    commit(old)
    assert old.remaining() == LEASE_TIME
    old.release()
    assert new.acquire()
    assert new.renew()


@pytest.mark.parametrize("version", ["0.9.0", "0.10.0", "0.10"])
def test_an_older_or_equal_release_asks_nobody(make: Make, version: str) -> None:
    """A left-over process of the old release does not push out the new one."""
    holder, other = make("holder", "0.10.0"), make("other", version)
    holder.acquire()
    assert not other.acquire()
    assert holder.renew()


def test_the_fence_only_rises(make: Make, clock: FakeClock) -> None:
    """Each holder has a higher number than all before it, also the same process again."""
    numbers = []
    for turn in range(4):
        lease = make(f"worker-{turn}")
        assert lease.acquire()
        numbers.append(lease.number)
        lease.release()
    again = make("again")
    again.acquire()
    again.acquire()
    numbers.append(again.number)
    assert numbers == sorted(set(numbers))


def test_activating_a_store_ends_the_lease_and_keeps_its_fence_rising(
    make: Make, path: str, clock: FakeClock
) -> None:
    """A worker that was still running on it can commit nothing, now or after the next holder."""
    first, second = make("first"), make("second")
    first.acquire()
    activate_store(path, clock, {}, "restored in place")
    with pytest.raises(Fenced):
        commit(first)
    assert not first.renew()
    assert second.acquire()
    commit(second)
    with pytest.raises(Fenced):
        commit(first)


def test_a_commit_that_fails_gives_no_lease(make: Make, path: str, clock: FakeClock) -> None:
    """When the store cannot be written, neither number nor time is taken for granted."""
    lease = make("first")
    lease.acquire()
    clock.advance(LEASE_TIME - 1)
    lease._store.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        lease.renew()
    assert lease.remaining() == 1
    with pytest.raises(StoreError):
        lease.acquire()
    assert (lease.number, lease.remaining()) == (1, 1)


def test_the_fence_is_checked_in_the_commit(make: Make) -> None:
    """Nothing of a refused commit is kept: no event, no tracking, no command."""
    first, second = make("first"), make("second")
    first.acquire()
    first.release()
    second.acquire()
    store: Any = first._store
    with pytest.raises(Fenced):
        store.append(
            [("s-1", 1, "RequestFailed", 1, '{"message":""}', {"message": ""})],
            fence=first.fence,
            tracking=("policy", 1),
            command=("cmd-1", ""),
        )
    for table, count in (("events", 1), ("tracking", 0), ("commands", 0)):
        assert store.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,)
