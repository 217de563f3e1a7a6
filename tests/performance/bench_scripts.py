"""Whole processes, through the .sh scripts, against `python -c pass`.

Writes docs/reference/performance.md. Each call and the bare start run in turn, A B A B, on the
same machine; the median of the paired ratios is what is quoted, since absolute times drift.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from domain.host_factory import HostFactory
from domain.machine import Machine
from domain.machine_request import MachineRequest
from domain.template import Template
from infrastructure.clock import SystemClock
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import create_store

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "interfaces/hostfactory/scripts"
PYTHON = str(ROOT / ".venv/bin/python")
REPORT = ROOT / "docs/reference/performance.md"
ACTOR = {"user": "bench", "provider": "bench", "process": "bench"}


class Site:
    """A site with so many requests and machines in its ledger, written through the real store."""

    def __init__(self, root: Path, requests: list[int]) -> None:
        self.root = root
        for name in ("conf", "work/hostledger", "log"):
            (root / name).mkdir(parents=True)
        (root / "conf/awsprov_config.json").write_text('{"AWS_REGION": "us-east-1"}')
        template = {
            "templateId": "A",
            "maxNumber": 10000,
            "imageId": "ami-0a1b",
            "subnetId": "subnet-0a1b",
            "vmType": "t3.medium",
            "attributes": {
                "type": ["String", "X86_64"],
                "ncpus": ["Numeric", "2"],
                "nram": ["Numeric", "4096"],
            },
        }
        (root / "conf/awsprov_templates.json").write_text(json.dumps({"templates": [template]}))
        self.environ = {
            "PATH": os.environ["PATH"],
            "HF_PROVIDER_NAME": "bench",
            "HF_PROVIDER_CONFDIR": f"{root}/conf",
            "HF_PROVIDER_WORKDIR": f"{root}/work",
            "HF_PROVIDER_LOGDIR": f"{root}/log",
            "HOSTLEDGER_WORKER__MODE": "external",
        }
        clock = SystemClock()
        path = f"{root}/work/hostledger/ledger.db"
        create_store(path, clock, ACTOR, "bench")
        store = SqliteEventStore(path, clock, ACTOR)
        store.connection.execute("PRAGMA synchronous = OFF")
        self.requests: list[tuple[str, list[dict[str, str]]]] = []
        key = Template.key("bench", "A")
        known = Template(Template.stream(key))
        known.revise("bench", "A", "r", {})
        store.save(known)
        number = 0
        for index, count in enumerate(requests):
            request_id = f"req-{index:032x}"
            request = MachineRequest.ask(request_id, "bench", "A", "r", count, 300.0, "bench")
            machines = []
            for _ in range(count):
                number += 1
                machine = Machine(Machine.stream(f"i-{number:017x}"))
                name = f"ip-10-{number >> 16}-{number >> 8 & 255}-{number & 255}.ec2.internal"
                address = name[3:].partition(".")[0].replace("-", ".")
                machine.launch(
                    request_id=request_id, batch_id="bat-0", provider="bench", template_id="A",
                    revision="r", account="default", region="us-east-1", zone="us-east-1a",
                    instance_type="t3.medium", price_type="ondemand", name="",
                    private_ip_address="", launch_time=1_800_000_000, units=1,
                )  # fmt: skip
                machine.run(name, address, 1_800_000_000)
                machines.append(machine)
            store.save(request)
            for start in range(0, count, 100):
                store.save(*machines[start : start + 100])
            request.finish(count, "")
            store.save(request)
            rows = store.connection.execute(
                "SELECT machine_id, name FROM machines WHERE request_id = ? ORDER BY position",
                (request_id,),
            )
            hosts = [{"machineId": machine_id, "name": name} for machine_id, name in rows]
            self.requests.append((request_id, hosts))
        # As after its first rounds: HostFactory has polled each request and named each host.
        seen = HostFactory()
        for request_id, hosts in self.requests:
            seen.see_requests("bench", [request_id], [request_id])
            seen.see_machines("bench", [host["machineId"] for host in hosts])
        store.save(seen)
        self.machines = number
        boot_id, seconds = clock.now()[1:]
        store.connection.execute(
            "INSERT INTO sweeps VALUES ('default/us-east-1', 0, ?, ?, 0)", (boot_id, seconds + 1e6)
        )
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()

    def input(self, name: str, document: dict[str, Any]) -> str:
        path = self.root / name
        path.write_text(json.dumps(document))
        return str(path)


def once(command: list[str], environ: dict[str, str]) -> tuple[float, str]:
    """Milliseconds from the start to the end of a process, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    took = (time.perf_counter() - began) * 1000
    if done.returncode != 0:
        raise SystemExit(f"{command} failed: {done.stdout!r} {done.stderr!r}")
    return took, done.stdout.decode()


