"""kill -9 at every named point of every process: after the restart nothing is lost, leaked or doubled.

The processes are real (forked), the SIGKILL is real, the store is a file and EC2 is the sandbox
over HTTP. Only the clock is shared memory that moves when it is told to, so that deadlines and
settling take no real time.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers

from application import crash_points
from application.instants import Instant
from domain.topics import TOPICS
from infrastructure.sandbox.server import listen
from interfaces.worker.loop import Worker
from tests.world import TEMPLATE, World

ROOT = Path(__file__).resolve().parents[2]


class SharedClock:
    """The port `Clock` in memory that forked processes share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self._memory[:] = struct.pack("d", 1000.0)

    @property
    def seconds(self) -> float:
        return float(struct.unpack("d", self._memory[:])[0])

    def now(self) -> Instant:
        return (1_800_000_000.0 + self.seconds, "boot-1", self.seconds)

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._memory[:] = struct.pack("d", self.seconds + seconds)


class Site(World):
    """A World whose scripts and workers are forked processes and whose EC2 answers over HTTP."""

    def __init__(self, root: Path, templates: list[dict[str, Any]], **sandbox: Any) -> None:
        super().__init__(root, templates, **sandbox)
        self.clock = SharedClock()  # type: ignore[assignment]
        self.server = listen(self.sandbox)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()
        endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.write_config(
            {
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_TAG_InstanceID": True,
                "AWS_DESCRIBE_REQUEST_RETRY_ATTEMPTS": 0,
            }
        )
        self.asked: list[str] = []
        self.hosts: list[dict[str, str]] = []
        self.refused: list[str] = []

    def start_worker(self, **_overrides: Any) -> Worker:  # type: ignore[override]
        worker = Worker(
            self.site,
            self.environ,
            clock=providers.Object(self.clock),
            random=providers.Object(os.urandom),
        )
        self.workers.append(worker)
        return worker

    def process(self, work: Callable[[], Any], crash_at: str = "") -> tuple[bool, Any]:
        """Run `work` in a process of its own: (whether it survived, what it returned).

        Names of the points that it reached are kept in `self.reached`.
        """
        answer = self.root / "answer"
        answer.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                crash_points.crash_at(crash_at)
                crash_points.reached = set()
                result = work()
                answer.write_text(json.dumps([result, sorted(crash_points.reached)]))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return False, None
        assert status == 0, "the process failed: see its trace above"
        result, reached = json.loads(answer.read_text())
        self.reached |= set(reached)
        return True, result

    reached: set[str] = set()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
        super().close()


def drive(site: Site, work: Callable[[Site], Any], crash_at: str) -> bool:
    """One process to its end; when it is killed, another one does the same again. Whether it was."""
    survived, _ = site.process(lambda: work(site), crash_at)
    if not survived:
        survived_again, _ = site.process(lambda: work(site))
        assert survived_again
    return not survived


# -- what the processes do ------------------------------------------------------------------------


def ask(site: Site) -> None:
    """HostFactory's call; killed before its answer, it is made again under another id."""
    request_id = site.request(3)
    with (site.root / "asked").open("a") as file:
        file.write(request_id + "\n")


def known_ids(site: Site) -> list[str]:
    path = site.root / "asked"
    return path.read_text().split() if path.exists() else []


def poll(site: Site) -> Callable[[], None]:
    """HostFactory's round every 30 s: the status of what it knows, and its hosts."""
    last = [0.0]

    def once() -> None:
        if site.clock.seconds - last[0] < 30:
            return
        last[0] = site.clock.seconds
        entries = [site.status(request_id) for request_id in known_ids(site)]
        for entry in entries:
            assert entry["message"] != "unknown request"
            assert sum(m["result"] == "succeed" for m in entry["machines"]) <= 3
        hosts = [m for e in entries for m in e["machines"] if m["result"] == "succeed"]
        if hosts:
            site.call(
                "getReturnRequests", {"machines": [{"machineId": m["machineId"]} for m in hosts]}
            )

    return once


def work_until(condition: Callable[[Site], bool], seconds: float) -> Callable[[Site], None]:
    """A worker, and HostFactory polling, until the condition holds and nothing is open."""

    def work(site: Site) -> None:
        site.start_worker()
        done = site.run(seconds, lambda: condition(site), step=2.0, poll=poll(site))
        assert done, site.query("SELECT * FROM requests WHERE final = 0")
        for worker in list(site.workers):
            worker.end()
            site.workers.remove(worker)

    return work


def work_for(seconds: float) -> Callable[[Site], None]:
    """A worker for so long, HostFactory polling."""

    def work(site: Site) -> None:
        end = site.clock.seconds + seconds
        work_until(lambda s: s.clock.seconds >= end, seconds + 10)(site)

    return work


