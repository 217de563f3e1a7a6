"""The fields of a template, with the types and ranges that a file may give them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from infrastructure.templates import values
from infrastructure.templates.attributes import read_pairs
from infrastructure.templates.aws_shapes import NotAws, conform
from infrastructure.templates.problems import field_problem
from infrastructure.templates.values import Text, Whole
from infrastructure.templates.volumes import (
    DEFAULT_TYPE,
    LARGEST,
    LEAST_THROUGHPUT,
    MOST_IOPS,
    MOST_THROUGHPUT,
    Volume,
    encryption,
    volume_problem,
)

LONGEST_MINUTES = 525_600
MOST_EFA = 32
"""Network cards of the instance types with the most of them."""

_ROOT_NAMES = {"size": "rootDeviceVolumeSize", "iops": "iops", "throughput": "throughput"}


def _requirements(value: object) -> Any:
    try:
        read = conform("ec2", "InstanceRequirementsRequest", value, "abisInstanceRequirements")
    except NotAws as error:
        raise field_problem(error.where, error.problem) from None
    for name in ("VCpuCount", "MemoryMiB"):
        bounds = read.get(name, {})
        where = f"abisInstanceRequirements.{name}"
        if "Min" not in bounds:
            raise field_problem(where, "a minimum is required, such as {Min: 2}")
        if bounds.get("Max", bounds["Min"]) < bounds["Min"]:
            raise field_problem(where, "the maximum is below the minimum")
    if "AllowedInstanceTypes" in read and "ExcludedInstanceTypes" in read:
        raise field_problem(
            "abisInstanceRequirements.AllowedInstanceTypes",
            "AWS takes this or ExcludedInstanceTypes, not both",
        )
    return read


def _interfaces(value: object) -> Any:
    if not isinstance(value, list):
        raise ValueError("a list of AWS's InstanceNetworkInterfaceSpecification is needed")
    shape = "InstanceNetworkInterfaceSpecification"
    try:
        read = [
            conform("ec2", shape, item, f"networkInterfaces.{number}")
            for number, item in enumerate(value, start=1)
        ]
    except NotAws as error:
        raise field_problem(error.where, error.problem) from None
    for number, interface in enumerate(read, start=1):
        if "NetworkInterfaceId" in interface:
            where = f"networkInterfaces.{number}.NetworkInterfaceId"
            raise field_problem(where, "one interface cannot be given to several machines")
    return read


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class MetadataOptions(_Part):
    """How a machine's own metadata may be read (InstanceMetadataOptionsRequest)."""

    http_tokens: Literal["required", "optional"] | None = None
    http_put_response_hop_limit: Annotated[Whole, Field(ge=1, le=64)] | None = None
    http_endpoint: Literal["enabled", "disabled"] | None = None
    instance_metadata_tags: Literal["enabled", "disabled"] | None = None


class CapacityReservation(_Part):
    """Which Capacity Reservation is used; one of the three."""

    preference: Literal["open", "none"] | None = None
    id: values.CapacityReservationId | None = None
    resource_group_arn: values.Arn | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise field_problem(
                "capacityReservation", "one of preference, id and resourceGroupArn is needed"
            )
        return self


class Placement(_Part):
    """Where in a zone a machine is put, besides placementGroupName and tenancy."""

    partition_number: Annotated[Whole, Field(ge=1, le=7)] | None = None
    host_id: values.HostId | None = None
    host_resource_group_arn: values.Arn | None = None
    affinity: Literal["default", "host"] | None = None
    availability_zone: Text | None = None


class AccountOverrides(_Part):
    """What another AWS account has instead of the template's own."""

    image_id: values.Image | None = None
    subnet_id: values.SubnetIds | None = None
    subnet_ids: values.SubnetIds | None = None
    security_group_ids: values.SecurityGroupIds | None = None
    key_name: Text | None = None
    instance_profile: Text | None = None
    launch_template_id: values.LaunchTemplateId | None = None
    launch_template_version: values.LaunchTemplateVersion | None = None
    placement_group_name: Text | None = None
    kms_key_id: Text | None = None
    fleet_role: values.Arn | None = None
    price: Annotated[values.Number, Field(ge=0)] | None = None


