"""The lease of one account and region on DynamoDB, whose clock nobody can ask.

Every renewal changes the item's `version`. Who wants the lease of a holder on another machine must
have seen one version unchanged for the holder's lease time by its own boot clock, from its own
first look on; so no two machines' clocks are ever compared. What was seen is kept in the mirror's
file, since a short process (inline) sees it for a moment only. A holder on this machine is followed
as in `lease.py`: by the boot clock that both read, and by its file lock when it died. Which file
that is the item says: two provider instances, or containers, on one machine have one each, and one
says nothing about the other's holder.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from application.ports import Clock
from infrastructure.event_store.dynamodb import DynamodbEventStore
from infrastructure.event_store.dynamodb_client import LOG, ConditionFailed, key
from infrastructure.event_store.dynamodb_log import LEASES, directory_of
from infrastructure.event_store.lease import SHARE, SqliteLease, _order

if TYPE_CHECKING:
    from infrastructure.event_store.dynamodb_client import Item


class DynamodbLease(SqliteLease):
    """One process's hold on the lease; `fence` is valid while `renew` says so."""

    def __init__(
        self,
        store: DynamodbEventStore,
        account: str,
        owner: str,
        program_version: str,
        clock: Clock,
        lease_time: float,
        lock_path: str,
    ) -> None:
        super().__init__(store, account, owner, program_version, clock, lease_time, lock_path)  # type: ignore[arg-type]
        self._tables = store.tables
        self._ledger = store

    def acquire(self) -> bool:
        """Take it when it is free, was seen unchanged for long enough, or its holder is dead. Asks
        an older release to end."""
        if self._lock < 0:
            self._try_lock()
        lock = self._lock_file()
        item = self._tables.get(LOG, LEASES, self.account)
        _, boot_id, seconds = self._clock.now()
        followed: float | None = None
        number = 0
        if item is not None:
            number = int(item["fence"]["N"])
            here = item["boot"]["S"] == boot_id
            expires = float(item["expires"]["N"])
            if int(item["released"]["N"]):
                if expires < 0:
                    followed = -expires if here else seconds
            else:
                is_over = here and seconds >= expires
                is_over = is_over or (here and bool(lock["S"]) and item.get("lock") == lock)
                if not is_over and not self._was_unchanged(item, boot_id, seconds):
                    self._ask_to_end(item)
                    self._unlock()
                    return False
                followed = seconds
        if not self._put(number + 1, item["version"]["S"] if item else ""):
            self._unlock()
            return False
        self.number = number + 1
        self._followed = followed
        return True

    def renew(self) -> bool:
        """Extend it. False when another has it now, or a newer release asks for it."""
        if self._lock < 0:
            self._try_lock()
        until, item = self._item(self.number)
        fence = item.pop("fence")
        try:
            answer = self._tables.call(
                "UpdateItem",
                TableName=self._tables.table(LOG),
                Key=key(LEASES, self.account),
                # Asked for once: of who has one only nothing is left behind.
                UpdateExpression=f"SET {', '.join(f'#{n} = :{n}' for n in item)} REMOVE successor",
                ConditionExpression="fence = :fence",
                ExpressionAttributeNames={f"#{name}": name for name in item},
                ExpressionAttributeValues={
                    ":fence": fence,
                    **{f":{name}": value for name, value in item.items()},
                },
                ReturnValues="ALL_OLD",
            )
        except ConditionFailed:
            self._expires = 0.0
            self._unlock()
            return False
        self._expires = until
        successor = answer["Attributes"].get("successor", {}).get("S", "")
        self.wanted = successor == SHARE
        return successor in ("", SHARE)

    def ask(self) -> None:
        """Ask its holder, who may have several, to give it up."""
        self._tell(SHARE, "released = :no AND attribute_not_exists(successor)", {":no": {"N": "0"}})

    def release(self) -> None:
        """Give it back, so that the next one need not wait."""
        try:
            self._tables.call(
                "UpdateItem",
                TableName=self._tables.table(LOG),
                Key=key(LEASES, self.account),
                UpdateExpression="SET released = :yes, version = :version, expires = :expires",
                ConditionExpression="fence = :fence",
                ExpressionAttributeValues={
                    ":yes": {"N": "1"},
                    ":expires": {"N": str(self._given_back())},
                    ":version": {"S": self._tables.random(8).hex()},
                    ":fence": {"N": str(self.number)},
                },
            )
        except ConditionFailed:
            pass  # another's by now
        self._expires = 0.0
        self._unlock()

    def _put(self, number: int, before: str) -> bool:
        """Write it in the place of the version before; whether it is ours."""
        until, item = self._item(number)
        try:
            self._tables.put(
                LOG,
                {**key(LEASES, self.account), **item},
                ConditionExpression="version = :before" if before else "attribute_not_exists(PK)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **({"ExpressionAttributeValues": {":before": {"S": before}}} if before else {}),
            )
        except ConditionFailed as failed:
            if failed.item is None or failed.item["version"] != item["version"]:
                return False  # else it is ours: the answer to the first try was lost
        self._expires = until
        return True

    def _item(self, number: int) -> tuple[float, Item]:
        """Until when it is ours, and what the item then says. It is ours from before the call on:
        what the call takes does not lengthen it."""
        wall, boot_id, seconds = self._clock.now()
        until = seconds + self._lease_time
        return until, {
            "owner": {"S": self.owner},
            "program_version": {"S": self.program_version},
            "fence": {"N": str(number)},
            "version": {"S": self._tables.random(8).hex()},
            "released": {"N": "0"},
            "lease_time": {"N": str(self._lease_time)},
            "boot": {"S": boot_id},
            "expires": {"N": str(until)},
            "locked": {"N": str(int(self._lock >= 0))},
            "lock": self._lock_file(),
            # For a message, and for whether to start a worker: it decides nothing else.
            "wall": {"N": str(wall)},
        }

    def _lock_file(self) -> dict[str, str]:
        """The file whose lock this one has, among this machine's: "" for none."""
        if self._lock < 0:
            return {"S": ""}
        directory = directory_of(os.path.dirname(self._lock_path))
        return {"S": f"{directory}/{os.fstat(self._lock).st_ino}"}

    def _was_unchanged(self, item: Item, boot_id: str, seconds: float) -> bool:
        """Whether this version was first seen, by this machine's clock, a lease time ago."""
        connection = self._ledger.connection
        seen = f"lease {self.account} "
        thing = seen + item["version"]["S"]
        first = connection.execute(
            "SELECT boot_id, boot_seconds FROM batch_sweeps WHERE batch_id = ?", (thing,)
        ).fetchone()
        if first is None or first[0] != boot_id:
            wall, _, _ = self._clock.now()

            def remember() -> None:
                connection.execute("DELETE FROM batch_sweeps WHERE batch_id GLOB ?", (seen + "*",))
                row = (thing, wall, boot_id, seconds)
                connection.execute("INSERT INTO batch_sweeps VALUES (?, ?, ?, ?)", row)

            self._ledger.write("notebook", remember)
            return False
        return bool(seconds - first[1] >= float(item["lease_time"]["N"]))

    def _ask_to_end(self, item: Item) -> None:
        if _order(item["program_version"]["S"]) >= _order(self.program_version):
            return
        self._tell(self.program_version, "fence = :fence", {":fence": item["fence"]})

    def _tell(self, successor: str, condition: str, values: Item) -> None:
        try:
            self._tables.call(
                "UpdateItem",
                TableName=self._tables.table(LOG),
                Key=key(LEASES, self.account),
                UpdateExpression="SET successor = :successor",
                ConditionExpression=condition,
                ExpressionAttributeValues={":successor": {"S": successor}, **values},
            )
        except ConditionFailed:
            pass  # another's by now, or asked for already
