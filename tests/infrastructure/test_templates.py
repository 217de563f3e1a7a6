"""IBM's templates as documents: what is taken, what is refused, and what the site is told."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.configuration import ConfigurationProblem
from infrastructure.templates.ibm import (
    TemplateProblem,
    read_templates,
    revision,
    wire_template,
)

FIXTURE = Path(__file__).parent.parent / "fixtures" / "ibm" / "awsprov_templates.json"

PLAIN: dict[str, Any] = {
    "templateId": "Grid-1",
    "maxNumber": 10,
    "attributes": {
        "type": ["String", "X86_64"],
        "ncores": ["Numeric", "2"],
        "ncpus": ["Numeric", "1"],
        "nram": ["Numeric", "4096"],
    },
    "imageId": "ami-0123abcd",
    "subnetId": "subnet-0123abcd",
    "vmType": "m5.large",
}
"""The least that can be launched."""
PLAIN_DOCUMENT: dict[str, Any] = {
    "template_id": "Grid-1",
    "max_number": 10,
    "attributes": PLAIN["attributes"],
    "image_id": "ami-0123abcd",
    "subnet_ids": ["subnet-0123abcd"],
    "vm_type": "m5.large",
    "price_type": "ondemand",
}

ABSENT = object()


def changed(**fields: Any) -> dict[str, Any]:
    """The plain template with these fields; ABSENT takes one out."""
    entry = {**copy.deepcopy(PLAIN), **fields}
    return {name: value for name, value in entry.items() if value is not ABSENT}


def written(tmp_path: Path, content: Any) -> str:
    """The path of a new file with this text, or this as JSON."""
    path = tmp_path / "awsprov_templates.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(path)


def read(tmp_path: Path, *entries: Any) -> tuple[list[dict[str, Any]], list[TemplateProblem]]:
    """What reading a file of these templates gives."""
    return read_templates(written(tmp_path, {"templates": list(entries)}))


def served(tmp_path: Path, **fields: Any) -> dict[str, Any]:
    """The document of the plain template with these fields, which must cause no problem."""
    documents, problems = read(tmp_path, changed(**fields))
    assert [str(problem) for problem in problems] == []
    return documents[0]


def refused(tmp_path: Path, **fields: Any) -> TemplateProblem:
    """The one problem that leaves the plain template with these fields out."""
    documents, problems = read(tmp_path, changed(**fields))
    assert documents == []
    assert [problem.fatal for problem in problems] == [True]
    return problems[0]


# --- files of IBM's shape -------------------------------------------------------------------


def test_a_file_of_ibms_shape() -> None:
    """A file like IBM's own loads whole, with nothing to complain of."""
    documents, problems = read_templates(str(FIXTURE))

    assert problems == []
    assert documents == [
        {
            "template_id": "Build-Small",
            "max_number": 0,
            "attributes": {
                "type": ["String", "X86_64"],
                "ncores": ["Numeric", "2"],
                "ncpus": ["Numeric", "1"],
                "nram": ["Numeric", "3072"],
                "awshost": ["Boolean", "1"],
                "mem": ["Numeric", "3072"],
            },
            "image_id": "ami-4c01",
            "subnet_ids": ["subnet-9d21"],
            "vm_type": "t3.medium",
            "key_name": "Build-Key",
            "instance_tags": {"team": "compilers"},
            "user_data_variables": {"zone": "eu_central_1a"},
            "price_type": "ondemand",
        },
        {
            "template_id": "Build-Large",
            "max_number": 6,
            "attributes": {
                "type": ["String", "X86_64"],
                "ncores": ["Numeric", "8"],
                "ncpus": ["Numeric", "2"],
                "nram": ["Numeric", "61440"],
                "awshost": ["Boolean", "1"],
                "mem": ["Numeric", "61440"],
            },
            "image_id": "ami-4c02",
            "subnet_ids": ["subnet-9d22"],
            "vm_type": "m5.4xlarge",
            "key_name": "Build-Key",
            "user_data_variables": {"zone": "eu_central_1b", "queue": "night"},
            "price_type": "ondemand",
        },
        {
            "template_id": "OnDemand-Risk",
            "max_number": 100,
            "attributes": {
                "type": ["String", "X86_64"],
                "ncores": ["Numeric", "1"],
                "ncpus": ["Numeric", "4"],
                "nram": ["Numeric", "16384"],
                "priceInfo": [
                    "String",
                    (
                        "price:0.21,billingTimeUnitType:prorated_hour,"
                        "billingTimeUnitNumber:1,billingRoundoffType:unit"
                    ),
                ],
                "rank": ["Numeric", "3"],
            },
            "image_id": "ami-0b3fd1e2a9c84d570",
            "subnet_ids": ["subnet-0aa1b2c3d4e5f6071", "subnet-0bb1b2c3d4e5f6072"],
            "vm_type": "m6i.xlarge",
            "key_name": "risk-grid",
            "security_group_ids": ["sg-0c1d2e3f4a5b6c7d8"],
            "instance_tags": {"cost-centre": "4711", "owner": "risk", "selector": "app=pricing"},
            "instance_profile": "arn:aws:iam::123456789012:instance-profile/risk-grid",
            "user_data_file": "/opt/cluster/aws/join_grid.sh",
            "root_device_volume_size": 80,
            "volume_type": "gp3",
            "price_type": "ondemand",
            "tenancy": "default",
            "ebs_optimized": True,
            "price": 0.21,
        },
    ]


