"""What the server answers in a second, beside an endpoint that answers a constant of the same size;
its commands beside the store's own rate; and what sharing commits gives.

Writes docs/reference/performance-server.md. Each round measures what is compared in turn, one right
after the other, and the median of the paired ratios is told, since absolute times drift. Server and
load are on the same cores. The stores wait for their disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from starlette.responses import Response

from application.command_queue import CommandQueue
from infrastructure.clock import SystemClock
from infrastructure.event_store.sqlite import SqliteEventStore
from interfaces.read_side import site_from
from interfaces.rest import main as rest
from interfaces.rest.app import create_app
from tests.performance.bench_stores import ACTOR, missed, new_place, request
from tests.stores import Place
from tests.world import TEMPLATE

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs/reference/performance-server.md"

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


# -- the server -------------------------------------------------------------------------------

CLIENTS = 50
UNLIMITED = {"HOSTLEDGER_SERVER__REQUESTS_PER_SECOND": "10000000"}
OFFERED = 1250
"""Commands a second: ten times what the requirements say of a SQL store."""


def serve() -> int:
    """The server of the site in the environment, with an endpoint that answers a constant."""
    app = create_app(site_from(os.environ), os.environ, sys.executable)
    bodies: dict[int, bytes] = {}

    @app.get("/constant/{size}")
    async def constant(size: int) -> Response:
        body = bodies.setdefault(size, b"x" * size)
        return Response(body, headers={"ETag": '"1"'}, media_type="application/json")

    settings = {**app.state.looks.settings["server"], "port": 0}
    listening = rest.listen(settings)
    told = f"hostledger: listening on {rest.address(settings, listening)}"
    return rest.serve(app, settings, listening, partial(print, told, flush=True))


class Site:
    """A site for a server: its environment, and commands in it."""

    def __init__(self, directory: str, **variables: str) -> None:
        for name in ("conf", "work", "log"):
            os.makedirs(f"{directory}/{name}", exist_ok=True)
        self.store = f"{directory}/work/hostledger/ledger.db"
        Path(f"{directory}/conf/awsprov_config.json").write_text('{"AWS_REGION": "us-east-1"}')
        template = {"templates": [TEMPLATE]}
        Path(f"{directory}/conf/awsprov_templates.json").write_text(json.dumps(template))
        self.environ = {
            **os.environ,
            "HF_PROVIDER_NAME": "bench",
            "HF_PROVIDER_CONFDIR": f"{directory}/conf",
            "HF_PROVIDER_WORKDIR": f"{directory}/work",
            "HF_PROVIDER_LOGDIR": f"{directory}/log",
            "XDG_CONFIG_HOME": directory,
            "HOSTLEDGER_WORKER__MODE": "external",
            **UNLIMITED,
            **variables,
        }

    def fill(self, events: int, log: str | None = None) -> None:
        """A store with a past of so many events, or with that of a ledger."""
        os.makedirs(os.path.dirname(self.store))
        if log is not None:
            shutil.copy(log, self.store)
            self.run("store", "activate", "--reason", "measured")
            return
        write = ["-m", "tests.performance.past", self.store, "--events", str(events)]
        subprocess.run([sys.executable, *write], check=True, stdout=subprocess.DEVNULL)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "interfaces.cli.main", *words],
            env=self.environ,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    @contextmanager
    def serving(self, **variables: str) -> Iterator[dict[str, Any]]:
        """The server in a process of its own: what a load needs to know of it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.performance.bench_server", "--serve"],
            env=self.environ | variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            token = self.run("tokens", "create", "--role", "operator")
            host, _, port = address.rpartition("/")[2].partition(":")
            yield {"host": host, "port": int(port), "token": token, "clients": CLIENTS}
        finally:
            process.terminate()
            process.wait(60)


def load(plan: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What `load.py` found; every answer must be what was asked for."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.performance.load"],
        input=json.dumps({**plan, "seconds": seconds}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found["statuses"]) <= {"200", "202"}, found["statuses"]
    return found


