"""LSF's resource connector: its variables, its places, its files, through the real scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infrastructure.sandbox.server import SandboxProcess, start_process
from tests.processes import ROOT, ProcessSite, wait_until, worker_stopped_at_end


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with start_process(region="eu-central-1", boot_time=0.5, shutdown_time=0.5) as process:
        yield process


@pytest.fixture
def site(tmp_path: Path, sandbox: SandboxProcess) -> Iterator[ProcessSite]:
    """Called as ebrokerd calls: PRO_* and PROVIDER_NAME, files of LSF's shape in conf/ below
    PRO_CONF_DIR, the scripts in scripts/ below scriptPath."""
    (tmp_path / "lsf").mkdir()
    (tmp_path / "lsf/scripts").symlink_to(ROOT / "interfaces/hostfactory/scripts")
    site = ProcessSite(tmp_path, scripts=tmp_path / "lsf/scripts")
    conf = tmp_path / "conf"
    (conf / "conf").mkdir()
    for name in ("awsprov_config.json", "awsprov_templates.json"):
        (conf / name).unlink()
        text = (ROOT / "tests/fixtures/ibm" / name).read_text()
        text = text.replace("ec2.eu-central-1.amazonaws.com", sandbox.url)
        text = text.replace("/opt/cluster/aws", str(tmp_path))
        (conf / "conf" / name).write_text(text)
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = sandbox\naws_secret_access_key = sandbox\n"
    )
    (tmp_path / "join_grid.sh").write_text("#!/bin/sh\n")
    site.environ = {
        "PATH": site.environ["PATH"],
        "PROVIDER_NAME": "awsinst",
        "PRO_LSF_TOP": f"{tmp_path}/lsf",
        "PRO_CONF_DIR": str(conf),
        "PRO_DATA_DIR": f"{tmp_path}/work",
        "PRO_LSF_LOGDIR": f"{tmp_path}/log",
        "SCRIPT_OPTIONS": "",
    }
    with worker_stopped_at_end(site):
        yield site


def ask(site: ProcessSite, template_id: str, count: int, rc_account: str) -> str:
    document = {
        "template": {"templateId": template_id, "machineCount": count},
        "rc_account": rc_account,
        "userData": "ignored=yes",
    }
    answer = site.call("requestMachines", document)
    assert answer.status == 0, answer.text
    return str(answer.document["requestId"])


def test_one_cycle(site: ProcessSite, sandbox: SandboxProcess) -> None:
    """Templates, a request for each of two accounts, status until they run, the hosts looked
    after, the return, and nothing left."""
    offered = site.call("getAvailableTemplates").document["templates"]
    memory = {t["templateId"]: t["attributes"]["mem"] for t in offered}
    assert memory == {
        "Build-Small": ["Numeric", "3072"],
        "Build-Large": ["Numeric", "61440"],
        "OnDemand-Risk": ["Numeric", "16384"],
    }
    assert all(t["attributes"]["nram"] == t["attributes"]["mem"] for t in offered)
    # Listed with maxNumber 0, and refused: LSF's way to take a template out for a while.
    assert [t["maxNumber"] for t in offered] == [0, 6, 100]
    nothing = {"template": {"templateId": "Build-Small", "machineCount": 1}}
    assert "maxNumber 0" in site.call("requestMachines", nothing).failure()
    hostfactory = {"HF_PROVIDER_NAME": "awsinst"}
    plain = site.call("getAvailableTemplates", environ=hostfactory).document["templates"]
    assert ["mem" in t["attributes"] for t in plain] == [True, True, False]

    requests = {
        ask(site, "Build-Large", 2, "night"): "night",
        ask(site, "Build-Large", 1, "day"): "day",
    }
    answers = {request: site.wait_until_final(request) for request in requests}
    live = sandbox.control.live_instances({"hostledger:deployment": site.deployment})
    machines: list[dict[str, Any]] = []
    for request, account in requests.items():
        assert answers[request]["status"] == "complete", answers[request]
        for machine in answers[request]["machines"]:
            assert live[machine["machineId"]]["tags"]["rc_account"] == account
            assert machine["name"] and machine["privateIpAddress"]
            machines.append(machine)
    assert len(machines) == len(live) == 3

    hosts = [{"name": m["name"], "machineId": m["machineId"]} for m in machines]
    assert site.call("getReturnRequests", {"machines": hosts}).document["requests"] == []
    sandbox.control.terminate_behind_back([hosts[0]["machineId"]])

    def told() -> Any:
        return site.call("getReturnRequests", {"machines": hosts}).document["requests"]

    handed_back = site.call("requestReturnMachines", {"machines": hosts}).document
    assert handed_back["requestId"].startswith("ret-")
    assert site.wait_until_final(handed_back["requestId"])["status"] == "complete"
    assert {gone["machineId"] for gone in wait_until(told)} == {h["machineId"] for h in hosts}
    assert sandbox.control.live_instances({"hostledger:deployment": site.deployment}) == {}
    assert site.owned() == set()
