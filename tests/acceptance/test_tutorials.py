"""A newcomer can follow a tutorial to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure.sandbox.server import start_process
from tests.processes import ProcessSite, wait_until

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs/tutorials"

EXPLAIN = ".venv/bin/hostledger audit explain i-98396c0190dc9fc5c"
ORPHANS = ".venv/bin/hostledger orphans list"


def blocks(page: str, first: str = "", last: str = "") -> list[str]:
    """What is set apart on a page, between two of its words: commands, or after each that begins
    with `$ ` what it prints."""
    text = (TUTORIALS / page).read_text()
    text = text[text.index(first) : text.index(last) if last else None]
    found = re.findall(r"^(?:    .*\n|\n(?=    ))+", text, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip() for block in found]


def shape(line: str) -> str:
    """A line without what differs from run to run: ids, times, numbers, widths."""
    return " ".join("#" if re.search(r"\d", word) else word for word in line.split())


class Reader:
    """Somebody who pastes what is written into a shell, with their own ids for those printed."""

    def __init__(self, root: Path, endpoint: str) -> None:
        self.own = {
            "/tmp/site": f"{root}/site",
            ".venv/bin/": f"{Path(sys.executable).parent}/",
            "http://127.0.0.1:PORT": endpoint,
        }
        self._environ = {
            "PATH": os.environ["PATH"], "HOME": str(root), "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        self.exports = ""

    def paste(self, commands: str, *, may_fail: bool = False) -> str:
        """Everything that is printed."""
        pasted = subprocess.run(
            ["bash", "-ec", self._mine(f"{self.exports}\n{commands}")], cwd=ROOT,
            env=self._environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60, check=False,
        )  # fmt: skip
        assert may_fail or pasted.returncode == 0, f"{commands}\n{pasted.stdout}"
        return pasted.stdout

    def follow(self, block: str) -> str:
        """Paste a block's commands, of which those fail alone whose output the page shows; each
        line that is shown is printed. All that is."""
        if not block.startswith("$ "):
            return self.paste(block)
        printed = ""
        for part in block.removeprefix("$ ").split("\n$ "):
            command, _, shown = part.partition("\n")
            answer = self.paste(command, may_fail=True)
            lines = [shape(line) for line in answer.splitlines()]
            for line in shown.splitlines():
                assert shape(self._mine(line)) in lines, f"{line!r} is not in:\n{answer}"
            printed += answer
        return printed

    def learn(self, printed: str, told: str, pattern: str) -> None:
        """From now on put what was told, where the page has what it printed in another run."""
        found = re.search(pattern, told, re.MULTILINE)
        assert found, told
        self.own[printed] = found[0]

    def _mine(self, text: str) -> str:
        for printed, own in self.own.items():
            text = text.replace(printed, own)
        return text


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with start_process(boot_time=1.0, shutdown_time=0.5) as sandbox:
        reader = Reader(tmp_path, sandbox.url)
        yield reader
        reader.paste(".venv/bin/hostledger worker stop", may_fail=True)


def test_the_investigation_can_be_followed(reader: Reader) -> None:
    """Every command of the tutorial does what it says, and prints what is shown."""
    reader.exports, site = blocks("first-cycle.md", "**2. Lay out", "**3. Make")
    reader.paste(site)
    begin, look, give_back, status, launch_another, *rest = blocks("investigate-an-instance.md")
    explain, search, write_trail, compare, end_hers, verify, rewrite, verify_again = rest

    reader.follow(begin)
    wait_until(lambda: reader.follow(look).count(" running ") == 2)
    reader.learn("i-98396c0190dc9fc5c", reader.follow(look), r"^i-\w+")
    reader.follow(give_back)
    wait_until(lambda: "ReturnCompleted" in reader.paste(EXPLAIN))
    reader.learn("DEPLOYMENT", reader.follow(status), r"[0-9a-f]{32}")
    reader.learn("i-c22045dfbf802c1a4", reader.follow(launch_another), r"i-\w+")
    reader.follow(explain)
    wait_until(lambda: " running " in reader.paste(ORPHANS))
    for block in (search, write_trail, compare, end_hers, verify, rewrite, verify_again):
        reader.follow(block)


PRINTED = {
    "explanation/lazy-loading.md": (r"OnDemand-A", r'"component":"storage","within":"store"'),
    "explanation/performance.md": (r"bare_ms", r"(?m)^CUMULATIVE +OWN "),
    "how-to/tune.md": (
        r"(?m)^worker\.mode +external +environment HOSTLEDGER_WORKER__MODE$",
        r"hostledger\.json: good, and gives the value of 1 keys",
        r"usage: hostledger",
        r'"templateId":"OnDemand-A"',
        r"bare_ms",
        r"verb\.prof% ",
    ),
    "how-to/when-something-is-slow.md": (r"bare_ms", r"(?m)^CUMULATIVE +OWN "),
}
"""Page -> what its commands print, among other things."""

ELSEWHERE = (
    "{",
    "make bench",
    "hostledger bench",
    "hostledger diagnose memory",
    "PYTHONPATH=. python tests/performance/",
)


@pytest.mark.parametrize("page", PRINTED)
def test_the_commands_of_a_page_do_what_it_says(page: str, tmp_path: Path) -> None:
    """But for those that measure or look at a living process: they have tests of their own, or take
    minutes."""
    site = ProcessSite(
        tmp_path, "http://127.0.0.1:9", settings={"HOSTLEDGER_WORKER__MODE": "external"}
    )
    (tmp_path / "conf/hostledger.json").write_text('{"worker": {"lease_time": 70}}')
    environ = site.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    commands = [block for block in blocks(f"../{page}") if not block.startswith(ELSEWHERE)]

    printed = "".join(
        subprocess.run(
            ["bash", "-ec", block],
            cwd=tmp_path,
            env=environ,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        for block in commands
    )

    for pattern in PRINTED[page]:
        assert re.search(pattern, printed), f"{pattern} is not in:\n{printed}"
