"""What the policies of an account have learned and may forget, but not at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from application.json_text import dumps

if TYPE_CHECKING:
    from application.instants import Instant
    from application.ports import Clock, Notebook


class Kept:
    """What the policies of an account have learned for a while: a value by its key, until when.

    A worker has it in memory. Where each turn is a process of its own the notebook has it in
    between: `read` before the turn, `write` after it. What another boot noted is of no use: its
    clock was another.
    """

    def __init__(self, notebook: Notebook, clock: Clock) -> None:
        self._notebook = notebook
        self._clock = clock
        self._things: dict[str, tuple[Any, float]] = {}
        self._noted: dict[str, Instant] = {}

    def get(self, key: str) -> Any:
        """None when there is none, or its time is over."""
        value, until = self._things.get(key, (None, 0.0))
        return value if until > self._clock.now()[2] else None

    def put(self, key: str, value: Any, seconds: float) -> None:
        self._things[key] = (value, self._clock.now()[2] + seconds)

    def drop(self, key: str) -> None:
        self._things.pop(key, None)

    def clear(self) -> None:
        """Begin anew: who worked before may have been another."""
        self._things.clear()

    def read(self) -> None:
        """Take in what the turn before has written."""
        self._noted = self._notebook.kept()
        for text, until in self._noted.items():
            if self._is_ahead(until):
                key, value = json.loads(text)
                self._things[key] = (value, until[2])

    def write(self) -> None:
        """Leave it to the next turn: one commit, none when nothing is new."""
        wall, boot_id, seconds = self._clock.now()
        lives: dict[str, Instant] = {
            dumps([key, value]): (wall + until - seconds, boot_id, until)
            for key, (value, until) in self._things.items()
            if until > seconds
        }
        noted = {t: until[2] for t, until in self._noted.items() if self._is_ahead(until)}
        if {text: until[2] for text, until in lives.items()} == noted:
            return
        over = [t for t, until in self._noted.items() if until[1] == boot_id or until[0] < wall]
        self._notebook.keep(lives, [text for text in over if text not in lives])

    def _is_ahead(self, until: Instant) -> bool:
        _, boot_id, seconds = self._clock.now()
        return until[1] == boot_id and until[2] > seconds
