"""The read model `requests`: acquires and returns, as HostFactory and people ask after them."""

from __future__ import annotations

from application.projections import wire_fragments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.projections.record import Record, Rows

RUNNING = "running"
COMPLETE = "complete"
COMPLETE_WITH_ERROR = "complete_with_error"


def machines_requested(record: Record, rows: Rows) -> None:
    data = record.data
    row = {
        "request_id": record.identifier,
        "kind": "request",
        "provider": data["provider"],
        "template_id": data["template_id"],
        "revision": data["revision"],
        "machine_count": data["machine_count"],
        "status": RUNNING,
        "state": "open",
        "message": "",
        "final": 0,
        "dealt": 0,
        "assigned": 0,
        "claimed": 0,
        "stopped": 0,
        "fulfilment_deadline": data["fulfilment_deadline"],
        "source": data["source"],
        "seen": 0,
        "answered_final": 0,
        "final_at": "",
        "rc_account": data["rc_account"],
        **record.origin(),
    }
    row["fragment"] = wire_fragments.request_head(row)
    rows.put("requests", row)


def machines_returned(record: Record, rows: Rows) -> None:
    data = record.data
    row = rows.get("requests", record.identifier)
    if row is None:
        row = {
            "request_id": record.identifier,
            "kind": "return",
            "provider": data["provider"],
            "template_id": "",
            "revision": "",
            "machine_count": 0,
            "status": RUNNING,
            "state": "open",
            "message": "",
            "final": 0,
            "dealt": 0,
            "assigned": 0,
            "claimed": 0,
            "stopped": 0,
            "fulfilment_deadline": 0.0,
            "source": data["source"],
            "seen": 0,
            "answered_final": 0,
            "final_at": "",
            "rc_account": "",
            **record.origin(),
        }
        row["fragment"] = wire_fragments.request_head(row)
    ordinal: int = row["machine_count"]
    listed = [(machine_id, "", 1) for machine_id in data["machine_ids"]]
    listed += [(machine_id, name, 0) for machine_id, name in data["strangers"]]
    for machine_id, name, ours in listed:
        rows.put(
            "returned_machines",
            {
                "return_id": record.identifier,
                "ordinal": ordinal,
                "machine_id": machine_id,
                "name": name,
                "ours": ours,
                "fragment": None
                if ours
                else wire_fragments.stranger(machine_id, name, "executing", ""),
            },
        )
        ordinal += 1
    row["machine_count"] = ordinal
    rows.put("requests", row)


def _become_final(record: Record, rows: Rows, status: str, state: str, message: str) -> None:
    row = rows.get("requests", record.identifier)
    assert row is not None
    row["status"] = status
    row["state"] = state
    row["message"] = message
    row["final"] = 1
    row["final_at"] = row["updated_at"] = record.recorded_at
    row["fragment"] = wire_fragments.request_head(row)
    rows.put("requests", row)


def request_fulfilled(record: Record, rows: Rows) -> None:
    _become_final(record, rows, COMPLETE, "fulfilled", "")


def request_partly_fulfilled(record: Record, rows: Rows) -> None:
    _become_final(record, rows, COMPLETE_WITH_ERROR, "partly fulfilled", record.data["message"])


def request_failed(record: Record, rows: Rows) -> None:
    _become_final(record, rows, COMPLETE_WITH_ERROR, "failed", record.data["message"])


def request_cancelled(record: Record, rows: Rows) -> None:
    _become_final(record, rows, COMPLETE_WITH_ERROR, "cancelled", record.data["reason"])


def _strangers_are(record: Record, rows: Rows, refused: dict[str, str]) -> None:
    row = rows.get("requests", record.identifier)
    assert row is not None
    for ordinal in range(row["machine_count"]):
        item = rows.get("returned_machines", record.identifier, ordinal)
        assert item is not None
        key = item["machine_id"] or item["name"]
        machine = rows.get("machines", item["machine_id"]) if item["ours"] else None
        if key in refused and machine is not None:
            item["fragment"] = wire_fragments.refused_machine(machine, refused[key])
        elif key in refused:
            item["fragment"] = wire_fragments.stranger(
                item["machine_id"], item["name"], "fail", refused[key]
            )
        elif item["ours"]:
            continue
        else:
            item["fragment"] = wire_fragments.stranger(
                item["machine_id"], item["name"], "succeed", ""
            )
        rows.put("returned_machines", item)


