"""requestMachines and requestReturnMachines: one commit, then the answer."""

from __future__ import annotations

import os

from application.crash_points import reach
from application.json_text import dumps
from application.request_machines import RequestMachines
from application.request_machines import request_machines as record_request
from application.return_machines import ReturnMachines
from application.return_machines import return_machines as record_return
from domain.template import Template
from interfaces.hostfactory import wire_format
from interfaces.hostfactory.wire_format import BadInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from interfaces.read_side import Call

SOURCE = "hostfactory"


def request_machines(call: Call, document: dict[str, Any], path: str) -> str:
    """Record the request and answer its id; machines come behind getRequestStatus."""
    template_id, count = wire_format.asked_machines(document, path)
    offered = call.compiled.template(template_id)
    ledger, model = call.ledger()
    key = Template.key(call.site.provider, template_id)
    command = RequestMachines(
        call.site.provider,
        template_id,
        count,
        offered,
        model.template_revision(key),
        call.settings["provider"]["fulfilment_deadline"],
        SOURCE,
        os.urandom(16),
        wire_format.resource_account(document),
    )
    request_id = record_request(command, ledger, lambda: model.template_revision(key))
    message = call.look_after(model, wanted=True)
    reach("answer.requestMachines")
    return _answer(request_id, "Machines requested.", message)


def _answer(request_id: str, *messages: str) -> str:
    return dumps({"requestId": request_id, "message": " ".join(m for m in messages if m)})


def return_machines(call: Call, document: dict[str, Any], path: str) -> str:
    """Record the return and answer its id, whatever is known of the machines."""
    hosts = wire_format.named_machines(document, path)
    if not hosts:
        raise BadInput(f"input file {path}: no machine is named, there is nothing to return")
    ledger, model = call.ledger()
    ledger.refuse_failed_projections()
    known = model.known([machine_id for machine_id, _ in hosts if machine_id])
    names = model.ids_by_name([name for machine_id, name in hosts if not machine_id])
    ours: dict[str, None] = {}
    strangers: dict[tuple[str, str], None] = {}
    for machine_id, name in hosts:
        if machine_id in known:
            ours[machine_id] = None
            if name and name != known[machine_id]:
                call.journal().warn(
                    "name mismatch", machine_id=machine_id, given=name, recorded=known[machine_id]
                )
        elif not machine_id and name in names:
            ours[names[name]] = None
        else:
            strangers[machine_id, name] = None
    wire_format.refuse_odd_names(list(strangers), path)
    command = ReturnMachines(
        call.site.provider,
        list(ours),
        [list(stranger) for stranger in strangers],
        "returned by HostFactory",
        SOURCE,
        os.urandom(16),
    )
    return_id = record_return(command, ledger)
    message = call.look_after(model, wanted=True)
    reach("answer.requestReturnMachines")
    return _answer(return_id, "Machines returned.", message)


VERBS = {
    "requestMachines": request_machines,
    "requestReturnMachines": return_machines,
}
