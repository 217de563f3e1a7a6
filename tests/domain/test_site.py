"""Requests, the batches and fleets that launch for them, and the machines, in any order hypothesis
can think of.

What holds after each step: a request has what it asked for, over by less than its last machine, no
machine has two owners, what claims owe is given, closed or still owed, an aggregate folded from its
events is the live one, and its versions have no gap.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from domain.event_sourced import DomainEvent
from domain.fleet import Fleet
from domain.launch_batch import (
    ACCEPTED,
    CLOSED,
    DOUBTFUL,
    FILLING,
    OPEN,
    REJECTED,
    SETTLED,
    LaunchBatch,
)
from domain.machine import Machine
from domain.machine_request import OPEN as WANTED
from domain.machine_request import MachineRequest
from domain.refusals import RequestIsFinal
from tests.domain.log import Log
from tests.domain.samples import RETURN, every_event, instance, intended, launched


def there_is(*states: str) -> Any:
    """The rule needs a batch in one of these states."""
    return precondition(lambda site: any(batch.state in states for batch in site.batches))


WEIGHTS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


class Site(RuleBasedStateMachine):
    """Demand is claimed, calls are answered in any way, fleets give now and later, outcomes are
    followed late and more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.requests: list[MachineRequest] = []
        self.batches: list[LaunchBatch] = []
        self.fleets: dict[str, Fleet] = {}
        self.machines: dict[str, Machine] = {}
        self.units: dict[str, int] = {}
        self.given: dict[str, list[str]] = {}
        """request id -> the machines dealt to it, in the order of the outcomes"""
        self.unheeded: list[DomainEvent] = []
        self.followed: list[DomainEvent] = []

    # -- the books that read models keep ----------------------------------------------------------

    def dealt(self, request: MachineRequest) -> int:
        """Units that outcomes have dealt to it."""
        return sum(self.units[i] for i in self.given.get(request.identifier, ()))

    def owed(self, batch: LaunchBatch) -> list[list[Any]]:
        """What its call, under way, in doubt or of a fleet that launches, still owes its claims."""
        if batch.state not in (OPEN, DOUBTFUL, FILLING):
            return []
        given: dict[str, int] = {}
        for event in self.log.streams[batch.id]:
            for request_id, ids in vars(event).get("deal", ()):
                given[request_id] = given.get(request_id, 0) + sum(self.units[i] for i in ids)
        left = [[r, units - given.get(r, 0)] for r, units in batch.claims]
        return [[r, units] for r, units in left if units > 0]

    def claimed(self, request: MachineRequest) -> int:
        return sum(
            units
            for batch in self.batches
            for request_id, units in self.owed(batch)
            if request_id == request.identifier
        )

    def lack(self, request: MachineRequest) -> int:
        """Units that nobody was asked for; below none when machines have overshot its claims."""
        return request.machine_count - self.dealt(request) - self.claimed(request)

    def open_claims(self, claims: list[list[Any]]) -> list[list[Any]]:
        """The claims of requests that are open, less what others have overshot them by; behind
        them other open demand."""
        wanted = {r.identifier: self.lack(r) for r in self.requests if r.state == WANTED}
        first = [[r, units + min(0, wanted[r])] for r, units in claims if r in wanted]
        return first + [[r, more] for r, more in wanted.items() if more > 0]

    def fresh(self, weights: list[int]) -> list[dict[str, Any]]:
        first = len(self.units)
        found = [instance(first + n, units) for n, units in enumerate(weights)]
        self.units |= {i["machine_id"]: i["units"] for i in found}
        return found

    def outcome(self, batch: LaunchBatch) -> None:
        new = self.log.save(batch)
        for event in new:
            for request_id, ids in vars(event).get("deal", ()):
                self.given.setdefault(request_id, []).extend(ids)
        self.unheeded += new

    def pick(self, number: int, *states: str) -> LaunchBatch:
        found = [batch for batch in self.batches if batch.state in states]
        return found[number % len(found)]

    # -- what happens -----------------------------------------------------------------------------

    @initialize(units=st.lists(st.integers(1, 12), min_size=1, max_size=3))
    def begin(self, units: list[int]) -> None:
        for count in units:
            self.ask(count)

    @precondition(lambda self: len(self.requests) < 6)
    @rule(units=st.integers(1, 12))
    def ask(self, units: int) -> None:
        identifier = f"req-{len(self.requests):032x}"
        request = MachineRequest.ask(identifier, "awsinst", "T", "r", units, 300.0, "hostfactory")
        self.requests.append(request)
        self.log.save(request)

    @precondition(lambda self: any(r.state == WANTED and self.lack(r) > 0 for r in self.requests))
    @rule(most=st.integers(1, 12))
    def intend(self, most: int) -> None:
        """A batch over the open demand, at most so many units."""
        claims: list[list[Any]] = []
        for request in self.requests:
            units = min(most, self.lack(request)) if request.state == WANTED else 0
            if units > 0:
                claims.append([request.identifier, units])
                most -= units
        batch = LaunchBatch(LaunchBatch.stream(f"bat-{len(self.batches):032x}"))
        batch.intend(**intended(0, claims)[1])
        self.batches.append(batch)
        self.log.save(batch)

    @there_is(OPEN)
    @rule(number=st.integers(0, 20), weights=WEIGHTS)
    def accept(self, number: int, weights: list[int]) -> None:
        batch = self.pick(number, OPEN)
        found = self.fresh(weights)
        batch.accept("aws", found, self.open_claims(batch.claims), [], False, "", False)
        self.outcome(batch)

    @there_is(OPEN)
    @rule(number=st.integers(0, 20), weights=st.just([]) | WEIGHTS)
    def make_fleet(self, number: int, weights: list[int]) -> None:
        """It has launched some machines, or none yet, and goes on."""
        batch = self.pick(number, OPEN)
        found = self.fresh(weights)
        batch.accept("aws", found, self.open_claims(batch.claims), [], False, "fleet-1", True)
        fleet = self.fleets[batch.id] = Fleet(Fleet.stream(batch.identifier))
        asked = sum(units for _, units in batch.claims)
        fleet.create(**every_event()["FleetCreated"][1][1] | {"target": asked})
        self.log.save(fleet)
        self.outcome(batch)

    @there_is(FILLING)
    @rule(number=st.integers(0, 20), weights=WEIGHTS)
    def fill(self, number: int, weights: list[int]) -> None:
        """A fleet launches on."""
        batch = self.pick(number, FILLING)
        batch.settle(self.fresh(weights), self.open_claims(self.owed(batch)))
        self.outcome(batch)

    @there_is(FILLING)
    @rule(number=st.integers(0, 20))
    def close(self, number: int) -> None:
        """A fleet launches no more: its target is lowered, then its claims are given back."""
        batch = self.pick(number, FILLING)
        fleet = self.fleets[batch.id]
        kept = sum(self.units[i] for i in batch.machine_ids)
        fleet.intend_target(kept, 0, "nobody wants more")
        fleet.set_target()
        assert fleet.target == kept
        self.log.save(fleet)
        batch.close(self.owed(batch), [])
        assert self.owed(batch) == []
        self.outcome(batch)

    @rule(number=st.integers(0, 20))
    def delete_fleet(self, number: int) -> None:
        """Of a batch that is filled no more."""
        done = [b for b in self.batches if b.id in self.fleets and b.state != FILLING]
        if done:
            fleet = self.fleets[done[number % len(done)].id]
            fleet.intend_deletion("its last machine is gone")
            fleet.delete()
            self.log.save(fleet)

    @there_is(OPEN)
    @rule(number=st.integers(0, 20), definite=st.booleans())
    def reject(self, number: int, definite: bool) -> None:
        batch = self.pick(number, OPEN)
        batch.reject("Code", "message", definite, False)
        self.outcome(batch)

    @there_is(DOUBTFUL)
    @rule(number=st.integers(0, 20), weights=st.just([]) | WEIGHTS)
    def settle(self, number: int, weights: list[int]) -> None:
        batch = self.pick(number, DOUBTFUL)
        batch.settle(self.fresh(weights), self.open_claims(batch.claims))
        self.outcome(batch)

    @there_is(ACCEPTED, SETTLED, REJECTED, CLOSED)
    @rule(number=st.integers(0, 20), weights=WEIGHTS)
    def arrive_late(self, number: int, weights: list[int]) -> None:
        """A closed batch's machines turn up: its claims are closed, only open demand is left."""
        batch = self.pick(number, ACCEPTED, SETTLED, REJECTED, CLOSED)
        batch.settle(self.fresh(weights), self.open_claims([]))
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
            mine = {i: self.units[i] for i in owners if owners[i] == request.identifier}
            request.assign(event.originator_id, mine)
            self.log.save(request)
        for found in fields.get("instances", ()):
            identifier = found["machine_id"]
            machine = self.machines.setdefault(identifier, Machine(Machine.stream(identifier)))
            facts = launched(request_id=owners.get(identifier, ""))[1]
            machine.launch(**facts | {"units": found["units"]})
            self.log.save(machine)

    @rule(number=st.integers(0, 20))
    def cancel(self, number: int) -> None:
        if number < len(self.requests):
            request = self.requests[number]
            was = request.state
            try:
                request.cancel("not needed")
            except RequestIsFinal:
                assert was != WANTED
            self.log.save(request)

    @rule(number=st.integers(0, 20), succeeded=st.integers(0, 15))
    def finish(self, number: int, succeeded: int) -> None:
        """Only when nothing of it is under way, as the policy does."""
        if number < len(self.requests):
            request = self.requests[number]
            if not self.claimed(request):
                units = sum(self.units[i] for i in request.machine_ids)
                request.finish(min(succeeded, units), "why")
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
    def nobody_is_given_a_machine_who_has_enough(self) -> None:
        """Over by less than the last machine, over all batches together."""
        for request in self.requests:
            ids = self.given.get(request.identifier, [])
            assert set(request.machine_ids) <= set(ids)
            assert not ids or sum(self.units[i] for i in ids[:-1]) < request.machine_count

    @invariant()
    def what_is_assigned_counts_its_weights(self) -> None:
        for request in self.requests:
            told = [vars(event).get("units", 0) for event in self.log.streams[request.id]]
            assert sum(told) == sum(self.units[i] for i in request.machine_ids)

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
        everything = (self.requests, self.batches, self.fleets.values(), self.machines.values())
        for aggregates in everything:
            for aggregate in aggregates:
                self.log.check(aggregate)


TestSite = Site.TestCase
TestSite.settings = settings(max_examples=200, stateful_step_count=60)
