"""What a long-lived process takes of the machine, as the site allots it."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from typing import Any


def keep_to_allotment(performance: Mapping[str, Any], journal: Any) -> None:
    """Of this process and its threads, from now on: processors (`performance.cpu.cpu_affinity`)
    and the collector's threshold (`performance.memory.gc_threshold`)."""
    threshold = performance["memory"]["gc_threshold"]
    if threshold is not None:
        gc.set_threshold(threshold, *gc.get_threshold()[1:])
    wanted = performance["cpu"]["cpu_affinity"]
    if not wanted:
        return
    usable = os.sched_getaffinity(0)
    missing = sorted(set(wanted) - usable)
    if missing:
        journal.warn(
            "processors are not there",
            processors=missing,
            usable=sorted(usable),
            next_step="name usable ones in performance.cpu.cpu_affinity",
        )
    if usable.intersection(wanted):
        os.sched_setaffinity(0, usable.intersection(wanted))
