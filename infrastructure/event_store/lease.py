"""The lease of one account and region: who may act on AWS, until when, and the fencing number.

The clock is the machine's boot clock with its boot id: it neither steps nor stops. Beside it the
holder keeps a file lock, which the kernel lets go of when the process dies, so that a dead holder
is followed at once and only a paused one has to expire. Who takes over from a paused one has no
file lock (`locked` is 0) until that one lets go: a free lock says nothing about it meanwhile.

One that is given back expires at 0. Who followed a holder that did not give it back, and gives it
back before that one's call must be over, writes since when it had it instead, below 0: who comes
next counts on from there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from application.ports import Clock
from infrastructure.event_store.sql import SqlEventStore
from infrastructure.event_store.sqlite import SqliteEventStore

SHARE = "*"
"""In the place of a successor's release: another worker has no lease, and asks for this one."""

ASK_EVERY, KEEP_OFF = 5.0, 10.0
"""Seconds between the times that one is asked for; in which one that was given up is not taken
again, so that who asked gets it."""


def mark(store: SqlEventStore, account: str, successor: str) -> None:
    """Within a write: say who waits for a lease, unless a newer release does."""
    store.connection.execute(
        "UPDATE leases SET successor = ? WHERE account = ? AND successor IN ('', ?)",
        (successor, account, SHARE),
    )


class SqliteLease:
    """One process's hold on the lease; `fence` is valid while `renew` says so."""

    def __init__(
        self,
        store: SqliteEventStore,
        account: str,
        owner: str,
        program_version: str,
        clock: Clock,
        lease_time: float,
        lock_path: str,
    ) -> None:
        self._store = store
        self.account = account
        self.owner = owner
        self.program_version = program_version
        self._clock = clock
        self._lease_time = lease_time
        self._lock_path = lock_path
        self._lock = -1
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
        """Seconds that are left of it, by the boot clock."""
        return self._expires - self._clock.now()[2]

    def since_another(self) -> float:
        """Seconds since this one, or one before it, followed a holder who did not give it back, and
        who may have left a call on its way; endless when there was none."""
        return float("inf") if self._followed is None else self._clock.now()[2] - self._followed

    def _given_back(self) -> float:
        """What it expires at when it is given back. A lease lasts longer than a call."""
        if self._followed is None or self.since_another() >= self._lease_time:
            return 0.0
        return -self._followed

    def acquire(self) -> bool:
        """Take it when it is free, expired, or its holder is dead. Asks an older release to end."""
        locked = self._lock >= 0 or self._try_lock()

        def take() -> tuple[int, float, float | None] | None:
            _, boot_id, seconds = self._clock.now()
            row = self._store.connection.execute(
                "SELECT fence, boot_id, expires, locked, program_version FROM leases "
                "WHERE account = ?",
                (self.account,),
            ).fetchone()
            number = self._store.last_fence()
            followed = seconds if number else None
            if row is not None:
                number, holder_boot, expires, was_locked, version = row
                is_dead = locked and was_locked
                if not is_dead and holder_boot == boot_id and seconds < expires:
                    if _order(version) < _order(self.program_version):
                        self._store.connection.execute(
                            "UPDATE leases SET successor = ? WHERE account = ?",
                            (self.program_version, self.account),
                        )
                    return None
                if expires < 0 and holder_boot == boot_id:
                    followed = -expires
                else:
                    followed = seconds if expires else None
            expires = seconds + self._lease_time
            self._store.connection.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, '')",
                (
                    self.account,
                    self.owner,
                    self.program_version,
                    number + 1,
                    boot_id,
                    expires,
                    int(locked),
                ),
            )
            return number + 1, expires, followed

        # Kept in memory only when it is committed: a failed commit must not look like a lease.
        taken = self._store.write("lease", take)
        if taken is None:
            self._unlock()
            return False
        self.number, self._expires, self._followed = taken
        return True

    def renew(self) -> bool:
        """Extend it. False when another has it now, or a newer release asks for it."""

        locked = self._lock >= 0 or self._try_lock()

        def extend() -> tuple[float, str]:
            _, boot_id, seconds = self._clock.now()
            expires = seconds + self._lease_time
            row = self._store.connection.execute(
                "UPDATE leases SET expires = ?, boot_id = ?, locked = ? "
                "WHERE account = ? AND fence = ? RETURNING successor",
                (expires, boot_id, int(locked), self.account, self.number),
            ).fetchone()
            if row is not None and row[0] == SHARE:
                # Asked for once: of who has one only nothing is left behind.
                mark(self._store, self.account, "")
            return (0.0, "another") if row is None else (expires, row[0])

        self._expires, successor = self._store.write("lease", extend)
        if not self._expires:
            self._unlock()
        self.wanted = successor == SHARE
        return successor in ("", SHARE)

    def ask(self) -> None:
        """Ask its holder, who may have several, to give it up."""
        self._store.write("lease", lambda: mark(self._store, self.account, SHARE))

    def release(self) -> None:
        """Give it back, so that the next one need not wait."""

        def give_back() -> None:
            self._store.connection.execute(
                "UPDATE leases SET expires = ? WHERE account = ? AND fence = ?",
                (self._given_back(), self.account, self.number),
            )

        self._store.write("lease", give_back)
        self._expires = 0.0
        self._unlock()

    def _try_lock(self) -> bool:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _unlock(self) -> None:
        """What the kernel does for a process that dies."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Leases:
    """The leases of all accounts: a worker works those that it gets."""

    def __init__(self, leases: Sequence[SqliteLease], clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self._keep_off: dict[str, float] = {}
        self._asked = 0
        self._ask_from = float("-inf")

    @property
    def held(self) -> dict[str, int]:
        """Account and region -> fencing number, of those held."""
        return {lease.account: lease.number for lease in self._leases if lease.held}

    def acquire(self) -> bool:
        """Take what nobody has; whether any is held then."""
        now = self._clock.now()[2]
        for lease in self._leases:
            if not lease.held and self._keep_off.get(lease.account, now) <= now:
                lease.acquire()
        return bool(self.held)

    def ask(self) -> None:
        """Now and then, for a worker that gets none: ask for one, each in turn, the last first."""
        now = self._clock.now()[2]
        if len(self._leases) > 1 and now >= self._ask_from:
            self._ask_from = now + ASK_EVERY
            self._asked += 1
            self._leases[-self._asked % len(self._leases)].ask()

    def renew(self) -> bool:
        """Extend those held, and give up one, of several, that another worker asks for. False when
        one of them is another's, or a newer release asks for it."""
        held = [lease for lease in self._leases if lease.held]
        renewed = [lease.renew() for lease in held]
        if len(held) > 1 and all(renewed):
            for lease in [lease for lease in held if lease.wanted][-1:]:
                lease.release()
                self._keep_off[lease.account] = self._clock.now()[2] + KEEP_OFF
        return all(renewed)

    def release(self) -> None:
        for lease in self._leases:
            if lease.held:
                lease.release()

    def let_go(self) -> None:
        """What the kernel does for a process that dies."""
        for lease in self._leases:
            lease._unlock()


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
