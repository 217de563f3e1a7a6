"""Several accounts through a whole site: which one is chosen and why, and that what one of them
does never touches the others' machines."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from application import queries
from application.failures import StoreError
from interfaces.hostfactory.wire_format import BadInput
from interfaces.read_side import Call
from interfaces.write_side.container import WriteSide
from tests.world import TEMPLATE, WAYS, World

MakeWorld = Callable[..., World]

HOME, AWAY, FAR = "111111111111", "222222222222", "333333333333"
KEYS = {"AKIAHOME": HOME, "AKIAAWAY": AWAY, "AKIAFAR": FAR}
NUMBERS = {"home": HOME, "away": AWAY, "far": FAR}
PROFILES = "".join(
    f"[{name}]\naws_access_key_id = AKIA{name.upper()}\naws_secret_access_key = secret-of-{name}\n"
    for name in ("home", "away")
)
ROLE = f"arn:aws:iam::{FAR}:role/buyer"
ACCOUNTS: dict[str, dict[str, Any]] = {
    "home": {"profile": "home"},
    "away": {"profile": "away"},
    "far": {"profile": "home", "assume_role": ROLE, "external_id": "grid-7"},
}
"""Two by keys of their own, one by a role that the first one's keys may assume."""

OPTIONS: dict[str, Any] = {"accounts": KEYS, "boot_time": 20.0, "shutdown_time": 15.0}


