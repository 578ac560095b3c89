"""Offers from the shipped price lists, each with the day its price was taken."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import cache

from cloudrun.catalog.loader import (
    BillingRule,
    InstanceType,
    date_or_none,
    find_type,
    list_types,
    load_billing,
    read_csv,
)
from cloudrun.models import GpuNeed, Market, Offer

SPECIAL_REGIONS = ("us-gov-", "usgov", "cn-", "china")  # accounts of their own; only when asked for by name
HOURS_PER_MONTH = 730  # 365 * 24 / 12, as both providers quote monthly prices
_DISK = {"aws": "disk gp3", "azure": "disk standard SSD"}  # rows of billing.csv priced by the GB-month
_SNAPSHOT = {"aws": "snapshot", "azure": "snapshot (standard storage)"}
_BETWEEN = {"aws": "egress to another region"}
_STORAGE = {"aws": "S3 standard storage", "azure": "blob storage hot LRS"}
_ADDRESS = {"aws": "public IPv4 (in use or idle)", "azure": "public IPv4 static standard"}

Price = tuple[Decimal, date | None]


def load_offers(
    *, provider: str = "", type: str = "", market: Market | None = None, regions: Sequence[str] = ()
) -> list[Offer]:
    """What the catalogue knows to be offered, on demand and spot, one per region; empty does not restrict.

    The newest price of each market counts; a type without one in the present list takes it from
    the older snapshots. A price that no snapshot has is None. No I/O beyond the shipped files.
    """
    markets = (market,) if market else (Market.ON_DEMAND, Market.SPOT)
    return [
        make_offer(known, region, each, prices.get(each))
        for known in list_types(provider)
        if type in ("", known.type)
        for each in markets
        for region, prices in _by_region((known.provider, known.type), each).items()
        if _wanted(region, regions)
    ]


def wanted_types(provider: str, type: str, gpu: GpuNeed) -> list[InstanceType]:
    """The provider's type of that name, else each of its GPU types with what the need asks for."""
    if type:
        known = find_type(provider, type)
        return [known] if known else []
    return [
        known
        for known in list_types(provider)
        if known.gpu_count >= max(gpu.count, 1)
        and known.gpu_memory_gib >= gpu.min_memory_gib
        and (known.gpu_capability or 0) >= gpu.min_capability
    ]


def running_cost_per_hour_usd(provider: str, disk_gb: int) -> tuple[Decimal, str]:
    """What disk and public address add to an hour, and a remark on how exact that is."""
    address, disk = address_rule(provider), disk_rule(provider)
    total = address.price_usd or Decimal(0) if address else Decimal(0)
    if disk is None or disk.price_usd is None or not disk_gb:
        return total, ""
    return (
        total + disk.price_usd * disk_gb / HOURS_PER_MONTH,
        f"the disk is priced as in {disk.region} ({disk.as_of})",
    )


def disk_rule(provider: str) -> BillingRule | None:
    """How the disks that we launch with are billed, by the GB-month. One region's price stands for all:
    the catalogue has no others."""
    return _rule_of_today(provider, _DISK.get(provider))


def address_rule(provider: str) -> BillingRule | None:
    """How the public address of a running machine is billed, by the hour."""
    return _rule_of_today(provider, _ADDRESS.get(provider))


def snapshot_rule(provider: str) -> BillingRule | None:
    """How what is stored for an image is billed, by the GB-month; one region's price for all."""
    return _rule_of_today(provider, _SNAPSHOT.get(provider))


def between_rule(provider: str) -> BillingRule | None:
    """What a GB costs that goes to another region of that cloud; one region's price for all."""
    return _rule_of_today(provider, _BETWEEN.get(provider))


def storage_rule(provider: str) -> BillingRule | None:
    """How what lies in a bucket of that cloud is billed, by the GB-month of 2^30 bytes: the usual class, the
    first 50 TB, one region's price for all."""
    return _rule_of_today(provider, _STORAGE.get(provider))


@cache
def _rule_of_today(provider: str, what: str | None) -> BillingRule | None:
    rules = (rule for rule in load_billing() if (rule.provider, rule.what) == (provider, what))
    return next((rule for rule in rules if rule.valid_to is None), None)