def test_the_least_template(tmp_path: Path) -> None:
    """A document says what the file says, in a fixed order, and leaves out what is absent."""
    document = served(tmp_path)

    assert document == PLAIN_DOCUMENT
    assert list(PLAIN_DOCUMENT) == list(document)


def test_the_order_of_a_file_is_kept(tmp_path: Path) -> None:
    """HostFactory prefers earlier templates, so their order is the site's."""
    names = ["c", "a", "b"]
    documents, _ = read(tmp_path, *(changed(templateId=name) for name in names))

    assert names == [document["template_id"] for document in documents]


def test_no_templates(tmp_path: Path) -> None:
    """An empty list is a file that was read, and offers nothing."""
    assert read(tmp_path) == ([], [])


# --- fields ---------------------------------------------------------------------------------

# field, value, name in the document, value there
FIELDS: list[tuple[str, Any, str, Any]] = [
    ("templateId", "A", "template_id", "A"),
    ("templateId", "x_-9" * 16, "template_id", "x_-9" * 16),
    ("maxNumber", -1, "max_number", -1),
    ("maxNumber", 0, "max_number", 0),
    ("maxNumber", 10000, "max_number", 10000),
    ("maxNumber", "25", "max_number", 25),
    ("imageId", " ami-1 ", "image_id", "ami-1"),
    ("subnetId", "subnet-1,subnet-2", "subnet_ids", ["subnet-1", "subnet-2"]),
    ("subnetId", " subnet-1 , subnet-1,", "subnet_ids", ["subnet-1"]),
    ("subnetId", ["subnet-1", "", "subnet-2"], "subnet_ids", ["subnet-1", "subnet-2"]),
    ("vmType", "m5.large ", "vm_type", "m5.large"),
    ("vmType", "u-6tb1.metal", "vm_type", "u-6tb1.metal"),
    ("keyName", "grid key", "key_name", "grid key"),
    ("securityGroupIds", ["sg-1", "", "sg-2"], "security_group_ids", ["sg-1", "sg-2"]),
    ("securityGroupIds", "sg-1", "security_group_ids", ["sg-1"]),
    ("instanceTags", "a=1; b = x=y ;c=;", "instance_tags", {"a": "1", "b": "x=y", "c": ""}),
    ("instanceTags", {"a": "1", "b": 2}, "instance_tags", {"a": "1", "b": "2"}),
    (
        "instanceTags",
        "awsome=1;hostledgers=2",
        "instance_tags",
        {"awsome": "1", "hostledgers": "2"},
    ),
    ("instanceTags", f"k={'v' * 256}", "instance_tags", {"k": "v" * 256}),
    ("instanceTags", f"{'k' * 128}=", "instance_tags", {"k" * 128: ""}),
    (
        "instanceTags",
        "".join(f"k{i}=1; " for i in range(40)),
        "instance_tags",
        {f"k{i}": "1" for i in range(40)},
    ),
    ("instanceProfile", "grid-role", "instance_profile", "grid-role"),
    ("userDataScript", "/opt/join.sh", "user_data_file", "/opt/join.sh"),
    ("userData", "a=b;c=d=e", "user_data_variables", {"a": "b", "c": "d=e"}),
    ("rootDeviceVolumeSize", 16384, "root_device_volume_size", 16384),
    ("rootDeviceVolumeSize", "1", "root_device_volume_size", 1),
    ("volumeType", "gp2", "volume_type", "gp2"),
    ("volumeType", "gp3", "volume_type", "gp3"),
    ("volumeType", "standard", "volume_type", "standard"),
    ("priceType", "ondemand", "price_type", "ondemand"),
    ("priceType", " OnDemand", "price_type", "ondemand"),
    ("tenancy", "default", "tenancy", "default"),
    ("tenancy", "dedicated", "tenancy", "dedicated"),
    ("tenancy", "host", "tenancy", "host"),
    ("placementGroupName", "close", "placement_group", "close"),
    ("ebsOptimized", True, "ebs_optimized", True),
    ("ebsOptimized", "false", "ebs_optimized", False),
    ("allOrNothing", True, "all_or_nothing", True),
    ("fulfilmentDeadline", 900, "fulfilment_deadline", 900),
    ("fulfilmentDeadline", "900", "fulfilment_deadline", 900),
]


