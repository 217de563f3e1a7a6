"""AWS's own requests in a template: what becomes fields, what is merged, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infrastructure.templates.ibm import read_templates
from tests.infrastructure.test_templates import (
    ABSENT,
    PLAIN_DOCUMENT,
    changed,
    read,
    refused,
    served,
    written,
)

NO_MACHINE = {"vmType": ABSENT, "subnetId": ABSENT, "imageId": ABSENT}
FLEET: dict[str, Any] = {
    "launchTemplateConfigs": [
        {
            "launchTemplateSpecification": {"launchTemplateId": "lt-1", "version": "3"},
            "overrides": [
                {"instanceType": t, "subnetId": s, "weightedCapacity": w, "priority": w}
                for t, w in (("m5.large", 1), ("m5.xlarge", 2))
                for s in ("subnet-1", "subnet-2")
            ],
        }
    ],
    "targetCapacitySpecification": {
        "totalTargetCapacity": 5,
        "defaultTargetCapacityType": "spot",
    },
    "spotOptions": {
        "allocationStrategy": "capacity-optimized-prioritized",
        "maintenanceStrategies": {"capacityRebalance": {"replacementStrategy": "launch"}},
    },
    "type": "request",
}
FLEET_DOCUMENT = {
    "template_id": "Grid-1",
    "max_number": 10,
    "attributes": PLAIN_DOCUMENT["attributes"],
    "price_type": "spot",
    "fleet_type": "request",
    "fulfilment_deadline": 1800,
    "launch_template": {"id": "lt-1", "version": "3"},
    "subnet_ids": ["subnet-1", "subnet-2"],
    "vm_types": {"m5.large": 1, "m5.xlarge": 2},
    "vm_types_priority": {"m5.large": 1, "m5.xlarge": 2},
    "allocation_strategy": "capacity-optimized-prioritized",
    "native": {
        "api": {
            "SpotOptions": {
                "MaintenanceStrategies": {"CapacityRebalance": {"ReplacementStrategy": "launch"}}
            }
        }
    },
}


def test_a_fleet_of_lsf(tmp_path: Path) -> None:
    """Types, weights, subnets, priorities and strategies become the template's own, so that units
    are counted; the rest is merged over the call. Names may be in any case."""
    assert served(tmp_path, **NO_MACHINE, ec2FleetConfig=FLEET) == FLEET_DOCUMENT


def test_a_fleet_of_lsf_in_a_file(tmp_path: Path) -> None:
    """A name is relative to the templates file, LSF's placeholders are ours to fill in, and the
    file is one that the compiled form was made of."""
    text = json.dumps(FLEET).replace(
        '"totalTargetCapacity": 5', '"totalTargetCapacity": $LSF_TOTAL_TARGET_CAPACITY'
    )
    (tmp_path / "fleet.json").write_text(text)
    files: dict[str, Any] = {}
    path = written(tmp_path, {"templates": [changed(**NO_MACHINE, ec2FleetConfig="fleet.json")]})

    documents, problems = read_templates(path, files=files)

    assert (documents, problems) == ([FLEET_DOCUMENT], [])
    assert list(files) == [str(tmp_path / "fleet.json")]
    assert files[str(tmp_path / "fleet.json")] is not None


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ({}, {"price_type": "ondemand"}),
        ({"DefaultTargetCapacityType": "on-demand"}, {"price_type": "ondemand"}),
        ({"OnDemandTargetCapacity": 3}, {"price_type": "ondemand"}),
        (
            {"OnDemandTargetCapacity": 1, "SpotTargetCapacity": 3},
            {"price_type": "spot", "percent_on_demand": 25},
        ),
    ],
)
def test_the_market_of_a_fleet(
    tmp_path: Path, target: dict[str, Any], more: dict[str, Any]
) -> None:
    """As AWS takes it; two numbers are the share of each, since the total follows from requests."""
    document = served(
        tmp_path, ec2FleetConfig={"Type": "instant", "TargetCapacitySpecification": target}
    )

    assert more.items() <= document.items()
    assert document["fleet_type"] == "instant"
    assert "native" not in document


def test_the_ratio_of_lsf(tmp_path: Path) -> None:
    """onDemandTargetCapacityRatio is the share on demand."""
    fields = {"ec2FleetConfig": {"Type": "instant"}, "onDemandTargetCapacityRatio": 0.4}
    documents, problems = read(tmp_path, changed(**fields))

    assert (documents[0]["price_type"], documents[0]["percent_on_demand"]) == ("spot", 40)
    assert [(p.field, p.fatal) for p in problems] == [("priceType", False)]


def test_what_the_template_says_itself_counts(tmp_path: Path) -> None:
    """A field of the template stands before the same in AWS's request."""
    document = served(
        tmp_path, priceType="spot", subnetId="subnet-9", vmType=ABSENT, ec2FleetConfig=FLEET
    )

    assert document["subnet_ids"] == ["subnet-9"]
    assert document["vm_types"] == {"m5.large": 1, "m5.xlarge": 2}


