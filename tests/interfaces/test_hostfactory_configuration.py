"""What the verbs serve while the site's files are half-written, broken, missing or changed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from application.failures import BrokenConfiguration
from infrastructure import compiled
from infrastructure.site import site_from
from infrastructure.templates.instance_types import learn_types, types_file
from interfaces.hostfactory.verbs import run
from tests.processes import ProcessSite
from tests.world import TEMPLATE

BROKEN = {
    "empty": "",
    "half": '{"templates": [{"templateId": "On',
    "no JSON": "templates!",
    "a list": "[]",
    "no templates": '{"template": []}',
    "templates an object": '{"templates": {}}',
}


class Desk:
    """A site in `worker.mode` external whose verbs are called in this process."""

    def __init__(self, root: Path) -> None:
        self.site = ProcessSite(root, settings={"HOSTLEDGER_WORKER__MODE": "external"})
        self.templates = root / "conf/awsprov_templates.json"
        self.config = root / "conf/awsprov_config.json"

    def call(self, verb: str, document: Any = None) -> tuple[int, dict[str, Any]]:
        status, text = run(verb, ["-f", self.site.input(document or {})], "/nowhere/python")
        return status, json.loads(text)

    def offered(self) -> list[str]:
        status, answer = self.call("getAvailableTemplates")
        assert status == 0, answer
        return [template["templateId"] for template in answer["templates"]]

    def ask(self, template_id: str = "OnDemand-A") -> tuple[int, dict[str, Any]]:
        return self.call(
            "requestMachines", {"template": {"templateId": template_id, "machineCount": 1}}
        )

    def form(self) -> Path:
        """The compiled form."""
        return Path(compiled.form_file(site_from(os.environ), os.environ))

    @contextmanager
    def someone_compiling(self) -> Iterator[None]:
        """Within: another call holds the lock."""
        with open(f"{self.form()}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path)
    for name, value in desk.site.environ.items():
        monkeypatch.setenv(name, value)
    return desk


@pytest.mark.parametrize("case", BROKEN)
def test_broken_templates_leave_the_last_good_form(desk: Desk, case: str) -> None:
    """All verbs go on with it and the templates' answer says what is wrong; a corrected file is
    taken over at once."""
    assert desk.offered() == ["OnDemand-A"]
    desk.templates.write_text(BROKEN[case])

    assert desk.offered() == ["OnDemand-A"]
    assert str(desk.templates) in desk.call("getAvailableTemplates")[1]["message"]
    assert desk.ask()[0] == 0
    assert desk.call("getRequestStatus")[0] == 0

    desk.site.write_templates([{**TEMPLATE, "templateId": "New-B"}])
    assert desk.offered() == ["New-B"]
    assert "message" not in desk.call("getAvailableTemplates")[1]
    assert "not offered" in desk.ask("OnDemand-A")[1]["message"]
    assert desk.ask("New-B")[0] == 0


@pytest.mark.parametrize("case", BROKEN)
def test_broken_templates_and_no_good_form(desk: Desk, case: str) -> None:
    """getAvailableTemplates exits 1 and says why, or HostFactory would forget what it has; so does
    a request; what is known is still answered."""
    desk.templates.write_text(BROKEN[case])
    for _ in range(2):  # compiled, then remembered as broken
        status, answer = desk.call("getAvailableTemplates")
        assert status == 1
        assert str(desk.templates) in answer["message"]
        assert desk.call("getRequestStatus") == (0, {"requests": []})
        assert desk.call("getReturnRequests") == (0, {"requests": []})
        status, answer = desk.ask()
        assert status == 1
        assert list(answer) == ["message"]


def test_missing_templates_are_missed_by_name(desk: Desk) -> None:
    """The places that were looked at are told."""
    desk.templates.unlink()
    status, answer = desk.call("getAvailableTemplates")
    assert status == 1
    assert "awsinstprov_templates.json" in answer["message"]
    assert f"{desk.site.root}/conf/conf/awsprov_templates.json" in answer["message"]


def test_templates_that_go_missing_leave_the_last_good_form(desk: Desk) -> None:
    """A file that is being replaced may be gone for a moment."""
    assert desk.offered() == ["OnDemand-A"]
    desk.templates.unlink()
    assert desk.offered() == ["OnDemand-A"]


def test_an_invalid_template_is_left_out(desk: Desk) -> None:
    """The others are served; when none is left exit 1, and never an empty list."""
    bad = {**TEMPLATE, "templateId": "Bad", "maxNumber": "many"}
    desk.site.write_templates([bad, TEMPLATE])
    assert desk.offered() == ["OnDemand-A"]
    for templates in ([bad], []):
        desk.site.write_templates(templates)
        status, answer = desk.call("getAvailableTemplates")
        assert (status, list(answer)) == (1, ["message"])


@pytest.mark.parametrize("text", ["", '{"AWS_REGION": "us-', '{"AWS_REGION": 7}', "[]"])
def test_a_broken_configuration_leaves_the_last_good_form(desk: Desk, text: str) -> None:
    """Requests go on with it; the store and its place are part of it. Without one: exit 1."""
    assert desk.offered() == ["OnDemand-A"]
    good = desk.config.read_text()
    desk.config.write_text(text)
    assert desk.ask()[0] == 0
    assert desk.offered() == ["OnDemand-A"]
    assert str(desk.config) in desk.call("getAvailableTemplates")[1]["message"]

    desk.form().unlink()
    for verb in ("getAvailableTemplates", "getRequestStatus", "requestMachines"):
        for _ in range(2):
            status, answer = desk.call(verb, {"template": {"templateId": "x", "machineCount": 1}})
            assert status == 1
            assert str(desk.config) in answer["message"]

    desk.config.write_text(good)
    assert desk.offered() == ["OnDemand-A"]


def test_a_named_configuration_that_is_missing_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOSTLEDGER_CONFIG is the only place then: nothing else is taken in its stead."""
    monkeypatch.setenv("HOSTLEDGER_CONFIG", "/nowhere/hostledger.json")
    status, answer = desk.call("getAvailableTemplates")
    assert status == 1
    assert "/nowhere/hostledger.json" in answer["message"]


