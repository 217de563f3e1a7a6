"""AWS of one account and region: sessions, clients, and the one place that calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from threading import Lock
from typing import Any, Protocol
from urllib.parse import urlsplit

from botocore import xform_name

from application.crash_points import reach
from application.ports import CallFailed, Clock
from domain.capacity import CREATE_FLEET, CREATE_GROUP, REQUEST_SPOT_FLEET, RUN_INSTANCES
from infrastructure.aws import credentials
from infrastructure.aws.errors import THROTTLED, failure
from infrastructure.aws.throttle import Breaker, Bucket
from infrastructure.settings.aws import MUTATING, NON_MUTATING, Aws
from infrastructure.telemetry.journal import Journal

LAUNCHED_INSTANCES = "RunInstances:instances"
TERMINATED_INSTANCES = "TerminateInstances:instances"

_LAUNCHES = frozenset({RUN_INSTANCES, CREATE_FLEET, REQUEST_SPOT_FLEET, CREATE_GROUP})
_LOOKS = ("Describe", "Get", "Receive")
_REPEATABLE = frozenset(
    {"TerminateInstances", "CreateTags", "DeleteLaunchTemplate", "DeleteMessageBatch"}
)
"""Calls that change something and may yet be repeated by botocore."""


class Watch(Protocol):
    """What counts calls (`infrastructure.telemetry.monitoring`)."""

    def call(
        self, account: str, region: str, api: str, seconds: float, kind: str, code: str
    ) -> None: ...

    def withheld(self, account: str, region: str, api: str, reason: str) -> None: ...


class Connection:
    """Clients are made at the first call of their service; they are thread-safe.

    `on_client` is called with each client that is made: the sandbox attaches itself there. `watch`
    counts the calls, under the name `account`.
    """

    def __init__(
        self,
        settings: Aws,
        clock: Clock,
        journal: Journal,
        on_client: Callable[[Any], None] | None,
        account: str = "default",
        watch: Watch | None = None,
    ) -> None:
        if not settings.region:
            raise CallFailed("refused", "NoRegion", "AWS_REGION is not set in awsprov_config.json")
        self.region = settings.region
        self.settings = settings
        self.clock = clock
        self.journal = journal
        self._account = account
        self._watch = watch
        self._on_client = on_client
        self._session: Any = None
        self._clients: dict[tuple[str, bool], Any] = {}
        self._buckets: dict[str, Bucket] = {}
        self._breakers: dict[str, Breaker] = {}
        self._lock = Lock()

    def seconds(self) -> float:
        return self.clock.now()[2]

    @property
    def call_time(self) -> float:
        """Seconds that one attempt of a call can last at most."""
        return self.settings.timeouts.connect_timeout + self.settings.timeouts.read_timeout

    # -- sessions and clients ---------------------------------------------------------------------

    def _client(self, service: str, once: bool) -> Any:
        """What is idempotent by nature may be retried by botocore as the site says; a launch is
        tried once here and again by the policy, with its token."""
        if (service, once) not in self._clients:
            if self._session is None:
                self._session = self._new_session()
            self._clients[service, once] = self._new_client(self._session, service, once)
        return self._clients[service, once]

    def _new_session(self) -> Any:
        import boto3
        from botocore.session import Session

        settings = self.settings
        session: Any = Session()
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=_timestamp
        )
        if settings.credential_file:
            session.set_config_variable("credentials_file", settings.credential_file)
        if settings.credential_file or settings.profile != "default":
            session.set_config_variable("profile", settings.profile)
        if settings.credential_script:
            fetch = credentials.script(settings.credential_script)
            session._credentials = self._renewed(fetch, "AWS_CREDENTIAL_SCRIPT")
        made = boto3.session.Session(botocore_session=session)
        if settings.assume_role:
            # The client keeps the credentials that the session had when it was made.
            sts = self._new_client(made, "sts", True, *credentials.SLOWEST_ROLE)
            fetch = credentials.role(sts, settings.assume_role, settings.external_id)
            session._credentials = self._renewed(fetch, "assume_role")
        return made

    def _renewed(self, fetch: credentials.Fetch, source: str) -> Any:
        margin = self.settings.credential_renew_margin
        return credentials.renewed(fetch, source, self.clock, self.journal, margin)

    def _new_client(
        self,
        session: Any,
        service: str,
        once: bool,
        connect_timeout: float | None = None,
        read_timeout: float | None = None,
    ) -> Any:
        from botocore.config import Config

        settings = self.settings
        retries = settings.config.retries
        proxy = settings.proxy
        client = session.client(
            service,
            region_name=self.region,
            endpoint_url=_endpoint(settings.endpoint_url, service),
            config=Config(
                connect_timeout=connect_timeout or settings.timeouts.connect_timeout,
                read_timeout=read_timeout or settings.timeouts.read_timeout,
                max_pool_connections=settings.config.max_pool_connections,
                retries={"total_max_attempts": 1}
                if once
                else {"total_max_attempts": retries.max_attempts, "mode": retries.mode},
                proxies={"http": proxy, "https": proxy} if proxy else None,
                user_agent_extra="hostledger",
            ),
        )
        if self._on_client is not None:
            self._on_client(client)
        return client

    # -- calls ------------------------------------------------------------------------------------

    def call(
        self, api: str, parameters: dict[str, Any], service: str = "ec2", machines: int = 0
    ) -> Any:
        """One call; `machines` are those that it launches or terminates. Raises CallFailed; nothing
        is sent when a bucket or the breaker says no."""
        with self._lock:
            self._admit(api, machines)
        once = not api.startswith(_LOOKS) and api not in _REPEATABLE
        reach(f"aws.{api}.before")
        began = self.seconds()
        try:
            with self._lock:
                client = self._client(service, once)
            answer = getattr(client, xform_name(api))(**parameters)
        except Exception as error:
            failed = failure(error, api)
            with self._lock:
                self._note(api, self.seconds() - began, failed)
            reach(f"aws.{api}.after")
            if failed is error:
                raise
            raise failed from error
        with self._lock:
            self._note(api, self.seconds() - began, None)
        reach(f"aws.{api}.after")
        return answer

    def _admit(self, api: str, machines: int) -> None:
        """Take what the call takes from its buckets. Raises CallFailed."""
        resources = self._resources(api) if machines else None
        if not self._breaker(api).admits():
            self._withhold(api, "breaker")
            raise CallFailed(
                "unreachable", "BreakerOpen", f"{api} of {self.region} failed too often"
            )
        if resources is not None and not resources.has(machines):
            self._withhold(api, "bucket")
            raise CallFailed("throttled", "OwnLimit", f"the bucket of instances of {api} is empty")
        if not self._bucket(api).take():
            self._withhold(api, "bucket")
            raise CallFailed("throttled", "OwnLimit", f"the bucket of {api} is empty")
        if resources is not None:
            resources.take(machines)

    def _note(self, api: str, took: float, failed: CallFailed | None) -> None:
        """Let the log, the figures, the bucket and the breaker have how a call ended."""
        if failed is None:
            self.journal.info("aws", api=api, seconds=took)
            self._count(api, took, "", "")
            self._breaker(api).succeeded()
            return
        self.journal.info("aws", api=api, seconds=took, kind=failed.kind, code=failed.code)
        self._count(api, took, failed.kind, failed.code)
        # An STS that is too busy says nothing about this API.
        if failed.code in THROTTLED and failed.kind == "throttled":
            self._bucket(api).throttled()
        elif failed.kind in ("ambiguous", "unreachable"):
            self._breaker(api).failed()
        else:
            self._breaker(api).succeeded()

    def _count(self, api: str, seconds: float, kind: str, code: str) -> None:
        if self._watch is not None:
            self._watch.call(self._account, self.region, api, seconds, kind, code)

    def _withhold(self, api: str, reason: str) -> None:
        if self._watch is not None:
            self._watch.withheld(self._account, self.region, api, reason)

    def pages(
        self, api: str, parameters: dict[str, Any], service: str = "ec2"
    ) -> Iterator[dict[str, Any]]:
        """All pages of an answer. Raises CallFailed."""
        following = dict(parameters)
        while True:
            answer = self.call(api, following, service)
            yield answer
            if not answer.get("NextToken"):
                return
            following["NextToken"] = answer["NextToken"]

    def is_down(self, api: str) -> bool:
        """Whether the breaker of an API is open."""
        return not self._breaker(api).admits()

    def may_call(self, api: str, machines: int) -> bool:
        """Whether buckets and breaker let a call for so many machines go at once; takes nothing."""
        return (
            self._breaker(api).admits()
            and self._bucket(api).has()
            and self._resources(api).has(machines)
        )

    def throttled(self, api: str) -> None:
        """An answer said inside itself that we are too fast."""
        self._bucket(api).throttled()

    def _breaker(self, api: str) -> Breaker:
        if api not in self._breakers:
            self._breakers[api] = Breaker(self.seconds)
        return self._breakers[api]

    def _bucket(self, api: str) -> Bucket:
        """AWS has one for each API, whose sizes differ for a few and by kind for the others."""
        if api not in self._buckets:
            kind = NON_MUTATING if api.startswith(_LOOKS) else MUTATING
            limits = self.settings.buckets
            size, rate = limits.get(api) or limits[kind]
            self._buckets[api] = Bucket(size, rate, self.seconds)
        return self._buckets[api]

    def _resources(self, api: str) -> Bucket:
        """That of instances launched by whatever call, or of instances terminated."""
        return self._bucket(LAUNCHED_INSTANCES if api in _LAUNCHES else TERMINATED_INSTANCES)


def _timestamp(value: Any) -> datetime:
    """A time in an answer. An instance has five, and botocore's own parser, which guesses the
    format, takes a quarter of the time that a page of instances costs."""
    if isinstance(value, str) and value[10:11] == "T":
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    from botocore.utils import parse_timestamp

    return parse_timestamp(value)


def _endpoint(url: str | None, service: str) -> str | None:
    """The address of a service: one that names EC2 is EC2's alone, any other (a stand-in for AWS)
    is that of all."""
    if url is None or service == "ec2":
        return url
    return None if "ec2" in (urlsplit(url).hostname or "").split(".") else url
