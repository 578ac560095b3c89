"""The Retail Prices API: the catalogue's prices in the form of Azure's price list, with its traps.

A size has rows for Linux and Windows, on demand, spot and low priority, for reservations and for DevTest;
the product's and the SKU's names alone tell them apart. Form: a capture of 2026-06, and
https://learn.microsoft.com/rest/api/cost-management/retail-prices, read 2026-11.

What the catalogue has no price for follows from what it has: Windows costs so much more a vCPU, low priority
a fifth, another currency the dollar times a fixed rate.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from urllib.parse import parse_qsl, urlencode

from cloudrun.catalog import load_offers
from cloudrun.models import Market, Offer
from cloudrun.sim.azure.odata import parse_filter
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.sizes import PROVIDER, Size, find_size
from cloudrun.sim.azure.supply import Supply, catalogue_spot_price
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

Place = tuple[str, str]  # size, region

PATH = "/api/retail/prices"
PAGE = 1000  # rows of a page
RATES = {"USD": Decimal(1), "JPY": Decimal(150), "EUR": Decimal("0.9"), "GBP": Decimal("0.78")}  # ours
_WINDOWS_PER_VCPU_USD = Decimal("0.046")  # what the capture's two prices of D2s_v3 differ by, a vCPU
_LOW_PRIORITY_SHARE = Decimal("0.2")
_YEAR_H = 8760
_RESERVED_SHARE = Decimal("0.6")
_FIELDS = {  # what a filter may name, and the rows' names
    each.lower(): each
    for each in (
        *(
            "armRegionName",
            "location",
            "meterId",
            "meterName",
            "productId",
            "skuId",
            "productName",
            "skuName",
        ),
        *("serviceName", "serviceId", "serviceFamily", "armSkuName", "isPrimaryMeterRegion", "currencyCode"),
        *("unitOfMeasure", "retailPrice", "type"),
    )
} | {"pricetype": "type"}
_SAME_CASE_FROM = "2023-01-01-preview"  # from this version of the API on, values are told apart by case


class Retail:
    """Handlers of this call."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, "", self._answer, public=True)]

    def _answer(self, request: Request) -> Reply:
        currency = request.query.get("currencycode", "USD").strip("'").upper()
        if currency not in RATES:
            raise ApiError("BadRequest", f"Invalid currency code: {currency}", 400)
        same_case = request.api_version >= _SAME_CASE_FROM
        rows = self._matching(request.query.get("$filter", ""), currency, same_case)
        start = int(request.query.get("$skip") or 0)
        shown = rows[start : start + PAGE]
        return Reply(
            200,
            {
                "BillingCurrency": currency,
                "CustomerEntityId": "Default",
                "CustomerEntityType": "Retail",
                "Items": shown,
                "NextPageLink": _next_page(request, start + PAGE) if len(rows) > start + PAGE else None,
                "Count": len(shown),
            },
        )

    def _matching(self, told: str, currency: str, same_case: bool) -> list[Body]:
        """All rows that a filter wants, those with a price that was set as it is now."""
        wanted = parse_filter(told, _FIELDS, same_case=same_case) if told else None
        changed = self._supply.spot_prices_usd
        rows: list[Body] = []
        for place, of_place in _catalogue_rows(currency).items():
            shown = _rows_at(place, currency, changed[place]) if place in changed else of_place
            rows += shown if wanted is None else filter(wanted, shown)
        return rows


@cache
def _catalogue_rows(currency: str) -> dict[Place, list[Body]]:
    return {
        place: _rows_at(place, currency, catalogue_spot_price(*place))
        for place, offer in _on_demand().items()
        if offer.price_per_hour_usd is not None
    }


@cache
def _on_demand() -> dict[Place, Offer]:
    offers = load_offers(provider=PROVIDER, market=Market.ON_DEMAND)
    return {(offer.type, offer.region): offer for offer in offers if offer.region}


def _rows_at(place: Place, currency: str, spot_usd: Decimal | None) -> list[Body]:
    size, offer = find_size(place[0]), _on_demand()[place]
    if size is None or offer.price_per_hour_usd is None:
        return []
    return list(_rows_of(size, offer, offer.price_per_hour_usd, spot_usd, currency))


def _rows_of(
    size: Size, offer: Offer, linux_usd: Decimal, spot_usd: Decimal | None, currency: str
) -> Iterator[Body]:
    words = size.short.replace("_", " ")
    product = f"Virtual Machines {_series(size)} Series"
    windows_usd = linux_usd + _WINDOWS_PER_VCPU_USD * size.vcpus
    kinds = [
        (f"{product} Windows", f"{words} Low Priority", windows_usd * _LOW_PRIORITY_SHARE),
        (product, f"{words} Low Priority", linux_usd * _LOW_PRIORITY_SHARE),
    ]
    if spot_usd is not None and size.spot:
        kinds += [
            (f"{product} Windows", f"{words} Spot", spot_usd * 2),
            (product, f"{words} Spot", spot_usd),
        ]
    kinds += [(f"{product} Windows", words, windows_usd), (product, words, linux_usd)]
    for name, sku, price in kinds:
        if size.spot or sku == words:
            yield _row(size, offer, name, sku, price, currency)
    yield {
        **_row(size, offer, f"{product} Windows", words, linux_usd, currency),
        "type": "DevTestConsumption",
    }
    reserved = _row(size, offer, product, words, linux_usd * _YEAR_H * _RESERVED_SHARE, currency)
    yield {**reserved, "type": "Reservation", "reservationTerm": "1 Year"}


def _row(size: Size, offer: Offer, product: str, sku: str, price_usd: Decimal, currency: str) -> Body:
    price = float(round(price_usd * RATES[currency], 6))
    product_id = _id(product)
    return {
        "currencyCode": currency,
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": offer.region,
        "location": offer.region,
        "effectiveStartDate": f"{offer.price_as_of or '2023-01-01'}T00:00:00Z",
        "meterId": _guid(offer.region, product, sku),
        "meterName": sku,
        "productId": product_id,
        "skuId": f"{product_id}/{_id(sku, offer.region)[-4:]}",
        "productName": product,
        "skuName": sku,
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": size.name,
    }


def _series(size: Size) -> str:
    """NC6 -> NC, NC4as_T4_v3 -> NCasT4 v3: near to how Azure calls them, which nobody should rely on."""
    letters = re.sub(r"\d+", "", size.short.partition("_")[0])
    rest = size.short.partition("_")[2].replace("_", " ")
    return f"{letters} {rest}".strip()


def _next_page(request: Request, start: int) -> str:
    told = dict(parse_qsl(request.environ.get("QUERY_STRING", "")))
    return f"{request.base_url}{request.path}?{urlencode({**told, '$skip': start})}"


def _id(*what: str) -> str:
    return "DZH3" + hashlib.sha256(" ".join(what).encode()).hexdigest()[:8].upper()


def _guid(*what: str) -> str:
    text = hashlib.sha256(" ".join(what).encode()).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"
