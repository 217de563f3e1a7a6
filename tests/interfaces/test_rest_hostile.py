"""What nobody who means well sends: refused with a problem, or the connection is closed; and the
server goes on answering."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from domain.identifiers import TERMINATION, new_id
from domain.termination_batch import TerminationBatch
from interfaces.rest import asked
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import new_token
from tests.interfaces.rest_process import Heard, Server, request, server_process, wait_for
from tests.world import World

POST = "/api/v1/requests"
INJECTIONS = ("'", "x' OR '1'='1", "1; DROP TABLE requests;--", 'x" --', "%27", "\\", "*")
REFUSED = (400, 404, 408, 413, 414, 422, 431)


@pytest.fixture
def served(world: World, run: Run) -> Iterator[tuple[Server, str]]:
    """A server with a request of two machines, and an operator's token."""
    fulfilled(world, 2)
    token = new_token(run, "operator")
    with server_process(world, HOSTLEDGER_SERVER__REQUEST_TIMEOUT="1") as server:
        yield server, token
        heard = server.ask(token, "/api/v1/requests")
        assert heard.status == 200
        assert len(heard.document["requests"]) == 1, heard
        assert server.end() == 0
    log = Path(world.site.log_file)
    assert not log.exists() or '"defect"' not in log.read_text()


def refuses(heard: Heard | None) -> None:
    """With a problem of ours, with the parser's own words, or by closing."""
    if heard is None:
        return
    assert heard.status in REFUSED, heard
    if heard.headers["content-type"] == "application/problem+json":
        assert heard.document["status"] == heard.status


def test_what_is_in_a_parameter_is_never_sql(served: tuple[Server, str]) -> None:
    """In each of each listing's, and in each path: nothing is found, or it is refused."""
    server, token = served
    listings = {
        "requests": asked.Requests, "machines": asked.Machines, "batches": asked.Batches,
        "events": asked.Events, "reports/usage": asked.Report, "templates": asked.When,
    }  # fmt: skip
    connection = server.connect()
    for name, model in listings.items():
        for parameter in model.model_fields:
            for text in INJECTIONS:
                path = f"/api/v1/{name}?{parameter}={quote(text)}"
                heard = connection.send(request(path, token)).hear()
                assert heard is not None, path
                assert heard.status in (200, 422), (path, heard)
                if heard.status == 200:
                    key = name.partition("/")[0]
                    assert not heard.document.get(key), (path, heard)
    for place in ("requests", "machines", "history", "reports", "templates", "batches"):
        for text in INJECTIONS:
            path = f"/api/v1/{place}/{quote(text, safe='')}"
            heard = connection.send(request(path, token)).hear()
            assert heard is not None
            assert heard.status in (404, 422), (place, text, heard)


def test_no_path_leads_out(served: tuple[Server, str]) -> None:
    server, token = served
    for path in (
        "/../../etc/passwd", "/api/v1/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../../../../etc/passwd", "/static/..%2f..%2f..%2fetc/passwd",
        "/static/%2e%2e/%2e%2e/interfaces/rest/app.py", "//etc/passwd", "/static//etc/passwd",
        "/api/v1/requests/..%2f..%2ftokens", "/api/v1/history/../../../../etc/passwd",
    ):  # fmt: skip
        heard = server.ask(token, path)
        assert heard.status in (401, 403, 404), (path, heard)
        assert b"root:" not in heard.body


HEADS = [
    request("/api/v1/requests", more=b"X-Long: " + b"a" * 1_000_000 + b"\r\n"),
    request("/api/v1/requests", more=b"X-Many: 1\r\n" * 100_000),
    request("/api/v1/requests?status=" + "a" * 1_000_000),
    b"GET /" + b"a" * 1_000_000,
    b"\x00\x01\x02\x03\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    request("/", more=b"A\x00B: 1\r\n"),
    request("/", more=b"Authorization: Bearer \xff\xfe\r\n"),
    request("/\xff\xfe"),
    request("/api/v1/requests", more=b" folded: 1\r\n"),
]


