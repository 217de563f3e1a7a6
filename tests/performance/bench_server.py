"""What sharing commits gives the server: commands a second one by one, and with several in flight.

Each round measures all of them in turn, one right after the other, and the median of the paired
ratios is told, since absolute times drift. The stores wait for their disk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from typing import Any

from application.command_queue import CommandQueue
from infrastructure.clock import SystemClock
from tests.performance.bench_stores import ACTOR, new_place, request
from tests.stores import Place

STORES = ("sqlite", "postgresql")
IN_FLIGHT = (10, 50)


def asking(number: int) -> Callable[[Any], None]:
    """RequestMachines, as the server records it."""

    def carry_out(store: Any) -> None:
        asked = request(number)
        store.save(asked, command=(asked.id, asked.identifier))

    return carry_out


def one_by_one(store: Any, numbers: Iterator[int], seconds: float) -> float:
    """Commands a second, each a commit of its own."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        asking(next(numbers))(store)
        done += 1
    return done / (time.perf_counter() - began)


def in_flight(
    queue: CommandQueue[Any], numbers: Iterator[int], many: int, seconds: float
) -> tuple[float, float]:
    """Commands a second with so many waiting at a time, and the p95 of their waits in ms."""
    room = threading.Semaphore(many)
    waits: list[float] = []

    def submit() -> None:
        submitted = time.perf_counter()

        def answered(future: Any) -> None:
            future.result()
            waits.append(time.perf_counter() - submitted)
            room.release()

        queue.submit(asking(next(numbers))).add_done_callback(answered)

    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        room.acquire()
        submit()
    for _ in range(many):
        room.acquire()
    took = time.perf_counter() - began
    waits.sort()
    return len(waits) / took, 1000 * waits[int(0.95 * len(waits))]


def group_commit(place: Place, directory: str, rounds: int, seconds: float) -> dict[str, float]:
    """The rate one by one, and for so many in flight rate, p95 and ratio to the one beside it."""
    storage, clock, numbers = place.storage(directory), SystemClock(), count()
    storage.create(clock, ACTOR, "bench")

    def open_store() -> tuple[Any, Any]:
        store = storage.event_store(clock, ACTOR)
        return store, store

    alone: list[float] = []
    found: dict[int, list[tuple[float, float, float]]] = {many: [] for many in IN_FLIGHT}
    with (
        closing(storage.event_store(clock, ACTOR)) as store,
        closing(CommandQueue(open_store)) as queue,
    ):
        one_by_one(store, numbers, seconds / 2)
        in_flight(queue, numbers, 2, seconds / 2)
        for _ in range(rounds):
            for many in IN_FLIGHT:
                alone.append(one_by_one(store, numbers, seconds))
                rate, p95 = in_flight(queue, numbers, many, seconds)
                found[many].append((rate, p95, rate / alone[-1]))
    told = {"one by one": statistics.median(alone)}
    for many, rows in found.items():
        for name, values in zip(("rate", "p95 ms", "ratio"), zip(*rows, strict=True), strict=True):
            told[f"{many} in flight, {name}"] = statistics.median(values)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=STORES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.7)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        for kind in arguments.stores:
            with new_place(kind, stack) as (place, directory):
                told = group_commit(place, directory, arguments.rounds, arguments.seconds)
            print(kind, *(f"{name}: {value:.1f}" for name, value in told.items()), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
