"""An API token: who may ask the server, and for what. The ledger has its digest, never itself."""

from __future__ import annotations

from domain.event_sourced import Aggregate, DomainEvent
from domain.refusals import TokenIsRevoked

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
ROLES = (VIEWER, OPERATOR, ADMIN)
"""Each may do what those before it may: look; ask for machines, return them, cancel; make
tokens."""


def allows(role: str, wanted: str) -> bool:
    """Whether who has a role may do what takes another one."""
    return ROLES.index(role) >= ROLES.index(wanted)


class TokenCreated(DomainEvent):
    """`digest` is the sha256 of the token; `expires_at` ISO 8601 UTC, "" for never."""

    name: str
    role: str
    digest: str
    expires_at: str


class TokenRevoked(DomainEvent):
    reason: str


class Token(Aggregate):
    STREAM = "token"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.name = ""
        self.role = ""
        self.revoked = False

    @classmethod
    def create(cls, token_id: str, name: str, role: str, digest: str, expires_at: str) -> Token:
        token = cls(cls.stream(token_id))
        token._trigger(TokenCreated, name=name, role=role, digest=digest, expires_at=expires_at)
        return token

    def revoke(self, reason: str) -> None:
        """Raises TokenIsRevoked."""
        if self.revoked:
            raise TokenIsRevoked(f"token {self.identifier} is revoked already")
        self._trigger(TokenRevoked, reason=reason)

    def evolve(self, event: DomainEvent) -> None:
        if isinstance(event, TokenCreated):
            self.name, self.role = event.name, event.role
        elif isinstance(event, TokenRevoked):
            self.revoked = True
