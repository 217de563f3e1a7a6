"""A store's place in one line: `sqlite:FILE`, `json:DIR`, `postgresql://user@host/name` or
`dynamodb://region/prefix?endpoint=URL`."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

FORMS = (
    "sqlite:/FILE, json:/DIR, postgresql://USER@HOST/NAME or "
    "dynamodb://REGION/PREFIX?endpoint=URL is needed"
)


def sections_of(url: str) -> dict[str, Any]:
    """The keys of `storage` that say the same: strategy, and its section's place.

    Raises ValueError.
    """
    scheme, _, rest = url.partition(":")
    if scheme in ("sqlite", "json"):
        path = rest.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(FORMS)
        key = "path" if scheme == "sqlite" else "base_path"
        return {"strategy": scheme, f"{scheme}_strategy": {key: path}}
    parts = urlsplit(url)
    name = parts.path.strip("/")
    if scheme in ("postgresql", "postgres") and name:
        return {"strategy": "sql", "sql_strategy": {"url": url}}
    if scheme == "dynamodb" and parts.hostname and name and "/" not in name:
        place: dict[str, Any] = {"region": parts.hostname, "table_prefix": name}
        query = parse_qs(parts.query)
        if query.keys() - {"endpoint"}:
            raise ValueError(FORMS)
        if "endpoint" in query:
            place["endpoint_url"] = query["endpoint"][0]
        return {"strategy": "dynamodb", "dynamodb_strategy": place}
    raise ValueError(FORMS)
