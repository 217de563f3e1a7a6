"""`python -m interfaces.worker.main [drain]`: the worker as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

from application.failures import BrokenConfiguration, NotConfigured, NotInstalled, StoreError
from application.ports import CallFailed
from interfaces.allotment import keep_to_allotment
from interfaces.loading import loads
from interfaces.worker.loop import Worker
from interfaces.write_side.container import Site, site_from
from interfaces.write_side.start import check_start, tell_failed_start


def start(
    site: Site, environ: Mapping[str, str], *, drain: bool = False, stay: bool = False
) -> Worker | None:
    """A worker that may begin; None where it may not. The reason goes to stderr and is left for the
    scripts to tell."""
    try:
        worker = Worker(site, environ, drain=drain, stay=stay)
        keep_to_allotment(worker.side.compiled().settings["performance"], worker.side.journal())
        check_start(worker.side)
    except (BrokenConfiguration, StoreError, NotConfigured, NotInstalled, CallFailed) as error:
        tell_failed_start(site, str(error))
        print(error, file=sys.stderr)
        return None
    finally:
        loads.tell()
    return worker


def run(site: Site, environ: Mapping[str, str], *, drain: bool = False, stay: bool = False) -> int:
    """Work until told to stop or nothing is left; with `stay` until told, or until the process that
    started this one has ended. Exit status."""
    worker = start(site, environ, drain=drain, stay=stay)
    if worker is None:
        return 1

    def stop(_number: int, _frame: FrameType | None) -> None:
        worker.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    parent = os.getppid()

    def sleep(seconds: float) -> None:
        worker.clock.sleep(seconds)
        worker.stopping |= stay and os.getppid() != parent

    worker.run(sleep)
    return 0


if __name__ == "__main__":
    sys.exit(run(site_from(os.environ), os.environ, drain="drain" in sys.argv[1:]))
