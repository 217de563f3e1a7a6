"""`hostledger store copy | backup | restore | migrate | compact` as an operator uses them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.interfaces.commands import Run, fulfilled, refused
from tests.stores import Place
from tests.world import World


def moved_site(world: World, place: Place) -> None:
    """What the operator does next: the configuration names the new place."""
    world.place = place
    world.environ |= place.variables()


def test_a_site_moves_with_its_machines(
    world: World, run: Run, make_run: Callable[[World], Run], tmp_path: Path
) -> None:
    """The history is taken along while machines live: the old place names the new one, the worker
    ends, and the next one goes on with the same machines."""
    _, machine_ids = fulfilled(world, 3)
    place = f"sqlite:{tmp_path}/grown/ledger.db"

    answer = run("store", "copy", "--to", place, "--seal", "--output", "json")

    assert answer.status == 0, answer.err
    document = answer.document
    assert (document["found"], document["target"], document["incarnation"]) == (0, place, 2)
    assert "set storage.url" in answer.err
    refused(run("requests", "list"), "was moved to", place, "storage.url")
    refused(run("store", "activate", "--reason", "x"), "was moved to")
    world.tick()
    assert world.workers == []
    moved_site(world, Place("sqlite", {"url": place}))
    run = make_run(world)
    assert {m["machine_id"] for m in _machines(run)} == set(machine_ids)
    world.start_worker()
    world.run(30)
    world.assert_agreement()
    world.leave_nothing()
    again = run("store", "copy", "--from", f"sqlite:{world.path}", "--to", place, "--seal")
    refused(again, "lives already")


def _machines(run: Run) -> list[dict[str, str]]:
    return run("machines", "list", "--alive", "--output", "json").document["machines"]  # type: ignore[no-any-return]


def test_a_copy_goes_on_and_stays_inert(world: World, run: Run, tmp_path: Path) -> None:
    """Called again it takes what is new; the source lives; the copy waits to be activated."""
    place = f"sqlite:{tmp_path}/copy.db"
    first = run("store", "copy", "--to", place, "--output", "json").document
    world.request(1)
    second = run("store", "copy", "--to", place, "--output", "json").document
    assert (first["found"], second["found"]) == (0, first["position"])
    assert second["taken"] > 0
    assert second["incarnation"] is None
    moved_site(world, Place("sqlite", {"url": place}))
    assert "store activate" in str(world.refusal("getRequestStatus", {"requests": []}))


def test_a_backup_is_restored_into_an_empty_place(
    world: World, run: Run, make_run: Callable[[World], Run], tmp_path: Path
) -> None:
    """Made while the store is in use, for its owner alone; never over a file or a store."""
    request_id, _ = fulfilled(world, 2)
    file = tmp_path / "saved.db"
    assert run("store", "backup", str(file)).status == 0
    assert file.stat().st_mode & 0o777 == 0o600
    refused(run("store", "backup", str(file)), str(file), "exists")
    refused(run("store", "restore", str(file)), "lives already")
    moved_site(world, Place("sqlite", {"url": f"sqlite:{tmp_path}/new/ledger.db"}))
    run = make_run(world)
    restored = run("store", "restore", str(file), "--output", "json")
    assert restored.status == 0, restored.err
    assert "store activate" in restored.err
    refused(run("requests", "list"), "store activate")
    assert run("store", "activate", "--reason", "a drill").status == 0
    assert run("requests", "show", request_id, "--output", "json").document["alive"] == 2


def test_compact_and_migrate_say_what_they_did(world: World, run: Run) -> None:
    """Room given back, new statistics; a schema that is up to date stays so."""
    fulfilled(world, 1)
    assert "statistics" in run("store", "compact").out
    document = run("store", "migrate", "--output", "json").document
    assert document["schema_before"] == document["schema"]
    world.leave_nothing()


def test_places_that_cannot_be(world: World, run: Run, tmp_path: Path) -> None:
    """Each in a sentence, nothing made."""
    refused(run("store", "copy", "--to", "papyrus:/scroll"), "papyrus:/scroll", "sqlite:/FILE")
    refused(run("store", "copy", "--to", f"sqlite:{world.path}"), "lives already")
    refused(run("store", "restore", str(tmp_path / "nothing.db")), "no store at")
    assert os.listdir(tmp_path) == []