@pytest.mark.parametrize(
    ("config", "field", "words"),
    [
        ({"Typ": "instant"}, "Typ", "AWS's CreateFleetRequest has no such field"),
        (
            {"Type": "maintain", "ReplaceUnhealthyInstances": True},
            "ReplaceUnhealthyInstances",
            "end",
        ),
        (
            {"ExcessCapacityTerminationPolicy": "termination"},
            "ExcessCapacityTerminationPolicy",
            "end",
        ),
        (
            {"TargetCapacitySpecification": {"TargetCapacityUnitType": "vcpu"}},
            "TargetCapacitySpecification.TargetCapacityUnitType",
            "counted in units",
        ),
        (
            {
                "LaunchTemplateConfigs": [
                    {"LaunchTemplateSpecification": {"LaunchTemplateName": "n"}}
                ]
            },
            "LaunchTemplateConfigs.LaunchTemplateSpecification.LaunchTemplateId",
            "is required",
        ),
        (
            {
                "LaunchTemplateConfigs": [
                    {"LaunchTemplateSpecification": {"LaunchTemplateId": f"lt-{n}"}} for n in (1, 2)
                ]
            },
            "LaunchTemplateConfigs",
            "one launch template is taken",
        ),
        ({"Overrides": []}, "Overrides", "no such field"),
        ({"Type": "once"}, "Type", "one of instant, request, maintain is needed"),
        (
            {"SpotOptions": {"AllocationStrategy": "cheapest"}},
            "SpotOptions.AllocationStrategy",
            "one of lowest-price, diversified",
        ),
    ],
)
def test_fleets_that_are_refused(
    tmp_path: Path, config: dict[str, Any], field: str, words: str
) -> None:
    """What would be launched otherwise than it says, or would end machines, is named."""
    problem = refused(tmp_path, ec2FleetConfig=config)

    assert f"ec2FleetConfig.{field}" == problem.field
    assert words in problem.problem


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ([{"InstanceType": "m5.large", "ImageId": "ami-1"}], "ImageId"),
        ([{"InstanceType": "m5.large", "WeightedCapacity": 1.5}], "WeightedCapacity"),
        ([{"InstanceType": "m5.large", "WeightedCapacity": w} for w in (1, 2)], "WeightedCapacity"),
        ([{"InstanceType": "m5.large", "MaxPrice": p} for p in ("1", "2")], "MaxPrice"),
        ([{"InstanceType": "m5.large", "MaxPrice": "cheap"}], "MaxPrice"),
        (
            [
                {"InstanceRequirements": {"VCpuCount": {"Min": n}, "MemoryMiB": {"Min": n}}}
                for n in (1, 2)
            ],
            "InstanceRequirements",
        ),
    ],
)
def test_overrides_that_are_refused(
    tmp_path: Path, overrides: list[dict[str, Any]], field: str
) -> None:
    """What differs from override to override, and a template has once, is named."""
    template = {"LaunchTemplateId": "lt-1"}
    config = {
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": template, "Overrides": overrides}]
    }

    problem = refused(tmp_path, **NO_MACHINE, ec2FleetConfig=config)

    assert problem.field == f"ec2FleetConfig.LaunchTemplateConfigs.Overrides.{field}"


def test_pools_that_are_not_all_pairs(tmp_path: Path) -> None:
    """A template tries each type in each subnet; where the request does not, that is said."""
    config = {
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1"},
                "Overrides": [
                    {"InstanceType": "m5.large", "SubnetId": "subnet-1"},
                    {"InstanceType": "c5.large", "SubnetId": "subnet-2"},
                ],
            }
        ]
    }
    documents, problems = read(tmp_path, changed(**NO_MACHINE, ec2FleetConfig=config))

    assert documents[0]["vm_types"] == {"m5.large": 1, "c5.large": 1}
    assert [(p.problem, p.fatal) for p in problems] == [
        ("each instance type is tried in each subnet", False)
    ]