@pytest.mark.parametrize(("field", "value", "name", "expected"), FIELDS)
def test_fields(tmp_path: Path, field: str, value: Any, name: str, expected: Any) -> None:
    """Each field of IBM's file has its one place and form."""
    document = served(tmp_path, **{field: value})
    expected_document = {**PLAIN_DOCUMENT, name: expected}
    if field == "rootDeviceVolumeSize":
        expected_document["volume_type"] = "gp2"

    assert expected_document == document


@pytest.mark.parametrize("volume_type", ["io1", "io2"])
@pytest.mark.parametrize("iops", [100, "64000"])
def test_provisioned_volumes(tmp_path: Path, volume_type: str, iops: Any) -> None:
    """io1 and io2 come with their iops."""
    document = served(tmp_path, volumeType=volume_type, iops=iops, rootDeviceVolumeSize=1280)

    assert {
        **PLAIN_DOCUMENT,
        "root_device_volume_size": 1280,
        "volume_type": volume_type,
        "iops": int(iops),
    } == document


def test_subnet_ids(tmp_path: Path) -> None:
    """The other spelling of the subnets is taken."""
    document = served(tmp_path, subnetId=ABSENT, subnetIds=["subnet-1", "subnet-2"])

    assert document["subnet_ids"] == ["subnet-1", "subnet-2"]


@pytest.mark.parametrize("value", [False, "false"])
def test_all_or_nothing_is_said_only_when_meant(tmp_path: Path, value: Any) -> None:
    """The default is not written down: a file that says it is the same revision."""
    assert served(tmp_path, allOrNothing=value) == PLAIN_DOCUMENT


@pytest.mark.parametrize(
    "field",
    [
        "keyName",
        "securityGroupIds",
        "instanceTags",
        "instanceProfile",
        "userDataScript",
        "userData",
        "rootDeviceVolumeSize",
        "volumeType",
        "iops",
        "priceType",
        "tenancy",
        "placementGroupName",
        "ebsOptimized",
        "allOrNothing",
        "fulfilmentDeadline",
        "vmTypes",
        "launchTemplateId",
        "fleetRole",
        "providerApi",
        "interfaceType",
    ],
)
@pytest.mark.parametrize("absent", ["", " ", None, [], {}])
def test_fields_left_empty(tmp_path: Path, field: str, absent: Any) -> None:
    """What is left empty is absent."""
    assert served(tmp_path, **{field: absent}) == PLAIN_DOCUMENT


