"""Whose credentials a call carries, when they are renewed, and that nobody can read them."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from application.ports import CallFailed
from infrastructure.aws import credentials
from infrastructure.aws.client import Connection, _endpoint
from infrastructure.sandbox.ec2 import Sandbox
from infrastructure.settings.aws import Aws
from infrastructure.settings.worker import LEASE_MARGIN
from infrastructure.telemetry.journal import Journal
from tests.fakes.clock import FakeClock
from tests.infrastructure.aws_cloud import CONTENT, LOGGING, Place

HOME, OTHER = "111111111111", "222222222222"
ROLE = f"arn:aws:iam::{OTHER}:role/buyer"
SECRET = "kept-from-everybody"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHOME")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Script:
    """A program that prints what it is told to, and counts its runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "credentials of mine.sh"
        self._text = folder / "text"
        self._runs = folder / "runs"
        self._runs.write_text("")
        self.path.write_text(
            f"#!/bin/sh\necho run >> '{self._runs}'\necho '{SECRET}' >&2\n"
            f"cat '{self._text}'\nexit $(cat '{folder}/status')\n"
        )
        self.path.chmod(stat.S_IRWXU)
        self._status = folder / "status"
        self.ends()

    def says(self, text: str) -> None:
        self._text.write_text(text)

    def gives(self, key: str, expiration: str | None) -> None:
        answer: dict[str, Any] = {
            "Version": 1,
            "AccessKeyId": key,
            "SecretAccessKey": SECRET,
            "SessionToken": f"token-{SECRET}",
        }
        if expiration:
            answer["Expiration"] = expiration
        self.says(json.dumps(answer))

    def ends(self, status: int = 0) -> None:
        self._status.write_text(str(status))

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines())

    @property
    def command(self) -> str:
        return f"'{self.path}' --role buyer"


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


