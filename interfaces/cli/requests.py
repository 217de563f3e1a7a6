"""`hostledger requests list | show | create | cancel`."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from functools import partial
from typing import Any

from application import as_of, queries
from application.failures import BrokenConfiguration
from interfaces.cli import options, output

COLUMNS = ("request_id", "state", "machine_count", "alive", "template_id", "created_at", "message")
MACHINE_COLUMNS = ("machine_id", "status", "result", "name", "private_ip_address", "message")
SHORTAGE_COLUMNS = ("recorded_at", "pool", "reason", "missing", "message")
BATCH_COLUMNS = ("batch_id", "state", "machine_count", "pool", "code", "message")
SHORTAGES_AHEAD = ("pool", "reason", "message")
RETURNED_COLUMNS = ("machine_id", "name", "ours", "status", "alive")
POLL = 0.5
"""Seconds between two looks at a request that is waited for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = options.add_action(
        actions, "list", list_requests, "requests and returns, the newest first"
    )
    listing.add_argument("--status", choices=("running", "complete", "complete_with_error"))
    listing.add_argument("--open", action="store_true", help="only those that are not final")
    listing.add_argument("--limit", type=options.count, default=50, metavar="N", help="default 50")
    showing = options.add_action(
        actions, "show", show_request, "one request with its machines, shortages and launches"
    )
    showing.add_argument("request_id", type=options.text, metavar="ID")
    options.add_as_of(listing, showing)
    creating = options.add_action(actions, "create", create_request, "ask for machines")
    creating.add_argument("--template", type=options.text, required=True, metavar="ID")
    creating.add_argument("--count", type=int, required=True, metavar="N")
    options.add_reason(creating, required=False)
    then = creating.add_mutually_exclusive_group()
    then.add_argument(
        "--wait", type=float, metavar="SECONDS", help="until it is final, at most so long"
    )
    then.add_argument(
        "--dry-run",
        action="store_true",
        help="launch and record nothing: say what would be sent, and what AWS says to it",
    )
    cancelling = options.add_action(
        actions, "cancel", cancel_request, "end a request and return what it has already"
    )
    cancelling.add_argument("request_id", type=options.text, metavar="ID")
    options.add_reason(cancelling)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def list_requests(arguments: argparse.Namespace) -> int:
    with options.looking(arguments) as view:
        rows = queries.requests(view, arguments.status, arguments.open, arguments.limit)
    return output.show_rows(arguments, "requests", rows, COLUMNS, "no request")


def show_request(arguments: argparse.Namespace) -> int:
    request_id = arguments.request_id
    with options.looking(arguments, partial(as_of.requests, [request_id])) as view:
        document = queries.request(view, request_id)
    return output.show_document(
        arguments,
        document,
        machines=RETURNED_COLUMNS if document["kind"] == "return" else MACHINE_COLUMNS,
        shortages=SHORTAGE_COLUMNS,
        batches=BATCH_COLUMNS,
    )


def create_request(arguments: argparse.Namespace) -> int:
    from application.request_machines import request_machines

    side = options.writing(arguments)
    if arguments.dry_run:
        return _show_rehearsal(arguments, rehearse_request(side, arguments))
    with options.ledger_of(side) as ledger:
        command = _command(side, arguments, arguments.reason or "")
        request_id = request_machines(command, ledger)
    options.tell_if_nobody_works(arguments)
    if arguments.output == "table":
        print(request_id, flush=True)
    document: dict[str, Any] = {"request_id": request_id}
    status = 0
    if arguments.wait is not None:
        document = wait_until_final(
            options.reading(arguments), side.clock(), request_id, arguments.wait
        )
        status = 0 if document["status"] == "complete" else 1
    if output.is_data(arguments):
        output.show_data(arguments, document)
    elif arguments.wait is not None:
        print(document["state"])
    if status:
        print(f"hostledger: {_why_not_complete(document, arguments.wait)}", file=sys.stderr)
    return status


def _command(side: Any, arguments: argparse.Namespace, reason: str = "") -> Any:
    from application.request_machines import RequestMachines

    compiled, provider = side.compiled(), side.site().provider
    return RequestMachines(
        provider,
        arguments.template,
        arguments.count,
        compiled.template(arguments.template),
        side.work().templates(provider).get(arguments.template),
        compiled.settings["provider"]["fulfilment_deadline"],
        "operator",
        side.random()(16),
        reason=reason,
    )


