"""Many calls at once: HostFactory promises nobody that its calls do not overlap."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from infrastructure.clock import SystemClock
from tests.processes import Answer, ProcessSite, collect
from tests.world import TEMPLATE

ASK = {"template": {"templateId": "OnDemand-A", "machineCount": 1}}
LONGEST = 2.0
"""Seconds that no call may take because of a lock."""


def mixed(count: int, known: str) -> list[tuple[str, dict[str, Any]]]:
    """`count` calls of all verbs, half of them commands."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("requestMachines", ASK),
        ("getRequestStatus", {"requests": [{"requestId": known}]}),
        ("requestReturnMachines", {"machines": [{"name": "ip-10-0-0-1", "machineId": "i-1"}]}),
        ("getAvailableTemplates", {}),
        ("requestMachines", ASK),
        ("getReturnRequests", {}),
    ]
    return [kinds[n % len(kinds)] for n in range(count)]


def call_together(site: ProcessSite, calls: list[tuple[str, dict[str, Any]]]) -> list[Answer]:
    started = []
    for verb, document in calls:
        began = time.monotonic()
        started.append((site.start(verb, document), began))
    return [collect(process, began) for process, began in started]


@pytest.mark.parametrize("count", [8, 16])
def test_calls_at_once_lose_nothing(tmp_path: Path, count: int) -> None:
    """Every call is answered in time, each command is in the ledger once under its own id, and the
    log has no gap."""
    site = ProcessSite(tmp_path, settings={"HOSTLEDGER_WORKER__MODE": "external"})
    known = site.request(1)
    calls = mixed(count, known) * 3

    answers = []
    for start in range(0, len(calls), count):
        answers += call_together(site, calls[start : start + count])

    assert [answer.text for answer in answers if answer.status != 0] == []
    assert max(answer.seconds for answer in answers) < LONGEST
    ids = [a.document["requestId"] for a in answers if "requestId" in a.document]
    stored = {row[0] for row in site.query("SELECT request_id FROM requests")}
    assert len(set(ids)) == len(ids)
    assert set(ids) | {known} == stored
    positions = [row[0] for row in site.query("SELECT position FROM events ORDER BY position")]
    assert positions == list(range(1, len(positions) + 1))
    seen = (site.state / "seen.jsonl").read_text().split("\n")
    assert all(json.loads(line)["boot"] for line in seen if line)


def test_a_new_template_is_recorded_once_by_many_calls(tmp_path: Path) -> None:
    """The first requests after a change all find the ledger without the revision: one records it,
    and none is turned away for that."""
    site = ProcessSite(tmp_path, settings={"HOSTLEDGER_WORKER__MODE": "external"})
    assert site.call("getAvailableTemplates").status == 0
    for vm_type in ("t3.large", "t3.xlarge", "t3.2xlarge"):
        site.write_templates([{**TEMPLATE, "vmType": vm_type}])
        assert site.call("getAvailableTemplates").status == 0
        answers = call_together(site, [("requestMachines", ASK)] * 12)
        assert [answer.text for answer in answers if answer.status != 0] == []
    revised = site.query("SELECT count(*) FROM events WHERE topic = 'TemplateRevised'")
    assert revised == [(3,)]


def test_one_call_compiles_and_the_others_wait_for_nobody(tmp_path: Path) -> None:
    """The first calls of all share one compilation; after a change the others are served the last
    good form meanwhile."""
    site = ProcessSite(tmp_path, settings={"HOSTLEDGER_WORKER__MODE": "external"})
    (site.root / "conf/awsprov_config.json").write_text('{"NOT_A_KEY": 1}')  # told once a compiling
    answers = call_together(site, [("getAvailableTemplates", {})] * 16)
    assert [answer.text for answer in answers if answer.status != 0] == []
    assert max(answer.seconds for answer in answers) < LONGEST
    assert compilations(site) == 1

    site.write_templates([{**TEMPLATE, "templateId": "New-B"}])
    answers = call_together(site, [("getAvailableTemplates", {})] * 16)
    offered = {a.document["templates"][0]["templateId"] for a in answers}
    assert offered <= {"OnDemand-A", "New-B"}
    assert compilations(site) == 2
    answer = site.call("getAvailableTemplates").document
    assert answer["templates"][0]["templateId"] == "New-B"


def compilations(site: ProcessSite) -> int:
    log = (site.root / "log/hostledger.awsinst.log").read_text()
    return log.count("NOT_A_KEY")


def test_a_held_store_is_waited_for_in_turn(tmp_path: Path) -> None:
    """While another process writes without a pause, commands get their turn."""
    from infrastructure.event_store.sqlite import SqliteEventStore

    site = ProcessSite(tmp_path, settings={"HOSTLEDGER_WORKER__MODE": "external"})
    assert site.call("getAvailableTemplates").status == 0
    store = SqliteEventStore(site.path, SystemClock(), {"user": "test"})
    calls = [(site.start("requestMachines", ASK), time.monotonic()) for _ in range(8)]
    while any(process.poll() is None for process, _ in calls):
        store.write("test", lambda: store.connection.execute("SELECT 1").fetchone())
    answers = [collect(process, began) for process, began in calls]
    store.close()
    assert [answer.text for answer in answers if answer.status != 0] == []
    assert len(site.query("SELECT 1 FROM requests")) == 8
