"""offers in another currency: as quoted, else converted and marked; regions of more than one cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from commandline import Cli

T4 = "Standard_NC4as_T4_v3"
JPY_PER_USD = 110
PRICES = {"USD": 0.526, "JPY": 81.5}  # no rate between them: what a provider quotes is its own


class _Prices(BaseHTTPRequestHandler):
    """One size in one region, in two currencies."""

    def do_GET(self) -> None:
        [currency] = parse_qs(urlsplit(self.path).query)["currencyCode"]
        item = {
            "retailPrice": PRICES[currency.strip("'")],
            "armSkuName": T4,
            "armRegionName": "eastus",
            "skuName": "NC4as T4 v3",
            "meterName": "NC4as T4 v3",
            "productName": "Virtual Machines NCasT4 v3 Series",
            "type": "Consumption",
            "unitOfMeasure": "1 Hour",
            "effectiveStartDate": "2020-08-01T00:00:00Z",
        }
        body = json.dumps({"Items": [item], "NextPageLink": None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's own output is what counts."""


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No account anywhere, and nobody to ask for prices."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AZURE_SUBSCRIPTION_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AZURE_CONFIG_DIR"):
        monkeypatch.setenv(name, str(home / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CLOUDRUN_AZURE_PRICES_URL", "http://127.0.0.1:9/prices")


@pytest.fixture
def prices(nobody: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Azure's price list answers; still no account."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Prices) as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        monkeypatch.setenv("CLOUDRUN_AZURE_PRICES_URL", f"http://127.0.0.1:{server.server_port}/prices")
        yield
        server.shutdown()


def rows(table: str) -> list[dict[str, str]]:
    head, *lines = (line.split() for line in table.splitlines())
    return [dict(zip(head, line, strict=False)) for line in lines]


@pytest.mark.usefixtures("prices")
def test_a_price_that_the_provider_quotes_is_shown_as_it_is(cli: Cli) -> None:
    said = cli("offers", T4, "--on-demand", "--currency", "jpy")
    [row] = rows(said.out)
    assert (row["JPY/H"], row["USD/H"]) == ("81.50", "0.526")
    assert "converted" not in said.err


@pytest.mark.usefixtures("prices")
def test_what_a_provider_quotes_is_in_the_json(cli: Cli) -> None:
    [offer] = cli("offers", T4, "--on-demand", "--currency", "JPY", "--json").json
    assert (offer["quoted"], offer["price_per_hour_usd"]) == ({"JPY": 81.5}, 0.526)


@pytest.mark.usefixtures("prices")
def test_without_a_currency_nothing_is_quoted(cli: Cli) -> None:
    said = cli("offers", T4, "--on-demand")
    assert "JPY" not in said.out + said.err
    [offer] = cli("offers", T4, "--on-demand", "--json").json
    assert offer["quoted"] == {}


@pytest.mark.usefixtures("nobody")
def test_another_price_is_converted_at_the_rate_and_marked(cli: Cli) -> None:
    said = cli("offers", "p2.xlarge", "--on-demand", "--region", "us-east-1", "--currency", "JPY")
    [row] = rows(said.out)
    assert row["JPY/H"] == f"~{float(row['USD/H']) * JPY_PER_USD:.2f}"
    assert "~ converted: 1 USD = 110 JPY" in said.err
    given = cli("offers", "p2.xlarge", "--on-demand", "--currency", "JPY", "--rate", "JPY=150", "-n", "1")
    assert "1 USD = 150 JPY" in given.err


@pytest.mark.usefixtures("nobody")
def test_a_currency_without_a_rate(cli: Cli) -> None:
    said = cli("offers", "p2.xlarge", "--currency", "XTS")
    assert said.code == 2
    assert "CLOUDRUN_RATE_USD_XTS" in said.err


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(("region", "provider"), [("eastus", "azure"), ("us-east-1", "aws")])
def test_a_region_is_one_clouds_and_the_other_is_not_asked(cli: Cli, region: str, provider: str) -> None:
    found = cli("offers", "--gpu", "t4", "--region", region, "--json").json
    assert {offer["provider"] for offer in found} == {provider}


@pytest.mark.usefixtures("nobody")
def test_regions_of_two_clouds_together(cli: Cli) -> None:
    found = cli("offers", "--gpu", "t4", "--region", "eastus", "--region", "us-east-1", "--json").json
    assert {offer["provider"] for offer in found} == {"azure", "aws"}


@pytest.mark.usefixtures("nobody")
def test_a_region_that_nobody_has(cli: Cli) -> None:
    said = cli("offers", "--gpu", "t4", "--region", "eastuss")
    assert said.code == 2
    assert "eastuss" in said.err
