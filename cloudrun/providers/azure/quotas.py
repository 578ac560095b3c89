"""How many vCPUs the subscription may have in a region: Azure's usages.

A machine on demand is counted twice, by its family and by the regional total; spot machines of all families
share one pool. Machines that are deallocated are counted too ("Check vCPU quotas", read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from cloudrun.catalog import InstanceType
from cloudrun.models import Market
from cloudrun.providers.answers import kept
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.session import Session

AGE = timedelta(minutes=15)  # usages count what runs
REFUSAL_AGE = timedelta(minutes=1)  # a machine that has just ended must not stand in the way
TOTAL, SPOT_POOL = "cores", "lowPriorityCores"  # names of usages, as catalog/quotas.csv has them


@dataclass(frozen=True, slots=True)
class Usage:
    """One quota of one region, in vCPUs."""

    name: str  # as Azure shows it
    limit: int
    used: int


def region_usages(
    session: Session, region: str, types: Sequence[InstanceType], markets: Sequence[Market]
) -> dict[str, Usage]:
    """By squeezed name. One question a quarter of an hour, or a minute while one of the types would be
    refused. Raises Credentials where the account may not ask."""

    def ask() -> dict[str, Any]:
        with mapped(region=region, what="quotas"):
            usages = parse_usages(session.compute.usage.list(region))
        return {name: asdict(usage) for name, usage in usages.items()}

    usages = _loaded(kept(session, f"usages-{region}", AGE, ask).value)
    if any(too_small(usages, region, known, market) for known in types for market in markets):
        usages = _loaded(kept(session, f"usages-{region}", REFUSAL_AGE, ask).value)
    return usages


def too_small(
    usages: Mapping[str, Usage], region: str, known: InstanceType, market: Market, family: str = ""
) -> str:
    """Why the subscription can launch no such machine there, "" when it can or when that is not known.
    family: as the list of sizes names it, else the catalogue's."""
    counting = (SPOT_POOL,) if market is Market.SPOT else (family or known.family, TOTAL)
    for name in counting:
        usage = usages.get(squeezed(name))
        if usage and usage.used + known.vcpus > usage.limit:
            return (
                f"the subscription's quota in {region} is {usage.limit} vCPUs, {usage.used} in use, and "
                f"{known.type} needs {known.vcpus} ({usage.name}: ask for more in Azure's portal, Quotas)"
            )
    return ""


def parse_usages(rows: Iterable[Mapping[str, Any]]) -> dict[str, Usage]:
    """The quotas in vCPUs among the rows, in Azure's own JSON."""
    found = {}
    for row in rows:
        name = row["name"]["value"]
        usage = Usage(row["name"].get("localizedValue") or name, int(row["limit"]), int(row["currentValue"]))
        found[squeezed(name)] = usage
    return found


def squeezed(name: str) -> str:
    """A family's name as comparing takes it: the list of sizes and the usages spell the same one in several
    ways (catalog/quotas.csv)."""
    return name.replace(" ", "").lower()


def _loaded(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Usage]:
    return {name: Usage(**row) for name, row in rows.items()}
