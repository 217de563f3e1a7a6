"""Policy: follow the log and measure: how long things stay in a state, and what happens how often.

Each event is counted once for a deployment, whichever worker does it. What is remembered is what
lives now; of things that began before this process the log is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from application.instants import Instant, seconds_between
from application.projections.record import Record

POLICY = "measuring"
"""The name under which the position is tracked."""

GONE = ""
COLD = "returned"
"""The state of which a machine's own events do not say when it ended."""

STATES: dict[str, tuple[str, str]] = {
    "MachinesRequested": ("request", "waiting"),
    "MachinesAssigned": ("request", "filling"),
    "RequestFulfilled": ("request", GONE),
    "RequestPartlyFulfilled": ("request", GONE),
    "RequestFailed": ("request", GONE),
    "RequestCancelled": ("request", GONE),
    "MachinesReturned": ("return", "open"),
    "ReturnCompleted": ("return", GONE),
    "ReturnPartlyRefused": ("return", GONE),
    "MachineLaunched": ("machine", "pending"),
    "MachineAdopted": ("machine", "pending"),
    "MachineRunning": ("machine", "running"),
    "MachineReturned": ("machine", "returned"),
    "MachineTerminated": ("machine", GONE),
    "MachineLost": ("machine", GONE),
}
"""Topic -> the kind of thing on whose stream it is, and the state that begins with it."""

ENDS = {
    "RequestFulfilled": ("fulfilment_seconds", "fulfilled"),
    "RequestPartlyFulfilled": ("fulfilment_seconds", "partly_fulfilled"),
    "RequestFailed": ("fulfilment_seconds", "failed"),
    "RequestCancelled": ("fulfilment_seconds", "cancelled"),
    "ReturnCompleted": ("return_seconds", "completed"),
    "ReturnPartlyRefused": ("return_seconds", "partly_refused"),
}
"""Topic -> what is measured from the beginning of the thing to it, and its label."""

COMMANDS = {"MachinesRequested": "requestMachines", "MachinesReturned": "requestReturnMachines"}


class Metrics(Protocol):
    """What measures (`infrastructure.telemetry.metrics`)."""

    def timer(self, name: str, /, **labels: str) -> Any: ...

    def counter(self, name: str, /, **labels: str) -> Any: ...


class _Life:
    def __init__(self, born: Instant) -> None:
        self.born = born
        self.state = GONE
        self.since = born
        self.is_cold = False

    def enter(self, state: str, at: Instant) -> None:
        self.state = state
        self.since = at


class Measuring:
    """`history` gives the records of these streams, oldest first."""

    def __init__(
        self, metrics: Metrics, history: Callable[[Sequence[str]], Iterable[Record]]
    ) -> None:
        self._metrics = metrics
        self._history = history
        self._lives: dict[str, _Life] = {}

    def see(self, records: Sequence[Record]) -> None:
        """The next events of the log, in their order."""
        self._look_up(records)
        for record in records:
            self._metrics.counter("events", topic=record.topic).increment()
            if record.topic in COMMANDS and record.data["source"] == "hostfactory":
                verb = COMMANDS[record.topic]
                self._metrics.counter("hostfactory_calls", verb=verb).increment()
            if record.topic == "TerminationAccepted":
                for machine_id in record.data["machine_ids"]:
                    if (life := self._lives.get(f"machine-{machine_id}")) is not None:
                        self._move("machine", life, "shutting_down", record.instant)
            elif record.topic in STATES:
                self._follow(record)

    def _follow(self, record: Record) -> None:
        kind, state = STATES[record.topic]
        life = self._lives.get(record.stream)
        if life is None:
            if state == GONE:
                return  # what ended twice, or began in an archive
            life = self._lives[record.stream] = _Life(record.instant)
            life.enter(state, record.instant)
            return
        if record.topic in ENDS:
            name, outcome = ENDS[record.topic]
            seconds = seconds_between(life.born, record.instant)
            self._metrics.timer(name, outcome=outcome).observe(seconds)
        self._move(kind, life, state, record.instant)
        if state == GONE:
            del self._lives[record.stream]

    def _move(self, kind: str, life: _Life, state: str, at: Instant) -> None:
        if life.state == state:
            return
        if kind != "return" and not (life.is_cold and life.state == COLD):
            seconds = seconds_between(life.since, at)
            self._metrics.timer(f"{kind}_state_seconds", state=life.state).observe(seconds)
        life.enter(state, at)

    def _look_up(self, records: Sequence[Record]) -> None:
        """What these events are about and began before this process did."""
        first: dict[str, int] = {}
        born: set[str] = set()
        for record in records:
            streams = [record.stream] if record.topic in STATES else []
            if record.topic == "TerminationAccepted":
                streams = [f"machine-{machine_id}" for machine_id in record.data["machine_ids"]]
            for stream in streams:
                if stream not in self._lives and stream not in born:
                    first.setdefault(stream, record.position)
            if record.topic in ("MachinesRequested", "MachineLaunched", "MachineAdopted"):
                born.add(record.stream)
        unknown = [stream for stream in first if stream not in born]
        for record in self._history(unknown) if unknown else ():
            if record.position >= first[record.stream] or record.topic not in STATES:
                continue
            _, state = STATES[record.topic]
            life = self._lives.setdefault(record.stream, _Life(record.instant))
            life.is_cold = True
            if state != life.state:
                life.enter(state, record.instant)
        for stream in unknown:
            if stream in self._lives and self._lives[stream].state == GONE:
                del self._lives[stream]
