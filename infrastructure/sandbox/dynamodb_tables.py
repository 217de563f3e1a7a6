"""DynamoDB's tables in memory: items by key, in order within a partition, and their indexes."""

from __future__ import annotations

import heapq
import re
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import Any, NamedTuple

from .dynamodb_values import (
    HASH_MAX,
    ITEM_MAX,
    RANGE_MAX,
    Item,
    Value,
    copy_of_key,
    invalid,
    normal,
    normal_item,
    ordered,
)

# A row's place: the partition's key, and what the rows of a partition are ordered by (the range
# key, in an index followed by the key of the table's item).
Place = tuple[Any, tuple[Any, ...]]

_WRITE_UNIT = 1024
_RANGE = itemgetter(0)
_INDEXES_MAX = 20
_numbers = count(1)
"""Of tables: one that is made again is another."""
_TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")


class Row(NamedTuple):
    """An item (never changed, only replaced) and its size in bytes."""

    item: Item
    size: int


@dataclass(frozen=True)
class Keys:
    """The key attributes of a table or an index; `range` is None where there is none."""

    hash: str
    range: str | None
    types: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.hash,) if self.range is None else (self.hash, self.range)

    def place(self, item: Item) -> Place:
        """Where an item that has the key lies."""
        order = () if self.range is None else (ordered(item[self.range]),)
        return ordered(item[self.hash]), order

    def checked(self, key: Any) -> tuple[Place, Item]:
        """A Key parameter's place and attributes. Raises ValidationException."""
        if not isinstance(key, dict) or key.keys() != set(self.names):
            raise invalid("The provided key element does not match the schema")
        item = {name: normal(value)[0] for name, value in key.items()}
        self.check(item, "The provided key element does not match the schema")
        return self.place(item), item

    def check(self, item: Item, wrong_type: str | None = None) -> None:
        """Refuse an item whose key is missing, of a wrong type, empty or too long."""
        for name in self.names:
            if name not in item:
                raise invalid(
                    f"One or more parameter values were invalid: Missing the key {name} in the item"
                )
            ((kind, _),) = item[name].items()
            if kind != self.types[name]:
                raise invalid(
                    wrong_type
                    or f"One or more parameter values were invalid: Type mismatch for key {name} "
                    f"expected: {self.types[name]} actual: {kind}"
                )
            _check_length(name, item[name], HASH_MAX if name == self.hash else RANGE_MAX)

    def check_in_index(self, index: str, item: Item) -> bool:
        """Whether an item is in an index with this key. Raises as AWS does for a bad value."""
        for name in self.names:
            if name in item:
                ((kind, _),) = item[name].items()
                if kind != self.types[name]:
                    raise invalid(
                        "One or more parameter values were invalid: Type mismatch for Index Key "
                        f"{name} Expected: {self.types[name]} Actual: {kind} IndexName: {index}"
                    )
                most = HASH_MAX if name == self.hash else RANGE_MAX
                _check_length(name, item[name], most)
        return all(name in item for name in self.names)


class Rows:
    """Rows by partition, each partition in the order of its range key."""

    def __init__(self) -> None:
        self._partitions: dict[Any, _Partition] = {}
        self.count = 0
        self.size = 0

    def get(self, place: Place) -> Row | None:
        partition = self._partitions.get(place[0])
        return None if partition is None else partition.rows.get(place[1])

    def put(self, place: Place, row: Row | None) -> Row | None:
        """Set a row, or take it away; returns the one that was there."""
        hash_key, order = place
        partition = self._partitions.get(hash_key)
        old = None if partition is None else partition.rows.get(order)
        if row is None:
            if partition is not None and old is not None:
                del partition.rows[order]
                del partition.order[bisect_left(partition.order, order)]
                if not partition.rows:
                    del self._partitions[hash_key]
        else:
            if partition is None:
                partition = self._partitions[hash_key] = _Partition()
            if old is None:
                insort(partition.order, order)
            partition.rows[order] = row
        self.count += (row is not None) - (old is not None)
        self.size += (row.size if row else 0) - (old.size if old else 0)
        return old

    def within(
        self,
        hash_key: Any,
        sign: str | None,
        operands: list[Any],
        *,
        after: tuple[Any, ...] | None = None,
        forward: bool = True,
    ) -> Iterator[tuple[Place, Row]]:
        """The rows of a partition whose range key is so, from `after` on, in order."""
        partition = self._partitions.get(hash_key)
        if partition is None:
            return
        order = partition.order
        low, high = _bounds(order, sign, operands)
        if after is not None:
            if forward:
                low = max(low, bisect_right(order, after))
            else:
                high = min(high, bisect_left(order, after))
        for number in range(low, high) if forward else range(high - 1, low - 1, -1):
            yield (hash_key, order[number]), partition.rows[order[number]]

    def scan(self, after: Place | None = None) -> Iterator[tuple[Place, Row]]:
        """All rows, from `after` on; partitions in no order that means anything."""
        by_hash = sorted(self._partitions, key=_scattered)
        for hash_key in by_hash:
            if after is not None and _scattered(hash_key) < _scattered(after[0]):
                continue
            beyond = after[1] if after is not None and hash_key == after[0] else None
            yield from self.within(hash_key, None, [], after=beyond)


