"""A site's native specification, merged over the parameters of a call but for what is ours."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from infrastructure.aws import tags as our_tags


def merged(ours: dict[str, Any], native: dict[str, Any]) -> dict[str, Any]:
    """Ours with the native parameters over them: structures are merged, all else is replaced."""
    result = dict(ours)
    for key, value in native.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def over(
    ours: dict[str, Any], native: dict[str, Any] | None, protected: Sequence[str]
) -> dict[str, Any]:
    """Ours with the native parameters over them. `protected` parameters, and the token, stay as
    they are, absent ones too; tags are added to ours. Raises CallFailed."""
    if not native:
        return ours
    theirs = {key: value for key, value in native.items() if key != "TagSpecifications"}
    result = merged(ours, theirs)
    for key in (*protected, "ClientToken", "DryRun"):
        if key in ours:
            result[key] = ours[key]
        else:
            result.pop(key, None)
    if native.get("TagSpecifications"):
        result["TagSpecifications"] = our_tags.added(
            ours.get("TagSpecifications", []), native["TagSpecifications"]
        )
    return result
