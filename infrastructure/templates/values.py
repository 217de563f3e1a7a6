"""Values of IBM's files in one form each, and the types that the fields are made of."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

MOST_TAGS = 40
"""EC2 takes 50 tags a resource; ten are kept for the ledger's own."""

HEAVIEST = 999
"""The largest WeightedCapacity that every API takes (CreateAutoScalingGroup,
LaunchTemplateOverrides)."""

_RESERVED_TAGS = ("aws:", "hostledger:")
_TYPE = r"[a-z0-9-]+\.[a-z0-9-]+"


def is_absent(value: object) -> bool:
    """IBM's files say "not given" with null, "" and empty lists."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def refuse_switch(value: object) -> object:
    """Keeps true and false out of numbers."""
    if not isinstance(value, bool):
        return value
    raise ValueError("a number is needed")  # else pydantic takes true for 1


def lower(value: object) -> object:
    """Words in any case and with blanks around them."""
    return value.strip().lower() if isinstance(value, str) else value


def ids(value: object) -> list[str]:
    """Ids given as one, as a comma list or as an array, without blanks and doubles."""
    given = value.split(",") if isinstance(value, str) else value
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return list(dict.fromkeys(name.strip() for name in given if name.strip()))
    raise ValueError("an id, a comma list or an array of ids is needed")


def scalar(value: object) -> str:
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


def assignments(value: object) -> dict[str, str]:
    """`a=b;c=d` as a dict; a value may contain `=`. Messages name no value: it may be a secret."""
    if isinstance(value, dict):
        return {name.strip(): scalar(item) for name, item in value.items()}
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


def tags(value: object) -> dict[str, str]:
    """Tags that EC2 takes and that are not reserved."""
    given = assignments(value)
    for name, text in given.items():
        for prefix in _RESERVED_TAGS:
            if name.lower().startswith(prefix):
                raise ValueError(f'the tag "{name}" is refused: {prefix}* is reserved')
        if not 1 <= len(name) <= 128 or len(text) > 256:
            raise ValueError(
                f'the tag "{name[:40]}" is not of a length that EC2 takes '
                "(names of 1 to 128 characters, values of up to 256)"
            )
    if len(given) > MOST_TAGS:
        raise ValueError(f"{len(given)} tags are more than {MOST_TAGS}")
    return given


def money(value: object) -> str | None:
    """US dollars as a decimal text; None for 0, which in IBM's files says "no limit"."""
    try:
        amount = Decimal(str(refuse_switch(value)).strip())
    except InvalidOperation:
        raise ValueError("an amount such as 0.25 is needed") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("an amount of 0 or more is needed")
    return f"{amount.normalize():f}" if amount else None


def hours_and_minutes(value: object) -> object:
    """LSF's HH:MM in minutes."""
    if not isinstance(value, str) or not re.fullmatch(r"\s*[0-9]{1,4}:[0-5][0-9]\s*", value):
        raise ValueError("HH:MM is needed, such as 01:30")
    hours, minutes = value.split(":")
    return int(hours) * 60 + int(minutes)


def _spelling(value: object) -> str:
    return str(value).strip().lower().replace("-", "").replace("_", "")


_APIS = {_spelling(name): name for name in ("RunInstances", "EC2Fleet", "SpotFleet", "ASG")}


def provider_api(value: object) -> object:
    """ORB's name of an API, in any case."""
    return _APIS.get(_spelling(value), value)


def strategy(value: object) -> object:
    """An allocation strategy by IBM's, Spot Fleet's or AWS's other spelling, in the last."""
    known = {_spelling(name): name for name in (*SPOT_STRATEGIES, *ON_DEMAND_STRATEGIES)}
    return known.get(_spelling(value), value)


_PARAMETER = re.compile(r"arn:aws[a-z-]*:ssm:[^:]*:[^:]*:parameter/\S+|[A-Za-z0-9_./:-]{1,1100}")
_IMAGE = r"^ami-[0-9A-Za-z]+$"


def parameter_of(image: str) -> str | None:
    """The name or ARN of the SSM parameter that an imageId means; None for an AMI's id.

    `resolve:ssm:` is RunInstances' own way of writing it
    (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html), `ssm:` and a
    bare path are those of other plug-ins.
    """
    name = image.removeprefix("resolve:").removeprefix("ssm:")
    return name if name != image or image.startswith(("/", "arn:")) else None


def _image(value: str) -> str:
    parameter = parameter_of(value)
    if parameter is None and not re.fullmatch(_IMAGE[1:-1], value):
        raise ValueError(
            f"should match pattern '{_IMAGE}', or name an SSM parameter "
            "(/name, ssm:name, resolve:ssm:name or its ARN)"
        )
    if parameter is not None and not _PARAMETER.fullmatch(parameter):
        raise ValueError("the name or the ARN of an SSM parameter is needed")
    return value


def _id_of(prefix: str) -> StringConstraints:
    return StringConstraints(pattern=rf"^{prefix}-[0-9A-Za-z]+$", strip_whitespace=True)


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Path = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^/")]
Whole = Annotated[int, BeforeValidator(refuse_switch)]
Number = Annotated[float, BeforeValidator(refuse_switch), Field(allow_inf_nan=False)]
Money = Annotated[str | None, BeforeValidator(money)]
Image = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_image)]
SubnetIds = Annotated[
    list[Annotated[str, _id_of("subnet")]], BeforeValidator(ids), Field(min_length=1)
]
SecurityGroupIds = Annotated[list[Annotated[str, _id_of("sg")]], BeforeValidator(ids)]
LaunchTemplateId = Annotated[str, _id_of("lt")]
LaunchTemplateVersion = Annotated[
    str,
    BeforeValidator(scalar),
    StringConstraints(pattern=r"^([1-9][0-9]*|\$Latest|\$Default)$"),
]
SnapshotId = Annotated[str, _id_of("snap")]
CapacityReservationId = Annotated[str, _id_of("cr")]
HostId = Annotated[str, _id_of("h")]
Arn = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^arn:aws[a-z-]*:\S+$")]
InstanceType = Annotated[str, StringConstraints(strip_whitespace=True, pattern=rf"^{_TYPE}$")]
InstanceTypes = Annotated[
    str, StringConstraints(strip_whitespace=True, pattern=rf"^{_TYPE}(\s*,\s*{_TYPE})*,?$")
]
Weights = dict[InstanceType, Annotated[Whole, Field(ge=1, le=HEAVIEST)]]
Priorities = dict[InstanceType, Annotated[Number, Field(ge=0)]]
Tags = Annotated[dict[str, str], BeforeValidator(tags)]
Assignments = Annotated[dict[str, str], BeforeValidator(assignments)]
PriceType = Annotated[Literal["ondemand", "spot", "heterogeneous"], BeforeValidator(lower)]
FleetType = Annotated[Literal["instant", "request", "maintain"], BeforeValidator(lower)]
ProviderApi = Annotated[
    Literal["RunInstances", "EC2Fleet", "SpotFleet", "ASG"], BeforeValidator(provider_api)
]
_Spot = Literal[
    "lowest-price",
    "diversified",
    "capacity-optimized",
    "capacity-optimized-prioritized",
    "price-capacity-optimized",
]
_OnDemand = Literal["lowest-price", "prioritized"]
SPOT_STRATEGIES: tuple[str, ...] = get_args(_Spot)
ON_DEMAND_STRATEGIES: tuple[str, ...] = get_args(_OnDemand)
SpotStrategy = Annotated[_Spot, BeforeValidator(strategy)]
OnDemandStrategy = Annotated[_OnDemand, BeforeValidator(strategy)]
