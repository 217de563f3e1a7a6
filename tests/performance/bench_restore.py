"""How long `hostledger store restore` and `store activate` take on each store: the time to go on.

Run as processes, as an operator does after a loss: from a backup to the first answer. DynamoDB is
the emulator, which says nothing of AWS's own times.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from tests.processes import ProcessSite
from tests.stores import FOUR, Place, serving

ROOT = Path(__file__).resolve().parents[2]
ACTOR = {"user": "bench", "provider": "awsinst", "process": "bench"}
STEPS = (
    ("store", "restore", "{backup}"),
    ("store", "activate", "--reason", "a drill"),
    ("requests", "list"),
)


def backup(directory: str, events: int) -> str:
    """Of a store with so many events."""
    storage = Place("sqlite", {}).storage(directory)
    storage.create(SystemClock(), ACTOR, "bench")
    with closing(storage.event_store(SystemClock(), ACTOR)) as store:
        for start in range(0, events - 1, 100):
            names = [f"req-{n:032x}" for n in range(start, min(start + 100, events - 1))]
            store.save(
                *(MachineRequest.ask(n, "awsinst", "T", "4f", 1, 300.0, "bench") for n in names)
            )
    path = f"{directory}/backup.db"
    storage.backup(path)
    return path


def seconds(kind: str, path: str, directory: str) -> list[float]:
    """Those of each step."""
    with ExitStack() as stack:
        place = serving(kind, stack, durable=True)()
        site = ProcessSite(Path(directory) / kind, settings=place.variables(), store=False)
        taken = []
        for step in STEPS:
            began = time.monotonic()
            command = [word.format(backup=path) for word in step]
            subprocess.run(
                [sys.executable, "-m", "interfaces.cli.main", *command],
                cwd=ROOT,
                env=site.environ,
                check=True,
                capture_output=True,
            )
            taken.append(time.monotonic() - began)
        return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stores", nargs="+", default=list(FOUR), choices=FOUR)
    parser.add_argument("--events", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = backup(directory, arguments.events)
        for kind in arguments.stores:
            restore, activate, first = seconds(kind, path, directory)
            print(
                f"{kind}: restore {restore:.1f} s, activate {activate:.1f} s, first answer "
                f"{first:.1f} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
