"""What the DynamoDB store makes of DynamoDB's promises and failures, on its stand-in.

That it keeps a store's promises is asked in `tests/contracts`; here are the limits, the answers
that are lost, and what each question costs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from application import crash_points
from application.crash_points import Crash
from application.failures import (
    AlreadyTracked,
    Conflict,
    LogDamaged,
    ProjectionFailed,
    StoreBusy,
    StoreError,
    StoreInert,
)
from application.json_text import loads
from application.projections import PROJECTIONS
from domain.machine import Machine
from domain.machine_request import MachineRequest
from domain.return_request import ReturnRequest
from infrastructure.aws.iam_policy import store_policy
from infrastructure.event_store import dynamodb_client, dynamodb_http
from infrastructure.event_store.dynamodb_client import LOG, Tables
from infrastructure.event_store.dynamodb_log import read_head, read_log
from infrastructure.sandbox.dynamodb import DynamoDb
from infrastructure.settings.storage import Storage as StorageSettings
from infrastructure.site import Site
from infrastructure.storage.dynamodb import DynamodbStorage
from tests.fakes.clock import FakeClock

ACTOR = {"user": "test", "process": "test"}


class Stand:
    """A store on a stand-in in this process; `storage` opens it as one more machine would."""

    def __init__(self, root: str, **options: Any) -> None:
        self.clock = FakeClock()
        self.dynamodb = DynamoDb(lambda: self.clock.wall, **options)
        self._root = root
        self._machines = 0

    def storage(self, prefix: str = "t", **section: Any) -> DynamodbStorage:
        self._machines += 1
        site = Site("awsinst", "/", f"{self._root}/{self._machines}", "")
        keys = {"table_prefix": prefix, "region": "us-east-1", **section}
        settings = StorageSettings.model_validate(
            {"strategy": "dynamodb", "dynamodb_strategy": keys}
        ).model_dump(mode="json")
        storage = DynamodbStorage(site, {"storage": settings})
        generator = random.Random(self._machines)
        storage._tables(self.clock).random = generator.randbytes
        return storage

    def store(self) -> Any:
        return self.storage().event_store(self.clock, ACTOR)

    def model(self) -> Any:
        return self.storage().read_model()

    def log(self) -> list[list[Any]]:
        tables = self.storage()._tables(self.clock)
        return [event for commit in read_log(tables, 0, read_head(tables).pos) for event in commit]


@contextmanager
def attached(stand: Stand) -> Iterator[Stand]:
    """Within: every client that is made calls this stand-in; it has an empty store."""
    dynamodb_http.in_process = stand.dynamodb.exchange
    try:
        stand.storage().create(stand.clock, ACTOR, "0.1.0")
        stand.dynamodb.calls.clear()
        yield stand
    finally:
        dynamodb_http.in_process = None


@pytest.fixture
def stand(tmp_path: Any) -> Iterator[Stand]:
    with attached(Stand(str(tmp_path))) as made:
        yield made


@pytest.fixture
def crash() -> Iterator[Callable[[str], None]]:
    """Ends a commit at a point, as a kill would."""

    def die(name: str) -> None:
        raise Crash(name)

    before, crash_points.die = crash_points.die, die
    yield crash_points.crash_at
    crash_points.die = before
    crash_points.crash_at("")


def request(name: str, machines: int = 1) -> MachineRequest:
    return MachineRequest.ask(f"req-{name}", "awsinst", "T", "4f53", machines, 300.0, "hostfactory")


def machine_id(number: int) -> str:
    return f"i-{number:017x}"


def launch(store: Any, request_id: str, numbers: range) -> None:
    """Machines of a request, in the commits that the policy makes of them."""
    asked = store.get(MachineRequest, request_id)
    for start in range(numbers.start, numbers.stop, 30):
        some = range(start, min(start + 30, numbers.stop))
        ids = [machine_id(number) for number in some]
        asked.assign("bat-1", dict.fromkeys(ids, 1))
        store.save(asked, *(launched(request_id, number) for number in some))


def launched(request_id: str, number: int) -> Machine:
    machine = Machine(Machine.stream(machine_id(number)))
    machine.launch(
        request_id=request_id,
        batch_id="bat-1",
        provider="awsinst",
        template_id="T",
        revision="4f53",
        account="default",
        region="us-east-1",
        zone="us-east-1a",
        instance_type="c5.large",
        price_type="ondemand",
        name=f"host-{number}",
        private_ip_address="10.0.0.1",
        launch_time=1_800_000_000,
        units=1,
    )
    return machine


# -- answers that are lost, throttles, conflicts ---------------------------------------------------


@pytest.mark.parametrize("kind", ["lost_response", "slow", "reset_before", "hang"])
def test_a_lost_answer_is_no_conflict(stand: Stand, kind: str) -> None:
    """Sent again with the same token, whether it was done or not: recorded once."""
    store = stand.store()
    stand.dynamodb.add_fault(kind, action="TransactWriteItems")
    store.save(request("a"), command=("cmd-1", "req-a"))
    assert [event[2] for event in stand.log()[1:]] == ["request-req-a"]
    assert stand.dynamodb.counts["TransactWriteItems"] >= 2


def test_an_answer_lost_for_longer_than_a_token_lasts(stand: Stand) -> None:
    """The token is forgotten after ten minutes and the head has moved: our own event ids in the
    log tell that it was recorded."""
    store = stand.store()
    stand.dynamodb.add_fault("lost_response", action="TransactWriteItems")
    sleep = stand.clock.sleep

    def long_pause(seconds: float) -> None:
        sleep(seconds)
        stand.clock.wall += 700  # the boot clock, which bounds our patience, does not see it

    stand.clock.sleep = long_pause  # type: ignore[method-assign]
    store.save(request("a"), command=("cmd-1", "req-a"))
    assert [event[2] for event in stand.log()[1:]] == ["request-req-a"]


def test_never_answered(stand: Stand) -> None:
    """It ends, says that it is not known, and what was done is found by who asks."""
    store = stand.store()
    stand.dynamodb.add_fault("hang", action="*", times=-1)
    with pytest.raises(StoreBusy, match="t did not answer for 10 s"):
        store.save(request("a"))
    stand.dynamodb.clear_faults()
    assert len(stand.log()) == 1


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("throttle", {}),
        ("e500", {}),
        ("e503", {}),
        ("cancelled", {"reasons": ["TransactionConflict"]}),
        ("cancelled", {"reasons": ["None", "ThrottlingError"]}),
    ],
)
def test_what_passes_is_tried_again(stand: Stand, fault: str, options: Any) -> None:
    store = stand.store()
    stand.dynamodb.add_fault(fault, action="TransactWriteItems", times=4, **options)
    store.save(request("a"))
    assert len(stand.log()) == 2


def test_a_throttle_without_end_is_told(stand: Stand) -> None:
    store = stand.store()
    stand.dynamodb.add_fault("throttle", action="TransactWriteItems", times=-1)
    began = stand.clock.seconds
    with pytest.raises(StoreBusy, match=r"dynamodb://us-east-1/t .*nothing was recorded"):
        store.save(request("a"))
    assert 9 < stand.clock.seconds - began < 13


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDeniedException", "iam-policy --for dynamodb"),
        ("ExpiredTokenException", "renew the credentials"),
        ("InvalidSignatureException", "this machine's clock"),
        ("ResourceNotFoundException", "store init"),
    ],
)
def test_what_does_not_pass_is_told_once(stand: Stand, code: str, says: str) -> None:
    """One message with the store, the cause and the next step; no second try."""
    store = stand.store()
    before = stand.dynamodb.counts["GetItem"]
    stand.dynamodb.add_fault("error", action="GetItem", code=code, times=-1)
    with pytest.raises(StoreError, match=says) as told:
        store.save(request("a"))
    assert "dynamodb://us-east-1/t" in str(told.value)
    assert stand.dynamodb.counts["GetItem"] == before + 1


def test_credentials_that_were_renewed_meanwhile(stand: Stand, tmp_path: Any) -> None:
    """The site writes its file anew: a worker that runs goes on with them."""
    file = tmp_path / "credentials"
    text = "[site]\naws_access_key_id = {}\naws_secret_access_key = s\n"
    file.write_text(text.format("old"))
    storage = stand.storage()
    place = storage._tables(stand.clock).place
    place.update(profile="site", credential_file=str(file))
    store = storage.event_store(stand.clock, ACTOR)
    file.write_text(text.format("new"))
    stand.dynamodb.add_fault("error", action="GetItem", code="ExpiredTokenException")
    store.save(request("a"))
    assert len(stand.log()) == 2


def test_another_commit_came_first(stand: Stand) -> None:
    """Between our look at the head and our write: the loaded aggregate is kept, only the head and
    the rows are read again."""
    one, other = stand.store(), stand.store()
    one.save(request("a"))
    asked = one.get(MachineRequest, "req-a")
    asked.cancel("no longer needed")
    read = stand.dynamodb.counts["Query"]
    raced: list[int] = []

    def race(_: Any) -> bool:
        if not raced:
            raced.append(1)
            other.save(request("b"))
        return False

    stand.dynamodb.add_fault("throttle", action="TransactWriteItems", where=race, times=-1)
    one.save(asked)
    assert [event[2] for event in stand.log()[1:]] == [
        "request-req-a", "request-req-b", "request-req-a",
    ]  # fmt: skip
    # Its version was asked for twice; the stream was not loaded again.
    assert stand.dynamodb.counts["Query"] - read == 2 + 1


def test_jitter_comes_from_the_store_s_own_random(stand: Stand) -> None:
    """Two machines that met do not meet again, and a test knows when they come."""
    waits: list[list[float]] = []
    sleep = FakeClock.sleep
    for _ in range(2):
        store = stand.store()
        told: list[float] = []
        stand.clock.sleep = (  # type: ignore[method-assign]
            lambda seconds, told=told: (told.append(seconds), sleep(stand.clock, seconds))[1]
        )
        stand.dynamodb.add_fault("throttle", action="TransactWriteItems", times=5)
        store.save(request(str(len(waits))))
        waits.append(told)
    assert len(waits[0]) == len(waits[1]) == 5
    assert waits[0] != waits[1]


# -- limits ----------------------------------------------------------------------------------------


def test_a_policy_s_commit_is_one_transaction(stand: Stand) -> None:
    """30 machines and their request, with read rows, tracking and fence: within 100 items."""
    store = stand.store()
    lease = stand.storage().lease(store, "default/us-east-1", "w", "0.1.0", stand.clock, 60.0, "l")
    lease._lock_path = stand._root + "/lock"
    assert lease.acquire()
    store.save(request("a", 30))
    asked = store.get(MachineRequest, "req-a")
    asked.assign("bat-1", {machine_id(n): 1 for n in range(30)})
    stand.dynamodb.calls.clear()
    store.save(
        asked,
        *(launched("req-a", number) for number in range(30)),
        tracking=("assigning", 3),
        fence=lease.fence,
    )
    sent = [c for c in stand.dynamodb.calls if c.action == "TransactWriteItems"]
    assert [call.items for call in sent] == [96 - 1]
    assert stand.model().machines_of("req-a", "request", "running").count("machineId") == 30


@pytest.mark.parametrize("count", [1000, 10_000])
def test_a_request_of_many_machines(stand: Stand, count: int) -> None:
    """Requested, launched, returned in one command, answered at every step."""
    store = stand.store()
    store.mirror()
    store.save(request("a", count))
    launch(store, "req-a", range(count))
    model = stand.model()
    assert model.machines_of("req-a", "request", "running").count("machineId") == count
    assert len(model.healthy_machines()) == count
    ids = [machine_id(number) for number in range(count)]
    calling, _ = stand.storage().for_command(stand.clock, ACTOR)
    returned = ReturnRequest.hand_back("ret-a", "awsinst", ids, [], "returned", "hostfactory")
    calling.save(returned, command=("ret-a", "ret-a"))
    model = stand.model()
    assert model.request("ret-a")[:3] == ("return", "running", 0)
    answer = loads(f"[{model.machines_of('ret-a', 'return', 'running')}]")
    assert [machine["machineId"] for machine in answer] == ids
    assert store.changes()
    owed = store.connection.execute("SELECT count(*) FROM machines WHERE owed <> ''").fetchone()
    assert owed == (count,)
    assert not [i for i in stand.dynamodb.items("t-log") if i["PK"]["S"].startswith("W#")]


def test_killed_between_the_commit_and_its_rows(stand: Stand, crash: Callable[[str], None]) -> None:
    """The rows wait: nobody is told "unknown", and whoever commits next writes them first."""
    store = stand.store()
    store.save(request("a", 90))
    launch(store, "req-a", range(90))
    ids = [machine_id(number) for number in range(90)]
    returned = ReturnRequest.hand_back("ret-a", "awsinst", ids, [], "returned", "hostfactory")
    crash("commit.MachinesReturned.after")
    with pytest.raises(Crash):
        store.save(returned)
    crash("")

    model = stand.model()
    assert model.request("ret-a") is None
    assert model.is_in_log("ret-a")
    assert stand.storage().queries().facts()["waiting"] > 180
    stand.store().save(request("b"))
    model = stand.model()
    assert model.request("ret-a")[:2] == ("return", "running")
    assert model.machines_of("ret-a", "return", "running").count("machineId") == 90
    assert stand.storage().queries().facts()["waiting"] == 0


def test_rows_that_wait_are_written_by_one_of_two(stand: Stand) -> None:
    """Who was paused while writing them cannot put old rows over new ones."""
    store = stand.store()
    store.save(request("a", 90))
    launch(store, "req-a", range(90))
    ids = [machine_id(number) for number in range(90)]
    paused: list[int] = []

    def meanwhile(asked: dict[str, Any]) -> bool:
        first = asked["TransactItems"][0]
        if "ConditionCheck" in first and not paused:
            paused.append(1)
            other = stand.store()
            other.changes()  # writes the rows
            machine = other.get(Machine, machine_id(0))
            machine.terminate("ended")
            other.save(machine)
        return False

    stand.dynamodb.add_fault("throttle", action="TransactWriteItems", where=meanwhile, times=-1)
    store.save(ReturnRequest.hand_back("ret-a", "awsinst", ids, [], "returned", "hostfactory"))
    assert paused
    assert machine_id(0) not in stand.model().healthy_machines()
    assert stand.model().known([machine_id(0)]) == {machine_id(0): "host-0"}


def test_more_than_an_item_takes_is_refused(stand: Stand) -> None:
    store = stand.store()
    noise = random.Random(1).randbytes(400_000).hex()
    with pytest.raises(StoreError, match="compressed"):
        store.append([("odd-1", 1, "Odd", 1, f'{{"a":"{noise}"}}', None)])
    with pytest.raises(StoreError, match="more than a transaction takes"):
        store.append([(f"odd-{n}", 1, "Odd", 1, "{}", None) for n in range(120)])
    assert len(stand.log()) == 1


def test_a_command_asks_each_thing_once(stand: Stand) -> None:
    """The store's head and whether it is ours, the head that it commits to, the rows that change;
    what there is to do afterwards is in the head that it wrote."""
    store, model = stand.storage().for_command(stand.clock, ACTOR)
    assert not model.anything_open_or_alive()
    store.save(request("a"))
    assert model.anything_open_or_alive()
    assert [call.action for call in stand.dynamodb.calls] == [
        "GetItem", "DescribeTable", "GetItem", "BatchGetItem", "GetItem", "TransactWriteItems",
    ]  # fmt: skip


# -- reading ---------------------------------------------------------------------------------------


def test_reads_are_right_where_only_consistent_ones_are(tmp_path: Any) -> None:
    """Every read asks for consistency: with a stand-in whose other reads are always behind, and
    indexes that never follow, nothing is missed; and none scans or uses an index."""
    with attached(Stand(str(tmp_path), stale_reads=True, index_lag=1e9)) as stand:
        store = stand.store()
        store.save(request("a", 3))
        launch(store, "req-a", range(3))
        model = stand.model()
        assert model.request("req-a")[0] == "request"
        assert len(model.healthy_machines()) == 3
        assert model.anything_open_or_alive() and model.anything_alive()
        assert model.oldest_open() is not None
        assert model.ids_by_name(["host-1", "host-9"]) == {"host-1": machine_id(1)}
        machine = store.get(Machine, machine_id(1))
        machine.terminate("ended")
        store.save(machine)
        model = stand.model()
        assert model.ids_by_name(["host-1"]) == {"host-1": machine_id(1)}
        assert model.known([machine_id(1), "i-0"]) == {machine_id(1): "host-1"}
        assert machine_id(1) not in model.healthy_machines()
    reads = [c for c in stand.dynamodb.calls if c.action in ("GetItem", "Query", "BatchGetItem")]
    assert reads and all(call.consistent for call in reads)
    assert not [c for c in stand.dynamodb.calls if c.action == "Scan" or c.index]


def test_a_status_reads_as_many_items_whatever_is_stored(stand: Stand) -> None:
    """By calls and capacity units, of a request of five machines."""
    store = stand.store()
    store.mirror()
    store.save(request("a", 5))
    launch(store, "req-a", range(5))
    costs = []
    for events in (1000, 20_000):
        have = read_head(store.tables).pos
        while have < events:
            number = min(1000, events - have)
            records = [
                (f"filler-{have + n // 20}", n % 20 + 1, "Filler", 1, "{}", None)
                for n in range(number)
            ]
            store.append(records)
            have += number
        stand.dynamodb.calls.clear()
        model = stand.model()
        assert model.request("req-a") is not None
        assert model.machines_of("req-a", "request", "running").count("machineId") == 5
        assert model.anything_open_or_alive()
        costs.append([(call.action, call.units) for call in stand.dynamodb.calls])
    assert costs[0] == costs[1]


def test_the_mirror_follows_the_whole_log_in_pages(stand: Stand) -> None:
    """Over buckets, and commits that begin in one and end in the next."""
    store = stand.store()
    for start in range(0, 2500, 70):
        records = [
            (f"filler-{start}", n + 1, "Filler", 1, f'{{"n":{start + n}}}', None) for n in range(70)
        ]
        store.append(records)
    stand.dynamodb.page_size = 2000
    rows = stand.store().connection.execute("SELECT position FROM events ORDER BY position")
    assert [position for (position,) in rows] == list(range(1, read_head(store.tables).pos + 1))


def test_an_item_taken_out_of_the_log_is_noticed(stand: Stand) -> None:
    store = stand.store()
    for name in "abc":
        store.save(request(name))
    tables = store.tables
    tables.delete_all([(LOG, "L#0#0000000000", f"{3:012d}")])
    with pytest.raises(LogDamaged, match="event 3 is not in the log"):
        stand.storage().log()


def change_head(tables: Tables, pos: int, facts: dict[str, Any]) -> None:
    head = read_head(tables)
    head.pos = pos
    head.facts.update(facts)
    tables.put(LOG, head.item())


def test_a_head_that_was_cut_back_is_noticed(stand: Stand) -> None:
    """Nothing is written over the events behind it."""
    store = stand.store()
    store.save(request("a"))
    before = read_head(store.tables)
    store.save(request("b"))
    change_head(store.tables, before.pos, before.facts)
    with pytest.raises(LogDamaged, match="the head was changed"):
        stand.store().save(request("c"))
    change_head(store.tables, 99, {})
    with pytest.raises(LogDamaged, match="at or after position 99"):
        stand.store().save(request("c"))


def test_a_log_that_was_cut_back_is_noticed_by_who_read_more(stand: Stand) -> None:
    """Head and last items together, so that what is left is whole."""
    storage = stand.storage()
    store = storage.event_store(stand.clock, ACTOR)
    store.save(request("a"))
    before = read_head(store.tables)
    store.mirror()
    store.save(request("b"))
    store.tables.delete_all(
        [(LOG, "L#0#0000000000", f"{3:012d}"), (LOG, "S#request-req-b", "C#0000000001")]
    )
    change_head(store.tables, before.pos, before.facts)
    with pytest.raises(StoreError, match="event 3 was read from it before"):
        storage.log()


def test_a_changed_last_event_is_noticed(stand: Stand) -> None:
    store = stand.store()
    store.save(request("a"))
    (item,) = [i for i in stand.dynamodb.items("t-log") if i["PK"]["S"] == "S#request-req-a"]
    changed = item["events"]["S"].replace("hostfactory", "somebody__")
    store.tables.put(LOG, {**item, "events": {"S": changed}})
    with pytest.raises(LogDamaged, match="position 2"):
        stand.store().save(request("b"))


def test_a_mirror_that_is_damaged_is_made_anew(stand: Stand) -> None:
    storage = stand.storage()
    store = storage.event_store(stand.clock, ACTOR)
    store.save(request("a"))
    path = store.mirror().path
    store.close()
    with open(path, "r+b") as file:
        file.write(b"\0" * 4096)
    with_log = storage.log()
    assert len(with_log.events_after(0, 10)) == 2


def test_a_projection_that_fails_stops_alone(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("no such thing")

    monkeypatch.setitem(PROJECTIONS["requests"], "MachinesRequested", fail)
    store = stand.store()
    store.save(request("a"))
    monkeypatch.undo()
    with pytest.raises(ProjectionFailed, match="requests stopped at position 2"):
        stand.model()
    with pytest.raises(ProjectionFailed):
        store.refuse_failed_projections()
    assert len(stand.log()) == 2


# -- making and restoring --------------------------------------------------------------------------


def test_tables_are_made_as_the_site_says(stand: Stand) -> None:
    scaling = {
        "enabled": True,
        "target_utilization": 60,
        "min_read_capacity": 7,
        "max_read_capacity": 70,
        "min_write_capacity": 8,
        "max_write_capacity": 77,
    }
    storage = stand.storage("p", billing_mode="PROVISIONED", auto_scaling=scaling)
    storage.create(stand.clock, ACTOR, "0.1.0")
    assert storage.warnings == []
    tables = storage._tables(stand.clock)
    for suffix in dynamodb_client.TABLES:
        name = tables.table(suffix)
        table = tables.call("DescribeTable", TableName=name)["Table"]
        assert table["DeletionProtectionEnabled"]
        assert table["ProvisionedThroughput"]["ReadCapacityUnits"] == 7
        assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 8
        backups = tables.call("DescribeContinuousBackups", TableName=name)
        pitr = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
        assert pitr["PointInTimeRecoveryStatus"] == "ENABLED"
        assert "GlobalSecondaryIndexes" not in table
    targets = tables.call(
        "DescribeScalableTargets", "application-autoscaling", ServiceNamespace="dynamodb"
    )["ScalableTargets"]
    assert len(targets) == 10
    bounds = {(t["ScalableDimension"], t["MinCapacity"], t["MaxCapacity"]) for t in targets}
    assert bounds == {
        ("dynamodb:table:ReadCapacityUnits", 7, 70),
        ("dynamodb:table:WriteCapacityUnits", 8, 77),
    }
    policies = tables.call(
        "DescribeScalingPolicies", "application-autoscaling", ServiceNamespace="dynamodb"
    )["ScalingPolicies"]
    assert len(policies) == 10
    tracked = [p["TargetTrackingScalingPolicyConfiguration"] for p in policies]
    assert {policy["TargetValue"] for policy in tracked} == {60}
    on_demand = stand.storage("q", auto_scaling=scaling)
    on_demand.create(stand.clock, ACTOR, "0.1.0")
    assert "PAY_PER_REQUEST" in on_demand.warnings[0]


def test_the_printed_policy_permits_what_is_called(stand: Stand, tmp_path: Any) -> None:
    """And nothing besides: of `store init`, of the calls and of the worker."""
    scaling = {"enabled": True}
    storage = stand.storage("p", billing_mode="PROVISIONED", auto_scaling=scaling)
    storage.create(stand.clock, ACTOR, "0.1.0")
    store = stand.store()
    lease, _ = lease_of(stand, "boot-one", tmp_path)
    assert lease.acquire()
    lease.release()
    store.save(request("a", 90), bodies={"d": b"x"}, fence=None)
    launch(store, "req-a", range(90))
    ids = [machine_id(number) for number in range(90)]
    store.save(ReturnRequest.hand_back("ret-a", "awsinst", ids, [], "returned", "hostfactory"))
    stand.model().machines_of("ret-a", "return", "running")
    stand.storage().activate(stand.clock, ACTOR, "a drill")
    inside = {"TransactWriteItems": {"PutItem", "DeleteItem", "ConditionCheckItem"}}
    called = set()
    for call in stand.dynamodb.calls:
        called |= {f"{call.service}:{one}" for one in inside.get(call.action, {call.action})}
    document = store_policy("us-east-1", ["t-log"], True)
    permitted = {action for s in document["Statement"] for action in s["Action"]}
    asked_besides = {
        "iam:CreateServiceLinkedRole",
        "dynamodb:TagResource",  # by CreateTable with tags
        "dynamodb:DescribeContinuousBackups",  # by UpdateContinuousBackups
        "dynamodb:Scan",  # by `projections rebuild` and `verify`
    }
    assert called == permitted - asked_besides


def test_an_interrupted_init_is_run_again(stand: Stand) -> None:
    """Killed after any of its calls, at most the second run makes the store whole."""
    for number, call in enumerate(("CreateTable", "UpdateContinuousBackups", "PutItem")):
        prefix = f"again{number}"
        fault = stand.dynamodb.add_fault("error", action=call, from_call=1, code="Broken")
        with pytest.raises(StoreError, match="Broken"):
            stand.storage(prefix).create(stand.clock, ACTOR, "0.1.0")
        assert fault.fired
        stand.dynamodb.clear_faults()
        assert stand.storage(prefix).create(stand.clock, ACTOR, "0.1.0")


def test_a_restored_log_is_inert_and_brought_to_life_alone(stand: Stand) -> None:
    """Of a backup only the log's table is restored, under whatever name; `store activate` makes the
    read tables anew and fills them."""
    store = stand.store()
    store.save(request("a", 2), command=("cmd-1", "req-a"))
    launch(store, "req-a", range(2))
    restored = stand.storage("r")
    tables = restored._tables(stand.clock)
    from infrastructure.event_store.dynamodb_setup import create_tables

    create_tables(tables, restored._section, (LOG,))
    tables.put_all([(LOG, item) for item in stand.dynamodb.items("t-log")])
    for look in (restored.read_model, restored.log, restored.check):
        with pytest.raises(StoreInert, match="store activate"):
            look()
    assert restored.activate(stand.clock, ACTOR, "a drill") == 2
    model = restored.read_model()
    assert model.request("req-a")[0] == "request"
    assert model.machines_of("req-a", "request", "running").count("machineId") == 2
    assert model.healthy_machines() == {machine_id(0), machine_id(1)}
    again = restored.event_store(stand.clock, ACTOR)
    assert again.command_result("cmd-1") == "req-a"
    with pytest.raises(Conflict):
        again.save(request("b"), command=("cmd-1", "req-b"))
    assert len(stand.log()) == 4 + 1


def test_a_table_made_anew_under_the_same_name_is_a_copy(stand: Stand) -> None:
    """Point-in-time recovery after a deletion gives the name again, not the table's id."""
    items = stand.dynamodb.items("t-log")
    tables = stand.storage()._tables(stand.clock)
    name = tables.table(LOG)
    tables.call("UpdateTable", TableName=name, DeletionProtectionEnabled=False)
    tables.call("DeleteTable", TableName=name)
    stand.clock.advance(1)
    from infrastructure.event_store.dynamodb_setup import create_tables

    create_tables(tables, stand.storage()._section, (LOG,))
    tables.put_all([(LOG, item) for item in items])
    with pytest.raises(StoreInert, match="store activate"):
        stand.store()


