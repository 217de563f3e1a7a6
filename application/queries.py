"""The reads: what an operator is told of requests, machines and the store itself.

Documents have snake_case keys, times in ISO 8601 UTC, and null for what there is not.
"""

from __future__ import annotations

import time
from functools import lru_cache

from application.failures import EventsArchivedAway
from application.instants import Instant
from application.json_text import loads
from domain.refusals import UnknownRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    Row = dict[str, Any]

    class View(Protocol):
        """One consistent look at a store; rows are as its tables have them."""

        def requests(
            self, status: str | None, open_only: bool, limit: int | None, request_id: str = ""
        ) -> list[Row]: ...

        def machines(
            self,
            status: str | None,
            request_id: str | None,
            alive_only: bool,
            machine_id: str = "",
            batch_id: str = "",
            limit: int | None = None,
        ) -> list[Row]: ...

        def returned(self, return_id: str) -> list[Row]: ...

        def batches_of(self, request_id: str) -> list[Row]: ...

        def batches(self, open_only: bool, limit: int | None, batch_id: str = "") -> list[Row]: ...

        def fleets(self, all_states: bool) -> list[Row]: ...

        def launch_templates(self, all_states: bool) -> list[Row]: ...

        def templates(self, provider: str) -> list[Row]: ...

        def orphans(self) -> list[Row]: ...

        def events_of(self, stream: str) -> list[Row]: ...

        def facts(self) -> Row: ...


class NotInLedger(Exception):
    """The ledger has nothing of that id. `str()` says which, and where to look."""


def requests(
    view: View, status: str | None = None, open_only: bool = False, limit: int | None = None
) -> list[Row]:
    """Requests and returns, the newest first."""
    return [request_document(row) for row in view.requests(status, open_only, limit)]


def request(view: View, request_id: str, most: int | None = None) -> Row:
    """A request or return with its `machines`, `shortages` and `batches`; with `most`, so many
    machines at most and no batches. Raises UnknownRequest."""
    rows = view.requests(None, False, 1, request_id)
    if not rows:
        raise UnknownRequest(
            f"the ledger has no request {request_id}: `hostledger requests list` shows what it has"
        )
    document = request_document(rows[0])
    if document["kind"] == "return":
        document["machines"] = view.returned(request_id)[:most]
        document["shortages"] = []
        return document
    rows = view.machines(None, request_id, False, limit=most)
    document["machines"] = [machine_document(row) for row in rows]
    try:
        document["shortages"] = [
            {"recorded_at": event["recorded_at"], **loads(event["data"])}
            for event in view.events_of(f"request-{request_id}")
            if event["topic"] == "RequestFellShort"
        ]
    except EventsArchivedAway:
        document["shortages"] = None
    if most is None:
        document["batches"] = [batch_document(row) for row in view.batches_of(request_id)]
    return document


def machines(
    view: View,
    status: str | None = None,
    request_id: str | None = None,
    alive_only: bool = False,
) -> list[Row]:
    """Machines in the order in which they came."""
    return [machine_document(row) for row in view.machines(status, request_id, alive_only)]


def machine(view: View, machine_id: str) -> Row:
    """One machine that is or was ours. Raises NotInLedger."""
    rows = view.machines(None, None, False, machine_id)
    if not rows:
        raise NotInLedger(
            f"the ledger has no machine {machine_id}: `hostledger machines list` shows what it "
            "has, `hostledger orphans list` what carries our tag besides"
        )
    return machine_document(rows[0])


def batches(view: View, open_only: bool = False, limit: int | None = None) -> list[Row]:
    """Launches, those without an outcome first, then the newest."""
    return [batch_document(row) for row in view.batches(open_only, limit)]


def batch(view: View, batch_id: str) -> Row:
    """One launch with the `machines` that it gave. Raises NotInLedger."""
    rows = view.batches(False, 1, batch_id)
    if not rows:
        raise NotInLedger(
            f"the ledger has no batch {batch_id}: `hostledger batches list` shows what it has"
        )
    document = batch_document(rows[0])
    document["machines"] = [
        machine_document(row) for row in view.machines(None, None, False, batch_id=batch_id)
    ]
    return document


def fleets(view: View, all_states: bool = False) -> list[Row]:
    """Fleets and groups of ours, in the order in which they were made."""
    return [
        {
            "batch_id": row["batch_id"],
            "state": row["state"],
            "api": row["api"],
            "fleet_type": row["fleet_type"],
            "fleet_id": row["fleet_id"],
            "target": row["target"],
            "intended_target": row["intended"],
            "alive": row["alive"],
            "account": row["account"],
            "region": row["region"],
            "launch_template": row["launch_template"] or None,
            "reason": row["reason"] or None,
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }
        for row in view.fleets(all_states)
    ]


def launch_templates(view: View, all_states: bool = False) -> list[Row]:
    """Launch templates of ours, in the order in which they were made."""
    return [
        {
            "name": row["name"],
            "state": row["state"],
            "account": row["account"],
            "region": row["region"],
            "code": row["code"] or None,
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }
        for row in view.launch_templates(all_states)
    ]


def template_document(template: Row) -> Row:
    """A template as the site offers it (template_id, revision, content)."""
    return {
        "template_id": template["template_id"],
        "revision": template["revision"],
        **template["content"],
    }


