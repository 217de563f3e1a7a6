"""What EC2 answers about instances: the calls that moto answers slowly or unlike AWS."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from . import launching
from .capacity import Capacity
from .pages import any_value
from .region import STATE_CODES, Machine, Region
from .wire import AwsError, filters, is_true, numbered, tag, timestamp

# API_DescribeInstances.html: 5 to 1000 a page; using_filtering.html: 200 filter values.
_PAGE_MIN, _PAGE_MAX = 5, 1000
_FILTER_VALUES_MAX = 200
# API_TerminateInstances.html
_TERMINATE_MAX = 1000
# API_DescribeInstanceStatus.html
_STATUS_MAX = 100

_INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")

Visible = Callable[[Machine], bool]


def run_instances(region: Region, asked: Mapping[str, Any], capacity: Capacity) -> list[Machine]:
    """Launch as API_RunInstances.html says, and return the machines.

    As many as possible up to MaxCount, but at least MinCount, else none and
    InsufficientInstanceCapacity. `asked` are the parameters, nested, with those of a launch
    template.
    """
    low, high = _counts(asked)
    return launching.between(region, asked, low, high, capacity)


def reservation_answer(region: Region, machines: Sequence[Machine]) -> str:
    """The inside of RunInstances' answer: one reservation."""
    return _reservation(region, machines)


def describe_instances(region: Region, params: Mapping[str, str], visible: Visible) -> str:
    """One page, by instances rather than reservations (API_DescribeInstances.html).

    One id that is unknown or not visible yet fails the call; filters never fail on unknown
    values. MaxResults excludes InstanceIds.
    """
    ids = numbered(params, "InstanceId")
    wanted = filters(params)
    size = params.get("MaxResults")
    if ids and size is not None:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    found = named(region, ids, visible) if ids else _seen(region, visible)
    matching = [machine for machine in found if _matches(region, machine, wanted)]
    token = params.get("NextToken")
    if token is not None:
        after = _page_start(token)
        matching = [machine for machine in matching if machine.number > after]
    next_token = None
    if size is not None:
        limit = _page_size(size)
        if len(matching) > limit:
            matching = matching[:limit]
            next_token = _page_token(matching[-1].number)
    items = [
        f"<item>{_reservation(region, list(group))}</item>"
        for _, group in groupby(matching, key=lambda machine: machine.reservation)
    ]
    return f"<reservationSet>{''.join(items)}</reservationSet>{tag('nextToken', next_token)}"


def describe_instance_status(region: Region, params: Mapping[str, str], visible: Visible) -> str:
    """States of running instances, or of all (API_DescribeInstanceStatus.html); one page."""
    ids = numbered(params, "InstanceId")
    if len(ids) > _STATUS_MAX:
        raise AwsError("InvalidParameterValue", f"At most {_STATUS_MAX} instance ids a call.")
    found = named(region, ids, visible) if ids else _seen(region, visible)
    wanted = filters(params)
    every = is_true(params, "IncludeAllInstances")
    items = []
    for machine in found:
        running = machine.state == "running"
        if not (running or every) or not _matches(region, machine, wanted):
            continue
        health = "ok" if running else "not-applicable"
        items.append(
            f"<item>{tag('instanceId', machine.id)}{tag('availabilityZone', machine.zone)}"
            f"<instanceState>{_state(machine.state)}</instanceState>"
            f"<systemStatus>{tag('status', health)}</systemStatus>"
            f"<instanceStatus>{tag('status', health)}</instanceStatus></item>"
        )
    return f"<instanceStatusSet>{''.join(items)}</instanceStatusSet>"


def terminate_instances(region: Region, params: Mapping[str, str], visible: Visible) -> str:
    """Terminate as API_TerminateInstances.html says.

    One id that is unknown (or not visible yet) fails the call and nothing is terminated. A
    protected instance fails the call too, and all instances of its zone in the call survive;
    those of other zones are terminated.
    """
    ids = numbered(params, "InstanceId")
    if not ids:
        raise AwsError("InvalidParameterCombination", "No instances specified")
    if len(ids) > _TERMINATE_MAX:
        raise AwsError("InvalidParameterValue", f"At most {_TERMINATE_MAX} instance ids a call.")
    machines = named(region, ids, visible)
    protected = [
        machine
        for machine in machines
        if machine.instance.disable_api_termination and machine.state != "terminated"
    ]
    spared = {machine.zone for machine in protected}
    items = []
    for machine in machines:
        if machine.zone in spared:
            continue
        before = machine.state
        region.terminate(machine)
        items.append(
            f"<item>{tag('instanceId', machine.id)}"
            f"<currentState>{_state(machine.state)}</currentState>"
            f"<previousState>{_state(before)}</previousState></item>"
        )
    if protected:
        raise AwsError(
            "OperationNotPermitted",
            f"The instance '{protected[0].id}' may not be terminated. Modify its "
            "'disableApiTermination' instance attribute and try again.",
        )
    return f"<instancesSet>{''.join(items)}</instancesSet>"


