"""What the console's pages show, and its forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import urandom
from typing import Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from application import alerting, history, pages, queries, rebuilding
from application.failures import BrokenConfiguration
from application.pages import REQUESTS, Wanted
from domain.token import OPERATOR
from interfaces.cli import explained
from interfaces.read_side import worker_status
from interfaces.rest import asked, commands, models
from interfaces.rest.commanding import Acting, Random
from interfaces.rest.console import chart
from interfaces.rest.console.rendering import page, told
from interfaces.rest.console.sign_in import HOME, form_of
from interfaces.rest.door import refuse_below
from interfaces.rest.problems import Problem
from interfaces.rest.queries import REACHED_WITHIN, wanted

router = APIRouter(include_in_schema=False)

T = TypeVar("T")
Row = dict[str, Any]

SOURCE = "console"

SHOWN = 100
"""Rows of a table that goes on on the next page."""

FEW = 25
"""Rows of a table beside others."""

EVENTS = 100
"""Events of a story on one page."""

UNREAD = ("machine_ids", "instances", "payload", "content", "deal")
"""Fields that are too long to be read in a table."""

TROUBLES = (
    ("shortfalls", "Requests that fell short", "RequestFellShort"),
    ("rejections", "Launches that AWS refused", "LaunchRejected"),
    ("interruptions", "Machines that are or were interrupted", "MachineInterrupted"),
    ("losses", "Machines that were lost", "MachineLost"),
)
"""Id, title and topic of each list of what did not go as it was asked."""


async def _look(
    request: Request, question: Callable[[Any, int], T], as_of: str | None = None, find: Any = None
) -> T:
    """What the question (view, position) finds, now or as of a moment."""
    looks = request.app.state.looks
    if as_of is not None:
        return await looks.ask_past(as_of, find, question)  # type: ignore[no-any-return]
    return await looks.ask(  # type: ignore[no-any-return]
        lambda view: question(view, view.end()[0]), is_quick=False
    )


def _key() -> str:
    """Of a form, so that sending it twice is one command."""
    return urandom(16).hex()


# -- the fleet --------------------------------------------------------------------------------


@router.get("/")
async def go_home(request: Request) -> Response:
    """The console is what there is for people."""
    return RedirectResponse(HOME, 307)


@router.get("/console")
async def show_fleet(request: Request) -> Response:
    """The fleet now, requests in flight and lately final."""
    course = request.app.state.course

    def question(view: Any, position: int) -> Row:
        facts = view.facts()
        in_flight, following = _in_flight(view)
        last = view.page(
            "requests",
            ("request_id",),
            [("final", "=", 1)],
            ("final_at", "request_id", True),
            None,
            FEW,
        )
        return {
            "position": position,
            "fleet": queries.fleet(view),
            "points": course.points(view),
            "open": facts["open"],
            "paused": facts["brake"],
            "alerts": _raised(view),
            "in_flight": in_flight,
            "more": following is not None,
            "final": [
                queries.request_document(row)
                for (request_id,) in last
                for row in view.requests(None, False, 1, request_id)
            ],
        }

    document = await _look(request, question)
    hindrance = await request.app.state.commands.hindrance()
    picture = chart.over_time(document.pop("points"))
    return page(request, "fleet", live=True, hindrance=hindrance, chart=picture, **document)


def _raised(view: Any) -> list[Row]:
    return [alert for alert in alerting.alerts(view) if alert["state"] == "raised"]


def _in_flight(view: Any) -> tuple[list[Row], str | None]:
    return pages.page(view, Wanted(REQUESTS, {"open": True}, limit=FEW))


@router.get("/console/past")
async def show_past(request: Request) -> Response:
    """The time slider: the whole fleet as of a position or time."""
    course = request.app.state.course
    end, points = await _look(request, lambda view, end: (end, course.points(view)))
    if end == 0:
        raise Problem(422, "no-moment", "the log has no event yet: there is no past to look at")
    at = request.query_params.get("at") or str(end)
    if len(at) > 64:
        raise Problem(422, "invalid", "at: a position, or a time in ISO 8601 (UTC without a zone)")
    if at.isdecimal():
        at = str(min(max(int(at), 1), end))

    def question(view: Any, position: int) -> Row:
        wish = Wanted(pages.MACHINES, {"alive": True}, limit=FEW)
        return {
            "position": position,
            "fleet": queries.fleet(view),
            "in_flight": _in_flight(view)[0],
            "machines": pages.page(view, wish)[0],
        }

    # The end is what the read models say now: no replay for who only opens the page.
    document = await _look(request, question, None if at == str(end) else at)
    position = document["position"]

    def last(view: Any, _: int) -> Row:
        (row,) = view.events_between(position - 1, position, None, 1)
        return _event(history.event_of(row))

    event = await _look(request, last)
    tenth = max(2, end // 10)
    steps = [
        (name, min(max(step, 1), end))
        for name, step in (
            ("First", 1),
            (f"Back {tenth}", position - tenth),
            ("Back 1", position - 1),
            ("On 1", position + 1),
            (f"On {tenth}", position + tenth),
            ("Last", end),
        )
    ]
    return page(
        request, "past", end=end, time=event["recorded_at"], event=event, steps=steps,
        chart=chart.along_the_log(points, position), **document,
    )  # fmt: skip


# -- lists ------------------------------------------------------------------------------------


async def _list(request: Request, name: str, wish: Any) -> Row:
    """A page of a listing: position, rows, where the next page is, and what was chosen."""
    given = {key: value for key, value in request.query_params.items() if key != "cursor"}
    place = wanted(name, wish.model_copy(update={"limit": SHOWN}))

    def question(view: Any, position: int) -> Row:
        rows, following = pages.page(view, place)
        query = urlencode({**given, "cursor": following})
        return {
            "position": position,
            name: rows,
            "following": f"{request.scope['path']}?{query}" if following else None,
        }

    chosen = {key: value for key, value in given.items() if key != "as_of"}
    return {
        **await _look(request, question, wish.as_of),
        "as_of": wish.as_of,
        "chosen": chosen,
        "live": wish.as_of is None,
    }


@router.get("/console/machines")
async def list_machines(request: Request) -> Response:
    """Machines page by page, with the filters of the API."""
    document = await _list(request, "machines", asked.asked(request, asked.Machines))
    return page(request, "machines", key=_key(), **document)


@router.get("/console/requests")
async def list_requests(request: Request) -> Response:
    """Requests and returns page by page, with the filters of the API."""
    document = await _list(request, "requests", asked.asked(request, asked.Requests))
    return page(request, "requests", key=_key(), templates=_offered(request), **document)


def _offered(request: Request) -> list[str]:
    """The templates that may be asked for; none while their file cannot be read."""
    try:
        offered = request.app.state.looks.recent_call().compiled.templates()
    except BrokenConfiguration:
        return []
    return [template["template_id"] for template in offered]


@router.get("/console/find")
async def find(request: Request) -> Response:
    """The story of what has this id."""
    wanted_id = request.query_params.get("id", "").strip()

    def question(view: Any, _: int) -> str:
        if view.machines(None, None, False, wanted_id, limit=1):
            return "machines"
        return "requests"

    if not wanted_id or len(wanted_id) > 255:
        raise Problem(422, "invalid", "id: that of a request, return or machine is needed")
    place = await _look(request, question)
    return RedirectResponse(_story(place, wanted_id), 303)


def _story(kind: str, identifier: str) -> str:
    from urllib.parse import quote

    return f"/console/{kind}/{quote(identifier, safe='')}"


# -- stories ----------------------------------------------------------------------------------


class _Story(asked.Nothing):
    after: int = 0


@router.get("/console/requests/{request_id}")
async def show_request(request: Request) -> Response:
    """The story of a request or return."""
    request_id = request.path_params["request_id"]
    after = asked.asked(request, _Story).after
    provider = request.app.state.looks.provider

    def question(view: Any, _: int) -> Row:
        document = queries.request(view, request_id, FEW + 1)
        is_return = document["kind"] == "return"
        machines = document["machines"]
        if is_return:
            machines = [
                queries.machine(view, returned["machine_id"])
                for returned in machines
                if returned["ours"]
            ]
        own = history.history(view, request_id, provider)
        batches = [] if is_return else view.batches_of(request_id)
        calls = [call["stream"] for call in history.aws_calls(view, own)]
        streams = dict.fromkeys([*(f"batch-{row['batch_id']}" for row in batches), *calls])
        streams.pop(own[0]["stream"], None)
        events = [event for stream in streams for event in history.history(view, stream, provider)]
        return {
            "request": document,
            "machines": machines[:FEW],
            "more": len(machines) > FEW,
            "owner": "return_id" if is_return else "request_id",
            **_told(request, [*own, *events], after),
        }

    document = await _look(request, question)
    return page(request, "request", live=True, key=_key(), **document)


@router.get("/console/machines/{machine_id}")
async def show_machine(request: Request) -> Response:
    """The story of a machine, and why it existed."""
    machine_id = request.path_params["machine_id"]
    after = asked.asked(request, _Story).after
    provider = request.app.state.looks.provider

    def question(view: Any, _: int) -> Row:
        machine = queries.machine(view, machine_id)
        why = history.explain(view, machine_id)
        positions = {event["position"] for event in why["events"]}
        events = [
            event
            for stream in dict.fromkeys(event["stream"] for event in why["events"])
            for event in history.history(view, stream, provider)
            if event["position"] in positions
        ]
        sections = [(title, list(sentences)) for title, sentences in explained.sections(why)]
        return {
            "machine": machine,
            "sections": sections[:-1],  # the last are the events
            **_told(request, events, after),
        }

    document = await _look(request, question)
    return page(request, "machine", live=True, key=_key(), **document)


def _told(request: Request, events: Iterable[Row], after: int) -> Row:
    """A page of a story."""
    ordered = sorted(events, key=lambda event: event["position"])
    rest = [event for event in ordered if event["position"] > after]
    shown = rest[:EVENTS]
    following = None
    if len(rest) > EVENTS:
        following = f"{request.url.path}?after={shown[-1]['position']}"
    return {"events": [_event(event) for event in shown], "following": following}


def _event(event: Row) -> Row:
    """A row of a table of events."""
    fields = {name: value for name, value in event["fields"].items() if name not in UNREAD}
    aws = [fields.pop(name, None) for name in ("aws_request_id", "fleet_id")]
    principal = event["actor"].get("principal")
    return {
        **{name: event[name] for name in ("position", "recorded_at", "topic", "stream")},
        "by": told(principal or explained.actor_of(event)),
        "reason": fields.pop("reason", None),
        "aws": ", ".join(name for name in aws if name),
        "more": told({name: value for name, value in fields.items() if value not in ("", None)}),
    }


# -- trouble and health -----------------------------------------------------------------------


@router.get("/console/shortfalls")
async def show_shortfalls(request: Request) -> Response:
    """What did not go as it was asked, lately."""

    def question(view: Any, _: int) -> list[tuple[str, str, list[Row]]]:
        return [
            (id_, title, [_event(e) for e in reversed(history.last_events(view, 50, topic))])
            for id_, title, topic in TROUBLES
        ]

    return page(request, "shortfalls", live=True, lists=await _look(request, question))


@router.get("/console/health")
async def show_health(request: Request) -> Response:
    """The worker, its leases and sweeps, the store, its read models, orphans."""
    looks = request.app.state.looks

    def question(view: Any) -> Row:
        call = looks.call()
        store = queries.store_status(view, call.now, call.places())
        orphans = queries.orphans(view)[:SHOWN]
        return {
            "store": store,
            "facts": {
                name: store[name] for name in ("path", "deployment", "events", "live_machines")
            }
            | {f"open {kind}": count for kind, count in store["open"].items()}
            | {"inert": store["inert"]},
            "worker": worker_status(call),
            "alerts": _raised(view),
            "projections": rebuilding.projections(view),
            "orphans": orphans,
            "orphan_columns": list(orphans[0]) if orphans else [],
        }

    return page(request, "health", live=True, **await looks.ask_log(question))


# -- forms ------------------------------------------------------------------------------------


def _checked(model: type[asked.Asked], fields: Row) -> asked.Asked:
    """Raises Problem 422."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise asked.invalid(error) from None


