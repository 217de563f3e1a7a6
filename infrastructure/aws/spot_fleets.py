"""Spot Fleet: RequestSpotFleet of the types request and maintain.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RequestSpotFleet.html
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from application.ports import CallFailed, Fleet, Launched, Shortage
from domain.capacity import REQUEST_SPOT_FLEET, Pool, fleet_type
from infrastructure.aws import launch_templates, native, tags
from infrastructure.aws.client import Connection
from infrastructure.aws.errors import BUSY
from infrastructure.aws.fleets import HISTORY, LAUNCHING, from_history
from infrastructure.aws.overrides import machines_of, on_demand_units, overrides

CANCELLED_AT_MOST = 100
"""Requests in one CancelSpotFleetRequests (API_CancelSpotFleetRequests.html)."""

PAGE = 100
GONE = frozenset({"InvalidSpotFleetRequestId.NotFound"})
CONFIG = "SpotFleetRequestConfig"

PROTECTED = (
    "Type", "TargetCapacity", "OnDemandTargetCapacity", "TargetCapacityUnitType",
    "ExcessCapacityTerminationPolicy", "TerminateInstancesWithExpiration",
    "ReplaceUnhealthyInstances", "LaunchSpecifications",
)  # fmt: skip


def payload(
    content: dict[str, Any],
    pools: Sequence[Pool],
    units: int,
    launch_tags: dict[str, str],
    data: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of RequestSpotFleet and of the CreateLaunchTemplate before it, but for the
    tokens. Raises CallFailed."""
    if not content.get("fleet_role"):
        raise CallFailed("refused", "NoFleetRole", "a Spot Fleet needs the template's fleetRole")
    data = {**data, "TagSpecifications": launch_templates.tag_launches(data, launch_tags)}
    template = launch_templates.creation(data, launch_tags)
    config: dict[str, Any] = {"LaunchTemplateSpecification": launch_templates.reference(template)}
    given = overrides(content, pools)
    if given:
        config["Overrides"] = given
    request: dict[str, Any] = {
        "Type": fleet_type(content),
        "IamFleetRole": content["fleet_role"],
        "TargetCapacity": units,
        "OnDemandTargetCapacity": on_demand_units(content, pools, units),
        "LaunchTemplateConfigs": [config],
        "ExcessCapacityTerminationPolicy": "noTermination",
        "TerminateInstancesWithExpiration": False,
    }
    if content.get("allocation_strategy"):
        request["AllocationStrategy"] = _camel(content["allocation_strategy"])
    if content.get("allocation_strategy_on_demand"):
        request["OnDemandAllocationStrategy"] = _camel(content["allocation_strategy_on_demand"])
    if content.get("pools_count"):
        request["InstancePoolsToUseCount"] = content["pools_count"]
    if content.get("max_spot_price"):
        request["SpotPrice"] = str(content["max_spot_price"])
    request["TagSpecifications"] = tags.specifications(["spot-fleet-request"], launch_tags)
    wanted = content.get("native", {}).get("api") or {}
    result = native.over(request, wanted.get(CONFIG, wanted), PROTECTED)
    if result["LaunchTemplateConfigs"] is not request["LaunchTemplateConfigs"]:
        reference = config["LaunchTemplateSpecification"]
        result["LaunchTemplateConfigs"] = [
            {**config, **one, "LaunchTemplateSpecification": reference}
            for one in result["LaunchTemplateConfigs"]
        ]
    return {CONFIG: result}, template


def _camel(strategy: str) -> str:
    """`lowest-price` as Spot Fleet spells it: `lowestPrice`."""
    first, *others = strategy.split("-")
    return first + "".join(word.capitalize() for word in others)


