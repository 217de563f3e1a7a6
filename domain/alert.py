"""Alerts: what an operator should look at now, one stream a kind of alert."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent


class AlertRaised(DomainEvent):
    """It was well and is not any more: `value` has passed `limit`, in the alert's own unit. There
    is one such event a crossing, however long it stays so."""

    message: str
    value: float
    limit: float


class AlertCleared(DomainEvent):
    """It is well again: `value` is on the right side of the limit."""

    value: float


class Alert(Aggregate):
    STREAM = "alert"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.raised = False

    def set_off(self, message: str, value: float, limit: float) -> None:
        if not self.raised:
            self._trigger(AlertRaised, message=message, value=value, limit=limit)

    def clear(self, value: float) -> None:
        if self.raised:
            self._trigger(AlertCleared, value=value)

    def evolve(self, event: DomainEvent) -> None:
        self.raised = isinstance(event, AlertRaised)
