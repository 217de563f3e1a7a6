"""The site's store, by its strategy: one class each, opening what is asked for when it is.

Every class has the methods of `SqliteStorage`; what they give answers the same questions.
"""

from __future__ import annotations

from application.failures import BrokenConfiguration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from infrastructure.event_store.sql import SqlEventStore
    from infrastructure.read_models.sql import SqlReadModel
    from infrastructure.site import Site
    from infrastructure.storage.sqlite import SqliteStorage

    EventStore = SqlEventStore
    ReadModel = SqlReadModel
    Storage = SqliteStorage


def storage_of(site: Site, settings: dict[str, Any]) -> Storage:
    """The store that the settings name. Raises BrokenConfiguration."""
    strategy = settings["storage"]["strategy"]
    if strategy == "json":
        from infrastructure.storage.json_files import JsonStorage

        return JsonStorage(site, settings["storage"])
    if strategy != "sqlite":
        raise BrokenConfiguration(f"storage.strategy {strategy} comes in a later release")
    from infrastructure.storage.sqlite import SqliteStorage

    return SqliteStorage(site, settings["storage"])
