"""What HostFactory's reads ask differently in PostgreSQL: who holds a lease may be on any machine,
and the database's clock tells until when."""

from __future__ import annotations

from infrastructure.event_store.postgresql_driver import DATABASE_TIME
from infrastructure.read_models.sql import SqlReadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from infrastructure.event_store.postgresql_driver import Session


class PostgresqlReadModel(SqlReadModel):
    """HostFactory's questions, within one consistent look at a store that machines share."""

    def __init__(self, connection: Session) -> None:
        super().__init__(connection, shared=True)

    def holder_lives(self) -> bool:
        """Whether a worker on any machine has a lease that has not expired."""
        found = self.connection.run(f"SELECT 1 FROM leases WHERE expires > {DATABASE_TIME} LIMIT 1")
        return found.fetchone() is not None
