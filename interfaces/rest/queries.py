"""The reads: templates, requests, machines, launches, events, read models and reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from application import as_of as past
from application import history, pages, queries, rebuilding, reports
from application.pages import BATCHES, MACHINES, REQUESTS, BadQuestion, Wanted
from application.replay import recorded
from interfaces.read_side import price_list
from interfaces.rest import models
from interfaces.rest.problems import Problem
from interfaces.rest.replies import (
    AsOf,
    Cursor,
    Fields,
    Id,
    Limit,
    Moment,
    Sort,
    Topic,
    WaitFor,
    Word,
    is_known,
    problems,
    reply,
)

router = APIRouter(prefix="/api/v1")

REACHED_WITHIN = 10.0
"""Seconds that `wait_for` waits at most."""

WITH_MACHINES = 1_000
"""Machines in the document of one request; all of them are told page by page."""

EVERY = {
    "requests": tuple(models.MachineRequestDocument.model_fields),
    "machines": tuple(models.MachineDocument.model_fields),
    "batches": tuple(models.BatchDocument.model_fields),
    "events": tuple(models.EventDocument.model_fields),
}


async def _answer(
    request: Request,
    question: Callable[[Any, int], Any],
    as_of: str | None,
    wait_for: int | None,
    find: Any = None,
    *,
    is_quick: bool = True,
) -> Response:
    """What the question finds now, or as of a moment; nothing of it when the client has it."""
    looks = request.app.state.looks
    if wait_for is not None and not await looks.reach(wait_for, REACHED_WITHIN):
        raise Problem(
            504,
            "not-reached",
            f"the read models have not followed the log to position {wait_for} in "
            f"{REACHED_WITHIN:g} s: is it a position that a command answered with?",
        )

    def ask(view: Any, position: int) -> tuple[int, Any]:
        return position, None if is_known(request, position) else question(view, position)

    if as_of is not None:
        return reply(request, *await looks.ask_past(as_of, find, ask))
    position, document = await looks.ask(lambda view: ask(view, view.end()[0]), is_quick=is_quick)
    return reply(request, position, document)


async def _page(
    request: Request,
    name: str,
    wanted: Wanted,
    fields: str | None,
    as_of: str | None,
    wait_for: int | None,
) -> Response:
    def question(view: Any, position: int) -> dict[str, Any]:
        documents, following = pages.page(view, wanted)
        rows = pages.fields_of(documents, fields, EVERY[name])
        return {name: rows, "next": following, "position": position}

    return await _answer(request, question, as_of, wait_for, is_quick=wanted.is_cheap)


def _time(value: str | None) -> str | None:
    return None if value is None else recorded(value)


@router.get(
    "/requests",
    tags=["requests"],
    summary="Requests and returns",
    response_model=models.RequestPage,
    responses=problems(410, 504),
)
async def list_requests(
    request: Request,
    kind: Word = None,
    status: Word = None,
    state: Word = None,
    template_id: Word = None,
    provider: Word = None,
    source: Word = None,
    open: Annotated[bool | None, Query(description="not final yet")] = None,
    created_since: Moment = None,
    created_until: Moment = None,
    sort: Sort = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    fields: Fields = None,
    as_of: AsOf = None,
    wait_for: WaitFor = None,
) -> Response:
    """Requests for machines and returns of machines, the newest first unless sorted otherwise."""
    filters = {
        "kind": kind, "status": status, "state": state, "template_id": template_id,
        "provider": provider, "source": source, "open": open,
    }  # fmt: skip
    since, until = _time(created_since), _time(created_until)
    wanted = Wanted(REQUESTS, filters, sort, cursor, limit, since, until)
    return await _page(request, "requests", wanted, fields, as_of, wait_for)


@router.get(
    "/requests/{request_id}",
    tags=["requests"],
    summary="One request or return, with its machines",
    response_model=models.RequestWithMachines,
    responses=problems(404, 410, 504),
)
async def show_request(
    request: Request, request_id: Id, as_of: AsOf = None, wait_for: WaitFor = None
) -> Response:
    """Its first thousand machines are in the answer; `/machines?request_id=` tells all."""

    def question(view: Any, position: int) -> dict[str, Any]:
        return queries.request(view, request_id, WITH_MACHINES)

    find = partial(past.requests, [request_id])
    return await _answer(request, question, as_of, wait_for, find)


@router.get(
    "/requests/{request_id}/batches",
    tags=["requests"],
    summary="The launches that a request had a part in",
    response_model=models.BatchPage,
    responses=problems(404, 410, 504),
)
async def list_batches_of_request(
    request: Request, request_id: Id, as_of: AsOf = None, wait_for: WaitFor = None
) -> Response:
    """All of them, in the order in which they were intended."""

    def question(view: Any, position: int) -> dict[str, Any]:
        queries.request(view, request_id, 0)
        rows = [queries.batch_document(row) for row in view.batches_of(request_id)]
        return {"batches": rows, "next": None, "position": position}

    find = partial(past.requests, [request_id])
    return await _answer(request, question, as_of, wait_for, find, is_quick=False)


@router.get(
    "/machines",
    tags=["machines"],
    summary="Machines",
    response_model=models.MachinePage,
    responses=problems(410, 504),
)
async def list_machines(
    request: Request,
    status: Word = None,
    result: Word = None,
    request_id: Word = None,
    return_id: Word = None,
    batch_id: Word = None,
    template_id: Word = None,
    provider: Word = None,
    account: Word = None,
    region: Word = None,
    zone: Word = None,
    instance_type: Word = None,
    price_type: Word = None,
    name: Word = None,
    private_ip_address: Word = None,
    alive: Annotated[bool | None, Query(description="at AWS, as far as is known")] = None,
    created_since: Moment = None,
    created_until: Moment = None,
    sort: Sort = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    fields: Fields = None,
    as_of: AsOf = None,
    wait_for: WaitFor = None,
) -> Response:
    """Machines that are or were ours, the newest first unless sorted otherwise."""
    filters = {
        "status": status, "result": result, "request_id": request_id, "return_id": return_id,
        "batch_id": batch_id, "template_id": template_id, "provider": provider,
        "account": account, "region": region, "zone": zone, "instance_type": instance_type,
        "price_type": price_type, "name": name, "private_ip_address": private_ip_address,
        "alive": alive,
    }  # fmt: skip
    since, until = _time(created_since), _time(created_until)
    wanted = Wanted(MACHINES, filters, sort, cursor, limit, since, until)
    return await _page(request, "machines", wanted, fields, as_of, wait_for)


@router.get(
    "/machines/{machine_id}",
    tags=["machines"],
    summary="One machine",
    response_model=models.MachineDocument,
    responses=problems(404, 410, 504),
)
async def show_machine(
    request: Request, machine_id: Id, as_of: AsOf = None, wait_for: WaitFor = None
) -> Response:
    """A machine that is or was ours."""

    def question(view: Any, position: int) -> dict[str, Any]:
        return queries.machine(view, machine_id)

    return await _answer(request, question, as_of, wait_for, partial(past.machine, machine_id))


@router.get(
    "/machines/{machine_id}/explanation",
    tags=["machines"],
    summary="Why a machine existed",
    response_model=models.Report,
    responses=problems(404, 410),
)
async def explain_machine(request: Request, machine_id: Id) -> Response:
    """Who asked for it, from which template, what AWS said, what it ran for, who returned it."""
    document = await request.app.state.looks.ask_log(
        lambda view: (view.end()[0], history.explain(view, machine_id))
    )
    return reply(request, *document)


@router.get(
    "/batches",
    tags=["batches"],
    summary="Launches",
    response_model=models.BatchPage,
    responses=problems(410, 504),
)
async def list_batches(
    request: Request,
    state: Word = None,
    template_id: Word = None,
    provider: Word = None,
    account: Word = None,
    region: Word = None,
    pool: Word = None,
    sort: Sort = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    fields: Fields = None,
    as_of: AsOf = None,
    wait_for: WaitFor = None,
) -> Response:
    """The launches, the newest first unless sorted otherwise."""
    filters = {
        "state": state, "template_id": template_id, "provider": provider, "account": account,
        "region": region, "pool": pool,
    }  # fmt: skip
    wanted = Wanted(BATCHES, filters, sort, cursor, limit)
    return await _page(request, "batches", wanted, fields, as_of, wait_for)


@router.get(
    "/batches/{batch_id}",
    tags=["batches"],
    summary="One launch",
    response_model=models.BatchDocument,
    responses=problems(404, 410, 504),
)
async def show_batch(
    request: Request, batch_id: Id, as_of: AsOf = None, wait_for: WaitFor = None
) -> Response:
    """Its machines are those of `/machines?batch_id=`."""

    def question(view: Any, position: int) -> dict[str, Any]:
        document = queries.batch(view, batch_id)
        del document["machines"]
        return document

    return await _answer(request, question, as_of, wait_for, partial(past.batch, batch_id))


@router.get(
    "/templates",
    tags=["templates"],
    summary="What may be asked for",
    response_model=models.TemplateList,
    responses=problems(410),
)
async def list_templates(request: Request, as_of: AsOf = None) -> Response:
    """What is offered now, or what was in the ledger then."""
    return await _templates(request, as_of, lambda documents: {"templates": documents})


@router.get(
    "/templates/{template_id}",
    tags=["templates"],
    summary="One template",
    response_model=models.TemplateDocument,
    responses=problems(404, 410),
)
async def show_template(request: Request, template_id: Id, as_of: AsOf = None) -> Response:
    """A template as it is launched."""

    def question(documents: list[dict[str, Any]]) -> dict[str, Any]:
        for document in documents:
            if document["template_id"] == template_id:
                return document
        raise Problem(
            404,
            "unknown-template",
            f"template {template_id!r} is not offered: /api/v1/templates lists those that are",
        )

    return await _templates(request, as_of, question)


async def _templates(request: Request, as_of: str | None, question: Callable[..., Any]) -> Response:
    looks = request.app.state.looks
    if as_of is None:
        # They are the site's files: no position of the log says that they are the same.
        call = looks.call()
        offered = [queries.template_document(template) for template in call.compiled.templates()]
        return reply(request, None, question(offered))
    provider = looks.provider

    def ask(view: Any, position: int) -> Any:
        return position, question(queries.templates(view, provider))

    find = partial(past.topics, past.TEMPLATES)
    return reply(request, *await looks.ask_past(as_of, find, ask))


After = Annotated[int, Query(ge=0, lt=2**62, description="events behind this position")]


@router.get(
    "/events",
    tags=["events"],
    summary="The log",
    response_model=models.EventPage,
    responses=problems(410, 504),
)
async def list_events(
    request: Request,
    after: After = 0,
    topic: Topic = None,
    limit: Limit = 100,
    fields: Fields = None,
    as_of: AsOf = None,
    wait_for: WaitFor = None,
) -> Response:
    """The events of the ledger in their order."""

    def question(view: Any, position: int) -> dict[str, Any]:
        rows = view.events_between(after, position, topic, limit + 1)
        documents = [history.event_of(row) for row in rows[:limit]]
        following = documents[-1]["position"] if len(rows) > limit else None
        found = pages.fields_of(documents, fields, EVERY["events"])
        return {"events": found, "next": following, "position": position}

    if as_of is None:
        return await _answer(request, question, None, wait_for, is_quick=topic is None)

    def ask(view: Any) -> Any:
        position = past.position_at(view, as_of, _now(request))
        return position, question(view, position)

    return reply(request, *await request.app.state.looks.ask_log(ask))


@router.get(
    "/history/{identifier:path}",
    tags=["events"],
    summary="The events of one thing",
    response_model=models.EventPage,
    responses=problems(404, 410),
)
async def show_history(
    request: Request,
    identifier: Id,
    related: Annotated[bool, Query(description="and all that its commands led to")] = False,
) -> Response:
    """Of a request, return, machine, batch, termination or template, in their order."""
    looks = request.app.state.looks

    def ask(view: Any) -> Any:
        position = view.end()[0]
        events = history.history(view, identifier, looks.provider, related)
        return position, {"events": events, "next": None, "position": position}

    return reply(request, *await looks.ask_log(ask))


@router.get(
    "/projections",
    tags=["store"],
    summary="The read models",
    response_model=models.ProjectionList,
    responses=problems(),
)
async def list_projections(request: Request) -> Response:
    """Each with its version, how far it follows, and why it stopped."""
    rows, position = await request.app.state.looks.ask_log(
        lambda view: (rebuilding.projections(view), view.end()[0])
    )
    return reply(request, None, {"projections": rows, "position": position})


@router.get(
    "/store",
    tags=["store"],
    summary="The store and its worker",
    response_model=models.Store,
    responses=problems(),
)
async def show_store(request: Request) -> Response:
    """Identity, lease holders, sweeps, what is open, and the worker."""
    return reply(request, None, await request.app.state.looks.ask_log(partial(_store, request)))


def _store(request: Request, view: Any) -> dict[str, Any]:
    from interfaces.read_side import worker_status

    call = request.app.state.looks.call()
    return {**queries.store_status(view, call.now, call.places()), "worker": worker_status(call)}


@router.get(
    "/reports/{kind}",
    tags=["reports"],
    summary="What machines were used for, cost and kept waiting for",
    response_model=models.Report,
    responses=problems(410),
)
async def make_report(
    request: Request,
    kind: models.ReportKind,
    since: Moment = None,
    until: Moment = None,
    by: Annotated[
        str, Query(description=f"of {', '.join(reports.GROUPS)}, separated by commas")
    ] = "template",
) -> Response:
    """As `hostledger report`."""
    names = by.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(reports.GROUPS):
        raise BadQuestion(f"by: {by!r} is not of {', '.join(reports.GROUPS)}, each once")
    begin, end = (None if at is None else _seconds(at) for at in (since, until))
    call = request.app.state.looks.call()

    def ask(view: Any) -> Any:
        window = reports.window_of(view, begin, end, call.clock.now()[0])
        if kind == "cost":
            return reports.cost(view, window, names, price_list(call))
        return {"usage": reports.usage, "capacity": reports.capacity}[kind](view, window, names)

    return reply(request, None, await request.app.state.looks.ask_log(ask))


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(recorded(moment)).timestamp()


def _now(request: Request) -> str:
    from datetime import UTC, datetime

    now = request.app.state.looks.call().clock.now()[0]
    return recorded(datetime.fromtimestamp(now, UTC).isoformat())
