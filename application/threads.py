"""What waits for others, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(threads: int, work: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """The work on each thing, so many at a time, in their order. Raises what the first one that
    fails raises, when all of them have ended."""
    if threads == 1 or len(things) < 2:
        return [work(thing) for thing in things]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(threads, len(things))) as pool:
        return list(pool.map(work, things))
