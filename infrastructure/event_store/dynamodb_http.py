"""Calls to DynamoDB over the standard library, each signed here: botocore's import and its hooks
around every call cost a short process more than the calls themselves.

The protocol is JSON 1.0 over HTTP ("DynamoDB low-level API",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html),
signed by Signature Version 4
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
Application Auto Scaling speaks the same. Nothing is tried twice here; see `dynamodb_client.py`.
"""

from __future__ import annotations

import os
import select
import time
import zlib
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from hmac import digest as hmac
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import unquote, urlsplit

from application.json_text import BadJson, dumps, loads
from infrastructure.event_store.dynamodb_credentials import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext
    from typing import Any

    Answer = tuple[int, str | None, bytes]
    """Status, the header x-amz-crc32, body."""

    Exchange = Callable[[str, Mapping[str, str], bytes], Answer]
    """Carries one POST out: URL, headers, body. Raises OSError as a socket would."""

TIMEOUTS = (2.0, 5.0)
"""Seconds to connect, and between what arrives of an answer."""

SERVICES = {
    # service -> prefix of X-Amz-Target, JSON version, name in AWS_ENDPOINT_URL_...
    "dynamodb": ("DynamoDB_20120810", "1.0", "DYNAMODB"),
    "application-autoscaling": ("AnyScaleFrontendService", "1.1", "APPLICATION_AUTO_SCALING"),
}

PARTITIONS = {
    # how a region begins -> the domain of its partition
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "eusc-": "amazonaws.eu",
}

in_process: Exchange | None = None
"""In place of the network, for every client of this process: tests put DynamoDB's stand-in here."""


class CallRefused(Exception):
    """DynamoDB answered an error: the HTTP `status`, its `code`, `message`, and the whole `answer`,
    which has `Item` or `CancellationReasons` beside them."""

    def __init__(self, status: int, code: str, message: str, answer: dict[str, Any]) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.answer = answer


class NoAnswer(Exception):
    """There was no answer, or none that can be trusted; `lost`: the call may have been done."""

    def __init__(self, why: str, lost: bool) -> None:
        super().__init__(why)
        self.lost = lost


class NotConnected(OSError):
    """There was no connection, so that nothing was sent."""


