"""What the five verbs do with input that cannot be used: say so, and do nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from interfaces.hostfactory.verbs import run
from tests.processes import VERBS, ProcessSite

HOSTS = ("requestReturnMachines", "getReturnRequests")


class Desk:
    """A site whose verbs are called in this process; nobody works behind it."""

    def __init__(self, root: Path) -> None:
        self.site = ProcessSite(root, settings={"HOSTLEDGER_WORKER__MODE": "auto"})
        self.root = root

    def run(self, verb: str, arguments: list[str]) -> tuple[int, dict[str, Any]]:
        status, text = run(verb, arguments, "/nowhere/python")
        return status, json.loads(text)

    def send(self, verb: str, document: Any) -> tuple[int, dict[str, Any]]:
        return self.run(verb, ["-f", self.site.input(document)])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A site that has answered once, so that its compiled form is there."""
    desk = Desk(tmp_path)
    for name, value in desk.site.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "cwd")
    assert desk.send("getAvailableTemplates", {})[0] == 0
    return desk


def assert_refused(desk: Desk, verb: str, arguments: list[str], *words: str) -> None:
    """Exit 1, one object with a message that has these words, and nothing left behind."""
    events, files = desk.site.events(), desk.site.files()

    status, answer = desk.run(verb, arguments)

    assert status == 1, answer
    assert list(answer) == ["message"]
    for word in words:
        assert word in answer["message"]
    assert "defect" not in answer["message"]
    assert desk.site.events() == events
    assert desk.site.files() == files


NO_DOCUMENT: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\t", "is empty"),
    "no JSON": (b"hello", "line 1 column 1"),
    "half": (b'{"template": {"templateId": "On', "line 1 column"),
    "two documents": (b"{} {}", "line 1 column 4"),
    "trailing comma": (b'{"requests": [],}', "line 1 column"),
    "a list": (b"[]", "an object is needed"),
    "a number": (b"3", "an object is needed"),
    "null": (b"null", "an object is needed"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "NUL bytes": (b"\x00" * 100, "line 1 column 1"),
    "a raw NUL in text": (b'{"a": "\x00"}', "line 1 column"),
    "half a surrogate pair": (b'{"a": "\\ud83d"}', "surrogate"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "a megabyte of brackets": (b"[" * 1_000_000, ""),
    "a number of many digits": (b'{"a": ' + b"9" * 5_000 + b"}", "digits"),
}


@pytest.mark.parametrize("case", NO_DOCUMENT)
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_document_is_refused(desk: Desk, verb: str, case: str) -> None:
    """Each verb names the file and what is wrong with it, and nothing is stored."""
    body, words = NO_DOCUMENT[case]
    path = desk.site.input(body)
    assert_refused(desk, verb, ["-f", path], path, words)


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_that_cannot_be_read_is_refused(desk: Desk, verb: str) -> None:
    """A missing file, a directory and what cannot be a path are named."""
    assert_refused(desk, verb, ["-f", "/nowhere/in"], "/nowhere/in", "No such file")
    assert_refused(desk, verb, ["-f", str(desk.root)], str(desk.root), "Is a directory")
    assert_refused(desk, verb, ["-f", ""], "No such file")
    assert_refused(desk, verb, ["-f", "a\0b"], "cannot be a path")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("arguments", [[], ["-f"], ["in"], ["-x", "in"], ["-f", "in", "more"]])
def test_missing_arguments_are_refused(desk: Desk, verb: str, arguments: list[str]) -> None:
    """The call is `-f FILE` and nothing else; the message says so."""
    assert_refused(desk, verb, arguments, f"{verb}.sh -f FILE")


ASKS: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "template must be an object"),
    "template null": ({"template": None}, "template must be an object"),
    "template text": ({"template": "OnDemand-A"}, "template must be an object"),
    "two templates": ({"template": [{}, {}]}, "template must be an object"),
    "no id": ({"template": {"machineCount": 1}}, "template.templateId must be text, not null"),
    "id a number": ({"template": {"templateId": 3, "machineCount": 1}}, "templateId"),
    "no count": ({"template": {"templateId": "OnDemand-A"}}, "template.machineCount is missing"),
    "unknown": ({"template": {"templateId": "No-Such", "machineCount": 1}}, "'No-Such'"),
    "unknown with NUL": ({"template": {"templateId": "a\0b", "machineCount": 1}}, "not offered"),
    "unknown, not ASCII": ({"template": {"templateId": "Größe-雲", "machineCount": 1}}, "Größe-雲"),
    "a long id": ({"template": {"templateId": "x" * 1_000_000, "machineCount": 1}}, "not offered"),
}
COUNTS = (0, -1, 10**9, 2001, 10**400, -(10**400), True, False, 2.5, 3.0, None, "", "three", "-3")
COUNTS += ("2.5", " 3", "٣", "9" * 5000, [3], {"n": 3}, [[[[[[[[3]]]]]]]])  # type: ignore[assignment]


