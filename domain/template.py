"""Templates: what may be asked for, its revisions, and the rule that checks an ask."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent
from domain.refusals import BadMachineCount, OverTemplateLimit, UnknownTemplate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNLIMITED = -1
MOST_MACHINES = 10_000
"""IBM caps a maxNumber of -1 here."""


class TemplateRevised(DomainEvent):
    """A template has a new content; `revision` is the content's digest."""

    provider: str
    template_id: str
    revision: str
    content: dict[str, Any]


class TemplateRetired(DomainEvent):
    """The template is no longer in the site's file."""

    provider: str
    template_id: str


class Template(Aggregate):
    STREAM = "template"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.revision: str | None = None

    @classmethod
    def key(cls, provider: str, template_id: str) -> str:
        """`<provider>/<id>`: templates of two provider instances are two templates."""
        return f"{provider}/{template_id}"

    def revise(
        self, provider: str, template_id: str, revision: str, content: dict[str, Any]
    ) -> None:
        """Take over a content, unless it is the one we have."""
        if revision != self.revision:
            self._trigger(
                TemplateRevised,
                provider=provider,
                template_id=template_id,
                revision=revision,
                content=content,
            )

    def retire(self, provider: str, template_id: str) -> None:
        if self.revision is not None:
            self._trigger(TemplateRetired, provider=provider, template_id=template_id)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, TemplateRevised):
            self.revision = event.revision
        elif isinstance(event, TemplateRetired):
            self.revision = None


def check_ask(template_id: str, content: dict[str, Any] | None, count: object) -> int:
    """The number of machines asked for, when the template allows it.

    Raises UnknownTemplate, BadMachineCount or OverTemplateLimit. A count as text ("3") is taken as
    IBM's plug-in takes it; 2.5, true and null are not.
    """
    if content is None:
        raise UnknownTemplate(
            f"template {template_id!r} is not offered here: "
            "`hostledger templates validate` says what is left out, and why"
        )
    if isinstance(count, str) and count.isascii() and count.isdigit() and len(count) < 10:
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise BadMachineCount(
            f"machineCount of template {template_id!r} must be a whole number from 1, not {count!r}"
        )
    limit: int = content["max_number"]
    if limit == 0:
        raise OverTemplateLimit(
            f"template {template_id!r} has maxNumber 0: nothing may be asked of it"
        )
    if limit == UNLIMITED:
        limit = MOST_MACHINES
    if count > limit:
        raise OverTemplateLimit(
            f"machineCount {count} is over the limit of {limit} of template {template_id!r}"
        )
    return count
