"""What is measured, part by part, into one document: figures, and beside them what they are
multiples of, so that two runs on two machines can be compared."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from application.failures import NotInstalled, StoreError
from application.replay import end_of
from application.version import VERSION
from interfaces.bench import beside_orb, cloud, cold_starts, in_process, load
from interfaces.bench.past import TEMPLATE, Life
from interfaces.bench.processes import BARE, bare_cpu, hostledger, peak_of, script, together
from interfaces.bench.sites import BenchSite, Workshop
from interfaces.read_side import verify_read_models, worker_status

Row = dict[str, Any]

IN_FLIGHT = 10
"""Requests at a time that the requirements' figures imply: 67 a second of 0.15 s each, 125 of
0.08 s."""

SYNCED = 1024
"""Bytes that are written to learn how long the disk takes."""


@dataclass(frozen=True)
class Sizes:
    """How much of each is done."""

    requests: int = 2000
    polls: int = 300
    stored: tuple[int, ...] = (100, 1_000, 10_000)
    """Machines in the store while it is polled."""
    stored_dynamodb: tuple[int, ...] = (100, 1_000)
    runs: int = 20
    scripts: int = 200
    load: int = 1000
    faults: int = 1000
    wave: int = 100
    rest: float = 2.0
    quick: bool = False


QUICK = Sizes(
    requests=50,
    polls=20,
    stored=(50, 100),
    stored_dynamodb=(10, 20),
    runs=3,
    scripts=10,
    load=50,
    faults=40,
    wave=10,
    rest=0.2,
    quick=True,
)


@dataclass
class Bench:
    """One run. `tell` is told what is measured now."""

    workshop: Workshop
    stores: Sequence[str]
    parts: Sequence[str]
    """Of PARTS."""
    sizes: Sizes
    tell: Callable[[str], object]
    beside_orb: bool = False
    document: dict[str, Any] = field(default_factory=dict)
    _bare_cpu: float = 0.0

    def run(self) -> dict[str, Any]:
        """Measure, and give the document. Raises StoreError."""
        began = time.monotonic()
        self.document = {
            "hostledger": VERSION,
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(self.workshop.directory),
            "quick": self.sizes.quick,
            "left_out": [],
        }
        self._bare_cpu = bare_cpu(2 * self.sizes.runs)
        self.document["machine"]["pass_cpu_ms"] = round(1000 * self._bare_cpu, 2)
        for name, measure in PARTS.items():
            if name in self.parts:
                measure(self)
        if self.beside_orb:
            self._beside_orb()
        self.document["seconds"] = round(time.monotonic() - began)
        return _rounded(self.document)  # type: ignore[no-any-return]

    def _each_store(self, part: str) -> Iterator[str]:
        """The stores that can be measured here; the others are noted."""
        for kind in self.stores:
            if kind in self._missing():
                continue
            self.tell(f"{part} on {kind}")
            yield kind

    def _missing(self) -> list[str]:
        return [row["what"] for row in self.document["left_out"]]

    @contextmanager
    def _or_left_out(self, what: str) -> Iterator[None]:
        """Within: what is not installed is left out, and said to be."""
        try:
            yield
        except NotInstalled as error:
            self.document["left_out"].append({"what": what, "why": str(error)})

    def _ratio(self, cpu_ms: float) -> float:
        """Processor time as a multiple of a bare start's."""
        return cpu_ms / (1000 * self._bare_cpu)

    def _row(self, part: str, row: Row) -> None:
        self.document.setdefault(part, []).append(row)

    # -- parts ------------------------------------------------------------------------------------

    def requests(self) -> None:
        for kind in self._each_store("requests"):
            with self._or_left_out(kind):
                site = self.workshop.site(kind)
                row = in_process.requests(site, self._count(kind, self.sizes.requests), IN_FLIGHT)
                self._row("requests", self._of(kind, row) | {"in_flight": IN_FLIGHT})

    def polls(self) -> None:
        for kind in self._each_store("status polls"):
            with self._or_left_out(kind):
                site = self.workshop.site(kind)
                first = 0.0
                for size in self._stored(kind):
                    self._grow(site, size)
                    row = in_process.polls(site, self.sizes.polls)
                    first = first or row["cpu_ms"]
                    row |= {"machines": site.machines, "growth": row["cpu_ms"] / first}
                    self._row("polls", self._of(kind, row))
                if "replay" in self.parts:
                    self._replay(site)

    def replay(self) -> None:
        """Done with what the polls have stored, where they are measured."""
        if "polls" in self.parts:
            return
        for kind in self._each_store("replay"):
            with self._or_left_out(kind):
                site = self.workshop.site(kind)
                self._grow(site, self._stored(kind)[-1])
                self._replay(site)

    def cold_starts(self) -> None:
        self.tell("cold starts")
        sites = cold_starts.sites(self._sqlite, self.sizes.quick)
        for start in (
            *cold_starts.scripts(*sites),
            *cold_starts.commands(sites[0], self.sizes.quick),
        ):
            self._row("cold_starts", cold_starts.measure(start, self.sizes.runs))

    def scripts(self) -> None:
        for kind in self._each_store("whole scripts"):
            with self._or_left_out(kind):
                site = self.workshop.site(kind)
                ask = site.input("ask", {"template": {"templateId": TEMPLATE, "machineCount": 1}})
                command = script("requestMachines", ask)
                together([command], site.environ, 1)
                count = self._count(kind, self.sizes.scripts)
                took, seconds = together([command] * count, site.environ, IN_FLIGHT)
                bare, bare_seconds = together([BARE] * count, site.environ, IN_FLIGHT)
                row = in_process.told([ms / 1000 for ms in took], seconds)
                bare_rate = len(bare) / bare_seconds
                row |= {"pass_per_second": bare_rate, "ratio": bare_rate / row["per_second"]}
                self._row("scripts", {"store": kind, **row, "in_flight": IN_FLIGHT})

    def load(self) -> None:
        for kind in self._each_store("load test"):
            with self._or_left_out(kind):
                site = self.workshop.site(kind, offered=load.offered(self.sizes.load))
                self._row("load", self._of(kind, load.load(site, self.sizes.load)))

    def faults(self) -> None:
        kind = next((k for k in ("sqlite", *self.stores) if k in self.stores), "sqlite")
        self.tell(f"load test under faults on {kind}")
        with self._or_left_out("faults"):
            found = load.under_faults(self.workshop, kind, self.sizes.faults)
            self._row("faults", {"store": kind, **found})

    def aws_calls(self) -> None:
        self.tell("AWS calls")
        site = self._sqlite()
        wave = self.sizes.wave
        with self._or_left_out("aws_calls"):
            for requests, each, way in (
                (wave, 1, {}),
                (1, wave, {"provider_api": "EC2Fleet", "fleet_type": "instant"}),
                (1, wave, {}),
            )[: 2 if self.sizes.quick else None]:
                self._row("aws_calls", cloud.calls(site, requests, each, **way))

    def memory(self) -> None:
        self.tell("memory")
        site = self._sqlite()
        self._grow(site, self._stored("sqlite")[-1])
        events = self._events(site)
        poll = {"requests": [{"requestId": site.lives[0].request_id}]}
        bare = peak_of(BARE, site.environ)
        self._row("memory", {"what": "python -c pass", "peak_mib": bare, "ratio": 1.0})
        for what, command in (
            ("getRequestStatus", script("getRequestStatus", site.input("poll", poll))),
            ("hostledger requests list", hostledger("requests", "list")),
            (
                f"hostledger projections verify, {events:,} events",
                hostledger("projections", "verify"),
            ),
        ):
            peak = peak_of(command, site.environ)
            self._row("memory", {"what": what, "peak_mib": peak, "ratio": peak / bare})
        peak = _worker_at_rest(self._sqlite(), self.sizes.rest)
        self._row("memory", {"what": "worker at rest", "peak_mib": peak, "ratio": peak / bare})

    def counts(self) -> None:
        self.tell("counts")
        site = self._sqlite()
        site.fill([Life(1, 50)])
        found = {f"modules of {v}": n for v, n in cold_starts.imports(site).items()}
        found["statements of a status poll"] = in_process.polls(site, 1)["statements"]
        before = self._events(site)
        with closing(in_process.Asking(site)) as ask:
            ask(TEMPLATE)
        found["events of a request"] = self._events(site) - before
        self.document["counts"] = found

    def _beside_orb(self) -> None:
        root = Path(self.workshop.directory) / "orb"
        runs = min(3, self.sizes.runs)
        with self._or_left_out("ORB"):
            rows = beside_orb.measure(root, self._sqlite(), runs, self.tell)
            self.document["beside_orb"] = rows

    # -- what they share --------------------------------------------------------------------------

    def _of(self, kind: str, row: Row) -> Row:
        return {"store": kind, **row, "ratio": self._ratio(row["cpu_ms"])}

    def _sqlite(self) -> BenchSite:
        return self.workshop.site("sqlite")

    def _count(self, kind: str, count: int) -> int:
        """The emulator is slow, and its figures say the least."""
        return max(10, count // 5) if kind == "dynamodb" else count

    def _stored(self, kind: str) -> tuple[int, ...]:
        return self.sizes.stored_dynamodb if kind == "dynamodb" else self.sizes.stored

    def _grow(self, site: BenchSite, machines: int) -> None:
        first = len(site.lives) + 1
        site.fill(Life(number) for number in range(first, machines // 10 + 1))

    def _events(self, site: BenchSite) -> int:
        with closing(site.call("bench").log()) as view:
            return end_of(view)

    def _replay(self, site: BenchSite) -> None:
        """How fast the log is read, checked, folded into read models and compared; and built anew
        and exchanged."""
        from interfaces.write_side.read_models import rebuild

        self.tell(f"replay on {site.kind}")
        events = self._events(site)
        began, worked = time.perf_counter(), time.process_time()
        found = verify_read_models(site.call("bench"), _quiet)
        took, worked = time.perf_counter() - began, time.process_time() - worked
        if found["differences"] or found["failed"]:
            raise StoreError(f"{site.kind}: the read models are not what the log makes: {found}")
        began = time.perf_counter()
        side = site.side()
        with closing(side.store()):
            rebuild(side, _quiet)
        built = time.perf_counter() - began
        cpu_ms = 1000 * worked / events
        self._row(
            "replay",
            self._of(site.kind, {"events": events, "cpu_ms": cpu_ms})
            | {"verified_per_second": events / took, "rebuilt_per_second": events / built},
        )


def _quiet(done: int, of: int) -> None:
    """Nobody is told how far it is."""


PARTS: dict[str, Callable[[Bench], None]] = {
    "requests": Bench.requests,
    "polls": Bench.polls,
    "replay": Bench.replay,
    "cold_starts": Bench.cold_starts,
    "scripts": Bench.scripts,
    "load": Bench.load,
    "faults": Bench.faults,
    "aws_calls": Bench.aws_calls,
    "memory": Bench.memory,
    "counts": Bench.counts,
}
"""Part -> what measures it, in the order in which they are."""


def machine(directory: str) -> Row:
    """What is measured on; `sync_ms` is how long the disk takes for a small write that is waited
    for (the median)."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "sync_ms": _sync_ms(directory),
    }


def _sync_ms(directory: str) -> float:
    took = []
    with NamedTemporaryFile(dir=directory) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * SYNCED)
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def _worker_at_rest(site: BenchSite, seconds: float) -> float:
    """Most MiB of a worker that has looked for so long and found nothing. Raises StoreError."""
    with load.worker(site) as process:
        end = time.monotonic() + 30
        while not worker_status(site.call("bench"))["lives"]:
            if time.monotonic() > end or process.poll() is not None:
                raise StoreError("the worker did not start: see its log")
            time.sleep(0.05)
        time.sleep(seconds)
        return load.peak_mib(process.pid)


def _rounded(value: Any) -> Any:
    """Four significant digits are more than is known."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
