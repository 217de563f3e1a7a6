"""Timing statements and noting the slow ones: every way to ask SQLite, and a bounded log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.event_store.sqlite_timed import TimedConnection
from infrastructure.telemetry.journal import Journal
from infrastructure.telemetry.slow_statements import LONGEST, MOST, QUIET, SlowStatements


class Watch(SlowStatements):
    """One to which every statement is slow."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.path = path
        journal = Journal(str(path), {"level": "INFO", "max_file_size": 10, "max_rotate": 1})
        super().__init__(journal, long=0.0, seconds=lambda: self.now)

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    @property
    def said(self) -> list[str]:
        return [line["sql"] for line in self.lines]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path / "log")


ONE, MANY = "SELECT 1", "SELECT x FROM t"


def _fails(connection: Any) -> None:
    with pytest.raises(sqlite.DatabaseError):
        connection.execute("INSERT INTO t VALUES (?)", (1,))


def _twice(connection: Any) -> None:
    cursor = connection.cursor()
    assert cursor.execute(ONE).fetchone() == (1,)
    assert cursor.execute(MANY).fetchmany(2) == [(1,), (2,)]


WAYS: dict[str, tuple[Callable[[Any], object], list[str]]] = {
    "the first row alone": (lambda c: c.execute(ONE).fetchone(), [ONE]),
    "all rows": (lambda c: c.execute(MANY).fetchall(), [MANY]),
    "row by row": (lambda c: [row[0] for row in c.execute(MANY)], [MANY]),
    "no row": (lambda c: c.execute("DELETE FROM t WHERE x = 9"), ["DELETE FROM t WHERE x = 9"]),
    "many times": (
        lambda c: c.executemany("UPDATE t SET x = ?1 WHERE x = ?1", [(1,), (2,)]),
        ["UPDATE t SET x = ?1 WHERE x = ?1"],
    ),
    "a cursor for two": (_twice, [ONE, MANY]),
    "one that fails": (_fails, ["INSERT INTO t VALUES (?)"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_ask_is_timed_once(way: str, watch: Watch) -> None:
    """Each statement is noted when it is over, and the answers are as ever."""
    ask, said = WAYS[way]
    connection = TimedConnection(watch, ":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (x INTEGER UNIQUE)")
    connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
    before = len(watch.lines)
    ask(connection)
    assert watch.said[before:] == (said if way != "one that fails" else [])
    watch.now += QUIET
    ask(connection)
    assert watch.said[-1] == said[-1]
    assert all(line["duration"] >= 0 for line in watch.lines)
    connection.close()


LATE = (
    "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000) "
    "SELECT x FROM n WHERE x = 1 OR x = 1000000"
)
"""One row at once, and another after a million."""

FETCHES: dict[str, Callable[[Any], object]] = {
    "fetchall": lambda cursor: cursor.fetchall(),
    "fetchmany": lambda cursor: cursor.fetchmany(5),
    "fetchone": lambda cursor: (cursor.fetchone(), cursor.fetchone()),
    "next": lambda cursor: list(cursor),
}


@pytest.mark.parametrize("fetch", FETCHES)
def test_the_time_until_the_last_row_counts(fetch: str, watch: Watch) -> None:
    watch.long = 0.02
    connection = TimedConnection(watch, ":memory:")
    FETCHES[fetch](connection.execute(LATE))
    assert watch.said == [LATE]
    assert watch.lines[0]["duration"] >= 0.02


def test_a_quick_statement_is_not_noted(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "log"), {"level": "INFO", "max_file_size": 1, "max_rotate": 1})
    connection = TimedConnection(SlowStatements(journal, long=3600.0), ":memory:")
    assert connection.execute(ONE).fetchall() == [(1,)]
    assert not (tmp_path / "log").exists()


def test_the_same_statement_is_told_once_a_minute(watch: Watch) -> None:
    """With how often it was slow since, and for how long at most; others are told beside it."""
    watch.note(ONE, 0.5)
    for number in range(50):
        watch.note(ONE, 0.1 * number)
    watch.note(MANY, 0.2)
    assert [(line["sql"], line["count"]) for line in watch.lines] == [(ONE, 1), (MANY, 1)]
    watch.now += QUIET
    watch.note(ONE, 0.3)
    line = watch.lines[-1]
    assert (line["sql"], line["count"], line["duration"]) == (ONE, 51, 4.9)
    watch.now += QUIET
    watch.note(ONE, 0.3)
    assert (watch.lines[-1]["count"], watch.lines[-1]["duration"]) == (1, 0.3)


def test_what_is_kept_is_bounded(watch: Watch) -> None:
    """However many statements there are, and however long one is."""
    for number in range(10 * MOST):
        watch.note(f"SELECT {number}", 1.0)
    assert len(watch.lines) == 10 * MOST
    assert len(watch._noted) <= MOST
    watch.note("SELECT  1,\n" + "2," * LONGEST, 1.0)
    assert watch.said[-1].startswith("SELECT 1, 2,2,")
    assert len(watch.said[-1]) == LONGEST
