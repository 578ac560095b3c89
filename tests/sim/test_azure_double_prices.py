"""Prices, sizes and images of the double, as clients ask for them."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure_vm_help import NEW_TYPE, TYPE, Subscription, subscription

from cloudrun.catalog import load_offers
from cloudrun.models import Market

SKUS = "location eq 'eastus'"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subscription]:
    with subscription(tmp_path_factory.mktemp("azure")) as made:
        yield made


def ask(account: Subscription, wanted: str = "", **more: str) -> Any:
    told = {"$filter": wanted, **more} if wanted else more
    return fetch(account, f"{account.double.environment()['CLOUDRUN_AZURE_PRICES_URL']}?{urlencode(told)}")


def fetch(account: Subscription, url: str) -> Any:
    context = ssl.create_default_context(cafile=str(account.double.ca_path))
    with urlopen(url, context=context, timeout=20) as answer:
        return json.load(answer)


def of(type: str, region: str = "eastus") -> str:
    return f"serviceName eq 'Virtual Machines' and armSkuName eq '{type}' and armRegionName eq '{region}'"


def test_a_size_has_rows_that_names_alone_tell_apart(account: Subscription) -> None:
    items = ask(account, of(TYPE))["Items"]
    told = {(each["productName"].endswith(" Windows"), each["skuName"], each["type"]) for each in items}
    consumption = {
        (windows, f"NC6{what}", "Consumption")
        for windows in (True, False)
        for what in ("", " Spot", " Low Priority")
    }
    assert told == consumption | {(True, "NC6", "DevTestConsumption"), (False, "NC6", "Reservation")}
    assert {each["armSkuName"] for each in items} == {TYPE}


def test_linux_prices_are_the_catalogues(account: Subscription) -> None:
    for size, market, sku in (
        (TYPE, Market.ON_DEMAND, "NC6"),
        (TYPE, Market.SPOT, "NC6 Spot"),
        (NEW_TYPE, Market.ON_DEMAND, "NC4as T4 v3"),
        (NEW_TYPE, Market.SPOT, "NC4as T4 v3 Spot"),
    ):
        [offer] = load_offers(provider="azure", type=size, market=market, regions=("eastus",))
        [row] = [
            each
            for each in ask(account, of(size))["Items"]
            if each["skuName"] == sku
            and "Windows" not in each["productName"]
            and each["type"] == "Consumption"
        ]
        assert Decimal(str(row["retailPrice"])) == offer.price_per_hour_usd


def test_another_currency_is_the_dollar_times_a_rate(account: Subscription) -> None:
    dollars = ask(account, of(TYPE))["Items"]
    answer = ask(account, of(TYPE), currencyCode="'JPY'")
    assert answer["BillingCurrency"] == "JPY"
    assert {each["currencyCode"] for each in answer["Items"]} == {"JPY"}
    ratios = {
        round(yen["retailPrice"] / each["retailPrice"], 3)
        for yen, each in zip(answer["Items"], dollars, strict=True)
    }
    assert ratios == {150.0}
    with pytest.raises(HTTPError, match="400"):
        ask(account, of(TYPE), currencyCode="XTS")


def test_pages_are_walked_by_their_links(account: Subscription) -> None:
    answer = ask(
        account, "armRegionName eq 'eastus' or armRegionName eq 'westus2' or contains(location, 'eu')"
    )
    seen, pages = len(answer["Items"]), 1
    while answer["NextPageLink"]:
        answer = fetch(account, answer["NextPageLink"])
        seen, pages = seen + len(answer["Items"]), pages + 1
    assert pages > 1
    assert seen > 1000
    assert answer["Count"] == len(answer["Items"])


def test_filters_are_read_as_people_send_them(account: Subscription) -> None:
    both = f"(armSkuName eq '{TYPE}' or armSkuName eq '{NEW_TYPE}') and armRegionName eq 'eastus'"
    spot = f"{both} and priceType eq 'Consumption' and contains(skuName, 'Spot')"
    found = ask(account, f"{spot} and not endswith(productName, 'Windows')")["Items"]
    assert {each["skuName"] for each in found} == {"NC6 Spot", "NC4as T4 v3 Spot"}
    assert [each["armSkuName"] for each in ask(account, f"{spot} and retailPrice lt 0.08")["Items"]] == [
        NEW_TYPE
    ]
    for wrong in ("armSkuName is 'x'", "armSkuName eq", "shoeSize eq '1'", "(armSkuName eq 'x'", "'"):
        with pytest.raises(HTTPError, match="400"):
            ask(account, wrong)


def test_values_are_told_apart_by_case_in_newer_versions_alone(account: Subscription) -> None:
    assert ask(account, of(TYPE.lower()))["Count"] > 0
    newer = {"api-version": "2023-01-01-preview"}
    assert ask(account, of(TYPE.lower()), **newer)["Count"] == 0
    assert ask(account, of(TYPE), **newer)["Count"] > 0


def test_a_price_that_was_set_is_in_the_list(account: Subscription) -> None:
    account.double.set_spot_price("Standard_NC12", "eastus", "0.4321")
    rows = ask(account, f"{of('Standard_NC12')} and skuName eq 'NC12 Spot'")["Items"]
    assert 0.4321 in {each["retailPrice"] for each in rows}
    others = ask(account, f"{of('Standard_NC12', 'westus2')} and skuName eq 'NC12 Spot'")["Items"]
    assert others
    assert 0.4321 not in {each["retailPrice"] for each in others}


def test_sizes_say_what_they_can(account: Subscription) -> None:
    rows = {each.name: each for each in account.compute.resource_skus.list(filter=SKUS)}
    told = {each.name: each.value for each in rows[TYPE].capabilities}
    assert told["vCPUs"] == "6"
    assert told["MemoryGB"] == "56"
    assert told["GPUs"] == "1"
    assert (told["PremiumIO"], told["HyperVGenerations"], told["LowPriorityCapable"]) == (
        "False",
        "V1",
        "True",
    )
    assert rows[TYPE].location_info[0].zones == ["1", "2", "3"]
    new = {each.name: each.value for each in rows[NEW_TYPE].capabilities}
    assert (new["PremiumIO"], new["HyperVGenerations"]) == ("True", "V1,V2")
    assert "Standard_NC6s_v3" not in rows
    assert rows["Premium_LRS"].resource_type == "disks"
    westeurope = {each.name for each in account.compute.resource_skus.list(filter="location eq 'westeurope'")}
    assert NEW_TYPE in westeurope
    assert TYPE not in westeurope


def test_images_say_which_generation_they_are_of(account: Subscription) -> None:
    place = ("eastus", "Canonical", "0001-com-ubuntu-server-jammy")
    for sku, generation in (("22_04-lts", "V1"), ("22_04-lts-gen2", "V2")):
        [version] = account.compute.virtual_machine_images.list(*place, sku)
        image = account.compute.virtual_machine_images.get(*place, sku, version.name)
        assert (image.hyper_v_generation, image.os_disk_image.operating_system) == (generation, "Linux")
    with pytest.raises(ResourceNotFoundError):
        account.compute.virtual_machine_images.list(*place, "none")
