"""`hostledger server run`: one process that listens, and ends without cutting anybody off."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from interfaces.read_side import Site
from interfaces.rest.app import create_app

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

    def __init__(self, config: uvicorn.Config, app: Any, patience: float) -> None:
        super().__init__(config)
        self._app = app
        self._patience = patience
        self._until: float | None = None

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listening in server.sockets:
                print(f"hostledger: listening on {_address(self.config, listening)}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        door = self._app.state.door
        if door.draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        door.draining = True
        asyncio.get_event_loop().call_soon_threadsafe(self._app.state.tail.end)

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        self._app.state.memory_looks.tick()
        door = self._app.state.door
        if not door.draining:
            return False
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._patience
        return not door.under_way or now >= self._until


def _address(config: uvicorn.Config, listening: Any) -> str:
    if config.uds:
        return f"unix:{config.uds}"
    host, port = listening.getsockname()[:2]
    scheme = "https" if config.is_ssl else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def run(site: Site, environ: Mapping[str, str], settings: Mapping[str, Any]) -> int:
    """Listen until told to end. Exit status. Raises BrokenConfiguration, StoreError, OSError."""
    return listen(create_app(site, environ, sys.executable), settings)


def listen(app: FastAPI, settings: Mapping[str, Any]) -> int:
    """The same for an application (`create_app`)."""
    _Patient.patience = settings["request_timeout"]
    config = uvicorn.Config(
        app,
        host=settings["host"],
        port=settings["port"],
        uds=settings["socket"],
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
    server = Server(config, app, settings["drain_timeout"])
    server.run()
    return 0 if server.started else 1
