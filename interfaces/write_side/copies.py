"""From one store to another: copies, moves, backups, and the store that a log's export makes."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dependency_injector import providers

from application.failures import StoreError, StoreInert
from interfaces.write_side import parts
from interfaces.write_side.container import WriteSide
from interfaces.write_side.stores import make_state_directory


def copy_to(
    side: WriteSide,
    origin: str | None,
    destination: str,
    progress: Any,
    archives: Sequence[str] = (),
    *,
    live: Any = None,
) -> dict[str, Any]:
    """Copy a store, the instance's own or the one at `origin`, to the place `destination`, which
    stays inert. `live` is the reason for which the history goes on there from now on: the source is
    ended and the target activated. What is in `archives` is put back. Raises StoreError,
    BrokenConfiguration.
    """
    from contextlib import closing

    from application.copy_store import copy_store, move_store
    from infrastructure.event_store.archives import give
    from infrastructure.storage import storage_at

    site, settings, clock = side.site(), side.compiled().settings, side.clock()
    made_by = site.actor(side.process())
    source = storage_at(site, origin, settings) if origin else side.storage()
    target = storage_at(site, destination, settings)
    with closing(source.source()) as view:
        deployment, _, moved_to = view.identity()
        give(view, archives)
        if view.inert and not moved_to and live is not None:
            raise StoreInert(f"{view.inert}; a copy cannot be moved, only copied")
        with closing(target.begin_copy(deployment, clock, made_by)) as into:
            if live is None:
                copied = copy_store(view, into, progress)
            else:
                copied = move_store(
                    view,
                    into,
                    lambda: source.seal(clock, made_by, target.place, live),
                    progress,
                )
    document = {
        "source": source.place,
        "target": target.place,
        "found": copied.found,
        "taken": copied.taken,
        "position": copied.position,
        "chain": copied.chain,
        "incarnation": None,
    }
    if live is not None:
        document["incarnation"] = target.activate(clock, made_by, live)
        with closing(target.event_store(clock, made_by)) as store:
            leases = parts.leases(
                target, store, side.settings(), clock, target.site, side.process(),
                side.program_version(),
            )  # fmt: skip
            # Never given back: whoever follows waits until calls of the old worker have ended.
            for lease in leases.values():
                lease.acquire()
    return document


REPLAYED = 10_000
"""Events that a replay takes over in one commit."""


def replay_into(
    side: WriteSide, moment: str, destination: str, progress: Any, archives: Sequence[str] = ()
) -> dict[str, Any]:
    """Copy the log up to a moment (`application.replay.position_of`) to a place, which stays inert:
    the world as it was then. `archives` have what was archived. Raises StoreError,
    BrokenConfiguration."""
    from contextlib import closing

    from application.copy_store import copy_store
    from application.replay import position_of
    from infrastructure.event_store.archives import give
    from infrastructure.storage import storage_at

    site, clock = side.site(), side.clock()
    target = storage_at(site, destination, side.compiled().settings)
    with closing(side.storage().source()) as view:
        give(view, archives)
        until = position_of(view, moment)
        made_by = site.actor(side.process())
        with closing(target.begin_copy(view.identity()[0], clock, made_by)) as into:
            copied = copy_store(view, into, progress, REPLAYED, until)
    return {"target": target.place, "position": copied.position, "chain": copied.chain}


def backup(side: WriteSide, path: str) -> str:
    """Copy the instance's store to a new SQLite file, inert; its path. Raises StoreError."""
    storage = side.storage()
    storage.backup(path)
    return path


def restore(
    side: WriteSide, path: str, progress: Any, archives: Sequence[str] = ()
) -> dict[str, Any]:
    """Fill the instance's place, where no store may be, from a backup; it is inert. Raises
    StoreError."""
    make_state_directory(side.site())
    place = f"sqlite:{os.path.abspath(path)}"
    return copy_to(side, place, side.storage().place, progress, archives)


def import_log(side: WriteSide, path: str, progress: Any) -> dict[str, Any]:
    """Fill the instance's place, where no store may be, from the export of a whole log; it is
    inert. The file is read through before anything is made. Raises StoreError."""
    from contextlib import closing

    from application.copy_store import copy_store
    from infrastructure.event_store.export_file import ExportFile

    source, storage = ExportFile(path), side.storage()
    manifest = source.manifest
    if not manifest.whole:
        raise StoreError(
            f"{path} has a part of a log, {manifest.events} events from event {manifest.first} on: "
            "a store is made of the export of a whole log (`hostledger audit export FILE`)"
        )
    source.check()
    make_state_directory(side.site())
    made_by = side.site().actor(side.process())
    with closing(storage.begin_copy(manifest.deployment, side.clock(), made_by)) as into:
        copied = copy_store(source, into, progress)
    return {
        "path": path,
        "target": storage.place,
        "found": copied.found,
        "taken": copied.taken,
        "position": copied.position,
        "chain": copied.chain,
    }


@contextmanager
def rehearsal(side: WriteSide) -> Iterator[WriteSide]:
    """Within: the same instance over a copy of its store, which is thrown away. Raises StoreError,
    OSError."""
    from tempfile import TemporaryDirectory

    from infrastructure.storage.sqlite import SqliteStorage

    site, compiled = side.site(), side.compiled()
    with TemporaryDirectory(prefix="hostledger-") as directory:
        copied = {"sqlite_strategy": {"path": side.storage().rehearse(directory)}}
        storage = SqliteStorage(copy.copy(site), copied)
        store = storage.event_store(side.clock(), site.actor(side.process()))
        try:
            yield WriteSide(
                site=site,
                environ=side.environ(),
                process=side.process(),
                compiled=compiled,
                clock=side.clock(),
                on_client=providers.Object(side.on_client()),
                random=providers.Object(side.random()),
                storage=providers.Object(storage),
                store=providers.Object(store),
            )
        finally:
            store.close()