@dataclass
class _Partition:
    order: list[tuple[Any, ...]] = field(default_factory=list)
    rows: dict[tuple[Any, ...], Row] = field(default_factory=dict)


@dataclass
class Index:
    """A global secondary index, which shows each change some time after it was made."""

    name: str
    keys: Keys
    projection: dict[str, Any]
    throughput: dict[str, int] | None
    rows: Rows = field(default_factory=Rows)
    # Changes still to be shown: due, order, the item's place in the table, its row here.
    _pending: list[tuple[float, int, Place, Row | None]] = field(default_factory=list)
    _due: dict[Place, float] = field(default_factory=dict)
    _where: dict[Place, Place] = field(default_factory=dict)
    _count: int = 0

    def row(self, table: Keys, item: Item | None) -> Row | None:
        """What the index holds of a table's item, None when it is not in it."""
        if item is None or not self.keys.check_in_index(self.name, item):
            return None
        if self.projection["ProjectionType"] != "ALL":
            wanted = {
                *table.names,
                *self.keys.names,
                *self.projection.get("NonKeyAttributes", ()),
            }
            item = {name: value for name, value in item.items() if name in wanted}
        return Row(*normal_item(item))

    def change(self, place: Place, row: Row | None, due: float) -> None:
        """Show an item's new row when `due`; the changes of one item keep their order."""
        due = self._due[place] = max(due, self._due.get(place, due))
        self._count += 1
        heapq.heappush(self._pending, (due, self._count, place, row))

    def show(self, now: float) -> None:
        """Show what is due."""
        while self._pending and self._pending[0][0] <= now:
            due, _, place, row = heapq.heappop(self._pending)
            if self._due.get(place) == due:
                del self._due[place]
            if (old := self._where.pop(place, None)) is not None:
                self.rows.put(old, None)
            if row is not None:
                hash_key, order = self.keys.place(row.item)
                here = self._where[place] = hash_key, (*order, place)
                self.rows.put(here, row)


