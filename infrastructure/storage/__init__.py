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
    from infrastructure.storage.postgresql import PostgresqlStorage
    from infrastructure.storage.sqlite import SqliteStorage

    EventStore = SqlEventStore
    ReadModel = SqlReadModel
    Storage = SqliteStorage | PostgresqlStorage


def storage_at(site: Site, place: str, settings: dict[str, Any]) -> Storage:
    """The store at a place in one line (`address.py`), otherwise as the settings say.

    Raises BrokenConfiguration.
    """
    import copy

    from infrastructure.storage.address import sections_of

    try:
        said = sections_of(place)
    except ValueError as error:
        from infrastructure.configuration import without_secrets

        shown = without_secrets(place)
        raise BrokenConfiguration(f"{shown} is no store's place: {error}") from None
    merged = {**settings["storage"], "strategy": said.pop("strategy")}
    for section, keys in said.items():
        merged[section] = {**merged[section], **keys}
    return storage_of(copy.copy(site), {**settings, "storage": merged})


def storage_of(site: Site, settings: dict[str, Any]) -> Storage:
    """The store that the settings name. Raises BrokenConfiguration."""
    strategy = settings["storage"]["strategy"]
    if strategy == "sql":
        if settings["storage"]["sql_strategy"]["url"]:
            from infrastructure.storage.postgresql import PostgresqlStorage

            return PostgresqlStorage(site, settings["storage"])
        from infrastructure.storage.sql import SqlalchemyStorage

        return SqlalchemyStorage(site, settings["storage"])
    if strategy == "json":
        from infrastructure.storage.json_files import JsonStorage

        return JsonStorage(site, settings["storage"])
    if strategy == "dynamodb":
        from infrastructure.storage.dynamodb import DynamodbStorage

        return DynamodbStorage(site, settings)  # type: ignore[return-value]
    from infrastructure.storage.sqlite import SqliteStorage

    return SqliteStorage(site, settings["storage"])
