"""The commands: ask for machines, hand them back, cancel, make and revoke tokens."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from os import urandom
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from application.tokens import Tokens
from domain.token import ADMIN, OPERATOR
from interfaces.rest import models
from interfaces.rest.commanding import Acting, Commands
from interfaces.rest.door import principal_of, refuse_below
from interfaces.rest.replies import JSON, Id, encode, problems, reply

T = TypeVar("T")

SOURCE = "rest"

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="the same key again is the same command: it is carried out once, and answered "
        "again as it was",
    ),
]


async def _operator(request: Request) -> None:
    refuse_below(request, OPERATOR)


async def _admin(request: Request) -> None:
    refuse_below(request, ADMIN)


router = APIRouter(prefix="/api/v1")


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
    responses=problems(400, 408, 409, 413),
    dependencies=[Depends(_operator)],
)
async def request_machines(
    request: Request, asked: models.AskForMachines, key: Key = None
) -> Response:
    """The request is recorded; a worker launches for it."""
    random = random_of(request, key)
    wish = (asked.template_id, asked.machine_count, asked.reason, SOURCE, random)
    recorded = await carry_out(request, lambda acting: acting.request_machines(*wish))
    return await _accepted(request, recorded)


@router.post(
    "/returns",
    tags=["requests"],
    summary="Hand machines back",
    status_code=202,
    response_model=models.Recorded,
    responses=problems(400, 404, 408, 409, 413),
    dependencies=[Depends(_operator)],
)
async def return_machines(request: Request, asked: models.HandBack, key: Key = None) -> Response:
    """The return is recorded; a worker terminates the machines. Every one must be ours."""
    wish = (asked.machine_ids, asked.reason, SOURCE, random_of(request, key))
    recorded = await carry_out(request, lambda acting: acting.return_machines(*wish))
    return await _accepted(request, recorded)


@router.post(
    "/requests/{request_id}/cancel",
    tags=["requests"],
    summary="Cancel a request",
    status_code=202,
    response_model=models.Cancelled,
    responses=problems(400, 404, 408, 409, 413),
    dependencies=[Depends(_operator)],
)
async def cancel_request(
    request: Request, request_id: Id, asked: models.Cancel, key: Key = None
) -> Response:
    """It ends, and the machines that it has are returned."""
    wish = (request_id, asked.reason, SOURCE, random_of(request, key))
    recorded = await carry_out(request, lambda acting: acting.cancel_request(*wish))
    return await _accepted(request, recorded)


@router.get(
    "/tokens",
    tags=["tokens"],
    summary="Who may ask this server",
    response_model=models.TokenList,
    responses=problems(),
    dependencies=[Depends(_admin)],
)
async def list_tokens(request: Request) -> Response:
    """All tokens that there ever were, without themselves."""
    tokens = Tokens()
    await request.app.state.looks.ask(tokens.follow)
    return reply(None, encode({"tokens": list(tokens.known.values())}))


@router.post(
    "/tokens",
    tags=["tokens"],
    summary="Make a token",
    status_code=201,
    response_model=models.TokenMade,
    responses=problems(400, 408, 413),
    dependencies=[Depends(_admin)],
)
async def create_token(request: Request, asked: models.AskForToken) -> Response:
    """The token itself is told this once; the ledger has its digest."""
    wish = (asked.name, asked.role, asked.days)
    document = await carry_out(request, lambda acting: acting.create_token(*wish))
    return Response(encode(document), 201, media_type=JSON)


@router.delete(
    "/tokens/{token_id}",
    tags=["tokens"],
    summary="Revoke a token",
    response_model=models.Revoked,
    responses=problems(404, 409),
    dependencies=[Depends(_admin)],
)
async def revoke_token(request: Request, token_id: Id) -> Response:
    """It opens nothing here from now on, and in other processes from a second later on."""
    reason = f"by {principal_of(request).name}"
    await carry_out(request, lambda acting: acting.revoke_token(token_id, reason))
    request.app.state.identities.forget()
    return reply(None, encode({"token_id": token_id}))
