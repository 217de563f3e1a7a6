"""Whose credentials sign the calls to DynamoDB: those that botocore would find, in its order, and
found without it where they lie open.

In the environment, in a profile with static keys, or given to the instance by its metadata service
(IMDSv2). Everything else (roles, SSO, containers, programs of AWS's own files) is botocore's: it is
imported then, and only then. They are kept in memory alone.
"""

from __future__ import annotations

import os

from application.json_text import BadJson, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Keys = tuple[str, str, str | None]
    """Access key, secret key, session token."""

RENEWED_FROM = 300.0
"""Seconds before their end from which others are asked for: the instance has new ones by then
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html).
"""

ASKED_AGAIN = 60.0
"""Seconds after which they are asked for again when there were no others."""

INSTANCE = "http://169.254.169.254"
INSTANCE_TIMEOUT = 1.0
ROLES = "/latest/meta-data/iam/security-credentials/"

OF_BOTOCORE = (
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CREDENTIAL_FILE",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "BOTO_CONFIG",
)
"""Variables that say that credentials come from elsewhere."""

ELSEWHERE = ("role_", "source_", "credential_", "sso_", "web_identity_", "login_")
"""How a profile's settings begin that say so."""


class NoCredentials(Exception):
    """There are none; `str()` says why."""


class Credentials:
    """Those of one place (of `dynamodb_client.place_of`), looked for when they are first wanted."""

    def __init__(self, place: dict[str, Any]) -> None:
        self._place = place
        self._find: Callable[[], tuple[Keys, float | None]] | None = None
        self._keys: Keys | None = None
        self._renewed_at: float | None = None

    def keys(self, now: float) -> Keys:
        """Those that are good now. Raises NoCredentials."""
        if self._keys is None or (self._renewed_at is not None and now >= self._renewed_at):
            self._look(now)
        assert self._keys is not None
        return self._keys

    def renew(self, now: float) -> bool:
        """Look again: whether there are other ones now. Raises NoCredentials."""
        before = self._keys
        self._find = self._keys = None
        self._look(now)
        return self._keys != before

    def _look(self, now: float) -> None:
        if self._find is None:
            self._find = self._source()
        try:
            keys, end = self._find()
        except NoCredentials:
            if self._keys is None:
                raise
            # Those that are known may do: AWS says when they do not.
            keys, end = self._keys, now
        self._keys = keys
        self._renewed_at = None if end is None else max(end - RENEWED_FROM, now + ASKED_AGAIN)

    def _source(self) -> Callable[[], tuple[Keys, float | None]]:
        """What gives the credentials and when they end (seconds since the epoch)."""
        place = self._place
        if place["credential_script"]:
            return lambda: _of_script(place["credential_script"])
        environ = os.environ
        named = place["profile"] if place["profile"] != "default" else None
        if not named and environ.get("AWS_ACCESS_KEY_ID"):
            return _of_environment if environ.get("AWS_SECRET_ACCESS_KEY") else _Botocore(place)
        profile = named or environ.get("AWS_DEFAULT_PROFILE") or environ.get("AWS_PROFILE")
        try:
            known = _profile(profile or "default", place["credential_file"])
        except (OSError, ValueError):
            return _Botocore(place)
        if known is None or any(name.startswith(ELSEWHERE) for name in known):
            return _Botocore(place)
        if known.get("aws_access_key_id") and known.get("aws_secret_access_key"):
            return lambda: (_static(known), None)
        if "aws_access_key_id" in known or any(map(environ.get, OF_BOTOCORE)):
            return _Botocore(place)
        if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return _Botocore(place)
        return lambda: _of_instance() or _Botocore(place)()


def _of_environment() -> tuple[Keys, None]:
    environ = os.environ
    token = environ.get("AWS_SESSION_TOKEN") or environ.get("AWS_SECURITY_TOKEN")
    return (environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], token), None


def _of_script(command: str) -> tuple[Keys, float | None]:
    from application.ports import CallFailed
    from infrastructure.aws.credentials import end_of, script

    try:
        answer = script(command)()
        end = end_of(answer, "AWS_CREDENTIAL_SCRIPT")
    except CallFailed as failed:
        raise NoCredentials(str(failed)) from None
    keys = (answer["AccessKeyId"], answer["SecretAccessKey"], answer.get("SessionToken"))
    return keys, None if end is None else end.timestamp()


