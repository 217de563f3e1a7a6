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
"""Nothing was done; the same call later, and fewer of them."""

BUSY = frozenset(
    {
        "ResourceContention", "ScalingActivityInProgress", "FleetNotInModifiableState",
        "InvalidFleetState", "InvalidSpotFleetRequestState",
    }
)  # fmt: skip
"""A group or fleet that is being changed. Nothing was done; the same call later."""

SHORTAGE = frozenset(
    {
        "InsufficientInstanceCapacity", "UnfulfillableCapacity", "InsufficientCapacity",
        "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity", "SpotMaxPriceTooLow",
        "Unsupported", "InsufficientFreeAddressesInSubnet", "ReservationCapacityExceeded",
        "InsufficientAddressCapacity", "InsufficientCapacityOnHost", "InsufficientVolumeCapacity",
        # Of a fleet's history (API_EventInformation.html).
        "allLaunchSpecsTemporarilyBlacklisted", "launchSpecTemporarilyBlacklisted",
        "launchSpecUnusable", "fleetProgressHalted",
    }
)  # fmt: skip
"""This pool has none; another may. Also when it comes with an HTTP 500."""

QUOTA = frozenset(
    {
        "VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded",
        "MaxFleetCountExceeded", "MaxSpotFleetRequestCountExceeded", "FleetLimitExceeded",
        "spotInstanceCountLimitExceeded",
        # Auto Scaling's: as many groups as the account may have.
        "LimitExceeded",
    }
)  # fmt: skip
"""The account has none; another subnet cannot help."""

NOT_FOUND = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})

NO_TEMPLATE = frozenset(
    {
        "InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.NotFound",
        "InvalidLaunchTemplateId.NotFoundException",
    }
)  # fmt: skip
"""The launch template that the call names is not there; made again, the call may go."""

NOT_ALLOWED = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure"}
)

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
    if code in THROTTLED or code in BUSY:
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
    if code in NO_TEMPLATE:
        return "template_gone"
    if status >= 500 or code in ("InternalError", "InternalFailure", "Unavailable"):
        # It may have been carried out before the server lost its way.
        return "ambiguous"
    return "refused"


def shortage_kind(code: str) -> str:
    """The class of an error that stands in the answer of a fleet, for one of its pools."""
    kind = classify(code, 400)
    # The answer is there, and says that this pool gave nothing.
    return "shortage" if kind == "ambiguous" else kind


def failure(error: Exception, api: str = "") -> CallFailed:
    """What an exception of a call means; raises again what neither botocore nor we have raised."""
    if isinstance(error, CallFailed):
        return error
    if isinstance(error, ClientError):
        answer = error.response["Error"]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        code = answer.get("Code", "Unknown")
        message = answer.get("Message", "")
        if code in NOT_ALLOWED and api not in message:
            # An encoded message says neither what was not allowed nor to whom.
            message = f"{api}: {message}"
        return CallFailed(classify(code, status), code, message)
    if isinstance(error, NEVER_SENT):
        return CallFailed("unreachable", type(error).__name__, str(error))
    if isinstance(error, MAYBE_DONE):
        return CallFailed("ambiguous", type(error).__name__, str(error))
    if isinstance(error, BotoCoreError):
        # Parameters or configuration that botocore itself refuses: nothing was sent.
        return CallFailed("refused", type(error).__name__, str(error))
    raise error
