"""Starting a worker from a script, and telling whether one lives.

`worker.json` beside the store says when a worker last lived and how starting it went; the lease in
the store decides who acts. A worker holds `worker.lock` while it lives, and the kernel lets go of
it when it dies, however it dies.
"""

from __future__ import annotations

import os

from application.json_text import BadJson, dumps, loads
from application.version import VERSION

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


def write_status(site: Site, facts: dict[str, Any]) -> bool:
    """Put `worker.json` in its place whole; False where that cannot be."""
    unfinished = f"{site.worker_status}.{os.getpid()}"
    try:
        with open(unfinished, "wb", opener=_private) as file:
            file.write(dumps(facts).encode())
        os.replace(unfinished, site.worker_status)
    except OSError:
        try:
            os.unlink(unfinished)
        except OSError:
            pass
        return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


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


def is_outdated(facts: dict[str, Any]) -> bool:
    """Whether the worker that wrote `facts` is of an older release than this program."""
    version = facts.get("version")
    return isinstance(version, str) and _order(version) < _order(VERSION)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def start(site: Site, python: str, environ: Mapping[str, str], now: Instant) -> None:
    """Start a detached worker, unless one lives or a start failed a short while ago.

    It gets a session and process group of its own, `/` as its directory, no descriptor of ours
    (HostFactory reads our output to its end) and none of the caller's PYTHON* and LD_*. A living
    worker of an older release is joined by one of this release, which asks it to end.
    """
    lock = _lock(site)
    if lock is None:
        return
    try:
        facts = status(site)
        if _is_too_soon(facts, now) or (is_alive(site) and not is_outdated(facts)):
            return
        # Counted as failed until the worker itself says that it lives. Where that cannot be
        # written, each call would start one more.
        failures = int(facts.get("failures", 0)) + 1
        facts.update(boot_id=now[1], tried=now[2], failures=failures, reason="")
        if write_status(site, facts):
            _fork(site, python, environ)
    finally:
        os.close(lock)


def _is_too_soon(facts: dict[str, Any], now: Instant) -> bool:
    if facts.get("boot_id") != now[1] or not facts.get("tried"):
        return False
    failures = int(facts.get("failures", 0))
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(10, failures - 1)) if failures else 2.0
    return now[2] - float(facts["tried"]) < wait


def _lock(site: Site) -> int | None:
    """The right to start a worker; None when another call is at it, or no state can be written."""
    import fcntl

    try:
        descriptor = os.open(
            site.worker_status + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _fork(site: Site, python: str, environ: Mapping[str, str]) -> None:
    child = os.fork()
    if child == 0:
        try:
            _become_worker(site, python, environ)
        finally:
            os._exit(127)
    # It ends at once; the worker is its child, and init's from then on.
    os.waitpid(child, 0)


def _become_worker(site: Site, python: str, environ: Mapping[str, str]) -> None:
    kept = _environment(site, environ)
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    nothing = os.open("/dev/null", os.O_RDWR)
    # A start that goes wrong before the worker can say why leaves its last words there.
    words = os.open(site.worker_words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor, place in ((nothing, 0), (nothing, 1), (words, 2)):
        os.dup2(descriptor, place)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    try:
        os.execve(python, [python, "-I", "-m", "interfaces.worker.main"], kept)
    except OSError as error:
        os.write(2, f"{python} cannot be run: {error.strerror}".encode(errors="replace"))


def _environment(site: Site, environ: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in environ.items() if not k.startswith(("PYTHON", "LD_"))}
    # What was said relative to the caller's directory, in full.
    kept["HF_PROVIDER_CONFDIR"] = site.conf_dir
    kept["HF_PROVIDER_WORKDIR"] = site.work_dir
    if site.log_dir:
        kept["HF_PROVIDER_LOGDIR"] = site.log_dir
    if kept.get("HOSTLEDGER_CONFIG"):
        kept["HOSTLEDGER_CONFIG"] = site.own_configuration(environ)[0]
    return kept


def reason(site: Site, facts: dict[str, Any]) -> str:
    """Why no worker lives, as far as it was said; "" when nobody knows."""
    if facts.get("reason") or not facts.get("failures"):
        return str(facts.get("reason") or "")
    try:
        with open(site.worker_words, "rb", 0) as file:
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
