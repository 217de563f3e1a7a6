"""HostFactory's attributes of a template, and what they are where the template says nothing.

HostFactory turns demand into a machineCount by them, so they must be true of each unit that a
template launches: where several instance types may be launched, the smallest counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from infrastructure.templates.problems import Refused, field_problem, shown
from infrastructure.templates.values import refuse_switch, scalar

_NUMERIC = ("ncores", "ncpus", "nram", "mem", "rank")
_KINDS = {"string": "String", "numeric": "Numeric", "boolean": "Boolean"}
_REQUIRED = (
    ("type", 'a machine type such as ["String", "X86_64"]'),
    ("ncpus", "the number of CPUs"),
    ("nram", "the memory in MB (mem stands in for it)"),
)
EGO_TYPES = {"x86_64": "X86_64", "arm64": "AARCH64"}
"""EGO's word for a machine of each of EC2's architectures. A site whose EGO has another word for
its Arm hosts gives `type` itself."""
_HOURS = {"hour": 1.0, "minute": 1 / 60, "second": 1 / 3600, "day": 24.0}
_LEARN = "run `hostledger templates refresh`, which learns it from AWS"

Facts = Mapping[str, Mapping[str, Any]]
"""Instance type -> vcpus, cores, memory (MiB), architectures, as DescribeInstanceTypes says."""


# --- as the file says -------------------------------------------------------------------------


def read_pairs(value: object) -> dict[str, list[str]]:
    """The attributes of a file as HostFactory's pairs of strings."""
    if not isinstance(value, dict):
        raise PydanticCustomError("attributes", "an object is needed")
    given = {name: _pair(name, item) for name, item in value.items() if item is not None}
    memory = given.get("mem")  # LSF's name
    if memory is not None:
        given.setdefault("nram", memory)
    for name, whole in (("ncores", True), ("ncpus", True), ("nram", False), ("mem", False)):
        if name in given:
            given[name] = _number(name, given[name][1], whole=whole)
    if "type" in given:
        given["type"] = ["String", given["type"][1]]
    return given


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
                problem = f'["String|Numeric|Boolean", value] is needed, not {shown(value)}'
                raise field_problem(f"attributes.{name}", problem)
    if kind is None:
        kind = _kind(name, value)
    try:
        return [kind, scalar(refuse_switch(value) if kind == "Numeric" else value)]
    except ValueError as error:
        raise field_problem(f"attributes.{name}", f"{error}, not {shown(value)}") from None


def _kind(name: str, value: object) -> str:
    if name in _NUMERIC:
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
        raise field_problem(f"attributes.{name}", f'{kind} above 0 is needed, not "{text}"')
    return ["Numeric", scalar(number)]


def price_of(pairs: Mapping[str, list[str]]) -> tuple[float | None, str]:
    """What a machine costs an hour by priceInfo, and what is wrong with that ("" for nothing).

    `price:0.1,billingTimeUnitType:prorated_hour,billingTimeUnitNumber:1`: the price is that of so
    many units of time, of which an hour is the default. How the bill is rounded is not looked at.
    """
    if "priceInfo" not in pairs:
        return None, ""
    said = {
        name.strip().lower(): text.strip()
        for name, _, text in (part.partition(":") for part in pairs["priceInfo"][1].split(","))
    }
    unit = said.get("billingtimeunittype", "prorated_hour").lower().rpartition("_")[2]
    hours = _HOURS.get(unit.removesuffix("s"))
    try:
        price = float(said["price"])
        number = float(said.get("billingtimeunitnumber", "1"))
    except (KeyError, ValueError):
        price, number = -1.0, 1.0
    if hours is None or not 0 <= price < float("inf") or not 0 < number < float("inf"):
        return None, f"no price for an hour can be read from {shown(pairs['priceInfo'][1])}"
    return round(price / (hours * number), 10), ""


# --- from the facts ---------------------------------------------------------------------------


