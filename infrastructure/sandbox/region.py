"""One region's EC2 state: moto's backend, with instance states that follow the sandbox's clock."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlencode
from zlib import crc32

# Importing moto puts an inert handler into botocore's list; it answers nothing until a moto mock
# is started, which the sandbox never does: moto's objects are driven directly.
from moto.core.exceptions import ServiceException
from moto.core.request import Request
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import InstanceState, StateReason
from moto.ec2.models.security_groups import SecurityGroup
from moto.ec2.responses import EC2Response

from . import shapes
from .subnets import SandboxSubnet
from .wire import AwsError, AwsResponse

# How long a terminated instance is still described. "Terminated instances remain visible after
# termination (for approximately one hour)", API_TerminateInstances.html.
TERMINATED_VISIBLE = 3600.0

STATE_CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
LIVE_STATES = frozenset({"pending", "running", "stopping", "stopped"})

REGIONS = frozenset(RegionsAndZonesBackend.zones)
USER_SHUTDOWN = "Client.UserInitiatedShutdown"

# Asks for something to be done at a time (seconds) of the sandbox's clock.
Schedule = Callable[[float, Callable[[], object]], None]


@dataclass(frozen=True)
class Timing:
    """How long state changes take, in seconds."""

    boot: float = 0.0
    shutdown: float = 0.0


class Keeper(Protocol):
    """What launched a machine and may launch another in its place: a fleet or a group."""

    def lost(self, machine: Machine) -> None:
        """The machine begins to terminate, for whatever reason; this must not raise."""


@dataclass(eq=False)
class SpotRequest:
    """The request that a spot instance fulfils; one for each instance."""

    id: str
    machine: Machine
    made_at: float
    asked: Mapping[str, Any]
    cancelled: bool = False
    # AWS has said that it takes the instance back.
    marked: bool = False

    @property
    def state(self) -> str:
        """active while the instance lives, then closed: it is not opened again."""
        if self.cancelled:
            return "cancelled"
        return "active" if self.machine.state in LIVE_STATES else "closed"


@dataclass(eq=False)
class Machine:
    """An instance: moto's object, and what moto does not keep."""

    instance: Any
    number: int
    reservation: str
    launched_at: float
    profile: str | None = None
    # RunInstances' parameters that it was launched with, nested (see shapes.read).
    asked: Mapping[str, Any] = field(default_factory=dict)
    spot: SpotRequest | None = None
    keeper: Keeper | None = None
    # What a step on the clock must find unchanged; each new order (stop, start, ...) raises it,
    # so that the steps of an order it overtook do nothing.
    order: int = 0

    @property
    def id(self) -> str:
        """The instance id."""
        return str(self.instance.id)

    @property
    def state(self) -> str:
        """The state's name as EC2 writes it."""
        return str(self.instance.state)

    @property
    def zone(self) -> str:
        """The name of its availability zone."""
        return str(self.instance.availability_zone)


# Parameters of RunInstances that are not moto's to read: its own launch templates, profiles in
# its own IAM, and volumes, of which it reads half.
_NOT_MOTO = frozenset(
    {
        "BlockDeviceMappings",
        "DryRun",
        "IamInstanceProfile",
        "InstanceMarketOptions",
        "LaunchTemplate",
        "Placement",
    }
)