class Site:
    """A world with accounts. `accounts` are names of ACCOUNTS, with further keys of each."""

    def __init__(
        self,
        make_world: MakeWorld,
        folder: Path,
        accounts: dict[str, dict[str, Any]],
        template: dict[str, Any] | None = None,
        selection: str = "first_available",
        **options: Any,
    ) -> None:
        self.file = folder / "credentials"
        self.file.write_text(PROFILES)
        self.selection = selection
        template = {**TEMPLATE, "accounts": {name: {} for name in accounts}, **(template or {})}
        self.world = make_world(
            templates=[template], config=self.config(accounts), **{**OPTIONS, **options}
        )

    def config(self, accounts: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {
            "provider": {
                "aws": {"credential_file": str(self.file)},
                "accounts": {name: {**ACCOUNTS[name], **own} for name, own in accounts.items()},
                "selection": self.selection,
            }
        }

    def chosen(self) -> list[tuple[str, str]]:
        """(account, reason) of each launch that was intended."""
        return [(e["account"], e["reason"]) for e in self.world.events("LaunchIntended")]

    def lives(self) -> dict[str, int]:
        """Account -> machines that live in it, at AWS."""
        there = self.world.sandbox.live_instances()
        numbers = Counter(one["account"] for one in there.values())
        return {name: numbers[number] for name, number in NUMBERS.items() if numbers[number]}

    def down(self, name: str, kind: str = "refused") -> None:
        """Every call to an account fails."""
        self.world.sandbox.add_fault(kind, action="*", times=-1, account=NUMBERS[name])

    def all_returned(self) -> None:
        """Everything that lives is handed back, and then nothing is left anywhere."""
        world = self.world
        rows = world.query("SELECT machine_id, name FROM machines WHERE alive = 1")
        if rows:
            answer = world.run_until_final(
                world.give_back([{"machineId": i, "name": n} for i, n in rows])
            )
            assert answer["status"] == "complete", answer
        world.run(200, step=5.0)
        world.assert_nothing_left()


@pytest.fixture
def make_site(make_world: MakeWorld, tmp_path: Path) -> Callable[..., Site]:
    def make(accounts: dict[str, dict[str, Any]], **options: Any) -> Site:
        return Site(make_world, tmp_path, accounts, **options)

    return make


MakeSite = Callable[..., Site]

# -- which one ------------------------------------------------------------------------------------


def ask(site: Site, times: int, count: int = 2) -> None:
    """So many requests, one after the other."""
    for _ in range(times):
        site.world.fulfilled(count)


def test_first_available_is_the_sites_order(make_site: MakeSite) -> None:
    site = make_site({"away": {}, "home": {}})
    site.world.start_worker()
    ask(site, 2)
    assert site.chosen() == [("away", "first in order")] * 2
    assert site.lives() == {"away": 4}
    site.all_returned()


def test_priority_the_lowest_first(make_site: MakeSite) -> None:
    accounts = {"home": {"priority": 5}, "away": {"priority": 2}, "far": {"priority": 9}}
    site = make_site(accounts, selection="priority")
    site.world.start_worker()
    ask(site, 2)
    assert site.chosen() == [("away", "priority 2")] * 2
    assert site.lives() == {"away": 4}


def test_weighted_by_the_machines_that_live(make_site: MakeSite) -> None:
    """Three quarters and one; a restart of the worker changes nothing."""
    accounts = {"home": {"weight": 1}, "away": {"weight": 3}}
    site = make_site(accounts, selection="weighted")
    site.world.start_worker()
    ask(site, 4, count=1)
    site.world.kill(site.world.workers[0])
    site.world.start_worker()
    ask(site, 4, count=1)
    assert site.lives() == {"home": 2, "away": 6}
    assert site.chosen()[:3] == [
        ("home", "has 0 machines at weight 1"),
        ("away", "has 0 machines at weight 3"),
        ("away", "has 1 machines at weight 3"),
    ]
    site.all_returned()


def test_weighted_within_a_request(make_site: MakeSite) -> None:
    """A launch that is under way counts."""
    site = make_site(
        {"home": {}, "away": {}},
        selection="weighted",
        settings={"HOSTLEDGER_PROVIDER__AWS__LAUNCH_CHUNK": "1"},
    )
    site.world.start_worker()
    site.world.fulfilled(6)
    assert site.lives() == {"home": 3, "away": 3}


@pytest.mark.parametrize("way", ["fleet-maintain", "group"])
def test_weighted_counts_a_fleets_machines_once(make_site: MakeSite, way: str) -> None:
    """A fleet that has launched some of its machines has not twice as many."""
    site = make_site({"home": {}, "away": {}}, selection="weighted", way=way)
    world = site.world
    world.start_worker()
    world.sandbox.set_capacity(3)
    first = world.request(4)
    world.run(60)
    world.request(1)
    world.run(30)
    assert [e["reason"] for e in world.events("LaunchIntended")][:2] == [
        "has 0 machines at weight 1",
        "has 0 machines at weight 1",
    ]
    world.sandbox.set_capacity(None)
    world.run_until_final(first)
    assert site.chosen()[1][0] == "away"


def test_round_robin(make_site: MakeSite) -> None:
    site = make_site({"home": {}, "away": {}, "far": {}}, selection="round_robin")
    site.world.start_worker()
    ask(site, 4, count=1)
    assert site.chosen() == [(name, "its turn") for name in ("home", "away", "far", "home")]
    site.all_returned()


def test_least_cost_by_the_templates_own_prices(make_site: MakeSite) -> None:
    """What an account says of itself stands before the template's price; without one it is last."""
    template = {
        "attributes": {**TEMPLATE["attributes"], "priceInfo": ["String", "price:0.3"]},
        "accounts": {"home": {}, "away": {"price": 0.2}, "far": {"price": 0.4}},
    }
    accounts: dict[str, dict[str, Any]] = {"home": {}, "away": {}, "far": {}}
    site = make_site(accounts, selection="least_cost", template=template)
    site.world.start_worker()
    site.world.fulfilled(1)
    assert site.chosen() == [("away", "costs 0.2 an hour")]
    site.world.sandbox.deny("RunInstances", AWAY)
    site.world.fulfilled(1)
    assert site.chosen()[-1] == ("home", "costs 0.3 an hour; nothing to be had in away")


def test_spend_is_counted_by_the_accounts_prices(make_site: MakeSite) -> None:
    """A price that only the account gives holds for the machines that live there, too."""
    template = {
        "accounts": {"home": {"price": 0.2}, "away": {"price": 0.5}},
        "fulfilmentDeadline": 30,
    }
    site = make_site(
        {"home": {}, "away": {}},
        template=template,
        settings={"HOSTLEDGER_PROVIDER__LIMITS__SPEND_PER_HOUR": "0.5"},
    )
    site.world.start_worker()
    site.world.fulfilled(2)
    answer = site.world.run_until_final(site.world.request(2))
    assert answer["status"] == "complete_with_error"
    assert "spend_per_hour allows 0.5 an hour" in answer["message"]
    assert site.lives() == {"home": 2}


def test_a_template_names_its_accounts(make_site: MakeSite) -> None:
    """Without any it runs in the first; what it has for one of them holds there alone."""
    template = {"accounts": {"away": {"subnetId": "subnet-away", "imageId": "ami-0aaa"}}}
    site = make_site({"home": {}, "away": {}}, template=template)
    site.world.start_worker()
    site.world.fulfilled(1)
    assert site.chosen() == [("away", "the only account")]
    (one,) = site.world.sandbox.live_instances().values()
    assert (one["account"], one["subnet"]) == (AWAY, "subnet-away")
    site.world.write_templates([{**TEMPLATE, "templateId": "Plain"}])
    site.world.run(5)
    answer = site.world.run_until_final(site.world.request(1, "Plain"))
    assert answer["status"] == "complete"
    assert site.chosen()[-1] == ("home", "the only account")


def test_a_role_is_assumed_in_its_account(make_site: MakeSite) -> None:
    site = make_site({"far": {}})
    site.world.start_worker()
    site.world.fulfilled(1)
    assert site.lives() == {"far": 1}
    (assumed,) = site.world.calls_of("AssumeRole")
    assert (assumed.params["RoleArn"], assumed.params["ExternalId"]) == (ROLE, "grid-7")
    site.all_returned()


# -- when one has nothing -------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_no_capacity_falls_over(make_site: MakeSite, way: str) -> None:
    """What the first has not, the second gives; each machine ends in its own account."""
    site = make_site({"home": {}, "away": {}}, way=way, template={"fulfilmentDeadline": 240})
    world = site.world
    world.sandbox.add_fault("cap", action=world.action, times=-1, account=HOME, limit=1)
    world.start_worker()
    request = world.request(3)
    answer = world.run_until_final(request)
    if way in ("RunInstances", "fleet-instant"):
        assert answer["status"] == "complete", answer
        assert site.lives() == {"home": 1, "away": 2}
        account, reason = site.chosen()[-1]
        assert (account, reason) == ("away", "first in order; nothing to be had in home")
    else:
        # A fleet goes on trying for what it was asked for, one by one.
        assert site.lives() == {"home": 3}
    site.all_returned()


def test_a_quota_falls_over_and_is_told(make_site: MakeSite) -> None:
    """The request hears of it when nobody else has any, with the account's name."""
    site = make_site({"home": {}, "away": {}})
    world = site.world
    world.sandbox.add_fault(
        "error", action="RunInstances", times=-1, account=HOME, code="VcpuLimitExceeded"
    )
    world.start_worker()
    world.fulfilled(2)
    assert site.lives() == {"away": 2}
    world.sandbox.add_fault(
        "error", action="RunInstances", times=-1, account=AWAY, code="VcpuLimitExceeded"
    )
    answer = world.run_until_final(world.request(1))
    assert answer["status"] == "complete_with_error"
    assert "away t3.medium/subnet-a1/ondemand: VcpuLimitExceeded" in answer["message"]


@pytest.mark.parametrize("way", ["RunInstances", "fleet-instant", "group"])
def test_no_permission_falls_over(make_site: MakeSite, way: str) -> None:
    """Told once, with action and account; the other one serves it."""
    site = make_site({"home": {}, "away": {}}, way=way)
    world = site.world
    world.sandbox.deny(world.action, HOME)
    world.start_worker()
    world.fulfilled(2)
    world.fulfilled(1)
    assert site.lives() == {"away": 3}
    assert len([call for call in world.launches() if call.account == HOME]) == 1
    site.all_returned()


def test_a_launch_template_that_cannot_be_made_falls_over(make_site: MakeSite) -> None:
    site = make_site({"home": {}, "away": {}}, way="fleet-instant")
    world = site.world
    world.sandbox.deny("CreateLaunchTemplate", HOME)
    world.start_worker()
    world.fulfilled(2)
    assert site.lives() == {"away": 2}


def test_nobody_may(make_site: MakeSite) -> None:
    """With no permission anywhere the request ends, with what AWS says."""
    site = make_site({"home": {}, "away": {}})
    site.world.sandbox.deny("RunInstances")
    site.world.start_worker()
    answer = site.world.run_until_final(site.world.request(2), seconds=60)
    assert answer["status"] == "complete_with_error"
    assert "ec2:RunInstances" in answer["message"]


# -- when one is down -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("RunInstances", "refused"),
        ("RunInstances", "hang"),
        ("RunInstances", "e503"),
        ("fleet-instant", "e503"),
        ("fleet-maintain", "refused"),
        ("group", "hang"),
    ],
)
def test_one_account_is_down_for_ten_minutes(make_site: MakeSite, way: str, kind: str) -> None:
    """The other one serves; when it is back, what was doubtful is settled and nothing leaks."""
    site = make_site({"home": {}, "away": {}}, way=way)
    world = site.world
    world.start_worker()
    world.fulfilled(1)
    site.down("home", kind)
    began = world.clock.seconds
    first = world.request(2)
    world.run(60)
    later = [world.request(1) for _ in range(2)]
    for request in later:
        assert world.run_until_final(request, 120)["status"] == "complete"
    if kind == "refused" or way in ("fleet-maintain", "group"):
        # No launch was ever sent, so that the other one can have them.
        assert site.lives() == {"home": 1, "away": 4}
        assert world.status(first)["status"] == "complete"
    else:
        assert site.lives() == {"home": 1, "away": 2}
    world.run(600 - (world.clock.seconds - began), step=10.0)
    world.sandbox.clear_faults()
    world.run(700, step=10.0)
    assert world.status(first)["status"] != "running"
    assert world.query("SELECT count(*) FROM batches WHERE state IN ('open', 'doubtful')") == [(0,)]
    world.assert_agreement()
    site.all_returned()


