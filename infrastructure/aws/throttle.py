"""Keeping under AWS's own limits: token buckets and a breaker, on the port clock.

EC2 keeps a bucket of requests for each API and one of launched instances, per account and region
(https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
"""

from __future__ import annotations

from collections.abc import Callable

Seconds = Callable[[], float]

FAILURES, WITHIN, OPEN_FOR = 5, 30.0, 30.0
"""So many 5xx or time-outs within so many seconds open a breaker for so many."""

CLEAN_TIME, RISE, LEAST_RATE = 10.0, 1.05, 0.1
"""After a throttle the rate is halved; it rises by 5 % for each 10 s without one."""


class Bucket:
    """`size` tokens, refilled by `rate` a second; the rate adapts to throttles."""

    def __init__(self, size: float, rate: float, seconds: Seconds) -> None:
        self._size = size
        self._full_rate = self._rate = rate
        self._seconds = seconds
        self._tokens = size
        self._at = self._changed = seconds()

    def _refill(self) -> None:
        now = self._seconds()
        self._tokens = min(self._size, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        clean = int((now - self._changed) / CLEAN_TIME)
        if clean > 0 and self._rate < self._full_rate:
            self._rate = min(self._full_rate, self._rate * RISE ** min(clean, 1000))
            self._changed += clean * CLEAN_TIME

    def has(self, tokens: float = 1.0) -> bool:
        """Whether so many could be taken now; more than the size counts as the whole bucket."""
        self._refill()
        return self._tokens >= min(tokens, self._size)

    def take(self, tokens: float = 1.0) -> bool:
        """Take them, or none. More than the size leaves a debt that later refills pay."""
        if not self.has(tokens):
            return False
        self._tokens -= tokens
        return True

    def throttled(self) -> None:
        """AWS said that we are too fast: it has fewer tokens than we thought."""
        self._refill()
        self._tokens = min(self._tokens, 0.0)
        self._rate = max(self._full_rate * LEAST_RATE, self._rate / 2)
        self._changed = self._at


class Breaker:
    """Opened by failures of the other side, never by throttles or shortages."""

    def __init__(self, seconds: Seconds) -> None:
        self._seconds = seconds
        self._failures: list[float] = []
        self._open_until = 0.0
        self._is_open = False

    def admits(self) -> bool:
        """Whether a call may go: closed, or open for long enough that one may probe."""
        return not self._is_open or self._seconds() >= self._open_until

    def failed(self) -> None:
        now = self._seconds()
        self._failures = [at for at in self._failures if now - at < WITHIN] + [now]
        if self._is_open or len(self._failures) >= FAILURES:
            self._is_open = True
            self._open_until = now + OPEN_FOR

    def succeeded(self) -> None:
        self._failures.clear()
        self._is_open = False
