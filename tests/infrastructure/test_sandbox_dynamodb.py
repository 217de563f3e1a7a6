"""DynamoDB's stand-in keeps what AWS documents, in process and over HTTP.

The rules ask nothing of the stand-in but its answers, so they can be put to any DynamoDB:
`RULES_DYNAMODB_ENDPOINT=http://127.0.0.1:4566 pytest tests/infrastructure/
test_sandbox_dynamodb.py -k elsewhere` (docs/decisions/0013-dynamodb-stand-in.md says what came of
it). What follows them needs the stand-in's clock, settings, faults or record.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from infrastructure.sandbox.dynamodb import DynamoDb
from infrastructure.sandbox.dynamodb_expressions import Expressions
from infrastructure.sandbox.dynamodb_values import normal_item
from infrastructure.sandbox.server import listen, start_dynamodb, start_process

SESSION = botocore.session.get_session()
ELSEWHERE = os.environ.get("RULES_DYNAMODB_ENDPOINT")
NAMES = (f"case-{os.getpid()}-{number}" for number in itertools.count(1))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def client(
    database: DynamoDb | None = None,
    url: str | None = None,
    service: str = "dynamodb",
    region: str = "us-east-1",
) -> Any:
    """A botocore client without retries, on a stand-in or on the URL of one."""
    made = SESSION.create_client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, proxies={}, read_timeout=5),
    )
    if database is not None:
        database.attach(made)
    return made


class Ledger:
    """A table as an event store has one (PK, SK) with an index by `state`, and a client."""

    def __init__(self, dynamodb: Any, database: DynamoDb | None, clock: Clock) -> None:
        self.dynamodb = dynamodb
        self.database = database
        self.clock = clock
        self.table = next(NAMES)
        dynamodb.create_table(**shape(self.table))

    @property
    def stand_in(self) -> DynamoDb:
        assert self.database is not None
        return self.database

    def put(self, pk: str, sk: str = "0", **more: Any) -> dict[str, Any]:
        attributes = {name: valued(value) for name, value in more.items() if name[0].islower()}
        options = {name: value for name, value in more.items() if not name[0].islower()}
        item = {**key(pk, sk), **attributes}
        answer: dict[str, Any] = self.dynamodb.put_item(TableName=self.table, Item=item, **options)
        return answer

    def get(self, pk: str, sk: str = "0", **options: Any) -> dict[str, Any] | None:
        options = {"ConsistentRead": True, **options}
        answer = self.dynamodb.get_item(TableName=self.table, Key=key(pk, sk), **options)
        item: dict[str, Any] | None = answer.get("Item")
        return item

    def update(self, pk: str, expression: str, values: Any = None, **options: Any) -> Any:
        if values is not None:
            options["ExpressionAttributeValues"] = {k: valued(v) for k, v in values.items()}
        return self.dynamodb.update_item(
            TableName=self.table, Key=key(pk), UpdateExpression=expression, **options
        )

    def query(self, condition: str, values: dict[str, Any], **options: Any) -> Any:
        return self.dynamodb.query(
            TableName=self.table,
            KeyConditionExpression=condition,
            ExpressionAttributeValues={name: valued(value) for name, value in values.items()},
            **options,
        )

    def transact(self, *items: dict[str, Any], **options: Any) -> Any:
        return self.dynamodb.transact_write_items(TransactItems=list(items), **options)

    def put_action(self, pk: str, sk: str = "0", **more: Any) -> dict[str, Any]:
        attributes = {name: valued(value) for name, value in more.items() if name[0].islower()}
        options = {name: value for name, value in more.items() if not name[0].islower()}
        return {"Put": {"TableName": self.table, "Item": {**key(pk, sk), **attributes}, **options}}

    def action(self, kind: str, pk: str, **options: Any) -> dict[str, Any]:
        return {kind: {"TableName": self.table, "Key": key(pk), **options}}


def shape(table: str, **more: Any) -> dict[str, Any]:
    return {
        "TableName": table,
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": "N" if name == "since" else "S"}
            for name in ("PK", "SK", "state", "since")
        ],
        "KeySchema": schema("PK", "SK"),
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by-state",
                "KeySchema": schema("state", "since"),
                "Projection": {"ProjectionType": "ALL"},
            },
            {
                "IndexName": "states",
                "KeySchema": schema("state"),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
        "BillingMode": "PAY_PER_REQUEST",
        **more,
    }


def schema(*names: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
    ]


def key(pk: str, sk: str = "0") -> dict[str, Any]:
    return {"PK": {"S": pk}, "SK": {"S": sk}}


def valued(value: Any) -> dict[str, Any]:
    """A value of Python's as DynamoDB has it; a dictionary is one already."""
    match value:
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case bytes():
            return {"B": value}
        case int() | float():
            return {"N": str(value)}
        case list():
            return {"L": [valued(one) for one in value]}
        case None:
            return {"NULL": True}
    assert isinstance(value, dict)
    return value


def refused(call: Callable[[], object], code: str = "ValidationException") -> Any:
    """The answer of a call that must fail with this error."""
    with pytest.raises(ClientError) as caught:
        call()
    answer: Any = caught.value.response
    assert answer["Error"]["Code"] == code, answer["Error"]
    return answer


def reasons(call: Callable[[], object]) -> list[dict[str, Any]]:
    """Why a transaction is cancelled, action by action."""
    found: list[dict[str, Any]] = refused(call, "TransactionCanceledException")[
        "CancellationReasons"
    ]
    return found


def codes(call: Callable[[], object]) -> list[str]:
    return [reason["Code"] for reason in reasons(call)]