def complete(
    pairs: dict[str, list[str]], content: Mapping[str, Any], facts: Facts
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """The attributes that HostFactory is told, and in what they differ from the facts.

    Raises Refused where something is neither said nor known.
    """
    unit = _unit(content, facts)
    made = dict(pairs)
    if unit:
        made.setdefault("type", ["String", unit["type"]])
        if "ncpus" not in made:
            cores = int(made.get("ncores", ["", "1"])[1])
            made["ncpus"] = ["Numeric", str(max(1, unit["slots"] // cores))]
        made.setdefault("nram", ["Numeric", str(unit["memory"])])
    made.setdefault("ncores", ["Numeric", "1"])
    advice = f"; {_LEARN}" if weights_of(content) and not unit else ""
    if not pairs and not unit:
        raise Refused("attributes", f"is required{advice}")
    for name, what in _REQUIRED:
        if not made.get(name, ["", ""])[1]:
            raise Refused(f"attributes.{name}", f"{what} is required{advice}")
    read = {name: made[name] for name in ("type", "ncores", "ncpus", "nram")}
    read |= {name: made[name] for name in sorted(made) if name not in read}
    return read, list(_differences(read, unit)) if unit else []


def weights_of(content: Mapping[str, Any]) -> dict[str, int]:
    """Every instance type that a template names, with its weight."""
    weights: dict[str, int] = {**content.get("vm_types", {})}
    for name, weight in content.get("vm_types_on_demand", {}).items():
        weights[name] = max(weight, weights.get(name, 0))
    if "vm_type" in content:
        weights[content["vm_type"]] = 1
    return weights


def _unit(content: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """What the smallest unit of a template has; {} where a type is unknown.

    A machine of weight w is w units, and HostFactory counts units.
    """
    weights = weights_of(content)
    if not weights:
        return _least_required(content.get("abis", {}))
    if any(name not in facts for name in weights):
        return {}
    known = [(facts[name], weight) for name, weight in weights.items()]
    arm = all("x86_64" not in fact["architectures"] for fact, _ in known)
    return {
        "type": EGO_TYPES["arm64" if arm else "x86_64"],
        "slots": max(1, min(fact["vcpus"] // weight for fact, weight in known)),
        "cores": max(1, min(fact["cores"] // weight for fact, weight in known)),
        "memory": max(1, min(fact["memory"] // weight for fact, weight in known)),
    }


def _least_required(requirements: Mapping[str, Any]) -> dict[str, Any]:
    """AWS launches nothing smaller than the minimum of the requirements."""
    cpus = requirements.get("VCpuCount", {}).get("Min", 0)
    memory = requirements.get("MemoryMiB", {}).get("Min", 0)
    if not cpus or not memory:
        return {}
    arm = requirements.get("CpuManufacturers") == ["amazon-web-services"]
    kind = EGO_TYPES["arm64" if arm else "x86_64"]
    return {"type": kind, "slots": cpus, "cores": 1, "memory": memory}


def _differences(made: Mapping[str, list[str]], unit: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    slots = int(made["ncores"][1]) * int(made["ncpus"][1])
    # Sites count vCPUs or cores, whichever their hosts report.
    if slots not in (unit["slots"], unit["cores"]):
        found.append(
            (
                "attributes.ncpus",
                f"ncores x ncpus is {slots}, the smallest unit has {unit['slots']} vCPUs "
                f"({unit['cores']} cores)",
            )
        )
    memory = float(made["nram"][1])
    # What the system keeps for itself is no difference.
    if not unit["memory"] / 2 <= memory <= unit["memory"]:
        told = f"{memory:g} MB is said, the smallest unit has {unit['memory']}"
        found.append(("attributes.nram", told))
    if (made["type"][1] == EGO_TYPES["arm64"]) != (unit["type"] == EGO_TYPES["arm64"]) and made[
        "type"
    ][1] in (*EGO_TYPES.values(), "NTX64"):
        told = f"{made['type'][1]} is said, the instance types are {unit['type']}"
        found.append(("attributes.type", told))
    return found
