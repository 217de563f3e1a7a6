"""Two machines on one store: whichever calls, whichever works, and whatever becomes of one of them,
there is one ledger and nothing doubles.

The machines' clocks differ, and neither sees the other's files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from application import crash_points
from tests.application.test_accounts import Site
from tests.stores import FOUR, SERVED
from tests.world import World

EVERY_STORE = FOUR
pytestmark = pytest.mark.stores(*SERVED)

LEASE_TIME = 60.0
N = 4

MakeWorld = Callable[..., World]


REFILLED = ("RunInstances", "fleet-maintain", "group")
"""Ways to launch: by a call that is over when it is answered, and by what AWS goes on filling."""


@pytest.fixture
def launching(request: pytest.FixtureRequest) -> str:
    """How both machines' templates launch."""
    return str(getattr(request, "param", "RunInstances"))


@pytest.fixture
def machines(make_world: MakeWorld, launching: str) -> tuple[World, World]:
    one = make_world(way=launching, boot_time=20.0, shutdown_time=15.0)
    return one, make_world(way=launching, beside=one, place=one.place)


def run_both(
    one: World, other: World, seconds: float, until: Callable[[], bool], step: float = 1.0
) -> float:
    """Let time pass on both until `until` is true; the seconds it took."""
    began = one.clock.seconds
    while not until():
        assert one.clock.seconds - began < seconds, f"not within {seconds:g} s"
        one.tick()
        other.tick()
        one.clock.advance(step)
    return one.clock.seconds - began


def succeeded(world: World, request_id: str) -> bool:
    return bool(world.status(request_id)["status"] == "complete")


def test_either_machine_answers_and_one_works(machines: tuple[World, World]) -> None:
    """Asked on one, polled on the other, returned on the first; two workers, one lease."""
    one, other = machines
    one.start_worker()
    other.start_worker()
    requests = [world.request(N) for world in machines for _ in range(3)]
    run_both(one, other, 300, lambda: all(succeeded(other, r) for r in requests))
    assert len(one.live()) == 6 * N
    assert [len(world.launches()) for world in machines] == [1, 1], "the sandbox is one"
    hosts = [m for r in requests for m in one.status(r)["machines"]]
    assert other.to_give_up(hosts) == []
    returned = other.give_back(hosts)
    run_both(one, other, 600, lambda: succeeded(one, returned), step=5.0)
    one.assert_nothing_left()


def test_sightings_of_either_machine_are_seen(machines: tuple[World, World]) -> None:
    """A request that is polled on the machine without a worker is known to HostFactory: it lives
    on; one whose answer was lost there is ended, and so is one whose machines are never named,
    however often there is something else to ask."""
    one, other = machines
    one.start_worker()
    known, untold = other.request(N), other.request(N)
    hosts = one.final(known)["machines"]
    assert one.final(untold)["status"] == "complete"
    lost = other.request(N)

    def poll() -> None:
        other.status(known)
        if one.clock.seconds % 30 < 10:
            assert other.to_give_up(hosts) == []

    one.run(800, poll=poll, step=10.0)
    states = dict(one.query("SELECT request_id, state FROM requests WHERE kind = 'request'"))
    assert states[known] == "fulfilled"
    assert one.live() == {host["machineId"] for host in hosts}, states
    assert lost in states
    one.assert_agreement()


@pytest.mark.parametrize("launching", REFILLED, indirect=True)
@pytest.mark.parametrize("point", ["commit.LaunchIntended.after", "aws.{}.after"])
def test_a_killed_worker_is_followed_within_the_lease_time(
    machines: tuple[World, World], point: str
) -> None:
    """In the middle of a launch: the other machine's worker goes on, with the same token."""
    one, other = machines
    one.start_worker()
    request_id = other.request(N)
    one.die_at(point.format(one.action))
    other.start_worker()
    took = run_both(one, other, 400, lambda: len(other.workers) == 1 and holds(other))
    assert took <= LEASE_TIME + 5
    run_both(one, other, 600, lambda: succeeded(other, request_id))
    assert len(one.live()) == N
    one.assert_agreement()
    other.leave_nothing()


