"""Every event ever written stays readable: its stored form is kept here and decoded.

`python -m tests.domain.test_golden --write` adds the files that are missing and changes none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import JSONTranscoder, StoredEvent
from eventsourcing.utils import register_topic

from application.failures import UnknownEvent
from domain.event_sourced import DomainEvent
from domain.topics import TOPICS
from infrastructure.event_store.commit import to_event, to_record
from infrastructure.event_store.recorders import StrictMapper
from tests.domain.samples import every_event

GOLDEN = Path(__file__).parent.parent / "golden" / "events"

FILES = sorted(GOLDEN.glob("*.json"))


def stored_form(topic: str) -> dict[str, Any]:
    """What a store holds of the sample of this topic."""
    stream, (event_class, fields) = every_event()[topic]
    event = event_class(originator_id=stream, originator_version=1, **fields)
    _, version, topic, class_version, data, _ = to_record(event)
    return {
        "stream": stream,
        "version": version,
        "topic": topic,
        "class_version": class_version,
        "data": data,
    }


def write_missing() -> list[str]:
    """Add what has no file yet; the names of the new files."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    added = []
    for topic in every_event():
        form = stored_form(topic)
        path = GOLDEN / f"{topic}.v{form['class_version']}.json"
        if not path.exists():
            path.write_text(json.dumps(form, ensure_ascii=False, indent=2) + "\n", "utf-8")
            added.append(path.name)
    return added


def read(path: Path) -> dict[str, Any]:
    form: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return form


def by_store(form: dict[str, Any]) -> DomainEvent:
    """Decoded as the thin path does it."""
    return to_event(
        form["stream"], form["version"], form["topic"], form["class_version"], form["data"]
    )


def by_library(form: dict[str, Any]) -> DomainEvent:
    """Decoded as the library does it, with our mapper."""
    event: DomainEvent = StrictMapper(JSONTranscoder()).to_domain_event(
        StoredEvent(form["stream"], form["version"], form["topic"], form["data"].encode())
    )
    return event


def test_every_class_version_has_a_golden_file() -> None:
    """Each topic in each version from 1 to today's; no file is left over."""
    expected = {
        f"{topic}.v{version}.json"
        for topic, event_class in TOPICS.items()
        for version in range(1, event_class.class_version + 1)
    }
    assert {path.name for path in FILES} == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_event_decodes_both_ways(path: Path) -> None:
    """The store and the library read the same event, with all of today's fields."""
    form = read(path)
    event = by_store(form)
    assert event == by_library(form)
    assert type(event) is TOPICS[form["topic"]]
    assert set(vars(event)) == {
        *type(event).__annotations__,
        "originator_id",
        "originator_version",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_event_is_stored_as_the_same_bytes(path: Path) -> None:
    """Today's version of an event goes back into the very text that it came from, both ways."""
    form = read(path)
    event = by_store(form)
    stored = StrictMapper(JSONTranscoder()).to_stored_event(event)
    assert stored.topic == form["topic"]
    if form["class_version"] == type(event).class_version:
        assert to_record(event)[:5] == tuple(form.values())
        assert stored.state == form["data"].encode()


WEIGHED = {"price_type": "ondemand", "units": 1}

ADDED: dict[str, dict[str, Any]] = {
    "LaunchIntended": {
        "api": "RunInstances",
        "launch_template": "",
        "machines": 3,
        "reason": "",
    },
    "LaunchAccepted": {"shortages": [], "gives_up": False, "fleet_id": "", "filling": False},
    "LaunchSettled": {},
    "MachineLaunched": {"units": 1},
    "MachinesRequested": {"rc_account": "", "reason": ""},
}
"""Topic -> what today's version says of an event of version 1, which knew machines on demand by
RunInstances alone, one unit each."""


def test_every_second_version_says_what_the_first_one_meant() -> None:
    """No upcast without its values here."""
    assert set(ADDED) == {
        topic for topic, event_class in TOPICS.items() if event_class.class_version > 1
    }


@pytest.mark.parametrize("decode", [by_store, by_library], ids=["store", "library"])
@pytest.mark.parametrize("topic", ADDED)
def test_a_first_version_is_read_with_the_values_it_meant(topic: str, decode: Any) -> None:
    """Nothing of it changes, and what is new has the one value that was possible then."""
    form = read(GOLDEN / f"{topic}.v1.json")
    expected = {**json.loads(form["data"]), **ADDED[topic]}
    for instance in expected.get("instances", ()):
        instance |= WEIGHED
    assert decode(form) == TOPICS[topic](
        originator_id=form["stream"], originator_version=form["version"], **expected
    )


@pytest.mark.parametrize("decode", [by_store, by_library], ids=["store", "library"])
def test_an_unknown_topic_fails_by_name(decode: Any) -> None:
    """Not skipped, not guessed: the topic, the stream and the version are in the message."""
    form = {**stored_form("MachinesRequested"), "topic": "MachinesBegged", "version": 7}
    with pytest.raises(UnknownEvent) as caught:
        decode(form)
    assert "MachinesBegged" in str(caught.value)
    assert f"{form['stream']} version 7" in str(caught.value)


@pytest.mark.parametrize("decode", [by_store, by_library], ids=["store", "library"])
def test_a_newer_class_version_fails_by_name(decode: Any) -> None:
    """An event of a later release is not read as if it were ours."""
    form = stored_form("RequestFulfilled")
    form["class_version"] = 2
    form["data"] = '{"fulfilled":3,"class_version":2}'
    with pytest.raises(UnknownEvent) as caught:
        decode(form)
    assert "RequestFulfilled of class version 2" in str(caught.value)
    assert "newer release" in str(caught.value)


class WeatherTurned(DomainEvent):
    """An event whose fields changed twice: `text`, then `sky`, then `sky` and `wind`."""

    sky: str
    wind: int
    class_version = 3

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["sky"] = state.pop("text")

    @staticmethod
    def upcast_v2_v3(state: dict[str, Any]) -> None:
        state["wind"] = 0


@pytest.fixture
def weather() -> Iterator[type[DomainEvent]]:
    """The event is known for the length of a test."""
    TOPICS[WeatherTurned.TOPIC] = WeatherTurned
    register_topic(WeatherTurned.TOPIC, WeatherTurned)
    yield WeatherTurned
    del TOPICS[WeatherTurned.TOPIC]


@pytest.mark.parametrize("decode", [by_store, by_library], ids=["store", "library"])
@pytest.mark.parametrize(
    ("class_version", "data", "wind"),
    [
        (1, '{"text":"grey"}', 0),
        (2, '{"sky":"grey","class_version":2}', 0),
        (3, '{"sky":"grey","wind":4,"class_version":3}', 4),
    ],
)
def test_an_old_event_is_brought_up_to_date(
    weather: type[DomainEvent], decode: Any, class_version: int, data: str, wind: int
) -> None:
    """Each version ever written is read as today's, step by step; newer ones still fail."""
    form: dict[str, Any] = {
        "stream": "weather-1",
        "version": 1,
        "topic": "WeatherTurned",
        "class_version": class_version,
        "data": data,
    }
    event = decode(form)
    assert event == weather(originator_id="weather-1", originator_version=1, sky="grey", wind=wind)
    assert to_record(event)[3:5] == (3, f'{{"sky":"grey","wind":{wind},"class_version":3}}')
    with pytest.raises(UnknownEvent, match="class version 4"):
        decode({**form, "class_version": 4, "data": '{"sky":"","wind":0,"class_version":4}'})


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], "usage: python -m tests.domain.test_golden --write"
    print("\n".join(write_missing()) or "nothing is missing")
