"""What HostFactory's calls on any machine named, left in the store for the worker, wherever it is.

A call that names something for the first time leaves an item at once. Any other leaves its line in
one item of its provider instance and host, at most once a minute: the time in which HostFactory was
calling counts by gaps of up to two (`LONGEST_GAP` in `notebook.py`).
"""

from __future__ import annotations

import os

from application.json_text import dumps, loads
from infrastructure.event_store.dynamodb_client import LOG, ConditionFailed, key
from infrastructure.event_store.dynamodb_log import SEEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.instants import Instant
    from application.ports import Clock
    from infrastructure.event_store.dynamodb_client import Tables

AT_ONCE = ("requests", "final", "machines", "strangers", "stale")
BETWEEN = 55.0
"""Seconds between two lines of calls that name nothing new."""

LOOK_AGAIN = 1.0
"""Seconds between the worker's looks at whether something was noted."""


def note(tables: Tables, now: Instant, facts: dict[str, object]) -> None:
    """Leave one line. Raises StoreError."""
    line = {"S": dumps({"at": now[0], "boot_id": now[1], "boot": now[2], **facts})}
    if any(facts.get(name) for name in AT_ONCE):
        sort = f"{now[0]:020.6f}#{tables.random(4).hex()}"
        tables.put(LOG, {**key(SEEN, sort), "line": line})
        return
    sort = f"call#{facts.get('provider', '')}#{os.uname().nodename}#{bool(facts.get('hosts'))}"
    try:
        tables.put(
            LOG,
            {**key(SEEN, sort), "line": line, "at": {"N": str(now[0])}},
            # A wall clock that was set back must not silence the calls until it has caught up.
            ConditionExpression="attribute_not_exists(PK) OR #at < :before OR #at > :now",
            ExpressionAttributeNames={"#at": "at"},
            ExpressionAttributeValues={
                ":before": {"N": str(now[0] - BETWEEN)},
                ":now": {"N": str(now[0])},
            },
        )
    except ConditionFailed:
        return


class DynamodbSightings:
    """The lines as the worker reads them."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock
        self._taken: list[tuple[str, str, str]] = []
        self._known: dict[str, str] = {}
        self._looked = float("-inf")
        self._noted = 0.0

    def take(self) -> list[dict[str, Any]]:
        """The lines since the last `done`, oldest first."""
        self._taken = []
        lines = []
        for item in self._tables.query(LOG, SEEN):
            sort, text = item["SK"]["S"], item["line"]["S"]
            if not sort.startswith("call#"):
                self._taken.append((LOG, SEEN, sort))
            elif self._known.get(sort) == text:
                continue
            self._known[sort] = text
            lines.append(loads(text))
        lines.sort(key=lambda line: line["at"])
        return lines

    def waiting(self) -> bool:
        """Whether lines were taken that are not done."""
        return bool(self._taken)

    def noted(self) -> float:
        """A number that is another one when a call has noted something since; 0 for none."""
        now = self._clock.now()[2]
        if now - self._looked >= LOOK_AGAIN:
            self._looked = now
            lines = [item["SK"]["S"] for item in self._tables.query(LOG, SEEN, attributes="SK")]
            first = [float(line.partition("#")[0]) for line in lines if line[:5] != "call#"]
            self._noted = max(first, default=0.0)
        return self._noted

    def done(self) -> None:
        """The taken lines are in the ledger: forget them."""
        self._tables.delete_all(self._taken)
        for _, _, sort in self._taken:
            self._known.pop(sort, None)
        self._taken = []
