"""What a rebuild of all read models costs: time against a bare read of the same rows, memory, and
what commands notice of it.

Writes docs/reference/performance-replay.md. The two that are compared take turns, each in a process
of its own, and the median of the paired ratios of their processor time is quoted.
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
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from infrastructure.clock import SystemClock
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_setup import create_store
from tests.fakes.clock import FakeClock
from tests.performance.bench_stores import missed
from tests.performance.past import ACTOR, ALIVE, DAYS, write_past

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs/reference/performance-replay.md"

BARE = """
import json, sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute("SELECT * FROM events ORDER BY position"):
    json.loads(row[8])
"""

OPEN = """
import os, sys
sys.path.insert(0, os.getcwd())
from contextlib import closing
from application.rebuilding import rebuild, verify
from application.replay import end_of, replay
from infrastructure.clock import SystemClock
from infrastructure.read_models.replica import Replica
from infrastructure.site import Site
from infrastructure.storage.sqlite import SqliteStorage
path = sys.argv[1]
site = Site("bench", "/", os.path.dirname(path), "")
storage = SqliteStorage(site, {"sqlite_strategy": {"path": path}})
view = storage.log()
deployment, _, _ = view.identity()
quiet = lambda done, of: None
"""

REPLAY = OPEN + "replay(view, Replica('', deployment), end_of(view))\n"
AUDIT = OPEN + "from infrastructure.event_store.verification import verify as check\n"
AUDIT += "assert not check(storage.raw_log(), {})['findings']\n"
VERIFY = OPEN + "assert not verify(view, Replica('', deployment), quiet)['differences']\n"
REBUILD = (
    OPEN
    + """
import time
store = storage.event_store(SystemClock(), {})
exchange = store.exchange
def timed(*given):
    began = time.perf_counter()
    exchange(*given)
    print("held", time.perf_counter() - began)
store.exchange = timed
replica = Replica(path + ".rebuild", deployment)
print("rows", rebuild(view, store, storage.view_of(store), replica, quiet).exchanged)
replica.close()
os.unlink(path + ".rebuild")
"""
)

ONE = (
    OPEN
    + """
import random, statistics, time
from functools import partial
from application import as_of, queries
from infrastructure.read_models.past import part
chance, end = random.Random(1), end_of(view)
def measure(name, statement, find, ask):
    took = []
    ids = [i for (i,) in view._connection.execute(statement)]
    for identifier in chance.sample(ids, 30):
        began = time.process_time()
        look = part(storage.log(), end, find(identifier, storage.log(), end))
        ask(look, identifier)
        took.append((time.process_time() - began) * 1000)
        look.close()
    print(name, statistics.median(took), max(took))
asked = "SELECT request_id FROM requests WHERE kind = 'request'"
measure("request", asked, lambda i, *of: as_of.requests([i], *of), queries.request)
measure("machine", "SELECT machine_id FROM machines", as_of.machine, queries.machine)
"""
)

FLEET = (
    OPEN
    + """
import time
from application import queries
from infrastructure.read_models.past import Snapshots
began = time.process_time()
look = Snapshots(sys.argv[1] + ".past", view).look(end_of(view) - BEFORE)
print("look", time.process_time() - began)
if ASKED:
    print("asked", len(queries.machines(look, alive_only=True)))
    print("whole", time.process_time() - began)
"""
)

COMMANDS = """
import json, os, sys, time
sys.path.insert(0, os.getcwd())
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from infrastructure.event_store.sqlite import SqliteEventStore
store = SqliteEventStore(sys.argv[1], SystemClock(), {})
took = []
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    asked = MachineRequest.ask("req-" + os.urandom(16).hex(), "p", "T", "r", 1, 300.0, "bench")
    began = time.perf_counter()
    store.save(asked)
    took.append(time.perf_counter() - began)
    time.sleep(0.02)
