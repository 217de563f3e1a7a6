"""The documentation says what the code does, and the project keeps its own house rules."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from infrastructure.configuration import read_settings
from infrastructure.configuration_keys import KEYS, Key, described, environment_name
from infrastructure.settings import Settings
from tests.house.reference import DOCS, PAGES

ROOT = Path(__file__).resolve().parents[2]
PROSE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES)
def test_the_generated_reference_is_current(page: str) -> None:
    """docs/reference says what the code says; `make docs` writes it anew."""
    assert (DOCS / page).read_text() == PAGES[page]()


@pytest.mark.parametrize("key", list(map(described, KEYS)), ids=lambda key: key.name)
def test_the_configuration_page_names_what_is_read(key: Key) -> None:
    """The variable beside a key is accepted with the key's default, and a remark says more."""
    rows = [line.split(" | ") for line in (DOCS / "configuration.md").read_text().splitlines()]
    ((_, _, variable, remark),) = [row for row in rows if row[0] == f"| `{key.name}`"]

    settings, _ = read_settings(None, None, {variable.strip("`"): key.as_text})

    assert settings == Settings()
    assert key.remark
    assert remark.startswith(key.remark)


def test_every_variable_of_the_docs_is_one() -> None:
    """A HOSTLEDGER_SECTION__KEY that any page names is accepted."""
    known = {environment_name(key) for key in KEYS}
    named = {v for p in PROSE for v in re.findall(r"HOSTLEDGER_\w+__\w+", p.read_text())}

    assert named - known == set()


@pytest.mark.parametrize("page", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_make_target_named_in_the_docs_exists() -> None:
    """A command that the docs tell to run can be run."""
    makefile = (ROOT / "Makefile").read_text()
    named = {t for p in PROSE for t in re.findall(r"`make ([a-z]+)", p.read_text())}

    assert {t for t in named if not re.search(rf"^{t}:", makefile, re.M)} == set()


def test_every_script_is_executable_and_plain_sh() -> None:
    """HostFactory executes them as they are."""
    scripts = sorted((ROOT / "interfaces/hostfactory/scripts").glob("*.sh"))

    assert len(scripts) == 5
    for script in scripts:
        assert script.read_text().startswith("#!/bin/sh\n")
        assert script.stat().st_mode & 0o111 == 0o111


def test_no_test_is_skipped_and_nothing_is_patched() -> None:
    """Tests run everywhere and use the real thing or a fake that keeps the contract."""
    forbidden = re.compile(
        r"pytest\.(skip|xfail)|mark\.(skip|xfail)|unittest\.mock|MagicMock|monkeypatch\.setattr"
    )
    listed = subprocess.run(
        ["git", "ls-files", "tests"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    offenders = [
        name
        for name in listed
        if name.endswith(".py")
        and name != "tests/house/test_docs.py"
        and (ROOT / name).exists()
        and forbidden.search((ROOT / name).read_text())
    ]

    assert offenders == []


def test_no_assert_keeps_anything_safe() -> None:
    """`python -O` takes them out: in the product one may only tell the type checker what is known
    already, that something is not None or of a class."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for package in ("domain", "application", "infrastructure", "interfaces")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert) and not _narrows(node.test)
    ]

    assert found == []


def _narrows(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return all(_narrows(part) for part in test.values)
    shape = ast.unparse(test)
    return bool(re.fullmatch(r"[\w.]+ is not None|isinstance\(\w+, \w+\)", shape))
