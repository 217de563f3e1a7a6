"""What a worker must not do when the ground under it has changed."""

from __future__ import annotations

import gc
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from botocore.exceptions import CredentialRetrievalError, SSLError
from botocore.parsers import ResponseParserError

from application.failures import ProjectionFailed, StoreInert
from domain.host_factory import HostFactory, MachinesSeen
from infrastructure.aws.errors import classify, failure
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.event_store.sqlite_setup import activate_store
from tests.world import World


def write(world: World, statement: str) -> None:
    connection = sqlite.connect(world.path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def settle(world: World) -> None:
    """All commits are in the file itself. A read's connection ends with its process; here it is a
    cycle that the collector ends."""
    gc.collect()
    write(world, "PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize("projection", ["requests", "launches", "machines"])
def test_nothing_is_launched_on_a_read_model_that_stands_still(
    world: World, projection: str
) -> None:
    """A failed projection stops the worker's decisions, and returns; events are kept."""
    world.start_worker()
    machines = world.fulfilled(1)
    write(world, f"INSERT INTO projections VALUES ('{projection}', 1, 'broken')")
    launches = len(world.launches())
    world.request(5)

    world.run(60)
    with pytest.raises(ProjectionFailed):
        world.give_back(machines)

    assert len(world.launches()) == launches
    assert world.workers[0].reason


def test_another_region_is_not_looked_into(world: World) -> None:
    """Machines of the region that was configured before are not lost because this one lacks them;
    configured back, they are looked after again."""
    world.start_worker()
    machines = world.fulfilled(3)
    world.write_config({"AWS_REGION": "eu-west-1"})
    world.run(1000, step=5.0)

    assert "MachineLost" not in world.topics()
    assert world.owned() == world.live()
    assert world.to_give_up(machines) == []

    world.write_config({"AWS_REGION": "us-east-1"})
    world.run_until_final(world.give_back(machines))
    assert world.live() == set()
    world.assert_agreement()


def test_a_store_that_was_replaced_is_left_alone(world: World) -> None:
    """A worker whose file was replaced by an activated copy records nothing more, and ends."""
    old = world.start_worker()
    world.fulfilled(1)
    settle(world)
    shutil.copyfile(world.path, world.path + ".copy")
    os.replace(world.path + ".copy", world.path)
    for name in ("-wal", "-shm"):
        Path(world.path + name).unlink(missing_ok=True)
    activate_store(world.path, world.clock, {"user": "test"}, "restored")

    assert not old.tick()
    world.kill(old)
    world.start_worker()
    world.fulfilled(2)
    world.run(1200, step=5.0)
    assert len(world.live()) == 3
    world.assert_agreement()


def test_an_older_copy_in_the_same_inode_is_inert(world: World) -> None:
    """`cp backup ledger.db` keeps the inode: the store lacks the last event that was recorded."""
    worker = world.start_worker()
    settle(world)
    backup = Path(world.path).read_bytes()
    world.fulfilled(1)
    world.kill(worker)
    gc.collect()
    inode = Path(world.path).stat().st_ino
    for name in ("-wal", "-shm"):
        Path(world.path + name).unlink(missing_ok=True)
    Path(world.path).write_bytes(backup)
    assert Path(world.path).stat().st_ino == inode

    with pytest.raises(StoreInert, match="older copy"):
        world.request(1)
    with pytest.raises(StoreInert, match="older copy"):
        world.status("req-" + "0" * 32)
    activate_store(world.path, world.clock, {"user": "test"}, "restored")
    assert world.status(world.request(1))["status"] == "running"


def test_a_lost_machine_that_lives_is_told(world: World) -> None:
    """The ledger has seen its end, and it lives: it is listed, and not ended unasked."""
    world.start_worker()
    (machine,) = world.fulfilled(1)
    write(world, "UPDATE machines SET alive = 0, status = 'terminated'")
    world.run(2000, step=5.0)

    assert world.live() == {machine["machineId"]}
    assert world.query("SELECT machine_id FROM orphans") == [(machine["machineId"],)]


def test_a_stopped_instance_is_not_aged_by_another(world: World) -> None:
    """Calls of one provider instance are no calling time of the other's machines."""
    world.start_worker()
    request_id = world.request(1)
    world.run_until_final(request_id)
    world.site.provider = "other"
    last = [0.0]

    def the_other_calls() -> None:
        if world.clock.seconds - last[0] >= 30:
            last[0] = world.clock.seconds
            world.call("getReturnRequests", {})

    world.run(2000, poll=the_other_calls, step=5.0)
    assert len(world.live()) == 1


def test_calling_time_counts_once_however_many_machines_call(world: World) -> None:
    """Two machines that call by turns are as one that calls; one that is silent, dies or comes back
    adds nothing, and its row goes."""
    with closing(world.storage().event_store(world.clock, {})) as store:
        notebook = world.storage().notebook(store, "default", "us-east-1")
        one, other = 1000.0, 86_400.0

        def call(*moments: tuple[str, float]) -> float:
            for boot_id, seconds in moments:
                started = one if boot_id == "boot-1" else other
                notebook.add_calling("any call", [(0.0, boot_id, started + seconds)])
            return notebook.calling("any call")

        assert call(("boot-1", 0), ("boot-2", 30), ("boot-1", 60), ("boot-2", 90)) == 60
        assert call(("boot-1", 120), ("boot-2", 150), ("boot-2", 140)) == 120
        # One dies, the other goes on.
        assert call(*(("boot-2", at) for at in range(210, 600, 60))) == 540
        assert len(world.query("SELECT * FROM calling")) == 1
        # HostFactory was stopped for an hour; then the first machine is there again.
        assert call(("boot-2", 4200), ("boot-1", 4210), ("boot-1", 4270), ("boot-2", 4260)) == 600


def test_a_request_with_a_named_machine_is_known(world: World) -> None:
    """A machine that HostFactory names is its own, though no status call named the request."""
    world.start_worker()
    world.request(2)
    world.run(60)
    machine_id = min(world.live())
    last = [0.0]

    def hosts_only() -> None:
        if world.clock.seconds - last[0] >= 30:
            last[0] = world.clock.seconds
            world.call("getReturnRequests", {"machines": [{"machineId": machine_id}]})

    world.run(2000, poll=hosts_only, step=5.0)
    assert machine_id in world.live()


def test_a_returned_machine_that_is_ours_by_tag_is_ended(world: World) -> None:
    """The ledger lacks it, its tag is ours: it is ended, and the return completes."""
    world.start_worker()
    (machine,) = world.fulfilled(1)
    write(world, "DELETE FROM machines")
    answer = world.run_until_final(world.give_back([machine]))

    assert answer["status"] == "complete"
    assert world.live() == set()


def test_templates_are_not_retired_because_nobody_could_read_them(world: World) -> None:
    """A worker that starts on a half-written file has no templates, and says nothing of them."""
    world.start_worker()
    world.run(3)
    world.kill(world.workers[0])
    (world.root / "conf/awsprov_templates.json").write_text('{"templates": [{"templ')
    world.environ["HOSTLEDGER_WORKER__IDLE_TIMEOUT"] = "301"
    world.start_worker()
    world.run(10)

    assert "TemplateRetired" not in world.topics()


def test_what_may_have_been_done_is_never_called_not_done() -> None:
    """TLS that breaks and answers that are no answers are ambiguous; missing credentials and a
    wrong clock are neither the request's fault nor for ever."""
    assert failure(SSLError(endpoint_url="x", error="EOF")).kind == "ambiguous"
    assert failure(ResponseParserError("not XML")).kind == "ambiguous"
    lost = CredentialRetrievalError(provider="iam", error_msg="timed out")
    assert failure(lost).kind == "unreachable"
    assert classify("RequestExpired", 400) == "unreachable"
    assert classify("ExpiredToken", 400) == "unreachable"


def test_a_refusal_of_the_caller_is_not_bisected(world: World) -> None:
    """UnauthorizedOperation is about us and not about one machine: asked once a try."""
    world.start_worker()
    machines = world.fulfilled(32)
    world.sandbox.add_fault(
        "error", action="TerminateInstances", times=-1, code="UnauthorizedOperation", message="no"
    )
    world.give_back(machines)
    world.run(3)

    assert 1 <= len(world.calls_of("TerminateInstances")) <= 3
    world.sandbox.clear_faults()
    world.run(700)
    assert world.live() == set()


def test_sightings_fit_every_store() -> None:
    """At most 1,000 ids an event, however many hosts HostFactory has."""
    seen = HostFactory.at_version(7)
    seen.see_machines("p", [f"i-{n}" for n in range(2500)])
    events = seen.collect_events()

    assert [len(event.machine_ids) for event in events if isinstance(event, MachinesSeen)] == [
        1000,
        1000,
        500,
    ]
    assert [event.originator_version for event in events] == [8, 9, 10]
