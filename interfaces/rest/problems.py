"""What a client is told when something cannot be done: problem+json (RFC 9457), in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from application.failures import (
    BrokenConfiguration,
    Conflict,
    EventsArchivedAway,
    NoMoment,
    StoreBusy,
    StoreError,
)
from application.pages import BadQuestion
from application.queries import NotInLedger
from domain import refusals

MEDIA_TYPE = "application/problem+json"
PREFIX = "urn:hostledger:problem:"

STATUSES: dict[type[Exception], int] = {
    NotInLedger: 404,
    refusals.UnknownRequest: 404,
    refusals.UnknownMachine: 404,
    refusals.UnknownToken: 404,
    refusals.RequestIsFinal: 409,
    refusals.TokenIsRevoked: 409,
    refusals.Refusal: 422,
    BadQuestion: 422,
    NoMoment: 422,
    EventsArchivedAway: 410,
    Conflict: 409,
    StoreBusy: 503,
    StoreError: 503,
    BrokenConfiguration: 503,
}
"""Failure of the application -> status, that of the nearest of its classes."""

FAILURES = tuple(STATUSES)

RETRY_AFTER = "1"


class Problem(Exception):
    """What a handler cannot do; `str()` names the thing, the cause and the next step."""

    def __init__(
        self, status: int, name: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.headers = dict(headers or {})


def of_failure(error: Exception) -> Problem:
    """The problem that one of FAILURES is to a client."""
    kind = next(kind for kind in type(error).__mro__ if kind in STATUSES)
    status = STATUSES[kind]
    detail = str(error)
    if isinstance(error, Conflict):
        detail = "another writer was at the same thing; nothing was recorded: try again"
    headers = {"Retry-After": RETRY_AFTER} if status == 503 else {}
    return Problem(status, _words(type(error).__name__), detail, headers)


def response(problem: Problem, request_id: str = "") -> Response:
    document: dict[str, Any] = {
        "type": PREFIX + problem.name,
        "title": problem.name.replace("-", " "),
        "status": problem.status,
        "detail": " ".join(str(problem).split()),
    }
    if request_id:
        document["instance"] = f"urn:hostledger:request:{request_id}"
    return Response(orjson.dumps(document), problem.status, problem.headers, media_type=MEDIA_TYPE)


def _words(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
