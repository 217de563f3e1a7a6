"""The query protocol by AWS's own service models: parameters nested, answers as XML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.core.utils import get_service_model

from .wire import AwsError, tag, timestamp


def read(service: str, action: str, params: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a request as botocore's callers write them, nested.

    Raises ValidationError for one that is unknown, missing or not of its type; lengths and
    patterns are not looked at.
    """
    tree: dict[str, Any] = {}
    for name, value in params.items():
        if name in ("Action", "Version"):
            continue
        *path, last = name.split(".")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise _invalid(name)
        node[last] = value
    shape = get_service_model(service).operation_model(action).input_shape
    found: dict[str, Any] = _read(shape, tree, "")
    return found


def xml(service: str, action: str, content: Mapping[str, Any]) -> str:
    """The inside of an action's result; members that are None are left out."""
    shape = get_service_model(service).operation_model(action).output_shape
    return "" if shape is None else _members(shape, content)


def _read(shape: Any, node: Any, where: str) -> Any:
    kind = shape.type_name
    # An empty list is sent as its bare name (botocore's QuerySerializer).
    if kind == "list" and node == "":
        return []
    if isinstance(node, dict) != (kind in ("structure", "list")):
        raise _invalid(where)
    try:
        match kind:
            case "structure":
                return _structure(shape, node, where)
            case "list":
                items = sorted(node.get("member", {}).items(), key=lambda item: int(item[0]))
                return [_read(shape.member, below, f"{where}.member.{n}") for n, below in items]
            case "boolean":
                return node.lower() == "true"
            case "integer":
                return int(node)
            case "double":
                return float(node)
    except (AttributeError, ValueError) as error:
        raise _invalid(where) from error
    return node


def _structure(shape: Any, node: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {}
    for name, below in node.items():
        path = f"{where}.{name}".lstrip(".")
        if name not in shape.members:
            raise _invalid(path)
        found[name] = _read(shape.members[name], below, path)
    for name in shape.required_members:
        if name not in found:
            path = f"{where}.{name}".lstrip(".")
            raise AwsError(
                "ValidationError",
                f"1 validation error detected: Value null at '{path}' failed to satisfy "
                "constraint: Member must not be null",
            )
    return found


def _members(shape: Any, content: Mapping[str, Any]) -> str:
    return "".join(
        _element(member, name, content[name])
        for name, member in shape.members.items()
        if content.get(name) is not None
    )


def _element(shape: Any, name: str, value: Any) -> str:
    match shape.type_name:
        case "structure":
            return f"<{name}>{_members(shape, value)}</{name}>"
        case "list":
            items = "".join(_element(shape.member, "member", item) for item in value)
            return f"<{name}>{items}</{name}>"
        case "boolean":
            return tag(name, "true" if value else "false")
        case "timestamp":
            return tag(name, timestamp(value))
    return tag(name, value)


def _invalid(name: str) -> AwsError:
    return AwsError("ValidationError", f"The parameter {name} is not recognized, or not valid")
