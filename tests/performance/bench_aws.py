"""AWS calls counted at a recording HTTP proxy, and 10,000 machines through one worker.

Writes docs/reference/aws-calls.md. Calls are counted on a clock that only moves when it is told to,
so that AWS's quotas and boot times take no time; the last part is real processes in real time.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infrastructure.sandbox.server import start_process
from tests.performance.recording_proxy import RecordingProxy
from tests.performance.scenarios import (
    POLLED_EVERY,
    ZONES,
    Cost,
    ProxiedWorld,
    fleet,
    one_request,
    return_of_all,
    status_polls,
    steady,
    templates,
    waiting_requests,
    whole_life,
)
from tests.processes import ProcessSite, wait_until
from tests.world import WAYS

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs/reference/aws-calls.md"
SWEEPS = 10
MOST_GROWTH = 300
"""MiB by which a worker may grow."""

PATIENCE = 1800.0
"""Real seconds that one stage of the real run may take."""

RAISED = {
    "HOSTLEDGER_PROVIDER__AWS__BUCKETS__RUNINSTANCES": "[1000, 1000]",
    "HOSTLEDGER_PROVIDER__AWS__BUCKETS__RUNINSTANCES_INSTANCES": "[20000, 20000]",
    "HOSTLEDGER_PROVIDER__AWS__BUCKETS__TERMINATEINSTANCES_INSTANCES": "[20000, 20000]",
}


@dataclass
class Row:
    """One line of the report; `holds` is whether the bound does."""

    what: str
    measured: str
    bound: str
    holds: bool


@dataclass
class Stage:
    """A part of the life of 10,000 machines."""

    name: str
    seconds: float
    cpu: float
    most_mib: float
    calls: Counter[str]


def in_words(calls: Counter[str]) -> str:
    return ", ".join(f"{count:,} {action}" for action, count in calls.most_common()) or "none"


def memory(pid: int) -> float:
    """Resident MiB of a process now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, root: Path, machines: int, requests: int) -> None:
        self.root = root
        self.machines = machines
        self.requests = requests
        self.rows: list[Row] = []
        self.ways: list[tuple[str, Cost]] = []
        self.simulated: list[Stage] = []
        self.real: list[Stage] = []
        self.start_mib = 0.0
        self._worlds = 0

    def world(self, way: str = "RunInstances", **sandbox: Any) -> ProxiedWorld:
        self._worlds += 1
        return ProxiedWorld(self.root / f"world-{self._worlds}", way, **sandbox)

    def note(self, what: str, measured: str, bound: str, holds: bool) -> None:
        self.rows.append(Row(what, measured, bound, holds))
        print(f"{'ok  ' if holds else 'MISS'} {what}: {measured} (bound: {bound})", flush=True)

    # -- bounds -----------------------------------------------------------------------------------

    def measure(self) -> None:
        for way, most, name in (("fleet-instant", 2, "EC2Fleet"), ("RunInstances", 10, "RunInst.")):
            world = self.world(way)
            cost = one_request(world, 1000)
            world.close()
            self.note(
                f"1 request of 1,000 machines until all run, {name}",
                f"{cost.launches} launches, {cost.describes_a_second} describe page a second; "
                f"all: {in_words(cost.calls)}",
                f"{most} launches, 1 describe page a second",
                cost.launches <= most and cost.describes_a_second <= 1,
            )
        world = self.world()
        cost = waiting_requests(world, self.requests)
        world.close()
        self.note(
            f"{self.requests:,} waiting requests of 1 machine, launch to last removal",
            f"{cost.launches} launches, {cost.total / self.requests:.2f} calls a request; "
            f"all: {in_words(cost.calls)}",
            "12 launches, 1.05 calls a request",
            cost.launches <= 12 and cost.total <= 1.05 * self.requests,
        )
        world = self.world(boot_time=100_000.0)
        cost = status_polls(world, 100, 50)
        world.close()
        self.note("100 status polls of 50 open requests", f"{cost.total}", "0", cost.total == 0)
        for way in WAYS:
            world = self.world(way)
            self.ways.append((way, whole_life(world, 100)))
            world.close()
            print(f"     {way}: {in_words(self.ways[-1][1].calls)}", flush=True)

    def simulate(self) -> None:
        """The same 10,000 machines launched, at rest and returned on the simulated clock."""
        world = self.world()
        self._simulated("launch", lambda: fleet(world, self.machines))
        world.run(120, poll=world.poll)
        cost = self._simulated("at rest", lambda: steady(world, SWEEPS * 60.0))
        pages = -(-self.machines // 1000)
        self.note(
            f"{self.machines:,} machines, steady, {SWEEPS} sweeps",
            in_words(cost.calls),
            f"{pages} pages a sweep, no other call",
            dict(cost.calls) == {"DescribeInstances": pages * SWEEPS},
        )
        cost = self._simulated("return", lambda: return_of_all(world))
        world.close()
        terminations = cost.calls["TerminateInstances"]
        self.note(
            f"return of {self.machines:,} machines over {len(ZONES)} zones",
            in_words(cost.calls),
            "60 terminate calls, sweeps apart",
            terminations <= 60 and set(cost.calls) == {"TerminateInstances", "DescribeInstances"},
        )

    def _simulated(self, name: str, act: Any) -> Cost:
        began = time.process_time()
        cost: Cost = act()
        spent = time.process_time() - began
        self.simulated.append(Stage(name, cost.seconds, spent, memory(os.getpid()), cost.calls))
        print(f"     simulated {name}: {cost.seconds:.0f} s, {spent:.0f} s of CPU", flush=True)
        return cost

    # -- real processes ---------------------------------------------------------------------------

    def run_real(self) -> None:
        """The sandbox, a worker and the scripts as processes, with raised quotas."""
        with (
            start_process(quotas="generous", boot_time=20.0, shutdown_time=15.0) as sandbox,
            RecordingProxy(sandbox.url, time.monotonic) as proxy,
        ):
            settings = {**RAISED, "HOSTLEDGER_WORKER__MODE": "external"}
            site = ProcessSite(
                self.root / "real", proxy.url, settings=settings, templates=templates()
            )
            worker = subprocess.Popen(
                [ROOT / ".venv/bin/hostledger", "worker", "run"], env=site.environ, cwd=ROOT
            )
            watch = Watch(worker.pid)
            try:
                wait_until(lambda: len(proxy.sent) > 0)
                self.start_mib = memory(worker.pid)
                self._real_stages(site, proxy, watch)
            finally:
                watch.stop()
                worker.send_signal(signal.SIGTERM)
                worker.wait(60)
        growth = max(stage.most_mib for stage in self.real) - self.start_mib
        self.note(
            f"{self.machines:,} machines by one worker process: growth of its memory",
            f"{growth:.0f} MiB",
            f"{MOST_GROWTH} MiB",
            growth <= MOST_GROWTH,
        )

    def _real_stages(self, site: ProcessSite, proxy: RecordingProxy, watch: Watch) -> None:
        def stage(name: str, done: Any) -> None:
            began, cpu, before = time.monotonic(), cpu_of(watch.pid), len(proxy.sent)
            watch.most = 0.0
            wait_until(lambda: poll_and(done), PATIENCE)
            self.real.append(
                Stage(
                    name,
                    time.monotonic() - began,
                    cpu_of(watch.pid) - cpu,
                    watch.most,
                    Counter(action for action, _ in proxy.sent[before:]),
                )
            )
            last = self.real[-1]
            print(
                f"     real {name}: {last.seconds:.0f} s, {last.cpu:.0f} s of CPU, "
                f"{last.most_mib:.0f} MiB, {in_words(last.calls)}",
                flush=True,
            )

        polled = [0.0]

        def poll_and(done: Any) -> Any:
            if time.monotonic() - polled[0] >= POLLED_EVERY:
                polled[0] = time.monotonic()
                ids = site.query("SELECT request_id FROM requests WHERE answered_final = 0")
                site.call("getRequestStatus", {"requests": [{"requestId": r} for (r,) in ids]})
                hosts = site.query("SELECT machine_id FROM machines WHERE result = 'succeed'")
                site.call("getReturnRequests", {"machines": [{"machineId": m} for (m,) in hosts]})
            time.sleep(0.2)
            return done()

        def count(where: str) -> int:
            return int(site.query(f"SELECT count(*) FROM machines WHERE {where}")[0][0])

        each = min(1000, self.machines)
        for number in range(self.machines // each):
            site.request(each, f"Zone-{ZONES[number % len(ZONES)]}")
        stage("launch", lambda: count("result = 'succeed'") == self.machines)
        ends = time.monotonic() + 125
        stage("at rest", lambda: time.monotonic() >= ends)
        rows = site.query("SELECT machine_id, name FROM machines WHERE alive = 1")
        answer = site.call(
            "requestReturnMachines", {"machines": [{"machineId": m, "name": n} for m, n in rows]}
        )
        assert answer.status == 0, answer.text
        stage("return", lambda: count("alive = 1") == 0)


class Watch:
    """Samples the memory of a process; `most` is the most MiB since it was set to 0."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.most = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self.most = max(self.most, memory(self.pid))
            except OSError:
                return

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def report(bench: Bench) -> str:
    lines = [
        "# Calls to AWS",
        "",
        "<!-- Written by `make bench-aws` (tests/performance/bench_aws.py); not by hand. -->",
        "",
        "Every call is counted at an HTTP proxy between boto3 and the sandbox, whose buckets are",
        "those that AWS documents; all settings are the defaults. Machines boot in 20 s and end in",
        f"15 s; HostFactory polls every {POLLED_EVERY:g} s. Reproduce with `make bench-aws`.",
        "",
        f"Measured on: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, CPython "
        f"{platform.python_version()}.",
        "",
        "## Bounds",
        "",
        "On a simulated clock, since AWS gives a new account 2 machines a second; the growth of",
        "memory is of the real worker below.",
        "",
        "| what | measured | bound | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.what} | {row.measured} | {row.bound} | {'holds' if row.holds else '**missed**'} |"
        for row in bench.rows
    ]
    lines += [
        "",
        "## A request of 100 machines by each way to launch",
        "",
        "From its command to the removal of its last machine, launch template and fleet, one",
        "sweep a minute and one poll of what is changing a second included; simulated clock.",
        "",
        "| way | calls | of which |",
        "|---|---:|---|",
    ]
    lines += [f"| {way} | {cost.total} | {in_words(cost.calls)} |" for way, cost in bench.ways]
    for title, stages, memory_of in (
        (
            f"## {bench.machines:,} machines on the simulated clock",
            bench.simulated,
            "Seconds are simulated. CPU and memory are those of one process that holds the worker, "
            "HostFactory's calls, the proxy and the sandbox. While the bucket of launched "
            "instances refills between requests the clock jumps, and nobody looks.",
        ),
        (
            f"## {bench.machines:,} machines in real time",
            bench.real,
            "The sandbox, `hostledger worker run` and the scripts are processes of their own; "
            "quotas are raised, in the sandbox and in `provider.aws.buckets`. CPU and memory are "
            f"the worker's, which had {bench.start_mib:.0f} MiB when it began.",
        ),
    ):
        if stages:
            lines += [
                "",
                title,
                "",
                memory_of,
                "",
                "| stage | seconds | CPU s | most MiB | calls |",
            ]
            lines += ["|---|---:|---:|---:|---|"]
            lines += [
                f"| {s.name} | {s.seconds:,.0f} | {s.cpu:,.0f} | {s.most_mib:.0f} | "
                f"{in_words(s.calls)} |"
                for s in stages
            ]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--print-only", action="store_true", help="do not write the report")
    arguments = parser.parse_args()
    for name in [n for n in os.environ if n.startswith(("HF_", "PRO_", "HOSTLEDGER_", "AWS_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with tempfile.TemporaryDirectory(prefix="hostledger-bench-") as directory:
        bench = Bench(Path(directory), arguments.machines, arguments.requests)
        bench.measure()
        bench.run_real()
        bench.simulate()
    if arguments.print_only:
        print(report(bench))
    else:
        REPORT.write_text(report(bench))
        print(f"written: {REPORT.relative_to(ROOT)}")
    return 0 if all(row.holds for row in bench.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
