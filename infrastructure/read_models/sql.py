"""The read models in the store's own file, as HostFactory's reads ask them."""

from __future__ import annotations

from application.failures import ProjectionFailed
from application.json_text import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant

REQUEST_MACHINES = """
SELECT group_concat(fragment) FROM (
    SELECT fragment FROM machines WHERE request_id = ? AND (result <> 'fail' OR ? <> 'complete')
    ORDER BY position, machine_id) f
"""
# A machine that failed and was replaced is no part of a complete answer, where all succeed.

RETURN_MACHINES = """
SELECT group_concat(fragment) FROM (
    SELECT coalesce(r.fragment, m.return_fragment) AS fragment
    FROM returned_machines r LEFT JOIN machines m ON r.ours = 1 AND m.machine_id = r.machine_id
    WHERE r.return_id = ? ORDER BY r.ordinal) f
"""


NEVER = float("inf")


class SqlReadModel:
    """The questions, over an open connection, within one consistent look at the store.

    `shared`: machines with clocks of their own ask; their wall clocks are compared then.
    """

    def __init__(self, connection: Any, *, shared: bool = False) -> None:
        self.connection = connection
        self._shared = shared

    def refuse_failed(self, name: str) -> None:
        """Raises ProjectionFailed, naming the store `name`, where a read model stands still."""
        failed = self.connection.execute(
            "SELECT name, failed_at, error FROM projections"
        ).fetchone()
        if failed is not None:
            raise ProjectionFailed(
                f"{name}: the read model {failed[0]} stopped at position {failed[1]} "
                f"({failed[2]}): `hostledger projections rebuild` lets it answer again"
            )

    def _age(self, earlier: Instant, now: Instant) -> float:
        """Seconds since then; endless when it was on another boot of the only machine."""
        if earlier[1] == now[1]:
            return max(0.0, now[2] - earlier[2])
        return max(0.0, now[0] - earlier[0]) if self._shared else NEVER

    def again(self) -> None:
        """End this look and begin a new one."""
        self.connection.execute("COMMIT")
        self.connection.execute("BEGIN")

    def request(self, request_id: str) -> tuple[str, str, int, int, int, str] | None:
        """kind, status, final, seen, answered_final and head fragment of a request or return."""
        return self.connection.execute(  # type: ignore[no-any-return]
            "SELECT kind, status, final, seen, answered_final, fragment FROM requests "
            "WHERE request_id = ?",
            (request_id,),
        ).fetchone()

    def machines_of(self, request_id: str, kind: str, status: str) -> str:
        """The fragments of its machines, joined by commas."""
        if kind == "return":
            row = self.connection.execute(RETURN_MACHINES, (request_id,)).fetchone()
        else:
            row = self.connection.execute(REQUEST_MACHINES, (request_id, status)).fetchone()
        return row[0] or ""

    def is_in_log(self, request_id: str) -> bool:
        """Whether the log itself has a request or return of this id."""
        return (
            self.connection.execute(
                "SELECT 1 FROM events WHERE stream IN (?, ?) LIMIT 1",
                ("request-" + request_id, "return-" + request_id),
            ).fetchone()
            is not None
        )

    def brake(self) -> tuple[str, str] | None:
        """What the operator has paused and why; None for nothing."""
        return self.connection.execute(  # type: ignore[no-any-return]
            "SELECT scope, reason FROM brake WHERE scope <> ''"
        ).fetchone()

    def anything_open_or_alive(self) -> bool:
        """Whether there is something for a worker to look after."""
        return (
            self.connection.execute(
                "SELECT 1 FROM requests WHERE final = 0 UNION ALL "
                "SELECT 1 FROM batches WHERE state IN ('open', 'doubtful') UNION ALL "
                "SELECT 1 FROM fleets WHERE state <> 'deleted' UNION ALL "
                "SELECT 1 FROM launch_templates "
                "WHERE state IN ('open', 'created', 'missed', 'deleting') UNION ALL "
                "SELECT 1 FROM terminations WHERE state = 'open' UNION ALL "
                "SELECT 1 FROM machines WHERE alive = 1 LIMIT 1"
            ).fetchone()
            is not None
        )

    def oldest_open(self) -> Instant | None:
        """When the oldest open request or return was made."""
        row = self.connection.execute(
            "SELECT created_at, boot_id, boot_seconds FROM requests WHERE final = 0 "
            "ORDER BY position LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        if not self._shared:
            return NEVER, row[1], row[2]  # of another boot nothing is concluded
        from infrastructure.event_store.commit import seconds

        return seconds(row[0]), row[1], row[2]

    def anything_alive(self) -> bool:
        """Whether any machine is not gone."""
        return (
            self.connection.execute("SELECT 1 FROM machines WHERE alive = 1 LIMIT 1").fetchone()
            is not None
        )

    def healthy_machines(self) -> set[str]:
        """Ids of all machines that are not gone and not going. Joined by SQLite and split again:
        half of the time that ten thousand rows take."""
        return self._ids(
            "SELECT group_concat(machine_id) FROM machines "
            "WHERE alive = 1 AND status IN ('pending', 'running')"
        )

    def interrupted_machines(self) -> dict[str, int]:
        """Machine id -> when AWS takes it (seconds since the epoch), of those not gone."""
        return dict(
            self.connection.execute(
                # SQLite would go through all that live.
                "SELECT machine_id, interrupted_until FROM machines INDEXED BY "
                "machines_interrupted WHERE alive = 1 AND interrupted_until > 0"
            ).fetchall()
        )

    def unseen_machines(self) -> set[str]:
        """Ids of those that are not gone and that HostFactory has never named."""
        return self._ids(
            "SELECT group_concat(machine_id) FROM machines WHERE alive = 1 AND seen = 0"
        )

    def _ids(self, statement: str) -> set[str]:
        (joined,) = self.connection.execute(statement).fetchone()
        return set(joined.split(",")) if joined else set()

    def known(self, machine_ids: list[str]) -> dict[str, str]:
        """Machine id -> name of those of these that were ever ours."""
        return dict(
            self.connection.execute(
                "SELECT m.machine_id, m.name FROM json_each(?) j "
                "JOIN machines m ON m.machine_id = j.value",
                (dumps(machine_ids),),
            ).fetchall()
        )

    def ids_by_name(self, names: list[str]) -> dict[str, str]:
        """The machine id for each of these host names that was ever ours, the living preferred."""
        return dict(
            self.connection.execute(
                "SELECT m.name, m.machine_id FROM json_each(?) j "
                "JOIN machines m ON m.name = j.value ORDER BY m.alive, m.position",
                (dumps(names),),
            ).fetchall()
        )

    def cloud_states(self, now: Instant) -> dict[str, tuple[str, float]]:
        """id and name -> state and how many seconds ago it was seen: what the worker saw that the
        ledger lacks (a stopped machine, a stranger it was asked about)."""
        states: dict[str, tuple[str, float]] = {}
        for machine_id, name, state, *seen in self.connection.execute(
            "SELECT machine_id, name, state, wall, boot_id, boot_seconds FROM cloud_states"
        ):
            states[machine_id] = (state, self._age(tuple(seen), now))
            if name:
                states[name] = states[machine_id]
        return states

    def last_sweep(self, place: str, now: Instant) -> float:
        """How many seconds ago the last complete sweep of an account and region
        (`account/region`) began; endless when none is known."""
        row = self.connection.execute(
            "SELECT began_at, boot_id, boot_seconds FROM sweeps WHERE account = ?", (place,)
        ).fetchone()
        return NEVER if row is None else self._age(row, now)

    def holder_lives(self) -> bool:
        """Whether a worker on any machine has said so in time, where a worker may be elsewhere."""
        return False

    def template_revision(self, template_key: str) -> str | None:
        """The revision that the ledger has of a template; None for none or a retired one."""
        row = self.connection.execute(
            "SELECT revision FROM templates WHERE template_key = ? AND retired = 0", (template_key,)
        ).fetchone()
        return row[0] if row else None