class Site:
    """A place whose sandbox knows who calls."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.log = tmp_path / "log"
        clock = FakeClock()
        keys = {"AKIAHOME": HOME, "AKIASCRIPT": OTHER, "AKIASCRIPT2": OTHER}
        sandbox = Sandbox(clock=lambda: clock.wall, accounts=keys)
        self.place = Place(str(self.log), sandbox, clock, **settings)
        self.clock = clock

    def accounts(self) -> set[str]:
        """Where the machines are."""
        found = self.place.sandbox.live_instances()
        return {str(one["account"]) for one in found.values()}

    def launch(self) -> None:
        self.place.launch(self.place.plan(CONTENT))


# -- a program ------------------------------------------------------------------------------------


def test_credentials_of_a_program(tmp_path: Path, script: Script) -> None:
    """Run once while they last, again before they end."""
    site = Site(tmp_path, credential_script=script.command, credential_renew_margin=600)
    script.gives("AKIASCRIPT", iso(site.clock.wall + 3600))
    site.launch()
    site.launch()
    assert (site.accounts(), script.runs) == ({OTHER}, 1)
    site.clock.advance(2995)
    site.launch()
    assert script.runs == 1
    site.clock.advance(10)
    script.gives("AKIASCRIPT2", iso(site.clock.wall + 3600))
    site.launch()
    site.launch()
    assert script.runs == 2


def test_credentials_within_credentials(tmp_path: Path, script: Script) -> None:
    """As `aws sts assume-role` prints them."""
    site = Site(tmp_path, credential_script=script.command)
    keys = {"AccessKeyId": "AKIASCRIPT", "SecretAccessKey": SECRET, "SessionToken": "t"}
    script.says(json.dumps({"Credentials": keys}))
    site.launch()
    assert site.accounts() == {OTHER}


def test_credentials_without_an_end_last(tmp_path: Path, script: Script) -> None:
    """They are asked for once."""
    site = Site(tmp_path, credential_script=script.command)
    script.gives("AKIASCRIPT", None)
    site.launch()
    site.clock.advance(10 * 24 * 3600)
    site.launch()
    assert script.runs == 1


def test_a_renewal_that_fails_early_is_tried_again(tmp_path: Path, script: Script) -> None:
    """Until the last moment the old ones are good enough; then the call is not sent."""
    site = Site(tmp_path, credential_script=script.command, credential_renew_margin=600)
    script.gives("AKIASCRIPT", iso(site.clock.wall + 3600))
    site.launch()
    script.ends(3)
    site.clock.advance(3100)
    site.launch()
    site.clock.advance(450)
    sent = len(site.place.sandbox.calls)
    with pytest.raises(CallFailed) as caught:
        site.launch()
    assert (caught.value.kind, caught.value.code) == ("unreachable", "CredentialScript")
    assert len(site.place.sandbox.calls) == sent
    script.ends()
    script.gives("AKIASCRIPT", iso(site.clock.wall + 3600))
    site.launch()


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("{}", 7, "ended with status 7"),
        ("", 0, "printed no JSON"),
        (f"{SECRET}", 0, "printed no JSON"),
        (f'["{SECRET}"]', 0, "printed no JSON"),
        (f'{{"AccessKeyId": "AKIA", "SecretKey": "{SECRET}"}}', 0, "printed no JSON"),
        (f'{{"AccessKeyId": "", "SecretAccessKey": "{SECRET}"}}', 0, "printed no JSON"),
        (
            f'{{"AccessKeyId": "A", "SecretAccessKey": "{SECRET}", "Expiration": "{SECRET}"}}',
            0,
            "no end in ISO 8601",
        ),
        (
            f'{{"AccessKeyId": "A", "SecretAccessKey": "{SECRET}",'
            ' "Expiration": "2020-01-01T00:00:00Z"}',
            0,
            "expired already",
        ),
    ],
)
def test_a_program_that_fails_is_not_quoted(
    tmp_path: Path, script: Script, said: str, status: int, words: str
) -> None:
    """Neither what it printed nor its errors are in the failure, its causes or the log; nothing
    was sent."""
    site = Site(tmp_path, credential_script=script.command)
    script.says(said)
    script.ends(status)
    with pytest.raises(CallFailed, match=words) as caught:
        site.launch()
    assert caught.value.kind == "unreachable"
    told = ""
    error: BaseException | None = caught.value
    while error is not None:
        told += str(error)
        error = error.__cause__
    assert SECRET not in told
    assert SECRET not in site.log.read_text()
    assert site.place.sandbox.calls == []


def test_no_credential_is_in_the_log(tmp_path: Path, script: Script) -> None:
    """Whatever goes well or wrong."""
    site = Site(tmp_path, credential_script=script.command, assume_role=ROLE)
    script.gives("AKIAHOME", iso(site.clock.wall + 900))
    site.launch()
    site.place.sandbox.add_fault("error", action="RunInstances", code="AuthFailure")
    with pytest.raises(CallFailed):
        site.launch()
    site.clock.advance(880)
    script.ends(1)
    site.launch()
    text = site.log.read_text()
    assert "RunInstances" in text
    assert SECRET not in text
    assert "AKIA" not in text


def test_a_program_that_hangs_is_ended() -> None:
    """A launch must not begin long after its lease was looked at."""
    assert credentials.SLOWEST_SCRIPT + sum(credentials.SLOWEST_ROLE) <= LEASE_MARGIN
    with pytest.raises(CallFailed, match=r"took more than 0\.05 s"):
        credentials.script("sleep 60", within=0.05)()


def test_a_program_that_is_not_there() -> None:
    """Is named by what is configured, not by what was tried."""
    for command in ("/not/there --token x", "'unbalanced"):
        with pytest.raises(CallFailed, match="AWS_CREDENTIAL_SCRIPT cannot be run"):
            credentials.script(command)()


# -- a role ---------------------------------------------------------------------------------------


def test_an_assumed_role(tmp_path: Path) -> None:
    """Machines are bought in the role's account; it is assumed again before the hour is over."""
    site = Site(tmp_path, assume_role=ROLE, external_id="hostledger-7")
    site.launch()
    assert site.accounts() == {OTHER}
    (assumed,) = (c for c in site.place.sandbox.calls if c.action == "AssumeRole")
    assert assumed.params["RoleArn"] == ROLE
    assert assumed.params["ExternalId"] == "hostledger-7"
    assert assumed.params["RoleSessionName"] == "hostledger"
    for _ in range(4):
        site.clock.advance(1800)
        site.launch()
    assert site.place.actions().count("AssumeRole") == 3
    assert site.accounts() == {OTHER}


