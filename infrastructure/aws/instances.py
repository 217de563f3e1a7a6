"""Instances of one account and region: described, terminated, tagged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from application.ports import CallFailed, Instance, Terminated
from application.threads import in_threads
from domain.capacity import ON_DEMAND, SPOT
from infrastructure.aws import tags
from infrastructure.aws.client import Connection
from infrastructure.aws.errors import NOT_FOUND

PAGE = 1000
"""Most instances that DescribeInstances gives in a page."""

SPOILS_ALL = NOT_FOUND | {"OperationNotPermitted"}
"""Refusals of one id that spare all the others of its zone too."""

MOST_FILTER_VALUES = 200
"""Most values of one filter."""

INTERRUPTED = frozenset({"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"})
"""Codes of the reason (API_StateReason.html) of an instance that AWS took back."""

_FLEET_TAGS = ("aws:ec2:fleet-id", "aws:ec2spot:fleet-request-id", "aws:autoscaling:groupName")


class Instances:
    """`page` is how many instances a page of a sweep has at most, `threads` how many calls by id
    are made at a time."""

    def __init__(self, connection: Connection, page: int, threads: int = 1) -> None:
        self._connection = connection
        self._threads = threads
        self._settings = connection.settings
        self._page = page

    def _describe(self, parameters: dict[str, Any]) -> Any:
        """A describe with the site's retries; never the end of a request."""
        for attempt in range(self._settings.describe_retries + 1):
            try:
                return self._connection.call("DescribeInstances", parameters)
            except CallFailed as failed:
                last = attempt == self._settings.describe_retries
                if last or failed.kind not in ("throttled", "ambiguous", "unreachable"):
                    raise
                if failed.code in ("BreakerOpen", "OwnLimit"):
                    raise
                self._connection.clock.sleep(self._settings.describe_retry_interval * (attempt + 1))
        raise AssertionError("unreachable")

    def sweep(self, deployment: str) -> list[Instance]:
        """Every instance with the deployment's tag, all pages. Raises CallFailed: then nothing is
        known, however many pages came."""
        found: list[Instance] = []
        parameters: dict[str, Any] = {
            "Filters": [{"Name": f"tag:{tags.DEPLOYMENT}", "Values": [deployment]}],
            "MaxResults": self._page,
        }
        while True:
            answer = self._describe(parameters)
            found += [instance_of(i) for r in answer["Reservations"] for i in r["Instances"]]
            if not answer.get("NextToken"):
                return found
            parameters["NextToken"] = answer["NextToken"]

    def find(
        self, machine_ids: Sequence[str], names: Sequence[str], batches: Sequence[str]
    ) -> list[Instance]:
        """Those of these instances that exist, and all of these batches. By filter, since one
        unknown id would fail a call by id. Raises CallFailed."""
        size = min(self._settings.batch_sizes.describe_instances, MOST_FILTER_VALUES)
        chunks = [
            (name, list(values[start : start + size]))
            for name, values in (
                ("instance-id", machine_ids),
                ("private-dns-name", names),
                (f"tag:{tags.BATCH}", batches),
            )
            for start in range(0, len(values), size)
        ]
        parts = in_threads(self._threads, self._matching, chunks)
        return list({instance.machine_id: instance for part in parts for instance in part}.values())

    def _matching(self, chunk: tuple[str, list[str]]) -> list[Instance]:
        """Those with one of these values of a filter. Raises CallFailed."""
        name, values = chunk
        found: list[Instance] = []
        parameters: dict[str, Any] = {"Filters": [{"Name": name, "Values": values}]}
        while True:
            answer = self._describe(parameters)
            for reservation in answer["Reservations"]:
                found += map(instance_of, reservation["Instances"])
            if not answer.get("NextToken"):
                return found
            parameters["NextToken"] = answer["NextToken"]

    def terminate(
        self, machine_ids: Sequence[str], before_each: Callable[[], object]
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
                answer = self._connection.call(
                    "TerminateInstances", {"InstanceIds": part}, machines=len(part)
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
        # The machine last: tagged, it counts as done.
        resources = [*instance.volume_ids, instance.machine_id]
        size = self._settings.batch_sizes.create_tags
        for start in range(0, len(resources), size):
            self._connection.call(
                "CreateTags",
                {
                    "Resources": resources[start : start + size],
                    "Tags": [{"Key": "InstanceID", "Value": instance.machine_id}],
                },
            )


def instance_of(item: dict[str, Any]) -> Instance:
    """An instance as EC2 describes it."""
    has = tags.of(item.get("Tags"))
    launched = item.get("LaunchTime")
    if isinstance(launched, datetime):
        launch_time = int(launched.astimezone(UTC).timestamp())
    else:
        launch_time = 0
    volumes = (m["Ebs"]["VolumeId"] for m in item.get("BlockDeviceMappings", ()) if "Ebs" in m)
    reason = item.get("StateReason") or {}
    return Instance(
        machine_id=item["InstanceId"],
        state=item["State"]["Name"],
        name=item.get("PrivateDnsName") or "",
        private_ip_address=item.get("PrivateIpAddress") or "",
        launch_time=launch_time,
        zone=(item.get("Placement") or {}).get("AvailabilityZone", ""),
        instance_type=item.get("InstanceType", ""),
        batch_id=has.get(tags.BATCH, ""),
        provider=has.get(tags.PROVIDER, ""),
        deployment=has.get(tags.DEPLOYMENT, ""),
        reason=reason.get("Message", ""),
        volume_ids=tuple(volumes),
        tagged_with_id=has.get("InstanceID") == item["InstanceId"],
        price_type=SPOT if item.get("InstanceLifecycle") == "spot" else ON_DEMAND,
        fleet_id=next((has[name] for name in _FLEET_TAGS if has.get(name)), ""),
        interrupted=reason.get("Code") in INTERRUPTED,
    )
