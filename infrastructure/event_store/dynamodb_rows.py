"""The items of the read tables: where each row lies, and what else a change of it changes.

requests   <request id>          0               requests and returns
machines   <request id, - none>  <machine id>    all machines of a request in one partition
hosts      0#alive               <machine id>    where a living machine's row is, and what
           gone#<machine id>     0               getReturnRequests asks of it; the same of one
           name#<host name>      <machine id>    that is gone, which is found by name too
rows       <table>#<key>         <second key, 0> the small tables
           open#0                <position>#<id> requests and returns that are not final
           sweeps#0, cloud_states#0, orphans#0   what the worker saw (dynamodb_notebook.py)
"""

from __future__ import annotations

from application.json_text import dumps, loads
from infrastructure.event_store.commit import Rows
from infrastructure.event_store.dynamodb_client import (
    HOSTS,
    MACHINES,
    REQUESTS,
    ROWS,
    key,
    packed_text,
    size_of,
    text_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from infrastructure.event_store.commit import Pending
    from infrastructure.event_store.dynamodb_client import Item, Tables

    Row = dict[str, Any]
    Write = tuple[str, Item, bool]
    """Table, item (or its key), whether it is put (else deleted)."""

ALIVE, OPEN = "0#alive", "open#0"
SWEEPS, CLOUD_STATES, ORPHANS = "sweeps#0", "cloud_states#0", "orphans#0"

ORPHAN_COLUMNS = (
    "machine_id", "batch_id", "state", "zone", "account", "region", "launch_time", "sweeps",
    "provider", "instance_type", "price_type", "name", "private_ip_address",
)  # fmt: skip
"""Of the table `orphans`, and then of `orphan_facts`: what the item of one has."""

MOST_BYTES = 400_000
"""Of an item, the names of its attributes included."""

FRAGMENTS = {
    "requests": ("fragment",),
    "machines": ("fragment", "return_fragment"),
    "returned_machines": ("fragment",),
}
"""Columns that are attributes of their own, so that an answer is joined without the rest."""


def place(table: str, row_key: Sequence[Any]) -> tuple[str, str, str]:
    """Table, PK and SK of a row that is found by its key; machines are found by `hosts`."""
    if table == "requests":
        return REQUESTS, str(row_key[0]), "0"
    sort = f"{row_key[1]:010d}" if len(row_key) > 1 else "0"
    return ROWS, f"{table}#{row_key[0]}", sort


def _partition(request_id: str) -> str:
    return request_id or "-"


def row_item(table: str, row: Row, machine: Row | None = None) -> tuple[str, Item]:
    """The table and item of a row as it is stored. Raises ValueError for one that is too big.

    `machine` is the row of the machine that a row of `returned_machines` names."""
    fragments = FRAGMENTS.get(table, ())
    rest = {name: value for name, value in row.items() if name not in fragments}
    if table == "machines":
        suffix, item = MACHINES, key(_partition(row["request_id"]), row["machine_id"])
    else:
        suffix, *of = place(table, [row[column] for column in Rows.KEYS[table]])
        item = key(*of)
    item["row"] = packed_text(dumps(rest))
    for name in fragments:
        if row[name] is not None:
            item[name] = {"S": row[name]}
    if machine is not None:
        item["of"] = {"S": _partition(machine["request_id"])}
    if size_of(item) > MOST_BYTES:
        raise ValueError(f"a row of {table} is {size_of(item)} bytes, DynamoDB takes {MOST_BYTES}")
    return suffix, item


def row_of(table: str, item: Item) -> Row:
    row: Row = loads(text_of(item, "row"))
    for name in FRAGMENTS.get(table, ()):
        row[name] = item[name]["S"] if name in item else None
    return row


def _host(row: Row) -> Item:
    """What getReturnRequests asks of a machine, and where its row is."""
    item = key(ALIVE, row["machine_id"]) if row["alive"] else key("gone#" + row["machine_id"])
    return {
        **item,
        "of": {"S": _partition(row["request_id"])},
        "id": {"S": row["machine_id"]},
        "name": {"S": row["name"]},
        "status": {"S": row["status"]},
        "seen": {"N": str(row["seen"])},
        "until": {"N": str(row["interrupted_until"])},
        "position": {"N": str(row["position"])},
    }


def writes_of(table: str, old: Row | None, row: Row, machine: Row | None) -> list[Write]:
    """All items that change with a row. Raises ValueError, TypeError."""
    suffix, item = row_item(table, row, machine)
    writes: list[Write] = [(suffix, item, True)]
    if table == "requests":
        marker = key(OPEN, f"{row['position']:012d}#{row['request_id']}")
        was_open = old is not None and not old["final"]
        if not row["final"] and not was_open:
            facts = [row["created_at"], row["boot_id"], row["boot_seconds"]]
            writes.append((ROWS, {**marker, "row": {"S": dumps(facts)}}, True))
        elif row["final"] and was_open:
            writes.append((ROWS, marker, False))
    elif table == "machines":
        host = _host(row)
        if old is None or _host(old) != host:
            writes.append((HOSTS, host, True))
        if not row["alive"]:
            if old is not None and old["alive"]:
                writes.append((HOSTS, key(ALIVE, row["machine_id"]), False))
            if row["name"] and (old is None or old["alive"] or old["name"] != row["name"]):
                name = {
                    **key("name#" + row["name"], row["machine_id"]),
                    "position": host["position"],
                }
                writes.append((HOSTS, name, True))
    return writes


def counts_of(table: str, row: Row | None) -> dict[str, int]:
    """What a row adds to the counters of the head: what is open or alive."""
    if row is None:
        return {}
    match table:
        case "requests":
            counted = not row["final"]
        case "batches":
            counted = row["state"] in ("open", "doubtful")
        case "fleets":
            counted = row["state"] != "deleted"
        case "launch_templates":
            counted = row["state"] in ("open", "created", "missed", "deleting")
        case "terminations":
            counted = row["state"] == "open"
        case "machines":
            counted = bool(row["alive"])
        case _:
            return {}
    return {table: int(counted)}


class TableRows:
    """Rows as the tables have them now, those that a commit will ask for fetched together."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows: dict[tuple[Any, ...], Row | None] = {}

    def prefetch(self, records: Iterable[Pending]) -> None:
        """What the projections of these events will look at, as far as the events name it."""
        requests: dict[str, None] = {}
        machines: dict[str, None] = {}
        for stream, _, _, _, _, data in records:
            kind, _, identifier = stream.partition("-")
            if kind == "machine":
                machines[identifier] = None
            elif kind in ("request", "return"):
                requests[identifier] = None
            if isinstance(data, dict):
                machines.update(dict.fromkeys(data.get("machine_ids") or ()))
                if isinstance(data.get("request_id"), str) and data["request_id"]:
                    requests[data["request_id"]] = None
        wanted = [("requests", identifier) for identifier in requests]
        found = {
            item["PK"]["S"]: item
            for item in self._tables.get_all([place("requests", (i,)) for _, i in wanted])
        }
        for identifier in requests:
            item = found.get(identifier)
            self._rows["requests", identifier] = row_of("requests", item) if item else None
        self._fetch_machines(list(machines))

    def fetch(self, rows: Iterable[tuple[str, tuple[Any, ...], Any]]) -> None:
        """The rows of these tables and keys, together."""
        machines, places = [], {}
        for table, row_key, _ in rows:
            self._rows[table, *row_key] = None
            if table == "machines":
                machines.append(row_key[0])
            else:
                places[place(table, row_key)] = (table, *row_key)
        found = self._tables.get_all(list(places)) if places else []
        suffixes = {(partition, sort): suffix for suffix, partition, sort in places}
        for item in found:
            of = item["PK"]["S"], item["SK"]["S"]
            full = places[suffixes[of], *of]
            self._rows[full] = row_of(full[0], item)
        self._fetch_machines(machines)

    def _fetch_machines(self, machine_ids: Sequence[str]) -> None:
        for machine_id in machine_ids:
            self._rows["machines", machine_id] = None
        for item in machine_items(self._tables, machine_ids):
            self._rows["machines", item["SK"]["S"]] = row_of("machines", item)

    def row(self, table: str, row_key: tuple[Any, ...]) -> Row | None:
        full = (table, *row_key)
        if full not in self._rows:
            if table == "machines":
                self._fetch_machines([row_key[0]])
            else:
                item = self._tables.get(*place(table, row_key))
                self._rows[full] = row_of(table, item) if item else None
        row = self._rows[full]
        return None if row is None else dict(row)


def host_items(tables: Tables, machine_ids: Sequence[str]) -> list[Item]:
    """What `hosts` has of these machines, living or gone."""
    keys = [(HOSTS, ALIVE, machine_id) for machine_id in machine_ids]
    living = tables.get_all(keys) if keys else []
    found = {item["id"]["S"] for item in living}
    others = [(HOSTS, "gone#" + i, "0") for i in machine_ids if i not in found]
    return living + (tables.get_all(others) if others else [])


def machine_items(tables: Tables, machine_ids: Sequence[str]) -> list[Item]:
    """The rows' items of these machines."""
    hosts = host_items(tables, machine_ids)
    keys = [(MACHINES, item["of"]["S"], item["id"]["S"]) for item in hosts]
    return tables.get_all(keys) if keys else []
