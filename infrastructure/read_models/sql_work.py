"""What is open, asked of the read models for the policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from application.json_text import dumps, loads
from infrastructure.event_store.commit import seconds, to_event
from infrastructure.event_store.sql import SqlEventStore

Row = dict[str, Any]

JSON_COLUMNS = frozenset({"claims", "payload", "machine_ids", "content"})

OPEN_REQUESTS = """
SELECT r.*,
    coalesce(sum(m.units), 0) AS launched,
    coalesce(sum(m.units) FILTER (WHERE m.result = 'succeed'), 0) AS succeeded,
    coalesce(sum(m.units) FILTER (WHERE m.result = 'executing'), 0) AS executing,
    coalesce(sum(m.units) FILTER (WHERE m.result = 'fail' AND m.return_id = ''), 0) AS failed
FROM requests r INDEXED BY requests_open LEFT JOIN machines m ON m.request_id = r.request_id
WHERE r.final = 0 AND r.kind = 'request'
GROUP BY r.request_id ORDER BY r.position
"""
# Left to itself SQLite walks all requests there ever were, in the order by which they are grouped.

NAMED = "json_each(?) j CROSS JOIN machines m WHERE m.machine_id = j.value"
# In this order: left to itself SQLite looks at every living machine, and for each at every name.

OWED = "machines INDEXED BY machines_owed WHERE alive = 1 AND owed <> ''"
# Left to itself SQLite takes another index and looks at every living machine.

OWED_COLUMNS = (
    "machine_id, batch_id, zone, owed, status, return_id, correlation_id, event_id, "
    "protected, interrupted, interrupted_until, created_at, boot_id, boot_seconds"
)

FLEETS = """
SELECT f.*, b.state AS batch_state, b.claims, b.pool, b.template_id, b.revision,
    coalesce(sum(m.units) FILTER (WHERE m.owed = ''), 0) AS kept,
    coalesce(sum(m.units) FILTER (WHERE m.owed = '' AND m.price_type = 'ondemand'), 0)
        AS kept_on_demand,
    count(*) FILTER (WHERE m.owed = '' AND m.status = 'pending') AS kept_pending,
    count(m.machine_id) AS alive,
    (SELECT coalesce(sum(l.units), 0) FROM machines l WHERE l.batch_id = f.batch_id) AS launched
FROM fleets f JOIN batches b ON b.batch_id = f.batch_id
LEFT JOIN machines m ON m.batch_id = f.batch_id AND m.alive = 1
WHERE (f.state <> 'deleted' OR b.state = 'filling') AND f.account = ? AND f.region = ?
GROUP BY f.batch_id, b.batch_id ORDER BY f.position
"""

TEMPLATE_IS_USED = (
    "EXISTS (SELECT 1 FROM batches b WHERE b.launch_template = t.name "
    "AND b.account = t.account AND b.region = t.region "
    "AND b.state IN ('open', 'doubtful', 'filling')) "
    "OR EXISTS (SELECT 1 FROM fleets f WHERE f.launch_template = t.name "
    "AND f.account = t.account AND f.region = t.region AND f.state <> 'deleted')"
)

TEMPLATE_IS_THERE = "state IN ('open', 'created', 'missed', 'deleting')"

STILL_FILLING = """(SELECT CASE WHEN asked < wanted THEN asked ELSE wanted END FROM (SELECT
    (SELECT sum(CAST(json_extract(c.value, '$[1]') AS bigint)) FROM json_each(b.claims) c)
        AS wanted,
    (SELECT coalesce(max(b.machine_count - n), 0) FROM
        (SELECT count(*) AS n FROM machines l WHERE l.batch_id = b.batch_id) c
        WHERE n < b.machine_count) AS asked) a)
"""
# What a fleet may launch yet, in machines: no more than the units that its claims lack, nor than it
# was asked for and has not launched.

JUST_LAUNCHED = """
SELECT b.provider, b.template_id, b.revision, b.account,
    json_array_length(e.data, '$.instances') AS machines
FROM events e JOIN batches b ON b.batch_id = substr(e.stream, 7)
WHERE e.topic IN ('LaunchAccepted', 'LaunchSettled') AND e.position >
    (SELECT coalesce(max(position), 0) FROM tracking WHERE name = 'assigning')