def holds(world: World) -> bool:
    return world.workers[0]._holds


@pytest.mark.parametrize("launching", REFILLED, indirect=True)
def test_a_paused_worker_cannot_write_when_it_wakes(machines: tuple[World, World]) -> None:
    """Between its intent and its call: meanwhile the other takes over and launches, with the same
    token; what the first one's call gives it cannot record."""
    one, other = machines
    paused = one.start_worker()
    request_id = one.request(N)

    def meanwhile() -> None:
        one.workers.remove(paused)
        other.start_worker()
        other.run(200, lambda: succeeded(other, request_id))

    with one.pausing_at(f"aws.{one.action}.before", meanwhile):
        one.run(20, lambda: paused not in one.workers)
    one.workers.append(paused)
    run_both(one, other, 10, lambda: not paused.lease.held)
    assert len(one.live()) == N
    assert len(one.events("LaunchAccepted")) == 1
    began = one.clock.seconds
    run_both(one, other, 310, lambda: one.clock.seconds - began >= 300)
    assert paused in one.workers and holds(other)
    one.assert_agreement()
    other.leave_nothing()


def test_a_newer_release_on_the_other_machine_takes_over(machines: tuple[World, World]) -> None:
    """Its worker asks the holder to end, across machines."""
    one, other = machines
    one.start_worker("0.1.0")
    request_id = one.request(N)
    one.run(3)
    other.start_worker("0.2.0")
    run_both(one, other, 200, lambda: not one.workers and holds(other))
    run_both(one, other, 600, lambda: succeeded(other, request_id))
    assert len(one.live()) == N
    one.assert_agreement()


def test_the_management_host_fails_over(machines: tuple[World, World]) -> None:
    """The machine that HostFactory and the worker run on is gone with all of its files: HostFactory
    starts on the other, and finds every request and every machine."""
    one, other = machines
    worker = one.start_worker()
    before = one.fulfilled(N)
    open_request = one.request(N)
    one.kill(worker)
    one.site.state_dir += "/gone"

    assert other.status(open_request)["status"] == "running"
    other.start_worker()
    other.run(600, lambda: succeeded(other, open_request))
    assert succeeded(other, open_request)
    after = other.status(open_request)["machines"]
    assert other.to_give_up(before + after) == []
    returned = other.give_back(before + after)
    other.run(900, lambda: succeeded(other, returned), step=5.0)
    assert succeeded(other, returned)
    other.run(250, step=5.0)
    other.assert_nothing_left()


# -- two accounts, two workers --------------------------------------------------------------------

HOME, AWAY = "home/us-east-1", "away/us-east-1"


@pytest.fixture
def sites(make_world: MakeWorld, tmp_path: Path, launching: str) -> tuple[Site, Site]:
    """Two machines, each with a worker, each of which works one of two accounts."""
    accounts: dict[str, dict[str, int]] = {"home": {}, "away": {}}
    here = Site(make_world, tmp_path, accounts, selection="weighted", way=launching)
    beside: dict[str, Any] = {"way": launching, "beside": here.world, "place": here.world.place}
    there = Site(make_world, tmp_path, accounts, selection="weighted", **beside)
    one, other = here.world, there.world
    one.start_worker()
    one.run(2)
    other.start_worker()
    run_both(one, other, 20, lambda: held(one) == [HOME] and held(other) == [AWAY])
    return here, there


def held(world: World) -> list[str]:
    return [account for worker in world.workers for account in worker.lease.held]


