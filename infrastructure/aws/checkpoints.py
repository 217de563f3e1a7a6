"""Checkpoints of the log as objects in an S3 bucket."""

from __future__ import annotations

from application.failures import StoreError
from application.json_text import loads
from application.ports import CallFailed
from infrastructure.aws.client import Connection


class CheckpointBucket:
    """An object each, named by deployment and position. What keeps it from being changed is the
    bucket's object lock with a default retention, which every new object gets.

    A checksum is sent along because S3 asks for one with each upload that object lock keeps
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html).
    """

    def __init__(self, url: str, deployment: str, connection: Connection) -> None:
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/{deployment}".lstrip("/")
        self._connection = connection
        self._last = (0, "")
        self.name = f"s3://{self._bucket}/{self._prefix}"

    def last(self) -> tuple[int, str]:
        """What this process put there last: to ask the bucket would need another permission, and
        one checkpoint more does no harm."""
        return self._last

    def put(self, position: int, line: str) -> str:
        """Upload it; its URL. Raises StoreError."""
        name = f"{self._prefix}/{position:012d}.json"
        try:
            self._connection.call(
                "PutObject",
                {
                    "Bucket": self._bucket,
                    "Key": name,
                    "Body": f"{line}\n".encode(),
                    "ContentType": "application/json",
                    "ChecksumAlgorithm": "SHA256",
                },
                "s3",
            )
        except CallFailed as failed:
            raise StoreError(
                f"s3://{self._bucket}/{name}: the checkpoint cannot be written: {failed}"
            ) from None
        self._last = (position, loads(line)["chain"])
        return f"s3://{self._bucket}/{name}"