def named(region: Region, ids: Iterable[str], visible: Visible) -> list[Machine]:
    """The machines of these ids in the order of their launch.

    Raises InvalidInstanceID.NotFound when one is unknown, or too new to be seen.
    """
    wanted = dict.fromkeys(ids)
    found = [region.machines[i] for i in wanted if i in region.machines]
    found = [machine for machine in found if visible(machine)]
    if len(found) < len(wanted):
        known = {machine.id for machine in found}
        raise not_found([i for i in wanted if i not in known])
    return sorted(found, key=lambda machine: machine.number)


def not_found(ids: Sequence[str]) -> AwsError:
    """InvalidInstanceID.NotFound in EC2's words, which differ for one id and for several."""
    words = (
        f"The instance ID '{ids[0]}' does not exist"
        if len(ids) == 1
        else f"The instance IDs '{', '.join(ids)}' do not exist"
    )
    return AwsError("InvalidInstanceID.NotFound", words)


def malformed(ids: Iterable[str]) -> AwsError | None:
    """InvalidInstanceID.Malformed for the first id that cannot be an instance's, if any."""
    for instance_id in ids:
        if not _INSTANCE_ID.fullmatch(instance_id):
            return AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
    return None


def tags_of(region: Region, machine: Machine) -> dict[str, str]:
    """An instance's tags."""
    return dict(region.tags.get(machine.id, {}))


def _counts(asked: Mapping[str, Any]) -> tuple[int, int]:
    try:
        low, high = int(asked["MinCount"]), int(asked["MaxCount"])
    except KeyError as missing:
        raise AwsError(
            "MissingParameter",
            f"The request must contain the parameter {missing.args[0]}",
        ) from missing
    if low < 1 or high < low:
        raise AwsError(
            "InvalidParameterValue",
            f"MinCount ({low}) must be at least 1 and at most MaxCount ({high})",
        )
    return low, high


def _seen(region: Region, visible: Visible) -> list[Machine]:
    return [machine for machine in region.machines.values() if visible(machine)]


def _page_size(text: str) -> int:
    try:
        size = int(text)
    except ValueError as error:
        raise AwsError("InvalidParameterValue", f"MaxResults is a number, not {text}") from error
    if size < _PAGE_MIN:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value greater "
            f"than {_PAGE_MIN}.",
        )
    return min(size, _PAGE_MAX)


def _page_token(number: int) -> str:
    return base64.urlsafe_b64encode(f"after:{number:012d}".encode()).decode()


def _page_start(token: str) -> int:
    try:
        word, _, number = base64.urlsafe_b64decode(token).decode().partition(":")
        if word == "after":
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise AwsError("InvalidNextToken", "The specified NextToken is not valid")


def _matches(region: Region, machine: Machine, wanted: Sequence[tuple[str, Sequence[str]]]) -> bool:
    return all(any_value(_attribute(region, machine, name), values) for name, values in wanted)


