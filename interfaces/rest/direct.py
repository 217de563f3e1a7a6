"""Endpoints that take nothing but the request, called without what stands between: FastAPI asks
each router's routes in turn, twice, and prepares parameters that they do not have. That costs more
than most reads."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import URLPath
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

ANY = "/"
"""In the place of a part of a path that is a parameter: no part of a path has a / in it."""


class Direct(BaseRoute):
    """Those of some routes whose endpoint takes only the request, found part by part of a path.

    What is not found here (another method, a path that there is not) is left to the routes behind.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._root: dict[str, Any] = {}
        for route in routes:
            if isinstance(route, APIRoute) and _takes_only_request(route):
                self._add(route)

    def _add(self, route: APIRoute) -> None:
        node, names = self._root, []
        for part in route.path.split("/"):
            if part.startswith("{"):
                names.append(part[1:-1])
                part = ANY
            node = node.setdefault(part, {})
        for method in route.methods or ():
            node[method + ANY] = (route, names)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope.get("root_path"):
            return Match.NONE, {}
        node, values = self._root, []
        for part in scope["path"].split("/"):
            found = node.get(part)
            if found is None:
                found = node.get(ANY)
                if found is None or not part:
                    return Match.NONE, {}
                values.append(part)
            node = found
        found = node.get(scope["method"] + ANY)
        if found is None:
            return Match.NONE, {}
        route, names = found
        path_params = dict(zip(names, values, strict=True))
        return Match.FULL, {"route": route, "path_params": path_params}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await scope["route"].endpoint(Request(scope, receive))
        await answer(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        raise NoMatchFound(name, path_params)


def _takes_only_request(route: APIRoute) -> bool:
    is_part_by_part = ":" not in route.path  # a parameter may have several parts
    takes = list(signature(route.endpoint).parameters)
    return is_part_by_part and takes == ["request"] and not route.dependencies
