"""Policy: whenever the site's templates change, record what they are now."""

from __future__ import annotations

from typing import Any

from application.turn import MOST_STREAMS, Turn
from domain.template import Template

CORRELATION = "templates file"


class Revising:
    """`offered` are the compiled templates (template_id, revision, content, bodies) of
    `provider`."""

    def __init__(self, turn: Turn, provider: str) -> None:
        self._turn = turn
        self._provider = provider
        self._recorded: list[dict[str, Any]] | None = None

    def take_turn(self, offered: list[dict[str, Any]]) -> None:
        if offered == self._recorded:
            return
        turn = self._turn
        known = turn.work.templates(self._provider)
        revisions = {template["template_id"]: template["revision"] for template in offered}
        for start in range(0, len(offered), MOST_STREAMS):
            changed = []
            bodies: dict[str, bytes] = {}
            for template in offered[start : start + MOST_STREAMS]:
                if known.get(template["template_id"]) != template["revision"]:
                    aggregate = self._template(template["template_id"])
                    aggregate.revise(
                        self._provider,
                        template["template_id"],
                        template["revision"],
                        template["content"],
                    )
                    changed.append(aggregate)
                    bodies |= {name: body.encode() for name, body in template["bodies"].items()}
            if changed:
                turn.save(*changed, correlation_id=CORRELATION, bodies=bodies)
        with turn.chunks() as add:
            for template_id in known.keys() - revisions.keys():
                aggregate = self._template(template_id)
                aggregate.retire(self._provider, template_id)
                add(aggregate, CORRELATION, "")
        self._recorded = offered

    def _template(self, template_id: str) -> Template:
        key = Template.key(self._provider, template_id)
        return self._turn.ledger.get(Template, key) or Template(Template.stream(key))
