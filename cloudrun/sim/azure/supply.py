"""What this subscription can have: room, restrictions, quotas, and what spot costs now.

Quotas count the vCPUs of machines that are deallocated too, and spot machines in one pool of their own
(Azure, "Check vCPU quotas" and "Use Azure Spot Virtual Machines", read 2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from cloudrun.catalog import load_offers
from cloudrun.models import Market
from cloudrun.sim.azure.sizes import PROVIDER, Size, families, find_size, regions, regions_of, zones_of
from cloudrun.sim.azure.store import World
from cloudrun.sim.azure.wire import ApiError
from cloudrun.sim.capacity import Capacity

MACHINES = "Microsoft.Compute/virtualMachines"
CORES, LOW_PRIORITY = "cores", "lowPriorityCores"
# What a rehearsal may run: enough for 50 machines of the NC6 kind. A subscription's real numbers differ.
VCPUS = 384
_ZERO = re.compile(r"H100|H200|MI300")  # families without any on a first day, so that a refusal can be met
# Where the catalogue has no spot price: near the share that its own spot prices of 2023 have.
_FALLBACK_SHARE = Decimal("0.2")
_ALLOCATION = "Allocation failed. "
_GUIDANCE = "Read more about improving likelihood of allocation success at http://aka.ms/allocation-guidance"


@dataclass(frozen=True, slots=True)
class Usage:
    """One quota of a region."""

    name: str
    limit: int
    used: int


class Supply:
    """Asked before a machine is made or started, and steered by the rehearsal."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.capacity = Capacity()
        self._limits: dict[tuple[str, str], int] = {}  # by region and squeezed name
        self._restricted: dict[tuple[str, str], str] = {}  # (size, region) -> reason
        self.spot_prices_usd: dict[tuple[str, str], Decimal] = {}  # those that were set, by (size, region)

    # Steering

    def set_capacity(self, type: str, region: str = "", market: str = "", count: int | None = 0) -> None:
        if market:
            Market(market)
        self.capacity.set_free(_known(type).name, _region(region), market, count)

    def set_quota(self, region: str, family: str, limit: int) -> None:
        names = {squeezed(name): name for name in (CORES, LOW_PRIORITY, *families())}
        if squeezed(family) not in names:
            raise ValueError(f"no quota {family!r}; known: {', '.join(names.values())}")
        if limit < 0:
            raise ValueError("a limit is at least 0")
        self._limits[_region(region), squeezed(family)] = limit

    def restrict(self, type: str, region: str, reason: str = "NotAvailableForSubscription") -> None:
        """reason "": it can be had again."""
        self._restricted[_known(type).name, _region(region)] = reason

    def set_spot_price(self, type: str, region: str, usd: Decimal) -> None:
        if not usd > 0:
            raise ValueError("a price is above 0")
        self.spot_prices_usd[_known(type).name, _region(region)] = usd

    # Asking

    def restriction(self, size: Size, region: str) -> str:
        """Why this subscription may not have that size there; "" where it may."""
        return self._restricted.get((size.name, region), "")

    def usages(self, region: str) -> Iterator[Usage]:
        """Regional vCPUs, the spot pool, and every family."""
        used: dict[str, int] = {}
        for size, market in self._machines(region):
            for name in _counting(size, market):
                used[name] = used.get(name, 0) + size.vcpus
        for name in (CORES, LOW_PRIORITY, *families()):
            yield Usage(name, self._limit(region, name), used.get(name, 0))

    def machines(self, region: str) -> int:
        return sum(1 for _ in self._machines(region))

    def spot_price(self, size: Size, region: str) -> Decimal | None:
        """Dollars an hour; None where the catalogue has no price at all."""
        found = self.spot_prices_usd.get((size.name, region))
        return found if found is not None else catalogue_spot_price(size.name, region)

    def check_size(self, size: Size, region: str, zone: str) -> None:
        """Raises SkuNotAvailable where it is not offered to us."""
        if region in regions_of(size.name) and not self.restriction(size, region):
            if not zone or zone in zones_of(region):
                return
            raise ApiError(
                "InvalidAvailabilityZone",
                f"The zone(s) '{zone}' for resource 'Microsoft.Compute/virtualMachines' is not supported. "
                "The "
                f"supported zones for location '{region}' are '{','.join(zones_of(region))}'",
                400,
            )
        raise ApiError(
            "SkuNotAvailable",
            "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
            f"{size.name}' is currently not available in location '{region}'. Please try another size or "
            "deploy "
            "to a different location or different zone. See https://aka.ms/azureskunotavailable for details.",
        )

    def check_quota(self, size: Size, region: str, market: Market) -> None:
        """Raises OperationNotAllowed where one machine more is too many."""
        usages = {usage.name: usage for usage in self.usages(region)}
        for name in _counting(size, market):
            usage = usages[name]
            if usage.used + size.vcpus > usage.limit:
                raise _over(usage, size, region)

    def check_price(self, size: Size, region: str, max_price: Decimal | None, operation: str) -> None:
        """Raises where spot costs more than the caller is ready to pay. max_price None or -1: anything."""
        price = self.spot_price(size, region)
        if max_price is None or max_price == -1 or price is None or max_price >= price:
            return
        raise ApiError(
            "SpotPriceGreaterThanProvidedMaxPrice",
            f"Unable to perform operation '{operation}' since the provided max price '{max_price} USD' is "
            "lower "
            f"than the current spot price '{price} USD' for Azure Spot Virtual Machine size '{size.name}'.",
        )

    def allocation_error(self, size: Size, region: str, market: Market, zone: str) -> ApiError | None:
        """How the allocation of one machine more fails; None where there is room."""
        free = self.capacity.free(size.name, region, market)
        if free is None or free > 0:
            return None
        if market == Market.SPOT:
            in_zone = "  - Availability Zone\n" if zone else ""
            return ApiError(
                "OverconstrainedZonalAllocationRequest" if zone else "OverconstrainedAllocationRequest",
                f"{_ALLOCATION}VM(s) with the following constraints cannot be allocated, because the "
                "condition "
                "is too restrictive. Please remove some constraints and try again. Constraints applied are:\n"
                f"{in_zone}  - Low Priority VMs\n  - VM Size\n",
            )
        return ApiError(
            "ZonalAllocationFailed" if zone else "AllocationFailed",
            f"{_ALLOCATION}We do not have sufficient capacity for the requested VM size in this "
            f"{'zone' if zone else 'region'}. {_GUIDANCE}",
        )

    def take(self, size: Size, region: str, market: Market, count: int = 1) -> None:
        """So many machines more have their room; a negative count gives it back."""
        self.capacity.take(size.name, region, market, count)

    def _machines(self, region: str) -> Iterator[tuple[Size, Market]]:
        for each in self._world.resources(type=MACHINES):
            size = find_size(str(each.properties.get("hardwareProfile", {}).get("vmSize", "")))
            if each.location == region and size is not None:
                yield size, market_of(each.properties)

    def _limit(self, region: str, name: str) -> int:
        default = 0 if _ZERO.search(name) else VCPUS
        return self._limits.get((region, squeezed(name)), default)


