"""The scripts and the worker that they start: real processes, EC2 is a sandbox process."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from application.version import VERSION
from infrastructure import worker_start
from infrastructure.clock import SystemClock
from infrastructure.event_store.sqlite_file import sqlite
from infrastructure.sandbox.server import SandboxProcess, start_process
from infrastructure.site import site_from
from interfaces.write_side.container import WriteSide
from tests.processes import (
    ROOT,
    ProcessSite,
    is_running,
    wait_until,
    worker_stopped_at_end,
)

ASK = {"template": {"templateId": "OnDemand-A", "machineCount": 1}}
INLINE = {"HOSTLEDGER_WORKER__MODE": "inline"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with start_process(region="eu-central-1", boot_time=0.5, shutdown_time=0.5) as process:
        yield process


@pytest.fixture
def site(tmp_path: Path, sandbox: SandboxProcess) -> Iterator[ProcessSite]:
    """A site in `worker.mode` auto; a worker that it started is ended by its pid."""
    sandbox.control.clear_faults()
    with worker_stopped_at_end(ProcessSite(tmp_path, sandbox.url)) as site:
        site.write_config({"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": sandbox.url})
        yield site


def live(sandbox: SandboxProcess, site: ProcessSite) -> set[str]:
    return set(sandbox.control.live_instances({"hostledger:deployment": site.deployment}))


def give_back(site: ProcessSite, machines: list[dict[str, Any]]) -> dict[str, Any]:
    named = [{"machineId": m["machineId"], "name": m["name"]} for m in machines]
    answer = site.call("requestReturnMachines", {"machines": named})
    assert answer.status == 0, answer.text
    return site.wait_until_final(answer.document["requestId"])


def test_a_cycle_with_files_of_ibms_shape(
    tmp_path: Path, sandbox: SandboxProcess, site: ProcessSite
) -> None:
    """IBM-shaped configuration and templates, real scripts, a worker that they start: machines
    come, are named among the hosts, go, and nothing is left."""
    for name in ("awsprov_config.json", "awsprov_templates.json"):
        shutil.copy(ROOT / "tests/fixtures/ibm" / name, site.root / "conf" / name)
    config = site.root / "conf/awsprov_config.json"
    text = config.read_text().replace("ec2.eu-central-1.amazonaws.com", sandbox.url)
    text = text.replace("/opt/cluster/aws/credentials", f"{tmp_path}/credentials")
    config.write_text(text)
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = sandbox\naws_secret_access_key = sandbox\n"
    )
    (tmp_path / "join_grid.sh").write_text("#!/bin/sh\n")
    templates = site.root / "conf/awsprov_templates.json"
    templates.write_text(
        templates.read_text().replace("/opt/cluster/aws/join_grid.sh", f"{tmp_path}/join_grid.sh")
    )

    offered = site.call("getAvailableTemplates").document["templates"]
    assert [t["templateId"] for t in offered] == ["Build-Small", "Build-Large", "OnDemand-Risk"]
    assert offered[0]["attributes"]["nram"] == ["Numeric", "3072"]
    nothing = {"template": {"templateId": "Build-Small", "machineCount": 1}}
    assert "maxNumber 0" in site.call("requestMachines", nothing).failure()
    assert site.worker_facts() == {}, "nothing is open: nobody is started"

    first = site.request(2, "OnDemand-Risk")
    second = site.request(3, "Build-Large")
    answers = [site.wait_until_final(request_id) for request_id in (first, second)]

    machines = [machine for answer in answers for machine in answer["machines"]]
    assert [answer["status"] for answer in answers] == ["complete", "complete"]
    assert len({m["machineId"] for m in machines}) == 5
    assert all(m["result"] == "succeed" and m["privateIpAddress"] for m in machines)
    assert all(isinstance(m["launchtime"], int) and m["name"] for m in machines)
    assert live(sandbox, site) == site.owned() == {m["machineId"] for m in machines}
    hosts = [{"name": m["name"], "machineId": m["machineId"]} for m in machines]
    hosts.append({"name": "ip-10-9-9-9.ec2.internal", "machineId": "i-0123456789abcdef0"})
    to_give_up = site.call("getReturnRequests", {"machines": hosts}).document
    assert to_give_up["requests"] == [
        {
            "machine": "ip-10-9-9-9.ec2.internal",
            "machineId": "i-0123456789abcdef0",
            "gracePeriod": 0,
        }
    ]

    returned = give_back(site, machines)

    assert returned["status"] == "complete"
    assert {m["result"] for m in returned["machines"]} == {"succeed"}
    assert live(sandbox, site) == site.owned() == set()
    pid = site.worker_pid()
    assert pid
    site.stop_worker()
    assert not is_running(pid)


def test_a_started_worker_is_on_its_own(site: ProcessSite) -> None:
    """The script's output ends at once; the worker has its own session, `/`, no descriptor of the
    caller's, and none of its PYTHON* and LD_*."""
    answer = site.call(
        "requestMachines",
        ASK,
        environ={"PYTHONPATH": "/nowhere", "LD_BIND_NOW": "1", "KEPT": "yes"},
    )
    assert answer.seconds < 2, "the output is at its end although the worker lives on"
    pid = wait_until(site.worker_pid)

    proc = Path(f"/proc/{pid}")
    assert os.getsid(pid) not in (os.getsid(0), 0)
    assert os.readlink(proc / "cwd") == "/"
    environ = (proc / "environ").read_bytes().split(b"\0")
    assert b"KEPT=yes" in environ
    assert not [e for e in environ if e.startswith((b"PYTHON", b"LD_"))]
    files = {}
    for fd in os.listdir(proc / "fd"):
        with suppress(FileNotFoundError):  # the log, which it opens for each line
            files[fd] = os.readlink(proc / "fd" / fd)
    assert files["0"] == files["1"] == "/dev/null"
    assert files["2"].startswith(str(site.state))
    assert not [f for f in files.values() if f.startswith("pipe:")]


