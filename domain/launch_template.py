"""A launch template of ours at AWS: made for a content when it is first needed, removed when
nothing uses it any more.

Its id is `<account>/<region>/<name>`, and its name has the digest of its content.
"""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPEN = "open"
CREATED = "created"
REJECTED = "rejected"
MISSED = "missed"
DELETING = "deleting"
DELETED = "deleted"


class LaunchTemplateIntended(DomainEvent):
    """Written before the call that makes it; `payload` is the exact call but for the token, the
    user data by its digest."""

    epoch: int
    name: str
    token: str
    payload: dict[str, Any]
    account: str
    region: str
    provider: str


class LaunchTemplateCreated(DomainEvent):
    launch_template_id: str


class LaunchTemplateRejected(DomainEvent):
    """AWS refused to make it, for sure."""

    code: str
    message: str


class LaunchTemplateMissed(DomainEvent):
    """A launch said that AWS does not know it (yet, or any more): it is made again when it is
    needed, and removed in the end, should it be there."""


class LaunchTemplateDeletionIntended(DomainEvent):
    reason: str


class LaunchTemplateDeleted(DomainEvent):
    pass


class LaunchTemplate(Aggregate):
    STREAM = "lt"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.state = ""
        self.epoch = -1
        self.intent: LaunchTemplateIntended | None = None

    @classmethod
    def key(cls, account: str, region: str, name: str) -> str:
        return f"{account}/{region}/{name}"

    def intend(self, **facts: Any) -> None:
        """Write down the call that makes it: the first time, and again when it is not there."""
        if self.state not in (OPEN, CREATED, DELETING):
            self._trigger(LaunchTemplateIntended, epoch=self.epoch + 1, **facts)

    def create(self, launch_template_id: str) -> None:
        if self.state == OPEN:
            self._trigger(LaunchTemplateCreated, launch_template_id=launch_template_id)

    def reject(self, code: str, message: str) -> None:
        if self.state == OPEN:
            self._trigger(LaunchTemplateRejected, code=code, message=message)

    def miss(self) -> None:
        if self.state == CREATED:
            self._trigger(LaunchTemplateMissed)

    def intend_deletion(self, reason: str) -> None:
        """Also without the outcome of the call that made it: it is deleted by its name."""
        if self.state in (OPEN, CREATED, MISSED):
            self._trigger(LaunchTemplateDeletionIntended, reason=reason)

    def delete(self) -> None:
        if self.state == DELETING:
            self._trigger(LaunchTemplateDeleted)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, LaunchTemplateIntended):
            self.state = OPEN
            self.epoch = event.epoch
            self.intent = event
        elif isinstance(event, LaunchTemplateCreated):
            self.state = CREATED
        elif isinstance(event, LaunchTemplateRejected):
            self.state = REJECTED
        elif isinstance(event, LaunchTemplateMissed):
            self.state = MISSED
        elif isinstance(event, LaunchTemplateDeleted):
            self.state = DELETED
        elif isinstance(event, LaunchTemplateDeletionIntended):
            self.state = DELETING