@pytest.mark.parametrize("way", ["RunInstances", "fleet-maintain", "group"])
def test_an_answer_lost_in_one_account_is_settled_there(make_site: MakeSite, way: str) -> None:
    """The launch was made, its answer never came, and the account went down with it."""
    site = make_site({"home": {}, "away": {}}, way=way)
    world = site.world
    world.start_worker()
    world.sandbox.add_fault("lost_response", action=world.action, account=HOME)
    request = world.request(2)
    assert world.run(30, lambda: bool(world.launches()))
    site.down("home")
    world.run(60)
    world.run(540, step=10.0)
    assert world.status(request)["status"] == "running"
    world.sandbox.clear_faults()
    world.run(700, step=10.0)
    world.assert_agreement()
    assert "away" not in site.lives()
    site.all_returned()


# -- sweeps, strangers, leases --------------------------------------------------------------------


def test_hosts_are_judged_on_sweeps_of_all_accounts(make_site: MakeSite) -> None:
    """One account that cannot be listed: exit 1, whichever machine is asked about."""
    site = make_site({"home": {}, "away": {}}, settings={"HOSTLEDGER_WORKER__SWEEP_MAX_AGE": "90"})
    world = site.world
    world.start_worker()
    machines = world.fulfilled(1)
    world.run(65)
    assert world.to_give_up(machines) == []
    site.down("away")
    world.run(120)
    with pytest.raises(BadInput, match="last complete sweep is older"):
        world.to_give_up(machines)
    world.sandbox.clear_faults()
    world.sandbox.terminate_behind_back([machines[0]["machineId"]])
    world.run(120)
    (gone,) = world.to_give_up(machines)
    assert gone["machineId"] == machines[0]["machineId"]


