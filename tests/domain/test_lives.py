"""The lives of a request, a batch and a machine, in any order hypothesis can think of.

What holds after each step: a request has at most what it asked for, no machine has two owners, an
aggregate folded from its events is the live one, and its versions have no gap.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from domain.event_sourced import Aggregate, DomainEvent
from domain.launch_batch import ACCEPTED, DOUBTFUL, OPEN, REJECTED, SETTLED, LaunchBatch
from domain.machine import Machine
from domain.machine_request import OPEN as WANTED
from domain.machine_request import MachineRequest
from domain.refusals import RequestIsFinal
from tests.domain.samples import BATCH, REQUEST, RETURN, instance, intended, launched, machine_id


def state(aggregate: Aggregate) -> dict[str, Any]:
    """All that an aggregate remembers, but for what is not stored yet."""
    return {name: value for name, value in vars(aggregate).items() if name != "_pending"}


class Log:
    """The events of all aggregates, as a store keeps them; what is in it is never changed."""

    def __init__(self) -> None:
        self.streams: dict[str, list[DomainEvent]] = {}

    def save(self, *aggregates: Aggregate) -> list[DomainEvent]:
        """Store what is new."""
        new = []
        for aggregate in aggregates:
            events = aggregate.collect_events()
            assert aggregate.collect_events() == []
            self.streams.setdefault(aggregate.id, []).extend(events)
            new += events
        return new

    def check(self, aggregate: Aggregate) -> None:
        """Replay equals live, and versions count from 1."""
        events = self.streams.get(aggregate.id, [])
        assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
        assert all(event.originator_id == aggregate.id for event in events)
        assert aggregate.version == len(events)
        replayed = type(aggregate).project(None, events)
        if replayed is None:
            assert aggregate.version == 0
        else:
            assert state(replayed) == state(aggregate)


class Batch(RuleBasedStateMachine):
    """One batch: whatever is answered in whatever order, it has one outcome for each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.batch = LaunchBatch(LaunchBatch.stream(BATCH))
        self.epochs: list[int] = []
        self.was_settled = False
        self.next = 0

    def fresh(self, count: int) -> list[dict[str, Any]]:
        self.next += count
        return [instance(number) for number in range(self.next - count, self.next)]

    @rule(skip=st.integers(-2, 2))
    def intend(self, skip: int) -> None:
        epoch = self.batch.epoch + 1 + skip
        may = self.batch.state in ("", REJECTED) and skip == 0
        try:
            self.batch.intend(**intended(epoch)[1])
        except ValueError:
            assert not may
        else:
            assert may
            assert not self.was_settled
            self.epochs.append(epoch)
        self.log.save(self.batch)

    @rule(count=st.integers(0, 5), claims=st.lists(st.integers(0, 3), max_size=3))
    def accept(self, count: int, claims: list[int]) -> None:
        was = self.batch.state
        self.batch.accept("aws", self.fresh(count), [[f"r{n}", c] for n, c in enumerate(claims)])
        assert len(self.log.save(self.batch)) == (was == OPEN)

    @rule(definite=st.booleans(), gives_up=st.booleans())
    def reject(self, definite: bool, gives_up: bool) -> None:
        was = self.batch.state
        self.batch.reject("Code", "message", definite, gives_up)
        assert len(self.log.save(self.batch)) == (was == OPEN)
        if was == OPEN:
            assert self.batch.state == (REJECTED if definite else DOUBTFUL)

    @rule(known=st.integers(0, 5), count=st.integers(0, 3), claims=st.integers(0, 4))
    def settle(self, known: int, count: int, claims: int) -> None:
        was = self.batch.state
        if not was:
            return
        seen = [instance(int(i[2:], 16)) for i in sorted(self.batch.machine_ids)[:known]]
        self.batch.settle([*seen, *self.fresh(count)], [["r0", claims]])
        new = self.log.save(self.batch)
        assert len(new) == (was in (OPEN, DOUBTFUL) or count > 0)
        self.was_settled = self.was_settled or bool(new)

    @invariant()
    def replay_equals_live(self) -> None:
        self.log.check(self.batch)

    @invariant()
    def epochs_follow_each_other(self) -> None:
        assert self.epochs == list(range(len(self.epochs)))
        assert not self.was_settled or self.batch.state == SETTLED

    @invariant()
    def each_machine_is_dealt_once(self) -> None:
        dealt: list[str] = []
        for event in self.log.streams.get(self.batch.id, []):
            fields = vars(event)
            ids = [i for _, given in fields.get("deal", ()) for i in given]
            ids += fields.get("surplus", ())
            assert sorted(ids) == sorted(i["machine_id"] for i in fields.get("instances", ()))
            dealt += ids
        assert len(dealt) == len(set(dealt))
        assert set(dealt) == self.batch.machine_ids


