"""A site's settings read: defaults < IBM's configuration file < our configuration file <
environment < flags."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from infrastructure.compiled import FLAGS_VARIABLE
from infrastructure.configuration_keys import (
    ENVIRONMENT_PREFIX,
    KEYS,
    SECTIONS,
    VARIABLES,
    environment_name,
    nearest,
    value_at,
)
from infrastructure.settings import Settings
from infrastructure.settings.aws import SAFE_SETTLE_GAP, Timeouts
from infrastructure.settings.provider import Account, Caps
from infrastructure.settings.telemetry import LOG_LEVELS, log_level
from infrastructure.settings.worker import LEASE_MARGIN, Worker
from infrastructure.storage.address import sections_of

FLAG = "--set"
ENVIRONMENT = "environment"


class ConfigurationProblem(Exception):
    """A configuration that cannot be used: where it stands, what is wrong, what to do next.

    `path` is a file, "environment" or "--set"; `key` is the name as it is spelled there, or "" when
    the whole file is meant; `line` and `column` (from 1) are set when the file is not JSON.
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


class _Given(NamedTuple):
    """A value, and where and under which name it was given."""

    value: Any
    path: str
    name: str


def _shown(value: object, key: str = "") -> str:
    """A value in an error message: one line, not endless, and without a password."""
    text = json.dumps(without_secrets(value, key), ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


LONGEST_SHOWN = 2000
"""Letters: no setting is longer in earnest, and to look through more for what is secret takes the
square of them."""

_SECRET = r"[\w-]*(?:pass|secret|token|key|signature)[\w-]*"
_CALLED_SECRET = re.compile(
    rf"""({_SECRET}=|--{_SECRET} +)("[^"]*"|'[^']*'|[^&\s])+""", re.IGNORECASE
)
"""A value that is called one: in a URL's query, or in the words of a program."""
_PASSWORD = re.compile(r"(//|(?<!\S)(?=[^\s/:@]+:(?!/)))\S+(?=@)")
"""Of a URL, or of what lacks its `//`, with the user; it ends at the last @, should it have one
itself."""


def without_secrets(value: Any, key: str = "") -> Any:
    """A value to be shown to people, of that key: what opens something is `***`."""
    if key.endswith("webhook_url") and value:  # whoever knows it may post there
        return re.sub(r"(//)(?:.*@)?([^/?#]*).*", r"\1\2/***", value)
    if isinstance(value, dict):
        return {name: without_secrets(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    if len(value) > LONGEST_SHOWN:
        return f"*** ({len(value):,} letters)"
    return _PASSWORD.sub(r"\1***", _CALLED_SECRET.sub(r"\1***", value))


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
            elif key in SECTIONS:
                if not isinstance(value, dict):
                    problem = f"is a section, an object, not {_shown(value)}"
                    raise ConfigurationProblem(path, key, problem, "put its keys in { }")
                walk(value, f"{key}.")
            elif key != "$schema":  # at the top, where editors look for it
                raise _no_key(path, key, [*KEYS, *sorted(SECTIONS)])

    walk(document, "")
    return given


def _no_key(path: str, key: str, known: Sequence[str]) -> ConfigurationProblem:
    problem = f"is no key; the nearest is {nearest(key, known)}"
    return ConfigurationProblem(path, key, problem, "correct it or take it out")


_WITH_ONE_UNDERSCORE = {name.replace("__", "_") for name in VARIABLES}


def _own_variables(environ: Mapping[str, str]) -> dict[str, _Given]:
    """What has no two underscores is somebody else's, unless they are all it lacks."""
    given: dict[str, _Given] = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        key = VARIABLES.get(name)
        if key is not None:
            given[key] = _Given(value, ENVIRONMENT, name)
        elif "__" in name or name in _WITH_ONE_UNDERSCORE:
            problem = f"sets no key; the nearest is {nearest(name, sorted(VARIABLES))}"
            raise ConfigurationProblem(ENVIRONMENT, name, problem, "correct it or unset it")
    return given


def _flags(environ: Mapping[str, str]) -> dict[str, _Given]:
    """What `--set` says, texts as in variables, in the one variable that carries it."""
    text = environ.get(FLAGS_VARIABLE, "")
    try:
        said = json.loads(text) if text else {}
        given = {key: _Given(str(value), FLAG, key) for key, value in said.items()}
    except (ValueError, AttributeError):
        problem = f"is not what --set leaves there, but {_shown(text)}"
        raise ConfigurationProblem(ENVIRONMENT, FLAGS_VARIABLE, problem, "unset it") from None
    for key in given:
        if key not in KEYS:
            raise _no_key(FLAG, key, KEYS)
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

LONGEST_CONNECT = 127
"""Seconds after which Linux itself gives up a connection (six SYN retries)."""


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


class Origin(NamedTuple):
    """Where a value came from: `kind` is flag, environment, file, ibm_file or default; `path` that
    of a file, `name` what the value is called there. `default` has neither."""

    kind: str
    path: str | None = None
    name: str | None = None


class Traced(NamedTuple):
    """Settings with the origin of each of KEYS, and warnings for people."""

    settings: Settings
    warnings: list[str]
    origins: dict[str, Origin]


def read_settings(
    config_path: str | None, ibm_config_path: str | None, environ: Mapping[str, str]
) -> tuple[Settings, list[str]]:
    """The settings, and warnings for people, from our file, IBM's file and the environment.

    A path of None is a file that is not there to be read. `AWS_ENDPOINT_URL`, `AWS_REGION` and
    `AWS_DEFAULT_REGION` of the environment count when nothing else gives a value. Raises
    ConfigurationProblem for the first thing that cannot be used.
    """
    settings, warnings, _ = trace_settings(config_path, ibm_config_path, environ)
    return settings, warnings


def trace_settings(
    config_path: str | None, ibm_config_path: str | None, environ: Mapping[str, str]
) -> Traced:
    """The same, and where each value came from."""
    warnings: list[str] = []
    given = _usual_aws_variables(environ)
    if ibm_config_path is not None:
        given |= _ibm_file(ibm_config_path, environ, warnings)
    if config_path is not None:
        given |= _own_file(config_path)
    given |= _own_variables(environ) | _flags(environ)
    _fit_lease_to_ibm_timeout(given, ibm_config_path, warnings)

    try:
        settings = Settings.model_validate(_nested(given))
    except ValidationError as error:
        raise _first_problem(error.errors(), given) from error

    warnings += _second_thoughts(settings, given)
    return Traced(settings, warnings, _origins(settings, given, ibm_config_path))


def _origins(
    settings: Settings, given: Mapping[str, _Given], ibm_config_path: str | None
) -> dict[str, Origin]:
    found = dict(given)
    url = given.get("storage.url")
    if url is not None and settings.storage.url:
        # It stands for these, whatever else is said of them.
        said = sections_of(settings.storage.url)
        found |= {f"storage.{key}": url for key in ("strategy", *_inner_keys(said))}
    if "worker.mode" not in given and settings.worker.mode != Worker().mode:
        found["worker.mode"] = given["performance.cpu.async_operations"]

    def origin(key: str) -> Origin:
        if key not in found:
            return Origin("default")
        _, path, name = found[key]
        if path == FLAG:
            return Origin("flag", None, name)
        if path == ENVIRONMENT:
            return Origin("environment", None, name)
        return Origin("ibm_file" if path == ibm_config_path else "file", path, name)

    return {key: origin(key) for key in KEYS}


def _inner_keys(sections: Mapping[str, Any]) -> Iterator[str]:
    for section, keys in sections.items():
        if isinstance(keys, dict):
            yield from (f"{section}.{key}" for key in keys)


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
        key = max(
            (k for k in given if f"{location}.".startswith(f"{k}.")),
            key=len,
            default="storage.url",  # which says what was not given itself
        )
        place = _within(given[key], error["loc"][len(key.split(".")) :])
        if error["type"] == "extra_forbidden":
            return _no_key(place.path, place.name, _names_within(given[key].name, place.name, key))
        message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
        problem = f"{message}, not {_shown(place.value, key)}"
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


def _names_within(outer: str, name: str, key: str) -> list[str]:
    """The names that there are beside a misspelt one in an object of the site's own."""
    model: type[BaseModel] = Account if key == "provider.accounts" else Caps
    its_own = name.removeprefix(f"{outer}.").rpartition(".")[0]
    return [f"{outer}.{its_own}.{field}" for field in model.model_fields]


def _default_note(key: str) -> str:
    value = value_at(Settings(), key)
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
    tables = settings.storage.dynamodb_strategy
    scaling = "storage.dynamodb_strategy.auto_scaling.enabled"
    if tables.auto_scaling.enabled and tables.billing_mode == "PAY_PER_REQUEST":
        warnings.append(f"{place(scaling)} has no effect on tables that are paid by request")
    if worker.sweep_max_age <= aws.sweep_interval:
        warnings.append(
            f"worker.sweep_max_age ({worker.sweep_max_age:g} s) is not more than "
            f"provider.aws.sweep_interval ({aws.sweep_interval:g} s): getReturnRequests will "
            "wait for sweeps"
        )
    return warnings
