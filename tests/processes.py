"""Real scripts and real workers as processes, on a site of their own against a sandbox process."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from application.version import VERSION
from infrastructure.clock import SystemClock
from infrastructure.event_store.sqlite_file import open_for_reading
from infrastructure.event_store.sqlite_setup import create_store
from tests.world import TEMPLATE

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "interfaces/hostfactory/scripts"
VERBS = (
    "getAvailableTemplates",
    "requestMachines",
    "requestReturnMachines",
    "getRequestStatus",
    "getReturnRequests",
)
LOOK = 0.05
"""Seconds between looks at what another process does."""


class Answer:
    """What a script left: `status`, `text` (stdout), `errors` (stderr), `seconds` it took."""

    def __init__(self, status: int, text: str, errors: str, seconds: float) -> None:
        self.status = status
        self.text = text
        self.errors = errors
        self.seconds = seconds

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON object that is the whole of stdout."""
        value = json.loads(self.text)
        assert isinstance(value, dict)
        assert self.text == self.text.strip() + "\n", "one document and nothing else"
        return value

    def failure(self) -> str:
        """The message of a call that failed as HostFactory is told of it."""
        assert self.status == 1, self.text
        assert list(self.document) == ["message"], self.text
        message = self.document["message"]
        assert isinstance(message, str)
        assert message and "Traceback" not in message
        return message


def wait_until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Look until `what` is true; its value. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(LOOK)


