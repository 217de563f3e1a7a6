"""IBM's `awsprov_templates.json` as validated template documents, one form for each."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from infrastructure.settings import ConfigurationProblem, read_document

MOST_TAGS = 40
"""EC2 takes 50 tags a resource; ten are kept for the ledger's own."""

_RESERVED_TAGS = ("aws:", "hostledger:")
_NUMERIC_ATTRIBUTES = ("ncores", "ncpus", "nram", "mem", "rank")
_KINDS = {"string": "String", "numeric": "Numeric", "boolean": "Boolean"}

_SPOT_FIELDS = (
    "fleetRole",
    "spotPrice",
    "maxSpotPrice",
    "spotFleetRequestExpiry",
    "allocationStrategy",
    "allocationStrategyOnDemand",
    "percentOnDemand",
    "poolsCount",
    "requestValidity",
    "durationInHours",
)
"""Without a priceType, as in LSF's files, these say that spot instances or a fleet are meant."""
_FIELDS_TO_COME = (
    "vmTypes",
    "vmTypesOnDemand",
    "vmTypesPriority",
    "launchTemplateId",
    "ec2FleetConfig",
    "fleetType",
    "onDemandTargetCapacityRatio",
    "abisInstanceRequirements",
    "abis_instance_requirements",
    "providerApiSpec",
    "providerApiSpecFile",
    "provider_api_spec",
    "provider_api_spec_file",
    "launchTemplateSpec",
    "launchTemplateSpecFile",
    "launch_template_spec",
    "launch_template_spec_file",
)
_FIELDS_WITHOUT_EFFECT = ("launchTemplateVersion", "priority", "ttl")
_FIELDS_READ_APART = ("providerApi", "interfaceType", "efaCount")


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """What is wrong with one template of a file; `fatal` leaves that template out.

    `field` is the name as the file spells it; `template_id` is "number N" (from 1) for a template
    without one, "any" where it cannot be told. The file's other templates are served all the same.
    """

    path: str
    template_id: str
    field: str
    problem: str
    fatal: bool

    def __str__(self) -> str:
        """One line for people."""
        end = "; the template is left out" if self.fatal else ""
        text = f"{self.path}: template {self.template_id}: {self.field}: {self.problem}{end}"
        return " ".join(text.splitlines())


# --- values ---------------------------------------------------------------------------------


def _refuse_switch(value: object) -> object:
    if not isinstance(value, bool):
        return value
    raise ValueError("a number is needed")  # else pydantic takes true for 1


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _ids(value: object) -> list[str]:
    """Ids given as one, as a comma list or as an array, without blanks and doubles."""
    ids = value.split(",") if isinstance(value, str) else value
    if isinstance(ids, list) and all(isinstance(name, str) for name in ids):
        return list(dict.fromkeys(name.strip() for name in ids if name.strip()))
    raise ValueError("an id, a comma list or an array of ids is needed")


def _scalar(value: object) -> str:
    """A JSON scalar as the text that attributes carry: 2.0 is "2", true is "1"."""
    match value:
        case str():
            return value.strip()
        case bool():
            return "1" if value else "0"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return str(int(value)) if value.is_integer() else repr(value)
    raise ValueError("text or a number is needed")


def _assignments(value: object) -> dict[str, str]:
    """`a=b;c=d` as a dict; a value may contain `=`. Messages name no value: it may be a secret."""
    if isinstance(value, dict):
        return {name.strip(): _scalar(item) for name, item in value.items()}
    if not isinstance(value, str):
        raise PydanticCustomError("assignments", 'text such as "name=value;name=value" is needed')
    pairs: dict[str, str] = {}
    for number, part in enumerate(value.split(";"), start=1):
        if not part.strip():
            continue
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise ValueError(f'"name=value;name=value" is needed; part {number} is not that')
        if name in pairs:
            raise ValueError(f'"{name}" is given twice')
        pairs[name] = text
    return pairs


def _tags(value: object) -> dict[str, str]:
    tags = _assignments(value)
    for name, text in tags.items():
        for prefix in _RESERVED_TAGS:
            if name.lower().startswith(prefix):
                raise ValueError(f'the tag "{name}" is refused: {prefix}* is reserved')
        if not 1 <= len(name) <= 128 or len(text) > 256:
            raise ValueError(
                f'the tag "{name[:40]}" is not of a length that EC2 takes '
                "(names of 1 to 128 characters, values of up to 256)"
            )
    if len(tags) > MOST_TAGS:
        raise ValueError(f"{len(tags)} tags are more than {MOST_TAGS}")
    return tags


