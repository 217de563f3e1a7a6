"""A site's settings read: defaults < IBM's configuration file < our configuration file <
environment."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from infrastructure.settings import (
    DEFAULT_BUCKETS,
    LEASE_MARGIN,
    LOG_LEVELS,
    LONGEST_CONNECT,
    SAFE_SETTLE_GAP,
    Settings,
    Timeouts,
    Worker,
    log_level,
)

ENVIRONMENT = "environment"
ENVIRONMENT_PREFIX = "HOSTLEDGER_"


class ConfigurationProblem(Exception):
    """A configuration that cannot be used: where it stands, what is wrong, what to do next.

    `path` is a file, or "environment"; `key` is the name as it is spelled there, or "" when the
    whole file is meant; `line` and `column` (from 1) are set when the file is not JSON.
    """

    def __init__(
        self,
        path: str,
        key: str,
        problem: str,
        next_step: str,
        *,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(path, key, problem, next_step)
        self.path = path
        self.key = key
        self.problem = problem
        self.next_step = next_step
        self.line = line
        self.column = column

    def __str__(self) -> str:
        """One line for people."""
        where = [self.path]
        if self.line is not None:
            where.append(f"line {self.line}, column {self.column}")
        if self.key:
            where.append(self.key)
        return " ".join(f"{': '.join(where)}: {self.problem}; {self.next_step}".splitlines())


# --- the keys -------------------------------------------------------------------------------


class _Given(NamedTuple):
    """A value, and where and under which name it was given."""

    value: Any
    path: str
    name: str


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        elif name == "buckets":  # each bucket is a key, so that one can be set by itself
            yield from (f"{prefix}{name}.{api}" for api in DEFAULT_BUCKETS)
        else:
            yield f"{prefix}{name}"


KEYS = tuple(_keys(Settings))
_SECTIONS = frozenset(
    ".".join(parts[:depth])
    for parts in (key.split(".") for key in KEYS)
    for depth in range(1, len(parts))
)


def environment_name(key: str) -> str:
    """The environment variable of a key: `worker.mode` -> `HOSTLEDGER_WORKER__MODE`."""
    return ENVIRONMENT_PREFIX + key.replace(".", "__").replace(":", "_").upper()


_VARIABLES = {environment_name(key): key for key in KEYS}


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def _shown(value: object) -> str:
    """A value in an error message: one line, not endless, and without a proxy's password."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = re.sub(r"//[^@/\s]*@", "//***@", text)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- the files ------------------------------------------------------------------------------

_STRING_OR_COMMENT = re.compile(
    r"""
      (?P<string> "(?:\\[^\r\n]|[^"\\\r\n])*"? )
    | //[^\r\n]*
    | /\*.*?\*/
    | (?<![^\r\n])[ \t]*\#[^\r\n]*
    """,
    re.VERBOSE | re.DOTALL,
)


def strip_comments(text: str) -> str:
    """JSON text with `//`, `/* */` and leading `#` comments blanked, every position unchanged."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return found if match["string"] else re.sub(r"[^\r\n]", " ", found)

    return _STRING_OR_COMMENT.sub(blank, text)


def read_document(path: str, *, comments: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The JSON object in a file, and the keys that stand in it twice (the last one counts).

    Raises ConfigurationProblem when the file cannot be read or holds no whole JSON object.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        step = "give the path of a file that this user can read"
        raise ConfigurationProblem(path, "", f"cannot be read ({reason})", step) from error
    except UnicodeDecodeError as error:
        step = "save the file as UTF-8"
        problem = f"is not UTF-8 text (byte {error.start})"
        raise ConfigurationProblem(path, "", problem, step) from error
    if comments:
        text = strip_comments(text)

    twice: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in members]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(members)

    def no_number(word: str) -> Any:
        raise ValueError(f"{word} is no number in JSON")

    def broken(problem: str, position: int) -> ConfigurationProblem:
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        step = "is it half written? save it whole"
        return ConfigurationProblem(path, "", problem, step, line=line, column=column)

    if not text.strip():
        raise broken("the file is empty", 0)
    try:
        document = json.loads(text, object_pairs_hook=pairs, parse_constant=no_number)
        # Half a surrogate pair parses, but can be neither stored nor printed.
        json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise broken(f"not JSON ({error.msg})", error.pos) from error
    except (ValueError, RecursionError) as error:
        raise broken(f"not usable JSON ({error})", 0) from error
    if not isinstance(document, dict):
        raise broken("not a JSON object", len(text) - len(text.lstrip()))
    return document, twice


def _own_file(path: str) -> dict[str, _Given]:
    document, twice = read_document(path, comments=True)
    if twice:
        raise ConfigurationProblem(path, twice[0], "is given twice", "take one of them out")
    given: dict[str, _Given] = {}

    def walk(section: dict[str, Any], prefix: str) -> None:
        for name, value in section.items():
            key = f"{prefix}{name}"
            if key in KEYS:
                given[key] = _Given(value, path, key)
            elif key in _SECTIONS:
                if not isinstance(value, dict):
                    problem = f"is a section, an object, not {_shown(value)}"
                    raise ConfigurationProblem(path, key, problem, "put its keys in { }")
                walk(value, f"{key}.")
            else:
                nearest = _nearest(key, [*KEYS, *sorted(_SECTIONS)])
                problem = f"is no key; the nearest is {nearest}"
                raise ConfigurationProblem(path, key, problem, "correct it or take it out")

    walk(document, "")
    return given


def _own_variables(environ: Mapping[str, str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        key = _VARIABLES.get(name)
        if key is None:
            problem = f"sets no key; the nearest is {_nearest(name, sorted(_VARIABLES))}"
            raise ConfigurationProblem(ENVIRONMENT, name, problem, "correct it or unset it")
        given[key] = _Given(value, ENVIRONMENT, name)
    return given


def _usual_aws_variables(environ: Mapping[str, str]) -> dict[str, _Given]:
    usual = (
        ("provider.aws.endpoint_url", "AWS_ENDPOINT_URL"),
        ("provider.aws.region", "AWS_DEFAULT_REGION"),
        ("provider.aws.region", "AWS_REGION"),
    )
    return {
        key: _Given(environ[name], ENVIRONMENT, name)
        for key, name in usual
        if environ.get(name, "").strip()
    }


# --- IBM's file -----------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("text is needed")


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("true or false is needed")


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high} is needed")
        return value

    return read


def _times(factor: float, read: Callable[[Any], int]) -> Callable[[Any], float]:
    return lambda value: read(value) * factor


def _millis(read: Callable[[Any], int]) -> Callable[[Any], float]:
    return lambda value: read(value) / 1000


def _propagated_level(value: Any) -> str:
    level = str(log_level(_text(value)))
    if level not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)} is needed")
    return level


_IBM_KEYS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "AWS_CREDENTIAL_FILE": ("provider.aws.credential_file", _text),
    "AWS_CREDENTIAL_SCRIPT": ("provider.aws.credential_script", _text),
    "AWS_CREDENTIAL_RENEW_MARGIN": (
        "provider.aws.credential_renew_margin",
        _whole(0, 31_536_000),
    ),
    "AWS_REGION": ("provider.aws.region", _text),
    "AWS_ENDPOINT_URL": ("provider.aws.endpoint_url", _text),
    "AWS_CONNECTION_TIMEOUT_MS": (
        "provider.aws.timeouts.connect_timeout",
        _millis(_whole(1, 2_147_483_647)),
    ),
    "AWS_REQUEST_RETRY_ATTEMPTS": ("provider.aws.launch_retries", _whole(0, 10)),
    "AWS_INSTANCE_PENDING_TIMEOUT_SEC": ("provider.aws.pending_timeout", _whole(180, 10_000)),
    "AWS_DESCRIBE_REQUEST_RETRY_ATTEMPTS": ("provider.aws.describe_retries", _whole(0, 10)),
    "AWS_DESCRIBE_REQUEST_INTERVAL": (
        "provider.aws.describe_retry_interval",
        _millis(_whole(0, 10_000)),
    ),
    "INSTANCE_CREATION_TIMEOUT": ("provider.aws.creation_timeout", _times(60, _whole(1, 525_600))),
    "AWS_TAG_InstanceID": ("provider.aws.tag_instance_id", _switch),
    "AWS_SPOT_TERMINATE_ON_RECLAIM": ("provider.aws.spot_terminate_on_reclaim", _switch),
    "LogLevel": ("logging.level", _propagated_level),
}
_IBM_ASIDE: Mapping[str, Callable[[Any], Any]] = {
    "AWS_PROXY_HOST": _text,
    "AWS_PROXY_PORT": _whole(1, 65_535),
    "ACCEPT_PROPAGATED_LOG_SETTING": _switch,
    "AWS_KEY_FILE": _text,
}
"""Keys of IBM's file that are no setting by themselves."""
_PROPAGATED: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "HF_LOGLEVEL": ("logging.level", _propagated_level),
    "HF_LOG_MAX_FILE_SIZE": ("logging.max_file_size", _whole(1, 1_048_576)),
    "HF_LOG_MAX_ROTATE": ("logging.max_rotate", _whole(0, 100_000)),
}


def _ibm_file(path: str, environ: Mapping[str, str], warnings: list[str]) -> dict[str, _Given]:
    document, twice = read_document(path)
    if twice:
        warnings.append(f"{path}: given twice, the last one counts: {', '.join(twice)}")
    document = {
        name: value.strip() if isinstance(value, str) else value for name, value in document.items()
    }
    unknown = sorted(name for name in document if name not in {**_IBM_KEYS, **_IBM_ASIDE})
    if unknown:
        warnings.append(f"{path}: unknown keys, ignored: {', '.join(unknown)}")

    def read(name: str, reader: Callable[[Any], Any]) -> Any:
        value = document.get(name)
        if value is None or value == "":
            return None
        try:
            return reader(value)
        except ValueError as error:
            problem = f"{error}, not {_shown(value)}"
            step = 'correct it, or make it "" for the default'
            raise ConfigurationProblem(path, name, problem, step) from None

    given: dict[str, _Given] = {}
    for name, (key, reader) in _IBM_KEYS.items():
        value = read(name, reader)
        if value is not None:
            given[key] = _Given(value, path, name)
    aside = {name: read(name, reader) for name, reader in _IBM_ASIDE.items()}

    if aside["AWS_KEY_FILE"]:
        warnings.append(f"{path}: AWS_KEY_FILE is not needed: launching takes the key's name only")
    proxy = _ibm_proxy(path, aside, warnings)
    if proxy:
        given["provider.aws.proxy"] = _Given(proxy, path, "AWS_PROXY_HOST")
    if aside["ACCEPT_PROPAGATED_LOG_SETTING"]:
        given |= _propagated_logging(environ, warnings)

    connect = given.get("provider.aws.timeouts.connect_timeout")
    if connect and connect.value > LONGEST_CONNECT:
        warnings.append(
            f"{path}: AWS_CONNECTION_TIMEOUT_MS: {LONGEST_CONNECT} s is used: "
            "the system gives up connecting by then"
        )
        given["provider.aws.timeouts.connect_timeout"] = connect._replace(value=LONGEST_CONNECT)
    return given


def _ibm_proxy(path: str, aside: Mapping[str, Any], warnings: list[str]) -> str | None:
    host, port = aside["AWS_PROXY_HOST"], aside["AWS_PROXY_PORT"]
    if host and port is None:
        problem = "is needed with AWS_PROXY_HOST"
        step = "give the proxy's port (1 to 65535)"
        raise ConfigurationProblem(path, "AWS_PROXY_PORT", problem, step)
    if not host:
        if port is not None:
            warnings.append(f"{path}: AWS_PROXY_PORT has no effect without AWS_PROXY_HOST")
        return None
    if "://" not in host:
        host = f"http://[{host}]" if host.count(":") > 1 else f"http://{host}"
    return f"{host.rstrip('/')}:{port}"


def _propagated_logging(environ: Mapping[str, str], warnings: list[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for name, (key, reader) in _PROPAGATED.items():
        value = environ.get(name, "").strip()
        if not value:
            continue
        try:
            given[key] = _Given(reader(value), ENVIRONMENT, name)
        except ValueError as error:
            warnings.append(f"{ENVIRONMENT}: {name}: {error}, not {_shown(value)}; ignored")
    return given


# --- together -------------------------------------------------------------------------------


def read_settings(
    config_path: str | None, ibm_config_path: str | None, environ: Mapping[str, str]
) -> tuple[Settings, list[str]]:
    """The settings, and warnings for people, from our file, IBM's file and the environment.

    A path of None is a file that is not there to be read. `AWS_ENDPOINT_URL`, `AWS_REGION` and
    `AWS_DEFAULT_REGION` of the environment count when nothing else gives a value. Raises
    ConfigurationProblem for the first thing that cannot be used.
    """
    warnings: list[str] = []
    given = _usual_aws_variables(environ)
    if ibm_config_path is not None:
        given |= _ibm_file(ibm_config_path, environ, warnings)
    if config_path is not None:
        given |= _own_file(config_path)
    given |= _own_variables(environ)
    _fit_lease_to_ibm_timeout(given, ibm_config_path, warnings)

    try:
        settings = Settings.model_validate(_nested(given))
    except ValidationError as error:
        raise _first_problem(error.errors(), given) from error

    warnings += _second_thoughts(settings, given)
    return settings, warnings


def _nested(given: Mapping[str, _Given]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, (value, _, _) in given.items():
        *sections, leaf = key.split(".")
        section = nested
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = value
    return nested


def _fit_lease_to_ibm_timeout(
    given: dict[str, _Given], ibm_config_path: str | None, warnings: list[str]
) -> None:
    """IBM's file must work as it is, and it has no key for the lease that its timeout needs."""
    connect = given.get("provider.aws.timeouts.connect_timeout")
    if connect is None or connect.path != ibm_config_path or "worker.lease_time" in given:
        return
    read_timeout = given.get("provider.aws.timeouts.read_timeout")
    try:
        read_seconds = float(read_timeout.value if read_timeout else Timeouts().read_timeout)
    except (TypeError, ValueError):
        return  # validation says it better
    needed = connect.value + read_seconds + LEASE_MARGIN
    if needed > Worker().lease_time:
        given["worker.lease_time"] = connect._replace(value=needed)
        warnings.append(
            f"{connect.path}: {connect.name}: worker.lease_time is {needed:g} s "
            "so that it outlives a call"
        )


def _first_problem(errors: list[ErrorDetails], given: Mapping[str, _Given]) -> ConfigurationProblem:
    error = errors[0]
    context = error.get("ctx", {})
    if "keys" in context:
        key = next(key for key in context["keys"] if key in given)
        place, problem, step = given[key], context["problem"], context["next_step"]
    else:
        location = ".".join(str(part) for part in error["loc"])
        key = max((k for k in given if f"{location}.".startswith(f"{k}.")), key=len)
        place = _within(given[key], error["loc"][len(key.split(".")) :])
        message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
        problem = f"{message}, not {_shown(place.value)}"
        step = "correct it" + _default_note(key)
    return ConfigurationProblem(place.path, place.name, problem, step)


def _within(given: _Given, parts: tuple[int | str, ...]) -> _Given:
    """The part of an object with keys of the site's own that a problem is about."""
    for part in parts:
        value = given.value
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = json.loads(value)
        if not isinstance(value, dict) or part not in value:
            break
        given = _Given(value[part], given.path, f"{given.name}.{part}")
    return given


def _default_note(key: str) -> str:
    value: Any = Settings()
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return "" if value is None else f", or take it out for the default, {_shown(value)}"


def _second_thoughts(settings: Settings, given: Mapping[str, _Given]) -> list[str]:
    """Warnings about values that are allowed and yet not what most sites want."""

    def place(key: str) -> str:
        return f"{given[key].path}: {given[key].name}"

    aws, worker = settings.provider.aws, settings.worker
    warnings = []
    if aws.region is None and not settings.provider.accounts:
        warnings.append(
            "no region is set: AWS cannot be called until AWS_REGION in IBM's file, or "
            f"provider.aws.region, or {environment_name('provider.aws.region')} names one"
        )
    margin = "provider.aws.credential_renew_margin"
    renewed = any(p.credential_script or p.assume_role for p in settings.provider.places().values())
    if margin in given and not renewed:
        warnings.append(f"{place(margin)} has no effect without a script or a role to assume")
    queue = "provider.aws.interruption_queue"
    if queue in given and settings.provider.accounts:
        warnings.append(f"{place(queue)} has no effect with accounts: each has a queue of its own")
    if aws.settle_gap < SAFE_SETTLE_GAP:
        warnings.append(
            f"{place('provider.aws.settle_gap')} is less than {SAFE_SETTLE_GAP} s: a machine "
            "that AWS lists late may be missed and launched twice"
        )
    if worker.sweep_max_age <= aws.sweep_interval:
        warnings.append(
            f"worker.sweep_max_age ({worker.sweep_max_age:g} s) is not more than "
            f"provider.aws.sweep_interval ({aws.sweep_interval:g} s): getReturnRequests will "
            "wait for sweeps"
        )
    return warnings