@pytest.mark.parametrize("case", ASKS)
def test_an_ask_of_the_wrong_shape_is_refused(desk: Desk, case: str) -> None:
    """requestMachines names the place in the input, or the template that is not offered."""
    document, words = ASKS[case]
    assert_refused(desk, "requestMachines", ["-f", desk.site.input(document)], words)


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: repr(count)[:20])
def test_a_count_that_is_no_whole_number_in_the_limit_is_refused(desk: Desk, count: Any) -> None:
    """The message says what a count must be, in a sentence and not in a thousand digits."""
    document = {"template": {"templateId": "OnDemand-A", "machineCount": count}}
    path = desk.site.input(document)
    assert_refused(desk, "requestMachines", ["-f", path], "machineCount")
    assert len(desk.run("requestMachines", ["-f", path])[1]["message"]) < 300


@pytest.mark.parametrize("count", [3, "3", "007"])
def test_a_count_as_text_is_taken(desk: Desk, count: Any) -> None:
    """As IBM's plug-in takes it; fields that we do not know are passed over."""
    document = {
        "template": {"templateId": "OnDemand-A", "machineCount": count, "more": [1]},
        "rc_account": "default",
        "userData": None,
    }
    status, answer = desk.send("requestMachines", document)
    assert status == 0
    (stored,) = desk.site.query(
        "SELECT machine_count FROM requests WHERE request_id = ?", answer["requestId"]
    )
    assert stored == (int(count),)


MACHINES: dict[str, tuple[Any, str]] = {
    "text": ("i-1", "machines must be a list"),
    "null": (None, "machines must be a list"),
    "a list of text": (["i-1"], "machines[0] must be an object"),
    "an empty one": ([{"name": "a"}, {}], "machines[1] must have a name or a machineId"),
    "both empty": ([{"name": "", "machineId": ""}], "machines[0] must have"),
    "id a number": ([{"machineId": 17}], "machines[0].machineId must be text"),
    "id false": ([{"machineId": False, "name": "a"}], "machines[0].machineId must be text"),
    "name a list": ([{"name": ["a"], "machineId": "i-1"}], "machines[0].name must be text"),
    "NUL": ([{"name": "a\0b"}], "machines[0].name must be text"),
    "a line feed": ([{"machineId": "i-1\n"}], "machines[0].machineId must be text"),
    "a megabyte": ([{"name": "a" * 1_000_000}], "machines[0].name must be text of up to 255"),
    "nested": ([{"name": json.loads("[" * 500 + "]" * 500)}], "machines[0].name must be text"),
}


@pytest.mark.parametrize("case", MACHINES)
@pytest.mark.parametrize("verb", HOSTS)
def test_machines_of_the_wrong_shape_are_refused(desk: Desk, verb: str, case: str) -> None:
    """The message names the entry and the field."""
    machines, words = MACHINES[case]
    assert_refused(desk, verb, ["-f", desk.site.input({"machines": machines})], words)


