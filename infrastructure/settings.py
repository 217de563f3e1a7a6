"""Settings: defaults < IBM's configuration file < our configuration file < environment."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

ENVIRONMENT = "environment"
ENVIRONMENT_PREFIX = "HOSTLEDGER_"
LEASE_MARGIN = 10
"""Seconds a lease must outlive the longest AWS call by, so that no call outlives its owner."""
SAFE_SETTLE_GAP = 300
"""Seconds: a shorter time between the settling sweeps may miss machines that AWS lists late."""
LONGEST_CONNECT = 127
"""Seconds after which Linux itself gives up a connection (six SYN retries)."""

NON_MUTATING, MUTATING = "NonMutating", "Mutating"
"""The kinds of the APIs that have no bucket by their own name: each has one of its own."""

DOCUMENTED_BUCKETS: Mapping[str, tuple[float, float]] = {
    "RunInstances": (5, 2),
    "TerminateInstances": (100, 5),
    "DescribeInstances": (50, 10),
    "CreateTags": (100, 10),
    NON_MUTATING: (100, 20),
    MUTATING: (50, 5),
    "RunInstances:instances": (1000, 2),
    # From memory, unlike the others.
    "TerminateInstances:instances": (1000, 20),
}
"""EC2's own token buckets (size, refill per second) of an account and region."""
DEFAULT_BUCKETS: Mapping[str, tuple[float, float]] = {
    api: (size * 8 / 10, refill * 8 / 10) for api, (size, refill) in DOCUMENTED_BUCKETS.items()
}
"""80 % of EC2's: the rest is for everybody else in the account."""

_LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_STRATEGIES_TO_COME = ("sql", "dynamodb", "json")
_KEYS_TO_COME = (
    "performance",
    "processing",
    "monitoring",
    "storage.json_strategy",
    "storage.sql_strategy",
    "storage.dynamodb_strategy",
)


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


# --- the settings ---------------------------------------------------------------------------


