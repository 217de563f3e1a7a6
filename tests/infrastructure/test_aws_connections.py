"""How long AWS is waited for and how many connections are kept, as who answers sees it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from application.ports import CallFailed
from infrastructure.aws.client import Connection
from infrastructure.settings.aws import Aws
from infrastructure.telemetry.journal import Journal
from tests.fakes.clock import FakeClock
from tests.infrastructure.aws_cloud import LOGGING

PATIENCE = 30.0
"""Seconds after which what should have come has not."""

BODY = b"<DescribeRegionsResponse><regionInfo/></DescribeRegionsResponse>"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)


class Answering:
    """AWS's end of the wire; answers wait for `go_on`."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.changed = threading.Condition()
        self.asked = 0
        self.open = 0
        self.go_on = threading.Event()
        self._before: list[socket.socket] = []

    def fill(self) -> None:
        """Whoever connects now is not let in before `answer`."""
        self.listening.listen(0)
        for _ in range(2):  # Linux keeps one more than the backlog
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self.listening.getsockname())
            self._before.append(waiting)

    def answer(self) -> None:
        """Let everybody in."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _count(self, name: str, by: int) -> None:
        with self.changed:
            setattr(self, name, getattr(self, name) + by)
            self.changed.notify_all()

    def _serve(self, connection: socket.socket) -> None:
        self._count("open", 1)
        try:
            while read := connection.recv(65536):
                if read.count(b"\r\n\r\n"):
                    self._count("asked", 1)
                    self.go_on.wait(PATIENCE)
                    connection.sendall(ANSWER)
        except OSError:
            pass
        self._count("open", -1)
        connection.close()

    def wait_until(self, condition: Any) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, PATIENCE)

    def close(self) -> None:
        for waiting in self._before:
            waiting.close()
        self.go_on.set()
        self.listening.close()


@pytest.fixture
def aws() -> Iterator[Answering]:
    answering = Answering()
    yield answering
    answering.close()


def connection(aws: Answering, **settings: Any) -> Connection:
    given = {"region": "us-east-1", "endpoint_url": aws.url, **settings}
    return Connection(Aws.model_validate(given), FakeClock(), Journal("", LOGGING), None)


def call(pool: ThreadPoolExecutor, aws: Connection) -> Future[Any]:
    return pool.submit(aws.call, "DescribeRegions", {})


@pytest.mark.parametrize(("settings", "kept"), [({}, 3), ({"max_pool_connections": 1}, 1)])
def test_so_many_connections_are_kept(aws: Answering, settings: Any, kept: int) -> None:
    """`max_pool_connections`: three are needed at once, and so many of them stay."""
    aws.answer()
    with ThreadPoolExecutor(3) as pool:
        asked = connection(aws, config=settings)
        calls = [call(pool, asked) for _ in range(3)]
        assert aws.wait_until(lambda: aws.asked == 3)
        aws.go_on.set()
        for each in calls:
            each.result(PATIENCE)
        assert aws.wait_until(lambda: aws.open <= kept)
        assert aws.open == kept


def test_how_long_an_answer_is_waited_for(aws: Answering) -> None:
    """`read_timeout`: one call gives up, the other is answered after that."""
    aws.answer()
    with ThreadPoolExecutor(2) as pool:
        impatient = call(pool, connection(aws, timeouts={"read_timeout": 0.3}))
        patient = call(pool, connection(aws, timeouts={"read_timeout": 2 * PATIENCE}))
        assert isinstance(impatient.exception(PATIENCE / 2), CallFailed)
        assert aws.wait_until(lambda: aws.asked == 2)
        assert not patient.done()
        aws.go_on.set()
        patient.result(PATIENCE)


def test_how_long_a_connection_is_waited_for(aws: Answering) -> None:
    """`connect_timeout`: one call gives up, the other is let in after that."""
    aws.fill()
    with ThreadPoolExecutor(2) as pool:
        impatient = call(pool, connection(aws, timeouts={"connect_timeout": 0.3}))
        patient = call(pool, connection(aws, timeouts={"connect_timeout": 2 * PATIENCE}))
        assert isinstance(impatient.exception(PATIENCE / 2), CallFailed)
        assert not patient.done()
        aws.answer()
        aws.go_on.set()
        patient.result(PATIENCE)
