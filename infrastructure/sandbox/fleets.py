"""EC2 Fleet: CreateFleet of all three types, and what is asked and told of a fleet."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from . import shapes
from .capacity import ON_DEMAND, SPOT, Capacity
from .faults import Fault
from .fleet import (
    INSTANT,
    KEPT,
    MAINTAIN,
    Fleet,
    Shortfall,
    Surroundings,
    active_instances,
)
from .fleet_config import check, modified_target, target_of
from .launch_templates import joined_tags
from .offers import check_pools, offers_of
from .pages import matches, page
from .region import tags_for
from .wire import AwsError, filters

# API_DeleteFleets.html: "up to 25 fleets of type instant", "up to 100 of maintain or request";
# "if you exceed the specified number of fleets to delete, no fleets are deleted".
_DELETE_INSTANT, _DELETE_OTHERS = 25, 100
# API_DescribeFleets.html names no maximum; from memory.
_PAGE_MAX = 1000
_ID = re.compile(r"fleet-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FILTERS = frozenset(
    {
        "activity-status",
        "excess-capacity-termination-policy",
        "fleet-state",
        "replace-unhealthy-instances",
        "type",
    }
)


class Fleets:
    """All EC2 Fleets of one account and region."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._numbers = itertools.count(1)
        self.fleets: dict[str, Fleet] = {}
        around.region.beside.append(self.fleets)
        self._asked: dict[str, dict[str, Any]] = {}

    def answer(self, action: str, params: Mapping[str, str]) -> str | None:
        """The inside of the answer of an action on EC2 Fleets but CreateFleet, else None."""
        match action:
            case "DescribeFleets":
                return self._describe(shapes.read(action, params), params)
            case "DescribeFleetInstances":
                return self._describe_instances(shapes.read(action, params), params)
            case "DescribeFleetHistory":
                return self._describe_history(shapes.read(action, params))
            case "ModifyFleet":
                return self._modify(shapes.read(action, params))
            case "DeleteFleets":
                return self._delete(shapes.read(action, params))
        return None

    def create(self, params: Mapping[str, str], capacity: Capacity, forced: Fault | None) -> str:
        """Make a fleet; an instant one launches what it can at once. `forced` is the fault
        fleet_errors that hits the call."""
        asked = shapes.read("CreateFleet", params)
        kind = asked.get("Type", MAINTAIN)
        check(asked, kind)
        number = next(self._numbers)
        fleet = Fleet(
            f"fleet-{number:08x}-{self._around.region.mark}-{number:012x}",
            kind,
            "CreateFleet",
            dict(params),
            self._around,
            lambda: self._offers(fleet.id),
            {SPOT: asked.get("SpotOptions", {}), ON_DEMAND: asked.get("OnDemandOptions", {})},
            target_of(asked["TargetCapacitySpecification"]),
            "aws:ec2:fleet-id",
            self._around.now(),
            asked.get("ValidFrom"),
            asked.get("ValidUntil"),
            asked.get("TerminateInstancesWithExpiration", False),
            asked.get("ExcessCapacityTerminationPolicy") == "no-termination",
        )
        self._asked[fleet.id] = asked
        # What is wrong with its templates and pools is said at once.
        check_pools(self._around.region, self._offers(fleet.id), "InvalidFleetConfig")
        self.fleets[fleet.id] = fleet
        tags = tags_for(asked)["fleet"]
        if tags:
            self._around.region.tags[fleet.id] = dict(tags)
        if kind != INSTANT:
            fleet.begin()
            return shapes.xml("CreateFleet", {"FleetId": fleet.id})
        most = None if forced is None else int(forced.params.get("launch", 0))
        try:
            fleet.launch_at_once(capacity, most)
        except AwsError:
            del self.fleets[fleet.id]
            raise
        if forced is not None:
            forced.fired += 1
            fleet.errors = _forced_errors(fleet, forced.params["codes"])
        return shapes.xml(
            "CreateFleet",
            {
                "FleetId": fleet.id,
                "Instances": _launched(fleet),
                "Errors": [_error(short) for short in fleet.errors],
            },
        )

    def _offers(self, fleet_id: str) -> list[Any]:
        asked = self._asked[fleet_id]
        found = offers_of(self._around.templates, asked["LaunchTemplateConfigs"])
        added = [
            one for one in asked.get("TagSpecifications", ()) if one.get("ResourceType") != "fleet"
        ]
        if not added:
            return found
        return [
            replace(
                offer,
                asked={
                    **offer.asked,
                    "TagSpecifications": joined_tags(
                        offer.asked.get("TagSpecifications", ()), added
                    ),
                },
            )
            for offer in found
        ]

    # -- asking --------------------------------------------------------------------------------

    def _find(self, fleet_id: str) -> Fleet:
        if not _ID.fullmatch(fleet_id):
            raise AwsError("InvalidFleetId.Malformed", f"The fleet ID '{fleet_id}' is malformed")
        if fleet_id not in self.fleets:
            # The code is from memory: errors-overview.html has no code for fleets.
            raise AwsError("InvalidFleetId.NotFound", f"The fleet ID '{fleet_id}' does not exist")
        return self.fleets[fleet_id]

    def _describe(self, asked: dict[str, Any], params: Mapping[str, str]) -> str:
        ids = asked.get("FleetIds", [])
        # "If a fleet is of type instant, you must specify the fleet ID, otherwise it does not
        # appear in the response" (API_DescribeFleets.html).
        found = [self._find(one) for one in ids] or [
            fleet for fleet in self.fleets.values() if fleet.kind != INSTANT and not ids
        ]
        wanted = filters(params)
        found = [one for one in found if matches(wanted, _FILTERS, self._attributes(one))]
        found.sort(key=lambda fleet: fleet.id)
        rows, token = page(found, asked, _PAGE_MAX, lambda fleet: fleet.id)
        return shapes.xml(
            "DescribeFleets", {"Fleets": [self._row(one) for one in rows], "NextToken": token}
        )

    def _describe_instances(self, asked: dict[str, Any], params: Mapping[str, str]) -> str:
        fleet = self._find(asked["FleetId"])
        if fleet.kind == INSTANT:
            # "Currently, DescribeFleetInstances does not support fleets of type instant"
            # (API_DescribeFleetInstances.html); the code is from memory.
            raise AwsError(
                "UnsupportedOperation",
                "DescribeFleetInstances is not supported for fleets of type instant.",
            )
        wanted = filters(params)
        found = [
            machine
            for machine in fleet.living
            if matches(
                wanted,
                frozenset({"instance-type"}),
                lambda _, kind=machine.instance.instance_type: [kind],  # type: ignore[misc]
            )
        ]
        rows, token = page(found, asked, _PAGE_MAX, lambda machine: f"{machine.number:012d}")
        return shapes.xml(
            "DescribeFleetInstances",
            {
                "ActiveInstances": active_instances(rows),
                "NextToken": token,
                "FleetId": fleet.id,
            },
        )

    def _describe_history(self, asked: dict[str, Any]) -> str:
        fleet = self._find(asked["FleetId"])
        kind = asked.get("EventType")
        records = [
            {
                "EventInformation": {
                    "EventDescription": record.detail,
                    "EventSubType": record.words,
                    "InstanceId": record.instance_id,
                },
                "EventType": record.kind,
                "Timestamp": record.at,
            }
            for record in fleet.history
            if record.at >= asked["StartTime"] and kind in (None, record.kind)
        ]
        return shapes.xml(
            "DescribeFleetHistory",
            {
                "HistoryRecords": records,
                "LastEvaluatedTime": self._around.now(),
                "FleetId": fleet.id,
                "StartTime": asked["StartTime"],
            },
        )

    def _row(self, fleet: Fleet) -> dict[str, Any]:
        asked = self._asked[fleet.id]
        tags = self._around.region.tags.get(fleet.id, {})
        told = asked["TargetCapacitySpecification"]
        instant = fleet.kind == INSTANT
        return {
            "ActivityStatus": fleet.activity,
            "CreateTime": fleet.made_at,
            "FleetId": fleet.id,
            "FleetState": _state(fleet),
            "ClientToken": asked.get("ClientToken"),
            "ExcessCapacityTerminationPolicy": None
            if instant
            else ("no-termination" if fleet.spares_excess else "termination"),
            "FulfilledCapacity": fleet.fulfilled(),
            "FulfilledOnDemandCapacity": fleet.fulfilled(ON_DEMAND),
            "LaunchTemplateConfigs": asked["LaunchTemplateConfigs"],
            "TargetCapacitySpecification": {
                "TotalTargetCapacity": int(fleet.target.total),
                "OnDemandTargetCapacity": int(fleet.target.on_demand),
                "SpotTargetCapacity": int(fleet.target.spot),
                "DefaultTargetCapacityType": told.get("DefaultTargetCapacityType"),
            },
            "TerminateInstancesWithExpiration": fleet.ends_with_expiry,
            "Type": fleet.kind,
            "ValidFrom": fleet.valid_from,
            "ValidUntil": fleet.valid_until,
            "ReplaceUnhealthyInstances": asked.get("ReplaceUnhealthyInstances", False),
            "SpotOptions": asked.get("SpotOptions"),
            "OnDemandOptions": asked.get("OnDemandOptions"),
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()] or None,
            # "Valid only when Type is set to instant" (API_FleetData.html).
            "Errors": [_error(short) for short in fleet.errors] if instant else None,
            "Instances": _launched(fleet) if instant else None,
        }

    def _attributes(self, fleet: Fleet) -> Callable[[str], list[str]]:
        found = {
            "activity-status": fleet.activity.replace("_", "-"),
            "excess-capacity-termination-policy": str(not fleet.spares_excess).lower(),
            # The filter's words have a hyphen, the answer's an underscore.
            "fleet-state": _state(fleet).replace("_", "-"),
            "replace-unhealthy-instances": str(
                self._asked[fleet.id].get("ReplaceUnhealthyInstances", False)
            ).lower(),
            "type": fleet.kind,
        }
        return lambda name: [found[name]]

    # -- changing ------------------------------------------------------------------------------

    def _modify(self, asked: dict[str, Any]) -> str:
        fleet = self._find(asked["FleetId"])
        if fleet.kind != MAINTAIN:
            # "You can only modify an EC2 Fleet of type maintain" (modify-ec2-fleet.html); the
            # code is from memory.
            raise AwsError(
                "UnsupportedOperation", "Only an EC2 Fleet of type maintain can be modified."
            )
        if fleet.ended:
            raise AwsError(
                "InvalidFleetState",  # from memory
                f"The fleet '{fleet.id}' is not in a modifiable state.",
            )
        kept = self._asked[fleet.id]
        if (policy := asked.get("ExcessCapacityTerminationPolicy")) is not None:
            fleet.spares_excess = policy == "no-termination"
        if configs := asked.get("LaunchTemplateConfigs"):
            offers = offers_of(self._around.templates, configs)
            check_pools(self._around.region, offers, "InvalidFleetConfig")
            kept["LaunchTemplateConfigs"] = configs
        target = fleet.target
        if (told := asked.get("TargetCapacitySpecification")) is not None:
            default = told.get("DefaultTargetCapacityType") or kept[
                "TargetCapacitySpecification"
            ].get("DefaultTargetCapacityType")
            told = {**told, "DefaultTargetCapacityType": default}
            kept["TargetCapacitySpecification"] = told
            target = modified_target(told, fleet.target)
        fleet.retarget(target)
        return shapes.xml("ModifyFleet", {"Return": True})

    def _delete(self, asked: dict[str, Any]) -> str:
        if "TerminateInstances" not in asked:
            raise AwsError(
                "MissingParameter", "The request must contain the parameter TerminateInstances"
            )
        terminate = asked["TerminateInstances"]
        ids = list(dict.fromkeys(asked.get("FleetIds", [])))
        kinds = [self.fleets[one].kind for one in ids if one in self.fleets]
        instant = kinds.count(INSTANT)
        if len(kinds) - instant > _DELETE_OTHERS:
            # The code is from memory.
            words = f"At most {_DELETE_OTHERS} fleets of type request or maintain a call."
            raise AwsError("InvalidParameterValue", words)
        too_many = instant > _DELETE_INSTANT
        done, failed = [], []
        for fleet_id in ids:
            if (error := self._undeletable(fleet_id, terminate, too_many)) is not None:
                code, message = error
                failed.append({"FleetId": fleet_id, "Error": {"Code": code, "Message": message}})
                continue
            fleet = self.fleets[fleet_id]
            before = _state(fleet)
            fleet.end(terminate)
            self._around.schedule(self._around.now() + KEPT, lambda one=fleet: self._forget(one))  # type: ignore[misc]
            done.append(
                {
                    "FleetId": fleet_id,
                    "PreviousFleetState": before,
                    "CurrentFleetState": "deleted_terminating" if terminate else "deleted_running",
                }
            )
        return shapes.xml(
            "DeleteFleets",
            {"SuccessfulFleetDeletions": done, "UnsuccessfulFleetDeletions": failed},
        )

    def _undeletable(
        self, fleet_id: str, terminate: bool, too_many: bool
    ) -> tuple[str, str] | None:
        """Why a fleet cannot be deleted: a code of delete-fleet.html and the message."""
        if not _ID.fullmatch(fleet_id):
            return "fleetIdMalformed", f"The fleet ID '{fleet_id}' is malformed"
        if fleet_id not in self.fleets:
            return "fleetIdDoesNotExist", f"The fleet ID '{fleet_id}' does not exist"
        fleet = self.fleets[fleet_id]
        if too_many:
            words = "Can't delete more than 25 instant fleets in a single request."
            return "ExceededInstantFleetNumForDeletion", words
        if fleet.kind == INSTANT and not terminate:
            words = "NoTerminateInstances option is not supported for instant fleet"
            return "NoTerminateInstancesNotSupported", words
        if fleet.ended and (fleet.terminating or not terminate or not fleet.remains):
            words = f"The fleet '{fleet_id}' is in the state {_state(fleet)}"
            return "fleetNotInDeletableState", words
        return None

    def _forget(self, fleet: Fleet) -> None:
        if fleet.remains:
            self._around.schedule(self._around.now() + KEPT, lambda: self._forget(fleet))
            return
        self.fleets.pop(fleet.id, None)
        self._asked.pop(fleet.id, None)
        self._around.region.tags.pop(fleet.id, None)


def _state(fleet: Fleet) -> str:
    return fleet.state("deleted")


def _launched(fleet: Fleet) -> list[dict[str, Any]]:
    """Instances of an answer: one item for each override, market and type."""
    return [
        {
            "LaunchTemplateAndOverrides": launch.offer.answered,
            "Lifecycle": market,
            "InstanceIds": ids,
            "InstanceType": launch.pool.instance_type,
        }
        for launch, market, ids in fleet.launches
    ]


def _error(short: Shortfall) -> dict[str, Any]:
    return {
        "LaunchTemplateAndOverrides": short.offer.answered,
        "Lifecycle": short.market,
        "ErrorCode": short.error.code,
        "ErrorMessage": short.error.message,
    }


def _forced_errors(fleet: Fleet, codes: list[str]) -> list[Shortfall]:
    """The errors of the fault fleet_errors: the codes in turn, one for each override."""
    market = SPOT if fleet.target.spot else ON_DEMAND
    offers = fleet.offers()
    count = max(len(offers), len(codes))
    return [
        Shortfall(
            offers[index % len(offers)],
            market,
            AwsError(codes[index % len(codes)], f"{codes[index % len(codes)]}, as told"),
        )
        for index in range(count)
    ]
