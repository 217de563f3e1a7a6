"""The facts of EC2's instance types, learned from AWS and kept in a file beside the compiled form.

They are the same in every account and region, so they are asked for once and only when an operator
says so: HostFactory's calls read the file and never ask AWS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from application.ports import CallFailed

Describe = Callable[[list[str]], Mapping[str, Mapping[str, Any]]]
"""Names -> those that AWS knows, with vcpus, cores, memory (MiB) and architectures. Raises
CallFailed, of the code InvalidInstanceType where one of them is unknown."""


class Learned(NamedTuple):
    """What AWS said: the types whose facts are new or others than before, and unknown ones."""

    facts: dict[str, dict[str, Any]]
    changed: list[str]
    unknown: list[str]


def types_file(state_dir: str) -> str:
    """Where an instance's facts lie."""
    return f"{state_dir}/compiled/instance_types.json"


def known_types(path: str) -> dict[str, dict[str, Any]]:
    """What the file has; nothing when there is none or it is broken: it can be made anew."""
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)["types"]
        return {
            str(name): {
                "vcpus": int(fact["vcpus"]),
                "cores": int(fact["cores"]),
                "memory": int(fact["memory"]),
                "architectures": [str(word) for word in fact["architectures"]],
            }
            for name, fact in facts.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def learn_types(path: str, names: Iterable[str], describe: Describe) -> Learned:
    """Ask AWS for these types and write what it says to the file. Raises CallFailed, OSError."""
    facts = known_types(path)
    wanted = sorted(set(names))
    told = _told(wanted, describe)
    changed = [name for name in wanted if name in told and facts.get(name) != told[name]]
    facts |= told
    if changed:
        _write(path, facts)
    return Learned(facts, changed, [name for name in wanted if name not in told])


def _told(names: list[str], describe: Describe) -> dict[str, dict[str, Any]]:
    """One unknown type fails the whole call, so the list is halved around it."""
    if not names:
        return {}
    try:
        return {name: dict(fact) for name, fact in describe(names).items()}
    except CallFailed as failed:
        if failed.code != "InvalidInstanceType":
            raise
    if len(names) == 1:
        return {}
    middle = len(names) // 2
    return _told(names[:middle], describe) | _told(names[middle:], describe)


def _write(path: str, facts: Mapping[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    unfinished = f"{path}.{os.getpid()}"
    with open(unfinished, "w", encoding="utf-8", opener=_private) as file:
        json.dump({"types": facts}, file, indent=1, sort_keys=True)
    os.replace(unfinished, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
