"""Policy: whenever something is not as it should be, raise an alert; clear it when it is well.

One event, one log line and one delivery a crossing. Whoever looks asks the log what is raised, so
that a worker and a server may look at the same things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eventsourcing.persistence import IntegrityError

from application.failures import StoreError
from application.ports import Journal, Ledger
from application.vitals import Vitals, oldest_sweep
from domain.alert import Alert

NO_LEASE, SWEEP, INTENT, OVERDUE = (
    "no-lease",
    "sweep-too-old",
    "intent-open-too-long",
    "request-over-deadline",
)
ORPHANS, CHAIN, DISK = "orphans", "chain-broken", "disk-full"
RESPONSE_TIME, ERROR_RATE, MEMORY = "response-time", "error-rate", "memory-usage"
PROCESSES = ("worker", "server")

INTENT_OPEN_FOR = 900.0
"""Seconds after which a launch whose outcome is not known is one that does not get settled."""

LEAST_DISK = 256 * 1024 * 1024
"""Bytes that must be free where the state lies."""

LEAST_OPERATIONS = 10
"""Operations in an interval without which their share of errors says nothing."""

ALERTS: dict[str, str] = {
    NO_LEASE: "Something is open or alive, and for a minute no worker has looked after it. Only a "
    "server can notice it.",
    SWEEP: "The last complete sweep of an account is older than `worker.sweep_max_age`, while "
    "something is open or alive.",
    INTENT: f"A launch has no known outcome {INTENT_OPEN_FOR:g} s after it was intended.",
    OVERDUE: "A request is open although its deadline has passed, and the time too that slow "
    "machines and doubtful launches may take (`pending_timeout`, `settle_gap` and two "
    "`sweep_interval` of `provider.aws`).",
    ORPHANS: "Instances carry our tag that the ledger does not know (`hostledger orphans list`).",
    CHAIN: "An event is not what was written, or does not follow the chain of the one before "
    "(`hostledger audit verify`). While it is the last one nothing can be recorded, this alert "
    "neither; it is told all the same.",
    DISK: f"Less than {LEAST_DISK // 1024 // 1024} MiB are free where the state directory lies.",
    **{
        f"{alert}-{process}": words.format(process=process)
        for process in PROCESSES
        for alert, words in (
            (
                RESPONSE_TIME,
                "In an interval the {process}'s operations of a kind took longer on average than "
                "`monitoring.performance.alerts.response_time_threshold`.",
            ),
            (
                ERROR_RATE,
                f"Of at least {LEAST_OPERATIONS} operations of a kind in an interval, a larger "
                "share failed in the {process} than "
                "`monitoring.performance.alerts.error_rate_threshold`.",
            ),
            (
                MEMORY,
                "A larger share of memory is in use than "
                "`monitoring.performance.alerts.memory_usage_threshold`, where the {process} runs.",
            ),
        )
    },
}
"""Name -> when it is raised."""


@dataclass(frozen=True)
class Condition:
    """Whether an alert's reason holds now: `value` against `limit`, and what to tell of it."""

    name: str
    holds: bool
    value: float
    limit: float
    message: str


class Operations(Protocol):
    """What became of the operations of a kind (`infrastructure.telemetry.durations`)."""

    count: int

    @property
    def mean(self) -> float: ...

    @property
    def error_rate(self) -> float: ...


def of_vitals(
    known: Vitals, accounts: Sequence[str], sweep_max_age: float, watched_for: float
) -> list[Condition]:
    """What can be told of a look at the store; `accounts` are those that are swept, `watched_for`
    the seconds for which whoever asks has been there."""
    age, account = oldest_sweep(known, accounts, watched_for)
    late = known.overdue[0] if known.overdue else ("", 0.0)
    return [
        Condition(
            SWEEP,
            known.something_to_do and age > sweep_max_age,
            age,
            sweep_max_age,
            f"the last complete sweep of {account} began {age:.0f} s ago",
        ),
        Condition(
            INTENT,
            known.oldest_intent > INTENT_OPEN_FOR,
            known.oldest_intent,
            INTENT_OPEN_FOR,
            f"{known.oldest_intent_id} has no known outcome after {known.oldest_intent:.0f} s",
        ),
        Condition(
            OVERDUE,
            bool(known.overdue),
            late[1],
            0.0,
            f"{len(known.overdue)} requests are past their deadlines, {late[0]} by {late[1]:.0f} s",
        ),
        Condition(
            ORPHANS,
            known.orphans > 0,
            float(known.orphans),
            0.0,
            f"{known.orphans} instances carry our tag that the ledger does not know",
        ),
    ]


