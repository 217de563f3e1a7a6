"""kill -9 at every named point of every process: then nothing is lost, leaked or doubled.

The processes and the SIGKILL are real; see `tests/forked.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
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
    site.environ["HOSTLEDGER_PROVIDER__AWS__SETTLE_GAP"] = "60"
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
    site.environ["HOSTLEDGER_PROVIDER__AWS__CREATION_TIMEOUT"] = "120"
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


def all_gone(site: ForkedSite) -> bool:
    """At rest, and nothing that was made for the launches is left."""
    (fleets,) = site.query("SELECT count(*) FROM fleets WHERE state <> 'deleted'")[0]
    (templates,) = site.query(
        "SELECT count(*) FROM launch_templates WHERE state NOT IN ('deleted', 'rejected')"
    )[0]
    return at_rest(site) and not fleets and not templates


def whole(site: ForkedSite, crash_at: str, meanwhile: Callable[[], object] = lambda: None) -> bool:
    """Ask, wait, return, and wait until nothing is left; `meanwhile` happens before the return."""
    killed = drive_all(site, (ask, work_until(answered, 900)), crash_at)
    meanwhile()
    return killed | drive_all(site, (give_back, work_until(all_gone, 3000, 6.0)), crash_at)


def filling(site: ForkedSite, crash_at: str) -> bool:
    """A fleet or group has two of three until the deadline: stopped, closed, emptied, deleted."""
    site.sandbox.set_capacity(2)
    return whole(site, crash_at)


def denied(site: ForkedSite, crash_at: str) -> bool:
    """The launch template may not be made: the request fails."""
    site.sandbox.deny("CreateLaunchTemplate")
    return whole(site, crash_at)


def gone(site: ForkedSite, crash_at: str) -> bool:
    """The fleet does not find the launch template, which is there all the same: made again."""
    code = "InvalidLaunchTemplateName.NotFoundException"
    site.sandbox.add_fault("error", action="CreateFleet", code=code)
    return whole(site, crash_at)


def resolved(site: ForkedSite, crash_at: str) -> bool:
    """A template that names a parameter and the site's own launch template."""
    site.sandbox.put_parameter("/hosts/image", "ami-0000000a")
    client = boto3.client("ec2", region_name="us-east-1")
    site.sandbox.attach(client)
    made = client.create_launch_template(
        LaunchTemplateName="ours", LaunchTemplateData={"KeyName": "admin"}
    )
    template_id = made["LaunchTemplate"]["LaunchTemplateId"]
    image = {"imageId": "resolve:ssm:/hosts/image", "launchTemplateId": template_id}
    site.write_templates([{**TEMPLATE, **image}])
    return whole(site, crash_at)


def interrupted(site: ForkedSite, crash_at: str) -> bool:
    """AWS takes spot machines back, with a notice in the site's queue."""
    queue = site.sandbox.create_queue("notices", events=True)
    site.environ["HOSTLEDGER_PROVIDER__AWS__INTERRUPTION_QUEUE"] = queue
    return whole(site, crash_at, lambda: site.sandbox.interrupt(sorted(site.live())[:2]))


@dataclass(frozen=True)
class Scenario:
    """What happens on a site that launches one way: `run` says whether a process was killed."""

    run: Callable[[ForkedSite, str], bool]
    way: str = "RunInstances"
    template: dict[str, Any] = field(default_factory=dict)