def test_a_return_of_nothing_is_refused(desk: Desk) -> None:
    """IBM answers an empty list so, too."""
    for document in ({}, {"machines": []}):
        path = desk.site.input(document)
        assert_refused(desk, "requestReturnMachines", ["-f", path], "nothing to return")


REQUESTS: dict[str, tuple[Any, str]] = {
    "text": ("req-1", "requests must be a list"),
    "null": (None, "requests must be a list"),
    "a list of text": (["req-1"], "requests[0] must be an object"),
    "no id": ([{"requestId": "a"}, {}], "requests[1].requestId must be text, not null"),
    "id a number": ([{"requestId": 5}], "requests[0].requestId must be text, not 5"),
    "id empty": ([{"requestId": ""}], "requests[0].requestId must be text"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests_of_the_wrong_shape_are_refused(desk: Desk, case: str) -> None:
    """getRequestStatus names the entry and the field."""
    requests, words = REQUESTS[case]
    path = desk.site.input({"requests": requests})
    assert_refused(desk, "getRequestStatus", ["-f", path], words)


@pytest.mark.parametrize(
    "unknown", ["req-" + "0" * 32, "no id at all", "Größe-雲", "a\0b", "'; DROP TABLE events; --"]
)
def test_an_unknown_request_is_told_to_be_unknown(desk: Desk, unknown: str) -> None:
    """Final, with no machines, so that HostFactory stops asking; the known beside it is served."""
    _, asked = desk.send(
        "requestMachines", {"template": {"templateId": "OnDemand-A", "machineCount": 1}}
    )
    known = asked["requestId"]

    status, answer = desk.send(
        "getRequestStatus",
        {"requests": [{"requestId": i} for i in (unknown, known, unknown, known)]},
    )

    assert status == 0
    first, second = answer["requests"]
    assert first == {
        "requestId": unknown,
        "status": "complete_with_error",
        "message": "unknown request",
        "machines": [],
    }
    assert (second["requestId"], second["status"]) == (known, "running")


def test_a_single_object_is_taken_for_a_list_of_one(desk: Desk) -> None:
    """IBM's pages print an object where captures show a list; a list is always answered."""
    status, answer = desk.send("getRequestStatus", {"requests": {"requestId": "x"}})
    assert status == 0
    assert [entry["requestId"] for entry in answer["requests"]] == ["x"]
    status, answer = desk.send("requestReturnMachines", {"machines": {"name": "ip-10-0-0-1"}})
    assert status == 0
    assert answer["requestId"].startswith("ret-")


def test_nothing_asked_is_nothing_answered(desk: Desk) -> None:
    """`{}` and empty lists are no error of the reads."""
    for document in ({}, {"requests": []}):
        assert desk.send("getRequestStatus", document) == (0, {"requests": []})
    for document in ({}, {"machines": []}):
        assert desk.send("getReturnRequests", document) == (0, {"requests": []})


def test_a_megabyte_of_known_shape_is_served(desk: Desk) -> None:
    """10,000 hosts that nobody knows go back in one return, each once, duplicates or not."""
    machines = [{"name": f"ip-10-0-{n // 250}-{n % 250}.ec2.internal"} for n in range(10_000)]
    machines += machines[:500]
    path = desk.site.input({"machines": machines, "padding": "x" * 500_000})
    assert os.path.getsize(path) > 1_000_000

    status, answer = desk.run("requestReturnMachines", ["-f", path])

    assert status == 0
    (row,) = desk.site.query(
        "SELECT machine_count FROM requests WHERE request_id = ?", answer["requestId"]
    )
    assert row == (10_000,)


def test_a_verb_that_is_none_is_refused(desk: Desk) -> None:
    """The scripts have five names; what else is called names itself."""
    assert_refused(desk, "getAvailableMachines", ["-f", desk.site.input({})], "no verb")


def test_a_byte_order_mark_is_passed_over(desk: Desk) -> None:
    """Some editors write one; UTF-8 it is all the same."""
    assert desk.send("getRequestStatus", b"\xef\xbb\xbf{}")[0] == 0
