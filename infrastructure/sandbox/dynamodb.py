"""DynamoDB in memory, on any clock, with AWS's promises and with faults on request."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .application_scaling import ApplicationScaling
from .dynamodb_expressions import Expressions, Path, Tree, picked
from .dynamodb_tables import (
    Index,
    Place,
    Row,
    Table,
    billing,
    checked_throughput,
    made,
)
from .dynamodb_values import ITEM_MAX, Item, copy_of_key, invalid, normal_item, ordered
from .faults import WITHIN, Fault
from .wire import SCOPE, AwsError, AwsRequest, AwsResponse, NetworkFault

__all__ = ["SERVICES", "Call", "DynamoDb", "is_for_dynamodb"]

# "x-amz-target: DynamoDB_20120810.GetItem" ("targetPrefix" and "jsonVersion" of botocore's models)
_SERVICES = {
    "DynamoDB_20120810": ("dynamodb", "1.0"),
    "AnyScaleFrontendService": ("application-autoscaling", "1.1"),
}
SERVICES = tuple(service for service, _ in _SERVICES.values())

# "Quotas in Amazon DynamoDB", API_TransactWriteItems.html, API_BatchGetItem.html,
# API_BatchWriteItem.html, API_Query.html
_TRANSACTION_MAX, _TRANSACTION_BYTES = 100, 4 * 1024 * 1024
_BATCH_GET_MAX, _BATCH_GET_BYTES = 100, 16 * 1024 * 1024
_BATCH_WRITE_MAX = 25
_PAGE_BYTES = 1024 * 1024
_READ_UNIT, _WRITE_UNIT = 4096, 1024
# "A client request token is valid for 10 minutes after the first request that uses it is
# completed." (API_TransactWriteItems.html)
_TOKEN_SECONDS = 600.0
_TOKEN_MAX = 36

_UNDER_WAY = "Requested resource not found"
_CANCELLED = "Transaction cancelled, please refer cancellation reasons for specific reasons"
_FAILED = "The conditional request failed"

# Errors that are not of DynamoDB's own model ("Error handling with DynamoDB").
_CORAL = {
    "ValidationException": "com.amazon.coral.validate#",
    "SerializationException": "com.amazon.coral.service#",
    "UnknownOperationException": "com.amazon.coral.service#",
    "AccessDeniedException": "com.amazon.coral.service#",
    "ExpiredTokenException": "com.amazon.coral.service#",
    "UnrecognizedClientException": "com.amazon.coral.service#",
    "ThrottlingException": "com.amazon.coral.availability#",
}
_ACTION_OF = {
    "Put": "PutItem",
    "Delete": "DeleteItem",
    "Update": "UpdateItem",
    "ConditionCheck": "ConditionCheck",
}
# Where in a target's name the region's tables are, and what each call may be asked with. What is
# not here is refused, so that nothing is passed over in silence.
_EXPRESSION = "ExpressionAttributeNames ExpressionAttributeValues"
_WRITE = f"TableName ConditionExpression {_EXPRESSION} ReturnValuesOnConditionCheckFailure"
_ASKED = f"ReturnConsumedCapacity ReturnItemCollectionMetrics ReturnValues {_WRITE}"
_READ = f"TableName ConsistentRead ReturnConsumedCapacity ProjectionExpression {_EXPRESSION}"
_PAGED = f"{_READ} IndexName Limit ExclusiveStartKey FilterExpression Select"
_KNOWN: dict[str, frozenset[str]] = {
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
class _Asked:
    service: str
    action: str
    region: str
    body: dict[str, Any]
    call: Call
    # How many items of a batch are done before the rest is handed back; None: all that fit.
    most: int | None = None
    used: dict[tuple[str, str], float] = field(
        default_factory=lambda: defaultdict(float)
    )  # by table and index


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


class _Refused(AwsError):
    """An error that tells more than its message."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(code, message)
        self.members = members


def is_for_dynamodb(request: AwsRequest) -> bool:
    """Whether a request asks DynamoDB or Application Auto Scaling."""
    return _target(request).partition(".")[0] in _SERVICES


