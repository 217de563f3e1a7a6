"""Spot Fleet: RequestSpotFleet, and what is asked and told of a request."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import shapes
from .capacity import ON_DEMAND, SPOT
from .fleet import KEPT, MAINTAIN, REQUEST, Fleet, Surroundings, Target, active_instances
from .offers import Offer, check_pools, offers_of, override_offers
from .pages import page
from .region import tags_for
from .wire import AwsError

# API_CancelSpotFleetRequests.html: "up to 100 IDs in a single request".
_CANCEL_MAX = 100
# API_DescribeSpotFleetInstances.html: 1 to 1000 a page.
_PAGE_MAX = 1000
_ID = re.compile(r"sfr-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# errors-overview.html: "The Spot Fleet request configuration is not valid".
_BAD = "InvalidSpotFleetRequestConfig"
# What EC2 Fleet calls them -> their names here (API_HistoryRecord.html, API_EventInformation.html);
# which one tells of a lack of capacity is from memory.
_EVENTS = {
    "fleet-change": "fleetRequestChange",
    "instance-change": "instanceChange",
    "service-error": "error",
    "launchSpecUnusable": "launchSpecTemporarilyBlacklisted",
}


class SpotFleets:
    """All Spot Fleet requests of one account and region."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._numbers = itertools.count(1)
        self.fleets: dict[str, Fleet] = {}
        around.region.beside.append(self.fleets)
        self._configs: dict[str, dict[str, Any]] = {}

    def answer(self, action: str, params: Mapping[str, str]) -> str | None:
        """The inside of the answer of an action on Spot Fleets; None for any other."""
        match action:
            case "RequestSpotFleet":
                return self._request(params)
            case "DescribeSpotFleetRequests":
                return self._describe(shapes.read(action, params))
            case "DescribeSpotFleetInstances":
                return self._describe_instances(shapes.read(action, params))
            case "DescribeSpotFleetRequestHistory":
                return self._describe_history(shapes.read(action, params))
            case "ModifySpotFleetRequest":
                return self._modify(shapes.read(action, params))
            case "CancelSpotFleetRequests":
                return self._cancel(shapes.read(action, params))
        return None

    def _request(self, params: Mapping[str, str]) -> str:
        config = shapes.read("RequestSpotFleet", params).get("SpotFleetRequestConfig", {})
        _check(config)
        number = next(self._numbers)
        kind = config.get("Type", MAINTAIN)
        fleet = Fleet(
            f"sfr-{number:08x}-{self._around.region.mark}-{number:012x}",
            kind,
            "RequestSpotFleet",
            dict(params),
            self._around,
            lambda: self._offers(config),
            {
                SPOT: {
                    "AllocationStrategy": config.get("AllocationStrategy", ""),
                    "InstancePoolsToUseCount": config.get("InstancePoolsToUseCount", 1),
                },
                ON_DEMAND: {"AllocationStrategy": config.get("OnDemandAllocationStrategy", "")},
            },
            _target(config["TargetCapacity"], config.get("OnDemandTargetCapacity", 0)),
            "aws:ec2spot:fleet-request-id",
            self._around.now(),
            config.get("ValidFrom"),
            config.get("ValidUntil"),
            config.get("TerminateInstancesWithExpiration", False),
            config.get("ExcessCapacityTerminationPolicy") == "noTermination",
        )
        check_pools(self._around.region, self._offers(config), _BAD)
        self.fleets[fleet.id] = fleet
        self._configs[fleet.id] = config
        if tags := tags_for(config)["spot-fleet-request"]:
            self._around.region.tags[fleet.id] = dict(tags)
        fleet.begin()
        return shapes.xml("RequestSpotFleet", {"SpotFleetRequestId": fleet.id})

    def _offers(self, config: Mapping[str, Any]) -> list[Offer]:
        found = offers_of(self._around.templates, config.get("LaunchTemplateConfigs", ()))
        for specification in config.get("LaunchSpecifications", ()):
            found += _of_specification(specification)
        price = config.get("SpotPrice")
        return [replace(one, max_price=one.max_price or price) for one in found]

    def _find(self, fleet_id: str) -> Fleet:
        if not _ID.fullmatch(fleet_id):
            raise AwsError(
                "InvalidSpotFleetRequestId.Malformed",
                f"The spot fleet request ID '{fleet_id}' is malformed",
            )
        if fleet_id not in self.fleets:
            raise AwsError(
                "InvalidSpotFleetRequestId.NotFound",
                f"The spot fleet request ID '{fleet_id}' does not exist",
            )
        return self.fleets[fleet_id]

    def _describe(self, asked: dict[str, Any]) -> str:
        ids = asked.get("SpotFleetRequestIds", [])
        found = [self._find(one) for one in ids] if ids else list(self.fleets.values())
        found.sort(key=lambda fleet: fleet.id)
        rows, token = page(found, asked, _PAGE_MAX, lambda fleet: fleet.id)
        return shapes.xml(
            "DescribeSpotFleetRequests",
            {"SpotFleetRequestConfigs": [self._row(one) for one in rows], "NextToken": token},
        )

    def _describe_instances(self, asked: dict[str, Any]) -> str:
        fleet = self._find(asked["SpotFleetRequestId"])
        rows, token = page(fleet.living, asked, _PAGE_MAX, lambda machine: f"{machine.number:012d}")
        return shapes.xml(
            "DescribeSpotFleetInstances",
            {
                "ActiveInstances": active_instances(rows),
                "NextToken": token,
                "SpotFleetRequestId": fleet.id,
            },
        )

    def _describe_history(self, asked: dict[str, Any]) -> str:
        fleet = self._find(asked["SpotFleetRequestId"])
        records = [
            {
                "EventInformation": {
                    "EventDescription": record.detail,
                    "EventSubType": _EVENTS.get(record.words, record.words),
                    "InstanceId": record.instance_id,
                },
                "EventType": _EVENTS[record.kind],
                "Timestamp": record.at,
            }
            for record in fleet.history
            if record.at >= asked["StartTime"]
            and asked.get("EventType") in (None, _EVENTS[record.kind])
        ]
        return shapes.xml(
            "DescribeSpotFleetRequestHistory",
            {
                "HistoryRecords": records,
                "LastEvaluatedTime": self._around.now(),
                "SpotFleetRequestId": fleet.id,
                "StartTime": asked["StartTime"],
            },
        )

    def _row(self, fleet: Fleet) -> dict[str, Any]:
        config = self._configs[fleet.id]
        tags = self._around.region.tags.get(fleet.id, {})
        return {
            "ActivityStatus": fleet.activity,
            "CreateTime": fleet.made_at,
            "SpotFleetRequestConfig": config
            | {
                "TargetCapacity": int(fleet.target.total),
                "OnDemandTargetCapacity": int(fleet.target.on_demand),
                "FulfilledCapacity": fleet.fulfilled(),
                "OnDemandFulfilledCapacity": fleet.fulfilled(ON_DEMAND),
                "ExcessCapacityTerminationPolicy": "noTermination"
                if fleet.spares_excess
                else "default",
                "TerminateInstancesWithExpiration": fleet.ends_with_expiry,
                "Type": fleet.kind,
            },
            "SpotFleetRequestId": fleet.id,
            "SpotFleetRequestState": _state(fleet),
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()] or None,
        }

    def _modify(self, asked: dict[str, Any]) -> str:
        fleet = self._find(asked["SpotFleetRequestId"])
        if fleet.kind != MAINTAIN:
            # "You can only modify a Spot Fleet request of type maintain"
            # (API_ModifySpotFleetRequest.html); the code is from memory.
            raise AwsError(
                "UnsupportedOperation", "Only a Spot Fleet request of type maintain is modifiable."
            )
        if fleet.ended:
            raise AwsError(
                "InvalidSpotFleetRequestState",  # from memory
                f"The spot fleet request '{fleet.id}' is not in a modifiable state.",
            )
        config = self._configs[fleet.id]
        if (policy := asked.get("ExcessCapacityTerminationPolicy")) is not None:
            fleet.spares_excess = policy == "noTermination"
        if configs := asked.get("LaunchTemplateConfigs"):
            offers = offers_of(self._around.templates, configs)
            check_pools(self._around.region, offers, _BAD)
            config["LaunchTemplateConfigs"] = configs
        total = asked.get("TargetCapacity", fleet.target.total)
        # Spot is the difference; on-demand stays as it was unless said (from memory).
        on_demand = asked.get("OnDemandTargetCapacity", min(fleet.target.on_demand, total))
        fleet.retarget(_target(total, on_demand))
        return shapes.xml("ModifySpotFleetRequest", {"Return": True})

    def _cancel(self, asked: dict[str, Any]) -> str:
        ids = list(dict.fromkeys(asked.get("SpotFleetRequestIds", [])))
        if len(ids) > _CANCEL_MAX:
            raise AwsError("InvalidParameterValue", f"At most {_CANCEL_MAX} requests a call.")
        if "TerminateInstances" not in asked:
            raise AwsError(
                "MissingParameter", "The request must contain the parameter terminateInstances"
            )
        terminate = asked["TerminateInstances"]
        done, failed = [], []
        for fleet_id in ids:
            if (error := self._uncancellable(fleet_id, terminate)) is not None:
                code, words = error
                failed.append(
                    {"SpotFleetRequestId": fleet_id, "Error": {"Code": code, "Message": words}}
                )
                continue
            fleet = self.fleets[fleet_id]
            before = _state(fleet)
            fleet.end(terminate)
            self._forget_later(fleet)
            done.append(
                {
                    "SpotFleetRequestId": fleet_id,
                    "PreviousSpotFleetRequestState": before,
                    "CurrentSpotFleetRequestState": "cancelled_terminating"
                    if terminate
                    else "cancelled_running",
                }
            )
        return shapes.xml(
            "CancelSpotFleetRequests",
            {"SuccessfulFleetRequests": done, "UnsuccessfulFleetRequests": failed},
        )

    def _uncancellable(self, fleet_id: str, terminate: bool) -> tuple[str, str] | None:
        """Why a request cannot be cancelled: a code of API_CancelSpotFleetRequestsError.html."""
        if not _ID.fullmatch(fleet_id):
            return "fleetRequestIdMalformed", f"The request ID '{fleet_id}' is malformed"
        if fleet_id not in self.fleets:
            return "fleetRequestIdDoesNotExist", f"The request ID '{fleet_id}' does not exist"
        fleet = self.fleets[fleet_id]
        if fleet.ended and (fleet.terminating or not terminate or not fleet.remains):
            words = f"The request '{fleet_id}' is in the state {_state(fleet)}"
            return "fleetRequestNotInCancellableState", words
        return None

    def _forget_later(self, fleet: Fleet) -> None:
        def forget() -> None:
            if fleet.remains:
                self._forget_later(fleet)
                return
            self.fleets.pop(fleet.id, None)
            self._configs.pop(fleet.id, None)
            self._around.region.tags.pop(fleet.id, None)

        self._around.schedule(self._around.now() + KEPT, forget)


