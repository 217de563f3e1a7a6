"""The stream of events: Server-Sent Events out of the log itself, so that a client that comes back
with `Last-Event-ID`, to whichever process, misses nothing (HTML Living Standard, 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from application import history
from interfaces.rest import asked
from interfaces.rest.asked import parameters
from interfaces.rest.looks import Looks
from interfaces.rest.problems import FAILURES, Problem
from interfaces.rest.replies import problems

router = APIRouter(prefix="/api/v1")

Read = Callable[[int], Awaitable[tuple[int, list[dict[str, Any]]]]]
"""Position -> the end of the log, and the next events behind that position."""

TICK = 0.2
"""Seconds between two looks at the end of the log."""

BEAT = 15.0
"""Seconds of silence after which a comment is sent: whoever is gone is noticed."""

AT_ONCE = 100
"""Events that are read for one client before the others have their turn."""

MEDIA_TYPE = "text/event-stream"


class Tail:
    """The end of the log as all clients of one process wait for it: one look a tick, however many
    they are. A client that is slow, or gone, holds up nobody: it reads at its own pace."""

    def __init__(self, looks: Looks, most: int) -> None:
        self._looks = looks
        self.most = most
        self.clients = 0
        self.position = 0
        self.ending = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def join(self) -> None:
        self.clients += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())

    def leave(self) -> None:
        self.clients -= 1

    async def _follow(self) -> None:
        while self.clients and not self.ending:
            try:
                position = await self._looks.end()
            except FAILURES:
                position = -1  # the clients look themselves, and are told
            if position != self.position:
                self.position = position
                self._wake()
            await asyncio.sleep(TICK)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Until the log has gone on, at most so long."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return

    def end(self) -> None:
        """Let all clients go; they come back to another process."""
        self.ending = True
        self._wake()


_PARAMETERS = parameters(asked.Following)
_PARAMETERS["parameters"].append(
    {
        "name": "Last-Event-ID",
        "in": "header",
        "schema": {"type": "string", "maxLength": 19},
        "description": "the position of the last event that was received",
    }
)


@router.get(
    "/events/stream",
    tags=["events"],
    summary="Follow the log",
    response_class=Response,
    responses={
        200: {"description": "events as they are recorded", "content": {MEDIA_TYPE: {}}},
        **problems(),
    },
    openapi_extra=_PARAMETERS,
)
async def follow_events(request: Request) -> Response:
    """Each event's `id` is its position, `event` its topic, `data` the document of `/events`."""
    wish = asked.asked(request, asked.Following)
    looks: Looks = request.app.state.looks
    tail: Tail = request.app.state.tail
    if tail.clients >= tail.most:
        raise Problem(
            503,
            "too-many-streams",
            f"{tail.most} clients follow the log here already (server.max_streams)",
            {"Retry-After": "10"},
        )
    position = wish.after
    last = request.headers.get("last-event-id")
    if last is not None:
        if not last.isdecimal() or len(last) > 18:
            raise Problem(422, "invalid", "Last-Event-ID: the id of an event of this stream")
        position = int(last)
    if position is None:
        position = await looks.end()
    identities, token = request.app.state.identities, request.scope["state"]["token"]

    async def read(after: int) -> tuple[int, list[dict[str, Any]]]:
        def question(view: Any) -> tuple[int, list[dict[str, Any]]]:
            end = view.end()[0]
            rows = view.events_between(after, end, wish.topic, AT_ONCE)
            return end, [history.event_of(row) for row in rows]

        return await looks.ask(question, is_quick=wish.topic is None)

    async def is_let_in() -> bool:
        try:
            await identities.of(token)
        except Problem:
            return False
        return True

    await read(position)  # what fails at once is told before the answer has begun
    return StreamingResponse(
        _events(tail, read, position, is_let_in),
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    tail: Tail, read: Read, position: int, is_let_in: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Until the server ends, the token does, or the store cannot be read: whoever comes back is
    told."""
    tail.join()
    try:
        yield b"retry: 2000\n\n"
        while not tail.ending and await is_let_in():
            end, events = await read(position)
            for event in events:
                yield b"id: %d\nevent: %s\ndata: %s\n\n" % (
                    event["position"], event["topic"].encode(), orjson.dumps(event),
                )  # fmt: skip
            if len(events) == AT_ONCE:
                position = events[-1]["position"]
                await asyncio.sleep(0)
                continue
            position = max(position, end)
            if tail.position <= position:
                before = tail.position
                await tail.wait(BEAT)
                if tail.position == before:
                    yield b": still here\n\n"
    except FAILURES:
        return
    finally:
        tail.leave()
