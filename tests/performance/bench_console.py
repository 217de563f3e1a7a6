"""How long the console's pages take to come and how large they are, at 10,000 machines.

Writes docs/reference/performance-console.md. Each page is asked for in turn from a server in a
process of its own; the first answer and the median of the others are told.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.performance.bench_server import Site, command_line, publish
from tests.performance.bench_stores import missed

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs/reference/performance-console.md"

MOST_BYTES, MOST_SECONDS = 200_000, 1.0

BEGUN_WITHIN = 120.0
"""Seconds after which the server must have begun to leave snapshots."""

PAGE = """# Performance of the console

<!-- Written by `make bench-console` (tests/performance/bench_console.py); not by hand. -->

Pages of `hostledger server run` on SQLite, of a store with {events:,} events and {machines:,}
machines alive: each in under {most_bytes} KB and within {most_seconds:g} s, but for the first look
at a moment. The first answer is that of a server that has just started, the others are the median
of {rounds} more. What is as of a moment is replayed from the nearest snapshot, and a look
far from any leaves one; the server leaves them all along the log
([See the fleet as it was](../how-to/see-the-fleet-as-it-was.md)), here {files} of {mib:,} MiB in
all within {seconds:.0f} s. The page of machines took {beside:.0f} ms meanwhile as a median, and
{longest:.0f} ms at most.
Made with `{command}`.

Measured on: {machine}. {missed}

| page | KB | first, ms | others, ms |
|---|---:|---:|---:|
{rows}
"""


def get(target: dict[str, Any], path: str) -> tuple[float, int]:
    """Seconds and bytes of a page."""
    question = Request(
        f"http://{target['host']}:{target['port']}{path}",
        headers={"Authorization": f"Bearer {target['token']}", "Accept": "text/html"},
    )
    began = time.perf_counter()
    with urlopen(question, timeout=600) as answer:
        size = len(answer.read())
        assert answer.status == 200
    return time.perf_counter() - began, size


def covered(site: Site, ask: Callable[[], float]) -> dict[str, Any]:
    """Wait until the server has left its snapshots: how many, their MiB, in how many seconds, and
    how long an answer took meanwhile."""
    past = Path(site.store).parent / "past"
    waited = time.monotonic() + BEGUN_WITHIN
    while not past.exists():
        assert time.monotonic() < waited, "nobody leaves snapshots"
        time.sleep(0.02)
    began = time.monotonic()
    beside = []
    while is_held(f"{past}.lock"):
        beside.append(ask())
        time.sleep(0.05)
    sizes = [path.stat().st_size for path in past.glob("*.db")]
    return {
        "files": len(sizes),
        "mib": sum(sizes) // 2**20,
        "seconds": time.monotonic() - began,
        "beside": 1000 * statistics.median(beside),
        "longest": 1000 * max(beside),
    }


def is_held(lock: str) -> bool:
    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def measure(site: Site, rounds: int) -> dict[str, Any]:
    with closing(sqlite3.connect(site.store)) as store:

        def one(statement: str) -> Any:
            return store.execute(statement).fetchone()[0]

        machine_id = one("SELECT machine_id FROM machines WHERE alive = 1 LIMIT 1")
        found = {
            "events": one("SELECT max(position) FROM events"),
            "machines": one("SELECT count(*) FROM machines WHERE alive = 1"),
        }
        request_id = one("SELECT max(request_id) FROM machines WHERE alive = 1")
        return_id = one("SELECT max(return_id) FROM machines")
    end = found["events"]
    pages = {
        "the fleet now": "/console",
        "machines": "/console/machines?alive=true",
        "requests": "/console/requests",
        "the story of a request": f"/console/requests/{request_id}",
        "the story of a return": f"/console/requests/{return_id}",
        "the story of a machine": f"/console/machines/{machine_id}",
        "shortfalls and interruptions": "/console/shortfalls",
        "worker and store": "/console/health",
    }
    moments = {
        "the fleet 5,000 events ago": end - 5_000,
        "the fleet at 0.9 of the log": end * 9 // 10,
        "the fleet in the middle of the log": end // 2,
        "the fleet at 0.3 of the log": end * 3 // 10,
    }
    then = {name: f"/console/past?at={position}" for name, position in moments.items()}
    rows: list[tuple[Any, ...]] = []

    def ask(pages: dict[str, str]) -> None:
        for name, path in pages.items():
            first, size = get(target, path)
            others = [get(target, path)[0] for _ in range(rounds)]
            rows.append((name, size, first, statistics.median(others)))
            print(rows[-1], file=sys.stderr)

    with site.serving() as target:
        ask(pages)
        found |= covered(site, lambda: get(target, pages["machines"])[0])
        ask(then)
    return {**found, "rows": rows}


def page(found: dict[str, Any], rounds: int, command: str) -> str:
    rows = [
        f"| {name} | {size / 1000:.0f} | {1000 * first:,.0f} | **{1000 * others:,.0f}** |"
        for name, size, first, others in found["rows"]
    ]
    return PAGE.format(
        **{name: value for name, value in found.items() if name != "rows"},
        missed=missed(
            [(f"{name}, bytes,", size, MOST_BYTES) for name, size, _, _ in found["rows"]]
            + [(f"{name}, seconds,", others, MOST_SECONDS) for name, _, _, others in found["rows"]],
            least=False,
        ),
        most_bytes=MOST_BYTES // 1000,
        most_seconds=MOST_SECONDS,
        rounds=rounds,
        command=command,
        machine=f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"CPython {platform.python_version()}",
        rows="\n".join(rows),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=505_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--print", action="store_true", help="print the page, write none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostledger-bench-", dir="/var/tmp") as directory:
        site = Site(directory)
        site.fill(arguments.events)
        found = measure(site, arguments.rounds)
    told = page(found, arguments.rounds, command_line())
    publish(told, None if arguments.print else REPORT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