@contextmanager
def database_served(database: DynamoDb, way: str) -> Iterator[Any]:
    """A client of a stand-in in this process: attached, or over HTTP."""
    if way == "attached":
        yield client(database)
        return
    server = listen(database)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    dynamodb = client(url=f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield dynamodb
    finally:
        dynamodb.close()
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.fixture(params=["attached", "http"])
def ours(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """The stand-in, both ways, on a clock that stands."""
    clock = Clock()
    database = DynamoDb(clock)
    with database_served(database, request.param) as dynamodb:
        yield Ledger(dynamodb, database, clock)


@pytest.fixture(scope="module", params=["attached", "http", *(["elsewhere"] if ELSEWHERE else [])])
def judged(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of what the rules are put to."""
    if request.param == "elsewhere":
        yield client(url=ELSEWHERE)
        return
    with database_served(DynamoDb(), request.param) as dynamodb:
        yield dynamodb


@pytest.fixture
def ledger(judged: Any) -> Iterator[Ledger]:
    """A table of its own in what the rules are put to."""
    made = Ledger(judged, None, Clock())
    if judged.meta.endpoint_url == ELSEWHERE:
        waiter = judged.get_waiter("table_exists")
        waiter.wait(TableName=made.table, WaiterConfig={"Delay": 1})
    yield made
    try:
        judged.delete_table(TableName=made.table)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ResourceNotFoundException"


# -- rules: items --------------------------------------------------------------------------------


def test_items_come_back_as_they_were_put(ledger: Ledger) -> None:
    """HowItWorks.NamingRulesDataTypes.html, every type; numbers lose needless digits."""
    values: dict[str, Any] = {
        "text": {"S": "Zürich ☃"},
        "empty": {"S": ""},
        "number": {"N": "12.5"},
        "bytes": {"B": b"\x00\xff"},
        "yes": {"BOOL": True},
        "none": {"NULL": True},
        "list": {"L": [{"S": "a"}, {"M": {"x": {"N": "1"}}}, {"L": []}]},
        "map": {"M": {}},
    }
    ledger.put("a", **values)
    assert ledger.get("a") == {**key("a"), **values}
    ledger.put("b", n={"N": "0012.500"}, big={"N": "1E3"}, names={"SS": ["x", "y"]})
    item = ledger.get("b") or {}
    assert item["n"] == {"N": "12.5"} and item["big"] == {"N": "1000"}
    assert sorted(item["names"]["SS"]) == ["x", "y"]
    assert ledger.get("c") is None


@pytest.mark.parametrize(
    "bad",
    [
        {"SS": []},
        {"SS": ["x", "x"]},
        {"NS": ["1", "1.0"]},
        {"N": "one"},
        {"N": "1" * 39},
        {"N": "1E126"},
        {"S": "x", "N": "1"},
    ],
    ids=[
        "empty-set",
        "twice-in-set",
        "twice-as-number",
        "word",
        "digits",
        "magnitude",
        "two-types",
    ],
)
def test_bad_values_are_refused(ledger: Ledger, bad: dict[str, Any]) -> None:
    """HowItWorks.NamingRulesDataTypes.html and Constraints.html."""
    refused(lambda: ledger.put("a", x=bad))
    assert ledger.get("a") is None


def test_keys_are_checked(ledger: Ledger) -> None:
    """Constraints.html: 1 to 2048 bytes of partition key, 1 to 1024 of sort key."""
    table = ledger.table
    put = ledger.dynamodb.put_item
    refused(lambda: put(TableName=table, Item={"PK": {"S": "a"}}))
    refused(lambda: put(TableName=table, Item={"PK": {"N": "1"}, "SK": {"S": "0"}}))
    refused(lambda: ledger.put(""))
    refused(lambda: ledger.put("a", "s" * 1025))
    refused(lambda: ledger.put("p" * 2049))
    ledger.put("p" * 2048, "s" * 1024)
    get = ledger.dynamodb.get_item
    refused(lambda: get(TableName=table, Key={"PK": {"S": "a"}}))
    refused(lambda: get(TableName=table, Key={**key("a"), "more": {"S": "x"}}))
    refused(lambda: get(TableName="no-such-table", Key=key("a")), "ResourceNotFoundException")


def test_an_item_has_at_most_400_kb(ledger: Ledger) -> None:
    """CapacityUnitCalculations.html: names count, and a list takes 3 bytes and 1 an element."""
    names = len("PK") + len("a") + len("SK") + len("0") + len("x")
    ledger.put("a", x="v" * (400 * 1024 - names))
    refused(lambda: ledger.put("a", x="v" * (400 * 1024 - names + 1)))
    ledger.put("b", x=["v" * (400 * 1024 - names - 4)])
    refused(lambda: ledger.put("b", x=["v" * (400 * 1024 - names - 3)]))
    refused(lambda: ledger.update("a", "SET y = :y", {":y": "more"}))
    assert len((ledger.get("a") or {})["x"]["S"]) == 400 * 1024 - names


def test_what_a_write_returns(ledger: Ledger) -> None:
    """API_PutItem.html, API_UpdateItem.html, API_DeleteItem.html: ReturnValues."""
    assert "Attributes" not in ledger.put("a", x="1", ReturnValues="ALL_OLD")
    old = ledger.put("a", x="2", y="2", ReturnValues="ALL_OLD")["Attributes"]
    assert old == {**key("a"), "x": {"S": "1"}}
    change, values = "SET x = :x, n = :n REMOVE y", {":x": "3", ":n": 1}
    answers = {}
    for wanted in ("ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW", "NONE"):
        ledger.put("a", x="2", y="2")
        answer = ledger.update("a", change, values, ReturnValues=wanted)
        answers[wanted] = answer.get("Attributes")
    assert answers == {
        "ALL_OLD": {**key("a"), "x": {"S": "2"}, "y": {"S": "2"}},
        "UPDATED_OLD": {"x": {"S": "2"}, "y": {"S": "2"}},
        "ALL_NEW": {**key("a"), "x": {"S": "3"}, "n": {"N": "1"}},
        "UPDATED_NEW": {"x": {"S": "3"}, "n": {"N": "1"}},
        "NONE": None,
    }
    refused(lambda: ledger.put("a", ReturnValues="ALL_NEW"))
    delete = ledger.dynamodb.delete_item
    gone = delete(TableName=ledger.table, Key=key("a"), ReturnValues="ALL_OLD")["Attributes"]
    assert gone["x"] == {"S": "3"} and ledger.get("a") is None
    delete(TableName=ledger.table, Key=key("a"))


# -- rules: expressions --------------------------------------------------------------------------

ITEM: dict[str, Any] = {
    "n": 5,
    "s": "abc",
    "b": b"\x01\x02",
    "yes": True,
    "nil": None,
    "l": ["x", 2, {"M": {"deep": {"S": "down"}}}],
    "m": {"M": {"in": {"N": "7"}}},
    "ss": {"SS": ["red", "blue"]},
    "dotted.name": "odd",
}
TRUE = [
    "attribute_exists(n) AND attribute_not_exists(absent)",
    "n = :five AND n <> :six AND n < :six AND n <= :five AND n > :four AND n >= :five",
    "absent <> :five",
    "n BETWEEN :four AND :six",
    "n IN (:four, :five)",
    "begins_with(s, :ab) AND contains(s, :bc)",
    "contains(ss, :red) AND contains(l, :x)",
    "attribute_type(m, :M) AND attribute_type(nil, :NULL)",
    "size(s) = :three AND size(l) = :three AND size(ss) < :three",
    "l[2].deep = :down AND m.#in = :seven",
    "#dotted = :odd",
    "NOT n = :six AND NOT (n = :four OR n = :six)",
    "n = :six OR n = :five AND s = :abc",
    "(n = :six OR n = :five) AND yes = :true",
    "n = :five and not n = :six or n between :four and :six",
    "NOT n > :ab",
]
FALSE = [
    "n > :five",
    "absent = :five",
    "absent < :five",
    "n = :abc",
    "n < :abc",
    "attribute_exists(m.absent)",
    "l[9] = :x",
    "contains(s, :six)",
    "begins_with(n, :ab)",
    "size(absent) = :three",
    "n = :five AND s = :ab",
    "NOT attribute_exists(n)",
]
REFUSED = [
    "",
    "n",
    "n =",
    "n = :undefined",
    "#undefined = :five",
    "n == :five",
    "n = :five AND",
    "(n = :five",
    "((n = :five))",
    "n = n",
    "attribute_exists(:five)",
    "unheard_of(n)",
    "begins_with(n, :five)",
    "begins_with(n)",
    "n BETWEEN :six AND :four",
    "n < :true",
    "attribute_type(n, :ab)",
    "data = :five",
    "status = :five",
]
VALUES: dict[str, Any] = {
    ":four": 4,
    ":five": 5,
    ":six": 6,
    ":three": 3,
    ":seven": 7,
    ":ab": "ab",
    ":bc": "bc",
    ":abc": "abc",
    ":red": "red",
    ":x": "x",
    ":M": "M",
    ":NULL": "NULL",
    ":down": "down",
    ":odd": "odd",
    ":true": True,
}


def words_of(expression: str) -> dict[str, Any]:
    """The names and values that an expression uses; not those that it must not find."""
    names = {"#in": "in", "#dotted": "dotted.name"}
    used = {name: name_ for name, name_ in names.items() if name in expression}
    known = [name for name in VALUES if any(word == name for word in _words(expression))]
    given: dict[str, Any] = {}
    if used:
        given["ExpressionAttributeNames"] = used
    if known:
        given["ExpressionAttributeValues"] = {name: valued(VALUES[name]) for name in known}
    return given


def _words(expression: str) -> list[str]:
    for sign in "(),":
        expression = expression.replace(sign, " ")
    return expression.split()


@pytest.mark.parametrize(
    ("expression", "holds"), [(e, True) for e in TRUE] + [(e, False) for e in FALSE]
)
def test_conditions(ledger: Ledger, expression: str, holds: bool) -> None:
    """Expressions.OperatorsAndFunctions.html, as a condition and as a filter."""
    ledger.put("a", **{name: valued(value) for name, value in ITEM.items()})
    given = words_of(expression)

    def delete() -> None:
        ledger.dynamodb.delete_item(
            TableName=ledger.table, Key=key("a"), ConditionExpression=expression, **given
        )

    values = {**given.get("ExpressionAttributeValues", {}), ":pk": {"S": "a"}}
    filtered = ledger.dynamodb.query(
        TableName=ledger.table,
        KeyConditionExpression="PK = :pk",
        FilterExpression=expression,
        **{**given, "ExpressionAttributeValues": values},
    )
    assert (filtered["Count"], filtered["ScannedCount"]) == (int(holds), 1)
    if holds:
        delete()
    else:
        refused(delete, "ConditionalCheckFailedException")
    assert (ledger.get("a") is None) == holds


@pytest.mark.parametrize("expression", REFUSED)
def test_bad_conditions_are_refused(ledger: Ledger, expression: str) -> None:
    """Expressions.OperatorsAndFunctions.html, ReservedWords.html."""
    ledger.put("a", n=5)
    options = {"ConditionExpression": expression, **words_of(expression)}
    refused(lambda: ledger.put("a", n=6, **options))
    assert (ledger.get("a") or {})["n"] == {"N": "5"}


def test_names_and_values_that_are_not_used_are_refused(ledger: Ledger) -> None:
    """Expressions.ExpressionAttributeNames.html: "must be used in the expression"."""
    more = {"ExpressionAttributeValues": {":a": {"N": "1"}, ":b": {"N": "1"}}}
    refused(lambda: ledger.put("a", ConditionExpression="n = :a", **more))
    names = {"ExpressionAttributeNames": {"#n": "n", "#m": "m"}}
    refused(lambda: ledger.put("a", ConditionExpression="attribute_not_exists(#n)", **names))
    refused(lambda: ledger.put("a", ExpressionAttributeNames={"#n": "n"}))


@pytest.mark.parametrize(
    ("expression", "values", "becomes"),
    [
        ("SET n = n + :a, m = :b - n", {":a": 2, ":b": 10}, {"n": 7, "m": 5}),
        ("SET n = if_not_exists(n, :z) + :a", {":z": 0, ":a": 1}, {"n": 6}),
        ("SET c = if_not_exists(c, :z) + :a", {":z": 0, ":a": 1}, {"c": 1}),
        ("SET l = list_append(l, :l)", {":l": ["c"]}, {"l": ["a", "b", "c"]}),
        ("SET l = list_append(:l, l)", {":l": ["c"]}, {"l": ["c", "a", "b"]}),
        ("SET l[0] = :x, l[9] = :y", {":x": "A", ":y": "Z"}, {"l": ["A", "b", "Z"]}),
        ("REMOVE l[0]", None, {"l": ["b"]}),
        ("REMOVE l[0], l[1]", None, {"l": []}),
        ("REMOVE n, absent SET s = n", None, {"n": None, "s": 5}),
        (
            "SET o.i = :x, o.j = o.k",
            {":x": 1},
            {"o": {"M": {"i": {"N": "1"}, "k": {"N": "2"}, "j": {"N": "2"}}}},
        ),
        ("REMOVE o.k", None, {"o": {"M": {}}}),
        ("ADD n :a, c :b", {":a": 1, ":b": -2}, {"n": 6, "c": -2}),
        ("ADD colours :c", {":c": {"SS": ["blue"]}}, {"colours": {"SS": ["blue", "red"]}}),
        ("ADD shapes :c", {":c": {"SS": ["blue"]}}, {"shapes": {"SS": ["blue"]}}),
        ("DELETE colours :c", {":c": {"SS": ["red", "x"]}}, {"colours": None}),
        ("set n = :a remove s add c :a", {":a": 1}, {"n": 1, "s": None, "c": 1}),
        ("SET n = :a, m = n", {":a": 1}, {"n": 1, "m": 5}),
    ],
)
def test_updates(ledger: Ledger, expression: str, values: Any, becomes: dict[str, Any]) -> None:
    """Expressions.UpdateExpressions.html; all values are those before the update."""
    before = {"n": 5, "s": "t", "l": ["a", "b"], "o": {"M": {"k": {"N": "2"}}}}
    colours = {"SS": ["red"]}
    ledger.put("a", **before, colours=colours)
    new = ledger.update("a", expression, values, ReturnValues="ALL_NEW")["Attributes"]
    for one in new.values():
        one.get("SS", []).sort()
    expected: dict[str, Any] = {**before, "colours": colours, **becomes}
    removed = {name for name, value in becomes.items() if value is None}
    assert new == {
        **key("a"),
        **{name: valued(value) for name, value in expected.items() if name not in removed},
    }


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("SET n = missing", None),
        ("SET n = absent + :a", {":a": 1}),
        ("SET n = s + :a", {":a": 1}),
        ("SET l = list_append(l, :a)", {":a": 1}),
        ("SET absent.x = :a", {":a": 1}),
        ("SET SK = :a", {":a": "1"}),
        ("SET n = :a, n = :b", {":a": 1, ":b": 2}),
        ("SET o = :a, o.k = :b", {":a": 1, ":b": 2}),
        ("SET n = :a SET s = :a", {":a": 1}),
        ("ADD s :a", {":a": 1}),
        ("ADD n :a", {":a": "text"}),
        ("DELETE n :a", {":a": 1}),
        ("SET since = :a", {":a": "not a number, and an index's key"}),
        ("n = :a", {":a": 1}),
        ("SET name = :a", {":a": 1}),
    ],
)
def test_bad_updates_are_refused(ledger: Ledger, expression: str, values: Any) -> None:
    """Expressions.UpdateExpressions.html, ReservedWords.html; nothing is changed."""
    ledger.put("a", n=5, s="t", l=["a"], o={"M": {"k": {"N": "2"}}})
    before = ledger.get("a")
    refused(lambda: ledger.update("a", expression, values))
    assert ledger.get("a") == before


def test_an_update_makes_the_item(ledger: Ledger) -> None:
    """API_UpdateItem.html: "adds a new item to the table if it does not already exist"."""
    ledger.update("a", "ADD n :one", {":one": 1})
    ledger.update("a", "ADD n :one", {":one": 1})
    assert ledger.get("a") == {**key("a"), "n": {"N": "2"}}
    refused(
        lambda: ledger.update(
            "b", "SET n = :one", {":one": 1}, ConditionExpression="attribute_exists(PK)"
        ),
        "ConditionalCheckFailedException",
    )


def test_projections(ledger: Ledger) -> None:
    """Expressions.ProjectionExpressions.html: parts of maps and lists keep their shape."""
    ledger.put("a", n=5, l=["x", "y", {"M": {"deep": {"S": "down"}, "o": {"S": "o"}}}], s="t")
    found = ledger.get("a", ProjectionExpression="n, l[0], l[2].deep, absent")
    assert found == {
        "n": {"N": "5"},
        "l": {"L": [{"S": "x"}, {"M": {"deep": {"S": "down"}}}]},
    }
    refused(lambda: ledger.get("a", ProjectionExpression="l, l[0]"))


def test_the_item_that_failed_a_condition(ledger: Ledger) -> None:
    """API_PutItem.html: ReturnValuesOnConditionCheckFailure."""
    ledger.put("a", n=5)
    condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(PK)"}
    assert "Item" not in refused(
        lambda: ledger.put("a", **condition), "ConditionalCheckFailedException"
    )
    condition["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    told = refused(lambda: ledger.put("a", **condition), "ConditionalCheckFailedException")
    assert told["Item"] == {**key("a"), "n": {"N": "5"}}


# -- rules: queries ------------------------------------------------------------------------------


def sort_keys(answer: Any) -> list[str]:
    return [item["SK"]["S"] for item in answer["Items"]]


@pytest.mark.parametrize(
    ("condition", "values", "found"),
    [
        ("PK = :p", {}, "abcde"),
        ("PK = :p AND SK = :b", {":b": "b"}, "b"),
        ("PK = :p AND SK < :b", {":b": "b"}, "a"),
        ("PK = :p AND SK <= :b", {":b": "b"}, "ab"),
        ("PK = :p AND SK > :b", {":b": "b"}, "cde"),
        ("SK >= :b AND PK = :p", {":b": "b"}, "bcde"),
        ("PK = :p AND SK BETWEEN :b AND :d", {":b": "b", ":d": "d"}, "bcd"),
        ("PK = :p AND begins_with(SK, :b)", {":b": "b"}, "b"),
        ("PK = :p AND SK = :b", {":b": "none"}, ""),
    ],
)
def test_key_conditions(ledger: Ledger, condition: str, values: Any, found: str) -> None:
    """Query.KeyConditionExpressions.html."""
    for name in "dbaec":
        ledger.put("p", name)
        ledger.put("q", name)
    values = {":p": "p", **values}
    assert sort_keys(ledger.query(condition, values)) == list(found)
    answer = ledger.query(condition, values, ScanIndexForward=False)
    assert sort_keys(answer) == list(found)[::-1]
    count = ledger.query(condition, values, Select="COUNT")
    assert count["Count"] == len(found) and "Items" not in count


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ("SK = :b", {":b": "b"}),
        ("PK > :p", {":p": "p"}),
        ("PK = :p AND other = :b", {":p": "p", ":b": "b"}),
        ("PK = :p OR SK = :b", {":p": "p", ":b": "b"}),
        ("PK = :p AND SK <> :b", {":p": "p", ":b": "b"}),
        ("PK = :p AND SK = :b", {":p": "p", ":b": 1}),
        ("PK = :p AND contains(SK, :b)", {":p": "p", ":b": "b"}),
    ],
)
def test_bad_key_conditions_are_refused(ledger: Ledger, condition: str, values: Any) -> None:
    """Query.KeyConditionExpressions.html."""
    refused(lambda: ledger.query(condition, values))


def test_numbers_are_ordered_as_numbers(ledger: Ledger) -> None:
    """Query: "If the data type of the sort key is Number, the results are in numeric order"."""
    for at in (10, 9, -1, 100, 2.5):
        ledger.put("a", str(at), state="live", since=at)
    answer = ledger.query(
        "#s = :s AND since > :z",
        {":s": "live", ":z": 0},
        IndexName="by-state",
        ExpressionAttributeNames={"#s": "state"},
    )
    assert sort_keys(answer) == ["2.5", "9", "10", "100"]


def test_pages_by_limit(ledger: Ledger) -> None:
    """Query.Pagination.html: each page goes on after the last key, filtered or not."""
    for number in range(7):
        ledger.put("p", str(number), n=number)
    pages: list[list[str]] = []
    start: dict[str, Any] = {}
    while True:
        answer = ledger.query(
            "PK = :p", {":p": "p", ":odd": 3}, Limit=3, FilterExpression="n <> :odd", **start
        )
        pages.append(sort_keys(answer))
        if "LastEvaluatedKey" not in answer:
            break
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
    assert pages == [["0", "1", "2"], ["4", "5"], ["6"]]
    # "If LastEvaluatedKey is not empty, it does not necessarily mean that there is more data".
    full = ledger.query("PK = :p", {":p": "p"}, Limit=7)
    rest = ledger.query("PK = :p", {":p": "p"}, ExclusiveStartKey=full["LastEvaluatedKey"])
    assert rest["Items"] == [] and "LastEvaluatedKey" not in rest
    backward = ledger.query("PK = :p", {":p": "p"}, Limit=2, ScanIndexForward=False)
    assert sort_keys(backward) == ["6", "5"]
    more = {"ExclusiveStartKey": backward["LastEvaluatedKey"], "ScanIndexForward": False}
    assert sort_keys(ledger.query("PK = :p", {":p": "p"}, Limit=2, **more)) == ["4", "3"]
    # The start need not be there any more.
    gone = {"ExclusiveStartKey": key("p", "3x")}
    assert sort_keys(ledger.query("PK = :p", {":p": "p"}, **gone)) == ["4", "5", "6"]
    refused(lambda: ledger.query("PK = :p", {":p": "p"}, ExclusiveStartKey=key("q", "1")))


def test_a_page_has_1_mb(ledger: Ledger) -> None:
    """Query.Pagination.html: a page is 1 MB before it is filtered."""
    for number in range(4):
        ledger.put("p", str(number), x="v" * 390_000)
    first = ledger.query("PK = :p", {":p": "p", ":no": "no"}, FilterExpression="x = :no")
    assert first["Count"] == 0 and first["ScannedCount"] < 4
    rest = ledger.query("PK = :p", {":p": "p"}, ExclusiveStartKey=first["LastEvaluatedKey"])
    assert first["ScannedCount"] + rest["Count"] == 4
    assert "LastEvaluatedKey" not in rest


def test_a_filter_names_no_key(ledger: Ledger) -> None:
    """Query.FilterExpression.html: "cannot contain partition key or sort key attributes"."""
    refused(lambda: ledger.query("PK = :p", {":p": "p"}, FilterExpression="SK = :p"))


def test_indexes(ledger: Ledger) -> None:
    """GSI.html: sparse, projected, not unique, never read consistently."""
    ledger.put("a", state="live", since=1, x="x")
    ledger.put("b", state="live", since=1, x="x")
    ledger.put("c", state="live", x="x")
    ledger.put("d", state="gone", since=2)
    ledger.put("e")
    names: Any = {"ExpressionAttributeNames": {"#s": "state"}}

    def live(index: str, **more: Any) -> Any:
        return ledger.query("#s = :s", {":s": "live"}, IndexName=index, **names, **more)

    assert [item["PK"]["S"] for item in live("by-state")["Items"]] == ["a", "b"]
    found = live("states")["Items"]
    assert sorted(item["PK"]["S"] for item in found) == ["a", "b", "c"]
    assert all(item.keys() == {"PK", "SK", "state"} for item in found)
    first = live("by-state", Limit=1)
    assert first["LastEvaluatedKey"].keys() == {"PK", "SK", "state", "since"}
    second = live("by-state", ExclusiveStartKey=first["LastEvaluatedKey"])
    assert [item["PK"]["S"] for item in second["Items"]] == ["b"]
    ledger.update("a", "SET #s = :s", {":s": "gone"}, **names)
    ledger.dynamodb.delete_item(TableName=ledger.table, Key=key("b"))
    assert live("by-state")["Items"] == []
    refused(lambda: live("by-state", ConsistentRead=True))
    refused(lambda: live("no-such-index"))
    refused(lambda: live("states", Select="ALL_ATTRIBUTES"))
    refused(lambda: ledger.put("f", state=1))
    refused(lambda: ledger.put("f", state=""))


def test_scan(ledger: Ledger) -> None:
    """API_Scan.html: everything once, page by page."""
    for number in range(10):
        ledger.put(f"p{number % 4}", str(number))
    found: list[str] = []
    start: dict[str, Any] = {}
    while True:
        answer = ledger.dynamodb.scan(TableName=ledger.table, Limit=3, **start)
        found += sort_keys(answer)
        if "LastEvaluatedKey" not in answer:
            break
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
    assert sorted(found) == [str(number) for number in range(10)]


# -- rules: batches ------------------------------------------------------------------------------


def test_batches(ledger: Ledger) -> None:
    """API_BatchWriteItem.html (25, no item twice), API_BatchGetItem.html (100, no key twice)."""

    def write(*names: str) -> Any:
        puts = [{"PutRequest": {"Item": key(name)}} for name in names]
        return ledger.dynamodb.batch_write_item(RequestItems={ledger.table: puts})

    def get(*names: str) -> Any:
        asked = {"Keys": [key(name) for name in names], "ConsistentRead": True}
        answer = ledger.dynamodb.batch_get_item(RequestItems={ledger.table: asked})
        assert answer["UnprocessedKeys"] == {}
        return sorted(item["PK"]["S"] for item in answer["Responses"][ledger.table])

    names = [f"{number:03d}" for number in range(101)]
    assert write(*names[:25])["UnprocessedItems"] == {}
    refused(lambda: write(*names[30:56]))
    refused(lambda: write("x", "x"))
    assert get(*names[:100]) == names[:25]
    refused(lambda: get(*names))
    refused(lambda: get("000", "000"))
    delete = [{"DeleteRequest": {"Key": key("000")}}, {"PutRequest": {"Item": key("new")}}]
    ledger.dynamodb.batch_write_item(RequestItems={ledger.table: delete})
    assert get("000", "new") == ["new"]


def test_a_batch_has_16_mb(ledger: Ledger) -> None:
    """API_BatchGetItem.html: what is beyond 16 MB comes back as UnprocessedKeys."""
    names = [f"{number:02d}" for number in range(45)]
    for name in names:
        ledger.put(name, x="v" * 380_000)
    asked: dict[str, Any] = {ledger.table: {"Keys": [key(name) for name in names]}}
    found: list[str] = []
    rounds = 0
    while asked:
        answer = ledger.dynamodb.batch_get_item(RequestItems=asked)
        found += [item["PK"]["S"] for item in answer["Responses"][ledger.table]]
        asked = answer["UnprocessedKeys"]
        rounds += 1
    assert sorted(found) == names and rounds == 2


# -- rules: transactions -------------------------------------------------------------------------


def commit(ledger: Ledger, position: int, name: str) -> list[dict[str, Any]]:
    """What an event store commits: the head at `position`, a stream's commit and a check."""
    return [
        ledger.action(
            "Update",
            "HEAD",
            UpdateExpression="SET pos = :new",
            ConditionExpression="pos = :seen",
            ExpressionAttributeValues={":seen": valued(position), ":new": valued(position + 1)},
        ),
        ledger.put_action(name, ConditionExpression="attribute_not_exists(PK)"),
        ledger.action("ConditionCheck", "OPEN", ConditionExpression="attribute_exists(PK)"),
        ledger.action("Delete", "SPENT"),
    ]


def test_a_transaction_is_done_whole_or_not(ledger: Ledger) -> None:
    """API_TransactWriteItems.html: all or none, and one reason for each action, in order."""
    ledger.put("HEAD", pos=0)
    ledger.put("SPENT")
    assert codes(lambda: ledger.transact(*commit(ledger, 0, "c1"))) == [
        "None",
        "None",
        "ConditionalCheckFailed",
        "None",
    ]
    assert ledger.get("c1") is None and ledger.get("SPENT") is not None
    ledger.put("OPEN")
    ledger.transact(*commit(ledger, 0, "c1"))
    assert (ledger.get("HEAD") or {})["pos"] == {"N": "1"}
    assert ledger.get("c1") is not None and ledger.get("SPENT") is None
    assert codes(lambda: ledger.transact(*commit(ledger, 0, "c1"))) == [
        "ConditionalCheckFailed",
        "ConditionalCheckFailed",
        "None",
        "None",
    ]


def test_a_reason_tells_the_item(ledger: Ledger) -> None:
    """API_TransactWriteItems.html: ReturnValuesOnConditionCheckFailure of an action."""
    ledger.put("a", n=5)
    condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(PK)"}
    told = {**condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    first, second, third = reasons(
        lambda: ledger.transact(
            ledger.put_action("a", **told),
            ledger.put_action("b", **told),
            ledger.put_action("a", "1", **condition),
        )
    )
    assert first["Item"] == {**key("a"), "n": {"N": "5"}}
    assert (first["Code"], second["Code"], third["Code"]) == (
        "ConditionalCheckFailed",
        "None",
        "None",
    )


def test_an_update_that_cannot_be_done_cancels(ledger: Ledger) -> None:
    """API_TransactWriteItems.html, cancellation reasons: ValidationError."""
    ledger.put("a", s="text")
    ledger.put("big", x="v" * (399 * 1024))
    one = {":one": {"N": "1"}}
    assert codes(
        lambda: ledger.transact(
            ledger.put_action("b"),
            ledger.action(
                "Update", "a", UpdateExpression="SET s = s + :one", ExpressionAttributeValues=one
            ),
        )
    ) == ["None", "ValidationError"]
    more = {":y": {"S": "v" * 2048}}
    assert codes(
        lambda: ledger.transact(
            ledger.action(
                "Update", "big", UpdateExpression="SET y = :y", ExpressionAttributeValues=more
            )
        )
    ) == ["ValidationError"]
    assert ledger.get("b") is None


def test_a_transaction_has_100_actions_and_no_item_twice(ledger: Ledger) -> None:
    """API_TransactWriteItems.html; the same item in two actions is refused, not cancelled."""
    puts = [ledger.put_action("p", f"{number:03d}") for number in range(101)]
    ledger.transact(*puts[:100])
    assert ledger.query("PK = :p", {":p": "p"}, Select="COUNT")["Count"] == 100
    refused(lambda: ledger.transact(*puts))
    refused(lambda: ledger.transact(ledger.put_action("a"), ledger.action("Delete", "a")))
    absent = {"Put": {"TableName": "no-such-table", "Item": key("a")}}
    refused(lambda: ledger.transact(ledger.put_action("a"), absent), "ResourceNotFoundException")
    refused(lambda: ledger.transact(ledger.action("ConditionCheck", "a", ConditionExpression="")))
    assert ledger.get("a") is None


def test_a_transaction_has_4_mb(ledger: Ledger) -> None:
    """API_TransactWriteItems.html: "cannot exceed 4 MB" in all."""
    puts = [ledger.put_action("p", str(number), x="v" * 390_000) for number in range(11)]
    refused(lambda: ledger.transact(*puts))
    assert ledger.query("PK = :p", {":p": "p"})["Count"] == 0
    ledger.transact(*puts[:10])


def test_a_token_is_honoured_once(ledger: Ledger) -> None:
    """API_TransactWriteItems.html: ClientRequestToken."""
    add = ledger.action(
        "Update", "n", UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": {"N": "1"}}
    )
    only_new = ledger.put_action("a", ConditionExpression="attribute_not_exists(PK)")
    token = next(NAMES)[-36:]
    for _ in range(3):
        ledger.transact(add, only_new, ClientRequestToken=token)
    assert (ledger.get("n") or {})["n"] == {"N": "1"}
    refused(
        lambda: ledger.transact(add, ClientRequestToken=token),
        "IdempotentParameterMismatchException",
    )
    # Without a token of its own a client makes a new one for each call.
    ledger.transact(add)
    assert (ledger.get("n") or {})["n"] == {"N": "2"}
    # A transaction that was cancelled has done nothing that its token could stand for.
    other = next(NAMES)[-36:]
    refused(
        lambda: ledger.transact(only_new, ClientRequestToken=other), "TransactionCanceledException"
    )
    ledger.dynamodb.delete_item(TableName=ledger.table, Key=key("a"))
    ledger.transact(only_new, ClientRequestToken=other)
    assert ledger.get("a") is not None


def test_a_token_in_many_threads_is_done_once(ledger: Ledger) -> None:
    """Developer Guide, transaction-apis.html, Idempotency; sent again while under way."""
    add = ledger.action(
        "Update", "n", UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": {"N": "1"}}
    )
    token = next(NAMES)[-36:]
    failed: list[str] = []

    def send() -> None:
        try:
            ledger.transact(add, ClientRequestToken=token)
        except ClientError as error:
            failed.append(error.response["Error"]["Code"])

    in_threads(send, 8)
    assert set(failed) <= {"TransactionInProgressException", "TransactionCanceledException"}
    assert (ledger.get("n") or {})["n"] == {"N": "1"}


def test_transactions_of_many_threads_lose_nothing(ledger: Ledger) -> None:
    """transaction-apis.html, isolation: each sees all of another or none of it."""
    ledger.put("HEAD", pos=0)
    ledger.put("OPEN")
    conflicts = itertools.count()

    def write() -> None:
        for number in range(10):
            while True:
                position = int((ledger.get("HEAD") or {})["pos"]["N"])
                name = f"{threading.get_ident()}-{number}"
                try:
                    ledger.transact(*commit(ledger, position, name)[:3])
                except ClientError as error:
                    assert error.response["Error"]["Code"] == "TransactionCanceledException"
                    next(conflicts)
                else:
                    break

    in_threads(write, 4)
    assert (ledger.get("HEAD") or {})["pos"] == {"N": "40"}
    assert ledger.dynamodb.scan(TableName=ledger.table, Select="COUNT")["Count"] == 42


def in_threads(work: Callable[[], None], number: int) -> None:
    """Do work in so many threads at once; an error in one fails the test."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(number)

    def run() -> None:
        try:
            barrier.wait(10)
            work()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and not any(thread.is_alive() for thread in threads)


def test_transact_get(ledger: Ledger) -> None:
    """API_TransactGetItems.html: in the order asked, an empty answer for what is not there."""
    ledger.put("a", x="1", y="2")
    gets = [
        {"Get": {"TableName": ledger.table, "Key": key(name), "ProjectionExpression": "x"}}
        for name in ("b", "a")
    ]
    answer = ledger.dynamodb.transact_get_items(TransactItems=gets)
    assert answer["Responses"] == [{}, {"Item": {"x": {"S": "1"}}}]
    many = [{"Get": {"TableName": ledger.table, "Key": key(str(n))}} for n in range(101)]
    refused(lambda: ledger.dynamodb.transact_get_items(TransactItems=many))


# -- rules: capacity -----------------------------------------------------------------------------


def test_capacity_units(ledger: Ledger) -> None:
    """read-write-operations.html: 1 KB a write, 4 KB a read, half when eventually consistent,
    twice in a transaction, 1 more for each index that follows."""

    def units(answer: Any) -> float:
        told = answer["ConsumedCapacity"]
        return sum(one["CapacityUnits"] for one in (told if isinstance(told, list) else [told]))

    total: dict[str, Any] = {"ReturnConsumedCapacity": "TOTAL"}
    small, large = "v" * 500, "v" * 5000
    assert units(ledger.put("a", x=small, **total)) == 1
    assert units(ledger.put("b", x=large, **total)) == 5
    assert units(ledger.put("b", x=small, **total)) == 5
    ledger.put("b", x=large)
    assert units(ledger.put("c", state="live", **total)) == 2

    def get(name: str, **more: Any) -> float:
        return units(
            ledger.dynamodb.get_item(TableName=ledger.table, Key=key(name), **total, **more)
        )

    assert get("b") == 1 and get("b", ConsistentRead=True) == 2
    assert get("a") == 0.5 and get("missing", ConsistentRead=True) == 1
    for number in range(10):
        ledger.put("q", str(number), x=small)
    found = ledger.query("PK = :q", {":q": "q"}, ConsistentRead=True, **total)
    assert units(found) == 2
    actions = [ledger.put_action("t", "0", x=small), ledger.put_action("t", "1", x=large)]
    token = next(NAMES)[-36:]
    assert units(ledger.transact(*actions, ClientRequestToken=token, **total)) == 12
    # The second time it is read: 2 units for each 4 KB.
    assert units(ledger.transact(*actions, ClientRequestToken=token, **total)) == 6
    gets = [{"Get": {"TableName": ledger.table, "Key": key("t", "1")}}]
    assert units(ledger.dynamodb.transact_get_items(TransactItems=gets, **total)) == 4


# -- rules: tables -------------------------------------------------------------------------------


def test_tables(ledger: Ledger) -> None:
    """API_CreateTable.html, API_DescribeTable.html, API_UpdateTable.html, API_DeleteTable.html."""
    dynamodb, table = ledger.dynamodb, ledger.table
    told = dynamodb.describe_table(TableName=table)["Table"]
    assert told["TableStatus"] == "ACTIVE"
    assert told["KeySchema"] == schema("PK", "SK")
    assert told["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert told["DeletionProtectionEnabled"] is False
    assert {index["IndexName"] for index in told["GlobalSecondaryIndexes"]} == {
        "by-state",
        "states",
    }
    assert table in dynamodb.list_tables()["TableNames"]
    refused(lambda: dynamodb.create_table(**shape(table)), "ResourceInUseException")
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)
    refused(lambda: dynamodb.delete_table(TableName=table))
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
    dynamodb.delete_table(TableName=table)
    refused(lambda: dynamodb.describe_table(TableName=table), "ResourceNotFoundException")
    refused(lambda: ledger.get("a"), "ResourceNotFoundException")


@pytest.mark.parametrize(
    "change",
    [
        {"TableName": "no spaces"},
        {"BillingMode": "PROVISIONED"},
        {"ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}},
        {"GlobalSecondaryIndexes": []},
        {"KeySchema": schema("other")},
        {"KeySchema": [{"AttributeName": "PK", "KeyType": "RANGE"}]},
    ],
    ids=["name", "no-throughput", "throughput", "unused-attributes", "undefined-key", "no-hash"],
)
def test_bad_tables_are_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    """API_CreateTable.html."""
    asked = shape(next(NAMES), **change)
    if not asked["GlobalSecondaryIndexes"]:
        del asked["GlobalSecondaryIndexes"]
    refused(lambda: ledger.dynamodb.create_table(**asked))


def test_billing_and_throughput(ledger: Ledger) -> None:
    """API_UpdateTable.html: BillingMode with the throughput that it needs."""
    dynamodb, table = ledger.dynamodb, ledger.table
    refused(lambda: dynamodb.update_table(TableName=table, BillingMode="PROVISIONED"))
    units = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6}
    updates = [
        {"Update": {"IndexName": name, "ProvisionedThroughput": units}}
        for name in ("by-state", "states")
    ]
    dynamodb.update_table(
        TableName=table,
        BillingMode="PROVISIONED",
        ProvisionedThroughput=units,
        GlobalSecondaryIndexUpdates=updates,
    )
    told = dynamodb.describe_table(TableName=table)["Table"]
    assert units.items() <= told["ProvisionedThroughput"].items()
    for index in told["GlobalSecondaryIndexes"]:
        assert units.items() <= index["ProvisionedThroughput"].items()


def test_backups_time_to_live_and_tags(ledger: Ledger) -> None:
    """API_UpdateContinuousBackups.html, API_UpdateTimeToLive.html, API_TagResource.html."""
    dynamodb, table = ledger.dynamodb, ledger.table

    def recovery() -> str:
        told = dynamodb.describe_continuous_backups(TableName=table)
        backups = told["ContinuousBackupsDescription"]
        return str(backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"])

    assert recovery() == "DISABLED"
    dynamodb.update_continuous_backups(
        TableName=table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )
    assert recovery() == "ENABLED"
    refused(
        lambda: dynamodb.describe_continuous_backups(TableName="no-such-table"),
        "TableNotFoundException",
    )
    wanted = {"Enabled": True, "AttributeName": "ttl"}
    dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=wanted)
    told = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert told["AttributeName"] == "ttl" and told["TimeToLiveStatus"] in ("ENABLING", "ENABLED")
    refused(lambda: dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=wanted))
    arn = dynamodb.describe_table(TableName=table)["Table"]["TableArn"]
    dynamodb.tag_resource(ResourceArn=arn, Tags=[{"Key": "owner", "Value": "ops"}])
    assert dynamodb.list_tags_of_resource(ResourceArn=arn)["Tags"] == [
        {"Key": "owner", "Value": "ops"}
    ]


# -- the stand-in's clock and settings --------------------------------------------------------


def test_a_token_is_forgotten_after_ten_minutes(ours: Ledger) -> None:
    """API_TransactWriteItems.html: "valid for 10 minutes after the first request ... completed"."""
    add = ours.action(
        "Update", "n", UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": {"N": "1"}}
    )
    for moved in (0, 599, 1):
        ours.clock.now += moved
        ours.transact(add, ClientRequestToken="token")
    assert (ours.get("n") or {})["n"] == {"N": "2"}


def live(ledger: Ledger) -> list[str]:
    answer = ledger.query(
        "#s = :s",
        {":s": "live"},
        IndexName="states",
        ExpressionAttributeNames={"#s": "state"},
    )
    return sorted(item["PK"]["S"] for item in answer["Items"])


def test_an_index_lags(ours: Ledger) -> None:
    """GSI.html: "propagated ... within a fraction of a second, under normal conditions"; the
    changes of one transaction one by one (transaction-apis.html)."""
    ours.stand_in.index_lag = 10.0
    ours.transact(ours.put_action("a", state="live"), ours.put_action("b", state="live"))
    seen = []
    for _ in range(3):
        seen.append(live(ours))
        ours.clock.now += 5
    assert seen == [[], ["a"], ["a", "b"]]
    # A later change of an item never shows before an earlier one.
    ours.put("b", state="gone")
    ours.stand_in.index_lag = 0.0
    ours.put("b", state="live")
    assert live(ours) == ["a", "b"]
    ours.clock.now += 10
    assert live(ours) == ["a", "b"]


def test_reads_may_be_stale(ours: Ledger) -> None:
    """HowItWorks.ReadConsistency.html: an eventually consistent read "might not reflect the
    results of a recently completed write operation"."""
    ours.put("a", n=1)
    ours.put("a", n=2)
    ours.stand_in.stale_reads = True
    ours.transact(ours.put_action("a", n=3), ours.put_action("a", "1"), ours.action("Delete", "b"))

    def both(**options: Any) -> Any:
        item = ours.get("a", **options) or {}
        rows = ours.query("PK = :p", {":p": "a"}, **options)
        return item["n"]["N"], sort_keys(rows)

    assert both(ConsistentRead=True) == ("3", ["0", "1"])
    assert both(ConsistentRead=False) == ("2", ["0"])
    ours.put("c")
    assert both(ConsistentRead=False) == ("3", ["0", "1"])
    keys: dict[str, Any] = {"Keys": [key("c")]}
    ask = ours.dynamodb.batch_get_item
    assert ask(RequestItems={ours.table: keys})["Responses"][ours.table] == []
    keys["ConsistentRead"] = True
    assert ask(RequestItems={ours.table: keys})["Responses"][ours.table] == [key("c")]
    assert both(ConsistentRead=True) == ("3", ["0", "1"])


def test_small_pages(ours: Ledger) -> None:
    """A page may be made small, so that a store that reads only one is caught."""
    for number in range(5):
        ours.put("p", str(number), x="v" * 100)
    ours.stand_in.page_size = 250
    answer = ours.query("PK = :p", {":p": "p"})
    assert sort_keys(answer) == ["0", "1"] and answer["LastEvaluatedKey"] == key("p", "1")


def test_a_table_takes_its_time(ours: Ledger) -> None:
    """API_CreateTable.html: CREATING, and usable when it is ACTIVE; API_DeleteTable.html."""
    ours.stand_in.table_delay = 5.0
    dynamodb, table = ours.dynamodb, next(NAMES)
    made = dynamodb.create_table(**shape(table))["TableDescription"]
    assert made["TableStatus"] == "CREATING"

    def status() -> str:
        return str(dynamodb.describe_table(TableName=table)["Table"]["TableStatus"])

    assert status() == "CREATING"
    refused(lambda: dynamodb.get_item(TableName=table, Key=key("a")), "ResourceNotFoundException")
    refused(lambda: dynamodb.delete_table(TableName=table), "ResourceInUseException")
    ours.clock.now += 5
    assert status() == "ACTIVE"
    dynamodb.put_item(TableName=table, Item=key("a"))
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
    assert status() == "UPDATING"
    ours.clock.now += 5
    dynamodb.delete_table(TableName=table)
    assert status() == "DELETING"
    refused(lambda: dynamodb.create_table(**shape(table)), "ResourceInUseException")
    ours.clock.now += 5
    refused(status, "ResourceNotFoundException")


def test_regions_share_nothing() -> None:
    database = DynamoDb(Clock())
    here, there = client(database), client(database, region="eu-west-1")
    here.create_table(**shape("mine"))
    refused(lambda: there.describe_table(TableName="mine"), "ResourceNotFoundException")
    assert there.list_tables()["TableNames"] == []


def test_what_is_old_is_deleted_when_told(ours: Ledger) -> None:
    """TTL.html: expired items are read until they are deleted, some time later."""
    ours.dynamodb.update_time_to_live(
        TableName=ours.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )
    ours.put("old", ttl=int(ours.clock.now) + 60, state="live")
    ours.put("never", ttl="not a number", state="live")
    assert ours.stand_in.expire() == 0
    ours.clock.now += 61
    assert live(ours) == ["never", "old"]
    assert ours.stand_in.expire() == 1
    assert live(ours) == ["never"]


# -- the stand-in's faults and record --------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ({"kind": "throttle"}, "ThrottlingException", 400),
        ({"kind": "e500"}, "InternalServerError", 500),
        (
            {"kind": "error", "code": "ProvisionedThroughputExceededException"},
            "ProvisionedThroughputExceededException",
            400,
        ),
        ({"kind": "error", "code": "AccessDeniedException"}, "AccessDeniedException", 400),
        ({"kind": "error", "code": "ExpiredTokenException"}, "ExpiredTokenException", 400),
        ({"kind": "error", "code": "ResourceNotFoundException"}, "ResourceNotFoundException", 400),
    ],
)
def test_errors_on_request(ours: Ledger, fault: dict[str, Any], code: str, status: int) -> None:
    """The 2nd call from now on fails, once, and has done nothing."""
    ours.stand_in.add_fault(action="PutItem", from_call=2, **fault)
    ours.put("a")
    answer = refused(lambda: ours.put("b"), code)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert ours.get("b") is None
    ours.put("b")
    assert [call.outcome for call in ours.stand_in.calls if call.action == "PutItem"] == [
        "ok",
        fault["kind"],
        "ok",
    ]


def test_conflicts_on_request(ours: Ledger) -> None:
    """API_TransactWriteItems.html: TransactionConflict among the reasons, in order."""
    ours.stand_in.add_fault(
        "cancelled", action="TransactWriteItems", reasons=["None", "TransactionConflict"]
    )
    actions = [ours.put_action(name) for name in "abc"]
    assert codes(lambda: ours.transact(*actions)) == ["None", "TransactionConflict", "None"]
    assert ours.get("a") is None
    ours.transact(*actions)


def test_answers_that_are_lost(ours: Ledger) -> None:
    """Done or not, the client hears nothing; a token makes it safe to ask again."""
    add = ours.action(
        "Update", "n", UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": {"N": "1"}}
    )
    for kind in ("reset_before", "lost_response"):
        ours.stand_in.add_fault(kind, action="TransactWriteItems")
        with pytest.raises(ConnectionClosedError):
            ours.transact(add, ClientRequestToken="token")
        seen = (ours.get("n") or {}).get("n")
        assert seen == (None if kind == "reset_before" else {"N": "1"})
    ours.transact(add, ClientRequestToken="token")
    assert (ours.get("n") or {})["n"] == {"N": "1"}
    ours.stand_in.add_fault("e500", action="PutItem", after=True)
    refused(lambda: ours.put("a"), "InternalServerError")
    assert ours.get("a") is not None


def test_answers_that_do_not_come() -> None:
    """In process nobody waits: a read timeout is raised at once."""
    clock = Clock()
    database = DynamoDb(clock)
    ours = Ledger(client(database), database, clock)
    for kind, error in (
        ("hang", ReadTimeoutError),
        ("refused", EndpointConnectionError),
        ("slow", ReadTimeoutError),
    ):
        database.add_fault(kind, action="PutItem")
        with pytest.raises((HTTPClientError, error)) as caught:
            ours.put(kind)
        assert isinstance(caught.value, error)
        assert (ours.get(kind) is not None) == (kind == "slow")


def test_a_transaction_that_comes_late_is_in_progress() -> None:
    """API_TransactWriteItems.html: TransactionInProgressException."""
    clock = Clock()
    database = DynamoDb(clock)
    ours = Ledger(client(database), database, clock)
    database.add_fault("slow", action="TransactWriteItems", late=5.0)
    put = ours.put_action("a", ConditionExpression="attribute_not_exists(PK)")
    with pytest.raises(ReadTimeoutError):
        ours.transact(put, ClientRequestToken="token")
    refused(
        lambda: ours.transact(put, ClientRequestToken="token"), "TransactionInProgressException"
    )
    assert ours.get("a") is None
    clock.now += 5
    assert ours.get("a") is not None
    ours.transact(put, ClientRequestToken="token")


def test_batches_done_in_part(ours: Ledger) -> None:
    """API_BatchWriteItem.html: UnprocessedItems; API_BatchGetItem.html: UnprocessedKeys."""
    ours.stand_in.add_fault("unprocessed", action="BatchWriteItem", done=1)
    ours.stand_in.add_fault("unprocessed", action="BatchGetItem", done=1)
    puts = [{"PutRequest": {"Item": key(name)}} for name in "abc"]
    left = ours.dynamodb.batch_write_item(RequestItems={ours.table: puts})["UnprocessedItems"]
    assert left == {ours.table: puts[1:]} and ours.get("b") is None
    ours.dynamodb.batch_write_item(RequestItems=left)
    asked = {ours.table: {"Keys": [key(name) for name in "abc"], "ConsistentRead": True}}
    answer = ours.dynamodb.batch_get_item(RequestItems=asked)
    assert len(answer["Responses"][ours.table]) == 1
    assert len(answer["UnprocessedKeys"][ours.table]["Keys"]) == 2
    rest = ours.dynamodb.batch_get_item(RequestItems=answer["UnprocessedKeys"])
    assert len(rest["Responses"][ours.table]) == 2


def test_faults_choose_their_calls(ours: Ledger) -> None:
    database = ours.stand_in
    database.add_fault("throttle", action="*", match={"TableName": ours.table}, times=-1)
    refused(lambda: ours.transact(ours.put_action("a")), "ThrottlingException")
    refused(lambda: ours.get("a"), "ThrottlingException")
    ours.dynamodb.list_tables()
    database.clear_faults()
    ours.get("a")
    done: list[str] = []
    database.add_fault("kill", action="PutItem", then=lambda: done.append(str(ours.get("b"))))
    ours.put("b")
    assert done == [str(key("b"))]
    for wrong in ("cap", "fleet_errors", "unheard_of"):
        with pytest.raises(ValueError, match=wrong):
            database.add_fault(wrong, action="*")


def test_calls_are_recorded(ours: Ledger) -> None:
    """What a store asked, so that a test can say that it never scans and reads consistently."""
    ours.put("a", state="live")
    ours.get("a", ConsistentRead=False)
    live(ours)
    ours.transact(*[ours.put_action("t", str(number)) for number in range(3)])
    refused(
        lambda: ours.put("a", ConditionExpression="attribute_not_exists(PK)"),
        "ConditionalCheckFailedException",
    )
    calls = ours.stand_in.calls[1:]
    table = ours.table
    assert [
        (call.action, call.table, call.index, call.consistent, call.items, call.units, call.outcome)
        for call in calls
    ] == [
        ("PutItem", table, None, None, 0, 2.0, "ok"),
        ("GetItem", table, None, False, 0, 0.5, "ok"),
        ("Query", table, "states", False, 0, 0.5, "ok"),
        ("TransactWriteItems", table, None, None, 3, 6.0, "ok"),
        ("PutItem", table, None, None, 0, 0, "ConditionalCheckFailedException"),
    ]
    assert calls[1].params["Key"] == key("a") and "Item" not in calls[0].params
    assert ours.stand_in.counts["PutItem"] == 2 and ours.stand_in.counts["Scan"] == 0


def test_what_is_not_known_is_not_passed_over(ours: Ledger) -> None:
    refused(
        lambda: ours.dynamodb.scan(TableName=ours.table, Segment=0, TotalSegments=2),
    )
    refused(lambda: ours.dynamodb.list_backups(), "UnknownOperationException")
    refused(lambda: ours.query("PK = :p", {":p": "p"}, AttributesToGet=["x"]))
    with pytest.raises(ValueError, match="not s3"):
        ours.stand_in.attach(client(service="s3"))


# -- the stand-in's processes --------------------------------------------------------


def test_alone_in_a_process() -> None:
    """Faults, settings and the record over HTTP; a hung call times out for real."""
    with start_dynamodb(stale_reads=True) as process:
        dynamodb = client(url=process.url)
        control = process.control.dynamodb
        dynamodb.create_table(**shape("alone"))
        dynamodb.put_item(TableName="alone", Item=key("a"))
        assert "Item" not in dynamodb.get_item(TableName="alone", Key=key("a"))
        control.settings(stale_reads=False)
        assert "Item" in dynamodb.get_item(TableName="alone", Key=key("a"))
        control.add_fault("throttle", action="GetItem", match={"TableName": "alone"})
        refused(lambda: dynamodb.get_item(TableName="alone", Key=key("a")), "ThrottlingException")
        assert control.counts() == {"CreateTable": 1, "PutItem": 1, "GetItem": 3}
        assert [call["outcome"] for call in control.calls()][-1] == "throttle"
        with pytest.raises(ValueError, match="unheard_of"):
            control.add_fault("unheard_of", action="*")
        with pytest.raises(ValueError, match="allow_kill"):
            control.add_fault("kill", action="*", pid=1)
        with pytest.raises(ValueError, match="POST"):
            control.settings(speed=1)
        with pytest.raises(ValueError, match="GET"):
            process.control.live_instances()
        # A body that is no JSON, as no SDK sends it.
        request = urllib.request.Request(
            process.url,
            data=b"{",
            headers={"x-amz-target": "DynamoDB_20120810.GetItem"},
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
        with caught.value as answer:
            assert json.load(answer)["__type"].endswith("#SerializationException")
        dynamodb.close()


def test_beside_ec2_in_one_process() -> None:
    """One address for EC2, DynamoDB and Application Auto Scaling."""
    with start_process() as process:
        dynamodb = client(url=process.url)
        scaling = client(url=process.url, service="application-autoscaling")
        ec2 = client(url=process.url, service="ec2")
        dynamodb.create_table(**shape("beside"))
        target = {
            "ServiceNamespace": "dynamodb",
            "ResourceId": "table/beside",
            "ScalableDimension": "dynamodb:table:WriteCapacityUnits",
        }
        scaling.register_scalable_target(**target, MinCapacity=5, MaxCapacity=50)
        assert ec2.describe_instances()["Reservations"] == []
        process.control.dynamodb.add_fault("throttle", action="ListTables")
        refused(dynamodb.list_tables, "ThrottlingException")
        assert [call["action"] for call in process.control.dynamodb.calls()] == [
            "CreateTable",
            "RegisterScalableTarget",
            "ListTables",
        ]
        assert [call["action"] for call in process.control.calls()] == ["DescribeInstances"]
        for one in (dynamodb, scaling, ec2):
            one.close()


def test_application_auto_scaling() -> None:
    """API_RegisterScalableTarget.html, API_PutScalingPolicy.html: kept and answered."""
    scaling = client(DynamoDb(Clock()), service="application-autoscaling")
    target = {
        "ServiceNamespace": "dynamodb",
        "ResourceId": "table/ledger",
        "ScalableDimension": "dynamodb:table:WriteCapacityUnits",
    }
    policy = {
        "PolicyName": "ledger-write",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 70.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "DynamoDBWriteCapacityUtilization"
            },
        },
    }
    refused(lambda: scaling.put_scaling_policy(**target, **policy), "ObjectNotFoundException")
    refused(lambda: scaling.register_scalable_target(**target))
    scaling.register_scalable_target(**target, MinCapacity=5, MaxCapacity=50)
    scaling.register_scalable_target(**target, MaxCapacity=100)
    scaling.put_scaling_policy(**target, **policy)
    (found,) = scaling.describe_scalable_targets(ServiceNamespace="dynamodb")["ScalableTargets"]
    assert (found["MinCapacity"], found["MaxCapacity"]) == (5, 100)
    (held,) = scaling.describe_scaling_policies(**target)["ScalingPolicies"]
    assert policy.items() <= held.items()
    other = scaling.describe_scalable_targets(
        ServiceNamespace="dynamodb", ResourceIds=["table/other"]
    )
    assert other["ScalableTargets"] == []
    scaling.deregister_scalable_target(**target)
    assert scaling.describe_scaling_policies(ServiceNamespace="dynamodb")["ScalingPolicies"] == []


def test_alone_it_imports_neither_moto_nor_botocore() -> None:
    """Tests start many of them."""
    code = (
        "import sys; import infrastructure.sandbox.server; "
        "print(sorted({'moto', 'boto3', 'botocore'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


# -- speed ---------------------------------------------------------------------------------------


def test_a_query_does_not_read_the_partition() -> None:
    """Rows looked at by a page are those that it reads, however many there are."""
    clock = Clock()
    database = DynamoDb(clock)
    ours = Ledger(client(database), database, clock)
    items = [{**key("p", f"{number:05d}"), "n": {"N": "1"}} for number in range(3000)]
    for start in range(0, 3000, 100):
        puts = [{"Put": {"TableName": ours.table, "Item": item}} for item in items[start:][:100]]
        ours.transact(*puts)
    seen: list[Any] = []
    holds = Expressions.holds

    def counted(self: Expressions, tree: Any, item: Any) -> bool:
        seen.append(item)
        return holds(self, tree, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Expressions, "holds", counted)
        answer = ours.query("PK = :p AND SK > :s", {":p": "p", ":s": "02000"}, Limit=5)
    assert sort_keys(answer) == [f"{number:05d}" for number in range(2001, 2006)]
    assert len(seen) == 5


def test_sizes() -> None:
    """CapacityUnitCalculations.html, byte by byte."""
    sizes = {
        "text": ({"S": "é"}, 2),
        "number": ({"N": "12345"}, 4),
        "zeros": ({"N": "1200000"}, 2),
        "bytes": ({"B": "AAEC"}, 3),
        "flag": ({"BOOL": False}, 1),
        "none": ({"NULL": True}, 1),
        "set": ({"SS": ["ab", "c"]}, 3),
        "list": ({"L": [{"S": "ab"}, {"BOOL": True}]}, 3 + (1 + 2) + (1 + 1)),
        "map": ({"M": {"key": {"S": "ab"}}}, 3 + (1 + 3 + 2)),
    }
    for name, (value, size) in sizes.items():
        assert normal_item({name: value})[1] == len(name) + size, name
