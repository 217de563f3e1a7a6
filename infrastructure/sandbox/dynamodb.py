"""DynamoDB in memory, on any clock, with AWS's promises and with faults on request."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from .application_scaling import ApplicationScaling
from .dynamodb_admin import ADMINISTRATION, Tables
from .dynamodb_calls import (
    PAGE_BYTES,
    Asked,
    Call,
    Refused,
    Settings,
    cancelled,
    check_known,
    record,
)
from .dynamodb_reads import READS, Reads
from .dynamodb_tables import Place, Table
from .dynamodb_values import Item
from .dynamodb_writes import WRITES, Writes
from .faults import WITHIN, Fault, Faults
from .wire import SCOPE, AwsError, AwsRequest, AwsResponse, NetworkFault

__all__ = ["SERVICES", "Call", "DynamoDb", "is_for_dynamodb"]

# "x-amz-target: DynamoDB_20120810.GetItem" ("targetPrefix" and "jsonVersion" of botocore's models)
_SERVICES = {
    "DynamoDB_20120810": ("dynamodb", "1.0"),
    "AnyScaleFrontendService": ("application-autoscaling", "1.1"),
}
SERVICES = tuple(service for service, _ in _SERVICES.values())

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

_SOCKET_ERRORS: dict[str, type[OSError]] = {
    "timeout": TimeoutError,
    "reset": ConnectionResetError,
    "refused": ConnectionRefusedError,
}


def is_for_dynamodb(request: AwsRequest) -> bool:
    """Whether a request asks DynamoDB or Application Auto Scaling."""
    return _target(request).partition(".")[0] in _SERVICES


class DynamoDb(Settings):
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
        page_size: int = PAGE_BYTES,
        table_delay: float = 0.0,
    ) -> None:
        super().__init__(account, index_lag, stale_reads, page_size, table_delay)
        self.region = region
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()  # of calls, by action
        self._clock = clock
        self._now = clock()
        self._tables = Tables(self)
        self._reads = Reads(self._tables, self)
        self._writes = Writes(self._tables, self)
        self._scaling: dict[str, ApplicationScaling] = {}  # by region
        self._late: list[tuple[float, Asked]] = []
        self._requests = 0
        self._lock = threading.RLock()
        self._faults = Faults(self._lock)

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
                    asked.action,
                    {**(asked.body or {}), "TableName": asked.call.table},
                    self.account,
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

    def exchange(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str | None, bytes]:
        """Answer a POST of the store's own client (its `in_process`), no network: status, the
        header x-amz-crc32, body. Network faults are raised at once, as a socket would."""
        try:
            response = self.handle(AwsRequest("POST", url, headers, body))
        except NetworkFault as fault:
            raise _SOCKET_ERRORS[fault.kind](str(fault)) from fault
        return response.status, response.headers["x-amz-crc32"], response.body

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
        return self._faults.add(Fault(kind, action, from_call, times, params))

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    # -- the truth -------------------------------------------------------------------------------

    def items(self, table: str, region: str | None = None) -> list[Item]:
        """All items of a table, by the wire's values. Raises KeyError for no such table."""
        with self._lock:
            self._advance()
            rows = self._tables.named(region or self.region, table).rows
            return [row.item for _, row in rows.scan()]

    def expire(self) -> int:
        """Delete the items whose time to live is over, as AWS does some time or other.

        "Using time to live (TTL) in DynamoDB": within a few days; until then they are read.
        Returns how many.
        """
        with self._lock:
            self._advance()
            old: list[tuple[Table, Place]] = []
            for table in self._tables:
                name = table.time_to_live
                for place, row in table.rows.scan() if name else ():
                    value = row.item.get(name or "", {})
                    if "N" in value and float(value["N"]) < self._now:
                        old.append((table, place))
            for table, place in old:
                table.put(place, None, self._now, self._now)
            return len(old)

    # -- how a request is carried out ------------------------------------------------------------

    def _read(self, request: AwsRequest) -> Asked:
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
            record(call, body)
        self.calls.append(call)
        self.counts[action] += 1
        return Asked(service, action, region, body, call)

    def _fail(self, fault: Fault, asked: Asked) -> AwsResponse:
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
        self._tables.forget(now)

    def _carry_out(self, asked: Asked) -> AwsResponse:
        try:
            content = self._do(asked)
        except AwsError as error:
            asked.call.outcome = error.code
            return self._error(error, asked.service)
        asked.call.outcome = "ok"
        asked.call.units = sum(asked.used.values())
        return self._answer(200, content, asked.service)

    def _do(self, asked: Asked) -> dict[str, Any]:
        body = asked.body
        if not isinstance(body, dict):
            raise AwsError("SerializationException", "The body is not a JSON object")
        if asked.service != "dynamodb":
            scaling = self._scaling.get(asked.region)
            if scaling is None:
                scaling = ApplicationScaling(self.account, asked.region)
                self._scaling[asked.region] = scaling
            return scaling.answer(asked.action, body, self._now)
        check_known(asked.action, body)
        asked.now = self._now
        if asked.action in WRITES:
            if self._in_progress(asked):
                raise AwsError(
                    "TransactionInProgressException",
                    "The transaction with the given request token is already in progress.",
                )
            return WRITES[asked.action](self._writes, asked)
        if asked.action in READS:
            return READS[asked.action](self._reads, asked)
        if asked.action in ADMINISTRATION:
            return ADMINISTRATION[asked.action](self._tables, asked)
        raise AwsError("UnknownOperationException", f"The sandbox cannot do this: {asked.action}")

    def _in_progress(self, asked: Asked) -> bool:
        """Whether a transaction with the same token was put off and is still to be done."""
        token = asked.body.get("ClientRequestToken")
        return token is not None and any(
            late.body.get("ClientRequestToken") == token for _, late in self._late
        )

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
        if isinstance(error, Refused):
            content |= error.members
        return self._answer(error.status, content, service)


def _fault_error(fault: Fault, asked: Asked) -> AwsError | None:
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
            return cancelled(
                [
                    {"Code": code}
                    if code == "None"
                    else {"Code": code, "Message": f"{code}, as the sandbox was told"}
                    for code in codes
                ]
            )
    return None


def _target(request: AwsRequest) -> str:
    return _header(request, "x-amz-target")


def _header(request: AwsRequest, wanted: str) -> str:
    for name, value in request.headers.items():
        if name.lower() == wanted:
            return value
    return ""
