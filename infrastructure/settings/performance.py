"""What worker and server take of the machine, and how much they do at a time."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from infrastructure.settings.kinds import (
    Count,
    CountOrZero,
    OfThousand,
    SecondsOrZero,
    Section,
    Whole,
    blank_is_none,
    list_from_variable,
)


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
