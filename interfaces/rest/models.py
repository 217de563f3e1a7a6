"""The documents that are sent and taken, for the OpenAPI document and for checking what comes in.

What goes out is written without them: it was made from rows of our own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

REQUEST_ID = "req-0f8fad5bd9cb469fa16570867728950e"
RETURN_ID = "ret-2f1acc6c3a60457b8b1b3a8f2f3b8c11"
MACHINE_ID = "i-0123456789abcdef0"
AT = "2027-01-15T08:00:00.000000Z"

Time = Annotated[str, Field(description="ISO 8601, UTC", examples=[AT])]
RequestId = Annotated[str, Field(examples=[REQUEST_ID])]
MachineId = Annotated[str, Field(examples=[MACHINE_ID])]
Position = Annotated[int, Field(ge=0, description="a position in the log", examples=[4711])]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class MachineRequestDocument(_Document):
    """A request for machines, or a return of some."""

    request_id: RequestId
    kind: Literal["request", "return"]
    state: Annotated[str, Field(examples=["fulfilled"])]
    status: Literal["running", "complete", "complete_with_error"]
    message: str
    machine_count: int
    alive: Annotated[int, Field(description="machines that live")]
    provider: str
    template_id: str | None
    revision: str | None
    source: Annotated[str, Field(description="hostfactory, operator or rest")]
    fulfilment_deadline: Annotated[float | None, Field(description="seconds")]
    created_at: Time
    final_at: Time | None


class ShortageDocument(_Document):
    """Why a pool gave fewer machines than were wanted."""

    model_config = ConfigDict(extra="allow")
    recorded_at: Time
    pool: str
    reason: str
    missing: int


class MachineDocument(_Document):
    """A machine that is or was ours."""

    machine_id: MachineId
    status: Annotated[str, Field(examples=["running"])]
    result: Annotated[str, Field(examples=["succeed"])]
    message: str
    alive: bool
    owed: Annotated[str | None, Field(description="why it is to be terminated")]
    protected: Annotated[str | None, Field(description="why nobody may terminate it")]
    name: str
    private_ip_address: str
    instance_type: str
    price_type: str
    account: str
    region: str
    zone: str
    provider: str
    template_id: str
    revision: str
    request_id: str | None
    return_id: str | None
    batch_id: str
    seen_by_host_factory: bool
    launch_time: Time
    created_at: Time
    updated_at: Time


class ReturnedMachineDocument(_Document):
    """A machine as a return names it."""

    machine_id: str
    name: str
    ours: bool
    status: str | None
    alive: bool | None


class RequestWithMachines(MachineRequestDocument):
    """One request or return, with the first thousand of its machines."""

    machines: list[MachineDocument | ReturnedMachineDocument]
    shortages: Annotated[
        list[ShortageDocument] | None,
        Field(description="null for those that were archived; a return has none"),
    ]


class ClaimDocument(_Document):
    request_id: str
    machine_count: int


class BatchDocument(_Document):
    """One launch: what AWS was asked for, for whom, and what came of it."""

    batch_id: str
    state: str
    epoch: int
    api: str
    machine_count: int
    pool: str
    provider: str
    template_id: str
    launch_template: str | None
    reason: str
    settlement_ordered: str | None
    account: str
    region: str
    code: str
    message: str
    token: Annotated[str, Field(description="the client token of the call; no secret")]
    claims: list[ClaimDocument]
    created_at: Time
    updated_at: Time


class TemplateDocument(BaseModel):
    """What may be asked for: the template as it is launched."""

    model_config = ConfigDict(extra="allow")
    template_id: str
    revision: str


class EventDocument(_Document):
    """An event of the ledger."""

    position: Position
    event_id: str
    stream: Annotated[str, Field(examples=[f"request-{REQUEST_ID}"])]
    version: int
    topic: Annotated[str, Field(examples=["MachinesRequested"])]
    class_version: int
    recorded_at: Time
    correlation_id: str
    causation_id: str
    actor: dict[str, str]
    fields: dict[str, Any]
    digest: str
    chain: str


class ProjectionDocument(_Document):
    """A read model, and how far it follows the log."""

    name: str
    tables: list[str]
    version: int
    current_version: int | None
    position: Position
    lag: Annotated[int, Field(description="events that it has not followed yet")]
    failed_at: int | None
    error: str | None


class TokenDocument(_Document):
    """An API token, without itself."""

    token_id: str
    name: str
    role: Literal["viewer", "operator", "admin"]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    reason: str | None


Next = Annotated[
    str | None, Field(description="the `cursor` of the next page, null on the last one")
]


class RequestPage(_Document):
    requests: list[MachineRequestDocument]
    next: Next
    position: Position


class MachinePage(_Document):
    machines: list[MachineDocument]
    next: Next
    position: Position


class BatchPage(_Document):
    batches: list[BatchDocument]
    next: Next
    position: Position


class EventPage(_Document):
    events: list[EventDocument]
    next: Annotated[
        int | None, Field(description="the `after` of the next page, null at the end of the log")
    ]
    position: Position


class TemplateList(_Document):
    templates: list[TemplateDocument]


class ProjectionList(_Document):
    projections: list[ProjectionDocument]
    position: Position


class TokenList(_Document):
    tokens: list[TokenDocument]


class Store(BaseModel):
    """What the store says of itself, its lease holders, sweeps and open work."""

    model_config = ConfigDict(extra="allow")
    deployment: str
    incarnation: int
    events: int
    live_machines: int
    orphans: int


class Report(BaseModel):
    """A report as `hostledger report` makes it."""

    model_config = ConfigDict(extra="allow")


class ProblemDocument(BaseModel):
    """Why something cannot be done (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:hostledger:problem:unknown-request"])]
    title: str
    status: int
    detail: Annotated[str, Field(description="the thing, the cause and the next step")]
    instance: str | None = None


LINE = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
Line = Annotated[str, Field(max_length=1000, pattern=LINE, description="one line of text")]
Reason = Annotated[
    str, Field(min_length=1, max_length=1000, pattern=LINE, description="why, in one line")
]


class AskForMachines(_Asked):
    """Machines that are wanted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"template_id": "OnDemand-A", "machine_count": 3, "reason": "nightly run"}]
        }
    )
    template_id: Annotated[str, Field(min_length=1, max_length=255, pattern=LINE)]
    machine_count: Annotated[int, Field(ge=1, le=1_000_000)]
    reason: Line = ""


class HandBack(_Asked):
    """Machines that are not needed any more."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"machine_ids": [MACHINE_ID], "reason": "run ended"}]}
    )
    machine_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64, pattern=LINE)]],
        Field(min_length=1, max_length=1000),
    ]
    reason: Reason