class SpotFleets:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def launch(self, payload: dict[str, Any], token: str) -> Launched:
        """Send exactly this payload with this token, which is a part of it. Raises CallFailed."""
        request = payload[CONFIG]
        given = [one for c in request["LaunchTemplateConfigs"] for one in c.get("Overrides", ())]
        answer = self._connection.call(
            REQUEST_SPOT_FLEET,
            {CONFIG: {**request, "ClientToken": token}},
            machines=machines_of(request["TargetCapacity"], given),
        )
        request_id = answer["ResponseMetadata"]["RequestId"]
        return Launched([], request_id, (), answer["SpotFleetRequestId"])

    def listed(self, deployment: str) -> list[Fleet]:
        """Those that may still launch. Raises CallFailed."""
        result = []
        for answer in self._connection.pages("DescribeSpotFleetRequests", {"MaxResults": PAGE}):
            for one in answer["SpotFleetRequestConfigs"]:
                has = tags.of(one.get("Tags"))
                if (
                    has.get(tags.DEPLOYMENT) == deployment
                    and one["SpotFleetRequestState"] in LAUNCHING
                ):
                    target = one[CONFIG]["TargetCapacity"]
                    batch_id = has.get(tags.BATCH, "")
                    result.append(
                        Fleet(REQUEST_SPOT_FLEET, one["SpotFleetRequestId"], target, batch_id)
                    )
        return result

    def why_short(self, fleet_id: str) -> list[Shortage]:
        """What its history says of launches that failed. Raises CallFailed."""
        since = datetime.fromtimestamp(self._connection.clock.now()[0] - HISTORY, UTC)
        records = []
        for kind in ("error", "information"):
            for page in self._connection.pages(
                "DescribeSpotFleetRequestHistory",
                {"SpotFleetRequestId": fleet_id, "EventType": kind, "StartTime": since},
            ):
                records += page["HistoryRecords"]
        return from_history(records)

    def set_target(self, fleet_id: str, target: int, on_demand: int) -> None:
        """Change the target; done when it is gone. Raises CallFailed."""
        try:
            self._connection.call(
                "ModifySpotFleetRequest",
                {
                    "SpotFleetRequestId": fleet_id,
                    "TargetCapacity": target,
                    "OnDemandTargetCapacity": on_demand,
                    "ExcessCapacityTerminationPolicy": "noTermination",
                },
            )
        except CallFailed as failed:
            if failed.code in GONE or (failed.code in BUSY and self._gone([fleet_id])):
                return
            raise

    def delete(self, kind: str, fleet_ids: Sequence[str]) -> list[str]:
        """Cancel them; those that are gone or on their way. Raises CallFailed."""
        done: list[str] = []
        for start in range(0, len(fleet_ids), CANCELLED_AT_MOST):
            part = list(fleet_ids[start : start + CANCELLED_AT_MOST])
            answer = self._connection.call(
                "CancelSpotFleetRequests",
                {"SpotFleetRequestIds": part, "TerminateInstances": False},
            )
            done += [one["SpotFleetRequestId"] for one in answer.get("SuccessfulFleetRequests", ())]
            unclear = []
            for one in answer.get("UnsuccessfulFleetRequests", ()):
                if one["Error"]["Code"] == "fleetRequestIdDoesNotExist":
                    done.append(one["SpotFleetRequestId"])
                elif one["Error"]["Code"] == "fleetRequestNotInCancellableState":
                    unclear.append(one["SpotFleetRequestId"])
            if unclear:
                done += self._gone(unclear)
        return done

    def _gone(self, fleet_ids: Sequence[str]) -> list[str]:
        """Those of them that were cancelled before."""
        gone = []
        for fleet_id in fleet_ids:
            try:
                answer = self._connection.call(
                    "DescribeSpotFleetRequests", {"SpotFleetRequestIds": [fleet_id]}
                )
            except CallFailed as failed:
                if failed.code in GONE:
                    gone.append(fleet_id)
                continue
            states = [one["SpotFleetRequestState"] for one in answer["SpotFleetRequestConfigs"]]
            if all(state not in LAUNCHING for state in states):
                gone.append(fleet_id)
        return gone
