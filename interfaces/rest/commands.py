"""The commands: ask for machines, hand them back, cancel, make and revoke tokens."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from os import urandom
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from application.tokens import Tokens
from domain.token import ADMIN, OPERATOR
from interfaces.rest import models
from interfaces.rest.asked import Nothing, parameters, sent
from interfaces.rest.commanding import Acting, Commands
from interfaces.rest.door import principal_of, refuse_below
from interfaces.rest.problems import Problem
from interfaces.rest.replies import JSON, encode, problems, reply

T = TypeVar("T")

SOURCE = "rest"

LONGEST_KEY = 255

KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
    "description": "the same key again is the same command: it is carried out once, and answered "
    "again as it was",
}

router = APIRouter(prefix="/api/v1")


def _taking(body: type[BaseModel] | None, *path: str, key: bool = False) -> dict[str, Any]:
    """What a command takes, for the OpenAPI document, where `models.NAMED` are described."""
    told = parameters(Nothing, *path)
    if key:
        told["parameters"].append(KEY)
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return told


def key_of(request: Request) -> str | None:
    """What tells this command from others. Raises Problem 422."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        raise Problem(422, "invalid", f"Idempotency-Key: a key has 1 to {LONGEST_KEY} letters")
    return key


def random_of(request: Request, key: str | None) -> Callable[[int], bytes]:
    """The bytes that a command's ids are made of: with a key they are always the same, so that the
    ledger itself refuses to carry it out twice."""
    if key is None:
        return urandom
    who = principal_of(request).name
    seed = "\n".join((who, request.method, request.url.path, key)).encode(errors="replace")
    return lambda count: sha256(seed).digest()[:count]


async def carry_out(request: Request, command: Callable[[Acting], T]) -> T:
    """On behalf of who asks, when it is on disk. Raises what the command raises."""
    commands: Commands = request.app.state.commands
    return await commands.carry_out(principal_of(request).name, command)


async def _accepted(request: Request, document: dict[str, Any]) -> Response:
    document["message"] = await request.app.state.commands.hindrance()
    headers = {"Location": f"/api/v1/requests/{document['request_id']}"}
    return Response(encode(document), 202, headers, media_type=JSON)


@router.post(
    "/requests",
    tags=["requests"],
    summary="Ask for machines",
    status_code=202,
    response_model=models.Recorded,
    responses=problems(408, 409, 413),
    openapi_extra=_taking(models.AskForMachines, key=True),
)
async def request_machines(request: Request) -> Response:
    """The request is recorded; a worker launches for it."""
    refuse_below(request, OPERATOR)
    random = random_of(request, key_of(request))
    asked = await sent(request, models.AskForMachines)
    wish = (asked.template_id, asked.machine_count, asked.reason, SOURCE, random)
    recorded = await carry_out(request, lambda acting: acting.request_machines(*wish))
    return await _accepted(request, recorded)


@router.post(
    "/returns",
    tags=["requests"],
    summary="Hand machines back",
    status_code=202,
    response_model=models.Recorded,
    responses=problems(404, 408, 409, 413),
    openapi_extra=_taking(models.HandBack, key=True),
)
async def return_machines(request: Request) -> Response:
    """The return is recorded; a worker terminates the machines. Every one must be ours."""
    refuse_below(request, OPERATOR)
    random = random_of(request, key_of(request))
    asked = await sent(request, models.HandBack)
    wish = (asked.machine_ids, asked.reason, SOURCE, random)
    recorded = await carry_out(request, lambda acting: acting.return_machines(*wish))
    return await _accepted(request, recorded)


@router.post(
    "/requests/{request_id}/cancel",
    tags=["requests"],
    summary="Cancel a request",
    status_code=202,
    response_model=models.Cancelled,
    responses=problems(404, 408, 409, 413),
    openapi_extra=_taking(models.Cancel, "request_id", key=True),
)
async def cancel_request(request: Request) -> Response:
    """It ends, and the machines that it has are returned."""
    refuse_below(request, OPERATOR)
    random = random_of(request, key_of(request))
    asked = await sent(request, models.Cancel)
    wish = (request.path_params["request_id"], asked.reason, SOURCE, random)
    recorded = await carry_out(request, lambda acting: acting.cancel_request(*wish))
    return await _accepted(request, recorded)


@router.get(
    "/tokens",
    tags=["tokens"],
    summary="Who may ask this server",
    response_model=models.TokenList,
    responses=problems(),
)
async def list_tokens(request: Request) -> Response:
    """All tokens that there ever were, without themselves."""
    refuse_below(request, ADMIN)
    tokens = Tokens()
    await request.app.state.looks.ask(tokens.follow)
    return reply(None, encode({"tokens": list(tokens.known.values())}))


@router.post(
    "/tokens",
    tags=["tokens"],
    summary="Make a token",
    status_code=201,
    response_model=models.TokenMade,
    responses=problems(408, 413),
    openapi_extra=_taking(models.AskForToken),
)
async def create_token(request: Request) -> Response:
    """The token itself is told this once; the ledger has its digest."""
    refuse_below(request, ADMIN)
    asked = await sent(request, models.AskForToken)
    wish = (asked.name, asked.role, asked.days)
    document = await carry_out(request, lambda acting: acting.create_token(*wish))
    return Response(encode(document), 201, media_type=JSON)


@router.delete(
    "/tokens/{token_id}",
    tags=["tokens"],
    summary="Revoke a token",
    response_model=models.Revoked,
    responses=problems(404, 409),
    openapi_extra=_taking(None, "token_id"),
)
async def revoke_token(request: Request) -> Response:
    """It opens nothing here from now on, and in other processes from a second later on."""
    refuse_below(request, ADMIN)
    token_id = request.path_params["token_id"]
    reason = f"by {principal_of(request).name}"
    await carry_out(request, lambda acting: acting.revoke_token(token_id, reason))
    request.app.state.identities.forget()
    return reply(None, encode({"token_id": token_id}))
