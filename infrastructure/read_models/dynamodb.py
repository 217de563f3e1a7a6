"""The read models in DynamoDB, as HostFactory's reads ask them: by key, as they are now, never from
an index and never by a scan."""

from __future__ import annotations

from application.failures import ProjectionFailed
from application.json_text import loads
from infrastructure.event_store.dynamodb_client import HOSTS, LOG, MACHINES, REQUESTS, ROWS
from infrastructure.event_store.dynamodb_log import (
    LEASES,
    commit_key,
    directory_of,
    read_head,
    refuse_inert,
    stream_key,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant
    from infrastructure.event_store.dynamodb import DynamodbEventStore
    from infrastructure.event_store.dynamodb_client import Item, Tables
    from infrastructure.event_store.dynamodb_log import Head

NEVER = float("inf")


class DynamodbReadModel:
    """The questions. The answers of one look need not be of one instant: each row is as it was when
    it was asked for, and later than the one asked for before it. `directory`: where a worker of
    this site has its file lock. `store`: the one that a command has open on the same tables, whose
    head is taken."""

    def __init__(
        self, tables: Tables, directory: str, store: DynamodbEventStore | None = None
    ) -> None:
        self._tables = tables
        self._directory = directory
        self._store = store
        self._hosts: list[Item] | None = None
        self._own = None if store else read_head(tables)
        if self._own:
            refuse_inert(tables, self._own)

    @property
    def _head(self) -> Head:
        """As of this look's begin, or of the command's own commit."""
        if self._store is not None:
            return self._store.head
        assert self._own is not None
        return self._own

    def refuse_failed(self, name: str) -> None:
        """Raises ProjectionFailed, naming the store `name`, where a read model stands still."""
        for failed, position, error in self._head.facts["failed"]:
            raise ProjectionFailed(
                f"{name}: the read model {failed} stopped at position {position} ({error}): "
                "`hostledger projections rebuild` lets it answer again"
            )

    def again(self) -> None:
        """End this look and begin a new one."""
        self._own = read_head(self._tables)
        self._store = self._hosts = None

    def request(self, request_id: str) -> tuple[str, str, int, int, int, str] | None:
        """kind, status, final, seen, answered_final and head fragment of a request or return."""
        item = self._tables.get(REQUESTS, request_id) if request_id else None
        if item is None:
            return None
        from infrastructure.event_store.dynamodb_client import value_of

        row = value_of(item, "row")
        return (
            row["kind"], row["status"], row["final"], row["seen"], row["answered_final"],
            item["fragment"]["S"],
        )  # fmt: skip

    def machines_of(self, request_id: str, kind: str, status: str) -> str:
        """The fragments of its machines, joined by commas."""
        if kind == "return":
            return self._returned(request_id)
        from infrastructure.event_store.dynamodb_client import value_of

        found = []
        for item in self._tables.query(MACHINES, request_id, attributes="SK,row,fragment"):
            row = value_of(item, "row")
            if row["result"] != "fail" or status != "complete":
                found.append((row["position"], item["SK"]["S"], item["fragment"]["S"]))
        found.sort()
        return ",".join(fragment for _, _, fragment in found)

    def _returned(self, return_id: str) -> str:
        from infrastructure.event_store.dynamodb_client import value_of

        items = list(self._tables.query(ROWS, f"returned_machines#{return_id}"))
        rows = [value_of(item, "row") for item in items]
        wanted = [
            (MACHINES, item["of"]["S"], row["machine_id"])
            for item, row in zip(items, rows, strict=True)
            if "fragment" not in item and "of" in item
        ]
        machines = {
            item["SK"]["S"]: item["return_fragment"]["S"]
            for item in (self._tables.get_all(wanted) if wanted else ())
        }
        fragments = [
            item["fragment"]["S"] if "fragment" in item else machines.get(row["machine_id"])
            for item, row in zip(items, rows, strict=True)
        ]
        return ",".join(fragment for fragment in fragments if fragment)

    def is_in_log(self, request_id: str) -> bool:
        """Whether the log itself has a request or return of this id."""
        return any(
            self._tables.get(LOG, stream_key(kind + request_id), commit_key(1)) is not None
            for kind in ("request-", "return-")
        )

    def brake(self) -> tuple[str, str] | None:
        """What the operator has paused and why; None for nothing."""
        brake = self._head.facts["brake"]
        return (brake[0], brake[1]) if brake else None

    def anything_open_or_alive(self) -> bool:
        """Whether there is something for a worker to look after."""
        return any(count > 0 for count in self._head.facts["counts"].values())

    def oldest_open(self) -> Instant | None:
        """When the oldest open request or return was made."""
        from infrastructure.event_store.dynamodb_rows import OPEN

        item = next(self._tables.query(ROWS, OPEN, limit=1), None)
        if item is None:
            return None
        from infrastructure.event_store.commit import seconds

        created_at, boot_id, boot_seconds = loads(item["row"]["S"])
        return seconds(created_at), boot_id, boot_seconds

    def anything_alive(self) -> bool:
        """Whether any machine is not gone."""
        return int(self._head.facts["counts"].get("machines", 0)) > 0

    def _living(self) -> list[Item]:
        """What `hosts` has of all living machines: read once a look."""
        if self._hosts is None:
            from infrastructure.event_store.dynamodb_rows import ALIVE

            self._hosts = list(self._tables.query(HOSTS, ALIVE))
        return self._hosts

    def healthy_machines(self) -> set[str]:
        """Ids of all machines that are not gone and not going."""
        return {
            item["SK"]["S"]
            for item in self._living()
            if item["status"]["S"] in ("pending", "running")
        }

    def interrupted_machines(self) -> dict[str, int]:
        """Machine id -> when AWS takes it (seconds since the epoch), of those not gone."""
        return {
            item["SK"]["S"]: int(item["until"]["N"])
            for item in self._living()
            if item["until"]["N"] != "0"
        }

    def unseen_machines(self) -> set[str]:
        """Ids of those that are not gone and that HostFactory has never named."""
        return {item["SK"]["S"] for item in self._living() if item["seen"]["N"] == "0"}

    def known(self, machine_ids: list[str]) -> dict[str, str]:
        """Machine id -> name of those of these that were ever ours."""
        if not machine_ids:
            return {}
        from infrastructure.event_store.dynamodb_rows import host_items

        items = host_items(self._tables, list(dict.fromkeys(machine_ids)))
        return {item["id"]["S"]: item["name"]["S"] for item in items}

    def ids_by_name(self, names: list[str]) -> dict[str, str]:
        """The machine id for each of these host names that was ever ours, the living preferred."""
        wanted = dict.fromkeys(name for name in names if name)
        if not wanted:
            return {}
        living = sorted(
            (int(item["position"]["N"]), item["SK"]["S"], item["name"]["S"])
            for item in self._living()
            if item["name"]["S"] in wanted
        )
        found = {name: machine_id for _, machine_id, name in living}
        for name in wanted:
            if name in found:
                continue
            gone = [
                (int(item["position"]["N"]), item["SK"]["S"])
                for item in self._tables.query(HOSTS, "name#" + name)
            ]
            if gone:
                found[name] = max(gone)[1]
        return found

    def cloud_states(self, now: Instant) -> dict[str, tuple[str, float]]:
        """id and name -> state and how many seconds ago it was seen: what the worker saw that the
        ledger lacks (a stopped machine, a stranger it was asked about)."""
        from infrastructure.event_store.dynamodb_rows import CLOUD_STATES

        states: dict[str, tuple[str, float]] = {}
        for item in self._tables.query(ROWS, CLOUD_STATES):
            found = (item["state"]["S"], _age(loads(item["seen"]["S"]), now))
            states[item["SK"]["S"]] = found
            if item["name"]["S"]:
                states[item["name"]["S"]] = found
        return states

    def last_sweep(self, place: str, now: Instant) -> float:
        """How many seconds ago the last complete sweep of an account and region
        (`account/region`) began; endless when none is known."""
        from infrastructure.event_store.dynamodb_rows import SWEEPS

        item = self._tables.get(ROWS, SWEEPS, place)
        return NEVER if item is None else _age(loads(item["began"]["S"]), now)

    def holder_lives(self) -> bool:
        """Whether a worker elsewhere has said so in time: by its machine's wall clock, or, of
        another site on this machine, by the boot clock. A hint for a message and for whether to
        start one here, where nobody can watch for a minute. Of this site's the file lock tells.
        """
        wall, boot_id, seconds = self._tables.clock.now()
        for item in self._tables.query(LOG, LEASES):
            if item["released"]["N"] != "0":
                continue
            if item["boot"]["S"] != boot_id:
                lives = wall < float(item["wall"]["N"]) + float(item["lease_time"]["N"])
            else:
                here = directory_of(self._directory)
                lives = seconds < float(item["expires"]["N"])
                lives = lives and not item.get("lock", {"S": ""})["S"].startswith(f"{here}/")
            if lives:
                return True
        return False

    def template_revision(self, template_key: str) -> str | None:
        """The revision that the ledger has of a template; None for none or a retired one."""
        item = self._tables.get(ROWS, f"templates#{template_key}")
        if item is None:
            return None
        from infrastructure.event_store.dynamodb_client import value_of

        row = value_of(item, "row")
        return None if row["retired"] else row["revision"]


def _age(earlier: Any, now: Instant) -> float:
    """Seconds since then, by the wall clocks of two machines or boots, or one's boot clock."""
    if earlier[1] == now[1]:
        return float(max(0.0, now[2] - earlier[2]))
    return float(max(0.0, now[0] - earlier[0]))
