"""The read model `requests`: acquires and returns, as HostFactory and people ask after them."""

from __future__ import annotations

from application.projections import wire_fragments

TYPE_CHECKING = False
if TYPE_CHECKING:
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


def _claim(rows: Rows, claims: list[list[object]], sign: int) -> None:
    for request_id, count in claims:
        row = rows.get("requests", request_id)
        assert row is not None
        row["claimed"] += sign * count  # type: ignore[operator]
        rows.put("requests", row)


def _release(record: Record, rows: Rows) -> None:
    """The batch's claims are closed: what was dealt counts, what was not is open demand again."""
    batch = rows.get("batches", record.identifier)
    assert batch is not None
    if batch["state"] in ("open", "doubtful"):
        _claim(rows, batch["claims"], -1)
    for request_id, machine_ids in record.data.get("deal", ()):
        row = rows.get("requests", request_id)
        assert row is not None
        row["dealt"] += len(machine_ids)
        rows.put("requests", row)


def launch_rejected(record: Record, rows: Rows) -> None:
    if record.data["definite"]:
        _release(record, rows)


def request_fell_short(record: Record, rows: Rows) -> None:
    row = rows.get("requests", record.identifier)
    assert row is not None
    if record.data["gives_up"]:
        row["stopped"] = 1
    rows.put("requests", row)


def machines_assigned(record: Record, rows: Rows) -> None:
    row = rows.get("requests", record.identifier)
    assert row is not None
    row["assigned"] += len(record.data["machine_ids"])
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
    "LaunchAccepted": _release,
    "LaunchRejected": launch_rejected,
    "LaunchSettled": _release,
    "MachinesAssigned": machines_assigned,
    "RequestFellShort": request_fell_short,
    "RequestsSeen": requests_seen,
}
