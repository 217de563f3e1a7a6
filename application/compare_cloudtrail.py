"""Use case: match the AWS calls and machines of the ledger with those that CloudTrail recorded.

What a record has: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
(`requestID`, `eventName`, `eventTime`, `awsRegion`, `userIdentity`, `errorCode`) and, for EC2's calls
(`requestParameters` with `clientToken` and tags, `responseElements` with each `instanceId`),
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-examples.html
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from application.history import event_of
from application.replay import end_of

Row = dict[str, Any]

TERMINATE = "TerminateInstances"
CALLS = frozenset(
    {"RunInstances", "CreateFleet", "RequestSpotFleet", "CreateAutoScalingGroup", TERMINATE}
)
"""Those of CloudTrail's that the ledger records with AWS's request id."""

DEPLOYMENT_TAG = "hostledger:deployment"

WINDOW = 50_000
"""Positions of the log that are looked through at once."""

LATE = timedelta(seconds=120)
"""A call is in the ledger so long after CloudTrail's time of it, at most."""


class Log(Protocol):
    """One consistent look at a log."""

    def events_about(self, topic: str, text: str, after: int, until: int | None) -> list[Row]: ...

    def events_after(self, position: int, limit: int) -> list[Row]: ...

    def last_events(self, limit: int, topic: str | None) -> list[Row]: ...


@dataclass
class _Ours:
    """What the ledger has of AWS: ids with the event that holds them."""

    requests: dict[str, Row] = field(default_factory=dict)
    machines: dict[str, Row] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    intents: list[tuple[datetime, frozenset[str]]] = field(default_factory=list)
    """Terminations: when they were decided, and of which machines."""