def test_a_head_that_is_none(served: tuple[Server, str]) -> None:
    server, _ = served
    for text in HEADS:
        heard = server.connect().send(text).hear()
        if heard is None or heard.status != 401:  # that one is taken as it is: nobody is let in
            refuses(heard)


def test_two_ends_of_a_body(served: tuple[Server, str]) -> None:
    """What one program takes for a body must not be the next request to another."""
    server, token = served
    inner = request("/api/v1/tokens", token)
    hidden = b"0\r\n\r\n" + inner
    length = b"Content-Length: %d\r\n" % len(hidden)
    head = request(POST, token, "GET").replace(b"GET", b"POST", 1)[:-2]
    for lines in (
        length + b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n" + length,
        b"Content-Length: 5\r\n" + length,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n" + length,
        b"Transfer-Encoding : chunked\r\n" + length,
        b"Content-Length: +5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
    ):
        connection = server.connect().send(head + lines + b"\r\n" + hidden)
        first = connection.hear()
        refuses(first)
        second = None if first is None else connection.hear()
        assert second is None or second.status >= 400, (lines, second)
        connection.close()


def test_a_body_that_is_too_large(served: tuple[Server, str]) -> None:
    """Whether it says so before, or not."""
    server, token = served
    body = b'{"template_id": "' + b"a" * 200_000 + b'", "machine_count": 1}'
    head = request(POST, token).replace(b"GET", b"POST", 1)[:-2]
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    for text in (
        head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        request(POST, token, "POST", body),
    ):
        heard = server.connect().send(text).hear()
        assert heard is not None
        assert heard.status == 413


