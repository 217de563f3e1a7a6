"""DynamoDB's values as the wire has them: what is valid, how large it is, how it is ordered."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from .wire import AwsError

# {"S": "text"}, {"M": {"name": {"N": "1"}}} and so on: one type, one content.
Value = dict[str, Any]
Item = dict[str, Value]

# "Constraints in Amazon DynamoDB" and "Quotas in Amazon DynamoDB"
ITEM_MAX = 400 * 1024
HASH_MAX, RANGE_MAX = 2048, 1024
DEPTH_MAX = 32
DIGITS_MAX = 38
TYPES = ("S", "N", "B", "SS", "NS", "BS", "M", "L", "NULL", "BOOL")

_LARGEST = Decimal("9.9999999999999999999999999999999999999E+125")
_SMALLEST = Decimal("1E-130")
_EXACT = Context(prec=300, Emax=10_000, Emin=-10_000)
_ROUNDED = Context(prec=DIGITS_MAX)


def invalid(message: str) -> AwsError:
    """The error of a request that DynamoDB does not accept."""
    return AwsError("ValidationException", message)


def normal(value: Any, depth: int = 0) -> tuple[Value, int]:
    """A value as DynamoDB gives it back (numbers without needless digits) and its size in bytes.

    Sizes are those of "DynamoDB item sizes and formats": text and bytes as they are, a number
    one byte for two digits and one more, null and boolean one, a list or map three and one for
    each element. Raises ValidationException.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise invalid(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
            if not value
            else "Supplied AttributeValue has more than one datatypes set, must contain exactly "
            "one of the supported datatypes"
        )
    ((kind, content),) = value.items()
    match kind:
        case "S" if isinstance(content, str):
            return value, len(content) if content.isascii() else len(content.encode())
        case "N" if isinstance(content, str):
            text, size = _number(content)
            return (value if text == content else {"N": text}), size
        case "B" if isinstance(content, str):
            return value, len(_bytes(content))
        case "BOOL" if isinstance(content, bool):
            return value, 1
        case "NULL" if content is True:
            return value, 1
        case "SS" | "NS" | "BS" if isinstance(content, list):
            return _set(kind, content)
        case "L" if isinstance(content, list):
            _check_depth(depth)
            size, elements = 3, []
            for element in content:
                held, length = normal(element, depth + 1)
                elements.append(held)
                size += length + 1
            return {"L": elements}, size
        case "M" if isinstance(content, dict):
            _check_depth(depth)
            size, members = 3, {}
            for name, member in content.items():
                members[name], length = normal(member, depth + 1)
                size += length + 1 + len(name.encode())
            return {"M": members}, size
    raise invalid(f"Supplied AttributeValue is not a valid value of type {kind}")


def normal_item(item: Any) -> tuple[Item, int]:
    """A whole item as DynamoDB keeps it, and its size. Raises ValidationException."""
    if not isinstance(item, dict):
        raise invalid("An item is a map of attributes")
    kept: Item = {}
    size = 0
    for name, value in item.items():
        kept[name], length = normal(value)
        size += length + len(name.encode())
    return kept, size


def ordered(value: Value) -> Any:
    """What a key's value is compared by: text by UTF-8 (as Python compares it), numbers, bytes."""
    ((kind, content),) = value.items()
    if kind == "N":
        return Decimal(content)
    return _bytes(content) if kind == "B" else content


def same(one: Value, other: Value) -> bool:
    """Whether two normal values are equal; sets have no order."""
    if one == other:
        return True
    (kind,), (also,) = one, other
    if kind != also:
        return False
    mine, theirs = one[kind], other[kind]
    match kind:
        case "SS" | "NS" | "BS":
            return set(mine) == set(theirs)
        case "L":
            return len(mine) == len(theirs) and all(map(same, mine, theirs))
        case "M":
            return mine.keys() == theirs.keys() and all(same(mine[k], theirs[k]) for k in mine)
    return False


def add(one: str, other: str, sign: int = 1) -> str:
    """The sum (sign 1) or difference (-1) of two numbers. Raises ValidationException."""
    return _number(str(_ROUNDED.add(Decimal(one), sign * Decimal(other))))[0]


def copy_of_key(item: Mapping[str, Value], names: tuple[str, ...]) -> Item:
    """The attributes of these names."""
    return {name: item[name] for name in names}


def _number(text: str) -> tuple[str, int]:
    if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and text[0] != "0":
        return text, (len(text.rstrip("0")) + 1) // 2 + 1
    try:
        value = Decimal(text.strip() or "?")
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise invalid(
            f"The parameter cannot be converted to a numeric value: {text}"
            if text
            else "The parameter cannot be converted to a numeric value"
        )
    if not value:
        return "0", 1
    shortest = value.normalize(_EXACT)
    sign, digits, _ = shortest.as_tuple()
    if len(digits) > DIGITS_MAX:
        raise invalid("Attempting to store more than 38 significant digits in a Number")
    if abs(value) > _LARGEST:
        raise invalid(
            "Number overflow. Attempting to store a number with magnitude larger than "
            "supported range"
        )
    if abs(value) < _SMALLEST:
        raise invalid(
            "Number underflow. Attempting to store a number with magnitude smaller than "
            "supported range"
        )
    plain = format(shortest, "f")
    return plain, (len(digits) + 1) // 2 + 1 + sign


def _set(kind: str, content: list[Any]) -> tuple[Value, int]:
    """A set and its size. "Each value within a set must be unique", and none may be empty."""
    if not content:
        raise invalid(
            f"One or more parameter values were invalid: An {_SET_NAMES[kind]} set may not be empty"
        )
    elements = [normal({kind[0]: element}) for element in content]
    texts = [value[kind[0]] for value, _ in elements]
    if len(set(texts)) < len(texts):
        raise invalid(
            "One or more parameter values were invalid: Input collection "
            f"[{', '.join(texts)}] contains duplicates."
        )
    return {kind: texts}, sum(size for _, size in elements)


_SET_NAMES = {"SS": "string", "NS": "number", "BS": "binary"}


def _check_depth(depth: int) -> None:
    if depth >= DEPTH_MAX:
        raise invalid("Nesting Levels have exceeded supported limits")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AwsError("SerializationException", "A binary value is not base64") from None
