"""The read models `batches`, `fleets`, `launch_templates` and `terminations`: the worker's open
business with AWS."""

from __future__ import annotations

from application.projections.requests import left_of_claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
            "machine_count": data["machines"],
            "api": data["api"],
            "launch_template": data["launch_template"],
            "reason": data["reason"],
            "code": "",
            "message": "",
            "settlement": "",
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
    _close(record, rows, "filling" if record.data["filling"] else "accepted")


def launch_rejected(record: Record, rows: Rows) -> None:
    data = record.data
    state = "rejected" if data["definite"] else "doubtful"
    _close(record, rows, state, data["code"], data["message"])


def launch_settled(record: Record, rows: Rows) -> None:
    row = rows.get("batches", record.identifier)
    assert row is not None
    if row["state"] == "filling":
        row["claims"] = left_of_claims(row["claims"], record.data)
        _close(record, rows, "filling")
    else:
        _close(record, rows, "settled")


def launch_settlement_ordered(record: Record, rows: Rows) -> None:
    row = rows.get("batches", record.identifier)
    assert row is not None
    row["settlement"] = record.data["reason"]
    rows.put("batches", row)


def launch_closed(record: Record, rows: Rows) -> None:
    _close(record, rows, "closed")


def fleet_created(record: Record, rows: Rows) -> None:
    data = record.data
    rows.put(
        "fleets",
        {
            "batch_id": record.identifier,
            "state": "live",
            "intended": None,
            "intended_on_demand": 0,
            "reason": "",
            **data,
            **record.origin(),
        },
    )


def _fleet(record: Record, rows: Rows, **changes: Any) -> None:
    row = rows.get("fleets", record.identifier)
    assert row is not None
    row |= {**changes, "event_id": record.event_id, "updated_at": record.recorded_at}
    rows.put("fleets", row)


def fleet_target_intended(record: Record, rows: Rows) -> None:
    data = record.data
    _fleet(
        record,
        rows,
        intended=data["target"],
        intended_on_demand=data["on_demand"],
        reason=data["reason"],
    )


def fleet_target_set(record: Record, rows: Rows) -> None:
    _fleet(record, rows, target=record.data["target"], intended=None)


def fleet_deletion_intended(record: Record, rows: Rows) -> None:
    _fleet(record, rows, state="deleting", intended=None, reason=record.data["reason"])


def fleet_deleted(record: Record, rows: Rows) -> None:
    _fleet(record, rows, state="deleted")


def launch_template_intended(record: Record, rows: Rows) -> None:
    row = {"state": "open", **record.data, **record.origin()}
    rows.put("launch_templates", {"template_key": record.identifier, "code": "", **row})


def _template_is(state: str) -> Any:
    def follow(record: Record, rows: Rows) -> None:
        row = rows.get("launch_templates", record.identifier)
        assert row is not None
        code = record.data.get("code", "")
        row |= {"state": state, "code": code, "event_id": record.event_id}
        row["updated_at"] = record.recorded_at
        rows.put("launch_templates", row)

    return follow


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
    "LaunchSettlementOrdered": launch_settlement_ordered,
    "LaunchClosed": launch_closed,
    "FleetCreated": fleet_created,
    "FleetTargetIntended": fleet_target_intended,
    "FleetTargetSet": fleet_target_set,
    "FleetDeletionIntended": fleet_deletion_intended,
    "FleetDeleted": fleet_deleted,
    "LaunchTemplateIntended": launch_template_intended,
    "LaunchTemplateCreated": _template_is("created"),
    "LaunchTemplateRejected": _template_is("rejected"),
    "LaunchTemplateMissed": _template_is("missed"),
    "LaunchTemplateDeletionIntended": _template_is("deleting"),
    "LaunchTemplateDeleted": _template_is("deleted"),
    "TerminationIntended": termination_intended,
    "TerminationAccepted": _concluded,
    "TerminationRefused": _concluded,
}
