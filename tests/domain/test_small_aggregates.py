"""Deployments, templates, terminations and what HostFactory knows; ids and tokens."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.alert import Alert, AlertCleared, AlertRaised
from domain.brake import EVERYTHING, LAUNCHING, Brake, Paused, Resumed
from domain.deployment import Deployment, DeploymentCreated, StoreActivated
from domain.event_sourced import DomainEvent
from domain.host_factory import HostFactory, MachinesSeen, RequestsSeen
from domain.identifiers import BATCH, REQUEST, is_id, launch_token, new_id, sha256
from domain.refusals import BadMachineCount, OverTemplateLimit, UnknownTemplate
from domain.template import Template, TemplateRetired, TemplateRevised, check_ask
from domain.termination_batch import (
    TerminationAccepted,
    TerminationBatch,
    TerminationRefused,
)
from domain.topics import TOPICS
from tests.domain.samples import TERMINATION, every_event, machine_id, terminating
from tests.specification import Happened, Specification, born, event, refused

# -- the deployment -------------------------------------------------------------------------------


def test_a_deployment_begins_with_its_identity() -> None:
    """The log's first event has the deployment id and incarnation 1."""
    assert born(lambda: Deployment.create("9f86", "0.1.0")) == [
        DeploymentCreated(
            originator_id="deployment",
            originator_version=1,
            deployment="9f86",
            incarnation=1,
            program_version="0.1.0",
        )
    ]


def test_each_activation_raises_the_incarnation() -> None:
    """Two stores that were once the same are told apart."""
    Specification(Deployment, "").given(
        event(DeploymentCreated, deployment="9f86", incarnation=1, program_version="0.1.0"),
        event(StoreActivated, incarnation=2, reason="restored"),
    ).when(lambda d: d.activate("again")).then(event(StoreActivated, incarnation=3, reason="again"))


# -- alerts ---------------------------------------------------------------------------------------


def test_an_alert_is_raised_and_cleared_once_a_crossing() -> None:
    """However often it is looked at meanwhile."""
    raised = event(AlertRaised, message="2 instances", value=2.0, limit=0.0)
    cleared = event(AlertCleared, value=0.0)
    of = Specification(Alert, "orphans")

    of.when(lambda a: a.set_off("2 instances", 2.0, 0.0)).then(raised)
    Specification(Alert, "orphans").given(raised).when(
        lambda a: a.set_off("3 instances", 3.0, 0.0)
    ).then()
    Specification(Alert, "orphans").given(raised).when(lambda a: a.clear(0.0)).then(cleared)
    Specification(Alert, "orphans").given(raised, cleared).when(lambda a: a.clear(0.0)).then()
    Specification(Alert, "orphans").given(raised, cleared).when(
        lambda a: a.set_off("2 instances", 2.0, 0.0)
    ).then(raised)


# -- templates ------------------------------------------------------------------------------------

KEY = "awsinst/OnDemand-A"


def revised(revision: str) -> Happened:
    return event(
        TemplateRevised,
        provider="awsinst",
        template_id="OnDemand-A",
        revision=revision,
        content={"max_number": 3},
    )


def revise(revision: str) -> Any:
    return lambda t: t.revise("awsinst", "OnDemand-A", revision, {"max_number": 3})


def test_a_content_is_recorded_when_it_is_new() -> None:
    """The revision that we have is no news, a former one is."""
    Specification(Template, KEY).when(revise("1")).then(revised("1"))
    Specification(Template, KEY).given(revised("1")).when(revise("1")).then_nothing()
    Specification(Template, KEY).given(revised("1"), revised("2")).when(revise("1")).then(
        revised("1")
    )