def beside_constant(
    target: dict[str, Any], paths: list[str], size: int, rounds: int, seconds: float
) -> dict[str, float]:
    """Rate and p99 of reads, and their ratios to a constant's of this many bytes."""
    rows = []
    load({**target, "paths": paths}, seconds / 4)
    for _ in range(rounds):
        constant = load({**target, "paths": [f"/constant/{size}"]}, seconds)
        read = load({**target, "paths": paths}, seconds)
        rows.append(
            (
                constant["rate"],
                read["rate"],
                read["rate"] / constant["rate"],
                read["p99"],
                read["p99"] / constant["p99"],
            )
        )
    names = ("constant", "rate", "ratio", "p99", "p99 ratio")
    return {n: statistics.median(v) for n, v in zip(names, zip(*rows, strict=True), strict=True)}


def ask(target: dict[str, Any], path: str) -> bytes:
    question = Request(
        f"http://{target['host']}:{target['port']}{path}",
        headers={"Authorization": f"Bearer {target['token']}"},
    )
    with urlopen(question, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def reads(site: Site, rounds: int, seconds: float) -> dict[str, Any]:
    """The status of one request and lists of 100 machines, kept answers and made anew."""
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(site.store)) as store:
        asked = "SELECT request_id FROM requests WHERE kind = 'request' ORDER BY position LIMIT 200"
        request_ids = [request_id for (request_id,) in store.execute(asked)]
        (found["machines"],) = store.execute("SELECT count(*) FROM machines").fetchone()
        (found["events"],) = store.execute("SELECT max(position) FROM events").fetchone()
    status = [f"/api/v1/requests/{request_id}" for request_id in request_ids]
    none = {"HOSTLEDGER_PERFORMANCE__MEMORY__MAX_CACHE_SIZE": "0"}
    for kept, variables in (("kept", {}), ("made anew", none)):
        with site.serving(**variables) as target:
            lists, cursor = [], ""
            for _ in range(50):
                lists.append("/api/v1/machines?limit=100" + cursor)
                page = ask(target, lists[-1])
                cursor = f"&cursor={json.loads(page)['next']}"
            size = len(ask(target, status[0]))
            args = (rounds, seconds)
            found[f"status, {kept}"] = beside_constant(target, status, size, *args)
            found[f"list, {kept}"] = beside_constant(target, lists, len(page), *args)
    return found


def commands(site: Site, rounds: int, seconds: float) -> dict[str, Any]:
    """RequestMachines over HTTP: offered at a rate, and as fast as it goes beside the store."""
    clock, numbers = SystemClock(), count(10**9)
    plan = {
        "paths": ["/api/v1/requests"],
        "body": {"template_id": "OnDemand-A", "machine_count": 1},
    }
    rows, offered = [], []
    with site.serving() as target, closing(SqliteEventStore(site.store, clock, ACTOR)) as store:
        one_by_one(store, numbers, seconds / 2)
        for _ in range(rounds):
            alone = one_by_one(store, numbers, seconds)
            most = load({**target, **plan}, seconds)
            rows.append((alone, most["rate"], most["rate"] / alone))
            found = load({**target, **plan, "rate": OFFERED}, seconds)
            offered.append((found["rate"], found["p50"], found["p95"]))
    names = ("store", "rate", "ratio")
    told = {n: statistics.median(v) for n, v in zip(names, zip(*rows, strict=True), strict=True)}
    for name, values in zip(("rate", "p50", "p95"), zip(*offered, strict=True), strict=True):
        told[f"offered, {name}"] = statistics.median(values)
    return told


