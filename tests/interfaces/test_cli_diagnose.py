"""`hostledger diagnose`: each answer names the cause that was planted."""

from __future__ import annotations

import argparse
import json
import os
import pstats
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers

from infrastructure.telemetry.journal import Journal
from infrastructure.telemetry.slow_statements import NOTED_AS, SlowStatements
from interfaces.cli import options
from interfaces.cli.main import main
from tests.interfaces.commands import Run, fulfilled, refused
from tests.processes import ProcessSite, wait_until
from tests.stores import STORES
from tests.world import TEMPLATE, World

EVERY_STORE = STORES
NOWHERE = "http://127.0.0.1:1"
"""An endpoint that refuses every connection at once."""

PLANT = (
    "CREATE TABLE planted (x BIGINT)",
    "INSERT INTO planted WITH RECURSIVE n (x) AS "
    "(SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000) SELECT x FROM n",
)
SLOW = "SELECT count(*) FROM planted a, planted b\n WHERE a.x < b.x AND a.x > ?"
"""Nine million pairs, without an index."""


@pytest.mark.stores("sqlite", "sql", "postgresql", "json")
def test_a_slow_statement_is_named_with_its_plan(world: World, run: Run, store_kind: str) -> None:
    """Of a worker and of a command; the values that it was asked with are in no log."""
    store = world.start_worker().store
    for statement in PLANT:
        store.connection.execute(statement)
    store.connection.execute(SLOW, (-987654321,)).fetchone()

    (row,) = _planted(run)

    mark = "%s" if store_kind == "postgresql" else "?"
    assert row["sql"] == " ".join(SLOW.replace("?", mark).split())
    assert row["count"] == 1
    assert row["duration"] >= 0.1
    plan = "\n".join(row["plan"])
    assert "SCAN" in plan.upper()
    assert "planted" in plan or "SCAN b" in plan
    assert "-987654321" not in Path(world.site.log_file).read_text()
    shown = run("diagnose", "slow-queries").out
    assert row["sql"] in shown
    assert row["plan"][-1] in shown
    command = argparse.Namespace(provider=None, config=None, store=None, command="machines")
    with closing(options.reading(command).log()) as view:
        view._rows(SLOW, (0,))
    (row,) = _planted(run)
    assert row["count"] == 2
    assert run("diagnose", "slow-queries", "--since", "2999-01-01").out == "no statement was slow\n"


def _planted(run: Run) -> list[dict[str, Any]]:
    answer = run("diagnose", "slow-queries", "--output", "json")
    assert answer.status == 0, answer.err
    return [row for row in answer.document["statements"] if "planted a" in row["sql"]]


@pytest.mark.stores("sqlite", "postgresql", "json")
def test_all_that_a_worker_asks_can_be_explained(world: World, run: Run) -> None:
    """Each of its statements has a plan, and none has a value in it."""
    journal = Journal(world.site.log_file, {"level": "INFO", "max_file_size": 10, "max_rotate": 1})
    storage = world.storage()
    storage.watch = SlowStatements(journal, long=0.0)
    world.start_worker(storage=providers.Object(storage))
    request_id, machine_ids = fulfilled(world, 2)
    said = {line["sql"] for line in journal.lines(NOTED_AS, "")}
    text = "\n".join(said)
    assert len(said) > 30
    for value in (request_id, *machine_ids, world.deployment, "OnDemand-A"):
        assert value not in text
    with closing(world.storage().log()) as view:
        plans = {sql: view.plan(sql) for sql in said}
    assert [lines for lines in plans.values() if any("no plan" in line for line in lines)] == []
    planned = [sql for sql in said if sql.startswith(("SELECT", "INSERT", "UPDATE"))]
    assert planned
    assert all(plans[sql] for sql in planned if not sql.startswith("INSERT"))


@pytest.mark.stores("dynamodb")
def test_dynamodb_has_no_statements(world: World, run: Run) -> None:
    """It is said where to look instead."""
    refused(run("diagnose", "slow-queries"), "DynamoDB", "CloudWatch")


