"""What goes over the wire between a client and the sandbox: requests, answers, errors, XML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

# The namespaces of the services that answer in the query protocol's XML.
_QUERY_NAMESPACES = {
    "autoscaling": "http://autoscaling.amazonaws.com/doc/2011-01-01/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}
# The JSON versions of the services that speak JSON ("jsonVersion" of botocore's models).
_JSON_VERSIONS = {"ssm": "1.1", "sqs": "1.0"}
# "x-amz-target: AmazonSSM.GetParameter" ("targetPrefix" of botocore's models)
_TARGETS = {"AmazonSSM": "ssm", "AmazonSQS": "sqs"}
SERVICES = ("ec2", *_QUERY_NAMESPACES, *_JSON_VERSIONS)

# "Credential=AKIA.../20260102/eu-west-1/ec2/aws4_request"
SCOPE = re.compile(
    r"Credential=(?P<key>[^/,]+)/\d{8}/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request"
)
_HOST = re.compile(r"^(?P<service>[a-z0-9]+)\.(?P<region>[a-z0-9-]+)\.amazonaws\.com")


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


@dataclass(frozen=True)
class Asked:
    """What a request asks of which service, where, and with whose key.

    `params` are flat in every protocol: `Tags.member.1.Key` as the query protocol sends it,
    `Names.1` from a list of JSON. `access_key` and `session_token` are None when not sent.
    """

    service: str
    action: str
    params: dict[str, str]
    region: str
    access_key: str | None = None
    session_token: str | None = None


class AwsError(Exception):
    """An error that AWS answers; `status` is the HTTP status.

    `shape` is the name of the error in the service's model, where that is not its code.
    """

    def __init__(
        self, code: str, message: str, status: int = 400, *, shape: str | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.shape = shape or code


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


def asked_of(request: AwsRequest, region: str) -> Asked:
    """What a request asks; `region` is for one that neither its signature nor its host places.

    The service is that of the signature's credential scope, else of the JSON target, else of
    the host name, else ec2. A body of JSON that cannot be read asks nothing.
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    scope = SCOPE.search(headers.get("authorization", ""))
    host = _HOST.match(urlsplit(request.url).netloc)
    prefix, _, action = headers.get("x-amz-target", "").partition(".")
    if scope is not None:
        service, region = scope["service"], scope["region"]
    elif prefix in _TARGETS:
        service, region = _TARGETS[prefix], host["region"] if host else region
    elif host is not None:
        service, region = host["service"], host["region"]
    else:
        service = "ec2"
    if service in _JSON_VERSIONS:
        params = _flat(request.body)
    else:
        params = parameters(request)
        action = params.get("Action", "")
    key = scope["key"] if scope is not None else None
    return Asked(service, action, params, region, key, headers.get("x-amz-security-token"))


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


def query_answer(service: str, action: str, content: str, request_id: str) -> AwsResponse:
    """A successful answer of a query service: `content` is the inside of its result."""
    return _xml(
        200,
        f'<{action}Response xmlns="{_QUERY_NAMESPACES[service]}">'
        f"<{action}Result>{content}</{action}Result><ResponseMetadata>"
        f"{tag('RequestId', request_id)}</ResponseMetadata></{action}Response>",
        request_id,
    )


def json_answer(service: str, content: Mapping[str, Any], request_id: str) -> AwsResponse:
    """A successful answer of a JSON service."""
    return _json(service, 200, content, request_id)


def error_answer(error: AwsError, request_id: str, service: str = "ec2") -> AwsResponse:
    """An error as the service answers it: EC2, the query services and JSON each in their way."""
    if service in _JSON_VERSIONS:
        return _json_error(error, request_id, service)
    inner = f"{tag('Code', error.code)}{tag('Message', error.message)}"
    if service in _QUERY_NAMESPACES:
        fault = "Sender" if error.status < 500 else "Receiver"
        body = (
            f'<ErrorResponse xmlns="{_QUERY_NAMESPACES[service]}"><Error>{tag("Type", fault)}'
            f"{inner}</Error>{tag('RequestId', request_id)}</ErrorResponse>"
        )
    else:
        body = (
            f"<Response><Errors><Error>{inner}</Error></Errors>"
            f"{tag('RequestID', request_id)}</Response>"
        )
    return _xml(error.status, body, request_id)


def _json_error(error: AwsError, request_id: str, service: str) -> AwsResponse:
    # sqs-json-api-responses.html: the model's name of the error in the body, and the code of the
    # older query protocol in a header.
    prefix = "com.amazonaws.sqs#" if service == "sqs" else ""
    content = {"__type": f"{prefix}{error.shape}", "message": error.message}
    response = _json(service, error.status, content, request_id)
    if service != "sqs":
        return response
    fault = "Sender" if error.status < 500 else "Receiver"
    headers = {**response.headers, "x-amzn-query-error": f"{error.code};{fault}"}
    return AwsResponse(response.status, headers, response.body)


def _flat(body: bytes) -> dict[str, str]:
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        return {}
    return dict(_leaves(content)) if isinstance(content, dict) else {}


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a JSON value as texts, under their paths; lists count from 1."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content, 1)
        for name, value in items:
            yield from _leaves(value, f"{path}.{name}" if path else str(name))
    elif content is not None:
        yield path, str(content).lower() if isinstance(content, bool) else str(content)


def _json(service: str, status: int, content: Mapping[str, Any], request_id: str) -> AwsResponse:
    headers = {
        "Content-Type": f"application/x-amz-json-{_JSON_VERSIONS[service]}",
        "x-amzn-RequestId": request_id,
    }
    return AwsResponse(status, headers, json.dumps(content).encode())


def _xml(status: int, body: str, request_id: str) -> AwsResponse:
    headers = {"Content-Type": "text/xml;charset=UTF-8", "x-amzn-RequestId": request_id}
    return AwsResponse(status, headers, b'<?xml version="1.0" encoding="UTF-8"?>\n' + body.encode())
