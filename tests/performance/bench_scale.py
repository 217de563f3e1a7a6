"""What grows with a site: its history, its fleet, its templates. Writes docs/reference/scale.md.

A site's past is written into a store, to one size after another, and at each size the calls of
HostFactory and the turns of a worker are measured. Durability is off, and the store is in memory
where that can be had: what is measured is work. EC2 answers at once, from memory: what boto3 costs
is measured by `make bench-aws`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dependency_injector import providers

from application.ports import Instance, Launched, Terminated
from infrastructure.aws.ec2 import Ec2
from infrastructure.compiled import load
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.event_store.sqlite_setup import create_store
from infrastructure.settings import Settings
from infrastructure.site import Site
from infrastructure.telemetry.journal import Journal
from interfaces.bench.past import MACHINES
from interfaces.read_side import Call
from interfaces.worker.loop import Worker
from tests.fakes.clock import FakeClock
from tests.performance.past import ACTOR, APPENDED, DAYS, Writing
from tests.performance.scenarios import CountedWorld
from tests.world import TEMPLATE, VERBS

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs/reference/scale.md"
TEMPLATES = 1_000
FEW_ALIVE = 1_000
"""Machines that live while the history grows."""

ROUNDS = 15
FLAT = 0.1
"""The order up to which a cost does not grow: noise and the depth of an index are below it."""

BUSY = 20
"""Requests of MACHINES machines that a busy worker serves."""

EVENT_BYTES = 1_200
"""What a store takes on disk, about, for each event with its rows."""

HOSTS = 100
"""Hosts that HostFactory names in the getReturnRequests that is measured."""

POLLS = (
    "getAvailableTemplates",
    "getRequestStatus of 10 machines",
    f"getReturnRequests of {HOSTS} hosts",
    "requestMachines",
    "requestReturnMachines of 10",
)
LISTS_ALL = (f"getReturnRequests of {HOSTS} hosts", "a sweep", "the worker's memory")
"""What may grow with the machines that live: it is about all of them."""


@dataclass
class Size:
    """The figures at one size: name -> number."""

    events: int
    alive: int
    figures: dict[str, float] = field(default_factory=dict)


class CannedEc2(Ec2):
    """EC2 that has what it is told of and answers at once; only payloads are made as ever."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.instances: dict[str, Instance] = {}

    # fmt: off
    def launch(
        self, api: str, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> Launched:
        tags = {t["Key"]: t["Value"] for t in payload["TagSpecifications"][0]["Tags"]}
        made = []
        for _ in range(payload["MaxCount"]):
            number = len(self.instances)
            host = (10, number >> 16 & 255, number >> 8 & 255, number & 255)
            made.append(
                Instance(
                    f"i-{number:017x}",
                    "running",
                    "ip-" + "-".join(map(str, host)) + ".internal",
                    ".".join(map(str, host)),
                    1_800_000_000,
                    "us-east-1a",
                    "t3.medium",
                    tags["hostledger:batch"],
                    tags["hostledger:provider"],
                )
            )
            self.instances[made[-1].machine_id] = made[-1]
        return Launched(made, "request")
    # fmt: on

    def may_launch(self, api: str, machines: int) -> bool:
        return True

    def sweep(self, deployment: str) -> list[Instance]:
        return list(self.instances.values())

    def find(
        self,
        machine_ids: Sequence[str],
        names: Sequence[str] = (),
        batches: Sequence[str] = (),
    ) -> list[Instance]:
        return [self.instances[i] for i in machine_ids if i in self.instances]

    def terminate(
        self, machine_ids: Sequence[str], before_each: Callable[[], object] = lambda: None
    ) -> Terminated:
        return Terminated(list(machine_ids), [], "request")


class Bench:
    """One site with so many templates, whose past is written to one size after another, each append
    `step` seconds after the last."""

    def __init__(self, root: Path, alive: int, step: float, offered: int = TEMPLATES) -> None:
        for name in ("conf", "work/hostledger", "log"):
            (root / name).mkdir(parents=True)
        self.site = Site("bench", f"{root}/conf", f"{root}/work", f"{root}/log")
        templates = [
            {**TEMPLATE, "templateId": f"T-{n}" if n else "OnDemand-A", "maxNumber": 10_000}
            for n in range(offered)
        ]
        (root / "conf/awsprov_templates.json").write_text(json.dumps({"templates": templates}))
        (root / "conf/awsprov_config.json").write_text('{"AWS_REGION": "us-east-1"}')
        self.environ = {"HOSTLEDGER_WORKER__MODE": "external"}
        self.clock = FakeClock()
        self.path = self.site.state_dir + "/ledger.db"
        create_store(self.path, self.clock, ACTOR, "bench")
        self._store = SqliteEventStore(self.path, self.clock, ACTOR)
        self._store.connection.execute("PRAGMA synchronous = OFF")
        self._store.connection.execute("PRAGMA cache_size = -400000")
        self._writing = Writing(self._store, self.clock, alive, step)
        self._root = root
        with closing(sqlite.connect(self.path)) as connection:
            pages = connection.execute("PRAGMA page_size").fetchone()[0]
        self._page = int(pages)

    def grow(self, events: int) -> Size:
        """Write on, and measure there."""
        self._writing.until(events)
        execute = self._store.connection.execute
        alive = execute("SELECT count(*) FROM machines WHERE alive = 1").fetchone()[0]
        execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = Size(self._writing.position, alive)
        (pages,) = execute("PRAGMA page_count").fetchone()
        size.figures["store, bytes an event"] = pages * self._page / size.events
        # What is measured writes too, and the past must go on as if nobody had.
        copied = Path(f"{self._root}/measured/hostledger")
        copied.mkdir(parents=True)
        shutil.copy(self.path, copied)
        path = str(copied / "ledger.db")
        with closing(sqlite.connect(path)) as connection:
            connection.execute("UPDATE store SET inode = ?", (os.stat(path).st_ino,))
            connection.commit()
        site = Site("bench", self.site.conf_dir, str(copied.parent), self.site.log_dir)
        size.figures |= in_child(Measuring(site, self.environ, self.clock, path).all)
        shutil.rmtree(copied.parent)
        return size

    def close(self) -> None:
        self._store.close()


class Measuring:
    """The calls and turns of a site whose store may be written to."""

    def __init__(self, site: Site, environ: dict[str, str], clock: FakeClock, path: str) -> None:
        self.site = site
        self.environ = environ
        self.clock = clock
        self._path = path

    def call(self, verb: str, document: dict[str, Any]) -> str:
        call = Call(verb, self.environ, "python", site=self.site)
        call.clock = self.clock  # type: ignore[assignment]
        call.now = self.clock.now()
        return VERBS[verb](call, document, "input")

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite.connect(self._path)) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[no-any-return]

    def all(self) -> dict[str, float]:
        figures = self._worker_figures()
        query = self._query
        hosts = query(
            "SELECT machine_id, name FROM machines WHERE alive = 1 AND owed = '' "
            f"ORDER BY position DESC LIMIT {HOSTS}"
        )
        ((request_id,),) = query(
            "SELECT request_id FROM requests WHERE kind = 'request' AND final = 1 "
            "AND machine_count = 10 ORDER BY position DESC LIMIT 1"
        )
        named = [{"machineId": i, "name": name} for i, name in hosts]
        some = [named[n : n + 10] for n in range(0, len(named), 10)]
        turns = iter(range(10**9))
        acts: dict[str, Callable[[], Any]] = {
            POLLS[0]: lambda: self.call("getAvailableTemplates", {}),
            POLLS[1]: lambda: self.call(
                "getRequestStatus", {"requests": [{"requestId": request_id}]}
            ),
            POLLS[2]: lambda: self.call("getReturnRequests", {"machines": named}),
            POLLS[3]: lambda: self.call(
                "requestMachines", {"template": {"templateId": "OnDemand-A", "machineCount": 1}}
            ),
            POLLS[4]: lambda: self.call(
                "requestReturnMachines", {"machines": some[next(turns) % len(some)]}
            ),
        }
        for name, act in acts.items():
            act()
            figures[f"{name}, ms"] = 1000 * cpu(act, ROUNDS)
            statements, steps = sqlite_work(act)
            figures[f"{name}, statements"] = statements
            figures[f"{name}, SQLite steps"] = steps
        return figures

    def _worker_figures(self) -> dict[str, float]:
        settings = Settings.model_validate(load(self.site, self.environ).settings)
        journal = Journal(self.site.log_file, load(self.site, self.environ).settings["logging"])
        cloud = CannedEc2("default", settings.provider.aws, self.clock, journal)
        for row in self._query(
            "SELECT machine_id, status, name, private_ip_address, launch_time, zone, "
            "instance_type, batch_id, provider FROM machines WHERE alive = 1"
        ):
            cloud.instances[row[0]] = Instance(*row)
        before = memory()
        worker = Worker(
            self.site,
            {**self.environ, "HOSTLEDGER_MONITORING__PERFORMANCE__ENABLED": "false"},
            clock=providers.Object(self.clock),
            clouds=providers.Object({"default": cloud}),
        )
        worker.store.connection.execute("PRAGMA synchronous = OFF")

        def tick() -> None:
            self.clock.advance(1.0)
            assert worker.tick() and not worker.reason, worker.reason

        for _ in range(5):
            tick()
        figures = {"a quiet turn, ms": 1000 * cpu(tick, 20)}
        figures["a quiet turn, SQLite steps"] = steps_of(worker.store.connection, tick)

        def sweep() -> None:
            self.clock.advance(60.0)
            tick()

        # Of a turn that sweeps, what it takes beyond one that does not.
        figures["a sweep, ms"] = max(0.001, 1000 * cpu(sweep, 3) - figures["a quiet turn, ms"])
        figures["the worker's memory, MiB"] = max(0.1, memory() - before)
        for number in range(BUSY):
            self.call(
                "requestMachines",
                {"template": {"templateId": f"T-{number + 1}", "machineCount": MACHINES}},
            )
        began = time.process_time()
        steps = 0
        for _ in range(60):
            steps += steps_of(worker.store.connection, tick)
            if self._query("SELECT 1 FROM requests WHERE final = 0 LIMIT 1") == []:
                break
        else:
            raise AssertionError("the busy worker was not done in 60 s")
        spent = time.process_time() - began
        figures["a busy turn, each machine, ms"] = 1000 * spent / (BUSY * MACHINES)
        figures["a busy turn, each machine, SQLite steps"] = steps / (BUSY * MACHINES)
        worker.end()
        return figures


