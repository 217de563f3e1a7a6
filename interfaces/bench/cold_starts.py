"""Cold starts: the five scripts and the operator's commands as whole processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from interfaces.bench.past import TEMPLATE, Life
from interfaces.bench.processes import compare, hostledger, peak_of, script
from interfaces.bench.sites import BenchSite
from interfaces.cli.verb_runs import VerbRun

READS, WRITES = (1.6, 1.3), (6.0, 2.0)
"""What a ratio of a script that reads, or writes, is to be no worse than, and to reach."""

NONE = (None, None)


class Start(NamedTuple):
    """A command to be timed. `bounds` is what its ratio is to be no worse than, and the aim."""

    name: str
    site: BenchSite
    command: list[str]
    bounds: tuple[float | None, float | None] = NONE


def sites(make: Callable[[], BenchSite], quick: bool) -> list[BenchSite]:
    """One with a request of 50 machines, and but for a quick look one with 10,000 machines in all,
    and one with a request of 1,000."""
    made = [make()]
    made[0].fill([Life(1, 50)])
    if not quick:
        made += [make(), make()]
        # Numbers so far apart that no two machines have the same name.
        made[1].fill(chain([Life(2000, 50)], (Life(number) for number in range(1, 996))))
        made[2].fill([Life(1, 1000)])
    return made


def scripts(small: BenchSite, *others: BenchSite) -> Iterator[Start]:
    """The five scripts. The last two change the ledger each time."""
    for site in (small, *others[:1]):
        stored = f"{count(len(site.lives), 'request')}, {site.machines:,} machines stored"
        empty = site.input("empty", {})
        first = site.lives[0]
        status = site.input("status", {"requests": [{"requestId": first.request_id}]})
        for verb, file, what in (
            ("getAvailableTemplates", empty, ""),
            ("getRequestStatus", status, f" of {len(first.ids)}"),
            ("getReturnRequests", empty, " with {}"),
        ):
            yield Start(f"{verb}{what} ({stored})", site, script(verb, file), READS)
    for site in others[1:]:
        (life,) = site.lives
        status = site.input("status", {"requests": [{"requestId": life.request_id}]})
        hosts = site.input("hosts", {"machines": life.hosts()})
        for name, verb, file in (
            ("getRequestStatus of 1,000", "getRequestStatus", status),
            ("getReturnRequests with 1,000 hosts", "getReturnRequests", hosts),
        ):
            yield Start(name, site, script(verb, file), (1.8, 1.5))
    for site in others[:1]:
        every = [host for life in site.lives for host in life.hosts()]
        file = site.input("hosts", {"machines": every})
        name = f"getReturnRequests with {len(every):,} hosts"
        yield Start(name, site, script("getReturnRequests", file), (2.8, 2.3))
    ask = small.input("ask", {"template": {"templateId": TEMPLATE, "machineCount": 1}})
    yield Start("requestMachines", small, script("requestMachines", ask), WRITES)
    back = small.input("back", {"machines": small.lives[0].hosts()[:1]})
    yield Start("requestReturnMachines", small, script("requestReturnMachines", back), WRITES)


def commands(small: BenchSite, quick: bool) -> Iterator[Start]:
    """What an operator types, the requirements' `--help` among it."""
    machine, request = small.lives[0].ids[0], small.lives[0].request_id
    for words in (
        ("--help",),
        ("--version",),
        ("templates", "list"),
        ("requests", "list"),
        ("requests", "show", request),
        ("machines", "list"),
        ("audit", "history", machine),
        ("store", "status"),
        ("worker", "status"),
        ("metrics", "show"),
        ("report", "usage"),
    )[: 2 if quick else None]:
        shown = [{machine: "MACHINE", request: "REQUEST"}.get(word, word) for word in words]
        yield Start(" ".join(["hostledger", *shown]), small, hostledger(*words))


def measure(start: Start, runs: int) -> dict[str, Any]:
    environ = start.site.environ
    worst, aim = start.bounds
    return {
        "command": start.name,
        **compare(start.command, environ, runs),
        "worst": worst,
        "aim": aim,
        "peak_mib": peak_of(start.command, environ),
    }


def imports(site: BenchSite) -> dict[str, int]:
    """Modules that a cold call imports beyond those of an interpreter that does nothing, of a read
    and of a write."""
    life = site.lives[0]
    found = {}
    for verb, document in (
        ("getRequestStatus", {"requests": [{"requestId": life.request_id}]}),
        ("requestMachines", {"template": {"templateId": TEMPLATE, "machineCount": 1}}),
    ):
        file = site.input(f"imports-{verb}", document)
        found[verb] = len(VerbRun(verb, file, site.environ).startup()["modules"])
    return found


def count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
