"""Starting a worker from a script, and telling whether one lives.

`worker.json` beside the store says when a worker last lived and how starting it went; the lease in
the store decides who acts. A worker holds `worker.lock` while it lives, and the kernel lets go of
it when it dies, however it dies.
"""

from __future__ import annotations

import os

from application.json_text import BadJson, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from application.instants import Instant
    from infrastructure.site import Site

MISSED_AFTER = 60.0
"""Seconds without a living worker after which every answer says so."""

FIRST_WAIT, LONGEST_WAIT = 30.0, 600.0
"""Seconds before a start that failed is tried again: the first time, and at most."""


def status(site: Site) -> dict[str, Any]:
    """What `worker.json` says; {} when there is none."""
    try:
        with open(site.worker_status, "rb", 0) as file:
            value = loads(file.read().decode())
    except (OSError, BadJson, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def write_status(site: Site, facts: dict[str, Any]) -> None:
    """Put `worker.json` in its place whole; where that cannot be, nobody is told."""
    unfinished = f"{site.worker_status}.{os.getpid()}"
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(descriptor, dumps(facts).encode())
        os.close(descriptor)
        os.replace(unfinished, site.worker_status)
    except OSError:
        return


def lived_ago(facts: dict[str, Any], now: Instant) -> float | None:
    """Seconds since a worker last said that it lives, on this boot; None when none ever did."""
    if facts.get("boot_id") != now[1] or not facts.get("alive"):
        return None
    return max(0.0, now[2] - float(facts["alive"]))


def is_alive(site: Site) -> bool:
    """Whether a process holds the worker's lock."""
    import fcntl

    try:
        descriptor = os.open(site.worker_lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def start(site: Site, python: str, environ: Mapping[str, str], now: Instant) -> bool:
    """Start a detached worker, unless one lives or a start failed a short while ago.

    It gets a session and process group of its own, `/` as its directory, no descriptor of ours
    (HostFactory reads our output to its end) and none of the caller's PYTHON* and LD_*.
    """
    facts = status(site)
    if facts.get("boot_id") == now[1] and facts.get("tried"):
        failures = int(facts.get("failures", 0))
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, failures - 1)) if failures else 2.0
        if now[2] - float(facts["tried"]) < wait:
            return False
    if is_alive(site):
        return False
    # Counted as failed until the worker itself says that it lives.
    facts.update(boot_id=now[1], tried=now[2], failures=int(facts.get("failures", 0)) + 1)
    write_status(site, facts)
    kept = {k: v for k, v in environ.items() if not k.startswith(("PYTHON", "LD_"))}
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            os.chdir("/")
            nothing = os.open("/dev/null", os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            os.closerange(3, 65536)
            os.execve(python, [python, "-I", "-m", "interfaces.worker.main"], kept)
        finally:
            os._exit(127)
    os.wait()
    return True