class ProcessSite:
    """A provider instance in a directory of its own, called by processes as HostFactory calls.

    `endpoint` is the sandbox's URL; `settings` are HOSTLEDGER_SECTION__KEY values.
    """

    def __init__(
        self,
        root: Path,
        endpoint: str = "",
        *,
        scripts: Path = SCRIPTS,
        settings: dict[str, str] | None = None,
        templates: list[dict[str, Any]] | None = None,
        store: bool = True,
    ) -> None:
        self.root = root
        self.scripts = scripts
        for name in ("conf", "work", "log", "cwd"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.state = root / "work/hostledger"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HF_PROVIDER_NAME": "awsinst",
            "HF_PROVIDER_CONFDIR": f"{root}/conf",
            "HF_PROVIDER_WORKDIR": f"{root}/work",
            "HF_PROVIDER_LOGDIR": f"{root}/log",
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_EC2_METADATA_DISABLED": "true",
            **(settings or {}),
        }
        self.write_config({"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint})
        self.write_templates(templates or [TEMPLATE])
        self.path = str(self.state / "ledger.db")
        self.deployment = ""
        self._inputs = 0
        if store:
            self.deployment = create_store(self.path, SystemClock(), {"user": "test"}, VERSION)

    # -- the site's files -------------------------------------------------------------------------

    def write_config(self, config: dict[str, Any]) -> None:
        (self.root / "conf/awsprov_config.json").write_text(json.dumps(config))

    def write_templates(self, templates: list[dict[str, Any]]) -> None:
        text = json.dumps({"templates": templates})
        (self.root / "conf/awsprov_templates.json").write_text(text)

    def input(self, document: Any) -> str:
        """The path of an input file with this document (bytes are written as they are)."""
        self._inputs += 1
        path = self.root / f"hf_in_{self._inputs:06d}"
        if isinstance(document, bytes):
            path.write_bytes(document)
        else:
            path.write_text(json.dumps(document, indent="\t"))
        return str(path)

    # -- HostFactory ------------------------------------------------------------------------------

    def start(
        self,
        verb: str,
        document: Any = None,
        *,
        arguments: list[str] | None = None,
        environ: dict[str, str] | None = None,
        cwd: Path | str | None = None,
        script: Path | str | None = None,
        before: Callable[[], object] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a script as HostFactory does. `before` runs in the child (rights, limits)."""
        if arguments is None:
            arguments = ["-f", self.input({} if document is None else document)]
        return subprocess.Popen(
            [str(script or self.scripts / f"{verb}.sh"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd or self.root / "cwd",
            env={**self.environ, **(environ or {})},
            preexec_fn=before,
        )

    def call(self, verb: str, document: Any = None, **options: Any) -> Answer:
        """Call a script and read its output to the end, as HostFactory does."""
        began = time.monotonic()
        return collect(self.start(verb, document, **options), began)

    def request(self, count: int, template_id: str = "OnDemand-A") -> str:
        answer = self.call(
            "requestMachines", {"template": {"templateId": template_id, "machineCount": count}}
        )
        assert answer.status == 0, answer.text
        return str(answer.document["requestId"])

    def request_unworked(self, document: dict[str, Any]) -> str:
        """A request for which no worker is started; its id."""
        mode = {"HOSTLEDGER_WORKER__MODE": "external"}
        return str(self.call("requestMachines", document, environ=mode).document["requestId"])

    def status_of(self, request_id: str) -> dict[str, Any]:
        answer = self.call("getRequestStatus", {"requests": [{"requestId": request_id}]})
        assert answer.status == 0, answer.text
        (entry,) = answer.document["requests"]
        return entry  # type: ignore[no-any-return]

    def wait_until_final(self, request_id: str, seconds: float = 40.0) -> dict[str, Any]:
        """Poll as HostFactory does until the answer is final; the answer."""

        def final() -> dict[str, Any] | None:
            entry = self.status_of(request_id)
            return entry if entry["status"] != "running" else None

        return wait_until(final, seconds)  # type: ignore[no-any-return]

    # -- workers ----------------------------------------------------------------------------------

    def worker_facts(self) -> dict[str, Any]:
        """What `worker.json` says; {} when there is none."""
        try:
            return json.loads((self.state / "worker.json").read_text())  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {}

    def worker_pid(self) -> int:
        """The pid of the worker that said so last and has not ended; 0 for none."""
        facts = self.worker_facts()
        pid = 0 if facts.get("ended") else int(facts.get("pid", 0))
        return pid if pid and is_running(pid) else 0

    def start_worker(self, **environ: str) -> subprocess.Popen[bytes]:
        """A worker as a child, as `worker.mode` external has it."""
        return subprocess.Popen(
            [sys.executable, "-m", "interfaces.worker.main"],
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**self.environ, **environ},
        )

    def stop_worker(self) -> None:
        """End the detached worker by its own pid, and wait until it is gone."""
        pid = self.worker_pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            try:
                wait_until(lambda: not is_running(pid), 15.0)
            except AssertionError:
                os.kill(pid, signal.SIGKILL)
                raise

    # -- the truth --------------------------------------------------------------------------------

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = open_for_reading(self.path)
        try:
            return connection.execute(statement, parameters).fetchall()  # type: ignore[no-any-return]
        finally:
            connection.close()

    def events(self) -> int:
        """How many events the ledger has."""
        return int(self.query("SELECT count(*) FROM events")[0][0])

    def owned(self) -> set[str]:
        """Ids of the machines that the ledger says live."""
        return {row[0] for row in self.query("SELECT machine_id FROM machines WHERE alive = 1")}

    def files(self) -> list[str]:
        """Every file of the site but inputs, empty locks and what SQLite keeps beside a store."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_file()
            and not path.name.startswith("hf_in_")
            and not path.name.endswith(("-wal", "-shm", ".lock"))
        )


def collect(process: subprocess.Popen[bytes], began: float) -> Answer:
    """Read a script's output to its end, as HostFactory does."""
    text, errors = process.communicate(timeout=60)
    return Answer(process.returncode, text.decode(), errors.decode(), time.monotonic() - began)


def is_running(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@contextmanager
def worker_stopped_at_end(site: ProcessSite) -> Iterator[ProcessSite]:
    """Within: scripts may start a detached worker; it is ended by its pid at the end."""
    try:
        yield site
    finally:
        site.stop_worker()


def obey_file_modes() -> None:
    """In a child: make root obey file modes, as the cluster administrator's account does."""
    if os.geteuid() != 0:
        return
    drop, override, read_search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_*; linux/prctl.h
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (override, read_search):
        if libc.prctl(drop, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the capability cannot be dropped")


def fill_disk() -> None:
    """In a child: let no file grow, as on a full disk (EFBIG stands for ENOSPC)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
