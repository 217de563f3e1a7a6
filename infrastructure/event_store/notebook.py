"""What the worker remembers between turns and tells the scripts: no history, no read model."""

from __future__ import annotations

from collections.abc import Sequence

from application.instants import Instant
from application.json_text import dumps
from application.ports import Instance
from infrastructure.event_store.sqlite import SqliteEventStore

LONGEST_GAP = 120.0
"""Seconds between two calls of HostFactory after which it counts as stopped in between."""


class SqliteNotebook:
    """The port `Notebook` in the store's file."""

    def __init__(self, store: SqliteEventStore, account: str, region: str) -> None:
        self._store = store
        self._account = account
        self._region = region
        self._key = f"{account}/{region}"

    def _write(self, *statements: tuple[str, Sequence[object]]) -> None:
        def work() -> None:
            for statement, parameters in statements:
                self._store.connection.execute(statement, tuple(parameters))

        self._store.write("notebook", work)

    def record_sweep(self, began: Instant, instances: int) -> None:
        """A sweep was complete: it began then."""
        self._write(
            (
                "INSERT OR REPLACE INTO sweeps VALUES (?, ?, ?, ?, ?)",
                (self._key, began[0], began[1], began[2], instances),
            )
        )

    def last_sweep(self) -> Instant | None:
        return self._store.connection.execute(  # type: ignore[no-any-return]
            "SELECT began_at, boot_id, boot_seconds FROM sweeps WHERE account = ?", (self._key,)
        ).fetchone()

    def put_cloud_states(self, states: Sequence[tuple[str, str, str]], now: Instant) -> None:
        """(machine id, name, state) as EC2 has it where the ledger does not say so."""
        if states:
            self._write(
                *(
                    (
                        "INSERT OR REPLACE INTO cloud_states VALUES (?, ?, ?, ?, ?)",
                        (*state, now[1], now[2]),
                    )
                    for state in states
                )
            )

    def clear_cloud_states(self, machine_ids: Sequence[str]) -> None:
        """These are as the ledger says again."""
        noted = self._store.connection.execute(
            "SELECT c.machine_id FROM json_each(?) j JOIN cloud_states c ON c.machine_id = j.value",
            (dumps(list(machine_ids)),),
        ).fetchall()
        if noted:
            self._write(*(("DELETE FROM cloud_states WHERE machine_id = ?", row) for row in noted))

    def batch_sweep(self, batch_id: str) -> Instant | None:
        """When the first of the two settling sweeps of a batch began."""
        return self._store.connection.execute(  # type: ignore[no-any-return]
            "SELECT wall, boot_id, boot_seconds FROM batch_sweeps WHERE batch_id = ?", (batch_id,)
        ).fetchone()

    def put_batch_sweep(self, batch_id: str, began: Instant) -> None:
        self._write(("INSERT OR REPLACE INTO batch_sweeps VALUES (?, ?, ?, ?)", (batch_id, *began)))

    def see_orphans(self, instances: Sequence[Instance]) -> dict[str, int]:
        """A complete sweep saw these and no other orphans: how many sweeps saw each."""
        before = dict(
            self._store.connection.execute("SELECT machine_id, sweeps FROM orphans").fetchall()
        )
        if not instances and not before:
            return {}
        seen = {i.machine_id: before.get(i.machine_id, 0) + 1 for i in instances}
        self._write(
            ("DELETE FROM orphans", ()),
            *(
                (
                    "INSERT INTO orphans VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        i.machine_id, i.batch_id, i.state, i.zone, self._account, self._region,
                        i.launch_time, seen[i.machine_id],
                    ),
                )
                for i in instances
            ),
        )  # fmt: skip
        return seen

    def add_calling(self, name: str, lines: Sequence[Instant]) -> None:
        """HostFactory called at these moments: the time between calls close together counts."""
        if not lines:
            return
        row = self._store.connection.execute(
            "SELECT seconds, boot_id, last FROM calling WHERE name = ?", (name,)
        ).fetchone()
        seconds, boot_id, last = row or (0.0, lines[0][1], lines[0][2])
        for _, line_boot, at in lines:
            if line_boot == boot_id and 0.0 <= at - last <= LONGEST_GAP:
                seconds += at - last
            if line_boot != boot_id or at > last:
                boot_id, last = line_boot, at
        self._write(
            ("INSERT OR REPLACE INTO calling VALUES (?, ?, ?, ?)", (name, seconds, boot_id, last))
        )

    def calling(self, name: str) -> float:
        """Seconds in which HostFactory was calling, ever."""
        row = self._store.connection.execute(
            "SELECT seconds FROM calling WHERE name = ?", (name,)
        ).fetchone()
        return row[0] if row else 0.0

    def unseen_since(self, thing: str, seconds: float) -> float:
        """The calling time at which this was first missed; that of now at the first question."""
        row = self._store.connection.execute(
            "SELECT seconds FROM unseen WHERE id = ?", (thing,)
        ).fetchone()
        if row is None:
            self._write(("INSERT OR REPLACE INTO unseen VALUES (?, ?)", (thing, seconds)))
            return seconds
        return row[0]  # type: ignore[no-any-return]
