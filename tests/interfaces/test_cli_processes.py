"""The operator's commands as real processes: what they import, a first site, a worker's life."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from application.failures import StoreError
from interfaces.cli.worker import stop_worker
from interfaces.read_side import Call
from tests.fakes.clock import FakeClock
from tests.world import TEMPLATE, World

ROOT = Path(__file__).parent.parent.parent
HOSTLEDGER = Path(sys.executable).parent / "hostledger"
HEAVY = ("boto3", "botocore", "pydantic", "eventsourcing", "sqlalchemy", "dependency_injector")
NOWHERE = "http://127.0.0.1:1"
"""An endpoint that refuses every connection at once."""


class Shell:
    """A user's shell outside HostFactory's environment, with a home and one site's files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HOSTLEDGER_"))
        }
        self.environ |= {"XDG_CONFIG_HOME": f"{root}/user", "AWS_ENDPOINT_URL": NOWHERE}

    def make_site(self, name: str, config: dict[str, Any] | None = None) -> list[str]:
        """Write an instance's files; the options of `store init` that name it."""
        for place in ("conf", "work", "log"):
            (self.root / name / place).mkdir(parents=True)
        conf = self.root / name / "conf"
        (conf / "awsprov_config.json").write_text(json.dumps({"AWS_REGION": "us-east-1"}))
        (conf / "awsprov_templates.json").write_text(json.dumps({"templates": [TEMPLATE]}))
        (conf / "hostledger.json").write_text(json.dumps(config or {}))
        places = [f"--{place}-dir={self.root}/{name}/{place}" for place in ("conf", "work", "log")]
        return ["--provider", name, *places]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(HOSTLEDGER), *words],
            env=self.environ,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """A real process is involved: look until it is so, on a bounded loop."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


# -- imports --------------------------------------------------------------------------------------

IMPORTED = """
import json, sys
from interfaces.cli.main import main
status = main(sys.argv[1:])
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def imported(world: World, *words: str) -> set[str]:
    """The top-level modules that a command has imported when it ends."""
    environ = {
        **os.environ,
        **world.environ,
        "HF_PROVIDER_NAME": world.site.provider,
        "HF_PROVIDER_CONFDIR": world.site.conf_dir,
        "HF_PROVIDER_WORKDIR": world.site.work_dir,
        "HF_PROVIDER_LOGDIR": world.site.log_dir,
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    return set(modules)


def test_commands_that_only_read_import_nothing_heavy(world: World) -> None:
    """--help and the reads load no library: they are wired as HostFactory's reads are."""
    world.start_worker()
    request_id = world.request(1)
    machine_id = world.run_until_final(request_id)["machines"][0]["machineId"]
    for words in (
        ["--help"],
        ["requests", "--help"],
        ["requests", "list"],
        ["requests", "show", request_id],
        ["machines", "list"],
        ["machines", "show", machine_id],
        ["templates", "list"],
        ["templates", "show", "OnDemand-A"],
        ["audit", "history", request_id, "--related"],
        ["audit", "explain", machine_id],
        ["audit", "tail", "--since", "2027-01-01"],
        ["audit", "verify"],
        ["orphans", "list"],
        ["batches", "list"],
        ["fleets", "list"],
        ["launch-templates", "list"],
        ["iam-policy"],
        ["store", "status"],
        ["worker", "status"],
        ["scripts", "--path"],
    ):
        assert imported(world, *words).isdisjoint(HEAVY), words


def test_the_guard_sees_what_a_command_imports(world: World) -> None:
    """A command that writes does load the container: the test above can fail."""
    words = ("requests", "create", "--template", "OnDemand-A", "--count", "1")
    assert "dependency_injector" in imported(world, *words)


# -- a first site ---------------------------------------------------------------------------------


def test_store_init_registers_the_instance_for_the_user(shell: Shell) -> None:
    """From nothing: refused with the way out, made and registered, then found without options."""
    before = shell.run("requests", "list")
    assert (before.returncode, before.stdout) == (1, "")
    assert "store init" in before.stderr
    assert "HF_PROVIDER_NAME" in before.stderr

    made = shell.run("store", "init", *shell.make_site("one"), "--output", "json")

    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    assert document["path"] == f"{shell.root}/one/work/hostledger/ledger.db"
    assert Path(document["path"]).stat().st_mode & 0o777 == 0o600
    assert Path(document["register"]) == shell.root / "user/hostledger/instances.json"
    assert Path(document["register"]).stat().st_mode & 0o777 == 0o600
    status = shell.run("store", "status", "--output", "json")
    assert json.loads(status.stdout)["deployment"] == document["deployment"]
    created = shell.run("requests", "create", "--template", "OnDemand-A", "--count", "2")
    listed = shell.run("requests", "list", "--output", "json")
    assert [r["request_id"] for r in json.loads(listed.stdout)["requests"]] == [
        created.stdout.strip()
    ]


def test_store_init_says_what_it_must_be_told(shell: Shell) -> None:
    """Outside HostFactory's environment and without options: which options would do."""
    done = shell.run("store", "init")

    assert done.returncode == 1
    assert "HF_PROVIDER_NAME" in done.stderr and "--work-dir" in done.stderr


def test_of_several_instances_one_must_be_named(shell: Shell) -> None:
    """Two are registered: without --provider both are told; with it the one is used."""
    for name in ("one", "two"):
        assert shell.run("store", "init", *shell.make_site(name)).returncode == 0

    unnamed = shell.run("store", "status")
    unknown = shell.run("store", "status", "--provider", "three")
    named = shell.run("store", "status", "--provider", "two", "--output", "json")

    assert unnamed.returncode == unknown.returncode == 1
    assert "one, two" in unnamed.stderr
    assert "'three'" in unknown.stderr and "one, two" in unknown.stderr
    assert json.loads(named.stdout)["provider"] == "two"


def test_a_second_instance_joins_explicitly(shell: Shell) -> None:
    """--join only registers, and only when the configuration says the same store."""
    made = shell.run("store", "init", *shell.make_site("one"), "--output", "json")
    document = json.loads(made.stdout)
    path = document["path"]
    other = shell.make_site("two")

    refused = shell.run("store", "init", *other, "--join", path)
    assert refused.returncode == 1
    assert "storage.sqlite_strategy.path" in refused.stderr and path in refused.stderr
    configured = {"storage": {"sqlite_strategy": {"path": path}}}
    (shell.root / "two/conf/hostledger.json").write_text(json.dumps(configured))
    joined = shell.run("store", "init", *other, "--join", path, "--output", "json")

    assert joined.returncode == 0, joined.stderr
    assert json.loads(joined.stdout)["deployment"] == document["deployment"]
    status = shell.run("store", "status", "--provider", "two", "--output", "json")
    assert json.loads(status.stdout)["path"] == path
    assert not (shell.root / "two/work/hostledger/ledger.db").exists()


def test_hf_is_the_code_of_the_scripts(shell: Shell) -> None:
    """`hostledger hf` answers what the script answers, for a registered instance too."""
    shell.run("store", "init", *shell.make_site("one"))
    shell.environ["HOSTLEDGER_WORKER__MODE"] = "external"
    (shell.root / "in.json").write_text("{}")
    answer = shell.run("hf", "getAvailableTemplates", "-f", f"{shell.root}/in.json")

    assert answer.returncode == 0
    (template,) = json.loads(answer.stdout)["templates"]
    assert template["templateId"] == "OnDemand-A"
    directory = shell.run("scripts", "--path").stdout.strip()
    script = subprocess.run(
        [f"{directory}/getAvailableTemplates.sh", "-f", f"{shell.root}/in.json"],
        env={
            **shell.environ,
            "HF_PROVIDER_NAME": "one",
            "HF_PROVIDER_CONFDIR": f"{shell.root}/one/conf",
            "HF_PROVIDER_WORKDIR": f"{shell.root}/one/work",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert script.stdout == answer.stdout
    missing = shell.run("hf", "getRequestStatus", "-f", f"{shell.root}/none.json")
    assert missing.returncode == 1
    assert "none.json" in json.loads(missing.stdout)["message"]


def test_output_that_nobody_reads_to_the_end_is_no_failure(shell: Shell) -> None:
    """`| head -1`: exit 0 and no trace."""
    shell.run("store", "init", *shell.make_site("one"))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [str(HOSTLEDGER), "store", "status"],
        env=shell.environ,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)

    assert (done.returncode, done.stderr) == (0, "")


# -- the worker -----------------------------------------------------------------------------------


def worker_facts(shell: Shell) -> dict[str, Any]:
    return json.loads(shell.run("worker", "status", "--output", "json").stdout)  # type: ignore[no-any-return]


def test_a_worker_is_run_seen_and_stopped(shell: Shell) -> None:
    """`worker run` in the foreground, `status` tells its pid and lease, `stop` ends it in peace."""
    shell.run("store", "init", *shell.make_site("one"))
    assert worker_facts(shell)["lives"] is False
    worker = subprocess.Popen([str(HOSTLEDGER), "worker", "run"], env=shell.environ)
    try:
        wait_for(lambda: worker_facts(shell)["pid"] == worker.pid)
        facts = worker_facts(shell)
        assert facts["lives"] is True
        assert facts["leases"][0]["held"] is True

        stopped = shell.run("worker", "stop")

        assert (stopped.returncode, stopped.stdout) == (0, f"worker {worker.pid} has ended\n")
        assert worker.wait(10) == 0
    finally:
        worker.kill()
        worker.wait()
    again = shell.run("worker", "stop")
    assert again.returncode == 1
    assert "nothing to stop" in again.stderr


def test_drain_ends_when_nothing_is_open(shell: Shell) -> None:
    """Nothing to do: one turn and the end, exit 0, though EC2 cannot be reached."""
    shell.run("store", "init", *shell.make_site("one"))

    done = shell.run("worker", "drain")

    assert (done.returncode, done.stdout) == (0, "")
    assert worker_facts(shell)["ended"] is True


HOLDER = """
import fcntl, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1]:
    fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[str], int]]:
    """Starts processes that do not heed SIGTERM and hold the lock at the path ("": none)."""
    started: list[subprocess.Popen[str]] = []

    def start(path: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid

    yield start
    for process in started:
        assert process.poll() is None, "it was ended by another signal than SIGTERM"
        process.send_signal(signal.SIGKILL)
        process.communicate()


def call_for(world: World) -> Call:
    """A call on a clock that passes its waits at once."""
    call = Call("worker stop", world.environ, "python", world.site)
    call.clock = FakeClock()  # type: ignore[assignment]
    return call


def test_stop_says_so_when_the_worker_does_not_end(
    world: World, hold: Callable[[str], int]
) -> None:
    """After the wait: a refusal that names the worker and where to look."""
    pid = hold(world.site.worker_lock)
    Path(world.site.worker_status).write_text(json.dumps({"pid": pid}))

    with pytest.raises(StoreError, match=f"worker {pid} was told to end and has not within 30 s"):
        stop_worker(call_for(world), 30.0)


def test_stop_ends_no_process_that_is_not_the_worker(
    world: World, hold: Callable[[str], int]
) -> None:
    """The number in worker.json is another process's by now: it gets no signal."""
    hold(world.site.worker_lock)
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        Path(world.site.worker_status).write_text(json.dumps({"pid": bystander.pid}))
        with pytest.raises(StoreError, match=f"it is not {bystander.pid}"):
            stop_worker(call_for(world), 30.0)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
