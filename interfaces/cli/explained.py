"""The page of `hostledger audit explain`: why one machine existed, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from interfaces.cli.output import cell, fitted

Facts = dict[str, Any]

SHORT = 12
"""Letters of a revision that are enough to know it by."""


def page(machine: Facts) -> str:
    """The whole text; `machine` is what `application.history.explain` gives."""
    lines = []
    for title, sentences in sections(machine):
        if title:
            lines += ["", title]
        lines += [fitted(f"  {sentence}" if title else sentence) for sentence in sentences]
    return "\n".join(lines)


def sections(machine: Facts) -> Iterator[tuple[str, Iterator[str]]]:
    """Title ("" of the first) and sentences of each part."""
    yield "", _who(machine)
    yield "Why it existed", _why(machine)
    yield "What AWS said", _aws(machine)
    yield "What it ran for", _life(machine)
    yield "Who returned it", _returns(machine)
    yield "What ended it", _end(machine)
    yield "How one led to the other", _events(machine)


def _who(machine: Facts) -> Iterator[str]:
    called = ", ".join(machine[part] for part in ("name", "private_ip_address") if machine[part])
    ended = machine["life"]["ended_at"]
    state = f"ended {_at(ended)}" if ended else "not known to have ended"
    yield f"{machine['machine_id']} ({called or 'it never had a name'}): {state}"
    yield (
        f"{machine['instance_type']}, {machine['price_type']}, in {machine['zone']} of "
        f"{machine['account']}/{machine['region']}, for the provider instance {machine['provider']}"
    )


def _why(machine: Facts) -> Iterator[str]:
    asked, template = machine["asked"], machine["template"]
    if asked is None:
        yield "No request was given it: it was surplus when it came."
    elif asked["request_id"] is None:
        yield (
            f"{_at(asked['recorded_at'])}  {actor_of(asked)} took it into the ledger: "
            f"{cell(asked['reason'])}"
        )
    else:
        yield (
            f"{_at(asked['recorded_at'])}  {actor_of(asked)} asked for "
            f"{asked['machine_count']} of {asked['template_id']}"
        )
        yield f"as request {asked['request_id']}."
        if asked["reason"]:
            yield f"The reason given: {cell(asked['reason'])}"
    revision = template["revision"][:SHORT]
    if template["recorded_at"] is None:
        yield f"Its template is {template['template_id']}, revision {revision or 'unknown'}."
    else:
        yield (
            f"The template's revision {revision} was recorded {_at(template['recorded_at'])} "
            f"by {actor_of(template)}."
        )


def _aws(machine: Facts) -> Iterator[str]:
    launch = machine["launch"]
    if launch is None:
        yield "The ledger has no launch of it."
        return
    yield (
        f"{_at(launch['intended_at'])}  {launch['api']} from the pool {launch['pool']} for at most "
        f"{_count(launch['asked_for'], 'machine')}"
    )
    yield f"as batch {launch['batch_id']}, token {launch['token'][:SHORT]}..., epoch " + str(
        launch["epoch"]
    )
    if launch["why_there"]:
        yield f"there because: {cell(launch['why_there'])}"
    for rejection in launch["rejections"]:
        yield (
            f"{_at(rejection['recorded_at'])}  refused: {rejection['code']}: "
            f"{cell(rejection['message'])}"
        )
    if launch["answered_at"]:
        how = (
            "AWS gave"
            if launch["answered_by"] == "LaunchAccepted"
            else "found by its tag, after AWS's answer: the batch gave"
        )
        yield (
            f"{_at(launch['answered_at'])}  {how} {_count(launch['given'], 'machine')}, "
            f"{launch['missing'] or 'none'} missing"
        )
    yield f"AWS's request id: {launch['aws_request_id'] or 'none, its answer never came'}"
    if launch["fleet_id"]:
        yield f"fleet or group: {launch['fleet_id']}"
    for shortage in launch["shortages"]:
        yield f"short: {shortage['pool']}: {shortage['code']}: {cell(shortage['message'])}"
    for shortage in machine["shortages"]:
        yield (
            f"{_at(shortage['recorded_at'])}  its request was {shortage['missing']} short in "
            f"{shortage['pool']}: {shortage['reason']}"
        )


def _life(machine: Facts) -> Iterator[str]:
    life = machine["life"]
    yield f"{_at(life['launched_at'])}  launched"
    if life["running_at"]:
        yield f"{_at(life['running_at'])}  running, as {machine['name'] or '-'}"
    else:
        yield "It was never seen running."
    if life["named_by_host_factory_at"]:
        yield (
            f"{_at(life['named_by_host_factory_at'])}  HostFactory named it among its hosts for "
            "the first time"
        )
    else:
        yield "HostFactory never named it among its hosts."
    for note in life["notes"]:
        yield (
            f"{_at(note['recorded_at'])}  {note['topic']}: {cell(note.get('reason'))}, "
            f"by {actor_of(note)}"
        )
    if life["seconds"] is not None:
        yield f"It lived for {duration(life['seconds'])}."


def _returns(machine: Facts) -> Iterator[str]:
    for handed_back in machine["returns"]:
        yield (
            f"{_at(handed_back['recorded_at'])}  {actor_of(handed_back)}: "
            f"{cell(handed_back['reason'])}"
        )
        yield f"as return {handed_back['return_id']}"
    if not machine["returns"]:
        yield "Nobody."


def _end(machine: Facts) -> Iterator[str]:
    end = machine["end"]
    if end is None:
        yield f"Nothing yet; the last that is known of it is of {_at(machine['last_event_at'])}."
        return
    for call in end["terminations"]:
        yield f"{_at(call['intended_at'])}  TerminateInstances was decided: {cell(call['reason'])}"
        yield f"as termination {call['termination_id']}"
        for answer in call["answers"]:
            if answer["topic"] == "TerminationAccepted":
                yield (
                    f"{_at(answer['recorded_at'])}  AWS accepted it, request id "
                    f"{answer['aws_request_id']}"
                )
            else:
                codes = ", ".join(
                    code for name, code in answer["refused"] if name == machine["machine_id"]
                )
                yield f"{_at(answer['recorded_at'])}  refused: {codes}"
    if not end["terminations"]:
        yield "No call of ours."
    if end["topic"]:
        what = "gone" if end["topic"] == "MachineTerminated" else "not to be found any more"
        yield f"{_at(end['recorded_at'])}  {what}: {cell(end['reason'])}"


def _events(machine: Facts) -> Iterator[str]:
    for event in machine["events"]:
        because = f"because of {event['because_of']}" if event["because_of"] else ""
        yield (
            f"{event['position']:>8}  {_at(event['recorded_at'])}  {event['topic']:<20}  {because}"
        ).rstrip()


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def _at(time: str) -> str:
    return cell(time)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def actor_of(told: Facts) -> str:
    """Who acted, in words: what a process was called, and for whom it ran."""
    actor = told["actor"]
    process = str(actor.get("process", "")).partition("[")[0] or "somebody"
    of = f" of {actor['provider']}" if actor.get("provider") else ""
    user = f" (user {actor['user']})" if actor.get("user") else ""
    return f"{process}{of}{user}"