def templates(view: View, provider: str) -> list[Row]:
    """The templates of a provider instance as the ledger knows them: as they were last used."""
    return [
        {
            "template_id": row["template_id"],
            "revision": row["revision"],
            **loads(row["content"]),
        }
        for row in view.templates(provider)
    ]


def orphans(view: View) -> list[Row]:
    """Instances with our tag that the last complete sweep saw and the ledger has no machine for."""
    return [{**row, "launch_time": _at(row["launch_time"])} for row in view.orphans()]


NOT_CONFIGURED = (
    "not in the configuration: nobody looks at its machines until provider.accounts has it again"
)


def store_status(view: View, now: Instant, places: Sequence[str]) -> Row:
    """What the store says of itself, its lease holders, sweeps and open work, and of machines in
    accounts (`account/region`) that are not in the configuration (`places`)."""
    facts = view.facts()
    accounts = facts.pop("accounts")
    leases = facts.pop("leases")
    sweeps = facts.pop("sweeps")
    brake = facts.pop("brake")
    return {
        **facts,
        "paused": {"scope": brake["scope"], "reason": brake["reason"], "since": brake["since"]}
        if brake
        else None,
        "accounts": [
            {**row, "problem": None if row["account"] in places else NOT_CONFIGURED}
            for row in accounts
        ],
        "leases": [
            {
                "account": row["account"],
                "owner": row["owner"],
                "fence": row["fence"],
                "program_version": row["program_version"],
                "held": row["boot_id"] == now[1] and row["expires"] > now[2],
                # Told as of the boot clock it was written with; of another boot it means nothing.
                "expires_at": _at(now[0] + row["expires"] - now[2])
                if row["boot_id"] == now[1] and row["expires"]
                else None,
            }
            for row in leases
        ],
        "sweeps": [
            {
                "account": row["account"],
                "began_at": _at(row["began_at"]),
                "instances": row["instances"],
            }
            for row in sweeps
        ],
    }


# -- rows to documents --------------------------------------------------------------------------


REQUEST_COLUMNS = (
    "request_id",
    "kind",
    "state",
    "status",
    "message",
    "machine_count",
    "alive",
    "provider",
    "template_id",
    "revision",
    "source",
    "fulfilment_deadline",
    "created_at",
    "final_at",
)
MACHINE_COLUMNS = (
    "machine_id",
    "status",
    "result",
    "message",
    "alive",
    "owed",
    "protected",
    "name",
    "private_ip_address",
    "instance_type",
    "price_type",
    "account",
    "region",
    "zone",
    "provider",
    "template_id",
    "revision",
    "request_id",
    "return_id",
    "batch_id",
    "seen",
    "launch_time",
    "created_at",
    "updated_at",
)
BATCH_COLUMNS = (
    "batch_id",
    "state",
    "epoch",
    "api",
    "machine_count",
    "pool",
    "provider",
    "template_id",
    "launch_template",
    "reason",
    "settlement",
    "account",
    "region",
    "code",
    "message",
    "token",
    "claims",
    "created_at",
    "updated_at",
)
"""The columns that a document is made of."""


@lru_cache(1024)
def _at(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 UTC, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def request_document(row: Row) -> Row:
    return {
        "request_id": row["request_id"],
        "kind": row["kind"],
        "state": row["state"],
        "status": row["status"],
        "message": row["message"],
        "machine_count": row["machine_count"],
        "alive": row["alive"],
        "provider": row["provider"],
        "template_id": row["template_id"] or None,
        "revision": row["revision"] or None,
        "source": row["source"],
        "fulfilment_deadline": row["fulfilment_deadline"] or None,
        "created_at": row["created_at"],
        "final_at": row["final_at"] or None,
    }


def machine_document(row: Row) -> Row:
    return {
        "machine_id": row["machine_id"],
        "status": row["status"],
        "result": row["result"],
        "message": row["message"],
        "alive": bool(row["alive"]),
        "owed": row["owed"] or None,
        "protected": row["protected"] or None,
        "name": row["name"],
        "private_ip_address": row["private_ip_address"],
        "instance_type": row["instance_type"],
        "price_type": row["price_type"],
        "account": row["account"],
        "region": row["region"],
        "zone": row["zone"],
        "provider": row["provider"],
        "template_id": row["template_id"],
        "revision": row["revision"],
        "request_id": row["request_id"] or None,
        "return_id": row["return_id"] or None,
        "batch_id": row["batch_id"],
        "seen_by_host_factory": bool(row["seen"]),
        "launch_time": _at(row["launch_time"]),
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def batch_document(row: Row) -> Row:
    return {
        "batch_id": row["batch_id"],
        "state": row["state"],
        "epoch": row["epoch"],
        "api": row["api"],
        "machine_count": row["machine_count"],
        "pool": row["pool"],
        "provider": row["provider"],
        "template_id": row["template_id"],
        "launch_template": row["launch_template"] or None,
        "reason": row["reason"],
        "settlement_ordered": row["settlement"] or None,
        "account": row["account"],
        "region": row["region"],
        "code": row["code"],
        "message": row["message"],
        "token": row["token"],
        "claims": [
            {"request_id": request_id, "machine_count": count}
            for request_id, count in loads(row["claims"])
        ],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
