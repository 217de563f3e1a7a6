"""The token buckets by which EC2 throttles: per account and region, one for each API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

# API names that begin so change nothing; they share the larger default bucket size.
_READS = ("Describe", "Get", "List", "Search")

# Parameters that narrow or page a listing. One without any is "unfiltered and unpaginated".
_NARROWING = ("Filter.", "MaxResults", "NextToken", "InstanceId.")


@dataclass(frozen=True)
class Limit:
    """A bucket's size in tokens and how many tokens return each second."""

    burst: float
    per_second: float


@dataclass(frozen=True)
class Quotas:
    """How much an account may ask for in one region. None is no limit.

    Source: "Request throttling for the Amazon EC2 API", EC2 Developer Guide
    (ec2-api-throttling.html). `requests` holds the buckets of single APIs; every other API has a
    bucket of its own of the `reads` or `writes` size. `launches` and `terminations` are the
    resource buckets: one token for each instance.
    """

    requests: Mapping[str, Limit | None] = field(default_factory=dict)
    reads: Limit | None = None
    unfiltered_reads: Limit | None = None
    writes: Limit | None = None
    launches: Limit | None = None
    terminations: Limit | None = None

    @classmethod
    def generous(cls) -> Quotas:
        """No limits."""
        return cls()

    @classmethod
    def aws(cls) -> Quotas:
        """AWS's documented numbers for a new account."""
        return cls(
            requests={
                "RunInstances": Limit(5, 2),
                "TerminateInstances": Limit(100, 5),
                "CreateTags": Limit(100, 10),
            },
            reads=Limit(100, 20),
            unfiltered_reads=Limit(50, 10),
            writes=Limit(50, 5),
            launches=Limit(1000, 2),
            terminations=Limit(1000, 20),
        )

    def with_requests(self, **limits: Limit | None) -> Quotas:
        """These quotas with other request buckets for the APIs named."""
        return replace(self, requests={**self.requests, **limits})

    def request_bucket(self, action: str, params: Mapping[str, str]) -> tuple[str, Limit | None]:
        """The name and limit of the bucket that a call of `action` draws one token from."""
        if action in self.requests:
            return action, self.requests[action]
        if not action.startswith(_READS):
            return action, self.writes
        if any(name.startswith(_NARROWING) for name in params):
            return action, self.reads
        return f"{action} (unfiltered)", self.unfiltered_reads


@dataclass
class _Level:
    tokens: float
    at: float


class Buckets:
    """The levels of all buckets of one account and region."""

    def __init__(self) -> None:
        self._levels: dict[str, _Level] = {}

    def take(self, name: str, limit: Limit | None, tokens: float, now: float) -> bool:
        """Take `tokens` from bucket `name` at `now` (seconds), or leave it and say False."""
        if limit is None:
            return True
        level = self._filled(name, limit, now)
        # The allowance is for float rounding: 0.5 s at 2/s must be one whole token.
        if level.tokens + 1e-9 < tokens:
            return False
        level.tokens -= tokens
        return True

    def take_between(
        self, name: str, limit: Limit | None, least: int, most: int, now: float
    ) -> int:
        """Take as many whole tokens as there are, at most `most`, and say how many; 0 and nothing
        taken when there are not `least`."""
        if limit is None:
            return most
        level = self._filled(name, limit, now)
        count = min(most, int(level.tokens + 1e-9))
        if count < least:
            return 0
        level.tokens -= count
        return count

    def _filled(self, name: str, limit: Limit, now: float) -> _Level:
        level = self._levels.setdefault(name, _Level(limit.burst, now))
        # A clock that was set back refills nothing; it must not empty the bucket either.
        elapsed = max(0.0, now - level.at)
        level.tokens = min(limit.burst, level.tokens + elapsed * limit.per_second)
        level.at = now
        return level