class Cancel(_Asked):
    """The end of a request, and the return of what it has."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "wrong template"}]})
    reason: Reason


class AskForToken(_Asked):
    """A token that is wanted."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"role": "viewer", "name": "Grafana", "days": 90}]}
    )
    role: Literal["viewer", "operator", "admin"]
    name: Annotated[str, Field(max_length=200, pattern=LINE)] = ""
    days: Annotated[int, Field(ge=0, le=36_500, description="until it ends; 0: never")] = 90


NAMED: tuple[type[BaseModel], ...] = (
    AskForMachines, AskForToken, Cancel, HandBack, ProblemDocument,
)  # fmt: skip
"""Documents that operations name, and that no `response_model` describes."""


class Recorded(_Document):
    """A command is in the ledger. Read with `wait_for` the position and its effect is there."""

    request_id: Annotated[str, Field(description="of the request, or of the return")]
    position: Position
    message: Annotated[str, Field(description="what hinders the work on it; empty for nothing")]


class Cancelled(_Document):
    request_id: RequestId
    state: Literal["cancelled"]
    return_ids: list[Annotated[str, Field(examples=[RETURN_ID])]]
    position: Position
    message: str


class TokenMade(_Document):
    token_id: str
    token: Annotated[str, Field(description="the token itself: it is never told again")]
    role: str
    expires_at: Time | None


class Revoked(_Document):
    token_id: str