@pytest.mark.parametrize(
    ("fields", "api", "noted"),
    [
        (
            {"provider_api_spec": {"CreditSpecification": {"CpuCredits": "standard"}}},
            {"CreditSpecification": {"CpuCredits": "standard"}},
            [],
        ),
        (
            {"providerApiSpec": {"MaxCount": 3, "Monitoring": {"Enabled": True}}},
            {"Monitoring": {"Enabled": True}},
            ["providerApiSpec.MaxCount"],
        ),
        (
            {
                "providerApi": "EC2Fleet",
                "provider_api_spec": {"Context": "c-1", "ClientToken": "x"},
            },
            {"Context": "c-1"},
            [],
        ),
        (
            {
                "providerApi": "SpotFleet",
                "priceType": "spot",
                "fleetRole": "arn:aws:iam::123456789012:role/fleet",
                "provider_api_spec": {
                    "SpotFleetRequestConfig": {"TargetCapacity": 1, "Context": "c"}
                },
            },
            {"SpotFleetRequestConfig": {"Context": "c"}},
            ["providerApiSpec.TargetCapacity"],
        ),
        (
            {"providerApi": "ASG", "provider_api_spec": {"DefaultCooldown": 5, "MinSize": 2}},
            {"DefaultCooldown": 5},
            ["providerApiSpec.MinSize"],
        ),
    ],
)
def test_native_calls(
    tmp_path: Path, fields: dict[str, Any], api: dict[str, Any], noted: list[str]
) -> None:
    """A request of the template's API, merged over ours but for what follows from the requests."""
    documents, problems = read(tmp_path, changed(**fields))

    assert documents[0]["native"] == {"api": api}
    assert noted == [problem.field for problem in problems]


def test_native_launch_templates(tmp_path: Path) -> None:
    """Launch template data may stand in for the template's own image."""
    data = {"imageId": "ami-1", "metadata_options": {"HttpTokens": "required"}}
    (tmp_path / "data.json").write_text(json.dumps(data))
    document = served(tmp_path, imageId=ABSENT, launch_template_spec_file="data.json")

    assert document["native"] == {
        "launch_template": {"ImageId": "ami-1", "MetadataOptions": {"HttpTokens": "required"}}
    }


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"launch_template_spec": {"UserData": "s3cret"}}, "launchTemplateSpec.UserData", "digest"),
        ({"provider_api_spec": {"UserData": "s3cret"}}, "providerApiSpec.UserData", "digest"),
        (
            {"launch_template_spec": {"InstanceMarketOptions": {"MarketType": "spot"}}},
            "launchTemplateSpec.InstanceMarketOptions",
            "give priceType",
        ),
        ({"provider_api_spec": {"MinCount": "x"}}, "providerApiSpec.MinCount", "whole number"),
        (
            {"provider_api_spec": {"a": 1}, "provider_api_spec_file": "x"},
            "providerApiSpecFile",
            "not both",
        ),
        ({"provider_api_spec_file": "x.json"}, "providerApiSpecFile", "no such file"),
        ({"provider_api_spec_file": "half.json"}, "providerApiSpecFile", "not JSON"),
        ({"launch_template_spec_file": "list.json"}, "launchTemplateSpecFile", "not a JSON object"),
        ({"provider_api_spec_file": "jinja.json"}, "providerApiSpecFile", "placeholders"),
        (
            {"ec2FleetConfig": {"Type": "instant"}, "providerApi": "ASG"},
            "ec2FleetConfig",
            "needs providerApi EC2Fleet, not ASG",
        ),
    ],
)
def test_specifications_that_are_refused(
    tmp_path: Path, fields: dict[str, Any], field: str, words: str
) -> None:
    """What cannot be merged as it is, is named; a secret in it is not shown."""
    (tmp_path / "half.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "jinja.json").write_text('{"ImageId": "{{ image_id }}"}')

    problem = refused(tmp_path, **fields)

    assert field == problem.field
    assert words in problem.problem
    assert "s3cret" not in str(problem)