def of_thresholds(
    process: str, thresholds: dict[str, Any], operations: dict[str, Operations], memory: float
) -> list[Condition]:
    """Those of the three thresholds that the site has set; `operations` by their kinds."""
    found = []
    limit = thresholds["response_time_threshold"]
    if limit is not None:
        value, kind = max(
            ((of_kind.mean, kind) for kind, of_kind in operations.items()), default=(0.0, "")
        )
        words = f"{kind} operations took {value:.3g} s on average"
        found.append(Condition(f"{RESPONSE_TIME}-{process}", value > limit, value, limit, words))
    limit = thresholds["error_rate_threshold"]
    if limit is not None:
        value, kind = max(
            (
                (of_kind.error_rate, kind)
                for kind, of_kind in operations.items()
                if of_kind.count >= LEAST_OPERATIONS
            ),
            default=(0.0, ""),
        )
        words = f"{value:.1%} of {kind} operations failed"
        found.append(Condition(f"{ERROR_RATE}-{process}", value > limit, value, limit, words))
    limit = thresholds["memory_usage_threshold"]
    if limit is not None:
        words = f"{memory:.1%} of memory is in use"
        found.append(Condition(f"{MEMORY}-{process}", memory > limit, memory, limit, words))
    return found


class Alerting:
    """`tell` takes each crossing as a document for people and programs."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        tell: Callable[[dict[str, Any]], object],
        unrecorded: dict[str, bool] | None = None,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._tell = tell
        self.unrecorded = unrecorded or {}
        """What was told and could not be recorded."""

    def evaluate(
        self,
        conditions: Iterable[Condition],
        raised: Iterable[str],
        fence: tuple[str, int] | None = None,
    ) -> dict[str, bool]:
        """Record and tell what has changed; `raised` are the alerts that the log has as raised.
        Whether each is raised now."""
        before = set(raised)
        now = {name: name in before for name in ALERTS}
        for condition in conditions:
            name = condition.name
            now[name] = condition.holds
            if condition.holds == (name in before):
                if self.unrecorded.pop(name, condition.holds) != condition.holds:
                    self._say(condition)  # it was told, if not recorded
                continue
            was_told = self.unrecorded.get(name) == condition.holds
            try:
                is_new = self._record(condition, fence)
                self.unrecorded.pop(name, None)
            except IntegrityError:
                continue  # another process was quicker: the next look sees it
            except StoreError as error:
                # A broken log takes no event; whoever can mend it is told all the same.
                self._journal.error("alert not recorded", alert=name, message=str(error))
                self.unrecorded[name] = condition.holds
                is_new = True
            if is_new and not was_told:
                self._say(condition)
        return now

    def _record(self, condition: Condition, fence: tuple[str, int] | None) -> bool:
        """Whether it was news."""
        alert = self._ledger.get(Alert, condition.name) or Alert(Alert.stream(condition.name))
        if condition.holds:
            alert.set_off(condition.message, condition.value, condition.limit)
        else:
            alert.clear(condition.value)
        if not alert.has_pending:
            return False
        self._ledger.save(alert, correlation_id="alerting", fence=fence)
        return True

    def _say(self, condition: Condition) -> None:
        document = {
            "alert": condition.name,
            "state": "raised" if condition.holds else "cleared",
            "message": condition.message if condition.holds else "it is well again",
            "value": condition.value,
            "limit": condition.limit,
        }
        write = self._journal.warn if condition.holds else self._journal.info
        write(f"alert {document['state']}", **{k: v for k, v in document.items() if k != "state"})
        self._tell(document)
