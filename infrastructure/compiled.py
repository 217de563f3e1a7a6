"""The validated configuration and templates in the compiled form that a HostFactory call reads.

One text file an instance: a key (paths, times, sizes and inodes of what it was made of), the
settings, the finished getAvailableTemplates answer, then one line a template. Whoever finds the key
stale and gets the lock compiles anew; the others, and everybody while the sources are broken, are
served the last good form.
"""

from __future__ import annotations

import os

from application.failures import BrokenConfiguration
from application.json_text import dumps, loads
from application.version import VERSION
from infrastructure.site import is_lsf

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
"""Variables besides our own that change what the settings are."""

FLAGS_VARIABLE = "HOSTLEDGER_SET"
"""What `--set` says, as a JSON object of texts by key, for all that the command starts."""

ASIDE = ("HOSTLEDGER_CONFIG", "HOSTLEDGER_PYTHON", "HOSTLEDGER_CRASH_AT")
"""Variables of our own that are no setting."""


PRIME = 2**61 - 1
"""A remainder by it tells environments apart well enough: the key in the file has them whole."""


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
        """All offered templates, in the file's order. Raises BrokenConfiguration where they cannot
        be read and never could: that is not the same as none."""
        if not self._lines[KEY]:
            raise BrokenConfiguration(self.problem)
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
            status = file_facts(path)
            if status is None:
                continue
            found.append(path)
            facts.append([path, *status])
            break
        else:
            # A named file that is not there must be missed by name, not passed over.
            found.append(candidates[0] if len(candidates) == 1 else None)
            facts.append(None)
    facts += _variables(environ)
    return found, dumps(facts)


def file_facts(path: str) -> list[int] | None:
    """What changes when a file does; None where there is none. One that cannot be looked at is
    there: reading it says why it cannot be had, and what was read of it before holds."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return [error.errno or 0]
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]


def _is_of(line: str, key: str) -> bool:
    """Whether a form was made of the sources with this key, and of the further files (those that
    templates name, the facts of instance types) as they are now."""
    if line == key:
        return True
    if not line.startswith(f"{key}\t"):
        return False
    return all(file_facts(path) == facts for path, facts in loads(line[len(key) + 1 :]).items())


def _variables(environ: Mapping[str, str]) -> list[list[str]]:
    """What the environment says about the settings, and about who calls."""
    return sorted(
        [name, value]
        for name, value in environ.items()
        if name in PROPAGATED or (name.startswith("HOSTLEDGER_") and name not in ASIDE)
    ) + ([["LSF", ""]] if is_lsf(environ) else [])


def form_file(site: Site, environ: Mapping[str, str]) -> str:
    """Where the compiled form lies. A service and HostFactory's scripts may have other variables:
    each has its own, or they would compile in turn for ever."""
    text = dumps([site.own_configuration(environ), _variables(environ)])
    return f"{site.state_dir}/compiled/{site.provider}-{int.from_bytes(text.encode()) % PRIME:016x}"


def load(site: Site, environ: Mapping[str, str]) -> Compiled:
    """The settings and templates now in force. Raises BrokenConfiguration."""
    paths, key = sources(site, environ)
    file = form_file(site, environ)
    good = _read(file)
    known = _known(file, key, good)
    if known is not None:
        return known
    lock = _lock(file, wait=good is None)
    if lock == BUSY and good is not None:
        return Compiled(good, "the configuration has just changed and is being read")
    try:
        good = _read(file)
        # Whoever had the lock before us may have compiled these very sources.
        return _known(file, key, good) or _compile(site, paths, environ, file, key, good)
    finally:
        if lock >= 0:
            os.close(lock)


def _known(file: str, key: str, good: list[str] | None) -> Compiled | None:
    """What was made of the sources with this key; None when nobody has looked at them yet."""
    if good is not None and _is_of(good[KEY], key):
        return Compiled(good)
    bad = _read(file + ".bad")
    if bad is not None and _is_of(bad[KEY], key):
        return _make_do(good, bad[1:])
    return None


def _compile(
    site: Site,
    paths: list[str | None],
    environ: Mapping[str, str],
    file: str,
    key: str,
    good: list[str] | None,
) -> Compiled:
    from infrastructure.compilation import compile_sources

    problem, lines, further = compile_sources(site, paths, environ)
    if further:
        key = f"{key}\t{dumps(further)}"
    if problem:
        bad = [problem, *lines]
        _write(file + ".bad", [key, *bad])
        return _make_do(good, bad)
    _write(file, [key, *lines])
    return Compiled([key, *lines])


def _make_do(good: list[str] | None, bad: list[str]) -> Compiled:
    """The last good form. Without one, sound settings still serve the requests there are.

    `bad` is the problem, and the settings when those could be read.
    """
    problem, *settings = bad
    if good is not None:
        return Compiled(good, problem)
    if settings:
        return Compiled(["", *settings, ""], problem)
    raise BrokenConfiguration(problem)


def _read(path: str) -> list[str] | None:
    try:
        with open(path, "rb", 0) as file:
            lines = file.read().decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return None
    # The last line says that the file is whole.
    return lines[:-1] if lines[-1] == "." else None


def _write(path: str, lines: list[str]) -> None:
    """Put the file in its place whole. Where that cannot be, the next call compiles again."""
    text = "\n".join([*(line.replace("\n", " ") for line in lines), "."])
    unfinished = f"{path}.{os.getpid()}"
    try:
        with open(unfinished, "wb", opener=_private) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        os.replace(unfinished, path)
    except OSError:
        _forget(unfinished)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


BUSY, IMPOSSIBLE = -1, -2


def _lock(file: str, wait: bool) -> int:
    """A descriptor that holds the lock; BUSY, or IMPOSSIBLE where no state can be written: then
    each call compiles for itself."""
    import fcntl

    try:
        if not os.path.isdir(os.path.dirname(file)):
            if not os.path.isdir(os.path.dirname(os.path.dirname(file))):
                return IMPOSSIBLE  # no store, no state
            _make_directory(os.path.dirname(file))
        descriptor = os.open(file + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return IMPOSSIBLE
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return BUSY
    except OSError:
        os.close(descriptor)
        return IMPOSSIBLE
    return descriptor


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return  # another call was faster
