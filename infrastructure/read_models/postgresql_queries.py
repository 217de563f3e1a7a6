"""What operators are told differently of a store that machines share."""

from __future__ import annotations

import os
from typing import Any

from infrastructure.clock import SystemClock
from infrastructure.event_store.postgresql_driver import DATABASE_TIME, numbered
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
            if lease["expires"] > 0:
                lease["boot_id"] = boot_id
                lease["expires"] = now + left[lease["account"]]
        return facts

    def _steps(self, statement: str) -> list[str]:
        """As for values that are not known: with NULL for them it would be another plan."""
        name = "plan_" + os.urandom(8).hex()
        given = f"({', '.join(['NULL'] * statement.count('%s'))})" if "%s" in statement else ""
        session = self._connection
        session.run("SAVEPOINT plan")
        try:
            session.run("SET LOCAL plan_cache_mode = force_generic_plan")
            session.run(f"PREPARE {name} AS {numbered(statement).replace('%%', '%')}")
            return [line for (line,) in session.run(f"EXPLAIN EXECUTE {name}{given}")]
        finally:
            session.run("ROLLBACK TO plan")

    def issued(self) -> int:
        """The last position that was ever given."""
        return self._rows("SELECT position FROM head")[0]["position"]  # type: ignore[no-any-return]
