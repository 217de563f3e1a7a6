"""The operator's questions to a store that speaks SQL: its read models, log and notebook."""

from __future__ import annotations

import re
from operator import itemgetter

from application.failures import StoreError, archived_away
from application.json_text import dumps, loads
from application.projections.record import COLUMNS
from application.queries import AS_IT_IS, MACHINE, MOMENT, OR_NULL, TRUTH
from infrastructure.event_store.sqlite_driver import sqlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from application.projections.record import Record
    from infrastructure.event_store.archives import Archives

    Row = dict[str, Any]

# The + keeps SQLite from going through all machines that live for those of one request.
ALIVE = """CASE r.kind
    WHEN 'request' THEN (
        SELECT count(*) FROM machines m WHERE m.request_id = r.request_id AND +m.alive = 1)
    ELSE (
        SELECT count(*) FROM returned_machines i JOIN machines m USING (machine_id)
        WHERE i.return_id = r.request_id AND i.ours = 1 AND m.alive = 1)
    END AS alive"""
REQUESTS = f"SELECT r.*, {ALIVE} FROM requests r"
RETURNED = """
SELECT i.machine_id, i.name, i.ours, m.status, m.alive
FROM returned_machines i LEFT JOIN machines m ON i.ours = 1 AND m.machine_id = i.machine_id
WHERE i.return_id = ? ORDER BY i.ordinal
"""
BATCHES = """
SELECT b.* FROM batches b
WHERE EXISTS (SELECT 1 FROM json_each(b.claims) c WHERE json_extract(c.value, '$[0]') = ?)
ORDER BY b.position
"""
COUNTS = """
SELECT
    (SELECT count(*) FROM requests WHERE final = 0 AND kind = 'request') AS open_requests,
    (SELECT count(*) FROM requests WHERE final = 0 AND kind = 'return') AS open_returns,
    (SELECT count(*) FROM batches WHERE state IN ('open', 'doubtful', 'filling')) AS open_batches,
    (SELECT count(*) FROM terminations WHERE state = 'open') AS open_terminations,
    (SELECT count(*) FROM machines WHERE alive = 1) AS live_machines,
    (SELECT count(*) FROM orphans) AS orphans
"""


TOPIC = itemgetter(COLUMNS.index("topic"))

PLANNED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")
"""What statements begin with that the store makes a plan for."""

TOLD = {
    AS_IT_IS: "r.{}",
    OR_NULL: "nullif(r.{}, '')",
    TRUTH: "json(CASE r.{} WHEN 1 THEN 'true' ELSE 'false' END)",
    MOMENT: "strftime('%Y-%m-%dT%H:%M:%SZ', r.{}, 'unixepoch')",
}
FIELDS = ", ".join(f"'{name}', {TOLD[how].format(column)}" for name, column, how in MACHINE)
DOCUMENT = f"CAST(json_object({FIELDS}) AS TEXT) AS document"
"""The document of a machine, as a JSON text."""

COMPUTED = {("requests", "alive"): ALIVE, ("machines", "document"): DOCUMENT}
"""(table, column) of what is no column, but told like one."""

ALL = 2**62
"""A LIMIT that is none."""

PAGE = 2_000
"""Rows that are read at once."""


def _where(given: dict[str, str], only: str, is_only: bool) -> tuple[str, list[str]]:
    """The condition of what is given (column -> value, "" for any), and its parameters: what is not
    asked for is not in it, so that an index can serve."""
    values = {f"{column} = ?": value for column, value in given.items() if value}
    return " AND ".join([*values, *[only] * is_only]) or "1 = 1", [*values.values()]


