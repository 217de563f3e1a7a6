"""What requests still want, in what market, of which content, and who may have what AWS gave."""

from __future__ import annotations

from typing import Any

from application.failures import EventsArchivedAway
from application.ports import Instance
from application.turn import Turn
from domain.capacity import HETEROGENEOUS, ON_DEMAND, SPOT, price_type, units_of
from domain.machine_request import MachineRequest

ONLY_ACCOUNT = "default"
"""The name of the account of a site that has named none."""


def may_still_launch(turn: Turn, request: dict[str, Any]) -> bool:
    return not request["stopped"] and bool(turn.age(request) < request["fulfilment_deadline"])


def still_wanted(turn: Turn, request: dict[str, Any]) -> int:
    """Units of a request for which no call is under way and none was given, while its deadline
    lasts; a machine that failed is wanted again, one that was returned is not."""
    return max(0, -overshot(request)) if may_still_launch(turn, request) else 0


def overshot(request: dict[str, Any]) -> int:
    """Units given or asked for beyond what a request wants; negative when it lacks some."""
    given: int = request["dealt"] - request["failed"] + request["claimed"]
    asked: int = request["machine_count"]
    return given - asked


def market_for(turn: Turn, content: dict[str, Any], request: dict[str, Any]) -> str:
    """Spot or on demand: a heterogeneous template takes on demand what spot did not give, shortly
    before the deadline, while a machine can still start."""
    kind = price_type(content)
    if kind != HETEROGENEOUS:
        return kind
    deadline: float = request["fulfilment_deadline"]
    lead = min(max(turn.aws["pending_timeout"], deadline / 10), deadline / 2)
    return ON_DEMAND if turn.age(request) >= deadline - lead else SPOT


def content_here(content: dict[str, Any], account: str) -> dict[str, Any]:
    """A template's content as it is in one of the accounts that it names."""
    return {**content, **content.get("accounts", {}).get(account, {})}


def facts(instance: Instance, content: dict[str, Any]) -> dict[str, Any]:
    """What an outcome event keeps of an instance of a template."""
    return instance.facts(units_of(content, instance.instance_type, instance.price_type))


def open_claims(turn: Turn, claims: list[list[Any]], row: dict[str, Any]) -> list[list[Any]]:
    """Who may have the machines of a batch: its claims of requests that are still open, less what
    the last machine of another batch overshot, then other open demand for the same payload. What is
    over goes to nobody."""
    requests = {r["request_id"]: r for r in turn.work.open_requests()}
    result: list[list[Any]] = [
        [request_id, units - max(0, overshot(requests[request_id]))]
        for request_id, units in claims
        if request_id in requests
    ]
    try:
        first = turn.ledger.get(MachineRequest, row["correlation_id"])
    except EventsArchivedAway:
        return result  # whose tags the machines carry is not known any more
    # The machines have it as a tag.
    rc_account = first.rc_account if first is not None else ""
    for request in requests.values():
        more = still_wanted(turn, request)
        same = all(request[key] == row[key] for key in ("provider", "template_id", "revision"))
        if more > 0 and same and request["rc_account"] == rc_account:
            result.append([request["request_id"], more])
    return result


def pool_name(account: str, pool: str) -> str:
    """A pool as people are told of it: with its account, when that has a name of its own."""
    return pool if account == ONLY_ACCOUNT else " ".join(part for part in (account, pool) if part)
