"""Spot instance requests, and how AWS takes spot instances back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import shapes
from .pages import matches, page
from .region import Machine, Region, SpotRequest
from .wire import AwsError, filters, timestamp

# spot-interruptions.html: the state reason of an instance that AWS took back.
INTERRUPTED = "Server.SpotInstanceTermination"
# API_DescribeSpotInstanceRequests.html: 5 to 1000 a page.
_PAGE_MAX = 1000
_FILTERS = frozenset(
    {
        "availability-zone",
        "create-time",
        "instance-id",
        "launch.image-id",
        "launch.instance-type",
        "launched-availability-zone",
        "spot-instance-request-id",
        "state",
        "status-code",
        "tag-key",
        "type",
    }
)


def answer(region: Region, action: str, params: Mapping[str, str]) -> str | None:
    """The inside of the answer of an action on spot instance requests; None for any other."""
    match action:
        case "DescribeSpotInstanceRequests":
            return _describe(region, shapes.read(action, params), params)
        case "CancelSpotInstanceRequests":
            return _cancel(region, shapes.read(action, params))
        case "RequestSpotInstances":
            raise AwsError(
                "InvalidAction", "The sandbox has spot instances by RunInstances and fleets only."
            )
    return None


def warning(region: Region, machine: Machine, now: float, event_id: str) -> dict[str, Any]:
    """EventBridge's interruption notice (spot-instance-termination-notices.html)."""
    detail = {"instance-id": machine.id, "instance-action": "terminate"}
    return _event("EC2 Spot Instance Interruption Warning", region, machine, now, event_id, detail)


def recommendation(region: Region, machine: Machine, now: float, event_id: str) -> dict[str, Any]:
    """EventBridge's rebalance recommendation (rebalance-recommendations.html)."""
    detail = {"instance-id": machine.id}
    return _event("EC2 Instance Rebalance Recommendation", region, machine, now, event_id, detail)


def state_change(region: Region, machine: Machine, now: float, event_id: str) -> dict[str, Any]:
    """EventBridge's state change (monitoring-instance-state-changes.html)."""
    detail = {"instance-id": machine.id, "state": machine.state}
    return _event("EC2 Instance State-change Notification", region, machine, now, event_id, detail)


def _event(
    kind: str,
    region: Region,
    machine: Machine,
    now: float,
    event_id: str,
    detail: Mapping[str, str],
) -> dict[str, Any]:
    arn = f"arn:aws:ec2:{region.region_name}:{region.account_id}:instance/{machine.id}"
    if kind.startswith("EC2 Spot"):
        # The warning's resource names the zone and no account (the page above).
        arn = f"arn:aws:ec2:{machine.zone}:instance/{machine.id}"
    return {
        "version": "0",
        "id": event_id,
        "detail-type": kind,
        "source": "aws.ec2",
        "account": str(region.account_id),
        "time": f"{timestamp(now)[:19]}Z",
        "region": region.region_name,
        "resources": [arn],
        "detail": dict(detail),
    }


def _find(region: Region, ids: list[str]) -> list[SpotRequest]:
    missing = [one for one in ids if one not in region.spot_asked]
    if missing:
        raise AwsError(
            "InvalidSpotInstanceRequestID.NotFound",  # errors-overview.html
            f"The spot instance request ID '{missing[0]}' does not exist",
        )
    return [region.spot_asked[one] for one in ids]


def _describe(region: Region, asked: dict[str, Any], params: Mapping[str, str]) -> str:
    found = _find(region, asked.get("SpotInstanceRequestIds", []))
    if not asked.get("SpotInstanceRequestIds"):
        found = list(region.spot_asked.values())
    wanted = filters(params)
    found = [one for one in found if matches(wanted, _FILTERS, _attributes(region, one))]
    found.sort(key=lambda one: one.id)
    rows, token = page(found, asked, _PAGE_MAX, lambda one: one.id)
    return shapes.xml(
        "DescribeSpotInstanceRequests",
        {"SpotInstanceRequests": [_row(region, one) for one in rows], "NextToken": token},
    )


def _cancel(region: Region, asked: dict[str, Any]) -> str:
    """Cancel requests; "canceling a Spot Instance request does not terminate running Spot
    Instances" (API_CancelSpotInstanceRequests.html)."""
    found = _find(region, asked.get("SpotInstanceRequestIds", []))
    for one in found:
        one.cancelled = True
    rows = [{"SpotInstanceRequestId": one.id, "State": one.state} for one in found]
    return shapes.xml("CancelSpotInstanceRequests", {"CancelledSpotInstanceRequests": rows})


def _status(request: SpotRequest) -> tuple[str, str]:
    """The status code and words (spot-request-status.html)."""
    if request.cancelled:
        living = request.state == "cancelled" and request.machine.state not in (
            "shutting-down",
            "terminated",
        )
        code = "request-canceled-and-instance-running" if living else "instance-terminated-by-user"
    elif request.state == "active":
        code = "marked-for-termination" if request.marked else "fulfilled"
    elif request.machine.instance.state_reason.code == INTERRUPTED:
        code = "instance-terminated-no-capacity"
    else:
        code = "instance-terminated-by-user"
    return code, code.replace("-", " ").capitalize()


def _row(region: Region, request: SpotRequest) -> dict[str, Any]:
    machine, asked = request.machine, request.asked
    code, words = _status(request)
    tags = region.tags.get(request.id, {})
    options = asked.get("InstanceMarketOptions", {}).get("SpotOptions", {})
    return {
        "SpotInstanceRequestId": request.id,
        "State": request.state,
        "Status": {"Code": code, "Message": words, "UpdateTime": request.made_at},
        "Type": options.get("SpotInstanceType", "one-time"),
        "SpotPrice": options.get("MaxPrice"),
        "CreateTime": request.made_at,
        "InstanceId": machine.id,
        "InstanceInterruptionBehavior": options.get("InstanceInterruptionBehavior", "terminate"),
        "LaunchedAvailabilityZone": machine.zone,
        "ProductDescription": "Linux/UNIX",
        "LaunchSpecification": {
            "ImageId": asked.get("ImageId"),
            "InstanceType": asked.get("InstanceType"),
            "KeyName": asked.get("KeyName"),
            "SubnetId": machine.instance.subnet_id,
        },
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()] or None,
    }


def _attributes(region: Region, request: SpotRequest) -> Callable[[str], list[str]]:
    tags = region.tags.get(request.id, {})

    def of(name: str) -> list[str]:
        if name.startswith("tag:"):
            key = name.removeprefix("tag:")
            return [tags[key]] if key in tags else []
        match name:
            case "tag-key":
                return list(tags)
            case "state":
                return [request.state]
            case "status-code":
                return [_status(request)[0]]
            case "spot-instance-request-id":
                return [request.id]
            case "instance-id":
                return [request.machine.id]
            case "availability-zone" | "launched-availability-zone":
                return [request.machine.zone]
            case "launch.image-id":
                return [str(request.asked.get("ImageId"))]
            case "launch.instance-type":
                return [str(request.asked.get("InstanceType"))]
            case "create-time":
                return [timestamp(request.made_at)]
        return ["one-time"]

    return of