@pytest.mark.stores("sqlite")
def test_an_api_that_fails_and_one_that_is_slow_are_named(world: World, run: Run) -> None:
    """By the rate of errors with AWS's names for them, and by the time to answer."""

    def attach(client: Any) -> None:
        world.sandbox.attach(client)
        client.meta.events.register(
            "before-send.ec2.DescribeInstances", lambda **_: world.clock.advance(4.0)
        )

    world.sandbox.add_fault("e503", action="RunInstances", times=2)
    world.start_worker(on_client=providers.Object(attach))
    fulfilled(world, 1)
    world.workers[0].end()
    world.workers.clear()

    document = run("diagnose", "aws", "--output", "json").document

    assert [row["api"] for row in document["apis"]][:2] == ["RunInstances", "DescribeInstances"]
    failing, slow = document["apis"][:2]
    assert (failing["calls"], failing["errors"], failing["error_rate"]) == (3, 2, 66.67)
    assert failing["codes"] == {"Unavailable": 2}
    assert failing["avg_response_time"] == 0.0
    assert (slow["errors"], slow["avg_response_time"], slow["p95"]) == (0, 4.0, 4.0)
    assert document["calls"] == sum(row["calls"] for row in document["apis"])
    assert document["error_rate"] == round(200 / document["calls"], 2)
    assert 0 < document["avg_response_time"] < 4.0
    shown = run("diagnose", "aws").out
    assert "Unavailable=2" in shown


