"""Launch templates: ours, which every launch but RunInstances needs, and the site's own.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplate.html
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

from application.ports import CallFailed
from infrastructure.aws import machine_data, native, tags, user_data
from infrastructure.aws.client import Connection
from infrastructure.aws.errors import NO_TEMPLATE

OUR_VERSION = "1"
"""Ours have one version and never another."""

PAGE = 200
"""Most launch templates that DescribeLaunchTemplates gives in a page."""


def template_data(
    content: dict[str, Any],
    body: bytes | None,
    image_id: str,
    root_device: str,
    site_data: dict[str, Any] | None,
) -> tuple[dict[str, Any], bytes | None]:
    """The LaunchTemplateData of a template but for its tags, and the body of the user data.

    `site_data` are those of the site's own launch template, which the template goes over. Type,
    market and subnet are the call's. Raises CallFailed.
    """
    described = machine_data.machine_data(content, root_device)
    if image_id:
        described = {"ImageId": image_id, **described}
    for mapping in described.get("BlockDeviceMappings", ()):
        mapping["Ebs"]["DeleteOnTermination"] = True
    site = requestable(site_data or {})
    site_body = user_data.set_aside(site)
    if body is not None:
        described["UserData"] = user_data.named(body)
    interfaces = site.pop("NetworkInterfaces", [])
    data = machine_data.with_interfaces(native.merged(site, described), content, interfaces)
    data = native.over(data, content.get("native", {}).get("launch_template"), ())
    # AWS takes no market in a fleet's launch template, and no type beside requirements.
    data.pop("InstanceMarketOptions", None)
    if "abis" in content:
        data.pop("InstanceType", None)
    native_body = user_data.set_aside(data)
    return data, native_body or body or site_body


def requestable(data: dict[str, Any]) -> dict[str, Any]:
    """A launch template's data as AWS describes them, in the shape in which it takes them: without
    the few members that it only answers."""
    data = copy.deepcopy(data)
    data.pop("Operator", None)
    data.get("MetadataOptions", {}).pop("State", None)
    for interface in data.get("NetworkInterfaces", ()):
        for address in interface.get("Ipv6Addresses", ()):
            address.pop("IsPrimaryIpv6", None)
    return data


def tag_launches(data: dict[str, Any], launch_tags: dict[str, str]) -> list[dict[str, Any]]:
    """The TagSpecifications of what is launched from these data: ours and those of the data."""
    made = [
        kind
        for kind in tags.LAUNCHED
        if kind != "network-interface" or machine_data.makes_interfaces(data)
    ]
    return tags.added(tags.specifications(made, launch_tags), data.get("TagSpecifications", ()))


def creation(data: dict[str, Any], launch_tags: dict[str, str]) -> dict[str, Any]:
    """The parameters of CreateLaunchTemplate but for the token. Its name says its data, so that
    equal data share one: it is tagged as ours, but with no batch."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    own = {
        key: value
        for key, value in launch_tags.items()
        if key.startswith(tags.OWN) and key != tags.BATCH
    }
    return {
        "LaunchTemplateName": f"hostledger-{launch_tags[tags.DEPLOYMENT][:8]}-{digest}",
        "LaunchTemplateData": data,
        "TagSpecifications": tags.specifications(["launch-template"], own),
    }


def reference(launch_template: dict[str, Any]) -> dict[str, str]:
    """How a call names our launch template: its id is not known before it is made."""
    name = launch_template["LaunchTemplateName"]
    return {"LaunchTemplateName": name, "Version": OUR_VERSION}


class LaunchTemplates:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, payload: dict[str, Any], token: str, body: bytes | None) -> str:
        """Make it, or find the one of ours that has its name; its id. Raises CallFailed."""
        parameters = sent(payload, body) | {"ClientToken": token}
        try:
            answer = self._connection.call("CreateLaunchTemplate", parameters)
        except CallFailed as failed:
            if failed.code != "InvalidLaunchTemplateName.AlreadyExistsException":
                raise
            return self._ours(payload)
        return str(answer["LaunchTemplate"]["LaunchTemplateId"])

    def _ours(self, payload: dict[str, Any]) -> str:
        name = payload["LaunchTemplateName"]
        answer = self._connection.call("DescribeLaunchTemplates", {"LaunchTemplateNames": [name]})
        wanted = tags.of(payload["TagSpecifications"][0]["Tags"])[tags.DEPLOYMENT]
        for found in answer["LaunchTemplates"]:
            if tags.of(found.get("Tags")).get(tags.DEPLOYMENT) == wanted:
                return str(found["LaunchTemplateId"])
        raise CallFailed("refused", "NotOurs", f"the launch template {name} is somebody else's")

    def delete(self, name: str) -> None:
        """Delete it; done when there is none. Raises CallFailed."""
        try:
            self._connection.call("DeleteLaunchTemplate", {"LaunchTemplateName": name})
        except CallFailed as failed:
            if failed.code not in NO_TEMPLATE:
                raise

    def names(self, deployment: str) -> list[str]:
        """Of all with the deployment's tag. Raises CallFailed."""
        filters = [{"Name": f"tag:{tags.DEPLOYMENT}", "Values": [deployment]}]
        pages = self._connection.pages(
            "DescribeLaunchTemplates", {"Filters": filters, "MaxResults": PAGE}
        )
        return [found["LaunchTemplateName"] for page in pages for found in page["LaunchTemplates"]]


def sent(payload: dict[str, Any], body: bytes | None) -> dict[str, Any]:
    """The stored payload of CreateLaunchTemplate as it is sent."""
    data = user_data.with_encoded_user_data(payload["LaunchTemplateData"], body)
    return {**payload, "LaunchTemplateData": data}
