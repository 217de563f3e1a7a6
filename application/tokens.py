"""The commands CreateToken and RevokeToken, and the tokens that the log knows."""

from __future__ import annotations

from application.failures import NoMoment
from application.replay import recorded
from domain.identifiers import TOKEN, new_id, sha256
from domain.refusals import UnknownToken
from domain.token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from application.ports import Ledger

    Row = dict[str, Any]

    class Log(Protocol):
        def events_of_topics(self, topics: tuple[str, ...], after: int) -> list[Row]: ...


TOPICS = ("TokenCreated", "TokenRevoked")
SECRET = "hlt_"
"""How every token begins, so that a scanner of sources and logs can tell one."""


class CreateToken:
    """`secret` are 32 random bytes: the token itself is made of them and is told once; `random` are
    16. `expires_at` is ISO 8601 UTC, "" for never."""

    def __init__(self, name: str, role: str, expires_at: str, secret: bytes, random: bytes) -> None:
        self.name = name
        self.role = role
        self.expires_at = expires_at
        self.token = SECRET + secret.hex()
        self.token_id = new_id(TOKEN, random)


class RevokeToken:
    def __init__(self, token_id: str, reason: str, random: bytes) -> None:
        self.token_id = token_id
        self.reason = reason
        self.command_id = "cmd-" + random.hex()


def digest_of(token: str) -> str:
    """What is stored of a token: it has 256 random bits, so that no salt is needed."""
    return str(sha256(token.encode()).hexdigest())


def ends_after(now: float, days: int) -> str:
    """The moment so many days after one (seconds since the epoch), as the ledger has it; "" for no
    days: never. Raises NoMoment."""
    if not days:
        return ""
    from datetime import UTC, datetime, timedelta

    try:
        return recorded((datetime.fromtimestamp(now, UTC) + timedelta(days=days)).isoformat())
    except OverflowError:
        raise NoMoment(f"{days} days from now is no date: give fewer, or 0 for never") from None


def create_token(command: CreateToken, ledger: Ledger, **metadata: Any) -> str:
    """Record it; its id."""
    token = Token.create(
        command.token_id, command.name, command.role, digest_of(command.token), command.expires_at
    )
    ledger.save(token, correlation_id=command.token_id, **metadata)
    return command.token_id


def revoke_token(command: RevokeToken, ledger: Ledger, **metadata: Any) -> None:
    """From its commit on the token opens nothing. Raises UnknownToken, TokenIsRevoked."""
    token = ledger.get(Token, command.token_id)
    if token is None:
        raise UnknownToken(
            f"the ledger has no token {command.token_id}: `hostledger tokens list` shows them"
        )
    token.revoke(command.reason)
    ledger.save(token, correlation_id=command.command_id, **metadata)


class Tokens:
    """The tokens of a log, followed to wherever it is asked: by id in `known`, as documents."""

    def __init__(self) -> None:
        self.position = 0
        self.known: dict[str, Row] = {}
        self._by_digest: dict[str, Row] = {}

    def follow(self, log: Log) -> None:
        """Take in what came since. Raises StoreError."""
        from application.json_text import loads

        for event in log.events_of_topics(TOPICS, self.position):
            self.position = event["position"]
            token_id = event["stream"].partition("-")[2]
            data = loads(event["data"])
            if event["topic"] == "TokenRevoked":
                self.known[token_id].update(revoked_at=event["recorded_at"], reason=data["reason"])
                continue
            digest = data.pop("digest")
            self.known[token_id] = self._by_digest[digest] = {
                "token_id": token_id,
                **data,
                "expires_at": data["expires_at"] or None,
                "created_at": event["recorded_at"],
                "revoked_at": None,
                "reason": None,
            }

    def find(self, token: str, now: str) -> Row | None:
        """The one that is in force at a time (ISO 8601 as stored), None for any other."""
        found = self._by_digest.get(digest_of(token))
        if found is None or found["revoked_at"]:
            return None
        return None if found["expires_at"] and found["expires_at"] <= now else found