def test_bodies_that_are_no_request(served: tuple[Server, str]) -> None:
    server, token = served
    deep = 30_000
    for body in (
        b"[" * deep, b"[" * deep + b"]" * deep, b'{"a":' * (deep // 3) + b"1" + b"}" * (deep // 3),
        b'"\xff\xfe"', b"\xef\xbb\xbf{}", b"null", b"[]", b"7", b"", b"NaN", b"{", b"\x00",
        b'{"template_id": "a\\u0000b", "machine_count": 1}',
        b'{"template_id": "\\ud800", "machine_count": 1}',
        b'{"template_id": "OnDemand-A", "machine_count": 1e400}',
        b'{"template_id": "OnDemand-A", "machine_count": NaN}',
        b'{"template_id": "OnDemand-A", "machine_count": %s}' % (b"9" * 60_000),
        b'{"template_id": "OnDemand-A", "machine_count": 0.5}',
        b'{"template_id": "OnDemand-A", "machine_count": -1}',
        b'{"template_id": "OnDemand-A", "machine_count": true}',
        b'{"template_id": "OnDemand-A", "machine_count": "1"}',
        b'{"template_id": "' + b"A" * 60_000 + b'", "machine_count": 1}',
        b'{"template_id": "OnDemand-A", "machine_count": 1, "role": "admin"}',
        json.dumps({"template_id": "OnDemand-A", "machine_count": 1, "reason": "a\nb\x1b[31m"})
        .encode(),
    ):  # fmt: skip
        heard = server.ask(token, POST, "POST", body)
        assert heard.status in (400, 422), (body[:80], heard)
        assert heard.headers["content-type"] == "application/problem+json"
        assert len(heard.body) < 2_000


def test_a_body_of_another_type(served: tuple[Server, str]) -> None:
    """As a form of another site could send one."""
    server, token = served
    body = b'{"template_id": "OnDemand-A", "machine_count": 1}'
    for kind in (b"text/plain", b"", b"application/jsonx", b"application/x-www-form-urlencoded"):
        sent = request(POST, token, "POST", body).replace(b"application/json", kind)
        heard = server.connect().send(sent).hear()
        assert heard is not None
        assert heard.status == 422, (kind, heard)


def test_a_client_that_goes_amid_its_body(served: tuple[Server, str]) -> None:
    """It is no defect of ours."""
    server, token = served
    whole = request(POST, token, "POST", b"{" + b" " * 5_000 + b"}")
    server.connect().send(whole[:-4_000]).close()


def test_odd_bytes_in_parameters(served: tuple[Server, str]) -> None:
    server, token = served
    for query in (
        "status=%ff%fe", "status=%00", "cursor=%00", "cursor=%ff", "cursor=" + "A" * 900,
        "limit=" + "9" * 5_000, "limit=1e3", "limit=-1", "limit=0x10", "wait_for=" + "9" * 30,
        "as_of=" + "9" * 30, "as_of=9999-99-99", "as_of=%00", "as_of=-1", "sort=%00",
        "fields=" + "," * 500, "a" * 300 + "=1", "status=a&status=b&&&==", "%", "%zz=%zz",
        "created_since=0001-01-01T00:00:00%2B23:59", "created_until=9999-12-31T23:59:59-23:59",
    ):  # fmt: skip
        heard = server.ask(token, f"/api/v1/requests?{query}")
        assert heard.status in (200, 410, 422), (query, heard)
    for path in ("requests/%ff%fe", "requests/%00", "machines/%00", "history/%00", "history/%ff"):
        heard = server.ask(token, f"/api/v1/{path}")
        assert heard.status in (404, 422), (path, heard)
    for key in (b"\x80\xff", b"a" * 256, b""):
        heard = (
            server.connect()
            .send(request(POST, token, "POST", b"{}", b"Idempotency-Key: " + key + b"\r\n"))
            .hear()
        )
        refuses(heard)


def test_who_sends_slowly_holds_up_nobody(served: tuple[Server, str]) -> None:
    """Heads that never end, and bodies: their connections are closed when their time is over, and
    others are answered meanwhile."""
    server, token = served
    heads = [server.connect().send(b"GET /api/v1/requests HTTP/1.1\r\nX: ") for _ in range(50)]
    silent = [server.connect() for _ in range(50)]
    bodies = [
        server.connect().send(request(POST, token, "POST", b"{" + b" " * 100)[:-50])
        for _ in range(50)
    ]
    assert server.ask(token, "/api/v1/requests").status == 200
    for head in heads:
        head.send(b"a")
    with ThreadPoolExecutor(1) as other:
        answered = other.submit(server.ask, token, "/api/v1/machines")
        assert all(connection.is_closed() for connection in heads + silent)
        assert answered.result().status == 200
    for connection in bodies:
        heard = connection.hear()
        assert heard is None or heard.status == 408
        assert heard is None or connection.is_closed()


def test_who_never_reads_the_stream_costs_nothing(world: World, run: Run) -> None:
    """5,000 events come: who reads has them all, and the server keeps none for who does not."""
    token = new_token(run, "viewer")
    world.start_worker()
    fulfilled(world, 1)
    path = "/api/v1/events/stream?after=0"

    def memory(server: Server) -> int:
        text = Path(f"/proc/{server.process.pid}/statm").read_text()
        return int(text.split()[1]) * 4096

    with server_process(world) as server:
        stuck = [server.connect() for _ in range(20)]
        for connection in stuck:
            connection.send(request(path, token))
        reader = server.connect().send(request(path, token))
        wait_for(lambda: all(connection.has_heard() for connection in [*stuck, reader]))
        before = memory(server)
        for _ in range(10):
            make_events(world, 500)
        end = world.query("SELECT max(position) FROM events")[0][0]
        assert end >= 5_000
        seen = bytearray()
        while b"id: %d\n" % end not in seen[-100_000:]:
            data = reader.socket.recv(1 << 20)
            assert data
            seen += data
        found = re.findall(rb"^id: (\d+)$", bytes(seen), re.MULTILINE)
        assert [int(position) for position in found] == list(range(1, end + 1))
        assert server.ask(token, "/api/v1/requests?limit=1").status == 200
        assert memory(server) - before < 40_000_000
        assert server.end() == 0


def make_events(world: World, count: int) -> None:
    """So many in one commit, each of some kilobytes."""
    machine_ids = [f"i-{number:017x}" for number in range(100)]
    world.workers[0].side.ledger().save(
        *(
            TerminationBatch.intend(
                new_id(TERMINATION, world.random(16)), machine_ids, "default", "us-east-1",
                "us-east-1a", "a test",
            )
            for _ in range(count)
        )
    )  # fmt: skip
