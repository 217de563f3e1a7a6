"""The exact RunInstances call for a template, a pool and a count, so that it can be stored."""

from __future__ import annotations

import hashlib
from typing import Any

DEFAULT_VOLUME_TYPE = "gp2"
"""IBM's default where a volume size is given without a type."""


def launch_payload(
    content: dict[str, Any],
    subnet: str,
    count: int,
    tags: dict[str, str],
    user_data: bytes | None,
    root_device: str,
) -> dict[str, Any]:
    """The parameters of RunInstances but for the token.

    The body of the user data may hold secrets and is named by its digest; `with_user_data` puts it
    in when the call is made. `root_device` is needed when the template sizes the root volume.
    """
    payload: dict[str, Any] = {
        "ImageId": content["image_id"],
        "InstanceType": content["vm_type"],
        # Fewer machines are better than none, and the rest is topped up from another pool.
        "MinCount": count if content.get("all_or_nothing") else 1,
        "MaxCount": count,
        "SubnetId": subnet,
    }
    if content.get("security_group_ids"):
        payload["SecurityGroupIds"] = content["security_group_ids"]
    if content.get("key_name"):
        payload["KeyName"] = content["key_name"]
    profile = content.get("instance_profile")
    if profile:
        payload["IamInstanceProfile"] = {"Arn" if profile.startswith("arn:") else "Name": profile}
    if content.get("ebs_optimized"):
        payload["EbsOptimized"] = True
    placement = {}
    if content.get("tenancy"):
        placement["Tenancy"] = content["tenancy"]
    if content.get("placement_group"):
        placement["GroupName"] = content["placement_group"]
    if placement:
        payload["Placement"] = placement
    if sizes_root_volume(content):
        ebs: dict[str, Any] = {"VolumeType": content.get("volume_type", DEFAULT_VOLUME_TYPE)}
        if content.get("root_device_volume_size"):
            ebs["VolumeSize"] = content["root_device_volume_size"]
        if content.get("iops"):
            ebs["Iops"] = content["iops"]
        payload["BlockDeviceMappings"] = [{"DeviceName": root_device, "Ebs": ebs}]
    if user_data is not None:
        payload["UserData"] = {"sha256": hashlib.sha256(user_data).hexdigest()}
    listed = [
        {"Key": key, "Value": value}
        for key, value in {**content.get("instance_tags", {}), **tags}.items()
    ]
    payload["TagSpecifications"] = [
        {"ResourceType": kind, "Tags": listed} for kind in ("instance", "volume")
    ]
    return payload


def sizes_root_volume(content: dict[str, Any]) -> bool:
    return any(content.get(key) for key in ("root_device_volume_size", "volume_type", "iops"))


def user_data_of(content: dict[str, Any]) -> bytes | None:
    """The body that the template's script and variables make; None when it has neither.

    LSF's `userData` pairs become exports before the script. Raises OSError when the script cannot
    be read.
    """
    variables = content.get("user_data_variables") or {}
    path = content.get("user_data_file")
    if not variables and not path:
        return None
    exports = "".join(f"export {name}='{_quoted(value)}'\n" for name, value in variables.items())
    script = b""
    if path:
        with open(path, "rb") as file:
            script = file.read()
    if not exports:
        return script
    first, newline, rest = script.partition(b"\n")
    if first.startswith(b"#!"):
        return first + newline + exports.encode() + rest
    return b"#!/bin/sh\n" + exports.encode() + script


def _quoted(value: str) -> str:
    return value.replace("'", "'\\''")


def with_user_data(payload: dict[str, Any], body: bytes | None) -> dict[str, Any]:
    """The stored payload as it is sent: the digest replaced by the body that has it."""
    if "UserData" not in payload:
        return payload
    if body is None or hashlib.sha256(body).hexdigest() != payload["UserData"]["sha256"]:
        raise ValueError("the user data body is not the one that the intent names")
    return {**payload, "UserData": body.decode("utf-8", "surrogateescape")}
