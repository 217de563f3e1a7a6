"""From the fields of a template to its content: one form of what can be said in several ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.capacity import ON_DEMAND, REQUEST_SPOT_FLEET, RUN_INSTANCES, SPOT, launch_api
from infrastructure.templates.attributes import price_of
from infrastructure.templates.fields import AccountOverrides, Fields
from infrastructure.templates.native import read_call, read_launch_template, read_object
from infrastructure.templates.problems import Refused
from infrastructure.templates.values import ids, is_absent, parameter_of

DEFAULT_VERSION = "$Default"
DEFAULT_EXPIRY = 30
"""Minutes; IBM's default of spotFleetRequestExpiry."""

_SAYS_SPOT = ("fleetRole", "spotPrice", "onDemandTargetCapacityRatio")
"""LSF's files have no priceType: one of these means spot."""
_NEEDS_PRICE_TYPE = (
    "maxSpotPrice",
    "spotFleetRequestExpiry",
    "allocationStrategy",
    "percentOnDemand",
    "poolsCount",
    "requestValidity",
    "durationInHours",
)
"""Fields of spot templates that other plug-ins give to others too: a guess could cost money."""


def content_of(
    fields: Fields, given: Mapping[str, Any], directory: str, files: dict[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A template's content but for its attributes, and notes about single fields.

    `given` is what the file has, `directory` that of the file, and paths of further files that are
    read are added to `files`. Raises Refused.
    """
    api_field, api_spec = _one_of(
        fields, "ec2_fleet_config", "provider_api_spec", "provider_api_spec_file"
    )
    lt_field, lt_spec = _one_of(fields, "launch_template_spec", "launch_template_spec_file")
    content = _plain(fields)
    notes: list[tuple[str, str]] = []
    market, why = _market(fields, given)
    provider = _provider(fields)
    if api_spec is not None:
        api = launch_api({"price_type": market} | ({"provider_api": provider} if provider else {}))
        spec = read_object(api_field, api_spec, directory, files)
        native = read_call(api_field, spec, api)
        content = {**native.content, **content}
        notes += native.notes
        if fields.price_type is None and native.market and not why:
            market = native.market
        if native.call:
            content["native"] = {"api": native.call}
    if lt_spec is not None:
        spec = read_object(lt_field, lt_spec, directory, files)
        data = read_launch_template(lt_field, spec)
        content["native"] = {**content.get("native", {}), "launch_template": data}
    if why:
        notes.append(("priceType", f'is read as "spot" because of {why}'))
    content["price_type"] = market
    if provider is None and content.get("fleet_type"):
        provider = "EC2Fleet"
    if provider and launch_api(content) != launch_api({"provider_api": provider}):
        content["provider_api"] = provider
    _settle_spot(fields, content)
    price, wrong = price_of(fields.attributes)
    if price is not None:
        content["price"] = price
    if wrong:
        notes.append(("attributes.priceInfo", wrong))
    if fields.accounts:
        content["accounts"] = {
            name: _overrides(f"accounts.{name}", said, content)
            for name, said in fields.accounts.items()
        }
    return {name: value for name, value in content.items() if not is_absent(value)}, notes


def _one_of(fields: Fields, *names: str) -> tuple[str, Any]:
    """The spelling and the value of the one that is given; ("", None) for none."""
    said = [(name, getattr(fields, name)) for name in names if getattr(fields, name) is not None]
    if not said:
        return "", None
    alias = [str(Fields.model_fields[name].alias) for name, _ in said]
    if len(said) > 1:
        raise Refused(alias[1], f"give {alias[0]} or {alias[1]}, not both")
    return alias[0], said[0][1]


def _plain(fields: Fields) -> dict[str, Any]:
    """The fields that mean the same whatever the others say."""
    content: dict[str, Any] = {
        "template_id": fields.template_id,
        "max_number": fields.max_number,
        "attributes": None,
        **_image(fields.image_id),
        "subnet_ids": _subnets("", fields.subnet_id, fields.subnet_ids),
        **_types(fields),
        "key_name": fields.key_name,
        "security_group_ids": fields.security_group_ids,
        "instance_tags": fields.instance_tags,
        "instance_profile": fields.instance_profile,
        "user_data_file": fields.user_data_script,
        "user_data_variables": fields.user_data,
        "root_device_volume_size": fields.root_device_volume_size,
        "volume_type": fields.volume_type,
        "iops": fields.iops,
        "root_volume_throughput": fields.throughput,
        "root_volume_encrypted": fields.encrypted,
        "root_volume_kms_key": fields.kms_key_id,
        "volumes": [volume.content() for volume in fields.volumes or ()],
        "fleet_type": fields.fleet_type,
        "allocation_strategy": fields.allocation_strategy,
        "allocation_strategy_on_demand": fields.allocation_strategy_on_demand,
        "percent_on_demand": _percent(fields),
        "pools_count": fields.pools_count or None,
        "max_spot_price": _max_spot_price(fields),
        "fleet_role": fields.fleet_role,
        "launch_template": _launch_template(
            fields.launch_template_id, fields.launch_template_version
        ),
        "tenancy": fields.tenancy,
        "placement_group": fields.placement_group_name,
        "placement": _said(fields.placement),
        "ebs_optimized": fields.ebs_optimized,
        "capacity_reservation": _said(fields.capacity_reservation),
        "metadata_options": _said(fields.metadata_options),
        "interface_type": fields.interface_type if fields.interface_type == "efa" else None,
        "efa_count": fields.efa_count or None,
        "network_interfaces": fields.network_interfaces,
        "associate_public_ip": fields.associate_public_ip_address,
        "all_or_nothing": fields.all_or_nothing or None,
        "fulfilment_deadline": fields.fulfilment_deadline,
    }
    return {
        name: value
        for name, value in content.items()
        if name == "attributes" or (not is_absent(value))
    }


def _said(part: Any) -> dict[str, Any]:
    return part.model_dump(exclude_none=True) if part else {}


def _image(image: str | None) -> dict[str, str | None]:
    parameter = parameter_of(image) if image else None
    return {"image_parameter": parameter} if parameter else {"image_id": image}


def _subnets(where: str, one: list[str] | None, several: list[str] | None) -> list[str] | None:
    if one is not None and several is not None:
        raise Refused(f"{where}subnetIds", "give subnetId or subnetIds, not both")
    return one or several


def _types(fields: Fields) -> dict[str, Any]:
    """LSF's comma list of types is one weight each."""
    listed = ids(fields.vm_type or "")
    if listed and fields.vm_types:
        raise Refused("vmTypes", "give vmType or vmTypes, not both")
    weights = fields.vm_types or (dict.fromkeys(listed, 1) if len(listed) > 1 else None)
    if fields.abis_instance_requirements and (listed or weights or fields.vm_types_on_demand):
        raise Refused("abisInstanceRequirements", "give this or instance types, not both")
    return {
        "vm_type": listed[0] if len(listed) == 1 else None,
        "vm_types": weights,
        "vm_types_on_demand": fields.vm_types_on_demand,
        "vm_types_priority": fields.vm_types_priority,
        "abis": fields.abis_instance_requirements,
    }


def _percent(fields: Fields) -> int | None:
    ratio = fields.on_demand_target_capacity_ratio
    if ratio is not None and fields.percent_on_demand is not None:
        field = "onDemandTargetCapacityRatio"
        raise Refused(field, f"give percentOnDemand or {field}, not both")
    return (round(ratio * 100) if ratio is not None else fields.percent_on_demand) or None


def _max_spot_price(fields: Fields) -> str | None:
    prices = {price for price in (fields.max_spot_price, fields.spot_price) if price is not None}
    if len(prices) > 1:
        raise Refused("spotPrice", "is LSF's name of maxSpotPrice, and they differ")
    return prices.pop() if prices else None


def _launch_template(template_id: str | None, version: str | None) -> dict[str, str] | None:
    if template_id is None:
        return None
    return {"id": template_id, "version": version or DEFAULT_VERSION}


def _market(fields: Fields, given: Mapping[str, Any]) -> tuple[str, str]:
    """The price type, and the field that it was guessed from. Raises Refused."""
    if fields.price_type is not None:
        return fields.price_type, ""
    meant = [name for name in given if given[name] not in (0, "0")]
    for name in _SAYS_SPOT:
        if name in meant:
            return SPOT, name
    if fields.ec2_fleet_config is None:
        for name in _NEEDS_PRICE_TYPE:
            if name in meant:
                problem = 'needs a priceType beside it: "ondemand", "spot" or "heterogeneous"'
                raise Refused(name, problem)
    return ON_DEMAND, ""


def _provider(fields: Fields) -> str | None:
    """The API by name; what only a fleet can do means EC2Fleet."""
    if fields.ec2_fleet_config is not None:
        if fields.provider_api not in (None, "EC2Fleet"):
            raise Refused(
                "ec2FleetConfig", f"needs providerApi EC2Fleet, not {fields.provider_api}"
            )
        return "EC2Fleet"
    if fields.provider_api is None and (fields.abis_instance_requirements or fields.fleet_type):
        return "EC2Fleet"
    return fields.provider_api


def _settle_spot(fields: Fields, content: dict[str, Any]) -> None:
    """What follows for spot and heterogeneous templates, and what has no use for others."""
    if content["price_type"] == ON_DEMAND:
        for name in ("allocation_strategy", "percent_on_demand", "pools_count", "max_spot_price"):
            content.pop(name, None)
    else:
        if "pools_count" in content:
            content.setdefault("allocation_strategy", "lowest-price")
        minutes = fields.spot_fleet_request_expiry or fields.request_validity or DEFAULT_EXPIRY
        content.setdefault("fulfilment_deadline", minutes * 60)
    api = launch_api(content)
    if api == RUN_INSTANCES:
        for name in ("allocation_strategy", "allocation_strategy_on_demand", "pools_count"):
            content.pop(name, None)
    if api != REQUEST_SPOT_FLEET:
        content.pop("fleet_role", None)


def _overrides(where: str, said: AccountOverrides, content: dict[str, Any]) -> dict[str, Any]:
    """What stands in the place of the template's own content in an account."""
    if said.launch_template_version and not said.launch_template_id:
        raise Refused(f"{where}.launchTemplateVersion", "needs launchTemplateId beside it")
    overrides = {
        **_image(said.image_id),
        "subnet_ids": _subnets(f"{where}.", said.subnet_id, said.subnet_ids),
        "security_group_ids": said.security_group_ids,
        "key_name": said.key_name,
        "instance_profile": said.instance_profile,
        "launch_template": _launch_template(said.launch_template_id, said.launch_template_version),
        "placement_group": said.placement_group_name,
        "root_volume_kms_key": said.kms_key_id,
        "fleet_role": said.fleet_role,
        "price": said.price,
    }
    read = {name: value for name, value in overrides.items() if not is_absent(value)}
    # An image of one kind must not stand beside the template's own of the other.
    for one, other in (("image_id", "image_parameter"), ("image_parameter", "image_id")):
        if one in read and content.get(other):
            read[other] = ""
    return read
