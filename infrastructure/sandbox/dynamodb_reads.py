"""DynamoDB's reads: of items by key, alone, in batches and transactions, queries and scans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .dynamodb_admin import Tables
from .dynamodb_calls import (
    Asked,
    Settings,
    batch,
    check_known,
    checked_actions,
    consumed,
    read_units,
)
from .dynamodb_expressions import Expressions, Path, Tree, picked
from .dynamodb_tables import Index, Place, Row, Table
from .dynamodb_values import Item, copy_of_key, invalid, ordered

# "Quotas in Amazon DynamoDB", API_TransactGetItems.html, API_BatchGetItem.html
_TRANSACTION_MAX, _TRANSACTION_BYTES = 100, 4 * 1024 * 1024
_BATCH_GET_MAX, _BATCH_GET_BYTES = 100, 16 * 1024 * 1024


class Reads:
    """What reads items."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self._tables = tables
        self._settings = settings

    @contextmanager
    def _as_read(self, consistent: bool) -> Iterator[None]:
        """The state that a read sees: with stale_reads, the one before the last write."""
        if consistent or not self._settings.stale_reads:
            yield
            return
        now = [
            (table, place, table.rows.put(place, old))
            for table, place, old in self._tables.replaced
        ]
        try:
            yield
        finally:
            for table, place, row in now:
                table.rows.put(place, row)

    def _get_item(self, asked: Asked) -> dict[str, Any]:
        table = self._tables.find(asked, asked.body.get("TableName"))
        consistent = asked.body.get("ConsistentRead", False)
        place, _ = table.keys.checked(asked.body.get("Key"))
        paths = _projection(asked.body)
        with self._as_read(consistent):
            row = table.rows.get(place)
        units = read_units(row.size if row else 0)
        asked.used[(table.name, "")] += units if consistent else units / 2
        answer: dict[str, Any] = consumed(asked, one=True)
        if row is not None:
            answer["Item"] = picked(row.item, paths) if paths else row.item
        return answer

    def _batch_get(self, asked: Asked) -> dict[str, Any]:
        found: dict[str, list[Item]] = {}
        left: dict[str, dict[str, Any]] = {}
        requests = batch(asked.body)
        number = sum(len(one.get("Keys", ())) for one in requests.values())
        if not 1 <= number <= _BATCH_GET_MAX:
            raise invalid("Too many items requested for the BatchGetItem call")
        done, size = 0, 0
        for name, request in requests.items():
            check_known("BatchGetItem", request, also="Get", more=("Keys", "ConsistentRead"))
            table = self._tables.find(asked, name)
            consistent = request.get("ConsistentRead", False)
            paths = _projection(request)
            places = [table.keys.checked(key)[0] for key in request["Keys"]]
            if len(set(places)) < len(places):
                raise invalid("Provided list of item keys contains duplicates")
            answers = found.setdefault(name, [])
            with self._as_read(consistent):
                rows = [table.rows.get(place) for place in places]
            for row, key in zip(rows, request["Keys"], strict=True):
                length = row.size if row else 0
                if size + length > _BATCH_GET_BYTES or done == asked.most or name in left:
                    rest = left.setdefault(name, {**request, "Keys": []})
                    rest["Keys"].append(key)
                    continue
                done, size = done + 1, size + length
                units = read_units(length)
                asked.used[(name, "")] += units if consistent else units / 2
                if row is not None:
                    answers.append(picked(row.item, paths) if paths else row.item)
        return {
            "Responses": found,
            "UnprocessedKeys": left,
            **consumed(asked),
        }

    def _transact_get(self, asked: Asked) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        size = 0
        for item in checked_actions(asked.body, _TRANSACTION_MAX):
            body = item.get("Get") if isinstance(item, dict) else None
            if body is None:
                raise invalid("TransactItems of TransactGetItems can only contain Get")
            check_known("Get", body)
            table = self._tables.find(asked, body.get("TableName"))
            row = table.rows.get(table.keys.checked(body.get("Key"))[0])
            paths = _projection(body)
            length = row.size if row else 0
            size += length
            asked.used[(table.name, "")] += 2 * read_units(length)
            if row is None:
                answers.append({})
            else:
                answers.append({"Item": picked(row.item, paths) if paths else row.item})
        if size > _TRANSACTION_BYTES:
            raise invalid("The aggregate size of the items in the transaction exceeds 4 MB")
        return {"Responses": answers, **consumed(asked, transact="Read")}

    def _query(self, asked: Asked) -> dict[str, Any]:
        body = asked.body
        table, index = self._read_from(asked)
        keys = table.keys if index is None else index.keys
        words = Expressions(body)
        tree = words.read("KeyConditionExpression", body.get("KeyConditionExpression"))
        if tree is None:
            raise invalid(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified "
                "in the request."
            )
        hash_value, sign, operands = words.key_condition(tree, keys.hash, keys.range)
        for name, values in ((keys.hash, [hash_value]), (keys.range, operands)):
            if any(value.keys() != {keys.types[name or ""]} for value in values):
                raise invalid(
                    "One or more parameter values were invalid: Condition parameter type does not "
                    "match schema type"
                )
        after = self._start(table, index, body.get("ExclusiveStartKey"))
        hash_key = ordered(hash_value)
        if after is not None and after[0] != hash_key:
            raise invalid(
                "The provided starting key is outside query boundaries based on provided conditions"
            )
        with self._as_read(index is not None or body.get("ConsistentRead", False)):
            rows = (table if index is None else index).rows.within(
                hash_key,
                sign,
                [ordered(value) for value in operands],
                after=after[1] if after is not None else None,
                forward=body.get("ScanIndexForward", True),
            )
            return self._page(asked, table, index, words, rows)

    def _scan(self, asked: Asked) -> dict[str, Any]:
        table, index = self._read_from(asked)
        after = self._start(table, index, asked.body.get("ExclusiveStartKey"))
        with self._as_read(index is not None or asked.body.get("ConsistentRead", False)):
            rows = (table if index is None else index).rows.scan(after)
            return self._page(asked, table, index, Expressions(asked.body), rows)

    def _read_from(self, asked: Asked) -> tuple[Table, Index | None]:
        """The table and index that a Query or Scan reads."""
        table = self._tables.find(asked, asked.body.get("TableName"))
        name = asked.body.get("IndexName")
        if name is None:
            return table, None
        if name not in table.indexes:
            raise invalid(f"The table does not have the specified index: {name}")
        if asked.body.get("ConsistentRead"):
            raise invalid("Consistent reads are not supported on global secondary indexes")
        index = table.indexes[name]
        index.show(asked.now)
        return table, index

    def _start(self, table: Table, index: Index | None, start: Any) -> Place | None:
        """Where an ExclusiveStartKey lies."""
        if start is None:
            return None
        names = {*table.keys.names, *(index.keys.names if index is not None else ())}
        if not isinstance(start, dict) or start.keys() != names:
            raise invalid("The provided starting key is invalid")
        place, _ = table.keys.checked(copy_of_key(start, table.keys.names))
        if index is None:
            return place
        (hash_key, order), _ = index.keys.checked(copy_of_key(start, index.keys.names))
        return hash_key, (*order, place)

    def _page(
        self,
        asked: Asked,
        table: Table,
        index: Index | None,
        words: Expressions,
        rows: Iterable[tuple[Place, Row]],
    ) -> dict[str, Any]:
        """A page: at most Limit rows and page_size bytes are read, then filtered."""
        body = asked.body
        limit = body.get("Limit")
        if limit is not None and limit < 1:
            raise invalid("Limit must be greater than or equal to 1")
        keys = table.keys if index is None else index.keys
        filtered = words.read("FilterExpression", body.get("FilterExpression"))
        projected = words.read("ProjectionExpression", body.get("ProjectionExpression"))
        words.finish()
        if asked.action == "Query" and (names := words.names_in(filtered) & set(keys.names)):
            raise invalid(
                "Filter Expression can only contain non-primary key attributes: Primary key "
                f"attribute: {', '.join(map(str, names))}"
            )
        select = body.get("Select")
        _check_select(select, projected, index)
        paths = words.paths(projected) if projected is not None else None
        found: list[Item] = []
        read, size, last = 0, 0, None
        for _, row in rows:
            if read == limit or (read and size + row.size > self._settings.page_size):
                break
            read, size, last = read + 1, size + row.size, row
            if words.holds(filtered, row.item):
                found.append(picked(row.item, paths) if paths else row.item)
        else:
            # "If LastEvaluatedKey is not empty, it does not necessarily mean that there is more
            # data": a page that ends by its limit has one (API_Query.html).
            last = last if read == limit else None
        units = read_units(size)
        name = index.name if index is not None else ""
        asked.used[(table.name, name)] += units if body.get("ConsistentRead") else units / 2
        answer: dict[str, Any] = {
            "Count": len(found),
            "ScannedCount": read,
            **consumed(asked, one=True),
        }
        if select != "COUNT":
            answer["Items"] = found
        if last is not None:
            answer["LastEvaluatedKey"] = table.key_of(last.item, index)
        return answer


READS: dict[str, Callable[[Reads, Asked], dict[str, Any]]] = {
    "GetItem": Reads._get_item,
    "Query": Reads._query,
    "Scan": Reads._scan,
    "BatchGetItem": Reads._batch_get,
    "TransactGetItems": Reads._transact_get,
}


def _projection(body: Mapping[str, Any]) -> list[Path] | None:
    words = Expressions(body)
    tree = words.read("ProjectionExpression", body.get("ProjectionExpression"))
    words.finish()
    return words.paths(tree) if tree is not None else None


def _check_select(select: str | None, projected: Tree | None, index: Index | None) -> None:
    if select is None:
        return
    if (select == "SPECIFIC_ATTRIBUTES") != (projected is not None):
        raise invalid(f"Cannot specify {select} with or without the ProjectionExpression given")
    if select == "ALL_ATTRIBUTES" and index is not None:
        if index.projection["ProjectionType"] != "ALL":
            raise invalid(
                "One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not "
                f"supported for global secondary index {index.name} because its projection type "
                "is not ALL"
            )
    elif select == "ALL_PROJECTED_ATTRIBUTES" and index is None:
        raise invalid("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
