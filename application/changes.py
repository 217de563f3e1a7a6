"""What changed in the fleet between two positions of the log, and who did it."""

from __future__ import annotations

from application.json_text import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    Row = dict[str, Any]

    class Source(Protocol):
        """A look at a store's log."""

        def events_after(self, position: int, limit: int) -> list[Row]: ...


PAGE = 1_000


def _field(name: str) -> Callable[[Row], str]:
    def told(fields: Row) -> str:
        return str(fields[name])

    return told


def _asked(fields: Row) -> str:
    return f"{fields['machine_count']} of {fields['template_id']}"


def _returned(fields: Row) -> str:
    return f"{len(fields['machine_ids']) + len(fields['strangers'])} machines: {fields['reason']}"


def _launched(fields: Row) -> str:
    whose = f"for {fields['request_id']}" if fields["request_id"] else "surplus"
    return f"{fields['instance_type']} in {fields['zone']} {whose}"


def _pause(fields: Row) -> str:
    return f"{fields['scope']}: {fields['reason']}"


CHANGES: dict[str, tuple[str, Callable[[Row], str]]] = {
    "MachinesRequested": ("request made", _asked),
    "RequestFulfilled": ("request fulfilled", lambda fields: ""),
    "RequestPartlyFulfilled": ("request partly fulfilled", _field("message")),
    "RequestFailed": ("request failed", _field("message")),
    "RequestCancelled": ("request cancelled", _field("reason")),
    "MachinesReturned": ("return made", _returned),
    "ReturnCompleted": ("return completed", lambda fields: ""),
    "ReturnPartlyRefused": ("return partly refused", _field("message")),
    "MachineLaunched": ("machine launched", _launched),
    "MachineAdopted": ("machine adopted", _field("reason")),
    "MachineInterrupted": ("machine interrupted", _field("reason")),
    "MachineTerminated": ("machine terminated", _field("reason")),
    "MachineLost": ("machine lost", _field("reason")),
    "MachineProtected": ("machine protected", _field("reason")),
    "MachineUnprotected": ("machine unprotected", _field("reason")),
    "TemplateRevised": ("template revised", _field("revision")),
    "TemplateRetired": ("template retired", lambda fields: ""),
    "Paused": ("paused", _pause),
    "Resumed": ("resumed", _field("reason")),
}
"""Topic -> what it is called, and what is told of its fields."""


def changes(source: Source, after: int, to: int, counts: dict[str, int]) -> Iterator[Row]:
    """The changes with after < position <= to, as they are read. `counts` has in the end how many
    there were of each kind, in the order of CHANGES."""
    found = dict.fromkeys((name for name, _ in CHANGES.values()), 0)
    while after < to:
        events = source.events_after(after, min(PAGE, to - after))
        for event in events:
            if event["topic"] in CHANGES:
                change = _change(event)
                found[change["change"]] += 1
                yield change
        after = events[-1]["position"]
    counts.update({name: count for name, count in found.items() if count})


def _change(event: Row) -> Row:
    name, told = CHANGES[event["topic"]]
    metadata = loads(event["metadata"])
    return {
        "position": event["position"],
        "recorded_at": event["recorded_at"],
        "change": name,
        "id": event["stream"].partition("-")[2] or None,
        "detail": told(loads(event["data"])) or None,
        "user": metadata["actor"].get("user"),
        "process": metadata["actor"].get("process"),
        "correlation_id": metadata["correlation_id"] or None,
    }
