"""Who may read the ledger without the administrator's account."""

from __future__ import annotations

import gc
import grp
import json
import os
import re
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from infrastructure.sharing import DIRECTORY, FILE
from interfaces.write_side.container import WriteSide
from interfaces.write_side.start import check_start
from tests.interfaces.commands import Run, fulfilled, refused
from tests.stores import Place
from tests.world import World

STRANGER = 54321
GUIDE = Path(__file__).parents[2] / "docs/how-to/keep-and-archive-history.md"


@pytest.fixture
def group() -> grp.struct_group:
    """Not that of the files so far, where we may choose."""
    own = os.getegid()
    return next((g for g in grp.getgrall() if os.geteuid() == 0 and g.gr_gid), grp.getgrgid(own))


@pytest.fixture
def site(group: grp.struct_group, store_kind: str) -> Iterator[World]:
    """Of which all but the store's directory may be entered by everybody."""
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    root.chmod(0o755)
    place = Place(store_kind, {"strategy": store_kind, "group": group.gr_name})
    world = World(root / "site", place=place)
    yield world
    world.close()
    shutil.rmtree(root)


def as_another(groups: list[int], act: Callable[[], object]) -> str:
    """What a process of another user says, a member of these groups alone. Where we may not be
    somebody else it is one of ours."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups(groups)
                os.setgid(groups[0])
                os.setuid(STRANGER)
            text = str(act())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(into, text.encode())
        os._exit(0)
    os.close(into)
    with open(out) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def test_a_group_reads_the_store_and_changes_nothing(
    site: World, make_run: Callable[[World], Run], group: grp.struct_group
) -> None:
    """While it is in use, when it was closed, and with what a killed process left behind it; who is
    not of the group reads nothing."""
    run = make_run(site)
    fulfilled(site, 1)
    start = WriteSide(site=site.site, environ=site.environ, process="worker")
    with closing(start.store()):
        check_start(start)
    ledger = Path(site.path)
    assert ledger.stat().st_mode & 0o7777 == FILE
    assert ledger.parent.stat().st_mode & 0o7777 == DIRECTORY
    assert {p.stat().st_gid for p in (ledger, ledger.parent)} == {group.gr_gid}

    def positions() -> object:
        answer = run("audit", "tail", "--output", "json")
        assert answer.status == 0, answer.err
        return [event["position"] for event in answer.document["events"]]

    expected = str(positions())
    for path in ledger.parent.glob("ledger.db-*"):
        assert path.stat().st_mode & 0o777 == FILE
    assert as_another([group.gr_gid], positions) == expected  # a worker has it open
    if os.geteuid() == 0:
        assert "readonly" in as_another([group.gr_gid], lambda: _write(site)).lower()
        assert "ermission denied" in as_another([STRANGER], positions)
    site.leave_nothing()
    for worker in list(site.workers):
        site.kill(worker)
    gc.collect()
    site.storage().compact()
    assert not Path(site.path + "-wal").exists()
    expected = str(positions())
    assert as_another([group.gr_gid], positions) == expected
    _write_and_die(site)
    assert Path(site.path + "-wal").stat().st_size
    assert as_another([group.gr_gid], positions) == str(positions()) != expected


def _write(site: World) -> None:
    connection = sqlite3.connect(site.path)
    connection.execute("DELETE FROM events")


def _write_and_die(site: World) -> None:
    child = os.fork()
    if child == 0:
        site.request(1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("store_kind", ["json"], indirect=True)
def test_a_group_reads_the_log_of_json_lines(
    site: World, make_run: Callable[[World], Run], group: grp.struct_group
) -> None:
    """And the ledger beside it, but not the bodies of user data."""
    run = make_run(site)
    request_id, _ = fulfilled(site, 1)
    assert run("store", "migrate").status == 0

    def shown() -> object:
        answer = run("requests", "show", request_id, "--output", "json")
        return answer.out + answer.err

    assert as_another([group.gr_gid], shown) == shown()
    directory = Path(site.storage().path)
    assert (directory / "log.jsonl").stat().st_mode & 0o777 == FILE
    if os.geteuid() == 0:
        assert "denied" in as_another([STRANGER], shown)
        assert "denied" in as_another(
            [group.gr_gid], lambda: open(directory / "log.jsonl", "ab").close()
        )


def test_a_group_that_is_not_there(world: World, run: Run) -> None:
    world.write_own_config({"storage": {"group": "no-such-group"}})
    refused(run("store", "migrate"), "storage.group", "no-such-group")


def test_a_role_that_may_only_select(
    make_world: Callable[..., World],
    make_run: Callable[[World], Run],
    new_place: Callable[[str], Place],
) -> None:
    """The statements of the guide: every command that reads, no user data, and no change."""
    place = new_place("postgresql")
    world = make_world(place=place)
    request_id, _ = fulfilled(world, 1)
    (block,) = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    with closing(world.storage().event_store(world.clock, {"user": "test"})) as store:
        for statement in block.strip().split(";\n"):
            store.connection.run(statement)
    parts = urlsplit(place.settings["url"])
    host = parts.netloc.rpartition("@")[2]
    place.settings["url"] = urlunsplit(parts._replace(netloc=f"auditor@{host}"))
    world.environ |= place.variables()
    run = make_run(world)
    for words in (
        ("store", "status"),
        ("requests", "show", request_id),
        ("machines", "list"),
        ("audit", "history", request_id),
        ("audit", "export"),
    ):
        answer = run(*words)
        assert answer.status == 0, answer.err
        assert answer.out
    answer = run("requests", "create", "--template", "OnDemand-A", "--count", "1")
    assert answer.status == 1, answer
    assert "permission denied" in answer.err
    with closing(world.storage().log()) as view, pytest.raises(Exception, match="permission"):
        view.bodies()
    with closing(world.storage().log()) as view:
        assert json.loads(view.last_events(1, None)[0]["metadata"])