def compare(command: list[str], environ: dict[str, str], runs: int) -> dict[str, float]:
    """The call and the bare start in turn: both medians in ms, and the median of the ratios."""
    bare = [PYTHON, "-c", "pass"]
    calls, starts = [], []
    for index in range(runs + 2):
        call, start = once(command, environ)[0], once(bare, environ)[0]
        if index >= 2:
            calls.append(call)
            starts.append(start)
    ratios = [call / start for call, start in zip(calls, starts, strict=True)]
    return {
        "ms": statistics.median(calls),
        "pass_ms": statistics.median(starts),
        "ratio": statistics.median(ratios),
    }


def peak_of(command: list[str], environ: dict[str, str]) -> float:
    """Peak resident memory of a call in MiB, as the kernel accounts it to the ended process."""
    # Asked of a small process, since a child's peak begins with what its parent weighs.
    launcher = (
        "import os, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, "
        "file_actions=[(os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0)]); "
        "print(os.wait4(pid, 0)[2].ru_maxrss)"
    )
    return int(once([PYTHON, "-I", "-S", "-c", launcher, *command], environ)[1]) / 1024


def measure(runs: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="hostledger-bench-") as directory:
        small = Site(Path(directory) / "small", [50])
        large = Site(Path(directory) / "large", [50, 1000] + [9] * 966 + [8] * 32)
        thousand = Site(Path(directory) / "thousand", [1000])
        ten_thousand = Site(Path(directory) / "tens", [1000] * 10)

        def row(name: str, site: Site, verb: str, path: str, worst: float, aim: float) -> None:
            command = [str(SCRIPTS / f"{verb}.sh"), "-f", path]
            result = compare(command, site.environ, runs)
            peak = peak_of(command, site.environ)
            rows.append({"call": name, "worst": worst, "aim": aim, "peak_mib": peak, **result})
            print(
                f"{name:<62} {result['ms']:6.1f} ms / {result['pass_ms']:5.1f} ms = "
                f"{result['ratio']:.2f}x  (no worse than {worst}, aim {aim})  {peak:.1f} MiB",
                flush=True,
            )

        for label, site in (
            ("1 request, 50 machines stored", small),
            (f"{len(large.requests):,} requests, {large.machines:,} machines stored", large),
        ):
            empty = site.input("empty", {})
            status = site.input("status", {"requests": [{"requestId": site.requests[0][0]}]})
            row(f"getAvailableTemplates ({label})", site, "getAvailableTemplates", empty, 1.6, 1.3)
            row(f"getRequestStatus of 50 ({label})", site, "getRequestStatus", status, 1.6, 1.3)
            row(
                f"getReturnRequests with {{}} ({label})", site, "getReturnRequests", empty, 1.6, 1.3
            )
        status = thousand.input("status", {"requests": [{"requestId": thousand.requests[0][0]}]})
        row("getRequestStatus of 1,000", thousand, "getRequestStatus", status, 1.8, 1.5)
        hosts = thousand.input("hosts", {"machines": thousand.requests[0][1]})
        row("getReturnRequests with 1,000 hosts", thousand, "getReturnRequests", hosts, 1.8, 1.5)
        every = [host for _, hosts_ in ten_thousand.requests for host in hosts_]
        hosts = ten_thousand.input("hosts", {"machines": every})
        row(
            "getReturnRequests with 10,000 hosts",
            ten_thousand,
            "getReturnRequests",
            hosts,
            2.8,
            2.3,
        )
        ask = small.input("ask", {"template": {"templateId": "A", "machineCount": 1}})
        row("requestMachines", small, "requestMachines", ask, 6.0, 2.0)
        back = small.input("back", {"machines": small.requests[0][1][:1]})
        row("requestReturnMachines", small, "requestReturnMachines", back, 6.0, 2.0)
    return {
        "runs": runs,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "rows": rows,
    }


def report(results: dict[str, Any]) -> str:
    lines = [
        "# Performance of the five scripts",
        "",
        "<!-- Written by `make bench` (tests/performance/bench_scripts.py); not by hand. -->",
        "",
        "Whole processes through the `.sh` scripts on SQLite, against `.venv/bin/python -c pass`:",
        f"the two in turn, {results['runs']} times, the median of the paired ratios. `worker.mode`",
        "is external. Reproduce with `make bench`.",
        "",
        f"Measured on: {results['machine']}, CPython {results['python']}.",
        "",
        "| call | ms | `pass` ms | ratio | no worse than | aim | peak MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['call']} | {r['ms']:.1f} | {r['pass_ms']:.1f} | **{r['ratio']:.2f}** | "
        f"{r['worst']} | {r['aim']} | {r['peak_mib']:.1f} |"
        for r in results["rows"]
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--print-only", action="store_true", help="do not write the report")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    results = measure(arguments.runs)
    if not arguments.print_only:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(report(results))
        print(f"written: {REPORT.relative_to(ROOT)}")
    return 0 if all(r["ratio"] <= r["worst"] for r in results["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
