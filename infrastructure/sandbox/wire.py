"""What goes over the wire between a client and the sandbox: requests, answers, errors, XML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"

# "Credential=AKIA.../20260102/eu-west-1/ec2/aws4_request"
_SCOPE = re.compile(r"Credential=[^/,]+/\d{8}/(?P<region>[^/,]+)/(?P<service>[^/,]+)/")
_HOST = re.compile(r"^(?:ec2|sts)\.(?P<region>[a-z0-9-]+)\.amazonaws\.com")


@dataclass(frozen=True)
class AwsRequest:
    """One HTTP request as a client sends it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class AwsResponse:
    """One HTTP answer as a client receives it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AwsError(Exception):
    """An error that AWS answers; `status` is the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class NetworkFault(Exception):
    """The client gets no answer.

    `timeout`: it waits until its read timeout. `reset`: the connection is cut. `refused`: there
    was no connection.
    """

    def __init__(self, kind: Literal["timeout", "reset", "refused"]) -> None:
        super().__init__(kind)
        self.kind = kind


def parameters(request: AwsRequest) -> dict[str, str]:
    """The flat parameters of a Query API request, `InstanceId.1` and so on, as sent."""
    query = urlsplit(request.url).query
    pairs = parse_qsl(query, keep_blank_values=True)
    pairs += parse_qsl(request.body.decode(), keep_blank_values=True)
    return dict(pairs)


def region_of(request: AwsRequest, default: str) -> str:
    """The region of the signature's credential scope, else of the host name, else the default."""
    for name, value in request.headers.items():
        if name.lower() == "authorization" and (scope := _SCOPE.search(value)):
            return scope["region"]
    host = _HOST.match(urlsplit(request.url).netloc)
    return host["region"] if host else default


def numbered(params: Mapping[str, str], name: str) -> list[str]:
    """The values of `name.1`, `name.2`, ... in the order of their numbers."""
    found: list[tuple[int, str]] = []
    for key, value in params.items():
        head, _, number = key.rpartition(".")
        if head == name and number.isdigit():
            found.append((int(number), value))
    return [value for _, value in sorted(found)]


def filters(params: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """The filters of a Describe call: name and the values of which one must match."""
    found: list[tuple[str, list[str]]] = []
    number = 1
    while (name := params.get(f"Filter.{number}.Name")) is not None:
        found.append((name, numbered(params, f"Filter.{number}.Value")))
        number += 1
    return found


def is_true(params: Mapping[str, str], name: str) -> bool:
    """Whether a boolean parameter was sent as true."""
    return params.get(name, "").lower() == "true"


def tag(name: str, value: object) -> str:
    """`<name>value</name>`, escaped; nothing when the value is None."""
    return "" if value is None else f"<{name}>{escape(str(value))}</{name}>"


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as EC2 writes a time (UTC, milliseconds)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def answer(action: str, content: str, request_id: str) -> AwsResponse:
    """A successful EC2 answer around `content`."""
    return _xml(
        200,
        f'<{action}Response xmlns="{EC2_NAMESPACE}"><requestId>{request_id}</requestId>'
        f"{content}</{action}Response>",
        request_id,
    )


def caller_identity(account: str, request_id: str) -> AwsResponse:
    """The answer of sts GetCallerIdentity."""
    return _xml(
        200,
        f'<GetCallerIdentityResponse xmlns="{STS_NAMESPACE}"><GetCallerIdentityResult>'
        f"<Arn>arn:aws:iam::{account}:user/sandbox</Arn><UserId>AIDASANDBOX0000000000</UserId>"
        f"<Account>{account}</Account></GetCallerIdentityResult><ResponseMetadata>"
        f"<RequestId>{request_id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>",
        request_id,
    )


def error_answer(error: AwsError, request_id: str, *, sts: bool = False) -> AwsResponse:
    """An error as EC2 (or STS, whose envelope differs) answers it."""
    inner = f"{tag('Code', error.code)}{tag('Message', error.message)}"
    if sts:
        body = (
            f"<ErrorResponse><Error>{inner}</Error>{tag('RequestId', request_id)}</ErrorResponse>"
        )
    else:
        body = (
            f"<Response><Errors><Error>{inner}</Error></Errors>"
            f"{tag('RequestID', request_id)}</Response>"
        )
    return _xml(error.status, body, request_id)


def _xml(status: int, body: str, request_id: str) -> AwsResponse:
    headers = {"Content-Type": "text/xml;charset=UTF-8", "x-amzn-RequestId": request_id}
    return AwsResponse(status, headers, b'<?xml version="1.0" encoding="UTF-8"?>\n' + body.encode())
