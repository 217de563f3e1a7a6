"""EC2 Fleet: CreateFleet of the types instant, request and maintain.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from application.ports import CallFailed, Fleet, Instance, Launched, Shortage
from domain.capacity import ANY, CREATE_FLEET, INSTANT, MAINTAIN, ON_DEMAND, SPOT, Pool, fleet_type
from infrastructure.aws import launch_templates, native, tags
from infrastructure.aws.client import Connection
from infrastructure.aws.errors import BUSY, THROTTLED
from infrastructure.aws.overrides import (
    LIFECYCLES,
    machines_of,
    on_demand_units,
    overrides,
    pool_text,
    shortages,
)
from infrastructure.aws.resolving import Resolving

DELETED_AT_ONCE = {INSTANT: 25}
DELETED_AT_MOST = 100
"""Fleets in one DeleteFleets (API_DeleteFleets.html)."""

PAGE = 100
LAUNCHING = ("submitted", "active", "modifying")
"""States in which a fleet may launch."""

HISTORY = 86_400.0
"""Seconds of a fleet's history that are read for the reasons of a shortage."""

GONE = frozenset({"InvalidFleetId.NotFound", "InvalidFleetId"})

PROTECTED = (
    "Type", "TargetCapacitySpecification", "ExcessCapacityTerminationPolicy",
    "TerminateInstancesWithExpiration", "ReplaceUnhealthyInstances",
)  # fmt: skip