def test_a_return_across_accounts(make_site: MakeSite) -> None:
    """Each machine is terminated by the account that has it, each account called with its own."""
    site = make_site({"home": {}, "away": {}, "far": {}}, selection="round_robin")
    world = site.world
    world.start_worker()
    machines = [machine for _ in range(3) for machine in world.fulfilled(2)]
    assert site.lives() == {"home": 2, "away": 2, "far": 2}
    owners = {i: one["account"] for i, one in world.sandbox.live_instances().items()}
    answer = world.run_until_final(world.give_back(machines[1:]))
    assert answer["status"] == "complete"
    for call in world.calls_of("TerminateInstances"):
        ids = [value for name, value in call.params.items() if name.startswith("InstanceId")]
        assert {owners[i] for i in ids} == {call.account}
        assert call.outcome == "ok"
    assert world.live() == {machines[0]["machineId"]}
    site.all_returned()


def test_strangers_are_looked_for_in_every_account(make_site: MakeSite) -> None:
    """A host of the old plug-in in the second account is healthy, and it is not ours to end."""
    site = make_site({"home": {}, "away": {}})
    world = site.world
    world.start_worker()
    world.fulfilled(1)
    stranger = _launched_by_hand(world, "AKIAAWAY")
    host = {"machineId": stranger, "name": "old-host"}
    assert world.to_give_up([host]) == []
    answer = world.run_until_final(world.give_back([host]))
    assert answer["status"] == "complete_with_error"
    assert "not launched by this deployment" in json.dumps(answer)
    assert stranger in world.sandbox.live_instances()
    absent = {"machineId": "i-0123456789abcdef0", "name": "gone-host"}
    assert [gone["machineId"] for gone in world.to_give_up([absent])] == [absent["machineId"]]


