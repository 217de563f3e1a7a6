"""The five scripts as real processes: how HostFactory starts them, and where."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infrastructure.clock import SystemClock
from tests.processes import ROOT, VERBS, Answer, ProcessSite, collect, obey_file_modes
from tests.stores import Place

UNWORKED = {"HOSTLEDGER_WORKER__MODE": "external"}


@pytest.fixture
def site(tmp_path: Path) -> ProcessSite:
    """A site that nobody works for, answered once."""
    site = ProcessSite(tmp_path / "a site", settings=UNWORKED)
    assert site.call("getAvailableTemplates").status == 0
    return site


def ask(count: Any = 1, template_id: str = "OnDemand-A") -> dict[str, Any]:
    return {"template": {"templateId": template_id, "machineCount": count}}


def document_for(verb: str) -> dict[str, Any]:
    """An input that the verb takes."""
    return {
        "getAvailableTemplates": {},
        "requestMachines": ask(),
        "requestReturnMachines": {"machines": [{"name": "ip-10-0-0-1", "machineId": "i-1"}]},
        "getRequestStatus": {"requests": [{"requestId": "x"}]},
        "getReturnRequests": {},
    }[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_prints_one_object_and_leaves_its_directory_alone(
    site: ProcessSite, verb: str
) -> None:
    """From another directory, with blanks in every path: one document, and no file beside it."""
    answer = site.call(verb, document_for(verb))
    assert (answer.status, answer.errors) == (0, "")
    assert answer.document
    assert list((site.root / "cwd").iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_refuses_bad_input_as_a_process(site: ProcessSite, verb: str) -> None:
    """No file, a directory, half a document, no argument: exit 1, a message and no trace."""
    events = site.events()
    for arguments in ([], ["-f"], ["-f", "/nowhere"], ["-f", "/"], ["-f", site.input(b'{"a')]):
        answer = site.call(verb, arguments=arguments)
        answer.failure()
        assert answer.errors == ""
    assert site.events() == events
    assert list((site.root / "cwd").iterdir()) == []


@pytest.mark.parametrize("text", [b"{", b'{"a"', b'"x', b'{"a":1', b"{,}", b"[1", b"nope", b"{}{}"])
def test_half_a_document_is_placed_by_a_process_too(site: ProcessSite, text: bytes) -> None:
    """The bare interpreter's JSON scanner has no error to raise; the message still says where."""
    message = site.call("getRequestStatus", arguments=["-f", site.input(text)]).failure()
    assert "line 1 column" in message
    assert "defect" not in message


def call_through(site: ProcessSite, script: Path | str, **options: Any) -> Answer:
    answer = site.call("getRequestStatus", script=script, **options)
    assert (answer.status, answer.text, answer.errors) == (0, '{"requests":[]}\n', "")
    return answer


