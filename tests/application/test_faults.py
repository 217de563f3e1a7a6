"""The table of fault rows, its page, its tests and the mutations say the same."""

from __future__ import annotations

import pytest

from tests import faults
from tests.mutations import MUTATIONS, ROOT, Mutation, changed, settings_without_effect


def test_fault_page_is_up_to_date() -> None:
    """docs/reference/faults.md is what the tables say (`python -m tests.faults` writes it)."""
    assert faults.PAGE.read_text() == faults.page()


def test_fault_rows_have_tests_and_mutations() -> None:
    """Every row has a test and a mutation, and none has another row."""
    numbers = [row.number for row in faults.ROWS]

    assert numbers == sorted(set(numbers))
    assert set(range(1, 41)) <= set(numbers)
    assert set(faults.row_tests()) == set(numbers)
    assert {int(mutation.row) for mutation in MUTATIONS if mutation.row} == set(numbers)


def test_fault_mutations_have_names_of_their_own() -> None:
    """A name is one mutation."""
    names = [mutation.name for mutation in MUTATIONS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "mutation", [*MUTATIONS, *settings_without_effect()], ids=lambda mutation: mutation.name
)
def test_fault_mutation_can_be_made(mutation: Mutation) -> None:
    """Its old text is in the product just once, and its tests are there."""
    text = (ROOT / mutation.file).read_text()

    assert changed(text, mutation) != text
    assert mutation.tests
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"\ndef {name.partition('[')[0]}(" in (ROOT / path).read_text()
