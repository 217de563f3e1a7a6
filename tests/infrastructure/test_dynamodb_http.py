"""The calls to DynamoDB that are made without botocore: signed as AWS wants them, to the right
address, over connections that break, and what becomes of an answer."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.event_store.dynamodb_http import (
    CallRefused,
    Client,
    NoAnswer,
    endpoint_of,
    sign,
)

NOW = 1_800_000_000.0


def place(endpoint: str | None = None, **own: Any) -> dict[str, Any]:
    return {
        "prefix": "t", "region": "us-east-1", "endpoint": endpoint, "credential_file": None,
        "credential_script": None, "profile": "default", "proxy": None, **own,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials in the environment, and nothing else that AWS's tools look at."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


# -- signatures ------------------------------------------------------------------------------------


def test_aws_s_own_example() -> None:
    """`post-vanilla` of the test suite that AWS published for Signature Version 4."""
    headers = {"host": "example.amazonaws.com"}
    keys = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
    sign(headers, "POST", "/", b"", keys, "us-east-1", "service", now)
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    )


WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@settings(max_examples=60)
@given(
    body=st.binary(max_size=200),
    keys=st.tuples(WORDS, WORDS, st.none() | WORDS),
    region=st.sampled_from(["us-east-1", "cn-north-1"]),
    value=st.lists(WORDS, min_size=1, max_size=3).map("  ".join),
    host=st.sampled_from(["dynamodb.us-east-1.amazonaws.com", "127.0.0.1:8000"]),
)
def test_signed_as_botocore_signs(
    body: bytes, keys: tuple[str, str, str | None], region: str, value: str, host: str
) -> None:
    asked = {"host": host, "content-type": "application/x-amz-json-1.0", "x-amz-target": value}
    theirs = AWSRequest("POST", f"https://{host}/", dict(asked), body)
    SigV4Auth(Credentials(*keys), "dynamodb", region).add_auth(theirs)
    moment = datetime.strptime(theirs.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    sign(asked, "POST", "/", body, keys, region, "dynamodb", moment.timestamp())
    assert asked["authorization"] == theirs.headers["Authorization"]


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["dynamodb", "application-autoscaling"])
def test_a_region_s_address_is_botocore_s(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = Session()
    for partition in session.get_available_partitions():
        for region in session.get_available_regions(service, partition)[:1]:
            for fips in (False, True):
                monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", str(fips).lower())
                client = session.create_client(
                    service, region_name=region, config=Config(use_fips_endpoint=fips)
                )
                assert endpoint_of(place(region=region), service) == client.meta.endpoint_url


def test_an_address_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    assert endpoint_of(place(), "dynamodb") == "http://all"
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://one")
    assert endpoint_of(place(), "dynamodb") == "http://one"
    assert endpoint_of(place(), "application-autoscaling") == "http://all"
    assert endpoint_of(place("http://ours"), "dynamodb") == "http://ours"


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"region": "us east 1"}, "'us east 1' is no region"),
        ({"endpoint": "ftp://somewhere"}, "ftp://somewhere is no http"),
        ({"endpoint": "somewhere:8000"}, "somewhere:8000 is no http"),
        ({"proxy": "https://me:secret@proxy:3128"}, "the proxy https://.. is none of http://"),
    ],
)
def test_an_address_that_cannot_be(own: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Client(place(**own), "dynamodb")


# -- a server --------------------------------------------------------------------------------------


class Server:
    """Answers on loopback; `answers` is what is sent for each request, in their order: bytes, or
    None to stay silent until the client goes. It hangs up after those that say so."""

    def __init__(self, answers: list[bytes | None], tls: ssl.SSLContext | None = None) -> None:
        self._answers = answers
        self._tls = tls
        self.requests: list[bytes] = []
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        # Closing alone leaves the thread in accept() for ever.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as file:
                self._answer(connection, file)
        except OSError:
            connection.close()  # the client went

    def _answer(self, connection: socket.socket, file: Any) -> None:
        while request := _request(file):
            self.requests.append(request)
            answer = self._answers.pop(0)
            if answer is None:
                file.read(1)
                return
            connection.sendall(answer)
            if b"hang-up" in answer:
                return


def _request(file: Any) -> bytes:
    """Head and body of what comes next; nothing at the end."""
    head = b""
    length = 0
    while line := file.readline():
        head += line
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        if line == b"\r\n":
            break
    return head + file.read(length)


def answer(content: Any, status: int = 200, *headers: str) -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(*answers: bytes | None, tls: ssl.SSLContext | None = None) -> Server:
            server = Server(list(answers), tls)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def client_of() -> Iterator[Callable[..., Client]]:
    """Gives clients of a server's address, or of one that is named."""
    with ExitStack() as stack:

        def make(server: Server | None = None, **own: Any) -> Client:
            given = f"http://127.0.0.1:{server.port}" if server else None
            client = Client({**place(given), **own}, "dynamodb", (2.0, 0.3))
            stack.callback(client.close)
            return client

        yield make


