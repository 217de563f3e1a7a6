"""`python -m tests.simulation`: run seeds on all cores, or one seed again with its steps."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.mutations import LEFT_OUT, MUTATIONS, ROOT, Mutation, changed
from tests.simulation.seeds import STEPS, run

LAST = 25
"""Steps that are shown of a seed that fails."""


def told(result: Any, steps: int) -> str:
    lines = [
        f"seed {result.seed} FAILS on {result.store} at step {result.step}, "
        f"{result.days:.2f} days in: {result.failure}",
        *(f"    {line}" for line in result.steps[:1] + result.steps[1:][-steps:]),
        f"    run it again: make simulate SEED={result.seed}",
    ]
    return "\n".join(lines)


def noticed(mutation: Mutation, seeds: int, steps: int) -> tuple[list[int], str]:
    """The seeds that fail in a copy of the tree with this mutation, and how the first one does."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        tree = Path(place) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        file = tree / mutation.file
        file.write_text(changed(file.read_text(), mutation))
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.simulation",
                "--seeds",
                str(seeds),
                "--steps",
                str(steps),
            ],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = re.findall(r"^seed (\d+) FAILS .*? days in: (.*)", ended.stdout, re.MULTILINE)
    return [int(seed) for seed, _ in failed], failed[0][1] if failed else ended.stderr[-200:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with all its steps")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time")
    parser.add_argument(
        "--mutation", action="append", help="break the product so (tests/mutations.py) first"
    )
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Else sets are walked in another order in each process.
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    if arguments.mutation:
        for mutation in MUTATIONS:
            if mutation.name in arguments.mutation:
                found, how = noticed(mutation, arguments.seeds, arguments.steps)
                told_how = f"{len(found)} of {arguments.seeds} seeds: {how[:160]}"
                print(f"{mutation.name}: {told_how}", flush=True)
        return 0
    if arguments.seed is not None:
        result = run((arguments.seed, arguments.steps))
        print(told(result, 10**6) if result.failure else "\n".join(result.steps))
        print(f"seed {result.seed}: {result.days:.2f} days in {result.seconds:.1f} s")
        return 1 if result.failure else 0
    began, failed, done = time.monotonic(), 0, 0
    counts: Counter[str] = Counter()
    stores: Counter[str] = Counter()
    days = 0.0
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.jobs, maxtasksperchild=50) as pool:
        for result in pool.imap_unordered(run, [(seed, arguments.steps) for seed in seeds]):
            done += 1
            days += result.days
            counts.update(result.counts)
            stores[result.store] += 1
            if result.failure:
                failed += 1
                print(told(result, LAST), flush=True)
            if done % 25 == 0:
                print(f"{done} of {len(seeds)} seeds, {failed} failed", flush=True)
    took = time.monotonic() - began
    print(
        f"{done} seeds, {failed} failed: {days:,.0f} days in {took:.0f} s, on "
        + ", ".join(f"{store} {count}" for store, count in stores.most_common())
    )
    print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
