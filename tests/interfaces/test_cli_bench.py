"""`hostledger bench` from its start to its end, with little of each measured. Nothing here is
timed: figures are there, and mean what they say they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interfaces.bench import comparing, requirements, telling
from interfaces.bench.measures import QUICK
from interfaces.bench.sites import Workshop
from interfaces.cli.bench import _storage
from tests.interfaces.commands import Answer, refused

PARTS = ("requests", "polls", "scripts", "load", "aws_calls", "replay", "memory", "counts")
STORES = ("sqlite", "json", "dynamodb")


def bench(directory: Path, *words: str, **environ: str) -> Answer:
    """The command as a process, which keeps what it needs in `directory`/tmp."""
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", "bench", "--quick", *words],
        env={**os.environ, "TMPDIR": str(temporary), "HOME": str(directory), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert list(temporary.iterdir()) == []
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def answer(directory: Path) -> Answer:
    """One run, that the tests below look at."""
    saved, plot = str(directory / "results.json"), str(directory / "plot.svg")
    answer = bench(
        directory, "--stores", *STORES, "--only", *PARTS, "--save", saved, "--plot", plot
    )
    assert answer.status == 0, answer.err
    return answer


@pytest.fixture
def document(answer: Answer, directory: Path) -> dict[str, Any]:
    """What that run kept."""
    return json.loads((directory / "results.json").read_text())  # type: ignore[no-any-return]


def test_each_store_has_its_figures(document: dict[str, Any]) -> None:
    """In their order, for as many as were asked for."""
    for part in ("requests", "polls", "scripts", "load"):
        assert {row["store"] for row in document[part]} == set(STORES), part
        for row in document[part]:
            assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
            assert row["count"] / row["per_second"] > 0 < row["ratio"]
    sqlite, *_ = document["requests"]
    assert (sqlite["count"], sqlite["in_flight"]) == (QUICK.requests, 10)
    assert [row["machines"] for row in document["polls"]] == [50, 100, 50, 100, 10, 20]


def test_a_poll_costs_the_same_statements_on_any_store_size(document: dict[str, Any]) -> None:
    small, large, *_ = (row for row in document["polls"] if row["store"] == "sqlite")

    assert small["statements"] == large["statements"] == document["counts"][
        "statements of a status poll"
    ] > 0  # fmt: skip


def test_calls_and_counts_are_what_the_program_does(document: dict[str, Any]) -> None:
    """They are the same each time: one launch for ten requests, one event for a request."""
    ten, fleet = document["aws_calls"]

    assert ten["actions"]["RunInstances"] == 1
    assert fleet["actions"]["CreateFleet"] == 1
    assert ten["per_machine"] == ten["calls"] / 10 == sum(ten["actions"].values()) / 10
    assert document["counts"]["events of a request"] == 1
    assert document["counts"]["modules of getRequestStatus"] < 60


def test_the_table_explains_itself(answer: Answer, document: dict[str, Any]) -> None:
    """Each part has a title, says what it is, and a line for each row."""
    lines = answer.out.splitlines()

    for table in telling.tables(document):
        start = lines.index(table.title)
        part = lines[start : lines.index("", start) if "" in lines[start:] else None]
        assert " ".join(part).count(table.sentences.split(".")[0]) == 1
        assert len(part) >= 3 + len(table.rows)
    assert "the sandbox's emulator" in answer.out.replace("\n", " ")


def test_the_page_is_that_of_its_json(document: dict[str, Any], directory: Path) -> None:
    """Written beside it, with a table for each part, and a picture of requests and polls: a bar
    each."""
    page = (directory / "results.md").read_text()
    drawn = (directory / "results.svg").read_text()

    assert page == telling.page(document, "results.svg")
    assert page.count("\n## ") == len(PARTS) + 1
    assert drawn == (directory / "plot.svg").read_text()
    assert "JSON" in drawn
    assert drawn.count("<polygon") == 3 + 6


def test_the_requirements_lines_are_theirs(document: dict[str, Any]) -> None:
    """Word for word, with our figures in the place of theirs."""
    document["requests"][1] |= {"mean_ms": 12.3, "p95_ms": 250.0, "per_second": 812.4}
    document["load"][1] |= {"count": 1000, "seconds": 1.234, "per_second": 810.372}
    document["cold_starts"] = [{"command": "hostledger --help", "ms": 25.0, "ratio": 2.9}]

    lines = list(requirements.lines(document))

    at = lines.index("Storage Strategy: JSON")
    assert lines[at + 1 : at + 4] == [
        "- Average response time: 0.012s (requirements: 0.15s)",
        "- 95th percentile: 0.25s (requirements: 0.25s)",
        "- Throughput: 812 requests/second (requirements: 67 requests/second)",
    ]
    assert lines[at + 4].startswith("- Whole scripts: ")
    assert "Processed 1000 requests in 1.23s" in lines
    assert "Throughput: 810.37 requests/second" in lines
    assert lines[-1] == (
        "- hostledger --help: 0.025s (requirements: 0.326s), 2.90 times `python -c pass`, 99% "
        "below 2s (requirements: 85%)"
    )


def test_only_ratios_and_counts_are_compared(document: dict[str, Any]) -> None:
    """Ten times slower on a machine that is ten times slower is no worse; more of a count is."""
    slower = json.loads(json.dumps(document))
    for row in slower["requests"]:
        row |= {"mean_ms": 10 * row["mean_ms"], "per_second": row["per_second"] / 10}
    assert not any(row["worse"] for row in comparing.compare(document, slower))

    slower["requests"][0]["ratio"] *= 2.5
    slower["counts"]["events of a request"] = 2
    worse = [row["what"] for row in comparing.compare(document, slower) if row["worse"]]
    assert worse == ["a request on sqlite", "events of a request"]


def test_what_got_worse_is_named_and_the_exit_says_so(
    document: dict[str, Any], tmp_path: Path
) -> None:
    document["counts"]["modules of requestMachines"] //= 2
    (tmp_path / "old.json").write_text(json.dumps(document))

    answer = bench(tmp_path, "--only", "counts", "--compare", str(tmp_path / "old.json"))

    assert answer.status == 1
    assert "worse: modules of requestMachines" in answer.err
    assert "worse: modules of getRequestStatus" not in answer.err


def test_faults_leave_each_request_its_machine(tmp_path: Path) -> None:
    """Throttles, an error and a killed worker: what the load test under them says is so."""
    answer = bench(tmp_path, "--only", "faults", "--output", "json")

    assert answer.status == 0, answer.err
    (row,) = answer.document["faults"]
    assert set(row["aws_failures"]) == {"throttle", "e500"}
    assert row["killed_after_machines"] >= QUICK.faults // 4
    assert row["fulfilled"] == row["machines"] == QUICK.faults
    assert "ledger and cloud agree" in requirements.agreement(row)
    row |= {"agree": False, "only_in_cloud": 2}
    assert "DIFFER: 2 machines only in the cloud, 0 only" in requirements.agreement(row)


def test_told_to_end_it_leaves_nothing(tmp_path: Path) -> None:
    """Neither what it keeps on the disk nor a worker, as when it is interrupted."""
    with subprocess.Popen(
        [sys.executable, "-m", "interfaces.cli.main", "bench", "--quick", "--only", "faults"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stderr is not None
        assert b"load test under faults" in running.stderr.readline()
        assert [path.name for path in tmp_path.iterdir()]
        running.terminate()

    assert running.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_a_named_place_is_not_told(tmp_path: Path) -> None:
    """It may have a password in it."""
    answer = bench(tmp_path, "--store", "mysql://hf:s3cret@db/x")

    refused(answer, "no store's place")
    assert "s3cret" not in answer.err


def test_durability_is_that_of_a_configuration(tmp_path: Path) -> None:
    """But never its place."""
    config = tmp_path / "own.json"
    own = {"strategy": "json", "json_strategy": {"sync_writes": False, "base_path": "/elsewhere"}}
    config.write_text(json.dumps({"storage": own}))

    with Workshop(str(tmp_path), _storage(str(config)), None) as workshop:
        site = workshop.site("json")
        section = site.call("bench").settings["storage"]["json_strategy"]

    assert section["sync_writes"] is False
    assert section["base_path"].startswith(str(site.root))


def test_a_named_store_is_made_and_never_one_that_is_there(tmp_path: Path) -> None:
    """What was measured stays in it, and a second time it is refused."""
    place = f"sqlite:{tmp_path}/ledger.db"
    words = ("--only", "requests", "load", "--requirements", "--store", place)

    answer = bench(tmp_path, *words)

    assert answer.status == 0, answer.err
    assert "Storage Strategy: SQLite" in answer.out
    assert (tmp_path / "ledger.db").exists()
    again = bench(tmp_path, *words)
    assert (again.status, again.out) == (1, "")
    assert f"{tmp_path}/ledger.db" in again.err.splitlines()[-1]


def test_a_site_of_the_environment_is_not_touched(tmp_path: Path) -> None:
    """Nor does its configuration count."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "hostledger.json").write_text("no JSON")
    places = {f"HF_PROVIDER_{name}DIR": str(site) for name in ("CONF", "WORK", "LOG")}

    answer = bench(
        tmp_path, "--only", "counts", "--output", "json", HF_PROVIDER_NAME="awsinst",
        HOSTLEDGER_CONFIG=f"{site}/hostledger.json", **places,
    )  # fmt: skip

    assert answer.status == 0, answer.err
    assert set(answer.document) >= {"machine", "counts", "left_out"}
    assert [path.name for path in site.iterdir()] == ["hostledger.json"]


def test_results_that_are_none_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("[1]")

    refused(bench(tmp_path, "--compare", str(tmp_path / "old.json")), "old.json", "--save")


def test_orb_that_cannot_be_installed_is_left_out(tmp_path: Path) -> None:
    """The rest goes on, and the output says why."""
    answer = bench(
        tmp_path, "--only", "counts", "--beside-orb", "--output", "json",
        PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull,
    )  # fmt: skip

    assert answer.status == 0, answer.err
    (left,) = answer.document["left_out"]
    assert left["what"] == "ORB"
    assert "orb-py cannot be had here" in left["why"]
    assert answer.document["counts"]