# -- several machines ------------------------------------------------------------------------------


def lease_of(stand: Stand, boot_id: str, root: Any) -> tuple[Any, FakeClock]:
    """A lease of another machine, whose boot clock has nothing to do with ours."""
    clock = FakeClock(boot_id=boot_id)
    clock.seconds = float(len(boot_id) * 1_000_003)
    storage = stand.storage()
    store = storage.event_store(clock, ACTOR)
    lock = f"{root}/{boot_id}.lock"
    return storage.lease(store, "default/us-east-1", boot_id, "0.1.0", clock, 60.0, lock), clock


def test_a_lease_is_taken_from_another_machine_after_a_lease_time_of_watching(
    stand: Stand, tmp_path: Any
) -> None:
    """By the watcher's clock alone, whatever either wall clock says; a renewal begins it anew; who
    was paused cannot renew."""
    first, one = lease_of(stand, "boot-one", tmp_path)
    second, two = lease_of(stand, "boot-another", tmp_path)
    assert first.acquire()
    assert first.since_another() == float("inf")
    assert not second.acquire()
    two.advance(59)
    one.advance(59)
    assert first.renew()
    two.step_wall(7200)
    assert not second.acquire()
    two.advance(59)
    assert not second.acquire()
    two.advance(1.5)
    assert second.acquire()
    assert second.since_another() == 0.0
    assert second.number == first.number + 1
    assert not first.renew()
    assert first.remaining() < 0
    two.advance(10)
    second.release()
    third, three = lease_of(stand, "boot-another", tmp_path)
    three.seconds = two.seconds + 5
    assert third.acquire()
    assert third.since_another() == 15
    third.release()
    assert first.acquire()
    assert first.since_another() == 0, "told by a clock that is not its own"
    one.advance(60)
    first.release()
    assert first.acquire()
    assert first.since_another() == float("inf")


