"""requestMachines and requestReturnMachines: one commit, then the answer."""

from __future__ import annotations

import os

from application.request_machines import RequestMachines
from application.request_machines import request_machines as record_request
from application.return_machines import ReturnMachines
from application.return_machines import return_machines as record_return
from domain.template import Template
from infrastructure.crash_points import reach
from infrastructure.json_text import dumps
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
    ledger = call.ledger()
    key = Template.key(call.site.provider, template_id)
    recorded = ledger.connection.execute(
        "SELECT revision FROM templates WHERE template_key = ? AND retired = 0", (key,)
    ).fetchone()
    command = RequestMachines(
        call.site.provider,
        template_id,
        count,
        offered,
        recorded[0] if recorded else None,
        call.settings["provider"]["fulfilment_deadline"],
        SOURCE,
        os.urandom(16),
    )
    request_id = record_request(command, ledger)
    call.look_after(None, wanted=True)
    reach("answer.requestMachines")
    return dumps({"requestId": request_id, "message": "Request VM success from AWS."})


def return_machines(call: Call, document: dict[str, Any], path: str) -> str:
    """Record the return and answer its id, whatever is known of the machines."""
    hosts = wire_format.named_machines(document, path)
    if not hosts:
        raise BadInput(f"input file {path}: no machine is named, there is nothing to return")
    ledger = call.ledger()
    wanted = [machine_id for machine_id, _ in hosts if machine_id]
    known = _known(ledger.connection, "machine_id", wanted)
    names = _known(ledger.connection, "name", [name for given, name in hosts if not given])
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
    command = ReturnMachines(
        call.site.provider,
        list(ours),
        [list(stranger) for stranger in strangers],
        "returned by HostFactory",
        SOURCE,
        os.urandom(16),
    )
    return_id = record_return(command, ledger)
    call.look_after(None, wanted=True)
    reach("answer.requestReturnMachines")
    return dumps({"requestId": return_id, "message": "Delete VM success."})


def _known(connection: Any, column: str, values: list[str]) -> dict[str, str]:
    """Of these ids the name, or of these names the id (of the living machine, where two had it)."""
    other = "name" if column == "machine_id" else "machine_id"
    return dict(
        connection.execute(
            f"SELECT m.{column}, m.{other} FROM json_each(?) j "
            f"JOIN machines m ON m.{column} = j.value ORDER BY m.alive, m.position",
            (dumps(values),),
        ).fetchall()
    )


VERBS = {
    "requestMachines": request_machines,
    "requestReturnMachines": return_machines,
}
