"""What a read is asked with. One model for each kind of question: checked in one step, and told in
the OpenAPI document from the same words."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from application import reports
from interfaces.rest.problems import Problem

Asked = TypeVar("Asked", bound=BaseModel)

Word = Annotated[str | None, Field(min_length=1, max_length=255)]
Moment = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=64,
        description="a time in ISO 8601, UTC without a zone",
        examples=["2027-01-15T08:00:00Z"],
    ),
]
AsOf = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=64,
        description="the state as it was known then: a position, or a time in ISO 8601 (UTC "
        "without a zone)",
        examples=["4711"],
    ),
]
WaitFor = Annotated[
    int | None,
    Field(
        ge=0,
        lt=2**62,
        description="answer when the read models have followed the log to this position, 10 s "
        "later at most: the effect of a command of one's own is seen then",
    ),
]
Fields = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=1000,
        description="nothing but these fields, separated by commas",
    ),
]
Cursor = Annotated[
    str | None, Field(min_length=1, max_length=1000, description="`next` of the page before")
]
Limit = Annotated[int, Field(ge=1, le=1000, description="documents of this page at most")]
Sort = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=40,
        description="a field, with a - before it for the greatest first",
        examples=["-created_at"],
    ),
]
Topic = Annotated[str | None, Field(min_length=1, max_length=100, examples=["MachinesRequested"])]


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


class When(Nothing):
    as_of: AsOf = None


class State(When):
    wait_for: WaitFor = None


class _Page(State):
    sort: Sort = None
    cursor: Cursor = None
    limit: Limit = 100
    fields: Fields = None


class _Created(_Page):
    created_since: Moment = None
    created_until: Moment = None


class Requests(_Created):
    kind: Annotated[Word, Field(examples=["request"])] = None
    status: Annotated[Word, Field(examples=["running"])] = None
    state: Annotated[Word, Field(examples=["fulfilled"])] = None
    template_id: Word = None
    provider: Word = None
    source: Word = None
    open: Annotated[bool | None, Field(description="not final yet")] = None


class Machines(_Created):
    status: Annotated[Word, Field(examples=["running"])] = None
    result: Annotated[Word, Field(examples=["succeed"])] = None
    request_id: Word = None
    return_id: Word = None
    batch_id: Word = None
    template_id: Word = None
    provider: Word = None
    account: Word = None
    region: Word = None
    zone: Word = None
    instance_type: Word = None
    price_type: Word = None
    name: Word = None
    private_ip_address: Word = None
    alive: Annotated[bool | None, Field(description="at AWS, as far as is known")] = None


class Batches(_Page):
    state: Word = None
    template_id: Word = None
    provider: Word = None
    account: Word = None
    region: Word = None
    pool: Word = None


class Events(State):
    after: Annotated[int, Field(ge=0, lt=2**62, description="events behind this position")] = 0
    topic: Topic = None
    limit: Limit = 100
    fields: Fields = None


class Following(Nothing):
    after: Annotated[
        int | None,
        Field(ge=0, lt=2**62, description="events behind this position; default: those to come"),
    ] = None
    topic: Topic = None


class History(Nothing):
    related: Annotated[bool, Field(description="and all that its commands led to")] = False


class Report(Nothing):
    since: Moment = None
    until: Moment = None
    by: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100,
            description=f"of {', '.join(reports.GROUPS)}, separated by commas",
        ),
    ] = "template"


def asked(request: Request, model: type[Asked]) -> Asked:
    """The question's parameters. Raises Problem 422 for what it does not take."""
    try:
        given = request.scope["query_string"].decode("latin-1")
        return model.model_validate(dict(parse_qsl(given, keep_blank_values=True)))
    except ValidationError as error:
        raise invalid(error) from None


async def sent(request: Request, model: type[Asked]) -> Asked:
    """What the body, a JSON document, asks for. Raises Problem 422 for what it is not."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(422, "invalid", "body: a document of the type application/json is expected")
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Problem:
    wrong = [
        f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}"
        for each in error.errors()[:10]
    ]
    return Problem(422, "invalid", "; ".join(wrong))


def parameters(model: type[BaseModel], *path: str) -> dict[str, Any]:
    """The same for the OpenAPI document, with the names that are in the path."""
    told: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }
        for name in path
    ]
    for name, schema in (
        model.model_json_schema()["properties"].items() if model.model_fields else ()
    ):
        plain = {key: value for key, value in schema.items() if key not in ("title", "anyOf")}
        for choice in schema.get("anyOf", ()):
            if choice.get("type") != "null":
                plain |= choice
        if plain.get("default", "") is None:
            del plain["default"]
        about = plain.pop("description", None)
        told.append(
            {
                "name": name,
                "in": "query",
                "schema": plain,
                **({"description": about} if about else {}),
            }
        )
    return {"parameters": told}
