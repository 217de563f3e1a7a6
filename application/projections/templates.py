"""The read model `templates`: each provider instance's templates as the ledger knows them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.projections.record import Record, Rows


def template_revised(record: Record, rows: Rows) -> None:
    data = record.data
    rows.put(
        "templates",
        {
            "template_key": record.identifier,
            "provider": data["provider"],
            "template_id": data["template_id"],
            "revision": data["revision"],
            "retired": 0,
            "content": data["content"],
            "updated_at": record.recorded_at,
        },
    )
    rows.put(
        "template_revisions",
        {"revision_key": f"{record.identifier}@{data['revision']}", "content": data["content"]},
    )


def template_retired(record: Record, rows: Rows) -> None:
    row = rows.get("templates", record.identifier)
    assert row is not None
    row["retired"] = 1
    row["updated_at"] = record.recorded_at
    rows.put("templates", row)


HANDLERS = {"TemplateRevised": template_revised, "TemplateRetired": template_retired}
