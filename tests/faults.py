"""The fault rows and what shows that each holds: `python -m tests.faults` writes
docs/reference/faults.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.mutations import MUTATIONS, ROOT

PAGE = ROOT / "docs/reference/faults.md"
TESTS = ROOT / "tests"


@dataclass(frozen=True)
class Row:
    """`injected` is how the test makes the fault, `holds` what it shows."""

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
    Row(
        2,
        "throttle inside CreateFleet",
        "`fleet_errors` with RequestLimitExceeded, with and without machines",
        "asked for again at once, of all pools; no reason that anybody is told",
    ),
    Row(
        3,
        "mixed throttle and quota in a fleet",
        "`fleet_errors` with both, on one quota and on two",
        "one quota: the request ends at once and says so; two: the other pool gives all",
    ),
    Row(
        4,
        "lost launch response",
        "`lost_response` on the launch call",
        "exactly N; both calls carry one token; a group, which takes none, has one name",
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
        "crash points `aws.<call>.after` and `commit.LaunchAccepted.before`, ids invisible "
        "for 30 s",
        "exactly N after the restart, under the token that is in the log",
    ),
    Row(
        7,
        "killed before the call, after the intent",
        "crash points `commit.LaunchIntended.after` and `aws.<call>.before`",
        "exactly N after the restart",
    ),
    Row(
        8,
        "template changed between crash and restart",
        "row 6, and another image in the templates file",
        "the same bytes are sent, AWS sees no mismatch",
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
        "one machine in the first subnet; two in all, and more after two minutes",
        "topped up from the second subnet, or when there is capacity; total N",
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
        "`reset_before` on every call from the launch on, then cleared",
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
        "a foreign `BEGIN IMMEDIATE`, or `max_page_count` reached, when AWS has launched",
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
    Row(
        26,
        "store restored from a backup and activated",
        "the file of an hour ago, `store activate`",
        "what the log has not heard of lives on while it is named, launches nothing more, and is "
        "ended by its tag when it is returned",
    ),
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
    Row(
        29,
        "answer about a launch template lost, or its maker killed",
        "`lost_response`, `reset_before`, `slow` on CreateLaunchTemplate, three crash points",
        "one launch; one launch template, or the one of the dead worker's batch is removed",
    ),
    Row(
        30,
        "launch template deleted by somebody",
        "deleted before the launch, between launches, each time; said so by a fleet's errors",
        "made again once, then the request ends with the reason",
    ),
    Row(
        31,
        "name of a group or launch template taken",
        "somebody else makes it just before us",
        "not taken for ours, nor changed or deleted; the request ends with the reason",
    ),
    Row(
        32,
        "image parameter changed between crash and resend",
        "row 6, and another value of the SSM parameter",
        "the same bytes are sent; the next request has the new image",
    ),
    Row(
        33,
        "template edited while a request is open",
        "capacity for two, another type in the templates file, then capacity",
        "all machines of the request are of the revision that it asked for",
    ),
    Row(
        34,
        "overrides of a fleet refused",
        "`fleet_errors` with a code that is no shortage, for all or for one",
        "all: the request ends at once and the empty fleet goes; one: it is left out",
    ),
    Row(
        35,
        "capacity error in an HTTP 500",
        "`error` InsufficientInstanceCapacity with status 500",
        "a definite rejection: nothing to settle, launched anew",
    ),
    Row(
        36,
        "weights",
        "types of 2 and 3 units, one machine of the first type; a heavy machine that never runs",
        "filled exactly or over by less than one machine, in every way to launch",
    ),
    Row(
        37,
        "spot has too little for a heterogeneous template",
        "capacity for none, two or all on spot",
        "spot first; the rest on demand before the deadline; nothing twice",
    ),
    Row(
        38,
        "quota of one family or market",
        "VcpuLimitExceeded, MaxSpotInstanceCountExceeded for some pools, or all",
        "the others are taken; of all: the request ends, and at once where AWS answers so",
    ),
    Row(
        39,
        "no permission",
        "`deny` of the launch, of CreateLaunchTemplate, of GetParameter",
        "the request ends after one call, with AWS's action and resource, told once",
    ),
    Row(
        40,
        "killed anywhere",
        "SIGKILL before and after each commit and each AWS call of a real process",
        "the next process finishes; nothing lost, leaked or doubled",
    ),
    Row(
        50,
        "some machines of a fleet are returned",
        "two of five, the others running or pending",
        "exactly those end",
    ),
    Row(
        51,
        "refill racing a return",
        "machines die while the target cannot be lowered, or after it was",
        "what AWS launches in their place is ended; none comes back for good",
    ),
    Row(
        52,
        "late stale target",
        "held before a target call while another worker lowers it further",
        "put right by the sweep",
    ),
    Row(
        53,
        "answer of the target call lost",
        "`lost_response`, `reset_before`, `slow`, `e500`",
        "the same absolute target is set again, under one intent, before a machine ends",
    ),
    Row(
        54,
        "lease taken over while a call without a token may be on its way",
        "killed, or paused, before the target call",
        "no such call, and no termination, before the old one must have ended",
    ),
    Row(
        55,
        "a fleet that neither we nor AWS's tokens remember",
        "killed after the launch, two hours; full, or two of five and not to be stopped",
        "found by its tag, stopped, and only then settled; exactly N",
    ),
    Row(
        56,
        "fleet partly filled at the deadline",
        "two of five, then capacity",
        "stopped; two and the reason; what comes late is ended",
    ),
    Row(57, "pending at the deadline", "`boot_time` beyond it", "waited for"),
    Row(
        58,
        "cancelled while a fleet fills",
        "two of five, cancelled, then capacity",
        "the two are returned, none comes",
    ),
    Row(
        59,
        "pending too long inside a fleet",
        "machines that never run",
        "ended and launched anew until the deadline, then not replaced",
    ),
    Row(
        60,
        "deletion of a fleet refused",
        "a group that has instances, `e500`; its size raised meanwhile",
        "asked again, under one intent, until it is gone",
    ),
    Row(
        61,
        "fleets cannot be listed",
        "`e503` on the call that lists them",
        "the sweep is void; nothing is concluded",
    ),
    Row(
        62,
        "fleet on demand lowered while it fills",
        "one of its two requests cancelled",
        "what it still launches is on demand",
    ),
    Row(
        63,
        "spot interruption with a notice",
        "`interrupt`, a queue with EventBridge's events",
        "listed with the seconds left while it is named; AWS ends it, no fleet replaces it",
    ),
    Row(
        64,
        "duplicates and junk in the queue",
        "22 kinds of messages, twice",
        "recorded once, the queue emptied, the worker goes on",
    ),
    Row(
        65,
        "queue in trouble",
        "denied, missing, `e500`, `hang`, not to be emptied",
        "machines come and go all the same",
    ),
    Row(66, "no queue", "`interrupt` without one", "the machine's own state tells, once"),
    Row(
        67,
        "AWS_SPOT_TERMINATE_ON_RECLAIM",
        "both ways, a returned machine that AWS takes",
        "ended at once, or left to AWS and ended when AWS does not",
    ),
    Row(
        68,
        "interrupted before its request is final",
        "`interrupt`, with and without notice, while machines start",
        "launched anew; exactly N",
    ),
    Row(
        69,
        "killed between recording a notice and deleting it, or before its launch is recorded",
        "crash points of the commit, of DeleteMessageBatch and of the launch",
        "read again, recorded once, deleted",
    ),
    Row(
        70,
        "rebalance recommendation",
        "before an interruption, or alone",
        "the host is listed at once; returned, it is ended, unless AWS takes it",
    ),
)

HEAD = """\
# Faults

<!-- Written by `python -m tests.faults`; a test compares it with the tables it is made from. -->

What can go wrong between HostFactory, the ledger and AWS, how a test makes it happen, and what
holds then. Each test runs the real policies over the real store against the sandbox, on a clock
that the test moves, for every way to launch for which it means something (RunInstances, EC2 Fleet
and Spot Fleet of each type, Auto Scaling groups), and ends in one assertion: **the live instances
that carry our tag are those that the ledger owns, and no request has more than it asked for.**

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
    for path in sorted(TESTS.rglob("test_*.py")):
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
