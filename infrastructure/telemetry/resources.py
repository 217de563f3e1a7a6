"""What a process uses of its machine, as Linux tells it."""

from __future__ import annotations

import os
from time import monotonic, process_time

PAGE = os.sysconf("SC_PAGE_SIZE")
CGROUPS = "/sys/fs/cgroup"


def memory_used_ratio() -> float:
    """The share of memory in use, 0 to 1: of the control group where that has a limit, else of the
    machine; 0 where nobody tells."""
    limit, used = _number(_cgroup("memory.max")), _number(_cgroup("memory.current"))
    if limit and used is not None:
        return used / limit
    found = {}
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        found[name] = value.split()
    try:
        total, available = int(found["MemTotal"][0]), int(found["MemAvailable"][0])
    except (KeyError, IndexError, ValueError):
        return 0.0
    return 1 - available / total


def _cgroup(name: str) -> str:
    """A file of this process's control group (version 2)."""
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::"):
            return f"{CGROUPS}{line[3:].strip()}/{name}"
    return ""


def _number(path: str) -> int | None:
    text = next(iter(_lines(path)), "").strip()
    return int(text) if text.isdecimal() else None


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readlines()
    except OSError:
        return []


def disk(path: str) -> tuple[int, int]:
    """Bytes that are free, and the size, of the file system a path is on. Raises OSError."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


class Usage:
    """What was used between two looks."""

    def __init__(self) -> None:
        self._at = monotonic()
        self._cpu = process_time()
        self._io = self._bytes()

    def look(self) -> dict[str, float]:
        """`rss_mb`, `vms_mb`, `cpu` (processors in use since the last look), `read_mb` and
        `written_mb` (to disks, since then)."""
        at, cpu, io = monotonic(), process_time(), self._bytes()
        pages = next(iter(_lines("/proc/self/statm")), "0 0").split()
        used = {
            "rss_mb": int(pages[1]) * PAGE / 1e6,
            "vms_mb": int(pages[0]) * PAGE / 1e6,
            "cpu": (cpu - self._cpu) / max(at - self._at, 1e-3),
            "read_mb": (io[0] - self._io[0]) / 1e6,
            "written_mb": (io[1] - self._io[1]) / 1e6,
        }
        self._at, self._cpu, self._io = at, cpu, io
        return used

    def _bytes(self) -> tuple[int, int]:
        found = dict(line.split(":", 1) for line in _lines("/proc/self/io"))
        return int(found.get("read_bytes", "0")), int(found.get("write_bytes", "0"))
