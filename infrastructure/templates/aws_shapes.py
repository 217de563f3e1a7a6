"""Structures of AWS's own inside a template, in AWS's spelling, checked by botocore's model.

Only a template that has one pays for the model: it is large.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from infrastructure.templates.problems import shown

if TYPE_CHECKING:
    from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape


class NotAws(Exception):
    """A value that AWS's structure does not have, and where."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem


@cache
def _model(service: str) -> ServiceModel:
    from botocore.session import Session

    return Session().get_service_model(service)


def conform(service: str, name: str, value: Any, where: str, *, enums: bool = True) -> Any:
    """The value in AWS's spelling of the shape `name`; names may be in any case and with `_`.

    `enums` refuses words that AWS has not for a choice. What a shape requires is not looked at.
    Raises NotAws.
    """
    return _conform(_model(service).shape_for(name), value, where, enums)


def _conform(shape: Shape, value: Any, where: str, enums: bool) -> Any:
    match shape.type_name:
        case "structure":
            return _structure(cast("StructureShape", shape), value, where, enums)
        case "list":
            if not isinstance(value, list):
                raise NotAws(where, f"a list is needed, not {shown(value)}")
            member = cast("ListShape", shape).member
            return [
                _conform(member, item, f"{where}.{number}", enums)
                for number, item in enumerate(value, start=1)
            ]
        case "map":
            if not isinstance(value, dict):
                raise NotAws(where, f"an object is needed, not {shown(value)}")
            member = cast("MapShape", shape).value
            return {k: _conform(member, item, f"{where}.{k}", enums) for k, item in value.items()}
    return _scalar(shape, value, where, enums)


def _structure(shape: StructureShape, value: Any, where: str, enums: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotAws(where, f"an object is needed, not {shown(value)}")
    members = {_squashed(name): name for name in shape.members}
    read: dict[str, Any] = {}
    for key, item in value.items():
        name = members.get(_squashed(key))
        if name is None:
            raise NotAws(f"{where}.{key}", f"AWS's {shape.name} has no such field")
        if name in read:
            raise NotAws(f"{where}.{key}", "is given twice")
        if item is not None:
            read[name] = _conform(shape.members[name], item, f"{where}.{name}", enums)
    return read


def _squashed(name: str) -> str:
    return name.replace("_", "").lower()


def _scalar(shape: Shape, value: Any, where: str, enums: bool) -> Any:
    kind = shape.type_name
    if kind == "boolean":
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise NotAws(where, f"true or false is needed, not {shown(value)}")
    if kind in ("integer", "long"):
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise NotAws(where, f"a whole number is needed, not {shown(value)}")
    if kind in ("float", "double"):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        raise NotAws(where, f"a number is needed, not {shown(value)}")
    if not isinstance(value, str):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)  # such as a MaxPrice, which AWS wants as text
        raise NotAws(where, f"text is needed, not {shown(value)}")
    choices = cast("StringShape", shape).enum if kind == "string" else []
    # AWS makes instance types faster than botocore is renewed.
    if enums and choices and value not in choices and len(choices) < 50:
        raise NotAws(where, f"one of {', '.join(choices)} is needed, not {shown(value)}")
    return value
