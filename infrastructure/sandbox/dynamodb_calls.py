"""What DynamoDB is asked and answers: calls as they are recorded, parameters, capacity, errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .dynamodb_values import invalid
from .wire import AwsError

PAGE_BYTES = 1024 * 1024
_READ_UNIT = 4096

_CANCELLED = "Transaction cancelled, please refer cancellation reasons for specific reasons"
# The actions of a transaction, and the single calls that are alike.
ACTION_OF = {
    "Put": "PutItem",
    "Delete": "DeleteItem",
    "Update": "UpdateItem",
    "ConditionCheck": "ConditionCheck",
}
# What each call may be asked with. What is not here is refused: nothing is passed over in silence.
_EXPRESSION = "ExpressionAttributeNames ExpressionAttributeValues"
_WRITE = f"TableName ConditionExpression {_EXPRESSION} ReturnValuesOnConditionCheckFailure"
_ASKED = f"ReturnConsumedCapacity ReturnItemCollectionMetrics ReturnValues {_WRITE}"
_READ = f"TableName ConsistentRead ReturnConsumedCapacity ProjectionExpression {_EXPRESSION}"
_PAGED = f"{_READ} IndexName Limit ExclusiveStartKey FilterExpression Select"
KNOWN: dict[str, frozenset[str]] = {
    action: frozenset(names.split())
    for action, names in {
        "CreateTable": "TableName AttributeDefinitions KeySchema GlobalSecondaryIndexes "
        "BillingMode ProvisionedThroughput DeletionProtectionEnabled Tags",
        "DescribeTable": "TableName",
        "DeleteTable": "TableName",
        "ListTables": "Limit ExclusiveStartTableName",
        "UpdateTable": "TableName BillingMode ProvisionedThroughput DeletionProtectionEnabled "
        "GlobalSecondaryIndexUpdates",
        "UpdateContinuousBackups": "TableName PointInTimeRecoverySpecification",
        "DescribeContinuousBackups": "TableName",
        "UpdateTimeToLive": "TableName TimeToLiveSpecification",
        "DescribeTimeToLive": "TableName",
        "TagResource": "ResourceArn Tags",
        "UntagResource": "ResourceArn TagKeys",
        "ListTagsOfResource": "ResourceArn NextToken",
        "GetItem": f"{_READ} Key",
        "PutItem": f"{_ASKED} Item",
        "DeleteItem": f"{_ASKED} Key",
        "UpdateItem": f"{_ASKED} Key UpdateExpression",
        "Query": f"{_PAGED} KeyConditionExpression ScanIndexForward",
        "Scan": _PAGED,
        "BatchGetItem": "RequestItems ReturnConsumedCapacity",
        "BatchWriteItem": "RequestItems ReturnConsumedCapacity ReturnItemCollectionMetrics",
        "TransactWriteItems": "TransactItems ClientRequestToken ReturnConsumedCapacity "
        "ReturnItemCollectionMetrics",
        "TransactGetItems": "TransactItems ReturnConsumedCapacity",
        "Put": f"{_WRITE} Item",
        "Delete": f"{_WRITE} Key",
        "Update": f"{_WRITE} Key UpdateExpression",
        "ConditionCheck": f"{_WRITE} Key",
        "Get": "TableName Key ProjectionExpression ExpressionAttributeNames",
    }.items()
}
# Kept out of the record of a call: whole items.
_BULKY = frozenset({"Item", "TransactItems", "RequestItems"})


@dataclass
class Call:
    """One request as it was received.

    `at` is the clock's time in seconds; `table` the tables' names, joined by commas; `consistent`
    is None where a call does not read; `params` what was asked without whole items; `items` how
    many items a batch or transaction has. `units` are the capacity units used (reads or writes,
    transactional ones twice). `outcome` is "ok", AWS's error code, or the kind of the fault that
    hit it.
    """

    action: str
    at: float
    region: str
    service: str = "dynamodb"
    table: str = ""
    index: str | None = None
    consistent: bool | None = None
    params: dict[str, Any] = field(default_factory=dict)
    items: int = 0
    units: float = 0.0
    outcome: str = ""


@dataclass
class Asked:
    """A request that is being carried out; `used` are its capacity units by table and index."""

    service: str
    action: str
    region: str
    body: dict[str, Any]
    call: Call
    now: float = 0.0  # the clock's time when it is done
    # How many items of a batch are done before the rest is handed back; None: all that fit.
    most: int | None = None
    used: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))


class Refused(AwsError):
    """An error that tells more than its message."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(code, message)
        self.members = members