print(json.dumps(took))
"""


USED = """
import time
with open("/proc/self/status") as status:
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
print(time.process_time(), peak)
"""


def run(code: str, path: str) -> tuple[float, float, str]:
    """Seconds of work, MiB at most, and what it printed, of a process of its own."""
    measured = code + USED
    done = subprocess.run(
        [sys.executable, "-c", measured, path], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    *told, used = done.stdout.split("\n")[:-1]
    worked, peak = used.split()
    return float(worked), int(peak) / 1024, "\n".join(told)


def against_bare(path: str, events: int, runs: int) -> list[dict[str, Any]]:
    found = []
    for name, code in (("replay", REPLAY), ("verify", VERIFY), ("rebuild", REBUILD)):
        ratios, rates, peaks, held = [], [], [], []
        for _ in range(runs):
            bare, _, _ = run(BARE, path)
            took, peak, told = run(code, path)
            ratios.append(bare / took)
            rates.append(events / took)
            peaks.append(peak)
            held += [float(line.split()[1]) for line in told.split("\n") if "held" in line]
        found.append(
            {
                "what": name, "ratio": statistics.median(ratios), "rate": statistics.median(rates),
                "peak": max(peaks), "held": max(held, default=None),
            }
        )  # fmt: skip
        print(found[-1], flush=True)
    return found


def commands_meanwhile(path: str, directory: str) -> dict[str, float]:
    """Milliseconds of a command, one each 20 ms, with nothing beside it and beside a rebuild."""
    found = {}
    for name in ("alone", "beside"):
        stop = f"{directory}/stop-{name}"
        writer = subprocess.Popen(
            [sys.executable, "-c", COMMANDS, path, stop], cwd=ROOT, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        if name == "alone":
            time.sleep(10)
        else:
            run(REBUILD, path)
        Path(stop).touch()
        took = json.loads(writer.communicate()[0])
        found[name] = statistics.median(took) * 1000
        found[name + "_mean"] = statistics.mean(took) * 1000
        found[name + "_most"] = max(took) * 1000
    print(found, flush=True)
    return found


def history_of_one(path: str, directory: str, runs: int = 15) -> dict[str, float]:
    """`hostledger audit history` of a machine in the middle of the log, as a whole process: the
    median of the ratios to `python -c pass`, run in turn, and its milliseconds."""
    with closing(sqlite3.connect(path)) as connection:
        ((machine_id,),) = connection.execute(
            "SELECT substr(stream, 9) FROM events WHERE topic = 'MachineTerminated' "
            "ORDER BY position LIMIT 1 OFFSET 1000"
        ).fetchall()
    places = {}
    for name, variable in (("conf", "CONF"), ("work", "WORK"), ("log", "LOG")):
        os.makedirs(f"{directory}/{name}/hostledger", exist_ok=True)
        places[f"HF_PROVIDER_{variable}DIR"] = f"{directory}/{name}"
    Path(f"{directory}/conf/benchprov_config.json").write_text('{"AWS_REGION": "us-east-1"}')
    Path(f"{directory}/conf/benchprov_templates.json").write_text('{"templates": []}')
    environ = {
        "PATH": os.environ["PATH"], "HF_PROVIDER_NAME": "bench", **places,
        "HOSTLEDGER_STORAGE__SQLITE_STRATEGY__PATH": path,
    }  # fmt: skip
    hostledger = str(Path(sys.executable).parent / "hostledger")

    def took(words: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run(words, env=environ, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    asked = [hostledger, "audit", "history", machine_id]
    took(asked)  # compiles the configuration
    pairs = [(took([sys.executable, "-c", "pass"]), took(asked)) for _ in range(runs)]
    found = {
        "ratio": statistics.median(mine / bare for bare, mine in pairs),
        "ms": statistics.median(mine for _, mine in pairs) * 1000,
    }
    print(found, flush=True)
    return found


def everything_differs(path: str) -> dict[str, float]:
    """How long the store is held when every row of a read model must be exchanged."""
    with closing(sqlite3.connect(path)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM machines").fetchone()
        connection.execute("UPDATE machines SET zone = 'elsewhere'")
        connection.commit()
    took, peak, told = run(REBUILD, path)
    lines = dict(line.split() for line in told.split("\n"))
    found = {"rows": rows, "held": float(lines["held"]), "took": took, "peak": peak}
    print(found, flush=True)
    return found


def as_of(path: str) -> dict[str, Any]:
    """Milliseconds of work of looks at one thing (median, most); seconds and MiB of looks at the
    fleet: the first, and from a snapshot with hardly anything or 9,999 events to fold."""
    from infrastructure.read_models.past import STEP

    _, peak, told = run(ONE, path)
    found: dict[str, Any] = {"peak": peak}
    for line in told.split("\n"):
        name, median, most = line.split()
        found[name] = (float(median), float(most))
    with closing(sqlite3.connect(path)) as connection:
        (end,) = connection.execute("SELECT max(position) FROM events").fetchone()
    for name, before, asked in (
        ("first", 0, 0),
        ("end", 0, 1),
        ("far", end % STEP + 1, 1),
    ):
        _, peak, told = run(f"BEFORE, ASKED = {before}, {asked}\n{FLEET}", path)
        found[name] = {**{k: float(v) for k, v in map(str.split, told.split("\n"))}, "peak": peak}
    found["kept"] = sum(p.stat().st_size for p in Path(path + ".past").iterdir()) / 2**20
    found["files"] = len(list(Path(path + ".past").iterdir()))
    print(found, flush=True)
    return found


def make_log(path: str, events: int) -> None:
    clock = FakeClock(time.time() - DAYS * 86400.0)
    create_store(path, clock, ACTOR, "bench")
    with closing(SqliteEventStore(path, clock, ACTOR)) as store:
        store.connection.execute("PRAGMA synchronous = OFF")
        store.connection.execute("PRAGMA cache_size = -200000")
        write_past(store, clock, events)


def copy_log(source: str, path: str) -> None:
    """A store that lives, of a file that `past.py` made."""
    shutil.copyfile(source, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE store SET inode = ?", (os.stat(path).st_ino,))
        connection.commit()
    SqliteEventStore(path, SystemClock(), ACTOR).close()  # brought up to date


def measure(source: str, events: int, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hostledger-bench-", dir="/var/tmp") as directory:
        path, small = f"{directory}/ledger.db", f"{directory}/small.db"
        if source:
            copy_log(source, path)
        else:
            make_log(path, events)
        with closing(sqlite3.connect(path)) as connection:
            (events,) = connection.execute("SELECT max(position) FROM events").fetchone()
        make_log(small, events // 10)
        return {
            "events": events,
            "small": {"events": events // 10, "peak": run(REBUILD, small)[1]},
            "as_of": as_of(path),
            "ratios": against_bare(path, events, runs),
            "audit": run(AUDIT, path),
            "history": history_of_one(path, directory),
            "commands": commands_meanwhile(path, directory),
            "all": everything_differs(path),
        }


def as_of_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        "## As of a position",
        "",
        "At the end of the log, milliseconds of work, thirty of each, opening the store included",
        "(no more than 50, aim 10):",
        "",
        "| | median ms | most ms |",
        "|---|---:|---:|",
        *(
            f"| one {name} | **{found[name][0]:.1f}** | {found[name][1]:.1f} |"
            for name in ("request", "machine")
        ),
        "",
        "The whole fleet, in seconds of work: until it can be asked, and with the machines that",
        "live asked for (no more than 1, aim 0.4). The first look folds the whole log and leaves",
        f"{found['files']} snapshots of {found['kept']:,.0f} MiB in all.",
        "",
        "| | look s | with the machines s | MiB at most |",
        "|---|---:|---:|---:|",
    ]
    for name, told in (
        ("first", "the first, from no snapshot"),
        ("end", "at the end, from the last snapshot"),
        ("far", "as far after a snapshot as can be"),
    ):
        one = found[name]
        whole = f"**{one['whole']:.2f}**" if "whole" in one else ""
        lines.append(f"| {told} | {one['look']:.2f} | {whole} | {one['peak']:.0f} |")
    return [*lines, ""]


def past_bounds(found: dict[str, Any]) -> str:
    commands, as_of = found["commands"], found["as_of"]
    rebuilt = next(r for r in found["ratios"] if r["what"] == "rebuild")
    least = missed([("a rebuild's rate", rebuilt["ratio"], 0.12)], least=True)
    most = missed(
        [
            ("a rebuild's MiB", rebuilt["peak"], 200),
            ("commands beside a rebuild", commands["beside"] / commands["alone"], 1.2),
            *((f"ms as of, one {name}", as_of[name][0], 50) for name in ("request", "machine")),
            ("s as of, the whole fleet at the end", as_of["end"]["whole"], 1),
            ("s as of, the whole fleet far from a snapshot", as_of["far"]["whole"], 1),
            ("audit history", found["history"]["ratio"], 6),
        ],
        least=False,
    )
    told = [sentence for sentence in (least, most) if "Missed" in sentence]
    return " ".join(told) or least


def _flags() -> list[str]:
    """As given, but for the place of a log on this machine."""
    return [os.path.basename(word) for word in sys.argv[1:]]


def report(found: dict[str, Any]) -> str:
    commands, everything = found["commands"], found["all"]
    lines = [
        "# Performance of replay",
        "",
        "<!-- Written by `make bench-replay` (tests/performance/bench_replay.py); not by hand. -->",
        "",
        f"A log of {found['events']:,} events on SQLite, with up to {ALIVE:,} machines alive whose",
        "events are interleaved. The bare read is a `SELECT` of the same rows and `json.loads` of",
        "their data; ratios are of processor time, medians of pairs of one run. Reproduce with",
        "`make bench-replay`; this page was made with",
        f"`{' '.join(['bench_replay.py', *_flags()])}`.",
        "",
        f"Measured on: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, CPython "
        f"{platform.python_version()}.",
        "",
        "`replay` folds the log into read models of their own; `verify` compares them with those",
        "that answer, too; `rebuild` keeps them in a file meanwhile and exchanges what differs. A",
        "rebuild is to reach 0.12 (aim 0.25) in no more than 200 MiB (aim 128).",
        "",
        f"Of all bounds on this page: {past_bounds(found)}",
        "",
        "| what | events a second of work | ratio | MiB at most | seconds that the store is held |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['what']} | {r['rate']:,.0f} | **{r['ratio']:.2f}** | {r['peak']:.0f} | "
        f"{'' if r['held'] is None else format(r['held'], '.3f')} |"
        for r in found["ratios"]
    ]
    lines += [
        "",
        f"A rebuild of a log of {found['small']['events']:,} events takes "
        f"{found['small']['peak']:.0f} MiB at most.",
        "",
        f"When all {everything['rows']:,} rows of machines must be exchanged, the one commit that",
        f"does it holds the store for {everything['held']:.1f} s (the whole is "
        f"{everything['took']:.0f} s of work), and",
        f"the rebuild takes {everything['peak']:.0f} MiB at most.",
        "",
        "## Commands meanwhile",
        "",
        "A request each 20 ms, with nothing beside it and beside a rebuild (no more than 1.2):",
        "",
        "| | median ms | mean ms | longest ms |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {told} | {commands[name]:.2f} | {commands[name + '_mean']:.2f} | "
        f"{commands[name + '_most']:.0f} |"
        for name, told in (("alone", "alone"), ("beside", "beside a rebuild"))
    ]
    lines += ["", f"Ratio of the medians: **{commands['beside'] / commands['alone']:.2f}**.", ""]
    lines += as_of_lines(found["as_of"])
    took, peak, _ = found["audit"]
    lines += [
        "## Audit",
        "",
        "`hostledger audit history` of one machine, with the AWS calls behind it, as a whole",
        f"process: **{found['history']['ratio']:.1f}** times `python -c pass`, "
        f"{found['history']['ms']:.0f} ms (no more than 6, aim 2).",
        "`audit verify` reads the log, but for the read models, at "
        f"{found['events'] / took:,.0f} events a",
        "second of work,",
        f"in {peak:.0f} MiB at most.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--log", default="", help="a store that past.py made, to be copied")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--print-only", action="store_true", help="do not write the report")
    arguments = parser.parse_args()
    page = report(measure(arguments.log, arguments.events, arguments.runs))
    if arguments.print_only:
        print(page)
    else:
        REPORT.write_text(page)
        print(f"written: {REPORT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
