"""The tamper evidence: a digest of each event and the chain that binds it to all before it."""

from __future__ import annotations

from sys import modules

from application.json_text import quoted
from domain import identifiers


def sha256(content: bytes) -> str:
    """In hex. By OpenSSL where it is loaded already: three times as fast, and 3 ms to load."""
    openssl = modules.get("_hashlib")
    if openssl is None:
        return identifiers.sha256(content).hexdigest()  # type: ignore[no-any-return]
    return openssl.openssl_sha256(content).hexdigest()  # type: ignore[no-any-return]


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
    # What `dumps` makes of the array; written out, since each append waits for it.
    return sha256(
        f"[{quoted(event_id)},{quoted(stream)},{version},{quoted(topic)},{class_version},"
        f"{quoted(recorded_at)},{quoted(metadata)},{quoted(data)}]".encode()
    )


def chain(previous: str, position: int, event_digest: str) -> str:
    """sha256 over the previous chain (the deployment id before the first), position and digest."""
    return sha256(f"{previous}\n{position}\n{event_digest}".encode())
