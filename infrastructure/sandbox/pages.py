"""Pages and filters of the Describe calls that the sandbox answers by itself."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .wire import AwsError

Row = TypeVar("Row")


def page(
    rows: Sequence[Row], asked: Mapping[str, Any], most: int, key: Callable[[Row], str]
) -> tuple[list[Row], str | None]:
    """The page that MaxResults and NextToken ask for, at most `most` rows, and the next token.

    The rows are in the order of their keys, which go on meaning the same while rows come and go.
    Raises InvalidParameterValue and InvalidNextToken.
    """
    size = asked.get("MaxResults")
    if size is not None and not 1 <= size <= most:
        raise AwsError("InvalidParameterValue", f"MaxResults is between 1 and {most}, not {size}")
    after = _after(asked["NextToken"]) if asked.get("NextToken") else ""
    rest = [row for row in rows if key(row) > after]
    found = rest[: size or most]
    if len(found) == len(rest):
        return found, None
    return found, base64.urlsafe_b64encode(f"after:{key(found[-1])}".encode()).decode()


def matches(
    wanted: Sequence[tuple[str, Sequence[str]]],
    known: frozenset[str],
    attribute: Callable[[str], Sequence[str]],
) -> bool:
    """Whether all filters match. Raises InvalidParameterValue for one that is not known."""
    for name, _ in wanted:
        if name not in known and not (name.startswith("tag:") and "tag-key" in known):
            raise AwsError("InvalidParameterValue", f"The filter '{name}' is invalid")
    return all(any_value(attribute(name), values) for name, values in wanted)


def any_value(attribute: Sequence[str], values: Sequence[str]) -> bool:
    """Whether any of a filter's values, which may have wildcards, is one of the attribute's."""
    return any(
        value in attribute
        if not ("*" in value or "?" in value or "\\" in value)
        else any(wildcard(value).fullmatch(item) for item in attribute)
        for value in values
    )


def wildcard(pattern: str) -> re.Pattern[str]:
    """`*` any characters, `?` one, `\\` takes the next literally (Using_Filtering.html)."""
    parts: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            parts.append(".*")
        elif character == "?":
            parts.append(".")
        elif character == "\\":
            parts.append(re.escape(next(characters, "\\")))
        else:
            parts.append(re.escape(character))
    return re.compile("".join(parts), re.DOTALL)


def _after(token: str) -> str:
    try:
        word, _, key = base64.urlsafe_b64decode(token).decode().partition(":")
        if word == "after":
            return key
    except (binascii.Error, ValueError):
        pass
    raise AwsError("InvalidNextToken", "The specified NextToken is not valid")
