"""getAvailableTemplates, getRequestStatus and getReturnRequests: answered from the read models."""

from __future__ import annotations

from application.json_text import dumps
from interfaces.hostfactory import wire_format
from interfaces.hostfactory.wire_format import BadInput
from interfaces.read_side import store_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from infrastructure.storage import ReadModel
    from interfaces.read_side import Call

GONE = ("terminated", "stopped", "shutting-down", "stopping", "absent")
LONGEST_WAIT = 20.0
"""Seconds that getReturnRequests waits for a fresh sweep before it exits 1."""

LOOK_AGAIN = 0.2
"""Seconds between its looks."""


def _answer(body: str, *messages: str) -> str:
    """A JSON object of `body` and the messages there are."""
    text = "; ".join(m for m in messages if m)
    return "{" + body + (',"message":' + dumps(text) if text else "") + "}"


def get_available_templates(call: Call, document: dict[str, Any], path: str) -> str:
    """The compiled templates. Needs no store; looks at one only to see to its worker."""
    if not call.compiled.templates_answer:
        raise BadInput(
            call.compiled.problem or f"no template in {call.site.conf_dir} is valid: see the log"
        )
    return _answer(
        '"templates":' + call.compiled.templates_answer,
        call.compiled.problem,
        _see_to_worker(call),
    )


def _see_to_worker(call: Call) -> str:
    if call.mode != "inline" and call.worker_lives():
        return ""  # without a look at the store
    try:
        return call.look_after(call.read_model())
    except store_errors():
        return ""  # this verb needs none; the others say what is wrong with it


def get_request_status(call: Call, document: dict[str, Any], path: str) -> str:
    """The status of each request and return that is asked for, once, in the order asked."""
    ids = wire_format.asked_requests(document, path)
    model = call.read_model()
    entries: list[str] = []
    first_seen: list[str] = []
    first_final: list[str] = []
    for request_id in ids:
        row = model.request(request_id)
        entries.append(_entry(model, request_id, row))
        if row is None:
            continue
        _, _, final, seen, answered_final, _ = row
        if not seen:
            first_seen.append(request_id)
        if final and not answered_final:
            first_final.append(request_id)
    call.note(
        {
            "verb": call.verb,
            "provider": call.site.provider,
            "requests": first_seen,
            "final": first_final,
        },
        model,
    )
    return _answer(f'"requests":[{",".join(entries)}]', call.look_after(model))


def statuses(model: ReadModel, request_ids: list[str]) -> str:
    """The answer of getRequestStatus from read models that need not be those of now."""
    entries = [_entry(model, request_id, model.request(request_id)) for request_id in request_ids]
    return _answer(f'"requests":[{",".join(entries)}]')


def _entry(model: ReadModel, request_id: str, row: Any) -> str:
    if row is None:
        return _unknown(model, request_id)
    kind, status, _, _, _, head = row
    return f'{head[:-1]},"machines":[{model.machines_of(request_id, kind, status)}]}}'


def _unknown(model: ReadModel, request_id: str) -> str:
    """Unknown only when the log itself has no such request; else the read model lags."""
    entry: dict[str, object] = {"requestId": request_id}
    if model.is_in_log(request_id):
        entry.update(status="running", message="not yet in the read model")
    else:
        entry.update(status="complete_with_error", message="unknown request")
    entry["machines"] = []
    return dumps(entry)


def get_return_requests(call: Call, document: dict[str, Any], path: str) -> str:
    """Which of HostFactory's hosts must be given up: those that EC2 has taken or lost.

    Only on a fresh complete sweep. When there is none, the worker is woken and waited for; then
    exit 1: never "all gone" because nobody could be asked.
    """
    hosts = wire_format.named_machines(document, path)
    model = call.read_model()
    if not hosts:
        call.note({"verb": call.verb, "provider": call.site.provider}, model)
        return _answer('"requests":[]', call.look_after(model))
    listed, unseen, strangers, fresh = _compare(call, model, hosts, path)
    call.note(
        {
            "verb": call.verb,
            "provider": call.site.provider,
            "machines": unseen,
            "strangers": strangers,
            "stale": not fresh,
            "hosts": len(hosts),
        },
        model,
    )
    began = call.now[2]
    turned = False
    while strangers or not fresh:
        message = call.look_after(model, wanted=True)
        if turned or call.now[2] - began >= LONGEST_WAIT:
            unknown = (
                "the last complete sweep is older than worker.sweep_max_age"
                if not fresh
                else f"{len(strangers)} of them are not the ledger's and were not asked after"
            )
            raise BadInput(
                f"EC2 could not be asked which hosts still exist: {unknown}; "
                f"{message or 'the worker has not answered in time'}"
            )
        turned = call.take_wanted_turn()
        if not turned:
            call.clock.sleep(LOOK_AGAIN)
        call.now = call.clock.now()
        model.again()
        listed, _, strangers, fresh = _compare(call, model, hosts, path)
    entries = [
        dumps({"machine": name or machine_id, "machineId": machine_id, "gracePeriod": grace})
        for machine_id, name, grace in listed
    ]
    return _answer(f'"status":"complete","requests":[{",".join(entries)}]', call.look_after(model))


def _compare(
    call: Call, model: ReadModel, hosts: list[tuple[str, str]], path: str
) -> tuple[list[tuple[str, str, int]], list[str], list[list[str]], bool]:
    """(hosts to give up with the seconds that are left of them, machines named for the first time,
    hosts not known, sweep is fresh)."""
    longest = call.settings["worker"]["sweep_max_age"]

    healthy = model.healthy_machines()
    unseen = model.unseen_machines()
    states = model.cloud_states(call.now)
    taken = {machine_id for machine_id, noted in states.items() if noted[0] in GONE}
    listed: list[tuple[str, str]] = []
    named: list[str] = []
    strangers: list[list[str]] = []
    by_name: list[tuple[str, str]] = []
    doubtful = [host for host in hosts if host[0] not in healthy]
    if unseen:
        named = [machine_id for machine_id, _ in hosts if machine_id in unseen]
    if taken:
        listed = [host for host in hosts if host[0] in taken and host[0] in healthy]
    if doubtful:
        wire_format.refuse_odd_names(doubtful, path)
        names = model.ids_by_name([name for machine_id, name in doubtful if not machine_id])
        ids = [machine_id or names.get(name, "") for machine_id, name in doubtful]
        known = model.known([i for i in ids if i])
        for machine_id, (given, name) in zip(ids, doubtful, strict=True):
            if machine_id in unseen and not given:
                named.append(machine_id)
            if machine_id in healthy and machine_id not in taken:
                by_name.append((machine_id, name))
                continue
            if machine_id in known:
                listed.append((machine_id, name))
                continue
            noted = states.get(given or name)
            if noted is None or noted[1] >= longest:
                strangers.append([given, name])
            elif noted[0] in GONE:
                listed.append((given, name))
    fresh = all(model.last_sweep(place, call.now) < longest for place in call.places())
    given_up = [(machine_id, name, 0) for machine_id, name in dict.fromkeys(listed)]
    until = model.interrupted_machines()
    if until:
        gone = {machine_id for machine_id, _ in listed}
        given_up += [
            (machine_id, name, max(0, int(until[machine_id] - call.now[0])))
            for machine_id, name in dict.fromkeys(hosts + by_name)
            if machine_id in until and machine_id not in gone
        ]
    return given_up, named, strangers, fresh


VERBS = {
    "getAvailableTemplates": get_available_templates,
    "getRequestStatus": get_request_status,
    "getReturnRequests": get_return_requests,
}
