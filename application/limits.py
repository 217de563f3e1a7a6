"""How many machines a launch may add: the site's caps on machines and on spend per hour.

`provider.limits` holds for the deployment, `provider.limits.templates.<id>` for one template.
Spend is what templates say a machine costs per hour (`attributes.priceInfo`), not a bill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from application.turn import Turn
from domain.template import Template

MACHINES, SPEND = "MachineLimit", "SpendLimit"
CAPS = ("machines", "spend_per_hour")


@dataclass(frozen=True)
class Reached:
    """A cap that leaves room for so many machines; `code` and `message` are for the request."""

    room: int
    code: str
    message: str


def least_room(turn: Turn, provider: str, template_id: str, content: dict[str, Any]) -> Reached:
    """The cap that leaves the least room for machines of a template; of what lives and of what AWS
    is being asked for."""
    limits = turn.settings["limits"]
    templates_own = limits["templates"].get(template_id, {})
    none_reached = Reached(1 << 30, "", "")
    if not any(caps.get(key) is not None for caps in (limits, templates_own) for key in CAPS):
        return none_reached  # nothing is counted where nothing is capped
    rows = turn.work.machines_by_template()
    own = [r for r in rows if (r["provider"], r["template_id"]) == (provider, template_id)]
    answers = [none_reached]
    for name, caps, counted in (
        ("provider.limits", limits, rows),
        (f"provider.limits.templates.{template_id}", templates_own, own),
    ):
        if caps.get("machines") is not None:
            room = caps["machines"] - sum(row["machines"] for row in counted)
            message = f"{name}.machines allows {caps['machines']} machines at a time"
            answers.append(Reached(max(0, room), MACHINES, message))
        if caps.get("spend_per_hour") is not None:
            answers.append(_room_for_spend(turn, name, caps["spend_per_hour"], counted, content))
    return min(answers, key=lambda answer: answer.room)


def _room_for_spend(
    turn: Turn, name: str, cap: float, rows: list[dict[str, Any]], content: dict[str, Any]
) -> Reached:
    price = content.get("price")
    if not price:
        return Reached(
            0,
            SPEND,
            f"{name}.spend_per_hour is set and the template does not say what a machine costs: "
            "give its attributes a priceInfo",
        )
    spent = 0.0
    for row in rows:
        if not row["revision"]:
            continue  # adopted: nobody says what it costs
        key = Template.key(row["provider"], row["template_id"])
        there = turn.work.template_content(key, row["revision"])
        there |= there.get("accounts", {}).get(row["account"], {})
        spent += row["machines"] * there.get("price", 0)
    room = int((cap - spent) / price + 1e-9)
    return Reached(max(0, room), SPEND, f"{name}.spend_per_hour allows {cap:g} an hour")
