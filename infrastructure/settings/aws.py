"""How AWS is reached, and how sparingly it is asked."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from infrastructure.settings.kinds import (
    Count,
    Endpoint,
    Number,
    OfThousand,
    Path,
    Rate,
    Region,
    Seconds,
    SecondsOrZero,
    Section,
    Text,
    Whole,
    is_address,
)

SAFE_SETTLE_GAP = 300
"""Seconds: a shorter time between the settling sweeps may miss machines that AWS lists late."""

NON_MUTATING, MUTATING = "NonMutating", "Mutating"
"""The kinds of the APIs that have no bucket by their own name: each has one of its own."""

DOCUMENTED_BUCKETS: Mapping[str, tuple[float, float]] = {
    "RunInstances": (5, 2),
    "TerminateInstances": (100, 5),
    "DescribeInstances": (50, 10),
    "CreateTags": (100, 10),
    NON_MUTATING: (100, 20),
    MUTATING: (50, 5),
    "RunInstances:instances": (1000, 2),
    # From memory, unlike the others.
    "TerminateInstances:instances": (1000, 20),
}
"""EC2's own token buckets (size, refill per second) of an account and region."""
DEFAULT_BUCKETS: Mapping[str, tuple[float, float]] = {
    api: (size * 8 / 10, refill * 8 / 10) for api, (size, refill) in DOCUMENTED_BUCKETS.items()
}
"""80 % of EC2's: the rest is for everybody else in the account."""


def _role(arn: str | None) -> str | None:
    if arn is None or re.fullmatch(r"arn:[a-z-]+:iam::[0-9]{12}:role/\S+", arn):
        return arn
    raise ValueError("a role's ARN such as arn:aws:iam::123456789012:role/name is needed")


def _external_id(text: str | None) -> str | None:
    if text is None or re.fullmatch(r"[\w+=,.@:/-]{2,1224}", text, re.ASCII):
        return text
    raise ValueError("2 to 1224 letters, digits and +=,.@:/_- are needed")


def _proxy(url: str | None) -> str | None:
    if url is None or (is_address(url) and re.fullmatch(r"https?://[^/?#]+:[0-9]+/?", url)):
        return url
    raise ValueError("a proxy is given as http://host:port")


def _bucket(value: object) -> object:
    shape = ValueError("[size, refill per second] is needed, such as [4, 1.6]")
    if isinstance(value, str):  # from the environment
        try:
            value = json.loads(value)
        except ValueError:
            raise shape from None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise shape
    return value


Retries = Annotated[Whole, Field(ge=0, le=10)]
Size = Annotated[Number, Field(ge=1, allow_inf_nan=False)]
Bucket = Annotated[tuple[Size, Rate], BeforeValidator(_bucket)]
Role = Annotated[Text, AfterValidator(_role)]
ExternalId = Annotated[Text, AfterValidator(_external_id)]


class BatchSizes(Section):
    """Ids in one call by id."""

    describe_instances: OfThousand = 200
    """Machines that one DescribeInstances names, at most 200, which is what EC2 takes. Where a look
    at all takes fewer calls, by pages of 1,000, those that are changing are not asked for by id."""
    terminate_instances: OfThousand = 200
    """Most machines in one TerminateInstances."""
    create_tags: OfThousand = 200
    """Most resources in one CreateTags: with `tag_instance_id` a machine and its volumes, which
    get the machine's id."""


class Timeouts(Section):
    """Seconds, of every AWS call."""

    connect_timeout: Seconds = 3
    """Seconds to connect to AWS. `inline`: at most a tenth of `worker.turn_budget`."""
    read_timeout: Seconds = 30
    """Seconds to wait for AWS's answer. `inline`: at most four tenths of `worker.turn_budget`."""


class BotoRetries(Section):
    """botocore's own retries; `max_attempts` counts the first attempt too."""

    max_attempts: Count = 1
    """Attempts by botocore, the first one included; a launch has one. `inline`: one."""
    mode: Literal["legacy", "standard", "adaptive"] = "standard"
    """How botocore retries, by its own name for it; without effect on one attempt. Launches do not
    use it."""


class BotoConfig(Section):
    """What is handed to botocore as it is."""

    max_pool_connections: Count = 10
    """Connections to AWS that botocore keeps."""
    retries: BotoRetries = BotoRetries()


