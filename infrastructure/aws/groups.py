"""Auto Scaling groups: one for each batch, of its name.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from application.ports import CallFailed, Fleet, Launched, Shortage
from domain.capacity import ANY, CREATE_GROUP, ON_DEMAND, SPOT, Pool
from infrastructure.aws import launch_templates, native, tags
from infrastructure.aws.client import Connection
from infrastructure.aws.overrides import machines_of, overrides, shortages

SERVICE = "autoscaling"
PAGE = 100
ACTIVITIES = 100
"""The latest activities of a group that are read for the reasons of a shortage: one page."""

NOT_YET = frozenset({"ResourceInUse", "ScalingActivityInProgress", "ResourceContention"})
"""Why a group cannot be deleted just now."""

PROTECTED = (
    "AutoScalingGroupName", "MinSize", "MaxSize", "DesiredCapacity", "DesiredCapacityType",
    "NewInstancesProtectedFromScaleIn", "HealthCheckType", "LaunchTemplate", "InstanceId",
    "LaunchConfigurationName", "Tags",
)  # fmt: skip

_REASON = re.compile(r"\b([A-Z][A-Za-z]+(?:\.[A-Za-z]+)?) - ")
"""The EC2 error in the message of an activity: `... Instances. InsufficientInstanceCapacity - We`
(from memory)."""


def payload(
    content: dict[str, Any],
    pools: Sequence[Pool],
    units: int,
    launch_tags: dict[str, str],
    data: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of CreateAutoScalingGroup, whose name stands for a token, and of the
    CreateLaunchTemplate before it. Raises CallFailed."""
    data = {**data, "TagSpecifications": launch_templates.tag_launches(data, launch_tags)}
    mixed = _is_mixed(content, pools)
    first = pools[0].instance_type
    if not mixed and first != ANY:
        data = {**data, "InstanceType": first}
    template = launch_templates.creation(data, launch_tags)
    reference = launch_templates.reference(template)
    name = f"hostledger-{launch_tags[tags.BATCH]}"
    result: dict[str, Any] = {
        "AutoScalingGroupName": name,
        "MinSize": 0,
        "MaxSize": units,
        "DesiredCapacity": units,
    }
    if mixed:
        result["MixedInstancesPolicy"] = {
            "LaunchTemplate": {
                "LaunchTemplateSpecification": reference,
                "Overrides": _overrides(content, pools),
            },
            "InstancesDistribution": _distribution(content, pools),
        }
    else:
        result["LaunchTemplate"] = reference
    subnets = list(dict.fromkeys(pool.subnet_id for pool in pools if pool.subnet_id != ANY))
    if subnets:
        result["VPCZoneIdentifier"] = ",".join(subnets)
    result["HealthCheckType"] = "EC2"
    result["NewInstancesProtectedFromScaleIn"] = True
    # Machines and volumes have theirs from the launch template.
    result["Tags"] = [
        {
            "ResourceId": name,
            "ResourceType": "auto-scaling-group",
            "Key": key,
            "Value": value,
            "PropagateAtLaunch": False,
        }
        for key, value in launch_tags.items()
    ]
    return _with_native(result, content), template


def _is_mixed(content: dict[str, Any], pools: Sequence[Pool]) -> bool:
    """Whether it takes more than a launch template: a market, several types, weights."""
    return (
        "abis" in content
        or any(pool.market != ON_DEMAND or pool.units != 1 for pool in pools)
        or len({pool.instance_type for pool in pools}) > 1
    )


def _overrides(content: dict[str, Any], pools: Sequence[Pool]) -> list[dict[str, Any]]:
    """One for each type, in the order of their priority: their order says it."""
    types: dict[str, Pool] = {}
    for pool in pools:
        types.setdefault(pool.instance_type, pool)
    anywhere = [Pool(p.instance_type, ANY, p.market, p.units) for p in types.values()]
    found = overrides(content, anywhere, weight_of=str)
    return [{key: one[key] for key in one if key != "Priority"} for one in found]


def _distribution(content: dict[str, Any], pools: Sequence[Pool]) -> dict[str, Any]:
    all_on_demand = all(pool.market == ON_DEMAND for pool in pools)
    percent = 100 if all_on_demand else content.get("percent_on_demand", 0)
    distribution: dict[str, Any] = {
        "OnDemandBaseCapacity": 0,
        "OnDemandPercentageAboveBaseCapacity": percent,
    }
    if content.get("allocation_strategy_on_demand"):
        distribution["OnDemandAllocationStrategy"] = content["allocation_strategy_on_demand"]
    if percent < 100:
        strategy = content.get("allocation_strategy")
        if strategy == "diversified":
            raise CallFailed(
                "refused", "NoSuchStrategy", "Auto Scaling has no strategy diversified"
            )
        if strategy:
            distribution["SpotAllocationStrategy"] = strategy
        if content.get("pools_count"):
            distribution["SpotInstancePools"] = content["pools_count"]
        if content.get("max_spot_price"):
            distribution["SpotMaxPrice"] = str(content["max_spot_price"])
    return distribution


