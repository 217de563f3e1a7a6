"""Whose credentials sign the calls to DynamoDB: what botocore would take, without it where it can
be had so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from infrastructure.event_store.dynamodb_credentials import Credentials, NoCredentials

NOW = 1_800_000_000.0
ENV = {"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "env-secret"}
TWO = """
# of the site
[default]
aws_access_key_id = one
aws_secret_access_key = one-secret=
[other]
AWS_Access_Key_Id=two
aws_secret_access_key=two+/secret
aws_session_token=two-token
"""
ROLE = "[profile other]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n"
PROCESS = (
    '[profile other]\ncredential_process = printf \'{"Version": 1, "AccessKeyId": "made", '
    '"SecretAccessKey": "x"}\'\n'
)


def place(**own: Any) -> dict[str, Any]:
    return {"credential_file": None, "credential_script": None, "profile": "default", **own}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No instance, and nothing that AWS's tools look at."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def write(root: Path, credentials: str, config: str = "") -> None:
    (root / ".aws").mkdir(exist_ok=True)
    for name, text in (("credentials", credentials), ("config", config)):
        if text:
            (root / ".aws" / name).write_text(text)


def of_botocore(profile: str) -> tuple[str, str, str | None] | None:
    session: Any = Session()
    if profile != "default":
        session.set_config_variable("profile", profile)
    try:
        found = session.get_credentials()
    except BotoCoreError:
        return None
    if found is None:
        return None
    frozen = found.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


LAYOUTS: dict[str, tuple[dict[str, str], str, str, str, bool]] = {
    # variables, credentials file, configuration file, profile; whether botocore must be asked
    "environment": (ENV, TWO, "", "default", False),
    "environment with a token": ({**ENV, "AWS_SESSION_TOKEN": "t"}, "", "", "default", False),
    "half of the environment": ({"AWS_ACCESS_KEY_ID": "env"}, TWO, "", "default", True),
    "file": ({}, TWO, "", "default", False),
    "named profile before the environment": (ENV, TWO, "", "other", False),
    "profile of the environment": ({"AWS_PROFILE": "other"}, TWO, "", "default", False),
    "no such profile": ({}, TWO, "", "third", True),
    "no such profile of the environment": ({"AWS_PROFILE": "third"}, TWO, "", "default", True),
    "configuration of other things": ({}, TWO, "[default]\nregion = x\ns3 =\n  a = b\n", "default",
                                      False),
    "keys in the configuration": ({}, "", TWO.replace("[other", "[profile other"), "other", True),
    "keys in both": ({}, TWO, TWO.replace("one", "three"), "default", False),
    "program": ({}, "", PROCESS, "other", True),
    "keys before a program": ({}, TWO, PROCESS, "other", True),
    "role of another profile": ({}, TWO, ROLE, "default", False),
    "indented": ({}, "[default]\n  aws_access_key_id = a\n  aws_secret_access_key = b\n", "",
                 "default", True),
    "with colons": ({}, "[default]\naws_access_key_id: a\naws_secret_access_key: b=\n", "",
                    "default", True),
    "nothing": ({}, "", "", "default", True),
    "half": ({}, "[default]\naws_access_key_id = a\n", "", "default", True),
    "not a file of theirs": ({}, "hello\n", "", "default", True),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_botocore_finds(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, credentials, config, profile, _ = LAYOUTS[layout]
    write(tmp_path, credentials, config)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = of_botocore(profile)
    given = Credentials(place(profile=profile))
    if expected is None:
        with pytest.raises(NoCredentials):
            given.keys(NOW)
    else:
        assert given.keys(NOW) == expected


def test_botocore_is_asked_where_it_must_be_alone(tmp_path: Path) -> None:
    program = (
        "import json, os, sys\n"
        "from infrastructure.event_store.dynamodb_credentials import Credentials, NoCredentials\n"
        "for home, variables, profile in json.loads(sys.argv[1]):\n"
        "    os.environ.update(variables, HOME=home)\n"
        "    place = {'credential_file': None, 'credential_script': None, 'profile': profile}\n"
        "    Credentials(place).keys(0.0)\n"
        "    for name in variables: del os.environ[name]\n"
        "print('botocore' in sys.modules)\n"
    )
    cases = []
    for layout, (variables, credentials, config, profile, must) in LAYOUTS.items():
        if not must:
            home = tmp_path / layout
            home.mkdir()
            write(home, credentials, config)
            cases.append([str(home), variables, profile])
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(cases)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_role_is_asked_of_botocore(tmp_path: Path) -> None:
    """Although the profile has keys too; what it says is told."""
    write(tmp_path, TWO, ROLE.replace("source_profile = default\n", ""))
    with pytest.raises(NoCredentials, match="PartialCredentialsError"):
        Credentials(place(profile="other")).keys(NOW)


def test_a_file_that_the_site_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TWO.replace("one", "home"))
    (tmp_path / "own").write_text(TWO)
    (tmp_path / "env").write_text(TWO.replace("one", "env"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "env"))
    assert Credentials(place()).keys(NOW)[0] == "env"
    named = Credentials(place(credential_file=str(tmp_path / "own")))
    assert named.keys(NOW)[0] == "one"
    assert not named.renew(NOW)
    (tmp_path / "own").write_text(TWO.replace("one", "new"))
    assert named.keys(NOW + 1e6)[0] == "one"  # until AWS refuses them
    assert named.renew(NOW)
    assert named.keys(NOW) == ("new", "new-secret=", None)


# -- a program -------------------------------------------------------------------------------------


def test_a_program_s_are_renewed_before_their_end(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        "#!/bin/sh\nprintf x >> $0.runs\n"
        """printf '{"AccessKeyId": "%s", "SecretAccessKey": "s", "Expiration": "%s"}' """
        f"$(wc -c < $0.runs) {iso(NOW + 3600)}\n"
    )
    script.chmod(0o700)
    given = Credentials(place(credential_script=str(script)))
    assert [given.keys(NOW + t)[0] for t in (0, 3299, 3301, 3360, 3362)] == [
        "1",
        "1",
        "2",
        "2",
        "3",
    ]
    script.write_text("#!/bin/sh\nexit 3\n")
    assert given.keys(NOW + 3500)[0] == "3"
    with pytest.raises(NoCredentials, match="ended with status 3"):
        given.renew(NOW + 3500)


# -- the instance's metadata service ---------------------------------------------------------------


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Instance(ThreadingHTTPServer):
    """The metadata service of an instance with the profile `farm`; `up` is whether it answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Metadata)
        self.up = True
        self.number = 0
        self.end = NOW + 21_600
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Metadata(BaseHTTPRequestHandler):
    server: Instance
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        wanted = self.headers["x-aws-ec2-metadata-token-ttl-seconds"]
        self._answer("TOKEN" if self.path == "/latest/api/token" and wanted else None)

    def do_GET(self) -> None:
        roles = "/latest/meta-data/iam/security-credentials/"
        if self.path == "/container":
            self._answer(self._keys("container"))
        elif self.headers["x-aws-ec2-metadata-token"] != "TOKEN":
            self._answer(None)
        elif self.path == roles:
            self._answer("farm")
        elif self.path == roles + "farm":
            self.server.number += 1
            self._answer(self._keys(f"role-{self.server.number}"))
        else:
            self._answer(None)

    def _keys(self, key: str) -> str:
        keys = {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t"}
        return json.dumps({**keys, "Expiration": iso(self.server.end)})

    def _answer(self, text: str | None) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = (text or "").encode()
        self.send_response(200 if text and self.server.up else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    with Instance() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        yield server
        server.shutdown()
        thread.join()


def test_the_instance_s_profile(instance: Instance, tmp_path: Path) -> None:
    """Where nothing else says whose; by a token, three questions and no more."""
    write(tmp_path, "", "[default]\nregion = us-east-1\n")
    assert Credentials(place()).keys(NOW) == ("role-1", "s", "t")
    assert len(instance.asked) == 3
    for layout in ("file", "indented", "with colons"):
        _, credentials, _, _, _ = LAYOUTS[layout]
        write(tmp_path, credentials)
        assert Credentials(place()).keys(NOW)[0] in ("one", "a")
    assert len(instance.asked) == 3


def test_the_instance_s_are_renewed_before_their_end(instance: Instance) -> None:
    given = Credentials(place())
    assert given.keys(NOW)[0] == "role-1"
    assert given.keys(instance.end - 301)[0] == "role-1"
    before = instance.end
    instance.end += 21_600
    assert given.keys(before - 299)[0] == "role-2"
    # There is nobody to ask: those that are known serve as long as AWS takes them.
    instance.up = False
    late = instance.end + 10
    asked = len(instance.asked)
    assert given.keys(late)[0] == "role-2"
    assert len(instance.asked) > asked
    asked = len(instance.asked)
    assert given.keys(late + 59)[0] == "role-2"
    assert len(instance.asked) == asked
    instance.up = True
    instance.end = late + 21_600
    assert given.keys(late + 61)[0] == "role-3"


def test_the_instance_is_not_asked(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it must not be, or a container has credentials of its own."""
    instance.end = datetime.now(UTC).timestamp() + 3600
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(NoCredentials):
        Credentials(place()).keys(NOW)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", instance.url + "/container")
    assert Credentials(place()).keys(NOW) == ("container", "s", "t")
    assert instance.asked == ["GET /container"]
