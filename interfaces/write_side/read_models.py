"""The store's read models, built anew from its log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from application.failures import StoreBusy, StoreError, StoreInert
from interfaces.write_side.container import WriteSide


def rebuild(side: WriteSide, progress: Any, archives: Sequence[str] = ()) -> Any:
    """Build the store's read models anew and exchange them (`application.rebuilding.rebuild`); what
    is built lies in the state directory until it is done. `archives` have what was archived. Raises
    StoreError."""
    from contextlib import closing

    from application.rebuilding import rebuild
    from infrastructure.event_store.archives import give
    from infrastructure.read_models.replica import Replica, alone
    from interfaces.write_side.stores import make_state_directory

    storage, store = side.storage(), side.store()
    path = f"{side.site().state_dir}/rebuild-{store.deployment}.db"
    make_state_directory(side.site())
    with alone(path):
        with closing(storage.log()) as view, closing(Replica(path, store.deployment)) as replica:
            if replica.failed():
                replica.begin()  # for code that was mended
            within = storage.view_of(store)
            for look in (view, within):
                give(look, archives)
            rebuilt = rebuild(view, store, within, replica, progress)
        os.unlink(path)
    return rebuilt


def renew_read_models(side: WriteSide, progress: Any) -> None:
    """Build the read models anew where another version of a projection made them: a release before
    or after this one. What cannot be built now is in the log; the rows that are there serve on.

    Raises StoreBusy, StoreInert, and what `progress` raises.
    """
    from application.rebuilding import is_outdated

    if not is_outdated(side.queries()):
        return
    files = [archive["file"] for archive in side.queries().archives_on_record()]
    try:
        rebuilt = rebuild(side, progress, [file for file in files if os.path.exists(file)])
    except (StoreBusy, StoreInert):
        raise
    except StoreError as error:
        side.journal().error("read models not rebuilt", message=str(error))
        return
    side.journal().info("read models rebuilt", position=rebuilt.position, rows=rebuilt.exchanged)
    for name, position, why in rebuilt.failed:
        side.journal().error("read model not rebuilt", name=name, position=position, error=why)