VOLUME = {**TEMPLATE, "rootDeviceVolumeSize": 20}
TWO_ZONES = {"subnetId": "subnet-a1, subnet-b1", "fulfilmentDeadline": 60}
SCENARIOS = {
    "cycle": Scenario(cycle),
    "shortage": Scenario(shortage),
    "refusal": Scenario(refusal),
    "doubt": Scenario(doubt),
    "protected": Scenario(protected),
    "vanished": Scenario(vanished),
    "withdrawn": Scenario(withdrawn),
    "new templates": Scenario(new_templates),
    "resolved": Scenario(resolved),
    "instant": Scenario(whole, "fleet-instant", TWO_ZONES),
    "request": Scenario(filling, "fleet-request", TWO_ZONES),
    "maintain": Scenario(filling, "fleet-maintain", TWO_ZONES),
    "spot request": Scenario(filling, "spot-fleet-request", TWO_ZONES),
    "spot maintain": Scenario(filling, "spot-fleet-maintain", TWO_ZONES),
    "group": Scenario(filling, "group", TWO_ZONES),
    "denied": Scenario(denied, "fleet-instant"),
    "gone": Scenario(gone, "fleet-instant"),
    "interrupted": Scenario(interrupted, "fleet-instant", {"priceType": "spot"}),
}
TIMES = ("before", "after")
REACHED = {
    "cycle": (
        "commit.TemplateRevised", "commit.MachinesRequested", "commit.MachinesReturned",
        "commit.LaunchIntended", "commit.LaunchAccepted", "commit.MachinesAssigned",
        "commit.MachineRunning", "commit.MachineReturned", "commit.MachineTerminated",
        "commit.TerminationIntended", "commit.TerminationAccepted", "commit.RequestFulfilled",
        "commit.ReturnCompleted", "commit.RequestsSeen", "commit.MachinesSeen", "commit.lease",
        "commit.notebook", "aws.RunInstances", "aws.DescribeInstances", "aws.TerminateInstances",
        "aws.CreateTags", "aws.DescribeImages",
    ),
    "shortage": ("commit.LaunchRejected", "commit.RequestPartlyFulfilled"),
    "refusal": ("commit.RequestFellShort", "commit.RequestFailed"),
    "doubt": ("commit.LaunchSettled", "commit.tracking"),
    "protected": ("commit.TerminationRefused", "commit.ReturnPartlyRefused"),
    "vanished": ("commit.MachineLost",),
    "withdrawn": ("commit.RequestCancelled",),
    "new templates": ("commit.TemplateRetired",),
    "resolved": ("aws.GetParameter", "aws.DescribeLaunchTemplateVersions"),
    "instant": (
        "commit.LaunchTemplateIntended", "commit.LaunchTemplateCreated",
        "commit.LaunchTemplateDeletionIntended", "commit.LaunchTemplateDeleted",
        "commit.FleetDeletionIntended", "commit.FleetDeleted", "aws.CreateLaunchTemplate",
        "aws.DeleteLaunchTemplate", "aws.CreateFleet", "aws.DeleteFleets", "aws.DescribeSubnets",
    ),
    "request": ("commit.LaunchClosed", "aws.DescribeFleetHistory"),
    "maintain": (
        "commit.FleetTargetIntended", "commit.FleetTargetSet", "aws.ModifyFleet",
        "aws.DescribeFleets",
    ),
    "spot request": (
        "aws.RequestSpotFleet", "aws.CancelSpotFleetRequests", "aws.DescribeSpotFleetRequests",
        "aws.DescribeSpotFleetRequestHistory",
    ),
    "spot maintain": ("aws.ModifySpotFleetRequest",),
    "group": (
        "aws.CreateAutoScalingGroup", "aws.UpdateAutoScalingGroup", "aws.DeleteAutoScalingGroup",
        "aws.DescribeAutoScalingGroups", "aws.DescribeScalingActivities",
    ),
    "denied": ("commit.LaunchTemplateRejected",),
    "gone": ("commit.LaunchTemplateMissed", "aws.DescribeLaunchTemplates"),
    "interrupted": ("commit.MachineInterrupted", "aws.ReceiveMessage", "aws.DeleteMessageBatch"),
}  # fmt: skip
"""Scenario -> what is done in it that is done in none before, each between two points."""

POINTS = {
    **{
        f"{name}.{time}": scenario
        for scenario, names in REACHED.items()
        for name in names
        for time in TIMES
    },
    "worker.turn": "cycle",
    "demand.divided": "cycle",
    "answer.requestMachines": "cycle",
    "answer.requestReturnMachines": "cycle",
}
"""Every point there is -> a scenario that reaches it."""

