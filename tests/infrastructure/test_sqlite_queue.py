"""Waiting for the writers' turn in a thread that no signal reaches."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from application.failures import StoreBusy
from domain.machine_request import MachineRequest
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_queue import Queue
from infrastructure.event_store.sqlite_setup import create_store
from tests.fakes.clock import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "ledger.db")
    create_store(path, FakeClock(), {}, "0.1.0")
    return path


@pytest.fixture
def holder(path: str) -> Iterator[int]:
    """Another's open file that has the lock."""
    holder = os.open(path + ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    yield holder
    os.close(holder)


def is_free(path: str) -> bool:
    file = os.open(path + ".lock", os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def test_who_stops_waiting_keeps_the_place(path: str, holder: int) -> None:
    """And has the lock when it comes; it is one wait, however often it was given up."""
    queue = Queue(path + ".lock")
    assert queue.wait(0.01) is None
    assert queue.wait(0.01) is None
    with ThreadPoolExecutor(1) as caller:
        turn = caller.submit(queue.wait, 60)
        fcntl.flock(holder, fcntl.LOCK_UN)
        held = turn.result(60)
    assert held is not None
    assert not is_free(path)
    os.close(held)
    assert is_free(path)


def test_a_turn_that_nobody_waits_for_is_let_go(path: str, holder: int) -> None:
    """Nobody is kept out by who gave up, and there is a next turn."""
    queue = Queue(path + ".lock")
    assert queue.wait(0.01) is None
    fcntl.flock(holder, fcntl.LOCK_UN)
    fcntl.flock(holder, fcntl.LOCK_EX)
    fcntl.flock(holder, fcntl.LOCK_UN)
    held = queue.wait(60)
    assert held is not None
    os.close(held)


def test_a_lock_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Queue(str(tmp_path / "none")).wait(60)


def test_a_store_in_another_thread_is_busy_after_a_while(path: str, holder: int) -> None:
    """It says so, records nothing, and goes on when the other has ended."""

    def save(name: str) -> None:
        asked = MachineRequest.ask(name, "awsinst", "T", "4f53", 1, 300.0, "rest")
        with closing(SqliteEventStore(path, FakeClock(), {})) as store:
            store.longest_wait = 0.01
            with pytest.raises(StoreBusy, match="nothing was recorded"):
                store.save(asked)
            store.longest_wait = 60.0
            fcntl.flock(holder, fcntl.LOCK_UN)
            assert store.end()[0] == 1
            store.save(MachineRequest.ask(name, "awsinst", "T", "4f53", 1, 300.0, "rest"))
            assert store.end()[0] == 2
            store.save(MachineRequest.ask(name + "b", "awsinst", "T", "4f53", 1, 300.0, "rest"))
        assert is_free(path)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(save, "req-1").result(60)
