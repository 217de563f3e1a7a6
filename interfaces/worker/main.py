"""`python -m interfaces.worker.main PROVIDER [drain]`: the worker as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

from application.ports import CallFailed
from infrastructure import worker_start
from infrastructure.clock import SystemClock
from infrastructure.compiled import BrokenConfiguration
from infrastructure.event_store.sqlite_file import StoreError
from infrastructure.event_store.sqlite_setup import refuse_network_file_system
from infrastructure.site import NotConfigured, Site, site_from
from interfaces.worker.loop import Worker


def run(site: Site, environ: Mapping[str, str], *, drain: bool = False) -> int:
    """Work until told to stop or nothing is left. The reason of a start that fails is left in
    `worker.json`, for the scripts to tell. Exit status."""
    try:
        worker = Worker(site, environ, drain=drain)
        refuse_network_file_system(worker.store.path)
        # Made now, so that a configuration that cannot work is told at the start.
        worker.side.cloud()
    except (BrokenConfiguration, StoreError, NotConfigured, CallFailed) as error:
        _fail(site, str(error))
        print(error, file=sys.stderr)
        return 1

    def stop(number: int, frame: FrameType | None) -> None:
        worker.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker.run()
    return 0


def _fail(site: Site, reason: str) -> None:
    now = SystemClock().now()
    facts = worker_start.status(site)
    failures = max(1, int(facts.get("failures", 0)))
    facts.update(boot_id=now[1], tried=now[2], failures=failures, reason=reason)
    worker_start.write_status(site, facts)


if __name__ == "__main__":
    sys.exit(run(site_from(os.environ), os.environ, drain="drain" in sys.argv[2:]))
