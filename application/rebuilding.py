"""Use case: build the read models anew beside those that answer, compare, and exchange them.

Nothing but rows changes: no event is recorded, no policy runs, and nothing is asked of AWS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from application.projections import TABLES, VERSIONS
from application.replay import end_of, no_search_for_cycles, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Protocol

    from application.replay import Stored

    Key = tuple[Any, ...]
    Row = dict[str, Any]
    Change = tuple[str, Key, Row | None]
    """Table, key, and the row that is to be there; None for none."""

    class Source(Protocol):
        """A consistent look at a store's log and read tables."""

        def again(self) -> None: ...

        def events_after(self, position: int, limit: int) -> list[Row]: ...

        def records_to_replay(self, position: int, limit: int) -> list[Stored]: ...

        def last_events(self, limit: int, topic: str | None) -> list[Row]: ...

        def projections(self) -> list[Row]: ...

        def columns_of(self, table: str) -> list[str]: ...

        def rows_of(self, table: str) -> Iterator[tuple[Key, tuple[Any, ...]]]: ...

    class Store(Protocol):
        """The same store, open for writing."""

        def exchange(
            self, rows: Callable[[], Iterable[Change]], projections: Callable[[], dict[str, int]]
        ) -> None:
            """In one commit: put `rows` into the read tables, or take them away, for `projections`
            (name -> version, asked afterwards), which follow the log from here on."""
            ...

    class Replica(Protocol):
        """Read models that follow a log by themselves (`infrastructure.read_models.replica`)."""

        position: int
        chain: str

        def begin(self) -> None: ...

        def take(self, events: Sequence[Stored]) -> None: ...

        def write(self) -> None: ...

        def failed(self) -> list[tuple[str, int, str]]: ...

        def rows_of(self, table: str) -> Iterator[tuple[Key, tuple[Any, ...]]]: ...

        def mark(self, keys: Iterable[tuple[str, Key]]) -> int: ...

        def marked(self, tables: Sequence[str]) -> Iterator[Change]: ...

    Progress = Callable[[int, int], object]

STRETCH = 100_000
"""Events that are taken in within one look."""

CLOSE_ENOUGH = 2_000
"""Events that may be left for the look in which the rows are compared."""


class Difference(NamedTuple):
    """A row that is not as the events have it; None where there is none."""

    table: str
    key: Key
    live: tuple[Any, ...] | None
    rebuilt: tuple[Any, ...] | None


class Rebuilt(NamedTuple):
    """How far the log was followed, how many rows were exchanged, and (name, position, error) of
    the projections that could not follow: their rows are as they were."""

    position: int
    exchanged: int
    failed: list[tuple[str, int, str]]


def is_outdated(source: Source) -> bool:
    """Whether rows were made by another version of their projection than this release has."""
    return {row["name"]: row["version"] for row in source.projections()} != VERSIONS


@no_search_for_cycles()
def rebuild(
    source: Source, store: Store, within: Source, replica: Replica, progress: Progress
) -> Rebuilt:
    """Build the read models from the log alone, and put what differs into the store in one commit.

    `within` looks at the store as a write of `store` has it. Commands go on meanwhile; only that
    commit holds them up. Killed, it has changed nothing; called again with the same replica, it
    goes on. A projection that fails now keeps its rows, and stands still if it did. `progress` is
    told (position, end). Raises UnknownEvent, LogDamaged, StoreError, and what `progress` raises.
    """
    exchanged = 0
    while True:
        _follow(source, replica, progress)
        found = replica.mark(
            (difference.table, difference.key)
            for difference in differences(source, replica, _tables(_sound(replica)))
        )
        exchanged += found
        compared = replica.position

        def catch_up() -> Iterator[Change]:
            replay(within, replica, end_of(within))
            yield from replica.marked(_tables(_sound(replica)))
            replica.mark(())

        store.exchange(catch_up, lambda: {name: VERSIONS[name] for name in _sound(replica)})
        if not found or replica.position == compared:
            return Rebuilt(replica.position, exchanged, replica.failed())
        # What was recorded in between may have been decided on rows that were wrong.
        source.again()


