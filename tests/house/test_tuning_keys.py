"""Every key that was asked for has a test of its effect, and docs/reference/tuning-keys.md says
which."""

from __future__ import annotations

import ast
import json
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
    """The page's table, without its head."""
    lines = (DOCS / "tuning-keys.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
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
    file, _, name = row.test.partition("::")
    assert name in functions(TESTS / file)
