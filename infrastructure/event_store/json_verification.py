"""The log of JSON lines as it is stored, for `verification.py`: nothing is opened for writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from application.failures import LogDamaged, StoreInert
from application.json_text import loads
from application.projections.record import COLUMNS
from infrastructure.event_store.json_ledger import deployment_of, read_identity
from infrastructure.event_store.json_log import Reader, text_of
from infrastructure.event_store.verification import (
    BATCH,
    derived_at,
    noted_beside,
    shaped,
)

if TYPE_CHECKING:
    from infrastructure.event_store.verification import Batch, RawLog


class JsonRawLog:
    """The lines in `base`; `copies` is the ledger beside them, which answers the questions."""

    def __init__(self, base: str) -> None:
        self.name = base
        try:
            self.deployment = read_identity(base).deployment
        except StoreInert:
            self.deployment = deployment_of(base)
        self.noted = noted_beside(base + "/log.lock")
        self.end = self.noted[0] if self.noted else 0
        self.chain = ""
        self._reader = Reader(base)
        self.copies: Sequence[RawLog] = derived_at(base + "/ledger.db")

    def batches(self) -> Iterator[Batch]:
        batch: list[Any] = []
        for body in self._reader:
            batch += _events(body)
            if len(batch) >= BATCH:
                yield batch
                batch = []
        yield batch

    def problems(self) -> list[tuple[int | None, str]]:
        return []

    def close(self) -> None:
        for copy in self.copies:
            copy.close()


def _events(body: bytes) -> Iterator[Any]:
    """Raises LogDamaged for what only looks like a line of ours."""
    try:
        commit = loads(body.decode())
        events = [(commit["first"] + number, e) for number, e in enumerate(commit["events"])]
    except (KeyError, TypeError, ValueError) as error:
        raise LogDamaged(f"a line is no commit: {error!r}") from None
    for position, event in events:
        yield shaped(_row(event), position)


def _row(event: Any) -> list[Any]:
    """An event of a line in the order of COLUMNS; [] where it is none of ours."""
    try:
        return [
            text_of(event[name]) if name in ("metadata", "data") else event[name]
            for name in COLUMNS
        ]
    except (KeyError, TypeError, ValueError):
        return []
