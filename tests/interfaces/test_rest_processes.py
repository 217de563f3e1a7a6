"""The server's processes: they end without cutting anybody off, are as many as the site says, and
keep to what it allots them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import MappingProxyType

import pytest
import uvloop

from application import queries
from interfaces.read_side import Call
from interfaces.rest.looks import Looks
from interfaces.rest.snapshots import keep_covered
from tests.fakes.clock import FakeClock
from tests.interfaces.commands import Run
from tests.interfaces.rest import new_token, serving
from tests.interfaces.rest_process import Server, environ_of, request, server_process, wait_for
from tests.performance.past import write_past
from tests.world import World

READ = "/api/v1/requests"
BODY = b'{"template_id": "OnDemand-A", "machine_count": 1}'


def children(server: Server) -> list[int]:
    pid = server.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_worker(pid: int, world: World) -> bool:
    files = Path(f"/proc/{pid}/fd")
    try:
        return any(os.readlink(f) == world.site.worker_lock for f in files.iterdir())
    except OSError:
        return False


def lease_holders(world: World) -> list[str]:
    call = Call("test", world.environ, sys.executable, world.site)
    with closing(call.log()) as view:
        status = queries.store_status(view, call.clock.now(), call.places())
    return [lease["owner"] for lease in status["leases"] if lease["held"]]


def test_who_is_under_way_finishes_and_who_comes_late_is_told(world: World, run: Run) -> None:
    """After SIGTERM, with a worker: the lease is free when all have ended."""
    token = new_token(run, "operator")
    with server_process(world, "--with-worker") as server:
        wait_for(lambda: bool(lease_holders(world)))
        slow, late = server.connect(), server.connect()
        whole = request(READ, token, "POST", BODY)
        slow.send(whole[:-10])
        # The server has the head of it when it answers what came on another connection later.
        assert late.send(request(READ, token)).hear() is not None
        os.kill(server.process.pid, signal.SIGTERM)

        answers = []

        def is_told() -> bool:
            heard = late.send(request(READ, token)).hear()
            answers.append(heard)
            return heard is None or heard.status != 200

        wait_for(is_told)
        assert answers[-1] is not None
        assert (answers[-1].status, answers[-1].headers["retry-after"]) == (503, "5")
        assert answers[-1].document["type"] == "urn:hostledger:problem:ending"

        finished = slow.send(whole[-10:]).hear()
        assert finished is not None
        assert finished.status == 202
        assert server.process.wait(30) == 0
    request_id = finished.document["request_id"]
    assert world.query("SELECT request_id FROM requests") == [(request_id,)]
    assert lease_holders(world) == []


def test_several_processes_answer_at_one_address(world: World, run: Run) -> None:
    """One that dies is started again; all end together."""
    token = new_token(run, "viewer")
    with server_process(world, HOSTLEDGER_PERFORMANCE__CPU__WORKER_PROCESSES="2") as server:
        first, other = children(server)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(set(children(server)) - {first}) == 2)
        os.kill(other, signal.SIGSTOP)
        # Whoever is left answers, the one that was started again.
        assert server.ask(token, READ).status == 200
        os.kill(other, signal.SIGCONT)
        everyone = children(server)
        assert server.end() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in everyone)
    assert '"process ended"' in Path(world.site.log_file).read_text()


def test_processes_whose_parent_is_gone_end(world: World) -> None:
    with server_process(world, "--with-worker") as server:
        wait_for(lambda: any(is_worker(pid, world) for pid in children(server)))
        everyone = children(server)
        assert len(everyone) == 2
        server.process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone))
    assert lease_holders(world) == []


def test_a_socket_file_is_taken_over_from_a_server_that_was_killed(
    world: World, tmp_path: Path
) -> None:
    """Its mode is 0660, whatever the umask; that of a server that lives is left alone."""
    path = tmp_path / "sock"
    words = ("--socket", str(path))
    with server_process(world, *words) as first:
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(AssertionError, match="another server answers there"):
            server_process(world, *words).__enter__()
        first.process.kill()
        first.process.wait()
        with server_process(world, *words) as second:
            assert second.end() == 0
    assert not path.exists()


STORY = """
import gc, json, os, signal, sys
from interfaces.worker.main import run
from interfaces.write_side.container import site_from
before = gc.get_threshold()[0]
run(site_from(os.environ), os.environ, drain=True)
print(json.dumps([before, gc.get_threshold()[0], sorted(os.sched_getaffinity(0))]))
"""


def test_what_the_site_allots(world: World) -> None:
    """Processors that are not there are named in the log, the others kept to; the collector of the
    worker runs as often as it says."""
    one = min(os.sched_getaffinity(0))
    environ = {
        "HOSTLEDGER_PERFORMANCE__CPU__CPU_AFFINITY": f"[{one}, 4095]",
        "HOSTLEDGER_PERFORMANCE__MEMORY__GC_THRESHOLD": "123",
    }
    with server_process(world, **environ) as server:
        wait_for(lambda: os.sched_getaffinity(server.process.pid) == {one})
        assert server.end() == 0
    assert '"processors":[4095]' in Path(world.site.log_file).read_text().replace(" ", "")

    told = subprocess.run(
        [sys.executable, "-c", STORY],
        env=environ_of(world, **environ), capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    before, threshold, processors = json.loads(told.stdout)
    assert before != 123
    assert (threshold, processors) == (123, [one])


# -- snapshots of the past ----------------------------------------------------------------------


def keep_covered_until(looks: Looks, condition: Callable[[], bool]) -> None:
    """Look after snapshots at every moment until something is so; then end as the server does."""

    async def look_after() -> None:
        task = asyncio.create_task(keep_covered(looks, 0.001, 1))
        try:
            await asyncio.to_thread(wait_for, condition)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    uvloop.run(look_after())


def test_snapshots_are_left_before_anybody_asks(world: World) -> None:
    with closing(world.storage().event_store(FakeClock(), {"user": "test"})) as store:
        write_past(store, FakeClock(), 10_000, 100)
    past = Path(world.site.state_dir, "past")
    environ = MappingProxyType(world.environ)  # no dict, as os.environ is none
    looks = Looks(world.site, environ, sys.executable, 1)
    keep_covered_until(looks, lambda: any(past.glob("10000-*.db")))
    looks.close()


def test_who_leaves_snapshots_ends_with_the_server(world: World, tmp_path: Path) -> None:
    pid, python = tmp_path / "pid", tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ $@ > {pid}.new; mv {pid}.new {pid}; exec sleep 600\n")
    python.chmod(0o700)
    looks = Looks(world.site, world.environ, str(python), 1)
    keep_covered_until(looks, pid.exists)
    looks.close()
    began, *words = pid.read_text().split()
    assert words[-3:] == [world.site.conf_dir, world.site.work_dir, world.site.log_dir]
    assert not Path(f"/proc/{began}").exists()


def test_a_server_looks_after_snapshots_until_it_ends(world: World, run: Run) -> None:
    with serving(world, run) as client:
        covering = client.app.state.covering
        assert not covering.done()
    assert covering.cancelled()
