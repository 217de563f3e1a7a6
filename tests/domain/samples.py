"""One event of each topic with plausible fields, for the tests to vary."""

from __future__ import annotations

from typing import Any

from domain import (
    alert,
    archive,
    brake,
    deployment,
    fleet,
    host_factory,
    launch_batch,
    launch_template,
    machine,
    machine_request,
    return_request,
    template,
    termination_batch,
    token,
)
from tests.specification import Happened, event

REQUEST = "req-0f8fad5bd9cb469fa16570867728950e"
OTHER = "req-7c9e6679742540de944be07fc1f90ae7"
RETURN = "ret-2f1acc6c3a60457b8b1b3a8f2f3b8c11"
BATCH = "bat-6ba7b8109dad11d180b400c04fd430c8"
ARCHIVE = "arc-6ba7b8149dad11d180b400c04fd430c8"
TERMINATION = "ter-6ba7b8119dad11d180b400c04fd430c8"


def machine_id(number: int) -> str:
    """An instance id as EC2 forms them."""
    return f"i-{number:017x}"


def instance(number: int, units: int = 1) -> dict[str, Any]:
    """What an outcome event keeps of an instance."""
    return {
        "machine_id": machine_id(number),
        "name": f"ip-10-0-0-{number}.ec2.internal",
        "private_ip_address": f"10.0.0.{number}",
        "launch_time": 1_800_000_000 + number,
        "zone": "us-east-1a",
        "instance_type": "t3.medium",
        "price_type": "ondemand",
        "units": units,
    }


def intended(epoch: int = 0, claims: list[list[Any]] | None = None) -> Happened:
    return event(
        launch_batch.LaunchIntended,
        epoch=epoch,
        api="RunInstances",
        token=f"{epoch:064x}",
        payload={"ImageId": "ami-0a1b2c3d", "InstanceType": "t3.medium", "MaxCount": 3},
        claims=claims or [[REQUEST, 2], [OTHER, 1]],
        account="123456789012",
        region="us-east-1",
        pool="t3.medium/subnet-a1/ondemand",
        provider="awsinst",
        template_id="OnDemand-A",
        revision="4f53cda18c2baa0c",
        launch_template="",
        machines=sum(units for _, units in claims or [[REQUEST, 2], [OTHER, 1]]),
        reason="",
    )


def accepted(
    numbers: list[int],
    deal: list[list[Any]],
    surplus: list[str] | None = None,
    missing: int = 0,
    epoch: int = 0,
    fleet_id: str = "",
    filling: bool = False,
    units: int = 1,
    shortages: list[list[str]] | None = None,
    gives_up: bool = False,
) -> Happened:
    return event(
        launch_batch.LaunchAccepted,
        epoch=epoch,
        aws_request_id="59dbff89-35bd-4eac-99ed-be587EXAMPLE",
        instances=[instance(number, units) for number in numbers],
        deal=deal,
        surplus=surplus or [],
        missing=missing,
        shortages=shortages or [],
        gives_up=gives_up,
        fleet_id=fleet_id,
        filling=filling,
    )


def rejected(definite: bool, epoch: int = 0) -> Happened:
    return event(
        launch_batch.LaunchRejected,
        epoch=epoch,
        code="InsufficientInstanceCapacity",
        message="We currently do not have sufficient t3.medium capacity",
        definite=definite,
        gives_up=False,
    )


def settled(
    numbers: list[int],
    deal: list[list[Any]],
    surplus: list[str] | None = None,
    units: int = 1,
) -> Happened:
    return event(
        launch_batch.LaunchSettled,
        instances=[instance(number, units) for number in numbers],
        deal=deal,
        surplus=surplus or [],
    )


def closed(claims: list[list[Any]], shortages: list[list[str]] | None = None) -> Happened:
    return event(launch_batch.LaunchClosed, claims=claims, shortages=shortages or [])


def asked(count: int = 3) -> Happened:
    return event(
        machine_request.MachinesRequested,
        provider="awsinst",
        template_id="OnDemand-A",
        revision="4f53cda18c2baa0c",
        machine_count=count,
        fulfilment_deadline=300.0,
        source="hostfactory",
        rc_account="",
        reason="",
    )


def assigned(numbers: list[int], units: int | None = None) -> Happened:
    return event(
        machine_request.MachinesAssigned,
        batch_id=BATCH,
        machine_ids=[machine_id(number) for number in numbers],
        units=len(numbers) if units is None else units,
    )


def fell_short(reason: str = "InsufficientInstanceCapacity") -> Happened:
    return event(
        machine_request.RequestFellShort,
        batch_id=BATCH,
        pool="subnet-a1",
        reason=reason,
        message="no capacity",
        missing=2,
        gives_up=False,
    )


def launched(number: int = 1, request_id: str = REQUEST) -> Happened:
    facts = {key: value for key, value in instance(number).items() if key != "machine_id"}
    return event(
        machine.MachineLaunched,
        request_id=request_id,
        batch_id=BATCH,
        provider="awsinst",
        template_id="OnDemand-A",
        revision="4f53cda18c2baa0c",
        account="123456789012",
        region="us-east-1",
        **facts,
    )