def test_two_accounts_are_worked_by_two_workers(sites: tuple[Site, Site]) -> None:
    """Each launches and ends in its own, whoever asks; what either may serve is served once."""
    here, there = sites
    one, other = here.world, there.world
    requests = [world.request(N) for world in (one, other) for _ in range(3)]
    run_both(one, other, 300, lambda: all(succeeded(one, r) for r in requests))
    assert one.live() == one.owned() and len(one.live()) == 6 * N
    more = [other.request(N), one.request(N)]
    run_both(one, other, 300, lambda: all(succeeded(one, r) for r in more))
    assert set(here.lives()) == {"home", "away"}
    assert (held(one), held(other)) == ([HOME], [AWAY])
    assert len(one.live()) == 8 * N
    one.assert_agreement()

    hosts = [m for r in requests + more for m in one.status(r)["machines"]]
    returned = other.give_back(hosts)
    run_both(one, other, 600, lambda: succeeded(one, returned), step=5.0)
    run_both(one, other, 300, lambda: not one.live(), step=5.0)
    one.assert_nothing_left()


@pytest.mark.parametrize("launching", REFILLED, indirect=True)
@pytest.mark.parametrize(
    ("dies", "point"), [(0, "commit.LaunchIntended.after"), (1, "aws.{}.after")]
)
def test_one_of_two_workers_dies(sites: tuple[Site, Site], dies: int, point: str) -> None:
    """In the middle of its launch, whether it has the first account's lease or the other's: who is
    left takes it over within the lease time, and nothing doubles."""
    worlds = [site.world for site in sites]
    one, other = worlds
    requests = [one.request(N) for _ in range(4)]
    unlucky, left = worlds[dies], worlds[1 - dies]
    (worker,) = unlucky.workers
    with unlucky.dying_at(point.format(one.action)), pytest.raises(crash_points.Crash):
        run_both(unlucky, unlucky, 100, lambda: False)
    unlucky.kill(worker)
    took = run_both(one, other, 100, lambda: held(left) == [HOME, AWAY])
    assert took <= LEASE_TIME + 5
    run_both(one, other, 600, lambda: all(succeeded(one, r) for r in requests))
    assert len(one.live()) == 4 * N
    one.assert_agreement()
    left.leave_nothing()


def test_one_of_two_workers_is_paused(sites: tuple[Site, Site]) -> None:
    """Between its intent and its call; the other takes its account over and asks for the same
    machines with the same token. Awake again, it can record nothing, in no account."""
    one, other = (site.world for site in sites)
    (paused,) = one.workers
    request_id = one.request(N)

    def meanwhile() -> None:
        one.workers.remove(paused)
        other.run(200, lambda: succeeded(other, request_id))

    with one.pausing_at("aws.RunInstances.before", meanwhile):
        one.run(50, lambda: paused not in one.workers)
    one.workers.append(paused)
    run_both(one, other, 10, lambda: not paused.lease.held)
    one.kill(paused)
    assert succeeded(other, request_id)
    assert len(one.live()) == N
    assert [len(e["instances"]) for e in one.events("LaunchAccepted")] == [N]
    other.run(100, step=5.0)
    one.assert_agreement()


def test_two_workers_want_the_same_demand(sites: tuple[Site, Site]) -> None:
    """One has chosen its account and is slow to say so; it has its lease still when the other,
    which waited long enough, launches elsewhere. The slow one's intent is refused."""
    here, there = sites
    one, other = here.world, there.world
    (slow,) = one.workers
    request_id = one.request(N)

    def meanwhile() -> None:
        one.workers.remove(slow)
        other.run(45, lambda: bool(other.events("LaunchAccepted")))
        one.workers.append(slow)

    with one.pausing_at("demand.divided", meanwhile):
        one.run(50, lambda: bool(one.events("LaunchIntended")))
    assert [e["account"] for e in one.events("LaunchIntended")] == ["away"]
    run_both(one, other, 300, lambda: succeeded(one, request_id))
    assert (held(one), held(other)) == ([HOME], [AWAY])
    assert here.lives() == {"away": N}
    one.assert_agreement()
