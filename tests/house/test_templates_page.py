"""The reference of templates names every field that is read, and no other."""

from __future__ import annotations

import re

import pytest
from pydantic.alias_generators import to_camel

from infrastructure.templates.fields import PARTS, names
from infrastructure.templates.values import HEAVIEST
from infrastructure.templates.volumes import _LIMITS
from tests.house.reference import DOCS

PAGE = (DOCS / "templates.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
NOT_FIELDS = {"RunInstances", "EC2Fleet", "SpotFleet", "ASG", "type", "ncores", "ncpus", "nram"}
"""First columns of the other tables: APIs and attributes. Volume types are taken out too."""


def test_every_field_has_one_row() -> None:
    """What the reader knows is in the page, and the page has nothing that it does not know."""
    fields = [row for row in ROWS if row not in NOT_FIELDS and row not in _LIMITS]

    assert sorted(names()) == sorted(fields)


@pytest.mark.parametrize("field", PARTS)
def test_the_parts_of_objects_are_named(field: str) -> None:
    """What is in an object of ours is named with it."""
    if field == "accounts":
        text = PAGE.partition("\n## Accounts\n")[2].partition("\n## ")[0]
    else:
        text = re.search(rf"^\| `{field}` \|.*$", PAGE, re.M)[0]  # type: ignore[index]
    parts = [to_camel(name) for name in PARTS[field].model_fields]

    assert [part for part in parts if f"`{part}`" not in text] == []


def test_the_limits_of_volumes_are_named() -> None:
    """Sizes, iops and ratios of the page are those that are checked."""
    for kind, limits in _LIMITS.items():
        (row,) = [
            line for line in PAGE.splitlines() if re.match(rf"\| (`\w+`, )*`{kind}`.* to ", line)
        ]
        assert f"{limits.sizes[0]} to {limits.sizes[1]}" in row
        if limits.iops:
            assert f"{limits.iops[0]} to {limits.iops[1]}" in row
            assert f"{limits.per_gib} iops for each GiB" in row
    assert f"weight, 1 to {HEAVIEST}" in PAGE
