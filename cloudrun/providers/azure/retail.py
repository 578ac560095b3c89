"""What Azure's machines cost: the Retail Prices API, which is open to everybody and needs no account.

Linux, pay as you go and spot: what our machines are billed as. One size has a dozen rows a region there:
Windows, the older Low Priority, reservations, prices of tomorrow. A price of zero is no price.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from cloudrun.config import Settings
from cloudrun.errors import ProviderError
from cloudrun.models import Market
from cloudrun.providers.answers import digest, kept, side_by_side
from cloudrun.providers.azure.errors import mapped

AGE = timedelta(hours=1)
TYPES_A_CALL = 8  # keeps the address of a call below 2000 characters
REGIONS_A_CALL = 12  # more than that are asked for by naming none
MOST_PAGES = 100  # of 100 rows or more; eight sizes have some 3000 rows in all regions
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
RETRIES = 3  # broken answers, 429 and 5xx; Retry-After is respected
USD = "USD"

_HOUR = "1 Hour"  # unit of measure of machines
_NOT_LINUX = ("windows", "cloudservices", "cloud services", "dedicated host")  # in the product's name
_SPOT, _OLD_SPOT, _EXPIRED = " Spot", "Low Priority", "Expired"  # in the SKU's and the meter's name

Key = tuple[str, str, Market]  # type, region, market


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices an hour in one currency, and the day they were asked."""

    by_place: Mapping[Key, Decimal] = field(default_factory=dict)
    as_of: date | None = None

    def regions(self, type: str) -> list[str]:
        return sorted({region for known, region, _ in self.by_place if known == type})


@dataclass(frozen=True, slots=True)
class Public:
    """Nobody in particular: these answers are the same for every account."""

    settings: Settings

    def fingerprint(self) -> str:
        return hashlib.sha256(self.settings.azure_prices_url.encode()).hexdigest()[:12]


def retail_prices(
    settings: Settings, types: Sequence[str], regions: Sequence[str] = (), *, currency: str = USD
) -> Prices:
    """Of these sizes, in these regions or in all. One call for eight sizes and each page of them, all side by
    side, once an hour. Raises ProviderError where nobody answers; an unknown currency is one."""
    chunks = [types[start : start + TYPES_A_CALL] for start in range(0, len(types), TYPES_A_CALL)]
    named = regions if len(regions) <= REGIONS_A_CALL else ()
    found = side_by_side(lambda chunk: _asked(settings, chunk, named, currency), chunks)
    by_place = {key: price for prices in found for key, price in prices.by_place.items()}
    days = [prices.as_of for prices in found if prices.as_of]
    return Prices(by_place, min(days, default=None))


def parse_items(items: Iterable[Mapping[str, Any]], now: datetime) -> dict[Key, Decimal]:
    """The price of each size, region and market among the API's rows: of several, that in force since last,
    then that of the region's own meter, then the lowest."""
    best: dict[Key, tuple[tuple[str, bool, Decimal], Decimal]] = {}
    for item in items:
        price = Decimal(item["retailPrice"])
        if price <= 0 or not _is_ours(item, now):
            continue
        key = item["armSkuName"], item["armRegionName"], _market(item)
        rank = str(item["effectiveStartDate"]), bool(item.get("isPrimaryMeterRegion")), -price
        if key not in best or rank > best[key][0]:
            best[key] = rank, price
    return {key: price for key, (_, price) in best.items()}


def _is_ours(item: Mapping[str, Any], now: datetime) -> bool:
    """Whether the row is an hour of a Linux machine, on demand or spot, at today's price."""
    product, names = item["productName"].lower(), item["skuName"] + item["meterName"]
    return (
        item["type"] == "Consumption"
        and item["unitOfMeasure"] == _HOUR
        and not item.get("tierMinimumUnits")
        and bool(item["armRegionName"])
        and not any(word in product for word in _NOT_LINUX)
        and not any(word in names for word in (_OLD_SPOT, _EXPIRED))
        and datetime.fromisoformat(item["effectiveStartDate"]) <= now
        and not (item.get("effectiveEndDate") and datetime.fromisoformat(item["effectiveEndDate"]) <= now)
    )


def _market(item: Mapping[str, Any]) -> Market:
    return Market.SPOT if item["skuName"].endswith(_SPOT) else Market.ON_DEMAND


def _asked(settings: Settings, types: Sequence[str], regions: Sequence[str], currency: str) -> Prices:
    def ask() -> list[list[str]]:
        with mapped(region="", what="prices"):
            items = list(_items(settings.azure_prices_url, _filter(types, regions), currency))
        prices = parse_items(items, datetime.now(UTC))
        return [[*key, str(price)] for key, price in prices.items()]

    name = f"prices-{currency}-{digest([*types, *regions])}"
    answer = kept(Public(settings), name, AGE, ask)
    by_place = {(size, region, Market(market)): Decimal(text) for size, region, market, text in answer.value}
    return Prices(by_place, answer.asked_at.date())


def _filter(types: Sequence[str], regions: Sequence[str]) -> str:
    """In OData's words; values count capital letters from the API's version 2023-01-01-preview on."""
    parts = ["serviceName eq 'Virtual Machines'", "priceType eq 'Consumption'", _any("armSkuName", types)]
    return " and ".join([*parts, _any("armRegionName", regions)] if regions else parts)


def _any(name: str, values: Sequence[str]) -> str:
    either = " or ".join(f"{name} eq '{value}'" for value in values)
    return f"({either})" if len(values) > 1 else either


def _items(url: str, wanted: str, currency: str) -> Iterator[dict[str, Any]]:
    """All rows, page by page."""
    from azure.core import PipelineClient
    from azure.core.pipeline.policies import RetryPolicy
    from azure.core.rest import HttpRequest

    policies = [RetryPolicy(retry_total=RETRIES, retry_connect=1, retry_backoff_max=8)]
    asked = HttpRequest("GET", url, params={"currencyCode": f"'{currency}'", "$filter": wanted})
    line: Any = PipelineClient(
        url, policies=policies, connection_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S
    )
    with line as client:
        for _ in range(MOST_PAGES):
            answer = client.send_request(asked)
            answer.raise_for_status()
            page = _json(answer.text())
            yield from page["Items"]
            if not page.get("NextPageLink"):
                return
            asked = HttpRequest("GET", page["NextPageLink"])
    raise ProviderError("prices: Azure's list does not end", hint="the catalogue's prices count meanwhile")


def _json(text: str) -> dict[str, Any]:
    """Prices as they are written there, not as floats."""
    try:
        page = json.loads(text, parse_float=Decimal)
    except ValueError:
        page = None
    if not isinstance(page, dict) or not isinstance(page.get("Items"), list):
        raise ProviderError(
            f"prices: that is no price list: {text[:80]!r}", hint="check CLOUDRUN_AZURE_PRICES_URL"
        )
    return page
