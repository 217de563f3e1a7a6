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
    from collections.abc import Callable, Sequence
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
        ) -> list[str]: ...

        def living(self) -> list[Row]: ...

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


def request(
    view: View, request_id: str, most: int | None = None, read: Callable[[str], Any] = loads
) -> Row:
    """A request or return with its `machines`, `shortages` and `batches`; with `most`, so many
    machines at most and no batches. `read` makes what is wanted of a machine's JSON text. Raises
    UnknownRequest."""
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
    document["machines"] = [*map(read, view.machines(None, request_id, False, limit=most))]
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
    return [*map(loads, view.machines(status, request_id, alive_only))]


def machine(view: View, machine_id: str) -> Row:
    """One machine that is or was ours. Raises NotInLedger."""
    for text in view.machines(None, None, False, machine_id):
        return loads(text)  # type: ignore[no-any-return]
    raise NotInLedger(
        f"the ledger has no machine {machine_id}: `hostledger machines list` shows what it "
        "has, `hostledger orphans list` what carries our tag besides"
    )


def fleet(view: View) -> Row:
    """How many machines live: `machines` in all, and in `by` name -> count of each status,
    template, account, zone and price type, the greatest first."""
    by: dict[str, dict[str, int]] = {
        name: {} for name in ("status", "template", "account", "zone", "price type")
    }
    machines = 0
    for row in view.living():
        machines += row["machines"]
        names = {
            "status": row["status"],
            "template": row["template_id"],
            "account": f"{row['account']}/{row['region']}",
            "zone": row["zone"],
            "price type": row["price_type"],
        }
        for kind, name in names.items():
            by[kind][name] = by[kind].get(name, 0) + row["machines"]
    return {
        "machines": machines,
        "by": {
            kind: dict(sorted(counts.items(), key=lambda count: (-count[1], count[0])))
            for kind, counts in by.items()
        },
    }


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
    document["machines"] = [*map(loads, view.machines(None, None, False, batch_id=batch_id))]
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
                if row["boot_id"] == now[1] and row["expires"] > 0
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
AS_IT_IS, OR_NULL, TRUTH, MOMENT = "as it is", "or null", "truth", "moment"
"""How a field is told of a column: OR_NULL is null for an empty text, TRUTH that of 0 and 1, MOMENT
the time of seconds since the epoch."""

MACHINE = (
    ("machine_id", "machine_id", AS_IT_IS),
    ("status", "status", AS_IT_IS),
    ("result", "result", AS_IT_IS),
    ("message", "message", AS_IT_IS),
    ("alive", "alive", TRUTH),
    ("owed", "owed", OR_NULL),
    ("protected", "protected", OR_NULL),
    ("name", "name", AS_IT_IS),
    ("private_ip_address", "private_ip_address", AS_IT_IS),
    ("instance_type", "instance_type", AS_IT_IS),
    ("price_type", "price_type", AS_IT_IS),
    ("account", "account", AS_IT_IS),
    ("region", "region", AS_IT_IS),
    ("zone", "zone", AS_IT_IS),
    ("provider", "provider", AS_IT_IS),
    ("template_id", "template_id", AS_IT_IS),
    ("revision", "revision", AS_IT_IS),
    ("request_id", "request_id", OR_NULL),
    ("return_id", "return_id", OR_NULL),
    ("batch_id", "batch_id", AS_IT_IS),
    ("seen_by_host_factory", "seen", TRUTH),
    ("launch_time", "launch_time", MOMENT),
    ("created_at", "created_at", AS_IT_IS),
    ("updated_at", "updated_at", AS_IT_IS),
)
"""The fields of a machine's document: name, column, how. The store writes it, as a JSON text: there
are many of them in an answer, and made of values one by one they would be most of its cost."""

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