def answered(site: Site) -> bool:
    """Every request that HostFactory knows is final, and it has been told and polled since."""
    return all(site.status(request_id)["status"] != "running" for request_id in known_ids(site))


def give_back(site: Site) -> None:
    machines = [
        machine
        for request_id in known_ids(site)
        for machine in site.status(request_id)["machines"]
        if machine["result"] == "succeed"
    ]
    if machines:
        site.give_back(machines)


def at_rest(site: Site) -> bool:
    """Nothing is open, and what nobody knows of has been ended: no instance lives."""
    (open_,) = site.query("SELECT count(*) FROM requests WHERE final = 0")[0]
    (alive,) = site.query("SELECT count(*) FROM machines WHERE alive = 1")[0]
    return not open_ and not alive


def cycle(site: Site, crash_at: str) -> bool:
    """Ask, wait, hold the machines for a while, return, wait."""
    steps = (
        work_until(lambda s: bool(s.query("SELECT 1 FROM templates")), 60),
        ask,
        work_until(answered, 900),
        work_for(70),
        give_back,
        work_until(at_rest, 3000),
    )
    return any([drive(site, step, crash_at) for step in steps])


def shortage(site: Site, crash_at: str) -> bool:
    """The only pool has one machine, then none: a partial outcome, a rejection, a partial answer."""
    site.sandbox.add_fault("cap", action="RunInstances", limit=1)
    site.sandbox.add_fault(
        "error",
        action="RunInstances",
        from_call=2,
        times=-1,
        code="InsufficientInstanceCapacity",
        message="no capacity",
        status=500,
    )
    return cycle(site, crash_at)


def refusal(site: Site, crash_at: str) -> bool:
    """AWS refuses the launch for good: the request fails."""
    site.sandbox.add_fault(
        "error", action="RunInstances", times=-1, code="UnauthorizedOperation", message="no"
    )
    return cycle(site, crash_at)


def doubt(site: Site, crash_at: str) -> bool:
    """The launch is done but its answer lost, and its token refused afterwards: settled by tag."""
    site.sandbox.add_fault("lost_response", action="RunInstances")
    site.sandbox.add_fault(
        "error",
        action="RunInstances",
        times=3,
        code="IdempotentParameterMismatch",
        message="other parameters",
    )
    return cycle(site, crash_at)


def protected(site: Site, crash_at: str) -> bool:
    """A machine is protected for a while: its termination is refused, reported, and done later."""
    killed = any([drive(site, step, crash_at) for step in (ask, work_until(answered, 900))])
    (machine_id,) = site.query("SELECT min(machine_id) FROM machines WHERE alive = 1")[0]
    site.sandbox.protect([machine_id])
    killed |= drive(site, give_back, crash_at)
    killed |= drive(site, work_until(lambda s: s.query(RETURNS_OPEN) == [(0,)], 1500), crash_at)
    site.sandbox.protect([machine_id], on=False)
    return killed | drive(site, work_until(at_rest, 3000), crash_at)


RETURNS_OPEN = "SELECT count(*) FROM requests WHERE final = 0 AND kind = 'return'"


def vanished(site: Site, crash_at: str) -> bool:
    """Machines end behind our back and are forgotten by EC2 while no worker lives: lost."""
    killed = any([drive(site, step, crash_at) for step in (ask, work_until(answered, 900))])
    site.sandbox.terminate_behind_back(sorted(site.live()))
    site.clock.advance(4000)
    return killed | drive(site, work_until(at_rest, 3000), crash_at)


def withdrawn(site: Site, crash_at: str) -> bool:
    """HostFactory never names a request that is still open: cancelled, its machine goes back."""
    site.sandbox.add_fault("cap", action="RunInstances", limit=1)
    site.sandbox.add_fault("throttle", action="RunInstances", from_call=2, times=-1)
    survived, request_id = site.process(lambda: site.request(3, "OnDemand-B"))
    assert survived and request_id

    def calls(s: Site) -> None:
        last = [0.0]

        def other_calls() -> None:
            if s.clock.seconds - last[0] >= 30:
                last[0] = s.clock.seconds
                s.call("getReturnRequests", {})

        s.start_worker()
        assert s.run(3000, lambda: at_rest(s), step=2.0, poll=other_calls)

    return drive(site, calls, crash_at)


def new_templates(site: Site, crash_at: str) -> bool:
    """The site's templates change: one is revised, one retired."""
    site.process(lambda: work_for(5)(site))
    site.write_templates([{**VOLUME, "maxNumber": 7}])
    retired = "SELECT count(*) FROM templates WHERE retired = 1"
    return drive(site, work_until(lambda s: s.query(retired) == [(1,)], 60), crash_at)


