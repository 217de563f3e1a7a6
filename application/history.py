"""The audit: the events of one thing, those of AWS's calls for it, and why a machine existed.

Asked of the log alone, so that it answers whatever became of the read models. Documents have
snake_case keys, times in ISO 8601 UTC, and null for what there is not.
"""

from __future__ import annotations

from application.json_text import loads
from application.queries import NotInLedger
from application.replay import end_of, recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol

    Row = dict[str, Any]

    class Log(Protocol):
        """One consistent look at a log; rows are as its tables have them."""

        def find_stream(self, candidates: Sequence[str]) -> str | None: ...

        def events_of(self, stream: str) -> list[Row]: ...

        def events_correlated(self, correlation_ids: Sequence[str]) -> list[Row]: ...

        def events_about(
            self, topic: str, text: str, after: int, until: int | None
        ) -> list[Row]: ...

        def events_after(self, position: int, limit: int) -> list[Row]: ...

        def event(self, event_id: str) -> Row | None: ...

        def last_events(self, limit: int, topic: str | None) -> list[Row]: ...


BATCH = 1000
"""Events that are read at once."""

ENDS = ("MachineTerminated", "MachineLost")
LAUNCHES = ("MachineLaunched", "MachineAdopted")


# -- the events of one thing ----------------------------------------------------------------------


def history(log: Log, identifier: str, provider: str, related: bool = False) -> list[Row]:
    """The events of one thing in their order; `related`: of all that its commands led to.

    `identifier` is the id of a request, return, batch, termination or machine, a template's id
    (with or without the provider instance before it), "deployment", or a stream's name. Raises
    NotInLedger.
    """
    candidates = [
        *(f"{kind}-{identifier}" for kind in ("request", "return", "batch", "termination")),
        *(f"machine-{identifier}", f"template-{provider}/{identifier}", f"template-{identifier}"),
        identifier,
    ]
    stream = log.find_stream(candidates)
    if stream is None:
        raise NotInLedger(
            f"the log has no event of {identifier}: an id of a request, return, batch, "
            "termination, machine or template is needed, or the word deployment"
        )
    events = [event_of(row) for row in log.events_of(stream)]
    if not related:
        return events
    commands = {event["correlation_id"] for event in events} - {""}
    return [event_of(row) for row in log.events_correlated(sorted(commands))]


def aws_calls(log: Log, events: Sequence[Row]) -> list[Row]:
    """The answers of AWS behind a thing's `history`: those that its own events hold; of a request
    and a machine also those to the launches that served it, of a return and a machine those to the
    terminations.

    Each with `aws_request_id`, `api`, and the `stream`, `position` and `recorded_at` of the event
    that holds it.
    """
    answers = list(events)
    kind, _, identifier = events[0]["stream"].partition("-")
    if kind == "request" or kind == "machine":
        batches = {event["fields"].get("batch_id") for event in events} - {None}
        for batch_id in sorted(batches):
            answers += _stream(log, f"batch-{batch_id}")
    if kind == "machine":
        answers += _terminations(log, events, [identifier])
    elif kind == "return":
        machine_ids = [m for event in events for m in event["fields"].get("machine_ids", ())]
        answers += _terminations(log, events, machine_ids)
    calls = [_call(event, answers) for event in answers if event["fields"].get("aws_request_id")]
    return sorted(calls, key=lambda call: call["position"])


def _call(event: Row, events: Sequence[Row]) -> Row:
    api = "TerminateInstances"
    if event["topic"] == "LaunchAccepted":
        api = next(
            (
                intent["fields"]["api"]
                for intent in events
                if intent["stream"] == event["stream"] and "api" in intent["fields"]
            ),
            "RunInstances",
        )
    return {
        "aws_request_id": event["fields"]["aws_request_id"],
        "api": api,
        "stream": event["stream"],
        "position": event["position"],
        "recorded_at": event["recorded_at"],
    }


def _stream(log: Log, stream: str) -> list[Row]:
    return [event_of(row) for row in log.events_of(stream)]


