"""What HostFactory is told of a template's machines: said by the file, or learned from AWS."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from application.ports import CallFailed
from infrastructure.templates.examples import APIS, Wanted, example
from infrastructure.templates.ibm import Known, TemplateProblem, read_templates, types_named
from infrastructure.templates.instance_types import known_types, learn_types, types_file
from tests.infrastructure.test_templates import (
    ABSENT,
    PLAIN_DOCUMENT,
    attributes,
    changed,
    refused,
    served,
    written,
)

FACTS: dict[str, dict[str, Any]] = {
    "m5.large": {"vcpus": 2, "cores": 1, "memory": 8192, "architectures": ["x86_64"]},
    "m5.xlarge": {"vcpus": 4, "cores": 2, "memory": 16384, "architectures": ["x86_64"]},
    "c5.2xlarge": {"vcpus": 8, "cores": 4, "memory": 16384, "architectures": ["x86_64"]},
    "m7g.large": {"vcpus": 2, "cores": 2, "memory": 8192, "architectures": ["arm64"]},
}


def known(tmp_path: Path, **fields: Any) -> tuple[dict[str, list[str]], list[TemplateProblem]]:
    """The attributes that a template with these fields has by the facts, and the problems."""
    path = written(tmp_path, {"templates": [changed(**fields)]})
    documents, problems = read_templates(path, Known(FACTS))
    return documents[0]["attributes"] if documents else {}, problems


def told(kind: str, cores: int, cpus: int, memory: int) -> dict[str, list[str]]:
    return {
        "type": ["String", kind],
        "ncores": ["Numeric", str(cores)],
        "ncpus": ["Numeric", str(cpus)],
        "nram": ["Numeric", str(memory)],
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, told("X86_64", 1, 2, 8192)),
        ({"vmType": "m7g.large"}, told("AARCH64", 1, 2, 8192)),
        ({"vmType": "m5.large,c5.2xlarge"}, told("X86_64", 1, 2, 8192)),
        ({"vmType": "m5.large,m7g.large"}, told("X86_64", 1, 2, 8192)),
        (
            {"vmType": ABSENT, "vmTypes": {"m5.large": 1, "m5.xlarge": 2}},
            told("X86_64", 1, 2, 8192),
        ),
        (
            {"vmType": ABSENT, "vmTypes": {"m5.xlarge": 2, "c5.2xlarge": 4}},
            told("X86_64", 1, 2, 4096),
        ),
        (
            {"vmType": ABSENT, "vmTypesOnDemand": {"c5.2xlarge": 8}},
            told("X86_64", 1, 1, 2048),
        ),
        (
            {
                "vmType": ABSENT,
                "abisInstanceRequirements": {
                    "VCpuCount": {"Min": 4},
                    "MemoryMiB": {"Min": 7000},
                    "CpuManufacturers": ["amazon-web-services"],
                },
            },
            told("AARCH64", 1, 4, 7000),
        ),
    ],
)
def test_what_the_file_does_not_say(
    tmp_path: Path, fields: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    """The smallest unit of all that may be launched: a machine of weight w is w units."""
    assert known(tmp_path, attributes=ABSENT, **fields) == (expected, [])


def test_what_the_file_says_counts(tmp_path: Path) -> None:
    """Facts fill in what is missing and change nothing."""
    read, problems = known(tmp_path, attributes={"ncores": 2, "rank": 5})

    assert {**told("X86_64", 2, 1, 8192), "rank": ["Numeric", "5"]} == read
    assert problems == []


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"ncpus": 4}, "attributes.ncpus", "ncores x ncpus is 4, the smallest unit has 2 vCPUs"),
        ({"nram": 8193}, "attributes.nram", "8193 MB is said, the smallest unit has 8192"),
        ({"nram": 4000}, "attributes.nram", "4000 MB is said"),
        ({"type": "AARCH64"}, "attributes.type", "the instance types are X86_64"),
    ],
)
def test_differences(tmp_path: Path, said: dict[str, Any], field: str, words: str) -> None:
    """What a template says against the facts is a warning; it is served as it says."""
    read, problems = known(tmp_path, attributes=said)

    assert [(p.field, p.fatal) for p in problems] == [(field, False)]
    assert words in problems[0].problem
    assert all(str(value) == read[name][1] for name, value in said.items())


@pytest.mark.parametrize("said", [{"ncpus": 2}, {"ncpus": 1}, {"nram": 7800}, {"type": "LINUX"}])
def test_what_is_no_difference(tmp_path: Path, said: dict[str, Any]) -> None:
    """vCPUs or cores, what the system leaves of the memory, and a site's own machine types."""
    assert known(tmp_path, attributes=said)[1] == []


@pytest.mark.parametrize("missing", ["type", "ncpus", "nram"])
def test_unknown_instance_types(tmp_path: Path, missing: str) -> None:
    """Without the facts a template that says too little is left out, with the way to get them."""
    problem = refused(tmp_path, attributes=attributes(**{missing: ABSENT}))

    assert f"attributes.{missing}" == problem.field
    assert "run `hostledger templates refresh`" in problem.problem