COMMITS = {name.removeprefix("commit.") for names in REACHED.values() for name in names}


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[[Scenario], ForkedSite]]:
    sites: list[ForkedSite] = []

    def make(scenario: Scenario) -> ForkedSite:
        site = ForkedSite(
            tmp_path / f"site-{len(sites)}",
            [
                {**VOLUME, **scenario.template},
                {**TEMPLATE, "templateId": "OnDemand-B", "fulfilmentDeadline": 5000},
            ],
            way=scenario.way,
            boot_time=10.0,
            shutdown_time=5.0,
        )
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.close()


MakeSite = Callable[[Scenario], ForkedSite]


@pytest.mark.parametrize("point", POINTS)
def test_fault_40_killed_at(point: str, make_site: MakeSite) -> None:
    """SIGKILL at the point, restart: AWS and the ledger agree, and nothing lives on."""
    scenario = SCENARIOS[POINTS[point]]
    site = make_site(scenario)

    assert scenario.run(site, point), f"{point} was never reached"

    site.assert_agreement()
    assert site.live() == set()
    if all_gone(site):
        site.assert_nothing_left()
    for request_id in known_ids(site):
        assert site.status(request_id)["message"] != "unknown request"


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_point_is_registered(name: str, make_site: MakeSite) -> None:
    """The points that a scenario reaches are in the list: a new one must be added to it."""
    scenario = SCENARIOS[name]
    site = make_site(scenario)
    site.reached = set()
    scenario.run(site, "")

    assert site.reached - set(POINTS) == set()
    assert {point for point in POINTS if POINTS[point] == name} - site.reached == set()


def test_each_commit_and_each_aws_call_has_a_point_before_and_after() -> None:
    """There is one place that commits and one that calls AWS, each between two points."""
    places = {
        str(path.relative_to(ROOT)): text
        for package in ("application", "infrastructure", "interfaces")
        for path in (ROOT / package).rglob("*.py")
        if "sandbox" not in path.parts
        for text in [path.read_text()]
    }
    clients = [name for name, text in places.items() if "boto3.session" in text]
    commits = {
        name: text.count('execute("COMMIT")')
        for name, text in places.items()
        if 'execute("COMMIT")' in text
    }

    assert commits == {
        "infrastructure/event_store/sqlite.py": 1,
        "infrastructure/event_store/json_lines.py": 1,
        "infrastructure/event_store/json_ledger.py": 1,  # takes in what the log has already
        "infrastructure/event_store/sqlite_file.py": 1,  # brings older tables up to date
        # These end a reading, or fill a file that is built anew at will.
        "infrastructure/read_models/sql.py": 1,
        "infrastructure/read_models/dynamodb_queries.py": 1,
        "infrastructure/read_models/replica.py": 1,
        "infrastructure/event_store/verification.py": 1,
    }
    for store, commit in {
        "sqlite": 'execute("COMMIT")',
        "json_lines": "self._append_line()",
        "postgresql": "self._commit()",
        "dynamodb": "made.send()",
    }.items():
        *befores, _ = (text := places[f"infrastructure/event_store/{store}.py"]).split(commit)
        assert len(befores) == text.count('reach(f"commit.{name}.after")') > 0
        assert all('reach(f"commit.{name}.before")' in before[-200:] for before in befores)
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
        "FleetCreated",  # behind LaunchAccepted, or LaunchSettled when its answer was lost
        "DeploymentCreated",  # the store appears whole or not at all
        "StoreActivated",
        "StoreMoved",  # by a step of its own, that can be given again
    }
    by_hand = {
        "Paused",
        "Resumed",
        "LaunchSettlementOrdered",
        "MachineAdopted",
        "MachineProtected",
        "MachineUnprotected",
        "ArchiveIntended",  # tests/application/test_archiving.py kills it at each step
        "EventsArchived",
        "TokenCreated",
        "TokenRevoked",
    }
    """One commit of a person's command, who sees whether it was done and may give it again."""
    judged = {"AlertRaised", "AlertCleared"}
    """Nothing hangs on them: what a look that died did not record, the next one records."""
    assert (COMMITS & set(TOPICS)) | behind | by_hand | judged == set(TOPICS)
