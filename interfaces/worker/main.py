"""`python -m interfaces.worker.main [drain]`: the worker as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

from application.failures import BrokenConfiguration, NotConfigured, StoreError
from application.ports import CallFailed
from interfaces.worker.loop import Worker
from interfaces.write_side import Site, check_start, site_from, tell_failed_start


def run(site: Site, environ: Mapping[str, str], *, drain: bool = False) -> int:
    """Work until told to stop or nothing is left. Exit status.

    The reason of a start that fails goes to stderr and is left for the scripts to tell.
    """
    try:
        worker = Worker(site, environ, drain=drain)
        check_start(worker.side)
    except (BrokenConfiguration, StoreError, NotConfigured, CallFailed) as error:
        tell_failed_start(site, str(error))
        print(error, file=sys.stderr)
        return 1

    def stop(_number: int, _frame: FrameType | None) -> None:
        worker.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(run(site_from(os.environ), os.environ, drain="drain" in sys.argv[1:]))
