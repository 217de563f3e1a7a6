"""How a botocore client is made to call a stand-in in this process, not the network."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from .wire import AwsRequest, AwsResponse, NetworkFault


def attach(client: Any, handle: Callable[[AwsRequest], AwsResponse]) -> None:
    """Let `handle` answer a client's requests.

    Network faults are raised at once, as the exceptions botocore raises for a real network.
    """

    def send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        try:
            response = handle(_from_botocore(request))
        except NetworkFault as fault:
            raise _as_botocore(fault, request) from fault
        headers: Any = dict(response.headers)
        return AWSResponse(request.url, response.status, headers, _Raw(response.body))

    client.meta.events.register_first("before-send", send)


class _Raw(io.BytesIO):
    """A body as botocore reads one from urllib3."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def _from_botocore(request: AWSPreparedRequest) -> AwsRequest:
    body: Any = request.body
    if body is None:
        body = b""
    elif isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes | bytearray):
        body = body.read()
    headers = {
        str(name): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }
    return AwsRequest(request.method, request.url, headers, bytes(body))


def _as_botocore(fault: NetworkFault, request: AWSPreparedRequest) -> Exception:
    """What botocore's URLLib3Session raises for the fault."""
    url = request.url
    match fault.kind:
        case "timeout":
            return ReadTimeoutError(endpoint_url=url, error=fault)
        case "refused":
            return EndpointConnectionError(endpoint_url=url, error=fault)
    return ConnectionClosedError(endpoint_url=url, request=request, error=fault)