class Aws(Section):
    """How AWS is reached and how sparingly it is asked; times in seconds."""

    region: Region = None
    """A region code. Needed by the first AWS call, not for reading templates."""
    endpoint_url: Endpoint = None
    """EC2's address, when it is not the region's public one; without a scheme it is https."""
    credential_file: Path = None
    """An AWS credentials file, an absolute path. None: whatever boto3 finds by itself, such as the
    instance profile."""
    profile: Annotated[str, Field(min_length=1)] = "default"
    """The profile to take, of `credential_file` or, without one, of the files that boto3 finds.
    Without a file, `default` leaves the choice to boto3 (AWS_PROFILE)."""
    credential_script: Text = None
    """A program, with its arguments, that prints credentials as JSON: AccessKeyId,
    SecretAccessKey, SessionToken and Expiration, as AWS's credential_process does. It is run
    again before they end and must be done within 6 s. None: no program."""
    credential_renew_margin: SecondsOrZero = 300
    """Seconds before their end at which credentials of `credential_script` or `assume_role` are
    renewed."""
    assume_role: Role = None
    """The ARN of a role that is assumed with these credentials, for all calls. None: none is."""
    external_id: ExternalId = None
    """The external id that the role's trust policy asks for. None: none is sent."""
    proxy: Annotated[Text, AfterValidator(_proxy)] = None
    """The proxy to AWS, as http://host:port. None: whatever boto3 finds by itself (HTTPS_PROXY)."""
    max_inflight: Count = 4
    """Most launches under way: those begun in a turn and those whose outcome is still open."""
    token_safe_age: SecondsOrZero = 3600
    """Seconds. An older intent is never sent again: AWS may have forgotten its token."""
    settle_gap: SecondsOrZero = SAFE_SETTLE_GAP
    """Seconds between the two sweeps that settle a doubtful launch by its tag. Below 300 a machine
    that AWS lists late may be missed and launched twice."""
    sweep_interval: Seconds = 60
    """Seconds from one complete sweep to the next."""
    launch_chunk: OfThousand = 100
    """Most machines in one RunInstances."""
    fleet_chunk: OfThousand = 500
    """Most machines in one launch by a fleet or group."""
    pending_timeout: Seconds = 180
    """Seconds after which a machine that EC2, asked once more, still shows pending is
    terminated."""
    creation_timeout: Seconds = 600
    """Seconds in which HostFactory was calling and never named a request, or a machine among its
    hosts: then the request is cancelled, or the machine returned."""
    tag_instance_id: bool = False
    """Whether a running machine and its volumes get the tag InstanceID, with the machine's id."""
    interruption_queue: Endpoint = None
    """The URL of the SQS queue into which EventBridge puts EC2's interruption warnings and
    rebalance recommendations. None: an interruption is seen by the next sweep."""
    spot_terminate_on_reclaim: bool = False
    """Whether a returned machine that AWS is about to take back is terminated at once. Without,
    its end is left to AWS."""
    batch_sizes: BatchSizes = BatchSizes()
    timeouts: Timeouts = Timeouts()
    config: BotoConfig = BotoConfig()
    launch_retries: Retries = 0
    """Further attempts at once of a launch that failed for a while, with the same token; later
    turns go on in any case. `inline`: 0."""
    describe_retries: Retries = 2
    """Further attempts at once of a DescribeInstances that failed for a while. `inline`: 0."""
    describe_retry_interval: Annotated[SecondsOrZero, Field(le=3600)] = 0.5
    """Seconds before the first of these; before the second twice as many, and so on."""
    buckets: dict[str, Bucket] = Field(default_factory=lambda: dict(DEFAULT_BUCKETS))
    """Our own limit of this API as [size, refill per second], by default 80 % of EC2's: calls, or
    machines launched by whatever call for RunInstances:instances, terminated for
    TerminateInstances:instances. NonMutating and Mutating are for each API without a key of its
    own. Those not named keep their defaults."""

    @field_validator("buckets", mode="before")
    @classmethod
    def _keep_other_buckets(cls, value: object) -> object:
        return {**DEFAULT_BUCKETS, **value} if isinstance(value, dict) else value
