"""Sizes of virtual machines as this subscription finds them: what each has, and where it is offered.

They are the catalogue's, and a few old general ones that Microsoft's own recordings use. Those that Azure
has retired are known but offered nowhere, except the K80 family, which the rehearsal keeps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from cloudrun.catalog import list_types, load_offers
from cloudrun.catalog.loader import InstanceType
from cloudrun.models import Market

PROVIDER = "azure"
REVIVED_FAMILIES = ("standardNCFamily", "standardNCPromoFamily")
# Regions without availability zones (Azure, "List of Azure regions", read 2026-11); others have three.
ZONELESS = [
    "westus",
    "westcentralus",
    "northcentralus",
    "canadaeast",
    "ukwest",
    "francesouth",
    "germanynorth",
    "norwaywest",
    "swedensouth",
    "switzerlandwest",
    "koreasouth",
    "japanwest",
    "southindia",
    "westindia",
    "jioindiacentral",
    "jioindiawest",
    "uaecentral",
    "southafricawest",
    "australiacentral",
    "australiacentral2",
    "australiasoutheast",
    "brazilsoutheast",
]
ZONES = ("1", "2", "3")

_LETTERS = re.compile(r"Standard_[A-Z]+\d+(?:-\d+)?([a-z]*)")
_SECOND_GENERATION_ONLY = re.compile(r"H100|H200|MI300|ND40rs|ND96a")
_FIRST_GENERATION_ONLY = re.compile(r"Standard_(N[CV]\d+r?(_Promo)?|A\d|D\d+(_v2)?)")


@dataclass(frozen=True, slots=True)
class Size:
    """One size of virtual machine."""

    name: str
    family: str
    vcpus: int
    memory_gib: float
    gpus: int
    retired: bool

    @property
    def short(self) -> str:
        """Without Standard_: the column `size` of the list of SKUs."""
        return self.name.partition("_")[2]

    @property
    def promo(self) -> bool:
        return self.name.endswith("_Promo")

    @property
    def takes_premium_disks(self) -> bool:
        """The letter s of "Azure virtual machine sizes naming conventions"."""
        found = _LETTERS.match(self.name)
        return self.name.startswith("Standard_DS") or bool(found and "s" in found[1])

    @property
    def spot(self) -> bool:
        """All but the B series and promotional sizes (Azure, "Use Azure Spot Virtual Machines")."""
        return not self.promo and not self.short.startswith("B")

    @property
    def generations(self) -> tuple[str, ...]:
        """Of Hyper-V, as the pages of the series say."""
        if _FIRST_GENERATION_ONLY.fullmatch(self.name):
            return ("V1",)
        return ("V2",) if _SECOND_GENERATION_ONLY.search(self.name) else ("V1", "V2")


_OLD = (  # of Microsoft's recordings: name, family, vCPUs, GiB
    ("Standard_A0", "standardA0_A7Family", 1, 0.75),
    ("Standard_D1_v2", "standardDv2Family", 1, 3.5),
    ("Standard_D2_v2", "standardDv2Family", 2, 7.0),
    ("Standard_D2s_v3", "standardDSv3Family", 2, 8.0),
)


def find_size(name: str) -> Size | None:
    """In capital or small letters; None for a name that nothing has."""
    return _sizes().get(name.lower())


def sizes() -> list[Size]:
    return list(_sizes().values())


@cache
def regions() -> tuple[str, ...]:
    """Every region that the catalogue has a price for."""
    offers = load_offers(provider=PROVIDER, market=Market.ON_DEMAND)
    return tuple(sorted({offer.region for offer in offers if offer.region}))


@cache
def regions_of(name: str) -> tuple[str, ...]:
    """Where that size can be had."""
    size = find_size(name)
    if size is None or (size.retired and size.family not in REVIVED_FAMILIES):
        return ()
    if size.name in {old[0] for old in _OLD}:
        return regions()
    offers = load_offers(provider=PROVIDER, type=size.name, market=Market.ON_DEMAND)
    return tuple(sorted({offer.region for offer in offers if offer.region}))


def zones_of(region: str) -> tuple[str, ...]:
    return () if region in ZONELESS else ZONES


@cache
def families() -> tuple[str, ...]:
    """Of all sizes, as the list of SKUs spells them."""
    return tuple(dict.fromkeys(size.family for size in sizes()))


@cache
def _sizes() -> dict[str, Size]:
    known = [_of_catalogue(each) for each in list_types(PROVIDER)]
    old = [Size(name, family, vcpus, memory, 0, False) for name, family, vcpus, memory in _OLD]
    return {size.name.lower(): size for size in (*known, *old)}


def _of_catalogue(known: InstanceType) -> Size:
    return Size(
        name=known.type,
        family=known.family,
        vcpus=known.vcpus,
        memory_gib=known.memory_gib,
        gpus=known.gpu_count,
        retired=known.status == "retired",
    )
