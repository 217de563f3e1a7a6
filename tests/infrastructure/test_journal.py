"""The log: JSON lines of enough weight, rotated by size, and never a reason to fail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from infrastructure.telemetry.journal import LEVELS, Journal


def journal(path: Path, **settings: Any) -> Journal:
    return Journal(str(path), {"level": "INFO", "max_file_size": 1, "max_rotate": 3, **settings})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_entry_is_one_json_object_on_a_line(tmp_path: Path) -> None:
    """Time, level, process, what, and the facts; text of any kind stays one line."""
    path = tmp_path / "hostledger.log"
    log = journal(path)
    log.info("lease taken", fence=3, owner="Zürich\n東京")
    log.error("broken", text="lone \ud800 surrogate")
    first, second = lines(path)
    at = first.pop("at")
    assert at.endswith("Z")
    assert "T" in at
    assert first == {
        "level": "INFO",
        "pid": os.getpid(),
        "what": "lease taken",
        "fence": 3,
        "owner": "Zürich\n東京",
    }
    assert second["level"] == "ERROR"


def test_lighter_entries_are_left_out(tmp_path: Path) -> None:
    """Of every level what is at least as heavy is kept."""
    for index, level in enumerate(LEVELS):
        path = tmp_path / level
        log = journal(path, level=level)
        for other in LEVELS:
            log.write(other, "x")
        assert [entry["level"] for entry in lines(path)] == list(LEVELS[index:])


def test_the_named_levels(tmp_path: Path) -> None:
    """Each method writes its own level."""
    log = journal(tmp_path / "log", level="DEBUG")
    log.debug("x")
    log.info("x")
    log.warn("x")
    log.error("x")
    assert [entry["level"] for entry in lines(tmp_path / "log")] == [
        "DEBUG",
        "INFO",
        "WARN",
        "ERROR",
    ]


def test_a_full_file_is_rotated(tmp_path: Path) -> None:
    """Old files are numbered from 1, the oldest is dropped, no entry between is lost."""
    path = tmp_path / "log"
    log = journal(path, max_file_size=0.001, max_rotate=3)
    for number in range(40):
        log.info("x" * 200, number=number)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2", "log.3"]
    kept = [
        entry["number"]
        for name in ("log.3", "log.2", "log.1", "log")
        for entry in lines(tmp_path / name)
    ]
    assert kept == list(range(kept[0], 40))
    assert all((tmp_path / name).stat().st_size <= 1000 for name in os.listdir(tmp_path))


def test_no_rotation_when_none_is_wanted(tmp_path: Path) -> None:
    """With max_rotate 0 there is one file."""
    log = journal(tmp_path / "log", max_file_size=0.001, max_rotate=0)
    for _ in range(20):
        log.info("x" * 200)
    assert os.listdir(tmp_path) == ["log"]


def test_a_log_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    """No directory, a directory in its place, a file where its directory should be, no path."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "log", tmp_path, tmp_path / "file" / "log"):
        journal(path).error("x")
    Journal("", {"level": "INFO", "max_file_size": 1, "max_rotate": 3}).error("x")
    assert os.listdir(tmp_path) == ["file"]


def test_its_lines_are_read_again(tmp_path: Path) -> None:
    """Those of one kind, from a time on, through the old files too, in their order; a torn one is
    passed over."""
    path = tmp_path / "log"
    log = journal(path, max_file_size=0.001, max_rotate=3)
    for number in range(20):
        log.info("kept", number=number, text="x" * 100)
        log.info("other", number=number, text='"what":"kept"')
    with path.open("ab") as file:
        file.write(b'{"at":"9","what":"kept","numb\n\xff\n')
    found = [line["number"] for line in log.lines("kept", "")]
    assert found == list(range(found[0], 20))
    assert len(found) > 9
    assert [line["number"] for line in log.lines("other", "")][-1] == 19
    assert list(log.lines("kept", "2999-01-01T00:00:00.000000Z")) == []
    at = [line["at"] for line in log.lines("kept", "")]
    assert len(list(log.lines("kept", at[-1]))) == at.count(at[-1])
    assert list(journal(tmp_path / "none").lines("kept", "")) == []


def test_others_cannot_read_it(tmp_path: Path) -> None:
    """Mode 0640 at most."""
    journal(tmp_path / "log").info("x")
    assert (tmp_path / "log").stat().st_mode & 0o137 == 0
