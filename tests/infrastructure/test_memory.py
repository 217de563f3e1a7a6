"""What grew on a heap and who holds it; and asking a process for it, by files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infrastructure.telemetry import memory
from infrastructure.telemetry.memory import PATIENCE, MemoryLooks, ask, usage
from tests.fakes.clock import FakeClock

LEAKS = """
import json, sys
from collections import deque
from infrastructure.telemetry.heap import Heap

class Cache:
    of_all = {}
    def __init__(self):
        self.items = []
        self.by_name = {}

class Slotted:
    __slots__ = ("queue",)

class Node:
    def __init__(self, after):
        self.after = after

def keeper():
    kept = []
    def keep(thing):
        kept.append(thing)
    return keep

cache, slotted, module, keep, node = Cache(), Slotted(), set(), keeper(), None
slotted.queue = deque()
Cache.of_all["x"] = []

def main(planted):
    global node
    local, other = [], []
    heap = Heap()
    for number in range(1000):
        if planted == "attribute": cache.items.append(str(number))
        if planted == "dictionary": cache.by_name["secret-%d" % number] = [number]
        if planted == "class": Cache.of_all["x"].append([number])
        if planted == "slot": slotted.queue.append(number)
        if planted == "module": module.add("%d" % number)
        if planted == "closure": keep((number, []))
        if planted == "local": local.append(number); other.append(number)
        if planted == "chain": node = Node(node)
    json.dump(heap.growth(), sys.stdout)

main(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("planted", "place"),
    [
        ("attribute", "__main__.Cache.items"),
        ("dictionary", "__main__.Cache.by_name"),
        ("class", "__main__.Cache.of_all[...]"),
        ("slot", "__main__.Slotted.queue"),
        ("module", "__main__.module"),
        ("closure", "__main__.keeper.<locals>.keep[...][...]"),
        ("local", "__main__.main: local"),
        ("chain", "__main__.Node.after"),
    ],
)
def test_what_grew_is_named_by_its_holder(planted: str, place: str) -> None:
    """Wherever it is held; no value is told, and no key."""
    done = subprocess.run(
        [sys.executable, "-c", LEAKS, planted], capture_output=True, text=True, check=True
    )
    grown = json.loads(done.stdout)
    if planted == "chain":
        row = grown["types"][0]
        assert (row["type"], row["grew"]) == ("__main__.Node", 1000)
        assert place in row["held_by"]
        assert grown["containers"] == []
    else:
        row = grown["containers"][0]
        assert row["held_by"] == place
        assert row["items"] == 1000
        assert row["grew"] >= 990
        others = ["__main__.main: other"] if planted == "local" else []
        assert [row["held_by"] for row in grown["containers"][1:]] == others
    assert grown["sites"][0]["site"].startswith("<string>:")
    assert "secret" not in done.stdout


def test_nothing_grew() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKS, "nothing"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["containers"] == []


class Together(FakeClock):
    """A clock under which, while one waits, another process goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[MemoryLooks] = []
        self.until = float("inf")

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        for looks in self.others:
            if self.seconds < self.until:
                looks.tick()


@pytest.fixture
def clock() -> Together:
    return Together()


def test_a_process_answers_after_the_interval(tmp_path: Path, clock: Together) -> None:
    """Not before, once for each time that it is asked, and nothing is left beside it."""
    place = str(tmp_path / "memory")
    clock.others = [MemoryLooks(place, clock, "server")]
    (tmp_path / "memory.4711").write_text("{}")  # of a process that was killed
    for _ in range(2):
        began = clock.seconds
        (row,) = ask(place, clock, 60, 0)
        assert 60 <= clock.seconds - began < 62
        assert (row["process"], row["pid"]) == ("server", os.getpid())
        assert 0 < row["rss"] < row["vms"]
        assert {"rss_grew", "vms_grew", "types", "containers", "sites"} <= row.keys()
        assert os.listdir(tmp_path) == []
    clock.sleep(1)
    assert os.listdir(tmp_path) == []


def test_a_worker_in_a_long_turn_is_told_of_as_far_as_it_can_be(
    tmp_path: Path, clock: Together
) -> None:
    """It is waited for, and then known by what the kernel says of it."""
    began = clock.seconds
    (row,) = ask(str(tmp_path / "memory"), clock, 5, os.getpid())
    assert clock.seconds - began >= 5 + PATIENCE
    assert row == {"process": "worker", "pid": os.getpid(), "rss": row["rss"], "vms": row["vms"]}
    assert row["rss"] > 0
    assert os.listdir(tmp_path) == []


def test_a_process_that_ends_meanwhile_is_not_waited_for(tmp_path: Path, clock: Together) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert usage(ended.pid) == {}
    assert ask(str(tmp_path / "memory"), clock, 5, ended.pid) == []
    assert clock.seconds - 1000.0 < 5


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"boot_id":"boot-1"}', '{"boot_id":"boot-0","interval":1,"until":9e9}',
     '{"boot_id":"boot-1","interval":1,"until":999}', '{"boot_id":"boot-1","interval":1}'],
)  # fmt: skip
def test_a_file_that_nobody_waits_behind_is_passed_over(
    tmp_path: Path, clock: Together, text: str
) -> None:
    """Half written, of another boot, or left by a command that was killed."""
    asked = tmp_path / "memory.asked"
    asked.write_text(text)
    looks = MemoryLooks(str(tmp_path / "memory"), clock, "worker")
    for _ in range(3):
        looks.tick()
        clock.advance(1)
    assert os.listdir(tmp_path) == [asked.name]


def test_who_is_asked_no_more_stops_looking(tmp_path: Path, clock: Together) -> None:
    """Tracing allocations would slow it down for nothing. Where it may not write, it goes on."""
    import tracemalloc

    place = str(tmp_path / "memory")
    asked = {"boot_id": clock.boot_id, "interval": 60, "until": clock.seconds + 90}
    looks = MemoryLooks(place, clock, "worker")
    memory._put(place + ".asked", asked, 0o644)
    looks.tick()
    assert tracemalloc.is_tracing()
    os.unlink(place + ".asked")
    looks.tick()
    assert not tracemalloc.is_tracing()
    os.unlink(f"{place}.{os.getpid()}")
    os.mkdir(f"{place}.{os.getpid()}.new")
    memory._put(place + ".asked", asked, 0o644)
    looks.tick()
    clock.advance(60)
    looks.tick()
    assert not tracemalloc.is_tracing()
    assert memory._files(place) == []
