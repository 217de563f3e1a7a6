"""The tamper evidence: a digest of each event and the chain that binds it to all before it."""

from __future__ import annotations

from application.json_text import dumps
from domain.identifiers import sha256


def digest(
    event_id: str,
    stream: str,
    version: int,
    topic: str,
    class_version: int,
    recorded_at: str,
    metadata: str,
    data: str,
) -> str:
    """sha256 of the canonical record: one JSON array, the two texts byte for byte as written."""
    record = [event_id, stream, version, topic, class_version, recorded_at, metadata, data]
    return str(sha256(dumps(record).encode()).hexdigest())


def chain(previous: str, position: int, event_digest: str) -> str:
    """sha256 over the previous chain (the deployment id before the first), position and digest."""
    return str(sha256(f"{previous}\n{position}\n{event_digest}".encode()).hexdigest())