def _terminations(log: Log, events: Sequence[Row], machine_ids: Sequence[str]) -> list[Row]:
    """AWS's answers to terminations of these machines, in the time in which they can have been: a
    thing's `events` say from when, and until when where it has ended."""
    ended = ("ReturnCompleted", *ENDS)
    started = next((e for e in events if e["topic"] == "MachineReturned"), events[0])
    until = next((e["position"] for e in events if e["topic"] in ended), None)
    wanted = set(machine_ids)
    text = machine_ids[0] if len(wanted) == 1 else ""
    found: list[Row] = []
    for topic in ("TerminationAccepted", "TerminationRefused"):
        for row in log.events_about(topic, text, started["position"], until):
            event = event_of(row)
            named = event["fields"].get("machine_ids") or [m for m, _ in event["fields"]["refused"]]
            if wanted & set(named):
                found.append(event)
    return found


# -- the end of the log ---------------------------------------------------------------------------


def last_events(log: Log, limit: int, topic: str | None = None) -> list[Row]:
    """The end of the log, oldest first."""
    return [event_of(row) for row in log.last_events(limit, topic)]


def events_after(log: Log, position: int, topic: str | None = None) -> Iterator[Row]:
    """The events that follow a position, oldest first."""
    while rows := log.events_after(position, BATCH):
        position = rows[-1]["position"]
        for row in rows:
            if topic in (None, row["topic"]):
                yield event_of(row)


def position_before(log: Log, time: str) -> int:
    """The position of the last event before a time (ISO 8601; UTC where it says nothing else); 0
    before all of them. Raises StoreError for what is no time."""
    at = recorded(time)
    low, high = 0, end_of(log)
    while low < high:  # recorded time never goes back, so that half of the rest is looked at
        middle = (low + high + 1) // 2
        (event,) = log.events_after(middle - 1, 1)
        if event["recorded_at"] < at:
            low = middle
        else:
            high = middle - 1
    return low


# -- why a machine existed ------------------------------------------------------------------------


def explain(log: Log, machine_id: str) -> Row:
    """Why a machine of ours existed: who asked, for which template revision, what AWS said, what
    it ran for, who returned it and why, what ended it, and the `events` that led from one to the
    next, each `because_of` the position of another.

    Raises NotInLedger.
    """
    life = _stream(log, f"machine-{machine_id}")
    if not life:
        raise NotInLedger(
            f"the ledger never had a machine {machine_id}: `hostledger orphans list` shows what "
            "carries our tag besides; what does not carry it was not launched by this deployment"
        )
    launched = next(event for event in life if event["topic"] in LAUNCHES)
    facts = _fields(launched)
    batch = _stream(log, f"batch-{facts['batch_id']}") if facts["batch_id"] else []
    request = _stream(log, f"request-{facts['request_id']}") if facts.get("request_id") else []
    handed_back = [
        event_of(row)
        for row in log.events_about("MachinesReturned", machine_id, launched["position"], None)
    ]
    returns = [
        event
        for stream in _streams([event for event in handed_back if _concerns(event, machine_id)])
        for event in _stream(log, stream)
    ]
    terminations = [
        event
        for stream in _streams(_terminations(log, life, [machine_id]))
        for event in _stream(log, stream)
    ]
    around = [*batch, *request, *returns, *terminations]
    events = _linked(log, life, [event for event in around if _concerns(event, machine_id)])
    last = life[-1]
    running = next((event for event in life if event["topic"] == "MachineRunning"), None)
    ended = next((event for event in life if event["topic"] in ENDS), None)
    return {
        "machine_id": machine_id,
        "name": _fields(running or launched)["name"] or None,
        "private_ip_address": _fields(running or launched)["private_ip_address"] or None,
        **{
            field: facts[field]
            for field in ("instance_type", "price_type", "zone", "account", "region", "provider")
        },
        "asked": _asked(request, launched),
        "template": _template(log, facts, launched),
        "launch": _launch(batch, facts["batch_id"], machine_id),
        "shortages": [_told(event) for event in request if event["topic"] == "RequestFellShort"],
        "life": {
            "launched_at": launched["recorded_at"],
            "running_at": running["recorded_at"] if running else None,
            "named_by_host_factory_at": _named_at(log, machine_id, launched),
            "ended_at": ended["recorded_at"] if ended else None,
            "seconds": _seconds(launched, ended) if ended else None,
            "notes": [
                _told(event)
                for event in life
                if event["topic"] not in (*LAUNCHES, *ENDS, "MachineRunning", "MachineReturned")
            ],
        },
        "returns": [
            {**_told(event), "return_id": event["stream"].partition("-")[2]}
            for event in returns
            if event["topic"] == "MachinesReturned" and _concerns(event, machine_id)
        ],
        "end": _end(ended, terminations),
        "last_event_at": last["recorded_at"],
        "events": events,
    }


