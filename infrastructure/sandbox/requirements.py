"""Attribute-based instance type selection: the types that meet InstanceRequirements."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from .pages import any_value
from .wire import AwsError

_MANUFACTURERS = {"AMD": "amd", "Intel": "intel", "AWS": "amazon-web-services", "Apple": "apple"}


def matching(requirements: Mapping[str, Any], architecture: str = "x86_64") -> list[str]:
    """The names of the types that meet an InstanceRequirements structure, the smallest first.

    Defaults are those of API_InstanceRequirements.html: no bare metal and no burstable types.
    Price protection, accelerators by name, and bandwidths of EBS are not looked at. Raises
    MissingParameter without VCpuCount.Min and MemoryMiB.Min.
    """
    for name in ("VCpuCount", "MemoryMiB"):
        if "Min" not in requirements.get(name, {}):
            raise AwsError(
                "MissingParameter", f"InstanceRequirements must have the parameter {name}.Min"
            )
    return [
        name
        for name in _by_size()
        if architecture in INSTANCE_TYPES[name]["ProcessorInfo"]["SupportedArchitectures"]
        and _meets(INSTANCE_TYPES[name], requirements)
    ]


@cache
def _by_size() -> list[str]:
    return sorted(INSTANCE_TYPES, key=lambda name: (*size(name), name))


def size(name: str) -> tuple[int, int]:
    """A type's vCPUs and memory (MiB)."""
    facts = INSTANCE_TYPES[name]
    return int(facts["VCpuInfo"]["DefaultVCpus"]), int(facts["MemoryInfo"]["SizeInMiB"])


def _meets(facts: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    name = facts["InstanceType"]
    cpus, memory = size(name)
    allowed, excluded = asked.get("AllowedInstanceTypes"), asked.get("ExcludedInstanceTypes")
    gpus = facts.get("GpuInfo", {}).get("Gpus", [])
    others = facts.get("InferenceAcceleratorInfo", {}).get("Accelerators", [])
    others += facts.get("FpgaInfo", {}).get("Fpgas", [])
    accelerators = sum(int(one.get("Count", 0)) for one in [*gpus, *others])
    generation = "current" if facts.get("CurrentGeneration") else "previous"
    manufacturer = facts["ProcessorInfo"].get("Manufacturer", "")
    interfaces = facts["NetworkInfo"]["MaximumNetworkInterfaces"]
    disk = facts.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0)
    return (
        _within(cpus, asked.get("VCpuCount"))
        and _within(memory, asked.get("MemoryMiB"))
        and _within(memory / 1024 / cpus, asked.get("MemoryGiBPerVCpu"))
        and _within(accelerators, asked.get("AcceleratorCount"))
        and _within(interfaces, asked.get("NetworkInterfaceCount"))
        and _within(disk, asked.get("TotalLocalStorageGB"))
        and (not allowed or any_value([name], _patterns(allowed)))
        and not (excluded and any_value([name], _patterns(excluded)))
        and _may_be(facts.get("BareMetal", False), asked.get("BareMetal", "excluded"))
        and _may_be(
            facts.get("BurstablePerformanceSupported", False),
            asked.get("BurstablePerformance", "excluded"),
        )
        and _may_be(
            facts.get("InstanceStorageSupported", False), asked.get("LocalStorage", "included")
        )
        and generation in asked.get("InstanceGenerations", (generation,))
        and _MANUFACTURERS.get(manufacturer, manufacturer)
        in asked.get("CpuManufacturers", (_MANUFACTURERS.get(manufacturer, manufacturer),))
    )


def _patterns(texts: list[str]) -> list[str]:
    # "If you specify c5*, Amazon EC2 will allow the entire C5 instance family" (the same page).
    return [text if "." in text or text.endswith("*") else f"{text}.*" for text in texts]


def _within(value: float, limits: Mapping[str, float] | None) -> bool:
    if limits is None:
        return True
    return limits.get("Min", value) <= value <= limits.get("Max", value)


def _may_be(has: bool, wish: str) -> bool:
    return has if wish == "required" else wish == "included" or not has
