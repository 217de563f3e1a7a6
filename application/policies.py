"""All policies in the order of a turn: the same for the worker, an inline call and a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from application.assigning import Assigning
from application.choosing import Choosing
from application.finishing import Finishing
from application.fleets import Fleets
from application.interrupting import Interrupting
from application.launch_templates import LaunchTemplates
from application.provisioning import Provisioning
from application.reconciliation import Reconciliation, Sweep
from application.returning import Returning, Telling
from application.revising import Revising
from application.sighting import Sighting, Sightings
from application.threads import in_threads
from application.turn import Turn


class _Account:
    """The policies that act in one account, each with what it remembers of it."""

    def __init__(self, turn: Turn, elsewhere: Any) -> None:
        self.templates = LaunchTemplates(turn)
        self.provisioning = Provisioning(turn, self.templates, elsewhere)
        self.fleets = Fleets(turn)
        self.returning = Returning(turn, self.fleets.unlowered)
        self.reconciliation = Reconciliation(
            turn, self.fleets, self.returning.unheeded, self.returning.slow_to_start
        )
        self.interrupting = Interrupting(turn)


class Policies:
    """`turns` are the accounts' in the site's order. Those whose lease is held now are worked, from
    the start: who gains or loses one begins anew with other policies. What belongs to no account is
    done by the worker that holds the first one's lease. `threads` accounts are swept at a time."""

    def __init__(
        self, turns: Sequence[Turn], provider: str, sightings: Sightings, threads: int = 1
    ) -> None:
        self.turns = turns
        self._threads = threads
        self._leads = turns[0].lease.held
        held = [turn for turn in turns if turn.lease.held]
        for turn in held:
            turn.kept.clear()
        self._accounts = [_Account(turn, self._elsewhere) for turn in held]
        self._choosing = Choosing(
            held[0],
            [a.provisioning for a in self._accounts],
            [turn.cloud.account for turn in turns],
        )
        self._assigning = Assigning(turns[0])
        self._telling = Telling(turns[0])
        self._sighting = Sighting(turns, sightings, [a.reconciliation for a in self._accounts])
        self._finishing = Finishing(turns)
        self._revising = Revising(turns[0], provider)
        if self._leads:
            self._tell_abandoned()

    def _tell_abandoned(self) -> None:
        """Once: machines of an account that the configuration does not have any more. Nobody looks
        at them, so nothing is concluded about them."""
        turn = self.turns[0]
        places = [(turn.cloud.account, turn.cloud.region) for turn in self.turns]
        for row in turn.work.abandoned(places):
            turn.journal.warn(
                "an account is not in the configuration",
                account=row["account"],
                region=row["region"],
                machines=row["machines"],
                open_batches=row["batches"],
                next_step="give provider.accounts its account back until its machines are returned",
            )

    def _elsewhere(self, asking: Provisioning, row: dict[str, Any]) -> bool:
        return self._choosing.serves_elsewhere(asking, row)

    def take_turn(self, offered: list[dict[str, Any]] | None) -> None:
        """One turn. `offered` are the templates as the site's file has them now; None when nobody
        could read it.

        Raises LeaseLost (or the store's Fenced) when another worker has taken over.
        """
        if self._leads:
            if offered is not None:
                self._revising.take_turn(offered)
            self._sighting.take_turn()
        # Terminations go first: a launch that hangs must not keep machines that cost.
        self._end_what_is_owed()
        for account in self._accounts:
            account.interrupting.take_turn()
            account.provisioning.pursue()
        self._choosing.take_turn()
        self._assign()
        # Before anything is ended EC2 is looked at, so that a turn needs no memory of the last one.
        for account, sweep in zip(self._accounts, self._sweeps(), strict=True):
            account.reconciliation.take_turn(sweep)
        # A sweep may have settled a batch: its machines exist before its request can be final.
        self._assign()
        self._end_what_is_owed()
        # A fleet may have been closed: its requests hear the reasons before they are final.
        self._assign()
        if self._leads:
            self._finishing.take_turn()
        for account in self._accounts:
            account.templates.take_turn()

    def _sweeps(self) -> list[Sweep | None]:
        """The accounts' sweeps that are due, asked for several at a time; None for those that see
        to it in their own turn."""
        if self._threads == 1 or len(self._accounts) == 1:
            return [None] * len(self._accounts)
        begun = [account.reconciliation.begin_sweep() for account in self._accounts]
        in_threads(self._threads, Sweep.ask, [sweep for sweep in begun if sweep is not None])
        return begun

    def _assign(self) -> None:
        if self._leads:
            self._assigning.take_turn()

    def _end_what_is_owed(self) -> None:
        if self._leads:
            self._telling.take_turn()
        for account in self._accounts:
            # A fleet's target is lowered before its machines are ended, else they come back.
            account.fleets.take_turn()
            account.returning.take_turn()
