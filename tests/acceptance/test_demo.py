"""The main job as a newcomer meets it: one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_shows_a_whole_cycle(tmp_path: Path) -> None:
    """`hostledger demo` asks, launches, reports, returns and tells one machine's story, and leaves
    no instance, no process and no file behind."""
    done = subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", "demo", "--machines", "2"],
        env={**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for verb in (
        "getAvailableTemplates",
        "requestMachines",
        "getReturnRequests",
        "requestReturnMachines",
    ):
        assert f"$ {verb}.sh -f" in done.stdout
    story = done.stdout.partition("One machine's story")[2]
    for topic in ("MachineLaunched", "MachineRunning", "MachineReturned", "MachineTerminated"):
        assert topic in story
    assert "Instances left in the sandbox: 0." in done.stdout
    assert list(tmp_path.iterdir()) == []