def _refuse_switch(value: object) -> object:
    if not isinstance(value, bool):
        return value
    raise ValueError("a number is needed")  # else pydantic takes true for 1


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _absolute(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise ValueError("an absolute path is needed: HostFactory's working directory is unknown")
    return path


def _region(region: str | None) -> str | None:
    if region is None:
        return None
    zone = re.fullmatch(r"([a-z]{2}(?:-[a-z]+)+-\d+)[a-z]", region)
    if zone:
        raise ValueError(f"this is an availability zone; its region is {zone[1]}")
    if not re.fullmatch(r"[a-z0-9-]{1,64}", region):
        raise ValueError("a region code such as us-west-2 is needed")
    return region


def _endpoint(url: str | None) -> str | None:
    if url is None:
        return None
    if "://" not in url:
        url = f"https://{url}"  # IBM's files name hosts without a scheme
    if not _is_address(url):
        raise ValueError("a URL such as https://ec2.us-west-2.amazonaws.com is needed")
    return url


def _role(arn: str | None) -> str | None:
    if arn is None or re.fullmatch(r"arn:[a-z-]+:iam::[0-9]{12}:role/\S+", arn):
        return arn
    raise ValueError("a role's ARN such as arn:aws:iam::123456789012:role/name is needed")


def _external_id(text: str | None) -> str | None:
    if text is None or re.fullmatch(r"[\w+=,.@:/-]{2,1224}", text, re.ASCII):
        return text
    raise ValueError("2 to 1224 letters, digits and +=,.@:/_- are needed")


def _proxy(url: str | None) -> str | None:
    if url is None or (_is_address(url) and re.fullmatch(r"https?://[^/?#]+:[0-9]+/?", url)):
        return url
    raise ValueError("a proxy is given as http://host:port")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, half a bracket
        return False
    usable = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return usable and not re.search(r"\s", url)


def _log_level(value: object) -> object:
    if not isinstance(value, str):
        return value
    level = value.strip().upper().removeprefix("LOG_")
    return "WARN" if level == "WARNING" else level


def _from_variable(value: object) -> object:
    """An object of which the keys are the site's own is one variable, as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("a JSON object is needed") from None


def _bucket(value: object) -> object:
    shape = ValueError("[size, refill per second] is needed, such as [4, 1.6]")
    if isinstance(value, str):  # from the environment
        try:
            value = json.loads(value)
        except ValueError:
            raise shape from None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise shape
    return value


Seconds = Annotated[
    float, BeforeValidator(_refuse_switch), Field(gt=0, le=31_536_000, allow_inf_nan=False)
]
SecondsOrZero = Annotated[
    float, BeforeValidator(_refuse_switch), Field(ge=0, le=31_536_000, allow_inf_nan=False)
]
Count = Annotated[int, BeforeValidator(_refuse_switch), Field(ge=1)]
OfThousand = Annotated[int, BeforeValidator(_refuse_switch), Field(ge=1, le=1000)]
Retries = Annotated[int, BeforeValidator(_refuse_switch), Field(ge=0, le=10)]
Rate = Annotated[float, BeforeValidator(_refuse_switch), Field(gt=0, allow_inf_nan=False)]
Size = Annotated[float, BeforeValidator(_refuse_switch), Field(ge=1, allow_inf_nan=False)]
Bucket = Annotated[tuple[Size, Rate], BeforeValidator(_bucket)]
Text = Annotated[str | None, BeforeValidator(_blank_is_none)]
Path = Annotated[str | None, BeforeValidator(_blank_is_none), AfterValidator(_absolute)]
Most = Annotated[
    Annotated[int, BeforeValidator(_refuse_switch), Field(ge=0)] | None,
    BeforeValidator(_blank_is_none),
]
MostSpend = Annotated[
    Annotated[float, BeforeValidator(_refuse_switch), Field(ge=0, allow_inf_nan=False)] | None,
    BeforeValidator(_blank_is_none),
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SqliteStrategy(_Section):
    """Where the SQLite ledger lies; None: below `$HF_PROVIDER_WORKDIR`."""

    path: Path = None
    """The ledger's file, an absolute path on a local disk. None: `ledger.db` in
    `$HF_PROVIDER_WORKDIR/hostledger`."""


class Storage(_Section):
    """What the ledger is kept in."""

    strategy: Literal["sqlite"] = "sqlite"
    """What the ledger is kept in."""
    sqlite_strategy: SqliteStrategy = SqliteStrategy()

    @field_validator("strategy", mode="before")
    @classmethod
    def _refuse_strategies_to_come(cls, value: object) -> object:
        if value in _STRATEGIES_TO_COME:
            raise PydanticCustomError(
                "to_come", f'strategy "{value}" comes in a later release; this one has "sqlite"'
            )
        return value


class Worker(_Section):
    """The process that owns AWS; times in seconds."""

    mode: Literal["auto", "external", "inline"] = "auto"
    """Who works: a worker that the scripts start when there is something to do (auto), one that a
    service runs (external), or each call, for one turn (inline)."""
    idle_timeout: Seconds = 300
    """Seconds a worker stays when nothing is open or alive; only in `auto`."""
    lease_time: Seconds = 60
    """Seconds a worker that has stopped moving keeps the right to act. At least both time-outs and
    10 s; made longer when IBM's AWS_CONNECTION_TIMEOUT_MS needs that and no lease is given."""
    sweep_max_age: Seconds = 90
    """Seconds the last complete sweep may be old for a getReturnRequests answer."""
    turn_budget: Seconds = 20
    """Seconds for the turn of an `inline` call: a call to AWS that could outlast them is put
    off."""


class BatchSizes(_Section):
    """Ids in one call by id."""

    describe_instances: OfThousand = 200
    """Machines: when more of them are changing, EC2 is swept instead of asked for each by id. In
    one DescribeInstances at most 200 are named, which is what EC2 takes."""
    terminate_instances: OfThousand = 200
    """Most machines in one TerminateInstances."""
    create_tags: OfThousand = 200
    """Most resources in one CreateTags: with `tag_instance_id` a machine and its volumes, which
    get the machine's id."""


class Timeouts(_Section):
    """Seconds, of every AWS call."""

    connect_timeout: Seconds = 3
    """Seconds to connect to AWS. `inline`: at most a tenth of `worker.turn_budget`."""
    read_timeout: Seconds = 30
    """Seconds to wait for AWS's answer. `inline`: at most four tenths of `worker.turn_budget`."""


class BotoRetries(_Section):
    """botocore's own retries; `max_attempts` counts the first attempt too."""

    max_attempts: Count = 1
    """Attempts by botocore, the first one included; a launch has one. `inline`: one."""
    mode: Literal["legacy", "standard", "adaptive"] = "standard"
    """How botocore retries, by its own name for it; without effect on one attempt. Launches do not
    use it."""


class BotoConfig(_Section):
    """What is handed to botocore as it is."""

    max_pool_connections: Count = 10
    """Connections to AWS that botocore keeps."""
    retries: BotoRetries = BotoRetries()


class Aws(_Section):
    """How AWS is reached and how sparingly it is asked; times in seconds."""

    region: Annotated[Text, AfterValidator(_region)] = None
    """A region code. Needed by the first AWS call, not for reading templates."""
    endpoint_url: Annotated[Text, AfterValidator(_endpoint)] = None
    """EC2's address, when it is not the region's public one; without a scheme it is https."""
    credential_file: Path = None
    """An AWS credentials file, an absolute path. None: whatever boto3 finds by itself, such as the
    instance profile."""
    profile: Annotated[str, Field(min_length=1)] = "default"
    """The profile to take, of `credential_file` or, without one, of the files that boto3 finds.
    Without a file, `default` leaves the choice to boto3 (AWS_PROFILE)."""
    credential_script: Text = None
    """A program, with its arguments, that prints credentials as JSON: AccessKeyId,
    SecretAccessKey, SessionToken and Expiration, as AWS's credential_process does. It is run
    again before they end and must be done within 6 s. None: no program."""
    credential_renew_margin: SecondsOrZero = 300
    """Seconds before their end at which credentials of `credential_script` or `assume_role` are
    renewed."""
    assume_role: Annotated[Text, AfterValidator(_role)] = None
    """The ARN of a role that is assumed with these credentials, for all calls. None: none is."""
    external_id: Annotated[Text, AfterValidator(_external_id)] = None
    """The external id that the role's trust policy asks for. None: none is sent."""
    proxy: Annotated[Text, AfterValidator(_proxy)] = None
    """The proxy to AWS, as http://host:port. None: whatever boto3 finds by itself (HTTPS_PROXY)."""
    max_inflight: Count = 4
    """Most launches under way: those begun in a turn and those whose outcome is still open."""
    token_safe_age: SecondsOrZero = 3600
    """Seconds. An older intent is never sent again: AWS may have forgotten its token."""
    settle_gap: SecondsOrZero = SAFE_SETTLE_GAP
    """Seconds between the two sweeps that settle a doubtful launch by its tag. Below 300 a machine
    that AWS lists late may be missed and launched twice."""
    sweep_interval: Seconds = 60
    """Seconds from one complete sweep to the next."""
    launch_chunk: OfThousand = 100
    """Most machines in one RunInstances."""
    fleet_chunk: OfThousand = 500
    """Most machines in one launch by a fleet or group."""
    pending_timeout: Seconds = 180
    """Seconds after which a machine that EC2, asked once more, still shows pending is
    terminated."""
    creation_timeout: Seconds = 600
    """Seconds in which HostFactory was calling and never named a request, or a machine among its
    hosts: then the request is cancelled, or the machine returned."""
    tag_instance_id: bool = False
    """Whether a running machine and its volumes get the tag InstanceID, with the machine's id."""
    interruption_queue: Annotated[Text, AfterValidator(_endpoint)] = None
    """The URL of the SQS queue into which EventBridge puts EC2's interruption warnings and
    rebalance recommendations. None: an interruption is seen by the next sweep."""
    spot_terminate_on_reclaim: bool = False
    """Whether a returned machine that AWS is about to take back is terminated at once. Without,
    its end is left to AWS."""
    batch_sizes: BatchSizes = BatchSizes()
    timeouts: Timeouts = Timeouts()
    config: BotoConfig = BotoConfig()
    launch_retries: Retries = 0
    """Further attempts at once of a launch that failed for a while, with the same token; later
    turns go on in any case. `inline`: 0."""
    describe_retries: Retries = 2
    """Further attempts at once of a DescribeInstances that failed for a while. `inline`: 0."""
    describe_retry_interval: Annotated[SecondsOrZero, Field(le=3600)] = 0.5
    """Seconds before the first of these; before the second twice as many, and so on."""
    buckets: dict[str, Bucket] = Field(default_factory=lambda: dict(DEFAULT_BUCKETS))
    """Our own limit of this API as [size, refill per second], by default 80 % of EC2's: calls, or
    machines launched by whatever call for RunInstances:instances, terminated for
    TerminateInstances:instances. NonMutating and Mutating are for each API without a key of its
    own. Those not named keep their defaults."""

    @field_validator("buckets", mode="before")
    @classmethod
    def _keep_other_buckets(cls, value: object) -> object:
        return {**DEFAULT_BUCKETS, **value} if isinstance(value, dict) else value


class Caps(_Section):
    """Most machines at a time and most spend per hour; null is no limit."""

    machines: Most = None
    """Machines that live or are being asked for. None: no limit."""
    spend_per_hour: MostSpend = None
    """Dollars, by the price per machine hour that templates give (`attributes.priceInfo`). None: no
    limit. A template without a price is not launched while one is set."""


class Limits(Caps):
    """What launching never goes beyond, for the deployment and for single templates."""

    templates: Annotated[dict[str, Caps], BeforeValidator(_from_variable)] = {}
    """Template id -> `machines` and `spend_per_hour` of that template alone."""


class Account(_Section):
    """One of several places to buy machines: what differs there from `provider.aws`."""

    region: Annotated[Text, AfterValidator(_region)] = None
    """Its region. None: that of `provider.aws`."""
    endpoint_url: Annotated[Text, AfterValidator(_endpoint)] = None
    """EC2's address there. None: that of `provider.aws`."""
    credential_file: Path = None
    """A credentials file of its own. None: that of `provider.aws`."""
    profile: Text = None
    """A profile of its own. None: that of `provider.aws`."""
    credential_script: Text = None
    """A program of its own that prints credentials. None: that of `provider.aws`, unless the
    account has a file or a profile of its own."""
    credential_renew_margin: SecondsOrZero | None = None
    """Seconds before their end at which its credentials are renewed. None: that of
    `provider.aws`."""
    assume_role: Annotated[Text, AfterValidator(_role)] = None
    """The role that is assumed for it: the way to another AWS account without keys of it. None:
    that of `provider.aws`, unless the account has credentials of its own."""
    external_id: Annotated[Text, AfterValidator(_external_id)] = None
    """The external id that this role asks for. None: that of `provider.aws`."""
    interruption_queue: Annotated[Text, AfterValidator(_endpoint)] = None
    """The queue of its interruption warnings. None: it has none; that of `provider.aws` is not
    its."""
    priority: Annotated[int, BeforeValidator(_refuse_switch)] = 0
    """With `provider.selection` priority the lowest comes first."""
    weight: Annotated[float, BeforeValidator(_refuse_switch), Field(gt=0)] = 1
    """With `provider.selection` weighted its share of the machines."""


class Provider(_Section):
    """What a request may take; `fulfilment_deadline` in seconds."""

    fulfilment_deadline: Seconds = 300
    """Seconds after which nothing more is launched for a request; a template's own
    `fulfilmentDeadline` comes first."""
    limits: Limits = Limits()
    aws: Aws = Aws()
    accounts: Annotated[
        dict[Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")], Account],
        BeforeValidator(_from_variable),
    ] = {}
    """Name -> where machines are bought: credentials and a region. None: one, called `default`,
    that is `provider.aws`. A template runs in those that it names, without any in the first."""
    selection: Literal["first_available", "priority", "weighted", "round_robin", "least_cost"] = (
        "first_available"
    )
    """Which of a template's accounts is asked first; the others follow when it has no capacity or
    does not answer."""

    def places(self) -> dict[str, Aws]:
        """Account -> the settings that hold in it."""
        if not self.accounts:
            return {"default": self.aws}
        return {name: _place(self.aws, account) for name, account in self.accounts.items()}


def _place(aws: Aws, account: Account) -> Aws:
    """What holds in an account. Whoever has credentials of its own takes none of the others': a
    script or a role would stand before them."""
    own = account.model_dump(exclude_none=True, exclude={"priority", "weight"})
    dropped: dict[str, Any] = {"interruption_queue": None}
    if own.keys() & {"credential_file", "profile"}:
        dropped |= {"credential_script": None, "assume_role": None}
    elif "credential_script" in own:
        dropped |= {"assume_role": None}
    return aws.model_copy(update={**dropped, **own})


class Logging(_Section):
    """The log file: `max_file_size` in MB, `max_rotate` old files kept."""

    level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"], BeforeValidator(_log_level)
    ] = "INFO"
    """The least level that is written."""
    max_file_size: Count = 10
    """MB (of 1,000,000 bytes) after which the log is rotated."""
    max_rotate: Annotated[int, BeforeValidator(_refuse_switch), Field(ge=0)] = 5
    """Old log files that are kept; with 0 the log is never rotated."""


class Settings(_Section):
    """Everything a site may choose, validated and frozen; `Settings()` is the defaults."""

    storage: Storage = Storage()
    worker: Worker = Worker()
    provider: Provider = Provider()
    logging: Logging = Logging()

    @model_validator(mode="after")
    def _refuse_lease_shorter_than_a_call(self) -> Self:
        timeouts = self.provider.aws.timeouts
        shortest = timeouts.connect_timeout + timeouts.read_timeout + LEASE_MARGIN
        if self.worker.lease_time < shortest:
            raise _clash(
                f"worker.lease_time ({self.worker.lease_time:g} s) is less than {shortest:g} s: "
                f"provider.aws.timeouts.connect_timeout ({timeouts.connect_timeout:g} s) + "
                f"provider.aws.timeouts.read_timeout ({timeouts.read_timeout:g} s) + "
                f"{LEASE_MARGIN} s",
                "lengthen the lease or shorten the timeouts",
                "worker.lease_time",
                "provider.aws.timeouts.read_timeout",
                "provider.aws.timeouts.connect_timeout",
            )
        return self

    @model_validator(mode="after")
    def _refuse_launches_no_bucket_admits(self) -> Self:
        aws = self.provider.aws
        bucket = "provider.aws.buckets.RunInstances:instances"
        size = aws.buckets["RunInstances:instances"][0]
        for name in ("launch_chunk", "fleet_chunk"):
            chunk, key = getattr(aws, name), f"provider.aws.{name}"
            if chunk > size:
                raise _clash(
                    f"{key} ({chunk}) is more than {bucket} ever holds ({size:g})",
                    "make the chunk smaller or the bucket larger",
                    key,
                    bucket,
                )
        return self

    @model_validator(mode="after")
    def _refuse_accounts_that_are_no_places(self) -> Self:
        """Two that are one place at AWS would each take the other's machines for strangers."""
        seen: dict[tuple[str, ...], str] = {}
        for name, aws in self.provider.places().items() if self.provider.accounts else ():
            key = f"provider.accounts.{name}"
            if aws.region is None:
                raise _clash(
                    f"{key} has no region, and there is no provider.aws.region",
                    "give it one",
                    "provider.accounts",
                )
            # As far as settings can tell: keys of one AWS account may lie in two files.
            who = (
                ("role", aws.assume_role.split(":")[4])
                if aws.assume_role
                else ("script", aws.credential_script)
                if aws.credential_script
                else ("profile", aws.credential_file or "", aws.profile)
            )
            other = seen.setdefault((*who, aws.region, aws.endpoint_url or ""), name)
            if other != name:
                raise _clash(
                    f"{key} and provider.accounts.{other} are the same AWS account and region",
                    "take one of them out, or give it a region or credentials of its own",
                    "provider.accounts",
                )
        return self


def _clash(problem: str, next_step: str, *keys: str) -> PydanticCustomError:
    context = {"problem": problem, "next_step": next_step, "keys": keys}
    return PydanticCustomError("clash", "{problem}", context)


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


_KEYS = tuple(_keys(Settings))
_SECTIONS = frozenset(
    ".".join(parts[:depth])
    for parts in (key.split(".") for key in _KEYS)
    for depth in range(1, len(parts))
)


def environment_name(key: str) -> str:
    """The environment variable of a key: `worker.mode` -> `HOSTLEDGER_WORKER__MODE`."""
    return ENVIRONMENT_PREFIX + key.replace(".", "__").replace(":", "_").upper()


_VARIABLES = {environment_name(key): key for key in _KEYS}


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
            if key in _KEYS:
                given[key] = _Given(value, path, key)
            elif key in _SECTIONS:
                if not isinstance(value, dict):
                    problem = f"is a section, an object, not {_shown(value)}"
                    raise ConfigurationProblem(path, key, problem, "put its keys in { }")
                walk(value, f"{key}.")
            elif key in _KEYS_TO_COME:
                problem = "comes in a later release and would have no effect in this one"
                raise ConfigurationProblem(path, key, problem, "take it out")
            else:
                nearest = _nearest(key, [*_KEYS, *sorted(_SECTIONS)])
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
    level = str(_log_level(_text(value)))
    if level not in _LOG_LEVELS:
        raise ValueError(f"one of {', '.join(_LOG_LEVELS)} is needed")
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
        problem = message if error["type"] == "to_come" else f"{message}, not {_shown(place.value)}"
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
