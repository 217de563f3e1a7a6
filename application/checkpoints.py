"""Checkpoints: where a log was at a time, signed with the site's own key and kept elsewhere.

Whoever can write to the store can also make the whole chain anew, or cut off its end, and the log
alone would not tell. A checkpoint is one JSON line with what the end was then; `signature` is the
HMAC-SHA256 of the line before it under the key, in hex.
"""

from __future__ import annotations

import hmac

from application.failures import StoreError
from application.json_text import BadJson, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    class Safe(Protocol):
        """Where checkpoints are kept."""

        name: str

        def last(self) -> tuple[int, str]:
            """Position and chain of the last checkpoint that is known to be there; (0, "") for
            none."""
            ...

        def put(self, position: int, line: str) -> str:
            """Keep a checkpoint; where it is now. Raises StoreError."""
            ...


FIELDS = ("deployment", "position", "chain", "taken_at", "program_version")


def take(
    deployment: str, end: tuple[int, str], taken_at: str, program_version: str, key: bytes
) -> str:
    """The line that says that the log ended with this position and chain."""
    facts = dict(zip(FIELDS, (deployment, *end, taken_at, program_version), strict=True))
    return dumps({**facts, "signature": _signature(facts, key)})


def keep(
    safe: Safe, deployment: str, end: tuple[int, str], taken_at: str, version: str, key: bytes
) -> str | None:
    """Take a checkpoint and keep it, unless the last one is of this very event; where it is then.

    Raises StoreError.
    """
    if safe.last() == end:
        return None
    return safe.put(end[0], take(deployment, end, taken_at, version, key))


def read(
    lines: Iterable[str], deployment: str, key: bytes
) -> tuple[dict[int, dict[str, str]], list[str], int]:
    """What checkpoints say: position -> chain -> which one says so; what is wrong with some of
    them; and how many were good. Raises StoreError where there is none at all."""
    chains: dict[int, dict[str, str]] = {}
    problems: list[str] = []
    good = 0
    number = 0
    for number, line in enumerate(filter(str.strip, lines), start=1):
        facts, wrong = _facts(line, deployment, key)
        if wrong:
            problems.append(f"checkpoint {number}: {wrong}")
            continue
        good += 1
        who = f"the checkpoint of {facts['taken_at']}"
        chains.setdefault(facts["position"], {}).setdefault(facts["chain"], who)
    if not number:
        raise StoreError("there is no checkpoint in it")
    return chains, problems, good


def _facts(line: str, deployment: str, key: bytes) -> tuple[dict[str, Any], str]:
    """What a line says, and why it is not believed."""
    try:
        said = loads(line)
        facts = {name: said[name] for name in FIELDS}
        position = facts["position"]
        signed = hmac.compare_digest(_signature(facts, key), str(said["signature"]))
    except (BadJson, KeyError, TypeError, ValueError) as error:
        return {}, f"it is none of ours ({type(error).__name__}: {error})"
    if not signed:
        return {}, "it was changed, or signed with another key"
    if facts["deployment"] != deployment:
        return {}, f"it is of another deployment ({facts['deployment']})"
    if type(position) is not int:
        return {}, "its position is no number"
    return facts, ""


def _signature(facts: dict[str, Any], key: bytes) -> str:
    return hmac.new(key, dumps(facts).encode(), "sha256").hexdigest()