def _launched_by_hand(world: World, key: str) -> str:
    """An instance that somebody launches with these keys."""
    import boto3

    client = boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key="x"
    )
    world.sandbox.attach(client)
    answer = client.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, SubnetId="subnet-a1")
    return str(answer["Instances"][0]["InstanceId"])


def test_a_worker_has_the_leases_it_can_get(make_site: MakeSite) -> None:
    """One alone has all; while another process has one of them it works the others, and what lives
    there is no concern of it."""
    site = make_site({"home": {}, "away": {}}, selection="weighted")
    world = site.world
    home, away = "home/us-east-1", "away/us-east-1"
    first = world.start_worker()
    world.run(2)
    assert first.lease.held == {home: 1, away: 1}
    first.stopping = True
    world.run(1)
    side = WriteSide(site=world.site, environ=world.environ)
    side.clock.override(world.clock)
    taken = side.leases()["away"]
    assert taken.acquire()
    second = world.start_worker()
    asked = world.request(2)
    world.run(10)
    assert second.lease.held == {home: 2}
    assert site.lives() == {"home": 2}
    taken.release()
    side.store().close()
    world.run(2)
    assert second.lease.held == {home: 2, away: 3}
    assert world.run_until_final(asked)["status"] == "complete"
    site.all_returned()


def test_a_second_worker_is_given_one(make_site: MakeSite) -> None:
    """One that the operator runs beside the first, and no more than one: the first keeps its last.
    When it ends the first has all again."""
    site = make_site({"home": {}, "away": {}})
    world = site.world
    home, away = "home/us-east-1", "away/us-east-1"
    first = world.start_worker()
    world.run(2)
    second = world.start_worker()
    world.run(8)
    assert (first.lease.held, second.lease.held) == ({home: 1}, {away: 2})
    third = world.start_worker()
    world.run(30)
    assert (first.lease.held, second.lease.held, third.lease.held) == ({home: 1}, {away: 2}, {})
    third.stopping = second.stopping = True
    world.run(12)
    assert first.lease.held == {home: 1, away: 3}
    site.world.fulfilled(1)
    site.all_returned()


def test_a_lost_lease_of_one_account_stops_all(make_site: MakeSite) -> None:
    """Whoever has lost one acts nowhere before it has begun anew, by leases that it takes again;
    in the account of the lost one it does not act."""
    site = make_site({"home": {}, "away": {}})
    world = site.world
    worker = world.start_worker()
    world.run(2)
    home, away = "home/us-east-1", "away/us-east-1"
    assert worker.lease.held == {home: 1, away: 1}
    side = WriteSide(site=world.site, environ=world.environ)
    side.store().connection.execute(
        "UPDATE leases SET fence = fence + 1, locked = 0 WHERE account = 'away/us-east-1'"
    )
    side.store().close()
    world.request(1)
    world.tick()
    assert worker.lease.held == {}
    assert world.launches() == []
    world.run(3)
    assert worker.lease.held == {home: 2}
    assert [one["account"] for one in world.sandbox.live_instances().values()] == [HOME]


# -- an account that is taken out -----------------------------------------------------------------


