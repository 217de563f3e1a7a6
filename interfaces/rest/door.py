"""The door of the server: every request passes here, before any of its content is looked at."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from itertools import count
from os import urandom
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interfaces.rest.health import STREAM, Watching
from interfaces.rest.identity import Identities, Principal, unauthenticated
from interfaces.rest.problems import FAILURES, Problem, of_failure, response

OPEN = frozenset({"/livez", "/readyz", "/openapi.json", "/login"})
"""Paths that need no token; and what lies below /static/."""

WHEN_DRAINING = frozenset({"/livez", "/readyz", "/metrics"})

UNCOUNTED = WHEN_DRAINING | {STREAM}
"""Paths that take no place among the requests that are worked on: those that say how the server is,
and the stream, of which `server.max_streams` clients are let in."""

COOKIE = "hostledger"
WINDOW = 10.0
"""Seconds over which requests are counted against a credential's rate."""

GUESSES = 20
"""Wrong tokens of one address in that time, before it is told to wait."""

MOST_COUNTED = 10_000
"""Credentials and addresses that are counted at once."""

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-cache"),
]
"""Of each answer, where it does not say otherwise."""


class Door:
    """Sizes, times, rates and identity; and what is told when the server is about to end.

    `scope["state"]` then has `principal`, `token` and `request_id`.
    """

    def __init__(
        self,
        app: ASGIApp,
        identities: Identities,
        settings: Mapping[str, Any],
        processing: Mapping[str, Any],
        watching: Watching,
    ) -> None:
        self._app = app
        self._watching = watching
        self._identities = identities
        self.room = Room(processing["max_concurrent_requests"], processing["request_queue_size"])
        self._most = settings["max_body"]
        self._timeout = settings["request_timeout"]
        self._rate = Rate(settings["requests_per_second"] * WINDOW)
        self._guesses = Rate(GUESSES)
        self.draining = False
        self.under_way = 0
        # Random ones one by one would each let the store's thread go first.
        self._request_ids = count(int.from_bytes(urandom(7)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        with self._watching.request(scope) as span:
            answer = _Answer(send, f"{next(self._request_ids):016x}", self)
            try:
                await self._serve(scope, receive, answer)
            finally:
                took = time.perf_counter() - began
                self._watching.answered(scope, answer.status, took, span)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        state = scope.setdefault("state", {})
        state["request_id"] = answer.request_id
        self.under_way += 1
        try:
            headers = scope["headers"]
            if b"%00" in scope["query_string"] or "\0" in scope["path"]:
                raise Problem(422, "invalid", "no id and no name has a NUL in it")
            await self._let_in(scope, headers, state)
            body = _Body(receive, self._most, self._timeout, headers)
            come = body if body.comes else receive
            if scope["path"] in UNCOUNTED:
                await self._app(scope, come, answer)
                return
            if not self.room.enter():
                await self.room.wait()
            try:
                await self._app(scope, come, answer)
            finally:
                self.room.leave()
        except Problem as problem:
            if answer.began:
                raise
            told: Response = response(problem, answer.request_id)
            if problem.status == 401 and scope["method"] == "GET" and wants_page(scope):
                told = RedirectResponse(f"/login?{urlencode({'next': _address(scope)})}", 303)
            await told(scope, receive, answer)
        finally:
            self.under_way -= 1

    async def _let_in(self, scope: Scope, headers: Any, state: dict[str, Any]) -> None:
        """Raises Problem."""
        path = scope["path"]
        if self.draining and path not in WHEN_DRAINING:
            raise Problem(
                503, "ending", "this server is about to end: ask again in a moment",
                {"Retry-After": "5", "Connection": "close"},
            )  # fmt: skip
        if path in OPEN or path.startswith("/static/"):
            return
        token, by_cookie = _token(headers)
        if token is None:
            raise unauthenticated("no token was sent")
        if by_cookie and scope["method"] not in ("GET", "HEAD"):
            refuse_other_origin(headers)
        principal = await self.identify(scope, token)
        self._rate.refuse_more(principal.name)
        state["principal"], state["token"] = principal, token

    async def identify(self, scope: Scope, token: str) -> Principal:
        """Whose token it is; a wrong one is a guess of its address. Raises Problem."""
        try:
            return await self._identities.of(token)
        except Problem:
            # Who has a right one is not kept waiting: behind a proxy all have its address.
            self._guesses.refuse_more((scope.get("client") or ("local",))[0])
            raise
        except FAILURES as error:
            raise of_failure(error) from error


def wants_page(scope: Scope) -> bool:
    """Whether a browser asks for a page of the console."""
    path = scope["path"]
    return (path in ("/", "/console") or path.startswith("/console/")) and any(
        name == b"accept" and b"text/html" in value for name, value in scope["headers"]
    )


def _address(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return quote(scope["path"]) + (f"?{query}" if query else "")


class Room:
    """So many requests are worked on at a time, so many more wait in their order."""

    def __init__(self, most: int, most_waiting: int) -> None:
        self._free = most
        self._most_waiting = most_waiting
        self.waiting: deque[asyncio.Future[None]] = deque()

    def enter(self) -> bool:
        """Take a place; False where there is none. Raises Problem 503 where none more may wait."""
        if self._free:
            self._free -= 1
            return True
        if len(self.waiting) >= self._most_waiting:
            raise Problem(
                503, "too-busy",
                f"{self._most_waiting} requests wait here already (processing.request_queue_size)",
                {"Retry-After": "1"},
            )  # fmt: skip
        return False

    async def wait(self) -> None:
        """Until a place is handed over."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()
            elif turn in self.waiting:  # else `leave` has passed it over
                self.waiting.remove(turn)
            raise

    def leave(self) -> None:
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Rate:
    """So many per WINDOW and name, counted in windows of fixed begin."""

    def __init__(self, most: float, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._began = float("-inf")
        self._counts: dict[str, int] = {}

    def refuse_more(self, name: str) -> None:
        """Count one. Raises Problem 429."""
        now = self._now()
        if now - self._began >= WINDOW or len(self._counts) > MOST_COUNTED:
            self._began = now
            self._counts.clear()
        count = self._counts.get(name, 0)
        if count >= self._most:
            wait = max(1, round(self._began + WINDOW - now))
            raise Problem(
                429, "too-many-requests",
                f"more than {self._most:g} requests in {WINDOW:g} s: wait {wait} s "
                "(server.requests_per_second)",
                {"Retry-After": str(wait)},
            )  # fmt: skip
        self._counts[name] = count + 1


class _Body:
    """A request's body as it comes: not more of it than is allowed, and not for ever."""

    def __init__(self, receive: Receive, most: int, seconds: float, headers: Any) -> None:
        self._receive = receive
        self._left = most
        self._most = most
        self._seconds = seconds
        self._whole = False
        self.comes = False
        for name, value in headers:
            if name == b"content-length":
                self.comes = value != b"0"
                if len(value) > 18 or int(value) > most:
                    raise self._too_large()
            elif name == b"transfer-encoding":
                self.comes = True

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "body-too-large",
            f"a body of at most {self._most} bytes is taken (server.max_body)",
        )

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._seconds):
                message = await self._receive()
        except TimeoutError:
            raise Problem(
                408, "body-too-slow", f"the body did not come within {self._seconds:g} s",
                {"Connection": "close"},
            ) from None  # fmt: skip
        if message["type"] == "http.disconnect":
            raise Problem(400, "body-not-whole", "the connection ended before the body had come")
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._too_large()
        self._whole = not message.get("more_body")
        return message


class _Answer:
    """Sends with the headers that all answers have."""

    def __init__(self, send: Send, request_id: str, door: Door) -> None:
        self._send = send
        self.request_id = request_id
        self._door = door
        self.began = False
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            self.status = message["status"]
            headers = message["headers"] = list(message.get("headers", ()))
            said = {name for name, _ in headers}
            headers += [header for header in HEADERS if header[0] not in said]
            headers.append((b"x-request-id", self.request_id.encode()))
            if self._door.draining and b"connection" not in said:
                headers.append((b"connection", b"close"))
        await self._send(message)


def _token(headers: Any) -> tuple[str | None, bool]:
    """The token that was sent, and whether a browser did so by itself."""
    cookies = ""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return (token.strip() if scheme.lower() == "bearer" else None), False
        if name == b"cookie":
            cookies = value.decode("latin-1")
    if COOKIE not in cookies:
        return None, False
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None, False
    return (morsel.value if morsel else None), True


def refuse_other_origin(headers: Any) -> None:
    """What a browser sends with a cookie must come from a page of ours. Raises Problem 403."""
    sent = {name: value for name, value in headers if name in (b"origin", b"host")}
    origin = sent.get(b"origin", b"").partition(b"://")[2]
    if not origin or origin != sent.get(b"host"):
        raise Problem(403, "other-origin", "a form of another site cannot command this server")


def principal_of(request: Any) -> Principal:
    """Who asks, of a request that was let in."""
    return request.scope["state"]["principal"]  # type: ignore[no-any-return]


def refuse_below(request: Any, role: str) -> None:
    """Raises Problem 403 for who may not do what takes this role."""
    from domain.token import allows

    principal = principal_of(request)
    if not allows(principal.role, role):
        raise Problem(
            403,
            "forbidden",
            f"this takes the role {role}; the token has {principal.role}: "
            f"`hostledger tokens create --role {role}` makes one",
        )
