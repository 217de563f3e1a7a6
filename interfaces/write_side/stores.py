"""What is done to an instance's own store as a whole."""

from __future__ import annotations

import os
from typing import Any

from application.failures import BrokenConfiguration, StoreError
from infrastructure.site import Site
from interfaces.write_side.container import WriteSide


def create(side: WriteSide) -> tuple[str, str]:
    """Make the instance's store; its deployment id and path. Raises StoreError."""
    site, storage = side.site(), side.storage()
    make_state_directory(site)
    made_by = site.actor(side.process())
    deployment = storage.create(side.clock(), made_by, side.program_version())
    share(side)
    return deployment, storage.name


def share(side: WriteSide) -> None:
    """Let the site's group read its store's files. Raises StoreError, BrokenConfiguration."""
    group = side.compiled().settings["storage"]["group"]
    if group:
        from infrastructure.sharing import share

        share(group, *side.storage().shared())


def activate(side: WriteSide, reason: str) -> tuple[int, str]:
    """Make a copied store the living one; its new incarnation and path. Raises StoreError."""
    storage = side.storage()
    made_by = side.site().actor(side.process())
    incarnation = storage.activate(side.clock(), made_by, reason)
    share(side)
    return incarnation, storage.name


def archive(side: WriteSide, path: str, before: str, reason: str, progress: Any) -> dict[str, Any]:
    """Move what was over at this time ("": as `retention.days` says) out of the store into a file.
    Raises StoreError, BrokenConfiguration."""
    from contextlib import closing
    from dataclasses import asdict

    from application.archive_store import ArchiveStore, archive_store
    from domain.identifiers import ARCHIVE, new_id
    from infrastructure.event_store import archives
    from infrastructure.event_store.commit import iso

    storage, retention = side.storage(), side.settings().retention
    if storage.keeps_all:
        raise StoreError(f"{storage.name}: {storage.keeps_all}")
    if not before and not retention.days:
        raise BrokenConfiguration("retention.days is 0, so that all is kept: set it, or --before")
    command = ArchiveStore(
        path,
        before or iso(side.clock().now()[0] - 86_400 * retention.days),
        retention.legal_hold,
        reason,
        new_id(ARCHIVE, side.random()(16)),
    )
    with closing(side.store()) as store, closing(storage.log()) as view:
        store.refuse_failed_projections()
        done = archive_store(command, view, store, archives, progress)
    return {**asdict(done), "before": command.before}


def compact(side: WriteSide) -> list[str]:
    """What was done to give unused room back. Raises StoreError."""
    return side.storage().compact()  # type: ignore[no-any-return]


def migrate(side: WriteSide) -> tuple[int, int]:
    """Bring the store's schema up to date: the number before and now. Raises StoreError."""
    share(side)
    return side.storage().migrate()  # type: ignore[no-any-return]


def append_past(store: Any, commits: Any, at_once: int) -> None:
    """Append what is pending of aggregates, in the order of `commits` (correlation id and
    aggregates), about so many events in one append, and have the policies follow from behind it.
    Raises StoreError."""
    from application import assigning, returning
    from infrastructure.event_store.commit import to_record

    records: list[Any] = []
    causes: dict[str, tuple[str, str]] = {}
    for correlation_id, aggregates in commits:
        made = [(a.id, to_record(event)) for a in aggregates for event in a.collect_events()]
        if records and len(records) + len(made) > at_once:
            store.append(records, causes=causes)
            records, causes = [], {}
        records += [record for _, record in made]
        causes |= {stream: (correlation_id, "") for stream, _ in made}
    if records:
        store.append(records, causes=causes)
    position, _ = store.end()
    for policy in (assigning.POLICY, returning.POLICY):
        store.append([], tracking=(policy, position))


def make_state_directory(site: Site) -> None:
    """The place of an instance's compiled configuration, sightings and worker, mode 0700."""
    os.makedirs(site.state_dir, mode=0o700, exist_ok=True)
