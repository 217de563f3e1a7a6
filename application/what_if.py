"""Use case: the demand of a time once more, for other settings, and what came of it.

The demand is what the log has of requests, returns and cancellations, at their times, with the
templates as they were then. It is told to another ledger; who works on that one is not known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from application import reports
from application.cancel_request import CancelRequest, cancel_request
from application.ports import Ledger
from application.projections.record import Record
from application.request_machines import RequestMachines, request_machines
from application.return_machines import ReturnMachines, return_machines
from domain.refusals import RequestIsFinal
from domain.template import Template

CANCELLED, RETURNED = "RequestCancelled", "MachinesReturned"
TOPICS = ("TemplateRevised", reports.REQUESTED, CANCELLED, RETURNED, *reports.LAUNCHED)

SOURCE = "what-if"

IMAGE = "ami-0123456789abcdef0"
"""Stands for an image that a parameter names, which the simulated cloud does not have."""

SECRETS = ("user_data_variables", "user_data_file", "image_parameter")
"""What a launch in the simulation does without."""

LIMITS = (
    "The simulated cloud always has the capacity that is asked for, and takes no machine back: "
    "shortfalls are those of the site's own caps, of templates and of the way of launching. "
    "Whether AWS would have had the machines cannot be concluded.",
    "All machines boot in the time that the middle one was recorded to take until it was seen to "
    "run, and AWS throttles by its documented limits of a new account: times to fulfil compare the "
    "two simulated runs; beside what was recorded they are rather long.",
    "Demand is as it was recorded: HostFactory would have asked for other numbers, and returned at "
    "other times, had it been served differently. A return counts machines of a request, whichever "
    "they are now; of machines of earlier requests nothing is known.",
    "AWS calls are counted as one worker makes them that is never restarted; the log itself has "
    "launches and terminations only. Cost is machine-hours times known prices, not a bill.",
)
"""What the comparison can and cannot show, for people."""


class Demand:
    """What was recorded in a window, told to `ledger` as its time comes.

    `living` gives the machines of one of the ledger's requests that nobody has returned, `random`
    bytes.
    """

    def __init__(
        self,
        log: reports.Log,
        window: reports.Window,
        ledger: Ledger,
        living: Callable[[str], list[str]],
        random: Callable[[int], bytes],
        default_deadline: float,
    ) -> None:
        self._ledger = ledger
        self._living = living
        self._random = random
        self._default_deadline = default_deadline
        self._contents: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._revisions: dict[str, str] = {}
        """Template key -> the revision that `ledger` has."""
        self._requests: dict[str, tuple[str, str]] = {}
        """Request id in the log -> provider instance, and its id in `ledger`."""
        self._request_of: dict[str, str] = {}
        """Machine id in the log -> its request's there, until it is returned."""
        self._owed: Counter[tuple[str, str]] = Counter()
        """Request in `ledger` -> machines that were returned and are to be given back."""
        self.counts = Counter[str]()
        self._coming = self._happenings(log, window)
        self._next = next(self._coming, None)

    @property
    def next_at(self) -> float:
        """When there is something to tell next; endless when nothing is."""
        return float("inf") if self._next is None else self._next.instant[0]

    def tell(self, now: float) -> bool:
        """Tell what is due; whether anything was."""
        told = False
        while self._next is not None and self.next_at <= now:
            self._tell(self._next)
            self._next = next(self._coming, None)
            told = True
        for request in [request for request, count in self._owed.items() if count]:
            told |= self._give_back(*request)
        return told

    def _happenings(self, log: reports.Log, window: reports.Window) -> Iterator[Record]:
        for record in reports.events(log, TOPICS, window.until):
            data = record.data
            if record.topic == "TemplateRevised":
                what = (data["provider"], data["template_id"], data["revision"])
                self._contents[what] = _simulated(data["content"])
            elif record.topic in reports.LAUNCHED:
                if data.get("request_id") in self._requests:
                    self._request_of[record.identifier] = data["request_id"]
            elif window.holds(record.instant[0]):
                yield record

    def _tell(self, record: Record) -> None:
        if record.topic == reports.REQUESTED:
            self._request(record)
        elif record.topic == CANCELLED:
            self._cancel(record)
        else:
            for machine_id in record.data["machine_ids"]:
                request_id = self._request_of.pop(machine_id, "")
                self.counts["returned" if request_id else "returned_of_before"] += 1
                if request_id:
                    self._owed[self._requests[request_id]] += 1

    def _request(self, record: Record) -> None:
        data = record.data
        what = (data["provider"], data["template_id"], data["revision"])
        key = Template.key(data["provider"], data["template_id"])
        offered = {
            "template_id": data["template_id"],
            "revision": data["revision"],
            "content": self._contents[what],
            "bodies": {},
        }
        command = RequestMachines(
            data["provider"],
            data["template_id"],
            data["machine_count"],
            offered,
            self._revisions.get(key),
            self._default_deadline,
            SOURCE,
            self._random(16),
            data["rc_account"],
        )
        self._requests[record.identifier] = (
            data["provider"],
            request_machines(command, self._ledger),
        )
        self._revisions[key] = data["revision"]
        self.counts["requests"] += 1
        self.counts["units"] += data["machine_count"]

    def _cancel(self, record: Record) -> None:
        """One that is final here already has what it has returned instead."""
        if record.identifier not in self._requests:
            return
        provider, request_id = request = self._requests[record.identifier]
        living = self._living(request_id)
        reason = record.data["reason"]
        command = CancelRequest(request_id, provider, living, reason, SOURCE, self._random(16))
        self.counts["cancelled"] += 1
        try:
            cancel_request(command, self._ledger)
        except RequestIsFinal:
            self._owed[request] = len(living)
        else:
            # Its return, which the log has beside it, is done with that.
            self._request_of = {m: r for m, r in self._request_of.items() if r != record.identifier}

    def _give_back(self, provider: str, request_id: str) -> bool:
        """As many machines as were returned; those that have not come yet when they have."""
        living = self._living(request_id)[: self._owed[provider, request_id]]
        if not living:
            return False
        self._owed[provider, request_id] -= len(living)
        command = ReturnMachines(provider, living, [], "returned", SOURCE, self._random(16))
        return_machines(command, self._ledger)
        return True


