"""The fault rows and what shows that each holds: `python -m tests.faults` writes
docs/reference/faults.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.mutations import MUTATIONS, ROOT

PAGE = ROOT / "docs/reference/faults.md"
TESTS = ROOT / "tests/application"


@dataclass(frozen=True)
class Row:
    """`injected` is how the test makes the fault, `holds` what it shows. Without tests the row is
    about something that this release does not have, and `holds` says what."""

    number: int
    fault: str
    injected: str
    holds: str


ROWS = (
    Row(
        1,
        "throttle burst",
        "`throttle` five times, AWS's documented buckets, 12 templates at once",
        "all launched, under one intent each; no call meets an empty bucket of AWS",
    ),
    Row(2, "throttle inside CreateFleet", "", "comes with fleets"),
    Row(3, "mixed throttle and quota in a fleet", "", "comes with fleets"),
    Row(
        4,
        "lost launch response",
        "`lost_response` on RunInstances",
        "exactly N; both calls carry one token",
    ),
    Row(
        5,
        "read timeout, the request finishes later",
        "`slow`, carried out 20 s after we gave up",
        "exactly N; no new epoch",
    ),
    Row(
        6,
        "killed after the launch, before the event",
        "crash points `aws.RunInstances.after` and `commit.LaunchAccepted.before`, ids invisible "
        "for 30 s",
        "exactly N after the restart, under the token that is in the log",
    ),
    Row(
        7,
        "killed before the call, after the intent",
        "crash points `commit.LaunchIntended.after` and `aws.RunInstances.before`",
        "exactly N after the restart",
    ),
    Row(
        8,
        "template changed between crash and restart",
        "row 6, and another image in the templates file",
        "the same bytes are sent, EC2 sees no mismatch",
    ),
    Row(
        9,
        "new ids not visible",
        "visibility lag of 30 s, a sweep every 5 s",
        "none dropped, none launched again",
    ),
    Row(
        10,
        "capacity one of N",
        "`cap` of 1 on the first subnet",
        "topped up from the second subnet; total N",
    ),
    Row(
        11,
        "terminate with one unknown id",
        "one of 32 machines forgotten by EC2",
        "the others terminated in at most 2 log2(n) + 2 calls; the return completes",
    ),
    Row(
        12,
        "terminate with a protected machine, two zones",
        "termination protection of one of 16",
        "the others terminated; the one reported with AWS's code, and still owed",
    ),
    Row(
        13,
        "lost terminate response",
        "`lost_response` and `reset_before` on TerminateInstances; crash point "
        "`aws.TerminateInstances.after`",
        "no id forgotten; the same intent is sent again",
    ),
    Row(
        14,
        "terminate NotFound while running",
        "returned within the visibility lag of 30 s",
        "stays owed, is terminated later",
    ),
    Row(
        15,
        "return racing a launch",
        "`cap` and `slow`; the first machines returned and the request cancelled meanwhile",
        "what arrives is dealt to nobody; nothing left running",
    ),
    Row(
        16,
        "region down for ten minutes",
        "`reset_before` on every call, then cleared",
        "the breaker opens (at most 60 calls); the one intent survives; exactly N",
    ),
    Row(
        17,
        "page 2 of a sweep fails",
        "InternalError on each call with a NextToken, for 15 minutes, pages of 5",
        "the sweeps are void: nothing lost, nothing settled, getReturnRequests exits 1",
    ),
    Row(
        18,
        "machines taken away without a notice",
        "terminated, or forgotten by EC2, behind our back",
        "seen within two sweeps; lost only after two and a question by id",
    ),
    Row(
        19,
        "the event store fails after the launch",
        "a foreign `BEGIN IMMEDIATE`, or `max_page_count` reached, when EC2 has launched",
        "the intent is sent again; exactly N; a later rejection is ambiguous",
    ),
    Row(
        20,
        "two workers started",
        "two in one site; then the first one killed",
        "one lease holder, no double launch; the other takes over",
    ),
    Row(
        21,
        "answer of requestMachines lost, asked again",
        "two requests, HostFactory polls the second one every 30 s",
        "within INSTANCE_CREATION_TIMEOUT only the second one's machines live",
    ),
    Row(
        22,
        "a rejection after an ambiguous attempt whose launch succeeds late",
        "`slow` by four minutes, then InsufficientInstanceCapacity",
        "settled by two sweeps for the tag; exactly N; no third call",
    ),
    Row(
        23,
        "worker paused between intent and send while another settles and launches again",
        "held at crash point `aws.RunInstances.before` for two hours while a second worker runs",
        "exactly N after settling; an outcome of a lost lease is refused",
    ),
    Row(
        24,
        "AWS has forgotten the token",
        "row 6 and 60 hours",
        "nothing is sent again; settled by tag; exactly N",
    ),
    Row(
        25,
        "IdempotentParameterMismatch",
        "`error` on the first call",
        "settled by tag before any other token is tried; the request ends",
    ),
    Row(26, "store restored from a backup and activated", "", "comes with restored stores"),
    Row(
        27,
        "the wall clock steps an hour either way",
        "stepped at four stages of a request and its return, both ways",
        "nothing doubles, hangs or expires early; recorded time never goes back",
    ),
    Row(
        28,
        "an old release's worker holds the lease",
        "a worker of 0.0.9 with a launch in doubt, then one of this release",
        "handed over within seconds; exactly N; an older one waits",
    ),
)

HEAD = """\
# Faults

<!-- Written by `python -m tests.faults`; a test compares it with the tables it is made from. -->

What can go wrong between HostFactory, the ledger and AWS, how a test makes it happen, and what
holds then. Each test runs the real policies over the real store against the sandbox, on a clock
that the test moves, and ends in one assertion: **the live instances that carry our tag are those
that the ledger owns, and no request has more than it asked for.**

The mutations break the product on purpose, one line at a time; the tests named with them must
fail. Run both:

```
make test PYTEST_ARGS="-k fault"
make mutations
```

`python -m tests.mutations "random token"` tries one.

## The rows

| # | fault | how it is injected | what must hold | tests | mutations |
|---|---|---|---|---|---|
"""

RULES = """
## Rules beside the rows

| mutation | tests that notice |
|---|---|
"""


def row_tests() -> dict[int, list[str]]:
    """Row number -> `file::test` of every test that is named for it."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.glob("test_faults_*.py")):
        for line in path.read_text().splitlines():
            if line.startswith("def test_fault_"):
                name = line.removeprefix("def ").partition("(")[0]
                number = name.removeprefix("test_fault_").partition("_")[0]
                if number.isdigit():
                    found.setdefault(int(number), []).append(f"{path.name}::{name}")
    return found


def page() -> str:
    """The whole of docs/reference/faults.md."""
    tests = row_tests()
    lines = [HEAD]
    for row in ROWS:
        named = "<br>".join(f"`{test}`" for test in tests.get(row.number, ()))
        broken = "<br>".join(m.name for m in MUTATIONS if m.row == str(row.number))
        cells = (str(row.number), row.fault, row.injected, row.holds, named, broken)
        lines.append("| " + " | ".join(cell or "-" for cell in cells) + " |\n")
    lines.append(RULES)
    for mutation in MUTATIONS:
        if not mutation.row:
            named = "<br>".join(f"`{Path(test).name}`" for test in mutation.tests)
            lines.append(f"| {mutation.name} | {named} |\n")
    return "".join(lines)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
