"""Which sizes this subscription can have in a region, and what each can do: the resource SKUs.

Azure answers for itself whether a size is offered; where it cannot be asked, what a size can do follows from
its name and family.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from cloudrun import catalog
from cloudrun.errors import NotOffered, ProviderError
from cloudrun.providers.answers import kept
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.session import Session

AGE = timedelta(days=1)  # sizes and restrictions change by the month
REFUSAL_AGE = timedelta(minutes=10)  # what was opened on request must not be refused for a day
MACHINES = "virtualMachines"  # resource type of the SKUs that are sizes

# Sizes of before generation 2 images ("Support for generation 2 VMs on Azure", by series).
FIRST_GENERATION = ("standardNCFamily", "standardNCPromoFamily", "standardNVFamily", "standardNVPromoFamily")
# "Azure virtual machine sizes naming conventions": s among the letters behind the number; DS is older.
_LETTERS = re.compile(r"Standard_([A-Z]+)\d+(?:-\d+)?([a-z]*)")


@dataclass(frozen=True, slots=True)
class Sku:
    """One size in one region, as Azure offers it to this subscription."""

    name: str
    family: str  # whose quota counts it
    zones: tuple[str, ...]  # that this subscription may use; none where the region has none
    refused: str  # Azure's reason why the subscription cannot have it there, "" where it can
    premium: bool  # takes Premium_* disks
    spot: bool
    generations: tuple[str, ...]  # of images that it boots: V1, V2


def find_sku(session: Session, type: str, region: str) -> Sku | None:
    """None where Azure does not offer the size in that region at all. Asked once a day a region; a refusal
    is believed for ten minutes. Raises ProviderError where Azure cannot be asked."""
    return region_skus(session, region, (type,)).get(type)


def region_skus(session: Session, region: str, types: Collection[str]) -> dict[str, Sku]:
    """The sizes of the catalogue that the region has, by name. `types` are those that matter to the caller:
    while one of them is refused, Azure is asked again after ten minutes."""

    def ask() -> list[dict[str, Any]]:
        with mapped(region=region, what="sizes offered"):
            rows = session.compute.resource_skus.list(filter=f"location eq '{region}'")
            return [asdict(sku) for sku in parse_skus(rows, region)]

    skus = _loaded(kept(session, f"sizes-{region}", AGE, ask).value)
    if any(refusal(skus.get(name), name, region) for name in types):
        skus = _loaded(kept(session, f"sizes-{region}", REFUSAL_AGE, ask).value)
    return skus


def require_offered(session: Session, type: str, region: str) -> None:
    """Raise NotOffered where Azure says that this subscription cannot have the size there, with what became
    of it. Where Azure cannot be asked, the launch itself tells."""
    try:
        sku = find_sku(session, type, region)
    except ProviderError:
        return
    if why_not := refusal(sku, type, region):
        instead = catalog.type_warning("azure", type)
        raise NotOffered(f"launch {type} in {region}: {why_not}", hint=instead or "cloudrun offers")


def refusal(sku: Sku | None, type: str, region: str) -> str:
    """Why the subscription cannot have the size there, "" where it can."""
    if sku is None:
        return f"Azure does not offer it in {region}"
    if sku.refused:
        return (
            f"Azure does not let this subscription have {type} in {region} ({sku.refused}): its support can"
        )
    return ""


def takes_premium(session: Session, type: str, region: str) -> bool:
    """Whether Premium_* disks fit the size: as Azure says, else as its name does."""
    sku = _known(session, type, region)
    return sku.premium if sku else _premium_by_name(type)


def generations(session: Session, type: str, region: str) -> tuple[str, ...]:
    """The generations of images that the size boots: as Azure says, else as its family has it."""
    sku = _known(session, type, region)
    if sku and sku.generations:
        return sku.generations
    known = catalog.find_type("azure", type)
    return ("V1",) if known and known.family in FIRST_GENERATION else ("V1", "V2")


def parse_skus(rows: Iterable[Mapping[str, Any]], region: str) -> list[Sku]:
    """The machine sizes of the catalogue among the rows, in Azure's own JSON."""
    known = {each.type for each in catalog.list_types("azure")}
    return [
        _parse(row, region)
        for row in rows
        if row.get("resourceType") == MACHINES
        and row.get("name") in known
        and region in {_plain(place) for place in row.get("locations") or ()}
    ]


def _parse(row: Mapping[str, Any], region: str) -> Sku:
    can = {each["name"]: str(each.get("value")) for each in row.get("capabilities") or ()}
    zones = {
        zone
        for info in row.get("locationInfo") or ()
        if _plain(info.get("location", "")) == region
        for zone in info.get("zones") or ()
    }
    refused = ""
    for each in row.get("restrictions") or ():
        if each.get("type") == "Location":
            refused = str(each.get("reasonCode") or "restricted")
        else:  # of zones alone: a machine without a zone is to be had
            zones -= set((each.get("restrictionInfo") or {}).get("zones") or ())
    return Sku(
        name=row["name"],
        family=row.get("family") or "",
        zones=tuple(sorted(zones)),
        refused=refused,
        premium=can.get("PremiumIO", str(_premium_by_name(row["name"]))) == "True",
        spot=can.get("LowPriorityCapable", "True") == "True",
        generations=tuple(filter(None, can.get("HyperVGenerations", "").split(","))),
    )


def _loaded(rows: Iterable[dict[str, Any]]) -> dict[str, Sku]:
    """From the kept JSON, in which tuples are lists."""
    return {
        row["name"]: Sku(**row | {"zones": tuple(row["zones"]), "generations": tuple(row["generations"])})
        for row in rows
    }


def _known(session: Session, type: str, region: str) -> Sku | None:
    try:
        return find_sku(session, type, region)
    except ProviderError:
        return None


def _premium_by_name(type: str) -> bool:
    found = _LETTERS.match(type)
    return found is not None and (found[1] == "DS" or "s" in found[2])


def _plain(place: str) -> str:
    """A region's name as we write it: lists spell it with capitals and spaces too."""
    return place.replace(" ", "").lower()
