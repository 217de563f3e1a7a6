"""Stores in PostgreSQL as the product opens them."""

from __future__ import annotations

from typing import Any

from infrastructure.settings import Settings
from infrastructure.site import Site
from infrastructure.storage import storage_of
from infrastructure.storage.postgresql import PostgresqlStorage


def storage_at(url: str, **sql_strategy: Any) -> PostgresqlStorage:
    """The storage at a url, with keys of `storage.sql_strategy`."""
    settings = Settings.model_validate({"storage": {"url": url, "sql_strategy": sql_strategy}})
    storage: Any = storage_of(Site("awsinst", "/", "/", ""), settings.model_dump(mode="json"))
    assert isinstance(storage, PostgresqlStorage)
    return storage