def _fields(event: Row) -> Row:
    """Its fields, brought up to today's class version."""
    from domain.topics import TOPICS

    fields = dict(event["fields"])
    event_class = TOPICS.get(event["topic"])
    for old in range(event["class_version"], event_class.class_version if event_class else 0):
        getattr(event_class, f"upcast_v{old}_v{old + 1}")(fields)
    return fields


def _streams(events: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(event["stream"] for event in events))


def _concerns(event: Row, machine_id: str) -> bool:
    """Whether an event is about a machine, or about no machine in particular."""
    fields = event["fields"]
    named = fields.get("machine_ids")
    if event["topic"] == "TerminationRefused":
        named = [machine for machine, _ in fields["refused"]]
    elif "instances" in fields:
        named = [instance["machine_id"] for instance in fields["instances"]]
    return named is None or machine_id in named


def _linked(log: Log, life: Sequence[Row], around: Sequence[Row]) -> list[Row]:
    """The machine's events, what led to them, step by step to the first cause, and what of the
    events around it they led to, or what led to them did."""
    known = {event["event_id"]: event for event in (*life, *around)}
    linked: dict[str, Row] = {}
    waiting = list(life)
    while waiting:
        event = waiting.pop()
        if event["event_id"] in linked:
            continue
        linked[event["event_id"]] = event
        cause = event["causation_id"]
        if cause and cause not in known:
            row = log.event(cause)
            if row is not None and row["topic"]:  # else it was archived
                known[cause] = event_of(row)
        waiting += [known[cause]] if cause in known else []
        waiting += [other for other in around if other["causation_id"] == event["event_id"]]
    return [
        {
            "position": event["position"],
            "recorded_at": event["recorded_at"],
            "topic": event["topic"],
            "stream": event["stream"],
            "because_of": known[event["causation_id"]]["position"]
            if event["causation_id"] in known
            else None,
        }
        for event in sorted(linked.values(), key=lambda event: event["position"])
    ]


def _told(event: Row) -> Row:
    """What an event says, when, and by whom."""
    fields = _fields(event)
    fields.pop("machine_ids", None)
    fields.pop("strangers", None)
    return {
        "topic": event["topic"],
        "position": event["position"],
        "recorded_at": event["recorded_at"],
        "actor": event["actor"],
        **fields,
    }


def _asked(request: Sequence[Row], launched: Row) -> Row | None:
    """The request that it was dealt to; of an adopted machine the operator's act; None for
    surplus."""
    if launched["topic"] == "MachineAdopted":
        return {"request_id": None, **_told(launched)}
    if not request:
        return None
    return {"request_id": request[0]["stream"].partition("-")[2], **_told(request[0])}


def _template(log: Log, facts: Row, launched: Row) -> Row:
    """The revision that it was launched from, and when and by whom that was recorded first."""
    events = _stream(log, f"template-{facts['provider']}/{facts['template_id']}")
    revised = [
        event
        for event in events
        if event["fields"].get("revision") == facts["revision"]
        and event["position"] < launched["position"]
    ]
    return {
        "template_id": facts["template_id"],
        "revision": facts["revision"],
        "recorded_at": revised[-1]["recorded_at"] if revised else None,
        "position": revised[-1]["position"] if revised else None,
        "actor": revised[-1]["actor"] if revised else None,
    }


