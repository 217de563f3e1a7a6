"""How much is done at a time: requests worked on, requests that wait, tries at a token, events a
policy takes, aggregates kept."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx2 as httpx
import pytest

from application.failures import StoreError
from domain.refusals import OverTemplateLimit
from interfaces.rest.app import create_app
from interfaces.rest.door import GUESSES
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import new_token, problem, serving
from tests.world import World

BODY = {"template_id": "OnDemand-A", "machine_count": 1}


@asynccontextmanager
async def clients(world: World, token: str) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    app = create_app(world.site, world.environ, sys.executable)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://test",
            headers={"Authorization": f"Bearer {token}"},
        ) as client,
    ):
        yield app, client


class Slow:
    """A body that ends when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.asked.set()
        await self.go_on.wait()
        yield b'{"template_id": "OnDemand-A", "machine_count": 1}'


def go(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


async def one_under_way_one_waiting(
    app: Any, client: httpx.AsyncClient
) -> tuple[Slow, asyncio.Task[httpx.Response], asyncio.Task[httpx.Response]]:
    """A request whose body has not come yet, and one that waits for its place."""
    slow = Slow()
    post = asyncio.create_task(
        client.post("/api/v1/requests", content=slow, headers={"content-type": "application/json"})
    )
    await asyncio.wait_for(slow.asked.wait(), 30)
    waiting = asyncio.create_task(client.get("/api/v1/machines"))
    while not app.state.door.room.waiting:
        await asyncio.sleep(0)
    return slow, post, waiting


def test_so_many_at_a_time_so_many_wait_and_no_more(world: World, run: Run) -> None:
    """The next is told to come back; what says how the server is, and the stream, take no place."""
    token = new_token(run, "operator")
    world.environ["HOSTLEDGER_PROCESSING__MAX_CONCURRENT_REQUESTS"] = "1"
    world.environ["HOSTLEDGER_PROCESSING__REQUEST_QUEUE_SIZE"] = "1"

    async def story() -> None:
        async with clients(world, token) as (app, client):
            slow, post, waiting = await one_under_way_one_waiting(app, client)
            refused = await client.get("/api/v1/machines")
            problem(refused, 503, "too-busy", "processing.request_queue_size")
            assert refused.headers["retry-after"] == "1"
            assert (await client.get("/livez")).status_code != 503
            assert not waiting.done()
            slow.go_on.set()
            assert (await post).status_code == 202
            assert (await waiting).status_code == 200
            assert (await client.get("/api/v1/machines")).status_code == 200

    go(story)


def test_who_stops_waiting_leaves_its_place(world: World, run: Run) -> None:
    token = new_token(run, "operator")
    world.environ["HOSTLEDGER_PROCESSING__MAX_CONCURRENT_REQUESTS"] = "1"

    async def story() -> None:
        async with clients(world, token) as (app, client):
            slow, post, gone = await one_under_way_one_waiting(app, client)
            gone.cancel()
            await asyncio.wait([gone])
            assert not app.state.door.room.waiting
            slow.go_on.set()
            assert (await post).status_code == 202
            assert (await client.get("/api/v1/machines")).status_code == 200

    go(story)


def test_more_than_its_rate(world: World, run: Run) -> None:
    """Of one credential: another one is let in."""
    world.environ["HOSTLEDGER_SERVER__REQUESTS_PER_SECOND"] = "0.5"
    with serving(world, run) as client:
        answers = [client.get("/requests") for _ in range(6)]
        assert [answer.status_code for answer in answers[:5]] == [200] * 5
        problem(answers[5], 429, "too-many-requests", "server.requests_per_second")
        assert 1 <= int(answers[5].headers["retry-after"]) <= 10
        assert client.of("viewer", run).get("/requests").status_code == 200


def test_guesses(world: World, run: Run) -> None:
    """Wrong tokens of one address: then the next is told to wait. Who has a right one is let in:
    behind a proxy all have one address, and nobody shall shut the others out."""
    with serving(world, run) as client:
        right = client.token
        for number in range(GUESSES):
            client.token = f"{right[:-8]}{number:08d}"
            problem(client.get("/requests"), 401, "unauthenticated")
        client.token = f"{right[:-8]}99999999"
        problem(client.get("/requests"), 429, "too-many-requests")
        client.token = right
        assert client.get("/requests").status_code == 200


@pytest.mark.parametrize(
    ("batch", "most"), [({}, 4), ({"BATCH_SIZE": "3"}, 3), ({"ENABLED": "false"}, 1)]
)
def test_events_that_a_policy_takes_together(
    world: World, batch: dict[str, str], most: int
) -> None:
    """Four returns are followed four, three or one at a time."""
    for name, value in batch.items():
        world.environ[f"HOSTLEDGER_PROCESSING__BATCH_PROCESSING__{name}"] = value
    request_id, _ = fulfilled(world, 4)
    (worker,) = world.workers
    for machine in world.status(request_id)["machines"]:
        world.give_back([machine])
    work = worker.side.work()
    ask = work.events_after
    taken: list[int] = []

    def watched(policy: str, *given: Any) -> Any:
        events = ask(policy, *given)
        taken.append(len(events))
        return events

    work.events_after = watched
    worker.turn()
    assert max(taken) == most


@pytest.mark.parametrize(("seconds", "enabled"), [("2", "true"), ("2", "false")])
def test_how_long_a_burst_is_let_come_in(world: World, seconds: str, enabled: str) -> None:
    """Commands that keep coming are waited for so long, and then have one turn."""
    world.environ["HOSTLEDGER_PROCESSING__BATCH_PROCESSING__BATCH_TIMEOUT"] = seconds
    world.environ["HOSTLEDGER_PROCESSING__BATCH_PROCESSING__ENABLED"] = enabled
    worker = world.start_worker()
    turns: list[float] = []
    take = worker.turn
    sleeps = 0

    def turn() -> None:
        turns.append(world.clock.seconds)
        take()

    def sleep(waited: float) -> None:
        nonlocal sleeps
        sleeps += 1
        world.clock.advance(waited)
        world.request(1)
        worker.stopping = sleeps >= 60

    worker.turn = turn  # type: ignore[method-assign]
    worker.run(sleep)
    world.workers.remove(worker)
    longest = max(after - before for before, after in pairwise(turns))
    assert (longest > 1.5) == (enabled == "true")


def test_aggregates_that_are_kept(world: World) -> None:
    """Only later events of one that is kept are read."""
    from domain.machine_request import MachineRequest

    request_id = world.request(1)

    def read(**settings: str) -> list[int]:
        world.environ.update(settings)
        worker = world.start_worker()
        ledger, store = worker.side.ledger(), worker.store
        after: list[int] = []
        select = store.select_events

        def watched(stream: str, above: int, *given: Any) -> Any:
            after.append(above)
            return select(stream, above, *given)

        store.select_events = watched
        for _ in range(2):
            assert ledger.get(MachineRequest, request_id).version == 1
        world.kill(worker)
        return after

    assert read() == [-1, -1]
    assert read(HOSTLEDGER_PERFORMANCE__MEMORY__OBJECT_POOL_SIZE="5") == [-1, 1]
    assert read(HOSTLEDGER_PERFORMANCE__MEMORY__OBJECT_POOL_SIZE="0") == [-1, -1]


def test_without_operations_beside_them_each_call_works(world: World) -> None:
    del world.environ["HOSTLEDGER_WORKER__MODE"]
    world.environ["HOSTLEDGER_PERFORMANCE__CPU__ASYNC_OPERATIONS"] = "false"
    request_id = world.request(1)
    assert world.run(120, lambda: world.status(request_id)["status"] != "running")
    assert world.workers == []


def test_who_gives_up_keeps_no_other_waiting(world: World, run: Run) -> None:
    """What comes in one turn of the loop is handed over together, each is answered by itself, and
    after the end everybody is told so."""
    app = create_app(world.site, world.environ, sys.executable)
    commands = app.state.commands

    def ask(count: int) -> asyncio.Task[Any]:
        def command(acting: Any) -> Any:
            return acting.request_machines("OnDemand-A", count, "", "rest", os.urandom)

        return asyncio.create_task(commands.carry_out("somebody", command))

    async def story() -> None:
        gone, served, refused = ask(1), ask(2), ask(100_000)
        await asyncio.sleep(0)
        gone.cancel()
        answer = await asyncio.wait_for(served, 30)
        assert answer["request_id"].startswith("req-")
        with pytest.raises(OverTemplateLimit):
            await refused
        with pytest.raises(asyncio.CancelledError):
            await gone
        commands.close()
        with pytest.raises(StoreError, match="is ending"):
            await ask(3)

    go(story)
    assert [fields["machine_count"] for fields in world.events("MachinesRequested")] == [2]
