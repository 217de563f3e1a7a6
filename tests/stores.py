"""Opening a store in a test as the product does."""

from __future__ import annotations

from infrastructure.read_models.sql import SqlReadModel
from infrastructure.site import Site
from infrastructure.storage.sqlite import SqliteStorage


def look(path: str) -> SqlReadModel:
    """A HostFactory read's look at the SQLite store there."""
    site = Site("awsinst", "/", "/", "")
    return SqliteStorage(site, {"sqlite_strategy": {"path": path}}).read_model()
