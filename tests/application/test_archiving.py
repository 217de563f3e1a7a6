"""What is over leaves the live store for a file, whole streams, and the chain still closes."""

from __future__ import annotations

import gzip
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from application import crash_points
from application.archive_store import ArchiveStore, archive_store
from application.failures import Conflict, EventsArchivedAway, LogDamaged
from application.projections.record import COLUMNS
from domain.machine_request import MachineRequest
from infrastructure.event_store import archives
from infrastructure.event_store.archives import Archives, streams_in
from infrastructure.event_store.commit import is_damaged
from infrastructure.event_store.digest import chain, digest
from infrastructure.event_store.export_file import ExportFile, write_export
from infrastructure.read_models.past import Snapshots
from tests.application.test_policies_returning import ids, launch_apart
from tests.interfaces.commands import Answer, Run, fulfilled, refused
from tests.interfaces.conftest import make_run, run
from tests.stores import FOUR, Place
from tests.world import World

__all__ = ["make_run", "run"]

EVERY_STORE = FOUR
ARCHIVING = ("sqlite", "postgresql")
LATER = "2999-01-01"

Rows = list[dict[str, Any]]


def cycle(world: World, count: int = 2) -> str:
    """A request that was fulfilled and whose machines were returned and are gone."""
    request_id, machine_ids = fulfilled(world, count)
    hosts = [{"machineId": machine_id, "name": ""} for machine_id in machine_ids]
    world.run_until_final(world.give_back(hosts))
    world.run(60)
    return request_id


def rows(world: World, *files: Path) -> Rows:
    """Every event, with what these files have of it."""
    with closing(world.storage().any_store()) as view:
        if files:
            view.archives = Archives([str(path) for path in files], view.identity()[0])
        return view.events_after(0, 100_000)


def left(world: World) -> Rows:
    """The events as the store has them, what was taken out with nothing but its frame."""
    with closing(world.storage().any_store()) as view:
        return view._rows("SELECT * FROM events ORDER BY position")


def archive(run: Run, file: Path, *words: str) -> Answer:
    return run("store", "archive", "--to", str(file), "--reason", "old", "--output", "json", *words)


def assert_chain_closes(world: World) -> None:
    events = left(world)
    before = world.deployment
    for position, event in enumerate(events, 1):
        assert event["position"] == position
        assert chain(before, position, event["digest"]) == event["chain"]
        if event["topic"]:
            assert not is_damaged([event[column] for column in COLUMNS], before)
        before = event["chain"]


