"""Whole processes, timed from their start to their end beside one that does nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from application.failures import StoreError
from interfaces import hostfactory

SCRIPTS = Path(hostfactory.__file__).parent / "scripts"
BARE = [sys.executable, "-c", "pass"]
"""What everything is compared with: Python's own start."""

WARMING = 2
"""Pairs that are run before any is counted: files come into the cache, settings are compiled."""

# A child's peak begins with what its parent weighs, so that a small process asks.
PEAK = (
    "import os, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, "
    "file_actions=[(os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0)]); "
    "print(os.wait4(pid, 0)[2].ru_maxrss)"
)


def hostledger(*words: str) -> list[str]:
    """An operator's command as it is installed beside this interpreter."""
    installed = os.path.join(os.path.dirname(sys.executable), "hostledger")
    if os.access(installed, os.X_OK):
        return [installed, *words]
    return [sys.executable, "-m", "interfaces.cli.main", *words]


def script(verb: str, file: str) -> list[str]:
    """One of HostFactory's five scripts."""
    return [str(SCRIPTS / f"{verb}.sh"), "-f", file]


def once(command: Sequence[str], environ: Mapping[str, str]) -> tuple[float, str]:
    """Milliseconds from the start to the end of a process, and what it printed; it works in the
    directory that `PWD` says. Raises StoreError where it failed."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environ, cwd=environ.get("PWD"), capture_output=True)
    took = (time.perf_counter() - began) * 1000
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise StoreError(f"{' '.join(command)} failed, so it cannot be measured: {said}")
    return took, done.stdout.decode()


def compare(
    command: Sequence[str],
    environ: Mapping[str, str],
    runs: int,
    bare: Sequence[str] = BARE,
    warming: int = WARMING,
) -> dict[str, float]:
    """The call and the bare start in turn: both medians in ms, and the median of the ratios."""
    pairs = [(once(command, environ)[0], once(bare, environ)[0]) for _ in range(runs + warming)]
    counted = pairs[warming:]
    return {
        "ms": statistics.median(call for call, _ in counted),
        "pass_ms": statistics.median(start for _, start in counted),
        "ratio": statistics.median(call / start for call, start in counted),
    }


def peak_of(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Most resident memory of a call in MiB, as the kernel accounts it to the ended process."""
    return int(once([sys.executable, "-I", "-S", "-c", PEAK, *command], environ)[1]) / 1024


def bare_cpu(runs: int) -> float:
    """Seconds of processor time of a bare start: the median."""
    took = []
    for _ in range(runs):
        pid = os.posix_spawn(BARE[0], BARE, os.environ)
        used = os.wait4(pid, 0)[2]
        took.append(used.ru_utime + used.ru_stime)
    return statistics.median(took)


def together(
    commands: Sequence[Sequence[str]], environ: Mapping[str, str], at_once: int
) -> tuple[list[float], float]:
    """So many processes at a time until all have ended: the milliseconds of each, and the seconds
    of all. Raises StoreError where one failed."""
    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        took = list(pool.map(lambda command: once(command, environ)[0], commands))
    return took, time.perf_counter() - began
