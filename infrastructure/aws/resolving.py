"""What a template leaves open, asked of AWS before a launch and remembered: images behind
parameters, root devices, versions of the site's launch templates, zones of subnets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from application.ports import CallFailed
from infrastructure.aws.client import Connection

REMEMBERED_FOR = 60.0
"""Seconds for which an answer that may change (a parameter, a latest version) is taken as it is."""

ALIAS = "resolve:ssm:"
"""Before the name of a parameter where AWS takes one for an image."""

TYPES_A_CALL = 100
"""Instance types in one DescribeInstanceTypes (API_DescribeInstanceTypes.html)."""


@dataclass(frozen=True)
class SiteTemplate:
    """A version of a launch template of the site's own. `named` says its id or name as calls do,
    `data` are as AWS describes them."""

    named: dict[str, str]
    version: int
    data: dict[str, Any]


class Resolving:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._root_devices: dict[str, str] = {}
        self._zones: dict[str, str] = {}
        self._parameters: dict[str, tuple[float, str]] = {}
        self._templates: dict[tuple[str, str], tuple[float, SiteTemplate]] = {}

    def image(self, parameter: str) -> str:
        """The image id that an SSM parameter (name or ARN) holds. Raises CallFailed."""
        parameter = parameter.removeprefix(ALIAS)
        at, image_id = self._parameters.get(parameter, (0.0, ""))
        now = self._connection.seconds()
        if not image_id or now - at >= REMEMBERED_FOR:
            answer = self._connection.call("GetParameter", {"Name": parameter}, "ssm")
            image_id = answer["Parameter"]["Value"].strip()
            if not image_id.startswith("ami-"):
                raise CallFailed("refused", "NoImage", f"parameter {parameter} holds no image id")
            self._parameters[parameter] = (now, image_id)
        return image_id

    def root_device(self, image_id: str) -> str:
        """The name of an image's root device. Raises CallFailed."""
        if image_id.startswith(ALIAS):
            image_id = self.image(image_id)
        if image_id not in self._root_devices:
            answer = self._connection.call("DescribeImages", {"ImageIds": [image_id]})
            if not answer["Images"]:
                raise CallFailed("refused", "InvalidAMIID.NotFound", f"no image {image_id}")
            device = answer["Images"][0].get("RootDeviceName")
            if not device:
                raise CallFailed("refused", "NoRootDevice", f"{image_id} names no root device")
            self._root_devices[image_id] = device
        return self._root_devices[image_id]

    def site_template(self, template_id: str, version: str) -> SiteTemplate:
        """A version of the site's launch template: what a number stands for never changes, what
        `$Latest` and `$Default` stand for does. Raises CallFailed."""
        at, found = self._templates.get((template_id, version)) or (0.0, None)
        now = self._connection.seconds()
        if found is None or (not version.isdigit() and now - at >= REMEMBERED_FOR):
            found = self._describe_version(template_id, version)
            self._templates[template_id, version] = (now, found)
        return found

    def _describe_version(self, template_id: str, version: str) -> SiteTemplate:
        key = "LaunchTemplateId" if template_id.startswith("lt-") else "LaunchTemplateName"
        named = {key: template_id}
        answer = self._connection.call(
            "DescribeLaunchTemplateVersions", {**named, "Versions": [version]}
        )
        for found in answer["LaunchTemplateVersions"]:
            return SiteTemplate(named, int(found["VersionNumber"]), found["LaunchTemplateData"])
        raise CallFailed(
            "refused",
            "InvalidLaunchTemplateId.VersionNotFound",
            f"launch template {template_id} has no version {version}",
        )

    def zones(self, subnet_ids: Sequence[str]) -> dict[str, str]:
        """The zones of subnets. Raises CallFailed."""
        unknown = sorted({subnet for subnet in subnet_ids if subnet not in self._zones})
        if unknown:
            answer = self._connection.call("DescribeSubnets", {"SubnetIds": unknown})
            for found in answer["Subnets"]:
                self._zones[found["SubnetId"]] = found["AvailabilityZone"]
        return {subnet: self._zones.get(subnet, "") for subnet in subnet_ids}

    def instance_types(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """type -> vcpus, cores, memory (MiB) and architectures. Raises CallFailed, also for a name
        that AWS does not know."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(names), TYPES_A_CALL):
            part = list(names[start : start + TYPES_A_CALL])
            for page in self._connection.pages("DescribeInstanceTypes", {"InstanceTypes": part}):
                for item in page["InstanceTypes"]:
                    cpus = item["VCpuInfo"]
                    found[item["InstanceType"]] = {
                        "vcpus": cpus["DefaultVCpus"],
                        "cores": cpus.get("DefaultCores", cpus["DefaultVCpus"]),
                        "memory": item["MemoryInfo"]["SizeInMiB"],
                        "architectures": item["ProcessorInfo"]["SupportedArchitectures"],
                    }
        return found
