"""What an account finds there on its first day: regions, types, where they are offered, images, parameters.

The K80 types that EC2 has retired are offered here, in up to five zones of every region that the
catalogue has a price for. Images are those of the catalogue; their ids are made from region and name,
and their sizes are this double's own: 8 GB for plain Ubuntu as its cloud images have it, 45 GB for the
deep learning images, whose size changes with every release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.ec2.models.instance_types import (
    INSTANCE_TYPE_OFFERINGS,
    INSTANCE_TYPES,
    InstanceType,
    InstanceTypeBackend,
)
from moto.ssm.models import Parameter, ssm_backends

from cloudrun.catalog import find_type, list_types, load_offers
from cloudrun.catalog.loader import InstanceType as Known
from cloudrun.catalog.loader import read_csv
from cloudrun.models import Market
from cloudrun.sim.aws.wire import fits

PROVIDER = "aws"
# Every account has them from its first day (AWS Account Management guide, "Enable or disable AWS Regions").
ENABLED_REGIONS = (
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
)
REVIVED_FAMILIES = ("p2",)
ZONES_OF_REVIVED = 5
UBUNTU_GB, DEEP_LEARNING_GB = 8, 45
_BUILD = "20260901"  # stands where an image's name has its date
_CREATED = datetime(2026, 9, 1, tzinfo=UTC)


@cache
def add_types() -> None:
    """Put the revived types into moto's tables, once for the process."""
    for known in list_types(PROVIDER):
        if known.family not in REVIVED_FAMILIES or known.type in INSTANCE_TYPES:
            continue
        INSTANCE_TYPES[known.type] = _description(known)
        InstanceTypeBackend.instance_types.append(InstanceType(known.type))
        for offer in load_offers(provider=PROVIDER, type=known.type, market=Market.ON_DEMAND):
            _offer(known.type, offer.region)


def enable_regions() -> None:
    """Let DescribeRegions name those alone: moto names all there are, of other partitions too. Idempotent."""
    known = RegionsAndZonesBackend.regions
    RegionsAndZonesBackend.regions = [each for each in known if each.name in ENABLED_REGIONS]


def zones_of(region: str) -> list[str]:
    """The zones of a region, in order; empty for a region that does not exist."""
    return sorted(str(zone.name) for zone in RegionsAndZonesBackend.zones.get(region, []))


def zone_id(region: str, zone: str) -> str:
    """The id that is the same in every account: use1-az1."""
    zones = RegionsAndZonesBackend.zones.get(region, [])
    return next((str(each.zone_id) for each in zones if each.name == zone), "")


@cache
def zones_offering(region: str, type: str) -> tuple[str, ...]:
    """The zones of a region where a type can be had."""
    add_types()
    table = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return tuple(sorted(row["Location"] for row in table if row["InstanceType"] == type))


def is_known(type: str) -> bool:
    """Whether such a type exists or existed: others are a slip of the pen."""
    return type in INSTANCE_TYPES or find_type(PROVIDER, type) is not None


def types_like(patterns: list[str]) -> list[str]:
    """Every type that fits one of the patterns."""
    return [name for name in INSTANCE_TYPES if fits(name, patterns)]


def vcpus_of(type: str) -> int:
    known = find_type(PROVIDER, type)
    if known and known.vcpus:
        return known.vcpus
    return int(INSTANCE_TYPES.get(type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))


def architectures_of(type: str) -> list[str]:
    found = INSTANCE_TYPES.get(type, {}).get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    return [str(each) for each in found]


def add_images(region: str) -> None:
    """The catalogue's images and the parameters that name them. Idempotent."""
    ec2 = ec2_backends[DEFAULT_ACCOUNT_ID][region]
    parameters = ssm_backends[DEFAULT_ACCOUNT_ID][region]._parameters
    for row in _images():
        ami = image_id(region, row["key"])
        if ami in ec2.amis:
            continue
        size_gb = UBUNTU_GB if row["kind"] == "plain OS" else DEEP_LEARNING_GB
        ec2.amis[ami] = _Image(ec2, ami, row, size_gb)
        if row["ssm_parameter"]:
            parameters[row["ssm_parameter"]].append(_parameter(row["ssm_parameter"], ami))