VOLUME = {**TEMPLATE, "rootDeviceVolumeSize": 20}
SCENARIOS = (
    cycle,
    shortage,
    refusal,
    doubt,
    protected,
    vanished,
    withdrawn,
    new_templates,
)
TIMES = ("before", "after")
COMMITS = (
    "TemplateRevised", "TemplateRetired", "MachinesRequested", "MachinesReturned",
    "RequestCancelled", "LaunchIntended", "LaunchAccepted", "LaunchRejected", "LaunchSettled",
    "MachinesAssigned", "RequestFellShort", "MachineRunning", "MachineReturned",
    "MachineTerminated", "MachineLost", "TerminationIntended", "TerminationAccepted",
    "TerminationRefused", "RequestFulfilled", "RequestPartlyFulfilled", "RequestFailed",
    "ReturnCompleted", "ReturnPartlyRefused", "RequestsSeen", "MachinesSeen", "tracking", "lease",
    "notebook",
)  # fmt: skip
CALLS = ("RunInstances", "DescribeInstances", "TerminateInstances", "CreateTags", "DescribeImages")
POINTS = (
    *(f"commit.{name}.{time}" for name in COMMITS for time in TIMES),
    *(f"aws.{name}.{time}" for name in CALLS for time in TIMES),
    "worker.turn",
    "answer.requestMachines",
    "answer.requestReturnMachines",
)
"""Every point there is, each with the first scenario that reaches it (`reaching`)."""


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    sites: list[Site] = []

    def make() -> Site:
        site = Site(
            tmp_path / f"site-{len(sites)}",
            [VOLUME, {**TEMPLATE, "templateId": "OnDemand-B", "fulfilmentDeadline": 5000}],
            boot_time=10.0,
            shutdown_time=5.0,
        )
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.close()


REACHING = {
    "commit.TemplateRetired": new_templates,
    "commit.RequestCancelled": withdrawn,
    "commit.LaunchRejected": shortage,
    "commit.LaunchSettled": doubt,
    "commit.RequestFellShort": refusal,
    "commit.MachineLost": vanished,
    "commit.tracking": shortage,
    "commit.TerminationRefused": protected,
    "commit.RequestPartlyFulfilled": shortage,
    "commit.RequestFailed": refusal,
    "commit.ReturnPartlyRefused": protected,
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point: str, make_site: Callable[[], Site]) -> None:
    """SIGKILL at the point, restart: EC2 and the ledger agree, nothing lives on, nothing doubled."""
    site = make_site()
    scenario = REACHING.get(point.rpartition(".")[0], cycle)

    assert scenario(site, point), f"{point} was never reached"

    site.assert_agreement()
    assert site.live() == set()
    for request_id in known_ids(site):
        assert site.status(request_id)["message"] != "unknown request"


def test_every_point_is_registered(make_site: Callable[[], Site]) -> None:
    """The points that all scenarios reach are those of the list: a new one must be added to it."""
    reached: set[str] = set()
    for scenario in SCENARIOS:
        site = make_site()
        site.reached = set()
        scenario(site, "")
        reached |= site.reached

    assert reached - set(POINTS) == set()
    assert set(POINTS) - reached == set()


def test_each_commit_and_each_aws_call_has_a_point_before_and_after() -> None:
    """There is one place that commits and one that calls AWS, each between two points."""
    places = {
        str(path.relative_to(ROOT)): text
        for package in ("application", "infrastructure", "interfaces")
        for path in (ROOT / package).rglob("*.py")
        if "sandbox" not in path.parts
        for text in [path.read_text()]
    }
    commits = [name for name, text in places.items() if re.search(r'execute\("COMMIT"\)', text)]
    clients = [name for name, text in places.items() if "boto3.session" in text]

    # The read model's COMMIT ends a read transaction.
    assert sorted(commits) == [
        "infrastructure/event_store/sqlite.py",
        "infrastructure/read_models/sqlite.py",
    ]
    store = places["infrastructure/event_store/sqlite.py"]
    assert store.count('execute("COMMIT")') == 1
    before, after = store.split('execute("COMMIT")')
    assert 'reach(f"commit.{name}.before")' in before[-200:]
    assert 'reach(f"commit.{name}.after")' in after[:900]
    assert clients == ["infrastructure/aws/ec2.py"]
    ec2 = places["infrastructure/aws/ec2.py"]
    assert ec2.count("self._client(") == 1
    before, after = ec2.split("self._client(")
    assert 'reach(f"aws.{api}.before")' in before[-200:]
    assert after.count('reach(f"aws.{api}.after")') == 2


def test_every_event_is_written_by_a_commit_with_a_point() -> None:
    """Each topic is the first of a commit with its points, or is only ever written behind one."""
    behind = {
        "MachineLaunched",  # behind MachinesAssigned
        "DeploymentCreated",  # the store appears whole or not at all
        "StoreActivated",
        "StoreMoved",  # written by a later release
        "MachineInterrupted",  # written by a later release
    }
    assert {name for name in COMMITS if name in TOPICS} | behind == set(TOPICS)
