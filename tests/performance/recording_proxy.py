"""A loopback HTTP proxy before the sandbox's server that writes down each AWS call it forwards."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

Sent = tuple[str, float]
"""The Action of a call, and the seconds of the clock at which it came."""


class RecordingProxy:
    """Forwards to the server at `target`; `seconds` tells the time of the calls."""

    def __init__(self, target: str, seconds: Callable[[], float]) -> None:
        self.sent: list[Sent] = []
        self._server = _Server(target, seconds, self.sent)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, seconds: Callable[[], float], sent: list[Sent]) -> None:
        self.target = urlsplit(target).netloc
        self.seconds = seconds
        self.sent = sent
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    server: _Server
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; without this the second waits for a delayed ACK (40 ms).
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(self.server.target)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.sent.append(
            (action_of(self.headers.get("X-Amz-Target"), body), self.server.seconds())
        )
        self._upstream.request("POST", self.path, body, dict(self.headers.items()))
        answer = self._upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # the client went away; that is its right

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what is said is the report."""


def action_of(target: str | None, body: bytes) -> str:
    """The action of a request, in the query protocol or in AWS's JSON protocols."""
    if target:
        return target.rpartition(".")[2]
    return parse_qs(body.decode()).get("Action", [json.dumps("no action")])[0]
