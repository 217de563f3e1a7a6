"""From a document to a page: everything that it says is escaped, and it runs nothing but our own
script."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from domain.token import OPERATOR, allows
from domain.topics import TOPICS
from interfaces.cli.output import cell
from interfaces.rest.problems import Problem

HERE = Path(__file__).parent

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Under no-referrer a browser names no origin with a form, and the door could not check it.
    "Referrer-Policy": "same-origin",
}

PLACES = (
    ("/console", "Fleet"),
    ("/console/machines", "Machines"),
    ("/console/requests", "Requests"),
    ("/console/past", "Time"),
    ("/console/shortfalls", "Shortfalls"),
    ("/console/health", "Health"),
)

LONGEST = 300
"""Letters of a value that are shown."""

FILTERS = {
    "status": "status",
    "template": "template_id",
    "zone": "zone",
    "price type": "price_type",
}
"""How machines are counted -> the filter that lists those of one count."""


def told(value: object) -> str:
    """A value in one line that is not too long."""
    text = cell(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def filtered(kind: str, name: str, as_of: object) -> str:
    """Where the machines that are alive and of one count are listed."""
    if kind == "account":
        account, _, region = name.partition("/")
        chosen = {"account": account, "region": region}
    else:
        chosen = {FILTERS[kind]: name}
    chosen = {key: value for key, value in chosen.items() if value}
    query = {"alive": "true", **chosen, **({"as_of": as_of} if as_of != "" else {})}
    return f"/console/machines?{urlencode(query)}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["told"] = told
    environment.globals["filtered"] = filtered
    return environment


def page(
    request: Request, name: str, /, *, live: bool = False, status: int = 200, **values: Any
) -> Response:
    """A page (of html/) with these values; a `live` one follows the log."""
    who = request.scope["state"].get("principal")
    text = _environment().get_template(f"{name}.html").render(
        who=who,
        may_act=who is not None and allows(who.role, OPERATOR),
        live=live,
        topics=" ".join(sorted(TOPICS)) if live else "",
        places=PLACES,
        here=request.scope["path"],
        **values,
    )  # fmt: skip
    return HTMLResponse(text, status, HEADERS)


def tell(request: Request, problem: Problem) -> Response:
    """The page of what cannot be shown or done."""
    answer = page(request, "problem", status=problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer
