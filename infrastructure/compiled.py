"""The validated configuration and templates in the compiled form that a HostFactory call reads.

One text file an instance: a key (paths, times, sizes and inodes of the sources), the settings, the
finished getAvailableTemplates answer, then one line a template. Whoever finds the key stale and
gets the lock compiles anew; the others, and everybody while the sources are broken, are served the
last good form.
"""

from __future__ import annotations

import os

from application.failures import BrokenConfiguration
from application.json_text import dumps, loads
from application.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from infrastructure.site import Site

KEY, SETTINGS, ANSWER, TEMPLATES = range(4)
PROPAGATED = (
    "HF_LOGLEVEL",
    "HF_LOG_MAX_FILE_SIZE",
    "HF_LOG_MAX_ROTATE",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""Variables besides HOSTLEDGER_SECTION__KEY that change what the settings are."""


class Compiled:
    """The last good form; `problem` says why it is not the newest, "" when it is."""

    def __init__(self, lines: list[str], problem: str = "") -> None:
        self._lines = lines
        self.problem = problem
        self.settings: dict[str, Any] = loads(lines[SETTINGS])

    @property
    def templates_answer(self) -> str:
        """The text of the array `templates` in getAvailableTemplates' answer; "" for none."""
        return self._lines[ANSWER]

    def template(self, template_id: str) -> dict[str, Any] | None:
        """`revision`, `template_id` and `content` of one template; None when it is not offered."""
        begin = '{"template_id":' + dumps(template_id) + ","
        for line in self._lines[TEMPLATES:]:
            if line.startswith(begin):
                return loads(line)  # type: ignore[no-any-return]
        return None

    def templates(self) -> list[dict[str, Any]]:
        """All offered templates, in the file's order."""
        return [loads(line) for line in self._lines[TEMPLATES:] if line]


def sources(site: Site, environ: Mapping[str, str]) -> tuple[list[str | None], str]:
    """Our configuration, IBM's configuration and the templates file, and the key they make."""
    found: list[str | None] = []
    facts: list[Any] = [VERSION]
    for candidates in (
        site.own_configuration(environ),
        site.candidates("config"),
        site.candidates("templates"),
    ):
        for path in candidates:
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.append(path)
            facts.append(
                [path, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]
            )
            break
        else:
            # A named file that is not there must be missed by name, not passed over.
            found.append(candidates[0] if len(candidates) == 1 else None)
            facts.append(None)
    facts += sorted(
        [name, value]
        for name, value in environ.items()
        if name in PROPAGATED or (name.startswith("HOSTLEDGER_") and "__" in name)
    )
    return found, dumps(facts)


def load(site: Site, environ: Mapping[str, str]) -> Compiled:
    """The settings and templates now in force. Raises BrokenConfiguration."""
    paths, key = sources(site, environ)
    file = f"{site.state_dir}/compiled/{site.provider}"
    good = _read(file)
    if good is not None and good[KEY] == key:
        return Compiled(good)
    bad = _read(file + ".bad")
    if bad is not None and bad[KEY] == key:
        if good is None:
            raise BrokenConfiguration(bad[1])
        return Compiled(good, bad[1])
    lock = _lock(file, wait=good is None)
    if lock is None and good is not None:
        return Compiled(good, "the configuration has just changed and is being read")
    try:
        from infrastructure.compilation import ConfigurationProblem, compile_sources

        try:
            lines = [key, *compile_sources(site, paths, environ)]
        except ConfigurationProblem as problem:
            _write(file + ".bad", [key, str(problem)])
            if good is None:
                raise BrokenConfiguration(str(problem)) from None
            return Compiled(good, str(problem))
        _write(file, lines)
        return Compiled(lines)
    finally:
        if lock is not None:
            os.close(lock)


def _read(path: str) -> list[str] | None:
    try:
        with open(path, "rb", 0) as file:
            lines = file.read().decode().split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    # The last line says that the file is whole.
    return lines[:-1] if lines[-1] == "." else None


def _write(path: str, lines: list[str]) -> None:
    """Put the file in its place whole. Where that cannot be, the next call compiles again."""
    text = "\n".join([*(line.replace("\n", " ") for line in lines), "."]).encode()
    unfinished = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError:
        return
    try:
        os.write(descriptor, text)
        os.close(descriptor)
        os.replace(unfinished, path)
    except OSError:
        os.unlink(unfinished)


def _lock(file: str, wait: bool) -> int | None:
    import fcntl

    try:
        if not os.path.isdir(os.path.dirname(file)):
            if not os.path.isdir(os.path.dirname(os.path.dirname(file))):
                return None  # no store, no state: compiled for this call alone
            os.mkdir(os.path.dirname(file), 0o700)
        descriptor = os.open(file + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
