"""`python -m tests.simulation`: run seeds on all cores, or one seed again with its steps."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from typing import Any

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with all its steps")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Else sets are walked in another order in each process.
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
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
            elif sys.stderr.isatty():
                print(f"\r{done} of {len(seeds)}", end="", file=sys.stderr, flush=True)
    took = time.monotonic() - began
    print(
        f"{done} seeds, {failed} failed: {days:,.0f} days in {took:.0f} s, on "
        + ", ".join(f"{store} {count}" for store, count in stores.most_common())
    )
    print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
