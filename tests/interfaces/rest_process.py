"""The server as a real process on a socket, and clients that write what bytes they like."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.world import World

HOSTLEDGER = Path(sys.executable).parent / "hostledger"
PATIENCE = 30.0
NOWHERE = "http://127.0.0.1:1"
"""An endpoint that refuses every connection at once."""


class Heard(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.body)  # type: ignore[no-any-return]


def wait_for(condition: Callable[[], bool]) -> None:
    """A real process is involved: look until it is so, on a bounded loop."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


class Connection:
    """One connection of a client."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._read = b""

    def send(self, data: bytes) -> Connection:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed meanwhile: what is heard says so
        return self

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._read += data
        return bool(data)

    def hear(self) -> Heard | None:
        """The next answer; None when the server closed the connection instead."""
        while b"\r\n\r\n" not in self._read:
            if not self._more():
                return None
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._read) < length and self._more():
            pass
        body, self._read = self._read[:length], self._read[length:]
        return Heard(int(first.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Once all was heard, whether the server closes it within its patience."""
        return self.hear() is None

    def has_heard(self) -> bool:
        return bool(self._read) or bool(select.select([self.socket], [], [], 0)[0])

    def close(self) -> None:
        self.socket.close()


class Server:
    """A process of `hostledger server run`."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.connections: list[Connection] = []
        self.address = address
        self.port = int(address.rpartition(":")[2]) if "//" in address else 0

    def connect(self) -> Connection:
        """It is closed with the server, at the latest."""
        self.connections.append(Connection(self.port))
        return self.connections[-1]

    def ask(self, token: str, path: str, method: str = "GET", body: bytes = b"") -> Heard:
        """One request on a connection of its own."""
        connection = self.connect()
        try:
            heard = connection.send(request(path, token, method, body)).hear()
        finally:
            connection.close()
        assert heard is not None
        return heard

    def end(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def request(
    path: str, token: str = "", method: str = "GET", body: bytes = b"", more: bytes = b""
) -> bytes:
    """The bytes of a request; `more` are header lines, each with its end."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode("latin-1")
    if token:
        head += b"Authorization: Bearer " + token.encode() + b"\r\n"
    if body or method == "POST":
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head + more + b"\r\n" + body


def environ_of(world: World, **variables: str) -> dict[str, str]:
    """HostFactory's environment for a world's instance, with these variables."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HOSTLEDGER_"))}
    return environ | {
        "HF_PROVIDER_NAME": world.site.provider,
        "HF_PROVIDER_CONFDIR": world.site.conf_dir,
        "HF_PROVIDER_WORKDIR": world.site.work_dir,
        "HF_PROVIDER_LOGDIR": world.site.log_dir,
        "HOSTLEDGER_SERVER__PORT": "0",
        "AWS_ENDPOINT_URL": NOWHERE,
        **world.environ,
        **variables,
    }


@contextmanager
def server_process(world: World, *words: str, **variables: str) -> Iterator[Server]:
    """The server over a world's site, with these variables beside the world's."""
    process = subprocess.Popen(
        [str(HOSTLEDGER), "server", "run", *words],
        env=environ_of(world, **variables), cwd="/",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("hostledger: listening on "), process.communicate()
        server = Server(process, line.split()[-1])
        yield server
        for connection in server.connections:
            connection.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