@pytest.mark.parametrize("value", [[""], ["", " "], ","])
def test_empty_security_groups(tmp_path: Path, value: Any) -> None:
    """A list of empty ids, as in IBM's samples, is no list."""
    assert served(tmp_path, securityGroupIds=value) == PLAIN_DOCUMENT


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("templateId", "a b", "should match pattern"),
        ("templateId", "x" * 65, "should match pattern"),
        ("templateId", "end\n", "should match pattern"),
        ("templateId", 7, "valid string, not 7"),
        ("templateId", "", "is required"),
        ("templateId", ABSENT, "is required"),
        ("maxNumber", ABSENT, "is required"),
        ("maxNumber", None, "is required"),
        ("maxNumber", -2, "greater than or equal to -1, not -2"),
        ("maxNumber", 10001, "less than or equal to 10000"),
        ("maxNumber", 2.5, "valid integer"),
        ("maxNumber", True, "a number is needed"),
        ("maxNumber", "many", "valid integer"),
        ("attributes", ABSENT, "is required"),
        ("attributes", "X86_64", "an object is needed"),
        ("imageId", ABSENT, "is required"),
        ("imageId", "img-1", "should match pattern '^ami-"),
        ("imageId", 1, "valid string"),
        ("subnetId", ABSENT, "is required"),
        ("subnetId", "", "is required"),
        ("subnetId", " , ", "at least 1 item"),
        ("subnetId", "net-1", "should match pattern '^subnet-"),
        ("subnetId", 5, "an id, a comma list or an array of ids is needed"),
        ("subnetId", [5], "an id, a comma list or an array of ids is needed"),
        ("vmType", ABSENT, "is required"),
        ("vmType", "large", "should match pattern"),
        ("vmType", ["m5.large"], "valid string"),
        ("keyName", 3, "valid string"),
        ("securityGroupIds", ["default"], "should match pattern '^sg-"),
        ("securityGroupIds", {"a": 1}, "an id, a comma list or an array of ids is needed"),
        ("instanceTags", "novalue", "part 1 is not that"),
        ("instanceTags", "a=1;=2", "part 2 is not that"),
        ("instanceTags", "a=1;a=2", '"a" is given twice'),
        ("instanceTags", "aws:name=1", 'the tag "aws:name" is refused: aws:* is reserved'),
        ("instanceTags", "AWS:name=1", "aws:* is reserved"),
        ("instanceTags", "hostledger:batch=1", "hostledger:* is reserved"),
        ("instanceTags", {"hostledger:x": "1"}, "hostledger:* is reserved"),
        ("instanceTags", {" ": "1"}, "not of a length"),
        ("instanceTags", {"a": []}, "text or a number is needed"),
        ("instanceTags", f"{'k' * 129}=1", "not of a length"),
        ("instanceTags", f"k={'v' * 257}", "not of a length"),
        ("instanceTags", ";".join(f"k{i}=1" for i in range(41)), "41 tags are more than 40"),
        ("instanceTags", ["a=1"], '"name=value;name=value" is needed'),
        ("instanceProfile", 1, "valid string"),
        ("userDataScript", "join.sh", "should match pattern '^/'"),
        ("userData", "IyEvYmlu", "part 1 is not that"),
        ("userData", 1, '"name=value;name=value" is needed'),
        ("rootDeviceVolumeSize", 0, "greater than or equal to 1"),
        ("rootDeviceVolumeSize", 16385, "less than or equal to 16384"),
        ("rootDeviceVolumeSize", True, "a number is needed"),
        ("volumeType", "gp9", "'gp2', 'gp3', 'io1', 'io2' or 'standard'"),
        ("volumeType", "sc1", "'gp2', 'gp3', 'io1', 'io2' or 'standard'"),
        ("iops", 99, "greater than or equal to 100"),
        ("iops", 256001, "less than or equal to 256000"),
        ("iops", 3000, "needs volumeType gp3, io1 or io2"),
        ("priceType", "auction", "should be 'ondemand', 'spot' or 'heterogeneous', not"),
        ("tenancy", "shared", "'default', 'dedicated' or 'host'"),
        ("placementGroupName", [1], "valid string"),
        ("ebsOptimized", "perhaps", "valid boolean"),
        ("allOrNothing", "perhaps", "valid boolean"),
        ("fulfilmentDeadline", 0, "greater than or equal to 1"),
        ("fulfilmentDeadline", "soon", "valid integer"),
    ],
)
def test_bad_fields(tmp_path: Path, field: str, value: Any, words: str) -> None:
    """A bad field leaves its template out and is named with file and template."""
    problem = refused(tmp_path, **{field: value})

    assert field == problem.field
    assert words in problem.problem
    assert str(tmp_path / "awsprov_templates.json") == problem.path
    if field != "templateId":
        assert problem.template_id == "Grid-1"


@pytest.mark.parametrize("value", [ABSENT, "", 7])
def test_templates_without_a_usable_id(tmp_path: Path, value: Any) -> None:
    """A template that has no id to be named by is named by its number."""
    assert refused(tmp_path, templateId=value).template_id == "number 1"