def tags_for(asked: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The tags of TagSpecifications: resource type -> key -> value, empty for any other type."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for specification in asked.get("TagSpecifications", ()):
        for pair in specification.get("Tags", ()):
            found[specification.get("ResourceType", "")][pair["Key"]] = pair.get("Value", "")
    return found


class Region(EC2Backend):
    """moto's EC2 of one region with machines on a clock, and cheap look-ups by id.

    moto looks through all instances, images and volumes for each one it launches, which makes
    launching quadratic; the overrides below answer the same from dictionaries.
    """

    def __init__(
        self,
        name: str,
        account: str,
        *,
        now: Callable[[], float],
        schedule: Schedule,
        timing: Timing,
        strict_ids: bool,
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self.spot_asked: dict[str, SpotRequest] = {}
        # What is kept beside moto, by id: moto asks whether what is tagged exists.
        self.beside: list[Mapping[str, object]] = [self.spot_asked]
        # The value of an SSM parameter by its name; raises AwsError.
        self.parameter: Callable[[str], str] = str
        # Told of every new state of a machine.
        self.on_state: Callable[[Machine], None] = lambda machine: None
        self._now = now
        self._schedule = schedule
        self._timing = timing
        self._strict_ids = strict_ids
        self._images_loaded = False
        self._launched = 0
        self._asked_for_spot = 0
        self._vpc: Any = None
        self._cidrs: Iterator[Any] = iter(())
        self._blocks = 0
        self._turn = 0
        super().__init__(name, account)

    # -- what the layer asks ------------------------------------------------------------------

    @property
    def zones_here(self) -> list[str]:
        """The names of the region's zones."""
        return [zone.name for zone in RegionsAndZonesBackend.zones[self.region_name]]

    @property
    def mark(self) -> str:
        """Part of the ids made here, so that accounts and regions differ; like a UUID's middle."""
        digest = f"{crc32(f'{self.account_id}/{self.region_name}'.encode()):08x}"
        return f"{digest[:4]}-{digest[4:]}-0000"

    def networks(self) -> dict[str, str]:
        """The sandbox's own subnets: id -> zone."""
        return {subnet.id: subnet.availability_zone for subnet in self._own_subnets()}

    def add_subnet(self, subnet_id: str, zone: str, prefix: int = 18) -> None:
        """Make a subnet with a chosen id in `zone` (its name, or its letter), if it is not there.

        `prefix` is 18 or longer; 18 has room for 16,379 instances. Raises ValueError when there
        is no such zone, or another subnet with that id.
        """
        full = zone if zone.startswith(self.region_name) else f"{self.region_name}{zone}"
        if full not in self.zones_here:
            raise ValueError(f"{self.region_name} has no zone {zone!r}")
        if any(subnet_id in subnets for subnets in self.subnets.values()):
            if self.networks().get(subnet_id) == full:
                return
            raise ValueError(f"there is another subnet {subnet_id!r}")
        data = next(z for z in RegionsAndZonesBackend.zones[self.region_name] if z.name == full)
        block = self._next_block()
        cidr = next(block.subnets(new_prefix=prefix))
        make: type[Any] = SandboxSubnet
        subnet = make(self, subnet_id, self._vpc.id, str(cidr), None, data, False, False)
        self.associate_default_network_acl_with_subnet(subnet_id, self._vpc.id)
        self.subnets[full][subnet_id] = subnet

    def subnet_for(self, zone: str | None) -> str:
        """The subnet of a launch that names none: the first in the zone, or the first of all.

        Raises InvalidParameterValue when the zone has none.
        """
        for subnet_id, where in self.networks().items():
            if zone in (None, where):
                return subnet_id
        raise AwsError("InvalidParameterValue", f"Invalid availability zone: [{zone}]")

    def free_addresses(self, subnet_id: str) -> int | None:
        """How many more instances a subnet has room for; None for one that moto made."""
        subnet = self.get_subnet(subnet_id)
        return subnet.free_addresses if isinstance(subnet, SandboxSubnet) else None

    def know_images(self, image_ids: Sequence[str]) -> None:
        """Make images that are asked for by id, or with strict ids refuse unknown ones."""
        if self._strict_ids:
            self.load_public_images()
        for image_id in image_ids:
            if image_id in self.amis:
                continue
            if self._strict_ids:
                message = f"The image id '[{image_id}]' does not exist"
                raise AwsError("InvalidAMIID.NotFound", message)
            self.amis[image_id] = Ami(
                self,
                image_id,
                name=image_id,
                description="made by the sandbox",
                public=True,
                virtualization_type="hvm",
                architecture="x86_64",
                hypervisor="xen",
                root_device_type="ebs",
                root_device_name="/dev/xvda",
                region_name=self.zones_here[0],
            )

    def know_subnets(self, subnet_ids: Sequence[str]) -> None:
        """Make subnets that are named by id, zone by zone in turn, or refuse unknown ones."""
        for subnet_id in subnet_ids:
            if any(subnet_id in subnets for subnets in self.subnets.values()):
                continue
            if self._strict_ids:
                message = f"The subnet ID '{subnet_id}' does not exist"
                raise AwsError("InvalidSubnetID.NotFound", message)
            zones = self.zones_here[:3]
            self.add_subnet(subnet_id, zones[self._turn % len(zones)])
            self._turn += 1

    def know_groups(self, group_ids: Sequence[str]) -> None:
        """Make security groups that are named by id, or refuse unknown ones."""
        for group_id in group_ids:
            if self.get_security_group_from_id(group_id) is not None:
                continue
            if self._strict_ids:
                message = f"The security group '{group_id}' does not exist"
                raise AwsError("InvalidGroup.NotFound", message)
            vpc_id = self._network().id
            make: type[Any] = SecurityGroup
            group = make(self, group_id, group_id, "made by the sandbox", vpc_id=vpc_id)
            self.groups[vpc_id][group_id] = group

    def know_type(self, instance_type: str) -> None:
        """With strict ids, refuse an instance type that EC2 does not have."""
        if self._strict_ids and instance_type not in INSTANCE_TYPES:
            message = f"Invalid value '{instance_type}' for InstanceType."
            raise AwsError("InvalidParameterValue", message)

    def moto(self, params: Mapping[str, str]) -> AwsResponse:
        """Let moto answer a request whole. Raises InvalidAction for what moto lacks."""
        responder, request = self._responder(params)
        try:
            status, headers, body = responder._dispatch(request)  # what `dispatch` itself calls
        except NotImplementedError as missing:
            # moto says so of actions and of filters alike.
            raise AwsError("InvalidAction", f"The sandbox cannot do this: {missing}") from missing
        text = body if isinstance(body, bytes) else str(body).encode()
        return AwsResponse(
            int(status), {k: str(v) for k, v in headers.items() if k.lower() != "status"}, text
        )

    def launch(self, asked: Mapping[str, Any], count: int) -> list[Machine]:
        """Launch `count` instances as RunInstances would with these parameters (nested)."""
        plain = {name: value for name, value in asked.items() if name not in _NOT_MOTO}
        if interfaces := asked.get("NetworkInterfaces"):
            # moto keeps one interface for each device index; with several network cards the
            # index repeats.
            plain["NetworkInterfaces"] = [
                interface | {"DeviceIndex": index} for index, interface in enumerate(interfaces)
            ]
        # moto launches MinCount instances.
        plain |= {"MinCount": count, "MaxCount": count}
        params = {"Action": "RunInstances"} | shapes.flat("RunInstances", plain)
        responder, request = self._responder(params)
        responder.setup_class(request)
        try:
            # moto reads the parameters, but renders nothing: its XML of 1,000 instances takes
            # longer than all the rest.
            reservation: Any = responder.run_instances().result
        except ServiceException as error:
            raise AwsError(error.code, str(error.message)) from error
        machines = [self.machines[instance.id] for instance in reservation.instances]
        profile = asked.get("IamInstanceProfile", {})
        arn = profile.get("Arn")
        if arn is None and (name := profile.get("Name")):
            arn = f"arn:aws:iam::{self.account_id}:instance-profile/{name}"
        tags = tags_for(asked)
        for machine in machines:
            machine.profile = arn
            machine.asked = asked
            machine.instance.disable_api_termination = asked.get("DisableApiTermination", False)
            self._make_volumes(machine, asked.get("BlockDeviceMappings", ()), tags["volume"])
            if of_interfaces := tags["network-interface"]:
                for nic in machine.instance.nics.values():
                    self.tags[nic.id] = dict(of_interfaces)
            if asked.get("InstanceMarketOptions", {}).get("MarketType") == "spot":
                machine.instance.lifecycle = "spot"
                self._ask_for_spot(machine, tags["spot-instances-request"])
        return machines

    def terminate(self, machine: Machine, reason: str = USER_SHUTDOWN) -> None:
        """Begin to terminate; nothing when that was done before."""
        if machine.state in ("shutting-down", "terminated"):
            return
        self._enter(machine, "shutting-down", reason)
        machine.order += 1
        order = machine.order
        if machine.keeper is not None:
            machine.keeper.lost(machine)

        def end() -> None:
            if machine.order == order:
                self._end(machine, reason)

        self._schedule(self._now() + self._timing.shutdown, end)

    def stop(self, machine: Machine) -> None:
        """Begin to stop a pending or running machine; nothing in any other state."""
        if machine.state in ("pending", "running"):
            self._enter(machine, "stopping", USER_SHUTDOWN)
            self._then(machine, self._timing.shutdown, "stopped", USER_SHUTDOWN)

    def start(self, machine: Machine) -> None:
        """Begin to start a stopped machine; nothing in any other state."""
        if machine.state == "stopped":
            self._enter(machine, "pending")
            self._then(machine, self._timing.boot, "running")

    # -- moto's methods, on the clock and by dictionary -----------------------------------------

    def run_instances(self, *args: Any, **kwargs: Any) -> Any:
        """moto's launch; every instance it makes, for whatever API, becomes a machine."""
        reservation = super().run_instances(*args, **kwargs)
        now = self._now()
        for instance in reservation.instances:
            self._launched += 1
            machine = Machine(instance, self._launched, reservation.id, now)
            self.machines[machine.id] = machine
            instance.launch_time = datetime.fromtimestamp(now, UTC)
            self._name_root(instance)
            self._enter(machine, "pending")
            self._then(machine, self._timing.boot, "running")
        return reservation

    def terminate_instances(self, instance_ids: list[str]) -> list[tuple[Any, InstanceState]]:
        """Terminate on the clock (what moto calls when a fleet is deleted)."""
        return self._each(instance_ids, self.terminate)

    def stop_instances(self, instance_ids: list[str]) -> list[tuple[Any, InstanceState]]:
        """Stop on the clock."""
        return self._each(instance_ids, self.stop)

    def start_instances(self, instance_ids: list[str]) -> list[tuple[Any, InstanceState]]:
        """Start on the clock."""
        return self._each(instance_ids, self.start)

    def get_instance(self, instance_id: str) -> Any:
        instance = self.get_instance_by_id(instance_id)
        return super().get_instance(instance_id) if instance is None else instance

    def get_instance_by_id(self, instance_id: str) -> Any:
        machine = self.machines.get(instance_id)
        if machine is not None:
            return machine.instance
        # While moto launches, its new instances are in the newest reservation only.
        if self.reservations:
            newest = next(reversed(self.reservations.values()))
            for instance in reversed(newest.instances):
                if instance.id == instance_id:
                    return instance
        return None

    def do_resources_exist(self, resource_ids: list[str]) -> bool:
        """What moto asks before it tags; launch templates, fleets and the like are not its own."""
        theirs = [one for one in resource_ids if not any(one in kept for kept in self.beside)]
        return bool(super().do_resources_exist(theirs))

    def describe_images(self, *args: Any, **kwargs: Any) -> Any:
        filters = kwargs.get("filters") or {}
        wanted = filters.get("image-id")
        # A text, not a list: so moto asks for the image of each instance it makes.
        if isinstance(wanted, str) and len(filters) == len(kwargs) == 1 and not args:
            return [self.amis[wanted]] if wanted in self.amis else []
        return super().describe_images(*args, **kwargs)

    def describe_volumes(self, volume_ids: list[str] | None = None, filters: Any = None) -> Any:
        if volume_ids and filters is None and all(v in self.volumes for v in volume_ids):
            return [self.volumes[volume_id] for volume_id in volume_ids]
        return super().describe_volumes(volume_ids, filters)

    def load_public_images(self) -> None:
        """Know the public images that moto lists; they take a while, so only when asked for."""
        if not self._images_loaded:
            self._images_loaded = True
            super()._load_amis()

    def _load_amis(self) -> None:
        """Nothing yet; see load_public_images."""

    # -- parts -----------------------------------------------------------------------------------

    def _responder(self, params: Mapping[str, str]) -> tuple[_Responder, Request]:
        url = f"https://ec2.{self.region_name}.amazonaws.com/"
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        return _Responder(self), Request.from_primitives("POST", url, headers, urlencode(params))

    def _network(self) -> Any:
        """The sandbox's own VPC; made when first needed."""
        if self._vpc is None:
            self._vpc = self.create_vpc("10.0.0.0/16")
            self._cidrs = ipaddress.ip_network("10.0.0.0/16").subnets(new_prefix=18)
            self._blocks = 1
        return self._vpc

    def _next_block(self) -> Any:
        """The next /18 of the VPC, which grows by secondary blocks when it is full."""
        vpc = self._network()
        block = next(self._cidrs, None)
        if block is None:
            more = f"10.{self._blocks}.0.0/16"
            vpc.associate_vpc_cidr_block(more)
            self._blocks += 1
            self._cidrs = ipaddress.ip_network(more).subnets(new_prefix=18)
            block = next(self._cidrs)
        return block

    def _own_subnets(self) -> list[SandboxSubnet]:
        every = [s for subnets in self.subnets.values() for s in subnets.values()]
        own = [subnet for subnet in every if isinstance(subnet, SandboxSubnet)]
        return sorted(own, key=lambda subnet: int(subnet.cidr.network_address))

    def _each(
        self, instance_ids: list[str], order: Callable[[Machine], None]
    ) -> list[tuple[Any, InstanceState]]:
        done = []
        for instance in self.get_multi_instances_by_id(instance_ids):
            machine = self.machines[instance.id]
            before = InstanceState(machine.state, STATE_CODES[machine.state])
            order(machine)
            done.append((instance, before))
        return done

    def _enter(self, machine: Machine, state: str, reason: str | None = None) -> None:
        machine.instance._state = InstanceState(state, STATE_CODES[state])
        if reason is None:
            machine.instance._reason = ""
            machine.instance.state_reason = StateReason()
        else:
            moment = datetime.fromtimestamp(self._now(), UTC)
            words = "User initiated" if reason == USER_SHUTDOWN else reason
            machine.instance._reason = f"{words} ({moment:%Y-%m-%d %H:%M:%S} GMT)"
            machine.instance.state_reason = StateReason(f"{reason}: {words}", reason)
        self.on_state(machine)

    def _then(
        self, machine: Machine, seconds: float, state: str, reason: str | None = None
    ) -> None:
        """After `seconds`, put the machine into `state` unless another order came between."""
        machine.order += 1
        order = machine.order

        def step() -> None:
            if machine.order == order:
                self._enter(machine, state, reason)

        self._schedule(self._now() + seconds, step)

    def _end(self, machine: Machine, reason: str) -> None:
        """The machine is terminated: its volumes, interfaces and addresses are free."""
        instance = machine.instance
        instance.terminate()
        for index, nic in instance.nics.items():
            if isinstance(nic.subnet, SandboxSubnet):
                nic.subnet.release(nic.private_ip_address)
            asked = machine.asked.get("NetworkInterfaces") or [{}]
            if asked[min(index, len(asked) - 1)].get("DeleteOnTermination", True):
                self.enis.pop(nic.id, None)
                self.tags.pop(nic.id, None)
            else:
                nic.instance, nic.status = None, "available"
        self._enter(machine, "terminated", reason)
        self._schedule(self._now() + TERMINATED_VISIBLE, lambda: self._forget(machine))

    def _name_root(self, instance: Any) -> None:
        """moto attaches the default root volume as /dev/sda1, whatever the image's root is."""
        volumes, root = instance.block_device_mapping, instance.root_device_name
        if root not in volumes and "/dev/sda1" in volumes:
            volumes[root] = volumes.pop("/dev/sda1")
            attachment: Any = self.volumes[volumes[root].volume_id].attachment
            attachment.device = root

    def _make_volumes(
        self, machine: Machine, mappings: Sequence[Mapping[str, Any]], tags: Mapping[str, str]
    ) -> None:
        """Make the volumes of the block device mappings; the root's is there already.

        Defaults are AWS's: gp2 unless said, the root deleted with the machine and others not
        ("Preserve data when an instance is terminated", EC2 User Guide; from memory).
        """
        instance, devices = machine.instance, machine.instance.block_device_mapping
        for mapping in mappings:
            device, asked = mapping.get("DeviceName"), mapping.get("Ebs")
            if device is None or asked is None:
                continue  # an instance store volume, or a device of the image left out
            if device not in devices:
                volume = self.create_volume(size=8, zone_name=machine.zone)
                self.attach_volume(volume.id, machine.id, device, False)
            block = devices[device]
            block.delete_on_termination = asked.get(
                "DeleteOnTermination", device == instance.root_device_name
            )
            volume = self.volumes[block.volume_id]
            volume.size = block.size = asked.get("VolumeSize", volume.size)
            volume.volume_type = asked.get("VolumeType", volume.volume_type)
            volume.iops = asked.get("Iops", volume.iops)
            volume.throughput = asked.get("Throughput", volume.throughput)
            volume.snapshot_id = asked.get("SnapshotId", volume.snapshot_id)
            volume.encrypted = asked.get("Encrypted", volume.encrypted)
            volume.kms_key_id = asked.get("KmsKeyId", volume.kms_key_id)
            if tags:
                self.tags[volume.id] = dict(tags)

    def _ask_for_spot(self, machine: Machine, tags: Mapping[str, str]) -> None:
        self._asked_for_spot += 1
        request = SpotRequest(
            f"sir-{self.mark[:3]}{self._asked_for_spot:05x}", machine, self._now(), machine.asked
        )
        machine.spot = request
        self.spot_asked[request.id] = request
        if tags:
            self.tags[request.id] = dict(tags)

    def _forget(self, machine: Machine) -> None:
        del self.machines[machine.id]
        self.tags.pop(machine.id, None)
        if machine.spot is not None:
            self.spot_asked.pop(machine.spot.id, None)
            self.tags.pop(machine.spot.id, None)
        reservation = self.reservations[machine.reservation]
        reservation.instances.remove(machine.instance)
        if not reservation.instances:
            del self.reservations[machine.reservation]


class _Responder(EC2Response):
    """moto's reader and renderer of requests, bound to one region's state."""

    def __init__(self, region: Region) -> None:
        super().__init__()
        self._region = region

    @property
    def ec2_backend(self) -> Any:
        # moto would look its global dictionary up; a sandbox shares nothing with another.
        return self._region

    def get_current_account(self) -> str:
        return str(self._region.account_id)
