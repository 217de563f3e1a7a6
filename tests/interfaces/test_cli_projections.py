"""`hostledger projections list | rebuild | verify` and `replay` as an operator uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from application.projections import VERSIONS
from infrastructure.event_store.sqlite import SqliteEventStore
from infrastructure.event_store.sqlite_file import sqlite
from tests.interfaces.commands import Run, fulfilled, refused
from tests.world import World

ROOT = Path(__file__).parents[2]


def change(world: World, statement: str) -> None:
    with closing(sqlite.connect(world.path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_read_models_are_listed(world: World, run: Run) -> None:
    fulfilled(world, 1)
    change(world, "INSERT INTO projections VALUES ('machines', 3, 'KeyError: name')")
    answer = run("projections", "list", "--output", "json")
    rows = {row["name"]: row for row in answer.document["projections"]}
    end = rows["requests"]["position"]
    assert rows.keys() == VERSIONS.keys()
    assert (rows["requests"]["lag"], rows["requests"]["failed_at"]) == (0, None)
    assert (rows["machines"]["position"], rows["machines"]["lag"]) == (2, end - 2)
    assert rows["machines"]["error"] == "KeyError: name"
    assert "KeyError: name" in run("projections", "list").out


def test_what_differs_is_told_and_made_anew(world: World, run: Run) -> None:
    """`verify` changes nothing and names the first difference; `rebuild` mends it, and lets a
    failed projection go on."""
    _, (machine_id, *_) = fulfilled(world, 2)
    change(world, f"UPDATE machines SET zone = 'us-moon-1' WHERE machine_id = '{machine_id}'")
    change(world, "INSERT INTO projections VALUES ('brake', 1, 'it was broken')")
    refused(run("requests", "list"), "brake", "projections rebuild")

    told = run("projections", "verify", "--output", "json")

    assert told.status == 1
    assert told.document["differences"] == 1
    first = told.document["first"]
    assert (first["table"], first["key"], first["column"]) == ("machines", machine_id, "zone")
    assert (first["live"], first["rebuilt"]) == ("us-moon-1", "us-east-1a")
    assert "projections rebuild" in told.err
    assert run("projections", "verify").status == 1, "nothing was repaired"
    rebuilt = run("projections", "rebuild", "--output", "json")
    assert (rebuilt.status, rebuilt.document["rows_exchanged"]) == (0, 1)
    assert "of" in rebuilt.err, "how far it is"
    assert run("projections", "verify").status == 0
    assert run("requests", "list").status == 0
    assert not [n for n in os.listdir(world.site.state_dir) if n.endswith(".db") and "reb" in n]


def test_one_rebuild_at_a_time(world: World, run: Run) -> None:
    from infrastructure.read_models.replica import alone

    with alone(f"{world.site.state_dir}/rebuild-{world.deployment}.db"):
        refused(run("projections", "rebuild"), "another process")


def test_a_worker_rebuilds_after_an_upgrade(world: World) -> None:
    """Rows that another version of a projection made are built anew before the first turn; reads
    are answered all the time."""
    request_id, _ = fulfilled(world, 2)
    world.kill(world.workers[0])
    before = world.status(request_id)
    change(world, "UPDATE projection_versions SET version = 0 WHERE name = 'machines'")
    change(world, "UPDATE machines SET zone = 'of old', units = 7")
    assert world.status(request_id) == before
    world.start_worker()
    world.tick()
    assert world.query("SELECT DISTINCT zone, units FROM machines") == [("us-east-1a", 1)]
    assert world.query("SELECT version FROM projection_versions WHERE name = 'machines'") == [
        (VERSIONS["machines"],)
    ]


def test_an_inline_turn_rebuilds_after_an_upgrade(make_world: Callable[..., World]) -> None:
    world = make_world(settings={"HOSTLEDGER_WORKER__MODE": "inline"})
    request_id = world.request(1)
    change(world, "UPDATE projection_versions SET version = 0 WHERE name = 'requests'")
    change(world, "UPDATE requests SET created_at = 'of old'")
    world.status(request_id)
    assert world.query("SELECT version FROM projection_versions WHERE name = 'requests'") == [
        (VERSIONS["requests"],)
    ]
    assert world.query("SELECT 1 FROM requests WHERE created_at = 'of old'") == []


# -- the world as it was --------------------------------------------------------------------------


def test_the_world_is_as_it_was(world: World, run: Run, tmp_path: Path) -> None:
    """Up to a position or a time; asked with the same commands, and inert."""
    early = world.request(1)
    (asked,) = world.query("SELECT position, recorded_at FROM events WHERE stream LIKE 'request-%'")
    world.clock.advance(5.0)
    late = world.request(2)
    whens = {"position": str(asked[0]), "time": asked[1]}
    for name, when in whens.items():
        place = f"sqlite:{tmp_path}/{name}.db"
        answer = run("replay", "--until", when, "--into", place, "--output", "json")
        assert (answer.status, answer.document["position"]) == (0, asked[0])
        then = run("--store", place, "requests", "list", "--output", "json").document["requests"]
        assert [row["request_id"] for row in then] == [early]
        refused(run("--store", place, "requests", "show", late), late)
        assert run("--store", place, "requests", "list", "--as-of", "1").out == "no request\n"
        assert run("--store", place, "store", "status", "--output", "json").document["inert"]
        assert run("--store", place, "projections", "verify").status == 0
        refused(run("--store", place, "requests", "cancel", early, "--reason", "x"), "only read")
    again = run("replay", "--until", str(asked[0]), "--into", f"sqlite:{tmp_path}/time.db")
    assert again.status == 0
    refused(run("replay", "--until", "1", "--into", f"sqlite:{tmp_path}/time.db"), "beyond event 1")
    refused(run("replay", "--until", "soon", "--into", f"sqlite:{tmp_path}/x.db"), "soon", "time")
    assert len(run("requests", "list", "--output", "json").document["requests"]) == 2


def test_user_data_is_not_in_a_replay(world: World, run: Run, tmp_path: Path) -> None:
    fulfilled(world, 1)
    with closing(SqliteEventStore(world.path, world.clock, {})) as store:
        store.append([], bodies={"d" * 64: b"secret"}, tracking=("test", 1))
    place = f"{tmp_path}/then.db"
    assert run("replay", "--until", "2101-01-01", "--into", f"sqlite:{place}").status == 0
    with closing(sqlite.connect(place)) as connection:
        assert connection.execute("SELECT count(*) FROM bodies").fetchone() == (0,)


ALONE = """
import sys
FORBIDDEN = ("boto", "infrastructure.aws", "infrastructure.sandbox", "application.policies",
             "application.turn", "application.provisioning", "application.returning",
             "application.reconciliation", "interfaces.worker")