def successors(provider: str, type: str) -> list[str]:
    """Types of today that can do what a retired one did, cheapest first: at most one a GPU model, two in all.

    The rule: same provider, in the 2026 lists, x86, whole GPUs, at least as many of them, each with
    at least the memory and compute capability. Prices are the lowest on-demand ones of the catalogue.
    """
    old = find_type(provider, type)
    if old is None or old.status != "retired" or not old.gpu_count:
        return []
    fitting = [new for new in list_types(provider) if _replaces(new, old)]
    priced = sorted((price, new.type, new.gpu) for new in fitting for price in [_least_price(new)] if price)
    by_gpu: dict[str, str] = {}
    for _, name, gpu in priced:
        by_gpu.setdefault(gpu, name)
    return list(by_gpu.values())[:2]


@cache
def type_warning(provider: str, type: str) -> str:
    """What to know before renting such a machine, with what to take instead; "" for nothing."""
    known = find_type(provider, type)
    if known is None or known.status == "listed":
        return ""
    if known.status != "retired":
        return f"whether {type} is still offered is uncertain"
    since = f" on {known.retired_on}" if known.retired_on else ""
    instead = successors(provider, type)
    return f"{type} was retired{since}" + (f"; today's nearest: {', '.join(instead)}" if instead else "")


def _by_region(key: tuple[str, str], market: Market) -> dict[str, dict[Market, Price]]:
    """Prices of a type by region, from the newest list that has any for that market."""
    present = _prices("prices.csv").get(key, {})
    if any(market in prices for prices in present.values()):
        return present
    older = _prices("price_history.csv").get(key, {})
    has_older = any(market in prices for prices in older.values())
    return (older if has_older else present) or {"": {}}


@cache
def _prices(file: str) -> dict[tuple[str, str], dict[str, dict[Market, Price]]]:
    """Newest price of each market, by (provider, type) and region. An undated price is the oldest."""
    table: dict[tuple[str, str], dict[str, dict[Market, Price]]] = {}
    for row in read_csv(file):
        as_of = date_or_none(row["as_of"])
        prices = table.setdefault((row["provider"], row["instance_type"]), {}).setdefault(row["region"], {})
        for market, cell in (
            (Market.ON_DEMAND, row["on_demand_usd_hour"]),
            (Market.SPOT, row["spot_usd_hour"]),
        ):
            if cell and (market not in prices or _day(as_of) > _day(prices[market][1])):
                price = Decimal(cell)
                if price > 0:
                    prices[market] = (price, as_of)
    return table


def _day(as_of: date | None) -> date:
    return as_of or date.min


def make_offer(known: InstanceType, region: str, market: Market, price: Price | None = None) -> Offer:
    """The catalogue's facts about a type as an offer."""
    return Offer(
        provider=known.provider,
        region=region,
        type=known.type,
        market=market,
        price_per_hour_usd=price[0] if price else None,
        price_as_of=price[1] if price else None,
        gpu=known.gpu,
        gpu_count=known.gpu_count,
        gpu_memory_gib=known.gpu_memory_gib,
        gpu_capability=known.gpu_capability,
        vcpus=known.vcpus,
        memory_gib=known.memory_gib,
    )


def _wanted(region: str, regions: Sequence[str]) -> bool:
    return region in regions if regions else not region.startswith(SPECIAL_REGIONS)


def _replaces(new: InstanceType, old: InstanceType) -> bool:
    return (
        new.status == "listed"
        and new.arch == "amd64"
        and new.nvidia
        and new.whole_gpus
        and new.gpu_count >= old.gpu_count
        and new.gpu_memory_gib >= old.gpu_memory_gib
        and (new.gpu_capability or 0) >= (old.gpu_capability or 0)
    )


def _least_price(known: InstanceType) -> Decimal | None:
    by_region = _prices("prices.csv").get((known.provider, known.type), {})
    found = [prices[Market.ON_DEMAND][0] for prices in by_region.values() if Market.ON_DEMAND in prices]
    return min(found, default=None)
