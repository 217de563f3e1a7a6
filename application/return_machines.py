"""The command ReturnMachines: machines are handed back and shall be terminated."""

from __future__ import annotations

from domain.identifiers import RETURN, new_id
from domain.return_request import ReturnRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.ports import Ledger


class ReturnMachines:
    """`machine_ids` are the ledger's; `strangers` ([id or "", name]) it has never had."""

    def __init__(
        self,
        provider: str,
        machine_ids: list[str],
        strangers: list[list[str]],
        reason: str,
        source: str,
        random: bytes,
    ) -> None:
        self.provider = provider
        self.machine_ids = machine_ids
        self.strangers = strangers
        self.reason = reason
        self.source = source
        self.return_id = new_id(RETURN, random)


def return_machines(command: ReturnMachines, ledger: Ledger, **metadata: Any) -> str:
    """Record the return; its id. Raises a Refusal when nothing is named."""
    handed_back = ReturnRequest.hand_back(
        command.return_id,
        command.provider,
        command.machine_ids,
        command.strangers,
        command.reason,
        command.source,
    )
    ledger.save(
        handed_back,
        correlation_id=command.return_id,
        command=(command.return_id, command.return_id),
        **metadata,
    )
    return command.return_id