@pytest.mark.parametrize("fields", [{"volumeType": "gp2"}, {"rootDeviceVolumeSize": 8}])
def test_iops_of_other_volumes(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Iops that would not be provisioned are refused."""
    assert refused(tmp_path, iops=3000, **fields).problem == "needs volumeType gp3, io1 or io2"


@pytest.mark.parametrize("volume_type", ["io1", "io2"])
def test_provisioned_volumes_without_iops(tmp_path: Path, volume_type: str) -> None:
    """EC2 refuses these without iops, so we do before."""
    problem = refused(tmp_path, volumeType=volume_type)

    assert ("iops", f"is required with volumeType {volume_type}") == (
        problem.field,
        problem.problem,
    )


def test_both_spellings_of_the_subnets(tmp_path: Path) -> None:
    """Two lists of subnets are a question, not an answer."""
    problem = refused(tmp_path, subnetIds=["subnet-2"])

    assert (problem.field, problem.problem) == ("subnetIds", "give subnetId or subnetIds, not both")


@pytest.mark.parametrize("value", ["token=s3cret;nonsense", "s3cret", {"token": ["s3cret"]}])
def test_user_data_stays_out_of_messages(tmp_path: Path, value: Any) -> None:
    """User data may hold secrets, and messages go to logs."""
    assert "s3cret" not in str(refused(tmp_path, userData=value))


def test_every_bad_field_is_told(tmp_path: Path) -> None:
    """One reading tells everything that is wrong with a template."""
    documents, problems = read(tmp_path, changed(maxNumber=-5, vmType="x", tenancy="x"))

    assert documents == []
    assert [problem.field for problem in problems] == ["maxNumber", "vmType", "tenancy"]
    assert all(problem.fatal for problem in problems)


def test_a_problem_is_one_line(tmp_path: Path) -> None:
    """A problem reads as file, template, field, what is wrong, what follows."""
    problem = refused(tmp_path, templateId="Grid-7", vmType="a\nb")
    path = tmp_path / "awsprov_templates.json"

    assert str(problem).startswith(f"{path}: template Grid-7: vmType: String should match pattern")
    assert str(problem).endswith('not "a\\nb"; the template is left out')
    assert "\n" not in str(problem)


def test_a_bad_template_leaves_the_others(tmp_path: Path) -> None:
    """The other templates of a file are served."""
    documents, problems = read(
        tmp_path,
        changed(templateId="good"),
        changed(templateId="bad", vmType=""),
        ["no object"],
        changed(templateId="also-good"),
    )

    assert [document["template_id"] for document in documents] == ["good", "also-good"]
    assert [(problem.template_id, problem.field) for problem in problems] == [
        ("bad", "vmType"),
        ("number 3", "templates"),
    ]
    assert all(problem.fatal for problem in problems)


# --- attributes -----------------------------------------------------------------------------


def attributes(**given_attributes: Any) -> dict[str, Any]:
    """The plain attributes with these; ABSENT takes one out."""
    every = {**PLAIN["attributes"], **given_attributes}
    return {name: value for name, value in every.items() if value is not ABSENT}


@pytest.mark.parametrize(
    ("name", "value", "pair"),
    [
        ("ncpus", ["Numeric", "2"], ["Numeric", "2"]),
        ("ncpus", ["Numeric", 2], ["Numeric", "2"]),
        ("ncpus", ["numeric", 2.0], ["Numeric", "2"]),
        ("ncpus", ["String", " 2 "], ["Numeric", "2"]),
        ("ncpus", 2, ["Numeric", "2"]),
        ("ncpus", "2", ["Numeric", "2"]),
        ("ncpus", ["2"], ["Numeric", "2"]),
        ("ncpus", [2], ["Numeric", "2"]),
        ("ncores", 4, ["Numeric", "4"]),
        ("nram", "2048", ["Numeric", "2048"]),
        ("nram", 3891.2, ["Numeric", "3891.2"]),
        ("type", "NTX64", ["String", "NTX64"]),
        ("type", ["LINUX"], ["String", "LINUX"]),
        ("rank", ["Numeric", "0"], ["Numeric", "0"]),
        ("rank", 0, ["Numeric", "0"]),
        ("rank", "-1.5", ["Numeric", "-1.5"]),
        ("priceInfo", ["String", "price:0.1,unit:x"], ["String", "price:0.1,unit:x"]),
        ("priceInfo", "price:0.1", ["String", "price:0.1"]),
        ("awshost", ["Boolean", "1"], ["Boolean", "1"]),
        ("awshost", ["Boolean", True], ["Boolean", "1"]),
        ("awshost", False, ["Boolean", "0"]),
        ("zone", "eu_west_1a", ["String", "eu_west_1a"]),
        ("gpus", 8, ["Numeric", "8"]),
        ("share", 0.25, ["Numeric", "0.25"]),
        ("rack", "7", ["String", "7"]),
        ("note", ["String", ""], ["String", ""]),
    ],
)
def test_attributes(tmp_path: Path, name: str, value: Any, pair: list[str]) -> None:
    """Every form of an attribute that files have becomes HostFactory's pair of strings."""
    document = served(tmp_path, attributes=attributes(**{name: value}))

    assert {**PLAIN["attributes"], name: pair} == document["attributes"]


def test_mem_stands_in_for_nram(tmp_path: Path) -> None:
    """LSF's `mem` is HostFactory's `nram`; both are answered, since LSF looks for its own."""
    document = served(tmp_path, attributes=attributes(nram=ABSENT, mem=["Numeric", 512.0]))

    both = {"nram": ["Numeric", "512"], "mem": ["Numeric", "512"]}
    assert {**PLAIN["attributes"], **both} == document["attributes"]


def test_nram_counts_before_mem(tmp_path: Path) -> None:
    """Where both stand, each is answered as it is said."""
    document = served(tmp_path, attributes=attributes(mem=["Numeric", "512"]))

    assert {**PLAIN["attributes"], "mem": ["Numeric", "512"]} == document["attributes"]


@pytest.mark.parametrize("absent", [ABSENT, None])
def test_ncores_by_default(tmp_path: Path, absent: Any) -> None:
    """Slots are ncores x ncpus: without ncores it is one."""
    document = served(tmp_path, attributes=attributes(ncores=absent))

    assert document["attributes"]["ncores"] == ["Numeric", "1"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("type", ABSENT, "is required"),
        ("type", "", "is required"),
        ("ncpus", ABSENT, "is required"),
        ("nram", ABSENT, "the memory in MB (mem stands in for it) is required"),
        ("nram", None, "is required"),
        ("ncpus", 0, 'a whole number above 0 is needed, not "0"'),
        ("ncpus", "two", 'a whole number above 0 is needed, not "two"'),
        ("ncpus", "1_0", "a whole number above 0 is needed"),
        ("ncpus", "1.5", "a whole number above 0 is needed"),
        ("ncpus", "-2", "a whole number above 0 is needed"),
        ("ncpus", True, "a number is needed, not true"),
        ("ncores", ["Numeric", "0"], "a whole number above 0 is needed"),
        ("ncores", ["Numeric", False], "a number is needed, not false"),
        ("nram", "nan", "a number above 0 is needed"),
        ("nram", 0, "a number above 0 is needed"),
        ("rank", [], '["String|Numeric|Boolean", value] is needed, not []'),
        ("rank", ["Numeric", "1", "2"], '["String|Numeric|Boolean", value] is needed'),
        ("rank", ["Text", "1"], '["String|Numeric|Boolean", value] is needed'),
        ("zone", {"a": 1}, 'text or a number is needed, not {"a": 1}'),
        ("zone", ["String", None], "text or a number is needed, not null"),
        ("zone", ["String", ["a"]], "text or a number is needed"),
    ],
)
def test_bad_attributes(tmp_path: Path, name: str, value: Any, words: str) -> None:
    """HostFactory turns demand into machines by these: what is wrong leaves the template out."""
    problem = refused(tmp_path, attributes=attributes(**{name: value}))

    assert f"attributes.{name}" == problem.field
    assert words in problem.problem


