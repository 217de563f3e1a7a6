"""One of HostFactory's verbs in a fresh process, to see what its start and its work cost."""

from __future__ import annotations

import os
import pstats
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from interfaces.hostfactory import verbs

RUNS = 5
"""Runs of a read and of a bare Python in turn; a verb that changes something is run once."""

MAIN = os.path.join(os.path.dirname(os.path.abspath(verbs.__file__)), "main.py")

PROFILED = """
import cProfile, sys
python, verb, file, path = sys.argv[1:]
def call():
    from interfaces.hostfactory.verbs import run
    return run(verb, ["-f", file], python)
profile = cProfile.Profile()
status, text = profile.runcall(call)
profile.dump_stats(path)
print(text)
sys.exit(status)
"""

IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)")


class VerbRun:
    """`file` is the verb's input; `environ` names the instance. `failure` is what the verb said
    when it failed, "" when it did not."""

    def __init__(self, verb: str, file: str, environ: dict[str, str]) -> None:
        self._verb = verb
        self._file = file
        self._environ = environ
        self.failure = ""

    def startup(self) -> dict[str, Any]:
        """`total_ms` and `bare_ms` are medians of whole processes, the verb's and one that does
        nothing; `modules` are what the verb imports beyond the latter, the dearest first:
        `self_ms`, and `cumulative_ms` with what they import in turn."""
        bare = [sys.executable, "-c", "pass"]
        # As the scripts have it (interfaces/hostfactory/scripts/run).
        python = getattr(sys, "_base_executable", sys.executable)
        verb = [python, "-I", "-S", MAIN, sys.executable, self._verb, "-f", self._file]
        runs = RUNS if self._verb in verbs.READS else 0
        pairs = [(self._timed(verb), self._timed(bare)) for _ in range(runs)]
        known = {module for module, _, _ in self._imports([python, "-I", "-S"], ["-c", "pass"])}
        began = time.perf_counter()
        rows = [
            {"module": module, "self_ms": own / 1000, "cumulative_ms": cumulative / 1000}
            for module, own, cumulative in self._imports(verb[:3], verb[3:])
            if module not in known
        ]
        took = 1000 * (time.perf_counter() - began)
        pairs = pairs or [(took, self._timed(bare))]
        total = statistics.median(pair[0] for pair in pairs)
        return {
            "verb": self._verb,
            "total_ms": round(total, 1),
            "bare_ms": round(statistics.median(pair[1] for pair in pairs), 1),
            "ratio": round(statistics.median(pair[0] / pair[1] for pair in pairs), 2),
            "modules": sorted(rows, key=lambda row: -row["cumulative_ms"]),
        }

    def profile(self, path: str, most: int) -> dict[str, Any]:
        """Leave the verb's profile in a file. `functions` are those in which most time passed, with
        what they call: `cumulative` and `own` seconds, `calls`. The import system is left out,
        which stands between any two of ours; `startup` tells what is imported."""
        program = [sys.executable, "-I", "-c", PROFILED, sys.executable]
        self._run([*program, self._verb, self._file, path])
        stats: Any = pstats.Stats(path)
        rows = [
            {
                "function": "{}:{}({})".format(*function),
                "calls": calls,
                "own": round(own, 4),
                "cumulative": round(cumulative, 4),
            }
            for function, (_, calls, own, cumulative, _) in stats.stats.items()
            if not function[0].startswith("<frozen importlib")
        ]
        rows.sort(key=lambda row: -row["cumulative"])
        return {
            "verb": self._verb,
            "seconds": round(stats.total_tt, 4),
            "functions": rows[:most],
        }

    def _timed(self, command: Sequence[str]) -> float:
        """Milliseconds from its start to its end."""
        began = time.perf_counter()
        self._run(command)
        return 1000 * (time.perf_counter() - began)

    def _imports(
        self, python: Sequence[str], arguments: Sequence[str]
    ) -> Iterator[tuple[str, int, int]]:
        """Module, and microseconds of its own and with what it imports."""
        errors = self._run([*python, "-X", "importtime", *arguments])
        for own, cumulative, module in IMPORT.findall(errors):
            yield module, int(own), int(cumulative)

    def _run(self, command: Sequence[str]) -> str:
        """What the process says on stderr."""
        done = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0:
            self.failure = (done.stdout or done.stderr).strip()
        return done.stderr


@contextmanager
def empty_input() -> Iterator[str]:
    """Within: the path of an input that asks for nothing in particular."""
    with TemporaryDirectory(prefix="hostledger-") as directory:
        path = f"{directory}/input.json"
        with open(path, "w", encoding="ascii") as file:
            file.write("{}")
        yield path
