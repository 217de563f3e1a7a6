"""The command CancelRequest: the demand ends, and what came already goes back."""

from __future__ import annotations

import os

from application.return_machines import ReturnMachines, return_machines
from domain.identifiers import RETURN, is_id, new_id
from domain.machine_request import MachineRequest
from domain.refusals import UnknownRequest
from domain.return_request import ReturnRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from application.ports import Ledger
    from domain.event_sourced import Aggregate


class CancelRequest:
    """`machine_ids` are the living machines that the request has already. With a `command_id` the
    ledger refuses to do it again, and has the id of the return as its result."""

    def __init__(
        self,
        request_id: str,
        provider: str,
        machine_ids: list[str],
        reason: str,
        source: str,
        random: bytes,
        command_id: str = "",
    ) -> None:
        self.request_id = request_id
        self.provider = provider
        self.machine_ids = machine_ids
        self.reason = reason
        self.source = source
        self.command_id = command_id
        self.return_id = new_id(RETURN, random)


def cancel_request(command: CancelRequest, ledger: Ledger, **metadata: Any) -> str:
    """Cancel and hand back in one commit; the id of the return, "" when there was nothing.

    What still arrives for it is surplus. Raises UnknownRequest, RequestIsFinal.
    """
    request = ledger.get(MachineRequest, command.request_id)
    if request is None:
        raise UnknownRequest(
            f"{command.request_id} is a return: it cannot be cancelled"
            if is_id(RETURN, command.request_id)
            else f"the ledger has no request {command.request_id}"
        )
    request.cancel(command.reason)
    saved: list[Aggregate] = [request]
    if command.machine_ids:
        saved.append(
            ReturnRequest.hand_back(
                command.return_id,
                command.provider,
                command.machine_ids,
                [],
                command.reason,
                command.source,
            )
        )
    returned = command.return_id if command.machine_ids else ""
    if command.command_id:
        metadata["command"] = (command.command_id, returned)
    ledger.save(*saved, correlation_id=command.request_id, **metadata)
    return returned


def end_request(
    request_id: str,
    provider: str,
    living: Callable[[], list[str]],
    reason: str,
    source: str,
    random: Callable[[int], bytes],
    ledger: Ledger,
    command_id: str = "",
) -> list[str]:
    """Cancel and hand back whatever it has, also what is dealt to it meanwhile; the ids of the
    returns. `living` asks for its living machines. Raises UnknownRequest, RequestIsFinal,
    Conflict."""
    command = CancelRequest(request_id, provider, living(), reason, source, random(16), command_id)
    returns = [cancel_request(command, ledger)]
    # What the worker recorded between the question and our commit.
    while late := living():
        more = ReturnMachines(provider, late, [], reason, source, os.urandom(16))
        returns.append(return_machines(more, ledger))
    return [return_id for return_id in returns if return_id]