def _launch(batch: Sequence[Row], batch_id: str, machine_id: str) -> Row | None:
    """The AWS call that gave it, and all that AWS said to that batch."""
    answers = [event for event in batch if "instances" in event["fields"]]
    gave = [event for event in answers if _concerns(event, machine_id)]
    intents = [event for event in batch if event["topic"] == "LaunchIntended"]
    if not intents:
        return None
    before = [event for event in intents if not gave or event["position"] < gave[0]["position"]]
    intent = _fields(before[-1])
    accepted = next((e for e in reversed(batch) if e["topic"] == "LaunchAccepted"), None)
    answer = _fields(accepted) if accepted else {}
    return {
        "batch_id": batch_id,
        "api": intent["api"],
        "pool": intent["pool"],
        "why_there": intent["reason"] or None,
        "token": intent["token"],
        "epoch": intent["epoch"],
        "asked_for": intent["machines"],
        "intended_at": before[-1]["recorded_at"],
        "answered_at": gave[0]["recorded_at"] if gave else None,
        "answered_by": gave[0]["topic"] if gave else None,
        "aws_request_id": answer.get("aws_request_id") or None,
        "fleet_id": answer.get("fleet_id") or None,
        "given": sum(len(event["fields"]["instances"]) for event in answers),
        "missing": answer.get("missing", 0),
        "surplus": any(machine_id in event["fields"]["surplus"] for event in gave),
        "shortages": [
            dict(zip(("pool", "class", "code", "message"), shortage, strict=True))
            for event in batch
            for shortage in _fields(event).get("shortages", ())
        ],
        "rejections": [_told(event) for event in batch if event["topic"] == "LaunchRejected"],
    }


def _named_at(log: Log, machine_id: str, launched: Row) -> str | None:
    """When HostFactory first named it among its hosts."""
    for row in log.events_about("MachinesSeen", machine_id, launched["position"], None):
        if machine_id in loads(row["data"])["machine_ids"]:
            return str(row["recorded_at"])
    return None


def _end(ended: Row | None, terminations: Sequence[Row]) -> Row | None:
    """What ended it: AWS's answers to the terminations that named it, and what the ledger then
    found."""
    calls = []
    for stream in _streams(terminations):
        intended, *answers = [event for event in terminations if event["stream"] == stream]
        calls.append({
            "termination_id": stream.partition("-")[2],
            "intended_at": intended["recorded_at"],
            "reason": intended["fields"]["reason"],
            "answers": [
                {
                    "topic": event["topic"],
                    "recorded_at": event["recorded_at"],
                    "aws_request_id": event["fields"].get("aws_request_id"),
                    "refused": event["fields"].get("refused"),
                }
                for event in answers
            ],
        })  # fmt: skip
    if ended is None and not calls:
        return None
    return {
        "topic": ended["topic"] if ended else None,
        "recorded_at": ended["recorded_at"] if ended else None,
        "reason": ended["fields"]["reason"] if ended else None,
        "terminations": calls,
    }


def _seconds(earlier: Row, later: Row) -> float:
    """Between two recorded times."""
    from datetime import datetime

    first, last = (datetime.fromisoformat(event["recorded_at"]) for event in (earlier, later))
    return round((last - first).total_seconds(), 3)


def event_of(row: Row) -> Row:
    """An event as it is told."""
    metadata = loads(row["metadata"])
    return {
        "position": row["position"],
        "recorded_at": row["recorded_at"],
        "topic": row["topic"],
        "stream": row["stream"],
        "version": row["version"],
        "class_version": row["class_version"],
        "event_id": row["event_id"],
        "correlation_id": metadata["correlation_id"],
        "causation_id": metadata["causation_id"],
        "actor": metadata["actor"],
        "fields": loads(row["data"]),
        "digest": row["digest"],
        "chain": row["chain"],
    }
