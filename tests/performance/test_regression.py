"""A quick look at what must not get worse unnoticed: starts and counts, against those that
`make bench` recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_starts_and_counts_are_as_recorded(tmp_path: Path) -> None:
    """Ratios to a bare Python of the same moment, in turn with it, may double; the modules that a
    call imports and its statements may grow by a quarter. No time is compared."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "interfaces.cli.main", "bench", "--quick"),
            *("--only", "cold_starts", "counts", "--compare", "docs/reference/performance.json"),
        ],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for what in (
        "cold start of getRequestStatus of 50 (1 request, 50 machines stored)",
        "cold start of requestMachines",
        "cold start of hostledger --help",
        "modules of getRequestStatus",
        "statements of a status poll",
    ):
        assert what in done.stdout
