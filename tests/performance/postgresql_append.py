"""How fast PostgreSQL takes commits with lock, chain and read rows, as a share of plain INSERTs of
the same event rows on the same server in the same run.

`python -m tests.performance.postgresql_append` prints the shares.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from application.version import VERSION
from domain.identifiers import REQUEST, new_id
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from infrastructure.event_store.commit import COLUMNS, compose, to_record
from tests.infrastructure.postgresql_stores import storage_at
from tests.postgresql import server

Act = tuple[int, Callable[[list[Any]], list[Any]], Callable[[list[Any]], None]]
"""Events of a commit, what is made of them beforehand, and the commit."""

ACTOR = {"user": "bench", "provider": "awsinst", "process": "bench[1]"}
PLAIN = (
    "CREATE TABLE plain (LIKE events INCLUDING ALL); "
    "ALTER TABLE plain ALTER position ADD GENERATED ALWAYS AS IDENTITY"
)
"""The events' own table, but that positions are drawn and may have gaps."""

INTO_PLAIN = f"INSERT INTO plain ({', '.join(COLUMNS[1:])}) VALUES %s"


def batch(size: int) -> list[Any]:
    """Pending events of `size` new requests."""
    records = []
    for _ in range(size):
        request = MachineRequest.ask(
            new_id(REQUEST, os.urandom(16)), "awsinst", "A", "r", 1, 300.0, "hostfactory", ""
        )
        records += [to_record(event) for event in request.collect_events()]
    return records


def appending(url: str, size: int) -> Act:
    """What a command does, its read rows too."""
    store = storage_at(url).event_store(SystemClock(), ACTOR)

    def append(records: list[Any]) -> None:
        store.append(records, correlation_id="cmd-1")

    return size, lambda records: records, append


def inserting(url: str, size: int) -> Act:
    """One transaction of psycopg2's, as its manual has it: ready rows, no lock, no chain."""
    connection = psycopg2.connect(url)
    instant = SystemClock().now()

    def prepare(records: list[Any]) -> list[Any]:
        rows, _ = compose(records, (0, "d", ""), instant, ACTOR, ("cmd-1", ""), {})
        return [row[1:] for row in rows]

    def insert(rows: list[Any]) -> None:
        with connection, connection.cursor() as cursor:
            execute_values(cursor, INTO_PLAIN, rows)

    return size, prepare, insert


def rate(act: Act, seconds: float) -> float:
    """Commits a second; what they take is made ready outside of the time."""
    size, prepare, commit = act
    spent, count = 0.0, 0
    while spent < seconds:
        ready = [prepare(batch(size)) for _ in range(20)]
        began = time.perf_counter()
        for one in ready:
            commit(one)
        spent += time.perf_counter() - began
        count += len(ready)
    return count / spent


def together(
    make: Callable[[str, int], Act], url: str, size: int, writers: int, seconds: float
) -> float:
    """Commits a second of several processes at once."""
    with ProcessPoolExecutor(writers, mp_context=get_context("fork")) as pool:
        ready = [pool.submit(_run, make, url, size, seconds) for _ in range(writers)]
        return sum(one.result() for one in ready)


def _run(make: Callable[[str, int], Act], url: str, size: int, seconds: float) -> float:
    act = make(url, size)
    rate(act, 0.2)  # connections are made, statements prepared
    return rate(act, seconds)


def shares(url: str, rounds: int = 7, seconds: float = 1.0) -> dict[str, float]:
    """Case -> our rate against the plain one's, the median of interleaved rounds."""
    storage_at(url).create(SystemClock(), ACTOR, VERSION)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(PLAIN)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for writers, size in ((1, 1), (1, 100), (6, 1)):
            plain = together(inserting, url, size, writers, seconds)
            ours = together(appending, url, size, writers, seconds)
            found.setdefault(f"{writers} writer(s), batch {size}", []).append(ours / plain)
    return {case: statistics.median(ratios) for case, ratios in found.items()}


if __name__ == "__main__":
    with server(fsync=True) as running:
        for case, share in shares(running.database()).items():
            print(f"{case}: {share:.2f}")
