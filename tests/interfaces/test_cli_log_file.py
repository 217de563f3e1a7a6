"""`hostledger audit export | import`: the log as a file, and a store from it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from application.failures import StoreError
from application.projections.record import COLUMNS
from infrastructure.event_store.commit import compose
from infrastructure.event_store.export_file import EXPORT, ExportFile, Manifest, write_export
from tests.domain.test_golden import FILES, read
from tests.fakes.clock import FakeClock
from tests.house.reference import DOCS
from tests.interfaces.commands import Run, fulfilled, refused
from tests.stores import FOUR, Place
from tests.world import World

EVERY_STORE = FOUR


def log_of(world: World) -> list[tuple[Any, ...]]:
    with closing(world.storage().any_store()) as view:
        return [tuple(event[c] for c in COLUMNS) for event in view.events_after(0, 100_000)]


def other_place(kind: str, new_place: Callable[[str], Place], path: Path) -> Place:
    """Where no store is; those without a server need another directory for that."""
    if kind in ("sqlite", "json"):
        return Place(kind, {"url": f"{kind}:{path}/other/ledger.db"})
    return new_place(kind)


def at_new_place(world: World, place: Place) -> None:
    world.place = place
    world.environ |= place.variables()


@pytest.fixture(scope="module")
def valid() -> Callable[[dict[str, Any]], Any]:
    return fastjsonschema.compile(  # type: ignore[no-any-return]
        json.loads((DOCS / "events.schema.json").read_text())
    )


def test_a_store_is_made_of_an_export(
    world: World,
    run: Run,
    make_run: Callable[[World], Run],
    new_place: Callable[[str], Place],
    store_kind: str,
    valid: Callable[[Any], Any],
    tmp_path: Path,
) -> None:
    """Byte for byte the same log; inert; commands that were answered stay answered."""
    request_id, _ = fulfilled(world, 2)
    world.leave_nothing()
    file = tmp_path / "log.jsonl.gz"
    told = run("audit", "export", str(file), "--output", "json").document
    assert file.stat().st_mode & 0o777 == 0o600
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    for line in lines:
        valid(json.loads(line))
    before = log_of(world)
    assert told["events"] == len(before) == sum('"digest":' in line for line in lines)
    with closing(world.storage().any_store()) as view:
        beside = view.commands_after("", 1000), view.tracked()
    at_new_place(world, other_place(store_kind, new_place, tmp_path))
    run = make_run(world)

    answer = run("audit", "import", str(file), "--output", "json")

    assert answer.status == 0, answer.err
    assert "store activate" in answer.err
    assert answer.document["chain"] == told["chain"]
    refused(run("requests", "list"), "store activate")
    assert run("store", "activate", "--reason", "a drill").status == 0
    assert log_of(world)[:-1] == before
    with closing(world.storage().any_store()) as view:
        assert (view.commands_after("", 1000), view.tracked()) == beside
    assert beside[0]
    assert run("requests", "show", request_id, "--output", "json").document["machine_count"] == 2


@pytest.mark.stores("sqlite")
def test_a_part_of_the_log(world: World, run: Run, tmp_path: Path) -> None:
    """What was recorded in a time, to read; no store is made of it."""
    fulfilled(world, 1)
    everything = run("audit", "export").out.splitlines()
    events = [json.loads(line) for line in everything if '"digest":' in line]
    since, until = events[5]["recorded_at"], events[-2]["recorded_at"]
    file = tmp_path / "part.jsonl"
    told = run("audit", "export", str(file), "--since", since, "--until", until, "--output", "json")
    wanted = [e for e in events if since <= e["recorded_at"] <= until]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[1:-1] == wanted
    assert told.document["first"] == wanted[0]["position"]
    assert "a whole log" in run("audit", "import", str(file)).err
    refused(run("audit", "export", str(file)), str(file), "exists")
    assert run("audit", "export", "--since", "yesterday").status == 2
    none = run("audit", "export", str(tmp_path / "none"), "--since", "2999-01-01")
    assert none.status == 0


def _cut(lines: list[str]) -> list[str]:
    return lines[:-3]


def _half_a_line(lines: list[str]) -> list[str]:
    return [*lines[:4], lines[4][:40]]


def _changed(lines: list[str]) -> list[str]:
    return [line.replace('"provider":"awsinst"', '"provider":"awsinsT"', 1) for line in lines]


def _without_an_event(lines: list[str]) -> list[str]:
    return lines[:5] + lines[6:]


def _other_answer(lines: list[str]) -> list[str]:
    return [line.replace('"commands":[["', '"commands":[["x') for line in lines]


def _without_answers(lines: list[str]) -> list[str]:
    return [line for line in lines if '"commands":' not in line]


def _not_json(lines: list[str]) -> list[str]:
    return [*lines[:2], "{", *lines[3:]]


def _headless(lines: list[str]) -> list[str]:
    return lines[1:]


def _goes_on(lines: list[str]) -> list[str]:
    return [*lines, lines[-2]]


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, ("cut off",)),
        (_half_a_line, ("line 5", "cut off")),
        (_changed, ("line 3", "event 2 was changed")),
        (_without_an_event, ("line 6", "event 6 comes after event 4")),
        (_other_answer, ("checksum",)),
        (_without_answers, ("tells of",)),
        (_not_json, ("line 3", "not JSON")),
        (_headless, ("line 1", "what the file is")),
        (_goes_on, ("follows the line that ends",)),
    ],
)
def test_a_damaged_export_is_refused(
    world: World,
    run: Run,
    make_run: Callable[[World], Run],
    tmp_path: Path,
    damage: Callable[[list[str]], list[str]],
    words: tuple[str, ...],
) -> None:
    """The line and the cause are named, and nothing is made, not even an empty store."""
    fulfilled(world, 1)
    lines = run("audit", "export").out.splitlines()
    file = tmp_path / "log.jsonl"
    damaged = "\n".join(damage(lines))
    file.write_text(damaged if damage is _half_a_line else damaged + "\n")
    place = tmp_path / "new" / "ledger.db"
    at_new_place(world, Place("sqlite", {"url": f"sqlite:{place}"}))
    refused(make_run(world)("audit", "import", str(file)), str(file), *words)
    assert not place.exists()


@pytest.mark.stores("sqlite")
def test_a_cut_archive_and_an_unknown_event(
    world: World, run: Run, make_run: Callable[[World], Run], tmp_path: Path
) -> None:
    """A compressed file without its end, and an event of a newer release: both by name."""
    fulfilled(world, 1)
    file = tmp_path / "log.jsonl.gz"
    assert run("audit", "export", str(file)).status == 0
    whole = file.read_bytes()
    at_new_place(world, Place("sqlite", {"url": f"sqlite:{tmp_path}/new/ledger.db"}))
    run = make_run(world)
    file.write_bytes(whole[: len(whole) // 2])
    refused(run("audit", "import", str(file)), str(file), "cannot be unpacked")
    other = tmp_path / "other.jsonl"
    clock = FakeClock()
    pending = [
        ("deployment", 1, "DeploymentCreated", 1, '{"deployment":"d"}', None),
        ("request-req-1", 1, "MachinesRequested", 9, "{}", None),
    ]
    rows, _ = compose(pending, (0, "d", ""), clock.now(), {"user": "t"}, ("c", ""), {})
    events = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    write_export(str(other), Manifest(EXPORT, True, "d", 1, 2, 2, "d", rows[-1][10]), events)
    refused(run("audit", "import", str(other)), "MachinesRequested of class version 9", "newer")


@pytest.mark.stores("sqlite")
def test_a_changed_byte_is_always_found(world: World, run: Run, tmp_path: Path) -> None:
    """Wherever it is: no import begins."""
    fulfilled(world, 1)
    whole = bytearray(run("audit", "export").out.encode())
    file = tmp_path / "log.jsonl"
    for at in range(0, len(whole), 11):
        whole[at] ^= 1
        file.write_bytes(whole)
        with pytest.raises(StoreError, match=str(file)):
            ExportFile(str(file)).check()
        whole[at] ^= 1
    file.write_bytes(whole)
    ExportFile(str(file)).check()


@pytest.mark.stores("sqlite")
def test_the_schema_takes_every_event_ever_stored_and_nothing_else(
    valid: Callable[[Any], Any], tmp_path: Path
) -> None:
    """The golden events as an export has them; a field more, less or of another type is refused."""
    forms = [read(path) for path in FILES]
    pending = [
        (f["stream"], f["version"], f["topic"], f["class_version"], f["data"], None) for f in forms
    ]
    actor = {"user": "t", "provider": "awsinst", "process": "p"}
    rows, _ = compose(pending, (0, "d", ""), FakeClock().now(), actor, ("cmd-1", ""), {})
    file = tmp_path / "golden.jsonl"
    events = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    last = len(rows)
    write_export(str(file), Manifest(EXPORT, True, "d", 1, last, last, "d", rows[-1][10]), events)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["topic"] for line in lines[1:-1]] == [form["topic"] for form in forms]
    for line in lines:
        valid(line)
    for line in lines[1:-1]:
        data = line["data"]
        for wrong in ({**data, "more": 1}, dict(list(data.items())[1:]) if data else {"x": 1}):
            with pytest.raises(fastjsonschema.JsonSchemaException):
                valid({**line, "data": wrong})
    with pytest.raises(fastjsonschema.JsonSchemaException):
        valid({**lines[1], "topic": "MachinesBegged"})
