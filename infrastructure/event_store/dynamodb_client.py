"""The one place that calls DynamoDB: the tables' names, bounded tries, and what each error means.

What may be tried again, under which token and for how long, is decided here alone
(API_TransactWriteItems.html, "Error handling with DynamoDB").
"""

from __future__ import annotations

import os

from application.failures import StoreBusy, StoreError, StoreMissing
from application.json_text import dumps, loads
from infrastructure.event_store.dynamodb_credentials import NoCredentials
from infrastructure.event_store.dynamodb_http import CallRefused, Client, NoAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from application.ports import Clock

    Item = dict[str, Any]
    """Attributes by name, as DynamoDB's wire has them: {"S": ..}, {"N": ..}, {"B": bytes}."""

LOG, REQUESTS, MACHINES, HOSTS, ROWS = TABLES = ("log", "requests", "machines", "hosts", "rows")
"""What the tables' names end in."""

LONGEST = 10.0
"""Seconds after which a call that fails again and again is given up."""

FIRST_PAUSE, LONGEST_PAUSE = 0.025, 1.0
"""Seconds between tries: a random part of a bound that doubles."""

MOST_ITEMS = 100
"""Items of a transaction and of a BatchGetItem (API_TransactWriteItems, API_BatchGetItem)."""

THROTTLED = frozenset(
    [
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "TransactionInProgressException",
        "TransactionConflictException",
    ]
)
IN_THE_WAY = frozenset(
    ["None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"]
)
"""Reasons of a cancelled transaction that pass by themselves."""

CREDENTIALS = frozenset(
    [
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "IncompleteSignature",
    ]
)

_clients: dict[tuple[Any, ...], Client] = {}
"""Of this process: they keep their connections and credentials from one store's call to the next's.
"""


class ConditionFailed(Exception):
    """The condition of a single write does not hold; `item` is what is there."""

    def __init__(self, item: Item | None, doubtful: bool) -> None:
        super().__init__("a condition does not hold")
        self.item = item
        self.doubtful = doubtful
        """An earlier try's answer was lost: it may be ours that is there."""


class Cancelled(Exception):
    """A transaction was cancelled: the code of each of its items."""

    def __init__(self, codes: list[str], doubtful: bool) -> None:
        super().__init__(", ".join(sorted(set(codes))))
        self.codes = codes
        self.doubtful = doubtful


class Lost(StoreBusy):
    """Nobody knows whether a write was done: its answers were lost until the time was over."""


def key(partition: str, sort: str = "0") -> Item:
    return {"PK": {"S": partition}, "SK": {"S": sort}}


