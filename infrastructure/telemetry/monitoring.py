"""What a worker or a server counts as it goes, and what it does at each collection interval."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import Any

from eventsourcing.persistence import IntegrityError

from application import alerting, measuring
from application.alerting import Alerting, Condition
from application.failures import EventsArchivedAway, Fenced, LogDamaged, StoreError
from application.instants import Instant, seconds_between
from application.measuring import Measuring
from application.ports import Clock, Journal, Lease, Ledger
from application.projections.record import Record
from application.turn import LeaseLost
from application.vitals import Vitals, vitals
from infrastructure.event_store.commit import decompose_all, is_damaged
from infrastructure.telemetry import exposition, figures, resources
from infrastructure.telemetry.metrics import WORKER, MetricsCollector, by_kind
from infrastructure.telemetry.sinks import Delivery

AT_ONCE = 5_000
"""Events that are measured in one interval."""

MOST_BEHIND = 50_000
"""Events after which those that were never measured are passed over: a log of years that an upgrade
finds."""

ANSWERS = frozenset({"shortage", "quota", "not_found", "template_gone"})
"""Classes of AWS's errors that are answers: the call itself did not fail."""

LEASE_ENDS = {Fenced: "lease_lost", LeaseLost: "lease_lost", IntegrityError: "conflict"}


