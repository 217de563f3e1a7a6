"""Who calls: the accounts behind access keys, sts' temporary credentials, and what is denied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from .wire import Asked, AwsError, tag, timestamp

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/(?:.+/)?(?P<name>[^/]+)")
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
# API_AssumeRole.html: 15 minutes to 12 hours, by default one; one at most from another role.
_DURATION_MIN, _DURATION_MAX, _DURATION = 900, 12 * 3600, 3600

# How the services name credentials that have expired: from memory, but for sqs (its answer is
# quoted on re:Post) and the JSON services (CommonErrors.html, ExpiredTokenException). For EC2 it
# is RequestExpired, which is documented for late requests (errors-overview.html).
_EXPIRED = {
    "ec2": ("RequestExpired", "Request has expired.", 400),
    "ssm": ("ExpiredTokenException", "The security token included in the request is expired", 400),
}
_EXPIRED_ELSEWHERE = ("ExpiredToken", "The security token included in the request is expired", 403)


@dataclass(frozen=True)
class Caller:
    """Who makes a call: the account and the identity in it.

    `expires` is in seconds of the clock, with `session_token` for temporary credentials only.
    """

    account: str
    arn: str
    user_id: str
    expires: float | None = None
    session_token: str | None = None


@dataclass
class Accounts:
    """The accounts of a sandbox: `default` and those of `keys` (access key id -> account)."""

    default: str
    keys: Mapping[str, str] = field(default_factory=dict)
    _sessions: dict[str, Caller] = field(default_factory=dict)
    _denied: list[tuple[str, str | None]] = field(default_factory=list)

    def caller(self, asked: Asked) -> Caller:
        """Who calls. A key that is not known is the default account's."""
        key = asked.access_key or ""
        if key in self._sessions:
            return self._sessions[key]
        account = self.keys.get(key, self.default)
        return Caller(account, f"arn:aws:iam::{account}:user/sandbox", "AIDASANDBOX0000000000")

    def deny(self, action: str, account: str | None) -> None:
        """Refuse calls from now on; see Sandbox.deny."""
        self._denied.append((action, account))

    def allow(self, action: str, account: str | None) -> None:
        """Take a denial back that was made with the same words."""
        self._denied = [denied for denied in self._denied if denied != (action, account)]

    def check(self, asked: Asked, caller: Caller, now: float) -> None:
        """Refuse a call whose credentials are not good, or that is denied.

        Raises AwsError as the service names it.
        """
        if caller.expires is not None:
            if asked.session_token != caller.session_token:
                raise _unknown_token(asked.service)
            if now >= caller.expires:
                code, message, status = _EXPIRED.get(asked.service, _EXPIRED_ELSEWHERE)
                raise AwsError(code, message, status)
        # "No permissions are required to perform this operation", API_GetCallerIdentity.html
        if asked.action == "GetCallerIdentity":
            return
        name = f"{asked.service}:{asked.action}"
        for action, account in self._denied:
            words = action if ":" in action else f"*:{action}"
            if account in (None, caller.account) and fnmatchcase(name, words):
                raise _refusal(asked, caller)

    def identity(self, caller: Caller) -> str:
        """The inside of sts GetCallerIdentity's result."""
        return f"{tag('Arn', caller.arn)}{tag('UserId', caller.user_id)}" + tag(
            "Account", caller.account
        )

    def assume_role(self, params: Mapping[str, str], caller: Caller, now: float) -> str:
        """Give out keys for the account of the role (API_AssumeRole.html).

        Every role exists and trusts everybody; an ExternalId is not compared. Raises
        ValidationError.
        """
        arn, name = params.get("RoleArn", ""), params.get("RoleSessionName", "")
        role = _ROLE.fullmatch(arn)
        if role is None:
            raise AwsError("ValidationError", f"{arn} is invalid")
        if not _SESSION_NAME.fullmatch(name):
            raise AwsError("ValidationError", f"Value '{name}' at 'roleSessionName' is invalid")
        seconds = _duration(params.get("DurationSeconds"))
        # Role chaining, id_roles.html: "a maximum of one hour"
        if caller.expires is not None and seconds > _DURATION:
            raise AwsError(
                "ValidationError",
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed "
                "by role chaining",
            )
        number = len(self._sessions) + 1
        key, token = f"ASIASANDBOX{number:09d}", f"sandbox-session-{number}"
        account = role["account"]
        user_id = f"AROASANDBOX0000000000:{name}"
        assumed = f"arn:aws:sts::{account}:assumed-role/{role['name']}/{name}"
        self._sessions[key] = Caller(account, assumed, user_id, now + seconds, token)
        return (
            f"<AssumedRoleUser>{tag('AssumedRoleId', user_id)}{tag('Arn', assumed)}"
            f"</AssumedRoleUser><Credentials>{tag('AccessKeyId', key)}"
            f"{tag('SecretAccessKey', f'sandbox-secret-{number}')}{tag('SessionToken', token)}"
            f"{tag('Expiration', timestamp(now + seconds))}</Credentials>"
        )


def _duration(text: str | None) -> int:
    if text is None:
        return _DURATION
    if not text.isdigit() or not _DURATION_MIN <= int(text) <= _DURATION_MAX:
        raise AwsError(
            "ValidationError",
            f"Value '{text}' at 'durationSeconds' must be from {_DURATION_MIN} to {_DURATION_MAX}",
        )
    return int(text)


def _unknown_token(service: str) -> AwsError:
    """A temporary key without its token, or with another's. The codes are from memory."""
    if service == "ec2":
        message = "AWS was not able to validate the provided access credentials"
        return AwsError("AuthFailure", message, 401)
    message = "The security token included in the request is invalid."
    if service == "ssm":
        return AwsError("UnrecognizedClientException", message)
    return AwsError("InvalidClientTokenId", message, 403)


def _refusal(asked: Asked, caller: Caller) -> AwsError:
    """What a caller without permission hears (troubleshoot_access-denied.html, IAM User Guide).

    The resource is that of a policy which names none more closely.
    """
    name = f"{asked.service}:{asked.action}"
    message = (
        f"User: {caller.arn} is not authorized to perform: {name} on resource: "
        f"arn:aws:{asked.service}:{asked.region}:{caller.account}:* because no identity-based "
        f"policy allows the {name} action"
    )
    if asked.service == "ec2":
        words = f"You are not authorized to perform this operation. {message}"
        return AwsError("UnauthorizedOperation", words, 403)
    if asked.service == "ssm":
        # AWS JSON services name it so, and answer 400 (CommonErrors.html).
        return AwsError("AccessDeniedException", message)
    # SQS' codes of before JSON: sqs-json-api-responses.html; its shape is from memory.
    shape = "AccessDeniedException" if asked.service == "sqs" else None
    return AwsError("AccessDenied", message, 403, shape=shape)
