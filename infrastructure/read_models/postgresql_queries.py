"""What operators are told differently of a store that machines share."""

from __future__ import annotations

from typing import Any

from infrastructure.clock import SystemClock
from infrastructure.event_store.postgresql_driver import DATABASE_TIME
from infrastructure.read_models.sql_queries import SqlQueries


class PostgresqlQueries(SqlQueries):
    """The operator's questions."""

    def facts(self) -> dict[str, Any]:
        """As everywhere; a lease's end is told in seconds of this machine's clock."""
        facts = super().facts()
        _, boot_id, now = SystemClock().now()
        left = dict(
            self._connection.run(f"SELECT account, expires - {DATABASE_TIME} FROM leases").rows
        )
        for lease in facts["leases"]:
            if lease["expires"]:
                lease["boot_id"] = boot_id
                lease["expires"] = now + left[lease["account"]]
        return facts

    def issued(self) -> int:
        """The last position that was ever given."""
        return self._rows("SELECT position FROM head")[0]["position"]  # type: ignore[no-any-return]
