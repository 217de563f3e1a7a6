"""Tokens of an identity provider, and TLS: real keys, a real provider on loopback, real sockets."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.interfaces.commands import Run
from tests.interfaces.rest import Client, new_token, problem, serving
from tests.interfaces.rest_process import server_process
from tests.world import World

AUDIENCE = "hostledger"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, name: str, algorithm: str) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if algorithm[0] == "R" else jwt.algorithms.ECAlgorithm
    document: dict[str, Any] = kind.to_jwk(key.public_key(), as_dict=True)
    return {**document, "kid": name, "alg": algorithm, "use": "sig"}


class Provider:
    """An identity provider: its discovery document and its keys; `asked` counts looks at them."""

    def __init__(self) -> None:
        self.keys = [jwk(RSA, "rsa", "RS256"), jwk(EC, "ec", "ES256")]
        self.asked = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document: dict[str, Any] = {"jwks_uri": f"{provider.issuer}/keys"}
                if self.path == "/keys":
                    provider.asked += 1
                    document = {"keys": provider.keys}
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def token(
        self, key: Any = RSA, algorithm: str = "RS256", kid: str = "rsa", **claims: Any
    ) -> str:
        """`claims` are changed ones; None takes one out."""
        now = time.time()
        whole = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": "ana", "exp": now + 600, "iat": now,
            "roles": ["operator"], **claims,
        }  # fmt: skip
        payload = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(payload, key, algorithm, {"kid": kid})

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.end()


@pytest.fixture
def client(world: World, run: Run, provider: Provider) -> Iterator[Client]:
    world.environ["HOSTLEDGER_SERVER__OIDC__ISSUER"] = provider.issuer
    world.environ["HOSTLEDGER_SERVER__OIDC__AUDIENCE"] = AUDIENCE
    with serving(world, run) as made:
        yield made


def test_tokens_of_the_provider(world: World, client: Client, provider: Provider) -> None:
    """Of either key, with any name of the claim; who it is stands in the ledger."""
    for token in (
        provider.token(),
        provider.token(EC, "ES256", "ec"),
        provider.token(roles="viewer operator"),
        provider.token(roles=["somebody", "operator"]),
        provider.token(aud=["other", AUDIENCE]),
        provider.token(exp=time.time() - 30),  # within what clocks differ
    ):
        client.token = token
        answer = client.post("/requests", {"template_id": "OnDemand-A", "machine_count": 1})
        assert answer.status_code == 202, answer.text
    assert provider.asked == 1
    metadata = world.query("SELECT metadata FROM events ORDER BY position DESC LIMIT 1")[0][0]
    assert f"ana of {provider.issuer}" in metadata


def test_tokens_that_are_not_accepted(client: Client, provider: Provider) -> None:
    public = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body, signature = provider.token().split(".")
    other = provider.token(sub="bob").split(".")[1]
    for name, token in {
        "issuer": provider.token(iss="https://other.example"),
        "audience": provider.token(aud="other"),
        "no audience": provider.token(aud=None),
        "ended": provider.token(exp=time.time() - 120),
        "endless": provider.token(exp=None),
        "nobody": provider.token(sub=None),
        "not yet": provider.token(nbf=time.time() + 600),
        "other key": provider.token(OTHER),
        "unknown key": provider.token(kid="other"),
        "another's key": provider.token(EC, "ES256", "rsa"),
        "none": _unsigned(provider),
        "symmetric": _signed_with(public, head, body),
        "changed": f"{head}.{other}.{signature}",
        "cut": f"{head}.{body}.",
        "no token": "a.b.c",
        "odd": "..",
    }.items():
        client.token = token
        answer = client.get("/requests")
        assert answer.status_code == 401, name
        problem(answer, 401, "unauthenticated")


def _unsigned(provider: Provider) -> str:
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    return jwt.encode(claims, None, "none", {"kid": "rsa"})


def _signed_with(public: bytes, head: str, body: str) -> str:
    """HS256 with the public key as the secret (RFC 8725, 2.1)."""
    import hmac

    def text(data: bytes) -> str:
        return jwt.utils.base64url_encode(data).decode()

    head = text(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "rsa"}).encode())
    return f"{head}.{body}." + text(hmac.digest(public, f"{head}.{body}".encode(), "sha256"))


@pytest.mark.parametrize("roles", [None, [], ["root"], 7, {"admin": True}, "root"])
def test_tokens_without_a_role_here(client: Client, provider: Provider, roles: Any) -> None:
    client.token = provider.token(roles=roles)
    problem(client.get("/requests"), 403, "forbidden", "server.oidc.roles")


def test_a_viewer_cannot_command(client: Client, provider: Provider) -> None:
    client.token = provider.token(roles=["viewer"])
    assert client.get("/requests").status_code == 200
    problem(client.post("/requests", {"template_id": "OnDemand-A", "machine_count": 1}), 403,
            "forbidden", "operator")  # fmt: skip


def test_unknown_keys_are_asked_for_once_a_minute(client: Client, provider: Provider) -> None:
    """Whoever sends tokens with made-up keys does not send us to the provider each time."""
    for number in range(5):
        client.token = provider.token(kid=f"made-up-{number}")
        problem(client.get("/requests"), 401, "unauthenticated")
    assert provider.asked == 1


def test_a_provider_that_is_away(world: World, run: Run, provider: Provider) -> None:
    """Its tokens are not judged; ours are."""
    world.environ["HOSTLEDGER_SERVER__OIDC__ISSUER"] = "http://127.0.0.1:1"
    world.environ["HOSTLEDGER_SERVER__OIDC__AUDIENCE"] = AUDIENCE
    with serving(world, run) as client:
        assert client.get("/requests").status_code == 200
        client.token = provider.token()
        problem(client.get("/requests"), 503, "identity-provider-unreachable")


def test_tls(world: World, run: Run, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hostledger")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(EC.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(EC, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        EC.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    trusting = ssl.create_default_context(cafile=str(certificate))
    token = new_token(run, "viewer")
    tls = {
        "HOSTLEDGER_SERVER__TLS_CERTIFICATE": str(certificate),
        "HOSTLEDGER_SERVER__TLS_KEY": str(key),
    }
    with server_process(world, **tls) as server:
        assert server.address.startswith("https://127.0.0.1:")
        asked = Request(
            f"{server.address}/api/v1/requests", headers={"Authorization": f"Bearer {token}"}
        )
        with urlopen(asked, timeout=30, context=trusting) as answer:
            assert json.load(answer)["requests"] == []
        with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urlopen(asked, timeout=30, context=ssl.create_default_context())
        # Plain HTTP at that port is no way in.
        plain = server.connect().send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert plain.is_closed()
    certificate.write_text("none")
    with pytest.raises(AssertionError, match=r"server\.tls_certificate"):
        server_process(world, **tls).__enter__()
