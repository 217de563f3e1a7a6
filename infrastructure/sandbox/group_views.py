"""What the Describe calls of Auto Scaling answer: groups, their instances, their activities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .pages import page
from .scaling import Activity, Group, Member
from .wire import AwsError

# API_Describe*.html
_GROUPS_PAGE, _GROUPS_MAX = 50, 100
_INSTANCES_MAX = 50
_ACTIVITIES_MAX = 100
_FILTERS = ("tag-key", "tag-value")


def describe(groups: Iterable[Group], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What DescribeAutoScalingGroups answers."""
    names = asked.get("AutoScalingGroupNames", [])
    size = _page_size(asked, _GROUPS_PAGE, _GROUPS_MAX)
    if len(names) > size:
        raise AwsError("ValidationError", f"At most {size} group names a call.")
    found = [
        group
        for group in sorted(groups, key=lambda one: one.name)
        if (not names or group.name in names) and _tagged(group, asked.get("Filters", ()))
    ]
    rows, token = _page(found, asked, size, lambda one: one.name)
    instances = asked.get("IncludeInstances", True)
    described = [_described(group, instances) for group in rows]
    return {"AutoScalingGroups": described, "NextToken": token}


def describe_instances(groups: Iterable[Group], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What DescribeAutoScalingInstances answers."""
    ids = asked.get("InstanceIds", [])
    size = _page_size(asked, _INSTANCES_MAX, _INSTANCES_MAX)
    if len(ids) > _INSTANCES_MAX:
        raise AwsError("ValidationError", f"At most {_INSTANCES_MAX} instance ids a call.")
    every = [(group, one) for group in groups for one in group.listed()]
    # "If you specify an ID that does not exist, it is ignored with no error."
    found = [(group, one) for group, one in every if not ids or one.machine.id in ids]
    found.sort(key=lambda pair: pair[1].machine.id)
    rows, token = _page(found, asked, size, lambda pair: pair[1].machine.id)
    return {
        "AutoScalingInstances": [
            {**_instance(one), "AutoScalingGroupName": group.name} for group, one in rows
        ],
        "NextToken": token,
    }


def describe_activities(groups: Iterable[Group], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What DescribeScalingActivities answers."""
    name = asked.get("AutoScalingGroupName")
    ids = asked.get("ActivityIds", [])
    found = [
        one
        for group in groups
        for one in group.activities
        if name in (None, group.name)
        and (not ids or one.id in ids)
        and _chosen(one, asked.get("Filters", ()))
    ]
    # "Activities are sorted by start time. Activities still in progress are described
    # first." The newest are first.
    order = {id(one): number for number, one in enumerate(found)}
    found.sort(key=lambda one: (one.status != "InProgress", -one.start, -order[id(one)]))
    keys = {id(one): f"{number:06d}" for number, one in enumerate(found)}
    size = _page_size(asked, _ACTIVITIES_MAX, _ACTIVITIES_MAX)
    rows, token = _page(found, asked, size, lambda one: keys[id(one)])
    return {"Activities": [rendered(one) for one in rows], "NextToken": token}


def rendered(activity: Activity) -> dict[str, Any]:
    """An activity as the answers hold it."""
    done = activity.status in ("Successful", "Failed", "Cancelled")
    return {
        "ActivityId": activity.id,
        "AutoScalingGroupName": activity.group.name,
        "AutoScalingGroupARN": activity.group.arn,
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.start,
        "EndTime": activity.start if done else None,
        "StatusCode": activity.status,
        "StatusMessage": activity.failure,
        "Progress": 100 if done else 50,
        "Details": "{}",
    }


def _described(group: Group, instances: bool) -> dict[str, Any]:
    return {
        **group.extra,
        "AutoScalingGroupName": group.name,
        "AutoScalingGroupARN": group.arn,
        "LaunchTemplate": group.template,
        "MixedInstancesPolicy": group.policy,
        "MinSize": group.least,
        "MaxSize": group.most,
        "DesiredCapacity": group.desired,
        "AvailabilityZones": group.zones,
        "LoadBalancerNames": [],
        "TargetGroupARNs": [],
        "Instances": [_instance(one) for one in group.listed()] if instances else [],
        "CreatedTime": group.created,
        "SuspendedProcesses": [],
        "VPCZoneIdentifier": ",".join(group.subnets),
        "EnabledMetrics": [],
        "Status": "Delete in progress" if group.deleting else None,
        "Tags": [
            {
                "ResourceId": group.name,
                "ResourceType": "auto-scaling-group",
                "Key": key,
                "Value": value,
                "PropagateAtLaunch": propagate,
            }
            for key, (value, propagate) in group.tags.items()
        ],
        "NewInstancesProtectedFromScaleIn": group.protect_new,
        "TrafficSources": [],
    }


def _instance(member: Member) -> dict[str, Any]:
    machine = member.machine
    return {
        "InstanceId": machine.id,
        "InstanceType": machine.instance.instance_type,
        "AvailabilityZone": machine.zone,
        "LifecycleState": member.state,
        "HealthStatus": "Unhealthy" if member.leaving else "Healthy",
        "LaunchTemplate": machine.asked.get("LaunchTemplate"),
        "ImageId": machine.instance.image_id,
        "ProtectedFromScaleIn": member.protected,
        "WeightedCapacity": str(member.choice.weight) if member.choice.weighted else None,
    }


def _tagged(group: Group, wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a group has the tags that the filters ask for; values are taken as they are."""
    for one in wanted:
        name, values = one["Name"], one.get("Values", [])
        if name.startswith("tag:"):
            has = {group.tags.get(name.removeprefix("tag:"), (None,))[0]}
        elif name in _FILTERS:
            at = _FILTERS.index(name)
            has = {(key, value)[at] for key, (value, _) in group.tags.items()}
        else:
            raise AwsError("ValidationError", f"Filter type {name} is not correct.")
        if not has & set(values):
            return False
    return True


def _chosen(activity: Activity, wanted: Sequence[Mapping[str, Any]]) -> bool:
    for one in wanted:
        name, values = one["Name"], one.get("Values", [])
        if name == "Status":
            if activity.status not in values:
                return False
        elif name in ("StartTimeLowerBound", "StartTimeUpperBound") and values:
            bound = datetime.fromisoformat(values[0]).timestamp()
            if activity.start < bound if "Lower" in name else activity.start > bound:
                return False
        else:
            raise AwsError("ValidationError", f"Filter type {name} is not correct.")
    return True


def _page_size(asked: Mapping[str, Any], default: int, most: int) -> int:
    size = int(asked.get("MaxRecords", default))
    if not 1 <= size <= most:
        raise AwsError("ValidationError", f"MaxRecords must be from 1 to {most}.")
    return size


def _page(
    rows: Sequence[Any], asked: Mapping[str, Any], size: int, key: Callable[[Any], str]
) -> tuple[list[Any], str | None]:
    told = {"MaxResults": size, "NextToken": asked.get("NextToken")}
    return page(rows, told, size, key)
