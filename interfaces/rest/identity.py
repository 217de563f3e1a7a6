"""Who asks: a token of ours, or one of the site's identity provider."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from application.tokens import SECRET, Tokens
from domain.token import ROLES
from interfaces.rest.looks import Looks
from interfaces.rest.problems import Problem

UNKNOWN_KEY_AGAIN = 60.0
"""Seconds before the provider is asked again for a key that it does not have."""

UNREACHABLE_AGAIN = 10.0
"""The same where it did not answer: tokens of others, or of nobody, must not fill the threads."""

REVOKED_WITHIN = 1.0
"""Seconds in which a revoked token is still let in; a new one is at once."""

CLOCK_SKEW = 60
"""Seconds that the provider's clock may differ from ours."""

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Signatures with a public key: a symmetric one, or none, is never accepted."""


class Principal:
    """Who asks; `name` is what the ledger has of it."""

    __slots__ = ("name", "role")

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role


class Identities:
    """Principals by the token that they show."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._tokens = Tokens()
        self._following = asyncio.Lock()
        self._followed = float("-inf")
        oidc = looks.settings["server"]["oidc"]
        self._provider = _Provider(looks, oidc) if oidc["issuer"] else None

    def forget(self) -> None:
        """Look at the tokens again before the next is let in: one was revoked here."""
        self._followed = float("-inf")

    async def of(self, token: str) -> Principal:
        """Raises Problem 401."""
        if token.startswith(SECRET):
            found = self._tokens.find(token, _now())
            if found is None or time.monotonic() - self._followed >= REVOKED_WITHIN:
                async with self._following:  # a thread may do it
                    await self._looks.ask(self._tokens.follow)
                self._followed = time.monotonic()
                found = self._tokens.find(token, _now())
            if found is not None:
                return Principal(f"{found['token_id']} {found['name']}".rstrip(), found["role"])
        elif self._provider is not None and token.count(".") == 2:
            return await self._provider.principal(token)
        raise unauthenticated("the token is unknown, has ended, or was revoked")


def unauthenticated(why: str) -> Problem:
    return Problem(
        401,
        "unauthenticated",
        f"{why}: send `Authorization: Bearer TOKEN`; `hostledger tokens create --role viewer`, "
        "run where the ledger is, prints one",
        {"WWW-Authenticate": 'Bearer realm="hostledger"'},
    )


class _Provider:
    """An OpenID Connect provider: its keys, and what its tokens say
    (OpenID Connect Discovery 1.0, RFC 7519)."""

    def __init__(self, looks: Looks, settings: Mapping[str, Any]) -> None:
        self._looks = looks
        self._settings = settings
        self._keys: dict[str | None, Any] = {}
        self._ask_again = float("-inf")
        self._asking = asyncio.Lock()

    async def principal(self, token: str) -> Principal:
        """Raises Problem 401, or 403 for a token without a role here."""
        import jwt

        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._key(key_id)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],
                audience=self._settings["audience"],
                issuer=self._settings["issuer"],
                leeway=CLOCK_SKEW,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise unauthenticated(f"the token is not accepted ({error})") from None
        role = self._role(claims.get(self._settings["role_claim"]))
        if role is None:
            raise Problem(
                403,
                "forbidden",
                f"the token's {self._settings['role_claim']} has none of the names in "
                f"server.oidc.roles ({', '.join(self._settings['roles'])})",
            )
        return Principal(f"{claims['sub']} of {self._settings['issuer']}", role)

    def _role(self, claimed: object) -> str | None:
        names = claimed.split() if isinstance(claimed, str) else claimed
        if not isinstance(names, list):
            return None
        roles = self._settings["roles"]
        found = [roles[name] for name in names if isinstance(name, str) and name in roles]
        return max(found, key=ROLES.index, default=None)

    async def _key(self, key_id: str | None) -> Any:
        async with self._asking:
            if key_id not in self._keys and time.monotonic() >= self._ask_again:
                self._ask_again = time.monotonic() + UNREACHABLE_AGAIN
                self._keys = await self._looks.run(self._fetch)
                self._ask_again = time.monotonic() + UNKNOWN_KEY_AGAIN
        key = self._keys.get(key_id)
        if key is None or key.algorithm_name not in ALGORITHMS:
            raise unauthenticated("the identity provider has no such key")
        return key

    def _fetch(self) -> dict[str | None, Any]:
        import jwt

        try:
            url = self._settings["jwks_url"]
            if url is None:
                issuer = self._settings["issuer"].rstrip("/")
                url = _get(f"{issuer}/.well-known/openid-configuration")["jwks_uri"]
            keys = jwt.PyJWKSet.from_dict(_get(url)).keys
        except (OSError, ValueError, LookupError, jwt.PyJWTError) as error:
            raise Problem(
                503,
                "identity-provider-unreachable",
                f"the keys of {self._settings['issuer']} cannot be read: {error}",
                {"Retry-After": f"{UNREACHABLE_AGAIN:g}"},
            ) from None
        return {key.key_id: key for key in keys}


def _get(url: str) -> dict[str, Any]:
    import json
    from urllib.request import urlopen

    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError(f"{url} is not https")
    with urlopen(url, timeout=10) as answer:  # https alone, see above  # nosec B310
        document: dict[str, Any] = json.loads(answer.read(1_000_000))
    return document


def _now() -> str:
    """The time as the ledger has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