"""
# Launched, and in no row of `machines` before the next turn of the policy assigning.

NONE_SEEN = "NOT EXISTS (SELECT 1 FROM machines s WHERE s.request_id = r.request_id AND s.seen = 1)"
# A machine that HostFactory names is known to it, however it came to know it, and its request too.


class SqlWork:
    """The port `Work` over the store's own tables, for one account and region: what lies elsewhere
    cannot be seen from here, and nothing may be concluded from that."""

    def __init__(self, store: SqlEventStore, account: str, region: str) -> None:
        self._store = store
        self._place = (account, region)

    def _rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        cursor = self._store.connection.execute(statement, tuple(parameters))
        names = [column[0] for column in cursor.description]
        return [_row(names, values) for values in cursor.fetchall()]

    def open_batches(self) -> list[Row]:
        """Batches without a final outcome: `state` open, doubtful or filling."""
        return self._rows(
            "SELECT * FROM batches WHERE state IN ('open', 'doubtful') "
            "AND account = ? AND region = ? UNION ALL SELECT * FROM batches "
            "WHERE state = 'filling' AND account = ? AND region = ? ORDER BY position",
            self._place * 2,
        )

    def rejected_batch(
        self, batch_id: str, payload: dict[str, Any], claims: list[list[Any]]
    ) -> Row | None:
        """The last batch that was definitely rejected with these claims and this payload, but for
        its own id in the tags."""
        rows = self._rows(
            "SELECT * FROM batches WHERE state = 'rejected' AND claims = ? ORDER BY position DESC",
            (dumps(claims),),
        )
        text = dumps(payload)
        for row in rows:
            if text.replace(batch_id, row["batch_id"]) == dumps(row["payload"]):
                return row
        return None

    def batch(self, batch_id: str) -> Row | None:
        """A batch with the claims that are left of it; None when the log has none of this id."""
        rows = self._rows("SELECT * FROM batches WHERE batch_id = ?", (batch_id,))
        return rows[0] if rows else None

    def fleets(self) -> list[Row]:
        """Fleets and groups that are there or whose batch is filling, with their batch's state and
        claims, the units `kept` (alive and not to be ended) and how many machines are `alive`."""
        return self._rows(FLEETS, self._place)

    def launch_template(self, key: str) -> Row | None:
        rows = self._rows("SELECT * FROM launch_templates WHERE template_key = ?", (key,))
        return rows[0] if rows else None

    def launch_templates(self) -> list[Row]:
        """Launch templates of ours that may be there, and whether anything is `used` with them."""
        return self._rows(
            f"SELECT t.*, {TEMPLATE_IS_USED} AS used "
            f"FROM launch_templates t WHERE t.{TEMPLATE_IS_THERE} "
            "AND t.account = ? AND t.region = ? ORDER BY t.position",
            self._place,
        )

    def launch_template_names(self) -> list[str]:
        """Names of those that may be there, in whatever account: a site may have several names for
        one of AWS's."""
        rows = self._rows(f"SELECT DISTINCT name FROM launch_templates WHERE {TEMPLATE_IS_THERE}")
        return [row["name"] for row in rows]

    def had_launch_template(self) -> bool:
        """Whether one was ever to be made here."""
        return bool(
            self._rows(
                "SELECT 1 AS one FROM launch_templates WHERE account = ? AND region = ? LIMIT 1",
                self._place,
            )
        )

    def open_requests(self) -> list[Row]:
        """Requests that are not final, oldest first, with the units of their machines by result."""
        return self._rows(OPEN_REQUESTS)

    def brake(self) -> tuple[str, str]:
        """What the operator has paused ("launching", "everything" or "") and why."""
        rows = self._rows("SELECT scope, reason FROM brake")
        return (rows[0]["scope"], rows[0]["reason"]) if rows else ("", "")

    def launch_apis(self) -> list[str]:
        """The APIs by which anything was ever launched."""
        return [row["api"] for row in self._rows("SELECT DISTINCT api FROM batches")]

    def fleet_apis(self) -> list[str]:
        """The APIs by which a fleet or group was ever made here that may go on launching."""
        rows = self._rows(
            "SELECT DISTINCT api FROM fleets "
            "WHERE fleet_type <> 'instant' AND account = ? AND region = ?",
            self._place,
        )
        return [row["api"] for row in rows]

    def machines_by_account(self) -> dict[str, int]:
        """Account -> how many machines live in it or are asked of it."""
        rows = self._rows(
            "SELECT account, sum(machines) AS machines FROM ("
            "SELECT account, count(*) AS machines FROM machines WHERE alive = 1 GROUP BY account "
            "UNION ALL SELECT account, machine_count FROM batches "
            "WHERE state IN ('open', 'doubtful') UNION ALL "
            f"SELECT account, {STILL_FILLING} FROM batches b "
            "WHERE state = 'filling' AND claims <> '[]' UNION ALL "
            f"SELECT account, machines FROM ({JUST_LAUNCHED}) j) a GROUP BY account"
        )
        return {row["account"]: row["machines"] for row in rows}

    def abandoned(self, places: Sequence[tuple[str, str]]) -> list[Row]:
        """What lives or is open elsewhere than in these accounts and regions: account, region,
        machines, batches."""
        rows = self._rows(
            "SELECT account, region, sum(machines) AS machines, sum(batches) AS batches FROM ("
            "SELECT account, region, count(*) AS machines, 0 AS batches FROM machines "
            "WHERE alive = 1 GROUP BY account, region UNION ALL "
            "SELECT account, region, 0, count(*) FROM batches "
            "WHERE state IN ('open', 'doubtful', 'filling') GROUP BY account, region) a "
            "GROUP BY account, region ORDER BY account, region"
        )
        return [row for row in rows if (row["account"], row["region"]) not in places]

    def machines_by_template(self) -> list[Row]:
        """How many machines live, or are asked of AWS, of each revision of each template, in all
        accounts: provider, template_id, revision, account, machines."""
        what = "provider, template_id, revision, account"
        return self._rows(
            f"SELECT {what}, sum(machines) AS machines FROM ("
            f"SELECT {what}, count(*) AS machines FROM machines "
            f"WHERE alive = 1 GROUP BY {what} UNION ALL "
            f"SELECT {what}, machine_count FROM batches "
            "WHERE state IN ('open', 'doubtful') UNION ALL "
            f"SELECT {what}, {STILL_FILLING} FROM batches b "
            f"WHERE state = 'filling' AND claims <> '[]' UNION ALL {JUST_LAUNCHED}) t "
            f"GROUP BY {what}"
        )

    def template_content(self, template_key: str, revision: str) -> dict[str, Any]:
        rows = self._rows(
            "SELECT content FROM template_revisions WHERE revision_key = ?",
            (f"{template_key}@{revision}",),
        )
        return rows[0]["content"]  # type: ignore[no-any-return]

    def templates(self, provider: str) -> dict[str, str]:
        """template id -> revision of what is not retired."""
        return {
            row["template_id"]: row["revision"]
            for row in self._rows(
                "SELECT template_id, revision FROM templates WHERE provider = ? AND retired = 0",
                (provider,),
            )
        }

    def body(self, digest: str) -> bytes | None:
        rows = self._rows("SELECT body FROM bodies WHERE digest = ?", (digest,))
        return bytes(rows[0]["body"]) if rows else None

    def owed_machines(self) -> list[Row]:
        """Machines that are to be terminated, and those that EC2 has not started yet."""
        return self._rows(
            f"SELECT {OWED_COLUMNS} FROM {OWED} AND account = ? AND region = ? "
            f"UNION ALL SELECT {OWED_COLUMNS} FROM machines "
            "WHERE status = 'pending' AND alive = 1 AND owed = '' AND account = ? AND region = ?",
            self._place * 2,
        )

    def open_terminations(self) -> list[Row]:
        return self._rows(
            "SELECT * FROM terminations WHERE state = 'open' AND account = ? AND region = ? "
            "ORDER BY position",
            self._place,
        )

    def alive_machines(self, machine_ids: Sequence[str] | None = None) -> list[Row]:
        which = "machines m WHERE true" if machine_ids is None else NAMED
        named = () if machine_ids is None else (dumps(list(machine_ids)),)
        return self._rows(
            "SELECT m.machine_id, m.status, m.name, m.owed, m.request_id, m.correlation_id, "
            "m.event_id, m.created_at, m.updated_at, m.boot_id, m.boot_seconds "
            f"FROM {which} AND m.alive = 1 AND m.account = ? AND m.region = ?",
            (*named, *self._place),
        )

    def count_alive(self) -> int:
        rows = self._rows(
            "SELECT count(*) AS machines FROM machines "
            "WHERE alive = 1 AND account = ? AND region = ?",
            self._place,
        )
        return rows[0]["machines"]  # type: ignore[no-any-return]

    def machines_in(self, statuses: Sequence[str]) -> list[str]:
        """Ids of the living machines whose status is one of these."""
        rows = self._rows(
            "SELECT machine_id FROM machines WHERE alive = 1 AND status IN "
            f"({', '.join('?' * len(statuses))}) AND account = ? AND region = ?",
            (*statuses, *self._place),
        )
        return [row["machine_id"] for row in rows]

    def interruptible(self, machine_ids: Sequence[str]) -> list[Row]:
        """Those of these that are ours and alive."""
        return self._rows(
            "SELECT m.machine_id, m.correlation_id, m.event_id "
            f"FROM {NAMED} AND m.alive = 1 ORDER BY j.key",
            (dumps(list(machine_ids)),),
        )

    def anything_alive(self) -> bool:
        return bool(self._rows("SELECT 1 AS one FROM machines WHERE alive = 1 LIMIT 1"))

    def living_machines_of(self, request_id: str) -> list[str]:
        """Machines of a request that live and that nobody has returned, in the order in which they
        came."""
        rows = self._rows(
            "SELECT machine_id FROM machines "
            "WHERE request_id = ? AND alive = 1 AND return_id = '' ORDER BY position, machine_id",
            (request_id,),
        )
        return [row["machine_id"] for row in rows]

    def open_returns(self) -> list[Row]:
        """Returns that are not final, with `alive` (ids of ours), those of them that are
        `protected` (id -> why) and `strangers` ([id, name])."""
        rows = self._rows(
            "SELECT * FROM requests WHERE final = 0 AND kind = 'return' ORDER BY position"
        )
        for row in rows:
            row["alive"] = []
            row["protected"] = {}
            row["strangers"] = []
            for item in self._rows(
                "SELECT r.machine_id, r.name, r.ours, m.protected FROM returned_machines r "
                "LEFT JOIN machines m ON r.ours = 1 AND m.machine_id = r.machine_id "
                "WHERE r.return_id = ? AND (r.ours = 0 OR m.alive = 1) ORDER BY r.ordinal",
                (row["request_id"],),
            ):
                if item["ours"]:
                    row["alive"].append(item["machine_id"])
                    if item["protected"]:
                        row["protected"][item["machine_id"]] = item["protected"]
                else:
                    row["strangers"].append([item["machine_id"], item["name"]])
        return rows

    def protected(self, machine_ids: Sequence[str]) -> list[str]:
        """Those of these machines that are ours and that nothing of ours may end."""
        rows = self._rows(
            f"SELECT m.machine_id FROM {NAMED} AND m.protected <> '' AND m.alive = 1 "
            "ORDER BY j.key",
            (dumps(list(machine_ids)),),
        )
        return [row["machine_id"] for row in rows]

    def known_machines(self, machine_ids: Sequence[str]) -> dict[str, bool]:
        """Those of these that were ever ours, and whether the ledger says that they live."""
        rows = self._rows(
            f"SELECT m.machine_id, m.alive FROM {NAMED}",
            (dumps(list(machine_ids)),),
        )
        return {row["machine_id"]: bool(row["alive"]) for row in rows}

    def tracked(self, name: str) -> int:
        """The position that was last tracked under this name; 0 at first."""
        rows = self._rows("SELECT position FROM tracking WHERE name = ?", (name,))
        return rows[0]["position"] if rows else 0

    def refusals(self, position: int) -> dict[str, str]:
        """Machine -> the code by which EC2 refused to end it, when that was its last word after
        this position."""
        codes: dict[str, str] = {}
        for row in self._rows(
            "SELECT topic, data FROM events WHERE position > ? "
            "AND topic IN ('TerminationAccepted', 'TerminationRefused') ORDER BY position",
            (position,),
        ):
            data = loads(row["data"])
            codes |= dict(data.get("refused", ()))
            for machine_id in data.get("machine_ids", ()):
                codes.pop(machine_id, None)
        return codes

    def events_after(self, policy: str, topics: Sequence[str], limit: int) -> list[Row]:
        """The next events of these topics that the policy has not processed."""
        rows = self._rows(
            "SELECT position, event_id, stream, version, topic, class_version, metadata, data "
            "FROM events WHERE position > "
            "(SELECT coalesce(max(position), 0) FROM tracking WHERE name = ?) "
            f"AND topic IN ({', '.join('?' * len(topics))}) ORDER BY position LIMIT ?",
            (policy, *topics, limit),
        )
        return [
            {
                "position": row["position"],
                "event_id": row["event_id"],
                "topic": row["topic"],
                "identifier": row["stream"].partition("-")[2],
                "correlation_id": loads(row["metadata"])["correlation_id"],
                "data": vars(
                    to_event(
                        row["stream"],
                        row["version"],
                        row["topic"],
                        row["class_version"],
                        row["data"],
                    )
                ),
            }
            for row in rows
        ]

    def first_sightings(
        self, requests: list[str], finals: list[str], machines: list[str]
    ) -> tuple[list[str], list[str], list[str]]:
        """Of what was named, what no event says was named before."""

        def first(table: str, key: str, column: str, ids: list[str]) -> list[str]:
            rows = self._rows(
                f"SELECT t.{key} AS id FROM json_each(?) j JOIN {table} t ON t.{key} = j.value "
                f"WHERE t.{column} = 0 ORDER BY j.key",
                (dumps(ids),),
            )
            return [row["id"] for row in rows]

        return (
            first("requests", "request_id", "seen", requests),
            first("requests", "request_id", "answered_final", finals),
            first("machines", "machine_id", "seen", machines),
        )

    def unseen_requests(self) -> list[Row]:
        """Requests by the scripts that HostFactory has never named, nor any machine of theirs,
        still open or with living machines."""
        return self._rows(
            "SELECT request_id, provider, final FROM requests r INDEXED BY requests_open "
            "WHERE final = 0 AND kind = 'request' AND seen = 0 AND source = 'hostfactory' "
            f"AND {NONE_SEEN} UNION SELECT r.request_id, r.provider, r.final "
            # Each request once: asked for each of its machines, it would cost their square.
            "FROM (SELECT DISTINCT request_id FROM machines "
            "WHERE alive = 1 AND seen = 0 AND return_id = '') m JOIN requests r USING (request_id) "
            f"WHERE r.seen = 0 AND r.source = 'hostfactory' AND {NONE_SEEN} ORDER BY request_id"
        )

    def unclaimed_machines(self) -> list[Row]:
        """Machines told to HostFactory as usable that it has never named among its hosts."""
        return self._rows(
            "SELECT m.machine_id, m.provider FROM machines m JOIN requests r USING (request_id) "
            "WHERE m.alive = 1 AND m.seen = 0 AND m.result = 'succeed' AND m.return_id = '' "
            "AND r.answered_final = 1 AND r.source = 'hostfactory'"
        )

    def stream_version(self, stream: str) -> int:
        """The version of a stream's last event; 0 when it has none."""
        rows = self._rows("SELECT max(version) AS last FROM events WHERE stream = ?", (stream,))
        return rows[0]["last"] or 0

    def oldest_instant(self) -> float:
        """Wall seconds of the log's first event or its last activation, the later of the two."""
        (at,) = self._store.connection.execute(
            "SELECT max(recorded_at) FROM events WHERE stream = 'deployment'"
        ).fetchone()
        return seconds(at)

    def anything_open(self) -> bool:
        """Whether a request, return, batch or termination waits for something."""
        return bool(
            self._rows(
                "SELECT 1 AS one FROM requests WHERE final = 0 UNION ALL "
                "SELECT 1 FROM batches WHERE state IN ('open', 'doubtful') UNION ALL "
                "SELECT 1 FROM batches WHERE state = 'filling' UNION ALL "
                "SELECT 1 FROM fleets f WHERE state <> 'deleted' AND (state = 'deleting' "
                "OR intended IS NOT NULL OR NOT EXISTS "
                "(SELECT 1 FROM machines m WHERE m.batch_id = f.batch_id AND m.alive = 1)) "
                "UNION ALL SELECT 1 FROM launch_templates t "
                "WHERE state IN ('open', 'created', 'missed', 'deleting') "
                f"AND NOT ({TEMPLATE_IS_USED}) "
                "UNION ALL "
                "SELECT 1 FROM terminations WHERE state = 'open' UNION ALL "
                f"SELECT 1 FROM {OWED} LIMIT 1"
            )
        )


def _row(names: list[str], values: Sequence[Any]) -> Row:
    row = dict(zip(names, values, strict=True))
    for column in JSON_COLUMNS & row.keys():
        row[column] = loads(row[column])
    if "boot_seconds" in row:
        row["created"] = (seconds(row["created_at"]), row["boot_id"], row["boot_seconds"])
    if "updated_at" in row:
        row["updated"] = seconds(row["updated_at"])
    return row
