"""The read model `machines`: one row and its finished fragments for each machine ever ours."""

from __future__ import annotations

from application.projections import wire_fragments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.projections.record import Record, Rows


PROTECTED = "protected: "
"""Begins the reason for which a return of a protected machine is refused."""

INTERRUPTION = "interruption"


def write_fragments(row: dict[str, Any]) -> None:
    """What HostFactory is answered of the machine."""
    row["fragment"] = fragment = wire_fragments.machine(row)
    row["return_fragment"] = wire_fragments.returned_machine(row, fragment)


def _put(record: Record, rows: Rows, row: dict[str, Any]) -> None:
    row["updated_at"] = record.recorded_at
    row["fragment"] = None
    rows.put("machines", row)


def _put_new(rows: Rows, row: dict[str, Any]) -> None:
    """Its fragments are written at once: what an event lacks stops the projection here."""
    write_fragments(row)
    rows.put("machines", row)


def _owe(row: dict[str, Any], reason: str) -> None:
    """It is to be terminated. What has not succeeded by now never will."""
    if not row["owed"]:
        row["owed"] = reason
    if row["result"] == "executing":
        row["result"] = "fail"
        row["message"] = reason


def machine_launched(record: Record, rows: Rows) -> None:
    data = record.data
    row = {
        "machine_id": record.identifier,
        "return_id": "",
        "status": "pending",
        "result": "executing",
        "message": "",
        "alive": 1,
        "owed": "",
        "seen": 0,
        "protected": "",
        "interrupted": "",
        "interrupted_until": 0,
        **data,
        **record.origin(),
    }
    request = rows.get("requests", data["request_id"]) if data["request_id"] else None
    if request is None:
        _owe(row, "surplus: nobody asks for it any more")
    elif request["final"]:
        _owe(row, f"its request is {request['state']}")
    _put_new(rows, row)


def machine_adopted(record: Record, rows: Rows) -> None:
    """Nobody asked for it and nobody has to wait for it: it is there."""
    data = {name: value for name, value in record.data.items() if name != "reason"}
    row = {
        "machine_id": record.identifier,
        "request_id": "",
        "return_id": "",
        "status": "pending",
        "result": "succeed",
        "message": "",
        "alive": 1,
        "owed": "",
        "seen": 0,
        "protected": "",
        "interrupted": "",
        "interrupted_until": 0,
        **data,
        **record.origin(),
    }
    _put_new(rows, row)


def machine_protected(record: Record, rows: Rows) -> None:
    row = _row(record, rows)
    row["protected"] = record.data["reason"]
    _put(record, rows, row)


def machine_unprotected(record: Record, rows: Rows) -> None:
    row = _row(record, rows)
    row["protected"] = ""
    _put(record, rows, row)


def return_partly_refused(record: Record, rows: Rows) -> None:
    """HostFactory was told that a protected machine stays: lifting the protection must not end it.
    What EC2 would not end is tried on."""
    for machine_id, why in record.data["refused"]:
        row = rows.get("machines", machine_id)
        if row is not None and row["alive"] and why.startswith(PROTECTED):
            row["owed"] = ""
            _put(record, rows, row)


def _row(record: Record, rows: Rows) -> dict[str, Any]:
    row = rows.get("machines", record.identifier)
    assert row is not None
    return row


def machine_running(record: Record, rows: Rows) -> None:
    row = _row(record, rows)
    row["name"] = record.data["name"]
    row["private_ip_address"] = record.data["private_ip_address"]
    row["launch_time"] = record.data["launch_time"]
    if row["status"] == "pending":
        row["status"] = "running"
    if row["result"] == "executing":
        row["result"] = "succeed"
    _put(record, rows, row)


def machine_interrupted(record: Record, rows: Rows) -> None:
    """AWS takes it: HostFactory is told until when. A rebalance recommendation says that it may be
    so soon; the interruption, which is certain, counts more."""
    row = _row(record, rows)
    if not row["interrupted"] or record.data["reason"] == INTERRUPTION:
        row["interrupted"] = record.data["reason"]
        row["interrupted_until"] = record.data["until"]
        _put(record, rows, row)


def machines_returned(record: Record, rows: Rows) -> None:
    for machine_id in record.data["machine_ids"]:
        row = rows.get("machines", machine_id)
        assert row is not None
        row["return_id"] = record.identifier
        if row["alive"]:
            _owe(row, record.data["reason"])
        _put(record, rows, row)


def termination_intended(record: Record, rows: Rows) -> None:
    for machine_id in record.data["machine_ids"]:
        row = rows.get("machines", machine_id)
        if row is not None and row["alive"]:
            _owe(row, record.data["reason"])
            _put(record, rows, row)


def termination_accepted(record: Record, rows: Rows) -> None:
    for machine_id in record.data["machine_ids"]:
        row = rows.get("machines", machine_id)
        if row is not None and row["alive"]:
            row["status"] = "shutting-down"
            _put(record, rows, row)


def machine_gone(record: Record, rows: Rows) -> None:
    """Its status follows EC2; its result is changed only while its request is not final."""
    row = _row(record, rows)
    row["alive"] = 0
    row["status"] = "terminated"
    request = rows.get("requests", row["request_id"]) if row["request_id"] else None
    undecided = request is not None and not request["final"] and not row["return_id"]
    if row["result"] == "executing" or (row["result"] == "succeed" and undecided):
        row["result"] = "fail"
    if row["result"] == "fail" and not row["message"]:
        row["message"] = record.data["reason"]
    _put(record, rows, row)


def machines_seen(record: Record, rows: Rows) -> None:
    for machine_id in record.data["machine_ids"]:
        row = rows.get("machines", machine_id)
        if row is not None:
            row["seen"] = 1
            rows.put("machines", row)


HANDLERS = {
    "MachineLaunched": machine_launched,
    "MachineAdopted": machine_adopted,
    "MachineProtected": machine_protected,
    "MachineUnprotected": machine_unprotected,
    "MachineRunning": machine_running,
    "MachineInterrupted": machine_interrupted,
    "MachinesReturned": machines_returned,
    "ReturnPartlyRefused": return_partly_refused,
    "TerminationIntended": termination_intended,
    "TerminationAccepted": termination_accepted,
    "MachineTerminated": machine_gone,
    "MachineLost": machine_gone,
    "MachinesSeen": machines_seen,
}
