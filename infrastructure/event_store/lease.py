"""The lease of one account and region: who may act on AWS, until when, and the fencing number.

The clock is the machine's boot clock with its boot id: it neither steps nor stops. Beside it the
holder keeps a file lock, which the kernel lets go of when the process dies, so that a dead holder
is followed at once and only a paused one has to expire. Who takes over from a paused one has no
file lock (`locked` is 0) until that one lets go: a free lock says nothing about it meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from application.ports import Clock
from infrastructure.event_store.sqlite import SqliteEventStore


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

    @property
    def fence(self) -> tuple[str, int]:
        """What every outcome commit carries."""
        return (self.account, self.number)

    def remaining(self) -> float:
        """Seconds that are left of it, by the boot clock."""
        return self._expires - self._clock.now()[2]

    def since_another(self) -> float:
        """Seconds since this one followed a holder who did not give it back, and who may have left
        a call on its way; endless when there was none."""
        return float("inf") if self._followed is None else self._clock.now()[2] - self._followed

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
            return (0.0, "another") if row is None else (expires, row[0])

        self._expires, successor = self._store.write("lease", extend)
        if not self._expires:
            self._unlock()
        return not successor

    def release(self) -> None:
        """Give it back, so that the next one need not wait."""

        def give_back() -> None:
            self._store.connection.execute(
                "UPDATE leases SET expires = 0 WHERE account = ? AND fence = ?",
                (self.account, self.number),
            )

        self._store.write("lease", give_back)
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
    """The leases of all accounts as one: one worker has them all, or none."""

    def __init__(self, leases: Sequence[SqliteLease]) -> None:
        self._leases = leases

    @property
    def number(self) -> int:
        """The fencing number of the first."""
        return self._leases[0].number

    def acquire(self) -> bool:
        """Take all that are not held yet; when one cannot be had, none is kept."""
        taken: list[SqliteLease] = []
        for lease in self._leases:
            if not lease.acquire():
                for other in taken:
                    other.release()
                return False
            taken.append(lease)
        return True

    def renew(self) -> bool:
        """Extend all. False when one of them is another's, or a newer release asks for it."""
        renewed = [lease.renew() for lease in self._leases]
        return all(renewed)

    def release(self) -> None:
        for lease in self._leases:
            lease.release()

    def let_go(self) -> None:
        """What the kernel does for a process that dies."""
        for lease in self._leases:
            lease._unlock()


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
