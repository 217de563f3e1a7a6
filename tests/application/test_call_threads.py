"""How many calls are at AWS at a time: accounts swept together, and looks by id."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers

from tests.world import World

MakeWorld = Callable[..., World]

LONGEST = 20.0
"""Seconds that a call waits for another one; none comes where one is made after the other."""


class Meeting:
    """What a client sends for an API waits until so many are under way. `most`: how many were."""

    def __init__(self, api: str, wanted: int) -> None:
        self._api = api
        self._wanted = wanted
        self._changed = threading.Condition()
        self._under_way = 0
        self.most = 0

    def attach(self, client: Any) -> None:
        client.meta.events.register_first(f"before-send.ec2.{self._api}", self._come)
        client.meta.events.register_first(f"after-call.ec2.{self._api}", self._go)

    def _come(self, **_: Any) -> None:
        with self._changed:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            self._changed.notify_all()
            if self._wanted > 1:
                self._changed.wait_for(lambda: self.most >= self._wanted, LONGEST)

    def _go(self, **_: Any) -> None:
        with self._changed:
            self._under_way -= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_so_many_looks_by_id_are_made_at_a_time(make_world: MakeWorld, threads: int) -> None:
    """`performance.cpu.thread_pool_size`; what is found is the same."""
    world = make_world(
        config={
            "provider": {"aws": {"batch_sizes": {"describe_instances": 2}}},
            "performance": {"cpu": {"thread_pool_size": threads}},
        }
    )
    world.start_worker()
    machine_ids = [m["machineId"] for m in world.fulfilled(6)]
    meeting = Meeting("DescribeInstances", threads)

    def attach(client: Any) -> None:
        world.sandbox.attach(client)
        meeting.attach(client)

    worker = world.start_worker(on_client=providers.Object(attach))
    found = worker.side.clouds()["default"].find(machine_ids)

    assert sorted(i.machine_id for i in found) == sorted(machine_ids)
    assert meeting.most == threads


@pytest.mark.parametrize("threads", [1, 2])
def test_so_many_accounts_are_swept_at_a_time(
    make_world: MakeWorld, tmp_path: Path, threads: int
) -> None:
    """`processing.worker_threads`; each account's machines are known as without."""
    (tmp_path / "credentials").write_text(
        "[home]\naws_access_key_id = AKIAHOME\naws_secret_access_key = x\n"
        "[away]\naws_access_key_id = AKIAAWAY\naws_secret_access_key = y\n"
    )
    world = make_world(
        config={
            "provider": {
                "aws": {"credential_file": str(tmp_path / "credentials")},
                "accounts": {"home": {"profile": "home"}, "away": {"profile": "away"}},
            },
            "processing": {"worker_threads": threads},
        },
        accounts={"AKIAHOME": "111111111111", "AKIAAWAY": "222222222222"},
    )
    meeting = Meeting("DescribeInstances", threads)

    def attach(client: Any) -> None:
        world.sandbox.attach(client)
        meeting.attach(client)

    worker = world.start_worker(on_client=providers.Object(attach))
    worker.tick()

    assert meeting.most == threads
    assert sorted(account for (account,) in world.query("SELECT account FROM sweeps")) == [
        "away/us-east-1",
        "home/us-east-1",
    ]
    assert len(world.fulfilled(2)) == 2
