"""Application Auto Scaling: what was registered is remembered and answered, nothing is scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .wire import AwsError

# What a target and a policy are known by (API_RegisterScalableTarget.html).
_TARGET = ("ServiceNamespace", "ResourceId", "ScalableDimension")


class ApplicationScaling:
    """The scalable targets and policies of one region."""

    def __init__(self, account: str, region: str) -> None:
        self._prefix = f"arn:aws:application-autoscaling:{region}:{account}"
        self._role = f"arn:aws:iam::{account}:role/aws-service-role/application-autoscaling"
        self.targets: dict[tuple[str, ...], dict[str, Any]] = {}
        self.policies: dict[tuple[str, ...], dict[str, Any]] = {}

    def answer(self, action: str, asked: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Do and answer a call. Raises AwsError."""
        match action:
            case "DescribeScalableTargets":
                found = self._matching(self.targets, asked)
                wanted = asked.get("ResourceIds")
                return {
                    "ScalableTargets": [
                        one for one in found if not wanted or one["ResourceId"] in wanted
                    ]
                }
            case "DescribeScalingPolicies":
                found = self._matching(self.policies, asked)
                names = asked.get("PolicyNames")
                return {
                    "ScalingPolicies": [
                        one for one in found if not names or one["PolicyName"] in names
                    ]
                }
        for name in _TARGET:
            if not asked.get(name):
                raise AwsError("ValidationException", f"{name} must not be null")
        key = tuple(asked[name] for name in _TARGET)
        match action:
            case "RegisterScalableTarget":
                return self._register(key, asked, now)
            case "DeregisterScalableTarget":
                self._known(key)
                del self.targets[key]
                for policy in [one for one in self.policies if one[:3] == key]:
                    del self.policies[policy]
                return {}
            case "PutScalingPolicy":
                return self._put_policy(key, asked, now)
            case "DeleteScalingPolicy":
                if self.policies.pop((*key, asked.get("PolicyName", "")), None) is None:
                    raise AwsError("ObjectNotFoundException", "No scaling policy found")
                return {}
        raise AwsError("UnknownOperationException", f"The sandbox cannot do this: {action}")

    def _register(
        self, key: tuple[str, ...], asked: Mapping[str, Any], now: float
    ) -> dict[str, Any]:
        """Make a target or change what is given of it; a new one needs both capacities."""
        target = dict(self.targets.get(key, {}))
        if not target and not {"MinCapacity", "MaxCapacity"} <= asked.keys():
            raise AwsError(
                "ValidationException", "MinCapacity and MaxCapacity are needed for a new target"
            )
        target = {
            "RoleARN": self._role,
            "CreationTime": now,
            "ScalableTargetARN": f"{self._prefix}:scalable-target/{len(self.targets):04d}",
            **target,
            **{name: value for name, value in asked.items() if name != "Tags"},
        }
        if target["MinCapacity"] > target["MaxCapacity"]:
            raise AwsError(
                "ValidationException", "Maximum capacity cannot be less than minimum capacity"
            )
        self.targets[key] = target
        return {"ScalableTargetARN": target["ScalableTargetARN"]}

    def _put_policy(
        self, key: tuple[str, ...], asked: Mapping[str, Any], now: float
    ) -> dict[str, Any]:
        self._known(key)
        name = asked.get("PolicyName", "")
        arn = f"{self._prefix}:scalingPolicy:{asked['ResourceId']}:policyName/{name}"
        self.policies[(*key, name)] = {"PolicyARN": arn, "CreationTime": now, "Alarms": [], **asked}
        return {"PolicyARN": arn, "Alarms": []}

    def _known(self, key: tuple[str, ...]) -> None:
        if key not in self.targets:
            raise AwsError(
                "ObjectNotFoundException",
                f"No scalable target registered for service namespace: {key[0]}, resource ID: "
                f"{key[1]}, scalable dimension: {key[2]}",
            )

    def _matching(
        self, rows: Mapping[tuple[str, ...], dict[str, Any]], asked: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        if not asked.get("ServiceNamespace"):
            raise AwsError("ValidationException", "ServiceNamespace must not be null")
        return [
            row
            for row in rows.values()
            if all(asked.get(name) in (None, row[name]) for name in _TARGET)
        ]
