"""What Azure offers: today's prices, what the subscription may have of it, else the catalogue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from azure_prices import PriceList, open_price_list, row

from cloudrun import catalog
from cloudrun.catalog import wanted_types
from cloudrun.config import AZURE_PRICES_URL, Settings
from cloudrun.errors import NotFound, ProviderError
from cloudrun.models import GpuNeed, Market, Offer
from cloudrun.providers.azure import AzureProvider, retail
from cloudrun.providers.azure.offers import ENOUGH, REHEARSAL, ROUNDS, find_offers
from cloudrun.providers.azure.retail import parse_items, retail_prices
from cloudrun.providers.azure.session import Session
from cloudrun.providers.base import Need
from cloudrun.sim.azure import AzureDouble

CAPTURE = Path(__file__).parent / "azure_answers" / "retail-d2s_v3-eastus.json"
EAST, WEST = "eastus", "westus2"
T4, NC6, V100 = "Standard_NC4as_T4_v3", "Standard_NC6", "Standard_NC6s_v3"
SKUS, USAGES = "Microsoft.Compute/skus/read", "Microsoft.Compute/locations/usages/read"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
ON_DEMAND, SPOT = Market.ON_DEMAND, Market.SPOT
SPOT_ROW: dict[str, Any] = {"name": "NC4as T4 v3 Spot"}


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """No subscription, and nobody who answers."""
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    return Settings(home=tmp_path / "home", azure_prices_url="http://127.0.0.1:9/prices")


@pytest.fixture
def prices(nobody: Settings) -> Iterator[PriceList]:
    with open_price_list(USD=[row(), row(price=0.1, **SPOT_ROW)]) as listed:
        yield listed


def asking(nobody: Settings, prices: PriceList) -> Session:
    """No subscription, and a price list that answers."""
    return Session(replace(nobody, azure_prices_url=prices.url))


def calls(double: AzureDouble) -> Counter[str]:
    return Counter(call.operation for call in double.calls() if call.operation)


def of(offers: list[Offer], market: Market) -> list[Offer]:
    return [offer for offer in offers if offer.market is market]


def parsed(*rows: dict[str, Any]) -> dict[tuple[str, str, Market], Decimal]:
    return parse_items([json.loads(json.dumps(each), parse_float=Decimal) for each in rows], NOW)


# --- the price list's rows ---


def test_the_linux_prices_of_a_real_answer() -> None:
    answer = json.loads(CAPTURE.read_text(), parse_float=Decimal)["response"]
    assert parse_items(answer["Items"], NOW) == {
        ("Standard_D2s_v3", EAST, ON_DEMAND): Decimal("0.096"),
        ("Standard_D2s_v3", EAST, SPOT): Decimal("0.018816"),
    }


@pytest.mark.parametrize(
    "other",
    [
        row(price=0.1, product="Virtual Machines NCasT4 v3 Series Windows"),
        row(price=0.1, product="NCasT4 v3 Series CloudServices"),
        row(price=0.1, product="NCasT4 v3 Series Dedicated Host"),
        row(price=0.1, name="NC4as T4 v3 Low Priority"),
        row(price=0.1, meterName="NC4as T4 v3 - Expired"),
        row(price=0.1) | {"type": "DevTestConsumption"},
        row(price=0.1) | {"type": "Reservation", "reservationTerm": "1 Year"},
        row(price=0.1, unitOfMeasure="1 Month"),
        row(price=0.1, tierMinimumUnits=100.0),
        row(price=0.0),
        row(price=0.1, region=""),
        row(price=0.1, start="2026-12-01T00:00:00Z"),
        row(price=0.1, start="2026-11-01T00:00:00Z", effectiveEndDate="2026-11-10T00:00:00Z"),
        row(price=0.1, start="2019-08-01T00:00:00Z"),
        row(price=0.1, isPrimaryMeterRegion=False),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_row_that_is_not_what_we_pay(other: dict[str, Any], first: bool) -> None:
    rows = (other, row()) if first else (row(), other)
    assert parsed(*rows) == {(T4, EAST, ON_DEMAND): Decimal("0.526")}


def test_of_two_prices_in_force_the_newer_counts() -> None:
    rows = row(), row(price=0.6, start="2026-11-01T00:00:00Z")
    assert parsed(*rows) == {(T4, EAST, ON_DEMAND): Decimal("0.6")}


def test_spot_rows_are_apart() -> None:
    assert parsed(row(), row(price=0.1, **SPOT_ROW)) == {
        (T4, EAST, ON_DEMAND): Decimal("0.526"),
        (T4, EAST, SPOT): Decimal("0.1"),
    }


# --- asking for prices ---


def test_every_page_is_read(nobody: Settings, prices: PriceList) -> None:
    prices.rows["USD"] = [row(region=f"region{number}", price=number + 1) for number in range(25)]
    prices.page = 10
    found = retail_prices(asking(nobody, prices).settings, [T4])
    assert len(found.by_place) == 25
    assert [query.get("$skip") for query in prices.queries] == [None, "10", "20"]


def test_a_list_without_end(nobody: Settings, prices: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retail, "MOST_PAGES", 3)
    prices.endless = True
    with pytest.raises(ProviderError, match="does not end"):
        retail_prices(asking(nobody, prices).settings, [T4])


@pytest.mark.parametrize("text", ["<html>", "[]", "{}", '{"Items": 3}'])
def test_what_is_no_price_list(nobody: Settings, prices: PriceList, text: str) -> None:
    prices.text = text
    with pytest.raises(ProviderError, match="no price list"):
        retail_prices(asking(nobody, prices).settings, [T4])


def test_a_list_that_is_busy_is_asked_again(nobody: Settings, prices: PriceList) -> None:
    prices.statuses = [429, 503]
    assert retail_prices(asking(nobody, prices).settings, [T4]).by_place
    assert len(prices.queries) == 3


def test_many_sizes_take_few_calls_and_none_twice(nobody: Settings, prices: PriceList) -> None:
    settings = asking(nobody, prices).settings
    names = [known.type for known in catalog.list_types("azure")]
    retail_prices(settings, names, (EAST,))
    retail_prices(settings, names, (EAST,))
    assert len(prices.queries) == -(-len(names) // retail.TYPES_A_CALL)
    asked = " ".join(query["$filter"] for query in prices.queries)
    assert all(f"armSkuName eq '{name}'" in asked for name in names)
    assert all(len(query["$filter"]) < 1500 for query in prices.queries)


def test_a_filter_as_the_api_takes_it(nobody: Settings, prices: PriceList) -> None:
    retail_prices(asking(nobody, prices).settings, [T4], (EAST, WEST), currency="USD")
    [query] = prices.queries
    assert query["currencyCode"] == "'USD'"
    assert query["$filter"] == (
        f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armSkuName eq '{T4}' and "
        f"(armRegionName eq '{EAST}' or armRegionName eq '{WEST}')"
    )


# --- without an account ---


def test_prices_need_no_account(nobody: Settings, prices: PriceList) -> None:
    offers = find_offers(asking(nobody, prices), Need(type=T4))
    assert [(each.market, each.price_per_hour_usd) for each in offers] == [
        (SPOT, Decimal("0.1")),
        (ON_DEMAND, Decimal("0.526")),
    ]
    for offer in offers:
        assert (offer.region, offer.zone, offer.fits, offer.warning) == (EAST, "", True, "")
        assert offer.price_as_of is not None
        assert (datetime.now(UTC).date() - offer.price_as_of).days <= 1


def test_with_nobody_to_ask_the_catalogue_answers_with_its_date(nobody: Settings) -> None:
    offers = find_offers(Session(nobody), Need(type=T4, regions=(EAST,)))
    shipped = catalog.load_offers(provider="azure", type=T4, regions=(EAST,))
    assert {(each.market, each.price_per_hour_usd, each.price_as_of) for each in offers} == {
        (each.market, each.price_per_hour_usd, each.price_as_of) for each in shipped
    }


def test_nc6_is_planned_and_priced_without_an_account(nobody: Settings) -> None:
    offers = find_offers(Session(nobody), Need(type=NC6, market=ON_DEMAND, regions=(EAST,)))
    assert [(each.fits, each.price_per_hour_usd) for each in offers] == [(True, Decimal("0.9"))]


def test_prices_that_the_list_does_not_have_are_the_catalogues(nobody: Settings, prices: PriceList) -> None:
    prices.rows["USD"] = [row()]
    offers = find_offers(asking(nobody, prices), Need(type=T4))
    [spot] = of(offers, SPOT)
    [shipped] = catalog.load_offers(provider="azure", type=T4, market=SPOT, regions=(EAST,))
    assert (spot.price_per_hour_usd, spot.price_as_of) == (shipped.price_per_hour_usd, shipped.price_as_of)


def test_edges_and_clouds_of_governments_are_left_out_unless_named(
    nobody: Settings, prices: PriceList
) -> None:
    prices.rows["USD"] = [row(region=name) for name in ("attdallas1", "usgovvirginia", "brandnew", EAST)]
    session = asking(nobody, prices)
    assert {each.region for each in find_offers(session, Need(type=T4))} == {"brandnew", EAST}
    named = find_offers(session, Need(type=T4, market=ON_DEMAND, regions=("usgovvirginia", "brandnew")))
    assert {(each.region, each.price_per_hour_usd) for each in named} == {
        ("usgovvirginia", Decimal("0.526")),
        ("brandnew", Decimal("0.526")),
    }


def test_a_region_that_azure_does_not_have(nobody: Settings, prices: PriceList) -> None:
    for session in (Session(nobody), asking(nobody, prices)):
        with pytest.raises(NotFound, match="no region 'eastuss'") as caught:
            find_offers(session, Need(type=T4, regions=("eastuss",)))
        assert EAST in caught.value.hint


def test_a_type_that_nobody_has_a_price_for(nobody: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "load_offers", lambda **_: [])
    offers = find_offers(Session(nobody), Need(type=T4))
    assert [(each.fits, each.price_per_hour_usd) for each in offers] == [(False, None)] * 2
    assert "--region" in offers[0].why_not


@pytest.mark.parametrize("need", [Need(type="p2.xlarge"), Need(gpu=GpuNeed(count=99))])
def test_what_azure_never_had(nobody: Settings, need: Need) -> None:
    assert find_offers(Session(nobody), need) == []


def test_types_that_the_job_could_use() -> None:
    wanted = wanted_types("azure", "", GpuNeed(count=2, min_memory_gib=40, min_capability=8.0))
    assert wanted
    assert all(each.gpu_count >= 2 and each.gpu_memory_gib >= 40 for each in wanted)
    assert T4 not in {each.type for each in wanted}


def test_a_rehearsal_without_an_azure_does_not_ask_the_real_one(
    nobody: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cloudrun.providers.azure.offers.retail_prices", lambda *_, **__: pytest.fail("asked")
    )
    settings = replace(nobody, sim=tmp_path, azure_prices_url=AZURE_PRICES_URL)
    assert find_offers(Session(settings), Need(type=T4, regions=(EAST,)))


# --- another currency ---


def test_azure_quotes_the_currency_itself(nobody: Settings, prices: PriceList) -> None:
    prices.rows["JPY"] = [row(price=81.5)]
    offers = find_offers(asking(nobody, prices), Need(type=T4, currency="JPY"))
    assert [each.quoted for each in of(offers, ON_DEMAND)] == [(("JPY", Decimal("81.5")),)]
    assert [each.quoted for each in of(offers, SPOT)] == [()]
    assert {each.price_per_hour_usd for each in offers} == {Decimal("0.1"), Decimal("0.526")}


@pytest.mark.parametrize("currency", ["", "USD"])
def test_dollars_are_asked_for_once(nobody: Settings, prices: PriceList, currency: str) -> None:
    offers = find_offers(asking(nobody, prices), Need(type=T4, currency=currency))
    assert [each.quoted for each in offers] == [(), ()]
    assert len(prices.queries) == 1


def test_a_currency_that_azure_does_not_quote(nobody: Settings, prices: PriceList) -> None:
    offers = find_offers(asking(nobody, prices), Need(type=T4, currency="XYZ"))
    assert [each.quoted for each in offers] == [(), ()]


# --- what the subscription may have ---


def test_only_the_cheapest_regions_are_looked_at(double: AzureDouble, session: Session) -> None:
    offers = find_offers(session, Need(type=T4))
    assert len({each.region for each in offers}) > 20
    assert calls(double) == {SKUS: ROUNDS[0], USAGES: ROUNDS[0]}
    assert ROUNDS[0] >= ENOUGH
    prices = [each.price_per_hour_usd for each in offers if each.price_per_hour_usd is not None]
    assert prices == sorted(prices)


def test_planning_twice_asks_once(double: AzureDouble, session: Session) -> None:
    first = find_offers(session, Need(type=T4, regions=(EAST, WEST)))
    double.forget_calls()
    assert find_offers(Session(session.settings), Need(type=T4, regions=(EAST, WEST))) == first
    assert double.calls() == []


def test_one_region_named_is_two_calls_for_every_type(double: AzureDouble, session: Session) -> None:
    offers = find_offers(session, Need(regions=(EAST,)))
    assert len({each.type for each in offers}) > 20
    assert calls(double) == {SKUS: 1, USAGES: 1}


def test_a_restricted_size_does_not_fit_and_says_why(double: AzureDouble, session: Session) -> None:
    double.restrict("Standard_NC8as_T4_v3", EAST, "NotAvailableForSubscription")
    need = Need(type="Standard_NC8as_T4_v3", market=ON_DEMAND, regions=(EAST, WEST))
    fitting, refused = find_offers(session, need)
    assert (fitting.region, fitting.fits, fitting.why_not) == (WEST, True, "")
    assert (refused.region, refused.fits) == (EAST, False)
    assert "NotAvailableForSubscription" in refused.why_not
    assert refused.price_per_hour_usd


def test_a_quota_is_checked_before_anything_is_launched(double: AzureDouble, session: Session) -> None:
    double.set_quota("westus3", "standardNCASv3_T4Family", 2)
    double.set_quota("westus3", "lowPriorityCores", 4)
    offers = find_offers(session, Need(type=T4, regions=("westus3",)))
    [refused] = of(offers, ON_DEMAND)
    assert not refused.fits
    assert "quota in westus3 is 2 vCPUs, 0 in use, and Standard_NC4as_T4_v3 needs 4" in refused.why_not
    assert of(offers, SPOT)[0].fits


def test_where_the_cheapest_have_no_quota_others_are_looked_at(double: AzureDouble, session: Session) -> None:
    family = "StandardNCADSA100v4Family"
    need = Need(type="Standard_NC24ads_A100_v4", market=ON_DEMAND)
    cheapest = list(dict.fromkeys(each.region for each in find_offers(session, need)))[: ROUNDS[0]]
    for region in cheapest:
        double.set_quota(region, family, 0)
    for path in (session.settings.home / "cache" / "answers").iterdir():
        path.unlink()
    double.forget_calls()
    offers = find_offers(session, need)
    assert {each.region for each in offers if not each.fits} == set(cheapest)
    assert calls(double)[USAGES] == ROUNDS[0] + ROUNDS[1]
    assert calls(double)[SKUS] == ROUNDS[1]  # the long list is not asked for where the quota refuses


def test_a_size_that_cannot_be_spot(session: Session) -> None:
    offers = find_offers(session, Need(type="Standard_NC6_Promo", regions=(EAST,)))
    [spot] = of(offers, SPOT)
    assert (spot.fits, spot.why_not.partition(":")[0]) == (
        False,
        "Azure does not offer Standard_NC6_Promo as spot",
    )


def test_a_size_of_today_that_a_region_does_not_have(session: Session) -> None:
    need = Need(type="Standard_NC40ads_H100_v5", regions=("brazilsouth",))
    for offer in find_offers(session, need):
        assert (offer.fits, offer.price_per_hour_usd) == (False, None)
        assert offer.why_not == "Azure does not offer it in brazilsouth"


def test_a_retired_size_that_is_named_is_planned_priced_and_warned_of_once(session: Session) -> None:
    offers = find_offers(session, Need(type=V100))
    assert {each.market for each in offers} == {ON_DEMAND, SPOT}
    assert len(offers) == 2
    for offer in offers:
        assert offer.fits
        assert offer.price_per_hour_usd
        assert (
            "Azure does not offer it to this subscription: Standard_NC6s_v3 was retired on" in offer.warning
        )
        assert catalog.successors("azure", V100)[0] in offer.warning


def test_a_retired_size_is_not_among_all_that_can_be_had(session: Session) -> None:
    offers = [each for each in find_offers(session, Need(regions=(EAST,))) if each.type == V100]
    assert offers
    for offer in offers:
        assert not offer.fits
        assert "retired on 2025-09-30" in offer.why_not


def test_a_retired_size_that_the_subscription_still_has_is_offered(session: Session) -> None:
    for offer in find_offers(session, Need(type=NC6, regions=(EAST,))):
        assert (offer.fits, offer.why_not, offer.warning) == (True, "", REHEARSAL)


@pytest.mark.parametrize("denied", [SKUS, USAGES])
def test_a_right_that_is_missing_leaves_the_other_question(
    double: AzureDouble, session: Session, denied: str
) -> None:
    double.fault(denied, "AuthorizationFailed", status=403, times=None)
    offers = find_offers(session, Need(type="Standard_NC16as_T4_v3", regions=("northeurope",)))
    assert len(offers) == 2
    assert all(each.fits and each.price_per_hour_usd for each in offers)


def test_wrong_credentials_leave_prices_and_no_complaint(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    offers = find_offers(Session(session.settings), Need(type=T4, regions=("uksouth",)))
    assert all(each.fits and each.price_as_of for each in offers)


def test_in_a_rehearsal_prices_are_said_to_be_simulated(session: Session) -> None:
    offers = find_offers(session, Need(type=T4, regions=(EAST,)))
    assert {each.warning for each in offers} == {REHEARSAL}


def test_a_line_that_broke_is_not_tried_for_every_region(double: AzureDouble, session: Session) -> None:
    double.fault(USAGES, "ServiceUnavailable", status=400, times=None)
    offers = find_offers(session, Need(type="Standard_NC12", market=ON_DEMAND))
    assert all(each.fits for each in offers)
    assert calls(double) == {USAGES: ROUNDS[0]}


def test_a_spot_price_that_moved_is_seen(double: AzureDouble, session: Session) -> None:
    double.set_spot_price("Standard_NC64as_T4_v3", EAST, "0.0123")
    [offer] = find_offers(session, Need(type="Standard_NC64as_T4_v3", market=SPOT, regions=(EAST,)))
    assert offer.price_per_hour_usd == Decimal("0.0123")


def test_the_provider_offers_them(session: Session) -> None:
    offers = AzureProvider(session.settings).offers(Need(type=T4, regions=(EAST,), currency="JPY"))
    known = catalog.find_type("azure", T4)
    assert known is not None
    for offer in offers:
        assert (offer.provider, offer.gpu, offer.gpu_count, offer.gpu_memory_gib) == ("azure", "T4", 1, 16.0)
        assert (offer.gpu_capability, offer.vcpus, offer.memory_gib) == (7.5, known.vcpus, known.memory_gib)
        [(currency, price)] = offer.quoted
        assert currency == "JPY"
        assert offer.price_per_hour_usd is not None
        assert price > 100 * offer.price_per_hour_usd
