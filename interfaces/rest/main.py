"""`hostledger server run`: one process that listens, and ends without cutting anybody off."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from application.failures import BrokenConfiguration
from application.ports import CallFailed
from interfaces.allotment import keep_to_allotment
from interfaces.loading import loads
from interfaces.read_side import Call
from interfaces.rest.app import create_app
from interfaces.rest.processes import Processes

WAITING = 1024
"""Connections that the system holds until they are taken."""

KEEP_ALIVE = 30
"""Seconds that a connection without a request is kept."""


class _Patient(HttpToolsProtocol):
    """A connection whose requests come within `server.request_timeout`, or which is closed: a
    client that sends a letter a second holds it for no longer."""

    patience = 10.0
    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._giving_up = self.loop.call_later(self.patience, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None


class Server(uvicorn.Server):
    """At SIGTERM, what is under way finishes, new requests are told to come back, then it ends. At
    a second signal it ends at once."""

    def __init__(
        self, config: uvicorn.Config, app: Any, patience: float, say: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self._say = say
        self._app = app
        self._patience = patience
        self._until: float | None = None
        self._parent = os.getppid()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._say is not None:
            self._say()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        door = self._app.state.door
        if door.draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self._drain()

    def _drain(self) -> None:
        self._app.state.door.draining = True
        asyncio.get_running_loop().call_soon_threadsafe(self._app.state.tail.end)

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        self._app.state.memory_looks.tick()
        loads.tell()
        door = self._app.state.door
        if self._say is None and os.getppid() != self._parent and not door.draining:
            self._drain()  # whoever started it is gone: nobody else would end it
        if not door.draining:
            return False
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._patience
        if door.under_way > self._app.state.tail.clients and now < self._until:
            return False
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            if connection.flow.write_paused:
                connection.transport.abort()  # it takes nothing: it is not waited for
        return True


def listen(settings: Mapping[str, Any]) -> socket.socket:
    """Raises OSError where the address cannot be had."""
    path = settings["socket"]
    host, port = settings["host"], settings["port"]
    try:
        if path:
            return _listen_at(path)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if family == socket.AF_INET:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(WAITING)
    except OSError as error:
        raise OSError(f"cannot listen on {path or f'{host}:{port}'}: {error}") from None
    return listening


def _listen_at(path: str) -> socket.socket:
    """A socket file that nobody answers at is of a server that was killed: it is replaced."""
    try:
        is_left = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        is_left = False
    if is_left:
        with socket.socket(socket.AF_UNIX) as asking:
            if asking.connect_ex(path) == 0:
                raise OSError("another server answers there")
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        listening.bind(path)
    finally:
        os.umask(before)
    listening.listen(WAITING)
    return listening


def _check_certificate(certificate: str, key: str) -> None:
    """Raises OSError naming the two that cannot be used."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        raise OSError(
            f"server.tls_certificate {certificate} with server.tls_key {key}: {error}"
        ) from None


def address(settings: Mapping[str, Any], listening: socket.socket) -> str:
    if settings["socket"]:
        return f"unix:{settings['socket']}"
    host, port = listening.getsockname()[:2]
    scheme = "https" if settings["tls_certificate"] else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def run(call: Call, settings: Mapping[str, Any], *, with_worker: bool = False) -> int:
    """Listen until told to end; `settings` are the server's, with what the command line says.
    Exit status. Raises BrokenConfiguration, StoreError, OSError."""
    if settings["tls_certificate"]:
        _check_certificate(settings["tls_certificate"], settings["tls_key"])
    listening = listen(settings)
    processes = call.settings["performance"]["cpu"]["worker_processes"]
    say = partial(print, f"hostledger: listening on {address(settings, listening)}", flush=True)
    try:
        if processes == 1 and not with_worker:
            return _answer(call, settings, listening, say)
        load_at_start(call)
        works = [
            (f"server {number}", partial(_answer, call, settings, listening))
            for number in range(1, processes + 1)
        ]
        if with_worker:
            works.append(("worker", partial(_work, call)))
        return Processes(works, call.journal()).run(say)
    finally:
        if settings["socket"]:
            os.unlink(settings["socket"])


def _work(call: Call) -> int:
    from interfaces.worker.main import run as work

    return work(call.site, call.environ, stay=True)


def _answer(
    call: Call,
    settings: Mapping[str, Any],
    listening: socket.socket,
    say: Callable[[], None] | None = None,
) -> int:
    """`say` is called when requests are answered; without it this is one of several processes."""
    keep_to_allotment(call.settings["performance"], call.journal())
    with loads.loading("app"):
        app = create_app(call.site, call.environ, sys.executable)
    load_at_start(call, app)
    return serve(app, settings, listening, say)


def load_at_start(call: Call, app: FastAPI | None = None) -> None:
    """Load and open what the site wants before anybody asks; without an application, for those that
    will be in processes of their own, find out whether it can be. Raises NotInstalled, StoreError,
    BrokenConfiguration."""
    lazy = call.settings["performance"]["lazy_loading"]
    eager = not lazy["enabled"] or lazy["discovery_mode"] == "eager" or lazy["preload_critical"]
    try:
        if eager:
            with loads.loading("interfaces.write_side"):
                from interfaces.write_side.server import load_server
            load_server(call.site, call.environ, app and app.state.watching.metrics)
        if lazy["connection_mode"] == "eager":
            with loads.loading("connection for queries"):
                if app is None:
                    call.queries().close()
                else:
                    app.state.looks.open()
            if app is not None:
                with loads.loading("connection for commands"):
                    app.state.commands.open()
    except CallFailed as failed:
        raise BrokenConfiguration(str(failed)) from None
    finally:
        loads.tell()


def serve(
    app: FastAPI,
    settings: Mapping[str, Any],
    listening: socket.socket,
    say: Callable[[], None] | None,
) -> int:
    """The same of an application (`create_app`)."""
    _Patient.patience = settings["request_timeout"]
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Patient,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=WAITING,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings["drain_timeout"]) + 1,
        ssl_certfile=settings["tls_certificate"],
        ssl_keyfile=settings["tls_key"],
    )
    server = Server(config, app, settings["drain_timeout"], say)
    server.run([listening])
    return 0 if server.started else 1
