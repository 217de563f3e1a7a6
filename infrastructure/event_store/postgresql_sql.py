"""The shared statements, written in SQLite's dialect, as PostgreSQL takes them.

Few rules, because the statements keep to what both take. What a rule does not know goes through as
it is, and PostgreSQL then says so: every statement is run on both (test_postgresql_statements.py).
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_RULES = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"%", "%%"),
        (r" INDEXED BY \w+", ""),
        (
            r"json_each\(([?\w.]+)\) (\w+)",
            r"json_array_elements_text((\1)::json) WITH ORDINALITY AS \2 (value, key)",
        ),
        (r"json_extract\(([\w.]+), '\$\[(\d+)\]'\)", r"((\1)::json ->> \2)"),
        (r"json_extract\(([\w.]+), '\$\.(\w+)'\)", r"((\1)::json ->> '\2')"),
        (
            r"json_array_length\(([\w.]+), '\$\.(\w+)'\)",
            r"json_array_length((\1)::json -> '\2')",
        ),
        (r"json_object\(", "json_build_object("),
        (r"json\((CASE .*? END)\)", r"(\1)::json"),
        (
            r"strftime\('%%Y-%%m-%%dT%%H:%%M:%%SZ', ([\w.]+), 'unixepoch'\)",
            r"""to_char(to_timestamp(\1) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')""",
        ),
        (r"group_concat\((\w+)\)", r"string_agg(\1, ',')"),
        # A look is one snapshot, however many questions it asks; SQLite's is so by itself.
        (r"^BEGIN$", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
    )
]
_SCHEMA_RULES = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r" AUTOINCREMENT", ""),
        (r" WITHOUT ROWID", ""),
        # Compared byte by byte as in SQLite, whatever the database's language.
        (r"\bTEXT\b", 'text COLLATE "C"'),
        (r"\bINTEGER\b", "bigint"),
        (r"\bREAL\b", "double precision"),
        (r"\bBLOB\b", "bytea"),
    )
]
_PLACE = re.compile(r"\?(\d*)")

_translated: dict[str, tuple[str, list[int] | None]] = {}


def translate(statement: str) -> tuple[str, list[int] | None]:
    """The statement for psycopg2, and which parameters it takes in what order; None: as given."""
    known = _translated.get(statement)
    if known is None:
        text = statement
        for pattern, put in _RULES:
            text = pattern.sub(put, text)
        numbers = _PLACE.findall(text)
        order = [int(number) - 1 for number in numbers] if any(numbers) else None
        known = _translated[statement] = (_PLACE.sub("%s", text), order)
    return known


def values(parameters: Sequence[Any], order: list[int] | None) -> list[Any]:
    """The parameters in the statement's order. Truth is a number here, as SQLite has it."""
    if order is not None:
        parameters = [parameters[index] for index in order]
    return [int(value) if isinstance(value, bool) else value for value in parameters]


def schema(text: str) -> str:
    """SQLite's CREATE and ALTER statements as PostgreSQL's."""
    for pattern, put in _SCHEMA_RULES:
        text = pattern.sub(put, text)
    return text