def watch(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.fork"):
        raise SystemExit(f"a replay did {event} {arguments}")
    if event == "import" and arguments[0].startswith(FORBIDDEN):
        raise SystemExit(f"a replay imported {arguments[0]}")
sys.addaudithook(watch)
from interfaces.cli.main import main
for words in {words}:
    if main(words):
        raise SystemExit(f"{words} failed")
"""


def test_a_replay_calls_nobody_and_decides_nothing(world: World, tmp_path: Path) -> None:
    """With the network and all that decides or calls AWS denied, everything is replayed; and not
    one event is recorded by it."""
    fulfilled(world, 2)
    change(world, "UPDATE projection_versions SET version = 0 WHERE name = 'machines'")
    end = world.query("SELECT max(position) FROM events")
    words = [
        ["projections", "rebuild"],
        ["projections", "verify"],
        ["projections", "list"],
        ["replay", "--until", "2101-01-01", "--into", f"sqlite:{tmp_path}/then.db"],
    ]
    environ: dict[str, Any] = {
        **os.environ,
        **world.environ,
        "HF_PROVIDER_NAME": world.site.provider,
        "HF_PROVIDER_CONFDIR": world.site.conf_dir,
        "HF_PROVIDER_WORKDIR": world.site.work_dir,
        "HF_PROVIDER_LOGDIR": world.site.log_dir,
    }
    done = subprocess.run(
        [sys.executable, "-c", ALONE.replace("{words}", json.dumps(words), 1)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert world.query("SELECT max(position) FROM events") == end