def test_places_told_relatively_reach_the_worker(site: ProcessSite) -> None:
    """The worker's directory is `/`: what was meant from the caller's is told in full."""
    config = site.root / "own.json"
    config.write_text('{"provider": {"fulfilment_deadline": 200}}')
    names = {"CONFDIR": "../conf", "WORKDIR": "../work", "LOGDIR": "../log"}
    environ = {f"HF_PROVIDER_{name}": place for name, place in names.items()}
    environ["HOSTLEDGER_CONFIG"] = "../own.json"
    assert site.call("requestMachines", ASK, environ=environ).status == 0
    pid = wait_until(site.worker_pid)
    told = (Path(f"/proc/{pid}/environ")).read_bytes().split(b"\0")
    assert f"HF_PROVIDER_WORKDIR={site.root}/work".encode() in told
    assert f"HOSTLEDGER_CONFIG={config}".encode() in told


def test_reads_start_a_worker_only_for_work(site: ProcessSite) -> None:
    """With nothing open or alive none of the reads starts one; with an open request each does."""
    reads = ("getAvailableTemplates", "getRequestStatus", "getReturnRequests")
    for verb in reads:
        assert site.call(verb).status == 0
    assert site.worker_facts() == {}

    site.call("requestMachines", ASK, environ={"HOSTLEDGER_WORKER__MODE": "external"})
    assert site.worker_facts() == {}
    assert site.call("getAvailableTemplates").status == 0
    assert wait_until(site.worker_pid)


def test_many_calls_start_one_worker(site: ProcessSite) -> None:
    """16 calls at once that all find work start one worker between them."""
    calls = [site.start("requestMachines", ASK) for _ in range(16)]
    for process in calls:
        process.communicate(timeout=60)
        assert process.returncode == 0
    pid = wait_until(site.worker_pid)
    assert workers_of(site) == [pid]


def test_one_call_at_a_time_starts_a_worker(site: ProcessSite) -> None:
    """Who meets another call that is just starting one leaves it to that call."""
    with held(site.state / "worker.json.lock"):
        assert site.call("requestMachines", ASK).status == 0
        assert site.worker_facts() == {}
    assert site.call("getRequestStatus").status == 0
    assert wait_until(site.worker_pid)