def test_our_own_configuration_may_have_comments(desk: Desk) -> None:
    """hostledger.json beside IBM's files counts more than they do."""
    own = desk.site.root / "conf/hostledger.json"
    own.write_text('{\n// local disk\n"storage": {"sqlite_strategy": {"path": "/nowhere/l.db"}}\n}')
    status, answer = desk.call("getRequestStatus")
    assert status == 1
    assert "/nowhere/l.db" in answer["message"]


def test_others_are_served_while_one_compiles(desk: Desk) -> None:
    """While the lock is held the last good form is served, with a note; afterwards the new one."""
    assert desk.offered() == ["OnDemand-A"]
    desk.site.write_templates([{**TEMPLATE, "templateId": "New-B"}])
    with desk.someone_compiling():
        assert desk.offered() == ["OnDemand-A"]
        assert "changed" in desk.call("getAvailableTemplates")[1]["message"]
        assert desk.ask()[0] == 0
    assert desk.offered() == ["New-B"]


def test_a_change_of_any_kind_is_seen(desk: Desk) -> None:
    """The same size, an older time, another inode: each makes another key."""
    assert desk.offered() == ["OnDemand-A"]
    text = desk.templates.read_text()
    desk.templates.write_text(text.replace("OnDemand-A", "OnDemand-B"))
    assert desk.offered() == ["OnDemand-B"]
    beside = desk.templates.with_suffix(".new")
    beside.write_text(text.replace("OnDemand-A", "OnDemand-C"))
    os.utime(beside, ns=(0, desk.templates.stat().st_mtime_ns))
    os.replace(beside, desk.templates)
    assert desk.offered() == ["OnDemand-C"]


def test_a_form_that_is_not_whole_is_made_anew(desk: Desk) -> None:
    """A torn compiled form, or one of another release, is no form."""
    assert desk.offered() == ["OnDemand-A"]
    whole = desk.form().read_bytes()
    for torn in (b"", whole[: len(whole) // 2], whole[:-2], b"\xff" * 100):
        desk.form().write_bytes(torn)
        assert desk.offered() == ["OnDemand-A"]
        assert desk.form().read_bytes() == whole


def test_files_that_templates_name_are_watched_too(desk: Desk) -> None:
    """A specification beside the templates, and the facts of instance types, when they change."""
    bare = {name: value for name, value in TEMPLATE.items() if name != "attributes"}
    more = {"templateId": "Native", "provider_api_spec_file": "more.json"}
    desk.site.write_templates([{**bare, "vmType": "m5.large"}, TEMPLATE | more])
    facts = {"vcpus": 2, "cores": 1, "memory": 8192, "architectures": ["x86_64"]}
    status, _ = desk.call("getAvailableTemplates")
    assert status == 1

    desk.templates.with_name("more.json").write_text('{"Monitoring": {"Enabled": true}}')
    assert desk.offered() == ["Native"]
    learn_types(
        types_file(str(desk.form().parent.parent)), ["m5.large"], lambda _: {"m5.large": facts}
    )
    assert desk.offered() == ["OnDemand-A", "Native"]
    desk.templates.with_name("more.json").write_text("{")
    assert desk.offered() == ["OnDemand-A"]


def test_templates_that_could_never_be_read_are_not_taken_for_none(desk: Desk) -> None:
    """The worker must not retire every template because the file is being edited."""
    desk.templates.write_text("{")
    form = compiled.load(site_from(desk.site.environ), desk.site.environ)
    with pytest.raises(BrokenConfiguration, match="awsprov_templates"):
        form.templates()


def test_one_revision_is_recorded_however_often_it_is_asked_for(desk: Desk) -> None:
    """The next command after a change records the content's digest, once."""
    for vm_type in ("t3.medium", "t3.medium", "t3.large", "t3.medium"):
        desk.site.write_templates([{**TEMPLATE, "vmType": vm_type}])
        assert desk.ask()[0] == 0
        assert desk.ask()[0] == 0
    revisions = [
        json.loads(data)["revision"]
        for (data,) in desk.site.query(
            "SELECT data FROM events WHERE topic = 'TemplateRevised' ORDER BY position"
        )
    ]
    assert len(revisions) == 3
    assert revisions[0] == revisions[2] != revisions[1]
