"""`python -m interfaces.rest.snapshots PROVIDER CONF WORK LOG`: leave snapshots of the past in a
process of its own, so that nobody waits for them who looks at a moment far from any.

The server starts it each time that the log has grown by so much that another one may be due.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from types import FrameType

from application.failures import BrokenConfiguration, StoreError
from interfaces.read_side import Call, Site
from interfaces.rest.looks import Looks

EVERY = 60.0
"""Seconds between two looks at how long the log is; the first is as long after the start."""

GROWN = 10_000
"""Events after which snapshots are looked after again."""


async def keep_covered(looks: Looks, every: float = EVERY, grown: int = GROWN) -> None:
    """Until cancelled; a process that is at it then is ended."""
    covered = 0
    while True:
        await asyncio.sleep(every)
        try:
            end = await looks.end()
            if end - covered >= grown:
                covered = end
                await _run(looks)
        except (StoreError, BrokenConfiguration, OSError):
            continue  # whoever asks is told


async def _run(looks: Looks) -> None:
    site = looks.site
    process = await asyncio.create_subprocess_exec(
        *(looks.python, "-I", "-m", "interfaces.rest.snapshots"),
        *(site.provider, site.conf_dir, site.work_dir, site.log_dir),
        env=dict(looks.environ),  # uvloop takes no other mapping
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)  # by the way of what is not finished being removed


def main() -> int:
    """Exit status. Why none could be left is in the log."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's, which ends this one
    os.nice(19)
    parent = os.getppid()

    def go_on(position: int, end: int) -> None:
        if os.getppid() != parent:
            sys.exit(0)  # the server was killed

    call = Call("server", os.environ, sys.executable, Site(*sys.argv[1:]))
    try:
        call.cover_past(go_on)
    except StoreError as error:
        call.journal().warn("no snapshots are left", message=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