def test_what_is_sent(serve: Callable[..., Server], client_of: Callable[..., Client]) -> None:
    server = serve(answer({"Item": {"a": {"B": "AAE="}, "b": {"S": "AAE="}}}))
    item = {"PK": {"S": "ä"}, "b": {"B": b"\0\1\xff"}}
    got = client_of(server).call("PutItem", {"Item": item}, NOW)
    assert got == {"Item": {"a": {"B": b"\0\1"}, "b": {"S": "AAE="}}}
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body.decode() == '{"Item":{"PK":{"S":"ä"},"b":{"B":"AAH/"}}}'
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST / HTTP/1.1"
    assert "x-amz-target: DynamoDB_20120810.PutItem" in lines
    assert "content-type: application/x-amz-json-1.0" in lines
    assert f"host: 127.0.0.1:{server.port}" in lines
    assert sum(line.lower().startswith("host:") for line in lines) == 1


def test_a_connection_is_kept(
    serve: Callable[..., Server], client_of: Callable[..., Client]
) -> None:
    server = serve(answer({}), answer({}), answer({}))
    client = client_of(server)
    for _ in range(3):
        client.call("GetItem", {}, NOW)
    assert server.connections == 1
    assert [connection.sock.gettimeout() for connection in client._idle] == [0.3]


@pytest.mark.parametrize("end", ["X: hang-up", "Connection: close\r\nX: hang-up"])
def test_one_that_was_closed_meanwhile(
    serve: Callable[..., Server], client_of: Callable[..., Client], end: str
) -> None:
    """By the server, told or not: the next call does not notice."""
    server = serve(answer({}, 200, end), answer({"n": 2}))
    client = client_of(server)
    client.call("PutItem", {}, NOW)
    for connection in client._idle:
        assert connection.sock.recv(1, socket.MSG_PEEK) == b""  # the end has arrived
    assert client.call("PutItem", {}, NOW) == {"n": 2}
    assert server.connections == 2


def test_a_forked_process_has_its_own(
    serve: Callable[..., Server], client_of: Callable[..., Client]
) -> None:
    server = serve(answer({}), answer({"n": 2}), answer({"n": 3}))
    client = client_of(server)
    client.call("GetItem", {}, NOW)
    child = os.fork()
    if child == 0:
        try:
            os._exit(client.call("GetItem", {}, NOW)["n"])
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    assert client.call("GetItem", {}, NOW) == {"n": 3}
    assert server.connections == 2


