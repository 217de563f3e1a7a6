"""Faults a test asks for: which calls they hit, how often, and what they do to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

# Parameters that any kind takes: they choose calls.
_CHOOSERS = frozenset({"where", "match", "account"})
# kind -> the parameters it takes beside those
KINDS: dict[str, frozenset[str]] = {
    "throttle": frozenset(),
    "error": frozenset({"code", "message", "status"}),
    "e500": frozenset({"after"}),
    "e503": frozenset(),
    "hang": frozenset(),
    "slow": frozenset({"late"}),
    "reset_before": frozenset(),
    "refused": frozenset(),
    "lost_response": frozenset(),
    "cap": frozenset({"limit", "subnet", "instance_type", "market", "code"}),
    "fleet_errors": frozenset({"codes", "launch"}),
    "kill": frozenset({"then", "pid"}),
    "cancelled": frozenset({"reasons"}),
    "unprocessed": frozenset({"done"}),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "error": ("code",),
    "cap": ("limit",),
    "fleet_errors": ("codes",),
    "cancelled": ("reasons",),
    "unprocessed": ("done",),
}
# Kinds that change what a call does, and so go together with any other fault.
WITHIN = frozenset({"cap", "fleet_errors"})
# Kinds that only DynamoDB's calls can have.
OF_DYNAMODB = frozenset({"cancelled", "unprocessed"})


@dataclass(eq=False)
class Fault:
    """One fault; see add_fault of Sandbox and of DynamoDb for the kinds and their parameters."""

    kind: str
    action: str
    from_call: int = 1
    times: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)
    seen: int = 0
    fired: int = 0
    cleared: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault is called {self.kind!r}; known: {', '.join(KINDS)}")
        unknown = set(self.params) - KINDS[self.kind] - _CHOOSERS
        if unknown:
            raise ValueError(f"fault {self.kind!r} takes no {', '.join(sorted(unknown))}")
        missing = [name for name in _REQUIRED.get(self.kind, ()) if name not in self.params]
        if missing:
            raise ValueError(f"fault {self.kind!r} needs {', '.join(missing)}")
        if self.kind == "kill" and ("then" in self.params) == ("pid" in self.params):
            raise ValueError("fault 'kill' needs then=callable or pid=number")

    def clear(self) -> None:
        """Fire no more."""
        self.cleared = True

    def arms(self, action: str, params: Mapping[str, Any], account: str) -> bool:
        """Count a call that this fault is about; True when it may fire on it."""
        if self.cleared or self.action not in ("*", action):
            return False
        if self.params.get("account") not in (None, account):
            return False
        match: Mapping[str, Any] = self.params.get("match") or {}
        if any(params.get(name) != value for name, value in match.items()):
            return False
        where: Callable[[Mapping[str, Any]], bool] | None = self.params.get("where")
        if where is not None and not where(params):
            return False
        self.seen += 1
        return self.seen >= self.from_call and (self.times < 0 or self.fired < self.times)


class Faults:
    """The faults of one service, in the order in which they were added. `lock` is the service's."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._added: list[Fault] = []

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._added)

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._added.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            for fault in self._added:
                fault.clear()
            self._added.clear()
