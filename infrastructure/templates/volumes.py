"""EBS volumes: what EC2 takes of each type.

The limits are those of EbsBlockDevice
(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EbsBlockDevice.html), the ratios those
of https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from infrastructure.templates.problems import field_problem
from infrastructure.templates.values import SnapshotId, Text, Whole

DEFAULT_TYPE: Final = "gp2"
GP3_IOPS = 3000
"""What a gp3 volume has when nothing is asked for."""
GP3_IOPS_PER_THROUGHPUT = 4
"""A gp3 volume gives at most 0.25 MiB/s per IOPS."""
LARGEST, MOST_IOPS, LEAST_THROUGHPUT, MOST_THROUGHPUT = 65_536, 256_000, 125, 2000
"""GiB, IOPS and MiB/s of any volume."""


class _Limits(NamedTuple):
    sizes: tuple[int, int]
    iops: tuple[int, int] | None = None
    per_gib: int = 0
    always: int = 0


_LIMITS = {
    "gp2": _Limits((1, 16_384)),
    "gp3": _Limits((1, LARGEST), (GP3_IOPS, 80_000), 500, GP3_IOPS),
    "io1": _Limits((4, 16_384), (100, 64_000), 50, 100),
    "io2": _Limits((4, LARGEST), (100, MOST_IOPS), 1000, 100),
    "st1": _Limits((125, 16_384)),
    "sc1": _Limits((125, 16_384)),
    "standard": _Limits((1, 1024)),
}
PROVISIONED = ("io1", "io2")


def volume_problem(
    kind: str | None, size: int | None, iops: int | None, throughput: int | None
) -> tuple[str, str] | None:
    """What EC2 would refuse: one of type, size, iops and throughput, and why."""
    limits = _LIMITS[kind or DEFAULT_TYPE]
    if size is not None:
        low, high = limits.sizes
        if size < low:
            return "size", f"should be greater than or equal to {low} GiB for {kind}, not {size}"
        if size > high:
            return "size", f"should be less than or equal to {high} GiB for {kind}, not {size}"
    if iops is None and kind in PROVISIONED:
        return "iops", f"is required with volumeType {kind}"
    if iops is not None:
        if limits.iops is None:
            return "iops", "needs volumeType gp3, io1 or io2"
        low, high = limits.iops
        if iops < low:
            return "iops", f"should be greater than or equal to {low} for {kind}, not {iops}"
        if iops > high:
            return "iops", f"should be less than or equal to {high} for {kind}, not {iops}"
        if size is not None and iops > max(limits.always, size * limits.per_gib):
            return "iops", (
                f"{iops} is more than {limits.per_gib} for each GiB, which is all that {kind} "
                f"gives: {size * limits.per_gib} for {size} GiB"
            )
    if throughput is not None:
        if kind != "gp3":
            return "throughput", "needs volumeType gp3"
        if throughput * GP3_IOPS_PER_THROUGHPUT > (iops or GP3_IOPS):
            return "throughput", (
                f"{throughput} MiB/s needs {throughput * GP3_IOPS_PER_THROUGHPUT} iops, "
                f"and there are {iops or GP3_IOPS}"
            )
    return None


class Volume(BaseModel):
    """A data volume that each machine gets, besides the root volume."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    device_name: Annotated[
        str, StringConstraints(strip_whitespace=True, pattern=r"^(/dev/\S+|xvd[a-z]{1,2}|sd[a-z])$")
    ]
    size: Annotated[Whole, Field(ge=1, le=LARGEST)] | None = None
    type: Literal["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"] | None = None
    iops: Annotated[Whole, Field(ge=100, le=MOST_IOPS)] | None = None
    throughput: Annotated[Whole, Field(ge=LEAST_THROUGHPUT, le=MOST_THROUGHPUT)] | None = None
    encrypted: bool | None = None
    kms_key_id: Text | None = None
    snapshot_id: SnapshotId | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        where = f"volumes.{self.device_name}"
        if self.size is None and self.snapshot_id is None:
            raise field_problem(where, "needs a size or a snapshotId")
        found = volume_problem(self.type, self.size, self.iops, self.throughput)
        if found:
            raise field_problem(f"{where}.{found[0]}", found[1])
        self.encrypted = encryption(where, self.encrypted, self.kms_key_id)
        return self

    def content(self) -> dict[str, object]:
        """The volume as a template's content has it."""
        said = self.model_dump(exclude_none=True)
        return {"device": said.pop("device_name"), **said}


def encryption(where: str, encrypted: bool | None, kms_key_id: str | None) -> bool | None:
    """A key means encryption. Raises a field problem where that is ruled out."""
    if kms_key_id is None:
        return encrypted
    if encrypted is False:
        field = f"{where}.kmsKeyId" if where else "kmsKeyId"
        raise field_problem(field, "has no use with encrypted false")
    return True