class Client:
    """One service in one region, as `place` (of `dynamodb_client.place_of`) says. Safe in threads,
    and in a process that was forked.

    Raises ValueError for an address that cannot be one.
    """

    def __init__(
        self, place: dict[str, Any], service: str, timeouts: tuple[float, float] = TIMEOUTS
    ) -> None:
        self._connect_timeout, self._read_timeout = timeouts
        self._service = service
        self._region: str = place["region"]
        self._url = endpoint_of(place, service)
        address = urlsplit(self._url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{self._url} is no http:// or https:// address")
        self._host = address.netloc.rpartition("@")[2]
        self._path = address.path or "/"
        self._proxy = proxy_of(place["proxy"], self._url)
        self._credentials = Credentials(place)
        self._tls: SSLContext | None = None
        self._idle: list[HTTPConnection] = []
        self._process = os.getpid()

    def call(self, action: str, asked: dict[str, Any], now: float) -> dict[str, Any]:
        """The answer to one call; `now` is in seconds since the epoch. Binary attributes are bytes
        on both sides. Raises CallRefused, NoAnswer, NoCredentials."""
        body = dumps(asked, _base64).encode()
        headers = self._headers(action, body, now)
        try:
            status, crc, content = (in_process or self._exchange)(self._url, headers, body)
        except (OSError, HTTPException) as error:
            lost = not isinstance(error, NotConnected | ConnectionRefusedError)
            cause = error.__cause__ if isinstance(error, NotConnected) else error
            raise NoAnswer(f"{type(cause).__name__}: {error}", lost) from None
        if crc is not None and crc != str(zlib.crc32(content)):
            raise NoAnswer("an answer was damaged on its way", True)
        try:
            answer: dict[str, Any] = loads(content.decode() or "{}")
        except (UnicodeDecodeError, BadJson):
            if status == 200:
                raise NoAnswer("an answer is not JSON", True) from None
            answer = {}
        if b'"B"' in content:
            _read_binary(answer)
        if status == 200:
            return answer
        # "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"
        code = str(answer.get("__type", "")).rpartition("#")[2] or f"HTTP {status}"
        message = str(answer.get("message") or answer.get("Message") or "")
        raise CallRefused(status, code, message, answer)

    def renew_credentials(self, now: float) -> bool:
        """Look for credentials again: whether there are other ones now. Raises NoCredentials."""
        return self._credentials.renew(now)

    def close(self) -> None:
        """End the connections that are kept for later calls."""
        while self._idle:
            self._idle.pop().close()

    # -- signing ----------------------------------------------------------------------------------

    def _headers(self, action: str, body: bytes, now: float) -> dict[str, str]:
        prefix, version, _ = SERVICES[self._service]
        headers = {
            "content-type": f"application/x-amz-json-{version}",
            "host": self._host,
            "x-amz-target": f"{prefix}.{action}",
        }
        keys = self._credentials.keys(now)
        sign(headers, "POST", self._path, body, keys, self._region, self._service, now)
        headers["user-agent"] = "hostledger"
        return headers

    # -- the network ------------------------------------------------------------------------------

    def _exchange(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = self._kept() or self._connected()
        target, also = self._path, {}
        if self._proxy and self._is_plain():
            target, also = url, _to_proxy(self._proxy)
        try:
            connection.request("POST", target, body, {**headers, **also})
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, response.getheader("x-amz-crc32"), content

    def _kept(self) -> HTTPConnection | None:
        """A connection of an earlier call that is still open."""
        if self._process != os.getpid():
            # The parent goes on talking on those: only this process's hold on them ends.
            self.close()
            self._process = os.getpid()
        while self._idle:
            connection = self._idle.pop()
            look = select.poll()
            look.register(connection.sock, select.POLLIN)
            # Nothing was asked on it: what there is to read is its end.
            if not look.poll(0):
                return connection
            connection.close()
        return None

    def _connected(self) -> HTTPConnection:
        try:
            connection = self._connection()
            connection.connect()
        except (OSError, HTTPException, ValueError) as error:
            raise NotConnected(str(error)) from error
        connection.sock.settimeout(self._read_timeout)
        return connection

    def _connection(self) -> HTTPConnection:
        through = urlsplit(self._proxy or self._url)
        host, within = through.hostname or "", self._connect_timeout
        if self._is_plain():
            return HTTPConnection(host, through.port, timeout=within)
        if self._tls is None:
            self._tls = trust()
        there = HTTPSConnection(host, through.port, timeout=within, context=self._tls)
        if self._proxy:
            address = urlsplit(self._url)
            there.set_tunnel(address.hostname or "", address.port or 443, _to_proxy(self._proxy))
        return there

    def _is_plain(self) -> bool:
        return self._url.startswith("http:")


def endpoint_of(place: dict[str, Any], service: str) -> str:
    """Where a service is asked: where the settings say, else AWS's environment variables
    (https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html), else its region's.

    Raises ValueError for a region that cannot be one.
    """
    environ = os.environ
    given = (
        place["endpoint"]
        or environ.get(f"AWS_ENDPOINT_URL_{SERVICES[service][2]}")
        or environ.get("AWS_ENDPOINT_URL")
    )
    if given:
        return str(given)
    region = str(place["region"])
    if not region.replace("-", "").isalnum():
        raise ValueError(f"{region!r} is no region")
    host = service
    # GovCloud's scaling is of FIPS as it is.
    own = region.startswith("us-gov-") and service != "dynamodb"
    if environ.get("AWS_USE_FIPS_ENDPOINT", "").lower() == "true" and not own:
        host += "-fips"
    domain = next((d for begin, d in PARTITIONS.items() if region.startswith(begin)), None)
    return f"https://{host}.{region}.{domain or 'amazonaws.com'}"


def proxy_of(given: str | None, url: str) -> str | None:
    """The proxy to a URL: the one that the settings give, else that of HTTPS_PROXY and its like
    unless NO_PROXY has the host. Raises ValueError for one that is spoken to by TLS itself."""
    proxy = given
    if not proxy and any(name.lower().endswith("_proxy") for name in os.environ):
        from urllib.request import getproxies, proxy_bypass

        address = urlsplit(url)
        if not proxy_bypass(address.netloc):
            proxy = getproxies().get(address.scheme)
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = "http://" + proxy
    if not proxy.startswith("http://"):
        raise ValueError(f"the proxy {proxy.partition('://')[0]}://.. is none of http://")
    return proxy


def _to_proxy(proxy: str) -> dict[str, str]:
    """The headers that a proxy with a user and a password wants."""
    address = urlsplit(proxy)
    if address.username is None:
        return {}
    known = f"{unquote(address.username)}:{unquote(address.password or '')}"
    return {"Proxy-Authorization": "Basic " + b2a_base64(known.encode(), newline=False).decode()}


def trust() -> SSLContext:
    """Whose certificates are believed: those that AWS_CA_BUNDLE has, else those that come with
    botocore, else the system's."""
    import ssl
    from importlib.util import find_spec

    bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not bundle:
        found = find_spec("botocore")
        beside = os.path.dirname(found.origin) if found and found.origin else ""
        bundle = os.path.join(beside, "cacert.pem")
        if not beside or not os.path.exists(bundle):
            return ssl.create_default_context()
    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


def sign(
    headers: dict[str, str],
    method: str,
    path: str,
    body: bytes,
    keys: tuple[str, str, str | None],
    region: str,
    service: str,
    now: float,
) -> None:
    """Add date, session token and signature to the headers, whose names are in lower case."""
    access_key, secret_key, token = keys
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    day = moment[:8]
    headers["x-amz-date"] = moment
    if token:
        headers["x-amz-security-token"] = token
    names = sorted(headers)
    signed = ";".join(names)
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
    asked = "\n".join([method, path, "", *lines, "", signed, sha256(body).hexdigest()])
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{sha256(asked.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac(key, part.encode(), "sha256")
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={signed}, "
        f"Signature={hmac(key, text.encode(), 'sha256').hex()}"
    )


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return b2a_base64(value, newline=False).decode()
    raise TypeError(f"{type(value).__name__} is no attribute")


def _read_binary(answer: dict[str, Any]) -> None:
    """Make bytes of the binary attributes of an answer's items."""
    items = [answer["Item"]] if "Item" in answer else []
    items += answer.get("Items", ())
    for some in answer.get("Responses", {}).values():
        items += some
    for item in items:
        for value in item.values():
            if "B" in value:
                value["B"] = a2b_base64(value["B"])
