"""DynamoDB's writes: of one item, of a batch, and of a transaction, done once for each token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .dynamodb_admin import Tables
from .dynamodb_calls import (
    ACTION_OF,
    Asked,
    Refused,
    Settings,
    batch,
    cancelled,
    check_known,
    checked_actions,
    consumed,
    read_units,
)
from .dynamodb_expressions import Expressions, Tree, picked
from .dynamodb_tables import Place, Row, Table
from .dynamodb_values import ITEM_MAX, Item, copy_of_key, invalid, normal_item
from .wire import AwsError

# "Quotas in Amazon DynamoDB", API_TransactWriteItems.html, API_BatchWriteItem.html
_TRANSACTION_MAX, _TRANSACTION_BYTES = 100, 4 * 1024 * 1024
_BATCH_WRITE_MAX = 25
_WRITE_UNIT = 1024
# "A client request token is valid for 10 minutes after the first request that uses it is
# completed." (API_TransactWriteItems.html)
_TOKEN_SECONDS = 600.0
_TOKEN_MAX = 36
_FAILED = "The conditional request failed"


@dataclass
class _Write:
    """One write or check of an item, with its expressions read."""

    kind: str
    table: Table
    place: Place
    key: Item
    new: Row | None
    words: Expressions
    condition: Tree | None
    update: Tree | None
    tell_failed: bool


@dataclass
class _Change:
    """What a write does: the row before and after (None: no row)."""

    write: _Write
    old: Row | None
    new: Row | None

    @property
    def size(self) -> int:
        """What is paid for: the larger of the two ("DynamoDB read and write operations")."""
        return max(self.old.size if self.old else 0, self.new.size if self.new else 0)


class Writes:
    """What changes items."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self._tables = tables
        self._settings = settings
        # When a transaction was done and a digest of what it asked, by token, the oldest first.
        self._tokens: dict[str, tuple[float, bytes]] = {}

    def _write(self, asked: Asked) -> dict[str, Any]:
        """PutItem, UpdateItem and DeleteItem."""
        kind = asked.action.removesuffix("Item")
        wanted = asked.body.get("ReturnValues", "NONE")
        known = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")
        if wanted not in (known if kind == "Update" else known[:2]):
            raise invalid(f"ReturnValues of {asked.action} cannot be {wanted}")
        write = self._prepared(asked, kind, asked.body)
        change = _judged(write)
        self._apply(asked, [change], 1)
        answer: dict[str, Any] = consumed(asked, one=True)
        row = change.new if wanted.endswith("NEW") else change.old
        if wanted == "NONE" or row is None:
            return answer
        attributes = row.item
        if wanted.startswith("UPDATED"):
            attributes = picked(row.item, write.words.touched(write.update))
        return answer | ({"Attributes": attributes} if attributes else {})

    def _prepared(self, asked: Asked, kind: str, body: Mapping[str, Any]) -> _Write:
        """A write with all that can be checked before an item is looked at."""
        check_known(kind, body, also=ACTION_OF[kind])
        table = self._tables.find(asked, body.get("TableName"))
        words = Expressions(body)
        condition = words.read("ConditionExpression", body.get("ConditionExpression"))
        update = words.read("UpdateExpression", body.get("UpdateExpression"))
        words.finish()
        if kind == "ConditionCheck" and condition is None:
            raise invalid("A ConditionCheck must have a ConditionExpression")
        new = None
        if kind == "Put":
            place, new = table.checked(body.get("Item"))
            key = copy_of_key(new.item, table.keys.names)
        else:
            place, key = table.keys.checked(body.get("Key"))
            words.check_update(update, table.keys.names)
        failed = body.get("ReturnValuesOnConditionCheckFailure", "NONE")
        if failed not in ("NONE", "ALL_OLD"):
            raise invalid("ReturnValuesOnConditionCheckFailure must be NONE or ALL_OLD")
        return _Write(kind, table, place, key, new, words, condition, update, failed == "ALL_OLD")

    def _apply(self, asked: Asked, changes: list[_Change], cost: int) -> None:
        """Make changes, all of one request, and count what they use."""
        before = [
            (change.write.table, change.write.place, change.old)
            for change in changes
            if change.write.kind != "ConditionCheck"
        ]
        if before:
            self._tables.replaced = before
        for number, change in enumerate(changes, 1):
            table = change.write.table
            asked.used[(table.name, "")] += cost * max(1, -(-change.size // _WRITE_UNIT))
            if change.write.kind == "ConditionCheck":
                continue
            due = asked.now + self._settings.index_lag * number / len(changes)
            for index, units in table.put(change.write.place, change.new, due, asked.now):
                asked.used[(table.name, index.name)] += cost * units

    def _transact_write(self, asked: Asked) -> dict[str, Any]:
        """All the actions or none (API_TransactWriteItems.html), once for each token."""
        items = checked_actions(asked.body, _TRANSACTION_MAX)
        token = asked.body.get("ClientRequestToken")
        if token is not None:
            if not isinstance(token, str) or not 1 <= len(token) <= _TOKEN_MAX:
                raise invalid(f"ClientRequestToken has 1 to {_TOKEN_MAX} characters")
            self._forget_tokens(asked.now)
            if token in self._tokens:
                return self._again(asked, self._tokens[token][1])
        writes: list[_Write] = []
        for item in items:
            if not isinstance(item, dict) or len(item) != 1 or item.keys() - ACTION_OF.keys():
                raise invalid("TransactItems can only contain one of Check, Put, Update or Delete")
            ((kind, body),) = item.items()
            check_known(kind, body)
            if kind == "Update" and "UpdateExpression" not in body:
                raise invalid("An Update of a transaction must have an UpdateExpression")
            writes.append(self._prepared(asked, kind, body))
        if len({(write.table.name, write.place) for write in writes}) < len(writes):
            raise invalid("Transaction request cannot include multiple operations on one item")
        changes: list[_Change] = []
        reasons: list[dict[str, Any]] = []
        for write in writes:
            try:
                changes.append(_judged(write))
                reasons.append({"Code": "None"})
            except AwsError as error:
                reasons.append(_reason(error))
        if len(changes) < len(writes):
            raise cancelled(reasons)
        if sum(change.size for change in changes) > _TRANSACTION_BYTES:
            raise invalid("The aggregate size of the items in the transaction exceeds 4 MB")
        self._apply(asked, changes, 2)
        if token is not None:
            # Only what was done is remembered: a transaction that was cancelled did nothing, and
            # is tried again under its token.
            self._tokens[token] = asked.now, _digest(asked.body)
        return consumed(asked, transact="Write")

    def _forget_tokens(self, now: float) -> None:
        while self._tokens:
            token, (done, _) = next(iter(self._tokens.items()))
            if now < done + _TOKEN_SECONDS:
                return
            del self._tokens[token]

    def _again(self, asked: Asked, before: bytes) -> dict[str, Any]:
        """A transaction that was done under its token: read, not done again."""
        if before != _digest(asked.body):
            raise AwsError(
                "IdempotentParameterMismatchException",
                "The request uses the same client token as a previous, but non-identical request.",
            )
        for item in asked.body["TransactItems"]:
            ((kind, body),) = item.items()
            table = self._tables.find(asked, body["TableName"])
            key = body["Key"] if kind != "Put" else copy_of_key(body["Item"], table.keys.names)
            row = table.rows.get(table.keys.checked(key)[0])
            asked.used[(table.name, "")] += 2 * read_units(row.size if row else 0)
        return consumed(asked, transact="Read")

    def _batch_write(self, asked: Asked) -> dict[str, Any]:
        wanted: list[tuple[str, dict[str, Any]]] = [
            (name, one) for name, ones in batch(asked.body).items() for one in ones
        ]
        if not 1 <= len(wanted) <= _BATCH_WRITE_MAX:
            raise invalid("Too many items requested for the BatchWriteItem call")
        writes: list[_Write] = []
        for name, one in wanted:
            match one:
                case {"PutRequest": {"Item": item}}:
                    body = {"TableName": name, "Item": item}
                    writes.append(self._prepared(asked, "Put", body))
                case {"DeleteRequest": {"Key": key}}:
                    body = {"TableName": name, "Key": key}
                    writes.append(self._prepared(asked, "Delete", body))
                case _:
                    raise invalid("A request of BatchWriteItem puts or deletes one item")
        if len({(write.table.name, write.place) for write in writes}) < len(writes):
            raise invalid("Provided list of item keys contains duplicates")
        most = len(writes) if asked.most is None else asked.most
        self._apply(asked, [_judged(write) for write in writes[:most]], 1)
        left: dict[str, list[Any]] = {}
        for name, one in wanted[most:]:
            left.setdefault(name, []).append(one)
        return {"UnprocessedItems": left, **consumed(asked)}


WRITES: dict[str, Callable[[Writes, Asked], dict[str, Any]]] = {
    "PutItem": Writes._write,
    "UpdateItem": Writes._write,
    "DeleteItem": Writes._write,
    "BatchWriteItem": Writes._batch_write,
    "TransactWriteItems": Writes._transact_write,
}


def _digest(asked: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def _judged(write: _Write) -> _Change:
    """What a write does to the item that is there. Raises AwsError where it may not be done."""
    old = write.table.rows.get(write.place)
    if not write.words.holds(write.condition, old.item if old else {}):
        members = {"Item": old.item} if old and write.tell_failed else {}
        raise Refused("ConditionalCheckFailedException", _FAILED, **members)
    match write.kind:
        case "Put":
            return _Change(write, old, write.new)
        case "Delete":
            return _Change(write, old, None)
        case "ConditionCheck":
            return _Change(write, old, old)
    item = write.words.updated(write.update, old.item if old else write.key)
    kept, size = normal_item(item)
    if size > ITEM_MAX:
        raise invalid("Item size to update has exceeded the maximum allowed size")
    for index in write.table.indexes.values():
        index.keys.check_in_index(index.name, kept)
    return _Change(write, old, Row(kept, size))


def _reason(error: AwsError) -> dict[str, Any]:
    """Why an action cancels its transaction (API_TransactWriteItems.html, Errors)."""
    codes = {
        "ConditionalCheckFailedException": "ConditionalCheckFailed",
        "ValidationException": "ValidationError",
    }
    members = error.members if isinstance(error, Refused) else {}
    return {"Code": codes[error.code], "Message": error.message, **members}
