"""Ids: a prefix and 128 random bits in lower-case hex, and the token that derives from them."""

from __future__ import annotations

import sys

__all__ = [
    "ARCHIVE",
    "BATCH",
    "REQUEST",
    "RETURN",
    "TERMINATION",
    "TOKEN",
    "is_id",
    "launch_token",
    "new_id",
    "sha256",
]

try:
    # hashlib would load OpenSSL: 3 ms of a command that lasts 18.
    if sys.version_info >= (3, 12):
        from _sha2 import sha256
    else:
        from _sha256 import sha256
except ImportError:
    from hashlib import sha256

ARCHIVE = "arc-"
REQUEST = "req-"
RETURN = "ret-"
BATCH = "bat-"
TERMINATION = "ter-"
TOKEN = "tok-"


def new_id(prefix: str, random: bytes) -> str:
    """An id from 16 random bytes."""
    return prefix + random.hex()


def is_id(prefix: str, text: object) -> bool:
    """Whether text is an id of ours in its one printed form."""
    return (
        isinstance(text, str)
        and len(text) == len(prefix) + 32
        and text.startswith(prefix)
        and not text[len(prefix) :].strip("0123456789abcdef")
    )


def launch_token(
    deployment: str,
    incarnation: int,
    account: str,
    region: str,
    place: str,
    batch_id: str,
    epoch: int,
) -> str:
    """The ClientToken of one launch call: the same for the same intent, on whatever machine.

    64 ASCII characters, EC2's limit. The region and the place (zone or subnet) are in it because
    EC2 leaves them out when it compares the parameters of a repeated token
    (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html).
    """
    parts = (deployment, str(incarnation), account, region, place, batch_id, str(epoch))
    return str(sha256("\n".join(parts).encode()).hexdigest())
