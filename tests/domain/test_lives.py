"""The lives of a batch, a machine, a fleet and a launch template, in any order hypothesis can
think of.

What holds after each step: what may happen once has happened once, an aggregate folded from its
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

from domain.fleet import DELETED, DELETING, LIVE, Fleet
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
from domain.launch_template import LaunchTemplate
from domain.machine import Machine
from tests.domain.log import Log
from tests.domain.samples import (
    BATCH,
    REQUEST,
    every_event,
    instance,
    intended,
    launched,
    machine_id,
)

WEIGHTS = st.lists(st.integers(1, 3), max_size=5)


class Batch(RuleBasedStateMachine):
    """One batch: whatever is answered in whatever order, it has one outcome for each epoch, and a
    fleet's is closed once."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.batch = LaunchBatch(LaunchBatch.stream(BATCH))
        self.epochs: list[int] = []
        self.was_settled = False
        self.next = 0

    def fresh(self, weights: list[int]) -> list[dict[str, Any]]:
        self.next += len(weights)
        first = self.next - len(weights)
        return [instance(first + n, units) for n, units in enumerate(weights)]

    @initialize(so_far=st.sampled_from(["nothing", "open", "accepted", "filling"]), weights=WEIGHTS)
    def begin(self, so_far: str, weights: list[int]) -> None:
        """By chance alone few lives would come so far."""
        if so_far != "nothing":
            self.intend(0)
        if so_far in ("accepted", "filling"):
            self.accept(weights, [2, 1], so_far == "filling")

    @rule(skip=st.just(0) | st.integers(-2, 2))
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

    @rule(weights=WEIGHTS, claims=st.lists(st.integers(0, 5), max_size=3), filling=st.booleans())
    def accept(self, weights: list[int], claims: list[int], filling: bool) -> None:
        was = self.batch.state
        found = self.fresh(weights)
        open_claims: list[list[Any]] = [[f"r{n}", units] for n, units in enumerate(claims)]
        fleet_id = "fleet-1" if filling else ""
        self.batch.accept("aws", found, open_claims, [], False, fleet_id, filling)
        new = self.log.save(self.batch)
        assert len(new) == (was == OPEN)
        if new:
            assert self.batch.state == (FILLING if filling else ACCEPTED)
            asked = sum(units for _, units in self.batch.claims)
            assert vars(new[0])["missing"] == (0 if filling else max(0, asked - sum(weights)))

    @rule(definite=st.booleans(), gives_up=st.booleans())
    def reject(self, definite: bool, gives_up: bool) -> None:
        was = self.batch.state
        self.batch.reject("Code", "message", definite, gives_up)
        assert len(self.log.save(self.batch)) == (was == OPEN)
        if was == OPEN:
            assert self.batch.state == (REJECTED if definite else DOUBTFUL)

    @rule(known=st.integers(0, 5), weights=WEIGHTS, claims=st.integers(0, 8))
    def settle(self, known: int, weights: list[int], claims: int) -> None:
        was = self.batch.state
        if not was:
            return
        seen = [instance(int(i[2:], 16)) for i in sorted(self.batch.machine_ids)[:known]]
        self.batch.settle([*seen, *self.fresh(weights)], [["r0", claims]])
        new = self.log.save(self.batch)
        assert len(new) == (was in (OPEN, DOUBTFUL) or bool(weights))
        if new:
            assert self.batch.state == (FILLING if was == FILLING else SETTLED)
            self.was_settled = True

    @rule(claims=st.integers(0, 4))
    def close(self, claims: int) -> None:
        was = self.batch.state
        self.batch.close([["r0", claims]], [])
        assert len(self.log.save(self.batch)) == (was == FILLING)
        assert self.batch.state == (CLOSED if was == FILLING else was)

    @invariant()
    def replay_equals_live(self) -> None:
        self.log.check(self.batch)

    @invariant()
    def epochs_follow_each_other(self) -> None:
        assert self.epochs == list(range(len(self.epochs)))
        assert not self.was_settled or self.batch.state in (SETTLED, FILLING, CLOSED)

    @invariant()
    def a_fleet_fills_until_it_is_closed_for_good(self) -> None:
        topics = [event.TOPIC for event in self.log.streams.get(self.batch.id, [])]
        assert topics.count("LaunchAccepted") <= 1
        assert topics.count("LaunchClosed") <= 1
        if "LaunchClosed" in topics:
            after = topics[topics.index("LaunchClosed") + 1 :]
            assert set(after) <= {"LaunchSettled"}

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
        kind=st.sampled_from(["rebalance", "spot"]),
    )
    def tell(self, what: str, number: int, kind: str) -> None:
        arguments: dict[str, tuple[Any, ...]] = {
            "run": ("name", "10.0.0.1", number),
            "interrupt": (kind, number),
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
        for told in (self.machine.returns, self.machine.interruptions):
            assert len(told) == len(set(told))


class OneFleet(RuleBasedStateMachine):
    """One fleet: made once, its target what AWS took of what was intended, deleted once."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.fleet = Fleet(Fleet.stream(BATCH))
        self.under_way: list[int] = []

    @initialize(is_there=st.booleans())
    def begin(self, is_there: bool) -> None:
        if is_there:
            self.create()

    def save(self, expected: bool) -> None:
        assert len(self.log.save(self.fleet)) == expected

    @rule()
    def create(self) -> None:
        was = self.fleet.state
        self.fleet.create(**every_event()["FleetCreated"][1][1])
        self.save(not was)

    @rule(units=st.integers(0, 5), on_demand=st.integers(0, 5))
    def intend_target(self, units: int, on_demand: int) -> None:
        lives = self.fleet.state == LIVE
        self.fleet.intend_target(units, on_demand, "why")
        self.save(lives)
        if lives:
            self.under_way = [units]

    @rule()
    def set_target(self) -> None:
        before = self.fleet.target
        self.fleet.set_target()
        self.save(bool(self.under_way))
        assert self.fleet.target == (self.under_way.pop() if self.under_way else before)

    @rule()
    def intend_deletion(self) -> None:
        lives = self.fleet.state == LIVE
        self.fleet.intend_deletion("why")
        self.save(lives)
        if lives:
            self.under_way = []

    @rule()
    def delete(self) -> None:
        was = self.fleet.state
        self.fleet.delete()
        self.save(was == DELETING)
        assert self.fleet.state == (DELETED if was == DELETING else was)

    @invariant()
    def replay_equals_live(self) -> None:
        self.log.check(self.fleet)

    @invariant()
    def what_is_to_go_does_nothing_else(self) -> None:
        topics = [event.TOPIC for event in self.log.streams.get(self.fleet.id, [])]
        assert topics.count("FleetCreated") == bool(topics)
        if "FleetDeletionIntended" in topics:
            after = topics[topics.index("FleetDeletionIntended") + 1 :]
            assert after in ([], ["FleetDeleted"])


class OneLaunchTemplate(RuleBasedStateMachine):
    """One launch template: one outcome for each epoch, and never made while it may be there."""

    FACTS = {k: v for k, v in every_event()["LaunchTemplateIntended"][1][1].items() if k != "epoch"}

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        key = LaunchTemplate.key("default", "us-east-1", "name")
        self.template = LaunchTemplate(LaunchTemplate.stream(key))

    @rule(what=st.sampled_from(["intend", "create", "reject", "miss", "intend_deletion", "delete"]))
    def tell(self, what: str) -> None:
        arguments = {
            "create": ("lt-1",),
            "reject": ("Code", "message"),
            "intend_deletion": ("unused",),
        }
        if what == "intend":
            self.template.intend(**self.FACTS)
        else:
            getattr(self.template, what)(*arguments.get(what, ()))
        assert len(self.log.save(self.template)) <= 1

    @invariant()
    def replay_equals_live(self) -> None:
        self.log.check(self.template)

    @invariant()
    def each_epoch_is_one_life(self) -> None:
        epochs: list[int] = []
        life: list[str] = []
        for event in self.log.streams.get(self.template.id, []):
            if event.TOPIC == "LaunchTemplateIntended":
                assert not epochs or life[-1] in ("Rejected", "Missed", "Deleted")
                epochs.append(vars(event)["epoch"])
                life = []
            else:
                life.append(event.TOPIC.removeprefix("LaunchTemplate"))
                assert life in (
                    ["Rejected"],
                    ["Created"],
                    ["Created", "Missed"],
                    ["Created", "Missed", "DeletionIntended"],
                    ["Created", "Missed", "DeletionIntended", "Deleted"],
                    ["Created", "DeletionIntended"],
                    ["Created", "DeletionIntended", "Deleted"],
                    ["DeletionIntended"],
                    ["DeletionIntended", "Deleted"],
                )
        assert epochs == list(range(len(epochs)))


TestBatch = Batch.TestCase
TestOneMachine = OneMachine.TestCase
TestOneFleet = OneFleet.TestCase
TestOneLaunchTemplate = OneLaunchTemplate.TestCase
TestBatch.settings = TestOneMachine.settings = settings(max_examples=100, stateful_step_count=40)
TestOneFleet.settings = TestOneLaunchTemplate.settings = TestBatch.settings
