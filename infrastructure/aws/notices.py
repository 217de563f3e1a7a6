"""AWS's notices that it takes machines back, from the site's SQS queue that EventBridge fills.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html and
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from application.ports import CallFailed, Notice
from infrastructure.aws.client import Connection

SERVICE = "sqs"
A_CALL = 10
"""Messages in one ReceiveMessage or DeleteMessageBatch."""

LOOKS = 10
"""Most calls in a row that find nothing but other events."""

WARNING_TIME = 120
"""Seconds from the warning to the interruption."""

_INSTANCE = re.compile(r"i-[0-9a-z]+")

INTERRUPTION, REBALANCE = "interruption", "rebalance"
_REASONS = {
    "EC2 Spot Instance Interruption Warning": INTERRUPTION,
    "EC2 Instance Rebalance Recommendation": REBALANCE,
}


class Notices:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue = connection.settings.interruption_queue

    def read(self, keep_others: bool = False) -> list[Notice]:
        """Some that wait in the queue, [] when none does; they stay in it until they are settled.
        Other events are taken out, unless they are to be kept. Raises CallFailed."""
        if not self._queue:
            return []
        for _ in range(LOOKS):
            answer = self._connection.call(
                "ReceiveMessage",
                {
                    "QueueUrl": self._queue,
                    "MaxNumberOfMessages": A_CALL,
                    "WaitTimeSeconds": 0,
                },
                SERVICE,
            )
            messages = answer.get("Messages", [])
            notices, others = self._sorted(messages)
            if others and not keep_others:
                self.settle(others)
            if notices or not messages:
                return notices
        return []

    def _sorted(self, messages: Sequence[dict[str, Any]]) -> tuple[list[Notice], list[str]]:
        notices: list[Notice] = []
        others: list[str] = []
        for message in messages:
            handle = message["ReceiptHandle"]
            try:
                notice = notice_of(message["Body"], handle)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self._connection.journal.warn(
                    "message in the interruption queue is no event of EC2; deleted",
                    message_id=message.get("MessageId", ""),
                )
                notice = None
            if notice is None:
                others.append(handle)
            else:
                notices.append(notice)
        return notices, others

    def settle(self, handles: Sequence[str]) -> None:
        """Take recorded notices out of the queue; one that stays comes again. Raises CallFailed."""
        for start in range(0, len(handles), A_CALL):
            part = handles[start : start + A_CALL]
            answer = self._connection.call(
                "DeleteMessageBatch",
                {
                    "QueueUrl": self._queue,
                    "Entries": [
                        {"Id": str(number), "ReceiptHandle": handle}
                        for number, handle in enumerate(part)
                    ],
                },
                SERVICE,
            )
            if answer.get("Failed"):
                first = answer["Failed"][0]
                raise CallFailed("unreachable", first["Code"], first.get("Message", ""))


def notice_of(body: str, handle: str) -> Notice | None:
    """The notice in an event; None for an event of another kind. Raises ValueError, KeyError,
    TypeError, AttributeError or RecursionError for what is no event."""
    event = json.loads(body)
    reason = _REASONS.get(event["detail-type"])
    if reason is None:
        return None
    machine_id = event["detail"]["instance-id"]
    if not _INSTANCE.fullmatch(machine_id):
        raise ValueError("no instance")
    at = int(datetime.fromisoformat(event["time"]).timestamp())
    until = at + WARNING_TIME if reason == INTERRUPTION else at
    return Notice(machine_id, reason, until, handle)