def _with_native(ours: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    wanted = dict(content.get("native", {}).get("api") or {})
    theirs = {one["Key"]: one for one in wanted.pop("Tags", ())}
    if any(key.startswith(tags.OWN) for key in theirs):
        raise CallFailed("refused", "ReservedTag", f"tags that begin with {tags.OWN} are ours")
    mixed = ours.get("MixedInstancesPolicy")
    if mixed is None:
        wanted.pop("MixedInstancesPolicy", None)
    result = native.over(ours, wanted, PROTECTED)
    if mixed is not None:
        launch_template = dict(result["MixedInstancesPolicy"]["LaunchTemplate"])
        reference = mixed["LaunchTemplate"]["LaunchTemplateSpecification"]
        launch_template["LaunchTemplateSpecification"] = reference
        policy = {**result["MixedInstancesPolicy"], "LaunchTemplate": launch_template}
        result = {**result, "MixedInstancesPolicy": policy}
    if theirs:
        own = {one["Key"]: one for one in ours["Tags"]}
        name = {"ResourceId": ours["AutoScalingGroupName"], "ResourceType": "auto-scaling-group"}
        more = [
            {"PropagateAtLaunch": False, **one, **name}
            for key, one in theirs.items()
            if key not in own
        ]
        result = {**result, "Tags": ours["Tags"] + more}
    return result


def _is_gone(failed: CallFailed) -> bool:
    """Auto Scaling says so in words alone (from memory)."""
    words = ("not found", "does not exist", "pending delete")
    return failed.code == "ValidationError" and any(w in failed.message.lower() for w in words)


def reasons(activities: Sequence[dict[str, Any]]) -> list[Shortage]:
    """What activities that failed say. They name no pool."""
    found = []
    for activity in activities:
        message = activity.get("StatusMessage") or ""
        if activity.get("StatusCode") == "Failed" and message:
            code = _REASON.search(message)
            market = SPOT if "spot" in message.lower() else ON_DEMAND
            found.append((f"{ANY}/{ANY}/{market}", code[1] if code else "LaunchFailed", message))
    return shortages(found)


class Groups:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _call(self, api: str, parameters: dict[str, Any], machines: int = 0) -> Any:
        return self._connection.call(api, parameters, SERVICE, machines)

    def launch(self, payload: dict[str, Any], token: str) -> Launched:
        """Make exactly this group; its name is the token: one of ours that has it is the answer to
        a call before. Raises CallFailed."""
        name = payload["AutoScalingGroupName"]
        policy = payload.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
        machines = machines_of(payload["DesiredCapacity"], policy.get("Overrides", ()))
        try:
            answer = self._call(CREATE_GROUP, payload, machines)
        except CallFailed as failed:
            if failed.code == "AlreadyExists":
                return Launched([], self._ours(payload), (), name)
            if _is_gone(failed) and "launch template" in failed.message.lower():
                raise CallFailed("template_gone", failed.code, failed.message) from failed
            raise
        return Launched([], answer["ResponseMetadata"]["RequestId"], (), name)

    def _ours(self, payload: dict[str, Any]) -> str:
        """The id of the request that found the group of this name to be ours."""
        name = payload["AutoScalingGroupName"]
        answer = self._call("DescribeAutoScalingGroups", {"AutoScalingGroupNames": [name]})
        wanted = tags.of(payload["Tags"])
        for group in answer["AutoScalingGroups"]:
            has = tags.of(group.get("Tags"))
            if all(has.get(key) == wanted[key] for key in (tags.DEPLOYMENT, tags.BATCH)):
                return str(answer["ResponseMetadata"]["RequestId"])
        raise CallFailed("refused", "NotOurs", f"the group {name} is somebody else's")

    def listed(self, deployment: str) -> list[Fleet]:
        """Those that are not being deleted. Raises CallFailed."""
        filters = [{"Name": f"tag:{tags.DEPLOYMENT}", "Values": [deployment]}]
        pages = self._connection.pages(
            "DescribeAutoScalingGroups", {"Filters": filters, "MaxRecords": PAGE}, SERVICE
        )
        return [
            Fleet(
                CREATE_GROUP,
                group["AutoScalingGroupName"],
                group["DesiredCapacity"],
                tags.of(group.get("Tags")).get(tags.BATCH, ""),
            )
            for page in pages
            for group in page["AutoScalingGroups"]
            if not group.get("Status")
        ]

    def why_short(self, fleet_id: str) -> list[Shortage]:
        """The reasons of its latest activities that failed. Raises CallFailed."""
        answer = self._call(
            "DescribeScalingActivities",
            {"AutoScalingGroupName": fleet_id, "MaxRecords": ACTIVITIES},
        )
        return reasons(answer["Activities"])

    def set_target(self, fleet_id: str, target: int, on_demand: int) -> None:
        """Change the size; its machines are protected from it. Done when it is gone. Raises
        CallFailed."""
        try:
            self._call(
                "UpdateAutoScalingGroup",
                {
                    "AutoScalingGroupName": fleet_id,
                    "MinSize": 0,
                    "MaxSize": target,
                    "DesiredCapacity": target,
                },
            )
        except CallFailed as failed:
            if not _is_gone(failed):
                raise

    def delete(self, kind: str, fleet_ids: Sequence[str]) -> list[str]:
        """Delete those that are empty; those that are gone or on their way. Raises CallFailed."""
        done = []
        for fleet_id in fleet_ids:
            try:
                self._call("DeleteAutoScalingGroup", {"AutoScalingGroupName": fleet_id})
            except CallFailed as failed:
                if failed.code in NOT_YET:
                    continue
                if not _is_gone(failed):
                    raise
            done.append(fleet_id)
        return done
