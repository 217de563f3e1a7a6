"""What a process loads of itself, when and for how long: the tree that `PERFORMANCE_DEBUG` puts in
the log."""

from __future__ import annotations

import _thread
import os
import sys
import time
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

VARIABLE = "PERFORMANCE_DEBUG"

OURS = frozenset({"domain", "application", "infrastructure", "interfaces"})


def is_wanted(environ: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
    """Whether a site wants the tree: by the variable or by `debug_timing`."""
    by_variable = environ.get(VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")
    return by_variable or bool(settings["performance"]["lazy_loading"]["debug_timing"])


class Loads:
    """One process's. Until it is known whether anybody wants to read of them they are kept."""

    def __init__(self) -> None:
        self._under_way: dict[int, list[list[Any]]] = {}
        """Thread -> what it is loading, the outermost first, each with the seconds of others."""
        self._kept: list[dict[str, Any]] = []
        self._journal: Any = None
        self._are_wanted = True
        self._process_began = _process_began()

    @contextmanager
    def loading(self, component: str) -> Iterator[None]:
        """Around what loads a component, and whatever is loaded for it meanwhile."""
        if not self._are_wanted:
            yield
            return
        outer = self._under_way.setdefault(_thread.get_ident(), [])
        within = " > ".join(name for name, _ in outer)
        known = set(sys.modules)
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        outer.append([component, 0.0])
        try:
            yield
        finally:
            took = time.clock_gettime(time.CLOCK_BOOTTIME) - began
            _, of_others = outer.pop()
            if outer:
                outer[-1][1] += took
            new = sys.modules.keys() - known
            self._kept.append(
                {
                    "component": component,
                    "within": within,
                    "after": round(began - self._process_began, 3),
                    "seconds": round(took, 4),
                    "own_seconds": round(took - of_others, 4),
                    "modules": len(new),
                    "libraries": sorted(_libraries(new)),
                    "thread": _thread_name(),
                }
            )

    def report_to(self, journal: Any, *, wanted: bool) -> None:
        """Whether, and where, what was loaded so far and from now on is told. Where something else
        was said before, what was loaded until now is told there."""
        self.tell()
        self._journal = journal
        self._are_wanted = wanted
        if not wanted:
            self._kept.clear()

    def tell(self) -> None:
        """Write to the log what has been loaded since the last time."""
        if self._journal is None or not self._kept:
            return
        kept, self._kept = self._kept, []
        for load in sorted(kept, key=lambda load: (load["after"], len(load["within"]))):
            self._journal.info("loaded", **load)


def _libraries(modules: set[str]) -> set[str]:
    found = {name.partition(".")[0] for name in modules}
    return {n for n in found - OURS - sys.stdlib_module_names if not n.startswith("_")}


def _thread_name() -> str:
    """Where nobody has imported threading there is but one."""
    threading = sys.modules.get("threading")
    return "MainThread" if threading is None else threading.current_thread().name


def _process_began() -> float:
    """On the boot clock, to a hundredth of a second."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
    except OSError:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return ticks / os.sysconf("SC_CLK_TCK")


loads = Loads()