class OneMachine(RuleBasedStateMachine):
    """One machine: launched once, running once, and once gone never back."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.machine = Machine(Machine.stream(machine_id(1)))

    @precondition(lambda self: not self.machine.state)
    @rule(owned=st.booleans())
    def launch(self, owned: bool) -> None:
        self.machine.launch(**launched(request_id=REQUEST if owned else "")[1])
        assert len(self.log.save(self.machine)) == 1

    @precondition(lambda self: self.machine.state)
    @rule(
        what=st.sampled_from(["launch", "run", "interrupt", "hand_back", "terminate", "lose"]),
        number=st.integers(0, 2),
    )
    def tell(self, what: str, number: int) -> None:
        arguments: dict[str, tuple[Any, ...]] = {
            "run": ("name", "10.0.0.1", number),
            "interrupt": ("spot", number),
            "hand_back": (f"ret-{number}", "returned"),
            "terminate": ("gone",),
            "lose": ("gone",),
        }
        owner = self.machine.request_id
        if what == "launch":
            self.machine.launch(**launched(request_id="another")[1])
        else:
            getattr(self.machine, what)(*arguments[what])
        self.log.save(self.machine)
        assert self.machine.request_id == owner

    @invariant()
    def replay_equals_live(self) -> None:
        self.log.check(self.machine)

    @invariant()
    def each_thing_happens_once(self) -> None:
        topics = [event.TOPIC for event in self.log.streams.get(self.machine.id, [])]
        assert topics.count("MachineLaunched") <= 1
        assert topics.count("MachineRunning") <= 1
        gone = [t for t in topics if t in ("MachineTerminated", "MachineLost")]
        assert len(gone) <= 1
        if gone:
            after = topics[topics.index(gone[0]) + 1 :]
            assert set(after) <= {"MachineReturned"}
        returns = self.machine.returns
        assert len(returns) == len(set(returns))


class Site(RuleBasedStateMachine):
    """Requests, the batches that launch for them, and the machines: demand is claimed, calls are
    answered in any way, outcomes are followed late and more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.requests: list[MachineRequest] = []
        self.batches: list[LaunchBatch] = []
        self.machines: dict[str, Machine] = {}
        self.unheeded: list[DomainEvent] = []
        self.followed: list[DomainEvent] = []
        self.next = 0

    # -- the books that read models keep ----------------------------------------------------------

    def dealt(self, request: MachineRequest) -> int:
        """Machines that some outcome has dealt to it."""
        return sum(
            len(given)
            for batch in self.batches
            for event in self.log.streams[batch.id]
            for request_id, given in vars(event).get("deal", ())
            if request_id == request.identifier
        )

    def claimed(self, request: MachineRequest) -> int:
        """Machines for which a call is under way or in doubt."""
        return sum(
            count
            for batch in self.batches
            if batch.state in (OPEN, DOUBTFUL)
            for request_id, count in batch.claims
            if request_id == request.identifier
        )

    def wanted(self, request: MachineRequest) -> int:
        if request.state != WANTED:
            return 0
        return request.machine_count - self.dealt(request) - self.claimed(request)

    def open_claims(self, claims: list[list[Any]]) -> list[list[Any]]:
        """The claims of requests that are open, and behind them other open demand."""
        by_id = {request.identifier: request for request in self.requests}
        return [claim for claim in claims if by_id[claim[0]].state == WANTED] + [
            [request.identifier, more]
            for request in self.requests
            if (more := self.wanted(request)) > 0
        ]

    def fresh(self, count: int) -> list[dict[str, Any]]:
        self.next += count
        return [instance(number) for number in range(self.next - count, self.next)]

    def outcome(self, batch: LaunchBatch) -> None:
        self.unheeded += self.log.save(batch)

    def pick(self, number: int, *states: str) -> LaunchBatch | None:
        found = [batch for batch in self.batches if batch.state in states]
        return found[number % len(found)] if found else None

    # -- what happens -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.requests) < 6)
    @rule(count=st.integers(1, 6))
    def ask(self, count: int) -> None:
        identifier = f"req-{len(self.requests):032x}"
        request = MachineRequest.ask(identifier, "awsinst", "T", "r", count, 300.0, "hostfactory")
        self.requests.append(request)
        self.log.save(request)

    @rule(most=st.integers(1, 6))
    def intend(self, most: int) -> None:
        """A batch over the open demand, at most so many machines."""
        claims: list[list[Any]] = []
        for request in self.requests:
            count = min(most, self.wanted(request))
            if count > 0:
                claims.append([request.identifier, count])
                most -= count
        if claims:
            batch = LaunchBatch(LaunchBatch.stream(f"bat-{len(self.batches):032x}"))
            batch.intend(**intended(0, claims)[1])
            self.batches.append(batch)
            self.log.save(batch)

    @rule(number=st.integers(0, 20), less=st.integers(0, 3))
    def accept(self, number: int, less: int) -> None:
        if batch := self.pick(number, OPEN):
            asked = sum(count for _, count in batch.claims)
            found = self.fresh(max(0, asked - less))
            batch.accept("aws", found, self.open_claims(batch.claims))
            self.outcome(batch)

    @rule(number=st.integers(0, 20), definite=st.booleans())
    def reject(self, number: int, definite: bool) -> None:
        if batch := self.pick(number, OPEN):
            batch.reject("Code", "message", definite, False)
            self.outcome(batch)

    @rule(number=st.integers(0, 20))
    def settle(self, number: int) -> None:
        if batch := self.pick(number, DOUBTFUL):
            found = self.fresh(number % (sum(count for _, count in batch.claims) + 1))
            batch.settle(found, self.open_claims(batch.claims))
            self.outcome(batch)

    @rule(number=st.integers(0, 20), count=st.integers(1, 2))
    def arrive_late(self, number: int, count: int) -> None:
        """A closed batch's machines turn up: its claims are closed, only open demand is left."""
        if batch := self.pick(number, ACCEPTED, SETTLED, REJECTED):
            batch.settle(self.fresh(count), self.open_claims([]))
            self.outcome(batch)

    @precondition(lambda self: self.unheeded)
    @rule()
    def follow(self) -> None:
        """The next outcome is repeated onto requests and machines."""
        self.followed.append(self.unheeded.pop(0))
        self.assign(self.followed[-1])

    @precondition(lambda self: self.followed)
    @rule(number=st.integers(0, 20))
    def follow_again(self, number: int) -> None:
        """As a policy does that was killed before it could note that it was done: no news."""
        before = {stream: len(events) for stream, events in self.log.streams.items()}
        self.assign(self.followed[number % len(self.followed)])
        assert before == {stream: len(events) for stream, events in self.log.streams.items()}

    def assign(self, event: DomainEvent) -> None:
        fields = vars(event)
        owners = {i: r for r, given in fields.get("deal", ()) for i in given}
        for request in self.requests:
            request.assign(
                event.originator_id, [i for i in owners if owners[i] == request.identifier]
            )
            self.log.save(request)
        for found in fields.get("instances", ()):
            identifier = found["machine_id"]
            machine = self.machines.setdefault(identifier, Machine(Machine.stream(identifier)))
            machine.launch(**launched(request_id=owners.get(identifier, ""))[1])
            self.log.save(machine)

    @rule(number=st.integers(0, 20))
    def cancel(self, number: int) -> None:
        if self.requests:
            request = self.requests[number % len(self.requests)]
            was = request.state
            try:
                request.cancel("not needed")
            except RequestIsFinal:
                assert was != WANTED
            self.log.save(request)

    @rule(number=st.integers(0, 20), succeeded=st.integers(0, 7))
    def finish(self, number: int, succeeded: int) -> None:
        """Only when nothing of it is under way, as the policy does."""
        if self.requests:
            request = self.requests[number % len(self.requests)]
            if not self.claimed(request):
                request.finish(min(succeeded, len(request.machine_ids)), "why")
                self.log.save(request)

    @precondition(lambda self: self.machines)
    @rule(number=st.integers(0, 50), what=st.sampled_from(["run", "hand_back", "terminate"]))
    def go_on(self, number: int, what: str) -> None:
        machine = list(self.machines.values())[number % len(self.machines)]
        if what == "run":
            machine.run("name", "10.0.0.1", 1)
        elif what == "hand_back":
            machine.hand_back(RETURN, "returned")
        else:
            machine.terminate("returned")
        self.log.save(machine)

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def nobody_has_more_than_was_asked_for(self) -> None:
        for request in self.requests:
            assert len(request.machine_ids) <= self.dealt(request) <= request.machine_count

    @invariant()
    def no_machine_has_two_owners(self) -> None:
        owned = [i for request in self.requests for i in request.machine_ids]
        assert len(owned) == len(set(owned))
        for request in self.requests:
            for identifier in request.machine_ids:
                machine = self.machines.get(identifier)
                assert machine is None or machine.request_id == request.identifier

    @invariant()
    def replay_equals_live(self) -> None:
        for aggregate in (*self.requests, *self.batches, *self.machines.values()):
            self.log.check(aggregate)


TestBatch = Batch.TestCase
TestOneMachine = OneMachine.TestCase
TestSite = Site.TestCase
TestBatch.settings = TestOneMachine.settings = settings(max_examples=100, stateful_step_count=40)
TestSite.settings = settings(max_examples=200, stateful_step_count=60)