def test_an_account_that_is_taken_out(make_site: MakeSite) -> None:
    """Its machines are not looked at any more: told, and not called lost; when it comes back all
    goes on."""
    site = make_site({"home": {}, "away": {}}, selection="round_robin")
    world = site.world
    world.start_worker()
    machines = [machine for _ in range(2) for machine in world.fulfilled(1)]
    (away,) = [i for i, one in world.sandbox.live_instances().items() if one["account"] == AWAY]
    world.write_own_config(site.config({"home": {}}))
    world.write_templates([{**TEMPLATE, "accounts": {"home": {}}}])
    world.run(900, step=5.0)
    assert world.owned() == world.live() == {m["machineId"] for m in machines}
    assert world.events("MachineLost") == []
    assert world.to_give_up(machines) == []
    lines = Path(world.site.log_file).read_text().splitlines()
    (told,) = [line for line in lines if "an account is not in the configuration" in line]
    assert "away" in told
    assert "provider.accounts" in told
    call = Call("test", world.environ, "python", site=world.site)
    with closing(call.queries()) as view:
        told_accounts = queries.store_status(view, call.now, call.places())["accounts"]
    assert told_accounts == [
        {"account": "away/us-east-1", "machines": 1, "problem": queries.NOT_CONFIGURED},
        {"account": "home/us-east-1", "machines": 1, "problem": None},
    ]
    handed_back = world.give_back(machines)
    world.run(120, step=5.0)
    assert world.status(handed_back)["status"] == "running"
    assert world.live() == {away}
    world.write_own_config(site.config({"home": {}, "away": {}}))
    assert world.run_until_final(handed_back)["status"] == "complete"
    world.assert_nothing_left()


def test_a_site_that_names_accounts_later(make_site: MakeSite, make_world: MakeWorld) -> None:
    """The one that it had until then is called `default`."""
    world = make_world(**OPTIONS)
    world.start_worker()
    machines = world.fulfilled(1)
    world.write_own_config({"provider": {"accounts": {"default": {}}}})
    world.fulfilled(1)
    assert world.run_until_final(world.give_back(machines))["status"] == "complete"
    world.assert_agreement()


# -- credentials ----------------------------------------------------------------------------------