def compare_cloudtrail(
    log: Log,
    records: Iterable[Row],
    deployment: str,
    role: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Row:
    """What one side has and the other lacks, between two times (ISO 8601; by default those of the
    first and the last record).

    `unrecorded` are calls in CloudTrail that carry the deployment's tag, were made by `role` (an
    ARN) or ended machines of ours, and that the ledger has no record of; `unseen` are request and
    instance ids of the ledger that CloudTrail lacks, in the regions that it has records of.
    """
    ours = _of_ledger(log)
    trail = _Trail(ours, deployment, role)
    for record in records:
        trail.take(record)
    first = _time(since) if since else trail.first
    last = _time(until) if until else trail.last
    document: Row = {
        "since": _iso(first),
        "until": _iso(last),
        "regions": sorted(trail.regions),
        "records": trail.records,
        "matched": trail.matched,
        "unrecorded": [],
        "unseen": [],
    }
    if first is None or last is None:
        return document
    document["unrecorded"] = [
        call for call in trail.unrecorded if first <= _time(call["event_time"]) <= last
    ]
    # What begins or ends with the range may be just outside of it on the other side.
    margin = (first + (timedelta() if since else LATE), last)
    document["unseen"] = [
        {"id": name, "recorded_at": event["recorded_at"], "position": event["position"],
         "stream": event["stream"]}
        for known, seen in ((ours.requests, trail.requests), (ours.machines, trail.machines))
        for name, event in known.items()
        if name not in seen
        and event["region"] in trail.regions
        and margin[0] <= _time(event["recorded_at"]) <= margin[1]
    ]  # fmt: skip
    return document


class _Trail:
    """CloudTrail's side, record by record."""

    def __init__(self, ours: _Ours, deployment: str, role: str | None) -> None:
        self._ours = ours
        self._deployment = deployment
        self._role = role
        self.records = self.matched = 0
        self.requests: set[str] = set()
        self.machines: set[str] = set()
        self.regions: set[str] = set()
        self.unrecorded: list[Row] = []
        self.first: datetime | None = None
        self.last: datetime | None = None

    def take(self, record: Row) -> None:
        at = _time(record["eventTime"])
        self.first = min(at, self.first or at)
        self.last = max(at, self.last or at)
        self.records += 1
        self.regions.add(record.get("awsRegion", ""))
        name = record.get("eventName")
        if name not in CALLS or record.get("errorCode"):
            return
        request_id = record.get("requestID") or ""
        machine_ids = set(_values(record.get("responseElements"), "instanceId"))
        if name == TERMINATE:
            machine_ids |= set(_values(record.get("requestParameters"), "instanceId"))
        else:
            self.machines |= machine_ids
        self.requests.add(request_id)
        if self._is_recorded(record, request_id, machine_ids, at):
            self.matched += 1
        elif why := self._why_ours(record, machine_ids):
            self.unrecorded.append({
                "event_time": record["eventTime"],
                "event_name": name,
                "aws_request_id": request_id,
                "region": record.get("awsRegion"),
                "by": _who(record),
                "machine_ids": sorted(machine_ids),
                "because": why,
            })  # fmt: skip

    def _is_recorded(
        self, record: Row, request_id: str, machine_ids: set[str], at: datetime
    ) -> bool:
        """Whether the ledger has the call: by its id; a launch also by its token or machines, since
        AWS's answer may have been lost; a termination by what was decided just before, since one
        decision may be several calls."""
        ours = self._ours
        if request_id in ours.requests:
            return True
        if record["eventName"] == TERMINATE:
            return bool(machine_ids) and any(
                decided <= at + timedelta(seconds=1) and at <= decided + LATE
                and machine_ids <= machines
                for decided, machines in ours.intents
            )  # fmt: skip
        tokens = _values(record.get("requestParameters"), "clientToken")
        return any(token in ours.tokens for token in tokens) or bool(
            machine_ids & set(ours.machines)
        )

    def _why_ours(self, record: Row, machine_ids: set[str]) -> str:
        if self._role is not None and self._role in _arns(record):
            return "made by the role"
        if _has_tag(record.get("requestParameters"), self._deployment):
            return "has the deployment's tag"
        if record["eventName"] == TERMINATE and machine_ids & set(self._ours.machines):
            return "ends machines of ours"
        return ""


# -- the ledger's side ----------------------------------------------------------------------------


def _of_ledger(log: Log) -> _Ours:
    ours = _Ours()
    regions: dict[str, str] = {}
    for event in _events(log, ("LaunchIntended", "TerminationIntended")):
        fields = event["fields"]
        regions[event["stream"]] = fields["region"]
        if event["topic"] == "LaunchIntended":
            ours.tokens.add(fields["token"])
        else:
            decided = (_time(event["recorded_at"]), frozenset(fields["machine_ids"]))
            ours.intents.append(decided)
    for event in _events(log, ("LaunchAccepted", "LaunchSettled", "TerminationAccepted")):
        fields = event["fields"]
        held = {part: event[part] for part in ("recorded_at", "position", "stream")}
        held["region"] = regions.get(event["stream"], "")
        if fields.get("aws_request_id"):
            ours.requests.setdefault(fields["aws_request_id"], held)
        for instance in fields.get("instances", ()):
            ours.machines.setdefault(instance["machine_id"], held)
    for event in _events(log, ("MachineAdopted",)):
        held = {part: event[part] for part in ("recorded_at", "position", "stream")}
        # It was launched at some other time, by nobody that the ledger knows.
        ours.machines.setdefault(event["stream"].partition("-")[2], {**held, "region": None})
    return ours


def _events(log: Log, topics: Sequence[str]) -> Iterator[Row]:
    for start in range(0, end_of(log), WINDOW):
        for topic in topics:
            for row in log.events_about(topic, "", start, start + WINDOW):
                yield event_of(row)


# -- CloudTrail's words ---------------------------------------------------------------------------


def _values(value: Any, name: str) -> Iterator[str]:
    """Every text under this key, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name and isinstance(inner, str):
                yield inner
            else:
                yield from _values(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, name)


def _has_tag(value: Any, deployment: str) -> bool:
    """Whether a tag in it, in whatever spelling a call has of tags, is the deployment's."""
    if isinstance(value, list):
        return any(_has_tag(inner, deployment) for inner in value)
    if not isinstance(value, dict):
        return False
    folded = {key.lower(): inner for key, inner in value.items()}
    if (folded.get("key"), folded.get("value")) == (DEPLOYMENT_TAG, deployment):
        return True
    return any(_has_tag(inner, deployment) for inner in value.values())


def _arns(record: Row) -> list[str]:
    """Who made the call: the identity, and the role that it assumed."""
    identity = record.get("userIdentity") or {}
    issuer = (identity.get("sessionContext") or {}).get("sessionIssuer") or {}
    return [arn for arn in (identity.get("arn"), issuer.get("arn")) if arn]


def _who(record: Row) -> str | None:
    arns = _arns(record)
    return arns[0] if arns else (record.get("userIdentity") or {}).get("invokedBy")


def _time(text: str) -> datetime:
    """Raises ValueError."""
    from datetime import UTC

    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _iso(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
