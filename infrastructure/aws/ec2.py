"""EC2 of one account and region: every call that Hostledger makes, each in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from application.crash_points import reach
from application.ports import CallFailed, Clock, Instance, Launched, Terminated
from infrastructure.aws.errors import NOT_FOUND, failure
from infrastructure.aws.launches import (
    launch_payload,
    sizes_root_volume,
    user_data_of,
    with_user_data,
)
from infrastructure.aws.throttle import Breaker, Bucket
from infrastructure.settings import Aws
from infrastructure.telemetry.journal import Journal

TAG = "hostledger:"
LAUNCHED_INSTANCES = "RunInstances:instances"
PAGE = 1000
"""Most instances that DescribeInstances gives in a page."""

SPOILS_ALL = NOT_FOUND | {"OperationNotPermitted"}
"""Refusals of one id that spare all the others of its zone too."""

MOST_FILTER_VALUES = 200
"""Most values of one filter."""


class Ec2:
    """The port `Cloud` on boto3. The client is made at the first call; it is thread-safe.

    `on_client` is called with each client that is made: the sandbox attaches itself there. `page`
    is how many instances a page of a sweep has at most.
    """

    def __init__(
        self,
        account: str,
        settings: Aws,
        clock: Clock,
        journal: Journal,
        on_client: Callable[[Any], None] | None = None,
        page: int = PAGE,
    ) -> None:
        if not settings.region:
            raise CallFailed("refused", "NoRegion", "AWS_REGION is not set in awsprov_config.json")
        self.account = account
        self.region = settings.region
        self._settings = settings
        self._clock = clock
        self._journal = journal
        self._on_client = on_client
        self._page = page
        self._clients: dict[bool, Any] = {}
        self._root_devices: dict[str, str] = {}
        self._buckets = {
            name: Bucket(size, rate, self._seconds)
            for name, (size, rate) in settings.buckets.items()
        }
        self._breakers: dict[str, Breaker] = {}

    def _seconds(self) -> float:
        return self._clock.now()[2]

    @property
    def call_time(self) -> float:
        """Seconds that one attempt of a call can last at most."""
        return self._settings.timeouts.connect_timeout + self._settings.timeouts.read_timeout

    def _client(self, launches: bool) -> Any:
        """A launch is tried once here and again by the policy, with its token; what is idempotent
        by nature may be retried by botocore as the site says."""
        if launches not in self._clients:
            import boto3
            from botocore.config import Config
            from botocore.session import Session

            session = Session()
            if self._settings.credential_file:
                session.set_config_variable("credentials_file", self._settings.credential_file)
            if self._settings.credential_file or self._settings.profile != "default":
                session.set_config_variable("profile", self._settings.profile)
            retries = self._settings.config.retries
            proxy = self._settings.proxy
            self._clients[launches] = boto3.session.Session(botocore_session=session).client(
                "ec2",
                region_name=self.region,
                endpoint_url=self._settings.endpoint_url,
                config=Config(
                    connect_timeout=self._settings.timeouts.connect_timeout,
                    read_timeout=self._settings.timeouts.read_timeout,
                    max_pool_connections=self._settings.config.max_pool_connections,
                    retries={"total_max_attempts": 1}
                    if launches
                    else {"total_max_attempts": retries.max_attempts, "mode": retries.mode},
                    proxies={"http": proxy, "https": proxy} if proxy else None,
                    user_agent_extra="hostledger",
                ),
            )
            if self._on_client is not None:
                self._on_client(self._clients[launches])
        return self._clients[launches]

    def _call(self, api: str, method: str, parameters: dict[str, Any], instances: int = 0) -> Any:
        """One call. Raises CallFailed; nothing is sent when a bucket or the breaker says no."""
        breaker = self._breakers.setdefault(api, Breaker(self._seconds))
        bucket = self._buckets.get(api)
        launched = self._buckets.get(LAUNCHED_INSTANCES) if instances else None
        if not breaker.admits():
            raise CallFailed(
                "unreachable", "BreakerOpen", f"{api} of {self.region} failed too often"
            )
        if launched is not None and not launched.has(instances):
            raise CallFailed("throttled", "OwnLimit", "the bucket of launched instances is empty")
        if bucket is not None and not bucket.take():
            raise CallFailed("throttled", "OwnLimit", f"the bucket of {api} is empty")
        if launched is not None:
            launched.take(instances)
        reach(f"aws.{api}.before")
        began = self._seconds()
        try:
            answer = getattr(self._client(api == "RunInstances"), method)(**parameters)
        except Exception as error:
            failed = failure(error)
            self._journal.info(
                "aws", api=api, seconds=self._seconds() - began, kind=failed.kind, code=failed.code
            )
            if failed.kind == "throttled" and bucket is not None:
                bucket.throttled()
            elif failed.kind in ("ambiguous", "unreachable"):
                breaker.failed()
            else:
                breaker.succeeded()
            reach(f"aws.{api}.after")
            raise failed from error
        breaker.succeeded()
        self._journal.debug("aws", api=api, seconds=self._seconds() - began)
        reach(f"aws.{api}.after")
        return answer

    # -- launching --------------------------------------------------------------------------------

    def payload(
        self, content: dict[str, Any], pool: str, count: int, tags: dict[str, str]
    ) -> tuple[dict[str, Any], bytes | None]:
        """The exact call for a template and the body of its user data. Raises CallFailed."""
        try:
            user_data = user_data_of(content)
        except OSError as error:
            raise CallFailed(
                "refused",
                "UserDataUnreadable",
                f"userDataScript {error.filename}: {error.strerror}",
            ) from error
        device = self._root_device(content["image_id"]) if sizes_root_volume(content) else ""
        return launch_payload(content, pool, count, tags, user_data, device), user_data

    def _root_device(self, image_id: str) -> str:
        if image_id not in self._root_devices:
            answer = self._call("DescribeImages", "describe_images", {"ImageIds": [image_id]})
            if not answer["Images"]:
                raise CallFailed("refused", "InvalidAMIID.NotFound", f"no image {image_id}")
            device = answer["Images"][0].get("RootDeviceName")
            if not device:
                raise CallFailed("refused", "NoRootDevice", f"{image_id} names no root device")
            self._root_devices[image_id] = device
        return self._root_devices[image_id]

    def may_launch(self, machines: int) -> bool:
        """Whether buckets and breaker let a launch of so many go at once; takes nothing."""
        breaker = self._breakers.get("RunInstances")
        if breaker is not None and not breaker.admits():
            return False
        bucket = self._buckets.get("RunInstances")
        launched = self._buckets.get(LAUNCHED_INSTANCES)
        return (bucket is None or bucket.has()) and (launched is None or launched.has(machines))

    def launch(self, payload: dict[str, Any], token: str, user_data: bytes | None) -> Launched:
        """Send exactly this payload with this token. Raises CallFailed."""
        parameters = {**with_user_data(payload, user_data), "ClientToken": token}
        answer = self._call("RunInstances", "run_instances", parameters, payload["MaxCount"])
        return Launched(
            [_instance(i) for i in answer["Instances"]], answer["ResponseMetadata"]["RequestId"]
        )

    # -- looking ----------------------------------------------------------------------------------

    def _describe(self, parameters: dict[str, Any]) -> Any:
        """A describe with the site's retries; never the end of a request."""
        for attempt in range(self._settings.describe_retries + 1):
            try:
                return self._call("DescribeInstances", "describe_instances", parameters)
            except CallFailed as failed:
                last = attempt == self._settings.describe_retries
                if last or failed.kind not in ("throttled", "ambiguous", "unreachable"):
                    raise
                if failed.code in ("BreakerOpen", "OwnLimit"):
                    raise
                self._clock.sleep(self._settings.describe_retry_interval * (attempt + 1))
        raise AssertionError("unreachable")

    def sweep(self, deployment: str) -> list[Instance]:
        """Every instance with the deployment's tag, all pages. Raises CallFailed: then nothing is
        known, however many pages came."""
        found: list[Instance] = []
        parameters: dict[str, Any] = {
            "Filters": [{"Name": f"tag:{TAG}deployment", "Values": [deployment]}],
            "MaxResults": self._page,
        }
        while True:
            answer = self._describe(parameters)
            found += [_instance(i) for r in answer["Reservations"] for i in r["Instances"]]
            if not answer.get("NextToken"):
                return found
            parameters["NextToken"] = answer["NextToken"]

    def find(self, machine_ids: Sequence[str], names: Sequence[str] = ()) -> list[Instance]:
        """Those of these instances that exist. By filter, since one unknown id would fail a call
        by id. Raises CallFailed."""
        found: dict[str, Instance] = {}
        size = min(self._settings.batch_sizes.describe_instances, MOST_FILTER_VALUES)
        for name, values in (("instance-id", machine_ids), ("private-dns-name", names)):
            for start in range(0, len(values), size):
                chunk = list(values[start : start + size])
                answer = self._describe({"Filters": [{"Name": name, "Values": chunk}]})
                while True:
                    for reservation in answer["Reservations"]:
                        for item in reservation["Instances"]:
                            found[item["InstanceId"]] = _instance(item)
                    if not answer.get("NextToken"):
                        break
                    answer = self._describe(
                        {
                            "Filters": [{"Name": name, "Values": chunk}],
                            "NextToken": answer["NextToken"],
                        }
                    )
        return list(found.values())

    # -- ending -----------------------------------------------------------------------------------

    def terminate(
        self, machine_ids: Sequence[str], before_each: Callable[[], object] = lambda: None
    ) -> Terminated:
        """Terminate instances of one zone. One id that AWS refuses makes it refuse all of its
        zone, so the list is halved around it: about 2 log2(n) calls, `before_each` before each."""
        accepted: list[str] = []
        refused: list[list[str]] = []
        retry: list[str] = []
        request_id = ""
        waiting = [list(machine_ids)]
        while waiting:
            part = waiting.pop()
            try:
                before_each()
                answer = self._call(
                    "TerminateInstances", "terminate_instances", {"InstanceIds": part}
                )
            except CallFailed as failed:
                if failed.kind in ("throttled", "ambiguous", "unreachable"):
                    retry += part
                elif len(part) == 1 or failed.code not in SPOILS_ALL:
                    refused += [[machine_id, failed.code] for machine_id in part]
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
                continue
            accepted += part
            request_id = answer["ResponseMetadata"]["RequestId"]
        return Terminated(accepted, refused, request_id, retry)

    def tag_with_id(self, instance: Instance) -> None:
        """Tag the instance and its volumes with its id (AWS_TAG_InstanceID). Raises CallFailed."""
        self._call(
            "CreateTags",
            "create_tags",
            {
                "Resources": [instance.machine_id, *instance.volume_ids],
                "Tags": [{"Key": "InstanceID", "Value": instance.machine_id}],
            },
        )


def _instance(item: dict[str, Any]) -> Instance:
    tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", ())}
    launched = item.get("LaunchTime")
    if isinstance(launched, datetime):
        launch_time = int(launched.astimezone(UTC).timestamp())
    else:
        launch_time = 0
    volumes = (m["Ebs"]["VolumeId"] for m in item.get("BlockDeviceMappings", ()) if "Ebs" in m)
    return Instance(
        machine_id=item["InstanceId"],
        state=item["State"]["Name"],
        name=item.get("PrivateDnsName") or "",
        private_ip_address=item.get("PrivateIpAddress") or "",
        launch_time=launch_time,
        zone=(item.get("Placement") or {}).get("AvailabilityZone", ""),
        instance_type=item.get("InstanceType", ""),
        batch_id=tags.get(TAG + "batch", ""),
        provider=tags.get(TAG + "provider", ""),
        deployment=tags.get(TAG + "deployment", ""),
        reason=(item.get("StateReason") or {}).get("Message", ""),
        volume_ids=tuple(volumes),
        tagged_with_id=tags.get("InstanceID") == item["InstanceId"],
    )