def check_filters(wanted: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Refuse filters that EC2 (or the sandbox) does not know, and too many values.

    Raises InvalidParameterValue or FilterLimitExceeded.
    """
    for name, _ in wanted:
        if not name.startswith("tag:") and name not in _ATTRIBUTES:
            raise AwsError("InvalidParameterValue", f"The filter '{name}' is invalid")
    if sum(len(values) for _, values in wanted) > _FILTER_VALUES_MAX:
        raise AwsError(
            "FilterLimitExceeded",
            f"The maximum number of filter values is {_FILTER_VALUES_MAX}.",
        )


def _attribute(region: Region, machine: Machine, name: str) -> list[str]:
    if name.startswith("tag:"):
        value = region.tags.get(machine.id, {}).get(name.removeprefix("tag:"))
    elif name == "tag-key":
        return list(region.tags.get(machine.id, {}))
    else:
        value = _ATTRIBUTES[name](machine)
    return [] if value is None else [str(value)]


def _unless_terminated(name: str) -> Callable[[Machine], Any]:
    # A terminated instance has no addresses and no subnet any more.
    return lambda machine: (
        None if machine.state == "terminated" else getattr(machine.instance, name)
    )


# Filters of API_DescribeInstances.html that the sandbox answers, beside tag:KEY.
_ATTRIBUTES: dict[str, Callable[[Machine], Any]] = {
    "tag-key": lambda machine: None,  # answered above
    "instance-id": lambda machine: machine.id,
    "instance-state-name": lambda machine: machine.state,
    "instance-state-code": lambda machine: STATE_CODES[machine.state],
    "private-dns-name": _unless_terminated("private_dns_name"),
    "private-ip-address": _unless_terminated("private_ip"),
    "client-token": lambda machine: machine.instance.client_token,
    "reservation-id": lambda machine: machine.reservation,
    "owner-id": lambda machine: machine.instance.owner_id,
    "availability-zone": lambda machine: machine.zone,
    "subnet-id": _unless_terminated("subnet_id"),
    "vpc-id": _unless_terminated("vpc_id"),
    "instance-type": lambda machine: machine.instance.instance_type,
    "instance-lifecycle": lambda machine: machine.instance.lifecycle,
    "spot-instance-request-id": lambda machine: machine.spot.id if machine.spot else None,
    "image-id": lambda machine: machine.instance.image_id,
    "key-name": lambda machine: machine.instance.key_name,
}


def _reservation(region: Region, machines: Sequence[Machine]) -> str:
    items = "".join(_instance(region, machine) for machine in machines)
    return (
        f"{tag('reservationId', machines[0].reservation)}{tag('ownerId', region.account_id)}"
        f"<groupSet/><instancesSet>{items}</instancesSet>"
    )


def _state(name: str) -> str:
    return f"<code>{STATE_CODES[name]}</code><name>{name}</name>"


def _instance(region: Region, machine: Machine) -> str:
    """One instance as DescribeInstances renders it (API_Instance.html)."""
    it = machine.instance
    gone = machine.state == "terminated"
    tags = "".join(
        f"<item>{tag('key', key)}{tag('value', value)}</item>"
        for key, value in region.tags.get(machine.id, {}).items()
    )
    reason = it.state_reason
    launched = timestamp(machine.launched_at)
    parts = [
        tag("instanceId", machine.id),
        tag("imageId", it.image_id),
        f"<instanceState>{_state(machine.state)}</instanceState>",
        tag("privateDnsName", "" if gone else it.private_dns_name),
        tag("dnsName", "" if gone else it.public_dns_name or ""),
        tag("reason", it.state_transition_reason),
        tag("keyName", it.key_name),
        tag("amiLaunchIndex", it.ami_launch_index),
        "<productCodes/>",
        tag("instanceType", it.instance_type),
        tag("launchTime", launched),
        _placement(machine),
        f"<monitoring>{tag('state', it.monitoring_state)}</monitoring>",
        "" if gone else _network(region, machine, launched),
        f"<stateReason>{tag('code', reason.code)}{tag('message', reason.message)}</stateReason>"
        if reason.code
        else "",
        tag("architecture", it.architecture),
        tag("rootDeviceType", it.root_device_type),
        tag("rootDeviceName", it.root_device_name),
        f"<blockDeviceMapping>{_volumes(machine, launched)}</blockDeviceMapping>",
        tag("virtualizationType", "hvm"),
        tag("instanceLifecycle", it.lifecycle),
        tag("spotInstanceRequestId", machine.spot.id) if machine.spot else "",
        tag("clientToken", it.client_token),
        f"<tagSet>{tags}</tagSet>" if tags else "",
        tag("hypervisor", it.hypervisor),
        f"<iamInstanceProfile>{tag('arn', machine.profile)}<id>AIPASANDBOX0000000000</id>"
        "</iamInstanceProfile>"
        if machine.profile
        else "",
        tag("ebsOptimized", "true" if it.ebs_optimized else "false"),
        _options(machine),
    ]
    return f"<item>{''.join(parts)}</item>"


def _placement(machine: Machine) -> str:
    asked = machine.asked.get("Placement", {})
    parts = [
        tag("availabilityZone", machine.zone),
        tag("affinity", asked.get("Affinity")),
        tag("groupName", asked.get("GroupName", "")),
        tag("partitionNumber", asked.get("PartitionNumber")),
        tag("hostId", asked.get("HostId")),
        tag("hostResourceGroupArn", asked.get("HostResourceGroupArn")),
        tag("tenancy", asked.get("Tenancy", "default")),
    ]
    return f"<placement>{''.join(parts)}</placement>"


def _options(machine: Machine) -> str:
    """Metadata options with their defaults, and the capacity reservation that was asked for."""
    asked = machine.asked
    metadata = {
        "State": "applied",
        "HttpTokens": "optional",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
        "InstanceMetadataTags": "disabled",
    } | asked.get("MetadataOptions", {})
    parts = "".join(tag(f"{name[0].lower()}{name[1:]}", value) for name, value in metadata.items())
    found = f"<metadataOptions>{parts}</metadataOptions>"
    reservation = asked.get("CapacityReservationSpecification", {})
    target = reservation.get("CapacityReservationTarget", {})
    where = tag("capacityReservationId", target.get("CapacityReservationId")) + tag(
        "capacityReservationResourceGroupArn", target.get("CapacityReservationResourceGroupArn")
    )
    wish = None if target else reservation.get("CapacityReservationPreference", "open")
    inner = tag("capacityReservationPreference", wish)
    if target:
        inner = f"<capacityReservationTarget>{where}</capacityReservationTarget>"
    return f"{found}<capacityReservationSpecification>{inner}</capacityReservationSpecification>"


def _volumes(machine: Machine, launched: str) -> str:
    return "".join(
        f"<item>{tag('deviceName', device)}<ebs>{tag('volumeId', block.volume_id)}"
        f"<status>attached</status>{tag('attachTime', launched)}"
        f"<deleteOnTermination>{'true' if block.delete_on_termination else 'false'}"
        "</deleteOnTermination></ebs></item>"
        for device, block in machine.instance.get_block_device_mapping
    )


def _network(region: Region, machine: Machine, launched: str) -> str:
    it = machine.instance
    groups = _groups(it.nics[0])
    interfaces = "".join(
        _interface(region, machine, index, launched) for index in range(len(it.nics))
    )
    return (
        f"{tag('subnetId', it.subnet_id)}{tag('vpcId', it.vpc_id)}"
        f"{tag('privateIpAddress', it.private_ip)}{tag('ipAddress', it.public_ip)}"
        f"<sourceDestCheck>true</sourceDestCheck><groupSet>{groups}</groupSet>"
        f"<networkInterfaceSet>{interfaces}</networkInterfaceSet>"
    )


def _interface(region: Region, machine: Machine, index: int, launched: str) -> str:
    it, nic = machine.instance, machine.instance.nics[index]
    asked = (machine.asked.get("NetworkInterfaces") or [{}])[index]
    ends = "true" if asked.get("DeleteOnTermination", True) else "false"
    return (
        f"<item>{tag('networkInterfaceId', nic.id)}"
        f"{tag('subnetId', nic.subnet.id)}{tag('vpcId', it.vpc_id)}"
        f"{tag('ownerId', region.account_id)}"
        f"<status>in-use</status>{tag('macAddress', nic.mac_address)}"
        f"{tag('privateIpAddress', nic.private_ip_address)}"
        f"{tag('privateDnsName', it.private_dns_name if index == 0 else None)}"
        f"{tag('interfaceType', asked.get('InterfaceType'))}"
        f"<sourceDestCheck>true</sourceDestCheck><groupSet>{_groups(nic)}</groupSet>"
        f"<attachment>{tag('attachmentId', nic.attachment_id)}"
        f"{tag('deviceIndex', asked.get('DeviceIndex', index))}"
        f"{tag('networkCardIndex', asked.get('NetworkCardIndex'))}"
        f"<status>attached</status>{tag('attachTime', launched)}"
        f"{tag('deleteOnTermination', ends)}</attachment>"
        "</item>"
    )


def _groups(nic: Any) -> str:
    return "".join(
        f"<item>{tag('groupId', group.id)}{tag('groupName', group.name)}</item>"
        for group in sorted(nic.group_set, key=lambda group: str(group.id))
    )
