"""EC2's parameters and answers by AWS's own service model: flat as sent, nested as meant, XML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.utils import parse_timestamp
from moto.core.utils import get_service_model

from .wire import AwsError, tag, timestamp


def read(action: str, params: Mapping[str, str], within: str = "") -> dict[str, Any]:
    """The parameters of an EC2 request as botocore's callers write them, nested.

    `within` names one structure of them. Times become seconds since the epoch. Raises
    UnknownParameter and InvalidParameterValue (errors-overview.html).
    """
    tree: dict[str, Any] = {}
    for name, value in params.items():
        if name not in ("Action", "Version"):
            *path, last = name.split(".")
            node = tree
            for step in path:
                below = node.setdefault(step, {})
                if not isinstance(below, dict):
                    raise _unknown(name)
                node = below
            node[last] = value
    found: dict[str, Any] = _read(_operation(action).input_shape, tree, action)
    return found[within] if within else found


def flat(action: str, value: Mapping[str, Any]) -> dict[str, str]:
    """The opposite of `read`; members that `action` does not take are left out."""
    found: dict[str, str] = {}
    _flatten(_operation(action).input_shape, value, "", found)
    return found


def xml(action: str, value: Mapping[str, Any]) -> str:
    """The inside of an EC2 answer with these members; what the answer lacks is left out."""
    return _members(_operation(action).output_shape, value)


def _operation(action: str) -> Any:
    return get_service_model("ec2").operation_model(action)


def _sent_name(shape: Any, name: str) -> str:
    """As botocore's EC2Serializer names a parameter."""
    known = shape.serialization
    if "queryName" in known:
        return str(known["queryName"])
    if "name" in known:
        return str(known["name"][:1].upper() + known["name"][1:])
    return name


def _read(shape: Any, node: Any, where: str) -> Any:
    kind = shape.type_name
    if kind in ("structure", "list"):
        if not isinstance(node, dict):
            raise _unknown(where)
        if kind == "list":
            if not all(number.isdigit() for number in node):
                raise _unknown(where)
            ordered = sorted(node.items(), key=lambda entry: int(entry[0]))
            return [_read(shape.member, below, f"{where}.{i}") for i, below in ordered]
        names = {_sent_name(member, name): name for name, member in shape.members.items()}
        found = {}
        for sent, below in node.items():
            if sent not in names:
                raise _unknown(f"{where}.{sent}")
            name = names[sent]
            found[name] = _read(shape.members[name], below, f"{where}.{sent}")
        return found
    if isinstance(node, dict):
        raise _unknown(where)
    try:
        match kind:
            case "boolean":
                return node.lower() == "true"
            case "integer" | "long":
                return int(node)
            case "float" | "double":
                return float(node)
            case "timestamp":
                return parse_timestamp(node).timestamp()
    except ValueError as error:
        message = f"Value ({node}) for parameter {where.partition('.')[2]} is invalid."
        raise AwsError("InvalidParameterValue", message) from error
    return node


def _flatten(shape: Any, value: Any, prefix: str, found: dict[str, str]) -> None:
    match shape.type_name:
        case "structure":
            for name, below in value.items():
                if name in shape.members:
                    member = shape.members[name]
                    sent = _sent_name(member, name)
                    _flatten(member, below, f"{prefix}.{sent}" if prefix else sent, found)
        case "list":
            for number, below in enumerate(value, 1):
                _flatten(shape.member, below, f"{prefix}.{number}", found)
        case "boolean":
            found[prefix] = "true" if value else "false"
        case "timestamp":
            found[prefix] = timestamp(value)
        case _:
            found[prefix] = str(value)


def _members(shape: Any, value: Mapping[str, Any]) -> str:
    return "".join(
        _element(member, member.serialization.get("name", name), value[name])
        for name, member in shape.members.items()
        if value.get(name) is not None
    )


def _element(shape: Any, name: str, value: Any) -> str:
    match shape.type_name:
        case "structure":
            return f"<{name}>{_members(shape, value)}</{name}>"
        case "list":
            inner = shape.member.serialization.get("name", "item")
            return f"<{name}>{''.join(_element(shape.member, inner, v) for v in value)}</{name}>"
        case "boolean":
            return tag(name, "true" if value else "false")
        case "timestamp":
            return tag(name, timestamp(value))
    return tag(name, value)


def _unknown(name: str) -> AwsError:
    name = name.partition(".")[2] or name
    return AwsError("UnknownParameter", f"The parameter {name} is not recognized")