def _check(config: Mapping[str, Any]) -> None:
    """Refuse what RequestSpotFleet does not take (API_SpotFleetRequestConfigData.html)."""
    for name in ("IamFleetRole", "TargetCapacity"):
        if name not in config:
            raise AwsError(
                "MissingParameter",
                f"The request must contain the parameter SpotFleetRequestConfig.{name}",
            )
    if config.get("Type", MAINTAIN) not in (REQUEST, MAINTAIN):
        raise AwsError(_BAD, "Parameter: SpotFleetRequestConfig.Type is invalid.")
    if bool(config.get("LaunchSpecifications")) == bool(config.get("LaunchTemplateConfigs")):
        raise AwsError(
            _BAD,
            "SpotFleetRequestConfig must have LaunchSpecifications or LaunchTemplateConfigs.",
        )
    if config.get("OnDemandTargetCapacity") and config.get("LaunchSpecifications"):
        raise AwsError(_BAD, "On-Demand capacity needs LaunchTemplateConfigs.")
    if not 0 <= config.get("OnDemandTargetCapacity", 0) <= config["TargetCapacity"]:
        raise AwsError(_BAD, "Parameter: SpotFleetRequestConfig.OnDemandTargetCapacity is invalid.")
    if config["TargetCapacity"] == 0 and config.get("Type", MAINTAIN) != MAINTAIN:
        raise AwsError(_BAD, "Parameter: SpotFleetRequestConfig.TargetCapacity is invalid.")
    pools, strategy = config.get("InstancePoolsToUseCount"), config.get("AllocationStrategy")
    if pools is not None and strategy not in (None, "lowestPrice"):
        raise AwsError(_BAD, "InstancePoolsToUseCount is valid only with lowestPrice.")
    for one in config.get("LaunchTemplateConfigs", ()):
        if "Version" not in one.get("LaunchTemplateSpecification", {}):
            raise AwsError(_BAD, "LaunchTemplateSpecification must have the parameter Version.")
    for specification in config.get("TagSpecifications", ()):
        # "The value for ResourceType must be spot-fleet-request, otherwise the Spot Fleet request
        # fails" (the same page).
        if specification.get("ResourceType") != "spot-fleet-request":
            raise AwsError(
                "InvalidParameterValue",
                f"'{specification.get('ResourceType')}' is not a valid taggable resource type.",
            )


def _target(total: float, on_demand: float) -> Target:
    """ "Amazon EC2 calculates the difference between the total capacity and On-Demand capacity,
    and launches the difference as Spot capacity" (API_RequestSpotFleet.html)."""
    if not 0 <= on_demand <= total:
        raise AwsError(_BAD, "OnDemandTargetCapacity is more than TargetCapacity.")
    return Target(float(on_demand), float(total - on_demand))


def _of_specification(specification: Mapping[str, Any]) -> list[Offer]:
    """The offers of one launch specification, which is no template but parameters themselves."""
    own = ("SecurityGroups", "SpotPrice", "SubnetId", "WeightedCapacity", "InstanceRequirements")
    base = {name: value for name, value in specification.items() if name not in own}
    if groups := specification.get("SecurityGroups"):
        base["SecurityGroupIds"] = [group["GroupId"] for group in groups if "GroupId" in group]
    override = {
        name: specification[name]
        for name in ("SpotPrice", "SubnetId", "WeightedCapacity", "InstanceRequirements")
        if name in specification
    }
    return override_offers(base, {}, override)


def _state(fleet: Fleet) -> str:
    """The state (spot-fleet-states.html)."""
    return fleet.state("cancelled")
