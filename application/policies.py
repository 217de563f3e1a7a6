"""All policies in the order of a turn: the same for the worker, an inline call and a simulation."""

from __future__ import annotations

from typing import Any

from application.assigning import Assigning
from application.finishing import Finishing
from application.provisioning import Provisioning
from application.reconciliation import Reconciliation
from application.returning import Returning
from application.revising import Revising
from application.sighting import Sighting, Sightings
from application.turn import Turn


class Policies:
    def __init__(self, turn: Turn, provider: str, sightings: Sightings) -> None:
        self.turn = turn
        self._provisioning = Provisioning(turn)
        self._assigning = Assigning(turn)
        self._returning = Returning(turn)
        self._reconciliation = Reconciliation(
            turn, self._returning.unheeded, self._returning.slow_to_start
        )
        self._sighting = Sighting(turn, sightings, self._reconciliation)
        self._finishing = Finishing(turn, self._returning.refusals)
        self._revising = Revising(turn, provider)

    def take_turn(self, offered: list[dict[str, Any]] | None) -> None:
        """One turn. `offered` are the templates as the site's file has them now; None when nobody
        could read it.

        Raises LeaseLost (or the store's Fenced) when another worker has taken over.
        """
        if offered is not None:
            self._revising.take_turn(offered)
        self._sighting.take_turn()
        self._provisioning.take_turn()
        self._assigning.take_turn()
        # Before anything is ended EC2 is looked at, so that a turn needs no memory of the last one.
        self._reconciliation.take_turn()
        # A sweep may have settled a batch: its machines exist before its request can be final.
        self._assigning.take_turn()
        self._returning.take_turn()
        self._finishing.take_turn()