async def _carry_out(
    request: Request, form: dict[str, list[str]], command: Callable[[Acting, Random], Row]
) -> Row:
    """The command's answer once the read models have it."""
    # All of the form, so that another choice after the browser's Back is another command.
    key = urlencode(sorted(form.items()), doseq=True)
    random = commands.random_of(request, key if "key" in form else None)
    done = await commands.carry_out(request, lambda acting: command(acting, random))
    await request.app.state.looks.reach(done["position"], REACHED_WITHIN)
    return done


@router.post("/console/requests")
async def ask(request: Request) -> Response:
    """The form below requests; it leads to the request's story."""
    refuse_below(request, OPERATOR)
    form = await form_of(request)
    fields: Row = {n: form.get(n, [""])[0] for n in ("template_id", "machine_count", "reason")}
    if fields["machine_count"].isdecimal() and len(fields["machine_count"]) < 10:
        fields["machine_count"] = int(fields["machine_count"])
    given = _checked(models.AskForMachines, fields)
    wish = (given.template_id, given.machine_count, given.reason, SOURCE)

    done = await _carry_out(
        request, form, lambda acting, random: acting.request_machines(*wish, random)
    )
    return RedirectResponse(_story("requests", done["request_id"]), 303)


@router.post("/console/requests/{request_id}/cancel")
async def cancel(request: Request) -> Response:
    """The form of a request's story."""
    refuse_below(request, OPERATOR)
    request_id = request.path_params["request_id"]
    form = await form_of(request)
    given = _checked(models.Cancel, {"reason": form.get("reason", [""])[0]})

    await _carry_out(
        request,
        form,
        lambda acting, random: acting.cancel_request(request_id, given.reason, SOURCE, random),
    )
    return RedirectResponse(_story("requests", request_id), 303)


@router.post("/console/returns")
async def hand_back(request: Request) -> Response:
    """The form below machines; it leads to the return's story."""
    refuse_below(request, OPERATOR)
    form = await form_of(request)
    if not form.get("machine_id"):
        raise Problem(422, "invalid", "choose at least one machine in the table")
    fields = {"machine_ids": form["machine_id"], "reason": form.get("reason", [""])[0]}
    given = _checked(models.HandBack, fields)

    done = await _carry_out(
        request,
        form,
        lambda acting, random: acting.return_machines(
            given.machine_ids, given.reason, SOURCE, random
        ),
    )
    return RedirectResponse(_story("requests", done["request_id"]), 303)