def return_completed(record: Record, rows: Rows) -> None:
    _strangers_are(record, rows, {})
    _become_final(record, rows, COMPLETE, "completed", "")


def return_partly_refused(record: Record, rows: Rows) -> None:
    _strangers_are(record, rows, dict(record.data["refused"]))
    _become_final(record, rows, COMPLETE_WITH_ERROR, "partly refused", record.data["message"])


def launch_intended(record: Record, rows: Rows) -> None:
    _claim(rows, record.data["claims"], 1)


def _claim(rows: Rows, claims: list[list[Any]], sign: int) -> None:
    for request_id, units in claims:
        row = rows.get("requests", request_id)
        assert row is not None
        row["claimed"] += sign * units
        rows.put("requests", row)


def launch_accepted(record: Record, rows: Rows) -> None:
    if not record.data["filling"]:
        _release(record, rows)


def launch_settled(record: Record, rows: Rows) -> None:
    """The claims of a fleet that goes on launching shrink by what they are given."""
    batch = rows.get("batches", record.identifier)
    assert batch is not None
    if batch["state"] == "filling":
        left = dict(left_of_claims(batch["claims"], record.data))
        _claim(rows, [[r, units - left.get(r, 0)] for r, units in batch["claims"]], -1)
        _deal(record, rows)
    else:
        _release(record, rows)


def left_of_claims(claims: list[list[Any]], data: dict[str, Any]) -> list[list[Any]]:
    """What is left of claims after a deal, without those that are filled."""
    given = {request_id: _units(data, ids) for request_id, ids in data["deal"]}
    return [
        [request_id, units - given.get(request_id, 0)]
        for request_id, units in claims
        if units > given.get(request_id, 0)
    ]


def _units(data: dict[str, Any], machine_ids: list[str]) -> int:
    weights = {instance["machine_id"]: instance["units"] for instance in data["instances"]}
    return sum(weights[machine_id] for machine_id in machine_ids)


def _release(record: Record, rows: Rows) -> None:
    """The batch's claims are closed: what was dealt counts, what was not is open demand again."""
    batch = rows.get("batches", record.identifier)
    assert batch is not None
    if batch["state"] in ("open", "doubtful"):
        _claim(rows, batch["claims"], -1)
    _deal(record, rows)


def _deal(record: Record, rows: Rows) -> None:
    for request_id, machine_ids in record.data.get("deal", ()):
        row = rows.get("requests", request_id)
        assert row is not None
        row["dealt"] += _units(record.data, machine_ids)
        rows.put("requests", row)


def launch_rejected(record: Record, rows: Rows) -> None:
    if record.data["definite"]:
        _release(record, rows)


def launch_closed(record: Record, rows: Rows) -> None:
    _claim(rows, record.data["claims"], -1)


def request_fell_short(record: Record, rows: Rows) -> None:
    row = rows.get("requests", record.identifier)
    assert row is not None
    if record.data["gives_up"]:
        row["stopped"] = 1
    rows.put("requests", row)


def machines_assigned(record: Record, rows: Rows) -> None:
    row = rows.get("requests", record.identifier)
    assert row is not None
    row["assigned"] += record.data["units"]
    rows.put("requests", row)


def requests_seen(record: Record, rows: Rows) -> None:
    for column, ids in (
        ("seen", record.data["request_ids"]),
        ("answered_final", record.data["answered_final"]),
    ):
        for request_id in ids:
            row = rows.get("requests", request_id)
            if row is not None:
                row[column] = 1
                rows.put("requests", row)


HANDLERS = {
    "MachinesRequested": machines_requested,
    "MachinesReturned": machines_returned,
    "RequestFulfilled": request_fulfilled,
    "RequestPartlyFulfilled": request_partly_fulfilled,
    "RequestFailed": request_failed,
    "RequestCancelled": request_cancelled,
    "ReturnCompleted": return_completed,
    "ReturnPartlyRefused": return_partly_refused,
    "LaunchIntended": launch_intended,
    "LaunchAccepted": launch_accepted,
    "LaunchRejected": launch_rejected,
    "LaunchSettled": launch_settled,
    "LaunchClosed": launch_closed,
    "MachinesAssigned": machines_assigned,
    "RequestFellShort": request_fell_short,
    "RequestsSeen": requests_seen,
}