AccountName = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class Fields(BaseModel):
    """Every field that is known. In the file they are in camelCase; ORB's snake_case is taken."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    template_id: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
    max_number: Annotated[Whole, Field(ge=-1, le=10_000)]
    attributes: Annotated[dict[str, list[str]], BeforeValidator(read_pairs)] = {}
    price_type: values.PriceType | None = None
    image_id: values.Image | None = None
    subnet_id: values.SubnetIds | None = None
    subnet_ids: values.SubnetIds | None = None
    vm_type: values.InstanceTypes | None = None
    vm_types: values.Weights | None = None
    vm_types_on_demand: values.Weights | None = None
    vm_types_priority: values.Priorities | None = None
    abis_instance_requirements: Annotated[dict[str, Any] | None, BeforeValidator(_requirements)] = (
        None
    )
    security_group_ids: values.SecurityGroupIds | None = None
    key_name: Text | None = None
    instance_tags: values.Tags | None = None
    instance_profile: Text | None = None
    user_data_script: values.Path | None = None
    user_data: values.Assignments | None = None

    root_device_volume_size: Annotated[Whole, Field(ge=1, le=LARGEST)] | None = None
    volume_type: Literal["gp2", "gp3", "io1", "io2", "standard"] | None = None
    iops: Annotated[Whole, Field(ge=100, le=MOST_IOPS)] | None = None
    throughput: Annotated[Whole, Field(ge=LEAST_THROUGHPUT, le=MOST_THROUGHPUT)] | None = None
    encrypted: bool | None = None
    kms_key_id: Text | None = None
    volumes: list[Volume] | None = None
    ebs_optimized: bool | None = None

    provider_api: values.ProviderApi | None = None
    fleet_type: values.FleetType | None = None
    fleet_role: values.Arn | None = None
    allocation_strategy: values.SpotStrategy | None = None
    allocation_strategy_on_demand: values.OnDemandStrategy | None = None
    percent_on_demand: Annotated[Whole, Field(ge=0, le=100)] | None = None
    on_demand_target_capacity_ratio: Annotated[values.Number, Field(ge=0, le=1)] | None = None
    pools_count: Annotated[Whole, Field(ge=0, le=10_000)] | None = None
    max_spot_price: values.Money = None
    spot_price: values.Money = None
    spot_fleet_request_expiry: Annotated[Whole, Field(ge=1, le=LONGEST_MINUTES)] | None = None
    request_validity: Annotated[
        Annotated[int, Field(ge=1, le=LONGEST_MINUTES)] | None,
        BeforeValidator(values.hours_and_minutes),
    ] = None
    fulfilment_deadline: Annotated[Whole, Field(ge=1, le=31_536_000)] | None = None
    all_or_nothing: bool = False

    launch_template_id: values.LaunchTemplateId | None = None
    launch_template_version: values.LaunchTemplateVersion | None = None
    ec2_fleet_config: dict[str, Any] | Text | None = None
    provider_api_spec: dict[str, Any] | None = None
    provider_api_spec_file: Text | None = None
    launch_template_spec: dict[str, Any] | None = None
    launch_template_spec_file: Text | None = None

    tenancy: Literal["default", "dedicated", "host"] | None = None
    placement_group_name: Text | None = None
    placement: Placement | None = None
    capacity_reservation: CapacityReservation | None = None
    metadata_options: MetadataOptions | None = None
    interface_type: Annotated[Literal["interface", "efa"] | None, BeforeValidator(values.lower)] = (
        None
    )
    efa_count: Annotated[Whole, Field(ge=0, le=MOST_EFA)] | None = None
    network_interfaces: Annotated[list[dict[str, Any]] | None, BeforeValidator(_interfaces)] = None
    associate_public_ip_address: bool | None = None
    accounts: dict[AccountName, AccountOverrides] | None = None

    duration_in_hours: Annotated[values.Number, Field(ge=0)] | None = None
    priority: Any = None
    ttl: Any = None

    @model_validator(mode="after")
    def _settle_root_volume(self) -> Self:
        if self.root_device_volume_size is not None and self.volume_type is None:
            # IBM's default; without a type EC2 takes the AMI's.
            self.volume_type = DEFAULT_TYPE
        found = volume_problem(
            self.volume_type, self.root_device_volume_size, self.iops, self.throughput
        )
        if found:
            raise field_problem(_ROOT_NAMES[found[0]], found[1])
        self.encrypted = encryption("", self.encrypted, self.kms_key_id)
        devices = [volume.device_name for volume in self.volumes or ()]
        for device in devices:
            if devices.count(device) > 1:
                raise field_problem(f"volumes.{device}", "is given twice")
        return self


def names() -> list[str]:
    """Every field's name in the file, in the order of the reference."""
    return [to_camel(name) for name in Fields.model_fields]


PARTS: dict[str, type[BaseModel]] = {
    "volumes": Volume,
    "metadataOptions": MetadataOptions,
    "capacityReservation": CapacityReservation,
    "placement": Placement,
    "accounts": AccountOverrides,
}
"""The fields that are objects of ours, with what is in them."""