@pytest.mark.parametrize(
    "told",
    [
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nX: hang-up\r\n\r\n{",
        b"hang-up\r\n",
        answer({}, 200, "x-amz-crc32: 1"),
        answer(b"<html>"),
    ],
    ids=["none", "cut", "no HTTP", "damaged", "no JSON"],
)
def test_an_answer_that_is_lost(
    serve: Callable[..., Server], client_of: Callable[..., Client], told: bytes | None
) -> None:
    server = serve(told, answer({}))
    client = client_of(server)
    with pytest.raises(NoAnswer) as caught:
        client.call("PutItem", {}, NOW)
    assert caught.value.lost
    assert client.call("PutItem", {}, NOW) == {}


def test_nobody_listens(client_of: Callable[..., Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
    client = client_of(endpoint=f"http://127.0.0.1:{port}")
    with pytest.raises(NoAnswer, match="ConnectionRefusedError") as caught:
        client.call("PutItem", {}, NOW)
    assert not caught.value.lost


def test_a_refusal(serve: Callable[..., Server], client_of: Callable[..., Client]) -> None:
    """Of DynamoDB, with what it tells beside the code, and of what stands between."""
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed"}]
    there = {"Item": {"a": {"B": "AAE="}}}
    server = serve(
        answer({"__type": "x.y#Some", "message": "why", **there}, 400),
        answer({"__type": "x.y#Many", "Message": "why", "CancellationReasons": reasons}, 400),
        answer(b"<html>busy", 503),
    )
    client = client_of(server)
    with pytest.raises(CallRefused) as caught:
        client.call("PutItem", {}, NOW)
    assert (caught.value.status, caught.value.code, caught.value.message) == (400, "Some", "why")
    assert caught.value.answer["Item"] == {"a": {"B": b"\0\1"}}
    with pytest.raises(CallRefused, match="Many: why") as caught:
        client.call("TransactWriteItems", {}, NOW)
    assert caught.value.answer["CancellationReasons"] == reasons
    with pytest.raises(CallRefused) as caught:
        client.call("PutItem", {}, NOW)
    assert (caught.value.status, caught.value.code) == (503, "HTTP 503")
    assert server.connections == 1


def test_the_sum_of_an_answer(
    serve: Callable[..., Server], client_of: Callable[..., Client]
) -> None:
    body = b'{"n":1}'
    server = serve(answer(body, 200, f"X-Amz-Crc32: {zlib.crc32(body)}"))
    assert client_of(server).call("GetItem", {}, NOW) == {"n": 1}


# -- proxies and TLS -------------------------------------------------------------------------------


def test_a_proxy_is_told_the_whole_address(
    serve: Callable[..., Server], client_of: Callable[..., Client]
) -> None:
    server = serve(answer({}))
    there = "http://dynamodb.internal:8000/"
    client_of(endpoint=there, proxy=f"me:pass@127.0.0.1:{server.port}").call("GetItem", {}, NOW)
    assert b"\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n" in server.requests[0]
    assert server.requests[0].startswith(b"POST http://dynamodb.internal:8000/ HTTP/1.1\r\n")


def test_the_environment_s_proxy(
    serve: Callable[..., Server], client_of: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = serve(answer({"from": "server"})), serve(answer({"from": "proxy"}))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert client_of(server).call("GetItem", {}, NOW) == {"from": "proxy"}
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert client_of(server).call("GetItem", {}, NOW) == {"from": "server"}


@contextmanager
def tunnel(told: list[bytes], port: int) -> Iterator[int]:
    """A proxy for one CONNECT, which it carries to this port whatever it names; its own port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def carry() -> None:
            client, _ = listening.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                told.append(client.recv(4096))
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client))
                back.start()
                _pump(client, server)
                back.join()

        threading.Thread(target=carry, daemon=True).start()
        yield listening.getsockname()[1]


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(4096):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        return


def certificate(name: str, directory: Path) -> tuple[str, ssl.SSLContext]:
    """A certificate for this name that signs itself: its file, and a server's context."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "certificate.pem"
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        made.public_bytes(encoding)
        + key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return str(path), context


def test_tls_through_a_tunnel(
    serve: Callable[..., Server],
    client_of: Callable[..., Client],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To a host that only the proxy finds, whose certificate AWS_CA_BUNDLE alone has; kept open for
    the next call."""
    path, context = certificate("dynamodb.us-east-1.amazonaws.com", tmp_path)
    server = serve(answer({"n": 1}), answer({"n": 2}), tls=context)
    told: list[bytes] = []
    with tunnel(told, server.port) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{port}")
        monkeypatch.setenv("AWS_CA_BUNDLE", path)
        client = client_of()
        assert client.call("GetItem", {}, NOW) == {"n": 1}
        assert client.call("GetItem", {}, NOW) == {"n": 2}
    assert told[0].startswith(b"CONNECT dynamodb.us-east-1.amazonaws.com:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in told[0]
    assert b"\r\nhost: dynamodb.us-east-1.amazonaws.com\r\n" in server.requests[0]


def test_a_certificate_that_nobody_vouches_for(
    serve: Callable[..., Server], client_of: Callable[..., Client], tmp_path: Path
) -> None:
    """What comes with botocore is believed, and no more."""
    _, context = certificate("localhost", tmp_path)
    server = serve(answer({}), tls=context)
    client = client_of(endpoint=f"https://localhost:{server.port}")
    with pytest.raises(NoAnswer, match="SSLCertVerificationError") as caught:
        client.call("PutItem", {}, NOW)
    assert not caught.value.lost
    assert server.requests == []
