"""The permissions that a site's worker needs, as an IAM policy: what this package calls, and what
AWS asks for besides to carry those calls out.

Which conditions an action takes is said in the service authorization reference, its dependent
actions in the pages of each API:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-prerequisites.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-api-permissions.html
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Statement = dict[str, Any]

DEPLOYMENT = "hostledger:deployment"

LOOKS = (
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeScalingActivities",
    "ec2:DescribeFleetHistory",
    "ec2:DescribeFleets",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeSpotFleetRequestHistory",
    "ec2:DescribeSpotFleetRequests",
    "ec2:DescribeSubnets",
)
"""AWS has no narrower permission for these than all or nothing."""

MAKES = {
    "ec2:CreateFleet": "fleet",
    "ec2:CreateLaunchTemplate": "launch-template",
    "ec2:RequestSpotFleet": "spot-fleet-request",
}
"""Call -> what it makes, with our tag on it."""

LAUNCHES = ("ec2:CreateFleet", "ec2:RequestSpotFleet", "ec2:RunInstances")

LAUNCHED = (
    "capacity-reservation",
    "dedicated-host",
    "image",
    "instance",
    "key-pair",
    "launch-template",
    "network-interface",
    "placement-group",
    "security-group",
    "snapshot",
    "spot-instances-request",
    "subnet",
    "volume",
)
"""What a launch makes or uses. It needs the right to each kind; whether what it makes has our tag
cannot be asked here: that of a fleet's machines stands in the launch template."""

ENDS = {
    "ec2:CancelSpotFleetRequests": "spot-fleet-request",
    "ec2:DeleteFleets": "fleet",
    "ec2:DeleteLaunchTemplate": "launch-template",
    "ec2:ModifyFleet": "fleet",
    "ec2:ModifySpotFleetRequest": "spot-fleet-request",
    "ec2:TerminateInstances": "instance",
}
"""Call -> what it changes, which must have our tag."""

CREATORS = ("CreateFleet", "CreateLaunchTemplate", "RequestSpotFleet", "RunInstances")

SERVICE_ROLES = (
    "autoscaling.amazonaws.com",
    "ec2fleet.amazonaws.com",
    "spot.amazonaws.com",
    "spotfleet.amazonaws.com",
)
"""Whose service-linked role AWS makes with the first group, fleet or spot instance."""


def policy(
    deployment: str,
    region: str,
    profiles: Iterable[str] = (),
    fleet_roles: Iterable[str] = (),
    parameters: Iterable[str] = (),
    queues: Iterable[str] = (),
    roles: Iterable[str] = (),
    tags_ids: bool = False,
    checkpoints: str | None = None,
    topic: str | None = None,
) -> dict[str, Any]:
    """The policy for a deployment. `region` says the partition; `profiles` are names or ARNs of
    instance profiles, `fleet_roles` and `roles` (those that are assumed) ARNs, `parameters` names
    or ARNs of SSM parameters, `queues` URLs; `tags_ids`: machines are tagged with their ids;
    `checkpoints` is where they are kept, if that is s3://BUCKET/PREFIX, `topic` the ARN to which
    alerts are published."""
    partition = partition_of(region)
    ours = {"StringEquals": {f"aws:ResourceTag/{DEPLOYMENT}": deployment}}
    tagged = {"StringEquals": {f"aws:RequestTag/{DEPLOYMENT}": deployment}}

    def of_ec2(*kinds: str) -> list[str]:
        # An image, and a snapshot, may be AWS's own, whose ARNs name no account.
        return [f"arn:{partition}:ec2:*:*:{kind}/*" for kind in kinds]

    group = f"arn:{partition}:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/hostledger-*"
    statements = [
        _allow("Look", LOOKS, "*"),
        _allow("Make", MAKES, of_ec2(*sorted(set(MAKES.values()))), tagged),
        _allow("Launch", LAUNCHES, of_ec2(*LAUNCHED)),
        _allow(
            "TagWhatIsMade",
            ["ec2:CreateTags"],
            of_ec2("*"),
            {"StringEquals": {"ec2:CreateAction": list(CREATORS)}},
        ),
        _allow("End", ENDS, of_ec2(*sorted(set(ENDS.values()))), ours),
        _allow("MakeGroups", ["autoscaling:CreateAutoScalingGroup"], group, tagged),
        _allow(
            "EndGroups",
            ["autoscaling:DeleteAutoScalingGroup", "autoscaling:UpdateAutoScalingGroup"],
            group,
            ours,
        ),
        _allow(
            "ServiceRoles",
            ["iam:CreateServiceLinkedRole"],
            f"arn:{partition}:iam::*:role/aws-service-role/*",
            {"StringEquals": {"iam:AWSServiceName": list(SERVICE_ROLES)}},
        ),
    ]
    if tags_ids:
        only_id = {"ForAllValues:StringEquals": {"aws:TagKeys": ["InstanceID"]}}
        statements.append(
            _allow("TagWithIds", ["ec2:CreateTags"], of_ec2("instance", "volume"), ours | only_id)
        )
    passed = sorted({role_of(profile, partition) for profile in profiles})
    if passed:
        to_ec2 = f"ec2.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"
        condition = {"StringEquals": {"iam:PassedToService": to_ec2}}
        statements.append(_allow("GiveProfiles", ["iam:PassRole"], passed, condition))
    if given := sorted(set(fleet_roles)):
        condition = {"StringEquals": {"iam:PassedToService": "spotfleet.amazonaws.com"}}
        statements.append(_allow("GiveFleetRoles", ["iam:PassRole"], given, condition))
    if named := sorted({_parameter(parameter, partition) for parameter in parameters}):
        statements.append(_allow("ReadImages", ["ssm:GetParameter", "ssm:GetParameters"], named))
    if named := sorted({_queue(queue, partition) for queue in queues}):
        statements.append(_allow("HearNotices", ["sqs:DeleteMessage", "sqs:ReceiveMessage"], named))
    if checkpoints and checkpoints.startswith("s3://"):
        place = checkpoints.removeprefix("s3://").strip("/")
        objects = f"arn:{partition}:s3:::{place}/{deployment}/*"
        statements.append(_allow("KeepCheckpoints", ["s3:PutObject"], objects))
    if topic:
        statements.append(_allow("TellAlerts", ["sns:Publish"], topic))
    if named := sorted(set(roles)):
        statements.append(_allow("BeInOtherAccounts", ["sts:AssumeRole"], named))
    return {"Version": "2012-10-17", "Statement": statements}


