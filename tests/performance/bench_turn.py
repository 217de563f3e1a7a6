"""What a quiet turn of a worker costs, by machines that HostFactory was told of and has not named.

`python -m tests.performance.bench_turn` prints processor time, of this process alone, and the
statements that the policies' rows and notes are asked with; docs/decisions/0005 has them.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from infrastructure.event_store.postgresql_driver import Session
from infrastructure.event_store.sqlite_timed import TimedConnection
from tests.stores import serving
from tests.world import World

TURNS, TIMES = 40, 5


def counted(owner: type, turn: object) -> int:
    """How many statements one turn gives to this kind of connection."""
    execute = owner.execute  # type: ignore[attr-defined]
    asked = []

    def count(self: object, statement: str, *parameters: object) -> object:
        asked.append(statement)
        return execute(self, statement, *parameters)

    owner.execute = count  # type: ignore[attr-defined]
    try:
        turn()  # type: ignore[operator]
    finally:
        owner.execute = execute  # type: ignore[attr-defined]
    return len(asked)


def main() -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "sandbox"
    print(f"{'store':12}{'machines':>10}{'statements':>12}{'ms':>8}")
    for kind, owner in (("sqlite", TimedConnection), ("postgresql", Session)):
        with ExitStack() as stack:
            new_place = serving(kind, stack)
            for count in (20, 200, 1000):
                root = Path(stack.enter_context(TemporaryDirectory()))
                world = World(root / "site", place=new_place(), boot_time=20.0)
                worker = world.start_worker()
                world.fulfilled(count)
                world.run(30)
                took = []
                for _ in range(TIMES):
                    began = time.process_time()
                    for _ in range(TURNS):
                        worker.turn()
                    took.append((time.process_time() - began) / TURNS * 1000)
                statements = counted(owner, worker.turn)
                print(f"{kind:12}{count:10,}{statements:12}{min(took):8.2f}", flush=True)
                world.close()


if __name__ == "__main__":
    main()
