"""Fault rows 4, 6, 7, 20, 21 and 23 with real processes, signals and sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forked import (
    ForkedSite,
    Running,
    answered,
    ask,
    at_rest,
    drive,
    give_back,
    known_ids,
    work_for,
    work_until,
)
from tests.stores import Place
from tests.world import TEMPLATE

LEASE_TIME = 60.0


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., ForkedSite]]:
    sites: list[ForkedSite] = []

    def make(**sandbox: Any) -> ForkedSite:
        sandbox = {"boot_time": 10.0, "shutdown_time": 5.0, **sandbox}
        template = {**TEMPLATE, "fulfilmentDeadline": 20000}
        sites.append(ForkedSite(tmp_path / "site", [template], **sandbox))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def succeeded(site: ForkedSite) -> int:
    return sum(
        machine["result"] == "succeed"
        for request_id in known_ids(site)
        for machine in site.status(request_id)["machines"]
    )


def test_fault_04_real_lost_launch_response(make_site: Callable[..., ForkedSite]) -> None:
    """The connection breaks after EC2 has launched: asked again with the token, exactly 3."""
    site = make_site()
    site.sandbox.add_fault("lost_response", action="RunInstances")
    drive(site, ask, "")
    drive(site, work_until(answered, 900), "")

    tokens = {call.client_token for call in site.launches()}
    assert len(site.launches()) == 2
    assert len(tokens) == 1
    assert len(site.live()) == succeeded(site) == 3
    site.assert_agreement()


@pytest.mark.parametrize("point", ["aws.RunInstances.after", "aws.RunInstances.before"])
def test_fault_06_07_real_kill_around_the_launch(
    point: str, make_site: Callable[..., ForkedSite]
) -> None:
    """SIGKILL after the launch and before its event, with a lag of 30 s; and after the intent and
    before the call: exactly 3, one token."""
    site = make_site(visibility_lag=30.0)
    drive(site, ask, "")
    assert drive(site, work_until(answered, 900), point)

    assert len({call.client_token for call in site.launches()}) == 1
    assert len(site.live()) == succeeded(site) == 3
    site.assert_agreement()


def test_fault_20_real_two_workers(make_site: Callable[..., ForkedSite]) -> None:
    """Two workers at once: one acts, nothing is launched twice."""
    site = make_site()
    for _ in range(5):
        drive(site, ask, "")
    workers = [Running(site, 60), Running(site, 60)]
    for worker in workers:
        worker.wait()

    assert len(site.live()) == 15
    assert len({call.client_token for call in site.launches()}) == len(site.launches())
    drive(site, work_until(answered, 300), "")
    assert succeeded(site) == 15
    site.assert_agreement()


def test_fault_21_real_lost_answer(make_site: Callable[..., ForkedSite]) -> None:
    """requestMachines is killed between commit and answer, and HostFactory asks again: within the
    timeout only the second request's machines live."""
    site = make_site()
    assert drive(site, ask, "answer.requestMachines")
    drive(site, work_until(answered, 900), "")
    drive(site, work_for(900), "")

    (request_id,) = known_ids(site)
    assert site.query("SELECT count(*) FROM requests WHERE kind = 'request'") == [(2,)]
    assert site.live() == {m["machineId"] for m in site.status(request_id)["machines"]}
    assert len(site.live()) == 3
    site.assert_agreement()


def test_fault_23_real_paused_worker(make_site: Callable[..., ForkedSite]) -> None:
    """SIGSTOP between intent and send, while another worker settles and launches again; then the
    first one goes on, and its launch happens late: exactly 3 after settling."""
    site = make_site()
    drive(site, ask, "")
    paused = Running(site, 5, stop_at="aws.RunInstances.before")
    paused.wait_until_stopped()
    # Long enough for the token to be too old: the batch is settled by tag and found empty.
    site.clock.advance(4000)
    drive(site, work_until(answered, 3000), "")
    site.assert_agreement()

    paused.go_on()
    paused.wait()
    assert len(site.live()) == 6
    drive(site, work_for(200), "")

    assert len(site.live()) == 3
    site.assert_agreement()
    drive(site, give_back, "")
    drive(site, work_until(at_rest, 3000), "")
    assert site.live() == set()


@pytest.mark.parametrize("point", ["commit.LaunchIntended.after", "aws.RunInstances.after"])
def test_fault_20_real_kill_on_postgresql(
    point: str, make_site: Callable[..., ForkedSite], new_place: Callable[[str], Place]
) -> None:
    """SIGKILL in the middle of a launch, on a store that no lock of the dead one's machine tells
    about: the next worker has the lease when it has expired, and goes on with the same token."""
    site = make_site(place=new_place("postgresql"))
    drive(site, ask, "")
    survived, _ = site.process(lambda: work_until(answered, 900)(site), point)
    assert not survived
    died = site.clock.seconds
    drive(site, work_until(lambda s: bool(s.events("LaunchAccepted")), 200), "")
    assert LEASE_TIME - 5 <= site.clock.seconds - died <= LEASE_TIME + 5
    drive(site, work_until(answered, 900), "")

    assert len({call.client_token for call in site.launches()}) == 1
    assert len(site.live()) == succeeded(site) == 3
    site.assert_agreement()


def test_fault_23_real_pause_on_postgresql(
    make_site: Callable[..., ForkedSite], new_place: Callable[[str], Place]
) -> None:
    """SIGSTOP between the launch and its event; past the lease another worker asks with the same
    token and records what there is. The first one wakes and can write nothing."""
    site = make_site(place=new_place("postgresql"))
    drive(site, ask, "")
    paused = Running(site, 5, stop_at="aws.RunInstances.after")
    paused.wait_until_stopped()
    drive(site, work_until(answered, 900), "")
    before = site.topics()

    paused.go_on()
    paused.wait()
    assert site.topics() == before
    assert site.topics().count("LaunchAccepted") == 1
    assert len({call.client_token for call in site.launches()}) == 1
    assert len(site.live()) == succeeded(site) == 3
    site.assert_agreement()