class Watch:
    """What is counted where it happens: at AWS, in the store, by HostFactory."""

    def __init__(self, metrics: MetricsCollector) -> None:
        self._metrics = metrics

    def call(
        self, account: str, region: str, api: str, seconds: float, kind: str, code: str
    ) -> None:
        """A call to AWS ended; `kind` is that of its failure, "" for none."""
        place = {"account": account, "region": region, "api": api}
        self._metrics.counter("aws_calls", **place, outcome=kind or "ok").increment()
        self._metrics.timer("aws_call_seconds", **place).observe(seconds)
        if kind == "throttled":
            self._metrics.counter("aws_throttles", **place).increment()
        if self._metrics.tracing is not None:
            self._metrics.tracing.ended(
                api,
                seconds,
                code or kind,
                api=api,
                system="aws-api",
                region=region,
                account=account,
            )
        failed = bool(kind) and kind not in ANSWERS
        self._metrics.performance.record_request_time(f"aws {api}", seconds, failed=failed)

    def withheld(self, account: str, region: str, api: str, reason: str) -> None:
        """A call to AWS was not sent."""
        self._metrics.counter(
            "aws_calls_withheld", account=account, region=region, api=api, reason=reason
        ).increment()

    def store(self, operation: str, seconds: float) -> None:
        self._metrics.timer("store_seconds", operation=operation).observe(seconds)
        if self._metrics.tracing is not None and operation == "commit":
            self._metrics.tracing.ended("commit", seconds)

    def sightings(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """What HostFactory's reads have left."""
        for line in lines:
            verb = str(line.get("verb", ""))
            if verb not in ("getRequestStatus", "getReturnRequests"):
                continue
            self._metrics.counter("hostfactory_calls", verb=verb).increment()
            seconds = line.get("seconds")
            if isinstance(seconds, int | float) and seconds >= 0:
                self._metrics.timer("hostfactory_call_seconds", verb=verb).observe(seconds)
                self._metrics.performance.record_request_time(f"hostfactory {verb}", seconds)


class WatchedSightings:
    """The sightings of a store, each counted when it is done with."""

    def __init__(self, sightings: Any, watch: Watch) -> None:
        self._sightings = sightings
        self._watch = watch
        self._lines: list[dict[str, Any]] = []

    def take(self) -> list[dict[str, Any]]:
        self._lines = self._sightings.take()
        return self._lines

    def done(self) -> None:
        self._sightings.done()
        self._watch.sightings(self._lines)
        self._lines = []

    def waiting(self) -> bool:
        return bool(self._sightings.waiting())

    def noted(self) -> float:
        return float(self._sightings.noted())


class Monitoring:
    """One process's. `leases` are those that a worker may hold, by account/region, the first one
    first; a server has none. `view` asks the store."""

    def __init__(
        self,
        process: str,
        metrics: MetricsCollector,
        directory: str,
        settings: dict[str, Any],
        accounts: Sequence[str],
        clock: Clock,
        journal: Journal,
        view: Callable[[], Any],
        ledger: Ledger,
        leases: Mapping[str, Lease],
        delivery: Delivery,
    ) -> None:
        self._process = process
        self.metrics = metrics
        self._directory = directory
        self._settings = settings
        self._performance = settings["monitoring"]["performance"]
        self._accounts = accounts
        self._clock = clock
        self._journal = journal
        self._view = view
        self._ledger = ledger
        self._leases = leases
        self._delivery = delivery
        self._alerting = Alerting(ledger, journal, delivery.tell)
        self._measuring = Measuring(metrics, self._history)
        self._kept = figures.KeptFigures(
            directory, figures.seconds_of(self._performance["retention_period"])
        )
        self._usage = resources.Usage()
        self._began = self._collected = clock.now()
        self._due = float("-inf")
        self._damage = ""
        """What a turn or a look has said of the log's end; "" while it is sound."""
        self._unsound = ""
        """Which of the events that were last measured is not what was written."""
        self._raised: list[str] = []
        self._kinds: dict[str, Any] = {}
        self._told = ""

    def take_over(self, before: Monitoring) -> None:
        """Go on from the one that was configured otherwise."""
        if self._settings == before._settings:
            self._delivery = before._delivery
        else:
            self._delivery.take_over(before._delivery)
        unrecorded = before._alerting.unrecorded
        self._alerting = Alerting(self._ledger, self._journal, self._delivery.tell, unrecorded)
        self._began, self._collected = before._began, before._collected
        self._usage, self._told = before._usage, before._told
        self._damage, self._raised = before._damage, before._raised

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around a turn of the policies."""
        began = perf_counter()
        outcome = "failed"
        tracing = self.metrics.tracing
        try:
            with tracing.span("turn") if tracing is not None else nullcontext():
                yield
            outcome = "done"
            self._damage = ""
        except tuple(LEASE_ENDS) as error:
            outcome = LEASE_ENDS[type(error)]
            raise
        except LogDamaged as error:
            self._damage = str(error)
            raise
        finally:
            seconds = perf_counter() - began
            self.metrics.counter("turns", outcome=outcome).increment()
            self.metrics.timer("turn_seconds").observe(seconds)
            self.metrics.performance.record_request_time(
                "worker turn", seconds, failed=outcome == "failed"
            )

    def is_due(self) -> bool:
        return self._clock.now()[2] >= self._due

    def collect(self, more: Iterable[Condition] = ()) -> None:
        """Look at everything once: metrics, kept figures, alerts. `more` are conditions that only
        the caller knows. Raises nothing that a store or a file system can."""
        now = self._clock.now()
        self._due = now[2] + self._performance["collection_interval"]
        problem = ""
        try:
            known = self._look(now)
        except (StoreError, IntegrityError, Fenced) as error:
            known, problem = None, str(error)
            if isinstance(error, LogDamaged):
                self._damage = problem
        try:
            os.makedirs(self._directory, mode=0o750, exist_ok=True)
            line = self._figures(now, known)
            self._alert(now, known, line, more)
            self.metrics.gauge("collected_at_seconds", now[0])
            self._kept.append(line)
            if self._process == WORKER:
                exposition.write(f"{self._directory}/worker.prom", self.metrics, WORKER)
        except OSError as error:
            problem = f"{error.filename or self._directory}: {error.strerror or error}"
        except (StoreError, Fenced) as error:
            problem = str(error)
        self._collected = now
        self._delivery.attempt()
        if problem != self._told and problem:
            self._journal.warn("figures are not complete", message=problem)
        self._told = problem

    def end(self) -> None:
        """Who has ended leaves no figures that look like a living one's, nor unsent traces."""
        if self.metrics.tracing is not None:
            self.metrics.tracing.end()
        if self._process == WORKER:
            try:
                os.unlink(f"{self._directory}/worker.prom")
            except OSError:
                pass

    # -- the store --------------------------------------------------------------------------------

    def _look(self, now: Instant) -> Vitals:
        metrics, view = self.metrics, self._view()
        with metrics.timer("store_seconds", operation="look"):
            known = vitals(view, now, self._settings["provider"])
        for kind, open_ in known.queue.items():
            metrics.gauge("queue_depth", open_, kind=kind)
        metrics.gauge("live_machines", known.live_machines)
        metrics.gauge("oldest_request_seconds", known.oldest_request)
        metrics.gauge("overdue_requests", len(known.overdue))
        metrics.gauge("open_intents", known.open_intents)
        metrics.gauge("oldest_intent_seconds", known.oldest_intent)
        metrics.gauge("orphans", known.orphans)
        metrics.gauge("log_position", known.position)
        for account, age in known.sweep_ages.items():
            metrics.gauge("sweep_age_seconds", age, account=account)
        for account, lease in self._leases.items():
            metrics.gauge("lease_held", int(lease.held), account=account)
            left = max(0.0, lease.remaining()) if lease.held else 0.0
            metrics.gauge("lease_remaining_seconds", left, account=account)
            fence = lease.fence[1] if lease.held else 0
            metrics.gauge("lease_fence", fence, account=account)
        behind = self._follow(view, known.position) if self._leads else 0
        for name, lag in known.lags.items():
            metrics.gauge("projection_lag_events", lag, projection=name)
        if self._leads:
            metrics.gauge("projection_lag_events", behind, projection=measuring.POLICY)
        return known

    @property
    def _leads(self) -> bool:
        """Whether what belongs to no account is this worker's."""
        return bool(self._leases) and next(iter(self._leases.values())).held

    def _follow(self, view: Any, end: int) -> int:
        """Measure the events that are new, each once, and check that they are what was written; how
        many are left. Raises IntegrityError, Fenced, StoreError."""
        position = dict(view.tracked()).get(measuring.POLICY, 0)
        if end - position > MOST_BEHIND:
            self._journal.info("events not measured", first=position + 1, last=end)
            self._track(end)
            return 0
        rows = view.records_after(position, AT_ONCE)
        if not rows:
            return 0
        found = ""
        previous = view.chain_at(position)
        sound: list[Sequence[Any]] = []
        for row in rows:
            if row[4] and is_damaged(row, previous):
                found = f"event {row[0]} is not what was written"
                break
            previous = row[10]
            sound.append(row)
        self._unsound = found
        if sound:
            # First, so that a crash can lose figures and never count twice.
            self._track(sound[-1][0])
            self._measuring.see(list(decompose_all(row for row in sound if row[4])))
        return end - int(sound[-1][0] if sound else position)

    def _track(self, position: int) -> None:
        fence = next(iter(self._leases.values())).fence
        self._ledger.save(tracking=(measuring.POLICY, position), fence=fence)

    def _history(self, streams: Sequence[str]) -> list[Record]:
        from application.projections.record import COLUMNS

        try:
            events = self._view().events_of_streams(streams)
        except EventsArchivedAway:
            return []
        return list(decompose_all(tuple(event[name] for name in COLUMNS) for event in events))

    # -- figures and alerts -----------------------------------------------------------------------

    def _figures(self, now: Instant, known: Vitals | None) -> dict[str, Any]:
        free, size = resources.disk(self._directory)
        used = self._usage.look()
        memory = resources.memory_used_ratio()
        self.metrics.gauge("disk_free_bytes", free)
        self.metrics.gauge("disk_size_bytes", size)
        self.metrics.gauge("memory_used_ratio", memory)
        self.metrics.gauge("cpu_used_ratio", used["cpu"])
        operations = self.metrics.performance.take()
        self._kinds = by_kind(operations)
        line = {
            "at": round(now[0], 3),
            "process": self._process,
            "seconds": round(seconds_between(self._collected, now), 3),
            "operations": {name: durations.document() for name, durations in operations.items()},
            "resources": {
                **{name: round(value, 4) for name, value in used.items()},
                "memory_used": round(memory, 4),
                "disk_free_mb": round(free / 1e6, 1),
            },
        }
        if known is not None:
            line["queue"] = {**known.queue, "live_machines": known.live_machines}
        return line

    def _alert(
        self,
        now: Instant,
        known: Vitals | None,
        line: dict[str, Any],
        more: Iterable[Condition],
    ) -> None:
        free = line["resources"]["disk_free_mb"] * 1e6
        thresholds = self._performance["alerts"]
        conditions = [*more]
        if self._leads or not self._leases:
            conditions += alerting.of_thresholds(
                self._process, thresholds, self._kinds, line["resources"]["memory_used"]
            )
            conditions.append(
                Condition(
                    alerting.DISK,
                    free < alerting.LEAST_DISK,
                    free,
                    alerting.LEAST_DISK,
                    f"{free / 1e6:.0f} MB are free where {self._directory} lies",
                )
            )
        if known is not None and (self._leads or not self._leases):
            conditions += alerting.of_vitals(
                known,
                self._accounts,
                self._settings["worker"]["sweep_max_age"],
                seconds_between(self._began, now),
            )
        if self._leads:
            damage = self._unsound or self._damage
            conditions.append(
                Condition(alerting.CHAIN, bool(damage), float(bool(damage)), 0.0, damage)
            )
            conditions.append(Condition(alerting.NO_LEASE, False, 0.0, 0.0, ""))
        try:
            rows = self._view().alerts(list(alerting.ALERTS))
            self._raised = [row["name"] for row in rows if row["topic"] == "AlertRaised"]
        except StoreError:
            pass  # what cannot be asked cannot be recorded either, and is told all the same
        fence = next(iter(self._leases.values())).fence if self._leads else None
        now_raised = self._alerting.evaluate(conditions, self._raised, fence)
        for name, is_raised in now_raised.items():
            self.metrics.gauge("alert_raised", int(is_raised), alert=name)
