"""What a machine of a template is like, in the parameters that RunInstances and a launch template
have in common (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html)."""

from __future__ import annotations

from typing import Any

DEFAULT_VOLUME_TYPE = "gp2"
"""IBM's default where a volume size is given without a type."""

_SIZES = ("root_device_volume_size", "volume_type", "iops")
_ENCRYPTS = ("root_volume_encrypted", "root_volume_kms_key", "root_volume_throughput")


def describes_root_volume(content: dict[str, Any]) -> bool:
    """Whether the name of the image's root device is needed."""
    return any(content.get(key) for key in _SIZES + _ENCRYPTS)


def machine_data(content: dict[str, Any], root_device: str) -> dict[str, Any]:
    """All but image, type, place, interfaces, user data, market and tags. `root_device` is needed
    when the template describes the root volume."""
    data: dict[str, Any] = {}
    if content.get("security_group_ids"):
        data["SecurityGroupIds"] = content["security_group_ids"]
    if content.get("key_name"):
        data["KeyName"] = content["key_name"]
    profile = content.get("instance_profile")
    if profile:
        data["IamInstanceProfile"] = {"Arn" if profile.startswith("arn:") else "Name": profile}
    if content.get("ebs_optimized"):
        data["EbsOptimized"] = True
    placement = _placement(content)
    if placement:
        data["Placement"] = placement
    volumes = _volumes(content, root_device)
    if volumes:
        data["BlockDeviceMappings"] = volumes
    if content.get("metadata_options"):
        names = {
            "http_tokens": "HttpTokens",
            "http_put_response_hop_limit": "HttpPutResponseHopLimit",
            "http_endpoint": "HttpEndpoint",
            "instance_metadata_tags": "InstanceMetadataTags",
        }
        data["MetadataOptions"] = _renamed(content["metadata_options"], names)
    if content.get("capacity_reservation"):
        data["CapacityReservationSpecification"] = _reservation(content["capacity_reservation"])
    return data


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names[key]: value for key, value in values.items()}


def _placement(content: dict[str, Any]) -> dict[str, Any]:
    placement: dict[str, Any] = {}
    if content.get("tenancy"):
        placement["Tenancy"] = content["tenancy"]
    if content.get("placement_group"):
        placement["GroupName"] = content["placement_group"]
    names = {
        "partition_number": "PartitionNumber",
        "host_id": "HostId",
        "host_resource_group_arn": "HostResourceGroupArn",
        "affinity": "Affinity",
        "availability_zone": "AvailabilityZone",
    }
    return placement | _renamed(content.get("placement", {}), names)


def _reservation(reservation: dict[str, str]) -> dict[str, Any]:
    if "preference" in reservation:
        return {"CapacityReservationPreference": reservation["preference"]}
    names = {
        "id": "CapacityReservationId",
        "resource_group_arn": "CapacityReservationResourceGroupArn",
    }
    return {"CapacityReservationTarget": _renamed(reservation, names)}


def _volumes(content: dict[str, Any], root_device: str) -> list[dict[str, Any]]:
    mappings = []
    if describes_root_volume(content):
        mappings.append({"DeviceName": root_device, "Ebs": _root_volume(content)})
    names = {
        "size": "VolumeSize",
        "type": "VolumeType",
        "iops": "Iops",
        "throughput": "Throughput",
        "encrypted": "Encrypted",
        "kms_key_id": "KmsKeyId",
        "snapshot_id": "SnapshotId",
    }
    for volume in content.get("volumes", ()):
        ebs = {key: value for key, value in volume.items() if key != "device"}
        mappings.append(
            {
                "DeviceName": volume["device"],
                "Ebs": {**_renamed(ebs, names), "DeleteOnTermination": True},
            }
        )
    return mappings


def _root_volume(content: dict[str, Any]) -> dict[str, Any]:
    ebs: dict[str, Any] = {}
    if any(content.get(key) for key in _SIZES):
        ebs["VolumeType"] = content.get("volume_type", DEFAULT_VOLUME_TYPE)
    if content.get("root_device_volume_size"):
        ebs["VolumeSize"] = content["root_device_volume_size"]
    if content.get("iops"):
        ebs["Iops"] = content["iops"]
    if content.get("root_volume_throughput"):
        ebs["Throughput"] = content["root_volume_throughput"]
    if content.get("root_volume_encrypted"):
        ebs["Encrypted"] = True
    if content.get("root_volume_kms_key"):
        ebs["KmsKeyId"] = content["root_volume_kms_key"]
    if any(content.get(key) for key in _ENCRYPTS):
        ebs["DeleteOnTermination"] = True
    return ebs


def with_interfaces(
    data: dict[str, Any],
    content: dict[str, Any],
    site_interfaces: list[dict[str, Any]],
    subnet_id: str = "",
) -> dict[str, Any]:
    """The data with the template's network interfaces, or those of the site's launch template.
    Where there are any, AWS wants security groups and subnet in them and nowhere else; a fleet
    names the subnet in its overrides."""
    interfaces = _interfaces(content) or _placed_anew(site_interfaces, content)
    if not interfaces:
        return data | {"SubnetId": subnet_id} if subnet_id else data
    result = {key: value for key, value in data.items() if key != "SecurityGroupIds"}
    filled = []
    for index, given in enumerate(interfaces):
        interface = {"DeviceIndex": index, **given}
        # One that exists already has its groups and its subnet.
        if "NetworkInterfaceId" not in given:
            if data.get("SecurityGroupIds"):
                interface.setdefault("Groups", data["SecurityGroupIds"])
            if subnet_id:
                interface.setdefault("SubnetId", subnet_id)
            interface.setdefault("DeleteOnTermination", True)
        filled.append(interface)
    return result | {"NetworkInterfaces": filled}


def _placed_anew(interfaces: list[dict[str, Any]], content: dict[str, Any]) -> list[dict[str, Any]]:
    """The interfaces without the groups and subnets that the template says itself."""
    own = {
        name
        for name, key in (("SubnetId", "subnet_ids"), ("Groups", "security_group_ids"))
        if content.get(key)
    }
    return [
        one
        if "NetworkInterfaceId" in one
        else {key: value for key, value in one.items() if key not in own}
        for one in interfaces
    ]


def _interfaces(content: dict[str, Any]) -> list[dict[str, Any]]:
    interfaces = [dict(given) for given in content.get("network_interfaces", ())]
    if content.get("interface_type") == "efa":
        if not interfaces:
            # One for each network card; only the first card has the primary interface.
            interfaces = [
                {"NetworkCardIndex": card, "DeviceIndex": 1 if card else 0}
                for card in range(content.get("efa_count", 1))
            ]
        for interface in interfaces:
            if "NetworkInterfaceId" not in interface:
                interface.setdefault("InterfaceType", "efa")
    if "associate_public_ip" in content:
        interfaces = interfaces or [{"DeviceIndex": 0}]
        interfaces[0]["AssociatePublicIpAddress"] = content["associate_public_ip"]
    return interfaces


def makes_interfaces(data: dict[str, Any]) -> bool:
    """Whether a launch makes a network interface: AWS refuses tags for none."""
    interfaces = data.get("NetworkInterfaces")
    return not interfaces or any("NetworkInterfaceId" not in one for one in interfaces)