json_scalars = (
    st.text(max_size=5)
    | st.integers(-(10**9), 10**9)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(
    st.dictionaries(
        st.text(st.sampled_from("abcxyz_"), min_size=1).filter(lambda name: name != "mem"),
        st.one_of(
            json_scalars,
            json_scalars.map(lambda value: [value]),
            st.tuples(st.sampled_from(["String", "Boolean"]), json_scalars).map(list),
        ),
    )
)
def test_attributes_are_always_pairs_of_strings(
    tmp_path_factory: pytest.TempPathFactory, others: dict[str, Any]
) -> None:
    """Whatever a site adds, HostFactory gets pairs of strings, and none is lost."""
    tmp_path = tmp_path_factory.mktemp("templates")
    pairs = served(tmp_path, attributes=attributes(**others))["attributes"]

    assert {*PLAIN["attributes"], *others} == set(pairs)
    assert all(kind in ("String", "Numeric", "Boolean") for kind, _ in pairs.values())
    assert all(isinstance(text, str) for _, text in pairs.values())


# --- what changes nothing -------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"providerApi": "RunInstances"},
        {"providerApi": "runinstances"},
        {"interfaceType": "interface"},
        {"efaCount": 0},
        {"efaCount": "0"},
    ],
)
def test_what_is_the_default_anyway(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A field that asks for what is done anyway changes nothing."""
    assert served(tmp_path, **fields) == PLAIN_DOCUMENT


@pytest.mark.parametrize(
    "fields",
    [
        {"priceType": "ondemand", "fleetRole": "arn:aws:x", "percentOnDemand": 50},
        {"priceType": "ondemand", "maxSpotPrice": 0.2},
        {"priceType": "ondemand", "durationInHours": 2, "requestValidity": "01:00"},
        {"priceType": "ondemand", "poolsCount": 2, "allocationStrategy": "lowestPrice"},
        {"allocationStrategyOnDemand": "prioritized"},
        {"spotPrice": 0},
        {"launchTemplateVersion": "3"},
        {"priority": 5, "ttl": 60},
    ],
)
def test_fields_without_effect(tmp_path: Path, fields: dict[str, Any]) -> None:
    """What has no effect on an on-demand template is said in one warning; it is served."""
    documents, problems = read(tmp_path, changed(**fields))

    assert documents == [PLAIN_DOCUMENT]
    assert [problem.fatal for problem in problems] == [False]
    assert {name for name in fields if name != "priceType"} == set(problems[0].field.split(", "))
    assert problems[0].problem == "without effect on an on-demand template"
    assert "left out" not in str(problems[0])


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["templateID", "templateid", "TemplateId", "template_id"])
def test_template_id_in_other_case(tmp_path: Path, name: str) -> None:
    """A template's id in other letters is taken, with a warning."""
    documents, problems = read(tmp_path, changed(templateId=ABSENT, **{name: "Grid-1"}))

    assert documents == [PLAIN_DOCUMENT]
    assert [(name, "Grid-1", False)] == [(p.field, p.template_id, p.fatal) for p in problems]


def test_template_id_in_both_cases(tmp_path: Path) -> None:
    """The right spelling counts; the other is an unknown field."""
    documents, problems = read(tmp_path, changed(templateID="Other"))

    assert documents == [PLAIN_DOCUMENT]
    assert [problem.field for problem in problems] == ["templateID"]


def test_unknown_fields(tmp_path: Path) -> None:
    """All unknown fields of a template are one warning, with the likely meaning."""
    documents, problems = read(
        tmp_path, changed(zeta=1, pgrpName=None, securityGroupIDs=["sg-1"]), changed(templateId="b")
    )

    assert len(documents) == 2
    assert [problem.field for problem in problems] == ["pgrpName, securityGroupIDs, zeta"]
    assert not problems[0].fatal
    assert "is securityGroupIDs meant to be securityGroupIds?" in problems[0].problem


def test_doubles(tmp_path: Path) -> None:
    """Of two templates with one id the second is left out."""
    documents, problems = read(
        tmp_path, changed(maxNumber=1), changed(maxNumber=2), changed(templateId="grid-1")
    )

    assert [(document["template_id"], document["max_number"]) for document in documents] == [
        ("Grid-1", 1),
        ("grid-1", 10),
    ]
    assert [(problem.template_id, problem.field, problem.fatal) for problem in problems] == [
        ("Grid-1", "templateId", True)
    ]


def test_the_double_of_a_bad_template(tmp_path: Path) -> None:
    """A second template does not step in for a first one that is left out."""
    documents, problems = read(tmp_path, changed(vmType="x"), changed())

    assert documents == []
    assert [problem.field for problem in problems] == ["vmType", "templateId"]


def test_a_key_given_twice(tmp_path: Path) -> None:
    """IBM's reader takes the last of two values; so do we, and say so."""
    text = json.dumps({"templates": [PLAIN]}).replace('"maxNumber"', '"maxNumber": 3, "maxNumber"')
    documents, problems = read_templates(written(tmp_path, text))

    assert documents == [PLAIN_DOCUMENT]
    assert [(problem.field, problem.fatal) for problem in problems] == [("maxNumber", False)]


# --- files that cannot be read ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1, column 1: the file is empty"),
        ('{"templates": [\n{"templateId": "a', "line 2, column 16: not JSON"),
        ("[]", "line 1, column 1: not a JSON object"),
        ("{}", "templates: a list of templates is needed"),
        ('{"templates": {}}', "templates: a list of templates is needed"),
        ('{"templates": null}', "templates: a list of templates is needed"),
        ('// x\n{"templates": []}', "line 1, column 1: not JSON"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, words: str) -> None:
    """A file that is no list of templates is a problem, never an empty list."""
    path = written(tmp_path, text)

    with pytest.raises(ConfigurationProblem) as caught:
        read_templates(path)
    assert str(caught.value).startswith(f"{path}: {words}")


@pytest.mark.parametrize("cut", range(0, FIXTURE.stat().st_size - 3, 41))
def test_half_written_files(tmp_path: Path, cut: int) -> None:
    """Wherever a file is cut, it is a problem with a place, never fewer templates."""
    path = written(tmp_path, FIXTURE.read_text("utf-8")[:cut])

    with pytest.raises(ConfigurationProblem) as caught:
        read_templates(path)
    assert caught.value.line is not None


def test_missing_file_and_directory(tmp_path: Path) -> None:
    """A file that is not there, or is none, is named with the reason."""
    with pytest.raises(ConfigurationProblem, match="no such file or directory"):
        read_templates(str(tmp_path / "missing.json"))
    with pytest.raises(ConfigurationProblem, match="is a directory"):
        read_templates(str(tmp_path))


# --- revision and wire ------------------------------------------------------------------------


def test_revision_is_of_the_canonical_json() -> None:
    """Anybody can compute a revision: sha256 of sorted, compact UTF-8 JSON."""
    document = {"b": 1, "a": {"d": "é", "c": [True, None]}}

    # printf '{"a":{"c":[true,null],"d":"é"},"b":1}' | sha256sum
    assert revision(document) == "75fc7dd33de8f89760bd85c2ea1095b2939f46cfa32a7d6f9462c2f25c4b4b39"


def test_revision_of_the_same_content(tmp_path: Path) -> None:
    """Order, spacing and ways of writing a template do not make another revision."""
    one = served(tmp_path, securityGroupIds=[""], instanceTags="a=1;b=2")
    other = served(
        tmp_path,
        instanceTags={"b": "2", "a": 1},
        priceType="OnDemand",
        subnetId=["subnet-0123abcd"],
        attributes={"nram": 4096, "ncpus": "1", "ncores": [2], "type": "X86_64"},
    )

    assert revision(one) == revision(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [("maxNumber", 11), ("vmType", "m5.xlarge"), ("userData", "a=b"), ("allOrNothing", True)],
)
def test_revision_of_another_content(tmp_path: Path, field: str, value: Any) -> None:
    """What changes a launch or an answer makes another revision."""
    assert revision(served(tmp_path)) != revision(served(tmp_path, **{field: value}))


def test_documents_are_plain_json() -> None:
    """A document survives being written and read."""
    documents, _ = read_templates(str(FIXTURE))

    assert documents == json.loads(json.dumps(documents))


def test_wire_template() -> None:
    """HostFactory is told what it needs, and no launch detail, tag or user data."""
    document = read_templates(str(FIXTURE))[0][0]

    assert wire_template(document) == {
        "templateId": "Build-Small",
        "maxNumber": 0,
        "attributes": {
            "type": ["String", "X86_64"],
            "ncores": ["Numeric", "2"],
            "ncpus": ["Numeric", "1"],
            "nram": ["Numeric", "3072"],
            "awshost": ["Boolean", "1"],
            "mem": ["Numeric", "3072"],
        },
    }


def test_lsf_is_told_the_memory_by_its_own_name(tmp_path: Path) -> None:
    """Where LSF calls, `mem` is answered although the file has `nram` only."""
    document = served(tmp_path)

    assert wire_template(document, lsf=True)["attributes"] == {
        **wire_template(document)["attributes"],
        "mem": document["attributes"]["nram"],
    }
