"""What a store promises to many processes, some of which are killed.

The races are met by chance, so how often each was met is told at the end of a test run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from application.json_text import loads
from infrastructure.clock import SystemClock
from tests.processes import ProcessSite
from tests.stores import STORES, Place, crash_points_of

if TYPE_CHECKING:
    from infrastructure.storage import Storage

EVERY_STORE = STORES
ROOT = Path(__file__).parents[2]

START = """
import json, os, sys, time, traceback
from application.failures import AlreadyTracked
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from infrastructure.event_store import dynamodb_client
from tests.stores import Place
place, work_dir, children = Place(*json.loads(sys.argv[1])), sys.argv[2], json.loads(sys.argv[3])
storage = place.storage(work_dir)
name = "before"

def open_store():
    return storage.event_store(SystemClock(), {"process": f"{name}[{os.getpid()}]"})

def request(number, source="hostfactory"):
    return MachineRequest.ask(f"req-{name}-{number}", "awsinst", "T", "4f53", 1, 300.0, source)

# Each process would import this anew; no connection is left open that they could share.
open_store().close()
storage.log().close()
for client in dynamodb_client._clients.values():
    client.close()
dynamodb_client._clients.clear()
storage = place.storage(work_dir)

go, start = os.pipe()
answers = []
for script, name, count in children:
    answer, told = os.pipe()
    if os.fork() == 0:
        try:
            os.close(start)
            sys.stdout = os.fdopen(told, "w")
            os.read(go, 1)
            exec(script)
            sys.stdout.close()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(told)
    answers.append(os.fdopen(answer))
os.close(start)
told = [answer.read() for answer in answers]
assert [os.wait()[1] for _ in children] == [0] * len(children)
print("[" + ",".join(told) + "]")
"""
"""One process that becomes many: each is forked, and all are let go at once."""

WRITER = """
store = open_store()
positions = []
for number in range(count):
    store.save(request(number), command=(f"{name}-{number}", ""), positions=positions)
store.close()
print(json.dumps(positions))
"""

OPENING_WRITER = """
positions = []
for number in range(count):
    store = open_store()
    store.save(request(number), command=(f"{name}-{number}", ""), positions=positions)
    store.close()
print(json.dumps(positions))
"""
"""As the scripts do it: each call opens the store, appends and ends."""

READER = """
view = storage.log()
seen = []
give_up = time.monotonic() + 120
while len(seen) < count and time.monotonic() < give_up:
    view.close()
    time.sleep(0.02)  # a follower that never waits takes a core from the writers
    view = storage.log()
    seen += [e["position"] for e in view.events_after(seen[-1] if seen else 0, 7)]
view.close()
print(json.dumps(seen))
"""

TRACKER = """
store = open_store()
applied = []
for position in range(1, count + 1):
    try:
        store.save(request(position, "worker"), tracking=("policy", position))
    except AlreadyTracked:
        continue
    applied.append(position)