def test_two_sites_on_one_machine_do_not_take_each_other_for_dead(stand: Stand) -> None:
    """Two provider instances, or containers: one clock, a lock file each. Only who has the holder's
    own lock file knows that it died; a call of the other need not start a worker meanwhile."""

    def site() -> tuple[Any, Any, DynamodbStorage]:
        storage = stand.storage()
        store = storage.event_store(stand.clock, ACTOR)
        lock = storage.site.worker_lock

        def lease() -> Any:
            return storage.lease(store, "a/r", "w", "0.1.0", stand.clock, 60.0, lock)

        return lease(), lease(), storage

    first, after_first, here = site()
    second, after_second, there = site()
    for holder, other in ((first, second), (second, first)):
        assert holder.acquire()
        for _ in range(3):
            stand.clock.advance(30)
            assert not other.acquire()
            assert holder.renew()
        lives = [storage.read_model().holder_lives() for storage in (here, there)]
        assert lives == [holder is second, holder is first]
        if holder is first:
            holder.release()
    second._unlock()  # it dies
    assert not first.acquire()
    assert after_second.acquire() and after_second.since_another() == 0
    after_second._unlock()
    stand.clock.advance(60)
    assert not here.read_model().holder_lives()
    assert after_first.acquire()


def test_a_lease_is_counted_from_before_it_was_sent(stand: Stand, tmp_path: Any) -> None:
    lease, clock = lease_of(stand, "boot-one", tmp_path)
    assert lease.acquire()
    stand.dynamodb.add_fault("lost_response", action="UpdateItem")
    sleep = clock.sleep
    clock.sleep = lambda seconds: sleep(seconds + 3)  # type: ignore[method-assign]
    assert lease.renew()
    assert lease.remaining() <= 57


