"""The command RequestMachines: somebody wants so many machines of a template."""

from __future__ import annotations

from application.failures import Conflict
from domain.identifiers import REQUEST, new_id
from domain.machine_request import MachineRequest
from domain.template import Template, check_ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from application.ports import Ledger
    from domain.event_sourced import Aggregate


class RequestMachines:
    """`offered` is the template as the site offers it now (template_id, revision, content,
    bodies), None when it does not; `recorded_revision` is the one that the ledger has."""

    def __init__(
        self,
        provider: str,
        template_id: str,
        machine_count: object,
        offered: dict[str, Any] | None,
        recorded_revision: str | None,
        default_deadline: float,
        source: str,
        random: bytes,
        rc_account: str = "",
        reason: str = "",
    ) -> None:
        self.provider = provider
        self.template_id = template_id
        self.machine_count = machine_count
        self.offered = offered
        self.recorded_revision = recorded_revision
        self.default_deadline = default_deadline
        self.source = source
        self.rc_account = rc_account
        self.reason = reason
        self.request_id = new_id(REQUEST, random)


def request_machines(
    command: RequestMachines,
    ledger: Ledger,
    recorded: Callable[[], str | None] | None = None,
) -> str:
    """Record the request, and first the template's revision when the ledger lacks it; its id.

    `recorded` asks which revision the ledger has by now: when somebody has just recorded one, the
    request goes on from there. Raises a Refusal, Conflict; then nothing was recorded.
    """
    while True:
        try:
            return _record(command, ledger)
        except Conflict:
            revision = recorded() if recorded is not None else command.recorded_revision
            if revision == command.recorded_revision:
                raise  # then it is the command that was carried out already
            command.recorded_revision = revision


def _record(command: RequestMachines, ledger: Ledger) -> str:
    offered = command.offered
    content = offered["content"] if offered else None
    count = check_ask(command.template_id, content, command.machine_count)
    assert offered is not None and content is not None
    request = MachineRequest.ask(
        command.request_id,
        command.provider,
        command.template_id,
        offered["revision"],
        count,
        float(content.get("fulfilment_deadline", command.default_deadline)),
        command.source,
        command.rc_account,
        command.reason,
    )
    saved: list[Aggregate] = [request]
    bodies = None
    if offered["revision"] != command.recorded_revision:
        key = Template.key(command.provider, command.template_id)
        template = ledger.get(Template, key) or Template(Template.stream(key))
        template.revise(command.provider, command.template_id, offered["revision"], content)
        saved.insert(0, template)
        bodies = {digest: body.encode() for digest, body in offered["bodies"].items()}
    ledger.save(
        *saved,
        correlation_id=command.request_id,
        command=(command.request_id, command.request_id),
        bodies=bodies,
    )
    return command.request_id