# --- attributes -----------------------------------------------------------------------------


def _attribute_problem(name: str, problem: str) -> PydanticCustomError:
    context = {"field": f"attributes.{name}", "problem": problem}
    return PydanticCustomError("attribute", "{problem}", context)


def _pair(name: str, value: object) -> list[str]:
    """HostFactory's [kind, value], of strings, from any of the forms that files have."""
    kind = None
    if isinstance(value, list):
        match value:
            case [str(word), value] if word.lower() in _KINDS:
                kind = _KINDS[word.lower()]
            case [value]:
                pass
            case _:
                problem = f'["String|Numeric|Boolean", value] is needed, not {_shown(value)}'
                raise _attribute_problem(name, problem)
    if kind is None:
        kind = _kind(name, value)
    try:
        return [kind, _scalar(_refuse_switch(value) if kind == "Numeric" else value)]
    except ValueError as error:
        raise _attribute_problem(name, f"{error}, not {_shown(value)}") from None


def _kind(name: str, value: object) -> str:
    if name in _NUMERIC_ATTRIBUTES:
        return "Numeric"
    match value:
        case bool():
            return "Boolean"
        case int() | float():
            return "Numeric"
    return "String"


def _number(name: str, text: str, *, whole: bool) -> list[str]:
    number = float(text) if re.fullmatch(r"[0-9]{1,15}(\.[0-9]*)?", text) else 0.0
    if not number or (whole and not number.is_integer()):
        kind = "a whole number" if whole else "a number"
        raise _attribute_problem(name, f'{kind} above 0 is needed, not "{text}"')
    return ["Numeric", _scalar(number)]


def _attributes(value: object) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise PydanticCustomError("attributes", "an object is needed")
    given = {name: _pair(name, item) for name, item in value.items() if item is not None}
    memory = given.pop("mem", None)  # LSF's name
    if memory is not None:
        given.setdefault("nram", memory)
    given.setdefault("ncores", ["Numeric", "1"])
    for name, unit in (
        ("type", 'a machine type such as ["String", "X86_64"]'),
        ("ncpus", "the number of CPUs"),
        ("nram", "the memory in MB (mem stands in for it)"),
    ):
        if name not in given or not given[name][1]:
            raise _attribute_problem(name, f"{unit} is required")
    read = {
        "type": ["String", given["type"][1]],
        "ncores": _number("ncores", given["ncores"][1], whole=True),
        "ncpus": _number("ncpus", given["ncpus"][1], whole=True),
        "nram": _number("nram", given["nram"][1], whole=False),
    }
    return read | {name: given[name] for name in sorted(given) if name not in read}


# --- a template -----------------------------------------------------------------------------


def _id_of(prefix: Literal["ami", "subnet", "sg"]) -> StringConstraints:
    return StringConstraints(pattern=rf"^{prefix}-[0-9A-Za-z]+$", strip_whitespace=True)


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Path = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^/")]
_Whole = Annotated[int, BeforeValidator(_refuse_switch)]


