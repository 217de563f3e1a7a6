"""SQS' standard queues, with visibility timeouts on the sandbox's clock."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .wire import AwsError, numbered

# API_ReceiveMessage.html and API_SetQueueAttributes.html
_RECEIVE_MAX = 10
_VISIBILITY, _VISIBILITY_MAX = 30, 12 * 3600
_RETENTION = 4 * 24 * 3600
_WAIT_MAX = 20
# API_DeleteMessageBatch.html
_BATCH_MAX = 10
_BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass
class _Message:
    id: str
    body: str
    sent: float
    hidden_until: float
    received: int = 0
    first_received: float = 0.0
    handle: str = ""


@dataclass
class _Queue:
    name: str
    url: str
    created: float
    messages: dict[str, _Message] = field(default_factory=dict)


class Queues:
    """The queues of one account in one region; `now` is the clock's time in seconds."""

    def __init__(self, account: str, region: str, now: Callable[[], float]) -> None:
        self._account = account
        self._region = region
        self._now = now
        self._queues: dict[str, _Queue] = {}
        self._numbers = itertools.count(1)

    def create(self, name: str) -> str:
        """Make a queue, if it is not there; returns its URL."""
        url = f"https://sqs.{self._region}.amazonaws.com/{self._account}/{name}"
        self._queues.setdefault(name, _Queue(name, url, self._now()))
        return url

    def take_events(self, name: str) -> Callable[[Mapping[str, Any]], None]:
        """Who puts the events of this account and region into a queue, as EventBridge does."""
        here = {"account": self._account, "region": self._region}

        def take(event: Mapping[str, Any]) -> None:
            if here.items() <= event.items():
                self._put(self._named(name), json.dumps(event))

        return take

    def send(self, url: str, body: str) -> str | None:
        """Put a message into a queue; returns its id, None when the queue is not here."""
        queue = next((queue for queue in self._queues.values() if queue.url == url), None)
        return None if queue is None else self._put(queue, body)

    def answer(self, action: str, params: Mapping[str, str]) -> dict[str, Any] | None:
        """What an action answers, None for one the sandbox lacks. Raises AwsError."""
        if action == "GetQueueUrl":
            return {"QueueUrl": self._named(params.get("QueueName", "")).url}
        if action not in (
            "ReceiveMessage",
            "DeleteMessage",
            "DeleteMessageBatch",
            "GetQueueAttributes",
        ):
            return None
        queue = self._at(params.get("QueueUrl", ""))
        self._expire(queue)
        match action:
            case "ReceiveMessage":
                return self._receive(queue, params)
            case "DeleteMessage":
                self._delete(queue, params.get("ReceiptHandle", ""))
                return {}
            case "DeleteMessageBatch":
                return self._delete_batch(queue, params)
        return self._attributes(queue, numbered(params, "AttributeNames"))

    def _put(self, queue: _Queue, body: str) -> str:
        number, now = next(self._numbers), self._now()
        message = _Message(f"00000000-0000-4000-9000-{number:012d}", body, now, now)
        queue.messages[message.id] = message
        return message.id

    def _receive(self, queue: _Queue, params: Mapping[str, str]) -> dict[str, Any]:
        """Up to MaxNumberOfMessages that nobody else works on; WaitTimeSeconds waits for none."""
        count = _number(params, "MaxNumberOfMessages", 1, 1, _RECEIVE_MAX)
        hidden = _number(params, "VisibilityTimeout", _VISIBILITY, 0, _VISIBILITY_MAX)
        _number(params, "WaitTimeSeconds", 0, 0, _WAIT_MAX)
        asked = {
            *numbered(params, "AttributeNames"),
            *numbered(params, "MessageSystemAttributeNames"),
        }
        now = self._now()
        due = (message for message in queue.messages.values() if message.hidden_until <= now)
        found = []
        for message in itertools.islice(due, count):
            message.received += 1
            message.first_received = message.first_received or now
            message.hidden_until = now + hidden
            message.handle = f"{queue.name}#{message.id}#{message.received}"
            found.append(_rendered(message, asked, self._account))
        return {"Messages": found} if found else {}

    def _delete(self, queue: _Queue, handle: str) -> None:
        """Delete what a handle is for. "If you use an old ReceiptHandle, the request will
        succeed, but the message might not be deleted": here it is not (API_DeleteMessage.html)."""
        name, _, rest = handle.partition("#")
        message_id, _, _ = rest.partition("#")
        if name != queue.name or not message_id:
            raise AwsError("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
        message = queue.messages.get(message_id)
        if message is not None and message.handle == handle:
            del queue.messages[message_id]

    def _delete_batch(self, queue: _Queue, params: Mapping[str, str]) -> dict[str, Any]:
        entries: list[tuple[str, str]] = []
        while (name := f"Entries.{len(entries) + 1}.Id") in params:
            handle = params.get(f"Entries.{len(entries) + 1}.ReceiptHandle", "")
            entries.append((params[name], handle))
        _check_batch([name for name, _ in entries])
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for name, handle in entries:
            try:
                self._delete(queue, handle)
                done.append({"Id": name})
            except AwsError as error:
                failed.append(
                    {
                        "Id": name,
                        "SenderFault": True,
                        "Code": error.code,
                        "Message": error.message,
                    }
                )
        # "a combination of successful and unsuccessful actions" is HTTP 200.
        return {"Successful": done, "Failed": failed}

    def _attributes(self, queue: _Queue, names: list[str]) -> dict[str, Any]:
        now = self._now()
        hidden = sum(message.hidden_until > now for message in queue.messages.values())
        every = {
            "ApproximateNumberOfMessages": len(queue.messages) - hidden,
            "ApproximateNumberOfMessagesNotVisible": hidden,
            "ApproximateNumberOfMessagesDelayed": 0,
            "CreatedTimestamp": int(queue.created),
            "LastModifiedTimestamp": int(queue.created),
            "VisibilityTimeout": _VISIBILITY,
            "MessageRetentionPeriod": _RETENTION,
            "MaximumMessageSize": 1024 * 1024,
            "DelaySeconds": 0,
            "ReceiveMessageWaitTimeSeconds": 0,
            "QueueArn": f"arn:aws:sqs:{self._region}:{self._account}:{queue.name}",
        }
        for name in names:
            if name != "All" and name not in every:
                raise AwsError("InvalidAttributeName", f"Unknown Attribute {name}.")
        asked = every if "All" in names else names
        chosen = {name: str(every[name]) for name in asked}
        return {"Attributes": chosen} if chosen else {}

    def _expire(self, queue: _Queue) -> None:
        """Forget messages older than the retention period."""
        limit = self._now() - _RETENTION
        old = [one.id for one in queue.messages.values() if one.sent <= limit]
        for message_id in old:
            del queue.messages[message_id]

    def _at(self, url: str) -> _Queue:
        """The queue of a URL; only its path counts, since a client may be told another host."""
        account, _, name = urlsplit(url).path.strip("/").rpartition("/")
        if not name or not account:
            raise AwsError("InvalidAddress", "The address is not valid for this endpoint.", 404)
        if account != self._account:
            # The queue's owner would have to allow it (sqs-basic-examples-of-sqs-policies.html).
            message = "Access to the resource is denied."
            raise AwsError("AccessDenied", message, 403, shape="AccessDeniedException")
        return self._named(name)

    def _named(self, name: str) -> _Queue:
        if name not in self._queues:
            raise AwsError(
                "AWS.SimpleQueueService.NonExistentQueue",
                "The specified queue does not exist.",
                shape="QueueDoesNotExist",
            )
        return self._queues[name]


def _rendered(message: _Message, asked: set[str], account: str) -> dict[str, Any]:
    every = {
        "ApproximateReceiveCount": str(message.received),
        "ApproximateFirstReceiveTimestamp": str(int(message.first_received * 1000)),
        "SentTimestamp": str(int(message.sent * 1000)),
        "SenderId": account,
    }
    attributes = {name: value for name, value in every.items() if asked & {"All", name}}
    content: dict[str, Any] = {
        "MessageId": message.id,
        "ReceiptHandle": message.handle,
        "MD5OfBody": hashlib.md5(message.body.encode(), usedforsecurity=False).hexdigest(),
        "Body": message.body,
    }
    return content | ({"Attributes": attributes} if attributes else {})


def _check_batch(ids: list[str]) -> None:
    """Refuse batches as API_DeleteMessageBatch.html lists; the codes are of the older protocol."""
    prefix = "AWS.SimpleQueueService."
    if not ids:
        name, message = "EmptyBatchRequest", "There should be at least one entry in the request."
    elif len(ids) > _BATCH_MAX:
        name = "TooManyEntriesInBatchRequest"
        message = f"Maximum number of entries per request are {_BATCH_MAX}."
    elif len(set(ids)) < len(ids):
        name, message = "BatchEntryIdsNotDistinct", "Two or more batch entries have the same Id."
    elif not all(_BATCH_ID.fullmatch(one) for one in ids):
        name, message = "InvalidBatchEntryId", "A batch entry id has up to 80 of A-Z a-z 0-9 - _."
    else:
        return
    raise AwsError(f"{prefix}{name}", message, shape=name)


def _number(params: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not text.lstrip("-").isdigit() or not least <= int(text) <= most:
        raise AwsError(
            "InvalidParameterValue",
            f"Value {text} for parameter {name} is invalid. Reason: Must be between {least} and "
            f"{most}, if provided.",
            shape="InvalidParameterValueException",
        )
    return int(text)
