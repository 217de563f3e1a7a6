"""The port `Cloud`: everything that Hostledger asks of one AWS account and region.

What belongs to one API alone is imported when that API is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from application.ports import (
    CallFailed,
    Clock,
    Fleet,
    Instance,
    Launched,
    Notice,
    Planned,
    Shortage,
    Terminated,
)
from domain.capacity import (
    ANY,
    CREATE_FLEET,
    CREATE_GROUP,
    REQUEST_SPOT_FLEET,
    RUN_INSTANCES,
    Pool,
    launch_api,
)
from infrastructure.aws.client import Connection, Watch
from infrastructure.aws.instances import PAGE, Instances, instance_of
from infrastructure.aws.launch_templates import LaunchTemplates, template_data
from infrastructure.aws.machine_data import describes_root_volume
from infrastructure.aws.notices import Notices
from infrastructure.aws.resolving import Resolving
from infrastructure.aws.tags import DEPLOYMENT, launch_tags
from infrastructure.aws.user_data import user_data_of, with_user_data
from infrastructure.settings.aws import Aws
from infrastructure.telemetry.journal import Journal

SMALLEST_PAGE = 5
"""Instances in a page, at least (API_DescribeInstances.html)."""


class _Fleets(Protocol):
    """What every API has that makes a fleet or group."""

    def launch(self, payload: dict[str, Any], token: str) -> Launched: ...

    def listed(self, deployment: str) -> list[Fleet]: ...

    def why_short(self, fleet_id: str) -> list[Shortage]: ...

    def set_target(self, fleet_id: str, target: int, on_demand: int) -> None: ...

    def delete(self, kind: str, fleet_ids: Sequence[str]) -> list[str]: ...


def _payload(api: str) -> Any:
    """What makes the payload of an API that makes a fleet or group."""
    if api == CREATE_FLEET:
        from infrastructure.aws import fleets

        return fleets.payload
    if api == REQUEST_SPOT_FLEET:
        from infrastructure.aws import spot_fleets

        return spot_fleets.payload
    from infrastructure.aws import groups

    return groups.payload


class Ec2:
    """The port `Cloud` on boto3. Clients are made at the first call; they are thread-safe.

    `on_client` is called with each client that is made: the sandbox attaches itself there. `page`
    is how many instances a page of a sweep has at most, `threads` how many calls that look at
    machines by their ids are made at a time.
    """

    def __init__(
        self,
        account: str,
        settings: Aws,
        clock: Clock,
        journal: Journal,
        on_client: Callable[[Any], None] | None = None,
        page: int = PAGE,
        watch: Watch | None = None,
        threads: int = 1,
    ) -> None:
        self.account = account
        self._connection = Connection(settings, clock, journal, on_client, account, watch)
        self.region = self._connection.region
        self._resolving = Resolving(self._connection)
        self._templates = LaunchTemplates(self._connection)
        self._instances = Instances(self._connection, page, threads)
        self._notices = Notices(self._connection)
        self._fleets: dict[str, _Fleets] = {}

    def _of(self, api: str) -> _Fleets:
        if api not in self._fleets:
            self._fleets[api] = self._new(api)
        return self._fleets[api]

    def _new(self, api: str) -> _Fleets:
        if api == CREATE_FLEET:
            from infrastructure.aws import fleets

            return fleets.Fleets(self._connection, self._resolving)
        if api == REQUEST_SPOT_FLEET:
            from infrastructure.aws import spot_fleets

            return spot_fleets.SpotFleets(self._connection)
        if api == CREATE_GROUP:
            from infrastructure.aws import groups

            return groups.Groups(self._connection)
        raise LookupError(f"{api} makes no fleet")

    @property
    def call_time(self) -> float:
        """Seconds that one attempt of a call can last at most."""
        return self._connection.call_time

    def check(self, deployment: str) -> None:
        """Open the connection, and ask for a page of the deployment's instances: what any sweep
        will need. AWS may be too busy to say more than that it is there. Raises CallFailed."""
        try:
            self._connection.call(
                "DescribeInstances",
                {
                    "Filters": [{"Name": f"tag:{DEPLOYMENT}", "Values": [deployment]}],
                    "MaxResults": SMALLEST_PAGE,
                },
            )
        except CallFailed as failed:
            if failed.kind == "throttled":
                return
            where = f"account {self.account}, {self.region}"
            raise CallFailed(failed.kind, failed.code, f"{where}: {failed.message}") from failed

    # -- launching --------------------------------------------------------------------------------

    def plan(
        self,
        content: dict[str, Any],
        pools: Sequence[Pool],
        units: int,
        tags: dict[str, str],
    ) -> Planned:
        """The exact launch call for so many units of a template from these pools (RunInstances
        takes one), with what the template leaves open resolved. Raises CallFailed."""
        body = user_data_of(content)
        site = None
        if "launch_template" in content:
            named = content["launch_template"]
            site = self._resolving.site_template(named["id"], named.get("version", "$Default"))
        image_id = content.get("image_id", "")
        if content.get("image_parameter"):
            image_id = self._resolving.image(content["image_parameter"])
        root_device = ""
        if describes_root_volume(content):
            image = image_id or (site.data.get("ImageId", "") if site is not None else "")
            root_device = self._resolving.root_device(image)
        api = launch_api(content)
        if api == RUN_INSTANCES:
            from infrastructure.aws import run_instances

            (pool,) = pools
            payload, body = run_instances.payload(
                content, pool, units, tags, body, image_id, root_device, site
            )
            return Planned(api, payload, body)
        site_data = site.data if site is not None else None
        if api != CREATE_GROUP:
            pools = self._one_subnet_a_zone(pools)
        data, body = template_data(content, body, image_id, root_device, site_data)
        all_tags = launch_tags(content, tags)
        payload, template = _payload(api)(content, pools, units, all_tags, data)
        return Planned(api, payload, body, template)

    def _one_subnet_a_zone(self, pools: Sequence[Pool]) -> list[Pool]:
        """A fleet refuses a type twice in a zone ("duplicate instance pools"); the subnets left out
        are for a later call. Raises CallFailed."""
        subnets = list(dict.fromkeys(pool.subnet_id for pool in pools if pool.subnet_id != ANY))
        if len(subnets) < 2:
            return list(pools)
        zones = self._resolving.zones(subnets)
        chosen: dict[str, str] = {}
        for subnet in subnets:
            chosen.setdefault(zones[subnet], subnet)
        return [pool for pool in pools if chosen.get(zones[pool.subnet_id]) == pool.subnet_id]

    def may_launch(self, api: str, machines: int) -> bool:
        """Whether the buckets and the breaker let a launch of so many go at once; takes nothing."""
        return self._connection.may_call(api, machines)

    def is_down(self, api: str) -> bool:
        """Whether the breaker of an API is open: it failed too often just now."""
        return self._connection.is_down(api)

    def launch(
        self, api: str, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> Launched:
        """Send exactly this payload with this token, or under its own name. Raises CallFailed."""
        if api != RUN_INSTANCES:
            return self._of(api).launch(payload, token)
        parameters = {**with_user_data(payload, user_data), "ClientToken": token}
        try:
            answer = self._connection.call(api, parameters, machines=payload["MaxCount"])
        except CallFailed as failed:
            if failed.kind == "template_gone":
                # The site's own, which is not ours to make.
                raise CallFailed("refused", failed.code, failed.message) from failed
            raise
        return Launched(
            [instance_of(i) for i in answer["Instances"]], answer["ResponseMetadata"]["RequestId"]
        )

    def dry_run(self, planned: Planned) -> list[tuple[str, str]]:
        """Each call of a plan with what AWS says that would become of it; launches nothing. Raises
        CallFailed when AWS cannot be asked."""
        from infrastructure.aws import dry_runs

        return dry_runs.dry_run(self._connection, planned)

    # -- launch templates -------------------------------------------------------------------------

    def create_launch_template(
        self, payload: dict[str, Any], token: str, user_data: bytes | None
    ) -> str:
        """Make the launch template of this payload, or find the one that has its name; its id.
        Raises CallFailed."""
        return self._templates.create(payload, token, user_data)

    def delete_launch_template(self, name: str) -> None:
        """Delete it; done when there is none. Raises CallFailed."""
        self._templates.delete(name)

    def launch_templates(self, deployment: str) -> list[str]:
        """Names of all launch templates with the deployment's tag. Raises CallFailed."""
        return self._templates.names(deployment)

    # -- fleets and groups ------------------------------------------------------------------------

    def fleets(self, deployment: str, apis: Sequence[str]) -> list[Fleet]:
        """The deployment's fleets and groups, made by these APIs, that may still launch. Raises
        CallFailed."""
        return [fleet for api in apis for fleet in self._of(api).listed(deployment)]

    def why_short(self, api: str, fleet_id: str) -> list[Shortage]:
        """What AWS says of launches of a fleet or group that failed. Raises CallFailed."""
        return self._of(api).why_short(fleet_id)

    def set_target(self, api: str, fleet_id: str, target: int, on_demand: int) -> None:
        """Make it launch no more than `target` units, `on_demand` of them on demand; absolute, and
        nothing is terminated by it. Done when it is gone. Raises CallFailed."""
        self._of(api).set_target(fleet_id, target, on_demand)

    def delete_fleets(self, api: str, fleet_type: str, fleet_ids: Sequence[str]) -> list[str]:
        """Let these launch no more, and go. Those of them that are gone or on their way; machines
        live on, but those of an instant fleet do not: it must have none. Raises CallFailed."""
        return self._of(api).delete(fleet_type, fleet_ids)

    # -- instances --------------------------------------------------------------------------------

    def sweep(self, deployment: str) -> list[Instance]:
        """Every instance with the deployment's tag, all pages. Raises CallFailed: then nothing is
        known, however many pages came."""
        return self._instances.sweep(deployment)

    def find(
        self,
        machine_ids: Sequence[str],
        names: Sequence[str] = (),
        batches: Sequence[str] = (),
    ) -> list[Instance]:
        """Those of these instances that exist, and all of these batches. Raises CallFailed."""
        return self._instances.find(machine_ids, names, batches)

    def may_terminate(self, machines: int) -> bool:
        """Whether buckets and breaker let so many be terminated at once; takes nothing."""
        return self._connection.may_call("TerminateInstances", machines)

    def terminate(
        self, machine_ids: Sequence[str], before_each: Callable[[], object] = lambda: None
    ) -> Terminated:
        """Terminate instances of one zone, halving the list around an id that AWS refuses;
        `before_each` call."""
        return self._instances.terminate(machine_ids, before_each)

    def tag_with_id(self, instance: Instance) -> None:
        """Tag the instance and its volumes with its id (AWS_TAG_InstanceID). Raises CallFailed."""
        self._instances.tag_with_id(instance)

    def instance_types(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """type -> vcpus, cores, memory (MiB) and architectures. Raises CallFailed."""
        return self._resolving.instance_types(names)

    # -- interruptions ----------------------------------------------------------------------------

    def notices(self, keep_others: bool = False) -> list[Notice]:
        """Some of AWS's notices that wait in the site's queue; [] when none does. Other messages
        are taken out of it, unless they are to be kept. Raises CallFailed."""
        return self._notices.read(keep_others)

    def settle_notices(self, handles: Sequence[str]) -> None:
        """Take recorded notices out of the queue. Raises CallFailed."""
        self._notices.settle(handles)