def payload(
    content: dict[str, Any],
    pools: Sequence[Pool],
    units: int,
    launch_tags: dict[str, str],
    data: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of CreateFleet and of the CreateLaunchTemplate before it, but for the tokens.

    Only an instant fleet may tag what it launches; `data` are the launch template's, which carry
    the tags of the others. Raises CallFailed.
    """
    kind = fleet_type(content)
    tagged = launch_templates.tag_launches(data, launch_tags)
    specifications = tags.specifications(["fleet"], launch_tags)
    data = {key: value for key, value in data.items() if key != "TagSpecifications"}
    if kind == INSTANT:
        # An instant fleet takes these kinds; any other stays with the launch template.
        specifications += [one for one in tagged if one["ResourceType"] in tags.LAUNCHED]
        tagged = [one for one in tagged if one["ResourceType"] not in tags.LAUNCHED]
    if tagged:
        data["TagSpecifications"] = tagged
    template = launch_templates.creation(data, launch_tags)
    on_demand = on_demand_units(content, pools, units)
    spot = units - on_demand
    given = overrides(content, pools, "MaxPrice" if spot else "")
    config: dict[str, Any] = {"LaunchTemplateSpecification": launch_templates.reference(template)}
    if given:
        config["Overrides"] = given
    result: dict[str, Any] = {
        "Type": kind,
        "LaunchTemplateConfigs": [config],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": units,
            "OnDemandTargetCapacity": on_demand,
            "SpotTargetCapacity": spot,
            "DefaultTargetCapacityType": "spot" if spot else "on-demand",
        },
    }
    if kind == MAINTAIN:
        result["ExcessCapacityTerminationPolicy"] = "no-termination"
    if spot:
        result["SpotOptions"] = _spot_options(content, spot)
    if on_demand:
        result["OnDemandOptions"] = _on_demand_options(content, pools, on_demand)
    result = {key: value for key, value in result.items() if value != {}}
    result["TagSpecifications"] = specifications
    return _with_native(result, content), template


def _spot_options(content: dict[str, Any], units: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if content.get("allocation_strategy"):
        options["AllocationStrategy"] = content["allocation_strategy"]
    if content.get("pools_count"):
        options["InstancePoolsToUseCount"] = content["pools_count"]
    return options | _at_least(content, units)


def _on_demand_options(
    content: dict[str, Any], pools: Sequence[Pool], units: int
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if content.get("allocation_strategy_on_demand"):
        options["AllocationStrategy"] = content["allocation_strategy_on_demand"]
    return options | _at_least(content, units)


def _at_least(content: dict[str, Any], units: int) -> dict[str, Any]:
    """All or nothing: AWS does it for one type or one zone only."""
    if not content.get("all_or_nothing"):
        return {}
    return {"SingleInstanceType": True, "SingleAvailabilityZone": True, "MinTargetCapacity": units}


def _with_native(ours: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    result = native.over(ours, content.get("native", {}).get("api"), PROTECTED)
    (config,) = ours["LaunchTemplateConfigs"]
    if result["LaunchTemplateConfigs"] is not ours["LaunchTemplateConfigs"]:
        reference = config["LaunchTemplateSpecification"]
        result["LaunchTemplateConfigs"] = [
            {**config, **one, "LaunchTemplateSpecification": reference}
            for one in result["LaunchTemplateConfigs"]
        ]
    for options in ("SpotOptions", "OnDemandOptions"):
        if options in result:
            least = ours.get(options, {}).get("MinTargetCapacity")
            result[options].pop("MinTargetCapacity", None)
            if least is not None:
                result[options]["MinTargetCapacity"] = least
    return result


class Fleets:
    def __init__(self, connection: Connection, resolving: Resolving) -> None:
        self._connection = connection
        self._resolving = resolving

    def launch(self, payload: dict[str, Any], token: str) -> Launched:
        """Send exactly this payload with this token. Raises CallFailed."""
        given = [one for c in payload["LaunchTemplateConfigs"] for one in c.get("Overrides", ())]
        units = payload["TargetCapacitySpecification"]["TotalTargetCapacity"]
        answer = self._connection.call(
            CREATE_FLEET, {**payload, "ClientToken": token}, machines=machines_of(units, given)
        )
        errors = reasons(answer.get("Errors", ()))
        if any(error.code in THROTTLED for error in errors):
            self._connection.throttled(CREATE_FLEET)
        return Launched(
            self._instances(payload, answer),
            answer["ResponseMetadata"]["RequestId"],
            errors,
            answer["FleetId"],
        )

    def _instances(self, payload: dict[str, Any], answer: dict[str, Any]) -> list[Instance]:
        """What an instant fleet launched. Newer answers name the zone, older ones the subnet."""
        found = answer.get("Instances", ())
        places = [_place(one) for one in found]
        unknown = [subnet for subnet, zone in places if subnet and not zone]
        zones: dict[str, str] = {}
        if unknown:
            try:
                zones = self._resolving.zones(unknown)
            except CallFailed as failed:
                # The machines are there: a sweep tells their zones.
                self._connection.journal.info("zones not known", code=failed.code)
        has = tags.of(payload["TagSpecifications"][0]["Tags"])
        return [
            Instance(
                machine_id=machine_id,
                state="pending",
                name="",
                private_ip_address="",
                launch_time=int(self._connection.clock.now()[0]),
                zone=zone or zones.get(subnet, ""),
                instance_type=one.get("InstanceType", ""),
                batch_id=has.get(tags.BATCH, ""),
                provider=has.get(tags.PROVIDER, ""),
                deployment=has.get(tags.DEPLOYMENT, ""),
                price_type=LIFECYCLES.get(one.get("Lifecycle", ""), ON_DEMAND),
                fleet_id=answer["FleetId"],
            )
            for one, (subnet, zone) in zip(found, places, strict=True)
            for machine_id in one["InstanceIds"]
        ]

    def listed(self, deployment: str) -> list[Fleet]:
        """Those that may still launch; there is no filter for tags. Raises CallFailed."""
        filters = [
            {"Name": "fleet-state", "Values": list(LAUNCHING)},
            {"Name": "type", "Values": ["request", "maintain"]},
        ]
        parameters = {"Filters": filters, "MaxResults": PAGE}
        result = []
        for answer in self._connection.pages("DescribeFleets", parameters):
            for one in answer["Fleets"]:
                has = tags.of(one.get("Tags"))
                if has.get(tags.DEPLOYMENT) == deployment:
                    target = one["TargetCapacitySpecification"]["TotalTargetCapacity"]
                    batch_id = has.get(tags.BATCH, "")
                    result.append(Fleet(CREATE_FLEET, one["FleetId"], target, batch_id))
        return result

    def why_short(self, fleet_id: str) -> list[Shortage]:
        """The errors of an instant fleet, or those in the history of another. Raises CallFailed."""
        fleets = self._connection.call("DescribeFleets", {"FleetIds": [fleet_id]})["Fleets"]
        if fleets and fleets[0].get("Type") == INSTANT:
            return reasons(fleets[0].get("Errors", ()))
        since = datetime.fromtimestamp(self._connection.clock.now()[0] - HISTORY, UTC)
        pages = self._connection.pages(
            "DescribeFleetHistory",
            {"FleetId": fleet_id, "EventType": "service-error", "StartTime": since},
        )
        return from_history(record for page in pages for record in page["HistoryRecords"])

    def set_target(self, fleet_id: str, target: int, on_demand: int) -> None:
        """Change the target; done when it is gone. Raises CallFailed."""
        try:
            self._connection.call(
                "ModifyFleet",
                {
                    "FleetId": fleet_id,
                    "ExcessCapacityTerminationPolicy": "no-termination",
                    "TargetCapacitySpecification": {
                        "TotalTargetCapacity": target,
                        "OnDemandTargetCapacity": on_demand,
                        "SpotTargetCapacity": target - on_demand,
                    },
                },
            )
        except CallFailed as failed:
            if failed.code in GONE:
                return
            if failed.code in BUSY and self._gone([fleet_id]):
                return
            raise

    def delete(self, kind: str, fleet_ids: Sequence[str]) -> list[str]:
        """Delete them; those that are gone or on their way. Raises CallFailed."""
        done: list[str] = []
        size = DELETED_AT_ONCE.get(kind, DELETED_AT_MOST)
        for start in range(0, len(fleet_ids), size):
            part = list(fleet_ids[start : start + size])
            answer = self._connection.call(
                "DeleteFleets", {"FleetIds": part, "TerminateInstances": kind == INSTANT}
            )
            done += [one["FleetId"] for one in answer.get("SuccessfulFleetDeletions", ())]
            unclear = []
            for one in answer.get("UnsuccessfulFleetDeletions", ()):
                if one["Error"]["Code"] == "fleetIdDoesNotExist":
                    done.append(one["FleetId"])
                elif one["Error"]["Code"] == "fleetNotInDeletableState":
                    unclear.append(one["FleetId"])
            if unclear:
                done += self._gone(unclear)
        return done

    def _gone(self, fleet_ids: Sequence[str]) -> list[str]:
        """Those of them that were deleted before."""
        gone = []
        for fleet_id in fleet_ids:
            try:
                answer = self._connection.call("DescribeFleets", {"FleetIds": [fleet_id]})
            except CallFailed as failed:
                if failed.code in GONE:
                    gone.append(fleet_id)
                continue
            if all(one["FleetState"] not in LAUNCHING for one in answer["Fleets"]):
                gone.append(fleet_id)
        return gone


def _place(one: dict[str, Any]) -> tuple[str, str]:
    """Subnet and zone of instances in an answer, "" where it does not say."""
    override = (one.get("LaunchTemplateAndOverrides") or {}).get("Overrides") or {}
    return (
        one.get("SubnetId") or override.get("SubnetId") or "",
        one.get("AvailabilityZone") or override.get("AvailabilityZone") or "",
    )


def reasons(found: Sequence[dict[str, Any]]) -> list[Shortage]:
    """The errors that an instant fleet answers, one for each pool and code."""
    return shortages(
        (
            pool_text(
                (error.get("LaunchTemplateAndOverrides") or {}).get("Overrides") or {},
                error.get("Lifecycle", "on-demand"),
            ),
            error.get("ErrorCode", "Unknown"),
            error.get("ErrorMessage", ""),
        )
        for error in found
    )


_EC2_CODE = re.compile(r"(?:Error Code: |^)([A-Z]\w+(?:\.\w+)?)(?=[;:)]|$)")
"""The code of EC2 in the description of an event: `(Service: AmazonEC2; Status Code: 500; Error
Code: InsufficientInstanceCapacity)` (from memory)."""


def from_history(records: Iterable[dict[str, Any]]) -> list[Shortage]:
    """The reasons that the history of a fleet tells (API_EventInformation.html), by EC2's code
    where they have one. They name no pool."""
    found = []
    for record in records:
        event = record.get("EventInformation") or {}
        description = event.get("EventDescription") or ""
        said = _EC2_CODE.search(description)
        code = said[1] if said else event.get("EventSubType") or "Unknown"
        found.append((f"{ANY}/{ANY}/{SPOT}", code, description))
    return shortages(found)
