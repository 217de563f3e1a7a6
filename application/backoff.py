"""How long to wait before the same thing is tried again."""

from __future__ import annotations

from collections.abc import Callable


def jittered(failures: int, first: float, longest: float, random: Callable[[int], bytes]) -> float:
    """Between half and all of a doubling time, in seconds, so that who failed together parts
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
    ceiling: float = min(longest, first * 2.0 ** min(max(0, failures - 1), 30))
    return ceiling * (0.5 + int.from_bytes(random(2)) / 131072)