def test_a_template_retires_once_and_may_come_back() -> None:
    """The same content after a retirement is a new revision event."""
    retired = event(TemplateRetired, provider="awsinst", template_id="OnDemand-A")
    retire: Any = lambda t: t.retire("awsinst", "OnDemand-A")  # noqa: E731
    Specification(Template, KEY).given(revised("1")).when(retire).then(retired)
    Specification(Template, KEY).given(revised("1"), retired).when(retire).then_nothing()
    Specification(Template, KEY).when(retire).then_nothing()
    Specification(Template, KEY).given(revised("1"), retired).when(revise("1")).then(revised("1"))


@pytest.mark.parametrize(("count", "taken"), [(1, 1), (3, 3), ("3", 3), ("03", 3)])
def test_an_ask_within_the_limit_is_taken(count: object, taken: int) -> None:
    """A whole number from 1 to maxNumber, or IBM's text form of one."""
    assert check_ask("T", {"max_number": 3}, count) == taken


@pytest.mark.parametrize(
    "count",
    [0, -1, True, False, None, 2.0, 2.5, "", "0", "-1", "2.5", " 3", "٣", "1" * 10, [3], {"n": 3}],
    ids=repr,
)
def test_what_is_no_count_is_refused_by_name(count: object) -> None:
    """The refusal names the template and shows what was sent."""
    said = refused(lambda: check_ask("T", {"max_number": 3}, count), BadMachineCount)
    assert "'T'" in said
    assert repr(0 if count == "0" else count) in said


@pytest.mark.parametrize(
    ("limit", "count", "says"),
    [(3, 4, "limit of 3"), (0, 1, "maxNumber 0"), (-1, 10_001, "10000"), (3, 10**9, "limit of 3")],
)
def test_an_ask_over_the_limit_is_refused(limit: int, count: int, says: str) -> None:
    """The limit is in the refusal; a maxNumber of -1 means 10,000."""
    assert says in refused(lambda: check_ask("T", {"max_number": limit}, count), OverTemplateLimit)


def test_an_unlimited_template_gives_ten_thousand() -> None:
    """IBM caps a maxNumber of -1 there."""
    assert check_ask("T", {"max_number": -1}, 10_000) == 10_000


def test_an_unknown_template_is_refused_by_name() -> None:
    """Before its count is looked at."""
    assert "'T'" in refused(lambda: check_ask("T", None, "nonsense"), UnknownTemplate)


# -- terminations ---------------------------------------------------------------------------------


def termination() -> Specification[TerminationBatch]:
    return Specification(TerminationBatch, TERMINATION)


def test_a_termination_is_written_down_before_the_call() -> None:
    """With its machines, its zone and why they may be ended."""
    (intent,) = born(
        lambda: TerminationBatch.intend(TERMINATION, **terminating([1, 2])[1]),
    )
    assert intent.originator_id == "termination-" + TERMINATION
    assert {k: v for k, v in vars(intent).items() if not k.startswith("originator")} == (
        terminating([1, 2])[1]
    )


def test_aws_answers_a_termination_once() -> None:
    """What was accepted and what was refused, and nothing after that."""
    taken = event(TerminationAccepted, machine_ids=[machine_id(1)], aws_request_id="aws")
    denied = event(TerminationRefused, refused=[[machine_id(2), "OperationNotPermitted"]])
    conclude: Any = lambda t: t.conclude(  # noqa: E731
        [machine_id(1)], [[machine_id(2), "OperationNotPermitted"]], "aws"
    )
    termination().given(terminating([1, 2])).when(conclude).then(taken, denied)
    termination().given(terminating([1, 2]), taken, denied).when(conclude).then_nothing()
    termination().given(terminating([1, 2])).when(lambda t: t.conclude([], [], "")).then_nothing()


# -- the brake ------------------------------------------------------------------------------------