def test_a_script_is_found_through_links(site: ProcessSite) -> None:
    """A link to the script, a link to its directory, a chain, and a relative call all work."""
    script = site.scripts / "getRequestStatus.sh"
    (site.root / "by itself.sh").symlink_to(script)
    (site.root / "twice.sh").symlink_to("by itself.sh")
    (site.root / "scripts here").symlink_to(site.scripts)
    call_through(site, site.root / "by itself.sh")
    call_through(site, site.root / "twice.sh")
    call_through(site, "../by itself.sh")
    call_through(site, site.root / "scripts here/getRequestStatus.sh")
    call_through(site, "./getRequestStatus.sh", cwd=site.scripts)
    began = time.monotonic()
    process = subprocess.Popen(
        ["sh", "getRequestStatus.sh", "-f", site.input({})],
        cwd=site.scripts,
        env=site.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert collect(process, began).text == '{"requests":[]}\n'


@pytest.mark.parametrize("locale", ["POSIX", "C", "xx_XX.ISO-8859-1", ""])
def test_the_locale_does_not_matter(site: ProcessSite, locale: str) -> None:
    """UTF-8 goes in and comes out whatever the locale is."""
    answer = site.call(
        "getRequestStatus",
        '{"requests":[{"requestId":"Größe-雲"}]}'.encode(),
        environ={"LC_ALL": locale, "LANG": locale},
    )
    assert answer.document["requests"][0]["requestId"] == "Größe-雲"


def test_the_callers_python_is_not_ours(site: ProcessSite) -> None:
    """PYTHON* of the caller changes nothing: no foreign module is imported, no start-up file."""
    trap = site.root / "trap"
    trap.mkdir()
    for name in ("os", "domain", "interfaces", "sitecustomize", "start"):
        (trap / f"{name}.py").write_text("raise SystemExit('caught')\n")
    for verb in VERBS:
        answer = site.call(
            verb,
            document_for(verb),
            environ={
                "PYTHONPATH": str(trap),
                "PYTHONSTARTUP": str(trap / "start.py"),
                "PYTHONHOME": str(trap),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONWARNINGS": "error",
                "PYTHONVERBOSE": "1",
            },
            cwd=trap,
        )
        assert (answer.status, answer.errors) == (0, ""), verb


def test_a_python_that_is_gone_is_told_on_stdout(site: ProcessSite) -> None:
    """HostFactory knows exit 1 and a message only, not what a shell says."""
    answer = site.call("getRequestStatus", environ={"HOSTLEDGER_PYTHON": "/nowhere/python"})
    assert "HOSTLEDGER_PYTHON" in answer.failure()


def test_hostfactorys_older_variables_are_enough(site: ProcessSite) -> None:
    """Without HF_PROVIDER_*DIR the places are below HF_CONFDIR and HF_WORKDIR; nothing: exit 1."""
    top = site.root / "hf"
    (top / "conf/providers").mkdir(parents=True)
    (top / "work/providers").mkdir(parents=True)
    (site.root / "conf").rename(top / "conf/providers/awsinst")
    (site.root / "work").rename(top / "work/providers/awsinst")
    for name in ("HF_PROVIDER_CONFDIR", "HF_PROVIDER_WORKDIR", "HF_PROVIDER_LOGDIR"):
        del site.environ[name]
    assert "HF_PROVIDER_CONFDIR" in site.call("getRequestStatus").failure()
    site.environ["HF_CONFDIR"] = f"{top}/conf"
    assert "HF_PROVIDER_WORKDIR" in site.call("getRequestStatus").failure()
    site.environ["HF_WORKDIR"] = f"{top}/work/"
    assert site.call("getRequestStatus").status == 0
    assert site.call("requestMachines", ask()).status == 0
    del site.environ["HF_PROVIDER_NAME"]
    assert "HF_PROVIDER_NAME" in site.call("getRequestStatus").failure()
    for name in ("../x", "a b", "Größe", "x" * 65):
        refused = site.call("getRequestStatus", environ={"HF_PROVIDER_NAME": name})
        assert "HF_PROVIDER_NAME" in refused.failure()


def test_lsf_calls_with_its_own_variables(site: ProcessSite) -> None:
    """PROVIDER_NAME and PRO_*, and files in conf/ below PRO_CONF_DIR."""
    conf = site.root / "conf"
    (conf / "conf").mkdir()
    for name in ("awsprov_config.json", "awsprov_templates.json"):
        (conf / name).rename(conf / "conf" / name)
    environ = {
        "PATH": os.environ["PATH"],
        "PROVIDER_NAME": "awsinst",
        "PRO_CONF_DIR": f"{conf}",
        "PRO_DATA_DIR": f"{site.root}/work",
        "PRO_LSF_LOGDIR": f"{site.root}/log",
        "PRO_LSF_TOP": "/opt/lsf",
        "SCRIPT_OPTIONS": "",
        **UNWORKED,
    }
    site.environ = environ
    assert site.call("getAvailableTemplates").status == 0
    assert site.call("requestMachines", ask()).document["requestId"].startswith("req-")


def test_the_instances_own_files_come_first(site: ProcessSite) -> None:
    """`<instance>prov_*`, then `awsprov_*`, then the same two in conf/."""
    conf = site.root / "conf"
    (conf / "conf").mkdir()
    common = json.loads((conf / "awsprov_templates.json").read_text())["templates"][0]
    names = ("conf/awsprov", "conf/awsinstprov", "awsprov", "awsinstprov")
    for name in names:
        (conf / f"{name}_templates.json").unlink(missing_ok=True)
    for name in names:
        template = {**common, "templateId": name.replace("/", "-")}
        (conf / f"{name}_templates.json").write_text(json.dumps({"templates": [template]}))
        answer = site.call("getAvailableTemplates").document
        assert [t["templateId"] for t in answer["templates"]] == [template["templateId"]]


# -- what a call imports and takes ----------------------------------------------------------------

HEAVY = ("boto3", "botocore", "pydantic", "sqlalchemy", "eventsourcing", "dependency_injector")
SLOW_NAMES = (
    "json re enum typing dataclasses logging argparse uuid datetime pathlib hashlib functools "
    "collections contextlib sqlite3 subprocess tempfile traceback threading inspect ast"
)
SLOW = set(SLOW_NAMES.split())
READ = {
    "application",
    "application.failures",
    "application.instants",
    "application.json_text",
    "application.version",
    "infrastructure",
    "infrastructure.clock",
    "infrastructure.compiled",
    "infrastructure.site",
    "infrastructure.storage",
    "infrastructure.storage.sqlite",
    "infrastructure.worker_start",
    "interfaces",
    "interfaces.hostfactory",
    "interfaces.hostfactory.reads",
    "interfaces.hostfactory.verbs",
    "interfaces.hostfactory.wire_format",
    "interfaces.read_side",
}
STORE = {
    "infrastructure.event_store",
    "infrastructure.event_store.sqlite_driver",
    "infrastructure.event_store.sqlite_file",
    "infrastructure.read_models",
    "infrastructure.read_models.sql",
}
OURS = {
    "getAvailableTemplates": READ | STORE,
    "getRequestStatus": READ | STORE | {"infrastructure.sightings"},
    "getReturnRequests": READ | STORE | {"infrastructure.sightings"},
}


def imported(site: ProcessSite, verb: str) -> set[str]:
    """The modules that the real process of a verb imports, as the interpreter itself reports."""
    (line,) = re.findall(
        r"^executable = (.*)$", (ROOT / ".venv/pyvenv.cfg").read_text(), re.MULTILINE
    ) or [sys.executable]
    done = subprocess.run(
        [
            *(line, "-I", "-S", "-X", "importtime"),
            *(f"{ROOT}/interfaces/hostfactory/main.py", sys.executable, verb),
            *("-f", site.input(document_for(verb))),
        ],
        env=site.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines()[1:]}


@pytest.mark.parametrize("verb", VERBS)
def test_a_call_imports_what_it_needs(site: ProcessSite, verb: str) -> None:
    """None of the six libraries; a read no slow module, and of ours exactly these."""
    modules = imported(site, verb)
    tops = {module.split(".")[0] for module in modules}
    assert not tops & set(HEAVY)
    if verb in OURS:
        assert not tops & SLOW
        ours = {"application", "domain", "infrastructure", "interfaces"}
        assert {m for m in modules if m.split(".")[0] in ours} == OURS[verb]


def test_a_call_on_dynamodb_imports_no_library_either(
    tmp_path: Path, new_place: Callable[[str], Place]
) -> None:
    """Not botocore, where the environment has the credentials, nor what it drags in."""
    place = new_place("dynamodb")
    settings = {**UNWORKED, **place.variables()}
    site = ProcessSite(tmp_path, settings=settings, store=False)
    site.state.mkdir(mode=0o700)
    place.storage(f"{tmp_path}/work").create(SystemClock(), {"user": "test"}, "0.1.0")
    assert site.call("getAvailableTemplates").status == 0
    for verb in VERBS:
        modules = imported(site, verb)
        tops = {module.split(".")[0] for module in modules}
        assert not tops & {*HEAVY, "logging", "urllib3"}, verb
        assert "infrastructure.event_store.dynamodb_http" in modules


WEIGH = """
import os, resource, sys
status = os.spawnv(os.P_WAIT, sys.argv[1], sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""
"""A process counts the memory of the one that it was forked from, so a small one must start it."""


def test_a_read_stays_small(site: ProcessSite) -> None:
    """Templates, and the status of 1,000 requests, take less than 18 MiB of memory at the peak."""
    asked = [site.request(1) for _ in range(3)]
    wanted = [{"requestId": i} for i in asked] + [{"requestId": f"x-{n}"} for n in range(1000)]
    for verb, document in (
        ("getAvailableTemplates", {}),
        ("getRequestStatus", {"requests": wanted}),
    ):
        script = str(site.scripts / f"{verb}.sh")
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", WEIGH, script, "-f", site.input(document)],
            env=site.environ,
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout)
        kibibytes = int(done.stderr)
        assert 3 * 1024 < kibibytes < 18 * 1024, verb


# -- from a wheel ---------------------------------------------------------------------------------


def test_the_scripts_of_a_built_wheel_work(site: ProcessSite, tmp_path: Path) -> None:
    """Unpacked where an installer puts it, with no dependency there: a read needs none."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("domain", "application", "infrastructure", "interfaces"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    packages = next((tmp_path / "v/lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            os.chmod(archive.extract(member, packages), member.external_attr >> 16)
    site.scripts = packages / "interfaces/hostfactory/scripts"
    console = Path("interfaces/rest/console")
    for path in (*(ROOT / console / "html").iterdir(), *(ROOT / console / "static").iterdir()):
        assert (packages / path.relative_to(ROOT)).read_bytes() == path.read_bytes()

    for verb in VERBS:
        answer = site.call(verb, document_for(verb))
        assert (answer.status, answer.errors) == (0, ""), verb
    stored = site.query("SELECT count(*) FROM events WHERE topic = 'MachinesRequested'")
    assert stored == [(1,)]


SCRIPTS_PATH = "from interfaces.cli.main import main; main(['scripts', '--path'])"


def test_asking_for_the_scripts_compiles_what_they_import(
    site: ProcessSite, tmp_path: Path
) -> None:
    """Where an installer left that to the first run, and whoever runs first may not write."""
    root = tmp_path / "installed"
    for name in ("domain", "application", "infrastructure", "interfaces"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    verbs = root / "interfaces/hostfactory"

    def ask(before: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-B", "-c", SCRIPTS_PATH],
            cwd=root,
            env={"PYTHONPATH": str(root)},
            preexec_fn=before,
            capture_output=True,
            text=True,
            check=True,
        )

    directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o555)
    refused = ask(obey_file_modes)
    for path in directories:
        path.chmod(0o755)
    asked = ask()

    assert f"modules are not compiled, {root}" in refused.stderr
    assert (asked.stdout, asked.stderr) == (f"{verbs}/scripts\n", "")
    compiled = {file.name.partition(".")[0] for file in verbs.glob("__pycache__/*.pyc")}
    assert compiled == {file.stem for file in verbs.glob("*.py")}
