"""Tamper evidence: whatever is changed in a log is found, and where; what is sound is said too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from application.projections.record import COLUMNS
from domain.machine_request import MachineRequest
from infrastructure.event_store.dynamodb_client import LOG
from infrastructure.event_store.dynamodb_log import commit_items, commit_key, stream_key
from infrastructure.event_store.verification import verify
from tests.fakes.clock import FakeClock
from tests.stores import FOUR, Place
from tests.tampering import Row, rehashed, rewrite, rows_of

if TYPE_CHECKING:
    from infrastructure.storage import Storage

EVERY_STORE = FOUR

ACTOR = {"user": "test", "provider": "awsinst", "process": "contract"}

EVENTS = 9


def fill(storage: Storage, clock: FakeClock) -> None:
    """Nine events on four streams: alone, several in a commit, with text of the whole world."""
    storage.create(clock, ACTOR, "0.1.0")
    with closing(storage.event_store(clock, ACTOR)) as store:
        for name in ("a", "b", "ü"):
            request = MachineRequest.ask(
                f"req-{name}", "awsinst", f"T{name}", "4f53", 2, 300.0, "hostfactory"
            )
            store.save(request, correlation_id=f"cmd-{name}")
            clock.advance(1.0)
        requests = [store.get(MachineRequest, f"req-{name}") for name in ("a", "b")]
        for number, request in enumerate(requests):
            request.assign(f"bat-{number}", {f"i-{number}": 1})
        store.save(*requests)
        for number, request in enumerate(requests):
            request.finish(1, f"“{number}” is missing")
        store.save(*requests)
        requests[0].assign("bat-9", {"i-9": 1})
        store.save(requests[0])


@pytest.fixture
def storage(
    store_kind: str, new_place: Callable[[str], Place], tmp_path: Any, clock: FakeClock
) -> Storage:
    storage = new_place(store_kind).storage(str(tmp_path))
    fill(storage, clock)
    return storage


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def verified(storage: Storage, **checkpoints: Any) -> dict[str, Any]:
    with closing(storage.raw_log()) as log:
        return verify(log, checkpoints)


def found(storage: Storage) -> tuple[list[int | None], list[list[int]]]:
    """The positions of what was found, in order, and what is sound."""
    document = verified(storage)
    return [finding["position"] for finding in document["findings"]], document["sound"]


def test_a_log_that_was_left_alone_is_sound(storage: Storage) -> None:
    """Every event, and what is derived and read in its place."""
    document = verified(storage)

    assert (document["events"], document["position"]) == (EVENTS, EVENTS)
    assert document["sound"] == [[1, EVENTS]]
    assert document["findings"] == []
    assert document["chain"] == rows_of(storage)[-1][10]
    assert all(copy["findings"] == [] for copy in document["copies"])


@pytest.mark.stores("sqlite", "json")
@pytest.mark.parametrize("column", COLUMNS[1:])
def test_a_changed_event_is_found_and_nothing_else(storage: Storage, column: str) -> None:
    """In whatever column: the event is named, those around it stay sound."""
    rows = rows_of(storage)
    index = COLUMNS.index(column)
    value = rows[4][index]
    changed = value + 3 if isinstance(value, int) else value[:-1] + chr(ord(value[-1]) ^ 1)
    rows[4] = (*rows[4][:index], changed, *rows[4][index + 1 :])
    rewrite(storage, rows)

    positions, sound = found(storage)

    assert positions[0] == 5
    assert sound[0] == [1, 4]
    assert sound[-1] == [6, EVENTS]


def test_a_removed_event_is_found(storage: Storage) -> None:
    """What is missing is named, and what follows it is sound among itself."""
    rows = rows_of(storage)
    rewrite(storage, rows[:4] + rows[5:])

    document = verified(storage)

    assert document["findings"][0]["position"] == 5
    assert "event 5 is missing" in document["findings"][0]["what"]
    assert document["sound"] == [[1, 4], [6, EVENTS]]


def test_a_removed_event_is_found_though_positions_were_given_anew(storage: Storage) -> None:
    rows = rows_of(storage)
    rewrite(storage, rows[:4] + [(row[0] - 1, *row[1:]) for row in rows[5:]])

    positions, sound = found(storage)

    assert positions[0] == 5
    assert sound == [[1, 4]]


def test_an_inserted_event_is_found(storage: Storage) -> None:
    """One that would read as any other, with digest and chain of its own."""
    rows = rows_of(storage)
    forged = (5, "f" * 32, "request-req-x", 1, *rows[3][4:])
    later = [(row[0] + 1, *row[1:]) for row in rows[4:]]
    rows = [*rehashed([*rows[:4], forged], verified(storage)["deployment"]), *later]
    rewrite(storage, rows)

    positions, sound = found(storage)

    assert positions[0] == 6
    assert sound[0] == [1, 5]


@pytest.mark.stores("sqlite", "postgresql", "dynamodb")
def test_an_event_before_the_first_is_found(storage: Storage) -> None:
    """A position that no event ever had hides nothing."""
    rows = rows_of(storage)
    rewrite(storage, [(0, "f" * 32, "request-req-x", 1, *rows[1][4:]), *rows])

    assert found(storage)[0][0] == 0


def test_swapped_events_are_found(storage: Storage) -> None:
    rows = rows_of(storage)
    rows[4], rows[5] = (5, *rows[5][1:]), (6, *rows[4][1:])
    rewrite(storage, rows)

    positions, sound = found(storage)

    assert positions[0] == 5
    assert sound[0] == [1, 4]


def test_a_cut_end_is_found(storage: Storage) -> None:
    """Every store notes beside the log how far it was."""
    rewrite(storage, rows_of(storage)[:-2])

    document = verified(storage)

    assert [finding["position"] for finding in document["findings"]] == [EVENTS]
    assert "its end was cut off" in document["findings"][0]["what"]
    assert document["sound"] == [[1, EVENTS - 2]]


def test_a_stream_that_lacks_a_version_is_found_in_a_forged_chain(storage: Storage) -> None:
    """Who takes an event out and makes every later hash anew leaves a gap in its stream."""
    deployment = verified(storage)["deployment"]
    rows = rows_of(storage)
    rewrite(storage, rehashed(rows[:4] + rows[5:], deployment))

    first = verified(storage)["findings"][0]

    assert first["stream"] == "request-req-a"
    assert "version 2 of its stream is missing" in first["what"]


def test_who_makes_the_whole_chain_anew_is_found_by_what_was_kept(storage: Storage) -> None:
    """The chain at a position that was noted elsewhere no longer fits."""
    document = verified(storage)
    kept = {6: {rows_of(storage)[5][10]: "the checkpoint of 08:00"}}
    rows = rows_of(storage)
    rows[2] = (*rows[2][:8], rows[2][8].replace("300.0", "900.0"), *rows[2][9:])
    rewrite(storage, rehashed(rows, document["deployment"]))

    with closing(storage.raw_log()) as log:
        findings = verify(log, kept)["findings"]

    assert findings[0]["position"] == 6
    assert "the checkpoint of 08:00 has another chain here" in findings[0]["what"]


def files(directory: Path) -> dict[Path, bytes]:
    """What is in each file, but for those by which readers of SQLite agree."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {p: p.read_bytes() for p in found if not p.name.endswith(("-shm", "-wal"))}