ASKS = ("dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query")
RECORDS = (
    "dynamodb:BatchWriteItem",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
)
"""TransactWriteItems has no permission of its own: it takes those of what is in it.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html"""

MAKES_TABLES = (
    "dynamodb:CreateTable",
    "dynamodb:DescribeContinuousBackups",
    "dynamodb:TagResource",
    "dynamodb:UpdateContinuousBackups",
)
SCALES = (
    "application-autoscaling:PutScalingPolicy",
    "application-autoscaling:RegisterScalableTarget",
)
SCALING = "dynamodb.application-autoscaling.amazonaws.com"


def store_policy(region: str, tables: Iterable[str], scales: bool) -> dict[str, Any]:
    """The policy for a store in these tables. The scripts and the worker need Ask and Record, which
    have neither Scan nor the deletion of a table; Compare is for `projections rebuild` and `verify`
    and for the worker of a release that must rebuild; `store init` and `store activate` need the
    rest too, and nobody after them. `scales`: with Application Auto Scaling."""
    partition = partition_of(region)
    named = [f"arn:{partition}:dynamodb:{region}:*:table/{table}" for table in tables]
    statements = [
        _allow("Ask", ASKS, named),
        _allow("Record", RECORDS, named),
        _allow("Compare", ["dynamodb:Scan"], named),
        _allow("InitMakesTables", MAKES_TABLES, named),
    ]
    if scales:
        to_tables = {"StringEquals": {"application-autoscaling:service-namespace": "dynamodb"}}
        statements += [
            _allow("InitScalesTables", SCALES, "*", to_tables),
            _allow(
                "InitScalingRole",
                ["iam:CreateServiceLinkedRole"],
                f"arn:{partition}:iam::*:role/aws-service-role/{SCALING}/*",
                {"StringEquals": {"iam:AWSServiceName": SCALING}},
            ),
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def auditor_policy(region: str, tables: Iterable[str], bodies: str) -> dict[str, Any]:
    """The policy for who only reads that store: nothing is written, and items of the key `bodies`
    (user data) are not read either."""
    named = [f"arn:{partition_of(region)}:dynamodb:{region}:*:table/{table}" for table in tables]
    secret = {"ForAnyValue:StringEquals": {"dynamodb:LeadingKeys": [bodies]}}
    denied = _allow("NoUserData", ASKS, named, secret)
    return {
        "Version": "2012-10-17",
        "Statement": [_allow("Ask", ASKS, named), {**denied, "Effect": "Deny"}],
    }


def _allow(
    sid: str,
    actions: Iterable[str],
    resources: str | list[str],
    condition: dict[str, Any] | None = None,
) -> Statement:
    statement = {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": resources}
    return {**statement, "Condition": condition} if condition else statement


def partition_of(region: str) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html"""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def role_of(profile: str, partition: str) -> str:
    """The role in an instance profile: AWS's console gives both one name, and nothing else that is
    known here tells."""
    if not profile.startswith("arn:"):
        return f"arn:{partition}:iam::*:role/{profile}"
    return profile.replace(":instance-profile/", ":role/")


def _parameter(parameter: str, partition: str) -> str:
    parameter = parameter.removeprefix("resolve:ssm:")
    if parameter.startswith("arn:"):
        return parameter
    return f"arn:{partition}:ssm:*:*:parameter/{parameter.partition(':')[0].lstrip('/')}"


def _queue(url: str, partition: str) -> str:
    """https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"""
    account, name = url.rstrip("/").rsplit("/", 2)[-2:]
    return f"arn:{partition}:sqs:*:{account}:{name}"
