"""The scripts on stores and directories that are not as they should be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infrastructure.event_store.sqlite_file import sqlite
from tests.processes import VERBS, ProcessSite, fill_disk, obey_file_modes

UNWORKED = {"HOSTLEDGER_WORKER__MODE": "external"}
ASK = {"template": {"templateId": "OnDemand-A", "machineCount": 1}}
GIVE_BACK = {"machines": [{"name": "ip-10-0-0-1", "machineId": "i-1"}]}
DOCUMENTS: dict[str, Any] = {"requestMachines": ASK, "requestReturnMachines": GIVE_BACK}
NEEDS_STORE = [verb for verb in VERBS if verb != "getAvailableTemplates"]
COMMANDS = ("requestMachines", "requestReturnMachines")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ProcessSite]:
    """A site that nobody works for, with one request; its modes are put back for the clean-up."""
    site = ProcessSite(tmp_path, settings=UNWORKED)
    site.request(1)
    yield site
    for directory in (site.state, site.state / "compiled"):
        if directory.exists():
            directory.chmod(0o700)


def call(site: ProcessSite, verb: str, **options: Any) -> Any:
    return site.call(verb, DOCUMENTS.get(verb, {}), **options)


@pytest.mark.parametrize("verb", NEEDS_STORE)
def test_a_missing_store_is_named(tmp_path: Path, verb: str) -> None:
    """An unmounted work directory must not become an empty store: path and command are told."""
    site = ProcessSite(tmp_path, store=False)
    message = call(site, verb).failure()
    assert site.path in message
    assert "hostledger store init" in message
    assert not site.state.exists()


def test_templates_need_no_store(tmp_path: Path) -> None:
    """getAvailableTemplates answers without one, and makes none."""
    site = ProcessSite(tmp_path, store=False)
    answer = site.call("getAvailableTemplates")
    assert [t["templateId"] for t in answer.document["templates"]] == ["OnDemand-A"]
    assert not site.state.exists()


@pytest.mark.parametrize("verb", NEEDS_STORE)
@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_store_that_is_none_is_refused(tmp_path: Path, verb: str, content: bytes) -> None:
    """An empty file and a foreign one: exit 1 naming the path, and the file is left as it is."""
    site = ProcessSite(tmp_path, store=False)
    site.state.mkdir()
    Path(site.path).write_bytes(content)
    message = call(site, verb).failure()
    assert site.path in message
    assert "hostledger store init" in message or "not a database" in message
    assert Path(site.path).read_bytes() == content
    assert site.call("getAvailableTemplates").status == 0


@pytest.mark.parametrize("verb", NEEDS_STORE)
def test_a_copied_store_is_inert(site: ProcessSite, verb: str) -> None:
    """A copy neither answers nor records until it is activated; no worker is started for it."""
    shutil.copy(site.path, site.path + ".copy")
    os.replace(site.path + ".copy", site.path)
    for name in ("-wal", "-shm"):
        Path(site.path + name).unlink(missing_ok=True)
    message = call(site, verb, environ={"HOSTLEDGER_WORKER__MODE": "auto"}).failure()
    assert site.path in message
    assert "hostledger store activate" in message
    assert site.call("getAvailableTemplates").status == 0
    assert site.worker_facts() == {}


def test_a_store_of_another_schema_is_refused(site: ProcessSite) -> None:
    """A newer release's store is not touched: the message says which release to run."""
    connection = sqlite.connect(site.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for verb in NEEDS_STORE:
        assert "schema 99" in call(site, verb).failure()


def test_a_damaged_store_is_told_in_a_sentence(site: ProcessSite) -> None:
    """Pages that were overwritten: exit 1 and the store's name or SQLite's words, no defect."""
    connection = sqlite.connect(site.path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    body = bytearray(Path(site.path).read_bytes())
    body[4096:] = b"\xa5" * (len(body) - 4096)
    with open(site.path, "r+b") as file:
        file.write(body)
    for verb in NEEDS_STORE:
        message = call(site, verb).failure()
        assert "malformed" in message or "damaged" in message, verb
        assert "defect" not in message


# -- a directory that cannot be written -----------------------------------------------------------


def settle(site: ProcessSite) -> None:
    """Bring everything into the main file, as when the last process has closed the store."""
    connection = sqlite.connect(site.path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def test_reads_answer_in_a_read_only_directory(site: ProcessSite) -> None:
    """Reads answer from the file as it is; commands exit 1, say so and record nothing."""
    settle(site)
    (request_id,) = site.query("SELECT request_id FROM requests")[0]
    events, files = site.events(), site.files()
    for name in ("-wal", "-shm"):
        Path(site.path + name).unlink(missing_ok=True)
    site.state.chmod(0o500)

    status = site.call(
        "getRequestStatus", {"requests": [{"requestId": request_id}]}, before=obey_file_modes
    )
    assert status.document["requests"][0]["status"] == "running"
    for verb in ("getAvailableTemplates", "getReturnRequests"):
        assert site.call(verb, before=obey_file_modes).status == 0
    for verb in COMMANDS:
        message = call(site, verb, before=obey_file_modes).failure()
        assert str(site.state) in message
    site.state.chmod(0o700)
    assert (site.events(), site.files()) == (events, files)


def test_no_worker_is_started_where_that_cannot_be_noted(site: ProcessSite) -> None:
    """A read in a read-only directory starts none, or each call would start one more."""
    settle(site)
    for name in ("-wal", "-shm"):
        Path(site.path + name).unlink(missing_ok=True)
    site.state.chmod(0o500)
    environ = {"HOSTLEDGER_WORKER__MODE": "auto"}
    assert site.call("getReturnRequests", before=obey_file_modes, environ=environ).status == 0
    assert site.worker_facts() == {}


def test_commits_that_cannot_be_read_are_not_hidden(site: ProcessSite) -> None:
    """Read-only with commits in the -wal: exit 1, since the main file alone is out of date."""
    holder = sqlite.connect(site.path)
    holder.execute("SELECT count(*) FROM events").fetchone()
    site.request(1)
    kept = site.root / "kept"
    shutil.copy(site.path + "-wal", kept)
    holder.close()
    shutil.copy(kept, site.path + "-wal")
    Path(site.path + "-shm").unlink(missing_ok=True)
    site.state.chmod(0o500)
    message = site.call("getRequestStatus", before=obey_file_modes).failure()
    assert f"{site.path}-wal" in message


def test_new_templates_are_read_in_a_read_only_directory(site: ProcessSite) -> None:
    """Where the compiled form cannot be kept, each call compiles for itself."""
    template = {**document_of(site), "templateId": "New-B"}
    site.write_templates([template])
    (site.state / "compiled").chmod(0o500)
    for _ in range(2):
        answer = site.call("getAvailableTemplates", before=obey_file_modes).document
        assert [t["templateId"] for t in answer["templates"]] == ["New-B"]
        assert "message" not in answer


def document_of(site: ProcessSite) -> dict[str, Any]:
    text = (site.root / "conf/awsprov_templates.json").read_text()
    return dict(json.loads(text)["templates"][0])


# -- a full disk ----------------------------------------------------------------------------------


def test_reads_answer_on_a_full_disk(site: ProcessSite) -> None:
    """Reads answer, with a worker's open store beside them and without; commands exit 1, naming
    the store, and record nothing."""
    (request_id,) = site.query("SELECT request_id FROM requests")[0]
    events = site.events()
    asked = {"requests": [{"requestId": request_id}]}

    def assert_reads_answer() -> None:
        answer = site.call("getRequestStatus", asked, before=fill_disk).document
        assert answer["requests"][0]["status"] == "running"
        for verb in ("getAvailableTemplates", "getReturnRequests"):
            assert site.call(verb, before=fill_disk).status == 0

    holder = sqlite.connect(site.path)
    holder.execute("SELECT count(*) FROM events").fetchone()
    assert_reads_answer()
    for verb in COMMANDS:
        message = call(site, verb, before=fill_disk).failure()
        assert site.path in message
        assert "nothing was recorded" in message
    holder.close()
    settle(site)
    assert_reads_answer()

    assert site.events() == events
    assert call(site, "requestMachines").status == 0, "room again"


def test_the_last_good_form_survives_a_full_disk(site: ProcessSite) -> None:
    """A form that could not be written whole does not take the place of the good one."""
    (form,) = (site.state / "compiled").glob("awsinst-*[0-9a-f]")
    good = form.read_bytes()
    site.write_templates([{**document_of(site), "templateId": "New-B"}])
    answer = site.call("getAvailableTemplates", before=fill_disk).document
    assert [t["templateId"] for t in answer["templates"]] == ["New-B"]
    assert form.read_bytes() == good
    assert [name for name in site.files() if f"compiled/{form.name}." in name] == []
