"""What a site may choose, with its defaults and the rules between them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from infrastructure.settings.kinds import (
    Count,
    CountOrZero,
    OfThousand,
    SecondsOrZero,
    Section,
    Whole,
    blank_is_none,
    clash,
    list_from_variable,
)
from infrastructure.settings.ledger import Audit, Reports, Retention
from infrastructure.settings.provider import Provider
from infrastructure.settings.server import Server
from infrastructure.settings.storage import Storage
from infrastructure.settings.telemetry import Logging, Monitoring
from infrastructure.settings.worker import LEASE_MARGIN, Worker

LONGEST_CONNECT = 127
"""Seconds after which Linux itself gives up a connection (six SYN retries)."""


def _bytes(value: object) -> object:
    """ "100MB" as bytes."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]+) *([KMG]?)B?", value.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError("a size such as 100MB is needed")
    return int(found[1]) * 1000 ** " KMG".index(found[2].upper() or " ")


Bytes = Annotated[
    CountOrZero,
    BeforeValidator(_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9]+ *[KMGkmg]?[Bb]?$"},
            ]
        }
    ),
]


class Memory(Section):
    """What worker and server keep in memory."""

    max_cache_size: Bytes = 100_000_000
    """Bytes of answers that the server keeps until the log goes on, such as "100MB"; 0: none."""
    gc_threshold: Annotated[Count | None, BeforeValidator(blank_is_none)] = None
    """Objects made, less those freed, after which Python looks for garbage in its youngest
    generation. None: as Python has it."""
    object_pool_size: CountOrZero = 0
    """Requests, batches and machines that the worker keeps as they were last read, so that only
    later events of one are read again; 0: none."""


class Cpu(Section):
    """Processes, threads and processors."""

    worker_processes: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Processes of `server run` that answer at one address. What is limited or kept in memory is so
    in each of them."""
    thread_pool_size: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Threads in which the worker asks an account after many machines by their ids: so many calls
    of `batch_sizes.describe_instances` ids at a time. Calls that change something are made one
    after the other."""
    async_operations: bool = True
    """Whether a worker acts beside the scripts. false: `worker.mode` is `inline`."""
    cpu_affinity: Annotated[
        list[CountOrZero] | None,
        BeforeValidator(list_from_variable),
        BeforeValidator(blank_is_none),
    ] = None
    """Processors that worker and server run on, by their numbers. None: all. One that the machine
    does not have, or that this process may not use, is warned about in the log and left out."""


Component = Literal[
    "clock",
    "compiled",
    "settings",
    "journal",
    "metrics",
    "watch",
    "storage",
    "memory_looks",
    "store",
    "ledger",
    "works",
    "work",
    "queries",
    "clouds",
    "leases",
    "lease",
    "turns",
    "sightings",
    "checkpoints",
    "delivery",
    "monitoring",
    "LoggingPort",
    "ConfigurationPort",
]
"""What worker and server are made of, by the names of `WriteSide`; the last two are other names of
`journal` and `settings`."""


class LazyLoading(Section):
    """When worker and server load what they are made of. The five scripts always load what they
    use, when they use it."""

    enabled: bool = True
    """Whether a component is loaded when it is first used. false: all are loaded at the start."""
    cache_instances: bool = True
    """Whether a component is built once. false: one that keeps nothing is built at each use;
    what has state (the store, leases, what counts) is still one."""
    discovery_mode: Literal["lazy", "eager"] = "lazy"
    """When the ways to launch and the stores are imported: lazy, each when it is first used;
    eager, all of them at the start, which fails where one of them is broken."""
    connection_mode: Literal["lazy", "eager"] = "lazy"
    """When connections to the store and to AWS are opened: lazy, each when it is first used; eager,
    at the start, which fails where one is refused."""
    preload_critical: Annotated[list[Component], BeforeValidator(list_from_variable)] = []
    """Components that are loaded before all others, by name. In the environment a JSON list."""
    debug_timing: bool = False
    """Whether the log tells what was loaded, when and in how many seconds. `PERFORMANCE_DEBUG=true`
    in the environment says so, too."""
    max_concurrent_loads: Annotated[Whole, Field(ge=1, le=64)] = 5
    """Threads in which components are loaded where all are at the start."""


class Performance(Section):
    """What worker and server take of the machine."""

    lazy_loading: LazyLoading = LazyLoading()
    memory: Memory = Memory()
    cpu: Cpu = Cpu()


class BatchProcessing(Section):
    """How much the worker takes together."""

    enabled: bool = True
    """false: a burst of commands is not waited for, and each event is followed by itself."""
    batch_size: OfThousand = 100
    """Most events that a policy reads at a time."""
    batch_timeout: Annotated[SecondsOrZero, Field(le=60)] = 0.5
    """Most seconds that a burst of commands is let come in before its turn, to share launches."""


class Processing(Section):
    """How much is done at a time. The five scripts are never refused."""

    max_concurrent_requests: Count = 500
    """Requests that a server process works on at a time; more wait. Streams of events are not
    counted: `server.max_streams` bounds them."""
    request_queue_size: CountOrZero = 1000
    """Requests that wait; 503 beyond."""
    worker_threads: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Accounts whose instances the worker looks at at a time, when their sweeps are due together.
    What follows from them is recorded one after the other."""
    batch_processing: BatchProcessing = BatchProcessing()


class Settings(Section):
    """Everything a site may choose, validated and frozen; `Settings()` is the defaults."""

    storage: Storage = Storage()
    worker: Worker = Worker()
    provider: Provider = Provider()
    audit: Audit = Audit()
    logging: Logging = Logging()
    monitoring: Monitoring = Monitoring()
    retention: Retention = Retention()
    reports: Reports = Reports()
    server: Server = Server()
    performance: Performance = Performance()
    processing: Processing = Processing()

    @model_validator(mode="wrap")
    @classmethod
    def _let_each_call_work(cls, value: Any, validate: Any) -> Any:
        """Without operations beside the calls each call works."""
        settings = validate(value)
        worker = settings.worker
        if settings.performance.cpu.async_operations or worker.mode == "inline":
            return settings
        if "mode" in worker.model_fields_set:
            raise clash(
                "performance.cpu.async_operations is false, so that each call works, but "
                f"worker.mode is {worker.mode}",
                "take one of them out",
                "worker.mode",
                "performance.cpu.async_operations",
            )
        inline = worker.model_copy(update={"mode": "inline"})
        return settings.model_copy(update={"worker": inline})

    @model_validator(mode="after")
    def _refuse_lease_shorter_than_a_call(self) -> Self:
        timeouts = self.provider.aws.timeouts
        shortest = timeouts.connect_timeout + timeouts.read_timeout + LEASE_MARGIN
        if self.worker.lease_time < shortest:
            raise clash(
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
                raise clash(
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
                raise clash(
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
                raise clash(
                    f"{key} and provider.accounts.{other} are the same AWS account and region",
                    "take one of them out, or give it a region or credentials of its own",
                    "provider.accounts",
                )
        return self