def _follow(source: Source, replica: Replica, progress: Progress) -> None:
    """Take in all that the source's look has. No look is held for long: what is written meanwhile
    waits for its end."""
    while (end := end_of(source)) - replica.position > CLOSE_ENOUGH:
        replay(source, replica, min(end, replica.position + STRETCH), _towards(end, progress))
        source.again()
    replay(source, replica, end)
    progress(end, end)


def _towards(end: int, progress: Progress) -> Progress:
    return lambda position, _: progress(position, end)


def _sound(replica: Replica) -> list[str]:
    failed = {name for name, *_ in replica.failed()}
    return [name for name in VERSIONS if name not in failed]


def _tables(projections: Iterable[str]) -> list[str]:
    return [table for name in projections for table in TABLES[name]]


def differences(live: Source, rebuilt: Replica, tables: Sequence[str]) -> Iterator[Difference]:
    """Every row of these tables that is not the same, in the order of tables and keys."""
    for table in tables:
        ours, theirs = live.rows_of(table), rebuilt.rows_of(table)
        one, other = next(ours, None), next(theirs, None)
        while one is not None or other is not None:
            if one == other:
                one, other = next(ours, None), next(theirs, None)
            elif other is None or (one is not None and one[0] < other[0]):
                assert one is not None  # narrows the type
                yield Difference(table, one[0], one[1], None)
                one = next(ours, None)
            elif one is None or other[0] < one[0]:
                yield Difference(table, other[0], None, other[1])
                other = next(theirs, None)
            else:
                yield Difference(table, one[0], one[1], other[1])
                one, other = next(ours, None), next(theirs, None)


@no_search_for_cycles()
def verify(source: Source, replica: Replica, progress: Progress) -> Row:
    """Compare the read models with what the log makes of an empty replica; nothing is changed.

    A document with `position` (the end of the log), `failed` (name, position, error of those that
    the log cannot be followed with), `differences` (how many rows) and the `first` of them: table,
    key, column and both values; null for none. Raises UnknownEvent, LogDamaged, StoreError.
    """
    doubted: set[tuple[str, Key]] | None = None
    while True:
        end = end_of(source)
        replay(source, replica, end, progress)
        found: set[tuple[str, Key]] = set()
        first = None
        for difference in differences(source, replica, _tables(_sound(replica))):
            if doubted is None or difference[:2] in doubted:
                found.add(difference[:2])
                first = first or difference
        if doubted is not None or not found:
            break
        # Where a look is not of one instant, a commit may have come in between.
        doubted = found
        source.again()
    return {
        "position": end,
        "failed": [
            {"name": name, "position": position, "error": error}
            for name, position, error in replica.failed()
        ],
        "differences": len(found),
        "first": first and _told(first, source.columns_of(first.table)),
    }


def _told(difference: Difference, columns: list[str]) -> Row:
    """The first column in which two rows differ; "" where one of them is not there."""
    table, key, live, rebuilt = difference
    document: Row = {"table": table, "key": "/".join(map(str, key)), "column": ""}
    made = rebuilt or live
    assert made is not None
    row = dict(zip(columns, made, strict=True))
    document["position"] = row.get("position")
    if live is None or rebuilt is None:
        there = {"live": live is not None, "rebuilt": rebuilt is not None}
        return {**document, **{name: "a row" if is_ else None for name, is_ in there.items()}}
    for column, one, other in zip(columns, live, rebuilt, strict=True):
        if one != other:
            return {**document, "column": column, "live": one, "rebuilt": other}
    raise AssertionError("the rows are the same")


def projections(source: Source) -> list[Row]:
    """Each read model with its version, how far it follows, and where and why it stopped."""
    end = end_of(source)
    return [
        {
            "name": row["name"],
            "tables": list(TABLES.get(row["name"], ())),
            "version": row["version"],
            "current_version": VERSIONS.get(row["name"]),
            "position": end if row["failed_at"] is None else row["failed_at"] - 1,
            "lag": 0 if row["failed_at"] is None else end - row["failed_at"] + 1,
            "failed_at": row["failed_at"],
            "error": row["error"],
        }
        for row in source.projections()
    ]