@pytest.mark.stores("sqlite")
def test_what_is_not_noted_is_said(
    world: World, make_run: Callable[[World], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A level that leaves out the lines, and an instance whose log nobody knows."""
    world.environ["HOSTLEDGER_LOGGING__LEVEL"] = "WARN"
    answer = make_run(world)("diagnose", "aws", "--output", "json")
    assert "logging.level is WARN" in answer.err
    assert (answer.document["calls"], answer.document["error_rate"]) == (0, None)
    del world.environ["HOSTLEDGER_LOGGING__LEVEL"]
    monkeypatch.delenv("HOSTLEDGER_LOGGING__LEVEL")
    run = make_run(world)
    monkeypatch.setenv("HF_PROVIDER_LOGDIR", "")
    refused(run("diagnose", "aws"), "HF_PROVIDER_LOGDIR")


# -- memory ---------------------------------------------------------------------------------------

LEAKY = """
import os
from interfaces.worker.loop import Worker
from interfaces.write_side.container import site_from

class Cache:
    def __init__(self):
        self.never_emptied = []

cache = Cache()
worker = Worker(site_from(os.environ), os.environ)

def sleep(seconds):
    cache.never_emptied += [[number] for number in range(1000)]
    worker.clock.sleep(seconds)

worker.run(sleep)
"""


@pytest.fixture
def leaking(tmp_path: Path) -> Iterator[ProcessSite]:
    """A site with a living worker that keeps what it should let go of, and a server."""
    settings = {
        "HOSTLEDGER_WORKER__MODE": "external",
        "HOSTLEDGER_SERVER__SOCKET": f"{tmp_path}/socket",
    }
    site = ProcessSite(tmp_path, NOWHERE, settings=settings)
    serve = [sys.executable, "-m", "interfaces.cli.main", "server", "run"]
    worker = subprocess.Popen([sys.executable, "-c", LEAKY], env=site.environ)
    server = subprocess.Popen(serve, env=site.environ, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert b"listening" in server.stdout.readline()
        wait_until(site.worker_pid)
        yield site
    finally:
        for process in (worker, server):
            process.kill()
            process.communicate()


@pytest.mark.stores("sqlite")
def test_a_leaked_list_of_a_living_worker_is_named(
    leaking: ProcessSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By whose attribute it is, by what is in it and by the line that makes it. A server answers
    too; both go on, and nothing is left beside them."""
    for name, value in leaking.environ.items():
        monkeypatch.setenv(name, value)
    pid = leaking.worker_pid()

    assert main(["diagnose", "memory", "--interval", "1", "--output", "json"]) == 0

    rows = {row["process"]: row for row in json.loads(capsys.readouterr().out)["processes"]}
    assert rows.keys() == {"worker", "server"}
    assert {"containers", "types", "sites"} <= rows["server"].keys()
    row = rows["worker"]
    assert row["pid"] == pid
    assert 0 < row["rss"] < row["vms"]
    container = row["containers"][0]
    assert container["held_by"] == "__main__.Cache.never_emptied"
    assert container["grew"] >= 900
    kind = row["types"][0]
    assert kind["type"] == "list"
    assert kind["held_by"][0].endswith(": __main__.Cache.never_emptied")
    assert row["sites"][0]["site"] == "<string>:14"
    assert leaking.worker_pid() == pid
    assert [name for name in os.listdir(leaking.state) if name.startswith("memory")] == []


@pytest.mark.stores("sqlite")
def test_no_process_to_look_at(world: World, run: Run) -> None:
    refused(run("diagnose", "memory", "--interval", "1"), "no process", "worker run")
    assert run("diagnose", "memory", "--interval", "0").status == 2


# -- a verb in a fresh process --------------------------------------------------------------------


@pytest.mark.stores("sqlite", "postgresql")
def test_a_heavy_import_is_named(world: World, run: Run, store_kind: str) -> None:
    """A driver that one store needs and the other does not, with the time that it takes."""
    answer = run("diagnose", "startup", "getAvailableTemplates", "--output", "json")

    assert (answer.status, answer.err) == (0, "")
    rows = {row["module"]: row for row in answer.document["modules"]}
    assert ("psycopg2" in rows) == (store_kind == "postgresql")
    assert rows["interfaces.read_side"]["cumulative_ms"] > rows["interfaces.read_side"]["self_ms"]
    times = [row["cumulative_ms"] for row in answer.document["modules"]]
    assert times == sorted(times, reverse=True)
    assert "encodings" not in rows, "a bare Python has it too"
    assert answer.document["ratio"] > 0


@pytest.mark.stores("sqlite")
def test_where_the_time_of_a_verb_goes(world: World, run: Run, tmp_path: Path) -> None:
    """Templates that must be compiled first, in the list and in the file."""
    world.write_templates([{**TEMPLATE, "templateId": f"T-{number}"} for number in range(300)])
    file = tmp_path / "verb.prof"
    options_ = ("--to", str(file), "--output", "json")

    answer = run("diagnose", "profile", "getAvailableTemplates", *options_)

    assert (answer.status, answer.err) == (0, "")
    functions = answer.document["functions"]
    assert len(functions) == 10
    assert any("infrastructure/compilation.py" in row["function"] for row in functions)
    stats: Any = pstats.Stats(str(file))
    assert any(name[0].endswith("templates/ibm.py") for name in stats.stats)
    again = run("diagnose", "profile", "getAvailableTemplates", "--output", "json").document
    assert not any("compilation.py" in row["function"] for row in again["functions"])
    assert again["file"] is None


@pytest.mark.stores("sqlite")
def test_a_verb_that_changes_something_is_done_once_and_only_when_told(
    world: World, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "input.json"
    ask = {"template": {"templateId": "OnDemand-A", "machineCount": 1}}
    file.write_text(json.dumps(ask))
    for number, action in enumerate(("startup", "profile")):
        unasked = run("diagnose", action, "requestMachines")
        assert unasked.status == 2
        assert "-f FILE" in unasked.err
        assert len(world.events("MachinesRequested")) == number
        assert run("diagnose", action, "requestMachines", "-f", str(file)).status == 0
        assert len(world.events("MachinesRequested")) == number + 1
    file.write_text("{}")
    answer = run("diagnose", "profile", "requestMachines", "-f", str(file))
    assert "requestMachines failed" in answer.err
    assert "template must be an object" in answer.err
