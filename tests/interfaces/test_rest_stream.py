"""The stream of events: every event once, in order, whoever comes back and to whichever process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from interfaces.rest.app import create_app
from interfaces.rest.stream import AT_ONCE
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import new_token
from tests.stores import FOUR
from tests.world import World

EVERY_STORE = FOUR

PATIENCE = 60.0


class Reader:
    """One client of the stream, without a socket; while `may_take` is not set it takes nothing."""

    def __init__(self, app: Any, token: str, query: str = "", last: str = "") -> None:
        self._app = app
        self._token = token
        self._query = query
        self._last = last
        self.status = 0
        self.events: list[dict[str, Any]] = []
        self.is_blocked = asyncio.Event()
        self.may_take = asyncio.Event()
        self.may_take.set()
        self._gone = asyncio.Event()
        self._came = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if not self.may_take.is_set():
            self.is_blocked.set()
            await self.may_take.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        for block in message.get("body", b"").decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in fields:
                document = json.loads(fields["data"])
                assert int(fields["id"]) == document["position"]
                assert fields["event"] == document["topic"]
                self.events.append(document)
        async with self._came:
            self._came.notify_all()

    def begin(self) -> None:
        headers = [(b"authorization", b"Bearer " + self._token.encode())]
        if self._last:
            headers.append((b"last-event-id", self._last.encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": "",
            "path": "/api/v1/events/stream", "raw_path": b"/api/v1/events/stream",
            "query_string": self._query.encode(), "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("test", 80),
        }  # fmt: skip
        self._task = asyncio.create_task(self._app(scope, self._receive, self._send))

    async def until(self, is_so: Callable[[Reader], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._came:
            await self._came.wait_for(lambda: is_so(self))

    async def end(self) -> None:
        self._gone.set()
        self.may_take.set()
        if self._task is not None:
            async with asyncio.timeout(PATIENCE):
                await self._task


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Any]:
    app = create_app(world.site, world.environ, sys.executable)
    async with app.router.lifespan_context(app):
        yield app


def whole(world: World) -> list[int]:
    with closing(world.storage().log()) as view:
        return list(range(1, view.end()[0] + 1))


def positions(reader: Reader) -> list[int]:
    return [event["position"] for event in reader.events]


def go(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_every_event_comes_once_and_in_order(world: World, run: Run) -> None:
    """Those that are there, those that come, and the rest for who comes back to another process."""
    token = new_token(run, "viewer")

    async def story() -> None:
        async with serving(world) as app, serving(world) as other:
            reader = Reader(app, token, "after=0")
            reader.begin()
            await reader.until(lambda r: positions(r) == whole(world))
            fulfilled(world, 2)
            await reader.until(lambda r: len(r.events) >= len(whole(world)))
            await reader.end()
            assert positions(reader) == whole(world)

            world.request(1)
            last = str(reader.events[-1]["position"])
            again = Reader(other, token, last=last)
            again.begin()
            await again.until(lambda r: bool(r.events) and positions(r)[-1] == whole(world)[-1])
            await again.end()
            assert positions(reader) + positions(again) == whole(world)

    go(story)


@pytest.mark.stores("sqlite")
def test_one_topic(world: World, run: Run) -> None:
    token = new_token(run, "viewer")
    fulfilled(world, 2)

    async def story() -> None:
        async with serving(world) as app:
            reader = Reader(app, token, "after=0&topic=MachineLaunched")
            reader.begin()
            await reader.until(lambda r: len(r.events) == 2)
            await reader.end()
            assert {event["topic"] for event in reader.events} == {"MachineLaunched"}

    go(story)


@pytest.mark.stores("sqlite")
def test_who_does_not_take_holds_up_nobody(world: World, run: Run) -> None:
    """A client that has stopped reading is where it was; the others have all, and so has it when it
    reads on."""
    token = new_token(run, "viewer")

    async def story() -> None:
        async with serving(world) as app:
            stuck, reader = Reader(app, token, "after=0"), Reader(app, token, "after=0")
            stuck.may_take.clear()
            stuck.begin()
            reader.begin()
            await asyncio.wait_for(stuck.is_blocked.wait(), PATIENCE)
            while len(whole(world)) < 3 * AT_ONCE:
                world.request(1)
            await reader.until(lambda r: positions(r) == whole(world))
            assert stuck.events == []
            stuck.may_take.set()
            await stuck.until(lambda r: positions(r) == whole(world))
            for each in (stuck, reader):
                await each.end()
            assert app.state.tail.clients == 0

    go(story)


@pytest.mark.stores("sqlite")
def test_so_many_and_no_more(world: World, run: Run) -> None:
    token = new_token(run, "viewer")
    world.environ["HOSTLEDGER_SERVER__MAX_STREAMS"] = "1"

    async def story() -> None:
        async with serving(world) as app:
            one, other = Reader(app, token, "after=0"), Reader(app, token)
            one.begin()
            await one.until(lambda r: bool(r.events))
            other.begin()
            await other.until(lambda r: r.status > 0)
            assert other.status == 503
            await one.end()
            third = Reader(app, token, "after=0")
            third.begin()
            await third.until(lambda r: bool(r.events))
            await third.end()

    go(story)


@pytest.mark.stores("sqlite")
def test_the_end_of_a_token_ends_its_stream(world: World, run: Run) -> None:
    """What is recorded after it was revoked is not told any more."""
    token = new_token(run, "viewer")
    (token_id,) = [
        t["token_id"] for t in run("tokens", "list", "--output", "json").document["tokens"]
    ]

    async def story() -> None:
        async with serving(world) as app:
            reader = Reader(app, token, "after=0")
            reader.begin()
            await reader.until(lambda r: positions(r) == whole(world))
            seen = positions(reader)
            run("tokens", "revoke", token_id, "--reason", "left")
            app.state.identities.forget()
            assert reader._task is not None
            await asyncio.wait_for(reader._task, PATIENCE)
            assert positions(reader) == seen

    go(story)


@pytest.mark.stores("sqlite")
def test_an_id_that_no_event_has_is_refused(world: World, run: Run) -> None:
    """Rather than leave out what came meanwhile."""
    token = new_token(run, "viewer")

    async def story() -> None:
        async with serving(world) as app:
            reader = Reader(app, token, "after=0", last="yesterday")
            reader.begin()
            await reader.until(lambda r: r.status > 0)
            assert reader.status == 422
            await reader.end()

    go(story)


@pytest.mark.stores("sqlite")
def test_the_end_of_the_server_ends_the_stream(world: World, run: Run) -> None:
    """Its clients come back to another one."""
    token = new_token(run, "viewer")

    async def story() -> None:
        async with serving(world) as app:
            reader = Reader(app, token, "after=0")
            reader.begin()
            await reader.until(lambda r: bool(r.events))
            app.state.tail.end()
            assert reader._task is not None
            await asyncio.wait_for(reader._task, PATIENCE)

    go(story)
