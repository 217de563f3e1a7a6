"""Moments that can be compared although the wall clock may be set while we look away."""

from __future__ import annotations

Instant = tuple[float, str, float]
"""Wall seconds since the epoch (UTC), the machine's boot id, seconds since that boot."""


def seconds_between(earlier: Instant, later: Instant) -> float:
    """How long ago `earlier` was, by the boot clock where both are of one boot, never negative.

    The wall clock may be set an hour back or forward without anything expiring or waiting.
    """
    if earlier[1] == later[1]:
        return max(0.0, later[2] - earlier[2])
    return max(0.0, later[0] - earlier[0])