# -- AWS's files ----------------------------------------------------------------------------------


def _static(known: dict[str, str]) -> Keys:
    token = known.get("aws_session_token") or known.get("aws_security_token")
    return known["aws_access_key_id"], known["aws_secret_access_key"], token


def _profile(name: str, credential_file: str | None) -> dict[str, str] | None:
    """What the shared files say of a profile; None for one that must be there and is not. Keys of
    the file for configuration come last in botocore's order: with them alone, ValueError.

    Raises OSError, ValueError for what only botocore may understand.
    """
    environ = os.environ
    credentials = credential_file or environ.get("AWS_SHARED_CREDENTIALS_FILE")
    own = _sections(credentials or "~/.aws/credentials").get(name)
    sections = _sections(environ.get("AWS_CONFIG_FILE") or "~/.aws/config")
    general = sections.get(name if name == "default" else "profile " + name)
    if general is None and name == "default":
        general = sections.get("profile default")
    if own is None and general is None:
        return {} if name == "default" else None
    if "aws_access_key_id" in (general or {}) and "aws_access_key_id" not in (own or {}):
        raise ValueError(name)
    return {**(general or {}), **(own or {})}


def _sections(path: str) -> dict[str, dict[str, str]]:
    """The sections of a file of AWS's that is written as nearly all are. Raises ValueError for one
    that is not, OSError for one that cannot be read; one that is not there has none."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    value = "-"
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if line[0].isspace():
            if value:
                raise ValueError(line)
            continue  # settings within a setting (`s3 =`)
        if stripped[0] == "[" and stripped[-1] == "]":
            title = " ".join(stripped[1:-1].replace('"', "").split())
            section = found.setdefault(title, {})
            value = "-"
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if section is None or not equals or not name.replace("_", "").isalnum():
            raise ValueError(line)
        section[name.lower()] = value
    return found


# -- the instance's metadata service --------------------------------------------------------------


def _of_instance() -> tuple[Keys, float] | None:
    """Those of the instance's profile; None for none."""
    from datetime import datetime
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    given = urlsplit(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or INSTANCE)
    try:
        service = HTTPConnection(given.hostname or "", given.port, timeout=INSTANCE_TIMEOUT)
    except (ValueError, HTTPException):
        return None

    def ask(method: str, path: str, name: str, value: str) -> str:
        service.request(method, path, headers={name: value})
        response = service.getresponse()
        text = response.read().decode()
        if response.status != 200 or not text:
            raise OSError(f"{path}: {response.status}")
        return text

    try:
        token = ask("PUT", "/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds", "21600")
        role = ask("GET", ROLES, "x-aws-ec2-metadata-token", token).split()[0]
        answer = loads(ask("GET", ROLES + role, "x-aws-ec2-metadata-token", token))
        keys = (answer["AccessKeyId"], answer["SecretAccessKey"], answer["Token"])
        return keys, datetime.fromisoformat(answer["Expiration"]).timestamp()
    except (OSError, HTTPException, BadJson, LookupError, TypeError, ValueError):
        return None
    finally:
        service.close()


# -- everything else ------------------------------------------------------------------------------


class _Botocore:
    """Those that botocore finds; it renews them by itself, so that they are asked of it anew."""

    def __init__(self, place: dict[str, Any]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session

        session: Any = Session()
        if place["credential_file"]:
            session.set_config_variable("credentials_file", place["credential_file"])
        if place["profile"] != "default":
            session.set_config_variable("profile", place["profile"])
        self._errors = (BotoCoreError, ClientError, ValueError)
        try:
            self._found = session.get_credentials()
        except self._errors as error:
            raise NoCredentials(f"{type(error).__name__}: {error}") from None
        if self._found is None:
            raise NoCredentials("NoCredentialsError: Unable to locate credentials")

    def __call__(self) -> tuple[Keys, float]:
        try:
            frozen = self._found.get_frozen_credentials()
        except self._errors as error:
            raise NoCredentials(f"{type(error).__name__}: {error}") from None
        return (frozen.access_key, frozen.secret_key, frozen.token), 0.0
