"""The tags of what we launch, and how they go together with a site's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from application.ports import CallFailed

OWN = "hostledger:"
DEPLOYMENT = OWN + "deployment"
BATCH = OWN + "batch"
PROVIDER = OWN + "provider"

LAUNCHED = ("instance", "volume", "network-interface")
"""What a launch makes and tags."""


def launch_tags(content: dict[str, Any], tags: dict[str, str]) -> dict[str, str]:
    """All tags of what a template launches; ours come last and win."""
    own = dict(content.get("instance_tags", {}))
    if content.get("rc_account"):
        own["rc_account"] = content["rc_account"]
    return {**own, **tags}


def listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def of(items: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """The tags of something that AWS describes."""
    return {item["Key"]: item.get("Value", "") for item in items or ()}


def specifications(kinds: Sequence[str], tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """TagSpecifications that give things of these kinds the same tags."""
    return [{"ResourceType": kind, "Tags": listed(tags)} for kind in kinds]


def added(ours: list[dict[str, Any]], theirs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Our TagSpecifications with the tags of theirs added; ours win. Raises CallFailed for a tag
    that only we may give."""
    merged = {one["ResourceType"]: of(one["Tags"]) for one in ours}
    for one in theirs:
        tags = of(one.get("Tags"))
        if any(key.startswith(OWN) for key in tags):
            raise CallFailed("refused", "ReservedTag", f"tags that begin with {OWN} are ours")
        kind = one.get("ResourceType", "")
        merged[kind] = {**tags, **merged.get(kind, {})}
    return [{"ResourceType": kind, "Tags": listed(tags)} for kind, tags in merged.items()]