@dataclass
class Table:
    """A table: what it was made with, its items, and what can be asked about it."""

    name: str
    arn: str
    created: float
    active_from: float
    keys: Keys
    described: dict[str, Any]
    indexes: dict[str, Index]
    rows: Rows = field(default_factory=Rows)
    tags: dict[str, str] = field(default_factory=dict)
    protected: bool = False
    updating_until: float = 0.0
    gone_from: float | None = None
    time_to_live: str | None = None
    recovery_from: float | None = None

    def status(self, now: float) -> str:
        if self.gone_from is not None:
            return "DELETING"
        if now < self.active_from:
            return "CREATING"
        return "UPDATING" if now < self.updating_until else "ACTIVE"

    def checked(self, item: Any) -> tuple[Place, Row]:
        """A new item's place and row. Raises ValidationException."""
        kept, size = normal_item(item)
        self.keys.check(kept)
        if size > ITEM_MAX:
            raise invalid("Item size has exceeded the maximum allowed size")
        for index in self.indexes.values():
            index.keys.check_in_index(index.name, kept)
        return self.keys.place(kept), Row(kept, size)

    def put(self, place: Place, new: Row | None, due: float, now: float) -> list[tuple[Index, int]]:
        """Set or take away a row, let the indexes follow; the write units that each uses."""
        old = self.rows.put(place, new)
        used: list[tuple[Index, int]] = []
        for index in self.indexes.values():
            was = index.row(self.keys, old.item if old else None)
            row = index.row(self.keys, new.item if new else None)
            if was == row:
                continue
            # "Using global secondary indexes": a changed key is a deletion and an insertion.
            moved = was and row and index.keys.place(was.item) != index.keys.place(row.item)
            sizes = [one.size for one in (was, row) if one is not None]
            units = [max(1, -(-size // _WRITE_UNIT)) for size in sizes]
            used.append((index, sum(units) if moved else max(units)))
            index.change(place, row, due)
            index.show(now)
        return used

    def key_of(self, item: Item, index: Index | None = None) -> Item:
        """The key after which a page of the table, or of an index, goes on."""
        names = (*self.keys.names, *(index.keys.names if index is not None else ()))
        return copy_of_key(item, names)

    def description(self, now: float) -> dict[str, Any]:
        """TableDescription of API_TableDescription.html."""
        described = {
            **self.described,
            "TableName": self.name,
            "TableArn": self.arn,
            "TableStatus": self.status(now),
            "CreationDateTime": self.created,
            "ItemCount": self.rows.count,
            "TableSizeBytes": self.rows.size,
            "DeletionProtectionEnabled": self.protected,
        }
        if self.indexes:
            described["GlobalSecondaryIndexes"] = [
                {
                    "IndexName": index.name,
                    "KeySchema": _schema(index.keys),
                    "Projection": index.projection,
                    "IndexStatus": self.status(now),
                    "ProvisionedThroughput": throughput_described(index.throughput),
                    "IndexSizeBytes": index.rows.size,
                    "ItemCount": index.rows.count,
                    "IndexArn": f"{self.arn}/index/{index.name}",
                }
                for index in self.indexes.values()
            ]
        return described


def made(asked: Mapping[str, Any], arn: str, now: float, active_from: float) -> Table:
    """The table that CreateTable asks for. Raises ValidationException."""
    name = asked.get("TableName", "")
    if not _TABLE_NAME.fullmatch(name):
        raise invalid(
            "TableName must be at least 3 characters long and at most 255 characters long, of "
            f"a-z, A-Z, 0-9, '_', '-' and '.': {name!r}"
        )
    types = {
        one["AttributeName"]: one["AttributeType"] for one in asked.get("AttributeDefinitions", ())
    }
    for attribute, kind in types.items():
        if kind not in ("S", "N", "B"):
            raise invalid(f"Member must satisfy enum value set: [B, N, S]: {attribute} is {kind}")
    mode = asked.get("BillingMode", "PROVISIONED")
    keys = _keys(asked.get("KeySchema", ()), types)
    indexes: dict[str, Index] = {}
    for one in asked.get("GlobalSecondaryIndexes", ()):
        index = Index(
            one["IndexName"],
            _keys(one["KeySchema"], types),
            _projection(one.get("Projection", {})),
            checked_throughput(mode, one.get("ProvisionedThroughput")),
        )
        indexes[index.name] = index
    if len(indexes) > _INDEXES_MAX or len(indexes) < len(asked.get("GlobalSecondaryIndexes", ())):
        raise invalid("One or more parameter values were invalid: too many or duplicate indexes")
    used = {*keys.names, *(name for index in indexes.values() for name in index.keys.names)}
    if used != types.keys():
        raise invalid(
            "One or more parameter values were invalid: Some AttributeDefinitions are not used. "
            f"AttributeDefinitions: {sorted(types)}, keys used: {sorted(used)}"
        )
    described = {
        "AttributeDefinitions": asked["AttributeDefinitions"],
        "KeySchema": _schema(keys),
        "TableId": f"00000000-0000-4000-b000-{next(_numbers):012d}",
        **billing(mode, checked_throughput(mode, asked.get("ProvisionedThroughput")), now),
    }
    return Table(
        name,
        arn,
        created=now,
        active_from=active_from,
        keys=keys,
        described=described,
        indexes=indexes,
        tags={one["Key"]: one["Value"] for one in asked.get("Tags", ())},
        protected=asked.get("DeletionProtectionEnabled", False),
    )


def billing(mode: str, throughput: dict[str, int] | None, now: float) -> dict[str, Any]:
    """How a description tells the billing mode; provisioned tables have no summary."""
    described: dict[str, Any] = {"ProvisionedThroughput": throughput_described(throughput)}
    if mode == "PAY_PER_REQUEST":
        described["BillingModeSummary"] = {
            "BillingMode": mode,
            "LastUpdateToPayPerRequestDateTime": now,
        }
    return described


def throughput_described(throughput: Mapping[str, int] | None) -> dict[str, int]:
    return {
        "NumberOfDecreasesToday": 0,
        **(throughput or {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0}),
    }


def checked_throughput(mode: str, throughput: dict[str, int] | None) -> dict[str, int] | None:
    """Refuse a throughput that does not go with the billing mode."""
    if mode not in ("PROVISIONED", "PAY_PER_REQUEST"):
        raise invalid(f"BillingMode must be PROVISIONED or PAY_PER_REQUEST: {mode}")
    if mode == "PAY_PER_REQUEST":
        if throughput is not None:
            raise invalid(
                "One or more parameter values were invalid: Neither ReadCapacityUnits nor "
                "WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
            )
        return None
    if throughput is None or min(throughput.values(), default=0) < 1:
        raise invalid(
            "One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits "
            "must both be specified when BillingMode is PROVISIONED"
        )
    return throughput


def _keys(schema: Any, types: Mapping[str, str]) -> Keys:
    by_type = {one["KeyType"]: one["AttributeName"] for one in schema}
    if [one["KeyType"] for one in schema] not in (["HASH"], ["HASH", "RANGE"]):
        raise invalid("Invalid KeySchema: The first KeySchemaElement is HASH, the second RANGE")
    for name in by_type.values():
        if name not in types:
            raise invalid(
                "One or more parameter values were invalid: Some index key attributes are not "
                f"defined in AttributeDefinitions. Keys: [{name}], AttributeDefinitions: "
                f"{sorted(types)}"
            )
    return Keys(by_type["HASH"], by_type.get("RANGE"), types)


def _schema(keys: Keys) -> list[dict[str, str]]:
    return [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(keys.names, ("HASH", "RANGE"), strict=False)
    ]


def _projection(projection: dict[str, Any]) -> dict[str, Any]:
    kind = projection.get("ProjectionType")
    if kind not in ("ALL", "KEYS_ONLY", "INCLUDE"):
        raise invalid(f"One or more parameter values were invalid: Unknown ProjectionType: {kind}")
    if (kind == "INCLUDE") != bool(projection.get("NonKeyAttributes")):
        raise invalid(
            f"One or more parameter values were invalid: ProjectionType is {kind}, and "
            "NonKeyAttributes go with INCLUDE"
        )
    return projection


def _check_length(name: str, value: Value, most: int) -> None:
    ((kind, _),) = value.items()
    size = normal(value)[1]
    if kind != "N" and size == 0:
        raise invalid(
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            f"cannot contain an empty string value. Key: {name}"
        )
    if size > most:
        raise invalid(
            f"One or more parameter values were invalid: Size of {name} has exceeded the maximum "
            f"size limit of {most} bytes"
        )


def _bounds(order: list[tuple[Any, ...]], sign: str | None, operands: list[Any]) -> tuple[int, int]:
    """The slice of a partition in which the range key is as a key condition says."""
    match sign, operands:
        case "=", [value]:
            return bisect_left(order, value, key=_RANGE), bisect_right(order, value, key=_RANGE)
        case "<", [value]:
            return 0, bisect_left(order, value, key=_RANGE)
        case "<=", [value]:
            return 0, bisect_right(order, value, key=_RANGE)
        case ">", [value]:
            return bisect_right(order, value, key=_RANGE), len(order)
        case ">=", [value]:
            return bisect_left(order, value, key=_RANGE), len(order)
        case "between", [low, high]:
            return bisect_left(order, low, key=_RANGE), bisect_right(order, high, key=_RANGE)
        case "begins_with", [start]:
            low = bisect_left(order, start, key=_RANGE)
            # From there on those that begin so come first.
            return low, bisect_left(order, True, low, key=lambda one: not one[0].startswith(start))
    return 0, len(order)


def _scattered(hash_key: Any) -> tuple[int, str]:
    text = repr(hash_key)
    return zlib.crc32(text.encode()), text
