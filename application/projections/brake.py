"""The read model `brake`: one row while the operator has paused launching, or everything."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.projections.record import Record, Rows


def _set(record: Record, rows: Rows, scope: str) -> None:
    rows.put(
        "brake",
        {"one": 1, "scope": scope, "reason": record.data["reason"], "since": record.recorded_at},
    )


def paused(record: Record, rows: Rows) -> None:
    _set(record, rows, record.data["scope"])


def resumed(record: Record, rows: Rows) -> None:
    _set(record, rows, "")


HANDLERS = {"Paused": paused, "Resumed": resumed}
