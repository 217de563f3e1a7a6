"""What each key of `performance.lazy_loading` does, seen from outside: what a process has imported,
whom it has called, what its log says. Nothing here is timed.

As a script it prints what a start imports and how long it takes, in starts of a bare Python:

    PYTHONPATH=. python tests/performance/test_lazy_loading_performance.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, get_args

import pytest

from infrastructure.configuration import environment_name
from infrastructure.settings.performance import Component
from interfaces.components import ALIASES
from interfaces.loading import OURS
from interfaces.write_side.container import WriteSide
from tests.performance.recording_proxy import action_of
from tests.processes import ROOT, ProcessSite

HOSTLEDGER = Path(sys.executable).parent / "hostledger"
NOBODY = "http://127.0.0.1:9"

STARTED = """
import json, os, sys
from interfaces.worker.main import start
from interfaces.read_side import site_from
worker = start(site_from(os.environ), os.environ)
print(json.dumps(sorted(sys.modules) if worker else []))
"""
"""A worker that has started and taken no turn."""


class Started(NamedTuple):
    status: int
    modules: frozenset[str]
    errors: str
    log: list[dict[str, Any]]

    @property
    def loaded(self) -> list[str]:
        """The components that the log tells of, in their order."""
        return [row["component"] for row in self.log if row["what"] == "loaded"]

    @property
    def threads(self) -> set[str]:
        return {row["thread"] for row in self.log if row["what"] == "loaded"}


def new_site(root: Path, endpoint: str = NOBODY) -> ProcessSite:
    return ProcessSite(root, endpoint, settings={"HOSTLEDGER_WORKER__MODE": "external"})


def variables(**keys: Any) -> dict[str, str]:
    """Keys of `performance.lazy_loading` as the environment has them."""
    return {
        environment_name(f"performance.lazy_loading.{key}"): json.dumps(value).strip('"')
        for key, value in keys.items()
    }


def log_of(site: ProcessSite) -> list[dict[str, Any]]:
    path = site.root / "log/hostledger.awsinst.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def start(site: ProcessSite, more: dict[str, str] | None = None, **keys: Any) -> Started:
    """A worker's start under these keys."""
    noted = len(log_of(site))
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        cwd=ROOT,
        env={**site.environ, **variables(**keys), **(more or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    modules = json.loads(done.stdout) if done.returncode == 0 else []
    return Started(
        1 if done.returncode == 0 and not modules else done.returncode,
        frozenset(modules),
        done.stderr,
        log_of(site)[noted:],
    )


# -- the tests ------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> ProcessSite:
    return new_site(tmp_path)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Started:
    """A start at the defaults."""
    return start(new_site(tmp_path_factory.mktemp("usual")))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Started:
    """The same with `debug_timing`."""
    return start(new_site(tmp_path_factory.mktemp("told")), debug_timing=True)


def test_a_start_loads_what_it_uses(usual: Started) -> None:
    """No way to launch, no other store, no policy, nothing of the server, and of the container's
    neighbours none that a worker never needs; and it says nothing."""
    assert (usual.status, usual.errors, usual.log) == (0, "", [])
    assert not usual.modules & {
        "application.policies",
        "fastapi",
        "infrastructure.aws.fleets",
        "infrastructure.aws.groups",
        "infrastructure.aws.run_instances",
        "infrastructure.aws.spot_fleets",
        "infrastructure.telemetry.memory",
        "interfaces.write_side.configuration",
        "interfaces.write_side.copies",
        "interfaces.write_side.processes",
        "interfaces.write_side.server",
        "interfaces.write_side.simulation",
        "psycopg2",
        "sqlalchemy",
    }


def test_not_enabled_loads_everything_at_the_start(site: ProcessSite, usual: Started) -> None:
    """`enabled`."""
    eager = start(site, enabled=False)

    new = eager.modules - usual.modules
    assert {"application.policies", "infrastructure.telemetry.memory"} < new
    assert "psycopg2" not in new


def test_eager_discovery_imports_every_way_and_store(site: ProcessSite, usual: Started) -> None:
    """`discovery_mode`."""
    eager = start(site, discovery_mode="eager")

    assert eager.modules - usual.modules > {
        "infrastructure.aws.fleets",
        "infrastructure.aws.groups",
        "infrastructure.aws.run_instances",
        "infrastructure.aws.spot_fleets",
        "infrastructure.event_store.dynamodb",
        "infrastructure.event_store.json_lines",
        "infrastructure.event_store.postgresql",
        "psycopg2",
        "sqlalchemy",
    }


def test_a_broken_store_stops_an_eager_start_alone(site: ProcessSite, tmp_path: Path) -> None:
    """`discovery_mode`, where a driver cannot be imported."""
    (tmp_path / "psycopg2.py").write_text("raise ImportError('libpq.so.5 is not there')\n")
    broken = {"PYTHONPATH": str(tmp_path)}

    eager = start(site, broken, discovery_mode="eager")

    assert start(site, broken).status == 0
    assert eager.status == 1
    assert "the store sql cannot be used" in eager.errors
    assert "libpq.so.5 is not there" in eager.errors
    assert "Traceback" not in eager.errors
    assert "libpq.so.5" in site.worker_facts()["reason"]


class _Refusing(BaseHTTPRequestHandler):
    """AWS as it answers to wrong credentials, or with another code."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(action_of(self.headers.get("X-Amz-Target"), body))  # type: ignore[attr-defined]
        answer = (
            f"<Response><Errors><Error><Code>{self.server.code}</Code><Message>AWS was not able to "  # type: ignore[attr-defined]
            "validate the provided access credentials</Message></Error></Errors>"
            "<RequestID>1</RequestID></Response>"
        ).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """What is asked is written down."""


@pytest.fixture
def refusing() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    server.asked, server.code = [], "AuthFailure"  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_eager_connections_are_opened_and_checked(tmp_path: Path, refusing: Any) -> None:
    """`connection_mode`: AWS is called, and what it refuses stops the start."""
    site = new_site(tmp_path, f"http://127.0.0.1:{refusing.server_port}")

    lazy, asked_then = start(site), list(refusing.asked)
    eager = start(site, connection_mode="eager")

    assert (lazy.status, asked_then) == (0, [])
    assert (eager.status, refusing.asked) == (1, ["DescribeInstances"])
    assert eager.errors.startswith(
        "AuthFailure: account default, us-east-1: DescribeInstances: AWS was"
    )
    assert site.worker_facts()["reason"] == eager.errors.strip()

    refusing.code = "RequestLimitExceeded"
    assert start(site, connection_mode="eager").status == 0  # AWS is there, and busy


def test_what_is_critical_is_loaded_before_the_rest(site: ProcessSite, told: Started) -> None:
    """`preload_critical`, by our names or the others."""
    begun = start(site, debug_timing=True, preload_critical=["ConfigurationPort", "sightings"])

    assert told.loaded.index("clock") < told.loaded.index("settings")
    assert "sightings" not in told.loaded
    assert begun.loaded[:4] == ["compiled", "journal", "settings", "sightings"]


def test_a_component_that_there_is_not_is_refused_by_name(site: ProcessSite) -> None:
    """`preload_critical`: the message has the right ones."""
    answer = subprocess.run(
        [HOSTLEDGER, "worker", "status"],
        env={**site.environ, **variables(preload_critical=["StoragePort"])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 1
    assert "StoragePort" in answer.stderr
    assert "'storage'" in answer.stderr


def test_the_components_that_can_be_named_are_those_that_there_are() -> None:
    """`preload_critical` takes every one that can be made at the start, and two other names."""
    parts = WriteSide().components().values()

    assert {*get_args(Component)} == {part.name for part in parts if not part.late} | {*ALIASES}


def test_what_keeps_nothing_may_be_made_at_each_use(site: ProcessSite, told: Started) -> None:
    """`cache_instances`: the settings are read by many, the store is one."""
    once = told.loaded
    often = start(site, debug_timing=True, cache_instances=False).loaded

    assert once.count("settings") == 1
    assert often.count("settings") > 2
    assert often.count("store") == often.count("leases") == often.count("clouds") == 1


def test_the_tree_of_what_was_loaded_is_in_the_log(told: Started) -> None:
    """`debug_timing`: what, for whom, how long after the process's start, how long."""
    rows = {row["component"]: row for row in told.log}

    assert rows["storage"]["within"] == "store"
    assert rows["settings"]["within"] == "lease > leases"
    assert "botocore" in rows["clouds"]["libraries"]
    assert rows["lease"]["seconds"] >= rows["leases"]["seconds"] >= rows["leases"]["own_seconds"]
    assert 0 < rows["compiled"]["after"] <= rows["store"]["after"] <= rows["clouds"]["after"]


def test_threads_load_at_an_eager_start(site: ProcessSite) -> None:
    """`max_concurrent_loads`."""
    several = start(site, debug_timing=True, discovery_mode="eager")
    alone = start(site, debug_timing=True, discovery_mode="eager", max_concurrent_loads=1)

    assert len(several.threads) > 1
    assert alone.threads == {"MainThread"}


@pytest.mark.parametrize("value", ["true", ""])
def test_an_operators_command_tells_what_it_loaded(site: ProcessSite, value: str) -> None:
    """`PERFORMANCE_DEBUG`: the tree goes to the log and stdout is as ever."""
    answer = subprocess.run(
        [HOSTLEDGER, "templates", "list", "--output", "json"],
        env={**site.environ, "PERFORMANCE_DEBUG": value},
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = [row["component"] for row in log_of(site) if row["what"] == "loaded"]
    assert json.loads(answer.stdout)
    assert loaded == (["interfaces.cli.templates", "call"] if value else [])


def files_of_server(site: ProcessSite, **keys: Any) -> list[str]:
    """What a server that has just begun to listen has open."""
    server = subprocess.Popen(
        [HOSTLEDGER, "server", "run"],
        env={**site.environ, "HOSTLEDGER_SERVER__PORT": "0", **variables(**keys)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        try:
            if server.stdout is not None and server.stdout.readline().startswith("hostledger: l"):
                return [os.readlink(f) for f in Path(f"/proc/{server.pid}/fd").iterdir()]
            raise AssertionError("it does not listen")
        finally:
            server.terminate()


def test_a_server_loads_and_connects_when_it_is_told_to(site: ProcessSite) -> None:
    """`enabled` and `connection_mode` in the server: the store is open before anybody asks, and the
    parts that collect its figures are loaded."""
    assert site.path not in files_of_server(site, debug_timing=True)
    lazy = [row["component"] for row in log_of(site) if row["what"] == "loaded"]
    files = files_of_server(site, debug_timing=True, enabled=False, connection_mode="eager")
    eager = [row["component"] for row in log_of(site) if row["what"] == "loaded"][len(lazy) :]

    assert files.count(site.path) == 2  # for questions and for commands
    assert set(lazy) == {"interfaces.cli.server", "interfaces.rest", "call", "app"}
    assert {"monitoring", "ledger", "connection for commands"} < set(eager)
    assert "turns" not in eager  # which are a worker's


def test_a_broken_way_to_launch_stops_an_eager_server(site: ProcessSite, tmp_path: Path) -> None:
    """`discovery_mode` in the server."""
    (tmp_path / "boto3.py").write_text("raise ImportError('half of it is missing')\n")
    answer = subprocess.run(
        [HOSTLEDGER, "server", "run"],
        env={
            **site.environ,
            "PYTHONPATH": str(tmp_path),
            "HOSTLEDGER_SERVER__PORT": "0",
            **variables(discovery_mode="eager"),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 1
    assert "RunInstances cannot be used: boto3 is not imported: half of it" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_script_prints_what_it_measured() -> None:
    """The command of the requirements, as it is written there."""
    done = subprocess.run(
        [sys.executable, "tests/performance/test_lazy_loading_performance.py", "--runs", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for name in VARIANTS:
        assert name in done.stdout
    assert "botocore" in done.stdout


# -- the script -----------------------------------------------------------------------------------


def _verb(site: ProcessSite, root: Path = ROOT, *options: str) -> None:
    """As `interfaces/hostfactory/scripts/run` starts it, with further options of Python's."""
    base = getattr(sys, "_base_executable", sys.executable)
    main = root / "interfaces/hostfactory/main.py"
    command = [base, "-I", "-S", *options, main, sys.executable, "getAvailableTemplates"]
    subprocess.run(
        [*command, "-f", site.input({})], env=site.environ, capture_output=True, check=True
    )


def _uncompiled_verb(site: ProcessSite) -> None:
    """From files that were never compiled, where nothing may be written (-B): what
    PYTHONDONTWRITEBYTECODE makes of an installation."""
    copied = site.root / "uncompiled"
    if not copied.exists():
        for package in OURS:
            shutil.copytree(
                ROOT / package, copied / package, ignore=shutil.ignore_patterns("__pycache__")
            )
    _verb(site, copied, "-B")


def _command(site: ProcessSite, *words: str) -> None:
    subprocess.run([HOSTLEDGER, *words], env=site.environ, capture_output=True, check=True)


VARIANTS: dict[str, Callable[[ProcessSite], Started | None]] = {
    "getAvailableTemplates": _verb,
    "getAvailableTemplates, uncompiled": _uncompiled_verb,
    "hostledger --help": lambda site: _command(site, "--help"),
    "hostledger templates list": lambda site: _command(site, "templates", "list"),
    "worker, lazy": start,
    "worker, enabled: false": partial(start, enabled=False),
    "worker, discovery_mode: eager": partial(start, discovery_mode="eager"),
}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    began = time.perf_counter()
    given = work()
    return time.perf_counter() - began, given


def _bare() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def main() -> None:
    """Print, for each start, the median of its ratios to a bare start and what it imports."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn with a bare start")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as directory:
        site = new_site(Path(directory))
        _verb(site)  # what is read of the site's files is compiled by the first call
        _uncompiled_verb(site)
        for name, begin in VARIANTS.items():
            pairs = [(_timed(partial(begin, site)), _timed(_bare)) for _ in range(runs)]
            ratio = statistics.median(taken / bare for (taken, _), (bare, _) in pairs)
            milliseconds = 1000 * statistics.median(taken for (taken, _), _ in pairs)
            print(f"{name:34} {milliseconds:6.0f} ms, {ratio:5.1f} x `python -c pass`")
            started = pairs[-1][0][1]
            if started is not None:
                packages = [module.partition(".")[0] for module in started.modules]
                libraries = sorted(set(packages) - OURS - sys.stdlib_module_names)
                ours = sum(package in OURS for package in packages)
                named = ", ".join(name for name in libraries if not name.startswith("_"))
                print(f"    {len(packages)} modules, {ours} of them ours; libraries: {named}")


if __name__ == "__main__":
    main()
