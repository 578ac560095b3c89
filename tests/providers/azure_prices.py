"""A price list on loopback that answers as Azure's does, with rows and paging that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit


def row(
    type: str = "Standard_NC4as_T4_v3",
    region: str = "eastus",
    price: float = 0.526,
    *,
    name: str = "NC4as T4 v3",
    product: str = "Virtual Machines NCasT4 v3 Series",
    start: str = "2020-08-01T00:00:00Z",
    **more: Any,
) -> dict[str, Any]:
    """One row as the API has it; name "... Spot" is spot."""
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": region,
        "effectiveStartDate": start,
        "meterName": name,
        "productName": product,
        "skuName": name,
        "serviceName": "Virtual Machines",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": type,
        **more,
    }


@dataclass
class PriceList:
    """What it answers, by currency, and what it was asked. Pages of `page` rows."""

    rows: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    page: int = 1000
    statuses: list[int] = field(default_factory=list)  # given first, before any answer
    queries: list[dict[str, str]] = field(default_factory=list)
    endless: bool = False
    text: str = ""  # answered instead of rows
    url: str = ""


@contextmanager
def open_price_list(**rows: Sequence[Mapping[str, Any]]) -> Iterator[PriceList]:
    """rows by currency: open_price_list(USD=[row()])."""
    prices = PriceList(dict(rows))

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = _answer(prices, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status in (429, 503):
                self.send_header("x-ms-retry-after-ms", "10")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's own output is what counts."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        prices.url = f"http://127.0.0.1:{server.server_port}/api/retail/prices"
        Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield prices
        finally:
            server.shutdown()


def _answer(prices: PriceList, path: str) -> tuple[int, bytes]:
    query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
    prices.queries.append(query)
    if prices.statuses:
        return prices.statuses.pop(0), b"not now"
    if prices.text:
        return 200, prices.text.encode()
    found = prices.rows.get(query["currencyCode"].strip("'"))
    if found is None:
        return 400, b'{"error": {"code": "BadRequest", "message": "Currency code is not supported"}}'
    skip = int(query.get("$skip", "0"))
    more = prices.endless or len(found) > skip + prices.page
    following = f"{prices.url}?{urlencode(query | {'$skip': str(skip + prices.page)})}" if more else None
    page = {"BillingCurrency": "USD", "Items": found[skip : skip + prices.page], "NextPageLink": following}
    return 200, json.dumps(page).encode()
