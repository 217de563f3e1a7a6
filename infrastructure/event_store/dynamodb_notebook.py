"""What the worker remembers: its own memory in the mirror's file, and as items what HostFactory's
reads and operators on other machines need of it: the complete sweeps, the states that EC2 was seen
in and the orphans."""

from __future__ import annotations

from collections.abc import Sequence

from application.instants import Instant
from application.json_text import dumps
from application.ports import Instance
from infrastructure.event_store.dynamodb import DynamodbEventStore
from infrastructure.event_store.dynamodb_client import ROWS, key
from infrastructure.event_store.dynamodb_rows import CLOUD_STATES, ORPHAN_COLUMNS, ORPHANS, SWEEPS
from infrastructure.event_store.notebook import FORGOTTEN_AFTER, SqlNotebook


class DynamodbNotebook(SqlNotebook):
    """The port `Notebook`."""

    def __init__(self, store: DynamodbEventStore, account: str, region: str) -> None:
        super().__init__(store, account, region)  # type: ignore[arg-type]
        self._tables = store.tables

    def record_sweep(self, began: Instant, instances: int) -> None:
        """A sweep was complete: it began then. What no sweep and no question has confirmed for
        long is forgotten."""
        old = []
        for item in self._tables.query(ROWS, CLOUD_STATES):
            if float(item["wall"]["N"]) < began[0] - FORGOTTEN_AFTER:
                old.append((ROWS, CLOUD_STATES, item["SK"]["S"]))
        self._tables.delete_all(old)
        self._tables.put(
            ROWS,
            {
                **key(SWEEPS, self._key),
                "began": {"S": dumps(list(began))},
                "instances": {"N": str(instances)},
            },
        )

    def put_cloud_states(self, states: Sequence[tuple[str, str, str]], now: Instant) -> None:
        """(machine id, name, state) as EC2 has it where the ledger does not say so."""
        by_id = {machine_id: (name, state) for machine_id, name, state in states}
        self._tables.put_all(
            [
                (
                    ROWS,
                    {
                        **key(CLOUD_STATES, machine_id),
                        "name": {"S": name},
                        "state": {"S": state},
                        "wall": {"N": str(now[0])},
                        "seen": {"S": dumps(list(now))},
                    },
                )
                for machine_id, (name, state) in by_id.items()
            ]
        )

    def clear_cloud_states(self, machine_ids: Sequence[str]) -> None:
        """These are as the ledger says again."""
        if not machine_ids:
            return
        cleared = set(machine_ids)
        self._tables.delete_all(
            [
                (ROWS, CLOUD_STATES, item["SK"]["S"])
                for item in self._tables.query(ROWS, CLOUD_STATES, attributes="SK")
                if item["SK"]["S"] in cleared
            ]
        )

    def see_orphans(self, instances: Sequence[Instance]) -> dict[str, int]:
        """A complete sweep saw these and no other orphans: how many sweeps saw each."""
        seen = super().see_orphans(instances)
        self._tables.delete_all(
            [
                (ROWS, ORPHANS, item["SK"]["S"])
                for item in self._tables.query(ROWS, ORPHANS)
                if item["place"]["S"] == self._key and item["SK"]["S"] not in seen
            ]
        )
        rows = self._store.connection.execute(
            f"SELECT {', '.join(ORPHAN_COLUMNS)} FROM orphans JOIN orphan_facts "
            "USING (machine_id) WHERE account = ? AND region = ?",
            (self._account, self._region),
        ).fetchall()
        self._tables.put_all(
            [
                (
                    ROWS,
                    {
                        **key(ORPHANS, row[0]),
                        "place": {"S": self._key},
                        "row": {"S": dumps(list(row))},
                    },
                )
                for row in rows
            ]
        )
        return seen
