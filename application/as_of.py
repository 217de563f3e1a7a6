"""Which events of a log concern one thing: enough to know its state at a position, and no more.

A thing's own stream is found by its name. What names it from another stream (a launch, a return, a
termination, a sighting) is looked for among the events of that topic, in the part of the log in
which it can be; so that it costs what the thing's life is long, not what the log is.
"""

from __future__ import annotations

from application.failures import NoMoment
from application.json_text import loads
from application.replay import position_of, recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol

    Row = dict[str, Any]

    class Source(Protocol):
        """A look at a store's log."""

        def events_after(self, position: int, limit: int) -> list[Row]: ...

        def last_events(self, limit: int, topic: str | None) -> list[Row]: ...

        def time_of(self, position: int) -> str: ...

        def events_of_streams(self, streams: Sequence[str]) -> list[Row]: ...

        def mentions(
            self, topic: str, after: int, to: int, limit: int, name: str = ""
        ) -> list[Row]: ...

        def tracked(self) -> list[tuple[str, int]]: ...


FINAL = ("RequestFulfilled", "RequestPartlyFulfilled", "RequestFailed", "RequestCancelled")
LAUNCHES = ("LaunchIntended", "LaunchAccepted", "LaunchSettled")
GONE = ("MachineTerminated", "MachineLost")
TELLING = "returning"
"""The policy that tells machines of their returns."""

UNDER_WAY = 5_000
"""Events after a request's last in which a launch may still name it: the worker was at it when the
request ended."""

PAGE, SIGHTINGS = 1_000, 100
"""Events that are looked at at once; fewer where few are expected to do."""

TEMPLATES = ("TemplateRevised", "TemplateRetired")
LAUNCH_TEMPLATES = (
    "LaunchTemplateIntended",
    "LaunchTemplateCreated",
    "LaunchTemplateRejected",
    "LaunchTemplateMissed",
    "LaunchTemplateDeletionIntended",
    "LaunchTemplateDeleted",
)


class Concern:
    """`events` in their order fold into the state of `things` (ids); of others that they name
    they tell a part. None: into the state of all they name."""

    def __init__(self, events: list[Row], things: set[str] | None) -> None:
        self.events = events
        self.things = things


def position_at(source: Source, moment: str, now: str) -> int:
    """The position that a moment names (`position_of`). `now` is the time as events have it.

    Raises NoMoment for a moment before the first event, and for one that is yet to come.
    """
    position = position_of(source, moment)
    if position == 0:
        first = source.events_after(0, 1)
        began = f": the first was recorded at {first[0]['recorded_at']}" if first else ""
        raise NoMoment(f"the log has no event until {moment}{began}")
    if not moment.isdecimal():
        (end,) = source.last_events(1, None)
        if recorded(moment) > max(now, end["recorded_at"]):
            raise NoMoment(f"{moment} is yet to come: nobody knows the state then")
    return position


def requests(request_ids: Sequence[str], source: Source, until: int) -> Concern:
    """What concerns these requests and returns, with their launches and machines."""
    search = _Search(source, until)
    for request_id in request_ids:
        search.request(request_id)
        search.handed_back(request_id)
    return search.found()


def machine(machine_id: str, source: Source, until: int) -> Concern:
    """What concerns one machine."""
    search = _Search(source, until)
    search.machines.add(machine_id)
    return search.found()


def batch(batch_id: str, source: Source, until: int) -> Concern:
    """What concerns one launch and the machines that it gave."""
    search = _Search(source, until)
    search.batch(batch_id)
    return search.found()


def topics(names: Sequence[str], source: Source, until: int) -> Concern:
    """The events of these topics."""
    search = _Search(source, until)
    search.topics(names)
    return Concern(search.found().events, None)


def _position(event: Row) -> int:
    return event["position"]  # type: ignore[no-any-return]