def test_the_other_machine_s_sweep_and_sightings_are_seen(stand: Stand) -> None:
    """By the wall clocks, where the boots differ."""
    worker, caller = stand.storage(), stand.storage()
    store = worker.event_store(stand.clock, ACTOR)
    notebook = worker.notebook(store, "default", "us-east-1")
    notebook.record_sweep(stand.clock.now(), 3)
    notebook.put_cloud_states([("i-1", "host-1", "stopped")], stand.clock.now())
    stand.clock.advance(30)
    elsewhere = (stand.clock.wall, "another boot", 5.0)
    model = caller.read_model()
    assert model.last_sweep("default/us-east-1", elsewhere) == pytest.approx(30)
    assert model.cloud_states(elsewhere)["host-1"][0] == "stopped"
    notebook.clear_cloud_states(["i-1"])
    assert caller.read_model().cloud_states(elsewhere) == {}

    sightings = worker.sightings(store)
    assert sightings.take() == [] and sightings.noted() == 0
    caller._tables(stand.clock)
    for _ in range(3):  # nothing new: one line a minute
        caller.note(elsewhere, {"provider": "awsinst", "verb": "getRequestStatus"}, model)
    caller.note(elsewhere, {"provider": "awsinst", "requests": ["req-a"]}, model)
    stand.clock.advance(2)
    assert sightings.noted() > 0
    lines = sightings.take()
    assert sorted(str(line.get("requests")) for line in lines) == ["None", "['req-a']"]
    assert sightings.waiting()
    sightings.done()
    assert not sightings.waiting() and sightings.take() == []


def test_tracking_alone_changes_nothing_else(stand: Stand) -> None:
    store, other = stand.store(), stand.store()
    store.save(tracking=("policy", 3))
    with pytest.raises(AlreadyTracked):
        other.save(tracking=("policy", 3))
    other.changes()
    assert other.connection.execute("SELECT * FROM tracking").fetchall() == [("policy", 3)]
    assert len(stand.log()) == 1
