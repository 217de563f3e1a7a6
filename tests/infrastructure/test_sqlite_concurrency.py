"""Many processes on one store: nothing lost, no gap, no long wait, each position applied once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infrastructure.event_store.sqlite_file import open_for_reading
from infrastructure.event_store.sqlite_setup import create_store
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parents[2]

START = """
import json, sys, time
from application.failures import AlreadyTracked
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import open_for_reading
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
"""

WRITER = """
store = SqliteEventStore(path, SystemClock(), {"process": name})
longest = 0.0
positions = []
for number in range(count):
    request = MachineRequest.ask(
        f"req-{name}-{number}", "awsinst", "T", "4f53", 1, 300.0, "hostfactory"
    )
    before = time.monotonic()
    store.save(request, command=(f"{name}-{number}", ""), positions=positions)
    longest = max(longest, time.monotonic() - before)
store.close()
print(json.dumps([longest, positions]))
"""

OPENING_WRITER = """
longest = 0.0
positions = []
for number in range(count):
    before = time.monotonic()
    store = SqliteEventStore(path, SystemClock(), {"process": name})
    request = MachineRequest.ask(
        f"req-{name}-{number}", "awsinst", "T", "4f53", 1, 300.0, "hostfactory"
    )
    store.save(request, command=(f"{name}-{number}", ""), positions=positions)
    store.close()
    longest = max(longest, time.monotonic() - before)
print(json.dumps([longest, positions]))
"""
"""As the scripts do it: each call opens the store, appends and ends."""

READER = """
connection = open_for_reading(path)
seen = []
give_up = time.monotonic() + 120
while len(seen) < count and time.monotonic() < give_up:
    seen += [row[0] for row in connection.execute(
        "SELECT position FROM events WHERE position > ? ORDER BY position LIMIT 7",
        (seen[-1] if seen else 0,))]
print(json.dumps([0.0, seen]))
"""

TRACKER = """
store = SqliteEventStore(path, SystemClock(), {"process": name})
applied = []
for position in range(1, count + 1):
    request = MachineRequest.ask(
        f"req-{position}-{name}", "awsinst", "T", "4f53", 1, 300.0, "worker"
    )
    try:
        store.save(request, tracking=("policy", position))
    except AlreadyTracked:
        continue
    applied.append(position)
store.close()
print(json.dumps([0.0, applied]))
"""


def run_together(path: str, *children: tuple[str, str, int]) -> list[tuple[float, list[int]]]:
    """Start all (script, name, count), let them go at once, and collect what they tell."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START + script, path, name, str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for script, name, count in children
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told: list[Any] = []
        for process in processes:
            out, _ = process.communicate(timeout=120)
            assert process.returncode == 0
            told.append(tuple(json.loads(out)))
        return told
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "ledger.db")
    create_store(path, FakeClock(), {"user": "test"}, "0.1.0")
    return path


def query(path: str, statement: str) -> list[tuple[Any, ...]]:
    connection = open_for_reading(path)
    rows: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize(
    ("writers", "count", "script"),
    [(8, 25, WRITER), (16, 12, WRITER), (8, 12, OPENING_WRITER), (16, 6, OPENING_WRITER)],
    ids=["8 open", "16 open", "8 opening", "16 opening"],
)
def test_writers_beside_each_other(path: str, writers: int, count: int, script: str) -> None:
    """Everything told is stored, at the position told; positions have no gap; no append waits for
    2 s; read rows and commands are there for each; a reader that follows misses nothing."""
    total = writers * count
    *written, (_, seen) = run_together(
        path,
        *((script, f"w{number}", count) for number in range(writers)),
        (READER, "reader", total + 1),
    )

    told = sorted(position for _, positions in written for position in positions)
    assert told == list(range(2, total + 2))
    assert seen == list(range(1, total + 2))
    assert [row[0] for row in query(path, "SELECT position FROM events ORDER BY 1")] == seen
    by_stream = dict(query(path, "SELECT stream, position FROM events"))
    for number, (_, positions) in enumerate(written):
        for index, position in enumerate(positions):
            assert by_stream[f"request-req-w{number}-{index}"] == position
    assert query(path, "SELECT count(*) FROM requests") == [(total,)]
    assert query(path, "SELECT count(*) FROM commands") == [(total,)]
    assert query(path, "SELECT * FROM projections") == []
    assert max(longest for longest, _ in written) < 2.0


def test_each_position_is_applied_by_one_worker(path: str) -> None:
    """Four workers follow positions 1 to 100: applied exactly 100 times, together with an event."""
    told = run_together(path, *((TRACKER, f"worker{number}", 100) for number in range(4)))
    applied = sorted(position for _, positions in told for position in positions)
    assert applied == list(range(1, 101))
    assert query(path, "SELECT * FROM tracking") == [("policy", 100)]
    assert query(path, "SELECT count(*) FROM requests") == [(100,)]