def test_the_brake_is_pulled_and_released_once() -> None:
    """The same scope again is no news, another one is; what is released stays so."""
    paused = event(Paused, scope=LAUNCHING, reason="costs")
    resumed = event(Resumed, reason="checked")
    brake = Specification(Brake, "")
    brake.when(lambda b: b.resume("checked")).then_nothing()
    brake.when(lambda b: b.pause(LAUNCHING, "costs")).then(paused)
    Specification(Brake, "").given(paused).when(lambda b: b.pause(LAUNCHING, "x")).then_nothing()
    Specification(Brake, "").given(paused).when(lambda b: b.pause(EVERYTHING, "fire")).then(
        event(Paused, scope=EVERYTHING, reason="fire")
    )
    Specification(Brake, "").given(paused).when(lambda b: b.resume("checked")).then(resumed)
    Specification(Brake, "").given(paused, resumed).when(lambda b: b.resume("x")).then_nothing()


# -- what HostFactory knows -----------------------------------------------------------------------


def test_only_first_sightings_are_events() -> None:
    """An empty look appends nothing."""
    seen = Specification(HostFactory, "")
    seen.when(lambda h: h.see_requests("awsinst", [], [])).then_nothing()
    seen.when(lambda h: h.see_machines("awsinst", [])).then_nothing()
    Specification(HostFactory, "").when(lambda h: h.see_requests("awsinst", [], ["req-1"])).then(
        event(RequestsSeen, provider="awsinst", request_ids=[], answered_final=["req-1"])
    )
    Specification(HostFactory, "").when(lambda h: h.see_machines("awsinst", ["i-1"])).then(
        event(MachinesSeen, provider="awsinst", machine_ids=["i-1"])
    )


# -- ids, tokens, events --------------------------------------------------------------------------


@given(random=st.binary(min_size=16, max_size=16))
def test_an_id_is_known_by_its_form(random: bytes) -> None:
    """A prefix and 32 lower-case hex digits; nothing else is one."""
    identifier = new_id(REQUEST, random)
    assert is_id(REQUEST, identifier)
    assert not is_id(BATCH, identifier)
    for other in (identifier[:-1], identifier + "0", identifier[:-1] + "g", None, 7, [identifier]):
        assert not is_id(REQUEST, other)
    assert not is_id(REQUEST, identifier[:-1] + "A")


def test_a_token_is_the_same_for_the_same_intent_alone() -> None:
    """64 characters, another one when any part differs, as plain sha256 computes it."""
    parts: list[Any] = ["9f86", 1, "123456789012", "us-east-1", "subnet-a1", "bat-1", 0]
    token = launch_token(*parts)
    expected = "9f86\n1\n123456789012\nus-east-1\nsubnet-a1\nbat-1\n0"
    assert token == hashlib.sha256(expected.encode()).hexdigest()
    assert len(token) == 64
    for index, part in enumerate(parts):
        changed = [*parts]
        changed[index] = part + 1 if isinstance(part, int) else part + "x"
        assert launch_token(*changed) != token


@given(text=st.binary())
def test_the_light_sha256_is_the_standard_one(text: bytes) -> None:
    """Digests do not depend on which module computes them."""
    assert sha256(text).hexdigest() == hashlib.sha256(text).hexdigest()


def test_an_event_takes_its_fields_and_no_others() -> None:
    """A missing, extra or misspelt field fails where the event is made, naming the right ones."""
    place: dict[str, Any] = {"originator_id": "deployment", "originator_version": 1}
    for fields in ({}, {"incarnation": 2}, {"incarnation": 2, "reason": "", "extra": 1}):
        with pytest.raises(TypeError, match="incarnation"):
            StoreActivated(**place, **fields)
    with pytest.raises((TypeError, KeyError), match="reason"):
        StoreActivated(**place, incarnation=2, reasons="")  # type: ignore[call-arg]


def test_a_topic_is_the_name_of_its_class() -> None:
    """Each under its own name, and each with a sample that the other tests vary."""
    assert set(TOPICS) == set(every_event())
    for topic, event_class in TOPICS.items():
        assert topic == event_class.TOPIC == event_class.__name__
        assert issubclass(event_class, DomainEvent)
