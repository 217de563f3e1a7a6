"""Credentials that are renewed: of an assumed role, or those that a program of the site gives.

They are kept in memory alone: no message, event or line of the log has any of what was answered.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from application.ports import CallFailed, Clock
from infrastructure.telemetry.journal import Journal

Fetch = Callable[[], dict[str, Any]]
"""Gives AccessKeyId, SecretAccessKey, SessionToken, Expiration (a time or its ISO 8601 text), the
last two maybe not. Raises CallFailed."""

LAST_MOMENT = 60.0
"""Seconds before the end from which a renewal that fails is a failure of the call."""

SLOWEST_SCRIPT = 6.0
SLOWEST_ROLE = (2.0, 2.0)
"""Seconds that a renewal may take, by a program and by STS (to connect, to read): together no more
than what a lease outlives a call by, since a call may begin with both."""

SESSION = "hostledger"
"""The name of our sessions in the trail of the role's account."""


def script(command: str, within: float = SLOWEST_SCRIPT) -> Fetch:
    """Those that a program prints as JSON, as AWS documents it for credential_process
    (https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html), also within
    `Credentials`, as `aws sts assume-role` prints them."""

    def fetch() -> dict[str, Any]:
        try:
            done = subprocess.run(
                shlex.split(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=within,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _no_script(f"took more than {within:g} s") from None
        except (OSError, ValueError) as error:
            raise _no_script(f"cannot be run: {type(error).__name__}") from None
        if done.returncode:
            raise _no_script(f"ended with status {done.returncode}")
        try:
            answer = json.loads(done.stdout)
            answer = answer.get("Credentials", answer)
            if answer["AccessKeyId"] and answer["SecretAccessKey"]:
                return dict(answer)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        # The reason would quote what the program printed.
        raise _no_script("printed no JSON with AccessKeyId and SecretAccessKey")

    return fetch


def _no_script(problem: str) -> CallFailed:
    return CallFailed("unreachable", "CredentialScript", f"AWS_CREDENTIAL_SCRIPT {problem}")


def role(sts: Any, arn: str, external_id: str | None) -> Fetch:
    """Those of an assumed role (API_AssumeRole.html of STS)."""
    parameters = {"RoleArn": arn, "RoleSessionName": SESSION}
    if external_id:
        parameters["ExternalId"] = external_id

    def fetch() -> dict[str, Any]:
        from infrastructure.aws.errors import failure

        try:
            answer = sts.assume_role(**parameters)
        except Exception as error:
            failed = failure(error, "AssumeRole")
            # Whatever happened to it, the call that needs the credentials was not sent.
            kind = "refused" if failed.kind == "refused" else "unreachable"
            raise CallFailed(kind, failed.code, failed.message) from error
        return dict(answer["Credentials"])

    return fetch


def renewed(fetch: Fetch, source: str, clock: Clock, journal: Journal, margin: float) -> Any:
    """botocore credentials that are fetched now, and again `margin` seconds before their end; for
    ever when they have none. Raises CallFailed."""
    from botocore.credentials import Credentials, RefreshableCredentials

    def now() -> datetime:
        return datetime.fromtimestamp(clock.now()[0], UTC)

    def metadata() -> dict[str, Any]:
        try:
            answer = fetch()
            end = end_of(answer, source)
            if end is not None and end <= now():
                raise CallFailed("unreachable", "ExpiredToken", f"{source}: expired already")
        except CallFailed as failed:
            journal.warn("no credentials", source=source, code=failed.code)
            raise
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "token": answer.get("SessionToken"),
            # None would break botocore: what was to end once ends never.
            "expiry_time": (end or datetime.max.replace(tzinfo=UTC)).isoformat(),
            "end": end,
        }

    first = metadata()
    keys = (first["access_key"], first["secret_key"], first["token"])
    if first["end"] is None:
        return Credentials(*keys, method=source)
    return RefreshableCredentials(
        *keys,
        expiry_time=first["end"],
        refresh_using=metadata,
        method=source,
        time_fetcher=now,
        advisory_timeout=int(margin),
        mandatory_timeout=int(min(margin, LAST_MOMENT)),
    )


def end_of(answer: dict[str, Any], source: str) -> datetime | None:
    """When fetched credentials end; None for never. Raises CallFailed."""
    given = answer.get("Expiration")
    if not given or isinstance(given, datetime):
        return given or None
    try:
        end = datetime.fromisoformat(str(given))
    except ValueError:
        raise CallFailed(
            "unreachable", "CredentialScript", f"{source}: no end in ISO 8601"
        ) from None
    return end if end.tzinfo else end.replace(tzinfo=UTC)
