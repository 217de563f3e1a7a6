"""Use case: take a ledger to another store, whole or what it lacks yet, and go on there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from application.failures import StoreError
from application.projections.record import COLUMNS

BATCH = 1000
"""Events that are taken over in one commit."""

CLOSE_ENOUGH = 200
"""Events that a source may be ahead when it is sealed: the time in which it answers nobody."""


class Source(Protocol):
    """A consistent look at the store that is copied."""

    def again(self) -> None: ...

    def events_after(self, position: int, limit: int) -> list[dict[str, Any]]: ...

    def last_events(self, limit: int, topic: str | None) -> list[dict[str, Any]]: ...

    def commands_after(self, command_id: str, limit: int) -> list[tuple[str, str, int]]: ...

    def tracked(self) -> list[tuple[str, int]]: ...

    def bodies(self) -> list[tuple[str, bytes]]: ...


class Target(Protocol):
    """The store that is made, open for writing though nobody else may use it yet."""

    name: str

    def end(self) -> tuple[int, str]:
        """Position and chain of its last event; (0, "") for none."""
        ...

    def write(self, name: str, work: Callable[[], Any]) -> Any: ...

    def take_over(
        self,
        events: Sequence[Sequence[Any]],
        commands: Sequence[tuple[str, str, int]] = (),
        tracking: Sequence[tuple[str, int]] = (),
        bodies: Sequence[tuple[str, bytes]] = (),
    ) -> None: ...


@dataclass(frozen=True)
class Copied:
    """How far a copy is: events that were there before, events that were taken over now, and where
    the source ends."""

    found: int
    taken: int
    position: int
    chain: str


def copy_store(
    source: Source,
    target: Target,
    progress: Callable[[int, int], object] = lambda done, of: None,
    batch: int = BATCH,
    until: int | None = None,
) -> Copied:
    """Take over what the target lacks, each event checked against its digest and the chain, and
    compare the ends. `progress` is told (events there, events of the source).

    A target that has part of the log already goes on where it ends: killed and called again, it
    does nothing twice. `until` is the last position that is wanted: such a copy is there to be
    looked at, and gets no user data. Raises LogDamaged, StoreError.
    """
    found, _ = target.end()
    position = found
    of, chain = _end(source, until)
    if found > of:
        raise StoreError(
            f"{target.name} has event {found} already, beyond event {of}: name another"
        )
    while position < of:
        events = source.events_after(position, min(batch, of - position))
        rows = [tuple(event[column] for column in COLUMNS) for event in events]
        target.write("copy", lambda rows=rows: target.take_over(rows))  # type: ignore[misc]
        position = rows[-1][0]
        progress(position, of)
    _copy_beside(source, target, until)
    if target.end() != (of, chain):
        raise StoreError(
            f"{target.name} does not end as the source does (at event {of}): it is of another "
            "log, or was written to; make an empty one and copy again"
        )
    return Copied(found, position - found, of, chain)


def _end(source: Source, until: int | None = None) -> tuple[int, str]:
    """Position and chain of the last event up to there; (0, "") for none."""
    if until is None:
        last = source.last_events(1, None)
    else:
        last = source.events_after(until - 1, 1) if until else []
    return (last[0]["position"], last[0]["chain"]) if last else (0, "")


def _copy_beside(source: Source, target: Target, until: int | None) -> None:
    """What is no event and no read row: answers to commands, how far each policy is, user data."""
    last = ""
    while commands := source.commands_after(last, BATCH):
        last = commands[-1][0]
        if until is not None:
            commands = [command for command in commands if command[2] <= until]
        target.write("copy", lambda c=commands: target.take_over((), commands=c))  # type: ignore[misc]
    tracked, bodies = source.tracked(), source.bodies()
    if until is not None:
        tracked, bodies = [(name, min(at, until)) for name, at in tracked], []
    target.write("copy", lambda: target.take_over((), tracking=tracked, bodies=bodies))


def move_store(
    source: Source,
    target: Target,
    seal: Callable[[], object],
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> Copied:
    """Follow a living source until it is close, `seal` it, and take over the rest: from then on the
    source records nothing, and everything it ever answered is in the target.

    Raises as `copy_store`, and what `seal` raises.
    """
    found = target.end()[0]
    while True:
        copied = copy_store(source, target, progress)
        source.again()
        if _end(source)[0] - copied.position <= CLOSE_ENOUGH:
            break
    seal()
    source.again()
    rest = copy_store(source, target, progress)
    return Copied(found, rest.position - found, rest.position, rest.chain)
