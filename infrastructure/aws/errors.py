"""EC2's error codes in classes, and what each class means for a call: the only place that knows.

Sources: the EC2 API reference, "Error codes", and the throttling and idempotency pages of the EC2
developer guide (https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html).
"""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from application.ports import CallFailed

THROTTLED = frozenset(
    {
        "RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException",
        "RequestThrottled", "RequestThrottledException", "EC2ThrottledException",
        "TooManyRequestsException", "SlowDown", "BandwidthLimitExceeded",
    }
)  # fmt: skip
"""Nothing was done; the same call later."""

SHORTAGE = frozenset(
    {
        "InsufficientInstanceCapacity", "UnfulfillableCapacity", "InsufficientCapacity",
        "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity", "SpotMaxPriceTooLow",
        "Unsupported", "InsufficientFreeAddressesInSubnet", "ReservationCapacityExceeded",
    }
)  # fmt: skip
"""This pool has none; another may. Also when it comes with an HTTP 500."""

QUOTA = frozenset(
    {
        "VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded",
        "MaxFleetCountExceeded",
    }
)  # fmt: skip
"""The account has none; another subnet cannot help."""

NOT_FOUND = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})


NOT_NOW = frozenset(
    {"RequestExpired", "ExpiredToken", "ExpiredTokenException", "RequestTimeTooSkewed"}
)
"""Refused for our clock or credentials, which may be right again soon; nothing was done."""

NEVER_SENT = (
    EndpointConnectionError,
    ConnectTimeoutError,
    ProxyConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
)

MAYBE_DONE = (
    ReadTimeoutError,
    ConnectionClosedError,
    # TLS may break while the answer is read; an answer that is no AWS answer is a proxy's.
    SSLError,
    HTTPClientError,
    ResponseParserError,
)


def classify(code: str, status: int) -> str:
    """The class of an error answer; `status` is its HTTP status."""
    if code in THROTTLED:
        return "throttled"
    if code in NOT_NOW:
        return "unreachable"
    if code in SHORTAGE:
        return "shortage"
    if code in QUOTA:
        return "quota"
    if code == "IdempotentParameterMismatch":
        return "mismatch"
    if code in NOT_FOUND:
        return "not_found"
    if status >= 500 or code in ("InternalError", "InternalFailure", "Unavailable"):
        # It may have been carried out before the server lost its way.
        return "ambiguous"
    return "refused"


def failure(error: Exception) -> CallFailed:
    """What a botocore exception means. Anything it does not know is raised again by the caller."""
    if isinstance(error, ClientError):
        answer = error.response["Error"]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        code = answer.get("Code", "Unknown")
        return CallFailed(classify(code, status), code, answer.get("Message", ""))
    if isinstance(error, NEVER_SENT):
        return CallFailed("unreachable", type(error).__name__, str(error))
    if isinstance(error, MAYBE_DONE):
        return CallFailed("ambiguous", type(error).__name__, str(error))
    if isinstance(error, BotoCoreError):
        # Parameters or configuration that botocore itself refuses: nothing was sent.
        return CallFailed("refused", type(error).__name__, str(error))
    raise error
