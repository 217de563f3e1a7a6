"""The server's application: what is answered at which path, and what of it may fail."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from application.course import Course
from application.version import VERSION
from interfaces.read_side import Site, memory_looks
from interfaces.rest import commands, health, models, problems, queries, stream
from interfaces.rest.commanding import Commands
from interfaces.rest.console import pages as console
from interfaces.rest.console import sign_in
from interfaces.rest.console.rendering import HERE, tell
from interfaces.rest.direct import Direct
from interfaces.rest.door import Door, wants_page
from interfaces.rest.health import Watching
from interfaces.rest.identity import Identities
from interfaces.rest.looks import Looks
from interfaces.rest.problems import FAILURES, Problem
from interfaces.rest.replies import Answers
from interfaces.rest.snapshots import keep_covered

LOOKING_THREADS = 4

ROUTERS = (
    health.router,
    stream.router,  # before the paths with an id in them
    queries.router,
    commands.router,
    sign_in.router,
    console.router,
)

DESCRIPTION = (
    "Queries and commands of a Hostledger deployment. Each request carries a token, "
    "`Authorization: Bearer TOKEN`, that `hostledger tokens create` made. Times are ISO 8601 in "
    "UTC; positions are those of the log."
)


def create_app(site: Site, environ: Mapping[str, str], python: str) -> FastAPI:
    """The application over a site; its `state.door` is the outermost of it. Raises
    BrokenConfiguration."""
    looks = Looks(site, environ, python, LOOKING_THREADS)
    settings = looks.settings

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.tail = stream.Tail(looks, settings["server"]["max_streams"])
        app.state.watching.start()
        app.state.covering = asyncio.create_task(keep_covered(looks))
        try:
            yield
        finally:
            app.state.covering.cancel()
            with suppress(asyncio.CancelledError):
                await app.state.covering
            app.state.watching.end()
            app.state.commands.close()
            looks.close()

    app = FastAPI(
        title="Hostledger",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        lifespan=life,
    )
    app.state.looks = looks
    app.state.course = Course()
    app.state.memory_looks = memory_looks(site, "server")
    app.state.answers = _answers(looks.settings)
    app.state.watching = Watching(site, environ, looks.call)
    app.state.commands = Commands(looks, app.state.watching.span)
    app.router.routes.append(Direct(route for router in ROUTERS for route in router.routes))
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    for failure in (*FAILURES, Problem):
        app.add_exception_handler(failure, _tell)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(Exception, _tell_defect)
    app.state.identities = Identities(looks)
    app.add_middleware(_door, settings=settings, state=app.state)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app


def _answers(settings: Mapping[str, Any]) -> Answers:
    most = settings["performance"]["memory"]["max_cache_size"]
    sql = settings["storage"]["sql_strategy"]
    if settings["storage"]["strategy"] != "sql":
        return Answers(most)
    return Answers(most if sql["enable_query_cache"] else 0, sql["query_cache_size"])


def _door(app: Any, settings: Mapping[str, Any], state: Any) -> Door:
    state.door = Door(
        app, state.identities, settings["server"], settings["processing"], state.watching
    )
    return state.door  # type: ignore[no-any-return]


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for model in models.NAMED:
            document["components"]["schemas"][model.__name__] = model.model_json_schema()
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema


# -- failures ---------------------------------------------------------------------------------


async def _tell(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, Problem) else problems.of_failure(error)
    if wants_page(request.scope):
        return tell(request, problem)
    return problems.response(problem, request.scope["state"]["request_id"])


async def _tell_http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: a path or method that there is not."""
    assert isinstance(error, HTTPException)
    names = {404: "no-such-path", 405: "no-such-method"}
    name = names.get(error.status_code, "bad-request")
    return await _tell(request, Problem(error.status_code, name, str(error.detail), error.headers))


async def _tell_defect(request: Request, error: Exception) -> Response:
    """A defect of ours: its trace is in the log, under the id that the client is told."""
    request.app.state.looks.call().journal().error(
        "defect",
        request=request.scope["state"]["request_id"],
        path=request.scope["path"],
        trace="".join(traceback.format_exception(error)),
    )
    detail = "a defect of this server: its log has the trace, under this instance"
    return await _tell(request, Problem(500, "defect", detail))
