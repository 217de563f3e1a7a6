"""The command SettleBatch: an operator has a doubtful launch settled by the next sweep."""

from __future__ import annotations

from domain.launch_batch import LaunchBatch
from domain.refusals import NotDoubtful

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.ports import Ledger


class SettleBatch:
    def __init__(self, batch_id: str, reason: str, random: bytes) -> None:
        self.batch_id = batch_id
        self.reason = reason
        self.command_id = "cmd-" + random.hex()


def settle_batch(command: SettleBatch, ledger: Ledger) -> None:
    """Record the order; the worker obeys it with its next complete sweep. Raises NotDoubtful."""
    batch = ledger.get(LaunchBatch, command.batch_id)
    if batch is None:
        raise NotDoubtful(
            f"the ledger has no batch {command.batch_id}: `hostledger batches list` shows what it "
            "has"
        )
    batch.order_settlement(command.reason)
    if batch.has_pending:
        ledger.save(batch, correlation_id=command.command_id)