@pytest.mark.stores(*ARCHIVING)
def test_what_is_over_leaves_the_store(world: World, run: Run, tmp_path: Path) -> None:
    """The file has it whole; the store its position, digest and chain; read rows, answers and new
    work are as before."""
    over = cycle(world)
    alive, machine_ids = fulfilled(world, 1)
    before = rows(world)
    answer = world.call("getRequestStatus", {"requests": [{"requestId": over}]})
    shown = run("machines", "list", "--output", "json").document
    as_of = ("--as-of", str(before[-1]["position"]), "--output", "json")
    questions = [
        ("requests", "show", over, *as_of),
        ("requests", "show", alive, *as_of),
        ("machines", "show", machine_ids[0], *as_of),
        ("machines", "list", *as_of),
    ]
    was = [run(*words).document for words in questions]
    told = run("audit", "history", alive, "--related", "--output", "json").document["events"]
    related_before = [event["position"] for event in told]
    file = tmp_path / "old.jsonl.gz"

    done = archive(run, file, "--before", LATER)

    assert done.status == 0, done.err
    taken = [row for row in left(world) if not row["topic"]]
    streams = {row["stream"] for row in taken}
    assert f"request-{over}" in streams
    assert {stream.partition("-")[0] for stream in streams} == {
        "request", "return", "batch", "termination", "machine",
    }  # fmt: skip
    assert not streams & {f"request-{alive}", *(f"machine-{m}" for m in machine_ids)}
    assert (done.document["streams"], done.document["events"]) == (len(streams), len(taken))
    assert all(row["data"] == row["metadata"] == "" for row in taken)
    assert file.stat().st_mode & 0o777 == 0o600
    assert_chain_closes(world)
    assert rows(world, file)[: len(before)] == before
    with pytest.raises(EventsArchivedAway, match=str(file)):
        rows(world)
    intended, finished = rows(world, file)[len(before) :]
    assert (intended["topic"], finished["topic"]) == ("ArchiveIntended", "EventsArchived")
    assert done.document["sha256"] in intended["data"]
    again = world.call("getRequestStatus", {"requests": [{"requestId": over}]})
    assert again == answer
    assert run("machines", "list", "--output", "json").document == shown
    assert run("requests", "show", over, "--output", "json").document["shortages"] is None
    refused(run("audit", "history", over), f"request-{over}", str(file), "--archive")
    related = ("audit", "history", alive, "--related", "--output", "json")
    refused(run(*related), "was archived", "--archive")
    told = run(*related, "--archive", str(file)).document["events"]
    assert [event["position"] for event in told] == related_before
    assert run("audit", "history", over, "--archive", str(file)).status == 0
    report = ("report", "usage", "--output", "json")
    refused(run(*report), "was archived", str(file))
    assert run(*report, "--archive", str(file)).status == 0
    verified = run("audit", "verify", "--output", "json")
    assert verified.status == 0, verified.err + verified.out
    assert verified.document["archived"] == len(taken)
    assert str(file) in verified.document["read_models"]["not_compared"]
    compared = run("audit", "verify", "--archive", str(file), "--output", "json")
    assert compared.status == 0
    assert compared.document["read_models"]["differences"] == 0
    told = [run(*words) for words in questions]
    assert [answer.status for answer in told[:1] + told[3:]] == [1, 1]
    assert "was archived" in told[0].err
    assert [run(*words, "--archive", str(file)).document for words in questions] == was
    then = ("replay", "--until", str(before[-1]["position"]), "--into", f"sqlite:{tmp_path}/then")
    assert "was archived" in run(*then).err
    assert run(*then, "--archive", str(file)).status == 0
    for action in ("verify", "rebuild"):
        answer = run("projections", action)
        assert (answer.status, answer.out) == (1, "")
        assert "was archived" in answer.err and str(file) in answer.err
        done = run("projections", action, "--archive", str(file))
        assert done.status == 0, done.err
    with closing(world.storage().log()) as view:
        directory = tmp_path / "past"
        snapshots = Snapshots(str(directory), view, 4)
        with pytest.raises(EventsArchivedAway):
            snapshots.cover()
        view.archives = Archives([str(file)], world.deployment)
        snapshots._leave("", [len(before) // 4 * 4], lambda done, of: None)
        view.archives = None
        world.run_until_final(world.give_back([{"machineId": machine_ids[0], "name": ""}]))
        cycle(world)
        view.again()
        snapshots.cover()  # from the first that there is
        last = max(int(path.name.partition("-")[0]) for path in directory.iterdir())
        assert last == view.end()[0] // 4 * 4
    world.assert_agreement()
    world.leave_nothing()
    second = archive(run, tmp_path / "more.jsonl.gz", "--before", LATER).document
    assert second["streams"] > 0
    assert not streams & set(streams_in(str(tmp_path / "more.jsonl.gz")))
    assert rows(world, tmp_path / "more.jsonl.gz", file)[: len(before)] == before
    assert_chain_closes(world)


@pytest.mark.stores(*ARCHIVING)
def test_an_archived_stream_is_never_written_again(world: World, run: Run, tmp_path: Path) -> None:
    """Neither as a new one of that name nor as a longer one; and nothing in the worker stops when
    HostFactory returns a machine that is long gone."""
    request_id, machine_ids = fulfilled(world, 1)
    hosts = [{"machineId": machine_ids[0], "name": ""}]
    world.run_until_final(world.give_back(hosts))
    world.run(60)
    assert archive(run, tmp_path / "old.gz", "--before", LATER).status == 0
    with closing(world.storage().event_store(world.clock, {"user": "test"})) as store:
        new = MachineRequest.ask(request_id, "awsinst", "T", "1", 1, 300.0, "operator")
        with pytest.raises(Conflict):
            store.save(new)
        with pytest.raises(EventsArchivedAway, match=request_id):
            store.get(MachineRequest, request_id)
    refused(run("requests", "cancel", request_id, "--reason", "x"), request_id, "archived")
    again = world.run_until_final(world.give_back(hosts))
    assert again["status"] == "complete"
    world.assert_agreement()


@pytest.mark.stores(*ARCHIVING)
def test_a_legal_hold_wins(world: World, run: Run, tmp_path: Path) -> None:
    """On one machine it is on all that the machine belongs to; what was held is on record."""
    held = cycle(world, 1)
    free = cycle(world, 1)
    (machine,) = run("machines", "list", "--output", "json").document["machines"][:1]
    assert machine["request_id"] == held
    world.write_own_config({"retention": {"legal_hold": [machine["machine_id"][:-1] + "?"]}})
    done = archive(run, tmp_path / "old.gz", "--before", LATER).document
    gone = set(streams_in(str(tmp_path / "old.gz")))
    for name in ("machine_id", "request_id", "return_id", "batch_id"):
        assert not [stream for stream in gone if stream.endswith(machine[name])]
    assert f"request-{free}" in gone
    assert done["held"] >= 4
    (record,) = rows(world, tmp_path / "old.gz")[-2:-1]
    assert machine["machine_id"][:-1] + "?" in record["data"]


@pytest.mark.stores("sqlite")
def test_what_is_not_old_enough_stays(world: World, run: Run, tmp_path: Path) -> None:
    """As retention.days says, or --before; without either everything stays."""
    cycle(world, 1)
    refused(archive(run, tmp_path / "a.gz"), "retention.days is 0")
    world.write_own_config({"retention": {"days": 36_500}})
    kept = archive(run, tmp_path / "a.gz").document
    assert (kept["file"], kept["streams"]) == (None, 0)
    assert not (tmp_path / "a.gz").exists()
    with closing(world.storage().log()) as view:
        (first, *_, last) = [e["recorded_at"] for e in view.events_after(0, 1000)]
    assert archive(run, tmp_path / "a.gz", "--before", first).document["streams"] == 0
    assert archive(run, tmp_path / "a.gz", "--before", last).document["streams"] > 0


@pytest.mark.stores("json", "dynamodb")
def test_a_store_that_keeps_all_says_what_to_do(world: World, run: Run, tmp_path: Path) -> None:
    """By name, with the next step; no file."""
    refused(
        archive(run, tmp_path / "a.gz", "--before", LATER),
        world.storage().name,
        "store copy --seal",
    )
    assert list(tmp_path.glob("a.gz*")) == []


POINTS = (
    "archive.written",
    "commit.ArchiveIntended.before",
    "commit.ArchiveIntended.after",
    "commit.archive.before",
    "commit.archive.after",
    "commit.archive.after#2",
    "commit.EventsArchived.before",
    "commit.EventsArchived.after",
)


def in_small_steps(world: World, file: Path) -> None:
    """What the command does, with few streams a transaction."""
    command = ArchiveStore(str(file), f"{LATER}T", [], "old", "arc-" + world.random(16).hex())
    storage = world.storage()
    with (
        closing(storage.event_store(world.clock, {"user": "test"})) as store,
        closing(storage.log()) as view,
    ):
        archive_store(command, view, store, archives, batch=8)


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("point", POINTS)
def test_killed_at(
    world: World,
    run: Run,
    tmp_path: Path,
    point: str,
) -> None:
    """At every step nothing is lost, and the same command goes on; a stream is whole or gone."""
    cycle(world, 3)
    before = rows(world)
    file = tmp_path / "old.gz"

    def die(name: str) -> None:
        raise crash_points.Crash(name)

    crash_points.die, usual = die, crash_points.die
    crash_points.crash_at(point)
    try:
        with pytest.raises(crash_points.Crash):
            in_small_steps(world, file)
    finally:
        crash_points.die = usual
        crash_points.crash_at("")
    assert_chain_closes(world)
    assert rows(world, file)[: len(before)] == before
    whole: dict[str, set[bool]] = {}
    for row in left(world):
        whole.setdefault(row["stream"], set()).add(bool(row["topic"]))
    assert all(len(found) == 1 for found in whole.values())
    if point in POINTS[:2]:
        refused(archive(run, file, "--before", LATER), str(file), "exists")
        assert not any(False in found for found in whole.values())
        file.unlink()
    elif point != POINTS[-1]:
        refused(archive(run, tmp_path / "other.gz", "--before", LATER), str(file), "finish that")
        content = file.read_bytes()
        file.write_bytes(content[:-30])
        refused(archive(run, file, "--before", LATER), str(file))
        file.write_bytes(gzip.compress(gzip.decompress(content), 1))
        refused(archive(run, file, "--before", LATER), str(file), "sha256")
        file.write_bytes(content)
    if point != POINTS[-1]:
        done = archive(run, file, "--before", LATER).document
        assert done["kept"] == 0
        assert set(streams_in(str(file))) == {
            row["stream"] for row in left(world) if not row["topic"]
        }
    assert_chain_closes(world)
    topics = [row["topic"] for row in rows(world, file)[len(before) :]]
    assert topics == ["ArchiveIntended", "EventsArchived"]


@pytest.mark.stores("sqlite")
def test_a_stream_that_goes_on_meanwhile_stays(world: World, run: Run, tmp_path: Path) -> None:
    """It was chosen, and something happened to it before it was taken out."""
    over = cycle(world, 1)
    with closing(world.storage().event_store(world.clock, {"user": "test"})) as store:
        count = len(list(store.events_of(f"request-{over}")))
        assert store.take_out([(f"request-{over}", count - 1)]) == (0, 0)
        assert store.get(MachineRequest, over) is not None
        assert store.take_out([(f"request-{over}", count)]) == (count, 1)
        assert store.take_out([(f"request-{over}", count)]) == (count, 1)


@pytest.mark.stores(*ARCHIVING)
def test_a_copy_needs_the_archive_and_has_all_of_it(world: World, run: Run, tmp_path: Path) -> None:
    """Without it by name; with it the copy has every event again. A backup and a dry run need
    none, nor does an export of what is still there."""
    over = cycle(world, 1)
    whole = rows(world)
    file = tmp_path / "old.gz"
    assert archive(run, file, "--before", LATER).status == 0
    place = f"sqlite:{tmp_path}/copy.db"
    refused(run("store", "copy", "--to", place), "was archived", str(file), "--archive")
    refused(run("audit", "export", str(tmp_path / "log")), "was archived", str(file), "--archive")
    assert not (tmp_path / "log").exists()
    done = run("store", "copy", "--to", place, "--archive", str(file))
    assert done.status == 0, done.err
    copy = Place("sqlite", {"url": place}).storage(str(tmp_path))
    with closing(copy.any_store()) as view:
        assert view.events_after(0, len(whole)) == whole
        assert [row["request_id"] for row in view.requests(None, False, None)].count(over) == 1
    assert run("audit", "export", str(tmp_path / "log"), "--archive", str(file)).status == 0
    assert run("store", "backup", str(tmp_path / "saved.db")).status == 0
    saved = Place("sqlite", {"url": f"sqlite:{tmp_path}/saved.db"}).storage(str(tmp_path))
    with closing(saved.any_store()) as view:
        assert view.count_archived() > 0
        assert [row["request_id"] for row in view.requests(None, False, None)].count(over) == 1
    (tmp_path / "rehearsal").mkdir()
    rehearsed = Place(
        "sqlite", {"url": f"sqlite:{world.storage().rehearse(str(tmp_path / 'rehearsal'))}"}
    )
    with closing(rehearsed.storage(str(tmp_path)).queries()) as view:
        assert view.count_archived() > 0


@pytest.mark.stores(*ARCHIVING)
@pytest.mark.parametrize("is_restarted", [True, False])
def test_copy_of_a_machine_whose_batch_was_archived(
    world: World, run: Run, tmp_path: Path, is_restarted: bool
) -> None:
    """EC2's console copies the tags with "Launch more like this": an orphan that is left to the
    operator, and sweeps go on."""
    cycle(world, 1)
    ((batch_id,),) = world.query("SELECT batch_id FROM batches")
    assert archive(run, tmp_path / "old.gz", "--before", LATER).status == 0
    (worker,) = world.workers
    tags = {"hostledger:deployment": world.deployment, "hostledger:batch": batch_id}
    found = ids(launch_apart(world, 1, **tags))
    if is_restarted:
        world.kill(worker)
        world.start_worker()

    world.run(150, step=5.0)
    assert {row[0] for row in world.query("SELECT machine_id FROM orphans")} == found
    assert world.to_give_up(world.fulfilled(1)) == []
    assert found < world.live()
    assert f"batch-{batch_id}" not in {row["stream"] for row in left(world) if row["topic"]}


@pytest.mark.stores("sqlite")
def test_late_machine_of_a_batch_whose_request_was_archived(
    world: World, run: Run, tmp_path: Path
) -> None:
    """The batch had something to tell after its request was over, and so stayed: what turns up of
    it is nobody's, and ended."""
    over = cycle(world, 1)
    ((batch_id,),) = world.query("SELECT batch_id FROM batches")
    tags = {"hostledger:deployment": world.deployment, "hostledger:batch": batch_id}
    launch_apart(world, 1, **tags)
    world.run(120, step=5.0)
    ((told,),) = world.query("SELECT updated_at FROM batches")
    assert archive(run, tmp_path / "old.gz", "--before", told).status == 0
    whole = {row["stream"] for row in left(world) if row["topic"]}
    assert f"request-{over}" not in whole and f"batch-{batch_id}" in whole
    (worker,) = world.workers
    world.kill(worker)
    world.start_worker()
    late = ids(launch_apart(world, 1, **tags))

    world.run(150, step=5.0)

    assert world.live() == set()
    assert late <= {row[0] for row in world.query("SELECT machine_id FROM machines")}


@pytest.mark.stores("sqlite")
def test_another_file_than_the_one_that_was_taken_out(
    world: World, run: Run, tmp_path: Path
) -> None:
    """One that lacks the event is not enough, together they are; and one that was changed, though
    every line of it is right in itself."""
    cycle(world, 1)
    assert archive(run, tmp_path / "old.gz", "--before", LATER).status == 0
    cycle(world, 1)
    assert archive(run, tmp_path / "more.gz", "--before", LATER).status == 0
    with pytest.raises(EventsArchivedAway):
        rows(world, tmp_path / "more.gz")
    assert rows(world, tmp_path / "more.gz", tmp_path / "old.gz")
    old = ExportFile(str(tmp_path / "old.gz"))
    changed = list(old.events())
    changed[3]["data"] = changed[3]["data"].replace("1", "2")
    changed[3]["digest"] = digest(*(changed[3][column] for column in COLUMNS[1:9]))
    write_export(str(tmp_path / "forged.gz"), old.manifest, changed)
    with pytest.raises(LogDamaged, match=f"event {changed[3]['position']} is not the one"):
        rows(world, tmp_path / "forged.gz")
