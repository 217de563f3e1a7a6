"""One page of a listing: what is wanted of it, in which order, and where the next one begins.

A cursor is the last row's place in the order, so that a page costs the same wherever it is, and
nothing is told twice or left out while others write.
"""

from __future__ import annotations

import base64
import binascii

from application import queries
from application.json_text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    Row = dict[str, Any]
    Condition = tuple[str, str, Any]
    """Column, operator (= or >= or <=), value."""

    class View(Protocol):
        def page(
            self,
            table: str,
            columns: Sequence[str],
            conditions: Sequence[Condition],
            order: tuple[str, str, bool],
            after: tuple[Any, str] | None,
            limit: int,
        ) -> list[tuple[Any, ...]]: ...


class BadQuestion(Exception):
    """What is asked of a listing cannot be answered: which parameter, and what is possible."""


class Listing:
    """A read model that is told page by page: `filters` and `sorts` are parameter -> column,
    `flags` parameter -> column and the number that is true, `key` tells rows apart, `document`
    makes the answer of a row's `columns`; without it the store writes it (`queries.MACHINE`). A
    sort in `indexed` costs the same whatever the store's size, and so does a filter by one of
    `owners`."""

    def __init__(
        self,
        table: str,
        key: str,
        columns: Sequence[str],
        document: Callable[[Row], Row] | None,
        filters: Mapping[str, str],
        flags: Mapping[str, tuple[str, int]],
        sorts: Mapping[str, str],
        indexed: frozenset[str],
        owners: frozenset[str] = frozenset(),
    ) -> None:
        self.table = table
        self.key = key
        self.columns = tuple(columns)
        self.document = document
        self.filters = filters
        self.flags = flags
        self.sorts = sorts
        self.indexed = indexed
        self.owners = owners


REQUESTS = Listing(
    "requests",
    "request_id",
    queries.REQUEST_COLUMNS,
    queries.request_document,
    {name: name for name in ("kind", "status", "state", "template_id", "provider", "source")},
    {"open": ("final", 0)},
    {
        "created_at": "position",
        "request_id": "request_id",
        "status": "status",
        "template_id": "template_id",
        "machine_count": "machine_count",
        "final_at": "final_at",
    },
    frozenset({"created_at", "request_id"}),
)
MACHINES = Listing(
    "machines",
    "machine_id",
    ("document",),
    None,
    {
        name: name
        for name in (
            "status", "result", "request_id", "return_id", "batch_id", "template_id", "provider",
            "account", "region", "zone", "instance_type", "price_type", "name",
            "private_ip_address",
        )
    },
    {"alive": ("alive", 1)},
    {
        "created_at": "position",
        "machine_id": "machine_id",
        "updated_at": "updated_at",
        "launch_time": "launch_time",
        "status": "status",
        "template_id": "template_id",
        "instance_type": "instance_type",
        "zone": "zone",
    },
    frozenset({"created_at", "machine_id"}),
    frozenset({"request_id"}),
)  # fmt: skip
BATCHES = Listing(
    "batches",
    "batch_id",
    queries.BATCH_COLUMNS,
    queries.batch_document,
    {name: name for name in ("state", "template_id", "provider", "account", "region", "pool")},
    {},
    {"created_at": "position", "batch_id": "batch_id", "updated_at": "updated_at"},
    frozenset({"batch_id"}),
)
NUMBERS = frozenset({"position", "machine_count", "launch_time"})
"""Columns of `sorts` that hold whole numbers; the others hold texts."""


class Wanted:
    """A page that is asked for. Raises BadQuestion."""

    def __init__(
        self,
        listing: Listing,
        filters: Mapping[str, str | bool | None],
        sort: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        since: str | None = None,
        until: str | None = None,
    ) -> None:
        self.listing = listing
        self.limit = limit
        given = sort or "-created_at"
        self.descending = given.startswith("-")
        self.sort = given.removeprefix("-")
        column = listing.sorts.get(self.sort)
        if column is None:
            raise BadQuestion(
                f"sort: {self.sort!r} is none of {', '.join(listing.sorts)} (a - before it: the "
                "greatest first)"
            )
        self.order = (column, listing.key, self.descending)
        self.conditions: list[Condition] = []
        self.is_cheap = self.sort in listing.indexed
        for name, value in filters.items():
            if value is None:
                continue
            if name in listing.flags:
                flag, truth = listing.flags[name]
                self.conditions.append((flag, "=", truth if value else 1 - truth))
            else:
                self.conditions.append((listing.filters[name], "=", value))
            self.is_cheap &= name in listing.owners
        for bound, operator in ((since, ">="), (until, "<=")):
            if bound:
                self.conditions.append(("created_at", operator, bound))
                self.is_cheap = False
        self.after = _place(cursor, given, column) if cursor else None

    def next_cursor(self, rows: Sequence[tuple[Any, ...]]) -> str | None:
        """Where the page after these rows, whose last two columns are their places, begins; None
        where there is none."""
        if len(rows) <= self.limit:
            return None
        sort = ("-" if self.descending else "") + self.sort
        place = dumps([sort, *rows[self.limit - 1][-2:]])
        return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place(cursor: str, sort: str, column: str) -> tuple[Any, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        said, value, key = loads(text.decode())
    except (ValueError, binascii.Error, TypeError):
        raise BadQuestion("cursor: this is none that an answer gave in `next`") from None
    is_place = isinstance(value, str) and "\0" not in value
    if column in NUMBERS:
        is_place = type(value) is int and abs(value) < 2**62
    if said != sort or not isinstance(key, str) or "\0" in key or not is_place:
        raise BadQuestion("cursor: it was given for another sort: begin without one")
    return value, key


def page(
    view: View, wanted: Wanted, read: Callable[[str], Any] = loads
) -> tuple[list[Any], str | None]:
    """The documents of a page, and the cursor of the next one. `read` makes what is wanted of a
    JSON text where the store writes it."""
    listing = wanted.listing
    rows = view.page(
        listing.table,
        (*listing.columns, *wanted.order[:2]),
        wanted.conditions,
        wanted.order,
        wanted.after,
        wanted.limit + 1,
    )
    told, document = rows[: wanted.limit], listing.document
    if document is None:
        documents = [read(row[0]) for row in told]
    else:
        documents = [document(dict(zip(listing.columns, row, strict=False))) for row in told]
    return documents, wanted.next_cursor(rows)


def fields_of(documents: Sequence[Row], fields: str | None, every: Sequence[str]) -> Sequence[Row]:
    """The documents with nothing but these fields (comma-separated). Raises BadQuestion."""
    if fields is None:
        return documents
    wanted = [name.strip() for name in fields.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in every]
    if unknown or not wanted:
        raise BadQuestion(
            f"fields: {', '.join(unknown) or 'nothing'} is none of {', '.join(every)}"
        )
    return [{name: document[name] for name in wanted} for document in documents]