def test_a_role_assumed_by_a_programs_credentials(tmp_path: Path, script: Script) -> None:
    """The program's are for STS, the role's for all else."""
    site = Site(tmp_path, credential_script=script.command, assume_role=ROLE)
    script.gives("AKIAHOME", iso(site.clock.wall + 3600))
    site.launch()
    assert (site.accounts(), script.runs) == ({OTHER}, 1)


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("error", {"code": "AccessDenied", "status": 403}, "refused"),
        ("e500", {}, "unreachable"),
        ("throttle", {}, "unreachable"),
        ("hang", {}, "unreachable"),
        ("lost_response", {}, "unreachable"),
    ],
)
def test_a_role_that_cannot_be_assumed(
    tmp_path: Path, kind: str, params: dict[str, Any], expected: str
) -> None:
    """The launch was not sent, so it is never doubtful."""
    site = Site(tmp_path, assume_role=ROLE)
    site.place.sandbox.add_fault(kind, action="AssumeRole", **params)
    with pytest.raises(CallFailed) as caught:
        site.launch()
    assert caught.value.kind == expected
    assert "RunInstances" not in site.place.actions()
    site.launch()


# -- clients --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "service", "expected"),
    [
        (None, "ec2", None),
        ("https://ec2.us-west-2.amazonaws.com", "ec2", "https://ec2.us-west-2.amazonaws.com"),
        ("https://ec2.us-west-2.amazonaws.com", "ssm", None),
        ("https://vpce-1.ec2.us-west-2.vpce.amazonaws.com", "sqs", None),
        ("http://127.0.0.1:5000", "sqs", "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000", "ec2", "http://127.0.0.1:5000"),
    ],
)
def test_whose_address_an_endpoint_is(url: str | None, service: str, expected: str | None) -> None:
    """IBM's AWS_ENDPOINT_URL is EC2's; a stand-in is there for all services."""
    assert _endpoint(url, service) == expected


def test_one_session_for_all_clients() -> None:
    """Each client is shown to `on_client` once; what changes something is tried once."""
    clock = FakeClock()
    seen: list[Any] = []
    sandbox = Sandbox(clock=lambda: clock.wall)

    def on_client(client: Any) -> None:
        seen.append(client)
        sandbox.attach(client)

    settings = Aws.model_validate(
        {"region": "us-east-1", "config": {"retries": {"max_attempts": 4}}}
    )
    connection = Connection(settings, clock, Journal("", LOGGING), on_client)
    sandbox.put_parameter("/image", "ami-1")
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("DescribeImages", {"ImageIds": ["ami-1"]}, "ec2"),
        ("DescribeImages", {"ImageIds": ["ami-1"]}, "ec2"),
        ("DeleteLaunchTemplate", {"LaunchTemplateName": "gone"}, "ec2"),
        ("DeleteFleets", {"FleetIds": ["fleet-1"], "TerminateInstances": False}, "ec2"),
        ("DescribeAutoScalingGroups", {}, "autoscaling"),
        ("GetParameter", {"Name": "/image"}, "ssm"),
        ("GetCallerIdentity", {}, "sts"),
    ]
    for api, parameters, service in calls:
        try:
            connection.call(api, parameters, service)
        except CallFailed as failed:
            assert failed.kind == "template_gone"
    found = [
        (client.meta.service_model.service_name, client.meta.config.retries["total_max_attempts"])
        for client in seen
    ]
    assert found == [("ec2", 4), ("ec2", 1), ("autoscaling", 4), ("ssm", 4), ("sts", 4)]
