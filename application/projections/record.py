"""A recorded event as a projection sees it, and the rows it may touch."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from application.instants import Instant

    class Rows(Protocol):
        def get(self, table: str, *key: Any) -> dict[str, Any] | None: ...

        def put(self, table: str, row: dict[str, Any]) -> None: ...

else:
    Rows = None


COLUMNS = (
    "position", "event_id", "stream", "version", "topic", "class_version",
    "recorded_at", "metadata", "data", "digest", "chain",
)  # fmt: skip
"""What is stored of an event, in this order."""


class Record:
    """Position, ids, stream, topic, time and fields of one event."""

    __slots__ = (
        "correlation_id",
        "data",
        "event_id",
        "instant",
        "position",
        "recorded_at",
        "stream",
        "topic",
    )

    def __init__(
        self,
        position: int,
        event_id: str,
        stream: str,
        topic: str,
        recorded_at: str,
        instant: Instant,
        correlation_id: str,
        data: dict[str, Any],
    ) -> None:
        self.position = position
        self.event_id = event_id
        self.stream = stream
        self.topic = topic
        self.recorded_at = recorded_at
        self.instant = instant
        self.correlation_id = correlation_id
        self.data = data

    @property
    def identifier(self) -> str:
        return self.stream.partition("-")[2]

    def origin(self) -> dict[str, Any]:
        """The columns that say when and by which event a row came to be."""
        return {
            "position": self.position,
            "event_id": self.event_id,
            "correlation_id": self.correlation_id,
            "created_at": self.recorded_at,
            "boot_id": self.instant[1],
            "boot_seconds": self.instant[2],
            "updated_at": self.recorded_at,
        }
