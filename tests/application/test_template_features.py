"""Every way to launch gives what a template says: script -> ledger -> sandbox, seen at AWS.

A cell of docs/reference/aws.md that says yes is a test here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from domain.refusals import Refusal
from infrastructure.sandbox import shapes
from tests.features import (
    FEATURES,
    IDLE,
    IMAGE,
    PARAMETER,
    REFUSED,
    SCRIPT,
    TEMPLATES,
    Seen,
    field_of,
    template_for,
    told,
)
from tests.world import WAYS, World

MakeWorld = Callable[..., World]
BY_TEMPLATE = {
    name: [feature for feature in FEATURES if feature.template == name] for name in TEMPLATES
}


def client(world: World, service: str = "ec2") -> Any:
    """Somebody who looks at the sandbox as AWS lets one look."""
    make: Any = boto3.client
    made = make(service, region_name="us-east-1")
    world.sandbox.attach(made)
    return made


def prepared(world: World, template: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the template names is there."""
    ready = dict(template)
    if "userDataScript" in ready:
        (folder / "join.sh").write_text(SCRIPT)
        ready["userDataScript"] = str(folder / "join.sh")
    if "launchTemplateId" in ready:
        data = {"ImageId": IMAGE, "InstanceType": "m5.large", "KeyName": "sites-own"}
        answer = client(world).create_launch_template(
            LaunchTemplateName="site", LaunchTemplateData=data
        )
        ready["launchTemplateId"] = answer["LaunchTemplate"]["LaunchTemplateId"]
    world.sandbox.put_parameter(PARAMETER, IMAGE)
    return ready


def seen(world: World) -> Seen:
    """What AWS has of the one launch."""
    ec2 = client(world)
    intent = world.events("LaunchIntended")[-1]
    if intent["launch_template"]:
        answer = ec2.describe_launch_template_versions(
            LaunchTemplateName=intent["launch_template"], Versions=["1"]
        )
        data = answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    else:
        data = shapes.read("RunInstances", world.launches()[-1].params)
    machines = [
        machine
        for reservation in ec2.describe_instances()["Reservations"]
        for machine in reservation["Instances"]
    ]
    ids = [b["Ebs"]["VolumeId"] for b in machines[0]["BlockDeviceMappings"]]
    volumes = ec2.describe_volumes(VolumeIds=ids)["Volumes"]
    markets = [machine.get("InstanceLifecycle", "on-demand") for machine in machines]
    return Seen(world.way, intent["payload"], data, machines[0], volumes, markets)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_says_is_at_aws(
    make_world: MakeWorld, tmp_path: Path, name: str, way: str
) -> None:
    """Or it is refused by name before anything is launched."""
    world = make_world(way=way)
    world.write_templates([prepared(world, template_for(name, way), tmp_path)])
    refused = field_of(REFUSED, name, way)
    said = told(name, way)
    if refused:
        assert not said.offered
        assert [field for field, _ in said.problems] == [refused]
        with pytest.raises(Refusal):
            world.request(2)
        return
    idle = field_of(IDLE, name, way)
    assert said.offered, said.problems
    assert [field for field, _ in said.problems if field] == ([idle] if idle else [])
    if name == "mixed":
        world.sandbox.set_capacity(1, market="spot")
    world.start_worker()
    answer = world.run_until_final(world.request(2))
    assert answer["status"] == "complete", json.dumps(answer)
    if not idle:
        found = seen(world)
        for feature in BY_TEMPLATE[name]:
            feature.see(found)
    world.assert_agreement()


def test_every_template_is_of_a_feature() -> None:
    """None is launched for nothing, and none that is refused is not said to be."""
    assert all(BY_TEMPLATE.values())
    assert REFUSED.keys() | IDLE.keys() <= TEMPLATES.keys()
