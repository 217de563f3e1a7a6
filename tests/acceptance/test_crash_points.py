"""kill -9 at every named point of every process: then nothing is lost, leaked or doubled.

The processes and the SIGKILL are real; see `tests/forked.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.topics import TOPICS
from tests.forked import (
    ForkedSite,
    answered,
    ask,
    at_rest,
    cycle,
    drive,
    drive_all,
    give_back,
    known_ids,
    work_for,
    work_until,
)
from tests.world import TEMPLATE

ROOT = Path(__file__).resolve().parents[2]


def shortage(site: ForkedSite, crash_at: str) -> bool:
    """The only pool has one machine, then none: partial outcome, rejection, partial answer."""
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


def refusal(site: ForkedSite, crash_at: str) -> bool:
    """AWS refuses the launch for good: the request fails."""
    site.sandbox.add_fault(
        "error", action="RunInstances", times=-1, code="UnauthorizedOperation", message="no"
    )
    return cycle(site, crash_at)


def doubt(site: ForkedSite, crash_at: str) -> bool:
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


def protected(site: ForkedSite, crash_at: str) -> bool:
    """A machine is protected for a while: its termination is refused, reported, and done later."""
    killed = drive_all(site, (ask, work_until(answered, 900)), crash_at)
    (machine_id,) = site.query("SELECT min(machine_id) FROM machines WHERE alive = 1")[0]
    site.sandbox.protect([machine_id])
    killed |= drive(site, give_back, crash_at)
    killed |= drive(site, work_until(lambda s: s.query(RETURNS_OPEN) == [(0,)], 1500), crash_at)
    site.sandbox.protect([machine_id], on=False)
    return killed | drive(site, work_until(at_rest, 3000), crash_at)


RETURNS_OPEN = "SELECT count(*) FROM requests WHERE final = 0 AND kind = 'return'"


def vanished(site: ForkedSite, crash_at: str) -> bool:
    """Machines end behind our back and are forgotten by EC2 while no worker lives: lost."""
    killed = drive_all(site, (ask, work_until(answered, 900)), crash_at)
    site.sandbox.terminate_behind_back(sorted(site.live()))
    site.clock.advance(4000)
    return killed | drive(site, work_until(at_rest, 3000), crash_at)


def withdrawn(site: ForkedSite, crash_at: str) -> bool:
    """HostFactory never names a request that is still open: cancelled, its machine goes back."""
    site.sandbox.add_fault("cap", action="RunInstances", limit=1)
    site.sandbox.add_fault("throttle", action="RunInstances", from_call=2, times=-1)
    survived, request_id = site.process(lambda: site.request(3, "OnDemand-B"))
    assert survived and request_id

    def calls(s: ForkedSite) -> None:
        last = [0.0]

        def other_calls() -> None:
            if s.clock.seconds - last[0] >= 30:
                last[0] = s.clock.seconds
                s.call("getReturnRequests", {})

        s.start_worker()
        assert s.run(3000, lambda: at_rest(s), step=2.0, poll=other_calls)

    return drive(site, calls, crash_at)


def new_templates(site: ForkedSite, crash_at: str) -> bool:
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
def make_site(tmp_path: Path) -> Iterator[Callable[[], ForkedSite]]:
    sites: list[ForkedSite] = []

    def make() -> ForkedSite:
        site = ForkedSite(
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
    "commit.tracking": doubt,
    "commit.TerminationRefused": protected,
    "commit.RequestPartlyFulfilled": shortage,
    "commit.RequestFailed": refusal,
    "commit.ReturnPartlyRefused": protected,
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point: str, make_site: Callable[[], ForkedSite]) -> None:
    """SIGKILL at the point, restart: EC2 and the ledger agree, and nothing lives on."""
    site = make_site()
    scenario = REACHING.get(point.rpartition(".")[0], cycle)

    assert scenario(site, point), f"{point} was never reached"

    site.assert_agreement()
    assert site.live() == set()
    for request_id in known_ids(site):
        assert site.status(request_id)["message"] != "unknown request"


def test_every_point_is_registered(make_site: Callable[[], ForkedSite]) -> None:
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
    assert clients == ["infrastructure/aws/client.py"]
    calling = places["infrastructure/aws/client.py"]
    assert calling.count("self._client(") == 1
    before, after = calling.split("self._client(")
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
