"""Auto Scaling: the actions on groups, as its API reference says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from . import group_views, query
from .fleet import Surroundings
from .group_choices import choices_of, subnets_of
from .region import Machine
from .scaling import Bought, Group, Member
from .wire import AwsError

# API_*.html of each action
_TERMINATE_MAX, _DETACH_MAX, _PROTECT_MAX, _LAUNCH_MAX = 100, 20, 50, 100
# API_CreateAutoScalingGroup.html: ASCII 33 to 126 but the colon.
_NAME = re.compile(r"[\x20-9;-~]{1,255}")

# What a group may be told that changes nothing here but is described again.
_KEPT = {
    "DefaultCooldown": 300,
    "HealthCheckType": "EC2",
    "HealthCheckGracePeriod": 0,
    "CapacityRebalance": None,
    "TerminationPolicies": ["Default"],
    "ServiceLinkedRoleARN": None,
    "MaxInstanceLifetime": None,
    "Context": None,
    "DefaultInstanceWarmup": None,
    "PlacementGroup": None,
    "DesiredCapacityType": None,
    "CapacityReservationSpecification": None,
}
_CREATES = frozenset(
    {
        "AutoScalingGroupName",
        "LaunchTemplate",
        "MixedInstancesPolicy",
        "MinSize",
        "MaxSize",
        "DesiredCapacity",
        "VPCZoneIdentifier",
        "AvailabilityZones",
        "NewInstancesProtectedFromScaleIn",
        "Tags",
        *_KEPT,
    }
)


class Groups:
    """All groups of one account and region."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._groups: dict[str, Group] = {}
        self._made = 0
        # The activities of groups that are gone: described when asked for.
        self._gone: list[Group] = []
        self._before = around.region.on_state
        around.region.on_state = self._seen

    def answer(self, action: str, params: Mapping[str, str]) -> str | None:
        """The inside of an action's result, None for one the sandbox lacks. Raises AwsError."""
        actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "CreateAutoScalingGroup": self._create,
            "UpdateAutoScalingGroup": self._update,
            "DeleteAutoScalingGroup": self._delete,
            "SetDesiredCapacity": self._set_desired,
            "SetInstanceProtection": self._protect,
            "TerminateInstanceInAutoScalingGroup": self._terminate,
            "DetachInstances": self._detach,
            "LaunchInstances": self._launch,
            "DescribeAutoScalingGroups": lambda told: group_views.describe(here, told),
            "DescribeAutoScalingInstances": (
                lambda told: group_views.describe_instances(here, told)
            ),
            "DescribeScalingActivities": self._describe_activities,
        }
        if action not in actions:
            return None
        self._sweep()
        here = list(self._groups.values())
        content = actions[action](query.read("autoscaling", action, params))
        return query.xml("autoscaling", action, content)

    def leftovers(self, tags: Mapping[str, str]) -> list[str]:
        """The names of the groups with these tags that are not deleted."""
        self._sweep()
        return [
            group.name
            for group in self._groups.values()
            if not group.deleting
            and all(group.tags.get(key, ("",))[0] == value for key, value in tags.items())
        ]

    # -- groups ----------------------------------------------------------------------------------

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        _refuse_unknown(asked, _CREATES)
        name = asked["AutoScalingGroupName"]
        if not _NAME.fullmatch(name):
            raise AwsError("ValidationError", f"Invalid group name: {name}")
        if name in self._groups:
            words = f"A group with the name {name} already exists"
            if self._groups[name].deleting:
                # In AWS's words, hashicorp/terraform#1105.
                words += (
                    " and is pending delete.  Please wait until Autoscaling completes the "
                    "deletion process before creating another group with the same name."
                )
            raise AwsError(
                "AlreadyExists", f"AutoScalingGroup by this name already exists - {words}"
            )
        choices, mix = choices_of(self._around.templates, asked)
        self._made += 1
        group = Group(
            name,
            self._around,
            self._made,
            choices,
            mix,
            subnets_of(self._around.region, asked),
            asked["MinSize"],
            asked["MaxSize"],
            asked.get("DesiredCapacity", asked["MinSize"]),
            asked.get("NewInstancesProtectedFromScaleIn", False),
            {
                one["Key"]: (one.get("Value", ""), one.get("PropagateAtLaunch", False))
                for one in asked.get("Tags", ())
            },
            self._around.now(),
            asked.get("LaunchTemplate"),
            asked.get("MixedInstancesPolicy"),
            _KEPT | {key: asked[key] for key in _KEPT if key in asked},
        )
        if any(key.startswith("aws:") for key in group.tags):
            raise AwsError("ValidationError", "Tag keys that begin with aws: are reserved.")
        _check_sizes(group.least, group.most, group.desired)
        self._groups[name] = group
        group.adjust()
        return {}

    def _update(self, asked: dict[str, Any]) -> dict[str, Any]:
        _refuse_unknown(asked, _CREATES - {"Tags"})
        group = self._named(asked)
        least = asked.get("MinSize", group.least)
        most = asked.get("MaxSize", group.most)
        desired = asked.get("DesiredCapacity")
        if desired is None:
            # "If you specify a new value for MinSize without specifying a value for
            # DesiredCapacity ..." (API_UpdateAutoScalingGroup.html)
            desired = min(max(group.desired, least), most)
        _check_sizes(least, most, desired)
        subnets = group.subnets
        if "VPCZoneIdentifier" in asked or "AvailabilityZones" in asked:
            subnets = subnets_of(self._around.region, asked)
        if "LaunchTemplate" in asked or "MixedInstancesPolicy" in asked:
            group.choices, group.mix = choices_of(self._around.templates, asked)
            group.template = asked.get("LaunchTemplate")
            group.policy = asked.get("MixedInstancesPolicy")
        group.subnets = subnets
        group.least, group.most, group.desired = least, most, desired
        protect = "NewInstancesProtectedFromScaleIn"
        group.protect_new = asked.get(protect, group.protect_new)
        group.extra |= {key: asked[key] for key in _KEPT if key in asked}
        group.adjust()
        return {}

    def _delete(self, asked: dict[str, Any]) -> dict[str, Any]:
        group = self._named(asked, deleting=True)
        members = group.listed()
        if not asked.get("ForceDelete"):
            if any(not one.leaving for one in members):
                raise AwsError(
                    "ResourceInUse",
                    "You cannot delete an AutoScalingGroup while there are instances or pending "
                    "Spot instance request(s) still in the group.",
                )
            # A try that is due now is an activity in progress; one that waits for capacity not.
            if members or (group.due is not None and group.desired and not group.activities):
                raise AwsError(
                    "ScalingActivityInProgress",
                    "You cannot delete an AutoScalingGroup while there are scaling activities in "
                    "progress for that group.",
                )
        if not group.deleting:
            group.deleting, group.deleted_at = True, self._around.now()
        group.least = group.most = group.desired = 0
        for member in members:
            if not member.leaving:
                group.end(
                    member,
                    "an instance was taken out of service in response to a user "
                    "request to delete the group.",
                )
        self._sweep()
        return {}

    def _set_desired(self, asked: dict[str, Any]) -> dict[str, Any]:
        group, desired = self._named(asked), asked["DesiredCapacity"]
        for wrong, word, bound, value in (
            (desired > group.most, "above", "max", group.most),
            (desired < group.least, "below", "min", group.least),
        ):
            if wrong:
                raise AwsError(
                    "ValidationError",
                    f"New SetDesiredCapacity value {desired} is {word} {bound} value {value} for "
                    "the AutoScalingGroup.",
                )
        group.desired = desired
        group.adjust()
        return {}

    # -- their instances -------------------------------------------------------------------------

    def _protect(self, asked: dict[str, Any]) -> dict[str, Any]:
        group, ids = self._named(asked), asked["InstanceIds"]
        if len(ids) > _PROTECT_MAX:
            raise AwsError("LimitExceeded", f"At most {_PROTECT_MAX} instance ids a call.")
        members = [_member(group, instance_id) for instance_id in ids]
        for member in members:
            # In AWS's words; from memory.
            if member.state != "InService":
                raise AwsError(
                    "ValidationError",
                    f"The instance {member.machine.id} is not in InService or EnteringStandby or "
                    "Standby.",
                )
        for member in members:
            member.protected = asked["ProtectedFromScaleIn"]
        group.adjust()
        return {}

    def _terminate(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One instance by id, or several of a group; all of them or none (from memory)."""
        one, several = asked.get("InstanceId"), asked.get("InstanceIds")
        if (one is None) == (several is None):
            raise AwsError("ValidationError", "Specify either InstanceId or InstanceIds.")
        if several is not None and "AutoScalingGroupName" not in asked:
            raise AwsError("ValidationError", "InstanceIds requires AutoScalingGroupName.")
        if several is not None and not 1 <= len(several) <= _TERMINATE_MAX:
            raise AwsError("ValidationError", f"1 to {_TERMINATE_MAX} instance ids a call.")
        ids = list(dict.fromkeys(several or [one]))
        if "AutoScalingGroupName" in asked:
            group = self._named(asked)
        else:
            group = self._group_of(ids[0])
        members = [_member(group, instance_id) for instance_id in ids]
        for member in members:
            # keikoproj/upgrade-manager#77 has it of another transition; of this from memory.
            if member.leaving:
                raise AwsError(
                    "ScalingActivityInProgress",
                    f"A scaling activity of instance {member.machine.id} is in progress.",
                )
        self._decrement(group, members, asked["ShouldDecrementDesiredCapacity"], "Terminating")
        cause = "instance was taken out of service in response to a user request."
        done = [group_views.rendered(group.end(member, cause)) for member in members]
        group.adjust()
        return {"Activity": done[0]} if several is None else {"Activities": done}

    def _detach(self, asked: dict[str, Any]) -> dict[str, Any]:
        group, ids = self._named(asked), list(dict.fromkeys(asked.get("InstanceIds", [])))
        if not 1 <= len(ids) <= _DETACH_MAX:
            raise AwsError("ValidationError", f"1 to {_DETACH_MAX} instance ids a call.")
        members = [_member(group, instance_id) for instance_id in ids]
        for member in members:
            # reproio/ecs_deploy#47
            if member.state != "InService":
                raise AwsError(
                    "ValidationError",
                    f"The instance {member.machine.id} is not in InService or Standby.",
                )
        self._decrement(group, members, asked["ShouldDecrementDesiredCapacity"], "Detaching")
        done = [group_views.rendered(group.detach(member)) for member in members]
        group.adjust()
        return {"Activities": done}

    def _launch(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Launch at once (launch-instances-synchronously.html): what is launched raises the
        desired capacity (from memory; the group would scale in otherwise), and what is not is
        left at that, unless the retry strategy says otherwise."""
        group, units = self._named(asked), asked["RequestedCapacity"]
        if group.mix is not None and 0 < group.mix.percentage < 100:
            raise AwsError(
                "ValidationError",
                "LaunchInstances takes groups that are fully On-Demand or fully Spot only.",
            )
        subnets = _launch_subnets(group, asked)
        # "the actual instance count is limited to 100 instances per launch"
        if units < 1 or -(-units // min(one.weight for one in group.choices)) > _LAUNCH_MAX:
            raise AwsError("ValidationError", f"1 to {_LAUNCH_MAX} instances a launch.")
        if group.desired + units > group.most:
            raise AwsError(
                "ValidationError",
                f"The requested capacity {units} would exceed the max value {group.most} of the "
                "AutoScalingGroup.",
            )
        bought = group.buy(units, subnets, "LaunchInstances")
        got = sum(one.choice.weight * len(one.members) for one in bought)
        retry = asked.get("RetryStrategy") == "retry-with-group-configuration"
        group.desired = min(group.most, group.desired + (max(got, units) if retry else got))
        for one in bought:
            for member in one.members:
                words = f"Launching a new EC2 instance: {member.machine.id}"
                cause = "an instance was launched in response to a user request."
                group.note(words, cause, machine=member.machine, launching=True)
        group.adjust()
        return {
            "AutoScalingGroupName": group.name,
            "ClientToken": asked["ClientToken"],
            "Instances": [
                {**_where(group, one), "InstanceIds": [m.machine.id for m in one.members]}
                for one in bought
                if one.members
            ],
            "Errors": [
                {**_where(group, one), "ErrorCode": error.code, "ErrorMessage": error.message}
                for one in bought
                if (error := one.error) is not None
            ],
        }

    def _describe_activities(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("AutoScalingGroupName")
        groups = list(self._groups.values())
        if asked.get("IncludeDeletedGroups"):
            groups += self._gone
        elif name is not None and name not in self._groups:
            raise _unknown_group(name)
        return group_views.describe_activities(groups, asked)

    # -- parts -----------------------------------------------------------------------------------

    def _seen(self, machine: Machine) -> None:
        """A machine has another state: one that is stopped fails its health check, and is ended
        and replaced ("any state other than running", health-checks-overview.html)."""
        self._before(machine)
        keeper = machine.keeper
        if machine.state == "stopped" and isinstance(keeper, Group):
            keeper.fail(machine)

    def _sweep(self) -> None:
        """Forget groups that are deleted and whose last machines are terminated.

        Each stays a while "even after being drained" (hashicorp/terraform#1353): `delay` here.
        """
        due = self._around.now() - self._around.delay
        done = [g for g in self._groups.values() if g.deleting and g.deleted_at <= due]
        for name in [group.name for group in done if not group.listed()]:
            self._gone.append(self._groups.pop(name))

    def _named(self, asked: Mapping[str, Any], *, deleting: bool = False) -> Group:
        name = asked["AutoScalingGroupName"]
        group = self._groups.get(name)
        if group is None:
            raise _unknown_group(name)
        if group.deleting and not deleting:
            # kubernetes/kops#1001
            raise AwsError(
                "ValidationError",
                "The AutoScaling group may not be modified while it is pending delete",
            )
        return group

    def _group_of(self, instance_id: str) -> Group:
        for group in self._groups.values():
            if instance_id in group.members:
                return group
        raise _not_managed(instance_id)

    def _decrement(
        self, group: Group, members: Sequence[Member], decrement: bool, doing: str
    ) -> None:
        if not decrement:
            return
        units = sum(one.choice.weight for one in members)
        if group.desired - units < group.least:
            raise AwsError(
                "ValidationError",
                f"Currently, desiredSize equals minSize ({group.least}). {doing} instance without "
                "replacement will violate group's min size constraint. Either set "
                "shouldDecrementDesiredCapacity flag to false or lower group's min size.",
            )
        group.desired -= units


def _where(group: Group, bought: Bought) -> dict[str, Any]:
    return {
        "InstanceType": bought.instance_type,
        "MarketType": "Spot" if bought.market == "spot" else "OnDemand",
        "SubnetId": bought.subnet,
        "AvailabilityZone": group.zone(bought.subnet),
    }


def _launch_subnets(group: Group, asked: Mapping[str, Any]) -> list[str]:
    """Where LaunchInstances launches: "For Auto Scaling groups covering multiple Availability
    Zones, you must specify the target Availability Zone or subnet"."""
    if asked.get("AvailabilityZoneIds"):
        raise AwsError("ValidationError", "The sandbox has no ids of zones; use their names.")
    subnets, zones = asked.get("SubnetIds", []), asked.get("AvailabilityZones", [])
    found = [
        subnet
        for subnet in group.subnets
        if (not subnets or subnet in subnets) and (not zones or group.zone(subnet) in zones)
    ]
    if not found or len({group.zone(subnet) for subnet in found}) > 1:
        raise AwsError(
            "ValidationError",
            "Specify one Availability Zone or one subnet that the group has.",
        )
    return found


def _check_sizes(least: int, most: int, desired: int) -> None:
    if least < 0 or least > most:
        raise AwsError(
            "ValidationError",
            f"Max bound, {most}, must be greater than or equal to min bound, {least}",
        )
    if not least <= desired <= most:
        raise AwsError(
            "ValidationError",
            f"Desired capacity:{desired} must be between the specified min size:{least} and max "
            f"size:{most}",
        )


def _refuse_unknown(asked: Mapping[str, Any], known: Iterable[str]) -> None:
    if unknown := set(asked) - set(known):
        names = ", ".join(sorted(unknown))
        raise AwsError("ValidationError", f"The sandbox cannot do this: {names}")
    if asked.get("DesiredCapacityType", "units") != "units" or asked.get("CapacityRebalance"):
        raise AwsError("ValidationError", "The sandbox counts units, and does not rebalance.")


def _member(group: Group, instance_id: str) -> Member:
    group.listed()
    if instance_id not in group.members:
        # In AWS's words, reproio/ecs_deploy#72.
        raise AwsError(
            "ValidationError",
            f"The instance {instance_id} is not part of Auto Scaling group {group.name}.",
        )
    return group.members[instance_id]


def _not_managed(instance_id: str) -> AwsError:
    return AwsError(
        "ValidationError",
        f"Instance Id not found - No managed instance found for instance ID: {instance_id}",
    )


def _unknown_group(name: str) -> AwsError:
    message = f"AutoScalingGroup name not found - AutoScalingGroup {name} not found"
    return AwsError("ValidationError", message)