def market_of(properties: dict[str, object]) -> Market:
    """`Low` is what spot was called before."""
    return Market.SPOT if properties.get("priority") in ("Spot", "Low") else Market.ON_DEMAND


def catalogue_spot_price(type: str, region: str) -> Decimal | None:
    """Dollars an hour of spot as the catalogue has it, else a share of the price on demand."""
    spot = _catalogue_prices(Market.SPOT).get((type, region))
    if spot is not None:
        return spot
    on_demand = _catalogue_prices(Market.ON_DEMAND).get((type, region))
    return on_demand * _FALLBACK_SHARE if on_demand is not None else None


@cache
def _catalogue_prices(market: Market) -> dict[tuple[str, str], Decimal]:
    offers = load_offers(provider=PROVIDER, market=market)
    return {
        (offer.type, offer.region): offer.price_per_hour_usd
        for offer in offers
        if offer.price_per_hour_usd is not None
    }


def squeezed(name: str) -> str:
    """A family's name as comparing it takes: lists spell the same one in several ways."""
    return name.replace(" ", "").lower()


def _counting(size: Size, market: Market) -> tuple[str, ...]:
    return (LOW_PRIORITY,) if market == Market.SPOT else (CORES, size.family)


def _over(usage: Usage, size: Size, region: str) -> ApiError:
    called = {CORES: "Total Regional Cores", LOW_PRIORITY: "LowPriorityCores"}
    name = called.get(usage.name, f"{usage.name} Cores")
    return ApiError(
        "OperationNotAllowed",
        f"Operation could not be completed as it results in exceeding approved {name} quota. Additional "
        "details "
        f"- Deployment Model: Resource Manager, Location: {region}, Current Limit: {usage.limit}, Current "
        "Usage: "
        f"{usage.used}, Additional Required: {size.vcpus}, (Minimum) New Limit Required: "
        f"{usage.used + size.vcpus}. Setup Alerts when Quota reaches threshold. Learn more at "
        "https://aka.ms/quotamonitoringalerting .",
    )


def _known(type: str) -> Size:
    found = find_size(type)
    if found is None:
        raise ValueError(f"no size {type!r}")
    return found


def _region(region: str) -> str:
    if region and region not in regions():
        raise ValueError(f"no region {region!r}")
    return region