def rehearse_request(side: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the request would do, as a document. Raises a Refusal, StoreError."""
    from application.ports import CallFailed
    from application.rehearsing import rehearse
    from interfaces.write_side.copies import rehearsal

    with rehearsal(side) as copy:
        try:
            clouds = copy.clouds()
        except CallFailed as failed:
            raise BrokenConfiguration(str(failed)) from None
        command = _command(copy, arguments)
        scope, why = copy.work().brake()
        found = rehearse(
            command, copy.turns(), {name: cloud.dry_run for name, cloud in clouds.items()}
        )
    return {
        "template_id": arguments.template,
        "revision": command.offered["revision"],
        "machine_count": arguments.count,
        "paused": {"scope": scope, "reason": why} if scope else None,
        "missing": found.missing,
        "batches": [
            {
                "account": launch.intent.account,
                "region": launch.intent.region,
                "reason": launch.intent.reason,
                "api": launch.intent.api,
                "pools": [str(pool) for pool in launch.pools],
                "units": sum(units for _, units in launch.intent.claims),
                "machine_count": launch.intent.machines,
                "launch_template": launch.intent.launch_template or None,
                "launch_template_exists": launch.template_is_there,
                "payload": launch.intent.payload,
                "launch_template_payload": launch.launch_template,
                "dry_run": [{"call": call, "answer": answer} for call, answer in launch.answers],
            }
            for launch in found.launches
        ],
        "shortages": [
            {"pool": pool, "reason": code, "message": message}
            for (pool, code), message in found.shortages.items()
        ],
    }


def _show_rehearsal(arguments: argparse.Namespace, document: dict[str, Any]) -> int:
    """1 when something would be missing, or AWS would refuse a call."""
    asked = [answer for batch in document["batches"] for answer in batch["dry_run"]]
    against = [
        f"{said['call']}: {said['answer']}"
        for said in asked
        if said["answer"].startswith(("not authorized", "refused", "AWS could not"))
    ]
    if arguments.output == "table":
        for batch in document["batches"]:
            del batch["payload"], batch["launch_template_payload"]
            batch["dry_run"] = "; ".join(f"{s['call']} {s['answer']}" for s in batch["dry_run"])
    output.show_document(arguments, document, batches=(), shortages=SHORTAGES_AHEAD)
    told = against[:1]
    if document["missing"]:
        why = "; ".join(row["message"] for row in document["shortages"]) or "launches are in flight"
        told.append(
            f"{document['missing']} of {document['machine_count']} would not be launched at once: "
            f"{why}"
        )
    if told:
        print(f"hostledger: {'; '.join(told)}", file=sys.stderr)
    return 1 if told else 0


def wait_until_final(call: Any, clock: Any, request_id: str, seconds: float) -> dict[str, Any]:
    """The request when it is final, or as it is after so many seconds of the boot clock."""
    end = clock.now()[2] + seconds
    while True:
        with closing(call.queries()) as view:
            document = queries.request(view, request_id)
        if document["status"] != "running" or clock.now()[2] >= end:
            return document
        clock.sleep(POLL)


def _why_not_complete(document: dict[str, Any], waited: float) -> str:
    request_id = document["request_id"]
    if document["status"] == "running":
        return (
            f"request {request_id} is still running after {waited:g} s: look at "
            f"`hostledger requests show {request_id}`, and at `hostledger worker status` "
            "for who works on it"
        )
    return f"request {request_id} is {document['state']}: {document['message']}"


def cancel_request(arguments: argparse.Namespace) -> int:
    request_id = arguments.request_id
    return_ids = end_request(options.writing(arguments), request_id, arguments.reason)
    options.tell_if_nobody_works(arguments)
    if output.is_data(arguments):
        output.show_data(
            arguments, {"request_id": request_id, "state": "cancelled", "return_ids": return_ids}
        )
    else:
        print(" ".join([f"{request_id} cancelled", *return_ids]))
    return 0


def end_request(side: Any, request_id: str, reason: str) -> list[str]:
    """Cancel a request and hand back what it has; the ids of the returns.

    Raises UnknownRequest, RequestIsFinal, Conflict.
    """
    from application import cancel_request as cancelling

    with options.ledger_of(side) as ledger:
        work = side.work()
        return cancelling.end_request(
            request_id,
            queries.request(side.queries(), request_id)["provider"],
            partial(work.living_machines_of, request_id),
            reason,
            "operator",
            side.random(),
            ledger,
        )
