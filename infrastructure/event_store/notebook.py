"""What the worker remembers between turns and tells the scripts: no history, no read model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from application.instants import Instant
from application.json_text import dumps
from application.ports import Instance
from infrastructure.event_store.sql import SqlEventStore, upsert

LONGEST_GAP = 120.0
"""Seconds between two calls of HostFactory after which it counts as stopped in between."""


MISSING, KEPT = "missing ", "kept "
FORGOTTEN_AFTER = 3600.0
"""Seconds after which a state that EC2 was seen in is dropped, unless it is seen again."""

PUT_SWEEP = upsert(
    "sweeps", ["account"], ["account", "began_at", "boot_id", "boot_seconds", "instances"]
)
PUT_STATE = upsert(
    "cloud_states",
    ["machine_id"],
    ["machine_id", "name", "state", "wall", "boot_id", "boot_seconds"],
)
PUT_MOMENT = upsert("batch_sweeps", ["batch_id"], ["batch_id", "wall", "boot_id", "boot_seconds"])
PUT_ORPHAN_FACTS = upsert(
    "orphan_facts",
    ["machine_id"],
    ["machine_id", "provider", "instance_type", "price_type", "name", "private_ip_address"],
)
PUT_CALLING = upsert("calling", ["name"], ["name", "seconds", "boot_id", "last"])
PUT_UNSEEN = upsert("unseen", ["id"], ["id", "seconds"])


class SqlNotebook:
    """The port `Notebook` in the store's file."""

    def __init__(self, store: SqlEventStore, account: str, region: str) -> None:
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
        """A sweep was complete: it began then. What no sweep and no question has confirmed for
        long is forgotten."""
        self._write(
            (
                # Another machine's, which sweeps other accounts, go by the wall clocks.
                "DELETE FROM cloud_states WHERE boot_id = ? AND boot_seconds < ? "
                "OR boot_id <> ? AND abs(wall - ?) > ?",
                (began[1], began[2] - FORGOTTEN_AFTER, began[1], began[0], FORGOTTEN_AFTER),
            ),
            (
                PUT_SWEEP,
                (self._key, began[0], began[1], began[2], instances),
            ),
        )

    def put_cloud_states(self, states: Sequence[tuple[str, str, str]], now: Instant) -> None:
        """(machine id, name, state) as EC2 has it where the ledger does not say so."""
        if states:
            self._write(*((PUT_STATE, (*state, *now)) for state in states))

    def clear_cloud_states(self, machine_ids: Sequence[str]) -> None:
        """These are as the ledger says again."""
        noted = self._store.connection.execute(
            "SELECT c.machine_id FROM json_each(?) j JOIN cloud_states c ON c.machine_id = j.value",
            (dumps(list(machine_ids)),),
        ).fetchall()
        if noted:
            self._write(*(("DELETE FROM cloud_states WHERE machine_id = ?", row) for row in noted))

    def first_sweep(self, thing: str, began: Instant) -> Instant:
        """When the first complete sweep began that was asked about this thing: this one, when
        none was before."""
        first = self.last(thing)
        if first is None:
            self.note(thing, began)
        return first or began

    def note(self, thing: str, at: Instant) -> None:
        """This was done then, for the last time so far."""
        self._write((PUT_MOMENT, (thing, *at)))

    def last(self, thing: str) -> Instant | None:
        """When it was done for the last time; None when it never was."""
        return self._store.connection.execute(  # type: ignore[no-any-return]
            "SELECT wall, boot_id, boot_seconds FROM batch_sweeps WHERE batch_id = ?", (thing,)
        ).fetchone()

    def kept(self) -> dict[str, Instant]:
        """What `keep` has kept of this account, each until its moment, which may be over."""
        kept = f"{KEPT}{self._key} "
        return {
            text.removeprefix(kept): (wall, boot_id, seconds)
            for text, wall, boot_id, seconds in self._store.connection.execute(
                "SELECT batch_id, wall, boot_id, boot_seconds FROM batch_sweeps "
                "WHERE substr(batch_id, 1, ?) = ?",
                (len(kept), kept),
            )
        }

    def keep(self, texts: Mapping[str, Instant], instead_of: Sequence[str]) -> None:
        """Keep these texts, each until a moment, instead of those."""
        kept = f"{KEPT}{self._key} "
        self._write(
            *(("DELETE FROM batch_sweeps WHERE batch_id = ?", (kept + t,)) for t in instead_of),
            *((PUT_MOMENT, (kept + text, *until)) for text, until in texts.items()),
        )

    def miss(self, machine_ids: Sequence[str], now: Instant) -> list[str]:
        """A complete sweep lacked these machines and no others: those that the last one lacked
        too."""
        missing = f"{MISSING}{self._key} "
        before = {
            thing.removeprefix(missing)
            for (thing,) in self._store.connection.execute(
                "SELECT batch_id FROM batch_sweeps WHERE substr(batch_id, 1, ?) = ?",
                (len(missing), missing),
            )
        }
        if before != set(machine_ids):
            self._write(
                *(
                    ("DELETE FROM batch_sweeps WHERE batch_id = ?", (missing + machine_id,))
                    for machine_id in before.difference(machine_ids)
                ),
                *(
                    (PUT_MOMENT, (missing + machine_id, *now))
                    for machine_id in machine_ids
                    if machine_id not in before
                ),
            )
        return [machine_id for machine_id in machine_ids if machine_id in before]

    def see_orphans(self, instances: Sequence[Instance]) -> dict[str, int]:
        """A complete sweep saw these and no other orphans: how many sweeps saw each."""
        place = (self._account, self._region)
        before = dict(
            self._store.connection.execute(
                "SELECT machine_id, sweeps FROM orphans WHERE account = ? AND region = ?", place
            ).fetchall()
        )
        if not instances and not before:
            return {}
        seen = {i.machine_id: before.get(i.machine_id, 0) + 1 for i in instances}
        self._write(
            ("DELETE FROM orphans WHERE account = ? AND region = ?", place),
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
            (
                "DELETE FROM orphan_facts WHERE machine_id NOT IN (SELECT machine_id FROM orphans)",
                (),
            ),
            *(
                (
                    PUT_ORPHAN_FACTS,
                    (
                        i.machine_id, i.provider, i.instance_type, i.price_type, i.name,
                        i.private_ip_address,
                    ),
                )
                for i in instances
            ),
        )  # fmt: skip
        return seen

    def add_calling(self, name: str, lines: Sequence[Instant]) -> None:
        """HostFactory called at these moments: the time between calls close together counts.

        Its scripts may run on several machines, whose clocks cannot be compared. Each counts by its
        own, from the sum at its first call on or at its first after it was silent, and who has
        counted most tells the sum: no time counts twice, however many call. That one's row bears
        the name alone."""
        if not lines:
            return
        others = f"{name} "
        rows = self._store.connection.execute(
            "SELECT name, seconds, boot_id, last FROM calling WHERE name = ? "
            "OR substr(name, 1, ?) = ?",
            (name, len(others), others),
        ).fetchall()
        counted = {boot_id: (seconds, last) for _, seconds, boot_id, last in rows}
        most = max((seconds for seconds, _ in counted.values()), default=0.0)
        for _, boot_id, at in lines:
            seconds, last = counted.get(boot_id, (most, at))
            seconds = most if at - last > LONGEST_GAP else seconds + max(0.0, at - last)
            most = max(most, seconds)
            counted[boot_id] = (seconds, max(last, at))
        first = max(counted, key=counted.__getitem__)
        kept = {
            name if boot_id == first else others + boot_id: (seconds, boot_id, last)
            for boot_id, (seconds, last) in counted.items()
            # One that is further behind was silent: it will count from the sum on.
            if most - seconds <= LONGEST_GAP
        }
        gone = [row[:1] for row in rows if row[0] not in kept]
        self._write(
            *((PUT_CALLING, (key, *row)) for key, row in kept.items()),
            *(("DELETE FROM calling WHERE name = ?", row) for row in gone),
        )

    def calling(self, name: str) -> float:
        """Seconds in which HostFactory was calling, ever."""
        row = self._store.connection.execute(
            "SELECT seconds FROM calling WHERE name = ?", (name,)
        ).fetchone()
        return row[0] if row else 0.0

    def unseen_since(self, things: dict[str, float]) -> dict[str, float]:
        """Thing -> the calling time at which it was first missed. `things` are all that are
        missed, each with its calling time now, which counts at the first question; what is not
        among them is forgotten."""
        known = dict(self._store.connection.execute("SELECT id, seconds FROM unseen").fetchall())
        new = [(thing, seconds) for thing, seconds in things.items() if thing not in known]
        gone = [(thing,) for thing in known if thing not in things]
        if new or gone:
            self._write(
                *((PUT_UNSEEN, row) for row in new),
                *(("DELETE FROM unseen WHERE id = ?", row) for row in gone),
            )
        return {thing: known.get(thing, seconds) for thing, seconds in things.items()}