def test_verifying_changes_nothing(storage: Storage, tmp_path: Path) -> None:
    """A damaged log stays as it is: nothing is mended unasked."""
    rows = rows_of(storage)
    rewrite(storage, rows[:4] + rows[5:])
    before = files(tmp_path)

    first, second = verified(storage), verified(storage)

    assert first == second
    assert files(tmp_path) == before


@pytest.mark.stores("sqlite", "postgresql")
def test_content_is_without_record_only_in_an_archive(storage: Storage) -> None:
    """What was archived leaves position, digest and chain, as an event says; else it was taken
    out."""
    deployment = verified(storage)["deployment"]
    rows = rows_of(storage)
    said = ("a" * 32, "archive-1", 1, "ArchiveIntended", 1, rows[-1][6], "{}", '{"events":2}')
    rows = rehashed([*rows, (0, *said)], deployment)
    for index in (2, 4):
        rows[index] = (*rows[index][:4], "", *rows[index][5:7], "", "", *rows[index][9:])
    rewrite(storage, rows)

    document = verified(storage)
    rows[6] = (*rows[6][:4], "", *rows[6][5:7], "", "", *rows[6][9:])
    rewrite(storage, rows)
    (finding,) = verified(storage)["findings"]

    assert (document["findings"], document["archived"]) == ([], 2)
    assert finding["position"] == 3
    assert finding["what"].startswith("3 events from this one on are without content, and 2 are")


# -- any byte -------------------------------------------------------------------------------------


def fuzzed(value: Any, at: int, by: int) -> Any:
    """A value with one of its bytes changed."""
    if isinstance(value, int):
        return value ^ by
    data = bytearray(value.encode())
    data[at % len(data)] ^= by
    return bytes(data)


@pytest.fixture(scope="module")
def sqlite_storage(tmp_path_factory: pytest.TempPathFactory) -> Any:
    storage = Place("sqlite", {}).storage(str(tmp_path_factory.mktemp("fuzz")))
    fill(storage, FakeClock())
    return storage


BYTES = (
    st.integers(1, EVENTS),
    st.sampled_from(COLUMNS),
    st.integers(0, 1000),
    st.integers(1, 255),
)


