"""Logging in: a token in a cookie that no script reads and no other site's page sends."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from interfaces.rest.console.rendering import page
from interfaces.rest.door import COOKIE, refuse_other_origin
from interfaces.rest.problems import Problem

router = APIRouter(include_in_schema=False)

HOME = "/console"

LONGEST = 3_800
"""Letters of a token that a browser keeps in a cookie; a longer one it would drop unsaid."""


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form that was sent. Raises Problem 422."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Problem(422, "invalid", "the fields of a form are expected")
    try:
        return parse_qs((await request.body()).decode(), max_num_fields=2000)
    except ValueError:
        raise Problem(422, "invalid", "this is not what the console's forms send") from None


@router.get("/login")
async def show_login(request: Request) -> Response:
    """Where a browser without a token is sent."""
    return page(request, "login", refused="", next=_page_of_ours(request.query_params.get("next")))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Take a token; wrong ones count as guesses, as anywhere."""
    refuse_other_origin(request.scope["headers"])
    form = await form_of(request)
    token = form.get("token", [""])[0].strip()
    after = _page_of_ours(form.get("next", [""])[0])
    try:
        await request.app.state.door.identify(request.scope, token)
        if len(token) > LONGEST:
            raise Problem(422, "invalid", f"a token of more than {LONGEST} letters fits no cookie")
    except Problem as problem:
        refused = (
            "This token is unknown, has ended, or was revoked."
            if problem.status == 401
            else str(problem)
        )
        return page(request, "login", status=problem.status, refused=refused, next=after)
    answer = RedirectResponse(after, 303)
    answer.set_cookie(
        COOKIE,
        token,
        path="/",
        secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Forget the token in this browser; it stays in force elsewhere."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def _page_of_ours(wanted: str | None) -> str:
    """Where to go on: a page of the console, whatever was asked for."""
    if wanted and (wanted == HOME or wanted.startswith((f"{HOME}/", f"{HOME}?"))):
        return wanted
    return HOME
