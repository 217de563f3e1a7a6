"""Where checkpoints of the log are kept: a file that is appended to, or a bucket (`aws`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from application.failures import BrokenConfiguration, StoreError
from application.json_text import BadJson, loads

if TYPE_CHECKING:
    from application.checkpoints import Safe
    from infrastructure.aws.client import Connection

SHORTEST_KEY = 32
"""Bytes of a key: as many as its hash has."""

END = 4096
"""Bytes that the last line is looked for in."""


def read_key(path: str | None) -> bytes:
    """The key in a file, without white space around it. Raises BrokenConfiguration."""
    if path is None:
        raise BrokenConfiguration(
            "a checkpoint is signed with the site's own key: name a file that has one in "
            "audit.checkpoint_key"
        )
    try:
        with open(path, "rb") as file:
            key = file.read().strip()
    except OSError as error:
        raise BrokenConfiguration(
            f"audit.checkpoint_key: {path} cannot be read: {error.strerror}"
        ) from None
    if len(key) < SHORTEST_KEY:
        raise BrokenConfiguration(
            f"audit.checkpoint_key: {path} has {len(key)} bytes, and {SHORTEST_KEY} are needed: "
            "make one with `openssl rand -hex 32`"
        )
    return key


class CheckpointFile:
    """A line each. `path` may be a directory: the deployment's own file in it then."""

    def __init__(self, path: str, deployment: str) -> None:
        self._deployment = deployment
        is_directory = path.endswith("/") or os.path.isdir(path)
        self.name = os.path.join(path, f"{deployment}.jsonl") if is_directory else path

    def last(self) -> tuple[int, str]:
        """Position and chain of the last one, if it is this deployment's; (0, "") for none."""
        try:
            with open(self.name, "rb") as file:
                file.seek(max(0, os.path.getsize(self.name) - END))
                facts = loads(file.read().decode(errors="replace").split("\n")[-2])
            ours = facts["deployment"] == self._deployment
            return (facts["position"], facts["chain"]) if ours else (0, "")
        except (OSError, IndexError, BadJson, KeyError, TypeError):
            return 0, ""

    def put(self, position: int, line: str) -> str:
        """Append it and wait for the disk; where it is. Raises StoreError."""
        try:
            os.makedirs(os.path.dirname(self.name), mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            file = os.open(self.name, flags, 0o600)
            try:
                os.write(file, f"{line}\n".encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise StoreError(
                f"{self.name}: the checkpoint cannot be written: {error.strerror}"
            ) from None
        return self.name


def safe_of(place: str, deployment: str, connect: Callable[[], Connection]) -> Safe:
    """What `audit.checkpoint_to` names; `connect` gives the way to AWS. Raises CallFailed."""
    if not place.startswith("s3://"):
        return CheckpointFile(place, deployment)
    from infrastructure.aws.checkpoints import CheckpointBucket

    return CheckpointBucket(place, deployment, connect())