@given(*BYTES)
def test_a_fuzzed_byte_of_any_column_is_found(
    sqlite_storage: Any, position: int, column: str, at: int, by: int
) -> None:
    """Whatever it is, and though it is no text any more; put right again, all is sound."""
    with closing(sqlite3.connect(sqlite_storage.path)) as connection:
        (value,) = connection.execute(
            f"SELECT {column} FROM events WHERE position = ?", (position,)
        ).fetchone()
        put = f"UPDATE events SET {column} = {{}} WHERE event_id = ?"
        key = f"SELECT event_id, rowid FROM events WHERE position = {position}"
        event_id, _ = connection.execute(key).fetchone()
        changed = fuzzed(value, at, by)
        where = changed if column == "event_id" else event_id
        try:
            with connection:
                kind = "?" if isinstance(value, int) else "CAST(? AS TEXT)"
                connection.execute(put.format(kind), (changed, event_id))
        except sqlite3.IntegrityError:
            assume(False)  # the store itself refuses it

        positions, _ = found(sqlite_storage)

        with connection:
            last = "event_id = CAST(? AS TEXT)" if column == "event_id" else "event_id = ?"
            connection.execute(f"UPDATE events SET {column} = ? WHERE {last}", (value, where))
    assert positions, (column, value, changed)
    assert position in positions or column == "position"
    assert found(sqlite_storage) == ([], [[1, EVENTS]])


@pytest.fixture(scope="module")
def json_storage(tmp_path_factory: pytest.TempPathFactory) -> Any:
    storage = Place("json", {"strategy": "json"}).storage(str(tmp_path_factory.mktemp("lines")))
    fill(storage, FakeClock())
    return storage


@given(st.integers(0, 100_000), st.integers(1, 255))
def test_a_fuzzed_byte_of_a_line_is_found(json_storage: Any, at: int, by: int) -> None:
    """Any byte of the file, the checksum's and the line feeds too."""
    path = Path(json_storage.path, "log.jsonl")
    whole = path.read_bytes()
    data = bytearray(whole)
    data[at % len(data)] ^= by
    path.write_bytes(data)

    positions, _ = found(json_storage)

    path.write_bytes(whole)
    assert positions
    assert found(json_storage) == ([], [[1, EVENTS]])


@pytest.mark.stores("postgresql", "dynamodb")
@pytest.mark.parametrize("column", ["class_version", "data", "chain"])
def test_fuzzed_bytes_are_found_in_a_served_store(storage: Storage, column: str) -> None:
    index = COLUMNS.index(column)
    rows: list[Row] = rows_of(storage)
    value = fuzzed(rows[6][index], 7, 2)
    changed = value.decode() if isinstance(value, bytes) else value
    rows[6] = (*rows[6][:index], changed, *rows[6][index + 1 :])
    rewrite(storage, rows)

    assert found(storage)[0][0] == 7


# -- what only one store has ----------------------------------------------------------------------


@pytest.mark.stores("dynamodb")
def test_both_items_of_an_event_are_compared(storage: Any) -> None:
    """A stream's item is what commands decide on, the log's what readers follow."""
    tables = storage._tables()
    where = (stream_key("request-req-b"), commit_key(1))
    (item,) = tables.get_all([(LOG, *where)])
    text = item["events"]["S"]
    tables.put_all([(LOG, {**item, "events": {"S": text.replace("300.0", "900.0")}})])

    findings = verified(storage)["findings"]

    assert [finding["position"] for finding in findings] == [3]
    assert "do not say the same" in findings[0]["what"]
    tables.delete_all([(LOG, *where)])
    assert "missing or unreadable" in verified(storage)["findings"][0]["what"]


@pytest.mark.stores("dynamodb")
def test_an_item_that_no_commit_names_is_found(storage: Any) -> None:
    """It would be read as the next event of its stream, or of the log."""
    tables = storage._tables()
    row = (EVENTS + 1, "f" * 32, "request-req-b", 4, *rows_of(storage)[-1][4:])
    tables.put_all([(LOG, item) for item in commit_items(tables, [row])])

    findings = verified(storage)["findings"]

    assert [finding["position"] for finding in findings] == [EVENTS + 1] * 2
    assert all("in no commit of the log" in finding["what"] for finding in findings)


@pytest.mark.stores("json", "dynamodb")
def test_what_is_read_in_the_logs_place_is_verified_too(storage: Any) -> None:
    """A ledger or mirror that was changed answers other than the log."""
    with closing(storage.log()):
        pass
    (path,) = Path(storage.site.state_dir).rglob("*.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET topic = 'RequestFailed' WHERE position = 5")

    document = verified(storage)

    assert document["findings"] == []
    assert [finding["position"] for finding in document["copies"][0]["findings"]] == [5]


@pytest.mark.stores("sqlite")
def test_an_event_that_cannot_be_read_is_passed(storage: Any) -> None:
    """Text that is none any more is told with its position, and what follows is looked at."""
    with closing(sqlite3.connect(storage.path)) as connection, connection:
        connection.execute("UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE position = 4")

    document = verified(storage)

    assert [finding["position"] for finding in document["findings"]] == [4]
    assert "cannot be read" in document["findings"][0]["what"]
    assert document["sound"] == [[1, 3], [5, EVENTS]]