class _Search:
    def __init__(self, source: Source, until: int) -> None:
        self._source = source
        self._until = until
        self._known: dict[int, Row] = {}
        self._things: set[str] = set()
        self.machines: set[str] = set()

    def _take(self, *streams: str) -> list[Row]:
        """Whole streams, of which the events up to the position count."""
        events = self._source.events_of_streams(streams)
        self._known |= {e["position"]: e for e in events if e["position"] <= self._until}
        return events

    def _until_then(self, *streams: str) -> list[Row]:
        return [event for event in self._take(*streams) if event["position"] <= self._until]

    def _mentions(
        self, topic: str, after: int, to: int, name: str = "", page: int = PAGE
    ) -> Iterator[Row]:
        """The events of a topic in a part of the log; where `name` is one, they may name it."""
        to = min(to, self._until)
        while events := self._source.mentions(topic, after, to, page, name):
            yield from events
            if len(events) < page:
                return
            after = events[-1]["position"]

    def topics(self, names: Sequence[str]) -> None:
        self._take(*{e["stream"] for topic in names for e in self._mentions(topic, 0, self._until)})

    def request(self, request_id: str) -> None:
        own = self._until_then(f"request-{request_id}")
        if not own:
            return
        self._things.add(request_id)
        ended = [event["position"] for event in own if event["topic"] in FINAL]
        to = ended[0] + UNDER_WAY if ended else self._until
        launches = {
            event["stream"]
            for topic in LAUNCHES
            for event in self._mentions(topic, own[0]["position"], to, request_id)
        }
        for event in self._until_then(*launches):
            self._things.add(event["stream"].partition("-")[2])
            for owner, machine_ids in loads(event["data"]).get("deal", ()):
                if owner == request_id:
                    self.machines.update(machine_ids)

    def handed_back(self, return_id: str) -> None:
        for event in self._until_then(f"return-{return_id}"):
            self._things.add(return_id)
            self.machines.update(loads(event["data"]).get("machine_ids", ()))

    def batch(self, batch_id: str) -> None:
        own = self._until_then(f"batch-{batch_id}")
        if not own:
            return
        self._things.add(batch_id)
        for event in own:
            instances = loads(event["data"]).get("instances", ())
            self.machines.update(instance["machine_id"] for instance in instances)
        for event in self._mentions("MachineAdopted", own[0]["position"], self._until, batch_id):
            self.machines.add(event["stream"].partition("-")[2])

    def found(self) -> Concern:
        """All of it, with what concerns the machines."""
        if self.machines:
            self._follow_machines()
        return Concern(sorted(self._known.values(), key=_position), self._things)

    def _follow_machines(self) -> None:
        launched: dict[str, int] = {}
        gone: dict[str, int] = {}
        streams: set[str] = set()
        for event in self._take(*(f"machine-{machine_id}" for machine_id in self.machines)):
            machine_id = event["stream"].partition("-")[2]
            if event["version"] == 1 and event["position"] <= self._until:
                launched[machine_id] = event["position"]
            if machine_id not in launched:
                continue
            if event["topic"] in GONE:
                gone[machine_id] = event["position"]
            data = loads(event["data"])
            if data.get("request_id"):
                self._things.add(data["request_id"])
                streams.add("request-" + data["request_id"])
            if data.get("return_id"):
                streams.add("return-" + data["return_id"])
        if not launched:
            return
        self._things |= launched.keys()
        began = min(launched.values())
        # Of the returns before these, the machines' own streams tell.
        told = dict(self._source.tracked()).get(TELLING, 0)
        streams |= self._naming("MachinesReturned", max(began, told), self._until, launched)
        over = max(gone.values()) if gone.keys() >= launched.keys() else self._until
        streams |= self._naming("TerminationIntended", began, over, launched)
        self._take(*streams)
        self._see(launched)

    def _naming(self, topic: str, after: int, to: int, machines: dict[str, int]) -> set[str]:
        """The streams of the events of a topic that name one of the machines."""
        name = next(iter(machines)) if len(machines) == 1 else ""
        return {
            event["stream"]
            for event in self._mentions(topic, after, to, name)
            if not machines.keys().isdisjoint(loads(event["data"])["machine_ids"])
        }

    def _see(self, launched: dict[str, int]) -> None:
        """The first sighting of each machine."""
        name, page = (next(iter(launched)), 1) if len(launched) == 1 else ("", SIGHTINGS)
        unseen = dict(launched)
        after = min(launched.values())
        for event in self._mentions("MachinesSeen", after, self._until, name, page):
            seen = [
                machine_id
                for machine_id in loads(event["data"])["machine_ids"]
                if unseen.get(machine_id, self._until) < event["position"]
            ]
            for machine_id in seen:
                del unseen[machine_id]
            if seen:
                self._known[event["position"]] = self._source.events_after(
                    event["position"] - 1, 1
                )[0]
            if not unseen:
                return
