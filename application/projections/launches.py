"""The read models `batches` and `terminations`: the worker's open business with AWS."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.projections.record import Record, Rows


def launch_intended(record: Record, rows: Rows) -> None:
    data = record.data
    rows.put(
        "batches",
        {
            "batch_id": record.identifier,
            "state": "open",
            "epoch": data["epoch"],
            "token": data["token"],
            "account": data["account"],
            "region": data["region"],
            "pool": data["pool"],
            "provider": data["provider"],
            "template_id": data["template_id"],
            "revision": data["revision"],
            "payload": data["payload"],
            "claims": data["claims"],
            "machine_count": sum(count for _, count in data["claims"]),
            "code": "",
            "message": "",
            **record.origin(),
        },
    )


def _close(record: Record, rows: Rows, state: str, code: str = "", message: str = "") -> None:
    row = rows.get("batches", record.identifier)
    assert row is not None
    row["state"] = state
    row["code"] = code
    row["message"] = message
    row["updated_at"] = record.recorded_at
    rows.put("batches", row)


def launch_accepted(record: Record, rows: Rows) -> None:
    _close(record, rows, "accepted")


def launch_rejected(record: Record, rows: Rows) -> None:
    data = record.data
    state = "rejected" if data["definite"] else "doubtful"
    _close(record, rows, state, data["code"], data["message"])


def launch_settled(record: Record, rows: Rows) -> None:
    _close(record, rows, "settled")


def termination_intended(record: Record, rows: Rows) -> None:
    data = record.data
    row = {
        "termination_id": record.identifier,
        "state": "open",
        "account": data["account"],
        "region": data["region"],
        "zone": data["zone"],
        "machine_ids": data["machine_ids"],
        "reason": data["reason"],
        **record.origin(),
    }
    del row["boot_id"], row["boot_seconds"]
    rows.put("terminations", row)


def _concluded(record: Record, rows: Rows) -> None:
    row = rows.get("terminations", record.identifier)
    assert row is not None
    row["state"] = "concluded"
    row["updated_at"] = record.recorded_at
    rows.put("terminations", row)


HANDLERS = {
    "LaunchIntended": launch_intended,
    "LaunchAccepted": launch_accepted,
    "LaunchRejected": launch_rejected,
    "LaunchSettled": launch_settled,
    "TerminationIntended": termination_intended,
    "TerminationAccepted": _concluded,
    "TerminationRefused": _concluded,
}