def image_id(region: str, key: str) -> str:
    return "ami-" + hashlib.sha256(f"{region} {key}".encode()).hexdigest()[:17]


def login_user(image: Any) -> str:
    """The user that an image lets in."""
    return "ubuntu" if "ubuntu" in str(image.name or "").casefold() else "ec2-user"


def root_size_gb(image: Any) -> int:
    return int(image.block_device_mappings[0]["Ebs"]["VolumeSize"])


class _Image(Ami):
    """An image whose root disk has a size of its own and goes with its machine, as images of today say."""

    def __init__(self, ec2: Any, id: str, row: dict[str, str], size_gb: int) -> None:
        super().__init__(
            ec2,
            id,
            name=row["ami_name_pattern"].replace("*", _BUILD),
            description=row["kind"],
            owner_id=row["owner_or_publisher"],
            owner_alias="amazon",
            public=True,
            virtualization_type="hvm",
            architecture={"amd64": "x86_64", "arm64": "arm64"}[row["arch"]],
            creation_date=_CREATED,
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name="/dev/sda1",
            region_name=zones_of(ec2.region_name)[0],
        )
        self._size_gb = size_gb

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        [mapping] = super().block_device_mappings
        mapping["Ebs"] |= {"VolumeSize": self._size_gb, "DeleteOnTermination": True, "VolumeType": "gp3"}
        return [mapping]


def _images() -> Iterator[dict[str, str]]:
    """AWS rows that name a bootable image which is still there."""
    for row in read_csv("images.csv"):
        bootable = row["ami_name_pattern"] and row["arch"]
        if row["provider"] == PROVIDER and bootable and not row["status"].startswith("retired"):
            yield row


def _parameter(name: str, value: str) -> Parameter:
    return Parameter(  # type: ignore[abstract] # moto makes them so itself
        account_id=DEFAULT_ACCOUNT_ID,
        name=name,
        value=value,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=_CREATED,
        version=1,
        data_type="aws:ec2:image",
    )


def _offer(type: str, region: str) -> None:
    names = zones_of(region)[:ZONES_OF_REVIVED]
    places = {
        "region": [region] if names else [],
        "availability-zone": names,
        "availability-zone-id": [zone_id(region, name) for name in names],
    }
    for kind, locations in places.items():
        INSTANCE_TYPE_OFFERINGS[kind].setdefault(region, []).extend(
            {"InstanceType": type, "Location": place, "LocationType": kind} for place in locations
        )


def _description(known: Known) -> dict[str, Any]:
    """What DescribeInstanceTypes says of a type that moto no longer has."""
    memory_mib = int(known.gpu_memory_gib * 1024)
    gpu = {
        "Name": known.gpu,
        "Manufacturer": "NVIDIA",
        "Count": known.gpu_count,
        "MemoryInfo": {"SizeInMiB": memory_mib},
    }
    return {
        "InstanceType": known.type,
        "CurrentGeneration": False,
        "FreeTierEligible": False,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "BareMetal": False,
        "Hypervisor": "xen",
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"], "Manufacturer": "Intel"},
        "VCpuInfo": {
            "DefaultVCpus": known.vcpus,
            "DefaultCores": known.vcpus // 2,
            "DefaultThreadsPerCore": 2,
        },
        "MemoryInfo": {"SizeInMiB": int(known.memory_gib * 1024)},
        "InstanceStorageSupported": False,
        "EbsInfo": {"EbsOptimizedSupport": "default", "EncryptionSupport": "supported"},
        "NetworkInfo": {"MaximumNetworkInterfaces": 4, "Ipv4AddressesPerInterface": 15},
        "GpuInfo": {"Gpus": [gpu], "TotalGpuMemoryInMiB": memory_mib * known.gpu_count},
        "PlacementGroupInfo": {"SupportedStrategies": ["cluster", "partition", "spread"]},
        "HibernationSupported": False,
        "BurstablePerformanceSupported": False,
        "DedicatedHostsSupported": False,
        "AutoRecoverySupported": False,
    }