def workers_of(site: ProcessSite) -> list[int]:
    """The pids of all processes that were started as this site's worker."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            command = (proc / "cmdline").read_bytes()
            environ = (proc / "environ").read_bytes()
        except OSError:
            continue
        if b"interfaces.worker.main" in command and f"{site.root}/work".encode() in environ:
            found.append(int(proc.name))
    return found


# -- a worker that does not come ------------------------------------------------------------------


def write_facts(site: ProcessSite, **facts: Any) -> None:
    """What a worker (or its start) left, `ago` seconds ago."""
    now = SystemClock().now()
    for name in ("alive", "tried"):
        if name in facts:
            facts[name] = now[2] - facts[name]
    text = json.dumps({"boot_id": now[1], "version": VERSION, **facts})
    (site.state / "worker.json").write_text(text)


def test_a_start_that_fails_is_told_and_not_repeated_at_once(site: ProcessSite) -> None:
    """The reason is kept; the next start waits 30 s, then twice as long each time, to 10 min."""
    site.write_config({})  # no region: the worker cannot start
    site.call("requestMachines", ASK)
    facts = wait_until(lambda: site.worker_facts().get("reason") and site.worker_facts())
    assert "AWS_REGION" in facts["reason"]
    assert facts["failures"] == 1

    for failures, waited in ((1, 29), (2, 59), (3, 119), (5, 479), (6, 599), (60, 599)):
        write_facts(site, failures=failures, tried=waited, reason="it broke")
        assert site.call("getRequestStatus").status == 0
        assert site.worker_facts()["failures"] == failures, "not yet"
    write_facts(site, failures=2, tried=61, reason="it broke")
    site.call("getRequestStatus")
    assert site.worker_facts()["failures"] == 3


@pytest.mark.parametrize("verb", ["getAvailableTemplates", "getRequestStatus", "requestMachines"])
def test_every_answer_says_when_no_worker_has_lived(site: ProcessSite, verb: str) -> None:
    """After a minute, with the reason, when something is open; before that, and when nothing is
    open, nobody is alarmed."""
    external = {"HOSTLEDGER_WORKER__MODE": "external"}
    document = ASK if verb == "requestMachines" else {}

    def message(**options: Any) -> str:
        return str(site.call(verb, document, **options).document.get("message", ""))

    write_facts(site, alive=3600, ended=True)
    assert "no worker" not in message(environ=external), "nothing was open in that hour"
    site.request_unworked(ASK)
    assert "no worker" not in message(environ=external), "it is open for a moment only"
    age_requests(site, 70)
    told = message(environ=external)
    assert "no worker has lived for 7" in told
    assert "worker.mode is external" in told
    write_facts(site, alive=65, tried=20, failures=1, reason="no credentials")
    assert "no worker has lived for 65 s: no credentials" in message()
    write_facts(site, alive=50, tried=20, failures=1, reason="no credentials")
    assert "no worker" not in message()


def age_requests(site: ProcessSite, seconds: float) -> None:
    """As if the requests were older: the read model's rows are put back in time."""
    connection = sqlite.connect(site.path, isolation_level=None)
    connection.execute("UPDATE requests SET boot_seconds = boot_seconds - ?", (seconds,))
    connection.close()


def test_a_python_that_cannot_run_is_the_reason(site: ProcessSite, tmp_path: Path) -> None:
    """What went wrong before the worker could speak is told too."""
    home = tmp_path / "v/bin"
    home.mkdir(parents=True)
    (home / "python").write_text("#!/nowhere/interpreter\n")
    (home / "python").chmod(0o755)
    place = site_from(site.environ)
    worker_start.start(place, f"{home}/python", site.environ, SystemClock().now())
    reason = wait_until(lambda: worker_start.reason(place, worker_start.status(place)))
    assert f"{home}/python cannot be run" in reason


def test_external_starts_nothing(site: ProcessSite) -> None:
    """`worker.mode` external: a service runs the worker, no script does."""
    site.environ["HOSTLEDGER_WORKER__MODE"] = "external"
    request_id = site.request(1)
    site.status_of(request_id)
    assert site.worker_facts() == {}
    assert workers_of(site) == []


