"""Answers to reads: as of which position, and nothing at all where the client has it already."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import Path, Query, Request
from starlette.responses import Response

from interfaces.rest.models import ProblemDocument

JSON = "application/json"

AsOf = Annotated[
    str | None,
    Query(
        description="the state as it was known then: a position, or a time in ISO 8601 (UTC "
        "without a zone)",
        min_length=1,
        max_length=64,
    ),
]
WaitFor = Annotated[
    int | None,
    Query(
        description="answer when the read models have followed the log to this position, at most "
        "10 s later: the effect of a command of one's own is seen then",
        ge=0,
        lt=2**62,
    ),
]
Fields = Annotated[
    str | None,
    Query(description="these fields alone, separated by commas", min_length=1, max_length=1000),
]
Cursor = Annotated[
    str | None, Query(description="`next` of the page before", min_length=1, max_length=1000)
]
Limit = Annotated[int, Query(description="documents of this page at most", ge=1, le=1000)]
Sort = Annotated[
    str | None,
    Query(
        description="a field, with a - before it for the greatest first; default -created_at",
        min_length=1,
        max_length=40,
    ),
]
Word = Annotated[str | None, Query(min_length=1, max_length=255)]
Moment = Annotated[
    str | None,
    Query(
        description="a time in ISO 8601, UTC without a zone",
        min_length=1,
        max_length=64,
        examples=["2027-01-15T08:00:00Z"],
    ),
]
Topic = Annotated[str | None, Query(min_length=1, max_length=100, examples=["MachinesRequested"])]
Id = Annotated[str, Path(min_length=1, max_length=255)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may answer instead, for the OpenAPI document."""
    texts = {
        401: "no token, or none that is in force",
        403: "the token's role may not do this",
        404: "the ledger has no such thing",
        409: "it is not in the state that this needs, or the key was used for something else",
        410: "it was archived: an operator's command reads the archive",
        413: "the body is too large",
        422: "a parameter or the body is not what it must be",
        429: "too many requests in this time",
        503: "the store, or this server, cannot answer now: `Retry-After` says when to ask again",
        504: "the read models did not reach the position in time",
    }
    content = {"application/problem+json": {"schema": ProblemDocument.model_json_schema()}}
    return {
        status: {"description": texts[status], "content": content}
        for status in (401, 403, *statuses, 422, 429, 503)
    }


def etag(position: int) -> str:
    """Of an answer that the log up to a position makes, and nothing else."""
    return f'"{position}"'


def is_known(request: Request, position: int) -> bool:
    """Whether the client has the answer as of this position."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    return any(tag.strip().removeprefix("W/") == etag(position) for tag in given.split(","))


def reply(request: Request, position: int | None, document: Any) -> Response:
    """The document, or 304 for None. `position` is None where more than the log makes it."""
    headers = {} if position is None else {"ETag": etag(position)}
    if document is None:
        return Response(None, 304, headers)
    return Response(orjson.dumps(document), 200, headers, media_type=JSON)
