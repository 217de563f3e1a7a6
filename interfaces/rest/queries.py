"""The reads: templates, requests, machines, launches, events, read models and reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from orjson import Fragment, loads
from pydantic import BaseModel
from starlette.responses import Response

from application import as_of as past
from application import history, pages, queries, rebuilding, reports
from application.pages import BATCHES, MACHINES, REQUESTS, BadQuestion, Listing, Wanted
from application.replay import recorded
from interfaces.read_side import price_list, worker_status
from interfaces.rest import asked, models
from interfaces.rest.asked import parameters
from interfaces.rest.problems import Problem
from interfaces.rest.replies import encode, is_known, known, problems, reply

router = APIRouter(prefix="/api/v1")

REACHED_WITHIN = 10.0
"""Seconds that `wait_for` waits at most."""

WITH_MACHINES = 1_000
"""Machines in the document of one request; all of them are told page by page."""

LISTS: dict[str, tuple[Listing, type[BaseModel]]] = {
    "requests": (REQUESTS, models.MachineRequestDocument),
    "machines": (MACHINES, models.MachineDocument),
    "batches": (BATCHES, models.BatchDocument),
}

Read = Callable[[Request], Awaitable[Response]]

Question = Callable[[Any, int], Any]
"""(view, position) -> document."""


def route(
    path: str, tag: str, summary: str, model: Any, question: type[BaseModel], *statuses: int
) -> Callable[[Read], Read]:
    """A read at a path; its function takes the request and gives the answer."""
    names = [part.strip("{}").partition(":")[0] for part in path.split("/") if part[:1] == "{"]
    return router.get(
        path,
        tags=[tag],
        summary=summary,
        response_model=model,
        responses=problems(*statuses),
        openapi_extra=parameters(question, *names),
    )


async def _answer(
    request: Request,
    when: asked.State,
    question: Question,
    find: Any = None,
    *,
    is_quick: bool = True,
) -> Response:
    """What the question finds now, or as of a moment; nothing of it when the client has it."""
    looks = request.app.state.looks
    if when.wait_for is not None and not await looks.reach(when.wait_for, REACHED_WITHIN):
        raise Problem(
            504,
            "not-reached",
            f"the read models have not followed the log to position {when.wait_for} in "
            f"{REACHED_WITHIN:g} s: is it a position that a command answered with?",
        )
    if when.as_of is not None:

        def then(view: Any, position: int) -> Response:
            if is_known(request, position):
                return known(position)
            return reply(position, encode(question(view, position)))

        return await looks.ask_past(when.as_of, find, then)  # type: ignore[no-any-return]
    answers = request.app.state.answers
    key = (request.scope["path"], request.scope["query_string"])

    def now(view: Any) -> Response:
        position, _ = view.end()
        if is_known(request, position):
            return known(position)
        body = answers.get(key, position)
        if body is None:
            body = encode(question(view, position))
            answers.put(key, position, body)
        return reply(position, body)

    return await looks.ask(now, is_quick=is_quick)  # type: ignore[no-any-return]


def wanted(name: str, wish: Any) -> Wanted:
    """The page of a listing that `wish` (of `asked`) asks for. Raises BadQuestion."""
    listing, _ = LISTS[name]
    bounds = [getattr(wish, f"created_{end}", None) for end in ("since", "until")]
    given = wish.model_fields_set
    return Wanted(
        listing,
        {n: getattr(wish, n) for n in (*listing.filters, *listing.flags) if n in given},
        wish.sort,
        wish.cursor,
        wish.limit,
        *(None if bound is None else recorded(bound) for bound in bounds),
    )


async def _page(request: Request, name: str, wish: Any) -> Response:
    """A page of a listing as `wish` (of `asked`) has it."""
    _, model = LISTS[name]
    place = wanted(name, wish)
    read = Fragment if wish.fields is None else loads

    def question(view: Any, position: int) -> dict[str, Any]:
        documents, following = pages.page(view, place, read)
        rows = pages.fields_of(documents, wish.fields, tuple(model.model_fields))
        return {name: rows, "next": following, "position": position}

    return await _answer(request, wish, question, is_quick=place.is_cheap)


# -- requests, machines, launches -------------------------------------------------------------


@route(
    "/requests", "requests", "Requests and returns", models.RequestPage, asked.Requests, 410, 504
)
async def list_requests(request: Request) -> Response:
    """Requests for machines and returns of machines, the newest first unless sorted otherwise."""
    return await _page(request, "requests", asked.asked(request, asked.Requests))


@route(
    "/requests/{request_id}",
    "requests",
    "One request or return, with its machines",
    models.RequestWithMachines,
    asked.State,
    404,
    410,
    504,
)
async def show_request(request: Request) -> Response:
    """Its first thousand machines are in the answer; `/machines?request_id=` tells all."""
    request_id = request.path_params["request_id"]

    def question(view: Any, position: int) -> dict[str, Any]:
        return queries.request(view, request_id, WITH_MACHINES, Fragment)

    find = partial(past.requests, [request_id])
    return await _answer(request, asked.asked(request, asked.State), question, find)


@route(
    "/requests/{request_id}/batches",
    "requests",
    "The launches that a request had a part in",
    models.BatchPage,
    asked.State,
    404,
    410,
    504,
)
async def list_batches_of_request(request: Request) -> Response:
    """All of them, in the order in which they were intended."""
    request_id = request.path_params["request_id"]

    def question(view: Any, position: int) -> dict[str, Any]:
        queries.request(view, request_id, 0)
        rows = [queries.batch_document(row) for row in view.batches_of(request_id)]
        return {"batches": rows, "next": None, "position": position}

    find = partial(past.requests, [request_id])
    wish = asked.asked(request, asked.State)
    return await _answer(request, wish, question, find, is_quick=False)


@route("/machines", "machines", "Machines", models.MachinePage, asked.Machines, 410, 504)
async def list_machines(request: Request) -> Response:
    """Machines that are or were ours, the newest first unless sorted otherwise."""
    return await _page(request, "machines", asked.asked(request, asked.Machines))


@route(
    "/machines/{machine_id}",
    "machines",
    "One machine",
    models.MachineDocument,
    asked.State,
    404,
    410,
    504,
)
async def show_machine(request: Request) -> Response:
    """A machine that is or was ours."""
    machine_id = request.path_params["machine_id"]

    def question(view: Any, position: int) -> dict[str, Any]:
        return queries.machine(view, machine_id)

    find = partial(past.machine, machine_id)
    return await _answer(request, asked.asked(request, asked.State), question, find)


@route(
    "/machines/{machine_id}/explanation",
    "machines",
    "Why a machine existed",
    models.Report,
    asked.Nothing,
    404,
    410,
)
async def explain_machine(request: Request) -> Response:
    """Who asked for it, from which template, what AWS said, what it ran for, who returned it."""
    asked.asked(request, asked.Nothing)
    machine_id = request.path_params["machine_id"]
    return await _of_log(request, lambda view: history.explain(view, machine_id))


@route("/batches", "batches", "Launches", models.BatchPage, asked.Batches, 410, 504)
async def list_batches(request: Request) -> Response:
    """The launches, the newest first unless sorted otherwise."""
    return await _page(request, "batches", asked.asked(request, asked.Batches))


@route(
    "/batches/{batch_id}",
    "batches",
    "One launch",
    models.BatchDocument,
    asked.State,
    404,
    410,
    504,
)
async def show_batch(request: Request) -> Response:
    """Its machines are those of `/machines?batch_id=`."""
    batch_id = request.path_params["batch_id"]

    def question(view: Any, position: int) -> dict[str, Any]:
        document = queries.batch(view, batch_id)
        del document["machines"]
        return document

    find = partial(past.batch, batch_id)
    return await _answer(request, asked.asked(request, asked.State), question, find)


# -- templates --------------------------------------------------------------------------------


@route("/templates", "templates", "What may be asked for", models.TemplateList, asked.When, 410)
async def list_templates(request: Request) -> Response:
    """What is offered now, or what was in the ledger then."""
    return await _templates(request, lambda documents: {"templates": documents})


@route(
    "/templates/{template_id}",
    "templates",
    "One template",
    models.TemplateDocument,
    asked.When,
    404,
    410,
)
async def show_template(request: Request) -> Response:
    """A template as it is launched."""
    template_id = request.path_params["template_id"]

    def question(documents: list[dict[str, Any]]) -> dict[str, Any]:
        for document in documents:
            if document["template_id"] == template_id:
                return document
        raise Problem(
            404,
            "unknown-template",
            f"template {template_id!r} is not offered: /api/v1/templates lists those that are",
        )

    return await _templates(request, question)


async def _templates(request: Request, question: Callable[[Any], Any]) -> Response:
    looks = request.app.state.looks
    as_of = asked.asked(request, asked.When).as_of
    if as_of is None:
        # They are the site's files: no position of the log says that they are the same.
        offered = looks.call().compiled.templates()
        documents = [queries.template_document(template) for template in offered]
        return reply(None, encode(question(documents)))

    def then(view: Any, position: int) -> Response:
        return reply(position, encode(question(queries.templates(view, looks.provider))))

    find = partial(past.topics, past.TEMPLATES)
    return await looks.ask_past(as_of, find, then)  # type: ignore[no-any-return]


# -- the log ----------------------------------------------------------------------------------


@route("/events", "events", "The log", models.EventPage, asked.Events, 410, 504)
async def list_events(request: Request) -> Response:
    """The events of the ledger in their order."""
    wish = asked.asked(request, asked.Events)
    every = tuple(models.EventDocument.model_fields)

    def question(view: Any, position: int) -> dict[str, Any]:
        rows = view.events_between(wish.after, position, wish.topic, wish.limit + 1)
        documents = [history.event_of(row) for row in rows[: wish.limit]]
        following = documents[-1]["position"] if len(rows) > wish.limit else None
        found = pages.fields_of(documents, wish.fields, every)
        return {"events": found, "next": following, "position": position}

    if wish.as_of is None:
        return await _answer(request, wish, question, is_quick=wish.topic is None)
    looks, moment = request.app.state.looks, wish.as_of

    def then(view: Any) -> Response:
        now = datetime.fromtimestamp(looks.call().now[0], UTC)
        position = past.position_at(view, moment, recorded(now.isoformat()))
        return reply(position, encode(question(view, position)))

    return await looks.ask_log(then)  # type: ignore[no-any-return]


@route(
    "/history/{identifier:path}",
    "events",
    "The events of one thing",
    models.EventPage,
    asked.History,
    404,
    410,
)
async def show_history(request: Request) -> Response:
    """Of a request, return, machine, batch, termination or template, in their order."""
    identifier = request.path_params["identifier"]
    related = asked.asked(request, asked.History).related
    provider = request.app.state.looks.provider

    def question(view: Any) -> dict[str, Any]:
        events = history.history(view, identifier, provider, related)
        return {"events": events, "next": None, "position": view.end()[0]}

    return await _of_log(request, question)


async def _of_log(request: Request, question: Callable[[Any], Any]) -> Response:
    """What the log alone says, and nothing else."""

    def ask(view: Any) -> Response:
        position, _ = view.end()
        if is_known(request, position):
            return known(position)
        return reply(position, encode(question(view)))

    return await request.app.state.looks.ask_log(ask)  # type: ignore[no-any-return]


# -- the store --------------------------------------------------------------------------------


@route("/projections", "store", "The read models", models.ProjectionList, asked.Nothing)
async def list_projections(request: Request) -> Response:
    """Each with its version, how far it follows, and why it stopped."""
    asked.asked(request, asked.Nothing)

    def question(view: Any) -> dict[str, Any]:
        return {"projections": rebuilding.projections(view), "position": view.end()[0]}

    return reply(None, encode(await request.app.state.looks.ask_log(question)))


@route("/store", "store", "The store and its worker", models.Store, asked.Nothing)
async def show_store(request: Request) -> Response:
    """Identity, lease holders, sweeps, what is open, and the worker."""
    asked.asked(request, asked.Nothing)
    looks = request.app.state.looks

    def question(view: Any) -> dict[str, Any]:
        call = looks.call()
        return {
            **queries.store_status(view, call.now, call.places()),
            "worker": worker_status(call),
        }

    return reply(None, encode(await looks.ask_log(question)))


@route(
    "/reports/{kind}",
    "reports",
    "What machines were used for, cost and kept waiting for",
    models.Report,
    asked.Report,
    404,
    410,
)
async def make_report(request: Request) -> Response:
    """`usage`, `cost` or `capacity`, as `hostledger report` makes them."""
    kind = request.path_params["kind"]
    wish = asked.asked(request, asked.Report)
    if kind not in ("usage", "cost", "capacity"):
        raise Problem(404, "unknown-report", f"there is no report {kind}: usage, cost, capacity")
    names = wish.by.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(reports.GROUPS):
        raise BadQuestion(f"by: {wish.by!r} is not of {', '.join(reports.GROUPS)}, each once")
    since, until = (None if at is None else _seconds(at) for at in (wish.since, wish.until))
    looks = request.app.state.looks

    def question(view: Any) -> Any:
        call = looks.call()
        window = reports.window_of(view, since, until, call.clock.now()[0])
        if kind == "cost":
            return reports.cost(view, window, names, price_list(call))
        return (reports.usage if kind == "usage" else reports.capacity)(view, window, names)

    return reply(None, encode(await looks.ask_log(question)))


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(recorded(moment)).timestamp()