PAGE = """# Performance of the server

<!-- Written by `make bench-server` (tests/performance/bench_server.py); not by hand. -->

One process of `hostledger server run` on SQLite, {clients} clients at a time on loopback, load and
server on the same cores. Made with `{command}`.

Measured on: {machine}.

## Reads

Of a store of {events:,} events and {machines:,} machines, beside an endpoint behind the same door
that answers a constant of the same size: no less than 0.55 (aim 0.7) of its rate for the status of
one request with 10 machines, 0.35 (aim 0.45) for a list of 100 machines; a p99 of no more than 8
times its own (aim 4). An answer is kept until the log goes on; *made anew* is with
`performance.memory.max_cache_size` 0, as it is for the first who asks after an event. Of the lists
50 pages are asked for in turn, of the requests 200.

Ratios are medians of those of rounds in which both take turns. {missed}

| read | constant, 1/s | read, 1/s | ratio | p99 ms | p99 ratio |
|---|---:|---:|---:|---:|---:|
{reads}

## Commands

RequestMachines over HTTP on SQLite, each answered when it is on disk (fsync). At least half of the
rate at which the store itself commits one after the other (aim 0.8); and {offered:,} a second
offered, whoever waits, with a p95 of no more than 12 ms (aim 6). On the page of
[all measurements](performance.md) ten threads have the store open each for itself and queue at its
lock, which makes fewer a second.

| what | 1/s | ratio | p50 ms | p95 ms |
|---|---:|---:|---:|---:|
{commands}

## Shared commits

Commands handed to the store's thread without HTTP, beside one after the other, each a commit of its
own.

| store | what | 1/s | ratio | p95 ms |
|---|---|---:|---:|---:|
{shared}
"""


BOUNDS = {"status": 0.55, "list": 0.35}
"""The least part of the constant's rate that a read may have."""


def page(found: dict[str, Any], command: str) -> str:
    measured = {what: row for what, row in found["reads"].items() if isinstance(row, dict)}
    reads_ = [
        f"| {what} | {row['constant']:,.0f} | {row['rate']:,.0f} | **{row['ratio']:.2f}** | "
        f"{row['p99']:.0f} | {row['p99 ratio']:.1f} |"
        for what, row in measured.items()
    ]
    told = found["commands"]
    rows = [
        f"| the store, one by one | {told['store']:,.0f} | 1 |  |  |",
        f"| the server, as fast as it goes | {told['rate']:,.0f} | **{told['ratio']:.2f}** |  |  |",
        f"| the server, {OFFERED:,} offered | {told['offered, rate']:,.0f} |  | "
        f"{told['offered, p50']:.1f} | **{told['offered, p95']:.1f}** |",
    ]
    shared = []
    for store, row in found["shared"].items():
        shared.append(f"| {store} | one by one | {row['one by one']:,.0f} | 1 |  |")
        shared += [
            f"| {store} | {many} in flight | {row[f'{many} in flight, rate']:,.0f} | "
            f"{row[f'{many} in flight, ratio']:.2f} | {row[f'{many} in flight, p95 ms']:.1f} |"
            for many in IN_FLIGHT
        ]
    return PAGE.format(
        clients=CLIENTS,
        command=command,
        machine=f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"CPython {platform.python_version()}",
        events=found["reads"]["events"],
        machines=found["reads"]["machines"],
        offered=OFFERED,
        missed=missed(
            ((what, row["ratio"], BOUNDS[what.split(",")[0]]) for what, row in measured.items()),
            least=True,
        ),
        reads="\n".join(reads_),
        commands="\n".join(rows),
        shared="\n".join(shared),
    )


def command_line() -> str:
    """What was called, with files by their names alone."""
    return " ".join(map(os.path.basename, sys.argv))


def publish(told: str, report: Path | None) -> None:
    """Write a page, or print it."""
    if report is None:
        print(told)
    else:
        report.write_text(told)
        print(f"written: {report.relative_to(ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--serve", action="store_true", help="the server that is measured")
    parser.add_argument(
        "--log", metavar="FILE", help="a ledger that `tests.performance.past` wrote"
    )
    parser.add_argument("--events", type=int, default=505_000, help="of one that is written")
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=STORES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--print", action="store_true", help="print the page, write none")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    found: dict[str, Any] = {"shared": {}}
    rounds, seconds = arguments.rounds, arguments.seconds
    with ExitStack() as stack:
        directory = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="hostledger-bench-", dir="/var/tmp")
        )
        site = Site(f"{directory}/commands")
        site.run("store", "init")
        found["commands"] = commands(site, rounds, seconds)
        print(found["commands"], file=sys.stderr)
        site = Site(f"{directory}/reads")
        site.fill(arguments.events, arguments.log)
        found["reads"] = reads(site, rounds, seconds)
        print(found["reads"], file=sys.stderr)
        for kind in arguments.stores:
            with new_place(kind, stack) as (place, directory):
                found["shared"][kind] = group_commit(place, directory, rounds, seconds / 3)
    publish(page(found, command_line()), None if arguments.print else REPORT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