def test_a_newer_release_starts_its_own_worker(site: ProcessSite) -> None:
    """A living worker of an older release is joined by ours, which asks it to end; one of this
    release or a newer one is left alone."""
    site.environ["HOSTLEDGER_WORKER__MODE"] = "external"
    site.request(1)
    site.environ["HOSTLEDGER_WORKER__MODE"] = "auto"
    with held(site.state / "worker.lock"):  # it lives
        for version in (VERSION, "99.0"):
            write_facts(site, alive=0, version=version, pid=1)
            site.call("getRequestStatus")
            assert "tried" not in site.worker_facts()
        write_facts(site, alive=0, version="0.0.9", pid=1)
        site.call("getRequestStatus")
        facts = wait_until(lambda: (f := site.worker_facts()).get("version") == VERSION and f)
    assert is_running(facts["pid"])


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Within: another process holds the lock."""
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- inline ---------------------------------------------------------------------------------------


def test_a_cycle_without_a_worker(site: ProcessSite, sandbox: SandboxProcess) -> None:
    """`worker.mode` inline: each call takes a turn; there is no second process at any time."""
    site.environ.update(INLINE)
    answer = site.wait_until_final(site.request(2))
    assert answer["status"] == "complete"
    hosts = [{"name": m["name"], "machineId": m["machineId"]} for m in answer["machines"]]
    assert live(sandbox, site) == {host["machineId"] for host in hosts}

    sandbox.control.terminate_behind_back([hosts[0]["machineId"]])
    gone = {"name": "ip-10-9-9-9.ec2.internal", "machineId": "i-0123456789abcdef0"}
    calls = site.call("getReturnRequests", {"machines": [*hosts, gone]})
    assert gone["machineId"] in [r["machineId"] for r in calls.document["requests"]]

    assert give_back(site, answer["machines"])["status"] == "complete"
    assert live(sandbox, site) == site.owned() == set()
    assert workers_of(site) == []


def test_a_turn_that_fails_loses_no_answer(site: ProcessSite) -> None:
    """The request is recorded and answered whatever becomes of the turn; the next answer says why
    it failed, and the one after a good turn does not."""
    site.environ.update(INLINE)
    good = (site.root / "conf/awsprov_config.json").read_text()
    site.write_config({})
    request_id = site.request(1)
    told = site.call("getRequestStatus", {"requests": [{"requestId": request_id}]}).document
    assert "AWS_REGION" in told["message"]
    (site.root / "conf/awsprov_config.json").write_text(good)
    assert site.wait_until_final(request_id)["status"] == "complete"
    assert "message" not in site.call("getRequestStatus").document


def test_a_turn_makes_one_attempt_within_its_budget(
    site: ProcessSite, sandbox: SandboxProcess
) -> None:
    """EC2 that does not answer holds a call for its budget at most; the same token goes out again
    with the next call, and one machine lives."""
    site.environ.update(INLINE, HOSTLEDGER_WORKER__TURN_BUDGET="2")
    sandbox.control.add_fault("hang", action="RunInstances", times=1)
    before = len(sandbox.control.calls())
    answer = site.call("requestMachines", ASK)
    assert answer.status == 0
    assert answer.seconds < 6
    launches = [c for c in sandbox.control.calls()[before:] if c["action"] == "RunInstances"]
    assert len(launches) == 1

    assert site.wait_until_final(answer.document["requestId"])["status"] == "complete"

    calls = [c for c in sandbox.control.calls()[before:] if c["action"] == "RunInstances"]
    assert len({call["client_token"] for call in calls}) == 1
    assert len(live(sandbox, site)) == 1


def test_a_call_without_the_lease_answers_and_leaves_aws_alone(
    site: ProcessSite, sandbox: SandboxProcess
) -> None:
    """Another process acts: this call records, answers and makes no AWS call."""
    place = site_from(site.environ)
    side = WriteSide(site=place, environ=site.environ)
    assert side.lease().acquire()
    try:
        before = len(sandbox.control.calls())
        answer = site.call("requestMachines", ASK, environ=INLINE)
        assert answer.status == 0
        assert "message" not in site.call("getRequestStatus", environ=INLINE).document
        assert len(sandbox.control.calls()) == before
    finally:
        side.lease().release()
        side.store().close()


def test_a_store_on_another_disk_is_worked_on(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """`storage.sqlite_strategy.path` leads elsewhere: the scripts start a worker all the same, and
    what goes with a store lies beside it."""
    elsewhere = tmp_path / "local" / "ledger.db"
    site = ProcessSite(
        tmp_path / "site",
        sandbox.url,
        settings={"HOSTLEDGER_STORAGE__SQLITE_STRATEGY__PATH": str(elsewhere)},
        store=False,
    )
    site.write_config({"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": sandbox.url})
    made = subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", "store", "init"],
        env={**site.environ, "XDG_CONFIG_HOME": str(tmp_path / "user")},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    site.state = elsewhere.parent
    with worker_stopped_at_end(site):
        answer = site.wait_until_final(site.request(1))
        assert answer["status"] == "complete"
        assert give_back(site, answer["machines"])["status"] == "complete"
        beside = {path.name for path in elsewhere.parent.iterdir()}
        assert {"ledger.db", "worker.json", "worker.lock", "worker.err"} <= beside
        assert list((tmp_path / "site/work/hostledger/compiled").iterdir())


def test_an_inline_call_asks_a_silent_ec2_once(site: ProcessSite, sandbox: SandboxProcess) -> None:
    """getReturnRequests sweeps by itself, at most once: it gives up with exit 1."""
    sandbox.control.add_fault("reset_before", action="DescribeInstances", times=-1)
    hosts = {"machines": [{"machineId": "i-0123456789abcdef0", "name": "ip-10-9-9-9"}]}

    message = site.call("getReturnRequests", hosts, environ=INLINE).failure()

    assert "EC2 could not be asked" in message
    swept = [call["params"].get("Filter.1.Value.1") for call in sandbox.control.calls()]
    assert swept.count(site.deployment) == 1
