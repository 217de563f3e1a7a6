"""ORB, the product that the requirements were written for, measured beside ours in one run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from application.failures import NotInstalled, StoreError
from interfaces.bench.past import TEMPLATE, Life
from interfaces.bench.processes import compare, hostledger, once, peak_of, script
from interfaces.bench.sites import KEYS, OTHERS, BenchSite, stand_in

PACKAGE = "orb-py"
PATIENCE = 300.0
"""Seconds that the installation may take."""

THEIRS = "RunInstances-OnDemand"
"""The template of those that `orb templates generate` makes that is launched."""


class Orb:
    """ORB, installed into an environment of its own. Raises NotInstalled."""

    def __init__(self, root: Path) -> None:
        self.python = str(root / "venv/bin/python")
        self.program = str(root / "venv/bin/orb")
        self.environ = {
            **{n: v for n, v in os.environ.items() if not n.startswith((*OTHERS, "ORB_"))},
            **KEYS,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1",
            "HOME": str(root),
            "PWD": str(root),  # where it leaves files
            "ORB_ROOT_DIR": f"{root}/site",
            "ORB_CONFIG_DIR": f"{root}/site/config",
        }
        root.mkdir()
        self._run(sys.executable, "-m", "venv", "--without-pip", f"{root}/venv")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        self._run(*pip, "--python", self.python, "install", "--quiet", PACKAGE)
        self.version = once([self.program, "--version"], self.environ)[1].strip()

    def begin(self, endpoint: str) -> None:
        """Initialise it for AWS at `endpoint`. Raises NotInstalled."""
        self.environ["AWS_ENDPOINT_URL"] = endpoint
        place = "--aws-region us-east-1 --subnet-ids subnet-0a1b --security-group-ids sg-0a1b"
        words = f"init --non-interactive --scheduler hostfactory --provider-type aws {place}"
        self._run(self.program, *words.split())
        self._run(self.program, "templates", "generate")

    def _run(self, *command: str) -> None:
        """Raises NotInstalled with what the command said last."""
        # pip asks the index that this process would; the others see nothing of this site.
        environ = dict(os.environ) if "pip" in command else self.environ
        try:
            done = subprocess.run(
                command,
                env=environ,
                cwd=self.environ["PWD"],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"{PACKAGE}: {command[1]} took longer than {PATIENCE:g} s") from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing was said"]
            raise NotInstalled(f"{PACKAGE} cannot be had here: {said[-1]}")


def measure(
    root: Path, site: BenchSite, runs: int, tell: Callable[[str], object]
) -> list[dict[str, Any]]:
    """A row a command that both have, each in turn with a bare start of its own environment. Raises
    NotInstalled where there is no ORB to be had."""
    site.fill([Life(1)])
    ask = site.input("ask", {"template": {"templateId": TEMPLATE, "machineCount": 1}})
    poll = site.input("poll", {"requests": [{"requestId": site.lives[0].request_id}]})
    empty = site.input("empty", {})
    rows = []
    tell(f"installing {PACKAGE}")
    orb = Orb(root)
    with stand_in() as sandbox:
        orb.begin(sandbox.url)
        request_id = _request(orb)
        status = ["requests", "status", request_id]
        show = ["requests", "show", site.lives[0].request_id]
        for what, theirs, name, ours in (
            ("version", ["--version"], "hostledger --version", hostledger("--version")),
            ("help", ["--help"], "hostledger --help", hostledger("--help")),
            (
                "templates, for a person",
                ["templates", "list"],
                "hostledger templates list",
                hostledger("templates", "list"),
            ),
            (
                "templates, for HostFactory",
                ["templates", "list"],
                "getAvailableTemplates.sh",
                script("getAvailableTemplates", empty),
            ),
            (
                "requests, for a person",
                ["requests", "list"],
                "hostledger requests list",
                hostledger("requests", "list"),
            ),
            ("a request, for a person", status, "hostledger requests show", hostledger(*show)),
            (
                "a request, for HostFactory",
                status,
                "getRequestStatus.sh",
                script("getRequestStatus", poll),
            ),
            (
                "ask for a machine, for HostFactory",
                ["machines", "request", THEIRS, "1"],
                "requestMachines.sh",
                script("requestMachines", ask),
            ),
        ):
            tell(f"beside {orb.version}: {what}")
            command = [orb.program, *theirs]
            there = compare(command, orb.environ, runs, [orb.python, "-c", "pass"], warming=1)
            here = compare(ours, site.environ, runs, warming=1)
            rows.append(
                {
                    "what": what,
                    "theirs": " ".join(["orb", *theirs[:2]]),
                    "ours": name,
                    "orb": orb.version,
                    "orb_ms": there["ms"],
                    "orb_ratio": there["ratio"],
                    "orb_mib": peak_of(command, orb.environ),
                    **here,
                    "peak_mib": peak_of(ours, site.environ),
                }
            )
    return rows


def _request(orb: Orb) -> str:
    """The id of a request of ORB's. Raises StoreError."""
    _, answer = once([orb.program, "machines", "request", THEIRS, "1"], orb.environ)
    _, found, rest = answer.partition('"requestId": "')
    if not found:
        raise StoreError(f"{orb.version} answers a request with {answer.strip()!r}")
    return rest.partition('"')[0]
