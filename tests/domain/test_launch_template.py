"""A launch template's life: made when it is needed, made again when it is gone, removed."""

from __future__ import annotations

from typing import Any

import pytest

from domain.launch_template import (
    LaunchTemplate,
    LaunchTemplateCreated,
    LaunchTemplateDeleted,
    LaunchTemplateDeletionIntended,
    LaunchTemplateIntended,
    LaunchTemplateMissed,
    LaunchTemplateRejected,
)
from tests.domain.samples import every_event
from tests.specification import Happened, Specification, event

FACTS = {k: v for k, v in every_event()["LaunchTemplateIntended"][1][1].items() if k != "epoch"}
KEY = LaunchTemplate.key("default", "us-east-1", FACTS["name"])


def intended(epoch: int) -> Happened:
    return event(LaunchTemplateIntended, epoch=epoch, **FACTS)


INTENDED = intended(0)
CREATED = event(LaunchTemplateCreated, launch_template_id="lt-0abcd290751193123")
REJECTED = event(LaunchTemplateRejected, code="UnauthorizedOperation", message="not authorized")
MISSED = event(LaunchTemplateMissed)
DOOMED = event(LaunchTemplateDeletionIntended, reason="unused")
DELETED = event(LaunchTemplateDeleted)

LIVES: dict[str, list[Happened]] = {
    "not there": [],
    "open": [INTENDED],
    "created": [INTENDED, CREATED],
    "rejected": [INTENDED, REJECTED],
    "missed": [INTENDED, CREATED, MISSED],
    "deleting": [INTENDED, CREATED, DOOMED],
    "deleting, unsure": [INTENDED, DOOMED],
    "deleted": [INTENDED, CREATED, DOOMED, DELETED],
}

COMMANDS: dict[str, tuple[Any, Happened, set[str]]] = {
    "create": (lambda t: t.create("lt-0abcd290751193123"), CREATED, {"open"}),
    "reject": (lambda t: t.reject("UnauthorizedOperation", "not authorized"), REJECTED, {"open"}),
    "miss": (lambda t: t.miss(), MISSED, {"created"}),
    "intend_deletion": (
        lambda t: t.intend_deletion("unused"),
        DOOMED,
        {"open", "created", "missed"},
    ),
    "delete": (lambda t: t.delete(), DELETED, {"deleting", "deleting, unsure"}),
}
"""Command -> itself, what it leads to, and in which of LIVES: in the others it is no news."""


def template(*so_far: Happened) -> Specification[LaunchTemplate]:
    return Specification(LaunchTemplate, KEY).given(*so_far)


def test_its_id_says_where_it_is() -> None:
    """The same name in another account or region is another one."""
    assert KEY == "default/us-east-1/hostledger-9f86d081-0123456789abcdef01234567"
    assert LaunchTemplate.stream(KEY) == every_event()["LaunchTemplateIntended"][0]


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_an_effect_where_it_belongs(name: str, life: str) -> None:
    """Once, in its place; anywhere else it has been carried out already or comes too late."""
    command, happened, lives = COMMANDS[name]
    told = template(*LIVES[life]).when(command)
    if life in lives:
        told.then(happened)
    else:
        told.then_nothing()


@pytest.mark.parametrize("life", ["open", "created", "deleting", "deleting, unsure"])
def test_what_may_be_there_is_not_made_again(life: str) -> None:
    """While its call is under way, while it is there, and until it is gone."""
    template(*LIVES[life]).when(lambda t: t.intend(**FACTS)).then_nothing()


@pytest.mark.parametrize(
    ("life", "epoch"), [("not there", 0), ("rejected", 1), ("missed", 1), ("deleted", 1)]
)
def test_what_is_not_there_is_made_in_the_next_epoch(life: str, epoch: int) -> None:
    """The first has epoch 0; a rejection, a loss and a deletion open the next."""
    template(*LIVES[life]).when(lambda t: t.intend(**FACTS)).then(intended(epoch))


def test_epochs_follow_each_other() -> None:
    """Over rejections, losses and deletions."""
    template(
        INTENDED, REJECTED, intended(1), CREATED, MISSED, intended(2), CREATED, DOOMED, DELETED
    ).when(lambda t: t.intend(**FACTS)).then(intended(3))


def test_one_that_was_made_again_lives_again() -> None:
    """It is created, missed and deleted as the first one was."""
    again = [INTENDED, CREATED, DOOMED, DELETED, intended(1)]
    template(*again).when(lambda t: t.create("lt-0abcd290751193123")).then(CREATED)
    template(*again, CREATED).when(lambda t: t.intend_deletion("unused")).then(DOOMED)
    template(*again, CREATED, DOOMED).when(lambda t: t.delete()).then(DELETED)