def _simulated(content: dict[str, Any]) -> dict[str, Any]:
    """A template's content without what only the real AWS account and this machine have."""
    left = {name: value for name, value in content.items() if name not in SECRETS}
    if "image_parameter" in content:
        left.setdefault("image_id", IMAGE)
    return left


def boot_time(log: reports.Log, window: reports.Window) -> float:
    """Seconds from EC2's launch time until a machine was seen to run: of all the middle one."""
    began: dict[str, float] = {}
    took: list[float] = []
    for record in reports.events(log, (*reports.LAUNCHED, "MachineRunning"), window.until):
        if record.topic in reports.LAUNCHED:
            began[record.identifier] = float(record.data["launch_time"])
        elif record.identifier in began:
            took.append(max(0.0, record.instant[0] - began.pop(record.identifier)))
    return reports.percentile(sorted(took), 50) or DEFAULT_BOOT_TIME


DEFAULT_BOOT_TIME = 20.0


def measures(log: reports.Log, window: reports.Window, listed: reports.Listed) -> dict[str, Any]:
    """What is compared, of one log: name -> number, None for what is not known. Machines that were
    launched before the window are left out."""
    found: dict[str, Any] = {}
    waited = reports.capacity(log, window, ())
    (row,) = waited["rows"] or [{**reports.NOTHING, **dict.fromkeys(WAITS)}]
    calls = Counter[str]()
    for record in reports.events(log, ("LaunchIntended", "TerminationIntended"), window.until):
        if window.holds(record.instant[0]):
            calls[record.data.get("api", TERMINATIONS)] += 1
    found["launches"] = sum(count for api, count in calls.items() if api != TERMINATIONS)
    found |= {f"launches by {api}": n for api, n in sorted(calls.items()) if api != TERMINATIONS}
    found["terminations"] = calls[TERMINATIONS]
    spent = reports.cost(log, window, (), listed, began_inside=True)
    known = spent["totals"]
    left = spent["left_out"]
    found["machines"] = sum(total["machines"] for total in known) + left["machines"]
    hours = sum(total["machine_hours"] for total in known) + left["machine_hours"]
    found["machine-hours"] = round(hours, 4)
    found["requests final"] = row["requests"]
    found |= {f"requests {name.replace('_', ' ')}": row[name] for name in reports.ENDS.values()}
    found["units missing"] = row["missing"]
    found |= {f"seconds to final, p{percent}": row[f"seconds_p{percent}"] for percent in PERCENTS}
    for short in waited["shortfalls"]:
        pool = f" in {short['pool']}" if short["pool"] else ""
        found[f"short by {short['reason']}{pool}"] = short["requests"]
    found |= {f"cost, {total['currency']}": total["cost"] for total in known}
    found["machine-hours of unknown price"] = left["machine_hours"]
    return found


PERCENTS = reports.PERCENTS
WAITS = tuple(f"seconds_p{percent}" for percent in PERCENTS)
TERMINATIONS = "TerminateInstances"
