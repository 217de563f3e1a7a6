"""Every key that was asked for has a test of its effect, every section of the guide what stands for
it, and docs/reference/tuning-keys.md says which."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from infrastructure.configuration import strip_comments
from infrastructure.configuration_keys import described
from tests.house.reference import DOCS
from tests.infrastructure.test_settings import leaves

TESTS = Path(__file__).resolve().parents[1]


class Row(NamedTuple):
    key: str
    effect: str
    default: str
    test: str


def rows() -> list[Row]:
    """The page's table of keys, without its head."""
    keys, _, _ = (DOCS / "tuning-keys.md").read_text().partition("## Its sections")
    cells = [line.strip("| ").split(" | ") for line in keys.splitlines() if line.startswith("| `")]
    return [
        Row(key.strip("`"), effect, default, test.strip("`"))
        for key, effect, default, test in cells
    ]


@cache
def functions(path: Path) -> set[str]:
    return {
        node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    }


def test_every_key_has_one_row() -> None:
    """In the order in which the settings were asked for or any other."""
    asked = [
        key
        for path in (TESTS / "fixtures" / "requirements").iterdir()
        for key in leaves(json.loads(strip_comments(path.read_text())))
    ]

    assert sorted(row.key for row in rows()) == sorted({*asked})


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.key)
def test_each_row_is_true(row: Row) -> None:
    """The key has this default, and the test is there."""
    assert (described(row.key).as_text or "none") == row.default
    assert_is_there(row.test)


def test_each_section_names_tests_that_are_there() -> None:
    """Of what stands for it."""
    _, _, rest = (DOCS / "tuning-keys.md").read_text().partition("## Its sections")
    sections, _, _ = rest.partition("## Its commands")
    named = re.findall(r"`([a-z_/]+\.py::\w+)`", sections)

    assert len(named) == len([line for line in sections.splitlines() if "|" in line]) - 2
    for test in named:
        assert_is_there(test)


def assert_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in functions(TESTS / file)