class SqlQueries:
    """The questions, over an open connection to the store that messages call `name`; `inert` says
    why it is, "" when it lives."""

    def __init__(self, connection: Any, name: str, schema: int, inert: str = "") -> None:
        self._connection = connection
        self._name = name
        self._schema = schema
        self._paused = False
        self.inert = inert
        self.reports: list[str] = []
        """What a person should know of the store, and do about it."""
        self.archives: Archives | None = None
        """Where the events are that were taken out of the store; None: whoever asks for one is told
        (EventsArchivedAway)."""

    def begin(self) -> None:
        """Make what follows one consistent look. Raises StoreError."""
        self._rows("BEGIN")

    def pause(self) -> None:
        """End this look; `again` begins the next. Whoever keeps a connection open must not hold an
        old state meanwhile. Raises StoreError."""
        self._rows("COMMIT")
        self._paused = True

    def close(self) -> None:
        self._connection.close()

    def _rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        values, names = self._fetch(statement, parameters)
        return [dict(zip(names, row, strict=True)) for row in values]

    def _fetch(
        self, statement: str, parameters: Sequence[Any]
    ) -> tuple[list[tuple[Any, ...]], list[str]]:
        """All rows, and the names of their columns. Raises StoreError."""
        try:
            cursor = self._connection.execute(statement, tuple(parameters))
            values = cursor.fetchall()
        except sqlite.DatabaseError as error:
            raise StoreError(
                f"{self._name}: {error}; if the file is damaged, restore a backup and run "
                "`hostledger store activate`"
            ) from None
        return values, [column[0] for column in cursor.description or ()]

    def _one(self, statement: str) -> Row:
        return self._rows(statement)[0]

    def plan(self, statements: str) -> list[str]:
        """How the store would carry out what `slow_statements` told, a line a step, or why that is
        not known; none for what needs no plan (COMMIT)."""
        lines: list[str] = []
        for statement in statements.split(";"):
            if statement.lstrip().startswith(PLANNED):
                try:
                    lines += self._steps(statement)
                except StoreError as error:
                    lines.append(f"no plan: {error}")
        return lines

    def _steps(self, statement: str) -> list[str]:
        last = 0
        for number in re.findall(r"\?(\d*)", statement):
            last = max(last, int(number)) if number else last + 1
        steps = self._rows("EXPLAIN QUERY PLAN " + statement, [None] * last)
        depths = {0: -1}
        for step in steps:
            depths[step["id"]] = depths[step["parent"]] + 1
        return ["  " * depths[step["id"]] + step["detail"] for step in steps]

    # -- read models ------------------------------------------------------------------------------

    def requests(
        self, status: str | None, open_only: bool, limit: int | None, request_id: str = ""
    ) -> list[Row]:
        """Requests and returns, the newest first, with `alive`: how many machines still live."""
        where, values = _where(
            {"r.status": status or "", "r.request_id": request_id}, "r.final = 0", open_only
        )
        return self._rows(
            f"{REQUESTS} WHERE {where} ORDER BY r.position DESC LIMIT ?",
            (*values, ALL if limit is None else limit),
        )

    def machines(
        self,
        status: str | None,
        request_id: str | None,
        alive_only: bool,
        machine_id: str = "",
        batch_id: str = "",
        limit: int | None = None,
    ) -> list[str]:
        """The documents of machines in the order in which they came."""
        given = {
            "status": status or "",
            "request_id": request_id or "",
            "machine_id": machine_id,
            "batch_id": batch_id,
        }
        where, values = _where(given, "alive = 1", alive_only)
        rows, _ = self._fetch(
            f"SELECT {DOCUMENT} FROM machines r WHERE {where} "
            "ORDER BY r.position, r.machine_id LIMIT ?",
            (*values, ALL if limit is None else limit),
        )
        return [text for (text,) in rows]

    def page(
        self,
        table: str,
        columns: Sequence[str],
        conditions: Sequence[tuple[str, str, Any]],
        order: tuple[str, str, bool],
        after: tuple[Any, str] | None,
        limit: int,
    ) -> list[tuple[Any, ...]]:
        """These columns (some are COMPUTED) of so many rows of a read table, sorted by
        a column and its key (column, key, descending), behind the place `after` (their values).
        Names are the caller's own, never a user's."""
        column, key, descending = order
        where = [f"r.{name} {operator} ?" for name, operator, _ in conditions]
        values = [value for _, _, value in conditions]
        same = column == key
        if after is not None:
            compare = "<" if descending else ">"
            where.append(
                f"r.{key} {compare} ?" if same else f"(r.{column}, r.{key}) {compare} (?, ?)"
            )
            values += after[1:] if same else after
        direction = "DESC" if descending else "ASC"
        by = f"r.{key} {direction}" if same else f"r.{column} {direction}, r.{key} {direction}"
        wanted = [COMPUTED.get((table, name), f"r.{name}") for name in columns]
        rows, _ = self._fetch(
            f"SELECT {', '.join(wanted)} FROM {table} r "
            f"WHERE {' AND '.join(where) or '1 = 1'} ORDER BY {by} LIMIT ?",
            (*values, limit),
        )
        return rows

    def living(self) -> list[Row]:
        """How many machines live (`machines`) of each status, template, account, region, zone and
        price type that there is."""
        columns = "status, template_id, account, region, zone, price_type"
        return self._rows(
            f"SELECT {columns}, count(*) AS machines FROM machines WHERE alive = 1 "
            f"GROUP BY {columns} ORDER BY {columns}"
        )

    def being_terminated(self, machine_ids: Sequence[str]) -> list[str]:
        """Those of these machines that EC2 was asked to terminate, or is being asked."""
        rows = self._rows(
            "SELECT j.value AS machine_id FROM json_each(?) j JOIN machines m "
            "ON m.machine_id = j.value WHERE m.alive = 1 AND (m.status = 'shutting-down' OR EXISTS "
            "(SELECT 1 FROM terminations t, json_each(t.machine_ids) i "
            "WHERE t.state = 'open' AND i.value = j.value)) ORDER BY j.key",
            (dumps(list(machine_ids)),),
        )
        return [row["machine_id"] for row in rows]

    def returned(self, return_id: str) -> list[Row]:
        """The machines of a return; `status` and `alive` are null for those that are not ours."""
        rows = self._rows(RETURNED, (return_id,))
        for row in rows:
            row["ours"] = bool(row["ours"])
            row["alive"] = None if row["alive"] is None else bool(row["alive"])
        return rows

    def batches_of(self, request_id: str) -> list[Row]:
        """The launches that had a claim of this request."""
        return self._rows(BATCHES, (request_id,))

    def batches(self, open_only: bool, limit: int | None, batch_id: str = "") -> list[Row]:
        """Launches, those without an outcome first, then the newest."""
        without = "state IN ('open', 'doubtful', 'filling')"
        return self._rows(
            f"SELECT * FROM batches WHERE (?1 = 0 OR {without}) AND (?2 = '' OR batch_id = ?2) "
            f"ORDER BY {without} DESC, position DESC LIMIT ?3",
            (int(open_only), batch_id, ALL if limit is None else limit),
        )

    def fleets(self, all_states: bool) -> list[Row]:
        """Fleets and groups that are there, or all there ever were, with how many machines live."""
        return self._rows(
            "SELECT f.*, (SELECT count(*) FROM machines m WHERE m.batch_id = f.batch_id "
            "AND m.alive = 1) AS alive FROM fleets f WHERE (? = 1 OR f.state <> 'deleted') "
            "ORDER BY f.position",
            (int(all_states),),
        )

    def launch_templates(self, all_states: bool) -> list[Row]:
        """Launch templates that may be there, or all there ever were."""
        return self._rows(
            "SELECT * FROM launch_templates "
            "WHERE (? = 1 OR state IN ('open', 'created', 'deleting')) ORDER BY position",
            (int(all_states),),
        )

    def templates(self, provider: str) -> list[Row]:
        """The templates of a provider instance that are in force, as the ledger knows them."""
        return self._rows(
            "SELECT template_id, revision, content FROM templates "
            "WHERE provider = ? AND retired = 0 ORDER BY template_id",
            (provider,),
        )

    def orphans(self) -> list[Row]:
        """What the last complete sweep saw of them; those that were adopted since are none."""
        return self._rows(
            "SELECT o.*, coalesce(f.provider, '') AS provider, "
            "coalesce(f.instance_type, '') AS instance_type, "
            "coalesce(f.price_type, 'ondemand') AS price_type, coalesce(f.name, '') AS name, "
            "coalesce(f.private_ip_address, '') AS private_ip_address "
            "FROM orphans o LEFT JOIN orphan_facts f USING (machine_id) WHERE NOT EXISTS "
            "(SELECT 1 FROM machines m WHERE m.machine_id = o.machine_id AND m.alive = 1) "
            "ORDER BY o.machine_id"
        )

    # -- the log ----------------------------------------------------------------------------------

    def _events(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Whole events. Raises EventsArchivedAway for one that is in an archive which was not
        given."""
        rows = self._rows(statement, parameters)
        if all(row["topic"] for row in rows):
            return rows
        return [row if row["topic"] else self._archived(row) for row in rows]

    def _archived(self, row: Row) -> Row:
        event = self.archives.event(row) if self.archives is not None else None
        if event is None:
            raise archived_away(
                f"{self._name}: event {row['position']} of {row['stream']}",
                [archive["file"] for archive in self.archives_on_record()],
            )
        return event

    def archives_on_record(self) -> list[Row]:
        """What was archived, oldest first: file, sha256, first, last, events, streams, reason."""
        rows = self._rows(
            "SELECT data FROM events WHERE topic = 'ArchiveIntended' ORDER BY position"
        )
        return [loads(row["data"]) for row in rows]

    def finished_streams(self, before: str, legal_hold: Sequence[str]) -> tuple[list[str], int]:
        """As `sql_finished.finished`."""
        from infrastructure.read_models.sql_finished import finished

        return finished(self._rows, before, legal_hold)

    def extent(self, streams: Sequence[str]) -> tuple[int, int, int]:
        """Of the events of these streams: the first and last position, and how many."""
        row = self._rows(
            "SELECT min(e.position) AS first, max(e.position) AS last, count(*) AS events "
            "FROM json_each(?) j JOIN events e ON e.stream = j.value",
            (dumps(list(streams)),),
        )[0]
        return row["first"], row["last"], row["events"]

    def events_between(self, after: int, to: int, topic: str | None, limit: int) -> list[Row]:
        """The next events, of one topic or of all, with after < position <= to. Raises
        EventsArchivedAway."""
        if topic is not None:
            return self._of_topic("*", topic, after, to, limit, "")
        return self._events(
            "SELECT * FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
            (after, to, limit),
        )

    def whole_events_after(self, position: int, limit: int) -> list[Row]:
        """As `events_after`, without those that were taken out."""
        return self._rows(
            "SELECT * FROM events WHERE position > ? AND topic <> '' ORDER BY position LIMIT ?",
            (position, limit),
        )

    def open_archive(self) -> str | None:
        """The id of an archive whose streams are not all taken out yet."""
        rows = self._rows(
            "SELECT stream FROM events i WHERE topic = 'ArchiveIntended' AND NOT EXISTS "
            "(SELECT 1 FROM events d WHERE d.stream = i.stream AND d.topic = 'EventsArchived')"
        )
        return rows[0]["stream"].partition("-")[2] if rows else None

    def count_archived(self) -> int:
        """How many events are no longer in the store, but for position, digest and chain."""
        return self._one(  # type: ignore[no-any-return]
            "SELECT count(*) AS count FROM events WHERE topic = ''"
        )["count"]

    def chain_at(self, position: int) -> str:
        """The chain of an event; the deployment id before the first."""
        rows = self._rows("SELECT chain FROM events WHERE position = ?", (position,))
        return rows[0]["chain"] if rows else self.identity()[0]

    def time_of(self, position: int) -> str:
        """When an event that there is was recorded."""
        (row,) = self._rows("SELECT recorded_at FROM events WHERE position = ?", (position,))
        return row["recorded_at"]  # type: ignore[no-any-return]

    def positions_between(self, since: str, until: str) -> tuple[int, int]:
        """The first and the last event recorded in this time (ISO 8601 as stored, "" for no
        bound); the last is before the first where there is none."""
        (row,) = self._rows(
            "SELECT (SELECT min(position) FROM events WHERE recorded_at >= ?1) AS first, "
            "(SELECT max(position) FROM events WHERE ?2 = '' OR recorded_at <= ?2) AS last",
            (since, until),
        )
        return row["first"] or 1, row["last"] if row["first"] and row["last"] else 0

    def tally(self, topics: Sequence[str], after: int, width: int) -> list[tuple[int, str, int]]:
        """(stretch, topic, how many) of the events of these topics after a position; stretch n has
        the positions that come after n times its width."""
        rows = self._rows(
            f"SELECT topic, (position - 1) / {int(width)} AS stretch, count(*) AS many FROM events "
            f"WHERE topic IN ({', '.join('?' * len(topics))}) AND position > ? "
            f"GROUP BY topic, (position - 1) / {int(width)} ORDER BY topic, stretch",
            (*topics, after),
        )
        return [(row["stretch"], row["topic"], row["many"]) for row in rows]

    def find_stream(self, candidates: Sequence[str]) -> str | None:
        """The first of these streams that has events."""
        rows = self._rows(
            "SELECT j.value AS stream FROM json_each(?) j "
            "WHERE EXISTS (SELECT 1 FROM events e WHERE e.stream = j.value) ORDER BY j.key LIMIT 1",
            (dumps(list(candidates)),),
        )
        return rows[0]["stream"] if rows else None

    def events_of(self, stream: str) -> list[Row]:
        return self._events("SELECT * FROM events WHERE stream = ? ORDER BY version", (stream,))

    def events_of_streams(self, streams: Sequence[str]) -> list[Row]:
        """The events of these streams, oldest first. Raises EventsArchivedAway."""
        return self._events(
            "SELECT e.* FROM json_each(?) j CROSS JOIN events e WHERE e.stream = j.value "
            "ORDER BY e.position",
            (dumps(list(streams)),),
        )

    def mentions(self, topic: str, after: int, to: int, limit: int, name: str = "") -> list[Row]:
        """Position, stream and data of the next events of a topic with after < position <= to that
        may name something, oldest first. Raises EventsArchivedAway where one that was taken out
        may be among them."""
        columns = "position, stream, data, topic, digest"
        return self._of_topic(columns, topic, after, to, limit, name)

    def _of_topic(
        self, columns: str, topic: str, after: int, to: int, limit: int, name: str
    ) -> list[Row]:
        some = (
            f"SELECT {columns} FROM events WHERE topic {{}} "
            "AND position > ? AND position <= ? {} ORDER BY position LIMIT ?"
        )
        if not self._rows(some.format("= ''", ""), (after, to, 1)):
            return self._rows(
                some.format("= ?", "AND data LIKE ?"), (topic, after, to, f"%{name}%", limit)
            )
        found: list[Row] = []
        page = min(limit, 1000)
        while rows := self._rows(some.format("IN (?, '')", ""), (topic, after, to, page)):
            events = [row if row["topic"] else self._archived(row) for row in rows]
            found += [e for e in events if e["topic"] == topic and name in e["data"]]
            if len(found) >= limit:
                break
            after = rows[-1]["position"]
        return found[:limit]

    def events_correlated(self, correlation_ids: Sequence[str]) -> list[Row]:
        """Every event of these commands. Reads the whole log: no index has the metadata. Raises
        EventsArchivedAway."""
        found = self._rows(
            "SELECT * FROM events WHERE "
            "CASE WHEN topic <> '' THEN json_extract(metadata, '$.correlation_id') END IN "
            "(SELECT j.value FROM json_each(?) j) ORDER BY position",
            (dumps(list(correlation_ids)),),
        )
        archived = [
            event
            for event in self._archived_events()
            if loads(event["metadata"])["correlation_id"] in correlation_ids
        ]
        return sorted(found + archived, key=lambda event: event["position"]) if archived else found

    def _archived_events(self) -> Iterator[Row]:
        """All that was taken out, from the archives. Raises EventsArchivedAway."""
        after = 0
        while rows := self._rows(
            "SELECT * FROM events WHERE topic = '' AND position > ? ORDER BY position LIMIT 1000",
            (after,),
        ):
            yield from map(self._archived, rows)
            after = rows[-1]["position"]

    def events_about(self, topic: str, text: str, after: int, until: int | None) -> list[Row]:
        """The events of a topic behind one position and up to another that hold this text ("": any
        do), oldest first. Raises EventsArchivedAway where one that was taken out may be among
        them."""
        return self._of_topic("*", topic, after, ALL if until is None else until, ALL, text)

    def events_of_topics(self, topics: Sequence[str], after: int) -> list[Row]:
        """The events of topics that are never archived behind a position, oldest first."""
        return self._rows(
            "SELECT * FROM events WHERE topic IN (SELECT j.value FROM json_each(?) j) "
            "AND position > ? ORDER BY position",
            (dumps(list(topics)), after),
        )

    def event(self, event_id: str) -> Row | None:
        rows = self._events("SELECT * FROM events WHERE event_id = ?", (event_id,))
        return rows[0] if rows else None

    def last_events(self, limit: int, topic: str | None) -> list[Row]:
        """The last events, of one topic or of all, oldest first."""
        only = "WHERE topic = ?" if topic else ""
        rows = self._events(
            f"SELECT * FROM events {only} ORDER BY position DESC LIMIT ?",
            (topic, limit) if topic else (limit,),
        )
        return rows[::-1]

    def events_after(self, position: int, limit: int) -> list[Row]:
        """The events that follow this position, oldest first. Raises EventsArchivedAway."""
        return self._events(
            "SELECT * FROM events WHERE position > ? ORDER BY position LIMIT ?", (position, limit)
        )

    def records_after(self, position: int, limit: int) -> list[tuple[Any, ...]]:
        """The next events as rows of COLUMNS, as they are stored."""
        rows, _ = self._fetch(
            f"SELECT {', '.join(COLUMNS)} FROM events WHERE position > ? ORDER BY position LIMIT ?",
            (position, limit),
        )
        return rows

    def records_to_replay(self, position: int, limit: int) -> list[tuple[Any, ...]]:
        """The same, those that were taken out from their archives. Raises EventsArchivedAway."""
        rows = self.records_after(position, limit)
        if all(map(TOPIC, rows)):
            return rows
        whole = self.events_after(position, limit)
        return [tuple(event[name] for name in COLUMNS) for event in whole]

    def position_after(self, position: int) -> int | None:
        """That of the next event; None for none."""
        rows = self._rows(
            "SELECT position FROM events WHERE position > ? ORDER BY position LIMIT 1", (position,)
        )
        return rows[0]["position"] if rows else None

    def end(self) -> tuple[int, str]:
        """Position and chain of the last event; (0, "") for none."""
        rows = self._rows("SELECT position, chain FROM events ORDER BY position DESC LIMIT 1")
        return (rows[0]["position"], rows[0]["chain"]) if rows else (0, "")

    def records(self, topics: Sequence[str], after: int, up_to: int) -> list[Record]:
        """The events of these topics, or of all for none, after one position and up to another,
        with their fields as they are in this release. Raises UnknownEvent, LogDamaged,
        EventsArchivedAway."""
        from infrastructure.event_store.commit import decompose_all

        # What was archived has no topic here: which it had, the archive says.
        among = (dumps([*topics, ""]),) if topics else ()
        only = "AND topic IN (SELECT j.value FROM json_each(?) j)" if topics else ""
        rows = self._events(
            f"SELECT {', '.join(COLUMNS)} FROM events WHERE position > ? AND position <= ? {only} "
            "ORDER BY position",
            (after, up_to, *among),
        )
        wanted = (row for row in rows if not topics or row["topic"] in topics)
        return list(decompose_all(tuple(row[name] for name in COLUMNS) for row in wanted))

    # -- the read models themselves ---------------------------------------------------------------

    def projections(self) -> list[Row]:
        """Name and version of each read model, and where and why it failed, null where it did
        not."""
        return self._rows(
            "SELECT v.name, v.version, p.failed_at, p.error FROM projection_versions v "
            "LEFT JOIN projections p ON p.name = v.name ORDER BY v.name"
        )

    def columns_of(self, table: str) -> list[str]:
        """The columns of a read table, those of the key first."""
        cursor = self._connection.execute(f"SELECT * FROM {table} LIMIT 0")
        return [column[0] for column in cursor.description]

    def rows_of(
        self, table: str, page: int = PAGE
    ) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Key and row (see `columns_of`) of all that is in a read table, in the order of the keys;
        so many are read at once."""
        from infrastructure.event_store.commit import Rows

        width = len(Rows.KEYS[table])
        names = ", ".join(Rows.KEYS[table])
        after: tuple[Any, ...] = ()
        while True:
            where = f"WHERE ({names}) > ({', '.join('?' * width)})" if after else ""
            rows = self._connection.execute(
                f"SELECT * FROM {table} {where} ORDER BY {names} LIMIT {page}", after
            ).fetchall()
            for row in rows:
                yield row[:width], row
            if len(rows) < page:
                return
            after = rows[-1][:width]

    # -- the store's own --------------------------------------------------------------------------

    def identity(self) -> tuple[str, int, str]:
        """Deployment id, incarnation, and the place that the store was moved to, "" for none."""
        row = self._one("SELECT deployment, incarnation, moved_to FROM store")
        return row["deployment"], row["incarnation"], row["moved_to"]

    def commands_after(self, command_id: str, limit: int) -> list[tuple[str, str, int]]:
        """(command id, result, position) of the next commands, in the order of their ids."""
        rows = self._rows(
            "SELECT command_id, result, position FROM commands WHERE command_id > ? "
            "ORDER BY command_id LIMIT ?",
            (command_id, limit),
        )
        return [(row["command_id"], row["result"], row["position"]) for row in rows]

    def tracked(self) -> list[tuple[str, int]]:
        """(policy, position) of all that follow the log."""
        rows = self._rows("SELECT name, position FROM tracking ORDER BY name")
        return [(row["name"], row["position"]) for row in rows]

    def bodies(self) -> list[tuple[str, bytes]]:
        """(digest, body) of all user data that is kept."""
        rows = self._rows("SELECT digest, body FROM bodies ORDER BY digest")
        return [(row["digest"], bytes(row["body"])) for row in rows]

    def again(self) -> None:
        """End this look and begin a new one."""
        if not self._paused:
            self._rows("COMMIT")
        self._paused = False
        self.begin()

    # -- the store --------------------------------------------------------------------------------

    def vitals(self) -> Row:
        """What `application.vitals` is made of: `counts`, `position` of the end, open `requests`
        and `intents` with when each was `created`, `sweeps` and `failed` read models as pairs."""
        from infrastructure.event_store.commit import seconds

        def aged(statement: str) -> list[Row]:
            rows = self._rows(statement)
            for row in rows:
                wall = seconds(row["created_at"])
                row["created"] = (wall, row["boot_id"], row["boot_seconds"])
            return rows

        models = self.projections()
        return {
            "counts": self._one(COUNTS),
            "position": self.end()[0],
            "requests": aged(
                "SELECT request_id, fulfilment_deadline, created_at, boot_id, boot_seconds "
                "FROM requests WHERE final = 0 AND kind = 'request'"
            ),
            "intents": aged(
                "SELECT batch_id, created_at, boot_id, boot_seconds "
                "FROM batches WHERE state IN ('open', 'doubtful')"
            ),
            "sweeps": [
                (row["account"], (row["began_at"], row["boot_id"], row["boot_seconds"]))
                for row in self._rows("SELECT * FROM sweeps ORDER BY account")
            ],
            "projections": [row["name"] for row in models],
            "failed": [
                (row["name"], row["failed_at"]) for row in models if row["failed_at"] is not None
            ],
        }

    def waiting(self, policy: str, topics: Sequence[str]) -> int:
        """How many events of these topics the policy has yet to follow."""
        (row,) = self._rows(
            "SELECT count(*) AS count FROM events WHERE position > "
            "(SELECT coalesce(max(position), 0) FROM tracking WHERE name = ?) "
            f"AND topic IN ({', '.join('?' * len(topics))})",
            (policy, *topics),
        )
        return int(row["count"])

    def alerts(self, names: Sequence[str]) -> list[Row]:
        """The last event of each of these alerts that was ever raised: name, topic, recorded_at,
        data."""
        rows = self._rows(
            "SELECT e.stream, e.topic, e.recorded_at, e.data FROM json_each(?) j "
            "CROSS JOIN events e WHERE e.stream = j.value AND e.version = "
            "(SELECT max(v.version) FROM events v WHERE v.stream = j.value)",
            (dumps([f"alert-{name}" for name in names]),),
        )
        for row in rows:
            row["name"] = row.pop("stream").partition("-")[2]
            row["data"] = loads(row["data"])
        return rows

    def facts(self) -> Row:
        """Identity, size, failed projections, leases, sweeps and counts of what is open."""
        store = self._one("SELECT deployment, incarnation FROM store")
        head = self._rows("SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1")
        counts = self._one(COUNTS)
        brake = self._rows("SELECT scope, reason, since FROM brake WHERE scope <> ''")
        return {
            "path": self._name,
            "deployment": store["deployment"],
            "incarnation": store["incarnation"],
            "schema": self._schema,
            "inert": self.inert or None,
            "reports": self.reports,
            "events": self._one("SELECT count(*) AS count FROM events")["count"],
            "head": head[0] if head else None,
            "failed_projections": self._rows(
                "SELECT name, failed_at AS position, error FROM projections ORDER BY name"
            ),
            "open": {
                kind: counts[f"open_{kind}"]
                for kind in ("requests", "returns", "batches", "terminations")
            },
            "live_machines": counts["live_machines"],
            "orphans": counts["orphans"],
            "accounts": self._rows(
                "SELECT account || '/' || region AS account, count(*) AS machines FROM machines "
                "WHERE alive = 1 GROUP BY account, region ORDER BY account, region"
            ),
            "brake": brake[0] if brake else None,
            "leases": self._rows("SELECT * FROM leases ORDER BY account"),
            "sweeps": self._rows("SELECT * FROM sweeps ORDER BY account"),
        }