def place_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Where the settings say that the tables are, and with whose credentials."""
    section = settings["storage"]["dynamodb_strategy"]
    aws = settings.get("provider", {}).get("aws", {})
    return {
        "prefix": section["table_prefix"],
        "region": section["region"] or aws.get("region"),
        "endpoint": section["endpoint_url"],
        "credential_file": aws.get("credential_file"),
        "credential_script": aws.get("credential_script"),
        "profile": aws.get("profile") or "default",
        "proxy": aws.get("proxy"),
    }


class Tables:
    """The store's tables; `place` is what `place_of` gives, `name` what messages call them.

    `random` gives so many random bytes. Safe in one thread.
    """

    def __init__(
        self,
        place: dict[str, Any],
        clock: Clock,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.place = place
        self.clock = clock
        self.random = random
        self.prefix: str = place["prefix"]
        self.name = f"dynamodb://{place['region']}/{self.prefix}"
        if place["endpoint"]:
            self.name += f"?endpoint={place['endpoint']}"

    def table(self, suffix: str) -> str:
        return f"{self.prefix}-{suffix}"

    # -- calls ------------------------------------------------------------------------------------

    def client(self, service: str) -> Client:
        """Made at the first call of the process. Raises StoreError."""
        known = (service, *(self.place[name] for name in self.place if name != "prefix"))
        if known not in _clients:
            if not self.place["region"]:
                raise StoreError(
                    f"{self.name}: no region is known: set storage.dynamodb_strategy.region or "
                    "AWS_REGION"
                )
            try:
                _clients[known] = Client(self.place, service)
            except ValueError as error:
                raise StoreError(
                    f"{self.name}: {error}: look at the region, endpoint and proxy"
                ) from None
        return _clients[known]

    def call(self, action: str, service: str = "dynamodb", **asked: Any) -> dict[str, Any]:
        """One call, tried again while that may help. Raises ConditionFailed, Cancelled, StoreError;
        CallRefused for codes that are the caller's."""
        client = self.client(service)
        began = self.clock.now()[2]
        bound = FIRST_PAUSE
        doubtful = renewed = False
        while True:
            lost = False
            try:
                return client.call(action, asked, self.clock.now()[0])
            except NoCredentials as error:
                raise self._without_credentials(str(error)) from None
            except NoAnswer as error:
                why, lost = str(error), error.lost
            except CallRefused as error:
                why = code = error.code
                if code == "ConditionalCheckFailedException":
                    raise ConditionFailed(error.answer.get("Item"), doubtful) from None
                if code == "TransactionCanceledException":
                    codes = [str(r["Code"]) for r in error.answer.get("CancellationReasons", ())]
                    if not codes or not IN_THE_WAY.issuperset(codes):
                        raise Cancelled(codes, doubtful) from None
                elif error.status >= 500:
                    lost = True
                elif code in CREDENTIALS and not renewed and self._renewed(client):
                    renewed = True
                elif code not in THROTTLED:
                    if code == "ResourceInUseException":
                        raise
                    raise self._refused(code, error.message) from None
            doubtful = doubtful or lost
            if self.clock.now()[2] - began >= LONGEST:
                raise self._given_up(action, why, doubtful)
            self.pause(bound)
            bound = min(2 * bound, LONGEST_PAUSE)

    def _renewed(self, client: Client) -> bool:
        """Whether there are other credentials by now: a program's or the instance's may have run
        out before they said, and a file may have been written anew."""
        try:
            return client.renew_credentials(self.clock.now()[0])
        except NoCredentials as error:
            raise self._without_credentials(str(error)) from None

    def pause(self, bound: float) -> None:
        """Wait for a random part of the bound: those who met shall not meet again."""
        self.clock.sleep(bound * (1 + self.random(1)[0]) / 256)

    def _refused(self, code: str, message: str) -> StoreError:
        if code == "ResourceNotFoundException":
            return self.missing()
        if code == "AccessDeniedException":
            return StoreError(
                f"{self.name}: {code}: {message}: give this user or role the policy that "
                "`hostledger iam-policy --for dynamodb` prints"
            )
        if code in CREDENTIALS:
            return StoreError(
                f"{self.name}: {code}: {message}: renew the credentials, and compare this "
                "machine's clock with AWS's (a signature is good for minutes)"
            )
        return StoreError(f"{self.name}: {code}: {message}; nothing was recorded")

    def missing(self) -> StoreMissing:
        return StoreMissing(
            f"no store at {self.name}: are region and storage.dynamodb_strategy.table_prefix "
            "right? A new deployment is made once with `hostledger store init`"
        )

    def _without_credentials(self, why: str) -> StoreError:
        return StoreError(
            f"{self.name}: {why}: set credentials for this user (an instance profile, "
            "AWS_CREDENTIAL_FILE, or AWS's environment variables)"
        )

    def _given_up(self, action: str, why: str, doubtful: bool) -> StoreError:
        if doubtful and "Write" in action:
            return Lost(
                f"{self.name}: {why}: it is not known whether this was recorded; ask before you "
                "try again"
            )
        return StoreBusy(
            f"{self.name} did not answer for {LONGEST:.0f} s ({why}); nothing was recorded: "
            "is DynamoDB reachable from here, and its capacity enough? Try again"
        )

    # -- reading ----------------------------------------------------------------------------------

    def get(self, suffix: str, partition: str, sort: str = "0") -> Item | None:
        """An item as it is now."""
        answer = self.call(
            "GetItem", TableName=self.table(suffix), Key=key(partition, sort), ConsistentRead=True
        )
        return answer.get("Item")

    def get_all(self, keys: Sequence[tuple[str, str, str]]) -> list[Item]:
        """Those of the items (table, PK, SK) that are there, as they are now, in any order."""
        found: list[Item] = []
        left = list(dict.fromkeys(keys))
        while left:
            asked: dict[str, Any] = {}
            for suffix, partition, sort in left[:MOST_ITEMS]:
                wanted = asked.setdefault(self.table(suffix), {"ConsistentRead": True, "Keys": []})
                wanted["Keys"].append(key(partition, sort))
            del left[:MOST_ITEMS]
            bound = FIRST_PAUSE
            began = self.clock.now()[2]
            while asked:
                answer = self.call("BatchGetItem", RequestItems=asked)
                given = [item for items in answer["Responses"].values() for item in items]
                found += given
                asked = answer.get("UnprocessedKeys") or {}
                if not asked:
                    break
                if not given:
                    if self.clock.now()[2] - began >= LONGEST:
                        raise self._given_up("BatchGetItem", "unprocessed keys", False)
                    self.pause(bound)
                    bound = min(2 * bound, LONGEST_PAUSE)
        return found

    def query(
        self,
        suffix: str,
        partition: str,
        *,
        after: str | None = None,
        backwards: bool = False,
        limit: int | None = None,
        attributes: str | None = None,
    ) -> Iterator[Item]:
        """The items of a partition as they are now, in the order of their sort keys, from `after`
        on (included); `attributes` names those that are wanted, joined by commas."""
        asked: dict[str, Any] = {
            "TableName": self.table(suffix),
            "KeyConditionExpression": "PK = :pk" + (" AND SK >= :sk" if after else ""),
            "ExpressionAttributeValues": {":pk": {"S": partition}},
            "ConsistentRead": True,
        }
        if after:
            asked["ExpressionAttributeValues"][":sk"] = {"S": after}
        if backwards:
            asked["ScanIndexForward"] = False
        if limit:
            asked["Limit"] = limit
        if attributes:
            names = attributes.split(",")
            asked["ProjectionExpression"] = ",".join(f"#{i}" for i in range(len(names)))
            asked["ExpressionAttributeNames"] = {f"#{i}": n for i, n in enumerate(names)}
        while True:
            answer = self.call("Query", **asked)
            yield from answer["Items"]
            following = answer.get("LastEvaluatedKey")
            if not following or limit:
                return
            asked["ExclusiveStartKey"] = following

    def scan(self, suffix: str) -> Iterator[Item]:
        """Every item of a table, each as it is when it is read, in no order."""
        asked: dict[str, Any] = {"TableName": self.table(suffix), "ConsistentRead": True}
        while True:
            answer = self.call("Scan", **asked)
            yield from answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return
            asked["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    # -- writing ----------------------------------------------------------------------------------

    def put(self, suffix: str, item: Item, **conditions: Any) -> None:
        """Raises ConditionFailed."""
        self.call("PutItem", TableName=self.table(suffix), Item=item, **conditions)

    def delete_all(self, keys: Sequence[tuple[str, str, str]]) -> None:
        for start in range(0, len(keys), 25):
            asked: dict[str, Any] = {}
            for suffix, partition, sort in keys[start : start + 25]:
                asked.setdefault(self.table(suffix), []).append(
                    {"DeleteRequest": {"Key": key(partition, sort)}}
                )
            self._write_all(asked)

    def put_all(self, items: Sequence[tuple[str, Item]]) -> None:
        for start in range(0, len(items), 25):
            asked: dict[str, Any] = {}
            for suffix, item in items[start : start + 25]:
                asked.setdefault(self.table(suffix), []).append({"PutRequest": {"Item": item}})
            self._write_all(asked)

    def _write_all(self, asked: dict[str, Any]) -> None:
        began = self.clock.now()[2]
        while asked:
            answer = self.call("BatchWriteItem", RequestItems=asked)
            asked = answer.get("UnprocessedItems") or {}
            if asked:
                if self.clock.now()[2] - began >= LONGEST:
                    raise self._given_up("BatchGetItem", "unprocessed items", False)
                self.pause(LONGEST_PAUSE / 4)

    def transact(self, actions: Sequence[dict[str, Any]], token: str) -> None:
        """All of the actions or none, once for each token. Raises Cancelled, Lost, StoreError."""
        self.call("TransactWriteItems", TransactItems=list(actions), ClientRequestToken=token[:36])


def text_of(item: Item, name: str) -> str:
    """A text attribute, compressed or not; "" for none."""
    value = item.get(name)
    if value is None:
        return ""
    if "B" in value:
        import zlib

        return zlib.decompress(value["B"]).decode()
    return value["S"]  # type: ignore[no-any-return]


def value_of(item: Item, name: str) -> Any:
    """What a JSON attribute says."""
    return loads(text_of(item, name))


COMPRESSED_FROM = 4096
"""Bytes of a text from which it is kept compressed."""


def packed(value: Any) -> dict[str, Any]:
    """A JSON value as an attribute."""
    return packed_text(dumps(value))


def packed_text(text: str) -> dict[str, Any]:
    data = text.encode()
    if len(data) <= COMPRESSED_FROM:
        return {"S": text}
    import zlib

    return {"B": zlib.compress(data, 6)}


def size_of(item: Item) -> int:
    """Bytes of an item, about as DynamoDB counts them ("Item sizes and formats")."""
    size = 0
    for name, value in item.items():
        ((_, content),) = value.items()
        size += len(name) + (len(content.encode()) if isinstance(content, str) else len(content))
    return size
