"""Answers to reads: as of which position, kept while it is the last, and nothing at all where the
client has it already."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response

JSON = "application/json"

PROBLEMS = {
    401: "no token, or none that is in force",
    403: "the token's role may not do this",
    404: "there is no such thing",
    408: "the body did not come in time",
    409: "it is not in the state that this needs, or the key was used for something else",
    410: "it was archived: an operator's command reads the archive",
    413: "the body is too large",
    422: "a parameter or the body is not what it must be",
    429: "too many requests in this time",
    503: "the store, or this server, cannot answer now: `Retry-After` says when to ask again",
    504: "the read models did not reach the position in time",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may answer instead, for the OpenAPI document."""
    content = {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    }
    return {
        status: {"description": PROBLEMS[status], "content": content}
        for status in (401, 403, *statuses, 422, 429, 503)
    }


class Answers:
    """Answers of the log up to its last position, kept until it goes on: never stale, since who
    asks looks at the position first. So many bytes at most; with `most`, so many answers too."""

    def __init__(self, most_bytes: int, most: int | None = None) -> None:
        self._most_bytes = most_bytes
        self._most = most
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._position = -1
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: Any, position: int) -> bytes | None:
        if position != self._position:
            self._kept.clear()
            self.bytes = 0
            self._position = position
        body = self._kept.get(key)
        if body is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return body

    def put(self, key: Any, position: int, body: bytes) -> None:
        if position != self._position or len(body) > self._most_bytes:
            return
        self._kept[key] = body
        self.bytes += len(body)
        while self.bytes > self._most_bytes or (
            self._most is not None and len(self._kept) > self._most
        ):
            _, gone = self._kept.popitem(last=False)
            self.bytes -= len(gone)


def encode(document: Any) -> bytes:
    return orjson.dumps(document)


def etag(position: int) -> str:
    """Of an answer that the log up to a position makes, and nothing else."""
    return f'"{position}"'


def is_known(request: Request, position: int) -> bool:
    """Whether the client has the answer as of this position."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    return any(tag.strip().removeprefix("W/") == etag(position) for tag in given.split(","))


def known(position: int) -> Response:
    return Response(None, 304, {"ETag": etag(position)})


def reply(position: int | None, body: bytes) -> Response:
    """`position` is None where more than the log makes the answer."""
    headers = {} if position is None else {"ETag": etag(position)}
    return Response(body, 200, headers, media_type=JSON)