class Settings:
    """What can be set at any time; see DynamoDb."""

    def __init__(
        self, account: str, index_lag: float, stale_reads: bool, page_size: int, table_delay: float
    ) -> None:
        self.account = account
        self.index_lag = index_lag
        self.stale_reads = stale_reads
        self.page_size = page_size
        self.table_delay = table_delay


def cancelled(reasons: list[dict[str, Any]]) -> AwsError:
    codes = ", ".join(reason["Code"] for reason in reasons)
    return Refused(
        "TransactionCanceledException", f"{_CANCELLED} [{codes}]", CancellationReasons=reasons
    )


def check_known(
    action: str, asked: Any, *, also: str | None = None, more: Iterable[str] = ()
) -> None:
    """Refuse parameters that the sandbox does not know; `also` names another set of them."""
    if not isinstance(asked, dict):
        raise AwsError("SerializationException", f"{action} asks with a map of parameters")
    known = KNOWN.get(action, frozenset()) | KNOWN.get(also or action, frozenset())
    if not known:
        raise AwsError("UnknownOperationException", f"The sandbox cannot do this: {action}")
    unknown = asked.keys() - known - set(more)
    if unknown:
        raise invalid(f"The sandbox's {action} does not know {', '.join(sorted(unknown))}")


def record(call: Call, body: Mapping[str, Any]) -> None:
    """Fill in what a call asks, but for whole items and the values of writes."""
    tables: dict[str, None] = {}
    if isinstance(name := body.get("TableName"), str):
        tables[name] = None
    if isinstance(requests := body.get("RequestItems"), dict):
        tables |= dict.fromkeys(requests)
        for one in requests.values():
            keys = one.get("Keys", ()) if isinstance(one, dict) else one
            call.items += len(keys)
            if isinstance(one, dict):
                call.consistent = bool(one.get("ConsistentRead")) and call.consistent is not False
    if isinstance(items := body.get("TransactItems"), list):
        call.items = len(items)
        for one in items:
            for action in one.values() if isinstance(one, dict) else ():
                if isinstance(action, dict) and isinstance(action.get("TableName"), str):
                    tables[action["TableName"]] = None
    call.table = ",".join(tables)
    call.index = body.get("IndexName")
    if call.action in ("GetItem", "Query", "Scan"):
        call.consistent = bool(body.get("ConsistentRead"))
    elif call.action == "TransactGetItems":
        call.consistent = True
    left_out = set(_BULKY)
    if call.consistent is None:
        left_out.add("ExpressionAttributeValues")
    call.params = {name: value for name, value in body.items() if name not in left_out}


def consumed(asked: Asked, *, one: bool = False, transact: str | None = None) -> dict[str, Any]:
    """ConsumedCapacity as asked; of `one` table as it is, else a list.

    `transact` says which units a transaction tells apart.
    """
    wanted = asked.body.get("ReturnConsumedCapacity", "NONE")
    if wanted not in ("NONE", "TOTAL", "INDEXES"):
        raise invalid("ReturnConsumedCapacity must be NONE, TOTAL or INDEXES")
    if wanted == "NONE":
        return {}
    told: list[dict[str, Any]] = []
    for name in dict.fromkeys(table for table, _ in asked.used):
        parts = {index: units for (table, index), units in asked.used.items() if table == name}
        of_table: dict[str, Any] = {"TableName": name, **_units(sum(parts.values()), transact)}
        if wanted == "INDEXES":
            of_table["Table"] = _units(parts.pop("", 0), transact)
            if parts:
                of_table["GlobalSecondaryIndexes"] = {
                    index: _units(units, transact) for index, units in parts.items()
                }
        told.append(of_table)
    return {"ConsumedCapacity": told[0] if one else told}


def read_units(size: int) -> int:
    return max(1, -(-size // _READ_UNIT))


def _units(units: float, transact: str | None) -> dict[str, float]:
    told = {"CapacityUnits": float(units)}
    return told | ({f"{transact}CapacityUnits": float(units)} if transact else {})


def checked_actions(body: Mapping[str, Any], most: int) -> list[Any]:
    items = body.get("TransactItems")
    if not isinstance(items, list) or not 1 <= len(items) <= most:
        raise invalid(
            "1 validation error detected: Value at 'transactItems' failed to satisfy constraint: "
            f"Member must have length less than or equal to {most}, and at least 1"
        )
    return items


def batch(body: Mapping[str, Any]) -> dict[str, Any]:
    requests: dict[str, Any] | None = body.get("RequestItems")
    if not requests:
        raise invalid("The requestItems parameter is required and must not be empty")
    return requests