class DynamoDb:
    """The tables of one account, by region, and Application Auto Scaling beside them.

    `clock` gives seconds since the epoch; nothing waits. Settable at any time:

    index_lag    seconds until a global secondary index shows a change. The changes of one
                 transaction come one by one: the last after index_lag, the others before it.
    stale_reads  a read that does not ask for consistency answers the state before the last
                 write that was made anywhere.
    page_size    bytes of a page of a Query or Scan; AWS's 1 MB unless less is asked for.
    table_delay  seconds for which a table is being made, changed or deleted.

    A region's tables are those of the region in the signature; no signature is checked. Safe in
    threads: calls are done one after the other.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        region: str = "us-east-1",
        account: str = "123456789012",
        index_lag: float = 0.0,
        stale_reads: bool = False,
        page_size: int = _PAGE_BYTES,
        table_delay: float = 0.0,
    ) -> None:
        self.region = region
        self.account = account
        self.index_lag = index_lag
        self.stale_reads = stale_reads
        self.page_size = page_size
        self.table_delay = table_delay
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()  # of calls, by action
        self._clock = clock
        self._now = clock()
        self._tables: dict[tuple[str, str], Table] = {}  # by region and name
        self._scaling: dict[str, ApplicationScaling] = {}
        self._tokens: dict[str, tuple[float, dict[str, Any]]] = {}
        # What the last write replaced: table, place, the row before.
        self._before: list[tuple[Table, Place, Row | None]] = []
        self._late: list[tuple[float, _Asked]] = []
        self._faults: list[Fault] = []
        self._requests = 0
        self._lock = threading.RLock()

    # -- requests --------------------------------------------------------------------------------

    def handle(self, request: AwsRequest) -> AwsResponse:
        """Carry a request out and answer it. Raises NetworkFault where a fault says so."""
        with self._lock:
            self._advance()
            asked = self._read(request)
            armed = [
                fault
                for fault in self._faults
                if fault.arms(
                    asked.action, {**asked.body, "TableName": asked.call.table}, self.account
                )
            ]
            if not armed:
                return self._carry_out(asked)
            fault = armed[0]
            fault.fired += 1
            try:
                response = self._fail(fault, asked)
            finally:
                asked.call.outcome = fault.kind
        if fault.kind == "kill":
            # Not under the lock: what is called may wait for others that ask meanwhile.
            if (then := fault.params.get("then")) is not None:
                then()
            else:
                os.kill(int(fault.params["pid"]), signal.SIGKILL)
        return response

    def attach(self, client: Any) -> None:
        """Make a botocore client of dynamodb or application-autoscaling call this, no network.

        Network faults are raised at once, as the exceptions botocore raises for a real network.
        """
        from .clients import attach  # a process that only serves needs no botocore

        service = client.meta.service_model.service_name
        if service not in SERVICES:
            raise ValueError(f"this speaks {', '.join(SERVICES)}, not {service}")
        attach(client, self.handle)

    # -- faults ----------------------------------------------------------------------------------

    def add_fault(
        self, kind: str, *, action: str, from_call: int = 1, times: int = 1, **params: Any
    ) -> Fault:
        """Make calls of `action` ("*": any) fail, from the nth from now on, `times` times.

        times=-1 is until cleared. Of several faults that hit a call the first added counts. Kinds:

        throttle       ThrottlingException, nothing done
        error          code=, message=, status=400; nothing done
        e500, e503     InternalServerError, ServiceUnavailable; nothing done, or with e500
                       after=True: done
        cancelled      TransactionCanceledException, nothing done; reasons=["TransactionConflict",
                       "None", ...] in the order of the actions, None for those left out
        unprocessed    the first done= items of a batch are done, the others handed back
        hang           nothing done; the client's read times out
        slow           done; the client's read times out; late=SECONDS: done only when the clock
                       has gone so far on (a transaction is in progress until then)
        reset_before   nothing done; the connection is cut
        refused        nothing done; there is no connection
        lost_response  done; the connection is cut before the answer
        kill           done; then then() is called, or pid= killed, before the answer

        Any kind takes match={parameter: value} and where=callable(params) to choose calls;
        TableName is there for every call, of several tables joined by commas.
        Raises ValueError for an unknown kind or parameter.
        """
        if kind in WITHIN:
            raise ValueError(f"fault {kind!r} is about launches, not DynamoDB")
        fault = Fault(kind, action, from_call, times, params)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        """Forget all faults."""
        with self._lock:
            for fault in self._faults:
                fault.clear()
            self._faults.clear()

    # -- the truth -------------------------------------------------------------------------------

    def items(self, table: str, region: str | None = None) -> list[Item]:
        """All items of a table, by the wire's values. Raises KeyError for no such table."""
        with self._lock:
            self._advance()
            rows = self._tables[(region or self.region, table)].rows
            return [row.item for _, row in rows.scan()]

    def expire(self) -> int:
        """Delete the items whose time to live is over, as AWS does some time or other.

        "Using time to live (TTL) in DynamoDB": within a few days; until then they are read.
        Returns how many.
        """
        with self._lock:
            self._advance()
            old: list[tuple[Table, Place]] = []
            for table in self._tables.values():
                name = table.time_to_live
                for place, row in table.rows.scan() if name else ():
                    value = row.item.get(name or "", {})
                    if "N" in value and float(value["N"]) < self._now:
                        old.append((table, place))
            for table, place in old:
                self._put(table, place, None, self._now)
            return len(old)

    # -- how a request is carried out ------------------------------------------------------------

    def _read(self, request: AwsRequest) -> _Asked:
        """What a request asks; its call is recorded."""
        prefix, _, action = _target(request).partition(".")
        service, _ = _SERVICES.get(prefix, ("dynamodb", ""))
        authorization = _header(request, "authorization")
        scope = SCOPE.search(authorization)
        region = scope["region"] if scope is not None else self.region
        call = Call(action, self._now, region, service)
        try:
            body = json.loads(request.body or b"{}")
        except ValueError:
            body = None
        if isinstance(body, dict):
            _record(call, body)
        self.calls.append(call)
        self.counts[action] += 1
        return _Asked(service, action, region, body, call)

    def _fail(self, fault: Fault, asked: _Asked) -> AwsResponse:
        match fault.kind:
            case "hang":
                raise NetworkFault("timeout")
            case "reset_before":
                raise NetworkFault("reset")
            case "refused":
                raise NetworkFault("refused")
            case "unprocessed":
                asked.most = int(fault.params["done"])
            case "slow" if late := fault.params.get("late"):
                self._late.append((self._now + late, asked))
                raise NetworkFault("timeout")
        error = _fault_error(fault, asked)
        if error is not None and not fault.params.get("after"):
            return self._error(error, asked.service)
        response = self._carry_out(asked)
        if fault.kind == "slow":
            raise NetworkFault("timeout")
        if fault.kind == "lost_response":
            raise NetworkFault("reset")
        return response if error is None else self._error(error, asked.service)

    def _advance(self) -> None:
        """Go to the clock's time, and do what was put off until then."""
        now = self._clock()
        while due := [one for one in self._late if one[0] <= now]:
            first = min(due, key=lambda one: one[0])
            self._late.remove(first)
            self._now = first[0]
            self._carry_out(first[1])
        self._now = now
        for key, table in list(self._tables.items()):
            if table.gone_from is not None and table.gone_from <= now:
                del self._tables[key]

    def _carry_out(self, asked: _Asked) -> AwsResponse:
        try:
            content = self._do(asked)
        except AwsError as error:
            asked.call.outcome = error.code
            return self._error(error, asked.service)
        asked.call.outcome = "ok"
        asked.call.units = sum(asked.used.values())
        return self._answer(200, content, asked.service)

    def _do(self, asked: _Asked) -> dict[str, Any]:
        body = asked.body
        if not isinstance(body, dict):
            raise AwsError("SerializationException", "The body is not a JSON object")
        if asked.service != "dynamodb":
            scaling = self._scaling.get(asked.region)
            if scaling is None:
                scaling = ApplicationScaling(self.account, asked.region)
                self._scaling[asked.region] = scaling
            return scaling.answer(asked.action, body, self._now)
        do = _DONE.get(asked.action)
        if do is None:
            raise AwsError(
                "UnknownOperationException", f"The sandbox cannot do this: {asked.action}"
            )
        _check_known(asked.action, body)
        return do(self, asked)

    def _answer(self, status: int, content: Mapping[str, Any], service: str) -> AwsResponse:
        self._requests += 1
        body = json.dumps(content).encode()
        version = next(v for name, v in _SERVICES.values() if name == service)
        headers = {
            "Content-Type": f"application/x-amz-json-{version}",
            "x-amzn-RequestId": f"00000000-0000-4000-a000-{self._requests:012d}",
            "x-amz-crc32": str(zlib.crc32(body)),
        }
        return AwsResponse(status, headers, body)

    def _error(self, error: AwsError, service: str) -> AwsResponse:
        prefix = _CORAL.get(error.code, "com.amazonaws.dynamodb.v20120810#")
        if service != "dynamodb":
            prefix = ""
        message = "Message" if error.code == "TransactionCanceledException" else "message"
        content = {"__type": prefix + error.code, message: error.message}
        if isinstance(error, _Refused):
            content |= error.members
        return self._answer(error.status, content, service)

    # -- tables ----------------------------------------------------------------------------------

    def _table(self, asked: _Asked, name: Any, *, ready: bool = True) -> Table:
        """A table by name; one that is not there, or not yet, is not found."""
        if not isinstance(name, str) or not name:
            raise invalid("The parameter 'TableName' is required but was not present")
        table = self._tables.get((asked.region, name))
        if table is None or (ready and table.status(self._now) in ("CREATING", "DELETING")):
            message = _UNDER_WAY if ready else f"{_UNDER_WAY}: Table: {name} not found"
            raise AwsError("ResourceNotFoundException", message)
        return table

    def _create_table(self, asked: _Asked) -> dict[str, Any]:
        name = asked.body.get("TableName", "")
        if (asked.region, name) in self._tables:
            raise AwsError("ResourceInUseException", f"Table already exists: {name}")
        arn = f"arn:aws:dynamodb:{asked.region}:{self.account}:table/{name}"
        table = made(asked.body, arn, self._now, self._now + self.table_delay)
        self._tables[(asked.region, name)] = table
        return {"TableDescription": {**table.description(self._now), "TableStatus": "CREATING"}}

    def _describe_table(self, asked: _Asked) -> dict[str, Any]:
        table = self._table(asked, asked.body.get("TableName"), ready=False)
        for index in table.indexes.values():
            index.show(self._now)
        return {"Table": table.description(self._now)}

    def _delete_table(self, asked: _Asked) -> dict[str, Any]:
        table = self._changeable(asked)
        if table.protected:
            raise invalid(
                "Resource cannot be deleted as it is currently protected against deletion. "
                "Disable deletion protection first."
            )
        table.gone_from = self._now + self.table_delay
        if not self.table_delay:
            del self._tables[(asked.region, table.name)]
        return {"TableDescription": table.description(self._now)}

    def _list_tables(self, asked: _Asked) -> dict[str, Any]:
        after = asked.body.get("ExclusiveStartTableName", "")
        names = sorted(
            name for region, name in self._tables if region == asked.region and name > after
        )
        most = asked.body.get("Limit", 100)
        found: dict[str, Any] = {"TableNames": names[:most]}
        return found | ({"LastEvaluatedTableName": names[most - 1]} if len(names) > most else {})

    def _update_table(self, asked: _Asked) -> dict[str, Any]:
        table, body = self._changeable(asked), asked.body
        if not body.keys() - {"TableName"}:
            raise invalid("At least one of the settings of a table must be given")
        updates = [update.get("Update") for update in body.get("GlobalSecondaryIndexUpdates", ())]
        if None in updates:
            raise invalid("The sandbox can neither create nor delete the index of a table")
        summary = table.described.get("BillingModeSummary", {"BillingMode": "PROVISIONED"})
        mode = body.get("BillingMode", summary["BillingMode"])
        if "BillingMode" in body or "ProvisionedThroughput" in body:
            throughput = checked_throughput(mode, body.get("ProvisionedThroughput"))
            table.described.pop("BillingModeSummary", None)
            table.described |= billing(mode, throughput, self._now)
        for update in updates:
            index = table.indexes.get(update["IndexName"])
            if index is None:
                raise AwsError("ResourceNotFoundException", _UNDER_WAY)
            index.throughput = checked_throughput(mode, update["ProvisionedThroughput"])
        table.protected = body.get("DeletionProtectionEnabled", table.protected)
        table.updating_until = self._now + self.table_delay
        return {"TableDescription": table.description(self._now)}

    def _changeable(self, asked: _Asked) -> Table:
        table = self._table(asked, asked.body.get("TableName"), ready=False)
        if (status := table.status(self._now)) != "ACTIVE":
            raise AwsError(
                "ResourceInUseException",
                f"Attempt to change a resource which is still in use: Table is {status}: "
                f"{table.name}",
            )
        return table

    def _update_backups(self, asked: _Asked) -> dict[str, Any]:
        table = self._backed_up(asked)
        wanted = asked.body.get("PointInTimeRecoverySpecification", {})
        if "PointInTimeRecoveryEnabled" not in wanted:
            raise invalid("PointInTimeRecoverySpecification must say PointInTimeRecoveryEnabled")
        if not wanted["PointInTimeRecoveryEnabled"]:
            table.recovery_from = None
        elif table.recovery_from is None:
            table.recovery_from = self._now
        return self._backups(table)

    def _describe_backups(self, asked: _Asked) -> dict[str, Any]:
        return self._backups(self._backed_up(asked))

    def _backed_up(self, asked: _Asked) -> Table:
        name = asked.body.get("TableName")
        if (asked.region, name) not in self._tables:
            raise AwsError("TableNotFoundException", f"Table not found: {name}")
        return self._table(asked, name)

    def _backups(self, table: Table) -> dict[str, Any]:
        recovery: dict[str, Any] = {"PointInTimeRecoveryStatus": "DISABLED"}
        if table.recovery_from is not None:
            recovery = {
                "PointInTimeRecoveryStatus": "ENABLED",
                "RecoveryPeriodInDays": 35,
                "EarliestRestorableDateTime": table.recovery_from,
                "LatestRestorableDateTime": self._now,
            }
        return {
            "ContinuousBackupsDescription": {
                "ContinuousBackupsStatus": "ENABLED",
                "PointInTimeRecoveryDescription": recovery,
            }
        }

    def _update_time_to_live(self, asked: _Asked) -> dict[str, Any]:
        table = self._table(asked, asked.body.get("TableName"))
        wanted = asked.body.get("TimeToLiveSpecification", {})
        name = wanted.get("AttributeName")
        if not name or "Enabled" not in wanted:
            raise invalid("TimeToLiveSpecification must have AttributeName and Enabled")
        if wanted["Enabled"] == (table.time_to_live is not None):
            raise invalid(f"TimeToLive is already {'enabled' if wanted['Enabled'] else 'disabled'}")
        table.time_to_live = name if wanted["Enabled"] else None
        return {"TimeToLiveSpecification": wanted}

    def _describe_time_to_live(self, asked: _Asked) -> dict[str, Any]:
        name = self._table(asked, asked.body.get("TableName")).time_to_live
        if name is None:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": name}}

    def _tag(self, asked: _Asked) -> dict[str, Any]:
        tags = {one["Key"]: one["Value"] for one in asked.body.get("Tags", ())}
        self._by_arn(asked).tags.update(tags)
        return {}

    def _untag(self, asked: _Asked) -> dict[str, Any]:
        table = self._by_arn(asked)
        for name in asked.body.get("TagKeys", ()):
            table.tags.pop(name, None)
        return {}

    def _list_tags(self, asked: _Asked) -> dict[str, Any]:
        tags = self._by_arn(asked).tags
        return {"Tags": [{"Key": name, "Value": value} for name, value in tags.items()]}

    def _by_arn(self, asked: _Asked) -> Table:
        arn = asked.body.get("ResourceArn", "")
        table = self._tables.get((asked.region, arn.rpartition("/")[2]))
        if table is None or table.arn != arn:
            raise AwsError("ResourceNotFoundException", f"{_UNDER_WAY}: ResourcArn: {arn}")
        return table

    # -- writes ----------------------------------------------------------------------------------

    def _write(self, asked: _Asked) -> dict[str, Any]:
        """PutItem, UpdateItem and DeleteItem."""
        kind = asked.action.removesuffix("Item")
        wanted = asked.body.get("ReturnValues", "NONE")
        known = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")
        if wanted not in (known if kind == "Update" else known[:2]):
            raise invalid(f"ReturnValues of {asked.action} cannot be {wanted}")
        write = self._prepared(asked, kind, asked.body)
        change = _judged(write)
        self._apply(asked, [change], 1)
        answer: dict[str, Any] = self._consumed(asked, _one)
        row = change.new if wanted.endswith("NEW") else change.old
        if wanted == "NONE" or row is None:
            return answer
        attributes = row.item
        if wanted.startswith("UPDATED"):
            attributes = picked(row.item, write.words.touched(write.update))
        return answer | ({"Attributes": attributes} if attributes else {})

    def _prepared(self, asked: _Asked, kind: str, body: Mapping[str, Any]) -> _Write:
        """A write with all that can be checked before an item is looked at."""
        _check_known(kind, body, also=_ACTION_OF[kind])
        table = self._table(asked, body.get("TableName"))
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

    def _apply(self, asked: _Asked, changes: list[_Change], cost: int) -> None:
        """Make changes, all of one request, and count what they use."""
        before = [
            (change.write.table, change.write.place, change.old)
            for change in changes
            if change.write.kind != "ConditionCheck"
        ]
        if before:
            self._before = before
        for number, change in enumerate(changes, 1):
            table = change.write.table
            asked.used[(table.name, "")] += cost * max(1, -(-change.size // _WRITE_UNIT))
            if change.write.kind == "ConditionCheck":
                continue
            due = self._now + self.index_lag * number / len(changes)
            for index, units in self._put(table, change.write.place, change.new, due):
                asked.used[(table.name, index.name)] += cost * units

    def _put(
        self, table: Table, place: Place, new: Row | None, due: float
    ) -> list[tuple[Index, int]]:
        """Set or take away a row, let the indexes follow; the write units that each uses."""
        old = table.rows.put(place, new)
        used: list[tuple[Index, int]] = []
        for index in table.indexes.values():
            was = index.row(table.keys, old.item if old else None)
            row = index.row(table.keys, new.item if new else None)
            if was == row:
                continue
            # "Using global secondary indexes": a changed key is a deletion and an insertion.
            moved = was and row and index.keys.place(was.item) != index.keys.place(row.item)
            sizes = [one.size for one in (was, row) if one is not None]
            units = [max(1, -(-size // _WRITE_UNIT)) for size in sizes]
            used.append((index, sum(units) if moved else max(units)))
            index.change(place, row, due)
            index.show(self._now)
        return used

    def _transact_write(self, asked: _Asked) -> dict[str, Any]:
        """All the actions or none (API_TransactWriteItems.html), once for each token."""
        items = _checked_actions(asked.body, _TRANSACTION_MAX)
        token = asked.body.get("ClientRequestToken")
        if token is not None:
            if not isinstance(token, str) or not 1 <= len(token) <= _TOKEN_MAX:
                raise invalid(f"ClientRequestToken has 1 to {_TOKEN_MAX} characters")
            if self._in_progress(asked, token):
                raise AwsError(
                    "TransactionInProgressException",
                    "The transaction with the given request token is already in progress.",
                )
            before = self._tokens.get(token)
            if before is not None and self._now < before[0] + _TOKEN_SECONDS:
                return self._again(asked, before[1])
        writes: list[_Write] = []
        for item in items:
            if not isinstance(item, dict) or len(item) != 1 or item.keys() - _ACTION_OF.keys():
                raise invalid("TransactItems can only contain one of Check, Put, Update or Delete")
            ((kind, body),) = item.items()
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
            raise _cancelled(reasons)
        if sum(change.size for change in changes) > _TRANSACTION_BYTES:
            raise invalid("The aggregate size of the items in the transaction exceeds 4 MB")
        self._apply(asked, changes, 2)
        if token is not None:
            # Only what was done is remembered: a transaction that was cancelled did nothing, and
            # is tried again under its token.
            self._tokens[token] = self._now, asked.body
        return self._consumed(asked, _listed, "Write")

    def _in_progress(self, asked: _Asked, token: str) -> bool:
        return any(
            late.action == asked.action and late.body.get("ClientRequestToken") == token
            for _, late in self._late
        )

    def _again(self, asked: _Asked, before: dict[str, Any]) -> dict[str, Any]:
        """A transaction that was done under its token: read, not done again."""
        if before != asked.body:
            raise AwsError(
                "IdempotentParameterMismatchException",
                "The request uses the same client token as a previous, but non-identical request.",
            )
        for item in asked.body["TransactItems"]:
            ((kind, body),) = item.items()
            table = self._table(asked, body["TableName"])
            key = body["Key"] if kind != "Put" else copy_of_key(body["Item"], table.keys.names)
            row = table.rows.get(table.keys.checked(key)[0])
            asked.used[(table.name, "")] += 2 * _read_units(row.size if row else 0)
        return self._consumed(asked, _listed, "Read")

    def _batch_write(self, asked: _Asked) -> dict[str, Any]:
        wanted: list[tuple[str, dict[str, Any]]] = [
            (name, one) for name, ones in _batch(asked.body).items() for one in ones
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
        return {"UnprocessedItems": left, **self._consumed(asked, _listed)}

    # -- reads -----------------------------------------------------------------------------------

    @contextmanager
    def _as_read(self, consistent: bool) -> Iterator[None]:
        """The state that a read sees: with stale_reads, the one before the last write."""
        if consistent or not self.stale_reads:
            yield
            return
        now = [(table, place, table.rows.put(place, old)) for table, place, old in self._before]
        try:
            yield
        finally:
            for table, place, row in now:
                table.rows.put(place, row)

    def _get_item(self, asked: _Asked) -> dict[str, Any]:
        table = self._table(asked, asked.body.get("TableName"))
        consistent = asked.body.get("ConsistentRead", False)
        place, _ = table.keys.checked(asked.body.get("Key"))
        paths = _projection(asked.body)
        with self._as_read(consistent):
            row = table.rows.get(place)
        units = _read_units(row.size if row else 0)
        asked.used[(table.name, "")] += units if consistent else units / 2
        answer: dict[str, Any] = self._consumed(asked, _one)
        if row is not None:
            answer["Item"] = picked(row.item, paths) if paths else row.item
        return answer

    def _batch_get(self, asked: _Asked) -> dict[str, Any]:
        found: dict[str, list[Item]] = {}
        left: dict[str, dict[str, Any]] = {}
        requests = _batch(asked.body)
        number = sum(len(one.get("Keys", ())) for one in requests.values())
        if not 1 <= number <= _BATCH_GET_MAX:
            raise invalid("Too many items requested for the BatchGetItem call")
        done, size = 0, 0
        for name, request in requests.items():
            _check_known("BatchGetItem", request, also="Get", more=("Keys", "ConsistentRead"))
            table = self._table(asked, name)
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
                units = _read_units(length)
                asked.used[(name, "")] += units if consistent else units / 2
                if row is not None:
                    answers.append(picked(row.item, paths) if paths else row.item)
        return {
            "Responses": found,
            "UnprocessedKeys": left,
            **self._consumed(asked, _listed),
        }

    def _transact_get(self, asked: _Asked) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        size = 0
        for item in _checked_actions(asked.body, _TRANSACTION_MAX):
            body = item.get("Get") if isinstance(item, dict) else None
            if body is None:
                raise invalid("TransactItems of TransactGetItems can only contain Get")
            _check_known("Get", body)
            table = self._table(asked, body.get("TableName"))
            row = table.rows.get(table.keys.checked(body.get("Key"))[0])
            paths = _projection(body)
            length = row.size if row else 0
            size += length
            asked.used[(table.name, "")] += 2 * _read_units(length)
            if row is None:
                answers.append({})
            else:
                answers.append({"Item": picked(row.item, paths) if paths else row.item})
        if size > _TRANSACTION_BYTES:
            raise invalid("The aggregate size of the items in the transaction exceeds 4 MB")
        return {"Responses": answers, **self._consumed(asked, _listed, "Read")}

    def _query(self, asked: _Asked) -> dict[str, Any]:
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

    def _scan(self, asked: _Asked) -> dict[str, Any]:
        table, index = self._read_from(asked)
        after = self._start(table, index, asked.body.get("ExclusiveStartKey"))
        with self._as_read(index is not None or asked.body.get("ConsistentRead", False)):
            rows = (table if index is None else index).rows.scan(after)
            return self._page(asked, table, index, Expressions(asked.body), rows)

    def _read_from(self, asked: _Asked) -> tuple[Table, Index | None]:
        """The table and index that a Query or Scan reads."""
        table = self._table(asked, asked.body.get("TableName"))
        name = asked.body.get("IndexName")
        if name is None:
            return table, None
        if name not in table.indexes:
            raise invalid(f"The table does not have the specified index: {name}")
        if asked.body.get("ConsistentRead"):
            raise invalid("Consistent reads are not supported on global secondary indexes")
        index = table.indexes[name]
        index.show(self._now)
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
        asked: _Asked,
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
            if read == limit or (read and size + row.size > self.page_size):
                break
            read, size, last = read + 1, size + row.size, row
            if words.holds(filtered, row.item):
                found.append(picked(row.item, paths) if paths else row.item)
        else:
            # "If LastEvaluatedKey is not empty, it does not necessarily mean that there is more
            # data": a page that ends by its limit has one (API_Query.html).
            last = last if read == limit else None
        units = _read_units(size)
        name = index.name if index is not None else ""
        asked.used[(table.name, name)] += units if body.get("ConsistentRead") else units / 2
        answer: dict[str, Any] = {
            "Count": len(found),
            "ScannedCount": read,
            **self._consumed(asked, _one),
        }
        if select != "COUNT":
            answer["Items"] = found
        if last is not None:
            answer["LastEvaluatedKey"] = table.key_of(last.item, index)
        return answer

    # -- capacity --------------------------------------------------------------------------------

    def _consumed(
        self,
        asked: _Asked,
        shape: Callable[[list[dict[str, Any]]], Any],
        transact: str | None = None,
    ) -> dict[str, Any]:
        """ConsumedCapacity as asked; `transact` says which units a transaction tells apart."""
        wanted = asked.body.get("ReturnConsumedCapacity", "NONE")
        if wanted not in ("NONE", "TOTAL", "INDEXES"):
            raise invalid("ReturnConsumedCapacity must be NONE, TOTAL or INDEXES")
        if wanted == "NONE":
            return {}
        told: list[dict[str, Any]] = []
        for name in dict.fromkeys(table for table, _ in asked.used):
            parts = {index: units for (table, index), units in asked.used.items() if table == name}
            one: dict[str, Any] = {"TableName": name, **_units(sum(parts.values()), transact)}
            if wanted == "INDEXES":
                one["Table"] = _units(parts.pop("", 0), transact)
                if parts:
                    one["GlobalSecondaryIndexes"] = {
                        index: _units(units, transact) for index, units in parts.items()
                    }
            told.append(one)
        return {"ConsumedCapacity": shape(told)}


_DONE: dict[str, Callable[[DynamoDb, _Asked], dict[str, Any]]] = {
    "CreateTable": DynamoDb._create_table,
    "DescribeTable": DynamoDb._describe_table,
    "DeleteTable": DynamoDb._delete_table,
    "ListTables": DynamoDb._list_tables,
    "UpdateTable": DynamoDb._update_table,
    "UpdateContinuousBackups": DynamoDb._update_backups,
    "DescribeContinuousBackups": DynamoDb._describe_backups,
    "UpdateTimeToLive": DynamoDb._update_time_to_live,
    "DescribeTimeToLive": DynamoDb._describe_time_to_live,
    "TagResource": DynamoDb._tag,
    "UntagResource": DynamoDb._untag,
    "ListTagsOfResource": DynamoDb._list_tags,
    "GetItem": DynamoDb._get_item,
    "PutItem": DynamoDb._write,
    "UpdateItem": DynamoDb._write,
    "DeleteItem": DynamoDb._write,
    "Query": DynamoDb._query,
    "Scan": DynamoDb._scan,
    "BatchGetItem": DynamoDb._batch_get,
    "BatchWriteItem": DynamoDb._batch_write,
    "TransactWriteItems": DynamoDb._transact_write,
    "TransactGetItems": DynamoDb._transact_get,
}


def _judged(write: _Write) -> _Change:
    """What a write does to the item that is there. Raises AwsError where it may not be done."""
    old = write.table.rows.get(write.place)
    if not write.words.holds(write.condition, old.item if old else {}):
        members = {"Item": old.item} if old and write.tell_failed else {}
        raise _Refused("ConditionalCheckFailedException", _FAILED, **members)
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
    members = error.members if isinstance(error, _Refused) else {}
    return {"Code": codes[error.code], "Message": error.message, **members}


def _cancelled(reasons: list[dict[str, Any]]) -> AwsError:
    codes = ", ".join(reason["Code"] for reason in reasons)
    return _Refused(
        "TransactionCanceledException", f"{_CANCELLED} [{codes}]", CancellationReasons=reasons
    )


def _fault_error(fault: Fault, asked: _Asked) -> AwsError | None:
    """The error that a fault answers, if it answers one ("Error handling with DynamoDB")."""
    match fault.kind:
        case "throttle":
            return AwsError("ThrottlingException", "Rate exceeded for this table.")
        case "e500":
            return AwsError("InternalServerError", "Internal server error", 500)
        case "e503":
            return AwsError("ServiceUnavailable", "The service is unavailable.", 503)
        case "error":
            code = fault.params["code"]
            message = fault.params.get("message", f"{code}, as the sandbox was told")
            return AwsError(code, message, fault.params.get("status", 400))
        case "cancelled":
            number = len(asked.body.get("TransactItems", ()))
            codes = [*fault.params["reasons"], *["None"] * number][:number]
            return _cancelled(
                [
                    {"Code": code}
                    if code == "None"
                    else {"Code": code, "Message": f"{code}, as the sandbox was told"}
                    for code in codes
                ]
            )
    return None


def _check_known(
    action: str, asked: Any, *, also: str | None = None, more: Iterable[str] = ()
) -> None:
    """Refuse parameters that the sandbox does not know; `also` names another set of them."""
    if not isinstance(asked, dict):
        raise AwsError("SerializationException", f"{action} asks with a map of parameters")
    known = _KNOWN.get(action, frozenset()) | _KNOWN.get(also or action, frozenset())
    unknown = asked.keys() - known - set(more)
    if unknown:
        raise invalid(f"The sandbox's {action} does not know {', '.join(sorted(unknown))}")


def _checked_actions(body: Mapping[str, Any], most: int) -> list[Any]:
    items = body.get("TransactItems")
    if not isinstance(items, list) or not 1 <= len(items) <= most:
        raise invalid(
            "1 validation error detected: Value at 'transactItems' failed to satisfy constraint: "
            f"Member must have length less than or equal to {most}, and at least 1"
        )
    return items


def _batch(body: Mapping[str, Any]) -> dict[str, Any]:
    requests: dict[str, Any] | None = body.get("RequestItems")
    if not requests:
        raise invalid("The requestItems parameter is required and must not be empty")
    return requests


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


def _record(call: Call, body: Mapping[str, Any]) -> None:
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


def _target(request: AwsRequest) -> str:
    return _header(request, "x-amz-target")


def _header(request: AwsRequest, wanted: str) -> str:
    for name, value in request.headers.items():
        if name.lower() == wanted:
            return value
    return ""


def _read_units(size: int) -> int:
    return max(1, -(-size // _READ_UNIT))


def _units(units: float, transact: str | None) -> dict[str, float]:
    told = {"CapacityUnits": float(units)}
    return told | ({f"{transact}CapacityUnits": float(units)} if transact else {})


def _one(told: list[dict[str, Any]]) -> dict[str, Any]:
    return told[0]


def _listed(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return told
