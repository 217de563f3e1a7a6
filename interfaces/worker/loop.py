"""The worker's loop: hold leases, take turns, end when there is nothing to look after."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from eventsourcing.persistence import IntegrityError

from application.crash_points import reach
from application.failures import (
    BrokenConfiguration,
    Conflict,
    Fenced,
    StoreBusy,
    StoreError,
    StoreInert,
    StoreMissing,
)
from application.instants import seconds_between
from application.ports import CallFailed
from application.turn import LeaseLost
from application.version import VERSION
from interfaces.loading import loads
from interfaces.write_side.container import WriteSide
from interfaces.write_side.read_models import renew_read_models
from interfaces.write_side.start import load_at_start, report_loads

TICK = 0.1
"""Seconds between looks at whether something has changed."""

LONGEST_QUIET = 1.0
"""Seconds after which a turn is taken although nothing has changed: back-offs and deadlines."""

CHECKPOINT_INTERVAL, CHECKPOINT_RETRY = 3600.0, 300.0
"""Seconds between two checkpoints of the log, and after one that could not be kept."""

HEARTBEAT = 2.0
STUMBLE, LONGEST_STUMBLE = 1.0, 30.0
"""Seconds of pause after a turn that failed: doubling, at most."""


class Worker:
    """One process's worker. `tick` is one look and maybe one turn; `run` ticks until the end."""

    def __init__(
        self,
        site: Any,
        environ: Mapping[str, str],
        *,
        drain: bool = False,
        stay: bool = False,
        program_version: str = VERSION,
        **overrides: Any,
    ) -> None:
        self._site = site
        self._environ = environ
        self._drain = drain
        self._stays = stay
        self._version = program_version
        self._overrides = overrides
        self.stopping = False
        self.reason = ""
        self._holds = False
        self._renewed = False
        self._worked: dict[str, int] = {}
        self._changes = -1
        self._noted = -1.0
        self._turned = float("-inf")
        self._beat = float("-inf")
        self._idle_since: tuple[float, str, float] | None = None
        self._stumbles = 0
        self._paused_until = float("-inf")
        self._told = ""
        self._offered: list[dict[str, Any]] | None = None
        self._metrics: Any = None
        self._monitoring: Any = None
        self._wire(load_at_start)
        self._waits_since = self.clock.now()

    def _wire(self, begin: Callable[[WriteSide], None] = report_loads) -> None:
        """Build everything anew from the configuration as it is now."""
        self.side = WriteSide(
            site=self._site,
            environ=self._environ,
            process="worker",
            program_version=self._version,
            kept_metrics=self._metrics,
            **self._overrides,
        )
        begin(self.side)
        self.clock = self.side.clock()
        self.store = self.side.store()
        self.lease = self.side.lease()
        self._checkpoint_due = float("-inf")
        before = self._monitoring
        self._monitoring = self.side.monitoring()
        if before is not None and self._monitoring is not None:
            self._monitoring.take_over(before)
        elif before is not None:
            before.end()
        self._metrics = self.side.metrics()
        loads.tell()

    def _reload(self) -> list[dict[str, Any]] | None:
        """Follow the site's files; the last good ones while they are broken. The templates,
        None as long as they could never be read."""
        try:
            now = self.side.latest()
            offered = now.templates()
        except BrokenConfiguration as error:
            self._tell(str(error))
            return self._offered
        self._tell(now.problem)
        self._offered = offered
        if now.settings != self.side.compiled().settings:
            self.side.journal().info("configuration changed")
            if self._holds:
                self.lease.release()
                self._holds = False
            self.store.close()
            self._wire()
            self._holds = self.lease.acquire()
        return self._offered

    def _tell(self, problem: str) -> None:
        """Say once that the site's files are broken."""
        if problem and problem != self._told:
            self.side.journal().warn("configuration is not taken over", message=problem)
        self._told = problem

    # -- ticking ----------------------------------------------------------------------------------

    def tick(self) -> bool:
        """One look at the world; False when this worker should end."""
        goes_on = self._look()
        if goes_on and self._monitoring is not None and self._monitoring.is_due():
            self._monitoring.collect()
        return goes_on

    def _look(self) -> bool:
        now = self.clock.now()
        if self.stopping:
            return False
        if now[2] < self._paused_until:
            return True
        held: dict[str, int] = {}
        try:
            if not self._holds:
                self._holds = self.lease.acquire()
                if not self._holds:
                    if not self._may_leave():
                        self.lease.ask()
                    return not self._is_surplus(now)
                for report in self.store.reports():
                    self.side.journal().warn("store", message=report)
            held = self.lease.held
            self._heartbeat(now)
            if self._something_changed() or now[2] - self._turned >= LONGEST_QUIET:
                with self._monitoring.turn() if self._monitoring is not None else nullcontext():
                    self.turn()
        except (LeaseLost, Fenced) as error:
            self.side.journal().warn("lease lost", message=str(error))
            if isinstance(error, LeaseLost) and held and held.items() <= self.lease.held.items():
                return False  # nobody has taken it: a newer release asks for it
            self._wait_anew()
            return True
        except (IntegrityError, Conflict) as error:
            # A command wrote the stream first: the next turn reads what is so now.
            self.side.journal().info("turn begun anew", message=str(error))
            self._paused_until = self.clock.now()[2] + STUMBLE
            return True
        except (StoreInert, StoreMissing) as error:
            # It is another's store now, or none: this process has nothing to work on.
            self._stumble(str(error))
            self._holds = False
            return False
        except (StoreError, CallFailed) as error:
            self._stumble(str(error))
        self._stumbles = self._stumbles if now[2] < self._paused_until else 0
        try:
            return not self._may_end(now)
        except StoreError as error:
            self._stumble(str(error))
            return True

    def turn(self) -> None:
        """One turn of all policies. Raises LeaseLost, Fenced, StoreError."""
        offered = self._reload()
        self._renew_read_models()
        if not self._holds or not self.lease.renew():
            raise LeaseLost("another worker has it, or a newer release asked for it")
        self._follow_leases()
        self.store.refuse_failed_projections()
        reach("worker.turn")
        self.side.policies().take_turn(offered)
        self.reason = ""
        self._turned = self.clock.now()[2]
        if self._turned >= self._checkpoint_due:
            self._take_checkpoint()
        loads.tell()

    def _take_checkpoint(self) -> None:
        """Of the log as it is, where the site wants them. Work goes on when one cannot be kept."""
        take = self.side.checkpoints()
        self._checkpoint_due = self._turned + CHECKPOINT_INTERVAL
        if take is None:
            return
        try:
            where = take()
        except (StoreError, BrokenConfiguration, CallFailed) as error:
            self._checkpoint_due = self._turned + CHECKPOINT_RETRY
            self.side.journal().warn("no checkpoint", message=str(error))
            return
        if where is not None:
            self.side.journal().info("checkpoint", kept=where)

    def _renew_read_models(self) -> None:
        """Once a process, by the holder of the first account's lease: after an upgrade the rows may
        be of another version. Commands and reads go on; where it cannot be done, so does the work.
        """
        if self._renewed or not self.side.turns()[0].lease.held:
            return

        def hold(position: int, end: int) -> None:
            now = self.clock.now()
            if now[2] - self._beat >= HEARTBEAT:
                self._heartbeat(now)
                if not self.lease.renew():
                    raise LeaseLost("another worker has it, or a newer release asked for it")

        try:
            renew_read_models(self.side, hold)
        except StoreBusy as error:
            self.side.journal().info("read models are rebuilt elsewhere", message=str(error))
        self._renewed = True

    def _follow_leases(self) -> None:
        """Take what has become free; whatever was known of an account is forgotten when who works
        it has changed: another worker may have made calls meanwhile."""
        self.lease.acquire()
        held = self.lease.held
        if held == self._worked:
            return
        for account in self._worked.keys() - held.keys():
            self.side.journal().info("lease given up", account=account)
        for account in held.keys() - self._worked.keys():
            self.side.journal().info("lease taken", account=account, fence=held[account])
        self._worked = held
        self.side.policies.reset()

    def _wait_anew(self) -> None:
        """Another has worked meanwhile, and may have ended before this one's last call made
        something: as long as somebody works that is found, and when nobody does it is looked for
        here."""
        self._holds = False
        self._worked = {}
        self._waits_since = self.clock.now()
        self._idle_since = None
        self._turned = float("-inf")
        try:
            self.lease.release()
        except StoreError as error:
            self._stumble(str(error))

    def _something_changed(self) -> bool:
        """Whether another process wrote to the store or noted a sighting."""
        changes, noted = self.store.changes(), self.side.sightings().noted()
        changed = (changes, noted) != (self._changes, self._noted) and noted + changes > 0
        self._changes, self._noted = changes, noted
        return changed

    def _may_end(self, now: tuple[float, str, float]) -> bool:
        work = self.side.work()
        if work.anything_open() or self.side.sightings().waiting():
            self._idle_since = None
            return False
        if self._drain:
            return self._turned > float("-inf")
        if work.anything_alive():
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = now
        idle = seconds_between(self._idle_since, now)
        timeout: float = self.side.settings().worker.idle_timeout
        return self._may_leave() and idle >= timeout

    def _is_surplus(self, now: tuple[float, str, float]) -> bool:
        """Whether this worker, which does not get the lease, is of no use: a paused holder would
        have lost it by now, so there is one that works, and has swept."""
        if self._drain:
            return not self.side.work().anything_open()
        settings = self.side.settings()
        waited = seconds_between(self._waits_since, now)
        longest = max(settings.worker.lease_time, settings.provider.aws.sweep_interval)
        return self._may_leave() and bool(waited > 2 * longest)

    def _may_leave(self) -> bool:
        """Whether the next call that needs a worker starts one."""
        return not self._stays and self.side.settings().worker.mode == "auto"

    def _heartbeat(self, now: tuple[float, str, float], **facts: Any) -> None:
        if now[2] - self._beat < HEARTBEAT and not facts:
            return
        self._beat = now[2]
        self.side.write_status(
            {
                "pid": os.getpid(),
                "version": self._version,
                "boot_id": now[1],
                "alive": now[2],
                "failures": 0,
                "reason": self.reason,
                **facts,
            },
        )

    def _stumble(self, reason: str) -> None:
        """A turn failed for a reason outside of it: say so, wait, try again."""
        self.reason = reason
        self.side.journal().error("turn failed", message=reason)
        pause = min(LONGEST_STUMBLE, STUMBLE * 2**self._stumbles)
        self._stumbles += 1
        self._paused_until = self.clock.now()[2] + pause

    # -- running ----------------------------------------------------------------------------------

    def run(self, sleep: Callable[[float], None] | None = None) -> None:
        """Tick until the end, then give the lease back."""
        sleep = sleep or self.clock.sleep
        try:
            while self.tick():
                self.side.memory_looks().tick()
                sleep(TICK)
                self._gather(sleep)
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"
            self.side.journal().error("defect", trace=traceback.format_exc())
            raise
        finally:
            self.end()

    def _gather(self, sleep: Callable[[float], None]) -> None:
        """Let a burst of commands come in: they share launches when they share a turn."""
        batch = self.side.settings().processing.batch_processing
        most = batch.batch_timeout if batch.enabled else 0.0
        waited = 0.0
        try:
            before = self.store.changes()
            while before != self._changes and waited < most:
                sleep(TICK)
                waited += TICK
                after = self.store.changes()
                if after == before:
                    return
                before = after
        except StoreError:
            return  # the next tick says so, and waits

    def end(self) -> None:
        """Give the lease back and say that it is over, and why."""
        if self._monitoring is not None:
            self._monitoring.collect()
            self._monitoring.end()
        if self._holds:
            self._holds = False
            try:
                self.lease.release()
            except StoreError as error:
                self.reason = self.reason or str(error)
            failed = {"failures": 1, "tried": self.clock.now()[2]} if self.reason else {}
            self._heartbeat(self.clock.now(), ended=True, **failed)
        self.store.close()