class _Template(BaseModel):
    """The fields that a launch or an answer needs; the order is the document's."""

    model_config = ConfigDict(extra="ignore")

    template_id: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")] = Field(
        validation_alias="templateId"
    )
    max_number: Annotated[_Whole, Field(ge=-1, le=10_000)] = Field(validation_alias="maxNumber")
    attributes: Annotated[dict[str, list[str]], BeforeValidator(_attributes)]
    image_id: Annotated[str, _id_of("ami")] = Field(validation_alias="imageId")
    subnet_ids: Annotated[
        list[Annotated[str, _id_of("subnet")]], BeforeValidator(_ids), Field(min_length=1)
    ] = Field(validation_alias=AliasChoices("subnetId", "subnetIds"))
    vm_type: Annotated[
        str, StringConstraints(strip_whitespace=True, pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")
    ] = Field(validation_alias="vmType")
    key_name: _Text | None = Field(None, validation_alias="keyName")
    security_group_ids: Annotated[
        list[Annotated[str, _id_of("sg")]] | None, BeforeValidator(_ids)
    ] = Field(None, validation_alias="securityGroupIds")
    instance_tags: Annotated[dict[str, str] | None, BeforeValidator(_tags)] = Field(
        None, validation_alias="instanceTags"
    )
    instance_profile: _Text | None = Field(None, validation_alias="instanceProfile")
    user_data_file: _Path | None = Field(None, validation_alias="userDataScript")
    user_data_variables: Annotated[dict[str, str] | None, BeforeValidator(_assignments)] = Field(
        None, validation_alias="userData"
    )
    root_device_volume_size: Annotated[_Whole, Field(ge=1, le=16_384)] | None = Field(
        None, validation_alias="rootDeviceVolumeSize"
    )
    volume_type: Literal["gp2", "gp3", "io1", "io2", "standard"] | None = Field(
        None, validation_alias="volumeType"
    )
    iops: Annotated[_Whole, Field(ge=100, le=64_000)] | None = None
    price_type: Annotated[Literal["ondemand"], BeforeValidator(_lower)] = Field(
        "ondemand", validation_alias="priceType"
    )
    tenancy: Literal["default", "dedicated", "host"] | None = None
    placement_group: _Text | None = Field(None, validation_alias="placementGroupName")
    ebs_optimized: bool | None = Field(None, validation_alias="ebsOptimized")
    all_or_nothing: bool = Field(False, validation_alias="allOrNothing")
    fulfilment_deadline: Annotated[_Whole, Field(ge=1, le=31_536_000)] | None = Field(
        None, validation_alias="fulfilmentDeadline"
    )

    @model_validator(mode="after")
    def _settle_volume_type(self) -> Self:
        if self.root_device_volume_size is not None and self.volume_type is None:
            self.volume_type = "gp2"  # IBM's default; without a type EC2 takes the AMI's
        provisioned = self.volume_type in ("io1", "io2")
        if provisioned and self.iops is None:
            problem = f"is required with volumeType {self.volume_type}"
        elif self.iops is not None and not provisioned:
            problem = "needs volumeType io1 or io2"
        else:
            return self
        context = {"field": "iops", "problem": problem}
        raise PydanticCustomError("iops", "{problem}", context)

    def document(self) -> dict[str, Any]:
        """What the file says, in one form: nothing that is absent, empty or a default of ours."""
        said = self.model_dump()
        if not self.all_or_nothing:
            del said["all_or_nothing"]
        return {name: value for name, value in said.items() if not _is_absent(value)}


def _spellings() -> set[str]:
    known = {*_SPOT_FIELDS, *_FIELDS_TO_COME, *_FIELDS_WITHOUT_EFFECT, *_FIELDS_READ_APART}
    for name, field in _Template.model_fields.items():
        match field.validation_alias:
            case AliasChoices(choices=choices):
                known.update(str(choice) for choice in choices)
            case str(alias):
                known.add(alias)
            case _:
                known.add(name)
    return known


_KNOWN = _spellings()
_TO_COME = "comes in a later release; this one launches on-demand machines with RunInstances only"


def _is_absent(value: object) -> bool:
    """IBM's files say "not given" with null, "" and empty lists."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def _not_launchable(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """The field, and a sentence, of what this release would launch wrong; None if nothing."""

    def to_come(field: str) -> tuple[str, str]:
        return field, f"{_shown(fields[field])} {_TO_COME}"

    if _lower(fields.get("priceType")) in ("spot", "heterogeneous"):
        return to_come("priceType")
    if _lower(fields.get("providerApi", "RunInstances")) != "runinstances":
        return to_come("providerApi")
    if _lower(fields.get("interfaceType", "interface")) != "interface":
        return to_come("interfaceType")
    if fields.get("efaCount", 0) not in (0, "0"):
        return to_come("efaCount")
    image = fields.get("imageId")
    if isinstance(image, str) and image.startswith(("/", "resolve:ssm:", "ssm:")):
        return to_come("imageId")
    for field in _FIELDS_TO_COME:
        if field in fields:
            return field, _TO_COME
    if "priceType" not in fields:
        for field in _SPOT_FIELDS:
            if fields.get(field, 0) not in (0, "0"):
                return field, f'without priceType "ondemand" it means spot or a fleet: {_TO_COME}'
    return None


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _template_id_by_any_case(fields: dict[str, Any]) -> str | None:
    """Puts `templateID` and the like right; the name that was found, None if it was right."""
    if "templateId" in fields:
        return None
    for name in fields:
        if name.replace("_", "").lower() == "templateid":
            fields["templateId"] = fields.pop(name)
            return name
    return None


def _field_and_problem(error: ErrorDetails) -> tuple[str, str]:
    context = error.get("ctx", {})
    if "field" in context:
        return str(context["field"]), str(context["problem"])
    field = str(error["loc"][0])
    if error["type"] == "missing":
        return field, "is required"
    problem = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    # User data may hold secrets, and this text goes to logs.
    return field, problem if field == "userData" else f"{problem}, not {_shown(error['input'])}"


def _read_template(
    path: str, number: int, entry: object
) -> tuple[str, dict[str, Any] | None, list[TemplateProblem]]:
    """The id, the document (None when the template is left out) and the problems of one entry."""
    name = f"number {number}"
    if not isinstance(entry, dict):
        problem = f"an object is needed, not {_shown(entry)}"
        return name, None, [TemplateProblem(path, name, "templates", problem, fatal=True)]
    fields = {
        key: value
        for key, value in entry.items()
        if not _is_absent(value.strip() if isinstance(value, str) else value)
    }
    respelled = _template_id_by_any_case(fields)
    if isinstance(fields.get("templateId"), str):
        name = fields["templateId"]
    problems: list[TemplateProblem] = []

    def note(field: str, problem: str, *, fatal: bool) -> None:
        problems.append(TemplateProblem(path, name, field, problem, fatal))

    if respelled:
        note(respelled, "is read as templateId; spell it so", fatal=False)
    unknown = sorted(set(entry) - _KNOWN - {respelled})
    if unknown:
        note(", ".join(unknown), f"unknown, ignored{_hint(unknown)}", fatal=False)
    idle = [key for key in (*_SPOT_FIELDS, *_FIELDS_WITHOUT_EFFECT) if key in fields]

    refusal = _not_launchable(fields)
    if refusal:
        note(*refusal, fatal=True)
        return name, None, problems
    if idle:
        note(", ".join(idle), "without effect on an on-demand template", fatal=False)
    if "subnetId" in fields and "subnetIds" in fields:
        note("subnetIds", "give subnetId or subnetIds, not both", fatal=True)
        return name, None, problems
    try:
        template = _Template.model_validate(fields)
    except ValidationError as error:
        for detail in error.errors():
            note(*_field_and_problem(detail), fatal=True)
        return name, None, problems
    return name, template.document(), problems


def _hint(unknown: list[str]) -> str:
    for name in unknown:
        near = difflib.get_close_matches(name, sorted(_KNOWN), n=1, cutoff=0.8)
        if near:
            return f"; is {name} meant to be {near[0]}?"
    return ""


# --- the file -------------------------------------------------------------------------------


def read_templates(path: str) -> tuple[list[dict[str, Any]], list[TemplateProblem]]:
    """The template documents of a file, in its order, and what is wrong with the others.

    A template that is wrong, or that this release would launch wrong, is left out with a fatal
    problem; no document is ever half of what its file says. Raises ConfigurationProblem when the
    file itself cannot be read.
    """
    content, twice = read_document(path)
    templates = content.get("templates")
    if not isinstance(templates, list):
        problem = 'a list of templates is needed, {"templates": [...]}'
        raise ConfigurationProblem(path, "templates", problem, "give the file that list")
    documents: list[dict[str, Any]] = []
    problems = [
        TemplateProblem(path, "any", key, "given twice in one object, the last counts", fatal=False)
        for key in dict.fromkeys(twice)
    ]
    seen: set[str] = set()
    for number, entry in enumerate(templates, start=1):
        name, document, found = _read_template(path, number, entry)
        if name in seen:
            problem = "another template has this id, and the first one counts"
            problems.append(TemplateProblem(path, name, "templateId", problem, fatal=True))
            continue
        seen.add(name)
        problems += found
        if document is not None:
            documents.append(document)
    return documents, problems


def revision(document: Mapping[str, Any]) -> str:
    """The id of a document's content: sha256, in hex, of its canonical JSON."""
    canonical = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def wire_template(document: Mapping[str, Any]) -> dict[str, Any]:
    """What getAvailableTemplates answers of a document (protocol 3.1): no launch detail."""
    return {
        "templateId": document["template_id"],
        "maxNumber": document["max_number"],
        "attributes": document["attributes"],
    }