class Script:
    """A program that gives keys; each run is counted, and its errors hold a secret."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.sh"
        self._answer, self._status = folder / f"{name}.json", folder / f"{name}.status"
        self._runs = folder / f"{name}.runs"
        self._runs.write_text("")
        self.path.write_text(
            f"#!/bin/sh\necho run >> '{self._runs}'\necho 'secret-on-stderr' >&2\n"
            f"cat '{self._answer}'\nexit $(cat '{self._status}')\n"
        )
        self.path.chmod(stat.S_IRWXU)
        self.ends(0)

    def gives(self, answer: dict[str, Any]) -> None:
        self._answer.write_text(json.dumps(answer))

    def ends(self, status: int) -> None:
        self._status.write_text(str(status))

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines())


class Vendor:
    """Somebody who gives keys that last an hour of the sandbox's clock, as AWS's STS does."""

    def __init__(self, world: World, script: Script) -> None:
        import boto3

        self._sts = boto3.client(
            "sts", region_name="us-east-1", aws_access_key_id="AKIAHOME", aws_secret_access_key="x"
        )
        world.sandbox.attach(self._sts)
        self._script = script
        self.secrets: set[str] = set()
        self.renew()

    def renew(self) -> None:
        answer = self._sts.assume_role(RoleArn=ROLE, RoleSessionName="vendor", DurationSeconds=3600)
        keys = answer["Credentials"]
        self.secrets |= {keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]}
        keys["Expiration"] = keys["Expiration"].isoformat()
        self._script.gives(keys)


def test_keys_of_a_script_are_renewed_before_they_end(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """AWS_CREDENTIAL_SCRIPT over four hours: no call is ever refused, and it runs once an hour."""
    world = make_world(**OPTIONS)
    script = Script(tmp_path, "keys")
    vendor = Vendor(world, script)
    world.write_config({"AWS_REGION": "us-east-1", "AWS_CREDENTIAL_SCRIPT": str(script.path)})
    world.start_worker()
    machines = world.fulfilled(1)
    for _ in range(24):
        world.run(600, step=60.0)
        vendor.renew()
    world.run_until_final(world.give_back(machines))
    world.assert_nothing_left()
    outcomes = Counter(call.outcome for call in world.sandbox.calls)
    assert outcomes == {"ok": len(world.sandbox.calls)}
    assert 4 <= script.runs <= 6
    assert {c.account for c in world.sandbox.calls if c.service == "ec2"} == {FAR}


def test_a_script_that_fails_is_tried_again(make_world: MakeWorld, tmp_path: Path) -> None:
    """Told without what it printed; nothing is sent without keys, and it goes on when it works."""
    world = make_world(**OPTIONS)
    script = Script(tmp_path, "keys")
    vendor = Vendor(world, script)
    world.write_config({"AWS_REGION": "us-east-1", "AWS_CREDENTIAL_SCRIPT": str(script.path)})
    script.ends(3)
    world.start_worker()
    request = world.request(1)
    sent = len(world.sandbox.calls)
    world.run(60)
    assert world.status(request)["status"] == "running"
    assert len(world.sandbox.calls) == sent
    log = Path(world.site.log_file).read_text()
    assert "AWS_CREDENTIAL_SCRIPT" in log
    assert "CredentialScript" in log
    assert "secret-on-stderr" not in log
    script.ends(0)
    assert world.run_until_final(request)["status"] == "complete"
    before = script.runs
    script.ends(3)
    world.run(3000, step=30.0)
    assert script.runs == before
    world.run(240, step=30.0)
    assert before < script.runs
    vendor.renew()
    script.ends(0)
    world.run(1200, step=30.0)
    world.fulfilled(1)
    world.assert_agreement()
    assert_nowhere(world, {*vendor.secrets, "secret-on-stderr"})


def assert_nowhere(world: World, secrets: set[str]) -> None:
    """In no file of the site but those that hold them."""
    found = [
        (path, secret)
        for path in world.root.rglob("*")
        if path.is_file()
        for secret in secrets
        if secret.encode() in path.read_bytes()
    ]
    assert found == []


@pytest.mark.parametrize("fault", ["", "denied", "auth", "mismatch"])
def test_no_credential_is_told(make_site: MakeSite, tmp_path: Path, fault: str) -> None:
    """Over all ways in which credentials come, well or badly: neither the store, nor the log, nor
    an answer has any."""
    script = Script(tmp_path, "other")
    site = make_site(
        {"home": {}, "away": {}, "far": {}},
        selection="round_robin",
        settings={"HOSTLEDGER_LOGGING__LEVEL": "TRACE"},
    )
    world = site.world
    vendor = Vendor(world, script)
    config = site.config({"home": {}, "away": {}, "far": {}})
    config["provider"]["accounts"]["away"] = {"credential_script": str(script.path)}
    config["provider"]["accounts"]["far"]["assume_role"] = ROLE.replace(FAR, AWAY)
    world.write_own_config(config)
    if fault == "denied":
        world.sandbox.deny("RunInstances")
    elif fault == "auth":
        world.sandbox.add_fault("error", action="*", times=30, code="AuthFailure", status=401)
    elif fault == "mismatch":
        world.sandbox.add_fault(
            "error", action="*", times=30, code="SignatureDoesNotMatch", status=403
        )
    world.start_worker()
    told = []
    for _ in range(3):
        request = world.request(1)
        world.run(60, step=5.0)
        told.append(json.dumps(world.status(request)))
    world.run(3700, step=100.0)
    try:
        told.append(json.dumps(world.to_give_up([{"machineId": "i-0abc", "name": "h"}])))
    except (BadInput, StoreError) as error:
        told.append(str(error))
    secrets = {"secret-of-home", "secret-of-away", "secret-on-stderr", *vendor.secrets}
    secrets |= {"AKIAHOME", "AKIAAWAY", "ASIASANDBOX", "sandbox-secret-", "sandbox-session-"}
    assert world.calls_of("AssumeRole")
    assert script.runs
    assert_nowhere(world, secrets)
    assert [secret for secret in secrets if secret in "".join(told)] == []
