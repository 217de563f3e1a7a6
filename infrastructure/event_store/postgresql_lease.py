"""The lease where machines with clocks of their own share a PostgreSQL store: its clock is the
database's.

No file lock says that a holder is dead, as `lease.py` has it on one machine: what is not given back
has to expire.
"""

from __future__ import annotations

from application.ports import Clock
from infrastructure.clock import SystemClock
from infrastructure.event_store.lease import SHARE, _order, mark
from infrastructure.event_store.postgresql import PostgresqlEventStore
from infrastructure.event_store.postgresql_driver import DATABASE_TIME
from infrastructure.event_store.sql import upsert

TAKE = upsert(
    "leases",
    ["account"],
    [
        "account", "owner", "program_version", "fence", "boot_id", "expires", "locked", "successor",
    ],
)  # fmt: skip


def database_time(clock: Clock) -> str:
    """SQL for the seconds that leases are told by. The one place where a simulation, whose clock
    the database does not obey, has its own: seconds of the clock that it gives."""
    if isinstance(clock, SystemClock):
        return DATABASE_TIME
    # Simulated machines beside each other have a boot clock each, and one database.
    told = getattr(clock, "database_time", None)
    return repr(float(told() if told is not None else clock.now()[2]))


class PostgresqlLease:
    """One process's hold on the lease; `fence` is valid while `renew` says so."""

    def __init__(
        self,
        store: PostgresqlEventStore,
        account: str,
        owner: str,
        program_version: str,
        clock: Clock,
        lease_time: float,
    ) -> None:
        self._store = store
        self.account = account
        self.owner = owner
        self.program_version = program_version
        self._clock = clock
        self._lease_time = lease_time
        self._expires = 0.0
        self._followed: float | None = None
        self.number = 0
        self.wanted = False
        """Whether a worker without a lease asks for it."""

    @property
    def held(self) -> bool:
        """Whether this one took it, and has not learned that it lost it."""
        return self._expires > 0

    @property
    def fence(self) -> tuple[str, int]:
        """What every outcome commit carries."""
        return (self.account, self.number)

    def remaining(self) -> float:
        """Seconds that are left of it at least, by the boot clock: counted from before the database
        was asked."""
        return self._expires - self._clock.now()[2]

    def since_another(self) -> float:
        """Seconds since this one, or one before it, followed a holder who did not give it back, and
        who may have left a call on its way; endless when there was none."""
        return float("inf") if self._followed is None else self._clock.now()[2] - self._followed

    def acquire(self) -> bool:
        """Take it when it is free or expired. Asks an older release to end."""
        row = self._look()
        if row is not None and row[1] > 0:
            # Held: looked at without the store's lock, by all who wait.
            if _order(row[3]) < _order(self.program_version) and row[4] != self.program_version:
                self._store.write("lease", self._ask_to_end)
            return False

        def take() -> tuple[int, float, float | None] | None:
            row = self._look()
            if row is not None and row[1] > 0:
                return None
            number, expires = (row[0], row[2]) if row is not None else (0, 0.0)
            before = self._clock.now()[2]
            ((now,),) = self._store.connection.run(f"SELECT {database_time(self._clock)}")
            self._store.connection.execute(
                TAKE,
                (
                    self.account, self.owner, self.program_version, number + 1, "",
                    now + self._lease_time, 0, "",
                ),
            )  # fmt: skip
            followed = before if expires else None
            if expires < 0:
                followed = before - (now + expires)
            return number + 1, before + self._lease_time, followed

        # Kept in memory only when it is committed: a failed commit must not look like a lease.
        taken = self._store.write("lease", take)
        if taken is None:
            return False
        self.number, self._expires, self._followed = taken
        return True

    def _look(self) -> tuple[int, float, float, str, str] | None:
        """Fence, seconds left by the database's clock, expiry, holder's release and successor."""
        return self._store.connection.run(
            f"SELECT fence, expires - {database_time(self._clock)}, expires, program_version, "
            "successor FROM leases WHERE account = %s",
            (self.account,),
        ).fetchone()

    def _ask_to_end(self) -> None:
        self._store.connection.execute(
            "UPDATE leases SET successor = ? WHERE account = ?",
            (self.program_version, self.account),
        )

    def renew(self) -> bool:
        """Extend it. False when another has it now, or a newer release asks for it."""

        def extend() -> tuple[float, str]:
            before = self._clock.now()[2]
            row = self._store.connection.run(
                f"UPDATE leases SET expires = {database_time(self._clock)} + %s "
                "WHERE account = %s AND fence = %s RETURNING successor",
                (self._lease_time, self.account, self.number),
            ).fetchone()
            if row is not None and row[0] == SHARE:
                # Asked for once: of who has one only nothing is left behind.
                mark(self._store, self.account, "")
            return (0.0, "another") if row is None else (before + self._lease_time, row[0])

        self._expires, successor = self._store.write("lease", extend)
        self.wanted = successor == SHARE
        return successor in ("", SHARE)

    def ask(self) -> None:
        """Ask its holder, who may have several, to give it up."""
        self._store.write("lease", lambda: mark(self._store, self.account, SHARE))

    def release(self) -> None:
        """Give it back, so that the next one need not wait."""

        def give_back() -> None:
            # As in `lease.py`, by the database's clock.
            since, now = self.since_another(), database_time(self._clock)
            if since >= self._lease_time:
                since, now = 0.0, "0"
            self._store.connection.run(
                f"UPDATE leases SET expires = %s - {now} WHERE account = %s AND fence = %s",
                (since, self.account, self.number),
            )

        self._store.write("lease", give_back)
        self._expires = 0.0

    def _unlock(self) -> None:
        """Nothing that the kernel would let go of: the lease of a process that dies expires."""