def adopted(number: int = 1) -> Happened:
    facts = {key: value for key, value in instance(number).items() if key != "machine_id"}
    return event(
        machine.MachineAdopted,
        batch_id=BATCH,
        provider="awsinst",
        template_id="",
        revision="",
        account="123456789012",
        region="us-east-1",
        reason="launched before the disk died",
        **facts,
    )


def running(number: int = 1) -> Happened:
    return event(
        machine.MachineRunning,
        name=f"ip-10-0-0-{number}.ec2.internal",
        private_ip_address=f"10.0.0.{number}",
        launch_time=1_800_000_000 + number,
    )


def handed_back(
    machine_ids: list[str] | None = None, strangers: list[list[str]] | None = None
) -> Happened:
    return event(
        return_request.MachinesReturned,
        provider="awsinst",
        machine_ids=[machine_id(1)] if machine_ids is None else machine_ids,
        strangers=strangers or [],
        reason="returned by HostFactory",
        source="hostfactory",
    )


def terminating(numbers: list[int]) -> Happened:
    return event(
        termination_batch.TerminationIntended,
        machine_ids=[machine_id(number) for number in numbers],
        account="123456789012",
        region="us-east-1",
        zone="us-east-1a",
        reason="returned",
    )


def every_event() -> dict[str, tuple[str, Happened]]:
    """Topic -> (stream, event): one of each, with text beyond ASCII where people write text."""
    of_machine = "machine-" + machine_id(1)
    samples: list[tuple[str, Happened]] = [
        (
            "deployment",
            event(
                deployment.DeploymentCreated,
                deployment="9f86d081884c7d659a2feaa0c55ad015",
                incarnation=1,
                program_version="0.1.0",
            ),
        ),
        (
            "deployment",
            event(deployment.StoreActivated, incarnation=2, reason="restored after a fire"),
        ),
        (
            "deployment",
            event(
                deployment.StoreMoved,
                destination="postgresql://ledger.example/hostledger",
                reason="two masters — Zürich and 東京",
            ),
        ),
        (
            "template-awsinst/OnDemand-A",
            event(
                template.TemplateRevised,
                provider="awsinst",
                template_id="OnDemand-A",
                revision="4f53cda18c2baa0c",
                content={
                    "max_number": 100,
                    "vm_type": "t3.medium",
                    "subnet_ids": ["subnet-a1", "subnet-b2"],
                    "fulfilment_deadline": 300.5,
                    "tags": {"Zweck": "Übung ✓"},
                    "ebs_optimized": True,
                    "key_name": None,
                },
            ),
        ),
        (
            "template-awsinst/OnDemand-A",
            event(template.TemplateRetired, provider="awsinst", template_id="OnDemand-A"),
        ),
        ("request-" + REQUEST, asked()),
        ("request-" + REQUEST, assigned([1, 2])),
        ("request-" + REQUEST, fell_short()),
        ("request-" + REQUEST, event(machine_request.RequestFulfilled, fulfilled=3)),
        (
            "request-" + REQUEST,
            event(
                machine_request.RequestPartlyFulfilled,
                fulfilled=2,
                missing=1,
                message="1 of 3 machines is missing; subnet-a1: no capacity",
            ),
        ),
        ("request-" + REQUEST, event(machine_request.RequestFailed, message="no capacity")),
        (
            "request-" + REQUEST,
            event(machine_request.RequestCancelled, reason="“not needed” \\ \n any more"),
        ),
        (
            "return-" + RETURN,
            handed_back([machine_id(1), machine_id(2)], [["", "host-β.example"]]),
        ),
        (
            "return-" + RETURN,
            event(return_request.ReturnCompleted, message="every machine is gone"),
        ),
        (
            "return-" + RETURN,
            event(
                return_request.ReturnPartlyRefused,
                refused=[["host-β.example", "not launched by this deployment"]],
                message="host-β.example: not launched by this deployment",
            ),
        ),
        ("batch-" + BATCH, intended()),
        (
            "batch-" + BATCH,
            accepted([1, 2], [[REQUEST, [machine_id(1), machine_id(2)]]], missing=1),
        ),
        ("batch-" + BATCH, rejected(definite=True)),
        ("batch-" + BATCH, settled([3], [], [machine_id(3)])),
        ("batch-" + BATCH, closed([[REQUEST, 1]])),
        (
            "batch-" + BATCH,
            event(launch_batch.LaunchSettlementOrdered, reason="AWS sagt: nichts gestartet"),
        ),
        (
            "fleet-" + BATCH,
            event(
                fleet.FleetCreated,
                api="CreateFleet",
                fleet_id="fleet-12a34b55-67cd-8ef9-ba9b-9208dEXAMPLE",
                fleet_type="maintain",
                target=3,
                account="default",
                region="us-east-1",
                provider="awsinst",
                launch_template="hostledger-9f86d081-0123456789abcdef01234567",
            ),
        ),
        (
            "fleet-" + BATCH,
            event(fleet.FleetTargetIntended, target=2, on_demand=0, reason="zurückgegeben"),
        ),
        ("fleet-" + BATCH, event(fleet.FleetTargetSet, target=2)),
        (
            "fleet-" + BATCH,
            event(fleet.FleetDeletionIntended, reason="its last machine is gone"),
        ),
        ("fleet-" + BATCH, event(fleet.FleetDeleted)),
        (
            "lt-default/us-east-1/hostledger-9f86d081-0123456789abcdef01234567",
            event(
                launch_template.LaunchTemplateIntended,
                epoch=0,
                name="hostledger-9f86d081-0123456789abcdef01234567",
                token=f"{1:064x}",
                payload={
                    "LaunchTemplateName": "hostledger-9f86d081-0123456789abcdef01234567",
                    "LaunchTemplateData": {"ImageId": "ami-0a1b2c3d"},
                },
                account="default",
                region="us-east-1",
                provider="awsinst",
            ),
        ),
        (
            "lt-default/us-east-1/hostledger-9f86d081-0123456789abcdef01234567",
            event(launch_template.LaunchTemplateCreated, launch_template_id="lt-0abcd290751193123"),
        ),
        (
            "lt-default/us-east-1/hostledger-9f86d081-0123456789abcdef01234567",
            event(
                launch_template.LaunchTemplateRejected,
                code="UnauthorizedOperation",
                message="not authorized to perform: ec2:CreateLaunchTemplate",
            ),
        ),
        (
            "lt-default/us-east-1/hostledger-9f86d081-0123456789abcdef01234567",
            event(launch_template.LaunchTemplateMissed),
        ),
        (
            "lt-default/us-east-1/hostledger-9f86d081-0123456789abcdef01234567",
            event(
                launch_template.LaunchTemplateDeletionIntended, reason="nothing uses it any more"
            ),
        ),
        (
            "lt-default/us-east-1/hostledger-9f86d081-0123456789abcdef01234567",
            event(launch_template.LaunchTemplateDeleted),
        ),
        (
            "token-tok-6ba7b8149dad11d180b400c04fd430c8",
            event(
                token.TokenCreated,
                name="Grafana, Büro 3",
                role="viewer",
                digest="0" * 64,
                expires_at="2027-04-15T08:00:00.000000Z",
            ),
        ),
        (
            "token-tok-6ba7b8149dad11d180b400c04fd430c8",
            event(token.TokenRevoked, reason="left the team"),
        ),
        ("brake", event(brake.Paused, scope="everything", reason="Kostenbremse: prüfen")),
        ("brake", event(brake.Resumed, reason="checked")),
        ("termination-" + TERMINATION, terminating([1, 2])),
        (
            "termination-" + TERMINATION,
            event(
                termination_batch.TerminationAccepted,
                machine_ids=[machine_id(1)],
                aws_request_id="59dbff89-35bd-4eac-99ed-be587EXAMPLE",
            ),
        ),
        (
            "termination-" + TERMINATION,
            event(
                termination_batch.TerminationRefused,
                refused=[[machine_id(2), "OperationNotPermitted"]],
            ),
        ),
        (of_machine, launched()),
        (of_machine, running()),
        (of_machine, adopted()),
        (of_machine, event(machine.MachineProtected, reason="wird untersucht — bitte lassen")),
        (of_machine, event(machine.MachineUnprotected, reason="examined")),
        (
            of_machine,
            event(machine.MachineInterrupted, reason="spot interruption", until=1_800_000_120),
        ),
        (
            of_machine,
            event(machine.MachineReturned, return_id=RETURN, reason="returned by HostFactory"),
        ),
        (of_machine, event(machine.MachineTerminated, reason="returned")),
        (of_machine, event(machine.MachineLost, reason="EC2 does not know it any more")),
        (
            "host-factory",
            event(
                host_factory.RequestsSeen,
                provider="awsinst",
                request_ids=[REQUEST],
                answered_final=[OTHER],
            ),
        ),
        (
            "host-factory",
            event(host_factory.MachinesSeen, provider="awsinst", machine_ids=[machine_id(1)]),
        ),
        (
            "archive-" + ARCHIVE,
            event(
                archive.ArchiveIntended,
                file="/srv/archives/2026.jsonl.gz",
                sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                first=2,
                last=4711,
                events=3000,
                streams=420,
                before="2026-01-01T00:00:00.000000Z",
                reason="kept 400 days — Aufbewahrungsfrist",
                legal_hold=["req-0f8f*"],
                held=3,
            ),
        ),
        (
            "archive-" + ARCHIVE,
            event(archive.EventsArchived, events=2990, streams=419),
        ),
        (
            "alert-sweep-too-old",
            event(
                alert.AlertRaised,
                message="the last complete sweep of Zürich/eu-central-2 began 120 s ago",
                value=120.25,
                limit=90.0,
            ),
        ),
        ("alert-sweep-too-old", event(alert.AlertCleared, value=1.5)),
    ]
    return {happened[0].TOPIC: (stream, happened) for stream, happened in samples}