store.close()
print(json.dumps(applied))
"""


@pytest.fixture
def place(store_kind: str, new_place: Callable[[str], Place]) -> Place:
    return new_place(store_kind)


@pytest.fixture
def storage(place: Place, tmp_path: Path) -> Storage:
    """A store that has just been made."""
    storage = place.storage(str(tmp_path))
    storage.create(SystemClock(), {"user": "test"}, "0.1.0")
    return storage


def run_together(place: Place, work_dir: Path, *children: tuple[str, str, int]) -> list[list[int]]:
    """Start all (script, name, count), let them go at once, and collect what they tell."""
    arguments = [json.dumps([place.kind, place.settings]), str(work_dir), json.dumps(children)]
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0
    told: list[list[int]] = json.loads(done.stdout)
    return told


def log_of(storage: Storage) -> list[dict[str, Any]]:
    view = storage.log()
    try:
        return view.events_after(0, 1_000_000)
    finally:
        view.close()


@pytest.mark.parametrize(
    ("count", "script"), [(25, WRITER), (8, OPENING_WRITER)], ids=["open", "opening"]
)
def test_eight_writers_and_a_reader_that_follows(
    storage: Storage,
    place: Place,
    tmp_path: Path,
    count: int,
    script: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Everything told is stored, at the position told; positions have no gap; read rows are there
    for each; the reader misses nothing."""
    total = 8 * count
    *written, seen = run_together(
        place,
        tmp_path,
        *((script, f"w{number}", count) for number in range(8)),
        (READER, "reader", total + 1),
    )

    log = log_of(storage)
    assert sorted(position for positions in written for position in positions) == list(
        range(2, total + 2)
    )
    assert seen == list(range(1, total + 2))
    assert [event["position"] for event in log] == seen
    by_stream = {event["stream"]: event["position"] for event in log}
    for number, positions in enumerate(written):
        for index, position in enumerate(positions):
            assert by_stream[f"request-req-w{number}-{index}"] == position
    view = storage.queries()
    assert len(view.requests(None, False, None)) == total
    view.close()
    writers = [loads(event["metadata"])["actor"]["process"] for event in log[1:]]
    met = sum(one != other for one, other in pairwise(writers))
    record_property("race", f"{place.kind}: {met} of {total - 1} commits followed another's")
    assert len(set(writers)) == 8
    assert met >= 8


def test_each_position_is_applied_by_one_of_four_workers(
    storage: Storage,
    place: Place,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Four follow positions 1 to 1,000: each is applied exactly once, together with an event."""
    told = run_together(
        place, tmp_path, *((TRACKER, f"worker{number}", 1000) for number in range(4))
    )
    applied = sorted(position for positions in told for position in positions)
    assert applied == list(range(1, 1001))
    assert len(log_of(storage)) == 1001
    shares = sorted(len(positions) for positions in told)
    record_property("race", f"{place.kind}: four workers applied {shares} of 1000")


@pytest.mark.parametrize("verb", ["requestMachines", "requestReturnMachines"])
def test_killed_between_commit_and_answer(
    place: Place, store_kind: str, tmp_path: Path, verb: str
) -> None:
    """At each point after the commit, and before it: what the log has is never unknown, and what it
    has not was not recorded."""
    site = ProcessSite(
        tmp_path,
        settings={"HOSTLEDGER_WORKER__MODE": "external", **place.variables()},
        store=False,
    )
    storage = place.storage(f"{tmp_path}/work")
    site.state.mkdir(mode=0o700)
    storage.create(SystemClock(), {"user": "test"}, "0.1.0")
    site.request(1)  # the template is recorded with it
    document = {
        "requestMachines": {"template": {"templateId": "OnDemand-A", "machineCount": 2}},
        "requestReturnMachines": {"machines": [{"machineId": "i-1", "name": "host-1"}]},
    }[verb]
    topic = {"requestMachines": "Requested", "requestReturnMachines": "Returned"}[verb]
    for point in (*crash_points_of(store_kind, "Machines" + topic), f"answer.{verb}"):
        before = {event["stream"] for event in log_of(storage)}
        answer = site.call(verb, document, environ={"HOSTLEDGER_CRASH_AT": point})
        assert answer.status == -9, (point, answer.text, answer.errors)
        # Asked before anything else writes: the read model may lack what the log has.
        recorded = [
            stream.partition("-")[2]
            for stream in _streams(site, storage, before)
            if stream.startswith(("request-", "return-"))
        ]
        assert len(recorded) == (0 if point.endswith(".before") else 1), point
        for request_id in recorded:
            entry = site.status_of(request_id)
            assert entry["message"] != "unknown request", point
            assert entry["status"] in ("running", "complete_with_error", "complete")


def _streams(site: ProcessSite, storage: Storage, before: set[str]) -> set[str]:
    return {event["stream"] for event in log_of(storage)} - before
