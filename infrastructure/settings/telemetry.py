"""What is logged and measured, and who is told."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from infrastructure.settings.kinds import (
    Count,
    CountOrZero,
    Number,
    Path,
    Seconds,
    Section,
    Text,
    blank_is_none,
    is_address,
)

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def log_level(value: object) -> object:
    """A level as it is called here: IBM's LOG_WARNING is WARN."""
    if not isinstance(value, str):
        return value
    level = value.strip().upper().removeprefix("LOG_")
    return "WARN" if level == "WARNING" else level


class Logging(Section):
    """The log file: `max_file_size` in MB, `max_rotate` old files kept."""

    level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"], BeforeValidator(log_level)
    ] = "INFO"
    """The least level that is written."""
    max_file_size: Count = 10
    """MB (of 1,000,000 bytes) after which the log is rotated."""
    max_rotate: CountOrZero = 5
    """Old log files that are kept; with 0 the log is never rotated."""


def _topic(arn: str | None) -> str | None:
    if arn is None or re.fullmatch(r"arn:[a-z-]+:sns:([a-z0-9-]+):[0-9]{12}:[\w-]{1,256}", arn):
        return arn
    raise ValueError("a topic's ARN such as arn:aws:sns:us-west-2:123456789012:name is needed")


def _webhook(url: str | None) -> str | None:
    if url is None or is_address(url):
        return url
    raise ValueError("a URL such as https://alerts.example.org/hook is needed")


def _period(text: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{0,5}[smhdw]", text):
        return text
    raise ValueError("a number of s, m, h, d or w is needed, such as 7d")


Interval = Annotated[Number, Field(ge=1, le=86_400, allow_inf_nan=False)]
Share = Annotated[
    Annotated[Number, Field(ge=0, le=1, allow_inf_nan=False)] | None,
    BeforeValidator(blank_is_none),
]
SecondsOrNone = Annotated[Seconds | None, BeforeValidator(blank_is_none)]
Period = Annotated[str, AfterValidator(_period)]


class Alerts(Section):
    """What is told to whom when something is not as it should be; each key alone may be set."""

    response_time_threshold: SecondsOrNone = None
    """Seconds that operations of a kind may take on average in an interval; an alert is raised
    beyond. None: it is not judged."""
    error_rate_threshold: Share = None
    """The share of operations of a kind, 0 to 1, that may fail in an interval. None: it is not
    judged."""
    memory_usage_threshold: Share = None
    """The share of memory, 0 to 1, that may be in use where a process runs: of its control group
    where that has a limit, else of the machine. None: it is not judged."""
    webhook_url: Annotated[Text, AfterValidator(_webhook)] = None
    """Where each alert that is raised or cleared is posted, as JSON. None: nowhere."""
    sns_topic_arn: Annotated[Text, AfterValidator(_topic)] = None
    """The SNS topic to which it is published, with the credentials of `provider.aws`. None: to
    none."""
    command: Path = None
    """A program, an absolute path, that is run with it as JSON on its standard input, for at most
    10 s. None: none."""


class PerformanceMonitoring(Section):
    """Figures of worker and server, and what is made of them; times in seconds."""

    enabled: bool = True
    """Whether figures are collected, kept and served, and alerts raised."""
    collection_interval: Interval = 30
    """Seconds from one collection to the next: of the metrics file, the kept figures and the
    alerts."""
    retention_period: Period = "7d"
    """How long figures are kept for `hostledger metrics show`: a number of `s`, `m`, `h`, `d` or
    `w`."""
    alerts: Alerts = Alerts()


class Monitoring(Section):
    """What is measured."""

    performance: PerformanceMonitoring = PerformanceMonitoring()