def test_attributes_of_a_launch_template(tmp_path: Path) -> None:
    """What a site's launch template launches is not known, so the file must say it."""
    fields = {"launchTemplateId": "lt-1", "vmType": ABSENT}

    assert refused(tmp_path, **fields, attributes=ABSENT).problem == "is required"
    assert served(tmp_path, **fields)["attributes"] == PLAIN_DOCUMENT["attributes"]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("price:0.1,billingTimeUnitType:prorated_hour,billingTimeUnitNumber:1", 0.1),
        ("price:0.1", 0.1),
        ("price: 6, billingTimeUnitType: hour, billingTimeUnitNumber: 2", 3.0),
        ("price:0.5,billingTimeUnitType:prorated_minute,billingTimeUnitNumber:10", 3.0),
        ("price:0", 0.0),
    ],
)
def test_prices(tmp_path: Path, text: str, price: float) -> None:
    """priceInfo in dollars for an hour; the attribute itself is passed on as it is."""
    document = served(tmp_path, attributes=attributes(priceInfo=text))

    assert (document["price"], document["attributes"]["priceInfo"][1]) == (price, text)


@pytest.mark.parametrize(
    "text",
    ["cheap", "price:cheap", "price:-1", "price:nan", "price:1,billingTimeUnitType:moon"],
)
def test_prices_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """No price is better than a wrong one; the template is served."""
    path = written(tmp_path, {"templates": [changed(attributes=attributes(priceInfo=text))]})
    (document,), problems = read_templates(path)

    assert "price" not in document
    assert [(p.field, p.fatal) for p in problems] == [("attributes.priceInfo", False)]


# --- learning ---------------------------------------------------------------------------------


def test_learning(tmp_path: Path) -> None:
    """What AWS says is kept, and told when it is new or other than before."""
    path = types_file(str(tmp_path))
    assert known_types(path) == {}

    first = learn_types(path, ["m5.large", "m7g.large", "m5.large"], _describe)
    Path(path).write_text(Path(path).read_text().replace("16384", "1").replace("8192", "8000", 1))
    second = learn_types(path, ["m5.large", "m5.xlarge"], _describe)

    assert first.changed == ["m5.large", "m7g.large"]
    assert second.changed == ["m5.large", "m5.xlarge"]
    assert known_types(path) == second.facts
    assert {name: FACTS[name] for name in ("m5.large", "m5.xlarge", "m7g.large")} == second.facts
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_types_that_aws_does_not_know(tmp_path: Path) -> None:
    """One unknown type fails a call; the others are learned all the same."""
    learned = learn_types(types_file(str(tmp_path)), [*FACTS, "m5.giant", "x.y"], _describe)

    assert learned.unknown == ["m5.giant", "x.y"]
    assert sorted(FACTS) == learned.changed


def test_nothing_is_learned_from_a_failure(tmp_path: Path) -> None:
    """What AWS refuses for another reason is the caller's to tell."""

    def refuse(names: list[str]) -> dict[str, dict[str, Any]]:
        raise CallFailed("refused", "UnauthorizedOperation", "no")

    with pytest.raises(CallFailed, match="UnauthorizedOperation"):
        learn_types(types_file(str(tmp_path)), ["m5.large"], refuse)
    assert not Path(types_file(str(tmp_path))).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"types": {"m5.large": {}}}', '{"types": []}'])
def test_a_broken_file_of_facts(tmp_path: Path, text: str) -> None:
    """It is as good as none: it can be learned again."""
    path = tmp_path / "instance_types.json"
    path.write_text(text)

    assert known_types(str(path)) == {}


def _describe(names: list[str]) -> dict[str, dict[str, Any]]:
    """DescribeInstanceTypes: all or nothing."""
    if any(name not in FACTS for name in names):
        raise CallFailed("refused", "InvalidInstanceType", "unknown")
    return {name: FACTS[name] for name in names}


def test_types_named(tmp_path: Path) -> None:
    """All that a file names, also in templates that are left out for want of facts."""
    path = written(
        tmp_path,
        {
            "templates": [
                changed(attributes=ABSENT, vmType="m5.large, c5.large"),
                {"vm_types": {"m5.xlarge": 2}, "vmTypesOnDemand": {"m6i.large": 1}},
                "nonsense",
            ]
        },
    )

    assert types_named(path) == ["c5.large", "m5.large", "m5.xlarge", "m6i.large"]


@pytest.mark.parametrize("types", [["m5.large"], ["m5.large", "c5.2xlarge"], ["m7g.large"]])
def test_examples(tmp_path: Path, types: list[str]) -> None:
    """A generated file of every API is served as it is, with nothing to complain of."""
    role = "arn:aws:iam::123456789012:role/fleet"
    wanted = Wanted(types, ["subnet-1", "subnet-2"], "ami-1", ["sg-1"], role)
    templates = [example(api, wanted, FACTS) for api in APIS]
    path = tmp_path / "awsprov_templates.json"
    path.write_text(json.dumps({"templates": templates}))

    documents, problems = read_templates(str(path), Known(FACTS))

    assert [str(problem) for problem in problems] == []
    assert [d.get("provider_api") for d in documents] == [None, None, "SpotFleet", "ASG"]