def memory() -> float:
    """Resident MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu(act: Callable[[], Any], rounds: int) -> float:
    """Seconds of CPU, the median of so many."""
    took = []
    for _ in range(rounds):
        began = time.process_time()
        act()
        took.append(time.process_time() - began)
    return statistics.median(took)


def sqlite_work(act: Callable[[], Any]) -> tuple[int, int]:
    """Statements, and instructions of SQLite's machine, that it takes: the same in each run."""
    connect = sqlite.connect
    counts = [0, 0]

    def count(which: int) -> Callable[..., int]:
        def one(*_: Any) -> int:
            counts[which] += 1
            return 0

        return one

    def counted(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(count(0))
        connection.set_progress_handler(count(1), 1)
        return connection

    sqlite.connect = counted
    try:
        act()
    finally:
        sqlite.connect = connect
    return counts[0], counts[1]


def steps_of(connection: Any, act: Callable[[], Any]) -> int:
    """Instructions of SQLite's machine that it takes on this connection, to a hundred."""
    count = 0

    def one() -> int:
        nonlocal count
        count += 100
        return 0

    connection.set_progress_handler(one, 100)
    act()
    connection.set_progress_handler(None, 100)
    return count


def in_child(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What it returns, in a process of its own, whose memory begins anew."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            told = json.dumps(work()).encode()
            os.write(writing, told)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise RuntimeError("a measuring process failed: see its trace above")
    found: dict[str, float] = json.loads(told)
    return found


def order(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log(cost) on log(size): 0 does not grow, 1 is in proportion."""
    x, y = [math.log(n) for n in sizes], [math.log(max(c, 1e-9)) for c in costs]
    middle_x, middle_y = statistics.mean(x), statistics.mean(y)
    above = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle_x) ** 2 for a in x)


# -- the whole -------------------------------------------------------------------------------------


def series(what: str, sizes: Sequence[int], alive: int, directory: str) -> list[Size]:
    """The figures of a site at each number of events."""
    root = Path(tempfile.mkdtemp(prefix="scale-", dir=directory))
    bench = Bench(root, alive, DAYS * 86_400.0 * APPENDED / sizes[-1])
    found = []
    try:
        for events in sizes:
            began = time.monotonic()
            found.append(bench.grow(events))
            took = time.monotonic() - began
            last = found[-1]
            print(
                f"{what}: {last.events:,} events, {last.alive:,} alive ({took:.0f} s)", flush=True
            )
    finally:
        bench.close()
        shutil.rmtree(root)
    return found


def aws_calls(counts: Sequence[int], directory: str) -> list[tuple[int, int, str]]:
    """Machines -> the calls of one request for them, from asking until all run, and which."""
    found = []
    for count in counts:
        world = CountedWorld(Path(tempfile.mkdtemp(prefix="scale-", dir=directory)) / "site")
        try:
            world.start_worker()
            world.run(5)
            before = len(world.sandbox.calls)
            world.request(count, "Zone-a")
            world.run_until_done(3600.0)
            calls = [call.action for call in world.sandbox.calls[before:]]
        finally:
            world.close()
        told = ", ".join(f"{calls.count(action)} {action}" for action in sorted(set(calls)))
        found.append((count, len(calls), told))
        print(f"{count:,} machines: {told}", flush=True)
    return found


def grown(sizes: Sequence[int], factor: float = 10**0.5) -> list[int]:
    """From the first to the last size, each by half an order of magnitude."""
    first, last = sizes
    steps = max(1, round(math.log(last / first, factor)))
    return [round(first * (last / first) ** (n / steps)) for n in range(steps + 1)]


NAMES = (
    *(f"{name}, {unit}" for name in POLLS for unit in ("ms", "statements", "SQLite steps")),
    "a quiet turn, ms",
    "a quiet turn, SQLite steps",
    "a sweep, ms",
    "a busy turn, each machine, ms",
    "a busy turn, each machine, SQLite steps",
    "the worker's memory, MiB",
    "store, bytes an event",
)


def orders(found: Sequence[Size], of: Callable[[Size], int]) -> dict[str, float]:
    """The order of growth of each figure."""
    return {
        name: order([of(size) for size in found], [size.figures[name] for size in found])
        for name in NAMES
    }


def may_grow(name: str, with_fleet: bool) -> bool:
    """Whether a figure is about all machines that live, and so may grow with them."""
    return with_fleet and name.startswith(LISTS_ALL)


def is_counted(name: str) -> bool:
    """Whether it is the same in each run, so that its order is judged."""
    return name.endswith(("statements", "SQLite steps", "bytes an event"))


def number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def table(title: str, text: str, found: list[Size], of: Callable[[Size], int], unit: str) -> str:
    fitted = orders(found, of)
    lines = [
        f"## {title}",
        "",
        text,
        "",
        f"| cost | {' | '.join(f'{of(size):,} {unit}' for size in found)} | order |",
        f"|---|{'---:|' * len(found)}---:|",
    ]
    for name in NAMES:
        cells = " | ".join(number(size.figures[name]) for size in found)
        lines.append(f"| {name} | {cells} | {fitted[name]:.2f} |")
    return "\n".join([*lines, ""])


def report(
    history: list[Size], fleet: list[Size], calls: list[tuple[int, int, str]], command: str
) -> str:
    last, most = history[-1], fleet[-1]
    call_order = order([n for n, _, _ in calls], [c for _, c, _ in calls])
    lines = [
        "# What grows with a site",
        "",
        "<!-- Written by `make scale` (tests/performance/bench_scale.py); not by hand. -->",
        "",
        f"The past of {DAYS} days of a site is written into a SQLite store, to one size after",
        f"another, with {TEMPLATES:,} templates on offer. Durability is off: nothing waits for a",
        "disk. Times are of processor, medians, without the start of a process; statements and",
        "steps of SQLite's machine are counted, the same in each run. EC2 answers at once and from",
        "memory: what boto3 costs is in [Calls to AWS](aws-calls.md). The order is the slope of",
        "log(cost) on log(size): 0 does not grow, 1 grows in proportion; up to "
        f"{FLAT:g} is noise, or the",
        "depth of an index. Only what is counted is judged by it. Reproduce",
        f"with `make scale`; this page was made with `{command}`.",
        "",
        f"Measured on: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, CPython "
        f"{platform.python_version()}, load average {os.getloadavg()[1]:.1f}.",
        "",
        table(
            "With the length of the history",
            f"{FEW_ALIVE:,} machines live at each size; the rest of the log is over. No cost may "
            "grow: neither of a call nor of the worker.",
            history,
            lambda size: size.events,
            "events",
        ),
        table(
            "With the machines that live",
            "getReturnRequests is about all that are healthy, and a sweep lists them all: these "
            "may grow in proportion, nothing else may.",
            fleet,
            lambda size: size.alive,
            "alive",
        ),
        "## Calls to AWS",
        "",
        "Of one request, from asking until all run, on AWS's own quotas and the default settings:",
        "",
        "| machines | calls | a machine | of which |",
        "|---:|---:|---:|---|",
        *(f"| {n:,} | {c} | {c / n:.4f} | {told} |" for n, c, told in calls),
        "",
        f"Order: {call_order:.2f}.",
        "",
        "## What grows and should not",
        "",
        *([f"* {line}" for line in missed(history, fleet)] or ["Nothing."]),
        "",
        "## In a sentence",
        "",
        f"With {last.events:,} events a status poll takes {last.figures[POLLS[1] + ', ms']:.2f} ms "
        f"of work, with {most.alive:,} machines alive",
        f"{most.figures[POLLS[1] + ', ms']:.2f} ms; a sweep of {most.alive:,} machines takes the "
        f"worker {most.figures['a sweep, ms'] / 1000:.1f} s, each minute, and the",
        f"store has {last.figures['store, bytes an event']:,.0f} bytes an event.",
    ]
    return "\n".join([*lines, ""])


def missed(history: list[Size], fleet: list[Size]) -> list[str]:
    """What grows and may not."""
    found = []
    for what, sizes, of in (
        ("history", history, lambda size: size.events),
        ("fleet", fleet, lambda size: size.alive),
    ):
        for name, fitted in orders(sizes, of).items():
            if is_counted(name) and fitted > FLAT and not may_grow(name, what == "fleet"):
                found.append(f"{name} grows with the {what}: order {fitted:.2f}")
    return found


def in_memory(events: int) -> str | None:
    """Where a store of so many events and the copy that is measured fit into memory, with as much
    left; None where that cannot be had."""
    shared = "/dev/shm"
    if not os.access(shared, os.W_OK):
        return None
    found = os.statvfs(shared)
    return shared if 4 * events * EVENT_BYTES < found.f_bavail * found.f_frsize else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="of the longest history")
    parser.add_argument("--machines", type=int, default=100_000, help="of the largest fleet")
    parser.add_argument("--print-only", action="store_true", help="do not write the report")
    arguments = parser.parse_args()
    for name in [n for n in os.environ if n.startswith(("HF_", "PRO_", "HOSTLEDGER_", "AWS_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    place = in_memory(arguments.events) or "/var/tmp"
    with tempfile.TemporaryDirectory(prefix="hostledger-bench-", dir=place) as directory:
        calls = aws_calls((100, 300, 1000), directory)
        history = series(
            "history",
            grown((min(10_000, arguments.events), arguments.events)),
            FEW_ALIVE,
            directory,
        )
        # Of a machine that lives there are 2.6 events (`past.Life.launch`).
        fleet = series(
            "fleet",
            [round(2.6 * n) for n in grown((min(1_000, arguments.machines), arguments.machines))],
            10**9,
            directory,
        )
    command = " ".join(["bench_scale.py", *sys.argv[1:]])
    if arguments.print_only:
        print(report(history, fleet, calls, command))
    else:
        REPORT.write_text(report(history, fleet, calls, command))
        print(f"written: {REPORT.relative_to(ROOT)}")
    found = missed(history, fleet)
    for line in found:
        print(f"MISS {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
